"""The account page: what is one's own to see and change, with the recovery codes shown once."""

import html
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import account, links, people, second_factor, sessions, signin
from console.actor import Actor
from console.errors import Invalid, NotFresh, Unauthenticated, Unknown
from console.links import RESET
from console.models import Event, Link, Person, RecoveryCode, Session
from console.web.account import client_words
from tests.conftest import (
    PASSWORD,
    V1,
    Clock,
    add_second_factor,
    bearer,
    code_of,
    sign_in,
)

NEW = "three words here"
IN_DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}


def here(owner: Actor) -> tuple[str, Actor]:
    token, _ = signin.with_password(owner.name, PASSWORD, ip="192.0.2.7")
    actor = sessions.by_session(token, ip="192.0.2.7")
    assert actor is not None
    return token, actor


def codes_on(page: str) -> list[str]:
    return re.findall(r"(?:[a-z2-7]{4}-){5}[a-z2-7]{4}", page)


def seed_on(page: str) -> tuple[str, str]:
    """The sealed seed in the form, and the seed as one types it."""
    sealed = re.search(r'name="seed" value="([^"]+)"', page)
    text = re.search(r'id="seed-text"[^>]*>([A-Z2-7 ]+)<', page)
    assert sealed and text
    return html.unescape(sealed[1]), text[1].replace(" ", "")


# --- name and password --------------------------------------------------------------------------


def test_one_changes_ones_own_name_alone(member: Actor, owner: Actor) -> None:
    account.rename({"name": "Robert"}, by=member)
    assert Person.get_by_id(member.id).name == "Robert"
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.actor_id, event.target_id) == (
        "person.edited", member.id, member.id)  # fmt: skip
    assert event.changes == {"name": ["bob", "Robert"]}
    count = Event.select().count()
    account.rename({"name": "Robert"}, by=member)
    assert Event.select().count() == count
    for fields in ({"name": ""}, {"name": "Ro\u202ebert"}, {}, {"name": "B", "email": "x@y.z"}):
        with pytest.raises(Invalid):
            account.rename(fields, by=member)


def test_a_password_is_changed_with_the_old_one(owner: Actor) -> None:
    token, actor = here(owner)
    other, _ = here(owner)
    links.issue(RESET, owner.id)
    for old in ({}, {"old_password": ""}, {"old_password": "wrong"}, {"old_password": None}):
        with pytest.raises(Invalid) as refusal:
            account.change_password(token, {**old, "password": NEW}, by=actor)
        assert refusal.value.fields == {"old_password": "is not your present password"}
    fields = {"old_password": PASSWORD, "password": NEW}
    assert account.change_password(token, fields, by=actor) == 2  # the fixture's, and `other`
    assert sessions.by_session(token) and sessions.by_session(other) is None
    assert not Link.select().exists()
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.changes) == ("person.edited", {"password": ["set", "changed"]})
    signin.with_password(owner.name, NEW, ip=None)
    with pytest.raises(Unauthenticated):
        signin.with_password(owner.name, PASSWORD, ip=None)


def test_whoever_came_by_a_link_tells_no_old_password(owner: Actor) -> None:
    token, actor = here(owner)
    assert account.needs_old_password(token, by=actor)
    Session.update(method=sessions.LINK).execute()
    assert not account.needs_old_password(token, by=actor)
    account.change_password(token, {"password": NEW}, by=actor)
    signin.with_password(owner.name, NEW, ip=None)


def test_whoever_never_had_a_password_chooses_one(owner: Actor) -> None:
    token, actor = here(owner)
    Person.update(password_hash=None).where(Person.id == owner.id).execute()
    Session.update(method=sessions.SSO).execute()
    account.change_password(token, {"password": NEW}, by=actor)
    event = Event.select().order_by(Event.id.desc()).get()
    assert event.changes == {"password": [None, "set"]}
    signin.with_password(owner.name, NEW, ip=None)


def test_changing_a_password_takes_somebody_who_is_there(clock: Clock, owner: Actor) -> None:
    token, _ = here(owner)
    clock.move("30m")
    actor = sessions.by_session(token)
    assert actor is not None
    with pytest.raises(NotFresh):
        account.change_password(token, {"old_password": PASSWORD, "password": NEW}, by=actor)


def test_a_password_that_an_owner_changes_meanwhile_stays(
    owner: Actor, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, actor = here(member)
    prove = signin.prove

    def while_changed(*given: object, **more: object) -> Person:
        person = prove(*given, **more)  # type: ignore[arg-type]
        people.edit(member.id or "", {"password": "four words are here"}, by=owner)
        return person

    monkeypatch.setattr(signin, "prove", while_changed)
    with pytest.raises(Unauthenticated):
        account.change_password(token, {"old_password": PASSWORD, "password": NEW}, by=actor)
    signin.with_password(member.name, "four words are here", ip=None)


def test_a_key_has_no_account(owner: Actor) -> None:
    key = Actor(kind="key", id="key_1", name="CI", owner_id=owner.id, is_owner=True)
    for do in (lambda: account.of(key), lambda: account.rename({"name": "X"}, by=key)):
        with pytest.raises(Unknown):
            do()


# --- the page -----------------------------------------------------------------------------------


def test_the_page_is_for_whoever_is_signed_in(client: FlaskClient, owner: Actor) -> None:
    for method, path in (("GET", ""), ("POST", "/name"), ("GET", "/password"),
                         ("GET", "/second-factor"), ("POST", "/sessions/x/end")):  # fmt: skip
        answer = client.open(f"/account{path}", method=method)
        assert answer.status_code == 303 and answer.location.startswith("/login"), path


def test_the_rail_leads_to_the_account(signed_in: FlaskClient) -> None:
    page = signed_in.get("/projects/shop/keys").text
    assert re.search(r'<a href="/account"[^>]*>ada@example.com</a>', page)


def test_the_name_is_changed_on_the_page(signed_in: FlaskClient, owner: Actor) -> None:
    answer = signed_in.post("/account/name", data={"name": "Ada Lovelace"})
    assert (answer.status_code, answer.location) == (303, "/account")
    page = signed_in.get("/account").text
    assert 'value="Ada Lovelace"' in page and "Name saved" in page
    answer = signed_in.post("/account/name", data={"name": "\u202e"})
    assert answer.status_code == 422 and 'aria-invalid="true"' in answer.text


def test_the_password_is_changed_in_a_dialog_or_on_a_page(
    app: Flask, signed_in: FlaskClient, owner: Actor
) -> None:
    other = sign_in(app, owner)
    form = signed_in.get("/account/password").text
    assert 'autocomplete="current-password"' in form and 'autocomplete="new-password"' in form
    wrong = {"old_password": "wrong", "password": NEW}
    answer = signed_in.post("/account/password", data=wrong)
    assert answer.status_code == 422 and "Is not your present password" in answer.text
    answer = signed_in.post(
        "/account/password", data={"old_password": PASSWORD, "password": "short"}
    )
    assert answer.status_code == 422 and "at least 8 characters" in answer.text
    right = {"old_password": PASSWORD, "password": NEW}
    answer = signed_in.post("/account/password", data=right, headers=IN_DIALOG)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/account")
    page = signed_in.get("/account")
    assert page.status_code == 200 and "Password changed. 2 other sessions ended." in page.text
    assert other.get("/account").status_code == 303
    for page in (form, answer.text):
        assert PASSWORD not in page and NEW not in page


def test_an_app_is_set_up_and_the_codes_are_shown_once(
    clock: Clock, signed_in: FlaskClient, owner: Actor
) -> None:
    page = signed_in.get("/account/second-factor")
    assert page.headers["Cache-Control"] == "no-store"
    assert "<svg" in page.text and " style=" not in page.text
    sealed, seed = seed_on(page.text)
    wrong = signed_in.post("/account/second-factor", data={"seed": sealed, "code": "12345"})
    assert wrong.status_code == 422 and seed_on(wrong.text) == (sealed, seed)
    done = signed_in.post("/account/second-factor", data={"seed": sealed, "code": code_of(seed)})
    codes = codes_on(done.text)
    assert len(codes) == 10 and done.headers["Cache-Control"] == "no-store"
    page = signed_in.get("/account").text
    assert "10 recovery codes left" in page and not codes_on(page) and seed not in page
    again = signed_in.post("/account/second-factor", data={"seed": sealed, "code": code_of(seed)})
    assert again.status_code == 409 and not codes_on(again.text)
    assert signed_in.get("/account/second-factor").status_code == 409


def test_new_codes_and_removal_are_asked_about_first(
    clock: Clock, app: Flask, owner: Actor
) -> None:
    _, codes = add_second_factor(owner)
    browser = app.test_client()
    browser.post("/login", data={"email": owner.name, "password": PASSWORD})
    browser.post("/login/code", data={"code": codes[0]})
    assert "The 9 that you have left stop working." in browser.get("/account/recovery-codes").text
    assert RecoveryCode.select().count() == 9
    new = codes_on(browser.post("/account/recovery-codes").text)
    assert len(new) == 10 and not {*new} & {*codes}
    assert "your password alone" in browser.get("/account/second-factor/remove").text
    assert second_factor.state_of(owner.id or "").is_on
    browser.post("/account/second-factor/remove")
    assert not second_factor.state_of(owner.id or "").is_on
    assert "Set up an app" in browser.get("/account").text
    assert browser.get("/account/recovery-codes").status_code == 409


def test_a_secret_key_that_is_another_one_is_told(clock: Clock, app: Flask, owner: Actor) -> None:
    _, codes = add_second_factor(owner)
    second_factor.use_secret_key("another secret key, quite as long as the first")
    browser = app.test_client()
    browser.post("/login", data={"email": owner.name, "password": PASSWORD})
    browser.post("/login/code", data={"code": codes[0]})
    assert "secret key is another one" in browser.get("/account").text


def test_one_sees_where_one_is_signed_in_and_ends_it(
    clock: Clock, app: Flask, signed_in: FlaskClient, owner: Actor, client: FlaskClient
) -> None:
    token = client.post(
        f"{V1}/auth/token", json={"email": owner.name, "password": PASSWORD},
        headers={"User-Agent": "curl/8.5.0"},
    ).json["access_token"]  # fmt: skip
    page = signed_in.get("/account").text
    assert page.count("This one") == 1 and page.count("Access token</span>") == 1
    assert "curl" in page and "Private network" in page and "Password" in page
    script = Session.get(Session.kind == sessions.TOKEN)
    assert client.get(f"{V1}/people", headers=bearer(token)).status_code == 200
    answer = signed_in.post(f"/account/sessions/{script.handle}/end")
    assert answer.status_code == 303
    assert client.get(f"{V1}/people", headers=bearer(token)).status_code == 401
    assert signed_in.post(f"/account/sessions/{script.handle}/end").status_code == 404
    other = sign_in(app, owner)
    signed_in.post("/account/sessions/end-others")
    assert other.get("/account").status_code == 303
    page = signed_in.get("/account").text
    assert "2 other sessions ended." in page and "End all others" not in page


def test_the_country_of_an_address_is_named(clock: Clock, signed_in: FlaskClient) -> None:
    Session.update(ip="81.2.69.142").execute()
    assert "United Kingdom" in signed_in.get("/account").text


def test_what_calls_itself_something_is_shown_as_text(clock: Clock, signed_in: FlaskClient) -> None:
    Session.update(user_agent="<script>alert(1)</script>").execute()
    page = signed_in.get("/account").text
    assert "<script>alert" not in page and "Unknown program" in page


AGENTS = {
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0": "Firefox on Linux",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0": "Edge on Windows",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36": "Chrome on Windows",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.0 Safari/605.1.15": "Safari on macOS",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1": "Chrome on iPhone",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Mobile Safari/537.36": "Chrome on Android",
    "curl/8.5.0": "curl",
    "python-requests/2.32": "python-requests",
    "": "Unknown program",
    "\u202e": "Unknown program",
    "x" * 300: "x" * 40,
}


@pytest.mark.parametrize("user_agent, words", AGENTS.items(), ids=[*AGENTS.values()])
def test_a_program_is_named_as_its_person_knows_it(user_agent: str, words: str) -> None:
    assert client_words(user_agent) == words


@pytest.mark.parametrize("path", ["password", "second-factor", "second-factor/remove",
                                  "recovery-codes"])  # fmt: skip
def test_each_dialog_asks_who_is_there(clock: Clock, app: Flask, owner: Actor, path: str) -> None:
    browser = sign_in(app, owner)
    clock.move("26m")
    for answer in (browser.get(f"/account/{path}"), browser.get("/account")):
        assert ("Confirm it is you" in answer.text) == (answer.request.path != "/account")
    clock.move("5m")
    assert browser.post(f"/account/{path}", data={"password": NEW}).status_code == 403
