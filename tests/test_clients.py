"""The clients in docs/clients, as shipped: real services before a real Latchkey or a broken one.

Every rule is held against all three: WSGI under wsgiref, ASGI driven by hand, Node as a process.
"""

import ast
import asyncio
import importlib.util
import itertools
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer, ThreadingMixIn
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import pytest

from tests.conftest import PASSWORD, bearer, need
from tests.proxies import Answer, call
from tests.server import ROOT, RunningServer, free_port, wait_until

pytestmark = [pytest.mark.service, pytest.mark.outside]

CLIENTS = ROOT / "docs" / "clients"
SHIPPED = ("latchkey.py", "latchkey_client.py", "latchkey.mjs")
KINDS = ("wsgi", "asgi", "node")
LINES_MAX, LINE_LENGTH_MAX = 79, 100
WAIT_SECONDS = 8
HANGING_SECONDS = 0.3
OWN_WORDS = "the app's own words"
READING = ("GET", "HEAD")
VERIFY, OUTCOMES = "/api/v1/verify", "/api/v1/audit-log/outcomes"
Pair = tuple[str, str]
Scope = dict[str, Any]


def load(name: str) -> ModuleType:
    """A shipped file, imported under the name by which the other one knows it."""
    spec = importlib.util.spec_from_file_location(name, CLIENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client_module = load("latchkey_client")
middlewares = load("latchkey")
made: list[Any] = []


def new_client(*options: Any, **where: Any) -> Any:
    """The shipped client of a Latchkey."""
    made.append(client_module.Latchkey(*options, **where))
    return made[-1]


def report_no_more() -> None:
    """Before a server stops: what waits would otherwise be reported to nobody, with a warning."""
    for client in made:
        client.outcomes.clear()


def status_in(path: str) -> int:
    """What the app behind a middleware answers: `/status/418` asks for that, all else for 200."""
    return int(path.rpartition("/")[2]) if path.startswith("/status/") else 200


def needed(method: str) -> list[str]:
    return ["tasks:read" if method in READING else "tasks:write"]


# --- an app behind each of the three --------------------------------------------------------


class Service:
    """An app behind a shipped middleware. `calls` are those that reached it, each with the path
    and the verdict that it was given; `log` is what the middleware printed."""

    port = 0

    def calls(self) -> list[Any]:
        raise AssertionError("each kind has its own")

    def forget(self) -> None:
        """Starts anew, for another test."""

    def log(self) -> str:
        return ""

    def get(self, path: str, *headers: Pair, method: str = "GET") -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path)
            for pair in headers:
                connection.putheader(*pair)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()


class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `calls`, not a log."""


class WSGIService(Service):
    def __init__(self, latchkey: Any) -> None:
        self.seen: list[Any] = []
        guarded = middlewares.LatchkeyWSGI(
            self.app, lambda environ: needed(environ["REQUEST_METHOD"]), latchkey
        )
        self.server = make_server("127.0.0.1", 0, validator(guarded), Threading, Quiet)
        self.port = self.server.server_port

    def app(self, environ: Scope, start_response: Any) -> list[bytes]:
        self.seen.append({"path": environ["PATH_INFO"], "verdict": environ["latchkey"]})
        status = status_in(environ["PATH_INFO"])
        start_response(f"{status} as asked", [("Content-Type", "text/plain"), ("X-App", "yes")])
        return [OWN_WORDS.encode()]

    def calls(self) -> list[Any]:
        return self.seen

    def forget(self) -> None:
        self.seen.clear()


class ASGIService(Service):
    def __init__(self, latchkey: Any) -> None:
        self.seen: list[Any] = []
        self.guarded = middlewares.LatchkeyASGI(
            self.app, lambda scope: needed(scope.get("method", "GET")), latchkey
        )

    async def app(self, scope: Scope, receive: Any, send: Any) -> None:
        self.seen.append({"path": scope["path"], "verdict": scope["latchkey"]})
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": [(b"x-app", b"yes")]})
            return
        head = {"status": status_in(scope["path"]), "headers": [(b"x-app", b"yes")]}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": OWN_WORDS.encode()})

    def calls(self) -> list[Any]:
        return self.seen

    def forget(self) -> None:
        self.seen.clear()

    def get(self, path: str, *headers: Pair, method: str = "GET") -> Answer:
        sent = asyncio.run(drive(self.guarded, scope_of(path, *headers, method=method)))
        head, body = sent
        told = Message()
        for name, value in head["headers"]:
            told[name.decode()] = value.decode()
        return Answer(head["status"], told, body["body"].decode())


def scope_of(path: str, *headers: Pair, method: str = "GET", **more: Any) -> Scope:
    """A scope as a server would make it (ASGI 3)."""
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        **more,
    }


async def drive(app: Any, scope: Scope) -> list[Any]:
    """What the app sends."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


NODE_NEEDS = '(req) => [["GET", "HEAD"].includes(req.method) ? "tasks:read" : "tasks:write"]'
NODE_APP = """
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { latchkey } from "%(shipped)s";

%(before)s
const permissions = %(permissions)s;
const guard = latchkey({ permissions, timeout: %(timeout)d });
const app = (req, res) => {
  const path = new URL(req.url, "http://app").pathname;
  appendFileSync("calls", JSON.stringify({ path, verdict: req.latchkey }) + "\\n");
  const status = path.startsWith("/status/") ? Number(path.split("/").pop()) : 200;
  res.writeHead(status, { "Content-Type": "text/plain", "X-App": "yes" }).end("%(words)s");
};
const server = createServer((req, res) => guard(req, res, () => app(req, res)));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.once("SIGTERM", () => server.close().closeAllConnections());
"""


class NodeService(Service):
    def __init__(self, home: Path) -> None:
        self.home = home

    def calls(self) -> list[Any]:
        return [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]

    def forget(self) -> None:
        (self.home / "calls").write_text("")

    def log(self) -> str:
        return (self.home / "log").read_text()


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def node(
    home: Path, url: str, key: str, timeout: float, permissions: str = NODE_NEEDS, before: str = ""
) -> Iterator[Service]:
    service = NodeService(home)
    service.forget()
    words = {"permissions": permissions, "before": before, "timeout": timeout * 1000}
    words |= {"shipped": (CLIENTS / "latchkey.mjs").as_uri(), "words": OWN_WORDS}
    (home / "app.mjs").write_text(NODE_APP % words)
    environ = {**os.environ, "LATCHKEY_URL": url, "LATCHKEY_KEY": key}
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(
            [need("node"), "app.mjs"], cwd=home, env=environ, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            service.port = int(process.stdout.readline())
            yield service
        finally:
            process.terminate()
            try:
                process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def service_of(
    kind: str, home: Path, url: str, key: str, timeout: float = 5.0
) -> Iterator[Service]:
    """A service of this kind that asks the Latchkey at this address."""
    if kind == "node":
        with node(home, url, key, timeout) as service:
            yield service
    elif kind == "asgi":
        yield ASGIService(new_client(url, key, timeout))
    else:
        wsgi = WSGIService(new_client(url, key, timeout))
        with serving(wsgi.server):
            yield wsgi


# --- a real Latchkey ------------------------------------------------------------------------


class Site:
    """A real Latchkey with the project shop; a service's key and a client's."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-project", "--slug", "shop", "--prefix", "sk").check_returncode()
        server.run(
            "create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD
        ).check_returncode()
        made = server.run(
            "create-key", "--project", "shop", "--name", "orders service",
            "--permission", "keys:verify",
        )  # fmt: skip
        self.service_key = made.stdout.strip()
        self.token = ""
        login = {"email": "ada@example.com", "password": PASSWORD}
        self.token = self.api("POST", "/auth/token", login)["access_token"]
        self.key = self.make_key(name="CI")

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """Latchkey's JSON API, as the owner."""
        headers = {"Content-Type": "application/json", **(bearer(self.token) if self.token else {})}
        body = json.dumps(content) if content is not None else None
        answer = call(self.server.port, f"/api/v1{path}", method, headers, body)
        assert answer.status < 300, answer.body
        return json.loads(answer.body)

    def make_key(self, **settings: Any) -> dict[str, Any]:
        settings = {"name": "another", "permissions": ["tasks:read"], **settings}
        key: dict[str, Any] = self.api("POST", "/api-keys", settings)
        return key

    def latest_entry(self, key: dict[str, Any]) -> dict[str, Any]:
        page = self.api("GET", f"/api-keys/{key['id']}/audit-log?limit=1")
        entry: dict[str, Any] = page["data"][0]
        return entry


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("clients") / "data"
    with RunningServer(data, LATCHKEY_KEY_LIMIT="1000") as server:
        yield Site(server)
        report_no_more()


@pytest.fixture(scope="module", params=KINDS)
def started(
    request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(request.param)
    with service_of(request.param, home, site.server.url, site.service_key) as service:
        yield service


@pytest.fixture
def service(started: Service) -> Service:
    """A service of each kind before the real Latchkey, that remembers nothing yet."""
    started.forget()
    return started


def x_api_key(secret: str) -> Pair:
    return "X-API-Key", secret


def authorization(secret: str) -> Pair:
    return "Authorization", f"Bearer {secret}"


def rates(answer: Answer) -> dict[str, str]:
    """The rate-limit headers; each occurs once."""
    told = [(name.lower(), value) for name, value in answer.headers.items()]
    found = [(name, value) for name, value in told if "ratelimit" in name]
    assert len(dict(found)) == len(found)
    return dict(found)


# --- what the client and the app get --------------------------------------------------------


@pytest.mark.parametrize("header", [authorization, x_api_key])
def test_a_good_key_reaches_the_app_with_the_verdict(
    site: Site, service: Service, header: Callable[[str], Pair]
) -> None:
    answer = service.get("/tasks?page=2", header(site.key["key"]))
    assert (answer.status, answer.body, answer.headers["X-App"]) == (200, OWN_WORDS, "yes")
    assert rates(answer) == {}
    [seen] = service.calls()
    assert (seen["path"], seen["verdict"]["code"]) == ("/tasks", "VALID")
    assert seen["verdict"]["key"]["id"] == site.key["id"]
    assert seen["verdict"]["request_id"] == site.latest_entry(site.key)["request_id"]


REFUSALS = [
    # name, headers (with {good}, {revoked}, {powerless} for secrets), status, code
    ("no key", [], 401, "API_KEY_MISSING"),
    ("another scheme", [("Authorization", "Basic {good}")], 401, "API_KEY_MISSING"),
    ("not a key", [("Authorization", "Bearer nonsense")], 401, "API_KEY_MALFORMED"),
    ("far too long", [("X-API-Key", "{good}" * 100)], 401, "API_KEY_MALFORMED"),
    ("an unknown key", [("X-API-Key", "vc_" + "0" * 32)], 401, "API_KEY_INVALID"),
    ("revoked", [("Authorization", "Bearer {revoked}")], 401, "API_KEY_REVOKED"),
    ("no permission", [("X-API-Key", "{powerless}")], 403, "PERMISSION_DENIED"),
    ("two headers", [("Authorization", "Bearer {good}"), ("X-API-Key", "x")], 400, "INVALID"),
    ("one header twice", [("X-API-Key", "{good}"), ("X-API-Key", "x")], 400, "INVALID"),
    ("one header joined", [("X-API-Key", "{good}, x")], 400, "INVALID"),
    ("two bearers", [("Authorization", "Bearer {good}"), ("authorization", "bearer x")],
     400, "INVALID"),
]  # fmt: skip


@pytest.fixture(scope="module")
def secrets(site: Site) -> dict[str, str]:
    revoked, powerless = site.make_key(), site.make_key(permissions=["tasks:list"])
    site.api("PATCH", f"/api-keys/{revoked['id']}", {"status": "revoked"})
    keys = {"good": site.key, "revoked": revoked, "powerless": powerless}
    return {name: key["key"] for name, key in keys.items()}


@pytest.mark.parametrize(
    ("headers", "status", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_refused_request_never_reaches_the_app(
    service: Service, secrets: dict[str, str], headers: list[Pair], status: int, code: str
) -> None:
    answer = service.get("/tasks", *[(name, text.format(**secrets)) for name, text in headers])
    assert (answer.status, answer.problem["code"]) == (status, code)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert answer.headers["X-App"] is None
    assert service.calls() == []


def test_a_refusal_says_what_is_missing_and_nothing_about_the_key(
    service: Service, secrets: dict[str, str]
) -> None:
    problem = service.get("/tasks", x_api_key(secrets["powerless"])).problem
    assert problem["missing_permissions"] == ["tasks:read"]
    assert problem["request_id"].startswith("req_")
    assert problem.keys() == {"status", "title", "code", "request_id", "missing_permissions"}


def test_the_challenge_names_an_error_only_where_a_key_was_sent(service: Service) -> None:
    """RFC 6750, section 3.1."""
    challenge = service.get("/tasks").headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="latchkey"'
    challenge = service.get("/tasks", x_api_key("nonsense")).headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="latchkey", error="invalid_token"'


def test_what_a_request_needs_is_asked_of_the_app(
    service: Service, secrets: dict[str, str]
) -> None:
    answer = service.get("/tasks", x_api_key(secrets["good"]), method="DELETE")
    assert (answer.status, answer.problem["missing_permissions"]) == (403, ["tasks:write"])
    assert service.get("/tasks", x_api_key(secrets["good"]), method="HEAD").status == 200


@pytest.mark.parametrize("kind", ["wsgi", "node"])  # ASGI leaves it to its servers
def test_a_refused_head_request_has_no_body(site: Site, tmp_path: Path, kind: str) -> None:
    with (
        service_of(kind, tmp_path, site.server.url, site.service_key) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_SECONDS) as raw,
    ):
        raw.sendall(b"HEAD /tasks HTTP/1.0\r\n\r\n")
        answer = raw.makefile("rb").read()
    assert answer.split()[1] == b"401" and answer.endswith(b"\r\n\r\n")


def test_one_key_may_come_twice(site: Site, service: Service) -> None:
    secret = site.key["key"]
    headers = (authorization(secret), x_api_key(secret), x_api_key(secret))
    assert service.get("/tasks", *headers).status == 200


def test_the_limits_of_a_key_are_told_on_allowed_and_refused_answers(
    site: Site, service: Service
) -> None:
    limited = x_api_key(site.make_key(rate_limit={"per_hour": 1})["key"])
    allowed, refused = service.get("/tasks", limited), service.get("/tasks", limited)
    assert (allowed.status, refused.status) == (200, 429)
    names = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit",
             "ratelimit-policy"}  # fmt: skip
    assert rates(allowed).keys() == rates(refused).keys() == names
    assert rates(refused)["x-ratelimit-remaining"] == "0"
    assert refused.problem["code"] == "RATE_LIMITED"
    assert 1 <= int(refused.headers["Retry-After"]) <= 3600
    assert len(service.calls()) == 1


def test_a_spent_quota_is_429_without_a_time(site: Site, service: Service) -> None:
    limited = x_api_key(site.make_key(monthly_quota=1)["key"])
    assert service.get("/tasks", limited).status == 200
    answer = service.get("/tasks", limited)
    assert (answer.status, answer.problem["code"]) == (429, "QUOTA_EXCEEDED")
    assert "Retry-After" not in answer.headers


# --- what Latchkey hears --------------------------------------------------------------------


def test_latchkey_is_told_who_asks_for_what(site: Site, service: Service) -> None:
    key = site.make_key(ip_allowlist=["127.0.0.1"])
    service.get("/tasks/7", x_api_key(key["key"]), ("User-Agent", "orders-app/2.1, (test)"))
    entry = site.latest_entry(key)
    assert (entry["method"], entry["endpoint"], entry["ip"]) == ("GET", "/tasks/7", "127.0.0.1")
    assert (entry["user_agent"], entry["permissions"]) == ("orders-app/2.1, (test)", ["tasks:read"])


def test_the_query_string_is_not_logged_and_carries_no_key(site: Site, service: Service) -> None:
    secret = site.key["key"]
    assert service.get("/tasks?token=hunter2", x_api_key(secret)).status == 200
    assert site.latest_entry(site.key)["endpoint"] == "/tasks"
    assert "hunter2" not in json.dumps(site.api("GET", "/audit-log?project=shop&limit=200"))
    assert service.get(f"/tasks?key={secret}&api_key={secret}").status == 401


def test_a_path_is_logged_whole(site: Site, service: Service) -> None:
    path = "/caf%C3%A9/a%3Fb%20c/d:e@f"
    assert service.get(path, x_api_key(site.key["key"])).status == 200
    assert site.latest_entry(site.key)["endpoint"] == path


def test_the_outcome_takes_the_place_of_the_verdict(site: Site, service: Service) -> None:
    key = site.make_key()
    assert service.get("/status/418", x_api_key(key["key"])).status == 418
    wait_until(lambda: site.latest_entry(key)["status"] == 418)
    entry = site.latest_entry(key)
    assert entry["code"] == "VALID"
    assert 0 <= entry["latency_ms"] < WAIT_SECONDS * 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [{"permissions": ["tasks:read"]}, {"status": "revoked"}], ids=["powerless", "revoked"]
)
def test_without_a_good_key_of_its_own_a_service_lets_nobody_through(
    site: Site, tmp_path: Path, kind: str, change: Any
) -> None:
    own = site.make_key(permissions=["keys:verify"])
    site.api("PATCH", f"/api-keys/{own['id']}", change)
    with service_of(kind, tmp_path, site.server.url, own["key"]) as service:
        assert service.get("/tasks", x_api_key(site.key["key"])).status == 503
        assert service.calls() == []


# --- a Latchkey that fails ------------------------------------------------------------------


class Fake(ThreadingHTTPServer):
    """In Latchkey's place: answers every check with `answer`, and keeps what is reported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FakeHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.checks: list[Any] = []
        self.batches: list[list[Any]] = []
        self.paths: list[str] = []
        self.issued: list[str] = []
        self.ids = itertools.count()
        self.may_answer = threading.Event()
        self.forget()

    def forget(self) -> None:
        for seen in (self.checks, self.batches, self.paths, self.issued):
            seen.clear()
        self.may_answer.set()
        self.answer: tuple[int, dict[str, str], bytes | None] = (200, {}, None)
        self.outcomes_status = 200

    def verdict(self) -> bytes:
        self.issued.append(f"req_{next(self.ids)}")
        return but(request_id=self.issued[-1])

    def reported(self) -> list[Any]:
        """The outcomes of its own verdicts. Those of the test before may still come in."""
        told = [outcome for batch in self.batches for outcome in batch]
        return [outcome for outcome in told if outcome["request_id"] in self.issued]


class _FakeHandler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in two packets would wait for the first one's acknowledgement

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        self.server.may_answer.wait(WAIT_SECONDS)
        status, headers, body = 200, {}, None
        if self.path == OUTCOMES:
            status = self.server.outcomes_status
            self.server.batches.append(content)
            body = json.dumps({"updated": len(content), "unknown": []}).encode()
        elif self.path == VERIFY:
            self.server.checks.append(content)
            status, headers, body = self.server.answer
        self.send_response(status)
        body = self.server.verdict() if body is None else body
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `checks`, not a log."""


VERDICT = {
    "valid": True, "code": "VALID", "status": 200, "request_id": "req_x",
    "key": {"id": "key_1"}, "missing_permissions": [], "rate_limit": None,
}  # fmt: skip
SERVICE_KEY, CLIENT_KEY = "lk_live_the-service-s-own", "lk_live_the-client-s"


@pytest.fixture(scope="module")
def faking() -> Iterator[Fake]:
    fake = Fake()
    with serving(fake):
        yield fake
        report_no_more()


@pytest.fixture
def fake(faking: Fake) -> Fake:
    faking.forget()
    return faking


@pytest.fixture(scope="module", params=KINDS)
def started_before_fake(
    request: pytest.FixtureRequest, faking: Fake, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(request.param)
    with service_of(request.param, home, faking.url, SERVICE_KEY) as service:
        yield service


@pytest.fixture
def misled(started_before_fake: Service, fake: Fake) -> Service:
    """A service of each kind, before the fake."""
    started_before_fake.forget()
    return started_before_fake


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in VERDICT.items() if key != name}).encode()


def but(**changes: Any) -> bytes:
    return json.dumps({**VERDICT, **changes}).encode()


NO_VERDICTS = [
    # name, status, headers, body
    ("an error", 500, {}, but()),
    ("its own refusal", 401, {}, but(valid=False, status=401, code="API_KEY_REVOKED")),
    ("not quite 200", 201, {}, but()),
    ("a redirect", 302, {"Location": "/elsewhere"}, but()),
    ("a redirect that keeps the method", 307, {"Location": "/elsewhere"}, but()),
    ("nothing", 200, {}, b""),
    ("a page", 200, {}, b"<html>valid</html>"),
    ("half of it", 200, {}, but()[:-9]),
    ("not UTF-8", 200, {}, b"\xff\xfe{}"),
    ("a list", 200, {}, b"[true]"),
    ("null", 200, {}, b"null"),
    ("a word", 200, {}, b'"valid"'),
    ("an empty object", 200, {}, b"{}"),
    ("no valid", 200, {}, without("valid")),
    ("no request", 200, {}, without("request_id")),
    ("valid is a word", 200, {}, but(valid="true")),
    ("valid is a word, refused", 200, {}, but(valid="false", status=401)),
    ("valid is a number", 200, {}, but(valid=1)),
    ("valid is null", 200, {}, but(valid=None)),
    ("refused by 200", 200, {}, but(valid=False)),
    ("refused by a word", 200, {}, but(valid=False, status="401")),
    ("hidden in a prototype", 200, {}, b'{"__proto__": ' + but() + b"}"),
]  # fmt: skip


def assert_unavailable(service: Service, answer: Answer) -> None:
    assert (answer.status, answer.problem["code"]) == (503, "UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    assert service.calls() == []


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [row[1:] for row in NO_VERDICTS],
    ids=[row[0] for row in NO_VERDICTS],
)
def test_what_is_no_verdict_lets_nobody_through(
    misled: Service, fake: Fake, status: int, headers: dict[str, str], body: bytes
) -> None:
    fake.answer = (status, headers, body)
    assert_unavailable(misled, misled.get("/tasks", x_api_key(CLIENT_KEY)))
    assert (len(fake.checks), "/elsewhere" in fake.paths) == (1, False)
    fake.answer = (200, {}, but())
    assert misled.get("/tasks", x_api_key(CLIENT_KEY)).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_latchkey_that_is_gone_lets_nobody_through(tmp_path: Path, kind: str) -> None:
    with service_of(kind, tmp_path, f"http://127.0.0.1:{free_port()}", SERVICE_KEY) as service:
        assert_unavailable(service, service.get("/tasks", x_api_key(CLIENT_KEY)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_latchkey_that_hangs_lets_nobody_through(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with service_of(kind, tmp_path, url, SERVICE_KEY, HANGING_SECONDS) as service:
            assert_unavailable(service, service.get("/tasks", x_api_key(CLIENT_KEY)))


def test_no_key_is_logged_when_latchkey_fails(
    misled: Service, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    echoed = json.dumps({"seen": [SERVICE_KEY, CLIENT_KEY]}).encode()
    with caplog.at_level(logging.DEBUG):
        for answer in ((403, {}, echoed), (200, {}, echoed), (200, {}, CLIENT_KEY.encode())):
            fake.answer = answer
            assert misled.get("/tasks", authorization(CLIENT_KEY)).status == 503
    printed = caplog.text + misled.log()
    assert "no verdict" in printed and "403" in printed
    assert SERVICE_KEY not in printed and CLIENT_KEY not in printed


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_no_header_can_carry_is_not_logged(
    tmp_path: Path, kind: str, fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        service_of(kind, tmp_path, fake.url, f"{SERVICE_KEY}\n{SERVICE_KEY}") as service,
    ):
        assert_unavailable(service, service.get("/tasks", x_api_key(CLIENT_KEY)))
        printed = caplog.text + service.log()
    assert "no verdict" in printed and SERVICE_KEY not in printed


def test_a_polluted_prototype_makes_no_key_valid(tmp_path: Path, fake: Fake) -> None:
    pollution = f"Object.assign(Object.prototype, {json.dumps(VERDICT)});"
    with node(tmp_path, fake.url, SERVICE_KEY, 5.0, before=pollution) as service:
        fake.answer = (200, {}, b"{}")
        assert_unavailable(service, service.get("/tasks", x_api_key(CLIENT_KEY)))


def test_what_is_needed_and_where_is_asked_with_every_check(fake: Fake) -> None:
    client = new_client(fake.url + "/", SERVICE_KEY, project="shop", environment="live")
    guarded = middlewares.LatchkeyASGI(lambda *_: None, ["a:b", "c:d"], client)
    fake.answer = (200, {}, but(valid=False, status=401, code="API_KEY_MISSING"))
    asyncio.run(drive(guarded, scope_of("/")))
    assert fake.checks == [
        {
            "key": "", "permissions": ["a:b", "c:d"], "project": "shop", "environment": "live",
            "method": "GET", "path": "/", "ip": "127.0.0.1", "user_agent": "",
        }
    ]  # fmt: skip


def test_the_query_string_never_leaves_the_service(misled: Service, fake: Fake) -> None:
    assert misled.get("/tasks?token=hunter2", x_api_key(CLIENT_KEY)).status == 200
    assert [asked["path"] for asked in fake.checks] == ["/tasks"]


def test_the_path_of_a_mounted_app_is_told_whole(fake: Fake) -> None:
    guarded = middlewares.LatchkeyWSGI(None, latchkey=new_client(fake.url, SERVICE_KEY))
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/shop", "PATH_INFO": "/orders"}
    fake.answer = (500, {}, b"")
    guarded(environ, lambda *_: None)
    assert [asked["path"] for asked in fake.checks] == ["/shop/orders"]


@pytest.mark.parametrize("kind", KINDS)
def test_latchkey_may_have_an_address_below_another(tmp_path: Path, kind: str, fake: Fake) -> None:
    with service_of(kind, tmp_path, f"{fake.url}/latchkey/", SERVICE_KEY) as service:
        assert service.get("/tasks", x_api_key(CLIENT_KEY)).status == 200
    assert fake.paths[0] == f"/latchkey{VERIFY}"


@pytest.mark.parametrize("client", [None, ("fe80::1%eth0", 1)], ids=["unknown", "with a zone"])
def test_the_address_is_one_that_latchkey_takes_or_none(
    site: Site, client: tuple[str, int] | None
) -> None:
    service = ASGIService(new_client(site.server.url, site.service_key))
    key = site.make_key(ip_allowlist=["fe80::/10"])
    scope = scope_of("/", x_api_key(key["key"]), client=client)
    head, _ = asyncio.run(drive(service.guarded, scope))
    assert (head["status"] == 200) == (client is not None)
    assert site.latest_entry(key)["ip"] == (client and "fe80::1")


def test_an_app_that_forgets_what_it_needs_lets_nobody_through(tmp_path: Path, fake: Fake) -> None:
    for kind in (middlewares.LatchkeyWSGI, middlewares.LatchkeyASGI):
        forgetful = kind(None, lambda request: None, new_client(fake.url, SERVICE_KEY))
        with pytest.raises(TypeError):
            forgetful.check({}, "", CLIENT_KEY, "", "GET", b"/", None)
    with node(tmp_path, fake.url, SERVICE_KEY, 5.0, permissions="() => {}") as service:
        assert_unavailable(service, service.get("/tasks", x_api_key(CLIENT_KEY)))
    assert fake.checks == []


@pytest.mark.parametrize("variable", ["LATCHKEY_URL", "LATCHKEY_KEY"])
def test_without_address_or_key_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("LATCHKEY_URL", "LATCHKEY_KEY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv(variable)
    with pytest.raises(KeyError, match=variable):
        client_module.Latchkey()
    shipped = (CLIENTS / "latchkey.mjs").as_uri()
    started = subprocess.run(
        [need("node"), "--input-type=module", "-e", f"(await import('{shipped}')).latchkey()"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert started.returncode != 0 and variable in started.stderr


# --- outcomes -------------------------------------------------------------------------------


def test_outcomes_come_in_batches(misled: Service, fake: Fake) -> None:
    good = x_api_key(CLIENT_KEY)
    answers = [misled.get(f"/status/{200 + number % 4}", good) for number in range(120)]
    wait_until(lambda: len(fake.reported()) >= 120)
    reported = fake.reported()
    told = {outcome["request_id"]: outcome["status"] for outcome in reported}
    statuses = [answer.status for answer in answers]
    assert told == dict(zip(fake.issued, statuses, strict=True))
    assert all(one.keys() == {"request_id", "status", "latency_ms"} for one in reported)
    assert all(type(one["latency_ms"]) is int and one["latency_ms"] >= 0 for one in reported)
    assert len(fake.batches) < len(reported) / 2


def test_refusals_are_not_reported_again(misled: Service, fake: Fake) -> None:
    fake.answer = (200, {}, but(valid=False, status=401, code="API_KEY_REVOKED"))
    assert misled.get("/tasks", x_api_key(CLIENT_KEY)).status == 401
    fake.answer = (200, {}, None)
    misled.get("/tasks", x_api_key(CLIENT_KEY))
    wait_until(fake.reported)
    assert [outcome["request_id"] for outcome in fake.reported()] == fake.issued


def test_reports_that_fail_fail_no_request(misled: Service, fake: Fake) -> None:
    fake.outcomes_status = 500
    assert misled.get("/tasks", x_api_key(CLIENT_KEY)).status == 200
    wait_until(fake.reported)
    fake.outcomes_status = 200
    fake.batches.clear()
    assert misled.get("/status/202", x_api_key(CLIENT_KEY)).status == 202
    wait_until(fake.reported)
    assert [outcome["status"] for outcome in fake.reported()] == [202]


def test_at_most_10_000_outcomes_wait_and_leave_1_000_at_a_time(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client(fake.url, SERVICE_KEY)
    with monkeypatch.context() as patched:
        patched.setattr(client_module, "threading", MagicMock())  # no timer ever fires
        for number in range(10_050):
            client.note({"request_id": f"many_{number}"}, 200, time.monotonic())
    client.report()
    batches = [batch for batch in fake.batches if batch[0]["request_id"].startswith("many_")]
    assert [len(batch) for batch in batches] == [1_000] * 10


def test_a_hundred_outcomes_do_not_wait(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    client = new_client(fake.url, SERVICE_KEY)
    monkeypatch.setattr(client, "timer", threading.current_thread())  # as if it were far off
    for number in range(99):
        client.note({"request_id": f"few_{number}"}, 200, time.monotonic())
    assert len(client.outcomes) == 99
    client.note({"request_id": "few_99"}, 200, time.monotonic())
    wait_until(lambda: 100 in map(len, fake.batches))


class Late(dict[str, Any]):
    """Outcomes, of which one more comes in at the moment when none is seen to be left."""

    def __iter__(self) -> Iterator[str]:
        names = list(super().__iter__())
        if not names and self.note is not None:
            note, self.note = self.note, None
            note()
        return iter(names)

    note: Callable[[], None] | None = None


def test_an_outcome_that_comes_when_a_report_ends_is_reported(fake: Fake) -> None:
    client = new_client(fake.url, SERVICE_KEY)
    client.outcomes = Late()
    client.outcomes.note = lambda: client.note({"request_id": "late"}, 200, time.monotonic())
    client.note({"request_id": "early"}, 200, time.monotonic())

    def told() -> set[str]:
        return {outcome["request_id"] for batch in fake.batches for outcome in batch}

    wait_until(lambda: told() >= {"early", "late"})


NODE_UNIT = """
import assert from "node:assert";
import { EventEmitter } from "node:events";

const batches = [];
globalThis.setInterval = () => ({ unref() {} });
globalThis.fetch = async (url, { body }) => {
  if (url.endsWith("/outcomes")) batches.push(JSON.parse(body).length);
  return Response.json({ valid: true, status: 200, code: "VALID", request_id: "req_1" });
};
const { latchkey } = await import(process.argv[2]);
const guard = latchkey({ url: "http://latchkey", key: "k" });
const request = { rawHeaders: [], headers: {}, socket: {}, url: "/", method: "GET" };
const response = (headersSent) =>
  Object.assign(new EventEmitter(), { headersSent, statusCode: 200, setHeader() {} });

async function serve(res, sends = true) {
  let reached = 0;
  await guard(request, res, () => reached++);
  res.headersSent = sends;
  res.emit("close");
  return reached;
}

for (let n = 0; n < 99; n++) assert.equal(await serve(response(false)), 1);
assert.equal(await serve(response(false), false), 1); // the client went before an answer
assert.deepEqual(batches, []);
assert.equal(await serve(response(false)), 1);
await new Promise(setImmediate);
assert.deepEqual(batches, [100]);
assert.equal(await serve(response(true)), 0); // a time limit of the app's own was quicker
"""


def test_node_reports_a_hundred_at_once_and_only_what_was_answered(tmp_path: Path) -> None:
    (tmp_path / "unit.mjs").write_text(NODE_UNIT)
    shipped = (CLIENTS / "latchkey.mjs").as_uri()
    command = [need("node"), str(tmp_path / "unit.mjs"), shipped]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (ran.returncode, ran.stderr) == (0, "")


AT_EXIT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from latchkey import LatchkeyWSGI

def app(environ, start_response):
    start_response("204 No Content", [])
    return []

guarded = LatchkeyWSGI(app)

def request():
    assert guarded({"REQUEST_METHOD": "GET", "HTTP_X_API_KEY": "k"}, lambda *_: None) == []

"""
FORKED = """
request()
if os.fork() == 0:
    request()
    until = time.monotonic() + 5
    while guarded.latchkey.outcomes and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)  # what was taken is on its way
    os._exit(0)
os.wait()
"""


def run_python(script: str, url: str) -> None:
    environ = {**os.environ, "LATCHKEY_URL": url, "LATCHKEY_KEY": SERVICE_KEY}
    command = [sys.executable, "-c", script, str(CLIENTS)]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_what_waits_at_the_end_of_a_python_process_is_reported(fake: Fake) -> None:
    run_python(f"{AT_EXIT}request()", fake.url)
    assert [outcome["status"] for outcome in fake.reported()] == [204]


def test_what_waits_at_the_end_of_a_node_process_is_reported(tmp_path: Path, fake: Fake) -> None:
    with node(tmp_path, fake.url, SERVICE_KEY, 5.0) as service:
        assert service.get("/status/418", x_api_key(CLIENT_KEY)).status == 418
    assert [outcome["status"] for outcome in fake.reported()] == [418]


def test_a_forked_process_reports_too(fake: Fake) -> None:
    run_python(AT_EXIT + FORKED, fake.url)
    assert {outcome["request_id"] for outcome in fake.reported()} == set(fake.issued)
    assert len(fake.issued) == 2


def test_an_asgi_app_that_raises_is_reported_as_500(fake: Fake) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("the app's own")

    client = new_client(fake.url, SERVICE_KEY)
    guarded = middlewares.LatchkeyASGI(broken, latchkey=client)
    with pytest.raises(RuntimeError, match="the app's own"):
        asyncio.run(drive(guarded, scope_of("/")))
    wait_until(fake.reported)
    assert [outcome["status"] for outcome in fake.reported()] == [500]


# --- ASGI beyond HTTP -----------------------------------------------------------------------


def test_lifespan_is_not_checked() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    guarded = middlewares.LatchkeyASGI(app, latchkey=new_client("http://127.0.0.1:1", SERVICE_KEY))
    assert asyncio.run(drive(guarded, {"type": "lifespan"})) == [
        {"type": "lifespan.startup.complete"}
    ]


def websocket(*headers: Pair) -> Scope:
    scope = scope_of("/live", *headers, type="websocket")
    del scope["method"]
    return scope


@pytest.mark.parametrize("secret", ["", "nonsense"])
def test_a_websocket_without_a_good_key_is_closed_before_it_is_accepted(
    site: Site, secret: str
) -> None:
    service = ASGIService(new_client(site.server.url, site.service_key))
    sent = asyncio.run(drive(service.guarded, websocket(x_api_key(secret))))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert service.seen == []


def test_a_websocket_with_a_good_key_reaches_the_app(site: Site) -> None:
    service = ASGIService(new_client(site.server.url, site.service_key))
    key = site.make_key(rate_limit={"per_hour": 9})
    [accepted] = asyncio.run(drive(service.guarded, websocket(x_api_key(key["key"]))))
    assert accepted["type"] == "websocket.accept"
    assert [name for name, _ in accepted["headers"]][:2] == [b"x-app", b"x-ratelimit-limit"]
    assert service.seen[0]["verdict"]["key"]["id"] == key["id"]
    wait_until(lambda: site.latest_entry(key)["status"] == 101)


def test_a_check_does_not_hold_up_the_event_loop(fake: Fake) -> None:
    """Latchkey answers only after the loop went on while it was asked."""
    service = ASGIService(new_client(fake.url, SERVICE_KEY, WAIT_SECONDS))
    fake.may_answer.clear()

    async def others_go_on() -> list[Any]:
        asked = asyncio.create_task(drive(service.guarded, scope_of("/", x_api_key(CLIENT_KEY))))
        while not fake.paths:
            await asyncio.sleep(0.01)
        fake.may_answer.set()
        return await asked

    assert asyncio.run(others_go_on())[0]["status"] == 200


# --- the files themselves -------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_each_file_is_short_enough_to_be_read(name: str) -> None:
    lines = (CLIENTS / name).read_text().splitlines()
    assert len(lines) <= LINES_MAX
    assert max(map(len, lines)) <= LINE_LENGTH_MAX


def test_python_needs_nothing_but_its_own_library() -> None:
    for path in CLIENTS.glob("*.py"):
        for imported in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in getattr(imported, "names", [])]
            module = getattr(imported, "module", None)
            for name in [module] if module else names if isinstance(imported, ast.Import) else []:
                assert name.partition(".")[0] in {*sys.stdlib_module_names, "latchkey_client"}


def snippets(language: str) -> list[str]:
    page = (CLIENTS / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_the_flask_app_of_the_page_works(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATCHKEY_URL", site.server.url)
    monkeypatch.setenv("LATCHKEY_KEY", site.service_key)
    [snippet] = [one for one in snippets("python") if "flask" in one]
    namespace: dict[str, Any] = {"__name__": "orders"}
    exec(snippet, namespace)
    client = namespace["app"].test_client()
    key = site.make_key(permissions=["orders:read"], external_id="customer/7")
    answer = client.get("/orders", headers=bearer(key["key"]))
    assert (answer.status_code, answer.json) == (200, {"customer": "customer/7"})
    assert client.post("/orders", headers=bearer(key["key"])).status_code == 403
    assert client.get("/orders").status_code == 401
    namespace["app"].wsgi_app.latchkey.report()


def test_every_snippet_of_the_page_can_be_read(tmp_path: Path) -> None:
    assert len(snippets("python")) >= 2 and len(snippets("js")) >= 1
    for snippet in snippets("python"):
        ast.parse(snippet)
    for snippet in snippets("js"):
        (tmp_path / "snippet.mjs").write_text(snippet)
        subprocess.run([need("node"), "--check", tmp_path / "snippet.mjs"], check=True, timeout=20)
