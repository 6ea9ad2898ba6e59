"""Keys that renew themselves: their end moves on before it comes, as long as somebody uses them.

The worker renews ahead of time. A check that meets a key past its end renews it first (check.py),
so that no request is refused however long the worker was away.
"""

import math
import time
from collections.abc import Iterator

from console import (
    activity,
    alert_rules,
    alerts,
    clock,
    db,
    journal,
    key_owner,
    key_rules,
    keys,
)
from console.actor import latchkey
from console.alert_rules import RENEWAL_STOPPED
from console.alerts import Finding
from console.errors import Conflict
from console.jobs import Task, Turn
from console.models import Key, Project, Usage

AHEAD_MAX = 7 * clock.DAY
AHEAD_SHARE = 4  # of a short period, so much of it
LATE_MAX = 7 * clock.DAY  # what ended longer ago waits for its next request
NOT_AGAIN_SECONDS = 60.0  # a key that a check could not renew
NOT_AGAIN_MAX = 10_000
BATCH = 50


def renews_at(key: Key) -> int:
    """When the key's end moves on: some days before it comes. The key has an end and a period."""
    assert key.expires_at is not None and key.renewal_period is not None
    gains = [clock.after(0, key.renewal_period)]
    if key.project.maximum_lifetime:  # what is renewed ends that far from then at most
        gains.append(clock.after(0, key.project.maximum_lifetime))
    return key.expires_at - min(AHEAD_MAX, min(gains) // AHEAD_SHARE)


def renewed_until(key: Key, now: int) -> int:
    """Where the key's end moves to: by whole periods, as far as its project lets keys live."""
    assert key.expires_at is not None and key.renewal_period is not None
    end = key.expires_at
    try:
        while end <= max(now, key.expires_at):
            end = clock.after(end, key.renewal_period)
    except ValueError:  # past the year 9999
        return key.expires_at
    latest = key_rules.latest_end(key.project, now)
    return end if latest is None else min(end, max(latest, key.expires_at))


def run(turn: Turn) -> Iterator[int]:
    """Renews what is due, and stops what nobody uses."""
    journal.settle()
    last = ""
    while True:
        now = clock.now()
        soon = (Key.expires_at > now - LATE_MAX) & (Key.expires_at <= now + AHEAD_MAX)
        due = Key.auto_renew, Key.revoked_at.is_null(), soon, Key.id > last
        found = list(keys.joined().where(*due).order_by(Key.id).limit(BATCH))
        for key in found:
            if _is_due(key, now, early=True):
                with turn.write():
                    turn.add(_renew(key, now, early=True))
                yield 1
        yield 0
        if len(found) < BATCH:
            return
        last = found[-1].id


def renew_late(key_id: str) -> None:
    """Renews a key whose end has come, in a transaction of its own; not one that may not work
    again."""
    if _not_before.get(key_id, -math.inf) > time.monotonic():
        return
    journal.settle()
    with db.write():
        key, now = Key.get_or_none(Key.id == key_id), clock.now()
        if key is not None:
            _renew(key, now, early=False)
        has_ended = Key.select().where(Key.id == key_id, Key.expires_at <= now).exists()
    if has_ended:
        if len(_not_before) >= NOT_AGAIN_MAX:
            _not_before.clear()
        _not_before[key_id] = time.monotonic() + NOT_AGAIN_SECONDS


# Keys that checks could not renew: they are not tried at each check, for that asks for the lock.
_not_before: dict[str, float] = {}


def _renew(key: Key, now: int, *, early: bool) -> bool:
    """Renews the key, or stops renewing it, as it is now; whether it was renewed."""
    db.hold(Project, key.project_id)
    db.hold(Key, key.id)
    key = keys.joined().where(Key.id == key.id).first()
    if key is None or not _is_due(key, now, early):
        return False
    if not _is_used(key, now):
        _stop(key, now)
        return False
    old, until = key.expires_at, renewed_until(key, now)
    assert old is not None
    if until <= max(old, now) or (old <= now and _stays_ended(key, now)):
        return False  # the project lets no key live for longer, or it may not work again
    key.expires_at, key.ends_set_at, key.updated_at = until, now, now
    key.save(only=key.dirty_fields)
    _record("key.renewed", key, {"expires_at": (clock.iso(old), clock.iso(until))})
    return True


def _is_used(key: Key, now: int) -> bool:
    """Whether anybody was let in with it of late; whoever was only refused had no use of it."""
    if alert_rules.is_unused(key, now):
        return False
    since = now - clock.after(0, alert_rules.of(key.project).unused_after)
    if key.created_at > since:
        return True
    days = Usage.subject_id == key.id, Usage.unit == "day", Usage.allowed > 0
    first = clock.start_of("day", since)
    return bool(Usage.select().where(*days, Usage.start_at >= first).exists())


def _stays_ended(key: Key, now: int) -> bool:
    """Whether a key whose end has come may not work again: what holds for whoever extends one."""
    try:
        keys.refuse_over_limit(key.project, now)
        key_owner.refuse_known_to_leavers(key, now)
    except Conflict:
        return True
    return False


def _is_due(key: Key, now: int, early: bool) -> bool:
    return (
        key.auto_renew
        and key.revoked_at is None
        and key.expires_at is not None
        and key.project.archived_at is None
        and now >= (renews_at(key) if early else key.expires_at)
    )


def _stop(key: Key, now: int) -> None:
    key.auto_renew, key.renewal_period, key.updated_at = False, None, now
    key.ends_set_at = now  # by this: there is no need to tell of the same end again at once
    key.save(only=key.dirty_fields)
    _record("key.renewal_stopped", key, {"auto_renew": (True, False)})
    assert key.expires_at is not None
    facts = {"unused_since": clock.iso(alert_rules.unused_since(key))}
    alerts.report([Finding(RENEWAL_STOPPED, key, key.expires_at, facts=facts)], now)


def _record(action: str, key: Key, changes: activity.Changes) -> None:
    alerts.settle(action, key, changes)
    activity.record(
        action,
        by=latchkey(),
        target_id=key.id,
        target_name=key.name,
        project_id=key.project_id,
        changes=changes,
        at=key.updated_at,
    )


TASK = Task("renewal", "Moves the end of keys that renew themselves", clock.MINUTE, run)
