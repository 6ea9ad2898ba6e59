"""Rows as text that other programs read: comma-separated values (RFC 4180) and JSON lines.

One row after the other, in pieces, so that however many there are take no memory.
"""

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import to_json

from console import db
from console.fields import OneOf

JSON, CSV, JSONL = "json", "csv", "jsonl"
log = logging.getLogger(__name__)

PIECE_ROWS = 200
BROKEN_OFF = b"this export broke off; ask for it again"
# A spreadsheet takes what begins with one of these for a formula, and runs it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Format = Annotated[
    str,
    OneOf(JSON, CSV, JSONL),
    Field(description="csv and jsonl: all that fit, not a page of them, unless `limit` says so"),
]


def as_file(
    form: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]
) -> tuple[Iterator[bytes], str]:
    """The rows as `csv` or `jsonl`, and the media type of that."""
    if form == CSV:
        return as_csv(rows, columns), "text/csv; charset=utf-8; header=present"
    return as_jsonl(rows), "application/jsonl"


def as_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[bytes]:
    """A line of names, and a line for each row."""
    return _to_the_end(_csv(rows, columns), b'"' + BROKEN_OFF)


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """A JSON object on a line of its own for each row."""
    return _to_the_end(_jsonl(rows), b'{"' + BROKEN_OFF)


def _to_the_end(pieces: Iterator[bytes], otherwise: bytes) -> Iterator[bytes]:
    """By then the answer says 200: a file that is not whole ends in what nobody can read."""
    try:
        yield from pieces
    except Exception:
        log.exception("an export broke off")
        yield otherwise
    finally:
        db.let_go()  # long answers have threads of their own


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[bytes]:
    for piece in _pieces(rows, [dict(zip(columns, columns, strict=True))]):
        out = io.StringIO()
        csv.writer(out).writerows([_cell(row[name]) for name in columns] for row in piece)
        yield out.getvalue().encode()


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for piece in _pieces(rows, []):
        yield b"".join(to_json(row) + b"\n" for row in piece)


def _pieces(rows: Iterable[Any], first: list[Any]) -> Iterator[list[Any]]:
    rows = iter(rows)
    piece = first + list(islice(rows, PIECE_ROWS))
    while piece:
        yield piece
        piece = list(islice(rows, PIECE_ROWS))


def _cell(value: Any) -> Any:
    """The value as a spreadsheet may have it: what it would take for a formula begins with `'`."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, list):
        value = " ".join(map(str, value))
    elif not isinstance(value, str):
        value = to_json(value).decode()
    return f"'{value}" if value.lstrip(" ").startswith(FORMULA_STARTS) else value
