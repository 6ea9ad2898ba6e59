"""Whose a key is: who may hand it over, and to whom."""

from collections.abc import Iterable

from console import db, person_rows
from console.actor import KEY, Actor
from console.errors import Conflict, Forbidden, Invalid
from console.models import Key, Membership, Person, Secret
from console.permissions import ADMIN

CANDIDATES_MAX = 200
# One sentence for all: no admin finds out with it who has an account here.
CANNOT_OWN = "must be the address of somebody who can sign in and has a role in this project"


def hand_over(key: Key, email: str | None, *, by: Actor) -> None:
    """Makes the key that person's, in the caller's transaction, which holds and then saves it; what
    is already so stays so. For owners and admins of the project, and for no key: whoever made one
    could hand on what is theirs. Raises Forbidden, NotFresh, Invalid."""
    if email == (key.owner.email if key.owner else None):
        return
    if not by.may(ADMIN, key.project_id):
        raise by.denied(ADMIN)
    if by.kind == KEY:
        raise Forbidden("No key hands keys over: use the access token of an owner or admin.")
    by.require_fresh()
    if email is None:
        raise Invalid({"owner": "cannot be taken away: name who is to have the key"})
    key.owner = _owner_held(email, key.project_id)


def known_to_leavers(key: Key, now: int) -> str | None:
    """What is wrong with letting a key work again that was stopped: somebody knows a secret of it
    who has left since, and for whom it counted as settled. None where nobody does, and of a key
    that has expired and does not renew itself: that one goes on to let nobody in."""
    if key.expires_at is not None and key.expires_at <= now and not key.auto_renew:
        return None
    works = Secret.superseded_at.is_null() | (Secret.works_until > now)
    here = Person.select(Person.id).where(Person.disabled_at.is_null())
    known = Secret.select(Secret.superseded_at).where(
        Secret.key == key, works, Secret.seen_by.is_null(False), Secret.seen_by.not_in(here)
    )
    found = [secret.superseded_at for secret in known]
    if not found:
        return None
    if None in found:
        return (
            f"Somebody who has left knows the secret of {key.name}: rotate it first. The new "
            "secret works once the key does."
        )
    return f"Somebody who has left knows the old secret of {key.name}: end that one first."


def refuse_known_to_leavers(key: Key, now: int) -> None:
    """Raises Conflict for what `known_to_leavers` says."""
    if why := known_to_leavers(key, now):
        raise Conflict(why)


def _owner_held(email: str, project_id: str) -> Person:
    person = to_be_owner(email)
    db.hold(Person, person.id)
    if not _can_own(to_be_owner(email), project_id):
        raise Invalid({"owner": CANNOT_OWN})
    return person


def to_be_owner(email: str) -> Person:
    """The person of this address, who can sign in. Raises Invalid."""
    person = Person.get_or_none(Person.email == email)
    if person is None or person.disabled_at is not None or person_rows.is_invited(person):
        raise Invalid({"owner": CANNOT_OWN})
    return person


def _can_own(person: Person, project_id: str) -> bool:
    return not without_role(person, [project_id])


def may_hear(person: Person, project_id: str) -> bool:
    """Whether the person is to be told of a key that is theirs there."""
    return person.disabled_at is None and not without_role(person, [project_id])


def without_role(person: Person, project_ids: Iterable[str]) -> set[str]:
    """In which of these projects the person has no business, and so can own no key."""
    if person.is_owner:
        return set()
    roles = Membership.select(Membership.project).where(Membership.person == person)
    return set(project_ids) - {one.project_id for one in roles}


def candidates(project_id: str | None = None) -> list[Person]:
    """Who may own keys of this project, or of some, by address; CANDIDATES_MAX at most."""
    members = Membership.select(Membership.person)
    if project_id is not None:
        members = members.where(Membership.project == project_id)
    query = Person.select().where(
        Person.disabled_at.is_null(), Person.is_owner | Person.id.in_(members)
    )
    found = query.order_by(Person.email).limit(CANDIDATES_MAX)
    return [person for person in found if not person_rows.is_invited(person)]
