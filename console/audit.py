"""The log of requests made with keys: entries, usage counts, and grouped attempts without a key.

Writes what check.py decided; decides nothing itself. Query strings are never stored.
"""

import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from console import addresses, batch, clock, country, db, journal, limits, paging, projects, usage
from console import secret as secrets_of
from console.actor import Actor
from console.exports import JSON, Format
from console.fields import Address, Fields, Instant, OneOf, Whole, read_list, text_schema
from console.keys import key_to_audit
from console.known import Known
from console.models import CURRENT, PREVIOUS, Attempt, Entry, Event, Key
from console.paging import Page, PageQuery
from console.permissions import AUDIT_READ, KEYS_VERIFY

log = logging.getLogger(__name__)

METHOD_MAX_LENGTH = 20
ENDPOINT_MAX_LENGTH = 2_000
USER_AGENT_MAX_LENGTH = 500
ATTEMPT_GROUPS_MAX = 1_000
OTHER_ADDRESSES = "other addresses"
NO_ADDRESS = "no address"
ATTEMPT_RETENTION = 7 * clock.DAY
EVENT_RETENTION_DAYS = 365
PRUNE_BATCH = 1_000
OUTCOMES_MAX = 1_000
VALID = "VALID"  # of a verdict that lets the request in
STATUS_FILTER = "[1-5][0-9][0-9]|[1-5]xx|allowed|denied"


def _status_filter(text: str) -> str:
    if not re.fullmatch(STATUS_FILTER, text, re.ASCII):
        raise ValueError("must be a status such as 403, a class such as 4xx, allowed or denied")
    return text


StatusFilter = Annotated[
    str, AfterValidator(_status_filter), text_schema("4xx", pattern=f"^({STATUS_FILTER})$")
]


class EntryFilters(Fields):
    """Which entries are asked for; all of what is given must fit."""

    status: StatusFilter | None = Field(
        None, description="A status, a class such as 4xx, allowed or denied"
    )
    method: str | None = None
    ip: Address | None = None
    since: Instant | None = Field(None, description="This instant or later")
    until: Instant | None = Field(None, description="Before this instant")


class EntryQuery(PageQuery, EntryFilters):
    """Which entries of a key are asked for, and as what."""

    format: Format = JSON


class ProjectEntryQuery(EntryQuery):
    """Which entries of a project are asked for, and as what."""

    project: str | None = Field(None, description="The project's slug")


class Call(Protocol):
    """What the client's request was, as far as the log keeps it; its secret, to leave it out."""

    secret: str | None
    method: str
    endpoint: str
    ip: str | None
    user_agent: str
    request_id: str
    permissions: tuple[str, ...]


# --- write ----------------------------------------------------------------------------------


def record(call: Call, key: Known, *, code: str, status: int, at: int, cost: int) -> None:
    """Makes an entry safe; `cost` is what it spent of the key's limits.

    Raises OSError, JournalFull.
    """
    ip, where = (None, None) if call.ip is None else _located(call.ip)
    spent = [name for name, _ in key.limits] if cost and limits.is_local() else []
    secret = call.secret or ""
    journal.append([
        batch.ENTRY, at, key.project_id, key.id, key.generation,
        _kept(call.method.upper(), METHOD_MAX_LENGTH, secret),
        _kept(call.endpoint, ENDPOINT_MAX_LENGTH, secret),
        ip, where, status, code, _kept(call.user_agent, USER_AGENT_MAX_LENGTH, secret),
        call.request_id,
        call.permissions, key.digest, cost, clock.start_of("month", at), spent,
    ])  # fmt: skip


def record_outcome(request_id: str, status: int) -> None:
    """The status that was finally answered takes the place of the verdict's. Raises OSError,
    JournalFull."""
    given = {"kind": batch.OUTCOME, "request_id": request_id, "status": status}
    journal.append([given.get(field) for field in batch.FIELDS])


class Outcome(Fields):
    """What a service answered in the end to a request that was checked."""

    request_id: Annotated[str, text_schema("req_019a9f5c3e7d4c1f2a3b4c5d6e7f")] = Field(
        description="That of the verdict"
    )
    status: Annotated[int, Whole(100, 599, 200)]
    latency_ms: Annotated[int, Whole(0, clock.DAY, 12)] | None = Field(
        None, description="How long the service took, in milliseconds"
    )


Outcomes = Annotated[
    list[Outcome], Field(max_length=OUTCOMES_MAX, description=f"At most {OUTCOMES_MAX:,}")
]
_outcomes = TypeAdapter(Outcomes)


class OutcomeReport(TypedDict):
    """How many entries were given their outcome, and which requests are not known."""

    updated: int
    unknown: list[str]


def record_outcomes(given: Any, *, by: Actor) -> OutcomeReport:
    """The statuses that were finally answered take the place of the verdicts'; all or none.

    Raises Invalid, Forbidden. Requests of projects in which the actor may not verify are unknown, a
    member's those of others' keys, and whatever was refused: there no service has answered.
    """
    outcomes = read_list(_outcomes, given)
    theirs = _answered_within(projects.ids_where(KEYS_VERIFY, by=by), by)
    journal.settle()
    unknown = []
    with db.write():
        for one in outcomes:
            change = {"status": one.status, "latency_ms": one.latency_ms}
            if not Entry.update(change).where(Entry.request_id == one.request_id, theirs).execute():
                unknown.append(one.request_id)
    return {"updated": len(outcomes) - len(unknown), "unknown": unknown}


def _answered_within(project_ids: frozenset[str], by: Actor) -> Any:
    partly = {one for one in project_ids if by.sees_only_own(one)}
    own = Key.select(Key.id).where(Key.project.in_(partly), Key.owner == by.id)
    seen = Entry.project_id.in_(project_ids - partly) | Entry.key_id.in_(own)
    return (Entry.code == VALID) & seen


@lru_cache(maxsize=10_000)
def _located(ip: str) -> tuple[str, str | None]:
    """The address as it is stored, and its country."""
    address = str(addresses.parse_address(ip))
    return address, country.of(address)


def _kept(text: str, length: int, secret: str) -> str:
    """What the log keeps of a client's text: no secret, least of all the one that was presented,
    and no NUL, which PostgreSQL refuses."""
    if len(secret) > secrets_of.VISIBLE_LENGTH and secret in text:
        text = text.replace(secret, secrets_of.visible_prefix(secret) + "…")
    return secrets_of.masked(text)[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")


# --- read -----------------------------------------------------------------------------------


def page_of_key(
    key_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, limit: int
) -> Page[Entry]:
    """One key's entries, newest first. Raises Invalid, Unknown, Forbidden."""
    return paging.by_id(_of_key(key_id, filters, by), Entry.id, cursor, limit)


def page_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, limit: int
) -> Page[Entry]:
    """A project's entries, newest first; a member's only those of their own keys."""
    return paging.by_id(_of_project(project_id, filters, by), Entry.id, cursor, limit)


def all_of_key(
    key_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, most: int | None
) -> Iterator[Entry]:
    """Every entry of a key from the cursor on, newest first, one after the other.

    Raises Invalid, Unknown, Forbidden at once.
    """
    return paging.walk(_of_key(key_id, filters, by), Entry.id, cursor, most)


def all_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, most: int | None
) -> Iterator[Entry]:
    """The same of a project."""
    return paging.walk(_of_project(project_id, filters, by), Entry.id, cursor, most)


def _of_key(key_id: str, filters: Mapping[str, str], by: Actor) -> Any:
    key = key_to_audit(key_id, by=by)
    journal.settle()
    return _filtered(Entry.select().where(Entry.key_id == key.id), filters)


def _of_project(project_id: str, filters: Mapping[str, str], by: Actor) -> Any:
    by.require(AUDIT_READ, project_id)
    journal.settle()
    query = Entry.select().where(Entry.project_id == project_id)
    if by.sees_only_own(project_id):
        own = Key.select(Key.id).where(Key.project == project_id, Key.owner == by.id)
        query = query.where(Entry.key_id.in_(own))
    return _filtered(query, filters)


def _filtered(query: Any, filters: Mapping[str, str]) -> Any:
    given = {name: text.strip() for name, text in filters.items() if text.strip()}
    for name, text in EntryFilters.read(given).model_dump(exclude_unset=True).items():
        query = query.where(*WHERE[name](text))
    return query


def _has_status(text: str) -> tuple[Any, ...]:
    if text in ("allowed", "denied"):
        return (Entry.status < 400 if text == "allowed" else Entry.status >= 400,)
    if text.endswith("xx"):
        least = int(text[0]) * 100
        return (Entry.status >= least, Entry.status < least + 100)
    return (Entry.status == int(text),)


WHERE: Mapping[str, Any] = {
    "status": _has_status,
    "method": lambda text: (Entry.method == text.upper(),),
    "ip": lambda text: (Entry.ip == text,),
    "since": lambda text: (Entry.at >= clock.parse(text),),
    "until": lambda text: (Entry.at < clock.parse(text),),
}


class EntryObject(TypedDict):
    """One request made with a key."""

    id: int
    at: Instant
    key_id: str
    method: Annotated[str, text_schema("GET")]
    endpoint: Annotated[str, text_schema("/tasks")]
    ip: Address | None
    country: Annotated[str | None, Field(description="ISO 3166; null where there is none")]
    status: Annotated[int, Field(examples=[200])]
    code: Annotated[str, text_schema("VALID")]
    user_agent: str
    request_id: Annotated[str, text_schema("req_019a9f5c3e7d4c1f2a3b4c5d6e7f")]
    secret: Annotated[str, OneOf(CURRENT, PREVIOUS)]
    permissions: Annotated[list[str], Field(description="What the request needed")]
    latency_ms: Annotated[int | None, Field(description="As the service reported it")]


def as_dict(entry: Entry) -> EntryObject:
    return {
        "id": entry.id,
        "at": clock.iso(entry.at),
        "key_id": entry.key_id,
        "method": entry.method,
        "endpoint": entry.endpoint,
        "ip": entry.ip,
        "country": entry.country,
        "status": entry.status,
        "code": entry.code,
        "user_agent": entry.user_agent,
        "request_id": entry.request_id,
        "secret": entry.secret,
        "permissions": entry.permissions,
        "latency_ms": entry.latency_ms,
    }


# --- attempts without a known key -----------------------------------------------------------

_attempts: Counter[tuple[int, str, str]] = Counter()
_attempts_lock = threading.Lock()


def count_attempt(code: str, ip: str | None, now: int) -> None:
    """Counts a check that met no known key, in memory, by address, kind and hour; bounded both
    here and on disk, so that guessing fills neither."""
    with _attempts_lock:
        _add_attempts((clock.start_of("hour", now), ip or NO_ADDRESS, code), 1)


def _add_attempts(group: tuple[int, str, str], count: int) -> None:
    if group not in _attempts and len(_attempts) >= ATTEMPT_GROUPS_MAX:
        group = (group[0], OTHER_ADDRESSES, group[2])
    _attempts[group] += count


def store_attempts() -> None:
    """Moves the counts in memory to the database; they stay in memory where that fails."""
    if not _attempts:
        return
    with _attempts_lock:
        groups = dict(_attempts)
        _attempts.clear()
    try:
        with db.write():
            for hour_at in sorted({hour_at for hour_at, _, _ in groups}):
                _store_hour(
                    hour_at, {(ip, code): n for (h, ip, code), n in groups.items() if h == hour_at}
                )
    except BaseException:
        with _attempts_lock:
            for group, count in groups.items():
                _add_attempts(group, count)
        raise


def _store_hour(hour_at: int, counts: Mapping[tuple[str, str], int]) -> None:
    stored = {(row.ip, row.code) for row in Attempt.select().where(Attempt.hour_at == hour_at)}
    rows: Counter[tuple[str, str]] = Counter()
    for (ip, code), count in sorted(counts.items()):
        if (ip, code) not in stored and len(stored) >= ATTEMPT_GROUPS_MAX:
            ip = OTHER_ADDRESSES
        stored.add((ip, code))
        rows[ip, code] += count
    db.execute_many(
        'INSERT INTO "attempt" AS a ("hour_at", "ip", "code", "count") VALUES (?, ?, ?, ?)'
        ' ON CONFLICT ("hour_at", "ip", "code") DO UPDATE SET'
        ' "count" = a."count" + excluded."count"',
        [(hour_at, *group, count) for group, count in rows.items()],
    )


def attempts(limit: int = 100) -> list[Attempt]:
    """The latest groups of attempts without a known key, newest hour and most calls first."""
    store_attempts()
    newest = Attempt.hour_at.desc(), Attempt.count.desc()
    return list(Attempt.select().order_by(*newest).limit(limit))


# --- retention ------------------------------------------------------------------------------


def prune(retention_days: int) -> tuple[int, int]:
    """Deletes what is past its time, in small batches that let others write in between.

    Returns how many entries and events went.
    """
    now = clock.now()
    usage.prune()
    if Attempt.select().where(Attempt.hour_at < now - ATTEMPT_RETENTION).exists():
        with db.write():
            Attempt.delete().where(Attempt.hour_at < now - ATTEMPT_RETENTION).execute()
    entries = _delete_before(Entry, now - retention_days * clock.DAY)
    events = _delete_before(Event, now - EVENT_RETENTION_DAYS * clock.DAY)
    return entries, events


def _delete_before(model: Any, instant: int) -> int:
    """Ids ascend with time: the oldest rows are the first ones."""
    deleted = 0
    while True:
        oldest = model.select(model.id, model.at).order_by(model.id).limit(PRUNE_BATCH)
        ids = [row.id for row in oldest if row.at < instant]
        if not ids:
            return deleted
        with db.write():
            deleted += model.delete().where(model.id.in_(ids)).execute()
