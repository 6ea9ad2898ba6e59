"""Pages by key, not by offset: any depth costs the same, and rows added meanwhile shift nothing."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from peewee import Tuple
from pydantic import BeforeValidator, Field

from console.errors import Invalid
from console.fields import Fields, Whole

T = TypeVar("T")

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
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
    """Rows in the order asked for, and the cursors of the neighbouring pages (None at an end).

    `stopped` is the row at which a search paused, the page not being full; see search.py.
    """

    rows: list[T]
    next_cursor: str | None
    previous_cursor: str | None
    stopped: T | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A column that rows are ordered by, never null; `kind` is its type in Python."""

    column: Any
    kind: type
    value_of: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Walk:
    """From where on, and which way, a page is read."""

    orders: Sequence[Order]  # unique together
    direction: str
    position: list[Any] | None
    is_downwards: bool
    limit: int

    def over(self, query: Any) -> Any:
        """The rows of the query from here on, in order, one more than the page holds."""
        columns = [order.column for order in self.orders]
        if self.position is not None:
            query = query.where(_beyond(columns, self.position, self.is_downwards))
        in_order = (c.desc() if self.is_downwards else c.asc() for c in columns)
        return query.order_by(*in_order).limit(self.limit + 1)

    def up_to(self, row: Any) -> Any:
        """The condition to come no later than this row."""
        values = [order.value_of(row) for order in self.orders]
        return ~_beyond([order.column for order in self.orders], values, self.is_downwards)

    def page(self, rows: list[Any]) -> Page[Any]:
        """What `over` found, as a page."""
        has_more = len(rows) > self.limit
        rows = rows[: self.limit]
        if self.direction == BACK:
            rows.reverse()
        more_after = has_more if self.direction == FORWARD else True
        more_before = has_more if self.direction == BACK else self.position is not None
        return Page(
            rows=rows,
            next_cursor=_encode(FORWARD, rows[-1], self.orders) if rows and more_after else None,
            previous_cursor=_encode(BACK, rows[0], self.orders) if rows and more_before else None,
        )


def begin(orders: Sequence[Order], *, descending: bool, cursor: str | None, limit: int) -> Walk:
    """Where the cursor says, in these orders. Raises Invalid: cursor, limit."""
    refuse_limit(limit)
    direction, position = _decode(cursor, orders) if cursor else (FORWARD, None)
    return Walk(orders, direction, position, descending == (direction == FORWARD), limit)


def fetch(
    query: Any,
    orders: Sequence[Order],
    *,
    descending: bool,
    cursor: str | None,
    limit: int,
) -> Page[Any]:
    """One page of `query` by these orders (unique together). Raises Invalid: cursor, limit."""
    walk = begin(orders, descending=descending, cursor=cursor, limit=limit)
    return walk.page(list(walk.over(query)))


def by_id(query: Any, column: Any, cursor: str | None, limit: int) -> Page[Any]:
    """One page, newest id first."""
    newest = Order(column, int, lambda row: row.id)
    return fetch(query, [newest], descending=True, cursor=cursor, limit=limit)


def refuse_limit(limit: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid({"limit": f"must be a whole number from 1 to {LIMIT_MAX}"})


def cursor_of(direction: str, row_id: int) -> str:
    """The cursor of a list by id: what lies beyond this id."""
    return _encoded(direction, row_id)


def place_of(cursor: str) -> tuple[str, int]:
    """What `cursor_of` made a cursor of. Raises Invalid."""
    direction, (row_id,) = _decode(cursor, [Order(None, int, lambda row: row.id)])
    return direction, row_id


def _beyond(columns: Sequence[Any], position: Sequence[Any], downwards: bool) -> Any:
    left = Tuple(*columns) if len(columns) > 1 else columns[0]
    right = Tuple(*position) if len(columns) > 1 else position[0]
    return left < right if downwards else left > right


def _encode(direction: str, row: Any, orders: Sequence[Order]) -> str:
    return _encoded(direction, *(order.value_of(row) for order in orders))


def _encoded(*content: Any) -> str:
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
