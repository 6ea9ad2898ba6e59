"""Each page and each dialog, in light and in dark, from 390 to 1,920 pixels: nothing is wider than
the screen, axe-core finds nothing, nothing breaks the content policy or asks another host."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from peewee import sqlite3
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, profile, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

WAIT_SECONDS = 30
WIDTHS = (1280, 390, 801, 1024, 1151, 1920)
EXAMINED = (1280, 390)
THEMES = ("light",) if os.environ.get("SHORT") else ("light", "dark")
KEYS = "/projects/shop/keys"
PAGES = {
    "projects": "/",
    "keys": KEYS,
    "keys found by nothing": f"{KEYS}?q=nothing-like-it",
    "keys filtered": f"{KEYS}?status=active&environment=live",
    "keys of an empty project": "/projects/empty/keys",
    "create": f"{KEYS}/new",
    "key": f"{KEYS}/{{busy}}",
    "key never used": f"{KEYS}/{{idle}}",
    "key's year": f"{KEYS}/{{busy}}?period=12mo",
    "edit": f"{KEYS}/{{busy}}/edit",
    "rotate": f"{KEYS}/{{busy}}/rotate",
    "revoke": f"{KEYS}/{{busy}}/revoke",
    "delete": f"{KEYS}/{{busy}}/delete",
    "enable": f"{KEYS}/{{revoked}}/restore",
    "key's audit log": f"{KEYS}/{{busy}}/audit-log",
    "audit log": "/projects/shop/audit-log",
    "audit log filtered": "/projects/shop/audit-log?status=denied",
    "attempts without a key": "/projects/shop/audit-log/without-key",
    "audit log of an empty project": "/projects/empty/audit-log",
    "end the grace": f"{KEYS}/{{busy}}/grace/end",
    "extend the grace": f"{KEYS}/{{busy}}/grace/extend",
    "entry": "/projects/shop/audit-log/1",
    "refused entry": "/projects/shop/audit-log/{refused}",
    "overview": "/projects/shop",
    "overview of an empty project": "/projects/empty",
    "activity": "/projects/shop/activity",
    "integrate": "/projects/shop/integrate",
    "settings": "/projects/shop/settings",
    "alerts": "/alerts",
    "alerts found by nothing": "/alerts?kind=renewal",
    "alert": "/alerts/{alert}",
    "status": "/status",
    "make a calendar link": "/projects/shop/settings/calendar/link",
    "archive a project": "/projects/shop/archive",
    "account": "/account",
    "second factor": "/account/second-factor",
    "confirm": "/confirm",
    "API reference": "/api/docs",
    "nowhere": "/projects/nowhere/keys",
}
DIALOGS = ("Edit", "Rotate", "Revoke", "View Audit Log", "Delete")
AT_THE_DOOR = ("/login", "/forgot", "/invitation?token=spent")


class Installation:
    """A server with keys in several states, one of them used, refused, and in its grace period."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        server.run("create-project", "--slug", "empty", "--name", "Empty").check_returncode()
        busy, idle, revoked = map(self._make, ("Checkout, production", "Idle", "Old importer"))
        self.ids = {"busy": busy["id"], "idle": idle["id"], "revoked": revoked["id"]}
        self._use(busy["key"], "/api/v1/whoami")
        self._use(busy["key"], "/api/v1/api-keys")
        server.run("rotate-key", busy["id"], "--grace", "24h").check_returncode()
        self._use(busy["key"], "/api/v1/whoami")
        server.run("revoke-key", revoked["id"]).check_returncode()
        self._use(revoked["key"], "/api/v1/whoami")
        self.ids["refused"] = "2"
        self.ids["alert"] = self._alert()

    def _alert(self) -> str:
        """That a revoked key is still used, which is noticed within seconds."""
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            with closing(sqlite3.connect(self.server.data_dir / "latchkey.db")) as database:
                found = database.execute("select id from alert").fetchall()
            if found:
                return str(found[0][0])
            time.sleep(0.1)
        raise AssertionError("no alert came")

    def _make(self, name: str) -> dict[str, str]:
        made = self.server.run(
            "create-key", "--project", "shop", "--name", name, "--permission", "tasks:read",
            "--expires-in", "5d", "--json",
        )  # fmt: skip
        made.check_returncode()
        return dict(json.loads(made.stdout))

    def _use(self, secret: str, path: str) -> None:
        headers = {**bearer(secret), "X-Forwarded-For": "8.8.8.8", "User-Agent": "checkout/1.0"}
        call(self.server.port, path, headers=headers)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with RunningServer(tmp_path_factory.mktemp("pages") / "data") as server:
        yield Installation(server)


@pytest.fixture(scope="module")
def signed_in(browser: Browser, installation: Installation) -> StorageState:
    return profile(browser, installation.server.url)


@pytest.fixture(params=THEMES)
def console(
    browser: Browser,
    installation: Installation,
    signed_in: StorageState,
    request: pytest.FixtureRequest,
) -> Iterator[Watched]:
    context = browser.new_context(
        base_url=installation.server.url, color_scheme=request.param, storage_state=signed_in,
        reduced_motion="reduce",
    )  # fmt: skip
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.watch()
    yield watched
    context.close()


def assert_good(
    watched: Watched, expected: str = "status of 4", examined: tuple[int, ...] = EXAMINED
) -> None:
    """The page as it stands, at every width; complaints of the console but for refusals. In the
    dark only colours are others."""
    page = watched.page
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for width in EXAMINED[:1] if is_dark else WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert not too_wide(page), f"wider than {width}"
        if width in examined:
            assert barriers(page) == [], width
    assert [line for line in watched.complaints if expected not in line] == []
    assert watched.hosts == {"127.0.0.1"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page(console: Watched, installation: Installation, name: str) -> None:
    answer = console.page.goto(PAGES[name].format(**installation.ids))
    assert answer is not None
    assert answer.status == (404 if name == "nowhere" else 200)
    expect(console.page.locator("h1")).to_have_count(1)
    # The longest page by far is looked through at one width.
    assert_good(console, examined=EXAMINED[:1] if name == "API reference" else EXAMINED)


@pytest.mark.parametrize("name", DIALOGS)
def test_a_dialog_of_a_row(console: Watched, name: str) -> None:
    page = console.page
    page.goto(KEYS)
    page.get_by_role("button", name="Actions for Checkout").click()
    assert barriers(page) == []
    page.get_by_role("menuitem", name=name).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_good(console)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Actions for Checkout")).to_be_focused()


def test_the_dialogs_to_create_and_to_show_the_secret(console: Watched) -> None:
    page = console.page
    page.goto(KEYS)
    page.get_by_role("button", name="Create API Key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_good(console)
    page.get_by_role("dialog").get_by_label("Name", exact=True).fill("Bad allowlist")
    page.get_by_label("IP Allowlist").fill("nowhere")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_label("IP Allowlist")).to_have_attribute("aria-invalid", "true")
    assert_good(console)
    page.get_by_label("IP Allowlist").fill("")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    assert_good(console)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("path", AT_THE_DOOR)
def test_a_page_for_whoever_comes(
    browser: Browser, installation: Installation, theme: str, path: str
) -> None:
    context = browser.new_context(base_url=installation.server.url, color_scheme=theme)
    watched = Watched(context.new_page())
    watched.watch()
    watched.page.goto(path)
    assert_good(watched)
    context.close()


def test_the_theme_that_is_chosen_holds_against_the_systems(console: Watched) -> None:
    page = console.page
    page.goto(KEYS)
    ground = "getComputedStyle(document.body).backgroundColor"
    page.get_by_role("button", name="Dark", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(ground) != dark
    assert page.url.endswith(KEYS)
    assert_good(console)


def test_the_rail_folds_into_a_bar_and_opens_from_it(console: Watched) -> None:
    page = console.page
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(KEYS)
    expect(page.get_by_role("link", name="Activity")).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Activity").click()
    expect(page).to_have_url(re.compile("/activity"))


def is_named(page: Page) -> list[str]:
    """The id of every element that has one: each is one of a kind."""
    return list(page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)"))


def test_every_id_is_one_of_a_kind_beside_an_open_dialog(console: Watched) -> None:
    page = console.page
    page.goto("/projects/shop/audit-log")
    ids = is_named(page)
    assert len(ids) == len(set(ids))
    page.goto(KEYS)
    page.get_by_role("button", name="Actions for Checkout").click()
    page.get_by_role("menuitem", name="View Audit Log").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    ids = is_named(page)
    assert len(ids) == len(set(ids))
