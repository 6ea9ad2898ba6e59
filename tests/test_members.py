"""Members of a project: who gives, changes and takes roles, what each does to the person's sessions
and links, and which event tells of it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import (
    check,
    db,
    invitations,
    keys,
    mail,
    members,
    people,
    projects,
    second_factor,
    sessions,
    signin,
)
from console.actor import KEY, Actor
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Refused, Unknown
from console.invitations import Sent
from console.models import Event, Key, Link, Membership, Person, Project, Session
from tests.conftest import (
    PASSWORD,
    V1,
    Clock,
    MakeKey,
    add_person,
    at_once,
    bearer,
    code_of,
    sign_in,
)

GRACE = {"email": "grace@example.com", "role": "member"}
VISITOR = Actor(kind="person", id=None, name="visitor", ip="192.0.2.7")


def robot(project: Project, *permissions: str) -> Actor:
    """Whoever presents a key of this project with these permissions."""
    return Actor(
        kind=KEY,
        id="key_x",
        name="Robot",
        project_id=project.id,
        permissions=frozenset(permissions),
    )


def role_of(actor: Actor, slug: str = "shop") -> str | None:
    return people.roles_of([Person.get_by_id(actor.id)])[actor.id or ""].get(slug)


def events(*actions: str) -> list[tuple[str, str, Any]]:
    found = Event.select().where(Event.action.in_(actions)).order_by(Event.id)
    return [(event.action, event.target_name, event.changes) for event in found]


def token_of(sent: Sent | None) -> str:
    assert sent is not None and sent.url is not None
    return sent.url.partition("token=")[2]


def joined(sent: Sent | None, password: str = PASSWORD) -> Person:
    return invitations.join(token_of(sent), {"password": password}, by=VISITOR)


# --- who is there ---------------------------------------------------------------------------


def test_owners_and_whoever_has_a_role_are_listed_by_name(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor, make_key: MakeKey
) -> None:
    make_key(by=member)
    rows = [members.as_dict(one) for one in members.page("shop", by=admin).rows]
    assert [(one["name"], one["role"], one["keys"]) for one in rows] == [
        ("ada", "owner", 0), ("alan", "admin", 0), ("bob", "member", 1), ("vera", "viewer", 0),
    ]  # fmt: skip
    assert rows[2] == {
        "id": member.id, "email": "bob@example.com", "name": "bob", "role": "member",
        "disabled": False, "invited": False, "keys": 1,
    }  # fmt: skip


def test_an_owner_with_a_role_beneath_is_an_owner_once(owner: Actor, project: Project) -> None:
    Membership.create(person=owner.id, project=project, role="viewer")
    assert [one.role for one in members.page("shop", by=owner).rows] == ["owner"]


def test_the_list_has_pages(owner: Actor, project: Project) -> None:
    for name in ("cy", "Bea", "Dan", "\u00c9mile"):
        person = add_person(f"{name.lower()}@example.com", shop="viewer")
        Person.update(name=name).where(Person.id == person.id).execute()
    seen, cursor = [], None
    for _ in range(5):
        page = members.page("shop", by=owner, cursor=cursor, limit=2)
        seen += [one.person.name for one in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["ada", "Bea", "cy", "Dan", "\u00c9mile"]
    with pytest.raises(Invalid):
        members.page("shop", by=owner, cursor="nonsense")


# --- who may --------------------------------------------------------------------------------

DOINGS: dict[str, Callable[[str, str, Actor], Any]] = {
    "list": lambda slug, person_id, by: members.page(slug, by=by),
    "see": lambda slug, person_id, by: members.member_to_see(slug, person_id, by=by),
    "add": lambda slug, person_id, by: members.add(slug, GRACE, by=by),
    "change": lambda slug, person_id, by: members.change_role(
        slug, person_id, {"role": "member"}, by=by
    ),
    "remove": lambda slug, person_id, by: members.remove(slug, person_id, by=by),
}
CHANGES = ("add", "change", "remove")


@pytest.mark.parametrize("do", DOINGS.values(), ids=DOINGS.keys())
def test_owners_and_admins_may_and_nobody_else(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor, project: Project,
    other_project: Project, do: Callable[[str, str, Actor], Any],
) -> None:  # fmt: skip
    almost = robot(project, "projects:manage", "keys:manage", "audit:read", "admin:read")
    elsewhere = robot(other_project, "admin:*")
    before = list(Membership.select().tuples())
    for by, refusal in ((member, Forbidden), (viewer, Forbidden), (almost, Forbidden),
                        (stranger, Unknown), (elsewhere, Unknown)):  # fmt: skip
        with pytest.raises(refusal):
            do("shop", viewer.id or "", by)
    assert list(Membership.select().tuples()) == before
    for by in (owner, admin):
        with db.handle.atomic() as everything:
            do("shop", viewer.id or "", by)
            everything.rollback()


@pytest.mark.parametrize("held", ["admin:*", "*"])
def test_a_key_with_every_right_reads_who_is_there_and_gives_no_role(
    viewer: Actor, project: Project, held: str
) -> None:
    by = robot(project, held)
    assert DOINGS["see"]("shop", viewer.id or "", by).role == "viewer"
    assert len(DOINGS["list"]("shop", viewer.id or "", by).rows) == 1
    for name in CHANGES:
        with pytest.raises(Forbidden, match="No key gives or takes roles"):
            DOINGS[name]("shop", viewer.id or "", by)


def test_a_key_that_may_not_is_told_what_it_lacks(viewer: Actor, project: Project) -> None:
    with pytest.raises(Forbidden) as refusal:
        members.page("shop", by=robot(project, "projects:manage"))
    assert (refusal.value.code, refusal.value.missing_permissions) == (
        "PERMISSION_DENIED", ("admin:*",))  # fmt: skip


@pytest.mark.parametrize("name", ["see", "change", "remove"])
def test_foreign_and_missing_people_are_one_answer(
    admin: Actor, stranger: Actor, name: str
) -> None:
    told = set()
    for person_id in (stranger.id or "", "per_missing", "per_\0", "\ud800"):
        with pytest.raises(Unknown) as refusal:
            DOINGS[name]("shop", person_id, admin)
        told.add(refusal.value.message)
    assert told == {"There is no such member."}


@pytest.mark.parametrize("name", DOINGS)
def test_foreign_and_missing_projects_are_one_answer(
    admin: Actor, viewer: Actor, other_project: Project, name: str
) -> None:
    told = set()
    for slug in ("other", "nothing"):
        with pytest.raises(Unknown) as refusal:
            DOINGS[name](slug, viewer.id or "", admin)
        told.add(refusal.value.message.replace(slug, "\u2026"))
    assert len(told) == 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_wants_somebody_who_has_just_shown_that_they_are_there(
    admin: Actor, viewer: Actor, clock: Clock, name: str
) -> None:
    stale = replace(admin, fresh_until=clock.now())
    before = Event.select().count()
    with pytest.raises(NotFresh):
        DOINGS[name]("shop", viewer.id or "", stale)
    assert Event.select().count() == before
    members.page("shop", by=stale)
    DOINGS[name]("shop", viewer.id or "", replace(admin, fresh_until=clock.now() + 1))


def test_who_may_not_is_told_so_rather_than_asked_to_confirm(viewer: Actor, member: Actor) -> None:
    with pytest.raises(Forbidden) as refusal:
        members.remove("shop", viewer.id or "", by=replace(member, fresh_until=0))
    assert refusal.value.code == "FORBIDDEN"


# --- adding ---------------------------------------------------------------------------------


def test_somebody_new_is_invited_and_joins(admin: Actor) -> None:
    added, sent = members.add("shop", {**GRACE, "name": "Grace"}, by=admin)
    assert (added.person.name, added.role) == ("Grace", "member")
    assert members.as_dict(added)["invited"] is True
    person = joined(sent)
    _, signed_in = signin.with_password(person.email, PASSWORD, ip=None)
    assert not signed_in.is_owner
    assert people.roles_of([signed_in])[person.id] == {"shop": "member"}


def test_adding_is_an_event_of_the_project(admin: Actor, project: Project) -> None:
    members.add("shop", GRACE, by=admin)
    event = Event.get(Event.action == "member.added")
    assert (event.project_id, event.actor_id, event.target_name, event.changes) == (
        project.id, admin.id, "grace@example.com", {"role": [None, "member"]})  # fmt: skip
    created = Event.get(Event.action == "person.created")
    assert created.project_id is None
    assert created.changes == {
        "email": [None, "grace@example.com"], "name": [None, "grace"], "owner": [None, False],
    }  # fmt: skip


def test_somebody_known_keeps_their_name_and_gets_no_link(admin: Actor, stranger: Actor) -> None:
    fields = {"email": " EVE@example.com", "name": "Mallory", "role": "viewer"}
    added, sent = members.add("shop", fields, by=admin)
    assert (added.person.id, added.person.name, sent) == (stranger.id, "eve", None)
    assert role_of(stranger) == "viewer" and role_of(stranger, "other") == "admin"
    assert events("person.created", "person.edited", "person.invited") == []


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"email": "grace"}, "email"),
        ({"role": "owner"}, "role"),
        ({"role": None}, "role"),
        ({"name": "a\u202eb"}, "name"),
        ({"owner": True}, "owner"),
        ({"password": PASSWORD}, "password"),
        ({"roles": {"other": "admin"}}, "roles"),
    ],
)
def test_an_admin_gives_a_role_here_and_nothing_else(
    admin: Actor, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        members.add("shop", {**GRACE, **fields}, by=admin)
    assert list(refusal.value.fields) == [field]
    assert Person.select().count() == 1


def test_who_has_a_role_here_is_not_added_again(admin: Actor, owner: Actor, member: Actor) -> None:
    for email, words in (("bob@example.com", "has a role in this project already"),
                         ("ada@example.com", "is an owner and may do everything")):  # fmt: skip
        with pytest.raises(Conflict, match=words) as refusal:
            members.add("shop", {"email": email, "role": "viewer"}, by=admin)
        assert list(refusal.value.fields) == ["email"]
    assert role_of(member) == "member" and role_of(owner) is None


def test_of_ten_that_add_one_person_at_once_one_does(app: Flask, admin: Actor) -> None:
    answers = at_once(10, lambda _: members.add("shop", GRACE, by=admin)[0].role)
    assert sorted(getattr(one, "code", one) for one in answers) == ["CONFLICT"] * 9 + ["member"]
    assert len(events("member.added")) == len(events("person.created")) == 1


# --- links: never to more than one's own rights -----------------------------------------------


def invited_elsewhere(owner: Actor, **fields: Any) -> Person:
    return people.create({"email": GRACE["email"], **fields}, by=owner)[0]


@pytest.mark.parametrize("fields", [{"roles": {"other": "viewer"}}], ids=["a role elsewhere"])
def test_an_admin_gets_no_link_for_who_has_other_rights(
    owner: Actor, admin: Actor, other_project: Project, fields: dict[str, Any]
) -> None:
    person = invited_elsewhere(owner, **fields)
    added, sent = members.add("shop", GRACE, by=admin)
    assert (added.person.id, added.role, sent) == (person.id, "member", None)
    assert not Link.select().exists()


def test_an_owner_and_who_administers_both_get_the_link(
    owner: Actor, admin: Actor, project: Project, other_project: Project
) -> None:
    person = invited_elsewhere(owner, roles={"other": "viewer"})
    both = replace(admin, roles={project.id: "admin", other_project.id: "admin"})
    sent = members.add("shop", GRACE, by=both)[1]
    members.remove("shop", person.id, by=both)
    assert invitations.invited(token_of(sent)) == person
    again = members.add("shop", GRACE, by=owner)[1]
    with pytest.raises(Forbidden):
        invitations.invited(token_of(sent))
    assert joined(again) == person


def test_who_has_no_role_left_may_be_invited_anew(admin: Actor) -> None:
    added, first = members.add("shop", GRACE, by=admin)
    members.remove("shop", added.person.id, by=admin)
    again, second = members.add("shop", GRACE, by=admin)
    assert again.person.id == added.person.id
    with pytest.raises(Forbidden):
        invitations.invited(token_of(first))
    assert joined(second).id == added.person.id


def test_who_has_joined_without_a_password_gets_none_from_an_admin(
    admin: Actor, clock: Clock
) -> None:
    """They sign in elsewhere; a link would let the admin be them."""
    added, first = members.add("shop", GRACE, by=admin)
    second = members.invite("shop", added.person.id, by=admin)
    assert token_of(first) != token_of(second)
    Person.update(last_signed_in_at=clock.now()).where(Person.id == added.person.id).execute()
    with pytest.raises(Conflict, match="has joined already"):
        members.invite("shop", added.person.id, by=admin)
    members.remove("shop", added.person.id, by=admin)
    assert members.add("shop", GRACE, by=admin)[1] is None


def test_a_disabled_member_and_one_of_more_rights_are_not_invited_again(
    owner: Actor, admin: Actor, other_project: Project
) -> None:
    person = members.add("shop", GRACE, by=admin)[0].person
    people.edit(person.id, {"roles": {"shop": "viewer", "other": "viewer"}}, by=owner)
    with pytest.raises(Forbidden, match="ask an owner"):
        members.invite("shop", person.id, by=admin)
    people.edit(person.id, {"roles": {"shop": "viewer"}, "disabled": True}, by=owner)
    with pytest.raises(Conflict, match="is disabled"):
        members.invite("shop", person.id, by=admin)
    with pytest.raises(Unknown):
        members.invite("shop", "per_missing", by=admin)


RISES: dict[str, Callable[[str, Actor], Any]] = {
    "an owner": lambda person_id, by: people.edit(person_id, {"owner": True}, by=by),
    "a role elsewhere": lambda person_id, by: people.edit(
        person_id, {"roles": {"shop": "member", "other": "viewer"}}, by=by
    ),
    "an admin": lambda person_id, by: members.change_role(
        "shop", person_id, {"role": "admin"}, by=by
    ),
    "added elsewhere": lambda person_id, by: members.add("other", GRACE, by=by),
}


@pytest.mark.parametrize("rise", RISES.values(), ids=RISES.keys())
def test_a_link_that_an_admin_got_does_not_open_what_the_person_gets_later(
    owner: Actor, admin: Actor, other_project: Project, rise: Callable[[str, Actor], Any]
) -> None:
    added, sent = members.add("shop", GRACE, by=admin)
    rise(added.person.id, owner)
    with pytest.raises(Forbidden):
        joined(sent)


def test_nobody_who_is_disabled_is_invited(owner: Actor, admin: Actor) -> None:
    person = invited_elsewhere(owner)
    people.edit(person.id, {"disabled": True}, by=owner)
    added, sent = members.add("shop", GRACE, by=admin)
    assert members.as_dict(added)["disabled"] is True and sent is None


def test_where_mail_is_sent_everybody_is_invited_and_no_admin_sees_a_foreign_link(
    owner: Actor, admin: Actor, other_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mail goes to the person; where it fails, the link goes to nobody."""
    person = invited_elsewhere(owner, roles={"other": "viewer"})
    mailed: list[str] = []

    def take(address: str, *letter: Any) -> None:
        mailed.append(address)
        if len(mailed) > 1:
            raise members.mail.NotSent("the mail server is down")

    monkeypatch.setattr(members.mail, "is_on", lambda: True)
    monkeypatch.setattr(members.mail, "send", take)
    sent = members.add("shop", GRACE, by=admin)[1]
    assert sent is not None and (sent.mailed_to, sent.url) == (GRACE["email"], None)
    members.remove("shop", person.id, by=admin)
    sent = members.add("shop", GRACE, by=admin)[1]
    assert sent is not None and (sent.mailed_to, sent.url) == (None, None)
    assert sent.failure == "the mail server is down"
    members.remove("shop", person.id, by=admin)
    sent = members.add("shop", GRACE, by=owner)[1]
    assert sent is not None and sent.url is not None


# --- changing and removing ------------------------------------------------------------------


def test_another_role_is_an_event_and_the_same_is_none(admin: Actor, member: Actor) -> None:
    changed = members.change_role("shop", member.id or "", {"role": "viewer"}, by=admin)
    assert changed.role == role_of(member) == "viewer"
    assert events("member.role_changed") == [
        ("member.role_changed", "bob@example.com", {"role": ["member", "viewer"]})
    ]
    count = Event.select().count()
    members.change_role("shop", member.id or "", {"role": "viewer"}, by=admin)
    assert Event.select().count() == count


@pytest.mark.parametrize("fields", [{}, {"role": "owner"}, {"role": "admin", "owner": True}])
def test_a_change_takes_a_role_alone(admin: Actor, member: Actor, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        members.change_role("shop", member.id or "", fields, by=admin)
    assert role_of(member) == "member"


def test_who_is_removed_sees_nothing_and_their_keys_go_on(
    admin: Actor, member: Actor, make_key: MakeKey, project: Project
) -> None:
    _, secret = make_key(by=member)
    make_key(by=admin)
    removed = members.remove("shop", member.id or "", by=admin)
    assert (removed.role, removed.keys) == ("member", 1)
    assert role_of(member) is None
    assert events("member.removed") == [
        ("member.removed", "bob@example.com", {"role": ["member", None]})
    ]
    assert Event.get(Event.action == "member.removed").project_id == project.id
    assert check.check(check.Request(secret, "req_1")).is_valid
    assert Key.select().where(Key.owner == member.id).count() == 1
    token, _ = signin.with_password("bob@example.com", PASSWORD, ip=None)
    now = sessions.by_session(token)
    assert now is not None and not now.sees(project.id)
    with pytest.raises(Unknown):
        members.remove("shop", member.id or "", by=admin)


@pytest.mark.parametrize("name", ["change", "remove"])
def test_an_owner_is_not_changed_here(
    owner: Actor, admin: Actor, project: Project, name: str
) -> None:
    Membership.create(person=owner.id, project=project, role="viewer")
    for by in (admin, owner):
        with pytest.raises(Conflict, match="changed under People"):
            DOINGS[name]("shop", owner.id or "", by)
    assert role_of(owner) == "viewer"


def test_an_admin_may_go_themselves(admin: Actor) -> None:
    members.remove("shop", admin.id or "", by=admin)
    assert role_of(admin) is None


SIGNING_OUT: dict[str, Callable[[str, Actor], Any]] = {
    "changed": DOINGS["change"],
    "removed": DOINGS["remove"],
    "given another": lambda slug, person_id, by: members.add(
        "other", {"email": "vera@example.com", "role": "viewer"}, by=by
    ),
}


@pytest.mark.parametrize("do", SIGNING_OUT.values(), ids=SIGNING_OUT.keys())
def test_other_roles_end_the_persons_sessions_at_once_and_nobody_elses(
    app: Flask, owner: Actor, viewer: Actor, member: Actor, other_project: Project,
    do: Callable[[str, str, Actor], Any],
) -> None:  # fmt: skip
    browser, script = sign_in(app, viewer), app.test_client()
    login = {"email": viewer.name, "password": PASSWORD}
    token = script.post(f"{V1}/auth/token", json=login).json["access_token"]
    ask = {"path": f"{V1}/projects", "headers": bearer(token)}
    assert browser.get("/projects/shop/keys").status_code == 200
    assert script.get(**ask).status_code == 200
    do("shop", viewer.id or "", owner)
    assert browser.get("/projects/shop/keys").location.startswith("/login")
    assert script.get(**ask).status_code == 401
    assert Session.select().where(Session.person == member.id).exists()


def test_the_same_role_signs_nobody_out(owner: Actor, viewer: Actor) -> None:
    members.change_role("shop", viewer.id or "", {"role": "viewer"}, by=owner)
    assert Session.select().where(Session.person == viewer.id).exists()


def test_of_two_that_change_and_remove_at_once_each_tells_what_it_met(
    app: Flask, owner: Actor, admin: Actor, member: Actor
) -> None:
    person_id = member.id or ""
    calls = [lambda: members.change_role("shop", person_id, {"role": "admin"}, by=owner),
             lambda: members.remove("shop", person_id, by=admin)]  # fmt: skip
    answers = at_once(2, lambda number: calls[number]())
    assert role_of(member) is None
    told = [changes["role"] for _, _, changes in events("member.role_changed", "member.removed")]
    lost = [one for one in answers if isinstance(one, Refused)]
    assert told == ([["member", None]] if lost else [["member", "admin"], ["admin", None]])


# --- every other door, the same event ---------------------------------------------------------


def test_people_give_and_take_roles_by_the_same_events(
    owner: Actor, project: Project, other_project: Project
) -> None:
    person, _ = people.create({"email": GRACE["email"], "roles": {"shop": "viewer"}}, by=owner)
    people.edit(person.id, {"name": "Grace", "roles": {"shop": "admin", "other": "member"}},
                by=owner)  # fmt: skip
    people.delete(person.id, by=owner)

    def told(where: Project) -> list[tuple[str, Any]]:
        here = Event.select().where(Event.project_id == where.id, Event.target_id == person.id)
        return [(one.action, one.changes["role"]) for one in here.order_by(Event.id)]

    assert told(project) == [
        ("member.added", [None, "viewer"]),
        ("member.role_changed", ["viewer", "admin"]),
        ("member.removed", ["admin", None]),
    ]
    assert told(other_project) == [
        ("member.added", [None, "member"]),
        ("member.removed", ["member", None]),
    ]
    assert events("person.edited") == [
        ("person.edited", "grace@example.com", {"name": ["grace", "Grace"]})
    ]
    for action in ("person.created", "person.deleted"):
        assert "roles" not in Event.get(Event.action == action).changes


def test_a_change_of_nothing_but_roles_is_no_edit_of_the_person(
    owner: Actor, member: Actor
) -> None:
    people.edit(member.id or "", {"roles": {"shop": "admin"}}, by=owner)
    assert events("person.edited") == []
    assert not Session.select().where(Session.person == member.id).exists()


# --- through the API ------------------------------------------------------------------------


def call(client: FlaskClient, credential: str, method: str, path: str, body: Any = None) -> Any:
    more = {} if body is None else {"json": body}
    return client.open(f"{V1}/projects/{path}", method=method, headers=bearer(credential), **more)


def token_for(client: FlaskClient, person: Actor) -> str:
    login = {"email": person.name, "password": PASSWORD}
    return str(client.post(f"{V1}/auth/token", json=login).json["access_token"])


@pytest.fixture
def admins_key(make_key: MakeKey, owner: Actor) -> str:
    return make_key(name="Robot", by=owner, permissions=["admin:*"])[1]


def test_an_admin_changes_members_by_an_access_token(
    client: FlaskClient, admin: Actor, member: Actor, make_key: MakeKey
) -> None:
    make_key(by=member)
    token = token_for(client, admin)
    path = f"shop/members/{member.id}"
    listed = call(client, token, "GET", "shop/members?limit=1").json
    assert [one["role"] for one in listed["data"]] == ["admin"] and listed["next_cursor"]
    added = call(client, token, "POST", "shop/members", GRACE)
    assert added.status_code == 201 and "/invitation?token=" in added.json["invitation_url"]
    assert added.headers["Cache-Control"] == "no-store"
    changed = call(client, token, "PATCH", path, {"role": "viewer"})
    assert (changed.status_code, changed.json["role"]) == (200, "viewer")
    removed = call(client, token, "DELETE", path)
    assert (removed.status_code, removed.json["keys"]) == (200, 1)
    assert call(client, token, "DELETE", path).status_code == 404


def test_whoever_was_an_admin_raises_nobody_again_with_a_key_made_then(
    client: FlaskClient, make_key: MakeKey, admin: Actor, owner: Actor, member: Actor
) -> None:
    key, text = make_key(by=admin, permissions=["admin:*"])
    members.remove("shop", admin.id or "", by=owner)
    handed = client.patch(
        f"{V1}/api-keys/{key.id}", json={"owner": member.name}, headers=bearer(text)
    )
    answers = [
        handed,
        call(client, text, "POST", "shop/members", {"email": admin.name, "role": "admin"}),
        call(client, text, "POST", "shop/members", {"email": "alias@example.com", "role": "admin"}),
        call(client, text, "PATCH", f"shop/members/{member.id}", {"role": "admin"}),
        call(client, text, "DELETE", f"shop/members/{member.id}"),
    ]
    assert {(one.status_code, one.json["code"]) for one in answers} == {(403, "FORBIDDEN")}
    assert (role_of(admin), role_of(member)) == (None, "member")
    assert not Link.select().exists()


def test_who_has_made_a_key_changes_their_own_role_by_an_access_token(
    client: FlaskClient, make_key: MakeKey, admin: Actor
) -> None:
    make_key(by=admin, permissions=["admin:*"])
    token = token_for(client, admin)
    answer = call(client, token, "PATCH", f"shop/members/{admin.id}", {"role": "viewer"})
    assert (answer.status_code, role_of(admin)) == (200, "viewer")


def test_a_link_for_who_is_more_elsewhere_is_not_in_the_answer(
    client: FlaskClient, admin: Actor, owner: Actor, other_project: Project
) -> None:
    invited_elsewhere(owner, roles={"other": "viewer"})
    added = call(client, token_for(client, admin), "POST", "shop/members", GRACE)
    assert added.status_code == 201
    assert added.json.keys() == {"id", "email", "name", "role", "disabled", "invited", "keys"}


def test_people_stay_an_owners(client: FlaskClient, admins_key: str, admin: Actor) -> None:
    token = token_for(client, admin)
    for credential in (admins_key, token):
        answer = client.get(f"{V1}/people", headers=bearer(credential))
        assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")


# --- keys that outlive a role ---------------------------------------------------------------


def test_the_dialogs_tell_of_keys_that_open_the_console_whatever_the_role(
    app: Flask, make_key: MakeKey, owner: Actor, member: Actor, project: Project,
    other_project: Project,
) -> None:  # fmt: skip
    theirs = [make_key(permissions=[held])[0] for held in ("admin:*", "*", "tasks:read")]
    theirs.append(make_key(permissions=["audit:read"], project="other")[0])
    revoked, _ = make_key(permissions=["admin:*"])
    Key.update(owner=member.id).execute()
    keys.revoke(revoked.id, by=owner)
    make_key(permissions=["admin:*"])  # somebody else's
    assert members.keys_into_console(member.id or "") == {project.id: 2, other_project.id: 1}
    browser = sign_in(app, owner)
    in_shop = "2 keys of bob in Shop hold <code>admin:*</code> or other permissions"
    in_other = "1 key of bob in Other holds <code>admin:*</code> or other permissions"
    page = browser.get(f"/projects/shop/people/{member.id}/role").text
    assert in_shop in page and in_other not in page
    assert 'href="/projects/shop/keys?owner=bob@example.com"' in page
    page = browser.get(f"/people/{member.id}/roles").text
    assert in_shop in page and in_other in page
    assert 'href="/projects/other/keys?owner=bob@example.com"' in page
    Key.update(permissions=["tasks:read"]).execute()
    for address in (f"/projects/shop/people/{member.id}/role", f"/people/{member.id}/roles"):
        assert "other permissions" not in browser.get(address).text


# --- whose address it is ----------------------------------------------------------------------


def test_who_joined_by_a_link_that_an_admin_was_shown_gets_no_rights_elsewhere(
    owner: Actor, admin: Actor, other_project: Project, project: Project
) -> None:
    """The admin may have used it in another's name, and waits for rights that others give."""
    _, sent = members.add("shop", {"email": "ceo@example.com", "role": "viewer"}, by=admin)
    person = joined(sent)
    members.remove("shop", person.id, by=admin)
    tries = [
        lambda: members.add("other", {"email": person.email, "role": "admin"}, by=owner),
        lambda: people.edit(person.id, {"roles": {"other": "viewer"}}, by=owner),
        lambda: people.edit(person.id, {"owner": True}, by=owner),
    ]
    for give in tries:
        with pytest.raises(Conflict, match="ceo@example.com joined by a link that somebody else"):
            give()
    members.add("shop", {"email": person.email, "role": "viewer"}, by=admin)
    begun = second_factor.begin_enrolment(by=sessions.actor_of(person, VISITOR))
    second_factor.enrol(
        begun.sealed, code_of(begun.seed), token="", by=sessions.actor_of(person, VISITOR)
    )
    link = token_of(invitations.reset(person.id, by=owner))
    invitations.reset_password(link, {"password": "three new words"}, by=VISITOR)
    assert not second_factor.state_of(person.id).is_on
    for give in tries:
        give()


def test_who_joined_by_an_owners_link_or_a_mailed_one_gets_rights_everywhere(
    owner: Actor, admin: Actor, other_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, sent = members.add("shop", {"email": "one@example.com", "role": "viewer"}, by=owner)
    assert joined(sent).vouched_by is None
    monkeypatch.setattr(mail, "is_on", lambda: True)
    monkeypatch.setattr(mail, "send", lambda *letter: letters.append(letter))
    letters: list[Any] = []
    members.add("shop", {"email": "two@example.com", "role": "viewer"}, by=admin)
    token = re.findall(r"token=([\w-]+)", str(letters))[0]
    assert invitations.join(token, {"password": PASSWORD}, by=VISITOR).vouched_by is None


def test_a_link_that_a_mail_server_refused_was_shown(
    owner: Actor, admin: Actor, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*letter: Any) -> None:
        raise mail.NotSent("no such box")

    monkeypatch.setattr(mail, "is_on", lambda: True)
    monkeypatch.setattr(mail, "send", refuse)
    _, sent = members.add("shop", {"email": "two@example.com", "role": "viewer"}, by=admin)
    assert joined(sent).vouched_by == admin.id


# --- an archived project ----------------------------------------------------------------------


def test_in_an_archived_project_members_are_only_removed(owner: Actor, viewer: Actor) -> None:
    projects.archive("shop", by=owner)
    for change in ("add", "change"):
        with pytest.raises(Conflict, match="is archived"):
            DOINGS[change]("shop", viewer.id or "", owner)
    members.remove("shop", viewer.id or "", by=owner)
