"""People: the first owner through the link, signing in and out, sessions and access tokens; who is
invited, changed and removed, and that an owner stays."""

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

from console import check, keys, people, projects
from console import clock as console_clock
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, Refused, Unauthenticated, Unknown
from console.models import Event, Link, Membership, Person, Project, Session
from tests.conftest import PASSWORD, Clock, MakeKey, add_person, at_once

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
    with pytest.raises(Forbidden, match="Only an owner sees and changes people"):
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


# --- people with roles, and people who are invited ------------------------------------------

GRACE = {"email": "grace@example.com"}


def add(by: Actor, **fields: Any) -> tuple[Person, str | None]:
    return people.create({**GRACE, **fields}, by=by)


def invite(by: Actor, **fields: Any) -> tuple[Person, str]:
    person, token = add(by, **fields)
    assert token is not None
    return person, token


def last_event(action: str) -> Event:
    return Event.select().where(Event.action == action).order_by(Event.id.desc()).get()


def test_a_person_with_a_password_signs_in_at_once(owner: Actor) -> None:
    person, token = add(owner, name="Grace", password=PASSWORD, roles={"shop": "viewer"})
    assert token is None
    session, _ = people.sign_in(person.email, PASSWORD, ip=None)
    actor = people.by_session(session)
    assert actor is not None and not actor.is_owner
    assert list(actor.roles.values()) == ["viewer"]
    assert people.as_dict(person)["invited"] is False


def test_a_person_without_a_password_is_invited(owner: Actor) -> None:
    person, token = invite(owner)
    assert (person.name, person.password_hash) == ("grace", None)
    assert people.as_dict(person)["invited"] is True
    assert people.invited(token) == person
    link = Link.get()
    assert link.digest == hashlib.sha256(token.encode()).hexdigest()
    assert (link.kind, link.person_id) == ("invitation", person.id)


def test_creating_a_person_leaves_an_event_without_secrets(owner: Actor, project: Project) -> None:
    _, token = invite(owner, roles={"shop": "admin"})
    event = last_event("person.created")
    assert (event.actor_id, event.target_name) == (owner.id, "grace@example.com")
    assert event.changes == {
        "email": [None, "grace@example.com"], "name": [None, "grace"], "owner": [None, False],
        "roles": [None, {"shop": "admin"}],
    }  # fmt: skip
    assert token not in json.dumps(event.changes)


def test_a_role_in_a_project_that_is_not_there_is_named(owner: Actor, project: Project) -> None:
    roles = {"shop": "admin", "nowhere": "viewer", "SHOP": "member", "": "member"}
    for refused in (
        lambda: add(owner, roles=roles),
        lambda: people.edit(owner.id or "", {"roles": roles}, by=owner),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert refusal.value.fields == {
            f"roles.{slug}": "there is no such project" for slug in ("nowhere", "SHOP", "")
        }
    assert Person.select().count() == 1 and not Membership.select().exists()


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"roles": {"shop": "king"}}, "roles.shop"),
        ({"roles": {"shop": None}}, "roles.shop"),
        ({"roles": ["shop"]}, "roles"),
        ({"roles": None}, "roles"),
        ({"owner": "yes"}, "owner"),
        ({"owner": None}, "owner"),
        ({"password": "short"}, "password"),
        ({"email": "grace"}, "email"),
        ({"name": "Gr\u202eace"}, "name"),
        ({"password_hash": "x"}, "password_hash"),
        ({"id": "per_1"}, "id"),
    ],
)
def test_a_persons_field_at_fault_is_named(
    owner: Actor, fields: dict[str, Any], field: str
) -> None:
    for refused in (
        lambda: add(owner, **fields),
        lambda: people.edit(owner.id or "", fields, by=owner),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert list(refusal.value.fields) == [field]
    assert Person.select().count() == 1


def test_very_many_unknown_projects_are_not_all_named(owner: Actor) -> None:
    with pytest.raises(Invalid) as refusal:
        add(owner, roles={f"p{number}": "viewer" for number in range(40_000)})
    assert len(refusal.value.fields) == 20


# --- the invitation ---------------------------------------------------------------------------


def test_an_invited_person_chooses_a_password_and_signs_in(owner: Actor) -> None:
    person, token = invite(owner)
    people.join(token, {"name": "Grace Hopper", "password": PASSWORD}, by=VISITOR)
    assert people.sign_in("grace@example.com", PASSWORD, ip=None)[1].name == "Grace Hopper"
    event = last_event("person.joined")
    assert (event.actor_id, event.target_id, event.ip) == (person.id, person.id, VISITOR.ip)
    assert event.changes == {"name": ["grace", "Grace Hopper"], "password": [None, "set"]}


def test_an_invitation_works_once(owner: Actor) -> None:
    _, token = invite(owner)
    people.join(token, {"password": PASSWORD}, by=VISITOR)
    with pytest.raises(Forbidden, match="Ask an owner for a new one"):
        people.join(token, {"password": "another password"}, by=VISITOR)
    assert not Link.select().exists()
    people.sign_in("grace@example.com", PASSWORD, ip=None)


def test_of_ten_that_accept_an_invitation_at_once_one_joins(app: Flask, operator: Actor) -> None:
    _, token = invite(operator)

    def attempt(number: int) -> str:
        people.join(token, {"password": f"{PASSWORD} {number}"}, by=VISITOR)
        return f"{PASSWORD} {number}"

    answers = sorted(getattr(answer, "code", answer) for answer in at_once(10, attempt))
    assert answers[:9] == ["FORBIDDEN"] * 9
    people.sign_in("grace@example.com", str(answers[9]), ip=None)
    assert Event.select().where(Event.action == "person.joined").count() == 1


def test_an_invitation_ends_after_a_week(owner: Actor, clock: Clock) -> None:
    person, token = invite(owner)
    clock.move("7d")
    clock.move_ms(-1)
    assert people.invited(token) == person
    clock.move_ms(1)
    for refused in (
        lambda: people.invited(token),
        lambda: people.join(token, {"password": PASSWORD}, by=VISITOR),
    ):
        with pytest.raises(Forbidden, match="more than 7 days old"):
            refused()
    add(owner, email="edith@example.com")
    assert Link.select().count() == 1


@pytest.mark.parametrize("token", ["", "x", "\0", "t\u00f6ken", "x" * 100_000])
def test_an_invitation_that_was_not_made_does_not_hold(owner: Actor, token: str) -> None:
    invite(owner)
    with pytest.raises(Forbidden):
        people.join(token, {"password": PASSWORD}, by=VISITOR)


def test_the_link_of_the_set_up_is_no_invitation(app: Flask) -> None:
    with pytest.raises(Forbidden):
        people.invited(setup_link())


def test_a_password_at_fault_leaves_the_invitation_open(owner: Actor) -> None:
    _, token = invite(owner)
    for fields, field in (({"password": "short"}, "password"), ({}, "password"),
                          ({"password": PASSWORD, "owner": True}, "owner")):  # fmt: skip
        with pytest.raises(Invalid) as refusal:
            people.join(token, fields, by=VISITOR)
        assert list(refusal.value.fields) == [field]
    people.join(token, {"password": PASSWORD}, by=VISITOR)


def test_a_new_invitation_ends_the_one_before(owner: Actor, clock: Clock) -> None:
    person, old = invite(owner)
    new, ends_at = people.invite(person.id, by=owner)
    assert ends_at == clock.now() + 7 * console_clock.DAY
    with pytest.raises(Forbidden):
        people.invited(old)
    assert people.invited(new) == person
    assert Link.select().count() == 1


def test_who_has_a_password_or_is_disabled_is_not_invited_again(
    owner: Actor, member: Actor
) -> None:
    with pytest.raises(Conflict, match="has a password already"):
        people.invite(member.id or "", by=owner)
    person, _ = invite(owner)
    people.edit(person.id, {"disabled": True}, by=owner)
    with pytest.raises(Conflict, match="is disabled; enable them first"):
        people.invite(person.id, by=owner)


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"password": PASSWORD}, {"email": "hopper@example.com"}],
    ids=["disabled", "given a password", "of another address"],
)
def test_an_invitation_ends_when_its_person_is(owner: Actor, change: dict[str, Any]) -> None:
    person, token = invite(owner)
    people.edit(person.id, {"name": "Grace", "roles": {}}, by=owner)
    assert people.invited(token)
    people.edit(person.id, change, by=owner)
    people.edit(person.id, {"disabled": False}, by=owner)
    with pytest.raises(Forbidden):
        people.join(token, {"password": PASSWORD}, by=VISITOR)
    assert not Link.select().exists()


def test_an_invitation_of_who_was_disabled_by_hand_does_not_hold(owner: Actor) -> None:
    _, token = invite(owner)
    disable("grace@example.com")
    with pytest.raises(Forbidden):
        people.join(token, {"password": PASSWORD}, by=VISITOR)


# --- changing a person ------------------------------------------------------------------------


def test_an_edit_changes_what_is_sent_alone(owner: Actor, member: Actor, project: Project) -> None:
    before = people.as_dict(people.person_to_see(member.id or "", by=owner))
    edited = people.edit(member.id or "", {"name": "Robert"}, by=owner)
    assert people.as_dict(edited) == {**before, "name": "Robert"}
    assert last_event("person.edited").changes == {"name": ["bob", "Robert"]}
    assert before["roles"] == {"shop": "member"}


def test_what_a_person_is_already_leaves_no_event(owner: Actor, member: Actor) -> None:
    events = Event.select().count()
    same = {"email": " BOB@example.com", "name": "bob", "owner": False, "disabled": False,
            "roles": {"shop": "member"}}  # fmt: skip
    people.edit(member.id or "", same, by=owner)
    people.edit(member.id or "", {}, by=owner)
    assert Event.select().count() == events
    assert Session.select().where(Session.person == member.id).exists()


def test_roles_replace_all_that_there_were(
    owner: Actor, member: Actor, other_project: Project
) -> None:
    def roles(**wanted: str) -> dict[str, str]:
        return people.as_dict(people.edit(member.id or "", {"roles": wanted}, by=owner))["roles"]

    assert roles(shop="admin", other="viewer") == {"shop": "admin", "other": "viewer"}
    assert last_event("person.edited").changes == {
        "roles": [{"shop": "member"}, {"shop": "admin", "other": "viewer"}]}  # fmt: skip
    assert roles(other="viewer") == {"other": "viewer"}
    assert roles() == {}


def test_a_taken_address_is_a_conflict_in_an_edit(owner: Actor, member: Actor) -> None:
    with pytest.raises(Conflict) as refusal:
        people.edit(member.id or "", {"email": "Ada@example.com", "name": "Bo"}, by=owner)
    assert refusal.value.fields == {"email": "is taken"}
    assert Person.get_by_id(member.id).name == "bob"


def test_of_two_that_take_an_address_at_once_one_gets_it(
    app: Flask, owner: Actor, member: Actor, viewer: Actor
) -> None:
    ids = [member.id or "", viewer.id or ""]
    change = {"email": "new@example.com"}
    answers = at_once(2, lambda number: people.edit(ids[number], change, by=owner).email)
    assert sorted(getattr(answer, "code", answer) for answer in answers) == [
        "CONFLICT", "new@example.com"]  # fmt: skip


def test_no_event_and_no_object_tells_a_password(owner: Actor, member: Actor) -> None:
    new = "a new password"
    people.edit(member.id or "", {"password": new}, by=owner)
    assert last_event("person.edited").changes == {"password": ["set", "changed"]}
    add(owner, password=new)
    told = json.dumps([event.changes for event in Event.select()])
    told += json.dumps([people.as_dict(person) for person in Person.select()])
    assert new not in told and "argon2" not in told and "hash" not in told


ENDING = {
    "disabled": {"disabled": True},
    "password": {"password": "a new password"},
    "the same password": {"password": PASSWORD},
    "roles": {"roles": {"shop": "admin"}},
    "owner": {"owner": True},
}


@pytest.mark.parametrize("change", ENDING.values(), ids=ENDING.keys())
def test_a_change_of_rights_ends_all_sessions_at_once(
    owner: Actor, member: Actor, change: dict[str, Any]
) -> None:
    browser, _ = people.sign_in("bob@example.com", PASSWORD, ip=None)
    text, _ = people.access_token(
        "bob@example.com", PASSWORD, signing_key=SIGNING_KEY, ip=None, user_agent=""
    )
    people.edit(member.id or "", {"name": "Robert", "email": "bob@example.com"}, by=owner)
    assert people.by_session(browser) and holder(text)
    people.edit(member.id or "", change, by=owner)
    assert people.by_session(browser) is None
    with pytest.raises(Unauthenticated):
        holder(text)
    assert not Session.select().where(Session.person == member.id).exists()
    assert Session.select().where(Session.person == owner.id).exists()


def test_a_sign_in_with_a_password_that_is_changed_meanwhile_fails(
    owner: Actor, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = people._password_fits

    def compare(password: str, password_hash: str | None) -> bool:
        found = fits(password, password_hash)
        people.edit(member.id or "", {"password": "a new password"}, by=owner)
        return found

    monkeypatch.setattr(people, "_password_fits", compare)
    assert refusal_of("bob@example.com", PASSWORD)[0] == "CREDENTIALS_INVALID"
    assert not Session.select().where(Session.person == member.id).exists()


def test_who_is_disabled_cannot_sign_in_until_enabled_again(owner: Actor, member: Actor) -> None:
    people.edit(member.id or "", {"disabled": True}, by=owner)
    assert refusal_of("bob@example.com", PASSWORD)[0] == "CREDENTIALS_INVALID"
    assert last_event("person.disabled").changes == {"disabled": [False, True]}
    people.edit(member.id or "", {"disabled": True}, by=owner)
    people.edit(member.id or "", {"disabled": False}, by=owner)
    people.sign_in("bob@example.com", PASSWORD, ip=None)
    assert last_event("person.enabled").changes == {"disabled": [True, False]}
    assert Event.select().where(Event.action == "person.disabled").count() == 1
    assert not Event.select().where(Event.action == "person.edited").exists()


def test_an_owners_roles_count_again_once_they_are_no_owner(owner: Actor, project: Project) -> None:
    person, _ = add(owner, password=PASSWORD, owner=True, roles={"shop": "viewer"})
    token, _ = people.sign_in(person.email, PASSWORD, ip=None)
    actor = people.by_session(token)
    assert actor is not None and actor.is_owner and not actor.roles
    people.edit(person.id, {"owner": False}, by=owner)
    token, _ = people.sign_in(person.email, PASSWORD, ip=None)
    actor = people.by_session(token)
    assert actor is not None and actor.roles == {project.id: "viewer"}


# --- the last owner ---------------------------------------------------------------------------

UNDOING: dict[str, Callable[[str, Actor], Any]] = {
    "demoted": lambda person_id, by: people.edit(person_id, {"owner": False}, by=by),
    "disabled": lambda person_id, by: people.edit(person_id, {"disabled": True}, by=by),
    "deleted": lambda person_id, by: people.delete(person_id, by=by),
}


@pytest.mark.parametrize("undo", UNDOING.values(), ids=UNDOING.keys())
def test_the_last_owner_who_can_sign_in_stays(
    owner: Actor, undo: Callable[[str, Actor], Any]
) -> None:
    invite(owner, owner=True)
    out, _ = add(owner, email="out@example.com", password=PASSWORD, owner=True)
    people.edit(out.id, {"disabled": True}, by=owner)
    events = Event.select().count()
    with pytest.raises(Conflict, match="is the last owner who can sign in"):
        undo(owner.id or "", owner)
    assert Event.select().count() == events
    assert people.sign_in("ada@example.com", PASSWORD, ip=None)[1].is_owner
    people.edit(out.id, {"disabled": False}, by=owner)
    undo(owner.id or "", owner)


@pytest.mark.parametrize("undo", UNDOING.values(), ids=UNDOING.keys())
def test_an_owner_who_cannot_sign_in_may_go(
    owner: Actor, undo: Callable[[str, Actor], Any]
) -> None:
    person, _ = invite(owner, owner=True)
    undo(person.id, owner)


@pytest.mark.parametrize("first", UNDOING)
@pytest.mark.parametrize("second", UNDOING)
def test_of_two_owners_who_undo_each_other_at_once_one_stays(
    app: Flask, owner: Actor, first: str, second: str
) -> None:
    grace = add_person("grace@example.com", is_owner=True)
    calls = [lambda: UNDOING[first](grace.id or "", owner),
             lambda: UNDOING[second](owner.id or "", grace)]  # fmt: skip
    answers = at_once(2, lambda number: calls[number]())
    assert [answer.code for answer in answers if isinstance(answer, Refused)] == ["CONFLICT"]
    assert len([person for person in Person.select() if people._is_owner_at_work(person)]) == 1


# --- removing a person ------------------------------------------------------------------------


def test_a_deleted_person_is_gone_with_all_they_held(
    owner: Actor, member: Actor, project: Project
) -> None:
    token, _ = people.sign_in("bob@example.com", PASSWORD, ip=None)
    person, invitation = invite(owner)
    for one in (member.id or "", person.id):
        people.delete(one, by=owner)
        with pytest.raises(Unknown):
            people.person_to_see(one, by=owner)
    assert people.by_session(token) is None
    with pytest.raises(Forbidden):
        people.join(invitation, {"password": PASSWORD}, by=VISITOR)
    assert not Link.select().exists() and not Membership.select().exists()
    assert [event.changes["email"] for event in Event.select().where(
        Event.action == "person.deleted")] == [
        ["bob@example.com", None], ["grace@example.com", None]]  # fmt: skip


def test_a_person_who_owns_keys_is_not_deleted(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key(by=member)
    keys.revoke(key.id, by=owner)
    with pytest.raises(Conflict, match="bob@example.com owns 1 key: delete every one first"):
        people.delete(member.id or "", by=owner)
    keys.delete(key.id, by=owner)
    people.delete(member.id or "", by=owner)


def test_a_disabled_persons_keys_go_on_working(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    _, secret = make_key(by=member)
    people.edit(member.id or "", {"disabled": True}, by=owner)
    assert check.check(check.Request(secret, "req_1")).is_valid


def test_a_new_address_shows_at_the_persons_keys(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    _, secret = make_key(by=member)
    assert check.check(check.Request(secret, "req_1")).is_valid
    people.edit(member.id or "", {"email": "robert@example.com"}, by=owner)
    key = check.check(check.Request(secret, "req_2")).key
    assert key is not None and key.owner == "robert@example.com"


# --- who may ----------------------------------------------------------------------------------

DOINGS: dict[str, Callable[[str, Actor], Any]] = {
    "create": lambda person_id, by: add(by),
    "list": lambda person_id, by: people.page(by=by),
    "read": lambda person_id, by: people.person_to_see(person_id, by=by),
    "edit": lambda person_id, by: people.edit(person_id, {"name": "New"}, by=by),
    "invite": lambda person_id, by: people.invite(person_id, by=by),
    "delete": lambda person_id, by: people.delete(person_id, by=by),
}


@pytest.mark.parametrize("do", DOINGS.values(), ids=DOINGS.keys())
def test_people_are_an_owners_alone(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor, project: Project,
    do: Callable[[str, Actor], Any],
) -> None:  # fmt: skip
    invitee, _ = invite(owner, email="invitee@example.com")
    key = Actor(
        kind="key", id="key_1", name="CI", owner_id=owner.id, project_id=project.id,
        permissions=frozenset({"admin:*"}),
    )  # fmt: skip
    for by in (admin, member, viewer, stranger, key):
        for person_id in (invitee.id, by.id or "", "per_missing"):
            with pytest.raises(Forbidden, match="Only an owner"):
                do(person_id, by)
    do(invitee.id, owner)


@pytest.mark.parametrize("do", [*DOINGS][2:])
@pytest.mark.parametrize("person_id", ["per_missing", "", "\0", "\ud800", "ada@example.com", "%"])
def test_a_person_who_is_not_there_is_unknown(owner: Actor, do: str, person_id: str) -> None:
    with pytest.raises(Unknown, match="There is no such person"):
        DOINGS[do](person_id, owner)


def test_pages_meet_everybody_once_while_others_are_added(owner: Actor) -> None:
    for number in range(4):
        add(owner, email=f"p{number}@example.com")
    met: list[str] = []
    cursor = None
    while True:
        page = people.page(by=owner, cursor=cursor, limit=2)
        met += [person.email for person in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
        add(owner, email=f"later{len(met)}@example.com")
    assert sorted(met) == ["ada@example.com", *(f"p{number}@example.com" for number in range(4))]
