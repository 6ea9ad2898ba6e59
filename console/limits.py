"""Rate limits and the monthly quota: plans, windows anchored to the clock, what is left.

Counted in the database inside the check's transaction: exact among threads and processes, and
kept over a restart. Knows nothing of why a check was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import peewee

from console import clock
from console.models import LIVE, Key, LimitCount

UNLIMITED, FREE, PROFESSIONAL, ENTERPRISE = "unlimited", "free", "professional", "enterprise"
PLANS: Mapping[str, tuple[int | None, int | None]] = {  # per minute, per hour
    UNLIMITED: (None, None),
    FREE: (100, 1_000),
    PROFESSIONAL: (500, 10_000),
    ENTERPRISE: (None, None),  # the key's own figures
}
MINUTE, HOUR, MONTH = "minute", "hour", "month"
WINDOW_SECONDS = {MINUTE: 60, HOUR: 3600}


@dataclass(frozen=True, slots=True)
class Window:
    """One limit as it stands: what is left of it, and when it starts anew (milliseconds)."""

    name: str
    limit: int
    remaining: int
    reset_at: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """Every limit of a key after a check, and the one that refused it, if one did."""

    windows: tuple[Window, ...] = ()
    refused: Window | None = None

    @property
    def shown(self) -> Window | None:
        """The rate limit that headers speak of: the one that refused, else the longest."""
        if self.refused is not None and self.refused.name != MONTH:
            return self.refused
        rates = [window for window in self.windows if window.name != MONTH]
        return rates[-1] if rates else None


def figures(key: Key) -> tuple[int | None, int | None]:
    """The key's limits per minute and per hour; None where there is none."""
    if key.plan == ENTERPRISE:
        return key.limit_per_minute, key.limit_per_hour
    return PLANS[key.plan]


def limits_of(key: Key) -> list[tuple[str, int]]:
    """The windows that bind this key, shortest first. Test keys have no quota."""
    per_minute, per_hour = figures(key)
    quota = key.monthly_quota if key.environment == LIVE else None
    named = ((MINUTE, per_minute), (HOUR, per_hour), (MONTH, quota))
    return [(name, limit) for name, limit in named if limit is not None]


def spend(key: Key, cost: int, now: int) -> Allowance:
    """Takes `cost` from every limit of the key, or from none and says which refused.

    Runs inside the transaction in which the caller holds the key and read `now`: calls that come
    at once are counted one after the other, and none in a window that another has left.
    """
    limits = limits_of(key)
    if not limits:
        return Allowance()
    allowance = _allowance(limits, _spent(key, now), cost, now)
    if allowance.refused is None and cost:
        rows = [
            {"key_id": key.id, "window": name, "start_at": clock.start_of(name, now), "spent": cost}
            for name, _ in limits
        ]
        _add(rows)
    return allowance


def look(key: Key, cost: int, now: int) -> Allowance:
    """What `spend` would answer, spending nothing."""
    limits = limits_of(key)
    return _allowance(limits, _spent(key, now), cost, now) if limits else Allowance()


def _spent(key: Key, now: int) -> dict[str, int]:
    rows = LimitCount.select().where(LimitCount.key_id == key.id)
    return {
        row.window: row.spent for row in rows if row.start_at == clock.start_of(row.window, now)
    }


def _allowance(
    limits: list[tuple[str, int]], spent: Mapping[str, int], cost: int, now: int
) -> Allowance:
    # A limit that was lowered may be overspent; what costs nothing passes it all the same.
    refusing = [name for name, limit in limits if cost and spent.get(name, 0) + cost > limit]
    taken = 0 if refusing else cost
    windows = {
        name: Window(
            name=name,
            limit=limit,
            remaining=max(0, limit - spent.get(name, 0) - taken),
            reset_at=clock.end_of(name, now),
        )
        for name, limit in limits
    }
    # Of several, the one that ends last: only then is it worth another try. A rate limit is
    # checked before the quota.
    rates = [name for name in refusing if name != MONTH]
    refused = windows[(rates or refusing)[-1]] if refusing else None
    return Allowance(tuple(windows.values()), refused)


def _add(rows: list[dict[str, Any]]) -> None:
    """Adds to the counters; one whose window has passed starts anew."""
    excluded = peewee.EXCLUDED
    same_window = LimitCount.start_at == excluded.start_at
    LimitCount.insert_many(rows).on_conflict(
        conflict_target=[LimitCount.key_id, LimitCount.window],
        update={
            LimitCount.spent: peewee.Case(
                None, [(same_window, LimitCount.spent + excluded.spent)], excluded.spent
            ),
            LimitCount.start_at: excluded.start_at,
        },
    ).execute()


def forget(key: Key) -> None:
    """Drops the counters of a key that is being deleted."""
    LimitCount.delete().where(LimitCount.key_id == key.id).execute()
