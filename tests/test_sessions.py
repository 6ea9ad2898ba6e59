"""Sessions: rows that say who is there, and since when; how one sees and ends one's own; when all
end at once; access tokens, which are sessions too."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jwt
import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import account, db, people, sessions, signin
from console import clock as console_clock
from console.actor import Actor
from console.errors import NotFresh, Unauthenticated, Unknown
from console.models import Event, Membership, Person, Project, Session
from tests.conftest import PASSWORD, V1, Clock, MakeKey, add_person, at_once, bearer

SIGNING_KEY = "s" * 40
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def disable(email: str) -> None:
    Person.update(disabled_at=console_clock.now()).where(Person.email == email).execute()


def begin(email: str = "ada@example.com", **more: Any) -> str:
    return signin.with_password(email, PASSWORD, ip="192.0.2.7", **more)[0]


def by(token: str) -> Actor:
    actor = sessions.by_session(token, ip="192.0.2.7")
    assert actor is not None
    return actor


def handle_of(token: str) -> str:
    return Session.get(Session.id == hashlib.sha256(token.encode()).hexdigest()).handle


def is_open(token: str) -> bool:
    return any(sessions.by_session(token, kind=kind) for kind in sessions.LENGTH)


def test_a_session_is_its_persons_with_their_roles(member: Actor, project: Project) -> None:
    token, person = signin.with_password("bob@example.com", PASSWORD, ip=None)
    actor = sessions.by_session(token, ip="192.0.2.7", request_id="req_1")
    assert actor is not None
    assert (actor.id, actor.name, actor.owner_id, actor.is_owner) == (
        person.id, "bob@example.com", person.id, False)  # fmt: skip
    assert (actor.ip, actor.request_id) == ("192.0.2.7", "req_1")
    assert actor.roles == {project.id: "member"}


def test_a_changed_role_holds_at_once(member: Actor, project: Project) -> None:
    token, person = signin.with_password("bob@example.com", PASSWORD, ip=None)
    Membership.update(role="viewer").where(Membership.person == person).execute()
    actor = sessions.by_session(token)
    assert actor is not None and actor.roles == {project.id: "viewer"}
    Membership.delete().where(Membership.person == person).execute()
    actor = sessions.by_session(token)
    assert actor is not None and not actor.sees(project.id)


def test_signing_out_ends_the_one_session(owner: Actor) -> None:
    here, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
    there, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
    sessions.sign_out(here, by=owner)
    assert sessions.by_session(here) is None
    assert sessions.by_session(there) is not None
    sessions.sign_out(here, by=owner)
    assert Event.select().where(Event.action == "person.signed_out").count() == 1


def test_a_session_ends_after_14_days_to_the_millisecond(owner: Actor, clock: Clock) -> None:
    token, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
    clock.move("14d")
    clock.move_ms(-1)
    assert sessions.by_session(token) is not None
    clock.move_ms(1)
    assert sessions.by_session(token) is None


def test_ended_sessions_are_swept_at_the_next_sign_in(
    app: Flask, clock: Clock, project: Project
) -> None:
    add_person("ada@example.com")
    clock.move("14d")
    signin.with_password("ada@example.com", PASSWORD, ip=None)
    assert Session.select().count() == 1


def test_a_disabled_persons_sessions_open_nothing(owner: Actor) -> None:
    token, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
    disable("ada@example.com")
    assert sessions.by_session(token) is None


@pytest.mark.parametrize("token", ["", "x", "\0", "\u65e5"])
def test_another_token_opens_nothing(owner: Actor, token: str) -> None:
    assert sessions.by_session(token) is None


def test_the_digest_of_a_session_opens_nothing(owner: Actor) -> None:
    assert sessions.by_session(Session.get().id) is None


# --- access tokens --------------------------------------------------------------------------


@pytest.fixture
def token(owner: Actor) -> str:
    text, seconds = signin.for_script(
        "ada@example.com", PASSWORD, signing_key=SIGNING_KEY, ip=None, user_agent="curl"
    )
    assert seconds == 15 * 60
    return text


def holder(text: str, signing_key: str = SIGNING_KEY) -> str:
    return sessions.by_access_token(text, signing_key=signing_key, ip=None, request_id=None).name


def test_an_access_token_acts_as_its_person(token: str) -> None:
    assert sessions.looks_like_access_token(token)
    assert holder(token) == "ada@example.com"


def test_an_access_token_is_a_jwt_of_15_minutes(owner: Actor, clock: Clock) -> None:
    text, _ = signin.for_script(
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
        signin.for_script("ada@example.com", "x", signing_key=SIGNING_KEY, ip=None, user_agent="")
    assert refusal.value.code == "CREDENTIALS_INVALID"


def test_an_access_token_ends_with_its_session(token: str, owner: Actor) -> None:
    Session.delete().where(Session.kind == sessions.TOKEN).execute()
    with pytest.raises(Unauthenticated):
        holder(token)


def test_a_disabled_persons_token_opens_nothing(token: str) -> None:
    disable("ada@example.com")
    with pytest.raises(Unauthenticated):
        holder(token)


def test_a_browsers_session_is_no_token_and_a_token_no_session(token: str, owner: Actor) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    assert sessions.by_session(claims["sid"]) is None
    browser, _ = signin.with_password("ada@example.com", PASSWORD, ip=None)
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


def test_no_secret_of_a_key_is_taken_for_a_token(make_key: MakeKey, client: FlaskClient) -> None:
    _, secret = make_key()
    assert client.get(f"{V1}/whoami", headers=bearer(secret)).status_code == 200


# --- seeing and ending one's own ----------------------------------------------------------------


def test_one_sees_ones_own_sessions_the_last_used_first(
    owner: Actor, member: Actor, clock: Clock
) -> None:
    Session.delete().execute()
    first = begin(user_agent=AGENT)
    begin("bob@example.com")
    clock.move("1h")
    script = begin(kind=sessions.TOKEN)
    clock.move("10m")
    by(first)
    listed = sessions.of_person(by=owner)
    assert [one.handle for one in listed] == [handle_of(first), handle_of(script)]
    assert [sessions.is_of(one, first) for one in listed] == [True, False]
    shown = listed[0]
    assert (shown.ip, shown.user_agent, shown.method) == ("192.0.2.7", AGENT, "password")
    assert shown.last_seen_at - shown.created_at == console_clock.HOUR + 10 * console_clock.MINUTE
    clock.move("15m")
    assert [one.handle for one in sessions.of_person(by=owner)] == [handle_of(first)]


def test_a_key_has_no_sessions(owner: Actor, project: Project) -> None:
    key = Actor(kind="key", id="key_1", name="CI", owner_id=owner.id, project_id=project.id)
    assert sessions.of_person(by=key) == []
    for end in (lambda: sessions.end(handle_of(begin()), by=key),):
        with pytest.raises(Unknown):
            end()


def test_one_ends_one_session_now(owner: Actor) -> None:
    here, there, script = begin(), begin(), begin(kind=sessions.TOKEN)
    for token in (there, script):
        handle = handle_of(token)
        sessions.end(handle, by=by(here))
        assert not is_open(token) and is_open(here)
        event = Event.select().order_by(Event.id.desc()).get()
        assert (event.action, event.target_id) == ("person.session_ended", owner.id)
        assert event.changes == {"sessions": [[handle], None]}
        with pytest.raises(Unknown, match="has ended already"):
            sessions.end(handle, by=by(here))


def test_nobody_ends_anothers_session(owner: Actor, member: Actor) -> None:
    token, bobs = begin(), begin("bob@example.com")
    for actor, handle in ((by(bobs), handle_of(token)), (by(token), handle_of(bobs)),
                          (by(token), ""), (by(token), "\0"), (by(token), "\ud800")):  # fmt: skip
        with pytest.raises(Unknown, match="has ended already"):
            sessions.end(handle, by=actor)
    assert is_open(token) and is_open(bobs)


def test_one_ends_all_other_sessions(owner: Actor, member: Actor) -> None:
    Session.delete().where(Session.person == owner.id).execute()
    here, bobs = begin(), begin("bob@example.com")
    others = [begin(), begin(kind=sessions.TOKEN)]
    assert sessions.end_others(here, by=by(here)) == 2
    assert is_open(here) and is_open(bobs) and not any(map(is_open, others))
    count = Event.select().where(Event.action == "person.session_ended").count()
    assert sessions.end_others(here, by=by(here)) == 0
    assert Event.select().where(Event.action == "person.session_ended").count() == count == 1


def test_of_four_that_end_a_session_at_once_one_does(owner: Actor, app: Flask) -> None:
    here, handle = begin(), handle_of(begin())
    actor = by(here)
    answers = at_once(4, lambda _: sessions.end(handle, by=actor).handle)
    assert sorted(getattr(one, "code", "ended") for one in answers) == ["NOT_FOUND"] * 3 + ["ended"]


def test_ending_sessions_takes_somebody_who_is_there(owner: Actor, clock: Clock) -> None:
    here, handle = begin(), handle_of(begin())
    clock.move("30m")
    for end in (
        lambda: sessions.end(handle, by=by(here)),
        lambda: sessions.end_others(here, by=by(here)),
    ):
        with pytest.raises(NotFresh):
            end()


# --- seen, and confirmed --------------------------------------------------------------------------


def test_last_seen_is_written_once_in_five_minutes(owner: Actor, clock: Clock) -> None:
    token = begin()
    began = clock.now()
    for move, seen in (("4m", 0), ("1m", 5), ("4m", 5), ("2m", 11)):
        clock.move(move)
        by(token)
        row = Session.get(Session.handle == handle_of(token))
        assert row.last_seen_at == began + seen * console_clock.MINUTE


def test_a_database_that_takes_no_writes_fails_no_page(
    owner: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = begin()
    clock.move("10m")
    tries: list[object] = []

    def locked(**_: float) -> None:
        tries.append(None)
        raise peewee.OperationalError("database is locked")

    monkeypatch.setattr(sessions, "_note_again_at", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(db, "write", locked)
        by(token)
        by(token)
    assert len(tries) == 1  # the others did not wait for it again
    monkeypatch.setattr(sessions, "_note_again_at", 0.0)
    by(token)
    assert Session.get(Session.handle == handle_of(token)).last_seen_at == clock.now()


def test_confirming_makes_a_session_fresh_under_a_new_token(owner: Actor, clock: Clock) -> None:
    token = begin()
    handle = handle_of(token)
    clock.move("30m")
    with pytest.raises(NotFresh):
        by(token).require_fresh()
    new = sessions.confirm(token)
    by(new).require_fresh()
    assert sessions.by_session(token) is None and handle_of(new) == handle
    with pytest.raises(Unauthenticated):
        sessions.confirm(token)


def test_a_session_that_has_ended_cannot_be_confirmed(owner: Actor, clock: Clock) -> None:
    token = begin()
    clock.move("14d")
    with pytest.raises(Unauthenticated):
        sessions.confirm(token)


def test_fresh_proof_holds_for_half_an_hour_to_the_millisecond(owner: Actor, clock: Clock) -> None:
    token = begin()
    clock.move("30m")
    clock.move_ms(-1)
    by(token).require_fresh()
    with pytest.raises(NotFresh):
        by(token).require_fresh(spare=sessions.SPARE)
    clock.move_ms(1)
    with pytest.raises(NotFresh) as refusal:
        by(token).require_fresh()
    assert (refusal.value.status, refusal.value.code) == (403, "CONFIRMATION_REQUIRED")


# --- what ends sessions at once -------------------------------------------------------------------

Ending = Callable[[Actor, Actor, str], Any]
ENDING: dict[str, tuple[Ending, bool]] = {
    "another's new password": (lambda ada, bob, token: people.edit(
        bob.id or "", {"password": "three words here"}, by=ada), False),
    "disabled": (lambda ada, bob, token: people.edit(
        bob.id or "", {"disabled": True}, by=ada), False),
    "another role": (lambda ada, bob, token: people.edit(
        bob.id or "", {"roles": {"shop": "viewer"}}, by=ada), False),
    "made an owner": (lambda ada, bob, token: people.edit(
        bob.id or "", {"owner": True}, by=ada), False),
    "one's own new password": (lambda ada, bob, token: account.change_password(
        token, {"old_password": PASSWORD, "password": "three words here"}, by=by(token)), True),
}  # fmt: skip


@pytest.mark.parametrize("end, stays_here", ENDING.values(), ids=ENDING.keys())
def test_sessions_end_at_once(owner: Actor, member: Actor, end: Ending, stays_here: bool) -> None:
    here, there = begin("bob@example.com"), begin("bob@example.com")
    script, adas = begin("bob@example.com", kind=sessions.TOKEN), begin()
    end(owner, member, here)
    assert [is_open(token) for token in (here, there, script, adas)] == [
        stays_here, False, False, True]  # fmt: skip
