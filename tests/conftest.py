"""What the tests share: an installation on a temporary database, people, a clock, real servers."""

import gc
import gzip
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pyotp
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import config as settings
from config import Config
from console import (
    actor,
    alerts,
    audit,
    chain,
    check,
    clock,
    create_app,
    db,
    journal,
    keys,
    partitions,
    passwords,
    projects,
    second_factor,
    secret,
    sessions,
    signin,
)
from console.actor import Actor
from console.alert_rules import UNUSED
from console.alerts import Finding
from console.errors import Refused
from console.invitations import Sent
from console.models import TABLES, Alert, Change, Key, Membership, Person, Project
from console.web import static
from tests import databases
from tests.databases import TEST_DATABASE_URL, USED, own_database, why_not
from tests.server import RunningServer

T = TypeVar("T")
PASSWORD = "correct horse battery"
V1 = "/api/v1"
PROBLEM_FIELDS = {"type", "title", "status", "code", "detail", "request_id"}
# In the order in which rows may go; on PostgreSQL alone, where Change is not used.
EMPTIED = [table._meta.table_name for table in reversed(TABLES) if table is not Change]
EMPTY = f"""
do $$
declare name text;
begin
  foreach name in array array{EMPTIED} loop
    execute 'delete from ' || quote_ident(name);
  end loop;
  perform setval(seqrelid::regclass, 1, false) from pg_sequence
    where pg_sequence_last_value(seqrelid) is not null
      and seqrelid::regclass::text <> 'schema_migration_id_seq';
end $$"""


def pytest_configure() -> None:
    """Without the PostgreSQL that is named all is skipped, or fails where nothing may be."""
    if TEST_DATABASE_URL and (reason := why_not()):
        code = pytest.ExitCode.USAGE_ERROR if os.environ.get("TESTS_SKIP_NOTHING") else 0
        pytest.exit(f"Nothing was tested on PostgreSQL: {reason}", returncode=code)


def pytest_collection_finish() -> None:
    """What is there by now stays: that it is looked through for garbage again and again costs a
    tenth of all time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is a matter of the other kind of database alone is not run, and not called skipped."""
    other = "sqlite" if TEST_DATABASE_URL else "postgresql"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


def cannot_run(reason: str) -> NoReturn:
    """The test is skipped, or fails where nothing may be."""
    if os.environ.get("TESTS_SKIP_NOTHING"):
        pytest.fail(reason)
    pytest.skip(reason)


def need(program: str, install: str = "") -> str:
    """The program's path; without it the test cannot run."""
    path = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
    if path is None:
        cannot_run(f"{program} is not installed ({install or f'apt-get install {program}'})")
    return path


def need_redis(url: str) -> None:
    """Without a Redis that answers the test cannot run."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1) as store:
            store.ping()
    except redis.RedisError as error:
        cannot_run(f"no Redis answers at {url}: {error}")


@pytest.fixture(autouse=True, scope="session")
def _cheap_passwords() -> None:
    passwords.hasher.update(argon2__memory_cost=8, argon2__time_cost=1)


@pytest.fixture(autouse=True, scope="session")
def _routes_compiled_once() -> Iterator[None]:
    """What a route matches and how its address is built is made of its rule alone; each application
    would compile all of them anew, nine tenths of the time that it takes to make one."""
    compiled: dict[Any, Rule] = {}
    compile_rule = Rule.compile

    def once(rule: Rule) -> None:
        made_of = (rule.rule, repr(rule.defaults), rule.subdomain, rule.host, rule.merge_slashes)
        like = compiled.get(made_of)
        if like is None:
            compile_rule(rule)
            compiled[made_of] = rule
            return
        rule._parts, rule._trace, rule._converters = like._parts, like._trace, like._converters
        rule.arguments = set(like.arguments)
        rule._build = like._build.__func__.__get__(rule)
        rule._build_unknown = like._build_unknown.__func__.__get__(rule)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "compile", once)
        patch.setattr(static.gzip, "compress", cache(gzip.compress))
        yield


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The defaults, on a data directory of this test's own."""
    return config_in(tmp_path)


def config_in(directory: Path) -> Config:
    environ = {"LATCHKEY_DATA_DIR": str(directory / "data")}
    if TEST_DATABASE_URL:
        environ["LATCHKEY_DATABASE_URL"] = TEST_DATABASE_URL
    return replace(settings.load(environ), secret_key="k" * 40)


@pytest.fixture(autouse=True, scope="session")
def _own_database() -> Iterator[None]:
    with own_database() if TEST_DATABASE_URL else nullcontext():
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A database file with the schema in it, to copy: quicker than to migrate for each test."""
    if TEST_DATABASE_URL:
        return None
    path = tmp_path_factory.mktemp("migrated") / "latchkey.db"
    db.open_database(f"sqlite:///{path}")
    db.migrate(path.with_suffix(".lock"))
    db.close()
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> FileSystemBytecodeCache:
    """Templates, once compiled: each application would compile them anew, a third of all time."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("compiled")))


@pytest.fixture
def app(
    config: Config, migrated: Path | None, compiled: FileSystemBytecodeCache
) -> Iterator[Flask]:
    """The application; its database is empty but for the schema."""
    with installation(config, migrated, compiled) as app:
        yield app


@contextmanager
def installation(
    config: Config, migrated: Path | None, compiled: FileSystemBytecodeCache
) -> Iterator[Flask]:
    if migrated:
        config.data_dir.mkdir()
        shutil.copy(migrated, config.data_dir)
    app = create_app(config, in_background=False)
    app.config.update(TESTING=False, WTF_CSRF_ENABLED=False)
    app.jinja_env.bytecode_cache = compiled
    if not db.is_sqlite():
        db.handle.execute_sql(EMPTY)
        chain.begin()
        undivide()
    audit._attempts.clear()
    yield app
    journal.close()
    db.close()


def undivide() -> None:
    """All entries of our tests lie where none has a day of its own, also after a test in which
    those days have passed and gone."""
    there = partitions.all_of_them()
    if any(one.end_at and not one.is_of_days for one in there):
        return
    for one in there:
        if one.is_of_days:
            db.handle.execute_sql(f'drop table "{one.name}"')
    end = (int(time.time()) // 86_400 + 1) * clock.DAY
    db.handle.execute_sql(
        f'create table "entry_before_{clock.iso(end)[:10].replace("-", "")}" '
        f'partition of "entry" for values from (minvalue) to ({end})'
    )


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser or script that is not signed in."""
    return app.test_client()


MakeDatabase = Callable[[], str]


@pytest.fixture
def make_database(tmp_path: Path) -> Iterator[MakeDatabase]:
    """Makes the URL of a database with nothing in it, on whatever the suite runs."""
    made: list[str] = []

    def make() -> str:
        name = f"new{len(made)}"
        if not TEST_DATABASE_URL:
            made.append(name)
            return f"sqlite:///{tmp_path}/{name}.db"
        made.append(databases.another_url(name))
        databases.make_database(made[-1])
        return made[-1]

    yield make
    db.close()
    for url in made if TEST_DATABASE_URL else ():
        databases.drop_database(url)


class Clock:
    """The time, as the tests set it; starts at a fixed instant, 2026-11-20T10:30:00Z."""

    def __init__(self) -> None:
        self.instant = clock.parse("2026-11-20T10:30:00Z")

    def now(self) -> int:
        return self.instant

    def move(self, duration: str) -> None:
        self.instant = clock.after(self.instant, duration)

    def move_ms(self, milliseconds: int) -> None:
        self.instant += milliseconds


@pytest.fixture(name="clock")
def moving_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moving = Clock()
    monkeypatch.setattr(clock, "now", moving.now)
    return moving


@pytest.fixture
def operator(app: Flask) -> Actor:
    """The command line: may do everything, and is nobody."""
    return actor.command_line()


@pytest.fixture
def project(operator: Actor) -> Project:
    return projects.create({"slug": "shop", "name": "Shop", "prefix": "sk"}, by=operator)


@pytest.fixture
def other_project(operator: Actor) -> Project:
    return projects.create({"slug": "other", "name": "Other", "prefix": "ot"}, by=operator)


def add_person(email: str, *, is_owner: bool = False, **roles: str) -> Actor:
    """A person with a role in each named project, as the actor of a request. Whatever becomes of
    the session that it came with; what then follows is test_rights_end.py's."""
    person = Person.create(
        id=secret.random_id("per"),
        email=email,
        name=email.partition("@")[0],
        password_hash=passwords.hash_password(PASSWORD),
        is_owner=is_owner,
        created_at=clock.now(),
    )
    for slug, role in roles.items():
        Membership.create(person=person, project=Project.get(Project.slug == slug), role=role)
    token, _ = signin.with_password(email, PASSWORD, ip="127.0.0.1")
    found = sessions.by_session(token, ip="127.0.0.1")
    assert found is not None
    return replace(found, refuse_ended=None)


@pytest.fixture
def owner(project: Project) -> Actor:
    return add_person("ada@example.com", is_owner=True)


@pytest.fixture
def admin(project: Project) -> Actor:
    return add_person("alan@example.com", shop="admin")


@pytest.fixture
def member(project: Project) -> Actor:
    return add_person("bob@example.com", shop="member")


@pytest.fixture
def viewer(project: Project) -> Actor:
    return add_person("vera@example.com", shop="viewer")


@pytest.fixture
def stranger(project: Project, other_project: Project) -> Actor:
    """Somebody with every right, elsewhere."""
    return add_person("eve@example.com", other="admin")


def code_of(seed: str, steps: int = 0) -> str:
    """What an authenticator app shows, so many times 30 seconds from now."""
    return pyotp.TOTP(seed).generate_otp(clock.now() // second_factor.STEP + steps)


def add_second_factor(person: Actor, token: str = "") -> tuple[str, list[str]]:
    """Has the person set up an app: its seed, and the recovery codes. Their sessions end, but for
    that of `token`."""
    begun = second_factor.begin_enrolment(by=person)
    codes = second_factor.enrol(begun.sealed, code_of(begun.seed, -1), token=token, by=person)
    return begun.seed, codes


def at_once(count: int, call: Callable[[int], T]) -> list[T | Refused]:
    """Calls from so many threads that start together; what each returned or was refused with.
    On PostgreSQL some of them wait until a connection may be had."""
    barrier = threading.Barrier(count)
    connections = threading.Semaphore(USED if TEST_DATABASE_URL else count)

    def one(number: int) -> T | Refused:
        try:
            barrier.wait(timeout=30)
            with connections:
                try:
                    return call(number)
                finally:
                    db.close()
        except Refused as refused:
            return refused

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def add_alert(key: Key) -> Alert:
    """An open alert about the key: it is unused."""
    finding = Finding(UNUSED, key, 0, facts={"unused_since": "2026-11-20T10:30:00Z"})
    with db.write():
        [alert] = alerts.report([finding], clock.now())
    return alert


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The SQL that is run meanwhile, without what it is asked about."""
    run: list[str] = []
    execute = type(db.handle.obj).execute_sql

    def noted(self: Any, sql: str, *more: Any, **named: Any) -> Any:
        run.append(sql)
        return execute(self, sql, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(db.handle.obj), "execute_sql", noted)
        yield run


def token_of(sent: Sent) -> str:
    """The token of a one-time link that was not mailed."""
    assert sent.url is not None
    return sent.url.partition("?token=")[2]


def checked(request: check.Request) -> check.Verdict:
    """Checks, and stores the entry as the journal's thread would within a second."""
    verdict = check.check(request)
    journal.settle()
    return verdict


MakeKey = Callable[..., tuple[Key, str]]


@pytest.fixture
def make_key(project: Project, operator: Actor) -> MakeKey:
    """Makes a key and its secret: `make_key(name=…, permissions=[…], by=…, **settings)`."""

    def make(*, by: Actor | None = None, **fields: Any) -> tuple[Key, str]:
        settings = {"name": "CI", "project": project.slug, **fields}
        return keys.create(settings, by=by or operator)

    return make


@pytest.fixture
def signed_in(app: Flask, owner: Actor) -> FlaskClient:
    """A browser in which the owner is signed in."""
    return sign_in(app, owner)


def sign_in(app: Flask, person: Actor) -> FlaskClient:
    browser = app.test_client()
    answer = browser.post("/login", data={"email": person.name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return browser


def confirm(browser: FlaskClient) -> None:
    """Whoever is signed in there shows once more that they are there."""
    answer = browser.post("/confirm", data={"password": PASSWORD})
    assert answer.status_code == 303, answer.text


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Latchkey as a process of its own, on a free port; stopped and reaped afterwards."""
    with RunningServer(tmp_path / "data") as running:
        yield running


# --- the API ----------------------------------------------------------------------------------

Call = Callable[..., TestResponse]


@pytest.fixture
def manager(make_key: MakeKey, clock: Clock) -> tuple[Key, str]:
    """A key that manages its project's keys, and its secret; the time stands still."""
    permissions = ["keys:manage", "keys:verify", "audit:read"]
    return make_key(name="Manager", permissions=permissions)


@pytest.fixture
def call(client: FlaskClient, manager: tuple[Key, str]) -> Call:
    """`call("POST", "/api-keys", {…})` as the managing key, or as another `secret`."""

    def make(
        method: str, path: str, body: Any = None, *, secret: str | None = manager[1], **more: Any
    ) -> TestResponse:
        headers = {**(bearer(secret) if secret else {}), **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return client.open(V1 + path, method=method, headers=headers, **more)

    return make


def assert_problem(answer: TestResponse, status: int, code: str, *more: str) -> dict[str, Any]:
    """An RFC 9457 answer with exactly the promised members; returns them."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    problem: dict[str, Any] = answer.get_json()
    assert problem.keys() == PROBLEM_FIELDS | set(more)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert problem["title"] and problem["detail"]
    return problem
