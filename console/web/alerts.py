"""Alerts: what waits for somebody, in all projects that they see, and what they make of it."""

from typing import Any

from flask import Blueprint, g, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import alert_words, alerts, projects
from console.alert_rules import KINDS
from console.models import ACKNOWLEDGED, MUTED, OPEN, Alert
from console.permissions import KEYS_WRITE
from console.web import actor, done, is_htmx

blueprint = Blueprint("alerts", __name__, url_prefix="/alerts")

STATE_WORDS = {OPEN: "Open", ACKNOWLEDGED: "Acknowledged", MUTED: "Muted", alerts.ANY: "All"}
DONE_WORDS = {OPEN: "Open again", ACKNOWLEDGED: "Acknowledged", MUTED: "Muted"}
FILTERS = ("state", "kind", "project", "key")
LIMIT = 25


@blueprint.get("")
def list_alerts() -> str:
    """The page; only its list when the page asks for it again."""
    given = {name: text for name in FILTERS if (text := request.args.get(name, "").strip())}
    page = alerts.page(by=actor(), cursor=request.args.get("cursor") or None, limit=LIMIT, **given)
    is_part = is_htmx() and request.headers.get("HX-Target") == "alerts"
    template = "alerts/_list.html" if is_part else "alerts/list.html"
    return render_template(template, page=page, given=given, **_context(page.rows))


@blueprint.get("/bell")
def show_bell() -> str:
    """How many are open; the page asks again after each change."""
    return render_template("alerts/_bell.html", open_alerts=alerts.open_count(by=actor()))


@blueprint.get("/<alert_id>")
def show_alert(alert_id: str) -> str:
    alert = alerts.alert_to_see(alert_id, by=actor())
    if alert.project is not None:
        g.project = alert.project
    others = alerts.page(by=actor(), state=alerts.ANY, key=alert.key_id, limit=10).rows
    same = [one for one in others if one.id != alert.id] if alert.key_id else []
    is_part = is_htmx() and request.headers.get("HX-Target") == "alert"
    template = "alerts/_page.html" if is_part else "alerts/show.html"
    return render_template(template, alert=alert, others=same, **_context([alert, *same]))


@blueprint.post("/<alert_id>/state")
def change_alert(alert_id: str) -> BaseResponse:
    """Acknowledges, mutes or opens one."""
    state = request.form.get("state", "")
    alert = alerts.change(alert_id, {"state": state}, by=actor())
    return done(DONE_WORDS[alert.state], _back(alert))


@blueprint.post("/acknowledge")
def acknowledge_alerts() -> BaseResponse:
    """Acknowledges those that the page shows."""
    number = alerts.acknowledge_many(request.form.getlist("alert"), by=actor())
    words = "1 alert" if number == 1 else f"{number} alerts"
    return done(f"{words} acknowledged", url_for("alerts.list_alerts"))


def _back(alert: Alert) -> str:
    if request.form.get("back") == "alert":
        return url_for("alerts.show_alert", alert_id=alert.id)
    return url_for("alerts.list_alerts")


def _context(some: list[Alert]) -> dict[str, Any]:
    return {
        "headline": alert_words.headline,
        "advice": alert_words.advice,
        "kind_words": alert_words.NAMES,
        "kinds": KINDS,
        "states": STATE_WORDS,
        "may_change": {alert.id for alert in some if _may_change(alert)},
        "all_projects": projects.visible(actor()),
    }


def _may_change(alert: Alert) -> bool:
    if alert.project_id is None:
        return actor().is_owner
    return actor().may(KEYS_WRITE, alert.project_id)
