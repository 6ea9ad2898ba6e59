"""The pages of both logs: filters in the address, one request, files, what is new by itself."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import activity, audit, check, journal, keys, search
from console.actor import Actor
from console.models import Entry, Event, Key, Project
from console.web import words
from tests.conftest import Clock, MakeKey, checked, sign_in

HTMX = {"HX-Request": "true", "HX-Current-URL": "http://localhost/projects/shop/audit-log"}
IN_DIALOG = {"HX-Request": "true", "HX-Target": "dialog",
             "HX-Current-URL": "http://localhost/projects/shop/keys"}  # fmt: skip
LOG = "/projects/shop/audit-log"
ROW = re.compile(r'href="([^"]*/audit-log/\d+[^"]*)"')


def ask(text: str, **asked: Any) -> None:
    checked(check.Request(**{"secret": text, "request_id": "req_1", "ip": "192.0.2.1", **asked}))


@pytest.fixture
def logged(make_key: MakeKey, clock: Clock, operator: Actor) -> Key:
    """The key Checkout with three requests, a minute apart: /a let in, /b and /c refused."""
    key, text = make_key(name="Checkout", ip_allowlist=["192.0.2.0/24"], permissions=["a:read"])
    ask(text, endpoint="/a", method="GET")
    clock.move("1m")
    ask(text, endpoint="/b", method="POST", ip="203.0.113.7")
    clock.move("1m")
    ask(text, endpoint="/c", method="GET", permissions=("a:read", "a:write"))
    clock.move("1m")
    return key


def shown(answer: TestResponse) -> str:
    """The paths in the table, in order."""
    return "".join(re.findall(r'class="endpoint"><code title="/(.)"', answer.text))


def links(answer: TestResponse) -> list[str]:
    return [link.replace("&amp;", "&") for link in ROW.findall(answer.text)]


# --- filters ----------------------------------------------------------------------------------

FILTERS = {
    "nothing": ("", "cba"),
    "status": ("status=denied", "cb"),
    "code": ("code=IP_NOT_ALLOWED", "b"),
    "method": ("method=GET", "ca"),
    "path": ("endpoint=/a", "a"),
    "address": ("ip=203.0.113.7", "b"),
    "key": ("key=checkout", "cba"),
    "secret": ("secret=previous", ""),
    "the last hour": ("last=1h", "cba"),
    "since a minute": ("last=range&since=2026-11-20T10:31", "cb"),
    "since a second": ("since=2026-11-20T10:31:01", "c"),
    "until": ("until=2026-11-20 10:31", "a"),
    "since a day": ("since=2026-11-20", "cba"),
    "with a zone": ("since=2026-11-20T11:32:00%2B01:00", "c"),
    "the last hour, not what stands in the fields beside": ("last=1h&since=2030-01-01", "cba"),
    "several": ("status=denied&method=GET&last=24h", "c"),
    "empty fields": ("status=&method=&ip=&since=&until=&last=", "cba"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_address_says_what_is_shown(signed_in: FlaskClient, logged: Key, name: str) -> None:
    query, expected = FILTERS[name]
    answer = signed_in.get(f"{LOG}?{query}")
    assert answer.status_code == 200
    assert shown(answer) == expected
    if "key=" not in query:
        assert (
            shown(signed_in.get(f"/projects/shop/keys/{logged.id}/audit-log?{query}")) == expected
        )


def test_filters_read_as_a_sentence_and_each_can_be_dropped(
    signed_in: FlaskClient, logged: Key
) -> None:
    query = "status=denied&method=POST&ip=203.0.113.7&endpoint=/b&key=Checkout&last=24h"
    answer = signed_in.get(f"{LOG}?{query}")
    chips = re.findall(r'<li><span>([^<]+)</span><a href="([^"]+)"', answer.text)
    assert {text for text, _ in chips} == {
        "Refused", "POST", "from 203.0.113.7", "to /b…", "with the key Checkout",
        "in the last 24 hours",
    }  # fmt: skip
    without = {text: urlsplit(url.replace("&amp;", "&")).query for text, url in chips}
    assert parse_qs(without["Refused"]).keys() == {"method", "ip", "endpoint", "key", "last"}
    assert parse_qs(without["to /b…"])["key"] == ["Checkout"]


def test_times_are_told_in_words_and_kept_in_their_fields(
    signed_in: FlaskClient, logged: Key
) -> None:
    answer = signed_in.get(f"{LOG}?since=2026-11-20T10:31&until=2026-11-21")
    assert "since 20 Nov 2026, 10:31:00 UTC" in answer.text
    assert "until 21 Nov 2026, 00:00:00 UTC" in answer.text
    assert 'value="2026-11-20T10:31:00"' in answer.text
    assert '<option value="range" selected>' in answer.text


FAULTS = [
    ("status", "zzz"), ("code", "API_KEY_MISSING"), ("method", "M" * 21), ("ip", "10.0.0.0/8"),
    ("key", "nobody"), ("secret", "old"), ("since", "yesterday"), ("until", "2026-13-01"),
    ("endpoint", "/" * 2_001),
]  # fmt: skip


@pytest.mark.parametrize(("field", "text"), FAULTS)
def test_a_filter_at_fault_is_named_beside_its_field_and_nothing_is_lost(
    signed_in: FlaskClient, logged: Key, field: str, text: str
) -> None:
    answer = signed_in.get(LOG, query_string={"method": "GET", **{field: text}})
    assert answer.status_code == 422
    assert f'id="log-{field}-error"' in answer.text
    assert f'aria-describedby="log-{field}-error"' in answer.text
    assert text in answer.text
    assert links(answer) == []


def test_a_fault_brings_the_form_again_where_only_the_list_was_asked_for(
    signed_in: FlaskClient, logged: Key
) -> None:
    headers = {**HTMX, "HX-Target": "entries"}
    answer = signed_in.get(f"{LOG}?ip=zzz&method=GET", headers=headers)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (422, "#log")
    assert '<div id="log">' in answer.text and "<html" not in answer.text
    assert 'value="zzz"' in answer.text and '<option value="GET" selected>' in answer.text
    answer = signed_in.get(f"{LOG}?method=GET", headers=headers)
    assert "HX-Retarget" not in answer.headers
    assert answer.text.startswith("<section") or '<section id="entries"' in answer.text
    assert "<form id=" not in answer.text


def test_a_forged_cursor_is_told_and_breaks_nothing(signed_in: FlaskClient, logged: Key) -> None:
    answer = signed_in.get(f"{LOG}?cursor=x")
    assert answer.status_code == 422
    assert "Cursor is not one that a list returned" in answer.text


def test_the_address_of_the_page_follows_and_that_of_a_page_below_a_dialog_does_not(
    signed_in: FlaskClient, logged: Key
) -> None:
    headers = {**HTMX, "HX-Target": "entries"}
    answer = signed_in.get(f"{LOG}?status=denied&method=&last=", headers=headers)
    assert answer.headers["HX-Replace-Url"] == f"{LOG}?status=denied"
    cursor = signed_in.get(f"{LOG}?live=1", headers=headers).headers["HX-Replace-Url"]
    assert cursor == f"{LOG}?live=1"
    key_log = f"/projects/shop/keys/{logged.id}/audit-log?status=denied"
    answer = signed_in.get(key_log, headers={**IN_DIALOG, "HX-Target": "entries"})
    assert not [name for name, _ in answer.headers if name.endswith("-Url")]


def test_pages_are_addresses_that_back_returns_to(
    signed_in: FlaskClient, logged: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.web.audit.ROWS", 2)
    first = signed_in.get(f"{LOG}?method=GET")
    assert shown(first) == "ca"
    first = signed_in.get(LOG)
    (cursor,) = re.findall(r'id="entries-next" name="cursor" value="([^"]+)"', first.text)
    second = signed_in.get(f"{LOG}?cursor={cursor}", headers={**HTMX, "HX-Target": "entries"})
    assert (shown(first), shown(second)) == ("cb", "a")
    assert second.headers["HX-Push-Url"] == f"{LOG}?cursor={cursor}"


def test_an_empty_log_says_how_to_fill_it_and_a_filtered_one_what_to_drop(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    answer = signed_in.get(LOG)
    assert "No requests yet" in answer.text
    assert "curl http://127.0.0.1:8000/api/v1/whoami -H" in answer.text
    answer = signed_in.get(f"{LOG}?status=5xx&ip=192.0.2.1")
    assert "No request matches" in answer.text
    assert answer.text.count("Remove the filter") == 2


def test_a_search_that_pauses_says_how_far_it_came_and_goes_on(
    signed_in: FlaskClient, logged: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCAN_ROWS", 2)
    answer = signed_in.get(f"{LOG}?endpoint=/a")
    assert "Nothing found yet" in answer.text
    assert "20 Nov 2026, 10:31:00 UTC" in answer.text
    (onwards,) = re.findall(r'<a class="button" href="([^"]+)"', answer.text)
    assert shown(signed_in.get(onwards.replace("&amp;", "&"))) == "a"


def test_keys_are_offered_by_name_only_with_the_whole_page(
    signed_in: FlaskClient, logged: Key
) -> None:
    assert '<option value="Checkout"></option>' in signed_in.get(LOG).text
    assert "datalist" not in signed_in.get(LOG, headers={**HTMX, "HX-Target": "entries"}).text


# --- live -------------------------------------------------------------------------------------


def poll(browser: FlaskClient, after: int, query: str = "") -> TestResponse:
    return browser.get(f"{LOG}?{query}&after={after}", headers=HTMX)


def test_a_poll_brings_what_is_newer_and_the_id_to_ask_from_next(
    signed_in: FlaskClient, logged: Key
) -> None:
    first, second, third = [row.id for row in Entry.select().order_by(Entry.id)]
    answer = poll(signed_in, first)
    assert (answer.status_code, answer.headers["Latchkey-Newest"]) == (200, str(third))
    assert shown(answer) == "cb" and "<table" not in answer.text
    assert answer.text.count('<tr class="changed"') == 2
    answer = poll(signed_in, first, "method=POST")
    assert shown(answer) == "b"
    answer = poll(signed_in, second, "method=POST")
    assert (answer.status_code, answer.text) == (204, "")
    assert answer.headers["Latchkey-Newest"] == str(third)
    assert poll(signed_in, 2**80).status_code == 204


def test_a_poll_writes_nothing_and_asks_little(
    signed_in: FlaskClient, logged: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "settle", lambda: pytest.fail("a poll stored entries"))
    assert poll(signed_in, 0).status_code == 200


def test_after_without_a_poll_is_a_page(signed_in: FlaskClient, logged: Key) -> None:
    assert "<html" in signed_in.get(f"{LOG}?after=1").text
    assert signed_in.get(f"{LOG}?after=x", headers=HTMX).status_code == 200


def test_only_the_newest_page_can_be_live(
    signed_in: FlaskClient, logged: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.web.audit.ROWS", 2)
    live = signed_in.get(f"{LOG}?live=1")
    assert " data-live>" in live.text and ">Pause</button>" in live.text
    newest = Entry.select().order_by(Entry.id.desc()).get().id
    assert f'data-newest="{newest}"' in live.text
    still = signed_in.get(LOG)
    assert " data-live>" not in still.text and ">Live</button>" in still.text
    (cursor,) = re.findall(r'id="entries-next" name="cursor" value="([^"]+)"', still.text)
    for query in (f"cursor={cursor}&live=1", "until=2026-11-20T10:31&live=1"):
        answer = signed_in.get(f"{LOG}?{query}")
        assert "data-newest" not in answer.text and "data-live" not in answer.text


def test_an_ended_session_ends_the_polls(app: Flask, logged: Key) -> None:
    answer = poll(app.test_client(), 0)
    assert (answer.status_code, answer.text) == (401, "")


# --- one request ------------------------------------------------------------------------------


@pytest.fixture
def refused(signed_in: FlaskClient, logged: Key) -> str:
    """The address of the request from an address that is not allowed."""
    (link,) = links(signed_in.get(f"{LOG}?ip=203.0.113.7"))
    return link


def test_a_request_is_told_with_all_that_is_known_and_what_to_do(
    signed_in: FlaskClient, logged: Key, refused: str
) -> None:
    page = signed_in.get(refused).text
    for words_of_it in (
        "POST /b", "403 Address not allowed", "20 Nov 2026, 10:31:00 UTC", "req_1", "203.0.113.7",
        "Private network", "Checkout", "None sent", "IP_NOT_ALLOWED", "Not reported by the service",
        "This address is not in the key&#39;s allowlist.",
        "add 203.0.113.7 to the allowlist of Checkout.", f"/keys/{logged.id}/edit",
    ):  # fmt: skip
        assert words_of_it in page, words_of_it
    assert "<html" in page and "Back to the log" in page
    (missing,) = links(signed_in.get(f"{LOG}?code=PERMISSION_DENIED"))
    assert "Checkout lacks a:write. Add it" in signed_in.get(missing).text


def test_a_request_opens_in_the_dialog_and_leads_back_only_where_the_log_was_in_it(
    signed_in: FlaskClient, logged: Key, refused: str
) -> None:
    dialog = signed_in.get(refused, headers=IN_DIALOG).text
    assert "<html" not in dialog and "Back to the log" not in dialog
    key_log = f"/projects/shop/keys/{logged.id}/audit-log?status=denied&endpoint=/b"
    log = signed_in.get(key_log, headers=IN_DIALOG)
    (link,) = links(log)
    dialog = signed_in.get(link, headers=IN_DIALOG).text
    (back,) = re.findall(r'<a href="([^"]+)" data-dialog autofocus>← Back', dialog)
    assert back.replace("&amp;", "&") == key_log


def test_the_way_back_leads_to_the_same_page_of_the_same_filters(
    signed_in: FlaskClient, logged: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.web.audit.ROWS", 1)
    first = signed_in.get(f"{LOG}?status=denied&last=24h")
    (cursor,) = re.findall(r'id="entries-next" name="cursor" value="([^"]+)"', first.text)
    second = signed_in.get(f"{LOG}?status=denied&last=24h&cursor={cursor}")
    page = signed_in.get(links(second)[0]).text
    (back,) = re.findall(r'<a href="([^"]+)">← Back', page)
    assert shown(signed_in.get(back.replace("&amp;", "&"))) == shown(second) == "b"


def test_what_leads_nowhere_of_ours_is_not_followed(
    signed_in: FlaskClient, logged: Key, refused: str
) -> None:
    path = urlsplit(refused).path
    page = signed_in.get(f"{path}?log=https://evil.example&next=//evil.example&cursor=%22%3E").text
    (back,) = re.findall(r'<a href="([^"]+)">← Back', page)
    assert back == f"{LOG}?cursor=%22%3E"


def test_somebody_elses_request_is_not_there(
    app: Flask, make_key: MakeKey, member: Actor, stranger: Actor, admin: Actor, logged: Key
) -> None:
    ask(make_key(name="own", by=member)[1], endpoint="/own")
    others, *_, own = [row.id for row in Entry.select().order_by(Entry.id)]
    seen = {
        person.name: [
            sign_in(app, person).get(f"/projects/{slug}/audit-log/{one}").status_code
            for slug, one in (("shop", own), ("shop", others), ("other", own), ("shop", 2**70))
        ]
        for person in (member, admin, stranger)
    }
    assert seen == {
        member.name: [200, 404, 404, 404],
        admin.name: [200, 200, 404, 404],
        stranger.name: [404, 404, 404, 404],
    }


def test_who_may_not_change_the_key_is_told_what_to_do_and_offered_no_button(
    app: Flask, viewer: Actor, logged: Key
) -> None:
    browser = sign_in(app, viewer)
    (link,) = links(browser.get(f"{LOG}?ip=203.0.113.7"))
    page = browser.get(link).text
    assert "to the allowlist of Checkout" in page and "/edit" not in page


def test_the_request_of_a_deleted_key_says_so(
    signed_in: FlaskClient, logged: Key, operator: Actor, refused: str
) -> None:
    keys.delete(logged.id, by=operator)
    page = signed_in.get(refused).text
    assert "The key has been deleted since." in page and logged.id in page


def test_hostile_text_of_a_client_is_shown_as_text(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    _, text = make_key()
    hostile = '"><img src=x onerror=alert(1)>'
    ask(text, endpoint=hostile, user_agent=hostile, method=hostile)
    log = signed_in.get(LOG)
    typed = signed_in.get(LOG, query_string={"endpoint": hostile, "ip": hostile})
    for page in (log.text, signed_in.get(links(log)[0]).text, typed.text):
        assert "<img" not in page and "&lt;img" in page


# --- files ------------------------------------------------------------------------------------


def files(page: str) -> Iterator[str]:
    for url in re.findall(r'<a href="([^"]+)" download', page):
        yield url.replace("&amp;", "&")


def test_what_is_filtered_is_downloaded_under_a_name_that_tells(
    signed_in: FlaskClient, logged: Key
) -> None:
    for page, name in (
        (f"{LOG}?status=denied", "audit-log-shop"),
        (f"/projects/shop/keys/{logged.id}/audit-log?status=denied", "audit-log-checkout"),
    ):
        as_csv, as_jsonl = (signed_in.get(url) for url in files(signed_in.get(page).text))
        assert as_csv.headers["Content-Disposition"] == (
            f'attachment; filename="{name}-2026-11-20.csv"'
        )
        assert as_jsonl.headers["Content-Disposition"].endswith('.jsonl"')
        assert as_csv.headers["Cache-Control"] == "no-store"
        rows = list(csv.DictReader(io.StringIO(as_csv.text)))
        assert [row["endpoint"] for row in rows] == ["/c", "/b"]
        assert [json.loads(line)["endpoint"] for line in as_jsonl.text.splitlines()] == ["/c", "/b"]


def test_a_key_whose_name_no_file_can_have_is_named_by_its_id(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, _ = make_key(name="Ключ/“..”")
    answer = signed_in.get(f"/projects/shop/keys/{key.id}/audit-log.csv")
    assert f'filename="audit-log-{key.id}-2026-11-20.csv"' in answer.headers["Content-Disposition"]


def test_a_file_is_for_who_may_read_the_log(
    app: Flask, member: Actor, stranger: Actor, logged: Key
) -> None:
    paths = ("audit-log.csv", f"keys/{logged.id}/audit-log.jsonl", "activity.csv")
    own = [sign_in(app, member).get(f"/projects/shop/{path}") for path in paths]
    assert [answer.status_code for answer in own] == [200, 404, 200]
    assert "Checkout" not in own[2].text and len(own[0].text.splitlines()) == 1
    for path in paths:
        assert sign_in(app, stranger).get(f"/projects/shop/{path}").status_code == 404
        assert app.test_client().get(f"/projects/shop/{path}").status_code == 303
    assert sign_in(app, member).get("/projects/shop/audit-log.xml").status_code == 404


def test_a_file_with_a_filter_at_fault_is_refused_before_it_begins(
    signed_in: FlaskClient, logged: Key
) -> None:
    answer = signed_in.get(f"{LOG}.csv?ip=zzz")
    assert answer.status_code == 400 and "Content-Disposition" not in answer.headers


# --- without a known key ----------------------------------------------------------------------


def test_attempts_without_a_known_key_are_told_in_words_to_owners_alone(
    app: Flask, signed_in: FlaskClient, admin: Actor, project: Project
) -> None:
    for _ in range(2):
        ask("x", ip="8.8.8.8")
    ask("", ip=None)
    page = signed_in.get(f"{LOG}/without-key").text
    assert "Not a key" in page and "No key sent" in page and "United States" in page
    assert "Without a known key" in signed_in.get(LOG).text
    browser = sign_in(app, admin)
    assert "Without a known key" not in browser.get(LOG).text
    assert browser.get(f"{LOG}/without-key").status_code == 403


def test_there_are_words_for_all_that_can_be_logged() -> None:
    assert set(words.OUTCOME_WORDS) == set(audit.CODES_LOGGED)
    assert set(words.ATTEMPT_WORDS) == set(check.CODES) - set(audit.CODES_LOGGED) - {"UNAVAILABLE"}
    assert set(words.EVENT_WORDS) == set(activity.ACTIONS)
    assert set(words.GROUP_WORDS) == set(activity.GROUPS)
    names = {*audit.ProjectEntryFilters.model_fields, *activity.EventFilters.model_fields, "last"}
    assert set(words.FILTER_WORDS) == names


@pytest.mark.parametrize("action", activity.ACTIONS)
def test_what_somebody_did_to_themselves_is_a_whole_sentence(action: str) -> None:
    done = Event(action=action, actor_name="ada@example.com", target_name="grace@example.com")
    assert words.event_words(done) == words.EVENT_WORDS[action]
    done.target_name = done.actor_name
    assert not words.event_words(done).endswith((" of", " for", " to", " the person"))


def test_what_somebody_did_to_their_own_account_says_so() -> None:
    done = Event(action="person.edited", actor_name="ada", target_name="ada")
    assert words.event_words(done) == "edited their own account"
    done.action = "person.recovery_codes_made"
    assert words.event_words(done) == "made recovery codes for their own account"
    done.action = "person.signed_in"
    assert words.event_words(done) == "signed in"


# --- activity ---------------------------------------------------------------------------------

ACTIVITY = "/projects/shop/activity"


@pytest.fixture
def changed(make_key: MakeKey, operator: Actor, owner: Actor, clock: Clock) -> Key:
    key, _ = make_key(name="Checkout", permissions=["a:read"])
    make_key(name="Other")
    clock.move("1h")
    change = {"permissions": ["a:write"], "expires_at": "2027-01-01T00:00:00Z",
              "rate_limit": {"per_minute": 5}, "description": "The till"}  # fmt: skip
    keys.edit(key.id, change, by=owner)
    clock.move("25h")
    confirmed = replace(owner, fresh_until=clock.now() + 1)
    keys.rotate(key.id, {"grace_period": "1h"}, by=confirmed)
    keys.revoke(key.id, by=operator)
    return key


def events(answer: TestResponse) -> list[str]:
    found = re.findall(r"</strong>(?: \(a key\))? ([a-z ]+?) <", answer.text)
    return [one.strip() for one in found]


EVENTS = {
    "nothing": ("", 6),
    "an action": ("action=key.revoked", 1),
    "a group": ("action=key.*", 5),
    "another group": ("action=project.*", 1),
    "who": ("actor=ada@example.com", 2),
    "a key by name": ("target=Checkout", 4),
    "the last 24 hours": ("last=24h", 2),
    "between": ("since=2026-11-20T11:00&until=2026-11-21", 1),
    "several": ("action=key.*&actor=command line&target=Checkout", 2),
}


@pytest.mark.parametrize("name", EVENTS)
def test_the_activity_is_filtered_by_its_address(
    clock: Clock, signed_in: FlaskClient, changed: Key, name: str
) -> None:
    query, count = EVENTS[name]
    assert len(events(signed_in.get(f"{ACTIVITY}?{query}"))) == count
    assert len(events(signed_in.get(f"{ACTIVITY}?target={changed.id}"))) == 4
    rows = signed_in.get(f"{ACTIVITY}.jsonl?{query}").text.splitlines()
    assert len(rows) == count


def test_an_event_says_what_was_and_what_is(signed_in: FlaskClient, changed: Key) -> None:
    page = signed_in.get(ACTIVITY).text
    for line in (
        "Permissions: added a:write; removed a:read",
        "Expires: never → 1 Jan 2027, 00:00 UTC",
        "Rate limit: none → 5 a minute",
        "Plan: unlimited → enterprise",
        "Description: none → The till",
        "Old secret works until: none → 21 Nov 2026, 13:30 UTC",
    ):
        assert f"<li>{line}</li>" in page, line
    assert "Prefix:" not in page
    assert 'title="21 Nov 2026, 12:30:00 UTC' in page


@pytest.mark.parametrize(
    ("field", "text"),
    [("action", "key.x"), ("since", "zzz"), ("actor", "x" * 300), ("target", "x\0")],
)
def test_a_filter_of_the_activity_at_fault_is_named_beside_its_field(
    signed_in: FlaskClient, changed: Key, field: str, text: str
) -> None:
    answer = signed_in.get(ACTIVITY, query_string={field: text})
    assert answer.status_code == 422
    assert f'id="log-{field}-error"' in answer.text
    headers = {"HX-Request": "true", "HX-Target": "events"}
    answer = signed_in.get(ACTIVITY, query_string={field: text}, headers=headers)
    assert answer.headers["HX-Retarget"] == "#log"


def test_an_activity_without_a_match_says_what_to_drop(
    signed_in: FlaskClient, changed: Key
) -> None:
    page = signed_in.get(f"{ACTIVITY}?actor=nobody&action=key.*").text
    assert "Nothing matches" in page
    assert page.count("Remove the filter") == 2


def test_who_acted_and_which_keys_there_are_is_offered(
    signed_in: FlaskClient, changed: Key
) -> None:
    page = signed_in.get(ACTIVITY).text
    for name in ("ada@example.com", "command line", "Checkout", "Other"):
        assert f'<option value="{name}"></option>' in page


def test_said_values_are_short_and_plain() -> None:
    assert [words.said(value) for value in (None, [], True, False, 5000, ["a", "b"], "x")] == [
        "none", "none", "yes", "no", "5,000", "a, b", "x",
    ]  # fmt: skip
    assert words.said([{"name": "a:b", "description": "x"}]) == "a:b"
    assert len(words.said("x" * 5_000)) == words.SAID_MAX_LENGTH + 1
