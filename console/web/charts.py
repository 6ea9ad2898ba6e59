"""Bars for counts over time: where each one stands, what its axis says. Templates draw them."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Flask

from console import clock
from console.usage import Bucket

HEIGHT = 100
STEP, BAR = 10, 8  # how far bars are apart, and how wide they are, in the drawing's own units
ROUND = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket: refused at the foot, allowed upon it; lengths in the drawing's units."""

    words: str
    x: int
    allowed: float
    refused: float
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template needs to draw the buckets."""

    bars: list[Bar]
    width: int
    top: int
    first: str
    middle: str
    last: str
    allowed: int
    refused: int


def register(app: Flask) -> None:
    app.jinja_env.globals["drawn"] = drawn


def drawn(buckets: Sequence[Bucket], period: str) -> Chart:
    """The buckets of a period (`24h`, `30d`, `12mo`) as bars under a round top."""
    top = _round_top(max((one.allowed + one.denied for one in buckets), default=0))
    bars = [
        Bar(
            words=_span(one.start_at, period),
            x=number * STEP + (STEP - BAR) // 2,
            allowed=_length(one.allowed, top),
            refused=_length(one.denied, top),
            bucket=one,
        )
        for number, one in enumerate(buckets)
    ]
    marks = [_mark(one.start_at, period) for one in buckets] or [""]
    return Chart(
        bars=bars,
        width=len(bars) * STEP,
        top=top,
        first=marks[0],
        middle=marks[len(marks) // 2],
        last=marks[-1],
        allowed=sum(one.allowed for one in buckets),
        refused=sum(one.denied for one in buckets),
    )


def _length(count: int, top: int) -> float:
    """At least a hair where there is anything: one refusal among thousands must show."""
    return max(round(count / top * HEIGHT, 2), 0.8) if count else 0


def _round_top(most: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 … that is not less; an even one, so that half is whole."""
    size = 1
    while True:
        for factor in ROUND:
            top = factor * size
            if top >= max(most, 2) and top % 2 == 0:
                return top
        size *= 10


def _span(start_at: int, period: str) -> str:
    """The bucket in words, UTC: `20 Nov, 14:00–15:00`, `Fri 20 Nov`, `November 2026`."""
    moment = clock.to_datetime(start_at)
    if period == "24h":
        return f"{moment:%-d %b, %H:00}–{clock.to_datetime(start_at + clock.HOUR):%H:00} UTC"
    return f"{moment:%a %-d %b}" if period == "30d" else f"{moment:%B %Y}"


def _mark(start_at: int, period: str) -> str:
    moment = clock.to_datetime(start_at)
    return moment.strftime({"24h": "%H:00", "30d": "%-d %b", "12mo": "%b %Y"}[period])
