"""Webhooks in a browser, and a receiver that is told: added, tested, rotated and deleted, with
scripts and without; by keyboard alone; and all of it fits a telephone and everybody."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect
from standardwebhooks import Webhook as Verifier

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.receiver import WAIT_SECONDS, Receiver
from tests.server import RunningServer

pytestmark = pytest.mark.browser

LIST = "/projects/shop/webhooks"


@dataclass
class Place:
    """A server, and a receiver that its webhooks lead to."""

    server: RunningServer
    receiver: Receiver

    def url(self, name: str) -> str:
        """An address of the receiver's own for each test."""
        return f"{self.receiver.url}/{name.replace(' ', '-')}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("webhooks") / "data"
    with (
        Receiver(204) as receiver,
        RunningServer(data, LATCHKEY_WEBHOOK_NETWORKS="127.0.0.0/8") as server,
    ):
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        given = {"email": "ada@example.com", "password": PASSWORD}
        answer = requests.post(f"{server.url}/api/v1/auth/token", json=given, timeout=10)
        headers = bearer(answer.json()["access_token"])
        fields = {"slug": "shop", "name": "Shop"}
        made = requests.post(
            f"{server.url}/api/v1/projects", json=fields, headers=headers, timeout=10
        )
        made.raise_for_status()
        yield Place(server, receiver)


def has_scripts(page: Page) -> bool:
    return bool(page.locator("html.js").count())


def add(page: Page, url: str) -> str:
    """Adds a webhook up to the step that shows the secret, which is returned."""
    page.get_by_role("link", name="Add webhook").click()
    page.get_by_label("URL").fill(url)
    page.get_by_label("Only some").check()
    page.get_by_label("Everything about keys").check()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    page.wait_for_load_state("load")
    return page.get_by_label("Secret", exact=True).input_value()


def reload_until_delivered(page: Page, row: Locator) -> None:
    page.wait_for_load_state("load")
    until = time.monotonic() + WAIT_SECONDS
    while "Delivered" not in row.inner_text() and time.monotonic() < until:
        page.reload()
    expect(row).to_contain_text("Delivered")


def test_a_webhook_is_added_tested_rotated_and_deleted(
    place: Place, watched: Watched, request: pytest.FixtureRequest
) -> None:
    page, url = watched.page, place.url(request.node.callspec.id)
    sign_in(page, place.server.url)
    page.goto(place.server.url + LIST)
    secret = add(page, url)
    assert sum(secret in body for _, body in watched.answers) == 1
    assert secret not in page.url
    if has_scripts(page):
        page.get_by_role("button", name="Copy secret").click()
        page.get_by_role("button", name="Done").click()
    else:
        page.reload()
        expect(page.get_by_role("heading", name="This form was sent already")).to_be_visible()
        assert secret not in page.content()
        page.get_by_role("link", name="Back to the webhooks").click()
    page.reload()
    assert secret not in page.content()

    page.get_by_role("link", name=url).click()
    here = page.url
    told = len(place.receiver.messages)
    page.get_by_role("button", name="Send a test").click()
    message = place.receiver.wait_for(told + 1)[-1]
    assert Verifier(secret).verify(message.body, message.headers)["type"] == "webhook.test"
    row = page.get_by_role("row").filter(has_text="webhook.test")
    if not has_scripts(page):
        reload_until_delivered(page, row)
    expect(row).to_contain_text("Delivered")  # with scripts the page asks again by itself
    row.get_by_role("link").click()
    expect(page.locator("#payload")).to_contain_text('"type": "webhook.test"')
    page.get_by_role("button", name="Send again").last.click()
    expect(row).to_have_count(2)

    page.get_by_role("link", name="Rotate secret").click()
    page.get_by_label("The old secret also signs for").select_option("24 hours")
    page.get_by_role("button", name="Rotate Secret").click()
    expect(page.get_by_text("The old secret signs, too, until")).to_be_visible()
    assert page.get_by_label("Secret", exact=True).input_value() != secret
    page.goto(here)
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete Webhook").click()
    expect(page.get_by_role("heading", name="Webhooks", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=url)).to_have_count(0)
    assert [one for one in watched.complaints if "409" not in one] == []


def test_a_webhook_is_added_and_tested_by_keyboard_alone(place: Place, browser: Browser) -> None:
    context = browser.new_context(base_url=place.server.url)
    context.set_default_timeout(10_000)
    page = context.new_page()
    press = page.keyboard.press
    sign_in(page)
    page.goto(LIST)
    press("n")
    expect(page.get_by_label("URL")).to_be_focused()
    page.keyboard.type(place.url("keyboard"))
    press("Tab")
    expect(page.get_by_label("Every event")).to_be_focused()
    press("ArrowDown")
    press("Tab")
    expect(page.get_by_label("Everything about keys")).to_be_focused()
    press("Space")
    press("Tab")  # its single events are not to be seen any more
    expect(page.get_by_label("Everything about the project")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("button", name="Copy secret")).to_be_focused()
    press("Enter")
    page.get_by_role("button", name="Done").press("Enter")
    page.get_by_role("link", name=place.url("keyboard")).press("Enter")
    button = page.get_by_role("button", name="Send a test")
    button.press("Enter")
    expect(page.get_by_role("row").filter(has_text="webhook.test")).to_be_visible()
    expect(button).to_be_focused()
    page.get_by_role("link", name="Delete").press("Enter")
    expect(page.get_by_role("button", name="Delete Webhook")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("link", name="Delete")).to_be_focused()
    context.close()


def test_every_page_and_dialog_fits_both_widths_and_everybody(
    place: Place, browser: Browser
) -> None:
    context = browser.new_context(base_url=place.server.url, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.watch()
    page = watched.page
    sign_in(page)

    def assert_good(dialog: str = "") -> None:
        if dialog:
            page.get_by_role("link", name=dialog, exact=True).click()
            expect(page.get_by_role("dialog")).to_be_visible()
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme="dark" if width == 1280 else "light")
            assert not too_wide(page), (page.url, width)
            assert barriers(page) == [], (page.url, width)
        page.emulate_media(color_scheme="dark")
        assert not too_wide(page), page.url
        if dialog:
            page.keyboard.press("Escape")

    page.goto(LIST)
    add(page, place.url("a-path-that-is-long-and-has-no-place-to-break-" + "x" * 200))
    page.get_by_role("button", name="Show secret").click()
    assert_good()
    page.get_by_role("button", name="Done").click()
    assert_good()
    page.get_by_role("link", name="to-break-").click()
    page.get_by_role("button", name="Send a test").click()
    row = page.get_by_role("row").filter(has_text="webhook.test")
    reload_until_delivered(page, row)
    assert_good()
    for dialog in ("Edit", "Rotate secret"):
        assert_good(dialog)
    row.get_by_role("link").click()
    expect(page.locator("#payload")).to_be_visible()
    assert_good()
    assert watched.complaints == []
    context.close()
