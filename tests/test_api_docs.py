"""The API reference: every call is on it, in safe words, and every curl line runs as shown."""

import html
import json
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, render_template
from flask.testing import FlaskClient

from console.api import document
from console.web import docs
from console.web.protection import CONTENT_POLICY
from tests.conftest import PASSWORD, need
from tests.server import RunningServer

OWNER = "ada@example.com"
ONLY_BY_KEY = "Needs a key, and no permission."
# Of what a call makes, these must be new each time; all else is as in the document's example.
FRESH = {"slug": "fresh-{}", "email": "fresh-{}@example.com"}
# Where a thing is made by a POST elsewhere than among its like.
MADE_AT = {
    "/api/v1/webhooks/{webhook_id}/deliveries": "/api/v1/webhooks/{webhook_id}/test",
}
ALERTS, ALERT_SECONDS = "/api/v1/alerts", 30
# What has to be done with a thing before the line can be run.
FIRST = {
    "set_grace": "/api/v1/api-keys/{key_id}/rotate",
    "remove_calendar_link": "/api/v1/projects/{slug}/calendar",
}

VARIABLE = re.compile(r"\$(?!LATCHKEY_)([A-Z_]+)")


@dataclass
class Shown:
    """One call as a reader sees it."""

    name: str
    method: str
    path: str
    status: str
    curl: str
    text: str


def shown(page: str) -> list[Shown]:
    sections = re.findall(r'<section class="call" id="(\w+)".*?>(.*?)</section>', page, re.DOTALL)
    return [_read(name, section) for name, section in sections if name != "start"]


def _read(name: str, section: str) -> Shown:
    def one(pattern: str) -> str:
        return html.unescape(re.findall(pattern, section, re.DOTALL)[0])

    apart = re.sub(r"</(dt|p|figcaption)>", " ", section)
    return Shown(
        name=name,
        method=one(r'<p class="operation"><code><strong class="\w+">(\w+)<'),
        path=one(r'<p class="operation"><code><strong.*?</strong> (.*?)<'),
        status=one(r'<code class="good-text">(\d+)<'),
        curl=one(r'<pre id="curl-\w+" tabindex="0">(.*?)</pre>'),
        text=" ".join(html.unescape(re.sub(r"<[^>]+>", "", apart)).split()),
    )


@pytest.fixture
def page(client: FlaskClient) -> str:
    return client.get("/api/docs").text


def operations(described: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


@pytest.fixture
def described(app: Flask) -> dict[str, Any]:
    return document.build(app.config["LATCHKEY"].base_url)


def test_every_call_of_the_document_is_on_the_page(page: str, described: dict[str, Any]) -> None:
    calls = shown(page)
    assert {(call.method, call.path) for call in calls} == set(operations(described))
    assert len(calls) == len(operations(described)) > 10
    for call in calls:
        assert f'<a href="#{call.name}">' in page.partition("</nav>")[0], "not among the contents"


def test_every_curl_line_is_a_call_of_the_document(page: str, described: dict[str, Any]) -> None:
    for call in shown(page):
        words = shlex.split(call.curl)
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        [address] = [word for word in words if word.startswith("$LATCHKEY_URL")]
        path = VARIABLE.sub(lambda name: f"{{{name[1].lower()}}}", address)
        operation = operations(described)[method, path.removeprefix("$LATCHKEY_URL")]
        assert operation["operationId"] == call.name
        has_credential = "Authorization: Bearer $LATCHKEY_KEY" in words
        assert has_credential is (operation.get("security") != [])


def test_every_call_that_needs_a_body_shows_one(page: str, described: dict[str, Any]) -> None:
    for call in shown(page):
        body = operations(described)[call.method, call.path].get("requestBody", {})
        if body.get("required"):
            example = body["content"][document.JSON]["example"]
            words = shlex.split(call.curl)
            assert json.loads(words[words.index("-d") + 1]) == example


def test_a_call_says_what_it_takes_answers_and_refuses(app: Flask) -> None:
    thing = {
        "type": "object",
        "description": "A thing",
        "required": ["id"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 2000, "default": 7},
            "id": {"type": "string", "description": "Its `id`", "examples": ["it_1"]},
            "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
        },
        "not": {"required": ["size", "parts"]},
    }
    part = {
        "type": "object",
        "description": "A part of it",
        "properties": {"kind": {"type": "string", "enum": ["cog", "rod"]}},
    }
    content = {document.JSON: {"schema": {"$ref": "#/components/schemas/Thing"}}}
    operation = {
        "operationId": "edit_thing",
        "tags": ["Things"],
        "summary": "Makes <things>",
        "description": "More of it.\n\nNeeds the permission `things:write`.",
        "parameters": [
            {"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "loud", "in": "query", "schema": {"type": "boolean", "default": True}},
        ],
        "requestBody": {"content": content},
        "responses": {
            "201": {"description": "Done", "content": {**content, "text/csv": {}}},
            "409": {"$ref": "#/components/responses/409"},
        },
    }
    described = {
        "info": {"description": "About."},
        "servers": [{"url": "http://localhost"}],
        "tags": [{"name": "Things"}],
        "paths": {"/things/{thing_id}": {"put": operation}},
        "components": {
            "responses": {"409": {"description": "`TAKEN`"}},
            "schemas": {"Thing": thing, "Part": part},
        },
    }
    with app.test_request_context():
        [call] = shown(render_template("docs/show.html", **docs.page(described)))
    fields = "id string{} Its id.{} size whole number, 1 to 2,000{} parts list of objects{}"
    expected = " ".join(
        [
            "Edit thing PUT /things/{thing_id} Makes <things>. More of it.",
            "Needs the permission things:write.",
            'curlCopy curl -X PUT "$LATCHKEY_URL/things/$THING_ID" \\',
            '-H "Authorization: Bearer $LATCHKEY_KEY"',
            "In the path thing_id string required The id of a thing.",
            "In the query loud true or false Default true.",
            "Body A thing.",
            fields.format(" required", " For example it_1", " Default 7.", ""),
            "A part of it. kind string One of cog, rod. size or parts, not both.",
            "Answers 201 A thing. Also as text/csv. Fields of the answer",
            fields.format("", "", " not always there", " not always there"),
            "A part of it. kind string not always there One of cog, rod.",
            "Refusals 409 409 TAKEN.",
        ]
    )
    assert call.text == expected


def test_a_change_is_shown_without_defaults_since_what_is_not_sent_stays(page: str) -> None:
    [text] = [call.text for call in shown(page) if call.name == "edit_key"]
    assert "status string One of active, revoked." in text
    assert "Default" not in text


def test_the_page_explains_every_variable_of_its_curl_lines(page: str) -> None:
    start = page.partition('id="start"')[2].partition("</section>")[0]
    used = {name for call in shown(page) for name in VARIABLE.findall(call.curl)}
    assert "KEY_ID" in used
    for name in used:
        assert f"<code>{name}</code>" in start
    assert re.search(r"export LATCHKEY_URL=http\S+\nexport LATCHKEY_KEY=", start)


def test_the_refusal_shown_is_the_one_that_is_answered(page: str, client: FlaskClient) -> None:
    found = re.findall(r'<pre id="refusal" tabindex="0">(.*?)</pre>', page, re.DOTALL)[0]
    answered = client.post("/api/v1/auth/token", json={"email": "", "password": ""}).get_json()
    assert json.loads(html.unescape(found)).keys() >= answered.keys() - {"errors"}


def test_the_page_keeps_the_content_policy(client: FlaskClient) -> None:
    answer = client.get("/api/docs")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == CONTENT_POLICY
    assert not re.search(r"\sstyle=|<style|\son\w+=", answer.text)
    scripts = re.findall(r"<script(.*?)>(.*?)</script>", answer.text, re.DOTALL)
    assert all('src="/static/' in attributes and not body for attributes, body in scripts)
    assert "://" not in "".join(re.findall(r'(?:src|href)="(.*?)"', answer.text))


def test_anybody_may_read_it_and_who_is_signed_in_keeps_the_rail(
    client: FlaskClient, signed_in: FlaskClient
) -> None:
    assert "Sign out" not in client.get("/api/docs").text
    assert "Sign out" in signed_in.get("/api/docs").text


def test_no_id_occurs_twice(page: str) -> None:
    ids = re.findall(r'\sid="(.*?)"', page)
    assert len(ids) == len(set(ids))


def test_descriptions_are_text_and_never_markup() -> None:
    assert docs.marked("<b> & `a<b` and `c`") == (
        "&lt;b&gt; &amp; <code>a&lt;b</code> and <code>c</code>."
    )
    assert docs.prose("One\n\ntwo:") == ["One.", "two:"]


def test_a_body_survives_the_shell_whatever_is_in_it() -> None:
    sent = {"name": "it's $HOME `id` \\ \" ü", "more": [{"n": number} for number in range(20)]}
    operation = {"requestBody": {"content": {document.JSON: {"example": sent}}}}
    line = docs.curl("POST", "/x", operation)
    said = 'curl() { for one; do last=$one; done; printf %s "$last"; }\n'
    ran = subprocess.run(["sh", "-c", said + line], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == sent


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"type": "string", "minLength": 1, "maxLength": 1000}, "string, 1 to 1,000 characters"),
        ({"anyOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]},
         "whole number, at most 9, or null"),
        ({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
         "IP address"),
        ({"type": "array", "items": {"type": "string", "maxLength": 9}}, "list of strings"),
        ({"type": "array", "items": {"$ref": "#/it"}}, "list of objects"),
        ({"const": False}, "always false"),
        ({}, "any value"),
    ],
)  # fmt: skip
def test_a_type_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert docs.Reader({"it": {"type": "object"}}).kind(schema) == words


def test_an_object_that_holds_itself_is_shown_a_few_levels_deep() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/node"}}}
    [first] = docs.Reader({"node": node}).fields({"$ref": "#/node"})
    assert first.fields[0].fields[0].fields == []


# --- the curl lines, run ------------------------------------------------------------------------


class Shell:
    """A real installation, and a shell in which the page's lines are run as they are."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.made = 0
        credentials = {"email": OWNER, "password": PASSWORD}
        token = self.call("POST", "/api/v1/auth/token", credentials, token="")
        self.token: str = token["access_token"]
        self.described = self.call("GET", "/api/v1/openapi.json")

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        request = urllib.request.Request(
            self.server.url + path,
            json.dumps(body).encode() if body is not None else None,
            {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.token if token is None else token}",
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read() or b"null")

    def make(self, collection: str, **inside: str) -> Any:
        """A new thing of the kind that is at this address, by the document's own example."""
        if collection == ALERTS:
            return self.alert()
        path = MADE_AT.get(collection, collection)
        operation = self.described["paths"][path]["post"]
        content = operation.get("requestBody", {}).get("content", {})
        example = dict(content.get(document.JSON, {}).get("example", {}))
        self.made += 1
        for field in example.keys() & FRESH.keys():
            example[field] = FRESH[field].format(self.made)
        return self.call("POST", path.format(**inside), example)

    def alert(self) -> Any:
        """The one that comes of it when somebody goes on to use a key that was revoked."""
        if not (found := self.call("GET", f"{ALERTS}?state=any")["data"]):
            key = self.make("/api/v1/api-keys")
            self.call("PATCH", f"/api/v1/api-keys/{key['id']}", {"status": "revoked"})
            with suppress(urllib.error.HTTPError):
                self.call("GET", "/api/v1/whoami", token=key["key"])
        deadline = time.monotonic() + ALERT_SECONDS
        while not found and time.monotonic() < deadline:
            time.sleep(0.1)
            found = self.call("GET", f"{ALERTS}?state=any")["data"]
        return found[0]

    def variables(self, call: Shown) -> dict[str, str]:
        """What the line's variables stand for: things that were made for this one line."""
        found: dict[str, str] = {}
        for one in re.finditer(r"/\{(\w+)\}", call.path):
            thing = self.make(call.path[: one.start()], **found)
            found[one[1]] = str(thing[one[1] if one[1] in thing else "id"])
        if call.name in FIRST:
            self.make(FIRST[call.name], **found)
        if call.name == "reset_password":  # of somebody who has joined
            self.call("PATCH", f"/api/v1/people/{found['person_id']}", {"password": PASSWORD})
        by_key = ONLY_BY_KEY in call.text
        return {
            **{name.upper(): value for name, value in found.items()},
            "LATCHKEY_URL": self.server.url,
            "LATCHKEY_KEY": self.make("/api/v1/api-keys")["key"] if by_key else self.token,
        }

    def run(self, call: Shown, answer: Path) -> str:
        """The status that the line on the page is answered; the body goes into the file."""
        line = answer.with_suffix(".sh")
        line.write_text(call.curl)
        quiet = 'curl() { command curl -sS -m 20 -o "$ANSWER" -w "%{http_code}" "$@"; }; . "$LINE"'
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **self.variables(call)}
        ran = subprocess.run(
            ["sh", "-eu", "-c", quiet],
            env={**environ, "ANSWER": str(answer), "LINE": str(line)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), call.curl
        return ran.stdout

    def tidy(self) -> None:
        """One project again: with more of them, a person would have to name one in each line."""
        for kind, name in (("webhooks", "id"), ("projects", "slug")):
            for thing in self.call("GET", f"/api/v1/{kind}")["data"]:
                if thing[name] != "shop":
                    self.call("DELETE", f"/api/v1/{kind}/{thing[name]}")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    need("curl")
    with RunningServer(tmp_path / "data", LATCHKEY_KEY_LIMIT="1000") as server:
        server.run("create-admin", "--email", OWNER, "--password-stdin", stdin=PASSWORD)
        server.run("create-project", "--slug", "shop", "--name", "Shop").check_returncode()
        yield Shell(server)


@pytest.mark.service
def test_every_curl_line_answers_what_the_page_promises(shell: Shell, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{shell.server.url}/api/docs", timeout=20) as response:
        page = response.read().decode()
    assert f"export LATCHKEY_URL={shell.server.url}\n" in page
    others = []
    for call in shown(page):
        answer = tmp_path / call.name
        status = shell.run(call, answer)
        if status != call.status:
            others.append(f"{status}, not {call.status}: {call.curl}\n{answer.read_text()}")
        shell.tidy()
    assert not others, "\n\n".join(others)
