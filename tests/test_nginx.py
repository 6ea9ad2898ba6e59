"""What is nginx's alone in its shipped configuration; what all proxies do is in test_proxies.py."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import bearer
from tests.proxies import SHIPPED, Backend, Site, call, proxying, serving
from tests.server import RunningServer, free_port

pytestmark = [pytest.mark.service, pytest.mark.outside]

FORGED = "forged-by-the-client"


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


def test_no_refusal_is_an_error_to_nginx(site: Site) -> None:
    """It would log each, and close the client's connection."""
    limited = bearer(site.make_key(rate_limit={"per_hour": 1})["key"])
    powerless = site.make_key(permissions=[])["key"]
    two = {**bearer(site.secret), "X-API-Key": powerless}
    refusals = [{}, bearer("nonsense"), two, bearer(powerless), limited, limited]
    statuses = [site.get(headers=headers).status for headers in refusals]
    assert statuses == [401, 401, 400, 403, 200, 429]
    assert "unexpected status" not in site.log.read_text()


def test_the_question_to_latchkey_cannot_be_asked_from_outside(site: Site) -> None:
    assert site.get("/_latchkey").status == 404
    assert site.backend.calls == []


def test_an_address_that_cannot_be_logged_is_refused(site: Site) -> None:
    """Bytes beyond ASCII have no place in a request line (RFC 9112); they must be encoded."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as raw:
        line = f"GET /t\xe2sk HTTP/1.0\r\nX-API-Key: {site.secret}\r\n\r\n"
        raw.sendall(line.encode("latin-1"))
        assert raw.makefile("rb").readline().split()[1] == b"400"
    assert site.backend.calls == []


def test_latchkey_is_told_what_it_needs_and_no_more(tmp_path: Path) -> None:
    with (
        serving(Backend()) as latchkey,
        proxying(tmp_path / "nginx", latchkey=latchkey.server_port, backend=free_port()) as port,
    ):
        headers = {
            "X-API-Key": "k", "Cookie": "session=s", "X-Key-Id": FORGED, "User-Agent": "ua",
            "Origin": "https://app.example", "Access-Control-Request-Method": "PUT",
        }  # fmt: skip
        call(port, "/tasks?page=2", "POST", headers=headers, body="what the client uploads")
    [seen] = latchkey.calls
    assert (seen.method, seen.path) == ("GET", "/forward-auth/nginx?permission=tasks:read")
    assert seen.body == ""
    assert {name.lower(): value for name, value in seen.headers.items()} == {
        "host": "latchkey",
        "x-api-key": "k",
        "user-agent": "ua",
        "origin": "https://app.example",
        "access-control-request-method": "PUT",
        "x-original-method": "POST",
        "x-original-url": "/tasks?page=2",
        "x-forwarded-for": "127.0.0.1",
    }


def test_reading_and_writing_can_need_different_permissions(tmp_path: Path) -> None:
    """By the lines that README.md gives for it."""
    found = re.search(r"```nginx\n(.*?)```", (SHIPPED / "README.md").read_text(), re.DOTALL)
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
