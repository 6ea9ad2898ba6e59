"""Events: who did what, told to those who may know, and in an order that pages."""

import pytest

from console import activity, keys, people, sessions, signin
from console.actor import COMMAND, KEY, PERSON, Actor
from console.errors import Forbidden, Unknown
from console.models import Event, Project
from tests.conftest import PASSWORD, Clock, MakeKey


def shown(project: Project, by: Actor) -> list[tuple[str, str]]:
    return [(e.action, e.target_name) for e in activity.page(project.id, by=by).rows]


@pytest.mark.usefixtures("app")
def test_an_event_says_who_did_what_to_whom_from_where(clock: Clock) -> None:
    by = Actor(kind=PERSON, id="per_1", name="ada@example.com", ip="192.0.2.1", request_id="req_1")
    changes = {"name": ("Old", "New"), "metadata": ({}, {"a": [1, None]})}
    activity.record(
        "key.edited",
        by=by,
        target_id="key_1",
        target_name="CI",
        project_id="prj_1",
        changes=changes,
    )
    event = Event.get()
    assert (event.at, event.action, event.project_id) == (clock.now(), "key.edited", "prj_1")
    assert (event.actor_kind, event.actor_id, event.actor_name) == (
        "person", "per_1", "ada@example.com",
    )  # fmt: skip
    assert (event.target_id, event.target_name) == ("key_1", "CI")
    assert event.changes == {"name": ["Old", "New"], "metadata": [{}, {"a": [1, None]}]}
    assert (event.ip, event.request_id) == ("192.0.2.1", "req_1")


def test_the_actor_is_named_by_kind(make_key: MakeKey, admin: Actor, operator: Actor) -> None:
    holder_key, _ = make_key(name="Deployer", permissions=["keys:write"])
    holder = Actor(
        kind=KEY,
        id=holder_key.id,
        name="Deployer",
        project_id=holder_key.project_id,
        permissions=frozenset({"keys:write"}),
    )
    key, _ = make_key()
    for by in (operator, admin, holder):
        keys.edit(key.id, {"name": by.name}, by=by)
    rows = Event.select().where(Event.action == "key.edited").order_by(Event.id)
    assert [(row.actor_kind, row.actor_id, row.actor_name) for row in rows] == [
        (COMMAND, None, "command line"),
        (PERSON, admin.id, "alan@example.com"),
        (KEY, holder_key.id, "Deployer"),
    ]


def test_events_page_newest_first(make_key: MakeKey, operator: Actor, project: Project) -> None:
    key, _ = make_key(name="0")
    for number in range(1, 5):
        keys.edit(key.id, {"name": str(number)}, by=operator)
    first = activity.page(project.id, by=operator, limit=2)
    keys.edit(key.id, {"name": "newer"}, by=operator)
    second = activity.page(project.id, by=operator, cursor=first.next_cursor, limit=2)
    assert [row.target_name for row in first.rows + second.rows] == ["4", "3", "2", "1"]
    back = activity.page(project.id, by=operator, cursor=second.previous_cursor, limit=2)
    assert back.rows == first.rows


def test_a_project_shows_its_own_events_alone(
    make_key: MakeKey, operator: Actor, project: Project, other_project: Project
) -> None:
    make_key(name="here")
    make_key(name="there", project="other")
    assert shown(project, operator) == [("key.created", "here"), ("project.created", "shop")]


def test_a_member_sees_what_they_did(
    make_key: MakeKey, member: Actor, admin: Actor, project: Project
) -> None:
    make_key(name="own", by=member)
    make_key(name="others", by=admin)
    assert shown(project, member) == [("key.created", "own")]
    assert ("key.created", "own") in shown(project, admin)


def test_a_stranger_learns_of_no_project(stranger: Actor, project: Project) -> None:
    with pytest.raises(Unknown):
        activity.page(project.id, by=stranger)


def test_a_key_without_audit_read_sees_no_events(project: Project) -> None:
    holder = Actor(kind=KEY, id="key_1", name="CI", project_id=project.id)
    with pytest.raises(Forbidden) as refused:
        activity.page(project.id, by=holder)
    assert refused.value.missing_permissions == ("audit:read",)


def test_a_keys_events_outlive_it(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    make_key(name="other")
    keys.revoke(key.id, by=operator)
    keys.delete(key.id, by=operator)
    rows = activity.page_of_target(key.id, limit=2).rows
    assert [row.action for row in rows] == ["key.deleted", "key.revoked"]


def test_every_action_that_is_recorded_is_a_known_one(
    make_key: MakeKey, operator: Actor, owner: Actor
) -> None:
    people.create_owner({"email": "new@example.com", "password": PASSWORD}, by=operator)
    token, _ = signin.with_password(owner.name, PASSWORD, ip=None)
    sessions.sign_out(token, by=owner)
    key, _ = make_key()
    keys.edit(key.id, {"name": "New"}, by=operator)
    keys.revoke(key.id, by=operator)
    keys.restore(key.id, by=operator)
    keys.rotate(key.id, {}, by=operator)
    keys.delete(key.id, by=operator)
    recorded = {event.action for event in Event.select()}
    assert len(recorded) == 10 and recorded <= set(activity.ACTIONS)
