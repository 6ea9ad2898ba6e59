"""Alerts in JSON: what people should know of their keys, and what they make of it."""

from flask import Response

from console import alerts
from console.alerts import AlertChange, AlertObject, AlertQuery
from console.api import answer, caller, listed, object_body, query
from console.api.calls import ListOf, call
from console.permissions import AUDIT_READ, KEYS_WRITE

SUBJECT = "Alerts"


@call(
    "GET",
    "/alerts",
    needs=AUDIT_READ,
    query=AlertQuery,
    gives=ListOf(AlertObject),
    subject=SUBJECT,
)
def list_alerts() -> Response:
    """The alerts that you may see, newest first; those that are open, unless you ask for others.

    Each cause is told once within its window. A member sees those of their own keys; owners those
    of the installation, too.
    """
    given = query().model_dump(exclude_unset=True)
    return answer(listed(alerts.page(by=caller().actor, **given), alerts.as_dict))


@call("GET", "/alerts/<alert_id>", needs=AUDIT_READ, gives=AlertObject, subject=SUBJECT)
def read_alert(alert_id: str) -> Response:
    """One alert."""
    return answer(alerts.as_dict(alerts.alert_to_see(alert_id, by=caller().actor)))


@call(
    "PATCH",
    "/alerts/<alert_id>",
    needs=KEYS_WRITE,
    takes=AlertChange,
    gives=AlertObject,
    example={"state": "acknowledged"},
    subject=SUBJECT,
)
def change_alert(alert_id: str) -> Response:
    """Acknowledges, mutes or opens an alert.

    While one is muted, nobody is told of the same kind of the same key again.
    """
    return answer(alerts.as_dict(alerts.change(alert_id, object_body(), by=caller().actor)))
