"""The database handle: opened once, a connection per thread kept open, one writer at a time.

SQLite in WAL by default, PostgreSQL by URL; the models are the same on both.
"""

import fcntl
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import peewee
from peewee import Database, DatabaseProxy, Model, PostgresqlDatabase, SqliteDatabase
from playhouse.migrations import Runner
from playhouse.shortcuts import ReconnectMixin

from console import in_use
from console.actor import Actor

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_SECONDS = 5
BRIEFLY_SECONDS = 1.0  # for what can be left undone
SHORT_WAIT_SECONDS = 0.05
BUSY_RETRY_SECONDS = 0.02
MIGRATION_LOCK = 0x1A7C4  # an advisory lock's number on PostgreSQL; any constant of ours
# A server of PostgreSQL that cannot be reached any more is given up after so long: libpq's names.
PATIENCE = {
    "connect_timeout": BUSY_TIMEOUT_SECONDS,
    "tcp_user_timeout": 10_000,  # milliseconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
# And one that answers, but does not come to an end: nobody waits longer for a lock than on SQLite.
PATIENCE_THERE = f"SET lock_timeout = '{BUSY_TIMEOUT_SECONDS}s'; SET statement_timeout = '30s'"
UNHURRIED = "SET lock_timeout = 0; SET statement_timeout = 0"
WAL_SIZE_LIMIT = 64 * 1024 * 1024
CHANGES_SUFFIX = "-changes"
FILE_ENDS = ("", "-wal", "-shm", CHANGES_SUFFIX)  # of SQLite's file, and of those beside it
SQLITE_OLDEST = (3, 35, 0)

# Two connections that write or checkpoint in the same instant could corrupt the file.
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7))


class _LastThings(threading.local):
    """What is left to do at the end of this thread's transaction."""

    def __init__(self) -> None:
        self.depth = 0
        self.asked: list[Actor] = []  # who were found to be there still
        self.things: list[tuple[Callable[[list[Any]], None], Any]] = []

    def add(self, work: Callable[[list[Any]], None], thing: Any) -> None:
        assert self.depth, "outside a transaction nothing comes last"
        self.things.append((work, thing))

    @contextmanager
    def done(self) -> Iterator[None]:
        """What is added within is done at the outermost end; nothing of a part that failed."""
        before = len(self.things)
        self.depth += 1
        try:
            yield
            if self.depth == 1:
                self._do()
        except BaseException:
            del self.things[before:]
            raise
        finally:
            self.depth -= 1
            if not self.depth:
                self.asked.clear()

    def ask(self, by: Actor) -> None:
        """Once in a transaction: it may itself end what they came with."""
        if not any(one is by for one in self.asked):
            by.require_open()
            self.asked.append(by)

    def _do(self) -> None:
        together: dict[Callable[[list[Any]], None], list[Any]] = {}
        for work, thing in self.things:
            together.setdefault(work, []).append(thing)
        self.things.clear()
        for work, things in together.items():
            work(things)


handle = DatabaseProxy()
_writer = threading.RLock()
_last_things = _LastThings()
_changes: "_Changes | None" = None


class Base(Model):
    class Meta:
        database = handle
        legacy_table_names = False


class _Postgresql(ReconnectMixin, PostgresqlDatabase):  # type: ignore[misc]
    """Opens a thread's connection anew when the server ended it, but never inside a transaction."""

    reconnect_errors = (
        (peewee.OperationalError, "terminating connection"),
        (peewee.OperationalError, "server closed the connection"),
        (peewee.OperationalError, "the connection is closed"),
    )

    def _connect(self) -> Any:
        connection = super()._connect()
        connection.execute(PATIENCE_THERE)
        return connection


class NewerSchema(Exception):
    """The database was written by a newer version than this one."""


def open_database(url: str, *, synchronous: str = "normal") -> Database:
    """Opens `sqlite:///<path>` or `postgresql://…` and makes it the models' database.

    Closes this thread's connection to another one. Raises ValueError for another scheme,
    peewee.OperationalError when the file cannot be used: in_use.Taken while it is being restored.
    """
    global _changes
    close()
    _changes = None
    path = sqlite_file(url)
    if path is not None:
        _share(path.resolve())
        database = _sqlite(str(path), synchronous)
        _changes = _Changes(f"{path.resolve()}{CHANGES_SUFFIX}")
    elif urlsplit(url).scheme in ("postgresql", "postgres"):
        database = _postgresql(url)
    else:
        raise ValueError("must be sqlite:///<path> or postgresql://…")
    handle.initialize(database)
    return database


def sqlite_file(url: str) -> Path | None:
    """The file that `sqlite:///<path>` names; None for another scheme."""
    parts = urlsplit(url)
    return Path(unquote(parts.path.removeprefix("/"))) if parts.scheme == "sqlite" else None


def _share(file: Path) -> None:
    try:
        in_use.share(file)
    except OSError as error:
        raise peewee.OperationalError(f"{file}: {error.strerror}") from None


def _sqlite(path: str, synchronous: str) -> Database:
    if sqlite_version() < SQLITE_OLDEST:
        raise peewee.OperationalError(
            f"SQLite {'.'.join(map(str, sqlite_version()))} is too old: "
            "install the package pysqlite3, or SQLite 3.35 or newer"
        )
    database = SqliteDatabase(
        path,
        # A deferred transaction that reads, then writes, fails at once beside another writer.
        lock_type="IMMEDIATE",
        timeout=BUSY_TIMEOUT_SECONDS,
        pragmas={
            "journal_mode": "wal",
            "synchronous": synchronous,
            "busy_timeout": BUSY_TIMEOUT_SECONDS * 1000,
            "foreign_keys": 1,
            "temp_store": "memory",
            "cache_size": -4_000,  # KiB, of each thread; the system keeps the rest
            "journal_size_limit": WAL_SIZE_LIMIT,
            "trusted_schema": 0,
        },
    )
    _connect(database)
    mode = database.pragma("journal_mode")
    if mode != "wal":
        raise peewee.OperationalError(
            f"{path}: this file system does not carry SQLite's WAL (mode {mode}); "
            "put the data directory on a local disk"
        )
    return database


def _connect(database: Database) -> None:
    """Opens this thread's connection, again where another process turned WAL on just then.

    Of two that do so to a new file in the same instant, SQLite fails one without any wait.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            database.connect()
            return
        except peewee.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_RETRY_SECONDS)


def _postgresql(url: str) -> Database:
    # Handed on whole: what follows the name (sslmode=…, options=…) is libpq's to read, and ours
    # stands behind it, where it has not said otherwise.
    more: Any = {name: value for name, value in PATIENCE.items() if f"{name}=" not in url}
    return _Postgresql(f"postgresql:{url.partition(':')[2]}", prefer_psycopg3=True, **more)


def is_sqlite() -> bool:
    return isinstance(handle.obj, SqliteDatabase)


def close() -> None:
    """Closes this thread's connection; the others close with their threads."""
    if handle.obj is not None and not handle.is_closed():
        handle.close()


def let_go() -> None:
    """Closes this thread's connection where the server counts them, for who will not soon need it;
    that to SQLite is kept, for to open it costs more."""
    if not is_sqlite():
        close()


@contextmanager
def write(by: Actor | None = None, *, wait_seconds: float | None = None) -> Iterator[None]:
    """One transaction. All of it is stored, or none. `by`, who acts in it, must still have what
    they came with (Actor.require_open).

    On SQLite the process's writers queue here, in order, instead of polling for the file lock;
    none waits longer for both than `wait_seconds`, else BUSY_TIMEOUT_SECONDS. Raises
    peewee.OperationalError then.
    """
    wait_seconds = BUSY_TIMEOUT_SECONDS if wait_seconds is None else wait_seconds
    with _one_writer(wait_seconds), _last_things.done():
        if by is not None:
            _last_things.ask(by)
        yield


def do_last(work: Callable[[list[T]], None], thing: T) -> None:
    """Has `work` called with all such things just before this transaction is committed, and not at
    all when it fails. Only inside `write`.

    What everybody needs a lock for is so held for an instant, and by nobody who waits for another.
    """
    _last_things.add(work, thing)


@contextmanager
def _one_writer(wait_seconds: float) -> Iterator[None]:
    if not is_sqlite():
        with handle.atomic():
            yield
        return
    began = time.monotonic()
    if not _writer.acquire(timeout=wait_seconds):
        raise peewee.OperationalError("another writer holds the database")
    try:
        with _waiting_at_most(wait_seconds - (time.monotonic() - began)), _counted():
            yield
    except peewee.OperationalError as error:
        # So it was opened when nobody might write it, and would stay so for ever.
        if "readonly" in str(error) and not handle.in_transaction():
            close()
        raise
    finally:
        _writer.release()


@contextmanager
def _counted() -> Iterator[None]:
    """A transaction that whoever remembers rows hears of, before its change can be answered."""
    if _changes is None or handle.in_transaction():
        with handle.atomic():
            yield
        return
    number = 0
    try:
        with handle.atomic():
            number = _changes.begin()
            yield
    finally:
        _changes.end(number)


def changes() -> tuple[bytes, bool]:
    """What a remembered row goes by: other bytes as soon as anybody has written to SQLite through
    `write`, in whatever process; and whether nobody is about to."""
    assert _changes is not None
    seen = _changes.read()
    return seen, _changes.is_at_rest(seen)


def raise_flag() -> None:
    """Lets all processes on this file of SQLite know what `has_flag` asks: no query, no wait."""
    if _changes is not None:
        _changes.raise_flag()


def has_flag() -> bool:
    """Whether anybody has raised it; on PostgreSQL that cannot be known without a query: True."""
    return _changes is None or _changes.has_flag()


@contextmanager
def _waiting_at_most(seconds: float) -> Iterator[None]:
    """Whoever queued for long waits for the file only as long as is left of the same time."""
    shortened = seconds < BUSY_TIMEOUT_SECONDS - SHORT_WAIT_SECONDS and not handle.in_transaction()
    if not shortened:
        yield
        return
    handle.execute_sql(f"pragma busy_timeout = {max(1, int(seconds * 1000))}")
    try:
        yield
    finally:
        handle.execute_sql(f"pragma busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")


def transaction(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs in one transaction, of the actor among its arguments."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        actors = (one for one in (*args, *kwargs.values()) if isinstance(one, Actor))
        with write(next(actors, None)):
            return function(*args, **kwargs)

    return inside


class _Changes:
    """How often the database was written, in a small file that all processes map into memory.

    A writer counts `begun` while it holds the database alone, and `ended` after its commit. Who
    finds both as they were, and equal, has missed nothing; a writer that was killed in between
    leaves them apart, until the next. Behind them, a flag that is never lowered.
    """

    FORM = struct.Struct("=QQ")
    COUNT = struct.Struct("=Q")
    FLAG_AT = FORM.size
    BYTES = FLAG_AT + 1
    ABSURD = 2**62

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Written, not only made so long: of bytes for which a full disk has no room, the first
            # use of the memory would end the process. One at a time: nobody's flag is written over.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size < self.BYTES:
                os.pwrite(descriptor, bytes(self.BYTES - size), size)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # the map keeps the file open
            self._map = mmap.mmap(descriptor, self.BYTES)
            if max(self.FORM.unpack(self.read())) > self.ABSURD:  # it was damaged
                self.FORM.pack_into(self._map, 0, 0, 0)
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        return self._map[: self.FORM.size]

    # Each writes its own count alone: by the time of the end, the next writer may have begun. Of
    # two ends at once the later may be lost; then the next writer's sets it right.

    def begin(self) -> int:
        begun, _ = self.FORM.unpack(self.read())
        self.COUNT.pack_into(self._map, 0, begun + 1)
        return int(begun) + 1

    def end(self, number: int) -> None:
        _, ended = self.FORM.unpack(self.read())
        self.COUNT.pack_into(self._map, self.COUNT.size, max(ended, number))

    def raise_flag(self) -> None:
        self._map[self.FLAG_AT] = 1

    def has_flag(self) -> bool:
        return self._map[self.FLAG_AT] == 1

    @classmethod
    def is_at_rest(cls, seen: bytes) -> bool:
        begun, ended = cls.FORM.unpack(seen)
        return bool(begun == ended)


def execute_many(sql: str, rows: Sequence[Sequence[object]]) -> None:
    """The statement, its parameters written `?`, once for each row; for batches, in which a model
    for each row would cost ten times as much. Raises PeeweeException."""
    if not rows:
        return
    with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
        handle.connection().cursor().executemany(sql.replace("?", handle.param), rows)


def probe_write() -> None:
    """Writes and takes back; raises peewee.PeeweeException where that fails."""
    with write():
        handle.execute_sql(
            "insert into link (digest, kind, created_at, expires_at)"
            f" values ('{secrets.token_hex()}', 'probe', 0, 0)"
        )
    with write():
        handle.execute_sql("delete from link where kind = 'probe'")


def hold(model: type[Model], row_id: str | int) -> None:
    """Holds the row until the transaction ends; on SQLite the one writer holds all anyway."""
    if not is_sqlite():
        model.select().where(model._meta.primary_key == row_id).for_update().execute()


def hold_shared(model: type[Model], row_ids: Iterable[str]) -> None:
    """Keeps these rows from being changed or deleted by others until the transaction ends; several
    may do so at once. In one order, that of `hold_keys` in batch.py."""
    if not is_sqlite():
        table = model._meta.table_name
        handle.execute_sql(
            f'select id from "{table}" where id = any(%s) order by id collate "C" for share',
            (sorted(row_ids),),
        )


def hold_table(model: type[Model]) -> None:
    """Holds the table against other writers until the transaction ends, as SQLite does anyway.

    For rules about rows that are not there yet: nobody signed up, a name not taken.
    """
    if not is_sqlite():
        table = model._meta.table_name
        handle.execute_sql(f'lock table "{table}" in share row exclusive mode')


def hold_name(name: str) -> None:
    """Holds a name against whoever holds the same, until the transaction ends."""
    if not is_sqlite():
        handle.execute_sql("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))


def migrate(lock_file: Path) -> list[str]:
    """Brings the schema to this version and returns the names of the steps it took.

    Several starters may call at once: one works, the others wait. Raises NewerSchema, having
    changed nothing, when the database knows a step that this version does not.
    """
    runner = Runner(handle.obj, str(MIGRATIONS))
    with _migration_lock(lock_file):
        _, unknown = steps()
        if unknown:
            raise NewerSchema(
                f"the database was written by a newer version (it has {', '.join(unknown)}): "
                "install that version, or restore a backup made by this one"
            )
        return list(runner.up())


@contextmanager
def _migration_lock(lock_file: Path) -> Iterator[None]:
    if is_sqlite():
        with lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with unhurried():
        handle.execute_sql("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        try:
            yield
        finally:
            handle.execute_sql("select pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


@contextmanager
def unhurried() -> Iterator[None]:
    """On PostgreSQL, statements within it may take as long as they do."""
    handle.execute_sql(UNHURRIED)
    try:
        yield
    finally:
        handle.execute_sql(PATIENCE_THERE)


def has_wal_reset_bug(version: Sequence[int]) -> bool:
    """Whether this SQLite version carries the WAL-reset corruption bug."""
    first, last = WAL_RESET_BUG
    version = tuple(version)
    fixed = any(version[:2] == f[:2] and version >= f for f in WAL_RESET_FIXED)
    return first <= version <= last and not fixed


def server_version() -> str:
    """PostgreSQL's, such as 15.4."""
    [(text,)] = handle.execute_sql("show server_version")
    return str(text).partition(" ")[0]


def server_size() -> int:
    """Bytes of the present database on PostgreSQL."""
    [(size,)] = handle.execute_sql("select pg_database_size(current_database())")
    return int(size)


def steps() -> tuple[list[str], list[str]]:
    """The schema's steps that are still to be taken, and those that this version does not know.
    Changes nothing."""
    runner = Runner(handle.obj, str(MIGRATIONS))
    taken, known = set(runner.applied()), [step.name for step in runner.migrations()]
    return [name for name in known if name not in taken], sorted(taken - set(known))


def sqlite_version() -> tuple[int, ...]:
    """The version that peewee uses (pysqlite3's where it is installed)."""
    return tuple(peewee.__sqlite_version__)  # type: ignore[attr-defined]


def reason(error: BaseException) -> str:
    """What the database refused first. An error that SQLite has ended a transaction for hides
    behind that of the rollback, for which there is nothing left."""
    refused: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in refused:
        refused.append(one)
        one = one.__cause__ or one.__context__
    kinds = peewee.PeeweeException, peewee.sqlite3.Error  # type: ignore[attr-defined]
    told = (str(one) for one in refused if isinstance(one, kinds))
    first = next((text for text in told if "no transaction is active" not in text), str(error))
    return "the disk is full: make room" if "disk is full" in first else first
