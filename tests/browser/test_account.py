"""One person from invitation to the end, in a browser with scripts and without: they join, set up
an authenticator app, sign out and in with its code, and are disabled."""

import time

import pyotp
import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, too_wide
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser


class Owner:
    """Who invites the person, and disables them; through the API."""

    def __init__(self, server: RunningServer) -> None:
        self.url = f"{server.url}/api/v1"
        credentials = {"email": "ada@example.com", "password": PASSWORD}
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        answer = requests.post(f"{self.url}/auth/token", json=credentials, timeout=10)
        self.token = bearer(answer.json()["access_token"])

    def call(self, method: str, path: str, body: object) -> dict[str, str]:
        answer = requests.request(
            method, self.url + path, json=body, headers=self.token, timeout=10
        )
        assert answer.ok, answer.text
        return answer.json()  # type: ignore[no-any-return]


def look(page: Page, *, scripts: bool) -> None:
    """Nobody is shut out, on a phone or in the dark either."""
    page.set_viewport_size({"width": 390, "height": 844})
    assert not too_wide(page)
    if scripts:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            assert barriers(page) == []
    page.set_viewport_size({"width": 1280, "height": 800})


def test_from_the_invitation_to_the_end(
    watched: Watched, server: RunningServer, request: pytest.FixtureRequest
) -> None:
    page, owner = watched.page, Owner(server)
    scripts = "scripts on" in request.node.name
    person = owner.call(
        "POST", "/people", {"email": "grace@example.com", "roles": {"shop": "member"}}
    )

    page.goto(person["invitation_url"])
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()

    page.get_by_role("link", name="grace@example.com").click()
    look(page, scripts=scripts)
    page.get_by_role("link", name="Set up an app").click()
    expect(page.get_by_role("heading", name="Set up an authenticator app")).to_be_visible()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    look(page, scripts=scripts)
    app = pyotp.TOTP(page.locator("#seed-text").inner_text().replace(" ", ""))
    page.get_by_label("Code", exact=True).fill("12345")
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_text("Is not the one that the app shows now")).to_be_visible()
    enrolled_at = time.time()
    page.get_by_label("Code", exact=True).fill(app.at(int(enrolled_at)))
    page.get_by_role("button", name="Turn on").click()
    expect(page.get_by_text("the only time you see your recovery codes")).to_be_visible()
    look(page, scripts=scripts)
    codes = page.locator("#recovery-codes").inner_text().split()
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_text("10 recovery codes left")).to_be_visible()
    assert not any(code in page.content() for code in codes)

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Email").fill("grace@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    look(page, scripts=scripts)
    page.get_by_label("Code", exact=True).fill(app.at(int(enrolled_at) + 30))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Keys", exact=True)).to_be_visible()

    owner.call("PATCH", f"/people/{person['id']}", {"disabled": True})
    page.get_by_role("link", name="grace@example.com").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert len([body for _, body in watched.answers if codes[0] in body]) == 1
    kept = server.log + "".join(
        path.read_bytes().decode(errors="ignore") for path in server.data_dir.rglob("*.db*")
    )
    assert app.secret not in kept and not any(code in kept for code in codes)
