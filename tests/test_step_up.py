"""Confirm it is you: asked of whoever signed in a while ago before what cannot be undone; then on
to what they wanted, wherever they were."""

import re
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import key_import, key_many, keys, sessions
from console.actor import Actor
from console.errors import Forbidden, NotFresh
from console.models import Event, Key, Passkey, Person
from tests.conftest import (
    PASSWORD,
    Call,
    Clock,
    MakeKey,
    add_person,
    add_second_factor,
    code_of,
    confirm,
    sign_in,
)

IN_DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}


@pytest.fixture
def key(make_key: MakeKey) -> Key:
    return make_key(name="CI")[0]


@pytest.fixture
def stale(key: Key, clock: Clock, signed_in: FlaskClient) -> FlaskClient:
    """A browser in which the owner signed in half an hour ago."""
    clock.move("30m")
    return signed_in


def user_id(browser: FlaskClient) -> str:
    with browser.session_transaction() as session:
        return str(session["_user_id"])


def hidden(page: str) -> dict[str, str]:
    """What the form carries along."""
    return dict(re.findall(r'type="hidden" name="(next|place)" value="([^"]*)"', page))


@pytest.mark.parametrize("name", ["rotate", "delete"])
def test_what_cannot_be_undone_asks_first(stale: FlaskClient, key: Key, name: str) -> None:
    address = f"/projects/shop/keys/{key.id}/{name}?back=key"
    page = stale.get(address)
    assert page.status_code == 403 and "Confirm it is you" in page.text
    assert "Type the key" not in page.text
    assert hidden(page.text) == {"next": address, "place": ""}
    answer = stale.post("/confirm", data={**hidden(page.text), "password": PASSWORD})
    assert (answer.status_code, answer.location) == (303, address)
    assert "Type the key" in stale.get(address).text
    assert stale.post(address, data={"confirm": "CI"}).status_code in (200, 303)


@pytest.mark.parametrize("name", ["rotate", "delete"])
def test_a_form_sent_too_late_does_nothing(
    stale: FlaskClient, key: Key, operator: Actor, name: str
) -> None:
    before = keys.as_dict(keys.key_to_read(key.id, by=operator))
    address = f"/projects/shop/keys/{key.id}/{name}"
    page = stale.post(address, data={"confirm": "CI"})
    assert page.status_code == 403 and hidden(page.text)["next"] == address
    assert keys.as_dict(keys.key_to_read(key.id, by=operator)) == before


def test_the_form_is_not_shown_that_could_not_be_sent_in_time(
    clock: Clock, signed_in: FlaskClient, key: Key
) -> None:
    address = f"/projects/shop/keys/{key.id}/rotate"
    clock.move("25m")
    clock.move_ms(-1)
    assert signed_in.get(address).status_code == 200
    clock.move_ms(1)
    assert signed_in.get(address).status_code == 403
    assert signed_in.post(address, data={"confirm": "CI"}).status_code == 200


def test_in_a_dialog_it_is_a_dialog_and_leads_on_to_the_one_before(
    stale: FlaskClient, key: Key
) -> None:
    address = f"/projects/shop/keys/{key.id}/rotate"
    page = stale.get(address, headers=IN_DIALOG)
    assert page.status_code == 403 and "<html" not in page.text
    assert page.headers["HX-Retarget"] == "#dialog"
    assert hidden(page.text) == {"next": address, "place": "dialog"}
    form = {**hidden(page.text), "password": "wrong"}
    page = stale.post("/confirm", data=form, headers=IN_DIALOG)
    assert page.status_code == 401 and "Email or password is wrong" not in page.text
    assert "That is not your password" in page.text and hidden(page.text)["place"] == "dialog"
    answer = stale.post("/confirm", data={**form, "password": PASSWORD}, headers=IN_DIALOG)
    assert (answer.status_code, answer.location) == (303, address)
    assert "<html" not in stale.get(address, headers=IN_DIALOG).text


def test_of_a_button_on_a_page_it_leads_back_to_the_page(stale: FlaskClient) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://localhost/account?x=1"}
    page = stale.post("/account/sessions/end-others", headers=headers)
    assert hidden(page.text) == {"next": "/account?x=1", "place": ""}
    answer = stale.post(
        "/confirm", data={"next": "/account?x=1", "password": PASSWORD}, headers=IN_DIALOG
    )
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/account?x=1")
    page = stale.get("/account")  # fresh again
    answer = stale.post("/account/sessions/end-others", headers={"Referer": "http://evil.example/"})
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "wanted", ["", "//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:x"]
)
def test_nobody_is_led_away(stale: FlaskClient, wanted: str) -> None:
    page = stale.get("/confirm", query_string={"next": wanted})
    assert hidden(page.text)["next"] == "/"
    assert stale.post("/confirm", data={"next": wanted, "password": PASSWORD}).location == "/"


def test_the_page_that_was_left_is_not_another_sites(stale: FlaskClient) -> None:
    page = stale.post(
        "/account/sessions/end-others", headers={"Referer": "http://evil.example/account"}
    )
    assert hidden(page.text)["next"] == "/"


def test_confirming_changes_the_sessions_token(stale: FlaskClient) -> None:
    before = user_id(stale)
    confirm(stale)
    assert user_id(stale) != before
    assert sessions.by_session(before) is None and sessions.by_session(user_id(stale))


def test_wrong_passwords_are_held_up_and_leave_nothing_fresh(stale: FlaskClient, key: Key) -> None:
    for _ in range(20):
        page = stale.post("/confirm", data={"password": "wrong"})
        if page.status_code == 429:
            break
        assert page.status_code == 401
    assert page.status_code == 429 and "Try again in" in page.text
    assert page.headers["Retry-After"]
    assert stale.post("/confirm", data={"password": PASSWORD}).status_code == 429
    assert stale.get(f"/projects/shop/keys/{key.id}/rotate").status_code == 403


def test_anothers_password_confirms_nobody(app: Flask, clock: Clock, owner: Actor) -> None:
    add_person("bob@example.com")
    Person.update(password_hash=None).where(Person.email == "bob@example.com").execute()
    browser = sign_in(app, owner)
    clock.move("30m")
    assert browser.post("/confirm", data={"password": ""}).status_code == 401


def test_who_is_signed_out_signs_in(client: FlaskClient, owner: Actor) -> None:
    for answer in (client.get("/confirm"), client.post("/confirm", data={"password": PASSWORD})):
        assert answer.status_code == 303 and answer.location.startswith("/login")


def test_a_person_without_a_password_is_not_stuck(
    stale: FlaskClient, owner: Actor, key: Key
) -> None:
    Person.update(password_hash=None).where(Person.id == owner.id).execute()
    page = stale.get(f"/projects/shop/keys/{key.id}/rotate")
    assert 'name="password"' not in page.text
    assert 'action="/logout"' in page.text and "sign out and in again" in page.text
    assert stale.post("/confirm", data={"password": ""}).status_code == 401


def test_another_address_says_what_is_refused_alike(
    app: Flask, clock: Clock, stranger: Actor, key: Key
) -> None:
    """Whoever may not see the key is not asked to confirm: it is not there for them."""
    browser = sign_in(app, stranger)
    clock.move("30m")
    assert browser.get(f"/projects/shop/keys/{key.id}/rotate").status_code == 404


def test_keys_and_access_tokens_are_never_asked(
    call: Call, manager: tuple[Key, str], make_key: MakeKey, owner: Actor, clock: Clock
) -> None:
    key, _ = make_key(name="Other")
    clock.move("1d")
    credentials = {"email": "ada@example.com", "password": PASSWORD}
    token = call("POST", "/auth/token", credentials, secret=None).json["access_token"]
    clock.move("14m")
    assert call("POST", f"/api-keys/{key.id}/rotate", {}, secret=token).status_code == 200
    assert call("DELETE", f"/api-keys/{key.id}").status_code == 204


def test_a_passkey_is_offered_beside_the_password(stale: FlaskClient, owner: Actor) -> None:
    Passkey.create(id="credential", person=owner.id, name="Phone", public_key=b"k", sign_count=0,
                   created_at=0)  # fmt: skip
    page = stale.get("/confirm?next=/account").text
    assert 'name="password"' in page and "passkey" in page


# --- keys that open Latchkey's own API --------------------------------------------------------


@pytest.fixture
def weary(owner: Actor, clock: Clock) -> Actor:
    """The owner, who showed half an hour ago that they are there."""
    return replace(owner, fresh_until=clock.now())


MIGHTY = [["admin:*"], ["*"], ["tasks:read", "keys:read"]]


@pytest.mark.parametrize("held", MIGHTY, ids=" ".join)
def test_a_key_that_opens_the_console_is_made_by_who_is_there(
    weary: Actor, owner: Actor, make_key: MakeKey, held: list[str]
) -> None:
    with pytest.raises(NotFresh):
        make_key(by=weary, permissions=held)
    row = {"name": "CI", "sha256": "a" * 64, "prefix": "sk_live_", "permissions": held}
    plain = {**row, "sha256": "b" * 64, "permissions": ["tasks:read"]}
    with pytest.raises(NotFresh):
        key_import.import_keys({"project": "shop", "keys": [plain, row]}, by=weary)
    assert Key.select().count() == 0
    make_key(by=replace(weary, fresh_until=weary.fresh_until + 1), permissions=held)


@pytest.mark.parametrize("held", MIGHTY, ids=" ".join)
def test_a_key_that_opens_the_console_is_changed_by_who_is_there(
    weary: Actor, make_key: MakeKey, held: list[str]
) -> None:
    mighty, _ = make_key(permissions=held, expires_in="1d")
    plain, _ = make_key()
    keys.rotate(mighty.id, {"grace_period": "1h"}, by=replace(weary, fresh_until=None))
    before = keys.as_dict(Key.get_by_id(mighty.id))
    ids = [mighty.id, plain.id]
    for work in (
        lambda: keys.edit(mighty.id, {"name": "New"}, by=weary),
        lambda: keys.edit(mighty.id, {"permissions": []}, by=weary),
        lambda: keys.edit(plain.id, {"permissions": held}, by=weary),
        lambda: keys.set_grace(mighty.id, {"grace_period": "7d"}, by=weary),
        lambda: key_many.extend(ids, {"expires_in": "1y"}, by=weary),
    ):
        with pytest.raises(NotFresh):
            work()
    assert keys.as_dict(Key.get_by_id(mighty.id)) == before
    assert Key.get_by_id(plain.id).permissions == []
    # To stop what it opens takes nothing but the right.
    keys.set_grace(mighty.id, {"grace_period": None}, by=weary)
    keys.revoke(mighty.id, by=weary)
    with pytest.raises(NotFresh):
        keys.restore(mighty.id, by=weary)


def test_a_plain_key_asks_nothing(weary: Actor, make_key: MakeKey) -> None:
    key, _ = make_key(by=weary, permissions=["tasks:*"], expires_in="1d")
    keys.edit(key.id, {"name": "New", "permissions": ["tasks:read"]}, by=weary)
    keys.revoke(key.id, by=weary)
    keys.restore(key.id, by=weary)
    assert key_many.extend([key.id], {"expires_in": "1y"}, by=weary)


def test_who_may_not_is_told_so_first(member: Actor, make_key: MakeKey, clock: Clock) -> None:
    weary = replace(member, fresh_until=clock.now())
    with pytest.raises(Forbidden) as refusal:
        make_key(by=weary, permissions=["admin:*"])
    assert not isinstance(refusal.value, NotFresh)
    with pytest.raises(NotFresh):
        make_key(by=weary, permissions=["keys:verify"])


def test_keys_and_access_tokens_make_such_keys_at_any_time(
    call: Call, make_key: MakeKey, owner: Actor, clock: Clock
) -> None:
    _, holder = make_key(name="Holder", permissions=["admin:*"])
    clock.move("1d")
    credentials = {"email": owner.name, "password": PASSWORD}
    token = call("POST", "/auth/token", credentials, secret=None).json["access_token"]
    clock.move("14m")
    fields = {"name": "New", "project": "shop", "permissions": ["admin:*"]}
    for secret in (holder, token):
        made = call("POST", "/api-keys", fields, secret=secret)
        assert made.status_code == 201
        path = f"/api-keys/{made.json['id']}"
        assert call("PATCH", path, {"name": "Other"}, secret=secret).status_code == 200


def form_of(page: str) -> dict[str, str]:
    """What the page's form for a key would send if its button were pressed."""
    page = page[page.index('<form class="dialog"') :]
    fields = dict(re.findall(r'<input[^>]* name="(\w+)"[^>]* value="([^"]*)"', page))
    fields |= dict(re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\n([^<]*)</textarea>', page))
    for name, options in re.findall(r'<select[^>]* name="(\w+)"[^>]*>(.*?)</select>', page, re.S):
        fields |= dict.fromkeys([name], *re.findall(r'value="(\w+)" selected', options))
    return fields


TYPED = {"name": "Deploy &amp; all", "description": "In the vault", "permissions": "admin:*",
         "ip_allowlist": "203.0.113.7", "external_id": "order-7"}  # fmt: skip


@pytest.mark.parametrize("headers", [{}, IN_DIALOG], ids=["page", "dialog"])
def test_the_form_keeps_what_was_typed_and_is_sent_again(
    app: Flask, stale: FlaskClient, key: Key, headers: dict[str, str]
) -> None:
    app.config.update(WTF_CSRF_ENABLED=True)
    for address in ("/projects/shop/keys/new", f"/projects/shop/keys/{key.id}/edit"):
        form = {**form_of(stale.get(address, headers=headers).text), **TYPED}
        form["name"] = "Deploy & all"
        page = stale.post(address, data=form, headers=headers)
        assert page.status_code == 403 and "Confirm that it is you first" in page.text
        assert ("<html" in page.text) == (not headers)
        link = 'href="/confirm?next=/account" target="_blank" rel="noopener"'
        assert link in page.text
        again = form_of(page.text)
        assert again | {"name": form["name"]} == form and again["name"] == TYPED["name"]
        before = keys.as_dict(Key.get_by_id(key.id))
        assert before["permissions"] == [] and Key.select().count() == 1
        assert Event.select().where(Event.action != "person.signed_in").count() == 2
    tab = dict(re.findall(r'name="(csrf_token|next)" value="([^"]*)"',
                          stale.get("/confirm?next=/account").text))  # fmt: skip
    answer = stale.post("/confirm", data={"password": PASSWORD, **tab})
    assert (answer.status_code, answer.location) == (303, "/account")
    # The page of before, its token against forged requests included.
    answer = stale.post(address, data=form, headers=headers)
    assert answer.status_code in (204, 303)
    assert Key.get_by_id(key.id).permissions == ["admin:*"]


def test_several_are_extended_after_confirming(stale: FlaskClient, make_key: MakeKey) -> None:
    mighty, _ = make_key(name="Robot", permissions=["admin:*"], expires_in="1d")
    form = {"key": mighty.id, "expiration": "1mo", "confirmed": "1"}
    page = stale.post("/projects/shop/keys/extend", data=form)
    assert page.status_code == 403 and "Confirm that it is you first" in page.text
    assert f'name="key" value="{mighty.id}"' in page.text and "works until" in page.text
    assert 'value="1mo" selected' in page.text
    confirm(stale)
    assert stale.post("/projects/shop/keys/extend", data=form).status_code == 303
    assert (Key.get_by_id(mighty.id).expires_at or 0) > (mighty.expires_at or 0)


def test_enabling_asks_first_and_leads_back(stale: FlaskClient, make_key: MakeKey) -> None:
    mighty, _ = make_key(name="Robot", permissions=["admin:*"])
    address = f"/projects/shop/keys/{mighty.id}"
    assert stale.post(f"{address}/revoke").status_code == 303
    page = stale.post(f"{address}/restore")
    assert page.status_code == 403 and hidden(page.text)["next"] == f"{address}/restore"
    confirm(stale)
    assert stale.post(f"{address}/restore").status_code == 303


def test_who_has_a_second_factor_confirms_with_it_too(
    stale: FlaskClient, owner: Actor, clock: Clock
) -> None:
    token = user_id(stale)
    seed, codes = add_second_factor(replace(owner, fresh_until=None), token)
    page = stale.get("/account/second-factor/remove")
    assert page.status_code == 403 and 'name="code"' in page.text
    for code in ("", "123456", "wrong"):
        answer = stale.post("/confirm", data={"password": PASSWORD, "code": code})
        assert answer.status_code == 401 and "This code does not hold" in answer.text
    assert stale.get("/account/second-factor/remove").status_code == 403
    code = code_of(seed, 1)
    answer = stale.post("/confirm", data={"password": PASSWORD, "code": code})
    assert answer.status_code == 303
    assert stale.get("/account/second-factor/remove").status_code == 200
    clock.move("30m")
    again = stale.post("/confirm", data={"password": PASSWORD, "code": codes[0]})
    assert again.status_code == 303


def test_a_password_alone_is_asked_of_who_has_nothing_else(stale: FlaskClient) -> None:
    assert 'name="code"' not in stale.get("/account/second-factor").text
