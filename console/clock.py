"""Instants and lengths of time: integer UTC milliseconds inside, RFC 3339 outside."""

import calendar
import re
import time
from datetime import UTC, datetime, timedelta

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

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


def to_datetime(instant: int) -> datetime:
    return datetime.fromtimestamp(instant / 1000, UTC)


def iso(instant: int | None) -> str | None:
    """An instant as RFC 3339 in whole seconds (`2026-11-20T10:30:00Z`), or None."""
    if instant is None:
        return None
    return to_datetime(instant - instant % SECOND).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> int:
    """Milliseconds of an RFC 3339 time. Raises ValueError when it is not one or has no zone."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError
        return int(moment.timestamp() * 1000)
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
    except (ValueError, OverflowError):
        raise ValueError(f"{duration} is too long") from None
    return int(moment.timestamp() * 1000)


def _add_months(moment: datetime, months: int) -> datetime:
    """The same day `months` later; the month's last day where that day does not exist."""
    index = moment.month - 1 + months
    year, month = moment.year + index // 12, index % 12 + 1
    if year > 9999:
        raise ValueError
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return moment.replace(year=year, month=month, day=day)


def up_to_second(instant: int) -> int:
    """The instant, rounded up to a whole second, so that what is shown is exactly what holds."""
    return -(-instant // SECOND) * SECOND


def start_of(unit: str, instant: int) -> int:
    """The start of the UTC minute, hour, day or month that holds the instant."""
    if unit == "month":
        moment = to_datetime(instant)
        return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp() * 1000)
    length = {"minute": MINUTE, "hour": HOUR, "day": DAY}[unit]
    return instant - instant % length


def end_of(unit: str, instant: int) -> int:
    """The first instant of the next UTC minute, hour, day or month."""
    start = start_of(unit, instant)
    if unit == "month":
        return start_of("month", start + 32 * DAY)
    return start + {"minute": MINUTE, "hour": HOUR, "day": DAY}[unit]
