"""The services' door: POST /api/v1/verify and /forward-auth/nginx, over HTTP.

Proves the answers of interface §5.4 and §6 to the letter: which status and headers each verdict
becomes, what is refused before any key is looked at, and that of another project's key nothing is
told. Which verdict a request gets is test_check.py's to prove.
"""

import json
from collections.abc import Iterator
from typing import Any

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import check, country, db, gate, journal, keys, permissions, wire
from console.actor import Actor
from console.models import Attempt, Entry, Key, LimitCount, Project, Usage
from tests.conftest import PASSWORD, Call, Clock, MakeKey, add_person, bearer

VERIFY = "/api/v1/verify"
NGINX = "/forward-auth/nginx"
UNKNOWN_SECRET = "vc_" + "0" * 32


@pytest.fixture
def service(make_key: MakeKey) -> str:
    """The secret of a service that may ask about keys."""
    return make_key(name="service", permissions=["keys:verify"])[1]


@pytest.fixture
def ask(client: FlaskClient, service: str) -> Any:
    """Asks `POST /verify` as the service: `ask(key=…, …)` gives the answer's JSON."""

    def ask(**question: Any) -> dict[str, Any]:
        answer = client.post(VERIFY, json=question, headers=bearer(service))
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json
        return content

    return ask


def of_key(key: Key) -> list[Entry]:
    """The key's entries, oldest first."""
    journal.settle()
    return list(Entry.select().where(Entry.key_id == key.id).order_by(Entry.id))


def stored(key: Key) -> tuple[int, int, int, int | None]:
    """All that a check of this key might write."""
    counts = [row.spent for row in LimitCount.select().where(LimitCount.key_id == key.id)]
    usage = Usage.select().where(Usage.subject_id == key.id).count()
    return len(of_key(key)), sum(counts), usage, Key.get_by_id(key.id).last_used_at


# --- POST /verify: the verdict --------------------------------------------------------------


def test_verify_describes_a_good_key(ask: Any, make_key: MakeKey, owner: Actor) -> None:
    key, secret = make_key(
        name="Zoë's",
        by=owner,
        permissions=["tasks:*"],
        external_id="customer/7",
        metadata={"tier": ["gold", 1]},
        expires_at="2100-01-01T00:00:00Z",
    )
    answer = ask(key=secret, permissions=["tasks:read"])
    assert answer.pop("request_id") == of_key(key)[0].request_id
    assert answer == {
        "valid": True,
        "code": "VALID",
        "status": 200,
        "key": {
            "id": key.id,
            "name": "Zoë's",
            "prefix": secret[:12],
            "project": "shop",
            "environment": "live",
            "owner": "ada@example.com",
            "permissions": ["tasks:*"],
            "external_id": "customer/7",
            "metadata": {"tier": ["gold", 1]},
            "expires_at": "2100-01-01T00:00:00Z",
        },
        "missing_permissions": [],
        "rate_limit": None,
    }


def superseded(key: Key, operator: Actor) -> None:
    keys.rotate(key.id, {}, by=operator)


def revoked(key: Key, operator: Actor) -> None:
    keys.revoke(key.id, by=operator)


def deleted(key: Key, operator: Actor) -> None:
    keys.delete(key.id, by=operator)


VERDICTS = {
    # settings of the key, what is done to it, more of the question, status
    "VALID": ({}, None, {}, 200),
    "API_KEY_MISSING": ({}, None, {"key": ""}, 401),
    "API_KEY_MALFORMED": ({}, None, {"key": "nonsense ☃"}, 401),
    "API_KEY_INVALID": ({}, deleted, {}, 401),
    "API_KEY_SUPERSEDED": ({}, superseded, {}, 401),
    "API_KEY_REVOKED": ({}, revoked, {}, 401),
    "API_KEY_EXPIRED": ({"expires_in": "30m"}, None, {}, 401),
    "PROJECT_MISMATCH": ({}, None, {"project": "other"}, 403),
    "ENVIRONMENT_MISMATCH": ({}, None, {"environment": "test"}, 403),
    "IP_NOT_ALLOWED": ({"ip_allowlist": ["192.0.2.0/24"]}, None, {"ip": "192.0.3.1"}, 403),
    "PERMISSION_DENIED": ({}, None, {"permissions": ["tasks:read"]}, 403),
    "RATE_LIMITED": ({"rate_limit": {"per_minute": 1}}, None, {"cost": 2}, 429),
    "QUOTA_EXCEEDED": ({"monthly_quota": 1}, None, {"cost": 2}, 429),
}


def test_every_verdict_has_a_case_here() -> None:
    assert set(VERDICTS) | {check.UNAVAILABLE} == set(check.CODES)


@pytest.mark.parametrize("code", VERDICTS)
@pytest.mark.parametrize("dry_run", [False, True], ids=["for real", "dry run"])
def test_verify_answers_200_whatever_the_verdict(
    code: str, dry_run: bool, ask: Any, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    settings, spoil, more, status = VERDICTS[code]
    key, secret = make_key(**settings)
    if spoil:
        spoil(key, operator)
    if code == "API_KEY_EXPIRED":
        clock.move("30m")
    before = stored(key) if code != "API_KEY_INVALID" else None
    answer = ask(**{"key": secret, "dry_run": dry_run, **more})
    assert (answer["code"], answer["status"]) == (code, status)
    assert answer["valid"] is (code == "VALID")
    is_known = status != 401 or code in (
        "API_KEY_SUPERSEDED", "API_KEY_REVOKED", "API_KEY_EXPIRED"
    )  # fmt: skip
    assert (answer["key"] is not None) is (is_known and code != "PROJECT_MISMATCH")
    if dry_run and before is not None:
        assert stored(key) == before
    if not dry_run and is_known:
        [entry] = of_key(key)
        assert (entry.code, entry.status) == (code, status)


def test_verify_names_the_missing_permissions(ask: Any, make_key: MakeKey) -> None:
    _, secret = make_key(permissions=["tasks:read"])
    answer = ask(key=secret, permissions=["a:b", "tasks:read", "c:d"])
    assert (answer["code"], answer["missing_permissions"]) == ("PERMISSION_DENIED", ["a:b", "c:d"])


def test_verify_logs_the_request_that_the_service_speaks_of(ask: Any, make_key: MakeKey) -> None:
    key, secret = make_key(permissions=["tasks:read"])
    ask(
        key=secret,
        permissions=["tasks:read"],
        method="DELETE",
        path="/tasks/1?token=hunter2#part",
        ip="::ffff:8.8.8.8",
        user_agent="curl/8",
    )
    [entry] = of_key(key)
    assert (entry.method, entry.endpoint, entry.user_agent) == ("DELETE", "/tasks/1", "curl/8")
    assert (entry.ip, entry.country) == ("8.8.8.8", country.of("8.8.8.8"))
    assert entry.permissions == ["tasks:read"]


def test_the_address_is_the_clients_and_never_the_services(ask: Any, make_key: MakeKey) -> None:
    """Without an address the allowlist refuses, even where the service's own is on it."""
    key, secret = make_key(ip_allowlist=["127.0.0.1", "192.0.2.7"])
    assert ask(key=secret)["code"] == "IP_NOT_ALLOWED"
    assert ask(key=secret, ip="192.0.2.7")["code"] == "VALID"
    assert [entry.ip for entry in of_key(key)] == [None, "192.0.2.7"]


def test_verify_tells_what_is_left_of_the_limit(ask: Any, make_key: MakeKey, clock: Clock) -> None:
    _, secret = make_key(rate_limit={"per_minute": 3, "per_hour": 100})
    hour = (clock.now() // 3_600_000 + 1) * 3600
    assert ask(key=secret)["rate_limit"] == {"limit": 100, "remaining": 99, "reset": hour}
    assert ask(key=secret, cost=2)["rate_limit"] == {"limit": 100, "remaining": 97, "reset": hour}
    answer = ask(key=secret)
    minute = (clock.now() // 60_000 + 1) * 60
    assert answer["code"] == "RATE_LIMITED"
    assert answer["rate_limit"] == {"limit": 3, "remaining": 0, "reset": minute}


def test_a_cost_is_spent_whole_or_not_at_all(ask: Any, make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(rate_limit={"per_hour": 5})
    assert ask(key=secret, cost=3)["valid"]
    assert ask(key=secret, cost=3)["code"] == "RATE_LIMITED"
    assert ask(key=secret, cost=0)["rate_limit"]["remaining"] == 2
    assert ask(key=secret, cost=2)["rate_limit"]["remaining"] == 0
    assert ask(key=secret, cost=0)["valid"]
    assert len(of_key(key)) == 5


# --- POST /verify: a dry run ----------------------------------------------------------------

CHECKS = [
    "present", "well_formed", "known", "not_superseded", "not_revoked", "not_expired", "project",
    "environment", "ip_allowlist", "permissions", "rate_limit", "quota",
]  # fmt: skip


def test_a_dry_run_shows_every_check_in_the_order_of_the_verdict(
    ask: Any, make_key: MakeKey
) -> None:
    _, secret = make_key()
    checks = ask(key=secret, dry_run=True)["checks"]
    assert [row["check"] for row in checks] == CHECKS
    assert all(row["passed"] is True and row["detail"] for row in checks)


def test_a_dry_run_goes_on_after_the_first_failure(
    ask: Any, make_key: MakeKey, operator: Actor
) -> None:
    key, secret = make_key(ip_allowlist=["192.0.2.7"], rate_limit={"per_hour": 1})
    revoked(key, operator)
    question = {"environment": "test", "permissions": ["a:b"], "cost": 2}
    answer = ask(key=secret, dry_run=True, **question)
    failed = [row["check"] for row in answer["checks"] if not row["passed"]]
    assert answer["code"] == "API_KEY_REVOKED"
    assert failed == ["not_revoked", "environment", "ip_allowlist", "permissions", "rate_limit"]


@pytest.mark.parametrize(
    ("presented", "failed"), [("", "present"), ("x", "well_formed"), (UNKNOWN_SECRET, "known")]
)
def test_a_dry_run_ends_where_nothing_more_can_be_known(
    presented: str, failed: str, ask: Any
) -> None:
    checks = ask(key=presented, dry_run=True)["checks"]
    assert [row["check"] for row in checks] == CHECKS[: CHECKS.index(failed) + 1]
    assert [row["passed"] for row in checks] == [True] * CHECKS.index(failed) + [False]
    assert Attempt.select().count() == 0


def test_only_a_dry_run_shows_checks(ask: Any, make_key: MakeKey) -> None:
    assert "checks" not in ask(key=make_key()[1])


# --- POST /verify: who may ask, and about what ----------------------------------------------


@pytest.mark.parametrize("held", [["keys:verify"], ["keys:*"], ["admin:*"], ["*"]])
def test_a_key_that_holds_keys_verify_may_ask(
    held: list[str], client: FlaskClient, make_key: MakeKey
) -> None:
    answer = client.post(VERIFY, json={"key": "x"}, headers=bearer(make_key(permissions=held)[1]))
    assert answer.status_code == 200


@pytest.mark.parametrize("held", [[], ["keys:read"], ["keys:manage"], ["tasks:*"]])
def test_a_key_without_keys_verify_is_denied(
    held: list[str], client: FlaskClient, make_key: MakeKey
) -> None:
    caller, secret = make_key(permissions=held)
    key, asked = make_key()
    answer = client.post(VERIFY, json={"key": asked}, headers=bearer(secret))
    assert_problem(answer, 403, "PERMISSION_DENIED")
    assert answer.json["missing_permissions"] == ["keys:verify"]
    assert 'scope="keys:verify"' in answer.headers["WWW-Authenticate"]
    assert [entry.code for entry in of_key(caller)] == ["PERMISSION_DENIED"]
    assert of_key(key) == []


@pytest.mark.parametrize(
    ("secret", "code"),
    [
        (None, "API_KEY_MISSING"),
        ("nonsense", "API_KEY_MALFORMED"),
        (UNKNOWN_SECRET, "API_KEY_INVALID"),
        ("not.an.access-token", "TOKEN_INVALID"),
    ],
)
def test_who_has_no_good_credential_may_not_ask(
    secret: str | None, code: str, client: FlaskClient, project: Project
) -> None:
    answer = client.post(VERIFY, json={"key": "x"}, headers=bearer(secret) if secret else {})
    assert_problem(answer, 401, code)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="latchkey"')


def test_the_services_own_call_is_logged_under_an_id_of_its_own(
    client: FlaskClient, make_key: MakeKey
) -> None:
    caller, secret = make_key(permissions=["keys:verify"])
    key, asked = make_key()
    answer = client.post(VERIFY, json={"key": asked, "path": "/tasks"}, headers=bearer(secret))
    [call], [request] = of_key(caller), of_key(key)
    assert (call.method, call.endpoint, request.endpoint) == ("POST", VERIFY, "/tasks")
    assert answer.headers["X-Request-Id"] == answer.json["request_id"] == request.request_id
    assert call.request_id != request.request_id


def test_a_service_over_its_own_limit_is_told_so(
    client: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(permissions=["keys:verify"], rate_limit={"per_minute": 1})
    key, asked = make_key()
    for _ in range(2):
        answer = client.post(VERIFY, json={"key": asked}, headers=bearer(secret))
    assert_problem(answer, 429, "RATE_LIMITED")
    assert answer.headers["Retry-After"] == "60"
    assert answer.headers["X-RateLimit-Limit"] == "1"
    assert len(of_key(key)) == 1


def access_token(client: FlaskClient, email: str) -> str:
    login = {"email": email, "password": PASSWORD}
    token: str = client.post("/api/v1/auth/token", json=login).json["access_token"]
    return token


@pytest.mark.parametrize("role", ["admin", "member"])
def test_a_person_may_ask_about_the_keys_of_their_projects(
    role: str, client: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    person = add_person("eve@example.com", shop=role)
    headers = bearer(access_token(client, person.name))
    own, foreign = make_key()[1], make_key(project="other")[1]
    assert client.post(VERIFY, json={"key": own}, headers=headers).json["valid"]
    answer = client.post(VERIFY, json={"key": foreign}, headers=headers)
    assert (answer.json["code"], answer.json["key"]) == ("PROJECT_MISMATCH", None)


def test_a_viewer_may_not_ask(client: FlaskClient, viewer: Actor, make_key: MakeKey) -> None:
    headers = bearer(access_token(client, viewer.name))
    answer = client.post(VERIFY, json={"key": make_key()[1]}, headers=headers)
    assert_problem(answer, 403, "FORBIDDEN")


@pytest.mark.parametrize("spoil", [None, superseded, revoked, "expired"])
@pytest.mark.parametrize("dry_run", [False, True], ids=["for real", "dry run"])
def test_of_another_projects_key_nothing_is_told(
    spoil: Any,
    dry_run: bool,
    client: FlaskClient,
    service: str,
    make_key: MakeKey,
    other_project: Project,
    operator: Actor,
    clock: Clock,
) -> None:
    key, secret = make_key(
        name="Their secret plan",
        project="other",
        expires_in="30m",
        permissions=["their:own"],
        rate_limit={"per_hour": 987654},
    )
    if spoil == "expired":
        clock.move("30m")
    elif spoil:
        spoil(key, operator)
    answer = client.post(
        VERIFY,
        json={"key": secret, "dry_run": dry_run, "permissions": ["tasks:read"]},
        headers=bearer(service),
    )
    assert answer.status_code == 200
    assert answer.json["valid"] is False
    assert (answer.json["code"] == "PROJECT_MISMATCH") is (spoil is None)
    assert (answer.json["key"], answer.json["rate_limit"]) == (None, None)
    assert "X-RateLimit-Limit" not in answer.headers
    said = answer.text + str(answer.headers)
    for theirs in (key.id, key.name, "987654", "their:own", secret):
        assert theirs not in said


# --- POST /verify: bad questions ------------------------------------------------------------

BAD_QUESTIONS: dict[str, tuple[Any, str]] = {
    "no key": ({}, "key"),
    "a list": ([], "body"),
    "a string": ("sk_live_x", "body"),
    "null": (None, "body"),
    "a key of null": ({"key": None}, "key"),
    "a key of a number": ({"key": 1}, "key"),
    "an unknown field": ({"key": "x", "scopes": ["a:b"]}, "scopes"),
    "permissions as text": ({"key": "x", "permissions": "a:b"}, "permissions"),
    "a bad permission": ({"key": "x", "permissions": ["a:b", "a b"]}, "permissions"),
    "an empty permission": ({"key": "x", "permissions": [""]}, "permissions"),
    "101 permissions": ({"key": "x", "permissions": [f"a:{n}" for n in range(101)]}, "permissions"),
    "an unknown environment": ({"key": "x", "environment": "staging"}, "environment"),
    "no address": ({"key": "x", "ip": "localhost"}, "ip"),
    "an address with a port": ({"key": "x", "ip": "192.0.2.1:80"}, "ip"),
    "an address with a zone": ({"key": "x", "ip": "fe80::1%eth0"}, "ip"),
    "an empty address": ({"key": "x", "ip": ""}, "ip"),
    "no path": ({"key": "x", "path": "tasks"}, "path"),
    "no method": ({"key": "x", "method": "GET /tasks"}, "method"),
    "a method too long": ({"key": "x", "method": "X" * 21}, "method"),
    "a cost below 0": ({"key": "x", "cost": -1}, "cost"),
    "a cost too high": ({"key": "x", "cost": 1_000_001}, "cost"),
    "a cost of true": ({"key": "x", "cost": True}, "cost"),
    "a cost of 1.5": ({"key": "x", "cost": 1.5}, "cost"),
    "a cost as text": ({"key": "x", "cost": "1"}, "cost"),
    "dry_run as text": ({"key": "x", "dry_run": "yes"}, "dry_run"),
}


@pytest.mark.parametrize(("question", "field"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_a_bad_question_is_refused_by_the_field_at_fault(
    question: Any, field: str, client: FlaskClient, service: str
) -> None:
    body = json.dumps(question)
    answer = client.post(
        VERIFY, data=body, content_type="application/json", headers=bearer(service)
    )
    assert_problem(answer, 400, "INVALID")
    assert [error["field"].partition(".")[0] for error in answer.json["errors"]] == [field]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b'{"key": ', "application/json", 400, "INVALID"),
        (b'{"key": "x", "cost": NaN}', "application/json", 400, "INVALID"),
        (b'{"key": "x", "key": "y"}', "application/json", 400, "INVALID"),
        (b'{"key": "\\ud800"}', "application/json", 400, "INVALID"),
        (b"\xff", "application/json", 400, "INVALID"),
        (b"[" * 100_000, "application/json", 400, "INVALID"),
        (b"", "application/json", 400, "INVALID"),
        (b'{"key": "x"}', "text/plain", 415, "UNSUPPORTED_TYPE"),
        (b"key=x", "application/x-www-form-urlencoded", 415, "UNSUPPORTED_TYPE"),
        (b'{"key": "x"}', "application/json; charset=latin-1", 415, "UNSUPPORTED_TYPE"),
        (b" " * (1024 * 1024 + 1), "application/json", 413, "TOO_LARGE"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    body: bytes, content_type: str, status: int, code: str, client: FlaskClient, service: str
) -> None:
    headers = {**bearer(service), "Content-Type": content_type}
    assert_problem(client.post(VERIFY, data=body, headers=headers), status, code)


def test_a_good_question_in_all_its_fields_is_read(ask: Any, make_key: MakeKey) -> None:
    answer = ask(
        key=make_key(permissions=["a:b"])[1],
        project="shop",
        environment="live",
        permissions=["a:b"],
        method="M-SEARCH",
        path="/",
        ip="2001:db8::1",
        user_agent="",
        cost=1_000_000,
        dry_run=False,
    )
    assert answer["valid"]


def test_null_is_as_good_as_nothing_where_a_field_may_be_left_out(
    ask: Any, make_key: MakeKey
) -> None:
    nothing = dict.fromkeys(("project", "environment", "method", "path", "ip", "user_agent"))
    assert ask(key=make_key()[1], **nothing)["valid"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_verify_is_asked_by_post_alone(method: str, client: FlaskClient, service: str) -> None:
    answer = client.open(VERIFY, method=method, headers=bearer(service))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert bool(answer.data) is (method != "HEAD")


def test_verify_is_kept_by_no_cache(client: FlaskClient, service: str) -> None:
    answer = client.post(VERIFY, json={"key": "x"}, headers=bearer(service))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"


# --- forward-auth ---------------------------------------------------------------------------


def proxied(
    client: FlaskClient,
    secret: str | None = None,
    query: str = "",
    *,
    method: str = "GET",
    peer: str = "127.0.0.1",
    without: str = "",
    **headers: str,
) -> TestResponse:
    """What nginx sends: its own headers, then those of `headers` (`_` for `-`)."""
    sent = {
        "X-Original-Method": "GET",
        "X-Original-URL": "http://api.example.com/tasks",
        "X-Forwarded-For": "192.0.2.7",
        **(bearer(secret) if secret else {}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    sent.pop(without, None)
    return client.open(
        NGINX + query, method=method, headers=sent, environ_overrides={"REMOTE_ADDR": peer}
    )


def assert_problem(answer: TestResponse, status: int, code: str) -> None:
    """A refusal by RFC 9457 that no cache keeps."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    content = answer.json
    assert (content["status"], content["code"]) == (status, code)
    assert content["request_id"] == answer.headers["X-Request-Id"]


def assert_refused(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """A refusal as nginx can carry it: 401 or 403, and what it means in two headers."""
    assert answer.status_code == (401 if status == 401 else 403), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Error-Status"] == str(status)
    line = answer.headers["X-Error-Body"]
    assert line.isascii()
    assert line.isprintable()
    content: dict[str, Any] = json.loads(line)
    assert (content["status"], content["code"]) == (status, code)
    assert content == answer.json
    assert [name for name in answer.headers if name[0].startswith("X-Key-")] == []
    return content


def test_a_good_key_is_answered_by_who_it_is(
    client: FlaskClient, make_key: MakeKey, owner: Actor
) -> None:
    key, secret = make_key(
        name="Zoë's key\u2603/%", by=owner, permissions=["a:b", "c:*"], external_id="customer/é 7"
    )
    answer = proxied(client, secret)
    assert (answer.status_code, answer.data) == (200, b"")
    headers = dict(answer.headers)
    [entry] = of_key(key)
    assert headers == {
        "X-Key-Id": key.id,
        "X-Key-Name": "Zo%C3%AB%27s%20key%E2%98%83%2F%25",
        "X-Key-Project": "shop",
        "X-Key-Environment": "live",
        "X-Key-Owner": "ada@example.com",
        "X-Key-Permissions": "a:b c:*",
        "X-Key-External-Id": "customer/%C3%A9%207",
        "X-Key-Expires": "-",
        "X-Request-Id": entry.request_id,
        "Cache-Control": "no-store",
        "Content-Length": "0",
    }


def test_what_is_empty_is_sent_as_a_dash(client: FlaskClient, make_key: MakeKey) -> None:
    headers = proxied(client, make_key()[1]).headers
    for name in ("X-Key-Owner", "X-Key-Permissions", "X-Key-External-Id"):
        assert headers[name] == "-"


@pytest.mark.parametrize("code", VERDICTS)
def test_every_verdict_reaches_nginx(
    code: str,
    client: FlaskClient,
    make_key: MakeKey,
    operator: Actor,
    other_project: Project,
    clock: Clock,
) -> None:
    settings, spoil, more, status = VERDICTS[code]
    if status == 429:  # here every request costs 1
        spent = {"rate_limit": {"per_minute": 1}} if code == "RATE_LIMITED" else {}
        settings = spent or {"monthly_quota": 1}
    key, secret = make_key(**settings)
    if spoil:
        spoil(key, operator)
    if status == 429:
        assert proxied(client, secret).status_code == 200
    if code == "API_KEY_EXPIRED":
        clock.move("30m")
    query = "?" + "&".join(
        [f"{name}={more[name]}" for name in ("project", "environment") if name in more]
        + [f"permission={item}" for item in more.get("permissions", [])]
    )
    presented = {"": None, "nonsense ☃": "nonsense"}.get(more.get("key"), secret)
    answer = proxied(client, presented, query, X_Forwarded_For=more.get("ip", "192.0.2.7"))
    if code == "VALID":
        assert answer.status_code == 200
        assert "X-Error-Status" not in answer.headers
        return
    assert_refused(answer, status, code)
    assert ("WWW-Authenticate" in answer.headers) is (status == 401 or code == "PERMISSION_DENIED")
    assert ("Retry-After" in answer.headers) is (status == 429)


def test_the_challenge_tells_apart_no_key_a_bad_one_and_a_weak_one(
    client: FlaskClient, make_key: MakeKey
) -> None:
    """RFC 6750 §3: no error code where nothing was presented."""
    realm = 'Bearer realm="latchkey"'
    missing = proxied(client).headers["WWW-Authenticate"]
    unknown = proxied(client, UNKNOWN_SECRET).headers["WWW-Authenticate"]
    weak = proxied(client, make_key()[1], "?permission=a:b&permission=c:d")
    assert missing == realm
    assert unknown.startswith(f'{realm}, error="invalid_token"')
    challenge = weak.headers["WWW-Authenticate"]
    assert challenge == f'{realm}, error="insufficient_scope", scope="a:b c:d"'


def test_what_is_required_stands_in_the_proxys_address(
    client: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    key, secret = make_key(permissions=["a:b", "c:*"], environment="test")
    everything = "?permission=a:b&permission=c%3Ad&project=shop&environment=test"
    assert proxied(client, secret, everything).status_code == 200
    assert of_key(key)[0].permissions == ["a:b", "c:d"]
    content = assert_refused(proxied(client, secret, "?permission=x:y"), 403, "PERMISSION_DENIED")
    assert content["missing_permissions"] == ["x:y"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?permission=", "permission"),
        ("?permission=a+b", "permission"),
        ("?permission=a:b,c:d", "permission"),
        ("?scope=a:b", "scope"),
        ("?env=live", "env"),
        ("?key=vc_00000000000000000000000000000000", "key"),
        ("?environment=staging", "environment"),
        ("?environment=", "environment"),
        ("?project=shop&project=other", "project"),
        ("?environment=live&environment=test", "environment"),
        ("?per%0Amission=a", "per\nmission"),
    ],
)
def test_a_mistyped_requirement_lets_nobody_through(
    query: str, field: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key(permissions=["*"])
    content = assert_refused(proxied(client, secret, query), 400, "INVALID")
    assert [error["field"] for error in content["errors"]] == [field]
    assert of_key(key) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_the_proxy_may_ask_by_any_method(
    method: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key()
    answer = proxied(client, secret, method=method, X_Original_Method="PURGE")
    assert (answer.status_code, answer.data) == (200, b"")
    assert of_key(key)[0].method == "PURGE"


def test_head_is_answered_by_the_same_headers_without_a_body(client: FlaskClient) -> None:
    got, head = proxied(client), proxied(client, method="HEAD")
    assert (head.status_code, head.data) == (401, b"")
    assert head.headers["X-Error-Status"] == "401"
    assert head.headers["WWW-Authenticate"] == got.headers["WWW-Authenticate"]


# --- forward-auth: who may ask ---------------------------------------------------------------


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.2", "::2", "::ffff:192.0.2.1", "", "x"])
def test_a_stranger_may_not_say_what_a_client_asked_for(
    peer: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key()
    answer = proxied(client, secret, peer=peer, X_Forwarded_For="127.0.0.1")
    assert_refused(answer, 403, "FORBIDDEN")
    assert of_key(key) == []


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_trusted_proxy_may(peer: str, client: FlaskClient, make_key: MakeKey) -> None:
    assert proxied(client, make_key()[1], peer=peer).status_code == 200


# --- forward-auth: what is believed ----------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Original-Method", None),
        ("X-Original-Method", ""),
        ("X-Original-Method", "GET /"),
        ("X-Original-Method", "G\u00cbT"),
        ("X-Original-Method", "X" * 21),
        ("X-Original-URL", None),
        ("X-Original-URL", ""),
        ("X-Original-URL", "tasks"),
        ("X-Original-URL", "api.example.com/tasks"),
        ("X-Original-URL", "?page=2"),
        ("X-Original-URL", "*"),
        # What is said of the host may come from the client, and is no end of the path.
        ("X-Original-URL", "http://a?/tasks"),
        ("X-Original-URL", "http://a#/tasks"),
        ("X-Original-URL", "http://a?b"),
        ("X-Original-URL", "http://x@a?/tasks"),
        ("X-Original-URL", "/tasks#/../admin"),
        ("X-Original-URL", "http://a/tasks#x"),
    ],
)
def test_a_request_that_nginx_did_not_describe_is_refused(
    header: str, value: str | None, client: FlaskClient, make_key: MakeKey
) -> None:
    """Also where another proxy's headers, which a client may have written, would describe it."""
    key, secret = make_key()
    others = {"X_Forwarded_Method": "GET", "X_Forwarded_Uri": "/", "X_Original_URI": "/"}
    given = {header.replace("-", "_"): value} if value is not None else {}
    without = header if value is None else ""
    answer = proxied(client, secret, without=without, **{**others, **given})
    content = assert_refused(answer, 400, "INVALID")
    assert [error["field"] for error in content["errors"]] == [header]
    assert of_key(key) == []


def test_no_other_proxys_headers_are_looked_at(client: FlaskClient, make_key: MakeKey) -> None:
    key, secret = make_key()
    answer = proxied(
        client,
        secret,
        X_Forwarded_Method="DELETE",
        X_Forwarded_Uri="/forged",
        X_Forwarded_Host="forged.example.com",
        X_Original_URI="/forged",
        X_Real_IP="203.0.113.9",
        Forwarded="for=203.0.113.9",
        X_Required_Permission="a:b",
    )
    assert answer.status_code == 200
    [entry] = of_key(key)
    assert (entry.method, entry.endpoint, entry.ip) == ("GET", "/tasks", "192.0.2.7")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://api.example.com/tasks?token=hunter2", "/tasks"),
        ("https://[2001:db8::1]:8443/a%2Fb//c/../d", "/a%2Fb//c/../d"),
        ("http://api.example.com", "/"),
        ("http:///tasks", "/tasks"),
        ("/tasks?token=hunter2", "/tasks"),
        ("//tasks?next=http://x/hunter2", "//tasks"),
        ("/tasks?next=http://x/hunter2", "/tasks"),
        ("/" + "x" * 3_000, "/" + "x" * 1_999),
    ],
)
def test_the_raw_path_is_logged_and_the_query_never(
    url: str, endpoint: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key()
    assert proxied(client, secret, X_Original_URL=url).status_code == 200
    [entry] = of_key(key)
    assert entry.endpoint == endpoint


def test_a_key_in_a_query_string_is_no_key(client: FlaskClient, make_key: MakeKey) -> None:
    key, secret = make_key()
    url = f"http://api.example.com/tasks?key={secret}&api_key={secret}&access_token={secret}"
    assert_refused(proxied(client, X_Original_URL=url), 401, "API_KEY_MISSING")
    assert of_key(key) == []


def test_the_key_may_come_in_either_header(client: FlaskClient, make_key: MakeKey) -> None:
    _, secret = make_key()
    assert proxied(client, X_API_Key=secret).status_code == 200
    assert proxied(client, secret, X_API_Key=secret).status_code == 200
    assert proxied(client, X_API_Key=secret, Authorization="Basic dTpw").status_code == 200


def test_two_different_keys_are_one_too_many(client: FlaskClient, make_key: MakeKey) -> None:
    (one, first), (two, second) = make_key(), make_key()
    content = assert_refused(proxied(client, first, X_API_Key=second), 400, "INVALID")
    assert first not in json.dumps(content)
    assert second not in json.dumps(content)
    assert of_key(one) + of_key(two) == []


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 127.0.0.1, ::1", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_the_address_is_the_last_that_no_trusted_proxy_has(
    forwarded_for: str, address: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key(ip_allowlist=[address])
    answer = proxied(client, secret, X_Forwarded_For=forwarded_for)
    assert answer.status_code == 200, answer.text
    assert of_key(key)[0].ip == address


# --- forward-auth: limits --------------------------------------------------------------------


def test_the_limits_of_a_key_are_told_allowed_or_not(
    client: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, secret = make_key(rate_limit={"per_minute": 1, "per_hour": 10}, permissions=["a:b"])
    denied = proxied(client, secret, "?permission=c:d")
    allowed, refused = proxied(client, secret), proxied(client, secret)
    assert [entry.status for entry in of_key(key)] == [403, 200, 429]
    assert denied.headers["X-RateLimit-Remaining"] == "10"
    hour = (clock.now() // 3_600_000 + 1) * 3600
    assert allowed.headers["X-RateLimit-Limit"] == "10"
    assert allowed.headers["X-RateLimit-Remaining"] == "9"
    assert allowed.headers["X-RateLimit-Reset"] == str(hour)
    assert refused.headers["X-RateLimit-Limit"] == "1"
    assert refused.headers["Retry-After"] == "60"
    for answer in (denied, allowed, refused):
        assert answer.headers["RateLimit-Policy"] == '"minute";q=1;w=60, "hour";q=10;w=3600'
    assert refused.headers["RateLimit"] == '"minute";r=0;t=60, "hour";r=9;t=1800'


# --- when the database fails -----------------------------------------------------------------


@pytest.fixture
def broken(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Call it, and every statement to the database fails from then on."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise peewee.OperationalError("disk I/O error on /srv/latchkey.db")

    yield lambda: monkeypatch.setattr(db.handle.obj, "execute_sql", fail)


def test_a_failing_database_is_never_a_bad_key(
    client: FlaskClient, make_key: MakeKey, service: str, broken: Any
) -> None:
    _, secret = make_key()
    broken()
    answer = proxied(client, secret)
    content = assert_refused(answer, 503, "UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"
    assert "disk" not in json.dumps(content)
    answer = client.post(VERIFY, json={"key": secret}, headers=bearer(service))
    assert_problem(answer, 503, "UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("dry_run", [False, True], ids=["for real", "dry run"])
def test_a_persons_question_finds_a_failing_database_unavailable(
    dry_run: bool, client: FlaskClient, owner: Actor, make_key: MakeKey, broken: Any
) -> None:
    headers = bearer(access_token(client, owner.name))
    _, secret = make_key()
    broken()
    answer = client.post(VERIFY, json={"key": secret, "dry_run": dry_run}, headers=headers)
    assert_problem(answer, 503, "UNAVAILABLE")


def test_a_defect_here_tells_no_detail_and_lets_nobody_through(
    client: FlaskClient, make_key: MakeKey, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a detail")

    _, secret = make_key()
    monkeypatch.setattr(permissions, "missing", fail)
    assert "detail" not in json.dumps(
        assert_refused(proxied(client, secret, "?permission=a:b"), 500, "INTERNAL")
    ).replace('"detail":', "")
    answer = client.post(VERIFY, json={"key": secret}, headers=bearer(service))
    assert_problem(answer, 500, "INTERNAL")
    assert "a detail" not in answer.text


def test_every_other_address_goes_on_to_the_console(app: Flask) -> None:
    seen: list[str] = []

    def console(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        return []

    door = gate.Gate(console, app.config["LATCHKEY"])
    for path in (
        "/",
        "/api/v1/verify/",
        "/api/v1/verify2",
        "/forward-auth/nginx/",
        "/FORWARD-AUTH/nginx",
    ):
        door({"PATH_INFO": path}, lambda *_: None)
        assert seen.pop() == path


# --- when the disk fails ----------------------------------------------------------------------


def test_a_disk_that_does_not_take_the_entry_is_told_and_nobody_passes(
    client: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SYNCHRONOUS=full an answer waits for the disk, a refusal too."""

    def fails() -> None:
        raise OSError("Input/output error")

    _, secret = make_key()
    monkeypatch.setattr(journal, "is_behind", lambda: True)
    monkeypatch.setattr(journal, "sync", fails)
    for query in ("", "?permission=a:b"):
        answer = proxied(client, secret, query)
        assert (answer.status_code, answer.headers["X-Error-Status"]) == (403, "503")
        assert answer.headers["Retry-After"] == "1"


def test_a_server_that_offers_to_wait_is_given_what_to_wait_for(
    app: Flask, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the answer is made without waiting, and the server sends it afterwards."""
    _, secret = make_key()
    waits: list[Any] = []
    monkeypatch.setattr(journal, "is_behind", lambda: True)
    answer = app.test_client().get(
        "/forward-auth/nginx",
        headers={"X-Original-Method": "GET", "X-Original-URL": "/", **bearer(secret)},
        environ_overrides={wire.BEFORE_ANSWER: waits.append},
    )
    assert answer.status_code == 200
    assert waits == [journal.sync]


def test_a_key_of_any_length_gets_a_verdict(call: Call) -> None:
    answer = call("POST", "/verify", {"key": "x" * 10_000})
    assert (answer.status_code, answer.json["code"]) == (200, "API_KEY_MALFORMED")


@pytest.mark.parametrize("request_line", [("OPTIONS", "*"), ("M-SEARCH", "/x"), ("FOO1", "/x")])
def test_what_http_allows_gets_a_verdict(
    call: Call, make_key: MakeKey, request_line: tuple[str, str]
) -> None:
    _, text = make_key()
    method, path = request_line
    answer = call("POST", "/verify", {"key": text, "method": method, "path": path})
    assert (answer.status_code, answer.json["code"]) == (200, "VALID")
