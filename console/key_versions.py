"""What became of a key since somebody looked at it. Its events tell: they hold who, what, and both
values of each field. A key's version is its `updated_at`."""

from collections.abc import Mapping, Sequence
from typing import Any

from console.actor import Actor
from console.errors import Conflict
from console.models import Event

TOLD_MAX = 20


class Changed(Conflict):
    """409: the key was changed since this edit was begun.

    `events` are what was done, oldest first; `base` the settings as they were when it was begun,
    `present` as they are; `version` that of the present ones.
    """

    def __init__(
        self, version: int, events: Sequence[Event], base: Mapping[str, Any], present: Any
    ) -> None:
        super().__init__("This key was changed since you opened it. Nothing was saved.")
        self.version = version
        self.events = events
        self.base = base
        self.present: Mapping[str, Any] = present


def changed(key_id: str, as_of: int, version: int, present: Mapping[str, Any]) -> Changed:
    """The refusal of an edit that was begun at the version `as_of`."""
    events = _since(key_id, as_of)
    base = dict(present)
    for event in reversed(events):
        base.update({
            name: old for name, (old, _) in event.changes.items() if name in present
        })  # fmt: skip
    return Changed(version, events[-TOLD_MAX:], base, present)


def _since(key_id: str, as_of: int) -> list[Event]:
    return list(
        Event.select().where(Event.target_id == key_id, Event.at > as_of).order_by(Event.id)
    )


def deletion(key_id: str, project_id: str, *, by: Actor) -> Event | None:
    """The event by which a key of this project was deleted, where the actor saw the key."""
    of_key = (Event.target_id == key_id) & (Event.project_id == project_id)
    if by.sees_only_own(project_id):
        made = of_key & (Event.actor_id == by.id)
        if not Event.get_or_none(made & Event.action.in_(("key.created", "key.imported"))):
            return None
    return Event.get_or_none(of_key & (Event.action == "key.deleted"))
