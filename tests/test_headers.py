"""Every kind of answer carries the headers that tell browsers what to refuse and what not to keep;
and to ask for anything by GET changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from config import Config
from console import create_app, journal, webhooks
from console.actor import Actor
from console.models import TABLES, Passkey, Session
from console.web.protection import HEADERS
from tests.conftest import PASSWORD, V1, MakeKey, add_alert, bearer
from tests.routes import routes

HTMX = {"HX-Request": "true", "HX-Target": "dialog"}
# Shown to whoever holds a link, a key, or a second factor: nothing to see without.
NEEDS_MORE_THAN_A_SESSION = {
    "access.join", "access.set_up", "links.log_in_by_link", "links.reset_password",
    "account.make_recovery_codes", "account.remove_second_factor", "api.rate_limit", "api.whoami",
    "calendar.show_feed",
}  # fmt: skip


@pytest.fixture
def values(make_key: MakeKey, signed_in: FlaskClient, owner: Actor) -> dict[str, str]:
    """For every argument in a path, one that leads somewhere."""
    key, secret = make_key(name="CI", permissions=["admin:*"], by=owner)
    assert signed_in.get(f"{V1}/whoami", headers=bearer(secret)).status_code == 200
    journal.settle()
    webhook, _ = webhooks.create(
        {"project": "shop", "url": "https://hooks.example.com/", "events": ["*"]}, by=owner
    )
    passkey = Passkey.create(
        id="passkey", person=owner.id, name="Laptop", public_key=b"", sign_count=0, created_at=0
    )
    return {
        "slug": "shop",
        "key_id": key.id,
        "passkey_id": passkey.id,
        "entry_id": "1",
        "form": "csv",
        "filename": "console.css",
        "name": "nginx.conf",
        "person_id": str(owner.id),
        "webhook_id": webhook.id,
        "delivery_id": webhooks.test(webhook.id, by=owner).id,
        "alert_id": add_alert(key).id,
        "secret": secret,
    }


def assert_protected(answer: TestResponse, what: object) -> None:
    for name, value in HEADERS.items():
        assert answer.headers.getlist(name) == [value], (what, name)
    assert answer.headers["X-Request-Id"].startswith("req_"), what
    assert "Strict-Transport-Security" not in answer.headers, what


def assert_not_kept(answer: TestResponse, what: object) -> None:
    assert answer.headers.getlist("Cache-Control") == ["no-store"], what


def everything() -> dict[str, Any]:
    """All that is stored, but when a session was last seen."""
    journal.settle()
    return {
        table.__name__: sorted(
            repr([value for name, value in row.items() if name != "last_seen_at"])
            for row in table.select().dicts()
        )
        for table in TABLES
    }


@pytest.mark.parametrize("as_fragment", [False, True], ids=["page", "fragment"])
@pytest.mark.parametrize("who", ["owner", "nobody"])
def test_every_route_answers_with_the_headers(
    app: Flask, signed_in: FlaskClient, values: dict[str, str], who: str, as_fragment: bool
) -> None:
    browser = signed_in if who == "owner" else app.test_client()
    credential = bearer(values["secret"]) if who == "owner" else {}
    statuses = set()
    for endpoint, method, path in routes(app, values):
        headers = {**(credential if endpoint.startswith("api.") else {})}
        headers |= HTMX if as_fragment else {}
        answer = browser.open(path, method=method, headers=headers)
        what = (endpoint, method, path, answer.status)
        assert answer.status_code < 500, what
        statuses.add(answer.status_code)
        assert_protected(answer, what)
        if endpoint != "static":
            assert_not_kept(answer, what)
        answer.close()
    assert {200, 303, 404} - ({303} if as_fragment else set()) <= statuses


def test_every_page_is_looked_at_and_asking_for_it_changes_nothing(
    app: Flask, signed_in: FlaskClient, values: dict[str, str]
) -> None:
    token = signed_in.post(
        f"{V1}/auth/token", json={"email": "ada@example.com", "password": PASSWORD}
    ).json["access_token"]
    before, unseen = everything(), set()
    for endpoint, method, path in routes(app, values):
        if method not in ("GET", "HEAD"):
            continue
        is_call = endpoint.startswith("api.")
        for headers in ({}, HTMX) if method == "GET" and not is_call else ({},):
            headers = headers | (bearer(token) if is_call else {})
            with signed_in.open(path, method=method, headers=headers) as answer:
                list(answer.iter_encoded())
            if answer.status_code >= 400:
                unseen.add(endpoint)
    assert everything() == before
    assert unseen <= NEEDS_MORE_THAN_A_SESSION


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/nowhere", HTMX, 404),
        ("DELETE", "/login", {}, 405),
        ("POST", "/login", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/projects/shop/keys", {}, 303),
        ("GET", "/projects/shop/keys", HTMX, 401),
        ("GET", "/static/nowhere.css", {}, 404),
        ("GET", f"{V1}/nowhere", {}, 404),
        ("PUT", f"{V1}/api-keys", {}, 405),
        ("GET", f"{V1}/api-keys", {}, 401),
        ("GET", f"{V1}/api-keys", {"Authorization": "Bearer nonsense"}, 401),
        ("POST", f"{V1}/auth/token", {}, 400),
    ],
)
def test_a_refusal_has_them_too(
    client: FlaskClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.open(path, method=method, headers=headers)
    assert answer.status_code == status
    assert_protected(answer, path)
    assert_not_kept(answer, path)


def test_a_page_that_breaks_has_them_too(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> str:
        raise RuntimeError("broken on purpose")

    monkeypatch.setitem(app.view_functions, "access.log_in", breaks)
    answer = client.get("/login")
    assert answer.status_code == 500
    assert_protected(answer, "a fault")
    assert_not_kept(answer, "a fault")


def test_too_much_and_too_little_have_them_too(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key()
    too_much = signed_in.post(f"/projects/shop/keys/{key.id}/edit", data={"name": "x" * 2_000_000})
    invalid = signed_in.post(f"/projects/shop/keys/{key.id}/edit", data={"name": ""})
    assert (too_much.status_code, invalid.status_code) == (413, 422)
    for answer in (too_much, invalid):
        assert_protected(answer, answer.status)
        assert_not_kept(answer, answer.status)


def test_the_gate_lets_nothing_be_kept(
    client: FlaskClient, values: dict[str, str], app: Flask
) -> None:
    asked = {"X-Original-Method": "GET", "X-Original-URL": "/tasks"}
    as_key = {**asked, **bearer(values["secret"])}
    for method, path, headers, body, status in (
        ("GET", "/forward-auth/nginx", as_key, None, 200),
        ("HEAD", "/forward-auth/nginx", as_key, None, 200),
        ("GET", "/forward-auth/nginx", asked, None, 401),
        ("GET", "/forward-auth/nginx", {}, None, 403),
        ("POST", f"{V1}/verify", bearer(values["secret"]), {"key": "nonsense"}, 200),
        ("POST", f"{V1}/verify", bearer(values["secret"]), {"nonsense": 1}, 400),
        ("GET", f"{V1}/verify", {}, None, 405),
        ("POST", f"{V1}/verify", {}, {"key": "nonsense"}, 401),
    ):
        answer = client.open(path, method=method, headers=headers, json=body)
        assert answer.status_code == status, path
        assert_not_kept(answer, (method, path, status))


def test_what_pages_are_dressed_in_is_kept_by_browsers(client: FlaskClient) -> None:
    page = client.get("/login").text
    start = page.index("/static/console.css")
    answer = client.get(page[start : page.index('"', start)])
    assert_protected(answer, "style sheet")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = client.get("/static/console.css", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.headers["Cache-Control"]) == (304, "no-cache")
    assert_protected(again, "304")


def test_no_session_travels_with_what_caches_keep(signed_in: FlaskClient) -> None:
    page = signed_in.get("/account").text
    start = page.index("/static/console.css")
    answer = signed_in.get(page[start : page.index('"', start)])
    assert answer.headers["Cache-Control"].startswith("public")
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_only_what_changes_a_session_says_it_anew(signed_in: FlaskClient) -> None:
    """A late answer brings back no session that has ended, or was confirmed, meanwhile."""
    signed_in.get("/account")  # the first page makes the token of its forms
    for path in ("/account", "/projects/shop/keys", "/nowhere"):
        assert "Set-Cookie" not in signed_in.get(path).headers, path


def test_signing_out_clears_what_the_browser_keeps_but_not_that_it_is_known(
    signed_in: FlaskClient,
) -> None:
    sessions = Session.select().count()
    answer = signed_in.post("/logout")
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert Session.select().count() == sessions - 1
    assert signed_in.get_cookie("latchkey-browser") is not None
    assert_not_kept(answer, "/logout")


def test_the_headers_are_these(client: FlaskClient) -> None:
    answer = client.get("/login")
    assert {name: answer.headers[name] for name in HEADERS} == {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'; object-src 'none'"
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": (
            "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), "
            "payment=(), serial=(), usb=(), publickey-credentials-create=(self), "
            "publickey-credentials-get=(self)"
        ),
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


# --- https ------------------------------------------------------------------------------------


@pytest.fixture
def on_https(app: Flask, config: Config) -> Iterator[Flask]:
    """The same installation, whose public address is https."""
    journal.close()
    app = create_app(replace(config, base_url="https://keys.example.com"), in_background=False)
    app.config.update(WTF_CSRF_ENABLED=False)
    yield app


def test_on_https_browsers_are_told_to_stay_there(on_https: Flask, owner: Actor) -> None:
    browser = on_https.test_client()
    origin = "https://keys.example.com"
    signed = browser.post(
        "/login", base_url=origin, data={"email": owner.name, "password": PASSWORD}
    )
    assert signed.status_code == 303
    for path in ("/", "/login", "/nowhere", f"{V1}/whoami", "/static/console.css", "/healthz"):
        answer = browser.get(path, base_url=origin)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000", path


def test_on_https_cookies_are_this_hosts_alone(on_https: Flask, owner: Actor) -> None:
    browser = on_https.test_client()
    credentials = {"email": owner.name, "password": PASSWORD}
    answer = browser.post("/login", base_url="https://keys.example.com", data=credentials)
    cookies = answer.headers.getlist("Set-Cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {
        "__Host-latchkey", "__Host-latchkey-browser",
    }  # fmt: skip
    for cookie in cookies:
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
