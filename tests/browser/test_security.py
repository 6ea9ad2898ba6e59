"""In a real browser, with a hostile site beside the console: it can neither act as somebody who is
signed in, nor show the console as its own, nor prepare a session for them."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect

from tests.browser.conftest import PASSWORD, profile, sign_in
from tests.conftest import bearer
from tests.proxies import call
from tests.server import RunningServer

pytestmark = pytest.mark.browser

OWNER = "ada@example.com"
SESSION, KNOWN = "latchkey", "latchkey-browser"
DAY = 24 * 3600
POST = """<!doctype html><form method="post" action="{to}"><input name="email" value="x"></form>
<script>document.forms[0].submit()</script>"""
FRAME = '<!doctype html><iframe src="{to}" width="900" height="700"></iframe>'
EMPTY = "<!doctype html><title>Win a prize</title>"


class HostileSite(ThreadingHTTPServer):
    """Serves `/post?to=…`, a page that sends a form there at once, and `/frame?to=…`.

    To the console on 127.0.0.1 it is another site as localhost, and as 127.0.0.1, on its own port,
    the same site but another origin: then browsers send the cookies along.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pages)

    def url(self, host: str, page: str = "", to: str = "") -> str:
        return f"http://{host}:{self.server_port}/{page}?{urlencode({'to': to})}"


class _Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        page = {"/post": POST, "/frame": FRAME}.get(parts.path, EMPTY)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.format(to=escape(parse_qs(parts.query).get("to", [""])[0])).encode())

    def log_message(self, *given: Any) -> None:
        """Says nothing."""


ANOTHER_SITE, ANOTHER_ORIGIN = "localhost", "127.0.0.1"


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileSite]:
    with HostileSite() as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield site
        site.shutdown()
        thread.join()


class Console(RunningServer):
    """With an owner, and a key in the project `shop`."""

    def prepare(self) -> None:
        self.run("create-admin", "--email", OWNER, "--password-stdin", stdin=PASSWORD)
        self.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        made = self.run("create-key", "--project", "shop", "--name", "CI", "--json")
        self.key = json.loads(made.stdout)
        self.targets = [
            f"{self.url}{path}"
            for path in (
                "/logout",
                "/login",
                "/theme",
                f"/projects/shop/keys/{self.key['id']}/revoke",
            )
        ]

    def is_key_active(self) -> bool:
        return call(self.port, "/api/v1/whoami", headers=bearer(self.key["key"])).status == 200


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with Console(tmp_path_factory.mktemp("security") / "data") as server:
        server.prepare()
        yield server


@pytest.fixture(scope="module")
def signed_in(browser: Browser, console: Console) -> StorageState:
    return profile(browser, console.url)


@pytest.fixture
def context(
    browser: Browser, console: Console, signed_in: StorageState
) -> Iterator[BrowserContext]:
    """The victim's browser, in which the owner is signed in."""
    context = browser.new_context(base_url=console.url, storage_state=signed_in)
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def stranger(browser: Browser, console: Console) -> Iterator[BrowserContext]:
    """A browser that has never been here."""
    context = browser.new_context(base_url=console.url)
    context.set_default_timeout(10_000)
    yield context
    context.close()


def cookie(context: BrowserContext, name: str) -> dict[str, Any] | None:
    found = [one for one in context.cookies() if one.get("name") == name]
    return dict(found[0]) if found else None


def is_signed_in(context: BrowserContext) -> bool:
    page = context.new_page()
    page.goto("/projects/shop/keys")
    return urlsplit(page.url).path == "/projects/shop/keys"


# --- another site -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "site"), [(ANOTHER_SITE, "cross-site"), (ANOTHER_ORIGIN, "same-site")]
)
def test_a_form_of_another_origin_does_nothing(
    context: BrowserContext, console: Console, hostile: HostileSite, host: str, site: str
) -> None:
    page = context.new_page()
    for to in console.targets:
        with page.expect_response(to) as answered:
            page.goto(hostile.url(host, "post", to))
        sent = answered.value.request.all_headers()
        # The cookie's SameSite keeps it from another site; from this one the other guards are left.
        assert (f"{SESSION}=" in sent.get("cookie", "")) == (host == ANOTHER_ORIGIN)
        assert (sent["sec-fetch-site"], answered.value.status) == (site, 403)
        expect(
            page.get_by_text("Another site asked for this, so nothing was done.")
        ).to_be_visible()
    assert is_signed_in(context)
    assert console.is_key_active()


def test_a_script_of_another_origin_neither_does_nor_reads_anything(
    context: BrowserContext, console: Console, hostile: HostileSite
) -> None:
    page = context.new_page()
    page.goto(hostile.url(ANOTHER_ORIGIN))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    to = console.targets[-1]
    for mode in ("no-cors", "cors"):
        page.evaluate(
            """([to, mode]) => fetch(to, {method: 'POST', mode, credentials: 'include',
                headers: {'Content-Type': 'application/x-www-form-urlencoded'}}).catch(String)""",
            [to, mode],
        )
    assert sent.count("POST") == 2
    assert console.is_key_active()
    for path in ("/projects/shop/keys", "/api/v1/openapi.json", "/static/latchkey.svg"):
        assert "Failed to fetch" in page.evaluate(
            "to => fetch(to, {credentials: 'include'}).then(a => a.text(), String)",
            console.url + path,
        )
    # Not even as a picture, whose size would tell something.
    assert page.evaluate(
        """to => new Promise(done => {const image = new Image()
            image.onload = () => done(false); image.onerror = () => done(true); image.src = to})""",
        f"{console.url}/static/latchkey.svg",
    )
    assert is_signed_in(context)


def test_no_page_can_be_framed(
    context: BrowserContext, console: Console, hostile: HostileSite
) -> None:
    page = context.new_page()
    for path in ("/projects/shop/keys", "/login", "/api/docs", "/nowhere"):
        with page.expect_response(console.url + path) as answered:
            page.goto(hostile.url(ANOTHER_ORIGIN, "frame", console.url + path))
        assert f"{SESSION}=" in answered.value.request.all_headers()["cookie"]
        framed = page.frames[1]
        framed.wait_for_load_state()
        assert framed.url == "chrome-error://chromewebdata/"
        assert "Latchkey" not in framed.content()


def test_who_opens_the_console_in_a_window_holds_no_handle_on_it(
    context: BrowserContext, console: Console, hostile: HostileSite
) -> None:
    page = context.new_page()
    page.goto(hostile.url(ANOTHER_ORIGIN))
    with context.expect_page() as opened:
        page.evaluate("to => { window.theirs = open(to) }", f"{console.url}/projects/shop/keys")
    opened.value.get_by_role("heading", name="Keys", exact=True).wait_for()
    assert page.evaluate("theirs.closed") is True
    assert opened.value.evaluate("opener") is None


# --- sessions ---------------------------------------------------------------------------------


def test_a_session_that_was_planted_before_is_worthless_after_the_sign_in(
    stranger: BrowserContext, browser: Browser, console: Console
) -> None:
    attacker = browser.new_context(base_url=console.url)
    theirs = attacker.new_page()
    theirs.goto("/login")
    token = theirs.locator("[name=csrf_token]").first.input_value()
    planted = cookie(attacker, SESSION)
    assert planted is not None
    stranger.add_cookies([{"name": SESSION, "value": planted["value"], "url": console.url}])

    page = stranger.new_page()
    sign_in(page)
    own = cookie(stranger, SESSION)
    assert own is not None and own["value"] != planted["value"]
    assert page.locator("[name=csrf_token]").first.input_value() != token

    assert not is_signed_in(attacker)
    # What the attacker knew of the session before is no token of the one that there is now.
    answer = page.evaluate(
        """token => fetch('/logout', {method: 'POST', redirect: 'manual',
            body: new URLSearchParams({csrf_token: token})}).then(answer => answer.status)""",
        token,
    )
    assert answer == 400
    assert is_signed_in(stranger)
    attacker.close()


def test_a_cookie_that_was_kept_opens_nothing_after_the_sign_out(
    stranger: BrowserContext, browser: Browser, console: Console
) -> None:
    page = stranger.new_page()
    sign_in(page)
    kept = stranger.storage_state()
    thief = browser.new_context(base_url=console.url, storage_state=kept)
    assert is_signed_in(thief)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    assert not is_signed_in(thief)
    assert not is_signed_in(stranger)
    assert cookie(stranger, KNOWN) is not None
    thief.close()


def test_cookies_are_for_this_host_and_no_script(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/projects/shop/keys")
    for name, days in ((SESSION, 14), (KNOWN, 180)):
        found = cookie(context, name)
        now = page.evaluate("Date.now() / 1000")
        assert found is not None
        assert (found["httpOnly"], found["sameSite"], found["path"]) == (True, "Lax", "/")
        assert found["domain"] == "127.0.0.1"  # without a dot: no other host's
        assert (days - 1) * DAY < found["expires"] - now <= days * DAY
    assert page.evaluate("document.cookie") == ""
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert not any(one["value"] in kept for one in context.cookies())


# --- guessing ---------------------------------------------------------------------------------


def test_strangers_who_guess_are_told_to_wait_and_the_known_browser_is_not(
    stranger: BrowserContext, context: BrowserContext, console: Console
) -> None:
    known = context.new_page()
    known.goto("/projects/shop/keys")
    known.get_by_role("button", name="Sign out").click()
    guess = json.dumps({"email": OWNER, "password": "wrong"})
    headers = {"X-Forwarded-For": "203.0.113.9", "Content-Type": "application/json"}
    answer = call(console.port, "/api/v1/auth/token", "POST", headers=headers, body=guess)
    assert answer.status == 401
    with closing(sqlite3.connect(console.data_dir / "latchkey.db")) as database:
        # As after a quarter of an hour of it, which a test cannot wait for.
        database.execute("update throttle set count = 16 where subject like 'account:%'")
        database.commit()

    page = stranger.new_page()
    page.goto("/login")
    fill_in(page)
    with page.expect_response("**/login") as answered:
        page.get_by_role("button", name="Sign in").click()
    assert answered.value.status == 429
    assert 600 < int(answered.value.headers["retry-after"]) <= 900
    expect(page.get_by_role("alert")).to_contain_text("Too many wrong attempts")
    expect(page.get_by_label("Email")).to_have_value(OWNER)
    expect(page.get_by_label("Password")).to_have_value("")

    known.wait_for_url("**/login")
    sign_in(known)
    expect(known.get_by_role("heading", name="Keys", exact=True)).to_be_visible()


def fill_in(page: Page) -> None:
    page.get_by_label("Email").fill(OWNER)
    page.get_by_label("Password").fill(PASSWORD)
