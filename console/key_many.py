"""Several keys changed at once: all of them, or none. What holds for each is said in keys.py."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from console import clock, db, key_fields, key_owner, key_rules, keys, projects
from console.actor import Actor
from console.key_fields import Extension
from console.models import EXPIRED, REVOKED, Key


@db.transaction
def revoke(key_ids: Iterable[str], *, by: Actor) -> list[Key]:
    """Stops all of these keys at once, or none; returns those that were not revoked before.

    Raises Invalid (ids), Unknown, Forbidden.
    """
    now = clock.now()
    working = [key for key in keys.keys_to_change(key_ids, by=by) if key.revoked_at is None]
    for key in working:
        keys.set_status(key, REVOKED, by, now)
        key.save(only=key.dirty_fields)
    return working


@db.transaction
def extend(key_ids: Iterable[str], fields: Mapping[str, Any], *, by: Actor) -> list[Key]:
    """Has all of these keys expire then, or none; returns those that would have ended sooner. The
    others stay as they are: to extend takes no time from a key.

    `fields` are those of key_fields.Extension. Raises Invalid, Unknown, Forbidden, NotFresh,
    Conflict (an extended key counts as live; nothing is extended in an archived project).
    """
    extension, now = Extension.read(fields), clock.now()
    ends_at = key_fields.new_end(extension, now)
    sooner = [
        key for key in keys.keys_to_change(key_ids, by=by) if key_fields.ends_before(key, ends_at)
    ]
    for key in sooner:
        keys.refuse_grants(key.permissions, key.project_id, by)
    for project_id in sorted({key.project_id for key in sooner}):
        key_rules.end(extension, key_rules.held_open(project_id), now)
    _refuse_too_many_again(sooner)
    now = clock.now()
    for key in sooner:
        shown = (clock.iso(key.expires_at), clock.iso(ends_at))
        had_expired = key.status_at(now) == EXPIRED
        key.expires_at, key.ends_set_at, key.updated_at = ends_at, now, now
        if had_expired:
            key_owner.refuse_known_to_leavers(key, now)
        keys.record("key.edited", key, by, {"expires_at": shown})
        key.save(only=key.dirty_fields)
    return sooner


def _refuse_too_many_again(some: Iterable[Key]) -> None:
    """Raises Conflict where those of the keys that have expired are too many to be live again."""
    now = clock.now()
    again = Counter(key.project_id for key in some if key.status_at(now) == EXPIRED)
    for project_id in sorted(again):
        keys.refuse_over_limit(projects.held(project_id), now, again[project_id])
