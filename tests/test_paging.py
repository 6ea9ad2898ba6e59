"""Pages by key: every row once, forward and back, whatever is added meanwhile."""

import base64
import json
from typing import Any

import pytest
from flask import Flask

from console import paging
from console.errors import Invalid
from console.models import Event
from console.paging import Order, Page

pytestmark = pytest.mark.usefixtures("app")

BY_NAME = Order(Event.actor_name, str, lambda event: event.actor_name)
BY_ID = Order(Event.id, int, lambda event: event.id)


def add(*names: str) -> None:
    for name in names:
        Event.create(
            at=0, action="a", actor_kind="person", actor_name=name, target_id="t", target_name="t"
        )


def page(cursor: str | None = None, limit: int = 2, descending: bool = False) -> Page[Any]:
    query, orders = Event.select(), [BY_NAME, BY_ID]
    return paging.fetch(query, orders, descending=descending, cursor=cursor, limit=limit)


def names(shown: Page[Any]) -> str:
    return " ".join(event.actor_name for event in shown.rows)


def pages(**options: Any) -> list[str]:
    shown = page(**options)
    found = [names(shown)]
    while shown.next_cursor:
        shown = page(shown.next_cursor, **options)
        found.append(names(shown))
    return found


def cursor_of(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_pages_forward_show_every_row_once() -> None:
    add("c", "a", "e", "b", "d")
    assert pages() == ["a b", "c d", "e"]
    assert pages(descending=True) == ["e d", "c b", "a"]


def test_rows_that_are_equal_are_told_apart_by_the_last_column() -> None:
    add("a", "a", "a", "a", "a")
    shown, seen = page(), []
    while True:
        seen += [event.id for event in shown.rows]
        if not shown.next_cursor:
            break
        shown = page(shown.next_cursor)
    assert seen == sorted(set(seen)) and len(seen) == 5


@pytest.mark.parametrize("descending", [False, True])
def test_back_shows_what_came_before(descending: bool) -> None:
    add("a", "b", "c", "d", "e")
    first = page(descending=descending)
    second = page(first.next_cursor, descending=descending)
    third = page(second.next_cursor, descending=descending)
    back = page(third.previous_cursor, descending=descending)
    assert names(back) == names(second)
    assert names(page(back.previous_cursor, descending=descending)) == names(first)
    assert names(page(back.next_cursor, descending=descending)) == names(third)


def test_the_ends_have_no_neighbour() -> None:
    add("a", "b", "c")
    first = page()
    last = page(first.next_cursor)
    assert first.previous_cursor is None and first.next_cursor
    assert last.next_cursor is None and last.previous_cursor
    assert page(last.previous_cursor).previous_cursor is None


def test_a_page_that_is_just_full_has_no_next() -> None:
    add("a", "b")
    shown = page()
    assert (names(shown), shown.next_cursor, shown.previous_cursor) == ("a b", None, None)


def test_rows_added_meanwhile_shift_nothing() -> None:
    add("b", "d", "f", "h")
    first = page()
    add("a", "c", "g")
    second = page(first.next_cursor)
    assert names(second) == "f g"
    assert names(page(second.previous_cursor)) == "c d"


def test_rows_deleted_meanwhile_shift_nothing() -> None:
    add("a", "b", "c", "d")
    first = page()
    Event.delete().where(Event.actor_name.in_(["a", "b"])).execute()
    assert names(page(first.next_cursor)) == "c d"


def test_nothing_makes_an_empty_page() -> None:
    assert page() == Page(rows=[], next_cursor=None, previous_cursor=None)


@pytest.mark.parametrize("name", ["ß", "日本", "a\u3000b", "👩", "it's", '"', "%", "\\"])
def test_a_cursor_carries_any_text(name: str) -> None:
    add(name, name)
    first = page(limit=1)
    assert names(page(first.next_cursor, limit=1)) == name


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "ä",
        "%%%",
        "AAAA",
        cursor_of(1),
        cursor_of({}),
        cursor_of([]),
        cursor_of(["f"]),
        cursor_of(["f", "a"]),
        cursor_of(["f", "a", 1, 1]),
        cursor_of(["x", "a", 1]),
        cursor_of(["f", 1, "a"]),
        cursor_of(["f", "a", "1"]),
        cursor_of(["f", "a", 1.5]),
        cursor_of(["f", "a", True]),
        cursor_of(["f", "a", None]),
        cursor_of(["f", None, 1]),
        cursor_of(["f", ["a"], 1]),
        cursor_of(["f", "a", 2**63]),
        cursor_of(["f", "a\0b", 1]),
        cursor_of(["f", "\ud800", 1]),
        base64.urlsafe_b64encode(b"[" * 50_000).decode(),
    ],
)
def test_a_cursor_that_no_list_returned_is_refused(cursor: str) -> None:
    add("a", "b", "c")
    with pytest.raises(Invalid) as refused:
        page(cursor)
    assert list(refused.value.fields) == ["cursor"]


@pytest.mark.parametrize("limit", [-1, 0, 201])
def test_a_page_has_1_to_200_rows(limit: int) -> None:
    with pytest.raises(Invalid) as refused:
        page(limit=limit)
    assert list(refused.value.fields) == ["limit"]


def test_200_rows_fit_on_a_page(app: Flask) -> None:
    add(*(f"{number:03}" for number in range(201)))
    shown = page(limit=200)
    assert len(shown.rows) == 200 and shown.next_cursor


def test_by_id_shows_the_newest_first() -> None:
    add("a", "b", "c")
    first = paging.by_id(Event.select(), Event.id, None, 2)
    assert names(first) == "c b"
    assert names(paging.by_id(Event.select(), Event.id, first.next_cursor, 2)) == "a"
