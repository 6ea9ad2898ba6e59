"""Who has a file of SQLite open: every process shares a lock on a file beside it for as long as it
lives, and who puts another database in its place takes that lock alone. However a process ends, the
kernel lets go of it. Knows nothing of what is in the database."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peewee

SUFFIX = "-in-use"
WAIT_SECONDS = 5
RETRY_SECONDS = 0.05

# Of this process, which has one database: that, and the descriptor that is locked. What it starts
# does not inherit it; what it forks does, rightly, for that has the database open as well.
_held: tuple[Path, int] | None = None


class Taken(peewee.OperationalError):
    """Another process has the database in a way that this one cannot share."""


def share(database: Path) -> None:
    """Lets nobody replace the database until this process ends or opens another.

    Raises Taken where it is being replaced for longer than WAIT_SECONDS, OSError.
    """
    global _held
    if _held is not None and _held[0] == database:
        return
    let_go()
    descriptor = _open(database)
    deadline = time.monotonic() + WAIT_SECONDS
    while not _is_locked(descriptor, fcntl.LOCK_SH):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise Taken(f"{database} is being restored by another command: try again when it ends")
        time.sleep(RETRY_SECONDS)
    _held = database, descriptor


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Within it no other process opens the database. Raises Taken at once where one has it open,
    OSError."""
    global _held
    descriptor = _open(database)
    if not _is_locked(descriptor, fcntl.LOCK_EX):
        os.close(descriptor)
        raise Taken(f"a server or another command uses {database}")
    let_go()
    _held = database, descriptor
    try:
        yield
    finally:
        let_go()


def let_go() -> None:
    """For who is done with the database before the process ends."""
    global _held
    if _held is not None:
        os.close(_held[1])
        _held = None


def _open(database: Path) -> int:
    # To read only, so that it does not matter which user made it.
    return os.open(f"{database}{SUFFIX}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
