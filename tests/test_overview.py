"""The overview: requests over time, and which keys want attention, as far as one may know them."""

import html
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import check, db, keys, outcomes, overview, usage
from console import clock as time_of_day
from console.actor import KEY, Actor
from console.errors import Forbidden, Invalid, Unknown
from console.models import Key, Project, Usage
from console.overview import Count, Overview, Totals
from console.web.overview import REASONS, change_words
from tests.conftest import Clock, MakeKey, add_person, checked, sign_in

NEVER_ASKED = ("z:z",)


def ask(text: str, times: int = 1, **asked: Any) -> None:
    for _ in range(times):
        checked(check.Request(**{"secret": text, "request_id": "r", "ip": "192.0.2.1", **asked}))


def names(found: Any) -> list[str]:
    return [one.name if isinstance(one, Key) else one.key.name for one in found]


@pytest.fixture
def look(clock: Clock, project: Project, operator: Actor) -> Callable[..., Overview]:
    """The project's overview, to somebody."""

    def at(period: str = "24h", *, by: Actor = operator) -> Overview:
        return overview.of_project(project.slug, period, by=by)

    return at


def grown_up(project: Project) -> None:
    """The project has been there for long."""
    Project.update(created_at=0).where(Project.id == project.id).execute()


# --- requests over time -----------------------------------------------------------------------


def test_totals_are_those_of_the_buckets(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock
) -> None:
    _, text = make_key()
    ask(text, 3)
    clock.move("2h")
    ask(text, permissions=NEVER_ASKED)
    for period in usage.PERIODS:
        found = look(period)
        assert found.totals == Totals(3, 1)
        assert sum(one.allowed + one.denied for one in found.buckets) == 4
    assert found.totals.refused_share == 0.25
    assert found.is_used


def test_without_requests_nothing_is_refused_and_nothing_was_used(
    make_key: MakeKey, look: Callable[..., Overview]
) -> None:
    make_key()
    found = look()
    assert (found.totals, found.totals.refused_share) == (Totals(0, 0), 0)
    assert not found.is_used


def test_a_request_long_ago_is_a_request(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock
) -> None:
    ask(make_key()[1])
    clock.move("2y")
    assert (look("12mo").totals.requests, look("12mo").is_used) == (0, True)


@pytest.mark.parametrize("period, at", [
    ("24h", "2026-11-22T09:30:00Z"), ("30d", "2027-01-18T12:00:00Z"),
    ("12mo", "2028-10-16T12:00:00Z"),
])  # fmt: skip
def test_the_time_before_is_as_long_and_ends_where_the_buckets_begin(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock, project: Project, period: str,
    at: str,
) -> None:  # fmt: skip
    """The clock starts in the first bucket of the time before, and half of the last one is over."""
    grown_up(project)
    unit, _ = usage.PERIODS[period]
    _, text = make_key()
    ask(text, 2)
    clock.instant = time_of_day.end_of(unit, clock.instant)
    ask(text, 4)
    clock.instant = time_of_day.parse(at)
    ask(text, 8)
    assert (look(period).totals, look(period).before) == (Totals(8, 0), Totals(1 + 4, 0))
    clock.instant = time_of_day.end_of(unit, clock.instant)
    assert look(period).before == Totals(0, 0)
    clock.move_ms((time_of_day.end_of(unit, clock.instant) - clock.instant) // 2)
    assert look(period).before == Totals(2, 0)


def test_what_the_present_hour_lacks_is_left_out_of_the_time_before(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock, project: Project
) -> None:
    grown_up(project)
    ask(make_key()[1], 100)
    clock.instant = time_of_day.parse("2026-11-22T09:15:00Z")
    assert look().before == Totals(25, 0)
    clock.instant = time_of_day.parse("2026-11-22T09:45:00Z")
    assert look().before == Totals(75, 0)


def test_a_project_younger_than_the_time_before_is_compared_with_nothing(
    clock: Clock, make_key: MakeKey, look: Callable[..., Overview]
) -> None:
    ask(make_key()[1])
    assert look().before is None
    clock.move("47h")
    assert (look().before, look("30d").before) == (None, None)
    clock.move("1h")
    assert look().before is not None


def test_an_unknown_period_is_refused_by_name(look: Callable[..., Overview]) -> None:
    with pytest.raises(Invalid) as refused:
        look("1y")
    assert list(refused.value.fields) == ["period"]


# --- keys -------------------------------------------------------------------------------------


def test_keys_are_counted_by_status_beside_what_is_allowed(
    make_key: MakeKey, look: Callable[..., Overview], operator: Actor, clock: Clock
) -> None:
    for expires_in in ("1h", "1h", "2d"):
        make_key(expires_in=expires_in)
    keys.revoke(make_key()[0].id, by=operator)
    clock.move("1h")
    found = look()
    assert found.keys == 4
    assert found.statuses == {"active": 1, "revoked": 1, "expired": 2}
    assert found.key_limit == 20


def test_expiring_are_active_keys_that_end_within_thirty_days_soonest_first(
    make_key: MakeKey, look: Callable[..., Overview], operator: Actor, clock: Clock
) -> None:
    for expires_in in ("30d", "3d", "31d", "2d", "1h"):
        make_key(name=expires_in, expires_in=expires_in)
    make_key(name="never")
    keys.revoke(make_key(name="revoked", expires_in="1d")[0].id, by=operator)
    clock.move("1h")
    found = look().expiring
    assert names(found.keys) == ["2d", "3d", "30d"]
    assert found.count == Count(3)


def test_unused_are_active_keys_older_than_a_week_oldest_first(
    make_key: MakeKey, look: Callable[..., Overview], operator: Actor, clock: Clock
) -> None:
    make_key(name="first")
    clock.move("1h")
    make_key(name="second")
    ask(make_key(name="used")[1])
    keys.revoke(make_key(name="revoked")[0].id, by=operator)
    make_key(name="expired", expires_in="1d")
    clock.move("7d")
    make_key(name="new")
    assert names(look().unused.keys) == ["first"]
    clock.move_ms(1)
    found = look().unused
    assert names(found.keys) == ["first", "second"]
    assert found.count == Count(2)


def test_a_list_shows_five_and_counts_all(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock
) -> None:
    for number in range(7):
        _, text = make_key(name=f"k{number}", expires_in="20d")
        clock.move("1m")
    clock.move("8d")
    found = look()
    for some in (found.expiring, found.unused):
        assert names(some.keys) == ["k0", "k1", "k2", "k3", "k4"]
        assert some.count == Count(7)


def test_top_keys_have_most_requests_since_yesterday(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock
) -> None:
    texts = {name: make_key(name=name)[1] for name in ("busy", "calm", "past", "idle")}
    clock.instant = time_of_day.parse("2026-11-18T23:59:59Z")
    ask(texts["past"], 9)
    ask(texts["calm"], 9)
    clock.instant = time_of_day.parse("2026-11-19T00:00:00Z")
    ask(texts["busy"], 2)
    ask(texts["calm"])
    clock.instant = time_of_day.parse("2026-11-20T23:59:59Z")
    ask(texts["busy"])
    ask(texts["busy"], permissions=NEVER_ASKED)
    found = look().use
    assert [(one.key.name, one.allowed, one.denied) for one in found.top] == [
        ("busy", 3, 1), ("calm", 1, 0),
    ]  # fmt: skip
    assert found.top_count == Count(2)


def test_failing_keys_were_refused_since_yesterday_and_say_why(
    make_key: MakeKey, look: Callable[..., Overview], operator: Actor, clock: Clock
) -> None:
    _, often = make_key(name="often", ip_allowlist=["10.0.0.0/8"])
    revoked, gone = make_key(name="gone")
    _, well = make_key(name="well")
    ask(often, 3)
    ask(often, 2, ip="10.1.1.1", permissions=NEVER_ASKED)
    ask(often, 4, ip="10.1.1.1")
    keys.revoke(revoked.id, by=operator)
    ask(gone)
    ask(well, 9)
    found = look().use
    assert [(one.key.name, one.denied, one.reason) for one in found.failing] == [
        ("often", 5, "IP_NOT_ALLOWED"), ("gone", 1, "API_KEY_REVOKED"),
    ]  # fmt: skip
    assert found.failing_count == Count(2)
    clock.move("2d")
    assert look().use.failing == []


def test_the_reason_is_that_of_the_newest_entries(
    make_key: MakeKey, look: Callable[..., Overview], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = make_key(ip_allowlist=["10.0.0.0/8"])
    ask(text, 4)
    ask(text, 2, ip="10.1.1.1", permissions=NEVER_ASKED)
    assert look().use.failing[0].reason == "IP_NOT_ALLOWED"
    monkeypatch.setattr(overview, "NEWEST_ENTRIES", 5)
    ask(text, 2, ip="10.1.1.1")
    assert look().use.failing[0].reason == "PERMISSION_DENIED"
    ask(text, 5, ip="10.1.1.1")
    assert look().use.failing[0].reason is None


def test_a_service_that_fails_is_no_refusal_of_ours(
    make_key: MakeKey, look: Callable[..., Overview], operator: Actor
) -> None:
    ask(make_key()[1], request_id="req_5")
    outcomes.record_outcomes([{"request_id": "req_5", "status": 500}], by=operator)
    assert look().use.failing == []


# --- very many keys ---------------------------------------------------------------------------


def test_beyond_their_bounds_counts_say_that_there_are_more(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make_key(name=f"k{number}", expires_in="20d")
        clock.move("1m")
    clock.move("8d")
    monkeypatch.setattr(overview, "COUNT_MAX", 2)
    monkeypatch.setattr(overview, "TOLD_APART_MAX", 2)
    found = look()
    assert (found.keys, found.statuses) == (3, None)
    for some in (found.expiring, found.unused):
        assert some.count == Count(2, is_least=True)
        assert names(some.keys) == ["k0", "k1", "k2"]


def test_of_very_many_used_keys_those_used_last_are_compared(
    make_key: MakeKey, look: Callable[..., Overview], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (9, 1, 2):
        ask(make_key(name=f"used {number} times")[1], number, permissions=NEVER_ASKED)
        clock.move("1m")
    monkeypatch.setattr(overview, "COMPARED_MAX", 2)
    found = look().use
    assert names(found.top) == names(found.failing) == ["used 2 times", "used 1 times"]
    assert found.top_count == found.failing_count == Count(2, is_least=True)


@pytest.mark.sqlite  # plans are its own
@pytest.mark.parametrize("who", ["operator", "member"])
def test_every_query_finds_its_rows_by_an_index(
    make_key: MakeKey, look: Callable[..., Overview], monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest, who: str,
) -> None:  # fmt: skip
    """Nor does one walk through all keys of a project to find a few, or through all its counts."""
    by: Actor = request.getfixturevalue(who)
    ask(make_key(by=by)[1], permissions=NEVER_ASKED)
    asked: list[tuple[str, Any]] = []
    execute = db.handle.obj.execute_sql

    def traced(sql: str, params: Any = None) -> Any:
        asked.append((sql, params))
        return execute(sql, params)

    with monkeypatch.context() as watched:
        watched.setattr(db.handle.obj, "execute_sql", traced)
        look(by=by)
    plans = {
        sql: " / ".join(row[3] for row in execute(f"explain query plan {sql}", params).fetchall())
        for sql, params in asked
        if sql.startswith("SELECT")
    }
    assert len(plans) > 8
    for sql, plan in plans.items():
        assert "SCAN key" not in plan and "SCAN t" not in plan, sql
        if "usage" in sql:
            assert "usage_unit_start_at" not in plan, sql
    unused = [plan for sql, plan in plans.items() if '"last_used_order" = ?' in sql]
    assert len(unused) == 2
    for plan in unused:
        assert ("last_used_order_id" if who == "operator" else "key_owner_id") in plan


# --- rights -----------------------------------------------------------------------------------


def test_a_member_is_told_of_their_own_keys_alone(
    make_key: MakeKey, look: Callable[..., Overview], member: Actor, viewer: Actor, clock: Clock,
    project: Project,
) -> None:  # fmt: skip
    grown_up(project)
    for by, name, number in ((member, "mine", 1), (None, "another's", 2)):
        make_key(name=f"{name}, unused", by=by, expires_in="20d")
        _, text = make_key(name=name, by=by, expires_in="20d")
        ask(text, number)
        ask(text, number, permissions=NEVER_ASKED)
    clock.move("8d")
    Usage.update(start_at=time_of_day.start_of("day", clock.now())).where(
        Usage.unit == "day"
    ).execute()
    Key.update(last_used_at=clock.now()).where(Key.last_used_at.is_null(False)).execute()
    own, whole = look("30d", by=member), look("30d", by=viewer)
    assert (own.totals, whole.totals) == (Totals(1, 1), Totals(3, 3))
    assert (own.keys, whole.keys) == (2, 4)
    assert (own.statuses["active"], whole.statuses["active"]) == (2, 4)
    assert (own.key_limit, whole.key_limit) == (None, 20)
    assert sorted(names(own.expiring.keys)) == ["mine", "mine, unused"]
    assert (own.expiring.count, whole.expiring.count) == (Count(2), Count(4))
    assert names(own.unused.keys) == ["mine, unused"]
    assert (own.unused.count, whole.unused.count) == (Count(1), Count(2))
    assert names(own.use.top) == names(own.use.failing) == ["mine"]
    assert names(whole.use.top) == ["another's", "mine"]
    assert (own.use.top_count, own.use.failing_count) == (Count(1), Count(1))


def test_the_time_before_is_that_of_a_members_own_keys(
    make_key: MakeKey, look: Callable[..., Overview], member: Actor, clock: Clock, project: Project
) -> None:
    grown_up(project)
    ask(make_key(by=member)[1])
    ask(make_key()[1], 5)
    clock.move("1d")
    clock.move("5h")
    assert (look(by=member).before, look().before) == (Totals(1, 0), Totals(6, 0))
    assert look(by=member).is_used


def test_what_others_keys_did_is_no_use_of_a_members(
    make_key: MakeKey, look: Callable[..., Overview], member: Actor
) -> None:
    make_key(by=member)
    ask(make_key()[1])
    assert not look(by=member).is_used


def test_a_stranger_finds_no_project(look: Callable[..., Overview], stranger: Actor) -> None:
    with pytest.raises(Unknown):
        look(by=stranger)


def test_a_key_needs_both_rights_and_a_third_for_the_reasons(
    make_key: MakeKey, look: Callable[..., Overview], project: Project
) -> None:
    ask(make_key()[1], permissions=NEVER_ASKED)

    def holding(*permissions: str) -> Actor:
        return Actor(KEY, "key_x", "CI", project_id=project.id, permissions=frozenset(permissions))

    for held in ("analytics:read", "keys:read"):
        with pytest.raises(Forbidden):
            look(by=holding(held))
    assert look(by=holding("analytics:read", "keys:read")).use.failing[0].reason is None
    every = holding("analytics:read", "keys:read", "audit:read")
    assert look(by=every).use.failing[0].reason == "PERMISSION_DENIED"


# --- all projects -----------------------------------------------------------------------------


def rows(by: Actor) -> list[tuple[str, Any, Any]]:
    return [(one.project.slug, one.active, one.today) for one in overview.of_all(by=by)]


def test_each_project_tells_its_active_keys_and_the_requests_of_today(
    make_key: MakeKey, operator: Actor, other_project: Project, clock: Clock
) -> None:
    _, text = make_key()
    keys.revoke(make_key()[0].id, by=operator)
    ask(text, 5)
    clock.move("1d")
    ask(text, 2)
    ask(text, permissions=NEVER_ASKED)
    assert rows(operator) == [
        ("other", Count(0), Totals(0, 0)), ("shop", Count(1), Totals(2, 1)),
    ]  # fmt: skip


def test_a_members_projects_tell_of_their_own_keys(
    make_key: MakeKey, member: Actor, viewer: Actor, clock: Clock
) -> None:
    ask(make_key(by=member)[1])
    ask(make_key()[1], 4)
    assert rows(member) == [("shop", Count(1), Totals(1, 0))]
    assert rows(viewer) == [("shop", Count(2), Totals(5, 0))]


def test_a_project_tells_a_key_only_what_it_may_know(
    make_key: MakeKey, project: Project, clock: Clock
) -> None:
    make_key()
    by = Actor(KEY, "key_x", "CI", project_id=project.id, permissions=frozenset({"keys:read"}))
    assert rows(by) == [("shop", Count(1), None)]


# --- pages ------------------------------------------------------------------------------------


def plain(page: str) -> str:
    """The page's words, without its marks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def section(page: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.DOTALL)
    assert found
    return found[0]


def test_a_project_without_keys_offers_to_create_one(
    app: Flask, signed_in: FlaskClient, viewer: Actor
) -> None:
    page = signed_in.get("/projects/shop").text
    assert "No keys yet" in page and "Create API Key" in page
    page = sign_in(app, viewer).get("/projects/shop").text
    assert "No keys yet" in page and "Create API Key" not in page


def test_before_the_first_request_the_page_says_how_to_make_it(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey, client: FlaskClient
) -> None:
    _, text = make_key()
    page = signed_in.get("/projects/shop").text
    line = html.unescape(page.partition('id="first-request"')[2].partition(">")[2])
    line = line.partition("</pre>")[0]
    assert "/projects/shop/integrate" in page
    words = shlex.split(line.replace("$KEY", text))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/api/v1/whoami"]
    name, _, value = words[words.index("-H") + 1].partition(": ")
    assert client.get("/api/v1/whoami", headers={name: value}).status_code == 200
    page = signed_in.get("/projects/shop").text
    assert "No requests yet" not in page
    assert "1 request" in plain(section(page, "top"))


def test_every_row_leads_to_its_key_and_every_heading_to_the_list_of_them(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    made = {
        "expiring": make_key(name="Ending", expires_in="9d"), "unused": make_key(name="Idle"),
        "failing": make_key(name="Failing"), "top": make_key(name="Busy"),
    }  # fmt: skip
    clock.move("8d")
    for name, times in (("failing", 1), ("top", 3), ("expiring", 1)):
        ask(made[name][1], times, permissions=NEVER_ASKED if name == "failing" else ())
    page = signed_in.get("/projects/shop").text
    heads = {}
    for name, (key, _) in made.items():
        part = section(page, name)
        assert f'href="/projects/shop/keys/{key.id}"' in part
        heads[name] = html.unescape(re.findall(r'<h2[^>]*><a href="([^"]+)"', part)[0])
        listed = plain(signed_in.get(heads[name]).text)
        assert key.name in listed
        if name in ("expiring", "unused"):
            others = {one.name for one, _ in made.values()} - {key.name}
            assert not [one for one in others if one in listed]
    assert "status=denied" in heads["failing"]
    failing = section(page, "failing")
    assert "1 refused" in failing and "Lacks a permission" in failing
    log = f"/projects/shop/keys/{made['failing'][0].id}/audit-log?status=denied"
    assert f'href="{log}"' in failing
    assert signed_in.get(log).status_code == 200


def test_counts_by_status_lead_to_those_keys(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey, operator: Actor
) -> None:
    make_key()
    keys.revoke(make_key()[0].id, by=operator)
    page = signed_in.get("/projects/shop").text
    assert "Active keys 1 of 20 allowed Revoked 1 Expired 0" in plain(page)
    for status in ("active", "revoked", "expired"):
        assert f'href="/projects/shop/keys?status={status}"' in page


def test_the_page_of_a_member_speaks_of_their_own_keys(
    clock: Clock, app: Flask, make_key: MakeKey, member: Actor
) -> None:
    make_key(name="Mine", by=member)
    ask(make_key(name="Somebody's")[1], 7)
    page = sign_in(app, member).get("/projects/shop").text
    assert "How your keys of Shop are used, and which of them want attention." in page
    assert "allowed" not in plain(page)
    assert "Somebody" not in page


def test_another_period_is_shown_in_place_or_on_a_page(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    ask(make_key()[1])
    clock.move("2d")
    assert "1 Allowed 1" not in plain(signed_in.get("/projects/shop").text)
    address = "/projects/shop?period=30d"
    whole = signed_in.get(address).text
    part = signed_in.get(address, headers={"HX-Request": "true", "HX-Target": "requests"}).text
    assert "<html" in whole and "<html" not in part
    for page in (whole, part):
        assert "1 Allowed 1 Refused 0" in plain(page)
        assert re.search(r'period=30d" aria-current="true"', page)
    assert 'aria-labelledby="top"' in whole and 'aria-labelledby="top"' not in part


@pytest.mark.parametrize("before, now, words", [
    (10, 12, "20 % more than in the 24 hours before"),
    (10, 5, "50 % fewer than in the 24 hours before"),
    (1, 5001, "500,000 % more than in the 24 hours before"),
    (1000, 1001, "As many as in the 24 hours before"),
    (0, 5, ""),
])  # fmt: skip
def test_the_change_is_said_in_words(
    look: Callable[..., Overview], before: int, now: int, words: str
) -> None:
    found = replace(look(), totals=Totals(now, 0), before=Totals(before, 0))
    assert change_words(found, "24h") == words
    assert change_words(replace(found, before=None), "24h") == ""


def test_every_refusal_of_a_known_key_has_its_words() -> None:
    of_known_keys = set(check.CODES) - {
        check.VALID, check.MISSING, check.MALFORMED, check.INVALID, check.UNAVAILABLE
    }  # fmt: skip
    assert set(REASONS) == of_known_keys


def test_a_strange_period_is_a_bad_request(signed_in: FlaskClient) -> None:
    assert signed_in.get("/projects/shop?period=1y").status_code == 400


def test_a_hostile_name_is_shown_as_text(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    hostile = '<img src=x onerror=alert(1)>"'
    _, text = make_key(name=hostile, expires_in="9d")
    make_key(name=hostile)
    clock.move("8d")
    ask(text, permissions=NEVER_ASKED)
    page = signed_in.get("/projects/shop").text
    assert page.count("&lt;img src=x") >= 4 and "<img" not in page


def test_no_page_has_inline_script_or_style(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    _, text = make_key(expires_in="9d")
    make_key()
    clock.move("8d")
    ask(text, permissions=NEVER_ASKED)
    for path in ("/", "/projects/shop", "/projects/other", "/projects/shop?period=12mo"):
        page = signed_in.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)


def test_who_is_signed_out_or_elsewhere_finds_no_overview(
    app: Flask, client: FlaskClient, stranger: Actor
) -> None:
    assert client.get("/projects/shop").location.startswith("/login")
    assert sign_in(app, stranger).get("/projects/shop").status_code == 404


def test_several_projects_are_a_table_and_one_leads_to_its_keys(
    clock: Clock, app: Flask, signed_in: FlaskClient, make_key: MakeKey, viewer: Actor,
    other_project: Project,
) -> None:  # fmt: skip
    _, text = make_key()
    ask(text, 2)
    ask(text, permissions=NEVER_ASKED)
    page = signed_in.get("/")
    assert "Other ot_… 0 0 0 Shop sk_… 1 3 1" in plain(page.text)
    for slug in ("shop", "other"):
        assert f'href="/projects/{slug}/keys"' in page.text
    assert sign_in(app, viewer).get("/").location == "/projects/shop/keys"


def test_without_any_project_the_page_says_how_to_add_one(app: Flask, project: Project) -> None:
    browser = sign_in(app, add_person("lost@example.com"))
    assert "No project yet" in browser.get("/").text
