"""Entries in a partition for each day, on PostgreSQL: made ahead, filled, dropped at once."""

import threading

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import audit, clock, db, jobs, partitions, retention
from console.check import Request
from console.models import Entry
from tests.conftest import Clock, MakeKey, at_once, bearer, checked

pytestmark = pytest.mark.postgresql

DAY = clock.DAY
LATER = clock.parse("2031-05-05T10:00:00Z")  # behind all that the schema was divided at


@pytest.fixture(autouse=True)
def as_before(app: Flask, clock: Clock) -> object:
    """Days of this file's own, which go with it."""
    clock.instant = LATER
    yield
    for one in partitions.all_of_them():
        if one.name.startswith("entry_2031"):
            db.handle.execute_sql(f'drop table "{one.name}"')


def names() -> list[str]:
    return [one.name for one in partitions.all_of_them() if one.name.startswith("entry_2031")]


def where_entries_lie() -> list[str]:
    rows = db.handle.execute_sql(
        "select tableoid::regclass::text from entry order by id"
    ).fetchall()
    return [name for (name,) in rows]


def check_now(secret: str) -> None:
    assert checked(Request(secret, "req_1")).is_valid


def test_partitions_are_made_for_today_and_three_days() -> None:
    partitions.prepare(LATER, 90)
    partitions.prepare(LATER, 90)
    days = ["entry_20310505", "entry_20310506", "entry_20310507", "entry_20310508"]
    assert names() == days


def test_an_entry_lies_in_its_day_and_is_found_like_any_other(
    make_key: MakeKey, clock: Clock, client: FlaskClient
) -> None:
    _, secret = make_key()
    _, auditor = make_key(name="auditor", permissions=["audit:read"])
    partitions.prepare(LATER, 90)
    for _ in range(5):
        check_now(secret)
        clock.move("1d")
    assert where_entries_lie() == [*names(), "entry_other"]
    answer = client.get("/api/v1/audit-log?limit=3", headers=bearer(auditor))
    assert len(answer.get_json()["data"]) == 3


def test_what_is_past_its_time_goes_as_a_whole_day(make_key: MakeKey, clock: Clock) -> None:
    _, secret = make_key()
    partitions.prepare(LATER, 90)
    for _ in range(3):
        check_now(secret)
        clock.move("1d")
    clock.instant = LATER
    clock.move("90d")  # the middle of the day: its first entries are past their time, its last not
    retention.prune_all()
    assert where_entries_lie() == ["entry_20310505", "entry_20310506", "entry_20310507"]
    clock.move("1d")
    retention.prune_all()
    assert where_entries_lie() == ["entry_20310506", "entry_20310507"]
    assert names()[0] == "entry_20310506"


def test_the_job_makes_the_days_to_come(clock: Clock) -> None:
    jobs.run_now(retention.TASK)
    assert names()[0] == "entry_20310505" and len(names()) == 4


def test_entries_of_a_day_without_partition_are_deleted_one_by_one(
    make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key()
    for _ in range(3):
        check_now(secret)
        clock.move("1h")
    assert set(where_entries_lie()) == {"entry_other"}
    partitions.prepare(
        LATER, 90
    )  # its day's entries are elsewhere: today has none, the next days have
    assert names() == ["entry_20310506", "entry_20310507", "entry_20310508"]
    clock.instant = LATER
    clock.move("90d")
    clock.move("1h")
    assert audit.prune_entries(90, 1) == 1
    assert Entry.select().count() == 2


def test_who_reads_for_long_is_not_waited_for(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does anybody wait behind who waits; and all else that is past its time goes."""
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 0.1)
    partitions.prepare(LATER, 90)
    audit.count_attempt("API_KEY_INVALID", None, LATER)
    audit.store_attempts()
    clock.move("100d")
    reads, done = threading.Event(), threading.Event()

    def read() -> None:
        with db.handle.atomic():
            Entry.select().count()
            reads.set()
            done.wait(30)
        db.close()

    reader = threading.Thread(target=read)
    reader.start()
    assert reads.wait(30)
    try:
        assert retention.prune_all()["attempts"] == 1
        assert len(names()) == 4
    finally:
        done.set()
        reader.join()
    retention.prune_all()
    assert names() == []


@pytest.mark.parametrize(
    "kept_days, days", [(1, 1), (100, 1), (101, 7), (700, 7), (701, 28), (36_500, 28)]
)
def test_who_keeps_entries_for_long_has_fewer_and_longer_partitions(
    kept_days: int, days: int
) -> None:
    """Each costs locks to whoever reads all of them."""
    partitions.prepare(LATER, kept_days)
    made = [one for one in partitions.all_of_them() if one.name in names()]
    assert {one.end_at - one.start_at for one in made} == {days * DAY}  # type: ignore[operator]
    assert made[-1].end_at > LATER + 3 * DAY  # type: ignore[operator]


def test_another_length_fills_what_lies_between(clock: Clock) -> None:
    partitions.prepare(LATER + 5 * DAY, 90)
    partitions.prepare(LATER, 365)
    made = [one for one in partitions.all_of_them() if one.name in names()]
    ends = [(one.start_at, one.end_at) for one in made]
    assert [end for _, end in ends[:-1]] == [start for start, _ in ends[1:]]
    assert ends[0][1] - ends[0][0] == 5 * DAY  # type: ignore[operator]


def test_several_processes_prepare_at_once(app: Flask) -> None:
    at_once(6, lambda _: partitions.prepare(LATER, 90))
    assert len(names()) == 4
