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

from peewee import SQL, Tuple, fn
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import (
    addresses,
    batch,
    clock,
    country,
    db,
    journal,
    partitions,
    search,
)
from console import secret as secrets_of
from console.actor import Actor
from console.errors import Forbidden, Unknown
from console.exports import JSON, Format
from console.fields import (
    NAME_MAX_LENGTH,
    Address,
    Fields,
    Instant,
    OneOf,
    UpTo,
    sort_form,
    text_schema,
)
from console.keys import key_to_audit
from console.known import Known
from console.models import CURRENT, PREVIOUS, Attempt, Entry, Key
from console.paging import INTEGER_MAX, Page, PageQuery
from console.permissions import AUDIT_READ

log = logging.getLogger(__name__)

METHOD_MAX_LENGTH = 20
ENDPOINT_MAX_LENGTH = 2_000
USER_AGENT_MAX_LENGTH = 500
ATTEMPT_GROUPS_MAX = 1_000
OTHER_ADDRESSES = "other addresses"
NO_ADDRESS = "no address"
ATTEMPT_RETENTION = 7 * clock.DAY
VALID = "VALID"  # of a verdict that lets the request in
# What an entry may say: all that a check can, once it knows the key.
CODES_LOGGED = (
    VALID, "API_KEY_SUPERSEDED", "API_KEY_REVOKED", "API_KEY_EXPIRED", "PROJECT_MISMATCH",
    "ENVIRONMENT_MISMATCH", "IP_NOT_ALLOWED", "PERMISSION_DENIED", "RATE_LIMITED", "QUOTA_EXCEEDED",
)  # fmt: skip
STATUS_FILTER = "[1-5][0-9][0-9]|[1-5]xx|allowed|denied"
KEY_ID_START = "key_"
NEWER_MAX = 200
# Processes store their entries one after the other, so that ids are out of step with times.
OUT_OF_STEP = clock.MINUTE


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
    code: Annotated[str, OneOf(*CODES_LOGGED)] | None = Field(
        None, description="The code of the verdict"
    )
    method: Annotated[str, UpTo(METHOD_MAX_LENGTH, "GET")] | None = None
    endpoint: Annotated[str, UpTo(ENDPOINT_MAX_LENGTH, "/v1/tasks")] | None = Field(
        None, description="What the path begins with"
    )
    ip: Address | None = None
    secret: Annotated[str, OneOf(CURRENT, PREVIOUS)] | None = Field(
        None, description="`previous`: requests that came with an old secret"
    )
    since: Instant | None = Field(None, description="This instant or later")
    until: Instant | None = Field(None, description="Before this instant")


class ProjectEntryFilters(EntryFilters):
    """The same of a project's entries."""

    key: Annotated[str, UpTo(NAME_MAX_LENGTH, "CI pipeline")] | None = Field(
        None, description="The id of a key, or its name"
    )


class EntryQuery(PageQuery, EntryFilters):
    """Which entries of a key are asked for, and as what."""

    format: Format = JSON


class ProjectEntryQuery(EntryQuery, ProjectEntryFilters):
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
    spent = [name for name, _ in key.limits] if cost else []
    secret = call.secret or ""
    journal.append([
        batch.ENTRY, at, key.project_id, key.id, key.generation,
        kept(call.method.upper(), METHOD_MAX_LENGTH, secret),
        kept(call.endpoint, ENDPOINT_MAX_LENGTH, secret),
        ip, where, status, code, kept(call.user_agent, USER_AGENT_MAX_LENGTH, secret),
        call.request_id,
        call.permissions, key.digest, cost, clock.start_of("month", at), spent,
    ])  # fmt: skip


def record_outcome(request_id: str, status: int) -> None:
    """The status that was finally answered takes the place of the verdict's. Raises OSError,
    JournalFull."""
    given = {"kind": batch.OUTCOME, "request_id": request_id, "status": status}
    journal.append([given.get(field) for field in batch.FIELDS])


@lru_cache(maxsize=10_000)
def _located(ip: str) -> tuple[str, str | None]:
    """The address as it is stored, and its country."""
    address = str(addresses.parse_address(ip))
    return address, country.of(address)


def kept(text: str, length: int, secret: str) -> str:
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
    scope = _of_key(key_id, filters, by)
    journal.settle_to_show()
    return search.page(scope, cursor, limit)


def page_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, limit: int
) -> Page[Entry]:
    """A project's entries, newest first; a member's only those of their own keys.

    Raises Invalid, Unknown (also for the filter `key`, naming it), Forbidden.
    """
    scope = _of_project(project_id, filters, by)
    journal.settle_to_show()
    return search.page(scope, cursor, limit)


def all_of_key(
    key_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, most: int | None
) -> Iterator[Entry]:
    """Every entry of a key from the cursor on, newest first, one after the other.

    Raises Invalid, Unknown, Forbidden at once.
    """
    scope = _of_key(key_id, filters, by)
    journal.settle_to_show()
    return search.walk(scope, cursor, most)


def all_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, most: int | None
) -> Iterator[Entry]:
    """The same of a project."""
    scope = _of_project(project_id, filters, by)
    journal.settle_to_show()
    return search.walk(scope, cursor, most)


def newer_of_key(
    key_id: str, after: int, *, by: Actor, filters: Mapping[str, str]
) -> tuple[list[Entry], int]:
    """A key's entries beyond the id `after`, newest first, and the newest id by now.

    Reads what is stored, some tenths of a second late, and writes nothing: it is asked every two
    seconds. Raises what `page_of_key` does.
    """
    return search.newer(_of_key(key_id, filters, by), after, NEWER_MAX)


def newer_of_project(
    project_id: str, after: int, *, by: Actor, filters: Mapping[str, str]
) -> tuple[list[Entry], int]:
    """The same of a project."""
    return search.newer(_of_project(project_id, filters, by), after, NEWER_MAX)


def entry_to_read(entry_id: int, project_id: str, *, by: Actor) -> Entry:
    """One entry of the project; a member's of their own keys alone. Raises Unknown, Forbidden."""
    by.require(AUDIT_READ, project_id)
    query = Entry.select().where(Entry.id == min(entry_id, INTEGER_MAX))
    entry = query.where(Entry.project_id == project_id, *_seen(project_id, by)).first()
    if entry is None:
        raise Unknown("There is no such request in the log. Retention may have taken it.")
    return entry  # type: ignore[no-any-return]


def _of_key(key_id: str, filters: Mapping[str, str], by: Actor) -> search.Scope:
    key = key_to_audit(key_id, by=by)
    asked = _asked(EntryFilters, filters)
    rows = Entry.select().where(Entry.key_id == key.id)
    if asked.get("secret") == PREVIOUS:  # as an index of their own says it
        rows = rows.where(SQL("(secret = 'previous')"))
        del asked["secret"]
    return _scope(rows, (), asked)


def _of_project(project_id: str, filters: Mapping[str, str], by: Actor) -> search.Scope:
    by.require(AUDIT_READ, project_id)
    asked = _asked(ProjectEntryFilters, filters)
    seen = _seen(project_id, by)
    rows = Entry.select().where(Entry.project_id == project_id)
    key = asked.pop("key", None)
    if key is None:
        return _scope(rows, seen, asked)
    meant = _keys_meant(key, project_id, by)
    if len(meant) > 1:
        return _scope(rows, (*seen, Entry.key_id.in_(meant)), asked)
    # Not as a column: the key's index is the better one, and no database knows.
    rows = Entry.select().where(Entry.key_id == meant[0])
    return _scope(rows.where(Entry.project_id.concat("") == project_id), seen, asked)


def _seen(project_id: str, by: Actor) -> tuple[Any, ...]:
    """What limits a member to their own keys."""
    if not by.sees_only_own(project_id):
        return ()
    own = Key.select(Key.id).where(Key.project == project_id, Key.owner == by.id)
    return (Entry.key_id.in_(own),)


def _keys_meant(text: str, project_id: str, by: Actor) -> list[str]:
    """The ids of the keys of that id or name. The id of a deleted one is good: its entries stay."""
    if text.startswith(KEY_ID_START):
        return [text]
    named = Key.select(Key.id).where(Key.project == project_id, Key.name_sort == sort_form(text))
    if by.sees_only_own(project_id):
        named = named.where(Key.owner == by.id)
    meant = [key.id for key in named]
    if not meant:
        why = "is not the name or id of a key in this project"
        raise Unknown(f"“{text}” {why}.", fields={"key": why})
    return meant


def _asked(kind: type[EntryFilters], filters: Mapping[str, str]) -> dict[str, str]:
    given = {name: text.strip() for name, text in filters.items() if text.strip()}
    return kind.read(given).model_dump(exclude_unset=True)


def _scope(rows: Any, seen: tuple[Any, ...], asked: Mapping[str, str]) -> search.Scope:
    wanted = [condition for name, text in asked.items() for condition in WHERE[name](text)]
    since, until = asked.get("since"), asked.get("until")
    return search.Scope(
        rows,
        Entry.id,
        (*seen, *wanted),
        least=_first_id(clock.parse(since) - OUT_OF_STEP) if since else None,
        below=_first_id(clock.parse(until) + OUT_OF_STEP) if until else None,
    )


def _first_id(instant: int) -> int:
    """The id from which on entries are of that instant or later: ids ascend with time, so that it
    is found by halving, wherever it lies."""
    # One query each: together SQLite would read the whole table for them.
    least = Entry.select(fn.MIN(Entry.id)).scalar()
    if least is None:
        return 0
    below = Entry.select(fn.MAX(Entry.id)).scalar() + 1
    while least < below:
        middle = (least + below) // 2
        row = Entry.select(Entry.id, Entry.at).where(Entry.id >= middle).order_by(Entry.id).first()
        if row is None or row.at >= instant:
            below = middle
        else:
            least = row.id + 1
    return int(least)


def _has_status(text: str) -> tuple[Any, ...]:
    if text in ("allowed", "denied"):
        return (Entry.status < 400 if text == "allowed" else Entry.status >= 400,)
    if text.endswith("xx"):
        least = int(text[0]) * 100
        return (Entry.status >= least, Entry.status < least + 100)
    return (Entry.status == int(text),)


WHERE: Mapping[str, Any] = {
    "status": _has_status,
    "code": lambda text: (Entry.code == text,),
    "method": lambda text: (Entry.method == text.upper(),),
    # Not LIKE, to which a letter's case and some characters mean something else.
    "endpoint": lambda text: (fn.SUBSTR(Entry.endpoint, 1, len(text)) == text,),
    "ip": lambda text: (Entry.ip == text,),
    "secret": lambda text: (Entry.secret == text,),
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
        who = addresses.counted_as(ip) if ip else NO_ADDRESS
        _add_attempts((clock.start_of("hour", now), who, code), 1)


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


def attempts(limit: int = 100, *, by: Actor) -> list[Attempt]:
    """The latest groups of attempts without a known key, newest hour and most calls first.

    They belong to no project. Raises Forbidden for whoever is not an owner.
    """
    if not by.is_owner:
        raise Forbidden("This is for owners: attempts without a known key belong to no project.")
    store_attempts()
    newest = Attempt.hour_at.desc(), Attempt.count.desc()
    return list(Attempt.select().order_by(*newest).limit(limit))


# --- retention ------------------------------------------------------------------------------


def prune_attempts(most: int) -> int:
    """Deletes at most so many groups that are past their time; returns how many went."""
    past = Attempt.hour_at < clock.now() - ATTEMPT_RETENTION
    row = Tuple(Attempt.hour_at, Attempt.ip, Attempt.code)
    some = Attempt.select(Attempt.hour_at, Attempt.ip, Attempt.code).where(past).limit(most)
    return int(Attempt.delete().where(row.in_(some)).execute())


def prune_entries(retention_days: int, most: int) -> int:
    """Deletes entries that are past their time, at most so many; on PostgreSQL all of the days that
    are. Returns how many went."""
    before = clock.now() - retention_days * clock.DAY
    if not db.is_sqlite():
        return partitions.drop_past(before) or partitions.delete_without_day(before, most)
    # Ids ascend with time: the oldest rows are the first ones.
    oldest = Entry.select(Entry.id, Entry.at).order_by(Entry.id).limit(most)
    ids = [row.id for row in oldest if row.at < before]
    return int(Entry.delete().where(Entry.id.in_(ids)).execute()) if ids else 0
