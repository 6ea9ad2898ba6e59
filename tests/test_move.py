"""`move`: an installation goes from SQLite to PostgreSQL whole, or not at all."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from peewee import sqlite3

from tests import databases
from tests.server import RunningServer
from tests.test_promises import Client, make_key

pytestmark = [
    pytest.mark.service,
    pytest.mark.postgresql,
]


@pytest.fixture
def target() -> Iterator[str]:
    """An empty database."""
    url = databases.another_url("moved")
    databases.make_database(url)
    yield url
    databases.drop_database(url)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an installation in SQLite, the example's data in it."""
    directory = tmp_path_factory.mktemp("example")
    filled = at(directory)
    assert filled.run("demo").returncode == 0
    return directory


def at(directory: Path) -> RunningServer:
    url = f"sqlite:///{directory}/a.db"
    return RunningServer(directory / "data", LATCHKEY_DATABASE_URL=url)


@pytest.fixture
def source(example: Path, tmp_path: Path) -> RunningServer:
    """The same, of this test's own; its server is not started."""
    shutil.copytree(example, tmp_path, dirs_exist_ok=True)
    return at(tmp_path)


def moved(source: RunningServer, target: str) -> subprocess.CompletedProcess[str]:
    return source.run("move", "--to", target)


def test_all_is_there_afterwards(source: RunningServer, target: str, tmp_path: Path) -> None:
    assert source.run("create-project", "--slug", "shop").returncode == 0
    made = source.run("create-key", "--project", "shop", "--name", "Ü", "--permission", "a:b")
    secret = made.stdout.strip()
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        tables = [t for (t,) in database.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        )]  # fmt: skip
        counts = {t: database.execute(f'select count(*) from "{t}"').fetchone()[0] for t in tables}
    told = moved(source, target)
    assert (told.returncode, told.stderr) == (0, "")
    lines = dict(line.split()[:2] for line in told.stdout.splitlines()[:-2])
    known = {name: int(count.replace(",", "")) for name, count in lines.items()}
    assert known["entry"] > 1_000 and known["project"] > 1
    assert known == {name: counts[name] for name in known}
    assert set(counts) - set(known) == {"change", "schema_migration"}

    server = RunningServer(source.data_dir, LATCHKEY_DATABASE_URL=target)
    assert server.run("verify-activity").returncode == 0
    with server, Client(server) as client:
        assert client.check(secret)[1] == "VALID"  # and ids go on behind the others
        manager = make_key(server, "--permission", "keys:manage")
        key = client.call("POST", "/api-keys", manager, {"name": "new"})
        assert client.check(key["key"])[0] == 200
    assert databases.ask(target, "select count(*) from entry") == [(known["entry"] + 3,)]


def test_what_is_not_empty_is_refused_and_left_alone(source: RunningServer, target: str) -> None:
    other = RunningServer(source.data_dir, LATCHKEY_DATABASE_URL=target)
    assert other.run("create-project", "--slug", "theirs").returncode == 0
    told = moved(source, target)
    assert told.returncode == 1
    assert "holds an installation already: name one that is empty" in told.stderr
    assert databases.ask(target, "select slug from project") == [("theirs",)]


def test_what_postgresql_cannot_hold_stops_all_of_it(
    source: RunningServer, target: str, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("update letter set text = 'a' || char(0)")
        database.execute("update webhook set url = 'a' || char(0)")
        database.execute("update project set name = 'a' || char(0) where slug = 'shop'")
        database.execute("update event set actor_name = 'a' || char(0)")
        database.commit()
    told = moved(source, target)
    assert told.returncode == 1 and "has a NUL character in" in told.stderr
    assert told.stderr.count("\n") == 1
    assert databases.ask(target, "select count(*) from project") == [(0,)]
    assert databases.ask(target, "select count(*) from key") == [(0,)]


def test_it_goes_from_sqlite_to_postgresql_alone(source: RunningServer, target: str) -> None:
    told = source.run("move", "--to", "sqlite:////tmp/other.db")
    assert told.returncode == 2 and "to postgresql://" in told.stderr
    other = RunningServer(source.data_dir, LATCHKEY_DATABASE_URL=target)
    told = other.run("move", "--to", target)
    assert told.returncode == 2 and "It goes from sqlite:///" in told.stderr


def test_nobody_may_use_the_file_meanwhile(source: RunningServer, target: str) -> None:
    with source:
        told = moved(source, target)
    assert told.returncode == 1 and "a server or another command uses" in told.stderr
    assert databases.ask(target, "select count(*) from pg_tables where tablename = 'key'") == [(0,)]


def test_a_database_of_another_program_is_refused_and_left_alone(
    source: RunningServer, target: str
) -> None:
    databases.ask(target, "create table project (a text)")
    told = moved(source, target)
    assert told.returncode == 1 and "another program's tables: name one that is" in told.stderr
    found = databases.ask(target, "select tablename from pg_tables where schemaname = 'public'")
    assert found == [("project",)]


def test_an_address_that_makes_no_sense_is_named_by_its_option(source: RunningServer) -> None:
    told = moved(source, "mysql://x")
    assert told.returncode == 2 and "--to (not shown) makes no sense: sqlite" in told.stderr
