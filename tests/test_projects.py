"""Projects: what may name one, how its secrets look, who makes one and who sees it."""

import re
from typing import Any

import pytest
from flask import Flask

from console import keys, projects, secret
from console.actor import KEY, Actor
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.models import Event, Project
from tests.conftest import MakeKey, at_once


def create(by: Actor, **fields: Any) -> Project:
    return projects.create({"slug": "tasks", **fields}, by=by)


def test_a_project_needs_no_more_than_a_slug(operator: Actor) -> None:
    project = Project.get(Project.id == create(operator).id)
    assert (project.slug, project.name, project.prefix) == ("tasks", "tasks", "lk")
    assert (project.key_format, project.shows_environment) == (secret.BASE62, True)
    assert re.fullmatch(r"prj_[0-9A-Za-z]{20}", project.id)


def test_creating_one_leaves_an_event(operator: Actor) -> None:
    project = create(operator, prefix="sk")
    event = Event.get()
    assert (event.action, event.target_id, event.project_id) == (
        "project.created", project.id, project.id)  # fmt: skip
    assert event.changes["prefix"] == [None, "sk"]


@pytest.mark.parametrize("slug", ["a", "0", "my-service", "a--b", "a" * 40, "2026"])
def test_a_slug_may_be(operator: Actor, slug: str) -> None:
    assert create(operator, slug=slug).slug == slug


@pytest.mark.parametrize(
    "slug",
    ["", "-a", "a-", "My-Service", "a_b", "a b", "a/b", "a.b", "t\u00e4sks", "a" * 41, "a\n",
     " a", "a\0", "..", "\u202ea"],
)  # fmt: skip
def test_another_slug_is_refused(operator: Actor, slug: str) -> None:
    with pytest.raises(Invalid) as refusal:
        create(operator, slug=slug)
    assert refusal.value.fields == {"slug": projects.SLUG_HELP}
    assert not Project.select().exists()


# What prefix, format and wish give: the shape of the secrets, or the field at fault.
FORMATS = {
    "default": ({}, r"lk_(live|test)_[0-9A-Za-z]{36}"),
    "vp": ({"prefix": "vp"}, r"vp_(live|test)_[0-9A-Za-z]{36}"),
    "sk": ({"prefix": "sk"}, r"sk_(live|test)_[0-9A-Za-z]{36}"),
    "vctl without environment": (
        {"prefix": "vctl", "shows_environment": False}, r"vctl_[0-9A-Za-z]{36}"),
    "vsp_sk leaves the environment out": ({"prefix": "vsp_sk"}, r"vsp_sk_[0-9A-Za-z]{36}"),
    "vsp_sk, said so": (
        {"prefix": "vsp_sk", "shows_environment": False}, r"vsp_sk_[0-9A-Za-z]{36}"),
    "vc in hex": ({"prefix": "vc", "key_format": "hex32"}, r"vc_[0-9a-f]{32}"),
    "hex, said so": (
        {"prefix": "vc", "key_format": "hex32", "shows_environment": False}, r"vc_[0-9a-f]{32}"),
    "hex with parts": ({"prefix": "a_b_c", "key_format": "hex32"}, r"a_b_c_[0-9a-f]{32}"),
    "16 characters with environment": ({"prefix": "a" * 16}, r"a{16}_(live|test)_[0-9A-Za-z]{36}"),
    "20 characters without": (
        {"prefix": "a" * 20, "shows_environment": False}, r"a{20}_[0-9A-Za-z]{36}"),
}  # fmt: skip
REFUSED = {
    "empty": ({"prefix": ""}, "prefix"),
    "capital": ({"prefix": "Sk"}, "prefix"),
    "digit first": ({"prefix": "1k"}, "prefix"),
    "underscore first": ({"prefix": "_k", "shows_environment": False}, "prefix"),
    "underscore last": ({"prefix": "k_", "shows_environment": False}, "prefix"),
    "two underscores": ({"prefix": "v__k"}, "prefix"),
    "hyphen": ({"prefix": "my-app"}, "prefix"),
    "newline": ({"prefix": "sk\n"}, "prefix"),
    "other letters": ({"prefix": "schl\u00fcssel"}, "prefix"),
    "parts and environment": ({"prefix": "vsp_sk", "shows_environment": True}, "prefix"),
    "17 characters with environment": ({"prefix": "a" * 17}, "prefix"),
    "21 characters without": ({"prefix": "a" * 21, "shows_environment": False}, "prefix"),
    "21 characters in parts": ({"prefix": "abcd_efgh_ijkl_mnopqr"}, "prefix"),
    "hex with environment": (
        {"prefix": "vc", "key_format": "hex32", "shows_environment": True}, "shows_environment"),
    "another format": ({"key_format": "uuid"}, "key_format"),
    "format in capitals": ({"key_format": "HEX32"}, "key_format"),
    "no boolean": ({"shows_environment": "yes"}, "shows_environment"),
    "hidden characters in the name": ({"name": "Sh\u202eop"}, "name"),
    "a field that is none": ({"color": "red"}, "color"),
}  # fmt: skip


@pytest.mark.parametrize("fields, pattern", FORMATS.values(), ids=FORMATS.keys())
def test_a_projects_secrets_have_the_shape_it_chose(
    operator: Actor, fields: dict[str, Any], pattern: str
) -> None:
    create(operator, **fields)
    for environment in ("live", "test"):
        key, text = keys.create(
            {"name": "CI", "project": "tasks", "environment": environment}, by=operator
        )
        assert re.fullmatch(pattern, text)
        assert secret.is_well_formed(text)
        assert key.prefix == text[:12]
        assert ("(live|test)" not in pattern) or f"_{environment}_" in text


@pytest.mark.parametrize("fields, field", REFUSED.values(), ids=REFUSED.keys())
def test_another_shape_is_refused_and_the_field_named(
    operator: Actor, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        create(operator, **fields)
    assert list(refusal.value.fields) == [field]
    assert not Project.select().exists()


def test_a_taken_slug_is_a_conflict(operator: Actor) -> None:
    create(operator)
    with pytest.raises(Conflict, match="There is a project tasks already") as refusal:
        create(operator, prefix="sk")
    assert refusal.value.fields == {"slug": "is taken"}
    assert Project.get().prefix == "lk"


def test_of_ten_that_take_a_slug_at_once_one_gets_it(app: Flask, operator: Actor) -> None:
    found = at_once(10, lambda _: create(operator).slug)
    answers = sorted(getattr(answer, "code", answer) for answer in found)
    assert answers == ["CONFLICT"] * 9 + ["tasks"]
    assert Event.select().count() == 1


def test_only_an_owner_creates_projects(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key(permissions=["admin:*"])
    holder = Actor(kind=KEY, id=key.id, name=key.name, project_id=key.project_id,
                   permissions=frozenset(key.permissions))  # fmt: skip
    for other in (admin, member, viewer, stranger, holder):
        with pytest.raises(Forbidden):
            create(other)
    assert create(owner).slug == "tasks"


def test_one_sees_the_projects_one_has_business_in(
    owner: Actor, member: Actor, viewer: Actor, stranger: Actor, project: Project
) -> None:
    for insider in (owner, member, viewer):
        assert projects.to_see("shop", by=insider) == project
    assert [p.slug for p in projects.visible(owner)] == ["other", "shop"]
    assert [p.slug for p in projects.visible(viewer)] == ["shop"]
    assert [p.slug for p in projects.visible(stranger)] == ["other"]


@pytest.mark.parametrize("slug", ["shop", "nowhere", "", "SHOP", "shop\0", "\ud800", "a" * 9_999])
def test_what_is_not_yours_and_what_is_not_there_are_one_answer(stranger: Actor, slug: str) -> None:
    with pytest.raises(Unknown, match="There is no project"):
        projects.to_see(slug, by=stranger)


def test_the_project_may_be_left_out_where_there_is_one(
    owner: Actor, member: Actor, project: Project, other_project: Project
) -> None:
    assert projects.to_act_in(None, by=member) == project
    assert projects.to_act_in("other", by=owner) == other_project
    with pytest.raises(Invalid, match="is required; your projects are other, shop"):
        projects.to_act_in(None, by=owner)


def test_a_project_may_set_its_own_key_limit(project: Project) -> None:
    projects.use_key_limit(7)
    try:
        assert projects.key_limit(project) == 7
        project.key_limit = 3
        assert projects.key_limit(project) == 3
    finally:
        projects.use_key_limit(projects.KEY_LIMIT_DEFAULT)


@pytest.mark.parametrize(
    "name, slug",
    [("My Service", "my-service"), ("  Caf\u00e9 No. 5! ", "cafe-no-5"),
     ("\u65e5\u672c", "project"), ("---", "project"), ("x" * 39 + " yz", "x" * 39), ("A", "a")],
)  # fmt: skip
def test_a_slug_can_be_made_from_any_name(name: str, slug: str) -> None:
    assert projects.slug_from(name) == slug
    assert projects.SLUG.fullmatch(slug)


def test_there_is_none_at_first(operator: Actor) -> None:
    assert not projects.any_yet()
    create(operator)
    assert projects.any_yet()
