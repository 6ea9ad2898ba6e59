"""The five mistakes that an audit found in the tokens of a package index in 2026: a foreign id that
could be deleted, a ban that one way in did not know, a write behind a right to read, events that
were dropped in silence, and a one-time code that was new again with a space in
it. A test or more for each."""

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import second_factor
from console.actor import ADMIN_ROLE, MEMBER, VIEWER, Actor
from console.models import TABLES, Event, Key, Membership, Project, Session, Throttle
from tests.conftest import PASSWORD, V1, Clock, MakeKey, bearer
from tests.test_permission_table import (
    NO_DOOR,
    OPERATIONS,
    OWNER,
    Operation,
    World,
    prepared,
    word,
)
from tests.test_permission_table import new_world as world

__all__ = ["world"]  # a fixture

READING = ("keys:read", "audit:read", "analytics:read")
# What a sending that only asks, or that needs no right but the key itself, is called in the table.
ASKS = {
    "Test a key", "Choose what to do with several keys", "Export several keys",
    "Revoke one's own key", "See how secrets would look",
}  # fmt: skip
# What any call with a key leaves behind: its entry, and what is counted of it.
LEFT_BY_A_CALL = {"Entry", "Usage", "Key", "Secret", "Drained", "Change"}
# What is kept elsewhere: statuses of requests with their entries, messages with their webhook.
NO_EVENT = {
    "Report outcomes",
    "Test a webhook",
    "Send a delivery again",
    "Ask about a key",
    "Preview a key's form",
    *ASKS,
}


def everything() -> dict[str, list[str]]:
    """All that is stored, but for what a request leaves of itself."""
    return {
        table.__name__: sorted(map(repr, table.select().tuples()))
        for table in TABLES
        if table not in (Session, Throttle)
    }


# --- 1: a foreign id ------------------------------------------------------------------------


@pytest.mark.parametrize("who", [ADMIN_ROLE, MEMBER])
def test_a_key_of_another_project_is_not_deleted_from_within_ones_own(
    world: World, who: str
) -> None:
    mine, other = world.project(), world.project()
    actor = world.actors[who]
    leave(world, actor, other["slug"])
    browser = world.browser(who)
    for action in ("delete", "revoke", "rotate", "edit"):
        path = f"/projects/{mine['slug']}/keys/{other['key']}/{action}"
        assert browser.post(path, data={"confirm": "CI", "name": "CI"}).status_code == 404
    for method in ("DELETE", "PATCH"):
        answer = world.app.test_client().open(
            f"{V1}/api-keys/{other['key']}",
            method=method,
            json={} if method == "PATCH" else None,
            headers=bearer(world.token(who)),
        )
        assert answer.status_code == 404
    assert Key.get_by_id(other["key"]).revoked_at is None


def leave(world: World, actor: Actor, slug: str) -> None:
    project = Project.get(Project.slug == slug)
    Membership.delete().where(
        Membership.person == actor.id, Membership.project == project
    ).execute()


# --- 2: a ban that one way in does not know -------------------------------------------------


def test_an_allowlist_holds_for_the_api_too(
    client: FlaskClient, make_key: MakeKey, clock: Clock
) -> None:
    _, secret = make_key(permissions=["admin:*"], ip_allowlist=["203.0.113.0/24"])
    for method, path in (("GET", "/api-keys"), ("POST", "/api-keys"), ("POST", "/verify"),
                         ("GET", "/whoami"), ("POST", "/revoke-self")):  # fmt: skip
        answer = client.open(V1 + path, method=method, headers=bearer(secret), json={})
        assert (answer.status_code, answer.get_json()["code"]) == (403, "IP_NOT_ALLOWED"), path


@pytest.mark.parametrize("first", ["browser", "script"])
def test_who_must_wait_waits_at_every_door(
    app: Flask, client: FlaskClient, owner: Actor, clock: Clock, first: str
) -> None:
    def by_browser(password: str) -> int:
        form = {"email": owner.name, "password": password}
        return app.test_client().post("/login", data=form).status_code

    def by_script(password: str) -> int:
        body = {"email": owner.name, "password": password}
        return client.post(f"{V1}/auth/token", json=body).status_code

    wrong = by_browser if first == "browser" else by_script
    answers = [wrong("not the password") for _ in range(20)]
    assert answers[0] == 401 and answers[-1] == 429
    assert by_browser(PASSWORD) == by_script(PASSWORD) == 429


# --- 3: a write behind a right to read ------------------------------------------------------

WRITES = [
    one
    for one in OPERATIONS
    if one.name not in ASKS
    and any(at and at[0] != "GET" for at in (one.browser, one.api))
    and one.people[VIEWER] != "yes"
]


@pytest.mark.parametrize("operation", WRITES, ids=str)
def test_who_may_only_read_writes_nothing(world: World, operation: Operation) -> None:
    world.sign_in(VIEWER)
    ids = prepared(world, operation)
    before = everything()
    if operation.browser:
        assert world.submit(operation, ids, VIEWER).status_code in (403, 404)
    if operation.api:
        assert world.send(operation, ids, VIEWER).status_code in (403, 404)
    assert everything() == before
    if operation.api and operation.key != NO_DOOR:
        reader = world.holder(ids["slug"], *READING)
        before = everything()
        assert world.send(operation, ids, token=reader).status_code in (403, 404)
        after = everything()
        assert {name for name in before if after[name] != before[name]} <= LEFT_BY_A_CALL


def test_the_search_for_writes_finds_them() -> None:
    assert {"Create a key", "Delete a key", "Add a person"} <= {one.name for one in WRITES}


# --- 4: events that are dropped -------------------------------------------------------------


@pytest.mark.parametrize("operation", [one for one in WRITES if one.name not in NO_EVENT], ids=str)
def test_every_change_is_an_event(world: World, operation: Operation) -> None:
    doors = [world.submit] * bool(operation.browser) + [world.send] * bool(operation.api)
    world.sign_in(OWNER)
    for send in doors:
        ids = prepared(world, operation)
        before = Event.select().count()
        answer = send(operation, ids, OWNER)
        assert word(answer) == "yes", answer.text
        new = list(Event.select().order_by(Event.id.desc()).limit(Event.select().count() - before))
        assert new and {event.actor_name for event in new} == {"owner@example.com"}
        assert {event.ip for event in new} == {"127.0.0.1"}
        assert {event.request_id for event in new} == {answer.headers["X-Request-Id"]}


# --- 5: a code that is new again with a space in it -----------------------------------------

VARIANTS = (
    "{0}{1}{2}{3}{4}{5}", "{0}{1}{2} {3}{4}{5}", " {0}{1}{2}{3}{4}{5} ", "{0}{1}{2}-{3}{4}{5}",
    "{0} {1} {2} {3} {4} {5}", "{0}{1}{2}\u00a0{3}{4}{5}",
)  # fmt: skip


def test_a_code_is_good_once_however_it_is_written(
    app: Flask, client: FlaskClient, owner: Actor, clock: Clock
) -> None:
    enrolment = second_factor.begin_enrolment(by=owner)
    totp = pyotp.TOTP(enrolment.seed)
    second_factor.enrol(enrolment.sealed, totp.at(clock.now() // 1000), token="", by=owner)
    clock.move("5m")
    code = totp.at(clock.now() // 1000)

    def tried(otp: str) -> int:
        body = {"email": owner.name, "password": PASSWORD, "otp": otp}
        return client.post(f"{V1}/auth/token", json=body).status_code

    assert tried(VARIANTS[1].format(*code)) == 200
    for variant in VARIANTS:
        assert tried(variant.format(*code)) == 401, variant
        clock.move_ms(100)
        Throttle.delete().execute()  # it is the code that is refused, not the haste
