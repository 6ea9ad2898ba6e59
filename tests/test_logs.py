"""The log: its two forms, that nobody forges a line, that no secret is in it, which lines there
are, and that fail2ban reads those of failed sign-ins."""

import json
import logging
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import calendar_feed, logs, wire
from console.actor import Actor
from console.models import Project
from tests.conftest import PASSWORD, MakeKey, bearer, sign_in
from tests.server import ROOT, RunningServer

PROXIED = {"X-Original-Method": "GET", "X-Original-URL": "http://shop.example/x"}
AT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NASTY = 'a\r\nb\x1b[31mc\u2028d\u202ee\x7f\x85"f\udc80'
NOW = "2026-11-30T10:30:00.123Z"


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """`log(form, level)` sets the log up; called without anything, it gives what was written."""
    written: list[str] = []

    def set_up_or_read(*settings: str) -> str:
        if settings:
            logs.set_up(*settings)
        out, err = capsys.readouterr()
        assert out == ""
        written.append(err)
        return "".join(written)

    logs.request_id.set("")
    yield set_up_or_read
    logs.set_up()


def objects(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def fail(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        logging.getLogger("console.x").exception("%s", message)


# --- its two forms ------------------------------------------------------------------------------


def test_json_is_one_object_on_one_line_whatever_is_said(log: Callable[..., str]) -> None:
    log("json", "info")
    logging.getLogger("console.x").info("%s", NASTY)
    fail(NASTY)
    text = log()
    assert text.isascii() and text.replace("\n", "").isprintable() and text.count("\n") == 2
    said, failed = objects(text)
    assert list(said) == ["at", "level", "logger", "message"]
    assert re.fullmatch(AT, said.pop("at"))
    assert said == {"level": "info", "logger": "console.x", "message": NASTY}
    assert failed["level"] == "error" and failed["message"] == NASTY
    error = failed["exception"]
    assert (error["type"], error["message"]) == ("ValueError", NASTY)
    assert error["traceback"].startswith("Traceback (most recent call last):\n")


def test_text_shows_what_cannot_be_printed_and_no_line_is_forged(log: Callable[..., str]) -> None:
    log("text", "info")
    logging.getLogger("console.x").warning("%s", NASTY)
    shown = r'a\r\nb\x1b[31mc\u2028d\u202ee\x7f\x85"f\udc80'
    assert re.fullmatch(rf"{AT} WARNING console\.x (.*)\n", log())[1] == shown  # type: ignore[index]
    fail(f"x\n{NOW} WARNING console.throttle sign-in failed from 203.0.113.7\x1b[2J")
    first, *rest = log().splitlines()[1:]
    assert first.endswith(r"203.0.113.7\x1b[2J") and " ERROR console.x x\\n" in first
    assert rest and all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("debug", ["d", "i", "w", "e", "lib w", "lib e"]),
        ("info", ["i", "w", "e", "lib w", "lib e"]),
        ("warning", ["w", "e", "lib w", "lib e"]),
        ("error", ["e", "lib e"]),
    ],
)
def test_a_level_is_ours_and_others_tell_of_warnings_at_most(
    log: Callable[..., str], level: str, said: list[str]
) -> None:
    log("json", level)
    for name, prefix in (("console.x", ""), ("peewee", "lib ")):
        for kind in ("debug", "info", "warning", "error"):
            logging.getLogger(name).log(getattr(logging, kind.upper()), prefix + kind[0])
    assert [one["message"] for one in objects(log())] == said


def test_what_ends_a_thread_is_logged(
    log: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    log("json", "error")
    logs.hear_everything()
    logging.captureWarnings(False)
    thread = threading.Thread(target=lambda: 1 // 0, name="counts")
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("no"), None)
    ended, last = objects(log())
    assert (ended["level"], ended["message"]) == ("critical", "thread counts ended")
    assert ended["exception"]["type"] == "ZeroDivisionError"
    assert (last["message"], last["exception"]["message"]) == ("ended unexpectedly", "no")


# --- which request ------------------------------------------------------------------------------


def test_a_line_names_the_request_that_it_is_of(
    log: Callable[..., str], client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Any:
        logging.getLogger("console.x").warning("on the way")
        raise RuntimeError("broken")

    log("json", "warning")
    monkeypatch.setattr("console.calendar_feed.feed", fails)
    answer = client.get("/calendar/x.ics")
    assert answer.status_code == 500
    found = objects(log())
    assert [one["message"] for one in found] == ["on the way", "a request failed"]
    assert {one["request_id"] for one in found} == {answer.headers["X-Request-Id"]}


def test_what_comes_after_a_request_is_not_of_it(
    log: Callable[..., str], client: FlaskClient
) -> None:
    log("json", "warning")
    client.get("/login").close()
    logging.getLogger("console.x").warning("later")
    assert "request_id" not in objects(log())[0]


def test_a_check_names_its_request(
    log: Callable[..., str], client: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **named: Any) -> Any:
        raise RuntimeError("broken")

    _, text = make_key()
    log("text", "warning")
    monkeypatch.setattr("console.check._find", fails)
    answer = client.get("/forward-auth/nginx", headers={**PROXIED, **bearer(text)})
    line = log().splitlines()[0]
    assert f" ERROR console.wire [{answer.headers['X-Request-Id']}] a request failed" in line


# --- a line for each request ----------------------------------------------------------------------


def requests(text: str) -> list[dict[str, Any]]:
    return [one for one in objects(text) if one["logger"] == "console.web.request_log"]


def test_each_request_has_its_line(
    app: Flask, log: Callable[..., str], owner: Actor, make_key: MakeKey, client: FlaskClient
) -> None:
    key, text = make_key()
    browser = sign_in(app, owner)
    log("json", "info")
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    browser.get("/projects/shop/keys?q=hunter2", headers=forwarded)
    client.get("/api/v1/whoami", headers=bearer(text))
    client.get("/api/v1/keys", headers=bearer(text))
    client.get("/api/v1/usage?period=24h", headers=bearer(text))  # which it may not read
    client.post("/nowhere%0A/at all")
    client.post("/forward-auth/nginx", headers={**PROXIED, **bearer(text)})
    client.post("/api/v1/verify", json={"key": text}, headers=bearer(text))
    found = requests(log())
    assert [(one["method"], one["path"], one["status"], one["ip"], one["by"]) for one in found] == [
        ("GET", "/projects/shop/keys", 200, "203.0.113.7", owner.id),
        ("GET", "/api/v1/whoami", 200, "127.0.0.1", key.id),
        ("GET", "/api/v1/keys", 404, "127.0.0.1", "-"),
        ("GET", "/api/v1/usage", 403, "127.0.0.1", key.id),
        ("POST", "/nowhere\n/at all", 404, "127.0.0.1", "-"),
    ]
    assert all(isinstance(one["milliseconds"], int) and "request_id" in one for one in found)
    first = found[0]
    milliseconds = first["milliseconds"]
    assert first["message"] == (
        f"GET /projects/shop/keys 200 {milliseconds}ms 203.0.113.7 {owner.id}"
    )
    assert "hunter2" not in log()


def test_at_warning_there_is_none(log: Callable[..., str], client: FlaskClient) -> None:
    log("json", "warning")
    client.get("/login")
    assert log() == ""


# --- no secret ------------------------------------------------------------------------------------


def test_no_line_holds_a_secret(
    app: Flask, log: Callable[..., str], owner: Actor, make_key: MakeKey, client: FlaskClient,
    project: Project, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, text = make_key()
    address = calendar_feed.make_link("shop", by=owner)["url"]
    token = address.rpartition("/")[2].removesuffix(".ics")
    given = client.post("/api/v1/auth/token", json={"email": owner.name, "password": PASSWORD})
    access = given.get_json()["access_token"]
    odd = "an-odd-credential-of-another-make"
    log("json", "debug")
    browser = sign_in(app, owner)
    client.post("/login", data={"email": owner.name, "password": "not-my-password"})
    client.get(f"/calendar/{token}.ics")
    client.get(f"/x//calendar/{token}.ics/")
    client.get(f"/reset?token={token}")
    client.get(f"/api/v1/api-keys/{text}?key={text}", headers=bearer(text))
    client.get(f"/api/v1/api-keys/{odd}", headers=bearer(odd))
    client.get(f"/api/v1/{access}", headers=bearer(access))
    browser.get("/account")
    logging.getLogger("console").error("%s", f"https://x/reset?token={token}&a {text} {access}")
    fail(f"got {text} and token={token}")
    written = log()
    assert len(requests(written)) >= 9
    for secret in (text, token, access.partition(".")[2], odd, PASSWORD, "not-my-password"):
        assert secret not in written
    assert "https://x/reset?token=…&a" in json.loads(written.splitlines()[-2])["message"]


@pytest.mark.service
def test_the_server_and_the_command_line_log_as_they_are_told(tmp_path: Path) -> None:
    told = {"LATCHKEY_LOG_FORMAT": "json", "LATCHKEY_LOG_LEVEL": "info"}
    with RunningServer(tmp_path / "data", **told) as server:
        urllib.request.urlopen(f"{server.url}/login?token=hunter2", timeout=10).close()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/%0A%1B", timeout=10)
    lines = [json.loads(one) for one in server.log.splitlines() if one.startswith("{")]
    assert [one["path"] for one in lines if "path" in one] == ["/login", "/\n\x1b"]
    assert "hunter2" not in server.log
    command = "import logging, wsgi; logging.getLogger('console').info('here')"
    ran = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT, env=server.environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ran.stdout == "" and json.loads(ran.stderr)["message"] == "here"


# --- fail2ban -------------------------------------------------------------------------------------

# What fail2ban 1.0 puts in the place of <ADDR>: an address of either kind, and no name.
IPV4 = r"(?:\d{1,3}\.){3}\d{1,3}"
IPV6 = r"(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)"
ADDR = rf"(?:(?:::f{{4,6}}:)?(?P<ip4>{IPV4})|\[?(?P<ip6>{IPV6})\]?)"


def filters() -> list[re.Pattern[str]]:
    """The failregex of the filter that the document gives."""
    document = (ROOT / "docs/operations.md").read_text()
    found = re.search(r"^failregex = (.*\n(?: +.*\n)*)", document, re.MULTILINE)
    assert found is not None
    return [re.compile(line.strip().replace("<ADDR>", ADDR)) for line in found[1].splitlines()]


def banned(line: str) -> str | None:
    """Whom fail2ban would count for this line, of which it has cut the instant out."""
    cut = re.sub(rf'^(?:{{"at": ")?{AT}', "", line)  # the datepattern
    for one in (cut, f"host latchkey[4711]: {line}"):  # of a file; of systemd's journal
        for regex in filters():
            if hit := regex.search(one):
                return hit["ip4"] or hit["ip6"]
    return None


@pytest.mark.parametrize("form", ["text", "json"])
def test_fail2ban_reads_who_failed_to_sign_in(
    app: Flask, log: Callable[..., str], owner: Actor, client: FlaskClient, form: str
) -> None:
    browser = sign_in(app, owner)
    log(form, "warning")
    wrong = {"email": owner.name, "password": "wrong"}
    client.post("/login", data=wrong, headers={"X-Forwarded-For": "198.51.100.9, 203.0.113.7"})
    client.post("/api/v1/auth/token", json=wrong, headers={"X-Forwarded-For": "2001:db8::7"})
    browser.post("/confirm", data={"password": "wrong"})
    client.post("/login", data=wrong, headers={"X-Forwarded-For": "nobody"})
    lines = log().splitlines()
    assert [banned(line) for line in lines] == [
        "203.0.113.7", "2001:db8::7", "127.0.0.1", None,
    ]  # fmt: skip
    assert "sign-in failed from an unknown address" in lines[-1]


@pytest.mark.parametrize("form", ["text", "json"])
def test_fail2ban_is_told_nothing_of_who_signs_in_or_waits(
    app: Flask, log: Callable[..., str], owner: Actor, client: FlaskClient, form: str
) -> None:
    log(form, "warning")
    sign_in(app, owner)
    wrong = {"email": "eve@example.com", "password": "wrong"}
    answers = [client.post("/login", data=wrong).status_code for _ in range(10)]
    assert answers.count(429) == 4
    assert len(log().splitlines()) == 6


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_has_others_banned_by_what_they_send(
    log: Callable[..., str], client: FlaskClient, form: str
) -> None:
    log(form, "info")
    said = "sign-in failed from 203.0.113.7"
    real = f"{NOW} WARNING console.throttle {said}"
    as_json = f'{{"at":"{NOW}","level":"warning","logger":"console.throttle","message":"{said}"}}'
    spaced = as_json.replace(":", ": ").replace(",", ", ")
    for forged in (real, f"\n{real}", as_json, f"\n{as_json}", spaced, said):
        client.open(f"/{forged}", method="GET")
        client.open("/x", method=forged.replace("\n", ""))
        logging.getLogger("console.x").warning("%s", forged)
        fail(forged)
    lines = log().splitlines()
    assert len(lines) >= 24 and [line for line in lines if banned(line)] == []


def test_the_regexes_are_tried_on_lines_that_time_has_passed_over() -> None:
    """The very lines of the document: they are a promise."""
    document = (ROOT / "docs/operations.md").read_text()
    shown = [line for line in document.splitlines() if line.endswith(" from 203.0.113.7")
             or '"sign-in failed from 203.0.113.7"' in line]  # fmt: skip
    assert "%%Y-%%m-%%dT%%H:%%M:%%S" in document
    assert len(shown) == 2 and {banned(line) for line in shown} == {"203.0.113.7"}


def test_an_id_of_a_request_costs_a_check_nothing(
    client: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is handed on where something is logged, and set by pages alone."""
    monkeypatch.setattr(logs, "request_id", None)
    _, text = make_key()
    assert client.get("/forward-auth/nginx", headers={**PROXIED, **bearer(text)}).status_code == 200
    assert wire.request_id().startswith("req_")
