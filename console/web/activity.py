"""The activity log of a project: who changed what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from console import activity, key_list
from console.errors import Invalid, Refused, Unknown
from console.models import Event, Key
from console.paging import Page
from console.web import actor, enter, is_htmx, logs
from console.web.logs import Asked, Place

blueprint = Blueprint("activity", __name__, url_prefix="/projects/<slug>")

ROWS = 50
NAMES_OFFERED = 100
FILTERS = tuple(activity.EventFilters.model_fields)
COLUMNS = tuple(activity.EventObject.__annotations__)


@dataclass(frozen=True, slots=True)
class Log:
    """A log to show: of a project, or of all (None); and the slugs of the projects whose keys its
    events may be about, by id."""

    project_id: str | None
    place: Place
    slugs: Mapping[str, str]


@blueprint.get("/activity")
def show_activity(slug: str) -> Response:
    project = enter(slug)
    place = Place("activity.show_activity", {"slug": slug})
    return show_log(Log(project.id, place, {project.id: slug}))


@blueprint.get("/activity.<form>")
def export_activity(slug: str, form: str) -> Response:
    return export_log(enter(slug).id, form, f"activity-{slug}")


def show_log(log: Log) -> Response:
    """The log as the address asks for it."""
    asked = Asked.of(FILTERS)
    page: Page[Event] = Page([], None, None)
    refused: Refused | None = None
    try:
        page = activity.page(
            log.project_id,
            by=actor(),
            filters=asked.filters,
            cursor=request.args.get("cursor") or None,
            limit=ROWS,
        )
    except (Invalid, Unknown) as error:
        refused = logs.refusal(error)
    return logs.show(
        "activity/list.html", "activity/_list.html", "events", log.place, asked, refused,
        page=page,
        events=page.rows,
        names=key_list.names_of({event.target_id for event in page.rows}),
        slugs=log.slugs,
        actions=activity.ACTIONS,
        groups=activity.GROUPS,
        **_offered(log),
    )  # fmt: skip


def _offered(log: Log) -> dict[str, Any]:
    """Who did something of late, and the keys that were used last: for whoever begins to type."""
    if is_htmx():
        return {"actors": [], "keys": []}
    used: list[Key] = []
    if log.project_id:
        slug = log.slugs[log.project_id]
        newest = key_list.page(by=actor(), project=slug, sort="-last_used_at", limit=NAMES_OFFERED)
        used = newest.rows
    return {
        "actors": activity.actors(log.project_id, by=actor()),
        "keys": list(dict.fromkeys(key.name for key in used)),
    }


def export_log(project_id: str | None, form: str, name: str) -> Response:
    """All of the log that fits the address, as a file."""
    filters = Asked.of(FILTERS).filters
    rows = activity.every(project_id, by=actor(), filters=filters, cursor=None, most=None)
    return logs.download(map(activity.as_dict, rows), COLUMNS, form, name)
