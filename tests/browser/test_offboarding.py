"""Somebody leaves: their keys on one page, handed over and rotated until all are settled."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.conftest import bearer
from tests.server import RunningServer

pytestmark = pytest.mark.browser


class Company:
    """A server with an owner, and people who leave."""

    def __init__(self, server: RunningServer) -> None:
        self.url = server.url
        server.run("create-admin", "--email", "ada@example.com", "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        self.ada = self.token("ada@example.com")

    def leave(self, name: str) -> str:
        """The page of an admin with two keys, who leaves."""
        email = f"{name}@example.com"
        roles = {"shop": "admin"}
        fields = {"email": email, "name": name, "password": PASSWORD, "roles": roles}
        person_id = self.post("/people", self.ada, fields)["id"]
        token = self.token(email)
        for key in ("Deploy", "Export"):
            self.post("/api-keys", token, {"name": key, "permissions": ["tasks:read"]})
        return f"{self.url}/people/{person_id}/offboarding"

    def token(self, email: str) -> str:
        given = {"email": email, "password": PASSWORD}
        return str(self.post("/auth/token", None, given)["access_token"])

    def post(self, path: str, token: str | None, body: Any) -> Any:
        headers = bearer(token) if token else {}
        answer = requests.post(f"{self.url}/api/v1{path}", json=body, headers=headers, timeout=10)
        assert answer.ok, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with RunningServer(tmp_path_factory.mktemp("offboarding") / "data") as server:
        yield Company(server)


def test_keys_are_handed_over_and_rotated_until_all_are_settled(
    company: Company, watched: Watched, request: pytest.FixtureRequest
) -> None:
    sign_in(watched.page, company.url)
    watched.page.goto(company.leave(request.node.callspec.id.replace(" ", "-")))
    page = watched.page
    expect(page.get_by_text("2 keys are theirs or known to them; 0 are settled.")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="Deploy")
    expect(row).to_contain_text("Owns it, has seen its secret, made it")
    here = page.url

    page.get_by_role("link", name="Hand over Deploy").click()
    page.get_by_label("New owner").fill("nobody@example.com")
    page.get_by_role("button", name="Hand Over Key").click()
    expect(
        page.get_by_text("Must be the address of somebody who can sign in and has")
    ).to_be_visible()
    page.get_by_label("New owner").fill("ada@example.com")
    page.get_by_role("button", name="Hand Over Key").click()
    expect(row).to_contain_text(re.compile("Has seen its secret, made it"))
    expect(page.get_by_text("0 are settled")).to_be_visible()

    page.get_by_role("link", name="Rotate Deploy").click()
    page.get_by_label("Type the key's name").fill("Deploy")
    page.get_by_role("button", name="Rotate Key").click()
    expect(page.get_by_text("This is the only time")).to_be_visible()
    page.goto(here)
    expect(page.get_by_text("1 is settled")).to_be_visible()
    expect(row).to_contain_text("Settled")

    page.get_by_role("link", name="Revoke Export").click()
    page.get_by_role("button", name="Revoke Key").click()
    expect(page.get_by_text("Export revoked").first).to_be_visible()
    page.goto(here)
    expect(page.get_by_text("2 keys are theirs or known to them; all settled.")).to_be_visible()
    # What was refused beside its field is an error for the browser's console, too.
    assert [one for one in watched.complaints if "422" not in one] == []


def test_the_page_fits_a_telephone_and_everybody(company: Company, browser: Browser) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, color_scheme="dark", base_url=company.url
    )
    context.set_default_timeout(10_000)
    page = context.new_page()
    sign_in(page)
    here = company.leave("grace")
    for path in (here, "/activity"):
        page.goto(path)
        assert not too_wide(page), path
        assert barriers(page) == [], path
    page.locator("summary", has_text="Details").first.click()
    assert not too_wide(page)
    assert barriers(page) == []
    page.goto(here)
    for link, button in (
        ("Hand over all 2", "Hand Over 2 Keys"), ("Revoke all 2", "Revoke 2 Keys"),
    ):  # fmt: skip
        page.get_by_role("link", name=link).click()
        expect(page.get_by_role("button", name=button)).to_be_visible()
        assert not too_wide(page), link
        assert barriers(page) == [], link
        page.keyboard.press("Escape")
    context.close()
