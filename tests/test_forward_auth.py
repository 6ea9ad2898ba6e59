"""The five routes for proxies: each reads its own family of headers and no other, answers the same,
and takes its options from the proxy alone. What nginx's route is otherwise, test_gate.py proves.
"""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import gate, journal, projects, wire
from console.models import Attempt, Entry
from tests.conftest import MakeKey, bearer
from tests.test_gate import assert_problem

ORIGINAL = {"X-Original-Method": "GET", "X-Original-URL": "http://api.example.com/tasks"}
FORWARDED = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/tasks"}
OWN = {
    "nginx": ORIGINAL, "caddy": FORWARDED, "traefik": FORWARDED, "haproxy": FORWARDED, "envoy": {},
}  # fmt: skip
ROUTES = list(OWN)
FORWARDING = ["caddy", "traefik", "haproxy"]
IDENTITY = (
    "X-Key-Id", "X-Key-Name", "X-Key-Project", "X-Key-Environment", "X-Key-Owner",
    "X-Key-Permissions", "X-Key-External-Id", "X-Key-Expires", "X-Request-Id",
)  # fmt: skip


def asks(
    client: FlaskClient,
    route: str,
    headers: dict[str, str] | None = None,
    query: str = "",
    *,
    method: str = "GET",
    path: str = "/tasks",
    peer: str = "127.0.0.1",
) -> TestResponse:
    """As the proxy asks about `GET /tasks` from 192.0.2.7, and with these headers besides."""
    sent = {"X-Forwarded-For": "192.0.2.7", **OWN[route], **(headers or {})}
    if route == "envoy" and query:
        sent["X-Latchkey-Options"] = query.removeprefix("?")
        query = ""
    address = f"/forward-auth/{route}{path if route == 'envoy' else ''}{query}"
    return client.open(
        address, method=method, headers=sent, environ_overrides={"REMOTE_ADDR": peer}
    )


def latest() -> Entry:
    journal.settle()
    entry: Entry = Entry.select().order_by(Entry.id.desc()).get()
    return entry


def assert_status(route: str, answer: TestResponse, status: int, code: str) -> None:
    """The refusal of §4, or for nginx what it can carry."""
    if route == "nginx" and status not in (401, 403):
        assert (answer.status_code, answer.headers["X-Error-Status"]) == (403, str(status))
        assert answer.json["code"] == code
    else:
        assert_problem(answer, status, code)
        assert ("X-Error-Status" in answer.headers) is (route == "nginx")


# --- what is answered -------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_a_good_key_is_200_with_who_it_is(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key(name="Zoë", permissions=["a:b"], rate_limit={"per_hour": 2})
    answer = asks(client, route, bearer(secret), "?permission=a:b&project=shop&environment=live")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: answer.headers.getlist(name) for name in IDENTITY[:-1]} == {
        "X-Key-Id": [key.id],
        "X-Key-Name": ["Zo%C3%AB"],
        "X-Key-Project": ["shop"],
        "X-Key-Environment": ["live"],
        "X-Key-Owner": ["-"],
        "X-Key-Permissions": ["a:b"],
        "X-Key-External-Id": ["-"],
        "X-Key-Expires": ["-"],
    }
    assert answer.headers["X-RateLimit-Remaining"] == "1"
    entry = latest()
    assert answer.headers["X-Request-Id"] == entry.request_id
    assert (entry.method, entry.endpoint, entry.ip) == ("GET", "/tasks", "192.0.2.7")


@pytest.mark.parametrize("route", ROUTES)
def test_refusals_have_their_status(route: str, client: FlaskClient, make_key: MakeKey) -> None:
    _, secret = make_key(rate_limit={"per_hour": 1})
    assert_status(route, asks(client, route), 401, "API_KEY_MISSING")
    assert_status(route, asks(client, route, bearer("nonsense")), 401, "API_KEY_MALFORMED")
    needs = asks(client, route, bearer(secret), "?permission=a:b")
    assert_status(route, needs, 403, "PERMISSION_DENIED")
    assert 'scope="a:b"' in needs.headers["WWW-Authenticate"]
    other = asks(client, route, bearer(secret), "?project=other")
    assert_status(route, other, 403, "PROJECT_MISMATCH")
    two = asks(client, route, {**bearer(secret), "X-API-Key": "another"})
    assert_status(route, two, 400, "INVALID")
    assert asks(client, route, {"X-API-Key": secret}).status_code == 200
    limited = asks(client, route, bearer(secret))
    assert_status(route, limited, 429, "RATE_LIMITED")
    assert int(limited.headers["Retry-After"]) >= 1
    for answer in (needs, two, limited):
        assert [name for name in answer.headers if name[0].startswith("X-Key-")] == []


@pytest.mark.parametrize("route", ROUTES)
def test_a_stranger_is_refused_before_anything_is_read(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key()
    answer = asks(client, route, bearer(secret), peer="198.51.100.9")
    assert_status(route, answer, 403, "FORBIDDEN")
    assert "198.51.100.9" in answer.json["detail"]
    assert "LATCHKEY_TRUSTED_PROXIES" in answer.json["detail"]
    journal.settle()
    assert Entry.select().count() == Attempt.select().count() == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_proxy_may_ask_by_any_method(
    route: str, method: str, client: FlaskClient, make_key: MakeKey
) -> None:
    """For Envoy it is the client's own; the others say that in their header."""
    answer = asks(client, route, bearer(make_key()[1]), method=method)
    assert (answer.status_code, answer.data) == (200, b"")
    assert latest().method == (method if route == "envoy" else "GET")
    refused = asks(client, route, method=method)
    assert refused.status_code == 401
    assert (refused.data == b"") is (method == "HEAD")


@pytest.mark.parametrize("route", ROUTES)
def test_the_clients_method_and_path_are_logged_raw_and_without_query(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    raw = "/a%2Fb/%C3%A9//../c;d=1"
    family = {
        "X-Original-Method": "PATCH", "X-Original-URL": f"https://h{raw}?key=hunter2",
        "X-Forwarded-Method": "PATCH", "X-Forwarded-Uri": f"{raw}?key=hunter2",
    }  # fmt: skip
    answer = asks(
        client, route, {**bearer(make_key()[1]), **family}, method="PATCH",
        path=f"{raw}?key=hunter2",
    )  # fmt: skip
    assert answer.status_code == 200
    entry = latest()
    assert (entry.method, entry.endpoint) == ("PATCH", raw)
    assert "hunter2" not in repr(entry.__data__)


# --- families ---------------------------------------------------------------------------------

LIES = {
    "X-Original-Method": "DELETE", "X-Original-URL": "/admin", "X-Forwarded-Method": "DELETE",
    "X-Forwarded-Uri": "/admin", "X-Original-URI": "/admin", "X-Rewrite-URL": "/admin",
    "X-HTTP-Method-Override": "DELETE", "X-Forwarded-Path": "/admin", "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9", "X-Required-Permission": "not:held",
    "X-Latchkey-Options": "project=elsewhere", "X-Latchkey-Path": "/admin",
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_headers_of_another_family_change_nothing(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    _, secret = make_key()
    envoys = ("X-Required-Permission", "X-Latchkey-Options") if route == "envoy" else ()
    lies = {name: text for name, text in LIES.items() if name not in (*OWN[route], *envoys)}
    answer = asks(client, route, {**lies, **bearer(secret)})
    assert answer.status_code == 200
    entry = latest()
    assert (entry.method, entry.endpoint, entry.ip) == ("GET", "/tasks", "192.0.2.7")
    assert entry.permissions == []


@pytest.mark.parametrize("route", ["nginx", *FORWARDING])
def test_another_family_never_stands_in_for_a_missing_one(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    _, secret = make_key()
    for missing in OWN[route]:
        sent = {**ORIGINAL, **FORWARDED, "X-Forwarded-For": "192.0.2.7", **bearer(secret)}
        del sent[missing]
        answer = client.get(f"/forward-auth/{route}", headers=sent)
        assert_status(route, answer, 400, "INVALID")
        assert [error["field"] for error in answer.json["errors"]] == [missing]
    journal.settle()
    assert Entry.select().count() == 0


@pytest.mark.parametrize(
    "bad", ["", " ", "GET POST", "GET\t", "G" * 21, "ключ".encode().decode("latin-1")]
)
@pytest.mark.parametrize("route", ["nginx", *FORWARDING])
def test_a_method_that_is_none_is_refused(
    route: str, bad: str, client: FlaskClient, make_key: MakeKey
) -> None:
    [name, _] = OWN[route]
    answer = asks(client, route, {**bearer(make_key()[1]), name: bad})
    if bad.strip() == "GET":
        assert answer.status_code == 200
    else:
        assert_status(route, answer, 400, "INVALID")


@pytest.mark.parametrize("bad", ["", "tasks", "*", "?x=/a", "https://host", "javascript:x"])
@pytest.mark.parametrize("route", ["nginx", *FORWARDING])
def test_an_address_that_is_none_is_refused(
    route: str, bad: str, client: FlaskClient, make_key: MakeKey
) -> None:
    [_, name] = OWN[route]
    answer = asks(client, route, {**bearer(make_key()[1]), name: bad})
    if bad == "https://host":  # nothing behind the host is the root
        assert answer.status_code == 200
    else:
        assert_status(route, answer, 400, "INVALID")


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "query",
    ["?permisson=a:b", "?permission=ab", "?permission=", "?environment=prod",
     "?project=a&project=b", "?preflight=yes", "?preflight=", "?header=cookie", "?header=",
     "?unknown=1"],
)  # fmt: skip
def test_a_mistyped_option_lets_nobody_through(
    route: str, query: str, client: FlaskClient, make_key: MakeKey
) -> None:
    _, secret = make_key(permissions=["*"])
    assert_status(route, asks(client, route, bearer(secret), query), 400, "INVALID")


@pytest.mark.parametrize("route", ROUTES)
def test_only_the_header_that_is_named_carries_the_key(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    """So that a service can have the other one for itself."""
    _, secret = make_key()
    both = {"X-API-Key": secret, "Authorization": "Bearer of.the.service"}
    assert asks(client, route, both, "?header=x-api-key").status_code == 200
    assert asks(client, route, both, "?header=X-API-Key").status_code == 200
    assert asks(client, route, both, "?header=authorization").status_code == 401
    assert asks(client, route, bearer(secret), "?header=x-api-key").status_code == 401
    assert asks(client, route, bearer(secret), "?header=authorization").status_code == 200


PREFLIGHT = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "PUT"}


def preflight(client: FlaskClient, route: str, query: str, **headers: str) -> TestResponse:
    method = {"X-Original-Method": "OPTIONS", "X-Forwarded-Method": "OPTIONS"}
    sent = {**PREFLIGHT, **method, **{name.replace("_", "-"): v for name, v in headers.items()}}
    own = {name: value for name, value in sent.items() if value}
    return asks(client, route, own, query, method="OPTIONS")


@pytest.mark.parametrize("route", ROUTES)
def test_a_preflight_passes_where_the_proxy_says_so(route: str, client: FlaskClient) -> None:
    assert_status(route, preflight(client, route, ""), 401, "API_KEY_MISSING")
    assert preflight(client, route, "?preflight=deny").status_code == 401
    answer = preflight(client, route, "?preflight=allow&permission=a:b")
    assert (answer.status_code, answer.data) == (200, b"")
    told = {name: answer.headers.getlist(name) for name in IDENTITY}
    assert len(told.pop("X-Request-Id")[0]) > 10
    assert set(map(tuple, told.values())) == {("-",)}


@pytest.mark.parametrize("route", ROUTES)
def test_only_a_preflight_passes_without_a_key(
    route: str, client: FlaskClient, make_key: MakeKey
) -> None:
    query = "?preflight=allow"
    assert preflight(client, route, query, Access_Control_Request_Method="").status_code == 401
    assert asks(client, route, PREFLIGHT, query).status_code == 401
    # One that brings a key is checked as any other request.
    assert preflight(client, route, query, X_API_Key="nonsense").status_code == 401
    assert preflight(client, route, query, X_API_Key=make_key()[1]).status_code == 200
    assert latest().method == "OPTIONS"


# --- Envoy ------------------------------------------------------------------------------------


def test_envoy_may_say_what_is_needed_in_a_header(client: FlaskClient, make_key: MakeKey) -> None:
    _, secret = make_key(permissions=["a:b", "c:d"])
    for required, status in (
        ("a:b", 200), ("a:b c:d", 200), ("a:b, c:d", 200), ("a:b,x:y", 403), ("x:y", 403),
        ("ab", 400), ("a:b;c:d", 400),
    ):  # fmt: skip
        answer = asks(client, "envoy", {**bearer(secret), "X-Required-Permission": required})
        assert answer.status_code == status, required


def test_where_envoy_says_its_options_the_clients_query_means_nothing(
    client: FlaskClient, make_key: MakeKey
) -> None:
    _, secret = make_key(permissions=["a:b"])
    theirs = "/tasks?permission=x:y&project=7&environment=moon&preflight=allow&header=x&page=2"
    for own in ({"X-Required-Permission": "a:b"}, {"X-Latchkey-Options": "project=shop"}):
        answer = asks(client, "envoy", {**own, **bearer(secret)}, path=theirs)
        assert answer.status_code == 200
        assert asks(client, "envoy", {**own, **PREFLIGHT}, path=theirs,
                    method="OPTIONS").status_code == 401  # fmt: skip


def test_where_envoy_says_no_options_a_query_can_only_ask_for_more(
    client: FlaskClient, make_key: MakeKey, operator: Any
) -> None:
    _, secret = make_key(permissions=["a:b"])
    for path, status in (
        ("/tasks?permission=a:b", 200), ("/tasks?permission=x:y", 403), ("/tasks?page=2", 200),
        ("/tasks?permission=words", 200), ("/tasks?project=elsewhere", 403),
    ):  # fmt: skip
        assert asks(client, "envoy", bearer(secret), path=path).status_code == status, path
    rules = [{"path": "/tasks", "permissions": ["c:d"]}]
    projects.edit("shop", {"route_rules": rules}, by=operator)
    assert asks(client, "envoy", bearer(secret), path="/tasks?permission=a:b").status_code == 403
    assert preflight(client, "envoy", "").status_code == 401
    answer = asks(client, "envoy", PREFLIGHT, method="OPTIONS", path="/tasks?preflight=allow")
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("decoded", "headers", "logged"),
    [
        ("/a/b", {}, "/a/b"),
        ("/a/b", {"HTTP_X_LATCHKEY_PATH": "/a%2Fb?q=1"}, "/a%2Fb"),
        ("/a/b", {"HTTP_X_LATCHKEY_PATH": "/harmless"}, "/a/b"),
        ("/a b", {}, "/a%20b"),
        ("/caf\xc3\xa9", {}, "/caf%C3%A9"),
        ("/", {}, "/"),
    ],
)
def test_envoys_path_is_kept_as_it_was_sent(
    app: Flask, make_key: MakeKey, decoded: str, headers: dict[str, str], logged: str
) -> None:
    """A server hands a path on decoded (PEP 3333); what Envoy says counts where both agree."""
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": f"/forward-auth/envoy{decoded}", "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1", "HTTP_X_API_KEY": make_key()[1], **headers,
    }  # fmt: skip
    statuses: list[str] = []
    gate.Gate(app, app.config["LATCHKEY"])(environ, lambda status, _: statuses.append(status))
    assert statuses == ["200 OK"]
    assert latest().endpoint == logged


def test_envoy_without_a_path_is_refused(client: FlaskClient, make_key: MakeKey) -> None:
    answer = client.get("/forward-auth/envoy", headers=bearer(make_key()[1]))
    assert_problem(answer, 400, "INVALID")


def test_every_route_is_answered_on_the_spot(app: Flask) -> None:
    """No thread is woken for it; see server.py."""
    door = gate.Gate(app, app.config["LATCHKEY"])
    door.never_waits = True
    for path in (*(f"/forward-auth/{name}" for name in ROUTES), "/forward-auth/envoy/a/b",
                 "/api/v1/verify"):  # fmt: skip
        assert door.is_quick(path), path
    for path in ("/forward-auth/", "/forward-auth/envoyx", "/forward-auth/caddy/", "/", "/login"):
        assert not door.is_quick(path), path


def test_the_identity_headers_are_all_there(make_key: MakeKey) -> None:
    assert [name for name, _ in wire.nobodys_headers("r")] == list(IDENTITY)


# --- others, as their documentation describes their requests ----------------------------------

APISIX = {
    "X-Forwarded-Proto": "http", "X-Forwarded-Method": "POST",
    "X-Forwarded-Host": "api.example.com",
    "X-Forwarded-Uri": "/tasks/1?x=2", "X-Forwarded-For": "192.0.2.7",
}  # fmt: skip
INGRESS_NGINX = {
    "Host": "latchkey.default.svc", "X-Original-URL": "https://api.example.com/tasks/1?x=2",
    "X-Original-Method": "POST", "X-Sent-From": "nginx-ingress-controller",
    "X-Real-IP": "192.0.2.7", "X-Forwarded-For": "192.0.2.7",
    "X-Auth-Request-Redirect": "/tasks/1?x=2", "Accept": "*/*", "Cookie": "theme=dark",
}  # fmt: skip


@pytest.mark.parametrize(
    ("route", "sent"), [("traefik", APISIX), ("nginx", INGRESS_NGINX)], ids=["APISIX", "ingress"]
)
def test_what_other_proxies_send_is_understood(
    route: str, sent: dict[str, str], client: FlaskClient, make_key: MakeKey
) -> None:
    _, secret = make_key(permissions=["tasks:read"], ip_allowlist=["192.0.2.7"])
    path = f"/forward-auth/{route}?project=shop&permission=tasks:read"
    answer = client.get(path, headers={**sent, **bearer(secret)})
    assert answer.status_code == 200
    entry = latest()
    assert (entry.method, entry.endpoint, entry.ip) == ("POST", "/tasks/1", "192.0.2.7")
    assert_status(route, client.get(path, headers=sent), 401, "API_KEY_MISSING")
