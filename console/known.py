"""The keys as a check needs them, looked up by digest and remembered.

On SQLite a key is remembered until the database was written, in this process or any other: then a
counter that triggers keep tells whether it was a change to a key, a secret, a project or a person,
or only another batch of entries. What is written past Latchkey, by hand, is noticed within a tenth
of a second. On PostgreSQL to ask costs as much as to look up, so each check looks up. Decides
nothing about a key.
"""

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from console import db, limits, route_rules, secret
from console.models import CURRENT, PREVIOUS, Secret
from console.route_rules import Routes

REMEMBERED_MAX = 20_000
TRUSTED_SECONDS = 0.1

QUERY = """
    SELECT s.digest, s.superseded_at, s.works_until, k.id, k.name, k.prefix, k.environment,
           k.permissions, k.ip_allowlist, k.plan, k.limit_per_minute, k.limit_per_hour,
           k.monthly_quota, p.plans, k.external_id, k.metadata, k.expires_at,
           k.auto_renew, coalesce(k.revoked_at, p.archived_at), p.id, p.slug,
           CAST(p.route_rules AS TEXT), p.route_default, o.id, o.email
    FROM "secret" s JOIN "key" k ON k.id = s.key_id JOIN "project" p ON p.id = k.project_id
         LEFT JOIN "person" o ON o.id = k.owner_id
    WHERE {}
"""
BY_DIGEST = QUERY.format("s.digest = {}")
BY_KEY = QUERY.format("s.key_id = {} AND s.superseded_at IS NULL")


@dataclass(slots=True)
class Known:
    """A key as one of its secrets opens it. Never changed: a change to the key makes a new one."""

    digest: str  # of the secret
    superseded_at: int | None
    works_until: int | None
    id: str
    name: str
    prefix: str
    environment: str
    permissions: list[str]
    ip_allowlist: list[str]
    limits: limits.Limits
    external_id: str | None
    metadata: dict[str, Any]
    expires_at: int | None
    auto_renew: bool
    revoked_at: int | None  # or archived with its project
    project_id: str
    project: str  # its slug
    routes: Routes | None  # its rules of routes; None: they ask nothing
    owner_id: str | None
    owner: str | None  # the address

    @property
    def generation(self) -> str:
        return CURRENT if self.superseded_at is None else PREVIOUS


@dataclass(slots=True)
class _Terms:
    """What says how a key is limited, as it was looked up."""

    environment: str
    plan: str
    limit_per_minute: int | None
    limit_per_hour: int | None
    monthly_quota: int | None
    project_plans: list[dict[str, Any]]


class _Memory:
    """What was looked up in a database when its count of changes stood at `count`, or later."""

    __slots__ = ("database", "count", "keys")

    def __init__(self, database: Any, count: int) -> None:
        self.database = database
        self.count = count
        self.keys: dict[str, Known] = {}


class _State(NamedTuple):
    """A memory, and how long it holds: as long as nobody writes, but not for ever."""

    memory: _Memory
    seen: bytes
    until: float


_state = _State(_Memory(None, -1), b"", 0)


def find(digest: str) -> Known | None:
    """The key that the secret with this digest opens, as it is now."""
    if not db.is_sqlite():
        return _look_up(digest)
    memory = _as_of_now()
    known = memory.keys.get(digest)
    if known is None:
        known = _look_up(digest)
        if known is not None:
            if len(memory.keys) >= REMEMBERED_MAX:
                memory.keys.clear()
            memory.keys[digest] = known
    return known


def current_of(key_id: str) -> Known | None:
    """The key with this id as its current secret opens it, for who knows the key but no secret."""
    return _look_up(key_id, BY_KEY)


def may_be_imported(text: str) -> bool:
    """Whether a text that is no secret of ours may be one that was imported."""
    return db.has_flag() and len(text) <= secret.LENGTH_MAX and text.isascii()


def expect_imported() -> None:
    """From now on a secret may have any shape."""
    db.raise_flag()


def look_for_imported() -> None:
    """What `expect_imported` said is known again, for a database that came without it."""
    if Secret.select().where(Secret.imported_at.is_null(False)).exists():
        expect_imported()


def _as_of_now() -> _Memory:
    """The memory that holds now. What is put into it afterwards was looked up afterwards."""
    global _state
    seen, is_at_rest = db.changes()
    memory, seen_before, until = _state
    if seen == seen_before and time.monotonic() < until and memory.database is db.handle.obj:
        return memory
    count = db.handle.execute_sql('SELECT "count" FROM "change"').fetchone()[0]
    if count > memory.count or memory.database is not db.handle.obj:
        memory = _Memory(db.handle.obj, count)
    if is_at_rest:
        _state = _State(memory, seen, time.monotonic() + TRUSTED_SECONDS)
    return memory


def _look_up(sought: str, query: str = BY_DIGEST) -> Known | None:
    row = db.handle.execute_sql(query.format(db.handle.param), (sought,)).fetchone()
    if row is None:
        return None
    (digest, superseded_at, works_until, key_id, name, prefix, environment, permissions, allowlist,
     plan, per_minute, per_hour, quota, plans, external_id, metadata, expires_at, auto_renew,
     revoked_at, project_id, slug, rules, rules_default, owner_id, owner) = row  # fmt: skip
    terms = _Terms(environment, plan, per_minute, per_hour, quota, _shared(plans))
    return Known(
        digest=digest,
        superseded_at=superseded_at,
        works_until=works_until,
        id=key_id,
        name=name,
        prefix=prefix,
        environment=sys.intern(environment),
        permissions=_shared(permissions),
        ip_allowlist=_shared(allowlist),
        limits=limits.limits_of(terms),
        external_id=external_id,
        metadata=_shared(metadata),
        expires_at=expires_at,
        auto_renew=bool(auto_renew),
        revoked_at=revoked_at,
        project_id=sys.intern(project_id),
        project=sys.intern(slug),
        routes=route_rules.of(rules, rules_default),
        owner_id=owner_id and sys.intern(owner_id),
        owner=owner and sys.intern(owner),
    )


def _shared(stored: Any) -> Any:
    """The value of a JSON column; most are those of other keys too, and nobody changes them."""
    return _parsed(stored) if isinstance(stored, str) else stored


@lru_cache(maxsize=1_000)
def _parsed(text: str) -> Any:
    return from_json(text)
