"""Offboarding: one page with all that somebody who leaves has to do with keys, and its dialogs."""

from typing import Any

from flask import Blueprint, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import key_list, key_owner, offboarding
from console.errors import Conflict, Forbidden, Invalid, Refused
from console.models import Person
from console.web import actor, confirm_first, done, invalid, is_htmx, words

blueprint = Blueprint("offboarding", __name__, url_prefix="/people/<person_id>/offboarding")

Answer = str | tuple[str, int] | BaseResponse


@blueprint.get("")
def show_offboarding(person_id: str) -> str:
    """The page; only its list when the page asks for it again."""
    by = actor()
    person = offboarding.person_to_see(person_id, by=by)
    page = offboarding.page(person_id, by=by, cursor=request.args.get("cursor") or None)
    is_part = is_htmx() and request.headers.get("HX-Target") == "offboarding"
    return render_template(
        "offboarding/_keys.html" if is_part else "offboarding/show.html",
        person=person,
        page=page,
        progress=offboarding.progress(person_id, by=by),
        graces=key_list.graces_of([case.key for case in page.rows]),
    )


@blueprint.route("/keys/<key_id>/hand-over", methods=["GET", "POST"])
def hand_over_key(person_id: str, key_id: str) -> Answer:
    """One key gets another owner."""
    case = offboarding.case(person_id, key_id, by=actor())
    context: dict[str, Any] = {"case": case, "people": _others(person_id, case.key.project_id)}
    if request.method != "POST":
        confirm_first()
        return _ask("offboarding/hand_over_key.html", person_id, **context)
    owner = request.form.get("owner", "")
    try:
        key = offboarding.hand_over_key(person_id, key_id, owner, by=actor())
    except (Invalid, Conflict, Forbidden) as error:
        return _ask("offboarding/hand_over_key.html", person_id, error=error, **context)
    return _done(person_id, f"{key.name} is now {owner}’s", key_id=key_id)


@blueprint.route("/hand-over", methods=["GET", "POST"])
def hand_over_keys(person_id: str) -> Answer:
    """All that is theirs gets another owner."""
    progress = offboarding.progress(person_id, by=actor())
    context: dict[str, Any] = {"progress": progress, "people": _others(person_id)}
    if request.method != "POST":
        confirm_first()
        return _ask("offboarding/hand_over_keys.html", person_id, **context)
    owner = request.form.get("owner", "")
    try:
        handed = offboarding.hand_over_keys(person_id, owner, by=actor())
    except (Invalid, Conflict, Forbidden) as error:
        return _ask("offboarding/hand_over_keys.html", person_id, error=error, **context)
    return _done(person_id, _told(handed, owner))


def _told(handed: offboarding.HandedOver, owner: str) -> str:
    told = f"{words.counted(handed.keys, 'key')} handed over to {owner}"
    if handed.without_role:
        projects = ", ".join(handed.without_role)
        return f"{told}; {handed.left} stay, for {owner} has no role in {projects}"
    return f"{told}; {handed.left} are left: do it again" if handed.left else told


@blueprint.route("/revoke", methods=["GET", "POST"])
def revoke_keys(person_id: str) -> Answer:
    """All that is not settled stops."""
    if request.method != "POST":
        confirm_first()
        number, recent = offboarding.to_revoke(person_id, by=actor())
        return _ask("offboarding/revoke_keys.html", person_id, number=number, recent=recent)
    number = offboarding.revoke_keys(person_id, by=actor())
    return _done(person_id, f"{words.counted(number, 'key')} revoked")


def _others(person_id: str, project_id: str | None = None) -> list[Person]:
    """Who may take over, among whom it is not the one who leaves."""
    return [one for one in key_owner.candidates(project_id) if one.id != person_id]


def _ask(template: str, person_id: str, *, error: Refused | None = None, **context: Any) -> Answer:
    shown = {
        "person": offboarding.person_to_see(person_id, by=actor()),
        "back": _page(person_id),
        "form": request.form,
        **context,
    }
    if error is not None:
        return invalid(template, error, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _done(person_id: str, notice: str, *, key_id: str | None = None) -> BaseResponse:
    return done(notice, _page(person_id), key_id=key_id)


def _page(person_id: str) -> str:
    return url_for("offboarding.show_offboarding", person_id=person_id)
