"""What people should know of their keys: each cause told once in its window, and what they made of
it. What is worth telling is found in notices.py and watch.py, and said in alert_words.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Annotated, Any

from peewee import JOIN, Tuple
from pydantic import Field
from typing_extensions import TypedDict

from console import (
    activity,
    alert_rules,
    alert_words,
    clock,
    db,
    key_owner,
    letterbox,
    paging,
    projects,
    secret,
)
from console.actor import KEY, Actor, latchkey
from console.alert_rules import (
    EXPIRED_NOW,
    EXPIRING,
    GUESSING,
    KINDS,
    LIMIT_NEAR,
    LIMIT_REACHED,
    NEW_COUNTRY,
    NEW_NETWORK,
    OLD_SECRET,
    RENEWAL,
    RENEWAL_STOPPED,
    ROTATION_DUE,
)
from console.errors import Unknown
from console.fields import Fields, Instant, OneOf, text_schema
from console.models import ACKNOWLEDGED, MUTED, OPEN, Alert, Key, Person, Project
from console.paging import Order, Page, PageQuery
from console.permissions import AUDIT_READ, KEYS_WRITE

STATES = (OPEN, ACKNOWLEDGED, MUTED)
ANY = "any"
COUNTED_MAX = 100
COUNTED_AGAIN = clock.MINUTE
# How many causes are told in one window: of a key, or of the installation.
MOST = {NEW_COUNTRY: 5, NEW_NETWORK: 5, GUESSING: 10}
KEPT = 365 * clock.DAY
# What is of the past once this was done to the key; of all else but an old secret once it is
# revoked.
ENDS = (EXPIRING, EXPIRED_NOW, RENEWAL, RENEWAL_STOPPED)
SETTLES: Mapping[str, tuple[str, ...]] = {
    "key.rotated": (ROTATION_DUE,),
    "key.renewed": ENDS,
    "key.restored": (OLD_SECRET,),
    "key.revoked": tuple(kind for kind in KINDS if kind != OLD_SECRET),
}
NEWEST = [
    Order(Alert.created_at, int, lambda alert: alert.created_at),
    Order(Alert.id, str, lambda alert: alert.id),
]


@dataclass(frozen=True)
class Finding:
    """Something worth telling: what it is about, its cause, and when the window of that began.

    `key` has its project and owner. `facts` are what it says, as JSON.
    """

    kind: str
    key: Key | None
    window_at: int
    cause: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    address: str = ""  # what it is about, where it is no key
    count: int = 1

    @property
    def subject(self) -> str:
        return self.key.id if self.key else self.address


# --- tell ---------------------------------------------------------------------------------------


def report(findings: Iterable[Finding], now: int) -> list[Alert]:
    """Tells what was found, in the caller's transaction: a row, an event and the letters for each
    cause that was not told in its window yet; the others are counted. Returns the new rows.

    Nothing is told of what the project has turned off; what somebody muted is a row alone.
    """
    wanted = [one for one in findings if _is_wanted(one)]
    if not wanted:
        return []
    _hold(wanted)
    muted = _muted(wanted)
    told = []
    for finding in wanted:
        state = MUTED if (finding.subject, finding.kind) in muted else OPEN
        alert = _store(finding, state, now)
        if alert is not None and state == OPEN:
            told.append(alert)
    for alert in told:
        if alert.kind in ENDS:  # what was told of an end before is of the past
            settle_rows(Alert.key == alert.key, Alert.kind.in_(ENDS), Alert.id != alert.id)
        _record(f"alert.{alert.kind}", alert, latchkey(), _told_facts(alert))
    _write_letters(told)
    return told


def news(findings: Sequence[Finding], now: int) -> list[Finding]:
    """Those of the findings of which `report` would write anything: what has a row is counted up
    once in a while. Only reads, so that whoever finds the same again and again waits for nobody."""
    subjects = sorted({one.subject for one in findings})
    columns = Alert.subject, Alert.kind, Alert.cause, Alert.window_at
    rows: Any = Alert.select(*columns).where(
        Alert.subject.in_(subjects), Alert.last_at > now - COUNTED_AGAIN
    )
    told = set(rows.tuples())
    return [
        one for one in findings if (one.subject, one.kind, one.cause, one.window_at) not in told
    ]


def _is_wanted(finding: Finding) -> bool:
    key = finding.key
    if key is None:
        return True
    return key.project.archived_at is None and finding.kind not in alert_rules.of(key.project).off


def _hold(findings: Sequence[Finding]) -> None:
    """Projects before keys, and each in the order of whoever else holds several: a new row would
    hold its own in the order in which it was found."""
    found = [one.key for one in findings if one.key]
    for model, ids in ((Project, {k.project_id for k in found}), (Key, {k.id for k in found})):
        db.hold_shared(model, ids)


def _muted(findings: Sequence[Finding]) -> set[tuple[str, str]]:
    subjects = sorted({one.subject for one in findings})
    rows = Alert.select(Alert.subject, Alert.kind).where(
        Alert.subject.in_(subjects), Alert.state == MUTED
    )
    return {(row.subject, row.kind) for row in rows}


def _store(finding: Finding, state: str, now: int) -> Alert | None:
    """The new row; None where this cause has one in this window, which is counted up instead."""
    same = {
        "subject": finding.subject,
        "kind": finding.kind,
        "cause": finding.cause,
        "window_at": finding.window_at,
    }
    facts = {**_facts_of(finding.key), **finding.facts}
    if finding.kind in MOST and _is_enough(finding):
        return None
    row = {
        "id": secret.random_id("alr"),
        "project": finding.key.project_id if finding.key else None,
        "key": finding.key.id if finding.key else None,
        "state": state,
        "count": finding.count,
        "created_at": now,
        "last_at": now,
        "facts": facts,
    }
    Alert.insert(**same, **row).on_conflict_ignore().execute()
    alert = Alert.get(*(getattr(Alert, name) == value for name, value in same.items()))
    if alert.id == row["id"]:
        alert.key = finding.key
        return alert
    alert.count = max(alert.count, finding.count)
    alert.last_at = now
    alert.facts = facts
    alert.save(only=[Alert.count, Alert.last_at, Alert.facts])
    return None


def _is_enough(finding: Finding) -> bool:
    """Whether so many other causes of the kind were told in the window that nobody reads more."""
    alike = Alert.kind == finding.kind, Alert.window_at == finding.window_at
    if finding.key is not None:
        others = Alert.select(Alert.cause).where(Alert.subject == finding.subject, *alike)
        causes = {row.cause for row in others}
    else:
        since = Alert.project.is_null(), Alert.created_at >= finding.window_at
        causes = {row.subject for row in Alert.select(Alert.subject).where(*since, *alike)}
    return (finding.cause or finding.subject) not in causes and len(causes) >= MOST[finding.kind]


def _facts_of(key: Key | None) -> dict[str, Any]:
    """What every alert says of its key, as it was then."""
    if key is None:
        return {}
    return {
        "name": key.name,
        "prefix": key.prefix,
        "environment": key.environment,
        "project": key.project.name,
        "slug": key.project.slug,
        "owner": key.owner.email if key.owner else None,
        "last_used_at": clock.iso(key.last_used_at),
        "expires_at": clock.iso(key.expires_at),
    }


def _told_facts(alert: Alert) -> activity.Changes:
    """What the event says, and so a webhook is told."""
    return {"alert": (None, alert.id), **{name: (None, it) for name, it in alert.facts.items()}}


def _record(action: str, alert: Alert, by: Actor, changes: activity.Changes) -> None:
    activity.record(
        action,
        by=by,
        target_id=alert.subject,
        target_name=alert.facts.get("name") or alert.subject,
        project_id=alert.project_id,
        changes=changes,
    )


def _write_letters(told: Sequence[Alert]) -> None:
    """To each person one letter, of all that is new for them in this transaction."""
    if not told:
        return
    letters: dict[str, list[Alert]] = defaultdict(list)
    for alert in told:
        for recipient in _recipients(alert):
            letters[recipient].append(alert)
    for recipient, theirs in letters.items():
        letterbox.mail_to([recipient], *alert_words.letter(theirs))
    letterbox.tell_services(*alert_words.letter(told))


def _recipients(alert: Alert) -> set[str]:
    """The key's owner, who can sign in and has a role there, and the team; where there is neither,
    the installation's owners: nobody would hear of it otherwise."""
    key = alert.key
    found = {key.project.alert_email} if key and key.project.alert_email else set()
    if key and key.owner and key_owner.may_hear(key.owner, key.project_id):
        found.add(key.owner.email)
    if found:
        return found
    owners = Person.select().where(Person.is_owner, Person.disabled_at.is_null())
    return {one.email for one in owners}


# --- settle -------------------------------------------------------------------------------------


def settle(action: str, key: Key, changes: activity.Changes) -> None:
    """Takes what is so of the past off the list, in the transaction of what was done to the key."""
    kinds = SETTLES.get(action, ())
    if action == "key.edited" and "expires_at" in changes:
        kinds = ENDS
    if action == "key.edited" and "auto_renew" in changes:
        kinds += ENDS
    if action == "key.edited" and not {"plan", "rate_limit", "monthly_quota"}.isdisjoint(changes):
        kinds += (LIMIT_NEAR, LIMIT_REACHED)
    if kinds:
        settle_rows(Alert.key == key, Alert.kind.in_(kinds))


def settle_rows(*condition: Any) -> int:
    """Acknowledges the open alerts of which this is true; in the caller's transaction."""
    settled = {Alert.state: ACKNOWLEDGED, Alert.decided_at: clock.now(), Alert.decided_by: None}
    return int(Alert.update(settled).where(Alert.state == OPEN, *condition).execute())


def prune(most: int) -> int:
    """Deletes at most so many alerts that are long past; returns how many went.

    What is muted stays: the row is what says so. And what tells of an end stays as long as that may
    come again: the row is what says that it was told.
    """
    before = clock.now() - KEPT
    old = Alert.state.in_((OPEN, ACKNOWLEDGED)), Alert.created_at < before, Alert.last_at < before
    some = Alert.select(Alert.id).where(*old, Alert.window_at < before).limit(most)
    return int(Alert.delete().where(Alert.id.in_(some)).execute())


# --- read ---------------------------------------------------------------------------------------


class AlertFilters(Fields):
    """Which alerts are asked for; all of what is given must fit."""

    state: Annotated[str, OneOf(*STATES, ANY)] = Field(OPEN, description=f"`{ANY}`: whatever it is")
    kind: Annotated[str, OneOf(*KINDS)] | None = None
    key: str | None = Field(None, description="The id of a key")


class AlertQuery(PageQuery, AlertFilters):
    """Which alerts are asked for."""

    project: str | None = Field(None, description="The project's slug; left out: all that you see")


class AlertChange(Fields):
    """What is made of an alert. What is muted is not told again, also not in a new window, until it
    is open again."""

    state: Annotated[str, OneOf(*STATES)]


class AlertKey(TypedDict):
    """The key that an alert is about."""

    id: str
    name: str
    prefix: str


class AlertObject(TypedDict):
    """Something that people should know."""

    id: Annotated[str, text_schema("alr_3Kq0cV8nTz5wYb2LmR7s")]
    project: Annotated[str | None, Field(description="Its slug; null: it concerns no project")]
    kind: Annotated[str, OneOf(*KINDS)]
    state: Annotated[str, OneOf(*STATES)]
    key: AlertKey | None
    message: Annotated[str, Field(description="What happened, in one sentence")]
    facts: Annotated[dict[str, Any], Field(description="What it says, as it was then")]
    count: Annotated[int, Field(description="How often, where that can be counted")]
    created_at: Instant
    last_at: Instant
    decided_at: Instant | None
    decided_by: Annotated[
        str | None, Field(description="Whoever set the state; null: it settled itself")
    ]


def as_dict(alert: Alert) -> AlertObject:
    """The alert object of the API."""
    key = alert.key
    return {
        "id": alert.id,
        "project": alert.project.slug if alert.project else None,
        "kind": alert.kind,
        "state": alert.state,
        "key": {"id": key.id, "name": key.name, "prefix": key.prefix} if key else None,
        "message": alert_words.headline(alert),
        "facts": alert.facts,
        "count": alert.count,
        "created_at": clock.iso(alert.created_at),
        "last_at": clock.iso(alert.last_at),
        "decided_at": clock.iso(alert.decided_at),
        "decided_by": alert.decided_by,
    }


def page(
    *,
    by: Actor,
    project: str | None = None,
    state: str = OPEN,
    kind: str | None = None,
    key: str | None = None,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
) -> Page[Alert]:
    """The alerts that the actor may see, newest first: a member those of their own keys, an owner
    those of the installation, too. Raises Invalid, Unknown, Forbidden."""
    query = _joined().where(_visible(project, by))
    if state != ANY:
        query = query.where(Alert.state == state)
    if kind is not None:
        query = query.where(Alert.kind == kind)
    if key is not None:
        query = query.where(Alert.key == key)
    return paging.fetch(query, NEWEST, descending=True, cursor=cursor, limit=limit)


def open_count(*, by: Actor) -> int:
    """How many wait for somebody; counted up to COUNTED_MAX."""
    parts = _parts_seen(projects.seen(by), by)
    queries = [Alert.select(Alert.id).where(Alert.state == OPEN, part) for part in parts]
    return min(COUNTED_MAX, sum(len(query.limit(COUNTED_MAX)) for query in queries))


def alert_to_see(alert_id: str, *, by: Actor) -> Alert:
    """The alert, where the actor may read it. Raises Unknown, Forbidden."""
    return _allowed(alert_id, AUDIT_READ, by)


def _allowed(alert_id: str, permission: str, by: Actor) -> Alert:
    """What belongs to no project is the owners', who may do everything."""
    alert = _joined().where(Alert.id == alert_id).first()
    if alert is None or not _sees(alert, by):
        raise Unknown("There is no such alert.")
    if alert.project_id is not None:
        by.require(permission, alert.project_id)
    return alert  # type: ignore[no-any-return]


def _joined() -> Any:
    query = Alert.select(Alert, Project, Key, Person)
    query = query.join(Project, JOIN.LEFT_OUTER).switch(Alert).join(Key, JOIN.LEFT_OUTER)
    return query.join(Person, JOIN.LEFT_OUTER)


def _sees(alert: Alert, by: Actor) -> bool:
    if alert.project_id is None:
        return by.is_owner
    is_foreign = by.sees_only_own(alert.project_id) and (
        alert.key is None or alert.key.owner_id != by.id
    )
    return by.sees(alert.project_id) and not is_foreign


def _visible(slug: str | None, by: Actor) -> Any:
    """The condition of the alerts that the actor may see. Raises Unknown, Forbidden."""
    if slug is not None:
        seen = [projects.to_see(slug, by=by)]
        by.require(AUDIT_READ, seen[0].id)
        return _seen(seen, by, with_installation=False)
    seen = projects.seen(by)
    readable = [one for one in seen if by.may(AUDIT_READ, one.id)]
    if seen and not readable:
        raise by.denied(AUDIT_READ)
    return _seen(readable, by)


def _seen(seen: Iterable[Project], by: Actor, *, with_installation: bool = True) -> Any:
    parts = _parts_seen(seen, by, with_installation=with_installation)
    return reduce(or_, parts) if parts else Alert.id.is_null()


def _parts_seen(seen: Iterable[Project], by: Actor, *, with_installation: bool = True) -> list[Any]:
    """Conditions of which each is answered by an index, and no alert fits two."""
    if by.is_owner and with_installation:
        return [Alert.id.is_null(False)]
    own = [one.id for one in seen if by.sees_only_own(one.id)]
    whole = [one.id for one in seen if not by.sees_only_own(one.id)]
    # By themselves, or SQLite would look for them among all alerts.
    keys = Key.select(Key.id).where(Key.owner == by.id, Key.project.in_(own))
    parts = [Alert.project == whole[0] if len(whole) == 1 else Alert.project.in_(whole)]
    return (parts if whole else []) + ([Alert.key.in_(keys)] if own else [])


# --- change -------------------------------------------------------------------------------------

DONE = {OPEN: "alert.reopened", ACKNOWLEDGED: "alert.acknowledged", MUTED: "alert.muted"}


@db.transaction
def change(alert_id: str, fields: Mapping[str, Any], *, by: Actor) -> Alert:
    """Acknowledges, mutes or opens the alert; what is so already leaves no event.

    For whoever may change the key; of the installation's, for owners. Raises Invalid, Unknown,
    Forbidden.
    """
    alert = _allowed(alert_id, KEYS_WRITE, by)
    wanted = AlertChange.read(fields).state
    _refuse_beyond(alert, by)
    if alert.state == wanted:
        return alert
    _record(DONE[wanted], alert, by, {"state": (alert.state, wanted), "alert": (None, alert.id)})
    alert.state, alert.decided_at, alert.decided_by = wanted, clock.now(), by.name
    if wanted == OPEN:
        alert.decided_at = alert.decided_by = None
        # What was muted with it is told again from now on.
        same = Alert.subject == alert.subject, Alert.kind == alert.kind, Alert.state == MUTED
        Alert.update(state=ACKNOWLEDGED).where(*same, Alert.id != alert.id).execute()
    alert.save(only=[Alert.state, Alert.decided_at, Alert.decided_by])
    return alert


def _refuse_beyond(alert: Alert, by: Actor) -> None:
    """No key makes others look away from a key that may do more than itself. Raises Forbidden."""
    if by.kind != KEY or alert.key is None or alert.project_id is None:
        return
    if beyond := by.not_grantable(alert.key.permissions, alert.project_id):
        raise by.denied(*beyond)


@db.transaction
def acknowledge_many(alert_ids: Iterable[str], *, by: Actor) -> int:
    """Acknowledges those that are open; how many. What is not there any more, or not theirs, is
    passed over; where that is all, raises Unknown. Raises Forbidden, and does none then."""
    number = found = 0
    for alert_id in sorted(set(alert_ids)):
        try:
            alert = _allowed(alert_id, KEYS_WRITE, by)
        except Unknown:
            continue
        found += 1
        if alert.state == OPEN:
            change(alert_id, {"state": ACKNOWLEDGED}, by=by)
            number += 1
    if not found:
        raise Unknown("There is no such alert.")
    return number


def told(kind: str, cause: str, window: Any) -> Any:
    """The condition, in a query over keys, that this was told of the key in this window."""
    row = Alert.alias()
    return row.select(row.id).where(
        Tuple(row.subject, row.kind, row.cause, row.window_at) == Tuple(Key.id, kind, cause, window)
    )
