"""The database: its schema, migrations under a lock, whole transactions, lasting connections."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peewee
import pytest
from flask import Flask
from playhouse.migrations import Runner

from config import Config
from console import chain, db
from console.models import TABLES, Key, Link, Membership, Person, Project, Secret, Session
from tests import databases
from tests.conftest import MakeDatabase, MakeKey, at_once
from tests.databases import TEST_DATABASE_URL
from tests.server import ROOT

STARTERS = 10


# --- schema ---------------------------------------------------------------------------------


def shape(database: peewee.Database) -> dict[str, Any]:
    """Every table's columns, indexes and foreign keys, as the database tells them."""
    if isinstance(database, peewee.SqliteDatabase):
        return dict(
            database.execute_sql(
                "select name, sql from sqlite_master where type != 'trigger'"
            ).fetchall()
        )
    indexes = database.execute_sql(
        "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public'"
    ).fetchall()
    return {
        table: (
            sorted((c.name, c.data_type, c.null) for c in database.get_columns(table)),
            sorted(
                (name, sql.replace(" ON ONLY ", " ON ")) for t, name, sql in indexes if t == table
            ),
            sorted((f.column, f.dest_table, f.on_delete) for f in database.get_foreign_keys(table)),
        )
        for table in database.get_tables()
    }


def has_no_day(table: str) -> bool:
    return not table.startswith("entry_")


def test_the_migrated_schema_is_the_models(make_database: MakeDatabase, tmp_path: Path) -> None:
    modelled = db.open_database(make_database())
    modelled.create_tables(TABLES)
    expected = shape(modelled)
    db.close()
    migrated = db.open_database(make_database())
    db.migrate(tmp_path / "lock")
    found = {name: of for name, of in shape(migrated).items() if "schema_migration" not in name}
    if TEST_DATABASE_URL:  # which entries lie in partitions of, by the instant
        indexes = expected["entry"][1]
        name, by_id = next(one for one in indexes if one[0] == "entry_pkey")
        indexes.remove((name, by_id))
        indexes.append((name, by_id.replace("(id)", "(id, at)")))
        indexes.sort()
        found = {name: of for name, of in found.items() if has_no_day(name)}
    assert found == expected


def test_migrating_again_changes_nothing(make_database: MakeDatabase, tmp_path: Path) -> None:
    database = db.open_database(make_database())
    assert db.migrate(tmp_path / "lock") == [path.stem for path in sorted(db.MIGRATIONS.glob("0*"))]
    before = shape(database)
    assert db.migrate(tmp_path / "lock") == []
    assert shape(database) == before


def test_a_newer_schema_is_refused_and_nothing_is_changed(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    database = db.open_database(make_database())
    history = Runner(database, str(db.MIGRATIONS)).History
    history.create_table()
    history.create(name="9999_of_the_future")
    before = shape(database)
    with pytest.raises(db.NewerSchema, match="written by a newer version .*9999_of_the_future"):
        db.migrate(tmp_path / "lock")
    assert shape(database) == before
    assert [row.name for row in history.select()] == ["9999_of_the_future"]


def test_after_a_refusal_the_lock_is_free(make_database: MakeDatabase, tmp_path: Path) -> None:
    database = db.open_database(make_database())
    history = Runner(database, str(db.MIGRATIONS)).History
    history.create_table()
    history.create(name="9999_of_the_future")
    with pytest.raises(db.NewerSchema):
        db.migrate(tmp_path / "lock")
    history.delete().execute()
    done: list[list[str]] = []
    other = threading.Thread(
        target=lambda: (done.append(db.migrate(tmp_path / "lock")), db.close())
    )
    other.start()
    other.join(30)
    assert done and done[0]


STARTER = """
import sys
from pathlib import Path
from console import db
sys.stdin.readline()
db.open_database(sys.argv[1])
print(db.migrate(Path(sys.argv[2])))
"""


def put(table: str, **given: Any) -> None:
    """A row, with something in every column that must have it."""
    columns = {
        column.name: {"integer": 0, "bigint": 0, "boolean": False}.get(
            column.data_type.lower(), "[]" if "json" in column.data_type.lower() else ""
        )
        for column in db.handle.get_columns(table)
        if not column.null and column.default is None and not column.name.endswith("_order")
    }
    columns |= given
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join([db.handle.param] * len(columns))
    db.handle.execute_sql(f'insert into "{table}" ({names}) values ({marks})', (*columns.values(),))


def test_an_upgrade_knows_who_made_a_key_and_saw_its_secret_before(
    make_database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what was recorded by the version without these columns."""
    before = tmp_path / "before"
    before.mkdir()
    for step in sorted(db.MIGRATIONS.glob("0*"))[:5]:
        shutil.copy(step, before)
    db.open_database(make_database())
    with monkeypatch.context() as patch:
        patch.setattr(db, "MIGRATIONS", before)
        db.migrate(tmp_path / "lock")
    put("project", id="prj_1", slug="shop", name="Shop")
    for person in ("per_a", "per_b"):
        put("person", id=person, email=f"{person}@example.com", name=person)
    for key in ("key_1", "key_2"):
        put("key", id=key, project_id="prj_1", name=key, created_at=1_000, owner_id="per_a")
    put("secret", digest="old", key_id="key_1", created_at=1_000, superseded_at=9_000)
    put("secret", digest="new", key_id="key_1", created_at=9_000)
    put("secret", digest="robots", key_id="key_2", created_at=2_000)
    events = [
        (1, 1_000, "key.created", "key_1", "person", "per_a"),
        (2, 2_000, "key.created", "key_2", "key", "key_1"),
        (3, 9_001, "key.rotated", "key_1", "person", "per_b"),
    ]
    for number, at, action, key, kind, actor in events:
        put("event", id=number, at=at, action=action, target_id=key, actor_kind=kind,
            actor_id=actor)  # fmt: skip
    db.migrate(tmp_path / "lock")
    assert {key.id: key.created_by for key in Key.select()} == {"key_1": "per_a", "key_2": "per_a"}
    assert {secret.digest: secret.seen_by for secret in Secret.select()} == {
        "old": "per_a", "new": "per_b", "robots": "per_a"}  # fmt: skip
    assert chain.verify().older == 3 and chain.verify().broken is None


def test_of_several_processes_that_migrate_at_once_one_works_and_all_succeed(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url = make_database()
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, url, str(tmp_path / "lock")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(STARTERS)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    steps = sorted(starter.communicate(timeout=60)[0].strip() for starter in starters)
    everything = str([path.stem for path in sorted(db.MIGRATIONS.glob("0*"))])
    assert steps == [everything, *["[]"] * (STARTERS - 1)]


# --- connections and transactions -----------------------------------------------------------


def test_sqlite_is_set_up_for_safety(app: Flask) -> None:
    if db.is_sqlite():
        pragmas = {name: db.handle.pragma(name) for name in ("journal_mode", "foreign_keys",
                   "busy_timeout", "synchronous", "trusted_schema")}  # fmt: skip
        assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000,
                           "synchronous": 1, "trusted_schema": 0}  # fmt: skip
    else:
        assert db.handle.execute_sql("show transaction_isolation").fetchone() == ("read committed",)


def test_synchronous_full_survives_power_loss(tmp_path: Path) -> None:
    database = db.open_database(f"sqlite:///{tmp_path}/full.db", synchronous="full")
    assert database.pragma("synchronous") == 2
    db.close()


def test_a_file_that_cannot_carry_wal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(peewee.OperationalError, match="does not carry SQLite's WAL"):
        db.open_database("sqlite:///:memory:")
    db.close()


def test_whoever_loses_the_race_to_turn_wal_on_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, losses = peewee.SqliteDatabase.connect, iter(["database is locked"] * 3)

    def lose_three_times(database: peewee.Database) -> bool:
        for loss in losses:
            raise peewee.OperationalError(loss)
        return bool(connect(database))

    monkeypatch.setattr(peewee.SqliteDatabase, "connect", lose_three_times)
    database = db.open_database(f"sqlite:///{tmp_path}/new.db")
    assert database.pragma("journal_mode") == "wal"
    db.close()


def test_a_file_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(peewee.OperationalError, match=r"nowhere/new\.db: No such file"):
        db.open_database(f"sqlite:///{tmp_path}/nowhere/new.db")


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="must be sqlite:///<path> or postgresql://"):
        db.open_database("mysql://127.0.0.1/keys")


def test_foreign_keys_hold(app: Flask, make_key: MakeKey) -> None:
    key, _ = make_key()
    with pytest.raises(peewee.IntegrityError), db.write():
        Key.update(project="prj_nowhere").where(Key.id == key.id).execute()
    with pytest.raises(peewee.IntegrityError), db.write():
        Project.delete().execute()
    with db.write():
        Key.delete().execute()
    assert not Secret.select().exists()


def test_a_second_current_secret_is_refused_by_the_database(app: Flask, make_key: MakeKey) -> None:
    key, _ = make_key()
    with pytest.raises(peewee.IntegrityError), db.write():
        Secret.create(digest="0" * 64, key=key, prefix="sk_live_0000", created_at=0)


def test_a_transaction_is_stored_wholly_or_not_at_all(app: Flask) -> None:
    @db.transaction
    def add_two_and_fail() -> None:
        add_link("first")
        with db.write():
            add_link("second")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        add_two_and_fail()
    assert not Link.select().exists()
    with db.write():
        add_link("third")
    assert [link.digest for link in Link.select()] == ["third"]


def test_what_is_not_yet_stored_is_not_seen_by_another_thread(app: Flask) -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(Link.select().exists())
        db.close()

    for _ in range(2):
        with db.write():
            if not seen:
                add_link("first")
                in_thread(look)
    in_thread(look)
    assert seen == [False, True]


def add_link(digest: str) -> None:
    Link.create(digest=digest, kind="setup", created_at=0, expires_at=0)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_parallel_transactions_lose_nothing(app: Flask, make_key: MakeKey) -> None:
    key, _ = make_key()
    failures: list[Exception] = []

    def add_ten() -> None:
        try:
            for _ in range(10):
                with db.write():
                    db.hold(Key, key.id)
                    total = Key.get(Key.id == key.id).requests_total
                    Key.update(requests_total=total + 1).where(Key.id == key.id).execute()
        except Exception as error:
            failures.append(error)
        finally:
            db.close()

    threads = [threading.Thread(target=add_ten) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert Key.get(Key.id == key.id).requests_total == 50


def test_a_thread_keeps_its_one_connection(app: Flask) -> None:
    mine = db.handle.connection()
    with db.write():
        assert db.handle.connection() is mine
    app.test_client().get("/login")
    assert db.handle.connection() is mine
    others: list[Any] = []

    def look_twice() -> None:
        Person.select().exists()
        others.append(db.handle.connection())
        Person.select().exists()
        others.append(db.handle.connection())
        db.close()

    in_thread(look_twice)
    assert others[0] is others[1] and others[0] is not mine


def test_a_connection_that_the_server_ended_is_opened_anew(app: Flask) -> None:
    if db.is_sqlite():
        assert not db.handle.is_closed()  # a file ends no connection
        return
    for use in (Person.select().exists, db.transaction(Person.select().exists)):
        end_connection()
        assert use() is False
    with pytest.raises(peewee.OperationalError), db.write():
        add_link("lost")
        end_connection()
        add_link("lost too")
    assert not Link.select().exists()


def end_connection() -> None:
    number = db.handle.connection().info.backend_pid
    databases.ask(TEST_DATABASE_URL, f"select pg_terminate_backend({number})")


def test_a_probe_fails_where_a_write_would(app: Flask) -> None:
    add_link("there")
    db.probe_write()
    assert Link.get().kind == "setup"
    if db.is_sqlite():
        db.handle.execute_sql("pragma query_only = on")
    else:
        db.handle.execute_sql("set default_transaction_read_only = on")
    with pytest.raises(peewee.PeeweeException):
        db.probe_write()


def test_closing_twice_is_no_error(app: Flask, config: Config) -> None:
    db.close()
    db.close()
    assert not Session.select().exists()
    assert not Membership.select().exists()


# --- SQLite's WAL-reset bug -----------------------------------------------------------------

VERSIONS = {
    (3, 6, 23): False,
    (3, 7, 0): True,
    (3, 40, 1): True,  # Debian 12's
    (3, 44, 5): True,
    (3, 44, 6): False,
    (3, 44, 7): False,
    (3, 45, 0): True,
    (3, 50, 6): True,
    (3, 50, 7): False,
    (3, 51, 0): True,
    (3, 51, 2): True,
    (3, 51, 3): False,
    (3, 53, 0): False,
    (4, 0, 0): False,
}


@pytest.mark.parametrize("version, has_bug", VERSIONS.items())
def test_the_wal_reset_bug_is_known_by_version(version: tuple[int, ...], has_bug: bool) -> None:
    assert db.has_wal_reset_bug(version) is has_bug
    assert db.has_wal_reset_bug(list(version)) is has_bug


def test_the_version_is_that_of_the_library_in_use(app: Flask) -> None:
    if db.is_sqlite():
        version = db.handle.execute_sql("select sqlite_version()").fetchone()[0]
        assert db.sqlite_version() == tuple(int(part) for part in version.split("."))
    assert len(db.sqlite_version()) == 3


def test_a_writer_that_waits_too_long_is_told_so(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not db.is_sqlite():
        return  # its writers do not queue in this process
    monkeypatch.setattr(db, "BUSY_TIMEOUT_SECONDS", 0.05)

    def write_beside() -> str:
        try:
            with db.write():
                return "written"
        except peewee.OperationalError as error:
            return str(error)
        finally:
            db.close()

    with ThreadPoolExecutor(1) as other:
        with db.write():
            assert other.submit(write_beside).result() == "another writer holds the database"
        assert other.submit(write_beside).result() == "written"


def test_who_queued_for_long_waits_for_the_file_only_what_is_left(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not db.is_sqlite():
        return  # its writers do not queue in this process
    timeouts: list[int] = []
    started = threading.Event()

    def hold() -> None:
        with db.write():
            started.set()
            time.sleep(0.2)
        db.close()

    with ThreadPoolExecutor(1) as other:
        held = other.submit(hold)
        started.wait()
        with db.write():
            timeouts.append(db.handle.execute_sql("pragma busy_timeout").fetchone()[0])
        held.result()
    timeouts.append(db.handle.execute_sql("pragma busy_timeout").fetchone()[0])
    assert timeouts[0] < 4900
    assert timeouts[1] == 5000


def test_a_probe_writes_and_leaves_nothing(app: Flask) -> None:
    for _ in range(5):
        assert at_once(8, lambda _: db.probe_write()) == [None] * 8
    assert not Link.select().exists()


def test_sqlite_that_is_too_old_is_named(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_database()
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 34, 1))
    if url.startswith("sqlite"):
        with pytest.raises(peewee.OperationalError, match="SQLite 3.34.1 is too old: install"):
            db.open_database(url)
