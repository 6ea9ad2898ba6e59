"""People: how they come to exist, change and go.

What a person's fields may hold is said in person_fields.py, what a role is in members.py, how they
sign in in signin.py. Whoever writes to the table of people holds it first, and projects before
persons: so no two changes wait for each other.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import peewee
from peewee import fn

from console import (
    clock,
    db,
    invitations,
    keys,
    links,
    members,
    offboarding,
    paging,
    person_rows,
    projects,
    second_factor,
    sessions,
)
from console.actor import Actor
from console.errors import Conflict, Invalid
from console.fields import edition
from console.invitations import Sent
from console.links import INVITATION
from console.models import ACTIVE, Key, Membership, Passkey, Person, Project
from console.paging import Order, Page
from console.passwords import chosen
from console.person_fields import (
    NewOwner,
    NewPerson,
    PersonChange,
    PersonObject,
    PersonQuery,
)
from console.person_rows import (
    CHANGED,
    SET,
    facts,
    find_person,
    hold_people,
    person_to_change,
    record,
    refuse_but_owners,
    refuse_taken,
)

NEWEST = [
    Order(Person.created_at, int, lambda person: person.created_at),
    Order(Person.id, str, lambda person: person.id),
]
# Which changes end the sessions and the one-time links that there are.
ENDS_SESSIONS = frozenset({"password", "owner"})
ENDS_LINKS = frozenset({"password", "email", "owner"})

# --- add ------------------------------------------------------------------------------------


def create(fields: Mapping[str, Any], *, by: Actor) -> tuple[Person, Sent | None]:
    """A new person and, where no password was given, the invitation that was sent to them.

    Raises Forbidden but for owners, NotFresh, Invalid; Conflict when the address is known.
    """
    refuse_but_owners(by)
    by.require_fresh()
    new = NewPerson.read(fields)
    about = [new.email, new.name]
    password_hash = None if new.password is None else chosen(new.password, about=about)
    with db.write():
        hold_people(by)
        person = add_person(
            new.email, new.name, password_hash, is_owner=new.owner, roles=new.roles, by=by
        )
        made = None if password_hash else invitations.make(INVITATION, person, by=by)
    return person, invitations.send(made) if made else None


def create_owner(fields: Mapping[str, Any], *, by: Actor) -> Person:
    """An owner who can sign in at once. Raises what `create` does."""
    new = NewOwner.read(fields)
    person, _ = create({**new.model_dump(exclude_unset=True), "owner": True}, by=by)
    return person


def add_person(
    email: str,
    name: str | None,
    password_hash: str | None,
    *,
    is_owner: bool,
    roles: Mapping[str, str],
    by: Actor,
) -> Person:
    """A new person with these roles, by slug, in the caller's transaction. Raises Conflict,
    Invalid."""
    role_in = _projects_held(roles)
    person = person_rows.create(email, name, password_hash, is_owner=is_owner, by=by)
    members.set_roles(person, role_in, by=by)
    return person


def _projects_held(roles: Mapping[str, str]) -> dict[str, str]:
    """The roles by their projects' ids; the projects stay until the transaction ends. Raises
    Invalid."""
    known = {project.slug: project.id for project in Project.select(Project.slug, Project.id)}
    unknown = [slug for slug in roles if slug not in known][: NewPerson.shown_max]
    if unknown:
        raise Invalid({f"roles.{slug}": "there is no such project" for slug in unknown})
    role_in = {known[slug]: role for slug, role in roles.items()}
    for project_id in sorted(role_in):
        projects.held(project_id)
    return role_in


def anybody_yet() -> bool:
    return bool(Person.select().exists())


# --- read -----------------------------------------------------------------------------------


def page(
    *,
    by: Actor,
    q: str | None = None,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
) -> Page[Person]:
    """Everybody, or whose name or address has `q` in it, newest first.

    Raises Invalid; Forbidden but for owners.
    """
    refuse_but_owners(by)
    asked = PersonQuery.read({} if q is None else {"q": q})
    found = Person.select().where(_has(asked.q)) if asked.q else Person.select()
    return paging.fetch(found, NEWEST, descending=True, cursor=cursor, limit=limit)


def _has(text: str) -> Any:
    # SQLite knows only the small letters of A to Z by their large ones.
    cases = {text, text.lower(), text.upper(), text.title()}
    named = [Person.name.contains(one) for one in cases]
    return reduce(or_, named, Person.email.contains(text.lower()))


def person_to_see(person_id: str, *, by: Actor) -> Person:
    """The person. Raises Forbidden but for owners, Unknown."""
    refuse_but_owners(by)
    return find_person(person_id)


@dataclass(frozen=True, slots=True)
class Owned:
    """How many keys of a project are somebody's, and how many of those are active."""

    project: Project
    keys: int
    active: int


def owned_by(person_id: str, *, by: Actor) -> list[Owned]:
    """Which projects have keys of the person's, revoked and expired ones too; by name.

    Raises Forbidden but for owners; Unknown.
    """
    person = person_to_see(person_id, by=by)
    active = peewee.Case(None, [(keys.has_status(ACTIVE, clock.now()), 1)], 0)
    query: Any = Key.select(Key.project, fn.count(Key.id), fn.sum(active))
    counts = query.where(Key.owner == person).group_by(Key.project).tuples()
    found = {project_id: (number, int(works)) for project_id, number, works in counts}
    return [Owned(one, *found[one.id]) for one in projects.seen(by) if one.id in found]


def roles_of(people: Iterable[Person]) -> dict[str, dict[str, str]]:
    """The roles of each of them, by the projects' slugs."""
    found: dict[str, dict[str, str]] = {person.id: {} for person in people}
    query: Any = (
        Membership.select(Membership.person, Project.slug, Membership.role)
        .join(Project)
        .where(Membership.person.in_(list(found)))
        .order_by(Project.slug)
    )
    for person_id, slug, role in query.tuples():
        found[person_id][slug] = role
    return found


def as_dicts(people: Sequence[Person]) -> list[PersonObject]:
    """The person objects of the API."""
    roles = roles_of(people)
    asked = _with_second_factor(people)
    return [
        {
            "id": person.id,
            "email": person.email,
            "name": person.name,
            "owner": person.is_owner,
            "roles": roles[person.id],
            "disabled": person.disabled_at is not None,
            "invited": person_rows.is_invited(person),
            "second_factor": person.id in asked,
            "last_signed_in_at": (
                None if person.last_signed_in_at is None else clock.iso(person.last_signed_in_at)
            ),
            "created_at": clock.iso(person.created_at),
        }
        for person in people
    ]


def as_dict(person: Person) -> PersonObject:
    """The person object of the API."""
    return as_dicts([person])[0]


def _with_second_factor(people: Sequence[Person]) -> set[str]:
    """The ids of those whom no password alone lets in."""
    without_password = [person for person in people if person.password_hash is None]
    with_code = {person.id for person in people if second_factor.is_on(person)}
    return with_code | with_passkeys(without_password)


def with_passkeys(people: Iterable[Person]) -> set[str]:
    """The ids of those of them who have a passkey; a password of theirs goes on to hold."""
    ids = [person.id for person in people]
    found = Passkey.select(Passkey.person).where(Passkey.person.in_(ids)).distinct()
    return {one.person_id for one in found}


# --- change ---------------------------------------------------------------------------------


def edit(
    person_id: str, fields: Mapping[str, Any], *, by: Actor, as_of: str | None = None
) -> Person:
    """Changes what is sent, nothing else. Another password, other rights, and being disabled end
    all their sessions. `as_of`, where given, is the edition (fields.py) of the roles from which
    these were made: others would be taken back unseen.

    Raises Forbidden but for owners, Unknown, NotFresh, Invalid; Conflict for a taken address, where
    no owner with a password would be left, and what `person_rows.refuse_unproven` raises.
    """
    person = person_to_see(person_id, by=by)
    by.require_fresh()
    change = PersonChange.read(fields)
    about = [person.email, person.name, change.email, change.name]
    password_hash = chosen(change.password, about=about) if change.sent("password") else None
    with db.write():
        hold_people(by)
        role_in = _projects_held(change.roles)
        person = person_to_change(person_id, by=by)
        if change.sent("roles"):
            _refuse_stale(person, change.roles, as_of)
        before = facts(person)
        was_disabled = person.disabled_at
        was_owner_at_work = person_rows.is_local_owner(person)
        _apply(person, change)
        if was_owner_at_work and not person_rows.is_local_owner(person):
            _refuse_without_another_owner(person)
        differences: dict[str, tuple[Any, Any]] = {
            field: (before[field], value)
            for field, value in facts(person).items()
            if before[field] != value
        }
        if password_hash:
            differences["password"] = (SET, CHANGED) if person.password_hash else (None, SET)
            person.password_hash = password_hash
        if person.dirty_fields:
            person.save(only=person.dirty_fields)
        _end_what_is_open(person, differences.keys())
        if change.sent("roles"):
            members.set_roles(person, role_in, by=by)
        if differences:
            record("person.edited", person, by, differences)
        if person.disabled_at != was_disabled:
            _record_disabled(person, by)
        return person


def _refuse_stale(person: Person, wanted: Mapping[str, str], as_of: str | None) -> None:
    present = roles_of([person])[person.id]
    if as_of not in (None, edition(present)) and wanted != present:
        raise Conflict(
            "Somebody changed these roles since you opened them. Nothing was saved: look at what "
            "they are now, then save again."
        )


def _end_what_is_open(person: Person, changed: Set[str]) -> None:
    """The sessions and links that were given to somebody who was another until now, and the links
    that they made with the rights that they had."""
    if person.disabled_at or changed & ENDS_SESSIONS:
        sessions.end_all(person)
    if person.disabled_at or changed & ENDS_LINKS:
        links.end_all(person.id)
    if person.disabled_at or "owner" in changed:
        links.end_made_by(person.id)


def _apply(person: Person, change: PersonChange) -> None:
    if change.sent("email") and change.email != person.email:
        refuse_taken(change.email)
        person.email = change.email
    if change.sent("name") and change.name != person.name:
        person.name = change.name
    if change.sent("owner") and change.owner != person.is_owner:
        if change.owner:
            person_rows.refuse_unproven(person, None)
        person.is_owner = change.owner
    if change.sent("disabled") and change.disabled != (person.disabled_at is not None):
        person.disabled_at = clock.now() if change.disabled else None


def _record_disabled(person: Person, by: Actor) -> None:
    disabled = person.disabled_at is not None
    action = "person.disabled" if disabled else "person.enabled"
    record(action, person, by, {"disabled": (not disabled, disabled)})


def delete(person_id: str, *, by: Actor) -> None:
    """Removes the person, their roles and sessions for good; events keep their address.

    Raises Forbidden but for owners, Unknown, NotFresh; Conflict while they own keys or know the
    secret of one that works, and for the last owner who can sign in.
    """
    person_to_see(person_id, by=by)
    by.require_fresh()
    with db.write():
        person = person_to_change(person_id, by=by)
        count = Key.select().where(Key.owner == person).count()
        if count:
            raise Conflict(
                f"{person.email} owns {count} key{'s' if count > 1 else ''}: hand over or delete "
                "every one first, revoked and expired ones too; or disable the person, and the "
                "keys go on working."
            )
        # Who knows a secret is not kept beyond the person.
        if known := offboarding.unsettled(person.id):
            what, it = ("1 key that still works", "it") if known == 1 else (
                f"{known} keys that still work", "them"
            )  # fmt: skip
            raise Conflict(
                f"{person.email} knows the secret of {what}: rotate or revoke {it} first, on "
                f"/people/{person.id}/offboarding."
            )
        if person_rows.is_local_owner(person):
            _refuse_without_another_owner(person)
        links.end_all(person.id)
        links.end_made_by(person.id)
        members.set_roles(person, {}, by=by)
        gone = {name: (value, None) for name, value in facts(person).items()}
        record("person.deleted", person, by, gone)
        person.delete_instance()


def _refuse_without_another_owner(person: Person) -> None:
    if not person_rows.is_another_local_owner(person):
        raise Conflict(
            f"{person.email} is the last owner who can sign in with a password: make somebody else "
            "an owner first, who has one."
        )
