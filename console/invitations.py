"""Links that let a person in: to a first password, to a new one, or for once without any.

A link is made in a transaction, and handed over after it: by mail where mail is sent, else to
whoever made it. How long it holds is said in links.py, what the mail says in letters.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from console import clock, db, letters, links, mail, second_factor, sessions, throttle
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, Limited
from console.fields import clean_email
from console.links import INVITATION, LOGIN, RESET
from console.models import Membership, Person
from console.passwords import chosen
from console.permissions import ADMIN
from console.person_fields import Joining, Resetting
from console.person_rows import (
    CHANGED,
    SET,
    find_person,
    hold_people,
    is_invited,
    person_to_change,
    record,
    refuse_but_owners,
)

ACTIONS = {
    INVITATION: "person.invited",
    RESET: "person.reset_link_made",
    LOGIN: "person.login_link_made",
}
# How often within an hour a link to a new password is mailed to one person, and asked for from one
# network.
TO_ONE, FROM_ONE = 3, 30


@dataclass(frozen=True)
class Made:
    """A link in the transaction that made it, not handed over yet."""

    kind: str
    token: str = field(repr=False)
    expires_at: int
    email: str
    by: Actor

    @property
    def url(self) -> str:
        return links.address(self.kind, self.token)


@dataclass(frozen=True)
class Sent:
    """A link that was mailed; or else its address, to copy, and why the mail did not go."""

    expires_at: int
    url: str | None = field(default=None, repr=False)
    mailed_to: str | None = None
    failure: str | None = None


# --- make -----------------------------------------------------------------------------------


def make(kind: str, person: Person, *, by: Actor) -> Made:
    """A new link for the person, in the caller's transaction; who calls sends it after that."""
    shown_to = None if mail.is_on() else by.person_id
    token, expires_at = links.issue(kind, person.id, made_by=by.person_id, shown_to=shown_to)
    record(ACTIONS[kind], person, by, {"expires_at": (None, clock.iso(expires_at))})
    return Made(kind, token, expires_at, person.email, by)


def send(made: Made) -> Sent:
    """Hands the link over. Waits for the mail server: never within a transaction."""
    if not mail.is_on():
        return Sent(made.expires_at, made.url)
    try:
        mail.send(made.email, *letters.letter(made.kind, made.token, made.expires_at, by=made.by))
    except mail.NotSent as error:
        links.note_shown(made.token, made.by.person_id)
        return Sent(made.expires_at, made.url, failure=str(error))
    return Sent(made.expires_at, mailed_to=made.email)


def invite(person_id: str, *, by: Actor) -> Sent:
    """A new link to a first password; an older one ends now.

    Raises NotFresh, Forbidden but for owners, Unknown; Conflict for who has a password, or is
    disabled.
    """
    by.require_fresh()
    refuse_but_owners(by)
    return _invite(person_id, by)


def invite_member(person_id: str, *, by: Actor) -> Sent:
    """What `invite` does, for whoever may invite this person. Raises what it does."""
    by.require_fresh()
    if not may_invite(find_person(person_id), by):
        raise Forbidden("You cannot invite this person: ask an owner to.")
    return _invite(person_id, by)


def may_invite(person: Person, by: Actor) -> bool:
    """Whether a link for this person gives the actor nothing beyond their own rights: to owners it
    never does; else to who administers every project that the person has a role in."""
    if by.is_owner:
        return True
    theirs = Membership.select(Membership.project).where(Membership.person == person)
    projects = [one.project_id for one in theirs]
    return (
        not person.is_owner
        and is_invited(person)
        and bool(projects)
        and all(by.may(ADMIN, project_id) for project_id in projects)
    )


def _invite(person_id: str, by: Actor) -> Sent:
    with db.write():
        person = person_to_change(person_id, by=by)
        if not may_invite(person, by):  # by now
            raise Forbidden("You cannot invite this person: ask an owner to.")
        if person.password_hash is not None:
            raise Conflict(f"{person.email} has a password already and can sign in.")
        _refuse_disabled(person)
        links.end(INVITATION, person.id)
        made = make(INVITATION, person, by=by)
    return send(made)


def reset(person_id: str, *, by: Actor) -> Sent:
    """A new link to a new password; older ones end now. Until it is used, the present one holds.

    Raises NotFresh, Forbidden but for owners, Unknown; Conflict for who has no password yet, or is
    disabled.
    """
    by.require_fresh()
    refuse_but_owners(by)
    with db.write():
        person = person_to_change(person_id, by=by)
        if person.password_hash is None:
            raise Conflict(f"{person.email} has no password yet; invite them again instead.")
        _refuse_disabled(person)
        links.end(RESET, person.id)
        made = make(RESET, person, by=by)
    return send(made)


def forgot(email: str, *, by: Actor) -> None:
    """Mails a link to a new password, where the address is that of somebody who has one.

    One answer and one work for every address: what is to be done is done later, elsewhere. Raises
    Conflict where no mail is sent, Limited for a network that asks too often.
    """
    if not mail.is_on():
        raise Conflict("This installation sends no mail.")
    origin = throttle.network(by.ip)
    if not throttle.allow("forgot-from", origin, most=FROM_ONE, within_ms=clock.HOUR):
        raise Limited(
            "Too many links were asked for from your network. Try again in an hour.",
            retry_after_seconds=clock.HOUR // clock.SECOND,
        )
    mail.later(partial(_send_forgotten, email, by))


def _send_forgotten(email: str, by: Actor) -> None:
    """Raises NotSent."""
    found = _by_email(email)
    if found is None or found.password_hash is None or found.disabled_at is not None:
        return
    if not throttle.allow("forgot-to", found.id, most=TO_ONE, within_ms=clock.HOUR):
        return
    with db.write():
        person = person_to_change(found.id, by=by)
        # The links before hold on: whoever asks in another's name takes nothing from them.
        made = make(RESET, person, by=by)
    mail.send(made.email, *letters.letter(RESET, made.token, made.expires_at, by=by))


def login_link(email: str, *, by: Actor) -> Made:
    """A link that signs the person in, password and second factor unasked; an older one ends now.

    For the operator at the machine, who vouches. Raises Invalid where there is no such person,
    Conflict for who is disabled.
    """
    found = _by_email(email)
    if found is None:
        raise Invalid({"email": f"there is no person {email}"})
    with db.write():
        person = person_to_change(found.id, by=by)
        _refuse_disabled(person)
        links.end(LOGIN, person.id)
        return make(LOGIN, person, by=by)


def _by_email(text: str) -> Person | None:
    try:
        return Person.get_or_none(Person.email == clean_email(text))
    except ValueError:
        return None


def _refuse_disabled(person: Person) -> None:
    if person.disabled_at is not None:
        raise Conflict(f"{person.email} is disabled; enable them first.")


# --- use up ---------------------------------------------------------------------------------


def invited(token: str) -> Person:
    """Whom the invitation is for. Raises Forbidden, alike for every link that does not hold."""
    person = _whose(token, INVITATION)
    if person is None or person.password_hash is not None:
        raise Forbidden(
            "This invitation does not hold: it was used, a newer one has taken its place, or it is "
            "more than 7 days old. Ask an owner for a new one; or, if you have joined, sign in."
        )
    return person


def join(token: str, fields: Mapping[str, Any], *, by: Actor) -> Person:
    """The invited person chooses a password, once. Raises Forbidden, Invalid."""
    person = invited(token)
    given = Joining.read(fields)
    about = [person.email, person.name, given.name]
    password_hash = chosen(given.password, about=about)
    with db.write():
        # Asked again where nobody else changes people: of two that come at once, one is first.
        hold_people(by)
        person = invited(token)
        changes: dict[str, tuple[Any, Any]] = {"password": (None, SET)}
        if given.name is not None and given.name != person.name:
            changes["name"] = (person.name, given.name)
            person.name = given.name
        person.password_hash = password_hash
        person.vouched_by = _voucher(token)
        person.save(only=person.dirty_fields)
        links.end_all(person.id)
        record("person.joined", person, sessions.actor_of(person, by), changes)
        return person


def _voucher(token: str) -> str | None:
    """Who was shown this link, and could have used it in the person's name; None for an owner, who
    may do everything as it is, and where it was mailed."""
    link = links.find(token, INVITATION)
    shown_to = link.shown_to if link else None
    maker = Person.get_or_none(Person.id == shown_to, ~Person.is_owner)
    return maker.id if maker else None


def who_resets(token: str) -> Person:
    """Who may choose a new password by this link. Raises Forbidden, alike for every link that does
    not hold."""
    person = _whose(token, RESET)
    if person is None or person.password_hash is None:
        raise Forbidden(
            "This link does not hold: it was used, a newer one has taken its place, or it is more "
            "than 24 hours old. Ask for a new one where you sign in."
        )
    return person


def reset_password(token: str, fields: Mapping[str, Any], *, by: Actor) -> Person:
    """The person chooses a new password, once; all their sessions end, their second factor stays.
    But of one for whom somebody else vouched until now: who that was may have set it.

    Raises Forbidden, Invalid.
    """
    person = who_resets(token)
    given = Resetting.read(fields)
    password_hash = chosen(given.password, about=[person.email, person.name])
    with db.write():
        hold_people(by)
        person = who_resets(token)
        told: dict[str, tuple[Any, Any]] = {"password": (SET, CHANGED)}
        if person.vouched_by is not None:
            told.update(second_factor.forget(person))
            person.vouched_by = None
        person.password_hash = password_hash
        person.save(only=person.dirty_fields)
        links.end_all(person.id)
        sessions.end_all(person)
        record("person.password_reset", person, sessions.actor_of(person, by), told)
        return person


def who_signs_in(token: str) -> Person:
    """Whom this link would sign in. Raises Forbidden, alike for every link that does not hold."""
    person = _whose(token, LOGIN)
    if person is None:
        raise Forbidden(
            "This link does not hold: it was used, a newer one has taken its place, or it is more "
            "than 15 minutes old. Whoever runs the server can make another one."
        )
    return person


def sign_in(
    token: str, *, ip: str | None, user_agent: str = "", request_id: str | None = None
) -> tuple[str, Person]:
    """A new session's token, and whose it is; once. Raises Forbidden."""
    with db.write():
        hold_people()
        person = who_signs_in(token)
        links.end(LOGIN, person.id)
        begun = sessions.begin(
            person, method=sessions.LINK, ip=ip, user_agent=user_agent, request_id=request_id
        )
        return begun, person


def _whose(token: str, kind: str) -> Person | None:
    """Who the link is for, while it holds and they are not disabled."""
    link = links.find(token, kind)
    if link is None:
        return None
    return Person.get_or_none(Person.id == link.person_id, Person.disabled_at.is_null())
