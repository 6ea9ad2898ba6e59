"""What people change about themselves: their name and their password.

The second factor is second_factor.py's, sessions are sessions.py's; what an owner changes about
others is people.py's.
"""

from collections.abc import Mapping
from typing import Any

from console import db, links, passwords, sessions, signin
from console.actor import Actor
from console.errors import Invalid, Unauthenticated, Unknown
from console.fields import Fields, Name
from console.models import Person
from console.person_fields import Password
from console.person_rows import CHANGED, SET, find_person, person_to_change, record


class OwnName(Fields):
    """The form of one's own name."""

    name: Name


class NewPassword(Fields):
    """The form that changes a password. Whoever came in through a link, or never had one, has no
    old one to tell."""

    old_password: str | None = None
    password: Password


def of(by: Actor) -> Person:
    """Whoever is signed in. Raises Unknown where nobody is: a key, the command line."""
    if by.person_id is None:
        raise Unknown("A person's account is their own.")
    return find_person(by.person_id)


def rename(fields: Mapping[str, Any], *, by: Actor) -> Person:
    """Changes one's own name. Raises Invalid."""
    name = OwnName.read(fields).name
    of(by)
    with db.write():
        person = person_to_change(by.person_id or "", by=by)
        if person.name != name:
            before, person.name = person.name, name
            person.save(only=[Person.name])
            record("person.edited", person, by, {"name": (before, name)})
        return person


def needs_old_password(token: str, *, by: Actor) -> bool:
    """Whether the old password is asked for: there is one, and whoever is signed in did not come in
    through a link, by which those come who have forgotten it."""
    return of(by).password_hash is not None and sessions.method_of(token) != sessions.LINK


def change_password(
    token: str, fields: Mapping[str, Any], *, by: Actor, browser: str | None = None
) -> int:
    """Another password for whoever is signed in with this session. All their other sessions end,
    access tokens included, and every link to choose a password; how many sessions that were.

    Raises NotFresh; Invalid (old_password, password), Limited, Unavailable.
    """
    by.require_fresh()
    change = NewPassword.read(fields)
    before = _compared(token, change.old_password, by, browser)
    about = [before.email, before.name]
    password_hash = passwords.chosen(change.password, about=about)
    with db.write():
        person = person_to_change(before.id, by=by)
        if sessions.method_of(token) is None:  # a change of the password has ended it, too
            raise Unauthenticated("Your password was changed meanwhile. Sign in again.")
        told = (SET, CHANGED) if person.password_hash else (None, SET)
        person.password_hash = password_hash
        person.save(only=[Person.password_hash])
        links.end_all(person.id)
        ended = sessions.end_all_but(token, person)
        record("person.edited", person, by, {"password": told})
        return ended


def _compared(token: str, old_password: str | None, by: Actor, browser: str | None) -> Person:
    """The person, once the old password was right where one is needed. Raises Invalid."""
    if not needs_old_password(token, by=by):
        return of(by)
    try:
        return signin.prove(old_password or "", by=by, browser=browser)
    except Unauthenticated:
        raise Invalid({"old_password": "is not your present password"}) from None
