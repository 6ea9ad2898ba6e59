"""What somebody who leaves still has to do with keys, and what becomes of each.

A key is listed where it is theirs, where they made it, and where they saw a secret of it that still
works. It is settled once it is not theirs and no secret that they saw works; or once it is revoked
or has expired.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import peewee
from peewee import fn

from console import clock, db, journal, key_many, key_owner, keys, paging, person_rows
from console.actor import Actor
from console.errors import Invalid, Unknown
from console.fields import clean_email
from console.models import ACTIVE, Key, Person, Project, Secret
from console.paging import Order, Page

AT_ONCE = 1_000  # keys that one request changes
TOGETHER = 100  # in one transaction
RECENT = clock.DAY


@dataclass(frozen=True, slots=True)
class Case:
    """A key, and why it is listed."""

    key: Key
    is_theirs: bool
    is_made_by_them: bool
    is_known_to_them: bool  # a secret of it that works
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How many keys are listed, how many of those are settled, and how many are theirs; revoked and
    expired ones, too, for a person who owns any cannot be deleted."""

    keys: int
    settled: int
    theirs: int

    @property
    def unsettled(self) -> int:
        return self.keys - self.settled


@dataclass(frozen=True, slots=True)
class HandedOver:
    """How many keys were handed over, how many are still theirs, and in which projects the new
    owner has no role, so that the keys there stayed."""

    keys: int
    left: int
    without_role: list[str]


# --- what there is --------------------------------------------------------------------------


def page(
    person_id: str, *, by: Actor, cursor: str | None = None, limit: int = paging.LIMIT_DEFAULT
) -> Page[Case]:
    """The keys to look at, those that are not settled first, by name. Raises Invalid; Forbidden but
    for owners, Unknown."""
    person_to_see(person_id, by=by)
    journal.settle_to_show()
    of = _Of(person_id)
    order = [
        Order(of.settled, int, lambda key: key.is_settled),
        Order(Key.name_sort, str, lambda key: key.name_sort),
        Order(Key.id, str, lambda key: key.id),
    ]
    query = of.cases().where(of.listed)
    found = paging.fetch(query, order, descending=False, cursor=cursor, limit=limit)
    return Page([_case(key) for key in found.rows], found.next_cursor, found.previous_cursor)


def progress(person_id: str, *, by: Actor) -> Progress:
    """How far it has come. Raises Forbidden but for owners, Unknown."""
    person_to_see(person_id, by=by)
    of = _Of(person_id)
    counts = fn.count(Key.id), fn.sum(of.settled), fn.sum(_as_number(of.theirs))
    query: Any = Key.select(*counts).where(of.listed)
    listed, settled, theirs = query.tuples().get()
    return Progress(listed, int(settled or 0), int(theirs or 0))


def unsettled(person_id: str) -> int:
    """How many keys of the person are not settled."""
    of = _Of(person_id)
    return int(Key.select().where(of.listed, of.settled == 0).count())


def case(person_id: str, key_id: str, *, by: Actor) -> Case:
    """One of the keys listed. Raises Forbidden but for owners, Unknown."""
    person_to_see(person_id, by=by)
    of = _Of(person_id)
    found = of.cases().where(of.listed, Key.id == key_id).first() if key_id.isprintable() else None
    if found is None:
        raise Unknown("There is no such key.")
    return _case(found)


def person_to_see(person_id: str, *, by: Actor) -> Person:
    """The person. Raises Forbidden but for owners, Unknown."""
    person_rows.refuse_but_owners(by)
    return person_rows.find_person(person_id)


class _Of:
    """What the database is asked about a person's keys."""

    def __init__(self, person_id: str) -> None:
        now = clock.now()
        works = Secret.superseded_at.is_null() | (Secret.works_until > now)
        seen = Secret.select(Secret.key).where(Secret.seen_by == person_id, works)
        self.theirs: Any = Key.owner == person_id
        self.made: Any = Key.created_by == person_id
        self.known: Any = Key.id.in_(seen)
        # Each part by an index of its own; the whole would be looked for among all keys.
        parts = [Key.select(Key.id).where(one) for one in (self.theirs, self.made)]
        self.listed: Any = Key.id.in_(parts[0] | parts[1] | seen)
        # A comparison with null is neither true nor false.
        is_open = (fn.coalesce(self.theirs, False) | self.known) & keys.has_status(ACTIVE, now)
        self.settled: Any = peewee.Case(None, [(is_open, 0)], 1)

    def cases(self) -> Any:
        """Keys, their projects and owners, and why each is listed."""
        return (
            Key.select(
                Key,
                Project,
                Person,
                self.settled.alias("is_settled"),
                _as_number(self.theirs).alias("is_theirs"),
                _as_number(self.made).alias("is_made"),
                _as_number(self.known).alias("is_known"),
            )
            .join(Project)
            .switch(Key)
            .join(Person, peewee.JOIN.LEFT_OUTER)
        )


def _as_number(condition: Any) -> Any:
    return peewee.Case(None, [(condition, 1)], 0)


def _case(key: Any) -> Case:
    return Case(
        key, bool(key.is_theirs), bool(key.is_made), bool(key.is_known), bool(key.is_settled)
    )


# --- what becomes of them -------------------------------------------------------------------


def hand_over_key(person_id: str, key_id: str, owner: str, *, by: Actor) -> Key:
    """Makes one of the keys somebody else's. Raises Invalid, Forbidden, NotFresh, Unknown."""
    case(person_id, key_id, by=by)
    by.require_fresh()
    _refuse_themselves(person_id, owner)
    return keys.edit(key_id, {"owner": owner}, by=by)


def hand_over_keys(person_id: str, owner: str, *, by: Actor) -> HandedOver:
    """Makes all keys that are theirs somebody else's, revoked and expired ones too: in every
    project in which the new owner has a role, and AT_ONCE keys at most.

    Raises Invalid, also where not one key can be handed over; Forbidden, NotFresh, Unknown.
    """
    person_to_see(person_id, by=by)
    by.require_fresh()
    heir = key_owner.to_be_owner(_refuse_themselves(person_id, owner))
    theirs = Key.owner == person_id
    within = {key.project_id for key in Key.select(Key.project).where(theirs).distinct()}
    without = key_owner.without_role(heir, within)
    if without and without == within:
        raise Invalid({"owner": "has no role in any project of these keys: give them one first"})
    some = Key.select(Key.id).where(theirs, Key.project.not_in(sorted(without)))
    ids = sorted(key.id for key in some.order_by(Key.id).limit(AT_ONCE))
    handed = sum(_hand_over_all(person_id, part, heir.email, by=by) for part in _parts(ids))
    names = Project.select(Project.name).where(Project.id.in_(sorted(without)))
    left = Key.select().where(theirs).count()
    return HandedOver(handed, left, sorted(project.name for project in names))


@db.transaction
def _hand_over_all(person_id: str, key_ids: list[str], owner: str, *, by: Actor) -> int:
    """How many of these were still theirs, once all are held; no two who hold several wait for
    each other, for everybody holds them in this order."""
    keys.hold_in_order(key_ids)
    theirs = Key.select(Key.id).where(Key.id.in_(key_ids), Key.owner == person_id)
    still = sorted(key.id for key in theirs)
    for key_id in still:
        keys.edit(key_id, {"owner": owner}, by=by)
    return len(still)


def _refuse_themselves(person_id: str, owner: str) -> str:
    try:
        email = clean_email(owner)
    except ValueError as error:
        raise Invalid({"owner": str(error)}) from None
    if Person.get_or_none(Person.id == person_id, Person.email == email):
        raise Invalid({"owner": "is the one who leaves: name somebody else"})
    return email


def to_revoke(person_id: str, *, by: Actor) -> tuple[int, list[Key]]:
    """How many keys `revoke_keys` would stop, and which of those were used of late, the latest
    first, ten at most. Raises Forbidden but for owners, Unknown."""
    person_to_see(person_id, by=by)
    journal.settle_to_show()
    of = _Of(person_id)
    recent = Key.select().where(
        of.listed, of.settled == 0, Key.last_used_at > clock.now() - RECENT
    )  # fmt: skip
    return unsettled(person_id), list(recent.order_by(Key.last_used_at.desc()).limit(10))


def revoke_keys(person_id: str, *, by: Actor) -> int:
    """Stops every key that is not settled, AT_ONCE at most; returns how many that were. Raises
    Forbidden, NotFresh, Unknown."""
    person_to_see(person_id, by=by)
    by.require_fresh()
    of = _Of(person_id)
    some = Key.select(Key.id).where(of.listed, of.settled == 0).order_by(Key.id).limit(AT_ONCE)
    return sum(
        len(key_many.revoke(together, by=by)) for together in _parts([key.id for key in some])
    )


def _parts(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + TOGETHER] for start in range(0, len(ids), TOGETHER))
