"""What a change to several keys at once would do, told before it is done. Changes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console import clock, journal, key_fields, key_rules, keys, projects
from console.actor import Actor
from console.errors import Unknown
from console.key_fields import Extension
from console.models import EXPIRED, Key

RECENT = clock.DAY


@dataclass(frozen=True, slots=True)
class Revocation:
    """Which keys would stop, which of those were used of late, and which are revoked already."""

    keys: Sequence[Key]
    stopping: Sequence[Key]
    recent: Sequence[Key]  # the one used last comes first
    revoked: Sequence[Key]


@dataclass(frozen=True, slots=True)
class Prolongation:
    """Which keys would expire then, which of those work again, and which stay as they are."""

    keys: Sequence[Key]
    ends_at: int | None  # None: it is not said yet
    extended: Sequence[Key]
    again: Sequence[Key]  # of the extended: they have expired
    revoked: Sequence[Key]  # of the extended: they stay revoked
    later: Sequence[Key]
    never: Sequence[Key]


def chosen(key_ids: Iterable[str], project: str, *, by: Actor) -> list[Key]:
    """Keys of one project, by name. Raises Invalid (ids), Unknown, Forbidden."""
    return _within(keys.keys_to_read(key_ids, by=by), project, by)


def revocation(key_ids: Iterable[str], project: str, *, by: Actor) -> Revocation:
    """What it would do to revoke these. Raises Invalid (ids), Unknown, Forbidden."""
    found = _to_change(key_ids, project, by)
    stopping = [key for key in found if key.revoked_at is None]
    since = clock.now() - RECENT
    recent = [key for key in stopping if (key.last_used_at or 0) > since]
    return Revocation(
        keys=found,
        stopping=stopping,
        recent=sorted(recent, key=lambda key: key.last_used_at or 0, reverse=True),
        revoked=[key for key in found if key.revoked_at is not None],
    )


def prolongation(
    key_ids: Iterable[str], project: str, fields: Mapping[str, Any], *, by: Actor
) -> Prolongation:
    """What it would do to extend these. Raises Invalid, Unknown, Forbidden."""
    now = clock.now()
    found = _to_change(key_ids, project, by)
    ends_at = key_fields.new_end(Extension.read(fields), now) if fields else None
    ending = [key for key in found if key.expires_at is not None]
    extended = [key for key in ending if ends_at is None or key_fields.ends_before(key, ends_at)]
    if ends_at is not None and extended:
        key_rules.end(Extension.read(fields), extended[0].project, now)
    return Prolongation(
        keys=found,
        ends_at=ends_at,
        extended=extended,
        again=[key for key in extended if key.status_at(now) == EXPIRED],
        revoked=[key for key in extended if key.revoked_at is not None],
        later=[key for key in ending if key not in extended],
        never=[key for key in found if key.expires_at is None],
    )


def _to_change(key_ids: Iterable[str], project: str, by: Actor) -> list[Key]:
    journal.settle_to_show()
    return _within(keys.keys_to_change(key_ids, by=by), project, by)


def _within(found: list[Key], project: str, by: Actor) -> list[Key]:
    """The keys, where all lie in the project that is meant. Raises Unknown."""
    project_id = projects.to_see(project, by=by).id
    if any(key.project_id != project_id for key in found):
        raise Unknown("One of these keys is not in this project.")
    return found
