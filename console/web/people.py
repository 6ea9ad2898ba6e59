"""People of the installation, for owners: the list, one person's page, and the dialogs that invite,
change, disable and delete. The one answer that carries a link is here."""

import json
from typing import Any

from flask import Blueprint, current_app, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import (
    activity,
    invitations,
    members,
    offboarding,
    people,
    person_rows,
    projects,
    second_factor,
)
from console.errors import Conflict, Invalid, NotFresh, Refused
from console.fields import edition
from console.invitations import Sent
from console.models import Person
from console.paging import Page
from console.web import actor, confirm_first, done, invalid, is_htmx

blueprint = Blueprint("people", __name__, url_prefix="/people")

Answer = str | tuple[str, int] | BaseResponse

ROLE_FIELD = "role."  # and the project's slug
ROWS = 50
RECENT = 10


@blueprint.get("")
def list_people() -> Answer:
    """Everybody, or who fits what is searched for; only the list when the page asks for it."""
    q = request.args.get("q", "").strip()
    error: Refused | None = None
    try:
        cursor = request.args.get("cursor") or None
        page = people.page(by=actor(), q=q or None, cursor=cursor, limit=ROWS)
    except Invalid as refused:
        error, page = refused, Page([], None, None)
    is_part = is_htmx() and request.headers.get("HX-Target") == "people"
    shown = render_template(
        "people/_list.html" if is_part else "people/list.html",
        page=page,
        found=people.as_dicts(page.rows),
        with_passkeys=people.with_passkeys(page.rows),
        q=q,
        filters={"q": q} if q else {},
        errors=error.fields if error else {},
        names={project.slug: project.name for project in projects.seen(actor())},
    )
    return (shown, 422) if error else shown


@blueprint.route("/new", methods=["GET", "POST"])
def create_person() -> Answer:
    """Invites somebody."""
    person_rows.refuse_but_owners(actor())
    if request.method != "POST":
        confirm_first()
        return _ask_new()
    fields: dict[str, Any] = {
        "email": request.form.get("email", ""),
        "owner": "owner" in request.form,
        "roles": _roles_sent(),
    }
    if name := request.form.get("name", "").strip():
        fields["name"] = name
    try:
        person, sent = people.create(fields, by=actor())
    except (Invalid, Conflict, NotFresh) as error:
        return _ask_new(error)
    assert sent is not None  # no password was given
    return show_link(person, sent, back=_list(), title=f"{person.name} is invited")


def _ask_new(error: Refused | None = None) -> Answer:
    mine = projects.visible(actor())
    return _ask("people/new.html", None, error=error, keeps=True, projects=mine)


@blueprint.get("/<person_id>")
def show_person(person_id: str) -> str:
    """One person's page; only its content when the page asks for it again."""
    person = _person(person_id)
    seen = projects.seen(actor())
    is_part = is_htmx() and request.headers.get("HX-Target") == "person"
    return render_template(
        "people/_page.html" if is_part else "people/show.html",
        person=person,
        facts=people.as_dict(person),
        with_passkeys=people.with_passkeys([person]),
        projects={project.slug: project.name for project in seen},
        names={},
        owned=people.owned_by(person_id, by=actor()),
        events=activity.page_of_target(person_id, limit=RECENT).rows,
        slugs={project.id: project.slug for project in seen},
        is_me=person_id == actor().id,
    )


@blueprint.route("/<person_id>/edit", methods=["GET", "POST"])
def edit_person(person_id: str) -> Answer:
    """Name and address."""
    person = _person(person_id)
    form = {"name": person.name, "email": person.email}
    fields = {name: request.form.get(name, "") for name in form}
    return _change("people/edit.html", person, fields, f"{person.name} saved", form=form)


@blueprint.route("/<person_id>/roles", methods=["GET", "POST"])
def change_roles(person_id: str) -> Answer:
    """The role in each project."""
    person = _person(person_id)
    roles = people.as_dict(person)["roles"]
    # A project that was made since the form was shown is none that it takes away.
    shown = {name.removeprefix(ROLE_FIELD) for name in request.form if name.startswith(ROLE_FIELD)}
    kept = {slug: role for slug, role in roles.items() if slug not in shown}
    seen = projects.seen(actor())
    mine = [one for one in seen if not one.archived_at or one.slug in roles]
    mighty = members.keys_into_console(person_id)
    form = {f"{ROLE_FIELD}{slug}": role for slug, role in roles.items()}
    return _change(
        "people/roles.html", person, {"roles": {**kept, **_roles_sent()}},
        f"Roles of {person.name} saved", as_of=request.form.get("seen"), form=form, projects=mine,
        seen=edition(roles), roles=roles,
        names={one.slug: one.name for one in seen},
        mighty=[(one, mighty[one.id]) for one in seen if one.id in mighty],
    )  # fmt: skip


@blueprint.route("/<person_id>/owner", methods=["GET", "POST"])
def change_owner(person_id: str) -> Answer:
    """Makes an owner of somebody, or of an owner somebody with roles."""
    person = _person(person_id)
    wanted = not person.is_owner
    notice = f"{person.name} is an owner now" if wanted else f"{person.name} is no owner any more"
    # What the dialog said is done, whatever has become of it meanwhile.
    fields = {"owner": request.form.get("owner") == "yes"}
    return _change("people/owner.html", person, fields, notice)


@blueprint.route("/<person_id>/disable", methods=["GET", "POST"])
def disable_person(person_id: str) -> Answer:
    """Says what ends and what stays, and goes on to what stays."""
    person = _person(person_id)
    context = {**_keys_of(person_id), "is_me": person_id == actor().id}
    onwards = url_for("offboarding.show_offboarding", person_id=person_id)
    return _change("people/disable.html", person, {"disabled": True},
                   f"{person.name} is disabled", onwards=onwards, **context)  # fmt: skip


@blueprint.route("/<person_id>/enable", methods=["GET", "POST"])
def enable_person(person_id: str) -> Answer:
    person = _person(person_id)
    notice = f"{person.name} is enabled"
    return _change("people/enable.html", person, {"disabled": False}, notice)


@blueprint.route("/<person_id>/delete", methods=["GET", "POST"])
def delete_person(person_id: str) -> Answer:
    person = _person(person_id)
    context = _keys_of(person_id)
    if request.method != "POST":
        confirm_first()
        return _ask("people/delete.html", person, **context)
    try:
        people.delete(person_id, by=actor())
    except Conflict as error:
        return _ask("people/delete.html", person, error=error, **context)
    return done(f"{person.name} is deleted", _list(), leaves=True)


@blueprint.route("/<person_id>/invitation", methods=["GET", "POST"])
def invite_person(person_id: str) -> Answer:
    """A new link for somebody who has chosen no password yet."""
    person = _person(person_id)
    if request.method != "POST":
        confirm_first()
        return _ask("people/invitation.html", person)
    try:
        sent = invitations.invite(person_id, by=actor())
    except Conflict as error:
        return _ask("people/invitation.html", person, error=error)
    return show_link(person, sent, back=_page(person), title="New invitation")


@blueprint.route("/<person_id>/password-reset", methods=["GET", "POST"])
def reset_password(person_id: str) -> Answer:
    """A link with which the person chooses another password."""
    person = _person(person_id)
    if request.method != "POST":
        confirm_first()
        return _ask("people/password_reset.html", person)
    try:
        sent = invitations.reset(person_id, by=actor())
    except Conflict as error:
        return _ask("people/password_reset.html", person, error=error)
    return show_link(person, sent, back=_page(person), title="Link to a new password")


@blueprint.route("/<person_id>/second-factor", methods=["GET", "POST"])
def remove_second_factor(person_id: str) -> Answer:
    """For somebody who has lost the phone, or the security key."""
    person = _person(person_id)
    if request.method != "POST":
        confirm_first()
        return _ask("people/second_factor.html", person)
    try:
        second_factor.remove_all(person_id, by=actor())
    except Conflict as error:
        return _ask("people/second_factor.html", person, error=error)
    return done(f"{person.name} has no second factor now", _page(person), key_id=person_id)


# --- what they share ------------------------------------------------------------------------


def show_link(person: Person, sent: Sent, *, back: str, title: str) -> BaseResponse:
    """What became of a link: mailed, or to be copied from this one answer, which nothing keeps."""
    return show_after("people/link.html", person, sent=sent, back=back, title=title)


def show_after(template: str, person: Person, **context: Any) -> BaseResponse:
    """What is to be read after a change, in place of a notice; the list behind fetches itself."""
    response = current_app.make_response(render_template(template, person=person, **context))
    response.headers["HX-Trigger"] = json.dumps({"keys-changed": {"id": person.id}})
    return response


def _person(person_id: str) -> Person:
    return people.person_to_see(person_id, by=actor())


def _keys_of(person_id: str) -> dict[str, Any]:
    """How many keys are theirs, how many of those are active, and of how many others that work they
    know the secret."""
    owned = people.owned_by(person_id, by=actor())
    active = sum(one.active for one in owned)
    # Read apart: in between, a key may have come to be theirs.
    known = max(0, offboarding.unsettled(person_id) - active)
    return {"keys": sum(one.keys for one in owned), "active": active, "known": known}


def _roles_sent() -> dict[str, str]:
    return {
        name.removeprefix(ROLE_FIELD): role
        for name, role in request.form.items()
        if name.startswith(ROLE_FIELD) and role
    }


def _change(
    template: str,
    person: Person,
    fields: dict[str, Any],
    notice: str,
    *,
    onwards: str | None = None,
    as_of: str | None = None,
    **context: Any,
) -> Answer:
    """A dialog, and the change that it asks for; then to the person's page, or onwards."""
    if request.method != "POST":
        confirm_first()
        return _ask(template, person, **context)
    try:
        people.edit(person.id, fields, by=actor(), as_of=as_of)
    except (Invalid, Conflict, NotFresh) as error:
        return _ask(
            template, person, error=error, **{**context, "form": request.form},
            keeps="form" in context,
        )  # fmt: skip
    return done(notice, onwards or _page(person), key_id=person.id, leaves=onwards is not None)


def _ask(
    template: str,
    person: Person | None,
    *,
    error: Refused | None = None,
    keeps: bool = False,
    **context: Any,
) -> Answer:
    back = _page(person) if person else _list()
    shown = {"person": person, "back": back, "form": request.form, **context}
    if error is not None:
        return invalid(template, error, keeps, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _page(person: Person) -> str:
    return url_for("people.show_person", person_id=person.id)


def _list() -> str:
    return url_for("people.list_people")
