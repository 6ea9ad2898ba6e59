"""What a key's settings may be: each field's shape, and the rules between fields.

Both doors read what they were sent through these models; the descriptions are the API's.
"""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from console import addresses, clock, limits, permissions
from console.errors import Invalid
from console.fields import (
    Address,
    Duration,
    Email,
    Fields,
    Instant,
    Name,
    OneOf,
    Text,
    Whole,
    refuse_hidden,
    text_schema,
)
from console.models import ACTIVE, ENVIRONMENTS, LIVE, REVOKED, STATUSES, Key

EXTERNAL_ID_MAX_LENGTH = 255
METADATA_MAX_BYTES = 4_096
METADATA_MAX_DEPTH = 20
LIMIT_MAX = 1_000_000_000
GRACE_MAX_DAYS = 30
RENEWAL_LEAST, RENEWAL_MOST = clock.HOUR, "10y"


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


def _renewal_period(text: str) -> str:
    refuse_period(text)
    return text


def refuse_period(text: str) -> None:
    """Raises ValueError for a period that no key renews itself by."""
    if not RENEWAL_LEAST <= clock.after(0, text) <= clock.after(0, RENEWAL_MOST):
        raise ValueError(f"must be at least 1h, and at most {RENEWAL_MOST}")


Environment = Annotated[str, OneOf(*ENVIRONMENTS)]
# Which there are, the key's project says: see plans.py.
PlanName = Annotated[str, text_schema(*limits.PLANS, pattern=f"^{limits.PLAN_NAME.pattern}$")]
Count = Annotated[int, Whole(1, LIMIT_MAX, 1_000)]
Permission = Annotated[
    str,
    text_schema(
        "tasks:read",
        pattern=f"^(?:{permissions.PATTERN.pattern})$",
        maxLength=permissions.PERMISSION_MAX_LENGTH,
    ),
]
Permissions = Annotated[list[Permission], AfterValidator(permissions.parse)]
Network = Annotated[str, text_schema("10.0.0.0/24", format="ip-network")]
Allowlist = Annotated[list[Network], AfterValidator(addresses.parse_allowlist)]
ExternalId = Annotated[
    str,
    AfterValidator(_external_id),
    text_schema("customer-42", format="text", minLength=1, maxLength=EXTERNAL_ID_MAX_LENGTH),
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_metadata),
    WithJsonSchema({"type": "object", "examples": [{"team": "payments"}]}),
]
RenewalPeriod = Annotated[Duration, AfterValidator(_renewal_period)]


class RateLimit(Fields):
    """A key's own figures; null where there is no limit."""

    per_minute: Count | None = None
    per_hour: Count | None = None


def own_figures(rate_limit: RateLimit | None) -> RateLimit | None:
    """No figure at all is no limit."""
    return rate_limit if rate_limit and (rate_limit.per_minute or rate_limit.per_hour) else None


# Objects in which each of the two says something.
BOTH_EXPIRIES: dict[str, Any] = {
    "required": ["expires_in", "expires_at"],
    "properties": {
        "expires_in": {"not": {"type": "null"}},
        "expires_at": {"not": {"type": "null"}},
    },
}


class KeySettings(Fields):
    """The fields that a key is created with and that an edit may change."""

    model_config = ConfigDict(json_schema_extra={"not": BOTH_EXPIRIES})

    name: Name = ""
    description: Text = ""
    environment: Environment = Field(
        LIVE,
        description="Fixed once the key exists. Left out: live, where the project has such keys",
    )
    permissions: Permissions = Field(
        [], description="At most 100. Latchkey's own can be handed out only by who holds them"
    )
    ip_allowlist: Allowlist = Field(
        [], description="At most 50 addresses or networks; empty: any address may use the key"
    )
    expires_in: Duration | None = None
    expires_at: Instant | None = Field(
        None,
        description="A time to come; null: never. A new key for which neither is sent ends as its "
        "project says",
    )
    plan: PlanName | None = Field(
        None,
        description="Which rate limits hold: unlimited, free, professional, one of the "
        "project's own, or enterprise: own figures",
    )
    rate_limit: Annotated[RateLimit | None, AfterValidator(own_figures)] = Field(
        None, description="The key's own figures; chooses the plan enterprise by itself"
    )
    monthly_quota: Count | None = Field(
        None, description="Requests in a calendar month, UTC; test keys are not counted"
    )
    auto_renew: bool = Field(
        False,
        description="Whether the end moves on by `renewal_period` before it comes, as long as "
        "somebody uses the key. Needs an end",
    )
    renewal_period: RenewalPeriod | None = Field(
        None,
        description="By how much, with `auto_renew`; left out: as long as the key is given to live",
    )
    external_id: ExternalId | None = Field(
        None, description="Your own id, handed to your service with each verdict"
    )
    metadata: Metadata = Field(
        {}, description="Your own object, at most 4,096 bytes as JSON and 20 levels deep"
    )


ProjectSlug = Annotated[
    str | None,
    Field(
        description="The project's slug; may be left out by a key and by who has one project",
        examples=["shop"],
    ),
]


class NewKey(KeySettings):
    """What a key is made from."""

    name: Name
    project: ProjectSlug = None


class KeyChange(KeySettings):
    """Only what is sent is changed."""

    project: str | None = Field(None, description="Fixed: the secret says where it belongs")
    status: Annotated[str, OneOf(ACTIVE, REVOKED)] = ACTIVE
    owner: Email | None = Field(
        None,
        description="Whose it is to be: somebody who can sign in and has a role in the project. "
        "For owners and admins",
    )


class Rotation(Fields):
    """How a key is rotated."""

    grace_period: Duration | None = Field(
        None,
        description="How long the old secret still works, at most 30d; left out: not at all",
        examples=["24h"],
    )


class GraceChange(Fields):
    """How much longer the old secret works. It has to be said: to end it cannot be taken back."""

    grace_period: Duration | None = Field(
        description="From now on, at most 30d; null: it stops at once", examples=["24h"]
    )


class Extension(Fields):
    """Until when keys work: a length from now, or an instant."""

    expires_in: Duration | None = None
    expires_at: Instant | None = None


# --- what the API answers ---------------------------------------------------------------------


class Figures(TypedDict):
    """A key's rate limits; null where there is none."""

    per_minute: int | None
    per_hour: int | None


class KeyFacts(TypedDict):
    """What a change may alter, as events and answers name it."""

    name: str
    description: str
    environment: Environment
    permissions: list[str]
    ip_allowlist: list[str]
    expires_at: Instant | None
    plan: PlanName
    rate_limit: Figures | None
    monthly_quota: int | None
    auto_renew: bool
    renewal_period: str | None
    external_id: str | None
    metadata: dict[str, Any]
    owner: Annotated[str | None, Field(description="The address of the person it belongs to")]


class KeyObject(KeyFacts):
    """A key: every fact, never a secret."""

    id: Annotated[str, text_schema("key_3Kq0cV8nTz5wYb2LmR7s")]
    project: Annotated[str, Field(description="The project's slug")]
    prefix: Annotated[str, Field(description="The secret's first 12 characters")]
    status: Annotated[str, OneOf(*STATUSES)]
    created_at: Instant
    updated_at: Instant
    rotated_at: Instant | None
    rotation_due_at: Annotated[
        Instant | None,
        Field(description="When the secret is due for a new one, by the project's policy"),
    ]
    last_used_at: Instant | None
    last_used_ip: Address | None


SecretText = Annotated[
    str,
    Field(description="The secret, in this one answer only"),
    text_schema("lk_live_0Vb5…"),
]


class KeyWithSecret(KeyObject):
    """A key and, this one time, its secret."""

    key: SecretText


class RotatedKey(KeyWithSecret):
    """A key, its new secret, and until when the old one works (null: it has stopped)."""

    previous_secret_expires_at: Instant | None


class KeyWithGrace(KeyObject):
    """A key, and until when its old secret works (null: it has stopped)."""

    previous_secret_expires_at: Instant | None


class KeyUsage(TypedDict):
    """Requests made with the key, allowed or not; days and months are UTC."""

    requests_today: int
    requests_this_month: int
    requests_total: int


class KeyWithUsage(KeyObject):
    """A key, and how much it is used."""

    usage: KeyUsage


def facts(key: Key) -> KeyFacts:
    """What a change of this key may alter, as it stands."""
    per_minute, per_hour = limits.figures(key)
    return {
        "name": key.name,
        "description": key.description,
        "environment": key.environment,
        "permissions": list(key.permissions),
        "ip_allowlist": list(key.ip_allowlist),
        "expires_at": clock.iso(key.expires_at),
        "plan": key.plan,
        "rate_limit": {"per_minute": per_minute, "per_hour": per_hour}
        if per_minute or per_hour
        else None,
        "monthly_quota": key.monthly_quota,
        "auto_renew": key.auto_renew,
        "renewal_period": key.renewal_period,
        "external_id": key.external_id,
        "metadata": dict(key.metadata),
        "owner": key.owner.email if key.owner else None,
    }


# --- the rules between fields -----------------------------------------------------------------


def expiry(settings: KeySettings | Extension, now: int) -> int | None:
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


def new_end(extension: Extension, now: int) -> int:
    """The end that keys are extended to. Raises Invalid; also where none is said."""
    ends_at = expiry(extension, now)
    if ends_at is None:
        raise Invalid({"expires_in": "is required, or expires_at"})
    return ends_at


def ends_before(key: Key, instant: int) -> bool:
    """Whether the key has an end, and it comes earlier."""
    return key.expires_at is not None and key.expires_at < instant


def _end(field: str, duration: str, now: int) -> int:
    """The instant so much later, in whole seconds: what is shown is exactly what holds, and is
    exactly that much after the instant that is shown as now."""
    try:
        return clock.after(clock.down_to_second(now), duration)
    except ValueError as error:
        raise Invalid({field: str(error)}) from None


def grace_end(rotation: Rotation | GraceChange, now: int) -> int | None:
    """When the old secret stops; None for at once. Raises Invalid past the longest grace."""
    if rotation.grace_period is None:
        return None
    ends = _end("grace_period", rotation.grace_period, now)
    if ends > now + GRACE_MAX_DAYS * clock.DAY:
        raise Invalid({"grace_period": f"must be at most {GRACE_MAX_DAYS}d"})
    return ends
