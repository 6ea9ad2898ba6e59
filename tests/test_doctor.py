"""What the doctor finds on a machine, what it says to do, and that it changes nothing."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from flask import Flask

from config import Config
from console import SECRET_KEY_FILE, db, doctor
from console.actor import Actor
from tests.mailbox import Mailbox
from tests.server import free_port

NOBODY = "nobody can sign in yet: run create-admin, or open the link that serve prints"


@pytest.fixture(autouse=True)
def _sound_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 53, 0))


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


def in_directory(config: Config, directory: Path) -> Config:
    url = f"sqlite:///{directory}/latchkey.db"
    return replace(config, data_dir=directory, database_url=url)
