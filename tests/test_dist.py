"""The one file of `make dist`, run where nothing else is: no Python, no PATH, no other file."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conftest import PASSWORD, cannot_run, need
from tests.server import ROOT, RunningServer

pytestmark = [pytest.mark.service, pytest.mark.outside]

FILE = ROOT / "dist" / "latchkey"
EMAIL = "ada@example.com"


class OneFile(RunningServer):
    """Latchkey as that file, in an empty directory and with nothing in its environment."""

    command = (str(FILE),)
    start_seconds = 60  # it unpacks itself first

    def __init__(self, directory: Path, **environ: str) -> None:
        super().__init__(directory / "data")
        mine = {k: v for k, v in self.environ.items() if k.startswith("LATCHKEY_")}
        self.cwd = directory / "empty"
        self.unpacked_in = directory / "tmp"
        for made in (self.cwd, self.unpacked_in):
            made.mkdir(exist_ok=True)
        self.environ = {**mine, "PATH": "", "TMPDIR": str(self.unpacked_in), **environ}

    def unpacked(self) -> list[Path]:
        return list(self.unpacked_in.glob("_MEI*"))


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    """As make says: when it is not there, or older than what it is made of."""
    need("make")
    need("objcopy", "apt-get install binutils")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        cannot_run("this Python has no shared library to pack")
    made = subprocess.run(
        ["make", "--silent", "dist", f"PYTHON={sys.executable}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneFile]:
    """Serving, with an owner and a project."""
    latchkey = OneFile(tmp_path_factory.mktemp("one_file"))
    added = latchkey.run("create-admin", "--email", EMAIL, "--password-stdin", stdin=PASSWORD)
    assert (added.returncode, added.stdout) == (0, f"{EMAIL} is an owner.\n"), added.stderr
    assert latchkey.run("create-project", "--slug", "shop").returncode == 0
    with latchkey:
        yield latchkey


@pytest.fixture(scope="module")
def browser(one_file: OneFile) -> urllib.request.OpenerDirector:
    """In which the owner is signed in."""
    cookies = urllib.request.HTTPCookieProcessor(CookieJar())
    opener = urllib.request.build_opener(cookies)
    page = opener.open(f"{one_file.url}/login").read().decode()
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    assert token is not None
    form = {"csrf_token": token[1], "email": EMAIL, "password": PASSWORD}
    assert "/login" not in opener.open(f"{one_file.url}/login", urlencode(form).encode()).url
    return opener


def get(url: str, **headers: str) -> bytes:
    asked = urllib.request.Request(url, headers=headers)
    return bytes(urllib.request.urlopen(asked, timeout=20).read())


def test_it_is_ready(one_file: OneFile) -> None:
    assert get(f"{one_file.url}/readyz")


def test_a_check_is_answered_and_its_entry_knows_the_country(one_file: OneFile) -> None:
    made = one_file.run("create-key", "--project", "shop", "--name", "CI",
                        "--permission", "audit:read", "--json")  # fmt: skip
    key = json.loads(made.stdout)
    bearer = {"Authorization": f"Bearer {key['key']}"}
    asked = {
        "X-Original-Method": "GET",
        "X-Original-URL": "/v1/tasks",
        "X-Forwarded-For": "8.8.8.8",
    }
    assert get(f"{one_file.url}/forward-auth/nginx", **bearer, **asked) == b""
    log = json.loads(get(f"{one_file.url}/api/v1/api-keys/{key['id']}/audit-log", **bearer))
    assert [
        (entry["endpoint"], entry["ip"], entry["country"], entry["code"])
        for entry in log["data"]
        if entry["ip"] == "8.8.8.8"
    ] == [("/v1/tasks", "8.8.8.8", "US", "VALID")]


def test_pages_come_with_what_they_are_made_of(one_file: OneFile) -> None:
    page = get(f"{one_file.url}/login").decode()
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert get(one_file.url + path), path
    assert "console.css" in page


def test_a_page_shows_the_shipped_files(
    one_file: OneFile, browser: urllib.request.OpenerDirector
) -> None:
    page = f"{one_file.url}/projects/shop/integrate"
    assert "auth_request" in browser.open(page).read().decode()
    for folder, name in (("proxies", "latchkey.lua"), ("clients", "latchkey.mjs")):
        shipped = (ROOT / "docs" / folder / name).read_bytes()
        assert browser.open(f"{page}/files/{name}").read() == shipped


@pytest.mark.parametrize(
    "command, setting, value, said",
    [
        ("migrate", "DATABASE_URL", "postgresql://127.0.0.1:1/keys", "Connection refused"),
        ("doctor", "APPRISE_URLS", "tgram://123456789:abcdefghijklmnop/1/", "no backup yet"),
    ],
)
def test_what_is_looked_for_by_name_is_inside(
    one_file: OneFile, command: str, setting: str, value: str, said: str
) -> None:
    beside = OneFile(one_file.data_dir.parent, **{f"LATCHKEY_{setting}": value})
    ran = beside.run(command)
    assert said in ran.stdout + ran.stderr


def test_kill_9_leaves_nobody_serving_and_the_next_start_removes_what_it_left(
    tmp_path: Path,
) -> None:
    """And an end in order leaves nothing unpacked."""
    latchkey = OneFile(tmp_path)
    latchkey.start()
    latchkey.kill()
    deadline = time.monotonic() + 5
    while _answers(latchkey) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _answers(latchkey)
    [left] = latchkey.unpacked()
    assert latchkey.run("migrate").returncode == 0
    assert latchkey.unpacked() == [left]  # it could be one that is only being unpacked
    os.utime(left, (0, 0))
    with latchkey:
        [own] = latchkey.unpacked()
        assert own != left
        os.utime(own, (0, 0))
        assert latchkey.run("migrate").returncode == 0
        assert latchkey.unpacked() == [own]  # somebody lives there
        assert latchkey.process is not None
        latchkey.process.terminate()
        assert latchkey.process.wait(timeout=30) == 0
    assert latchkey.unpacked() == []


def _answers(latchkey: OneFile) -> bool:
    with suppress(urllib.error.URLError, ConnectionError):
        return bool(get(f"{latchkey.url}/healthz"))
    return False
