"""A real browser (Debian's chromium through Playwright), with or without scripts."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, Response, sync_playwright

from tests.conftest import need

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = need("chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)


@dataclass
class Watched:
    """A page, and all that it received and complained about."""

    page: Page
    answers: list[tuple[str, str]] = field(default_factory=list)  # address, body
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("response", self._keep)
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
