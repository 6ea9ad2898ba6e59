"""Puts load on a server and measures it: checks by wrk, pages by one signed-in browser."""

import http.client
import json
import re
import subprocess
import time
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlencode

from bench.fill import EMAIL, PASSWORD

HOST = "127.0.0.1"
SCRIPT = Path(__file__).with_name("load.lua")
SECRET = "{secret}"  # where load.lua puts one
TIMEOUT_SECONDS = 60

# What a proxy sends. The bare views are sent the same, so that all read the same headers.
CHECK = {
    "Host": HOST,
    "X-Original-Method": "GET",
    "X-Original-URL": "http://api.example.com/tasks/1",
    "X-Forwarded-For": "203.0.113.7",
    "Authorization": f"Bearer {SECRET}",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of wrk, or of page loads; times in milliseconds, `refused` a share of the requests."""

    rate: float  # requests a second
    p50: float
    p99: float
    refused: float = 0.0
    failed: int = 0


def middle(runs: list[Measured]) -> Measured:
    """The median of each figure; what failed is added up."""
    rate, p50, p99, refused = (
        median(getattr(run, name) for run in runs) for name in ("rate", "p50", "p99", "refused")
    )
    return Measured(rate, p50, p99, refused, sum(run.failed for run in runs))


def check_request(path: str) -> str:
    """The request of a proxy, at this path."""
    return _request("GET", path, CHECK)


def verify_request(service_secret: str) -> str:
    """A service's question about a key."""
    question = {"key": SECRET, "permissions": ["tasks:read"], "method": "GET", "path": "/tasks/1",
                "ip": "203.0.113.7"}  # fmt: skip
    body = json.dumps(question)
    # The secrets are all as long as the service's own.
    length = len(body) - len(SECRET) + len(service_secret)
    headers = {"Host": HOST, "Authorization": f"Bearer {service_secret}",
               "Content-Type": "application/json", "Content-Length": str(length)}  # fmt: skip
    return _request("POST", "/api/v1/verify", headers, body)


def page_request(path: str, cookies: str) -> str:
    return _request("GET", path, {"Host": HOST, "Cookie": cookies})


def _request(method: str, path: str, headers: dict[str, str], body: str = "") -> str:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", body])


class Load:
    """One wrk under way: the same request, with secrets from a file, over some connections."""

    def __init__(
        self, port: int, request: Path, secrets: Path | None, *, connections: int, seconds: int
    ) -> None:
        given = [request] if secrets is None else [request, secrets]
        self._process = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_SECONDS}s",
             "-s", SCRIPT, f"http://{HOST}:{port}/", "--", *given],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def result(self) -> Measured:
        """Waits for its end."""
        output, _ = self._process.communicate()
        run = json.loads(output.splitlines()[-1])
        requests = max(run["requests"], 1)
        return Measured(
            requests / run["seconds"], run["p50"], run["p99"], run["refused"] / requests,
            run["failed"],
        )  # fmt: skip


class Browser:
    """One person, signed in to a console, on one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
        self._cookies: SimpleCookie = SimpleCookie()
        form = self.get("/login")
        token = re.search(r'name="csrf_token" value="([^"]+)"', form)
        assert token, "the sign-in form has no token"
        fields = {"email": EMAIL, "password": PASSWORD, "csrf_token": token[1]}
        self._ask("POST", "/login", urlencode(fields), 303)
        # The server ends connections that are idle for long; the next request opens another.
        self._connection.close()

    @property
    def cookies(self) -> str:
        return "; ".join(f"{name}={morsel.value}" for name, morsel in self._cookies.items())

    def get(self, path: str) -> str:
        return self._ask("GET", path, None, 200)

    def _ask(self, method: str, path: str, body: str | None, expected: int) -> str:
        headers = {"Cookie": self.cookies} if self._cookies else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        assert response.status == expected, f"{method} {path}: {response.status}\n{text[:500]}"
        for header in response.headers.get_all("Set-Cookie", []):
            self._cookies.load(header)
        return text


def measure_pages(pages: list[tuple[Browser, str]], times: int) -> list[Measured]:
    """Loads the pages in turn, so that a noisy moment meets all of them alike."""
    taken: list[list[float]] = [[] for _ in pages]
    for _ in range(times):
        for (browser, path), loads in zip(pages, taken, strict=True):
            began = time.perf_counter()
            browser.get(path)
            loads.append((time.perf_counter() - began) * 1000)
    return [
        Measured(1000 * len(loads) / sum(loads), median(loads), quantiles(loads, n=100)[-1])
        for loads in taken
    ]
