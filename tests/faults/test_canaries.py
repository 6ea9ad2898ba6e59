"""Keys whose secrets are sent wherever a secret may go astray: each is in exactly one answer, that
of its making, which no cache keeps; and nowhere in the data directory, the log, the metrics, the
mails and the messages to webhooks."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import bearer
from tests.faults.conftest import IS_LONG
from tests.faults.owner import Owner
from tests.mailbox import Mailbox
from tests.receiver import Receiver
from tests.server import RunningServer, wait_until

pytestmark = [
    pytest.mark.service,
    pytest.mark.sqlite,
]

CANARIES = 50 if IS_LONG else 4
KEYS = "/projects/shop/keys"
A_SECRET = re.compile(r"\blk_live_[0-9A-Za-z]{36}\b")


def found(text: str) -> str:
    secrets = set(A_SECRET.findall(text))
    assert len(secrets) == 1
    return secrets.pop()


def make(owner: Owner, number: int) -> tuple[str, str]:
    """A key and its secret, by each of the ways in turn."""
    if number % 2:
        made = owner.api("POST", "/api-keys", {"name": f"By API {number}", "project": "shop"})
        return made.json()["id"], made.json()["key"]
    page = owner.form(f"{KEYS}/new", name=f"By form {number}", once=f"{number:024}")
    assert page.status_code == 200, page.text
    [key] = owner.api("GET", f"/api-keys?project=shop&q=By+form+{number}").json()["data"]
    return key["id"], found(page.text)


def rotate(owner: Owner, number: int, key: str) -> str:
    if number % 2:
        answer = owner.api("POST", f"/api-keys/{key}/rotate", {"grace_period": "24h"})
        return str(answer.json()["key"])
    page = owner.form(f"{KEYS}/{key}/rotate", confirm=f"By form {number}", grace_period="24h")
    return found(page.text)


def lead_astray(owner: Owner, secret: str, key: str) -> None:
    """Where a secret has no business, or is part of what is refused."""
    server = owner.server
    odd = {"User-Agent": f"curl {secret}", "X-Request-Id": secret, "Referer": f"http://x/{secret}"}
    original = {"X-Original-Method": "GET", "X-Original-URL": f"http://x/a?key={secret}"}
    for headers in (bearer(secret), {"X-API-Key": secret}, bearer(secret[:-1]), {}):
        owner._noted(requests.get(
            f"{server.url}/forward-auth/nginx", headers={**original, **odd, **headers}, timeout=60
        ))  # fmt: skip
    owner.api("GET", "/whoami", Authorization=f"Bearer {secret}")
    owner.api("GET", "/api-keys", Authorization=f"Bearer {secret}, {secret}")
    owner.api("GET", f"/api-keys/{secret}", **odd)
    owner.api("GET", f"/api-keys?cursor={secret}")
    owner.api("DELETE", f"/api-keys/{key}?key={secret}")
    owner.api("POST", "/verify", {"key": secret, "cost": secret})
    owner.api("POST", "/verify", {"key": [secret]})
    owner.api("POST", "/api-keys", {secret: 1, "name": "x", "project": "shop"})
    owner.api("POST", f"/api-keys/{key}/rotate", {"grace_period": secret})
    owner.api("POST", "/api-keys", {"name": "x"}, **{"Idempotency-Key": f"{secret} x"})
    owner.api("POST", "/auth/token", {"email": f"{secret}@example.com", "password": secret})
    owner.page(f"/{secret}", **odd)
    owner.page(f"/projects/{secret}/keys")
    owner.page(f"{KEYS}/{secret}")
    owner.post(f"{KEYS}/{key}/rotate", confirm="another", grace_period=secret)


def everywhere(server: RunningServer) -> Iterator[tuple[Path, bytes]]:
    for path in (server.log_path, *server.data_dir.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def strays(server: RunningServer, secrets: list[str]) -> list[tuple[str, str]]:
    return [
        (path.name, secret)
        for path, content in everywhere(server)
        for secret in secrets
        if secret.encode() in content
    ]


def test_a_secret_is_in_one_answer_and_nowhere_else(tmp_path: Path) -> None:
    with Mailbox() as mailbox, Receiver() as receiver, RunningServer(
        tmp_path / "data",
        LATCHKEY_SMTP_URL=mailbox.url,
        LATCHKEY_MAIL_FROM="latchkey@shop.example",
        LATCHKEY_WEBHOOK_NETWORKS="127.0.0.0/8",
        LATCHKEY_KEY_LIMIT="1000",
    ) as server:  # fmt: skip
        owner = Owner(server)
        hook = {"project": "shop", "url": receiver.url, "events": ["*"]}
        assert owner.api("POST", "/webhooks", hook).status_code == 201
        secrets = []
        for number in range(CANARIES):
            key, secret = make(owner, number)
            secrets += [secret, rotate(owner, number, key)]
            for one in secrets[-2:]:
                lead_astray(owner, one, key)
            owner.api("PATCH", f"/api-keys/{key}", {"status": "revoked"})
            assert strays(server, secrets[-2:]) == []  # while WAL and journal are in use
        owner.api("POST", "/people", {"email": "bob@example.com", "roles": {"shop": "viewer"}})
        for path in ("/audit-log?project=shop&format=jsonl", "/activity?format=csv", "/alerts"):
            assert owner.api("GET", path).status_code == 200
        for path in (KEYS, f"{KEYS}/{key}", "/projects/shop/audit-log", "/activity", "/metrics"):
            assert owner.page(path).status_code == 200
        receiver.wait_for(CANARIES)
        wait_until(lambda: mailbox.mails)
        told = [owner_text(answer) for answer in owner.answers]
        for secret in secrets:
            holding = [
                answer for answer, text in zip(owner.answers, told, strict=True) if secret in text
            ]
            assert len(holding) == 1, [(one.request.method, one.url) for one in holding]
            assert "no-store" in holding[0].headers["Cache-Control"]
        sent = [message.body.decode() for message in receiver.messages]
        sent += [mail.raw.decode() for mail in mailbox.mails]
        assert [secret for secret in secrets if any(secret in one for one in sent)] == []
    assert strays(server, secrets) == []
    assert json.dumps(secrets).count("lk_live_") == 2 * CANARIES


def owner_text(answer: requests.Response) -> str:
    return f"{answer.headers}\n{answer.text}"
