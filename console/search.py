"""A search through a log, newest first: pages by id, in looks of bounded length.

What is rare among millions of rows would take seconds to find. So each look ends after so many
rows, and says where it ended; the next goes on from there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from console import paging
from console.paging import BACK, FORWARD, Page

FIRST_ROWS = 20_000
SCAN_ROWS = 500_000  # a fifth of a second on SQLite
NEWER_ROWS = 10_000
WALK_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Scope:
    """Rows that an index gives in the order of their ids, and which of them are wanted.

    None that is wanted has an id less than `least`, or as large as `below`.
    """

    rows: Any
    column: Any
    wanted: tuple[Any, ...] = ()
    least: int | None = None
    below: int | None = None


def page(scope: Scope, cursor: str | None, limit: int) -> Page[Any]:
    """One page of what is wanted, newest id first, after a look at SCAN_ROWS rows at most.

    So a page may have few rows, or none, and yet a cursor that leads on. Raises Invalid: cursor,
    limit.
    """
    paging.refuse_limit(limit)
    direction, position = paging.place_of(cursor) if cursor else (FORWARD, None)
    # Most pages fill soon, and to find where a long look ends takes longer than that.
    for most in (min(FIRST_ROWS, SCAN_ROWS), SCAN_ROWS):
        look = _look(scope, position, direction == FORWARD, most)
        rows = list(look.wanted(look.start).limit(limit + 1))
        has_more = len(rows) > limit
        if has_more or look.last is None:
            break
    rows = rows[:limit]
    onwards = rows[-1].id if has_more else look.last
    if direction == BACK:
        rows.reverse()
    newest, oldest = (rows[0].id, rows[-1].id) if rows else (None, None)
    # A page without rows leads back by its own position, which the neighbour has to include.
    if position is None:
        before, behind = None, onwards
    elif direction == FORWARD:
        before, behind = position - 1 if newest is None else newest, onwards
    else:
        before, behind = onwards, position + 1 if oldest is None else oldest
    paused = direction == FORWARD and not has_more and look.last is not None
    return Page(
        rows=rows,
        next_cursor=None if behind is None else paging.cursor_of(FORWARD, behind),
        previous_cursor=None if before is None else paging.cursor_of(BACK, before),
        stopped=scope.rows.where(scope.column == look.last).first() if paused else None,
    )


def newer(scope: Scope, after: int, most: int) -> tuple[list[Any], int]:
    """What is wanted beyond the id `after`, newest first, and the newest id there is.

    At most so many, and among the newest NEWER_ROWS rows: whoever asks will ask again in a moment.
    """
    newest = scope.rows.select(scope.column).order_by(scope.column.desc()).limit(1).scalar()
    if newest is None or newest <= after:
        return [], after
    beyond = replace(scope, least=max(after + 1, scope.least or 0))
    look = _look(beyond, newest + 1, True, NEWER_ROWS)
    return list(look.wanted(look.start).limit(most)), newest


def walk(scope: Scope, cursor: str | None, most: int | None) -> Iterator[Any]:
    """All that is wanted from the cursor on, newest id first, and at most so many.

    Read in parts, so that neither memory nor a long look at the database is taken; what is added
    meanwhile is newer, and not among them. Raises Invalid (cursor) at once.
    """
    position = paging.place_of(cursor)[1] if cursor else None
    return _walk(scope, position, most)


def _walk(scope: Scope, position: int | None, most: int | None) -> Iterator[Any]:
    while True:
        look = _look(scope, position, True, SCAN_ROWS)
        position = look.start
        while most is None or most > 0:
            size = WALK_ROWS if most is None else min(most, WALK_ROWS)
            rows = list(look.wanted(position).limit(size))
            yield from rows
            most = None if most is None else most - len(rows)
            if len(rows) < size:
                break
            position = rows[-1].id
        if look.last is None or most == 0:
            return
        position = look.last


@dataclass(frozen=True, slots=True)
class _Look:
    """One look: from beyond the id `start` to `end`, which is part of it. `last` is the same where
    more may follow, else None."""

    scope: Scope
    downwards: bool
    start: int | None
    end: int | None
    last: int | None = None

    def wanted(self, beyond: int | None) -> Any:
        """What is wanted beyond this id."""
        query = self.rows(beyond)
        return query.where(*self.scope.wanted) if self.scope.wanted else query

    def rows(self, beyond: int | None) -> Any:
        query, column = self.scope.rows, self.scope.column
        if beyond is not None:
            query = query.where(column < beyond if self.downwards else column > beyond)
        if self.end is not None:
            query = query.where(column >= self.end if self.downwards else column <= self.end)
        return query.order_by(column.desc() if self.downwards else column.asc())


def _look(scope: Scope, position: int | None, downwards: bool, most: int) -> _Look:
    """The look from a position on. Never two bounds on one side: SQLite seeks to either of them,
    and reads all that lies between."""
    if downwards:
        bounds = [one for one in (position, scope.below) if one is not None]
        start, end = min(bounds, default=None), scope.least
    else:
        bounds = [one for one in (position, scope.least and scope.least - 1) if one is not None]
        start, end = max(bounds, default=None), scope.below and scope.below - 1
    whole = _Look(scope, downwards, start, end)
    if not scope.wanted:
        return whole
    rows = whole.rows(start).select(scope.column)
    last = rows.offset(most - 1).limit(1).scalar()
    return whole if last is None else replace(whole, end=last, last=last)
