"""What is past its time goes, in small batches between which others write. How long each thing is
kept is said where it lives."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from console import alerts, audit, chain, clock, db, letterbox, outbox, partitions, usage, watch
from console.jobs import Task, Turn

BATCH = 1_000
EVENT_DAYS = 365
ENTRIES, EVENTS = "entries", "events"

Write = Callable[[], AbstractContextManager[None]]

_entry_days = 90


def use_days(days: int) -> None:
    """Sets how long entries are kept."""
    global _entry_days
    _entry_days = days


def prepare() -> None:
    """Makes room for the entries of the days to come."""
    partitions.prepare(clock.now(), _entry_days)


def _prune_entries(most: int) -> int:
    return audit.prune_entries(_entry_days, most)


def _prune_events(most: int) -> int:
    return chain.prune(clock.now() - EVENT_DAYS * clock.DAY, most)


PRUNED: dict[str, Callable[[int], int]] = {
    ENTRIES: _prune_entries,
    EVENTS: _prune_events,
    "counts": usage.prune,
    "attempts": audit.prune_attempts,
    "deliveries": outbox.prune,
    "letters": letterbox.prune,
    "alerts": alerts.prune,
    "places": watch.prune_places,
}


def prune(
    write: Callable[[], AbstractContextManager[None]] = db.write,
) -> Iterator[tuple[str, int]]:
    """Deletes a batch at each step, in a transaction that `write` opens: what, and how many."""
    for name, delete in PRUNED.items():
        gone = BATCH
        while gone:
            with write():
                gone = delete(BATCH)
            yield name, gone


def prune_all() -> Counter[str]:
    """Deletes all that is past its time; how many of each."""
    gone: Counter[str] = Counter()
    for name, count in prune():
        gone[name] += count
    return gone


def run(turn: Turn) -> Iterator[int]:
    """The same as a job; and makes room for the days to come."""
    prepare()
    for _, count in prune(turn.write):
        if count:
            with turn.write():
                turn.add(count)
        yield count


TASK = Task("retention", "Deletes what is past its time", clock.HOUR, run)
