"""How a project fares: its requests over time, and the keys that want attention. Changes nothing.

A member is told of their own keys alone. To ask costs the same however many requests there were;
of very many keys only those used last are compared, and what is counted is counted up to a bound.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from console import clock, keys, projects, usage
from console.actor import Actor
from console.check import VALID
from console.models import ACTIVE, EXPIRED, REVOKED, Entry, Key, Project, Usage
from console.permissions import ANALYTICS_READ, AUDIT_READ, KEYS_READ
from console.usage import DAY, PERIODS, Bucket

ROWS = 5
EXPIRING_WITHIN = 30 * clock.DAY
UNUSED_FOR = 7 * clock.DAY
COUNT_MAX = 1_000
TOLD_APART_MAX = 10_000  # keys, by their status: no index tells it
COMPARED_MAX = 5_000  # keys, by their counts
NEWEST_ENTRIES = 200  # of a key, in which the reason of its refusals is looked for


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests over some time."""

    allowed: int
    denied: int

    @property
    def requests(self) -> int:
        return self.allowed + self.denied

    @property
    def refused_share(self) -> float:
        return self.denied / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are; `is_least` where they were not counted further."""

    number: int
    is_least: bool = False


@dataclass(frozen=True, slots=True)
class Some:
    """The first keys of a list, and how many are in it."""

    keys: Sequence[Key]
    count: Count


@dataclass(frozen=True, slots=True)
class Used:
    """A key, its requests since yesterday, and the code of most of its newest refusals."""

    key: Key
    allowed: int
    denied: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """The keys that were used since yesterday: those refused most, and those used most."""

    failing: Sequence[Used]
    failing_count: Count
    top: Sequence[Used]
    top_count: Count


@dataclass(frozen=True, slots=True)
class Overview:
    """What a project's page tells."""

    buckets: Sequence[Bucket]
    totals: Totals
    before: Totals | None  # in as much time before; None where the project is younger
    is_used: bool  # whether there ever was a request
    keys: int
    statuses: dict[str, int] | None  # None where there are too many keys to tell
    key_limit: int | None  # None for who sees only their own keys
    expiring: Some
    unused: Some
    use: Use


def of_project(slug: str, period: str, *, by: Actor) -> Overview:
    """A project at a glance. Raises Invalid (period), Unknown, Forbidden."""
    buckets = usage.of_project(slug, period, by=by)
    project = projects.to_see(slug, by=by)
    by.require(KEYS_READ, project.id)
    seen, now = _seen(project, by), clock.now()
    totals = _totals(buckets)
    number = Key.select().where(seen).count()
    return Overview(
        buckets=buckets,
        totals=totals,
        before=_before(project, period, buckets, now, by),
        is_used=totals.requests > 0 or _any_used(seen),
        keys=number,
        statuses=_statuses(seen, number, now) if number <= TOLD_APART_MAX else None,
        key_limit=None if by.sees_only_own(project.id) else projects.key_limit(project),
        expiring=_expiring(seen, now),
        unused=_unused(seen, now),
        use=_use(seen, project, now, by),
    )


def _seen(project: Project, by: Actor) -> Any:
    """The condition of the keys that the actor sees there."""
    if not by.sees_only_own(project.id):
        return Key.project == project.id
    # By themselves, or SQLite would look for them among all keys in the order that is asked for.
    own = Key.alias()
    here = own.project.concat("") == project.id  # found by owner, which are fewer
    return Key.id.in_(own.select(own.id).where(here, own.owner == by.id))


def _any_used(seen: Any) -> bool:
    return bool(Key.select().where(seen, Key.last_used_order > 0).exists())


# --- requests over time ---------------------------------------------------------------------


def _totals(buckets: Sequence[Bucket]) -> Totals:
    return Totals(sum(one.allowed for one in buckets), sum(one.denied for one in buckets))


def _before(
    project: Project, period: str, buckets: Sequence[Bucket], now: int, by: Actor
) -> Totals | None:
    """What was counted in as much time before the buckets.

    The last of those is not over; as much as it lacks is left out of the first of the others, as
    if requests came evenly there.
    """
    others = usage.of_project(project.slug, period, by=by, before=True)
    if project.created_at > others[0].start_at:
        return None
    unit, present = PERIODS[period][0], buckets[-1].start_at
    over = (now - present) / (clock.end_of(unit, present) - present)
    first, rest = others[0], _totals(others[1:])
    return Totals(
        round(first.allowed * over) + rest.allowed, round(first.denied * over) + rest.denied
    )


# --- lists of keys --------------------------------------------------------------------------


def _statuses(seen: Any, number: int, now: int) -> dict[str, int]:
    active, revoked = (
        Key.select().where(seen, keys.has_status(status, now)).count()
        for status in (ACTIVE, REVOKED)
    )
    return {ACTIVE: active, REVOKED: revoked, EXPIRED: number - active - revoked}


def _expiring(seen: Any, now: int) -> Some:
    """Active keys that end soon, the soonest first."""
    end_soon = Key.expires_order.between(now + 1, now + EXPIRING_WITHIN)
    condition = seen & end_soon & Key.revoked_at.is_null()
    return Some(_first(condition, Key.expires_order), _count(condition))


def _unused(seen: Any, now: int) -> Some:
    """Active keys that nobody has used since they were made, the oldest first."""
    # `+ 0`: few keys have no last use, and all were created; SQLite would look among the latter.
    created_at = Key.created_at + 0
    condition = seen & (Key.last_used_order == 0) & (created_at < now - UNUSED_FOR)
    condition &= keys.has_status(ACTIVE, now)
    count = _count(condition)
    # Where they are many, the oldest are soon found, and to sort them all would take longer.
    return Some(_first(condition, Key.created_at if count.is_least else created_at), count)


def _first(condition: Any, order: Any) -> list[Key]:
    return list(keys.joined().where(condition).order_by(order, Key.id).limit(ROWS))


def _count(condition: Any) -> Count:
    number = Key.select().where(condition).limit(COUNT_MAX + 1).count()
    return Count(min(number, COUNT_MAX), number > COUNT_MAX)


# --- use ------------------------------------------------------------------------------------


def _use(seen: Any, project: Project, now: int, by: Actor) -> Use:
    """Compares the keys that were used last: who is used much was used lately."""
    today = clock.start_of(DAY, now)
    yesterday = clock.start_of(DAY, today - 1)
    latest = (
        Key.select(Key.id)
        .where(seen, Key.last_used_order >= yesterday)
        .order_by(Key.last_used_order.desc(), Key.id.desc())
        .limit(COMPARED_MAX)
    )
    counts: list[Any] = list(
        Usage.select(Usage.subject_id, peewee.fn.sum(Usage.allowed), peewee.fn.sum(Usage.denied))
        .where(
            Usage.subject_id.in_(latest), Usage.unit == DAY, Usage.start_at.in_([yesterday, today])
        )
        .group_by(Usage.subject_id)
        .tuples()
    )
    failing = [one for one in counts if one[2]]
    is_least = len(counts) == COMPARED_MAX
    tells_reasons = by.may(AUDIT_READ, project.id)
    return Use(
        failing=_most(failing, lambda one: one[2], tells_reasons),
        failing_count=Count(len(failing), is_least),
        top=_most(counts, lambda one: one[1] + one[2], False),
        top_count=Count(len(counts), is_least),
    )


def _most(counts: Sequence[Any], number: Any, tells_reasons: bool) -> list[Used]:
    first = heapq.nsmallest(ROWS, counts, key=lambda one: (-number(one), one[0]))
    found = {key.id: key for key in keys.joined().where(Key.id.in_([one[0] for one in first]))}
    return [
        Used(found[key_id], int(allowed), int(denied), _reason(key_id) if tells_reasons else None)
        for key_id, allowed, denied in first
        if key_id in found
    ]


def _reason(key_id: str) -> str | None:
    """The code of most refusals among the newest entries of a key."""
    newest = Entry.select(Entry.code).where(Entry.key_id == key_id).order_by(Entry.id.desc())
    codes = Counter(entry.code for entry in newest.limit(NEWEST_ENTRIES) if entry.code != VALID)
    return codes.most_common(1)[0][0] if codes else None


# --- what an archive stops ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AtStake:
    """A project's keys that work, and those of them that were used lately."""

    active: Count
    recent: Count


def at_stake(project: Project) -> AtStake:
    """Who loses access when all of the project's keys are refused."""
    now = clock.now()
    active = (Key.project == project.id) & keys.has_status(ACTIVE, now)
    return AtStake(_count(active), _count(active & (Key.last_used_order > now - clock.HOUR)))


# --- all projects ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A project among others: its active keys, and its requests since 00:00 UTC, as far as the
    actor may know them."""

    project: Project
    active: Count | None
    today: Totals | None


def of_all(*, by: Actor) -> list[Row]:
    """The projects in which the actor has any business, archived or not, by name."""
    return [_row(project, by) for project in projects.seen(by)]


def _row(project: Project, by: Actor) -> Row:
    now = clock.now()
    active, today = None, None
    if by.may(KEYS_READ, project.id):
        active = _count(_seen(project, by) & keys.has_status(ACTIVE, now))
    if by.may(ANALYTICS_READ, project.id):
        counts = usage.counts_in(project, by).select(Usage.allowed, Usage.denied)
        of_today = counts.where(Usage.unit == DAY, Usage.start_at == clock.start_of(DAY, now))
        today = Totals(*map(sum, zip((0, 0), *of_today.tuples(), strict=True)))
    return Row(project, active, today)
