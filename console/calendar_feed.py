"""A project's calendar (RFC 5545) of the coming ends of its keys, for whoever has its secret link.

A project has one link at most; of its token only the digest is kept. A new one ends the old one.
"""

import re
import secrets
from typing import Annotated
from urllib.parse import urlsplit

from icalendar import Calendar, Event, vDuration, vText
from pydantic import Field
from typing_extensions import TypedDict

from console import activity, clock, db, links, projects, renewal
from console.actor import Actor
from console.errors import Conflict, Unknown
from console.fields import Instant, text_schema
from console.keys import joined
from console.links import TOKEN_BYTES
from console.models import Key, Project
from console.secret import digest

AHEAD = 400 * clock.DAY
EVENTS_MAX = 1_000
REFRESH = clock.to_datetime(6 * clock.HOUR) - clock.EPOCH
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # TOKEN_BYTES in base64url, without padding
LINK_MADE, LINK_REMOVED = "calendar.link_made", "calendar.link_removed"


class CalendarLink(TypedDict):
    """The address of a project's calendar, in the one answer that holds it."""

    url: Annotated[
        str,
        Field(description="Whoever has it reads the calendar; it is not told again"),
        text_schema("https://keys.example.com/calendar/3vK…Q.ics"),
    ]
    made_at: Instant


# --- the link -------------------------------------------------------------------------------


@db.transaction
def make_link(slug: str, *, by: Actor, as_of: str | None = None) -> CalendarLink:
    """A new link; the one before, if any, leads nowhere from now on.

    `as_of`, where given, is the `edition` of the link from which this was decided. Raises NotFresh,
    Unknown, Forbidden; Conflict for an archived project, and where there is another edition by now.
    """
    by.require_fresh()
    project = projects.project_to_manage(slug, by=by)
    if project.archived_at is not None:
        raise Conflict(f"The project {slug} is archived: restore it before you make a link.")
    if as_of not in (None, edition(project)):
        raise Conflict("A link was made or removed since you opened this. Nothing was done.")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    made_at = clock.now()
    _replace(LINK_MADE, project, digest(token), made_at, by)
    return {"url": f"{links.base_url()}/calendar/{token}.ics", "made_at": clock.iso(made_at)}


@db.transaction
def remove_link(slug: str, *, by: Actor) -> None:
    """Ends the link. Raises Unknown, also where there is none, and Forbidden."""
    project = projects.project_to_manage(slug, by=by)
    if project.calendar_digest is None:
        raise Unknown(f"The project {slug} has no calendar link.")
    _replace(LINK_REMOVED, project, None, None, by)


def edition(project: Project) -> str:
    """Says whether it is still the same link, or still none."""
    return str(project.calendar_made_at or "")


def _replace(
    action: str, project: Project, new_digest: str | None, made_at: int | None, by: Actor
) -> None:
    before = project.calendar_made_at
    project.calendar_digest, project.calendar_made_at = new_digest, made_at
    project.save(only=[Project.calendar_digest, Project.calendar_made_at])
    activity.record(
        action,
        by=by,
        target_id=project.id,
        target_name=project.slug,
        project_id=project.id,
        changes={"made_at": (clock.iso(before), clock.iso(made_at))},
    )


# --- the calendar ---------------------------------------------------------------------------


def feed(token: str) -> bytes:
    """The calendar that the token opens, an archived project's without events. Raises Unknown, the
    same for whatever else is sent."""
    project = _linked(token)
    now = clock.now()
    calendar = _calendar(project)
    for key in _ending(project, now):
        calendar.add_component(_event(key, now))
    content: bytes = calendar.to_ical()
    return content


def _linked(token: str) -> Project:
    found = None
    if TOKEN.fullmatch(token):
        found = Project.get_or_none(Project.calendar_digest == digest(token))
    if found is None:
        raise Unknown("There is no calendar at this address.")
    return found


def _calendar(project: Project) -> Calendar:
    calendar = Calendar()
    calendar.add("PRODID", "-//Latchkey//Ends of keys//EN")
    calendar.add("VERSION", "2.0")
    calendar.add("METHOD", "PUBLISH")
    # The library escapes only what it knows to be text, and names this value's type nowhere.
    calendar.add("X-WR-CALNAME", vText(f"{project.name} – API keys"))
    calendar.add("REFRESH-INTERVAL", REFRESH, parameters={"VALUE": "DURATION"})
    calendar.add("X-PUBLISHED-TTL", vDuration(REFRESH))
    return calendar


def _ending(project: Project, now: int) -> list[Key]:
    """The keys that end within AHEAD, those first of which there is something to tell first."""
    if project.archived_at is not None:
        return []
    rows = joined().where(
        Key.project == project,
        Key.revoked_at.is_null(),
        Key.expires_order > now,
        Key.expires_order <= now + AHEAD,
    )
    found = rows.order_by(Key.expires_order, Key.id).limit(EVENTS_MAX)
    return sorted(found, key=_moment)


def _moment(key: Key) -> int:
    """When there is something to tell: the end, or before it the renewal."""
    assert key.expires_at is not None
    return renewal.renews_at(key) if key.auto_renew else key.expires_at


def _event(key: Key, now: int) -> Event:
    """One end as a moment: without an end of its own it takes no time (RFC 5545, 3.6.1)."""
    base_url = links.base_url()
    event = Event()
    event.add("UID", f"{key.id}@{urlsplit(base_url).hostname}")
    event.add("DTSTAMP", clock.to_datetime(now))
    event.add("LAST-MODIFIED", clock.to_datetime(key.updated_at))
    event.add("DTSTART", clock.to_datetime(_moment(key)))
    event.add("TRANSP", "TRANSPARENT")
    event.add("SUMMARY", f"{key.name} {'renews itself' if key.auto_renew else 'expires'}")
    event.add("DESCRIPTION", _description(key))
    event.add("URL", f"{base_url}/projects/{key.project.slug}/keys/{key.id}")
    return event


def _description(key: Key) -> str:
    lines = [
        f"Prefix: {key.prefix}",
        f"Environment: {key.environment}",
        f"Owner: {key.owner.email if key.owner else 'nobody'}",
        f"Last used: {_day(key.last_used_at)}",
    ]
    if key.auto_renew:
        lines += ["", f"Its end, {_day(key.expires_at)}, moves on if it was used of late."]
    return "\n".join(lines)


def _day(instant: int | None) -> str:
    if instant is None:
        return "never"
    return clock.to_datetime(instant).strftime("%-d %b %Y, %H:%M UTC")
