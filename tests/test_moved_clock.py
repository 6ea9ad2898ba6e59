"""A real Latchkey process under a clock that is moved (libfaketime), with a real mail server and a
real receiver of webhooks: keys are renewed and expire to the millisecond, every notice arrives
once, and no jump, night of daylight saving or kill -9 loses, repeats or stops anything."""

import json
import re
import subprocess
import time as wall
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
import requests
import standardwebhooks.webhooks
from standardwebhooks.webhooks import Webhook

from tests.conftest import bearer, need
from tests.mailbox import Mailbox
from tests.receiver import Answer, Message, Receiver, drip, hang, reset
from tests.server import RunningServer, wait_until

pytestmark = pytest.mark.service

OWNER, TEAM, PASSWORD = "ada@shop.example", "team@shop.example", "correct horse battery"
# Daylight saving ends there on 4 April 2027, in the night of the 38th day.
START, ZONE = datetime(2027, 2, 25, tzinfo=UTC), "Pacific/Auckland"
LIFE = timedelta(days=40)
PASS_SECONDS = 1.3  # in which the worker looks at everything once


class MovedServer(RunningServer):
    """A server that has the time which `move_to` sets, and which goes on from there."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        libraries = _libraries(data_dir.with_name("waits.so"))
        self._file = data_dir.with_name("clock")
        self.offset = timedelta()
        self.move_to(START)
        super().__init__(
            data_dir,
            LD_PRELOAD=libraries,
            FAKETIME_TIMESTAMP_FILE=str(self._file),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            FAKETIME_DISABLE_SHM="1",
            NO_FAKE_STAT="1",
            TZ=ZONE,
            LATCHKEY_WEBHOOK_NETWORKS="127.0.0.0/8",
            **environ,
        )

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def move_to(self, instant: datetime) -> None:
        self.offset = instant - datetime.now(UTC)
        self._show(f"{self.offset.total_seconds():+.3f}s")

    def stand_still(self) -> None:
        """It is this second until `move_to`."""
        self._show(f"{self.now().astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M:%S}")

    def _show(self, time: str) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{time}\n")
        draft.replace(self._file)


def _libraries(waits: Path) -> str:
    """What moves the clock, and before it what lets waits be; see waits.c."""
    need("faketime")
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "the package faketime comes without its library"
    source = Path(__file__).with_name("waits.c")
    command = [need("gcc"), "-O2", "-shared", "-fPIC", "-o", waits, source, "-ldl"]
    subprocess.run(command, check=True)
    return f"{waits} {found[0]}"


class Script:
    """A script of the owner's, with an access token and a key that asks about others."""

    def __init__(self, server: MovedServer) -> None:
        self.server = server
        self.session = requests.Session()
        made = server.run("create-admin", "--email", OWNER, "--password-stdin", stdin=PASSWORD)
        assert made.returncode == 0, made.stderr
        server.run("create-project", "--slug", "shop", "--name", "Shop")
        asks = server.run(
            "create-key", "--project", "shop", "--name", "Gate", "--permission", "keys:verify"
        )
        self.gate = asks.stdout.strip()
        signed_in = self.call("POST", "/auth/token", {"email": OWNER, "password": PASSWORD})
        self.token = signed_in["access_token"]

    def call(self, method: str, path: str, body: Any = None, secret: str = "") -> Any:
        credential = secret or getattr(self, "token", "")
        answer = self.session.request(
            method,
            f"{self.server.url}/api/v1{path}",
            json=body,
            headers=bearer(credential) if credential else {},
            timeout=20,
        )
        assert answer.ok, f"{answer.text}\n{self.server.log}"
        return answer.json() if answer.content else None

    def verdict(self, secret: str) -> str:
        return str(self.call("POST", "/verify", {"key": secret}, self.gate)["code"])


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def server(tmp_path: Path, mailbox: Mailbox) -> Iterator[MovedServer]:
    with MovedServer(
        tmp_path / "data",
        LATCHKEY_SMTP_URL=mailbox.url,
        LATCHKEY_MAIL_FROM="latchkey@shop.example",
    ) as server:
        yield server


def told_or_later(server: MovedServer, mailbox: Mailbox, words: str) -> bool:
    """Whether it was told; else it is 20 seconds later: the job is done once in a minute."""
    if headlines(mailbox, TEAM)[words]:
        return True
    server.move_to(server.now() + timedelta(seconds=20))
    wall.sleep(0.2)
    return False


def headlines(mailbox: Mailbox, recipient: str) -> Counter[str]:
    """How often each thing was told to them."""
    told = r"^“(?:Ending|Renewing)” (?:expires|has expired|renews itself)"
    return Counter(
        line.strip()
        for mail in mailbox.mails
        if mail.to == [recipient]
        for line in re.findall(rf"{told}.*$", mail.text, re.MULTILINE)
    )


def verified(messages: list[Message], secret: str, server: MovedServer) -> list[dict[str, Any]]:
    """The messages, once each has been verified as its receiver would."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(stamp, tz)

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standardwebhooks.webhooks, "datetime", Moved)
        for message in messages:
            stamp = int(message.headers["webhook-timestamp"])
            Webhook(secret).verify(message.body.decode(), message.headers)
            found.append(json.loads(message.body))
    return found


def test_across_a_renewal_no_check_is_refused_and_each_notice_arrives_once(
    server: MovedServer, mailbox: Mailbox, receiver: Receiver
) -> None:
    script = Script(server)
    script.call("PATCH", "/projects/shop", {"alert_email": TEAM})
    hook = script.call("POST", "/webhooks", {"url": receiver.url, "events": ["alert.*", "key.*"]})
    keys = {
        name: script.call(
            "POST",
            "/api-keys",
            {"name": name, "project": "shop", "expires_in": "40d", "auto_renew": renews},
        )
        for name, renews in (("Renewing", True), ("Ending", False))
    }
    end = datetime.fromisoformat(keys["Ending"]["expires_at"])
    told_at = {
        end - timedelta(days=30): "expires in 30 days",
        end - timedelta(days=7): "expires in 7 days",
        end - timedelta(days=1): "expires in 24 hours",
        end: "has expired",
    }

    # Every three hours of 45 days: both are checked; at each notice the worker is waited for.
    instant, waiting = server.now(), sorted(told_at)
    while instant < end + timedelta(days=5):
        instant += timedelta(hours=3)
        server.move_to(instant)
        assert script.verdict(keys["Renewing"]["key"]) == "VALID", instant
        expected = "VALID" if instant < end else "API_KEY_EXPIRED"
        assert script.verdict(keys["Ending"]["key"]) == expected, instant
        if waiting and instant >= waiting[0]:
            words = f"“Ending” {told_at[waiting.pop(0)]}."
            wait_until(lambda words=words: told_or_later(server, mailbox, words))

    # The clock jumps to and fro, a day and a night of daylight saving behind it.
    for jump in (timedelta(days=2), -timedelta(days=2), -timedelta(days=2), timedelta(days=2)):
        server.move_to(server.now() + jump)
        assert script.verdict(keys["Renewing"]["key"]) == "VALID"
        wall.sleep(PASS_SECONDS)

    told = {f"“Ending” {words}.": 1 for words in told_at.values()}
    renewal = [line for line in headlines(mailbox, TEAM) if line.startswith("“Renewing” renews")]
    assert renewal == ["“Renewing” renews itself in 23 days."]
    assert headlines(mailbox, TEAM) == {**told, renewal[0]: 1}
    assert headlines(mailbox, OWNER) == headlines(mailbox, TEAM)
    ids = [mail.message["Message-ID"] for mail in mailbox.mails]
    assert len(set(ids)) == len(ids)

    messages = verified(receiver.messages, hook["secret"], server)
    counts = Counter(one["type"] for one in messages)
    assert counts == {
        "key.created": 2, "alert.expiring": 3, "alert.expired": 1, "alert.renewal": 1,
        "key.renewed": 1,
    }  # fmt: skip
    renewed = script.call("GET", "/whoami", secret=keys["Renewing"]["key"])
    first_end = datetime.fromisoformat(keys["Renewing"]["expires_at"])
    assert datetime.fromisoformat(renewed["expires_at"]) == first_end + LIFE

    # Jobs went on, each in its turn, and nothing was written down as a fault.
    wall.sleep(PASS_SECONDS)
    assert server.query("select name from job where error is not null") == []
    assert "ERROR" not in server.log and "Traceback" not in server.log, server.log


def test_a_key_is_refused_from_its_millisecond_on(server: MovedServer) -> None:
    script = Script(server)
    key = script.call(
        "POST", "/api-keys", {"name": "Ending", "project": "shop", "expires_in": "30d"}
    )
    end = datetime.fromisoformat(key["expires_at"])
    server.move_to(end - timedelta(milliseconds=400))
    while server.now() < end + timedelta(milliseconds=300):
        script.verdict(key["key"])
    wait_until(lambda: bool(server.query("select 1 from entry where code = 'API_KEY_EXPIRED'")))
    instant = int(end.timestamp() * 1000)
    [(last,)] = server.query("select max(at) from entry where code = 'VALID' and project_id != ''"
                             f" and key_id = '{key['id']}'")  # fmt: skip
    [(first,)] = server.query("select min(at) from entry where code = 'API_KEY_EXPIRED'")
    assert last < instant <= first
    assert server.query(
        f"select count(*) from entry where key_id = '{key['id']}' and"
        f" (code = 'VALID') != (at < {instant})"
    ) == [(0,)]


def test_of_1000_messages_none_is_lost_however_receivers_behave_and_the_process_ends(
    server: MovedServer,
) -> None:
    """Four receivers, of which each misbehaves in its own way, are told of 250 changes each; the
    process is killed three times while it sends."""
    script = Script(server)
    manners: list[list[Answer]] = [
        [500, 200, 503, 200], [hang, 200], [reset, 200, reset, reset, 200], [drip, 200]
    ]  # fmt: skip
    receivers = [Receiver(*answers) for answers in manners]
    for receiver in receivers:
        script.call(
            "POST", "/webhooks", {"project": "shop", "url": receiver.url, "events": ["key.*"]}
        )
    key = script.call("POST", "/api-keys", {"name": "0", "project": "shop"})
    for number in range(1, 250):
        script.call("PATCH", f"/api-keys/{key['id']}", {"name": str(number)})
        if number % 80 == 0:
            server.kill()
            server.move_to(server.now() + timedelta(minutes=1))  # what was leased is free again
            server.start()

    def is_done() -> bool:
        if all(len({told(one) for one in receiver.messages}) == 250 for receiver in receivers):
            return True
        server.move_to(server.now() + timedelta(seconds=10))  # so that what failed is due again
        wall.sleep(0.2)
        return False

    wait_until(is_done)
    for receiver in receivers:
        ids: dict[int, set[str]] = {}
        for message in receiver.messages:
            ids.setdefault(told(message), set()).add(message.headers["webhook-id"])
        assert len(ids) == 250
        assert all(len(one) == 1 for one in ids.values())
    everyone = [{m.headers["webhook-id"] for m in receiver.messages} for receiver in receivers]
    assert all(one == everyone[0] for one in everyone)
    for receiver in receivers:
        receiver.__exit__(None, None, None)


def told(message: Message) -> int:
    """The event that a message tells of."""
    return int(json.loads(message.body)["data"]["id"])


def last_look(server: MovedServer) -> float:
    """When the job that looks at new entries was last done, by the server's clock."""
    text = requests.get(f"{server.url}/metrics", timeout=20).text
    found = re.search(r'last_success_timestamp_seconds\{job="watch"\} (\S+)', text)
    return float(found[1]) if found else 0.0


def test_a_clock_that_stands_still_stops_nothing_but_windows(server: MovedServer) -> None:
    script = Script(server)
    wait_until(lambda: last_look(server) > 0)
    server.stand_still()
    looked_at = last_look(server)
    limited = script.call(
        "POST", "/api-keys", {"project": "shop", "name": "L", "rate_limit": {"per_minute": 3}}
    )
    free = script.call("POST", "/api-keys", {"project": "shop", "name": "F"})
    verdicts = [script.verdict(limited["key"]) for _ in range(5)]
    assert verdicts == ["VALID"] * 3 + ["RATE_LIMITED"] * 2
    assert {script.verdict(free["key"]) for _ in range(20)} == {"VALID"}
    path = f"/api-keys/{free['id']}"
    rotated = script.call("POST", f"{path}/rotate")
    assert script.verdict(free["key"]) == "API_KEY_SUPERSEDED"
    script.call("PATCH", path, {"status": "revoked"})
    assert script.verdict(rotated["key"]) == "API_KEY_REVOKED"
    wall.sleep(2 * PASS_SECONDS)
    assert len(script.call("GET", f"{path}/audit-log")["data"]) == 22
    assert requests.get(f"{server.url}/readyz", timeout=20).status_code == 200
    server.move_to(server.now() + timedelta(seconds=61))
    assert script.verdict(limited["key"]) == "VALID"
    wait_until(lambda: last_look(server) > looked_at)
