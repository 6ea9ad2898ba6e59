"""The list of projects, and the dialogs that create, archive, restore and delete one."""

from typing import Any

from flask import Blueprint, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import overview, project_fields, projects, secret
from console.errors import Conflict, Forbidden, Invalid, Refused
from console.models import Project
from console.web import actor, confirm_first, done, enter, invalid

blueprint = Blueprint("projects", __name__, url_prefix="/projects")

Answer = str | tuple[str, int] | BaseResponse

FORMATS = (
    (secret.BASE62, "base62, with a checksum"),
    (secret.HEX32, "hex32, without a checksum"),
)
NEW = {"prefix": project_fields.DEFAULT_PREFIX, "key_format": secret.BASE62}


@blueprint.get("")
def list_projects() -> Answer:
    """The projects that one sees; those archived below."""
    rows = overview.of_all(by=actor())
    return render_template(
        "projects/list.html",
        rows=[row for row in rows if row.project.archived_at is None],
        archived=[row for row in rows if row.project.archived_at is not None],
        may_create=actor().is_owner,
    )


@blueprint.route("/new", methods=["GET", "POST"])
def create_project() -> Answer:
    if not actor().is_owner:
        raise Forbidden("Only an owner creates projects.")
    if request.method != "POST":
        return render_template("projects/create.html", form=NEW, errors={}, formats=FORMATS)
    form = request.form
    given = {name: form[name] for name in ("name", "prefix", "key_format") if form.get(name)}
    name = form.get("name", "").strip()
    slug = form.get("slug", "").strip() or (projects.free_slug(name) if name else "")
    try:
        project = projects.create({**given, "slug": slug}, by=actor())
    except (Invalid, Conflict) as error:
        return invalid("projects/create.html", error, form=form, formats=FORMATS)
    target = url_for("settings.show_settings", slug=project.slug)
    return done(f"{project.name} created", target, leaves=True)


@blueprint.route("/<slug>/archive", methods=["GET", "POST"])
def archive_project(slug: str) -> Answer:
    project = _project_to_end(slug)
    if request.method != "POST":
        return _ask("projects/archive.html", project)
    try:
        projects.archive(slug, by=actor(), confirm=request.form.get("confirm", ""))
    except Invalid as error:
        return _ask("projects/archive.html", project, error)
    return done(f"{project.name} archived", _settings(slug), leaves=True)


@blueprint.route("/<slug>/restore", methods=["GET", "POST"])
def restore_project(slug: str) -> Answer:
    project = _project_to_end(slug)
    if request.method != "POST":
        return _ask("projects/restore.html", project)
    projects.restore(slug, by=actor())
    return done(f"{project.name} restored", _settings(slug), leaves=True)


@blueprint.route("/<slug>/delete", methods=["GET", "POST"])
def delete_project(slug: str) -> Answer:
    project = _project_to_end(slug)
    if request.method != "POST":
        return _ask("projects/delete.html", project)
    try:
        projects.delete(slug, by=actor(), confirm=request.form.get("confirm", ""))
    except (Invalid, Conflict) as error:
        return _ask("projects/delete.html", project, error)
    return done(f"{project.name} deleted", url_for("projects.list_projects"), leaves=True)


def _project_to_end(slug: str) -> Project:
    """The project that a dialog is about: for owners, who are asked first whether it is them."""
    project = enter(slug)
    if not actor().is_owner:
        raise Forbidden("Only an owner archives, restores and deletes projects.")
    if request.method != "POST":
        confirm_first()
    return project


def _ask(template: str, project: Project, error: Refused | None = None) -> Answer:
    shown: dict[str, Any] = {
        "at_stake": overview.at_stake(project),
        "keys": projects.keys_in(project),
        "back": _settings(project.slug),
        "form": request.form,
    }
    if error is not None:
        return invalid(template, error, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _settings(slug: str) -> str:
    return url_for("settings.show_settings", slug=slug)
