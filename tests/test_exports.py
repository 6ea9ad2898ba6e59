"""Logs as files: every row once, safe in a spreadsheet, and however many there are, no memory."""

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from console import audit, db, exports
from console.actor import Actor
from console.check import Request
from console.models import Entry, Key
from tests.conftest import V1, Call, MakeKey, assert_problem, bearer, checked

COLUMNS = [
    "id", "at", "key_id", "method", "endpoint", "ip", "country", "status", "code", "user_agent",
    "request_id", "secret", "permissions", "latency_ms",
]  # fmt: skip


def enter(key: Key, count: int, **more: Any) -> None:
    """So many entries of the key, as the database has them."""
    first = {
        "at": 1_795_000_000_000, "project_id": key.project_id, "key_id": key.id,
        "secret": "current", "method": "GET", "endpoint": "/tasks", "ip": "203.0.113.7",
        "country": "DE", "status": 200, "code": "VALID", "user_agent": "curl/8",
        "request_id": "req_1", "permissions": [], **more,
    }  # fmt: skip
    Entry.insert_many([first] * count).execute()


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.fixture
def logged(make_key: MakeKey) -> Key:
    """A key with 450 entries: more than a piece, more than a page."""
    key, _ = make_key(name="logged")
    enter(key, 450)
    return key


@pytest.mark.parametrize("path", ["/api-keys/{}/audit-log", "/audit-log"])
def test_csv_has_a_line_of_names_and_every_entry_newest_first(
    call: Call, logged: Key, path: str
) -> None:
    answer = call("GET", path.format(logged.id) + "?format=csv")
    assert answer.status_code == 200
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Cache-Control"] == "no-store"
    name = logged.id if "api-keys" in path else "shop"
    assert answer.headers["Content-Disposition"] == (f'attachment; filename="audit-log-{name}.csv"')
    names, *rows = rows_of(answer.text)
    assert names == COLUMNS
    mine = [int(row[0]) for row in rows if row[2] == logged.id]
    assert len(mine) == 450 and mine == sorted(mine, reverse=True)
    assert rows[-1][1:] == [
        "2026-11-18T11:06:40Z", logged.id, "GET", "/tasks", "203.0.113.7", "DE", "200", "VALID",
        "curl/8", "req_1", "current", "", "",
    ]  # fmt: skip
    assert answer.text.count("\r\n") == len(rows) + 1


def test_json_lines_are_the_objects_of_the_list(call: Call, logged: Key) -> None:
    answer = call("GET", f"/api-keys/{logged.id}/audit-log?format=jsonl")
    assert answer.content_type == "application/jsonl"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    listed = call("GET", f"/api-keys/{logged.id}/audit-log?limit=200").json["data"]
    assert len(lines) == 450 and lines[:200] == listed


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_is_filtered_is_exported_and_nothing_else(call: Call, logged: Key, form: str) -> None:
    enter(logged, 3, status=429, method="POST")
    path = f"/api-keys/{logged.id}/audit-log?format={form}"
    assert call("GET", f"{path}&status=4xx").text.count("req_1") == 3
    assert call("GET", f"{path}&method=POST&status=allowed").text.count("req_1") == 0
    assert call("GET", f"{path}&limit=7").text.count("req_1") == 7


def test_an_export_goes_on_from_a_cursor(call: Call, logged: Key) -> None:
    path = f"/api-keys/{logged.id}/audit-log"
    cursor = call("GET", f"{path}?limit=50").json["next_cursor"]
    assert call("GET", f"{path}?format=jsonl&cursor={cursor}").text.count("\n") == 400


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_of_nothing_is_an_empty_file(call: Call, make_key: MakeKey, form: str) -> None:
    key, _ = make_key()
    answer = call("GET", f"/api-keys/{key.id}/audit-log?format={form}")
    assert answer.text == {"csv": ",".join(COLUMNS) + "\r\n", "jsonl": ""}[form]


def test_the_activity_is_exported_too(call: Call, make_key: MakeKey) -> None:
    make_key(name="=made")
    names, *rows = rows_of(call("GET", "/activity?format=csv").text)
    assert names == [
        "id", "at", "action", "project_id", "actor", "target", "changes", "ip", "request_id"
    ]  # fmt: skip
    assert rows[0][2] == "key.created"
    assert json.loads(rows[0][5])["name"] == "=made"
    line = call("GET", "/activity?format=jsonl").text.splitlines()[0]
    assert json.loads(line) == call("GET", "/activity?limit=1").json["data"][0]


@pytest.mark.parametrize(
    ("query", "field"),
    [("format=xml", "format"), ("format=csv&cursor=x", "cursor"), ("format=csv&status=9", "status"),
     ("format=jsonl&limit=0", "limit"), ("format=csv&format=csv", "format")],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_file_begins(
    call: Call, logged: Key, query: str, field: str
) -> None:
    answer = call("GET", f"/api-keys/{logged.id}/audit-log?{query}")
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert [one["field"] for one in problem["errors"]] == [field]


@pytest.mark.parametrize("form", ["json", "csv", "jsonl"])
def test_somebody_elses_log_is_not_there_in_any_form(
    client: FlaskClient, logged: Key, make_key: MakeKey, other_project: Any, operator: Actor,
    form: str,
) -> None:  # fmt: skip
    _, foreign = make_key(project="other", permissions=["admin:*"])
    path = f"{V1}/api-keys/{logged.id}/audit-log?format={form}"
    assert_problem(client.get(path, headers=bearer(foreign)), 404, "NOT_FOUND")
    _, lacking = make_key(permissions=["keys:manage"])
    answer = client.get(path, headers=bearer(lacking))
    assert_problem(answer, 403, "PERMISSION_DENIED", "missing_permissions")


FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "=HYPERLINK(\"http://x\")", "  =1",
    "\uff1d1", "-2+3+cmd|' /C calc'!A0",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    rows = [{"name": text, "list": [text], "number": -1, "none": None}]
    lines = rows_of(b"".join(exports.as_csv(rows, ["name", "list", "number", "none"])).decode())
    assert lines[1] == [f"'{text}", f"'{text}", "-1", ""]


@pytest.mark.parametrize("text", ["", "plain", 'a "b" c', "a,b", "a\nb", "'=1", "x=1", "\u202e"])
def test_any_other_cell_is_kept_to_the_letter(text: str) -> None:
    lines = rows_of(b"".join(exports.as_csv([{"name": text}], ["name"])).decode())
    assert lines[1:] == ([[text]] if text else [[""]])


def test_a_client_that_calls_itself_a_formula_is_harmless_in_the_file(
    call: Call, make_key: MakeKey
) -> None:
    key, secret = make_key()
    checked(Request(secret=secret, request_id="r", endpoint="=1+1", user_agent="@SUM(A1)"))
    (_, row) = rows_of(call("GET", f"/api-keys/{key.id}/audit-log?format=csv").text)
    assert (row[4], row[9]) == ("'=1+1", "'@SUM(A1)")


def test_entries_added_meanwhile_are_not_in_the_file_and_none_comes_twice(
    logged: Key, operator: Actor
) -> None:
    entries = audit.all_of_key(logged.id, by=operator, filters={}, cursor=None, most=None)
    seen = []
    for number, entry in enumerate(entries):
        seen.append(entry.id)
        if number % 100 == 0:
            enter(logged, 5, request_id="req_later")
    assert len(seen) == len(set(seen)) == 450


def test_a_file_that_is_not_whole_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield from [{"name": "x"}] * 300
        raise OSError("the disk is gone")

    text = b"".join(exports.as_csv(rows(), ["name"])).decode()
    with pytest.raises(csv.Error):
        list(csv.reader(io.StringIO(text, newline=""), strict=True))
    lines = b"".join(exports.as_jsonl(rows())).decode().splitlines()
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(lines[-1])
    assert [record.message for record in caplog.records] == ["an export broke off"] * 2


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_large_export_takes_no_more_memory_than_a_small_one(
    client: FlaskClient, make_key: MakeKey, form: str
) -> None:
    key, _ = make_key(name="busy")
    _, secret = make_key(name="reader", permissions=["audit:read"])
    path = f"{V1}/api-keys/{key.id}/audit-log?format={form}"

    def peak() -> int:
        """The most memory that is taken while the whole file is read, in bytes."""
        tracemalloc.start()
        answer = client.get(path, headers=bearer(secret), buffered=False)
        lines = sum(piece.count(b"\n") for piece in answer.iter_encoded())
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert lines >= Entry.select().where(Entry.key_id == key.id).count()
        return taken

    enter(key, 1_000)
    enter(key, 1_000)
    peak()
    small = peak()
    for _ in range(28):
        enter(key, 1_000)
    assert peak() < 1.5 * small


def test_a_thread_keeps_no_connection_that_a_server_counts(logged: Key) -> None:
    """Each long answer has a thread of its own, of which there may be many."""
    assert b"".join(exports.as_jsonl([{"a": Entry.select().count()}])) == b'{"a":450}\n'
    assert db.handle.is_closed() != db.is_sqlite()
