"""Instants and lengths of time: RFC 3339 in and out, calendar-aware lengths, in any time zone."""

import time
from collections.abc import Iterator

import pytest

from console import clock
from console.clock import DAY, MINUTE, SECOND

START = clock.parse("2026-11-20T10:30:00Z")

FIXED = {"1m": MINUTE, "30m": 30 * MINUTE, "24h": DAY, "7d": 7 * DAY, "4w": 28 * DAY,
         "90d": 90 * DAY, "99999m": 99_999 * MINUTE}  # fmt: skip


@pytest.mark.parametrize("duration, length", FIXED.items())
def test_minutes_to_weeks_are_fixed_lengths(duration: str, length: int) -> None:
    assert clock.after(START, duration) == START + length


CALENDAR = {
    "a month is the same day of the next": ("2026-11-20T10:30:00Z", "1mo", "2026-12-20T10:30:00Z"),
    "six months over the year's end": ("2026-11-20T10:30:00Z", "6mo", "2027-05-20T10:30:00Z"),
    "a year": ("2026-11-20T10:30:00Z", "1y", "2027-11-20T10:30:00Z"),
    "31 January + a month": ("2026-01-31T00:00:00Z", "1mo", "2026-02-28T00:00:00Z"),
    "31 January + a month, leap year": ("2028-01-31T00:00:00Z", "1mo", "2028-02-29T00:00:00Z"),
    "29 February + a year": ("2028-02-29T12:00:00Z", "1y", "2029-02-28T12:00:00Z"),
    "29 February + four years": ("2028-02-29T12:00:00Z", "4y", "2032-02-29T12:00:00Z"),
    "2096 + four years: 2100 is no leap year": (
        "2096-02-29T12:00:00Z", "4y", "2100-02-28T12:00:00Z"),
    "31 August + six months": ("2026-08-31T23:59:59Z", "6mo", "2027-02-28T23:59:59Z"),
    "31 December + a month": ("2026-12-31T23:59:59Z", "1mo", "2027-01-31T23:59:59Z"),
    "30 November + twelve months": ("2026-11-30T00:00:00Z", "12mo", "2027-11-30T00:00:00Z"),
    "up to the last year that can be written": (
        "2026-11-20T10:30:00Z", "7973y", "9999-11-20T10:30:00Z"),
}  # fmt: skip


@pytest.mark.parametrize("start, duration, end", CALENDAR.values(), ids=CALENDAR.keys())
def test_months_and_years_follow_the_calendar(start: str, duration: str, end: str) -> None:
    assert clock.iso(clock.after(clock.parse(start), duration)) == end


@pytest.mark.parametrize("millisecond", range(0, 1000, 37))
@pytest.mark.parametrize("year", [1970, 2026, 9990])
def test_no_millisecond_is_lost(year: int, millisecond: int) -> None:
    start = clock.parse(f"{year}-11-20T10:30:00.{millisecond:03}Z")
    assert start % SECOND == millisecond
    assert clock.after(start, "1d") == start + DAY


@pytest.mark.parametrize(
    "duration",
    ["", "1", "d", "0d", "-1d", "+1d", "1.5h", "1 d", " 1d", "1d ", "1d\n", "01d", "1M", "1D", "1s",
     "1mo1d", "1 month", "100000d", "99999999999999999999d", "\u0661d", "P1D", "inf", "9999y",
     "99999mo"],
)  # fmt: skip
def test_another_length_is_refused(duration: str) -> None:
    with pytest.raises(ValueError, match="must be a length such as|is too long"):
        clock.after(START, duration)


def test_a_length_never_ends_where_no_date_can_be_written() -> None:
    with pytest.raises(ValueError, match="1m is too long"):
        clock.after(clock.parse("9999-12-31T23:59:00Z"), "1m")
    with pytest.raises(ValueError, match="1mo is too long"):
        clock.after(clock.parse("9999-12-01T00:00:00Z"), "1mo")


READ = {
    "2026-11-20T10:30:00Z": "2026-11-20T10:30:00Z",
    "2026-11-20t10:30:00z": "2026-11-20T10:30:00Z",
    "2026-11-20T10:30:00.999Z": "2026-11-20T10:30:00Z",
    "2026-11-20T10:30:00.123456789Z": "2026-11-20T10:30:00Z",
    "2026-11-20T10:30:00+00:00": "2026-11-20T10:30:00Z",
    "2026-11-20T10:30:00-00:00": "2026-11-20T10:30:00Z",
    "2026-11-20T10:30:00+05:45": "2026-11-20T04:45:00Z",
    "2026-11-20T23:30:00-08:00": "2026-11-21T07:30:00Z",
    "2028-02-29T00:00:00Z": "2028-02-29T00:00:00Z",
    "1969-12-31T23:59:59Z": "1969-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z": "9999-12-31T23:59:59Z",
}


@pytest.mark.parametrize("text, shown", READ.items())
def test_rfc_3339_is_read_and_shown_in_utc(text: str, shown: str) -> None:
    assert clock.iso(clock.parse(text)) == shown


NOT_RFC_3339 = {
    "empty": "",
    "no zone": "2026-11-20T10:30:00",
    "a date alone": "2026-11-20",
    "a space for the T": "2026-11-20 10:30:00Z",
    "no seconds": "2026-11-20T10:30Z",
    "no minutes": "2026-11-20T10Z",
    "no hyphens": "20261120T103000Z",
    "a week date": "2026-W47-5T10:30:00Z",
    "a comma": "2026-11-20T10:30:00,5Z",
    "a space before the zone": "2026-11-20T10:30:00 Z",
    "a zone without its colon": "2026-11-20T10:30:00+0100",
    "a zone with seconds": "2026-11-20T10:30:00+01:00:30",
    "a named zone": "2026-11-20T10:30:00 Europe/Paris",
    "29 February of another year": "2026-02-29T00:00:00Z",
    "month 13": "2026-13-01T00:00:00Z",
    "hour 25": "2026-11-20T25:00:00Z",
    "zone +25:00": "2026-11-20T10:30:00+25:00",
    "full-width digits": "\uff12\uff10\uff126-11-20T10:30:00Z",
    "epoch seconds": "1795170600",
    "newline after": "2026-11-20T10:30:00Z\n",
    "words": "tomorrow",
    "year 10000 in UTC": "9999-12-31T23:59:59-14:00",
    "a second that rounds up to year 10000": "9999-12-31T23:59:59.5Z",
    "year 0 in UTC": "0001-01-01T00:00:00+14:00",
}


@pytest.mark.parametrize("text", NOT_RFC_3339.values(), ids=NOT_RFC_3339.keys())
def test_another_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time with its zone, such as 2026-11-20T10:30"):
        clock.parse(text)


def test_no_instant_is_shown_as_none() -> None:
    assert clock.iso(None) is None


def test_rounding_up_keeps_a_whole_second() -> None:
    assert clock.up_to_second(START) == START
    assert clock.up_to_second(START + 1) == START + SECOND
    assert clock.up_to_second(START + 999) == START + SECOND


WINDOWS = {
    "minute": ("2026-11-20T10:30:00Z", "2026-11-20T10:31:00Z"),
    "hour": ("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"),
    "day": ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
    "month": ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
}


@pytest.mark.parametrize("unit", WINDOWS)
@pytest.mark.parametrize("instant", [START, START + 59_999])
def test_a_window_holds_its_first_instant_and_not_its_last(unit: str, instant: int) -> None:
    start, end = (clock.parse(text) for text in WINDOWS[unit])
    assert (clock.start_of(unit, instant), clock.end_of(unit, instant)) == (start, end)
    assert clock.start_of(unit, start) == start
    assert clock.start_of(unit, end - 1) == start
    assert clock.start_of(unit, end) == end


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize("year", [2026, 2028])
def test_a_month_ends_where_the_next_begins(year: int, month: int) -> None:
    following = f"{year + month // 12}-{month % 12 + 1:02}-01T00:00:00Z"
    for day in ("01T00:00:00Z", "28T23:59:59Z"):
        end = clock.end_of("month", clock.parse(f"{year}-{month:02}-{day}"))
        assert clock.iso(end) == following


@pytest.fixture(params=["UTC0", "LINT-14", "NST3:30NDT", "HST10"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This machine's own zone, set to one after another."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_this_machines_time_zone_changes_nothing(time_zone: str) -> None:
    assert clock.parse("2026-11-20T10:30:00Z") == 1_795_170_600_000
    assert clock.iso(1_795_170_600_000) == "2026-11-20T10:30:00Z"
    assert clock.iso(clock.after(START, "1mo")) == "2026-12-20T10:30:00Z"
    assert clock.iso(clock.start_of("month", START)) == "2026-11-01T00:00:00Z"
    assert abs(clock.now() / 1000 - time.time()) < 60
