"""The audit log: of one key, as a dialog and a page, and of a project."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, render_template, request

from console import audit, keys
from console.errors import Invalid
from console.models import Entry
from console.paging import Page
from console.web import actor, enter, is_htmx
from console.web.keys import key_here

blueprint = Blueprint("audit", __name__, url_prefix="/projects/<slug>")

ROWS = 25


@blueprint.get("/keys/<key_id>/audit-log")
def show_key_log(slug: str, key_id: str) -> tuple[str, int]:
    key = key_here(slug, key_id)
    return _show("audit/key.html", partial(audit.page_of_key, key_id), key=key)


@blueprint.get("/audit-log")
def show_project_log(slug: str) -> tuple[str, int]:
    project = enter(slug)
    attempts = audit.attempts() if actor().is_owner else []
    find = partial(audit.page_of_project, project.id)
    return _show("audit/project.html", find, key=None, attempts=attempts)


def _show(whole: str, find: Callable[..., Page[Entry]], **context: Any) -> tuple[str, int]:
    """The page, or only the entries when it asks for those; a filter at fault is named."""
    filters = {name: request.args[name] for name in audit.WHERE if request.args.get(name)}
    cursor = request.args.get("cursor") or None
    errors: dict[str, str] = {}
    try:
        page = find(by=actor(), filters=filters, cursor=cursor, limit=ROWS)
    except Invalid as error:
        page, errors = Page([], None, None), error.fields
    if context["key"] is None:
        context["names"] = keys.names_of({entry.key_id for entry in page.rows})
    fragment = is_htmx() and request.headers.get("HX-Target") == "entries"
    answer = render_template(
        "audit/_entries.html" if fragment else whole,
        page=page,
        filters=filters,
        errors=errors,
        endpoint=request.endpoint,
        **context,
    )
    return answer, 422 if errors else 200
