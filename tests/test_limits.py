"""Rate limits and the quota: exact among threads, anchored to the clock, and never stuck."""

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import pytest
from flask import Flask

from console import check, journal, keys, limits
from console import clock as time_of_day
from console.actor import Actor
from console.check import QUOTA_EXCEEDED, RATE_LIMITED, UNAVAILABLE, VALID, Request, Verdict
from console.errors import Invalid
from console.models import Key, LimitCount
from tests.conftest import Clock, MakeKey, at_once, checked, need_redis
from tests.server import wait_until

T = TypeVar("T")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")

pytestmark = pytest.mark.usefixtures("clock")


def ask(secret: str, cost: int = 1) -> Verdict:
    return checked(Request(secret=secret, request_id="req_1", ip="192.0.2.1", cost=cost))


def spent(key: Key) -> dict[str, int]:
    rows = LimitCount.select().where(LimitCount.key_id == key.id)
    return {row.window: row.spent for row in rows}


def remaining(verdict: Verdict) -> dict[str, int]:
    return {window.name: window.remaining for window in verdict.allowance.windows}


@pytest.mark.parametrize(
    "settings, figures",
    [
        ({}, (None, None)),
        ({"plan": "unlimited"}, (None, None)),
        ({"plan": "free"}, (100, 1_000)),
        ({"plan": "professional"}, (500, 10_000)),
        ({"plan": "enterprise", "rate_limit": {"per_minute": 7}}, (7, None)),
        ({"rate_limit": {"per_minute": 7, "per_hour": 8}}, (7, 8)),
    ],
)
def test_a_plan_sets_the_limits(
    make_key: MakeKey, settings: dict[str, object], figures: tuple[int | None, int | None]
) -> None:
    assert limits.figures(make_key(**settings)[0]) == figures


def test_a_key_without_limits_counts_nothing(make_key: MakeKey) -> None:
    key, secret = make_key()
    verdict = ask(secret)
    assert verdict.allowance.windows == () and verdict.allowance.shown is None
    assert spent(key) == {}


def test_a_call_is_counted_once_in_every_window(make_key: MakeKey) -> None:
    key, secret = make_key(plan="free", monthly_quota=5)
    assert remaining(ask(secret)) == {"minute": 99, "hour": 999, "month": 4}
    assert spent(key) == {"minute": 1, "hour": 1, "month": 1}


def test_the_minute_refuses_until_the_clocks_next_minute(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(rate_limit={"per_minute": 2})
    clock.move_ms(59_999)  # one millisecond before 10:31
    assert [ask(secret).code for _ in range(3)] == [VALID, VALID, RATE_LIMITED]
    clock.move_ms(1)
    assert [ask(secret).code for _ in range(3)] == [VALID, VALID, RATE_LIMITED]


def test_the_hour_refuses_after_the_minute_has_passed(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(rate_limit={"per_minute": 2, "per_hour": 3})
    assert [ask(secret).code for _ in range(3)] == [VALID, VALID, RATE_LIMITED]
    clock.move("1m")
    assert ask(secret).code == VALID
    refused = ask(secret)
    assert refused.code == RATE_LIMITED and refused.allowance.refused is not None
    assert refused.allowance.refused.name == "hour"
    clock.move("29m")  # 11:00
    assert ask(secret).code == VALID


def test_a_refused_call_spends_nothing_of_any_window(make_key: MakeKey) -> None:
    key, secret = make_key(rate_limit={"per_minute": 1, "per_hour": 10}, monthly_quota=10)
    ask(secret)
    assert ask(secret).code == RATE_LIMITED
    assert spent(key) == {"minute": 1, "hour": 1, "month": 1}


@pytest.mark.parametrize(
    "rate_limit, milliseconds, seconds",
    [
        ({"per_minute": 1}, 0, 60),
        ({"per_minute": 1}, 1, 60),
        ({"per_minute": 1}, 59_000, 1),
        ({"per_minute": 1}, 59_999, 1),
        ({"per_hour": 1}, 0, 1800),
        ({"per_minute": 1, "per_hour": 1}, 0, 1800),
    ],
)
def test_retry_after_is_when_another_try_may_pass(
    make_key: MakeKey, clock: Clock, rate_limit: dict[str, int], milliseconds: int, seconds: int
) -> None:
    _, secret = make_key(rate_limit=rate_limit)
    clock.move_ms(milliseconds)
    assert ask(secret).retry_after_seconds is None
    assert ask(secret).retry_after_seconds == seconds
    clock.move_ms(seconds * 1000)
    assert ask(secret).code == VALID


def test_headers_speak_of_the_hour_or_of_the_window_that_refused(make_key: MakeKey) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1, "per_hour": 9}, monthly_quota=50)
    shown = [ask(secret).allowance.shown for _ in range(2)]
    assert [window and window.name for window in shown] == ["hour", "minute"]


def test_the_quota_holds_for_the_calendar_month(make_key: MakeKey, clock: Clock) -> None:
    _, secret = make_key(monthly_quota=1)
    assert [ask(secret).code for _ in range(2)] == [VALID, QUOTA_EXCEEDED]
    refused = ask(secret)
    end = time_of_day.parse("2026-12-01T00:00:00Z")
    assert refused.retry_after_seconds == (end - clock.now()) // 1000
    clock.instant = end - 1
    assert ask(secret).code == QUOTA_EXCEEDED
    clock.instant = end
    assert ask(secret).code == VALID


def test_test_keys_are_outside_the_quota(make_key: MakeKey) -> None:
    key, secret = make_key(environment="test", monthly_quota=1)
    assert [ask(secret).code for _ in range(3)] == [VALID] * 3
    assert spent(key) == {}


def test_the_rate_limit_is_told_before_the_quota(make_key: MakeKey) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1}, monthly_quota=1)
    ask(secret)
    assert ask(secret).code == RATE_LIMITED


def test_a_cost_is_taken_whole_or_not_at_all(make_key: MakeKey) -> None:
    key, secret = make_key(rate_limit={"per_minute": 10})
    assert ask(secret, cost=8).code == VALID
    assert ask(secret, cost=3).code == RATE_LIMITED
    assert spent(key) == {"minute": 8}
    assert ask(secret, cost=2).code == VALID


def test_what_costs_nothing_always_passes(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(rate_limit={"per_minute": 5})
    ask(secret, cost=5)
    assert ask(secret, cost=0).code == VALID
    keys.edit(key.id, {"rate_limit": {"per_minute": 2}}, by=operator)
    verdict = ask(secret, cost=0)
    assert (verdict.code, remaining(verdict)) == (VALID, {"minute": 0})
    assert ask(secret).code == RATE_LIMITED
    assert spent(key) == {"minute": 5}


def test_a_lowered_limit_does_not_hide_why_a_key_is_refused(
    make_key: MakeKey, operator: Actor
) -> None:
    key, secret = make_key(rate_limit={"per_minute": 5})
    ask(secret, cost=5)
    keys.edit(key.id, {"rate_limit": {"per_minute": 2}, "status": "revoked"}, by=operator)
    assert ask(secret).code == check.REVOKED_KEY


def test_raising_a_limit_holds_at_once(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(rate_limit={"per_minute": 1})
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]
    keys.edit(key.id, {"rate_limit": {"per_minute": 2}}, by=operator)
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]


def test_rotating_does_not_refill_a_limit(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(rate_limit={"per_minute": 1})
    ask(secret)
    _, newer, _ = keys.rotate(key.id, {}, by=operator)
    assert ask(newer).code == RATE_LIMITED


@pytest.mark.parametrize(
    "settings, refusal",
    [
        ({"rate_limit": {"per_minute": 10}}, RATE_LIMITED),
        ({"rate_limit": {"per_minute": 50, "per_hour": 10}}, RATE_LIMITED),
        ({"monthly_quota": 10}, QUOTA_EXCEEDED),
    ],
)
def test_64_parallel_calls_never_exceed(
    make_key: MakeKey, settings: dict[str, object], refusal: str
) -> None:
    key, secret = make_key(**settings)
    codes = Counter(answer.code for answer in at_once(64, lambda _: ask(secret)))
    assert codes == {VALID: 10, refusal: 54}
    assert set(spent(key).values()) == {10}


def test_a_late_call_counts_in_its_own_window(make_key: MakeKey, clock: Clock) -> None:
    """It must not start the count of the present window anew, nor that of its own."""
    key, secret = make_key(rate_limit={"per_minute": 1})
    bound = limits.limits_of(key)
    before = clock.now()
    assert ask(secret).code == VALID
    clock.move("1m")
    assert ask(secret).code == VALID
    assert limits.spend(key.id, bound, 1, before).refused is not None
    assert ask(secret).code == RATE_LIMITED


@pytest.mark.parametrize(
    "milliseconds", [1, time_of_day.MINUTE, time_of_day.HOUR, time_of_day.DAY, 90 * time_of_day.DAY]
)
def test_a_clock_set_back_blocks_no_longer_than_a_window(
    make_key: MakeKey, clock: Clock, milliseconds: int
) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1, "per_hour": 5}, monthly_quota=50)
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]
    clock.move_ms(-milliseconds)
    codes = []
    for _ in range(7):
        clock.move_ms(10_000)
        codes.append(ask(secret).code)
    assert VALID in codes


@pytest.fixture
def shared() -> Iterator[limits.RedisStore]:
    """Counts in a real Redis, in a database of their own that is empty before and afterwards."""
    need_redis(REDIS_URL)
    store = limits.RedisStore(REDIS_URL, settle_seconds=0)
    store._redis.flushdb()
    yield store
    store._redis.flushdb()
    store._redis.close()
    limits.use_store(limits.LocalStore())


BOUND = ((limits.MINUTE, 2), (limits.HOUR, 9), (limits.MONTH, 20))


def test_both_stores_give_the_same_answers(app: Flask, shared: limits.RedisStore) -> None:
    """The same thousand calls, costs and instants, the clock set back now and then."""
    chance = random.Random(7)
    now = time_of_day.parse("2026-11-30T22:00:00Z")
    calls = []
    for number in range(1_000):
        now += -30_000 if number % 9 == 0 else chance.choice((0, 0, 1, 900, 61_000, 1_200_000))
        bound = BOUND[chance.randrange(3) :]
        calls.append((f"key_{chance.randrange(3)}", bound, chance.choice((0, 1, 1, 1, 3, 50)), now))
    answers = []
    for store in (limits.LocalStore(), shared):
        limits.use_store(store)
        answers.append([
            (limits.spend(*call), limits.look(*call)) for call in calls
        ])  # fmt: skip
    assert answers[0] == answers[1]
    refused = Counter(spent.refused and spent.refused.name for spent, _ in answers[0])
    assert set(refused) == {None, limits.MINUTE, limits.HOUR, limits.MONTH}


def test_in_redis_a_check_that_could_not_be_answered_spends_nothing(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    limits.use_store(shared)
    bound = ((limits.MINUTE, 1),)
    now = time_of_day.now()
    limits.spend("key_1", bound, 1, now)
    limits.give_back("key_1", bound, 1, now)
    assert limits.spend("key_1", bound, 1, now).refused is None
    assert limits.spend("key_1", bound, 1, now).refused is not None


def test_counts_in_redis_end_with_their_windows(app: Flask, shared: limits.RedisStore) -> None:
    limits.use_store(shared)
    limits.spend("key_1", BOUND, 1, time_of_day.parse("2026-11-20T10:30:15Z"))
    left = sorted(shared._redis.pttl(key) // 1000 for key in shared._redis.scan_iter("*:key_1:*"))
    minute, hour = 45 + 60, 30 * 60 - 15 + 60
    assert minute - 5 <= left[0] <= minute and hour - 5 <= left[1] <= hour
    assert 10 * 86_400 < left[2] < 11 * 86_400


def test_64_parallel_calls_never_exceed_in_redis(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    limits.use_store(shared)
    key, secret = make_key(rate_limit={"per_minute": 10})
    codes = Counter(answer.code for answer in at_once(64, lambda _: ask(secret)))
    assert codes == {VALID: 10, RATE_LIMITED: 54}
    assert spent(key) == {"minute": 10}


def test_redis_counts_on_from_the_database_when_it_has_lost_its_counts(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    """And whoever counted without Redis before counts on with it."""
    key, secret = make_key(rate_limit={"per_minute": 4})
    limits.use_store(limits.LocalStore())
    assert ask(secret).code == VALID
    limits.use_store(shared)
    assert [ask(secret).code for _ in range(2)] == [VALID, VALID]
    shared._redis.flushdb()
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]
    assert spent(key) == {"minute": 4}


def test_redis_that_came_back_with_old_counts_is_not_believed(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    """As one does that was killed, and had last written its counts to the disk a second before."""
    limits.use_store(shared)
    _, secret = make_key(rate_limit={"per_minute": 4})
    assert [ask(secret).code for _ in range(3)] == [VALID] * 3
    [count] = shared._redis.scan_iter("*:minute:*")
    shared._redis.set(count, 1)
    shared._redis.rename(count, count.replace(shared._mark.encode(), b"anotherrun:1"))
    shared._redis.set(shared.MARK, "anotherrun:1")
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]


def test_redis_that_gave_way_to_another_for_a_while_is_not_believed(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    """It still has its mark and the counts of before, and what the other let in is not in them."""
    limits.use_store(shared)
    _, secret = make_key(rate_limit={"per_minute": 4})
    assert [ask(secret).code for _ in range(2)] == [VALID] * 2
    mark, counts = shared._mark, {
        key: shared._redis.get(key) for key in shared._redis.scan_iter("*:minute:*")
    }  # fmt: skip
    shared._redis.flushdb()
    shared._run, shared._mark = "another", "another:1"  # as if we had talked to that one
    assert ask(secret).code == VALID
    for key, count in counts.items():
        shared._redis.set(key, count)
    shared._redis.set(shared.MARK, mark)
    time.sleep(0.002)
    shared._run, shared._mark = "another", "another:1"
    shared._redis.connection_pool.disconnect()
    assert [ask(secret).code for _ in range(2)] == [VALID, RATE_LIMITED]


def test_redis_that_does_not_say_who_it_is_counts_all_the_same(
    make_key: MakeKey, shared: limits.RedisStore
) -> None:
    rights = ["+@all", "-info", "~latchkey:*", "on", ">word"]
    shared._redis.execute_command("ACL", "SETUSER", "latchkey-tests", *rights)
    try:
        url = REDIS_URL.replace("redis://", "redis://latchkey-tests:word@")
        store = limits.RedisStore(url, settle_seconds=0)
        limits.use_store(store)
        _, secret = make_key(rate_limit={"per_minute": 2})
        assert [ask(secret).code for _ in range(3)] == [VALID, VALID, RATE_LIMITED]
        store._redis.close()
    finally:
        shared._redis.execute_command("ACL", "DELUSER", "latchkey-tests")


def test_while_counts_are_read_again_limited_keys_wait(make_key: MakeKey, app: Flask) -> None:
    need_redis(REDIS_URL)
    store = limits.RedisStore(REDIS_URL, settle_seconds=0.3)
    store._redis.flushdb()
    limits.use_store(store)
    try:
        limited = make_key(plan="free")[1]
        assert ask(limited).code == UNAVAILABLE
        assert ask(make_key()[1]).code == VALID
        wait_until(lambda: ask(limited).code != UNAVAILABLE)
        assert ask(limited).code == VALID
    finally:
        store._redis.flushdb()
        store._redis.close()
        limits.use_store(limits.LocalStore())


def test_without_redis_a_limited_key_is_unavailable_and_others_pass(make_key: MakeKey) -> None:
    limits.use_store(limits.RedisStore("redis://127.0.0.1:1"))
    try:
        assert ask(make_key(plan="free")[1]).code == UNAVAILABLE
        assert ask(make_key()[1]).code == VALID
    finally:
        limits.use_store(limits.LocalStore())


def test_while_redis_hangs_one_call_a_second_waits_for_it(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REDIS_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = limits.RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        tried: list[object] = []
        script = store._script
        monkeypatch.setattr(store, "_script", lambda *args: (tried.append(args), script(*args))[1])
        for _ in range(20):
            with pytest.raises(limits.CountsUnavailable):
                store.take("key_1", BOUND, 0, 1)
        assert len(tried) == 1
        store._try_again_at = 0.001  # the time has come
        with pytest.raises(limits.CountsUnavailable):
            store.take("key_1", BOUND, 0, 1)
        assert len(tried) == 2
        store._redis.close()


def test_memory_is_bounded_and_what_is_dropped_is_read_again(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = limits.LocalStore()
    limits.use_store(store)
    monkeypatch.setattr(limits, "REMEMBERED_MAX", 2)
    made = [make_key(rate_limit={"per_minute": 2}) for _ in range(10)]
    for expected in (VALID, VALID, RATE_LIMITED):
        for _, secret in made:
            assert ask(secret).code == expected
            limits.forget_idle()
            assert len(store._counts) + len(store._idle) <= 6


def test_counters_outlive_the_process(make_key: MakeKey) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1})
    ask(secret)
    limits.use_store(limits.LocalStore())  # as a new process has it
    assert ask(secret).code == RATE_LIMITED


def test_what_waited_for_minutes_is_stored_together(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(plan="free", monthly_quota=1_000)
    for duration in ("1m", "1m", "1m", "1h"):
        check.check(Request(secret=secret, request_id="req_1"))
        check.check(Request(secret=secret, request_id="req_1"))
        clock.move(duration)
    check.check(Request(secret=secret, request_id="req_1"))
    journal.settle()
    assert spent(key) == {"minute": 1, "hour": 1, "month": 9}


@pytest.mark.parametrize(
    "settings, field",
    [
        ({"plan": "gold"}, "plan"),
        ({"plan": "enterprise"}, "rate_limit"),
        ({"plan": "enterprise", "rate_limit": {}}, "rate_limit"),
        ({"plan": "free", "rate_limit": {"per_minute": 1}}, "rate_limit"),
        ({"plan": "unlimited", "rate_limit": {"per_minute": 1}}, "rate_limit"),
        ({"rate_limit": {"per_minute": 0}}, "rate_limit.per_minute"),
        ({"rate_limit": {"per_hour": -1}}, "rate_limit.per_hour"),
        ({"rate_limit": {"per_hour": 1_000_000_001}}, "rate_limit.per_hour"),
        ({"rate_limit": {"per_hour": 1.5}}, "rate_limit.per_hour"),
        ({"rate_limit": {"per_hour": True}}, "rate_limit.per_hour"),
        ({"rate_limit": {"per_day": 1}}, "rate_limit.per_day"),
        ({"rate_limit": "free"}, "rate_limit"),
        ({"monthly_quota": 0}, "monthly_quota"),
        ({"monthly_quota": "9"}, "monthly_quota"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(
    make_key: MakeKey, settings: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        make_key(**settings)
    assert list(refused.value.fields) == [field]
