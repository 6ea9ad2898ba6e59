"""Rights that end while a request is under way: what it began with, it acts on no more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask

from console import account, db, invitations, people, second_factor, sessions, signin
from console.actor import Actor
from console.errors import Unauthenticated
from console.models import Key, Session
from tests.conftest import PASSWORD, add_person, code_of
from tests.test_known_mistakes import LEFT_BY_A_CALL, NO_EVENT, WRITES, everything
from tests.test_permission_table import (
    NEVER,
    NO_DOOR,
    OWNER,
    Operation,
    World,
    prepared,
)
from tests.test_permission_table import new_world as world

__all__ = ["world"]  # a fixture

CHANGES = [one for one in WRITES if one.name not in NO_EVENT]
BY_KEY = [one for one in CHANGES if one.api and one.key not in (NO_DOOR, NEVER)]


@pytest.fixture
def before_the_next_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something done by somebody else just before the next transaction begins."""
    waiting: list[Callable[[], None]] = []
    one_writer = db._one_writer

    @contextmanager
    def delayed(wait_seconds: float) -> Iterator[None]:
        if waiting and not db.handle.in_transaction():
            act = waiting.pop()
            with one_writer(wait_seconds):
                act()
        with one_writer(wait_seconds):
            yield

    monkeypatch.setattr(db, "_one_writer", delayed)
    return waiting.append


@pytest.mark.parametrize("operation", CHANGES, ids=str)
def test_whoever_is_signed_out_meanwhile_changes_nothing(
    world: World,
    operation: Operation,
    before_the_next_write: Callable[[Callable[[], None]], None],
) -> None:
    for door in ("browser", "api"):
        if getattr(operation, door) is None:
            continue
        world.sign_in(OWNER)
        ids = prepared(world, operation)
        before = everything()
        before_the_next_write(lambda: Session.delete().execute() and None)
        if door == "browser":
            answer = world.submit(operation, ids, OWNER)
            assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (
                303, "/login")  # fmt: skip
        else:
            answer = world.send(operation, ids, OWNER)
            assert (answer.status_code, answer.get_json()["code"]) == (401, "TOKEN_INVALID")
        assert everything() == before
        world.browsers.clear()
        world.tokens.clear()


@pytest.mark.parametrize("loss", ["revoked", "narrowed"])
@pytest.mark.parametrize("operation", BY_KEY, ids=str)
def test_a_key_that_is_stopped_or_narrowed_meanwhile_changes_nothing(
    world: World,
    operation: Operation,
    loss: str,
    before_the_next_write: Callable[[Callable[[], None]], None],
) -> None:
    ids = prepared(world, operation)
    secret = world.holder(ids["slug"], operation.key, "tasks:read")
    robot = Key.select().where(Key.name == "Robot")
    lost = {"revoked": {"revoked_at": 1}, "narrowed": {"permissions": [operation.key]}}[loss]

    def lose() -> None:
        Key.update(lost).where(Key.id.in_(robot.select(Key.id))).execute()

    before_the_next_write(lose)
    before = everything()
    answer = world.send(operation, ids, token=secret)
    code = {"revoked": (401, "API_KEY_REVOKED"), "narrowed": (403, "PERMISSION_DENIED")}[loss]
    assert (answer.status_code, answer.get_json()["code"]) == code
    after = everything()
    assert {name for name in before if after[name] != before[name]} <= LEFT_BY_A_CALL
    assert len(after["Key"]) == len(before["Key"])


def test_a_factor_is_not_added_in_a_session_that_has_ended(app: Flask, owner: Actor) -> None:
    """Of whoever was in it; the person has changed the password meanwhile."""
    token, person = signin.with_password(owner.name, PASSWORD, ip=None)
    intruder = sessions.by_session(token)
    assert intruder is not None
    begun = second_factor.begin_enrolment(by=intruder)
    people.edit(person.id, {"password": "three new words"}, by=owner)
    for act in (
        lambda: second_factor.enrol(begun.sealed, code_of(begun.seed), token=token, by=intruder),
        lambda: account.rename({"name": "Eve"}, by=intruder),
        lambda: invitations.reset(person.id, by=intruder),
        lambda: sessions.end_others(token, by=intruder),
    ):
        with pytest.raises(Unauthenticated, match="You are signed out"):
            act()
    assert not second_factor.state_of(person.id).is_on


def test_whoever_gives_up_their_own_rights_is_done_with_it(app: Flask, owner: Actor) -> None:
    add_person("grace@example.com", is_owner=True)
    token, person = signin.with_password(owner.name, PASSWORD, ip=None)
    me = sessions.by_session(token)
    assert me is not None
    assert not people.edit(person.id, {"owner": False}, by=me).is_owner
    assert sessions.by_session(token) is None
