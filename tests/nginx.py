"""For tests: a real nginx with the shipped configuration, a backend that remembers, a client."""

import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import need
from tests.server import ROOT, START_SECONDS, free_port

SHIPPED = ROOT / "docs" / "proxies" / "nginx.conf"

MAIN = """
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
    include latchkey.conf;
}
"""


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
) -> Answer:
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=30, source_address=(source, 0)
    )
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read().decode())
    finally:
        connection.close()


class Call(NamedTuple):
    method: str
    path: str
    headers: Message
    body: str


class Backend(ThreadingHTTPServer):
    """A service behind the proxy: remembers each call; answers `status`, or what the path says
    (`/status/403`)."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _BackendHandler)
        self.status = status
        self.calls: list[Call] = []


class _BackendHandler(BaseHTTPRequestHandler):
    server: Backend

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.calls.append(Call(self.command, self.path, self.headers, body))
        said = b"the backend's own words"
        is_status = self.path.startswith("/status/")
        self.send_response(int(self.path.rpartition("/")[2]) if is_status else self.server.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_DELETE = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `calls`, not a log."""


def shipped(*, latchkey: int, backend: int, nginx: int) -> str:
    """The shipped file with other addresses and ports in it, and nothing else changed."""
    text = SHIPPED.read_text()
    for old, new in (
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{latchkey};"),
        ("server 127.0.0.1:9000;", f"server 127.0.0.1:{backend};"),
        ("listen 8080;", f"listen 127.0.0.1:{nginx};"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nginx did not start:\n{log.read_text()}")


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


@contextmanager
def proxying(
    home: Path, *, latchkey: int, backend: int, change: Callable[[str], str] = str
) -> Iterator[int]:
    """nginx with the shipped file, changed or not, between these two ports; gives its own."""
    port, log = free_port(), home / "error.log"
    home.mkdir()
    (home / "nginx.conf").write_text(MAIN)
    text = shipped(latchkey=latchkey, backend=backend, nginx=port)
    (home / "latchkey.conf").write_text(change(text))
    command = [need("nginx"), "-p", str(home), "-c", "nginx.conf", "-e", str(log)]
    with subprocess.Popen(command, env={"PATH": os.environ["PATH"]}) as process:
        try:
            wait_for(port, process, log)
            yield port
        finally:
            process.terminate()
