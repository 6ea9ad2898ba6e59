"""The calendar of a project: what it tells of which keys, whom its link lets in and until when, and
that neither the database nor a log or an event ever holds the link."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient
from icalendar import Calendar, Event
from werkzeug.test import TestResponse

from console import calendar_feed, clock, keys, links, members, projects, renewal
from console.actor import Actor
from console.errors import Conflict, Forbidden, Unknown
from console.models import TABLES, Key, Project
from console.models import Event as Recorded
from console.secret import digest
from tests.conftest import (
    PASSWORD,
    V1,
    Clock,
    MakeKey,
    assert_problem,
    at_once,
    bearer,
    sign_in,
    statements,
)

SETTINGS = "/projects/shop/settings"
MAKE, REMOVE = f"{SETTINGS}/calendar/link", f"{SETTINGS}/calendar/remove"
NO_TOKEN = "A" * 43
ADDRESS = re.compile(r"http\S+?/calendar/([\w-]{43})\.ics")


def token_of(url: str) -> str:
    found = ADDRESS.fullmatch(url)
    assert found, url
    return found[1]


@pytest.fixture
def token(project: Project, operator: Actor, clock: Clock) -> str:
    """Of the link of shop; the time stands still."""
    return token_of(calendar_feed.make_link("shop", by=operator)["url"])


def calendar_of(token: str) -> Calendar:
    return Calendar.from_ical(calendar_feed.feed(token))


def events_of(token: str) -> list[Event]:
    return calendar_of(token).events


def summaries(token: str) -> list[str]:
    return [str(event["SUMMARY"]) for event in events_of(token)]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- what it tells --------------------------------------------------------------------------


def test_an_end_is_a_moment_that_takes_no_time(token: str, make_key: MakeKey) -> None:
    key, _ = make_key(name="CI", expires_in="30d", environment="test")
    [event] = events_of(token)
    assert event["SUMMARY"] == "CI expires"
    assert event["DTSTART"].dt == at("2026-12-20T10:30:00")
    assert event["DTSTART"].to_ical() == b"20261220T103000Z"
    assert event["TRANSP"] == "TRANSPARENT"
    assert "DTEND" not in event and "DURATION" not in event and event.duration.total_seconds() == 0
    assert event["URL"] == f"{links.base_url()}/projects/shop/keys/{key.id}"


def test_the_calendar_says_whose_it_is_and_when_to_ask_again(token: str, operator: Actor) -> None:
    calendar = calendar_of(token)
    assert (calendar["VERSION"], calendar["METHOD"]) == ("2.0", "PUBLISH")
    assert calendar["PRODID"] == "-//Latchkey//Ends of keys//EN"
    assert calendar["X-WR-CALNAME"] == "Shop – API keys"
    lines = calendar_feed.feed(token).decode().split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR" and lines[-2:] == ["END:VCALENDAR", ""]
    assert {"REFRESH-INTERVAL;VALUE=DURATION:PT6H", "X-PUBLISHED-TTL:PT6H"} <= set(lines)


def test_it_tells_prefix_environment_owner_and_last_use(
    token: str, make_key: MakeKey, member: Actor, clock: Clock
) -> None:
    owned, _ = make_key(name="Owned", expires_in="1d", by=member)
    nobodys, _ = make_key(name="Nobody's", expires_in="2d", environment="test")
    Key.update(last_used_at=clock.instant).where(Key.id == owned.id).execute()
    first, second = (str(event["DESCRIPTION"]) for event in events_of(token))
    assert first.split("\n") == [
        f"Prefix: {owned.prefix}",
        "Environment: live",
        "Owner: bob@example.com",
        "Last used: 20 Nov 2026, 10:30 UTC",
    ]
    assert second.split("\n") == [
        f"Prefix: {nobodys.prefix}", "Environment: test", "Owner: nobody", "Last used: never",
    ]  # fmt: skip


def test_a_key_that_renews_itself_is_told_of_when_it_does(token: str, make_key: MakeKey) -> None:
    key, _ = make_key(name="Worker", expires_in="90d", auto_renew=True)
    [event] = events_of(token)
    assert event["SUMMARY"] == "Worker renews itself"
    assert event["DTSTART"].dt == clock.to_datetime(renewal.renews_at(key)) < at("2027-02-18")
    assert "Its end, 18 Feb 2027, 10:30 UTC, moves on" in event["DESCRIPTION"]


@pytest.mark.parametrize(
    "name",
    [
        "a, b; c: d",
        'the "big" one\'s',
        r"back\slash \n \, \;",
        "מפתח של הצוות",
        "مفتاح الفريق ١٢٣",
        "🔑 deploys 👩‍💻".replace("\u200d", ""),
        "Schlüssel für Grüße " * 4,
        "鍵" * 100,
        "BEGIN:VEVENT",
        "x" * 100,
    ],
)
def test_a_name_comes_through_as_it_is(
    token: str, make_key: MakeKey, operator: Actor, name: str
) -> None:
    name = name.strip()
    make_key(name=name, expires_in="1d")
    projects.edit("shop", {"name": name}, by=operator)
    content = calendar_feed.feed(token)
    assert max(len(line) for line in content.split(b"\r\n")) <= 75
    calendar = Calendar.from_ical(content)
    assert [str(event["SUMMARY"]) for event in calendar.events] == [f"{name} expires"]
    # The library leaves a property that it does not know as it stands; programs read it as text.
    as_text = Calendar.from_ical(content.replace(b"X-WR-CALNAME:", b"DESCRIPTION:"))
    assert str(as_text["DESCRIPTION"]) == f"{name} – API keys"


def test_the_soonest_comes_first(token: str, make_key: MakeKey) -> None:
    for name, length, renews in (
        ("c", "60d", False), ("a", "1d", False), ("b", "61d", True), ("d", "2d", False),
    ):  # fmt: skip
        make_key(name=name, expires_in=length, auto_renew=renews)
    assert summaries(token) == ["a expires", "d expires", "b renews itself", "c expires"]
    starts = [event["DTSTART"].dt for event in events_of(token)]
    assert starts == sorted(starts)


def test_only_ends_that_come_within_400_days_are_told_of(
    token: str, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    revoked, _ = make_key(name="revoked", expires_in="30d")
    keys.revoke(revoked.id, by=operator)
    for name, settings in {
        "never": {},
        "first": {"expires_in": "1m"},
        "in time": {"expires_in": "400d"},
        "too late": {"expires_at": "2027-12-25T10:30:01Z"},
    }.items():
        make_key(name=name, **settings)
    assert summaries(token) == ["first expires", "in time expires"]
    clock.move("1m")
    assert summaries(token) == ["in time expires", "too late expires"]
    keys.restore(revoked.id, by=operator)
    assert summaries(token)[0] == "revoked expires"


def test_another_projects_keys_are_not_told_of(
    token: str, other_project: Project, operator: Actor
) -> None:
    keys.create({"name": "theirs", "project": "other", "expires_in": "1d"}, by=operator)
    assert summaries(token) == []


def test_an_event_keeps_its_id_while_the_end_moves(
    token: str, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key(name="CI", expires_in="30d")
    [before] = events_of(token)
    clock.move("1d")
    keys.edit(key.id, {"expires_in": "90d", "name": "Other"}, by=operator)
    clock.move("1h")
    [after] = events_of(token)
    assert before["UID"] == after["UID"] == f"{key.id}@127.0.0.1"
    assert before["DTSTART"].dt < after["DTSTART"].dt
    assert before["LAST-MODIFIED"].dt == at("2026-11-20T10:30:00")
    assert after["LAST-MODIFIED"].dt == at("2026-11-21T10:30:00")
    assert after["DTSTAMP"].dt == at("2026-11-21T11:30:00")


def test_the_ids_are_of_the_public_address(token: str, make_key: MakeKey) -> None:
    key, _ = make_key(expires_in="1d")
    before = links.base_url()
    links.use_base_url("https://keys.example.com:8443")
    try:
        [event] = events_of(token)
    finally:
        links.use_base_url(before)
    assert event["UID"] == f"{key.id}@keys.example.com"
    assert event["URL"] == f"https://keys.example.com:8443/projects/shop/keys/{key.id}"


def test_the_calendar_of_an_archived_project_is_empty_but_there(
    token: str, make_key: MakeKey, operator: Actor
) -> None:
    make_key(name="CI", expires_in="1d")
    projects.archive("shop", by=operator)
    assert summaries(token) == []
    projects.restore("shop", by=operator)
    assert summaries(token) == ["CI expires"]


def test_many_keys_cost_as_many_statements_as_one_and_are_bounded(
    token: str, make_key: MakeKey, member: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(name="first", expires_in="1d", by=member)
    with statements(monkeypatch) as of_one:
        calendar_feed.feed(token)
    for number in range(4):
        make_key(name=f"more {number}", expires_in="2d", by=member)
    monkeypatch.setattr(calendar_feed, "EVENTS_MAX", 3)
    with statements(monkeypatch) as of_many:
        found = summaries(token)
    assert found[0] == "first expires" and len(found) == 3
    assert of_many == of_one and len(of_one) == 2  # whose link it is, and its keys
    assert "LIMIT" in of_one[1]


# --- whom the link lets in --------------------------------------------------------------------


def test_a_new_link_ends_the_old_one(token: str, operator: Actor, clock: Clock) -> None:
    clock.move("1d")
    made = calendar_feed.make_link("shop", by=operator)
    assert made["made_at"] == "2026-11-21T10:30:00Z"
    assert token_of(made["url"]) != token
    calendar_feed.feed(token_of(made["url"]))
    with pytest.raises(Unknown):
        calendar_feed.feed(token)


def test_a_removed_link_leads_nowhere(token: str, operator: Actor) -> None:
    calendar_feed.remove_link("shop", by=operator)
    with pytest.raises(Unknown):
        calendar_feed.feed(token)
    with pytest.raises(Unknown):
        calendar_feed.remove_link("shop", by=operator)
    project = Project.get(Project.slug == "shop")
    assert (project.calendar_digest, project.calendar_made_at) == (None, None)


def test_a_link_is_of_its_own_project_alone(
    token: str, other_project: Project, operator: Actor
) -> None:
    other = token_of(calendar_feed.make_link("other", by=operator)["url"])
    calendar_feed.remove_link("shop", by=operator)
    assert calendar_of(other)["X-WR-CALNAME"] == "Other – API keys"


def test_a_deleted_projects_link_leads_nowhere(token: str, operator: Actor) -> None:
    projects.delete("shop", by=operator)
    with pytest.raises(Unknown):
        calendar_feed.feed(token)


def test_a_token_of_another_shape_is_looked_up_nowhere(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with statements(monkeypatch) as run:
        for wrong in ("", token[:-1], f"{token}A", f"{token}\n", f"{token[:-1]}é", digest(token)):
            with pytest.raises(Unknown):
                calendar_feed.feed(wrong)
    assert run == []


def test_a_link_outlives_the_role_of_who_made_it(admin: Actor, owner: Actor) -> None:
    token = token_of(calendar_feed.make_link("shop", by=admin)["url"])
    members.remove("shop", str(admin.id), by=owner)
    calendar_feed.feed(token)


def test_who_manages_the_project_makes_and_removes_its_link(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor
) -> None:
    for by in (owner, admin):
        calendar_feed.make_link("shop", by=by)
        calendar_feed.remove_link("shop", by=by)
    for by, refusal in ((member, Forbidden), (viewer, Forbidden), (stranger, Unknown)):
        with pytest.raises(refusal):
            calendar_feed.make_link("shop", by=by)
    calendar_feed.make_link("shop", by=owner)
    for by, refusal in ((member, Forbidden), (viewer, Forbidden), (stranger, Unknown)):
        with pytest.raises(refusal):
            calendar_feed.remove_link("shop", by=by)
    assert Project.get(Project.slug == "shop").calendar_digest is not None


def test_an_archived_projects_link_can_be_removed_but_none_be_made(
    token: str, operator: Actor
) -> None:
    projects.archive("shop", by=operator)
    with pytest.raises(Conflict, match="restore it"):
        calendar_feed.make_link("shop", by=operator)
    calendar_feed.feed(token)
    calendar_feed.remove_link("shop", by=operator)
    with pytest.raises(Conflict):
        calendar_feed.make_link("shop", by=operator)


def test_a_link_that_somebody_made_meanwhile_is_not_ended_unawares(
    project: Project, operator: Actor, clock: Clock
) -> None:
    first = token_of(calendar_feed.make_link("shop", by=operator, as_of="")["url"])
    clock.move("1m")
    with pytest.raises(Conflict, match="Nothing was done"):
        calendar_feed.make_link("shop", by=operator, as_of="")
    calendar_feed.feed(first)
    present = calendar_feed.edition(Project.get(Project.slug == "shop"))
    calendar_feed.make_link("shop", by=operator, as_of=present)


def test_of_two_who_make_a_link_at_once_one_has_it(project: Project, operator: Actor) -> None:
    made = at_once(4, lambda number: calendar_feed.make_link("shop", by=operator, as_of=""))
    links_made = [one for one in made if not isinstance(one, Exception)]
    assert len(links_made) == 1
    calendar_feed.feed(token_of(links_made[0]["url"]))


# --- what is kept of it -----------------------------------------------------------------------


def test_only_the_digest_is_stored(token: str, operator: Actor) -> None:
    assert Project.get(Project.slug == "shop").calendar_digest == digest(token)
    stored = repr([list(table.select().tuples()) for table in TABLES])
    assert digest(token) in stored and token not in stored


def test_each_change_is_an_event_of_the_project(
    token: str, operator: Actor, project: Project, clock: Clock
) -> None:
    clock.move("1d")
    second = token_of(calendar_feed.make_link("shop", by=operator)["url"])
    calendar_feed.remove_link("shop", by=operator)
    rows = list(Recorded.select().where(Recorded.action.startswith("calendar.")))
    first_at, second_at = "2026-11-20T10:30:00Z", "2026-11-21T10:30:00Z"
    assert [(row.action, row.changes) for row in rows] == [
        ("calendar.link_made", {"made_at": [None, first_at]}),
        ("calendar.link_made", {"made_at": [first_at, second_at]}),
        ("calendar.link_removed", {"made_at": [second_at, None]}),
    ]
    assert {(row.target_id, row.target_name, row.project_id) for row in rows} == {
        (project.id, "shop", project.id)
    }
    told = json.dumps([row.changes for row in rows])
    for one in (token, second):
        assert one not in told and digest(one) not in told


def test_what_cannot_be_recorded_is_not_done(
    token: str, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **named: Any) -> None:
        raise peewee.OperationalError("disk full")

    monkeypatch.setattr(calendar_feed.activity, "record", fail)
    for change in (calendar_feed.make_link, calendar_feed.remove_link):
        with pytest.raises(peewee.OperationalError):
            change("shop", by=operator)
    calendar_feed.feed(token)


# --- the address ------------------------------------------------------------------------------


def ics(token: str) -> str:
    return f"/calendar/{token}.ics"


def test_the_address_answers_a_calendar_without_sign_in_or_cookie(
    client: FlaskClient, token: str, make_key: MakeKey
) -> None:
    make_key(name="CI", expires_in="1d")
    answer = client.get(ics(token))
    assert (answer.status_code, answer.content_type) == (200, "text/calendar; charset=utf-8")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "Set-Cookie" not in answer.headers
    assert answer.data == calendar_feed.feed(token)
    assert b"SUMMARY:CI expires" in answer.data
    head = client.head(ics(token))
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Type"] == answer.content_type


def test_whatever_leads_nowhere_is_answered_the_same(
    client: FlaskClient, signed_in: FlaskClient, token: str, operator: Actor
) -> None:
    calendar_feed.remove_link("shop", by=operator)
    wrong = (token, NO_TOKEN, "x", f"{token}A", "%00", "é" * 43, digest(token), "..", "a%20b")
    for browser in (client, signed_in):
        answers = [browser.get(ics(one)) for one in wrong]
        assert {(one.status_code, one.text, one.content_type) for one in answers} == {
            (404, "There is no calendar at this address.\n", "text/plain; charset=utf-8")
        }
        for one in answers:
            assert one.headers["Cache-Control"] == "no-store" and "Set-Cookie" not in one.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_address_can_only_be_read(client: FlaskClient, token: str, method: str) -> None:
    answer = client.open(ics(token), method=method)
    assert answer.status_code == 405
    assert token not in answer.text


def test_a_failure_logs_no_link(
    client: FlaskClient,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*args: Any) -> None:
        raise peewee.OperationalError("disk gone")

    monkeypatch.setattr(calendar_feed, "_ending", fail)
    answer = client.get(ics(token))
    assert answer.status_code == 503 and "disk gone" in caplog.text
    assert token not in caplog.text and token not in answer.text


# --- through the API --------------------------------------------------------------------------


@pytest.fixture
def send(client: FlaskClient, owner: Actor) -> Callable[..., TestResponse]:
    """`send("POST")` to the owner's project's calendar."""
    body = {"email": owner.name, "password": PASSWORD}
    token = client.post(f"{V1}/auth/token", json=body).get_json()["access_token"]

    def call(method: str) -> TestResponse:
        return client.open(f"{V1}/projects/shop/calendar", method=method, headers=bearer(token))

    return call


def test_the_api_answers_the_link_once(
    send: Callable[..., TestResponse], client: FlaskClient, clock: Clock
) -> None:
    answer = send("POST")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.get_json().keys() == {"url", "made_at"}
    assert answer.get_json()["made_at"] == "2026-11-20T10:30:00Z"
    token = token_of(answer.get_json()["url"])
    assert client.get(ics(token)).status_code == 200
    assert send("GET").status_code == 405


def test_the_api_removes_the_link(send: Callable[..., TestResponse], client: FlaskClient) -> None:
    assert_problem(send("DELETE"), 404, "NOT_FOUND")
    token = token_of(send("POST").get_json()["url"])
    answer = send("DELETE")
    assert (answer.status_code, answer.data) == (204, b"")
    assert client.get(ics(token)).status_code == 404
    assert_problem(send("DELETE"), 404, "NOT_FOUND")


def test_the_api_makes_no_link_in_an_archived_project(
    send: Callable[..., TestResponse], operator: Actor
) -> None:
    send("POST")
    projects.archive("shop", by=operator)
    assert_problem(send("POST"), 409, "CONFLICT")
    assert send("DELETE").status_code == 204


def test_a_key_with_projects_manage_makes_a_link(client: FlaskClient, make_key: MakeKey) -> None:
    _, secret = make_key(permissions=["projects:manage"])
    _, other = make_key(permissions=["keys:manage"])
    path = f"{V1}/projects/shop/calendar"
    assert_problem(
        client.post(path, headers=bearer(other)), 403, "PERMISSION_DENIED", "missing_permissions"
    )
    assert client.post(path, headers=bearer(secret)).status_code == 201


# --- in the browser ---------------------------------------------------------------------------


def words(answer: TestResponse) -> str:
    """What a person reads in it, on one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def section(answer: TestResponse) -> str:
    found = re.search(r'<section class="setting" id="calendar".*?</section>', answer.text, re.S)
    assert found, "no section"
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", found[0])))


def shown_token(answer: TestResponse) -> str:
    found = ADDRESS.search(answer.text)
    assert found, words(answer)
    return found[1]


def test_the_page_makes_a_link_and_shows_it_once(
    signed_in: FlaskClient, client: FlaskClient, clock: Clock
) -> None:
    assert "There is no link. Make a link" in section(signed_in.get(SETTINGS))
    asked = signed_in.get(MAKE)
    assert asked.status_code == 200 and "names, prefixes and owners" in words(asked)
    assert Project.get(Project.slug == "shop").calendar_digest is None
    answer = signed_in.post(MAKE, data={"seen": ""})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "Whoever has it sees names and owners of keys" in words(answer)
    assert "A new link ends this one" in words(answer)
    token = shown_token(answer)
    assert answer.text.count(token) == 1 and 'data-copy="link"' in answer.text
    assert client.get(ics(token)).status_code == 200
    after = signed_in.get(SETTINGS)
    assert token not in after.text
    assert "There has been a link since 20 Nov 2026, 10:30 UTC" in section(after)
    assert "Make a new link Remove the link" in section(after)


def test_the_page_says_which_link_a_new_one_ends(signed_in: FlaskClient, clock: Clock) -> None:
    first = shown_token(signed_in.post(MAKE, data={"seen": ""}))
    clock.move("1d")
    asked = signed_in.get(MAKE)
    assert "The link of 20 Nov 2026, 10:30 UTC ends" in words(asked)
    seen = re.search(r'name="seen" value="(\d+)"', asked.text)
    assert seen
    second = shown_token(signed_in.post(MAKE, data={"seen": seen[1]}))
    assert signed_in.get(ics(first)).status_code == 404
    assert signed_in.get(ics(second)).status_code == 200


def test_a_reload_makes_no_second_link(signed_in: FlaskClient, clock: Clock) -> None:
    token = shown_token(signed_in.post(MAKE, data={"seen": ""}))
    clock.move("1m")
    again = signed_in.post(MAKE, data={"seen": ""})
    assert again.status_code == 409 and "Nothing was done" in words(again)
    assert not ADDRESS.search(again.text) and "The link of 20 Nov" in words(again)
    assert signed_in.get(ics(token)).status_code == 200


def test_the_page_removes_the_link(signed_in: FlaskClient) -> None:
    nothing = signed_in.get(REMOVE)
    assert nothing.status_code == 200 and "There is no link any more" in words(nothing)
    assert "danger" not in nothing.text and signed_in.post(REMOVE).status_code == 404
    token = shown_token(signed_in.post(MAKE))
    assert "leads nowhere" in words(signed_in.get(REMOVE))
    assert signed_in.get(ics(token)).status_code == 200
    answer = signed_in.post(REMOVE)
    assert (answer.status_code, answer.location) == (303, f"{SETTINGS}#calendar")
    assert signed_in.get(ics(token)).status_code == 404
    assert "The calendar link is removed" in signed_in.get(SETTINGS).text


def test_where_scripts_run_the_section_comes_back_alone(signed_in: FlaskClient) -> None:
    dialog = {"HX-Request": "true", "HX-Target": "dialog"}
    made = signed_in.post(MAKE, data={"seen": ""}, headers=dialog)
    assert "<html" not in made.text and shown_token(made)
    assert "keys-changed" in json.loads(made.headers["HX-Trigger"])
    part = signed_in.get(SETTINGS, headers={"HX-Request": "true", "HX-Target": "calendar"})
    assert part.text.strip().startswith('<section class="setting" id="calendar"')
    assert "Remove the link" in section(part) and part.text.count("<section") == 1
    gone = signed_in.post(REMOVE, headers=dialog)
    assert gone.status_code == 204
    assert {"keys-changed", "close-dialog"} <= json.loads(gone.headers["HX-Trigger"]).keys()


def test_who_may_not_manage_sees_nothing_of_it(
    app: Flask, viewer: Actor, admin: Actor, operator: Actor
) -> None:
    calendar_feed.make_link("shop", by=operator)
    assert 'id="calendar"' in sign_in(app, admin).get(SETTINGS).text
    browser = sign_in(app, viewer)
    for headers in ({}, {"HX-Request": "true", "HX-Target": "calendar"}):
        assert 'id="calendar"' not in browser.get(SETTINGS, headers=headers).text


def test_the_page_of_an_archived_project_only_removes(
    app: Flask, admin: Actor, viewer: Actor, operator: Actor
) -> None:
    calendar_feed.make_link("shop", by=operator)
    projects.archive("shop", by=operator)
    browser = sign_in(app, admin)
    shown = section(browser.get(SETTINGS))
    assert "Remove the link" in shown and "Make a" not in shown and "is empty" in shown
    refused = browser.post(MAKE, data={"seen": ""})
    assert refused.status_code == 409 and "restore it" in words(refused)
    assert browser.post(REMOVE).status_code == 303
    left = section(browser.get(SETTINGS))
    assert "There is no link. One can be made once the project is restored." in left
    assert 'id="calendar"' not in sign_in(app, viewer).get(SETTINGS).text


def test_forms_want_the_token_of_the_session(app: Flask, signed_in: FlaskClient) -> None:
    app.config.update(WTF_CSRF_ENABLED=True)
    for path in (MAKE, REMOVE):
        assert signed_in.post(path).status_code == 400
    assert Project.get(Project.slug == "shop").calendar_digest is None


def test_the_activity_log_says_it_in_words(signed_in: FlaskClient) -> None:
    signed_in.post(MAKE)
    signed_in.post(REMOVE)
    log = words(signed_in.get("/projects/shop/activity?action=calendar.*"))
    assert "made a calendar link for" in log and "removed the calendar link of" in log
