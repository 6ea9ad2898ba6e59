"""One-time links: until when each kind holds, and at which address. Only a link's digest is kept.

What a link opens, and for whom, is said where it is used up: first_owner.py, invitations.py.
"""

import secrets

from console import clock, db
from console.clock import DAY, HOUR, MINUTE
from console.models import Link
from console.secret import digest

SETUP, INVITATION, RESET, LOGIN = "setup", "invitation", "reset", "login"
PASSKEY = "passkey"  # no link: the challenge that a passkey signs
LENGTH = {
    SETUP: 7 * DAY, INVITATION: 7 * DAY, RESET: 24 * HOUR, LOGIN: 15 * MINUTE, PASSKEY: 5 * MINUTE,
}  # fmt: skip
PATHS = {SETUP: "/setup", INVITATION: "/invitation", RESET: "/reset", LOGIN: "/login-link"}
TOKEN_BYTES = 32

_base_url = ""


def use_base_url(url: str) -> None:
    """The public address that links begin with."""
    global _base_url
    _base_url = url


def base_url() -> str:
    """The public address of this installation."""
    return _base_url


def address(kind: str, token: str) -> str:
    """The page that the link leads to; to open it does not use it up."""
    return f"{_base_url}{PATHS[kind]}?token={token}"


def issue(
    kind: str,
    person_id: str | None = None,
    *,
    made_by: str | None = None,
    shown_to: str | None = None,
) -> tuple[str, int]:
    """The token of a new link, and when it ends. `made_by` is the person who made it, `shown_to`
    who is shown it, to pass it on."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    now = clock.now()
    ends_at = now + LENGTH[kind]
    Link.delete().where(Link.kind == kind, Link.expires_at <= now).execute()
    Link.create(
        digest=digest(token),
        kind=kind,
        created_at=now,
        expires_at=ends_at,
        person_id=person_id,
        made_by=made_by,
        shown_to=shown_to,
    )
    return token, ends_at


def find(token: str, kind: str) -> Link | None:
    """The link that this token opens, while it does."""
    return Link.get_or_none(
        Link.digest == digest(token), Link.kind == kind, Link.expires_at > clock.now()
    )


def note_shown(token: str, person_id: str | None) -> None:
    """This person is shown the link after all, to pass it on."""
    with db.write():
        Link.update(shown_to=person_id).where(Link.digest == digest(token)).execute()


def use_up(token: str, kind: str) -> Link | None:
    """The link that this token opens, and from now on no more; of several at once, one gets it."""
    with db.write():
        link = find(token, kind)
        is_first = link is not None and link.delete_instance()
    return link if is_first else None


def end(kind: str, person_id: str | None = None) -> None:
    """Ends every link of this kind, or those of one person."""
    query = Link.delete().where(Link.kind == kind)
    if person_id is not None:
        query = query.where(Link.person_id == person_id)
    query.execute()


def end_all(person_id: str) -> None:
    """Ends every link of this person, of whatever kind: they are another from now on."""
    Link.delete().where(Link.person_id == person_id).execute()


def end_made_by(person_id: str) -> None:
    """Ends every link that this person made, whomever it is for: it was made with rights that they
    have no more."""
    Link.delete().where(Link.made_by == person_id).execute()
