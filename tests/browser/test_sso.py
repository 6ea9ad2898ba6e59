"""Single sign-on through the pages of a real provider (Canaille), in a real browser."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests import provider
from tests.browser.conftest import PASSWORD, sign_in
from tests.provider import Provider
from tests.server import START_SECONDS, RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.service]


@dataclass
class Installation:
    """Latchkey and the provider that it trusts, each a process of its own."""

    latchkey: RunningServer
    provider: Provider

    def age_sessions(self) -> None:
        """As if everybody had signed in an hour ago."""
        with closing(sqlite3.connect(self.latchkey.data_dir / "latchkey.db")) as database:
            database.execute("update session set authenticated_at = authenticated_at - 3600000")
            database.commit()

    def wait_until_noticed(self) -> None:
        """Until what Latchkey knew of the provider is too old to send anybody there."""
        address = f"{self.latchkey.url}/login/sso"
        deadline = time.monotonic() + START_SECONDS
        while requests.get(address, allow_redirects=False, timeout=10).status_code != 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("sso")
    latchkey = RunningServer(folder / "data")
    there = Provider(folder / "provider.log", f"{latchkey.url}/login/sso/callback")
    latchkey.environ.update(
        LATCHKEY_OIDC_ISSUER=there.url,
        LATCHKEY_OIDC_CLIENT_ID=provider.CLIENT_ID,
        LATCHKEY_OIDC_CLIENT_SECRET=provider.CLIENT_SECRET,
        LATCHKEY_OIDC_NAME="Canaille",
        LATCHKEY_OIDC_SCOPES="openid email profile groups",
        LATCHKEY_OIDC_TRUST_EMAIL="yes",
        LATCHKEY_OIDC_ROLE_CLAIM="groups",
        LATCHKEY_OIDC_ROLES="platform=owner, payments=shop:admin",
    )
    with there, latchkey:
        set_up(latchkey)
        yield Installation(latchkey, there)


def set_up(latchkey: RunningServer) -> None:
    """Ada owns it, with a password; there is one project."""
    with requests.Session() as browser:
        form = browser.get(latchkey.setup_url, timeout=10)
        token = re.findall(r'name="csrf_token" value="([^"]+)"', form.text)[0]
        fields = {"email": "ada@example.com", "password": PASSWORD, "project": "Shop"}
        given = {"csrf_token": token, "token": form.url.partition("token=")[2], **fields}
        made = browser.post(f"{latchkey.url}/setup", given, timeout=10)
        assert made.url.endswith("/projects/shop/keys"), made.text


@pytest.fixture
def page(browser: Browser, installation: Installation) -> Iterator[Page]:
    """A new browser profile, which knows neither of the two."""
    context = browser.new_context(base_url=installation.latchkey.url)
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def give_password_there(page: Page, name: str | None = None) -> None:
    """On the provider's own pages."""
    if name is not None:
        page.get_by_label("Login").fill(name)
        page.get_by_label("Login").press("Enter")
    page.locator("input[type=password]").fill(provider.PASSWORD)
    page.locator("input[type=password]").press("Enter")


def test_a_colleague_who_has_no_account(page: Page, installation: Installation) -> None:
    page.goto("/login")
    page.get_by_role("link", name="Sign in with Canaille").click()
    give_password_there(page, "bob")
    page.wait_for_url("**/projects/shop/keys")
    expect(page.get_by_role("link", name="Create API Key").first).to_be_visible()
    expect(page.get_by_role("link", name="People")).to_be_visible()  # admins alone see it

    # The provider still knows who is there, and asks nothing.
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with Canaille").click()
    page.wait_for_url("**/projects/shop/keys")

    # What decides who gets in wants to know anew who is there; and the provider asks.
    installation.age_sessions()
    page.goto("/account/second-factor")
    page.get_by_role("link", name="Confirm with Canaille").click()
    give_password_there(page)
    page.wait_for_url("**/account/second-factor")
    expect(page.get_by_role("textbox", name="Code")).to_be_visible()


def test_somebody_without_a_role_is_told_whom_to_ask(page: Page) -> None:
    page.goto("/login/sso")
    give_password_there(page, "eve")
    page.wait_for_url("**/login/sso/callback*")
    expect(page.get_by_role("alert")).to_contain_text("Nobody has added eve@example.com")


def test_an_owner_links_the_two_and_needs_neither(page: Page, installation: Installation) -> None:
    page.goto("/login/sso")
    give_password_there(page, "ada")
    expect(page.get_by_role("alert")).to_contain_text("is an owner with a password here")
    page.get_by_role("link", name="Use a password").click()
    sign_in(page)
    page.goto("/account")
    page.get_by_role("link", name="Link with Canaille").click()
    expect(page.get_by_text("You can sign in with Canaille, and")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with Canaille").click()
    page.wait_for_url("**/projects/shop/keys")

    # The provider is gone; the owner is not locked out.
    page.get_by_role("button", name="Sign out").click()
    installation.provider.stop()
    installation.wait_until_noticed()
    page.goto("/login?next=/account")
    page.get_by_role("link", name="Sign in with Canaille").click()
    expect(page.get_by_role("alert")).to_contain_text("Canaille does not answer as it should")
    page.get_by_role("link", name="Use a password").click()
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/account")
