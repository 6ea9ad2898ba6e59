"""Signing in: password, then code; one answer and one effort for whoever is unknown; in a browser
over two pages, and by a script in one call."""

import hashlib
import json
from dataclasses import replace

import pytest
from argon2 import low_level
from flask import Flask
from flask.testing import FlaskClient

from console import clock as console_clock
from console import create_app, db, journal, passwords, people, sessions, signin
from console.actor import Actor
from console.errors import Limited, Unauthenticated
from console.models import Event, Person, Session, Throttle
from console.signin import CodeRequired, Pending
from tests.conftest import (
    PASSWORD,
    Call,
    Clock,
    add_second_factor,
    assert_problem,
    at_once,
    code_of,
    sign_in,
)

ADA = {"email": "ada@example.com", "password": PASSWORD}


def disable(email: str) -> None:
    Person.update(disabled_at=console_clock.now()).where(Person.email == email).execute()


def refusal_of(email: str, password: str) -> tuple[str, str, int]:
    with pytest.raises(Unauthenticated) as refusal:
        signin.with_password(email, password, ip=None)
    return refusal.value.code, refusal.value.message, refusal.value.status


REFUSED = {
    "wrong password": ("ada@example.com", "correct horse batter"),
    "empty password": ("ada@example.com", ""),
    "another's password case": ("ada@example.com", PASSWORD.upper()),
    "a password too long to hash": ("ada@example.com", "x" * 100_000),
    "a password that cannot be hashed": ("ada@example.com", "\ud800"),
    "unknown": ("nobody@example.com", PASSWORD),
    "disabled": ("bob@example.com", PASSWORD),
    "invited, without a password": ("vera@example.com", PASSWORD),
    "invited, empty password": ("vera@example.com", ""),
    "no address": ("", PASSWORD),
    "NUL in the address": ("ada@example.com\0", PASSWORD),
    "half a surrogate pair": ("\ud800@example.com", PASSWORD),
    "a wildcard": ("%@example.com", PASSWORD),
    "very long": ("a" * 1_000_000, PASSWORD),
}


@pytest.mark.parametrize("email, password", REFUSED.values(), ids=REFUSED.keys())
def test_unknown_wrong_and_disabled_are_one_answer_and_one_effort(
    owner: Actor, member: Actor, viewer: Actor, monkeypatch: pytest.MonkeyPatch,
    email: str, password: str,
) -> None:  # fmt: skip
    disable("bob@example.com")
    Person.update(password_hash=None).where(Person.email == "vera@example.com").execute()
    compared: list[object] = []
    verify = low_level.verify_secret
    monkeypatch.setattr(
        low_level, "verify_secret", lambda *given: (compared.append(given), verify(*given))[1]
    )
    assert refusal_of(email, password) == (
        "CREDENTIALS_INVALID", "Email or password is wrong.", 401)  # fmt: skip
    assert len(compared) == 1
    assert Session.select().count() == 3


def test_a_sign_in_is_an_event_and_tells_no_secret(owner: Actor) -> None:
    token, _ = signin.with_password(
        "ada@example.com", PASSWORD, ip="192.0.2.7", user_agent="x" * 999
    )
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.target_name, event.ip) == (
        "person.signed_in", "ada@example.com", "192.0.2.7")  # fmt: skip
    assert token not in json.dumps(event.changes)
    session = Session.get(Session.ip == "192.0.2.7")
    assert session.id == hashlib.sha256(token.encode()).hexdigest()
    assert len(session.user_agent) == sessions.USER_AGENT_MAX_LENGTH


# --- the second factor --------------------------------------------------------------------------


def needed(email: str = "ada@example.com") -> Pending:
    with pytest.raises(CodeRequired) as refusal:
        signin.with_password(email, PASSWORD, ip=None)
    assert (refusal.value.code, refusal.value.status) == ("OTP_REQUIRED", 401)
    return refusal.value.pending


def test_the_code_is_asked_for_only_after_the_right_password(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    for code in (None, "", code_of(seed), "000000x"):
        with pytest.raises(Unauthenticated) as refusal:
            signin.with_password("ada@example.com", "wrong", code=code, ip=None)
        assert refusal.value.code == "CREDENTIALS_INVALID"
    needed()
    assert not Session.select().exists()


def test_password_and_code_begin_a_session(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    token, person = signin.with_password("ada@example.com", PASSWORD, code=code_of(seed), ip=None)
    assert sessions.by_session(token) and person.id == owner.id
    assert sessions.method_of(token) == sessions.PASSWORD_AND_CODE
    event = Event.select().order_by(Event.id.desc()).get()
    assert event.changes == {"session": [None, "browser"], "method": [None, "password and code"]}


def test_a_code_that_nobody_asked_for_is_no_hindrance(owner: Actor) -> None:
    token, _ = signin.with_password("ada@example.com", PASSWORD, code="123456", ip=None)
    assert sessions.method_of(token) == sessions.PASSWORD


def test_a_code_may_follow_the_password_for_five_minutes(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    pending = needed()
    clock.move("5m")
    clock.move_ms(-1)
    assert signin.person_of(pending).id == owner.id
    clock.move_ms(1)
    for late in (
        lambda: signin.person_of(pending),
        lambda: signin.with_code(pending, code_of(seed), ip=None),
    ):
        with pytest.raises(Unauthenticated, match="took too long"):
            late()
    token, _ = signin.with_code(needed(), code_of(seed), ip=None)
    assert sessions.method_of(token) == sessions.PASSWORD_AND_CODE


ENDING = {
    "another password": {"password": "three words here"},
    "the same password": {"password": PASSWORD},
    "disabled": {"disabled": True},
}


@pytest.mark.parametrize("change", ENDING.values(), ids=ENDING.keys())
def test_a_sign_in_under_way_ends_with_what_ends_sessions(
    owner: Actor, member: Actor, clock: Clock, change: dict[str, object]
) -> None:
    seed, codes = add_second_factor(member)
    pending = needed("bob@example.com")
    people.edit(member.id or "", change, by=owner)
    for code in (code_of(seed), codes[0]):
        with pytest.raises(Unauthenticated) as refusal:
            signin.with_code(pending, code, ip=None)
        assert refusal.value.code == "CREDENTIALS_INVALID"
    assert not Session.select().where(Session.person == member.id).exists()


def test_wrong_codes_are_held_up_as_wrong_passwords_are(owner: Actor, clock: Clock) -> None:
    add_second_factor(owner)
    pending = needed()
    with pytest.raises(Limited) as refusal:
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                signin.with_code(pending, "12345", ip="192.0.2.7")
    assert refusal.value.retry_after_seconds
    with pytest.raises(Limited):
        signin.with_password("ada@example.com", PASSWORD, ip="198.51.100.1")


def test_guesses_made_at_once_do_not_outrun_the_count(
    owner: Actor, clock: Clock, app: Flask
) -> None:
    add_second_factor(owner)
    pending = needed()
    answers = at_once(20, lambda _: signin.with_code(pending, "12345", ip="192.0.2.7"))
    tried = [one for one in answers if getattr(one, "code", "") == "OTP_INVALID"]
    assert len(tried) == 6
    assert len(tried) <= 6


def test_to_be_asked_for_a_code_counts_as_no_failure(owner: Actor, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    for _ in range(20):
        pending = needed()
    assert not Throttle.select().exists()
    with pytest.raises(Unauthenticated):
        signin.with_code(pending, "12345", ip=None)
    signin.with_code(pending, code_of(seed), ip=None)
    assert not Throttle.select().where(Throttle.subject.startswith("account")).exists()


def test_a_second_factor_set_up_meanwhile_is_asked_for(
    owner: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = passwords.fits

    def compare(password: str, password_hash: str | None) -> bool:
        found = fits(password, password_hash)
        add_second_factor(owner)
        return found

    monkeypatch.setattr(passwords, "fits", compare)
    with pytest.raises(Unauthenticated) as refusal:
        signin.with_password("ada@example.com", PASSWORD, ip=None)
    assert refusal.value.code in ("OTP_REQUIRED", "OTP_INVALID")
    assert not Session.select().exists()


# --- in the browser -----------------------------------------------------------------------------


def user_id(browser: FlaskClient) -> str | None:
    with browser.session_transaction() as session:
        return session.get("_user_id")


def test_the_browser_asks_for_the_code_on_a_second_page(
    owner: Actor, client: FlaskClient, clock: Clock
) -> None:
    seed, _ = add_second_factor(owner)
    answer = client.post("/login?next=/api/docs", data=ADA)
    assert (answer.status_code, answer.location) == (303, "/login/code")
    assert user_id(client) is None
    assert client.get("/projects/shop/keys").status_code == 303  # not signed in yet
    page = client.get("/login/code").text
    assert "ada@example.com" in page and 'autocomplete="one-time-code"' in page
    assert "Recovery code" in client.get("/login/code?recovery=1").text
    wrong = client.post("/login/code", data={"code": "12345"})
    assert wrong.status_code == 401 and "This code does not hold" in wrong.text
    answer = client.post("/login/code", data={"code": code_of(seed)})
    assert (answer.status_code, answer.location) == (303, "/api/docs")
    assert client.get("/projects/shop/keys").status_code == 200
    assert client.get("/login/code").location == "/login"


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_nobody_is_led_away_after_the_code(
    owner: Actor, client: FlaskClient, clock: Clock, wanted: str
) -> None:
    seed, _ = add_second_factor(owner)
    client.post("/login", query_string={"next": wanted}, data=ADA)
    assert client.post("/login/code", data={"code": code_of(seed)}).location == "/"


def test_without_a_password_there_is_no_second_page(client: FlaskClient, owner: Actor) -> None:
    for answer in (client.get("/login/code"), client.post("/login/code", data={"code": "1"})):
        assert (answer.status_code, answer.location) == (303, "/login")


def test_whoever_takes_too_long_is_told_so(owner: Actor, client: FlaskClient, clock: Clock) -> None:
    seed, _ = add_second_factor(owner)
    client.post("/login", data=ADA)
    clock.move("5m")
    answer = client.post("/login/code", data={"code": code_of(seed)})
    assert answer.location == "/login"
    assert "That took too long. Sign in again." in client.get("/login").text
    assert user_id(client) is None


def test_a_recovery_code_gets_one_in_without_the_app(
    owner: Actor, client: FlaskClient, clock: Clock
) -> None:
    _, codes = add_second_factor(owner)
    client.post("/login", data=ADA)
    answer = client.post("/login/code?recovery=1", data={"code": codes[3].upper()})
    assert answer.status_code == 303
    assert client.get("/projects/shop/keys").status_code == 200


@pytest.mark.parametrize("with_code", [False, True])
def test_a_session_from_before_the_sign_in_is_not_the_one_after(
    owner: Actor, client: FlaskClient, clock: Clock, with_code: bool
) -> None:
    """Whoever planted a cookie in the browser has nothing after the person signed in (fixation)."""
    seed = add_second_factor(owner)[0] if with_code else ""
    client.get("/login")
    with client.session_transaction() as session:
        session["_user_id"] = "planted"
        session["pending_next"] = "/planted"
        session["anything"] = "else"
    client.post("/login", data=ADA)
    if with_code:
        assert user_id(client) == "planted"
        client.post("/login/code", data={"code": code_of(seed)})
    with client.session_transaction() as session:
        left = dict(session)
    assert left["_user_id"] != "planted" and sessions.by_session(left["_user_id"])
    assert not {"pending", "pending_next", "anything"} & left.keys()


def test_the_cookie_between_the_pages_tells_neither_hash_nor_seed(
    owner: Actor, client: FlaskClient, clock: Clock
) -> None:
    add_second_factor(owner)
    client.post("/login", data=ADA)
    with client.session_transaction() as session:
        held = json.dumps(dict(session))
    assert "argon2" not in held and PASSWORD not in held


def test_a_cookie_made_with_another_secret_key_opens_no_second_page(
    owner: Actor, client: FlaskClient, clock: Clock, app: Flask
) -> None:
    add_second_factor(owner)
    client.post("/login", data=ADA)
    app.config["SECRET_KEY"] = "o" * 40
    assert client.get("/login/code").location == "/login"


def test_someone_else_who_was_signed_in_there_is_no_more(
    app: Flask, owner: Actor, member: Actor, clock: Clock
) -> None:
    seed, _ = add_second_factor(owner)
    browser = sign_in(app, member)
    bobs = user_id(browser)
    with browser.session_transaction() as session:
        session["pending"] = [*vars(needed()).values()]
    browser.post("/login/code", data={"code": code_of(seed)})
    assert sessions.by_session(bobs or "") is None
    actor = sessions.by_session(user_id(browser) or "")
    assert actor is not None and actor.name == "ada@example.com"


def test_the_throttle_says_how_long_to_wait(
    owner: Actor, client: FlaskClient, clock: Clock
) -> None:
    for _ in range(10):
        page = client.post("/login", data={**ADA, "password": "wrong"})
    assert page.status_code == 429 and "Try again in" in page.text
    assert int(page.headers["Retry-After"]) > 0
    assert 'name="password"' in page.text


# --- cookies on https ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_cookie_is_bound_to_the_host_on_https(
    app: Flask, owner: Actor, clock: Clock, scheme: str
) -> None:
    config = replace(app.config["LATCHKEY"], base_url=f"{scheme}://keys.example.com")
    journal.close()
    again = create_app(config, in_background=False)
    again.config.update(WTF_CSRF_ENABLED=False)
    try:
        answer = again.test_client().post("/login", data=ADA, base_url=config.base_url)
        theme = again.test_client().post("/theme", data={"theme": "dark"}, base_url=config.base_url)
        cookies = [*answer.headers.getlist("Set-Cookie"), *theme.headers.getlist("Set-Cookie")]
    finally:
        journal.close()
        db.close()
    assert len(cookies) >= 3
    for cookie in cookies:
        parts = [part.strip() for part in cookie.split(";")]
        assert parts[0].startswith("__Host-") == (scheme == "https"), cookie
        assert ("Secure" in parts) == (scheme == "https")
        assert "Path=/" in parts and "HttpOnly" in parts and "SameSite=Lax" in parts
        assert not any(part.startswith("Domain") for part in parts)


# --- by a script --------------------------------------------------------------------------------


def test_a_script_sends_password_and_code_in_one_call(
    owner: Actor, call: Call, clock: Clock
) -> None:
    seed, codes = add_second_factor(owner)

    def ask(**more: object):  # type: ignore[no-untyped-def]
        return call("POST", "/auth/token", {**ADA, **more}, secret=None)

    for otp in ({}, {"otp": ""}, {"otp": None}):
        assert_problem(ask(**otp), 401, "OTP_REQUIRED")
    assert_problem(ask(password="wrong"), 401, "CREDENTIALS_INVALID")
    assert_problem(ask(password="wrong", otp=code_of(seed)), 401, "CREDENTIALS_INVALID")
    assert_problem(ask(otp="12345"), 401, "OTP_INVALID")
    assert ask(otp=code_of(seed)).status_code == 200
    assert_problem(ask(otp=code_of(seed)), 401, "OTP_INVALID")
    token = ask(otp=codes[0]).json["access_token"]
    assert call("GET", "/people", secret=token).status_code == 200
