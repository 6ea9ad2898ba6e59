"""Is this key good for this request, and if not, why: the hot path.

One order for all doors (interface §4): present, well-formed, known, not superseded, revoked or
expired, project, environment, address, permissions, rate limit, quota. The first failure is the
verdict; nothing is spent before all of them pass, and nothing is answered before its entry is safe.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import peewee

from console import (
    addresses,
    audit,
    clock,
    guessing,
    journal,
    keys,
    known,
    limits,
    logs,
    permissions,
    renewal,
    secret,
)
from console.actor import Actor
from console.errors import Forbidden, Unknown
from console.journal import JournalFull
from console.known import Known
from console.limits import Allowance, CountsUnavailable
from console.models import Secret

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
    REVOKED_KEY: (401, "This key is revoked, or its project is archived."),
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
LOG_SECONDS = 10
# What a check cannot do without: the database, a disk that takes the entry, the limits' counts.
FAILURES = (peewee.PeeweeException, OSError, JournalFull, CountsUnavailable)


@dataclass(slots=True)
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
    by_rules: bool = False  # what it needs, the rules of the key's project say, too
    refusal: str = ""  # why these rules refuse it, whatever the key holds


@dataclass(slots=True)
class Verdict:
    """The answer of a check; instants are milliseconds.

    `key` is None when none is known, and when it belongs to another project than the one asked
    about: nothing is told of that one but the code.
    """

    code: str
    request_id: str
    at: int
    key: Known | None = None
    missing_permissions: tuple[str, ...] = ()
    allowance: Allowance = limits.NONE
    is_recorded: bool = False
    delay_seconds: float = 0.0  # by how much the answer is to be held back; see guessing.py
    refusal: str = ""  # by the rules of routes: a sentence in place of the code's

    @property
    def is_valid(self) -> bool:
        return self.code == VALID

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    @property
    def message(self) -> str:
        return self.refusal or CODES[self.code][1]

    @property
    def retry_after_seconds(self) -> int | None:
        """Whole seconds until another try may pass (RFC 9110 Retry-After)."""
        if self.code == UNAVAILABLE:
            return UNAVAILABLE_RETRY_SECONDS
        if self.allowance.refused is None:
            return None
        return max(1, -(-(self.allowance.refused.reset_at - self.at) // 1000))


class Rule(NamedTuple):
    """One rule: its name, the code when it fails, when it does, and a sentence for when not."""

    name: str
    code: str
    fails: Callable[[Request, Any, int], bool]
    passed: str
    is_last: bool = False  # where it fails nothing further can be said


class Step(NamedTuple):
    """A rule applied to a request: its name, the code when it failed, and a sentence."""

    check: str
    code: str | None
    detail: str


def _is_elsewhere(request: Request, key: Known) -> bool:
    beyond = request.within is not None and key.project_id not in request.within
    return beyond or request.project not in (None, key.project)


def is_superseded(one: Known | Secret, now: int) -> bool:
    """Whether a rotation, and the grace after it, has ended what this secret opens."""
    return one.superseded_at is not None and now >= (one.works_until or 0)


def _is_superseded(request: Request, key: Known, now: int) -> bool:
    return is_superseded(key, now)


def _is_expired(request: Request, key: Known, now: int) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def _is_outside(request: Request, key: Known, now: int) -> bool:
    return bool(key.ip_allowlist) and not addresses.covered(request.ip, key.ip_allowlist)


def _lacks(request: Request, key: Known, now: int) -> bool:
    required = request.permissions
    if request.refusal:
        return True
    return bool(required) and bool(permissions.missing(key.permissions, required))


def _is_misshapen(request: Request, key: Known | None, now: int) -> bool:
    return key is None and not secret.is_well_formed(request.secret or "")


# The order is a promise (interface §4).
RULES_OF_A_SECRET = (
    Rule("present", MISSING, lambda request, key, now: not request.secret, "A key was sent.", True),
    Rule("well_formed", MALFORMED, _is_misshapen, "Shape and checksum are right.", True),
    Rule("known", INVALID, lambda request, key, now: key is None, "The key is known.", True),
)
RULES_OF_A_KEY: tuple[Rule, ...] = (
    Rule("not_superseded", SUPERSEDED, _is_superseded, "The secret is in use."),
    Rule("not_revoked", REVOKED_KEY, lambda request, key, now: key.revoked_at is not None,
         "Not revoked."),
    Rule("not_expired", EXPIRED_KEY, _is_expired, "Not expired."),
    Rule("project", PROJECT_MISMATCH, lambda request, key, now: _is_elsewhere(request, key),
         "The project fits.", True),
    Rule("environment", ENVIRONMENT_MISMATCH,
         lambda request, key, now: request.environment not in (None, key.environment),
         "The environment fits."),
    Rule("ip_allowlist", IP_NOT_ALLOWED, _is_outside, "The address is allowed."),
    Rule("permissions", PERMISSION_DENIED, _lacks, "Holds what is needed."),
)  # fmt: skip

# What is said of the rules of a secret where a person tries a key and no secret.
TAKEN = tuple(
    Step(rule.name, None, "Taken as passed: you picked it by name.") for rule in RULES_OF_A_SECRET
)


def check(request: Request, *, syncs: bool = True) -> Verdict:
    """The verdict, its entry safe. Where that cannot be it is UNAVAILABLE, never a bad key.

    A caller that waits for the disk itself (journal.sync), before it answers, says so by `syncs`.
    """
    now = clock.now()
    try:
        key = _find(request)
        if key is None:
            code = _first_failure(RULES_OF_A_SECRET, request, None, now)
            audit.count_attempt(code, request.ip, now)
            held_back = 0.0 if code == MISSING else guessing.delay_seconds(request.ip)
            return _counted(Verdict(code, request.request_id, now, delay_seconds=held_back))
        if request.by_rules:
            _ask_rules(request, key)
        code = _first_failure(RULES_OF_A_KEY, request, key, now)
        if code == EXPIRED_KEY and key.auto_renew:
            key = _renewed(request, key, now)
            code = _first_failure(RULES_OF_A_KEY, request, key, now)
        verdict = _verdict(request, code, key, now, limits.spend)
        _record(request, key, verdict)
        if syncs:
            journal.sync()
        return _counted(verdict)
    except FAILURES:
        return _counted(_unavailable(request, now))


_counting = threading.Lock()
_counts = dict.fromkeys(CODES, 0)


def _counted(verdict: Verdict) -> Verdict:
    with _counting:
        _counts[verdict.code] += 1
    return verdict


def counts() -> dict[str, int]:
    """How many checks this process has made since it began, by each code there is."""
    with _counting:
        return dict(_counts)


def _ask_rules(request: Request, key: Known) -> None:
    """Adds what the rules of the key's project ask of such a request."""
    request.by_rules = False
    if key.routes is not None:
        need = key.routes.need(request.method, request.endpoint)
        request.permissions = tuple(dict.fromkeys((*request.permissions, *need.permissions)))
        request.refusal = need.refusal


def _renewed(request: Request, key: Known, now: int) -> Known:
    """The key as it is once it has renewed itself, which it had not in time; only for a request
    that nothing else speaks against. Another check, or the worker, may be first."""
    others = [rule for rule in RULES_OF_A_KEY if rule.code != EXPIRED_KEY]
    if _first_failure(others, request, key, now) == VALID:
        renewal.renew_late(key.id)
    return _find(request) or key


def judge(request: Request) -> Verdict:
    """What the rules say of secret and key by now, limits aside; stores and spends nothing."""
    now = clock.now()
    key = _find(request)
    code = INVALID if key is None else _first_failure(RULES_OF_A_KEY, request, key, now)
    return Verdict(code, request.request_id, now)


def _find(request: Request) -> Known | None:
    """The key that the presented secret opens; no database read for what cannot be one.

    A secret that was made elsewhere, and imported, may have any shape.
    """
    text = request.secret
    if not text or not (secret.is_well_formed(text) or known.may_be_imported(text)):
        return None
    return known.find(secret.digest(text))


def _first_failure(rules: Sequence[Rule], request: Request, key: Known | None, now: int) -> str:
    for rule in rules:
        if rule.fails(request, key, now):
            return rule.code
    return VALID


def _record(request: Request, key: Known, verdict: Verdict) -> None:
    """Leaves the entry; where that fails, takes back what was spent."""
    cost = request.cost if verdict.is_valid else 0
    try:
        audit.record(request, key, code=verdict.code, status=verdict.status, at=verdict.at,
                     cost=cost)  # fmt: skip
    except BaseException:
        limits.give_back(key.id, key.limits, cost, verdict.at)
        raise
    verdict.is_recorded = True


_unlogged = 0
_logged_at = 0.0


def _unavailable(request: Request, now: int) -> Verdict:
    """Says why in the log, but now and then only: what fails, fails for thousands of checks."""
    global _unlogged, _logged_at
    if time.monotonic() - _logged_at > LOG_SECONDS or not _logged_at:
        log.exception(
            "a check could not be made, and %d before it that were not logged",
            _unlogged,
            extra=logs.of(request.request_id),
        )
        _unlogged, _logged_at = 0, time.monotonic()
    else:
        _unlogged += 1
    return Verdict(UNAVAILABLE, request.request_id, now)


def explain(request: Request) -> tuple[Verdict, list[Step]]:
    """What `check` would answer and every rule's outcome in order; stores and spends nothing."""
    return _explained(request, lambda: _find(request))


def explain_to(request: Request, *, by: Actor) -> tuple[Verdict, list[Step]]:
    """The same to somebody who may hold a secret that is not theirs: a key that they may not see
    is answered as one that is not there, for they would leave no trace by asking."""
    return _explained(request, lambda: _find_seen(request, by))


def explain_key(key_id: str, request: Request, *, by: Actor) -> tuple[Verdict, list[Step]]:
    """The same of a key's current secret, for who has only the key. Raises Unknown, Forbidden."""
    return _explained(request, lambda: _current_of(key_id, by), TAKEN)


def _current_of(key_id: str, by: Actor) -> Known:
    keys.key_to_read(key_id, by=by)
    key = known.current_of(key_id)
    if key is None:
        raise Unknown("There is no such key.")
    return key


def _find_seen(request: Request, by: Actor) -> Known | None:
    key = _find(request)
    if key is None:
        return None
    try:
        keys.key_to_read(key.id, by=by)
    except (Unknown, Forbidden):
        return None
    return key


def _explained(
    request: Request, find: Callable[[], Known | None], taken: Sequence[Step] = ()
) -> tuple[Verdict, list[Step]]:
    """`taken` stands for the rules of the secret, where none was presented."""
    now = clock.now()
    try:
        key = find()
        if key is None:
            steps = _steps(RULES_OF_A_SECRET, request, None, now)
            return Verdict(_code_of(steps), request.request_id, now), steps
        if request.by_rules:
            _ask_rules(request, key)
        steps = [*(taken or _steps(RULES_OF_A_SECRET, request, key, now))]
        steps += _steps(RULES_OF_A_KEY, request, key, now)
        verdict = _verdict(request, _code_of(steps), key, now, limits.look)
        if verdict.key is not None:
            limited = _limit_code(limits.look(key.id, key.limits, request.cost, now))
            for name, refusal in (("rate_limit", RATE_LIMITED), ("quota", QUOTA_EXCEEDED)):
                failed = refusal if limited == refusal else None
                steps.append(_step(name, failed, "Within its limits."))
        return verdict, steps
    except FAILURES:
        return _unavailable(request, now), []


def _steps(rules: Sequence[Rule], request: Request, key: Known | None, now: int) -> list[Step]:
    steps = []
    for rule in rules:
        fails = rule.fails(request, key, now)
        step = _step(rule.name, rule.code if fails else None, rule.passed)
        if step.code == PERMISSION_DENIED and request.refusal:
            step = step._replace(detail=request.refusal)
        steps.append(step)
        if fails and rule.is_last:
            break
    return steps


def _step(name: str, code: str | None, passed: str) -> Step:
    return Step(name, code, CODES[code][1] if code else passed)


def _code_of(steps: Sequence[Step]) -> str:
    return next((step.code for step in steps if step.code), VALID)


def _verdict(
    request: Request,
    code: str,
    key: Known,
    now: int,
    take: Callable[[str, limits.Limits, int, int], Allowance],
) -> Verdict:
    """The verdict on a known key; `take` answers for the limits of one that passed so far."""
    if _is_elsewhere(request, key):
        return Verdict(code, request.request_id, now)
    if code == VALID:
        allowance = take(key.id, key.limits, request.cost, now)
        code = _limit_code(allowance) or VALID
    else:
        allowance = limits.look(key.id, key.limits, 0, now)
    lacking: tuple[str, ...] = ()
    if code == PERMISSION_DENIED and not request.refusal:
        lacking = permissions.missing(key.permissions, request.permissions)
    refusal = request.refusal if code == PERMISSION_DENIED else ""
    return Verdict(code, request.request_id, now, key, lacking, allowance, refusal=refusal)


def _limit_code(allowance: Allowance) -> str | None:
    if allowance.refused is None:
        return None
    return QUOTA_EXCEEDED if allowance.refused.name == limits.MONTH else RATE_LIMITED
