"""Entries lie in partitions of a day each on PostgreSQL, of several where they are kept for long:
what is past its time goes by dropping tables, at once, however many rows they have.

Three kinds: `entry_20261130`, from that UTC day on; `entry_before_20261130`, what was there when
the table was divided; and `entry_other`, whatever has no day of its own, such as entries of a clock
that is wrong. On SQLite there are none.
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
# How many days a partition has, by how many days entries are kept: whoever reads all of them holds
# six locks for each, of which PostgreSQL has room for some thousands.
SPANS = ((100, 1), (700, 7))
LONGEST_SPAN = 28
LOCKS_OF_EACH = 6
# A table is only changed where nobody has to wait for long: tried again within the hour.
LOCK_SECONDS = 1
COUNTED_MAX = 1_000_000  # rows: to count more takes too long
NAMED = re.compile(r"entry_(before_)?\d{8}")
BOUNDS = re.compile(r"FROM \(('-?\d+'|MINVALUE)\) TO \('(-?\d+)'\)")
HELD = "partitions"


@dataclass(frozen=True)
class Partition:
    """A table of entries from one instant to before another, None for `entry_other`; `start_at` is
    None, too, for what was there when the table was divided."""

    name: str
    start_at: int | None
    end_at: int | None
    rows: int  # as the database estimates

    @property
    def is_of_days(self) -> bool:
        return self.start_at is not None


def prepare(now: int, kept_days: int) -> None:
    """Makes the partitions of today and the next days, where they are missing.

    Where entries of such a day are in `entry_other` already, they stay there, with those to come.
    """
    if db.is_sqlite():
        return
    taken = sorted(
        (one.start_at or 0, one.end_at) for one in all_of_them() if one.end_at is not None
    )
    span = next((days for kept, days in SPANS if kept_days <= kept), LONGEST_SPAN) * clock.DAY
    start = now // clock.DAY * clock.DAY
    while start <= now + DAYS_AHEAD * clock.DAY:
        end = next((end for begin, end in taken if begin <= start < end), 0)
        if not end:
            end = min([start + span, *(begin for begin, _ in taken if begin > start)])
            _make(start, end)
        start = end


def _make(start: int, end: int) -> None:
    name = f"entry_{datetime.fromtimestamp(start / clock.SECOND, UTC):%Y%m%d}"
    try:
        with db.write(), _no_long_wait():
            db.hold_name(HELD)
            if db.handle.table_exists(name):
                return
            db.handle.execute_sql(f'CREATE TABLE "{name}" (LIKE "entry" INCLUDING DEFAULTS)')
            # Not made as a partition at once: that would keep everybody from the whole table.
            db.handle.execute_sql(
                f'ALTER TABLE "entry" ATTACH PARTITION "{name}" '
                f"FOR VALUES FROM ({start}) TO ({end})"
            )
    except (peewee.IntegrityError, peewee.OperationalError, peewee.ProgrammingError) as error:
        log.info("no partition %s yet: %s", name, error)


def drop_past(before: int) -> int:
    """Drops the partitions of which all entries are older than that instant; how many rows went,
    of many about. Inside a transaction."""
    if db.is_sqlite():
        return 0
    # Counted before the first goes, for from then on everybody waits.
    past = [
        (one.name, _rows(one))
        for one in all_of_them()
        if one.end_at is not None and one.end_at <= before
    ]
    gone = 0
    for name, rows in past:
        try:
            with db.handle.atomic(), _no_long_wait():
                db.handle.execute_sql(f'DROP TABLE "{name}"')
        except peewee.OperationalError as error:
            if "lock timeout" not in str(error):
                raise
            log.info("%s stays for now, for somebody reads it: %s", name, error)
            break
        gone += rows
    return gone


def _rows(partition: Partition) -> int:
    if partition.rows > COUNTED_MAX:
        return partition.rows
    rows = db.handle.execute_sql(f'SELECT count(*) FROM "{partition.name}"').fetchone()
    return int(rows[0])


def delete_without_day(before: int, most: int) -> int:
    """Deletes at most so many entries older than that instant, one by one, of those that lie in no
    partition of days; how many went."""
    gone = 0
    for one in all_of_them():
        if one.is_of_days:
            continue
        # What came before was stored in the order of time; what is elsewhere is little.
        oldest = f'SELECT "at", ctid FROM "{one.name}"'
        if one.end_at is not None:
            oldest += f' ORDER BY "id" LIMIT {most - gone}'
        some = f'SELECT ctid FROM ({oldest}) AS oldest WHERE "at" < %s LIMIT %s'
        statement = f'DELETE FROM "{one.name}" WHERE ctid = ANY(ARRAY({some}))'
        gone += db.handle.execute_sql(statement, (before, most - gone)).rowcount
    return gone


def all_of_them() -> list[Partition]:
    """Every partition, by name."""
    rows = db.handle.execute_sql(
        """SELECT c.relname, pg_get_expr(c.relpartbound, c.oid),
                  greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0)
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = 'entry'::regclass ORDER BY 1"""
    ).fetchall()
    return [Partition(name, *_bounds(name, bounds), count) for name, bounds, count in rows]


def _bounds(name: str, text: str) -> tuple[int | None, int | None]:
    found = BOUNDS.search(text) if NAMED.fullmatch(name) else None
    if found is None:
        return None, None
    start = None if found[1] == "MINVALUE" else int(found[1].strip("'"))
    return start, int(found[2])


@contextmanager
def _no_long_wait() -> Iterator[None]:
    """Inside a transaction: whoever has to wait for a table gives up soon, for all who come later
    wait behind it."""
    db.handle.execute_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    yield
