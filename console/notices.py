"""What time brings about in keys: ends that come near, ends that came, secrets that are due for a
new one, keys that nobody uses. Each is told once, whatever the clock or a restart does: the alert's
row says that it was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from peewee import Tuple, fn

from console import alert_rules, alerts, clock, journal, keys, renewal
from console.alert_rules import EXPIRED_NOW, EXPIRING, OF_PROJECT, RENEWAL, ROTATION_DUE, UNUSED
from console.alerts import Finding
from console.jobs import Task, Turn
from console.models import ACTIVE, OPEN, Alert, Key, Project

# How long before the end it is told, the last first.
STAGES = (("1d", clock.DAY), ("7d", 7 * clock.DAY), ("30d", 30 * clock.DAY))
LATE_MAX = 7 * clock.DAY  # an end that came longer ago, while nobody served, is no news
BATCH = 20  # an alert takes some milliseconds, and others wait to write
OPEN_MAX = 1_000  # of a project and kind that come of age: nobody works through more of them


# --- ends ---------------------------------------------------------------------------------------


def tell_of_ends(turn: Turn) -> Iterator[int]:
    """Ends that come within 30, 7 and 1 days, and those that came."""
    journal.settle()
    soonest = 0
    for cause, ahead in STAGES:
        yield from _tell(turn, _ends_within(soonest, ahead, cause), _end(cause))
        soonest = ahead
    yield from _tell(turn, _has_ended(), _end(""))


def _tell(
    turn: Turn, meant: Callable[[int], Any], find: Callable[[Key, int], Finding | None]
) -> Iterator[int]:
    """Tells of the keys that are meant, some at a time."""
    last: tuple[int | None, str] = (-1, "")
    while True:
        now = clock.now()
        beyond = Tuple(Key.expires_at, Key.id) > Tuple(*last)
        condition = meant(now) & Key.revoked_at.is_null()
        query = Key.select(Key.id, Key.expires_at).where(condition, beyond)
        some = list(query.order_by(Key.expires_at, Key.id).limit(BATCH))
        if some:
            yield _tell_of(turn, some, condition, find, now)
        if len(some) < BATCH:
            return
        last = (some[-1].expires_at, some[-1].id)


def _tell_of(
    turn: Turn,
    some: Sequence[Key],
    condition: Any,
    find: Callable[[Key, int], Finding | None],
    now: int,
) -> int:
    """Tells of those of the keys of which it is still so; how many. They were looked for before the
    transaction: of a million keys that takes a while, in which others write."""
    with turn.write():
        still = keys.joined().where(Key.id.in_([key.id for key in some]), condition)
        told = alerts.report([one for key in still if (one := find(key, now))], now)
        turn.add(len(told))
    return len(told)


def _ends_within(soonest: int, ahead: int, cause: str) -> Callable[[int], Any]:
    """Whose end comes between so soon and so far ahead, was not set just before, and was not told.

    Whoever gives a key five days to live need not be told that it has less than seven.
    """

    def meant(now: int) -> Any:
        set_at = fn.coalesce(Key.ends_set_at, Key.created_at)
        return (
            (Key.expires_at > now + soonest)
            & (Key.expires_at <= now + ahead)
            & (set_at < Key.expires_at - ahead)
            & _is_heard(cause)
            & ~fn.EXISTS(_told_of_end(cause))
        )

    return meant


def _is_heard(cause: str) -> Any:
    """Of which keys somebody wants to hear at this stage. Of one that renews itself, at the first
    alone: by the time of the others its end has moved on, or renewal has stopped."""
    ends = ~Key.auto_renew & Key.project.not_in(_silent(EXPIRING))
    renews = Key.auto_renew & Key.project.not_in(_silent(RENEWAL))
    return ends | renews if cause == STAGES[-1][0] else ends


def _silent(kind: str) -> list[str]:
    """The projects that want to hear nothing of the kind, or are archived."""
    return [
        project.id
        for project in Project.select()
        if project.archived_at is not None or kind in alert_rules.of(project).off
    ]


def _told_of_end(cause: str) -> Any:
    row = Alert.alias()
    same_end = (row.subject == Key.id) & (row.window_at == Key.expires_at)
    return row.select(row.id).where(same_end, row.kind.in_((EXPIRING, RENEWAL)), row.cause == cause)


def _has_ended() -> Callable[[int], Any]:
    def meant(now: int) -> Any:
        came = (Key.expires_at <= now) & (Key.expires_at > now - LATE_MAX)
        is_heard = Key.project.not_in(_silent(EXPIRED_NOW))
        return came & is_heard & ~fn.EXISTS(alerts.told(EXPIRED_NOW, "", Key.expires_at))

    return meant


def _end(cause: str) -> Callable[[Key, int], Finding | None]:
    """What is told of a key's end at this stage; `""`: that it came."""

    def find(key: Key, now: int) -> Finding | None:
        assert key.expires_at is not None
        if not cause:  # also of one that renews itself, and was not to be renewed
            return Finding(EXPIRED_NOW, key, key.expires_at)
        if not key.auto_renew:
            return Finding(EXPIRING, key, key.expires_at, cause)
        return _renewal(key, cause, now)

    return find


def _renewal(key: Key, cause: str, now: int) -> Finding:
    assert key.expires_at is not None
    facts = {
        "renews_at": clock.iso(renewal.renews_at(key)),
        "renewed_until": clock.iso(renewal.renewed_until(key, now)),
        "unused_since": clock.iso(alert_rules.unused_since(key)),
        "is_unused": alert_rules.is_unused(key, now),
    }
    return Finding(RENEWAL, key, key.expires_at, cause, facts)


# --- secrets that are old, keys that are unused ---------------------------------------------------


def tell_of_age(turn: Turn) -> Iterator[int]:
    """Secrets that are due for a new one, and keys that nobody uses."""
    journal.settle()
    with turn.write():
        turn.add(_settle_used())
    for project in Project.select().order_by(Project.id):
        yield _settle_unheard(turn, project)
    for project in Project.select().where(Project.archived_at.is_null()).order_by(Project.id):
        if not project.rotation_policy:
            with turn.write():
                alerts.settle_rows(Alert.project == project, Alert.kind == ROTATION_DUE)
        for environment in project.rotation_policy or {}:
            yield from _tell_of_due(turn, project, environment)
        yield from _tell_of_unused(turn, project)


def _settle_unheard(turn: Turn, project: Project) -> int:
    """What the project does not want to hear of any more."""
    kinds = OF_PROJECT if project.archived_at is not None else alert_rules.of(project).off
    waiting = Alert.project == project, Alert.state == OPEN, Alert.kind.in_(list(kinds))
    if not kinds or not Alert.select().where(*waiting).exists():
        return 0
    with turn.write():
        return alerts.settle_rows(*waiting)


def _settle_used() -> int:
    """Keys that were unused, and are used again."""
    used = Key.alias()
    again = used.select(used.id).where(used.last_used_at > Alert.window_at)
    return alerts.settle_rows(Alert.kind == UNUSED, fn.EXISTS(again.where(used.id == Alert.key)))


def _tell_of_due(turn: Turn, project: Project, environment: str) -> Iterator[int]:
    length = project.rotation_policy[environment]
    if not length or ROTATION_DUE in alert_rules.of(project).off:
        return
    since = fn.coalesce(Key.rotated_at, Key.created_at)

    def find(key: Key, now: int) -> Finding | None:
        due_at, began = alert_rules.rotation_due_at(key), key.rotated_at or key.created_at
        if due_at is None or due_at > now:
            return None
        facts = {"secret_since": clock.iso(began), "policy": length}
        return Finding(ROTATION_DUE, key, began, facts=facts)

    condition = (Key.environment == environment) & ~fn.EXISTS(alerts.told(ROTATION_DUE, "", since))
    yield from _tell_old(turn, project, (ROTATION_DUE, length), since, condition, find)


def _tell_of_unused(turn: Turn, project: Project) -> Iterator[int]:
    if UNUSED in alert_rules.of(project).off:
        return
    since = fn.coalesce(Key.last_used_at, Key.created_at)

    def find(key: Key, now: int) -> Finding | None:
        if not alert_rules.is_unused(key, now):
            return None
        unused_since = alert_rules.unused_since(key)
        return Finding(UNUSED, key, unused_since, facts={"unused_since": clock.iso(unused_since)})

    condition = ~fn.EXISTS(alerts.told(UNUSED, "", since))
    length = alert_rules.of(project).unused_after
    yield from _tell_old(turn, project, (UNUSED, length), since, condition, find)


def _tell_old(
    turn: Turn,
    project: Project,
    what: tuple[str, str],
    since: Any,
    condition: Any,
    find: Callable[[Key, int], Finding | None],
) -> Iterator[int]:
    """Tells of the project's active keys of which something has been so for as long, some at a
    time, until so many are open; others are told once there is room. How long a month is `find`
    knows; here it is one of the shortest."""
    kind, length = what
    waiting = Alert.project == project, Alert.kind == kind, Alert.state == OPEN
    room = OPEN_MAX - Alert.select().where(*waiting).count()
    last = ""
    shortest = clock.after(clock.SHORT_MONTHS_FROM, length) - clock.SHORT_MONTHS_FROM
    while room > 0:
        now = clock.now()
        here = (Key.project == project) & keys.has_status(ACTIVE, now)
        meant = here & (since <= now - shortest) & condition
        query = Key.select(Key.id).where(meant, Key.id > last)
        some = list(query.order_by(Key.id).limit(BATCH))
        if some:
            told = _tell_of(turn, some, meant, find, now)
            room -= told
            yield told
        if len(some) < BATCH:
            return
        last = some[-1].id


ENDS = Task("notices", "Tells of keys that expire, or have expired", clock.MINUTE, tell_of_ends)
AGE = Task("hygiene", "Tells of keys that are unused or due for rotation", clock.HOUR, tell_of_age)
