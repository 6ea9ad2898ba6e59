"""The database that the tests run on: SQLite's files, or PostgreSQL's databases, of this run alone.

TEST_DATABASE_URL names a server of PostgreSQL and what the databases made on it begin with; each
process of the tests (pytest-xdist) makes its own and drops them at the end.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from peewee import PostgresqlDatabase, sqlite3
from psycopg.pq import TransactionStatus

from console import db

_SERVER = os.environ.get("TEST_DATABASE_URL", "")
_OWN = f"{urlsplit(_SERVER).path.strip('/')}_{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}"
_MAINTENANCE = "postgres"
DROPPED_AT_ONCE = 8

# Connections that threads of one process of the tests use at once, and those kept for who connects
# next: four such processes leave some of PostgreSQL's usual 100 to the servers that tests start.
USED = 16
KEPT = 6


def _url(name: str) -> str:
    return urlsplit(_SERVER)._replace(path=f"/{name}").geturl()


_of_directories: dict[Path, str] = {}

# Of the database that the tests of this process run on; empty on SQLite.
TEST_DATABASE_URL = _url(_OWN) if _SERVER else ""


def why_not() -> str:
    """Why TEST_DATABASE_URL cannot be used; empty where it can."""
    try:
        _on_server("select 1")
    except psycopg.OperationalError as error:
        return f"TEST_DATABASE_URL={_SERVER} names a server that does not answer: {error}".strip()
    return ""


@contextmanager
def own_database() -> Iterator[None]:
    """TEST_DATABASE_URL is there, and empty; gone afterwards."""
    make_database(TEST_DATABASE_URL)
    with connections_kept():
        yield
    with ThreadPoolExecutor(
        DROPPED_AT_ONCE
    ) as pool:  # each waits for a checkpoint, which they share
        list(pool.map(drop_database, (TEST_DATABASE_URL, *_of_directories.values())))


@contextmanager
def connections_kept() -> Iterator[None]:
    """A connection that is closed is used again by whoever connects next, as if new: for each test
    PostgreSQL would begin a process and learn the schema, half of the time that a test takes."""
    idle: dict[str, list[psycopg.Connection[Any]]] = {}

    def connect(self: PostgresqlDatabase) -> Any:
        there = idle.setdefault(f"{self.database} {self.connect_params}", [])
        with suppress(IndexError):  # another thread may take the last
            while connection := there.pop():
                with suppress(psycopg.Error):
                    connection.execute("reset all; select pg_advisory_unlock_all()")
                    return connection
                connection.close()
        return new(self)

    def close(self: PostgresqlDatabase, connection: psycopg.Connection[Any]) -> None:
        there = idle.setdefault(f"{self.database} {self.connect_params}", [])
        usable = connection.info.transaction_status == TransactionStatus.IDLE
        if usable and sum(map(len, list(idle.values()))) < KEPT:
            there.append(connection)
        else:
            connection.close()

    new = PostgresqlDatabase._connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresqlDatabase, "_connect", connect)
        patch.setattr(PostgresqlDatabase, "_close", close)
        yield
    for connection in itertools.chain(*idle.values()):
        connection.close()


def another_url(name: str) -> str:
    """Of another database of this process's; nothing is made."""
    return _url(f"{_OWN}_{name}")


def database_of(data_dir: Path) -> str:
    """The database beside this data directory, the same each time, gone when all tests are done."""
    if not TEST_DATABASE_URL:
        return f"sqlite:///{data_dir}/latchkey.db"
    if data_dir not in _of_directories:
        _of_directories[data_dir] = another_url(str(len(_of_directories)))
        make_database(_of_directories[data_dir])
    return _of_directories[data_dir]


def make_database(url: str) -> None:
    """Makes it anew, with nothing in it. What is committed there does not wait for the disk: no
    test cuts the power."""
    name = _name(url)
    drop_database(url)
    _on_server(f'create database "{name}"')
    _on_server(f'alter database "{name}" set synchronous_commit = off')


def drop_database(url: str) -> None:
    _on_server(f'drop database if exists "{_name(url)}" with (force)')


def _name(url: str) -> str:
    return urlsplit(url).path.strip("/")


def _on_server(statement: str) -> None:
    with psycopg.connect(_url(_MAINTENANCE), autocommit=True) as server:
        server.execute(statement)  # type: ignore[call-overload]


def ask(url: str, statement: str) -> list[Any]:
    """What a database answers, asked past Latchkey; for statements that both kinds understand."""
    with closing(connect(url)) as database:
        cursor = database.execute(statement)
        found = list(cursor.fetchall()) if cursor.description else []
        database.commit()
    return found


def connect(url: str) -> Any:
    """A connection past Latchkey."""
    path = db.sqlite_file(url)
    return sqlite3.connect(path) if path else psycopg.connect(url)
