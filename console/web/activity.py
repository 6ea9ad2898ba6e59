"""The activity log of a project: who changed what."""

from typing import Any

from flask import Blueprint, Response, request

from console import activity, key_list
from console.errors import Invalid, Refused, Unknown
from console.models import Event
from console.paging import Page
from console.web import actor, enter, is_htmx, logs
from console.web.logs import Asked, Place

blueprint = Blueprint("activity", __name__, url_prefix="/projects/<slug>")

ROWS = 50
NAMES_OFFERED = 100
FILTERS = tuple(activity.EventFilters.model_fields)
COLUMNS = tuple(activity.EventObject.__annotations__)


@blueprint.get("/activity")
def show_activity(slug: str) -> Response:
    project = enter(slug)
    asked = Asked.of(FILTERS)
    page: Page[Event] = Page([], None, None)
    refused: Refused | None = None
    try:
        page = activity.page(
            project.id,
            by=actor(),
            filters=asked.filters,
            cursor=request.args.get("cursor") or None,
            limit=ROWS,
        )
    except (Invalid, Unknown) as error:
        refused = logs.refusal(error)
    place = Place("activity.show_activity", {"slug": slug})
    return logs.show(
        "activity/list.html", "activity/_list.html", "events", place, asked, refused,
        page=page,
        events=page.rows,
        names=key_list.names_of({event.target_id for event in page.rows}),
        actions=activity.ACTIONS,
        groups=activity.GROUPS,
        **_offered(slug, project.id),
    )  # fmt: skip


def _offered(slug: str, project_id: str) -> dict[str, Any]:
    """Who did something of late, and the keys that were used last: for whoever begins to type."""
    if is_htmx():
        return {"actors": [], "keys": []}
    page = key_list.page(by=actor(), project=slug, sort="-last_used_at", limit=NAMES_OFFERED)
    return {
        "actors": activity.actors(project_id, by=actor()),
        "keys": list(dict.fromkeys(key.name for key in page.rows)),
    }


@blueprint.get("/activity.<form>")
def export_activity(slug: str, form: str) -> Response:
    project = enter(slug)
    filters = Asked.of(FILTERS).filters
    rows = activity.all_of_project(project.id, by=actor(), filters=filters, cursor=None, most=None)
    return logs.download(map(activity.as_dict, rows), COLUMNS, form, f"activity-{slug}")
