"""What the doors have in common on the wire: request ids, the client's address, the credential
that it presents, JSON in, and problem+json (RFC 9457) out. No Flask, no query.
"""

import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any, NotRequired
from urllib.parse import quote

import peewee
import pydantic_core
from pydantic import Field
from typing_extensions import TypedDict

from console import addresses, clock, logs
from console.addresses import Network
from console.check import CODES, UNAVAILABLE_RETRY_SECONDS, Verdict
from console.errors import Conflict, Invalid, Refused, TooLarge, Unavailable, UnsupportedType
from console.fields import Instant, OneOf, text_schema
from console.known import Known
from console.limits import MONTH, WINDOW_SECONDS, Allowance
from console.models import ENVIRONMENTS

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 1024 * 1024
# Far below Python's own limit, which what is later done with the value would meet first.
NESTING_MAX = 64
TOO_DEEP = "it is nested too deeply"
REALM = "latchkey"
# In a request's environ, where the server offers it: called with a function that waits, it has an
# answer go out only after that has returned, while the thread that made the answer goes on.
BEFORE_ANSWER = "latchkey.before_answer"
# The same, called with seconds: by so much the server holds the answer back.
HOLD_BACK = "latchkey.hold_back"
EMPTY = "-"
Headers = list[tuple[str, str]]
Environ = Mapping[str, Any]


def request_id() -> str:
    """A new id; ids ascend with time, so that an index of them grows at its end."""
    return f"req_{time.time_ns() // 1_000_000:012x}{random.getrandbits(64):016x}"


def client_address(environ: Environ, trusted: Sequence[Network]) -> str | None:
    """The client's address by X-Forwarded-For, as far as trusted proxies vouch for it."""
    return addresses.client_address(
        environ.get("REMOTE_ADDR"), environ.get("HTTP_X_FORWARDED_FOR", ""), trusted
    )


class TwoKeys(Invalid):
    """Two different credentials in one request."""

    def __init__(self) -> None:
        super().__init__(
            {"X-API-Key": "differs from the key in Authorization: send one key"},
            "Two different keys were sent.",
        )


AUTHORIZATION, X_API_KEY = "authorization", "x-api-key"
KEY_HEADERS = (AUTHORIZATION, X_API_KEY)


def presented(environ: Environ, only: str | None = None) -> str | None:
    """The credential in Authorization: Bearer (RFC 6750) or X-API-Key, or in one of them `only`;
    never the query string.

    Raises TwoKeys when the two differ.
    """
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" and only != X_API_KEY else ""
    header = environ.get("HTTP_X_API_KEY", "").strip() if only != AUTHORIZATION else ""
    if bearer and header and bearer != header:
        raise TwoKeys()
    return bearer or header or None


# --- JSON in --------------------------------------------------------------------------------


def read_json_body(environ: Environ) -> Any:
    """The request's JSON body; {} when there is none.

    Raises UnsupportedType, TooLarge, Invalid: for broken JSON, NaN, repeated names, numbers
    beyond 64 bits, text that is not Unicode.
    """
    body = _read_bytes(environ)
    if not body.strip():
        return {}
    if not _is_json(environ.get("CONTENT_TYPE", "")):
        raise UnsupportedType("Send JSON in UTF-8 with Content-Type: application/json.")
    return parse_json(body)


@lru_cache(maxsize=100)
def _is_json(content_type: str) -> bool:
    kind, *parameters = content_type.replace(" ", "").lower().split(";")
    charsets = [text.strip('"') for name, _, text in (p.partition("=") for p in parameters)
                if name == "charset"]  # fmt: skip
    return kind == "application/json" and not set(charsets) - {"utf-8"}


def _read_bytes(environ: Environ) -> bytes:
    announced = environ.get("CONTENT_LENGTH")
    if not announced and not environ.get("wsgi.input_terminated"):
        return b""
    most = _length(announced) if announced else BODY_MAX_BYTES + 1
    body: bytes = environ["wsgi.input"].read(most)
    if len(body) > BODY_MAX_BYTES:
        raise _too_large()
    return body


def _length(announced: str) -> int:
    """Content-Length in bytes. Raises Invalid, TooLarge."""
    if not announced.isascii() or not announced.isdigit():
        raise Invalid({"Content-Length": "must be a number of bytes"})
    if len(announced) > 20 or int(announced) > BODY_MAX_BYTES:
        raise _too_large()
    return int(announced)


def _too_large() -> TooLarge:
    return TooLarge(f"At most {BODY_MAX_BYTES} bytes are read.")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text (RFC 8259, I-JSON's limits of RFC 7493). Raises Invalid."""
    try:
        value = DECODER.decode(body.decode("utf-8"))
        if b"\\" in body or body.count(b"[") + body.count(b"{") > NESTING_MAX:
            _refuse_unstorable(value)
    except UnicodeDecodeError:
        raise Invalid({"body": "is not UTF-8"}) from None
    except RecursionError:
        raise Invalid({"body": f"is not JSON that can be read: {TOO_DEEP}"}) from None
    except ValueError as error:
        raise Invalid({"body": f"is not JSON that can be read: {error}"}) from None
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{repeated[:60]!r} occurs twice")
    return fields


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _within_64_bits(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError("a number is out of range")
    return int(text)


DECODER = json.JSONDecoder(
    object_pairs_hook=_without_repeats,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_within_64_bits,
)


def _refuse_unstorable(value: Any, depth: int = 0) -> None:
    """NUL and half surrogates are valid in JSON's escapes, and only there, and in no database."""
    if depth > NESTING_MAX:
        raise ValueError(TOO_DEEP)
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string holds the character NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds half of a surrogate pair") from None
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_unstorable(name, depth)
            _refuse_unstorable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item, depth + 1)


# --- answers --------------------------------------------------------------------------------


class Denied(Refused):
    """A verdict that is not valid, as the refusal that a door answers."""

    def __init__(self, verdict: Verdict) -> None:
        lacking = ", ".join(verdict.missing_permissions)
        super().__init__(
            f"This key lacks {lacking}." if lacking else verdict.message,
            code=verdict.code,
            missing_permissions=verdict.missing_permissions,
            retry_after_seconds=verdict.retry_after_seconds,
        )
        self.status = verdict.status
        self.verdict = verdict


def as_refused(error: Exception, request_id: str) -> Refused:
    """What the caller is told of an error; of one that is not a refusal only the log tells more."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, peewee.IntegrityError):
        log.warning("a request met another", exc_info=error, extra=logs.of(request_id))
        return Conflict("What this needs was changed or removed at the same moment; try again.")
    log.error("a request failed", exc_info=error, extra=logs.of(request_id))
    if isinstance(error, peewee.DataError):
        return Refused("The request holds a character that cannot be stored.")
    if isinstance(error, peewee.PeeweeException | OSError):
        return Unavailable(
            "The database cannot be used at the moment; try again shortly.",
            retry_after_seconds=UNAVAILABLE_RETRY_SECONDS,
        )
    broken = Refused("Something went wrong here; it is in the log.", code="INTERNAL")
    broken.status = 500
    return broken


class FieldProblem(TypedDict):
    """One field at fault, and what to write instead."""

    field: Annotated[str, text_schema("name")]
    message: Annotated[str, text_schema("is required")]


class Problem(TypedDict):
    """Why a request was not carried out (RFC 9457)."""

    type: Annotated[str, text_schema("about:blank")]
    title: Annotated[str, text_schema("Bad Request")]
    status: int
    code: Annotated[str, text_schema("INVALID")]
    detail: Annotated[str, text_schema("name: is required")]
    request_id: Annotated[str, text_schema("req_019a9f5c3e7d4c1f2a3b4c5d6e7f")]
    errors: NotRequired[list[FieldProblem]]
    missing_permissions: NotRequired[list[str]]


def problem(refused: Refused, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and problem+json body of a refusal; a key's limits are told as always."""
    content: Problem = {
        "type": "about:blank",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "code": refused.code,
        "detail": refused.message,
        "request_id": request_id,
    }
    if refused.fields:
        content["errors"] = [
            {"field": name, "message": why} for name, why in refused.fields.items()
        ]
    if refused.missing_permissions:
        content["missing_permissions"] = list(refused.missing_permissions)
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Cache-Control", "no-store"),
        ("X-Request-Id", request_id),
    ]
    challenge = _challenge(refused)
    if challenge:
        headers.append(("WWW-Authenticate", challenge))
    if refused.allow:
        headers.append(("Allow", ", ".join(refused.allow)))
    if refused.retry_after_seconds is not None:
        headers.append(("Retry-After", str(refused.retry_after_seconds)))
    if isinstance(refused, Denied):
        headers += rate_headers(refused.verdict.allowance, refused.verdict.at)
    # ASCII alone, so that it also fits into a header.
    return refused.status, headers, json.dumps(content, separators=(",", ":")).encode()


def _challenge(refused: Refused) -> str | None:
    """WWW-Authenticate by RFC 6750: no error code where no credential was sent."""
    realm = f'Bearer realm="{REALM}"'
    if refused.status == 401:
        if refused.code == "API_KEY_MISSING":
            return realm
        return f'{realm}, error="invalid_token", error_description="{refused.code}"'
    if isinstance(refused, TwoKeys):
        return f'{realm}, error="invalid_request"'
    if refused.missing_permissions:
        scope = " ".join(refused.missing_permissions)
        return f'{realm}, error="insufficient_scope", scope="{scope}"'
    return None


def rate_headers(allowance: Allowance, at: int) -> Headers:
    """X-RateLimit-* and the IETF draft's RateLimit fields; none for a key without limits."""
    shown = allowance.shown
    if shown is None:
        return []
    headers = [
        ("X-RateLimit-Limit", str(shown.limit)),
        ("X-RateLimit-Remaining", str(shown.remaining)),
        ("X-RateLimit-Reset", str(shown.reset_at // 1000)),
    ]
    rates = [window for window in allowance.windows if window.name != MONTH]
    if not rates:  # a monthly quota alone: those two are of rates
        return headers
    policy = ", ".join(f'"{w.name}";q={w.limit};w={WINDOW_SECONDS[w.name]}' for w in rates)
    state = ", ".join(
        f'"{w.name}";r={w.remaining};t={max(0, -(-(w.reset_at - at) // 1000))}' for w in rates
    )
    return [*headers, ("RateLimit-Policy", policy), ("RateLimit", state)]


def expiry_header(verdict: Verdict) -> Headers:
    """When the key that was presented ends (RFC 3339), `-` where it never does; none for a key that
    is not known."""
    if verdict.key is None:
        return []
    return [("X-Key-Expires", _end_of(verdict.key))]


def _end_of(key: Known) -> str:
    return clock.iso(key.expires_at) or EMPTY


def hold_back(environ: Environ, refused: Refused) -> None:
    """Has the server hold the answer back, where the refusal asks for it; no thread waits."""
    if isinstance(refused, Denied) and refused.verdict.delay_seconds:
        environ.get(HOLD_BACK, _at_once)(refused.verdict.delay_seconds)


def _at_once(seconds: float) -> None:
    """A server that cannot hold an answer back sends it."""


IDENTITY = (
    "X-Key-Id", "X-Key-Name", "X-Key-Project", "X-Key-Environment", "X-Key-Owner",
    "X-Key-Permissions", "X-Key-External-Id", "X-Key-Expires", "X-Request-Id",
)  # fmt: skip


def nobodys_headers(request_id: str) -> Headers:
    """The same for a request that needs no key."""
    return [*((name, EMPTY) for name in IDENTITY[:-1]), (IDENTITY[-1], request_id)]


def identity_headers(verdict: Verdict) -> Headers:
    """Who is calling, for the service behind a proxy: always all of them, `-` where empty."""
    key = verdict.key
    if key is None:
        return []
    said = (
        key.id,
        _quoted(key.name, ""),
        key.project,
        key.environment,
        _quoted(key.owner or "", "@+") or EMPTY,
        " ".join(key.permissions) or EMPTY,
        _quoted(key.external_id or "", "@+:/") or EMPTY,
        _end_of(key),
        verdict.request_id,
    )
    return list(zip(IDENTITY, said, strict=True))


@lru_cache(maxsize=10_000)
def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe)


class VerifiedKey(TypedDict):
    """What a service is told of a key that was checked."""

    id: str
    name: str
    prefix: str
    project: str
    environment: Annotated[str, OneOf(*ENVIRONMENTS)]
    owner: str | None
    permissions: list[str]
    external_id: str | None
    metadata: dict[str, Any]
    expires_at: Instant | None


class LimitLeft(TypedDict):
    """What is left of the limit that matters most."""

    limit: int
    remaining: int
    reset: Annotated[int, Field(description="Epoch seconds")]


class StepObject(TypedDict):
    """One rule, and whether the request passes it."""

    check: str
    passed: bool
    detail: str


class VerdictObject(TypedDict):
    """Whether a key is good for a request, and if not, why."""

    valid: bool
    code: Annotated[str, OneOf(*CODES)]
    status: Annotated[int, Field(description="The status to answer the client with")]
    request_id: Annotated[str, Field(description="Of the client's request; an outcome names it")]
    key: VerifiedKey | None
    missing_permissions: list[str]
    rate_limit: LimitLeft | None
    checks: NotRequired[Annotated[list[StepObject], Field(description="With `dry_run` alone")]]


def verdict_json(verdict: Verdict) -> VerdictObject:
    shown, key = verdict.allowance.shown, verdict.key
    return {
        "valid": verdict.is_valid,
        "code": verdict.code,
        "status": verdict.status,
        "request_id": verdict.request_id,
        "key": None
        if key is None
        else {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "project": key.project,
            "environment": key.environment,
            "owner": key.owner,
            "permissions": key.permissions,
            "external_id": key.external_id,
            "metadata": key.metadata,
            "expires_at": clock.iso(key.expires_at),
        },
        "missing_permissions": list(verdict.missing_permissions),
        "rate_limit": None
        if shown is None
        else {
            "limit": shown.limit,
            "remaining": shown.remaining,
            "reset": shown.reset_at // 1000,
        },
    }


def to_json(content: Any) -> bytes:
    return pydantic_core.to_json(content)
