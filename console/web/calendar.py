"""A project's calendar, for whoever has its address, and the dialogs that make and remove that
address. They belong to the settings; the calendar is open, for no calendar program signs in.

The one answer that carries the address is here.
"""

import json

from flask import Blueprint, Response, current_app, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import calendar_feed
from console.errors import Conflict, Refused, Unknown
from console.models import Project
from console.permissions import PROJECTS_MANAGE
from console.web import actor, confirm_first, done, enter, invalid, settings

blueprint = Blueprint("calendar", __name__)

Answer = str | tuple[str, int] | BaseResponse
KIND = "text/calendar; charset=utf-8"


@blueprint.route("/calendar/<token>.ics", provide_automatic_options=False)
def show_feed(token: str) -> Response:
    """The calendar; of whatever else was asked for, always the same words."""
    try:
        content = calendar_feed.feed(token)
    except Unknown as error:  # our page says more, such as the address itself
        return Response(f"{error.message}\n", error.status, mimetype="text/plain")
    headers = {"Cache-Control": "private, no-store"}
    return Response(content, content_type=KIND, headers=headers)


@settings.blueprint.route("/calendar/link", methods=["GET", "POST"])
def make_calendar_link(slug: str) -> Answer:
    """Says whom a link lets see what, and which one it ends; then shows it once."""
    project = _project(slug)
    if request.method != "POST":
        confirm_first()
        return _ask("calendar/make.html", project)
    try:
        made = calendar_feed.make_link(slug, by=actor(), as_of=request.form.get("seen"))
    except Conflict as error:
        return _ask("calendar/make.html", enter(slug), error)
    page = render_template("calendar/link.html", url=made["url"], back=_back(slug))
    response = current_app.make_response(page)
    response.headers["HX-Trigger"] = json.dumps({"keys-changed": {"id": None}})
    return response


@settings.blueprint.route("/calendar/remove", methods=["GET", "POST"])
def remove_calendar_link(slug: str) -> Answer:
    project = _project(slug)
    if request.method != "POST":
        return _ask("calendar/remove.html", project)
    calendar_feed.remove_link(slug, by=actor())
    return done("The calendar link is removed", _back(slug))


def _project(slug: str) -> Project:
    project = enter(slug)
    actor().require(PROJECTS_MANAGE, project.id)
    return project


def _ask(template: str, project: Project, error: Refused | None = None) -> Answer:
    shown = {"seen": calendar_feed.edition(project), "back": _back(project.slug)}
    if error is not None:
        return invalid(template, error, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _back(slug: str) -> str:
    return url_for("settings.show_settings", slug=slug, _anchor="calendar")
