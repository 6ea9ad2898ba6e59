"""Events: who did what to which key, person or project. Stored at the end of the change's own
transaction, in a chain (chain.py), or the change does not happen."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

from peewee import Cast
from pydantic import Field
from typing_extensions import TypedDict

from console import alert_rules, chain, clock, db, outbox, search
from console.actor import COMMAND, KEY, PERSON, Actor
from console.errors import Forbidden
from console.exports import JSON, Format
from console.fields import EMAIL_MAX_LENGTH, Address, Fields, Instant, OneOf, UpTo
from console.models import Event
from console.paging import LIMIT_DEFAULT, Page, PageQuery, by_id
from console.permissions import AUDIT_READ

ACTIONS = (
    "key.created", "key.imported", "key.edited", "key.revoked", "key.restored", "key.rotated",
    "key.grace_changed", "key.deleted", "key.renewed", "key.renewal_stopped",
    "project.created", "project.edited", "project.archived", "project.restored", "project.deleted",
    "person.created", "person.edited", "person.disabled", "person.enabled", "person.deleted",
    "person.joined", "person.signed_in", "person.signed_out", "person.session_ended",
    "person.second_factor_added", "person.second_factor_removed", "person.recovery_codes_made",
    "person.recovery_code_used", "person.sso_linked",
    "person.passkey_added", "person.passkey_renamed", "person.passkey_removed",
    "person.passkey_refused",
    "person.invited", "person.reset_link_made", "person.password_reset", "person.login_link_made",
    "member.added", "member.role_changed", "member.removed",
    "webhook.created", "webhook.edited", "webhook.deleted", "webhook.secret_rotated",
    "webhook.disabled",
    *(f"alert.{kind}" for kind in alert_rules.KINDS),
    "alert.acknowledged", "alert.muted", "alert.reopened",
    "calendar.link_made", "calendar.link_removed",
)  # fmt: skip

# All that is done to things of one kind: `key.*`, as a webhook asks for it.
GROUPS = tuple(f"{kind}.*" for kind in dict.fromkeys(one.partition(".")[0] for one in ACTIONS))
SETTING = ("project.created", "project.edited")  # what tells of a project's settings
ACTORS_AMONG = 1_000
PROJECT, INSTALLATION = "project", "installation"
SCOPES = (PROJECT, INSTALLATION)
NAMED_MAX_LENGTH = EMAIL_MAX_LENGTH  # of what somebody, or something, is called

Changes = Mapping[str, tuple[Any, Any]]


def record(
    action: str,
    *,
    by: Actor,
    target_id: str,
    target_name: str,
    project_id: str | None = None,
    changes: Changes | None = None,
    at: int | None = None,
) -> None:
    """Has one event stored when the caller's transaction ends, and messages with it for the
    webhooks that are told of it; where they cannot be stored, nothing is.

    `changes` maps a field to (old, new); never a secret or a digest. `at`: now, where not given.
    """
    row = {
        "at": clock.now() if at is None else at,
        "project_id": project_id,
        "action": action,
        "actor_kind": by.kind,
        "actor_id": by.id,
        "actor_name": by.name,
        "target_id": target_id,
        "target_name": target_name,
        "changes": {name: list(pair) for name, pair in (changes or {}).items()},
        "ip": by.ip,
        "request_id": by.request_id,
    }
    with db.write():
        told = outbox.listeners(project_id, action)
        db.do_last(_store, _Recorded(row, told, clock.now()))


@dataclass(frozen=True, slots=True)
class _Recorded:
    """An event yet to be stored, and the webhooks to be told of it."""

    row: Mapping[str, Any]
    told: list[str]
    at: int


def _store(recorded: list[_Recorded]) -> None:
    ids = chain.append([one.row for one in recorded])
    for event_id, one in zip(ids, recorded, strict=True):
        if one.told:
            outbox.enqueue(Event(id=event_id, **one.row), one.told, one.at)


class EventFilters(Fields):
    """Which events are asked for; all of what is given must fit."""

    action: Annotated[str, OneOf(*ACTIONS, *GROUPS)] | None = Field(
        None, description="An action, or all that is done to keys: `key.*`"
    )
    actor: Annotated[str, UpTo(NAMED_MAX_LENGTH)] | None = Field(
        None, description="The id or name of who did it"
    )
    target: Annotated[str, UpTo(NAMED_MAX_LENGTH)] | None = Field(
        None, description="The id of the key, person or project, or its name at that time"
    )
    since: Instant | None = Field(None, description="This instant or later")
    until: Instant | None = Field(None, description="Before this instant")


class EventQuery(PageQuery, EventFilters):
    """Which events are asked for, and as what."""

    project: str | None = Field(None, description="The project's slug")
    scope: Annotated[str, OneOf(*SCOPES)] = Field(
        PROJECT,
        description="installation, without `project`: everything, people and deleted projects "
        "too; for owners",
    )
    format: Format = JSON


WHERE: Mapping[str, Any] = {
    "action": lambda text: Event.action.in_(_meant(text)),
    "actor": lambda text: (Event.actor_id == text) | (Event.actor_name == text),
    "target": lambda text: (Event.target_id == text) | (Event.target_name == text),
    "since": lambda text: Event.at >= clock.parse(text),
    "until": lambda text: Event.at < clock.parse(text),
}


def _meant(text: str) -> list[str]:
    """The actions that a filter names."""
    if text in GROUPS:
        return [one for one in ACTIONS if one.startswith(text.removesuffix("*"))]
    return [text]


def page(
    project_id: str | None,
    *,
    by: Actor,
    filters: Mapping[str, str] | None = None,
    cursor: str | None = None,
    limit: int = LIMIT_DEFAULT,
) -> Page[Event]:
    """A project's events, newest first; a member sees their own. For owners those of the whole
    installation, where no project is named. Raises Invalid, Forbidden, Unknown."""
    return search.page(_scope(project_id, filters or {}, by), cursor, limit)


def every(
    project_id: str | None,
    *,
    by: Actor,
    filters: Mapping[str, str],
    cursor: str | None,
    most: int | None,
) -> Iterator[Event]:
    """All of what `page` pages, from the cursor on, one after the other."""
    return search.walk(_scope(project_id, filters, by), cursor, most)


def actors(project_id: str | None, *, by: Actor) -> list[str]:
    """Who did the latest ACTORS_AMONG things in a project, or anywhere, by name."""
    scope = _scope(project_id, {}, by)
    latest = scope.rows.where(*scope.wanted) if scope.wanted else scope.rows
    latest = latest.select(Event.actor_name).order_by(Event.id.desc()).limit(ACTORS_AMONG)
    return sorted({event.actor_name for event in latest})


def _scope(project_id: str | None, filters: Mapping[str, str], by: Actor) -> search.Scope:
    if project_id is not None:
        by.require(AUDIT_READ, project_id)
    elif not by.is_owner:
        raise Forbidden("This is for owners: the activity of the whole installation.")
    given = {name: text.strip() for name, text in filters.items() if text.strip()}
    asked = EventFilters.read(given).model_dump(exclude_unset=True)
    wanted = [WHERE[name](text) for name, text in asked.items()]
    if project_id is None:
        return search.Scope(Event.select(), Event.id, tuple(wanted))
    if by.sees_only_own(project_id):
        wanted.append(Event.actor_id == by.id)
    rows = Event.select().where(Event.project_id == project_id)
    return search.Scope(rows, Event.id, tuple(wanted))


def page_of_target(target_id: str, *, limit: int) -> Page[Event]:
    """The newest events of one key, for whoever may see the key."""
    return by_id(Event.select().where(Event.target_id == target_id), Event.id, None, limit)


@dataclass(frozen=True, slots=True)
class Version:
    """Settings of a project as one event left them."""

    event: Event
    settings: Mapping[str, Any]


def versions(
    project_id: str, present: Mapping[str, Any], *, by: Actor, limit: int
) -> list[Version]:
    """How settings of a project were, newest first, so many at most. `present` is what they hold
    now, by name. None for whoever sees their own events alone. Raises Unknown, Forbidden."""
    by.require(AUDIT_READ, project_id)
    if by.sees_only_own(project_id):
        return []
    held = dict(present)
    found: list[Version] = []
    for event in _edits(project_id, present).limit(limit):
        pairs = {name: event.changes[name] for name in present if name in event.changes}
        if pairs:
            found.append(
                Version(event, {**held, **{name: new for name, (_, new) in pairs.items()}})
            )
            held.update({name: old for name, (old, _) in pairs.items()})
    return found


def _edits(project_id: str, names: Iterable[str]) -> Any:
    """The events of the project itself that may tell of these fields, newest first."""
    text = Cast(Event.changes, "TEXT")
    tells = reduce(or_, [text.contains(f'"{name}"') for name in names])
    rows = Event.select().where(Event.target_id == project_id, Event.action.in_(SETTING), tells)
    return rows.order_by(Event.id.desc())


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
    project_id: Annotated[
        str | None, Field(description="Null where it belongs to none, as what is done to people")
    ]
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
        "project_id": event.project_id,
        "actor": {"kind": event.actor_kind, "id": event.actor_id, "name": event.actor_name},
        "target": {"id": event.target_id, "name": event.target_name},
        "changes": event.changes,
        "ip": event.ip,
        "request_id": event.request_id,
    }
