"""One person's row: made, found, held for a change, and what was done to it recorded.

What may be done is people.py's to say, members.py's for roles, and invitations.py's for links.
"""

from peewee import JOIN

from console import activity, clock, db
from console.actor import ADMIN_ROLE, Actor
from console.errors import Conflict, Forbidden, Unknown
from console.models import Membership, Person
from console.secret import random_id

# What an event tells of a password.
SET, CHANGED = "set", "changed"


def refuse_but_owners(by: Actor) -> None:
    """Raises Forbidden but for owners."""
    if not by.is_owner:
        raise Forbidden("Only an owner sees and changes people.")


def create(
    email: str,
    name: str | None,
    password_hash: str | None = None,
    *,
    is_owner: bool = False,
    by: Actor,
) -> Person:
    """Whoever comes to be a person, by whichever way, comes to be one here; in the caller's
    transaction, which holds people. Raises Conflict for a taken address."""
    refuse_taken(email)
    person = Person.create(
        id=random_id("per"),
        email=email,
        name=name or email.partition("@")[0],
        password_hash=password_hash,
        is_owner=is_owner,
        created_at=clock.now(),
    )
    record("person.created", person, by, {name: (None, v) for name, v in facts(person).items()})
    return person


def refuse_taken(email: str) -> None:
    """Raises Conflict where somebody has this address."""
    if Person.get_or_none(Person.email == email):
        raise Conflict(f"{email} is a person already.", fields={"email": "is taken"})


def facts(person: Person) -> dict[str, str | bool]:
    """What an edit may alter and an event tells, besides roles."""
    return {"email": person.email, "name": person.name, "owner": person.is_owner}


def is_invited(person: Person) -> bool:
    """Whether they have not joined yet: neither chosen a password nor come in without one."""
    return person.password_hash is None and person.last_signed_in_at is None


def find_person(person_id: str) -> Person:
    """The person of this id. Raises Unknown."""
    # No id holds what a database could not compare.
    person = Person.get_or_none(Person.id == person_id) if person_id.isprintable() else None
    if person is None:
        raise Unknown("There is no such person.")
    return person


def refuse_unproven(person: Person, project_id: str | None) -> None:
    """Before somebody gets rights in a project, or all (None): raises Conflict where they joined by
    a link that somebody else was shown, who has no say there and may have used it themselves."""
    if person.vouched_by is None:
        return
    has_say = (
        Person.select()
        .join(Membership, JOIN.LEFT_OUTER)
        .where(
            Person.id == person.vouched_by,
            Person.is_owner
            | ((Membership.project == project_id) & (Membership.role == ADMIN_ROLE)),
        )
    )
    if project_id is None or not has_say.exists():
        raise Conflict(
            f"{person.email} joined by a link that somebody else was shown, so it is not certain "
            "yet who that was. Under People, make a link to a new password for them first; once "
            "they have used it, this can be done."
        )


def is_local_owner(person: Person) -> bool:
    """Whether they can sign in as an owner by what Latchkey itself holds, whatever becomes of a
    provider of single sign-on; and so let others in."""
    return person.is_owner and person.password_hash is not None and person.disabled_at is None


def is_another_local_owner(person: Person) -> bool:
    """Whether somebody else is a local owner; there is always one."""
    others = Person.select().where(
        Person.id != person.id,
        Person.is_owner,
        Person.password_hash.is_null(False),
        Person.disabled_at.is_null(),
    )
    return bool(others.exists())


def hold_people(by: Actor | None = None) -> None:
    """Nobody else adds or changes people until the transaction ends; and whoever acts may still do
    so, now that they are first. Raises what `Actor.require_open` does.

    By a name, not the table: signing in holds a person's row and then writes to it.
    """
    db.hold_name("people")
    if by is not None:
        by.require_open()


def person_to_change(person_id: str, *, by: Actor) -> Person:
    """The person as they are now, held for this transaction. Raises Unknown, and what `hold_people`
    does."""
    hold_people(by)
    find_person(person_id)
    db.hold(Person, person_id)
    return find_person(person_id)


def record(action: str, person: Person, by: Actor, changes: activity.Changes) -> None:
    """The event of what was done to the person, in the transaction that did it."""
    activity.record(action, by=by, target_id=person.id, target_name=person.email, changes=changes)
