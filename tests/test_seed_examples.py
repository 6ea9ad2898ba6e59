"""docs/seeds.md: every example runs as it stands, and the tables speak of what is there.

A real Latchkey, and a small real service that asks it about each caller. Each block of the page has
its expectation here, by its section and the words above it.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from console.api import document
from console.api.calls import CALLS
from console.check import CODES
from console.errors import Refused
from tests.conftest import PASSWORD, cannot_run, need
from tests.server import ROOT, RunningServer, wait_until
from tests.test_seeds import (
    OWNER,
    Answer,
    Browser,
    Installation,
    in_seconds,
    shown_secret,
)

pytestmark = pytest.mark.service

PAGE = (ROOT / "docs/seeds.md").read_text()
RUN_SECONDS = 30
HOUR_SECONDS, TURN_SECONDS = 3_600, 15
BEFORE, SITES, VAULT, CACHE, SPACE, TASKS = (
    "Before the examples", "A site platform", "A vault", "A cache", "A space platform",
    "A task service",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A section's project, what its keys look like, and what its service keeps."""

    slug: str
    shape: str
    subject: str

    @property
    def variable(self) -> str:
        return f"{self.slug.upper()}_API_KEY"


SECTIONS = {
    BEFORE: Section("tasks", "sk_live_[0-9A-Za-z]{36}", "tasks"),
    SITES: Section("sites", "vp_live_[0-9A-Za-z]{36}", "sites"),
    VAULT: Section("vault", "vctl_[0-9A-Za-z]{36}", "vaults"),
    CACHE: Section("cache", "vc_[0-9a-f]{32}", "cache"),
    SPACE: Section("space", "vsp_sk_[0-9A-Za-z]{36}", "missions"),
    TASKS: Section("tasks", "sk_live_[0-9A-Za-z]{36}", "tasks"),
}


# --- the page ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block, named by its section and the line above it."""

    section: str
    caption: str
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    for part in PAGE.split("\n## ")[1:]:
        section, _, content = part.partition("\n")
        for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL):
            above = content[: fence.start()].rstrip().rpartition("\n")[2]
            yield Block(section, above.rstrip(":").replace("`", ""), fence[1], fence[2])


def rows(section: str) -> list[tuple[str, str, str]]:
    """A section's table: theirs, ours, remark."""
    content = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = []
    for line in re.findall(r"^\| (.*) \|$", content, re.MULTILINE):
        theirs, ours, remark = (cell.strip() for cell in re.split(r"(?<!\\) ?\|", line))
        found.append((theirs, ours, remark))
    return found[1:]


BLOCKS = list(_blocks())


# --- the stage --------------------------------------------------------------------------------


class Service(ThreadingHTTPServer):
    """Somebody's service: asks Latchkey about each caller, and passes a refusal on."""

    daemon_threads = True

    def __init__(self, latchkey: Installation) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.latchkey = latchkey
        self.secret = ""  # of the key by which it asks
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def _answer(self, action: str) -> None:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        question = {
            "key": key if scheme == "Bearer" else "",
            "permissions": [f"{self.path.strip('/')}:{action}"],
            "method": self.command,
            "path": self.path,
            "ip": self.client_address[0],
        }
        told = self.server.latchkey.call("POST", "/verify", self.server.secret, question)
        assert told.status == 200, told.text
        verdict = told.json
        self.send_response(verdict["status"])
        for name, value in told.headers.items():
            if "ratelimit" in name.lower():
                self.send_header(name, value)
        if verdict["code"] == "RATE_LIMITED":
            wait = verdict["rate_limit"]["reset"] - int(time.time())
            self.send_header("Retry-After", str(max(1, wait)))
        self.end_headers()
        content = {name: verdict[name] for name in ("code", "missing_permissions", "request_id")}
        if verdict["valid"]:
            content = {"data": [], "caller": verdict["key"]["name"]}
        self.wfile.write(json.dumps(content).encode())

    def do_GET(self) -> None:
        self._answer("read")

    def do_POST(self) -> None:
        self._answer("write")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@dataclass
class Ran:
    """What a block did: its exit code, what it printed, and what each curl was answered."""

    code: int
    out: str
    err: str
    answers: list[Answer]

    @property
    def answer(self) -> Answer:
        [only] = self.answers
        return only

    def refused(self) -> tuple[int, str]:
        """Status and code of the service's refusal."""
        return self.answer.status, self.answer.json["code"]


# What curl answered is kept for the test, whatever the block does with it.
CURL = """#!/bin/sh
number=$(ls "$ANSWERS" | wc -l)
: > "$ANSWERS/$number.body"
"$REAL_CURL" -sS -m 20 -D "$ANSWERS/$number.head" -o "$ANSWERS/$number.body" "$@"
cat "$ANSWERS/$number.body"
"""
# Latchkey's directory as the page sees it: its Python is this one.
PYTHON = f"""#!/bin/sh
cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} "$@"
"""


class Stage:
    """An installation, a service, and directories in which blocks are run."""

    def __init__(self, latchkey: Installation, service: Service, directory: Path) -> None:
        self.latchkey, self.service, self.directory = latchkey, service, directory
        self.secrets: dict[str, str] = {}  # of the key that manages a project, by slug
        self.said: dict[str, str] = {}  # by create-project, by slug
        self.runs = 0
        self._write("bin/curl", CURL)
        self._write(".venv/bin/python", PYTHON)

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)

    def secret(self, slug: str) -> str:
        """Of the key that manages this project, which the page's own command has made."""
        if slug not in self.secrets:
            [block] = [one for one in BLOCKS if f"--slug {slug} " in one.text]
            self.said[slug] = self.run(block, {}).out
            permissions = ["keys:manage", "keys:verify", "audit:read", "analytics:read"]
            settings = {"name": "Console", "project": slug, "permissions": permissions}
            made = self.latchkey.call("POST", "/api-keys", self.latchkey.token, settings)
            assert made.status == 201, made.text
            self.secrets[slug] = made.json["key"]
        return self.secrets[slug]

    def run(self, block: Block, environ: dict[str, str]) -> Ran:
        """Runs the block's text as it is; commands see Latchkey's settings and nothing else."""
        self.runs += 1
        answers = self.directory / f"answers-{self.runs}"
        answers.mkdir()
        suffix = {"sh": "sh", "js": "mjs", "python": "py"}[block.language]
        script = self.directory / f"example-{self.runs}.{suffix}"
        script.write_text(block.text)
        if "-m console" in block.text:
            environ = self.latchkey.server.environ
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        curl = {"ANSWERS": str(answers), "REAL_CURL": need("curl")}
        ran = subprocess.run(
            [*_runner(block), str(script)],
            cwd=self.directory,
            env={"LC_ALL": "C.UTF-8", **environ, **curl, "PATH": path},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        numbers = sorted(int(one.stem) for one in answers.glob("*.head"))
        return Ran(
            ran.returncode, ran.stdout, ran.stderr, [_answer(answers, one) for one in numbers]
        )


def _runner(block: Block) -> list[str]:
    if block.language == "sh":
        return ["sh", "-eu"]
    if block.language == "js":
        return [need("node")]
    if importlib.util.find_spec("requests") is None:
        cannot_run("the Python package requests is not installed")
    return [sys.executable]


def _answer(directory: Path, number: int) -> Answer:
    with (directory / f"{number}.head").open("rb") as head:
        status = int(head.readline().split()[1])
        headers = parse_headers(head)
    # With -i the headers stand in front of the body, too.
    body = (directory / f"{number}.body").read_bytes().decode().rpartition("\r\n\r\n")[2]
    return Answer(status, headers, body)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("seed-examples")
    with RunningServer(directory / "data", LATCHKEY_KEY_LIMIT="1000") as server:
        added = server.run("create-admin", "--email", OWNER, "--password-stdin", stdin=PASSWORD)
        assert added.returncode == 0, added.stderr
        latchkey = Installation(server)
        credentials = {"email": OWNER, "password": PASSWORD}
        answer = latchkey.call("POST", "/auth/token", body=credentials)
        latchkey.token = answer.json["access_token"]
        with Service(latchkey) as service:
            thread = threading.Thread(target=service.serve_forever, daemon=True)
            thread.start()
            yield Stage(latchkey, service, directory)
            service.shutdown()
            thread.join()


class Example:
    """A block on its stage. The key that it is about is made anew for each run."""

    def __init__(self, block: Block, stage: Stage) -> None:
        self.text, self.block, self.stage = block.text, block, stage
        self.section = SECTIONS[block.section]
        self.console = stage.secret(self.section.slug)

    def call(self, method: str, path: str, secret: str | None = None, body: Any = None) -> Answer:
        """A call to Latchkey, by the key that manages the project where no other is named."""
        return self.stage.latchkey.call(method, path, secret or self.console, body)

    def key(self, **settings: Any) -> Any:
        """A new key of the section's project, and its secret as `key`; it may read."""
        reads = {"name": "CI", "permissions": [f"{self.section.subject}:read"]}
        made = self.call("POST", "/api-keys", body={**reads, **settings})
        assert made.status == 201, made.text
        return made.json

    def key_elsewhere(self) -> Any:
        """A key of another project."""
        return Example(Block(VAULT, "", "", ""), self.stage).key()

    def whoami(self, secret: str) -> Answer:
        return self.call("GET", "/whoami", secret)

    def run(self, key: Any = None, *, fails: bool = False, **environ: str | None) -> Ran:
        """Runs the block about this key, or a new one; a variable that is None is not set."""
        key = key or self.key()
        self.stage.service.secret = self.console
        variables = {
            "LATCHKEY_URL": self.stage.latchkey.server.url,
            "LATCHKEY_KEY": self.console,
            "SERVICE_URL": self.stage.service.url,
            "KEY_ID": key["id"],
            self.section.variable: key["key"],
            **environ,
        }
        given = {name: value for name, value in variables.items() if value is not None}
        ran = self.stage.run(self.block, given)
        assert (ran.code != 0) is fails, ran
        return ran

    def is_made(self, made: Answer, shape: str | None = None) -> Any:
        """Whether a key was made whose secret is in this answer alone; returns the key object."""
        assert made.status == 201, made.text
        key = made.json
        assert re.fullmatch(shape or self.section.shape, key["key"])
        assert key["prefix"] == key["key"][:12]
        assert made.headers["Location"] == f"/api/v1/api-keys/{key['id']}"
        assert key["key"] not in self.call("GET", f"/api-keys/{key['id']}").text
        return key


Expectation = Callable[[Example], None]
EXPECTED: dict[tuple[str, str], Expectation] = {}


def shown(section: str, *captions: str) -> Callable[[Expectation], Expectation]:
    """What is expected of the blocks of this section below these lines."""

    def register(expectation: Expectation) -> Expectation:
        for caption in captions:
            assert (section, caption) not in EXPECTED
            EXPECTED[section, caption] = expectation
        return expectation

    return register


def hour_has_room() -> None:
    """So that the hour, over which a limit counts, does not turn within a test."""
    left = HOUR_SECONDS - time.time() % HOUR_SECONDS
    if left < TURN_SECONDS:
        time.sleep(left)


# --- before the examples ----------------------------------------------------------------------


@shown(BEFORE, "The key that manages a project")
def _(example: Example) -> None:
    secret = example.run().out.strip()
    assert re.fullmatch(example.section.shape, secret)
    for path in ("/api-keys", "/audit-log", "/usage"):
        assert example.call("GET", path, secret).status == 200
    assert example.call("POST", "/verify", secret, {"key": secret}).json["valid"]
    assert example.call("POST", "/api-keys", secret, {"name": "Made by it"}).status == 201


@shown(BEFORE, "What your service asks")
def _(example: Example) -> None:
    told = example.run().answer
    assert (told.status, told.json["code"], told.json["status"]) == (200, "VALID", 200)
    told = example.run(example.key(permissions=[])).answer
    assert (told.status, told.json["code"], told.json["status"]) == (200, "PERMISSION_DENIED", 403)


@shown(BEFORE, "Take over a key")
def _(example: Example) -> None:
    old = "old_9f86d081-as-another-product-made-it"
    assert example.whoami(old).status == 401
    taken = example.run(OLD_KEY=old).answer
    assert (taken.status, taken.json["imported"]) == (201, 1)
    assert example.whoami(old).json["name"] == "Old CI"


# --- a site platform --------------------------------------------------------------------------


@shown(SITES, "Keys like vp_live_…")
@shown(VAULT, "Keys like vctl_…")
@shown(CACHE, "Keys like vc_0123456789abcdef0123456789abcdef")
@shown(SPACE, "Keys like vsp_sk_…")
@shown(TASKS, "Keys like sk_live_… and sk_test_…")
def _(example: Example) -> None:
    slug = example.section.slug
    assert example.stage.said[slug] == f"Project {slug} created.\n"
    assert re.fullmatch(example.section.shape, example.key()["key"])


@shown(SITES, "List")
def _(example: Example) -> None:
    used, unused = example.key(name="CI/CD Key"), example.key(name="Dashboard Integration")
    assert example.whoami(used["key"]).status == 200
    listed = example.run().answer
    assert listed.status == 200
    by_id = {key["id"]: key for key in listed.json["data"]}
    assert by_id[used["id"]]["name"] == "CI/CD Key"
    assert by_id[used["id"]]["last_used_at"] >= by_id[used["id"]]["created_at"]
    assert by_id[unused["id"]]["last_used_at"] is None
    assert used["key"] not in listed.text


@shown(SITES, "Create")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer)
    assert (key["name"], key["id"][:4]) == ("CI/CD Key", "key_")
    assert key["created_at"]


@shown(SITES, "Delete")
@shown(SPACE, "Delete")
@shown(TASKS, "Revoke, for good")
def _(example: Example) -> None:
    key = example.key()
    gone = example.run(key).answer
    assert (gone.status, gone.text) == (204, "")
    assert example.whoami(key["key"]).refused() == (401, "API_KEY_INVALID")


@shown(SITES, "Use")
@shown(CACHE, "With curl")
@shown(TASKS, "Use")
def _(example: Example) -> None:
    let_in = example.run().answer
    assert (let_in.status, let_in.json) == (200, {"data": [], "caller": "CI"})
    assert example.run(example.key(permissions=[])).refused() == (403, "PERMISSION_DENIED")
    revoked, deleted = example.key(), example.key()
    example.call("PATCH", f"/api-keys/{revoked['id']}", body={"status": "revoked"})
    example.call("DELETE", f"/api-keys/{deleted['id']}")
    assert example.run(revoked).refused() == (401, "API_KEY_REVOKED")
    assert example.run(deleted).refused() == (401, "API_KEY_INVALID")
    assert example.run(example.key_elsewhere()).refused() == (403, "PROJECT_MISMATCH")


@shown(SITES, "GitHub Actions")
def _(example: Example) -> None:
    variables = yaml.safe_load(example.text)["env"]
    assert variables == {"SITES_API_KEY": "${{ secrets.SITES_API_KEY }}"}
    browser = Browser(example.stage.latchkey.server.url)
    page = browser.submit("/projects/sites/keys/new", name="Snippets", expiration="never")
    assert re.fullmatch(example.section.shape, shown_secret(page))
    assert example.text in page, "the dialog's snippet is another"


@shown(SITES, "Laravel")
def _(example: Example) -> None:
    assert re.search(r"'api_key' => env\('SITES_API_KEY'\)", example.text)
    browser = Browser(example.stage.latchkey.server.url)
    page = browser.submit("/projects/sites/keys/new", name="Laravel", expiration="never")
    assert example.text in page, "the dialog's snippet is another"


@shown(SITES, "Node.js")
@shown(CACHE, "With JavaScript")
@shown(TASKS, "With JavaScript", "Instead of an SDK, JavaScript")
def _(example: Example) -> None:
    assert example.run().out == "200 { data: [], caller: 'CI' }\n"
    refused = example.run(example.key(permissions=[])).out
    assert refused.startswith("403 {") and "code: 'PERMISSION_DENIED'" in refused


@shown(CACHE, "With Python")
@shown(TASKS, "With Python", "Instead of an SDK, Python")
def _(example: Example) -> None:
    assert example.run().out == "200 {'data': [], 'caller': 'CI'}\n"
    refused = example.run(example.key(permissions=[])).out
    assert refused.startswith("403 {") and "'code': 'PERMISSION_DENIED'" in refused


# --- a vault ----------------------------------------------------------------------------------


def as_ada(example: Example) -> dict[str, str]:
    return {"EMAIL": OWNER, "PASSWORD": PASSWORD, "ACCESS_TOKEN": example.stage.latchkey.token}


@shown(VAULT, "An access token, access_token in the answer")
def _(example: Example) -> None:
    told = example.run(**as_ada(example)).answer
    assert (told.status, told.json["token_type"], told.json["expires_in"]) == (200, "Bearer", 900)
    assert example.call("GET", "/api-keys?project=vault", told.json["access_token"]).status == 200
    wrong = example.run(**{**as_ada(example), "PASSWORD": "a wrong one"}).answer
    assert wrong.refused() == (401, "CREDENTIALS_INVALID")


@shown(VAULT, "Create")
def _(example: Example) -> None:
    key = example.is_made(example.run(**as_ada(example)).answer)
    assert (key["name"], key["owner"]) == ("CI Pipeline", OWNER)
    assert in_seconds(89 * 86_400) < key["expires_at"] <= in_seconds(90 * 86_400)
    without = example.run(**{**as_ada(example), "ACCESS_TOKEN": ""}).answer
    assert without.refused() == (401, "API_KEY_MISSING")


@shown(VAULT, "List")
def _(example: Example) -> None:
    key = example.key(name="Listed")
    listed = example.run(**as_ada(example)).answer
    assert listed.status == 200 and key["key"] not in listed.text
    by_id = {one["id"]: one for one in listed.json["data"]}
    facts = {"name": "Listed", "prefix": key["prefix"], "expires_at": None, "last_used_at": None}
    assert facts.items() <= by_id[key["id"]].items()
    assert {one["owner"] for one in by_id.values()} == {OWNER}


@shown(VAULT, "Delete")
def _(example: Example) -> None:
    key = example.key()
    gone = example.run(key, **as_ada(example)).answer
    assert (gone.status, gone.text) == (204, "")
    assert example.whoami(key["key"]).refused() == (401, "API_KEY_INVALID")
    again = example.run(key, **as_ada(example)).answer
    assert again.refused() == (404, "NOT_FOUND")


@shown(VAULT, "Use")
def _(example: Example) -> None:
    soon = example.key(expires_at=in_seconds(3))
    assert example.run().answer.status == 200
    deleted = example.key()
    example.call("DELETE", f"/api-keys/{deleted['id']}")
    assert example.run(deleted).refused() == (401, "API_KEY_INVALID")
    wait_until(lambda: in_seconds(0) > soon["expires_at"])
    assert example.run(soon).refused() == (401, "API_KEY_EXPIRED")


# --- a cache ----------------------------------------------------------------------------------


@shown(CACHE, "In .env", "In .env.development", "In .env.production")
def _(example: Example) -> None:
    line = re.fullmatch(r"([A-Z][A-Z0-9_]*)=(\S+)\n", example.text)
    assert line and line[1] == "CACHE_API_KEY"
    assert re.fullmatch(r"vc_(dev_|prod_)?[0-9a-f]{32}", line[2])
    environment = example.block.caption.removeprefix("In .env").strip(".")
    assert line[2].startswith({"development": "vc_dev_", "production": "vc_prod_"}.get(
        environment, "vc_0"))  # fmt: skip


@shown(CACHE, "Never in git")
def _(example: Example) -> None:
    example.run()
    assert (example.stage.directory / ".gitignore").read_text() == ".env*\n"


@shown(CACHE, "A prefix for each environment")
def _(example: Example) -> None:
    example.run()
    for name in ("dev", "prod"):
        body = {"name": "App", "project": f"cache-{name}"}
        made = example.call("POST", "/api-keys", example.stage.latchkey.token, body)
        example_key = made.json["key"]
        assert re.fullmatch(rf"vc_{name}_[0-9a-f]{{32}}", example_key)
        assert example.whoami(example_key).status == 200


@shown(CACHE, "Rotate; the old secret works for another day")
def _(example: Example) -> None:
    key = example.key()
    rotated = example.run(key).answer
    assert rotated.status == 200 and re.fullmatch(example.section.shape, rotated.json["key"])
    ends_at = rotated.json["previous_secret_expires_at"]
    assert in_seconds(86_000) < ends_at <= in_seconds(86_400)
    for secret in (key["key"], rotated.json["key"]):
        assert example.whoami(secret).json["id"] == key["id"]


@shown(CACHE, "Revoke, and see the revoked keys")
def _(example: Example) -> None:
    key = example.key(name="Retired")
    revoked, listed = example.run(key).answers
    assert (revoked.status, revoked.json["status"]) == (200, "revoked")
    assert {one["status"] for one in listed.json["data"]} == {"revoked"}
    assert "Retired" in [one["name"] for one in listed.json["data"]]
    assert example.whoami(key["key"]).refused() == (401, "API_KEY_REVOKED")


@shown(CACHE, "Usage in the last 30 days")
def _(example: Example) -> None:
    key = example.key()
    for _ in range(3):
        assert example.whoami(key["key"]).status == 200
    told = example.run(key).answer
    assert (told.status, told.json["period"], len(told.json["data"])) == (200, "30d", 30)
    assert sum(bucket["allowed"] for bucket in told.json["data"]) == 3
    details = example.call("GET", f"/api-keys/{key['id']}").json
    assert details["usage"]["requests_total"] == 3 and details["last_used_at"]


@shown(CACHE, "What is wrong with a key that gets 401")
def _(example: Example) -> None:
    key = example.key()
    assert example.run(key).answer.json["status"] == "active"
    example.call("PATCH", f"/api-keys/{key['id']}", body={"status": "revoked"})
    assert example.run(key).answer.refused() == (401, "API_KEY_REVOKED")
    for secret, code in (
        ("", "API_KEY_MISSING"),
        ("vc_0123", "API_KEY_MALFORMED"),
        ("vc_0123456789abcdef0123456789abcdef", "API_KEY_INVALID"),
    ):
        assert example.run(key, CACHE_API_KEY=secret).answer.refused() == (401, code)


@shown(CACHE, "A key that may only read")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer)
    for needs, code in (("cache:read", "VALID"), ("cache:write", "PERMISSION_DENIED")):
        question = {"key": key["key"], "permissions": [needs]}
        assert example.call("POST", "/verify", body=question).json["code"] == code


# --- a space platform -------------------------------------------------------------------------


@shown(SPACE, "Create, as step 1 does")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer)
    assert key["name"] == "Production API"
    assert key["ip_allowlist"] == ["192.168.1.1", "10.0.0.0/24"]
    assert in_seconds(88 * 86_400) < key["expires_at"] <= in_seconds(92 * 86_400)


@shown(SPACE, "Edit")
def _(example: Example) -> None:
    key = example.key(ip_allowlist=["192.168.1.1"])
    edited = example.run(key).answer
    facts = {"name": "Production Server", "status": "revoked", "ip_allowlist": []}
    assert edited.status == 200 and facts.items() <= edited.json.items()
    assert example.whoami(key["key"]).refused() == (401, "API_KEY_REVOKED")
    example.call("PATCH", f"/api-keys/{key['id']}", body={"status": "active"})
    assert example.whoami(key["key"]).status == 200


@shown(SPACE, "Rotate")
def _(example: Example) -> None:
    key = example.key(ip_allowlist=["127.0.0.0/8"])
    rotated = example.run(key).answer
    assert (rotated.status, rotated.json["previous_secret_expires_at"]) == (200, None)
    assert example.whoami(key["key"]).refused() == (401, "API_KEY_SUPERSEDED")
    after = example.whoami(rotated.json["key"]).json
    for same in ("id", "name", "permissions", "ip_allowlist", "expires_at", "created_at"):
        assert after[same] == key[same]


@shown(SPACE, "View the audit log")
def _(example: Example) -> None:
    key = example.key()
    for method, ip in (("GET", "8.8.8.8"), ("DELETE", "10.1.2.3")):
        needs = ["missions:read" if method == "GET" else "missions:delete"]
        question = {"key": key["key"], "method": method, "path": "/missions?all=1", "ip": ip}
        example.call("POST", "/verify", body={**question, "permissions": needs})
    told = example.run(key).answer
    columns = ("method", "endpoint", "ip", "country", "status")
    assert [tuple(entry[one] for one in columns) for entry in told.json["data"]] == [
        ("DELETE", "/missions", "10.1.2.3", None, 403),
        ("GET", "/missions", "8.8.8.8", "US", 200),
    ]


@shown(SPACE, "Use")
def _(example: Example) -> None:
    assert example.run().answer.status == 200
    assert example.run(example.key(ip_allowlist=["127.0.0.1"])).answer.status == 200
    elsewhere = example.key(ip_allowlist=["192.0.2.0/24"])
    assert example.run(elsewhere).refused() == (403, "IP_NOT_ALLOWED")


# --- a task service ---------------------------------------------------------------------------


@shown(TASKS, "Create")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer)
    facts = {
        "name": "New Integration",
        "permissions": ["tasks:read", "tasks:write"],
        "expires_at": "2099-10-14T00:00:00Z",
    }
    assert facts.items() <= key.items()
    body = {"name": "Root", "permissions": ["admin:*"]}
    assert example.call("POST", "/api-keys", body=body).refused() == (403, "PERMISSION_DENIED")


@shown(TASKS, "Set permissions")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer)
    assert key["permissions"] == ["tasks:read", "projects:read"]
    question = {"key": key["key"], "permissions": ["tasks:write"]}
    assert example.call("POST", "/verify", body=question).json["status"] == 403


@shown(TASKS, "A test key")
def _(example: Example) -> None:
    key = example.is_made(example.run().answer, "sk_test_[0-9A-Za-z]{36}")
    question = {"key": key["key"], "environment": "live"}
    assert example.call("POST", "/verify", body=question).json["code"] == "ENVIRONMENT_MISMATCH"


@shown(TASKS, "From the environment, or from a file that a secret manager mounts")
def _(example: Example) -> None:
    assert example.run().out == "200 { data: [], caller: 'CI' }\n"
    path = example.stage.directory / "tasks_api_key"
    path.write_text(example.key(name="From a file")["key"] + "\n")
    ran = example.run(TASKS_API_KEY=None, TASKS_API_KEY_FILE=str(path))
    assert ran.out == "200 { data: [], caller: 'From a file' }\n"


@shown(TASKS, "List all keys")
def _(example: Example) -> None:
    key = example.key(name="Mobile App", expires_at="2099-03-15T00:00:00Z")
    listed = example.run().answer
    [found] = [one for one in listed.json["data"] if one["id"] == key["id"]]
    facts = {"name": "Mobile App", "prefix": key["key"][:12], "last_used_at": None}
    assert {**facts, "expires_at": "2099-03-15T00:00:00Z"}.items() <= found.items()
    assert "key" not in found and key["key"] not in listed.text


@shown(TASKS, "Update")
def _(example: Example) -> None:
    key = example.key(description="kept")
    edited = example.run(key).answer
    permissions = ["tasks:read", "tasks:write", "projects:read"]
    facts = {"name": "Production App (updated)", "permissions": permissions, "description": "kept"}
    assert edited.status == 200 and facts.items() <= edited.json.items()


@shown(TASKS, "Key details")
def _(example: Example) -> None:
    key = example.key()
    assert example.whoami(key["key"]).status == 200
    details = example.run(key).answer.json
    for same in ("id", "name", "permissions", "created_at", "expires_at"):
        assert details[same] == key[same]
    assert details["last_used_at"] >= key["created_at"]
    # The day and the month may turn while the test runs; the total does not.
    assert details["usage"]["requests_total"] == 1
    assert details["usage"].keys() >= {"requests_today", "requests_this_month"}


@shown(TASKS, "Requests that were refused")
def _(example: Example) -> None:
    key = example.key(permissions=[])
    question = {"key": key["key"], "permissions": ["tasks:read"], "ip": "203.0.113.7"}
    example.call("POST", "/verify", body=question)
    entries = example.run().answer.json["data"]
    assert min(entry["status"] for entry in entries) >= 400
    [entry] = [entry for entry in entries if entry["key_id"] == key["id"]]
    assert (entry["code"], entry["ip"]) == ("PERMISSION_DENIED", "203.0.113.7")


@shown(TASKS, "Check limits, with their headers")
def _(example: Example) -> None:
    hour_has_room()
    key = example.key(plan="professional")
    assert example.whoami(key["key"]).status == 200
    told = example.run(key).answer
    assert (told.status, told.json["limit"], told.json["remaining"]) == (200, 10_000, 9_999)
    assert told.json["reset_at"] > in_seconds(0)
    for name in ("limit", "remaining", "reset"):
        assert told.headers[f"X-RateLimit-{name.title()}"] == str(told.json[name])
    assert [(one["name"], one["limit"]) for one in told.json["windows"]] == [
        ("minute", 500),
        ("hour", 10_000),
    ]
    assert example.run(example.key(plan="free")).answer.json["limit"] == 1_000
    own = {"per_minute": 7, "per_hour": 70}
    assert example.run(example.key(rate_limit=own)).answer.json["limit"] == 70


@shown(TASKS, "Set an expiration")
def _(example: Example) -> None:
    assert example.is_made(example.run().answer)["expires_at"] == "2098-12-31T23:59:59Z"


@shown(TASKS, "Extend it")
def _(example: Example) -> None:
    extended = example.run(example.key(expires_in="1d")).answer
    assert (extended.status, extended.json["expires_at"]) == (200, "2099-12-31T23:59:59Z")


@shown(TASKS, "401: the right format, and two wrong ones")
def _(example: Example) -> None:
    right, bare, short = example.run().answers
    assert right.status == 200
    assert (bare.status, bare.json["code"]) == (401, "API_KEY_MISSING")
    assert (short.status, short.json["code"]) == (401, "API_KEY_MALFORMED")


@shown(TASKS, "403: add the permission that missing_permissions names")
def _(example: Example) -> None:
    refused, edited, let_in = example.run().answers
    assert (refused.status, refused.json["missing_permissions"]) == (403, ["tasks:write"])
    assert (edited.status, let_in.status) == (200, 200)


@shown(TASKS, "429: wait for the reset, or choose another plan")
def _(example: Example) -> None:
    hour_has_room()
    key = example.key(rate_limit={"per_hour": 1})
    assert example.whoami(key["key"]).status == 200
    refused, edited, let_in = example.run(key).answers
    assert (refused.status, refused.json["code"]) == (429, "RATE_LIMITED")
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert 1 <= int(refused.headers["Retry-After"]) <= HOUR_SECONDS
    assert (edited.json["plan"], let_in.status) == ("professional", 200)
    assert let_in.headers["X-RateLimit-Remaining"] == "9998"


@shown(TASKS, "The complete example")
def _(example: Example) -> None:
    hour_has_room()
    ran = example.run()
    assert (ran.out, ran.err) == ("{ data: [], caller: 'CI' }\n", "")
    low = example.run(example.key(rate_limit={"per_hour": 50}))
    assert (low.out, low.err) == (ran.out, "Rate limit low: 49\n")
    lacking = example.run(example.key(permissions=[]), fails=True)
    assert "Error: PERMISSION_DENIED" in lacking.err
    assert "Error: API key not found" in example.run(fails=True, TASKS_API_KEY=None).err


# --- every block, once ------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.section}: {block.caption}")
def test_the_example_does_what_the_page_says(block: Block, stage: Stage) -> None:
    expectation = EXPECTED.get((block.section, block.caption))
    assert expectation, "nothing is expected of this example"
    expectation(Example(block, stage))


def test_every_expectation_has_its_example() -> None:
    there = [(block.section, block.caption) for block in BLOCKS]
    assert set(EXPECTED) == set(there)
    assert len(there) == len(set(there)) == PAGE.count("```") / 2


# --- the tables -------------------------------------------------------------------------------

# What each page calls it, and what it is here; `=`: the same.
NAMED: dict[str, dict[str, str]] = {
    SITES: {
        "GET …/api-keys": "GET /api/v1/api-keys",
        "POST …/api-keys": "POST /api/v1/api-keys",
        "DELETE …/api-keys/<id>": "DELETE /api/v1/api-keys/<key_id>",
        "data": "data", "id": "id", "name": "name", "token": "key", "created_at": "created_at",
        "last_used_at": "last_used_at",
    },
    VAULT: {
        "POST /api-keys": "POST /api/v1/api-keys",
        "GET /api-keys": "GET /api/v1/api-keys",
        "DELETE /api-keys/:id": "DELETE /api/v1/api-keys/<key_id>",
        "id": "id", "name": "name", "key": "key", "keyPrefix": "prefix", "expiresIn": "expires_in",
        "expiresAt": "expires_at", "lastUsedAt": "last_used_at", "createdAt": "created_at",
        "400 INVALID": "INVALID", "404 NOT_FOUND": "NOT_FOUND",
        "401 API_KEY_INVALID": "API_KEY_INVALID", "401 API_KEY_EXPIRED": "API_KEY_EXPIRED",
    },
    CACHE: {"cache:read": "=", "cache:write": "=", "cache:*": "=", "analytics:read": "=",
            "keys:manage": "="},
    SPACE: {},
    TASKS: {
        "POST /v1/api-keys": "POST /api/v1/api-keys",
        "GET /v1/api-keys": "GET /api/v1/api-keys",
        "GET /v1/api-keys/<id>": "GET /api/v1/api-keys/<key_id>",
        "PATCH /v1/api-keys/<id>": "PATCH /api/v1/api-keys/<key_id>",
        "DELETE /v1/api-keys/<id>": "DELETE /api/v1/api-keys/<key_id>",
        "GET /v1/rate-limit": "GET /api/v1/rate-limit",
        "id": "id", "name": "name", "key": "key", "permissions": "permissions", "prefix": "prefix",
        "created_at": "created_at", "expires_at": "expires_at", "last_used": "last_used_at",
        "data": "data", "usage": "usage", "requests_today": "requests_today",
        "requests_this_month": "requests_this_month", "limit": "limit", "remaining": "remaining",
        "reset": "reset", "reset_at": "reset_at", "X-RateLimit-Limit": "=",
        "X-RateLimit-Remaining": "=", "X-RateLimit-Reset": "=", "admin:*": "=",
    },
}  # fmt: skip
# How rows begin that map what the two pages without an API show.
IN_WORDS = {
    CACHE: ["Key prefix", "Key name", "Creation date", "Last used date", "Status", "Request Count"],
    SPACE: ["Name", "Key Prefix", "Status", "Expires", "Last Used", "Expiration", "IP Allowlist",
            "Timestamp", "Method", "Endpoint", "IP Address", "Country", "Refresh", "Previous/Next",
            "Maximum keys per org", "Maximum IPs per key"],
}  # fmt: skip


@pytest.mark.parametrize("section", NAMED)
def test_the_table_has_what_the_page_names(section: str) -> None:
    table = rows(section)
    for theirs, ours in NAMED[section].items():
        wanted = "the same" if ours == "=" else f"`{ours}`"
        assert any(f"`{theirs}`" in that and wanted in one for that, one, _ in table), theirs
    for words in IN_WORDS.get(section, []):
        assert any(theirs.startswith(words) for theirs, _, _ in table), words


@pytest.mark.parametrize("section", NAMED)
def test_the_table_names_nothing_that_is_not_there(section: str, app: Flask) -> None:
    calls = {f"{one.method} /api/v1{one.path}" for one in CALLS.values()}
    fields = _names(document.build(app.config["LATCHKEY"].base_url))
    codes = {(str(status), code) for code, (status, _) in CODES.items()}
    codes |= {(str(kind.status), kind.code) for kind in Refused.__subclasses__()}
    for theirs, ours, remark in rows(section):
        words = re.findall(r"`([^`]+)`", ours)
        named = {word for word in words if re.fullmatch(r"[a-z_]*[a-z]", word)}
        assert named <= fields | {"create-key"}, theirs
        for cell in (ours, remark):
            assert set(re.findall(r"`([A-Z]+ /api/v1[^`]*)`", cell)) <= calls, theirs
            assert set(re.findall(r"\b(\d{3}) `([A-Z_]+)`", cell)) <= codes, theirs


def _names(described: Any) -> set[str]:
    """Every property and parameter that the API's description names."""
    if isinstance(described, list):
        return {name for one in described for name in _names(one)}
    if not isinstance(described, dict):
        return set()
    found = set(described["properties"]) if isinstance(described.get("properties"), dict) else set()
    if "in" in described and isinstance(described.get("name"), str):
        found.add(described["name"])
    return found | {name for one in described.values() for name in _names(one)}
