"""The grace period of an old secret: ended early, or longer than first said, in every process."""

from collections.abc import Callable
from typing import Any

import pytest

from console import check, clock, db, keys, known, secret
from console.actor import KEY, Actor, command_line
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.models import Event, Key, Project, Secret
from tests.conftest import Call, Clock, MakeKey, assert_problem, at_once
from tests.server import RunningServer
from tests.test_promises import Client

HOUR, DAY = clock.HOUR, clock.DAY


def ask(text: str) -> str:
    return check.check(check.Request(secret=text, request_id="r", ip="192.0.2.1")).code


@pytest.fixture
def rotated(make_key: MakeKey, operator: Actor, clock: Clock) -> tuple[Key, str, str]:
    """A key within its grace of a day, its old secret and its new one."""
    key, old = make_key()
    key, new, _ = keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    return key, old, new


def set_grace(key: Key, period: Any, by: Actor) -> int | None:
    return keys.set_grace(key.id, {"grace_period": period}, by=by)[1]


def test_grace_ended_stops_the_old_secret_at_once_and_for_good(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, new = rotated
    assert ask(old) == "VALID"
    clock.move("1h")
    assert set_grace(key, None, operator) is None
    assert (ask(old), ask(new)) == ("API_KEY_SUPERSEDED", "VALID")
    assert keys.grace_of(Key.get_by_id(key.id)) is None
    row = Secret.get(Secret.digest == secret.digest(old))
    assert row.works_until == clock.now() == row.superseded_at + HOUR
    with pytest.raises(Conflict):
        set_grace(key, "24h", operator)
    assert ask(old) == "API_KEY_SUPERSEDED"


def test_grace_counts_from_now_on(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, _ = rotated
    clock.move("23h")
    ends_at = set_grace(key, "7d", operator)
    assert ends_at == keys.grace_of(key) == clock.now() + 7 * DAY
    clock.move_ms(7 * DAY - 1)
    assert ask(old) == "VALID"
    clock.move_ms(1)
    assert ask(old) == "API_KEY_SUPERSEDED"


def test_grace_may_be_shortened(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, _ = rotated
    set_grace(key, "1h", operator)
    clock.move("1h")
    assert ask(old) == "API_KEY_SUPERSEDED"


def test_grace_never_outlives_the_key(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, _, _ = rotated
    keys.edit(key.id, {"expires_in": "3d"}, by=operator)
    assert set_grace(key, "30d", operator) == clock.now() + 3 * DAY


def test_an_expired_keys_grace_can_be_ended_but_not_prolonged(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, _ = rotated
    keys.edit(key.id, {"expires_in": "1h"}, by=operator)
    clock.move("2h")
    with pytest.raises(Conflict) as refused:
        set_grace(key, "24h", operator)
    assert "expired" in refused.value.message
    assert set_grace(key, None, operator) is None
    keys.edit(key.id, {"expires_at": None}, by=operator)
    assert ask(old) == "API_KEY_SUPERSEDED"


@pytest.mark.parametrize("period", ["31d", "1", "", 24, "8000y", False])
def test_grace_that_makes_no_sense_is_refused_by_name(
    rotated: tuple[Key, str, str], operator: Actor, period: Any
) -> None:
    key, _, _ = rotated
    before = keys.grace_of(key)
    with pytest.raises(Invalid) as refused:
        set_grace(key, period, operator)
    assert list(refused.value.fields) == ["grace_period"]
    assert keys.grace_of(key) == before


def test_grace_has_to_be_said_for_to_end_it_cannot_be_taken_back(
    rotated: tuple[Key, str, str], operator: Actor
) -> None:
    with pytest.raises(Invalid) as refused:
        keys.set_grace(rotated[0].id, {}, by=operator)
    assert refused.value.fields == {"grace_period": "is required"}
    assert keys.grace_of(rotated[0]) is not None


@pytest.mark.parametrize("grace", [None, "1h"])
def test_a_key_without_an_old_secret_has_no_grace_to_set(
    make_key: MakeKey, operator: Actor, clock: Clock, grace: str | None
) -> None:
    never_rotated, _ = make_key()
    rotated, _ = make_key()
    keys.rotate(rotated.id, {"grace_period": grace}, by=operator)
    clock.move("2h")
    for key in (never_rotated, rotated):
        for period in (None, "24h"):
            with pytest.raises(Conflict):
                set_grace(key, period, operator)


def test_grace_changed_says_until_when_before_and_after(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, _, _ = rotated
    clock.move("1h")
    set_grace(key, "24h", operator)
    assert Key.get_by_id(key.id).updated_at == clock.now()
    set_grace(key, "24h", operator)  # the same again says nothing
    set_grace(key, None, operator)
    told = [
        (event.action, event.changes["previous_secret_expires_at"])
        for event in Event.select().where(Event.target_id == key.id).order_by(Event.id)[2:]
    ]
    assert told == [
        ("key.grace_changed", ["2026-11-21T10:30:00Z", "2026-11-21T11:30:00Z"]),
        ("key.grace_changed", ["2026-11-21T11:30:00Z", None]),
    ]


def test_only_the_newest_old_secret_is_touched(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, first, second = rotated
    clock.move("1h")
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    set_grace(key, "7d", operator)
    assert (ask(first), ask(second)) == ("API_KEY_SUPERSEDED", "VALID")


# --- who may ----------------------------------------------------------------------------------


def test_who_may_rotate_may_set_the_grace(
    rotated: tuple[Key, str, str], admin: Actor, member: Actor, viewer: Actor, stranger: Actor
) -> None:
    key, _, _ = rotated
    for actor, refusal in ((member, Unknown), (viewer, Forbidden), (stranger, Unknown)):
        for period in (None, "24h"):
            with pytest.raises(refusal):
                set_grace(key, period, actor)
    assert set_grace(key, "1h", admin) is not None


def test_who_could_not_rotate_a_key_lets_no_old_secret_live_on_but_may_end_it(
    make_key: MakeKey, operator: Actor, project: Project, clock: Clock
) -> None:
    key, old = make_key(permissions=["audit:read"])
    keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    robot = Actor(
        kind=KEY, id="key_robot", name="Robot", project_id=project.id,
        permissions=frozenset({"keys:write"}),
    )  # fmt: skip
    with pytest.raises(Forbidden) as refused:
        set_grace(key, "7d", robot)
    assert refused.value.missing_permissions == ("audit:read",)
    set_grace(key, None, robot)
    assert ask(old) == "API_KEY_SUPERSEDED"


# --- at the next check, wherever ---------------------------------------------------------------


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is trusted until somebody writes, however slow the test is."""
    monkeypatch.setattr(known, "TRUSTED_SECONDS", 3600.0)


@pytest.mark.parametrize(
    "stop", [lambda key, by: set_grace(key, None, by), lambda key, by: set_grace(key, "1m", by)]
)
def test_a_remembered_old_secret_obeys_at_the_next_check(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock, for_ever: None,
    stop: Callable[[Key, Actor], Any],
) -> None:  # fmt: skip
    key, old, _ = rotated
    assert ask(old) == "VALID"
    stop(key, operator)
    clock.move("1m")
    assert ask(old) == "API_KEY_SUPERSEDED"


def test_ended_and_rotated_at_once_at_most_two_secrets_work(
    rotated: tuple[Key, str, str], operator: Actor
) -> None:
    key, _, _ = rotated

    def change(number: int) -> Any:
        if number % 2:
            return keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
        return set_grace(key, "7d" if number % 4 else None, operator)

    at_once(8, change)
    now = clock.now()
    working = Secret.superseded_at.is_null() | (Secret.works_until > now)
    assert Secret.select().where(Secret.key == key, working).count() <= 2


@pytest.mark.service
def test_grace_ended_by_another_process_is_obeyed_by_the_very_next_check(
    server: RunningServer,
) -> None:
    server.run("create-project", "--slug", "shop")
    by = command_line()
    db.open_database(server.database_url)
    try:
        with Client(server) as client:
            for _ in range(10):
                key, old = keys.create({"name": "CI", "project": "shop"}, by=by)
                keys.rotate(key.id, {"grace_period": "1h"}, by=by)
                assert client.check(old)[1] == "VALID"
                set_grace(key, None, by)
                assert client.check(old)[1] == "API_KEY_SUPERSEDED"
    finally:
        db.close()


# --- the API ------------------------------------------------------------------------------------


def test_the_api_answers_the_key_and_until_when_the_old_secret_works(
    call: Call, make_key: MakeKey, operator: Actor
) -> None:
    key, old = make_key()
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    path = f"/api-keys/{key.id}/grace"
    answer = call("POST", path, {"grace_period": "24h"})
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    assert answer.json["previous_secret_expires_at"] == "2026-11-21T10:30:00Z"
    assert answer.json["id"] == key.id and "key" not in answer.json
    ended = call("POST", path, {"grace_period": None})
    assert (ended.status_code, ended.json["previous_secret_expires_at"]) == (200, None)
    assert ask(old) == "API_KEY_SUPERSEDED"
    assert_problem(call("POST", path, {"grace_period": None}), 409, "CONFLICT")
    refused = assert_problem(call("POST", path, {"grace_period": "31d"}), 400, "INVALID", "errors")
    assert refused["errors"][0]["field"] == "grace_period"
    assert_problem(call("POST", path, {}), 400, "INVALID", "errors")
