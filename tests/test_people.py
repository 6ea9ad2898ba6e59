"""People: the first owner through the link, signing in and out, sessions and access tokens."""

import base64
import hashlib
import importlib.util
import json
import threading
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from argon2 import low_level
from flask import Flask

from console import clock as console_clock
from console import people, projects
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, Unauthenticated, Unknown
from console.models import Event, Link, Membership, Person, Project, Session
from tests.conftest import PASSWORD, Clock, add_person, at_once

SIGNING_KEY = "s" * 40
ADA = {"email": "ada@example.com", "password": PASSWORD}
VISITOR = Actor(kind="person", id=None, name="set-up link", ip="192.0.2.7")


def setup_link() -> str:
    token = people.issue_setup_link()
    assert token is not None
    return token


def disable(email: str) -> None:
    Person.update(disabled_at=console_clock.now()).where(Person.email == email).execute()


# --- the first owner ------------------------------------------------------------------------


def test_the_link_makes_the_first_owner_and_their_project(app: Flask) -> None:
    person = people.set_up(setup_link(), {**ADA, "name": "Ada", "project": "My Shop"}, by=VISITOR)
    assert (person.email, person.name, person.is_owner) == ("ada@example.com", "Ada", True)
    assert (Project.get().slug, Project.get().name) == ("my-shop", "My Shop")
    created = [(event.action, event.actor_name) for event in Event.select().order_by(Event.id)]
    assert created == [("person.created", "set-up link"), ("project.created", "ada@example.com")]


def test_the_link_works_once(app: Flask) -> None:
    token = setup_link()
    people.set_up(token, ADA, by=VISITOR)
    with pytest.raises(Unknown, match="has been set up"):
        people.set_up(token, {**ADA, "email": "eve@example.com"}, by=VISITOR)
    assert Person.select().count() == 1
    assert not Link.select().exists()
    assert people.issue_setup_link() is None


@pytest.mark.parametrize("links", [1, 3])
def test_of_ten_that_open_the_link_at_once_one_becomes_the_owner(app: Flask, links: int) -> None:
    tokens = [setup_link() for _ in range(links)]

    def attempt(number: int) -> str:
        fields = {"email": f"p{number}@example.com", "password": PASSWORD}
        return people.set_up(tokens[number % links], fields, by=VISITOR).name

    answers = sorted(getattr(answer, "code", answer) for answer in at_once(10, attempt))
    assert answers[:9] == ["NOT_FOUND"] * 9
    assert [person.name for person in Person.select()] == answers[9:]
    assert Project.select().count() == 1


@pytest.mark.parametrize("token", ["", "x", "\0", "t\u00f6ken", "x" * 100_000])
def test_a_link_that_was_not_printed_does_not_hold(app: Flask, token: str) -> None:
    setup_link()
    with pytest.raises(Forbidden, match="Open the set-up link that the server printed"):
        people.set_up(token, ADA, by=VISITOR)
    assert not people.anybody_yet()


def test_a_link_ends_after_a_week(app: Flask, clock: Clock) -> None:
    token = setup_link()
    clock.move("7d")
    clock.move_ms(-1)
    people.refuse_setup_unless_open(token)
    clock.move_ms(1)
    with pytest.raises(Forbidden):
        people.set_up(token, ADA, by=VISITOR)
    assert not people.anybody_yet()


def test_a_link_of_another_kind_does_not_hold(app: Flask) -> None:
    token = setup_link()
    Link.update(kind="invitation").execute()
    with pytest.raises(Forbidden):
        people.set_up(token, ADA, by=VISITOR)


def test_only_the_links_digest_is_stored(app: Flask) -> None:
    token = setup_link()
    assert Link.get().digest == hashlib.sha256(token.encode()).hexdigest()


def test_a_form_at_fault_leaves_the_link_open(app: Flask) -> None:
    token = setup_link()
    with pytest.raises(Invalid) as refusal:
        people.set_up(token, {"email": "ada", "password": "short"}, by=VISITOR)
    assert set(refusal.value.fields) == {"email", "password"}
    people.set_up(token, ADA, by=VISITOR)


def test_a_project_that_is_there_already_is_kept(project: Project) -> None:
    people.set_up(setup_link(), {**ADA, "project": "Another"}, by=VISITOR)
    assert [p.slug for p in Project.select()] == ["shop"]


def test_a_name_without_latin_letters_still_makes_a_project(app: Flask) -> None:
    people.set_up(setup_link(), {**ADA, "project": "\u65e5\u672c"}, by=VISITOR)
    assert (Project.get().slug, Project.get().name) == ("project", "\u65e5\u672c")


# --- further owners, and what may be in the fields ------------------------------------------


def test_an_owner_adds_owners_and_nobody_else_does(
    operator: Actor, owner: Actor, admin: Actor
) -> None:
    people.create_owner({**ADA, "email": "grace@example.com"}, by=owner)
    people.create_owner({**ADA, "email": "edith@example.com"}, by=operator)
    with pytest.raises(Forbidden, match="Only an owner adds owners"):
        people.create_owner({**ADA, "email": "eve@example.com"}, by=admin)
    assert Person.select().where(Person.is_owner).count() == 3


@pytest.mark.parametrize("email", ["ada@example.com", " ADA@Example.COM "])
def test_a_known_address_is_a_conflict(owner: Actor, email: str) -> None:
    with pytest.raises(Conflict, match="ada@example.com is a person already") as refusal:
        people.create_owner({**ADA, "email": email}, by=owner)
    assert refusal.value.fields == {"email": "is taken"}


def test_of_ten_that_take_an_address_at_once_one_gets_it(
    app: Flask, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_there = threading.Barrier(10)
    monkeypatch.setattr(people, "hash_password", lambda _: str(all_there.wait(30)))

    found = at_once(10, lambda _: people.create_owner(ADA, by=operator).email)
    answers = sorted(getattr(answer, "code", answer) for answer in found)
    assert answers == ["CONFLICT"] * 9 + ["ada@example.com"]


@pytest.mark.parametrize(
    "email",
    ["ada@example.com", "ada@localhost", "ada+keys@example.com", "\u00e4da@b\u00fccher.example",
     "a" * 242 + "@example.com"],
)  # fmt: skip
def test_an_address_may_be(operator: Actor, email: str) -> None:
    assert people.create_owner({**ADA, "email": email}, by=operator).email == email


@pytest.mark.parametrize(
    "email",
    ["", "ada", "@example.com", "ada@", "ada@.", "ada@example..com", "ada@example.com.",
     "a@b@example.com", "a da@example.com", "ada\u00a0@example.com", "ada@exa\nmple.com",
     "ada@example.com\0", "ad\u200ba@example.com", "\ud800@example.com",
     "a" * 243 + "@example.com"],
)  # fmt: skip
def test_another_address_is_refused(operator: Actor, email: str) -> None:
    with pytest.raises(Invalid) as refusal:
        people.create_owner({**ADA, "email": email}, by=operator)
    assert list(refusal.value.fields) == ["email"]
    assert not people.anybody_yet()


def test_one_address_is_one_person_however_it_is_typed(operator: Actor) -> None:
    composed, decomposed = "ren\u00e9@example.com", " Rene\u0301@EXAMPLE.com"
    people.create_owner({**ADA, "email": decomposed}, by=operator)
    assert Person.get().email == composed
    for typed in (composed, decomposed):
        assert people.sign_in(typed, PASSWORD, ip=None)[1].email == composed


PASSWORDS = {
    "empty": ("", False),
    "7 characters": ("1234567", False),
    "8 characters": ("12345678", True),
    "8 characters beyond ASCII": ("\u65e5" * 8, True),
    "spaces inside": ("a b c d e", True),
    "NUL inside": ("1234\x005678", True),
    "1,000 characters": ("x" * 1_000, True),
    "1,001 characters": ("x" * 1_001, False),
    "half a surrogate pair": ("1234567\ud800", False),
}


@pytest.mark.parametrize("password, allowed", PASSWORDS.values(), ids=PASSWORDS.keys())
def test_a_password_has_8_to_1000_characters(operator: Actor, password: str, allowed: bool) -> None:
    if allowed:
        people.create_owner({**ADA, "password": password}, by=operator)
        assert people.sign_in("ada@example.com", password, ip=None)
        with pytest.raises(Unauthenticated):
            people.sign_in("ada@example.com", password[:-1], ip=None)
    else:
        with pytest.raises(Invalid) as refusal:
            people.create_owner({**ADA, "password": password}, by=operator)
        assert list(refusal.value.fields) == ["password"]


def test_passwords_are_hashed_with_argon2id_as_owasp_asks() -> None:
    spec = importlib.util.spec_from_file_location("people_as_shipped", people.__file__)
    assert spec is not None and spec.loader is not None
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    assert shipped.hash_password(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_password_is_salted() -> None:
    assert people.hash_password(PASSWORD) != people.hash_password(PASSWORD)


# --- signing in -----------------------------------------------------------------------------


def refusal_of(email: str, password: str) -> tuple[str, str, int]:
    with pytest.raises(Unauthenticated) as refusal:
        people.sign_in(email, password, ip=None)
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
    token, _ = people.sign_in("ada@example.com", PASSWORD, ip="192.0.2.7", user_agent="x" * 999)
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.target_name, event.ip) == (
        "person.signed_in", "ada@example.com", "192.0.2.7")  # fmt: skip
    assert token not in json.dumps(event.changes)
    session = Session.get(Session.ip == "192.0.2.7")
    assert session.id == hashlib.sha256(token.encode()).hexdigest()
    assert len(session.user_agent) == people.USER_AGENT_MAX_LENGTH


def test_a_session_is_its_persons_with_their_roles(member: Actor, project: Project) -> None:
    token, person = people.sign_in("bob@example.com", PASSWORD, ip=None)
    actor = people.by_session(token, ip="192.0.2.7", request_id="req_1")
    assert actor is not None
    assert (actor.id, actor.name, actor.owner_id, actor.is_owner) == (
        person.id, "bob@example.com", person.id, False)  # fmt: skip
    assert (actor.ip, actor.request_id) == ("192.0.2.7", "req_1")
    assert actor.roles == {project.id: "member"}


def test_a_changed_role_holds_at_once(member: Actor, project: Project) -> None:
    token, person = people.sign_in("bob@example.com", PASSWORD, ip=None)
    Membership.update(role="viewer").where(Membership.person == person).execute()
    actor = people.by_session(token)
    assert actor is not None and actor.roles == {project.id: "viewer"}
    Membership.delete().where(Membership.person == person).execute()
    actor = people.by_session(token)
    assert actor is not None and not actor.sees(project.id)


def test_signing_out_ends_the_one_session(owner: Actor) -> None:
    here, _ = people.sign_in("ada@example.com", PASSWORD, ip=None)
    there, _ = people.sign_in("ada@example.com", PASSWORD, ip=None)
    people.sign_out(here, by=owner)
    assert people.by_session(here) is None
    assert people.by_session(there) is not None
    people.sign_out(here, by=owner)
    assert Event.select().where(Event.action == "person.signed_out").count() == 1


def test_a_session_ends_after_14_days_to_the_millisecond(owner: Actor, clock: Clock) -> None:
    token, _ = people.sign_in("ada@example.com", PASSWORD, ip=None)
    clock.move("14d")
    clock.move_ms(-1)
    assert people.by_session(token) is not None
    clock.move_ms(1)
    assert people.by_session(token) is None


def test_ended_sessions_are_swept_at_the_next_sign_in(
    app: Flask, clock: Clock, project: Project
) -> None:
    add_person("ada@example.com")
    clock.move("14d")
    people.sign_in("ada@example.com", PASSWORD, ip=None)
    assert Session.select().count() == 1


def test_a_disabled_persons_sessions_open_nothing(owner: Actor) -> None:
    token, _ = people.sign_in("ada@example.com", PASSWORD, ip=None)
    disable("ada@example.com")
    assert people.by_session(token) is None


@pytest.mark.parametrize("token", ["", "x", "\0", "\u65e5"])
def test_another_token_opens_nothing(owner: Actor, token: str) -> None:
    assert people.by_session(token) is None


def test_the_digest_of_a_session_opens_nothing(owner: Actor) -> None:
    assert people.by_session(Session.get().id) is None


# --- access tokens --------------------------------------------------------------------------


@pytest.fixture
def token(owner: Actor) -> str:
    text, seconds = people.access_token(
        "ada@example.com", PASSWORD, signing_key=SIGNING_KEY, ip=None, user_agent="curl"
    )
    assert seconds == 15 * 60
    return text


def holder(text: str, signing_key: str = SIGNING_KEY) -> str:
    return people.by_access_token(text, signing_key=signing_key, ip=None, request_id=None).name


def test_an_access_token_acts_as_its_person(token: str) -> None:
    assert people.looks_like_access_token(token)
    assert holder(token) == "ada@example.com"


def test_an_access_token_is_a_jwt_of_15_minutes(owner: Actor, clock: Clock) -> None:
    text, _ = people.access_token(
        "ada@example.com", PASSWORD, signing_key=SIGNING_KEY, ip=None, user_agent=""
    )
    claims = jwt.decode(text, options={"verify_signature": False})
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (owner.id, 900)
    clock.move("15m")
    clock.move_ms(-1)
    assert holder(text) == "ada@example.com"
    clock.move_ms(1)
    with pytest.raises(Unauthenticated):
        holder(text)


def test_wrong_credentials_make_no_token(owner: Actor) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        people.access_token("ada@example.com", "x", signing_key=SIGNING_KEY, ip=None, user_agent="")
    assert refusal.value.code == "CREDENTIALS_INVALID"


def test_an_access_token_ends_with_its_session(token: str, owner: Actor) -> None:
    Session.delete().where(Session.kind == people.TOKEN).execute()
    with pytest.raises(Unauthenticated):
        holder(token)


def test_a_disabled_persons_token_opens_nothing(token: str) -> None:
    disable("ada@example.com")
    with pytest.raises(Unauthenticated):
        holder(token)


def test_a_browsers_session_is_no_token_and_a_token_no_session(token: str, owner: Actor) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    assert people.by_session(claims["sid"]) is None
    browser, _ = people.sign_in("ada@example.com", PASSWORD, ip=None)
    with pytest.raises(Unauthenticated):
        holder(jwt.encode({**claims, "sid": browser}, SIGNING_KEY, "HS256"))


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


FORGERIES: dict[str, Callable[[str], str]] = {
    "empty": lambda t: "",
    "dots": lambda t: "..",
    "no signature": lambda t: t.rpartition(".")[0] + ".",
    "half a signature": lambda t: t[:-20],
    "another's claims": lambda t: ".".join(
        (t.split(".")[0], part({"sid": "x", "sub": "per_x"}), t.split(".")[2])),
    "unsigned": lambda t: f"{part({'alg': 'none', 'typ': 'JWT'})}.{t.split('.')[1]}.",
    "another algorithm": lambda t: jwt.encode(
        jwt.decode(t, options={"verify_signature": False}), "s" * 64, "HS512"),
    "another key": lambda t: jwt.encode(
        jwt.decode(t, options={"verify_signature": False}), "t" * 40, "HS256"),
    "no session named": lambda t: jwt.encode({"sub": "per_x"}, SIGNING_KEY, "HS256"),
    "header is no object": lambda t: f"{part([])}.{t.partition('.')[2]}",
    "header is not JSON": lambda t: f"{part(b'x')}.{t.partition('.')[2]}",
    "header is not UTF-8": lambda t: f"{part(bytes([255, 254]))}.{t.partition('.')[2]}",
    "header nests deeply": lambda t: f"{part(b'[' * 100_000)}.{t.partition('.')[2]}",
    "not base64": lambda t: "!!.??.##",
    "not ASCII": lambda t: "\u00e4.\u00f6.\u00fc",
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_token_opens_nothing(token: str, forge: Callable[[str], str]) -> None:
    with pytest.raises(Unauthenticated, match="does not hold or has ended") as refusal:
        holder(forge(token))
    assert refusal.value.code == "TOKEN_INVALID"


def test_a_token_signed_with_another_key_opens_nothing(token: str) -> None:
    with pytest.raises(Unauthenticated):
        holder(token, signing_key="t" * 40)


def test_no_secret_of_a_key_looks_like_a_token(project: Project, operator: Actor) -> None:
    assert not people.looks_like_access_token("sk_live_" + "x" * 36)
    assert projects.visible(operator) == [project]
