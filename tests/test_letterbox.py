"""Letters to people and services: what arrives, under which id, and that none is lost or sent by
two processes at once."""

import json
import time as wall
from collections.abc import Iterator
from typing import Any

import apprise
import pytest
from flask import Flask

import config as settings
from config import ConfigError
from console import clock as time
from console import db, letterbox, mail, outbox, people
from console.actor import Actor
from console.models import DELIVERED, FAILED, PENDING, Letter
from console.worker import Worker
from tests.conftest import Clock, at_once
from tests.mailbox import Mailbox
from tests.receiver import Receiver

TO = "bob@example.com"


@pytest.fixture(autouse=True)
def nothing_left_on(app: Flask) -> Iterator[None]:
    yield
    mail.use("", "")
    letterbox.use_apprise(())


@pytest.fixture
def mailbox(app: Flask) -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        mail.use(mailbox.url, "latchkey@example.com")
        yield mailbox


def write(*recipients: str, subject: str = "A key expires") -> None:
    with db.write():
        letterbox.mail_to(recipients or (TO,), subject, "Extend it.\n")


def send() -> str | None:
    """Sends the one that is due; what went wrong."""
    letter = letterbox.claim() or letterbox.claim(letterbox.APPRISE)
    assert letter is not None
    error = letterbox.send(letter)
    letterbox.conclude(letter, error)
    return error


# --- mail -----------------------------------------------------------------------------------------


def test_a_letter_arrives_and_is_done(mailbox: Mailbox) -> None:
    write()
    assert send() is None
    assert letterbox.claim() is None
    sent = mailbox.only()
    assert (sent.to, sent.message["Subject"], sent.text.strip()) == (
        [TO], "A key expires", "Extend it."
    )  # fmt: skip
    assert Letter.get().status == DELIVERED


def test_it_has_one_id_at_every_attempt(mailbox: Mailbox, clock: Clock) -> None:
    write()
    letter = letterbox.claim()
    assert letter and letterbox.send(letter) is None
    # The process ends here: nobody writes down that it was taken.
    clock.move_ms(letterbox.LEASE)
    assert send() is None
    first, second = [one.message["Message-ID"] for one in mailbox.mails]
    assert first == second == f"<{letter.id}@example.com>"


def test_a_letter_is_one_for_each_recipient_and_one_for_who_is_named_twice(
    mailbox: Mailbox,
) -> None:
    write(TO, "ada@example.com", TO)
    assert sorted(one.recipient for one in Letter.select()) == ["ada@example.com", TO]


def test_what_is_taken_back_is_not_sent(mailbox: Mailbox) -> None:
    with pytest.raises(ValueError, match="taken back"), db.write():
        letterbox.mail_to([TO], "A key expires", "Extend it.")
        raise ValueError("taken back")
    assert letterbox.claim() is None


def test_without_a_server_nothing_is_written(app: Flask) -> None:
    write()
    assert Letter.select().count() == 0


def test_a_server_that_refuses_is_asked_again_for_a_day(clock: Clock) -> None:
    with Mailbox(rcpt="451 later") as mailbox:
        mail.use(mailbox.url, "latchkey@example.com")
        write()
        began = clock.instant
        for _ in range(len(outbox.DELAYS)):
            assert "451 later" in (send() or "")
            letter = Letter.get()
            assert letter.status == PENDING
            clock.instant = letter.next_attempt_at
        assert send()
    letter = Letter.get()
    assert (letter.status, letter.next_attempt_at, letter.attempts) == (FAILED, None, 8)
    assert 20 * time.HOUR < clock.instant - began < 32 * time.HOUR


def test_a_letter_is_claimed_by_one_process_alone(mailbox: Mailbox) -> None:
    write()
    claimed = at_once(8, lambda _: letterbox.claim())
    assert len([one for one in claimed if one is not None]) == 1


def test_after_the_clock_was_set_back_letters_do_not_wait_for_the_old_time(
    mailbox: Mailbox, clock: Clock
) -> None:
    clock.move("2d")
    write()
    assert letterbox.claim()
    clock.move_ms(-2 * time.DAY)
    assert letterbox.claim() is None
    letterbox.hurry()
    assert send() is None


def test_old_letters_go_and_those_that_wait_stay(mailbox: Mailbox, clock: Clock) -> None:
    write()
    send()
    write(subject="Another")
    clock.move("31d")
    assert letterbox.prune(10) == 1
    assert Letter.get().subject == "Another"


def test_the_worker_sends_letters(mailbox: Mailbox) -> None:
    write(TO, "ada@example.com")
    worker = Worker(tasks=())
    worker.start()
    for _ in range(200):
        if len(mailbox.mails) == 2:
            break
        wall.sleep(0.05)
    worker.stop()
    assert {one.to[0] for one in mailbox.mails} == {TO, "ada@example.com"}
    assert {one.status for one in Letter.select()} == {DELIVERED}


def test_to_one_recipient_go_at_most_thirty_an_hour_and_the_rest_in_one(
    mailbox: Mailbox, clock: Clock
) -> None:
    for number in range(48):
        write(subject=f"Key {number} expires")
    due = 0
    while letter := letterbox.claim():
        letterbox.conclude(letter, letterbox.send(letter))
        due += 1
    assert due == letterbox.AN_HOUR
    clock.move("1h")
    assert send() is None
    assert letterbox.claim() is None
    assert mailbox.mails[-1].message["Subject"] == "Latchkey: more alerts"
    assert mailbox.mails[-1].text.count("Extend it.") == 48 - letterbox.AN_HOUR


def test_who_was_disabled_meanwhile_is_sent_nothing(
    mailbox: Mailbox, member: Actor, owner: Actor
) -> None:
    write(member.name)
    people.edit(member.id, {"disabled": True}, by=owner)
    assert letterbox.claim() is None
    assert (Letter.get().status, mailbox.mails) == (FAILED, [])


def test_who_had_an_old_lease_does_not_end_the_new_one(mailbox: Mailbox, clock: Clock) -> None:
    write()
    slow = letterbox.claim()
    clock.move_ms(letterbox.LEASE)
    quick = letterbox.claim()
    assert slow and quick
    letterbox.conclude(slow, "it took too long")
    assert letterbox.claim() is None
    assert Letter.get().leased_until == quick.leased_until
    letterbox.conclude(quick, None)
    letterbox.conclude(slow, "it took too long")
    assert (Letter.get().status, Letter.get().next_attempt_at) == (DELIVERED, None)


# --- Apprise --------------------------------------------------------------------------------------


def test_a_service_of_apprise_is_told_the_same() -> None:
    with Receiver() as receiver:
        letterbox.use_apprise([f"json://127.0.0.1:{receiver.port}/hook"])
        with db.write():
            letterbox.tell_services("A key expires", "Extend it.")
        assert send() is None
        body = json.loads(receiver.wait_for(1)[0].body)
    assert (body["title"], body["message"]) == ("A key expires", "Extend it.")


def test_what_somebody_typed_is_neither_markup_nor_a_call_to_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(apprise.Apprise, "notify", lambda self, **more: sent.append(more) or True)
    letterbox.use_apprise(["json://127.0.0.1:9/hook"])
    with db.write():
        letterbox.tell_services("<b>@everyone</b>", "@here ada@example.com")
    assert send() is None
    assert sent[0]["body_format"] == apprise.NotifyFormat.TEXT
    assert "@everyone" not in sent[0]["title"] and "@here" not in sent[0]["body"]
    assert "ada@example.com" in sent[0]["body"]


def test_its_address_is_not_in_the_database() -> None:
    letterbox.use_apprise(["json://user:secret@127.0.0.1:9/hook"])
    with db.write():
        letterbox.tell_services("A key expires", "Extend it.")
    letter = Letter.get()
    assert "secret" not in json.dumps(letter.__data__)


def test_a_service_that_does_not_take_it_is_tried_again() -> None:
    with Receiver(500) as receiver:
        letterbox.use_apprise([f"json://127.0.0.1:{receiver.port}/hook"])
        with db.write():
            letterbox.tell_services("A key expires", "Extend it.")
        assert send() == "The service did not take it; the log may say why."
    assert Letter.get().status == PENDING


def test_an_address_that_is_no_longer_set_says_so() -> None:
    letterbox.use_apprise(["json://127.0.0.1:9/hook"])
    with db.write():
        letterbox.tell_services("A key expires", "Extend it.")
    letterbox.use_apprise(())
    assert send() == "The address is not in LATCHKEY_APPRISE_URLS any more."


@pytest.mark.parametrize(
    ("text", "urls"),
    [("", ()), ("json://a.example/ json://b.example/", ("json://a.example/", "json://b.example/"))],
)
def test_the_setting_takes_addresses_with_space_between(text: str, urls: Any) -> None:
    assert settings.load({"LATCHKEY_APPRISE_URLS": text}).apprise_urls == urls


def test_an_address_that_apprise_does_not_know_stops_the_start_and_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="number 2 is no address that Apprise knows") as error:
        settings.load({"LATCHKEY_APPRISE_URLS": "json://a.example/ nonsense://token@x"})
    assert "token" not in str(error.value)
