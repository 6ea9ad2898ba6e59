"""Entries in a partition for each day, on PostgreSQL: made ahead, filled, dropped at once."""

import threading

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import audit, clock, db, partitions, retention
from console.check import Request
from console.models import Entry
from tests.conftest import Clock, MakeKey, bearer, checked

pytestmark = pytest.mark.postgresql

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
    partitions.prepare(LATER)
    partitions.prepare(LATER)
    days = ["entry_20310505", "entry_20310506", "entry_20310507", "entry_20310508"]
    assert names() == days


def test_an_entry_lies_in_its_day_and_is_found_like_any_other(
    make_key: MakeKey, clock: Clock, client: FlaskClient
) -> None:
    _, secret = make_key()
    _, auditor = make_key(name="auditor", permissions=["audit:read"])
    partitions.prepare(LATER)
    for _ in range(5):
        check_now(secret)
        clock.move("1d")
    assert where_entries_lie() == [*names(), "entry_other"]
    answer = client.get("/api/v1/audit-log?limit=3", headers=bearer(auditor))
    assert len(answer.get_json()["data"]) == 3


def test_what_is_past_its_time_goes_as_a_whole_day(make_key: MakeKey, clock: Clock) -> None:
    _, secret = make_key()
    partitions.prepare(LATER)
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
    from console import jobs

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
    partitions.prepare(LATER)  # its day's entries are elsewhere: today has none, the next days have
    assert names() == ["entry_20310506", "entry_20310507", "entry_20310508"]
    clock.instant = LATER
    clock.move("90d")
    clock.move("1h")
    assert audit.prune_entries(90, 1) == 1
    assert Entry.select().count() == 2


def test_who_reads_for_long_is_not_waited_for(make_key: MakeKey, clock: Clock) -> None:
    """Nor does anybody wait behind who waits."""
    partitions.prepare(LATER)
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
        with pytest.raises(peewee.OperationalError, match="lock timeout"):
            retention.prune_all()
    finally:
        done.set()
        reader.join()
    retention.prune_all()
    assert names() == []


def test_several_processes_prepare_at_once(app: Flask) -> None:
    from tests.conftest import at_once

    at_once(6, lambda _: partitions.prepare(LATER))
    assert len(names()) == 4
