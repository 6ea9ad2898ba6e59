"""A project's catalogue of permissions: what may be in it, and what a form offers from it."""

from typing import Any

import pytest

from console import catalogue, projects
from console.actor import Actor
from console.catalogue import OWN
from console.errors import Forbidden, Invalid
from console.models import Event, Project
from tests.conftest import MakeKey, add_person

TASKS = [
    {"name": "tasks:read", "description": "View tasks"},
    {"name": "tasks:write", "description": "Add and change tasks"},
    {"name": "tasks:delete", "description": "Remove tasks for good"},
]


def with_catalogue(by: Actor, *names: str) -> Project:
    entries = [{"name": name} for name in names]
    return projects.edit("shop", {"permission_catalogue": entries}, by=by)


def presets(project: Project, by: Actor) -> dict[str, list[str]]:
    found = catalogue.presets(project, by=by)
    return {preset["name"]: preset["permissions"] for preset in found}


def names(offers: list[catalogue.Offer]) -> list[str]:
    return [offer["name"] for offer in offers]


# --- what may be in it ------------------------------------------------------------------------


def test_a_catalogue_is_set_read_and_recorded(operator: Actor) -> None:
    project = projects.create({"slug": "tasks", "permission_catalogue": TASKS[:1]}, by=operator)
    assert projects.as_dict(project)["permission_catalogue"] == TASKS[:1]
    changed = projects.edit("tasks", {"permission_catalogue": TASKS}, by=operator)
    assert Project.get(Project.slug == "tasks").permission_catalogue == TASKS
    assert projects.as_dict(changed)["permission_catalogue"] == TASKS
    created, edited = Event.select().order_by(Event.id)
    assert created.changes["permission_catalogue"] == [None, TASKS[:1]]
    assert edited.changes == {"permission_catalogue": [TASKS[:1], TASKS]}


def test_another_change_leaves_the_catalogue(operator: Actor, project: Project) -> None:
    projects.edit("shop", {"permission_catalogue": TASKS}, by=operator)
    assert projects.edit("shop", {"name": "The Shop"}, by=operator).permission_catalogue == TASKS
    assert projects.edit("shop", {"permission_catalogue": []}, by=operator) is not None
    assert Project.get().permission_catalogue == []


def test_a_description_may_be_left_out(operator: Actor, project: Project) -> None:
    found = with_catalogue(operator, "tasks:read").permission_catalogue
    assert found == [{"name": "tasks:read", "description": ""}]


@pytest.mark.parametrize(
    ("entries", "field", "words"),
    [
        ([{"name": "tasks read"}], "0.name", "must look like tasks:read"),
        ([{"name": ""}], "0.name", "must look like"),
        ([{"description": "View tasks"}], "0.name", "is required"),
        ([*TASKS, {"name": "tasks:read"}], "", "'tasks:read' is there twice"),
        ([{"name": "a:b", "description": "x" * 201}], "0.description", "at most 200"),
        ([{"name": "a:b", "description": "one\ntwo"}], "0.description", "one line"),
        ([{"name": "a:b", "description": "\u202eevil"}], "0.description", "U+202E"),
        ([{"name": "a:b", "words": "x"}], "0.words", "is not a field"),
        ([{"name": f"a:{number}"} for number in range(101)], "", "at most 100 are allowed"),
        (["tasks:read"], "0", "must be an object"),
        ({"tasks:read": "View tasks"}, "", "must be a list"),
        (None, "", "must be a list"),
    ],
)
def test_what_is_at_fault_is_named(
    operator: Actor, project: Project, entries: Any, field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {"permission_catalogue": entries}, by=operator)
    ((name, why),) = refusal.value.fields.items()
    assert name == f"permission_catalogue.{field}".rstrip(".")
    assert words in why
    assert Project.get().permission_catalogue == []


def test_a_member_does_not_set_it(member: Actor) -> None:
    with pytest.raises(Forbidden):
        projects.edit("shop", {"permission_catalogue": TASKS}, by=member)


# --- presets ----------------------------------------------------------------------------------


def test_presets_follow_the_words_of_the_catalogue(owner: Actor) -> None:
    project = with_catalogue(
        owner, "tasks:read", "tasks:list", "tasks:write", "tasks:delete", "tasks:admin",
        "team:admin:read",
    )  # fmt: skip
    assert presets(project, owner) == {
        "Read-only": ["tasks:read", "tasks:list", "team:admin:read"],
        "Read and write": ["tasks:read", "tasks:list", "tasks:write"],
        "Full access": [
            "tasks:read", "tasks:list", "tasks:write", "tasks:delete", "tasks:admin",
            "team:admin:read",
        ],
    }  # fmt: skip


def test_full_access_says_nothing_twice(owner: Actor) -> None:
    project = with_catalogue(owner, "tasks:read", "tasks:*", "tasks:old:read", "users:read")
    assert presets(project, owner)["Full access"] == ["tasks:*", "users:read"]


def test_no_preset_opens_latchkey_itself(owner: Actor) -> None:
    project = with_catalogue(owner, "tasks:read", "keys:read", "keys:*", "admin:*", "*")
    for found in presets(project, owner).values():
        assert found == ["tasks:read"]


def test_a_preset_of_nothing_is_left_out(owner: Actor) -> None:
    assert list(presets(with_catalogue(owner, "tasks:write"), owner)) == [
        "Read and write",
        "Full access",
    ]


def test_without_a_catalogue_the_projects_name_stands_for_its_subject(
    owner: Actor, project: Project
) -> None:
    assert presets(project, owner) == {
        "Read-only": ["shop:read"],
        "Read and write": ["shop:read", "shop:write"],
        "Full access": ["shop:*"],
    }


def test_without_a_catalogue_keys_lend_their_words(
    owner: Actor, project: Project, make_key: MakeKey
) -> None:
    make_key(permissions=["tasks:read", "audit:read", "*"])
    make_key(permissions=["mail:send"])
    assert presets(project, owner) == {
        "Read-only": ["mail:read", "tasks:read"],
        "Read and write": ["mail:read", "mail:write", "tasks:read", "tasks:write", "mail:send"],
        "Full access": ["mail:*", "tasks:*"],
    }


def test_a_member_learns_nothing_of_others_keys(
    member: Actor, project: Project, make_key: MakeKey
) -> None:
    make_key(permissions=["hidden:read"])
    make_key(permissions=["mine:read"], by=member)
    assert presets(project, member)["Read-only"] == ["mine:read"]
    assert not [name for name in names(catalogue.offered(project, by=member)) if "hidden" in name]


def test_a_project_named_like_latchkeys_own_words_offers_none_of_them(operator: Actor) -> None:
    project = projects.create({"slug": "keys"}, by=operator)
    assert presets(project, operator) == {}


PRESETS = [
    {"name": "Reader", "permissions": ["tasks:read"]},
    {"name": "Gateway", "permissions": ["tasks:read", "keys:verify"]},
    {"name": "Operator", "permissions": ["tasks:*", "keys:manage"]},
]


def test_a_projects_own_presets_take_the_place_of_the_others(
    operator: Actor, project: Project
) -> None:
    sent = {"permission_catalogue": TASKS, "permission_presets": PRESETS}
    found = projects.edit("shop", sent, by=operator)
    assert presets(found, operator) == {one["name"]: one["permissions"] for one in PRESETS}
    assert projects.as_dict(Project.get())["permission_presets"] == PRESETS
    assert Event.select().order_by(Event.id.desc()).get().changes["permission_presets"] == [
        [], PRESETS]  # fmt: skip
    back = projects.edit("shop", {"permission_presets": []}, by=operator)
    assert "Read-only" in presets(back, operator)


def test_a_preset_is_offered_to_whoever_may_hand_out_all_of_it(
    operator: Actor, member: Actor
) -> None:
    project = projects.edit("shop", {"permission_presets": PRESETS}, by=operator)
    assert list(presets(project, member)) == ["Reader", "Gateway"]


@pytest.mark.parametrize(
    ("entries", "field", "words"),
    [
        ([{"name": "A", "permissions": ["tasks"]}], "0.permissions", "must look like tasks:read"),
        ([{"name": "A", "permissions": []}], "0.permissions", "must have one at least"),
        ([{"name": "A"}], "0.permissions", "is required"),
        ([{"name": " ", "permissions": ["a:b"]}], "0.name", "must not be empty"),
        ([PRESETS[0], PRESETS[0]], "", "'Reader' is there twice"),
        ([{"name": f"P{n}", "permissions": ["a:b"]} for n in range(21)], "", "at most 20"),
        (None, "", "must be a list"),
    ],
)
def test_what_is_at_fault_in_a_preset_is_named(
    operator: Actor, project: Project, entries: Any, field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {"permission_presets": entries}, by=operator)
    ((name, why),) = refusal.value.fields.items()
    assert name == f"permission_presets.{field}".rstrip(".")
    assert words in why
    assert Project.get().permission_presets == []


# --- what is offered --------------------------------------------------------------------------


def test_the_catalogue_is_offered_as_far_as_the_actor_may_hand_it_out(
    owner: Actor, member: Actor
) -> None:
    project = with_catalogue(owner, "tasks:read", "keys:write", "keys:verify")
    assert names(catalogue.offered(project, by=owner)) == [
        "tasks:read",
        "keys:write",
        "keys:verify",
    ]
    assert names(catalogue.offered(project, by=member)) == ["tasks:read", "keys:verify"]


def test_latchkeys_own_are_offered_as_far_as_the_actor_may_hand_them_out(
    owner: Actor, member: Actor, viewer: Actor, project: Project
) -> None:
    assert names(catalogue.own_offered(project, by=owner)) == list(OWN)
    assert names(catalogue.own_offered(project, by=member)) == ["keys:verify"]
    assert "keys:write" not in names(catalogue.own_offered(project, by=viewer))
    assert names(catalogue.own_offered(project, by=add_person("x@example.com"))) == []


@pytest.mark.parametrize("everything", ["*", "*:*", "admin:*"])
def test_what_opens_everything_is_said(owner: Actor, project: Project, everything: str) -> None:
    found = catalogue.meaning(["tasks:read", everything], project, by=owner)
    assert (found.everything, found.own, found.beyond) == ([everything], {}, ())


def test_what_opens_latchkey_is_said_with_wildcards_unfolded(
    member: Actor, project: Project
) -> None:
    found = catalogue.meaning(["tasks:*", "audit:*", "keys:verify"], project, by=member)
    assert list(found.own) == ["keys:verify", "audit:read"]
    assert found.everything == []
    assert found.beyond == ("audit:read",)
