"""An installation of each version before this one, with data in every table, is brought to this
one: nothing is lost, and everything works."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from config import Config
from console import chain, check, clock, create_app, db, journal, passwords, secret
from console.models import Entry, Usage
from tests.conftest import PASSWORD, MakeDatabase, checked
from tests.test_db import has_no_day, put, shape

STEPS = [path.stem for path in sorted(db.MIGRATIONS.glob("0*"))]
EMAIL = "ada@example.com"
HOUR, DAY = 3_600_000, 86_400_000

# What the later tables hold, from the version on that has them: (table, columns).
LATER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drained", {"journal": "an-old-one", "position": 4096}),
    ("kept_answer", {"id": "kept", "content": b"sealed", "expires_at": 2**45}),
    (
        "webhook",
        {
            "id": "whk_1",
            "project_id": "prj_shop",
            "url": "https://hooks.example.com/in",
            "description": "Chat",
            "events": '["key.*"]',
            "enabled": True,
            "secret": b"sealed",
        },
    ),
    (
        "delivery",
        {
            "id": "dlv_1",
            "webhook_id": "whk_1",
            "message_id": "msg_1",
            "event": "key.created",
            "payload": "{}",
            "status": "delivered",
            "attempts": 1,
            "response_status": 204,
        },
    ),
    ("recovery_code", {"digest": "c0de", "person_id": "per_ada"}),
    (
        "passkey",
        {
            "id": "pk_1",
            "person_id": "per_ada",
            "name": "Laptop",
            "public_key": b"\x01",
            "transports": "[]",
        },
    ),
    ("identity", {"issuer": "https://login.example.com", "subject": "1", "person_id": "per_ada"}),
    (
        "session",
        {
            "id": "5e55",
            "handle": "h1",
            "person_id": "per_ada",
            "kind": "browser",
            "method": "password",
            "expires_at": 2**45,
        },
    ),
    ("throttle", {"subject": "account:1", "count": 2, "last_at": 1}),
    (
        "alert",
        {
            "id": "alr_1",
            "project_id": "prj_shop",
            "key_id": "key_ci",
            "kind": "unused",
            "subject": "key_ci",
            "cause": "unused",
            "state": "open",
            "count": 1,
            "facts": '{"name": "ci", "unused_since": "2026-01-01T00:00:00Z"}',
        },
    ),
    ("place", {"key_id": "key_ci", "kind": "country", "value": "DE"}),
    (
        "letter",
        {
            "id": "let_1",
            "channel": "mail",
            "recipient": EMAIL,
            "subject": "A key ends",
            "text": "Soon.",
            "status": "delivered",
            "attempts": 1,
        },
    ),
    ("job", {"name": "watch", "position": 1}),
    ("fact", {"name": "last_backup", "value": '{"bytes": 1}'}),
)
PAGES = {
    "/projects": "Shop",
    "/projects/shop/keys": "key_off",
    "/projects/shop/keys/key_ci": "ci",
    "/projects/shop/keys/key_ci/audit-log": "/v1/tasks",
    "/projects/shop/audit-log": "203.0.113.7",
    "/projects/shop/audit-log/without-key": "198.51.100.9",
    "/projects/shop/activity": "bob",
    "/projects/shop/people": "bob@example.com",
    "/projects/shop/settings": "Shop",
    "/projects/shop/webhooks": "Webhooks",
    "/projects/shop/integrate": "auth_request",
    "/people": "bob@example.com",
    "/alerts": "Alerts",
    "/account": EMAIL,
    "/status": "watch",
}
# What these made anew: usage is counted for projects as well, and everybody signs in again.
REMADE = {"usage": "0002_journal", "session": "0006_people"}


@dataclass
class Before:
    """The installation as the older version left it: what its clients hold, and all its rows."""

    url: str
    step: str
    now: int
    current: str
    superseded: str
    revoked: str
    rows: dict[str, list[dict[str, Any]]]


def migrate_to(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that version did, which knew no later step."""
    known = tmp_path / step
    known.mkdir()
    for name in STEPS[: STEPS.index(step) + 1]:
        shutil.copy(db.MIGRATIONS / f"{name}.py", known)
    with monkeypatch.context() as patch:
        patch.setattr(db, "MIGRATIONS", known)
        db.migrate(tmp_path / "lock")


def fill_the_first(now: int) -> tuple[str, str, str]:
    """A row or more in each table of the first version; the secrets of its keys."""
    put(
        "project",
        id="prj_shop",
        slug="shop",
        name="Shop",
        prefix="sk",
        key_format="base62",
        shows_environment=True,
        permission_catalogue='[{"name": "tasks:read", "description": ""}]',
        created_at=now - 90 * DAY,
    )
    for name, is_owner in (("ada", True), ("bob", False)):
        put(
            "person",
            id=f"per_{name}",
            email=f"{name}@example.com",
            name=name,
            is_owner=is_owner,
            password_hash=passwords.hash_password(PASSWORD),
            created_at=now - 90 * DAY,
        )
    put("membership", person_id="per_bob", project_id="prj_shop", role="member")
    put("session", id="01d", person_id="per_bob", kind="browser", created_at=now, expires_at=2**45)
    put("link", digest="11", kind="invitation", created_at=now, expires_at=now + DAY)
    current, superseded, revoked = (secret.mint("sk", "live") for _ in range(3))
    for name, more in (("ci", {}), ("off", {"revoked_at": now - DAY})):
        put(
            "key",
            id=f"key_{name}",
            project_id="prj_shop",
            owner_id="per_bob",
            name=name,
            name_sort=name,
            environment="live",
            prefix=current[:12],
            plan="unlimited",
            permissions='["tasks:read"]',
            ip_allowlist="[]",
            metadata="{}",
            created_at=now - 60 * DAY,
            requests_total=42,
            **more,
        )
    put(
        "secret",
        digest=secret.digest(current),
        key_id="key_ci",
        prefix=current[:12],
        created_at=now - DAY,
    )
    put(
        "secret",
        digest=secret.digest(superseded),
        key_id="key_ci",
        prefix=superseded[:12],
        created_at=now - 60 * DAY,
        superseded_at=now - DAY,
        works_until=now + DAY,
    )
    put(
        "secret",
        digest=secret.digest(revoked),
        key_id="key_off",
        prefix=revoked[:12],
        created_at=now - 60 * DAY,
    )
    for number, code in enumerate(("VALID", "PERMISSION_DENIED"), start=1):
        put(
            "entry",
            id=number,
            at=now - number * HOUR,
            project_id="prj_shop",
            key_id="key_ci",
            code=code,
            secret="current",
            method="GET",
            endpoint="/v1/tasks",
            ip="203.0.113.7",
            country="DE",
            status=check.CODES[code][0],
            request_id=f"req_{number}",
            permissions='["tasks:read"]',
        )
    day_at = now - now % DAY
    for unit in ("hour", "day"):
        put(
            "usage",
            key_id="key_ci",
            unit=unit,
            start_at=day_at,
            project_id="prj_shop",
            allowed=40,
            denied=2,
        )
    put("limit_count", key_id="key_ci", window="month", start_at=day_at, spent=40)
    put("attempt", hour_at=day_at, ip="198.51.100.9", code="API_KEY_INVALID", count=3)
    for number, action in enumerate(("key.created", "key.rotated"), start=1):
        put(
            "event",
            id=number,
            at=now - number * HOUR,
            project_id="prj_shop",
            action=action,
            actor_kind="person",
            actor_id="per_bob",
            actor_name="bob",
            target_id="key_ci",
            target_name="ci",
            changes="{}",
        )
    if not db.is_sqlite():  # ids that are given do not move what the next ones come from
        for table in ("entry", "event"):
            db.handle.execute_sql("select setval(pg_get_serial_sequence(%s, 'id'), 2)", (table,))
    return current, superseded, revoked


def tables() -> list[str]:
    return [
        name
        for name in db.handle.get_tables()
        if "schema_migration" not in name and has_no_day(name) and name != "sqlite_sequence"
    ]


def rows_of(table: str) -> list[dict[str, Any]]:
    cursor = db.handle.execute_sql(f'select * from "{table}"')
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def rows() -> dict[str, list[dict[str, Any]]]:
    return {table: rows_of(table) for table in tables()}


@pytest.fixture(params=STEPS)
def before(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Before:
    """The database of an older version, in use since the first one."""
    url = make_database()
    db.open_database(url)
    migrate_to(STEPS[0], tmp_path, monkeypatch)
    now = clock.now()
    secrets = fill_the_first(now)
    if request.param != STEPS[0]:
        migrate_to(request.param, tmp_path, monkeypatch)
    there = rows()
    for table, columns in LATER:
        if not there.get(table, ["not yet"]):
            put(table, **columns)
    there = rows()
    assert {table for table, found in there.items() if not found} == set(), "add a row to LATER"
    return Before(url, request.param, now, *secrets, rows=there)


@pytest.fixture
def upgraded(
    before: Before, config: Config, compiled: FileSystemBytecodeCache
) -> Iterator[FlaskClient]:
    """This version, started on it: a browser that nobody is signed in with."""
    app = create_app(replace(config, database_url=before.url), in_background=False)
    app.config.update(WTF_CSRF_ENABLED=False)
    app.jinja_env.bytecode_cache = compiled
    yield app.test_client()
    journal.close()


def test_every_row_is_still_there_and_the_schema_is_a_new_ones(
    before: Before, tmp_path: Path, make_database: MakeDatabase
) -> None:
    db.migrate(tmp_path / "lock")
    after = rows()
    for table, old in before.rows.items():
        if before.step < REMADE.get(table, "") or table == "change":
            continue
        kept = [{name: row[name] for name in old[0]} for row in after[table]]
        assert [row for row in old if row not in kept] == [], table
    counts = {(row.subject_id, row.unit): (row.allowed, row.denied) for row in Usage.select()}
    for subject in ("key_ci", "prj_shop"):
        assert {counts.get((subject, unit)) for unit in ("hour", "day", "month")} == {(40, 2)}
    upgraded = shape(db.handle.obj)
    db.open_database(make_database())
    db.migrate(tmp_path / "lock")
    assert upgraded == shape(db.handle.obj)


def test_secrets_open_what_they_did(before: Before, upgraded: FlaskClient) -> None:
    assert [
        checked(check.Request(one, "req_new", ip="203.0.113.7", permissions=("tasks:read",))).code
        for one in (before.current, before.superseded, before.revoked)
    ] == ["VALID", "VALID", "API_KEY_REVOKED"]
    newest = Entry.select().order_by(Entry.id.desc()).limit(3)
    assert {(entry.key_id, entry.secret, entry.code) for entry in newest} == {
        ("key_ci", "current", "VALID"),
        ("key_ci", "previous", "VALID"),
        ("key_off", "current", "API_KEY_REVOKED"),
    }
    assert Entry.select().count() == 5


def test_the_owner_signs_in_and_sees_everything(before: Before, upgraded: FlaskClient) -> None:
    signed_in = upgraded.post("/login", data={"email": EMAIL, "password": PASSWORD})
    assert signed_in.status_code == 303
    for page, words in PAGES.items():
        answer = upgraded.get(page)
        assert (answer.status_code, words in answer.text) == (200, True), page
    made = upgraded.post("/projects/shop/keys/new", data={"name": "New", "environment": "live"})
    assert made.status_code == 200, made.text
    found = chain.verify()
    assert found.broken is None and found.count > 0
    assert found.older == len(before.rows["event"])
