"""Projects: what may name one, how its secrets look, who makes, sees, changes and deletes one."""

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from console import check, keys, project_fields, projects, secret
from console.actor import KEY, Actor
from console.errors import Conflict, Forbidden, Invalid, Refused, Unknown
from console.models import Event, Key, Membership, Project
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
    assert refusal.value.fields == {"slug": project_fields.SLUG_HELP}
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
        projects.use_key_limit(project_fields.KEY_LIMIT_DEFAULT)


@pytest.mark.parametrize(
    "name, slug",
    [("My Service", "my-service"), ("  Caf\u00e9 No. 5! ", "cafe-no-5"),
     ("\u65e5\u672c", "project"), ("---", "project"), ("x" * 39 + " yz", "x" * 39), ("A", "a")],
)  # fmt: skip
def test_a_slug_can_be_made_from_any_name(name: str, slug: str) -> None:
    assert projects.slug_from(name) == slug
    assert project_fields.SLUG.fullmatch(slug)


def test_there_is_none_at_first(operator: Actor) -> None:
    assert not projects.any_yet()
    create(operator)
    assert projects.any_yet()


# --- changing one -----------------------------------------------------------------------------


def holder_of(project: Project, *permissions: str) -> Actor:
    """Whoever presents a key of this project that holds these permissions."""
    return Actor(
        kind=KEY, id="key_1", name="CI", project_id=project.id, permissions=frozenset(permissions)
    )


def changes_of(action: str) -> Any:
    return Event.get(Event.action == action).changes


def test_an_edit_changes_what_is_sent_and_nothing_else(owner: Actor, project: Project) -> None:
    before = projects.as_dict(project)
    edited = projects.edit("shop", {"name": "The Shop", "key_limit": 3}, by=owner)
    wanted = {**before, "name": "The Shop", "key_limit": 3}
    assert projects.as_dict(edited) == projects.as_dict(Project.get_by_id(project.id)) == wanted
    assert changes_of("project.edited") == {"name": ["Shop", "The Shop"], "key_limit": [None, 3]}


def test_what_is_already_so_leaves_no_event(owner: Actor, project: Project) -> None:
    same = {"slug": "shop", "name": "Shop", "prefix": "sk", "shows_environment": None}
    projects.edit("shop", same, by=owner)
    projects.edit("shop", {}, by=owner)
    assert not Event.select().where(Event.action == "project.edited").exists()


def test_a_new_prefix_is_for_secrets_yet_to_come(
    owner: Actor, project: Project, make_key: MakeKey
) -> None:
    old_key, old_secret = make_key()
    projects.edit("shop", {"prefix": "vsp_sk", "shows_environment": False}, by=owner)
    new_key, new_secret = make_key(name="new")
    assert check.check(check.Request(old_secret, "req_1")).is_valid
    assert check.check(check.Request(new_secret, "req_2")).is_valid
    assert (old_key.prefix[:8], new_key.prefix[:7]) == ("sk_live_", "vsp_sk_")
    _, rotated, _ = keys.rotate(old_key.id, {}, by=owner)
    assert rotated.startswith("vsp_sk_")


@pytest.mark.parametrize("fields, pattern", FORMATS.values(), ids=FORMATS.keys())
def test_an_edit_may_choose_any_shape_that_a_new_project_may(
    owner: Actor, project: Project, make_key: MakeKey, fields: dict[str, Any], pattern: str
) -> None:
    defaults = {"prefix": "lk", "key_format": "base62", "shows_environment": None}
    projects.edit("shop", {**defaults, **fields}, by=owner)
    assert re.fullmatch(pattern, make_key()[1])


@pytest.mark.parametrize("fields, field", REFUSED.values(), ids=REFUSED.keys())
def test_an_edit_refuses_what_creating_refuses(
    owner: Actor, project: Project, fields: dict[str, Any], field: str
) -> None:
    before = projects.as_dict(project)
    shape = {"shows_environment": None} if "prefix" in fields or "key_format" in fields else {}
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {**shape, **fields}, by=owner)
    assert list(refusal.value.fields) == [field]
    assert projects.as_dict(Project.get_by_id(project.id)) == before


def test_the_environment_part_is_not_dropped_unasked(owner: Actor, project: Project) -> None:
    """What secrets say of live and test changes only where that is sent."""
    for fields, field in (({"prefix": "vsp_sk"}, "prefix"), ({"key_format": "hex32"},
                          "shows_environment")):  # fmt: skip
        with pytest.raises(Invalid) as refusal:
            projects.edit("shop", fields, by=owner)
        assert list(refusal.value.fields) == [field]
        told = refusal.value.fields[field]
        assert "do not say live or test" in told or "no environment part" in told
    projects.edit("shop", {"key_format": "hex32", "shows_environment": False}, by=owner)
    assert not projects.edit("shop", {"key_format": "base62"}, by=owner).shows_environment
    assert projects.edit("shop", {"shows_environment": None}, by=owner).shows_environment


def test_the_slug_is_fixed(owner: Actor, project: Project) -> None:
    with pytest.raises(Invalid, match="cannot change") as refusal:
        projects.edit("shop", {"slug": "store"}, by=owner)
    assert list(refusal.value.fields) == ["slug"]


@pytest.mark.parametrize("limit", [0, -1, project_fields.KEY_LIMIT_MAX + 1, True, "3", 1.5])
def test_a_key_limit_is_a_whole_number_from_1(owner: Actor, project: Project, limit: Any) -> None:
    for refused in (
        lambda: projects.edit("shop", {"key_limit": limit}, by=owner),
        lambda: create(owner, key_limit=limit),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert list(refusal.value.fields) == ["key_limit"]


def test_the_key_limit_holds_for_the_next_key(
    owner: Actor, project: Project, make_key: MakeKey
) -> None:
    projects.edit("shop", {"key_limit": 1}, by=owner)
    make_key()
    with pytest.raises(Conflict, match="1 are allowed"):
        make_key(name="second")
    projects.edit("shop", {"key_limit": None}, by=owner)
    make_key(name="second")


def test_whoever_manages_a_project_may_edit_it(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor,
    project: Project, other_project: Project,
) -> None:  # fmt: skip
    allowed = (owner, admin, holder_of(project, "projects:manage"), holder_of(project, "admin:*"))
    for number, by in enumerate(allowed):
        assert projects.edit("shop", {"name": f"Shop {number}"}, by=by).name == f"Shop {number}"
    for by in (member, viewer, holder_of(project), holder_of(project, "keys:manage")):
        with pytest.raises(Forbidden):
            projects.edit("shop", {"name": "Mine"}, by=by)
    for by in (stranger, holder_of(other_project, "admin:*")):
        with pytest.raises(Unknown):
            projects.edit("shop", {"name": "Mine"}, by=by)
    assert Project.get_by_id(project.id).name == "Shop 3"


def test_two_edits_at_once_both_hold(app: Flask, operator: Actor, project: Project) -> None:
    edits: list[dict[str, Any]] = [{"name": "Store"}, {"prefix": "st"}, {"key_limit": 9}]
    at_once(3, lambda number: projects.edit("shop", edits[number], by=operator))
    found = Project.get_by_id(project.id)
    assert (found.name, found.prefix, found.key_limit) == ("Store", "st", 9)


# --- removing one -----------------------------------------------------------------------------


def test_an_empty_project_can_be_deleted(
    owner: Actor, member: Actor, project: Project, make_key: MakeKey
) -> None:
    key, _ = make_key()
    keys.delete(key.id, by=owner)
    projects.delete("shop", by=owner)
    with pytest.raises(Unknown):
        projects.to_see("shop", by=owner)
    assert not Membership.select().exists()
    assert changes_of("project.deleted")["name"] == ["Shop", None]
    assert projects.create({"slug": "shop"}, by=owner).id != project.id


@pytest.mark.parametrize("settle", [None, "revoke"])
def test_a_project_with_keys_is_not_deleted(
    owner: Actor, project: Project, make_key: MakeKey, settle: str | None
) -> None:
    key, _ = make_key()
    if settle:
        keys.revoke(key.id, by=owner)
    with pytest.raises(Conflict, match="still has 1 key: delete every key first"):
        projects.delete("shop", by=owner)
    assert Project.select().exists() and Key.select().exists()
    assert not Event.select().where(Event.action == "project.deleted").exists()


def test_only_an_owner_deletes_projects(
    owner: Actor, admin: Actor, member: Actor, stranger: Actor, project: Project
) -> None:
    for by in (admin, member, holder_of(project, "admin:*")):
        with pytest.raises(Forbidden, match="Only an owner deletes projects"):
            projects.delete("shop", by=by)
    with pytest.raises(Unknown):
        projects.delete("shop", by=stranger)
    projects.delete("shop", by=owner)


def test_of_ten_deletions_at_once_one_does_it(
    app: Flask, operator: Actor, project: Project
) -> None:
    found = at_once(10, lambda _: projects.delete("shop", by=operator))
    assert sorted(getattr(answer, "code", "deleted") for answer in found) == [
        *["NOT_FOUND"] * 9, "deleted"]  # fmt: skip
    assert Event.select().where(Event.action == "project.deleted").count() == 1


@pytest.mark.parametrize("head_start", [0, 2, 4, 6, 8, 10])
def test_no_key_is_made_in_a_project_that_is_deleted_meanwhile(
    app: Flask, operator: Actor, project: Project, head_start: int
) -> None:
    """Either there is a key, and the project stays; or the project is gone, and there is none."""

    def act(number: int) -> str:
        if number == 0:
            time.sleep(head_start / 1000)
            projects.delete("shop", by=operator)
            return "deleted"
        time.sleep(number / 1000)
        return keys.create({"name": "CI", "project": "shop"}, by=operator)[0].id

    answers = at_once(10, act)
    made = [answer for answer in answers[1:] if isinstance(answer, str)]
    assert {answer.code for answer in answers if isinstance(answer, Refused)} <= {
        "NOT_FOUND", "CONFLICT"}  # fmt: skip
    assert Key.select().count() == len(made)
    assert Project.select().exists() == bool(made) == (answers[0] != "deleted")


# --- listing ----------------------------------------------------------------------------------


def test_pages_meet_every_project_once_while_others_are_added(operator: Actor) -> None:
    slugs = [f"p{number}" for number in range(5)]
    for slug in slugs:
        create(operator, slug=slug)
    met: list[str] = []
    cursor = None
    while True:
        page = projects.page(by=operator, cursor=cursor, limit=2)
        met += [project.slug for project in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
        create(operator, slug=f"later{len(met)}")
    assert sorted(met) == slugs


def test_a_page_holds_what_the_actor_sees_newest_first(
    owner: Actor, member: Actor, stranger: Actor, project: Project, other_project: Project
) -> None:
    def seen(by: Actor) -> list[str]:
        return [one.slug for one in projects.page(by=by).rows]

    Project.update(created_at=1).where(Project.slug == "other").execute()
    assert seen(owner) == ["shop", "other"]
    assert (seen(member), seen(stranger)) == (["shop"], ["other"])
    assert seen(holder_of(project)) == ["shop"]
    assert seen(replace(member, roles={})) == []
    assert seen(replace(member, roles={project.id: "king"})) == []


def test_what_goes_with_a_project_is_in_its_event(
    owner: Actor, admin: Actor, viewer: Actor
) -> None:
    projects.delete("shop", by=owner)
    event = Event.get(Event.action == "project.deleted")
    assert event.changes["members"] == [{admin.name: "admin", viewer.name: "viewer"}, None]


def test_a_name_finds_a_slug_that_is_free(operator: Actor, project: Project) -> None:
    found = []
    for name in ("Shop", "Shop", "製品", "請求", "Über Straße", "New", "x" * 60, "x" * 60):
        slug = projects.free_slug(name)
        projects.create({"slug": slug, "name": name}, by=operator)
        found.append(slug)
    assert found == [
        "shop-2", "shop-3", "project", "project-2", "uber-strasse", "new-2", "x" * 40,
        f"{'x' * 35}-2",
    ]  # fmt: skip


def test_no_project_takes_a_page_of_the_console(operator: Actor) -> None:
    with pytest.raises(Invalid) as refusal:
        projects.create({"slug": "new"}, by=operator)
    assert refusal.value.fields == {"slug": "must be another one: new is a page of the console"}
