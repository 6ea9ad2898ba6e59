"""Pages by key, not by offset: any depth costs the same, and rows added meanwhile shift nothing."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from peewee import Tuple

from console.errors import Invalid

T = TypeVar("T")

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
FORWARD, BACK = "f", "b"
INTEGER_MAX = 2**63 - 1


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
