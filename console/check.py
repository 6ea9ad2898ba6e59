"""Is this key good for this request, and if not, why: the hot path.

One order for all doors (interface §4): present, well-formed, known, not superseded, revoked or
expired, project, environment, address, permissions, rate limit, quota. The first failure is the
verdict; nothing is spent before all of them pass, and nothing is answered before it is stored.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import peewee

from console import addresses, audit, clock, db, limits, permissions, secret
from console.limits import Allowance
from console.models import REVOKED, Key, Person, Project, Secret

log = logging.getLogger(__name__)

VALID = "VALID"
MISSING = "API_KEY_MISSING"
MALFORMED = "API_KEY_MALFORMED"
INVALID = "API_KEY_INVALID"
SUPERSEDED = "API_KEY_SUPERSEDED"
REVOKED_KEY = "API_KEY_REVOKED"
EXPIRED_KEY = "API_KEY_EXPIRED"
PROJECT_MISMATCH = "PROJECT_MISMATCH"
ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
IP_NOT_ALLOWED = "IP_NOT_ALLOWED"
PERMISSION_DENIED = "PERMISSION_DENIED"
RATE_LIMITED = "RATE_LIMITED"
QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
UNAVAILABLE = "UNAVAILABLE"

# code -> (HTTP status, what it means to the person who reads it)
CODES: dict[str, tuple[int, str]] = {
    VALID: (200, "The key is good for this request."),
    MISSING: (401, "Send the key as Authorization: Bearer <key>, or as X-API-Key."),
    MALFORMED: (401, "This is not a key: its shape or checksum is wrong. Was it cut off?"),
    INVALID: (401, "No such key here. It may have been deleted."),
    SUPERSEDED: (401, "This key was rotated; use its new secret."),
    REVOKED_KEY: (401, "This key is revoked. Its owner can enable it again."),
    EXPIRED_KEY: (401, "This key has expired. Its owner can extend it."),
    PROJECT_MISMATCH: (403, "This key belongs to another project."),
    ENVIRONMENT_MISMATCH: (403, "This key belongs to another environment."),
    IP_NOT_ALLOWED: (403, "This address is not in the key's allowlist."),
    PERMISSION_DENIED: (403, "This key lacks a permission that the request needs."),
    RATE_LIMITED: (429, "The key's rate limit is reached; wait, then try again."),
    QUOTA_EXCEEDED: (429, "The key's monthly quota is used up."),
    UNAVAILABLE: (503, "Keys cannot be checked at the moment; try again shortly."),
}
UNAVAILABLE_RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request: what it presents, where from, and what it asks for."""

    secret: str | None
    request_id: str
    ip: str | None = None
    method: str = ""
    endpoint: str = ""
    user_agent: str = ""
    permissions: tuple[str, ...] = ()
    project: str | None = None
    environment: str | None = None
    cost: int = 1
    within: frozenset[str] | None = None  # ids of the projects that the asker may ask about

    def call(self) -> audit.Call:
        return audit.Call(
            method=self.method,
            endpoint=self.endpoint,
            ip=self.ip,
            user_agent=self.user_agent,
            request_id=self.request_id,
            permissions=self.permissions,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a check. `key` is None when none is known; instants are milliseconds."""

    code: str
    request_id: str
    at: int
    key: Key | None = None
    secret: Secret | None = None
    missing_permissions: tuple[str, ...] = ()
    allowance: Allowance = field(default_factory=Allowance)
    entry_id: int | None = None

    @property
    def is_valid(self) -> bool:
        return self.code == VALID

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    @property
    def message(self) -> str:
        return CODES[self.code][1]

    @property
    def retry_after_seconds(self) -> int | None:
        """Whole seconds until another try may pass (RFC 9110 Retry-After)."""
        if self.code == UNAVAILABLE:
            return UNAVAILABLE_RETRY_SECONDS
        if self.allowance.refused is None:
            return None
        return max(1, -(-(self.allowance.refused.reset_at - self.at) // 1000))


@dataclass(frozen=True, slots=True)
class Step:
    """One rule applied to a request: its name, the code when it fails, and a sentence."""

    check: str
    code: str | None
    detail: str


def check(request: Request) -> Verdict:
    """The verdict, with its entry stored. A failing database is UNAVAILABLE, never a bad key."""
    now = clock.now()
    try:
        key, used = _find(request)
        code = next((step.code for step in _steps(request, key, used, now) if step.code), VALID)
        verdict = Verdict(code=code, request_id=request.request_id, at=now, key=key, secret=used)
        if key is None or used is None:
            audit.count_attempt(code, request.ip, now)
            return verdict
        if code == PERMISSION_DENIED:
            lacking = permissions.missing(key.permissions, request.permissions)
            verdict = replace(verdict, missing_permissions=lacking)
        return _stored(request, verdict, key, used)
    except peewee.PeeweeException:
        log.exception("check %s: the database failed", request.request_id)
        return Verdict(code=UNAVAILABLE, request_id=request.request_id, at=now)


def _stored(request: Request, verdict: Verdict, key: Key, used: Secret) -> Verdict:
    """Spends the limits of a key that passed, and stores the entry, in one transaction."""
    with db.write():
        if verdict.is_valid:
            allowance = limits.spend(key, request.cost, verdict.at)
        elif verdict.code == PROJECT_MISMATCH:
            allowance = Allowance()
        else:
            allowance = limits.look(key, 0, verdict.at)
        verdict = replace(verdict, allowance=allowance, code=_limit_code(allowance) or verdict.code)
        entry_id = audit.record(
            key, used, request.call(), code=verdict.code, status=verdict.status, at=verdict.at
        )
    return replace(verdict, entry_id=entry_id)


def explain(request: Request) -> tuple[Verdict, list[Step]]:
    """What `check` would answer and every rule's outcome in order; stores and spends nothing."""
    now = clock.now()
    key, used = _find(request)
    steps = list(_steps(request, key, used, now))
    allowance = Allowance()
    if key is not None and steps[-1].code != PROJECT_MISMATCH:
        allowance = limits.look(key, request.cost, now)
        limited = _limit_code(allowance)
        for name, code in (("rate_limit", RATE_LIMITED), ("quota", QUOTA_EXCEEDED)):
            steps.append(_step(name, code if limited == code else None, "Within its limits."))
    code = next((step.code for step in steps if step.code), VALID)
    lacking = permissions.missing(key.permissions, request.permissions) if key else ()
    verdict = Verdict(
        code=code,
        request_id=request.request_id,
        at=now,
        key=key,
        secret=used,
        missing_permissions=lacking if code == PERMISSION_DENIED else (),
        allowance=allowance,
    )
    return verdict, steps


def _find(request: Request) -> tuple[Key | None, Secret | None]:
    """The key that the presented secret opens; no database read for what cannot be one."""
    if not request.secret or not secret.is_well_formed(request.secret):
        return None, None
    used = (
        Secret.select(Secret, Key, Project, Person)
        .join(Key)
        .join(Project)
        .switch(Key)
        .join(Person, peewee.JOIN.LEFT_OUTER)
        .where(Secret.digest == secret.digest(request.secret))
        .first()
    )
    return (used.key, used) if used else (None, None)


def _steps(request: Request, key: Key | None, used: Secret | None, now: int) -> Iterator[Step]:
    """The rules in their order, up to the limits; ends where nothing further can be known."""
    yield _step("present", None if request.secret else MISSING, "A key was sent.")
    if not request.secret:
        return
    shaped = secret.is_well_formed(request.secret)
    yield _step("well_formed", None if shaped else MALFORMED, "Shape and checksum are right.")
    if not shaped:
        return
    yield _step("known", None if key else INVALID, "The key is known.")
    if key is None or used is None:
        return
    superseded = used.is_superseded_at(now)
    yield _step("not_superseded", SUPERSEDED if superseded else None, "The secret is in use.")
    status = key.status_at(now)
    yield _step("not_revoked", REVOKED_KEY if status == REVOKED else None, "Not revoked.")
    expired = key.expires_at is not None and key.expires_at <= now
    yield _step("not_expired", EXPIRED_KEY if expired else None, "Not expired.")
    beyond = request.within is not None and key.project_id not in request.within
    elsewhere = beyond or request.project not in (None, key.project.slug)
    yield _step("project", PROJECT_MISMATCH if elsewhere else None, "The project fits.")
    if elsewhere:
        return  # and nothing is told of another project's key
    other = request.environment not in (None, key.environment)
    yield _step("environment", ENVIRONMENT_MISMATCH if other else None, "The environment fits.")
    outside = bool(key.ip_allowlist) and not addresses.covered(request.ip, key.ip_allowlist)
    yield _step("ip_allowlist", IP_NOT_ALLOWED if outside else None, "The address is allowed.")
    lacking = permissions.missing(key.permissions, request.permissions)
    yield _step("permissions", PERMISSION_DENIED if lacking else None, "Holds what is needed.")


def _step(name: str, code: str | None, passed: str) -> Step:
    return Step(name, code, CODES[code][1] if code else passed)


def _limit_code(allowance: Allowance) -> str | None:
    if allowance.refused is None:
        return None
    return QUOTA_EXCEEDED if allowance.refused.name == limits.MONTH else RATE_LIMITED
