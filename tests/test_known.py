"""Remembered keys: whatever changes, in this process or another, holds at the next check."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peewee import sqlite3

from config import Config
from console import check, db, keys, known, secret
from console.actor import Actor
from console.models import Key, Person, Project, Secret
from tests.conftest import MakeKey, checked
from tests.server import ROOT

sqlite_only = pytest.mark.sqlite  # on PostgreSQL each check looks the key up


def ask(text: str) -> check.Verdict:
    return check.check(check.Request(secret=text, request_id="r", ip="192.0.2.1"))


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were looked up in the database."""
    found: list[str] = []
    look_up = known._look_up
    monkeypatch.setattr(known, "_look_up", lambda digest: found.append(digest) or look_up(digest))
    return found


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is trusted until somebody writes, however slow the test is."""
    monkeypatch.setattr(known, "TRUSTED_SECONDS", 3600.0)


@sqlite_only
def test_a_key_is_looked_up_once(make_key: MakeKey, lookups: list[str]) -> None:
    _, text = make_key()
    assert [ask(text).code for _ in range(3)] == ["VALID"] * 3
    assert len(lookups) == 1


@sqlite_only
def test_stored_entries_make_nobody_look_up_again(
    make_key: MakeKey, lookups: list[str], for_ever: None
) -> None:
    _, text = make_key()
    for _ in range(3):
        checked(check.Request(secret=text, request_id="r"))
    assert len(lookups) == 1


@sqlite_only
def test_an_unknown_key_is_not_remembered(make_key: MakeKey, lookups: list[str]) -> None:
    text = secret.mint("sk", "live")
    assert [ask(text).code for _ in range(2)] == ["API_KEY_INVALID"] * 2
    assert len(lookups) == 2


CHANGES: dict[str, tuple[Callable[[Key, Actor], Any], Callable[[check.Verdict], Any]]] = {
    "revoke": (lambda key, by: keys.revoke(key.id, by=by), lambda v: v.code == "API_KEY_REVOKED"),
    "delete": (lambda key, by: keys.delete(key.id, by=by), lambda v: v.code == "API_KEY_INVALID"),
    "rotate": (
        lambda key, by: keys.rotate(key.id, {}, by=by), lambda v: v.code == "API_KEY_SUPERSEDED"
    ),
    "rename": (
        lambda key, by: keys.edit(key.id, {"name": "New"}, by=by), lambda v: v.key.name == "New"
    ),
    "limit": (
        lambda key, by: keys.edit(key.id, {"rate_limit": {"per_minute": 7}}, by=by),
        lambda v: v.allowance.windows[0].limit == 7,
    ),
    "an address's owner": (
        lambda key, by: Person.update(email="new@example.com").execute(),
        lambda v: v.key.owner == "new@example.com",
    ),
    "the project's slug": (
        lambda key, by: Project.update(slug="new").execute(), lambda v: v.key.project == "new"
    ),
    "the secret's row": (
        lambda key, by: Secret.delete().execute(), lambda v: v.code == "API_KEY_INVALID"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_holds_at_the_next_check(
    make_key: MakeKey, owner: Actor, for_ever: None, name: str
) -> None:
    change, holds = CHANGES[name]
    key, text = make_key(by=owner)
    assert ask(text).code == "VALID"
    with db.write():
        change(key, owner)
    assert holds(ask(text)), name


@pytest.mark.parametrize("name", ["revoke", "rotate", "delete", "rename"])
def test_a_change_in_another_thread_holds_at_the_next_check(
    make_key: MakeKey, owner: Actor, for_ever: None, name: str
) -> None:
    change, holds = CHANGES[name]
    key, text = make_key(by=owner)
    assert ask(text).code == "VALID"
    other = threading.Thread(target=lambda: (change(key, owner), db.close()))
    other.start()
    other.join()
    assert holds(ask(text))


def test_the_command_line_is_obeyed_at_the_next_check(
    make_key: MakeKey, config: Config, for_ever: None
) -> None:
    key, text = make_key()
    environ = {
        "LATCHKEY_DATA_DIR": str(config.data_dir),
        "LATCHKEY_DATABASE_URL": config.database_url,
    }
    for command, code in (
        (["revoke-key", key.id], "API_KEY_REVOKED"),
        (["delete-key", key.id, "--confirm", key.name], "API_KEY_INVALID"),
    ):
        assert ask(text).code != code
        subprocess.run(
            [sys.executable, "-m", "console", *command], cwd=ROOT, env=environ, check=True,
            timeout=60, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert ask(text).code == code


@sqlite_only
def test_what_is_written_past_latchkey_is_noticed_soon(
    make_key: MakeKey, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "TRUSTED_SECONDS", 0.0)
    _, text = make_key()
    assert ask(text).code == "VALID"
    by_hand = sqlite3.connect(config.data_dir / "latchkey.db", isolation_level=None)
    by_hand.execute('UPDATE "key" SET revoked_at = 1')
    by_hand.close()
    assert ask(text).code == "API_KEY_REVOKED"


@sqlite_only
def test_a_writer_that_died_in_its_commit_makes_checks_look_not_err(
    make_key: MakeKey, operator: Actor, for_ever: None, lookups: list[str]
) -> None:
    """Its count of beginnings stays ahead of that of ends, until the next writer."""
    key, text = make_key()
    ask(text)
    assert db._changes is not None
    db._changes.begin()
    db.handle.execute_sql('UPDATE "key" SET revoked_at = 1')
    assert ask(text).code == "API_KEY_REVOKED"
    assert not db.changes()[1]
    keys.restore(key.id, by=operator)
    assert ask(text).code == "VALID" and db.changes()[1]


@sqlite_only
def test_what_is_looked_up_while_a_change_is_committed_is_not_kept(
    make_key: MakeKey, operator: Actor, for_ever: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check itself began before the change and may miss it; the next one may not."""
    key, text = make_key()
    look_up = known._look_up

    def overtaken(digest: str) -> Any:
        found = look_up(digest)
        monkeypatch.setattr(known, "_look_up", look_up)
        keys.revoke(key.id, by=operator)
        return found

    monkeypatch.setattr(known, "_look_up", overtaken)
    ask(text)
    assert ask(text).code == "API_KEY_REVOKED"


@sqlite_only
def test_memory_is_bounded(
    make_key: MakeKey, for_ever: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "REMEMBERED_MAX", 3)
    texts = [make_key()[1] for _ in range(8)]
    for text in texts * 2:
        assert ask(text).code == "VALID"
        assert len(known._state.memory.keys) <= 3


def test_another_database_is_another_memory(make_key: MakeKey, config: Config) -> None:
    _, text = make_key()
    assert ask(text).code == "VALID"
    if db.is_sqlite():
        db.open_database(f"sqlite:///{config.data_dir}/other.db")
        db.migrate(config.data_dir / "other.lock")
        assert ask(text).code == "API_KEY_INVALID"
        db.open_database(config.database_url)
    assert ask(text).code == "VALID"


@sqlite_only
def test_a_writer_that_ends_does_not_undo_the_beginning_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes: the second begins between the first one's reading and writing of its end."""
    first, second = (db._Changes(str(tmp_path / "changes")) for _ in range(2))
    number = first.begin()
    begun: list[int] = []

    class Overtaken:
        """As struct would, but that somebody else begins after the counts were read."""

        size = db._Changes.FORM.size

        def unpack(self, data: Any) -> tuple[int, int]:
            found = db._Changes.COUNT.unpack(data[:8]) + db._Changes.COUNT.unpack(data[8:])
            begun.append(second.begin())
            return found

    monkeypatch.setattr(first, "FORM", Overtaken(), raising=False)
    first.end(number)
    assert not second.is_at_rest(second.read())
    second.end(begun[0])
    assert second.is_at_rest(second.read())
