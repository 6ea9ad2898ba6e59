"""Slows guessing down: how often signing in may fail for an account, from a network, in a browser.

The counts are rows, so that neither a restart nor another process forgets them. What is guessed,
and what it is compared with, signin.py knows.
"""

import hashlib
import hmac
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network

from console import clock, db
from console.addresses import parse_address
from console.clock import DAY, MINUTE, SECOND
from console.errors import Limited, Refused
from console.fields import clean_email
from console.models import Person, Throttle
from console.seal import derive

log = logging.getLogger(__name__)

FIRST_WAIT = SECOND
LONGEST_WAIT = 15 * MINUTE
DOUBLINGS = math.ceil(math.log2(LONGEST_WAIT / FIRST_WAIT))  # until the longest wait
NETWORK_BITS = {4: 24, 6: 64}
DIGEST_PURPOSE = "latchkey/throttle"
DIGEST_LENGTH = 32  # hexadecimal digits: enough that no two addresses share one
PRUNE_EVERY = MINUTE
BEGUN_MAX, BEGUN_WITHIN = 100, 5 * MINUTE  # sign-ins without a password that are begun
TURN_SECONDS = 5.0  # how long an attempt waits for others at once, of which it cannot be known yet


@dataclass(frozen=True, slots=True)
class Brake:
    """So many failures are free; each after those doubles the wait, from one second to the longest.

    For every full `fade` (milliseconds) without a failure one is forgotten.
    """

    kind: str
    free: int
    fade: int
    words: str

    def wait(self, count: int) -> int:
        """Milliseconds to wait after the failure that made it so many."""
        over = min(count - self.free, DOUBLINGS + 1)
        return min(FIRST_WAIT << (over - 1), LONGEST_WAIT) if over > 0 else 0

    def after(self, row: Throttle | None, now: int) -> int:
        """The count after one more failure; never more than it takes to wait longest."""
        left = max(0, row.count - (now - row.last_at) // self.fade) if row else 0
        return min(left + 1, self.free + DOUBLINGS + 1)


ACCOUNT = Brake(
    "account", 5, 15 * MINUTE,
    "Too many wrong attempts for this email address. Try again in {wait}, or in a "
    "browser in which you have signed in before.",
)  # fmt: skip
NETWORK = Brake(
    "network", 30, 5 * MINUTE,
    "Too many wrong attempts from your network. Try again in {wait}, or in a browser in "
    "which you have signed in before.",
)  # fmt: skip
BROWSER = Brake(
    "browser", 10, 15 * MINUTE,
    "Too many wrong attempts in this browser. Try again in {wait}.",
)  # fmt: skip
BRAKES = (ACCOUNT, NETWORK, BROWSER)

# Attempts of this process that are counted and not decided yet: whose.
_under_way: Counter[str] = Counter()
_decided = threading.Condition()

_key = b""
_pruned_at = 0


def use_secret_key(secret_key: str) -> None:
    """Sets the installation's secret key, without which a row does not tell whose address it is."""
    global _key
    _key = derive(secret_key, DIGEST_PURPOSE)[0]


@contextmanager
def attempt(email: str | None, *, ip: str | None, browser: str | None = None) -> Iterator[None]:
    """Within it, whatever proves who somebody is (a password, a code) is compared once.

    It counts as a failure before it begins, so that guesses made at once do not outrun the count.
    So the right ones among many at once wait until others are decided, and are not refused for
    them. The count is taken back unless the body raises Refused (of our own faults, 5xx: then too).
    `email` is None where what is shown tells who it is (a passkey); `browser` is what
    web/known_browser.py found. Raises Limited, having counted nothing, while the account, the
    network or the browser has to wait.
    """
    if db.handle.in_transaction():
        raise RuntimeError("a count inside a transaction would be undone with it")
    subjects = _subjects(email, ip, browser)
    counts = _count_in_turn(subjects)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Refused) or error.status >= 500:
            _take_back(counts)
        else:
            # Read by fail2ban (docs/operations.md): not another word.
            log.warning("sign-in failed from %s", ip or "an unknown address")
        raise
    else:
        _take_back(counts)
    finally:
        _set_under_way(subjects, -1)


def forgive(email: str, *, browser: str | None = None) -> None:
    """After a complete sign-in, forgets what was counted where it was made.

    In a known browser that is this browser's count: what strangers brought upon the account goes
    on to slow the strangers. A network's count is never forgiven: whoever has an account of their
    own could guess at others' for ever.
    """
    subject, _ = _subjects(email, None, browser)[0]
    with db.write():
        Throttle.delete().where(Throttle.subject == subject).execute()


def allow(kind: str, text: str, *, most: int, within_ms: int) -> bool:
    """Whether this, too, may happen, and counts it if so: `most` times in each `within_ms`, which
    begins with the first and is at most a day. `kind` names the happening, `text` whose it is."""
    subject, now = f"{kind}:{_digest(text)}", clock.now()
    with db.write():
        db.hold_name(subject)
        _prune(now)
        row = Throttle.get_or_none(Throttle.subject == subject)
        if row is None or not 0 <= now - row.last_at < within_ms:
            row = Throttle(subject=subject, count=0, last_at=now)
        if row.count >= most:
            return False
        _store(subject, row.count + 1, row.last_at)
        return True


def begin(kind: str, *, ip: str | None, browser: str | None) -> None:
    """One more sign-in of this kind that asks for no password is begun. Raises Limited where the
    network, or the known browser, begins too many."""
    whose = browser or network(ip)
    if not allow(kind, whose, most=BEGUN_MAX, within_ms=BEGUN_WITHIN):
        raise Limited(
            "Too many sign-ins were begun from your network. Try again in five minutes, or use "
            "your password.",
            retry_after_seconds=BEGUN_WITHIN // SECOND,
        )


# --- who is counted ---------------------------------------------------------------------------

Subjects = Sequence[tuple[str, Brake]]


def _subjects(email: str | None, ip: str | None, browser: str | None) -> Subjects:
    """Under which names a failure is counted.

    A known browser alone, where there is one: nothing that strangers do, to the account or in the
    same network, may keep the person out of it. Its own brake slows whoever else sits at it.
    """
    address = None if email is None else _normalised(email)
    if mark := _mark_of(browser, address):
        return [(f"browser:{_digest(mark)}", BROWSER)]
    of_network = (f"network:{network(ip)}", NETWORK)
    if address is None:
        return [of_network]
    return [(f"account:{_digest(address)}", ACCOUNT), of_network]


def _mark_of(browser: str | None, address: str | None) -> str | None:
    """The mark that the browser got when this account's person signed in there; with no account
    named, when anybody last did."""
    marks = {mark.partition(".")[0]: mark for mark in (browser or "").split()}
    if not marks:
        return None
    if address is None:
        return list(marks.values())[-1]
    found = Person.get_or_none(Person.id.in_(list(marks)), Person.email == address)
    return marks[found.id] if found else None


def is_known(browser: str | None, email: str) -> bool:
    """Whether this person has signed in before in the browser that presented this."""
    return _mark_of(browser, _normalised(email)) is not None


def _normalised(email: str) -> str:
    """The address as accounts have it; what is none, folded: it is counted all the same."""
    try:
        return clean_email(email)
    except ValueError:
        return email.strip().casefold()


def _digest(text: str) -> str:
    content = text.encode(errors="surrogatepass")
    return hmac.new(_key, content, hashlib.sha256).hexdigest()[:DIGEST_LENGTH]


def network(ip: str | None) -> str:
    """The network that an address is counted with; all that are not known are one."""
    try:
        address = parse_address(ip or "")
    except ValueError:
        return "unknown"
    return str(ip_network(f"{address}/{NETWORK_BITS[address.version]}", strict=False))


# --- the counts -------------------------------------------------------------------------------


class _MustWait(Limited):
    """Limited, and whose count it is that says so."""

    def __init__(self, words: str, held_up: list[str], *, retry_after_seconds: int) -> None:
        super().__init__(words, retry_after_seconds=retry_after_seconds)
        self.held_up = held_up


@dataclass(frozen=True, slots=True)
class _Count:
    """A failure as it was counted, and the row as it was before."""

    subject: str
    count: int
    at: int
    before: Throttle | None


def _count_in_turn(subjects: Subjects) -> list[_Count]:
    """Counts one failure for each, once those that are under way leave room. Raises Limited."""
    until = time.monotonic() + TURN_SECONDS
    while True:
        try:
            return _count(subjects)
        except _MustWait as error:
            with _decided:
                may_pass = any(_under_way[one] for one in error.held_up)
                left = until - time.monotonic()
                if not may_pass or left <= 0:
                    raise
                _decided.wait(left)


def _set_under_way(subjects: Subjects, by: int) -> None:
    with _decided:
        for subject, _ in subjects:
            _under_way[subject] += by
            if not _under_way[subject]:
                del _under_way[subject]
        _decided.notify_all()


def _count(subjects: Subjects) -> list[_Count]:
    """Counts one failure for each. Raises Limited, without a write where that can be helped."""
    now = clock.now()
    _refuse_while_waiting(subjects, _rows(subjects), now)
    counts: list[_Count] = []
    try:
        with db.write():
            for subject, _ in subjects:
                db.hold_name(subject)
            _prune(now)
            # After the clock was set back: from now on, and so never longer than the longest wait.
            names = [subject for subject, _ in subjects]
            Throttle.update(last_at=now).where(
                Throttle.subject.in_(names), Throttle.last_at > now
            ).execute()
            rows = _rows(subjects)
            if not any(_waits(subjects, rows, now)):
                for subject, brake in subjects:
                    before = rows.get(subject)
                    count = _Count(subject, brake.after(before, now), now, before)
                    _store(subject, count.count, now)
                    counts.append(count)
                _set_under_way(subjects, 1)  # before anybody else can see the counts
    except BaseException:
        if len(counts) == len(subjects):
            _set_under_way(subjects, -1)
        raise
    if not counts:
        _refuse_while_waiting(subjects, rows, now)
    return counts


def _rows(subjects: Subjects) -> dict[str, Throttle]:
    names = [subject for subject, _ in subjects]
    return {row.subject: row for row in Throttle.select().where(Throttle.subject.in_(names))}


def _waits(subjects: Subjects, rows: dict[str, Throttle], now: int) -> list[int]:
    """How many milliseconds each has still to wait."""
    return [
        max(0, row.last_at + brake.wait(row.count) - now)
        if (row := rows.get(subject)) and row.last_at <= now
        else 0
        for subject, brake in subjects
    ]


def _refuse_while_waiting(subjects: Subjects, rows: dict[str, Throttle], now: int) -> None:
    waits = list(zip(_waits(subjects, rows, now), subjects, strict=True))
    wait, (_, brake) = max(waits, key=_first)
    if wait:
        seconds = math.ceil(wait / SECOND)
        words = brake.words.format(wait=_in_words(seconds))
        held_up = [subject for wait, (subject, _) in waits if wait]
        raise _MustWait(words, held_up, retry_after_seconds=seconds)


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


def _in_words(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} second{'s' * (seconds != 1)}"
    return f"{math.ceil(seconds / 60)} minutes"


def _store(subject: str, count: int, at: int) -> None:
    Throttle.insert(subject=subject, count=count, last_at=at).on_conflict(
        conflict_target=[Throttle.subject],
        update={Throttle.count: count, Throttle.last_at: at},
    ).execute()


def _take_back(counts: Sequence[_Count]) -> None:
    """Makes it as if it had not been counted; what others counted since stays."""
    with db.write():
        for one in counts:
            db.hold_name(one.subject)
            as_counted = (Throttle.subject == one.subject) & (Throttle.count == one.count)
            as_counted &= Throttle.last_at == one.at
            if one.before is None:
                undone = Throttle.delete().where(as_counted).execute()
            else:
                undone = (
                    Throttle.update(count=one.before.count, last_at=one.before.last_at)
                    .where(as_counted)
                    .execute()
                )
            if not undone:
                Throttle.update(count=Throttle.count - 1).where(
                    Throttle.subject == one.subject, Throttle.count > 0
                ).execute()


def _prune(now: int) -> None:
    """Once a minute, drops what has faded: guessing at ever new addresses fills no disk."""
    global _pruned_at
    if abs(now - _pruned_at) < PRUNE_EVERY:
        return
    _pruned_at = now
    gone = Throttle.last_at <= now - DAY
    for brake in BRAKES:
        gone |= Throttle.subject.startswith(f"{brake.kind}:") & (
            Throttle.last_at + Throttle.count * brake.fade <= now
        )
    Throttle.delete().where(gone).execute()
