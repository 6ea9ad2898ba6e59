"""Instants and lengths of time: integer UTC milliseconds inside, RFC 3339 outside."""

import calendar
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import overload

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHORT_MONTHS_FROM = 31 * DAY  # 1 February 1970: no months are shorter than those from there
# fromisoformat reads far more of ISO 8601 than RFC 3339 allows: weeks, no seconds, no hyphens.
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
DURATION = re.compile(r"([1-9][0-9]{0,4})(m|h|d|w|mo|y)")
FIXED_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
MONTHS = {"mo": 1, "y": 12}
DURATION_HELP = "a length such as 30m, 24h, 7d, 4w, 6mo or 1y"
INSTANT_HELP = "a time with its zone, such as 2026-11-20T10:30:00Z"


def now() -> int:
    """The current time in milliseconds. Everything asks here, so that tests can move it."""
    return time.time_ns() // 1_000_000


@contextmanager
def set_by_hand() -> Iterator[Callable[[int], None]]:
    """Within it the time is the one that the function given was last called with.

    For the whole process, so only where nothing else happens in it.
    """
    global now
    kept, instant = now, now()

    def move(to: int) -> None:
        nonlocal instant
        instant = to

    def as_set() -> int:
        return instant

    now = as_set
    try:
        yield move
    finally:
        now = kept


def to_datetime(instant: int) -> datetime:
    return EPOCH + timedelta(milliseconds=instant)


@overload
def iso(instant: int) -> str: ...
@overload
def iso(instant: None) -> None: ...
@overload
def iso(instant: int | None) -> str | None: ...
def iso(instant: int | None) -> str | None:
    """An instant as RFC 3339 in whole seconds (`2026-11-20T10:30:00Z`), or None."""
    if instant is None:
        return None
    return to_datetime(instant - instant % SECOND).isoformat().replace("+00:00", "Z")


def parse(text: str) -> int:
    """Milliseconds of an RFC 3339 time. Raises ValueError when it is not one or has no zone."""
    text = text.upper()
    try:
        if not RFC_3339.fullmatch(text):
            raise ValueError
        return _instant_of(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError(f"must be {INSTANT_HELP}") from None


def after(start: int, duration: str) -> int:
    """The instant `duration` after `start`, calendar-aware for months and years.

    Raises ValueError for anything but `<number><m|h|d|w|mo|y>`, or past the year 9999.
    """
    match = DURATION.fullmatch(duration)
    if not match:
        raise ValueError(f"must be {DURATION_HELP}")
    amount, unit = int(match[1]), match[2]
    moment = to_datetime(start)
    try:
        if unit in MONTHS:
            moment = _add_months(moment, amount * MONTHS[unit])
        else:
            moment += FIXED_UNITS[unit] * amount
        return _instant_of(moment)
    except (ValueError, OverflowError):
        raise ValueError(f"{duration} is too long") from None


def _add_months(moment: datetime, months: int) -> datetime:
    """The same day `months` later; the month's last day where that day does not exist."""
    index = moment.month - 1 + months
    year, month = moment.year + index // 12, index % 12 + 1
    if year > 9999:
        raise ValueError
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return moment.replace(year=year, month=month, day=day)


def _instant_of(moment: datetime) -> int:
    """The moment in milliseconds. Raises OverflowError where its UTC second cannot be written."""
    instant = (moment - EPOCH) // timedelta(milliseconds=1)
    to_datetime(up_to_second(instant))
    return instant


def down_to_second(instant: int) -> int:
    """The instant, rounded down to a whole second, as it is shown."""
    return instant - instant % SECOND


def up_to_second(instant: int) -> int:
    """The instant, rounded up to a whole second, so that what is shown is exactly what holds."""
    return -(-instant // SECOND) * SECOND


def start_of(unit: str, instant: int) -> int:
    """The start of the UTC minute, hour, day or month that holds the instant."""
    if unit == "month":
        return _start_of_month(instant // DAY)
    length = {"minute": MINUTE, "hour": HOUR, "day": DAY}[unit]
    return instant - instant % length


@lru_cache(maxsize=1_000)
def _start_of_month(day: int) -> int:
    moment = to_datetime(day * DAY)
    return _instant_of(datetime(moment.year, moment.month, 1, tzinfo=UTC))


def end_of(unit: str, instant: int) -> int:
    """The first instant of the next UTC minute, hour, day or month."""
    start = start_of(unit, instant)
    if unit == "month":
        return start_of("month", start + 32 * DAY)
    return start + {"minute": MINUTE, "hour": HOUR, "day": DAY}[unit]
