"""A migration that is killed after any of its statements leaves the schema as it was before a step
or as it is after it, and the next start goes on from there; and what an older version does with the
database of a newer one, and several do that start at once."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from peewee import sqlite3
from playhouse.migrations import Runner

from console import db
from tests.faults.conftest import IS_LONG
from tests.server import ROOT, RunningServer

pytestmark = pytest.mark.sqlite

STEP = 1 if IS_LONG else 23
STARTERS = 3


def shape(path: Path) -> list[tuple[str, ...]]:
    """The whole schema, and which steps are noted as done."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = database.execute("select name, sql from sqlite_master where sql > '' order by name")
        found = [(name, str(sql)) for name, sql in rows]
        if any(name == "schema_migration" for name, _ in found):
            found += database.execute("select name from schema_migration order by name").fetchall()
        return found


def migrate_and_die(path: Path, statement: int) -> bool:
    """In a process of its own, which kills itself after so many statements; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            _migrate(path, statement)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _migrate(path: Path, statement: int) -> None:
    left = statement
    database = db.open_database(f"sqlite:///{path}")

    def counted(original):  # type: ignore[no-untyped-def]
        def call(*args, **named):  # type: ignore[no-untyped-def]
            nonlocal left
            result = original(*args, **named)
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in ("execute_sql", "begin", "commit"):
        setattr(database, name, counted(getattr(database, name)))
    db.migrate(path.with_suffix(".lock"))
    db.close()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[str, ...]]]:
    """The schema before the first step, and after each."""
    path = tmp_path_factory.mktemp("stages") / "latchkey.db"
    database = db.open_database(f"sqlite:///{path}")
    runner = Runner(database, str(db.MIGRATIONS))
    found = [shape(path)]
    runner.History.create_table()
    table, index = shape(path)  # of the steps that were taken: Runner makes them one by one
    found += [[table], [table, index]]
    for step in runner.migrations():
        runner.up(step.name)
        found.append(shape(path))
    db.close()
    return found


def test_killed_after_any_statement_a_migration_has_done_whole_steps_and_goes_on(
    tmp_path: Path, stages: list[list[tuple[str, ...]]]
) -> None:
    statement, reached = 1, set()
    while True:
        path = tmp_path / f"{statement}.db"
        was_killed = migrate_and_die(path, statement)
        assert shape(path) in stages, statement
        reached.add(stages.index(shape(path)))
        assert not migrate_and_die(path, 0)
        assert shape(path) == stages[-1], statement
        path.unlink()
        if not was_killed:
            break
        statement += STEP
    assert statement > 50 and len(reached) > (len(stages) - 2 if IS_LONG else 3)


def test_of_starters_at_once_one_migrates_and_all_go_on(
    tmp_path: Path, stages: list[list[tuple[str, ...]]]
) -> None:
    """One of them is killed half-way, as happens with its container."""
    data = tmp_path / "data"
    data.mkdir()
    path = data / "latchkey.db"
    assert migrate_and_die(path, 60)
    environ = RunningServer(data).environ
    command = [sys.executable, "-m", "console", "migrate"]
    starters = [
        subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
        for _ in range(STARTERS)
    ]
    assert [one.communicate(timeout=60)[1] for one in starters] == [""] * STARTERS
    assert [one.returncode for one in starters] == [0] * STARTERS
    assert shape(path) == stages[-1]


def test_an_older_version_leaves_a_newer_database_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = data / "latchkey.db"
    assert not migrate_and_die(path, 0)
    with closing(sqlite3.connect(path)) as database:
        database.execute("insert into schema_migration (name, applied) values ('9999_later', '')")
        database.commit()
    before = shape(path)
    refused = RunningServer(data).run("serve")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and "9999_later" in refused.stderr
    assert shape(path) == before
