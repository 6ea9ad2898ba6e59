"""The newcomer's walk in a real browser, against a real server: set up, issue a key, use it behind
nginx, read its log, revoke, enable, rotate, edit, delete. With scripts and without. Afterwards the
secrets are in no file, no log line, and no answer but the ones that showed them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Watched
from tests.conftest import bearer
from tests.proxies import Backend, call, proxying, serving
from tests.server import RunningServer

pytestmark = pytest.mark.browser

NAME = "Checkout, production"
PERMISSION = "tasks:read"


class Walk:
    """What the newcomer does, in their words."""

    def __init__(self, page: Page, server: RunningServer) -> None:
        self.page = page
        self.server = server
        self.secrets: list[str] = []

    def set_up(self) -> None:
        self.page.goto(self.server.setup_url)
        self.page.get_by_label("Email").fill("ada@example.com")
        self.page.get_by_label("Password").fill("correct horse battery")
        self.page.get_by_role("button", name="Become the owner").click()
        expect(self.page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()

    def create(self) -> str:
        self.page.get_by_role("button", name="Create API Key").click()
        self.page.get_by_label("Name").fill(NAME)
        self.page.get_by_label("Expiration").select_option("1 Month")
        self.page.get_by_label("Permissions").fill(PERMISSION)
        self.page.get_by_role("button", name="Create Key").click()
        return self.take_secret()

    def take_secret(self) -> str:
        """Step 2: shown once; taken; done."""
        expect(self.page.get_by_text("This is the only time")).to_be_visible()
        secret = self.page.get_by_label("Secret").input_value()
        self.secrets.append(secret)
        self.page.get_by_role("button", name="Done").click()
        expect(self.page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
        expect(self.page.locator("#secret")).to_have_count(0)
        assert secret not in self.page.content()
        return secret

    @property
    def row(self) -> Locator:
        return self.page.get_by_role("row").filter(has_text=NAME)

    def choose(self, action: str) -> None:
        self.row.get_by_role("button", name="Actions").click()
        self.page.get_by_role("menuitem", name=action).click()

    def confirm(self, words: str) -> None:
        self.page.get_by_label("Type the key's name").fill(NAME)
        self.page.get_by_role("button", name=words).click()

    def log_of_key(self) -> Locator:
        self.choose("View Audit Log")
        table = self.page.get_by_role("table", name="Requests")
        expect(table).to_be_visible()
        return table

    def back(self) -> None:
        self.page.goto(f"{self.server.url}/projects/default/keys")


@dataclass
class Service:
    """The service that the key is for, behind nginx with the shipped configuration."""

    port: int
    backend: Backend

    def ask(self, secret: str) -> int:
        """The status that a client with this key gets; only good ones reach the service."""
        before = len(self.backend.calls)
        answer = call(self.port, "/tasks?page=2", headers=bearer(secret))
        assert (len(self.backend.calls) > before) == (answer.status == 200)
        return answer.status


@pytest.fixture
def service(server: RunningServer, tmp_path: Path) -> Iterator[Service]:
    with (
        serving(Backend()) as backend,
        proxying(tmp_path / "nginx", latchkey=server.port, backend=backend.server_port) as port,
    ):
        yield Service(port, backend)


def test_the_newcomers_walk(watched: Watched, server: RunningServer, service: Service) -> None:
    page, ask = watched.page, service.ask
    walk = Walk(page, server)
    walk.set_up()

    first = walk.create()
    assert re.fullmatch(r"lk_live_[0-9A-Za-z]{36}", first)
    expect(walk.row).to_contain_text("Active")
    expect(walk.row).to_contain_text("Never used")
    assert ask(first) == 200

    log = walk.log_of_key()
    expect(log.get_by_role("row").nth(1)).to_contain_text("/tasks")
    assert "page=2" not in page.content()
    expect(log.get_by_role("row").nth(1)).to_contain_text("200")
    walk.back()

    walk.choose("Revoke")
    page.get_by_role("button", name="Revoke Key").click()
    expect(walk.row).to_contain_text("Revoked")
    assert ask(first) == 401

    walk.choose("Enable")
    page.get_by_role("button", name="Enable Key").click()
    expect(walk.row).to_contain_text("Active")
    assert ask(first) == 200

    walk.choose("Rotate")
    page.get_by_label("Stop the old secret").select_option("24 hours")
    walk.confirm("Rotate Key")
    second = walk.take_secret()
    expect(walk.row).to_contain_text("Grace until")
    assert (ask(first), ask(second)) == (200, 200)

    walk.choose("Rotate")
    walk.confirm("Rotate Key")
    third = walk.take_secret()
    assert [ask(one) for one in walk.secrets] == [401, 401, 200]

    walk.choose("Edit")
    page.get_by_label("Description").fill("Kept in the vault")
    page.get_by_label("IP Allowlist").fill("10.0.0.5/24")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("IP Allowlist")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("write 10.0.0.0/24")).to_be_visible()
    expect(page.get_by_label("Description")).to_have_value("Kept in the vault")
    page.get_by_label("IP Allowlist").fill("10.0.0.0/24")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("saved")
    assert ask(third) == 403

    walk.choose("Delete")
    walk.confirm("Delete Key")
    expect(page.get_by_text("No keys yet")).to_be_visible()
    assert ask(third) == 401

    page.get_by_role("link", name="Activity").click()
    expect(page.locator(".events")).to_contain_text("deleted the key")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{server.url}/projects/default/keys")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

    server.stop()
    for secret in walk.secrets:
        assert files_with(secret, server.data_dir.parent) == []
        shown = [url for url, body in watched.answers if secret in body]
        assert len(shown) == 1, shown
    expected = "the server responded with a status of 422"
    assert [line for line in watched.complaints if expected not in line] == []


def files_with(text: str, directory: Path) -> list[Path]:
    """The files below the directory that hold the text, whatever their kind."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if text.encode() in path.read_bytes()]
