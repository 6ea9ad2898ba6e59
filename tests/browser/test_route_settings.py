"""The rules of routes in a browser: typed, tried, moved and saved by keyboard, with scripts and
without; and read again in the activity log."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PASSWORD, Watched, sign_in
from tests.browser.test_settings import assert_good, has_scripts
from tests.server import RunningServer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A project for each test and each way to browse."""
    with RunningServer(tmp_path_factory.mktemp("routes") / "data") as running:
        running.run(
            "create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD
        )
        for slug in ("shop", "store", "shop-two", "store-two"):
            running.run("create-project", "--slug", slug, "--name", slug.title())
        yield running


def routes(page: Page) -> Locator:
    return page.get_by_role("region", name="Routes", exact=True)


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def order(page: Page) -> list[str]:
    fields = routes(page).locator("[name='route_rules.path']")
    return [field.input_value() for field in fields.all()]


def test_a_rule_is_typed_tried_moved_and_saved_by_keyboard(
    watched: Watched, server: RunningServer
) -> None:
    page = watched.page
    sign_in(page, server.url)
    slug = "shop" if has_scripts(page) else "store"
    page.goto(f"{server.url}/projects/{slug}/settings")
    press, write = page.keyboard.press, page.keyboard.type

    routes(page).get_by_label("Methods").first.focus()
    for text in ("", "/**", ""):
        write(text)
        press("Tab")
    press("Tab")  # past the two buttons of the first row
    press("Tab")
    for text in ("get", "/tasks/**", "tasks:read"):
        write(text)
        press("Tab")
    routes(page).locator("#path").focus()
    write("/tasks/1?all=1")
    press("Enter")
    result = routes(page).get_by_role("status")
    expect(result).to_contain_text("Any key of the project. One rule decides:")
    expect(result).to_contain_text("Rule 1 Every method /** → any key")
    assert focused(page) == "path"
    assert_good(page)

    up = routes(page).get_by_role("button", name="Move get /tasks/** up")
    up.focus()
    press("Enter")
    expect(routes(page).locator("[name='route_rules.path']").first).to_have_value("/tasks/**")
    assert order(page) == ["/tasks/**", "/**"]
    assert focused(page) == "up-route_rules-0"
    expect(up).to_have_attribute("aria-disabled", "true")
    press("Enter")  # it is the first already
    expect(routes(page).get_by_role("status")).to_have_count(0)
    assert order(page) == ["/tasks/**", "/**"]

    routes(page).get_by_role("button", name="Try").focus()
    press("Enter")
    expect(routes(page).get_by_role("status")).to_contain_text("Needs tasks:read.")
    assert focused(page) == "try-routes"

    routes(page).get_by_label("What no rule covers").select_option("deny")
    routes(page).get_by_role("button", name="Save").focus()
    press("Enter")
    expect(page.locator("#notice")).to_contain_text("Saved")
    expect(routes(page).get_by_label("Methods").first).to_have_value("GET")
    routes(page).get_by_role("link", name="activity log").click()
    page.get_by_text("Details").click()
    after = page.locator(".event-details .rules li")
    expect(after).to_have_text(["GET /tasks/** → tasks:read", "Every method /** → any key"])
    expect(page.locator(".event-details")).to_contain_text("is refused")
    assert_good(page)
    assert watched.complaints == []


def test_mistakes_stand_beside_their_rows_and_an_earlier_version_comes_back(
    watched: Watched, server: RunningServer
) -> None:
    page = watched.page
    sign_in(page, server.url)
    slug = "shop-two" if has_scripts(page) else "store-two"
    page.goto(f"{server.url}/projects/{slug}/settings")
    paths = routes(page).locator("[name='route_rules.path']")
    save = routes(page).get_by_role("button", name="Save")
    page.set_viewport_size({"width": 390, "height": 800})

    paths.nth(1).fill("tasks")
    save.click()
    expect(routes(page).get_by_role("alert")).to_have_text("Nothing was saved: see above")
    expect(paths.nth(1)).to_have_attribute("aria-invalid", "true")
    expect(paths.nth(0)).not_to_have_attribute("aria-invalid", "true")
    assert_good(page)
    for path in ("/tasks", "/other"):
        page.set_viewport_size({"width": 390, "height": 800})
        last = paths.nth(1) if path == "/tasks" else paths.nth(0)
        last.fill(path)
        save.click()
        expect(page.locator("#notice")).to_contain_text("Saved")
        expect(paths.first).to_have_value(path)
        page.reload()

    routes(page).get_by_text("Versions").click()
    assert_good(page)
    routes(page).get_by_role("button", name="Use these").nth(1).click()
    expect(paths.first).to_have_value("/tasks")
    expect(routes(page).get_by_role("status")).to_contain_text("They hold once they are saved.")
    assert focused(page) == "save-routes"
    assert_good(page)
    page.reload() if has_scripts(page) else page.goto(f"{server.url}/projects/{slug}/settings")
    expect(paths.first).to_have_value("/other")
    routes(page).get_by_text("Versions").click()
    routes(page).get_by_role("button", name="Use these").nth(1).click()
    expect(paths.first).to_have_value("/tasks")
    save.click()
    expect(page.locator("#notice")).to_contain_text("Saved")
    expect(paths.first).to_have_value("/tasks")
    routes(page).get_by_text("Versions").click()
    expect(routes(page).get_by_role("button", name="Use these")).to_have_count(4)
    assert [line for line in watched.complaints if "status of 422" not in line] == []
