"""People: the first owner through the link; who is added, changed and removed, and that an owner
stays."""

import hashlib
import json
import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from console import (
    alerts,
    chain,
    check,
    db,
    first_owner,
    invitations,
    journal,
    key_many,
    keys,
    members,
    offboarding,
    passwords,
    people,
    person_rows,
    sessions,
    signin,
)
from console import clock as console_clock
from console.actor import Actor
from console.alert_rules import UNUSED
from console.alerts import Finding
from console.errors import Conflict, Forbidden, Invalid, Refused, Unauthenticated, Unknown
from console.models import Alert, Event, Key, Link, Membership, Person, Project, Session
from tests.conftest import PASSWORD, Clock, MakeKey, add_person, at_once, token_of

SIGNING_KEY = "s" * 40
ADA = {"email": "ada@example.com", "password": PASSWORD}
VISITOR = Actor(kind="person", id=None, name="set-up link", ip="192.0.2.7")


def setup_link() -> str:
    token = first_owner.issue_setup_link()
    assert token is not None
    return token


def disable(email: str) -> None:
    Person.update(disabled_at=console_clock.now()).where(Person.email == email).execute()


def refusal_code(email: str, password: str) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        signin.with_password(email, password, ip=None)
    return refusal.value.code


def holder(text: str, signing_key: str = SIGNING_KEY) -> str:
    return sessions.by_access_token(text, signing_key=signing_key, ip=None, request_id=None).name


# --- the first owner ------------------------------------------------------------------------


def test_the_link_makes_the_first_owner_and_their_project(app: Flask) -> None:
    person = first_owner.set_up(
        setup_link(), {**ADA, "name": "Ada", "project": "My Shop"}, by=VISITOR
    )
    assert (person.email, person.name, person.is_owner) == ("ada@example.com", "Ada", True)
    assert (Project.get().slug, Project.get().name) == ("my-shop", "My Shop")
    created = [(event.action, event.actor_name) for event in Event.select().order_by(Event.id)]
    assert created == [("person.created", "set-up link"), ("project.created", "ada@example.com")]


def test_the_link_works_once(app: Flask) -> None:
    token = setup_link()
    first_owner.set_up(token, ADA, by=VISITOR)
    with pytest.raises(Unknown, match="has been set up"):
        first_owner.set_up(token, {**ADA, "email": "eve@example.com"}, by=VISITOR)
    assert Person.select().count() == 1
    assert not Link.select().exists()
    assert first_owner.issue_setup_link() is None


@pytest.mark.parametrize("links", [1, 3])
def test_of_ten_that_open_the_link_at_once_one_becomes_the_owner(app: Flask, links: int) -> None:
    tokens = [setup_link() for _ in range(links)]

    def attempt(number: int) -> str:
        fields = {"email": f"p{number}@example.com", "password": PASSWORD}
        return first_owner.set_up(tokens[number % links], fields, by=VISITOR).name

    answers = sorted(getattr(answer, "code", answer) for answer in at_once(10, attempt))
    assert answers[:9] == ["NOT_FOUND"] * 9
    assert [person.name for person in Person.select()] == answers[9:]
    assert Project.select().count() == 1


@pytest.mark.parametrize("token", ["", "x", "\0", "t\u00f6ken", "x" * 100_000])
def test_a_link_that_was_not_printed_does_not_hold(app: Flask, token: str) -> None:
    setup_link()
    with pytest.raises(Forbidden, match="Open the set-up link that the server printed"):
        first_owner.set_up(token, ADA, by=VISITOR)
    assert not people.anybody_yet()


def test_a_link_ends_after_a_week(app: Flask, clock: Clock) -> None:
    token = setup_link()
    clock.move("7d")
    clock.move_ms(-1)
    first_owner.refuse_setup_unless_open(token)
    clock.move_ms(1)
    with pytest.raises(Forbidden):
        first_owner.set_up(token, ADA, by=VISITOR)
    assert not people.anybody_yet()


def test_a_link_of_another_kind_does_not_hold(app: Flask) -> None:
    token = setup_link()
    Link.update(kind="invitation").execute()
    with pytest.raises(Forbidden):
        first_owner.set_up(token, ADA, by=VISITOR)


def test_only_the_links_digest_is_stored(app: Flask) -> None:
    token = setup_link()
    assert Link.get().digest == hashlib.sha256(token.encode()).hexdigest()


def test_a_form_at_fault_leaves_the_link_open(app: Flask) -> None:
    token = setup_link()
    with pytest.raises(Invalid) as refusal:
        first_owner.set_up(token, {"email": "ada", "password": "short"}, by=VISITOR)
    assert set(refusal.value.fields) == {"email", "password"}
    first_owner.set_up(token, ADA, by=VISITOR)


def test_a_project_that_is_there_already_is_kept(project: Project) -> None:
    first_owner.set_up(setup_link(), {**ADA, "project": "Another"}, by=VISITOR)
    assert [p.slug for p in Project.select()] == ["shop"]


def test_a_name_without_latin_letters_still_makes_a_project(app: Flask) -> None:
    first_owner.set_up(setup_link(), {**ADA, "project": "\u65e5\u672c"}, by=VISITOR)
    assert (Project.get().slug, Project.get().name) == ("project", "\u65e5\u672c")


# --- further owners, and what may be in the fields ------------------------------------------


def test_an_owner_adds_owners_and_nobody_else_does(
    operator: Actor, owner: Actor, admin: Actor
) -> None:
    people.create_owner({**ADA, "email": "grace@example.com"}, by=owner)
    people.create_owner({**ADA, "email": "edith@example.com"}, by=operator)
    with pytest.raises(Forbidden, match="Only an owner sees and changes people"):
        people.create_owner({**ADA, "email": "eve@example.com"}, by=admin)
    assert Person.select().where(Person.is_owner).count() == 3


@pytest.mark.parametrize("email", ["ada@example.com", " ADA@Example.COM "])
def test_a_known_address_is_a_conflict(owner: Actor, email: str) -> None:
    with pytest.raises(Conflict, match="ada@example.com is a person already") as refusal:
        people.create_owner({**ADA, "email": email}, by=owner)
    assert refusal.value.fields == {"email": "is taken"}


def test_of_ten_that_take_an_address_at_once_one_gets_it(
    app: Flask, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_there = threading.Barrier(10)
    monkeypatch.setattr(people, "chosen", lambda _, about: str(all_there.wait(30)))

    found = at_once(10, lambda _: people.create_owner(ADA, by=operator).email)
    answers = sorted(getattr(answer, "code", answer) for answer in found)
    assert answers == ["CONFLICT"] * 9 + ["ada@example.com"]


@pytest.mark.parametrize(
    "email",
    ["ada@example.com", "ada@localhost", "ada+keys@example.com", "\u00e4da@b\u00fccher.example",
     "a" * 242 + "@example.com"],
)  # fmt: skip
def test_an_address_may_be(operator: Actor, email: str) -> None:
    assert people.create_owner({**ADA, "email": email}, by=operator).email == email


@pytest.mark.parametrize(
    "email",
    ["", "ada", "@example.com", "ada@", "ada@.", "ada@example..com", "ada@example.com.",
     "a@b@example.com", "a da@example.com", "<ada>@example.com", "\ufffdda@example.com",
     '"><script>@example.com', "ada@[example.com", "ada\u00a0@example.com", "ada@exa\nmple.com",
     "ada@example.com\0", "ad\u200ba@example.com", "\ud800@example.com",
     "a" * 243 + "@example.com", "\u212aim@example.com", "kim@example.\uff43om",
     "\u0130da@example.com", "\ufb01n@example.com"],
)  # fmt: skip
def test_another_address_is_refused(operator: Actor, email: str) -> None:
    with pytest.raises(Invalid) as refusal:
        people.create_owner({**ADA, "email": email}, by=operator)
    assert list(refusal.value.fields) == ["email"]
    assert not people.anybody_yet()


def test_one_address_is_one_person_however_it_is_typed(operator: Actor) -> None:
    composed, decomposed = "ren\u00e9@example.com", " Rene\u0301@EXAMPLE.com"
    people.create_owner({**ADA, "email": decomposed}, by=operator)
    assert Person.get().email == composed
    for typed in (composed, decomposed):
        assert signin.with_password(typed, PASSWORD, ip=None)[1].email == composed


def test_no_address_becomes_somebody_elses(operator: Actor) -> None:
    """The Kelvin sign is a k to whatever makes letters small."""
    kim = people.create_owner({**ADA, "email": "kim@example.com"}, by=operator)
    with pytest.raises(Unauthenticated):
        signin.with_password("\u212aim@example.com", PASSWORD, ip=None)
    with pytest.raises(Invalid) as refusal:
        people.edit(kim.id, {"email": "\u212aim@example.org"}, by=operator)
    assert "must not contain U+212A: write the plain letter" in refusal.value.fields["email"]


# --- people with roles, and people who are invited ------------------------------------------

GRACE = {"email": "grace@example.com"}


def add(by: Actor, **fields: Any) -> tuple[Person, str | None]:
    person, invitation = people.create({**GRACE, **fields}, by=by)
    return person, token_of(invitation) if invitation else None


def invite(by: Actor, **fields: Any) -> tuple[Person, str]:
    person, token = add(by, **fields)
    assert token is not None
    return person, token


def last_event(action: str) -> Event:
    return Event.select().where(Event.action == action).order_by(Event.id.desc()).get()


def test_a_person_with_a_password_signs_in_at_once(owner: Actor) -> None:
    person, token = add(owner, name="Grace", password=PASSWORD, roles={"shop": "viewer"})
    assert token is None
    session, _ = signin.with_password(person.email, PASSWORD, ip=None)
    actor = sessions.by_session(session)
    assert actor is not None and not actor.is_owner
    assert list(actor.roles.values()) == ["viewer"]
    assert people.as_dict(person)["invited"] is False


def test_a_person_without_a_password_is_invited(owner: Actor) -> None:
    person, token = invite(owner)
    assert (person.name, person.password_hash) == ("grace", None)
    assert people.as_dict(person)["invited"] is True
    assert invitations.invited(token) == person
    link = Link.get()
    assert link.digest == hashlib.sha256(token.encode()).hexdigest()
    assert (link.kind, link.person_id) == ("invitation", person.id)


def test_creating_a_person_leaves_an_event_without_secrets(owner: Actor, project: Project) -> None:
    _, token = invite(owner, roles={"shop": "admin"})
    event = last_event("person.created")
    assert (event.actor_id, event.target_name) == (owner.id, "grace@example.com")
    assert event.changes == {
        "email": [None, "grace@example.com"], "name": [None, "grace"], "owner": [None, False],
    }  # fmt: skip
    assert last_event("member.added").changes == {"role": [None, "admin"]}
    assert token not in json.dumps(event.changes)


def test_a_role_in_a_project_that_is_not_there_is_named(owner: Actor, project: Project) -> None:
    roles = {"shop": "admin", "nowhere": "viewer", "SHOP": "member", "": "member"}
    for refused in (
        lambda: add(owner, roles=roles),
        lambda: people.edit(owner.id or "", {"roles": roles}, by=owner),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert refusal.value.fields == {
            f"roles.{slug}": "there is no such project" for slug in ("nowhere", "SHOP", "")
        }
    assert Person.select().count() == 1 and not Membership.select().exists()


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"roles": {"shop": "king"}}, "roles.shop"),
        ({"roles": {"shop": None}}, "roles.shop"),
        ({"roles": ["shop"]}, "roles"),
        ({"roles": None}, "roles"),
        ({"owner": "yes"}, "owner"),
        ({"owner": None}, "owner"),
        ({"password": "short"}, "password"),
        ({"email": "grace"}, "email"),
        ({"name": "Gr\u202eace"}, "name"),
        ({"password_hash": "x"}, "password_hash"),
        ({"id": "per_1"}, "id"),
    ],
)
def test_a_persons_field_at_fault_is_named(
    owner: Actor, fields: dict[str, Any], field: str
) -> None:
    for refused in (
        lambda: add(owner, **fields),
        lambda: people.edit(owner.id or "", fields, by=owner),
    ):
        with pytest.raises(Invalid) as refusal:
            refused()
        assert list(refusal.value.fields) == [field]
    assert Person.select().count() == 1


def test_very_many_unknown_projects_are_not_all_named(owner: Actor) -> None:
    with pytest.raises(Invalid) as refusal:
        add(owner, roles={f"p{number}": "viewer" for number in range(40_000)})
    assert len(refusal.value.fields) == 20


# --- changing a person ------------------------------------------------------------------------


def test_an_edit_changes_what_is_sent_alone(owner: Actor, member: Actor, project: Project) -> None:
    before = people.as_dict(people.person_to_see(member.id or "", by=owner))
    edited = people.edit(member.id or "", {"name": "Robert"}, by=owner)
    assert people.as_dict(edited) == {**before, "name": "Robert"}
    assert last_event("person.edited").changes == {"name": ["bob", "Robert"]}
    assert before["roles"] == {"shop": "member"}


def test_what_a_person_is_already_leaves_no_event(owner: Actor, member: Actor) -> None:
    events = Event.select().count()
    same = {"email": " BOB@example.com", "name": "bob", "owner": False, "disabled": False,
            "roles": {"shop": "member"}}  # fmt: skip
    people.edit(member.id or "", same, by=owner)
    people.edit(member.id or "", {}, by=owner)
    assert Event.select().count() == events
    assert Session.select().where(Session.person == member.id).exists()


def test_roles_replace_all_that_there_were(
    owner: Actor, member: Actor, other_project: Project
) -> None:
    def roles(**wanted: str) -> dict[str, str]:
        return people.as_dict(people.edit(member.id or "", {"roles": wanted}, by=owner))["roles"]

    assert roles(shop="admin", other="viewer") == {"shop": "admin", "other": "viewer"}
    assert last_event("member.role_changed").changes == {"role": ["member", "admin"]}
    assert last_event("member.added").changes == {"role": [None, "viewer"]}
    assert roles(other="viewer") == {"other": "viewer"}
    assert last_event("member.removed").changes == {"role": ["admin", None]}
    assert roles() == {}


def test_a_taken_address_is_a_conflict_in_an_edit(owner: Actor, member: Actor) -> None:
    with pytest.raises(Conflict) as refusal:
        people.edit(member.id or "", {"email": "Ada@example.com", "name": "Bo"}, by=owner)
    assert refusal.value.fields == {"email": "is taken"}
    assert Person.get_by_id(member.id).name == "bob"


def test_of_two_that_take_an_address_at_once_one_gets_it(
    app: Flask, owner: Actor, member: Actor, viewer: Actor
) -> None:
    ids = [member.id or "", viewer.id or ""]
    change = {"email": "new@example.com"}
    answers = at_once(2, lambda number: people.edit(ids[number], change, by=owner).email)
    assert sorted(getattr(answer, "code", answer) for answer in answers) == [
        "CONFLICT", "new@example.com"]  # fmt: skip


def test_no_event_and_no_object_tells_a_password(owner: Actor, member: Actor) -> None:
    new = "a new password"
    people.edit(member.id or "", {"password": new}, by=owner)
    assert last_event("person.edited").changes == {"password": ["set", "changed"]}
    add(owner, password=new)
    told = json.dumps([event.changes for event in Event.select()])
    told += json.dumps([people.as_dict(person) for person in Person.select()])
    assert new not in told and "argon2" not in told and "hash" not in told


ENDING = {
    "disabled": {"disabled": True},
    "password": {"password": "a new password"},
    "the same password": {"password": PASSWORD},
    "roles": {"roles": {"shop": "admin"}},
    "owner": {"owner": True},
}


@pytest.mark.parametrize("change", ENDING.values(), ids=ENDING.keys())
def test_a_change_of_rights_ends_all_sessions_at_once(
    owner: Actor, member: Actor, change: dict[str, Any]
) -> None:
    browser, _ = signin.with_password("bob@example.com", PASSWORD, ip=None)
    text, _ = signin.for_script(
        "bob@example.com", PASSWORD, signing_key=SIGNING_KEY, ip=None, user_agent=""
    )
    people.edit(member.id or "", {"name": "Robert", "email": "bob@example.com"}, by=owner)
    assert sessions.by_session(browser) and holder(text)
    people.edit(member.id or "", change, by=owner)
    assert sessions.by_session(browser) is None
    with pytest.raises(Unauthenticated):
        holder(text)
    assert not Session.select().where(Session.person == member.id).exists()
    assert Session.select().where(Session.person == owner.id).exists()


def test_a_sign_in_with_a_password_that_is_changed_meanwhile_fails(
    owner: Actor, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = passwords.fits

    def compare(password: str, password_hash: str | None) -> bool:
        found = fits(password, password_hash)
        people.edit(member.id or "", {"password": "a new password"}, by=owner)
        return found

    monkeypatch.setattr(passwords, "fits", compare)
    assert refusal_code("bob@example.com", PASSWORD) == "CREDENTIALS_INVALID"
    assert not Session.select().where(Session.person == member.id).exists()


def test_who_is_disabled_cannot_sign_in_until_enabled_again(owner: Actor, member: Actor) -> None:
    people.edit(member.id or "", {"disabled": True}, by=owner)
    assert refusal_code("bob@example.com", PASSWORD) == "CREDENTIALS_INVALID"
    assert last_event("person.disabled").changes == {"disabled": [False, True]}
    people.edit(member.id or "", {"disabled": True}, by=owner)
    people.edit(member.id or "", {"disabled": False}, by=owner)
    signin.with_password("bob@example.com", PASSWORD, ip=None)
    assert last_event("person.enabled").changes == {"disabled": [True, False]}
    assert Event.select().where(Event.action == "person.disabled").count() == 1
    assert not Event.select().where(Event.action == "person.edited").exists()


def test_an_owners_roles_count_again_once_they_are_no_owner(owner: Actor, project: Project) -> None:
    person, _ = add(owner, password=PASSWORD, owner=True, roles={"shop": "viewer"})
    token, _ = signin.with_password(person.email, PASSWORD, ip=None)
    actor = sessions.by_session(token)
    assert actor is not None and actor.is_owner and not actor.roles
    people.edit(person.id, {"owner": False}, by=owner)
    token, _ = signin.with_password(person.email, PASSWORD, ip=None)
    actor = sessions.by_session(token)
    assert actor is not None and actor.roles == {project.id: "viewer"}


# --- the last owner ---------------------------------------------------------------------------

UNDOING: dict[str, Callable[[str, Actor], Any]] = {
    "demoted": lambda person_id, by: people.edit(person_id, {"owner": False}, by=by),
    "disabled": lambda person_id, by: people.edit(person_id, {"disabled": True}, by=by),
    "deleted": lambda person_id, by: people.delete(person_id, by=by),
}


@pytest.mark.parametrize("undo", UNDOING.values(), ids=UNDOING.keys())
def test_the_last_owner_who_can_sign_in_stays(
    owner: Actor, undo: Callable[[str, Actor], Any]
) -> None:
    invite(owner, owner=True)
    out, _ = add(owner, email="out@example.com", password=PASSWORD, owner=True)
    people.edit(out.id, {"disabled": True}, by=owner)
    events = Event.select().count()
    with pytest.raises(Conflict, match="is the last owner who can sign in"):
        undo(owner.id or "", owner)
    assert Event.select().count() == events
    assert signin.with_password("ada@example.com", PASSWORD, ip=None)[1].is_owner
    people.edit(out.id, {"disabled": False}, by=owner)
    undo(owner.id or "", owner)


@pytest.mark.parametrize("undo", UNDOING.values(), ids=UNDOING.keys())
def test_an_owner_who_cannot_sign_in_may_go(
    owner: Actor, undo: Callable[[str, Actor], Any]
) -> None:
    person, _ = invite(owner, owner=True)
    undo(person.id, owner)


@pytest.mark.parametrize("first", UNDOING)
@pytest.mark.parametrize("second", UNDOING)
def test_of_two_owners_who_undo_each_other_at_once_one_stays(
    app: Flask, owner: Actor, first: str, second: str
) -> None:
    grace = add_person("grace@example.com", is_owner=True)
    calls = [lambda: UNDOING[first](grace.id or "", owner),
             lambda: UNDOING[second](owner.id or "", grace)]  # fmt: skip
    answers = at_once(2, lambda number: calls[number]())
    assert [answer.code for answer in answers if isinstance(answer, Refused)] == ["CONFLICT"]
    assert len([person for person in Person.select() if person_rows.is_local_owner(person)]) == 1


# --- removing a person ------------------------------------------------------------------------


def test_a_deleted_person_is_gone_with_all_they_held(
    owner: Actor, member: Actor, project: Project
) -> None:
    token, _ = signin.with_password("bob@example.com", PASSWORD, ip=None)
    person, invitation = invite(owner)
    for one in (member.id or "", person.id):
        people.delete(one, by=owner)
        with pytest.raises(Unknown):
            people.person_to_see(one, by=owner)
    assert sessions.by_session(token) is None
    with pytest.raises(Forbidden):
        invitations.join(invitation, {"password": PASSWORD}, by=VISITOR)
    assert not Link.select().exists() and not Membership.select().exists()
    assert [event.changes["email"] for event in Event.select().where(
        Event.action == "person.deleted")] == [
        ["bob@example.com", None], ["grace@example.com", None]]  # fmt: skip


def test_a_person_who_owns_keys_is_not_deleted(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key(by=member)
    keys.revoke(key.id, by=owner)
    words = "bob@example.com owns 1 key: hand over or delete every one first"
    with pytest.raises(Conflict, match=words):
        people.delete(member.id or "", by=owner)
    keys.delete(key.id, by=owner)
    people.delete(member.id or "", by=owner)


def test_a_disabled_persons_keys_go_on_working(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    _, secret = make_key(by=member)
    people.edit(member.id or "", {"disabled": True}, by=owner)
    assert check.check(check.Request(secret, "req_1")).is_valid


def test_a_new_address_shows_at_the_persons_keys(
    owner: Actor, member: Actor, make_key: MakeKey
) -> None:
    _, secret = make_key(by=member)
    assert check.check(check.Request(secret, "req_1")).is_valid
    people.edit(member.id or "", {"email": "robert@example.com"}, by=owner)
    key = check.check(check.Request(secret, "req_2")).key
    assert key is not None and key.owner == "robert@example.com"


# --- who may ----------------------------------------------------------------------------------

DOINGS: dict[str, Callable[[str, Actor], Any]] = {
    "create": lambda person_id, by: add(by),
    "list": lambda person_id, by: people.page(by=by),
    "read": lambda person_id, by: people.person_to_see(person_id, by=by),
    "edit": lambda person_id, by: people.edit(person_id, {"name": "New"}, by=by),
    "invite": lambda person_id, by: invitations.invite(person_id, by=by),
    "delete": lambda person_id, by: people.delete(person_id, by=by),
}


@pytest.mark.parametrize("do", DOINGS.values(), ids=DOINGS.keys())
def test_people_are_an_owners_alone(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor, project: Project,
    do: Callable[[str, Actor], Any],
) -> None:  # fmt: skip
    invitee, _ = invite(owner, email="invitee@example.com")
    key = Actor(
        kind="key", id="key_1", name="CI", owner_id=owner.id, project_id=project.id,
        permissions=frozenset({"admin:*"}),
    )  # fmt: skip
    for by in (admin, member, viewer, stranger, key):
        for person_id in (invitee.id, by.id or "", "per_missing"):
            with pytest.raises(Forbidden, match="Only an owner"):
                do(person_id, by)
    do(invitee.id, owner)


@pytest.mark.parametrize("do", [*DOINGS][2:])
@pytest.mark.parametrize("person_id", ["per_missing", "", "\0", "\ud800", "ada@example.com", "%"])
def test_a_person_who_is_not_there_is_unknown(owner: Actor, do: str, person_id: str) -> None:
    with pytest.raises(Unknown, match="There is no such person"):
        DOINGS[do](person_id, owner)


def test_pages_meet_everybody_once_while_others_are_added(owner: Actor) -> None:
    for number in range(4):
        add(owner, email=f"p{number}@example.com")
    met: list[str] = []
    cursor = None
    while True:
        page = people.page(by=owner, cursor=cursor, limit=2)
        met += [person.email for person in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
        add(owner, email=f"later{len(met)}@example.com")
    assert sorted(met) == ["ada@example.com", *(f"p{number}@example.com" for number in range(4))]


def test_nobody_waits_for_each_other_in_a_circle(
    app: Flask, owner: Actor, member: Actor, viewer: Actor, project: Project, make_key: MakeKey
) -> None:
    """Whoever holds several things holds them in one order; on PostgreSQL the others would fail."""
    made = [make_key(name=f"K{number}", by=member) for number in range(6)]
    ids = [key.id for key, _ in made]

    def use(number: int) -> None:
        for _, text in made[:: -1 if number % 2 else 1]:
            check.check(check.Request(text, request_id=secrets.token_hex(8)))
        journal.settle()

    def tell(number: int) -> None:
        some = [keys.joined().where(Key.id == key_id).get() for key_id in ids]
        facts = {"unused_since": "2026-11-20T10:30:00Z"}
        found = [Finding(UNUSED, key, number // 12, facts=facts) for key in some]
        with db.write():
            alerts.report(found[:: -1 if number % 24 else 1], console_clock.now())

    def acknowledge(number: int) -> None:
        open_now = [one.id for one in Alert.select().where(Alert.state == "open").limit(4)]
        alerts.acknowledge_many(open_now, by=owner)

    doings: list[Callable[[int], Any]] = [
        tell,
        acknowledge,
        lambda number: key_many.revoke(ids[number % 3 :: 3], by=owner),
        lambda number: keys.restore(ids[number % 6], by=owner),
        use,
        lambda number: signin.with_password(member.name, PASSWORD, ip=f"203.0.{number}.1"),
        lambda number: people.edit(member.id or "", {"name": f"Bob {number}"}, by=owner),
        lambda number: members.change_role(
            "shop", member.id or "", {"role": ("admin", "member")[number % 2]}, by=owner
        ),
        lambda number: keys.edit(ids[number % 6], {"owner": member.name}, by=owner),
        lambda number: offboarding.hand_over_keys(member.id or "", owner.name, by=owner),
        lambda number: key_many.extend(reversed(ids), {"expires_in": f"{number + 1}d"}, by=owner),
        lambda number: keys.create({"name": "New", "project": "shop"}, by=member),
    ]
    for turn in range(4):
        at_once(24, lambda number, turn=turn: doings[number % 12](number + 24 * turn))
    journal.settle()
    assert chain.verify().broken is None
