"""What is promised of a running server, whatever happens to it: each answered check has its entry,
the counts agree with the entries, and a change is obeyed by every check that begins after it.

A few rounds each time; ROUNDS=50 CHANGES=10000 proves it at length.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import pytest

from console.journal import DIRECTORY
from tests.databases import TEST_DATABASE_URL, connect
from tests.server import RunningServer, wait_until

pytestmark = pytest.mark.service

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CHANGES = int(os.environ.get("CHANGES", "200"))
CLIENTS = 8
ROUND_SECONDS = 0.4


class HasPort(Protocol):
    port: int


class Client:
    """One connection to a server, kept open."""

    def __init__(self, server: HasPort) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def check(self, secret: str, path: str = "/") -> tuple[int, str, str]:
        """The status of a check, its code, and its request's id."""
        self.connection.request("GET", "/forward-auth/nginx", headers={
            "Authorization": f"Bearer {secret}", "X-Original-Method": "GET",
            "X-Original-URL": f"http://x{path}",
        })  # fmt: skip
        answer = self.connection.getresponse()
        body = answer.read()
        code = "VALID" if answer.status == 200 else json.loads(body)["code"]
        return answer.status, code, answer.headers["X-Request-Id"]

    def call(self, method: str, path: str, secret: str, body: Any = None) -> Any:
        self.connection.request(method, f"/api/v1{path}", json.dumps(body or {}), {
            "Authorization": f"Bearer {secret}", "Content-Type": "application/json",
        })  # fmt: skip
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 201, 204), content
        return json.loads(content) if content else None


def make_key(server: RunningServer, *options: str) -> str:
    made = server.run("create-key", "--project", "shop", "--name", "CI", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def check_until_killed(server: RunningServer, secret: str) -> list[str]:
    """Checks without pause; the ids of the requests that were answered."""
    answered = []
    with Client(server) as client:
        try:
            while True:
                answered.append(client.check(secret)[2])
        except (OSError, http.client.HTTPException):
            return answered


@pytest.mark.parametrize("settings", [
    {}, {"LATCHKEY_SYNCHRONOUS": "full"}, {"LATCHKEY_AUDIT_MODE": "buffered"},
], ids=["strict", "synced", "buffered"])  # fmt: skip
def test_kill_9_loses_no_answered_check_and_miscounts_none(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    server = RunningServer(tmp_path / "data", **settings)
    answered: list[str] = []
    with server:
        server.run("create-project", "--slug", "shop")
        secret = make_key(server)
        manager = make_key(server, "--permission", "keys:write")
        with Client(server) as client:
            settings_of_key = {"name": "limited", "monthly_quota": 10**9}
            key = client.call("POST", "/api-keys", manager, settings_of_key)
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(CLIENTS) as pool:
                clients = [
                    pool.submit(check_until_killed, server, key["key"] if number % 2 else secret)
                    for number in range(CLIENTS)
                ]
                time.sleep(ROUND_SECONDS)
                server.kill()
            found = [request_id for one in clients for request_id in one.result()]
            assert found
            answered += found
            server.start()
    ask = server.query
    stored = [row[0] for row in ask("select request_id from entry")]
    assert set(answered) <= set(stored)
    assert len(stored) == len(set(stored))
    by_key = dict(ask("select key_id, count(*) from entry group by 1"))
    assert dict(ask("select id, requests_total from key where requests_total > 0")) == by_key
    for unit in ("hour", "day", "month"):
        counted = ask(f"""select subject_id, sum(allowed + denied) from usage
                          where unit = '{unit}' and subject_id like 'key_%' group by 1""")
        assert dict(counted) == by_key
    spent = ask("""select spent from limit_count where "window" = 'month'""")
    assert spent == [(by_key[key["id"]],)]
    if not TEST_DATABASE_URL:
        assert ask("pragma integrity_check") == [("ok",)]
    assert list((tmp_path / "data" / DIRECTORY).iterdir()) == []


@contextmanager
def load(server: RunningServer, secret: str) -> Iterator[list[int]]:
    """Four clients that check without pause; how many checks each has made."""
    done = threading.Event()
    made = [0] * 4

    def run(number: int) -> None:
        with Client(server) as client:
            while not done.is_set():
                assert client.check(secret)[0] == 200
                made[number] += 1

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(run, number) for number in range(4)]
        try:
            yield made
        finally:
            done.set()
    for one in running:
        one.result()


def test_a_change_is_obeyed_by_every_check_that_begins_after_it(server: RunningServer) -> None:
    server.run("create-project", "--slug", "shop")
    manager = make_key(server, "--permission", "keys:manage")
    busy = make_key(server)
    changes = 0

    def obeyed(secret: str, code: str) -> None:
        nonlocal changes
        changes += 1
        assert [one.check(secret)[1] for one in (other, client)] == [code, code], changes

    with Client(server) as client, Client(server) as other, load(server, busy) as made:
        while changes < CHANGES:
            key = client.call("POST", "/api-keys", manager, {"name": "changing"})
            path, secret = f"/api-keys/{key['id']}", key["key"]
            obeyed(secret, "VALID")
            client.call("PATCH", path, manager, {"status": "revoked"})
            obeyed(secret, "API_KEY_REVOKED")
            client.call("PATCH", path, manager, {"status": "active"})
            obeyed(secret, "VALID")
            client.call("PATCH", path, manager, {"ip_allowlist": ["192.0.2.1"]})
            obeyed(secret, "IP_NOT_ALLOWED")
            client.call("PATCH", path, manager, {"ip_allowlist": []})
            obeyed(secret, "VALID")
            rotated = client.call("POST", f"{path}/rotate", manager)
            obeyed(secret, "API_KEY_SUPERSEDED")
            obeyed(rotated["key"], "VALID")
            client.call("DELETE", path, manager)
            obeyed(rotated["key"], "API_KEY_INVALID")
    assert min(made) > 0


def test_the_log_shows_an_entry_within_a_second_and_to_its_own_process_at_once(
    server: RunningServer,
) -> None:
    server.run("create-project", "--slug", "shop")
    secret = make_key(server)
    auditor = make_key(server, "--permission", "audit:read")
    with Client(server) as client:
        client.check(secret, "/at-once")
        newest = client.call("GET", "/audit-log?limit=5", auditor)["data"]
        assert "/at-once" in [entry["endpoint"] for entry in newest]
        client.check(secret, "/soon")
    soon = "select 1 from entry where endpoint = '/soon'"
    wait_until(lambda: server.query(soon))
    assert server.query(soon) == [(1,)]


@contextmanager
def held(server: RunningServer) -> Iterator[Any]:
    """A connection that lets nobody else write an entry until it rolls back."""
    with closing(connect(server.database_url)) as other:
        other.execute("lock table entry" if TEST_DATABASE_URL else "begin immediate")
        yield other


def test_checks_go_on_while_another_process_holds_the_database(server: RunningServer) -> None:
    """And their entries are stored when it lets go."""
    server.run("create-project", "--slug", "shop")
    secret = make_key(server)
    with held(server) as other, Client(server) as client:
        answered = [client.check(secret) for _ in range(50)]
        assert other.execute("select request_id from entry").fetchall() == []
        other.rollback()
    assert [status for status, _, _ in answered] == [200] * 50
    server.stop()
    stored = {row[0] for row in server.query("select request_id from entry")}
    assert stored == {request_id for _, _, request_id in answered}


def test_what_a_killed_process_left_behind_is_stored_by_the_one_beside_it(
    server: RunningServer,
) -> None:
    server.run("create-project", "--slug", "shop")
    secret = make_key(server)
    with RunningServer(server.data_dir) as beside, Client(server) as client:
        with Client(beside) as other:
            other.check(secret)  # it has begun its journal
        with held(server) as database:
            answered = {client.check(secret)[2] for _ in range(20)}
            server.kill()
            database.rollback()
        stored = "select request_id from entry"
        wait_until(lambda: answered <= {one for (one,) in server.query(stored)})
