"""The life of a key: every rule about making, finding, changing, rotating and ending one."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from peewee import IntegrityError

from console import activity, check, db, key_fields, keys, limits, projects, usage
from console.actor import Actor
from console.check import EXPIRED_KEY, INVALID, REVOKED_KEY, SUPERSEDED, VALID
from console.errors import Conflict, Invalid, Refused, Unknown
from console.models import TABLES, Change, Entry, Event, Key, LimitCount, Project, Secret
from console.secret import digest
from tests.conftest import Clock, MakeKey, at_once, checked


def ask(secret: str) -> str:
    return checked(check.Request(secret=secret, request_id="req_1", ip="192.0.2.1")).code


def events(key: Key) -> list[str]:
    rows = Event.select().where(Event.target_id == key.id).order_by(Event.id)
    return [event.action for event in rows]


def last_event(key: Key) -> Event:
    return Event.select().where(Event.target_id == key.id).order_by(Event.id.desc()).get()


def stored(key: Key) -> Key:
    return Key.get(Key.id == key.id)


def everything() -> dict[str, list[Any]]:
    """Every row of the database but its own count of changes."""
    tables = (table for table in TABLES if table != Change)
    return {table.__name__: sorted(map(repr, table.select().tuples())) for table in tables}


def live_secrets(key: Key, now: int) -> list[Secret]:
    return [one for one in key.secrets if one.superseded_at is None or now < (one.works_until or 0)]


def current_secrets(key: Key) -> int:
    return key.secrets.where(Secret.superseded_at.is_null()).count()


def refused_fields(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(Invalid) as refused:
        call()
    return list(refused.value.fields)


# --- create ---------------------------------------------------------------------------------


def test_create_stores_what_was_sent(
    make_key: MakeKey, clock: Clock, member: Actor, project: Project
) -> None:
    key, secret = make_key(
        by=member,
        name="  Nightly build ",
        description="Line one\r\nline two",
        environment="test",
        permissions=["tasks:read", "tasks:*", "tasks:read"],
        ip_allowlist=["::ffff:10.0.0.5", "2001:DB8::/32", "10.0.0.5/32"],
        expires_in="90d",
        plan="free",
        monthly_quota=1000,
        external_id="customer-7",
        metadata={"team": "growth", "tags": [1, None, True]},
    )
    assert secret.startswith("sk_test_")
    assert keys.as_dict(stored(key)) == {
        "id": key.id,
        "name": "Nightly build",
        "description": "Line one\nline two",
        "project": "shop",
        "environment": "test",
        "prefix": secret[:12],
        "owner": "bob@example.com",
        "status": "active",
        "permissions": ["tasks:read", "tasks:*"],
        "ip_allowlist": ["10.0.0.5", "2001:db8::/32"],
        "plan": "free",
        "rate_limit": {"per_minute": 100, "per_hour": 1000},
        "monthly_quota": 1000,
        "expires_at": "2027-02-18T10:30:00Z",
        "auto_renew": False,
        "renewal_period": None,
        "external_id": "customer-7",
        "metadata": {"team": "growth", "tags": [1, None, True]},
        "created_at": "2026-11-20T10:30:00Z",
        "updated_at": "2026-11-20T10:30:00Z",
        "rotated_at": None,
        "rotation_due_at": None,
        "last_used_at": None,
        "last_used_ip": None,
    }
    assert key.id.startswith("key_")


def test_a_name_is_all_that_a_key_needs(make_key: MakeKey) -> None:
    shown = keys.as_dict(make_key(name="x")[0])
    assert (shown["environment"], shown["plan"], shown["expires_at"]) == ("live", "unlimited", None)
    assert (shown["permissions"], shown["ip_allowlist"], shown["metadata"]) == ([], [], {})


def test_a_secret_is_stored_only_as_its_digest(make_key: MakeKey) -> None:
    _, secret = make_key()
    assert digest(secret) in str(everything()) and secret not in str(everything())


def test_create_needs_the_project_named_where_there_are_several(
    operator: Actor, project: Project, other_project: Project
) -> None:
    assert refused_fields(lambda: keys.create({"name": "CI"}, by=operator)) == ["project"]
    with pytest.raises(Unknown):
        keys.create({"name": "CI", "project": "nowhere"}, by=operator)


BAD_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("name", {"name": ""}),
    ("name", {"name": " \u3000 "}),
    ("name", {"name": "x" * 101}),
    ("name", {"name": "x" * 10_000}),
    ("name", {"name": "a\0b"}),
    ("name", {"name": "a\nb"}),
    ("name", {"name": "a\u0085b"}),
    ("name", {"name": "a\u200bb"}),  # zero width
    ("name", {"name": "a\u202eb"}),  # right-to-left override
    ("name", {"name": "a\u2066b"}),  # isolate
    ("name", {"name": "a\u2028b"}),
    ("name", {"name": "a\ufeffb"}),
    ("name", {"name": "a\ue000b"}),  # private use
    ("name", {"name": "a\ud800b"}),  # half a surrogate pair
    ("name", {"name": None}),
    ("name", {"name": 7}),
    ("description", {"description": "x" * 1001}),
    ("description", {"description": "a\u202eb"}),
    ("environment", {"environment": "production"}),
    ("permissions", {"permissions": ["tasks"]}),
    ("permissions", {"permissions": ["tasks: read"]}),
    ("permissions", {"permissions": ["a:" + "b" * 99]}),
    ("permissions", {"permissions": [f"tasks:{number}" for number in range(101)]}),
    ("permissions", {"permissions": "tasks:read"}),
    ("permissions.0", {"permissions": [1]}),
    ("ip_allowlist", {"ip_allowlist": ["localhost"]}),
    ("ip_allowlist", {"ip_allowlist": ["10.0.0.5/24"]}),
    ("ip_allowlist", {"ip_allowlist": ["fe80::1%eth0"]}),
    ("ip_allowlist", {"ip_allowlist": [f"10.0.0.{number}" for number in range(51)]}),
    ("ip_allowlist", {"ip_allowlist": None}),
    ("expires_in", {"expires_in": "90"}),
    ("expires_in", {"expires_in": "0d"}),
    ("expires_in", {"expires_in": "8000y"}),
    ("expires_in", {"expires_in": "99999y"}),
    ("expires_at", {"expires_at": "2026-11-20T10:30:00Z"}),  # now
    ("expires_at", {"expires_at": "2020-01-01T00:00:00Z"}),
    ("expires_at", {"expires_at": "2027-01-01T00:00:00"}),  # no zone
    ("expires_at", {"expires_at": "2027-01-01"}),
    ("expires_at", {"expires_at": "9999-12-31T23:59:59-23:59"}),
    ("expires_at", {"expires_at": "9999-12-31T23:59:59.5Z"}),
    ("expires_at", {"expires_at": "2027-01-01T00:00:00Z", "expires_in": "1d"}),
    ("auto_renew", {"auto_renew": True, "expires_at": None}),
    ("renewal_period", {"renewal_period": "30d"}),
    ("renewal_period", {"expires_in": "2d", "auto_renew": True, "renewal_period": "59m"}),
    ("external_id", {"external_id": ""}),
    ("external_id", {"external_id": "x" * 256}),
    ("external_id", {"external_id": "a\nb"}),
    ("metadata", {"metadata": []}),
    ("metadata", {"metadata": {"a": "x" * 4_090}}),
    ("metadata", {"metadata": json.loads('{"a":' * 21 + "1" + "}" * 21)}),
    ("metadata", {"metadata": {"a": json.loads("[" * 900 + "]" * 900)}}),
    ("key", {"key": "sk_live_mine"}),
    ("status", {"status": "revoked"}),
    ("prefix", {"prefix": "sk_live_mine"}),
]  # fmt: skip


@pytest.mark.parametrize("field, settings", BAD_SETTINGS, ids=[
    f"{number}-{field}" for number, (field, _) in enumerate(BAD_SETTINGS)
])  # fmt: skip
def test_create_refuses_by_name_and_stores_nothing(
    make_key: MakeKey, clock: Clock, field: str, settings: dict[str, Any]
) -> None:
    before = everything()
    assert refused_fields(lambda: make_key(**settings)) == [field]
    assert everything() == before


def test_every_field_at_fault_is_named(make_key: MakeKey) -> None:
    fields = refused_fields(lambda: make_key(name="", environment="gold", colour="red"))
    assert sorted(fields) == ["colour", "environment", "name"]


def test_a_missing_name_is_named(operator: Actor, project: Project) -> None:
    assert refused_fields(lambda: keys.create({}, by=operator)) == ["name"]


@pytest.mark.parametrize(
    "name", ["x", "x" * 100, "日本語のキー", "Ключ №1", "مفتاح", "a\u00a0b", "👩‍"[0]]
)
def test_names_in_any_script_are_kept(make_key: MakeKey, name: str) -> None:
    assert stored(make_key(name=name)[0]).name == name


def test_a_name_is_stored_composed(make_key: MakeKey) -> None:
    decomposed = unicodedata.normalize("NFD", "é" * 100)
    assert stored(make_key(name=decomposed)[0]).name == "é" * 100


def test_the_allowlist_counts_after_repeats_are_gone(make_key: MakeKey) -> None:
    fifty = [f"10.0.0.{number}" for number in range(50)]
    repeats = [f"::ffff:{address}" for address in fifty] + [f"{one}/32" for one in fifty]
    assert make_key(ip_allowlist=fifty + repeats)[0].ip_allowlist == fifty


def test_host_bits_are_refused_with_the_network_to_write(make_key: MakeKey) -> None:
    with pytest.raises(Invalid, match=r"10\.0\.0\.0/24"):
        make_key(ip_allowlist=["10.0.0.5/24"])


def test_metadata_comes_back_as_it_was_sent(make_key: MakeKey) -> None:
    metadata = {"ü": "日本", "n": [1, 2.5, -(2**63), 2**63 - 1, None, {"deep": {"er": []}}], "": ""}
    assert stored(make_key(metadata=metadata)[0]).metadata == metadata


def test_metadata_of_4096_bytes_fits(make_key: MakeKey) -> None:
    metadata = {"a": "é" * 2_043 + "x"}
    assert len(json.dumps(metadata, ensure_ascii=False).encode()) == 4_096
    assert make_key(metadata=metadata)[0].metadata == metadata
    assert refused_fields(lambda: make_key(metadata={"a": "é" * 2_043 + "xx"})) == ["metadata"]


def test_the_last_time_that_can_be_written_is_allowed(make_key: MakeKey) -> None:
    key, _ = make_key(expires_at="9999-12-31T23:59:59Z")
    assert keys.as_dict(key)["expires_at"] == "9999-12-31T23:59:59Z"


# --- the key limit --------------------------------------------------------------------------


def fill(make_key: MakeKey, count: int, **settings: Any) -> list[Key]:
    return [make_key(name=f"k{number}", **settings)[0] for number in range(count)]


def made(answers: list[Any]) -> Counter[str]:
    return Counter(getattr(answer, "code", "made") for answer in answers)


def test_ten_parallel_creates_at_19_of_20_make_exactly_one(make_key: MakeKey) -> None:
    fill(make_key, 19)
    answers = at_once(10, lambda number: make_key(name=f"p{number}"))
    assert made(answers) == {"made": 1, "KEY_LIMIT_REACHED": 9}
    assert (Key.select().count(), Secret.select().count(), Event.select().where(
        Event.action == "key.created").count()) == (20, 20, 20)  # fmt: skip


def test_ten_parallel_restores_at_19_of_20_enable_exactly_one(
    make_key: MakeKey, operator: Actor
) -> None:
    revoked = fill(make_key, 10)
    for key in revoked:
        keys.revoke(key.id, by=operator)
    fill(make_key, 19)
    answers = at_once(10, lambda number: keys.restore(revoked[number].id, by=operator))
    assert made(answers) == {"made": 1, "KEY_LIMIT_REACHED": 9}
    assert Key.select().where(Key.revoked_at.is_null()).count() == 20


def test_ten_parallel_extensions_at_19_of_20_enable_exactly_one(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    expired = fill(make_key, 10, expires_in="1h")
    clock.move("1h")
    fill(make_key, 19)
    answers = at_once(
        10, lambda number: keys.edit(expired[number].id, {"expires_in": "1d"}, by=operator)
    )
    assert made(answers) == {"made": 1, "KEY_LIMIT_REACHED": 9}
    assert Key.select().where(Key.expires_at > clock.now()).count() == 1


@pytest.mark.parametrize("change", [{"status": "active"}, {"status": "active", "name": "new"}])
def test_a_change_that_meets_the_limit_changes_nothing(
    make_key: MakeKey, operator: Actor, change: dict[str, Any]
) -> None:
    key, _ = make_key()
    keys.revoke(key.id, by=operator)
    fill(make_key, 20)
    before = everything()
    with pytest.raises(Conflict):
        keys.edit(key.id, change, by=operator)
    assert everything() == before


def test_only_live_keys_count(make_key: MakeKey, operator: Actor, clock: Clock) -> None:
    full = fill(make_key, 18) + fill(make_key, 2, expires_in="1h")
    with pytest.raises(Conflict) as refused:
        make_key()
    assert refused.value.code == "KEY_LIMIT_REACHED"
    keys.revoke(full[0].id, by=operator)
    make_key()
    clock.move("1h")
    fill(make_key, 2)
    with pytest.raises(Conflict):
        make_key()


def test_a_full_project_may_still_edit_rotate_and_revoke(
    make_key: MakeKey, operator: Actor
) -> None:
    key = fill(make_key, 20)[0]
    keys.edit(key.id, {"name": "new", "status": "active", "expires_in": "1d"}, by=operator)
    keys.rotate(key.id, {}, by=operator)
    keys.revoke(key.id, by=operator)
    keys.restore(key.id, by=operator)


def test_a_project_may_set_its_own_limit(
    make_key: MakeKey, project: Project, other_project: Project
) -> None:
    Project.update(key_limit=1).where(Project.id == project.id).execute()
    make_key()
    with pytest.raises(Conflict):
        make_key()
    assert make_key(project="other")


# --- edit -----------------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "name": ({"name": "New"}, {"name": ["CI", "New"]}),
    "description": ({"description": "d"}, {"description": ["", "d"]}),
    "permissions": ({"permissions": ["a:b"]}, {"permissions": [["t:r"], ["a:b"]]}),
    "no permissions": ({"permissions": []}, {"permissions": [["t:r"], []]}),
    "ip_allowlist": (
        {"ip_allowlist": ["10.0.0.0/8"]}, {"ip_allowlist": [["10.0.0.1"], ["10.0.0.0/8"]]}
    ),
    "expires_in": (
        {"expires_in": "7d"}, {"expires_at": ["2026-11-21T10:30:00Z", "2026-11-27T10:30:01Z"]}
    ),
    "expires_at": (
        {"expires_at": "2027-01-01T01:00:00+01:00"},
        {"expires_at": ["2026-11-21T10:30:00Z", "2027-01-01T00:00:00Z"]},
    ),
    "never": ({"expires_at": None}, {"expires_at": ["2026-11-21T10:30:00Z", None]}),
    "plan": (
        {"plan": "free"},
        {"plan": ["unlimited", "free"],
         "rate_limit": [None, {"per_minute": 100, "per_hour": 1000}]},
    ),
    "rate_limit": (
        {"rate_limit": {"per_minute": 5}},
        {"plan": ["unlimited", "enterprise"],
         "rate_limit": [None, {"per_minute": 5, "per_hour": None}]},
    ),
    "monthly_quota": ({"monthly_quota": 9}, {"monthly_quota": [5, 9]}),
    "no quota": ({"monthly_quota": None}, {"monthly_quota": [5, None]}),
    "external_id": ({"external_id": "y"}, {"external_id": ["x", "y"]}),
    "no external_id": ({"external_id": None}, {"external_id": ["x", None]}),
    "metadata": ({"metadata": {"b": 2}}, {"metadata": [{"a": 1}, {"b": 2}]}),
}  # fmt: skip


@pytest.fixture
def full_key(make_key: MakeKey, clock: Clock) -> Key:
    """A key in which every setting says something."""
    key, _ = make_key(
        permissions=["t:r"],
        ip_allowlist=["10.0.0.1"],
        expires_in="1d",
        monthly_quota=5,
        external_id="x",
        metadata={"a": 1},
    )
    return key


@pytest.mark.parametrize("change", CHANGES)
def test_edit_changes_what_is_sent_and_nothing_else(
    full_key: Key, operator: Actor, clock: Clock, change: str
) -> None:
    fields, differences = CHANGES[change]
    before = keys.as_dict(full_key)
    clock.move_ms(1_000)
    keys.edit(full_key.id, fields, by=operator)
    after = keys.as_dict(stored(full_key))
    changed = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    assert changed.pop("updated_at") == ["2026-11-20T10:30:00Z", "2026-11-20T10:30:01Z"]
    assert changed == differences
    event = last_event(full_key)
    assert (event.action, event.changes) == ("key.edited", differences)


SETTABLE = (
    "name", "description", "project", "environment", "permissions", "ip_allowlist", "plan",
    "rate_limit", "monthly_quota", "expires_at", "auto_renew", "renewal_period", "external_id",
    "metadata",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"plan": "free"},
        {"rate_limit": {"per_minute": 5}},
        {"expires_at": "2026-11-20T11:00:00.5Z"},
        {"permissions": ["a:b", "a:a"], "ip_allowlist": ["::1"], "metadata": {"b": 1, "a": [2]}},
    ],
)
@pytest.mark.parametrize("later", ["1m", "1d"])
def test_what_was_read_may_be_sent_back_and_leaves_no_trace(
    make_key: MakeKey, operator: Actor, clock: Clock, settings: dict[str, Any], later: str
) -> None:
    key, _ = make_key(**settings)
    clock.move(later)
    read = keys.as_dict(key)
    before = everything()
    keys.edit(key.id, {field: read[field] for field in SETTABLE}, by=operator)
    for field in SETTABLE:
        keys.edit(key.id, {field: read[field]}, by=operator)
        assert everything() == before, field


@pytest.mark.parametrize("change", [{}, {"plan": None}, {"expires_in": None}, {"project": None}])
def test_what_says_nothing_changes_nothing(
    full_key: Key, operator: Actor, change: dict[str, Any]
) -> None:
    before = everything()
    keys.edit(full_key.id, change, by=operator)
    assert everything() == before


FIXED: list[tuple[str, dict[str, Any]]] = [
    ("project", {"project": "other"}),
    ("environment", {"environment": "test"}),
    ("status", {"status": "expired"}),
    ("status", {"status": None}),
    ("id", {"id": "key_1"}),
    ("owner", {"owner": "eve@example.com"}),
]


def test_edit_refuses_by_name_and_changes_nothing(
    full_key: Key, operator: Actor, other_project: Project
) -> None:
    before = everything()
    for field, change in FIXED + [one for one in BAD_SETTINGS if one[0] != "status"]:
        fields = refused_fields(lambda change=change: keys.edit(full_key.id, change, by=operator))
        assert fields == [field]
        assert everything() == before, change


# --- revoke, restore, expire ----------------------------------------------------------------


def test_revoke_refuses_at_once_and_restore_brings_back(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key()
    assert keys.revoke(key.id, by=operator).revoked_at is not None
    assert ask(secret) == REVOKED_KEY
    keys.restore(key.id, by=operator)
    assert ask(secret) == VALID
    assert events(key) == ["key.created", "key.revoked", "key.restored"]


def test_revoke_and_restore_again_leave_no_event(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    keys.restore(key.id, by=operator)
    keys.revoke(key.id, by=operator)
    first = stored(key).revoked_at
    keys.revoke(key.id, by=operator)
    assert stored(key).revoked_at == first
    assert events(key) == ["key.created", "key.revoked"]


def test_revoke_self_stops_the_key_once(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key()
    keys.revoke_self(key.id, by=operator)
    keys.revoke_self(key.id, by=operator)
    assert ask(secret) == REVOKED_KEY
    assert events(key) == ["key.created", "key.revoked"]


def test_parallel_revokes_leave_one_event(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    at_once(8, lambda n: (keys.revoke if n % 2 else keys.revoke_self)(key.id, by=operator))
    assert events(key) == ["key.created", "key.revoked"]


def test_a_key_expires_exactly_then(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(expires_in="1h")
    clock.move_ms(3_600_000 - 1)
    assert (ask(secret), key.status_at(clock.now())) == (VALID, "active")
    clock.move_ms(1)
    assert (ask(secret), key.status_at(clock.now())) == (EXPIRED_KEY, "expired")


def test_what_is_shown_as_expiry_is_exactly_what_holds(make_key: MakeKey, clock: Clock) -> None:
    clock.move_ms(999)
    key, _ = make_key(expires_in="1m")
    shown = keys.as_dict(key)
    assert (shown["created_at"], shown["expires_at"]) == (
        "2026-11-20T10:30:00Z",
        "2026-11-20T10:31:00Z",
    )
    assert key.expires_at is not None and key.expires_at % 1000 == 0


def test_extending_an_expired_key_makes_it_work_again(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, secret = make_key(expires_in="1h")
    clock.move("2h")
    keys.edit(key.id, {"expires_in": "1h"}, by=operator)
    assert ask(secret) == VALID


def test_enabling_an_expired_key_needs_a_later_expiry(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, secret = make_key(expires_in="1h")
    clock.move("1h")
    assert refused_fields(lambda: keys.restore(key.id, by=operator)) == ["status"]
    keys.edit(key.id, {"status": "active", "expires_at": None}, by=operator)
    assert ask(secret) == VALID


def test_a_revoked_and_expired_key_can_be_restored_and_stays_expired(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, secret = make_key(expires_in="1h")
    keys.revoke(key.id, by=operator)
    clock.move("1h")
    assert key.status_at(clock.now()) == "expired"
    assert stored(key).status_at(clock.now()) == "revoked"
    keys.restore(key.id, by=operator)
    assert ask(secret) == EXPIRED_KEY
    assert last_event(key).changes == {"status": ["revoked", "expired"]}


# --- rotate ---------------------------------------------------------------------------------


def test_rotate_kills_the_old_secret(make_key: MakeKey, operator: Actor, clock: Clock) -> None:
    key, old = make_key()
    clock.move("1m")
    rotated, new, ends_at = keys.rotate(key.id, {}, by=operator)
    assert ends_at is None and new != old
    assert (ask(old), ask(new)) == (SUPERSEDED, VALID)
    row = stored(key)
    assert (row.prefix, row.rotated_at, row.updated_at) == (new[:12], clock.now(), clock.now())
    assert rotated.id == key.id and row.created_at < clock.now()


def test_with_grace_the_old_secret_works_until_exactly_then(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, old = make_key()
    key, new, ends_at = keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    assert ends_at == keys.grace_of(key) == clock.now() + 24 * 3_600_000
    assert (ask(old), ask(new)) == (VALID, VALID)
    clock.instant = ends_at - 1
    assert (ask(old), ask(new)) == (VALID, VALID)
    clock.move_ms(1)
    assert (ask(old), ask(new)) == (SUPERSEDED, VALID)
    assert keys.grace_of(key) is None


def test_what_is_shown_as_graces_end_is_exactly_what_holds(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    clock.move_ms(1)
    _, _, ends_at = keys.rotate(make_key()[0].id, {"grace_period": "30d"}, by=operator)
    assert ends_at is not None and ends_at % 1000 == 0 and ends_at > clock.now()


def test_grace_ends_with_the_key(make_key: MakeKey, operator: Actor, clock: Clock) -> None:
    key, old = make_key(expires_in="1h")
    _, new, ends_at = keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    assert ends_at == key.expires_at
    keys.edit(key.id, {"expires_at": None}, by=operator)
    clock.move("1h")
    assert (ask(old), ask(new)) == (SUPERSEDED, VALID)


def test_an_expired_key_gives_no_grace(make_key: MakeKey, operator: Actor, clock: Clock) -> None:
    key, old = make_key(expires_in="1h")
    clock.move("1h")
    _, new, ends_at = keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    assert ends_at is None
    assert (ask(old), ask(new)) == (SUPERSEDED, EXPIRED_KEY)


def test_rotating_again_ends_the_older_secret(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, first = make_key()
    _, second, _ = keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    clock.move("1h")
    _, third, _ = keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    assert [ask(one) for one in (first, second, third)] == [SUPERSEDED, VALID, VALID]
    keys.rotate(key.id, {}, by=operator)
    assert [ask(one) for one in (first, second, third)] == [SUPERSEDED] * 3


def test_rotating_at_once_within_a_grace_ends_that_too(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, first = make_key()
    keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    key, third, _ = keys.rotate(key.id, {}, by=operator)
    assert (ask(first), ask(third)) == (SUPERSEDED, VALID)
    assert keys.grace_of(key) is None


def test_parallel_rotations_leave_one_current_and_at_most_two_live_secrets(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, first = make_key()
    answers = at_once(8, lambda _: keys.rotate(key.id, {"grace_period": "1d"}, by=operator))
    secrets = [first] + [answer[1] for answer in answers if not isinstance(answer, Refused)]
    assert len(secrets) == 9 and current_secrets(key) == 1
    assert len(live_secrets(key, clock.now())) == 2
    assert Counter(map(ask, secrets)) == {VALID: 2, SUPERSEDED: 7}


def test_the_database_itself_refuses_a_second_current_secret(make_key: MakeKey) -> None:
    key, _ = make_key()
    with pytest.raises(IntegrityError), db.write():
        Secret.create(digest="0" * 64, key=key, prefix="sk_live_0000", created_at=0)


@pytest.mark.parametrize("grace", ["31d", "2mo", "1y", "8000y", "99999y", "1", "", 24])
def test_rotate_refuses_a_grace_that_makes_no_sense(
    make_key: MakeKey, operator: Actor, clock: Clock, grace: Any
) -> None:
    key, _ = make_key()
    before = everything()
    fields = {"grace_period": grace}
    assert refused_fields(lambda: keys.rotate(key.id, fields, by=operator)) == ["grace_period"]
    assert everything() == before


def test_a_revoked_key_stays_revoked_when_rotated(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    keys.revoke(key.id, by=operator)
    _, new, _ = keys.rotate(key.id, {}, by=operator)
    assert ask(new) == REVOKED_KEY


def test_revoking_ends_both_secrets(make_key: MakeKey, operator: Actor) -> None:
    key, old = make_key()
    _, new, _ = keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
    keys.revoke(key.id, by=operator)
    assert (ask(old), ask(new)) == (REVOKED_KEY, REVOKED_KEY)


@pytest.mark.parametrize("operation", ["rotate", "delete"])
@pytest.mark.parametrize("typed", ["", "ci", "CI ", "Other"])
def test_another_name_than_the_keys_is_refused(
    make_key: MakeKey, operator: Actor, operation: str, typed: str
) -> None:
    key, _ = make_key(name="CI")
    before = everything()
    call: Callable[[], Any] = {
        "rotate": lambda: keys.rotate(key.id, {}, by=operator, confirm=typed),
        "delete": lambda: keys.delete(key.id, by=operator, confirm=typed),
    }[operation]
    assert refused_fields(call) == ["confirm"]
    assert everything() == before


# --- delete ---------------------------------------------------------------------------------


def test_delete_removes_secrets_and_counters_and_keeps_entries(
    make_key: MakeKey, operator: Actor
) -> None:
    key, old = make_key(plan="free")
    other, _ = make_key(name="other", plan="free")
    _, new, _ = keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
    ask(old)
    keys.delete(key.id, by=operator, confirm="CI")
    assert (ask(old), ask(new)) == (INVALID, INVALID)
    assert Key.get_or_none(Key.id == key.id) is None and stored(other)
    assert Secret.select().where(Secret.key == key.id).count() == 0
    assert LimitCount.select().count() == 0
    assert Entry.select().where(Entry.key_id == key.id).count() == 1
    assert last_event(key).action == "key.deleted"
    with pytest.raises(Unknown):
        keys.key_to_read(key.id, by=operator)


def test_deleted_ids_and_secrets_do_not_return(make_key: MakeKey, operator: Actor) -> None:
    gone, secret = make_key()
    keys.delete(gone.id, by=operator)
    key, _ = make_key()
    assert key.id != gone.id and ask(secret) == INVALID


# --- each change and its event --------------------------------------------------------------

OPERATIONS: dict[str, tuple[str, Callable[[str, Actor], Any]]] = {
    "create": (
        "key.created", lambda _, by: keys.create({"name": "New", "project": "shop"}, by=by)
    ),
    "edit": ("key.edited", lambda key, by: keys.edit(key, {"name": "New"}, by=by)),
    "revoke": ("key.revoked", lambda key, by: keys.revoke(key, by=by)),
    "revoke_self": ("key.revoked", lambda key, by: keys.revoke_self(key, by=by)),
    "restore": ("key.restored", lambda key, by: keys.restore(key, by=by)),
    "rotate": ("key.rotated", lambda key, by: keys.rotate(key, {"grace_period": "1d"}, by=by)),
    "delete": ("key.deleted", lambda key, by: keys.delete(key, by=by)),
}  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_its_event_no_change_is_stored(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    key, secret = make_key(plan="free")
    ask(secret)
    if operation == "restore":
        keys.revoke(key.id, by=operator)
    before = everything()

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no event")

    monkeypatch.setattr(activity, "record", fails)
    with pytest.raises(RuntimeError, match="no event"):
        OPERATIONS[operation][1](key.id, operator)
    assert everything() == before


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_change_leaves_one_event_that_says_who_and_what(
    make_key: MakeKey, operator: Actor, operation: str
) -> None:
    key, _ = make_key()
    if operation == "restore":
        keys.revoke(key.id, by=operator)
    before = Event.select().count()
    action, call = OPERATIONS[operation]
    call(key.id, operator)
    event = Event.select().order_by(Event.id.desc()).get()
    assert Event.select().count() == before + 1
    assert (event.action, event.actor_kind, event.actor_name) == (action, "command", "command line")
    assert event.project_id == key.project_id and event.changes


def test_an_event_never_carries_a_secret_or_digest(make_key: MakeKey, operator: Actor) -> None:
    key, first = make_key()
    _, second, _ = keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
    keys.edit(key.id, {"name": "New", "status": "revoked"}, by=operator)
    keys.delete(key.id, by=operator)
    text = str(list(Event.select().tuples()))
    assert key.id in text
    for secret in (first, second):
        assert secret[12:] not in text and digest(secret) not in text


def test_the_key_object_never_carries_a_secret(make_key: MakeKey) -> None:
    key, secret = make_key()
    text = str(keys.as_dict(key))
    assert secret[12:] not in text and digest(secret) not in text


def test_a_deleted_keys_counters_do_not_come_back(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(plan="free")
    ask(secret)
    limits.forget(key.id)
    assert LimitCount.select().count() == 0
    assert usage.totals_of(stored(key))["requests_total"] == 1
    assert projects.key_limit(key.project) == 20


def test_a_deleted_keys_event_says_what_it_was(make_key: MakeKey, owner: Actor) -> None:
    key, _ = make_key(by=owner, permissions=["tasks:read"], expires_in="1d")
    facts = key_fields.facts(key)
    keys.delete(key.id, by=owner)
    told = Event.get(Event.action == "key.deleted").changes
    assert told == {**{name: [value, None] for name, value in facts.items()},
                    "prefix": [key.prefix, None]}  # fmt: skip
