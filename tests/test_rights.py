"""Who may do what: every kind of actor against every operation on a key, and what may be given."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from console import activity, audit, key_list, keys
from console.actor import KEY, Actor
from console.errors import Forbidden, Refused, Unknown
from console.models import TABLES, Key, Project
from console.permissions import CONSOLE
from tests.conftest import MakeKey, add_person

OK, PERSON_REFUSED, KEY_REFUSED, NOT_THERE = "ok", "FORBIDDEN", "PERMISSION_DENIED", "NOT_FOUND"
WORDS = {"ok": OK, "role": PERSON_REFUSED, "perm": KEY_REFUSED, "404": NOT_THERE}


def holder(project: Project, *permissions: str, key_id: str = "key_holder") -> Actor:
    """Whoever presents a key of this project that holds these permissions."""
    return Actor(
        kind=KEY, id=key_id, name="Robot", project_id=project.id, permissions=frozenset(permissions)
    )


Actors = dict[str, Actor]


@pytest.fixture
def actors(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor,
    project: Project, other_project: Project,
) -> Actors:  # fmt: skip
    Project.update(key_limit=100).execute()
    return {
        "owner": owner,
        "admin": admin,
        "own": member,  # the member, at their own key
        "member": member,  # the member, at somebody else's
        "viewer": viewer,
        "stranger": stranger,
        "reader": holder(project, "keys:read"),
        "writer": holder(project, "keys:write"),
        "manager": holder(project, "keys:manage"),
        "wild": holder(project, "keys:*"),
        "root": holder(project, "admin:*"),
        "auditor": holder(project, "audit:read"),
        "nobody": holder(project),
        "others": holder(project, "tasks:*", "keys:verify"),
        "elsewhere": holder(other_project, "admin:*"),
    }


OPERATIONS: dict[str, Callable[[Key, Actor], Any]] = {
    "read": lambda key, by: keys.key_to_read(key.id, by=by),
    "list": lambda key, by: key_list.page(by=by, project="shop"),
    "create": lambda key, by: keys.create({"name": "New", "project": "shop"}, by=by),
    "edit": lambda key, by: keys.edit(key.id, {"name": "New"}, by=by),
    "revoke": lambda key, by: keys.revoke(key.id, by=by),
    "restore": lambda key, by: keys.restore(key.id, by=by),
    "rotate": lambda key, by: keys.rotate(key.id, {}, by=by),
    "delete": lambda key, by: keys.delete(key.id, by=by),
    "log": lambda key, by: audit.page_of_key(key.id, by=by, filters={}, cursor=None, limit=5),
    "all_logs": lambda key, by: audit.page_of_project(
        key.project_id, by=by, filters={}, cursor=None, limit=5
    ),
    "activity": lambda key, by: activity.page(key.project_id, by=by),
}

TABLE = """
           read  list  create  edit  revoke  restore  rotate  delete  log   all_logs  activity
owner      ok    ok    ok      ok    ok      ok       ok      ok      ok    ok        ok
admin      ok    ok    ok      ok    ok      ok       ok      ok      ok    ok        ok
own        ok    ok    ok      ok    ok      ok       ok      ok      ok    ok        ok
member     404   ok    ok      404   404     404      404     404     404   ok        ok
viewer     ok    ok    role    role  role    role     role    role    ok    ok        ok
stranger   404   404   404     404   404     404      404     404     404   404       404
reader     ok    ok    perm    perm  perm    perm     perm    perm    perm  perm      perm
writer     perm  perm  ok      ok    ok      ok       ok      ok      perm  perm      perm
manager    ok    ok    ok      ok    ok      ok       ok      ok      perm  perm      perm
wild       ok    ok    ok      ok    ok      ok       ok      ok      perm  perm      perm
root       ok    ok    ok      ok    ok      ok       ok      ok      ok    ok        ok
auditor    perm  perm  perm    perm  perm    perm     perm    perm    ok    ok        ok
nobody     perm  perm  perm    perm  perm    perm     perm    perm    perm  perm      perm
others     perm  perm  perm    perm  perm    perm     perm    perm    perm  perm      perm
elsewhere  404   404   404     404   404     404      404     404     404   404       404
"""


def expected() -> dict[str, dict[str, str]]:
    header, *lines = (line.split() for line in TABLE.strip().splitlines())
    return {
        who: dict(zip(header, (WORDS[word] for word in words), strict=True))
        for who, *words in lines
    }


def everything() -> list[list[Any]]:
    return [sorted(map(repr, table.select().tuples())) for table in TABLES]


def outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except Refused as refused:
        return refused.code
    return OK


@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_may_do_it(make_key: MakeKey, operator: Actor, actors: Actors, operation: str) -> None:
    found = {}
    for who, actor in actors.items():
        key, _ = make_key(by=actors["member"] if who == "own" else operator)
        if operation == "restore":
            keys.revoke(key.id, by=operator)
        before = everything()
        found[who] = outcome(lambda key=key, actor=actor: OPERATIONS[operation](key, actor))
        if found[who] != OK:
            assert everything() == before, who
    assert found == {who: row[operation] for who, row in expected().items()}


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("list", "create",
                                       "all_logs", "activity")])  # fmt: skip
def test_foreign_and_missing_ids_are_one_answer(
    make_key: MakeKey, actors: Actors, other_project: Project, operation: str
) -> None:
    ours, _ = make_key()
    others, _ = make_key(project="other")
    for who, foreign in (
        ("admin", others), ("viewer", others), ("root", others), ("nobody", others),
        ("stranger", ours), ("elsewhere", ours), ("member", ours),
    ):  # fmt: skip
        told = []
        for key in (foreign, Key(id="key_missing"), Key(id=""), Key(id="' or 1=1 --")):
            with pytest.raises(Unknown) as refused:
                OPERATIONS[operation](key, actors[who])
            told.append((refused.value.message, refused.value.fields, refused.value.code))
        assert len({str(one) for one in told}) == 1, who


def test_a_member_lists_their_own_keys_alone(
    make_key: MakeKey, member: Actor, viewer: Actor, operator: Actor
) -> None:
    make_key(name="own", by=member)
    make_key(name="others")
    assert [key.name for key in key_list.page(by=member, project="shop").rows] == ["own"]
    assert [key.name for key in key_list.page(by=member).rows] == ["own"]
    assert key_list.page(by=member, q="others", owner=operator.name).rows == []
    assert len(key_list.page(by=viewer, project="shop").rows) == 2


def test_a_list_over_projects_shows_what_each_role_may_see(
    make_key: MakeKey, project: Project, other_project: Project
) -> None:
    carol = add_person("carol@example.com", shop="member", other="viewer")
    dave = add_person("dave@example.com")
    make_key(name="own", by=carol)
    make_key(name="not hers")
    make_key(name="seen", project="other")
    assert sorted(key.name for key in key_list.page(by=carol).rows) == ["own", "seen"]
    assert key_list.page(by=dave).rows == []
    reader = holder(other_project, "keys:read")
    assert [key.name for key in key_list.page(by=reader).rows] == ["seen"]
    with pytest.raises(Unknown):
        key_list.page(by=reader, project="shop")


def test_a_new_key_belongs_to_whoever_made_it(
    make_key: MakeKey, member: Actor, operator: Actor
) -> None:
    assert make_key(by=member)[0].owner_id == member.id
    assert make_key(by=operator)[0].owner_id is None


def test_a_key_made_by_a_key_belongs_to_that_keys_owner(
    make_key: MakeKey, admin: Actor, project: Project
) -> None:
    robot = replace(holder(project, "keys:write"), owner_id=admin.id)
    key, _ = keys.create({"name": "New"}, by=robot)
    assert (key.owner_id, key.project_id) == (admin.id, project.id)


# --- what may be handed out -----------------------------------------------------------------

TEAMS_OWN = ["tasks:read", "tasks:*", "adminish:read", "key:read", "Keys:read"]

# who -> the permissions, of those below, that they may hand out
ASKED = [*CONSOLE, "keys:*", "audit:*", "*", "*:*"]
GRANTS: dict[str, list[str]] = {
    "owner": ASKED,
    "admin": ASKED,
    "own": ["keys:verify"],
    "writer": ["keys:write"],
    "manager": ["keys:read", "keys:write", "keys:manage"],
    "wild": ["keys:read", "keys:write", "keys:manage", "keys:verify", "keys:*"],
    "root": ASKED,
}


@pytest.mark.parametrize("who", GRANTS)
def test_a_console_permission_is_handed_out_only_by_whoever_holds_it(
    make_key: MakeKey, actors: Actors, operator: Actor, who: str
) -> None:
    actor = actors[who]
    target, _ = make_key(by=actor)
    allowed = []
    for permission in ASKED:
        fields = {"name": "New", "project": "shop", "permissions": [permission]}
        created = outcome(lambda fields=fields: keys.create(fields, by=actor))
        change = {"permissions": [permission]}
        edited = outcome(lambda change=change: keys.edit(target.id, change, by=actor))
        assert created == edited, permission
        if created == OK:
            allowed.append(permission)
        keys.edit(target.id, {"permissions": []}, by=operator)
        Key.delete().where(Key.name == "New").execute()
    assert allowed == GRANTS[who]


@pytest.mark.parametrize("who", GRANTS)
def test_everybody_hands_out_the_teams_own_permissions(
    make_key: MakeKey, actors: Actors, who: str
) -> None:
    assert make_key(by=actors[who], permissions=TEAMS_OWN)[0].permissions == TEAMS_OWN


def test_a_bare_pair_of_read_and_write_is_manage(make_key: MakeKey, project: Project) -> None:
    both = holder(project, "keys:read", "keys:write")
    assert make_key(by=both, permissions=["keys:manage"])[0]


def test_the_permissions_that_are_lacking_are_named(make_key: MakeKey, project: Project) -> None:
    with pytest.raises(Forbidden) as refused:
        make_key(by=holder(project, "keys:write"), permissions=["audit:read", "keys:write"])
    assert refused.value.missing_permissions == ("audit:read",)


@pytest.mark.parametrize("held", ["keys:verify", "admin:*", "*", "audit:*"])
@pytest.mark.parametrize("who", ["writer", "manager", "own"])
def test_a_mightier_key_cannot_be_taken_over_but_can_be_stopped(
    make_key: MakeKey, actors: Actors, operator: Actor, held: str, who: str
) -> None:
    actor = actors[who]
    key, _ = make_key(by=actor)
    keys.edit(key.id, {"permissions": [held]}, by=operator)
    may = held == "keys:verify" and who == "own"
    refusal = OK if may else PERSON_REFUSED if who == "own" else KEY_REFUSED
    changes: list[dict[str, Any]] = [
        {"name": "Mine"},
        {"ip_allowlist": []},
        {"expires_at": None},
        {"permissions": []},
        {"status": "revoked", "name": "Mine"},
    ]
    for change in changes:
        if not may:
            found = outcome(lambda change=change: keys.edit(key.id, change, by=actor))
            assert found == refusal, change
    assert outcome(lambda: keys.rotate(key.id, {}, by=actor)) == refusal
    assert outcome(lambda: keys.revoke(key.id, by=actor)) == OK
    assert outcome(lambda: keys.restore(key.id, by=actor)) == refusal
    assert outcome(lambda: keys.revoke_self(key.id, by=actor)) == OK
    assert outcome(lambda: keys.delete(key.id, by=actor)) == OK


def test_a_key_acts_on_itself_like_on_any_other(make_key: MakeKey, project: Project) -> None:
    key, _ = make_key(permissions=["keys:write"])
    itself = holder(project, "keys:write", key_id=key.id)
    keys.rotate(key.id, {}, by=itself)
    keys.edit(key.id, {"name": "Renamed"}, by=itself)
    with pytest.raises(Forbidden):
        keys.edit(key.id, {"permissions": ["keys:manage"]}, by=itself)
    with pytest.raises(Forbidden):
        keys.key_to_read(key.id, by=itself)


def test_a_role_that_ended_opens_nothing(make_key: MakeKey, member: Actor) -> None:
    key, _ = make_key(by=member)
    with pytest.raises(Unknown):
        keys.key_to_read(key.id, by=replace(member, roles={}))
