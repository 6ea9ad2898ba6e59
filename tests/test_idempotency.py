"""A call that is tried again: one resource, one secret, the same answer, and nothing in the
database from which a secret could be read."""

import hashlib
import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from config import Config
from console import create_app, db, idempotency, journal, keys
from console.actor import Actor
from console.errors import Unavailable
from console.models import Event, KeptAnswer, Key, Secret
from console.seal import Broken
from tests.conftest import (
    Call,
    Clock,
    MakeKey,
    assert_problem,
    at_once,
    bearer,
)
from tests.server import RunningServer, wait_until

HEADER = {"Idempotency-Key": "3f1c9a52-7f0e-4a37"}
OTHER = {"Idempotency-Key": "a4d0e6c8-11b2-4c3d"}


@pytest.fixture
def rotated(make_key: MakeKey) -> Key:
    return make_key(name="to rotate")[0]


CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "create": ("/api-keys", {"name": "CI"}, {"name": "another"}, 201),
    "rotate": ("/api-keys/{id}/rotate", {"grace_period": "1h"}, {}, 200),
    "import": (
        "/api-keys/import",
        {"keys": [{"name": "old", "sha256": "a" * 64, "prefix": "old_1"}]},
        {"keys": [{"name": "old", "sha256": "b" * 64, "prefix": "old_1"}]},
        201,
    ),
}
EACH = pytest.mark.parametrize("name", CALLS)


@EACH
def test_the_same_call_again_answers_the_same_and_does_nothing(
    call: Call, rotated: Key, name: str
) -> None:
    path, body, _, status = CALLS[name]
    first = call("POST", path.format(id=rotated.id), body, headers=HEADER)
    before = Key.select().count(), Secret.select().count(), Event.select().count()
    again = call("POST", path.format(id=rotated.id), body, headers=HEADER)
    assert (first.status_code, again.status_code) == (status, status)
    assert again.data == first.data
    assert again.headers.get("Location") == first.headers.get("Location")
    assert again.headers["Cache-Control"] == "no-store"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (Key.select().count(), Secret.select().count(), Event.select().count()) == before


@EACH
def test_another_body_under_the_same_key_is_422(call: Call, rotated: Key, name: str) -> None:
    path, body, other, _ = CALLS[name]
    call("POST", path.format(id=rotated.id), body, headers=HEADER)
    answer = call("POST", path.format(id=rotated.id), other, headers=HEADER)
    assert_problem(answer, 422, "IDEMPOTENCY_MISMATCH")


def test_another_call_under_the_same_key_is_422(call: Call, rotated: Key) -> None:
    call("POST", "/api-keys", {"name": "CI"}, headers=HEADER)
    answer = call("POST", f"/api-keys/{rotated.id}/rotate", {"name": "CI"}, headers=HEADER)
    assert_problem(answer, 422, "IDEMPOTENCY_MISMATCH")


def test_the_order_of_a_bodys_fields_makes_no_other_request(call: Call) -> None:
    first = call("POST", "/api-keys", {"name": "CI", "description": "x"}, headers=HEADER)
    again = call("POST", "/api-keys", {"description": "x", "name": "CI"}, headers=HEADER)
    assert again.json == first.json


def test_another_key_or_none_makes_another_resource(call: Call) -> None:
    made = [
        call("POST", "/api-keys", {"name": "CI"}, headers=headers).json["id"]
        for headers in (HEADER, OTHER, {}, {})
    ]
    assert len(set(made)) == 4


def test_two_callers_do_not_meet_under_the_same_key(call: Call, make_key: MakeKey) -> None:
    _, second = make_key(name="second", permissions=["keys:write"])
    mine = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER)
    theirs = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER, secret=second)
    assert theirs.status_code == 201
    assert theirs.json["key"] != mine.json["key"]


@pytest.mark.parametrize(
    "given", ["short", "x" * 15, "x" * 256, "with space in the key", "t\u00efrets-0123456789"]
)
def test_a_key_of_another_shape_is_refused_by_name(call: Call, given: str) -> None:
    answer = call("POST", "/api-keys", {"name": "CI"}, headers={"Idempotency-Key": given})
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert [one["field"] for one in problem["errors"]] == ["Idempotency-Key"]
    assert Key.select().where(Key.name == "CI").count() == 0


@pytest.mark.parametrize("length", [16, 255])
def test_sixteen_to_255_characters_are_allowed(call: Call, length: int) -> None:
    headers = {"Idempotency-Key": "~" * length}
    assert call("POST", "/api-keys", {"name": "CI"}, headers=headers).status_code == 201


def test_of_a_refusal_nothing_is_kept(call: Call) -> None:
    refused = call("POST", "/api-keys", {"name": ""}, headers=HEADER)
    assert refused.status_code == 400
    assert call("POST", "/api-keys", {"name": "CI"}, headers=HEADER).status_code == 201


def test_after_a_day_the_key_is_free_again(call: Call, clock: Clock) -> None:
    first = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER).json
    clock.move_ms(24 * 3600 * 1000 - 1)
    assert call("POST", "/api-keys", {"name": "CI"}, headers=HEADER).json == first
    clock.move_ms(1)
    later = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER).json
    assert later["id"] != first["id"]
    assert KeptAnswer.select().count() == 1


def test_who_may_write_no_more_is_not_told_the_secret_again(
    call: Call, make_key: MakeKey, operator: Actor
) -> None:
    key, secret = make_key(name="once a writer", permissions=["keys:manage"])
    call("POST", "/api-keys", {"name": "CI"}, headers=HEADER, secret=secret)
    keys.edit(key.id, {"permissions": ["keys:read"]}, by=operator)
    again = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER, secret=secret)
    assert_problem(again, 403, "PERMISSION_DENIED", "missing_permissions")


@pytest.mark.parametrize("name", ["create", "rotate"])
def test_fifty_at_once_make_one_resource_and_one_secret(
    app: Flask, make_key: MakeKey, rotated: Key, name: str
) -> None:
    path, body, _, status = CALLS[name]
    _, secret = make_key(name="Manager", permissions=["keys:manage"])
    before = Key.select().count(), Secret.select().count()

    def send(_: int) -> tuple[int, bytes]:
        answer = app.test_client().post(
            f"/api/v1{path.format(id=rotated.id)}", json=body, headers={**bearer(secret), **HEADER}
        )
        return answer.status_code, answer.data

    answers = at_once(50, send)
    assert {answer[0] for answer in answers} == {status}  # type: ignore[index]
    assert len({answer[1] for answer in answers}) == 1  # type: ignore[index]
    made = name == "create"
    assert (Key.select().count(), Secret.select().count()) == (before[0] + made, before[1] + 1)


def test_where_the_answer_cannot_be_kept_nothing_is_done(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(KeptAnswer, "create", fail)
    assert call("POST", "/api-keys", {"name": "CI"}, headers=HEADER).status_code == 503
    assert Key.select().where(Key.name == "CI").count() == 0


def test_a_new_process_gives_the_answer_of_the_one_before(call: Call, config: Config) -> None:
    """Nothing of it is in memory alone."""
    first = call("POST", "/api-keys", {"name": "CI"}, headers=HEADER)
    authorization = first.request.headers["Authorization"]
    journal.close()
    db.close()
    restarted = create_app(config, in_background=False).test_client()
    headers = {"Authorization": authorization, **HEADER}
    again = restarted.post("/api/v1/api-keys", json={"name": "CI"}, headers=headers)
    assert again.data == first.data


# --- what the database tells ------------------------------------------------------------------


def everything_stored(config: Config) -> bytes:
    """Each row of each table as text, and, of SQLite, each byte of its files."""
    tables = db.handle.get_tables()
    rows = [repr(db.handle.execute_sql(f'select * from "{one}"').fetchall()) for one in tables]
    files = [path.read_bytes() for path in config.data_dir.glob("latchkey.db*")]
    return b"\n".join([*(row.encode() for row in rows), *files])


@pytest.mark.parametrize("name", ["create", "rotate"])
def test_the_database_alone_reveals_neither_secret_nor_header(
    call: Call, rotated: Key, config: Config, name: str
) -> None:
    path, body, _, _ = CALLS[name]
    secret = call("POST", path.format(id=rotated.id), body, headers=HEADER).json["key"]
    journal.settle()
    stored = everything_stored(config)
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored
    for hidden in (secret.encode(), HEADER["Idempotency-Key"].encode(), config.secret_key.encode()):
        assert hidden not in stored
        assert hidden.hex().encode() not in stored
    row = KeptAnswer.get()
    digests = {hashlib.sha256(HEADER["Idempotency-Key"].encode()).hexdigest()}
    assert row.id not in digests


def test_what_is_kept_opens_with_the_header_the_secret_key_and_the_caller_alone(
    operator: Actor, app: Flask
) -> None:
    def once(given: str, signing_key: str, by: Actor) -> Any:
        return idempotency.once(
            given, signing_key=signing_key, request="r", by=by, work=lambda: ("prj", {"key": "s"})
        )

    assert once("0123456789abcdef", "k" * 40, operator) == ({"key": "s"}, False)
    assert once("0123456789abcdef", "k" * 40, operator) == ({"key": "s"}, True)
    kept = bytes(KeptAnswer.get().content)
    other = Actor(kind="person", id="per_1", name="x", is_owner=True)
    for attempt in (
        ("0123456789abcdeF", "k" * 40, operator),
        ("0123456789abcdef", "j" * 40, operator),
        ("0123456789abcdef", "k" * 40, other),
    ):
        assert once(*attempt) == ({"key": "s"}, False)
    row_id = KeptAnswer.select().where(KeptAnswer.content == kept).get().id
    _, seal = idempotency._derived("0123456789abcdef", "j" * 40, operator)
    with pytest.raises(Broken):
        seal.open(kept, row_id)


# --- a process that dies between its commit and its answer ------------------------------------


def raw_create(server: RunningServer, secret: str, key: str) -> socket.socket:
    """Sends a create, and does not read the answer."""
    body = b'{"name": "Retried"}'
    request = (
        f"POST /api/v1/api-keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(request.encode() + body)
    return connection


@pytest.mark.service
def test_killed_between_commit_and_answer_it_answers_the_same_key_when_asked_again(
    tmp_path: Path,
) -> None:
    with RunningServer(tmp_path / "data", LATCHKEY_KEY_LIMIT="1000") as server:
        server.run("create-project", "--slug", "shop")
        secret = server.run(
            "create-key", "--project", "shop", "--name", "Manager", "--permission", "keys:manage"
        ).stdout.strip()
        headers = [f"retry-{number}-{'x' * 16}" for number in range(5)]
        for number, header in enumerate(headers):
            connection = raw_create(server, secret, header)
            wait_until(lambda: count_of_retried(server) > number)  # noqa: B023  (called at once)
            server.kill()
            connection.close()
            server.start()
            made = newest_of_retried(server)
            answer = post_again(server, secret, header)
            assert answer["id"] == made
            assert hashlib.sha256(answer["key"].encode()).hexdigest() in digests(server)
            assert post_again(server, secret, header) == answer
        assert count_of_retried(server) == len(headers)


def database(server: RunningServer, query: str) -> list[Any]:
    return server.query(query)


def count_of_retried(server: RunningServer) -> int:
    return int(database(server, "select count(*) from key where name = 'Retried'")[0][0])


def newest_of_retried(server: RunningServer) -> str:
    query = "select id from key where name = 'Retried' order by created_at desc limit 1"
    return str(database(server, query)[0][0])


def digests(server: RunningServer) -> set[str]:
    return {digest for (digest,) in database(server, "select digest from secret")}


def post_again(server: RunningServer, secret: str, key: str) -> Any:
    request = urllib.request.Request(
        f"{server.url}/api/v1/api-keys",
        b'{"name": "Retried"}',
        {**bearer(secret), "Idempotency-Key": key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 201
        return json.loads(answer.read())
