"""Passkeys in a real browser, with an authenticator that Chromium simulates."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.browser.conftest import PASSWORD, barriers, sign_in
from tests.server import RunningServer

pytestmark = pytest.mark.browser

HOUR = 3_600_000
CANCELLED = "No passkey was used: the question was closed, or waited too long."
DEVICE = {
    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
    "hasUserVerification": True, "isUserVerified": True,
}  # fmt: skip


class Visit:
    """The owner's browser at an installation by the name of localhost; it can keep passkeys."""

    def __init__(self, page: Page, device: CDPSession, data_dir: Path) -> None:
        self.page = page
        self.device = device
        self.data_dir = data_dir
        self.device.send("WebAuthn.enable")
        added = device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})
        self.authenticator = {"authenticatorId": added["authenticatorId"]}

    def tell(self, command: str, **arguments: Any) -> None:
        self.device.send(f"WebAuthn.{command}", {**self.authenticator, **arguments})

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def let_an_hour_pass(self) -> None:
        database = sqlite3.connect(self.data_dir / "latchkey.db")
        with database:
            database.execute(f"update session set authenticated_at = authenticated_at - {HOUR}")
        database.close()

    def add(self, name: str) -> None:
        self.page.get_by_role("link", name="Add a passkey").click()
        self.page.get_by_role("dialog").get_by_label("Name").fill(name)
        self.press("Continue")

    def sign_out(self) -> None:
        self.press("Sign out")
        self.page.wait_for_url("**/login")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("passkeys") / "data")
    server.environ["LATCHKEY_BASE_URL"] = f"http://localhost:{server.port}"
    with server:
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        yield server


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[Visit]:
    context = browser.new_context(base_url=server.environ["LATCHKEY_BASE_URL"])
    context.set_default_timeout(10_000)
    page = context.new_page()
    yield Visit(page, context.new_cdp_session(page), server.data_dir)
    context.close()


def test_added_signs_in_confirms_and_once_removed_opens_nothing(visit: Visit) -> None:
    page = visit.page
    sign_in(page)
    page.goto("/account")
    visit.add("Work laptop")
    expect(page.get_by_role("status")).to_have_text("Passkey Work laptop added")
    expect(page.locator(".passkey-list")).to_contain_text("Work laptop")
    visit.add("The same again")
    expect(page.get_by_role("alert")).to_have_text("This device holds a passkey of yours already.")
    assert barriers(page) == []
    page.keyboard.press("Escape")

    visit.sign_out()
    page.goto("/login?next=/account")
    visit.press("Use a passkey")
    expect(page.locator(".passkey-list")).to_contain_text("last used just now")

    visit.let_an_hour_pass()
    page.get_by_role("link", name="Remove Work laptop").click()
    expect(page.get_by_role("heading", name="Confirm it is you")).to_be_visible()
    visit.press("Use a passkey")
    expect(page.get_by_role("heading", name="Remove Work laptop")).to_be_visible()
    visit.press("Remove")
    expect(page.get_by_role("status")).to_have_text("Passkey Work laptop removed")
    expect(page.get_by_text("None yet.")).to_be_visible()

    visit.sign_out()
    visit.press("Use a passkey")
    expect(page.get_by_role("alert")).to_contain_text("This passkey was not accepted.")


def test_who_cancels_or_comes_by_another_address_is_told(visit: Visit) -> None:
    page = visit.page
    page.goto("/login")
    visit.tell("setUserVerified", isUserVerified=False)
    visit.press("Use a passkey")
    expect(page.get_by_role("alert")).to_contain_text(CANCELLED)
    assert barriers(page) == []
    page.goto(page.url.replace("localhost", "127.0.0.1"))
    visit.press("Use a passkey")
    expect(page.get_by_role("alert")).to_contain_text("Passkeys are kept for localhost alone.")
