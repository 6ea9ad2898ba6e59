"""Is this key good for this request: every code, their order, and what a check leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import peewee
import pytest

from config import Config
from console import addresses, audit, check, db, journal, keys, limits, secret, usage
from console.actor import Actor
from console.check import (
    CODES,
    ENVIRONMENT_MISMATCH,
    EXPIRED_KEY,
    INVALID,
    IP_NOT_ALLOWED,
    MALFORMED,
    MISSING,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    SUPERSEDED,
    UNAVAILABLE,
    VALID,
    Request,
    Verdict,
)
from console.journal import JournalFull
from console.limits import CountsUnavailable
from console.models import TABLES, Entry, Key, LimitCount, Project
from tests.conftest import Clock, MakeKey, at_once, checked

pytestmark = pytest.mark.usefixtures("clock")

HERE = "192.0.2.1"


@dataclass
class World:
    """What a case may reach for: the key at hand, its secret, and the hands that change it."""

    key: Key
    secret: str
    by: Actor
    clock: Clock

    def revoke(self) -> None:
        keys.revoke(self.key.id, by=self.by)

    def delete(self) -> None:
        keys.delete(self.key.id, by=self.by)

    def rotate(self) -> None:
        keys.rotate(self.key.id, {}, by=self.by)

    def rotate_with_grace(self) -> None:
        keys.rotate(self.key.id, {"grace_period": "1h"}, by=self.by)

    def rotate_and_wait(self) -> None:
        self.rotate_with_grace()
        self.clock.move("1h")

    def wait_a_day(self) -> None:
        self.clock.move("1d")

    def use(self) -> None:
        checked(Request(secret=self.secret, request_id="req_0", ip=HERE))


def nothing(world: World) -> None:
    """Leaves the key as it was made."""


@dataclass
class Case:
    """A key's settings, what happens to it, what is asked, and the code that must come of it."""

    code: str
    key: dict[str, Any] = field(default_factory=dict)
    ask: dict[str, Any] = field(default_factory=dict)
    happens: Callable[[World], None] = nothing
    present: Callable[[str], str | None] = str


def with_body_changed(text: str) -> str:
    return text[:-10] + ("A" if text[-10] != "A" else "B") + text[-9:]


def of_test(text: str) -> str:
    return text.replace("_live_", "_test_")


A_B = ("a:b",)
CASES = {
    "a key as it is": Case(VALID),
    "nothing": Case(MISSING, present=lambda _: None),
    "an empty string": Case(MISSING, present=lambda _: ""),
    "a word": Case(MALFORMED, present=lambda _: "password"),
    "a key cut off": Case(MALFORMED, present=lambda text: text[:-1]),
    "a key and more": Case(MALFORMED, present=lambda text: text + "A"),
    "a key with a line break": Case(MALFORMED, present=lambda text: text + "\n"),
    "a changed body": Case(MALFORMED, present=with_body_changed),
    "live turned into test": Case(MALFORMED, present=of_test),
    "upper case": Case(MALFORMED, present=str.upper),
    "digits of another script": Case(MALFORMED, present=lambda text: text[:-1] + "٣"),
    "a NUL": Case(MALFORMED, present=lambda text: text + "\0"),
    "half a surrogate pair": Case(MALFORMED, present=lambda text: "\ud800" + text),
    "a megabyte": Case(MALFORMED, present=lambda text: text * 20_000),
    "a key of nobody": Case(INVALID, present=lambda _: secret.mint("sk", "live")),
    "a hex key of nobody": Case(INVALID, present=lambda _: "vc_" + "0" * 32),
    "a deleted key": Case(INVALID, happens=World.delete),
    "an old secret": Case(SUPERSEDED, happens=World.rotate),
    "an old secret in its grace": Case(VALID, happens=World.rotate_with_grace),
    "an old secret after its grace": Case(SUPERSEDED, happens=World.rotate_and_wait),
    "a revoked key": Case(REVOKED_KEY, happens=World.revoke),
    "an expired key": Case(EXPIRED_KEY, {"expires_in": "1d"}, happens=World.wait_a_day),
    "the right project": Case(VALID, ask={"project": "shop"}),
    "another project": Case(PROJECT_MISMATCH, ask={"project": "other"}),
    "a project that does not exist": Case(PROJECT_MISMATCH, ask={"project": "?"}),
    "an empty project": Case(PROJECT_MISMATCH, ask={"project": ""}),
    "outside the asker's projects": Case(PROJECT_MISMATCH, ask={"within": frozenset({"prj_x"})}),
    "an asker without projects": Case(PROJECT_MISMATCH, ask={"within": frozenset()}),
    "the right environment": Case(VALID, ask={"environment": "live"}),
    "another environment": Case(ENVIRONMENT_MISMATCH, ask={"environment": "test"}),
    "a test key for live": Case(
        ENVIRONMENT_MISMATCH, {"environment": "test"}, {"environment": "live"}
    ),
    "an address in the list": Case(VALID, {"ip_allowlist": ["192.0.2.0/24"]}),
    "an address outside the list": Case(IP_NOT_ALLOWED, {"ip_allowlist": ["192.0.3.0/24"]}),
    "no address": Case(IP_NOT_ALLOWED, {"ip_allowlist": ["0.0.0.0/0", "::/0"]}, {"ip": None}),
    "no address and no list": Case(VALID, ask={"ip": None}),
    "a mapped address in the list": Case(
        VALID, {"ip_allowlist": ["10.0.0.0/8"]}, {"ip": "::ffff:10.9.8.7"}
    ),
    "a mapped list": Case(VALID, {"ip_allowlist": ["::ffff:10.0.0.0/104"]}, {"ip": "10.9.8.7"}),
    "a mapped address outside the list": Case(
        IP_NOT_ALLOWED, {"ip_allowlist": ["10.0.0.0/8", "::/0"]}, {"ip": "::ffff:192.0.2.1"}
    ),
    "an IPv6 address in the list": Case(
        VALID, {"ip_allowlist": ["2001:db8::/32"]}, {"ip": "2001:DB8:0::1"}
    ),
    "an IPv6 address outside the list": Case(
        IP_NOT_ALLOWED, {"ip_allowlist": ["2001:db8::1"]}, {"ip": "2001:db8::2"}
    ),
    "a permission held": Case(VALID, {"permissions": ["a:b"]}, {"permissions": A_B}),
    "a wildcard held": Case(VALID, {"permissions": ["a:*"]}, {"permissions": A_B}),
    "every permission held": Case(VALID, {"permissions": ["*"]}, {"permissions": A_B}),
    "every permission of all": Case(VALID, {"permissions": ["*:*"]}, {"permissions": A_B}),
    "admin held": Case(VALID, {"permissions": ["admin:*"]}, {"permissions": A_B}),
    "no permission held": Case(PERMISSION_DENIED, ask={"permissions": A_B}),
    "one of two held": Case(
        PERMISSION_DENIED, {"permissions": ["a:b"]}, {"permissions": ("a:b", "a:c")}
    ),
    "a wildcard needed": Case(
        PERMISSION_DENIED, {"permissions": ["a:b"]}, {"permissions": ("a:*",)}
    ),
    "another case": Case(PERMISSION_DENIED, {"permissions": ["a:B"]}, {"permissions": A_B}),
    "within the rate limit": Case(VALID, {"rate_limit": {"per_minute": 1}}),
    "over the rate limit": Case(
        RATE_LIMITED, {"rate_limit": {"per_minute": 1}}, happens=World.use
    ),
    "a cost over the rate limit": Case(RATE_LIMITED, {"plan": "free"}, {"cost": 101}),
    "within the quota": Case(VALID, {"monthly_quota": 1}),
    "over the quota": Case(QUOTA_EXCEEDED, {"monthly_quota": 1}, happens=World.use),
    "a test key over the quota": Case(
        VALID, {"monthly_quota": 1, "environment": "test"}, happens=World.use
    ),
    "nothing asked of a spent limit": Case(
        VALID, {"rate_limit": {"per_minute": 1}}, {"cost": 0}, happens=World.use
    ),
    "a foreign key that is revoked": Case(
        REVOKED_KEY, {"plan": "free"}, {"within": frozenset({"prj_x"})}, World.revoke
    ),
}  # fmt: skip


@pytest.fixture(params=CASES, name="arranged")
def arranged_case(
    request: pytest.FixtureRequest, make_key: MakeKey, operator: Actor, clock: Clock
) -> tuple[Case, World, Request]:
    case = CASES[request.param]
    key, text = make_key(**case.key)
    world = World(key, text, operator, clock)
    case.happens(world)
    asked = {"ip": HERE, "method": "GET", "endpoint": "/x", **case.ask}
    return case, world, Request(secret=case.present(text), request_id="req_1", **asked)


def entries() -> int:
    return Entry.select().count()


def told(verdict: Verdict) -> dict[str, Any]:
    """All that a verdict says to the outside."""
    return {
        "code": verdict.code,
        "status": verdict.status,
        "key": verdict.key and verdict.key.id,
        "missing": verdict.missing_permissions,
        "windows": verdict.allowance.windows,
        "shown": verdict.allowance.shown,
        "retry_after": verdict.retry_after_seconds,
    }


def everything() -> list[list[Any]]:
    return [sorted(map(repr, table.select().tuples())) for table in TABLES]


def test_the_table_has_every_code_but_the_failing_database() -> None:
    assert {case.code for case in CASES.values()} == set(CODES) - {UNAVAILABLE}


def test_a_check_answers_and_leaves_one_entry_and_dry_run_agrees(
    arranged: tuple[Case, World, Request],
) -> None:
    case, world, request = arranged
    before, entries_before = everything(), entries()
    explained, steps = check.explain(request)
    assert everything() == before and not audit._attempts
    verdict = checked(request)
    assert verdict.code == case.code
    assert verdict.status == CODES[case.code][0]
    assert told(explained) == told(verdict)
    assert next((step.code for step in steps if step.code), VALID) == case.code
    known = case.code not in (MISSING, MALFORMED, INVALID)
    assert entries() - entries_before == int(known)
    if known:
        entry = Entry.select().order_by(Entry.id.desc()).get()
        assert (entry.code, entry.status) == (verdict.code, verdict.status)
        assert (entry.key_id, entry.request_id) == (world.key.id, "req_1")
    assert verdict.is_recorded == known


def test_statuses_are_those_that_are_promised() -> None:
    assert {code: status for code, (status, _) in CODES.items()} == {
        "VALID": 200,
        "API_KEY_MISSING": 401,
        "API_KEY_MALFORMED": 401,
        "API_KEY_INVALID": 401,
        "API_KEY_SUPERSEDED": 401,
        "API_KEY_REVOKED": 401,
        "API_KEY_EXPIRED": 401,
        "PROJECT_MISMATCH": 403,
        "ENVIRONMENT_MISMATCH": 403,
        "IP_NOT_ALLOWED": 403,
        "PERMISSION_DENIED": 403,
        "RATE_LIMITED": 429,
        "QUOTA_EXCEEDED": 429,
        "UNAVAILABLE": 503,
    }


# --- the order ------------------------------------------------------------------------------


def test_the_first_failure_wins_and_spends_nothing(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    """One key and request at fault in every way; each fault is cured in turn."""
    key, old = make_key(
        expires_in="10m",
        ip_allowlist=["10.0.0.0/8"],
        rate_limit={"per_hour": 1},
        monthly_quota=1,
    )
    checked(Request(secret=old, request_id="req_0", ip="10.0.0.1"))
    _, new, _ = keys.rotate(key.id, {}, by=operator)
    keys.revoke(key.id, by=operator)
    clock.move("11m")
    asked = Request(
        secret=None,
        request_id="req_1",
        ip=HERE,
        project="other",
        environment="test",
        permissions=("a:b", "a:c"),
    )
    spent = sorted(LimitCount.select().tuples())

    def now_is(code: str, **cure: Any) -> None:
        nonlocal asked
        asked = replace(asked, **cure)
        assert check.explain(asked)[0].code == code
        assert checked(asked).code == code
        if code != VALID:
            assert sorted(LimitCount.select().tuples()) == spent

    now_is(MISSING)
    now_is(MALFORMED, secret="sk_live_x")
    now_is(INVALID, secret=secret.mint("sk", "live"))
    now_is(SUPERSEDED, secret=old)
    now_is(REVOKED_KEY, secret=new)
    keys.restore(key.id, by=operator)
    now_is(EXPIRED_KEY)
    keys.edit(key.id, {"expires_at": None}, by=operator)
    now_is(PROJECT_MISMATCH)
    now_is(ENVIRONMENT_MISMATCH, project="shop")
    now_is(IP_NOT_ALLOWED, environment="live")
    now_is(PERMISSION_DENIED, ip="10.0.0.1")
    keys.edit(key.id, {"permissions": ["a:*"]}, by=operator)
    now_is(RATE_LIMITED)
    clock.move("1h")
    now_is(QUOTA_EXCEEDED)
    keys.edit(key.id, {"monthly_quota": 2}, by=operator)
    now_is(VALID)
    assert entries() == 1 + 10


def test_the_missing_permissions_are_named_in_the_order_asked(make_key: MakeKey) -> None:
    _, text = make_key(permissions=["a:b"])
    asked = ("z:z", "a:b", "c:d")
    verdict = checked(Request(secret=text, request_id="r", permissions=asked))
    assert verdict.missing_permissions == ("z:z", "c:d")


@pytest.mark.parametrize("state", ["as it is", "revoked"])
@pytest.mark.parametrize("ask", [{"within": frozenset({"prj_x"})}, {"project": "other"}])
def test_nothing_is_told_of_a_key_of_another_project(
    make_key: MakeKey, operator: Actor, state: str, ask: dict[str, Any]
) -> None:
    key, text = make_key(plan="free")
    if state == "revoked":
        keys.revoke(key.id, by=operator)
    request = Request(secret=text, request_id="r", **ask)
    for verdict in (checked(request), check.explain(request)[0]):
        assert (verdict.key, verdict.allowance.windows) == (None, ())
    assert Entry.get().project_id == key.project_id


def test_a_key_of_the_askers_projects_is_told(make_key: MakeKey, project: Project) -> None:
    key, text = make_key()
    within = frozenset({project.id, "prj_x"})
    assert checked(Request(secret=text, request_id="r", within=within)).key.id == key.id


def test_dry_run_shows_every_rule_in_order(make_key: MakeKey) -> None:
    _, text = make_key()
    _, steps = check.explain(Request(secret=text, request_id="r", permissions=("a:b",)))
    assert [step.check for step in steps] == [
        "present", "well_formed", "known", "not_superseded", "not_revoked", "not_expired",
        "project", "environment", "ip_allowlist", "permissions", "rate_limit", "quota",
    ]  # fmt: skip
    assert [step.check for step in steps if step.code] == ["permissions"]


def test_dry_run_shows_a_spent_limit_beside_an_earlier_fault(make_key: MakeKey) -> None:
    _, text = make_key(rate_limit={"per_minute": 1})
    checked(Request(secret=text, request_id="r"))
    verdict, steps = check.explain(Request(secret=text, request_id="r", permissions=("a:b",)))
    assert verdict.code == PERMISSION_DENIED and verdict.retry_after_seconds is None
    assert [step.code for step in steps if step.code] == [PERMISSION_DENIED, RATE_LIMITED]


# --- what a check leaves --------------------------------------------------------------------


def test_the_entry_is_safe_before_the_answer(
    make_key: MakeKey, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the journal when check() returns is enough to store it after kill -9."""
    _, text = make_key()
    check.check(Request(secret=text, request_id="req_safe"))
    files = list((config.data_dir / journal.DIRECTORY).glob(f"*{journal.SUFFIX}"))
    assert [file.read_bytes().count(b"req_safe") for file in files] == [1]
    assert entries() == 0


def test_an_entry_says_what_was_asked_and_with_which_secret(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, old = make_key(permissions=["a:b"])
    _, new, _ = keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    for text in (old, new):
        checked(
            Request(
                secret=text,
                request_id="req_7",
                ip="::ffff:8.8.8.8",
                method="get",
                endpoint="/a/b",
                user_agent="curl/8",
                permissions=("a:b",),
            )
        )
    first, second = Entry.select().order_by(Entry.id)
    assert audit.as_dict(first) == {
        "id": first.id,
        "at": "2026-11-20T10:30:00Z",
        "key_id": key.id,
        "method": "GET",
        "endpoint": "/a/b",
        "ip": "8.8.8.8",
        "country": "US",
        "status": 200,
        "code": "VALID",
        "user_agent": "curl/8",
        "request_id": "req_7",
        "secret": "previous",
        "permissions": ["a:b"],
        "latency_ms": None,
    }
    assert second.secret == "current"
    used = Key.get(Key.id == key.id)
    assert (used.last_used_at, used.last_used_ip) == (clock.now(), "8.8.8.8")
    assert used.requests_total == 2
    assert [one.last_used_at for one in key.secrets] == [clock.now()] * 2


def test_a_secret_is_never_in_an_entry(make_key: MakeKey) -> None:
    _, text = make_key()
    checked(Request(secret=text, request_id="r", endpoint="/x"))
    assert text[12:] not in str(list(Entry.select().tuples()))


@pytest.mark.sqlite  # on PostgreSQL it may be an imported one
@pytest.mark.parametrize("text", [None, "", "x", "sk_live_" + "A" * 36])
def test_a_malformed_key_asks_nothing_of_the_database(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a query")

    monkeypatch.setattr(db.handle.obj, "execute_sql", forbidden)
    verdict = checked(Request(secret=text, request_id="r", ip=HERE))
    assert verdict.code == (MALFORMED if text else MISSING)
    assert sum(audit._attempts.values()) == 1


def test_parallel_checks_leave_one_entry_each(make_key: MakeKey) -> None:
    key, text = make_key()
    at_once(16, lambda n: checked(Request(secret=text, request_id=f"req_{n}")))
    assert len({entry.request_id for entry in Entry.select()}) == 16
    assert usage.totals_of(Key.get(Key.id == key.id)) == {
        "requests_today": 16, "requests_this_month": 16, "requests_total": 16,
    }  # fmt: skip


# --- a failing database ---------------------------------------------------------------------


FAILURES = (peewee.OperationalError, OSError, JournalFull, CountsUnavailable)


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize(
    "module, name", [(check, "_find"), (limits, "spend"), (audit, "record"), (journal, "append")]
)
def test_a_check_that_fails_is_unavailable_and_leaves_nothing_half_done(
    make_key: MakeKey,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    error: type[Exception],
) -> None:
    _, text = make_key(rate_limit={"per_minute": 1})
    before = everything()
    request = Request(secret=text, request_id="req_1", ip=HERE)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error("no room")

    with monkeypatch.context() as broken:
        broken.setattr(module, name, fails)
        verdict = checked(request)
    assert (verdict.code, verdict.status, verdict.retry_after_seconds) == (UNAVAILABLE, 503, 1)
    assert (verdict.key, verdict.request_id) == (None, "req_1")
    assert everything() == before
    assert checked(request).code == VALID


def test_what_fails_for_every_check_is_logged_now_and_then(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = make_key()

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(journal, "append", fails)
    monkeypatch.setattr(check, "_logged_at", 0.0)
    monkeypatch.setattr(check, "_unlogged", 0)
    for number in range(50):
        assert check.check(Request(secret=text, request_id=f"req_{number}")).code == UNAVAILABLE
    monkeypatch.setattr(check, "LOG_SECONDS", 0)
    check.check(Request(secret=text, request_id="req_last"))
    logged = [(record.__dict__["request_id"], record.getMessage()) for record in caplog.records]
    assert logged == [
        ("req_0", "a check could not be made, and 0 before it that were not logged"),
        ("req_last", "a check could not be made, and 49 before it that were not logged"),
    ]


@pytest.mark.parametrize("kind", [peewee.OperationalError, peewee.InterfaceError,
                                  peewee.DatabaseError, peewee.InternalError])  # fmt: skip
@pytest.mark.parametrize("ask", [check.check, lambda request: check.explain(request)[0]])
def test_no_failure_of_the_database_is_reported_as_a_bad_key(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], ask: Any
) -> None:
    _, text = make_key()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise kind("gone")

    monkeypatch.setattr(db.handle.obj, "execute_sql", broken)
    for presented in (text, secret.mint("sk", "live")):
        assert ask(Request(secret=presented, request_id="r")).code == UNAVAILABLE


def test_a_closed_database_is_opened_again(make_key: MakeKey) -> None:
    _, text = make_key()
    db.close()
    assert checked(Request(secret=text, request_id="r")).code == VALID


# --- addresses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address, entry, allowed",
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("10.0.0.255", "10.0.0.0/24", True),
        ("10.0.1.0", "10.0.0.0/24", False),
        ("::ffff:10.0.0.5", "10.0.0.5", True),
        ("::ffff:a00:5", "10.0.0.5", True),
        ("10.0.0.5", "::ffff:10.0.0.5", True),
        ("::10.0.0.5", "10.0.0.5", False),  # the deprecated compatible form is another address
        ("127.0.0.1", "::1", False),
        ("192.0.2.1", "::/0", False),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("192.0.2.1", "0.0.0.0/0", True),
    ],
)
def test_an_allowlist_means_the_same_however_an_address_is_written(
    address: str, entry: str, allowed: bool
) -> None:
    assert addresses.covered(address, addresses.parse_allowlist([entry])) is allowed
