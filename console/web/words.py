"""How pages say things: times, states, countries, reasons. For templates alone."""

from collections.abc import Mapping
from typing import Any

from flask import Flask

from console import clock, country, keys, limits
from console.check import CODES
from console.clock import DAY, HOUR, MINUTE
from console.models import ACTIVE, EXPIRED, REVOKED, TEST, Entry, Key

SOON = 7 * DAY
DATED = 30 * DAY
REGIONAL_INDICATOR_A = 0x1F1E6

EVENT_WORDS = {
    "key.created": "created the key",
    "key.imported": "imported the key",
    "key.edited": "edited the key",
    "key.revoked": "revoked the key",
    "key.restored": "enabled the key",
    "key.rotated": "rotated the key",
    "key.deleted": "deleted the key",
    "project.created": "created the project",
    "project.edited": "edited the project",
    "project.deleted": "deleted the project",
    "person.created": "added the person",
    "person.joined": "joined",
    "person.edited": "edited the person",
    "person.disabled": "disabled the person",
    "person.enabled": "enabled the person",
    "person.deleted": "removed the person",
    "person.signed_in": "signed in",
    "person.signed_out": "signed out",
    "webhook.created": "created the webhook",
    "webhook.edited": "edited the webhook",
    "webhook.deleted": "deleted the webhook",
    "webhook.secret_rotated": "rotated the secret of the webhook",
    "webhook.disabled": "had the webhook disabled",
}


def register(app: Flask) -> None:
    app.jinja_env.filters.update(
        ago=ago,
        clock_time=clock_time,
        exact=exact,
        flag=flag,
        iso=clock.iso,
        pick=pick,
        sentence=sentence,
        until=until,
    )
    app.jinja_env.globals.update(
        state_of=state_of,
        grace_of=keys.grace_of,
        country_words=country.words_for,
        expires_soon=expires_soon,
        reason_of=reason_of,
        rate_words=rate_words,
        said=said,
        event_words=EVENT_WORDS,
    )


def exact(instant: int) -> str:
    """`20 Nov 2026, 10:30:05 UTC`."""
    return clock.to_datetime(instant).strftime("%-d %b %Y, %H:%M:%S UTC")


def clock_time(instant: int) -> str:
    """`14:30` today, `21 Nov 14:30` on another day (UTC)."""
    moment = clock.to_datetime(instant)
    is_today = clock.start_of("day", instant) == clock.start_of("day", clock.now())
    return moment.strftime("%H:%M" if is_today else "%-d %b %H:%M")


def ago(instant: int) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `12 days ago`, then the date."""
    passed = clock.now() - instant
    if passed < MINUTE:
        return "just now"
    if passed < HOUR:
        return f"{passed // MINUTE} min ago"
    if passed < DAY:
        return f"{passed // HOUR} h ago"
    if passed < DATED:
        return _counted(passed // DAY, "day") + " ago"
    return _date(instant)


def until(instant: int) -> str:
    """`in 5 min`, `in 3 h`, `in 12 days`, then the date; `ago` for the past."""
    left = instant - clock.now()
    if left <= 0:
        return ago(instant)
    if left < HOUR:
        return f"in {-(-left // MINUTE)} min"
    if left <= 2 * DAY:
        return f"in {-(-left // HOUR)} h"
    if left <= DATED:
        return "in " + _counted(-(-left // DAY), "day")
    return _date(instant)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _date(instant: int) -> str:
    return clock.to_datetime(instant).strftime("%-d %b %Y")


def state_of(key: Key) -> list[tuple[str, str]]:
    """The key's states as (kind, words): kinds are good, bad, quiet, tag."""
    state = {
        ACTIVE: ("good", "Active"),
        REVOKED: ("bad", "Revoked"),
        EXPIRED: ("quiet", "Expired"),
    }[key.status_at(clock.now())]
    return [state, ("tag", "Test")] if key.environment == TEST else [state]


def reason_of(entry: Entry) -> str:
    return CODES[entry.code][1]


def sentence(words: str) -> str:
    """A refusal's words as a sentence of their own."""
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def flag(code: str | None) -> str:
    """Two regional-indicator letters, which show as a flag."""
    if not code or len(code) != 2 or not code.isascii() or not code.isalpha():
        return ""
    return "".join(chr(REGIONAL_INDICATOR_A + ord(letter) - ord("A")) for letter in code.upper())


def expires_soon(key: Key) -> bool:
    """Whether an active key ends within a week."""
    left = (key.expires_at or 0) - clock.now()
    return key.revoked_at is None and 0 < left < SOON


def rate_words(key: Key) -> str:
    """`100 a minute, 1,000 an hour`, or `None`."""
    per_minute, per_hour = limits.figures(key)
    parts = [
        f"{figure:,} {unit}"
        for figure, unit in ((per_minute, "a minute"), (per_hour, "an hour"))
        if figure is not None
    ]
    return ", ".join(parts) or "None"


def said(value: Any) -> str:
    """An event's old or new value in a few words."""
    if value in (None, "", [], {}):
        return "nothing"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def pick(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Only these, and only where they say something."""
    return {name: values[name] for name in names if values.get(name)}
