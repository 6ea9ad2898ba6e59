"""Entries lie in a partition for each day on PostgreSQL: what is past its time goes by dropping
tables, at once, however many rows there are. On SQLite there are none.

Three kinds: `entry_20261130` of one UTC day; `entry_before_20261130`, what was there when the table
was divided; and `entry_other`, whatever has no day of its own, such as entries of a clock that is
wrong.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import peewee

from console import clock, db

log = logging.getLogger(__name__)

DAYS_AHEAD = 3
# A table is only changed where nobody has to wait for long: tried again within the hour.
LOCK_SECONDS = 1
COUNTED_MAX = 1_000_000  # rows: to count more takes too long
NAMED = re.compile(r"entry_(before_)?(\d{8})")
OTHER = "entry_other"
HELD = "partitions"


@dataclass(frozen=True)
class Partition:
    """A table of entries; `end_at` is the instant before which all of them lie, None for others."""

    name: str
    end_at: int | None
    is_of_a_day: bool
    rows: int  # as the database estimates


def prepare(now: int) -> None:
    """Makes the partitions of today and the next days, where they are missing.

    Where entries of such a day are in `entry_other` already, they stay there, with those to come.
    """
    if db.is_sqlite():
        return
    there = all_of_them()
    names = {partition.name for partition in there}
    divided_at = max((p.end_at or 0 for p in there if not p.is_of_a_day), default=0)
    first = max(now, divided_at) // clock.DAY
    for day in range(first, now // clock.DAY + DAYS_AHEAD + 1):
        if _name(day) not in names:
            _make(day)


def _make(day: int) -> None:
    name, start = _name(day), day * clock.DAY
    try:
        with db.write(), _no_long_wait():
            db.hold_name(HELD)
            if db.handle.table_exists(name):
                return
            db.handle.execute_sql(f'CREATE TABLE "{name}" (LIKE "entry" INCLUDING DEFAULTS)')
            # Not made as a partition at once: that would keep everybody from the whole table.
            db.handle.execute_sql(
                f'ALTER TABLE "entry" ATTACH PARTITION "{name}" '
                f"FOR VALUES FROM ({start}) TO ({start + clock.DAY})"
            )
    except (peewee.IntegrityError, peewee.OperationalError) as error:
        log.info("no partition %s yet: %s", name, error)


def drop_past(before: int) -> int:
    """Drops the partitions of which all entries are older than that instant; how many rows went,
    of many about."""
    if db.is_sqlite():
        return 0
    gone = 0
    for partition in all_of_them():
        if partition.end_at is not None and partition.end_at <= before:
            rows = _rows(partition)
            with _no_long_wait():
                db.handle.execute_sql(f'DROP TABLE "{partition.name}"')
            gone += rows
    return gone


def _rows(partition: Partition) -> int:
    if partition.rows > COUNTED_MAX:
        return partition.rows
    rows = db.handle.execute_sql(f'SELECT count(*) FROM "{partition.name}"').fetchone()
    return int(rows[0])


def without_day() -> list[str]:
    """The tables of which entries are deleted one by one, when they are past their time."""
    return [partition.name for partition in all_of_them() if not partition.is_of_a_day]


def all_of_them() -> list[Partition]:
    """Every partition, by name."""
    rows = db.handle.execute_sql(
        """SELECT c.relname, greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0)
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = 'entry'::regclass ORDER BY 1"""
    ).fetchall()
    return [_partition(name, count) for name, count in rows]


def _partition(name: str, rows: int) -> Partition:
    named = NAMED.fullmatch(name)
    if named is None:
        return Partition(name, None, False, rows)
    day = int(datetime.strptime(named[2], "%Y%m%d").replace(tzinfo=UTC).timestamp()) * clock.SECOND
    return Partition(name, day if named[1] else day + clock.DAY, not named[1], rows)


def _name(day: int) -> str:
    return f"entry_{datetime.fromtimestamp(day * clock.DAY / clock.SECOND, UTC):%Y%m%d}"


@contextmanager
def _no_long_wait() -> Iterator[None]:
    """Inside a transaction: whoever has to wait for a table gives up soon, for all who come later
    wait behind it."""
    db.handle.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    yield
    db.handle.execute_sql("SET LOCAL lock_timeout = DEFAULT")
