"""Passkeys (WebAuthn Level 3) against an authenticator written here: what is taken, what is not."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flask import Flask
from flask.testing import FlaskClient

from console import links, passkeys, sessions, signin, throttle
from console.actor import Actor, command_line
from console.errors import (
    Conflict,
    Invalid,
    Limited,
    NotFresh,
    Refused,
    Unauthenticated,
    Unknown,
)
from console.models import Event, Link, Passkey, Person, Session
from tests.conftest import Clock, add_person, at_once, sign_in

HOST = "keys.example.com"
ORIGIN = f"https://{HOST}"
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40
NAME = {"name": "Laptop"}

Options = dict[str, Any]
Credential = dict[str, Any]


def text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def content(text: str) -> bytes:
    return urlsafe_b64decode(f"{text}==")


@dataclass
class Authenticator:
    """A device with one passkey, and the browser around it. What it says can be bent."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    id: bytes = b"credential-of-sixteen-bytes-or-more"
    origin: str = ORIGIN
    rp_id: str = HOST
    flags: int = PRESENT | VERIFIED
    count: int = 0
    counts: bool = True
    handle: bytes | None = None
    cross_origin: bool = False

    def make(self, options: Options) -> Credential:
        """`navigator.credentials.create`: RegistrationResponseJSON."""
        self.handle = content(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
        cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cose
        data = self._data(ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client_data = self._client_data("webauthn.create", options)
        return self._answer({
            "clientDataJSON": text(client_data),
            "attestationObject": text(attestation),
            "transports": ["internal", "hybrid", "smoke signals"],
        })  # fmt: skip

    def sign(self, options: Options) -> Credential:
        """`navigator.credentials.get`: AuthenticationResponseJSON."""
        self.count += self.counts
        data, client_data = self._data(), self._client_data("webauthn.get", options)
        signed = data + hashlib.sha256(client_data).digest()
        return self._answer({
            "clientDataJSON": text(client_data),
            "authenticatorData": text(data),
            "signature": text(self.key.sign(signed, ec.ECDSA(SHA256()))),
            "userHandle": None if self.handle is None else text(self.handle),
        })  # fmt: skip

    def _data(self, more: int = 0) -> bytes:
        rp_hash = hashlib.sha256(self.rp_id.encode()).digest()
        return rp_hash + bytes([self.flags | more]) + self.count.to_bytes(4, "big")

    def _client_data(self, kind: str, options: Options) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        return json.dumps({**said, "crossOrigin": self.cross_origin}).encode()

    def _answer(self, response: dict[str, Any]) -> Credential:
        name = text(self.id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response}


@pytest.fixture(autouse=True)
def _address(app: Flask) -> Iterator[None]:
    before = links.base_url()
    links.use_base_url(ORIGIN)
    yield
    links.use_base_url(before)


def add(device: Authenticator, by: Actor, **more: Any) -> Passkey:
    options = passkeys.begin_adding(NAME, by=by)
    return passkeys.add(options["challenge"], device.make(options), {**NAME, **more}, by=by)


def enter(device: Authenticator, **bent: Any) -> tuple[str, Person]:
    options = passkeys.begin_sign_in(ip="203.0.113.7")
    credential = replace(device, **bent).sign(options)
    device.count += device.counts
    return passkeys.sign_in(options["challenge"], credential, ip="203.0.113.7", user_agent="Test")


def token_of(by: Actor) -> str:
    """The token of a new session of the actor's."""
    return sessions.begin(Person.get_by_id(by.id), method=sessions.PASSWORD, ip=None)


def actions() -> list[str]:
    return [one.action for one in Event.select().order_by(Event.id)]


@pytest.fixture
def device(owner: Actor) -> Authenticator:
    """A device with a passkey of the owner's."""
    device = Authenticator()
    add(device, owner)
    return device


# --- where they hold --------------------------------------------------------------------------


NAMES = {
    "https://keys.example.com": "https://keys.example.com",
    "https://keys.example.com:443": "https://keys.example.com",
    "https://keys.example.com:8443": "https://keys.example.com:8443",
    "https://schlüssel.example.com": "https://xn--schlssel-95a.example.com",
    "http://localhost:8000": "http://localhost:8000",
    "http://localhost:80": "http://localhost",
    "http://latchkey.localhost": "http://latchkey.localhost",
}
NO_NAMES = (
    "http://keys.example.com", "http://127.0.0.1:8000", "https://127.0.0.1", "https://127.1",
    "https://[::1]:8000", "http://localhost.example.com", f"https://{'x' * 64}.example.com", "",
)  # fmt: skip


def test_a_name_over_https_or_this_machine_has_passkeys() -> None:
    for address, origin in NAMES.items():
        links.use_base_url(address)
        assert passkeys.are_possible() and passkeys.why_not() is None, address
        assert passkeys.origin() == origin


def test_elsewhere_there_are_none_and_it_is_said_what_to_set(owner: Actor) -> None:
    for address in NO_NAMES:
        links.use_base_url(address)
        assert "LATCHKEY_BASE_URL" in (passkeys.why_not() or ""), address
        for begin in (lambda: passkeys.begin_adding(NAME, by=owner),
                      lambda: passkeys.begin_sign_in(ip=None)):  # fmt: skip
            with pytest.raises(Conflict, match="LATCHKEY_BASE_URL"):
                begin()


# --- add --------------------------------------------------------------------------------------


def test_a_passkey_is_asked_for_with_its_user_verified_and_kept_on_the_device(
    owner: Actor, device: Authenticator
) -> None:
    options = passkeys.begin_adding(NAME, by=owner)
    assert options["rp"] == {"name": "Latchkey", "id": HOST}
    assert content(options["user"]["id"]).decode() == owner.id
    assert options["user"]["name"] == owner.name
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"] == {
        "residentKey": "required", "requireResidentKey": True, "userVerification": "required",
    }  # fmt: skip
    known = {"id": text(device.id), "type": "public-key", "transports": ["internal", "hybrid"]}
    assert options["excludeCredentials"] == [known]


def test_a_passkey_that_was_added_is_listed_with_its_event(owner: Actor) -> None:
    passkey = add(Authenticator(), owner, name="  Laptop  ")
    assert passkeys.of_person(by=owner) == [passkey]
    assert (passkey.name, passkey.last_used_at) == ("Laptop", None)
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.target_id, event.actor_id) == (
        "person.passkey_added", owner.id, owner.id,
    )  # fmt: skip
    assert event.changes == {"passkey": [None, "Laptop"]}


BENT: list[dict[str, Any]] = [
    {"origin": "https://keys.example.com.evil.example"},
    {"origin": "http://keys.example.com"},
    {"rp_id": "example.com"},
    {"flags": PRESENT},
    {"flags": VERIFIED},
    {"cross_origin": True},
]


def test_a_passkey_that_was_made_otherwise_is_not_taken(owner: Actor) -> None:
    for bent in (*BENT, {"id": b"x" * 1024}):
        with pytest.raises(Invalid, match="It must be made at https://keys.example.com,"):
            pytest.fail(f"taken: {add(Authenticator(**bent), owner).id}, {bent}")
    assert passkeys.of_person(by=owner) == []
    assert add(Authenticator(id=b"x" * 1023), owner)


def test_a_challenge_adds_one_passkey_alone_and_a_failure_uses_it_up(owner: Actor) -> None:
    options = passkeys.begin_adding(NAME, by=owner)
    with pytest.raises(Invalid):
        passkeys.add(options["challenge"], {}, NAME, by=owner)
    with pytest.raises(Invalid):
        passkeys.add(options["challenge"], Authenticator().make(options), NAME, by=owner)
    assert Link.select().count() == 0


def test_a_challenge_adds_nothing_after_five_minutes(owner: Actor, clock: Clock) -> None:
    options = passkeys.begin_adding(NAME, by=owner)
    clock.move("5m")
    with pytest.raises(Invalid):
        passkeys.add(options["challenge"], Authenticator().make(options), NAME, by=owner)


def test_a_challenge_is_for_whom_it_was_made(owner: Actor, member: Actor) -> None:
    options = passkeys.begin_adding(NAME, by=owner)
    with pytest.raises(Invalid):
        passkeys.add(options["challenge"], Authenticator().make(options), NAME, by=member)


def test_the_same_passkey_is_not_added_twice(member: Actor, device: Authenticator) -> None:
    with pytest.raises(Invalid, match="known here already"):
        add(Authenticator(), member)


def test_a_name_that_is_none_is_refused_before_the_device_is_asked(owner: Actor) -> None:
    for name in ("", " ", "x" * 101, "a\u202eb", None, 5):
        with pytest.raises(Invalid) as refused:
            passkeys.begin_adding({"name": name}, by=owner)
        assert refused.value.fields.keys() == {"name"}
        options = passkeys.begin_adding(NAME, by=owner)
        made = Authenticator().make(options)
        with pytest.raises(Invalid):
            passkeys.add(options["challenge"], made, {"name": name}, by=owner)


def test_a_person_has_at_most_twenty(owner: Actor) -> None:
    waiting = Authenticator(id=b"begun before the last one was added")
    for number in range(19):
        add(Authenticator(id=f"credential {number}".encode()), owner)
    options = passkeys.begin_adding(NAME, by=owner)
    Passkey.create(id="20th", person=owner.id, name="x", public_key=b"", sign_count=0, created_at=0)
    for call in (
        lambda: passkeys.begin_adding(NAME, by=owner),
        lambda: passkeys.add(options["challenge"], waiting.make(options), NAME, by=owner),
    ):
        with pytest.raises(Conflict, match="20 passkeys"):
            call()


# --- sign in ----------------------------------------------------------------------------------


def test_a_passkey_signs_in_without_naming_the_person(
    owner: Actor, device: Authenticator, clock: Clock
) -> None:
    clock.move("1m")
    options = passkeys.begin_sign_in(ip=None)
    assert (options["rpId"], options["userVerification"]) == (HOST, "required")
    assert options["allowCredentials"] == []
    token, person = enter(device)
    assert person.id == owner.id
    session = Session.get(Session.method == sessions.PASSKEY)
    assert sessions.is_of(session, token) and session.ip == "203.0.113.7"
    assert passkeys.of_person(by=owner)[0].last_used_at == clock.now()
    assert actions()[-1] == "person.signed_in"
    assert enter(device)[1].id == owner.id


WRONG: list[dict[str, Any]] = [
    *BENT,
    {"key": ec.generate_private_key(ec.SECP256R1())},
    {"id": b"nobody's"},
    {"handle": None},
    {"handle": b"per_somebody"},
]


def test_whatever_is_wrong_with_it_the_answer_is_one(device: Authenticator) -> None:
    for bent in WRONG:
        with pytest.raises(Unauthenticated) as refused:
            pytest.fail(f"let in: {enter(device, **bent)}, {bent}")
        assert refused.value.code == "CREDENTIALS_INVALID"
        assert refused.value.message == (
            "This passkey was not accepted. Try again, or use your password."
        )
    assert Session.select().where(Session.method == sessions.PASSKEY).count() == 0


def sign_in_again(options: Options, credential: Credential) -> tuple[str, Person]:
    return passkeys.sign_in(options["challenge"], credential, ip=None)


def test_what_was_signed_opens_once(device: Authenticator) -> None:
    options = passkeys.begin_sign_in(ip=None)
    credential = device.sign(options)
    sign_in_again(options, credential)
    device.counts = False
    for again in (credential, device.sign(options)):
        with pytest.raises(Unauthenticated):
            sign_in_again(options, again)


def test_of_many_at_once_what_was_signed_lets_one_in(device: Authenticator) -> None:
    device.counts = False
    options = passkeys.begin_sign_in(ip=None)
    credential = device.sign(options)
    answers = at_once(8, lambda _: sign_in_again(options, credential))
    assert len([one for one in answers if isinstance(one, Refused)]) == 7


def test_a_failure_uses_the_challenge_up(device: Authenticator) -> None:
    options = passkeys.begin_sign_in(ip=None)
    with pytest.raises(Unauthenticated):
        sign_in_again(options, replace(device, flags=PRESENT).sign(options))
    with pytest.raises(Unauthenticated):
        sign_in_again(options, device.sign(options))


def test_what_was_signed_too_late_opens_nothing(device: Authenticator, clock: Clock) -> None:
    options = passkeys.begin_sign_in(ip=None)
    clock.move("5m")
    with pytest.raises(Unauthenticated):
        sign_in_again(options, device.sign(options))


def test_a_challenge_of_one_s_own_making_opens_nothing(device: Authenticator) -> None:
    options = {"challenge": text(b"x" * 32)}
    with pytest.raises(Unauthenticated):
        sign_in_again(options, device.sign(options))


def test_another_challenge_than_the_browser_s_opens_nothing(device: Authenticator) -> None:
    mine, other = passkeys.begin_sign_in(ip=None), passkeys.begin_sign_in(ip=None)
    with pytest.raises(Unauthenticated):
        sign_in_again(mine, device.sign(other))


def test_who_is_disabled_is_not_let_in(owner: Actor, device: Authenticator, clock: Clock) -> None:
    Person.update(disabled_at=clock.now()).where(Person.id == owner.id).execute()
    with pytest.raises(Unauthenticated):
        enter(device)


def test_a_count_that_goes_back_is_refused_and_told(owner: Actor, device: Authenticator) -> None:
    enter(device)
    enter(device)
    for count in (0, 1):  # one less, and the same, once it has counted on
        with pytest.raises(Unauthenticated):
            enter(device, count=count)
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.target_id) == ("person.passkey_refused", owner.id)
    assert event.changes == {"passkey": ["Laptop", "Laptop"], "sign_count": [2, 2]}
    assert enter(device)[1].id == owner.id  # by now at 5


def test_a_count_that_the_device_did_not_sign_tells_nothing(device: Authenticator) -> None:
    enter(device)
    with pytest.raises(Unauthenticated):
        enter(device, count=0, counts=False, key=ec.generate_private_key(ec.SECP256R1()))
    assert "person.passkey_refused" not in actions()


def test_a_device_that_does_not_count_signs_in_again_and_again(owner: Actor) -> None:
    device = Authenticator(counts=False)
    add(device, owner)
    assert enter(device)[1].id == enter(device)[1].id == owner.id


HOSTILE: list[Any] = [
    None, [], "x", 5, {}, {"id": 5}, {"id": "\x00"}, {"id": "\ud800"}, {"id": "x", "response": 1},
    {"response": {"clientDataJSON": None}},
]  # fmt: skip


def test_what_is_no_credential_is_refused_like_a_wrong_one(owner: Actor) -> None:
    for credential in HOSTILE:
        options = passkeys.begin_sign_in(ip=None)
        with pytest.raises(Unauthenticated):
            passkeys.sign_in(options["challenge"], credential, ip=None)
        options = passkeys.begin_adding(NAME, by=owner)
        with pytest.raises(Invalid):
            passkeys.add(options["challenge"], credential, NAME, by=owner)


JUNK = ("", "!", "A", "AAAA", text(b"null"), text(b"[" * 5_000), 5, None)


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature", "userHandle"])
def test_junk_in_a_credential_is_refused_like_a_wrong_one(device: Authenticator, part: str) -> None:
    for junk in JUNK:
        options = passkeys.begin_sign_in(ip=None)
        credential = device.sign(options)
        credential["response"][part] = junk
        with pytest.raises(Unauthenticated):
            passkeys.sign_in(options["challenge"], credential, ip=None)


def test_wrong_ones_slow_the_network_down_and_right_ones_do_not(
    device: Authenticator, clock: Clock
) -> None:
    for _ in range(throttle.NETWORK.free + 5):
        enter(device)
    with pytest.raises(Limited):
        for _ in range(throttle.NETWORK.free + 2):
            with pytest.raises(Unauthenticated):
                enter(device, id=b"nobody's")


def test_neither_strangers_in_the_network_nor_at_the_account_keep_a_known_browser_out(
    owner: Actor, device: Authenticator, clock: Clock
) -> None:
    here, known = "203.0.113.7", f"{owner.id}.mark"
    while True:
        try:
            enter(device, id=b"nobody's")
        except Limited:
            break
        except Unauthenticated:
            continue
    with pytest.raises(Limited):
        enter(device)
    for _ in range(throttle.BEGUN_MAX):
        passkeys.begin_sign_in(ip=here, browser=known)
    options = passkeys.begin_sign_in(ip=here, browser=f"{known} another")
    credential = device.sign(options)
    assert passkeys.sign_in(options["challenge"], credential, ip=here, browser=known)
    with pytest.raises(Limited):
        passkeys.begin_sign_in(ip=here, browser=known)


def test_guesses_at_the_password_do_not_keep_a_passkey_out(
    owner: Actor, device: Authenticator, clock: Clock
) -> None:
    for _ in range(throttle.ACCOUNT.free + 1):
        with pytest.raises(Unauthenticated):
            signin.with_password(owner.name, "wrong", ip="198.51.100.1")
    with pytest.raises(Limited):
        signin.with_password(owner.name, "wrong", ip="198.51.100.1")
    assert enter(device)


def test_a_network_begins_so_many_sign_ins_and_no_more(app: Flask, clock: Clock) -> None:
    for _ in range(throttle.BEGUN_MAX):
        passkeys.begin_sign_in(ip="203.0.113.7")
    with pytest.raises(Limited) as refused:
        passkeys.begin_sign_in(ip="203.0.113.8")
    assert refused.value.retry_after_seconds == 300
    passkeys.begin_sign_in(ip="198.51.100.1")
    clock.move("5m")
    passkeys.begin_sign_in(ip="203.0.113.8")


# --- confirm ----------------------------------------------------------------------------------


def confirm(device: Authenticator, by: Actor) -> str:
    options = passkeys.begin_confirming(by=by)
    return passkeys.confirm(token_of(by), options["challenge"], device.sign(options), by=by)


def test_a_passkey_shows_that_its_person_is_there(
    owner: Actor, device: Authenticator, clock: Clock
) -> None:
    token = token_of(owner)
    clock.move("1h")
    stale = sessions.by_session(token)
    assert stale is not None
    with pytest.raises(NotFresh):
        passkeys.begin_adding(NAME, by=stale)
    options = passkeys.begin_confirming(by=stale)
    assert [one["id"] for one in options["allowCredentials"]] == [text(device.id)]
    new = passkeys.confirm(token, options["challenge"], device.sign(options), by=stale)
    fresh = sessions.by_session(new)
    assert fresh is not None and sessions.by_session(token) is None
    passkeys.begin_adding(NAME, by=fresh)


def test_asked_for_one_person_a_device_need_not_say_whose_it_is(
    owner: Actor, device: Authenticator
) -> None:
    device.handle = None
    assert confirm(device, owner)


def test_another_person_s_passkey_confirms_nothing(member: Actor, device: Authenticator) -> None:
    add(Authenticator(id=b"the member's"), member)
    with pytest.raises(Unauthenticated):
        confirm(device, member)


def test_a_challenge_to_sign_in_confirms_nothing(owner: Actor, device: Authenticator) -> None:
    token, options = token_of(owner), passkeys.begin_sign_in(ip=None)
    with pytest.raises(Unauthenticated):
        passkeys.confirm(token, options["challenge"], device.sign(options), by=owner)


def test_a_count_that_goes_back_confirms_nothing(owner: Actor, device: Authenticator) -> None:
    confirm(device, owner)
    device.count = 0
    with pytest.raises(Unauthenticated):
        confirm(device, owner)
    assert actions()[-1] == "person.passkey_refused"


def test_who_has_no_passkey_is_not_asked_for_one(member: Actor) -> None:
    with pytest.raises(Conflict):
        passkeys.begin_confirming(by=member)


def test_nobody_but_people_has_passkeys(app: Flask) -> None:
    for call in (
        lambda: passkeys.begin_adding(NAME, by=command_line()),
        lambda: passkeys.begin_confirming(by=command_line()),
        lambda: passkeys.remove("x", token="", by=command_line()),
    ):
        with pytest.raises(Unknown):
            call()


# --- rename, remove ---------------------------------------------------------------------------


def test_a_new_name_is_told_and_the_same_one_is_not(owner: Actor, device: Authenticator) -> None:
    before = len(actions())
    for _ in range(2):
        assert passkeys.rename(text(device.id), {"name": "Phone"}, by=owner).name == "Phone"
    assert actions()[before:] == ["person.passkey_renamed"]


def test_a_passkey_that_was_removed_opens_nothing_and_other_sessions_end(
    owner: Actor, device: Authenticator
) -> None:
    token, other = token_of(owner), enter(device)[0]
    passkeys.remove(text(device.id), token=token, by=owner)
    assert sessions.by_session(token) and not sessions.by_session(other)
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.changes) == (
        "person.passkey_removed", {"passkey": ["Laptop", None]},
    )  # fmt: skip
    with pytest.raises(Unauthenticated):
        enter(device)


def test_everybody_else_s_passkey_is_not_there(member: Actor, device: Authenticator) -> None:
    for passkey_id in (text(device.id), "none", "\x00"):
        for call in (
            lambda one: passkeys.find_own(one, by=member),
            lambda one: passkeys.rename(one, NAME, by=member),
            lambda one: passkeys.remove(one, token="", by=member),
        ):
            with pytest.raises(Unknown, match="no such passkey"):
                call(passkey_id)


def test_changes_ask_who_is_there(owner: Actor, device: Authenticator, clock: Clock) -> None:
    options = passkeys.begin_adding(NAME, by=owner)
    stale = replace(owner, fresh_until=clock.now())
    for call in (
        lambda: passkeys.add(options["challenge"], device.make(options), NAME, by=stale),
        lambda: passkeys.rename(text(device.id), NAME, by=stale),
        lambda: passkeys.remove(text(device.id), token="", by=stale),
    ):
        with pytest.raises(NotFresh):
            call()


# --- as the script asks -----------------------------------------------------------------------


def ask(browser: FlaskClient, address: str, **body: Any) -> Any:
    return browser.post(address, json=body)


def test_the_whole_way_through_the_browser_s_door(app: Flask, owner: Actor) -> None:
    browser, device = sign_in(app, owner), Authenticator()
    options = ask(browser, "/account/passkeys/options", name="Phone").get_json()
    made = device.make(options)
    answer = ask(browser, "/account/passkeys", name="Phone", credential=made)
    assert (answer.status_code, answer.get_json()) == (200, {"location": "/account"})
    page = browser.get("/account").text
    assert "Phone" in page and "not used yet" in page
    assert ask(browser, "/account/passkeys", name="Phone", credential=made).status_code == 422

    options = ask(browser, "/confirm/passkey/options").get_json()
    answer = ask(
        browser, "/confirm/passkey", credential=device.sign(options), next="/account", place=""
    )
    assert (answer.status_code, answer.get_json()) == (200, {"location": "/account"})
    assert browser.get("/account").status_code == 200

    fresh = app.test_client()
    options = ask(fresh, "/login/passkey/options").get_json()
    answer = ask(fresh, "/login/passkey", credential=device.sign(options), next="/account")
    assert answer.get_json() == {"location": "/account"}
    assert "latchkey-browser" in answer.headers["Set-Cookie"] + str(answer.headers)
    assert "Passkey" in fresh.get("/account").text


def test_what_was_asked_of_one_browser_is_not_answered_by_another(
    app: Flask, device: Authenticator
) -> None:
    asked, other = app.test_client(), app.test_client()
    credential = device.sign(ask(asked, "/login/passkey/options").get_json())
    answer = ask(other, "/login/passkey", credential=credential)
    assert answer.status_code == 401
    assert answer.get_json().keys() == {"message"}
    assert ask(asked, "/login/passkey", credential=credential).status_code == 200


def test_a_sign_in_leads_nowhere_else(app: Flask, device: Authenticator) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil", 5, None):
        browser = app.test_client()
        options = ask(browser, "/login/passkey/options").get_json()
        answer = ask(browser, "/login/passkey", credential=device.sign(options), next=target)
        assert answer.get_json() == {"location": "/"}


def test_a_body_that_is_none_is_refused_in_json(signed_in: FlaskClient) -> None:
    for body in ("", "null", "[]", "{", '"x"', "[" * 100_000):
        for address in ("/login/passkey", "/confirm/passkey", "/account/passkeys"):
            answer = signed_in.post(address, data=body, content_type="application/json")
            assert answer.status_code == 422, answer.text
            assert answer.get_json()["message"]


def test_nobody_who_is_not_signed_in_adds_or_confirms(client: FlaskClient) -> None:
    for address in ("/account/passkeys/options", "/account/passkeys", "/confirm/passkey/options",
                    "/confirm/passkey", "/account/passkeys/x/remove"):  # fmt: skip
        answer = ask(client, address)
        assert (answer.status_code, answer.location) == (303, "/login")


def test_the_script_is_asked_for_the_token_of_its_page(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    for address in ("/login/passkey/options", "/login/passkey"):
        assert ask(app.test_client(), address).status_code == 400
    browser = app.test_client()
    page = browser.get("/login").text
    token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
    answer = browser.post(
        "/login/passkey/options", json={},
        headers={"X-CSRFToken": token, "Referer": "http://localhost/login"},
    )  # fmt: skip
    assert answer.status_code == 200


def test_pages_offer_passkeys_only_where_there_are_some(
    app: Flask, signed_in: FlaskClient, client: FlaskClient
) -> None:
    assert 'data-passkey="sign-in"' in client.get("/login").text
    assert "Add a passkey" in signed_in.get("/account").text
    assert 'data-passkey="confirm"' not in signed_in.get("/confirm?next=/account").text
    links.use_base_url("http://127.0.0.1:8000")
    assert "data-passkey" not in client.get("/login").text
    page = signed_in.get("/account").text
    assert "LATCHKEY_BASE_URL" in page and "Add a passkey" not in page


def test_the_dialogs_rename_and_remove(
    signed_in: FlaskClient, device: Authenticator, owner: Actor
) -> None:
    here = f"/account/passkeys/{text(device.id)}"
    assert "Laptop" in signed_in.get(f"{here}/rename").text
    wrong = signed_in.post(f"{here}/rename", data={"name": " "})
    assert wrong.status_code == 422 and 'id="passkey-name-error"' in wrong.text
    assert signed_in.post(f"{here}/rename", data={"name": "Phone"}).location == "/account"
    assert "Phone" in signed_in.get(f"{here}/remove").text
    assert signed_in.post(f"{here}/remove").location == "/account"
    assert passkeys.of_person(by=owner) == []
    for verb in ("rename", "remove"):
        assert signed_in.get(f"{here}/{verb}").status_code == 404
        assert signed_in.post(f"{here}/{verb}").status_code == 404


def test_somebody_else_s_dialogs_are_not_there(app: Flask, device: Authenticator) -> None:
    other = sign_in(app, add_person("eve@example.com"))
    for verb in ("rename", "remove"):
        for passkey_id in (text(device.id), "none"):
            answer = other.post(f"/account/passkeys/{passkey_id}/{verb}", data=NAME)
            assert answer.status_code == 404
