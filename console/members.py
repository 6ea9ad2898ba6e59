"""Members: who has which role in a project.

Every role is given, changed and taken here, by whichever way, and is one event of its project.
Whoever's roles change is signed out everywhere. What else is done to people is people.py's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired

from peewee import JOIN, fn
from pydantic import Field
from typing_extensions import TypedDict

from console import (
    activity,
    clock,
    db,
    invitations,
    key_rules,
    links,
    mail,
    paging,
    person_rows,
    projects,
    sessions,
)
from console.actor import ADMIN_ROLE, KEY, MEMBER, VIEWER, Actor
from console.errors import Conflict, Forbidden, Unknown
from console.fields import Email, Fields, Name, OneOf, text_schema
from console.invitations import Sent
from console.keys import has_status
from console.links import INVITATION
from console.models import ACTIVE, Key, Membership, Person, Project
from console.paging import Order, Page
from console.permissions import ADMIN, console_permissions
from console.person_fields import InvitationUrl, MailedTo, NotMailed, Role

ADDED, CHANGED, REMOVED = "member.added", "member.role_changed", "member.removed"
OWNER = "owner"  # of the installation, and so of every project
BY_NAME = [
    Order(fn.lower(Person.name), str, lambda person: person.name_order),
    Order(Person.id, str, lambda person: person.id),
]


class NewMember(Fields):
    """Whom to give a role: somebody who is known by this address, or a new person."""

    email: Email
    name: Name | None = Field(
        None,
        description="Of a new person; left out: the address up to its @. Who is known keeps theirs",
    )
    role: Role


class RoleChange(Fields):
    """Another role."""

    role: Role


class MemberObject(TypedDict):
    """A person who may do something in a project."""

    id: Annotated[str, text_schema("per_3Kq0cV8nTz5wYb2LmR7s")]
    email: str
    name: str
    role: Annotated[
        str,
        OneOf(OWNER, ADMIN_ROLE, MEMBER, VIEWER),
        Field(description="`owner`: of the whole installation; that is not changed here"),
    ]
    disabled: bool
    invited: Annotated[bool, Field(description="Whether they have not joined yet")]
    keys: Annotated[int, Field(description="How many keys of the project are theirs")]


class NewMemberObject(MemberObject):
    """A member and, where they have not joined yet, to whom the link that invites them was mailed;
    or else, this one time and if it gives you nothing that you have not, the link."""

    invitation_url: NotRequired[InvitationUrl]
    invitation_mailed_to: NotRequired[MailedTo]
    not_mailed: NotRequired[NotMailed]


@dataclass(frozen=True, slots=True)
class Member:
    """A person's role in a project, and how many of its keys they own, as both are now."""

    person: Person
    role: str
    keys: int

    @property
    def is_owner(self) -> bool:
        """Whether they have their rights from nobody here."""
        return self.role == OWNER


# --- read -----------------------------------------------------------------------------------


def page(
    slug: str, *, by: Actor, cursor: str | None = None, limit: int = paging.LIMIT_DEFAULT
) -> Page[Member]:
    """Who may do something in the project, owners of the installation included, by name.

    Raises Invalid, Unknown; Forbidden but for owners and admins.
    """
    project = project_to_lead(slug, by=by)
    found = paging.fetch(_members(project), BY_NAME, descending=False, cursor=cursor, limit=limit)
    rows = [_as_member(row) for row in found.rows]
    return Page(rows, found.next_cursor, found.previous_cursor)


def member_to_see(slug: str, person_id: str, *, by: Actor) -> Member:
    """One of them. Raises Unknown, alike for who is no member and who is nobody; Forbidden."""
    return _find_member(project_to_lead(slug, by=by), person_id)


def project_to_lead(slug: str, *, by: Actor) -> Project:
    """The project, where the actor says who belongs to it. Raises Unknown, Forbidden."""
    project = projects.to_see(slug, by=by)
    if by.kind != KEY and not by.may(ADMIN, project.id):
        raise Forbidden("Only owners, and admins of this project, see and change who is in it.")
    by.require(ADMIN, project.id)
    return project


def keys_of(slug: str, person_id: str, *, by: Actor, most: int) -> list[Key]:
    """Keys of the project that are the person's, in whatever state, by name and at most so many.
    Raises Unknown, Forbidden."""
    project = project_to_lead(slug, by=by)
    theirs = Key.select().where(Key.project == project, Key.owner == person_id)
    return list(theirs.order_by(Key.name_sort, Key.id).limit(most))


def keys_into_console(person_id: str) -> dict[str, int]:
    """How many keys that work and are the person's hold permissions of Latchkey's own API, by
    project id; whichever role the person gets, they keep them."""
    theirs = Key.select(Key.project, Key.permissions).where(Key.owner == person_id)
    working = theirs.where(has_status(ACTIVE, clock.now()))
    return Counter(key.project_id for key in working if console_permissions(key.permissions))


def _members(project: Project) -> Any:
    role = Membership.role.alias("role")
    of_theirs = (Key.owner == Person.id) & (Key.project == project)
    keys = Key.select(fn.count(Key.id)).where(of_theirs).alias("key_count")
    here = (Membership.person == Person.id) & (Membership.project == project)
    query: Any = Person.select(Person, role, keys, fn.lower(Person.name).alias("name_order"))
    query = query.join(Membership, JOIN.LEFT_OUTER, on=here)
    return query.where(Membership.role.is_null(False) | Person.is_owner).objects()


def _as_member(row: Any) -> Member:
    return Member(row, OWNER if row.is_owner else row.role, row.key_count)


def _find_member(project: Project, person_id: str) -> Member:
    # No id holds what a database could not compare.
    query = _members(project).where(Person.id == person_id)
    row = query.first() if person_id.isprintable() else None
    if row is None:
        raise Unknown("There is no such member.")
    return _as_member(row)


def as_dict(member: Member) -> MemberObject:
    """The member object of the API."""
    person = member.person
    return {
        "id": person.id,
        "email": person.email,
        "name": person.name,
        "role": member.role,
        "disabled": person.disabled_at is not None,
        "invited": person_rows.is_invited(person),
        "keys": member.keys,
    }


# --- change ---------------------------------------------------------------------------------


def add(slug: str, fields: Mapping[str, Any], *, by: Actor) -> tuple[Member, Sent | None]:
    """Gives a role to whoever has this address, and invites who has not joined yet; somebody new is
    a person from now on. Only people give roles: a key outlives its owner's.

    The link is in the answer only for whoever may do all that the person may; for others there is
    one by mail, or none. Raises Unknown, Forbidden, NotFresh, Invalid; Conflict for who has a role
    here already.
    """
    project = project_to_lead(slug, by=by)
    _refuse_keys(by)
    by.require_fresh()
    new = NewMember.read(fields)
    with db.write():
        person_rows.hold_people(by)
        key_rules.held_open(project.id)
        person = Person.get_or_none(Person.email == new.email)
        if person is None:
            person = person_rows.create(new.email, new.name, by=by)
        else:
            person = person_rows.person_to_change(person.id, by=by)
            _refuse_member(person, project)
        _set_role(person, project.id, None, new.role, by)
        may_see = invitations.may_invite(person, by)
        is_waiting = person_rows.is_invited(person) and person.disabled_at is None
        made = None
        if is_waiting and (may_see or mail.is_on()):
            made = invitations.make(INVITATION, person, by=by)
        member = _find_member(project, person.id)
    sent = invitations.send(made) if made else None
    return member, replace(sent, url=None) if sent and not may_see else sent


def _refuse_member(person: Person, project: Project) -> None:
    if person.is_owner:
        raise Conflict(
            f"{person.email} is an owner and may do everything here already.",
            fields={"email": "is an owner's"},
        )
    if _role_of(person, project.id) is not None:
        raise Conflict(
            f"{person.email} has a role in this project already; change that one.",
            fields={"email": "has a role here already"},
        )


def invite(slug: str, person_id: str, *, by: Actor) -> Sent:
    """A new invitation for a member who has not joined yet; an older one ends now.

    Raises Unknown, NotFresh; Forbidden for who may do what the actor may not; Conflict for who has
    joined, by whichever way, or is disabled.
    """
    project = project_to_lead(slug, by=by)
    person = _find_member(project, person_id).person
    by.require_fresh()
    if not person_rows.is_invited(person):
        raise Conflict(f"{person.email} has joined already.")
    return invitations.invite_member(person_id, by=by)


def change_role(slug: str, person_id: str, fields: Mapping[str, Any], *, by: Actor) -> Member:
    """Gives a member another role. Raises Unknown, Forbidden, NotFresh, Invalid; Conflict for an
    owner of the installation, and in an archived project."""
    project = _project_of(slug, person_id, by=by)
    wanted = RoleChange.read(fields).role
    with db.write():
        member = _member_to_change(project, person_id, by)
        key_rules.held_open(project.id)
        if wanted != member.role:
            _set_role(member.person, project.id, member.role, wanted, by)
        return Member(member.person, wanted, member.keys)


def remove(slug: str, person_id: str, *, by: Actor) -> Member:
    """Takes the member's role; the answer is how they were. Keys that are theirs stay, and go on
    working. Raises Unknown, Forbidden, NotFresh; Conflict for an owner of the installation."""
    project = _project_of(slug, person_id, by=by)
    with db.write():
        member = _member_to_change(project, person_id, by)
        _set_role(member.person, project.id, member.role, None, by)
        return member


def _project_of(slug: str, person_id: str, *, by: Actor) -> Project:
    """The project in which the actor may change this member. Raises what a change does."""
    project = project_to_lead(slug, by=by)
    _refuse_keys(by)
    _find_member(project, person_id)
    by.require_fresh()
    return project


def _refuse_keys(by: Actor) -> None:
    """A key outlives the role of whoever made it, and would give it back."""
    if by.kind == KEY:
        raise Forbidden("No key gives or takes roles: use the access token of an owner or admin.")


def _member_to_change(project: Project, person_id: str, by: Actor) -> Member:
    """The member as they are now, held for this transaction: people first, then the project."""
    person_rows.hold_people(by)
    projects.held(project.id)
    _find_member(project, person_id)
    person_rows.person_to_change(person_id, by=by)
    member = _find_member(project, person_id)
    if member.is_owner:
        raise Conflict(
            f"{member.person.email} is an owner of the installation; that is changed under People."
        )
    return member


def _role_of(person: Person, project_id: str) -> str | None:
    of_both = (Membership.person == person) & (Membership.project == project_id)
    found = Membership.get_or_none(of_both)
    return found.role if found else None


# --- roles, whoever gives them --------------------------------------------------------------


def set_roles(person: Person, role_in: Mapping[str, str], *, by: Actor) -> bool:
    """These roles, by project id, and no others; whether that changed anything. In the caller's
    transaction, which holds the person and the projects."""
    of_person = Membership.person == person
    before = {one.project_id: one.role for one in Membership.select().where(of_person)}
    changed = [one for one in {**before, **role_in} if before.get(one) != role_in.get(one)]
    for project_id in changed:
        _set_role(person, project_id, before.get(project_id), role_in.get(project_id), by)
    return bool(changed)


def _set_role(person: Person, project_id: str, old: str | None, new: str | None, by: Actor) -> None:
    """The one place where a role begins, changes or ends, and its event; None is no role. Raises
    what `person_rows.refuse_unproven` does."""
    if new is not None:
        person_rows.refuse_unproven(person, project_id)
    of_both = (Membership.person == person) & (Membership.project == project_id)
    if new is None:
        Membership.delete().where(of_both).execute()
    elif old is None:
        Membership.create(person=person, project=project_id, role=new)
    else:
        Membership.update(role=new).where(of_both).execute()
    sessions.end_all(person)
    links.end_made_by(person.id)
    if new is not None:
        # Whoever holds an open link may have less than the person gets now.
        links.end(INVITATION, person.id)
    activity.record(
        ADDED if old is None else REMOVED if new is None else CHANGED,
        by=by,
        target_id=person.id,
        target_name=person.email,
        project_id=project_id,
        changes={"role": (old, new)},
    )
