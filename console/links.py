"""One-time links: the first owner's set-up, and invitations. Only a link's digest is kept.

Knows until when a link holds; what it opens, and for whom, is people.py's to say.
"""

import secrets

from console import clock
from console.clock import DAY
from console.models import Link
from console.secret import digest

SETUP, INVITATION = "setup", "invitation"
LENGTH = 7 * DAY
TOKEN_BYTES = 32


def issue(kind: str, person_id: str | None = None) -> tuple[str, int]:
    """The token of a new link, and when it ends."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    now = clock.now()
    Link.delete().where(Link.kind == kind, Link.expires_at <= now).execute()
    Link.create(
        digest=digest(token),
        kind=kind,
        created_at=now,
        expires_at=now + LENGTH,
        person_id=person_id,
    )
    return token, now + LENGTH


def find(token: str, kind: str) -> Link | None:
    """The link that this token opens, while it does."""
    return Link.get_or_none(
        Link.digest == digest(token), Link.kind == kind, Link.expires_at > clock.now()
    )


def end(kind: str, person_id: str | None = None) -> None:
    """Ends every link of this kind, or those of one person."""
    query = Link.delete().where(Link.kind == kind)
    if person_id is not None:
        query = query.where(Link.person_id == person_id)
    query.execute()
