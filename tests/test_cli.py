"""The command line: what each command prints and where, that every error is one line that says
what to do, and that the served process starts, stops and dies as promised."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from config import Config
from console import check, cli, db, demo, keys, server, signin
from console.actor import Actor, command_line
from console.errors import Unauthenticated
from console.models import Entry, Event, Key, Link, Person, Project
from tests.conftest import PASSWORD, Clock, MakeKey, bearer
from tests.server import ROOT, RunningServer, free_port
from tests.test_api import KEY_FIELDS

# Longer than granian lets a thread be idle unless told otherwise.
IDLE_SECONDS = 35


@dataclass
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr, with nothing beside it."""
        assert self.code != 0, self.out
        assert self.out == ""
        assert self.err.startswith("latchkey: ") and self.err.endswith("\n")
        assert self.err.count("\n") == 1 and "\r" not in self.err and "\x1b" not in self.err
        return self.err.removeprefix("latchkey: ").rstrip("\n")

    @property
    def said(self) -> str:
        assert (self.code, self.err) == (0, "")
        return self.out


Run = Callable[..., Ran]


@pytest.fixture
def run(
    app: Flask, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """`run("create-key", "--project", "shop", …, stdin="")` on this test's installation."""
    monkeypatch.setenv("LATCHKEY_DATA_DIR", str(config.data_dir))
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", config.database_url)
    monkeypatch.setenv("LATCHKEY_SECRET_KEY", config.secret_key)

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["latchkey", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        db.close()
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Ran(code, *capsys.readouterr())

    yield run
    db.close()


# --- projects, people -----------------------------------------------------------------------


def test_create_project_says_that_it_is_there(run: Run) -> None:
    assert run("create-project", "--slug", "shop").said == "Project shop created.\n"
    project = Project.get()
    assert (project.slug, project.name, project.prefix) == ("shop", "shop", "lk")
    assert (project.key_format, project.shows_environment) == ("base62", True)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ((), r"lk_live_[0-9A-Za-z]{36}"),
        (("--prefix", "sk"), r"sk_live_[0-9A-Za-z]{36}"),
        (("--prefix", "vc", "--format", "hex32"), r"vc_[0-9a-f]{32}"),
        (("--prefix", "vctl", "--no-environment"), r"vctl_[0-9A-Za-z]{36}"),
        (("--prefix", "vsp_sk"), r"vsp_sk_[0-9A-Za-z]{36}"),
    ],
)
def test_create_key_prints_the_secret_alone(run: Run, options: tuple[str, ...], shape: str) -> None:
    run("create-project", "--slug", "shop", *options)
    printed = run("create-key", "--project", "shop", "--name", "CI").said
    assert re.fullmatch(shape + r"\n", printed)


def test_create_admin_reads_the_password_from_stdin(run: Run) -> None:
    ran = run(
        "create-admin", "--email", "Ada@Example.com", "--name", "Ada", "--password-stdin",
        stdin=f"{PASSWORD}\r\nnot this line\n".encode(),
    )  # fmt: skip
    assert ran.said == "ada@example.com is an owner.\n"
    person = Person.get()
    assert (person.email, person.name, person.is_owner) == ("ada@example.com", "Ada", True)
    assert signin.with_password("ada@example.com", PASSWORD, ip=None)


def test_create_admin_adds_a_further_owner(run: Run, owner: Actor) -> None:
    ran = run(
        "create-admin", "--email", "grace@example.com", "--password-stdin", stdin=PASSWORD.encode()
    )
    assert ran.said
    assert Person.select().where(Person.is_owner).count() == 2


def test_login_link_prints_the_link_alone(run: Run, app: Flask, member: Actor) -> None:
    ran = run("login-link", "--email", "Bob@Example.com")
    assert ran.code == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/login-link\?token=[\w-]{43}\n", ran.out)
    assert ran.err == "It signs in as bob@example.com, once, within 15 minutes.\n"
    token = ran.out.strip().partition("?token=")[2]
    assert app.test_client().post("/login-link", data={"token": token}).status_code == 303
    made = Event.get(Event.action == "person.login_link_made")
    assert (made.actor_kind, made.actor_name) == ("command", "command line")


# --- keys -----------------------------------------------------------------------------------


def test_create_key_takes_its_settings(run: Run, project: Project, clock: Clock) -> None:
    created = json.loads(
        run(
            "create-key", "--project", "shop", "--name", "CI", "--permission", "tasks:read",
            "--permission", "tasks:write", "--environment", "test", "--expires-in", "90d", "--json",
        ).said
    )  # fmt: skip
    assert created.keys() == KEY_FIELDS | {"key"}
    assert created["key"].startswith("sk_test_")
    assert created["permissions"] == ["tasks:read", "tasks:write"]
    assert created["expires_at"] == "2027-02-18T10:30:00Z"
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.actor_kind) == ("key.created", "command")
    assert created["key"] not in str(event.changes)


def test_list_keys_prints_a_line_for_each_newest_first(
    run: Run, make_key: MakeKey, clock: Clock
) -> None:
    old, secret = make_key(name="Old one")
    clock.move("1m")
    new, _ = make_key(name="Новый ключ")
    keys.revoke(new.id, by=command_line())
    listed = run("list-keys", "--project", "shop").said.splitlines()
    assert [line.split()[0] for line in listed] == [new.id, old.id]
    assert "revoked" in listed[0] and listed[0].endswith("Новый ключ")
    assert "active" in listed[1] and listed[1].endswith("Old one")
    assert secret[:12] in listed[1] and secret not in listed[1]


def test_list_keys_of_a_project_with_none_prints_nothing(run: Run, project: Project) -> None:
    assert run("list-keys", "--project", "shop").said == ""
    assert run("list-keys", "--project", "shop", "--json").said == "[]\n"


def test_list_keys_in_json_is_every_key_object(
    run: Run, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LIMIT_MAX", 2)
    made = {make_key(name=str(number))[0].id for number in range(5)}
    listed = json.loads(run("list-keys", "--project", "shop", "--json").said)
    assert {key["id"] for key in listed} == made and len(listed) == 5
    assert all(key.keys() == KEY_FIELDS for key in listed)


def test_revoke_key_stops_it_and_is_content_when_it_is_stopped(run: Run, make_key: MakeKey) -> None:
    key, _ = make_key(name="CI")
    assert run("revoke-key", key.id).said == "CI is revoked.\n"
    assert Key.get_by_id(key.id).revoked_at is not None
    assert run("revoke-key", key.id).said == "CI is revoked.\n"
    assert Event.select().where(Event.action == "key.revoked").count() == 1


def test_rotate_key_prints_the_new_secret_alone(run: Run, make_key: MakeKey) -> None:
    key, old = make_key()
    new = run("rotate-key", key.id).said.strip()
    assert new.startswith("sk_live_") and new != old
    assert Key.get_by_id(key.id).prefix == new[:12]


def test_rotate_key_with_grace_tells_in_json_when_the_old_secret_ends(
    run: Run, make_key: MakeKey, clock: Clock
) -> None:
    key, _ = make_key()
    rotated = json.loads(run("rotate-key", key.id, "--grace", "24h", "--json").said)
    assert rotated.keys() == KEY_FIELDS | {"key", "previous_secret_expires_at"}
    assert rotated["previous_secret_expires_at"] == "2026-11-21T10:30:00Z"
    rotated = json.loads(run("rotate-key", key.id, "--json").said)
    assert rotated["previous_secret_expires_at"] is None


def test_delete_key_wants_the_name_typed(run: Run, make_key: MakeKey) -> None:
    key, _ = make_key(name="CI, production")
    refused = run("delete-key", key.id, "--confirm", "CI")
    assert refused.error == "confirm: type the key's name, CI, production, exactly"
    assert "--confirm" in run("delete-key", key.id).error
    assert Key.select().count() == 1
    ran = run("delete-key", key.id, "--confirm", "CI, production")
    assert ran.said == "CI, production is deleted.\n"
    assert Key.select().count() == 0


# --- errors ---------------------------------------------------------------------------------

ON_SHOP = ("--project", "shop")
NEW_KEY = ("create-key", *ON_SHOP, "--name", "CI")
ERRORS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no such command": (("create-keys",), 2, "No such command 'create-keys'"),
    "no such option": (("migrate", "--fast"), 2, "No such option '--fast'"),
    "option left out": (("create-key",), 2, "Missing option '--project'"),
    "argument left out": (("revoke-key",), 2, "Missing argument 'ID'"),
    "argument too many": (("revoke-key", "a", "b"), 2, "unexpected extra argument"),
    "no such project": (("list-keys", "--project", "nowhere"), 1, "There is no project nowhere"),
    "no such key": (("revoke-key", "key_nobody"), 1, "There is no such key"),
    "rotate nobody": (("rotate-key", "key_nobody"), 1, "There is no such key"),
    "delete nobody": (("delete-key", "key_nobody", "--confirm", "x"), 1, "There is no such key"),
    "empty name": (("create-key", *ON_SHOP, "--name", ""), 1, "name: must not be empty"),
    "hidden character": (("create-key", *ON_SHOP, "--name", "a\u202eb"), 1, "U+202E"),
    "bad permission": ((*NEW_KEY, "--permission", "tasks"), 1, "must look like tasks:read"),
    "bad length": ((*NEW_KEY, "--expires-in", "soon"), 1, "expires_in: must be a length such as"),
    "empty length": ((*NEW_KEY, "--expires-in", ""), 1, "expires_in: must be a length such as"),
    "bad environment": ((*NEW_KEY, "--environment", "prod"), 1, "must be live or test"),
    "empty environment": ((*NEW_KEY, "--environment", ""), 1, "must be live or test"),
    "bad slug": (("create-project", "--slug", "My Shop"), 1, "slug: must be 1–40 lowercase"),
    "taken slug": (("create-project", "--slug", "shop"), 1, "There is a project shop already"),
    "bad prefix": (("create-project", "--slug", "a", "--prefix", "SK"), 1, "prefix: must start"),
    "bad format": (("create-project", "--slug", "a", "--format", "x"), 1, "base62 or hex32"),
    "nobody to type": (("create-admin", "--email", "a@b.example"), 2, "add --password-stdin"),
    "nobody there": (("login-link", "--email", "x@y.example"), 1, "there is no person x@y.example"),
    "bad port": (("serve", "--port", "0"), 2, "'--port'"),
    "bad host": (("serve", "--host", "not a host"), 2, "LATCHKEY_HOST"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_that_says_what_to_do(
    run: Run, project: Project, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = run(*arguments)
    assert words in ran.error
    assert ran.code == code
    assert Key.select().count() == 0


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", "password: must have at least 8 characters"),
        (b"\n" + PASSWORD.encode(), "password: must have at least 8 characters"),
        (b"x" * 2000, "password: must have at most"),
        (b"\xff\xfe" * 8, "UTF-8"),
    ],
)
def test_create_admin_refuses_a_password_that_is_none(run: Run, stdin: bytes, words: str) -> None:
    ran = run("create-admin", "--email", "a@b.example", "--password-stdin", stdin=stdin)
    assert words in ran.error
    assert Person.select().count() == 0


def test_create_admin_refuses_an_address_that_is_known(run: Run, owner: Actor) -> None:
    ran = run("create-admin", "--email", owner.name, "--password-stdin", stdin=PASSWORD.encode())
    assert ran.error == "ada@example.com is a person already."


def test_what_was_typed_cannot_colour_the_screen_or_forge_a_line(run: Run) -> None:
    ran = run("list-keys", "--project", "a\nlatchkey: all is well\x1b[31m\u202e")
    assert ran.error == "There is no project a latchkey: all is well [31m ."


def test_an_argument_that_is_not_utf_8_names_nothing_here(run: Run) -> None:
    assert run("list-keys", "--project", "\udcff").error
    assert run("revoke-key", "\udcff").error
    assert "U+DCFF" in run("create-admin", "--email", "\udcff@b.example", "--password-stdin").error


def test_without_a_command_the_commands_are_listed(run: Run) -> None:
    for arguments, code in (((), 2), (("--help",), 0)):
        ran = run(*arguments)
        assert ran.code == code
        for command in (
            "serve", "create-admin", "create-project", "create-key", "list-keys", "revoke-key",
            "rotate-key", "delete-key", "login-link", "migrate", "prune", "doctor",
        ):  # fmt: skip
            assert f"  {command} " in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("KEY_LIMIT", "0"),
        ("AUDIT_MODE", "loose"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("COLOUR", "red"),
        ("DATABASE_URL", "mysql://x/y"),
        ("GEOIP_DATABASE", "/nowhere.mmdb"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_every_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LATCHKEY_{name}", value)
    for command in ("migrate", "doctor", "serve"):
        ran = run(command)
        assert ran.code == 2
        assert f"LATCHKEY_{name}" in ran.error


def test_a_file_that_is_no_database_is_an_error_of_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.db").write_text("Dear reader, " * 1000)
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", f"sqlite:///{tmp_path}/letter.db")
    assert "the database cannot be used" in run("migrate").error


@pytest.mark.sqlite
def test_a_full_disk_is_named_and_not_the_rollback_after_it(
    run: Run, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = db.open_database

    def without_room(*args: Any, **named: Any) -> Any:
        opened = connect(*args, **named)
        [(pages,)] = opened.execute_sql("pragma page_count")
        opened.execute_sql(f"pragma max_page_count = {pages}")
        return opened

    monkeypatch.setattr(db, "open_database", without_room)
    ran = run("create-project", "--slug", "long", "--name", "n" * 80)
    while ran.code == 0:
        ran = run("create-project", "--slug", f"p{time.time_ns()}")
    assert ran.error == "the database cannot be used: the disk is full: make room"


def test_a_data_directory_that_is_a_file_is_an_error_of_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATCHKEY_DATA_DIR", str(tmp_path / "file"))
    ran = run("migrate")
    assert ran.code == 2
    assert "LATCHKEY_DATA_DIR" in ran.error


def test_a_newer_schema_is_refused_by_every_command(run: Run, project: Project) -> None:
    db.handle.execute_sql(
        "insert into schema_migration (name, applied) values ('9999_later', '2026-11-20')"
    )
    try:
        for arguments in (("migrate",), ("serve",), NEW_KEY):
            ran = run(*arguments)
            assert ran.code == 2
            assert "newer version" in ran.error and "9999_later" in ran.error
        assert Key.select().count() == 0
    finally:
        db.handle.execute_sql("delete from schema_migration where name = '9999_later'")


# --- migrate, prune, doctor -----------------------------------------------------------------


def test_migrate_may_run_again(run: Run) -> None:
    for _ in range(2):
        assert run("migrate").said == "The database is at this version.\n"


def test_prune_applies_retention_now(
    run: Run, make_key: MakeKey, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = make_key()
    client = app.test_client()
    client.get("/api/v1/whoami", headers=bearer(secret))
    clock.move("8d")
    client.get("/api/v1/whoami", headers=bearer(secret))
    assert run("prune").said == "0 entries and 0 events were past their time.\n"
    monkeypatch.setenv("LATCHKEY_RETENTION_DAYS", "7")
    assert run("prune").said == "1 entries and 0 events were past their time.\n"
    assert Entry.select().count() == 1


def test_doctor_names_what_to_mend_and_then_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 53, 0))
    run("migrate")
    ran = run("doctor")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == (
        "nobody can sign in yet: run create-admin, or open the link that serve prints\n"
    )
    run("create-admin", "--email", "a@b.example", "--password-stdin", stdin=PASSWORD.encode())
    assert run("doctor").said == "Nothing to mend.\n"
    monkeypatch.setenv("LATCHKEY_TRUSTED_PROXIES", "0.0.0.0/0")
    monkeypatch.setenv("LATCHKEY_HOST", "0.0.0.0")
    ran = run("doctor")
    assert ran.code == 1
    assert [line.split("=")[0].split()[0] for line in ran.out.splitlines()] == [
        "LATCHKEY_TRUSTED_PROXIES",
        "LATCHKEY_HOST",
    ]


# --- demo -----------------------------------------------------------------------------------


@pytest.fixture
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "fill", partial(demo.fill, share=0))


@pytest.mark.usefixtures("few_requests")
def test_demo_prints_how_to_sign_in_and_a_key_to_try(run: Run) -> None:
    said = run("demo").said
    assert said.startswith("The demo is ready: 3 projects, 46 keys and ")
    assert said.endswith("Next: the command serve, with the same settings.\n")
    email, password = re.findall(r"^(?:Email|Password): +(\S+)$", said, re.MULTILINE)
    assert signin.with_password(email, password, ip=None)[1].is_owner
    (secret,) = re.findall(r"Bearer (\S+)\"", said)
    assert check.explain(check.Request(secret, "req_1"))[0].is_valid


@pytest.mark.usefixtures("few_requests")
def test_demo_refuses_what_is_not_empty_and_says_what_to_do(run: Run) -> None:
    assert run("demo", "--password-stdin", stdin=f"{PASSWORD}\n".encode()).said
    assert "LATCHKEY_DATA_DIR=" in run("demo").error
    assert signin.with_password(demo.OWNER, PASSWORD, ip=None)


@pytest.mark.usefixtures("few_requests")
def test_demo_again_fills_what_is_empty_and_then_only_gives_a_new_password(run: Run) -> None:
    passwords = []
    for beginning in ("The demo is ready", "The demo is here already"):
        said = run("demo", "--again").said
        assert said.startswith(beginning) and "Next:" not in said
        passwords += re.findall(r"^Password: +(\S+)$", said, re.MULTILINE)
    assert Project.select().count() == 3
    with pytest.raises(Unauthenticated):
        signin.with_password(demo.OWNER, passwords[0], ip=None)
    assert signin.with_password(demo.OWNER, passwords[1], ip=None)


def test_demo_again_leaves_alone_what_is_no_demo(run: Run, owner: Actor) -> None:
    assert "LATCHKEY_DATA_DIR=" in run("demo", "--again").error
    assert signin.with_password(owner.name, PASSWORD, ip=None)


# --- serve: what it prints ------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where `serve` would have listened; it announces itself and ends."""
    listened: list[tuple[str, int]] = []

    def serve(
        app: Any, host: str, port: int, *, is_quick: Any, on_start: Any, on_stop: Any
    ) -> None:
        listened.append((host, port))
        on_start()
        on_stop()

    monkeypatch.setattr(server, "serve", serve)
    return listened


def test_serve_prints_the_address_and_a_set_up_link_while_there_is_nobody(
    run: Run, served: list[tuple[str, int]], config: Config
) -> None:
    address, link = run("serve").said.splitlines()
    assert address == f"Latchkey serves http://127.0.0.1:8000 (data in {config.data_dir})"
    token = link.removeprefix("Become the owner: http://127.0.0.1:8000/setup?token=")
    assert len(token) >= 43 and Link.select().count() == 1
    assert token not in str(list(Link.select().dicts()))


def test_serve_prints_no_link_once_there_is_somebody(
    run: Run, served: list[tuple[str, int]], owner: Actor
) -> None:
    (address,) = run("serve").said.splitlines()
    assert address.startswith("Latchkey serves http://127.0.0.1:8000 ")
    assert Link.select().count() == 0


def test_serve_takes_host_and_port_from_the_command_line_first(
    run: Run, served: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "port").write_text("9001\n")
    monkeypatch.setenv("LATCHKEY_PORT_FILE", str(tmp_path / "port"))
    monkeypatch.setenv("LATCHKEY_HOST", "127.0.0.2")
    assert "http://127.0.0.2:9001" in run("serve").said
    assert "http://[::1]:9002" in run("serve", "--host", "::1", "--port", "9002").said
    assert served == [("127.0.0.2", 9001), ("::1", 9002)]


def test_serve_prints_the_public_address_where_there_is_one(
    run: Run, served: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATCHKEY_BASE_URL", "https://keys.example.com")
    address, link = run("serve").said.splitlines()
    assert address.startswith("Latchkey serves https://keys.example.com ")
    assert link.startswith("Become the owner: https://keys.example.com/setup?token=")


# --- real processes -------------------------------------------------------------------------


def status_of(url: str, secret: str) -> int:
    request = urllib.request.Request(url, headers=bearer(secret))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.service
def test_a_running_server_obeys_the_command_line_at_the_next_check(server: RunningServer) -> None:
    assert server.run("create-project", "--slug", "shop", "--prefix", "sk").returncode == 0
    made = server.run("create-key", "--project", "shop", "--name", "CI", "--json")
    key = json.loads(made.stdout)
    whoami = f"{server.url}/api/v1/whoami"
    assert status_of(whoami, key["key"]) == 200
    rotated = server.run("rotate-key", key["id"]).stdout.strip()
    assert (status_of(whoami, key["key"]), status_of(whoami, rotated)) == (401, 200)
    assert server.run("revoke-key", key["id"]).returncode == 0
    assert status_of(whoami, rotated) == 401
    assert server.run("delete-key", key["id"], "--confirm", "CI").returncode == 0
    assert server.run("list-keys", "--project", "shop").stdout == ""


@pytest.mark.service
def test_a_running_server_shows_the_demo_at_once(server: RunningServer) -> None:
    ran = server.run("demo", "--password-stdin", stdin=PASSWORD)
    assert (ran.returncode, ran.stderr) == (0, "")
    (secret,) = re.findall(r"Bearer (\S+)\"", ran.stdout)
    assert status_of(f"{server.url}/api/v1/whoami", secret) == 200
    assert status_of(server.setup_url, "") == 404
    assert server.run("demo").returncode == 1


@pytest.mark.service
def test_a_failing_command_leaves_one_line_and_its_status(server: RunningServer) -> None:
    ran = server.run("create-key", "--project", "nowhere", "--name", "CI")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "latchkey: There is no project nowhere.\n"


@pytest.mark.service
def test_serve_prints_the_link_until_somebody_has_used_it(server: RunningServer) -> None:
    link = server.setup_url  # waits for it
    assert server.log.splitlines() == [
        f"Latchkey serves {server.url} (data in {server.data_dir})",
        f"Become the owner: {link}",
    ]
    server.run("create-admin", "--email", "a@b.example", "--password-stdin", stdin=PASSWORD)
    server.stop()
    server.start()
    server.stop()
    assert server.log.count("Latchkey serves") == 2
    assert server.log.count("Become the owner") == 1


@pytest.mark.service
def test_the_server_outlives_its_idle_threads(server: RunningServer) -> None:
    """An idle thread that ends takes its database connection along, and once took the process."""

    def ask(_: object = None) -> int:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=10) as answer:
            return int(answer.status)

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(60))) == {200}
    deadline = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < deadline:
        assert server.process is not None and server.process.poll() is None, server.log
        time.sleep(0.5)
    assert ask() == 200


def test_kill_9_leaves_nobody_serving(server: RunningServer) -> None:
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    assert [path.read_text() for path in children if path.read_text()] == []
    assert is_listening(server.port)
    server.kill()
    assert not is_listening(server.port)


@pytest.mark.service
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_request_under_way_is_answered_before_the_end(
    server: RunningServer, ending: signal.Signals
) -> None:
    server.run("create-project", "--slug", "shop")
    made = server.run(
        "create-key", "--project", "shop", "--name", "CI", "--permission", "keys:write"
    )
    body = b'{"name": "made while stopping"}'
    head = (
        "POST /api/v1/api-keys HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {made.stdout.strip()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    assert server.process is not None
    with ExitStack() as opened:
        idle = opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 ")
        under_way = opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        under_way.settimeout(10)
        under_way.sendall(head.encode() + body[:5])
        # The idle connection is closed as soon as the server has begun to stop.
        server.process.send_signal(ending)
        idle.settimeout(10)
        while idle.recv(4096):
            pass
        assert server.process.poll() is None
        assert not is_listening(server.port)  # so whoever asks /readyz now learns of it
        under_way.sendall(body[5:])
        answer = b"".join(iter(lambda: under_way.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    assert b"made while stopping" in answer and answer.endswith(b"}")
    assert server.process.wait(timeout=10) == 0
    assert not is_listening(server.port)
    assert "made while stopping" in server.run("list-keys", "--project", "shop").stdout


@pytest.mark.service
def test_what_was_only_counted_is_stored_at_the_end(server: RunningServer) -> None:
    for _ in range(3):
        assert status_of(f"{server.url}/api/v1/whoami", "no key at all") == 401
    server.stop()
    counted = server.query("select ip, code, count from attempt")
    assert counted == [("127.0.0.1", "API_KEY_MALFORMED", 3)]


@pytest.mark.service
def test_a_port_in_use_is_refused_not_shared(server: RunningServer) -> None:
    second = server.run("serve")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.count("\n") == 1
    assert f"LATCHKEY_PORT={server.port} cannot be listened on" in second.stderr


@pytest.mark.service
@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_an_error_of_one_line(tmp_path: Path, host: str) -> None:
    ran = RunningServer(tmp_path / "data").run("serve", "--host", host)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"latchkey: LATCHKEY_HOST='{host}'")
    assert ran.stderr.count("\n") == 1


@pytest.mark.service
def test_a_second_server_beside_the_first_takes_another_port(server: RunningServer) -> None:
    server.run("create-project", "--slug", "shop")
    secret = server.run("create-key", "--project", "shop", "--name", "CI").stdout.strip()
    port = free_port()
    second = subprocess.Popen(
        [sys.executable, "-m", "console", "serve", "--host", "localhost", "--port", str(port)],
        cwd=ROOT,
        env={**server.environ, "LATCHKEY_TRUSTED_PROXIES": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert second.stdout is not None
        assert second.stdout.readline().startswith(f"Latchkey serves http://localhost:{port} ")
        whoami = f"http://localhost:{port}/api/v1/whoami"
        assert status_of(whoami, secret) == status_of(f"{server.url}/api/v1/whoami", secret) == 200
    finally:
        second.terminate()
        second.communicate(timeout=10)
    assert second.returncode == 0
