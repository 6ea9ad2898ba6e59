"""From SQLite to PostgreSQL: every table copied in one transaction, and compared row by row before
it is committed. The file stays as it was."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee
from peewee import SQL, AutoField, BlobField, BooleanField, Field, JSONField
from peewee import sqlite3 as sqlite  # type: ignore[attr-defined]

from console import db, retention
from console.errors import Conflict
from console.models import TABLES, Change, Event, Key, Person, Project

MOVED = tuple(model for model in TABLES if model is not Change)  # that one is SQLite's alone
FIRST = (Project, Person, Key, Event)
HISTORY = "schema_migration"
ROWS_AT_ONCE = 10_000
MODULUS = 2**256
NUL = "\0"


@dataclass(frozen=True)
class Moved:
    """A table: how many rows it has, and the sum of their digests, in hex; on both sides."""

    table: str
    rows: int
    digest: str


class Differs(Exception):
    """What arrived is not what was sent. Nothing is kept of it."""


def move(source: Path) -> Iterator[Moved]:
    """Copies the SQLite file into the database that is open: PostgreSQL, migrated and empty. Nobody
    may write to the file meanwhile. Yields each table once it is copied and compared.

    All of it is one transaction. Raises Conflict where there is anything, Differs, PeeweeException.
    """
    where = f"{source.resolve().as_uri()}?mode=ro"
    retention.prepare()
    with (
        closing(sqlite.connect(where, uri=True, isolation_level=None)) as file,
        db.unhurried(),
        db.write(),
    ):
        file.execute("BEGIN")
        _refuse_anything()
        for model in MOVED:  # what an empty database notes of itself is noted by its processes
            model.delete().execute()
        for model in MOVED:
            yield _move(file, model)


def require_empty() -> None:
    """Of the database that is open, before it is migrated. Raises Conflict."""
    there = set(db.handle.get_tables())
    if there and (HISTORY not in there or not there >= {model._meta.table_name for model in FIRST}):
        raise Conflict("That database holds another program's tables: name one that is empty.")
    if there:
        _refuse_anything()


def _refuse_anything() -> None:
    if any(model.select(SQL("1")).exists() for model in FIRST):
        raise Conflict("That database holds an installation already: name one that is empty.")


def _move(file: Any, model: Any) -> Moved:
    name, fields = model._meta.table_name, _fields(model)
    sent, stored = _Sum(), _Sum()
    rows = file.execute(f'SELECT {_names(fields)} FROM "{name}"')
    with _copy(f'COPY "{name}" ({_names(fields)}) FROM STDIN') as copy:
        for row in rows:
            values = [_as_sent(field, value) for field, value in zip(fields, row, strict=True)]
            sent.add(fields, values)
            copy.write_row(values)
    for row in _stored(name, fields):
        stored.add(fields, row)
    if (sent.rows, sent.digest) != (stored.rows, stored.digest):
        raise Differs(
            f"of the table {name}, {sent.rows:,} rows were sent and {stored.rows:,} arrived, or "
            "some of them are not the same: nothing was copied"
        )
    _go_on_behind(model)
    return Moved(name, stored.rows, stored.digest)


@contextmanager
def _copy(statement: str) -> Iterator[Any]:
    cursor = db.handle.connection().cursor()
    with peewee.__exception_wrapper__, cursor.copy(statement) as copy:  # type: ignore[attr-defined]
        yield copy


def _fields(model: Any) -> list[Field]:
    """The columns that are stored; those that the database reckons itself are its own."""
    return [
        field
        for field in model._meta.sorted_fields
        if not any("generated always" in one.sql for one in field.constraints or ())
    ]


def _names(fields: Sequence[Field]) -> str:
    return ", ".join(f'"{field.column_name}"' for field in fields)


def _as_sent(field: Field, value: Any) -> Any:
    """As PostgreSQL takes it; JSON stays the text that it is."""
    if value is None:
        return None
    if isinstance(field, BooleanField):
        return bool(value)
    if isinstance(field, BlobField):
        return bytes(value)
    if isinstance(value, str) and NUL in value:
        raise Differs(
            f"a row of {field.model._meta.table_name} has a NUL character in {field.column_name}, "
            "which PostgreSQL does not store: nothing was copied"
        )
    return value


def _stored(name: str, fields: Sequence[Field]) -> Iterator[Sequence[Any]]:
    """What the database has by now, a part at a time, JSON as text."""
    columns = ", ".join(
        f'CAST("{field.column_name}" AS text)'
        if isinstance(field, JSONField)
        else f'"{field.column_name}"'
        for field in fields
    )
    cursor = db.handle.connection().cursor(name="stored")
    cursor.itersize = ROWS_AT_ONCE
    with peewee.__exception_wrapper__, cursor:  # type: ignore[attr-defined]
        cursor.execute(f'SELECT {columns} FROM "{name}"')
        yield from cursor


class _Sum:
    """Of rows in whatever order: their number, and the sum of their digests."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, fields: Sequence[Field], values: Sequence[Any]) -> None:
        plain = [_plain(field, value) for field, value in zip(fields, values, strict=True)]
        row = json.dumps(plain, sort_keys=True).encode()
        self._sum += int.from_bytes(hashlib.sha256(row).digest(), "big")
        self.rows += 1

    @property
    def digest(self) -> str:
        return f"{self._sum % MODULUS:064x}"


def _plain(field: Field, value: Any) -> Any:
    if isinstance(field, JSONField) and value is not None:
        return json.loads(value, parse_int=float)  # a number may be written in several ways
    return value.hex() if isinstance(value, bytes | memoryview) else value


def _go_on_behind(model: Any) -> None:
    """The next row has an id of its own."""
    key = model._meta.primary_key
    if isinstance(key, AutoField):
        table = model._meta.table_name
        db.handle.execute_sql(
            f"SELECT setval(pg_get_serial_sequence('\"{table}\"', '{key.column_name}'),"
            f' (SELECT coalesce(max("{key.column_name}"), 0) + 1 FROM "{table}"), false)'
        )
