"""Messages to webhooks: written in the transaction of the event that they tell of, and sent until
they are taken, or for about a day.

At least once, however a process ends: the same message has the same id at every attempt. Order is
not promised: one that was refused comes again behind those that were not. How a message is signed
and sent is not known here.
"""

import random
from collections.abc import Iterable

from peewee import fn
from pydantic_core import to_json

from console import clock, db, secret
from console.models import DELIVERED, FAILED, PENDING, Delivery, Event, Letter, Project, Webhook
from console.outbound import Outcome

EVERY = "*"
# After each attempt but the last; about a day in all.
DELAYS = (
    5 * clock.SECOND, 5 * clock.MINUTE, 30 * clock.MINUTE, 2 * clock.HOUR, 5 * clock.HOUR,
    10 * clock.HOUR, 10 * clock.HOUR,
)  # fmt: skip
JITTER = 0.1
LEASE = 30 * clock.SECOND  # longer than any attempt takes
SLACK = clock.MINUTE  # by which the clocks of two machines may differ
KEPT = 30 * clock.DAY


def covers(patterns: Iterable[str], action: str) -> bool:
    """Whether one of `key.created`, `key.*` and `*` means this action."""
    return not {action, f"{action.partition('.')[0]}.*", EVERY}.isdisjoint(patterns)


def listeners(project_id: str | None, action: str) -> list[str]:
    """The enabled webhooks of the project that want to hear of this, held for this transaction."""
    if project_id is None:
        return []
    query = Webhook.select(Webhook.id, Webhook.events)
    query = query.where(Webhook.project == project_id, Webhook.enabled)
    if not db.is_sqlite():  # one that is deleted meanwhile must not fail the event
        query = query.for_update("FOR KEY SHARE")  # type: ignore[arg-type]
    return [webhook.id for webhook in query if covers(webhook.events, action)]


def enqueue(event: Event, told: Iterable[str], at: int) -> None:
    """A message for each of the webhooks, but for those that the same change removed."""
    there = [one.id for one in Webhook.select(Webhook.id).where(Webhook.id.in_(list(told)))]
    if there:
        payload, message_id = message(event), secret.random_id("msg")
        for webhook_id in there:
            put(webhook_id, event.action, payload, message_id, at)


def message(event: Event) -> str:
    """The body, after the Standard Webhooks specification."""
    at = clock.iso(event.at)
    actor = {"kind": event.actor_kind, "id": event.actor_id, "name": event.actor_name}
    data = {
        "id": event.id,
        "at": at,
        "action": event.action,
        "project": Project.get_by_id(event.project_id).slug,
        "actor": actor,
        "target": {"id": event.target_id, "name": event.target_name},
        "changes": event.changes,
        "request_id": event.request_id,
    }
    return to_json({"type": event.action, "timestamp": at, "data": data}).decode()


def put(
    webhook_id: str, action: str, payload: str, message_id: str, at: int | None = None
) -> Delivery:
    """A delivery that is due at once. `at`: now, where not given."""
    now = clock.now() if at is None else at
    return Delivery.create(
        id=secret.random_id("dlv"),
        webhook=webhook_id,
        message_id=message_id,
        event=action,
        payload=payload,
        status=PENDING,
        created_at=now,
        next_attempt_at=now,
    )


def claim(under_way: Iterable[str] = ()) -> Delivery | None:
    """A delivery that is due, and its webhook, which is leased until it is concluded: nothing else
    is sent there meanwhile, by whatever process. Of several webhooks the one served longest ago;
    none to which this process sends just now, whatever the clock says of that lease."""
    now = clock.now()
    due = Delivery.select().where(Delivery.webhook == Webhook.id, Delivery.next_attempt_at <= now)
    is_free = Webhook.leased_until <= now, Webhook.id.not_in(list(under_way))
    free = Webhook.select().where(Webhook.enabled, *is_free, fn.EXISTS(due))
    webhook = free.order_by(Webhook.leased_until, Webhook.id).first()
    return _lease(webhook, now) if webhook else None


@db.transaction
def _lease(webhook: Webhook, now: int) -> Delivery | None:
    query = Delivery.select().where(Delivery.webhook == webhook, Delivery.next_attempt_at <= now)
    delivery = query.order_by(Delivery.next_attempt_at).first()
    is_free = Webhook.id == webhook.id, Webhook.leased_until <= now
    leased = Webhook.update(leased_until=now + LEASE).where(*is_free)
    if delivery is None or not leased.execute():
        return None  # another process was first
    delivery.webhook = Webhook.get_by_id(webhook.id)
    delivery.attempts += 1
    delivery.last_attempt_at = now
    delivery.save(only=[Delivery.attempts, Delivery.last_attempt_at])
    return delivery  # type: ignore[no-any-return]


def conclude(claimed: Delivery, outcome: Outcome, *, is_last: bool = False) -> None:
    """Writes down what came of an attempt, and lets the next message go to its webhook."""
    webhook, now = claimed.webhook, clock.now()
    leased = Webhook.id == webhook.id, Webhook.leased_until == webhook.leased_until
    Webhook.update(leased_until=now).where(*leased).execute()
    db.hold(Delivery, claimed.id)
    delivery = Delivery.get_or_none(Delivery.id == claimed.id)
    if delivery is None or (delivery.status != PENDING and outcome.error):
        return  # it was ended meanwhile, or who took over an old lease has delivered it
    delivery.response_status = outcome.status
    delivery.duration_ms = outcome.duration_ms
    note_attempt(delivery, outcome.error, now, is_last=is_last)
    delivery.save(only=delivery.dirty_fields)


def note_attempt(
    sent: Delivery | Letter, error: str | None, now: int, *, is_last: bool = False
) -> None:
    """What an attempt makes of what was sent: done, failed for good, or due again later."""
    sent.error = error
    if error is None:
        sent.status, sent.next_attempt_at = DELIVERED, None
    elif is_last or sent.attempts > len(DELAYS):
        sent.status, sent.next_attempt_at = FAILED, None
    else:
        delay = DELAYS[sent.attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
        sent.next_attempt_at = now + round(delay)


def hurry() -> None:
    """After the clock was set back: what was to be tried again at a time that is now far off is due
    at once, and no lease holds for longer than one may."""
    now = clock.now()
    with db.write():
        far = now + LEASE + SLACK
        Webhook.update(leased_until=0).where(Webhook.leased_until > far).execute()
        early = (Delivery.created_at > now + SLACK) | (Delivery.last_attempt_at > now + SLACK)
        Delivery.update(next_attempt_at=now).where(Delivery.next_attempt_at > now, early).execute()


def end_pending(webhook: Webhook) -> None:
    """Gives up what is still to be sent to a webhook that was disabled."""
    ended = {"status": FAILED, "next_attempt_at": None, "error": "the webhook was disabled"}
    pending = Delivery.webhook == webhook, Delivery.next_attempt_at.is_null(False)
    Delivery.update(ended).where(*pending).execute()


def prune(most: int) -> int:
    """Deletes at most so many deliveries that have long been done; returns how many went."""
    old = Delivery.created_at < clock.now() - KEPT, Delivery.next_attempt_at.is_null()
    some = Delivery.select(Delivery.id).where(*old).limit(most)
    return int(Delivery.delete().where(Delivery.id.in_(some)).execute())
