"""Alerts in a browser: the bell, and what is made of an alert, with scripts and without."""

import time
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser.conftest import PASSWORD, Watched, sign_in
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser

WAIT_SECONDS = 30
NAMES = ("Mirror", "Export", "Scanner")


@pytest.fixture
def three(installed: RunningServer, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Three keys that are refused where they are used, until it is noticed; their names."""
    given = {"email": "ada@example.com", "password": PASSWORD}
    url = f"{installed.url}/api/v1"
    token = requests.post(f"{url}/auth/token", json=given, timeout=10).json()["access_token"]
    rules = {"alerts": {"refusals_per_hour": 3}}
    requests.patch(f"{url}/projects/shop", json=rules, headers=bearer(token), timeout=10)
    names = [f"{name} {request.node.callspec.id}" for name in NAMES]
    for name in names:
        fields = {"name": name, "ip_allowlist": ["10.0.0.1"]}
        made = requests.post(f"{url}/api-keys", json=fields, headers=bearer(token), timeout=10)
        for _ in range(3):
            requests.get(f"{url}/whoami", headers=bearer(made.json()["key"]), timeout=10)
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        found = requests.get(f"{url}/alerts", headers=bearer(token), timeout=10).json()["data"]
        if {one["key"]["name"] for one in found} >= set(names):
            break
        time.sleep(0.1)
    yield names
    for one in requests.get(f"{url}/alerts", headers=bearer(token), timeout=10).json()["data"]:
        requests.patch(
            f"{url}/alerts/{one['id']}", json={"state": "acknowledged"}, headers=bearer(token),
            timeout=10,
        )  # fmt: skip


def test_the_bell_leads_to_what_is_open_and_each_is_dealt_with(
    installed: RunningServer, browser: Browser, watched: Watched, three: list[str]
) -> None:
    page, (mirror, export, scanner) = watched.page, three
    sign_in(page, installed.url)
    bell = page.locator("a.bell")
    expect(bell).to_contain_text("3")
    bell.click()
    expect(page.get_by_role("heading", name="Alerts")).to_be_visible()
    alert = page.get_by_role("listitem").filter(has_text=mirror)
    expect(alert).to_contain_text("was refused 3 times in an hour")
    alert.get_by_role("button", name="Acknowledge").click()
    expect(alert).to_have_count(0)
    expect(bell).to_contain_text("2")

    alert = page.get_by_role("listitem").filter(has_text=export)
    alert.get_by_role("link", name="Revoke this key").click()
    page.get_by_role("button", name="Revoke").last.click()
    expect(page.locator("#dialog")).to_be_hidden()
    page.wait_for_load_state("load")
    page.goto(f"{installed.url}/alerts")
    expect(page.get_by_role("listitem").filter(has_text=export)).to_have_count(0)
    expect(bell).to_contain_text("1")

    page.get_by_role("link", name=f"{scanner}” was refused").click()
    expect(page.get_by_text("Its log says which requests")).to_be_visible()
    page.get_by_role("button", name="Mute").click()
    expect(page.get_by_text("nobody is told of")).to_be_visible()
    page.get_by_role("button", name="Open again").click()
    expect(page.get_by_role("button", name="Mute")).to_be_visible()
    assert watched.complaints == []
