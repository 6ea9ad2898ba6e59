"""The chain of events: each carries a hash over its own row and the hash before it, so that whoever
changes, removes, adds or moves an event afterwards has to recompute every later one.

An event's `hash` is the SHA-256, in hex, of the hash before it, a line feed, and its row: all
columns but `hash`, the id among them, as a JSON object after RFC 8785 (no spaces, keys in order,
numbers as doubles), all in ASCII. The one row of Chain says where the chain begins (the last event
before it: one from before there was a chain, or the last that retention removed) and where it ends.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from peewee import OperationalError, fn, sqlite3  # type: ignore[attr-defined]

from console import clock, db
from console.models import Chain, Event

ONLY = 1  # the id of Chain's row
COLUMNS = (
    Event.id, Event.at, Event.project_id, Event.action, Event.actor_kind, Event.actor_id,
    Event.actor_name, Event.target_id, Event.target_name, Event.changes, Event.ip,
    Event.request_id,
)  # fmt: skip
NAMES = tuple(column.name for column in COLUMNS)
BEGINNING = ""  # what stands for the hash before the first
VERIFIED_TOGETHER = 1_000
STORED_TOGETHER = 500
INTEGERS_UP_TO = 2**53  # in a double
IDS_UP_TO = 2**63  # in SQLite, which takes anything in any column
# What reading a row raises that holds what no column of its kind does; SQLite itself refuses text
# that is not UTF-8, which peewee passes on as it is while it goes through the rows.
UNREADABLE = (
    TypeError, ValueError, OverflowError, RecursionError, OperationalError,
    sqlite3.OperationalError,
)  # fmt: skip
ACTION = re.compile(r"[a-z_]{1,30}\.[a-z_]{1,60}")


@dataclass(frozen=True, slots=True)
class Broken:
    """The first event that is not as it was recorded; of one that is gone, or holds what was never
    recorded, no more is known than can be shown."""

    id: int
    at: int | None
    action: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in the chain: how many events are as they were recorded, from when to when,
    and what the newest goes by. `older` came before the chain, and nobody can vouch for them."""

    count: int
    first_at: int | None
    last_at: int | None
    end_id: int
    end_hash: str
    older: int
    broken: Broken | None = None


def link(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a row, whose columns are NAMES, behind the one before it."""
    content = {name: _normal(row[name]) for name in NAMES}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{previous}\n{text}".encode("ascii")).hexdigest()


def _normal(value: Any) -> Any:
    """The value with numbers in one form: databases give 1e22 and -0.0 back in forms of their
    own."""
    if isinstance(value, dict):
        return {str(name): _normal(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= INTEGERS_UP_TO else value
    if isinstance(value, int) and abs(value) > INTEGERS_UP_TO:
        try:
            return float(value)
        except OverflowError:
            return str(value)
    return value


# --- append ---------------------------------------------------------------------------------


def append(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Stores events, all of whose columns but id and hash are given, behind those that are there;
    returns their ids.

    In the caller's transaction and at its very end: all who record wait for each other here, so
    whoever holds the chain must not wait for anything else.
    """
    chain = _held()
    newest = Event.select(fn.max(Event.id)).scalar() or 0
    # Not the database's own ids: SQLite gives those of removed rows again, PostgreSQL leaves gaps.
    last_id, last_hash = max(chain.end_id, newest), chain.end_hash
    stored = []
    for row in rows:
        last_id += 1
        whole = {**row, "id": last_id}
        last_hash = link(last_hash, whole)
        stored.append({**whole, "hash": last_hash})
    for start in range(0, len(stored), STORED_TOGETHER):
        Event.insert_many(stored[start : start + STORED_TOGETHER]).execute()
    Chain.update(end_id=last_id, end_hash=last_hash).where(Chain.id == ONLY).execute()
    return [row["id"] for row in stored]


def begin() -> None:
    """Has the chain begin behind the events that are there, where there is none yet."""
    newest = Event.select(fn.max(Event.id)).scalar() or 0
    ends = {"start_id": newest, "end_id": newest, "start_hash": BEGINNING, "end_hash": BEGINNING}
    Chain.insert(id=ONLY, **ends).on_conflict_ignore().execute()


def _held() -> Chain:
    """The chain's ends as they are now; nobody else records until the transaction ends."""
    db.hold(Chain, ONLY)
    chain = _chain()
    if chain is None:
        begin()
        db.hold(Chain, ONLY)
        chain = _chain()
    assert chain is not None
    return chain


def _chain() -> Chain | None:
    return Chain.get_or_none(Chain.id == ONLY)


# --- retention ------------------------------------------------------------------------------


def prune(before: int, most: int) -> int:
    """Deletes the oldest events, at most so many, while they are from before that instant; the
    chain then begins behind them. Returns how many went."""
    oldest = Event.select(Event.id, Event.at, Event.hash).order_by(Event.id).limit(most)
    # A prefix, whatever the clocks said: a chain has no holes.
    gone = list(takewhile(lambda event: event.at < before, oldest))
    if not gone:
        return 0
    last = gone[-1]
    with db.write():
        chain = _held()
        if last.id > chain.start_id:
            ends = {"start_id": last.id, "start_hash": last.hash or BEGINNING}
            Chain.update(ends).where(Chain.id == ONLY).execute()
        return int(Event.delete().where(Event.id <= last.id).execute())


# --- verify ---------------------------------------------------------------------------------


def verify() -> Found:
    """Reads the whole chain, in parts, while others go on recording: is every event as it was
    recorded, and none missing or added?"""
    chain = _ends()
    if isinstance(chain, Broken):
        return Found(0, None, None, 0, BEGINNING, 0, chain)
    walk = _Walk(chain)
    stray = _stray(chain)
    if stray is not None:
        return walk.found(0, stray)
    return walk.to_the_end(Event.select().where(Event.id <= chain.start_id).count())


def _ends(event_id: int = 0) -> Chain | Broken:
    """Where the chain begins and ends; or that nobody knows, at the event that was come to."""
    try:
        chain = _chain()
        if chain is None:
            return Broken(event_id, None, None, "the chain is gone")
        if 0 <= chain.start_id <= chain.end_id < IDS_UP_TO:
            return chain
    except UNREADABLE:
        _require_database(Chain, ONLY)
    return Broken(event_id, None, None, "where the chain begins and ends is not as it was recorded")


def _require_database(model: Any, row_id: int) -> None:
    """Raises OperationalError where it is the database that fails, not what the row holds."""
    model.select(model.id).where(model.id == row_id).first()


def _stray(chain: Chain) -> Broken | None:
    """The first event that can be neither in the chain nor from before there was one: those have
    no hash, and retention removes them before it moves the chain's beginning. Ids begin at 1."""
    early = Event.select(Event.id).where(Event.id <= chain.start_id)
    if chain.start_hash == BEGINNING:
        early = early.where((Event.id < 1) | Event.hash.is_null(False))
    stray = early.order_by(Event.id).first()
    if stray is None:
        return None
    return _broken(stray.id, "it stands before the chain's beginning, where it cannot have been")


def has(event_id: int, event_hash: str) -> bool | None:
    """Whether this event is there with this hash; None where retention has removed it."""
    chain = _chain()
    if chain is not None and event_id == chain.start_id:
        return chain.start_hash == event_hash
    if chain is not None and event_id < chain.start_id:
        return None
    return bool(Event.select().where(Event.id == event_id, Event.hash == event_hash).exists())


class _Walk:
    """Where a walk along the chain has come to."""

    def __init__(self, chain: Chain) -> None:
        self.id, self.hash = chain.start_id, chain.start_hash
        self.count = 0
        self.first_at: int | None = None
        self.last_at: int | None = None

    def to_the_end(self, older: int) -> Found:
        while True:
            chain = _ends(self.id)  # before the rows: what it says there is, there is
            if isinstance(chain, Broken):
                return self.found(older, chain)
            went, broken = self._on()
            if not went and broken is None:
                broken = self._broken_end(chain)
                if broken is None:
                    return self.found(older)
            if broken is not None and not self._skips_what_was_pruned():
                return self.found(older, broken)

    def found(self, older: int, broken: Broken | None = None) -> Found:
        return Found(
            self.count, self.first_at, self.last_at, self.id, self.hash, older, broken
        )  # fmt: skip

    def _on(self) -> tuple[int, Broken | None]:
        """Goes as far as the next rows are whole; how far that was, and what was not."""
        went = 0
        for row in _rows_behind(self.id):
            why = self._fault(row)
            if why is not None:
                return went, _broken(row["id"], why)
            self.id, self.hash, self.last_at = row["id"], row["hash"], row["at"]
            self.first_at = row["at"] if self.first_at is None else self.first_at
            self.count += 1
            went += 1
        return went, None

    def _fault(self, row: Mapping[str, Any]) -> str | None:
        try:
            if row["hash"] == link(self.hash, row) and _instant(row["at"]) is not None:
                return None
        except (KeyError, *UNREADABLE):
            return "its columns hold what was never recorded"
        if row["hash"] is None:
            return "it has no hash: it was not recorded by Latchkey"
        if row["id"] > self.id + 1:
            missing = f"{self.id + 1} to {row['id'] - 1}"
            return f"events before it are missing ({missing}), or it was changed"
        return "it was changed, or put in another's place"

    def _broken_end(self, chain: Chain) -> Broken | None:
        """What is wrong with an end behind which there are no more rows."""
        if chain.end_id > self.id:
            why = f"the newest events are missing, up to {chain.end_id}"
            return Broken(self.id + 1, None, None, why)
        if chain.end_id < self.id:
            return _broken(chain.end_id + 1, "it stands behind the chain's end")
        if chain.end_hash != self.hash:
            return _broken(self.id, "it is not the event with which the chain ended")
        return None

    def _skips_what_was_pruned(self) -> bool:
        """Goes on where the chain begins by now, where retention has just removed what was next."""
        chain = _ends()
        if isinstance(chain, Broken) or chain.start_id <= self.id:
            return False
        self.id, self.hash = chain.start_id, chain.start_hash
        return True


def _rows_behind(event_id: int) -> Iterator[Mapping[str, Any]]:
    query: Any = Event.select().where(Event.id > event_id).order_by(Event.id)
    try:
        yield from list(query.limit(VERIFIED_TOGETHER).dicts())
        return
    except UNREADABLE:
        pass  # one of them holds what no column of its kind does: which one?
    for row_id in [row.id for row in query.select(Event.id).limit(VERIFIED_TOGETHER)]:
        try:
            one: Any = Event.select().where(Event.id == row_id)
            row = one.dicts().first()
        except UNREADABLE:
            _require_database(Event, row_id)
            row = {"id": row_id}
        if row is None:  # retention has just removed it
            return
        yield row


def _broken(event_id: int, why: str) -> Broken:
    """The event as it is, as far as it can be read at all and shown."""
    at, action = _value(event_id, "at"), _value(event_id, "action")
    is_action = isinstance(action, str) and ACTION.fullmatch(action) is not None
    return Broken(event_id, _instant(at), action if is_action else None, why)


def _value(event_id: int, column: str) -> Any:
    """What is in one column of an event; None where it cannot be read."""
    try:
        query = f'select "{column}" from "event" where "id" = {event_id:d}'
        (value,) = db.handle.execute_sql(query).fetchone() or (None,)
    except UNREADABLE:
        return None
    return value


def _instant(at: Any) -> int | None:
    """The instant, where it is one between the years 1 and 9999."""
    if not isinstance(at, int):
        return None
    try:
        clock.iso(at)
    except OverflowError:
        return None
    return at
