"""People in a real browser: invited, joined in another browser, given another role, signed out by
it, disabled; all of it at 390 pixels, too."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PASSWORD, Watched, barriers, sign_in, too_wide
from tests.server import RunningServer

pytestmark = pytest.mark.browser


@dataclass
class Two:
    """Two browsers at one installation: the owner's, signed in, and somebody else's."""

    owners: Page
    others: Page
    complaints: list[str]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("people") / "data") as server:
        for command in (
            ("create-admin", "--email", "ada@example.com", "--name", "Ada", "--password-stdin"),
            ("create-project", "--slug", "shop", "--name", "Shop"),
        ):
            server.run(*command, stdin=PASSWORD).check_returncode()
        yield server


@pytest.fixture(params=[(1280, True), (390, True), (1280, False)],
                ids=["wide", "narrow", "without scripts"])  # fmt: skip
def two(
    browser: Browser, installation: RunningServer, request: pytest.FixtureRequest
) -> Iterator[Two]:
    width, scripts = request.param
    kind = {"base_url": installation.url, "java_script_enabled": scripts,
            "viewport": {"width": width, "height": 844}, "reduced_motion": "reduce"}  # fmt: skip
    contexts = [browser.new_context(**kind) for _ in range(2)]
    for context in contexts:
        context.set_default_timeout(10_000)
    watched = Watched(contexts[0].new_page())
    watched.watch()
    sign_in(watched.page)
    yield Two(watched.page, contexts[1].new_page(), watched.complaints)
    for context in contexts:
        context.close()


def examine(page: Page) -> None:
    """The page as it stands, its open dialog included; by axe-core once, and it needs scripts."""
    assert not too_wide(page)
    if page.evaluate("document.documentElement.matches('.js') && innerWidth > 800"):
        assert barriers(page) == []


def test_from_the_invitation_to_the_last_sign_out(two: Two, request: pytest.FixtureRequest) -> None:
    owners, others = two.owners, two.others
    email = f"grace-{request.node.callspec.id.replace(' ', '-')}@example.com"
    has_scripts = "scripts" not in email

    owners.goto("/people")
    examine(owners)
    owners.get_by_role("link", name="Invite a person").click()
    owners.get_by_label("Email").fill(email)
    owners.get_by_label("Name", exact=True).fill("Grace Hopper")
    owners.get_by_label("Shop").select_option("Member")
    examine(owners)
    owners.get_by_role("button", name="Invite", exact=True).click()
    expect(owners.get_by_role("heading", name="Grace Hopper is invited")).to_be_visible()
    examine(owners)
    link = owners.locator("#link").inner_text()
    assert link not in owners.url
    owners.get_by_role("button", name="Done").click()
    row = owners.get_by_role("row").filter(has_text=email)
    expect(row).to_contain_text("Invited")

    others.goto(link)
    others.get_by_label("Password").fill(PASSWORD)
    others.get_by_role("button").last.click()
    others.wait_for_url("**/projects/shop/keys")
    expect(others.get_by_role("heading", name="Keys", exact=True)).to_be_visible()
    assert others.goto("/projects/shop/people").status == 403
    expect(others.get_by_text("see and change who is in it")).to_be_visible()

    owners.goto("/projects/shop/people")
    examine(owners)
    row = owners.get_by_role("row").filter(has_text=email)
    row.get_by_role("link", name="Change role").click()
    owners.get_by_label("Viewer").check()
    examine(owners)
    owners.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("Viewer")
    if has_scripts:
        expect(owners.get_by_role("dialog")).to_be_hidden()
    others.goto("/projects/shop/keys")
    expect(others.get_by_role("button", name="Sign in")).to_be_visible()
    sign_in(others, email=email)
    expect(others.get_by_role("button", name="Create API Key")).to_have_count(0)

    row.get_by_role("link", name="Grace Hopper", exact=True).click()
    expect(owners.get_by_role("heading", name="Grace Hopper")).to_be_visible()
    examine(owners)
    owners.get_by_role("link", name="Disable").click()
    expect(owners.get_by_text("No active key is theirs.")).to_be_visible()
    examine(owners)
    owners.get_by_role("button", name="Disable").click()
    owners.wait_for_url("**/offboarding")
    others.goto("/projects/shop/keys")
    expect(others.get_by_role("button", name="Sign in")).to_be_visible()
    assert two.complaints == []
