"""Backups under load, restores that must not be, and what is there when one of them is killed.

A few lines and keys each time; FAULTS=long kills at every line, and checks more keys for longer.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from peewee import sqlite3

from config import Config
from console import backup, create_app, db, projects
from console.actor import Actor, command_line
from tests.conftest import MakeKey
from tests.faults import dying
from tests.server import ROOT, RunningServer
from tests.test_backup import checked, die, stop, tree
from tests.test_promises import Client

pytestmark = [
    pytest.mark.service,
    pytest.mark.sqlite,
]

IS_LONG = os.environ.get("FAULTS") == "long"
KEYS = 200 if IS_LONG else 10
BACKUPS = 20 if IS_LONG else 1
WRITES_PER_SECOND = 500
CLIENTS = 4


@dataclass
class Load:
    """What was answered so far: requests' ids, and the secrets of keys that were made."""

    ids: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    rate: float = 0


class Data(NamedTuple):
    config: Config
    directory: Path
    secrets: list[str]
    manager: str


@contextmanager
def load(server: RunningServer, secret: str, manager: str) -> Iterator[Load]:
    """Clients that check, 500 times a second together where the machine can, and one that makes a
    key now and then: each is a write."""
    made, done, began = Load(), threading.Event(), time.monotonic()

    def check(number: int) -> None:
        with Client(server) as client:
            while not done.is_set():
                ahead = len(made.ids) / WRITES_PER_SECOND - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)
                status, _, request_id = client.check(secret, f"/{number}")
                assert status == 200
                made.ids.append(request_id)

    def create() -> None:
        with Client(server) as client:
            while not done.wait(0.05):
                key = client.call("POST", "/api-keys", manager, {"name": "made meanwhile"})
                made.secrets.append(key["key"])

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        running = [pool.submit(check, number) for number in range(CLIENTS)]
        running.append(pool.submit(create))
        try:
            yield made
        finally:
            made.rate = len(made.ids) / (time.monotonic() - began)
            done.set()
    for one in running:
        one.result()


@pytest.fixture
def data(app: Flask, config: Config, make_key: MakeKey) -> Iterator[Data]:
    """An installation with keys, which no process uses now."""
    projects.edit("shop", {"key_limit": 10_000}, by=command_line())
    secrets = [make_key(name=str(number))[1] for number in range(KEYS)]
    manager = make_key(name="manager", permissions=["keys:write"])[1]
    stop()
    yield Data(config, config.data_dir, secrets, manager)


def test_a_backup_under_load_holds_all_that_was_answered_before_it(
    data: Data, tmp_path: Path
) -> None:
    file, fresh = tmp_path / "saved.db", tmp_path / "fresh"
    with (
        RunningServer(data.directory, LATCHKEY_SECRET_KEY=data.config.secret_key) as server,
        load(server, data.secrets[0], data.manager) as made,
    ):
        time.sleep(0.5)
        for _ in range(BACKUPS):
            answered, known = list(made.ids), list(made.secrets)
            ran = server.run("backup", str(file))
            assert ran.returncode == 0, ran.stderr
            assert len(made.ids) > len(answered)  # nobody was kept waiting
            with closing(sqlite3.connect(file)) as copy:
                assert copy.execute("pragma integrity_check").fetchall() == [("ok",)]
                found = [row[0] for row in copy.execute("select request_id from entry")]
            assert set(answered) <= set(found) and len(found) == len(set(found))
    print(f"{made.rate:.0f} checks a second, {len(made.ids)} in all, {len(made.secrets)} keys")
    if IS_LONG:
        assert made.rate > WRITES_PER_SECOND * 0.95
    fresh_config = replace(
        data.config, data_dir=fresh, database_url=f"sqlite:///{fresh}/latchkey.db"
    )
    backup.restore(fresh_config, file)
    create_app(fresh_config, in_background=False)
    secrets = [*data.secrets, data.manager, *known]
    assert len(known) > 0 and {checked(secret) for secret in secrets} == {"VALID"}


def test_five_bad_restores_are_refused_each_in_its_own_words(data: Data, tmp_path: Path) -> None:
    file, live = tmp_path / "saved.db", data.directory
    backup.make(data.config, file)
    stop()
    files = {name: tmp_path / f"{name}.db" for name in ("with-wal", "newer", "truncated")}
    for path in files.values():
        shutil.copy(file, path)
    (tmp_path / "with-wal.db-wal").write_bytes(b"stale")
    with closing(sqlite3.connect(files["newer"], isolation_level=None)) as database:
        database.execute("insert into schema_migration values (99, '0099_x', '2027-01-01')")
    os.truncate(files["truncated"], file.stat().st_size // 2)

    with RunningServer(live, LATCHKEY_SECRET_KEY=data.config.secret_key) as server:
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)  # so that it writes nothing of its own
        os.waitpid(server.process.pid, os.WUNTRACED)
        before = tree(live)
        ran = server.run("restore", str(file))
        assert (ran.returncode, ran.stdout) == (1, "") and tree(live) == before
        server.kill()
    lines = [ran.stderr.strip()]
    before = tree(live)
    other_key = replace(data.config, secret_key="o" * 40)
    for config, path in [*((data.config, path) for path in files.values()), (other_key, file)]:
        with pytest.raises(backup.BackupError) as refused:
            backup.restore(config, path)
        lines.append(str(refused.value))
        assert tree(live) == before
    expected = ("a server or another", "while it was in use", "a newer version",
                "damaged or cut short", "made with a secret key")  # fmt: skip
    for line, part in zip(lines, expected, strict=True):
        assert part in line and "\n" not in line, line
    # Distinct in their words, not only in the files that they name.
    assert len({re.sub(r"\S*\.db\S*", "", line) for line in lines}) == 5
    backup.restore(data.config, file)
    create_app(data.config, in_background=False)
    assert {checked(secret) for secret in data.secrets} == {"VALID"}


def killed(what: str, directory: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.faults.dying", what, str(directory)]
    ran = subprocess.run(
        [*command, "every" if IS_LONG else "moves"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture
def left(app: Flask, config: Config, operator: Actor, tmp_path: Path) -> Path:
    """A data directory as a killed server left it, with a WAL, and a backup from before."""
    directory = tmp_path / "dying"
    directory.mkdir()
    projects.create({"slug": "old"}, by=operator)
    assert config.secret_key == dying.SECRET_KEY
    backup.make(config, directory / "saved.db")
    db.open_database(config.database_url)
    projects.create({"slug": "later"}, by=operator)
    die(config.data_dir / "latchkey.db")
    shutil.copytree(config.data_dir, directory / "template")
    return directory


def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new_one(left: Path) -> None:
    found = killed("restore", left)
    *died, done = found
    assert len(died) > 25 and done["line"] is None
    old, new = ["later", "old"], ["old"]
    assert [one for one in found if one["database"] not in (old, new)] == []
    assert {str(one["database"]) for one in died} == {str(old), str(new)}
    # What is kept is whole as soon as it is there, and there before the new one is in its place.
    assert [one for one in found if one["kept"] not in (None, old)] == []
    assert [one for one in found if one["database"] == new and one["kept"] != old] == []
    assert [one for one in found if one["again"] != new or one["left"]] == []


def test_a_backup_that_is_killed_leaves_the_old_file_or_the_new_one(left: Path) -> None:
    *died, done = killed("backup", left)
    assert len(died) > 10 and done["line"] is None
    old, new = ["old"], ["later", "old"]
    assert {str(one["file"]) for one in died} == {str(old), str(new)}
    assert done["file"] == new and done["left"] == 0
    assert [one for one in died if one["again"] != new] == []
