"""Passwords: which may be chosen, wherever somebody chooses one; how they are hashed, anew when the
policy changes; and that a flood of them holds nobody up for long."""

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from argon2 import low_level
from flask import Flask
from flask.testing import FlaskClient

from console import account, first_owner, invitations, links, passwords, people, sessions, signin
from console.actor import Actor
from console.errors import Invalid, Unauthenticated, Unavailable
from console.links import INVITATION, RESET
from console.models import Person, Session
from tests.conftest import PASSWORD, V1, at_once, sign_in

ADA = {"email": "ada@example.com", "password": PASSWORD}
VISITOR = Actor(kind="person", id=None, name="visitor", ip="192.0.2.7")

PASSWORDS = {
    "empty": ("", False),
    "7 characters": ("1234567", False),
    "8 characters": ("zkw-4711", True),
    "8 characters beyond ASCII": ("\u65e5" * 8, True),
    "spaces inside": ("a b c d e", True),
    "NUL inside": ("1234\x005678", True),
    "1,000 characters": ("x" * 1_000, True),
    "1,001 characters": ("x" * 1_001, False),
    "half a surrogate pair": ("1234567\ud800", False),
}


@pytest.mark.parametrize("password, allowed", PASSWORDS.values(), ids=PASSWORDS.keys())
def test_a_password_has_8_to_1000_characters(operator: Actor, password: str, allowed: bool) -> None:
    if allowed:
        people.create_owner({**ADA, "password": password}, by=operator)
        assert signin.with_password("ada@example.com", password, ip=None)
        with pytest.raises(Unauthenticated):
            signin.with_password("ada@example.com", password[:-1], ip=None)
    else:
        with pytest.raises(Invalid) as refusal:
            people.create_owner({**ADA, "password": password}, by=operator)
        assert list(refusal.value.fields) == ["password"]


def as_shipped() -> Any:
    """The module with hashes as strong as they are outside the tests."""
    spec = importlib.util.spec_from_file_location("passwords_as_shipped", passwords.__file__)
    assert spec is not None and spec.loader is not None
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    return shipped


def test_passwords_are_hashed_with_argon2id_as_owasp_asks() -> None:
    shipped = as_shipped()
    assert shipped.hash_password(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_password_is_salted() -> None:
    assert passwords.hash_password(PASSWORD) != passwords.hash_password(PASSWORD)


# --- what is tried first ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    ["password1", "PassWord1", "qwertyuiop", "12345678", "iloveyou", "latchkey", "Latchkey2026!",
     "ada@example.com", "ADA@example.com", "ada-2026", "1234ada!", "Ada Lovelace", "adalovelace",
     "Ada Lovelace 1815", "example.com", "Example.Com", "@example.com!", "example.com2026"],
)  # fmt: skip
def test_what_is_guessed_first_is_refused(operator: Actor, password: str) -> None:
    with pytest.raises(Invalid, match="choose a few words of your own") as refusal:
        people.create_owner({**ADA, "name": "Ada Lovelace", "password": password}, by=operator)
    assert list(refusal.value.fields) == ["password"]
    assert not Person.select().exists()


@pytest.mark.parametrize("password", [PASSWORD, "ada likes tea", "the latchkey kid", "passw0rd?!x"])
def test_what_only_holds_such_a_word_is_allowed(operator: Actor, password: str) -> None:
    people.create_owner({**ADA, "name": "Ada Lovelace", "password": password}, by=operator)


def begin(person: Actor) -> str:
    return signin.with_password(person.name, PASSWORD, ip=None)[0]


Place = Callable[[Actor, Actor, str], Any]
PLACES: dict[str, Place] = {
    "an owner who is added": lambda owner, bob, text: people.create_owner(
        {"email": "new@example.com", "password": text}, by=owner),
    "a person who is added": lambda owner, bob, text: people.create(
        {"email": "new@example.com", "password": text}, by=owner),
    "a person who is changed": lambda owner, bob, text: people.edit(
        bob.id or "", {"password": text}, by=owner),
    "a new password by a link": lambda owner, bob, text: invitations.reset_password(
        links.issue(RESET, bob.id)[0], {"password": text}, by=VISITOR),
    "one's own": lambda owner, bob, text: account.change_password(
        begin(bob), {"old_password": PASSWORD, "password": text}, by=bob),
}  # fmt: skip


@pytest.mark.parametrize("choose", PLACES.values(), ids=PLACES.keys())
def test_no_place_takes_a_common_password(owner: Actor, member: Actor, choose: Place) -> None:
    with pytest.raises(Invalid, match="one of the most used"):
        choose(owner, member, "iloveyou")
    choose(owner, member, "three words here")


@pytest.mark.parametrize(
    "password, words", [("iloveyou", "most used"), ("grace-8473", "your name")]
)
def test_no_link_takes_a_common_password(owner: Actor, password: str, words: str) -> None:
    person, _ = people.create({"email": "grace@example.com"}, by=owner)
    token, _ = links.issue(INVITATION, person.id)
    with pytest.raises(Invalid, match=words):
        invitations.join(token, {"password": password}, by=VISITOR)
    invitations.join(token, {"password": PASSWORD}, by=VISITOR)


def test_the_first_owner_chooses_no_common_password(app: Flask) -> None:
    token = first_owner.issue_setup_link() or ""
    with pytest.raises(Invalid, match="most used"):
        first_owner.set_up(token, {**ADA, "password": "iloveyou"}, by=VISITOR)
    first_owner.set_up(token, ADA, by=VISITOR)


# --- a policy that changes --------------------------------------------------------------------


@pytest.fixture
def stricter(owner: Actor, monkeypatch: pytest.MonkeyPatch) -> str:
    """From now on hashes cost more; the owner's present hash."""
    monkeypatch.setattr(passwords, "hasher", passwords.hasher.copy(argon2__time_cost=2))
    return str(Person.get_by_id(owner.id).password_hash)


def test_a_right_password_is_hashed_anew_and_ends_no_session(owner: Actor, stricter: str) -> None:
    before = Session.select().count()
    token, person = signin.with_password("ada@example.com", PASSWORD, ip=None)
    renewed = Person.get_by_id(owner.id).password_hash
    assert (",t=1," in stricter, ",t=2," in renewed) == (True, True)
    assert person.password_hash == renewed
    assert Session.select().count() == before + 1 and sessions.by_session(token)
    signin.with_password("ada@example.com", PASSWORD, ip=None)
    assert Person.get_by_id(owner.id).password_hash == renewed


def test_a_wrong_password_renews_nothing(owner: Actor, stricter: str) -> None:
    with pytest.raises(Unauthenticated):
        signin.with_password("ada@example.com", "wrong", ip=None)
    assert Person.get_by_id(owner.id).password_hash == stricter


def test_a_password_that_is_changed_meanwhile_is_not_changed_back(
    owner: Actor, stricter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = passwords.renewed

    def while_changed(password: str, password_hash: str) -> str | None:
        people.edit(owner.id or "", {"password": "three words here"}, by=owner)
        return renew(password, password_hash)

    monkeypatch.setattr(passwords, "renewed", while_changed)
    with pytest.raises(Unauthenticated):
        signin.with_password("ada@example.com", PASSWORD, ip=None)
    monkeypatch.setattr(passwords, "renewed", renew)
    signin.with_password("ada@example.com", "three words here", ip=None)


# --- a flood ----------------------------------------------------------------------------------


@pytest.fixture
def one_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    """A single thread hashes, and nobody waits for it for long."""
    with ThreadPoolExecutor(1) as turns:
        monkeypatch.setattr(passwords, "WAIT_SECONDS", 0.01)
        monkeypatch.setattr(passwords, "_turns", turns)
        yield turns


def test_whoever_waits_too_long_is_told_to_come_back(
    app: Flask, client: FlaskClient, owner: Actor, one_turn: ThreadPoolExecutor
) -> None:
    taken = threading.Event()
    one_turn.submit(taken.wait, 60)
    for email in ("ada@example.com", "nobody@example.com"):
        with pytest.raises(Unavailable, match="Too many people sign in just now"):
            signin.with_password(email, PASSWORD, ip=None)
    page = client.post("/login", data=ADA)
    assert (page.status_code, "Too many people sign in" in page.text) == (503, True)
    assert page.headers["Retry-After"]
    answer = client.post(f"{V1}/auth/token", json=ADA)
    assert (answer.status_code, answer.json["code"]) == (503, "UNAVAILABLE")
    taken.set()
    passwords.WAIT_SECONDS = 5
    sign_in(app, owner)  # none of these was counted as a wrong password


def test_no_more_are_hashed_at_once_than_there_are_processors(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most, lock = 0, 0, threading.Lock()
    verify = passwords.hasher.dummy_verify

    def counted() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.02)
        verify()
        with lock:
            at_work -= 1

    monkeypatch.setattr(passwords.hasher, "dummy_verify", counted)
    assert at_once(16, lambda number: passwords.fits("wrong", None)) == [False] * 16
    assert most == passwords.AT_ONCE == min(4, os.cpu_count() or 1)


def test_a_hash_that_fails_gives_its_turn_back(one_turn: ThreadPoolExecutor) -> None:
    passwords.WAIT_SECONDS = 5
    for _ in range(2):
        with pytest.raises(UnicodeEncodeError):
            passwords.hash_password("\ud800")


def test_the_first_unknown_person_takes_no_longer_than_the_next(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What unknown people are compared with is there when the application is."""
    hashed: list[object] = []
    monkeypatch.setattr(low_level, "hash_secret", lambda *given, **more: hashed.append(given))
    with pytest.raises(Unauthenticated):
        signin.with_password("nobody@example.com", PASSWORD, ip=None)
    assert not hashed


def test_what_nobodys_password_is_compared_with_costs_what_a_new_hash_costs() -> None:
    """As shipped: the tests' own hashes are cheaper."""
    shipped = as_shipped()
    shipped.warm_up()
    for made in (shipped.hasher._dummy_hash, shipped.hash_password(PASSWORD)):
        assert made.split("$")[1:4] == ["argon2id", "v=19", "m=19456,t=2,p=1"]
