"""The audit log in a browser: it follows by itself and disturbs nobody, filters, and leads back;
with scripts and without."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

POLL_MS = 2_000
SAID_EVERY_MS = 10_000
LOG = "/projects/shop/audit-log"


class Shop:
    """A server with one key that may be used from two networks, and the requests made with it."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        made = server.run(
            "create-key", "--project", "shop", "--name", "Checkout", "--permission", "keys:manage",
            "--json",
        )  # fmt: skip
        made.check_returncode()
        self.key = json.loads(made.stdout)
        edited = requests.patch(
            f"{server.url}/api/v1/api-keys/{self.key['id']}",
            json={"ip_allowlist": ["192.0.2.0/24"]},
            headers=bearer(self.key["key"]),
            timeout=10,
        )
        assert edited.status_code == 200

    @property
    def key_path(self) -> str:
        return f"/projects/shop/keys/{self.key['id']}"

    def ask(self, times: int = 1, *, ip: str = "192.0.2.1", path: str = "whoami") -> None:
        headers = bearer(self.key["key"]) | {"X-Forwarded-For": ip}
        for _ in range(times):
            call(self.server.port, f"/api/v1/{path}", headers=headers)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory: Path = tmp_path_factory.mktemp("shop")
    with RunningServer(directory / "data") as server:
        yield Shop(server)


@pytest.fixture
def context(browser: Browser, shop: Shop) -> Iterator[BrowserContext]:
    context = browser.new_context(
        base_url=shop.server.url, viewport={"width": 1280, "height": 800}, accept_downloads=True
    )
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The owner's page, whose clock a test may move ahead: polls come sooner."""
    page = context.new_page()
    sign_in(page)
    page.clock.install()
    return page


def rows(page: Page) -> int:
    return page.get_by_role("table", name="Requests").locator("tbody tr").count()


def go_live(page: Page, path: str = LOG) -> None:
    page.goto(path)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def let_pass(page: Page, milliseconds: int = POLL_MS) -> None:
    """The time passes; by then what was asked before is stored, for who looks at the log waits."""
    page.request.get(LOG)
    page.clock.run_for(milliseconds)


def stays(page: Page, count: int) -> None:
    """Polls that should not be made get the time to be made."""
    for _ in range(3):
        let_pass(page)
        page.wait_for_load_state("networkidle")
    assert rows(page) == count


# --- live -------------------------------------------------------------------------------------


def test_new_entries_come_by_themselves_and_move_no_focus(page: Page, shop: Shop) -> None:
    shop.ask()
    go_live(page)
    expect(page).to_have_url(re.compile(r"[?&]live=1"))
    button = page.get_by_role("button", name="Pause")
    expect(button).to_be_focused()
    before = rows(page)
    shop.ask(3)
    with page.expect_response(re.compile("after=")):
        let_pass(page)
    expect(page.locator("tr.changed")).to_have_count(3)
    assert rows(page) == before + 3
    expect(page.get_by_text("3 new entries")).to_be_visible()
    expect(button).to_be_focused()
    shop.ask()
    with page.expect_response(re.compile("after=")):
        let_pass(page)
    expect(page.locator("tr.changed")).to_have_count(1)
    expect(page.get_by_text("3 new entries")).to_be_visible()  # it is not said at each poll
    let_pass(page, SAID_EVERY_MS)
    expect(page.get_by_text("1 new entry")).to_be_visible()
    assert barriers(page) == []
    button.click()
    expect(page.get_by_role("button", name="Live")).to_be_focused()
    assert "live" not in page.url
    shop.ask()
    stays(page, rows(page))


def test_live_is_in_the_address_and_outlives_a_filter(page: Page, shop: Shop) -> None:
    shop.ask()
    page.goto(f"{LOG}?live=1")
    page.get_by_label("Method").select_option("GET")
    expect(page).to_have_url(re.compile("method=GET&live=1"))
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    before = rows(page)
    shop.ask(ip="203.0.113.9")
    with page.expect_response(re.compile("method=GET&after=")):
        let_pass(page)
    expect(page.locator("tbody tr").first).to_contain_text("Address not allowed")
    assert rows(page) == before + 1


def test_nothing_moves_while_somebody_reads_or_chooses(page: Page, shop: Shop) -> None:
    shop.ask()
    go_live(page)
    before = rows(page)
    page.get_by_role("table", name="Requests").get_by_role("link").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    shop.ask()
    stays(page, before)
    page.keyboard.press("Escape")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('tbody tr'))")
    stays(page, before)
    page.evaluate("getSelection().removeAllRanges()")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    stays(page, before)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false})")
    let_pass(page)
    expect(page.locator("tr.changed")).to_have_count(1)


def test_live_ends_with_the_session_and_says_so(
    page: Page, context: BrowserContext, shop: Shop
) -> None:
    shop.ask()
    go_live(page)
    other_tab = context.new_page()
    other_tab.goto(LOG)
    other_tab.get_by_role("button", name="Sign out").click()
    other_tab.wait_for_url(re.compile("/login"))
    let_pass(page)
    expect(page.get_by_text("Live is off: you are signed out")).to_be_visible()
    expect(page.get_by_role("button", name="Live")).to_be_focused()


def test_live_backs_off_and_ends_when_the_server_is_gone(page: Page, shop: Shop) -> None:
    shop.ask()
    go_live(page)
    tries: list[str] = []
    page.on("requestfailed", lambda request: tries.append(request.url))
    page.context.set_offline(True)
    for pause in (2, 4, 8, 16):
        with page.expect_event("requestfailed", timeout=30_000):
            let_pass(page, pause * 1_000)
    expect(page.get_by_text("Live is off: the server cannot be reached.")).to_be_visible()
    assert len(tries) == 4
    page.context.set_offline(False)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    shop.ask()
    let_pass(page)
    expect(page.locator("tr.changed")).to_have_count(1)


def test_the_table_keeps_two_hundred_rows_and_the_next_page_goes_on_below_them(
    page: Page, shop: Shop
) -> None:
    shop.ask(30)
    go_live(page)
    for _ in range(3):
        shop.ask(70)
        with page.expect_response(re.compile("after=")):
            let_pass(page)
        expect(page.locator("tr.changed")).to_have_count(70)
    assert rows(page) == 200
    links = page.locator("tbody tr td:first-child a")
    last = int(re.findall(r"audit-log/(\d+)", links.last.get_attribute("href") or "")[0])
    page.get_by_role("button", name="Next").click()
    expect(page).to_have_url(re.compile("cursor="))
    first = int(re.findall(r"audit-log/(\d+)", links.first.get_attribute("href") or "")[0])
    assert first == last - 1
    expect(page.get_by_role("button", name="Live")).to_have_count(0)


def test_an_empty_log_fills(page: Page, shop: Shop) -> None:
    made = shop.server.run("create-key", "--project", "shop", "--name", "New", "--json")
    key = json.loads(made.stdout)
    go_live(page, f"/projects/shop/keys/{key['id']}/audit-log")
    expect(page.get_by_role("heading", name="No requests yet")).to_be_visible()
    call(shop.server.port, "/api/v1/whoami", headers=bearer(key["key"]))
    let_pass(page)
    expect(page.get_by_role("table", name="Requests")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


# --- one request ------------------------------------------------------------------------------


def test_a_request_is_opened_from_the_keyboard_and_escape_leads_back(
    page: Page, shop: Shop
) -> None:
    shop.ask(ip="203.0.113.7")
    page.goto(LOG)
    link = page.get_by_role("table", name="Requests").get_by_role("link").first
    link.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("add 203.0.113.7 to the allowlist of Checkout")).to_be_visible()
    expect(dialog.get_by_role("button", name="Copy the request id")).to_be_visible()
    assert dialog.locator("[data-here]").inner_text() != ""
    assert barriers(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(link).to_be_focused()


def test_from_the_keys_dialog_a_request_leads_back_to_the_same_filters(
    page: Page, shop: Shop
) -> None:
    shop.ask(2)
    shop.ask(ip="203.0.113.7")
    page.goto(shop.key_path)
    page.get_by_role("link", name="View Audit Log").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Status").select_option("Refused")
    expect(dialog.get_by_role("list", name="Filters in use")).to_contain_text("Refused")
    assert "status" not in page.url
    dialog.locator("tbody tr").first.get_by_role("link").first.click()
    dialog.get_by_role("link", name="Back to the log").click()
    expect(dialog.get_by_label("Status")).to_have_value("denied")
    expect(dialog.locator("tbody tr").first).to_contain_text("Address not allowed")
    dialog.get_by_role("link", name="Remove the filter Refused").click()
    expect(dialog.get_by_label("Status")).to_have_value("")
    expect(dialog.get_by_role("list", name="Filters in use")).to_have_count(0)
    assert page.url.endswith(shop.key_path)


# --- filters ----------------------------------------------------------------------------------


def test_filters_work_with_scripts_and_without(watched: Watched, shop: Shop) -> None:
    shop.ask(2)
    shop.ask(ip="203.0.113.7", path="api-keys")
    page = watched.page
    page.goto(f"{shop.server.url}/login")
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{shop.server.url}{LOG}")
    page.get_by_label("Status").select_option("Refused")
    page.get_by_label("Key", exact=True).fill("checkout")
    page.get_by_label("IP Address").fill("203.0.113.7")
    page.get_by_label("Path").fill("/api/v1/api-")
    page.get_by_label("Time").select_option("Last hour")
    page.get_by_role("button", name="Refresh").click()
    chips = page.get_by_role("list", name="Filters in use")
    expect(chips).to_contain_text("from 203.0.113.7")
    for words in ("Refused", "with the key checkout", "to /api/v1/api-…", "in the last hour"):
        expect(chips).to_contain_text(words)
    assert rows(page) >= 1
    expect(page.locator("tbody tr").first).to_contain_text("/api/v1/api-keys")
    page.get_by_role("link", name="Remove the filter from 203.0.113.7").click()
    expect(page.get_by_label("IP Address")).to_have_value("")
    expect(page.get_by_label("Status")).to_have_value("denied")
    expect(page).to_have_url(re.compile(r"audit-log\?.*status=denied"))
    page.get_by_label("IP Address").fill("zzz")
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_text("Must be an IPv4 or IPv6 address.")).to_be_visible()
    expect(page.get_by_label("IP Address")).to_have_value("zzz")
    expect(page.get_by_label("Status")).to_have_value("denied")
    page.get_by_label("IP Address").fill("203.0.113.7")
    page.get_by_role("button", name="Refresh").click()
    expect(chips).to_contain_text("from 203.0.113.7")
    assert "live" not in page.url
    assert [line for line in watched.complaints if "status of 422" not in line] == []


def test_from_and_to_show_where_they_are_chosen(page: Page, shop: Shop) -> None:
    page.goto(LOG)
    expect(page.get_by_label("From (UTC)")).to_be_hidden()
    page.get_by_label("Time").select_option("Between…")
    page.get_by_label("From (UTC)").fill("2020-01-01T10:30")
    page.get_by_label("From (UTC)").blur()
    expect(page.get_by_text("since 1 Jan 2020, 10:30:00 UTC")).to_be_visible()


def test_a_file_holds_what_is_filtered(page: Page, shop: Shop) -> None:
    shop.ask()
    shop.ask(ip="203.0.113.7")
    page.goto(f"{LOG}?code=IP_NOT_ALLOWED")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"audit-log-shop-\d{4}-\d\d-\d\d\.csv", download.value.suggested_filename)
    lines = download.value.path().read_text().splitlines()
    assert len(lines) > 1 and all("IP_NOT_ALLOWED" in line for line in lines[1:])


def test_back_returns_to_the_page_before(page: Page, shop: Shop) -> None:
    shop.ask(30)
    page.goto(LOG)
    first = page.locator("tbody tr").first.inner_text()
    page.get_by_role("button", name="Next").click()
    expect(page).to_have_url(re.compile("cursor="))
    page.get_by_role("button", name="Next").wait_for()
    page.go_back()
    expect(page).not_to_have_url(re.compile("cursor="))
    expect(page.locator("tbody tr").first).to_have_text(re.compile(re.escape(first[:8])))


@pytest.mark.parametrize("path", [LOG, "/projects/shop/activity", "audit-log"])
def test_on_a_telephone_the_filters_open_over_the_list(page: Page, shop: Shop, path: str) -> None:
    shop.ask()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(path if path.startswith("/") else f"{shop.key_path}/{path}")
    assert not too_wide(page)
    time = page.get_by_label("Time")
    expect(time).to_be_hidden()
    page.get_by_role("button", name="Filters").click()
    expect(time).to_be_visible()
    assert barriers(page) == []
    time.select_option("Last hour")
    expect(page).to_have_url(re.compile("last=1h"))
    page.keyboard.press("Escape")
    expect(time).to_be_hidden()
    assert not too_wide(page)


def test_the_activity_is_filtered_in_place(page: Page, shop: Shop) -> None:
    page.goto("/projects/shop/activity")
    events = page.get_by_role("region", name="Events")
    page.get_by_label("Action").select_option("project.*")
    expect(page).to_have_url(re.compile(r"action=project\.\*"))
    expect(events.get_by_text("created the key")).to_have_count(0)
    expect(events.get_by_text("created the project")).to_be_visible()
    page.get_by_label("Who").fill("nobody")
    page.get_by_label("Who").blur()
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    assert barriers(page) == []
