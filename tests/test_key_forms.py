"""The dialogs that create and edit a key, as the server answers them: what they offer, what they
keep of what was typed, what they say while somebody types, and when somebody else was faster."""

import json
import re
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import keys, projects
from console.actor import Actor
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey, sign_in

DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}
NEW = "/projects/shop/keys/new"
SECRET = re.compile(r"sk_live_[0-9A-Za-z]{36}")
EXPIRATIONS = [
    "1 Day", "1 Week", "1 Month", "3 Months", "1 Year", "No Expiry", "On a date",
]  # fmt: skip


def words(answer: TestResponse) -> str:
    """What a person reads in it, on one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def value(answer: TestResponse, name: str) -> str:
    """What the field holds, as the browser would send it."""
    page = answer.text
    area = re.search(rf'<textarea id="{name}"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL)
    select = re.search(rf'<select id="{name}".*?</select>', page, re.DOTALL)
    if select:
        found = re.search(r'<option value="([^"]*)" selected', select[0]) or re.search(
            r'<option value="([^"]*)"', select[0]
        )
    else:
        found = area or re.search(rf'<input [^>]*name="{name}"[^>]*value="([^"]*)"', page)
    assert found, name
    return unescape(found[1]).replace("\r\n", "\n")


def typed(answer: TestResponse) -> dict[str, str]:
    """The whole form as the browser would send it when nothing in it was touched."""
    names = re.findall(r'<(?:input|select|textarea)[^>]* name="([a-z_]+)"', answer.text)
    return {name: value(answer, name) for name in names}


def edit_page(browser: FlaskClient, key: Key, **headers: str) -> TestResponse:
    return browser.get(f"/projects/shop/keys/{key.id}/edit", headers=headers)


def save(browser: FlaskClient, key: Key, form: dict[str, str]) -> TestResponse:
    """Sends the form as a browser does: line ends of text areas are CR LF."""
    sent = {name: text.replace("\n", "\r\n") for name, text in form.items()}
    return browser.post(f"/projects/shop/keys/{key.id}/edit", data=sent, headers=DIALOG)


def preview(browser: FlaskClient, field: str, **form: str) -> TestResponse:
    headers = {"HX-Request": "true", "HX-Target": f"{field}-note"}
    return browser.post("/projects/shop/keys/preview", data=form, headers=headers)


# --- create -----------------------------------------------------------------------------------


def test_the_form_offers_these_lengths_and_says_when_each_ends(
    signed_in: FlaskClient, clock: Clock
) -> None:
    page = signed_in.get(NEW)
    select = re.search(r'<select id="expiration".*?</select>', page.text, re.DOTALL)
    assert select
    assert re.findall(r">([^<]+)</option>", select[0]) == EXPIRATIONS
    assert value(page, "expiration") == "3mo"
    for end in ("21 Nov", "27 Nov", "20 Dec"):
        assert f"Until {end} 2026, 10:30 UTC." in words(page)
    for end in ("20 Feb", "20 Nov"):
        assert f"Until {end} 2027, 10:30 UTC." in words(page)


def test_every_setting_of_the_api_is_in_the_form(signed_in: FlaskClient) -> None:
    form = {
        "name": "Worker",
        "description": "In the vault",
        "environment": "test",
        "expiration": "date",
        "expires_on": "2099-01-31",
        "permissions": "tasks:read\r\ntasks:write",
        "ip_allowlist": "10.0.0.0/24, 203.0.113.7",
        "plan": "enterprise",
        "per_minute": "5",
        "per_hour": "",
        "monthly_quota": "10000",
        "external_id": "customer-42",
        "metadata": '{"team": "payments"}',
    }
    assert signed_in.post(NEW, data=form, headers=DIALOG).status_code == 200
    facts: dict[str, Any] = dict(keys.as_dict(Key.get()))
    assert {name: facts[name] for name in (
        "name", "description", "environment", "expires_at", "permissions", "ip_allowlist", "plan",
        "rate_limit", "monthly_quota", "external_id", "metadata",
    )} == {
        "name": "Worker",
        "description": "In the vault",
        "environment": "test",
        "expires_at": "2099-01-31T23:59:59Z",
        "permissions": ["tasks:read", "tasks:write"],
        "ip_allowlist": ["10.0.0.0/24", "203.0.113.7"],
        "plan": "enterprise",
        "rate_limit": {"per_minute": 5, "per_hour": None},
        "monthly_quota": 10_000,
        "external_id": "customer-42",
        "metadata": {"team": "payments"},
    }  # fmt: skip


def test_what_is_left_empty_is_not_set(signed_in: FlaskClient) -> None:
    form = {"name": "Worker", "monthly_quota": "", "external_id": "", "metadata": " ", "plan": ""}
    assert signed_in.post(NEW, data=form).status_code == 200
    key = Key.get()
    assert (key.monthly_quota, key.external_id, key.metadata) == (None, None, {})


@pytest.mark.parametrize(
    ("field", "text", "why"),
    [
        ("name", "", "Must not be empty."),
        ("permissions", "tasks read", "must look like tasks:read"),
        ("ip_allowlist", "10.0.0.5/24", "write 10.0.0.0/24"),
        ("monthly_quota", "0", "from 1 to"),
        ("monthly_quota", "many", "Must be a whole number."),
        ("external_id", "x" * 256, "Must have 1 to 255 characters."),
        ("metadata", "{team}", "Is not JSON that can be read"),
        ("metadata", "[1]", "Must be an object."),
        ("metadata", '{"a": NaN}', "NaN is not a JSON number"),
        ("metadata", "[" * 100_000, "Is not JSON that can be read"),
        ("metadata", '{"a": "\\u0000"}', "NUL"),
        ("expires_on", "2020-01-01", "Must be in the future"),
        ("expires_on", "soon", "Must be a time with its zone"),
        ("per_minute", "0", "from 1 to"),
    ],
)
def test_nothing_that_was_typed_is_lost(
    signed_in: FlaskClient, field: str, text: str, why: str
) -> None:
    form = {
        "name": "Worker <1>",
        "description": "\n first line empty",
        "environment": "test",
        "expiration": "date",
        "expires_on": "2099-01-31",
        "permissions": "tasks:read",
        "ip_allowlist": "10.0.0.0/24",
        "plan": "enterprise",
        "per_minute": "5",
        "per_hour": "7",
        "monthly_quota": "10000",
        "external_id": "customer-42",
        "metadata": '{"team": "payments"}',
        "once": "a-nonce-that-is-long-enough",
        field: text,
    }
    answer = signed_in.post(NEW, data=form, headers=DIALOG)
    assert answer.status_code == 422
    assert why in unescape(answer.text)
    assert {name: value(answer, name) for name in form} == form
    assert answer.text.count(f'id="{field}-error"') == 1
    assert f'aria-describedby="{field}-hint {field}-error"' in answer.text or field == "per_minute"
    assert '<details class="more-settings" open' in answer.text
    assert not Key.select().exists()


def test_a_refusal_that_concerns_no_field_stands_at_the_top(
    app: Flask, member: Actor, project: Project
) -> None:
    form = {"name": "Worker", "permissions": "keys:write"}
    answer = sign_in(app, member).post(NEW, data=form, headers=DIALOG)
    assert answer.status_code == 403
    assert "Your role in this project does not allow this." in words(answer)
    assert value(answer, "permissions") == "keys:write"


# --- the same form twice ----------------------------------------------------------------------


def test_a_reload_of_the_answer_makes_no_second_key(signed_in: FlaskClient) -> None:
    form = typed(signed_in.get(NEW)) | {"name": "Worker"}
    first, again = signed_in.post(NEW, data=form), signed_in.post(NEW, data=form)
    secret = SECRET.search(first.text)
    assert first.status_code == 200 and secret
    assert again.status_code == 409
    assert "This key was created already" in words(again)
    assert "The secret of Worker was in the answer to the first time" in words(again)
    assert secret[0] not in again.text and not SECRET.search(again.text)
    assert again.headers["Cache-Control"] == "no-store"
    assert Key.select().count() == 1


def test_each_form_makes_a_key_of_its_own(signed_in: FlaskClient) -> None:
    for _ in range(2):
        form = typed(signed_in.get(NEW)) | {"name": "Worker"}
        assert signed_in.post(NEW, data=form).status_code == 200
    assert Key.select().count() == 2


def test_a_form_that_was_refused_may_be_sent_again(signed_in: FlaskClient) -> None:
    form = typed(signed_in.get(NEW))
    refused = signed_in.post(NEW, data=form)
    assert refused.status_code == 422
    assert signed_in.post(NEW, data=typed(refused) | {"name": "Worker"}).status_code == 200


def test_the_page_says_when_the_key_is_gone_meanwhile(signed_in: FlaskClient, owner: Actor) -> None:
    form = typed(signed_in.get(NEW)) | {"name": "Worker"}
    signed_in.post(NEW, data=form)
    keys.delete(Key.get().id, by=owner)
    assert "has been deleted since" in words(signed_in.post(NEW, data=form))


# --- what is offered --------------------------------------------------------------------------


def test_permissions_are_offered_with_their_descriptions(
    app: Flask, owner: Actor, member: Actor
) -> None:
    entries = [{"name": "tasks:read", "description": "View tasks"}, {"name": "tasks:write"}]
    projects.edit("shop", {"permission_catalogue": entries}, by=owner)
    page = sign_in(app, owner).get(NEW)
    assert 'data-line="tasks:read"' in page.text and "View tasks" in words(page)
    assert 'data-line="keys:write"' in page.text and 'data-line="admin:*"' in page.text
    assert 'data-lines="tasks:read tasks:write"' in page.text
    members = sign_in(app, member).get(NEW)
    assert 'data-line="keys:verify"' in members.text
    assert 'data-line="keys:write"' not in members.text


def test_a_change_of_the_catalogue_is_told_in_words(signed_in: FlaskClient, owner: Actor) -> None:
    entries = [{"name": "tasks:read", "description": "View tasks"}]
    for found in (entries, [*entries, {"name": "tasks:write", "description": "Change tasks"}]):
        projects.edit("shop", {"permission_catalogue": found}, by=owner)
    said = words(signed_in.get("/projects/shop/activity"))
    assert "Permission catalogue: none → tasks:read" in said
    assert "Permission catalogue: added tasks:write" in said


def test_what_a_key_holds_is_marked_among_what_is_offered(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key(permissions=["tasks:read"])
    page = edit_page(signed_in, key).text
    assert 'data-line="tasks:read" aria-pressed="true"' in page
    assert 'data-line="tasks:write" aria-pressed="false"' in page


# --- while somebody types ---------------------------------------------------------------------


@pytest.mark.parametrize("everything", ["*", "*:*", "admin:*"])
def test_what_opens_everything_is_warned_of(signed_in: FlaskClient, everything: str) -> None:
    said = words(preview(signed_in, "permissions", permissions=f"tasks:read\n{everything}"))
    assert f"{everything} opens everything, here and in your services." in said
    assert "Give it to no program that can do with less." in said


def test_what_opens_latchkey_is_explained(
    app: Flask, signed_in: FlaskClient, member: Actor
) -> None:
    said = words(preview(signed_in, "permissions", permissions="tasks:read keys:write"))
    assert "Opens Latchkey's own API:" in said
    assert "keys:write Create, edit, revoke, rotate and delete keys" in said
    assert "cannot hand out" not in said
    said = words(preview(sign_in(app, member), "permissions", permissions="keys:write"))
    assert "You cannot hand out keys:write" in said


def test_permissions_of_the_teams_own_need_no_remark(signed_in: FlaskClient) -> None:
    assert words(preview(signed_in, "permissions", permissions="tasks:read")).strip() == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.0/24\n203.0.113.7, 198.51.100.9", "3 entries, 258 addresses. Your address "
         "127.0.0.1 is not among them."),
        ("127.0.0.0/8", "1 entry, 16,777,216 addresses. Your address 127.0.0.1 is among them."),
        ("10.0.0.0/24 10.0.0.7", "2 entries, 256 addresses."),
        ("::1", "1 entry, 1 address."),
        ("2001:db8::/32", "1 entry, more than a billion addresses."),
        ("", "Any address may use the key."),
        ("10.0.0.5/24", "write 10.0.0.0/24, or 10.0.0.5 for one address."),
        ("zzz", "'zzz' is not an IP address or a network such as 10.0.0.0/24."),
    ],
)  # fmt: skip
def test_an_allowlist_is_counted_as_it_is_typed(
    signed_in: FlaskClient, text: str, said: str
) -> None:
    answer = preview(signed_in, "ip_allowlist", ip_allowlist=text)
    assert answer.status_code == 200
    assert said in words(answer)


def test_a_date_is_shown_as_the_instant_that_it_means(signed_in: FlaskClient) -> None:
    assert "Until 31 Jan 2099, 23:59 UTC." in words(
        preview(signed_in, "expires_on", expires_on="2099-01-31")
    )
    assert "Must be in the future" in words(
        preview(signed_in, "expires_on", expires_on="2020-01-31")
    )


def test_a_preview_is_for_who_may_create_and_of_fields_that_have_one(
    app: Flask, signed_in: FlaskClient, viewer: Actor, stranger: Actor
) -> None:
    assert preview(signed_in, "name", name="x").status_code == 404
    assert preview(sign_in(app, viewer), "permissions", permissions="*").status_code == 403
    assert preview(sign_in(app, stranger), "permissions", permissions="*").status_code == 404


# --- edit -------------------------------------------------------------------------------------


def test_an_untouched_form_changes_nothing(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key(
        description="one\ntwo", permissions=["a:b", "c:d"], ip_allowlist=["10.0.0.0/24"],
        expires_in="1y", rate_limit={"per_minute": 3}, monthly_quota=9, external_id=" x ",
        metadata={"n": 1.5, "deep": [{"\u00fc": None}]},
    )  # fmt: skip
    before = keys.as_dict(Key.get())
    assert save(signed_in, key, typed(edit_page(signed_in, key))).status_code == 204
    assert keys.as_dict(Key.get()) == before
    assert not Event.select().where(Event.action == "key.edited").exists()


def test_the_present_expiry_is_said_and_kept(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, _ = make_key(expires_in="3mo")
    assert "Keep as it is: 20 Feb 2027, 10:30 UTC" in words(edit_page(signed_in, key))
    other, _ = make_key()
    assert "Keep as it is: no expiry" in words(edit_page(signed_in, other))


def test_an_edit_leads_back_to_where_it_was_begun(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    table, page = "/projects/shop/keys", f"/projects/shop/keys/{key.id}"
    for query, expected in (("", table), ("?back=key", page)):
        form = typed(signed_in.get(f"{page}/edit{query}"))
        answer = signed_in.post(f"{page}/edit", data=form | {"name": f"Renamed {query}"})
        assert (answer.status_code, answer.location) == (303, expected)


def test_saving_names_the_row_that_changed(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key()
    answer = save(signed_in, key, typed(edit_page(signed_in, key)) | {"name": "Other"})
    events = json.loads(answer.headers["HX-Trigger"])
    assert events["keys-changed"] == {"id": key.id}
    assert events["notice"]["words"] == "Other saved"


# --- two people, one key ----------------------------------------------------------------------


def test_who_saves_second_is_told_and_sees_both_values(
    signed_in: FlaskClient, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key(description="first", permissions=["tasks:read"], expires_in="3mo")
    form = typed(edit_page(signed_in, key))
    clock.move("2m")
    theirs = {"description": "theirs", "permissions": ["tasks:read", "tasks:write"],
              "expires_in": "1y", "rate_limit": {"per_minute": 5}}  # fmt: skip
    keys.edit(key.id, theirs, by=admin)
    clock.move("3m")
    answer = save(signed_in, key, form | {"description": "mine", "external_id": "42"})
    assert answer.status_code == 409
    said = words(answer)
    assert "This key was changed since you opened it. Nothing was saved." in said
    assert "alan@example.com edited the key 3 min ago ." in said
    assert "Description: first → theirs" in said
    assert "Permissions: added tasks:write" in said
    assert "Expires: 20 Feb 2027, 10:30 UTC → 20 Nov 2027, 10:32 UTC" in said
    assert "Rate limit: none → 5 a minute" in said
    assert "Save anyway" in said
    assert value(answer, "description") == "mine" and "Now: theirs" in said
    assert value(answer, "external_id") == "42"
    assert value(answer, "permissions") == "tasks:read\ntasks:write"
    assert (value(answer, "plan"), value(answer, "per_minute")) == ("enterprise", "5")
    assert "Keep as it is: 20 Nov 2027, 10:32 UTC" in said
    assert answer.text.count('class="now"') == 1

    assert save(signed_in, key, typed(answer)).status_code == 204
    facts = keys.as_dict(Key.get())
    assert (facts["description"], facts["external_id"]) == ("mine", "42")
    assert facts["permissions"] == ["tasks:read", "tasks:write"]
    assert facts["rate_limit"] == {"per_minute": 5, "per_hour": None}
    assert facts["expires_at"] == "2027-11-20T10:32:00Z"


def test_what_has_several_lines_and_was_not_touched_takes_the_new_value(
    signed_in: FlaskClient, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    metadata = {"team": "payments", "tier": 1}
    key, _ = make_key(description="one\ntwo", metadata=metadata)
    form = typed(edit_page(signed_in, key)) | {"name": "Mine"}
    clock.move("1m")
    keys.edit(key.id, {"description": "three\nfour", "metadata": {"team": "risk"}}, by=admin)
    answer = save(signed_in, key, form)
    assert value(answer, "description") == "three\nfour"
    assert json.loads(value(answer, "metadata")) == {"team": "risk"}
    assert 'class="now"' not in answer.text


def test_a_third_change_is_told_again(
    signed_in: FlaskClient, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    form = typed(edit_page(signed_in, key)) | {"description": "mine"}
    for theirs in ("one", "two"):
        clock.move("1m")
        keys.edit(key.id, {"description": theirs}, by=admin)
        answer = save(signed_in, key, form)
        assert answer.status_code == 409
        assert f"Now: {theirs}" in words(answer)
        form = typed(answer)
    assert save(signed_in, key, form).status_code == 204
    assert Key.get().description == "mine"


def test_revoking_and_rotating_meanwhile_are_told_and_not_undone(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    form = typed(edit_page(signed_in, key)) | {"description": "mine"}
    clock.move("1m")
    keys.revoke(key.id, by=admin)
    keys.rotate(key.id, {}, by=owner)
    answer = save(signed_in, key, form)
    assert answer.status_code == 409
    assert "alan@example.com revoked the key just now" in words(answer)
    assert "You rotated the key just now" in words(answer)
    assert value(answer, "status") == "revoked"
    assert save(signed_in, key, typed(answer)).status_code == 204
    assert Key.get().revoked_at is not None


def test_both_lists_are_shown_where_both_changed_them(
    signed_in: FlaskClient, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key(ip_allowlist=["10.0.0.0/24"])
    form = typed(edit_page(signed_in, key)) | {"ip_allowlist": "10.0.0.0/24\n10.0.1.0/24",
                                               "expiration": "1w"}  # fmt: skip
    clock.move("1m")
    keys.edit(key.id, {"ip_allowlist": [], "expires_in": "1d"}, by=admin)
    answer = save(signed_in, key, form)
    assert "Now: empty" in words(answer)
    assert "Now: 21 Nov 2026, 10:31 UTC" in words(answer)
    assert value(answer, "ip_allowlist") == "10.0.0.0/24\n10.0.1.0/24"
    assert value(answer, "expiration") == "1w"


def test_the_same_form_sent_twice_is_no_conflict(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, _ = make_key()
    form = typed(edit_page(signed_in, key)) | {"description": "mine"}
    clock.move("1m")
    assert save(signed_in, key, form).status_code == 204
    assert save(signed_in, key, form).status_code == 204


def test_a_hostile_value_of_somebody_else_is_shown_as_text(
    signed_in: FlaskClient, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    form = typed(edit_page(signed_in, key)) | {"description": "mine"}
    clock.move("1m")
    hostile = "<img src=x onerror=alert(1)>"
    keys.edit(key.id, {"description": hostile, "metadata": {"a": hostile}}, by=admin)
    answer = save(signed_in, key, form)
    assert "<img" not in answer.text and "&lt;img" in answer.text


def test_a_key_that_was_deleted_meanwhile_is_told(
    app: Flask, signed_in: FlaskClient, make_key: MakeKey, admin: Actor, member: Actor
) -> None:
    key, _ = make_key(name="Nightly export")
    form = typed(edit_page(signed_in, key)) | {"description": "mine"}
    keys.delete(key.id, by=admin)
    answer = save(signed_in, key, form)
    assert answer.status_code == 404
    assert "Nightly export was deleted" in words(answer)
    assert "alan@example.com deleted this key just now . Nothing was saved." in words(answer)
    page = edit_page(signed_in, key)
    assert page.status_code == 404 and "Nothing was saved" not in words(page)
    others = save(sign_in(app, member), key, form)
    assert others.status_code == 404 and "Nightly export" not in others.text


# --- the secret -------------------------------------------------------------------------------


def test_in_a_dialog_the_secret_is_in_one_field_that_nobody_reads_out(
    signed_in: FlaskClient,
) -> None:
    answer = signed_in.post(NEW, data={"name": "Worker"}, headers=DIALOG)
    field = re.search(r'<input id="secret"[^>]*>', answer.text)
    assert field and 'type="password"' in field[0] and 'autocomplete="off"' in field[0]
    assert len(SECRET.findall(answer.text)) == 1
    assert answer.text.count("•" * 12) >= 7


def test_without_scripts_the_secret_and_its_snippets_can_be_read(signed_in: FlaskClient) -> None:
    answer = signed_in.post(NEW, data={"name": "Worker"})
    found = re.search(r'<textarea id="secret"[^>]*>([^<]+)</textarea>', answer.text)
    assert found and SECRET.fullmatch(found[1])
    assert set(SECRET.findall(answer.text)) == {found[1]}
    assert f"SHOP_API_KEY={found[1]}\n\n// config/services.php" in answer.text
    assert f'proxy_set_header Authorization "Bearer {found[1]}";' in answer.text
    assert "•" not in answer.text


# --- what the project asks ----------------------------------------------------------------------


def options(answer: TestResponse, name: str) -> list[str]:
    select = re.search(rf'<select id="{name}".*?</select>', answer.text, re.DOTALL)
    assert select
    return [unescape(one) for one in re.findall(r">([^<]+)</option>", select[0])]


@pytest.mark.parametrize(
    "rules, lengths, preset",
    [
        ({"default_expiry": "45d"},
         ["1 Day", "1 Week", "1 Month", "45 Days", "3 Months", "1 Year", "No Expiry"], "45d"),
        ({"default_expiry": "7d"},
         ["1 Day", "1 Week", "1 Month", "3 Months", "1 Year", "No Expiry"], "1w"),
        ({"maximum_lifetime": "30d"}, ["1 Day", "1 Week", "1 Month"], "1mo"),
        ({"maximum_lifetime": "60d"}, ["1 Day", "1 Week", "1 Month", "60 Days"], "60d"),
        ({"maximum_lifetime": "1y", "default_expiry": "1mo"},
         ["1 Day", "1 Week", "1 Month", "3 Months", "1 Year"], "1mo"),
        ({"maximum_lifetime": "30m"}, ["30 Minutes"], "30m"),
    ],
)  # fmt: skip
def test_the_forms_offer_the_lengths_that_the_project_allows(
    signed_in: FlaskClient, operator: Actor, make_key: MakeKey, clock: Clock,
    rules: dict[str, str], lengths: list[str], preset: str,
) -> None:  # fmt: skip
    key, _ = make_key()
    projects.edit("shop", rules, by=operator)
    page = signed_in.get(NEW)
    assert options(page, "expiration") == [*lengths, "On a date"]
    assert value(page, "expiration") == preset
    page = edit_page(signed_in, key)
    assert options(page, "expiration") == ["Keep as it is: no expiry", *lengths, "On a date"]
    assert value(page, "expiration") == "keep"
    asked = signed_in.post("/projects/shop/keys/extend", data={"key": key.id})
    offered = [one for one in lengths if one not in ("1 Day", "No Expiry")]
    assert options(asked, "expiration") == [*offered, "On a date"]


def test_each_choice_has_its_meaning_at_the_same_place(
    signed_in: FlaskClient, operator: Actor, make_key: MakeKey, clock: Clock
) -> None:
    """The style sheet shows the n-th meaning for the n-th choice, up to the tenth."""
    projects.edit("shop", {"default_expiry": "45d", "maximum_lifetime": "2y"}, by=operator)
    page = edit_page(signed_in, make_key()[0])
    hint = re.search(r'id="expiration-hint">(.*?)</p>', page.text, re.DOTALL)
    assert hint
    meanings = re.findall(r"<span>([^<]+)</span>", hint[1])
    assert len(meanings) == len(options(page, "expiration")) <= 10
    assert meanings[options(page, "expiration").index("45 Days")] == "Until 4 Jan 2027, 10:30 UTC."


def test_a_date_beyond_the_maximum_is_told_while_it_is_typed_and_when_it_is_sent(
    signed_in: FlaskClient, operator: Actor, clock: Clock
) -> None:
    projects.edit("shop", {"maximum_lifetime": "30d"}, by=operator)
    assert 'max="2026-12-19"' in signed_in.get(NEW).text
    told = "Must come by 2026-12-20T10:30:00Z: keys of Shop live for 30d at most."
    assert told in words(preview(signed_in, "expires_on", expires_on="2026-12-20"))
    assert told not in words(preview(signed_in, "expires_on", expires_on="2026-12-19"))
    form = {"name": "CI", "expiration": "date", "expires_on": "2026-12-20"}
    answer = signed_in.post(NEW, data=form)
    assert answer.status_code == 422 and told in words(answer)
    assert signed_in.post(NEW, data={**form, "expires_on": "2026-12-19"}).status_code == 200


def test_the_forms_offer_the_projects_plans_and_environments(
    signed_in: FlaskClient, operator: Actor, make_key: MakeKey
) -> None:
    plans = [{"name": "partner", "per_minute": 5, "per_hour": 2000}, {"name": "open"}]
    projects.edit("shop", {"plans": plans, "environments": ["test"]}, by=operator)
    page = signed_in.get(NEW)
    assert options(page, "plan") == [
        "Unlimited", "Free – 100 a minute, 1,000 an hour",
        "Professional – 500 a minute, 10,000 an hour", "Enterprise – own figures",
        "partner – 5 a minute, 2,000 an hour", "open – no limit",
    ]  # fmt: skip
    assert options(page, "environment") == ["Test"]
    answer = signed_in.post(NEW, data={"name": "CI", "environment": "live", "plan": "gold"})
    assert "Must be test: this project makes no other keys." in words(answer)
    signed_in.post(NEW, data={"name": "CI", "environment": "test", "plan": "partner"})
    key = Key.get()
    assert (key.plan, key.environment) == ("partner", "test")
    assert value(edit_page(signed_in, key), "plan") == "partner"
    save(signed_in, key, {**typed(edit_page(signed_in, key)), "plan": "open"})
    assert keys.held(key.id).plan == "open"
