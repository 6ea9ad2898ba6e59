"""Ends that come near, secrets that are due, keys that nobody uses: each is told once, to whom it
concerns, whatever the clock does."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from config import Config
from console import (
    alerts,
    check,
    jobs,
    key_many,
    keys,
    mail,
    members,
    notices,
    people,
    projects,
    renewal,
)
from console import clock as time
from console.actor import Actor
from console.alert_rules import (
    EXPIRED_NOW,
    EXPIRING,
    RENEWAL,
    RENEWAL_STOPPED,
    ROTATION_DUE,
    UNUSED,
)
from console.errors import Invalid
from console.models import ACKNOWLEDGED, MUTED, OPEN, Alert, Event, Key, Letter, Project
from tests.conftest import Clock, MakeKey, add_person, at_once, checked

TEAM = "team@example.com"


@pytest.fixture
def config(config: Config) -> Config:
    return replace(config, smtp_url="smtp://127.0.0.1:9", mail_from="latchkey@example.com")


@pytest.fixture(autouse=True)
def _without_mail_afterwards() -> Any:
    yield
    mail.use("", "")


@pytest.fixture(autouse=True)
def team(project: Project, operator: Actor, clock: Clock) -> None:
    projects.edit("shop", {"alert_email": TEAM}, by=operator)


Tell = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def tell() -> Tell:
    """Does all jobs, and returns what is new: the kind and cause of each alert."""
    seen: set[str] = set()

    def run() -> list[tuple[str, str]]:
        for task in (renewal.TASK, notices.ENDS, notices.AGE):
            jobs.run_now(task)
        new = [one for one in Alert.select().order_by(Alert.created_at) if one.id not in seen]
        seen.update(one.id for one in new)
        return sorted((one.kind, one.cause) for one in new)

    return run


def letters() -> list[Letter]:
    return list(Letter.select().order_by(Letter.created_at, Letter.recipient))


# --- ends -----------------------------------------------------------------------------------------


def test_an_end_is_told_30_7_and_1_day_before_and_when_it_has_come(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    make_key(expires_in="90d")
    told = {}
    for day in range(100):
        if new := tell():
            told[day] = new
        clock.move("1d")
    assert told == {
        60: [(EXPIRING, "30d")], 83: [(EXPIRING, "7d")], 89: [(EXPIRING, "1d")],
        90: [(EXPIRED_NOW, "")],
    }  # fmt: skip


def test_the_owner_and_the_team_are_told_each_once_and_what_they_need(
    make_key: MakeKey, member: Actor, clock: Clock, tell: Tell
) -> None:
    key, secret = make_key(name="Checkout", by=member, expires_in="35d")
    checked(check.Request(secret=secret, request_id="r", ip="203.0.113.7"))
    clock.move("5d")
    for _ in range(3):
        tell()
    assert [one.recipient for one in letters()] == ["bob@example.com", TEAM]
    letter = letters()[0]
    assert letter.subject == "Latchkey: “Checkout” expires in 30 days (Shop)"
    for text in (
        "Checkout", key.prefix, "bob@example.com", "Last used: 20 Nov 2026, 10:30 UTC",
        "Expires:   25 Dec 2026, 10:30 UTC",
        f"http://127.0.0.1:8000/alerts/{Alert.get().id}",
    ):  # fmt: skip
        assert text in letter.text
    assert secret not in letter.text


def test_who_is_both_gets_one_letter(make_key: MakeKey, tell: Tell, clock: Clock) -> None:
    both = add_person(TEAM, shop="member")
    make_key(by=both, expires_in="31d")
    clock.move("2d")
    tell()
    assert [one.recipient for one in letters()] == [TEAM]


def test_an_owner_who_is_disabled_is_told_nothing(
    make_key: MakeKey, member: Actor, owner: Actor, clock: Clock, tell: Tell
) -> None:
    make_key(by=member, expires_in="31d")
    people.edit(member.id, {"disabled": True}, by=owner)
    clock.move("2d")
    tell()
    assert [one.recipient for one in letters()] == [TEAM]


def test_an_owner_without_a_role_any_more_is_told_nothing(
    make_key: MakeKey, member: Actor, owner: Actor, clock: Clock, tell: Tell
) -> None:
    make_key(by=member, expires_in="31d")
    members.remove("shop", str(member.id), by=owner)
    clock.move("2d")
    tell()
    assert [one.recipient for one in letters()] == [TEAM]


def test_where_nobody_is_named_the_owners_of_the_installation_hear(
    make_key: MakeKey, owner: Actor, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"alert_email": None}, by=operator)
    make_key(expires_in="31d")
    clock.move("2d")
    tell()
    assert [one.recipient for one in letters()] == ["ada@example.com"]


def test_several_that_are_due_at_once_are_one_letter(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    for name in ("One", "Two", "Three"):
        make_key(name=name, expires_in="31d")
    clock.move("2d")
    tell()
    [letter] = letters()
    assert letter.subject == "Latchkey: 3 alerts"
    assert all(f"“{name}” expires in 29 days" in letter.text for name in ("One", "Two", "Three"))


def test_without_a_mail_server_there_are_no_letters_but_alerts(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    mail.use("", "")
    make_key(expires_in="31d")
    clock.move("2d")
    assert tell() == [(EXPIRING, "30d")]
    assert letters() == []


def test_who_has_just_set_an_end_is_not_told_that_it_is_near(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    make_key(expires_in="5d")
    assert tell() == []
    clock.move("3d")
    assert tell() == []
    clock.move("25h")
    assert tell() == [(EXPIRING, "1d")]


def test_after_a_long_pause_only_the_nearest_notice_is_told(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    make_key(expires_in="90d")
    clock.move("85d")
    assert tell() == [(EXPIRING, "7d")]
    clock.move("1d")
    assert tell() == []


def test_an_end_that_came_long_ago_is_no_news(make_key: MakeKey, clock: Clock, tell: Tell) -> None:
    make_key(expires_in="90d")
    clock.move("98d")
    assert tell() == []


@pytest.mark.parametrize("jump", ["2d", "1h"])
def test_a_clock_that_jumps_tells_nothing_twice(
    make_key: MakeKey, clock: Clock, tell: Tell, jump: str
) -> None:
    make_key(expires_in="90d")
    told = []
    back = time.after(0, jump)
    clock.move("52d")
    for _ in range(44):
        clock.move("1d")
        told += tell()
        clock.move(jump)
        told += tell()
        clock.move_ms(-2 * back)
        told += tell()
        clock.move(jump)
        told += tell()
    assert sorted(told) == [
        (EXPIRED_NOW, ""), (EXPIRING, "1d"), (EXPIRING, "30d"), (EXPIRING, "7d")
    ]  # fmt: skip
    assert len(letters()) == 4


def test_a_new_end_is_told_anew_and_the_old_one_settled(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    key, _ = make_key(expires_in="90d")
    clock.move("61d")
    assert tell() == [(EXPIRING, "30d")]
    keys.edit(key.id, {"expires_in": "60d"}, by=operator)
    assert Alert.get().state == ACKNOWLEDGED
    assert tell() == []
    clock.move("31d")
    assert (EXPIRING, "30d") in tell()


def test_an_expired_key_is_extended_back_to_life(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    key, secret = make_key(expires_in="1d")
    clock.move("2d")
    tell()
    assert check.check(check.Request(secret=secret, request_id="r")).code == "API_KEY_EXPIRED"
    key_many.extend([key.id], {"expires_in": "30d"}, by=operator)
    assert check.check(check.Request(secret=secret, request_id="r")).is_valid
    assert Alert.get(Alert.kind == EXPIRED_NOW).state == ACKNOWLEDGED
    keys.edit(key.id, {"expires_at": None}, by=operator)
    clock.move("90d")
    assert (EXPIRED_NOW, "") not in tell()


def test_a_later_notice_takes_the_earlier_one_off_the_list(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    make_key(expires_in="90d")
    for days in ("61d", "23d", "5d", "1d"):
        clock.move(days)
        tell()
    states = {one.cause: one.state for one in Alert.select()}
    assert states == {"30d": ACKNOWLEDGED, "7d": ACKNOWLEDGED, "1d": ACKNOWLEDGED, "": OPEN}


@pytest.mark.parametrize("stop", ["revoke", "archive", "off"])
def test_of_what_is_stopped_archived_or_turned_off_nothing_is_told(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell, stop: str
) -> None:
    key, _ = make_key(expires_in="31d")
    if stop == "revoke":
        keys.revoke(key.id, by=operator)
    elif stop == "archive":
        projects.edit("shop", {"archived": True}, by=operator)
    else:
        projects.edit("shop", {"alerts": {"off": [EXPIRING]}}, by=operator)
    clock.move("2d")
    assert tell() == []


def test_a_muted_kind_is_kept_quiet_for_this_key_alone(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    make_key(name="Muted", expires_in="31d")
    clock.move("2d")
    tell()
    alerts.change(Alert.get().id, {"state": MUTED}, by=operator)
    make_key(name="Other", expires_in="31d")
    count = len(letters())
    clock.move("23d")
    tell()
    assert len(letters()) == count + 1
    assert "Muted" not in letters()[-1].text
    of_muted = {one.cause: one.state for one in Alert.select() if one.facts["name"] == "Muted"}
    assert of_muted == {"30d": MUTED, "7d": MUTED}


def test_each_notice_is_an_event_that_webhooks_can_be_told_of(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    key, _ = make_key(expires_in="31d")
    clock.move("2d")
    tell()
    event = Event.select().order_by(Event.id.desc()).get()
    assert (event.action, event.actor_name, event.target_id) == (
        "alert.expiring", "Latchkey", key.id
    )  # fmt: skip
    assert event.changes["prefix"] == [None, key.prefix]
    assert event.changes["alert"] == [None, Alert.get().id]


def test_a_thousand_keys_are_told_in_parts_and_in_one_run(
    make_key: MakeKey, clock: Clock, tell: Tell, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "BATCH", 2)
    projects.edit("shop", {"key_limit": 100}, by=operator)
    for number in range(7):
        make_key(name=f"Key {number}", expires_in="31d")
    clock.move("2d")
    assert tell() == [(EXPIRING, "30d")] * 7
    assert tell() == []


# --- renewal --------------------------------------------------------------------------------------


def test_a_key_renews_itself_before_its_end_by_its_period(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    key, secret = make_key(expires_in="90d", auto_renew=True)
    end = key.expires_at
    assert key.renewal_period == "90d"
    clock.move("80d")
    for _ in range(24 * 12):
        clock.move("1h")
        assert check.check(check.Request(secret=secret, request_id="r")).is_valid
        if clock.instant % time.DAY < time.HOUR:
            tell()
    renewed = Key.get_by_id(key.id)
    assert renewed.expires_at == time.after(end, "90d")
    event = Event.get(Event.action == "key.renewed")
    assert event.changes == {"expires_at": [time.iso(end), time.iso(renewed.expires_at)]}
    assert end - renewal.AHEAD_MAX <= event.at < end - renewal.AHEAD_MAX + time.DAY


def test_a_renewal_is_told_30_days_before_and_no_end_is(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    _, secret = make_key(expires_in="90d", auto_renew=True)
    told = []
    for _ in range(90):
        clock.move("1d")
        check.check(check.Request(secret=secret, request_id="r"))
        told += tell()
    assert told == [(RENEWAL, "30d")]
    assert "its end moves from 18 Feb 2027, 10:30 UTC to 19 May 2027, 10:30 UTC" in (
        letters()[0].text
    )


def test_a_key_that_nobody_uses_stops_renewing_itself_and_says_so(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"alerts": {"unused_after": "60d"}}, by=operator)
    key, secret = make_key(expires_in="90d", auto_renew=True)
    checked(check.Request(secret=secret, request_id="r"))
    told = []
    for _ in range(91):
        clock.move("1d")
        told += [one for one in tell() if one[0] != UNUSED]
    assert told == [
        (RENEWAL, "30d"), (RENEWAL_STOPPED, ""), (EXPIRING, "1d"), (EXPIRED_NOW, "")
    ]  # fmt: skip
    stopped = Key.get_by_id(key.id)
    assert not stopped.auto_renew and stopped.expires_at == key.expires_at
    assert Event.get(Event.action == "key.renewal_stopped").changes == {"auto_renew": [True, False]}
    assert any("renews itself no more: nobody uses it" in one.subject for one in letters())


def test_a_check_renews_what_nobody_has_renewed_in_time(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(expires_in="30d", auto_renew=True)
    clock.move("30d")
    assert checked(check.Request(secret=secret, request_id="r")).is_valid
    assert Key.get_by_id(key.id).expires_at == time.after(key.expires_at, "30d")
    clock.move("75d")
    assert check.check(check.Request(secret=secret, request_id="r")).is_valid
    assert Key.get_by_id(key.id).expires_at == time.after(key.expires_at, "90d")


def test_without_auto_renew_a_key_is_refused_at_its_millisecond(
    make_key: MakeKey, clock: Clock
) -> None:
    key, secret = make_key(expires_in="30d")
    clock.instant = key.expires_at - 1
    assert check.check(check.Request(secret=secret, request_id="r")).is_valid
    clock.move_ms(1)
    assert check.check(check.Request(secret=secret, request_id="r")).code == "API_KEY_EXPIRED"


@pytest.mark.parametrize("stop", ["revoked", "archived", "unused"])
def test_a_check_renews_nothing_that_is_not_to_be_renewed(
    make_key: MakeKey, operator: Actor, clock: Clock, stop: str
) -> None:
    key, secret = make_key(expires_in="30d", auto_renew=True)
    if stop == "revoked":
        keys.revoke(key.id, by=operator)
    elif stop == "archived":
        projects.edit("shop", {"archived": True}, by=operator)
    clock.move("30d" if stop != "unused" else "90d")
    assert not check.check(check.Request(secret=secret, request_id="r")).is_valid
    assert Key.get_by_id(key.id).expires_at == key.expires_at


@pytest.mark.parametrize("why", ["superseded", "outside", "revoked", "archived"])
def test_a_request_that_is_refused_anyway_renews_nothing(
    make_key: MakeKey, operator: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    key, secret = make_key(expires_in="30d", auto_renew=True, ip_allowlist=["10.0.0.1"])
    if why == "superseded":
        keys.rotate(key.id, {}, by=operator)
    elif why == "revoked":
        keys.revoke(key.id, by=operator)
    elif why == "archived":
        projects.edit("shop", {"archived": True}, by=operator)
    clock.move("30d")
    tried: list[str] = []
    monkeypatch.setattr(renewal, "renew_late", lambda key_id: bool(tried.append(key_id)))
    ip = "10.0.0.1" if why != "outside" else "10.0.0.2"
    assert not check.check(check.Request(secret=secret, request_id="r", ip=ip)).is_valid
    assert tried == []


def test_what_a_check_could_not_renew_it_does_not_try_again_at_once(
    make_key: MakeKey, operator: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = make_key(expires_in="30d", auto_renew=True)
    projects.edit("shop", {"key_limit": 1}, by=operator)
    clock.move("30d")
    make_key(name="Another")
    tried: list[str] = []
    whole = renewal._renew
    monkeypatch.setattr(
        renewal,
        "_renew",
        lambda one, *more, **named: tried.append(one.id) or whole(one, *more, **named),
    )
    for _ in range(5):
        verdict = check.check(check.Request(secret=secret, request_id="r"))
        assert verdict.code == "API_KEY_EXPIRED"
    assert tried == [key.id]


def test_a_key_that_has_ended_comes_back_only_where_it_may_be_extended(
    make_key: MakeKey, operator: Actor, member: Actor, owner: Actor, clock: Clock, tell: Tell
) -> None:
    """The project has its fill of keys, or somebody who has left knows the secret."""
    known, secret = make_key(name="Known", by=member, expires_in="30d", auto_renew=True)
    people.edit(member.id, {"disabled": True}, by=owner)
    clock.move("30d")
    for _ in range(2):
        tell()
    assert not check.check(check.Request(secret=secret, request_id="r")).is_valid
    assert Key.get_by_id(known.id).expires_at == known.expires_at
    assert Alert.select().where(Alert.kind == EXPIRED_NOW, Alert.key == known.id).count() == 1


def test_a_key_that_a_leaver_knows_is_not_renewed_by_being_enabled(
    make_key: MakeKey, operator: Actor, member: Actor, owner: Actor, clock: Clock
) -> None:
    known, secret = make_key(by=member, expires_in="30d", auto_renew=True)
    keys.revoke(known.id, by=operator)
    people.edit(member.id, {"disabled": True}, by=owner)
    clock.move("31d")
    keys.restore(known.id, by=operator)  # as it has ended, it lets nobody in
    verdict = check.check(check.Request(secret=secret, request_id="r"))
    assert verdict.code == "API_KEY_EXPIRED"


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_in": "1h", "renewal_period": "8020y"},
        {"expires_in": "1h", "renewal_period": "11y"},
        {"expires_at": "9998-01-01T00:00:00Z", "renewal_period": "10y"},
        {"expires_at": "9000-01-01T00:00:00Z"},
        {"expires_in": "30m"},
    ],
)
def test_a_period_that_leads_nowhere_is_refused(make_key: MakeKey, fields: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        make_key(auto_renew=True, **fields)
    assert list(refusal.value.fields) == ["renewal_period"]


def test_a_renewal_stays_within_what_the_project_allows(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    key, secret = make_key(expires_in="90d", auto_renew=True)
    projects.edit("shop", {"maximum_lifetime": "30d"}, by=operator)
    clock.move("85d")
    checked(check.Request(secret=secret, request_id="r"))
    tell()
    assert Key.get_by_id(key.id).expires_at == clock.instant + 30 * time.DAY


def test_who_is_only_refused_has_no_use_of_a_key(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    key, secret = make_key(expires_in="120d", auto_renew=True, ip_allowlist=["10.0.0.1"])
    for _ in range(119):
        clock.move("1d")
        checked(check.Request(secret=secret, request_id="r", ip="10.0.0.2"))
        tell()
    assert Key.get_by_id(key.id).expires_at == key.expires_at
    assert Event.select().where(Event.action == "key.renewal_stopped").count() == 1


def test_a_new_end_leaves_the_period_alone(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key(expires_in="2d", auto_renew=True, renewal_period="60d")
    assert keys.edit(key.id, {"expires_in": "1y"}, by=operator).renewal_period == "60d"
    assert keys.edit(key.id, {"renewal_period": "7d"}, by=operator).renewal_period == "7d"
    off = keys.edit(key.id, {"auto_renew": False}, by=operator)
    assert (off.auto_renew, off.renewal_period) == (False, None)
    again = keys.edit(key.id, {"auto_renew": True, "expires_in": "30d"}, by=operator)
    assert again.renewal_period == "30d"


def test_what_is_turned_off_later_is_settled(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    make_key(expires_in="31d")
    clock.move("2d")
    tell()
    projects.edit("shop", {"alerts": {"off": [EXPIRING]}}, by=operator)
    clock.move("1h")
    tell()
    assert Alert.get().state == ACKNOWLEDGED


def test_a_short_maximum_is_no_reason_to_renew_all_the_time(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"maximum_lifetime": "7d"}, by=operator)
    make_key(expires_in="7d", auto_renew=True, renewal_period="30d")
    for _ in range(24 * 14):
        clock.move("1h")
        jobs.run_now(renewal.TASK)
    assert Event.select().where(Event.action == "key.renewed").count() == 2


def test_of_checks_at_once_past_the_end_none_is_refused(make_key: MakeKey, clock: Clock) -> None:
    key, secret = make_key(expires_in="30d", auto_renew=True)
    check.check(check.Request(secret=secret, request_id="r"))
    clock.move("30d")
    verdicts = at_once(8, lambda _: check.check(check.Request(secret=secret, request_id="r")))
    assert all(isinstance(one, check.Verdict) and one.is_valid for one in verdicts)
    assert Event.select().where(Event.action == "key.renewed").count() == 1
    assert Key.get_by_id(key.id).expires_at == time.after(key.expires_at, "30d")


def test_the_old_secret_of_a_key_that_renews_itself_has_its_whole_grace(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key(expires_in="1d", auto_renew=True)
    _, _, ends_at = keys.rotate(key.id, {"grace_period": "7d"}, by=operator)
    assert ends_at == clock.instant + 7 * time.DAY


def test_a_short_period_renews_in_its_last_quarter(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    key, _ = make_key(expires_in="4h", auto_renew=True)
    clock.move_ms(3 * time.HOUR - 1)
    tell()
    assert Key.get_by_id(key.id).expires_at == key.expires_at
    clock.move_ms(1)
    tell()
    assert Key.get_by_id(key.id).expires_at == key.expires_at + 4 * time.HOUR


# --- rotation and disuse --------------------------------------------------------------------------


def test_rotation_is_off_until_it_is_chosen(make_key: MakeKey, clock: Clock, tell: Tell) -> None:
    key, _ = make_key()
    clock.move("1y")
    assert ROTATION_DUE not in {kind for kind, _ in tell()}
    assert keys.as_dict(Key.get_by_id(key.id))["rotation_due_at"] is None


def test_by_default_live_keys_are_due_after_90_days_and_test_keys_after_180(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"rotation_policy": {}}, by=operator)
    live, _ = make_key(name="Live")
    test, _ = make_key(name="Test", environment="test")
    due = {one.name: keys.as_dict(one)["rotation_due_at"] for one in Key.select()}
    assert due == {"Live": "2027-02-18T10:30:00Z", "Test": "2027-05-19T10:30:00Z"}
    found = {}
    for day in range(1, 182):
        clock.move("1d")
        tell()
        for alert in Alert.select().where(Alert.kind == ROTATION_DUE):
            found.setdefault(alert.facts["name"], day)
    assert found == {"Live": 90, "Test": 180}


def test_a_rotation_settles_that_it_is_due_and_begins_the_time_anew(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"rotation_policy": {"live": "90d", "test": None}}, by=operator)
    key, _ = make_key()
    clock.move("90d")
    assert (ROTATION_DUE, "") in tell()
    keys.rotate(key.id, {}, by=operator)
    assert Alert.get(Alert.kind == ROTATION_DUE).state == ACKNOWLEDGED
    clock.move("89d")
    assert (ROTATION_DUE, "") not in tell()
    clock.move("1d")
    assert (ROTATION_DUE, "") in tell()


def test_a_key_that_nobody_uses_is_told_once_and_settled_by_its_next_use(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    _, secret = make_key()
    checked(check.Request(secret=secret, request_id="r"))
    told = {}
    for day in range(1, 120):
        clock.move("1d")
        if new := tell():
            told[day] = new
    assert told == {90: [(UNUSED, "")]}
    checked(check.Request(secret=secret, request_id="r"))
    tell()
    assert Alert.get().state == ACKNOWLEDGED
    clock.move("90d")
    assert tell() == [(UNUSED, "")]


def test_a_key_that_was_never_used_counts_from_the_day_it_was_made(
    make_key: MakeKey, clock: Clock, tell: Tell
) -> None:
    make_key()
    clock.move("90d")
    assert tell() == [(UNUSED, "")]
    assert "has been unused since 20 Nov 2026" in letters()[0].subject


def test_so_many_unused_keys_are_open_at_a_time_and_the_others_come_later(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "OPEN_MAX", 5)
    monkeypatch.setattr(notices, "BATCH", 5)
    for number in range(12):
        make_key(name=f"Key {number}")
    clock.move("90d")
    assert len(tell()) == 5
    assert tell() == []
    alerts.acknowledge_many([one.id for one in Alert.select()], by=operator)
    assert len(tell()) == 5


def test_a_policy_that_is_taken_back_settles_what_it_said(
    make_key: MakeKey, operator: Actor, clock: Clock, tell: Tell
) -> None:
    projects.edit("shop", {"rotation_policy": {}}, by=operator)
    make_key()
    clock.move("90d")
    assert (ROTATION_DUE, "") in tell()
    projects.edit("shop", {"rotation_policy": None}, by=operator)
    tell()
    assert Alert.get(Alert.kind == ROTATION_DUE).state == ACKNOWLEDGED


def test_the_texts_have_no_holes(make_key: MakeKey, clock: Clock, tell: Tell) -> None:
    make_key(expires_in="31d")
    clock.move("2d")
    tell()
    for letter in letters():
        assert not re.search(r"None|\{|\}|  +—", letter.text)
