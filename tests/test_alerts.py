"""Alerts: who sees which, what is made of them, through the pages and the API; and what a project
sets about them."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import alerts, keys, projects
from console.actor import Actor
from console.alert_rules import GUESSING, KINDS, OF_PROJECT, UNUSED
from console.alert_words import ADVICE, HEADLINES, NAMES
from console.alerts import Finding
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.models import ACKNOWLEDGED, MUTED, OPEN, Alert, Event, Key, Project
from tests.conftest import (
    Call,
    Clock,
    MakeKey,
    add_alert,
    assert_problem,
    bearer,
    sign_in,
)

FIELDS = {
    "id", "project", "kind", "state", "key", "message", "facts", "count", "created_at", "last_at",
    "decided_at", "decided_by",
}  # fmt: skip
# What each kind says besides its key's own facts.
FACTS: dict[str, dict[str, Any]] = {
    "expiring": {},
    "expired": {},
    "renewal": {
        "renews_at": "2027-01-01T00:00:00Z", "is_unused": False,
        "renewed_until": "2027-04-01T00:00:00Z", "unused_since": "2026-11-20T10:30:00Z",
    },
    "renewal_stopped": {"unused_since": "2026-11-20T10:30:00Z"},
    "rotation_due": {"secret_since": "2026-08-20T10:30:00Z", "policy": "90d"},
    "unused": {"unused_since": "2026-08-20T10:30:00Z"},
    "new_country": {"countries": ["FR", "DE"], "ip": "2.2.2.2", "country": "FR"},
    "new_network": {"networks": ["2.2.2.0/24"], "ip": "2.2.2.2", "country": "FR"},
    "refusals": {"refusals": 51, "code": "IP_NOT_ALLOWED", "ip": "2.2.2.2", "country": "FR"},
    "limit_near": {
        "window": "hour", "limit": 1000, "used": 800, "percent": 80,
        "resets_at": "2026-11-20T11:00:00Z",
    },
    "limit_reached": {
        "window": "month", "limit": 1000, "used": 1000, "percent": 100,
        "resets_at": "2026-12-01T00:00:00Z",
    },
    "old_secret": {"code": "API_KEY_REVOKED", "ip": None, "country": None},
    "guessing": {"ip": "8.8.8.8", "country": "US", "attempts": 230},
}  # fmt: skip


def add(kind: str, key: Key | None, clock: Clock, window_at: int = 0) -> Alert:
    address = "" if key else "8.8.8.8"
    finding = Finding(kind, key, window_at, facts=FACTS[kind], address=address)
    [alert] = alerts.report([finding], clock.now())
    return alert


# --- what they say --------------------------------------------------------------------------------


def test_every_kind_has_its_words() -> None:
    assert set(HEADLINES) == set(ADVICE) == set(NAMES) == set(FACTS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_said_on_its_page_in_the_list_and_in_a_letter(
    make_key: MakeKey, signed_in: FlaskClient, clock: Clock, kind: str
) -> None:
    key = None if kind == GUESSING else make_key(name="Check<out>", expires_in="90d")[0]
    alert = add(kind, key, clock)
    for page in (signed_in.get("/alerts"), signed_in.get(f"/alerts/{alert.id}")):
        assert page.status_code == 200
        assert NAMES[kind] in page.text or "Open" in page.text
        assert "Check<out>" not in page.text
        assert not re.search(r"\bNone\b|\{\w*\}|Undefined", re.sub(r"<[^>]+>", "", page.text))
    said = f"{HEADLINES[kind](alert.facts)}. {ADVICE[kind](alert.facts)}"
    assert "None" not in said and said.endswith(".")


# --- who sees which -------------------------------------------------------------------------------


@pytest.fixture
def three(
    make_key: MakeKey, member: Actor, other_project: Project, clock: Clock, operator: Actor
) -> dict[str, Alert]:
    """One of a member's key, one of somebody else's, one elsewhere, one of no project."""
    theirs, _ = make_key(name="Bob's", by=member)
    others, _ = make_key(name="CI")
    elsewhere, _ = keys.create({"name": "There", "project": "other"}, by=operator)
    return {
        "own": add_alert(Key.get_by_id(theirs.id)),
        "others": add_alert(Key.get_by_id(others.id)),
        "elsewhere": add_alert(Key.get_by_id(elsewhere.id)),
        "installation": add(GUESSING, None, clock),
    }


SEEN = {
    "owner": {"own", "others", "elsewhere", "installation"},
    "admin": {"own", "others"},
    "member": {"own"},
    "viewer": {"own", "others"},
    "stranger": {"elsewhere"},
}


@pytest.mark.parametrize("who", SEEN)
def test_everybody_sees_the_alerts_of_the_keys_that_they_see(
    request: pytest.FixtureRequest, three: dict[str, Alert], who: str
) -> None:
    by = request.getfixturevalue(who)
    found = {one.id for one in alerts.page(by=by).rows}
    assert found == {three[name].id for name in SEEN[who]}
    assert alerts.open_count(by=by) == len(found)
    for name, alert in three.items():
        if name in SEEN[who]:
            assert alerts.alert_to_see(alert.id, by=by) == alert
        else:
            with pytest.raises(Unknown):
                alerts.alert_to_see(alert.id, by=by)


def test_a_project_is_asked_for_by_its_slug(three: dict[str, Alert], owner: Actor) -> None:
    assert {one.id for one in alerts.page(by=owner, project="shop").rows} == {
        three["own"].id, three["others"].id
    }  # fmt: skip
    assert [one.id for one in alerts.page(by=owner, kind=GUESSING).rows] == [
        three["installation"].id
    ]


def test_a_viewer_reads_and_changes_nothing(three: dict[str, Alert], viewer: Actor) -> None:
    with pytest.raises(Forbidden):
        alerts.change(three["others"].id, {"state": MUTED}, by=viewer)


# --- what is made of them -------------------------------------------------------------------------


def test_a_state_is_an_event_by_who_set_it(make_key: MakeKey, owner: Actor, clock: Clock) -> None:
    alert = add_alert(make_key()[0])
    for state, action in (
        (ACKNOWLEDGED, "alert.acknowledged"), (MUTED, "alert.muted"), (OPEN, "alert.reopened")
    ):  # fmt: skip
        before = alerts.alert_to_see(alert.id, by=owner).state
        changed = alerts.change(alert.id, {"state": state}, by=owner)
        event = Event.select().order_by(Event.id.desc()).get()
        assert (event.action, event.actor_id, event.changes["state"]) == (
            action, owner.id, [before, state]
        )  # fmt: skip
        assert changed.decided_by == (None if state == OPEN else owner.name)
    alerts.change(alert.id, {"state": OPEN}, by=owner)
    assert Event.select().where(Event.action == "alert.reopened").count() == 1


def test_what_is_opened_again_is_told_again(make_key: MakeKey, owner: Actor, clock: Clock) -> None:
    key, _ = make_key()
    first = add_alert(key)
    alerts.change(first.id, {"state": MUTED}, by=owner)
    facts = {"unused_since": "2026-11-20T10:30:00Z"}
    assert alerts.report([Finding(UNUSED, key, 1, facts=facts)], clock.now()) == []
    alerts.change(first.id, {"state": OPEN}, by=owner)
    assert len(alerts.report([Finding(UNUSED, key, 2, facts=facts)], clock.now())) == 1


@pytest.mark.parametrize("action", ["revoke", "delete"])
def test_what_a_stopped_key_was_about_is_of_the_past(
    make_key: MakeKey, owner: Actor, clock: Clock, action: str
) -> None:
    key, _ = make_key(expires_in="90d")
    for kind in OF_PROJECT:
        add(kind, Key.get_by_id(key.id), clock)
    getattr(keys, action)(key.id, by=owner)
    left = {one.kind for one in Alert.select().where(Alert.state == OPEN)}
    assert left == ({"old_secret"} if action == "revoke" else set())


def test_what_is_so_no_more_is_settled_by_what_changed_it(
    make_key: MakeKey, owner: Actor, clock: Clock
) -> None:
    key, _ = make_key(rate_limit={"per_hour": 5})
    keys.revoke(key.id, by=owner)
    add("old_secret", key, clock)
    add("limit_reached", key, clock)
    keys.restore(key.id, by=owner)
    assert {one.kind for one in Alert.select().where(Alert.state == OPEN)} == {"limit_reached"}
    keys.edit(key.id, {"plan": "unlimited"}, by=owner)
    assert Alert.select().where(Alert.state == OPEN).count() == 0


def test_how_long_it_is_until_then_is_said_as_of_now(make_key: MakeKey, clock: Clock) -> None:
    key, _ = make_key(name="Old", expires_in="30d")
    alert = add("expiring", Key.get_by_id(key.id), clock)
    for passed, words in (("0", "in 30 days"), ("21d", "in 9 days"), ("8d", "in 24 hours")):
        if passed != "0":
            clock.move(passed)
        assert alerts.as_dict(alert)["message"] == f"“Old” expires {words}"


def test_several_are_acknowledged_and_what_is_gone_is_passed_over(
    three: dict[str, Alert], member: Actor, admin: Actor
) -> None:
    both = [three["own"].id, three["others"].id]
    with pytest.raises(Unknown):
        alerts.acknowledge_many([three["others"].id, "alr_gone"], by=member)
    assert alerts.acknowledge_many([*both, "alr_gone"], by=member) == 1
    assert Alert.get(Alert.state == ACKNOWLEDGED) == three["own"]
    assert alerts.acknowledge_many(both, by=admin) == 1
    assert alerts.acknowledge_many(both, by=admin) == 0


def test_alerts_go_after_a_year_and_muted_ones_stay(
    make_key: MakeKey, owner: Actor, clock: Clock
) -> None:
    key, _ = make_key()
    done = add_alert(key)
    alerts.change(done.id, {"state": ACKNOWLEDGED}, by=owner)
    add("refusals", key, clock)
    muted = add("old_secret", key, clock)
    alerts.change(muted.id, {"state": MUTED}, by=owner)
    clock.move("366d")
    assert alerts.prune(10) == 2
    assert Alert.get().kind == "old_secret"


def test_in_one_transaction_with_its_event_or_not_at_all(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = make_key()

    def fail(*args: Any, **more: Any) -> None:
        raise Conflict("no event")

    monkeypatch.setattr(alerts.activity, "record", fail)
    with pytest.raises(Conflict, match="no event"):
        add_alert(key)
    assert Alert.select().count() == 0


# --- the API --------------------------------------------------------------------------------------


@pytest.fixture
def script(make_key: MakeKey) -> str:
    return make_key(name="Script", permissions=["audit:read", "keys:write"])[1]


def test_the_api_lists_reads_and_changes(
    call: Call, make_key: MakeKey, script: str, clock: Clock
) -> None:
    key, _ = make_key(name="Old")
    alert = add_alert(key)
    [listed] = call("GET", "/alerts", secret=script).json["data"]
    assert set(listed) == FIELDS
    assert listed["key"] == {"id": key.id, "name": "Old", "prefix": key.prefix}
    assert (listed["kind"], listed["state"], listed["message"]) == (
        "unused", "open", "“Old” has been unused since 20 Nov 2026"
    )  # fmt: skip
    assert call("GET", f"/alerts/{alert.id}", secret=script).json == listed
    changed = call("PATCH", f"/alerts/{alert.id}", {"state": "muted"}, secret=script).json
    assert (changed["state"], changed["decided_by"]) == ("muted", "Script")
    assert call("GET", "/alerts", secret=script).json["data"] == []
    for state in ("muted", "any"):
        assert call("GET", f"/alerts?state={state}", secret=script).json["data"] == [changed]


@pytest.mark.parametrize("query", ["state=new", "kind=nothing", "limit=0", "nothing=1", "cursor=x"])
def test_a_query_that_makes_no_sense_is_refused(call: Call, script: str, query: str) -> None:
    assert_problem(call("GET", f"/alerts?{query}", secret=script), 400, "INVALID", "errors")


@pytest.mark.parametrize("body", [{}, {"state": "new"}, {"state": None}, {"kind": "unused"}])
def test_a_change_that_makes_no_sense_is_refused(
    call: Call, make_key: MakeKey, script: str, body: Any
) -> None:
    alert = add_alert(make_key()[0])
    answer = call("PATCH", f"/alerts/{alert.id}", body, secret=script)
    assert_problem(answer, 400, "INVALID", "errors")


# --- the pages ------------------------------------------------------------------------------------


def test_the_bell_counts_what_is_open_on_every_page(
    signed_in: FlaskClient, make_key: MakeKey, owner: Actor
) -> None:
    assert "<b>" not in bell(signed_in.get("/projects/shop/keys").text)
    alert = add_alert(make_key()[0])
    assert "<b>1</b>" in bell(signed_in.get("/projects/shop/keys").text)
    alerts.change(alert.id, {"state": ACKNOWLEDGED}, by=owner)
    assert "<b>" not in bell(signed_in.get("/projects/shop/keys").text)


def bell(page: str) -> str:
    found = re.search(r'<a class="bell".*?</a>', page)
    assert found
    return found[0]


def test_a_key_is_revoked_one_step_away(
    signed_in: FlaskClient, make_key: MakeKey, app: Flask
) -> None:
    key, secret = make_key()
    alert = add_alert(key)
    for path in ("/alerts", f"/alerts/{alert.id}"):
        assert f"/projects/shop/keys/{key.id}/revoke" in signed_in.get(path).text
    assert signed_in.post(f"/projects/shop/keys/{key.id}/revoke").status_code == 303
    assert "Nothing needs you" in signed_in.get("/alerts").text
    again = app.test_client().get("/api/v1/whoami", headers=bearer(secret))
    assert again.json["code"] == "API_KEY_REVOKED"


def test_without_scripts_a_state_is_a_form(signed_in: FlaskClient, make_key: MakeKey) -> None:
    alert = add_alert(make_key()[0])
    answer = signed_in.post(f"/alerts/{alert.id}/state", data={"state": "muted"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/alerts")
    assert "nobody is told" in signed_in.get(f"/alerts/{alert.id}").text
    answer = signed_in.post(f"/alerts/{alert.id}/state", data={"state": "open", "back": "alert"})
    assert answer.headers["Location"] == f"/alerts/{alert.id}"


def test_a_viewer_is_offered_no_button(app: Flask, viewer: Actor, make_key: MakeKey) -> None:
    alert = add_alert(make_key()[0])
    browser = sign_in(app, viewer)
    for path in ("/alerts", f"/alerts/{alert.id}"):
        assert "Acknowledge<" not in browser.get(path).text
        assert "Revoke this key" not in browser.get(path).text
    assert browser.post(f"/alerts/{alert.id}/state", data={"state": "muted"}).status_code == 403


def test_only_an_owner_is_offered_what_concerns_the_installation(
    app: Flask, admin: Actor, signed_in: FlaskClient, clock: Clock
) -> None:
    alert = add(GUESSING, None, clock)
    assert "tried 230 unknown keys" in signed_in.get("/alerts").text
    browser = sign_in(app, admin)
    assert "Guessing" not in browser.get("/alerts").text
    assert browser.get(f"/alerts/{alert.id}").status_code == 404


# --- settings -------------------------------------------------------------------------------------


def test_a_project_begins_with_sensible_rules(project: Project) -> None:
    facts = projects.as_dict(project)
    assert facts["alerts"] == {
        "off": [], "learning_period": "7d", "refusals_per_hour": 50, "limit_percent": 80,
        "unused_after": "90d",
    }  # fmt: skip
    assert facts["rotation_policy"] is None


def test_only_what_is_sent_of_the_rules_is_changed(project: Project, owner: Actor) -> None:
    projects.edit("shop", {"alerts": {"limit_percent": 50}}, by=owner)
    changed = projects.edit("shop", {"alerts": {"off": ["unused", "expiring"]}}, by=owner)
    rules = projects.as_dict(changed)["alerts"]
    assert (rules["limit_percent"], rules["off"]) == (50, ["expiring", "unused"])
    event = Event.select().order_by(Event.id.desc()).get()
    assert list(event.changes) == ["alerts"]


def test_a_rotation_policy_has_defaults_once_it_is_chosen(project: Project, owner: Actor) -> None:
    def policy(value: Any) -> Any:
        edited = projects.edit("shop", {"rotation_policy": value}, by=owner)
        return projects.as_dict(edited)["rotation_policy"]

    assert policy({}) == {"live": "90d", "test": "180d"}
    assert policy({"live": "30d", "test": None}) == {"live": "30d", "test": None}
    assert policy({"live": None, "test": None}) is None
    assert policy(None) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"alerts": {"off": ["nothing"]}}, "alerts.off.0"),
        ({"alerts": {"off": ["guessing"]}}, "alerts.off.0"),
        ({"alerts": {"limit_percent": 0}}, "alerts.limit_percent"),
        ({"alerts": {"limit_percent": 100}}, "alerts.limit_percent"),
        ({"alerts": {"refusals_per_hour": 0}}, "alerts.refusals_per_hour"),
        ({"alerts": {"unused_after": "23h"}}, "alerts.unused_after"),
        ({"alerts": {"unused_after": "11y"}}, "alerts.unused_after"),
        ({"alerts": {"learning_period": "soon"}}, "alerts.learning_period"),
        ({"alerts": {"nothing": 1}}, "alerts.nothing"),
        ({"alerts": None}, "alerts"),
        ({"rotation_policy": {"live": "1h"}}, "rotation_policy.live"),
        ({"rotation_policy": {"staging": "1d"}}, "rotation_policy.staging"),
        ({"rotation_policy": "90d"}, "rotation_policy"),
    ],
)
def test_rules_that_make_no_sense_are_named(
    project: Project, owner: Actor, fields: Any, named: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", fields, by=owner)
    assert named in refusal.value.fields
    assert Event.select().where(Event.action == "project.edited").count() == 0


def test_the_forms_set_rules_and_rotation(signed_in: FlaskClient, project: Project) -> None:
    form = {
        "alert_email": "team@example.com", "refusals_per_hour": "20", "limit_percent": "70",
        "unused_after": "30d", "learning_period": "14d", "raised": ["expiring", "expired"],
    }  # fmt: skip
    assert signed_in.post("/projects/shop/settings/alerts", data=form).status_code == 303
    rotation = {"rotation": "yes", "rotation_live": "60d", "rotation_test": ""}
    assert signed_in.post("/projects/shop/settings/rotation", data=rotation).status_code == 303
    facts = projects.as_dict(Project.get_by_id(project.id))
    rules = facts["alerts"]
    assert (rules["limit_percent"], rules["unused_after"]) == (70, "30d")
    assert set(OF_PROJECT) - set(rules["off"]) == {"expiring", "expired"}
    assert facts["rotation_policy"] == {"live": "60d", "test": None}
    page = signed_in.get("/projects/shop/settings").text
    assert 'value="70"' in page and 'value="60d"' in page
    off = signed_in.post("/projects/shop/settings/rotation", data={"rotation": "no"})
    assert off.status_code == 303
    assert Project.get_by_id(project.id).rotation_policy is None


@pytest.mark.parametrize(
    ("section", "form", "told"),
    [
        ("alerts", {"limit_percent": "100", "raised": ["expired"]}, "whole number from 1 to 99"),
        ("alerts", {"unused_after": "1h"}, "Must be at least 1d"),
        ("rotation", {"rotation": "yes", "rotation_live": "soon"}, "a length such as"),
    ],
)
def test_a_mistake_stands_beside_its_field_and_what_was_typed_stays(
    signed_in: FlaskClient, section: str, form: dict[str, Any], told: str
) -> None:
    seen = {"seen": ""}
    answer = signed_in.post(f"/projects/shop/settings/{section}", data={**form, **seen})
    assert answer.status_code == 422
    assert told in answer.text
    for name, text in form.items():
        if name in ("limit_percent", "unused_after", "rotation_live"):
            assert re.search(rf'name="{name}"[^>]*value="{text}"', answer.text)
            assert f'id="{name}-error"' in answer.text


def test_the_alerts_of_a_key_are_told_by_no_secret(
    make_key: MakeKey, call: Call, script: str
) -> None:
    key, secret = make_key(name="Shown")
    add_alert(key)
    assert secret not in json.dumps(call("GET", "/alerts", secret=script).json)
