"""The scripts' door: every call's answer to the letter, its status and headers, who may make it,
and that what a browser carries opens nothing here."""

import base64
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import audit, key_list, keys
from console import clock as time
from console.actor import Actor
from console.models import Event, Key, Person, Project
from console.paging import LIMIT_MAX
from console.wire import BODY_MAX_BYTES
from tests.conftest import PASSWORD, V1, Call, Clock, MakeKey, assert_problem, sign_in

KEY_FIELDS = {
    "id", "name", "description", "project", "environment", "prefix", "owner", "status",
    "permissions", "ip_allowlist", "plan", "rate_limit", "monthly_quota", "expires_at",
    "auto_renew", "renewal_period", "external_id", "metadata", "created_at", "updated_at",
    "rotated_at", "rotation_due_at", "last_used_at", "last_used_ip",
}  # fmt: skip
ENTRY_FIELDS = {
    "id", "at", "key_id", "method", "endpoint", "ip", "country", "status", "code", "user_agent",
    "request_id", "secret", "permissions", "latency_ms",
}  # fmt: skip
RATE_HEADERS = {
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy",
    "RateLimit",
}  # fmt: skip
NOBODY = "sk_live_000000000000000000000000000000000000"


def access_token(client: FlaskClient, person: Actor) -> str:
    answer = client.post(f"{V1}/auth/token", json={"email": person.name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return str(answer.json["access_token"])


# --- create ---------------------------------------------------------------------------------


def test_create_key_answers_the_key_object_and_its_secret(call: Call, clock: Clock) -> None:
    answer = call(
        "POST",
        "/api-keys",
        {
            "name": "CI",
            "description": "Deploys",
            "environment": "test",
            "permissions": ["tasks:read", "tasks:*"],
            "ip_allowlist": ["10.0.0.7/32", "2001:DB8::/32"],
            "expires_in": "90d",
            "rate_limit": {"per_minute": 5},
            "monthly_quota": 1000,
            "external_id": "team-7",
            "metadata": {"stage": "blue"},
        },
    )
    assert (answer.status_code, answer.content_type) == (201, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    created = answer.json
    assert created.keys() == KEY_FIELDS | {"key"}
    assert created["key"].startswith("sk_test_") and created["prefix"] == created["key"][:12]
    assert created["id"].startswith("key_")
    assert {name: created[name] for name in KEY_FIELDS - {"id", "prefix"}} == {
        "name": "CI",
        "description": "Deploys",
        "project": "shop",
        "environment": "test",
        "owner": None,
        "status": "active",
        "permissions": ["tasks:read", "tasks:*"],
        "ip_allowlist": ["10.0.0.7", "2001:db8::/32"],
        "plan": "enterprise",
        "rate_limit": {"per_minute": 5, "per_hour": None},
        "monthly_quota": 1000,
        "expires_at": "2027-02-18T10:30:00Z",
        "auto_renew": False,
        "renewal_period": None,
        "external_id": "team-7",
        "metadata": {"stage": "blue"},
        "created_at": "2026-11-20T10:30:00Z",
        "updated_at": "2026-11-20T10:30:00Z",
        "rotated_at": None,
        "rotation_due_at": None,
        "last_used_at": None,
        "last_used_ip": None,
    }


def test_location_of_a_created_key_is_the_key(call: Call) -> None:
    answer = call("POST", "/api-keys", {"name": "CI"})
    found = call("GET", answer.headers["Location"].removeprefix(V1))
    assert found.json["id"] == answer.json["id"]


def test_create_key_with_a_name_alone_holds_nothing_and_never_ends(call: Call) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    assert (created["permissions"], created["ip_allowlist"], created["metadata"]) == ([], [], {})
    assert (created["expires_at"], created["rate_limit"], created["monthly_quota"]) == (None,) * 3
    assert (created["environment"], created["plan"]) == ("live", "unlimited")


def test_create_key_refuses_beyond_the_limit(call: Call, project: Project) -> None:
    Project.update(key_limit=2).execute()
    assert call("POST", "/api-keys", {"name": "second"}).status_code == 201
    assert_problem(call("POST", "/api-keys", {"name": "third"}), 409, "KEY_LIMIT_REACHED")


# --- list -----------------------------------------------------------------------------------


def test_list_keys_answers_key_objects_newest_first(call: Call, clock: Clock) -> None:
    for name in ("older", "newer"):
        clock.move("1m")
        call("POST", "/api-keys", {"name": name})
    answer = call("GET", "/api-keys")
    assert answer.json.keys() == {"data", "next_cursor"}
    assert [key["name"] for key in answer.json["data"]] == ["newer", "older", "Manager"]
    assert all(key.keys() == KEY_FIELDS for key in answer.json["data"])
    assert answer.json["next_cursor"] is None


def test_list_pages_meet_every_key_once(call: Call, make_key: MakeKey) -> None:
    for number in range(4):
        make_key(name=f"key {number}")
    met: list[str] = []
    cursor = ""
    for _ in range(3):
        page = call("GET", f"/api-keys?limit=2&cursor={cursor}").json
        met += [key["name"] for key in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert sorted(met) == ["Manager", *(f"key {number}" for number in range(4))]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.5", "ten", "٣", "99999999999"])
def test_list_refuses_a_limit_out_of_range(call: Call, limit: str) -> None:
    problem = assert_problem(call("GET", f"/api-keys?limit={limit}"), 400, "INVALID", "errors")
    assert problem["errors"] == [
        {"field": "limit", "message": f"must be a whole number from 1 to {LIMIT_MAX}"}
    ]


FORGED_CURSORS = [
    "x",
    "é",
    "%00",
    *(
        base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        for content in (
            5,
            {"f": 1},
            [],
            ["f"],
            ["f", "abc"],
            ["f", "abc", "key_1"],
            ["f", 1, 2],
            ["f", 2**63, "key_1"],
            ["f", 1, "\ud800"],
            ["f", 1, "\0"],
            ["f", True, "key_1"],
            ["f", None, None],
            ["f", [1], "key_1"],
            ["x", 1, "key_1"],
        )
    ),
]


@pytest.mark.parametrize("path", ["/api-keys", "/api-keys/{id}/audit-log"])
@pytest.mark.parametrize("cursor", FORGED_CURSORS)
def test_a_forged_cursor_is_refused(
    call: Call, manager: tuple[Key, str], path: str, cursor: str
) -> None:
    answer = call("GET", f"{path.format(id=manager[0].id)}?cursor={cursor}")
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert problem["errors"][0]["field"] == "cursor"


def test_list_filters(call: Call, make_key: MakeKey, admin: Actor, clock: Clock) -> None:
    make_key(name="Checkout", by=admin)
    make_key(name="Sandbox", environment="test")
    revoked, _ = make_key(name="Old_one")
    keys.edit(revoked.id, {"status": "revoked"}, by=admin)
    make_key(name="Brief", expires_in="30m")
    clock.move("1h")

    def found(query: str) -> set[str]:
        answer = call("GET", f"/api-keys?{query}")
        assert answer.status_code == 200, answer.text
        return {key["name"] for key in answer.json["data"]}

    assert found("status=revoked") == {"Old_one"}
    assert found("status=expired") == {"Brief"}
    assert found("status=active") == {"Manager", "Checkout", "Sandbox"}
    assert found("environment=test") == {"Sandbox"}
    assert found("owner=ALAN@example.com") == found(f"owner={admin.id}") == {"Checkout"}
    assert found("q=check") == {"Checkout"}
    assert found("q=OLD_ONE") == {"Old_one"}
    assert found("q=%25") == set()  # a percent sign finds no name without one
    assert found(f"q={revoked.id}") == {"Old_one"}
    assert found("project=shop&status=&q=") == {
        "Manager", "Checkout", "Sandbox", "Old_one", "Brief",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api-keys?colour=red", "colour"),
        ("/api-keys?key=sk_live_x", "key"),
        ("/api-keys?status=gone", "status"),
        ("/api-keys?environment=prod", "environment"),
        ("/api-keys?sort=secret", "sort"),
        ("/api-keys/{id}/audit-log?colour=red", "colour"),
        ("/api-keys/{id}/audit-log?status=ok", "status"),
        ("/api-keys/{id}/audit-log?ip=here", "ip"),
        ("/api-keys/{id}/audit-log?since=yesterday", "since"),
        ("/api-keys/{id}/audit-log?until=2026-11-20", "until"),
    ],
)
def test_a_query_field_that_makes_no_sense_is_named(
    call: Call, manager: tuple[Key, str], path: str, field: str
) -> None:
    answer = call("GET", path.format(id=manager[0].id))
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert [error["field"] for error in problem["errors"]] == [field]


# --- read, edit -----------------------------------------------------------------------------


def test_read_key_tells_its_usage(call: Call, clock: Clock) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    call("GET", "/whoami", secret=created["key"])
    clock.move("1d")
    call("GET", "/whoami", secret=created["key"])
    call("GET", "/api-keys", secret=created["key"])
    clock.move_ms(60_000)
    read = call("GET", f"/api-keys/{created['id']}")
    assert read.status_code == 200
    assert read.json.keys() == KEY_FIELDS | {"usage"}
    assert read.json["usage"] == {
        "requests_today": 2,
        "requests_this_month": 3,
        "requests_total": 3,
    }
    assert read.json["last_used_at"] == "2026-11-21T10:30:00Z"
    assert read.json["last_used_ip"] == "127.0.0.1"


def test_edit_key_changes_only_what_is_sent(call: Call, clock: Clock) -> None:
    created = call(
        "POST", "/api-keys", {"name": "CI", "permissions": ["tasks:read"], "expires_in": "1d"}
    ).json
    clock.move("1h")
    answer = call("PATCH", f"/api-keys/{created['id']}", {"name": "CI, new", "expires_at": None})
    assert answer.status_code == 200
    assert {n: v for n, v in answer.json.items() if n in KEY_FIELDS} == {
        **{name: created[name] for name in KEY_FIELDS},
        "name": "CI, new",
        "expires_at": None,
        "updated_at": "2026-11-20T11:30:00Z",
    }


def test_edit_key_with_nothing_in_it_changes_nothing(call: Call, clock: Clock) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    clock.move("1h")
    events = Event.select().count()
    answer = call("PATCH", f"/api-keys/{created['id']}", {})
    assert answer.json["updated_at"] == created["updated_at"]
    assert Event.select().count() == events


def test_a_key_revoked_and_enabled_by_its_status(call: Call) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    path = f"/api-keys/{created['id']}"
    assert call("PATCH", path, {"status": "revoked"}).json["status"] == "revoked"
    assert_problem(call("GET", "/whoami", secret=created["key"]), 401, "API_KEY_REVOKED")
    assert call("PATCH", path, {"status": "active"}).json["status"] == "active"
    assert call("GET", "/whoami", secret=created["key"]).status_code == 200


# --- rotate, delete -------------------------------------------------------------------------


def test_rotate_answers_a_new_secret_and_kills_the_old_one(call: Call, clock: Clock) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    answer = call("POST", f"/api-keys/{created['id']}/rotate", {})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    rotated = answer.json
    assert rotated.keys() == KEY_FIELDS | {"key", "previous_secret_expires_at"}
    assert rotated["previous_secret_expires_at"] is None
    assert (rotated["id"], rotated["name"]) == (created["id"], "CI")
    assert rotated["prefix"] == rotated["key"][:12] != created["prefix"]
    assert rotated["rotated_at"] == "2026-11-20T10:30:00Z"
    assert call("GET", "/whoami", secret=rotated["key"]).status_code == 200
    assert_problem(call("GET", "/whoami", secret=created["key"]), 401, "API_KEY_SUPERSEDED")


def test_rotate_without_a_body_stops_the_old_secret_at_once(call: Call) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    assert call("POST", f"/api-keys/{created['id']}/rotate").status_code == 200
    assert_problem(call("GET", "/whoami", secret=created["key"]), 401, "API_KEY_SUPERSEDED")


def test_rotate_with_grace_says_when_the_old_secret_ends(call: Call, clock: Clock) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    path = f"/api-keys/{created['id']}/rotate"
    rotated = call("POST", path, {"grace_period": "24h"}).json
    assert rotated["previous_secret_expires_at"] == "2026-11-21T10:30:00Z"
    clock.move_ms(time.DAY - 1)
    assert call("GET", "/whoami", secret=created["key"]).status_code == 200
    clock.move_ms(1)
    assert_problem(call("GET", "/whoami", secret=created["key"]), 401, "API_KEY_SUPERSEDED")


def test_delete_answers_nothing_and_the_key_is_gone_for_good(call: Call) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    path = f"/api-keys/{created['id']}"
    answer = call("DELETE", path)
    assert (answer.status_code, answer.data) == (204, b"")
    assert_problem(call("GET", "/whoami", secret=created["key"]), 401, "API_KEY_INVALID")
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(method, path), 404, "NOT_FOUND")


# --- audit log ------------------------------------------------------------------------------


def test_an_entry_says_what_the_request_was(call: Call, clock: Clock) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    used = call(
        "GET", "/whoami?colour=red", secret=created["key"], headers={"User-Agent": "probe/1"}
    )
    answer = call("GET", f"/api-keys/{created['id']}/audit-log")
    assert answer.status_code == 200
    assert answer.json.keys() == {"data", "next_cursor"}
    (entry,) = answer.json["data"]
    assert entry.keys() == ENTRY_FIELDS
    assert {name: entry[name] for name in ENTRY_FIELDS - {"id"}} == {
        "at": "2026-11-20T10:30:00Z",
        "key_id": created["id"],
        "method": "GET",
        "endpoint": f"{V1}/whoami",
        "ip": "127.0.0.1",
        "country": None,
        "status": 200,
        "code": "VALID",
        "user_agent": "probe/1",
        "request_id": used.headers["X-Request-Id"],
        "secret": "current",
        "permissions": [],
        "latency_ms": None,
    }


def test_an_entry_has_the_status_that_was_answered(call: Call, manager: tuple[Key, str]) -> None:
    created = call("POST", "/api-keys", {"name": "CI"}).json
    call("POST", "/api-keys", {"name": ""})
    call("GET", "/api-keys/key_nobody")
    call("PUT", "/api-keys")
    call("DELETE", f"/api-keys/{created['id']}")
    call("POST", "/api-keys", data="{}", content_type="text/plain")
    log = call("GET", f"/api-keys/{manager[0].id}/audit-log").json["data"]
    entries = [(entry["method"], entry["status"]) for entry in reversed(log)]
    assert entries == [
        ("POST", 201), ("POST", 400), ("GET", 404), ("DELETE", 204), ("POST", 415), ("GET", 200),
    ]  # fmt: skip


def test_a_created_key_is_handed_out_though_its_entry_keeps_the_wrong_status(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(audit, "record_outcome", fail)
    created = call("POST", "/api-keys", {"name": "CI"})
    assert (created.status_code, created.json.keys()) == (201, KEY_FIELDS | {"key"})


def test_a_refused_check_is_an_entry_too(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key(name="Far away", ip_allowlist=["203.0.113.0/24"])
    assert_problem(call("GET", "/whoami", secret=secret), 403, "IP_NOT_ALLOWED")
    (entry,) = call("GET", f"/api-keys/{key.id}/audit-log").json["data"]
    assert (entry["status"], entry["code"]) == (403, "IP_NOT_ALLOWED")


def test_audit_log_pages_newest_first(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key()
    for number in range(5):
        call("GET", f"/api-keys/{number}", secret=secret)
    path = f"/api-keys/{key.id}/audit-log?limit=2"
    first = call("GET", path).json
    call("GET", "/whoami", secret=secret)  # what comes meanwhile shifts nothing
    second = call("GET", f"{path}&cursor={first['next_cursor']}").json
    third = call("GET", f"{path}&cursor={second['next_cursor']}").json
    ends = [e["endpoint"][-1] for page in (first, second, third) for e in page["data"]]
    assert ends == ["4", "3", "2", "1", "0"]
    assert third["next_cursor"] is None


def test_the_projects_audit_log_holds_every_keys_entries_and_no_others(
    call: Call, make_key: MakeKey, other_project: Project
) -> None:
    _, foreign = make_key(project=other_project.slug)
    call("GET", "/whoami", secret=foreign)
    one, two = make_key(name="one"), make_key(name="two")
    for _, secret in (one, two, one):
        call("GET", "/whoami", secret=secret)
    page = call("GET", "/audit-log?limit=3").json
    assert [entry["key_id"] for entry in page["data"][1:]] == [one[0].id, two[0].id]
    assert call("GET", "/audit-log?project=shop&status=denied").json["data"] == []
    assert call("GET", f"/audit-log?project={other_project.slug}").status_code == 404


def test_a_members_audit_log_of_the_project_is_their_own_keys(
    client: FlaskClient, call: Call, make_key: MakeKey, member: Actor
) -> None:
    mine, theirs = make_key(by=member), make_key()
    for _, secret in (mine, theirs):
        call("GET", "/whoami", secret=secret)
    log = call("GET", "/audit-log", secret=access_token(client, member)).json["data"]
    assert [entry["key_id"] for entry in log] == [mine[0].id]


def test_an_address_beyond_ascii_is_logged_as_it_was_asked_for(
    call: Call, make_key: MakeKey
) -> None:
    key, secret = make_key()
    call("GET", "/api-keys/caf%C3%A9", secret=secret)
    [entry] = call("GET", f"/api-keys/{key.id}/audit-log").json["data"]
    assert entry["endpoint"] == "/api/v1/api-keys/café"


@pytest.mark.parametrize("rate_limit", [None, {}, {"per_minute": None, "per_hour": None}])
def test_no_figure_at_all_is_no_rate_limit(call: Call, rate_limit: Any) -> None:
    key = call("POST", "/api-keys", {"name": "CI", "rate_limit": {"per_minute": 5}}).json
    assert (key["plan"], key["rate_limit"]) == ("enterprise", {"per_minute": 5, "per_hour": None})
    key = call("PATCH", f"/api-keys/{key['id']}", {"rate_limit": rate_limit}).json
    assert (key["plan"], key["rate_limit"]) == ("unlimited", None)
    key = call("POST", "/api-keys", {"name": "CI", "rate_limit": rate_limit}).json
    assert (key["plan"], key["rate_limit"]) == ("unlimited", None)


def test_audit_log_filters(call: Call, make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(permissions=["keys:read"])
    call("GET", "/whoami", secret=secret)
    clock.move("1h")
    call("POST", "/api-keys", {"name": "no"}, secret=secret)
    clock.move("1h")
    call("GET", "/api-keys/nobody", secret=secret, headers={"X-Forwarded-For": "198.51.100.7"})

    def found(query: str) -> list[int]:
        answer = call("GET", f"/api-keys/{key.id}/audit-log?{query}")
        assert answer.status_code == 200, answer.text
        return [entry["status"] for entry in answer.json["data"]]

    assert found("") == [404, 403, 200]
    assert found("status=4xx") == found("status=denied") == [404, 403]
    assert found("status=allowed") == found("status=200") == [200]
    assert found("method=post") == [403]
    assert found("ip=198.51.100.7") == [404]
    assert found("since=2026-11-20T11:30:00Z") == [404, 403]
    assert found("until=2026-11-20T11:30:00Z") == [200]
    assert found("since=2026-11-20T13:30:00%2B02:00&status=403") == [403]


def test_who_manages_keys_does_not_read_their_logs_by_that(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key(permissions=["keys:manage"])
    answer = call("GET", f"/api-keys/{key.id}/audit-log", secret=secret)
    problem = assert_problem(answer, 403, "PERMISSION_DENIED", "missing_permissions")
    assert problem["missing_permissions"] == ["audit:read"]


# --- the holder of a key --------------------------------------------------------------------


def test_whoami_is_the_key_object_of_the_presented_key(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key(name="Me")
    answer = call("GET", "/whoami", secret=secret)
    assert answer.status_code == 200
    assert answer.json.keys() == KEY_FIELDS
    assert (answer.json["id"], answer.json["name"]) == (key.id, "Me")
    assert secret not in answer.text


def test_whoami_takes_the_key_from_x_api_key_too(client: FlaskClient, make_key: MakeKey) -> None:
    key, secret = make_key()
    assert client.get(f"{V1}/whoami", headers={"X-API-Key": secret}).json["id"] == key.id


def test_rate_limit_tells_every_window_and_spends_nothing(
    call: Call, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(plan="free")
    for _ in range(3):
        call("GET", "/whoami", secret=secret)
    for _ in range(2):
        answer = call("GET", "/rate-limit", secret=secret)
    minute_end, hour_end = time.parse("2026-11-20T10:31:00Z"), time.parse("2026-11-20T11:00:00Z")
    hour = {
        "limit": 1000,
        "remaining": 997,
        "reset": hour_end // 1000,
    }
    minute = {
        "limit": 100,
        "remaining": 97,
        "reset": minute_end // 1000,
    }
    assert answer.status_code == 200
    assert answer.json == {
        **hour,
        "reset_at": "2026-11-20T11:00:00Z",
        "windows": [{"name": "minute", **minute}, {"name": "hour", **hour}],
    }


def test_rate_limit_of_an_unlimited_key_is_null(call: Call, make_key: MakeKey) -> None:
    _, secret = make_key()
    assert call("GET", "/rate-limit", secret=secret).json == {
        "limit": None, "remaining": None, "reset": None, "reset_at": None, "windows": [],
    }  # fmt: skip


def test_rate_limit_answers_a_key_that_has_spent_it_all(
    call: Call, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1})
    call("GET", "/whoami", secret=secret)
    assert_problem(call("GET", "/whoami", secret=secret), 429, "RATE_LIMITED")
    answer = call("GET", "/rate-limit", secret=secret)
    assert (answer.status_code, answer.json["remaining"]) == (200, 0)


def test_revoke_self_stops_the_presented_key_alone(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key(name="Leaked")
    answer = call("POST", "/revoke-self", secret=secret)
    assert (answer.status_code, answer.data) == (204, b"")
    assert_problem(call("GET", "/whoami", secret=secret), 401, "API_KEY_REVOKED")
    assert call("GET", "/whoami").status_code == 200
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.actor_kind, event.target_id) == ("key.revoked", "key", key.id)


def test_revoke_self_works_when_the_limit_is_spent(call: Call, make_key: MakeKey) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1})
    statuses = [call("GET", "/whoami", secret=secret).status_code for _ in range(2)]
    assert statuses == [200, 429]
    assert call("POST", "/revoke-self", secret=secret).status_code == 204
    assert call("GET", "/whoami", secret=secret).json["code"] == "API_KEY_REVOKED"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/whoami"), ("GET", "/rate-limit"), ("POST", "/revoke-self")]
)
def test_an_access_token_is_no_key_to_ask_about(
    client: FlaskClient, call: Call, owner: Actor, method: str, path: str
) -> None:
    token = access_token(client, owner)
    assert_problem(call(method, path, secret=token), 403, "FORBIDDEN")


# --- limits in headers ----------------------------------------------------------------------


def test_every_answer_to_a_limited_key_carries_its_limits(
    call: Call, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(plan="free", permissions=["keys:read"])
    answers = [
        call("GET", "/whoami", secret=secret),
        call("GET", "/api-keys/nobody", secret=secret),
        call("POST", "/api-keys", {"name": "no"}, secret=secret),
        call("GET", "/api-keys?limit=0", secret=secret),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 403, 400]
    for spent, answer in enumerate(answers, 1):
        assert answer.headers["X-RateLimit-Limit"] == "1000"
        assert answer.headers["X-RateLimit-Remaining"] == str(1000 - spent)
        assert answer.headers["X-RateLimit-Reset"] == str(
            time.parse("2026-11-20T11:00:00Z") // 1000
        )
        assert answer.headers["RateLimit-Policy"] == '"minute";q=100;w=60, "hour";q=1000;w=3600'
        left = f'"minute";r={100 - spent};t=60, "hour";r={1000 - spent};t=1800'
        assert answer.headers["RateLimit"] == left


def test_a_refusal_by_the_limit_says_when_to_come_back(
    call: Call, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(rate_limit={"per_minute": 1, "per_hour": 60})
    clock.move_ms(18_001)
    call("GET", "/whoami", secret=secret)
    answer = call("GET", "/whoami", secret=secret)
    assert_problem(answer, 429, "RATE_LIMITED")
    assert answer.headers["Retry-After"] == "42"
    assert answer.headers["X-RateLimit-Limit"] == "1"  # the window that refused
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert answer.headers["RateLimit"] == '"minute";r=0;t=42, "hour";r=59;t=1782'


def test_an_unlimited_key_gets_no_limit_headers(call: Call) -> None:
    assert not RATE_HEADERS & set(call("GET", "/whoami").headers.keys())


# --- who may call ---------------------------------------------------------------------------


def test_the_cookie_of_a_signed_in_browser_is_never_accepted(
    signed_in: FlaskClient, project: Project, make_key: MakeKey
) -> None:
    key, _ = make_key()
    assert signed_in.get("/projects/shop/keys").status_code == 200
    for method, path in (
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("PATCH", f"/api-keys/{key.id}"),
        ("DELETE", f"/api-keys/{key.id}"),
        ("POST", f"/api-keys/{key.id}/rotate"),
        ("GET", f"/api-keys/{key.id}/audit-log"),
        ("GET", "/whoami"),
        ("POST", "/verify"),
    ):
        answer = signed_in.open(V1 + path, method=method, json={"name": "CI", "key": "x"})
        assert_problem(answer, 401, "API_KEY_MISSING")
    assert Key.select().count() == 1


def test_a_key_in_the_query_or_without_bearer_is_not_presented(
    call: Call, manager: tuple[Key, str]
) -> None:
    secret = manager[1]
    for path, headers in (
        (f"/whoami?key={secret}&access_token={secret}&api_key={secret}", {}),
        ("/whoami", {"Authorization": secret}),
        ("/whoami", {"Authorization": f"Basic {secret}"}),
        ("/whoami", {"Cookie": f"key={secret}"}),
    ):
        answer = call("GET", path, secret=None, headers=headers)
        assert_problem(answer, 401, "API_KEY_MISSING")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="latchkey"'


def test_two_different_keys_are_one_too_many(call: Call, make_key: MakeKey) -> None:
    _, other = make_key(name="Other")
    answer = call("GET", "/whoami", headers={"X-API-Key": other})
    assert_problem(answer, 400, "INVALID", "errors")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="latchkey", error="invalid_request"'


@pytest.mark.parametrize(
    ("credential", "code"),
    [
        ("abc123", "API_KEY_MALFORMED"),
        (NOBODY, "API_KEY_MALFORMED"),
        ("vc_" + "0" * 32, "API_KEY_INVALID"),
        ("a.b.c", "TOKEN_INVALID"),
        ("..", "TOKEN_INVALID"),
        ("\xff" * 40, "API_KEY_MALFORMED"),
        ("x" * 5000, "API_KEY_MALFORMED"),
    ],
)
def test_a_credential_that_does_not_hold_is_401_with_a_challenge(
    call: Call, credential: str, code: str
) -> None:
    answer = call("GET", "/api-keys", secret=credential)
    problem = assert_problem(answer, 401, code)
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer realm="latchkey", error="invalid_token", error_description="{code}"'
    )
    assert credential not in problem["detail"]


def test_an_expired_key_is_refused_from_that_instant_on(
    call: Call, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(expires_in="30m")
    clock.move_ms(30 * time.MINUTE - 1)
    assert call("GET", "/whoami", secret=secret).status_code == 200
    clock.move_ms(1)
    assert_problem(call("GET", "/whoami", secret=secret), 401, "API_KEY_EXPIRED")


CALLS_AND_NEEDS = [
    ("GET", "/api-keys", None, "keys:read"),
    ("POST", "/api-keys", {"name": "CI"}, "keys:write"),
    ("GET", "/api-keys/{id}", None, "keys:read"),
    ("PATCH", "/api-keys/{id}", {"name": "CI"}, "keys:write"),
    ("POST", "/api-keys/{id}/rotate", {}, "keys:write"),
    ("DELETE", "/api-keys/{id}", None, "keys:write"),
    ("GET", "/api-keys/{id}/audit-log", None, "audit:read"),
    ("POST", "/verify", {"key": "x"}, "keys:verify"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "needs"),
    CALLS_AND_NEEDS,
    ids=[f"{c[0]} {c[1]}" for c in CALLS_AND_NEEDS],
)
def test_a_key_without_the_permission_is_told_which_it_lacks(
    call: Call, make_key: MakeKey, method: str, path: str, body: Any, needs: str
) -> None:
    target, _ = make_key(name="Target")
    _, secret = make_key(name="Poor", permissions=["tasks:*"])
    events = Event.select().count()
    answer = call(method, path.format(id=target.id), body, secret=secret)
    problem = assert_problem(answer, 403, "PERMISSION_DENIED", "missing_permissions")
    assert problem["missing_permissions"] == [needs]
    assert answer.headers["WWW-Authenticate"] == (
        f'Bearer realm="latchkey", error="insufficient_scope", scope="{needs}"'
    )
    assert Event.select().count() == events
    assert Key.get_or_none(Key.id == target.id) == target


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [(method, path, body) for method, path, body, _ in CALLS_AND_NEEDS if "{id}" in path],
)
def test_another_projects_key_is_not_there(
    call: Call,
    make_key: MakeKey,
    other_project: Project,
    method: str,
    path: str,
    body: Any,
) -> None:
    elsewhere, _ = make_key(project="other")
    _, secret = make_key(permissions=["admin:*"])
    events = Event.select().count()
    answer = call(method, path.format(id=elsewhere.id), body, secret=secret)
    problem = assert_problem(answer, 404, "NOT_FOUND")
    nobody = call(method, path.format(id="key_nobody"), body, secret=secret).json
    assert problem["detail"] == nobody["detail"]  # nothing tells the two apart
    assert Event.select().count() == events


def test_a_key_lists_and_creates_in_its_own_project_only(
    call: Call, make_key: MakeKey, other_project: Project
) -> None:
    make_key(name="Elsewhere", project="other")
    _, secret = make_key(name="Mine", permissions=["admin:*"])
    listed = call("GET", "/api-keys", secret=secret).json["data"]
    assert {key["project"] for key in listed} == {"shop"}
    created = call("POST", "/api-keys", {"name": "CI"}, secret=secret)
    assert created.json["project"] == "shop"
    assert_problem(call("GET", "/api-keys?project=other", secret=secret), 404, "NOT_FOUND")
    body = {"name": "CI", "project": "other"}
    assert_problem(call("POST", "/api-keys", body, secret=secret), 404, "NOT_FOUND")
    unheard = {"name": "CI", "project": "nowhere"}
    assert_problem(call("POST", "/api-keys", unheard, secret=secret), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("permissions", "status"),
    [
        (["tasks:read", "tasks:*", "billing:x"], 201),
        (["keys:read"], 201),
        (["keys:manage"], 201),
        (["audit:read"], 403),
        (["keys:*"], 403),
        (["projects:manage"], 403),
        (["admin:*"], 403),
        (["*"], 403),
        (["*:*"], 403),
    ],
)
def test_a_key_hands_out_console_permissions_only_as_it_holds_them(
    call: Call, make_key: MakeKey, permissions: list[str], status: int
) -> None:
    _, secret = make_key(permissions=["keys:manage"])
    body = {"name": "CI", "permissions": permissions}
    assert call("POST", "/api-keys", body, secret=secret).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/rotate", {}),
        ("PATCH", "", {"name": "Mine now"}),
        ("PATCH", "", {"permissions": []}),
        ("PATCH", "", {"status": "active"}),
    ],
)
def test_a_key_cannot_get_hold_of_a_mightier_one(
    call: Call, make_key: MakeKey, method: str, path: str, body: dict[str, Any]
) -> None:
    mighty, _ = make_key(permissions=["admin:*"])
    _, secret = make_key(permissions=["keys:manage"])
    answer = call(method, f"/api-keys/{mighty.id}{path}", body, secret=secret)
    assert_problem(answer, 403, "PERMISSION_DENIED", "missing_permissions")


# --- access tokens --------------------------------------------------------------------------


def test_access_token_answers_a_bearer_for_fifteen_minutes(
    client: FlaskClient, call: Call, owner: Actor, clock: Clock
) -> None:
    answer = client.post(f"{V1}/auth/token", json={"email": owner.name, "password": PASSWORD})
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert answer.json.keys() == {"access_token", "token_type", "expires_in"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
    token = answer.json["access_token"]
    created = call("POST", "/api-keys", {"name": "Mine", "project": "shop"}, secret=token)
    assert (created.status_code, created.json["owner"]) == (201, owner.name)
    clock.move("15m")
    answer = call("GET", "/api-keys", secret=token)
    assert_problem(answer, 401, "TOKEN_INVALID")
    assert "TOKEN_INVALID" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@example.com", "wrong password"),
        ("nobody@example.com", PASSWORD),
        ("", ""),
        ("\n", "x"),
    ],
)
def test_wrong_credentials_are_refused_alike(
    client: FlaskClient, owner: Actor, email: str, password: str
) -> None:
    answer = client.post(f"{V1}/auth/token", json={"email": email, "password": password})
    problem = assert_problem(answer, 401, "CREDENTIALS_INVALID")
    assert problem["detail"] == "Email or password is wrong."
    assert "WWW-Authenticate" in answer.headers


def test_a_disabled_person_gets_no_token_and_loses_the_one_they_have(
    client: FlaskClient, call: Call, admin: Actor
) -> None:
    token = access_token(client, admin)
    assert call("GET", "/api-keys", secret=token).status_code == 200
    Person.update(disabled_at=time.now()).where(Person.id == admin.id).execute()
    assert_problem(call("GET", "/api-keys", secret=token), 401, "TOKEN_INVALID")
    again = client.post(f"{V1}/auth/token", json={"email": admin.name, "password": PASSWORD})
    assert_problem(again, 401, "CREDENTIALS_INVALID")


def test_an_altered_token_is_refused(client: FlaskClient, call: Call, owner: Actor) -> None:
    head, claims, signature = access_token(client, owner).split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    for forged in (f"{head}.{claims}.{flipped}", f"{unsigned}.{claims}."):
        assert_problem(call("GET", "/api-keys", secret=forged), 401, "TOKEN_INVALID")


def test_a_browser_session_is_no_access_token(
    app: Flask, call: Call, owner: Actor, client: FlaskClient
) -> None:
    browser = sign_in(app, owner)
    cookie = browser.get_cookie("latchkey")
    assert cookie is not None
    answer = call("GET", "/api-keys", secret=cookie.value)
    assert answer.status_code == 401


def test_a_viewers_token_reads_and_never_writes(
    client: FlaskClient, call: Call, viewer: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key()
    token = access_token(client, viewer)
    assert call("GET", f"/api-keys/{key.id}", secret=token).status_code == 200
    assert call("GET", f"/api-keys/{key.id}/audit-log", secret=token).status_code == 200
    for method, path, body in (
        ("POST", "/api-keys", {"name": "CI", "project": "shop"}),
        ("PATCH", f"/api-keys/{key.id}", {"name": "no"}),
        ("POST", f"/api-keys/{key.id}/rotate", {}),
        ("DELETE", f"/api-keys/{key.id}", None),
        ("POST", "/verify", {"key": NOBODY}),
    ):
        assert_problem(call(method, path, body, secret=token), 403, "FORBIDDEN")


def test_a_member_sees_only_their_own_keys(
    client: FlaskClient, call: Call, member: Actor, make_key: MakeKey
) -> None:
    others, _ = make_key(name="Not theirs")
    token = access_token(client, member)
    own = call("POST", "/api-keys", {"name": "Theirs", "project": "shop"}, secret=token).json
    listed = call("GET", "/api-keys", secret=token).json["data"]
    assert [key["name"] for key in listed] == ["Theirs"]
    assert call("GET", f"/api-keys/{own['id']}", secret=token).status_code == 200
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/audit-log")):
        answer = call(method, f"/api-keys/{others.id}{path}", secret=token)
        assert_problem(answer, 404, "NOT_FOUND")


def test_a_stranger_finds_nothing(
    client: FlaskClient, call: Call, stranger: Actor, make_key: MakeKey
) -> None:
    key, _ = make_key()
    token = access_token(client, stranger)
    assert call("GET", "/api-keys", secret=token).json["data"] == []
    assert_problem(call("GET", "/api-keys?project=shop", secret=token), 404, "NOT_FOUND")
    assert_problem(call("DELETE", f"/api-keys/{key.id}", secret=token), 404, "NOT_FOUND")
    assert Key.select().where(Key.id == key.id).exists()


def test_a_person_with_several_projects_names_one(
    client: FlaskClient, call: Call, owner: Actor, other_project: Project
) -> None:
    token = access_token(client, owner)
    problem = assert_problem(
        call("POST", "/api-keys", {"name": "CI"}, secret=token), 400, "INVALID", "errors"
    )
    assert problem["errors"][0]["field"] == "project"
    assert "other, shop" in problem["detail"]


# --- verify ---------------------------------------------------------------------------------


def test_verify_answers_200_and_the_verdict(call: Call, make_key: MakeKey) -> None:
    key, secret = make_key(
        name="Client", permissions=["tasks:read"], external_id="c-1", metadata={"a": [1]}
    )
    answer = call("POST", "/verify", {"key": secret, "permissions": ["tasks:read"]})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert secret not in answer.text
    assert answer.json == {
        "valid": True,
        "code": "VALID",
        "status": 200,
        "request_id": answer.headers["X-Request-Id"],
        "key": {
            "id": key.id,
            "name": "Client",
            "prefix": secret[:12],
            "project": "shop",
            "environment": "live",
            "owner": None,
            "permissions": ["tasks:read"],
            "external_id": "c-1",
            "metadata": {"a": [1]},
            "expires_at": None,
        },
        "missing_permissions": [],
        "rate_limit": None,
    }


def test_verify_answers_200_for_a_refusal_too(call: Call, make_key: MakeKey) -> None:
    _, secret = make_key(permissions=["tasks:read"], plan="free")
    needs = ["tasks:write", "tasks:read", "users:read"]
    answer = call("POST", "/verify", {"key": secret, "permissions": needs})
    assert answer.status_code == 200
    verdict = answer.json
    assert (verdict["valid"], verdict["code"], verdict["status"]) == (
        False, "PERMISSION_DENIED", 403,
    )  # fmt: skip
    assert verdict["missing_permissions"] == ["tasks:write", "users:read"]
    assert verdict["rate_limit"].keys() == {"limit", "remaining", "reset"}
    assert verdict["rate_limit"]["remaining"] == 1000


def test_verify_tells_nothing_of_another_projects_key(
    call: Call, make_key: MakeKey, other_project: Project
) -> None:
    _, secret = make_key(name="Hidden", project="other", plan="free")
    answer = call("POST", "/verify", {"key": secret})
    assert answer.json["code"] == "PROJECT_MISMATCH"
    assert (answer.json["key"], answer.json["rate_limit"]) == (None, None)
    assert "Hidden" not in answer.text


# --- what all calls have in common ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api-keys", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/api-keys/key_1", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
        ("GET", "/api-keys/key_1/rotate", {"OPTIONS", "POST"}),
        ("DELETE", "/whoami", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/auth/token", {"OPTIONS", "POST"}),
        ("GET", "/verify", {"POST"}),
    ],
)
def test_a_wrong_method_names_the_right_ones(
    call: Call, method: str, path: str, allowed: set[str]
) -> None:
    answer = call(method, path)
    assert_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/nothing", "/", "/api-keys/", "/api-keys/a/b", "/verify/"])
def test_an_unknown_address_is_a_json_404(call: Call, path: str) -> None:
    assert_problem(call("GET", path), 404, "NOT_FOUND")


def test_a_body_over_a_mebibyte_is_413(call: Call, make_key: MakeKey) -> None:
    for path in ("/api-keys", "/verify", "/auth/token"):
        body = b'{"name": "' + b"x" * BODY_MAX_BYTES + b'"}'
        answer = call("POST", path, data=body, content_type="application/json")
        assert_problem(answer, 413, "TOO_LARGE")


def test_every_answer_has_a_request_id_of_its_own_and_no_cache(
    call: Call, manager: tuple[Key, str]
) -> None:
    path = f"/api-keys/{manager[0].id}"
    answers = [
        call("POST", "/api-keys", {"name": "CI"}),
        call("GET", "/api-keys"),
        call("HEAD", "/api-keys"),
        call("OPTIONS", "/api-keys"),
        call("GET", path),
        call("PATCH", path, {}),
        call("GET", f"{path}/audit-log"),
        call("GET", "/whoami"),
        call("GET", "/rate-limit"),
        call("POST", "/verify", {"key": "x"}),
        call("POST", "/verify", {}),
        call("PUT", "/api-keys"),
        call("GET", "/nothing"),
        call("GET", "/whoami", secret=None),
        call("GET", "/whoami", secret="x"),
        call("POST", "/auth/token", {"email": "a", "password": "b"}),
        call("DELETE", path),
    ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}


def test_the_secret_is_in_the_create_and_rotate_answers_alone(
    call: Call, make_key: MakeKey
) -> None:
    _, root = make_key(name="Root", permissions=["admin:*"])
    body = {"name": "CI", "permissions": ["admin:*"], "plan": "free"}
    created = call("POST", "/api-keys", body, secret=root)
    first = created.json["key"]
    path = f"/api-keys/{created.json['id']}"
    rotated = call("POST", f"{path}/rotate", {"grace_period": "1h"}, secret=first)
    second = rotated.json["key"]
    assert (created.text.count(first), rotated.text.count(second)) == (1, 1)
    others = [
        rotated,
        *(
            call(method, where, body, secret=first)
            for method, where, body in (
                ("GET", "/api-keys", None),
                ("GET", path, None),
                ("PATCH", path, {"description": "new"}),
                ("GET", f"{path}/audit-log", None),
                ("GET", "/whoami", None),
                ("GET", "/rate-limit", None),
                ("POST", "/verify", {"key": first}),
                ("POST", "/verify", {"key": first, "dry_run": True}),
                ("POST", "/revoke-self", None),
                ("GET", "/whoami", None),
            )
        ),
    ]
    assert [answer.status_code for answer in others] == [*[200] * 9, 204, 401]
    for answer in others:
        everything = answer.text + str(answer.headers)
        assert first not in everything
        assert second not in everything or answer is rotated


def test_an_error_of_ours_tells_no_detail(
    call: Call, manager: tuple[Key, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the inside of the house")

    monkeypatch.setattr(key_list, "page", fail)
    answer = call("GET", "/api-keys")
    assert_problem(answer, 500, "INTERNAL")
    assert "house" not in answer.text
    (entry,) = (call("GET", f"/api-keys/{manager[0].id}/audit-log?status=5xx")).json["data"]
    assert entry["request_id"] == answer.headers["X-Request-Id"]


def test_a_query_that_a_change_does_not_know_is_refused(call: Call) -> None:
    answer = call("POST", "/api-keys?dry_run=true", {"name": "made"})
    assert_problem(answer, 400, "INVALID", "errors")
    assert Key.select().where(Key.name == "made").count() == 0


@pytest.mark.parametrize("path", ["//api-keys", "/webhooks//deliveries", "/api-keys/"])
def test_an_address_with_nothing_where_an_id_belongs_is_404(call: Call, path: str) -> None:
    assert_problem(call("GET", path), 404, "NOT_FOUND")
