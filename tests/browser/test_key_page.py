"""One key's page in a real browser: its dialogs stay on it, its chart changes in place, and it can
be used at every width, from the keyboard, and without scripts."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

NAME = "Checkout, production"
OLD = "Who still uses the old secret"
WIDTHS = (390, 480, 800, 1100, 1280, 1920)


class Shop:
    """A server with one project; keys are made as they are needed."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()

    def make_key(self, *, used: int = 1, grace: str | None = None) -> tuple[str, str]:
        """The path of its page, and its first secret."""
        made = self.server.run("create-key", "--project", "shop", "--name", NAME, "--json")
        key = json.loads(made.stdout)
        for _ in range(used):
            self.use(key["key"])
        if grace:
            self.server.run("rotate-key", key["id"], "--grace", grace).check_returncode()
        return f"/projects/shop/keys/{key['id']}", key["key"]

    def use(self, secret: str) -> int:
        headers = {
            **bearer(secret), "X-Forwarded-For": "8.8.8.8", "User-Agent": "checkout/1.0 (a service)"
        }  # fmt: skip
        return call(self.server.port, "/api/v1/whoami", headers=headers).status


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("key-page") / "data"
    with RunningServer(directory, LATCHKEY_KEY_LIMIT="1000") as server:
        yield Shop(server)


@pytest.fixture
def visit(watched: Watched, shop: Shop) -> Page:
    """The owner's browser, once with scripts and once without."""
    sign_in(watched.page, shop.server.url)
    return watched.page


@pytest.fixture
def page(browser: Browser, shop: Shop) -> Iterator[Page]:
    """The owner's browser, with scripts."""
    context = browser.new_context(
        base_url=shop.server.url, viewport={"width": 1280, "height": 800}, reduced_motion="reduce"
    )
    context.set_default_timeout(10_000)
    page = context.new_page()
    sign_in(page)
    yield page
    context.close()


def choose(page: Page, name: str) -> None:
    page.get_by_role("main").get_by_role("link", name=name, exact=True).click()


def states(page: Page) -> Locator:
    return page.locator(".page-head .state")


# --- with scripts and without ---------------------------------------------------------------------


def test_revoked_enabled_and_undone_on_the_page_itself(visit: Page, shop: Shop) -> None:
    path, secret = shop.make_key()
    visit.goto(f"{shop.server.url}{path}")
    choose(visit, "Revoke")
    expect(visit.get_by_text("1 service used this key in the last hour")).to_be_visible()
    visit.get_by_role("button", name="Revoke Key").click()
    expect(states(visit)).to_have_text(["Revoked"])
    assert shop.use(secret) == 401
    visit.get_by_role("button", name="Undo").click()
    expect(states(visit)).to_have_text(["Active"])
    assert shop.use(secret) == 200
    choose(visit, "Revoke")
    visit.get_by_role("button", name="Revoke Key").click()
    choose(visit, "Enable")
    visit.get_by_role("button", name="Enable Key").click()
    expect(states(visit)).to_have_text(["Active"])
    expect(visit).to_have_url(re.compile(f"{path}$"))
    expect(visit.locator(".events")).to_contain_text("enabled the key")


def test_deleted_on_its_page_it_leaves_for_the_table(visit: Page, shop: Shop) -> None:
    path, _ = shop.make_key()
    visit.goto(f"{shop.server.url}{path}")
    choose(visit, "Delete")
    visit.get_by_label("Type the key's name").fill(NAME)
    visit.get_by_role("button", name="Delete Key").click()
    expect(visit).to_have_url(re.compile("/projects/shop/keys$"))
    expect(visit.get_by_role("status").filter(has_text=f"{NAME} deleted")).to_be_visible()


def test_rotated_with_grace_seen_to_be_used_extended_and_ended(visit: Page, shop: Shop) -> None:
    path, old = shop.make_key()
    visit.goto(f"{shop.server.url}{path}")
    choose(visit, "Rotate")
    visit.get_by_label("Stop the old secret").select_option("24 hours")
    visit.get_by_label("Type the key's name").fill(NAME)
    visit.get_by_role("button", name="Rotate Key").click()
    expect(visit.get_by_text("This is the only time")).to_be_visible()
    assert shop.use(old) == 200
    visit.goto(f"{shop.server.url}{path}")
    section = visit.get_by_role("region", name=OLD)
    expect(section).to_contain_text("Still in use")
    expect(section.get_by_role("row").nth(1)).to_contain_text("checkout/1.0 (a service)")
    choose(visit, "Extend")
    visit.get_by_label("Stop the old secret after").select_option(value="7d")
    visit.get_by_role("button", name="Extend").click()
    expect(section).to_contain_text("in 7 days")
    choose(visit, "End now")
    expect(visit.get_by_text("1 service used the old secret in the last hour")).to_be_visible()
    visit.get_by_role("button", name="End old secret").click()
    expect(section).to_have_count(0)
    expect(visit).to_have_url(re.compile(f"{path}$"))
    assert shop.use(old) == 401
    visit.reload()
    warning = visit.get_by_role("region", name="Who still presents a stopped secret")
    expect(warning).to_contain_text("1 call came with an old secret")


def test_the_chart_changes_with_the_period_and_the_address(visit: Page, shop: Shop) -> None:
    path, _ = shop.make_key(used=3)
    visit.goto(f"{shop.server.url}{path}")
    expect(visit.get_by_role("group", name="Requests in the last 24 hours")).to_be_visible()
    choose(visit, "30 days")
    expect(visit.get_by_role("group", name="Requests in the last 30 days")).to_be_visible()
    expect(visit).to_have_url(re.compile(r"\?period=30d$"))
    expect(visit.get_by_role("link", name="30 days")).to_have_attribute("aria-current", "true")
    visit.reload()
    expect(visit.get_by_role("group", name="Requests in the last 30 days")).to_be_visible()


# --- with scripts ---------------------------------------------------------------------------------


def test_the_period_and_the_focus_stay_when_the_page_fetches_itself(page: Page, shop: Shop) -> None:
    path, _ = shop.make_key()
    page.goto(path)
    page.evaluate("window.isTheSamePage = true")
    year = page.get_by_role("link", name="12 months")
    year.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Requests in the last 12 months")).to_be_visible()
    expect(year).to_be_focused()
    choose(page, "Revoke")
    page.get_by_role("button", name="Revoke Key").click()
    expect(states(page)).to_have_text(["Revoked"])
    expect(page.get_by_role("group", name="Requests in the last 12 months")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert page.evaluate("window.isTheSamePage") is True


def test_the_last_button_waits_for_the_name_which_one_click_selects(page: Page, shop: Shop) -> None:
    path, _ = shop.make_key()
    page.goto(path)
    choose(page, "Delete")
    field, last = (
        page.get_by_label("Type the key's name"),
        page.get_by_role("dialog").locator("footer button"),
    )
    expect(field).to_be_focused()
    expect(last).to_be_disabled()
    for typed in (NAME.lower(), NAME[:-1], f"{NAME} "):
        field.fill(typed)
        expect(last).to_be_disabled()
    page.get_by_role("dialog").locator(".selectable").click()
    assert page.evaluate("getSelection().toString()") == NAME
    field.fill(NAME)
    expect(last).to_be_enabled()
    field.fill("")
    page.keyboard.press("Enter")
    expect(last).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("link", name="Delete", exact=True)).to_be_focused()


def test_delete_offers_to_revoke_instead_in_the_same_dialog(page: Page, shop: Shop) -> None:
    path, _ = shop.make_key()
    page.goto(path)
    choose(page, "Delete")
    page.get_by_role("link", name="revoke it instead").click()
    page.get_by_role("button", name="Revoke Key").click()
    expect(states(page)).to_have_text(["Revoked"])


def test_id_and_first_call_are_copied_whole(page: Page, shop: Shop) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    path, secret = shop.make_key(used=0)
    page.goto(path)
    page.get_by_role("button", name="Copy the id").click()
    expect(page.get_by_role("button", name="Copied")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == path.rpartition("/")[2]
    expect(page.get_by_role("button", name="Copy the id")).to_have_text("Copy")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == (
        f'curl -H "Authorization: Bearer {secret[:12]}…" {shop.server.url}/api/v1/whoami'
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_its_grace_fits_every_width_and_hinders_nobody(
    page: Page, shop: Shop, scheme: str
) -> None:
    path, old = shop.make_key(grace="24h")
    shop.use(old)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path)
    expect(page.get_by_role("region", name=OLD)).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert not too_wide(page), width
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert barriers(page) == [], width
        for name in ("End now", "Extend", "Delete"):
            choose(page, name)
            expect(page.get_by_role("dialog")).to_be_visible()
            assert not too_wide(page), name
            assert barriers(page) == [], name
            page.keyboard.press("Escape")
            expect(page.get_by_role("dialog")).to_be_hidden()
