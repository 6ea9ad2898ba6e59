"""People through the API, each call's answer and each refusal; and the page that an invitation
leads to."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import invitations, keys, mail, people, signin
from console.actor import Actor
from console.api import document
from console.models import Event, Link, Passkey, Person, Session
from tests.conftest import PASSWORD, Clock, MakeKey, bearer, sign_in, token_of
from tests.mailbox import Mailbox
from tests.test_api import V1, access_token, assert_problem

PERSON_FIELDS = {
    "id", "email", "name", "owner", "roles", "disabled", "invited", "second_factor",
    "last_signed_in_at", "created_at",
}  # fmt: skip
GRACE = {"email": "grace@example.com"}
DENIED = "This invitation does not hold"
Call = Callable[..., TestResponse]


@pytest.fixture
def call(clock: Clock, client: FlaskClient, owner: Actor) -> Call:
    """`call("POST", "/people", {…})` as the owner or with another credential; the time stands."""
    owners = access_token(client, owner)

    def make(method: str, path: str, body: Any = None, *, by: str | None = owners) -> TestResponse:
        more = {} if body is None else {"json": body}
        return client.open(V1 + path, method=method, headers=bearer(by) if by else {}, **more)

    return make


def faults(answer: TestResponse) -> dict[str, str]:
    """The fields at fault in a 400, and what is said of them."""
    problem = assert_problem(answer, 400, "INVALID", "errors")
    return {error["field"]: error["message"] for error in problem["errors"]}


# --- create -----------------------------------------------------------------------------------


def test_create_person_with_a_password_answers_the_person(call: Call, client: FlaskClient) -> None:
    sent = {**GRACE, "name": "Grace", "password": PASSWORD, "roles": {"shop": "viewer"}}
    answer = call("POST", "/people", sent)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    created = answer.json
    assert created.keys() == PERSON_FIELDS and created["id"].startswith("per_")
    assert {name: created[name] for name in PERSON_FIELDS - {"id"}} == {
        "email": "grace@example.com",
        "name": "Grace",
        "owner": False,
        "roles": {"shop": "viewer"},
        "disabled": False,
        "invited": False,
        "second_factor": False,
        "last_signed_in_at": None,
        "created_at": "2026-11-20T10:30:00Z",
    }
    assert answer.headers["Location"] == f"{V1}/people/{created['id']}"
    assert call("GET", f"/people/{created['id']}").json == created
    token = {**GRACE, "password": PASSWORD}
    assert client.post(f"{V1}/auth/token", json=token).status_code == 200


def test_create_person_without_a_password_answers_a_link(call: Call, app: Flask) -> None:
    answer = call("POST", "/people", GRACE)
    assert answer.json.keys() == PERSON_FIELDS | {"invitation_url"}
    assert answer.json["invited"] is True and answer.json["name"] == "grace"
    url = answer.json["invitation_url"]
    assert url.startswith(f"{app.config['LATCHKEY'].base_url}/invitation?token=")
    assert "invitation_url" not in call("GET", f"/people/{answer.json['id']}").json


def test_a_link_that_was_mailed_is_not_in_the_answer(call: Call) -> None:
    with Mailbox() as mailbox:
        mail.use(mailbox.url, "keys@shop.example")
        created = call("POST", "/people", GRACE).json
        again = call("POST", f"/people/{created['id']}/invitation").json
        person = call("POST", "/people", {"email": "b@example.com", "password": PASSWORD}).json
        reset = call("POST", f"/people/{person['id']}/password-reset").json
        assert [one.to for one in mailbox.mails] == [[GRACE["email"]]] * 2 + [["b@example.com"]]
    assert created.keys() == PERSON_FIELDS | {"invitation_mailed_to"}
    assert again == {
        "invitation_mailed_to": GRACE["email"], "expires_at": "2026-11-27T10:30:00Z"
    }  # fmt: skip
    assert reset == {"mailed_to": "b@example.com", "expires_at": "2026-11-21T10:30:00Z"}
    mail.use("smtp://127.0.0.1:1", "keys@shop.example")
    shown = call("POST", f"/people/{created['id']}/invitation").json
    mail.use("", "")
    assert shown.keys() == {"invitation_url", "not_mailed", "expires_at"}
    assert "cannot be reached" in shown["not_mailed"]


def test_create_person_refuses_a_taken_address(call: Call) -> None:
    problem = assert_problem(
        call("POST", "/people", {"email": " ADA@example.com"}), 409, "CONFLICT", "errors"
    )
    assert problem["errors"] == [{"field": "email", "message": "is taken"}]


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "email"),
        ({"email": "grace"}, "email"),
        ({**GRACE, "name": ""}, "name"),
        ({**GRACE, "password": "short"}, "password"),
        ({**GRACE, "owner": 1}, "owner"),
        ({**GRACE, "roles": {"shop": "owner"}}, "roles.shop"),
        ({**GRACE, "roles": {"gone": "viewer"}}, "roles.gone"),
        ({**GRACE, "disabled": True}, "disabled"),
        (["grace"], "body"),
    ],
)
def test_create_person_names_the_field_at_fault(call: Call, body: Any, field: str) -> None:
    assert list(faults(call("POST", "/people", body))) == [field]
    assert Person.select().count() == 1 and not Link.select().exists()


# --- read -------------------------------------------------------------------------------------


def test_list_people_answers_everybody_newest_first_in_pages(
    call: Call, clock: Clock, member: Actor
) -> None:
    clock.move("1m")
    call("POST", "/people", {**GRACE, "roles": {"shop": "admin"}})
    first = call("GET", "/people?limit=1").json
    assert first.keys() == {"data", "next_cursor"}
    rest = call("GET", f"/people?limit=200&cursor={first['next_cursor']}").json
    everybody = [*first["data"], *rest["data"]]
    assert all(person.keys() == PERSON_FIELDS for person in everybody)
    assert everybody[0]["email"] == "grace@example.com" and rest["next_cursor"] is None
    assert {person["email"]: person["roles"] for person in everybody} == {
        "grace@example.com": {"shop": "admin"},
        "bob@example.com": {"shop": "member"},
        "ada@example.com": {},
    }
    for person in everybody:
        assert call("GET", f"/people/{person['id']}").json == person


@pytest.mark.parametrize(
    "q, found",
    [
        ("BO", ["bob"]),
        ("example.COM", ["ada", "bob"]),
        ("ob@", ["bob"]),
        ("%", []),
        ("_", []),
        ("nobody", []),
    ],
)
def test_list_people_finds_by_name_and_address(
    call: Call, member: Actor, q: str, found: list[str]
) -> None:
    listed = call("GET", f"/people?q={quote(q)}").json["data"]
    assert sorted(person["name"] for person in listed) == found


def test_list_people_finds_small_letters_by_large_ones_in_any_script(
    call: Call, member: Actor
) -> None:
    call("PATCH", f"/people/{member.id}", {"name": "\u00c9mile \u0416ukov"})
    for q in ("\u00e9mile", "\u0436ukov", "\u00c9MILE \u0416"):
        listed = call("GET", f"/people?q={quote(q)}").json["data"]
        assert [person["email"] for person in listed] == ["bob@example.com"]


def test_a_person_tells_how_they_sign_in_and_when_they_last_did(call: Call, member: Actor) -> None:
    path = f"/people/{member.id}"
    assert call("GET", path).json["last_signed_in_at"] == "2026-11-20T10:30:00Z"
    assert call("GET", path).json["second_factor"] is False
    Passkey.create(id="x", person=member.id, name="x", public_key=b"", sign_count=0, created_at=0)
    assert call("GET", path).json["second_factor"] is False
    Person.update(password_hash=None).where(Person.id == member.id).execute()
    assert call("GET", path).json["second_factor"] is True
    Passkey.delete().execute()
    assert call("GET", path).json["second_factor"] is False
    Person.update(totp_secret=b"x").where(Person.id == member.id).execute()
    assert call("GET", path).json["second_factor"] is True


@pytest.mark.parametrize("query", ["limit=0", "cursor=x", "email=ada"])
def test_list_people_names_the_part_of_the_query_at_fault(call: Call, query: str) -> None:
    assert list(faults(call("GET", f"/people?{query}"))) == [query.partition("=")[0]]


# --- edit -------------------------------------------------------------------------------------


def test_edit_person_changes_what_is_sent_alone(call: Call, member: Actor) -> None:
    path = f"/people/{member.id}"
    before = call("GET", path).json
    for change in (
        {"name": "Robert"},
        {"email": "robert@example.com"},
        {"roles": {}},
        {"owner": True},
        {"disabled": True},
        {"disabled": False},
    ):
        answer = call("PATCH", path, change)
        assert (answer.status_code, answer.json) == (200, {**before, **change})
        before = answer.json
    changed = call("PATCH", path, {"password": "a new password"})
    assert changed.json == before and "password" not in changed.text


def test_a_person_who_is_given_a_password_is_invited_no_longer(call: Call) -> None:
    created = call("POST", "/people", GRACE).json
    answer = call("PATCH", f"/people/{created['id']}", {"password": PASSWORD})
    assert answer.json["invited"] is False
    assert_problem(call("POST", f"/people/{created['id']}/invitation"), 409, "CONFLICT")


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"password": "a new password"}, {"roles": {}}, {"owner": True}],
    ids=lambda change: next(iter(change)),
)
def test_a_persons_token_and_browser_end_with_the_edit(
    call: Call, app: Flask, client: FlaskClient, member: Actor, change: dict[str, Any]
) -> None:
    token, browser = access_token(client, member), sign_in(app, member)
    assert call("GET", "/api-keys", by=token).status_code == 200
    assert browser.get("/projects/shop/keys").status_code == 200
    assert call("PATCH", f"/people/{member.id}", change).status_code == 200
    assert_problem(call("GET", "/api-keys", by=token), 401, "TOKEN_INVALID")
    assert browser.get("/projects/shop/keys").location.startswith("/login")


@pytest.mark.parametrize(
    "body, field",
    [
        ({"email": None}, "email"),
        ({"name": ""}, "name"),
        ({"password": None}, "password"),
        ({"roles": {"gone": "viewer"}}, "roles.gone"),
        ({"owner": "true"}, "owner"),
        ({"disabled": 0}, "disabled"),
        ({"invited": True}, "invited"),
        ("ada", "body"),
    ],
)
def test_edit_person_names_the_field_at_fault(
    call: Call, member: Actor, body: Any, field: str
) -> None:
    before = call("GET", f"/people/{member.id}").json
    assert list(faults(call("PATCH", f"/people/{member.id}", body))) == [field]
    assert call("GET", f"/people/{member.id}").json == before


def test_edit_person_refuses_a_taken_address(call: Call, member: Actor) -> None:
    answer = call("PATCH", f"/people/{member.id}", {"email": "ada@example.com"})
    problem = assert_problem(answer, 409, "CONFLICT", "errors")
    assert problem["errors"] == [{"field": "email", "message": "is taken"}]


@pytest.mark.parametrize("change", [{"owner": False}, {"disabled": True}])
def test_edit_person_refuses_to_leave_no_owner(
    call: Call, owner: Actor, change: dict[str, Any]
) -> None:
    problem = assert_problem(call("PATCH", f"/people/{owner.id}", change), 409, "CONFLICT")
    assert "make somebody else an owner first" in problem["detail"]
    assert call("GET", f"/people/{owner.id}").json["owner"] is True


def test_an_owner_who_changes_their_own_password_signs_in_anew(
    call: Call, client: FlaskClient, owner: Actor
) -> None:
    answer = call("PATCH", f"/people/{owner.id}", {"password": "a new password"})
    assert answer.status_code == 200
    assert_problem(call("GET", "/people"), 401, "TOKEN_INVALID")
    again = {"email": owner.name, "password": "a new password"}
    token = client.post(f"{V1}/auth/token", json=again).json["access_token"]
    assert call("GET", "/people", by=token).status_code == 200


# --- a link to a new password -----------------------------------------------------------------


def test_an_owner_makes_a_link_to_a_new_password(
    call: Call, client: FlaskClient, member: Actor
) -> None:
    answer = call("POST", f"/people/{member.id}/password-reset")
    assert answer.status_code == 201
    assert answer.json.keys() == {"reset_url", "expires_at"}
    assert answer.json["expires_at"] == "2026-11-21T10:30:00Z"
    page = client.get(local(answer.json["reset_url"]))
    assert page.status_code == 200 and member.name in page.text
    invited = call("POST", "/people", GRACE).json
    assert_problem(call("POST", f"/people/{invited['id']}/password-reset"), 409, "CONFLICT")


# --- delete -----------------------------------------------------------------------------------


def test_delete_person_removes_them(call: Call, client: FlaskClient, member: Actor) -> None:
    token = access_token(client, member)
    answer = call("DELETE", f"/people/{member.id}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert_problem(call("GET", f"/people/{member.id}"), 404, "NOT_FOUND")
    assert_problem(call("GET", "/projects", by=token), 401, "TOKEN_INVALID")


def test_delete_person_refuses_while_they_own_keys(
    call: Call, member: Actor, make_key: MakeKey, operator: Actor
) -> None:
    key, _ = make_key(by=member)
    problem = assert_problem(call("DELETE", f"/people/{member.id}"), 409, "CONFLICT")
    assert "owns 1 key" in problem["detail"]
    keys.delete(key.id, by=operator)
    assert call("DELETE", f"/people/{member.id}").status_code == 204


def test_delete_person_refuses_to_leave_no_owner(call: Call, owner: Actor) -> None:
    assert_problem(call("DELETE", f"/people/{owner.id}"), 409, "CONFLICT")


# --- invite again -----------------------------------------------------------------------------


def test_invite_person_answers_a_new_link_and_ends_the_old(
    call: Call, app: Flask, client: FlaskClient
) -> None:
    created = call("POST", "/people", GRACE).json
    answer = call("POST", f"/people/{created['id']}/invitation")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json.keys() == {"invitation_url", "expires_at"}
    assert answer.json["expires_at"] == "2026-11-27T10:30:00Z"
    assert answer.headers["Location"] == f"{V1}/people/{created['id']}"
    assert client.get(local(created["invitation_url"])).status_code == 403
    assert client.get(local(answer.json["invitation_url"])).status_code == 200


def test_invite_person_refuses_whoever_can_sign_in_or_is_disabled(
    call: Call, member: Actor
) -> None:
    assert_problem(call("POST", f"/people/{member.id}/invitation"), 409, "CONFLICT")
    created = call("POST", "/people", GRACE).json
    call("PATCH", f"/people/{created['id']}", {"disabled": True})
    assert_problem(call("POST", f"/people/{created['id']}/invitation"), 409, "CONFLICT")


# --- who may ----------------------------------------------------------------------------------

CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/people", None),
    ("POST", "/people", GRACE),
    ("GET", "/people/{id}", None),
    ("PATCH", "/people/{id}", {"name": "Mine"}),
    ("DELETE", "/people/{id}", None),
    ("POST", "/people/{id}/invitation", None),
    ("POST", "/people/{id}/password-reset", None),
]


@pytest.mark.parametrize("method, path, body", CALLS)
def test_people_are_an_owners_alone(
    call: Call, client: FlaskClient, make_key: MakeKey, owner: Actor, admin: Actor, member: Actor,
    viewer: Actor, stranger: Actor, method: str, path: str, body: Any,
) -> None:  # fmt: skip
    credentials = [access_token(client, person) for person in (admin, member, viewer, stranger)]
    credentials.append(make_key(by=owner, permissions=["admin:*"])[1])
    before = list(Person.select().order_by(Person.id).tuples())
    for credential in credentials:
        told = set()
        for person_id in (viewer.id, "per_missing"):
            answer = call(method, path.format(id=person_id), body, by=credential)
            told.add(assert_problem(answer, 403, "FORBIDDEN")["detail"])
        assert told == {"Only an owner sees and changes people."}
    answer = call(method, path.format(id=viewer.id), body, by=None)
    assert_problem(answer, 401, "API_KEY_MISSING")
    assert list(Person.select().order_by(Person.id).tuples()) == before


@pytest.mark.parametrize("method, path, body", CALLS[2:])
@pytest.mark.parametrize("person_id", ["per_missing", "%00", "ada@example.com", "a" * 5_000])
def test_a_person_who_is_not_there_is_unknown(
    call: Call, method: str, path: str, body: Any, person_id: str
) -> None:
    problem = assert_problem(call(method, path.format(id=person_id), body), 404, "NOT_FOUND")
    assert problem["detail"] == "There is no such person."


def test_the_calls_are_described() -> None:
    paths = document.build("https://keys.example.com")["paths"]
    assert paths[f"{V1}/people"].keys() == {"get", "post"}
    assert paths[f"{V1}/people/{{person_id}}"].keys() == {"get", "patch", "delete"}
    assert paths[f"{V1}/people/{{person_id}}/invitation"].keys() == {"post"}
    assert paths[f"{V1}/people/{{person_id}}/password-reset"].keys() == {"post"}


# --- the page that an invitation leads to -----------------------------------------------------


def local(url: str) -> str:
    """The URL without the installation's address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def invitation(owner: Actor, **more: Any) -> str:
    """The token of an invitation for grace@example.com."""
    _, sent = people.create({**GRACE, **more}, by=owner)
    assert sent is not None
    return token_of(sent)


def test_the_link_leads_to_a_form_that_signs_in(call: Call, app: Flask) -> None:
    created = call("POST", "/people", {**GRACE, "roles": {"shop": "viewer"}}).json
    browser = app.test_client()
    page = browser.get(local(created["invitation_url"]))
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert 'value="grace@example.com"' in page.text
    form = dict(re.findall(r'name="(token|name)"[^>]* value="([^"]*)"', page.text))
    assert form["name"] == "grace"
    answer = browser.post("/invitation", data={**form, "name": "Grace", "password": PASSWORD})
    assert (answer.status_code, answer.location) == (303, "/")
    home = browser.get("/", follow_redirects=True)
    assert home.request.path == "/projects/shop/keys" and "grace@example.com" in home.text
    person = call("GET", f"/people/{created['id']}").json
    assert (person["invited"], person["name"]) == (False, "Grace")
    actions = [event.action for event in Event.select().where(Event.actor_id == created["id"])]
    assert actions == ["person.joined", "person.signed_in"]


def test_the_link_works_once(app: Flask, owner: Actor) -> None:
    token = invitation(owner)
    form = {"token": token, "password": PASSWORD}
    assert app.test_client().post("/invitation", data=form).status_code == 303
    sessions = Session.select().count()
    for answer in (
        app.test_client().get(f"/invitation?token={token}"),
        app.test_client().post("/invitation", data={**form, "password": "another password"}),
    ):
        assert answer.status_code == 403
        assert DENIED in answer.text and "Ask an owner for a new one" in answer.text
    assert Session.select().count() == sessions
    signin.with_password("grace@example.com", PASSWORD, ip=None)


@pytest.mark.parametrize("token", ["", "guess", "%00", "%ED%A0%80", "x" * 5_000])
def test_an_unknown_link_says_what_to_do(client: FlaskClient, owner: Actor, token: str) -> None:
    invitation(owner)
    answer = client.get(f"/invitation?token={token}")
    assert answer.status_code == 403 and DENIED in answer.text
    assert client.post("/invitation", data={"password": PASSWORD}).status_code == 403


def test_a_link_ends_after_a_week(clock: Clock, client: FlaskClient, owner: Actor) -> None:
    token = invitation(owner)
    clock.move("7d")
    assert client.get(f"/invitation?token={token}").status_code == 403


def test_a_disabled_person_is_not_let_in(client: FlaskClient, owner: Actor) -> None:
    token = invitation(owner)
    Person.update(disabled_at=1).where(Person.email == "grace@example.com").execute()
    assert client.get(f"/invitation?token={token}").status_code == 403
    form = {"token": token, "password": PASSWORD}
    assert client.post("/invitation", data=form).status_code == 403


def test_the_form_keeps_what_was_typed_and_names_the_field(
    client: FlaskClient, owner: Actor
) -> None:
    token = invitation(owner)
    form = {"token": token, "name": "Amazing <Grace>", "password": "tiny"}
    answer = client.post("/invitation", data=form)
    assert answer.status_code == 422
    assert "Must have at least 8 characters." in answer.text
    assert (
        'value="Amazing &lt;Grace&gt;"' in answer.text
        and 'value="grace@example.com"' in answer.text
    )
    assert "tiny" not in answer.text
    hidden = client.post("/invitation", data={**form, "name": "a\u202eb", "password": PASSWORD})
    assert hidden.status_code == 422 and "U+202E" in hidden.text
    assert invitations.invited(token)


def test_the_address_cannot_be_chosen(client: FlaskClient, owner: Actor) -> None:
    token = invitation(owner)
    form = {"token": token, "password": PASSWORD, "email": "eve@example.com", "owner": "1"}
    assert client.post("/invitation", data=form).status_code == 303
    person = Person.get(Person.email == "grace@example.com")
    assert not person.is_owner and Person.select().count() == 2


def test_the_form_needs_its_csrf_token(app: Flask, owner: Actor) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    token, browser = invitation(owner), app.test_client()
    form = {"token": token, "password": PASSWORD}
    assert browser.post("/invitation", data=form).status_code == 400
    page = browser.get(f"/invitation?token={token}").text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    answer = browser.post("/invitation", data={**form, "csrf_token": found[1]})
    assert answer.status_code == 303


def test_whoever_was_signed_in_there_is_signed_out(app: Flask, owner: Actor) -> None:
    token, browser = invitation(owner), sign_in(app, owner)
    before = {session.id for session in Session.select()}
    assert browser.post("/invitation", data={"token": token, "password": PASSWORD}).location == "/"
    assert "grace@example.com" in browser.get("/").text
    ended = before - {session.id for session in Session.select()}
    assert len(ended) == 1
