"""A project's own plans: rate limits under a name that its keys may have besides the built-in ones.

A key has the name alone. Its figures are the project's present ones, so a plan that is edited holds
for all of its keys at their next check.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import limits
from console.errors import Conflict, Invalid
from console.fields import Fields
from console.key_fields import Count, PlanName
from console.limits import Figures
from console.models import Key, Project

PLANS_MAX = 20
NAME_HELP = (
    "must begin with a lowercase letter and go on with letters, digits or hyphens, such as partner,"
    " at most 30 in all"
)


def _name(text: str) -> str:
    if not limits.PLAN_NAME.fullmatch(text):
        raise ValueError(NAME_HELP)
    if text in limits.PLANS:
        raise ValueError(f"must be another name: {text} is built in")
    return text


class NewPlan(Fields):
    """A plan that keys of this project may have; a figure of null is no limit."""

    name: Annotated[PlanName, AfterValidator(_name)]
    per_minute: Count | None = None
    per_hour: Count | None = None


class Plan(TypedDict):
    """A plan that keys of this project may have; a figure of null is no limit."""

    name: str
    per_minute: int | None
    per_hour: int | None


def _without_repeats(plans: list[NewPlan]) -> list[NewPlan]:
    names = [plan.name for plan in plans]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
    return plans


Plans = Annotated[list[NewPlan], Field(max_length=PLANS_MAX), AfterValidator(_without_repeats)]


def stored(plans: Iterable[NewPlan]) -> list[Plan]:
    """The plans as the project keeps them."""
    return [
        {"name": plan.name, "per_minute": plan.per_minute, "per_hour": plan.per_hour}
        for plan in plans
    ]


def offered(project: Project) -> dict[str, Figures]:
    """Every plan that a key of this project may have: its figures per minute and per hour."""
    own = {one["name"]: (one["per_minute"], one["per_hour"]) for one in project.plans}
    return {**limits.PLANS, **own}


def refuse_unknown(name: str, project: Project) -> None:
    """Raises Invalid where no key of this project may have such a plan."""
    names = offered(project)
    if name not in names:
        raise Invalid({"plan": f"must be one of {', '.join(names)}"})


def refuse_removal(before: Sequence[Plan], after: Sequence[Plan], project: Project) -> None:
    """Raises Conflict where keys are on a plan that would be gone. The project is held."""
    gone = {plan["name"] for plan in before} - {plan["name"] for plan in after}
    told = [
        f"{_keys(count)} on {name}" for name in sorted(gone) if (count := on_plan(project, name))
    ]
    if told:
        words = f"{', '.join(told)}: give them another plan first"
        raise Conflict(f"A plan that keys are on cannot go. {words}.", fields={"plans": words})


def on_plan(project: Project, name: str) -> int:
    """How many of the project's keys are on this plan, revoked and expired ones included."""
    return int(Key.select().where(Key.project == project, Key.plan == name).count())


def _keys(count: int) -> str:
    return "1 key is" if count == 1 else f"{count} keys are"


def users(project: Project) -> dict[str, int]:
    """How many keys are on each of the project's own plans."""
    return {one["name"]: on_plan(project, one["name"]) for one in project.plans}
