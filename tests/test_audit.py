"""The log of requests: pages, filters, usage counts, grouped attempts, countries, retention."""

from typing import Any

import peewee
import pytest
from peewee import fn

from console import audit, check, country, db, journal, keys, outcomes, retention, search, secret
from console import clock as time_of_day
from console import usage as usage_counts
from console.actor import Actor, command_line
from console.errors import Forbidden, Invalid, Unknown
from console.models import Attempt, Entry, Event, Key, Project, Usage
from tests.conftest import Clock, MakeKey, checked


def ask(text: str, **asked: Any) -> None:
    checked(check.Request(**{"secret": text, "request_id": "r", "ip": "192.0.2.1", **asked}))


def log(key: Key, by: Actor, limit: int = 50, **filters: str) -> list[str]:
    shown = audit.page_of_key(key.id, by=by, filters=filters, cursor=None, limit=limit)
    return [entry.endpoint for entry in shown.rows]


def usage(key: Key) -> tuple[int, ...]:
    return tuple(usage_counts.totals_of(Key.get(Key.id == key.id)).values())


# --- pages ----------------------------------------------------------------------------------


def test_a_keys_log_shows_the_newest_first_and_pages(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    _, other = make_key(name="other")
    for number in range(5):
        ask(text, endpoint=f"/{number}")
        ask(other, endpoint="/other")

    def page(cursor: str | None) -> Any:
        return audit.page_of_key(key.id, by=operator, filters={}, cursor=cursor, limit=2)

    first = page(None)
    ask(text, endpoint="/newer")
    second = page(first.next_cursor)
    third = page(second.next_cursor)
    shown = [[entry.endpoint for entry in one.rows] for one in (first, second, third)]
    assert shown == [["/4", "/3"], ["/2", "/1"], ["/0"]]
    assert third.next_cursor is None
    back = page(second.previous_cursor)
    assert back.rows == first.rows
    assert [entry.endpoint for entry in page(back.previous_cursor).rows] == ["/newer"]


def test_a_filter_holds_over_pages(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    for number in range(6):
        ask(text, endpoint=f"/{number}", method="GET" if number % 2 else "POST")
    filters = {"method": "get"}
    first = audit.page_of_key(key.id, by=operator, filters=filters, cursor=None, limit=2)
    second = audit.page_of_key(
        key.id, by=operator, filters=filters, cursor=first.next_cursor, limit=2
    )
    assert [entry.endpoint for entry in first.rows + second.rows] == ["/5", "/3", "/1"]


def test_a_projects_log_is_its_own(
    make_key: MakeKey, operator: Actor, project: Project, other_project: Project
) -> None:
    ask(make_key()[1], endpoint="/shop")
    ask(make_key(project="other")[1], endpoint="/other")
    page = audit.page_of_project(project.id, by=operator, filters={}, cursor=None, limit=9)
    assert [entry.endpoint for entry in page.rows] == ["/shop"]


def test_a_members_project_log_shows_their_own_keys(
    make_key: MakeKey, member: Actor, admin: Actor, project: Project
) -> None:
    ask(make_key(by=member)[1], endpoint="/own")
    ask(make_key()[1], endpoint="/others")
    shown = {
        actor.name: [
            entry.endpoint
            for entry in audit.page_of_project(
                project.id, by=actor, filters={}, cursor=None, limit=9
            ).rows
        ]
        for actor in (member, admin)
    }
    assert shown == {member.name: ["/own"], admin.name: ["/others", "/own"]}


def test_a_deleted_keys_entries_stay_in_the_projects_log(
    make_key: MakeKey, operator: Actor, project: Project
) -> None:
    key, text = make_key()
    ask(text, endpoint="/last")
    keys.delete(key.id, by=operator)
    page = audit.page_of_project(project.id, by=operator, filters={}, cursor=None, limit=9)
    assert [entry.endpoint for entry in page.rows] == ["/last"]
    with pytest.raises(Unknown):
        log(key, operator)


# --- filters --------------------------------------------------------------------------------


@pytest.fixture
def logged(make_key: MakeKey, clock: Clock, operator: Actor) -> Key:
    """Five requests, a minute apart: /a and /b allowed, /c 403, /d 429, /e 401."""
    key, text = make_key(rate_limit={"per_hour": 2})
    asked: list[dict[str, Any]] = [
        {"endpoint": "/a", "method": "GET"},
        {"endpoint": "/b", "method": "post", "ip": "::ffff:8.8.8.8"},
        {"endpoint": "/c", "method": "GET", "permissions": ("a:b",)},
        {"endpoint": "/d", "method": "DELETE", "ip": "2001:db8::1"},
    ]
    for one in asked:
        ask(text, **one)
        clock.move("1m")
    keys.revoke(key.id, by=operator)
    ask(text, endpoint="/e", method="", ip=None)
    return key


FILTERS = {
    "nothing": ({}, "edcba"),
    "empty": ({"status": "", "method": ""}, "edcba"),
    "a status": ({"status": "403"}, "c"),
    "a class": ({"status": "4xx"}, "edc"),
    "another class": ({"status": "5xx"}, ""),
    "allowed": ({"status": "allowed"}, "ba"),
    "denied": ({"status": "denied"}, "edc"),
    "a method": ({"method": "GET"}, "ca"),
    "a method in lower case": ({"method": "post"}, "b"),
    "an address": ({"ip": "192.0.2.1"}, "ca"),
    "a mapped address": ({"ip": "::ffff:8.8.8.8"}, "b"),
    "the same address unwrapped": ({"ip": " 8.8.8.8 "}, "b"),
    "an IPv6 address": ({"ip": "2001:DB8:0:0::1"}, "d"),
    "since": ({"since": "2026-11-20T10:32:00Z"}, "edc"),
    "until": ({"until": "2026-11-20T10:32:00Z"}, "ba"),
    "since and until": (
        {"since": "2026-11-20T10:31:00Z", "until": "2026-11-20T11:33:00+01:00"}, "cb"
    ),
    "a code": ({"code": "PERMISSION_DENIED"}, "c"),
    "another code": ({"code": "API_KEY_REVOKED"}, "e"),
    "the code of what was let in": ({"code": "VALID"}, "ba"),
    "a path": ({"endpoint": "/c"}, "c"),
    "the start of all paths": ({"endpoint": "/"}, "edcba"),
    "a path in capitals": ({"endpoint": "/C"}, ""),
    "no wildcard": ({"endpoint": "%"}, ""),
    "nor one for a character": ({"endpoint": "_c"}, ""),
    "a secret": ({"secret": "current"}, "edcba"),
    "the old secret": ({"secret": "previous"}, ""),
    "several": ({"status": "denied", "method": "GET", "ip": "192.0.2.1"}, "c"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_narrows_the_log(logged: Key, operator: Actor, name: str) -> None:
    filters, expected = FILTERS[name]
    assert "".join(log(logged, operator, **filters)).replace("/", "") == expected


@pytest.mark.parametrize(
    "field, text",
    [
        ("status", "ok"), ("status", "99"), ("status", "600"), ("status", "6xx"),
        ("status", "4XX"), ("status", "20٣"), ("ip", "localhost"), ("ip", "10.0.0.0/8"),
        ("since", "yesterday"), ("since", "2026-11-20"), ("until", "2026-11-20T10:30:00"),
        ("code", "API_KEY_MISSING"), ("code", "valid"), ("secret", "old"),
        ("endpoint", "/" * 2_001), ("endpoint", "/\0"), ("method", "M" * 21),
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused_by_name(
    make_key: MakeKey, operator: Actor, field: str, text: str
) -> None:
    key, _ = make_key()
    with pytest.raises(Invalid) as refused:
        log(key, operator, **{field: text})
    assert list(refused.value.fields) == [field]


def project_log(project: Project, by: Actor, **filters: str) -> str:
    shown = audit.page_of_project(project.id, by=by, filters=filters, cursor=None, limit=50)
    return "".join(entry.endpoint for entry in shown.rows).replace("/", "")


def test_old_secrets_are_told_apart_in_the_log(make_key: MakeKey, operator: Actor) -> None:
    key, old = make_key()
    ask(old, endpoint="/a")
    _, new, _ = keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    for endpoint, text in (("/b", old), ("/c", new)):
        ask(text, endpoint=endpoint)
    assert log(key, operator, secret="previous") == ["/b"]
    assert log(key, operator, secret="current") == ["/c", "/a"]
    assert log(key, operator, secret="previous", method="PUT") == []


def test_a_projects_log_is_narrowed_to_a_key_by_id_or_name(
    make_key: MakeKey, operator: Actor, project: Project
) -> None:
    first, first_text = make_key(name="Résumé")
    other, other_text = make_key(name="twice")
    twin, twin_text = make_key(name="TWICE")
    for text, endpoint in ((first_text, "/a"), (other_text, "/b"), (twin_text, "/c")):
        ask(text, endpoint=endpoint)
    assert project_log(project, operator, key=first.id) == "a"
    assert project_log(project, operator, key="re\u0301sume\u0301") == "a"
    assert project_log(project, operator, key="Twice") == "cb"
    assert project_log(project, operator, key=other.id, endpoint="/c") == ""
    keys.delete(first.id, by=operator)
    assert project_log(project, operator, key=first.id) == "a"
    with pytest.raises(Unknown) as refused:
        project_log(project, operator, key="Résumé")
    assert list(refused.value.fields) == ["key"]


def test_the_key_filter_shows_nothing_that_is_somebody_elses(
    make_key: MakeKey, operator: Actor, member: Actor, project: Project, other_project: Project
) -> None:
    foreign, foreign_text = make_key(project="other", name="foreign")
    others, others_text = make_key(name="others")
    own, own_text = make_key(name="own", by=member)
    for text in (foreign_text, others_text, own_text):
        ask(text, endpoint="/x")
    assert project_log(project, operator, key=foreign.id) == ""
    assert project_log(project, operator, key=others.id) == "x"
    assert project_log(project, member, key=others.id) == ""
    assert project_log(project, member, key="own") == "x"
    for name in ("foreign", "others"):
        with pytest.raises(Unknown):
            project_log(project, member, key=name)


def test_what_a_check_can_log_is_what_the_filter_takes() -> None:
    known = {rule.code for rule in check.RULES_OF_A_KEY}
    assert set(audit.CODES_LOGGED) == known | {"VALID", "RATE_LIMITED", "QUOTA_EXCEEDED"}


# --- long logs ------------------------------------------------------------------------------


def enter(key: Key, count: int, at: int = 0, **more: Any) -> None:
    """So many entries of the key, a second apart, as the database has them."""
    first = {
        "project_id": key.project_id, "key_id": key.id, "secret": "current", "method": "GET",
        "endpoint": "/tasks", "ip": "203.0.113.7", "country": "DE", "status": 200, "code": "VALID",
        "user_agent": "curl/8", "request_id": "req_1", "permissions": [], **more,
    }  # fmt: skip
    rows = [{**first, "at": at + number * time_of_day.SECOND} for number in range(count)]
    for start in range(0, count, 500):
        Entry.insert_many(rows[start : start + 500]).execute()


def test_a_search_for_what_is_rare_is_continued_by_the_cursor(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCAN_ROWS", 100)
    key, _ = make_key()
    enter(key, 1, ip="192.0.2.9", endpoint="/rare")
    enter(key, 250)
    cursor, looks, found = None, 0, []
    while not looks or cursor:
        page = audit.page_of_key(
            key.id, by=operator, filters={"ip": "192.0.2.9"}, cursor=cursor, limit=5
        )
        found += [entry.endpoint for entry in page.rows]
        assert (page.stopped is None) == (page.next_cursor is None)
        cursor, looks = page.next_cursor, looks + 1
    assert (found, looks) == (["/rare"], 3)
    everything = audit.all_of_key(
        key.id, by=operator, filters={"ip": "192.0.2.9"}, cursor=None, most=None
    )
    assert [entry.endpoint for entry in everything] == ["/rare"]


@pytest.mark.parametrize("looked_at", [5, 1_000_000])
def test_a_time_is_found_wherever_it_lies(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    """Without reading what is newer: a short look finds what is a thousand entries back."""
    key, _ = make_key()
    enter(key, 1_000)
    monkeypatch.setattr(audit, "OUT_OF_STEP", 2 * time_of_day.SECOND)
    monkeypatch.setattr(search, "SCAN_ROWS", looked_at)
    filters = {"since": "1970-01-01T00:00:07Z", "until": "1970-01-01T00:00:09Z"}
    page = audit.page_of_key(key.id, by=operator, filters=filters, cursor=None, limit=5)
    assert [entry.at // time_of_day.SECOND for entry in page.rows] == [8, 7]


@pytest.mark.parametrize("instant", [0, 1, 500, 999, 1_000, 5_000])
def test_the_first_entry_of_a_time_is_found_by_halving(make_key: MakeKey, instant: int) -> None:
    key, _ = make_key()
    assert audit._first_id(instant) == 0
    enter(key, 1_000)
    Entry.delete().where(Entry.id.in_(range(200, 300))).execute()
    first = Entry.select(fn.MIN(Entry.id)).where(Entry.at >= instant * time_of_day.SECOND).scalar()
    newest = Entry.select(fn.MAX(Entry.id)).scalar()
    found = audit._first_id(instant * time_of_day.SECOND)
    assert found == (first or newest + 1)


def test_what_was_stored_late_is_found_at_its_time(make_key: MakeKey, operator: Actor) -> None:
    """Processes store their entries in turns: for a moment ids are out of step with times."""
    key, _ = make_key()
    enter(key, 1, at=100 * time_of_day.SECOND, endpoint="/early")
    enter(key, 1, at=130 * time_of_day.SECOND)
    enter(key, 1, at=101 * time_of_day.SECOND, endpoint="/late")
    filters = {"until": "1970-01-01T00:02:00Z"}
    assert log(key, operator, **filters) == ["/late", "/early"]


@pytest.mark.parametrize("kind", ["key", "project"])
def test_newer_entries_are_asked_for_by_the_newest_id_that_is_known(
    make_key: MakeKey, operator: Actor, project: Project, kind: str
) -> None:
    key, text = make_key()
    other, other_text = make_key()

    def newer(after: int, **filters: str) -> tuple[list[str], int]:
        if kind == "key":
            rows, newest = audit.newer_of_key(key.id, after, by=operator, filters=filters)
        else:
            rows, newest = audit.newer_of_project(project.id, after, by=operator, filters=filters)
        return [entry.endpoint for entry in rows], newest

    assert newer(0) == ([], 0)
    ask(text, endpoint="/a")
    _, first = newer(0)
    ask(text, endpoint="/b", method="POST")
    ask(text, endpoint="/c")
    assert newer(first) == (["/c", "/b"], first + 2)
    assert newer(first, method="POST") == (["/b"], first + 2)
    assert newer(first, method="PUT") == ([], first + 2)
    assert newer(first + 2) == ([], first + 2)
    ask(other_text, endpoint="/d")
    assert newer(first + 2) == (([], first + 2) if kind == "key" else (["/d"], first + 3))


def test_asking_for_newer_entries_writes_nothing(
    make_key: MakeKey, operator: Actor, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = make_key()
    check.check(check.Request(secret=text, request_id="r"))
    monkeypatch.setattr(journal, "settle", lambda: pytest.fail("stored what others will"))
    assert audit.newer_of_project(project.id, 0, by=operator, filters={}) == ([], 0)


# --- one entry ------------------------------------------------------------------------------


def test_an_entry_is_shown_to_who_may_read_the_log(
    make_key: MakeKey, operator: Actor, member: Actor, viewer: Actor, stranger: Actor,
    project: Project, other_project: Project,
) -> None:  # fmt: skip
    ask(make_key(by=member)[1], endpoint="/own")
    ask(make_key()[1], endpoint="/others")
    own, others = Entry.select().order_by(Entry.id)
    for by, entry in ((operator, others), (viewer, others), (member, own)):
        assert audit.entry_to_read(entry.id, project.id, by=by) == entry
    for by, entry_id, project_id in (
        (member, others.id, project.id), (stranger, own.id, project.id),
        (stranger, own.id, other_project.id), (operator, own.id, other_project.id),
        (operator, 2**70, project.id), (operator, 0, project.id),
    ):  # fmt: skip
        with pytest.raises(Unknown):
            audit.entry_to_read(entry_id, project_id, by=by)


# --- what is stored -------------------------------------------------------------------------


def test_long_and_odd_text_is_kept_within_bounds(make_key: MakeKey) -> None:
    _, text = make_key()
    ask(text, endpoint="/" + "é" * 5_000, method="m" * 50, user_agent="\0" + "x" * 5_000)
    entry = Entry.get()
    assert (len(entry.endpoint), len(entry.method), len(entry.user_agent)) == (2_000, 20, 500)
    assert entry.user_agent.startswith("\N{REPLACEMENT CHARACTER}x")


@pytest.mark.parametrize("stored", [True, False])
def test_the_outcome_takes_the_place_of_the_verdicts_status(
    make_key: MakeKey, operator: Actor, stored: bool
) -> None:
    """Whether the entry is in the database by then or still on its way."""
    key, text = make_key()
    check.check(check.Request(secret=text, request_id="req_1", endpoint="/x"))
    check.check(check.Request(secret=text, request_id="req_2", endpoint="/y"))
    if stored:
        journal.settle()
    audit.record_outcome("req_1", 404)
    assert log(key, operator, status="404") == ["/x"]
    assert log(key, operator, status="200") == ["/y"]
    assert {(row.allowed, row.denied) for row in Usage.select()} == {(2, 0)}


@pytest.mark.parametrize(
    "ip, stored, code, shown",
    [
        ("8.8.8.8", "8.8.8.8", "US", "United States"),
        ("::ffff:8.8.8.8", "8.8.8.8", "US", "United States"),
        ("2001:4860:4860::8888", "2001:4860:4860::8888", "US", "United States"),
        ("10.1.2.3", "10.1.2.3", None, country.PRIVATE),
        ("::ffff:192.168.0.1", "192.168.0.1", None, country.PRIVATE),
        ("127.0.0.1", "127.0.0.1", None, country.PRIVATE),
        ("fe80::1", "fe80::1", None, country.PRIVATE),
        (None, None, None, country.UNKNOWN),
    ],
)
def test_an_entry_knows_its_country(
    make_key: MakeKey, ip: str | None, stored: str | None, code: str | None, shown: str
) -> None:
    ask(make_key()[1], ip=ip)
    entry = Entry.get()
    assert (entry.ip, entry.country) == (stored, code)
    assert country.words_for(entry.country, entry.ip) == shown


# --- usage ----------------------------------------------------------------------------------


def test_usage_counts_today_this_month_and_all(make_key: MakeKey, clock: Clock) -> None:
    key, text = make_key()
    clock.instant = time_of_day.parse("2026-11-29T23:59:59Z")
    ask(text)
    assert usage(key) == (1, 1, 1)
    clock.move_ms(999)
    ask(text)
    assert usage(key) == (2, 2, 2)
    clock.move_ms(1)  # midnight
    assert usage(key) == (0, 2, 2)
    ask(text)
    assert usage(key) == (1, 3, 3)
    clock.instant = time_of_day.parse("2026-11-30T23:59:59.999Z")
    ask(text)
    assert usage(key) == (2, 4, 4)
    clock.move_ms(1)  # December
    assert usage(key) == (0, 0, 4)
    ask(text)
    assert usage(key) == (1, 1, 5)
    clock.instant = time_of_day.parse("2027-01-01T00:00:00Z")
    assert usage(key) == (0, 0, 5)


def test_usage_counts_refused_requests_too_and_apart(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    ask(text)
    ask(text, permissions=("a:b",))
    assert usage(key) == (2, 2, 2)
    rows = Usage.select().where(Usage.subject_id == key.id)
    counts = {(row.unit, row.allowed, row.denied) for row in rows}
    assert counts == {("hour", 1, 1), ("day", 1, 1), ("month", 1, 1)}


def test_a_new_key_was_never_used(make_key: MakeKey) -> None:
    assert usage(make_key()[0]) == (0, 0, 0)


# --- attempts -------------------------------------------------------------------------------


def groups() -> dict[tuple[str, str], int]:
    return {(row.ip, row.code): row.count for row in audit.attempts(by=command_line())}


def test_attempts_without_a_known_key_are_grouped_and_leave_no_entry(
    make_key: MakeKey, clock: Clock
) -> None:
    for _ in range(3):
        ask("x")
        ask(secret.mint("sk", "live"))
    ask("x", ip="192.0.2.2")
    ask("x", ip=None)
    assert groups() == {
        ("192.0.2.1", "API_KEY_MALFORMED"): 3,
        ("192.0.2.1", "API_KEY_INVALID"): 3,
        ("192.0.2.2", "API_KEY_MALFORMED"): 1,
        (audit.NO_ADDRESS, "API_KEY_MALFORMED"): 1,
    }
    assert Entry.select().count() == 0


def test_attempts_are_grouped_by_hour_newest_first(make_key: MakeKey, clock: Clock) -> None:
    ask("x")
    clock.move("1h")
    ask("x")
    ask("x", ip="192.0.2.2")
    ask("x", ip="192.0.2.2")
    hours = [
        (time_of_day.iso(row.hour_at), row.ip, row.count)
        for row in audit.attempts(by=command_line())
    ]
    assert hours == [
        ("2026-11-20T11:00:00Z", "192.0.2.2", 2),
        ("2026-11-20T11:00:00Z", "192.0.2.1", 1),
        ("2026-11-20T10:00:00Z", "192.0.2.1", 1),
    ]


def test_guessing_fills_neither_memory_nor_disk(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ATTEMPT_GROUPS_MAX", 5)
    for number in range(20):
        ask("x", ip=f"192.0.2.{number}")
    assert len(audit._attempts) == 6
    audit.store_attempts()
    for number in range(20, 40):
        ask("x", ip=f"192.0.2.{number}")
    ask("x", ip="192.0.2.0")
    audit.store_attempts()
    assert Attempt.select().count() == 6
    assert groups()["192.0.2.0", "API_KEY_MALFORMED"] in (1, 2)
    assert sum(groups().values()) == 41


def test_a_group_that_is_stored_keeps_counting_when_the_hour_is_full(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "ATTEMPT_GROUPS_MAX", 1)
    for ip in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        ask("x", ip=ip)
        audit.store_attempts()
    assert groups() == {
        ("192.0.2.1", "API_KEY_MALFORMED"): 2,
        (audit.OTHER_ADDRESSES, "API_KEY_MALFORMED"): 1,
    }


def test_attempts_that_could_not_be_stored_are_kept(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> None:
        raise peewee.OperationalError("disk full")

    ask("x")
    with monkeypatch.context() as broken:
        broken.setattr(audit, "_store_hour", fails)
        with pytest.raises(peewee.OperationalError):
            audit.store_attempts()
    assert groups() == {("192.0.2.1", "API_KEY_MALFORMED"): 1}


def test_attempts_are_forgotten_after_a_week(make_key: MakeKey, clock: Clock) -> None:
    ask("x")
    audit.store_attempts()
    clock.move("6d")
    retention.prune_all()
    assert Attempt.select().count() == 1
    clock.move("1d")
    retention.prune_all()
    assert Attempt.select().count() == 0


def test_attempts_are_for_owners(owner: Actor, admin: Actor) -> None:
    assert audit.attempts(by=owner) == []
    with pytest.raises(Forbidden):
        audit.attempts(by=admin)


# --- retention ------------------------------------------------------------------------------


def pruned() -> tuple[int, int]:
    """How many entries and events went."""
    gone = retention.prune_all()
    return gone["entries"], gone["events"]


def test_prune_deletes_what_is_past_its_time_and_nothing_else(
    clock: Clock, make_key: MakeKey, operator: Actor
) -> None:
    key, text = make_key()
    ask(text, endpoint="/old")
    clock.move_ms(1)
    ask(text, endpoint="/kept")
    clock.move("90d")
    assert pruned() == (1, 0)
    assert log(key, operator) == ["/kept"]
    assert usage(key)[2] == 2
    clock.move("275d")  # a year: the project's event and the key's go too
    assert pruned() == (1, 2)
    assert Event.select().count() == 0


def test_prune_goes_in_batches_that_let_checks_through(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = make_key()
    for _ in range(7):
        ask(text)
    clock.move("91d")
    ask(text, endpoint="/kept")
    transactions = 0

    def counted() -> Any:
        nonlocal transactions
        transactions += 1
        return db.write()

    monkeypatch.setattr(retention, "BATCH", 3)
    steps = [step for step in retention.prune(counted) if step[1]]
    by_rows = [("entries", 3), ("entries", 3), ("entries", 1), ("counts", 2)]
    by_day = [("entries", 7), ("counts", 2)]  # PostgreSQL, where the day has a table of its own
    assert steps == by_rows or (steps == by_day and not db.is_sqlite())
    assert transactions == len(steps) + len(retention.PRUNED)  # and one that finds no more of each
    assert [entry.endpoint for entry in Entry.select()] == ["/kept"]


def test_prune_on_an_empty_log_does_nothing(project: Project) -> None:
    assert pruned() == (0, 0)


# --- outcomes ---------------------------------------------------------------------------------


def entry_of(request_id: str) -> Entry:
    journal.settle()
    return Entry.get(Entry.request_id == request_id)


def test_an_outcome_takes_the_place_of_the_verdicts_status(
    make_key: MakeKey, operator: Actor
) -> None:
    _, text = make_key()
    checked(check.Request(secret=text, request_id="req_1"))
    given = [{"request_id": "req_1", "status": 418, "latency_ms": 12}]
    assert outcomes.record_outcomes(given, by=operator) == {"updated": 1, "unknown": []}
    entry = entry_of("req_1")
    assert (entry.status, entry.latency_ms, entry.code) == (418, 12, "VALID")


def test_an_outcome_that_comes_before_its_entry_is_stored_finds_it(
    make_key: MakeKey, operator: Actor
) -> None:
    _, text = make_key()
    check.check(check.Request(secret=text, request_id="req_1"))
    given = [{"request_id": "req_1", "status": 500}]
    assert outcomes.record_outcomes(given, by=operator)["updated"] == 1
    assert (entry_of("req_1").status, entry_of("req_1").latency_ms) == (500, None)


def test_of_two_outcomes_the_later_holds(make_key: MakeKey, operator: Actor) -> None:
    _, text = make_key()
    checked(check.Request(secret=text, request_id="req_1"))
    given = [{"request_id": "req_1", "status": status} for status in (500, 503)]
    assert outcomes.record_outcomes(given, by=operator)["updated"] == 2
    assert entry_of("req_1").status == 503


def test_requests_that_are_not_known_or_not_theirs_are_told_alike(
    make_key: MakeKey, operator: Actor, other_project: Project, stranger: Actor
) -> None:
    _, text = make_key()
    checked(check.Request(secret=text, request_id="req_1"))
    given = [{"request_id": name, "status": 500} for name in ("req_1", "req_none")]
    report = outcomes.record_outcomes(given, by=stranger)
    assert report == {"updated": 0, "unknown": ["req_1", "req_none"]}
    assert entry_of("req_1").status == 200


def test_an_outcome_changes_no_count_of_verdicts(make_key: MakeKey, operator: Actor) -> None:
    key, text = make_key()
    checked(check.Request(secret=text, request_id="req_1"))
    outcomes.record_outcomes([{"request_id": "req_1", "status": 500}], by=operator)
    present = usage_counts.of_key(key.id, "24h", by=operator)[-1]
    assert (present.allowed, present.denied) == (1, 0)


def test_who_may_not_verify_reports_nothing(make_key: MakeKey, viewer: Actor) -> None:
    with pytest.raises(Forbidden):
        outcomes.record_outcomes([], by=viewer)


BAD_OUTCOMES: dict[str, tuple[Any, str]] = {
    "no list": ({"request_id": "req_1", "status": 200}, "body"),
    "no object": ([1], "0"),
    "no status": ([{"request_id": "r"}], "0.status"),
    "a status too small": ([{"request_id": "r", "status": 99}], "0.status"),
    "a status too large": ([{"request_id": "r", "status": 600}], "0.status"),
    "a status as text": ([{"request_id": "r", "status": "200"}], "0.status"),
    "half a status": ([{"request_id": "r", "status": 200.5}], "0.status"),
    "a time before": ([{"request_id": "r", "status": 200, "latency_ms": -1}], "0.latency_ms"),
    "an unknown field": ([{"request_id": "r", "status": 200, "code": "x"}], "0.code"),
    "the second": ([{"request_id": "r", "status": 200}, {"request_id": "r"}], "1.status"),
    "too many": ([{"request_id": "r", "status": 200}] * 1_001, "body"),
}


@pytest.mark.parametrize("name", BAD_OUTCOMES)
def test_a_bad_outcome_is_named_and_none_is_recorded(
    make_key: MakeKey, operator: Actor, name: str
) -> None:
    given, field = BAD_OUTCOMES[name]
    _, text = make_key()
    checked(check.Request(secret=text, request_id="r"))
    with pytest.raises(Invalid) as refused:
        outcomes.record_outcomes(given, by=operator)
    assert list(refused.value.fields) == [field]
    assert entry_of("r").status == 200


def test_a_thousand_outcomes_are_taken_in_one_call(make_key: MakeKey, operator: Actor) -> None:
    _, text = make_key()
    for number in range(100):
        check.check(check.Request(secret=text, request_id=f"req_{number}"))
    given = [{"request_id": f"req_{number % 100}", "status": 201} for number in range(1_000)]
    assert outcomes.record_outcomes(given, by=operator) == {"updated": 1_000, "unknown": []}


def test_a_refused_requests_entry_keeps_its_status(make_key: MakeKey, operator: Actor) -> None:
    _, text = make_key()
    checked(check.Request(secret=text, request_id="req_1", permissions=("a:b",)))
    given = [{"request_id": "req_1", "status": 200}]
    assert outcomes.record_outcomes(given, by=operator)["unknown"] == ["req_1"]
    assert entry_of("req_1").status == 403


def test_a_member_reports_about_their_own_keys_alone(
    make_key: MakeKey, operator: Actor, member: Actor
) -> None:
    _, own = make_key(by=member)
    _, others = make_key()
    checked(check.Request(secret=own, request_id="req_own"))
    checked(check.Request(secret=others, request_id="req_others"))
    given = [{"request_id": one, "status": 500} for one in ("req_own", "req_others")]
    assert outcomes.record_outcomes(given, by=member) == {"updated": 1, "unknown": ["req_others"]}
