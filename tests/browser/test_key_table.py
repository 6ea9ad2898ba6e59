"""The key table in a browser: rows that lead to their keys, menus that open by every way, several
keys selected and changed, filters and orders that live in the address; and on a telephone."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Locator, Page, StorageState, expect

from tests.browser.conftest import PASSWORD, barriers, profile, too_wide
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser

KEYS = "/projects/shop/keys"
SERVICES = 30


class Shop:
    """A server with more keys than the smallest page shows, and a key that manages them."""

    def __init__(self, server: RunningServer) -> None:
        self.url = server.url
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        made = server.run(
            "create-key", "--project", "shop", "--name", "Manager", "--permission", "keys:manage"
        )
        self.manager = bearer(made.stdout.strip())
        for number in range(SERVICES):
            self.new_key(f"Service {number:02}", permissions=["tasks:read"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(
            method, f"{self.url}/api/v1{path}", json=body, headers=self.manager, timeout=10
        )
        assert answer.ok, answer.text
        return answer.json()

    def new_key(self, name: str, **settings: Any) -> str:
        return str(self.call("POST", "/api-keys", {"name": name, **settings})["id"])

    def status(self, key_id: str) -> str:
        return str(self.call("GET", f"/api-keys/{key_id}")["status"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("table") / "data"
    with RunningServer(directory, LATCHKEY_KEY_LIMIT="1000") as server:
        yield Shop(server)


@pytest.fixture(scope="module")
def session(browser: Browser, shop: Shop) -> StorageState:
    return profile(browser, shop.url)


@pytest.fixture
def context(
    browser: Browser, shop: Shop, session: StorageState, request: pytest.FixtureRequest
) -> Iterator[BrowserContext]:
    options = {"viewport": {"width": 1280, "height": 800}, **getattr(request, "param", {})}
    context = browser.new_context(base_url=shop.url, storage_state=session, **options)
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(f"{error}\n{error.stack}"))
    page.goto(f"{KEYS}?sort=name")
    yield page
    assert broken == []


TELEPHONE = pytest.mark.parametrize(
    "context", [{"viewport": {"width": 390, "height": 800}}], indirect=True, ids=["390"]
)
WITHOUT_SCRIPTS = pytest.mark.parametrize(
    "context", [{"java_script_enabled": False}], indirect=True, ids=["scripts off"]
)


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def pick(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()


# --- a row ----------------------------------------------------------------------------------------


def test_the_whole_row_leads_to_its_key(page: Page) -> None:
    row(page, "Service 03").get_by_text("Never used").click()
    expect(page.get_by_role("heading", name="Service 03")).to_be_visible()


def test_a_row_opens_in_a_new_tab_where_its_link_would(page: Page) -> None:
    with page.context.expect_page() as opened:
        row(page, "Service 03").get_by_text("Never used").click(modifiers=["ControlOrMeta"])
    expect(opened.value.get_by_role("heading", name="Service 03")).to_be_visible()
    expect(page).to_have_url(re.compile("sort=name"))


def test_selecting_the_text_of_a_row_leads_nowhere(page: Page) -> None:
    place = row(page, "Service 03").locator("code").bounding_box()
    assert place
    page.mouse.move(place["x"] + 2, place["y"] + 8)
    page.mouse.down()
    page.mouse.move(place["x"] + 60, place["y"] + 8)
    page.mouse.up()
    assert page.evaluate("String(getSelection())")
    expect(page).to_have_url(re.compile("sort=name"))


def test_beside_a_checkbox_the_row_is_selected_and_not_left(page: Page) -> None:
    box = page.get_by_role("checkbox", name="Select Service 03")
    row(page, "Service 03").locator(".pick").click(position={"x": 30, "y": 4})
    expect(box).to_be_checked()
    expect(page).to_have_url(re.compile("sort=name"))


def test_the_menu_opens_by_its_button_by_right_click_and_by_a_key(page: Page) -> None:
    here = row(page, "Service 04")
    first = here.get_by_role("menuitem", name="Edit")

    def closes() -> None:
        page.keyboard.press("Escape")
        expect(first).to_be_hidden()

    here.get_by_role("button", name="Actions for Service 04").click()
    expect(first).to_be_focused()
    closes()
    here.get_by_text("Never used").click(button="right")
    expect(first).to_be_focused()
    closes()
    here.get_by_role("link", name="Service 04").focus()
    page.keyboard.press(".")
    expect(first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(here.get_by_role("menuitem", name="Rotate")).to_be_focused()
    closes()
    expect(here.get_by_role("button", name="Actions for Service 04")).to_be_visible()


def test_a_right_click_opens_the_menu_where_the_pointer_is_and_inside_the_window(
    page: Page,
) -> None:
    for name, x in (("Service 01", 640), ("Service 01", 1210)):
        box = row(page, name).bounding_box()
        assert box
        page.mouse.click(x, box["y"] + 10, button="right")
        menu = row(page, name).get_by_role("menu")
        expect(menu).to_be_visible()
        place = menu.bounding_box()
        assert place
        assert abs(min(x, 1280 - place["width"]) - place["x"]) <= 20
        assert place["x"] + place["width"] <= 1280
        page.keyboard.press("Escape")
        expect(menu).to_be_hidden()
    row(page, "Service 01").get_by_role("button", name="Actions").click()
    place = row(page, "Service 01").get_by_role("menu").bounding_box()
    assert place
    assert place["x"] > 900  # at its button again


def test_the_menu_has_what_fits_the_key(shop: Shop, page: Page) -> None:
    for name, status in (("Service 05", "active"), ("Service 06", "revoked")):
        key_id = shop.call("GET", f"/api-keys?q={name}")["data"][0]["id"]
        shop.call("PATCH", f"/api-keys/{key_id}", {"status": status})
    page.reload()
    for name, turn in (("Service 05", "Revoke"), ("Service 06", "Enable")):
        row(page, name).get_by_role("button", name="Actions").click()
        items = row(page, name).get_by_role("menuitem")
        expect(items).to_have_text(["Edit", "Rotate", turn, "View Audit Log", "Delete"])
        page.keyboard.press("Escape")


# --- several rows ---------------------------------------------------------------------------------


def test_the_bar_counts_what_is_selected(page: Page) -> None:
    bar = page.get_by_role("toolbar", name="Selected keys")
    everything = page.get_by_role("checkbox", name="Select all on this page").first
    expect(bar.get_by_role("button", name="Revoke")).to_be_hidden()
    pick(page, "Service 01", "Service 02")
    expect(bar.get_by_text("2 selected")).to_be_visible()
    assert everything.evaluate("(box) => box.indeterminate")
    everything.check()
    expect(bar.get_by_text(f"{SERVICES + 1} selected")).to_be_visible()
    everything.uncheck()
    expect(bar.locator("[data-picked]")).to_be_empty()
    pick(page, "Service 01")
    bar.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("checkbox", name="Select Service 01")).not_to_be_checked()
    expect(bar.get_by_role("button", name="Revoke")).to_be_hidden()


def test_several_keys_are_revoked_together(shop: Shop, page: Page) -> None:
    ids = [shop.new_key(f"Together {n}") for n in "abc"]
    page.reload()
    pick(page, "Together a", "Together c")
    page.get_by_role("toolbar").get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Revoke 2 keys")).to_be_visible()
    expect(dialog.get_by_text("None of them was used in the last 24 hours.")).to_be_visible()
    assert barriers(page) == []
    dialog.get_by_role("button", name="Revoke 2 Keys").click()
    expect(page.get_by_role("status").filter(has_text="2 keys revoked")).to_be_visible()
    expect(row(page, "Together a")).to_contain_text("Revoked")
    expect(row(page, "Together b")).to_contain_text("Active")
    assert [shop.status(one) for one in ids] == ["revoked", "active", "revoked"]


def test_an_extension_is_counted_anew_with_each_choice(shop: Shop, page: Page) -> None:
    ids = [shop.new_key(f"Longer {n}", expires_in=f"{n}mo") for n in (2, 8)]
    page.reload()
    pick(page, "Longer 2", "Longer 8", "Service 10")
    page.get_by_role("toolbar").get_by_role("button", name="Extend").click()
    dialog = page.get_by_role("dialog")
    told = dialog.locator("#told")
    expect(told).to_contain_text("1 works until")
    expect(told).to_contain_text("1 ends then or later already")
    choice = dialog.get_by_label("Expiration")
    choice.focus()
    choice.select_option("1 Year")
    expect(told).to_contain_text("2 work until")
    expect(told).to_contain_text("1 never expires and stays as it is.")
    expect(choice).to_be_focused()
    choice.select_option("On a date")
    dialog.get_by_label("Date").fill("2090-05-01")
    expect(told).to_contain_text("1 May 2090, 23:59 UTC")
    assert barriers(page) == []
    dialog.get_by_role("button", name="Extend Keys").click()
    expect(page.get_by_role("status").filter(has_text="2 keys extended")).to_be_visible()
    for one in ids:
        found = shop.call("GET", f"/api-keys/{one}")
        assert found["expires_at"] == "2090-05-01T23:59:59Z"


def test_what_is_selected_or_listed_is_downloaded(page: Page) -> None:
    pick(page, "Service 01", "Service 02")
    page.get_by_role("toolbar").get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("dialog").get_by_role("button", name="CSV").click()
    with open(download.value.path(), newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)] == ["Service 01", "Service 02"]
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("searchbox").fill("Service 2")
    expect(page.locator("tbody tr")).to_have_count(10)
    page.get_by_role("button", name="Export list").click()
    expect(page.get_by_role("heading", name="Export 10 keys")).to_be_visible()
    assert barriers(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON Lines").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 10


@WITHOUT_SCRIPTS
def test_without_scripts_several_keys_are_revoked_and_downloaded(shop: Shop, page: Page) -> None:
    ids = [shop.new_key(f"Plain {n}") for n in "ab"]
    page.goto(f"{KEYS}?q=Plain&status=active")
    pick(page, "Plain a", "Plain b")
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke 2 Keys").click()
    expect(page.get_by_text("2 keys revoked")).to_be_visible()
    assert [shop.status(one) for one in ids] == ["revoked", "revoked"]
    pick(page, "Plain a")
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert "Plain a" in Path(download.value.path()).read_text()


@WITHOUT_SCRIPTS
def test_without_scripts_a_filter_an_order_and_a_menu_are_pages(page: Page) -> None:
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Last use").select_option("Never used")
    page.get_by_label("Permission", exact=True).fill("tasks:read")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".chips")).to_contain_text("May tasks:read")
    expect(page.locator(".chips")).to_contain_text("never used")
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.locator("tbody tr").first).to_contain_text("Service")
    expect(page.locator(".chips")).to_contain_text("never used")
    row(page, "Service 07").get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Edit").click()
    expect(page.get_by_role("heading", name="Edit Service 07")).to_be_visible()


# --- filters and orders ---------------------------------------------------------------------------


def test_filters_live_in_the_address_without_what_is_empty(page: Page) -> None:
    page.get_by_label("Status", exact=True).select_option("Active")
    expect(page).to_have_url(re.compile(r"/keys\?status=active&sort=name$"))
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Last use").select_option("Never used")
    expect(page).to_have_url(re.compile(r"/keys\?status=active&unused=always&sort=name$"))
    expect(page.get_by_label("Last use")).to_be_visible()
    page.get_by_label("Permission", exact=True).fill("tasks:write")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    assert barriers(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Without “may tasks:write”").click()
    expect(page.get_by_label("Status", exact=True)).to_have_value("active")
    expect(page.get_by_role("link", name="Service 09")).to_be_visible()
    page.get_by_role("link", name="Remove the filter Active").click()
    expect(page.get_by_label("Status", exact=True)).to_have_value("")
    page.get_by_role("link", name="Clear filters").click()
    expect(page).to_have_url(re.compile(r"/keys\?sort=name$"))


def test_a_filter_at_fault_is_named_where_one_types(page: Page) -> None:
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Permission", exact=True).fill("tasks")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(
        "Permission must look like tasks:read, tasks:* or *."
    )


def test_pages_and_orders_can_be_gone_back_to(page: Page) -> None:
    page.get_by_label("Rows").select_option("25")
    expect(page.locator("tbody tr")).to_have_count(25)
    expect(page).to_have_url(re.compile("limit=25"))
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute(
        "aria-sort", "descending"
    )
    expect(page.get_by_role("columnheader", name="Name").get_by_role("link")).to_be_focused()
    expect(page).to_have_url(re.compile("sort=-name&limit=25"))
    first = page.locator("tbody th").first.inner_text()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("tbody th").first).not_to_have_text(first)
    expect(page).to_have_url(re.compile("cursor="))
    page.go_back()
    expect(page.locator("tbody th").first).to_have_text(first)
    page.go_back()
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute(
        "aria-sort", "ascending"
    )


def test_the_filters_keep_the_order_that_a_header_chose(page: Page) -> None:
    page.get_by_role("columnheader", name="Expires").get_by_role("link").click()
    expect(page.get_by_role("columnheader", name="Expires")).to_have_attribute(
        "aria-sort", "ascending"
    )
    page.get_by_role("searchbox").fill("Service 0")
    expect(page.locator("tbody tr")).to_have_count(10)
    expect(page).to_have_url(re.compile(r"/keys\?q=Service\+0&sort=expires_at$"))


def test_typing_a_search_leaves_an_open_menu_alone(page: Page) -> None:
    page.get_by_role("searchbox").fill("Service 08")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_request(lambda one: "revoke" in one.url):
        row(page, "Service 08").get_by_role("button", name="Actions").click()
        page.get_by_role("menuitem", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_menu_stays_open_when_the_table_behind_it_is_fetched_anew(page: Page) -> None:
    """As it is a moment after a change, when somebody is quick to open the next menu."""
    opened = row(page, "Service 03")
    opened.get_by_role("button", name="Actions").click()
    expect(opened.get_by_role("menu")).to_be_visible()
    with page.expect_response(lambda one: "/keys" in one.url):
        page.evaluate("htmx.trigger(document.body, 'keys-changed', {id: null})")
    expect(opened.get_by_role("menu")).to_be_visible()
    expect(opened.get_by_role("menuitem", name="Edit")).to_be_focused()
    page.keyboard.press("Escape")
    expect(opened.get_by_role("menu")).to_be_hidden()


# --- a telephone ----------------------------------------------------------------------------------


@TELEPHONE
def test_on_a_telephone_keys_are_selected_ordered_and_opened(page: Page) -> None:
    assert not too_wide(page)
    pick(page, "Service 01")
    bar = page.get_by_role("toolbar", name="Selected keys")
    expect(bar.get_by_text("1 selected")).to_be_visible()
    bar.get_by_role("checkbox", name="Select all on this page").check()
    expect(bar.get_by_text(re.compile(r"\d\d selected"))).to_be_visible()
    assert not too_wide(page)
    assert barriers(page) == []
    bar.get_by_role("button", name="Clear").click()
    page.get_by_label("Order").select_option("By name, backwards")
    expect(page).to_have_url(re.compile("sort=-name"))
    page.get_by_role("button", name="More filters").click()
    expect(page.get_by_label("Last use")).to_be_visible()
    assert not too_wide(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Actions").first.click()
    expect(page.get_by_role("menuitem", name="Delete")).to_be_visible()
    assert not too_wide(page)
    page.get_by_role("menuitem", name="Edit").click()
    expect(page.get_by_role("dialog")).to_be_visible()
