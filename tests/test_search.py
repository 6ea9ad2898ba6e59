"""A search through a log: every row once, in looks of bounded length, forward, back and onwards."""

import random
from typing import Any

import pytest
from flask import Flask

from console import paging, search
from console.errors import Invalid
from console.models import Event
from console.paging import BACK, FORWARD, Page
from console.search import Scope

pytestmark = pytest.mark.usefixtures("app")


def add(*names: str) -> None:
    rows = [
        {"at": 0, "action": "a", "actor_kind": "p", "actor_name": name, "target_id": "t",
         "target_name": "t"}
        for name in names
    ]  # fmt: skip
    Event.insert_many(rows).execute()


def scope(*wanted: Any, **bounds: Any) -> Scope:
    return Scope(Event.select(), Event.id, wanted, **bounds)


def named(name: str) -> Scope:
    return scope(Event.actor_name == name)


def ids(page: Page[Any]) -> list[int]:
    return [row.id for row in page.rows]


def pages(asked: Scope, limit: int = 2) -> list[Page[Any]]:
    found = [search.page(asked, None, limit)]
    while found[-1].next_cursor:
        found.append(search.page(asked, found[-1].next_cursor, limit))
    return found


@pytest.fixture
def looks_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_to(rows: int) -> None:
        monkeypatch.setattr(search, "SCAN_ROWS", rows)

    return set_to


def test_a_look_ends_after_so_many_rows_and_the_next_goes_on_from_there(looks_of: Any) -> None:
    looks_of(4)
    add("x", *"a" * 6, "x", *"a" * 2)  # x: 1 and 8
    found = pages(named("x"))
    assert [ids(page) for page in found] == [[8], [], [1]]
    assert [page.stopped and page.stopped.id for page in found] == [7, 3, None]
    assert found[-1].next_cursor is None


def test_a_full_page_is_no_longer_searched_for(looks_of: Any) -> None:
    looks_of(4)
    add(*"xxxxxxxx")
    found = pages(named("x"))
    assert [ids(page) for page in found if page.rows] == [[8, 7], [6, 5], [4, 3], [2, 1]]
    assert found[0].stopped is None


def test_a_page_without_rows_leads_back_to_what_was_before_it(looks_of: Any) -> None:
    looks_of(4)
    add("x", *"a" * 6, "x", *"a" * 2)
    first, empty, last = pages(named("x"))
    assert first.previous_cursor is None
    back = search.page(named("x"), last.previous_cursor, 2)
    assert (ids(back), back.stopped) == ([], None)
    back = search.page(named("x"), back.previous_cursor, 2)
    assert ids(back) == ids(first)
    again = search.page(named("x"), back.next_cursor, 2)
    assert ids(again) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 1_000])
def test_whatever_the_looks_are_each_wanted_row_comes_once(looks_of: Any, rows: int) -> None:
    looks_of(rows)
    chance = random.Random(rows)
    names = [chance.choice("xaaab") for _ in range(40)]
    add(*names)
    wanted = [number for number, name in enumerate(names, 1) if name == "x"]
    forward = pages(named("x"), 3)
    assert [one for page in forward for one in ids(page)] == wanted[::-1]
    assert [row.id for row in search.walk(named("x"), None, None)] == wanted[::-1]
    back, cursor = [], forward[-1].previous_cursor
    while cursor:
        page = search.page(named("x"), cursor, 3)
        back = ids(page) + back
        cursor = page.previous_cursor
    assert back == [one for one in wanted[::-1] if one not in ids(forward[-1])]


def test_a_page_that_fills_soon_needs_no_long_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FIRST_ROWS", 3)
    add(*"xxxxaxaaaax")
    first = search.page(named("x"), None, 2)
    assert (ids(first), first.stopped) == ([11, 6], None)
    assert ids(search.page(named("x"), first.next_cursor, 2)) == [4, 3]


def test_nothing_beyond_the_bounds_is_looked_at(looks_of: Any) -> None:
    looks_of(3)
    add(*"xxxxxxxxxx")
    bounded = scope(Event.actor_name == "x", least=4, below=8)
    found = pages(bounded)
    assert [one for page in found for one in ids(page)] == [7, 6, 5, 4]
    assert [row.id for row in search.walk(bounded, None, None)] == [7, 6, 5, 4]
    back = search.page(bounded, paging.cursor_of(BACK, 1), 9)
    assert ids(back) == [6, 5, 4]
    back = search.page(bounded, back.previous_cursor, 9)
    assert (ids(back), back.previous_cursor) == ([7], None)
    assert ids(search.page(bounded, paging.cursor_of(FORWARD, 99), 9)) == [7, 6, 5]


def test_without_a_filter_a_look_has_no_end(looks_of: Any) -> None:
    looks_of(2)
    add(*"abcde")
    assert ids(search.page(scope(), None, 9)) == [5, 4, 3, 2, 1]


def test_a_walk_reads_in_parts_and_stops_at_what_is_asked_for(
    looks_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_of(5)
    monkeypatch.setattr(search, "WALK_ROWS", 2)
    add(*"xxaxxxxaxx")
    assert [row.id for row in search.walk(named("x"), None, None)] == [10, 9, 7, 6, 5, 4, 2, 1]
    assert [row.id for row in search.walk(named("x"), None, 3)] == [10, 9, 7]
    assert list(search.walk(named("x"), None, 0)) == []
    cursor = paging.cursor_of(FORWARD, 5)
    assert [row.id for row in search.walk(named("x"), cursor, 2)] == [4, 2]


def test_newer_rows_are_those_beyond_an_id_and_the_newest_id_is_told() -> None:
    add(*"xaxax")
    rows, newest = search.newer(named("x"), 1, 9)
    assert ([row.id for row in rows], newest) == ([5, 3], 5)
    rows, newest = search.newer(named("x"), 1, 1)
    assert [row.id for row in rows] == [5]
    assert search.newer(named("x"), 5, 9) == ([], 5)
    assert search.newer(named("none"), 2, 9) == ([], 5)
    assert search.newer(named("x"), 2**80, 9) == ([], 2**80)


def test_of_very_many_newer_rows_only_the_newest_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "NEWER_ROWS", 3)
    add(*"xxxxxx")
    rows, newest = search.newer(named("x"), 0, 9)
    assert ([row.id for row in rows], newest) == ([6, 5, 4], 6)


def test_newer_than_nothing_on_an_empty_log(app: Flask) -> None:
    assert search.newer(scope(), 0, 9) == ([], 0)


@pytest.mark.parametrize("limit", [0, 201])
def test_a_limit_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(Invalid) as refused:
        search.page(scope(), None, limit)
    assert list(refused.value.fields) == ["limit"]


@pytest.mark.parametrize("cursor", ["x", "WyJmIiwieCJd", "WyJmIiwxLDJd", "WyJ4IiwxXQ"])
def test_a_cursor_that_no_list_returned_is_refused(cursor: str) -> None:
    for ask in (lambda: search.page(scope(), cursor, 2), lambda: search.walk(scope(), cursor, 2)):
        with pytest.raises(Invalid) as refused:
            ask()
        assert list(refused.value.fields) == ["cursor"]


@pytest.mark.parametrize("direction", [FORWARD, BACK])
@pytest.mark.parametrize("place", [-(2**63) + 1, 0, 2**63 - 1])
def test_a_cursor_at_the_end_of_all_numbers_breaks_nothing(direction: str, place: int) -> None:
    add("x")
    for asked in (scope(), named("x"), named("none")):
        page = search.page(asked, paging.cursor_of(direction, place), 2)
        assert ids(page) in ([], [1])
