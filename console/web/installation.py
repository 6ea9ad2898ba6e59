"""The pages of the whole installation, for owners: its activity log, which also tells of people and
of projects that are gone; and how it does."""

from flask import Blueprint, Response, current_app, render_template
from flask.blueprints import BlueprintSetupState

from console import __version__, clock, projects, status
from console.web import actor
from console.web.activity import Log, export_log, show_log
from console.web.logs import Place

blueprint = Blueprint("installation", __name__)

SERVES_SINCE = "SERVES_SINCE"
CHANNEL_WORDS = {"webhook": "Webhooks", "mail": "Mail", "apprise": "Apprise"}


def _note_start(state: BlueprintSetupState) -> None:
    state.app.config[SERVES_SINCE] = clock.now()


blueprint.record(_note_start)


@blueprint.get("/activity")
def show_installation_activity() -> Response:
    slugs = {project.id: project.slug for project in projects.visible(actor())}
    return show_log(Log(None, Place("installation.show_installation_activity", {}), slugs))


@blueprint.get("/activity.<form>")
def export_installation_activity(form: str) -> Response:
    return export_log(None, form, "activity")


@blueprint.get("/status")
def show_status() -> str:
    return render_template(
        "installation/status.html",
        found=status.look(current_app.config["LATCHKEY"].data_dir, by=actor()),
        version=__version__,
        serves_since=current_app.config[SERVES_SINCE],
        channel_words=CHANNEL_WORDS,
        length=_length,
        a_minute_ago=clock.now() - clock.MINUTE,
        in_a_minute=clock.now() + clock.MINUTE,
    )


def _length(milliseconds: int) -> str:
    """`12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if milliseconds < clock.SECOND:
        return f"{milliseconds} ms"
    if milliseconds < clock.MINUTE:
        return f"{milliseconds // 100 / 10} s"
    seconds = milliseconds // clock.SECOND
    if milliseconds < clock.HOUR:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
