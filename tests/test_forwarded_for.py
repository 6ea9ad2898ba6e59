"""Whose address a proxy's call carries, over a real connection: what is decided by it, and what the
log keeps. The cases are those of test_addresses.py, and what only HTTP can do to a header.
"""

import http.client
import json
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest

from tests.server import RunningServer
from tests.test_addresses import CLIENT, FORWARDED, LOCAL, SPOOFED

pytestmark = pytest.mark.service

ROUTES = {
    "nginx": {"X-Original-Method": "GET", "X-Original-URL": "http://host/tasks"},
    "caddy": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/tasks"},
    "traefik": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/tasks"},
    "haproxy": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/tasks"},
    "envoy/tasks": {},
}
STRANGER = "127.0.0.2"
FOR = "X-Forwarded-For"
Lines = list[tuple[str, str]]

# Of the peers in that table only this one can be had on one machine.
CASES: dict[str, tuple[Lines, str | None]] = {
    name: ([(FOR, header)], client)
    for name, (peer, header, client) in FORWARDED.items()
    if peer == LOCAL and header.isascii() and len(header) < 8_000
}
CASES |= {
    "the header does not come": ([], LOCAL),
    "the header comes empty": ([(FOR, "")], LOCAL),
    "in small letters": ([("x-forwarded-for", CLIENT)], CLIENT),
    "in two lines": ([(FOR, SPOOFED), (FOR, CLIENT)], CLIENT),
    "in two lines, a proxy's own last": ([(FOR, CLIENT), (FOR, "10.1.0.2")], CLIENT),
    "in 50 lines": ([*[(FOR, SPOOFED)] * 49, (FOR, CLIENT)], CLIENT),
    "with an underscore": ([("X_Forwarded_For", SPOOFED), (FOR, CLIENT)], CLIENT),
    "with an underscore alone": ([("X_Forwarded_For", SPOOFED)], LOCAL),
    "by other headers besides": (
        [("X-Real-IP", SPOOFED), ("Forwarded", f"for={SPOOFED}"), ("True-Client-IP", SPOOFED),
         ("CF-Connecting-IP", SPOOFED), (FOR, CLIENT)], CLIENT,
    ),
    "by other headers alone": (
        [("X-Real-IP", SPOOFED), ("Forwarded", f"for={SPOOFED}")], LOCAL
    ),
    "in bytes beyond ASCII": ([(FOR, "\xb2\xb2.0.0.1")], None),
    "in bytes beyond ASCII, before a good line": ([(FOR, "\xb2"), (FOR, CLIENT)], CLIENT),
    "of 8 kB": ([(FOR, ", ".join([SPOOFED] * 500 + [CLIENT]))], CLIENT),
}  # fmt: skip


class Site:
    """A Latchkey that trusts this machine and a tier of proxies, and two keys in it."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-project", "--slug", "shop").check_returncode()
        created = server.run(
            "create-key", "--project", "shop", "--name", "manager",
            "--permission", "keys:manage", "--permission", "audit:read",
        )  # fmt: skip
        self.bearer = ("Authorization", f"Bearer {created.stdout.strip()}")
        self.anywhere = self.make(name="anywhere")
        self.listed = self.make(name="listed", ip_allowlist=[CLIENT])

    def make(self, **settings: Any) -> dict[str, Any]:
        lines = [self.bearer, ("Content-Type", "application/json")]
        _, _, body = self.call("POST", "/api/v1/api-keys", lines, body=json.dumps(settings))
        key: dict[str, Any] = json.loads(body)
        return key

    def call(
        self, method: str, path: str, lines: Lines, source: str = LOCAL, body: str = ""
    ) -> tuple[int, Message, str]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.server.port, timeout=30, source_address=(source, 0)
        )
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in lines:
                connection.putheader(name, value.encode("latin-1"))
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode() or None)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def forward(
        self, route: str, key: dict[str, Any], lines: Lines, source: str = LOCAL
    ) -> tuple[int, str, str]:
        """Status, code and request id of the answer to a proxy's call with these lines."""
        own = [*ROUTES[route].items(), ("X-API-Key", key["key"])]
        status, headers, body = self.call("GET", f"/forward-auth/{route}", [*own, *lines], source)
        return status, json.loads(body)["code"] if body else "VALID", headers["X-Request-Id"]

    def logged(self, key: dict[str, Any]) -> dict[str, str | None]:
        """The address of each entry of the key, by request id."""
        path = f"/api/v1/api-keys/{key['id']}/audit-log?limit=200"
        found: dict[str, str | None] = {}
        cursor: str | None = ""
        while cursor is not None:
            _, _, body = self.call("GET", path + cursor, [self.bearer])
            page = json.loads(body)
            found |= {entry["request_id"]: entry["ip"] for entry in page["data"]}
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("forwarded")
    trusted = "127.0.0.1/32,::1/128,10.1.0.0/16"
    with RunningServer(home / "data", LATCHKEY_TRUSTED_PROXIES=trusted) as server:
        yield Site(server)


def test_there_are_forty_cases_at_least() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("route", ROUTES)
def test_the_address_decided_by_and_logged_is_the_tables(site: Site, route: str) -> None:
    """Every case, with a key that may come from anywhere and with one that may come from CLIENT."""
    decided, asked = {}, {}
    for name, (lines, _) in CASES.items():
        status, code, request_id = site.forward(route, site.anywhere, lines)
        assert (status, code) == (200, "VALID"), name
        asked[name] = request_id
        _, decided[name], refused_id = site.forward(route, site.listed, lines)
        asked[f"{name}, listed"] = refused_id
    logged = site.logged(site.anywhere) | site.logged(site.listed)
    expected = {name: client for name, (_, client) in CASES.items()}
    assert {name: logged[asked[name]] for name in CASES} == expected
    assert {name: logged[asked[f"{name}, listed"]] for name in CASES} == expected
    assert decided == {
        name: "VALID" if client == CLIENT else "IP_NOT_ALLOWED"
        for name, client in expected.items()
    }  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_whoever_is_no_trusted_proxy_says_nothing(site: Site, route: str) -> None:
    before = site.logged(site.listed)
    for lines in ([], [(FOR, CLIENT)], [(FOR, LOCAL)], [(FOR, "10.1.0.2")]):
        status, code, _ = site.forward(route, site.listed, lines, STRANGER)
        assert (status, code) == (403, "FORBIDDEN")
    assert site.logged(site.listed) == before


def test_headers_beyond_all_measure_are_refused(site: Site) -> None:
    status, _, _ = site.call("GET", "/forward-auth/caddy", [(FOR, "9" * 100_000)])
    assert status == 431
