"""Every operation through the browser and through JSON leaves the same row and the same event."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import keys
from console.actor import Actor
from console.models import Event, Key, Secret
from tests.conftest import PASSWORD, MakeKey, bearer, sign_in

# What differs from one key to the next by nature; everything else must be equal.
BY_NATURE = {"id", "prefix", "digest", "key", "request_id", "target_id", "hash"}


@dataclass
class Operation:
    """One thing that a person does: the browser's form and the script's call for it."""

    name: str
    form: str  # the form's path below the key
    fields: dict[str, str]
    method: str
    call: str  # the call's path below the key
    body: dict[str, Any] | None
    first: dict[str, Any] = field(default_factory=dict)  # an edit that sets the scene
    grace: str | None = None  # that of a rotation that sets it


UNCHANGED = {"name": "CI", "description": "", "permissions": "", "ip_allowlist": ""}
OPERATIONS = [
    Operation(
        "edit",
        "/edit",
        {
            "name": "CI, second",
            "description": "In the vault",
            "permissions": "tasks:read\ntasks:write",
            "ip_allowlist": "10.0.0.0/24, 2001:db8::1",
            "expiration": "1mo",
            "plan": "enterprise",
            "per_minute": "5",
            "per_hour": "60",
        },
        "PATCH",
        "",
        {
            "name": "CI, second",
            "description": "In the vault",
            "permissions": ["tasks:read", "tasks:write"],
            "ip_allowlist": ["10.0.0.0/24", "2001:db8::1"],
            "expires_in": "1mo",
            "plan": "enterprise",
            "rate_limit": {"per_minute": 5, "per_hour": 60},
        },
    ),
    Operation(
        "expire on a date",
        "/edit",
        {**UNCHANGED, "expiration": "date", "expires_on": "2027-01-31"},
        "PATCH",
        "",
        {"expires_at": "2027-01-31T23:59:59Z"},
    ),
    Operation(
        "never expire",
        "/edit",
        {**UNCHANGED, "expiration": "never"},
        "PATCH",
        "",
        {"expires_at": None},
        first={"expires_in": "1d"},
    ),
    Operation("revoke", "/revoke", {}, "PATCH", "", {"status": "revoked"}),
    Operation(
        "revoke in the edit form",
        "/edit",
        {**UNCHANGED, "expiration": "keep", "status": "revoked"},
        "PATCH",
        "",
        {"status": "revoked"},
    ),
    Operation(
        "restore", "/restore", {}, "PATCH", "", {"status": "active"}, first={"status": "revoked"}
    ),
    Operation(
        "rotate at once",
        "/rotate",
        {"confirm": "CI", "grace_period": ""},
        "POST",
        "/rotate",
        None,
    ),
    Operation(
        "rotate with a grace period",
        "/rotate",
        {"confirm": "CI", "grace_period": "24h"},
        "POST",
        "/rotate",
        {"grace_period": "24h"},
    ),
    Operation(
        "end grace",
        "/grace/end",
        {},
        "POST",
        "/grace",
        {"grace_period": None},
        grace="24h",
    ),
    Operation(
        "extend grace",
        "/grace/extend",
        {"grace_period": "7d"},
        "POST",
        "/grace",
        {"grace_period": "7d"},
        grace="24h",
    ),
    Operation("delete", "/delete", {"confirm": "CI"}, "DELETE", "", None),
]


class Doors:
    """The same person in a browser and with an access token."""

    def __init__(self, app: Flask, owner: Actor) -> None:
        self.browser = sign_in(app, owner)
        self.script = app.test_client()
        answer = self.script.post(
            "/api/v1/auth/token", json={"email": owner.name, "password": PASSWORD}
        )
        self.headers = bearer(answer.json["access_token"])

    def through_browser(self, path: str, fields: dict[str, str]) -> None:
        answer = self.browser.post(f"/projects/shop/keys{path}", data=fields)
        assert answer.status_code in (200, 303), answer.text

    def through_json(self, method: str, path: str, body: Any) -> None:
        answer = self.script.open(
            f"/api/v1/api-keys{path}", method=method, json=body, headers=self.headers
        )
        assert answer.status_code in (200, 201, 204), answer.text


@pytest.fixture
def doors(app: Flask, owner: Actor, clock: Any) -> Doors:
    return Doors(app, owner)


def state(key_id: str) -> dict[str, Any]:
    """The key's row, its secrets and its events, without what differs by nature."""
    row = Key.get_or_none(Key.id == key_id)
    secrets = Secret.select().where(Secret.key == key_id).order_by(Secret.superseded_at)
    events = Event.select().where(Event.target_id == key_id).order_by(Event.id)
    return {
        "key": row and keys.as_dict(row) | {"id": None, "prefix": None},
        "secrets": [_plain(secret) for secret in secrets],
        "events": [_plain(event) for event in events],
    }


def _plain(row: Any) -> dict[str, Any]:
    facts = {name: value for name, value in row.__data__.items() if name not in BY_NATURE}
    facts.pop("id", None)
    if isinstance(facts.get("changes"), dict):
        facts["changes"] = {k: v for k, v in facts["changes"].items() if k != "prefix"}
    return facts


def test_create_is_the_same_through_both_doors(doors: Doors) -> None:
    doors.through_browser(
        "/new",
        {
            "name": " Checkout ",
            "description": "Two\r\nlines",
            "environment": "test",
            "expiration": "3mo",
            "permissions": "tasks:read projects:*",
            "ip_allowlist": "203.0.113.7\r\n10.0.0.0/8",
            "plan": "free",
        },
    )
    doors.through_json(
        "POST",
        "",
        {
            "project": "shop",
            "name": " Checkout ",
            "description": "Two\nlines",
            "environment": "test",
            "expires_in": "3mo",
            "permissions": ["tasks:read", "projects:*"],
            "ip_allowlist": ["203.0.113.7", "10.0.0.0/8"],
            "plan": "free",
        },
    )
    by_browser, by_json = (state(key.id) for key in Key.select().order_by(Key.created_at))
    assert by_browser == by_json
    assert by_browser["events"][0]["action"] == "key.created"
    assert by_browser["key"]["permissions"] == ["tasks:read", "projects:*"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_operation_is_the_same_through_both_doors(
    doors: Doors, make_key: MakeKey, operator: Actor, operation: Operation
) -> None:
    pair = [make_key()[0].id for _ in range(2)]
    for key_id in pair:
        if operation.first:
            keys.edit(key_id, operation.first, by=operator)
        if operation.grace:
            keys.rotate(key_id, {"grace_period": operation.grace}, by=operator)
    before = state(pair[0])
    doors.through_browser(f"/{pair[0]}{operation.form}", operation.fields)
    doors.through_json(operation.method, f"/{pair[1]}{operation.call}", operation.body)
    assert state(pair[0]) == state(pair[1])
    assert state(pair[0]) != before, "the operation did something"
    assert len(state(pair[0])["events"]) == len(before["events"]) + 1


@pytest.mark.parametrize("form", ["/rotate", "/delete"])
@pytest.mark.parametrize("typed", ["", "ci", "CI ", "C1"])
def test_a_wrong_name_changes_nothing(
    doors: Doors, make_key: MakeKey, form: str, typed: str
) -> None:
    key, _ = make_key()
    before = state(key.id)
    answer = doors.browser.post(f"/projects/shop/keys/{key.id}{form}", data={"confirm": typed})
    assert answer.status_code == 422
    assert "Type the key&#39;s name, CI, exactly" in answer.text
    assert state(key.id) == before


EVERY_FORM = [
    "new", "{id}/edit", "{id}/rotate", "{id}/revoke", "{id}/restore", "{id}/delete",
    "{id}/grace/end", "{id}/grace/extend",
]  # fmt: skip


@pytest.mark.parametrize("form", EVERY_FORM)
def test_no_form_works_without_a_csrf_token(
    app: Flask, owner: Actor, make_key: MakeKey, form: str
) -> None:
    browser: FlaskClient = sign_in(app, owner)
    key, _ = make_key()
    before = state(key.id)
    app.config["WTF_CSRF_ENABLED"] = True
    answer = browser.post(
        f"/projects/shop/keys/{form.format(id=key.id)}", data={"confirm": "CI", "name": "CI"}
    )
    assert answer.status_code == 400
    assert state(key.id) == before


@pytest.mark.parametrize("form", EVERY_FORM)
def test_no_page_about_keys_opens_without_signing_in(
    client: FlaskClient, make_key: MakeKey, form: str
) -> None:
    key, _ = make_key()
    path = f"/projects/shop/keys/{form.format(id=key.id)}"
    for answer in (client.get(path), client.post(path, data={"confirm": "CI"})):
        assert answer.status_code == 303
        assert answer.location.startswith("/login")
    assert Key.get_by_id(key.id).revoked_at is None
