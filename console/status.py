"""How the installation does: its database and disk, the last backup, the jobs in the background,
and what waits to be stored and sent.

Reads only, by an index and never more than so many rows, so that it can be asked every few seconds.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peewee import SQL, Case, Value, fn

from console import clock, db, facts, jobs, journal, letterbox, limits, worker
from console.actor import Actor
from console.errors import Forbidden
from console.jobs import Task
from console.models import FAILED, OPEN, Alert, Delivery, Job, Letter

WEBHOOK = "webhook"
COUNTED_MAX = 10_000  # of what waits, and of open alerts
LOOKED_AT_MAX = 20_000  # messages, for those that failed
# A message fails for good about a day after it was written; one day more where nobody served.
LOOKED_BACK = 3 * clock.DAY


@dataclass(frozen=True)
class Database:
    """`size` in bytes, and that of the WAL beside it; None where that is not a file of ours."""

    name: str
    size: int
    wal_size: int | None = None

    @property
    def whole_size(self) -> int:
        return self.size + (self.wal_size or 0)


@dataclass(frozen=True)
class Backup:
    """The last one; `size` in bytes, None where it was not noted."""

    at: int
    size: int | None


@dataclass(frozen=True)
class Work:
    """A job, whichever process does it. Instants, and lengths in milliseconds, are None where they
    are not known: a run that is under way takes the place of the one before."""

    name: str
    about: str
    is_running: bool
    started_at: int | None  # of the present run, or the last one
    ended_at: int | None
    took: int | None
    done: int
    next_at: int | None  # None: it is due, and was never done
    is_due: bool
    error: str | None  # of the last run that ended
    succeeded_at: int | None  # when a run last ended well

    @property
    def has_stopped(self) -> bool:
        """Whether its last run neither ended nor goes on: its process has gone."""
        return not self.is_running and self.started_at is not None and self.took is None


@dataclass(frozen=True)
class Failure:
    """What went wrong with a message, which may still be sent."""

    at: int
    words: str


@dataclass(frozen=True)
class Messages:
    """What is sent by one channel. Where not all were counted, there are at least so many."""

    channel: str
    waiting: int
    all_waiting: bool
    oldest_at: int | None
    failed: int  # for good, within a day
    all_failed: bool


@dataclass(frozen=True)
class Status:
    at: int
    database: Database
    free: int  # bytes on the disk with the data
    entries_waiting: int  # of this process, to be stored
    backup: Backup | None
    redis_answers: bool | None  # None: there is none
    work: Sequence[Work]
    messages: Sequence[Messages]
    failures: Mapping[str, Failure]  # the last within a day, by channel


def look(data_dir: Path, *, by: Actor) -> Status:
    """All of it, for owners. Raises Forbidden."""
    if not by.is_owner:
        raise Forbidden("Only owners of this installation see how it does.")
    return Status(
        at=clock.now(),
        database=database(),
        free=free_bytes(data_dir),
        entries_waiting=journal.waiting(),
        backup=last_backup(),
        redis_answers=limits.is_answering(),
        work=work(),
        messages=messages(),
        failures=last_failures(),
    )


def database() -> Database:
    """Which one it is, and how large."""
    if not db.is_sqlite():
        return Database(f"PostgreSQL {db.server_version()}", db.server_size())
    file = Path(db.handle.obj.database)
    version = ".".join(map(str, db.sqlite_version()))
    wal = file.with_name(f"{file.name}-wal")
    return Database(f"SQLite {version}", _size(file), _size(wal))


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0


def free_bytes(data_dir: Path) -> int:
    """What is left there for whoever is not root."""
    return shutil.disk_usage(data_dir).free


def last_backup() -> Backup | None:
    """None where there never was one."""
    at, told = facts.noted_at(facts.LAST_BACKUP), facts.read(facts.LAST_BACKUP)
    if at is None or told is None:
        return None
    return Backup(at, json.loads(told).get("bytes"))


# --- jobs ---------------------------------------------------------------------------------------


def work() -> list[Work]:
    """Every job, in the order in which they are done."""
    now, rows = clock.now(), {row.name: row for row in jobs.all_rows()}
    return [_work(task, rows.get(task.name) or Job(name=task.name), now) for task in worker.TASKS]


def _work(task: Task, row: Job, now: int) -> Work:
    is_running = not jobs.is_free(row, now)
    return Work(
        name=task.name,
        about=task.about,
        is_running=is_running,
        started_at=row.started_at,
        ended_at=row.finished_at,
        took=None if is_running else _took(row.started_at, row.finished_at),
        done=row.done,
        next_at=row.next_at or None,
        is_due=jobs.is_due(task, row, now),
        error=row.error,
        succeeded_at=row.succeeded_at,
    )


def _took(started_at: int | None, ended_at: int | None) -> int | None:
    """None where a run began after the one that ended last."""
    if started_at is None or ended_at is None or ended_at < started_at:
        return None
    return ended_at - started_at


# --- messages -----------------------------------------------------------------------------------


def messages() -> list[Messages]:
    """What waits in each channel, since when, and how many failed for good within a day."""
    return [one for source in SOURCES for one in _messages(source)]


def last_failures() -> dict[str, Failure]:
    """What went wrong last in each channel within a day, of what is tried again, too."""
    since = clock.now() - clock.DAY
    found = {}
    for source in SOURCES:
        recent = source.recent()
        wrong = recent.c.error.is_null(False), recent.c.last_attempt_at >= since
        rows = source.model.select(recent.c.last_attempt_at, recent.c.error).from_(recent)
        newest = rows.where(*wrong).order_by(recent.c.last_attempt_at.desc()).limit(1)
        for name in source.channels:
            for row in newest.where(recent.c.channel == name).tuples():
                found[name] = Failure(*row)
    return found


@dataclass(frozen=True)
class _Source:
    """A table of messages, and the order of its index of those that wait."""

    model: Any
    channels: Sequence[str]
    channel: Any
    order: Sequence[Any]

    def waiting(self) -> Any:
        rows = self.model.select(self.channel.alias("channel"), self.model.created_at)
        due = rows.where(self.model.next_attempt_at.is_null(False))
        return due.order_by(*self.order).limit(COUNTED_MAX).alias("waiting")

    def recent(self) -> Any:
        """The oldest first, for those are the ones that have been given up."""
        columns = self.model.status, self.model.last_attempt_at, self.model.error
        rows = self.model.select(self.channel.alias("channel"), *columns)
        young = rows.where(self.model.created_at >= clock.now() - LOOKED_BACK)
        return young.order_by(self.model.created_at).limit(LOOKED_AT_MAX).alias("recent")


SOURCES = (
    _Source(
        Delivery, (WEBHOOK,), Value(WEBHOOK), (Delivery.webhook, Delivery.next_attempt_at)
    ),
    _Source(
        Letter, (letterbox.MAIL, letterbox.APPRISE), Letter.channel, (Letter.next_attempt_at,)
    ),
)  # fmt: skip


def _messages(source: _Source) -> list[Messages]:
    waiting, failed = _waiting(source), _failed(source)
    counted = sum(number for number, _ in waiting.values())
    looked_at = sum(number for number, _ in failed.values())
    return [
        Messages(
            channel=name,
            waiting=waiting[name][0],
            all_waiting=counted < COUNTED_MAX,
            oldest_at=waiting[name][1],
            failed=failed[name][1],
            all_failed=looked_at < LOOKED_AT_MAX,
        )
        for name in source.channels
    ]


def _waiting(source: _Source) -> Mapping[str, tuple[int, int | None]]:
    """How many wait in each channel, and since when the oldest does."""
    waiting = source.waiting()
    columns = waiting.c.channel, fn.COUNT(SQL("1")), fn.MIN(waiting.c.created_at)
    rows = source.model.select(*columns).from_(waiting).group_by(waiting.c.channel).tuples()
    none: tuple[int, int | None] = (0, None)
    return dict.fromkeys(source.channels, none) | {name: (count, at) for name, count, at in rows}


def _failed(source: _Source) -> Mapping[str, tuple[int, int]]:
    """How many messages of each channel were looked at, and how many of them failed."""
    recent, since = source.recent(), clock.now() - clock.DAY
    is_failed = (recent.c.status == FAILED) & (recent.c.last_attempt_at >= since)
    columns = recent.c.channel, fn.COUNT(SQL("1")), fn.SUM(Case(None, [(is_failed, 1)], 0))
    rows = source.model.select(*columns).from_(recent).group_by(recent.c.channel).tuples()
    return dict.fromkeys(source.channels, (0, 0)) | {name: (seen, bad) for name, seen, bad in rows}


# --- alerts -------------------------------------------------------------------------------------


def open_alerts() -> int:
    """How many are open in all projects, as far as they are counted."""
    some = Alert.select(Alert.id).where(Alert.state == OPEN)
    return int(some.order_by(Alert.created_at).limit(COUNTED_MAX).count())
