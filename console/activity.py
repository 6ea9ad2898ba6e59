"""Events: who did what to which key, person or project. Written inside the change's transaction."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from console import clock, outbox
from console.actor import COMMAND, KEY, PERSON, Actor
from console.exports import JSON, Format
from console.fields import Address, Fields, Instant, OneOf
from console.models import Event
from console.paging import LIMIT_DEFAULT, Page, PageQuery, by_id, walk
from console.permissions import AUDIT_READ

ACTIONS = (
    "key.created", "key.imported", "key.edited", "key.revoked", "key.restored", "key.rotated",
    "key.deleted",
    "project.created", "project.edited", "project.deleted",
    "person.created", "person.edited", "person.disabled", "person.enabled", "person.deleted",
    "person.joined", "person.signed_in", "person.signed_out",
    "webhook.created", "webhook.edited", "webhook.deleted", "webhook.secret_rotated",
    "webhook.disabled",
)  # fmt: skip

Changes = Mapping[str, tuple[Any, Any]]


def record(
    action: str,
    *,
    by: Actor,
    target_id: str,
    target_name: str,
    project_id: str | None = None,
    changes: Changes | None = None,
) -> Event:
    """Stores one event, and puts messages into the outbox for the webhooks that are told of it.

    `changes` maps a field to (old, new); never a secret or a digest.
    """
    event = Event.create(
        at=clock.now(),
        project_id=project_id,
        action=action,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name,
        target_id=target_id,
        target_name=target_name,
        changes={name: list(pair) for name, pair in (changes or {}).items()},
        ip=by.ip,
        request_id=by.request_id,
    )
    outbox.enqueue(event)
    return event


class EventFilters(Fields):
    """Which events are asked for; all of what is given must fit."""

    action: Annotated[str, OneOf(*ACTIONS)] | None = None
    actor: str | None = Field(None, description="The id or name of who did it")
    target: str | None = Field(None, description="The id of the key, person or project")
    since: Instant | None = Field(None, description="This instant or later")
    until: Instant | None = Field(None, description="Before this instant")


class EventQuery(PageQuery, EventFilters):
    """Which events of a project are asked for, and as what."""

    project: str | None = Field(None, description="The project's slug")
    format: Format = JSON


WHERE: Mapping[str, Any] = {
    "action": lambda text: Event.action == text,
    "actor": lambda text: (Event.actor_id == text) | (Event.actor_name == text),
    "target": lambda text: Event.target_id == text,
    "since": lambda text: Event.at >= clock.parse(text),
    "until": lambda text: Event.at < clock.parse(text),
}


def page(
    project_id: str,
    *,
    by: Actor,
    filters: Mapping[str, str] | None = None,
    cursor: str | None = None,
    limit: int = LIMIT_DEFAULT,
) -> Page[Event]:
    """A project's events, newest first. Raises Invalid, Forbidden, Unknown; a member sees their
    own."""
    return by_id(_of_project(project_id, filters or {}, by), Event.id, cursor, limit)


def all_of_project(
    project_id: str, *, by: Actor, filters: Mapping[str, str], cursor: str | None, most: int | None
) -> Iterator[Event]:
    """Every event of a project from the cursor on, newest first, one after the other."""
    return walk(_of_project(project_id, filters, by), Event.id, cursor, most)


def _of_project(project_id: str, filters: Mapping[str, str], by: Actor) -> Any:
    by.require(AUDIT_READ, project_id)
    query = Event.select().where(Event.project_id == project_id)
    if by.sees_only_own(project_id):
        query = query.where(Event.actor_id == by.id)
    for name, text in EventFilters.read(filters).model_dump(exclude_unset=True).items():
        query = query.where(WHERE[name](text))
    return query


def page_of_target(target_id: str, *, limit: int) -> Page[Event]:
    """The newest events of one key, for whoever may see the key."""
    return by_id(Event.select().where(Event.target_id == target_id), Event.id, None, limit)


class Who(TypedDict):
    """Who did it: a person, a key, or the command line."""

    kind: Annotated[str, OneOf(PERSON, KEY, COMMAND)]
    id: str | None
    name: str


class What(TypedDict):
    """To what it was done."""

    id: str
    name: str


class EventObject(TypedDict):
    """One thing that somebody did."""

    id: int
    at: Instant
    action: Annotated[str, OneOf(*ACTIONS)]
    actor: Who
    target: What
    changes: Annotated[
        dict[str, list[Any]], Field(description="Of each field that changed, before and after")
    ]
    ip: Address | None
    request_id: str | None


def as_dict(event: Event) -> EventObject:
    return {
        "id": event.id,
        "at": clock.iso(event.at),
        "action": event.action,
        "actor": {"kind": event.actor_kind, "id": event.actor_id, "name": event.actor_name},
        "target": {"id": event.target_id, "name": event.target_name},
        "changes": event.changes,
        "ip": event.ip,
        "request_id": event.request_id,
    }
