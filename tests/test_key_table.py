"""The key table in the browser's door: filters as a sentence, orders, pages, files, and dialogs for
several keys. What a script adds is in tests/browser/test_key_table.py."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import check, clock, keys
from console.actor import Actor
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey, checked, sign_in

KEYS = "/projects/shop/keys"
TABLE = {"HX-Request": "true", "HX-Target": "keys"}
DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}
HTML_OF_50_ROWS_MAX = 55_000

Show = Callable[..., str]


@pytest.fixture
def show(signed_in: FlaskClient) -> Show:
    """The page of the key table, or another below it, as the owner sees it."""

    def get(path: str = "", status: int = 200, **options: Any) -> str:
        answer = signed_in.get(f"{KEYS}{path}", **options)
        assert answer.status_code == status, answer.text
        return unescape(answer.text)

    return get


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="[^"]*">([^<]*)</a>', page)


def links(page: str, words: str) -> list[str]:
    """Where the links lead that say this."""
    return re.findall(rf'<a [^>]*?href="([^"]*)"[^>]*>{re.escape(words)}<', page)


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", page)))


# --- filters, orders, pages -----------------------------------------------------------------------

QUERY = "?q=c&status=active&environment=live&owner=me&permission=tasks:read&expiring=30d&unused=90d"


def test_the_filters_read_as_a_sentence_and_each_can_be_taken_out(show: Show) -> None:
    page = show(QUERY)
    chips = re.findall(r'<li><span>([^<]*)</span><a href="([^"]*)"', page)
    assert [words for words, _ in chips] == [
        "“c”", "active", "live", "mine", "may tasks:read", "expiring within 30 days",
        "not used for 90 days",
    ]  # fmt: skip
    for name, (_, url) in zip(re.findall(r"(\w+)=", QUERY), chips, strict=True):
        assert f"{name}=" not in url
        assert url.count("=") == 6
    assert links(page, "Clear filters") == [KEYS]
    assert "Active" in re.findall(r"<li><span>([^<]*)</span>", show("?status=active"))


def test_what_the_query_says_anyway_is_not_said_again(show: Show, make_key: MakeKey) -> None:
    make_key()
    page = show("?q=&status=&sort=-created_at&limit=50&owner=&colour=red")
    assert f'hx-get="{KEYS}"' in page
    assert "All keys, newest first" in page
    assert "Clear filters" not in page


def test_the_filters_stay_while_the_order_and_the_page_change(
    show: Show, make_key: MakeKey, project: Project
) -> None:
    Project.update(key_limit=100).execute()
    for number in range(30):
        make_key(name=f"{number:02}")
    page = show("?status=active&sort=name&limit=25")
    assert names(page) == [f"{number:02}" for number in range(25)]
    assert links(page, "Name") == [f"{KEYS}?status=active&sort=-name&limit=25"]
    assert 'aria-sort="ascending"><a id="by-name"' in page
    assert page.count("aria-sort") == 1
    cursor = re.findall(r'id="keys-next" name="cursor" value="([^"]+)"', page)[0]
    second = show(f"?status=active&sort=name&limit=25&cursor={cursor}")
    assert names(second) == [f"{number:02}" for number in range(25, 30)]
    for name, value in (("status", "active"), ("sort", "name"), ("limit", "25")):
        assert f'type="hidden" name="{name}" value="{value}"' in second
    assert "cursor" not in "".join(links(second, "Name") + links(second, "Clear filters"))
    assert len(names(show("?limit=200"))) == 30
    for few in ("?limit=25&q=07", "?limit=25&q=none"):  # the form keeps it for when more are found
        assert '<input type="hidden" name="limit" form="filters" value="25">' in show(few)


def test_a_header_turns_its_order_round_at_the_second_press(show: Show, make_key: MakeKey) -> None:
    make_key()
    first = {"Name": "name", "Expires": "expires_at", "Last used": "-last_used_at"}
    for words, sort in first.items():
        assert links(show(), words) == [f"{KEYS}?sort={sort}"]
        turned = sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"
        assert links(show(f"?sort={sort}"), words) == [f"{KEYS}?sort={turned}"]
        assert links(show(f"?sort={turned}"), words) == [f"{KEYS}?sort={sort}"]


@pytest.mark.parametrize(
    "field", ["status", "permission", "expiring", "unused", "sort", "limit", "cursor"]
)
def test_a_filter_that_makes_no_sense_is_named_on_the_page(
    show: Show, make_key: MakeKey, field: str
) -> None:
    make_key()
    page = show(f"?{field}=~", status=422)
    assert re.search(rf'role="alert">{field.capitalize()} (must|is)', page)
    assert names(page) == []
    assert "No keys yet" not in page and "Nothing found" not in page
    part = show(f"?{field}=~", status=422, headers=TABLE)
    assert 'role="alert"' in part


def test_a_character_that_no_database_stores_is_refused(show: Show) -> None:
    for field in ("q", "owner"):
        assert "U+0000" in show(f"?{field}=a%00b", status=422)
    assert "U+0000" in show("/export?q=a%00b&format=csv", status=400)


def test_the_form_hears_what_its_address_is(signed_in: FlaskClient, make_key: MakeKey) -> None:
    make_key()
    asked = f"{KEYS}?q=ci&status=&sort=-created_at"
    typed = signed_in.get(asked, headers={**TABLE, "HX-Trigger": "filters"})
    assert typed.headers["HX-Replace-Url"] == f"{KEYS}?q=ci"
    assert "<html" not in typed.text
    again = signed_in.get(asked, headers={**TABLE, "HX-Trigger": "keys"})
    assert not {"HX-Replace-Url", "HX-Push-Url"} & set(again.headers.keys())


def test_the_owner_is_asked_for_where_others_keys_are_seen(
    app: Flask, show: Show, member: Actor
) -> None:
    assert '<option value="bob@example.com">' in show()
    assert 'name="owner"' not in sign_in(app, member).get(KEYS).text


def test_a_filter_of_ones_own_stays_chosen(show: Show) -> None:
    page = show("?expiring=5d&owner=gone@example.com")
    assert "<option selected>5d</option>" in page
    assert "<option selected>gone@example.com</option>" in page
    assert "expiring within 5 days" in page


def test_where_nothing_is_found_each_filter_can_be_dropped(show: Show, make_key: MakeKey) -> None:
    make_key()
    page = show("?q=zzz&status=active")
    assert "No key fits all of: “zzz”, active." in words_of(page)
    assert links(page, "Without “zzz”") == [f"{KEYS}?status=active"]
    assert links(page, "Without “active”") == [f"{KEYS}?q=zzz"]
    assert links(page, "Show all keys") == [KEYS]


def test_an_empty_table_teaches_and_offers_to_create(
    app: Flask, show: Show, member: Actor, viewer: Actor
) -> None:
    assert "No keys yet" in show()
    assert links(show(), "Create API Key") == [f"{KEYS}/new"]
    assert "No keys of yours yet" in sign_in(app, member).get(KEYS).text
    assert "Create API Key" not in sign_in(app, viewer).get(KEYS).text


def test_fifty_rows_are_light(show: Show, make_key: MakeKey, clock: Clock) -> None:
    Project.update(key_limit=100).execute()
    for number in range(50):
        make_key(name=f"Service {number:02}, production", expires_in="30d")
    Key.update(last_used_at=clock.now(), requests_total=1_000_000).execute()
    page = show()
    assert len(names(page)) == 50
    assert len(page.encode()) <= HTML_OF_50_ROWS_MAX


def test_a_row_says_what_it_is(signed_in: FlaskClient, make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(name="CI <b>", environment="test")
    checked(check.Request(secret=secret, request_id="req_1", ip="192.0.2.1"))
    keys.rotate(key.id, {"grace_period": "2h"}, by=operator)
    page = signed_in.get(KEYS).text
    row = words_of(page[page.index("<tbody") : page.index("</tbody>")])
    assert "CI <b> Test" in row
    for words in ("sk_test_", "Active", "Grace until", "Never", "just now", "–", "1"):
        assert words in row, words


# --- one key's menu -------------------------------------------------------------------------------


def test_without_scripts_the_menu_of_a_row_is_a_page(
    app: Flask, signed_in: FlaskClient, make_key: MakeKey, viewer: Actor, operator: Actor
) -> None:
    key, _ = make_key()

    def items(browser: FlaskClient) -> list[str]:
        answer = browser.post(f"{KEYS}/actions", data={"of": key.id})
        assert answer.status_code == 200
        for path in re.findall(r'<a href="([^"]*)"[^>]* role="menuitem"', answer.text):
            assert browser.get(path).status_code == 200
        return re.findall(r'role="menuitem">([^<]*)<', answer.text)

    assert items(signed_in) == ["Edit", "Rotate", "Revoke", "View Audit Log", "Delete"]
    keys.revoke(key.id, by=operator)
    assert items(signed_in) == ["Edit", "Rotate", "Enable", "View Audit Log", "Delete"]
    assert items(sign_in(app, viewer)) == ["View Audit Log"]
    assert signed_in.post(f"{KEYS}/actions", data={"of": "x"}).status_code == 404


# --- several keys ---------------------------------------------------------------------------------


def test_a_revocation_is_told_counted_and_then_done(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    made = {name: make_key(name=name) for name in ("Mailer", "Checkout", "CI", "Old")}
    for name in ("Mailer", "Checkout"):
        checked(check.Request(secret=made[name][1], request_id="req_1", ip="203.0.113.7"))
        clock.move_ms(12_000)
    keys.revoke(made["Old"][0].id, by=operator)
    chosen = {"key": [key.id for key, _ in made.values()]}
    told = words_of(signed_in.post(f"{KEYS}/revoke", data=chosen, headers=DIALOG).text)
    assert "Revoke 3 keys" in told
    assert "2 of them were used in the last 24 hours; the newest call was 12 s ago" in told
    assert "by Checkout from 203.0.113.7. 1 is revoked already and stays as it is." in told
    assert Event.select().where(Event.action == "key.revoked").count() == 1
    done = signed_in.post(f"{KEYS}/revoke", data={**chosen, "confirmed": "1"}, headers=DIALOG)
    assert done.status_code == 204
    assert json.loads(done.headers["HX-Trigger"])["notice"]["words"] == "3 keys revoked"
    assert Key.select().where(Key.revoked_at.is_null()).count() == 0
    again = signed_in.post(f"{KEYS}/revoke", data=chosen).text
    assert "All of these keys are revoked already." in again
    assert 'name="confirmed"' not in again


def test_the_first_ten_names_are_told_and_how_many_more(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    ids = [make_key(name=f"Service {number:02}")[0].id for number in range(17)]
    told = signed_in.post(f"{KEYS}/revoke", data={"key": ids}, headers=DIALOG).text
    shown = re.findall(r"<li>([^<]*)</li>", told)
    assert shown == [f"Service {number:02}" for number in range(10)]
    assert "and 7 more" in told
    assert len(re.findall(r'type="hidden" name="key"', told)) == 17


def test_an_extension_is_told_with_each_choice_and_then_done(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    ends = {"ended": "1d", "sooner": "30d", "later": "2y", "never": None, "never, too": None}
    ids = [make_key(name=name, expires_in=length)[0].id for name, length in ends.items()]
    clock.move("2d")

    def told(part: str = "dialog", **form: str) -> str:
        headers = {"HX-Request": "true", "HX-Target": part}
        answer = signed_in.post(f"{KEYS}/extend", data={"key": ids, **form}, headers=headers)
        assert answer.status_code == 200
        return words_of(answer.text)

    first = told()
    assert "Extend 5 keys" in first
    assert "2 work until 22 Feb 2027, 10:30 UTC." in first
    assert "1 of them has expired and works again." in first
    assert "1 ends then or later already and stays as it is." in first
    assert "2 never expire and stay as they are." in first
    again = told("told", expiration="date", expires_on="2029-01-01")
    assert "3 work until 1 Jan 2029, 23:59 UTC." in again
    assert "Extend" not in again
    assert "UTC" not in told("told", expiration="date", expires_on="")  # not typed yet
    form = {"key": ids, "expiration": "1y", "confirmed": "1"}
    done = signed_in.post(f"{KEYS}/extend", data=form, headers=DIALOG)
    assert json.loads(done.headers["HX-Trigger"])["notice"]["words"] == "2 keys extended"
    assert Event.select().where(Event.action == "key.edited").count() == 2


@pytest.mark.parametrize(
    "form, words",
    [
        ({"expiration": "date", "expires_on": ""}, "Choose a date."),
        ({"expiration": "date", "expires_on": "2020-01-01"}, "Must be in the future"),
        ({"expiration": "date", "expires_on": "soon"}, "Must be a time with its zone"),
        ({"expiration": "soon"}, "Must be a length such as"),
    ],
)
def test_an_end_that_makes_no_sense_is_told_with_what_was_typed(
    signed_in: FlaskClient, make_key: MakeKey, form: dict[str, str], words: str
) -> None:
    key, _ = make_key(expires_in="1d")
    answer = signed_in.post(f"{KEYS}/extend", data={"key": key.id, "confirmed": "1", **form})
    assert answer.status_code == 422
    assert words in answer.text
    if form.get("expires_on"):
        assert f'value="{form["expires_on"]}"' in answer.text
    assert Event.select().where(Event.action == "key.edited").count() == 0


def test_a_full_project_is_told_in_the_dialog(
    signed_in: FlaskClient, make_key: MakeKey, project: Project, clock: Clock
) -> None:
    key, _ = make_key(expires_in="1d")
    clock.move("2d")
    Project.update(key_limit=1).where(Project.id == project.id).execute()
    make_key()
    form = {"key": key.id, "expiration": "1y", "confirmed": "1"}
    answer = signed_in.post(f"{KEYS}/extend", data=form, headers=DIALOG)
    assert answer.status_code == 409
    assert "1 active keys, and 1 are allowed" in answer.text
    assert "Extend 1 key" in answer.text


def test_without_scripts_a_change_leads_back_to_the_table(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    preview = signed_in.post(f"{KEYS}/revoke", data={"key": key.id})
    assert "<html" in preview.text
    done = signed_in.post(f"{KEYS}/revoke", data={"key": key.id, "confirmed": "1"})
    assert (done.status_code, done.location) == (303, KEYS)
    assert "1 key revoked" in signed_in.get(KEYS).text


@pytest.mark.parametrize("operation", ["revoke", "extend", "export"])
def test_nothing_chosen_is_told(signed_in: FlaskClient, project: Project, operation: str) -> None:
    answer = signed_in.post(f"{KEYS}/{operation}", headers=DIALOG)
    assert answer.status_code == 400
    assert "Choose 1 to 200 keys." in answer.text


@pytest.mark.parametrize("operation", ["revoke", "extend"])
def test_who_may_not_change_keys_is_offered_and_given_nothing(
    app: Flask, viewer: Actor, member: Actor, make_key: MakeKey, operation: str
) -> None:
    key, _ = make_key(expires_in="1d")
    browser = sign_in(app, viewer)
    assert f'formaction="{KEYS}/{operation}"' not in browser.get(KEYS).text
    assert f'formaction="{KEYS}/export"' in browser.get(KEYS).text
    form = {"key": key.id, "expiration": "1y", "confirmed": "1"}
    assert browser.post(f"{KEYS}/{operation}", data=form).status_code == 403
    assert sign_in(app, member).post(f"{KEYS}/{operation}", data=form).status_code == 404
    assert Event.select().where(Event.action.in_(("key.revoked", "key.edited"))).count() == 0


# --- files ----------------------------------------------------------------------------------------


def test_the_file_of_a_list_has_each_key_that_its_filters_find(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor
) -> None:
    made = [make_key(name=name, permissions=["a:b", "c:d"]) for name in ("One", '=1+1"', "Two")]
    keys.revoke(made[2][0].id, by=operator)
    told = signed_in.get(f"{KEYS}/export?status=active", headers=DIALOG).text
    assert "Export 2 keys" in told
    assert "Of those that fit: Active." in told
    answer = signed_in.get(f"{KEYS}/export?status=active&format=csv")
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Cache-Control"] == "no-store"
    day = clock.iso(clock.now())[:10]
    disposition = f'attachment; filename="keys-shop-{day}.csv"'
    assert answer.headers["Content-Disposition"] == disposition
    first, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert first[:2] == ["id", "name"]
    assert set(first) == set(keys.as_dict(made[0][0]))
    shown = [dict(zip(first, row, strict=True)) for row in rows]
    assert [row["name"] for row in shown] == ["'=1+1\"", "One"]
    assert shown[1]["id"] == made[0][0].id
    assert shown[1]["permissions"] == "a:b c:d"
    lines = signed_in.get(f"{KEYS}/export?format=jsonl").text.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["Two", '=1+1"', "One"]
    assert json.loads(lines[2]) == json.loads(json.dumps(keys.as_dict(made[0][0])))
    for _, secret in made:
        assert secret not in answer.text + "".join(lines)


def test_the_file_of_the_keys_chosen_has_those_alone(
    signed_in: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    made = [make_key(name=name)[0] for name in ("b", "a", "c")]
    chosen = {"key": [key.id for key in made[:2]]}
    told = signed_in.post(f"{KEYS}/export", data=chosen, headers=DIALOG).text
    assert "Export 2 keys" in told
    answer = signed_in.post(f"{KEYS}/export", data={**chosen, "format": "jsonl"})
    assert [json.loads(line)["name"] for line in answer.text.splitlines()] == ["a", "b"]
    elsewhere, _ = make_key(project="other")
    foreign = {"key": [made[0].id, elsewhere.id], "format": "csv"}
    assert signed_in.post(f"{KEYS}/export", data=foreign).status_code == 404
    assert signed_in.post(f"{KEYS}/export", data={**chosen, "format": "xml"}).status_code == 404


def test_a_filter_that_makes_no_sense_stops_the_file(
    signed_in: FlaskClient, project: Project
) -> None:
    for path in ("export?status=x&format=csv", "export?status=x", "export?expiring=x&format=jsonl"):
        answer = signed_in.get(f"{KEYS}/{path}")
        assert answer.status_code == 400, path
        assert "must be" in answer.text


def test_a_member_exports_their_own_keys(app: Flask, member: Actor, make_key: MakeKey) -> None:
    make_key(name="own", by=member)
    others, _ = make_key(name="others")
    browser = sign_in(app, member)
    answer = browser.get(f"{KEYS}/export?format=jsonl")
    assert [json.loads(line)["name"] for line in answer.text.splitlines()] == ["own"]
    assert browser.post(f"{KEYS}/export", data={"key": others.id}).status_code == 404


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_large_file_takes_no_more_memory_than_a_small_one(
    signed_in: FlaskClient, make_key: MakeKey, form: str
) -> None:
    first, _ = make_key(name="first")
    row = Key.select().where(Key.id == first.id).dicts().get()
    row = {name: value for name, value in row.items() if not name.endswith("_order")}

    def fill(number: int) -> None:
        at = Key.select().count()
        for start in range(at, at + number, 500):
            rows = [{**row, "id": f"key_{n:020}"} for n in range(start, start + 500)]
            Key.insert_many(rows).execute()

    def peak() -> int:
        """The most memory that is taken while the whole file is read, in bytes."""
        tracemalloc.start()
        answer = signed_in.get(f"{KEYS}/export?format={form}", buffered=False)
        lines = sum(piece.count(b"\n") for piece in answer.iter_encoded())
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert lines >= Key.select().count()
        return taken

    fill(1_000)
    peak()
    small = peak()
    fill(9_000)
    assert peak() < 1.5 * small
