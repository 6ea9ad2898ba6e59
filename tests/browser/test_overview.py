"""The overview in a browser: periods in place, rows that lead on, columns where there is room."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

BLOCKS = ("Expiring soon", "Never used", "Failing", "Top keys")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A project with a key that is busy and about to end, and a revoked one that is still used."""
    with RunningServer(tmp_path_factory.mktemp("overview") / "data") as running:
        running.run(
            "create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD
        )
        running.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        running.run("create-project", "--slug", "other", "--name", "Other").check_returncode()

        def make(name: str, expires_in: str) -> dict[str, str]:
            made = running.run(
                "create-key", "--project", "shop", "--name", name, "--expires-in", expires_in,
                "--json",
            )  # fmt: skip
            return dict(json.loads(made.stdout))

        busy, revoked = make("Checkout, production, Rotterdam", "5d"), make("Old importer", "1y")
        running.run("revoke-key", revoked["id"]).check_returncode()
        for key in (busy, busy, revoked):
            call(running.port, "/api/v1/whoami", headers=bearer(key["key"]))
        yield running


@pytest.fixture
def console(watched: Watched, server: RunningServer) -> Watched:
    sign_in_at(watched.page, server)
    return watched


def sign_in_at(page: Page, server: RunningServer) -> None:
    sign_in(page, server.url)
    page.goto(f"{server.url}/projects/shop")


def test_another_period_is_chosen_and_stays_in_the_address(console: Watched) -> None:
    page = console.page
    expect(page.get_by_role("group", name="Requests: 2 allowed, 1 refused")).to_be_visible()
    page.get_by_role("link", name="30 days").click()
    expect(page).to_have_url(re.compile(r"\?period=30d$"))
    expect(page.get_by_role("link", name="30 days")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("heading", name="Requests", exact=True)).to_have_count(1)
    expect(page.locator(".chart g")).to_have_count(30)
    page.reload()
    expect(page.locator(".chart g")).to_have_count(30)
    assert console.complaints == []


def test_rows_and_headings_lead_on(console: Watched) -> None:
    page = console.page
    for name in BLOCKS:
        page.get_by_role("heading", name=name).get_by_role("link").click()
        expect(page.locator("h1")).to_have_text("Audit log" if name == "Failing" else "Keys")
        page.go_back()
    page.get_by_role("region", name="Failing").get_by_role("link", name="1 refused").click()
    expect(page.get_by_role("heading", name="Audit log of Old importer")).to_be_visible()
    page.go_back()
    page.get_by_role("region", name="Top keys").get_by_role("link", name="Checkout").click()
    expect(page.get_by_role("heading", name="Checkout, production")).to_be_visible()
    assert console.complaints == []


def test_the_table_of_projects_leads_to_their_keys(console: Watched, server: RunningServer) -> None:
    page = console.page
    page.goto(server.url)
    row = page.get_by_role("row").filter(has_text="Shop")
    assert row.get_by_role("cell").all_inner_texts()[1:] == ["1", "3", "1"]
    row.get_by_role("link", name="Shop").click()
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_columns_where_there_is_room_and_one_elsewhere(
    browser: Browser, server: RunningServer, theme: str
) -> None:
    context = browser.new_context(color_scheme=theme)
    page = context.new_page()
    sign_in_at(page, server)
    for width, is_one_column in ((1920, False), (1100, False), (1099, True), (390, True)):
        page.set_viewport_size({"width": width, "height": 800})
        boxes = [page.get_by_role("region", name=name).bounding_box() for name in BLOCKS]
        assert all(boxes)
        lefts = [box["x"] for box in boxes if box]
        assert lefts[0] == lefts[1] and lefts[2] == lefts[3]
        assert (lefts[0] == lefts[2]) == is_one_column
        assert not too_wide(page)
    assert barriers(page) == []
    context.close()
