"""What a project is made from and what of it can be changed: its fields, as the API reads and says
them. What they do together is projects.py's to say."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from console import secret
from console.alert_rules import AlertRules, AlertRulesObject, RotationObject, RotationPolicy
from console.catalogue import Catalogue, Offer, Preset, Presets
from console.fields import Duration, Email, Fields, Instant, Name, OneOf, Whole, text_schema
from console.key_fields import Environment
from console.models import ENVIRONMENTS
from console.plans import Plan, Plans
from console.route_rules import ALLOW, RouteDefault, RouteRule, RouteRules

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
RESERVED = frozenset({"new"})  # /projects/new
SLUG_HELP = "must be 1–40 lowercase letters, digits or hyphens, such as my-service"
SLUG_LENGTH = 40
PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")
PREFIX_WITH_PARTS = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
PREFIX_MAX_LENGTH = 20
DEFAULT_PREFIX = "lk"
KEY_LIMIT_DEFAULT = 20
KEY_LIMIT_MAX = 10_000_000


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise ValueError(SLUG_HELP)
    if text in RESERVED:
        raise ValueError(f"must be another one: {text} is a page of the console")
    return text


Slug = Annotated[
    str,
    AfterValidator(_slug),
    text_schema("my-service", pattern=f"^{SLUG.pattern}$", **{"not": {"enum": sorted(RESERVED)}}),
]
# What a prefix may be depends on the other fields: `_environment_part` says it.
Prefix = Annotated[
    str,
    text_schema("sk", pattern=f"^{PREFIX_WITH_PARTS.pattern}$", maxLength=PREFIX_MAX_LENGTH),
]
KeyFormat = Annotated[str, OneOf(*secret.FORMATS)]
KeyLimit = Annotated[int, Whole(1, KEY_LIMIT_MAX, 20)]


def _environments(wanted: list[str]) -> list[str]:
    if not wanted:
        raise ValueError("must have one at least: keys are made for one of them")
    return [one for one in ENVIRONMENTS if one in wanted]


Environments = Annotated[
    list[Environment], AfterValidator(_environments), Field(json_schema_extra={"minItems": 1})
]

ABOUT_PREFIX = "What new secrets start with; at most 16 letters and digits where they say `live`"
ABOUT_ENVIRONMENT = (
    "Whether new secrets say `live` or `test`: only in base62, after a prefix without `_`. "
    "null: where prefix and format allow it"
)
ABOUT_KEY_LIMIT = "How many live keys at most; null: as many as this installation allows"
ABOUT_CATALOGUE = (
    "At most 100 permissions that the console offers for keys; a key may hold others, too"
)
ABOUT_PRESETS = (
    "At most 20 sets of permissions that the forms fill in at once; without any, the forms make "
    "some by the words of the catalogue"
)
ABOUT_PLANS = (
    "At most 20 plans of the project's own, besides the built-in ones. An edited plan holds for "
    "all of its keys at their next check"
)
ABOUT_ENVIRONMENTS = "Which new keys may have; without `live`, a key that says none is a `test` key"
ABOUT_DEFAULT_EXPIRY = (
    "How long a new key lives for which no end is sent; null: as long as `maximum_lifetime` allows"
)
ABOUT_MAXIMUM_LIFETIME = (
    "How far from now the end of a key may be set, at most 100y; null: as far as one likes, or "
    "never. Keys keep the end that they have"
)
ABOUT_ALERT_EMAIL = "The address of the team: it is told what a key's owner is, of every key"
ABOUT_ROTATION = (
    "After how long a key's secret is due for a new one; `{}`: 90d for live keys and 180d for test "
    "keys; null: none ever is. Keys that are due go on working"
)
ABOUT_ROUTE_RULES = (
    "What requests need that come through a proxy whose address names no permission, by method and "
    "path: the first that covers one decides; at most 100"
)
ABOUT_ROUTE_DEFAULT = "What no rule covers: `allow` lets in any key of the project, `deny` none"
ABOUT_ALERTS = "Of what people are told, and from when on. Only what is sent of it is changed"
# In which of these what the fields say of the environment does not go together.
NOT_TOGETHER: list[Any] = [
    {
        "required": ["key_format", "shows_environment"],
        "properties": {
            "key_format": {"const": secret.HEX32},
            "shows_environment": {"const": True},
        },
    },
    {
        "required": ["prefix", "shows_environment"],
        "properties": {
            "prefix": {"not": {"pattern": f"^{PREFIX.pattern}$"}},
            "shows_environment": {"const": True},
        },
    },
    {
        "required": ["prefix"],
        "properties": {
            "prefix": {"pattern": "^[a-z0-9]{17,}$"},
            "key_format": {"const": secret.BASE62},
            "shows_environment": {"const": None},
        },
    },
]


class ProjectSettings(Fields):
    """The settings that a project is made with and that an edit may change."""

    shows_environment: bool | None = Field(None, description=ABOUT_ENVIRONMENT)
    key_limit: KeyLimit | None = Field(None, description=ABOUT_KEY_LIMIT)
    permission_catalogue: Catalogue = Field([], description=ABOUT_CATALOGUE)
    permission_presets: Presets = Field([], description=ABOUT_PRESETS)
    plans: Plans = Field([], description=ABOUT_PLANS)
    environments: Environments = Field(list(ENVIRONMENTS), description=ABOUT_ENVIRONMENTS)
    default_expiry: Duration | None = Field(None, description=ABOUT_DEFAULT_EXPIRY)
    maximum_lifetime: Duration | None = Field(None, description=ABOUT_MAXIMUM_LIFETIME)
    alert_email: Email | None = Field(None, description=ABOUT_ALERT_EMAIL)
    rotation_policy: RotationPolicy | None = Field(None, description=ABOUT_ROTATION)
    alerts: AlertRules = Field(AlertRules.read({}), description=ABOUT_ALERTS)
    route_rules: RouteRules = Field([], description=ABOUT_ROUTE_RULES)
    route_default: RouteDefault = Field(ALLOW, description=ABOUT_ROUTE_DEFAULT)


class NewProject(ProjectSettings):
    """What a project is made from."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": NOT_TOGETHER}})

    slug: Slug = Field(description="Names the project in addresses and settings; fixed")
    name: Name | None = Field(None, description="Left out: the slug")
    prefix: Prefix = Field(DEFAULT_PREFIX, description=ABOUT_PREFIX)
    key_format: KeyFormat = secret.BASE62


class ProjectChange(ProjectSettings):
    """Only what is sent is changed; prefix and format are those of secrets that are yet to come."""

    slug: str | None = Field(None, description="Cannot change")
    name: Name = ""
    prefix: Prefix = Field("", description=ABOUT_PREFIX)
    key_format: KeyFormat = ""
    archived: bool = Field(
        False,
        description="Whether all of its keys are refused; they work again once it is false. Only "
        "an owner sends it. While it is true, keys can be revoked, deleted and handed over, "
        "members removed, webhooks deleted, and nothing else",
    )


class ProjectFacts(TypedDict):
    """What a change may alter, as events and answers name it."""

    name: str
    prefix: Annotated[str, Field(description="What its secrets start with")]
    key_format: KeyFormat
    shows_environment: Annotated[bool, Field(description="Whether secrets say `live` or `test`")]
    key_limit: Annotated[int | None, Field(description=ABOUT_KEY_LIMIT)]
    permission_catalogue: Annotated[list[Offer], Field(description=ABOUT_CATALOGUE)]
    permission_presets: Annotated[list[Preset], Field(description=ABOUT_PRESETS)]
    plans: Annotated[list[Plan], Field(description=ABOUT_PLANS)]
    environments: Annotated[list[Environment], Field(description=ABOUT_ENVIRONMENTS)]
    default_expiry: Annotated[str | None, Field(description=ABOUT_DEFAULT_EXPIRY)]
    maximum_lifetime: Annotated[str | None, Field(description=ABOUT_MAXIMUM_LIFETIME)]
    alert_email: Annotated[str | None, Field(description=ABOUT_ALERT_EMAIL)]
    rotation_policy: Annotated[RotationObject | None, Field(description=ABOUT_ROTATION)]
    alerts: Annotated[AlertRulesObject, Field(description=ABOUT_ALERTS)]
    route_rules: Annotated[list[RouteRule], Field(description=ABOUT_ROUTE_RULES)]
    route_default: Annotated[RouteDefault, Field(description=ABOUT_ROUTE_DEFAULT)]


class ProjectObject(ProjectFacts):
    """A project and what holds for the keys that are made in it."""

    id: Annotated[str, text_schema("prj_3Kq0cV8nTz5wYb2LmR7s")]
    slug: Annotated[str, text_schema("my-service")]
    archived: Annotated[bool, Field(description="Whether all of its keys are refused")]
    created_at: Instant
