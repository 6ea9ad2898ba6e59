"""The activity log of a project: who changed what."""

from flask import Blueprint, render_template, request

from console import activity
from console.web import actor, enter

blueprint = Blueprint("activity", __name__, url_prefix="/projects/<slug>")


@blueprint.get("/activity")
def show_activity(slug: str) -> str:
    project = enter(slug)
    page = activity.page(project.id, by=actor(), cursor=request.args.get("cursor"))
    return render_template("activity/list.html", page=page)
