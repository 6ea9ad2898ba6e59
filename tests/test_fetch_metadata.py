"""A change is asked for by the console's own pages alone, whoever's cookies come with it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from config import Config
from console import create_app, journal
from console.actor import Actor
from console.models import Key
from console.web.protection import SAFE_METHODS
from tests.conftest import PASSWORD, V1, MakeKey, bearer, sign_in
from tests.routes import routes
from tests.test_headers import everything

HERE = "http://localhost"  # what the test's client calls the console
ALLOWED = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},  # the browser's own word is enough
    {"Origin": HERE},
    {"Origin": "http://127.0.0.1:8000"},  # the public address
    {},  # no browser since 2020: the token is left to show
]
REFUSED = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "Same-Origin, cross-site"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "http://sub.localhost"},
    {"Origin": "file://localhost"},
    {"Origin": "localhost"},
]


@pytest.mark.parametrize("headers", ALLOWED, ids=str)
def test_what_the_consoles_own_pages_ask_for_is_done(
    signed_in: FlaskClient, make_key: MakeKey, headers: dict[str, str]
) -> None:
    key, _ = make_key()
    answer = signed_in.post(f"/projects/shop/keys/{key.id}/revoke", headers=headers)
    assert answer.status_code == 303
    assert Key.get_by_id(key.id).revoked_at is not None


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_what_another_site_asks_for_is_not_done(
    signed_in: FlaskClient, make_key: MakeKey, headers: dict[str, str]
) -> None:
    key, _ = make_key()
    answer = signed_in.post(f"/projects/shop/keys/{key.id}/revoke", headers=headers)
    assert answer.status_code == 403
    assert "Another site asked for this, so nothing was done." in answer.text
    assert Key.get_by_id(key.id).revoked_at is None


def test_no_page_does_what_another_site_asks_for(
    app: Flask, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    before, asked = everything(), 0
    for endpoint, method, path in routes(app, {"slug": "shop", "key_id": key.id}):
        if method in SAFE_METHODS or endpoint.startswith("api."):
            continue
        answer = signed_in.open(path, method=method, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403, path
        asked += 1
    assert asked > 10
    assert everything() == before


def test_to_look_is_free_wherever_a_link_is(signed_in: FlaskClient) -> None:
    for method in SAFE_METHODS:
        answer = signed_in.open(
            "/projects/shop/keys", method=method, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert answer.status_code == 200


def test_the_api_takes_no_cookie_so_it_may_be_asked_from_anywhere(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key(permissions=["keys:manage"])
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}
    body = {"description": "from elsewhere"}
    path = f"{V1}/api-keys/{key.id}"
    assert signed_in.patch(path, json=body, headers=elsewhere).status_code == 401
    by_key = {**elsewhere, **bearer(secret)}
    assert signed_in.patch(path, json=body, headers=by_key).status_code == 200


def test_nowhere_is_nowhere_and_not_another_sites(client: FlaskClient) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client.post("/nowhere", headers=elsewhere).status_code == 404
    assert client.post("/healthz", headers=elsewhere).status_code == 405


def test_without_both_the_token_alone_refuses(app: Flask, owner: Actor, make_key: MakeKey) -> None:
    browser, (key, _) = sign_in(app, owner), make_key()
    app.config.update(WTF_CSRF_ENABLED=True)
    path = f"/projects/shop/keys/{key.id}/revoke"
    assert browser.post(path).status_code == 400
    assert Key.get_by_id(key.id).revoked_at is None
    page = browser.get(path).text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    assert browser.post(path, data={"csrf_token": token}).status_code == 303


def test_the_token_of_another_session_is_worth_nothing(app: Flask, owner: Actor) -> None:
    app.config.update(WTF_CSRF_ENABLED=True)
    thief = app.test_client()
    page = thief.get("/login").text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    credentials = {"email": owner.name, "password": PASSWORD, "csrf_token": token}
    assert app.test_client().post("/login", data=credentials).status_code == 400
    assert thief.post("/login", data=credentials).status_code == 303
    # The token from before the sign-in is worth nothing after it.
    assert thief.post("/logout", data={"csrf_token": token}).status_code == 400


# --- behind a proxy that ends TLS -------------------------------------------------------------


@pytest.fixture
def on_https(app: Flask, config: Config) -> Iterator[Flask]:
    """The same installation, whose public address is https; to it, all come by http."""
    journal.close()
    app = create_app(replace(config, base_url="https://keys.example.com"), in_background=False)
    app.config.update(WTF_CSRF_ENABLED=False)
    yield app


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://keys.example.com", 303),
        ("https://localhost", 303),  # another name that leads here
        ("http://keys.example.com", 403),  # who can write there is not to be trusted
        ("http://localhost", 403),
        ("https://example.com", 403),
        ("https://keys.example.com:8443", 403),
    ],
)
def test_the_public_address_is_our_own(on_https: Flask, origin: str, status: int) -> None:
    answer = on_https.test_client().post("/theme", headers={"Origin": origin})
    assert answer.status_code == status
