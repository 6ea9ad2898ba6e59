"""Events: who did what to which key, person or project. Written inside the change's transaction."""

from collections.abc import Mapping
from typing import Any

from console import clock
from console.actor import Actor
from console.models import Event
from console.paging import LIMIT_DEFAULT, Page, by_id
from console.permissions import AUDIT_READ

ACTIONS = (
    "key.created", "key.edited", "key.revoked", "key.restored", "key.rotated", "key.deleted",
    "project.created", "person.created", "person.signed_in", "person.signed_out",
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
    """Stores one event. `changes` maps a field to (old, new); never a secret or a digest."""
    return Event.create(
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


def page(
    project_id: str, *, by: Actor, cursor: str | None = None, limit: int = LIMIT_DEFAULT
) -> Page[Event]:
    """A project's events, newest first. Raises Forbidden, Unknown; a member sees their own."""
    by.require(AUDIT_READ, project_id)
    query = Event.select().where(Event.project_id == project_id)
    if by.sees_only_own(project_id):
        query = query.where(Event.actor_id == by.id)
    return by_id(query, Event.id, cursor, limit)


def page_of_target(target_id: str, *, limit: int) -> Page[Event]:
    """The newest events of one key, for whoever may see the key."""
    return by_id(Event.select().where(Event.target_id == target_id), Event.id, None, limit)
