"""kill -9, again and again, while clients change keys and check them: every change and every check
that was answered is there afterwards, and each key has one secret that lives, never two or none.

A few rounds each time; a hundred with FAULTS=long.
"""

import hashlib
import http.client
import itertools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peewee import sqlite3

from tests.faults.conftest import IS_LONG
from tests.server import RunningServer, wait_until
from tests.test_promises import Client, check_until_killed, make_key

pytestmark = [
    pytest.mark.service,
    pytest.mark.sqlite,
]

ROUNDS = 100 if IS_LONG else 2
WRITERS, CHECKERS = 4, 4
ROUND_SECONDS = 0.5
GONE = (OSError, http.client.HTTPException)


@dataclass
class Held:
    """A key as its client was last told, and what it may be by now: the call without an answer."""

    id: str
    secret: str
    name: str
    maybe: dict[str, Any] = field(default_factory=dict)


@dataclass
class Writer:
    """A client that makes keys and changes them, one call after the other."""

    number: int
    manager: str
    keys: dict[str, Held] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    answered: int = 0

    def work(self, server: RunningServer) -> None:
        """Until the server is killed."""
        with Client(server) as client:
            try:
                for turn in itertools.count():
                    self._turn(client, turn)
            except GONE:
                return

    def _turn(self, client: Client, turn: int) -> None:
        body = {"name": f"{self.number}-{turn}"}
        made = client.call("POST", "/api-keys", self.manager, body)
        key = self.keys[made["id"]] = Held(made["id"], made["key"], made["name"])
        self._change(client, key, "rotate")
        self._change(client, key, "edit")
        self._change(client, key, "rotate")
        if turn % 3 == 0:
            self._change(client, key, "delete")

    def _change(self, client: Client, key: Held, how: str) -> None:
        path = f"/api-keys/{key.id}"
        key.maybe = {how: True}
        if how == "rotate":
            key.secret = client.call("POST", f"{path}/rotate", self.manager)["key"]
        elif how == "edit":
            key.maybe = {how: f"{key.name}, edited"}
            key.name = client.call("PATCH", path, self.manager, {"name": key.maybe[how]})["name"]
        else:
            client.call("DELETE", path, self.manager)
            self.gone.add(self.keys.pop(key.id).id)
        key.maybe = {}
        self.answered += 1


def rows(server: RunningServer, sql: str) -> list[Any]:
    with closing(sqlite3.connect(server.data_dir / "latchkey.db")) as database:
        return list(database.execute(sql))


def look_through(server: RunningServer, writers: list[Writer]) -> None:
    """Holds what the clients know against what is there; what was under way is known by now."""
    assert rows(server, "pragma integrity_check") == [("ok",)]
    assert rows(server, "pragma foreign_key_check") == []
    # Without a grace, a key has one secret: neither none nor two that open it.
    counts = """
        select k.id, count(s.digest) from key k left join secret s
        on s.key_id = k.id and (s.superseded_at is null or s.works_until > s.superseded_at)
        group by 1
    """
    assert [one for one in rows(server, counts) if one[1] != 1] == []
    names = dict(rows(server, "select id, name from key"))
    current = dict(rows(server, "select key_id, digest from secret where superseded_at is null"))
    created = rows(server, "select target_id from event where action = 'key.created'")
    told = {key for (key,) in created}
    assert names.keys() <= told
    for writer in writers:
        assert not writer.gone & names.keys()
        for key in list(writer.keys.values()):
            if "delete" in key.maybe and key.id not in names:
                del writer.keys[key.id]
                continue
            assert names[key.id] in (key.name, key.maybe.get("edit"))
            key.name = names[key.id]
            if current[key.id] != hashlib.sha256(key.secret.encode()).hexdigest():
                assert "rotate" in key.maybe, f"{key} has another secret"
                del writer.keys[key.id]  # its secret was on its way when the server was killed
            key.maybe = {}


def opens(server: RunningServer, writers: list[Writer]) -> None:
    """The secrets that were told last are the ones that pass."""
    newest = [key for writer in writers for key in list(writer.keys.values())[-5:]]
    with Client(server) as client:
        assert {client.check(key.secret)[1] for key in newest} <= {"VALID"}


def test_kill_9_loses_no_answered_change_and_no_answered_check(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", LATCHKEY_KEY_LIMIT="1000000")
    checked: list[str] = []
    with server:
        server.run("create-project", "--slug", "shop")
        busy = make_key(server)
        manager = make_key(server, "--permission", "keys:manage")
        writers = [Writer(number, manager) for number in range(WRITERS)]
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(WRITERS + CHECKERS) as pool:
                changes = [pool.submit(writer.work, server) for writer in writers]
                checks: list[Future[list[str]]] = [
                    pool.submit(check_until_killed, server, busy) for _ in range(CHECKERS)
                ]
                try:
                    time.sleep(ROUND_SECONDS)
                    wait_until(lambda: all(writer.answered for writer in writers))
                finally:
                    server.kill()
            for one in changes:
                one.result()
            checked += [one for client in checks for one in client.result()]
            look_through(server, writers)
            server.start()
            opens(server, writers)
        assert server.run("verify-activity").returncode == 0
    assert checked
    stored = [one for (one,) in rows(server, "select request_id from entry")]
    assert set(checked) <= set(stored)
    assert len(stored) == len(set(stored))
    counted = rows(server, "select sum(requests_total) from key")
    existing = rows(server, "select count(*) from entry where key_id in (select id from key)")
    assert counted == existing
