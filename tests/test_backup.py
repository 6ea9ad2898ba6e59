"""Backups: whole or not there; what is restored is what was backed up, and what is refused leaves
everything as it was."""

import hashlib
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import peewee
import pytest
from flask import Flask
from peewee import sqlite3

from config import Config
from console import (
    NotNow,
    backup,
    batch,
    check,
    cli,
    create_app,
    db,
    facts,
    in_use,
    journal,
    keys,
    start,
)
from console.actor import Actor
from console.backup import BackupError
from console.journal import Journal
from console.models import Entry, Key, Project
from console.secret import random_id
from tests.conftest import MakeKey
from tests.test_journal import kill

pytestmark = pytest.mark.sqlite

ORPHAN = "update secret set key_id = 'key_gone' where digest = (select min(digest) from secret)"
OTHER_KEY = "o" * 40


@pytest.fixture
def live(app: Flask, config: Config) -> Path:
    return config.data_dir / "latchkey.db"


@pytest.fixture
def saved(live: Path, config: Config, make_key: MakeKey, tmp_path: Path) -> Path:
    """A backup in which there is one key, "before"; the database has "after" besides."""
    make_key(name="before")
    backup.make(config, tmp_path / "saved.db")
    make_key(name="after")
    return tmp_path / "saved.db"


def stop() -> None:
    """As if this process had stopped serving."""
    journal.close()
    db.close()
    in_use.let_go()


def die(live: Path) -> None:
    """As if it had been killed: what it appended is in its journal alone, and its WAL is there."""
    assert journal._journal is not None
    kill(journal._journal)
    journal._journal = None
    files = {path: path.read_bytes() for path in live.parent.glob("latchkey.db*")}
    db.close()
    in_use.let_go()
    for path, content in files.items():
        path.write_bytes(content)
    assert live.with_name("latchkey.db-wal").stat().st_size > 0


def names(file: Path) -> set[str]:
    return {name for (name,) in ask(file, "select name from key")}


def ask(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as database:
        found: list[Any] = database.execute(sql).fetchall()
    return found


def change(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("pragma foreign_keys = 0")
        database.execute(sql)


def tree(directory: Path) -> dict[str, str]:
    """What is in a directory, but for the file that is only there to be locked."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(in_use.SUFFIX)
    }


def checks(secret: str, count: int) -> list[str]:
    """So many answered checks; their requests' ids."""
    ids = [random_id("req") for _ in range(count)]
    assert {checked(secret, request_id) for request_id in ids} <= {"VALID"}
    return ids


def checked(secret: str, request_id: str = "req_1") -> str:
    return check.check(check.Request(secret, request_id, ip="192.0.2.1", method="GET")).code


def stored(file: Path) -> list[str]:
    return [row[0] for row in ask(file, "select request_id from entry order by id")]


# --- backup -----------------------------------------------------------------------------------


def test_a_backup_is_one_whole_file_for_this_user_alone(
    live: Path, config: Config, make_key: MakeKey, tmp_path: Path
) -> None:
    make_key(name="one")
    (tmp_path / "to").mkdir()
    file = tmp_path / "to" / "saved.db"
    made = backup.make(config, file)
    assert (made.rows["key"], made.size) == (1, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes()[18:20] == b"\1\1"  # no -wal is needed to read it
    assert names(file) == {"one"}
    assert backup.verify(file) == made


def test_a_backup_is_noted_in_the_database(saved: Path) -> None:
    told = json.loads(facts.read(facts.LAST_BACKUP) or "")
    assert told["key"] == 1 and told["event"] >= 1 and told["entry"] == 0
    assert told["bytes"] == saved.stat().st_size


def test_what_was_answered_before_is_in_it(
    live: Path, config: Config, make_key: MakeKey, tmp_path: Path
) -> None:
    """Also where it is still in the journal, of this process or of one that was killed."""
    _, secret = make_key()
    by_another = checks(secret, 3)
    assert journal._journal is not None
    kill(journal._journal)
    here = checks(secret, 2)
    backup.make(config, tmp_path / "saved.db")
    assert sorted(stored(tmp_path / "saved.db")) == sorted(by_another + here)


def test_what_a_server_does_not_store_is_waited_for_and_then_told(
    live: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "JOURNAL_SECONDS", 0.2)
    stuck = Journal(config.data_dir, batch.store, in_background=False)
    backup.make(config, tmp_path / "saved.db")
    stuck.append(b"[]")
    with pytest.raises(BackupError, match=r"journal/\S+ has not been stored for 0\.2 s: the serv"):
        backup.make(config, tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
    stuck._files[-1].drained = stuck._files[-1].written
    stuck._files[-1].remove()
    backup.make(config, tmp_path / "other.db")


def test_writers_go_on_and_what_they_write_meanwhile_is_not_half_there(
    live: Path, config: Config, make_key: MakeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(name="before")
    count = backup._count

    def written_meanwhile(database: Any) -> dict[str, int]:
        rows = count(database)
        if rows["key"] == 1 and names_now() == {"before"}:
            with closing(sqlite3.connect(live, isolation_level=None)) as other:
                other.execute("update key set name = 'while' where name = 'before'")
                other.execute("delete from event")
        return rows

    def names_now() -> set[str]:
        with closing(sqlite3.connect(live)) as other:
            return {name for (name,) in other.execute("select name from key")}

    monkeypatch.setattr(backup, "_count", written_meanwhile)
    made = backup.make(config, tmp_path / "saved.db")
    assert names_now() == {"while"}
    assert names(tmp_path / "saved.db") == {"before"} and made.rows["event"] > 0


TARGETS: dict[str, tuple[str, str]] = {
    "the database": ("data/latchkey.db", "belongs to the database itself"),
    "its wal": ("data/latchkey.db-wal", "belongs to the database itself"),
    "what is kept of it": ("data/latchkey.db.before-restore", "belongs to the database itself"),
    "a link to it": ("link.db", "belongs to the database itself"),
    "no such directory": ("no/where.db", "no is not there: make this directory first"),
    "a directory": ("data", "is there and is no backup"),
    "another file": ("letter.txt", "is there and is no backup"),
    "another database": ("foreign.db", "is there and is no backup"),
    "a damaged database": ("damaged.db", "is there and is no backup"),
    "one with a wal": ("wal.db", "was in use: wal.db-wal lies beside it"),
    "one with a journal": ("rollback.db", "was in use: rollback.db-journal lies beside it"),
    "one that is served": ("served.db", "was in use: served.db-in-use lies beside it"),
    "the secret key": ("data/secret_key", "is a place of Latchkey's own"),
    "the lock": ("data/latchkey.lock", "is a place of Latchkey's own"),
    "the journal": ("data/journal/00000000000000000001-0badcafe.jsonseq", "Latchkey's own"),
    "a device": ("/dev/null", "is there and is no backup"),
    "too long a name": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize(("name", "message"), TARGETS.values(), ids=TARGETS)
def test_a_backup_takes_no_place_that_is_something_else(
    live: Path, config: Config, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader, ")
    (tmp_path / "link.db").symlink_to(live)
    change(tmp_path / "foreign.db", "create table key (name text)")
    (tmp_path / "damaged.db").write_bytes(backup.MAGIC + b"\xff" * 4096)
    for beside in ("wal.db-wal", "rollback.db-journal", "served.db-in-use"):
        backup.make(config, tmp_path / beside.rpartition("-")[0])
        (tmp_path / beside).touch()
    before = tree(tmp_path)
    with pytest.raises(BackupError, match=message):
        backup.make(config, tmp_path / name)
    assert tree(tmp_path) == before


def test_a_dash_is_no_file(live: Path, config: Config, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="name a file"):
        backup.make(config, Path("-"))
    assert not Path("-").exists()


def test_a_database_that_is_none_is_blamed_and_not_the_backup(
    live: Path, config: Config, tmp_path: Path
) -> None:
    stop()
    live.write_text("Dear reader, " * 1000)
    for side in ("-wal", "-shm"):
        live.with_name(live.name + side).unlink(missing_ok=True)
    with pytest.raises(BackupError) as raised:
        backup.make(config, tmp_path / "saved.db")
    told = str(raised.value)
    assert told.startswith(f"the database {live} cannot be read: file is not a database; ")
    assert "restore a backup" in told and "saved.db" not in told


def test_a_full_disk_is_told_where_a_backup_is_not_noted(
    live: Path, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    note = facts.note

    def without_room(name: str, value: str) -> None:
        [(pages,)] = db.handle.execute_sql("pragma page_count")
        db.handle.execute_sql(f"pragma max_page_count = {pages}")
        note(name, value * 1000)

    monkeypatch.setattr(facts, "note", without_room)
    backup.make(config, tmp_path / "saved.db")
    assert caplog.messages == [
        "that a backup was made could not be noted: the disk is full: make room"
    ]


def test_a_directory_that_cannot_be_written_is_named(
    live: Path, config: Config, tmp_path: Path
) -> None:
    with pytest.raises(BackupError, match=r"cannot be written: .*/proc/.*needs the right to write"):
        backup.make(config, Path("/proc/self/saved.db"))


def test_a_full_disk_leaves_the_old_backup_and_nothing_else(
    saved: Path, config: Config, tmp_path: Path
) -> None:
    """The system ends each file at half of what is needed."""
    before = saved.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (saved.stat().st_size // 2, hard))
    try:
        with pytest.raises(BackupError, match="saved.db cannot be written: .*try again"):
            backup.make(config, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "saved.db"}


def test_the_new_backup_takes_the_name_alone_so_that_there_is_never_half_of_one(
    saved: Path, config: Config
) -> None:
    before = saved.read_bytes()
    with saved.open("rb") as opened:
        backup.make(config, saved)
        assert opened.read() == before
    assert names(saved) == {"before", "after"}


def test_a_disk_without_room_is_not_filled_first(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"has no room: 1,000,000,000,000\.0 MB are needed and"):
        backup._require_room(tmp_path, 10**18)


def test_a_copy_that_is_not_whole_does_not_take_the_old_ones_place(
    saved: Path, config: Config, tmp_path: Path
) -> None:
    before = saved.read_bytes()
    change(config.data_dir / "latchkey.db", ORPHAN)
    with pytest.raises(BackupError, match="the copy of .* is not whole: a row of secret belongs"):
        backup.make(config, saved)
    assert saved.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_copy_that_lacks_a_row_does_not_either(
    saved: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, copy = saved.read_bytes(), backup._copy_snapshot

    def lose_a_row(draft: Path) -> dict[str, int]:
        rows = copy(draft)
        change(draft, "delete from event where id = (select max(id) from event)")
        return rows

    monkeypatch.setattr(backup, "_copy_snapshot", lose_a_row)
    with pytest.raises(BackupError, match="the copy is not what was copied"):
        backup.make(config, saved)
    assert saved.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_backup_left_goes_when_it_is_old(
    saved: Path, config: Config, tmp_path: Path
) -> None:
    old, young = tmp_path / ".saved.db.a.partial-wal", tmp_path / ".saved.db.b.partial"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    backup.make(config, saved)
    assert not old.exists() and young.exists()


def test_a_link_is_followed(live: Path, config: Config, tmp_path: Path) -> None:
    (tmp_path / "newest.db").symlink_to("real.db")
    backup.make(config, tmp_path / "newest.db")
    assert (tmp_path / "newest.db").is_symlink() and backup.verify(tmp_path / "real.db")


def test_a_database_of_an_older_version_is_not_migrated_by_its_backup(
    live: Path, config: Config, tmp_path: Path
) -> None:
    change(live, "delete from schema_migration where name > '0002'")
    with pytest.raises(BackupError, match="is of an older version: make the backup with that one"):
        backup.make(config, tmp_path / "saved.db")


def test_where_there_is_no_database_none_is_made(config: Config, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"there is no database .*LATCHKEY_DATA_DIR"):
        backup.make(config, tmp_path / "saved.db")
    assert not config.data_dir.exists()


URL = "postgresql://ada:hush@db.example.com/keys?sslmode=require&password=hush"


def test_postgresql_has_commands_of_its_own(config: Config, tmp_path: Path) -> None:
    elsewhere = replace(config, database_url=URL)
    shown = "'postgresql://ada@db.example.com/keys?sslmode=require'"
    for call, command in (
        (backup.make, f"pg_dump --format=custom --file='/b/a b.dump' {shown}"),
        (backup.restore, f"pg_restore --no-owner --dbname={shown} '/b/a b.dump', into a new"),
    ):
        with pytest.raises(BackupError) as raised:
            call(elsewhere, Path("/b/a b.dump"))
        assert command in str(raised.value) and "hush" not in str(raised.value)


# --- what is no backup -------------------------------------------------------------------------


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def spoil(file: Path) -> None:
    """A page in the middle, of a table that is counted by its index."""
    [(page,)] = ask(file, "select rootpage from sqlite_master where name = 'key'")
    with file.open("r+b") as opened:
        opened.seek((page - 1) * 4096)
        opened.write(b"\xff" * 4096)


def foreign(file: Path) -> None:
    file.unlink()
    change(file, "create table schema_migration (name text)")


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "none": (lambda file: file.unlink(), r"saved\.db is not there"),
    "empty": (lambda file: file.write_bytes(b""), "is no SQLite database"),
    "text": (lambda file: file.write_text("hello" * 1000), "is no SQLite database"),
    "a directory": (lambda file: (file.unlink(), file.mkdir()), "is no SQLite database"),
    "foreign": (foreign, "is a SQLite database, but not Latchkey's"),
    "truncated": (cut, "is damaged or cut short"),
    "header alone": (lambda file: os.truncate(file, 100), "is damaged or cut short"),
    "spoilt": (spoil, "is damaged or cut short"),
    "not whole": (
        lambda file: change(file, ORPHAN),
        "is not whole: a row of secret belongs to one of key that is not there",
    ),
    "newer": (
        lambda file: change(file, "insert into schema_migration values (99, '0099_x', 'now')"),
        r"was made by a newer version \(it has 0099_x\)",
    ),
    "with a wal": (
        lambda file: file.with_name("saved.db-wal").touch(),
        r"was copied while it was in use: saved\.db-wal lies beside it",
    ),
    "with a journal": (
        lambda file: file.with_name("saved.db-journal").touch(),
        r"was copied while it was in use: saved\.db-journal lies beside it",
    ),
}


@pytest.mark.parametrize(("spoilt", "message"), BAD.values(), ids=BAD)
def test_what_is_no_backup_is_neither_verified_nor_restored(
    saved: Path,
    config: Config,
    tmp_path: Path,
    spoilt: Callable[[Path], Any],
    message: str,
) -> None:
    stop()
    spoilt(saved)
    before = tree(tmp_path)
    for call in (backup.verify, lambda file: backup.restore(config, file)):
        with pytest.raises(BackupError, match=message) as raised:
            call(saved)
        assert "\n" not in str(raised.value)
    assert tree(tmp_path) == before


def test_a_backup_of_an_older_version_can_be_restored(
    saved: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    change(saved, "drop table fact")
    change(saved, "delete from schema_migration where name = '0009_days'")
    assert backup.verify(saved).is_older
    assert backup.restore(config, saved).is_older
    start(config)
    assert [key.name for key in Key.select()] == ["before"]


# --- restore ----------------------------------------------------------------------------------


def test_a_restore_brings_back_what_was_and_keeps_what_is(
    saved: Path, live: Path, config: Config
) -> None:
    die(live)
    backup.restore(config, saved)
    kept = live.with_name("latchkey.db.before-restore")
    assert (names(live), names(kept)) == ({"before"}, {"before", "after"})
    assert kept.read_bytes()[18:20] == b"\1\1"
    left = {path.name for path in live.parent.glob("*latchkey.db*")}
    assert left == {"latchkey.db", "latchkey.db.before-restore", "latchkey.db-in-use"}
    assert stat.S_IMODE(live.stat().st_mode) == 0o600


def test_what_was_kept_can_be_restored_itself(saved: Path, live: Path, config: Config) -> None:
    stop()
    backup.restore(config, saved)
    kept = live.with_name("latchkey.db.before-restore")
    backup.restore(config, kept)
    assert (names(live), names(kept)) == ({"before", "after"}, {"before"})


def test_a_key_checks_as_it_did_when_the_backup_was_made(
    live: Path, config: Config, make_key: MakeKey, operator: Actor, tmp_path: Path
) -> None:
    key, secret = make_key()
    backup.make(config, tmp_path / "saved.db")
    keys.revoke(key.id, by=operator)
    assert checked(secret) == "API_KEY_REVOKED"
    stop()
    backup.restore(config, tmp_path / "saved.db")
    create_app(config, in_background=False)
    assert checked(secret) == "VALID"
    assert Project.get().slug == "shop"


def test_while_a_process_uses_the_database_it_is_not_replaced(
    saved: Path, config: Config, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    with pytest.raises(BackupError, match=r"a server or another command uses .*: stop it, then"):
        backup.restore(config, saved)
    assert tree(tmp_path) == before


def test_nor_while_another_program_has_it_open(
    saved: Path, live: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    monkeypatch.setattr(db, "BUSY_TIMEOUT_SECONDS", 0.1)
    with closing(sqlite3.connect(live)) as other:
        other.execute("select 1 from key").fetchall()
        with pytest.raises(BackupError, match=r"another program has .*latchkey\.db open: stop it"):
            backup.restore(config, saved)
        assert len(other.execute("select 1 from key").fetchall()) == 2
    assert not live.with_name("latchkey.db.before-restore").exists()


def test_the_database_itself_is_no_backup(saved: Path, live: Path, config: Config) -> None:
    stop()
    with pytest.raises(BackupError, match="is the database itself"):
        backup.restore(config, live)


def test_a_backup_of_another_secret_key_is_refused_until_it_is_lost(
    saved: Path, live: Path, config: Config, tmp_path: Path
) -> None:
    stop()
    before = tree(tmp_path)
    other = replace(config, secret_key=OTHER_KEY)
    with pytest.raises(BackupError, match="another one is set here: set LATCHKEY_SECRET_KEY to th"):
        backup.restore(other, saved)
    none = replace(config, secret_key="")
    with pytest.raises(BackupError, match=r"there is none here yet: .*copy .* to .*/secret_key"):
        backup.restore(none, saved)
    assert tree(tmp_path) == before
    (config.data_dir / "secret_key").write_text(config.secret_key + "\n")
    backup.restore(none, saved)
    backup.restore(other, saved, with_other_secret_key=True)
    assert names(live) == {"before"}


def test_a_fresh_machine_takes_a_backup(saved: Path, config: Config, tmp_path: Path) -> None:
    stop()
    fresh = tmp_path / "fresh" / "data"
    config = replace(config, data_dir=fresh, database_url=f"sqlite:///{fresh}/latchkey.db")
    backup.restore(config, saved)
    assert names(fresh / "latchkey.db") == {"before"}
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    assert not (fresh / "latchkey.db.before-restore").exists()


def test_a_wal_that_lies_there_is_not_read_into_the_restored_database(
    saved: Path, live: Path, config: Config
) -> None:
    die(live)
    live.unlink()
    backup.restore(config, saved)
    start(config)
    assert [key.name for key in Key.select()] == ["before"]
    assert db.handle.pragma("integrity_check") == "ok"


def test_a_damaged_database_is_kept_as_it_is_with_its_wal(
    saved: Path, live: Path, config: Config
) -> None:
    die(live)
    with live.open("r+b") as opened:
        opened.write(b"\0" * 100)
    live.with_name("latchkey.db-wal").write_bytes(b"torn" * 100)
    damaged = live.read_bytes()
    backup.restore(config, saved)
    assert live.with_name("latchkey.db.before-restore").read_bytes() == damaged
    assert names(live) == {"before"}
    assert not live.with_name("latchkey.db-wal").exists()


def test_one_generation_is_kept(saved: Path, live: Path, config: Config) -> None:
    stop()
    live.with_name("latchkey.db.before-restore-wal").write_text("of an earlier one")
    backup.restore(config, saved)
    backup.restore(config, saved)
    assert names(live.with_name("latchkey.db.before-restore")) == {"before"}
    assert {path.name for path in live.parent.glob("*before*")} == {"latchkey.db.before-restore"}


# --- the journal --------------------------------------------------------------------------------


@pytest.mark.parametrize("drained", [0, 2], ids=["file after the backup", "file in the backup"])
def test_what_a_killed_server_left_is_stored_once_in_what_is_restored(
    live: Path, config: Config, make_key: MakeKey, tmp_path: Path, drained: int
) -> None:
    """And once in what is kept, so that one can go back."""
    _, secret = make_key()
    in_backup = checks(secret, drained)
    backup.make(config, tmp_path / "saved.db")
    assert stored(tmp_path / "saved.db") == in_backup
    stored_later = checks(secret, 3)
    journal.settle()
    never_stored = checks(secret, 4)
    die(live)
    everything = in_backup + stored_later + never_stored
    backup.restore(config, tmp_path / "saved.db")
    kept = live.with_name("latchkey.db.before-restore")
    assert (stored(kept), stored(live)) == (everything, in_backup)
    create_app(config, in_background=False)
    assert [entry.request_id for entry in Entry.select().order_by(Entry.id)] == everything
    assert Key.get().requests_total == len(everything)
    stop()
    backup.restore(config, kept)
    create_app(config, in_background=False)
    assert [entry.request_id for entry in Entry.select().order_by(Entry.id)] == everything
    assert list((config.data_dir / "journal").iterdir()) == []


# --- who has it open ----------------------------------------------------------------------------

HOLD = """
import subprocess, sys
from pathlib import Path
from console import in_use
in_use.share(Path(sys.argv[1]))
left = subprocess.Popen(["sleep", "60"])
print(left.pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_lets_go_and_what_it_started_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        left = int(holder.stdout.readline())
        try:
            with pytest.raises(in_use.Taken), in_use.alone(file):
                pass
            in_use.share(file)  # several may
            in_use.let_go()
            holder.kill()
            holder.wait()
            with in_use.alone(file):
                pass
        finally:
            os.kill(left, signal.SIGKILL)


def test_opening_again_and_again_leaves_no_descriptor(app: Flask, config: Config) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    start(config)
    before = opened()
    for _ in range(3):
        db.open_database(f"sqlite:///{config.data_dir}/other.db")
        start(config)
    assert opened() == before


def test_a_start_during_a_restore_waits_and_then_says_so(
    app: Flask, live: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop()
    monkeypatch.setattr(in_use, "WAIT_SECONDS", 0.2)
    descriptor = in_use._open(live)
    assert in_use._is_locked(descriptor, in_use.fcntl.LOCK_EX)
    message = re.escape(f"{live} is being restored by another command: try again when it ends")
    with pytest.raises(NotNow, match=f"^{message}$"):
        start(config)
    with pytest.raises(peewee.OperationalError, match=message):
        db.open_database(config.database_url)
    os.close(descriptor)
    start(config)


# --- commands -----------------------------------------------------------------------------------


def test_the_commands_say_what_they_found_and_what_is_not_in_it(
    saved: Path,
    live: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LATCHKEY_DATA_DIR", str(config.data_dir))
    monkeypatch.setenv("LATCHKEY_SECRET_KEY", config.secret_key)

    def said(*arguments: str) -> str:
        cli.cli(arguments, standalone_mode=False)
        return capsys.readouterr().out

    file = str(saved)
    whole = rf"{re.escape(file)} is whole\. Keys: 2\. Entries: 0\. Events: \d\. Size: 0\.\d MB\.\n"
    made = said("backup", file)
    assert re.match(whole, made) and "keep LATCHKEY_SECRET_KEY elsewhere" in made
    assert re.fullmatch(whole, said("verify-backup", file))
    change(saved, "delete from schema_migration where name = '0009_days'")
    assert "An older version made it" in said("verify-backup", file)
    stop()
    restored = said("restore", file)
    assert re.match(whole, restored) and ".before-restore" in restored
    assert "cannot be read any more" in said("restore", file, "--with-other-secret-key")
    monkeypatch.delenv("LATCHKEY_SECRET_KEY")
    start(config)
    assert f"keep {config.data_dir}/secret_key elsewhere" in said("backup", file)
