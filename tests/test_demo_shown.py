"""What the demo shows: it holds together, lies in the past, and every page of it can be opened."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config as settings
from config import Config
from console import check, clock, create_app, db, demo, journal, keys, limits, signin, usage
from console.actor import ADMIN_ROLE, MEMBER, VIEWER
from console.demo import story, traffic
from console.models import (
    CURRENT,
    PREVIOUS,
    TABLES,
    TEST,
    Attempt,
    Change,
    Delivery,
    Entry,
    Event,
    Key,
    LimitCount,
    Membership,
    Person,
    Project,
    Secret,
    Session,
    Usage,
    Webhook,
)  # fmt: skip
from tests.conftest import TEST_DATABASE_URL

NOW = clock.parse("2026-11-20T10:30:00Z")
FEW = 0.03  # of the usual requests
OF_KEYS = set(check.CODES) - {check.MISSING, check.MALFORMED, check.INVALID, check.UNAVAILABLE}
PASSWORD = "a password for the demo"
PAGES_OF_A_KIND = 3


class Shown(NamedTuple):
    """An installation that was filled at NOW."""

    app: Flask
    config: Config
    made: demo.Filled


def _config(directory: Path) -> Config:
    environ = {"LATCHKEY_DATA_DIR": str(directory), "LATCHKEY_SECRET_KEY": "k" * 40}
    if TEST_DATABASE_URL:
        environ["LATCHKEY_DATABASE_URL"] = TEST_DATABASE_URL
    return settings.load(environ)


def _empty() -> None:
    for table in reversed(TABLES):
        if table is not Change:
            table.delete().execute()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Filled once for all tests that only look."""
    config = _config(tmp_path_factory.mktemp("demo") / "data")
    app = create_app(config, in_background=False)
    app.config.update(WTF_CSRF_ENABLED=False)
    _empty()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: NOW)
        yield Shown(app, config, demo.fill(PASSWORD, share=FEW))
    journal.close()
    db.close()


# --- what holds together ----------------------------------------------------------------------


def _counted(unit: str) -> dict[tuple[str, int], tuple[int, int]]:
    """What the entries add up to, by key or project and by hour, day or month."""
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for entry in Entry.select():
        for subject in (entry.key_id, entry.project_id):
            counts[subject, clock.start_of(unit, entry.at)][entry.code != check.VALID] += 1
    return {group: (allowed, denied) for group, (allowed, denied) in counts.items()}


def _stored(unit: str, since: int = 0) -> dict[tuple[str, int], tuple[int, int]]:
    rows = Usage.select().where(Usage.unit == unit, Usage.start_at >= since)
    return {(row.subject_id, row.start_at): (row.allowed, row.denied) for row in rows}


@pytest.mark.parametrize("unit", [usage.HOUR, usage.DAY])
def test_usage_is_what_the_entries_add_up_to(filled: Shown, unit: str) -> None:
    began = Entry.select().order_by(Entry.id).first().at
    assert _stored(unit, clock.start_of("day", began)) == _counted(unit)


def test_months_are_what_their_days_add_up_to(filled: Shown) -> None:
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    for (subject, day), (allowed, denied) in _stored(usage.DAY).items():
        group = subject, clock.start_of("month", day)
        before = sums.get(group, (0, 0))
        sums[group] = before[0] + allowed, before[1] + denied
    assert _stored(usage.MONTH) == sums
    assert len({month for _, month in sums}) == 12


def test_a_project_has_the_sum_of_its_keys(filled: Shown) -> None:
    of_keys = Counter(
        {project.id: sum(key.requests_total for key in project.keys) for project in Project}
    )
    for entry in Entry.select().where(Entry.key_id.not_in(Key.select(Key.id))):
        of_keys[entry.project_id] += 1  # of the key that is deleted
    stored: Counter[str] = Counter()
    for (subject, _), (allowed, denied) in _stored(usage.MONTH).items():
        if subject in of_keys:
            stored[subject] += allowed + denied
    assert stored == of_keys


def test_a_keys_last_use_is_its_last_entry(filled: Shown) -> None:
    used = 0
    for key in Key.select():
        entry = Entry.select().where(Entry.key_id == key.id).order_by(Entry.id.desc()).first()
        if entry:
            assert (key.last_used_at, key.last_used_ip) == (entry.at, entry.ip)
            used += 1
        elif key.last_used_at:
            assert key.requests_total and key.last_used_at < NOW - demo.DAYS * clock.DAY
        else:
            assert key.requests_total == 0
    assert used > 30


def test_every_entry_is_of_a_key_that_is_there_or_was_deleted(filled: Shown) -> None:
    known_ids = {key.id for key in Key.select()}
    gone = {event.target_id for event in Event.select().where(Event.action == "key.deleted")}
    assert len(gone) == 1
    assert {entry.key_id for entry in Entry.select()} - known_ids == gone


def test_a_quota_is_spent_by_what_was_let_in(filled: Shown) -> None:
    month = clock.start_of("month", NOW)
    with_quota = [key for key in Key.select() if key.monthly_quota]
    assert len(with_quota) >= 3
    for key in with_quota:
        spent = LimitCount.get(LimitCount.key_id == key.id, LimitCount.window == limits.MONTH)
        allowed, _ = _stored(usage.MONTH, month)[key.id, month]
        assert (spent.start_at, spent.spent) == (month, allowed)
        assert allowed <= key.monthly_quota


# --- what there is to see -----------------------------------------------------------------------


def test_every_verdict_on_a_known_key_is_among_the_main_projects_entries(filled: Shown) -> None:
    shop = Project.get(Project.slug == story.SHOP)
    assert {entry.code for entry in Entry.select().where(Entry.project_id == shop.id)} == OF_KEYS
    assert {row.code for row in Attempt.select()} == {check.MISSING, check.MALFORMED, check.INVALID}


def test_every_state_of_a_key_is_in_the_main_project(filled: Shown) -> None:
    shop = list(Project.get(Project.slug == story.SHOP).keys)
    assert len(shop) > 30
    assert {key.status_at(NOW) for key in shop} == {"active", "revoked", "expired"}
    assert any(0 < (key.expires_at or 0) - NOW < 6 * clock.DAY for key in shop)
    assert any(key.last_used_at is None for key in shop)
    assert any(key.environment == TEST for key in shop)
    assert any(key.ip_allowlist for key in shop)
    assert any("admin:*" in key.permissions for key in shop)
    assert {key.plan for key in shop} == {*limits.PLANS, "partner"}
    assert len({key.owner_id for key in shop}) == 4


def test_a_client_still_uses_the_old_secret_of_a_key_in_grace(filled: Shown) -> None:
    (key,) = [key for key in Key.select() if keys.grace_of(key)]
    assert key.name == story.IN_GRACE
    since = Entry.select().where(Entry.key_id == key.id, Entry.at > key.rotated_at)
    assert {entry.secret for entry in since} == {CURRENT, PREVIOUS}
    late = {client.agent for client in traffic.CLIENTS if client.keeps_old_secret}
    assert {entry.user_agent for entry in since.where(Entry.secret == PREVIOUS)} < late


def test_services_report_what_they_answered_and_how_long_it_took(filled: Shown) -> None:
    answered = Entry.select().where(Entry.code == check.VALID)
    assert {200, 201, 204, 404, 422} <= {entry.status for entry in answered}
    assert answered.where(Entry.latency_ms.is_null(False)).count() == demo.TIMED
    ours = answered.where(Entry.endpoint.startswith("/api/v1/"))
    assert {(entry.status, entry.latency_ms) for entry in ours} == {(200, None)}


def test_people_have_every_role_and_one_is_invited(filled: Shown) -> None:
    assert {row.role for row in Membership.select()} == {ADMIN_ROLE, MEMBER, VIEWER}
    assert Person.select().where(Person.is_owner).count() == 1
    assert Person.select().where(Person.password_hash.is_null()).count() == 1


def test_every_person_keeps_to_their_role(filled: Shown) -> None:
    """Whoever is said to have made a key may have made it."""
    for key in story.KEYS:
        person = next(one for one in story.PEOPLE if one.who == key.by)
        assert person.owner or person.roles[key.project] in (ADMIN_ROLE, MEMBER)


def test_every_client_has_a_key_and_every_address_a_country_or_is_private(filled: Shown) -> None:
    assert {client.key for client in traffic.CLIENTS} <= {key.name for key in story.KEYS}
    for entry in Entry.select(Entry.ip, Entry.country).distinct():
        assert entry.country or entry.ip.startswith("10.")
    assert len({entry.country for entry in Entry.select(Entry.country).distinct()}) > 12


# --- when -----------------------------------------------------------------------------------------


def _instants() -> Iterator[tuple[str, int | None]]:
    for model, names in (
        (Project, ["created_at"]), (Person, ["created_at"]), (Entry, ["at"]), (Event, ["at"]),
        (Key, ["created_at", "updated_at", "rotated_at", "revoked_at", "last_used_at"]),
        (Secret, ["created_at", "superseded_at", "last_used_at"]), (Session, ["created_at"]),
        (Usage, ["start_at"]), (Attempt, ["hour_at"]), (Webhook, ["created_at", "updated_at"]),
    ):  # fmt: skip
        for row in model.select():
            for name in names:
                yield f"{model.__name__}.{name}", getattr(row, name)


def test_nothing_lies_in_the_future(filled: Shown) -> None:
    assert [(name, at) for name, at in _instants() if at is not None and at > NOW] == []


def test_ids_ascend_with_time(filled: Shown) -> None:
    for model in (Entry, Event):
        at = [row.at for row in model.select().order_by(model.id)]
        assert at == sorted(at) and len(at) > 50


def test_requests_go_on_until_now(filled: Shown) -> None:
    assert Entry.select().where(Entry.at > NOW - 2 * clock.MINUTE).count() > 5
    assert Entry.select().order_by(Entry.id).first().at < NOW - 29 * clock.DAY


# --- safe -----------------------------------------------------------------------------------------


def test_its_secret_is_good_and_may_check_others(filled: Shown) -> None:
    text = filled.made.secret
    asked = check.Request(text, "req_1", "10.20.4.11", permissions=("keys:verify",))
    verdict, _ = check.explain(asked)
    assert verdict.code == check.VALID
    headers = {"Authorization": f"Bearer {text}"}
    answer = filled.app.test_client().post(
        "/api/v1/verify", json={"key": text, "dry_run": True}, headers=headers
    )
    assert answer.get_json()["code"] == check.VALID


def test_no_secret_and_no_password_is_stored(filled: Shown) -> None:
    for path in filled.config.data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert filled.made.secret.encode() not in content
            assert PASSWORD.encode() not in content


def test_its_webhook_is_told_nothing(filled: Shown) -> None:
    assert [webhook.enabled for webhook in Webhook.select()] == [False]
    assert not Delivery.select().exists()


def test_a_new_password_ends_the_old_one_and_its_sessions(filled: Shown) -> None:
    browser = _signed_in(filled, demo.OWNER)
    try:
        assert demo.renew_password("another password") == "another password"
        assert browser.get("/projects/storefront/keys").status_code == 303
        assert signin.with_password(demo.OWNER, "another password", ip=None)
    finally:
        demo.renew_password(PASSWORD)


# --- the pages --------------------------------------------------------------------------------


def _signed_in(filled: Shown, email: str) -> FlaskClient:
    browser = filled.app.test_client()
    answer = browser.post("/login", data={"email": email, "password": PASSWORD})
    assert answer.status_code == 303
    return browser


@pytest.mark.parametrize("email", [demo.OWNER, *demo.OTHERS])
def test_every_page_that_is_linked_is_shown(filled: Shown, email: str) -> None:
    """Follows the links from the key table on, to a few pages of each kind."""
    browser = _signed_in(filled, email)
    routes = filled.app.url_map.bind("localhost")
    to_see, seen = [f"/projects/{story.SHOP}/keys", "/"], Counter[Any]()
    visited: set[str] = set()
    failed: list[tuple[str, int]] = []
    while to_see:
        address = to_see.pop(0)
        path = urlsplit(address).path
        kind = routes.match(path)[0]
        if address in visited or seen[kind] >= PAGES_OF_A_KIND or path.startswith("/static"):
            continue
        visited.add(address)
        seen[kind] += 1
        answer = browser.get(address, follow_redirects=True)
        if answer.status_code != 200:
            failed.append((address, answer.status_code))
        if answer.mimetype == "text/html":
            to_see += [
                link.replace("&amp;", "&")
                for link in re.findall(r'<a[^>]* href="(/[^"#]*)', answer.text)
            ]
    assert failed == []
    assert f"/projects/{story.SHOP}/audit-log" in visited and len(seen) > 8
