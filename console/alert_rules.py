"""Of what a project's people are told, and from when on: the kinds of alerts, their thresholds, and
after how long a secret is due for a new one. Looks nothing up and tells nobody."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import clock
from console.fields import Duration, Fields, OneOf, Whole
from console.models import LIVE, TEST, Key, Project

EXPIRING, EXPIRED_NOW = "expiring", "expired"
RENEWAL, RENEWAL_STOPPED = "renewal", "renewal_stopped"
ROTATION_DUE, UNUSED = "rotation_due", "unused"
NEW_COUNTRY, NEW_NETWORK = "new_country", "new_network"
REFUSALS, LIMIT_NEAR, LIMIT_REACHED = "refusals", "limit_near", "limit_reached"
OLD_SECRET, GUESSING = "old_secret", "guessing"

# Those of a project, which it may turn off; rotation reminders have a setting of their own.
OF_PROJECT = (
    EXPIRING, EXPIRED_NOW, RENEWAL, RENEWAL_STOPPED, ROTATION_DUE, UNUSED, NEW_COUNTRY,
    NEW_NETWORK, REFUSALS, LIMIT_NEAR, LIMIT_REACHED, OLD_SECRET,
)  # fmt: skip
KINDS = (*OF_PROJECT, GUESSING)

LONGEST = "10y"
# Unknown or misshapen keys that one address may present within an hour before it is told.
GUESSES_PER_HOUR = 100


def _length(text: str) -> str:
    if clock.after(0, text) > clock.after(0, LONGEST):
        raise ValueError(f"must be at most {LONGEST}")
    return text


def _days(text: str) -> str:
    if clock.after(0, text) < clock.DAY:
        raise ValueError("must be at least 1d")
    return text


Length = Annotated[Duration, AfterValidator(_length)]
Days = Annotated[Length, AfterValidator(_days)]
Off = Annotated[
    list[Annotated[str, OneOf(*OF_PROJECT)]], AfterValidator(lambda names: sorted(set(names)))
]


class AlertRules(Fields):
    """When a project's people are told something. Only what is sent is changed."""

    off: Off = Field([], description="The kinds of alerts that are not raised")
    learning_period: Length = Field(
        "7d",
        description="How long a key's countries and networks are learned before a new one is told",
    )
    refusals_per_hour: Annotated[int, Whole(1, 1_000_000)] = Field(
        50, description="So many refusals of one key within an hour are a burst"
    )
    limit_percent: Annotated[int, Whole(1, 99)] = Field(
        80, description="So much of a rate limit or quota used is told; all of it always"
    )
    unused_after: Days = Field(
        "90d",
        description="A key without a request for so long is told, and does not renew itself",
    )


class RotationPolicy(Fields):
    """After how long a key's secret is due for a new one; null: never."""

    live: Days | None = Field("90d", description="Of live keys")
    test: Days | None = Field("180d", description="Of test keys")


class AlertRulesObject(TypedDict):
    """When a project's people are told something."""

    off: list[Annotated[str, OneOf(*OF_PROJECT)]]
    learning_period: str
    refusals_per_hour: int
    limit_percent: int
    unused_after: str


class RotationObject(TypedDict):
    """After how long a key's secret is due for a new one; null: never."""

    live: str | None
    test: str | None


def of(project: Project) -> AlertRules:
    """The project's rules: what it has set, the rest by default."""
    return AlertRules.model_construct(**{**DEFAULTS, **project.alerts})


def as_dict(project: Project) -> AlertRulesObject:
    """The project's rules, as the API says them."""
    return {**DEFAULTS, **project.alerts}  # type: ignore[typeddict-item]


def changed(project: Project, change: AlertRules) -> dict[str, Any]:
    """What the project keeps after such a change: all rules, as they then are."""
    return {**as_dict(project), **change.model_dump(exclude_unset=True)}


def policy_as_dict(policy: RotationPolicy | None) -> dict[str, str | None] | None:
    """The policy as the project keeps it; None where no key is ever due."""
    if policy is None or not (policy.live or policy.test):
        return None
    return {LIVE: policy.live, TEST: policy.test}


def rotation_due_at(key: Key) -> int | None:
    """When the key's secret is due for a new one, by its project's policy; None: it never is."""
    length = (key.project.rotation_policy or {}).get(key.environment)
    return clock.after(key.rotated_at or key.created_at, length) if length else None


def unused_since(key: Key) -> int:
    """When the key was last used; of one that never was, when it was made."""
    return key.last_used_at or key.created_at


def is_unused(key: Key, now: int) -> bool:
    """Whether nobody has used the key for as long as its project calls unused."""
    return clock.after(unused_since(key), of(key.project).unused_after) <= now


DEFAULTS: Mapping[str, Any] = AlertRules.read({}).model_dump()
