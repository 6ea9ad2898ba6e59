"""Webhooks: who may have them, what they are told and how it is signed, and that no message is
lost, however a receiver behaves or a process ends."""

import base64
import json
import threading
import time as wall
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, tzinfo
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import peewee
import pytest
import standardwebhooks.webhooks
from flask import Flask
from flask.testing import FlaskClient

from config import Config, Networks
from console import activity, db, keys, outbound, outbox, webhooks, worker
from console import clock as time
from console.actor import Actor
from console.errors import Conflict, Forbidden, Unknown
from console.models import DELIVERED, FAILED, PENDING, Delivery, Event, Project, Webhook
from console.outbound import Outcome
from console.worker import Worker
from tests.conftest import (
    Call,
    Clock,
    MakeKey,
    assert_problem,
    at_once,
    bearer,
)
from tests.receiver import (
    WAIT_SECONDS,
    Message,
    Receiver,
    hang,
    redirect_to,
    reset,
    waits_for,
)
from tests.server import RunningServer
from tests.test_promises import Client
from tests.test_promises import make_key as make_key_of

URL = "https://hooks.example.com/latchkey?token=hidden"
OBJECT = {
    "id", "project", "url", "description", "events", "enabled", "created_at", "updated_at",
    "disabled_reason",
}  # fmt: skip
DELIVERY = {
    "id", "webhook_id", "message_id", "event", "status", "attempts", "created_at",
    "last_attempt_at", "next_attempt_at", "response_status", "error", "duration_ms",
}  # fmt: skip
OK = Outcome(200, None)
FAILURE = Outcome(500, "answered 500")


@pytest.fixture
def config(config: Config) -> Config:
    return replace(config, webhook_networks=Networks((ip_network("127.0.0.0/8"),)))


@pytest.fixture(autouse=True)
def _receivers_share_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What receivers verify with has the time that the tests set."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.now() / 1000, tz)

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Moved)


MakeWebhook = Callable[..., tuple[Webhook, str]]


@pytest.fixture
def make_webhook(project: Project, operator: Actor) -> MakeWebhook:
    """Makes a webhook of the project, and its secret: `make_webhook(url, events=[…])`."""

    def make(url: str = URL, **fields: Any) -> tuple[Webhook, str]:
        return webhooks.create({"url": url, "project": project.slug, **fields}, by=operator)

    return make


@pytest.fixture
def call(client: FlaskClient, make_key: MakeKey, clock: Clock) -> Call:
    """`call("POST", "/webhooks", {…})` as a key that manages its project."""
    _, secret = make_key(name="Manager", permissions=["projects:manage"])

    def make(method: str, path: str, body: Any = None, *, secret: str = secret) -> Any:
        more = {} if body is None else {"json": body}
        return client.open(f"/api/v1{path}", method=method, headers=bearer(secret), **more)

    return make


def deliver(by: Worker | None = None) -> None:
    """Sends all that is due, and what became due by that."""
    by = by or Worker(timeout_seconds=WAIT_SECONDS)
    while by.turn():
        assert webhooks.news.wait(WAIT_SECONDS)
        webhooks.news.clear()


def verified(message: Message, secret: str) -> Any:
    """What the message says. Raises WebhookVerificationError."""
    return standardwebhooks.webhooks.Webhook(secret).verify(message.body, message.headers)


def is_signed_with(message: Message, secret: str) -> bool:
    try:
        return bool(verified(message, secret))
    except standardwebhooks.webhooks.WebhookVerificationError:
        return False


def told(receiver: Receiver) -> list[str]:
    return [json.loads(message.body)["type"] for message in receiver.messages]


def logged(action: str) -> Event:
    found = Event.select().where(Event.action == action).order_by(Event.id.desc()).first()
    assert found is not None
    return found


# --- the calls --------------------------------------------------------------------------------


def test_create_answers_the_webhook_and_its_secret(call: Call, clock: Clock) -> None:
    answer = call("POST", "/webhooks", {"url": URL, "events": ["key.*", "key.*", "project.edited"]})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json
    assert made.keys() == OBJECT | {"secret"}
    assert made["id"].startswith("whk_")
    assert {name: made[name] for name in OBJECT - {"id"}} == {
        "project": "shop",
        "url": URL,
        "description": "",
        "events": ["key.*", "project.edited"],
        "enabled": True,
        "created_at": "2026-11-20T10:30:00Z",
        "updated_at": "2026-11-20T10:30:00Z",
        "disabled_reason": None,
    }
    kind, _, key = made["secret"].partition("_")
    assert kind == "whsec" and len(base64.b64decode(key, validate=True)) == 32
    read = call("GET", answer.headers["Location"].removeprefix("/api/v1"))
    assert (read.status_code, read.json.keys()) == (200, OBJECT)


def test_a_webhook_by_its_address_alone_is_told_everything(call: Call) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    assert (made["events"], made["enabled"]) == (["*"], True)


def test_list_pages_newest_first_and_never_with_a_secret(call: Call, clock: Clock) -> None:
    made = []
    for _ in range(3):
        made.insert(0, call("POST", "/webhooks", {"url": URL}).json["id"])
        clock.move("1m")
    first = call("GET", "/webhooks?project=shop&limit=2").json
    rest = call("GET", f"/webhooks?limit=2&cursor={first['next_cursor']}").json
    found = first["data"] + rest["data"]
    assert [one["id"] for one in found] == made
    assert all(one.keys() == OBJECT for one in found)
    assert rest["next_cursor"] is None


def test_edit_changes_only_what_is_sent(call: Call, clock: Clock) -> None:
    made = call("POST", "/webhooks", {"url": URL, "description": "Chat"}).json
    del made["secret"]
    clock.move("1m")
    edited = call("PATCH", f"/webhooks/{made['id']}", {"events": ["key.deleted"]})
    assert edited.status_code == 200
    assert edited.json == {
        **made, "events": ["key.deleted"], "updated_at": "2026-11-20T10:31:00Z",
    }  # fmt: skip
    assert call("GET", f"/webhooks/{made['id']}").json == edited.json


def test_edit_with_what_is_so_already_changes_nothing(call: Call, clock: Clock) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    events = Event.select().count()
    clock.move("1m")
    for body in ({}, {"url": URL, "events": ["*"], "enabled": True, "description": ""}):
        edited = call("PATCH", f"/webhooks/{made['id']}", body).json
        assert edited["updated_at"] == made["updated_at"]
    assert Event.select().count() == events


def test_delete_answers_nothing_and_takes_the_deliveries_along(
    call: Call, make_webhook: MakeWebhook
) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    other, _ = make_webhook()
    call("POST", f"/webhooks/{made['id']}/test")
    answer = call("DELETE", f"/webhooks/{made['id']}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert_problem(call("GET", f"/webhooks/{made['id']}"), 404, "NOT_FOUND")
    assert {one.webhook_id for one in Delivery.select()} == {other.id}


def test_a_project_has_at_most_ten(call: Call, make_webhook: MakeWebhook) -> None:
    for _ in range(webhooks.WEBHOOKS_MAX):
        make_webhook()
    assert_problem(call("POST", "/webhooks", {"url": URL}), 409, "CONFLICT")
    call("DELETE", f"/webhooks/{Webhook.select().first().id}")
    assert call("POST", "/webhooks", {"url": URL}).status_code == 201


def test_of_those_made_at_once_no_more_than_ten_are_there(make_webhook: MakeWebhook) -> None:
    made = at_once(15, lambda _: make_webhook())
    assert sum(isinstance(one, Conflict) for one in made) == 5
    assert Webhook.select().count() == 10


@pytest.mark.parametrize(("field", "value"), [
    ("url", None), ("url", 7), ("url", ""), ("url", "hooks.example.com"),
    ("url", "ftp://hooks.example.com"), ("url", "https://ada:secret@hooks.example.com"),
    ("url", "https://hooks.example.com/" + "a" * 2_000), ("url", "http://10.0.0.1/"),
    ("url", "http://169.254.169.254/latest"), ("url", "http://[::1]/"), ("url", "http://0x0a000001"),
    ("events", None), ("events", "key.created"), ("events", []), ("events", ["key.renamed"]),
    ("events", ["ke*"]), ("events", ["webhook.test"]), ("events", [""]), ("events", [None]),
    ("description", None), ("description", "a" * 1_001), ("description", "a\x07"),
    ("enabled", None), ("enabled", "true"), ("enabled", 1), ("id", "whk_1"), ("secret", "whsec_"),
])  # fmt: skip
def test_a_field_that_makes_no_sense_is_named(call: Call, field: str, value: Any) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    for method, path in (("POST", "/webhooks"), ("PATCH", f"/webhooks/{made['id']}")):
        answer = call(method, path, {"url": URL, field: value})
        problem = assert_problem(answer, 400, "INVALID", "errors")
        assert [error["field"].partition(".")[0] for error in problem["errors"]] == [field]
    assert Webhook.select().count() == 1


def test_a_webhook_stays_in_its_project(call: Call) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    assert_problem(
        call("PATCH", f"/webhooks/{made['id']}", {"project": "shop"}), 400, "INVALID", "errors"
    )


@pytest.mark.parametrize("query", ["status=lost", "limit=0", "cursor=x", "event=key.created"])
def test_a_query_of_deliveries_that_makes_no_sense_is_refused(call: Call, query: str) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    answer = call("GET", f"/webhooks/{made['id']}/deliveries?{query}")
    assert_problem(answer, 400, "INVALID", "errors")


# --- who may ----------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[str, str, Actor], Any]] = {
    "create": lambda hook, sent, by: webhooks.create({"url": URL, "project": "shop"}, by=by),
    "page": lambda hook, sent, by: webhooks.page(by=by, project="shop"),
    "read": lambda hook, sent, by: webhooks.webhook_to_manage(hook, by=by),
    "deliveries": lambda hook, sent, by: webhooks.deliveries(hook, by=by),
    "edit": lambda hook, sent, by: webhooks.edit(hook, {"description": by.name}, by=by),
    "rotate": lambda hook, sent, by: webhooks.rotate_secret(hook, {}, by=by),
    "replay": lambda hook, sent, by: webhooks.replay(hook, sent, by=by),
    "test": lambda hook, sent, by: webhooks.test(hook, by=by),
    "delete": lambda hook, sent, by: webhooks.delete(hook, by=by),
}


def holder(project: Project, *permissions: str) -> Actor:
    return Actor(
        kind="key",
        id="key_1",
        name="CI",
        project_id=project.id,
        permissions=frozenset(permissions),
    )


@pytest.fixture
def people_by_name(
    owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor,
    project: Project, other_project: Project,
) -> dict[str, Actor]:  # fmt: skip
    return {
        "owner": owner,
        "admin": admin,
        "member": member,
        "viewer": viewer,
        "stranger": stranger,
        "key": holder(project, "projects:manage"),
        "mighty key": holder(project, "admin:*"),
        "lesser key": holder(project, "keys:manage", "audit:read"),
        "foreign key": holder(other_project, "admin:*"),
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_who_manages_the_project_has_its_webhooks_and_nobody_else(
    make_webhook: MakeWebhook, people_by_name: dict[str, Actor], operation: str
) -> None:
    outcomes = {}
    for name, by in people_by_name.items():
        webhook, _ = make_webhook()
        sent = Delivery.select().where(Delivery.webhook == webhook).first()
        try:
            OPERATIONS[operation](webhook.id, sent.id, by)
            outcomes[name] = "done"
        except (Forbidden, Unknown) as refused:
            outcomes[name] = refused.code
        Webhook.delete().execute()
    assert outcomes == {
        "owner": "done",
        "admin": "done",
        "member": "FORBIDDEN",
        "viewer": "FORBIDDEN",
        "stranger": "NOT_FOUND",
        "key": "done",
        "mighty key": "done",
        "lesser key": "PERMISSION_DENIED",
        "foreign key": "NOT_FOUND",
    }


def test_a_foreign_webhook_is_answered_like_one_that_never_was(
    call: Call, make_webhook: MakeWebhook, other_project: Project, operator: Actor
) -> None:
    webhooks.create({"url": URL, "project": "other"}, by=operator)
    foreign = webhooks.test(Webhook.get().id, by=operator)
    for method, path in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"),
        ("GET", "/deliveries"), ("POST", f"/deliveries/{foreign.id}/replay"),
    ):  # fmt: skip
        body = {"description": "Mine"} if method == "PATCH" else None
        details = []
        for webhook_id in (foreign.webhook_id, "whk_00000000000000000000"):
            answer = call(method, f"/webhooks/{webhook_id}{path}", body)
            details.append(assert_problem(answer, 404, "NOT_FOUND")["detail"])
        assert details[0] == details[1]
    assert Webhook.get().description == ""


def test_a_delivery_is_replayed_by_its_own_webhook_alone(make_webhook: MakeWebhook,
                                                         operator: Actor) -> None:  # fmt: skip
    one, _ = make_webhook()
    other, _ = make_webhook()
    sent = webhooks.test(one.id, by=operator)
    for webhook_id, delivery_id in ((other.id, sent.id), (one.id, "dlv_0")):
        with pytest.raises(Unknown, match="no such delivery"):
            webhooks.replay(webhook_id, delivery_id, by=operator)


def test_a_list_of_all_projects_holds_those_that_one_manages(
    make_webhook: MakeWebhook, other_project: Project, admin: Actor, stranger: Actor, owner: Actor
) -> None:
    webhook, _ = make_webhook()
    foreign, _ = webhooks.create({"url": URL, "project": "other"}, by=owner)
    both = replace(admin, roles={webhook.project_id: "admin", other_project.id: "viewer"})
    assert [one.id for one in webhooks.page(by=both).rows] == [webhook.id]
    assert [one.id for one in webhooks.page(by=stranger).rows] == [foreign.id]
    assert len(webhooks.page(by=owner).rows) == 2
    with pytest.raises(Forbidden):
        webhooks.page(by=both, project="other")


# --- the secret -------------------------------------------------------------------------------


def test_the_secret_is_in_one_answer_alone_and_not_in_the_database(
    call: Call, config: Config, make_key: MakeKey
) -> None:
    with Receiver() as receiver:
        made = call("POST", "/webhooks", {"url": receiver.url}).json
        path = f"/webhooks/{made['id']}"
        rotated = call("POST", f"{path}/rotate-secret", {"grace_period": "1h"}).json
        secrets = [made["secret"], rotated["secret"]]
        assert rotated.keys() == OBJECT | {"secret"} and secrets[0] != secrets[1]
        call("POST", f"{path}/test")
        deliver()
        answers = [
            call("GET", path), call("GET", "/webhooks"), call("GET", f"{path}/deliveries"),
            call("PATCH", path, {"description": "Seen"}), call("POST", f"{path}/test"),
            call("POST", f"{path}/rotate-secret"),
        ]  # fmt: skip
        sent = b"".join(message.body for message in receiver.messages)
    raw = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    wanted = [*raw, *(one.hex().encode() for one in raw),
              *(secret.removeprefix("whsec_").encode() for secret in secrets)]  # fmt: skip
    stored = _bytes_of(config)
    assert b"hooks" in stored or b"/hook" in stored
    for content in (stored, sent, *(answer.data for answer in answers)):
        assert [one for one in wanted if one in content] == []


def _bytes_of(config: Config) -> bytes:
    if not db.is_sqlite():
        rows = Webhook.select().tuples()
        return b"".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode()
                        for row in rows for v in row)  # fmt: skip
    return b"".join(path.read_bytes() for path in config.data_dir.rglob("*") if path.is_file())


def test_during_the_grace_both_secrets_sign(call: Call, clock: Clock) -> None:
    with Receiver() as receiver:
        made = call("POST", "/webhooks", {"url": receiver.url, "events": ["project.*"]}).json
        path = f"/webhooks/{made['id']}"
        secrets = [made["secret"]]

        def signed() -> list[bool]:
            call("POST", f"{path}/test")
            deliver()
            message = receiver.messages[-1]
            assert message.headers["webhook-signature"].count("v1,") in (1, 2)
            return [is_signed_with(message, secret) for secret in secrets]

        def rotate(**body: str) -> None:
            secrets.append(call("POST", f"{path}/rotate-secret", body).json["secret"])

        assert signed() == [True]
        rotate(grace_period="1h")
        assert signed() == [True, True]
        rotate(grace_period="2h")
        assert signed() == [False, True, True]
        clock.move("119m")
        assert signed() == [False, True, True]
        clock.move("1m")
        assert signed() == [False, False, True]
        rotate()
        assert signed() == [False, False, False, True]
        assert Webhook.get().previous_secret is None


def test_a_grace_has_at_most_thirty_days(call: Call) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    path = f"/webhooks/{made['id']}/rotate-secret"
    assert_problem(call("POST", path, {"grace_period": "31d"}), 400, "INVALID", "errors")
    assert call("POST", path, {"grace_period": "30d"}).status_code == 200


def test_under_another_secret_key_nothing_is_sent_and_a_rotation_mends_it(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    with Receiver() as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.use_secret_key("another" * 10)
        webhooks.test(webhook.id, by=operator)
        deliver()
        delivery = Delivery.get()
        assert (delivery.status, delivery.attempts) == (PENDING, 1)
        assert "LATCHKEY_SECRET_KEY has changed" in delivery.error
        _, secret = webhooks.rotate_secret(webhook.id, {}, by=operator)
        clock.move("1m")
        deliver()
        assert verified(receiver.messages[0], secret)["type"] == "webhook.test"


# --- messages ---------------------------------------------------------------------------------


def test_a_message_tells_the_events_facts(
    make_webhook: MakeWebhook, make_key: MakeKey, admin: Actor, clock: Clock
) -> None:
    key, _ = make_key(name="CI")
    by = replace(admin, request_id="req_1", ip="192.0.2.1")
    with Receiver() as receiver:
        _, secret = make_webhook(receiver.url, events=["key.*"])
        keys.edit(key.id, {"name": "Deployer ☂", "metadata": {"a": [1, None]}}, by=by)
        deliver()
    (message,) = receiver.messages
    assert verified(message, secret) == {
        "type": "key.edited",
        "timestamp": "2026-11-20T10:30:00Z",
        "data": {
            "id": logged("key.edited").id,
            "at": "2026-11-20T10:30:00Z",
            "action": "key.edited",
            "project": "shop",
            "actor": {"kind": "person", "id": admin.id, "name": admin.name},
            "target": {"id": key.id, "name": "Deployer ☂"},
            "changes": {"name": ["CI", "Deployer ☂"], "metadata": [{}, {"a": [1, None]}]},
            "request_id": "req_1",
        },
    }
    assert message.headers["content-type"] == "application/json"
    delivery = Delivery.get()
    assert message.headers["webhook-id"] == delivery.message_id
    assert delivery.message_id.startswith("msg_")
    assert (delivery.status, delivery.attempts, delivery.response_status) == (DELIVERED, 1, 200)
    assert delivery.error is None and delivery.next_attempt_at is None
    assert delivery.last_attempt_at == clock.now() and delivery.duration_ms >= 0


def test_what_was_altered_on_the_way_is_not_verified(
    make_webhook: MakeWebhook, operator: Actor
) -> None:
    with Receiver() as receiver:
        webhook, secret = make_webhook(receiver.url)
        webhooks.test(webhook.id, by=operator)
        deliver()
    message = receiver.messages[0]
    assert is_signed_with(message, secret)
    assert not is_signed_with(replace(message, body=message.body + b" "), secret)
    headers = {**message.headers, "webhook-id": "msg_0"}
    assert not is_signed_with(replace(message, headers=headers), secret)


def test_a_message_says_what_was_so_when_it_happened(
    make_webhook: MakeWebhook, make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    with Receiver() as receiver:
        make_webhook(receiver.url, events=["key.created"])
        key, _ = make_key(name="Before")
        keys.edit(key.id, {"name": "After"}, by=operator)
        keys.delete(key.id, by=operator)
        clock.move("1h")
        deliver()
    body = json.loads(receiver.messages[0].body)
    assert (body["timestamp"], body["data"]["target"]["name"]) == (
        "2026-11-20T10:30:00Z", "Before",
    )  # fmt: skip


@pytest.mark.parametrize(("events", "heard"), [
    (["*"], ["key.created", "key.deleted", "webhook.edited"]),
    (["key.*"], ["key.created", "key.deleted"]),
    (["key.deleted", "webhook.edited"], ["key.deleted", "webhook.edited"]),
    (["project.*", "key.edited"], []),
])  # fmt: skip
def test_a_webhook_is_told_the_events_that_it_names(
    make_webhook: MakeWebhook, make_key: MakeKey, operator: Actor,
    events: list[str], heard: list[str],
) -> None:  # fmt: skip
    webhook, _ = make_webhook(events=events)
    Delivery.delete().execute()
    key, _ = make_key()
    keys.delete(key.id, by=operator)
    webhooks.edit(webhook.id, {"description": "Seen"}, by=operator)
    assert sorted(one.event for one in Delivery.select()) == heard


def test_a_webhook_hears_of_its_own_project_while_it_is_enabled(
    make_webhook: MakeWebhook, other_project: Project, make_key: MakeKey, operator: Actor
) -> None:
    make_webhook(enabled=False)
    webhooks.create({"url": URL, "project": "other", "events": ["key.*"]}, by=operator)
    make_key()
    assert Delivery.select().count() == 0


def test_webhooks_of_one_event_hear_of_it_under_one_id(
    make_webhook: MakeWebhook, make_key: MakeKey
) -> None:
    for _ in range(2):
        make_webhook(events=["key.created"])
    make_key()
    assert len({one.message_id for one in Delivery.select()}) == 1
    make_key()
    assert len({one.message_id for one in Delivery.select()}) == 2


def test_what_was_taken_back_is_not_told(make_webhook: MakeWebhook, make_key: MakeKey) -> None:
    make_webhook(events=["key.*"])

    @db.transaction
    def fail() -> None:
        make_key()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert Delivery.select().count() == 0


def test_changes_to_webhooks_are_events_that_hide_the_address(
    call: Call, make_webhook: MakeWebhook, operator: Actor, project: Project
) -> None:
    made = call("POST", "/webhooks", {"url": URL}).json
    path = f"/webhooks/{made['id']}"
    call("PATCH", path, {"url": "https://hooks.example.com/hidden", "enabled": False})
    call("POST", f"{path}/rotate-secret", {"grace_period": "1h"})
    call("DELETE", path)
    hidden = "https://hooks.example.com/…"
    assert [
        (one.action, one.target_id, one.target_name, one.changes)
        for one in Event.select().where(Event.target_id == made["id"]).order_by(Event.id)
    ] == [
        ("webhook.created", made["id"], "hooks.example.com",
         {"url": [None, hidden], "events": [None, ["*"]], "enabled": [None, True]}),
        ("webhook.edited", made["id"], "hooks.example.com",
         {"url": [hidden, hidden], "enabled": [True, False]}),
        ("webhook.secret_rotated", made["id"], "hooks.example.com",
         {"previous_secret_expires_at": [None, "2026-11-20T11:30:00Z"]}),
        ("webhook.deleted", made["id"], "hooks.example.com", {"url": [hidden, None]}),
    ]  # fmt: skip
    assert "hidden" not in str([one.changes for one in activity.page(project.id, by=operator).rows])


# --- delivery ---------------------------------------------------------------------------------


def test_a_refused_message_is_tried_again_for_a_day_then_failed(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    with Receiver(500) as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        for number, delay in enumerate(outbox.DELAYS, 1):
            deliver()
            delivery = Delivery.get()
            assert (delivery.status, delivery.attempts) == (PENDING, number)
            assert (delivery.response_status, delivery.error) == (500, "answered 500")
            wait = delivery.next_attempt_at - clock.now()
            assert delay * 0.9 <= wait <= delay * 1.1
            clock.move_ms(wait - 1)
            deliver()
            assert len(receiver.messages) == number
            clock.move_ms(1)
        deliver()
    delivery = Delivery.get()
    assert (delivery.status, delivery.attempts, delivery.next_attempt_at) == (FAILED, 8, None)
    clock.move("30d")
    deliver()
    assert len(receiver.messages) == 8
    assert {one.headers["webhook-id"] for one in receiver.messages} == {delivery.message_id}
    assert {one.body for one in receiver.messages} == {delivery.payload.encode()}
    assert len({one.headers["webhook-timestamp"] for one in receiver.messages}) == 8
    assert 26 * time.HOUR < sum(outbox.DELAYS) < 28 * time.HOUR


def test_every_attempt_is_signed_with_its_own_time(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    with Receiver(503, 200) as receiver:
        webhook, secret = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        for _ in range(2):
            deliver()
            message = receiver.messages[-1]
            assert message.headers["webhook-timestamp"] == str(clock.now() // 1000)
            assert is_signed_with(message, secret)
            clock.move("1h")
            assert not is_signed_with(message, secret)
    assert Delivery.get().status == DELIVERED


def test_waiting_times_differ(make_webhook: MakeWebhook, operator: Actor, clock: Clock) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    waits = set()
    for _ in range(20):
        webhooks.test(webhook.id, by=operator)
        claimed = outbox.claim()
        assert claimed is not None
        webhooks.conclude(claimed, FAILURE)
        waits.add(Delivery.get_by_id(claimed.id).next_attempt_at)
    assert len(waits) > 1


@pytest.mark.parametrize(("manners", "status", "error"), [
    (hang, None, "did not answer within 0.2 s"),
    (reset, None, "could not be reached: Connection reset by peer"),
    (b"SSH-2.0", None, "answered what is not HTTP, or nothing"),
    (404, 404, "answered 404"),
    (redirect_to("http://127.0.0.1:1/"), 307, "answered 307; redirects are not followed"),
])  # fmt: skip
def test_whatever_a_receiver_does_it_is_written_down_and_tried_again(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock,
    manners: Any, status: int | None, error: str,
) -> None:  # fmt: skip
    with Receiver(manners, 200) as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        deliver(Worker(timeout_seconds=0.2))
        first = Delivery.get()
        assert (first.status, first.response_status, first.error) == (PENDING, status, error)
        clock.move("1m")
        deliver()
        second = Delivery.get()
        assert (second.status, second.attempts, second.error) == (DELIVERED, 2, None)


def test_an_address_that_became_private_is_not_called(
    make_webhook: MakeWebhook, operator: Actor, app: Flask
) -> None:
    """Whatever was right when the webhook was made."""
    with Receiver() as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        outbound.allow(())
        deliver()
    assert receiver.connections == 0
    assert "must lead to a public address" in Delivery.get().error


def test_410_disables_the_webhook_and_the_others_hear_of_it(
    make_webhook: MakeWebhook, make_key: MakeKey, project: Project, clock: Clock
) -> None:
    with Receiver(410) as gone, Receiver() as other:
        webhook, _ = make_webhook(gone.url, events=["key.*", "webhook.*"])
        make_webhook(other.url, events=["webhook.disabled"])
        Delivery.delete().execute()
        for _ in range(3):
            make_key()
        deliver()
        assert told(gone) == ["key.created"]
        assert told(other) == ["webhook.disabled"]
    found = webhooks.as_dict(Webhook.get_by_id(webhook.id))
    assert found["enabled"] is False
    assert found["disabled_reason"] == "It answered 410: what was there is gone for good."
    mine = Delivery.select().where(Delivery.webhook == webhook).order_by(Delivery.attempts.desc())
    assert [(one.status, one.response_status, one.error) for one in mine] == [
        (FAILED, 410, "answered 410"),
        (FAILED, None, "the webhook was disabled"),
        (FAILED, None, "the webhook was disabled"),
    ]
    event = logged("webhook.disabled")
    assert (event.project_id, event.target_id, event.actor_kind) == (
        project.id, webhook.id, "command",
    )  # fmt: skip


def test_a_webhook_enabled_again_has_no_reason_left_and_replays_what_failed(
    call: Call, make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    with Receiver(410, 200) as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        failed = webhooks.test(webhook.id, by=operator)
        deliver()
        path = f"/webhooks/{webhook.id}"
        replay = f"{path}/deliveries/{failed.id}/replay"
        assert_problem(call("POST", replay), 409, "CONFLICT")
        assert_problem(call("POST", f"{path}/test"), 409, "CONFLICT")
        enabled = call("PATCH", path, {"enabled": True}).json
        assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
        answer = call("POST", replay)
        assert answer.status_code == 202
        assert answer.json.keys() == DELIVERY
        assert (answer.json["status"], answer.json["attempts"]) == ("pending", 0)
        assert answer.json["id"] != failed.id
        assert answer.json["message_id"] == failed.message_id
        deliver()
    first, second = receiver.messages
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == failed.message_id


def test_disabling_ends_what_is_still_to_be_sent(
    make_webhook: MakeWebhook, operator: Actor
) -> None:
    with Receiver() as receiver:
        webhook, _ = make_webhook(receiver.url)
        webhooks.test(webhook.id, by=operator)
        webhooks.edit(webhook.id, {"enabled": False}, by=operator)
        deliver()
    assert receiver.connections == 0
    assert {(one.status, one.error) for one in Delivery.select()} == {
        (FAILED, "the webhook was disabled")
    }
    assert Webhook.get().disabled_reason is None


def test_what_is_disabled_or_deleted_under_way_ends_there(
    make_webhook: MakeWebhook, operator: Actor
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    for outcome, status in ((OK, DELIVERED), (FAILURE, FAILED)):
        sent = webhooks.test(webhook.id, by=operator)
        claimed = outbox.claim()
        assert claimed is not None
        webhooks.edit(webhook.id, {"enabled": False}, by=operator)
        webhooks.conclude(claimed, outcome)
        done = Delivery.get_by_id(sent.id)
        assert (done.status, done.next_attempt_at) == (status, None)
        webhooks.edit(webhook.id, {"enabled": True}, by=operator)
    webhooks.test(webhook.id, by=operator)
    claimed = outbox.claim()
    assert claimed is not None
    webhooks.delete(webhook.id, by=operator)
    webhooks.conclude(claimed, OK)
    assert Delivery.select().count() == 0


def test_test_sends_a_message_whatever_the_events_are(call: Call, make_key: MakeKey) -> None:
    with Receiver() as receiver:
        made = call("POST", "/webhooks", {"url": receiver.url, "events": ["key.deleted"]}).json
        answer = call("POST", f"/webhooks/{made['id']}/test")
        assert (answer.status_code, answer.json.keys()) == (202, DELIVERY)
        assert (answer.json["event"], answer.json["status"]) == ("webhook.test", "pending")
        deliver()
        body = verified(receiver.messages[0], made["secret"])
    assert (body["type"], body["data"]["id"], body["data"]["changes"]) == ("webhook.test", None, {})
    assert body["data"]["target"]["id"] == made["id"]
    listed = call("GET", f"/webhooks/{made['id']}/deliveries").json["data"]
    assert [(one["id"], one["status"]) for one in listed] == [(answer.json["id"], "delivered")]


def test_deliveries_page_newest_first_and_by_status(
    call: Call, make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    sent = []
    for _ in range(3):
        sent.insert(0, webhooks.test(webhook.id, by=operator).id)
        clock.move("1m")
    claimed = outbox.claim()
    assert claimed is not None and claimed.id == sent[-1]
    webhooks.conclude(claimed, Outcome(204, None, 17))
    path = f"/webhooks/{webhook.id}/deliveries"
    first = call("GET", f"{path}?limit=2").json
    rest = call("GET", f"{path}?limit=2&cursor={first['next_cursor']}").json
    assert [one["id"] for one in first["data"] + rest["data"]] == sent
    assert rest["data"] == call("GET", f"{path}?status=delivered").json["data"] == [{
        "id": sent[-1], "webhook_id": webhook.id, "message_id": claimed.message_id,
        "event": "webhook.test", "status": "delivered", "attempts": 1,
        "created_at": "2026-11-20T10:30:00Z", "last_attempt_at": "2026-11-20T10:33:00Z",
        "next_attempt_at": None, "response_status": 204, "error": None, "duration_ms": 17,
    }]  # fmt: skip
    assert len(call("GET", f"{path}?status=pending").json["data"]) == 2


# --- several at once --------------------------------------------------------------------------


def test_what_one_process_sends_no_other_does(make_webhook: MakeWebhook, operator: Actor) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    for _ in range(3):
        webhooks.test(webhook.id, by=operator)
    claimed = [one for one in at_once(8, lambda _: outbox.claim()) if one]
    assert len(claimed) == 1
    assert outbox.claim() is None


def test_a_lease_that_passed_is_taken_again_under_the_same_id(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    webhooks.test(webhook.id, by=operator)
    lost = outbox.claim()
    assert lost is not None
    clock.move_ms(outbox.LEASE - 1)
    assert outbox.claim() is None
    clock.move_ms(1)
    again = outbox.claim()
    assert again is not None
    assert (again.id, again.message_id, again.attempts) == (lost.id, lost.message_id, 2)
    webhooks.conclude(again, OK)
    webhooks.conclude(lost, FAILURE)
    done = Delivery.get()
    assert (done.status, done.next_attempt_at, done.error) == (DELIVERED, None, None)


def test_who_had_an_old_lease_does_not_end_the_new_one(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    for _ in range(2):
        webhooks.test(webhook.id, by=operator)
    lost = outbox.claim()
    clock.move_ms(outbox.LEASE)
    assert lost is not None and outbox.claim() is not None
    webhooks.conclude(lost, OK)
    assert outbox.claim() is None


def test_webhooks_are_served_in_turn(make_webhook: MakeWebhook, operator: Actor,
                                     clock: Clock) -> None:  # fmt: skip
    """However much waits for one of them, and since when."""
    busy, _ = make_webhook(events=["project.*"])
    for _ in range(5):
        webhooks.test(busy.id, by=operator)
        clock.move("1m")
    late, _ = make_webhook(events=["project.*"])
    served = []
    webhooks.test(late.id, by=operator)
    for _ in range(3):
        claimed = outbox.claim()
        assert claimed is not None
        served.append(claimed.webhook_id)
        webhooks.conclude(claimed, OK)
        clock.move("1m")
    assert late.id in served[:2] and served.count(busy.id) == 2


def test_a_slow_receiver_holds_up_no_other_and_is_called_once_at_a_time(
    make_webhook: MakeWebhook, operator: Actor
) -> None:
    answered = threading.Event()
    with Receiver(waits_for(answered)) as slow, Receiver() as quick:
        hooks = [make_webhook(one.url, events=["project.*"])[0] for one in (slow, quick)]
        for _ in range(5):
            for webhook in hooks:
                webhooks.test(webhook.id, by=operator)
        by = Worker(timeout_seconds=WAIT_SECONDS)
        while len(quick.messages) < 5 or by.turn() > 1:
            by.turn()
            assert webhooks.news.wait(WAIT_SECONDS)
            webhooks.news.clear()
        assert slow.connections == 1
        answered.set()
        deliver(by)
        assert len(slow.messages) == 5
    assert {one.status for one in Delivery.select()} == {DELIVERED}


def test_no_more_than_four_are_sent_at_once(make_webhook: MakeWebhook, operator: Actor) -> None:
    answered = threading.Event()
    with Receiver(waits_for(answered)) as receiver:
        for _ in range(6):
            webhook, _ = make_webhook(receiver.url, events=["project.*"])
            webhooks.test(webhook.id, by=operator)
        by = Worker(timeout_seconds=WAIT_SECONDS)
        assert by.turn() == by.turn() == 4
        receiver.wait_for(4)
        assert Delivery.select().where(Delivery.attempts > 0).count() == 4
        answered.set()
        deliver(by)
    assert len(receiver.messages) == 6


# --- the thread -------------------------------------------------------------------------------


def test_what_was_sent_is_not_sent_again_when_it_cannot_be_written_down_at_once(
    make_webhook: MakeWebhook, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude, failures = webhooks.conclude, []

    def fail_once(*given: Any) -> None:
        if not failures:
            failures.append(given)
            raise peewee.OperationalError("database is locked")
        conclude(*given)

    monkeypatch.setattr(webhooks, "conclude", fail_once)
    with Receiver() as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        by = Worker(timeout_seconds=WAIT_SECONDS)
        with pytest.raises(peewee.OperationalError):
            deliver(by)
        deliver(by)
        assert len(receiver.messages) == 1
    assert Delivery.get().status == DELIVERED


def test_a_fault_of_ours_is_one_more_failed_attempt(
    make_webhook: MakeWebhook, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    webhooks.test(webhook.id, by=operator)
    monkeypatch.setattr(webhooks, "headers", lambda _: 1 / 0)
    deliver()
    delivery = Delivery.get()
    assert (delivery.status, delivery.error) == (
        PENDING, "could not be sent: the fault is ours, and in the log",
    )  # fmt: skip


def test_the_thread_delivers_what_is_enqueued_and_stops_when_told(
    make_webhook: MakeWebhook, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 3_600)  # so that it must be woken
    worker.start()
    with Receiver() as receiver:
        make_webhook(receiver.url, events=["key.*"])
        for _ in range(3):
            make_key()
        receiver.wait_for(3)
        worker.stop()
    assert not [one for one in threading.enumerate() if one.name == "worker"]
    assert {one.status for one in Delivery.select()} == {DELIVERED}


def test_without_a_webhook_the_thread_asks_for_nothing_else(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, asked = threading.Semaphore(0), []

    def look() -> bool:
        looks.release()
        return False

    monkeypatch.setattr(webhooks, "any_yet", look)
    monkeypatch.setattr(outbox, "claim", lambda: asked.append("claim"))
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.001)
    worker.start()
    for _ in range(5):
        assert looks.acquire(timeout=WAIT_SECONDS)
    worker.stop()
    assert asked == []


def test_while_nothing_is_due_a_turn_is_three_queries_by_an_index(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    webhooks.test(webhook.id, by=operator)
    claimed = outbox.claim()
    assert claimed is not None
    webhooks.conclude(claimed, FAILURE)
    busy, _ = make_webhook(events=["project.*"])
    for _ in range(2):
        webhooks.test(busy.id, by=operator)
    assert outbox.claim() is not None
    asked: list[tuple[str, Any]] = []
    execute = db.handle.execute_sql

    def listen(sql: str, params: Any = None) -> Any:
        asked.append((sql, params))
        return execute(sql, params)

    idle = Worker(tasks=())
    assert idle.turn() == 0  # it has seen that there are webhooks
    monkeypatch.setattr(db.handle.obj, "execute_sql", listen)
    assert idle.turn() == 0
    monkeypatch.undo()
    assert all(sql.startswith("SELECT") for sql, _ in asked)
    deliveries, letters, _ = asked  # by mail, and by Apprise
    if db.is_sqlite():
        for (sql, params), index in ((deliveries, "delivery_due"), (letters, "letter_due")):
            plan = str(db.handle.execute_sql(f"explain query plan {sql}", params).fetchall())
            assert f"INDEX {index}" in plan and "SCAN t2" not in plan


def test_the_thread_goes_on_after_the_database_failed(
    make_webhook: MakeWebhook, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, failures = outbox.claim, []

    def fail_twice(under_way: Any = ()) -> Any:
        if len(failures) < 2:
            failures.append(1)
            raise peewee.OperationalError("database is locked")
        return claim(under_way)

    monkeypatch.setattr(outbox, "claim", fail_twice)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    with Receiver() as receiver:
        webhook, _ = make_webhook(receiver.url, events=["project.*"])
        webhooks.test(webhook.id, by=operator)
        worker.start()
        receiver.wait_for(1)
        worker.stop()


def test_what_is_long_done_is_pruned_and_nothing_else(
    make_webhook: MakeWebhook, operator: Actor, clock: Clock
) -> None:
    webhook, _ = make_webhook(events=["project.*"])
    for _ in range(5):
        webhooks.test(webhook.id, by=operator)
        claimed = outbox.claim()
        assert claimed is not None
        webhooks.conclude(claimed, OK)
    waiting = webhooks.test(webhook.id, by=operator)
    clock.move("30d")
    assert outbox.prune(100) == 0
    clock.move_ms(1)
    recent = webhooks.test(webhook.id, by=operator)
    assert [outbox.prune(2) for _ in range(4)] == [2, 2, 1, 0]
    assert {one.id for one in Delivery.select()} == {waiting.id, recent.id}


# --- a process that is killed -----------------------------------------------------------------


def serve(data_dir: Path) -> tuple[RunningServer, str]:
    """A server, started, in which a key may do everything; the key's secret."""
    server = RunningServer(data_dir, LATCHKEY_WEBHOOK_NETWORKS="127.0.0.0/8")
    server.start()
    server.run("create-project", "--slug", "shop")
    return server, make_key_of(server, "--permission", "admin:*")


def let_leases_pass(server: RunningServer) -> None:
    server.query("update webhook set leased_until = 0")


@pytest.mark.service
def test_kill_9_loses_no_message_and_repeats_under_the_same_id(tmp_path: Path) -> None:
    server, secret = serve(tmp_path / "data")
    made: list[str] = []
    with Receiver(200, 500, 200) as receiver, server_stopped(server):
        with Client(server) as client:
            client.call("POST", "/webhooks", secret, {"url": receiver.url, "events": ["key.*"]})
        for number in range(3):
            with Client(server) as client:
                for _ in range(5 + 10 * number):
                    made.append(client.call("POST", "/api-keys", secret, {"name": "CI"})["id"])
                    if len(made) >= 15:
                        break
            server.kill()
            let_leases_pass(server)
            server.start()
        made.append(_made_while_nobody_delivers(server))
        deadline = wall.monotonic() + WAIT_SECONDS
        arrived: set[str] = set()
        while not arrived >= set(made) and wall.monotonic() < deadline:
            wall.sleep(0.05)
            arrived = {json.loads(one.body)["data"]["target"]["id"] for one in receiver.messages}
        assert arrived >= set(made)
    ids: dict[int, set[str]] = {}
    for message in receiver.messages:
        event = json.loads(message.body)["data"]["id"]
        ids.setdefault(event, set()).add(message.headers["webhook-id"])
    assert all(len(one) == 1 for one in ids.values())
    assert len(set().union(*ids.values())) == len(ids)


def server_stopped(server: RunningServer) -> Any:
    return closing(_Stopped(server))


class _Stopped:
    def __init__(self, server: RunningServer) -> None:
        self.close = server.stop


def _made_while_nobody_delivers(server: RunningServer) -> str:
    """The id of a key that the command line makes while no server runs; then it runs again."""
    server.kill()
    let_leases_pass(server)
    make_key_of(server)
    [(key_id,)] = server.query("select id from key order by created_at desc limit 1")
    server.start()
    return str(key_id)


@pytest.mark.service
def test_a_message_under_way_when_the_process_is_killed_comes_again(tmp_path: Path) -> None:
    server, secret = serve(tmp_path / "data")
    with Receiver(hang, 200) as receiver, server_stopped(server):
        with Client(server) as client:
            client.call("POST", "/webhooks", secret, {"url": receiver.url, "events": ["key.*"]})
            client.call("POST", "/api-keys", secret, {"name": "CI"})
        receiver.wait_for(1)
        server.kill()
        let_leases_pass(server)
        server.start()
        first, second = receiver.wait_for(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
