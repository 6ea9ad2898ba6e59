"""What the newest requests of a key tell: how they ended, what they asked for, where they came
from, who still presents an old secret, and who would miss the key.

Never reads more than the NEWEST of a key, so that to ask costs the same however many there are.
Decides nothing about a key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from peewee import SQL, fn

from console import clock, journal
from console.actor import Actor
from console.check import REVOKED_KEY, SUPERSEDED, VALID
from console.keys import key_to_audit, secret_in_grace
from console.models import Entry, Key, Secret

Row = TypeVar("Row")

NEWEST = 10_000
SHOWN = 10
USERS_SHOWN = 3
RECENT = clock.HOUR
# After so long without a call an old secret is taken for one that nobody needs.
QUIET = clock.HOUR
REFUSED_FOR = 7 * clock.DAY
# Written as the partial index says it, so that every planner sees that the index fits.
WITH_OLD_SECRET = SQL("secret = 'previous'")


@dataclass(frozen=True, slots=True)
class Top(Generic[Row]):
    """The first groups of requests, how many groups there are, how many requests they hold
    together, when the oldest of those was made, and whether there are more that were not looked at.
    """

    rows: Sequence[Row]
    number: int = 0
    requests: int = 0
    since: int | None = None
    is_partial: bool = False

    @property
    def more(self) -> int:
        return self.number - len(self.rows)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How requests ended: the status that was answered, the code of the verdict, how many."""

    status: int
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What was asked for, and how often."""

    method: str
    path: str
    count: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where requests came from."""

    ip: str | None
    country: str | None
    count: int
    last_at: int


@dataclass(frozen=True, slots=True)
class User:
    """A client, as far as an address and what it calls itself tell one from another."""

    ip: str | None
    user_agent: str
    count: int
    last_at: int


@dataclass(frozen=True, slots=True)
class OldUse:
    """One thing that a client did with an old secret."""

    ip: str | None
    country: str | None
    user_agent: str
    method: str
    endpoint: str
    count: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Insight:
    """What the newest requests tell: the commonest outcomes, endpoints and addresses."""

    outcomes: Top[Outcome]
    endpoints: Top[Endpoint]
    sources: Top[Source]


@dataclass(frozen=True, slots=True)
class OldSecret:
    """The old secret in its grace period, and what is done with it; `last_used_at` is of then."""

    prefix: str
    superseded_at: int
    works_until: int
    last_used_at: int | None
    uses: Top[OldUse]

    @property
    def unused_since(self) -> int:
        return self.superseded_at if self.last_used_at is None else self.last_used_at

    @property
    def is_quiet(self) -> bool:
        """Whether for long enough nobody called with it."""
        return clock.now() - self.unused_since >= QUIET

    @property
    def is_quiet_for_a_day(self) -> bool:
        """Whether even what calls once a day would have called."""
        return clock.now() - self.unused_since >= clock.DAY


# --- the page -------------------------------------------------------------------------------


def of_key(key_id: str, *, by: Actor) -> Insight:
    """How the key's newest requests ended, what they asked for, and where they came from.

    Raises Unknown, Forbidden.
    """
    key = _key(key_id, by)
    return Insight(
        outcomes=_top(_Part(key), (Entry.status, Entry.code), lambda row: Outcome(*row[:3])),
        endpoints=_top(_Part(key), (Entry.method, Entry.endpoint), lambda row: Endpoint(*row[:3])),
        sources=_top(_Part(key), (Entry.ip, Entry.country), lambda row: Source(*row[:4])),
    )


# --- who would miss it ----------------------------------------------------------------------


def recent_users(key_id: str, *, by: Actor) -> Top[User]:
    """Who was let in with the key within the last hour, newest first. Raises Unknown, Forbidden."""
    return _users(_key(key_id, by), Entry.code == VALID)


def recently_revoked(key_id: str, *, by: Actor) -> Top[User]:
    """Who was refused within the last hour, for the key is revoked. Raises Unknown, Forbidden."""
    return _users(_key(key_id, by), Entry.code == REVOKED_KEY)


def recent_users_of_old(key_id: str, *, by: Actor) -> Top[User]:
    """Who was let in with the old secret, since it is one, within the last hour.

    Raises Unknown, Forbidden.
    """
    return _users(_key(key_id, by), Entry.code == VALID, only_old=True)


def _users(key: Key, meant: Any, *, only_old: bool = False) -> Top[User]:
    since = clock.now() - RECENT
    if only_old:
        since = max(since, key.rotated_at or 0)
    part = _Part(key, since, meant, only_old)
    return _top(part, (Entry.ip, Entry.user_agent), lambda row: User(*row[:4]), USERS_SHOWN)


# --- the old secret -------------------------------------------------------------------------


def old_secret(key_id: str, *, by: Actor) -> OldSecret | None:
    """The old secret that still works, and who uses it since there is a new one.

    Raises Unknown, Forbidden.
    """
    key = _key(key_id, by)
    secret = secret_in_grace(key)
    if secret is None:
        return None
    since = secret.superseded_at
    assert since is not None and secret.works_until is not None, "what is in its grace has both"
    used = secret.last_used_at is not None and secret.last_used_at >= since
    return OldSecret(
        prefix=secret.prefix,
        superseded_at=since,
        works_until=secret.works_until,
        last_used_at=secret.last_used_at if used else None,
        uses=_old_uses(key, since, Entry.code != SUPERSEDED) if used else Top([]),
    )


def refused_old(key_id: str, *, by: Actor) -> Top[OldUse]:
    """Who was refused within the last days for presenting a secret that has stopped working.

    Raises Unknown, Forbidden.
    """
    key, since = _key(key_id, by), clock.now() - REFUSED_FOR
    presented = (Secret.last_used_at >= since) & (Secret.last_used_at >= Secret.works_until)
    if not Secret.select().where(Secret.key == key, presented).exists():
        return Top([])  # most of the time, and without a look at the entries
    return _old_uses(key, since, Entry.code == SUPERSEDED)


def _old_uses(key: Key, since: int, meant: Any) -> Top[OldUse]:
    groups = Entry.ip, Entry.country, Entry.user_agent, Entry.method, Entry.endpoint
    part = _Part(key, since, meant, only_old=True)
    return _top(part, groups, lambda row: OldUse(*row[:7]))


# --- what they share ------------------------------------------------------------------------


def _key(key_id: str, by: Actor) -> Key:
    key = key_to_audit(key_id, by=by)
    journal.settle_to_show()
    return key


@dataclass(frozen=True, slots=True)
class _Part:
    """Which of a key's entries are looked at: the newest, and of those the ones that are meant."""

    key: Key
    since: int = 0
    meant: Any = None
    only_old: bool = False

    def first_beyond(self) -> Entry | None:
        """The newest entry that is not looked at any more. The bound comes before all else, so
        that what is rare is not looked for through all that there is."""
        found = self._entries(Entry.select(Entry.id, Entry.at)).order_by(Entry.id.desc())
        return found.offset(NEWEST).first()  # type: ignore[no-any-return]

    def after(self, beyond: Entry | None, query: Any) -> Any:
        query = self._entries(query).where(Entry.at >= self.since)
        if beyond is not None:
            query = query.where(Entry.id > beyond.id)
        return query if self.meant is None else query.where(self.meant)

    def _entries(self, query: Any) -> Any:
        query = query.where(Entry.key_id == self.key.id)
        return query.where(WITH_OLD_SECRET) if self.only_old else query


def _top(
    part: _Part, groups: Sequence[Any], make: Callable[[Sequence[Any]], Row], most: int = SHOWN
) -> Top[Row]:
    """The commonest groups, or, where it is asked since when, those last seen.

    `make` is given the group's columns, its count, and when it was last seen.
    """
    beyond = part.first_beyond()
    count, last_at = fn.count(SQL("*")), fn.max(Entry.at)
    together = fn.count(SQL("*")).over(), fn.sum(count).over(), fn.min(fn.min(Entry.at)).over()
    orders = (last_at, count) if part.since else (count, last_at)
    query = part.after(beyond, Entry.select(*groups, count, last_at, *together))
    query = query.group_by(*groups).order_by(*(one.desc() for one in orders), *groups)
    rows = list(query.limit(most).tuples())
    number, requests, since = rows[0][-3:] if rows else (0, 0, None)
    is_partial = beyond is not None and beyond.at >= part.since
    return Top([make(row) for row in rows], number, int(requests), since, is_partial)
