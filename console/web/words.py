"""How pages say things: times, states, countries, reasons. For templates alone."""

from collections.abc import Mapping
from typing import Any

from flask import Flask

from console import alert_rules, alert_words, clock, country, keys, limits, renewal
from console.check import (
    CODES,
    ENVIRONMENT_MISMATCH,
    EXPIRED_KEY,
    INVALID,
    IP_NOT_ALLOWED,
    MALFORMED,
    MISSING,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    SUPERSEDED,
    VALID,
)
from console.clock import DAY, HOUR, MINUTE
from console.models import ACTIVE, EXPIRED, REVOKED, TEST, Entry, Event, Key
from console.route_rules import ALLOW, DENY, UNREADABLE, Need
from console.secret import masked

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
    "key.grace_changed": "changed the grace period of the key",
    "key.deleted": "deleted the key",
    "project.created": "created the project",
    "project.edited": "edited the project",
    "project.archived": "archived the project",
    "project.restored": "restored the project",
    "project.deleted": "deleted the project",
    "person.created": "added the person",
    "person.joined": "joined",
    "person.edited": "edited the person",
    "person.disabled": "disabled the person",
    "person.enabled": "enabled the person",
    "person.deleted": "removed the person",
    "person.invited": "invited",
    "person.reset_link_made": "made a link to a new password for",
    "person.password_reset": "chose a new password by a link",
    "person.login_link_made": "made a sign-in link for",
    "person.signed_in": "signed in",
    "person.signed_out": "signed out",
    "person.session_ended": "ended sessions of",
    "person.second_factor_added": "added a second factor to",
    "person.second_factor_removed": "removed the second factor of",
    "person.recovery_codes_made": "made recovery codes for",
    "person.recovery_code_used": "used a recovery code of",
    "person.sso_linked": "linked single sign-on to",
    "person.passkey_added": "added a passkey",
    "person.passkey_renamed": "renamed a passkey",
    "person.passkey_removed": "removed a passkey",
    "person.passkey_refused": "was refused with a passkey that may have been copied",
    "member.added": "gave a role to",
    "member.role_changed": "changed the role of",
    "member.removed": "took away the role of",
    "webhook.created": "created the webhook",
    "webhook.edited": "edited the webhook",
    "webhook.deleted": "deleted the webhook",
    "webhook.secret_rotated": "rotated the secret of the webhook",
    "webhook.disabled": "had the webhook disabled",
    "calendar.link_made": "made a calendar link for",
    "calendar.link_removed": "removed the calendar link of",
    "key.renewed": "renewed the key",
    "key.renewal_stopped": "stopped renewing the key",
    "alert.acknowledged": "acknowledged an alert about",
    "alert.muted": "muted alerts about",
    "alert.reopened": "opened an alert again about",
    **{
        f"alert.{kind}": f"raised the alert “{name}” about"
        for kind, name in alert_words.NAMES.items()
    },
}


# How a request ended, where a whole sentence (check.CODES) is too much.
OUTCOME_WORDS = {
    VALID: "Let in",
    SUPERSEDED: "Old secret",
    REVOKED_KEY: "Key revoked",
    EXPIRED_KEY: "Key expired",
    PROJECT_MISMATCH: "Other project",
    ENVIRONMENT_MISMATCH: "Other environment",
    IP_NOT_ALLOWED: "Address not allowed",
    PERMISSION_DENIED: "Permission missing",
    RATE_LIMITED: "Rate limit reached",
    QUOTA_EXCEEDED: "Quota used up",
}

# The same without a known key, and what lies behind it.
ATTEMPT_WORDS = {
    MISSING: ("No key sent", "Neither Authorization nor X-API-Key was there."),
    MALFORMED: ("Not a key", "What was sent has another shape, or was cut off."),
    INVALID: ("Unknown key", "It has the shape of a key. It was deleted, or guessed."),
}

# --- the logs ---------------------------------------------------------------------------------

FILTER_WORDS = {
    "status": "Status {}",
    "code": "{}",
    "method": "{}",
    "endpoint": "to {}…",
    "ip": "from {}",
    "key": "with the key {}",
    "secret": "with the {} secret",
    "since": "since {}",
    "until": "until {}",
    "action": "{}",
    "actor": "by {}",
    "target": "to {}",
    "last": "in the {}",
}
FILTER_VALUES = {
    ("status", "allowed"): "Let in",
    ("status", "denied"): "Refused",
    ("secret", "current"): "with the present secret",
    ("secret", "previous"): "with an old secret",
    ("last", "1h"): "in the last hour",
    ("last", "24h"): "in the last 24 hours",
    ("last", "7d"): "in the last 7 days",
    ("last", "30d"): "in the last 30 days",
}
GROUP_WORDS = {
    "key.*": "Keys",
    "project.*": "The project",
    "person.*": "People",
    "member.*": "Members",
    "webhook.*": "Webhooks",
    "alert.*": "Alerts",
    "calendar.*": "The calendar",
}
# What says old and new.
CHANGED = (
    "edited", "renewed", "renewal_stopped", "grace_changed", "rotated", "member.added",
    "role_changed", "member.removed", "passkey_added", "passkey_renamed", "passkey_removed",
    "passkey_refused",
)  # fmt: skip
CHANGE_WORDS = {
    "alerts": "Alerts",
    "renewal_period": "Renews itself by",
    "rotation_policy": "Rotation is due after",
    "alert_email": "Alerts go to",
    "auto_renew": "Renews itself",
    "default_expiry": "New keys live for",
    "environments": "New keys may be",
    "expires_at": "Expires",
    "external_id": "External id",
    "ip_allowlist": "IP allowlist",
    "key_limit": "Live keys at most",
    "maximum_lifetime": "Keys live at most",
    "monthly_quota": "Monthly quota",
    "previous_secret_expires_at": "Old secret works until",
    "route_default": "What no rule covers",
    "route_rules": "Rules of routes",
    "shows_environment": "Secrets say live or test",
    "url": "URL",
}
SAID_MAX_LENGTH = 200
UNITS = {"m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
PLAN_FIELDS = {"name", "per_minute", "per_hour"}
RULE_FIELDS = {"methods", "path", "permissions"}
ROUTE_DEFAULTS = {ALLOW: "Any key of the project", DENY: "Is refused"}


def register(app: Flask) -> None:
    app.jinja_env.filters.update(
        ago=ago,
        clock_time=clock_time,
        counted=counted,
        exact=exact,
        flag=flag,
        length_words=length_words,
        masked=masked,
        is_past=lambda instant: instant <= clock.now(),
        moment=moment,
        iso=clock.iso,
        passed=passed,
        pick=pick,
        sentence=sentence,
        share=share,
        to_minute=to_minute,
        until=until,
    )
    app.jinja_env.globals.update(
        state_of=state_of,
        grace_of=keys.grace_of,
        country_words=country.words_for,
        expires_soon=expires_soon,
        reason_of=reason_of,
        renews_at=renewal.renews_at,
        rotation_due_at=alert_rules.rotation_due_at,
        route_defaults=ROUTE_DEFAULTS,
        rule_words=rule_words,
        trial_words=trial_words,
        rate_words=rate_words,
        said=said,
        outcome_words=OUTCOME_WORDS,
        event_words=event_words,
        group_words=GROUP_WORDS,
        action_words=action_words,
        attempt_words=ATTEMPT_WORDS,
        changes_of=changes_of,
        details_of=details_of,
    )


def exact(instant: int) -> str:
    """`20 Nov 2026, 10:30:05 UTC`."""
    return clock.to_datetime(instant).strftime("%-d %b %Y, %H:%M:%S UTC")


def to_minute(instant: int) -> str:
    """`20 Nov 2026, 10:30 UTC`."""
    return clock.to_datetime(instant).strftime("%-d %b %Y, %H:%M UTC")


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
        return counted(passed // DAY, "day") + " ago"
    return _date(instant)


def passed(instant: int) -> str:
    """How long it is since then, rounded down: `12 s`, `5 min`, `5 h`, `3 days`."""
    length = max(0, clock.now() - instant)
    for unit, name in ((DAY, "day"), (HOUR, "h"), (MINUTE, "min")):
        if length >= unit:
            number = length // unit
            return counted(number, name) if unit == DAY else f"{number} {name}"
    return f"{length // clock.SECOND} s"


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
        return "in " + counted(-(-left // DAY), "day")
    return _date(instant)


def counted(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def _date(instant: int) -> str:
    return clock.to_datetime(instant).strftime("%-d %b %Y")


def state_of(key: Key) -> list[tuple[str, str]]:
    """The key's states as (kind, words): kinds are good, bad, quiet, warn, tag."""
    state = {
        ACTIVE: ("good", "Active"),
        REVOKED: ("bad", "Revoked"),
        EXPIRED: ("quiet", "Expired"),
    }[key.status_at(clock.now())]
    due_at = alert_rules.rotation_due_at(key) if state[0] == "good" else None
    due = [("warn", "Rotation due")] if due_at is not None and due_at <= clock.now() else []
    test = [("tag", "Test")] if key.environment == TEST else []
    return [state, *due, *test]


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


def length_words(duration: str) -> str:
    """`30 days` for `30d`; what is no length as it stands."""
    match = clock.DURATION.fullmatch(duration)
    return counted(int(match[1]), UNITS[match[2]]) if match else duration


def rate_words(key: Key) -> str:
    """`100 a minute, 1,000 an hour`, or `None`."""
    return rate(*limits.figures(key))


def rate(per_minute: int | None, per_hour: int | None) -> str:
    """`100 a minute, 1,000 an hour`, or `None`."""
    parts = [
        f"{figure:,} {unit}"
        for figure, unit in ((per_minute, "a minute"), (per_hour, "an hour"))
        if figure is not None
    ]
    return ", ".join(parts) or "None"


def moment(instant: int) -> str:
    """`20 Nov 10:30:05` this year, `20 Nov 2025 10:30:05` before (UTC)."""
    then, today = clock.to_datetime(instant), clock.to_datetime(clock.now())
    return then.strftime("%-d %b %H:%M:%S" if then.year == today.year else "%-d %b %Y %H:%M:%S")


def filter_words(name: str, text: str) -> str:
    """A filter as a part of a sentence: `Refused`, `from 203.0.113.7`, `in the last hour`."""
    if (name, text) in FILTER_VALUES:
        return FILTER_VALUES[name, text]
    if name == "code":
        text = OUTCOME_WORDS.get(text, text)
    elif name == "action":
        text = GROUP_WORDS.get(text) or EVENT_WORDS.get(text, text).capitalize()
    elif name in ("since", "until"):
        text = exact(clock.parse(text))
    return FILTER_WORDS[name].format(text)


def event_words(event: Event) -> str:
    """`invited`, in front of whom; where somebody did it to themselves, a whole: `edited their own
    account`."""
    what = EVENT_WORDS.get(event.action, event.action)
    if event.target_name != event.actor_name:
        return what
    if what.endswith((" of", " for", " to")):
        return f"{what} their own account"
    return what.replace("the person", "their own account")


def action_words(action: str) -> str:
    """`Rotated`, where it stands among others that are done to keys."""
    verb = action.partition(".")[2].replace("_", " ").capitalize()
    return {"Restored": "Enabled"}.get(verb, verb)


def changes_of(event: Event) -> list[str]:
    """What a change did, field by field: `Expires: never → 1 Dec 2026, 10:30 UTC`."""
    if not event.action.endswith(CHANGED):
        return []
    return [
        f"{CHANGE_WORDS.get(name) or name.replace('_', ' ').capitalize()}: {_changed(name, *pair)}"
        for name, pair in event.changes.items()
        if name != "prefix" and pair != [None, None]
    ]


def details_of(event: Event) -> list[tuple[str, str | list[str], str | list[str]]]:
    """Every field that an event tells of, before and after; rules of routes one by one."""
    return [
        (
            CHANGE_WORDS.get(name) or name.replace("_", " ").capitalize(),
            _detail_of(name, old),
            _detail_of(name, new),
        )
        for name, (old, new) in event.changes.items()
        if (old, new) != (None, None)
    ]


def _detail_of(name: str, value: Any) -> str | list[str]:
    is_rules = name == "route_rules" and value
    return [rule_words(rule) for rule in value] if is_rules else _said_of(name, value)


def _changed(name: str, old: Any, new: Any) -> str:
    is_told_apart = (old and new) or name == "route_rules"  # which have arrows of their own
    if isinstance(old, list) and isinstance(new, list) and is_told_apart:
        parts = (("added", [one for one in new if one not in old]),
                 ("removed", [one for one in old if one not in new]))  # fmt: skip
        told = [f"{words} {said(some)}" for words, some in parts if some]
        return "; ".join(told) or "another order"
    return f"{_said_of(name, old)} → {_said_of(name, new)}"


def _said_of(name: str, value: Any) -> str:
    if name == "expires_at" and value is None:
        return "never"
    if name.endswith("_at") and isinstance(value, str):
        return to_minute(clock.parse(value))
    if name == "rate_limit" and isinstance(value, dict):
        return rate(value.get("per_minute"), value.get("per_hour"))
    if name == "route_default" and value in ROUTE_DEFAULTS:
        return ROUTE_DEFAULTS[value].lower()
    return said(value)


def said(value: Any) -> str:
    """An event's old or new value in a few words."""
    if value in (None, "", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        words = ", ".join(said(one) for one in value)
    elif isinstance(value, dict):
        if value.keys() == PLAN_FIELDS:
            return f"{value['name']} ({rate(value['per_minute'], value['per_hour'])})"
        if value.keys() == RULE_FIELDS:
            return rule_words(value)
        is_offer = value.keys() == {"name", "description"}
        parts = [f"{name} {said(one)}" for name, one in value.items()]
        words = value["name"] if is_offer else ", ".join(parts)
    else:
        words = f"{value:,}" if isinstance(value, int) else str(value)
    return words if len(words) <= SAID_MAX_LENGTH else f"{words[:SAID_MAX_LENGTH]}…"


def rule_words(rule: Mapping[str, Any]) -> str:
    """`GET HEAD /tasks/** → tasks:read`."""
    methods = " ".join(rule["methods"]) or "Every method"
    return f"{methods} {rule['path']} → {' '.join(rule['permissions']) or 'any key'}"


def trial_words(need: Need) -> tuple[str, str]:
    """What a request needs, and why; the rules that decide are to follow."""
    what = (
        "Refused" if need.refusal
        else f"Needs {', '.join(need.permissions)}" if need.permissions
        else "Any key of the project"
    )  # fmt: skip
    if need.refusal == UNREADABLE:
        return what, UNREADABLE
    if not need.rules:
        return f"No rule covers it: {what.lower()}", ""
    ways = "The path can be read in several ways"
    if need.refusal:
        return what, f"{ways}, and one of them no rule covers. Of the others:"
    several = len(need.rules) > 1
    return what, f"{ways}, so several rules decide:" if several else "One rule decides:"


def share(part: int, whole: int) -> str:
    """`12 %`; `< 1 %` for little, `–` of nothing."""
    if not whole:
        return "–"
    return "< 1 %" if 0 < part * 100 < whole else f"{part * 100 // whole} %"


def pick(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Only these, and only where they say something."""
    return {name: values[name] for name in names if values.get(name)}
