"""Bars for counts: a round top, the right lengths, words that say which time is meant."""

import pytest

from console import clock
from console.usage import Bucket
from console.web.charts import HEIGHT, drawn

NOON = clock.parse("2026-11-20T12:00:00Z")


def bars(*counts: tuple[int, int], period: str = "24h") -> list[Bucket]:
    return [Bucket(NOON + number * clock.HOUR, *pair) for number, pair in enumerate(counts)]


@pytest.mark.parametrize(
    ("most", "top"), [(0, 2), (1, 2), (2, 2), (3, 10), (11, 20), (49, 50), (51, 100), (4321, 5000)]
)
def test_the_axis_ends_at_a_round_number_that_is_enough(most: int, top: int) -> None:
    assert drawn(bars((most, 0)), "24h").top == top


def test_lengths_are_in_proportion_and_what_is_there_shows() -> None:
    chart = drawn(bars((500, 0), (250, 250), (0, 0), (9_999, 1)), "24h")
    assert chart.top == 10_000
    assert [(bar.allowed, bar.refused) for bar in chart.bars] == [
        (5, 0), (2.5, 2.5), (0, 0), (99.99, 0.8),
    ]  # fmt: skip
    assert all(0 <= bar.allowed <= HEIGHT for bar in chart.bars)
    assert (chart.allowed, chart.refused) == (10_749, 251)


def test_bars_stand_side_by_side_within_the_drawing() -> None:
    chart = drawn(bars((1, 0), (1, 0), (1, 0)), "24h")
    assert [bar.x for bar in chart.bars] == [1, 11, 21]
    assert chart.width == 30


@pytest.mark.parametrize(
    ("period", "words"),
    [
        ("24h", "20 Nov, 12:00–13:00 UTC"),
        ("30d", "Fri 20 Nov"),
        ("12mo", "November 2026"),
    ],
)
def test_a_bar_says_which_time_it_is(period: str, words: str) -> None:
    chart = drawn([Bucket(NOON, 1, 0)], period)
    assert chart.bars[0].words == words


def test_nothing_at_all_can_be_drawn() -> None:
    chart = drawn([], "30d")
    assert (chart.bars, chart.top, chart.first) == ([], 2, "")
