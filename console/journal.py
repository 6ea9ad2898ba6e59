"""The journal: files to which a check appends its record before it answers, drained in batches.

Appending costs a microsecond and survives kill -9, for the files are mapped into memory; a row of
its own would cost a hundred times as much. So rows are stored for many records at once, and the
position up to which a file is done in the same transaction: each record is stored exactly once,
whenever the process dies. Knows nothing of what a record says. Framed as JSON text sequences
(RFC 7464): a torn record spoils no other.
"""

import fcntl
import logging
import math
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee
from pydantic_core import from_json, to_json

from console import db
from console.models import Drained

log = logging.getLogger(__name__)

DIRECTORY = "journal"
SUFFIX = ".jsonseq"
START, END, NOT_WRITTEN = b"\x1e", b"\n", b"\0"
FILE_BYTES = 16 * 1024 * 1024
ZEROS = bytes(1024 * 1024)
BATCH_BYTES = 1024 * 1024
PROBE_BYTES = 64 * 1024
# Beyond these files nothing more is taken on: a database that cannot be written is noticed.
FILES_MAX = 32
DRAIN_SECONDS = 0.2
TIDY_SECONDS = 1.0
ADOPT_SECONDS = 5.0
AGAIN_SECONDS = 5.0  # for which readers leave a database alone that took nothing
DRAFT_SECONDS = 60  # a file takes milliseconds to be made

Store = Callable[[str], None]


class JournalFull(Exception):
    """So much waits to be stored that no more is taken on."""


class _File:
    """One file of the journal, mapped into memory; locked by its writer as long as that lives."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self.written = 0
        self.drained = 0
        self.is_sure = True  # that what was stored last was, or was not

    @classmethod
    def create(cls, directory: Path) -> "_File":
        """A new file, whole and locked before it has the name by which others would find it.

        Its blocks are written at once, with zeros: where the disk is full this says so.
        """
        directory.mkdir(mode=0o700, exist_ok=True)
        draft = directory / f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for _ in range(0, FILE_BYTES, len(ZEROS)):
                if os.write(descriptor, ZEROS) < len(ZEROS):
                    raise OSError(f"{directory}: no room for {FILE_BYTES} bytes")
            return cls(draft.rename(draft.with_suffix(SUFFIX)), descriptor)
        except BaseException:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise

    @classmethod
    def left_behind(cls, path: Path) -> "_File | None":
        """The file of a process that is gone, at the position where it was left; else None."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        file = None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            if found.st_size and path.stat().st_ino == found.st_ino:
                position = _position(path)
                file = cls(path, descriptor)
                file.drained = position
        except (BlockingIOError, FileNotFoundError):  # it is written, or another has just taken it
            pass
        finally:
            if file is None:  # or nobody could take it as long as this process lives
                os.close(descriptor)
        return file

    def has_room(self, size: int) -> bool:
        return self.written + size <= len(self.map)

    def write(self, framed: bytes) -> None:
        end = self.written + len(framed)
        self.map[self.written : end] = framed
        self.written = end

    def store_batch(self, store: Store, wait_seconds: float | None = None) -> int:
        """Stores some of what is not stored yet; how many records that was."""
        if not self.is_sure:
            return self._make_sure()
        data = self.map[self.drained : min(self.written, self.drained + BATCH_BYTES)]
        size = data.rfind(END) + 1
        if size == 0:
            return 0
        self.is_sure = False
        with db.write(wait_seconds=wait_seconds):
            store(_array(data[:size]))
            self._note(self.drained + size)
        self.is_sure = True
        self.drained += size
        return data.count(START, 0, size)

    def _make_sure(self) -> int:
        """Whether what failed last was stored all the same: the answer to a commit may get lost."""
        before, self.drained = self.drained, max(self.drained, _position(self.path))
        self.is_sure = True
        return self.map[before : self.drained].count(START)

    def store_all(self, store: Store) -> None:
        """Stores what a process that is gone left, but for what the end of it has spoilt."""
        records = list(_sound(self.map[self.drained :].rstrip(NOT_WRITTEN), self.path))
        with db.write():
            try:
                with db.handle.atomic():
                    store(_as_array(records))
            except (peewee.IntegrityError, peewee.DataError):
                self._store_each(records, store)
            self._note(len(self.map))

    def _store_each(self, records: list[bytes], store: Store) -> None:
        for record in records:
            try:
                with db.handle.atomic():
                    store(_as_array([record]))
            except (peewee.IntegrityError, peewee.DataError) as error:
                log.error("%s: a record was left out: %s", self.path, error)

    def _note(self, position: int) -> None:
        Drained.insert(journal=self.path.name, position=position).on_conflict(
            conflict_target=[Drained.journal], preserve=[Drained.position]
        ).execute()

    def remove(self) -> None:
        """To be called when all of it is stored. The file goes first: a row that is left over is
        harmless, a file without its row would be stored again."""
        self.path.unlink(missing_ok=True)
        self.close()
        with db.write():
            Drained.delete().where(Drained.journal == self.path.name).execute()

    def close(self) -> None:
        self.map.close()
        os.close(self.descriptor)


def _position(path: Path) -> int:
    """Up to where this file is stored."""
    row = Drained.get_or_none(Drained.journal == path.name)
    return int(row.position) if row else 0


def _array(data: bytes) -> str:
    """The records as one JSON array; in few steps, for each step keeps checks waiting."""
    return (b"[" + data[len(START) : -len(END)].replace(END + START, b",") + b"]").decode()


def _as_array(records: list[bytes]) -> str:
    return (b"[" + b",".join(records) + b"]").decode()


def _sound(data: bytes, path: Path) -> Iterator[bytes]:
    """The records that are whole, each a JSON array."""
    for piece in data.split(START):
        record, _, rest = piece.partition(END)
        try:
            if isinstance(from_json(record), list):
                yield record
            else:
                rest = piece
        except ValueError:
            rest = piece
        if rest:
            log.error("%s: %d bytes that are no record were left out", path, len(rest))


def _written(path: Path) -> int:
    """Up to where a file was written that another process may be writing."""
    try:
        return path.read_bytes().rstrip(NOT_WRITTEN).rfind(END) + 1
    except FileNotFoundError:  # all of it is stored
        return 0


def _is_stored(path: Path, goal: int) -> bool:
    if goal == 0 or not path.exists():  # a file goes when it is stored
        return True
    return _position(path) >= goal


class Journal:
    """The journal of this process; `store` is given batches of records, inside a transaction.

    `synced`: `sync` waits for the disk. `tidy` is called about once a second by the thread that
    stores.
    """

    def __init__(
        self,
        data_dir: Path,
        store: Store,
        *,
        synced: bool = False,
        tidy: Callable[[], None] | None = None,
        in_background: bool = True,
    ) -> None:
        self._directory = data_dir / DIRECTORY
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._store = store
        self._synced = synced
        self._tidy = tidy
        self._in_background = in_background
        self._start_empty()

    def _start_empty(self) -> None:
        """Also after a fork: files, locks and thread are the parent's."""
        self._files: list[_File] = []  # the last one is written, all are drained
        self._spare: _File | None = None  # made beforehand, for that takes a few milliseconds
        self._appended = self._synced_to = self._stored = 0  # records, since the start
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._draining = threading.RLock()
        self._again_at = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def recover(self, *, remove: bool = True) -> None:
        """Stores what processes left behind that were killed, and removes what they had begun.

        `remove` not: the files stay as they are, for another database than this one.
        """
        for path in sorted(self._directory.iterdir()):
            if path.suffix == SUFFIX and path.is_file():
                file = _File.left_behind(path)
                if file is not None:
                    self._store_left(file, remove)
            elif not path.suffix:
                with suppress(FileNotFoundError):  # by now it has its name, or is gone
                    if time.time() - path.stat().st_mtime > DRAFT_SECONDS:
                        path.unlink()

    def _store_left(self, file: _File, remove: bool) -> None:
        try:
            file.store_all(self._store)
        except BaseException:
            file.close()  # for whoever tries next
            raise
        if remove:
            file.remove()
        else:
            file.close()

    def catch_up(self, wait_seconds: float) -> None:
        """Returns once all is stored that any process had appended before: what is left of those
        that are gone, by this one; else by its writer. Raises TimeoutError."""
        settle()
        goals = {path: _written(path) for path in self._directory.glob(f"*{SUFFIX}")}
        deadline = time.monotonic() + wait_seconds
        while True:
            self.recover()
            goals = {path: goal for path, goal in goals.items() if not _is_stored(path, goal)}
            if not goals:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{min(goals)} has not been stored for {wait_seconds:g} s")
            time.sleep(DRAIN_SECONDS / 4)

    # --- append -----------------------------------------------------------------------------

    def append(self, record: bytes) -> None:
        """Takes a JSON text on, safe from kill -9 when this returns, and from a loss of power when
        `sync` has. Raises OSError where the disk has no room, JournalFull."""
        framed = START + record + END
        with self._writing:
            if not self._files or not self._files[-1].has_room(len(framed)):
                self._next_file()
            self._files[-1].write(framed)
            self._appended += 1

    def probe(self) -> None:
        """Makes sure of room for a record. Raises OSError, JournalFull."""
        with self._writing:
            if not self._files or not self._files[-1].has_room(PROBE_BYTES):
                self._next_file()

    def _next_file(self) -> None:
        if len(self._files) >= FILES_MAX:
            raise JournalFull("the database has not taken entries for too long")
        file, self._spare = self._spare or _File.create(self._directory), None
        if self._synced and self._files:
            os.fdatasync(self._files[-1].descriptor)
            self._synced_to = self._appended
        self._files.append(file)
        if self._in_background and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def is_behind(self) -> bool:
        """Whether the disk has yet to take something that an answer waits for."""
        return self._synced and self._synced_to < self._appended

    def sync(self) -> None:
        """Waits until the disk has what was appended before, where the journal is synced. Group
        commit: who waited while another synced finds their record synced by the next."""
        number = self._appended
        if not self.is_behind():
            return
        with self._syncing:
            if self._synced_to < number:
                with self._writing:
                    end, file = self._appended, self._files[-1]
                os.fdatasync(file.descriptor)
                self._synced_to = max(self._synced_to, end)

    # --- drain ------------------------------------------------------------------------------

    def settle(self, wait_seconds: float = db.BUSY_TIMEOUT_SECONDS) -> None:
        """Stores all that was appended before; inside a transaction it does nothing, for what that
        stored could be taken back. Raises PeeweeException."""
        if not self._has_news() or db.handle.in_transaction():
            return
        until = time.monotonic() + wait_seconds
        if not self._draining.acquire(timeout=wait_seconds):
            raise peewee.OperationalError("another thread waits to store entries")
        try:
            self._drain(until)
            self._again_at = 0.0
        finally:
            self._draining.release()

    def settle_to_show(self) -> None:
        """The same for who reads: where the database takes nothing now, they see what is stored.

        They do not wait for long, and those that come after them not at all for a while.
        """
        if time.monotonic() < self._again_at:
            return
        try:
            self.settle(db.BRIEFLY_SECONDS)
        except peewee.PeeweeException:
            log.warning("entries cannot be stored; what is shown may lack the last", exc_info=True)
            self._again_at = time.monotonic() + AGAIN_SECONDS

    def waiting(self) -> int:
        """How many records were appended and are not stored yet."""
        return max(0, self._appended - self._stored)

    def _has_news(self) -> bool:
        return any(file.drained < file.written for file in self._files)

    def _drain(self, until: float) -> None:
        """By who holds `_draining`; waits for other writers no longer than `until`."""
        for file in list(self._files):
            goal = file.written
            while file.drained < goal:
                left = max(0.0, until - time.monotonic())
                self._stored += file.store_batch(self._store, min(left, db.BUSY_TIMEOUT_SECONDS))
            if file is not self._files[-1]:
                self._drop(file)

    def _prepare(self) -> None:
        """Makes the next file once the present one is half full."""
        if self._spare is None and not self._files[-1].has_room(FILE_BYTES // 2):
            self._spare = _File.create(self._directory)

    def _drop(self, file: _File) -> None:
        with self._syncing, self._writing:  # nobody syncs or writes it any more
            self._files.remove(file)
        file.remove()

    def _run(self) -> None:
        failed = False
        tidied_at = adopted_at = time.monotonic()
        while not self._stopped.wait(DRAIN_SECONDS):
            try:
                self.settle()
                self._prepare()
                if self._tidy is not None and time.monotonic() - tidied_at > TIDY_SECONDS:
                    tidied_at = time.monotonic()
                    self._tidy()
                if time.monotonic() - adopted_at > ADOPT_SECONDS:
                    adopted_at = time.monotonic()
                    self.recover()  # of a process beside this one that was killed
                failed = False
            except (peewee.PeeweeException, OSError):
                if not failed:
                    log.exception(
                        "%s: entries cannot be stored, or the next file not be made",
                        self._directory,
                    )
                failed = True
        db.close()

    def close(self) -> None:
        """Stores everything and ends; what cannot be stored now is when the next process starts."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._draining:
            self._drain(math.inf)
            for file in list(self._files):
                self._drop(file)
            if self._spare is not None:
                self._spare.remove()


# --- of this process ------------------------------------------------------------------------

_journal: Journal | None = None


def _forked() -> None:
    """A child appends to files of its own, and does not keep its parent's locked."""
    if _journal is not None:
        for file in _journal._files:
            os.close(file.descriptor)
        _journal._start_empty()


os.register_at_fork(after_in_child=_forked)


def use(journal: Journal) -> None:
    """Makes it the one to which this process appends, once what others left behind is stored."""
    global _journal
    journal.recover()
    _journal = journal


@contextmanager
def apart(directory: Path, store: Store) -> Iterator[None]:
    """Within it this process appends to a journal there, all of which is stored at the end, in the
    caller's transaction; so only where nothing else happens in the process."""
    global _journal
    kept, own = _journal, Journal(directory, store, in_background=False)
    _journal = own
    try:
        yield
        own.close()
    finally:
        _journal = kept


def append(record: list[Any]) -> None:
    """Takes a record on; see Journal.append. Raises OSError, JournalFull."""
    if _journal is None:
        raise JournalFull("there is no journal")
    _journal.append(to_json(record))


def probe() -> None:
    """Raises OSError or JournalFull where `append` would."""
    if _journal is None:
        raise JournalFull("there is no journal")
    _journal.probe()


def is_behind() -> bool:
    """Whether `sync` would wait."""
    return _journal is not None and _journal.is_behind()


def sync() -> None:
    """Waits for the disk where that is asked for; see Journal.sync. Raises OSError."""
    if _journal is not None:
        _journal.sync()


def settle() -> None:
    """Stores all that was appended before, for who decides by it; see Journal.settle."""
    if _journal is not None:
        _journal.settle()


def settle_to_show() -> None:
    """The same for who shows it, and can do without; see Journal.settle_to_show."""
    if _journal is not None:
        _journal.settle_to_show()


def waiting() -> int:
    """How many records of this process are not stored yet."""
    return 0 if _journal is None else _journal.waiting()


def left_behind(data_dir: Path) -> int:
    """How many files a process that is gone has left there, for the next start to store."""
    return sum(map(_is_left_behind, (data_dir / DIRECTORY).glob(f"*{SUFFIX}")))


def _is_left_behind(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return os.fstat(file.fileno()).st_size > 0
    except OSError:  # its process lives, or has just removed it
        return False


def close() -> None:
    """Stores all that was appended, and takes no more."""
    global _journal
    if _journal is not None:
        closed, _journal = _journal, None
        closed.close()
