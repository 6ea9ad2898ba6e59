"""The log of requests made with keys: entries, usage counts, and grouped attempts without a key.

Writes what check.py decided; decides nothing itself. Query strings are never stored.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

from console import addresses, batch, clock, country, db, journal, limits, paging, usage
from console import secret as secrets_of
from console.actor import Actor
from console.errors import Invalid
from console.keys import key_to_audit
from console.known import Known
from console.models import Attempt, Entry, Event, Key
from console.paging import Page
from console.permissions import AUDIT_READ

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


class Call(Protocol):
    """What the client's request was, as far as the log keeps it."""

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
    journal.append([
        batch.ENTRY, at, key.project_id, key.id, key.generation,
        _kept(call.method.upper(), METHOD_MAX_LENGTH), _kept(call.endpoint, ENDPOINT_MAX_LENGTH),
        ip, where, status, code, _kept(call.user_agent, USER_AGENT_MAX_LENGTH), call.request_id,
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


def _kept(text: str, length: int) -> str:
    """What the log keeps of a client's text: no secret, wherever one was written; and no NUL, which
    PostgreSQL refuses."""
    return secrets_of.masked(text)[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")


# --- read -----------------------------------------------------------------------------------


def page_of_key(
    key_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, limit: int
) -> Page[Entry]:
    """One key's entries, newest first. Raises Invalid, Unknown, Forbidden."""
    key = key_to_audit(key_id, by=by)
    journal.settle()
    query = Entry.select().where(Entry.key_id == key.id)
    return paging.by_id(_filtered(query, filters), Entry.id, cursor, limit)


def page_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, limit: int
) -> Page[Entry]:
    """A project's entries, newest first; a member's only those of their own keys."""
    by.require(AUDIT_READ, project_id)
    journal.settle()
    query = Entry.select().where(Entry.project_id == project_id)
    if by.sees_only_own(project_id):
        own = Key.select(Key.id).where(Key.project == project_id, Key.owner == by.id)
        query = query.where(Entry.key_id.in_(own))
    return paging.by_id(_filtered(query, filters), Entry.id, cursor, limit)


def _filtered(query: Any, filters: Mapping[str, str]) -> Any:
    """Narrows by status (200, 4xx, allowed, denied), method, ip, since, until."""
    for name, text in filters.items():
        if text:
            try:
                query = query.where(*FILTERS[name](text.strip()))
            except ValueError as error:
                raise Invalid({name: str(error)}) from None
    return query


def _by_status(text: str) -> tuple[Any, ...]:
    if text in ("allowed", "denied"):
        return (Entry.status < 400 if text == "allowed" else Entry.status >= 400,)
    if len(text) == 3 and text[0] in "12345":
        if text[1:] == "xx":
            least = int(text[0]) * 100
            return (Entry.status >= least, Entry.status < least + 100)
        if text.isascii() and text.isdigit():
            return (Entry.status == int(text),)
    raise ValueError("must be a status such as 403, a class such as 4xx, allowed or denied")


def _by_method(text: str) -> tuple[Any, ...]:
    return (Entry.method == text.upper(),)


def _by_ip(text: str) -> tuple[Any, ...]:
    try:
        return (Entry.ip == str(addresses.parse_address(text)),)
    except ValueError:
        raise ValueError("must be an IP address") from None


FILTERS: Mapping[str, Any] = {
    "status": _by_status,
    "method": _by_method,
    "ip": _by_ip,
    "since": lambda text: (Entry.at >= clock.parse(text),),
    "until": lambda text: (Entry.at < clock.parse(text),),
}


def as_dict(entry: Entry) -> dict[str, Any]:
    """The entry object of the API."""
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
