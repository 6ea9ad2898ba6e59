"""What pages are dressed in: kept by browsers, never stale; the theme that somebody chose."""

import gzip

import pytest
from flask.testing import FlaskClient

from tests.server import ROOT

NAMES = sorted(path.name for path in (ROOT / "static").iterdir())


def address_of(name: str, page: str) -> str:
    start = page.index(f"/static/{name}")
    return page[start : page.index('"', start)]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_sent_as_it_is_and_compressed_to_whoever_takes_that(
    client: FlaskClient, name: str
) -> None:
    content = (ROOT / "static" / name).read_bytes()
    plain = client.get(f"/static/{name}")
    packed = client.get(f"/static/{name}", headers={"Accept-Encoding": "gzip, br"})
    assert plain.data == content
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == content
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert plain.headers["ETag"] != packed.headers["ETag"]


def test_a_file_under_its_digest_is_kept_and_any_other_is_asked_for_again(
    client: FlaskClient,
) -> None:
    address = address_of("console.css", client.get("/login").text)
    assert "immutable" in client.get(address).headers["Cache-Control"]
    for other in ("/static/console.css", "/static/console.css?v=old"):
        answer = client.get(other)
        assert answer.headers["Cache-Control"] == "no-cache"
        etag = answer.headers["ETag"]
        assert client.get(other, headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("path", ["nothing.css", "../config.py", "%2e%2e/config.py", ""])
def test_nothing_else_is_served(client: FlaskClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_chosen_theme_holds_on_every_page(client: FlaskClient, theme: str) -> None:
    answer = client.post("/theme", data={"theme": theme, "next": "/login?next=/"})
    assert (answer.status_code, answer.location) == (303, "/login?next=/")
    assert f'<html lang="en" data-theme="{theme}">' in client.get("/login").text
    client.post("/theme", data={"theme": "system"})
    assert "data-theme" not in client.get("/login").text


@pytest.mark.parametrize("theme", ["", "pink", '"><script>'])
def test_a_theme_that_is_none_changes_nothing(client: FlaskClient, theme: str) -> None:
    answer = client.post("/theme", data={"theme": theme, "next": "https://evil.example/"})
    assert (answer.location, answer.headers.get("Set-Cookie")) == ("/", None)
    client.set_cookie("theme", theme)
    assert "data-theme" not in client.get("/login").text
