"""Bad input, through JSON and through forms: a clear refusal that names the field, and no change.

Hostile text that is legal in a field is stored as it is, and pages show it as text.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console.models import Event, Key, Link, Membership, Person, Project, Secret, Session
from tests.conftest import Clock, MakeKey, bearer

KEYS = "/api/v1/api-keys"
TOO_MANY_ADDRESSES = [f"10.0.0.{number}" for number in range(51)]
MARKUP = "<img src=x onerror=alert(1)>"
HOSTILE = {
    "markup": MARKUP,
    "formula": "=cmd|' /C calc'!A0",
    "escape sequence": "a\x1b[31mb",
    "bidi override": "a\u202eb",
    "zero width": "a\u200bb",
    "NUL": "a\0b",
    "half surrogate": "a\ud800b",
}
LEGAL_TEXT = ("markup", "formula")  # odd, but words like any other
NO_JSON_OF_OURS = ("NUL", "half surrogate")  # refused with the body: no database stores them
HIDDEN_IN_FORMS = ("escape sequence", "bidi override", "zero width", "NUL")
BAD_DURATIONS = [
    "", "0d", "1", "d", "-1d", "1.5d", "1 d", "1D", "90days", "1h30m", "٣d", "1d\n", "100000d",
    "8000y", "99999mo",
]  # fmt: skip
BAD_INSTANTS = [
    "", "tomorrow", "1795170600", "2027-11-20", "2027-11-20T10:30:00", "2027-13-01T00:00:00Z",
    "2027-02-30T00:00:00Z", "2020-01-01T00:00:00Z", "2026-11-20T10:30:00Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-14:00",
]  # fmt: skip

# What each test below starts from: a time that stands still, and 2026-11-20T10:30:00Z.
pytestmark = pytest.mark.usefixtures("clock")


def everything() -> dict[str, Any]:
    """Every row that a change would leave its mark on; the use of a key is no change."""
    use = ("last_used_at", "last_used_ip", "last_used_order", "requests_total")
    return {
        table.__name__: sorted(
            repr({name: value for name, value in row.items() if name not in use})
            for row in table.select().dicts()
        )
        for table in (Project, Person, Membership, Session, Link, Key, Secret, Event)
    }


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = everything()
    yield
    assert everything() == before


Send = Callable[..., TestResponse]


@pytest.fixture
def target(make_key: MakeKey, clock: Clock) -> Key:
    """The key that bad input is meant for."""
    key, _ = make_key(name="Target", permissions=["tasks:read"])
    return key


@pytest.fixture
def send(client: FlaskClient, make_key: MakeKey, target: Key) -> Send:
    """`send("POST", path, body)` as a key that manages its project."""
    _, secret = make_key(name="Manager", permissions=["keys:manage", "keys:verify", "audit:read"])

    def send(method: str, path: str, body: Any = None, **more: Any) -> TestResponse:
        if body is not None:
            more["json"] = body
        return client.open(path, method=method, headers=bearer(secret), **more)

    return send


def assert_refused(answer: TestResponse, *fields: str) -> None:
    """400 INVALID that names one of these fields, and says what to write instead."""
    asked = f"{answer.request.method} {answer.request.path}"
    assert answer.status_code == 400, f"{asked}: {answer.status_code} {answer.text[:300]}"
    problem = answer.get_json()
    assert problem["code"] == "INVALID"
    named = [error["field"].partition(".")[0] for error in problem["errors"]]
    assert set(named) & set(fields), f"{named} names none of {fields}"
    assert all(error["message"] for error in problem["errors"])


# --- JSON: the shape of a request -----------------------------------------------------------

DOORS = (
    ("POST", KEYS),
    ("PATCH", f"{KEYS}/{{id}}"),
    ("POST", f"{KEYS}/{{id}}/rotate"),
    ("POST", "/api/v1/verify"),
    ("POST", "/api/v1/auth/token"),
)
SETTING_DOORS = DOORS[:2]  # those that take a key's settings
BROKEN = {
    "cut off": b'{"name": ',
    "more after it": b'{"name": "CI"} x',
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "CI"}'.encode("utf-16"),
    "a name twice": b'{"name": "a", "name": "b"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "beyond a float": b'{"name": 1e999}',
    "beyond 64 bits": b'{"name": 9223372036854775808}',
    "thousands of digits": b'{"name": ' + b"9" * 5000 + b"}",
    "a list": b"[]",
    "a string": b'"name"',
    "null": b"null",
    "a number": b"1",
    "nested deeply": b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested quite deeply": b'{"metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "NUL": b'{"name": "a\\u0000b"}',
    "half surrogate": b'{"name": "a\\ud800b"}',
    "NUL in a field's name": b'{"na\\u0000me": 1}',
    "half surrogate in a field's name": b'{"na\\udfffme": 1}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_a_body_that_is_no_object_is_refused(send: Send, target: Key, body: bytes) -> None:
    with nothing_changes():
        for method, path in DOORS:
            where = path.format(id=target.id)
            answer = send(method, where, data=body, content_type="application/json")
            assert_refused(answer, "body", "metadata")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=iso-8859-1",
        "application/problem+json",
        "",
    ],
)
def test_a_body_of_another_type_is_415(send: Send, target: Key, content_type: str) -> None:
    with nothing_changes():
        for method, path in DOORS:
            where = path.format(id=target.id)
            answer = send(method, where, data=b'{"name": "CI"}', content_type=content_type)
            assert answer.status_code == 415
            assert answer.json["code"] == "UNSUPPORTED_TYPE"
            assert "application/json" in answer.json["detail"]


@pytest.mark.parametrize(
    "name", ["colour", "key_id", MARKUP, "a\x1b[31mb", "a\u202eb", "", "x" * 999]
)
def test_an_unknown_field_is_refused_by_name(send: Send, target: Key, name: str) -> None:
    with nothing_changes():
        for method, path in DOORS:
            answer = send(method, path.format(id=target.id), {"name": "CI", name: "x"})
            assert_refused(answer, name or "body")


def test_what_latchkey_sets_itself_cannot_be_sent(send: Send, target: Key) -> None:
    with nothing_changes():
        for method, path in SETTING_DOORS:
            for fixed in ("id", "prefix", "created_at", "owner", "key", "usage"):
                answer = send(method, path.format(id=target.id), {"name": "CI", fixed: "x"})
                assert_refused(answer, fixed)


@pytest.mark.parametrize("body", [None, b"", b"  ", b"{}"])
def test_create_without_a_name_says_so(send: Send, body: bytes | None) -> None:
    with nothing_changes():
        answer = send("POST", KEYS, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["errors"] == [{"field": "name", "message": "is required"}]


def test_every_field_at_fault_is_named_at_once(send: Send) -> None:
    body = {"name": "", "environment": "gold", "ip_allowlist": ["x"], "monthly_quota": 0}
    with nothing_changes():
        answer = send("POST", KEYS, body)
    assert {error["field"] for error in answer.json["errors"]} == body.keys()


# --- JSON: a key's fields -------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("name", {"name": ""}),
    ("name", {"name": "   "}),
    ("name", {"name": "x" * 101}),
    ("name", {"name": "x" * 10_000}),
    ("name", {"name": "two\nlines"}),
    ("name", {"name": "tab\there"}),
    ("name", {"name": "soft\u00adhyphen"}),
    ("name", {"name": "line\u2028separator"}),
    ("name", {"name": "\ufeffmark"}),
    ("name", {"name": "isolate\u2066"}),
    ("name", {"name": "private \ue000"}),
    ("name", {"name": "unassigned \U000e0fff"}),
    ("description", {"description": "x" * 1_001}),
    ("environment", {"environment": "prod"}),
    ("environment", {"environment": "LIVE"}),
    ("permissions", {"permissions": ["tasks"]}),
    ("permissions", {"permissions": ["tasks:read", ""]}),
    ("permissions", {"permissions": ["tasks: read"]}),
    ("permissions", {"permissions": ["*:read"]}),
    ("permissions", {"permissions": [f"a:{'x' * 99}"]}),
    ("permissions", {"permissions": [f"a:{number}" for number in range(101)]}),
    ("ip_allowlist", {"ip_allowlist": ["999.1.1.1"]}),
    ("ip_allowlist", {"ip_allowlist": ["10.0.0.0/33"]}),
    ("ip_allowlist", {"ip_allowlist": ["10.0.0"]}),
    ("ip_allowlist", {"ip_allowlist": ["example.com"]}),
    ("ip_allowlist", {"ip_allowlist": [""]}),
    ("ip_allowlist", {"ip_allowlist": ["fe80::1%eth0"]}),
    ("ip_allowlist", {"ip_allowlist": ["10.0.0.5/24"]}),
    ("ip_allowlist", {"ip_allowlist": TOO_MANY_ADDRESSES}),
    ("plan", {"plan": "gold"}),
    ("rate_limit", {"plan": "enterprise"}),
    ("rate_limit", {"plan": "enterprise", "rate_limit": {}}),
    ("rate_limit", {"plan": "free", "rate_limit": {"per_minute": 5}}),
    ("rate_limit", {"rate_limit": {"per_second": 5}}),
    *[
        ("rate_limit", {"rate_limit": {"per_minute": number}})
        for number in (0, -1, 1_000_000_001, 2**63 - 1)
    ],
    *[("monthly_quota", {"monthly_quota": n}) for n in (0, -1, 1_000_000_001, 2**63 - 1)],
    ("expires_at", {"expires_in": "1d", "expires_at": "2027-01-01T00:00:00Z"}),
    *[("expires_in", {"expires_in": text}) for text in BAD_DURATIONS],
    *[("expires_at", {"expires_at": text}) for text in BAD_INSTANTS],
    ("auto_renew", {"auto_renew": True}),  # without an end
    *[("renewal_period", {"renewal_period": text}) for text in (*BAD_DURATIONS, "59m", "30d")],
    ("external_id", {"external_id": ""}),
    ("external_id", {"external_id": "x" * 256}),
    ("metadata", {"metadata": {"a": "x" * 4_096}}),
    ("metadata", {"metadata": {str(number): number for number in range(1_000)}}),
]  # fmt: skip


@pytest.mark.parametrize("field", sorted({field for field, _ in REFUSED}))
def test_a_field_that_breaks_its_rule_is_named(send: Send, target: Key, field: str) -> None:
    with nothing_changes():
        for body in [body for name, body in REFUSED if name == field]:
            for method, path in SETTING_DOORS:
                answer = send(method, path.format(id=target.id), {"name": "CI", **body})
                assert_refused(answer, field)


def test_host_bits_come_back_with_the_network_that_was_meant(send: Send) -> None:
    answer = send("POST", KEYS, {"name": "CI", "ip_allowlist": ["10.0.0.5/24"]})
    assert "10.0.0.0/24" in answer.json["errors"][0]["message"]


def test_fifty_addresses_are_allowed_and_repeats_are_not_counted(send: Send) -> None:
    addresses = TOO_MANY_ADDRESSES[:50]
    answer = send("POST", KEYS, {"name": "CI", "ip_allowlist": [*addresses, *addresses]})
    assert (answer.status_code, answer.json["ip_allowlist"]) == (201, addresses)


def test_an_edit_fixes_neither_project_nor_environment_nor_an_odd_status(
    send: Send, target: Key, other_project: Project
) -> None:
    for field, value in (("project", "other"), ("environment", "test"), ("status", "expired")):
        with nothing_changes():
            assert_refused(send("PATCH", f"{KEYS}/{target.id}", {field: value}), field)


WRONG: list[Any] = [None, True, 0, 1.5, "text", [], [None], [1], [["a:b"]], {}, {"a": 1}]
RIGHT: dict[str, tuple[Any, ...]] = {
    "name": ("text",),
    "project": (None, "text"),
    "description": ("text",),
    "environment": ("text",),
    "permissions": ([],),
    "ip_allowlist": ([],),
    "expires_in": (None,),
    "expires_at": (None,),
    "plan": (None,),
    "rate_limit": (None, {}),  # no figures: as it is
    "monthly_quota": (None,),
    "auto_renew": (False,),
    "renewal_period": (None,),
    "external_id": (None, "text"),
    "metadata": ({}, {"a": 1}),
}


@pytest.mark.parametrize("field", RIGHT)
def test_a_value_of_another_type_is_refused(send: Send, target: Key, field: str) -> None:
    def is_right(value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in RIGHT[field])

    with nothing_changes():
        for value in filter(lambda value: not is_right(value), WRONG):
            for method, path in SETTING_DOORS:
                answer = send(method, path.format(id=target.id), {"name": "CI", field: value})
                assert_refused(answer, field)


def test_a_bad_grace_period_is_refused_and_the_secret_stays(send: Send, target: Key) -> None:
    with nothing_changes():
        for grace in [*BAD_DURATIONS, "31d", "2mo", 24, True, ["24h"], {"h": 24}]:
            answer = send("POST", f"{KEYS}/{target.id}/rotate", {"grace_period": grace})
            assert_refused(answer, "grace_period")


# --- JSON: hostile text in every field ------------------------------------------------------

TEXT_FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "name": lambda text: {"name": text},
    "description": lambda text: {"description": text},
    "external_id": lambda text: {"external_id": text},
    "metadata": lambda text: {"metadata": {text: text}},
    "environment": lambda text: {"environment": text},
    "permissions": lambda text: {"permissions": ["tasks:read", text]},
    "ip_allowlist": lambda text: {"ip_allowlist": [text]},
    "plan": lambda text: {"plan": text},
    "rate_limit": lambda text: {"rate_limit": {"per_minute": text}},
    "monthly_quota": lambda text: {"monthly_quota": text},
    "expires_in": lambda text: {"expires_in": text},
    "expires_at": lambda text: {"expires_at": text},
    "auto_renew": lambda text: {"auto_renew": text},
    "renewal_period": lambda text: {"renewal_period": text},
}
FREE_TEXT = ("name", "description", "external_id", "metadata")


def is_legal(field: str, kind: str) -> bool:
    """Whether the field takes any words, and these are words. Metadata is the team's own data."""
    if field == "metadata":
        return kind not in NO_JSON_OF_OURS
    return field in FREE_TEXT and kind in LEGAL_TEXT


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_kept_to_the_letter_or_refused(send: Send, target: Key, kind: str) -> None:
    for field, make in TEXT_FIELDS.items():
        fields = make(HOSTILE[kind])
        for method, path in SETTING_DOORS:
            where, body = path.format(id=target.id), {"name": "CI", **fields}
            if is_legal(field, kind):
                answer = send(method, where, body)
                assert answer.status_code in (200, 201), answer.text
                assert answer.json[field] == fields[field]
                continue
            with nothing_changes():
                answer = send(method, where, body)
            assert_refused(answer, "body" if kind in NO_JSON_OF_OURS else field)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_where_a_name_is_looked_up_finds_nothing(
    send: Send, target: Key, text: str
) -> None:
    with nothing_changes():
        answer = send("POST", KEYS, {"name": "CI", "project": text})
        assert answer.status_code in (400, 404), answer.text
        answer = send("PATCH", f"{KEYS}/{target.id}", {"status": text})
        assert_refused(answer, "status", "body")
        answer = send("POST", f"{KEYS}/{target.id}/rotate", {"grace_period": text})
        assert_refused(answer, "grace_period", "body")


QUERIES = ("project", "status", "environment", "owner", "q", "sort", "cursor", "limit")


@pytest.mark.parametrize(
    "text", [*HOSTILE.values(), "'; drop table key; --", "%", "\\", "x" * 9_000]
)
def test_hostile_text_in_an_address_is_never_a_500(send: Send, target: Key, text: str) -> None:
    shown = text.encode("utf-8", "replace").decode()
    with nothing_changes():
        for name in QUERIES:
            answer = send("GET", KEYS, query_string={name: shown})
            assert answer.status_code in (200, 400, 404), f"{name}: {answer.text}"
            assert answer.status_code == 400 or name not in ("status", "sort", "cursor", "limit")
        for name in ("status", "method", "ip", "since", "until", "cursor"):
            answer = send("GET", f"{KEYS}/{target.id}/audit-log", query_string={name: shown})
            assert answer.status_code in (200, 400), f"{name}: {answer.text}"
            assert answer.status_code == 400 or name == "method"
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/rotate"),
            ("GET", "/audit-log"),
        ):
            answer = send(method, f"{KEYS}/{shown.replace('%', '%25')}{path}")
            assert answer.status_code in (400, 404, 405), f"{method} {path}: {answer.text}"


# --- JSON: the other calls ------------------------------------------------------------------

VERIFY_REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("key", {"key": None}),
    ("key", {"key": 1}),
    ("permissions", {"permissions": ["tasks"]}),
    ("permissions", {"permissions": "tasks:read"}),
    ("environment", {"environment": "prod"}),
    ("ip", {"ip": "here"}),
    ("ip", {"ip": "10.0.0.0/24"}),
    ("ip", {"ip": ""}),
    ("method", {"method": "GET it"}),
    ("method", {"method": MARKUP}),
    ("path", {"path": "no slash"}),
    ("cost", {"cost": -1}),
    ("cost", {"cost": 1.5}),
    ("cost", {"cost": 1_000_001}),
    ("cost", {"cost": True}),
    ("cost", {"cost": "1"}),
    ("dry_run", {"dry_run": "yes"}),
    ("user_agent", {"user_agent": 1}),
    ("project", {"project": ["shop"]}),
]


def test_verify_names_the_field_that_it_cannot_read(send: Send) -> None:
    with nothing_changes():
        for field, body in VERIFY_REFUSED:
            assert_refused(send("POST", "/api/v1/verify", {"key": "x", **body}), field)


def test_verify_without_a_key_says_so(send: Send) -> None:
    assert_refused(send("POST", "/api/v1/verify", {}), "key")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_verify_calls_hostile_text_no_key(send: Send, text: str) -> None:
    with nothing_changes():
        answer = send("POST", "/api/v1/verify", {"key": text})
    if answer.status_code == 400:
        assert_refused(answer, "body")
    else:
        assert (answer.status_code, answer.json["code"]) == (200, "API_KEY_MALFORMED")
        assert answer.json["key"] is None


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("email", {"password": "x"}),
        ("password", {"email": "a@example.com"}),
        ("email", {"email": 1, "password": "x"}),
        ("password", {"email": "a@example.com", "password": None}),
        ("password", {"email": "a@example.com", "password": ["x"]}),
        ("otp", {"email": "a@example.com", "password": "x", "otp": 123456}),
    ],
)
def test_a_token_asked_for_badly_names_the_field(
    client: FlaskClient, field: str, body: dict[str, Any]
) -> None:
    with nothing_changes():
        assert_refused(client.post("/api/v1/auth/token", json=body), field)


@pytest.mark.parametrize("text", ["", "x" * 100_000, *HOSTILE.values()])
def test_odd_credentials_are_wrong_credentials(client: FlaskClient, text: str) -> None:
    with nothing_changes():
        answer = client.post("/api/v1/auth/token", json={"email": text, "password": text})
    assert answer.status_code in (400, 401), answer.text


# --- forms ----------------------------------------------------------------------------------

FORM = {"name": "CI", "expiration": "never"}
# The form's fields at fault, and what is typed into them.
FORM_REFUSED: list[tuple[str, dict[str, str]]] = [
    ("name", {"name": ""}),
    ("name", {"name": " \t "}),
    ("name", {"name": "x" * 10_000}),
    *[("name", {"name": HOSTILE[kind]}) for kind in HIDDEN_IN_FORMS],
    ("name", {"name": "two\r\nlines"}),
    ("description", {"description": "x" * 1_001}),
    ("description", {"description": "a\0b"}),
    ("description", {"description": "a\u202eb"}),
    ("permissions", {"permissions": "tasks"}),
    ("permissions", {"permissions": f"tasks:read\n{MARKUP}"}),
    ("permissions", {"permissions": "tasks:re\u200bad"}),
    ("ip_allowlist", {"ip_allowlist": "999.1.1.1"}),
    ("ip_allowlist", {"ip_allowlist": "10.0.0.5/24"}),
    ("ip_allowlist", {"ip_allowlist": "\n".join(TOO_MANY_ADDRESSES)}),
    ("ip_allowlist", {"ip_allowlist": MARKUP}),
    ("expires_on", {"expiration": "date"}),
    ("expires_on", {"expiration": "date", "expires_on": ""}),
    ("expires_on", {"expiration": "date", "expires_on": "2020-01-01"}),
    ("expires_on", {"expiration": "date", "expires_on": "2027-02-30"}),
    ("expires_on", {"expiration": "date", "expires_on": "10000-01-01"}),
    ("expiration", {"expiration": "8000y"}),
    ("expiration", {"expiration": MARKUP}),
    ("plan", {"plan": "gold"}),
    ("plan", {"plan": MARKUP}),
    ("plan", {"plan": "enterprise"}),
    ("per_minute", {"plan": "enterprise", "per_minute": "many"}),
    ("per_minute", {"plan": "enterprise", "per_minute": "0"}),
    ("per_minute", {"plan": "enterprise", "per_minute": "-1"}),
    ("per_minute", {"plan": "enterprise", "per_minute": "1.5"}),
    ("per_minute", {"plan": "enterprise", "per_minute": "²"}),
    ("per_hour", {"plan": "enterprise", "per_hour": "9" * 30}),
    ("per_hour", {"plan": "enterprise", "per_minute": "1", "per_hour": "1000000001"}),
]  # fmt: skip


@pytest.mark.parametrize("field", sorted({field for field, _ in FORM_REFUSED}))
def test_a_form_comes_back_with_the_field_at_fault(
    signed_in: FlaskClient, target: Key, field: str
) -> None:
    with nothing_changes():
        for typed in [typed for name, typed in FORM_REFUSED if name == field]:
            for path in ("/projects/shop/keys/new", f"/projects/shop/keys/{target.id}/edit"):
                answer = signed_in.post(path, data={**FORM, **typed})
                assert answer.status_code == 422, f"{typed}: {answer.text}"
                assert f'id="{field}-error"' in answer.text, typed
                assert MARKUP not in answer.text
                kept = typed.get("name", "CI").strip()
                if kept.isprintable():
                    assert escape(kept) in answer.text  # nobody types it all again


def test_an_empty_form_creates_nothing(signed_in: FlaskClient, project: Project) -> None:
    with nothing_changes():
        answer = signed_in.post("/projects/shop/keys/new", data={})
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text


def test_the_environment_of_a_form_is_live_or_test(signed_in: FlaskClient, target: Key) -> None:
    with nothing_changes():
        answer = signed_in.post("/projects/shop/keys/new", data={**FORM, "environment": "prod"})
    assert (answer.status_code, 'id="environment-error"' in answer.text) == (422, True)


def test_the_status_of_a_form_is_active_or_revoked(signed_in: FlaskClient, target: Key) -> None:
    path = f"/projects/shop/keys/{target.id}/edit"
    with nothing_changes():
        answer = signed_in.post(path, data={**FORM, "expiration": "keep", "status": MARKUP})
    assert (answer.status_code, 'id="status-error"' in answer.text) == (422, True)


@pytest.mark.parametrize("action", ["rotate", "delete"])
def test_a_name_that_is_not_typed_exactly_stops_the_dialog(
    signed_in: FlaskClient, target: Key, action: str
) -> None:
    with nothing_changes():
        for typed in ("", "target", " Target", "Target\0", MARKUP, "x" * 9_999, None):
            data = {} if typed is None else {"confirm": typed}
            answer = signed_in.post(f"/projects/shop/keys/{target.id}/{action}", data=data)
            assert answer.status_code == 422
            assert 'id="confirm-error"' in answer.text
            assert MARKUP not in answer.text


def test_a_bad_grace_period_comes_back_in_the_form(signed_in: FlaskClient, target: Key) -> None:
    path = f"/projects/shop/keys/{target.id}/rotate"
    with nothing_changes():
        for grace in ("soon", "31d", "8000y", MARKUP, "1h\0"):
            answer = signed_in.post(path, data={"confirm": "Target", "grace_period": grace})
            assert answer.status_code == 422
            assert 'id="grace_period-error"' in answer.text
            assert MARKUP not in answer.text


@pytest.mark.parametrize("text", [*HOSTILE.values(), "x" * 9_000])
def test_odd_credentials_at_the_sign_in_form_are_wrong_ones(client: FlaskClient, text: str) -> None:
    shown = text.encode("utf-8", "replace").decode()
    with nothing_changes():
        answer = client.post("/login", data={"email": shown, "password": shown})
    assert answer.status_code == 401
    assert MARKUP not in answer.text


@pytest.mark.parametrize("text", [*HOSTILE.values(), "%00", "x" * 9_000])
def test_pages_with_an_odd_address_are_refused_pages(
    signed_in: FlaskClient, target: Key, text: str
) -> None:
    shown = text.encode("utf-8", "replace").decode()
    for path in (f"/projects/{shown}/keys", f"/projects/shop/keys/{shown}", f"/{shown}"):
        answer = signed_in.get(path)
        assert answer.status_code in (400, 404), path
        assert MARKUP not in answer.text
    log_fields = ("status", "method", "ip", "since", "cursor")
    for page, names in (
        ("keys", ("q", "status", "environment", "owner", "sort", "cursor")),
        ("audit-log", log_fields),
        (f"keys/{target.id}/audit-log", log_fields),
        ("activity", ("cursor",)),
    ):
        for name in names:
            answer = signed_in.get(f"/projects/shop/{page}", query_string={name: shown})
            assert answer.status_code in (200, 400, 422), f"{page} {name}: {answer.status_code}"
            assert MARKUP not in answer.text


# --- pages show hostile text as text --------------------------------------------------------


@pytest.mark.parametrize(
    "text", [MARKUP, "'\"><script>alert(1)</script>", "{{ 7*7 }}", "=cmd|x", "&lt;b&gt;"]
)
def test_pages_show_a_hostile_name_as_text(
    signed_in: FlaskClient, send: Send, make_key: MakeKey, text: str
) -> None:
    key, secret = make_key(name=text, description=text, external_id=text)
    send("PATCH", f"{KEYS}/{key.id}", {"description": f"again {text}"})
    signed_in.get("/api/v1/whoami", headers={**bearer(secret), "User-Agent": text})
    here = f"/projects/shop/keys/{key.id}"
    pages = (
        "/projects/shop/keys", here, f"{here}/edit", f"{here}/rotate", f"{here}/revoke",
        f"{here}/restore", f"{here}/delete", f"{here}/audit-log", "/projects/shop/audit-log",
        "/projects/shop/activity",
    )  # fmt: skip
    for path in pages:
        page = signed_in.get(path)
        assert page.status_code == 200, path
        assert_only_text(page.text, text)
    assert_only_text(signed_in.get("/projects/shop/keys", query_string={"q": text}).text, text)
    assert_only_text(signed_in.post(f"{here}/rotate", data={"confirm": text}).text, text)


def assert_only_text(page: str, text: str) -> None:
    """The page shows the text, and nowhere with its markup alive."""
    if "<" in text or "&" in text:
        assert text not in page
    assert (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("'", "&#39;")
        .replace('"', "&#34;")
        in page
    )


def test_the_answer_to_a_create_shows_a_hostile_name_as_text(
    signed_in: FlaskClient, project: Project
) -> None:
    page = signed_in.post("/projects/shop/keys/new", data={**FORM, "name": MARKUP})
    assert page.status_code == 200
    assert_only_text(page.text, MARKUP)


@pytest.mark.parametrize("name", ["Ключ 🔑", "鍵", "مفتاح", "e\u0301t\u00e9", '"}, "x": {"'])
def test_names_of_every_script_reach_the_notice_and_the_table(
    signed_in: FlaskClient, target: Key, name: str
) -> None:
    answer = signed_in.post(
        f"/projects/shop/keys/{target.id}/edit",
        data={"name": name, "expiration": "keep"},
        headers={"HX-Request": "true", "HX-Target": "dialog"},
    )
    assert answer.status_code == 204
    stored = Key.get_by_id(target.id).name
    assert json.loads(answer.headers["HX-Trigger"])["notice"]["words"] == f"{stored} saved"
    assert_only_text(signed_in.get("/projects/shop/keys").text, stored)


def test_text_that_is_costly_to_compose_is_refused_as_it_comes(send: Send) -> None:
    """80,000 combining marks took seconds to normalise, and held up everybody."""
    answer = send("POST", "/api/v1/api-keys", {"name": "a" + "\u0300\u0316" * 40_000})
    assert answer.status_code == 400
    assert "80001 characters" in answer.json["detail"]


def test_no_more_fields_are_named_than_anybody_reads(send: Send) -> None:
    answer = send("POST", "/api/v1/api-keys", {f"field{number}": 1 for number in range(5_000)})
    assert answer.status_code == 400
    assert len(answer.json["errors"]) == 20


def test_a_search_for_too_much_is_refused_by_name(send: Send) -> None:
    answer = send("GET", "/api/v1/api-keys?q=" + "a" * 5_000, None)
    assert answer.status_code == 400
    assert answer.json["errors"][0]["field"] == "q"
