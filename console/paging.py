"""Pages by key, not by offset: any depth costs the same, and rows added meanwhile shift nothing."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from peewee import Tuple
from pydantic import BeforeValidator, Field

from console.errors import Invalid
from console.fields import Fields, Whole

T = TypeVar("T")

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
WALK_ROWS = 1_000
FORWARD, BACK = "f", "b"
WHOLE = re.compile(r"([0-9]{1,9})(?:\.0+)?")
INTEGER_MAX = 2**63 - 1


def _whole(text: Any) -> Any:
    """The number that a query's text says, 0 where it is none."""
    found = WHOLE.fullmatch(text) if isinstance(text, str) else None
    return int(found[1]) if found else 0


class PageQuery(Fields):
    """Which part of a list is asked for."""

    limit: Annotated[int, BeforeValidator(_whole), Whole(1, LIMIT_MAX)] = Field(
        LIMIT_DEFAULT, description="How many at most"
    )
    cursor: str | None = Field(None, description="The `next_cursor` of the page before")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in the order asked for, and the cursors of the neighbouring pages (None at an end)."""

    rows: list[T]
    next_cursor: str | None
    previous_cursor: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """A column that rows are ordered by, never null; `kind` is its type in Python."""

    column: Any
    kind: type
    value_of: Callable[[Any], Any]


def fetch(
    query: Any,
    orders: Sequence[Order],
    *,
    descending: bool,
    cursor: str | None,
    limit: int,
) -> Page[Any]:
    """One page of `query` by these orders (unique together). Raises Invalid: cursor, limit."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid({"limit": f"must be a whole number from 1 to {LIMIT_MAX}"})
    direction, position = _decode(cursor, orders) if cursor else (FORWARD, None)
    columns = [order.column for order in orders]
    downwards = descending == (direction == FORWARD)
    if position is not None:
        query = query.where(_beyond(columns, position, downwards))
    query = query.order_by(*(c.desc() if downwards else c.asc() for c in columns))
    rows = list(query.limit(limit + 1))
    has_more = len(rows) > limit
    rows = rows[:limit]
    if direction == BACK:
        rows.reverse()
    more_after = has_more if direction == FORWARD else True
    more_before = has_more if direction == BACK else position is not None
    return Page(
        rows=rows,
        next_cursor=_encode(FORWARD, rows[-1], orders) if rows and more_after else None,
        previous_cursor=_encode(BACK, rows[0], orders) if rows and more_before else None,
    )


def by_id(query: Any, column: Any, cursor: str | None, limit: int) -> Page[Any]:
    """One page, newest id first."""
    newest = Order(column, int, lambda row: row.id)
    return fetch(query, [newest], descending=True, cursor=cursor, limit=limit)


def walk(query: Any, column: Any, cursor: str | None, most: int | None) -> Iterator[Any]:
    """Every row from the cursor on, newest id first, and at most so many.

    Read in parts, so that neither memory nor a long look at the database is taken; what is added
    meanwhile is newer, and not among them. Raises Invalid (cursor) at once.
    """
    newest = Order(column, int, lambda row: row.id)
    position = _decode(cursor, [newest])[1] if cursor else None
    return _walk(query, column, position, most)


def _walk(query: Any, column: Any, position: list[Any] | None, most: int | None) -> Iterator[Any]:
    while most is None or most > 0:
        part = query if position is None else query.where(_beyond([column], position, True))
        size = WALK_ROWS if most is None else min(most, WALK_ROWS)
        rows = list(part.order_by(column.desc()).limit(size))
        yield from rows
        if len(rows) < size:
            return
        position = [rows[-1].id]
        most = None if most is None else most - size


def _beyond(columns: Sequence[Any], position: Sequence[Any], downwards: bool) -> Any:
    left = Tuple(*columns) if len(columns) > 1 else columns[0]
    right = Tuple(*position) if len(columns) > 1 else position[0]
    return left < right if downwards else left > right


def _encode(direction: str, row: Any, orders: Sequence[Order]) -> str:
    content = [direction, *(order.value_of(row) for order in orders)]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, orders: Sequence[Order]) -> tuple[str, list[Any]]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        direction, *position = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise _bad_cursor() from None
    fits = len(position) == len(orders) and all(
        type(value) is order.kind and _storable(value)
        for value, order in zip(position, orders, strict=True)
    )
    if direction not in (FORWARD, BACK) or not fits:
        raise _bad_cursor()
    return direction, position


def _storable(value: Any) -> bool:
    """Whether a database can compare it: no NUL, no half surrogate, at most 64 bits."""
    if isinstance(value, str):
        return "\0" not in value and value.encode(errors="ignore").decode() == value
    return bool(abs(value) <= INTEGER_MAX)


def _bad_cursor() -> Invalid:
    return Invalid({"cursor": "is not one that a list returned; leave it out to start over"})
