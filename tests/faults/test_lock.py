"""Somebody else holds the database: what waits not too long succeeds, what would is told when to
come back, what only reads is answered, and all goes on once it is let go. And a storm of edits of
one key: each happens, none is lost, nobody hears of a lock.

There is no If-Match: each edit names what it changes, and edits of one key happen one after the
other.
"""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests
from peewee import sqlite3

from console.server import THREADS
from tests.conftest import V1, bearer
from tests.faults.conftest import IS_LONG
from tests.server import RunningServer
from tests.test_promises import Client, make_key

pytestmark = [
    pytest.mark.service,
    pytest.mark.sqlite,
]

WRITERS = 8
SHORT_SECONDS = 3 if IS_LONG else 1
LONG_SECONDS = 30 if IS_LONG else 7
REFUSED_SECONDS, AGAIN_SECONDS = 5.5, 1  # held only in the long form
EDITS = 500 if IS_LONG else 15


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("lock") / "data"
    with RunningServer(data, LATCHKEY_KEY_LIMIT="100000") as running:
        yield running


@pytest.fixture(scope="module")
def manager(server: RunningServer) -> str:
    server.run("create-project", "--slug", "shop")
    permissions = [f"--permission={one}" for one in ("keys:manage", "audit:read")]
    return make_key(server, *permissions)


@contextmanager
def held(server: RunningServer) -> Iterator[None]:
    """Another process writes, and does not end."""
    path = server.data_dir / "latchkey.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


def create(server: RunningServer, manager: str) -> tuple[float, requests.Response]:
    """A change, and how long it took."""
    began = time.monotonic()
    url, headers = f"{server.url}{V1}/api-keys", bearer(manager)
    answer = requests.post(url, json={"name": "New"}, headers=headers, timeout=60)
    return time.monotonic() - began, answer


def test_whoever_waits_for_another_for_a_moment_succeeds(
    server: RunningServer, manager: str
) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        with held(server):
            made = [pool.submit(create, server, manager) for _ in range(WRITERS)]
            time.sleep(SHORT_SECONDS)
        assert [one.result()[1].status_code for one in made] == [201] * WRITERS


def test_whoever_would_wait_too_long_is_told_so_and_readers_are_answered(
    server: RunningServer, manager: str
) -> None:
    """And no thread is lost by it."""
    with Client(server) as client:
        client.check(manager)
        assert client.call("GET", "/audit-log", manager)["data"]  # stored before it is shown
    with Client(server) as client, ThreadPoolExecutor(WRITERS) as pool, held(server):
        until = time.monotonic() + LONG_SECONDS
        refused = [pool.submit(create, server, manager) for _ in range(WRITERS)]
        while time.monotonic() < until:
            began = time.monotonic()
            assert client.check(manager)[0] == 200
            assert client.call("GET", "/api-keys", manager)["data"]
            assert client.call("GET", "/audit-log", manager)["data"]
            if IS_LONG:
                assert time.monotonic() - began < REFUSED_SECONDS
        for took, answer in (one.result() for one in refused):
            assert answer.status_code == 503 and answer.headers["Retry-After"]
            if IS_LONG:
                assert took <= REFUSED_SECONDS
    began = time.monotonic()
    while create(server, manager)[1].status_code != 201:
        assert time.monotonic() - began < 30
    if IS_LONG:
        assert time.monotonic() - began <= AGAIN_SECONDS
    with ThreadPoolExecutor(2 * THREADS) as pool:
        made = list(pool.map(lambda _: create(server, manager), range(2 * THREADS)))
    assert {answer.status_code for _, answer in made} == {201}
    assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 200


def test_of_a_storm_of_edits_none_is_lost_and_none_is_refused(
    server: RunningServer, manager: str
) -> None:
    with Client(server) as client:
        key = client.call("POST", "/api-keys", manager, {"name": "Stormy"})["id"]
    start = threading.Barrier(WRITERS)

    def edit(number: int) -> None:
        start.wait(timeout=30)
        with Client(server) as client:
            for turn in range(EDITS):
                said = {"description": f"{number}/{turn}", "name": f"By {number}, {turn}"}
                answer = client.call("PATCH", f"/api-keys/{key}", manager, said)
                assert said.items() <= answer.items()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(edit, range(WRITERS)))
    events = edits_of(server, key)
    assert len(events) == WRITERS * EDITS
    left = [{name: new for name, (_, new) in one.items()} for one in events]
    found = [{name: old for name, (old, _) in one.items()} for one in events]
    assert found[1:] == left[:-1]  # each edit began with what the one before it had left


def edits_of(server: RunningServer, key: str) -> list[dict[str, Any]]:
    """What each edit changed, from what and to what, in order."""
    with closing(sqlite3.connect(server.data_dir / "latchkey.db")) as database:
        rows = database.execute(
            "select changes from event where target_id = ? and action = 'key.edited' order by id",
            [key],
        ).fetchall()
    return [json.loads(changes) for (changes,) in rows]
