"""Creating and editing a key in a browser: what helps while one types, the step that shows the
secret, leaving it, and two people who edit one key."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, StorageState, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, profile, too_wide
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser

KEYS = "/projects/shop/keys"
SECRET = re.compile(r"lk_live_[0-9A-Za-z]{36}")
DOTS = "•" * 12
CATALOGUE = [
    {"name": "orders:read", "description": "See orders and their items"},
    {"name": "orders:write", "description": "Place and change orders"},
    {"name": "orders:delete", "description": "Cancel orders for good"},
]
LENGTHS = ("1 Day", "1 Week", "1 Month", "3 Months", "1 Year")


class Shop:
    """A server with a project, its catalogue, and a key that manages it."""

    def __init__(self, server: RunningServer) -> None:
        self.url = server.url
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        made = server.run(
            "create-key", "--project", "shop", "--name", "Manager", "--permission", "admin:*"
        )
        self.manager = bearer(made.stdout.strip())
        self.call("PATCH", "/projects/shop", {"permission_catalogue": CATALOGUE})

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(
            method, f"{self.url}/api/v1{path}", json=body, headers=self.manager, timeout=10
        )
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def named(self, name: str) -> list[dict[str, Any]]:
        found = self.call("GET", f"/api-keys?q={name}&project=shop")["data"]
        return [key for key in found if key["name"] == name]

    def new_key(self, name: str, **settings: Any) -> str:
        return str(self.call("POST", "/api-keys", {"name": name, **settings})["id"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("forms") / "data"
    with RunningServer(directory, LATCHKEY_KEY_LIMIT="1000") as server:
        yield Shop(server)


@pytest.fixture(scope="module")
def session(browser: Browser, shop: Shop) -> StorageState:
    return profile(browser, shop.url)


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, shop: Shop, session: StorageState) -> Iterator[Open]:
    """`opened(width=…, scripts=…)`: the key table in a browser of its own, which complains of
    nothing."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    def start(*, width: int = 1280, scripts: bool = True, theme: Any = "light") -> Page:
        context = browser.new_context(
            base_url=shop.url, storage_state=session, java_script_enabled=scripts,
            color_scheme=theme, viewport={"width": width, "height": 800},
        )  # fmt: skip
        context.set_default_timeout(10_000)
        contexts.append(context)
        watched.append(Watched(context.new_page()))
        watched[-1].watch()
        page = watched[-1].page
        page.goto(KEYS)
        return page

    yield start
    for context in contexts:
        context.close()
    expected = re.compile("status of 4")
    assert [line for one in watched for line in one.complaints if not expected.search(line)] == []


@pytest.fixture
def page(opened: Open) -> Page:
    return opened()


@pytest.fixture(params=[True, False], ids=["scripts on", "scripts off"])
def either(opened: Open, request: pytest.FixtureRequest) -> Page:
    return opened(scripts=request.param)


def runs_scripts(page: Page) -> bool:
    return page.locator("html.js").count() == 1


def form_of(page: Page) -> Locator:
    page.get_by_role("button", name="Create API Key").click()
    form = page.locator("form.dialog")
    expect(form.get_by_label("Name")).to_be_visible()
    return form


def create(page: Page, name: str) -> Locator:
    """Up to the step that shows the secret, which is returned."""
    form_of(page).get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    return page.locator(".secret")


def clipboard(page: Page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return str(page.evaluate("navigator.clipboard.readText()"))


# --- while one types --------------------------------------------------------------------------


def test_buttons_edit_the_lines_of_the_field_and_nothing_else_does(page: Page) -> None:
    form = form_of(page)
    field = form.get_by_label("Permissions")
    field.fill("mine:one")
    form.get_by_role("button", name="Read and write").click()
    expect(field).to_have_value("mine:one\norders:read\norders:write")
    expect(form.get_by_role("button", name="orders:read")).to_have_attribute("aria-pressed", "true")
    form.get_by_role("button", name="Read-only").click()
    expect(field).to_have_value("mine:one\norders:read")
    form.get_by_role("button", name="orders:delete").click()
    form.get_by_role("button", name="orders:read").click()
    expect(field).to_have_value("mine:one\norders:delete")
    field.fill("orders:write")
    expect(form.get_by_role("button", name="orders:write")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(form.get_by_role("button", name="orders:delete")).to_have_attribute(
        "aria-pressed", "false"
    )


def test_a_preset_of_the_project_takes_the_place_of_another(page: Page, shop: Shop) -> None:
    own = [
        {"name": "Clerk", "permissions": ["orders:read", "stock:count"]},
        {"name": "Courier", "permissions": ["parcels:send"]},
    ]
    shop.call("PATCH", "/projects/shop", {"permission_presets": own})
    page.reload()
    form = form_of(page)
    field = form.get_by_label("Permissions")
    field.fill("mine:one")
    form.get_by_role("button", name="Clerk").click()
    expect(field).to_have_value("mine:one\norders:read\nstock:count")
    form.get_by_role("button", name="Courier").click()
    expect(field).to_have_value("mine:one\nparcels:send")
    shop.call("PATCH", "/projects/shop", {"permission_presets": []})


def test_a_warning_appears_with_what_opens_everything_and_goes_with_it(page: Page) -> None:
    form = form_of(page)
    warning = form.get_by_text("opens everything, here and in your services")
    form.get_by_label("Permissions").press_sequentially("orders:read admin:*")
    expect(warning).to_be_visible()
    form.get_by_text("Latchkey's own API").click()
    form.get_by_role("button", name="admin:*").click()
    expect(warning).to_have_count(0)
    form.get_by_role("button", name="keys:verify").click()
    expect(form.get_by_text("Opens Latchkey's own API:")).to_be_visible()


def test_an_allowlist_is_checked_as_it_is_typed_and_takes_ones_own_address(page: Page) -> None:
    form = form_of(page)
    field = form.get_by_label("IP Allowlist")
    field.fill("10.0.0.5/24")
    expect(form.get_by_text("write 10.0.0.0/24")).to_be_visible()
    field.fill("10.0.0.0/24")
    expect(form.get_by_text("1 entry, 256 addresses. Your address 127.0.0.1 is not among them.")
           ).to_be_visible()  # fmt: skip
    form.get_by_role("button", name="Add my address").click()
    expect(form.get_by_text("2 entries, 257 addresses. Your address 127.0.0.1 is among them.")
           ).to_be_visible()  # fmt: skip
    form.get_by_role("button", name="Add my address").click()
    expect(field).to_have_value("10.0.0.0/24\n127.0.0.1")


def test_the_end_of_each_length_is_shown(either: Page) -> None:
    form = form_of(either)
    expect(form.get_by_text(re.compile(r"Until \d+ \w{3} \d{4}, \d\d:\d\d UTC\."))
           .filter(visible=True)).to_have_count(1)  # fmt: skip
    seen = set()
    for length in LENGTHS:
        form.get_by_label("Expiration").select_option(length)
        seen.add(form.locator(".ends span:visible").inner_text())
    assert len(seen) == len(LENGTHS)
    form.get_by_label("Expiration").select_option("No Expiry")
    expect(form.get_by_text("Works until somebody stops it.")).to_be_visible()
    form.get_by_label("Expiration").select_option("On a date")
    expect(form.get_by_label("Date", exact=True)).to_be_visible()


def test_a_double_click_makes_one_key(page: Page, shop: Shop) -> None:
    form_of(page).get_by_label("Name").fill("Clicked twice")
    page.get_by_role("button", name="Create Key").dblclick()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    assert len(shop.named("Clicked twice")) == 1


def test_nothing_typed_is_lost_on_a_refusal(either: Page) -> None:
    form = form_of(either)
    form.get_by_label("Name").fill("Refused")
    form.get_by_text("More", exact=True).click()
    form.get_by_label("Metadata (JSON)").fill("{team}")
    form.get_by_label("External id").fill("customer-42")
    either.get_by_role("button", name="Create Key").click()
    expect(form.get_by_text("Is not JSON that can be read")).to_be_visible()
    expect(form.get_by_label("Metadata (JSON)")).to_have_value("{team}")
    expect(form.get_by_label("External id")).to_have_value("customer-42")
    form.get_by_label("Metadata (JSON)").fill('{"team": "payments"}')
    either.get_by_role("button", name="Create Key").click()
    expect(either.get_by_text("This is the only time")).to_be_visible()


# --- the secret -------------------------------------------------------------------------------


def spoken(page: Page) -> str:
    """All that assistive technology is told of the page."""
    client = page.context.new_cdp_session(page)
    return str(client.send("Accessibility.getFullAXTree"))


def test_a_hidden_secret_is_hidden_from_assistive_technology_too(page: Page) -> None:
    step = create(page, "Hidden")
    field = page.get_by_label("Secret")
    secret = field.input_value()
    assert SECRET.fullmatch(secret)
    expect(field).to_have_attribute("type", "password")
    assert secret not in spoken(page) and "Hidden" in spoken(page)
    for tab in (".env", "curl", "Python", "JavaScript", "GitHub Actions", "nginx", "Laravel"):
        step.get_by_text(tab, exact=True).click()
        shown = step.locator("pre:visible")
        expect(shown).to_contain_text(DOTS)
        assert secret not in shown.inner_text()
    eye = page.get_by_role("button", name="Show key")
    expect(eye).to_have_attribute("aria-pressed", "false")
    eye.click()
    eye = page.get_by_role("button", name="Hide key")
    expect(eye).to_have_attribute("aria-pressed", "true")
    expect(field).to_have_attribute("type", "text")
    expect(step.locator("pre:visible")).to_contain_text(secret)
    assert secret in spoken(page)
    eye.click()
    expect(field).to_have_attribute("type", "password")
    assert secret not in spoken(page)


def test_every_snippet_is_copied_with_the_secret_in_it(page: Page) -> None:
    step = create(page, "Snippets")
    secret = page.get_by_label("Secret").input_value()
    for tab in (".env", "curl", "Python", "JavaScript", "GitHub Actions", "nginx", "Laravel"):
        step.get_by_text(tab, exact=True).click()
        expected = str(step.locator("pre:visible").text_content()).replace(DOTS, secret)
        step.get_by_role("button", name=f"Copy {tab}").click()
        expect(step.get_by_role("button", name="Copied", exact=True)).to_be_visible()
        assert clipboard(page) == expected and secret in expected
    expect(step.get_by_role("button", name="Copied", exact=True)).to_have_count(0)


def test_the_file_holds_the_secret_and_no_address_does(page: Page) -> None:
    step = create(page, "Download")
    secret = page.get_by_label("Secret").input_value()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_download() as download:
        step.get_by_role("button", name="Download .env").click()
    assert download.value.suggested_filename == "shop.env"
    assert Path(download.value.path()).read_text() == f"SHOP_API_KEY={secret}\n"
    assert not [url for url in asked if secret in url or not url.startswith("blob:")]
    page.keyboard.press("Escape")
    expect(step).to_have_count(0)


def test_what_is_selected_and_copied_by_keyboard_holds_the_secret(page: Page) -> None:
    step = create(page, "Keyboard")
    secret = page.get_by_label("Secret").input_value()
    page.get_by_label("Secret").focus()
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+c")
    if clipboard(page) != secret:  # a browser that lets nothing be copied from such a field
        step.locator("pre:visible").click(click_count=3)
        page.keyboard.press("Control+c")
    assert secret in clipboard(page)
    page.keyboard.press("Escape")
    expect(step).to_have_count(0)
    expect(page.get_by_text("The key was not copied.")).to_have_count(0)


def test_a_snippet_that_is_selected_is_copied_whole(page: Page) -> None:
    step = create(page, "Selected")
    secret = page.get_by_label("Secret").input_value()
    step.locator("pre:visible").click(click_count=3)
    page.keyboard.press("Control+c")
    assert clipboard(page).strip() == f"SHOP_API_KEY={secret}"
    expect(step).to_have_attribute("data-taken", "")


@pytest.mark.parametrize("way", ["Escape", "×"])
def test_leaving_without_the_key_asks_once(page: Page, way: str) -> None:
    step = create(page, "Left")

    def leave() -> None:
        if way == "Escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("link", name="Close").click()

    leave()
    expect(page.get_by_text("Copy the key first. It is not shown again.")).to_be_visible()
    expect(step).to_be_visible()
    leave()
    expect(step).to_have_count(0)


def test_done_closes_at_once_and_the_key_can_be_brought_back(page: Page) -> None:
    step = create(page, "Brought back")
    secret = page.get_by_label("Secret").input_value()
    done = page.get_by_role("button", name="Done")
    quiet = done.evaluate("(one) => getComputedStyle(one).backgroundColor")
    done.click()
    expect(step).to_have_count(0)
    expect(page.get_by_text("The key was not copied.")).to_be_visible()
    assert secret not in page.content()
    page.get_by_role("button", name="Show it again").click()
    expect(page.get_by_label("Secret")).to_have_value(secret)
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    assert clipboard(page) == secret
    assert quiet != done.evaluate("(one) => getComputedStyle(one).backgroundColor")
    done.click()
    expect(step).to_have_count(0)
    expect(page.get_by_text("The key was not copied.")).to_have_count(0)


def test_a_page_that_is_left_asks_once_while_the_key_is_not_copied(page: Page) -> None:
    create(page, "Unloaded")
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.evaluate("location.assign('/')")
    expect(page.get_by_text("Copy the key first")).to_be_visible()
    page.evaluate("location.assign('/')")
    page.wait_for_url(lambda url: KEYS not in url or not url.endswith("/keys/new"))
    expect(page.get_by_text("This is the only time")).to_have_count(0)
    assert asked == ["beforeunload"]


def test_a_page_that_is_left_with_the_key_copied_asks_nothing(page: Page) -> None:
    create(page, "Taken, then unloaded")
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.goto("/projects/shop/activity")
    assert asked == []


# --- back, forward, reload --------------------------------------------------------------------


def test_back_and_forward_never_show_the_secret(either: Page) -> None:
    page = either
    create(page, "Back and forward")
    secret = page.get_by_label("Secret").input_value()
    page.goto("/projects/shop/activity")
    for way in (page.go_back, page.go_back, page.go_forward, page.go_forward):
        # To a page that answered a form the browser goes back only by sending the form again.
        with suppress(Error):
            way()
        page.wait_for_timeout(300)
        assert secret not in page.content()
        assert page.locator("#secret, dialog[open]").count() == 0
    page.goto(KEYS)
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()


def test_a_page_that_the_browser_keeps_holds_no_secret(page: Page) -> None:
    """As a browser does that keeps pages for Back and Forward as they were."""
    step = create(page, "Kept")
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    expect(step).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_text("The key was not copied.")).to_have_count(0)
    create(page, "Kept, brought back")
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("button", name="Show it again")).to_be_visible()
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    page.get_by_role("button", name="Show it again").click()
    expect(page.get_by_text("The key is gone. Rotate it to get another.")).to_be_visible()
    expect(step).to_have_count(0)


def test_a_reload_of_the_page_that_showed_the_secret_makes_no_second_key(
    opened: Open, shop: Shop
) -> None:
    page = opened(scripts=False)
    create(page, "Reloaded")
    secret = page.get_by_label("Secret").input_value()
    page.reload()
    expect(page.get_by_role("heading", name="This key was created already")).to_be_visible()
    assert secret not in page.content()
    assert len(shop.named("Reloaded")) == 1
    page.get_by_role("link", name="Rotate Reloaded").click()
    expect(page.get_by_role("heading", name="Rotate Reloaded")).to_be_visible()


# --- two people, one key ----------------------------------------------------------------------


def edit(page: Page, name: str) -> Locator:
    row = page.get_by_role("row").filter(has_text=name)
    if runs_scripts(page):
        row.get_by_role("button", name="Actions").click()
        page.get_by_role("menuitem", name="Edit").click()
    else:
        row.get_by_role("link", name=name).click()
        page.get_by_role("link", name="Edit").click()
    form = page.locator("form.dialog")
    expect(form.get_by_label("Description")).to_be_visible()
    return form


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_who_saves_second_sees_what_was_changed_and_decides(
    opened: Open, shop: Shop, scripts: bool
) -> None:
    name = f"Shared {scripts}"
    key_id = shop.new_key(name, description="first", permissions=["orders:read"])
    page = opened(scripts=scripts)
    form = edit(page, name)
    form.get_by_label("Description").fill("mine")
    shop.call("PATCH", f"/api-keys/{key_id}", {"description": "theirs", "permissions": ["a:b"]})
    shop.call("PATCH", f"/api-keys/{key_id}", {"status": "revoked"})
    page.get_by_role("button", name="Save").click()
    expect(form.get_by_text("This key was changed since you opened it.")).to_be_visible()
    expect(form.get_by_text("Manager edited the key")).to_be_visible()
    expect(form.get_by_text("Description: first → theirs")).to_be_visible()
    expect(form.get_by_text("Manager revoked the key")).to_be_visible()
    expect(form.get_by_text("Now: theirs")).to_be_visible()
    expect(form.get_by_label("Description")).to_have_value("mine")
    expect(form.get_by_label("Permissions")).to_have_value("a:b")
    expect(form.get_by_label("Status")).to_have_value("revoked")
    if scripts:
        expect(form.get_by_role("alert")).to_be_focused()
    page.get_by_role("button", name="Save anyway").click()
    expect(page.get_by_text(f"{name} saved")).to_be_visible()
    key = shop.call("GET", f"/api-keys/{key_id}")
    assert (key["description"], key["permissions"], key["status"]) == ("mine", ["a:b"], "revoked")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_key_that_is_deleted_while_it_is_edited_is_told(
    opened: Open, shop: Shop, scripts: bool
) -> None:
    name = f"Doomed {scripts}"
    key_id = shop.new_key(name)
    page = opened(scripts=scripts)
    edit(page, name).get_by_label("Description").fill("mine")
    shop.call("DELETE", f"/api-keys/{key_id}")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{name} was deleted")).to_be_visible()
    expect(page.get_by_text("Nothing was saved.")).to_be_visible()
    page.get_by_role("link", name="Back to the keys").click()
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()


# --- for everybody ----------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_state_of_the_forms_fits_and_has_no_barrier(
    opened: Open, shop: Shop, width: int, theme: str
) -> None:
    name = f"Barriers {theme} {width}"
    key_id = shop.new_key(name, description="first")
    page = opened(width=width, theme=theme)
    form = form_of(page)
    form.get_by_label("Name").fill("Anything")
    form.get_by_label("Permissions").fill("admin:*")
    form.get_by_label("IP Allowlist").fill("10.0.0.5/24")
    form.get_by_text("Latchkey's own API").click()
    form.get_by_text("More", exact=True).click()
    form.get_by_label("Rate limit").select_option("enterprise")
    form.get_by_label("Expiration").select_option("On a date")
    expect(form.get_by_text("write 10.0.0.0/24")).to_be_visible()
    expect(form.get_by_text("opens everything")).to_be_visible()
    assert (barriers(page), too_wide(page)) == ([], False)
    page.get_by_role("button", name="Create Key").click()
    expect(form.get_by_text("write 10.0.0.0/24")).to_be_visible()
    assert barriers(page) == []
    page.keyboard.press("Escape")
    create(page, f"Shown {theme} {width}")
    page.keyboard.press("Escape")
    assert (barriers(page), too_wide(page)) == ([], False)
    page.get_by_role("button", name="Show key").click()
    assert barriers(page) == []
    page.get_by_role("button", name="Done").click()
    form = edit(page, name)
    form.get_by_label("Description").fill("mine")
    shop.call("PATCH", f"/api-keys/{key_id}", {"description": "theirs"})
    page.get_by_role("button", name="Save").click()
    expect(form.get_by_text("Now: theirs")).to_be_visible()
    assert (barriers(page), too_wide(page)) == ([], False)
