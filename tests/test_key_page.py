"""One key's page, and the dialogs that say what will happen before they ask."""

import json
import re
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import check, clock, keys, limits, people
from console.actor import Actor
from console.models import Key, Person, Project
from console.web import words
from tests.conftest import Clock, MakeKey, confirm, sign_in

DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}
HOUR = clock.HOUR


def ask(text: str, ip: str | None = "192.0.2.1", agent: str = "curl", **asked: Any) -> str:
    asked = {"method": "GET", "endpoint": "/tasks", **asked}
    return check.check(
        check.Request(secret=text, request_id="r", ip=ip, user_agent=agent, **asked)
    ).code


def text_of(html: str) -> str:
    """What a reader sees, spaces folded."""
    shown = re.sub(r"</?(?:strong|code|time|b)\b[^>]*>", "", html)
    shown = re.sub(r"<[^>]+>", " ", shown)
    return re.sub(r"\s+", " ", unescape(shown))


def page(browser: FlaskClient, key: Key, **query: str) -> str:
    answer = browser.get(f"/projects/shop/keys/{key.id}", query_string=query)
    assert answer.status_code == 200
    return text_of(answer.text)


def dialog(browser: FlaskClient, key: Key, name: str, **query: str) -> str:
    path = f"/projects/shop/keys/{key.id}/{name}"
    answer = browser.get(path, headers=DIALOG, query_string=query)
    assert answer.status_code == 200, answer.text
    return text_of(answer.text)


# --- settings -----------------------------------------------------------------------------------


def test_the_page_tells_every_setting(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor, clock: Clock
) -> None:
    key, _ = make_key(
        by=owner, name="Checkout", description="In the vault", environment="test",
        permissions=["tasks:read", "tasks:write"], ip_allowlist=["10.0.0.0/24"], expires_in="3mo",
        plan="free", monthly_quota=5000, external_id="customer-42",
        metadata={"ticket": "R&D <7>", "Zoë": [1]},
    )  # fmt: skip
    shown = page(signed_in, key)
    for expected in (
        "Checkout", "Active", "Test", f"{key.prefix}…", "In the vault", key.id, "ada@example.com",
        "20 Feb 2027", "tasks:read", "tasks:write", "10.0.0.0/24", "100 a minute, 100 left",
        "1,000 an hour, 1,000 left", "Plan free", "5,000 Not counted: this is a test key.",
        "20 Nov 2026, 10:30:00 UTC", "customer-42", '"ticket": "R&D <7>"', '"Zoë": [ 1 ]',
    ):  # fmt: skip
        assert expected in shown, expected


def test_what_is_left_of_the_limits_is_told_as_of_now(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, text = make_key(rate_limit={"per_minute": 5, "per_hour": 60}, monthly_quota=1000)
    for _ in range(3):
        ask(text)
    shown = page(signed_in, key)
    assert "5 a minute, 2 left 60 an hour, 57 left" in shown
    assert "3 of 1,000 used" in shown and "Anew on 1 Dec 00:00" in shown
    clock.move("1m")
    assert "5 a minute, 5 left 60 an hour, 57 left" in page(signed_in, key)


def test_the_page_does_without_the_counts_of_limits(
    signed_in: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def take(self, *_: object) -> list[int]:
            raise limits.CountsUnavailable("Redis hangs")

    key, _ = make_key(plan="free", monthly_quota=1000)
    monkeypatch.setattr(limits, "_store", Broken())
    shown = page(signed_in, key)
    assert "100 a minute, 1,000 an hour What is left cannot be told at the moment." in shown


# --- usage --------------------------------------------------------------------------------------


def test_the_chart_is_of_the_period_asked_for(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, text = make_key()
    ask(text)
    ask(text, permissions=("a:b",))
    clock.move("2d")
    ask(text)
    today = page(signed_in, key)
    assert "Allowed 1 Refused 0" in today and "Refused in 24 hours 0 %" in today
    month = page(signed_in, key, period="30d")
    assert "Allowed 2 Refused 1" in month and "Refused in 30 days 33 %" in month
    assert "In all 3" in month
    assert signed_in.get(f"/projects/shop/keys/{key.id}?period=1y").status_code == 400


@pytest.mark.parametrize("part", ["usage", "key"])
def test_a_part_of_the_page_is_answered_alone(
    signed_in: FlaskClient, make_key: MakeKey, part: str
) -> None:
    key, text = make_key()
    ask(text)
    path = f"/projects/shop/keys/{key.id}?period=12mo"
    answer = signed_in.get(path, headers={"HX-Request": "true", "HX-Target": part})
    assert answer.text.strip().startswith((f'<section id="{part}"', f'<div id="{part}"'))
    assert "<html" not in answer.text and "Requests in the last 12 months" in answer.text
    whole = signed_in.get(path).text
    assert answer.text.strip() in whole or part == "usage"
    assert whole.count(f' id="{part}"') == 1


def test_what_it_is_used_for_says_how_much_was_looked_at(
    signed_in: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from console import insight

    key, text = make_key()
    for number in range(4):
        ask(text, endpoint=f"/tasks/{number}", ip="8.8.8.8")
    ask(text, permissions=("a:b",), ip="8.8.8.8")
    shown = page(signed_in, key)
    assert "Of 5 requests in the log" in shown
    assert "200 Let in 4 80 %" in shown and "403 Permission missing PERMISSION_DENIED 1" in shown
    assert "United States" in shown
    monkeypatch.setattr(insight, "NEWEST", 3)
    monkeypatch.setattr(insight, "SHOWN", 2)
    shown = page(signed_in, key)
    assert "Of the newest 3 requests" in shown and "And 1 endpoint more." not in shown


def test_a_key_never_used_tells_how_to_begin(
    signed_in: FlaskClient, make_key: MakeKey, app: Flask
) -> None:
    key, text = make_key()
    shown = page(signed_in, key)
    base = app.config["LATCHKEY"].base_url
    assert "Never used" in shown
    assert f'curl -H "Authorization: Bearer {key.prefix}…" {base}/api/v1/whoami' in shown
    assert "Allowed" not in shown and "Recent requests" not in shown
    assert "created the key" in shown
    ask(text)
    shown = page(signed_in, key)
    assert "Never used" not in shown and "Recent requests" in shown


# --- the old secret -----------------------------------------------------------------------------


def test_who_still_uses_the_old_secret_and_whether_it_is_safe_to_end(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, old = make_key()
    ask(old)
    assert "old secret" not in page(signed_in, key)
    clock.move("1m")
    keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    clock.move("12m")
    shown = page(signed_in, key)
    assert "Too early to say No calls with the old secret since the rotation 12 min ago." in shown
    ask(old, ip="8.8.8.8", agent="importer/2", endpoint="/nightly", method="POST")
    clock.move("3m")
    shown = page(signed_in, key)
    assert "Still in use The last call with the old secret was 3 min ago." in shown
    assert "importer/2 POST /nightly 3 min ago 1" in shown
    clock.move("5h")
    shown = page(signed_in, key)
    assert "No calls with the old secret for 5 h. Safe to end. A job that runs once" in shown
    clock.move("1d")
    shown = page(signed_in, key)
    assert "No calls with the old secret for 1 day. Safe to end." in shown
    assert "once a day" not in shown
    assert "Extend" in shown and "End now" in shown


def test_who_presents_a_stopped_secret_is_a_warning_and_only_then(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, old = make_key()
    ask(old)
    keys.rotate(key.id, {}, by=operator)
    assert "stopped secret" not in page(signed_in, key)
    ask(old, agent="forgotten/1")
    shown = page(signed_in, key)
    assert "In the last 7 days 1 call came with an old secret and was refused with 401." in shown
    assert "Give this client the new one." in shown and "forgotten/1" in shown
    assert "End now" not in shown


def test_a_viewer_sees_who_uses_the_old_secret_and_changes_nothing(
    app: Flask, viewer: Actor, make_key: MakeKey, operator: Actor
) -> None:
    key, old = make_key()
    keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    ask(old)
    browser = sign_in(app, viewer)
    shown = page(browser, key)
    assert "Who still uses the old secret" in shown
    for words_of_changes in ("End now", "Extend", "Rotate", "Revoke", "Delete", "Edit"):
        assert f" {words_of_changes} " not in shown, words_of_changes
    for name in ("grace/end", "grace/extend", "revoke", "restore"):
        for answer in (
            browser.get(f"/projects/shop/keys/{key.id}/{name}"),
            browser.post(f"/projects/shop/keys/{key.id}/{name}", data={"grace_period": "7d"}),
        ):
            assert answer.status_code == 403, name
    assert keys.grace_of(Key.get_by_id(key.id)) is not None


def test_extend_offers_only_what_is_longer_and_says_until_when(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    keys.rotate(key.id, {"grace_period": "24h"}, by=operator)
    clock.move("1h")
    shown = dialog(signed_in, key, "grace/extend")
    assert "As it stands the old secret stops 21 Nov 2026, 10:30:00 UTC" in shown
    assert "1 hour (" not in shown
    assert "24 hours (21 Nov 2026, 11:30 UTC) 7 days (27 Nov 2026, 11:30 UTC)" in shown
    keys.set_grace(key.id, {"grace_period": "30d"}, by=operator)
    shown = dialog(signed_in, key, "grace/extend")
    assert "7 days" not in shown and "Extend the old secret" in shown


def test_extend_says_where_the_key_itself_ends(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key(expires_in="1d")
    keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    shown = dialog(signed_in, key, "grace/extend")
    assert "so does the key itself, and no old secret outlives its key" in shown
    assert "Close" in shown and "Stop the old secret after" not in shown


@pytest.mark.parametrize("name", ["grace/end", "grace/extend"])
def test_a_grace_that_is_over_meanwhile_is_told(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock, name: str
) -> None:
    key, _ = make_key()
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    clock.move("1h")
    assert "No old secret of this key works any more." in dialog(signed_in, key, name)
    answer = signed_in.post(
        f"/projects/shop/keys/{key.id}/{name}", data={"grace_period": "24h"}, headers=DIALOG
    )
    assert answer.status_code == 409
    assert text_of(answer.text).count("No old secret of this key works any more.") == 1


def test_a_grace_that_makes_no_sense_is_told_beside_its_field(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    path = f"/projects/shop/keys/{key.id}/grace/extend"
    for period in ("", "31d", "soon"):
        answer = signed_in.post(path, data={"grace_period": period}, headers=DIALOG)
        assert answer.status_code == 422
        assert 'id="grace_period-error"' in answer.text
    assert keys.grace_of(Key.get_by_id(key.id)) == clock.now() + HOUR


# --- the dialogs say what will happen -------------------------------------------------------------

TAKING = ["revoke", "rotate", "delete"]


@pytest.mark.parametrize("name", TAKING)
def test_a_dialog_says_that_nothing_breaks_where_nothing_ever_came(
    signed_in: FlaskClient, make_key: MakeKey, name: str
) -> None:
    key, _ = make_key()
    assert "Never used: nothing breaks." in dialog(signed_in, key, name)


@pytest.mark.parametrize("name", TAKING)
def test_a_dialog_says_who_used_the_key_and_when_last(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock, name: str
) -> None:
    key, text = make_key()
    for number in range(4):
        ask(text, ip=f"203.0.113.{number}", agent="payments/2")
    ask(text, ip="203.0.113.3", agent="payments/2")
    clock.move_ms(12_345)
    shown = dialog(signed_in, key, name)
    assert "4 services used this key in the last hour" in shown
    assert "the newest call was 12 s ago from 203.0.113." in shown
    assert "payments/2" in shown and "2 calls" in shown and "and 1 more" in shown
    clock.move("3d")
    confirm(signed_in)
    shown = dialog(signed_in, key, name)
    assert "Nothing got in with it in the last hour. Last used 3 days ago" in shown


def test_a_dialog_says_at_least_where_not_all_was_looked_at(
    signed_in: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from console import insight

    key, text = make_key()
    for number in range(3):
        ask(text, agent=f"{number}")
    monkeypatch.setattr(insight, "NEWEST", 2)
    assert "At least 2 services used this key" in dialog(signed_in, key, "revoke")


def test_enable_says_who_gets_in_again(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, text = make_key(expires_in="2d")
    ask(text)
    keys.revoke(key.id, by=operator)
    assert "Nothing presented this key in the last hour." not in dialog(signed_in, key, "revoke")
    clock.move("2h")
    assert "Nothing presented this key in the last hour." in dialog(signed_in, key, "restore")
    ask(text)
    shown = dialog(signed_in, key, "restore")
    assert "1 service presented this key and was refused in the last hour" in shown
    assert "works again at once, for it too" in shown and "expired" not in shown
    clock.move("2d")
    shown = dialog(signed_in, key, "restore")
    assert "The key expired 2 h ago. It is still refused until you set a later expiry." in shown


def test_end_now_says_who_used_the_old_secret(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, old = make_key()
    _, new, _ = keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
    ask(new)
    clock.move("1m")
    assert "No calls with the old secret since the rotation" in dialog(signed_in, key, "grace/end")
    ask(old)
    shown = dialog(signed_in, key, "grace/end")
    assert "1 service used the old secret in the last hour" in shown
    assert f"presents {old[:12]}… is refused" in shown


def test_what_a_client_calls_itself_is_shown_as_text(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor
) -> None:
    hostile = '<script>alert(1)</script>"><b title="'
    key, old = make_key()
    keys.rotate(key.id, {"grace_period": "1d"}, by=operator)
    ask(old, agent=hostile, endpoint=f"/{hostile}", method="<B>")
    for path in ("", "/revoke", "/delete", "/grace/end"):
        answer = signed_in.get(f"/projects/shop/keys/{key.id}{path}")
        assert "<script>alert" not in answer.text and "<b title" not in answer.text, path
        assert "alert(1)" in answer.text, path


# --- and afterwards ------------------------------------------------------------------------------


def trigger(answer: Any) -> dict[str, Any]:
    return dict(json.loads(answer.headers["HX-Trigger"]))


@pytest.mark.parametrize("name, opposite", [("revoke", "restore"), ("restore", "revoke")])
def test_revoke_and_enable_can_be_undone_from_the_notice(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, name: str, opposite: str
) -> None:
    key, _ = make_key()
    if name == "restore":
        keys.revoke(key.id, by=operator)
    before = Key.get_by_id(key.id).revoked_at is None
    answer = signed_in.post(f"/projects/shop/keys/{key.id}/{name}", headers=DIALOG)
    undo = trigger(answer)["notice"]["undo"]
    assert undo == f"/projects/shop/keys/{key.id}/{opposite}"
    assert trigger(answer)["keys-changed"] == {"id": key.id}
    assert (Key.get_by_id(key.id).revoked_at is None) != before
    signed_in.post(undo, headers=DIALOG)
    assert (Key.get_by_id(key.id).revoked_at is None) == before


def test_deleting_leaves_the_keys_own_page_and_stays_in_the_table(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    table = "/projects/shop/keys"
    for back, header in (("key", "HX-Redirect"), ("", "HX-Trigger")):
        key, _ = make_key()
        answer = signed_in.post(
            f"{table}/{key.id}/delete", data={"confirm": "CI", "back": back}, headers=DIALOG
        )
        assert answer.status_code == 204
        assert {"HX-Redirect", "HX-Trigger"} & set(answer.headers.keys()) == {header}
    assert "CI deleted" in signed_in.get(table).text


@pytest.mark.parametrize("name", ["revoke", "restore", "rotate", "delete"])
def test_without_scripts_a_dialog_leads_back_to_where_it_was_opened(
    signed_in: FlaskClient, make_key: MakeKey, name: str
) -> None:
    key, _ = make_key()
    table, own = "/projects/shop/keys", f"/projects/shop/keys/{key.id}"
    assert f'href="{own}/{name}?back=key"' in signed_in.get(own).text or name == "restore"
    for query, target in (("", table), ("?back=key", own), ("?back=https://evil.example", table)):
        shown = signed_in.get(f"{own}/{name}{query}").text
        assert f'<a class="button" href="{target}"' in shown
        assert ('<input type="hidden" name="back" value="key">' in shown) == (target == own)


@pytest.mark.parametrize("back", ["", "key"])
def test_without_scripts_a_change_leads_back_to_where_it_was_asked_for(
    signed_in: FlaskClient, make_key: MakeKey, back: str
) -> None:
    key, _ = make_key()
    table, own = "/projects/shop/keys", f"/projects/shop/keys/{key.id}"
    target = own if back else table
    for name in ("revoke", "restore"):
        answer = signed_in.post(f"{own}/{name}", data={"back": back})
        assert (answer.status_code, answer.location) == (303, target)
        assert "Undo" in signed_in.get(target).text
    assert signed_in.post(f"{own}/delete", data={"back": back, "confirm": "CI"}).location == table


def test_a_grace_that_was_set_leads_to_the_keys_page(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    own = f"/projects/shop/keys/{key.id}"
    answer = signed_in.post(f"{own}/grace/extend", data={"grace_period": "24h"})
    assert (answer.status_code, answer.location) == (303, own)
    assert "works until 21 Nov 2026, 10:30:00 UTC" in signed_in.get(own).text
    answer = signed_in.post(f"{own}/grace/end", headers=DIALOG)
    assert trigger(answer)["notice"]["words"] == "The old secret of CI has stopped working"
    assert trigger(answer)["notice"]["undo"] is None


def test_enabling_beyond_the_limit_is_told_with_who_would_get_in(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, project: Project
) -> None:
    key, text = make_key()
    keys.revoke(key.id, by=operator)
    ask(text)
    Project.update(key_limit=1).where(Project.id == project.id).execute()
    make_key()
    answer = signed_in.post(f"/projects/shop/keys/{key.id}/restore", headers=DIALOG)
    assert answer.status_code == 409
    assert "1 are allowed" in answer.text and "1 service" in answer.text


def test_the_page_of_a_key_whose_owner_is_gone_opens(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    assert Person.select().count() == 1 and Key.get_by_id(key.id).owner_id is None
    assert "Nobody" in page(signed_in, key)


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds, expected", [
    (-5, "0 s"), (0, "0 s"), (12_999, "12 s"), (59_999, "59 s"), (60_000, "1 min"),
    (HOUR - 1, "59 min"), (HOUR, "1 h"), (24 * HOUR - 1, "23 h"), (24 * HOUR, "1 day"),
    (72 * HOUR, "3 days"),
])  # fmt: skip
def test_how_long_ago_is_rounded_down(clock: Clock, milliseconds: int, expected: str) -> None:
    assert words.passed(clock.now() - milliseconds) == expected


@pytest.mark.parametrize("part, whole, expected", [
    (0, 0, "–"), (0, 9, "0 %"), (1, 1000, "< 1 %"), (1, 3, "33 %"), (999, 1000, "99 %"),
    (5, 5, "100 %"),
])  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(part: int, whole: int, expected: str) -> None:
    assert words.share(part, whole) == expected


def test_a_rotation_that_is_sent_twice_does_not_end_the_secret_of_the_first(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    address = f"/projects/shop/keys/{key.id}/rotate"
    (shown,) = re.findall(r'name="rotated_at" value="(\d+)"', signed_in.get(address).text)
    form = {"confirm": key.name, "grace_period": "24h", "rotated_at": shown}
    assert "This is the only time" in signed_in.post(address, data=form).text
    rotated = Key.get(Key.id == key.id)
    again = signed_in.post(address, data=form)
    assert again.status_code == 409
    assert "CI was rotated after you opened this." in again.text
    assert Key.get(Key.id == key.id).prefix == rotated.prefix
    # The form is there again, and knows of the first: sent once more, it is meant.
    (shown,) = re.findall(r'name="rotated_at" value="(\d+)"', again.text)
    assert signed_in.post(address, data={**form, "rotated_at": shown}).status_code == 200


def test_extending_never_ends_the_old_secret_sooner(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor
) -> None:
    key, _ = make_key()
    _, _, ends_at = keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    address = f"/projects/shop/keys/{key.id}/grace/extend"
    answer = signed_in.post(address, data={"grace_period": "1h"})
    assert answer.status_code == 422
    assert "Would end the old secret sooner than it does now." in answer.text
    assert keys.grace_of(Key.get(Key.id == key.id)) == ends_at
    assert signed_in.post(address, data={"grace_period": "30d"}).status_code == 303


def test_rotating_an_expired_key_says_that_its_secret_does_not_work_yet(
    signed_in: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    key, _ = make_key(expires_in="1d")
    clock.move("2d")
    confirm(signed_in)
    address = f"/projects/shop/keys/{key.id}/rotate"
    assert "The new secret works once you extend the key." in signed_in.get(address).text
    shown = signed_in.post(address, data={"confirm": key.name}).text
    assert "The key has expired. Extend it, then the secret works." in shown


def test_enabling_tells_of_the_old_secret_too(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    address = f"/projects/shop/keys/{key.id}/restore"
    keys.revoke(key.id, by=owner)
    assert "old secret" not in signed_in.get(address).text
    keys.rotate(key.id, {"grace_period": "24h"}, by=owner)
    assert "Its old secret works again, too, until" in signed_in.get(address).text


def test_enabling_is_not_offered_where_it_would_be_refused(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor, member: Actor
) -> None:
    key, _ = make_key(by=member)
    keys.revoke(key.id, by=owner)
    people.edit(member.id or "", {"disabled": True}, by=owner)
    address = f"/projects/shop/keys/{key.id}/restore"
    for page in (signed_in.get(address), signed_in.post(address)):
        assert "Somebody who has left knows the secret of CI: rotate it first" in page.text
        assert "works again" not in page.text and ">Enable Key<" not in page.text
    keys.rotate(key.id, {"grace_period": "24h"}, by=owner)
    page = signed_in.get(address)
    assert "knows the old secret of CI: end that one first" in page.text
    keys.set_grace(key.id, {"grace_period": None}, by=owner)
    assert signed_in.post(address).status_code == 303


def test_enabling_is_offered_of_a_key_that_lets_nobody_in_for_it_has_expired(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor, member: Actor
) -> None:
    key, _ = make_key(by=member, expires_in="1d")
    Key.update(expires_at=1, revoked_at=1).where(Key.id == key.id).execute()
    people.edit(member.id or "", {"disabled": True}, by=owner)
    address = f"/projects/shop/keys/{key.id}/restore"
    assert ">Enable Key<" in signed_in.get(address).text
    assert signed_in.post(address).status_code == 303
    assert keys.key_to_read(key.id, by=owner).revoked_at is None
