"""The API reference in a browser: it fits every screen, keeps to this host and copies exactly."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Watched, too_wide
from tests.server import RunningServer

pytestmark = pytest.mark.browser

WIDTHS = [390, 800, 801, 1000, 1001, 1280, 1920]


@pytest.fixture
def reference(watched: Watched, installed: RunningServer) -> Page:
    """The page, opened by somebody who is not signed in, with scripts and without."""
    watched.page.goto(f"{installed.url}/api/docs")
    return watched.page


@pytest.fixture(params=["light", "dark"])
def themed(
    browser: Browser, installed: RunningServer, request: pytest.FixtureRequest
) -> Iterator[Page]:
    context = browser.new_context(color_scheme=request.param, base_url=installed.url)
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def test_nothing_breaks_the_policy_or_asks_another_host(
    watched: Watched, installed: RunningServer
) -> None:
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url))
    watched.page.goto(f"{installed.url}/api/docs")
    expect(watched.page.get_by_role("heading", name="API reference")).to_be_visible()
    assert watched.complaints == []
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


def test_it_is_read_with_and_without_scripts(reference: Page) -> None:
    reference.get_by_role("link", name="Create key", exact=True).first.click()
    section = reference.locator("#create_key")
    expect(section.get_by_role("heading", name="Create key")).to_be_in_viewport()
    expect(section.get_by_text('curl -X POST "$LATCHKEY_URL/api/v1/api-keys"')).to_be_visible()
    rotated = reference.locator("#rotate_key")
    expect(rotated.get_by_text("previous_secret_expires_at")).to_be_hidden()
    rotated.get_by_text("Fields of the answer").click()
    expect(rotated.get_by_text("previous_secret_expires_at")).to_be_visible()


def test_the_button_copies_exactly_the_line_that_is_shown(
    watched: Watched, reference: Page
) -> None:
    button = reference.locator("#create_key").get_by_role("button", name="Copy")
    if not reference.evaluate("document.documentElement.classList.contains('js')"):
        expect(button).to_have_count(0)
        return
    reference.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(button).to_have_accessible_description("Create key")
    button.click()
    expect(reference.get_by_role("button", name="Copied")).to_be_visible()
    copied = reference.evaluate("navigator.clipboard.readText()")
    assert copied == reference.locator("#curl-create_key").text_content()
    assert copied.startswith("curl -X POST") and copied.endswith("}'")


def test_the_page_fits_every_screen_in_light_and_dark(themed: Page) -> None:
    themed.goto("/api/docs")
    themed.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for width in WIDTHS:
        themed.set_viewport_size({"width": width, "height": 800})
        assert not too_wide(themed), width
