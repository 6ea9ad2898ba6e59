"""The shipped nginx configuration, in a real nginx, between a real backend and a real Latchkey.

Proves what a client gets for every verdict, that the backend hears of nobody but holders of a
good key, that it hears who they are from Latchkey alone, and that it never sees the key.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peewee import sqlite3

from tests.conftest import PASSWORD, bearer
from tests.nginx import SHIPPED, Answer, Backend, call, proxying, serving
from tests.server import RunningServer, free_port

pytestmark = pytest.mark.service

# A machine's second loopback address: a client that is not itself a trusted proxy.
CLIENT = "127.0.0.2"
FORGED = "forged-by-the-client"


class Site:
    """A client's view of it all: nginx in front, the backend behind, Latchkey beside."""

    def __init__(self, latchkey: RunningServer, backend: Backend, port: int, log: Path) -> None:
        self.latchkey = latchkey
        self.backend = backend
        self.port = port
        self.log = log
        latchkey.run("create-project", "--slug", "shop", "--prefix", "sk").check_returncode()
        latchkey.run(
            "create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD
        ).check_returncode()
        self.secret = latchkey.run(
            "create-key", "--project", "shop", "--name", "CI", "--permission", "tasks:read"
        ).stdout.strip()
        login = {"email": "ada@example.com", "password": PASSWORD}
        self.token = ""
        self.token = self.api("POST", "/auth/token", login)["access_token"]

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """Latchkey's JSON API, as the owner."""
        headers = {"Content-Type": "application/json", **(bearer(self.token) if self.token else {})}
        body = json.dumps(content) if content is not None else None
        answer = call(self.latchkey.port, f"/api/v1{path}", method, headers, body)
        assert answer.status < 300, answer.body
        return json.loads(answer.body)

    def make_key(self, **settings: Any) -> dict[str, Any]:
        settings = {"name": "another", "permissions": ["tasks:read"], **settings}
        key: dict[str, Any] = self.api("POST", "/api-keys", settings)
        return key

    def get(self, path: str = "/tasks", method: str = "GET", **more: Any) -> Answer:
        more.setdefault("headers", bearer(self.secret))
        return call(self.port, path, method, **more)

    def latest_entry(self) -> dict[str, Any]:
        [key] = [key for key in self.api("GET", "/api-keys?q=CI")["data"] if key["name"] == "CI"]
        entry: dict[str, Any] = self.api("GET", f"/api-keys/{key['id']}/audit-log")["data"][0]
        return entry


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    with (
        RunningServer(home / "data", LATCHKEY_KEY_LIMIT="1000") as latchkey,
        serving(Backend()) as backend,
        proxying(home / "nginx", latchkey=latchkey.port, backend=backend.server_port) as port,
    ):
        yield Site(latchkey, backend, port, home / "nginx" / "error.log")


@pytest.fixture
def site(running: Site) -> Site:
    """The running site, with nothing remembered of the tests before."""
    running.backend.calls.clear()
    os.truncate(running.log, 0)
    return running


# --- what the client gets -------------------------------------------------------------------


def test_a_good_key_reaches_the_backend(site: Site) -> None:
    answer = site.get("/tasks?page=2")
    assert (answer.status, answer.body) == (200, "the backend's own words")
    [seen] = site.backend.calls
    assert (seen.method, seen.path) == ("GET", "/tasks?page=2")


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE", "OPTIONS"])
def test_every_method_is_checked_and_logged_as_itself(site: Site, method: str) -> None:
    assert site.get(method=method, headers={}).status == 401
    assert site.backend.calls == []
    assert site.get(method=method).status == 200
    assert site.backend.calls[0].method == method
    assert site.latest_entry()["method"] == method


def test_the_body_reaches_the_backend(site: Site) -> None:
    assert site.get(method="POST", body="x" * 100_000).status == 200
    assert site.backend.calls[0].body == "x" * 100_000


REFUSALS = [
    # name, headers (with {secret} for the good key), status, code
    ("no key", {}, 401, "API_KEY_MISSING"),
    ("not a key", {"Authorization": "Bearer nonsense"}, 401, "API_KEY_MALFORMED"),
    ("an unknown key", {"X-API-Key": "vc_" + "0" * 32}, 401, "API_KEY_INVALID"),
    ("no permission", {"X-API-Key": "{powerless}"}, 403, "PERMISSION_DENIED"),
    ("two keys", {"Authorization": "Bearer {secret}", "X-API-Key": "{powerless}"}, 400, "INVALID"),
]


@pytest.mark.parametrize(
    ("headers", "status", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_refusal_reaches_the_client_as_it_is(
    site: Site, headers: dict[str, str], status: int, code: str
) -> None:
    powerless = site.make_key(permissions=["tasks:write"])["key"]
    sent = {
        name: text.format(secret=site.secret, powerless=powerless)
        for name, text in headers.items()
    }  # fmt: skip
    answer = site.get(headers=sent)
    assert (answer.status, answer.problem["code"]) == (status, code)
    assert answer.headers["X-Request-Id"] == answer.problem["request_id"]
    assert site.backend.calls == []
    assert "unexpected status" not in site.log.read_text()


def test_a_refusal_carries_one_challenge_of_rfc_6750(site: Site) -> None:
    def challenges(headers: dict[str, str]) -> list[str] | None:
        return site.get(headers=headers).headers.get_all("WWW-Authenticate")

    powerless = site.make_key(permissions=[])["key"]
    assert challenges({}) == ['Bearer realm="latchkey"']
    [challenge] = challenges({"X-API-Key": "nonsense"}) or []
    assert 'error="invalid_token"' in challenge
    [challenge] = challenges(bearer(powerless)) or []
    assert 'error="insufficient_scope", scope="tasks:read"' in challenge
    assert challenges(bearer(site.secret)) is None


def test_a_spent_limit_reaches_the_client_as_429(site: Site) -> None:
    limited = bearer(site.make_key(rate_limit={"per_hour": 1})["key"])
    first, second = site.get(headers=limited), site.get(headers=limited)
    assert (first.status, second.status) == (200, 429)
    assert second.problem["code"] == "RATE_LIMITED"
    assert 1 <= int(second.headers["Retry-After"]) <= 3600
    for answer in (first, second):
        assert answer.headers.get_all("X-RateLimit-Limit") == ["1"]
        assert answer.headers.get_all("X-RateLimit-Remaining") == ["0"]
        assert int(answer.headers["X-RateLimit-Reset"]) % 3600 == 0
        assert answer.headers["RateLimit-Policy"] == '"hour";q=1;w=3600'
        assert answer.headers["RateLimit"].startswith('"hour";r=0;t=')
    assert len(site.backend.calls) == 1
    assert "unexpected status" not in site.log.read_text()


def test_a_key_without_limits_brings_no_rate_headers(site: Site) -> None:
    answer = site.get()
    assert "Retry-After" not in answer.headers
    assert [name for name in answer.headers if "ratelimit" in name.lower()] == []


def test_a_failing_database_reaches_the_client_as_503(site: Site) -> None:
    key = site.make_key()  # one that no check has remembered yet
    with closing(sqlite3.connect(site.latchkey.data_dir / "latchkey.db")) as database:
        database.execute('ALTER TABLE "secret" RENAME TO "hidden"')
        try:
            answer = site.get(headers=bearer(key["key"]))
        finally:
            database.execute('ALTER TABLE "hidden" RENAME TO "secret"')
    assert (answer.status, answer.problem["code"]) == (503, "UNAVAILABLE")
    assert answer.headers["Retry-After"] == "1"
    # Latchkey's own answer, for which nginx waited: it can be found in Latchkey's log.
    assert answer.problem["request_id"] in site.latchkey.log
    assert site.backend.calls == []
    assert "unexpected status" not in site.log.read_text()
    assert site.get().status == 200


def test_nobody_passes_while_latchkey_is_down(site: Site) -> None:
    assert site.get().status == 200
    site.backend.calls.clear()
    site.latchkey.stop()
    try:
        answer = site.get()
        assert (answer.status, answer.problem["code"]) == (503, "UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
        assert site.backend.calls == []
    finally:
        site.latchkey.start()
    assert site.get().status == 200


def test_a_revoked_key_is_refused_from_the_next_call_on(site: Site) -> None:
    key = site.make_key()
    assert site.get(headers=bearer(key["key"])).status == 200
    site.api("PATCH", f"/api-keys/{key['id']}", {"status": "revoked"})
    site.backend.calls.clear()
    answer = site.get(headers=bearer(key["key"]))
    assert (answer.status, answer.problem["code"]) == (401, "API_KEY_REVOKED")
    assert site.backend.calls == []


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_the_backends_own_answer_passes_untouched(site: Site, status: int) -> None:
    answer = site.get(f"/status/{status}")
    assert (answer.status, answer.body) == (status, "the backend's own words")


def test_the_question_to_latchkey_cannot_be_asked_from_outside(site: Site) -> None:
    assert site.get("/_latchkey").status == 404
    assert site.backend.calls == []


# --- what the backend hears -----------------------------------------------------------------

IDENTITY = (
    "X-Key-Id", "X-Key-Name", "X-Key-Project", "X-Key-Environment", "X-Key-Owner",
    "X-Key-Permissions", "X-Key-External-Id", "X-Request-Id",
)  # fmt: skip


def test_the_backend_hears_who_calls_from_latchkey_alone(site: Site) -> None:
    key = site.make_key(name="Zoë's key", external_id="customer/7")
    forged = {name: FORGED for name in IDENTITY}
    underscored = {name.replace("-", "_"): FORGED for name in (*IDENTITY, "X-Forwarded-For")}
    lowered = {name.lower(): FORGED for name in IDENTITY}
    for headers in (forged, underscored, lowered):
        site.backend.calls.clear()
        assert site.get(headers={**bearer(key["key"]), **headers}).status == 200
        [seen] = site.backend.calls
        assert FORGED not in str(seen.headers)
        told = {name: seen.headers.get_all(name) for name in IDENTITY}
        request_ids = told.pop("X-Request-Id") or []
        assert told == {
            "X-Key-Id": [key["id"]],
            "X-Key-Name": ["Zo%C3%AB%27s%20key"],
            "X-Key-Project": ["shop"],
            "X-Key-Environment": ["live"],
            "X-Key-Owner": ["ada@example.com"],
            "X-Key-Permissions": ["tasks:read"],
            "X-Key-External-Id": ["customer/7"],
        }
        [entry] = site.api("GET", f"/api-keys/{key['id']}/audit-log?limit=1")["data"]
        assert request_ids == [entry["request_id"]]


def test_an_empty_value_is_told_as_a_dash(site: Site) -> None:
    site.get(headers={**bearer(site.secret), "X-Key-Owner": FORGED, "X-Key-External-Id": FORGED})
    [seen] = site.backend.calls
    assert (seen.headers["X-Key-Owner"], seen.headers["X-Key-External-Id"]) == ("-", "-")


@pytest.mark.parametrize(
    "sent",
    [
        {"Authorization": "Bearer {}"},
        {"authorization": "bearer {}"},
        {"X-API-Key": "{}"},
        {"x-api-key": "{}", "Authorization": "Bearer {}"},
        {"X-Api-Key": "{}", "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_the_key_ends_at_the_proxy(site: Site, sent: dict[str, str]) -> None:
    headers = {name: text.format(site.secret) for name, text in sent.items()}
    assert site.get(headers=headers).status == 200
    [seen] = site.backend.calls
    assert site.secret not in str(seen.headers)
    assert "Authorization" not in seen.headers
    assert "X-API-Key" not in seen.headers


def test_the_longest_identity_fits(site: Site) -> None:
    permissions = [f"tasks:{number:03}{'x' * 91}" for number in range(99)] + ["tasks:read"]
    key = site.make_key(name="🗝" * 100, external_id="é" * 255, permissions=permissions)
    assert site.get(headers=bearer(key["key"])).status == 200
    [seen] = site.backend.calls
    assert seen.headers["X-Key-Permissions"] == " ".join(permissions)
    assert seen.headers["X-Key-Name"] == "%F0%9F%97%9D" * 100


# --- what Latchkey hears --------------------------------------------------------------------


def test_the_query_string_is_not_logged_and_carries_no_key(site: Site) -> None:
    assert site.get("/tasks?token=hunter2&permission=x:y").status == 200
    entry = site.latest_entry()
    assert (entry["endpoint"], entry["permissions"]) == ("/tasks", ["tasks:read"])
    assert "hunter2" not in json.dumps(entry)
    assert site.get(f"/tasks?key={site.secret}&api_key={site.secret}", headers={}).status == 401


def test_a_client_cannot_lie_about_its_address(site: Site) -> None:
    spoofed = {
        "X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9", "X_Forwarded_For": "203.0.113.9",
    }  # fmt: skip
    assert site.get(source=CLIENT, headers={**bearer(site.secret), **spoofed}).status == 200
    assert site.latest_entry()["ip"] == CLIENT
    assert site.backend.calls[0].headers.get_all("X-Forwarded-For") == [CLIENT]


def test_an_allowlist_is_held_against_the_clients_address(site: Site) -> None:
    key = bearer(site.make_key(ip_allowlist=[CLIENT])["key"])
    assert site.get(source=CLIENT, headers=key).status == 200
    answer = site.get(headers={**key, "X-Forwarded-For": CLIENT})
    assert (answer.status, answer.problem["code"]) == (403, "IP_NOT_ALLOWED")


def test_a_client_cannot_lie_about_its_method_or_path(site: Site) -> None:
    lies = {
        "X-Original-Method": "HEAD", "X-Original-URL": "http://x/harmless",
        "X-Forwarded-Method": "HEAD", "X-Forwarded-Uri": "/harmless",
    }  # fmt: skip
    assert site.get("/a%2Fb/../c", "DELETE", headers={**bearer(site.secret), **lies}).status == 200
    entry = site.latest_entry()
    assert (entry["method"], entry["endpoint"]) == ("DELETE", "/a%2Fb/../c")


def test_an_address_that_cannot_be_logged_is_refused(site: Site) -> None:
    """Bytes beyond ASCII have no place in a request line (RFC 9112); they must be encoded."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as raw:
        line = f"GET /t\xe2sk HTTP/1.0\r\nX-API-Key: {site.secret}\r\n\r\n"
        raw.sendall(line.encode("latin-1"))
        assert raw.makefile("rb").readline().split()[1] == b"400"
    assert site.backend.calls == []
    assert site.get("/t%C3%A2sk").status == 200
    assert site.latest_entry()["endpoint"] == "/t%C3%A2sk"


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
def test_what_is_not_latchkeys_answer_lets_nobody_through(tmp_path: Path, status: int) -> None:
    """Some other server at Latchkey's address, or a mistyped path on it."""
    with (
        serving(Backend(status)) as other,
        serving(Backend()) as backend,
        proxying(tmp_path / "nginx", latchkey=other.server_port, backend=backend.server_port) as at,
    ):
        answer = call(at, headers=bearer("any"))
        assert (answer.status, answer.problem["code"]) == (503, "UNAVAILABLE")
        assert (len(other.calls), backend.calls) == (1, [])


def test_latchkey_is_told_what_it_needs_and_no_more(tmp_path: Path) -> None:
    with (
        serving(Backend()) as latchkey,
        proxying(tmp_path / "nginx", latchkey=latchkey.server_port, backend=free_port()) as port,
    ):
        headers = {"X-API-Key": "k", "Cookie": "session=s", "X-Key-Id": FORGED, "User-Agent": "ua"}
        call(port, "/tasks?page=2", "POST", headers=headers, body="what the client uploads")
    [seen] = latchkey.calls
    assert (seen.method, seen.path) == ("GET", "/forward-auth/nginx?permission=tasks:read")
    assert seen.body == ""
    assert {name.lower(): value for name, value in seen.headers.items()} == {
        "host": "latchkey",
        "x-api-key": "k",
        "user-agent": "ua",
        "x-original-method": "POST",
        "x-original-url": f"http://127.0.0.1:{port}/tasks?page=2",
        "x-forwarded-for": "127.0.0.1",
    }


def test_reading_and_writing_can_need_different_permissions(tmp_path: Path) -> None:
    """By the lines that README.md gives for it."""
    found = re.search(r"```nginx\n(.*?)```", (SHIPPED.parent / "README.md").read_text(), re.DOTALL)
    assert found is not None
    by_method = found[1]

    def change(text: str) -> str:
        assert text.count("permission=tasks:read") == 1
        return by_method + text.replace("permission=tasks:read", "permission=$key_permission")

    with (
        serving(Backend()) as latchkey,
        proxying(
            tmp_path / "nginx", latchkey=latchkey.server_port, backend=free_port(), change=change
        ) as port,
    ):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            call(port, "/tasks?page=2", method)
    asked = [seen.path.removeprefix("/forward-auth/nginx?permission=") for seen in latchkey.calls]
    assert asked == ["tasks:read", "tasks:read", "tasks:write", "tasks:write"]
