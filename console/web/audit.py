"""The audit log: of one key, as a dialog and a page, and of a project."""

from flask import Blueprint, render_template, request

from console import audit, keys
from console.web import actor, enter, is_htmx

blueprint = Blueprint("audit", __name__, url_prefix="/projects/<slug>")

ROWS = 25


@blueprint.get("/keys/<key_id>/audit-log")
def show_key_log(slug: str, key_id: str) -> str:
    enter(slug)
    key = keys.key_to_read(key_id, by=actor())
    filters = _filters()
    page = audit.page_of_key(
        key_id, by=actor(), filters=filters, cursor=request.args.get("cursor"), limit=ROWS
    )
    fragment = is_htmx() and request.headers.get("HX-Target") == "entries"
    template = "audit/_entries.html" if fragment else "audit/key.html"
    return render_template(
        template, key=key, page=page, filters=filters, endpoint="audit.show_key_log"
    )


@blueprint.get("/audit-log")
def show_project_log(slug: str) -> str:
    project = enter(slug)
    filters = _filters()
    page = audit.page_of_project(
        project.id, by=actor(), filters=filters, cursor=request.args.get("cursor"), limit=ROWS
    )
    fragment = is_htmx() and request.headers.get("HX-Target") == "entries"
    template = "audit/_entries.html" if fragment else "audit/project.html"
    return render_template(
        template,
        key=None,
        page=page,
        filters=filters,
        names=keys.names_of({entry.key_id for entry in page.rows}),
        attempts=audit.attempts() if actor().is_owner and not fragment else [],
        endpoint="audit.show_project_log",
    )


def _filters() -> dict[str, str]:
    return {name: request.args[name] for name in audit.FILTERS if request.args.get(name)}
