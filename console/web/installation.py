"""The activity log of the whole installation, for owners: of people, and of projects that are gone,
too."""

from flask import Blueprint, Response

from console import projects
from console.web import actor
from console.web.activity import Log, export_log, show_log
from console.web.logs import Place

blueprint = Blueprint("installation", __name__)


@blueprint.get("/activity")
def show_installation_activity() -> Response:
    slugs = {project.id: project.slug for project in projects.visible(actor())}
    return show_log(Log(None, Place("installation.show_installation_activity", {}), slugs))


@blueprint.get("/activity.<form>")
def export_installation_activity(form: str) -> Response:
    return export_log(None, form, "activity")
