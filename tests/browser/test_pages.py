"""Every page fits 390 pixels, breaks no content policy, asks no other host, and can be used from
the keyboard alone."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser.conftest import PASSWORD, Watched, sign_in, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

PAGES = ["keys", "keys/new", "audit-log", "activity"]
Caller = Callable[[str, dict[str, str]], Any]
DIALOGS = ["Edit", "Rotate", "Revoke", "View Audit Log", "Delete"]


@pytest.fixture(scope="module")
def owner(installed: RunningServer) -> Caller:
    """Calls the API as the owner."""
    url = f"{installed.url}/api/v1"

    def ask(path: str, body: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        answer = requests.post(url + path, json=body, headers=headers, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    known = ask("/auth/token", {"email": "ada@example.com", "password": PASSWORD})
    return lambda path, body: ask(path, body, bearer(known["access_token"]))


@pytest.fixture
def console(
    browser: Browser, installed: RunningServer, owner: Caller, request: pytest.FixtureRequest
) -> Iterator[Watched]:
    """The owner's browser, 390 pixels wide and dark, at the one key of a project of its own, which
    was used and is in its grace period."""
    slug = f"shop-{request.session.items.index(request.node)}"
    owner("/projects", {"slug": slug})
    key = owner("/api-keys", {"project": slug, "name": "A rather long name of a key, production"})
    used_from = bearer(key["key"]) | {"X-Forwarded-For": "8.8.8.8"}
    call(installed.port, "/api/v1/whoami", headers=used_from)
    owner(f"/api-keys/{key['id']}/rotate", {"grace_period": "24h"})
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, color_scheme="dark", base_url=installed.url
    )
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.watch()
    sign_in(watched.page)
    watched.page.goto(f"/projects/{slug}/keys")
    yield watched
    context.close()


def test_every_page_fits_a_telephone_and_keeps_the_content_policy(console: Watched) -> None:
    page = console.page
    project = page.url.removesuffix("/keys")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES:
        page.goto(f"{project}/{path}")
        assert not too_wide(page), path
    page.goto(f"{project}/keys")
    for name in DIALOGS:
        page.get_by_role("button", name="Actions").click()
        page.get_by_role("menuitem", name=name).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert not too_wide(page), name
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("link", name="A rather long name").click()
    expect(page.get_by_role("heading", name="Recent requests")).to_be_visible()
    assert not too_wide(page)
    assert console.complaints == []
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


def test_a_key_is_rotated_from_the_keyboard_alone(console: Watched) -> None:
    page = console.page
    actions = page.get_by_role("button", name="Actions")
    actions.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Edit")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Rotate")).to_be_focused()
    page.keyboard.press("Enter")
    rotate = page.get_by_role("button", name="Rotate Key")
    expect(rotate).to_be_disabled()
    page.get_by_label("Type the key's name").focus()
    page.keyboard.type("A rather long name of a key, production")
    expect(rotate).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.get_by_text("This is the only time")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Copy the key first")).to_be_visible()
    expect(page.locator("#secret")).to_be_visible()
    expect(page.get_by_role("button", name="Copy key")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#secret")).to_have_count(0)


def test_the_secret_is_hidden_until_asked_for_and_copied_whole(console: Watched) -> None:
    page = console.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Create API Key").click()
    page.get_by_label("Name", exact=True).fill("CI")
    page.get_by_role("button", name="Create Key").click()
    secret = page.get_by_label("Secret")
    expect(secret).to_have_attribute("type", "password")
    page.get_by_role("button", name="Show key").click()
    expect(secret).to_have_attribute("type", "text")
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret.input_value()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("row").filter(has_text="CI")).to_be_visible()


def test_every_field_of_a_dialog_has_its_name_beside_the_filters_of_the_page(
    console: Watched,
) -> None:
    page = console.page
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Create API Key").click()
    for label in ("Name", "Description", "Environment", "Expiration", "Permissions",
                  "IP Allowlist", "Rate limit"):  # fmt: skip
        expect(dialog.get_by_label(label, exact=True)).to_have_count(1)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="Edit").click()
    expect(dialog.get_by_label("Status", exact=True)).to_be_visible()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


def test_a_field_at_fault_has_the_focus_and_nothing_breaks_the_policy(console: Watched) -> None:
    page = console.page
    page.get_by_role("button", name="Create API Key").click()
    page.get_by_label("Name", exact=True).fill("CI")
    page.get_by_label("Expiration").select_option("On a date")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("Choose a date.")).to_be_visible()
    expect(page.get_by_label("Date", exact=True)).to_be_focused()
    unexpected = [line for line in console.complaints if "status of 422" not in line]
    assert unexpected == []


def test_a_filter_at_fault_is_named_in_the_audit_dialog(console: Watched) -> None:
    page = console.page
    page.get_by_role("button", name="Actions").click()
    page.get_by_role("menuitem", name="View Audit Log").click()
    page.get_by_role("dialog").get_by_role("button", name="Filters").click()
    page.get_by_role("dialog").get_by_label("IP Address").fill("zzz")
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_text("Must be an IPv4 or IPv6 address.")).to_be_visible()
    expect(page.get_by_role("dialog").get_by_role("navigation")).to_have_count(0)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_search_finds_as_you_type(console: Watched) -> None:
    page = console.page
    page.get_by_role("searchbox").press_sequentially("nothing like it")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    expect(page).to_have_url(re.compile("q=nothing"))
    page.get_by_role("link", name="Show all keys").click()
    expect(page.get_by_role("link", name="A rather long name")).to_be_visible()
