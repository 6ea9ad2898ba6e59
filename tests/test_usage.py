"""How much keys and projects are used: buckets of 24 hours, 30 days and 12 months, and totals."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from console import check, keys, retention, usage
from console import clock as time_of_day
from console.actor import Actor
from console.errors import Invalid, Unknown
from console.models import Entry, Key, Project, Usage
from console.usage import PERIODS
from tests.conftest import Clock, MakeKey, bearer, checked


def ask(text: str, **asked: Any) -> None:
    checked(check.Request(**{"secret": text, "request_id": "r", "ip": "192.0.2.1", **asked}))


def counts(buckets: list[usage.Bucket]) -> dict[str, tuple[int, int]]:
    """The buckets that are not empty."""
    return {
        str(time_of_day.iso(one.start_at)): (one.allowed, one.denied)
        for one in buckets
        if one.allowed or one.denied
    }


def of_key(key: Key, period: str, by: Actor) -> dict[str, tuple[int, int]]:
    return counts(usage.of_key(key.id, period, by=by))


@pytest.mark.parametrize("period, number, first, last", [
    ("24h", 24, "2026-11-19T11:00:00Z", "2026-11-20T10:00:00Z"),
    ("30d", 30, "2026-10-22T00:00:00Z", "2026-11-20T00:00:00Z"),
    ("12mo", 12, "2025-12-01T00:00:00Z", "2026-11-01T00:00:00Z"),
])  # fmt: skip
def test_a_period_ends_with_the_present_and_has_empty_buckets_too(
    make_key: MakeKey, operator: Actor, clock: Clock, period: str, number: int, first: str,
    last: str,
) -> None:  # fmt: skip
    buckets = usage.of_key(make_key()[0].id, period, by=operator)
    starts = [time_of_day.iso(one.start_at) for one in buckets]
    assert (len(starts), starts[0], starts[-1]) == (number, first, last)
    assert starts == sorted(starts) and len(set(starts)) == number
    assert counts(buckets) == {}


def test_allowed_and_denied_are_counted_in_their_hour_day_and_month(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, text = make_key()
    clock.instant = time_of_day.parse("2026-11-30T22:59:59.999Z")
    ask(text)
    ask(text, permissions=("a:b",))
    clock.move_ms(1)  # 23:00
    ask(text)
    clock.move("1h")  # December
    ask(text)
    assert of_key(key, "24h", operator) == {
        "2026-11-30T22:00:00Z": (1, 1), "2026-11-30T23:00:00Z": (1, 0),
        "2026-12-01T00:00:00Z": (1, 0),
    }  # fmt: skip
    assert of_key(key, "30d", operator) == {
        "2026-11-30T00:00:00Z": (2, 1), "2026-12-01T00:00:00Z": (1, 0),
    }  # fmt: skip
    assert of_key(key, "12mo", operator) == {
        "2026-11-01T00:00:00Z": (2, 1), "2026-12-01T00:00:00Z": (1, 0),
    }  # fmt: skip


def test_a_project_has_the_sum_of_its_keys_deleted_ones_included(
    make_key: MakeKey, operator: Actor, other_project: Project, clock: Clock
) -> None:
    gone, gone_text = make_key()
    _, text = make_key()
    _, elsewhere = make_key(project="other")
    for one in (gone_text, text, text, elsewhere):
        ask(one)
    keys.delete(gone.id, by=operator)
    for period in PERIODS:
        found = counts(usage.of_project("shop", period, by=operator))
        assert list(found.values()) == [(3, 0)], period


def test_a_members_project_is_their_own_keys(
    make_key: MakeKey, member: Actor, admin: Actor, clock: Clock
) -> None:
    ask(make_key(by=member)[1])
    ask(make_key(by=member)[1])
    ask(make_key()[1])
    seen = [
        list(counts(usage.of_project("shop", "24h", by=one)).values()) for one in (member, admin)
    ]
    assert seen == [[(2, 0)], [(3, 0)]]


def test_usage_is_for_those_who_may_see_it(
    make_key: MakeKey, stranger: Actor, member: Actor, viewer: Actor
) -> None:
    key, _ = make_key()
    for one in (stranger, member):
        with pytest.raises(Unknown):
            usage.of_key(key.id, "24h", by=one)
    assert len(usage.of_key(key.id, "24h", by=viewer)) == 24
    with pytest.raises(Unknown):
        usage.of_project("shop", "24h", by=stranger)


def test_an_unknown_period_is_refused_by_name(make_key: MakeKey, operator: Actor) -> None:
    with pytest.raises(Invalid) as refused:
        usage.of_key(make_key()[0].id, "1h", by=operator)
    assert list(refused.value.fields) == ["period"]


def test_counts_outlive_the_entries_and_finer_ones_are_dropped_in_time(
    make_key: MakeKey, operator: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    key, text = make_key()
    for _ in range(5):
        ask(text)
        clock.move("1d")
    clock.move("91d")
    retention.prune_all()
    assert Entry.select().count() == 0
    units = {unit: Usage.select().where(Usage.unit == unit).count() for unit in
             ("hour", "day", "month")}  # fmt: skip
    assert units == {"hour": 0, "day": 10, "month": 2}
    clock.move("400d")
    retention.prune_all()
    assert {row.unit for row in Usage.select()} == {"month"}
    assert usage.totals_of(Key.get(Key.id == key.id))["requests_total"] == 5


def test_the_api_answers_buckets_for_keys_with_the_permission(
    client: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, text = make_key(permissions=["analytics:read"])
    _, other = make_key()
    ask(other)
    answer = client.get(f"/api/v1/api-keys/{key.id}/usage?period=30d", headers=bearer(text))
    assert answer.status_code == 200 and len(answer.json["data"]) == 30
    assert answer.json["data"][-1] == {"start": "2026-11-20T00:00:00Z", "allowed": 1, "denied": 0}
    whole = client.get("/api/v1/usage", headers=bearer(text)).json
    assert (whole["period"], whole["data"][-1]["allowed"]) == ("24h", 3)
    refused = client.get("/api/v1/usage", headers=bearer(other))
    assert (refused.status_code, refused.json["code"]) == (403, "PERMISSION_DENIED")
    bad = client.get("/api/v1/usage?period=1y", headers=bearer(text))
    assert (bad.status_code, bad.json["errors"][0]["field"]) == (400, "period")
