"""Pages by key, not by offset: any depth costs the same, and rows added meanwhile shift nothing."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from peewee import Tuple

from console.errors import Invalid

T = TypeVar("T")

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
FORWARD, BACK = "f", "b"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in the order asked for, and the cursors of the neighbouring pages (None at an end)."""

    rows: list[T]
    next_cursor: str | None
    previous_cursor: str | None


def fetch(
    query: Any,
    columns: Sequence[Any],
    values_of: Any,
    *,
    descending: bool,
    cursor: str | None,
    limit: int,
) -> Page[Any]:
    """One page of `query` ordered by `columns` (unique together).

    `values_of(row)` gives the columns' values of a row. Raises Invalid for a bad cursor or limit.
    """
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid({"limit": f"must be a whole number from 1 to {LIMIT_MAX}"})
    direction, position = _decode(cursor, len(columns)) if cursor else (FORWARD, None)
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
        next_cursor=_encode(FORWARD, values_of(rows[-1])) if rows and more_after else None,
        previous_cursor=_encode(BACK, values_of(rows[0])) if rows and more_before else None,
    )


def by_id(query: Any, column: Any, cursor: str | None, limit: int) -> Page[Any]:
    """One page, newest id first."""
    return fetch(query, [column], lambda row: [row.id], descending=True, cursor=cursor, limit=limit)


def _beyond(columns: Sequence[Any], position: Sequence[Any], downwards: bool) -> Any:
    left = Tuple(*columns) if len(columns) > 1 else columns[0]
    right = Tuple(*position) if len(columns) > 1 else position[0]
    return left < right if downwards else left > right


def _encode(direction: str, position: Sequence[Any]) -> str:
    text = json.dumps([direction, *position], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, length: int) -> tuple[str, list[Any]]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        direction, *position = json.loads(text)
    except (ValueError, TypeError):
        raise _bad_cursor() from None
    fits = len(position) == length and all(
        isinstance(value, str) or (type(value) is int and abs(value) < 2**63) for value in position
    )
    if direction not in (FORWARD, BACK) or not fits:
        raise _bad_cursor()
    return direction, position


def _bad_cursor() -> Invalid:
    return Invalid({"cursor": "is not one that a list returned; leave it out to start over"})
