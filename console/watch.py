"""What the newest requests tell: keys used from new places, refused in bursts, at their limits, or
with a secret that holds no more; and addresses that try keys that are not there.

Reads each entry once, in groups and behind those who wait for answers. What is found is a state,
not a sum: entries that are read twice, after a restart, tell nothing new.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, TypeVar

from peewee import fn

from console import alert_rules, alerts, clock, country, db, guessing, keys, limits
from console.addresses import parse_address
from console.alert_rules import (
    GUESSING,
    LIMIT_NEAR,
    LIMIT_REACHED,
    NEW_COUNTRY,
    NEW_NETWORK,
    OLD_SECRET,
    REFUSALS,
)
from console.alerts import Finding
from console.check import (
    ENVIRONMENT_MISMATCH,
    EXPIRED_KEY,
    IP_NOT_ALLOWED,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    SUPERSEDED,
    VALID,
)
from console.jobs import Task, Turn
from console.limits import CountsUnavailable, Window
from console.models import Entry, Key, Place, Usage

T = TypeVar("T")

EVERY = 5 * clock.SECOND
TOGETHER = 20_000  # entries that are read at once
BEHIND_MAX = 1_000_000  # entries that nobody looked at for so long are no news
KEYS_TOGETHER = 500
# In one transaction: an alert takes some milliseconds, and others wait to write.
TOLD_TOGETHER, LEARNED_TOGETHER = 20, 200
# Entries of several processes are not stored in the order of their ids: so many are read twice.
OVERLAP = 20_000
COUNTRY, NETWORK = "country", "network"
NETWORK_BITS = {4: 24, 6: 48}
PLACES_MAX = 500  # of a key: whoever is used from more is used from everywhere
PLACES_SHOWN = 10
PLACES_KEPT = 180 * clock.DAY
TOLD_OF = ((NEW_COUNTRY, COUNTRY, "countries"), (NEW_NETWORK, NETWORK, "networks"))
ALL_USED = 100
BURST = (EXPIRED_KEY, PROJECT_MISMATCH, ENVIRONMENT_MISMATCH, IP_NOT_ALLOWED, PERMISSION_DENIED)
OLD = (SUPERSEDED, REVOKED_KEY)


@dataclass(slots=True)
class Seen:
    """What some entries tell of one key: from where it was let in, and how it was refused."""

    places: dict[tuple[str, str], str] = field(default_factory=dict)  # kind, value -> an address
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last: dict[str, tuple[int, str | None, str | None]] = field(default_factory=dict)


def run(turn: Turn) -> Iterator[int]:
    """Looks through the entries since the last run, and at who tries keys that are not there."""
    newest = Entry.select(fn.max(Entry.id)).scalar() or 0
    if turn.is_first or newest - turn.position > BEHIND_MAX or newest < turn.position:
        with turn.write():
            turn.advance(newest)
    first = turn.position if db.is_sqlite() else max(0, turn.position - OVERLAP)
    while first < newest and turn.position < newest:
        last = min(newest, first + TOGETHER)
        seen = _read(first, last)
        for some in _parts(sorted(seen), KEYS_TOGETHER):
            yield _tell(turn, *_look_at({one: seen[one] for one in some}))
        with turn.write():
            turn.advance(max(last, turn.position))
        first = last
    yield _tell(turn, _guessers(), [])


def _tell(turn: Turn, findings: Sequence[Finding], learned: Sequence[Place]) -> int:
    """Tells what was found, and keeps what was learned; how many alerts there are more. Whatever is
    asked for it was asked before: others write meanwhile."""
    told = 0
    for some in _parts(alerts.news(findings, clock.now()), TOLD_TOGETHER):
        with turn.write():
            new = len(alerts.report(some, clock.now()))
            turn.add(new)
        told += new
    for places in _parts(sorted(learned, key=lambda one: one.key_id), LEARNED_TOGETHER):
        _learn(turn, places)
    return told


def _learn(turn: Turn, places: Sequence[Place]) -> None:
    with turn.write():
        for place in places:
            values = {"first_at": place.first_at, "last_at": place.last_at}
            row = Place.insert(key=place.key_id, kind=place.kind, value=place.value, **values)
            row.on_conflict(
                conflict_target=[Place.key, Place.kind, Place.value], preserve=[Place.last_at]
            ).execute()


def _parts(some: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(some), size):
        yield some[start : start + size]


def _read(after: int, up_to: int) -> dict[str, Seen]:
    """What the entries with these ids tell, by key."""
    columns = Entry.key_id, Entry.ip, Entry.country, Entry.code
    groups = Entry.select(*columns, fn.count(Entry.id), fn.max(Entry.at)).group_by(*columns)
    rows: Any = groups.where(Entry.id > after, Entry.id <= up_to).tuples()
    seen: dict[str, Seen] = defaultdict(Seen)
    for key_id, ip, code_of_country, code, count, at in rows:
        of_key = seen[key_id]
        if code == VALID:
            of_key.places.update(_places(ip, code_of_country))
        else:
            of_key.refused[code] += count
            if at > of_key.last.get(code, (0, None, None))[0]:
                of_key.last[code] = at, ip, code_of_country
    return seen


def _places(ip: str | None, code: str | None) -> Iterator[tuple[tuple[str, str], str]]:
    if ip is None:
        return
    if code is not None:
        yield (COUNTRY, code), ip
    address = parse_address(ip)
    network = ip_network(f"{address}/{NETWORK_BITS[address.version]}", strict=False)
    yield (NETWORK, str(network)), ip


def _look_at(seen: Mapping[str, Seen]) -> tuple[list[Finding], list[Place]]:
    """What is worth telling of these keys, and from where they were let in that is to be kept.

    Most keys are used as they always are: only of the others more is asked than that.
    """
    now = clock.now()
    known = _known_places([key_id for key_id in seen if seen[key_id].places])
    elsewhere = {key_id for key_id in seen if _is_elsewhere(seen[key_id], known[key_id], now)}
    refused = {key_id for key_id in seen if seen[key_id].refused}
    wanted = elsewhere | refused | _limited(list(seen))
    found = {key.id: key for key in keys.joined().where(Key.id.in_(sorted(wanted)))}
    denied = _denied({key_id: seen[key_id] for key_id in refused})
    used = {key_id: key for key_id, key in found.items() if key_id in elsewhere}
    findings, learned = _new_places(used, seen, known, now)
    for key_id, key in found.items():
        findings += _old_secrets(key, seen[key_id])
        findings += _limits(key, seen[key_id], now)
        findings += _burst(key, seen[key_id], denied)
    return findings, learned


def _limited(key_ids: list[str]) -> set[str]:
    """Which of the keys have any limit."""
    rows: Any = Key.select(Key.id).where(Key.id.in_(key_ids), limits.has_any()).tuples()
    return {key_id for (key_id,) in rows}


def _denied(seen: Mapping[str, Seen]) -> dict[tuple[str, int], int]:
    """How often each key was refused in the hour of its last refusals."""
    hours = {clock.start_of("hour", last[0]) for one in seen.values() for last in one.last.values()}
    columns = Usage.subject_id, Usage.start_at, Usage.denied
    rows: Any = Usage.select(*columns).where(
        Usage.subject_id.in_(list(seen)), Usage.unit == "hour", Usage.start_at.in_(sorted(hours))
    )
    return {(key_id, start_at): count for key_id, start_at, count in rows.tuples()}


# --- places -------------------------------------------------------------------------------------


Known = Mapping[tuple[str, str], tuple[int, int]]  # kind and value -> first and last seen


def _known_places(key_ids: list[str]) -> Mapping[str, Known]:
    known: dict[str, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
    columns = Place.key, Place.kind, Place.value, Place.first_at, Place.last_at
    rows: Any = Place.select(*columns).where(Place.key.in_(key_ids)).tuples()
    for key_id, kind, value, first_at, last_at in rows:
        known[key_id][kind, value] = first_at, last_at
    return known


def _is_elsewhere(seen: Seen, known: Known, now: int) -> bool:
    """Whether there is anything to learn of where the key was let in from."""
    before = now - clock.DAY
    return any(place not in known or known[place][1] < before for place in seen.places)


def _new_places(
    found: Mapping[str, Key], seen: Mapping[str, Seen], known: Mapping[str, Known], now: int
) -> tuple[list[Finding], list[Place]]:
    """What is new to those that are known well, and what is to be learned of all."""
    findings: list[Finding] = []
    learned: list[Place] = []
    today = clock.start_of("day", now)
    for key_id, key in found.items():
        places, before = seen[key_id].places, known[key_id]
        learned += _learned(key_id, places, before, now)
        if before and _is_known_well(key, before, now):
            new = [place for place in places if place not in before]
            findings += _tell_new(key, new, before, places, today)
    return findings, learned


def _learned(
    key_id: str, places: Iterable[tuple[str, str]], before: Known, now: int
) -> Iterator[Place]:
    """Places as they are to be kept: new ones, up to so many, and those that were last seen on an
    earlier day."""
    room = {kind: PLACES_MAX - _number(before, kind) for kind in (COUNTRY, NETWORK)}
    for kind, value in places:
        first_at, last_at = before.get((kind, value), (now, 0))
        is_new = (kind, value) not in before
        room[kind] -= is_new
        if (is_new and room[kind] >= 0) or (not is_new and last_at < now - clock.DAY):
            yield Place(key=key_id, kind=kind, value=value, first_at=first_at, last_at=now)


def _number(places: Iterable[tuple[str, str]], kind: str) -> int:
    return sum(1 for one, _ in places if one == kind)


def _is_known_well(key: Key, known: Known, now: int) -> bool:
    """Whether for long enough it was learned from where the key is used."""
    since = min(first_at for first_at, _ in known.values())
    return clock.after(since, alert_rules.of(key.project).learning_period) <= now


def _tell_new(
    key: Key,
    new: Sequence[tuple[str, str]],
    before: Known,
    places: Mapping[tuple[str, str], str],
    today: int,
) -> Iterator[Finding]:
    """One finding for each kind of place, and none of networks in a new country: that says it."""
    for told, kind, many in TOLD_OF:
        values = sorted(value for one, value in new if one == kind)
        if not values or _number(before, kind) >= PLACES_MAX:
            continue
        ip = places[kind, values[0]]
        facts = {many: values[:PLACES_SHOWN], "ip": ip, "country": country.of(ip)}
        yield Finding(told, key, today, values[0], facts, count=len(values))
        if kind == COUNTRY and NEW_COUNTRY not in alert_rules.of(key.project).off:
            return


def prune_places(most: int) -> int:
    """Forgets at most so many places that nobody came from for long; returns how many."""
    old = Place.select(Place.key, Place.kind, Place.value)
    past: Any = old.where(Place.last_at < clock.now() - PLACES_KEPT).limit(most).tuples()
    return sum(
        Place.delete().where(Place.key == key, Place.kind == kind, Place.value == value).execute()
        for key, kind, value in list(past)
    )


# --- refusals and limits --------------------------------------------------------------------------


def _old_secrets(key: Key, seen: Seen) -> Iterator[Finding]:
    """A secret that holds no more, of a key that was revoked or rotated."""
    for code in OLD:
        if code in seen.refused:
            at, ip, where = seen.last[code]
            facts = {"code": code, "ip": ip, "country": where}
            day = clock.start_of("day", at)
            yield Finding(OLD_SECRET, key, day, code, facts, count=seen.refused[code])


def _burst(key: Key, seen: Seen, denied: Mapping[tuple[str, int], int]) -> Iterator[Finding]:
    """More refusals in this hour than the project calls usual; those that a limit or an old secret
    makes are told as such."""
    refused = {code: count for code, count in seen.refused.items() if code in BURST}
    if not refused or sum(refused.values()) * 2 < sum(seen.refused.values()):
        return
    code = max(refused, key=lambda one: seen.last[one][0])
    at, ip, where = seen.last[code]
    hour = clock.start_of("hour", at)
    number = denied.get((key.id, hour), 0)
    if number < alert_rules.of(key.project).refusals_per_hour:
        return
    facts = {"refusals": number, "code": code, "ip": ip, "country": where}
    yield Finding(REFUSALS, key, hour, facts=facts, count=number)


def _limits(key: Key, seen: Seen, now: int) -> Iterator[Finding]:
    """Limits that are nearly used up, or wholly: once a day, a quota once in its month."""
    bounds = limits.limits_of(key)
    if not bounds:
        return
    try:
        windows = limits.look(key.id, bounds, 0, now).windows
    except CountsUnavailable:
        return
    percent = alert_rules.of(key.project).limit_percent
    for window in windows:
        used = window.limit - window.remaining
        refusal = QUOTA_EXCEEDED if window.name == limits.MONTH else RATE_LIMITED
        if used >= window.limit:
            yield _limit(LIMIT_REACHED, key, window, window.limit, now)
        elif used * ALL_USED >= window.limit * percent:
            yield _limit(LIMIT_NEAR, key, window, used, now)
        # By the time that it is asked about, the one that refused may have begun anew.
        if refusal in seen.refused and window is _likely(windows, refusal):
            yield _limit(LIMIT_REACHED, key, window, window.limit, seen.last[refusal][0])


def _likely(windows: Sequence[Window], refusal: str) -> Window:
    """The limit that most likely refused: of which the most is used."""
    fitting = [one for one in windows if (one.name == limits.MONTH) == (refusal == QUOTA_EXCEEDED)]
    return max(fitting, key=lambda one: (one.limit - one.remaining) / one.limit)


def _limit(kind: str, key: Key, window: Window, used: int, at: int) -> Finding:
    began = clock.start_of("month" if window.name == limits.MONTH else "day", at)
    facts = {
        "window": window.name,
        "limit": window.limit,
        "used": used,
        "percent": used * ALL_USED // window.limit,
        "resets_at": clock.iso(window.reset_at),
    }
    return Finding(kind, key, began, window.name, facts)


# --- guessing -------------------------------------------------------------------------------------


def _guessers() -> list[Finding]:
    """Addresses that tried more keys that are not there, within the hour, than anybody mistypes."""
    today = clock.start_of("day", clock.now())
    return [
        Finding(
            GUESSING,
            None,
            today,
            facts={"ip": ip, "country": country.of(ip), "attempts": count},
            address=ip,
            count=count,
        )
        for ip, count in guessing.guessers().items()
    ]


TASK = Task("watch", "Looks through the newest requests for what is unusual", EVERY, run)
