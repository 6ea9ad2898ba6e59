"""Webhooks in JSON: who is told of a project's events, and what came of the telling."""

from flask import Response, url_for

from console import webhooks
from console.api import answer, caller, listed, nothing, object_body, query
from console.api.calls import ListOf, call
from console.key_fields import Rotation
from console.permissions import PROJECTS_MANAGE
from console.webhooks import (
    DeliveryObject,
    DeliveryQuery,
    NewWebhook,
    WebhookChange,
    WebhookObject,
    WebhookQuery,
    WebhookWithSecret,
)

SUBJECT = "Webhooks"
FULL = f"`CONFLICT`: the project has {webhooks.WEBHOOKS_MAX} webhooks already"
DISABLED = "`CONFLICT`: the webhook is disabled"


@call(
    "GET",
    "/webhooks",
    needs=PROJECTS_MANAGE,
    query=WebhookQuery,
    gives=ListOf(WebhookObject),
    subject=SUBJECT,
)
def list_webhooks() -> Response:
    """The webhooks that you manage, newest first."""
    given = query()
    page = webhooks.page(by=caller().actor, **given.model_dump(exclude_unset=True))
    return answer(listed(page, webhooks.as_dict))


@call(
    "POST",
    "/webhooks",
    needs=PROJECTS_MANAGE,
    takes=NewWebhook,
    gives=WebhookWithSecret,
    status=201,
    refuses={409: FULL},
    example={"url": "https://hooks.example.com/latchkey", "events": ["key.*"]},
    subject=SUBJECT,
)
def create_webhook() -> Response:
    """Makes a webhook. Its secret, which signs every message, is in this one answer.

    Messages follow the Standard Webhooks specification: verify `webhook-signature` over
    `webhook-id`, `webhook-timestamp` and the body. Each is delivered at least once, under the same
    `webhook-id`; order is not promised. Any 2xx within 15 seconds takes it, 410 disables the
    webhook, anything else is tried again seven times within about a day.
    """
    webhook, secret = webhooks.create(object_body(), by=caller().actor)
    location = url_for("api.read_webhook", webhook_id=webhook.id)
    return answer({**webhooks.as_dict(webhook), "secret": secret}, 201, Location=location)


@call("GET", "/webhooks/<webhook_id>", needs=PROJECTS_MANAGE, gives=WebhookObject, subject=SUBJECT)
def read_webhook(webhook_id: str) -> Response:
    """One webhook."""
    return answer(webhooks.as_dict(webhooks.webhook_to_manage(webhook_id, by=caller().actor)))


@call(
    "PATCH",
    "/webhooks/<webhook_id>",
    needs=PROJECTS_MANAGE,
    takes=WebhookChange,
    gives=WebhookObject,
    example={"events": ["key.created", "key.deleted"], "enabled": True},
    subject=SUBJECT,
)
def edit_webhook(webhook_id: str) -> Response:
    """Changes what is sent, nothing else.

    Disabling fails what is still to be sent; once enabled again, it can be replayed.
    """
    webhook = webhooks.edit(webhook_id, object_body(), by=caller().actor)
    return answer(webhooks.as_dict(webhook))


@call("DELETE", "/webhooks/<webhook_id>", needs=PROJECTS_MANAGE, status=204, subject=SUBJECT)
def delete_webhook(webhook_id: str) -> Response:
    """Removes the webhook and its deliveries."""
    webhooks.delete(webhook_id, by=caller().actor)
    return nothing()


@call(
    "POST",
    "/webhooks/<webhook_id>/rotate-secret",
    needs=PROJECTS_MANAGE,
    takes=Rotation,
    gives=WebhookWithSecret,
    example={"grace_period": "24h"},
    subject=SUBJECT,
)
def rotate_webhook_secret(webhook_id: str) -> Response:
    """Makes a new signing secret. During the grace period the old one signs, too."""
    webhook, secret = webhooks.rotate_secret(webhook_id, object_body(), by=caller().actor)
    return answer({**webhooks.as_dict(webhook), "secret": secret})


@call(
    "GET",
    "/webhooks/<webhook_id>/deliveries",
    needs=PROJECTS_MANAGE,
    query=DeliveryQuery,
    gives=ListOf(DeliveryObject),
    subject=SUBJECT,
)
def list_deliveries(webhook_id: str) -> Response:
    """What was sent to the webhook in the last 30 days, or is to be, newest first."""
    given = query().model_dump(exclude_unset=True)
    page = webhooks.deliveries(webhook_id, by=caller().actor, **given)
    return answer(listed(page, webhooks.delivery_as_dict))


@call(
    "POST",
    "/webhooks/<webhook_id>/deliveries/<delivery_id>/replay",
    needs=PROJECTS_MANAGE,
    gives=DeliveryObject,
    status=202,
    refuses={409: DISABLED},
    subject=SUBJECT,
)
def replay_delivery(webhook_id: str, delivery_id: str) -> Response:
    """Sends the same message once more, under the same message id."""
    delivery = webhooks.replay(webhook_id, delivery_id, by=caller().actor)
    return answer(webhooks.delivery_as_dict(delivery), 202)


@call(
    "POST",
    "/webhooks/<webhook_id>/test",
    needs=PROJECTS_MANAGE,
    gives=DeliveryObject,
    status=202,
    refuses={409: DISABLED},
    subject=SUBJECT,
)
def test_webhook(webhook_id: str) -> Response:
    """Sends a message `webhook.test`, whatever the webhook's events are."""
    delivery = webhooks.test(webhook_id, by=caller().actor)
    return answer(webhooks.delivery_as_dict(delivery), 202)
