"""A real browser (Debian's chromium through Playwright), with or without scripts."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, StorageState, sync_playwright

from tests.conftest import need
from tests.server import RunningServer

PASSWORD = "correct horse battery"

# Everything that moves and ends has ended.
AT_REST = """() => Promise.all(document.getAnimations()
  .filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime))
  .map((one) => one.finished.catch(() => null))).then(() => null)"""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file: while it is open its event loop runs in this thread, which tests of other
    files may need for their own."""
    # The same browser without windows of its own, where Debian's package is there: half the work.
    chromium = shutil.which("chromium-headless-shell") or need("chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with its owner, ada@example.com, and the project shop; one for each file."""
    with RunningServer(tmp_path_factory.mktemp("installed") / "data") as server:
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        yield server


@dataclass
class Watched:
    """A page, and all that it received and complained about."""

    page: Page
    answers: list[tuple[str, str]] = field(default_factory=list)  # address, body
    complaints: list[str] = field(default_factory=list)
    hosts: set[str | None] = field(default_factory=set)

    def watch(self) -> None:
        self.page.on("response", self._keep)
        self.page.on("request", lambda one: self.hosts.add(urlsplit(one.url).hostname))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda message: message.type == "error" and self.complaints.append(message.text),
        )

    def _keep(self, response: Response) -> None:
        if response.request.resource_type in ("document", "xhr", "fetch"):
            body = "" if 300 <= response.status < 400 else response.text()
            self.answers.append((response.url, body))


@pytest.fixture(params=["scripts on", "scripts off"])
def watched(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A new browser profile of 1280 × 800, once with scripts and once without."""
    context = browser.new_context(
        java_script_enabled=request.param == "scripts on", viewport={"width": 1280, "height": 800}
    )
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.watch()
    yield watched
    context.close()


def sign_in(
    page: Page, url: str = "", *, email: str = "ada@example.com", password: str = PASSWORD
) -> None:
    """As the owner; `url` is the installation's where the browser profile does not know it."""
    page.goto(f"{url}/login")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
    page.wait_for_load_state("load")


def profile(browser: Browser, url: str) -> StorageState:
    """The cookies of the signed-in owner, to begin other browser profiles with."""
    context = browser.new_context(base_url=url)
    sign_in(context.new_page())
    kept = context.storage_state()
    context.close()
    return kept


def too_wide(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def barriers(page: Page) -> list[str]:
    """What axe-core finds on the page as it stands, its open dialog included."""
    page.emulate_media(reduced_motion="reduce")  # what fades in is pale: nothing begins to
    page.evaluate(AT_REST)
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:200]}" for one in found
        for node in one["nodes"]
    ]  # fmt: skip
