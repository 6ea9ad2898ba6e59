"""The browser's door: coming in and going out, what a dialog answers, what every page carries."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import db, first_owner, journal, sessions
from console.actor import Actor
from console.models import Event, Key, Person, Project, Session
from tests.conftest import PASSWORD, MakeKey, bearer, sign_in

DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}
OWNER = {"email": "ada@example.com", "password": PASSWORD}


# --- coming in --------------------------------------------------------------------------------


def test_the_first_page_tells_where_the_set_up_link_is(client: FlaskClient) -> None:
    assert "set-up link that the server printed" in client.get("/").text


def test_set_up_makes_the_owner_and_a_project_and_signs_in(client: FlaskClient) -> None:
    token = first_owner.issue_setup_link()
    assert "Become the owner" in client.get(f"/setup?token={token}").text
    answer = client.post("/setup", data={**OWNER, "token": token, "project": "Shop API"})
    assert answer.status_code == 303
    assert client.get("/", follow_redirects=True).request.path == "/projects/shop-api/keys"
    assert Person.get().is_owner
    assert [event.action for event in Event.select().order_by(Event.id)] == [
        "person.created",
        "project.created",
        "person.signed_in",
    ]


def test_set_up_is_gone_afterwards(client: FlaskClient) -> None:
    token = first_owner.issue_setup_link()
    client.post("/setup", data={**OWNER, "token": token})
    for answer in (
        client.get(f"/setup?token={token}"),
        client.post("/setup", data={"email": "eve@example.com", "password": PASSWORD}),
    ):
        assert answer.status_code == 404
    assert Person.select().count() == 1
    assert first_owner.issue_setup_link() is None


def test_set_up_is_done_where_signing_in_has_to_wait(client: FlaskClient) -> None:
    token = first_owner.issue_setup_link()
    for number in range(32):
        form = {"email": f"{number}@example.com", "password": "wrong"}
        client.post("/login", data=form)
    answer = client.post("/setup", data={**OWNER, "token": token})
    assert (answer.status_code, answer.location) == (303, "/login")
    assert "Latchkey is set up. Too many wrong attempts" in client.get("/login").text
    assert Person.get().is_owner


@pytest.mark.parametrize("token", ["", "guess"])
def test_set_up_needs_the_printed_link(client: FlaskClient, token: str) -> None:
    first_owner.issue_setup_link()
    assert client.get(f"/setup?token={token}").status_code == 403
    assert client.post("/setup", data={**OWNER, "token": token}).status_code == 403
    assert not Person.select().exists()


def test_set_up_keeps_what_was_typed_and_names_the_field(client: FlaskClient) -> None:
    token = first_owner.issue_setup_link()
    answer = client.post(
        "/setup", data={"token": token, "email": "ada@example.com", "password": "short"}
    )
    assert answer.status_code == 422
    assert "Must have at least 8 characters." in answer.text
    assert 'value="ada@example.com"' in answer.text
    assert "short" not in answer.text
    assert not Project.select().exists()


@pytest.mark.parametrize(
    ("email", "password"),
    [("ada@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("", ""), ("a" * 9999, "x")],
)
def test_sign_in_says_the_same_whatever_was_wrong(
    client: FlaskClient, owner: Actor, email: str, password: str
) -> None:
    answer = client.post("/login", data={"email": email, "password": password})
    assert answer.status_code == 401
    assert "Email or password is wrong." in answer.text


def test_sign_in_goes_where_one_wanted_to_but_never_to_another_host(
    app: Flask, owner: Actor
) -> None:
    for target, expected in {
        "/projects/shop/activity": "/projects/shop/activity",
        "//evil.example": "/",
        "/\\evil.example": "/",
        "/\t/evil.example": "/",
        "/.//evil.example": "/",
        "/.\\/evil.example": "/",
        "/projects/shop//evil.example": "/",
        "/account?next=//evil.example": "/account?next=//evil.example",
        "https://evil.example/": "/",
        "javascript:alert(1)": "/",
    }.items():
        answer = app.test_client().post(
            "/login",
            query_string={"next": target},
            data={"email": owner.name, "password": PASSWORD},
        )
        assert answer.location == expected, target


def test_sign_out_ends_the_session_on_the_server(signed_in: FlaskClient) -> None:
    cookie = signed_in.get_cookie("latchkey")
    assert cookie is not None
    assert signed_in.get("/projects/shop/keys").status_code == 200
    answer = signed_in.post("/logout")
    assert answer.headers["Clear-Site-Data"]
    signed_in.set_cookie("latchkey", cookie.value)
    assert signed_in.get("/projects/shop/keys").location.startswith("/login")


def test_each_sign_in_is_a_session_of_its_own(app: Flask, owner: Actor) -> None:
    before = Session.select().count()
    first, second = sign_in(app, owner), sign_in(app, owner)
    assert Session.select().count() == before + 2
    first.post("/logout")
    assert second.get("/projects/shop/keys").status_code == 200


def test_a_disabled_person_is_out_at_the_next_page(signed_in: FlaskClient, owner: Actor) -> None:
    Person.update(disabled_at=1).where(Person.id == owner.id).execute()
    assert signed_in.get("/projects/shop/keys").location.startswith("/login")


def test_an_ended_session_sends_a_dialog_to_the_sign_in_page(client: FlaskClient) -> None:
    answer = client.get("/projects/shop/keys/new", headers=DIALOG)
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login"


def test_sign_in_leads_back_to_the_page_as_it_was_filtered(client: FlaskClient) -> None:
    filtered = "/projects/shop/audit-log?status=denied&method=POST"
    location = client.get(filtered).location
    assert parse_qs(urlsplit(location).query) == {"next": [filtered]}
    current = {"HX-Current-URL": f"http://localhost{filtered}"}
    target = client.get("/projects/shop/keys/new", headers={**DIALOG, **current})
    assert parse_qs(urlsplit(target.headers["HX-Redirect"]).query) == {"next": [filtered]}
    elsewhere = {"HX-Current-URL": f"https://evil.example{filtered}"}
    target = client.get("/projects/shop/keys/new", headers={**DIALOG, **elsewhere})
    assert target.headers["HX-Redirect"] == "/login"


def test_a_form_stays_when_its_session_has_ended(client: FlaskClient) -> None:
    answer = client.post("/projects/shop/keys/new", data={"name": "Typed"}, headers=DIALOG)
    assert (answer.status_code, answer.text) == (401, "")
    assert answer.headers["HX-Reswap"] == "none"
    assert "HX-Redirect" not in answer.headers
    words = json.loads(answer.headers["HX-Trigger"])["notice"]["words"]
    assert words.startswith("You are signed out.")


def test_a_form_of_an_older_session_stays_and_gets_the_token_of_the_present_one(
    app: Flask, signed_in: FlaskClient
) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    form = {"name": "Typed", "expiration": "1d", "csrf_token": "of another session"}
    refused = signed_in.post("/projects/shop/keys/new", data=form, headers=DIALOG)
    assert (refused.status_code, refused.text, refused.headers["HX-Reswap"]) == (400, "", "none")
    form["csrf_token"] = json.loads(refused.headers["HX-Trigger"])["token"]
    assert (
        "This is the only time"
        in signed_in.post("/projects/shop/keys/new", data=form, headers=DIALOG).text
    )


def test_a_refusal_leads_back_to_where_one_was_and_nowhere_else(signed_in: FlaskClient) -> None:
    for referrer, back in {
        "http://localhost/projects/shop/keys?q=a&sort=name": (
            "/projects/shop/keys?q=a&amp;sort=name"
        ),
        "https://evil.example/projects/shop/keys": "/",
        "http://localhost//evil.example/x": "/",
        "http://localhost/.//evil.example/x": "/",
        "http://[": "/",
    }.items():
        answer = signed_in.post("/projects/shop/keys/revoke", headers={"Referer": referrer})
        assert answer.status_code == 400
        assert f'class="button" href="{back}"' in answer.text


# --- dialogs ----------------------------------------------------------------------------------


def test_a_dialog_is_a_fragment_for_htmx_and_a_page_without_scripts(
    signed_in: FlaskClient,
) -> None:
    fragment = signed_in.get("/projects/shop/keys/new", headers=DIALOG)
    page = signed_in.get("/projects/shop/keys/new")
    assert "<html" not in fragment.text
    assert "<html" in page.text
    assert "Create Key" in fragment.text
    assert "Create Key" in page.text
    assert "HX-Request" in fragment.headers["Vary"]


def test_create_shows_the_secret_in_its_own_answer_and_never_again(
    app: Flask, signed_in: FlaskClient
) -> None:
    answer = signed_in.post(
        "/projects/shop/keys/new", data={"name": "CI", "expiration": "never"}, headers=DIALOG
    )
    assert answer.status_code == 200
    found = re.search(r"sk_live_[0-9A-Za-z]{36}", answer.text)
    assert found
    assert answer.headers["Cache-Control"] == "no-store"
    key = Key.get()
    assert json.loads(answer.headers["HX-Trigger"]) == {"keys-changed": {"id": key.id}}
    for path in ("keys", f"keys/{key.id}", f"keys/{key.id}/edit", "activity", "audit-log"):
        assert found[0] not in signed_in.get(f"/projects/shop/{path}").text
    assert app.test_client().get("/api/v1/whoami", headers=bearer(found[0])).status_code == 200


def test_a_change_closes_the_dialog_and_makes_the_table_fetch_itself(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    answer = signed_in.post(f"/projects/shop/keys/{key.id}/revoke", headers=DIALOG)
    assert answer.status_code == 204
    events = json.loads(answer.headers["HX-Trigger"])
    assert events.keys() == {"keys-changed", "close-dialog", "notice"}
    assert events["notice"]["words"] == "CI revoked"


def test_the_key_limit_is_told_in_the_dialog_with_what_was_typed(
    signed_in: FlaskClient, make_key: MakeKey, project: Project
) -> None:
    Project.update(key_limit=1).where(Project.id == project.id).execute()
    make_key()
    answer = signed_in.post(
        "/projects/shop/keys/new", data={"name": "One more", "expiration": "1d"}, headers=DIALOG
    )
    assert answer.status_code == 409
    assert "1 are allowed" in answer.text
    assert 'value="One more"' in answer.text


def test_a_key_of_another_project_is_not_found(
    app: Flask, stranger: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key()
    browser = sign_in(app, stranger)
    for path in (
        f"shop/keys/{key.id}",
        f"other/keys/{key.id}",
        "other/keys/key_nothere",
        "shop/keys",
        "nothere/keys",
    ):
        assert browser.get(f"/projects/{path}").status_code == 404, path


def test_a_page_finds_only_the_keys_of_the_project_that_its_address_names(
    signed_in: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    key, _ = make_key()
    for action in ("", "/edit", "/rotate", "/revoke", "/delete", "/audit-log"):
        assert signed_in.get(f"/projects/shop/keys/{key.id}{action}").status_code == 200
        assert signed_in.get(f"/projects/other/keys/{key.id}{action}").status_code == 404, action


def test_a_viewer_reads_and_is_offered_no_change(
    app: Flask, viewer: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key()
    browser = sign_in(app, viewer)
    page = browser.get("/projects/shop/keys").text
    assert "View Audit Log" in page
    assert "Create API Key" not in page
    assert "Rotate" not in page
    for path in ("new", f"{key.id}/edit", f"{key.id}/rotate", f"{key.id}/delete"):
        assert browser.get(f"/projects/shop/keys/{path}").status_code == 403, path
        assert browser.post(f"/projects/shop/keys/{path}", data={}).status_code == 403, path


def test_a_hostile_name_is_shown_as_text(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key(name='<img src=x onerror=alert(1)>"')
    for path in ("keys", f"keys/{key.id}", f"keys/{key.id}/delete", "activity"):
        page = signed_in.get(f"/projects/shop/{path}").text
        assert "&lt;img src=x" in page
        assert "<img" not in page


# --- what every page carries ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/projects/shop/keys", "/nowhere", "/api/v1/whoami"])
def test_every_answer_carries_the_safety_headers(signed_in: FlaskClient, path: str) -> None:
    headers = signed_in.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Request-Id"].startswith("req_")


def test_no_page_has_inline_script_or_style(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key()
    for path in ("keys", f"keys/{key.id}", "keys/new", f"keys/{key.id}/rotate", "audit-log"):
        page = signed_in.get(f"/projects/shop/{path}").text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page), path


def test_the_cookie_is_for_this_host_and_no_script(app: Flask, owner: Actor) -> None:
    answer = app.test_client().post("/login", data={"email": owner.name, "password": PASSWORD})
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_a_failing_database_is_503_with_a_page(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise peewee.OperationalError("disk I/O error")

    monkeypatch.setattr(sessions, "by_session", fail)
    answer = signed_in.get("/projects/shop/keys")
    assert answer.status_code == 503
    assert "cannot be used at the moment" in answer.text
    assert answer.headers["Retry-After"] == "1"


def test_a_fault_of_ours_shows_its_request_id_and_nothing_else(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the inner workings")

    monkeypatch.setattr(sessions, "by_session", fail)
    answer = signed_in.get("/projects/shop/keys")
    assert answer.status_code == 500
    assert answer.headers["X-Request-Id"] in answer.text
    assert "inner workings" not in answer.text


def test_the_process_tells_whether_it_is_well(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200

    def fail(*_: object) -> None:
        raise peewee.OperationalError("attempt to write a readonly database")

    def full() -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(journal, "probe", full)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json["reason"] == "the journal cannot be written"
    monkeypatch.setattr(db.handle.obj, "begin", fail)
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["reason"] == "the database cannot be written"


def test_who_has_signed_in_in_another_tab_is_where_this_one_leads(
    app: Flask, signed_in: FlaskClient
) -> None:
    app.config.update(WTF_CSRF_ENABLED=True)
    form = {"email": "ada@example.com", "password": PASSWORD, "csrf_token": "of-before"}
    answer = signed_in.post("/login?next=/people", data=form)
    assert (answer.status_code, answer.location) == (303, "/people")
    assert signed_in.get("/login?next=/account").location == "/account"
    assert signed_in.get("/login?next=//evil.example.com").location == "/"
