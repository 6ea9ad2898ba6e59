"""Requests counted by hour, day and month, for each key and for each project as a whole.

Counted when entries are stored (batch.py), never by reading entries: to ask costs the same however
many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import peewee
from peewee import JOIN
from pydantic import Field
from typing_extensions import TypedDict

from console import clock, journal, limits, projects
from console.actor import Actor
from console.fields import Fields, Instant, OneOf
from console.key_fields import KeyUsage
from console.keys import key_to_analyse
from console.limits import Allowance, CountsUnavailable
from console.models import Key, Project, Usage
from console.permissions import ANALYTICS_READ

HOUR, DAY, MONTH = "hour", "day", "month"
# period -> the unit of its buckets, and how many there are, the present one included
PERIODS = {"24h": (HOUR, 24), "30d": (DAY, 30), "12mo": (MONTH, 12)}
PERIOD_DEFAULT = "24h"
# How long finer counts are kept; those of months stay.
KEPT = {HOUR: 7 * clock.DAY, DAY: 400 * clock.DAY}


class UsageQuery(Fields):
    """Over which time a key's counts are asked for."""

    period: Annotated[str, OneOf(*PERIODS)] = PERIOD_DEFAULT


class ProjectUsageQuery(UsageQuery):
    """Over which time a project's counts are asked for."""

    project: str | None = Field(None, description="The project's slug")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One UTC hour, day or month."""

    start_at: int
    allowed: int
    denied: int


def of_key(key_id: str, period: str, *, by: Actor) -> list[Bucket]:
    """The key's buckets, oldest first, empty ones too. Raises Invalid, Unknown, Forbidden."""
    key = key_to_analyse(key_id, by=by)
    return _buckets(Usage.select().where(Usage.subject_id == key.id), period)


def of_project(slug: str | None, period: str, *, by: Actor, before: bool = False) -> list[Bucket]:
    """The project's buckets; for a member those of their own keys. With `before` as many that come
    before those. Raises Invalid, Unknown, Forbidden."""
    project = projects.to_act_in(slug, by=by)
    by.require(ANALYTICS_READ, project.id)
    return _buckets(counts_in(project, by), period, before)


def counts_in(project: Project, by: Actor) -> Any:
    """The counts of a project, as far as the actor sees them, as a query to narrow down."""
    if not by.sees_only_own(project.id):
        return Usage.select().where(Usage.subject_id == project.id)
    # CROSS: SQLite would rather read everybody's counts of the time than look for those of each.
    own = Key.select().join(Usage, JOIN.CROSS).where(Usage.subject_id == Key.id)
    return own.where(Key.project == project, Key.owner == by.id)


def _buckets(counts: Any, period: str, before: bool = False) -> list[Bucket]:
    UsageQuery.read({"period": period})
    journal.settle_to_show()
    unit, number = PERIODS[period]
    starts = _starts(unit, 2 * number if before else number)[:number]
    sums = peewee.fn.sum(Usage.allowed), peewee.fn.sum(Usage.denied)
    rows: Any = (
        counts.select(Usage.start_at, *sums)
        .where(Usage.unit == unit, Usage.start_at.between(starts[0], starts[-1]))
        .group_by(Usage.start_at)
        .tuples()
    )
    found = {start: (int(allowed), int(denied)) for start, allowed, denied in rows}
    return [Bucket(start, *found.get(start, (0, 0))) for start in starts]


def _starts(unit: str, number: int) -> Sequence[int]:
    """The starts of the last so many units, the present one included, oldest first."""
    starts = [clock.start_of(unit, clock.now())]
    while len(starts) < number:
        starts.append(clock.start_of(unit, starts[-1] - 1))
    return starts[::-1]


def totals_of(key: Key) -> KeyUsage:
    """`requests_today`, `requests_this_month` (UTC) and `requests_total`, allowed or not."""
    now = clock.now()
    present = {(unit, clock.start_of(unit, now)) for unit in (DAY, MONTH)}
    rows = Usage.select().where(
        Usage.subject_id == key.id, peewee.Tuple(Usage.unit, Usage.start_at).in_(present)
    )
    counts = {row.unit: row.allowed + row.denied for row in rows}
    return {
        "requests_today": counts.get(DAY, 0),
        "requests_this_month": counts.get(MONTH, 0),
        "requests_total": key.requests_total,
    }


def allowance_of(key: Key) -> Allowance | None:
    """What is left of the key's limits now; None where that cannot be told at the moment."""
    try:
        return limits.look(key.id, limits.limits_of(key), 0, clock.now())
    except CountsUnavailable:
        return None


def prune(most: int) -> int:
    """Deletes at most so many counts by hour and by day that no period shows any more; returns how
    many went."""
    now, gone = clock.now(), 0
    row = peewee.Tuple(Usage.subject_id, Usage.unit, Usage.start_at)
    for unit, kept in KEPT.items():
        past = (Usage.unit == unit) & (Usage.start_at < now - kept)
        some = Usage.select(Usage.subject_id, Usage.unit, Usage.start_at).where(past).limit(most)
        gone += Usage.delete().where(row.in_(some)).execute()
    return gone


class BucketObject(TypedDict):
    """One UTC hour, day or month."""

    start: Instant
    allowed: int
    denied: int


class UsageObject(TypedDict):
    """A bucket for each hour, day or month, oldest first, the present one included."""

    period: Annotated[str, OneOf(*PERIODS)]
    data: list[BucketObject]
    next_cursor: None


def as_dict(period: str, buckets: Sequence[Bucket]) -> UsageObject:
    data: list[BucketObject] = [
        {"start": clock.iso(one.start_at), "allowed": one.allowed, "denied": one.denied}
        for one in buckets
    ]
    return {"period": period, "data": data, "next_cursor": None}
