"""What alerts say, in plain English: in letters, on pages and to scripts alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from console import clock, country, links
from console.alert_rules import (
    EXPIRED_NOW,
    EXPIRING,
    GUESSING,
    LIMIT_NEAR,
    LIMIT_REACHED,
    NEW_COUNTRY,
    NEW_NETWORK,
    OLD_SECRET,
    REFUSALS,
    RENEWAL,
    RENEWAL_STOPPED,
    ROTATION_DUE,
    UNUSED,
)
from console.limits import HOUR, MINUTE, MONTH

if TYPE_CHECKING:
    from console.models import Alert

Facts = Mapping[str, Any]
NAMED_MAX = 50  # alerts that one letter tells in full
HOURS_UP_TO = 48
WINDOW_WORDS = {MINUTE: "a minute", HOUR: "an hour", MONTH: "a month"}

# kind -> what it is called, where several are offered
NAMES = {
    EXPIRING: "Expires soon",
    EXPIRED_NOW: "Expired",
    RENEWAL: "Renews itself soon",
    RENEWAL_STOPPED: "Renews itself no more",
    ROTATION_DUE: "Due for rotation",
    UNUSED: "Unused",
    NEW_COUNTRY: "New country",
    NEW_NETWORK: "New network",
    REFUSALS: "Many refusals",
    LIMIT_NEAR: "Limit nearly used up",
    LIMIT_REACHED: "Limit used up",
    OLD_SECRET: "Old secret in use",
    GUESSING: "Guessing",
}


def headline(alert: "Alert") -> str:
    """What happened, in one sentence without a full stop."""
    return HEADLINES[alert.kind](alert.facts)


def advice(alert: "Alert") -> str:
    """What it means, and what to do about it."""
    return ADVICE[alert.kind](alert.facts)


# --- one kind each ------------------------------------------------------------------------------


def _day(text: str | None) -> str:
    return (
        clock.to_datetime(clock.parse(text)).strftime("%-d %b %Y, %H:%M UTC") if text else "never"
    )


def _left(instant: str) -> str:
    """How long it is until then, when this is said."""
    hours = -(-(clock.parse(instant) - clock.now()) // clock.HOUR)
    if hours <= 1:
        return "within the hour" if hours == 1 else "by now"
    return f"in {hours} hours" if hours < HOURS_UP_TO else f"in {-(-hours // 24)} days"


def _from(facts: Facts) -> str:
    """Where a request came from: `203.0.113.7 (France)`."""
    ip = facts.get("ip")
    return f"{ip} ({country.words_for(facts.get('country'), ip)})" if ip else "an unknown address"


def _who(facts: Facts) -> str:
    return f"{facts['ip']}/64" if ":" in facts["ip"] else str(facts["ip"])


def _name(facts: Facts) -> str:
    """In quotes: a name is whatever somebody typed."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{facts['name']}\N{RIGHT DOUBLE QUOTATION MARK}"


def _limit(facts: Facts) -> str:
    return f"{facts['limit']:,} requests {WINDOW_WORDS[facts['window']]}"


def _countries(facts: Facts) -> str:
    *first, last = (country.words_for(one, None) for one in facts["countries"])
    return f"{', '.join(first)} and {last}" if first else last


HEADLINES: Mapping[str, Callable[[Facts], str]] = {
    EXPIRING: lambda facts: f"{_name(facts)} expires {_left(facts['expires_at'])}",
    EXPIRED_NOW: lambda facts: f"{_name(facts)} has expired",
    RENEWAL: lambda facts: f"{_name(facts)} renews itself {_left(facts['renews_at'])}",
    RENEWAL_STOPPED: lambda facts: f"{_name(facts)} renews itself no more: nobody uses it",
    ROTATION_DUE: lambda facts: f"{_name(facts)} is due for a new secret",
    UNUSED: lambda facts: (
        f"{_name(facts)} has been unused since {_day(facts['unused_since'])[:-11]}"
    ),
    NEW_COUNTRY: lambda facts: f"{_name(facts)} was used from a new country: {_countries(facts)}",
    NEW_NETWORK: lambda facts: (
        f"{_name(facts)} was used from a new network: {', '.join(facts['networks'])}"
    ),
    REFUSALS: lambda facts: f"{_name(facts)} was refused {facts['refusals']:,} times in an hour",
    LIMIT_NEAR: lambda facts: f"{_name(facts)} has used {facts['percent']} % of {_limit(facts)}",
    LIMIT_REACHED: lambda facts: f"{_name(facts)} has used up its {_limit(facts)}",
    OLD_SECRET: lambda facts: (
        f"A revoked key is still in use: {_name(facts)}"
        if facts["code"] == "API_KEY_REVOKED"
        else f"An old secret of {_name(facts)} is still in use"
    ),
    GUESSING: lambda facts: f"{_who(facts)} tried {facts['attempts']:,} unknown keys in an hour",
}
ADVICE: Mapping[str, Callable[[Facts], str]] = {
    EXPIRING: lambda facts: (
        f"It stops working on {_day(facts['expires_at'])}. Extend it, or give its client another "
        "key before then."
    ),
    EXPIRED_NOW: lambda facts: (
        f"It stopped working on {_day(facts['expires_at'])}. If it is still needed, extend it: it "
        "then works again with the same secret."
    ),
    RENEWAL: lambda facts: (
        f"Nobody has used it since {_day(facts['unused_since'])}. Unless somebody does, it will "
        f"not be renewed and stops working on {_day(facts['expires_at'])}."
        if facts["is_unused"]
        else f"On {_day(facts['renews_at'])} its end moves from {_day(facts['expires_at'])} to "
        f"{_day(facts['renewed_until'])}. If it is to end, turn auto-renewal off before then."
    ),
    RENEWAL_STOPPED: lambda facts: (
        f"Nobody has used it since {_day(facts['unused_since'])}, so it was not renewed. It stops "
        f"working on {_day(facts['expires_at'])}. If it is still needed, extend it."
    ),
    ROTATION_DUE: lambda facts: (
        f"Its secret has been in use since {_day(facts['secret_since'])}. The project asks for a "
        "new one after as long. It goes on working until you rotate it."
    ),
    UNUSED: lambda facts: "If nobody needs it any more, revoke it: what is unused is not missed.",
    NEW_COUNTRY: lambda facts: (
        f"First from {_from(facts)}. If that was none of you, somebody else has the secret: revoke "
        "the key, or rotate it."
    ),
    NEW_NETWORK: lambda facts: (
        f"First from {_from(facts)}. If that was none of you, somebody else has the secret: revoke "
        "the key, or rotate it."
    ),
    REFUSALS: lambda facts: (
        f"The last one was {facts['code']}, from {_from(facts)}. Its log says which requests they "
        "were, and what to do about each."
    ),
    LIMIT_NEAR: lambda facts: (
        f"{facts['used']:,} of {facts['limit']:,}. Beyond that its requests are refused with 429 "
        f"until {_day(facts['resets_at'])}."
    ),
    LIMIT_REACHED: lambda facts: (
        f"Its requests are refused with 429 until {_day(facts['resets_at'])}. Give it another "
        "plan, or have its client ask less often."
    ),
    OLD_SECRET: lambda facts: (
        f"It is refused. The last request came from {_from(facts)}. Either a client of yours was "
        "forgotten, or somebody else has that secret."
    ),
    GUESSING: lambda facts: (
        f"{_from(facts)} is answered more slowly by now, unless it is one of your own proxies. "
        "Keys are long enough not to be guessed; a client with a wrong key looks the same."
    ),
}


# --- letters ------------------------------------------------------------------------------------


def address(alert: "Alert") -> str:
    """The page of an alert, from which its key can be revoked."""
    return f"{links.base_url()}/alerts/{alert.id}"


def letter(alerts: Sequence["Alert"]) -> tuple[str, str]:
    """Subject and text of one letter that tells all of these."""
    if len(alerts) == 1:
        where = alerts[0].facts.get("project")
        subject = f"Latchkey: {headline(alerts[0])}{f' ({where})' if where else ''}"
    else:
        subject = f"Latchkey: {len(alerts)} alerts"
    parts = [_paragraph(alert) for alert in alerts[:NAMED_MAX]]
    if len(alerts) > NAMED_MAX:
        parts.append(f"And {len(alerts) - NAMED_MAX} more: {links.base_url()}/alerts")
    slugs = {alert.facts.get("slug") for alert in alerts}
    where = f"/projects/{slugs.pop()}/settings" if len(slugs) == 1 and None not in slugs else ""
    parts.append(
        "Latchkey tells the owner of a key, and the project's team. What it tells, and whom, is "
        f"set in the project's settings: {links.base_url()}{where}"
    )
    return subject, "\n\n".join(parts) + "\n"


def _paragraph(alert: "Alert") -> str:
    lines = [f"{headline(alert)}.", advice(alert)]
    facts = alert.facts
    if "prefix" in facts:
        used = facts["last_used_at"]
        lines += [
            "",
            f"Key:       {facts['name']} ({facts['prefix']}…, {facts['environment']})",
            f"Project:   {facts['project']}",
            f"Owner:     {facts['owner'] or 'nobody'}",
            f"Last used: {_day(used) if used else 'never'}",
            f"Expires:   {_day(facts['expires_at'])}",
        ]
    return "\n".join([*lines, "", address(alert)])
