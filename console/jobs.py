"""What is done again and again in the background, by one process at a time: whose turn it is, how
far it has come, and how the last run ended. What a job does is known where it is done.

The turn is a row. Whoever has it renews it in the transaction of each step, so that a process that
was taken for dead, or whose clock was set forward, changes nothing any more once another has taken
over. A turn that is not renewed ends by itself.
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from console import clock, db
from console.models import Job

log = logging.getLogger(__name__)

LEASE = 30 * clock.SECOND  # longer than a step takes
AGAIN_AFTER = clock.MINUTE  # a run that failed, at most
SLACK = clock.MINUTE  # by which the clocks of two machines may differ
ERROR_MAX_LENGTH = 500

HOLDER = secrets.token_hex(8)  # this process


class Lost(Exception):
    """Another process has the turn by now."""


class Turn:
    """This process's turn to do a job. `position` is how far the runs before it have read; none has
    ever ended where it `is_first`."""

    def __init__(self, row: Job, holder: str) -> None:
        self.name = row.name
        self.position = row.position
        self.is_first = row.succeeded_at is None
        self._holder = holder

    @contextmanager
    def write(self, *, done: int = 0) -> Iterator[None]:
        """One step: a transaction in which this process still has the turn. `done` is how much more
        the run has done by its end. Raises Lost."""
        with db.write():
            self._renew({Job.done: Job.done + done} if done else {})
            yield

    def advance(self, position: int) -> None:
        """The next run begins behind this; inside a step."""
        self._renew({Job.position: position})
        self.position = position

    def add(self, done: int) -> None:
        """So much more is done; inside a step."""
        self._renew({Job.done: Job.done + done})

    def _renew(self, more: dict[object, object]) -> None:
        mine = Job.name == self.name, Job.holder == self._holder
        if not Job.update({Job.leased_until: clock.now() + LEASE, **more}).where(*mine).execute():
            raise Lost(self.name)


@dataclass(frozen=True)
class Task:
    """A job: what it does, in words, how many milliseconds lie between two runs, and the function
    that does it, in steps."""

    name: str
    about: str
    every: int
    run: Callable[[Turn], Iterator[object]]


def claim(task: Task, *, holder: str = HOLDER) -> tuple[Turn | None, int]:
    """The turn, where the job is due and nobody else does it; and when to ask again."""
    now = clock.now()
    row = Job.get_or_none(Job.name == task.name)
    if row is None:
        with db.write():
            Job.insert(name=task.name).on_conflict_ignore().execute()
        row = Job.get_by_id(task.name)
    if not is_free(row, now) or not is_due(task, row, now):
        return None, min(max(row.next_at, now), now + task.every)
    as_seen = Job.leased_until == row.leased_until, Job.next_at == row.next_at
    taken = {
        Job.holder: holder, Job.leased_until: now + LEASE, Job.started_at: now, Job.done: 0,
    }  # fmt: skip
    with db.write():
        has_turn = Job.update(taken).where(Job.name == task.name, *as_seen).execute()
    return (Turn(row, holder) if has_turn else None), now + min(task.every, LEASE)


def is_free(row: Job, now: int) -> bool:
    """Whether nobody does the job now. A lease that ends later than any can was written before the
    clock was set back."""
    return bool(row.leased_until <= now or row.leased_until > now + LEASE + SLACK)


def is_due(task: Task, row: Job, now: int) -> bool:
    """Whether the job's next run should have begun by now; or lies further ahead than it can."""
    return bool(row.next_at <= now or row.next_at > now + task.every + SLACK)


def finish(task: Task, *, error: str | None = None, holder: str = HOLDER) -> None:
    """The run is over; `error` says why it failed. One that has lost its turn says nothing."""
    now = clock.now()
    after = min(task.every, AGAIN_AFTER) if error else task.every
    ended = {
        Job.holder: None, Job.leased_until: 0, Job.finished_at: now, Job.next_at: now + after,
        Job.error: error[:ERROR_MAX_LENGTH] if error else None,
    }  # fmt: skip
    ended[Job.failed_at if error else Job.succeeded_at] = now
    with db.write():
        Job.update(ended).where(Job.name == task.name, Job.holder == holder).execute()


def release(task: Task, *, holder: str = HOLDER) -> None:
    """Gives the turn up in the middle of a run; whoever asks next begins anew."""
    given_up = {Job.holder: None, Job.leased_until: 0}
    with db.write():
        Job.update(given_up).where(Job.name == task.name, Job.holder == holder).execute()


def run_now(task: Task) -> None:
    """All of a run at once, whether it is due or not; nothing where another process is at it.

    For commands and tests; the worker takes steps.
    """
    with db.write():
        Job.update(next_at=0).where(Job.name == task.name).execute()
    turn, _ = claim(task)
    if turn is None:
        return
    try:
        for _ in task.run(turn):
            pass
    except Exception as error:
        finish(task, error=str(error))
        raise
    finish(task)


def all_rows() -> Sequence[Job]:
    """Every job that ever ran, by name."""
    return list(Job.select().order_by(Job.name))
