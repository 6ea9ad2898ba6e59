"""Is this key good for this request, and if not, why: the hot path.

One order for all doors (interface §4): present, well-formed, known, not superseded, revoked or
expired, project, environment, address, permissions, rate limit, quota. The first failure is the
verdict; nothing is spent before all of them pass, and nothing is answered before it is stored.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
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
    """The answer of a check; instants are milliseconds.

    `key` is None when none is known, and when it belongs to another project than the one asked
    about: nothing is told of that one but the code.
    """

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
        code = _first_failure(_steps(request, key, used, now))
        if key is None or used is None:
            verdict = Verdict(code=code, request_id=request.request_id, at=now)
            audit.count_attempt(code, request.ip, now)
        else:
            verdict = _stored(request, code, key, used)
    except peewee.PeeweeException:
        return _unavailable(request, now)
    if code not in (MISSING, MALFORMED):  # which cost the database nothing
        audit.store_attempts_now_and_then(now)
    return verdict


def _stored(request: Request, code: str, key: Key, used: Secret) -> Verdict:
    """Spends the limits of a key that passed, and stores the entry, in one transaction."""
    with db.write():
        db.hold(Key, key.id)
        # Read while the key is held: of calls that waited for each other, no later one counts in
        # an earlier window, which would start the count anew.
        at = clock.now()
        verdict = _verdict(request, code, key, used, at, limits.spend)
        entry_id = audit.record(
            key, used, request.call(), code=verdict.code, status=verdict.status, at=at
        )
    return replace(verdict, entry_id=entry_id)


def _unavailable(request: Request, now: int) -> Verdict:
    log.exception("check %s: the database failed", request.request_id)
    return Verdict(code=UNAVAILABLE, request_id=request.request_id, at=now)


def explain(request: Request) -> tuple[Verdict, list[Step]]:
    """What `check` would answer and every rule's outcome in order; stores and spends nothing."""
    now = clock.now()
    try:
        key, used = _find(request)
        steps = list(_steps(request, key, used, now))
        code = _first_failure(steps)
        if key is None or used is None:
            return Verdict(code=code, request_id=request.request_id, at=now), steps
        verdict = _verdict(request, code, key, used, now, limits.look)
        if verdict.key is not None:
            limited = _limit_code(limits.look(key, request.cost, now))
            for name, refusal in (("rate_limit", RATE_LIMITED), ("quota", QUOTA_EXCEEDED)):
                failed = refusal if limited == refusal else None
                steps.append(_step(name, failed, "Within its limits."))
        return verdict, steps
    except peewee.PeeweeException:
        return _unavailable(request, now), []


def _verdict(
    request: Request,
    code: str,
    key: Key,
    used: Secret,
    at: int,
    take: Callable[[Key, int, int], Allowance],
) -> Verdict:
    """The verdict on a known key; `take` answers for the limits of one that passed so far."""
    if _is_elsewhere(request, key):
        return Verdict(code=code, request_id=request.request_id, at=at)
    allowance = take(key, request.cost, at) if code == VALID else limits.look(key, 0, at)
    if code == VALID:
        code = _limit_code(allowance) or VALID
    lacking = permissions.missing(key.permissions, request.permissions)
    return Verdict(
        code=code,
        request_id=request.request_id,
        at=at,
        key=key,
        secret=used,
        missing_permissions=lacking if code == PERMISSION_DENIED else (),
        allowance=allowance,
    )


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
    elsewhere = _is_elsewhere(request, key)
    yield _step("project", PROJECT_MISMATCH if elsewhere else None, "The project fits.")
    if elsewhere:
        return  # and nothing is told of another project's key
    other = request.environment not in (None, key.environment)
    yield _step("environment", ENVIRONMENT_MISMATCH if other else None, "The environment fits.")
    outside = bool(key.ip_allowlist) and not addresses.covered(request.ip, key.ip_allowlist)
    yield _step("ip_allowlist", IP_NOT_ALLOWED if outside else None, "The address is allowed.")
    lacking = permissions.missing(key.permissions, request.permissions)
    yield _step("permissions", PERMISSION_DENIED if lacking else None, "Holds what is needed.")


def _first_failure(steps: Iterable[Step]) -> str:
    return next((step.code for step in steps if step.code), VALID)


def _is_elsewhere(request: Request, key: Key) -> bool:
    beyond = request.within is not None and key.project_id not in request.within
    return beyond or request.project not in (None, key.project.slug)


def _step(name: str, code: str | None, passed: str) -> Step:
    return Step(name, code, CODES[code][1] if code else passed)


def _limit_code(allowance: Allowance) -> str | None:
    if allowance.refused is None:
        return None
    return QUOTA_EXCEEDED if allowance.refused.name == limits.MONTH else RATE_LIMITED
