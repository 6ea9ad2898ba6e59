"""The integrate page in a browser: a key is tested, mended, and passes; a pasted secret is in one
question and nowhere else."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from console.web.integrate import WAYS
from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

NAME = "Checkout, production"
PAGE = "/projects/shop/integrate"


class Installation:
    """A server, a key that lacks a permission, and another project with many keys."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        for slug in ("shop", "many"):
            server.run("create-project", "--slug", slug, "--name", slug.title()).check_returncode()
        self.key = self.make("shop", NAME, "tasks:read")
        self._import()

    def make(self, project: str, name: str, permission: str) -> dict[str, Any]:
        made = self.server.run(
            "create-key", "--project", project, "--name", name, "--permission", permission, "--json"
        )
        return dict(json.loads(made.stdout))

    def _import(self) -> None:
        by = self.make("many", "Importer", "keys:manage")["key"]
        keys = [
            {"name": f"Key {n:03}", "prefix": "old_",
             "sha256": hashlib.sha256(secrets.token_bytes(16)).hexdigest()}
            for n in range(80)
        ]  # fmt: skip
        body = json.dumps({"keys": keys})
        headers = {**bearer(by), "Content-Type": "application/json"}
        answer = call(self.server.port, "/api/v1/api-keys/import", "POST", headers, body)
        assert answer.status in (200, 201), answer.body


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data_dir = tmp_path_factory.mktemp("integrate") / "data"
    with RunningServer(data_dir, LATCHKEY_KEY_LIMIT="100") as server:
        yield Installation(server)


def enter(page: Page, installation: Installation, path: str = PAGE) -> None:
    sign_in(page, installation.server.url)
    page.goto(installation.server.url + path)


@pytest.fixture
def console(watched: Watched, installation: Installation) -> Watched:
    enter(watched.page, installation)
    return watched


@pytest.fixture
def with_scripts(browser: Browser, installation: Installation) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.watch()
    enter(watched.page, installation)
    yield watched
    context.close()


def pick(page: Page, name: str = NAME) -> None:
    label = page.get_by_label("Key of").locator("option").filter(has_text=name).inner_text()
    page.get_by_label("Key of").select_option(label=label)


def run_test(page: Page) -> None:
    page.get_by_role("button", name="Test", exact=True).click()


def test_a_picked_key_is_tested_with_and_without_scripts(console: Watched) -> None:
    page = console.page
    pick(page)
    page.get_by_label("Permissions").fill("tasks:write")
    run_test(page)
    result = page.get_by_role("status", name="Result")
    expect(result).to_contain_text("403 PERMISSION_DENIED")
    expect(result.get_by_role("link", name="Add tasks:write to the key")).to_be_visible()
    page.get_by_label("Permissions").fill("tasks:read")
    run_test(page)
    expect(result).to_contain_text("200 VALID")
    assert console.complaints == []


def test_a_pasted_secret_is_in_no_address_page_or_file(
    console: Watched, installation: Installation
) -> None:
    page = console.page
    secret = installation.key["key"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_text("Paste a secret").click()
    field = page.get_by_label("Secret", exact=True)
    expect(field).to_have_attribute("type", "password")
    for permission, expected in (("tasks:write", "403"), ("tasks:read", "200 VALID")):
        field.fill(secret)
        page.get_by_label("Permissions").fill(permission)
        run_test(page)
        expect(page.get_by_role("status", name="Result")).to_contain_text(expected)
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("link", name="Integrate").click()
    expect(page.get_by_role("heading", name="Integrate")).to_be_visible()
    assert page.locator("#test-secret").input_value() == ""
    assert [url for url in asked if secret in url] == []
    assert [url for url, body in console.answers if secret in body] == []
    assert secret not in page.content()
    assert secret not in json.dumps(page.context.storage_state())
    assert files_with(secret, installation.server.data_dir.parent) == []
    assert console.complaints == []


def files_with(text: str, directory: Path) -> list[Path]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if text.encode() in path.read_bytes()]


def test_a_fault_is_mended_from_the_result_and_the_test_runs_again(
    with_scripts: Watched, installation: Installation
) -> None:
    page = with_scripts.page
    name = "Mended here"
    installation.make("shop", name, "tasks:read")
    page.reload()
    pick(page, name)
    page.get_by_label("Permissions").fill("tasks:write")
    run_test(page)
    page.get_by_role("link", name="Add tasks:write to the key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Permissions", exact=True).fill("tasks:read\ntasks:write")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("status", name="Result")).to_contain_text("200 VALID")
    assert with_scripts.complaints == []


def test_a_field_at_fault_gets_the_focus_and_a_pasted_secret_stays(
    with_scripts: Watched, installation: Installation
) -> None:
    page = with_scripts.page
    page.get_by_text("Paste a secret").click()
    page.get_by_label("Secret", exact=True).fill(installation.key["key"])
    page.get_by_label("IP address").fill("zzz")
    run_test(page)
    expect(page.get_by_text("Must be an IPv4 or IPv6 address.")).to_be_visible()
    expect(page.get_by_label("IP address")).to_be_focused()
    assert barriers(page) == []
    page.get_by_role("button", name="Use mine").click()
    expect(page.get_by_label("IP address")).to_have_value("127.0.0.1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status", name="Result")).to_contain_text("200 VALID")
    expect(page.get_by_text("Must be an IPv4")).to_have_count(0)
    assert [line for line in with_scripts.complaints if "status of 422" not in line] == []


def test_the_keyboard_alone_switches_and_tests(with_scripts: Watched) -> None:
    page = with_scripts.page
    page.get_by_role("radio", name="Pick a key").focus()
    expect(page.get_by_label("Key of")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Secret", exact=True)).to_be_visible()
    expect(page.get_by_label("Key of")).to_be_hidden()
    page.keyboard.press("Tab")
    page.keyboard.type("not a key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status", name="Result")).to_contain_text("API_KEY_MALFORMED")


def test_of_many_keys_one_is_found_by_typing_or_by_a_button(
    console: Watched, installation: Installation
) -> None:
    page = console.page
    page.goto(f"{installation.server.url}/projects/many/integrate")
    options = page.get_by_label("Key of").locator("option")
    expect(options).to_have_count(51)
    page.get_by_label("Find a key").fill("key 077")
    if page.get_by_role("button", name="Find").is_visible():
        page.get_by_role("button", name="Find").click()
    expect(options).to_have_count(1)
    run_test(page)
    expect(page.get_by_role("status", name="Result")).to_contain_text("200 VALID")
    assert console.complaints == []


def test_a_configuration_is_filled_in_with_and_without_scripts(console: Watched) -> None:
    page = console.page
    page.get_by_role("link", name="Caddy", exact=True).click()
    file = page.get_by_role("region", name="Caddyfile")
    expect(file).to_contain_text("/forward-auth/caddy?project=shop&permission=tasks:read")
    for label, text in (("Your service", "tasks.internal:3000"), ("A key needs", "tasks:write")):
        page.get_by_label(label).fill(text)
        page.keyboard.press("Tab")
    page.get_by_label("The key comes in").select_option(label="X-API-Key")
    page.get_by_label("Let CORS preflights in").check()
    if page.get_by_role("button", name="Fill in").is_visible():
        page.get_by_role("button", name="Fill in").click()
    expect(file).to_contain_text("reverse_proxy tasks.internal:3000")
    expect(file).to_contain_text("permission=tasks:write&header=x-api-key&preflight=allow")
    expect(file).not_to_contain_text("header_up -Authorization")
    expect(page).to_have_url(re.compile("way=caddy&.*service=tasks.internal%3A3000"))
    page.get_by_role("link", name="Envoy", exact=True).click()
    expect(page.get_by_role("region", name="envoy.yaml")).to_contain_text("tasks.internal")
    assert console.complaints == []


def as_caddy(installation: Installation, path: str = "/tasks", **headers: str) -> int:
    sent = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": path, **headers}
    query = "?project=shop&permission=tasks:read"
    return call(installation.server.port, f"/forward-auth/caddy{query}", headers=sent).status


def test_a_call_is_shown_as_it_comes_with_what_mends_it(
    with_scripts: Watched, installation: Installation
) -> None:
    page = with_scripts.page
    calls = page.get_by_role("region", name="Calls from your proxy")
    assert as_caddy(installation, "/first") == 401
    expect(calls).to_contain_text("GET /first")
    expect(calls).to_contain_text("X-Forwarded-For")
    expect(calls.get_by_role("listitem").filter(has_text="The key")).to_contain_text("missing")
    assert barriers(page) == []
    # Whoever reads on is not disturbed by what comes meanwhile.
    first = calls.locator("summary").filter(has_text="/first")
    first.focus()
    assert as_caddy(installation, "/second", **bearer(installation.key["key"])) == 200
    expect(calls).to_contain_text("GET /second")
    expect(calls).to_contain_text(f"Let in with {NAME}")
    expect(first).to_be_focused()
    expect(calls.locator("details").filter(has_text="/first")).to_have_attribute("open", "")
    assert installation.key["key"] not in page.content()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert not too_wide(page)
    assert with_scripts.complaints == []


def test_without_scripts_the_calls_are_there_after_a_click(
    console: Watched, installation: Installation
) -> None:
    page = console.page
    assert as_caddy(installation, "/by-a-click") == 401
    refresh = page.get_by_role("link", name="Refresh")
    if refresh.is_visible():
        refresh.click()
    expect(page.get_by_text("GET /by-a-click").first).to_be_visible()


def test_while_the_server_is_away_the_page_does_not_complain_again_and_again(
    with_scripts: Watched, installation: Installation
) -> None:
    page = with_scripts.page
    installation.server.stop()
    try:
        page.wait_for_timeout(2_500)
        expect(page.get_by_text("The server cannot be reached")).to_have_count(0)
    finally:
        installation.server.start()
    assert as_caddy(installation, "/back-again") == 401
    expect(page.get_by_text("GET /back-again")).to_be_visible()


def test_another_way_is_shown_and_copied_whole(with_scripts: Watched) -> None:
    page = with_scripts.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="Node.js").click()
    expect(page).to_have_url(re.compile(r"way=node$"))
    page.get_by_role("button", name="Copy latchkey.mjs").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == Path("docs/clients/latchkey.mjs").read_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_text() == copied


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_of_the_page_fits_and_has_no_barrier(
    browser: Browser, installation: Installation, theme: str
) -> None:
    context = browser.new_context(color_scheme=theme)
    context.set_default_timeout(10_000)
    page = context.new_page()
    enter(page, installation)

    def assert_good(what: str) -> None:
        for width in (1920, 1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert not too_wide(page), (what, width)
        assert barriers(page) == [], what

    for way in WAYS.values():
        page.get_by_role("link", name=way, exact=True).click()
        expect(page.get_by_role("link", name=way, exact=True)).to_have_attribute(
            "aria-current", "true"
        )
        assert_good(way)
    pick(page)
    for ip in ("203.0.113.7", "zzz"):
        page.get_by_label("Permissions").fill("tasks:write tasks:read")
        page.get_by_label("IP address").fill(ip)
        run_test(page)
        result = page.get_by_role("status", name="Result")
        expect(result).to_contain_text("PERMISSION_DENIED" if ip != "zzz" else "Nothing was tested")
        for summary in result.locator("summary").all():
            summary.click()
        assert_good(ip)
    context.close()
