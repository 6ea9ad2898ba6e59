"""The first owner: whoever opens the link that the server prints while there is nobody yet."""

from typing import Any

from console import db, links, people, person_rows, projects, sessions
from console.actor import Actor
from console.errors import Forbidden, Unknown
from console.links import SETUP
from console.models import Person, Project
from console.passwords import chosen
from console.person_fields import FirstOwner


def issue_setup_link() -> str | None:
    """The token of a new set-up link while there is no person yet, else None."""
    with db.write():
        return None if people.anybody_yet() else links.issue(SETUP)[0]


def refuse_setup_unless_open(token: str) -> None:
    """Raises Unknown once there is a person, Forbidden for a link that does not hold."""
    # Read before the question: whoever took the link meanwhile is then seen.
    link = links.find(token, SETUP)
    if people.anybody_yet():
        raise Unknown("This console has been set up. Sign in instead.")
    if link is None:
        raise Forbidden(
            "Open the set-up link that the server printed when it started. "
            "It is no longer on screen, or a week old? Restart the server for a new one."
        )


def set_up(token: str, fields: dict[str, Any], *, by: Actor) -> Person:
    """The first person, through the printed link; also makes the first project.

    Raises Unknown when there is a person already or the link does not hold, Invalid for the rest.
    """
    refuse_setup_unless_open(token)
    new = FirstOwner.read(fields)
    password_hash = chosen(new.password, about=[new.email, new.name])
    with db.write():
        # Asked again where nobody else can be added: of two that come at once, one is first.
        person_rows.hold_people()
        refuse_setup_unless_open(token)
        person = people.add_person(
            new.email, new.name, password_hash, is_owner=True, roles={}, by=by
        )
        links.end(SETUP)
        if not Project.select().exists():
            name = new.project or "Default"
            projects.create(
                {"slug": projects.free_slug(name), "name": name}, by=sessions.actor_of(person, by)
            )
        return person
