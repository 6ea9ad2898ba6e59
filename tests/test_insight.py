"""What the newest requests of a key tell, and that no more of them are looked at."""

from typing import Any

import pytest

from console import audit, check, clock, db, insight, keys
from console.actor import Actor
from console.errors import Unknown
from console.insight import Endpoint, Outcome, Top, User
from console.models import Key
from tests.conftest import Clock, MakeKey

MINUTE, HOUR = clock.MINUTE, clock.HOUR


def ask(text: str, ip: str | None = "192.0.2.1", agent: str = "curl", **asked: Any) -> str:
    asked = {"method": "GET", "endpoint": "/tasks", **asked}
    return check.check(
        check.Request(secret=text, request_id="r", ip=ip, user_agent=agent, **asked)
    ).code


def rows(top: Top[Any]) -> list[Any]:
    return list(top.rows)


# --- the page -----------------------------------------------------------------------------------


def test_a_key_that_was_never_used_tells_nothing(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    found = insight.of_key(key.id, by=operator)
    for top in (found.outcomes, found.endpoints, found.sources):
        assert (rows(top), top.number, top.requests, top.is_partial) == ([], 0, 0, False)


def test_outcomes_are_told_by_status_and_code_the_commonest_first(
    make_key: MakeKey, operator: Actor
) -> None:
    key, text = make_key(rate_limit={"per_hour": 3})
    for _ in range(5):
        ask(text)
    ask(text, permissions=("a:b",))
    audit.record_outcome("r", 404)  # what the service answered to those that were let in
    outcomes = insight.of_key(key.id, by=operator).outcomes
    assert (outcomes.requests, outcomes.number) == (6, len(outcomes.rows))
    assert {(one.code, one.count) for one in outcomes.rows} == {
        ("VALID", 3), ("RATE_LIMITED", 2), ("PERMISSION_DENIED", 1),
    }  # fmt: skip
    assert outcomes.rows[0] == Outcome(404, "VALID", 3)


def test_endpoints_are_method_and_path_together(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    for method, path, times in (("GET", "/a", 2), ("POST", "/a", 3), ("GET", "/b", 1)):
        for _ in range(times):
            ask(text, method=method, endpoint=path)
    endpoints = insight.of_key(key.id, by=operator).endpoints
    assert rows(endpoints) == [
        Endpoint("POST", "/a", 3), Endpoint("GET", "/a", 2), Endpoint("GET", "/b", 1),
    ]  # fmt: skip


def test_sources_have_their_country_and_when_they_were_last_seen(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, text = make_key()
    began = clock.now()
    for ip in ("8.8.8.8", None, "10.0.0.1", "8.8.8.8"):
        ask(text, ip)
        clock.move("1m")
    sources = insight.of_key(key.id, by=operator).sources
    assert [(one.ip, one.country, one.count, one.last_at - began) for one in sources.rows] == [
        ("8.8.8.8", "US", 2, 3 * MINUTE),
        ("10.0.0.1", None, 1, 2 * MINUTE),
        (None, None, 1, MINUTE),
    ]
    assert sources.since == began


def test_of_many_groups_the_first_are_shown_and_all_counted(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = make_key()
    for number in range(insight.SHOWN + 3):
        ask(text, f"192.0.2.{number}")
    sources = insight.of_key(key.id, by=operator).sources
    assert (len(sources.rows), sources.number, sources.more) == (insight.SHOWN, 13, 3)
    assert sources.requests == 13


def test_no_more_than_the_newest_are_looked_at(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = make_key()
    _, other = make_key()
    for path in ("/old", "/old", "/new", "/new", "/newest"):
        ask(text, endpoint=path)
        ask(other, endpoint="/others")
    monkeypatch.setattr(insight, "NEWEST", 3)
    found = insight.of_key(key.id, by=operator)
    assert [(one.path, one.count) for one in found.endpoints.rows] == [("/new", 2), ("/newest", 1)]
    assert (found.outcomes.requests, found.outcomes.is_partial) == (3, True)


def test_insight_is_for_who_may_read_the_log(
    make_key: MakeKey, viewer: Actor, member: Actor, stranger: Actor
) -> None:
    key, _ = make_key()
    own, _ = make_key(by=member)
    asked = (
        insight.of_key, insight.recent_users, insight.recently_revoked,
        insight.recent_users_of_old, insight.old_secret, insight.refused_old,
    )  # fmt: skip
    for ask_for in asked:
        ask_for(key.id, by=viewer)
        ask_for(own.id, by=member)
        for actor, one in ((member, key), (stranger, key), (stranger, own)):
            with pytest.raises(Unknown):
                ask_for(one.id, by=actor)


# --- who would miss it --------------------------------------------------------------------------


def test_recent_users_are_addresses_and_agents_of_the_last_hour_newest_first(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, text = make_key()
    ask(text, "192.0.2.1", "a")
    clock.move("1m")
    ask(text, "192.0.2.1", "b")
    ask(text, None, "a")
    clock.move("1m")
    ask(text, "192.0.2.1", "a")
    ask(text, "192.0.2.9", "d")
    users = insight.recent_users(key.id, by=operator)
    assert (users.number, users.requests) == (4, 5)
    assert rows(users)[0] == User("192.0.2.1", "a", 2, clock.now())
    assert len(rows(users)) == insight.USERS_SHOWN
    clock.move_ms(HOUR - MINUTE)
    assert insight.recent_users(key.id, by=operator).number == 4, "an hour to the millisecond"
    clock.move_ms(1)
    assert insight.recent_users(key.id, by=operator).number == 2
    clock.move("1h")
    assert rows(insight.recent_users(key.id, by=operator)) == []


def test_who_was_refused_anyway_loses_nothing(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    ask(text, permissions=("a:b",))
    assert insight.recent_users(key.id, by=operator).number == 0


def test_who_is_refused_while_the_key_is_revoked_is_known_before_it_is_enabled(
    make_key: MakeKey, operator: Actor
) -> None:
    key, text = make_key()
    ask(text, agent="before")
    keys.revoke(key.id, by=operator)
    ask(text, agent="after")
    assert [one.user_agent for one in insight.recently_revoked(key.id, by=operator).rows] == [
        "after"
    ]
    assert [one.user_agent for one in insight.recent_users(key.id, by=operator).rows] == ["before"]


# --- the old secret -----------------------------------------------------------------------------


@pytest.fixture
def rotated(make_key: MakeKey, operator: Actor, clock: Clock) -> tuple[Key, str, str]:
    """A key within its grace of a day, used a moment before; its old secret and its new one."""
    key, old = make_key()
    ask(old, agent="before the rotation")
    clock.move_ms(1)
    key, new, _ = keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    return key, old, new


def old_secret(key: Key, by: Actor) -> insight.OldSecret:
    found = insight.old_secret(key.id, by=by)
    assert found is not None
    return found


def test_who_still_uses_the_old_secret_is_told_by_client_and_endpoint(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, new = rotated
    ask(new, agent="has the new one")
    for path in ("/a", "/a", "/b"):
        clock.move("1m")
        ask(old, agent="forgotten", endpoint=path)
    found = old_secret(key, operator)
    assert [(one.user_agent, one.method, one.endpoint, one.count) for one in found.uses.rows] == [
        ("forgotten", "GET", "/b", 1), ("forgotten", "GET", "/a", 2),
    ]  # fmt: skip
    assert found.last_used_at == found.unused_since == found.uses.rows[0].last_at == clock.now()
    assert found.prefix == old[:12] and found.works_until == keys.grace_of(key)
    assert [one.user_agent for one in insight.recent_users_of_old(key.id, by=operator).rows] == [
        "forgotten"
    ]


def test_an_old_secret_is_quiet_after_an_hour_without_a_call(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, _ = rotated
    found = old_secret(key, operator)
    assert (found.is_quiet, found.last_used_at, rows(found.uses)) == (False, None, [])
    assert found.unused_since == found.superseded_at == key.rotated_at
    clock.move("1h")
    assert old_secret(key, operator).is_quiet
    ask(old)
    assert not old_secret(key, operator).is_quiet
    clock.move_ms(HOUR - 1)
    assert not old_secret(key, operator).is_quiet
    clock.move_ms(1)
    assert old_secret(key, operator).is_quiet


def test_a_call_of_the_old_secret_that_was_refused_is_one(
    rotated: tuple[Key, str, str], operator: Actor
) -> None:
    key, old, _ = rotated
    ask(old, permissions=("a:b",))
    assert len(rows(old_secret(key, operator).uses)) == 1


def test_an_older_grace_is_not_this_one(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, first, second = rotated
    ask(first, agent="before")
    clock.move("1m")
    keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    ask(first, agent="two behind")
    ask(second, agent="one behind")
    found = old_secret(key, operator)
    assert [one.user_agent for one in found.uses.rows] == ["one behind"]
    assert [one.user_agent for one in insight.recent_users_of_old(key.id, by=operator).rows] == [
        "one behind"
    ]
    assert [one.user_agent for one in insight.refused_old(key.id, by=operator).rows] == [
        "two behind"
    ]


def test_no_old_secret_works_where_there_was_no_rotation_or_its_grace_is_over(
    make_key: MakeKey, rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    assert insight.old_secret(make_key()[0].id, by=operator) is None
    clock.move("1d")
    assert insight.old_secret(rotated[0].id, by=operator) is None


def test_who_presents_a_stopped_secret_is_told_for_seven_days(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock
) -> None:
    key, old, _ = rotated
    ask(old, agent="in the grace")
    assert rows(insight.refused_old(key.id, by=operator)) == []
    clock.move("1d")
    assert ask(old, agent="too late") == "API_KEY_SUPERSEDED"
    clock.move("7d")
    assert [one.user_agent for one in insight.refused_old(key.id, by=operator).rows] == ["too late"]
    clock.move_ms(1)
    assert rows(insight.refused_old(key.id, by=operator)) == []


def test_old_uses_are_looked_for_among_the_newest_alone(
    rotated: tuple[Key, str, str], operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, old, new = rotated
    ask(old, agent="first")
    for _ in range(3):
        ask(new)
    ask(old, agent="second")
    ask(old, agent="third")
    monkeypatch.setattr(insight, "NEWEST", 2)
    found = old_secret(key, operator).uses
    assert {one.user_agent for one in found.rows} == {"second", "third"} and found.is_partial


def test_a_secret_that_nobody_presents_costs_no_look_at_the_log(
    rotated: tuple[Key, str, str], operator: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _, new = rotated
    ask(new)

    def refuse(*_: object) -> None:
        raise AssertionError("the entries were read")

    monkeypatch.setattr(insight, "_top", refuse)
    assert rows(old_secret(key, operator).uses) == []
    clock.move("2d")
    assert rows(insight.refused_old(key.id, by=operator)) == []


@pytest.mark.sqlite  # PostgreSQL plans by statistics
def test_old_uses_are_found_by_their_own_index(
    rotated: tuple[Key, str, str], operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, to find the last few would be to read all of a key's log."""
    key, old, _ = rotated
    ask(old)
    asked = []
    execute = db.handle.obj.execute_sql

    def listen(sql: str, parameters: Any = None) -> Any:
        asked.append((sql, parameters))
        return execute(sql, parameters)

    with monkeypatch.context() as patched:
        patched.setattr(db.handle.obj, "execute_sql", listen)
        insight.old_secret(key.id, by=operator)
        insight.recent_users_of_old(key.id, by=operator)
    queries = [one for one in asked if 'FROM "entry"' in one[0]]
    assert len(queries) == 4
    for sql, parameters in queries:
        plan = execute(f"explain query plan {sql}", parameters).fetchall()
        assert any("entry_previous" in row[-1] for row in plan), plan
