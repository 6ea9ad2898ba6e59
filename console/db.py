"""The database handle: opened once, a connection per thread kept open, one writer at a time.

SQLite in WAL by default, PostgreSQL by URL; the models are the same on both.
"""

import fcntl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import peewee
from peewee import Database, DatabaseProxy, Model, PostgresqlDatabase, SqliteDatabase
from playhouse.migrations import Runner

P = ParamSpec("P")
R = TypeVar("R")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_SECONDS = 5
MIGRATION_LOCK = 0x1A7C4  # an advisory lock's number on PostgreSQL; any constant of ours
WAL_SIZE_LIMIT = 64 * 1024 * 1024

# Two connections that write or checkpoint in the same instant could corrupt the file.
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7))

handle = DatabaseProxy()
_writer = threading.RLock()


class Base(Model):
    class Meta:
        database = handle
        legacy_table_names = False


class NewerSchema(Exception):
    """The database was written by a newer version than this one."""


def open_database(url: str, *, synchronous: str = "normal") -> Database:
    """Opens `sqlite:///<path>` or `postgresql://…` and makes it the models' database.

    Raises ValueError for another scheme, and peewee.OperationalError when the file cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        database = _sqlite(unquote(parts.path.removeprefix("/")), synchronous)
    elif parts.scheme in ("postgresql", "postgres"):
        database = _postgresql(url)
    else:
        raise ValueError("must be sqlite:///<path> or postgresql://…")
    handle.initialize(database)
    return database


def _sqlite(path: str, synchronous: str) -> Database:
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
            "cache_size": -16_000,
            "journal_size_limit": WAL_SIZE_LIMIT,
            "trusted_schema": 0,
        },
    )
    mode = database.pragma("journal_mode")
    if mode != "wal":
        raise peewee.OperationalError(
            f"{path}: this file system does not carry SQLite's WAL (mode {mode}); "
            "put the data directory on a local disk"
        )
    return database


def _postgresql(url: str) -> Database:
    parts = urlsplit(url)
    return PostgresqlDatabase(
        parts.path.removeprefix("/"),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=parts.hostname,
        port=parts.port,
        prefer_psycopg3=True,
    )


def is_sqlite() -> bool:
    return isinstance(handle.obj, SqliteDatabase)


def close() -> None:
    """Closes this thread's connection; the others close with their threads."""
    if handle.obj is not None and not handle.is_closed():
        handle.close()


@contextmanager
def write() -> Iterator[None]:
    """One transaction. All of it is stored, or none.

    On SQLite the process's writers queue here, in order, instead of polling for the file lock.
    """
    if not is_sqlite():
        with handle.atomic():
            yield
        return
    with _writer, handle.atomic():
        yield


def transaction(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs in one transaction."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with write():
            return function(*args, **kwargs)

    return inside


def hold(model: type[Model], row_id: str) -> None:
    """Holds the row until the transaction ends; on SQLite the one writer holds all anyway."""
    if not is_sqlite():
        model.select().where(model._meta.primary_key == row_id).for_update().execute()


def migrate(lock_file: Path) -> list[str]:
    """Brings the schema to this version and returns the names of the steps it took.

    Several starters may call at once: one works, the others wait. Raises NewerSchema, having
    changed nothing, when the database knows a step that this version does not.
    """
    runner = Runner(handle.obj, str(MIGRATIONS))
    with _migration_lock(lock_file):
        unknown = sorted(set(runner.applied()) - {step.name for step in runner.migrations()})
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
    handle.execute_sql("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    try:
        yield
    finally:
        handle.execute_sql("select pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


def has_wal_reset_bug(version: Sequence[int]) -> bool:
    """Whether this SQLite version carries the WAL-reset corruption bug."""
    first, last = WAL_RESET_BUG
    version = tuple(version)
    fixed = any(version[:2] == f[:2] and version >= f for f in WAL_RESET_FIXED)
    return first <= version <= last and not fixed


def sqlite_version() -> tuple[int, ...]:
    """The version that peewee uses (pysqlite3's where it is installed)."""
    return tuple(peewee.__sqlite_version__)  # type: ignore[attr-defined]
