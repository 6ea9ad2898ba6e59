"""Every refusal that a user can meet: a code, an HTTP status, a sentence, and the fields at fault.

The domain raises them; each door turns them into its own answer (RFC 9457 under /api and
/forward-auth, a page elsewhere).
"""

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not carried out. `fields` maps a field's name to what to write instead."""

    status = 400
    code = "INVALID"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fields: Mapping[str, str] | None = None,
        missing_permissions: tuple[str, ...] = (),
        retry_after_seconds: int | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.fields = dict(fields or {})
        self.missing_permissions = missing_permissions
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow


class Invalid(Refused):
    """400: the input breaks a rule; `fields` says which and how to mend it."""

    def __init__(self, fields: Mapping[str, str], message: str | None = None) -> None:
        super().__init__(
            message or "; ".join(f"{name}: {why}" for name, why in fields.items()), fields=fields
        )


class Unauthenticated(Refused):
    """401: no credential, or one that does not hold. The code says which (interface §4)."""

    status, code = 401, "API_KEY_MISSING"


class Forbidden(Refused):
    """403: known, but not allowed to do this."""

    status, code = 403, "FORBIDDEN"


class NotFresh(Forbidden):
    """403: allowed, once the person has shown again that they are there."""

    code = "CONFIRMATION_REQUIRED"


class Unknown(Refused):
    """404: not there, or not yours to see; the two are one answer."""

    status, code = 404, "NOT_FOUND"


class MethodNotAllowed(Refused):
    """405: the address exists, this method on it does not; `allow` names those that do."""

    status, code = 405, "METHOD_NOT_ALLOWED"


class Conflict(Refused):
    """409: right in itself, but not in the present state."""

    status, code = 409, "CONFLICT"


class TooLarge(Refused):
    """413: more bytes than are read."""

    status, code = 413, "TOO_LARGE"


class UnsupportedType(Refused):
    """415: a body that is not JSON."""

    status, code = 415, "UNSUPPORTED_TYPE"


class Mismatch(Refused):
    """422: an Idempotency-Key that came with another request before."""

    status, code = 422, "IDEMPOTENCY_MISMATCH"


class Limited(Refused):
    """429: try again later; `retry_after_seconds` says when."""

    status, code = 429, "RATE_LIMITED"


class Unavailable(Refused):
    """503: the database cannot be read or written now."""

    status, code = 503, "UNAVAILABLE"


BY_STATUS: dict[int, type[Refused]] = {
    kind.status: kind
    for kind in (
        Refused, Unauthenticated, Forbidden, Unknown, MethodNotAllowed, Conflict, TooLarge,
        UnsupportedType, Mismatch, Limited, Unavailable,
    )
}  # fmt: skip
