"""A project's settings in a browser: saved part by part, with scripts and without; archived and
restored by typing its name."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watched, barriers, sign_in, too_wide
from tests.server import RunningServer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(installed: RunningServer) -> RunningServer:
    """Two projects: one for the test with scripts, one for that without."""
    installed.run("create-project", "--slug", "store", "--name", "Store").check_returncode()
    return installed


def has_scripts(page: Page) -> bool:
    return bool(page.locator("html.js").count())


def assert_good(page: Page) -> None:
    """At both widths nothing is too wide; and nothing keeps anybody out, which axe-core can tell
    only where scripts run."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert not too_wide(page), width
        assert not has_scripts(page) or barriers(page) == [], width


def test_settings_are_saved_part_by_part_and_a_project_is_archived(
    watched: Watched, server: RunningServer
) -> None:
    page = watched.page
    sign_in(page, server.url)
    slug = "shop" if has_scripts(page) else "store"
    page.goto(f"{server.url}/projects/{slug}/settings")

    page.get_by_label("Prefix").fill("vsp_sk")
    page.get_by_label("Environment", exact=True).select_option("no")
    if has_scripts(page):
        expect(page.locator("#example li")).to_have_text([re.compile("^vsp_sk_")])
        page.get_by_label("Address of the team").fill("typed@example.com")
    plans = page.get_by_role("region", name="Plans")
    plans.get_by_label("Name").first.fill("free")
    plans.get_by_label("Requests a minute").first.fill("5")
    plans.get_by_label("Requests a minute").first.press("Enter")
    expect(plans.get_by_role("alert")).to_have_text("Nothing was saved: see above")
    expect(plans.get_by_label("Name").first).to_have_attribute("aria-invalid", "true")
    if has_scripts(page):  # what was typed into the others is still there
        expect(page.get_by_label("Address of the team")).to_have_value("typed@example.com")
        expect(page.get_by_label("Prefix")).to_have_value("vsp_sk")
    assert_good(page)

    plans.get_by_label("Name").first.fill("partner")
    plans.get_by_role("button", name="More rows").click()
    expect(plans.get_by_label("Name")).to_have_count(4)
    plans.get_by_role("button", name="Remove this empty row").first.click()
    expect(plans.get_by_label("Name")).to_have_count(3)
    plans.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    expect(plans.get_by_text("No key on it")).to_be_visible()

    page.get_by_role("link", name="Archive project").click()
    expect(page.get_by_label("Type the project's name to confirm")).to_be_visible()
    assert_good(page)
    page.get_by_label("Type the project's name to confirm").fill(slug.title())
    page.get_by_role("button", name="Archive Project").click()
    expect(page.get_by_text("This project is archived")).to_be_visible()
    assert_good(page)
    page.goto(f"{server.url}/projects")
    expect(page.get_by_role("table", name="Archived")).to_contain_text(slug.title())
    assert_good(page)
    page.get_by_role("table", name="Archived").get_by_role("link", name=slug.title()).click()
    page.get_by_role("link", name="Restore project").click()
    page.get_by_role("button", name="Restore Project").click()
    expect(page.get_by_role("link", name="Archive project")).to_be_visible()
    assert [line for line in watched.complaints if "status of 422" not in line] == []
