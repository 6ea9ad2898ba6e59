"""A project's own plans: what may be one, which keys may have it, and that it holds at once."""

from typing import Any

import pytest

from console import check, key_import, keys, plans, projects, secret
from console.actor import Actor
from console.check import Verdict
from console.errors import Conflict, Invalid
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey

PARTNER = {"name": "partner", "per_minute": 2, "per_hour": 50}
FREE_TO_ALL = {"name": "open", "per_minute": None, "per_hour": None}


@pytest.fixture
def with_plans(operator: Actor, project: Project, clock: Clock) -> Project:
    return projects.edit("shop", {"plans": [PARTNER, FREE_TO_ALL]}, by=operator)


def ask(text: str) -> Verdict:
    return check.check(check.Request(secret=text, request_id="r"))


def limits_of(verdict: Verdict) -> list[tuple[str, int]]:
    return [(window.name, window.limit) for window in verdict.allowance.windows]


# --- what may be one --------------------------------------------------------------------------


def test_plans_are_set_read_and_recorded(operator: Actor, project: Project) -> None:
    edited = projects.edit("shop", {"plans": [{"name": "partner", "per_hour": 50}]}, by=operator)
    stored = [{"name": "partner", "per_minute": None, "per_hour": 50}]
    assert projects.as_dict(edited)["plans"] == Project.get().plans == stored
    assert Event.get(Event.action == "project.edited").changes == {"plans": [[], stored]}
    created = projects.create({"slug": "tasks", "plans": [PARTNER]}, by=operator)
    assert projects.as_dict(created)["plans"] == [PARTNER]


@pytest.mark.parametrize(
    "given, field",
    [
        ([{"name": "Gold"}], "plans.0.name"),
        ([{"name": ""}], "plans.0.name"),
        ([{"name": "1st"}], "plans.0.name"),
        ([{"name": "a" * 31}], "plans.0.name"),
        ([{"name": "gold\n"}], "plans.0.name"),
        ([{"name": "free"}], "plans.0.name"),
        ([{"name": "enterprise"}], "plans.0.name"),
        ([{}], "plans.0.name"),
        ([{"name": "gold", "per_minute": 0}], "plans.0.per_minute"),
        ([{"name": "gold", "per_hour": True}], "plans.0.per_hour"),
        ([{"name": "gold", "per_day": 5}], "plans.0.per_day"),
        ([PARTNER, PARTNER], "plans"),
        ([{"name": f"plan-{number}"} for number in range(21)], "plans"),
        ({"gold": 5}, "plans"),
        (None, "plans"),
    ],
)
def test_what_is_no_plan_is_refused_by_name(
    operator: Actor, project: Project, given: Any, field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {"plans": given}, by=operator)
    assert list(refusal.value.fields) == [field]
    assert Project.get().plans == []


def test_twenty_are_allowed_and_each_letter_that_a_name_may_have(
    operator: Actor, project: Project
) -> None:
    given = [{"name": f"plan-{number}"} for number in range(19)] + [{"name": "a" * 30}]
    assert len(projects.edit("shop", {"plans": given}, by=operator).plans) == 20


# --- which keys may have it ---------------------------------------------------------------------


def test_a_keys_figures_are_its_plans(with_plans: Project, make_key: MakeKey) -> None:
    key, text = make_key(plan="partner")
    facts = keys.as_dict(key)
    assert facts["plan"] == "partner"
    assert facts["rate_limit"] == {"per_minute": 2, "per_hour": 50}
    assert limits_of(ask(text)) == [("minute", 2), ("hour", 50)]
    key, text = make_key(plan="open")
    assert keys.as_dict(key)["rate_limit"] is None
    assert limits_of(ask(text)) == []


def test_a_plan_is_known_in_its_own_project_alone(
    with_plans: Project, other_project: Project, make_key: MakeKey, operator: Actor
) -> None:
    expected = {"plan": "must be one of unlimited, free, professional, enterprise"}
    elsewhere, _ = make_key(project="other")
    for refused in (
        lambda: make_key(project="other", plan="partner"),
        lambda: keys.edit(elsewhere.id, {"plan": "partner"}, by=operator),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert refusal.value.fields == expected
    here, _ = make_key()
    with pytest.raises(Invalid) as refusal:
        keys.edit(here.id, {"plan": "gold"}, by=operator)
    assert refusal.value.fields == {"plan": f"{expected['plan']}, partner, open"}


def test_an_edit_puts_a_key_on_a_plan_and_takes_it_off(
    with_plans: Project, make_key: MakeKey, operator: Actor
) -> None:
    key, text = make_key(rate_limit={"per_minute": 7})
    keys.edit(key.id, {"plan": "partner"}, by=operator)
    assert limits_of(ask(text)) == [("minute", 2), ("hour", 50)]
    assert Key.get_by_id(key.id).limit_per_minute is None
    facts = keys.as_dict(keys.held(key.id))
    keys.edit(key.id, {"rate_limit": facts["rate_limit"]}, by=operator)
    assert keys.held(key.id).plan == "partner", "what was read may be sent back"
    keys.edit(key.id, {"rate_limit": {"per_minute": 9}}, by=operator)
    assert (keys.held(key.id).plan, limits_of(ask(text))) == ("enterprise", [("minute", 9)])


def test_an_own_plan_takes_no_other_figures(with_plans: Project, make_key: MakeKey) -> None:
    with pytest.raises(Invalid, match="the plan partner has its own"):
        make_key(plan="partner", rate_limit={"per_minute": 9})
    make_key(plan="partner", rate_limit={"per_minute": 2, "per_hour": 50})


def test_an_imported_key_may_have_it(with_plans: Project, operator: Actor) -> None:
    text = "old-secret"
    row = {"name": "Old", "sha256": secret.digest(text), "prefix": "old", "plan": "partner"}
    with pytest.raises(Invalid) as refusal:
        key_import.import_keys({"project": "shop", "keys": [{**row, "plan": "x"}]}, by=operator)
    assert list(refusal.value.fields) == ["keys.0.plan"]
    key_import.import_keys({"project": "shop", "keys": [row]}, by=operator)
    assert limits_of(ask(text)) == [("minute", 2), ("hour", 50)]


# --- what is edited holds at once -----------------------------------------------------------------


def test_an_edited_plan_holds_at_the_next_check(
    with_plans: Project, make_key: MakeKey, operator: Actor
) -> None:
    key, text = make_key(plan="partner")
    assert [ask(text).code for _ in range(3)] == ["VALID", "VALID", "RATE_LIMITED"]
    projects.edit("shop", {"plans": [{**PARTNER, "per_minute": 4}, FREE_TO_ALL]}, by=operator)
    assert [ask(text).code for _ in range(3)] == ["VALID", "VALID", "RATE_LIMITED"]
    assert limits_of(ask(text)) == [("minute", 4), ("hour", 50)]
    assert Key.get_by_id(key.id).updated_at == key.updated_at, "no key was touched"


def test_a_plan_that_keys_are_on_cannot_go(
    with_plans: Project, make_key: MakeKey, operator: Actor
) -> None:
    first, second = make_key(plan="partner")[0], make_key(plan="partner")[0]
    keys.revoke(second.id, by=operator)
    with pytest.raises(Conflict) as refusal:
        projects.edit("shop", {"plans": [FREE_TO_ALL]}, by=operator)
    assert refusal.value.fields == {"plans": "2 keys are on partner: give them another plan first"}
    keys.edit(first.id, {"plan": "free"}, by=operator)
    with pytest.raises(Conflict, match="1 key is on partner"):
        projects.edit("shop", {"plans": []}, by=operator)
    assert plans.users(Project.get()) == {"partner": 1, "open": 0}
    keys.delete(second.id, by=operator)
    assert projects.edit("shop", {"plans": []}, by=operator).plans == []
