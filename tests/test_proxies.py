"""Each shipped configuration, in the real proxy, between a real backend and a real Latchkey.

Proves for all of them what a client gets for every verdict, that the backend hears of nobody but
holders of a good key, that it hears who they are from Latchkey alone and never sees the key, and
that nobody passes while Latchkey is down, frozen, or something else.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import bearer, need
from tests.proxies import (
    CADDY,
    ENVOY,
    HAPROXY,
    NGINX,
    PROXIES,
    TRAEFIK,
    Answer,
    Backend,
    Proxy,
    Site,
    call,
    proxying,
    serving,
)
from tests.server import RunningServer

pytestmark = [pytest.mark.service, pytest.mark.outside]

# A machine's second loopback address: a client that is not itself a trusted proxy.
CLIENT = "127.0.0.2"
FORGED = "forged-by-the-client"
IDENTITY = (
    "X-Key-Id", "X-Key-Name", "X-Key-Project", "X-Key-Environment", "X-Key-Owner",
    "X-Key-Permissions", "X-Key-External-Id", "X-Key-Expires", "X-Request-Id",
)  # fmt: skip

# For how long a client waits at most until it is told that keys cannot be checked.
LIMIT_SECONDS = {NGINX: 7, CADDY: 7, TRAEFIK: 30, HAPROXY: 7, ENVOY: 7}
SLACK_SECONDS = 6  # for a machine that is busy with other tests
# What a client is told then. Traefik has one status for all that goes wrong.
UNCHECKED = {NGINX: 503, CADDY: 503, TRAEFIK: 500, HAPROXY: 503, ENVOY: 503}


@pytest.fixture(scope="module")
def latchkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = tmp_path_factory.mktemp("latchkey") / "data"
    with RunningServer(data, LATCHKEY_KEY_LIMIT="1000") as running:
        yield running


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with serving(Backend()) as running:
        yield running


@pytest.fixture(scope="module")
def whole(latchkey: RunningServer, backend: Backend) -> Site:
    return Site(latchkey, backend, 0, Path())


@pytest.fixture(scope="module")
def stranger() -> Iterator[Backend]:
    """Some other server, where Latchkey should be."""
    with serving(Backend()) as running:
        yield running


Start = Callable[[Proxy], int]


def _starting(home: Path, latchkey: int, backend: int) -> Iterator[Start]:
    """Starts a proxy when it is first asked for, and stops them all in the end."""
    ports: dict[str, int] = {}
    with ExitStack() as stack:

        def start(proxy: Proxy) -> int:
            if proxy.program not in ports:
                ports[proxy.program] = stack.enter_context(
                    proxying(
                        home / proxy.program, latchkey=latchkey, backend=backend, proxy=proxy
                    )  # fmt: skip
                )
            return ports[proxy.program]

        yield start


@pytest.fixture(scope="module")
def start(
    whole: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:  # fmt: skip
    """A proxy that asks Latchkey."""
    home = tmp_path_factory.mktemp("proxies")
    yield from _starting(home, whole.latchkey.port, whole.backend.server_port)


@pytest.fixture(scope="module")
def start_astray(
    stranger: Backend, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """A proxy that asks the stranger."""
    home = tmp_path_factory.mktemp("astray")
    yield from _starting(home, stranger.server_port, backend.server_port)


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    found = PROXIES[request.param]
    need(found.program, found.install)
    return found


@pytest.fixture
def site(whole: Site, start: Start, proxy: Proxy) -> Site:
    """The whole behind this proxy, with nothing remembered of the tests before."""
    whole.port = start(proxy)
    whole.backend.calls.clear()
    return whole


# --- what the client gets -------------------------------------------------------------------


def test_a_good_key_reaches_the_backend_with_query_and_body(site: Site) -> None:
    query = "/tasks?page=2&permission=x:y&q=a%2Fb+c&empty="
    answer = site.get(query, "POST", body="x" * 100_000)
    assert (answer.status, answer.body) == (200, "the backend's own words")
    [seen] = site.backend.calls
    assert (seen.method, seen.path, seen.body) == ("POST", query, "x" * 100_000)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_checked_and_logged_as_itself(site: Site, method: str) -> None:
    assert site.get(method=method, headers={}).status == 401
    assert site.backend.calls == []
    assert site.get(method=method).status == 200
    assert site.backend.calls[0].method == method
    assert site.latest_entry()["method"] == method


REFUSALS = [
    # name, headers (with {secret} for the good key), status, code, challenge
    ("no key", {}, 401, "API_KEY_MISSING", 'Bearer realm="latchkey"'),
    ("not a key", {"Authorization": "Bearer no"}, 401, "API_KEY_MALFORMED", "invalid_token"),
    ("unknown", {"X-API-Key": "vc_" + "0" * 32}, 401, "API_KEY_INVALID", "invalid_token"),
    ("powerless", {"X-API-Key": "{powerless}"}, 403, "PERMISSION_DENIED", "insufficient_scope"),
    (
        "two",
        {"Authorization": "Bearer {secret}", "X-API-Key": "{powerless}"},
        400,
        "INVALID",
        "invalid_request",
    ),
]


@pytest.mark.parametrize(
    ("headers", "status", "code", "challenge"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_a_refusal_reaches_the_client_as_it_is(
    site: Site, proxy: Proxy, headers: dict[str, str], status: int, code: str, challenge: str
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
    challenges = answer.headers.get_all("WWW-Authenticate") or []
    if status == 400:
        return  # what is missing is not a key; nginx adds none
    assert len(challenges) == 1
    assert challenge in challenges[0]


def test_a_spent_limit_reaches_the_client_as_429(site: Site, proxy: Proxy) -> None:
    limited = bearer(site.make_key(rate_limit={"per_hour": 1})["key"])
    first, second = site.get(headers=limited), site.get(headers=limited)
    assert (first.status, second.status) == (200, 429)
    assert second.problem["code"] == "RATE_LIMITED"
    assert 1 <= int(second.headers["Retry-After"]) <= 3600
    # Traefik cannot hand a header of the question's answer to the client.
    for answer in (second,) if proxy is TRAEFIK else (first, second):
        assert answer.headers.get_all("X-RateLimit-Limit") == ["1"]
        assert answer.headers.get_all("X-RateLimit-Remaining") == ["0"]
        assert int(answer.headers["X-RateLimit-Reset"]) % 3600 == 0
        assert answer.headers.get_all("RateLimit-Policy") == ['"hour";q=1;w=3600']
        assert answer.headers["RateLimit"].startswith('"hour";r=0;t=')
    assert len(site.backend.calls) == 1


def test_a_key_without_limits_brings_no_rate_headers(site: Site) -> None:
    answer = site.get()
    assert "Retry-After" not in answer.headers
    assert [name for name in answer.headers if "ratelimit" in name.lower()] == []


def test_a_failing_database_reaches_the_client_as_503(site: Site, proxy: Proxy) -> None:
    key = site.make_key()  # one that no check has remembered yet
    site.latchkey.query('ALTER TABLE "secret" RENAME TO "hidden"')
    try:
        answer = site.get(headers=bearer(key["key"]))
    finally:
        site.latchkey.query('ALTER TABLE "hidden" RENAME TO "secret"')
    assert (answer.status, answer.problem["code"]) == (503, "UNAVAILABLE")
    assert answer.headers.get_all("Retry-After") == ["1"]
    # Latchkey's own answer, for which the proxy waited; Envoy writes one instead.
    assert ("request_id" in answer.problem) == (proxy is not ENVOY)
    assert site.backend.calls == []
    assert site.get().status == 200


def test_a_revoked_key_is_refused_from_the_next_call_on(site: Site) -> None:
    key = site.make_key()
    assert site.get(headers=bearer(key["key"])).status == 200
    site.api("PATCH", f"/api-keys/{key['id']}", {"status": "revoked"})
    site.backend.calls.clear()
    answer = site.get(headers=bearer(key["key"]))
    assert (answer.status, answer.problem["code"]) == (401, "API_KEY_REVOKED")
    assert site.backend.calls == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_the_backends_own_answer_passes_untouched(site: Site, status: int) -> None:
    answer = site.get(f"/status/{status}")
    assert (answer.status, answer.body) == (status, "the backend's own words")
    assert "Retry-After" not in answer.headers


def test_a_preflight_needs_no_key_where_that_is_said(
    site: Site, proxy: Proxy, tmp_path: Path
) -> None:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "DELETE"}
    answer = site.get(method="OPTIONS", headers=asks)
    assert (answer.status, answer.problem["code"]) == (401, "API_KEY_MISSING")
    assert site.backend.calls == []
    with proxying(
        tmp_path / "lenient",
        latchkey=site.latchkey.port,
        backend=site.backend.server_port,
        proxy=proxy,
        also="preflight=allow",
    ) as port:
        assert call(port, method="OPTIONS", headers=asks | {"X-Key-Id": FORGED}).status == 200
        [seen] = site.backend.calls
        assert (seen.method, seen.headers["X-Key-Id"]) == ("OPTIONS", "-")
        assert seen.headers["Origin"] == "https://app.example"
        for method, headers in (("OPTIONS", {}), ("GET", asks)):
            assert call(port, method=method, headers=headers).status == 401
        assert call(port, headers=bearer(site.secret)).status == 200
        assert len(site.backend.calls) == 2


# --- what the backend hears -----------------------------------------------------------------

WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in lower case": str.lower,
    "with underscores": lambda name: name.replace("-", "_"),
    "with one underscore": lambda name: name.replace("-", "_", 1),
    "with another underscore": lambda name: "_".join(name.rsplit("-", 1)),
    "with dots": lambda name: name.replace("-", "."),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_the_backend_hears_who_calls_from_latchkey_alone(site: Site, written: str) -> None:
    key = site.make_key(
        name="Zoë's key", external_id="customer/7", expires_at="2099-01-01T00:00:00Z"
    )
    forged = {WRITTEN[written](name): FORGED for name in IDENTITY}
    assert site.get(headers={**forged, **bearer(key["key"])}).status == 200
    [seen] = site.backend.calls
    assert FORGED not in str(seen.headers)
    told = {name: seen.headers.get_all(name) for name in IDENTITY}
    request_ids = told.pop("X-Request-Id")
    assert told == {
        "X-Key-Id": [key["id"]],
        "X-Key-Name": ["Zo%C3%AB%27s%20key"],
        "X-Key-Project": ["shop"],
        "X-Key-Environment": ["live"],
        "X-Key-Owner": ["ada@example.com"],
        "X-Key-Permissions": ["tasks:read"],
        "X-Key-External-Id": ["customer/7"],
        "X-Key-Expires": ["2099-01-01T00:00:00Z"],
    }
    [entry] = site.api("GET", f"/api-keys/{key['id']}/audit-log?limit=1")["data"]
    assert request_ids == [entry["request_id"]]


def test_a_client_cannot_have_identity_headers_removed_on_the_way(site: Site) -> None:
    """Connection names what ends at the next hop (RFC 9110, 7.6.1); that is the proxy's to say."""
    named = ", ".join(IDENTITY)
    answer = site.get(headers={**bearer(site.secret), "Connection": f"close, {named}"})
    if answer.status == 200:
        [seen] = site.backend.calls
        assert [name for name in IDENTITY if name not in seen.headers] == []
        assert "x-key" not in (seen.headers["Connection"] or "").lower()
    else:  # refused as it is
        assert (answer.status, site.backend.calls) == (400, [])


def test_nobody_leaves_for_a_protocol_whose_requests_are_not_checked(site: Site) -> None:
    """HTTP/2 over an upgraded connection would carry any number of them (RFC 7540, 3.2)."""
    for upgrade in ("h2c", "h2c, websocket", "websocket, h2c"):
        site.backend.calls.clear()
        leaving = {
            "Connection": "Upgrade, HTTP2-Settings", "Upgrade": upgrade,
            "HTTP2-Settings": "AAMAAABkAAQAAP__",
        }  # fmt: skip
        answer = site.get(headers={**bearer(site.secret), **leaving})
        assert answer.status in (200, 400, 403)
        assert [
            seen.headers["Upgrade"] for seen in site.backend.calls if seen.headers["Upgrade"]
        ] == []


def test_an_empty_value_is_told_as_a_dash(site: Site) -> None:
    empty = ("X-Key-Owner", "X-Key-External-Id", "X-Key-Expires")
    site.get(headers={**bearer(site.secret), **dict.fromkeys(empty, FORGED)})
    [seen] = site.backend.calls
    assert [seen.headers.get_all(name) for name in empty] == [["-"]] * 3


@pytest.mark.parametrize(
    "sent",
    [
        {"Authorization": "Bearer {}"},
        {"authorization": "bearer {}"},
        {"X-API-Key": "{}"},
        {"x-api-key": "{}", "Authorization": "Bearer {}"},
        {"X-Api-Key": "{}", "Authorization": "Basic dXNlcjpwYXNz"},
        {"X-Api-Key": "{}", "X_Api_Key": "{}", "X.Api.Key": "{}"},
    ],
)
def test_the_key_ends_at_the_proxy(site: Site, sent: dict[str, str]) -> None:
    headers = {name: text.format(site.secret) for name, text in sent.items()}
    assert site.get(headers=headers).status == 200
    [seen] = site.backend.calls
    assert site.secret not in str(seen.headers)
    assert "Authorization" not in seen.headers
    assert "X-API-Key" not in seen.headers


def test_the_longest_identity_fits_beside_a_large_cookie(site: Site) -> None:
    permissions = [f"tasks:{number:03}{'x' * 91}" for number in range(99)] + ["tasks:read"]
    key = site.make_key(name="🗝" * 100, external_id="é" * 255, permissions=permissions)
    headers = {**bearer(key["key"]), "Cookie": f"session={'s' * 5_000}"}
    assert site.get(headers=headers).status == 200
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
        "X-Envoy-External-Address": "203.0.113.9",
    }  # fmt: skip
    assert site.get(source=CLIENT, headers={**bearer(site.secret), **spoofed}).status == 200
    assert site.latest_entry()["ip"] == CLIENT
    assert site.backend.calls[0].headers.get_all("X-Forwarded-For") == [CLIENT]


def test_an_allowlist_is_held_against_the_clients_address(site: Site) -> None:
    key = bearer(site.make_key(ip_allowlist=[CLIENT])["key"])
    assert site.get(source=CLIENT, headers=key).status == 200
    answer = site.get(headers={**key, "X-Forwarded-For": CLIENT})
    assert (answer.status, answer.problem["code"]) == (403, "IP_NOT_ALLOWED")


LIES = {
    "X-Original-Method": "HEAD", "X-Original-URL": "http://x/harmless",
    "X-Original-Uri": "/harmless", "X-Forwarded-Method": "HEAD", "X-Forwarded-Uri": "/harmless",
    "X-Required-Permission": "tasks:write", "X-Latchkey-Options": "preflight=allow",
    "X-Latchkey-Path": "/harmless", "X-Envoy-Original-Path": "/harmless",
    "X-HTTP-Method-Override": "HEAD",
}  # fmt: skip


def test_a_client_cannot_lie_about_its_method_or_path(site: Site) -> None:
    assert site.get("/drop", "DELETE", headers={**bearer(site.secret), **LIES}).status == 200
    entry = site.latest_entry()
    assert (entry["method"], entry["endpoint"]) == ("DELETE", "/drop")
    assert entry["permissions"] == ["tasks:read"]
    preflight = {**LIES, "Origin": "https://x", "Access-Control-Request-Method": "PUT"}
    assert site.get(method="OPTIONS", headers=preflight).status == 401
    powerless = site.make_key(permissions=["tasks:write"])["key"]
    assert site.get(headers={**bearer(powerless), **LIES}).status == 403


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%2fb%20c", "/t%C3%A2sk", "/a;b=1/c:d", "/%7Ea"])
def test_a_path_is_logged_and_passed_on_as_it_was_sent(site: Site, proxy: Proxy, path: str) -> None:
    if proxy is TRAEFIK:  # writes escapes in capitals, and none for a letter that needs none
        path = path.replace("%2f", "%2F").replace("%7E", "~")
    assert site.get(path).status == 200
    assert site.backend.calls[0].path == path
    assert site.latest_entry()["endpoint"] == path


def test_dots_in_a_path_lead_nowhere_else(site: Site, proxy: Proxy) -> None:
    assert site.get("/a/../api/v1/verify").status == 200
    path = "/api/v1/verify" if proxy is TRAEFIK else "/a/../api/v1/verify"
    assert site.backend.calls[0].path == site.latest_entry()["endpoint"] == path


def test_latchkey_hears_neither_body_nor_cookie(
    proxy: Proxy, start_astray: Start, stranger: Backend
) -> None:
    port = start_astray(proxy)
    stranger.status = 403
    stranger.calls.clear()
    headers = {"X-API-Key": "k", "User-Agent": "ua", "Cookie": "session=s"}
    if proxy is not ENVOY:  # which answers these itself, unless it is told to let them through
        headers |= {"Upgrade": "websocket", "Connection": "upgrade"}
    call(port, "/tasks?page=2", "POST", headers, "what the client uploads")
    [seen] = stranger.calls
    assert (seen.headers["X-API-Key"], seen.headers["User-Agent"]) == ("k", "ua")
    assert [name for name in ("Cookie", "Upgrade") if name in seen.headers] == []
    assert seen.body == ""
    if proxy is ENVOY:
        assert (seen.method, seen.path) == ("POST", "/forward-auth/envoy/tasks?page=2")
        assert seen.headers["X-Required-Permission"] == "tasks:read"
    else:
        question = f"/forward-auth/{proxy.program}?permission=tasks:read"
        assert (seen.method, seen.path) == ("GET", question)


# --- Latchkey is down, slow, or something else ----------------------------------------------


class Waited(NamedTuple):
    answer: Answer
    seconds: float
    passed: bool


def _installed() -> list[Proxy]:
    found = []
    for proxy in PROXIES.values():
        try:
            need(proxy.program, proxy.install)
        except pytest.skip.Exception:
            continue
        found.append(proxy)
    return found


@pytest.fixture(scope="module")
def waited(
    whole: Site, stranger: Backend, start: Start, start_astray: Start
) -> dict[tuple[str, str], Waited]:
    """What a client of each proxy gets while Latchkey is stopped; and, all at the same time, while
    it is frozen, and while something in its place sends a good answer byte by byte."""
    key = bearer(whole.make_key(name="waits")["key"])
    ports = {proxy.program: start(proxy) for proxy in _installed()}
    astray = {proxy.program: start_astray(proxy) for proxy in _installed()}

    def ask(state: str, name: str, port: int) -> tuple[tuple[str, str], Waited]:
        path, since = f"/{state}/{name}", time.monotonic()
        answer = call(port, path, headers=key, timeout=60)
        seconds = time.monotonic() - since
        passed = path in [seen.path for seen in whole.backend.calls]
        return (state, name), Waited(answer, seconds, passed)

    for port in ports.values():
        assert call(port, headers=key).status == 200
    whole.latchkey.stop()
    try:
        stopped = [ask("stopped", name, port) for name, port in ports.items()]
    finally:
        whole.latchkey.start()
    for port in ports.values():
        assert call(port, headers=key).status == 200
    assert whole.latchkey.process is not None
    stranger.drips = threading.Event()
    os.kill(whole.latchkey.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2 * len(ports)) as pool:
            asked = [pool.submit(ask, "frozen", *each) for each in ports.items()]
            asked += [pool.submit(ask, "dripping", *each) for each in astray.items()]
            return dict(stopped) | dict(one.result() for one in asked)
    finally:
        os.kill(whole.latchkey.process.pid, signal.SIGCONT)
        stranger.drips.set()
        stranger.drips = None


@pytest.mark.parametrize("state", ["stopped", "frozen", "dripping"])
def test_nobody_passes_while_latchkey_does_not_answer(
    waited: dict[tuple[str, str], Waited], proxy: Proxy, state: str
) -> None:
    answer, seconds, passed = waited[state, proxy.program]
    assert not passed
    _assert_unchecked(answer, proxy)
    limit = 0 if state == "stopped" else LIMIT_SECONDS[proxy]
    assert limit - 0.5 < seconds < limit + SLACK_SECONDS


def test_everybody_passes_once_latchkey_answers_again(
    waited: dict[tuple[str, str], Waited], site: Site
) -> None:
    assert site.get().status == 200


# nginx and Traefik take any 2xx for a yes; their files say so.
EXACT = [name for name, proxy in PROXIES.items() if proxy not in (NGINX, TRAEFIK)]
NOT_LATCHKEYS = [
    *((name, status) for name in EXACT for status in (201, 204)),
    *((name, status) for name in PROXIES for status in (302, 400, 401, 403, 404, 429, 500, 503)),
]


@pytest.mark.parametrize(("proxy", "status"), NOT_LATCHKEYS, indirect=["proxy"])
def test_what_is_not_latchkeys_answer_lets_nobody_through(
    proxy: Proxy, start_astray: Start, stranger: Backend, backend: Backend, status: int
) -> None:
    """Some other server at Latchkey's address, or a mistyped path on it."""
    port = start_astray(proxy)
    stranger.status = status
    stranger.says = dict.fromkeys(IDENTITY, FORGED)  # so that it is the status that is looked at
    stranger.calls.clear()
    backend.calls.clear()
    answer = call(port, headers=bearer("any"))
    assert (len(stranger.calls), backend.calls) == (1, [])
    if proxy in (TRAEFIK, ENVOY) and not (proxy is ENVOY and status >= 500):
        assert answer.status == status  # it has no way to tell whose answer it is
    elif proxy is NGINX and status in (401, 403):
        assert answer.status == 403
    else:
        _assert_unchecked(answer, proxy)


@pytest.mark.parametrize("proxy", EXACT, indirect=True)
def test_a_200_that_is_not_latchkeys_lets_nobody_through(
    proxy: Proxy, start_astray: Start, stranger: Backend, backend: Backend
) -> None:
    port = start_astray(proxy)
    stranger.status = 200
    stranger.says = {}
    backend.calls.clear()
    answer = call(port, headers={**bearer("any"), "X-Key-Id": FORGED})
    assert backend.calls == []
    if proxy is ENVOY:
        assert answer.status == 403
    else:
        _assert_unchecked(answer, proxy)


def test_the_backends_absence_is_not_latchkeys(proxy: Proxy, site: Site, tmp_path: Path) -> None:
    """It is the proxy's own answer, by which nobody is told to wait for Latchkey."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with proxying(
            tmp_path / "alone",
            latchkey=site.latchkey.port,
            backend=unused.getsockname()[1],
            proxy=proxy,
        ) as port:
            answer = call(port, headers=bearer(site.secret))
    assert answer.status in (502, 503)
    assert "UNAVAILABLE" not in answer.body
    assert "Retry-After" not in answer.headers


def _assert_unchecked(answer: Answer, proxy: Proxy) -> None:
    assert answer.status == UNCHECKED[proxy]
    if answer.status == 503:
        assert answer.problem["code"] == "UNAVAILABLE"
        assert answer.headers.get_all("Retry-After") == ["1"]
