"""What a key's settings may be: each field's shape, and the rules between fields.

Both doors read what they were sent through these models; the descriptions are the API's.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from console import addresses, clock, limits
from console.errors import Invalid
from console.fields import Fields, Name, Text, refuse_hidden
from console.models import ACTIVE, ENVIRONMENTS, LIVE, REVOKED, Key
from console.permissions import parse as parse_permissions

EXTERNAL_ID_MAX_LENGTH = 255
METADATA_MAX_BYTES = 4_096
METADATA_MAX_DEPTH = 20
LIMIT_MAX = 1_000_000_000
GRACE_MAX_DAYS = 30


def parse_environment(text: str) -> str:
    """`live` or `test`. Raises ValueError."""
    if text not in ENVIRONMENTS:
        raise ValueError(f"must be {' or '.join(ENVIRONMENTS)}")
    return text


def _status(text: str) -> str:
    if text not in (ACTIVE, REVOKED):
        raise ValueError(f"must be {ACTIVE} or {REVOKED}")
    return text


def _external_id(text: str) -> str:
    if not 0 < len(text) <= EXTERNAL_ID_MAX_LENGTH:
        raise ValueError(f"must have 1 to {EXTERNAL_ID_MAX_LENGTH} characters")
    refuse_hidden(text)
    return text


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    # Before all else: everything that writes JSON recurses.
    if _is_deeper(value, METADATA_MAX_DEPTH):
        raise ValueError(f"must be at most {METADATA_MAX_DEPTH} levels deep")
    if len(json.dumps(value, ensure_ascii=False).encode()) > METADATA_MAX_BYTES:
        raise ValueError(f"must take at most {METADATA_MAX_BYTES} bytes as JSON")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def _plan(text: str) -> str:
    if text not in limits.PLANS:
        raise ValueError(f"must be one of {', '.join(limits.PLANS)}")
    return text


def _instant(text: str) -> str:
    clock.parse(text)
    return text


def _duration(text: str) -> str:
    clock.after(0, text)
    return text


def _whole(number: int) -> int:
    if not 1 <= number <= LIMIT_MAX:
        raise ValueError(f"must be a whole number from 1 to {LIMIT_MAX}")
    return number


def _renewal(wanted: bool) -> bool:
    if wanted:
        raise ValueError("must be false: this version does not renew keys yet")
    return wanted


Environment = Annotated[str, AfterValidator(parse_environment)]
Count = Annotated[int, AfterValidator(_whole)]
Duration = Annotated[str, AfterValidator(_duration)]


class RateLimit(Fields):
    """A key's own figures; null where there is no limit."""

    per_minute: Count | None = None
    per_hour: Count | None = None


def _figures(rate_limit: RateLimit | None) -> RateLimit | None:
    """No figure at all is no limit."""
    return rate_limit if rate_limit and (rate_limit.per_minute or rate_limit.per_hour) else None


class KeySettings(Fields):
    """The fields that a key is created with and that an edit may change."""

    project: str | None = Field(None, description="The project's slug")
    description: Text = ""
    environment: Environment = LIVE
    permissions: Annotated[list[str], AfterValidator(parse_permissions)] = []
    ip_allowlist: Annotated[list[str], AfterValidator(addresses.parse_allowlist)] = []
    expires_in: Duration | None = None
    expires_at: Annotated[str, AfterValidator(_instant)] | None = None
    plan: Annotated[str, AfterValidator(_plan)] | None = None
    rate_limit: Annotated[RateLimit | None, AfterValidator(_figures)] = None
    monthly_quota: Count | None = None
    auto_renew: Annotated[bool, AfterValidator(_renewal)] = False
    external_id: Annotated[str, AfterValidator(_external_id)] | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_metadata)] = {}

    def sent(self, field: str) -> bool:
        return field in self.model_fields_set


class NewKey(KeySettings):
    """`POST /api-keys`."""

    name: Name


class KeyChange(KeySettings):
    """`PATCH /api-keys/{id}`: only what is sent is changed."""

    name: Name = ""
    status: Annotated[str, AfterValidator(_status)] = ACTIVE


class Rotation(Fields):
    """`POST /api-keys/{id}/rotate`."""

    grace_period: Duration | None = None


def expiry(settings: KeySettings, now: int) -> int | None:
    """When a key so set ends, in whole seconds; None for never. Raises Invalid when in the past."""
    if settings.expires_in is not None and settings.expires_at is not None:
        raise Invalid({"expires_at": "and expires_in say one thing in two ways: send one"})
    if settings.expires_in is not None:
        return _end("expires_in", settings.expires_in, now)
    if settings.expires_at is None:
        return None
    ends = clock.up_to_second(clock.parse(settings.expires_at))
    if ends <= now:
        raise Invalid({"expires_at": "must be in the future; to stop a key now, revoke it"})
    return ends


def _end(field: str, duration: str, now: int) -> int:
    """The instant so much later, in whole seconds: what is shown is exactly what holds, and is
    exactly that much after the instant that is shown as now."""
    try:
        return clock.after(clock.down_to_second(now), duration)
    except ValueError as error:
        raise Invalid({field: str(error)}) from None


def grace_end(rotation: Rotation, now: int) -> int | None:
    """When the old secret stops; None for at once. Raises Invalid past the longest grace."""
    if rotation.grace_period is None:
        return None
    ends = _end("grace_period", rotation.grace_period, now)
    if ends > now + GRACE_MAX_DAYS * clock.DAY:
        raise Invalid({"grace_period": f"must be at most {GRACE_MAX_DAYS}d"})
    return ends


def plan_columns(settings: KeySettings, key: Key | None = None) -> dict[str, Any]:
    """The columns that `plan` and `rate_limit` set on a new key, or change on this one.

    Own figures belong to the plan enterprise, which they choose by themselves. Raises Invalid.
    """
    figures = settings.rate_limit
    if settings.plan is None:
        if not settings.sent("rate_limit"):
            return {} if key else _columns(limits.UNLIMITED, None)
        # A plan's figures, read and sent back, do not make them the key's own.
        if key and figures and (figures.per_minute, figures.per_hour) == limits.figures(key):
            return {}
    if not settings.sent("rate_limit") and key is not None:
        own = RateLimit(per_minute=key.limit_per_minute, per_hour=key.limit_per_hour)
        figures = _figures(own)
    plan = settings.plan or (limits.ENTERPRISE if figures else limits.UNLIMITED)
    if plan == limits.ENTERPRISE:
        if figures is None:
            raise Invalid({"rate_limit": "the plan enterprise needs per_minute or per_hour"})
        return _columns(plan, figures)
    given = (figures.per_minute, figures.per_hour) if figures else None
    if settings.sent("rate_limit") and given not in (None, limits.PLANS[plan]):
        raise Invalid(
            {"rate_limit": f"the plan {plan} has its own; for other figures send plan enterprise"}
        )
    return _columns(plan, None)


def _columns(plan: str, figures: RateLimit | None) -> dict[str, Any]:
    return {
        "plan": plan,
        "limit_per_minute": figures.per_minute if figures else None,
        "limit_per_hour": figures.per_hour if figures else None,
    }
