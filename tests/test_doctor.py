"""What the doctor finds on a machine, what it says to do, and that it changes nothing."""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import pytest
from flask import Flask

from config import Config
from console import SECRET_KEY_FILE, db, doctor, facts, limits, partitions
from console.actor import Actor
from tests.conftest import Clock, MakeKey, need_redis
from tests.mailbox import Mailbox
from tests.server import free_port
from tests.test_limits import REDIS_URL

GB = 1_000_000_000
NOBODY = "nobody can sign in yet: run create-admin, or open the link that serve prints"


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A sound machine; what is mounted on it, in a file that a test may write."""
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 53, 0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(500 * GB, 400 * GB, 100 * GB))
    path = tmp_path / "mounts"
    path.write_text("/dev/sda1 / ext4 rw,relatime 0 0\n")
    monkeypatch.setattr(doctor, "MOUNTS", path)
    return path


def test_a_sound_installation_needs_nothing(config: Config, owner: Actor) -> None:
    assert doctor.examine(config) == []


def test_nobody_yet(config: Config, app: Flask) -> None:
    assert doctor.examine(config) == [NOBODY]


def test_a_sqlite_that_can_corrupt_the_file_is_named(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 40, 1))
    found = doctor.examine(config)
    if db.is_sqlite():
        assert len(found) == 1
        assert found[0].startswith("SQLite 3.40.1 can corrupt a database")
        assert "install the package pysqlite3" in found[0]
    else:
        assert found == []


def test_a_secret_key_that_others_can_read(config: Config, owner: Actor) -> None:
    path = config.data_dir / SECRET_KEY_FILE
    path.write_text("k" * 64)
    path.chmod(0o640)
    assert doctor.examine(config) == [f"{path} can be read by others: chmod 600 it"]
    path.chmod(0o600)
    assert doctor.examine(config) == []


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_trusting_everybody(config: Config, owner: Actor, network: str) -> None:
    found = doctor.examine(replace(config, trusted_proxies=(ip_network(network),)))
    assert len(found) == 1
    assert found[0].startswith(f"LATCHKEY_TRUSTED_PROXIES has {network}: anybody could forge")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "keys.internal"])
def test_listening_beyond_this_machine_without_tls(config: Config, owner: Actor, host: str) -> None:
    found = doctor.examine(replace(config, host=host))
    assert len(found) == 1
    assert "put a proxy with TLS in front and set LATCHKEY_BASE_URL" in found[0]
    assert doctor.examine(replace(config, host=host, base_url="https://keys.example.com")) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_listening_on_this_machine_alone_is_sound(config: Config, owner: Actor, host: str) -> None:
    assert doctor.examine(replace(config, host=host)) == []


def test_a_data_directory_that_is_not_there(config: Config, tmp_path: Path) -> None:
    fresh = in_directory(config, tmp_path / "nowhere")
    assert doctor.examine(fresh) == [f"{fresh.data_dir} is not there yet: start the server once"]


def test_a_data_directory_that_is_a_file(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor.examine(in_directory(config, tmp_path / "file"))
    assert found == [f"LATCHKEY_DATA_DIR='{tmp_path}/file' is a file: name a directory"]


def test_a_database_where_none_can_be_made(config: Config, tmp_path: Path) -> None:
    config.data_dir.mkdir(exist_ok=True)
    file = tmp_path / "no" / "where.db"
    assert doctor.examine(replace(config, database_url=f"sqlite:///{file}")) == [
        f"LATCHKEY_DATABASE_URL names {file}, and the directory {file.parent} is not there: make "
        "it, or mend the address"
    ]
    [found] = doctor.examine(replace(config, database_url="sqlite:///:memory:"))
    assert found.startswith("LATCHKEY_DATABASE_URL names no file")


@pytest.mark.parametrize("content", [b"", b"too short", b"\xff" * 64, None])
def test_a_secret_key_that_cannot_be_used(
    config: Config, owner: Actor, content: bytes | None
) -> None:
    path = config.data_dir / SECRET_KEY_FILE
    if content is None:
        path.mkdir(mode=0o700)
    else:
        path.write_bytes(content)
        path.chmod(0o600)
    found = [one for one in doctor.examine(replace(config, secret_key="")) if str(path) in one]
    why = "cannot be read: Is a directory" if content is None else "holds no key of at least 32"
    assert f"{path} {why}" in " ".join(found)
    assert doctor.examine(config) == []  # where another is set, it is not used


def test_another_secret_key_than_the_database_was_used_with(config: Config, owner: Actor) -> None:
    facts.note_secret_key(config.secret_key)
    [found] = doctor.examine(replace(config, secret_key="o" * 40))
    assert found.startswith("the database was used with a secret key, and another is set here: ")
    assert "second factors" in found and "Set LATCHKEY_SECRET_KEY to that one, or" in found
    lost = doctor.examine(replace(config, secret_key=""))
    assert "and there is none here: " in lost[-1]


def test_what_may_not_be_looked_at_ends_no_examination(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Config) -> Iterator[str]:
        yield "before"
        raise PermissionError(13, "Permission denied", "/some/where")

    monkeypatch.setattr(doctor, "_disk", closed)
    found = doctor.examine(replace(config, mail_from="keys@shop.example"))
    assert found[:2] == [
        "before",
        f"/some/where cannot be examined by user {os.getuid()}: Permission denied; run server and "
        "commands as one user",
    ]
    assert found[2].startswith("LATCHKEY_MAIL_FROM is set")


def test_nothing_is_made_by_looking(config: Config, tmp_path: Path) -> None:
    empty = in_directory(config, tmp_path / "empty")
    empty.data_dir.mkdir()
    assert doctor.examine(empty) == []
    assert list(empty.data_dir.iterdir()) == []


def test_a_database_that_cannot_be_reached_is_a_finding(config: Config, owner: Actor) -> None:
    gone = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/keys"
    found = doctor.examine(replace(config, database_url=gone))
    assert len(found) == 1
    assert found[0].startswith("LATCHKEY_DATABASE_URL names a database that cannot be used: ")
    assert "hunter2" not in found[0]


def test_a_database_file_that_is_none_is_a_finding(config: Config, tmp_path: Path) -> None:
    config.data_dir.mkdir(exist_ok=True)
    file = tmp_path / "notes.db"
    file.write_text("no database " * 1_000)
    found = doctor.examine(replace(config, database_url=f"sqlite:///{file}"))
    assert found == [
        "LATCHKEY_DATABASE_URL names a database that cannot be used: file is not a database"
    ]


def test_a_mail_server_that_cannot_be_used_is_a_finding(config: Config, owner: Actor) -> None:
    gone = f"smtp://u:hunter2@127.0.0.1:{free_port()}"
    found = doctor.examine(replace(config, smtp_url=gone, mail_from="keys@shop.example"))
    assert len(found) == 1
    assert found[0].startswith("LATCHKEY_SMTP_URL: The mail server 127.0.0.1:")
    assert "cannot be reached: Connection refused." in found[0] and "hunter2" not in found[0]


def test_a_mail_server_that_answers_is_well(config: Config, owner: Actor) -> None:
    with Mailbox() as mailbox:
        set_up = replace(config, smtp_url=mailbox.url, mail_from="keys@shop.example")
        assert doctor.examine(set_up) == [] and mailbox.mails == []


def test_a_sender_without_a_mail_server_is_a_finding(config: Config, owner: Actor) -> None:
    found = doctor.examine(replace(config, mail_from="keys@shop.example"))
    assert found == [
        "LATCHKEY_MAIL_FROM is set, but no mail is sent without LATCHKEY_SMTP_URL: set it"
    ]


# --- the machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "free", "is_enough"),
    [(500, 24, True), (500, 9, False), (20, 1.1, True), (20, 0.9, False), (4, 0.9, False),
     (10_000, 11, True)],
)  # fmt: skip
def test_a_disk_that_is_nearly_full(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch, total: float, free: float,
    is_enough: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(int(total * GB), 0, int(free * GB)))
    found = doctor.examine(config)
    assert found == [] if is_enough else len(found) == 1
    for one in found:
        assert one == (
            f"{config.data_dir} is on a disk of {total} GB with {free:.1f} GB left: make room, "
            "give it a larger one, or lower LATCHKEY_RETENTION_DAYS"
        )


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system(config: Config, owner: Actor, mounts: Path, kind: str) -> None:
    above = str(config.data_dir.parent.resolve()).replace(" ", "\\040")
    mounts.write_text(
        f"a / ext4 rw 0 0\nfiles:/keys {above} {kind} rw 0 0\nb /else {kind} rw 0 0\n"
    )
    found = doctor.examine(config)
    assert len(found) == 1
    assert found[0].startswith(f"{config.data_dir} is on a network file system ({kind}), on which")
    assert found[0].endswith("put it on a local disk")
    mounts.write_text(f"files:/keys / {kind} rw 0 0\n/dev/sdb {above} xfs rw 0 0\n")
    assert doctor.examine(config) == []
    mounts.unlink()
    assert doctor.examine(config) == []


def test_files_of_another_user(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, who may write them all the same: what root makes there the server could not."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    stat = Path.stat

    def by_another(path: Path, **named: bool) -> os.stat_result:
        found = stat(path, **named)
        return os.stat_result([*found[:4], 4711 if path.is_relative_to(config.data_dir) else 0,
                               *found[5:]])  # fmt: skip

    monkeypatch.setattr(Path, "stat", by_another)
    found = doctor.examine(config)
    assert f"{config.data_dir} belongs to user 4711, and this is user 0: run server and" in found[0]
    named = {line.partition(" ")[0] for line in found}
    if db.is_sqlite():
        assert str(config.data_dir / "latchkey.db") in named
        assert not any("LATCHKEY_DATABASE_URL" in line for line in found)


def test_a_directory_that_cannot_be_written(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    unwritable = {config.data_dir}
    monkeypatch.setattr(
        os, "access", lambda path, mode: path not in unwritable and access(path, mode)
    )
    found = doctor.examine(config)
    me = os.getuid()
    assert found == [f"{config.data_dir} cannot be written by its own user {me}: chmod u+w it"]


@pytest.fixture
def left(config: Config) -> Iterator[Path]:
    path = config.data_dir / "journal" / "00000000000000000001-0badcafe.jsonseq"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x1e[]\n")
    yield path
    path.unlink()


def test_what_a_process_that_is_gone_has_left(config: Config, owner: Actor, left: Path) -> None:
    directory = left.parent
    assert doctor.examine(config) == [
        f"{directory} has 1 file of a process that is gone, with entries to be stored: start the "
        "server; one that runs does so by itself"
    ]
    with left.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as the process does that writes it
        assert doctor.examine(config) == []
    assert left.read_bytes() == b"\x1e[]\n"


# --- the database ---------------------------------------------------------------------------------


def test_a_schema_that_is_not_of_this_version(config: Config, tmp_path: Path) -> None:
    older = in_directory(config, tmp_path / "older")
    older.data_dir.mkdir()
    db.open_database(older.database_url)
    db.close()
    found = doctor.examine(older)
    assert len(found) == 1
    assert found[0].startswith("the database is not at this version yet (it lacks 0001_initial, ")
    assert found[0].endswith("back it up, then start the server, or run migrate")
    db.open_database(older.database_url)
    assert db.handle.get_tables() == []
    db.migrate(older.data_dir / "lock")
    assert doctor.examine(older) == [NOBODY]
    db.open_database(older.database_url)
    db.handle.execute_sql(
        "insert into schema_migration (name, applied) values ('9999_later', '2030-01-01')"
    )
    db.close()
    found = doctor.examine(older)
    assert len(found) == 1 and "written by a newer version (it has 9999_later): install" in found[0]


def test_a_backup_is_missed_once_there_are_keys(
    config: Config, owner: Actor, make_key: MakeKey, clock: Clock
) -> None:
    assert doctor.examine(config) == []
    db.open_database(config.database_url)
    make_key()
    found = doctor.examine(config)
    if not db.is_sqlite():
        assert found == []
        return
    assert found == ["there is no backup yet: run backup FILE, once a day from cron"]
    db.open_database(config.database_url)
    facts.note(facts.LAST_BACKUP, '{"bytes": 1}')
    clock.move("7d")
    assert doctor.examine(config) == []
    clock.move("1d")
    assert doctor.examine(config) == [
        "the last backup is 8 days old: run backup FILE, once a day from cron"
    ]


def test_postgresql_without_a_secret_key_in_the_settings(config: Config, owner: Actor) -> None:
    gone = f"postgresql://u:hunter2@127.0.0.1:{free_port()}/keys"
    told = replace(config, secret_key="", database_url=gone)
    first, *_ = doctor.examine(told)
    assert first.startswith("LATCHKEY_SECRET_KEY is not set, and the database is PostgreSQL: each")
    assert first.endswith("Set it, to 32 random characters or more, the same for all")
    made = config.data_dir / SECRET_KEY_FILE
    made.write_text(config.secret_key)
    made.chmod(0o600)
    assert f"Set it, to what {made} holds, the same" in doctor.examine(told)[0]
    assert config.secret_key not in "".join(doctor.examine(told))
    if db.is_sqlite():
        assert doctor.examine(replace(config, secret_key="")) == []


@pytest.mark.postgresql
def test_a_postgresql_with_few_locks_for_many_tables_of_entries(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = partitions.Partition("entry_20310505", 0, 1, 0)
    monkeypatch.setattr(partitions, "all_of_them", lambda: [table] * 1_000)
    [found] = doctor.examine(config)
    assert "entries lie in 1000 tables, and with max_locks_per_transaction = 64 few" in found
    assert "set it to 256 in postgresql.conf" in found


@pytest.mark.postgresql
def test_a_postgresql_that_is_too_old(
    config: Config, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "server_version", lambda: "13.9")
    assert doctor.examine(config) == ["PostgreSQL 13.9 is no longer supported: use 14 or newer"]


def test_a_postgresql_that_is_silent_is_not_waited_for(config: Config, owner: Actor) -> None:
    with silent() as port:
        began = time.monotonic()
        found = doctor.examine(
            replace(
                config,
                database_url=f"postgresql://u:hunter2@127.0.0.1:{port}/keys",
                redis_url=f"redis://:hunter2@127.0.0.1:{port}",
            )
        )
        assert time.monotonic() - began < 10
    assert [line.split()[0] for line in found] == ["LATCHKEY_DATABASE_URL", "LATCHKEY_REDIS_URL"]
    assert all("\n" not in line and "hunter2" not in line for line in found)


# --- Redis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "?db=many"])
def test_a_redis_that_cannot_be_used(config: Config, owner: Actor, path: str) -> None:
    found = doctor.examine(
        replace(config, redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}{path}")
    )
    assert len(found) == 1 and found[0].startswith("LATCHKEY_REDIS_URL names ")
    assert "hunter2" not in found[0]


def test_a_redis_that_forgets(config: Config, owner: Actor) -> None:
    need_redis(REDIS_URL)
    told = replace(config, redis_url=REDIS_URL)
    client, _ = limits.connected(REDIS_URL)
    with client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        try:
            client.config_set("maxmemory-policy", "noeviction")
            assert doctor.examine(told) == []
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert doctor.examine(told) == [
                "Redis has maxmemory-policy allkeys-lru and may forget what limits have counted: "
                "set maxmemory-policy noeviction there"
            ]
        finally:
            client.config_set("maxmemory-policy", before)


@contextmanager
def silent() -> Iterator[int]:
    """The port of somebody who takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def in_directory(config: Config, directory: Path) -> Config:
    url = f"sqlite:///{directory}/latchkey.db"
    return replace(config, data_dir=directory, database_url=url)
