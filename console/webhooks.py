"""The life of a webhook: an address that is told of a project's events.

What they are sent, when and how often is outbox.py's to say. Messages are signed after the Standard
Webhooks specification; the secret that signs them is needed again, so it is stored sealed, under a
key derived from the installation's, which is not in the database.
"""

import base64
import hashlib
import hmac
import os
import threading
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import (
    activity,
    clock,
    db,
    key_fields,
    key_rules,
    outbound,
    outbox,
    paging,
    projects,
    secret,
)
from console.actor import COMMAND, Actor
from console.alert_rules import GUESSING
from console.errors import Conflict, Unknown
from console.fields import Fields, Instant, OneOf, Text, text_schema
from console.key_fields import Rotation
from console.models import DELIVERED, FAILED, PENDING, Delivery, Event, Project, Webhook
from console.outbound import Outcome
from console.paging import Order, Page, PageQuery
from console.permissions import PROJECTS_MANAGE
from console.seal import Broken, Seal, derive

WEBHOOKS_MAX = 10  # of a project
SECRET_PREFIX, SECRET_BYTES = "whsec_", 32
SEAL_PURPOSE = "latchkey/webhook"
GONE = 410
DELIVERY_STATUSES = (PENDING, DELIVERED, FAILED)
TEST_EVENT = "webhook.test"
# Those of people, and of who guesses at keys, belong to no project, so no webhook is told of them.
TOLD = tuple(
    action
    for action in activity.ACTIONS
    if not action.startswith("person.") and action != f"alert.{GUESSING}"
)
PATTERNS = (
    outbox.EVERY,
    *dict.fromkeys(f"{action.partition('.')[0]}.*" for action in TOLD),
    *TOLD,
)
ITSELF = Actor(kind=COMMAND, id=None, name="delivery")

# Set when there may be something to deliver that a look once in a while would find too late.
news = threading.Event()
_seal: Seal


class NotSigned(Exception):
    """The secret cannot be opened: the installation's secret key is another one than it was."""


def use_secret_key(secret_key: str) -> None:
    """Sets the installation's secret key, under which the signing secrets are stored."""
    global _seal
    _seal = Seal(derive(secret_key, SEAL_PURPOSE)[0])


# --- fields -----------------------------------------------------------------------------------


def _url(text: str) -> str:
    outbound.parse_url(text)
    return text


def _patterns(events: list[str]) -> list[str]:
    if not events:
        raise ValueError("must name at least one event, or * for every one")
    return list(dict.fromkeys(events))


Url = Annotated[
    str,
    AfterValidator(_url),
    text_schema(
        "https://hooks.example.com/latchkey",
        format="uri",
        pattern="^https?://[!-~]+$",
        maxLength=outbound.URL_MAX_LENGTH,
        description="A public address, or a name that leads to such",
    ),
]
Patterns = Annotated[list[Annotated[str, OneOf(*PATTERNS)]], AfterValidator(_patterns)]


class WebhookChange(Fields):
    """Only what is sent is changed."""

    url: Url = ""
    events: Patterns = Field(
        [outbox.EVERY],
        description="Which events are told; `*` is every one",
        json_schema_extra={"minItems": 1},
    )
    description: Text = ""
    enabled: bool = Field(True, description="A disabled one is told nothing, also not later")


class NewWebhook(WebhookChange):
    """What a webhook is made from."""

    url: Url
    project: str | None = Field(
        None, description="The project's slug; may be left out by a key and by who has one project"
    )


class WebhookQuery(PageQuery):
    """Which webhooks are asked for."""

    project: str | None = Field(
        None, description="The project's slug; left out: all that you manage"
    )


class DeliveryQuery(PageQuery):
    """Which deliveries of a webhook are asked for."""

    status: Annotated[str, OneOf(*DELIVERY_STATUSES)] | None = None


class WebhookObject(TypedDict):
    """A webhook, without its secret."""

    id: Annotated[str, text_schema("whk_3Kq0cV8nTz5wYb2LmR7s")]
    project: Annotated[str, Field(description="The project's slug")]
    url: str
    description: str
    events: list[str]
    enabled: bool
    created_at: Instant
    updated_at: Instant
    disabled_reason: Annotated[
        str | None, Field(description="Why it was disabled, where nobody did it by hand")
    ]


class WebhookWithSecret(WebhookObject):
    """A webhook and, this one time, the secret that its messages are signed with."""

    secret: Annotated[str, text_schema("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]


class DeliveryObject(TypedDict):
    """A message to a webhook: when it was sent, and what came of it."""

    id: Annotated[str, text_schema("dlv_3Kq0cV8nTz5wYb2LmR7s")]
    webhook_id: str
    message_id: Annotated[str, Field(description="The header `webhook-id`, at every attempt")]
    event: str
    status: Annotated[str, OneOf(*DELIVERY_STATUSES)]
    attempts: int
    created_at: Instant
    last_attempt_at: Instant | None
    next_attempt_at: Instant | None
    response_status: int | None
    error: str | None
    duration_ms: int | None


def as_dict(webhook: Webhook) -> WebhookObject:
    """The webhook object of the API."""
    return {
        "id": webhook.id,
        "project": webhook.project.slug,
        "url": webhook.url,
        "description": webhook.description,
        "events": list(webhook.events),
        "enabled": webhook.enabled,
        "created_at": clock.iso(webhook.created_at),
        "updated_at": clock.iso(webhook.updated_at),
        "disabled_reason": webhook.disabled_reason,
    }


def delivery_as_dict(delivery: Delivery) -> DeliveryObject:
    """The delivery object of the API."""
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "message_id": delivery.message_id,
        "event": delivery.event,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "created_at": clock.iso(delivery.created_at),
        "last_attempt_at": clock.iso(delivery.last_attempt_at),
        "next_attempt_at": clock.iso(delivery.next_attempt_at),
        "response_status": delivery.response_status,
        "error": delivery.error,
        "duration_ms": delivery.duration_ms,
    }


# --- who may, and what there is ---------------------------------------------------------------


def webhook_to_manage(webhook_id: str, *, by: Actor) -> Webhook:
    """The webhook, where the actor manages its project. Raises Unknown, Forbidden."""
    webhook = Webhook.select(Webhook, Project).join(Project).where(Webhook.id == webhook_id).first()
    if webhook is None or not by.sees(webhook.project_id):
        raise Unknown("There is no such webhook.")
    by.require(PROJECTS_MANAGE, webhook.project_id)
    return webhook  # type: ignore[no-any-return]


def _webhook_to_change(webhook_id: str, by: Actor) -> Webhook:
    """As it is now, held for this transaction with all webhooks of its project: an event of one is
    told to the others, so two that changed at once could wait for each other. Raises Unknown,
    Forbidden, Conflict in an archived project."""
    key_rules.held_open(webhook_to_manage(webhook_id, by=by).project_id)
    return webhook_to_manage(webhook_id, by=by)


def page(
    *,
    by: Actor,
    project: str | None = None,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
) -> Page[Webhook]:
    """The webhooks of one project, or of all that the actor manages, newest first.

    Raises Invalid, Unknown, Forbidden.
    """
    seen = [projects.to_see(project, by=by)] if project else projects.seen(by)
    managed = [one.id for one in seen if by.may(PROJECTS_MANAGE, one.id)]
    if seen and not managed:
        raise by.denied(PROJECTS_MANAGE)
    query = Webhook.select(Webhook, Project).join(Project).where(Webhook.project.in_(managed))
    return _newest_first(Webhook, query, cursor, limit)


def deliveries(
    webhook_id: str,
    *,
    by: Actor,
    status: str | None = None,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
) -> Page[Delivery]:
    """What was sent there, or is to be, newest first. Raises Invalid, Unknown, Forbidden."""
    webhook = webhook_to_manage(webhook_id, by=by)
    query = Delivery.select().where(Delivery.webhook == webhook)
    if status:
        query = query.where(Delivery.status == status)
    return _newest_first(Delivery, query, cursor, limit)


def delivery_to_manage(webhook_id: str, delivery_id: str, *, by: Actor) -> Delivery:
    """A delivery of the webhook. Raises Unknown, Forbidden."""
    return _delivery_of(webhook_to_manage(webhook_id, by=by), delivery_id)


def _delivery_of(webhook: Webhook, delivery_id: str) -> Delivery:
    delivery = Delivery.get_or_none(Delivery.id == delivery_id, Delivery.webhook == webhook)
    if delivery is None:
        raise Unknown("There is no such delivery.")
    return delivery


class Standing(NamedTuple):
    """How a webhook stands: its newest delivery, and how many wait to be sent."""

    last: Delivery | None
    waiting: int


def standing(webhook: Webhook) -> Standing:
    """Of a webhook that the actor was found to manage."""
    its = Delivery.select().where(Delivery.webhook == webhook)
    last = its.order_by(Delivery.created_at.desc(), Delivery.id.desc()).first()
    return Standing(last, its.where(Delivery.next_attempt_at.is_null(False)).count())


def _newest_first(model: Any, query: Any, cursor: str | None, limit: int) -> Page[Any]:
    newest = Order(model.created_at, int, lambda row: row.created_at)
    by_id = Order(model.id, str, lambda row: row.id)
    return paging.fetch(query, [newest, by_id], descending=True, cursor=cursor, limit=limit)


def any_yet() -> bool:
    return bool(Webhook.select().exists())


# --- change -----------------------------------------------------------------------------------


def create(fields: Mapping[str, Any], *, by: Actor) -> tuple[Webhook, str]:
    """A new webhook, and the secret that signs its messages, shown once.

    Raises Invalid, Unknown (project), Forbidden, Conflict (a project has its fill).
    """
    made = _create(fields, by)
    news.set()  # now that it can be seen
    return made


@db.transaction
def _create(fields: Mapping[str, Any], by: Actor) -> tuple[Webhook, str]:
    new = NewWebhook.read(fields)
    project = projects.to_act_in(new.project, by=by)
    by.require(PROJECTS_MANAGE, project.id)
    key_rules.held_open(project.id)
    if Webhook.select().where(Webhook.project == project).count() >= WEBHOOKS_MAX:
        raise Conflict(f"A project has at most {WEBHOOKS_MAX} webhooks. Delete one first.")
    webhook_id, now = secret.random_id("whk"), clock.now()
    key = os.urandom(SECRET_BYTES)
    webhook = Webhook.create(
        id=webhook_id,
        project=project,
        url=new.url,
        description=new.description,
        events=new.events,
        enabled=new.enabled,
        secret=_seal.close(key, webhook_id),
        created_at=now,
        updated_at=now,
    )
    shown = {"url": _shown(new.url), "events": new.events, "enabled": new.enabled}
    _record("webhook.created", webhook, by, {name: (None, value) for name, value in shown.items()})
    return webhook, _secret_text(key)


@db.transaction
def edit(webhook_id: str, fields: Mapping[str, Any], *, by: Actor) -> Webhook:
    """Changes what is sent, nothing else; what is already so leaves no event.

    Disabling ends what is still to be sent; it can be replayed. Raises Invalid, Unknown, Forbidden.
    """
    webhook = _webhook_to_change(webhook_id, by)
    change = WebhookChange.read(fields)
    changes: dict[str, tuple[Any, Any]] = {}
    for name in sorted(change.model_fields_set):
        old, new = getattr(webhook, name), getattr(change, name)
        if old != new:
            setattr(webhook, name, new)
            changes[name] = (_shown(old), _shown(new)) if name == "url" else (old, new)
    if "enabled" in changes:
        webhook.disabled_reason = None
        if not webhook.enabled:
            outbox.end_pending(webhook)
    if changes:
        webhook.updated_at = clock.now()
        webhook.save(only=webhook.dirty_fields)
        _record("webhook.edited", webhook, by, changes)
    return webhook


@db.transaction
def rotate_secret(webhook_id: str, fields: Mapping[str, Any], *, by: Actor) -> tuple[Webhook, str]:
    """A new signing secret; during the grace period messages carry the old one's signature, too.

    At most two sign: an older one in its grace ends now. Raises Invalid, Unknown, Forbidden.
    """
    webhook = _webhook_to_change(webhook_id, by)
    now = clock.now()
    ends_at = key_fields.grace_end(Rotation.read(fields), now)
    webhook.previous_secret = webhook.secret if ends_at else None
    webhook.previous_works_until = ends_at
    key = os.urandom(SECRET_BYTES)
    webhook.secret, webhook.updated_at = _seal.close(key, webhook.id), now
    webhook.save(only=webhook.dirty_fields)
    changes = {"previous_secret_expires_at": (None, clock.iso(ends_at))}
    _record("webhook.secret_rotated", webhook, by, changes)
    return webhook, _secret_text(key)


@db.transaction
def delete(webhook_id: str, *, by: Actor) -> None:
    """Removes the webhook and its deliveries. Raises Unknown, Forbidden."""
    db.hold(Project, webhook_to_manage(webhook_id, by=by).project_id)
    webhook = webhook_to_manage(webhook_id, by=by)
    webhook.delete_instance()
    _record("webhook.deleted", webhook, by, {"url": (_shown(webhook.url), None)})


@db.transaction
def replay(webhook_id: str, delivery_id: str, *, by: Actor) -> Delivery:
    """The same message once more, as a delivery of its own. Raises Unknown, Forbidden, Conflict."""
    webhook = _enabled(webhook_id, by)
    old = _delivery_of(webhook, delivery_id)
    return outbox.put(webhook.id, old.event, old.payload, old.message_id)


@db.transaction
def test(webhook_id: str, *, by: Actor) -> Delivery:
    """A message that tells of nothing, to see it arrive. Raises Unknown, Forbidden, Conflict."""
    webhook = _enabled(webhook_id, by)
    event = Event(
        at=clock.now(),
        project_id=webhook.project_id,
        action=TEST_EVENT,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name,
        target_id=webhook.id,
        target_name=urlsplit(webhook.url).netloc,
        changes={},
        request_id=by.request_id,
    )
    message_id = secret.random_id("msg")
    return outbox.put(webhook.id, TEST_EVENT, outbox.message(event), message_id)


def _enabled(webhook_id: str, by: Actor) -> Webhook:
    webhook = _webhook_to_change(webhook_id, by)
    if not webhook.enabled:
        raise Conflict("The webhook is disabled. Enable it first.")
    return webhook


def _shown(url: str) -> str:
    """The URL for the activity log, which others read: a path is often a secret in itself."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/" + (
        "…" if parts.path.strip("/") or parts.query else ""
    )


def _record(action: str, webhook: Webhook, by: Actor, changes: activity.Changes) -> None:
    activity.record(
        action,
        by=by,
        target_id=webhook.id,
        target_name=urlsplit(webhook.url).netloc,
        project_id=webhook.project_id,
        changes=changes,
    )


# --- signatures -------------------------------------------------------------------------------


def _secret_text(key: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(key).decode()


def _opened(sealed: bytes, webhook_id: str) -> bytes:
    try:
        return _seal.open(sealed, webhook_id)
    except Broken:
        raise NotSigned(
            "was not signed: LATCHKEY_SECRET_KEY has changed; rotate the webhook's secret"
        ) from None


def headers(delivery: Delivery) -> dict[str, str]:
    """What goes with the message if it is sent now. Raises NotSigned."""
    webhook, now = delivery.webhook, clock.now()
    timestamp = str(now // clock.SECOND)
    keys = [webhook.secret]
    if webhook.previous_secret and (webhook.previous_works_until or 0) > now:
        keys.append(webhook.previous_secret)
    signed = f"{delivery.message_id}.{timestamp}.{delivery.payload}".encode()
    digests = [hmac.digest(_opened(key, webhook.id), signed, hashlib.sha256) for key in keys]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Latchkey",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in digests),
    }


# --- delivery ---------------------------------------------------------------------------------


@db.transaction
def conclude(claimed: Delivery, outcome: Outcome) -> None:
    """Writes down what came of a claimed delivery; 410 says to stop, so the webhook is disabled."""
    if outcome.status != GONE:
        outbox.conclude(claimed, outcome)
        return
    db.hold(Project, claimed.webhook.project_id)
    outbox.conclude(claimed, outcome, is_last=True)
    webhook = Webhook.get_or_none(Webhook.id == claimed.webhook_id, Webhook.enabled)
    if webhook is not None:
        webhook.enabled, webhook.updated_at = False, clock.now()
        webhook.disabled_reason = f"It answered {GONE}: what was there is gone for good."
        webhook.save(only=webhook.dirty_fields)
        outbox.end_pending(webhook)
        _record("webhook.disabled", webhook, ITSELF, {"enabled": (True, False)})
