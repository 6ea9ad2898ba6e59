"""Every operation leaves its event: who, from where, in which request, and never a secret. Where it
cannot be stored, nothing happens."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import (
    db,
    first_owner,
    keys,
    links,
    passkeys,
    people,
    projects,
    secret,
    webhooks,
)
from console.actor import Actor, command_line
from console.models import (
    TABLES,
    Attempt,
    Delivery,
    Drained,
    Entry,
    Event,
    Key,
    LimitCount,
    Link,
    Passkey,
    Person,
    RecoveryCode,
    Secret,
    Session,
    Throttle,
    Usage,
    Webhook,
)
from tests.conftest import (
    PASSWORD,
    V1,
    add_alert,
    add_person,
    add_second_factor,
    bearer,
    code_of,
    sign_in,
)
from tests.test_passkeys import ORIGIN, Authenticator, text

SHOP = "/projects/shop"
NEW_PASSWORD = "another horse battery"
OUTSIDE = {"REMOTE_ADDR": "203.0.113.7"}
# What is counted, and what is bounded, whatever becomes of the operation itself.
NOT_CHANGES = (Entry, Usage, LimitCount, Attempt, Throttle, Drained)
LOOKS_SECRET = re.compile(
    r"\b(?:sk|ot)_(?:live|test)_[0-9A-Za-z]{36}\b|whsec_[\w+/=]+|(?<=token=)[\w-]{20,}"
    r"|(?<=/calendar/)[\w-]{20,}"
    r'|(?<="access_token":")[\w.-]+|\b(?:[a-z2-7]{4}-){5}[a-z2-7]{4}\b'
)


class World:
    """An installation with one of everything, and the ways into it."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        by = command_line()
        for slug, prefix in (("shop", "sk"), ("other", "ot")):
            projects.create({"slug": slug, "prefix": prefix, "key_limit": 500}, by=by)
        self.ada = add_person("ada@example.com", is_owner=True)
        self.grace = add_person("grace@example.com", shop="admin")
        self.bob = add_person("bob@example.com", shop="member")
        self.eve = add_person("eve@example.com")
        self.nina = self._nina()
        self.seed, self.codes = add_second_factor(self.bob)
        self.device = self._device(self.ada)
        self.secrets = {PASSWORD, NEW_PASSWORD, self.seed, *self.codes}
        self.hook, hook_secret = webhooks.create(
            {"project": "shop", "url": "https://hooks.example.com/T0/secret-path", "events": ["*"]},
            by=by,
        )
        self.secrets |= {hook_secret, "secret-path"}
        self.key = self.make("CI", self.grace)
        self.graced = self.make("In grace", self.grace)
        self.rotate(self.graced)
        self.revoked = self.make("Revoked", self.grace)
        keys.revoke(self.revoked.id, by=by)
        self.robot, self.robot_secret = keys.create(
            {"name": "Robot", "project": "shop", "permissions": ["keys:verify"]}, by=by
        )
        self.secrets.add(self.robot_secret)
        self.alert = add_alert(Key.get_by_id(self.key.id)).id
        self.browser = sign_in(app, self.ada)
        self.visitor = app.test_client()
        self.token = self._token()
        self.delivery = Delivery.select().where(Delivery.webhook == self.hook).first()

    def _nina(self) -> Person:
        """Somebody who is invited."""
        made, sent = people.create({"email": "nina@example.com"}, by=self.ada)
        assert sent is not None and sent.url is not None
        self.invitation = sent.url.partition("token=")[2]
        return made

    def _device(self, by: Actor) -> Authenticator:
        device = Authenticator()
        options = passkeys.begin_adding({"name": "Laptop"}, by=by)
        made = passkeys.add(options["challenge"], device.make(options), {"name": "Laptop"}, by=by)
        self.passkey = made.id
        return device

    def _token(self) -> str:
        answer = self.visitor.post(
            f"{V1}/auth/token", json={"email": "ada@example.com", "password": PASSWORD}
        )
        return str(answer.get_json()["access_token"])

    def make(self, name: str, by: Actor) -> Key:
        key, made = keys.create({"name": name, "project": "shop", "expires_in": "90d"}, by=by)
        self.secrets.add(made)
        return key

    def rotate(self, key: Key) -> None:
        _, made, _ = keys.rotate(key.id, {"grace_period": "24h"}, by=self.grace)
        self.secrets.add(made)

    def api(
        self, method: str, path: str, body: Any = None, *, as_key: bool = False
    ) -> TestResponse:
        more = {} if body is None else {"json": body}
        headers = bearer(self.robot_secret if as_key else self.token)
        return self.visitor.open(
            V1 + path, method=method, headers=headers, environ_base=OUTSIDE, **more
        )

    def form(self, path: str, **fields: Any) -> TestResponse:
        return self.browser.post(path, data=fields, environ_base=OUTSIDE)

    def come(self, path: str, **fields: Any) -> TestResponse:
        """As somebody who is not signed in."""
        return self.visitor.post(path, data=fields, environ_base=OUTSIDE)

    def script(self, path: str, browser: FlaskClient | None = None, **body: Any) -> TestResponse:
        return (browser or self.browser).post(path, json=body, environ_base=OUTSIDE)

    def all_secrets(self) -> set[str]:
        """Every secret that is known, and what the database holds of those that are not."""
        held = {str(row.id) for row in Session.select()}
        held |= {row.digest for model in (Secret, Link, RecoveryCode) for row in model.select()}
        held |= {row.password_hash for row in Person.select() if row.password_hash}
        sealed = [bytes(row.secret) for row in Webhook.select()]
        sealed += [bytes(row.totp_secret) for row in Person.select() if row.totp_secret]
        sealed += [bytes(row.public_key) for row in Passkey.select()]
        held |= {one.hex() for one in sealed} | {text(one) for one in sealed}
        return held | self.secrets | {secret.digest(one) for one in self.secrets}


@dataclass(frozen=True)
class Deed:
    """An operation: the endpoint of its door, how it is done, and the events that tell of it."""

    endpoint: str
    do: Callable[[World], TestResponse]
    events: tuple[str, ...]

    def __str__(self) -> str:
        return self.endpoint


DEEDS: list[Deed] = []


Do = Callable[[World], TestResponse]


def deed(endpoint: str, *events: str) -> Callable[[Do], Do]:
    def register(do: Do) -> Do:
        DEEDS.append(Deed(endpoint, do, events))
        return do

    return register


# --- keys -------------------------------------------------------------------------------------

deed("api.create_key", "key.created")(
    lambda w: w.api("POST", "/api-keys", {"name": "New", "project": "shop"})
)
deed("keys.create_key", "key.created")(
    lambda w: w.form(f"{SHOP}/keys/new", name="New", once="o" * 24)
)
deed("api.edit_key", "key.edited")(
    lambda w: w.api("PATCH", f"/api-keys/{w.key.id}", {"name": "New", "owner": "ada@example.com"})
)
deed("keys.edit_key", "key.edited")(
    lambda w: w.form(f"{SHOP}/keys/{w.key.id}/edit", name="New", expiration="keep")
)
deed("api.rotate_key", "key.rotated")(lambda w: w.api("POST", f"/api-keys/{w.key.id}/rotate", {}))
deed("keys.rotate_key", "key.rotated")(
    lambda w: w.form(f"{SHOP}/keys/{w.key.id}/rotate", confirm="CI", grace_period="24h")
)
deed("api.set_grace", "key.grace_changed")(
    lambda w: w.api("POST", f"/api-keys/{w.graced.id}/grace", {"grace_period": "7d"})
)
deed("keys.extend_grace", "key.grace_changed")(
    lambda w: w.form(f"{SHOP}/keys/{w.graced.id}/grace/extend", grace_period="7d")
)
deed("keys.end_grace", "key.grace_changed")(
    lambda w: w.form(f"{SHOP}/keys/{w.graced.id}/grace/end")
)
deed("keys.revoke_key", "key.revoked")(lambda w: w.form(f"{SHOP}/keys/{w.key.id}/revoke"))
deed("keys.restore_key", "key.restored")(lambda w: w.form(f"{SHOP}/keys/{w.revoked.id}/restore"))
deed("api.delete_key", "key.deleted")(lambda w: w.api("DELETE", f"/api-keys/{w.key.id}"))
deed("keys.delete_key", "key.deleted")(
    lambda w: w.form(f"{SHOP}/keys/{w.key.id}/delete", confirm="CI")
)
deed("keys.revoke_many", "key.revoked", "key.revoked")(
    lambda w: w.form(f"{SHOP}/keys/revoke", key=[w.key.id, w.graced.id], confirmed="1")
)
deed("keys.extend_many", "key.edited")(
    lambda w: w.form(f"{SHOP}/keys/extend", key=w.key.id, expiration="1y", confirmed="1")
)
deed("api.import_keys", "key.imported")(
    lambda w: w.api("POST", "/api-keys/import", {
        "project": "shop", "keys": [{"name": "Old", "sha256": "ab" * 32, "prefix": "old_key_1234"}],
    })
)  # fmt: skip
deed("api.revoke_self", "key.revoked")(lambda w: w.api("POST", "/revoke-self", as_key=True))
deed("offboarding.hand_over_key", "key.edited")(
    lambda w: w.form(
        f"/people/{w.grace.id}/offboarding/keys/{w.key.id}/hand-over", owner="ada@example.com"
    )
)
deed("offboarding.hand_over_keys", "key.edited", "key.edited", "key.edited")(
    lambda w: w.form(f"/people/{w.grace.id}/offboarding/hand-over", owner="ada@example.com")
)
deed("offboarding.revoke_keys", "key.revoked", "key.revoked")(
    lambda w: w.form(f"/people/{w.grace.id}/offboarding/revoke")
)

# --- projects, members, webhooks --------------------------------------------------------------

deed("api.create_project", "project.created")(
    lambda w: w.api("POST", "/projects", {"slug": "newest"})
)
deed("projects.create_project", "project.created")(
    lambda w: w.form("/projects/new", name="New", slug="newest", prefix="nw", key_format="base62")
)
deed("api.edit_project", "project.edited")(
    lambda w: w.api("PATCH", "/projects/shop", {"name": "New"})
)
deed("settings.edit_project", "project.edited")(
    lambda w: w.form(f"{SHOP}/settings/general", name="New")
)
deed("projects.archive_project", "project.archived")(
    lambda w: w.form(f"{SHOP}/archive", confirm="shop")
)


@deed("projects.restore_project", "project.archived", "project.restored")
def _restore(w: World) -> TestResponse:
    w.form(f"{SHOP}/archive", confirm="shop")
    return w.form(f"{SHOP}/restore")


deed("api.delete_project", "project.deleted")(lambda w: w.api("DELETE", "/projects/other"))
deed("projects.delete_project", "project.deleted")(
    lambda w: w.form("/projects/other/delete", confirm="other")
)
deed("api.make_calendar_link", "calendar.link_made")(
    lambda w: w.api("POST", "/projects/shop/calendar")
)
deed("settings.make_calendar_link", "calendar.link_made")(
    lambda w: w.form(f"{SHOP}/settings/calendar/link")
)


@deed("api.remove_calendar_link", "calendar.link_made", "calendar.link_removed")
def _remove_link_by_script(w: World) -> TestResponse:
    w.api("POST", "/projects/shop/calendar")
    return w.api("DELETE", "/projects/shop/calendar")


@deed("settings.remove_calendar_link", "calendar.link_made", "calendar.link_removed")
def _remove_link(w: World) -> TestResponse:
    w.form(f"{SHOP}/settings/calendar/link")
    return w.form(f"{SHOP}/settings/calendar/remove")


for state, told in (("acknowledged", "acknowledged"), ("muted", "muted")):
    deed("api.change_alert", f"alert.{told}")(
        lambda w, state=state: w.api("PATCH", f"/alerts/{w.alert}", {"state": state})
    )
deed("alerts.change_alert", "alert.muted")(
    lambda w: w.form(f"/alerts/{w.alert}/state", state="muted")
)


@deed("alerts.change_alert", "alert.muted", "alert.reopened")
def _open_alert_again(w: World) -> TestResponse:
    w.form(f"/alerts/{w.alert}/state", state="muted")
    return w.form(f"/alerts/{w.alert}/state", state="open")


deed("alerts.acknowledge_alerts", "alert.acknowledged")(
    lambda w: w.form("/alerts/acknowledge", alert=w.alert)
)
deed("api.add_member", "member.added")(
    lambda w: w.api("POST", "/projects/shop/members", {"email": w.eve.name, "role": "viewer"})
)
deed("members.add_member", "person.created", "member.added", "person.invited")(
    lambda w: w.form(f"{SHOP}/people/new", email="fay@example.com", role="viewer")
)
deed("api.change_member_role", "member.role_changed")(
    lambda w: w.api("PATCH", f"/projects/shop/members/{w.bob.id}", {"role": "viewer"})
)
deed("members.change_role", "member.role_changed")(
    lambda w: w.form(f"{SHOP}/people/{w.bob.id}/role", role="viewer")
)
deed("api.remove_member", "member.removed")(
    lambda w: w.api("DELETE", f"/projects/shop/members/{w.bob.id}")
)
deed("members.remove_member", "member.removed")(
    lambda w: w.form(f"{SHOP}/people/{w.bob.id}/remove")
)


@deed("members.invite_member", "member.added", "person.invited", "person.invited")
def _invite_member(w: World) -> TestResponse:
    w.api("POST", "/projects/shop/members", {"email": w.nina.email, "role": "viewer"})
    return w.form(f"{SHOP}/people/{w.nina.id}/invitation")


deed("api.create_webhook", "webhook.created")(
    lambda w: w.api("POST", "/webhooks", {
        "project": "shop", "url": "https://hooks.example.com/T1/secret-path", "events": ["*"],
    })
)  # fmt: skip
deed("api.edit_webhook", "webhook.edited")(
    lambda w: w.api("PATCH", f"/webhooks/{w.hook.id}", {"url": "https://x.example.com/secret-path"})
)
deed("api.delete_webhook", "webhook.deleted")(lambda w: w.api("DELETE", f"/webhooks/{w.hook.id}"))
deed("api.rotate_webhook_secret", "webhook.secret_rotated")(
    lambda w: w.api("POST", f"/webhooks/{w.hook.id}/rotate-secret", {"grace_period": "24h"})
)
HOOKS = f"{SHOP}/webhooks"
deed("webhooks.create_webhook", "webhook.created")(
    lambda w: w.form(f"{HOOKS}/new", url="https://x.example.com/secret-path", told="all")
)
deed("webhooks.edit_webhook", "webhook.edited")(
    lambda w: w.form(f"{HOOKS}/{w.hook.id}/edit", url="https://x.example.com/secret-path")
)
deed("webhooks.disable_webhook", "webhook.edited")(lambda w: w.form(f"{HOOKS}/{w.hook.id}/disable"))


@deed("webhooks.enable_webhook", "webhook.edited", "webhook.edited")
def _enable_webhook(w: World) -> TestResponse:
    w.form(f"{HOOKS}/{w.hook.id}/disable")
    return w.form(f"{HOOKS}/{w.hook.id}/enable")


deed("webhooks.delete_webhook", "webhook.deleted")(lambda w: w.form(f"{HOOKS}/{w.hook.id}/delete"))
deed("webhooks.rotate_webhook_secret", "webhook.secret_rotated")(
    lambda w: w.form(f"{HOOKS}/{w.hook.id}/rotate-secret", grace_period="24h")
)

# --- people -----------------------------------------------------------------------------------

deed("api.create_person", "person.created", "member.added")(
    lambda w: w.api("POST", "/people", {
        "email": "fay@example.com", "password": NEW_PASSWORD, "roles": {"shop": "viewer"},
    })
)  # fmt: skip
deed("people.create_person", "person.created", "person.invited")(
    lambda w: w.form("/people/new", email="fay@example.com")
)
deed("api.edit_person", "person.edited")(
    lambda w: w.api("PATCH", f"/people/{w.bob.id}", {"name": "New", "password": NEW_PASSWORD})
)
deed("people.edit_person", "person.edited")(
    lambda w: w.form(f"/people/{w.bob.id}/edit", name="New", email="bobby@example.com")
)
deed("people.change_roles", "member.role_changed")(
    lambda w: w.form(f"/people/{w.bob.id}/roles", **{"role.shop": "viewer"})
)
deed("people.change_owner", "person.edited")(
    lambda w: w.form(f"/people/{w.bob.id}/owner", owner="yes")
)
deed("people.disable_person", "person.disabled")(lambda w: w.form(f"/people/{w.bob.id}/disable"))


@deed("people.enable_person", "person.disabled", "person.enabled")
def _enable(w: World) -> TestResponse:
    w.form(f"/people/{w.bob.id}/disable")
    return w.form(f"/people/{w.bob.id}/enable")


deed("api.delete_person", "member.removed", "person.deleted")(
    lambda w: w.api("DELETE", f"/people/{w.bob.id}")
)
deed("people.delete_person", "person.deleted")(lambda w: w.form(f"/people/{w.eve.id}/delete"))
deed("api.invite_person", "person.invited")(
    lambda w: w.api("POST", f"/people/{w.nina.id}/invitation")
)
deed("people.invite_person", "person.invited")(lambda w: w.form(f"/people/{w.nina.id}/invitation"))
deed("api.reset_password", "person.reset_link_made")(
    lambda w: w.api("POST", f"/people/{w.bob.id}/password-reset")
)
deed("people.reset_password", "person.reset_link_made")(
    lambda w: w.form(f"/people/{w.bob.id}/password-reset")
)
deed("people.remove_second_factor", "person.second_factor_removed")(
    lambda w: w.form(f"/people/{w.bob.id}/second-factor")
)

# --- coming in, and one's own account ---------------------------------------------------------

deed("api.create_access_token", "person.signed_in")(
    lambda w: w.visitor.post(
        f"{V1}/auth/token", json={"email": w.eve.name, "password": PASSWORD}, environ_base=OUTSIDE
    )
)
deed("access.log_in", "person.signed_in")(
    lambda w: w.come("/login", email=w.eve.name, password=PASSWORD)
)


@deed("access.give_code", "person.signed_in")
def _give_code(w: World) -> TestResponse:
    w.come("/login", email=w.bob.name, password=PASSWORD)
    return w.come("/login/code", code=code_of(w.seed, 1))


@deed("access.give_code", "person.recovery_code_used", "person.signed_in")
def _give_recovery_code(w: World) -> TestResponse:
    w.come("/login", email=w.bob.name, password=PASSWORD)
    return w.come("/login/code", code=w.codes[0])


deed("access.log_out", "person.signed_out")(lambda w: w.form("/logout"))
deed("access.join", "person.joined", "person.signed_in")(
    lambda w: w.come("/invitation", token=w.invitation, password=NEW_PASSWORD)
)


@deed("links.reset_password", "person.reset_link_made", "person.password_reset")
def _reset(w: World) -> TestResponse:
    url = w.api("POST", f"/people/{w.eve.id}/password-reset").get_json().get("reset_url") or ""
    token = url.partition("token=")[2] or _made_anew(w)
    w.secrets.add(token)
    return w.come("/reset", token=token, password=NEW_PASSWORD)


def _made_anew(w: World) -> str:
    """A link to a new password where none could be asked for."""
    with db.write():
        return links.issue(links.RESET, w.eve.id)[0]


@deed("links.log_in_by_link", "person.signed_in")
def _log_in_by_link(w: World) -> TestResponse:
    with db.write():
        token, _ = links.issue(links.LOGIN, w.eve.id)
    w.secrets.add(token)
    return w.come("/login-link", token=token)


@deed("access.sign_in_with_passkey", "person.signed_in")
def _passkey_sign_in(w: World) -> TestResponse:
    options = w.script("/login/passkey/options", w.visitor).get_json()
    return w.script("/login/passkey", w.visitor, credential=w.device.sign(options))


deed("account.rename_account", "person.edited")(lambda w: w.form("/account/name", name="New"))
deed("account.change_password", "person.edited")(
    lambda w: w.form("/account/password", old_password=PASSWORD, password=NEW_PASSWORD)
)


@deed("account.add_second_factor", "person.second_factor_added")
def _second_factor(w: World) -> TestResponse:
    page = w.browser.get("/account/second-factor").text
    sealed = re.search(r'name="seed" value="([^"]+)"', page)
    shown = re.search(r"(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}", page)
    assert sealed and shown
    seed = shown[0].replace(" ", "")
    w.secrets |= {seed, sealed[1]}
    return w.form("/account/second-factor", seed=sealed[1], code=code_of(seed))


@deed("account.remove_second_factor", "person.second_factor_added", "person.second_factor_removed")
def _remove_second_factor(w: World) -> TestResponse:
    _second_factor(w)
    return w.form("/account/second-factor/remove")


@deed("account.make_recovery_codes", "person.second_factor_added", "person.recovery_codes_made")
def _recovery_codes(w: World) -> TestResponse:
    _second_factor(w)
    return w.form("/account/recovery-codes")


@deed("account.end_session", "person.session_ended")
def _end_session(w: World) -> TestResponse:
    handle = Session.select().where(Session.person == w.ada.id, Session.kind == "token").get()
    return w.form(f"/account/sessions/{handle.handle}/end")


deed("account.end_other_sessions", "person.session_ended")(
    lambda w: w.form("/account/sessions/end-others")
)


@deed("passkeys.finish_adding", "person.passkey_added")
def _add_passkey(w: World) -> TestResponse:
    device = Authenticator(id=b"another-credential-of-many-bytes")
    options = w.script("/account/passkeys/options", name="Phone").get_json()
    return w.script("/account/passkeys", name="Phone", credential=device.make(options))


deed("passkeys.rename_passkey", "person.passkey_renamed")(
    lambda w: w.form(f"/account/passkeys/{w.passkey}/rename", name="New")
)
deed("passkeys.remove_passkey", "person.passkey_removed")(
    lambda w: w.form(f"/account/passkeys/{w.passkey}/remove")
)

# What changes nothing that anybody would want to read of later.
NO_EVENT = {
    "api.report_outcomes", "api.replay_delivery", "api.test_webhook",
    "webhooks.replay_delivery", "webhooks.test_webhook",
    "confirm.confirm_presence", "confirm.confirm_with_passkey", "confirm.begin_confirming",
    "access.begin_sign_in", "passkeys.begin_adding",
    "integrate.test_key", "keys.show_actions", "keys.export_many", "keys.preview_key",
    "settings.preview_secret", "theme.choose_theme",
}  # fmt: skip
# Tried below on an installation of their own.
APART = {"access.set_up", "links.forgot"}


# Whose answers hold a secret that was made just now.
SHOW_A_SECRET = {
    "api.create_key", "keys.create_key", "api.rotate_key", "keys.rotate_key",
    "webhooks.create_webhook", "webhooks.rotate_webhook_secret",
    "api.create_webhook", "api.rotate_webhook_secret", "api.create_access_token",
    "api.make_calendar_link", "settings.make_calendar_link",
    "members.add_member", "members.invite_member", "people.create_person", "api.invite_person",
    "people.invite_person", "api.reset_password", "people.reset_password",
    "account.add_second_factor", "account.make_recovery_codes",
}  # fmt: skip


@pytest.fixture
def world(app: Flask) -> Iterator[World]:
    before = links.base_url()
    links.use_base_url(ORIGIN)
    yield World(app)
    links.use_base_url(before)


def test_no_operation_is_left_out(app: Flask) -> None:
    routes = {
        rule.endpoint for rule in app.url_map.iter_rules()
        if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    } - {"gate.verify"}  # fmt: skip
    assert {one.endpoint for one in DEEDS} | NO_EVENT | APART == routes


def told() -> str:
    """All that the log and the messages to webhooks say."""
    rows = [*Event.select().dicts(), *Delivery.select().dicts()]
    for row in rows:
        row.pop("hash", None)  # of the event itself
    return json.dumps(rows)


@pytest.mark.parametrize("one", DEEDS, ids=str)
def test_an_operation_leaves_its_events_and_no_secret(world: World, one: Deed) -> None:
    first = Event.select(Event.id).order_by(Event.id.desc()).get().id
    answer = one.do(world)
    assert answer.status_code < 400, re.findall(r'class="error[^<]*', answer.text)
    events = list(Event.select().where(Event.id > first).order_by(Event.id))
    actions = [event.action for event in events]
    assert sorted(actions) == sorted(one.events)
    for event in events:
        assert event.ip == OUTSIDE["REMOTE_ADDR"]
        assert event.actor_id and event.actor_name and event.request_id
        assert event.target_id and event.target_name
    assert events[-1].request_id == answer.headers["X-Request-Id"]
    shown = {*LOOKS_SECRET.findall(answer.text)}
    assert bool(shown) == (one.endpoint in SHOW_A_SECRET)
    world.secrets |= shown
    log = told()
    assert [one for one in world.all_secrets() if one in log] == []


# --- what cannot be recorded does not happen --------------------------------------------------


@contextmanager
def full_log() -> Iterator[None]:
    """Within it the database takes no event."""
    for statement in REFUSE["sqlite" if db.is_sqlite() else "postgresql"]:
        db.handle.execute_sql(statement)
    yield
    table = "" if db.is_sqlite() else " on event"
    db.handle.execute_sql(f"drop trigger no_events{table}")


REFUSED = (409, 500, 503)  # 409: SQLite calls what a trigger refuses a broken constraint
REFUSE = {
    "sqlite": [
        "create trigger no_events before insert on event"
        " begin select raise(abort, 'the log is full'); end",
    ],
    "postgresql": [
        "create or replace function no_events() returns trigger language plpgsql"
        " as $$ begin raise exception 'the log is full'; end $$",
        "create trigger no_events before insert on event for each row execute function no_events()",
    ],
}


def everything() -> dict[str, list[Any]]:
    """All rows of all tables that an operation might change."""
    tables = [table for table in TABLES if table not in NOT_CHANGES]
    return {one.__name__: sorted(map(repr, one.select().tuples())) for one in tables}


def test_what_cannot_be_recorded_does_not_happen(world: World) -> None:
    """The last event of each operation is the one of what it is about."""
    for one in [one for one in DEEDS if one.do.__name__ == "<lambda>"]:
        before = everything()
        with full_log():
            answer = one.do(world)
        assert answer.status_code in REFUSED, one
        assert everything() == before, one


def test_nobody_signs_in_unrecorded(world: World) -> None:
    codes = world.come("/login", email=world.bob.name, password=PASSWORD)
    assert codes.location == "/login/code"
    options = world.script("/login/passkey/options", world.visitor).get_json()
    signed = world.device.sign(options)
    before = everything()
    with full_log():
        for answer in (
            world.come("/login/code", code=code_of(world.seed, 1)),
            world.come("/login/code", code=world.codes[0]),
            world.script("/login/passkey", world.visitor, credential=signed),
        ):
            assert answer.status_code in REFUSED
    after = everything()
    assert {name for name in before if before[name] != after[name]} <= {"Link"}  # the challenge
    assert world.visitor.get("/account").status_code == 303


def test_the_first_owner_is_recorded(app: Flask) -> None:
    token = first_owner.issue_setup_link()
    assert token is not None
    fields = {"token": token, "email": "ada@example.com", "password": PASSWORD, "project": "Shop"}
    browser = app.test_client()
    before = everything()
    with full_log():
        assert browser.post("/setup", data=fields).status_code in REFUSED
    assert everything() == before
    answer = browser.post("/setup", data=fields, environ_base=OUTSIDE)
    assert answer.status_code == 303
    events = list(Event.select().order_by(Event.id))
    assert [event.action for event in events] == [
        "person.created", "project.created", "person.signed_in"
    ]  # fmt: skip
    assert {event.ip for event in events} == {OUTSIDE["REMOTE_ADDR"]}
    assert all(event.request_id for event in events)
    log = told()
    assert not any(one in log for one in (token, secret.digest(token), PASSWORD))
