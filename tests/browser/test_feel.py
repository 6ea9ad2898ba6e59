"""How the console feels: light to load, still while it changes, at home on the keyboard. Back and
Forward bring back nothing of a dialog or a secret."""

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Error, Page, StorageState, expect

from tests.browser.conftest import PASSWORD, profile, sign_in
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser

KEYS = "/projects/shop/keys"
ROWS = 60
SECRET = re.compile(r"lk_live_[0-9A-Za-z]{36}")
FIRST_LOAD_MAX = 120_000
HTML_MAX = 80_000
WATCH_SHIFTS = """
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) window.shifted += one.value;
    }).observe({ type: "layout-shift", buffered: true });
"""
TRANSFERRED = """
    [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .map((one) => [one.name, one.transferSize])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A project with more keys than a page shows."""
    directory = tmp_path_factory.mktemp("feel") / "data"
    with RunningServer(directory, LATCHKEY_KEY_LIMIT="1000") as server:
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        made = server.run(
            "create-key", "--project", "shop", "--name", "Manager", "--permission", "keys:manage"
        )
        for number in range(ROWS):
            answer = requests.post(
                f"{server.url}/api/v1/api-keys",
                json={"name": f"Service {number:02}, production", "permissions": ["tasks:read"]},
                headers=bearer(made.stdout.strip()),
                timeout=10,
            )
            assert answer.status_code == 201, answer.text
        yield server


@pytest.fixture(scope="module")
def signed_in(browser: Browser, server: RunningServer) -> StorageState:
    return profile(browser, server.url)


@pytest.fixture
def context(
    browser: Browser, server: RunningServer, signed_in: StorageState, request: pytest.FixtureRequest
) -> Iterator[BrowserContext]:
    with_scripts = getattr(request, "param", True)
    context = browser.new_context(
        base_url=server.url, storage_state=signed_in, java_script_enabled=with_scripts,
        viewport={"width": 1280, "height": 800},
    )  # fmt: skip
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto(KEYS)
    return page


# --- weight -----------------------------------------------------------------------------------


def test_the_first_load_of_fifty_rows_is_light(page: Page) -> None:
    html = page.context.request.get(KEYS).body()
    expect(page.locator("tbody tr")).to_have_count(50)
    assert len(html) <= HTML_MAX
    page.wait_for_load_state("networkidle")
    sizes = dict(page.evaluate(TRANSFERRED))
    assert all(sizes.values()), sizes  # nothing came out of a cache
    assert len(sizes) >= 4
    assert sum(sizes.values()) <= FIRST_LOAD_MAX, sizes


def test_what_a_page_is_dressed_in_is_loaded_once(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    page.goto("/projects/shop/activity")
    page.wait_for_load_state("networkidle")
    sizes = dict(page.evaluate(TRANSFERRED))
    dressing = {name: size for name, size in sizes.items() if re.search(r"\.(css|js)\?", name)}
    assert len(dressing) == 3
    assert not any(dressing.values())


# --- stillness --------------------------------------------------------------------------------


def test_nothing_jumps_when_the_table_is_exchanged(page: Page) -> None:
    page.evaluate(WATCH_SHIFTS)
    page.get_by_role("searchbox").press_sequentially("Service 1")
    expect(page.locator("tbody tr")).to_have_count(10)
    page.get_by_role("searchbox").fill("")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.locator("tbody tr").first).to_contain_text("Manager")
    assert page.evaluate("window.shifted") == 0


# --- keys -------------------------------------------------------------------------------------


def test_slash_searches_and_n_creates_and_escape_brings_back(page: Page) -> None:
    page.keyboard.press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    page.keyboard.type("n/")
    expect(search).to_have_value("n/")
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("n")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("n/")
    expect(dialog.get_by_label("Name", exact=True)).to_have_value("n/")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Create API Key")).to_be_focused()


def test_the_next_page_is_read_from_its_top(page: Page) -> None:
    next_page = page.get_by_role("button", name="Next")
    next_page.focus()
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(ROWS + 1 - 50)
    expect(next_page).to_be_disabled()
    expect(page.locator("#keys")).to_be_focused()
    expect(page.locator("thead")).to_be_in_viewport()


def test_what_a_search_found_is_said_and_what_was_selected_stays(page: Page) -> None:
    page.get_by_role("checkbox", name="Select Service 21, production").check()
    page.get_by_role("searchbox").fill("Service 2")
    expect(page.locator("[data-found]")).to_have_text("10 keys")
    expect(page.get_by_role("checkbox", name="Select Service 21, production")).to_be_checked()
    expect(page.get_by_text("1 selected")).to_be_visible()


def test_a_typed_form_outlives_its_session(page: Page, server: RunningServer) -> None:
    page.get_by_role("button", name="Create API Key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("Typed with care")
    page.context.clear_cookies()
    dialog.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("Sign in in another tab")).to_be_visible()
    other = page.context.new_page()
    sign_in(other)
    dialog.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("Press the button again.")).to_be_visible()
    dialog.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("This is the only time")).to_be_visible()


def test_the_row_that_changed_has_the_focus_again(page: Page) -> None:
    page.get_by_role("searchbox").fill("Service 07")
    expect(page.locator("tbody tr")).to_have_count(1)
    actions = page.get_by_role("button", name="Actions for Service 07")
    actions.focus()
    page.keyboard.press("Enter")
    page.get_by_role("menuitem", name="Revoke").press("Enter")
    page.get_by_role("button", name="Revoke Key").press("Enter")
    expect(page.get_by_role("status").filter(has_text="revoked")).to_be_visible()
    expect(actions).to_be_focused()
    expect(page.locator("tr.changed")).to_contain_text("Revoked")


def test_undo_takes_back_a_revocation(page: Page) -> None:
    page.get_by_role("searchbox").fill("Service 08")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Actions for Service 08").click()
    page.get_by_role("menuitem", name="Revoke").click()
    page.get_by_role("button", name="Revoke Key").click()
    row = page.locator("tbody tr").filter(has_text="Service 08")
    expect(row).to_contain_text("Revoked")
    page.get_by_role("button", name="Undo").click()
    expect(row).to_contain_text("Active")
    expect(page.get_by_role("status").filter(has_text="enabled")).to_be_visible()


def test_an_exact_time_is_told_in_both_zones(page: Page) -> None:
    page.goto("/projects/shop/activity")
    time = page.locator("main time").first
    time.hover()
    expect(time).to_have_attribute("title", re.compile("UTC\n.*20"))


# --- back and forward -------------------------------------------------------------------------


@pytest.mark.parametrize("context", [True, False], indirect=True, ids=["scripts on", "scripts off"])
def test_back_and_forward_show_no_secret_no_fragment_and_no_stale_dialog(page: Page) -> None:
    page.get_by_role("button", name="Create API Key").click()
    page.get_by_label("Name", exact=True).last.fill("Passing by")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    (secret,) = set(SECRET.findall(page.content() + str(page.locator("#secret").input_value())))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/projects/shop/activity")
    for move in (page.go_back, page.go_back, page.go_forward, page.go_forward):
        try:
            move()
        except Error as error:
            # Without scripts the secret's page answered a form: the browser does not show it again.
            assert "ERR_CACHE_MISS" in error.message
            return
        page.wait_for_load_state("load")
        assert secret not in page.content()
        assert page.locator("input, textarea").evaluate_all(
            "(all, secret) => all.every((one) => one.value !== secret)", secret
        )
        expect(page.locator("dialog[open]")).to_have_count(0)


def test_back_shows_whole_pages_after_the_table_was_exchanged(page: Page) -> None:
    page.get_by_role("searchbox").fill("Service 11")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr a").first.click()
    expect(page.get_by_role("heading", name="Service 11")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.go_forward()
    expect(page.get_by_role("heading", name="Service 11")).to_be_visible()
