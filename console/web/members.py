"""Members of a project: the list, and the dialogs that give, change and take roles."""

from typing import Any

from flask import Blueprint, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import invitations, members, person_rows
from console.actor import ADMIN_ROLE, MEMBER, VIEWER
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Refused
from console.members import Member
from console.models import Key
from console.web import actor, confirm_first, done, enter, invalid, is_htmx
from console.web.people import Answer, show_after, show_link

blueprint = Blueprint("members", __name__, url_prefix="/projects/<slug>/people")

ROLES = (
    (ADMIN_ROLE, "Admin", "Does everything in this project: its keys, settings and members."),
    (MEMBER, "Member", "Creates keys; sees and changes only their own."),
    (VIEWER, "Viewer", "Reads keys and logs, changes nothing."),
)
NAMED = 10  # keys that a dialog tells by name


@blueprint.get("")
def list_members(slug: str) -> str:
    """The page; only its list when the page asks for it again."""
    enter(slug)
    page = members.page(slug, by=actor(), cursor=request.args.get("cursor") or None)
    is_part = is_htmx() and request.headers.get("HX-Target") == "members"
    template = "members/_list.html" if is_part else "members/list.html"
    return render_template(template, page=page, is_invited=person_rows.is_invited)


@blueprint.route("/new", methods=["GET", "POST"])
def add_member(slug: str) -> Answer:
    """Gives a role to somebody, who may be new."""
    enter(slug)
    members.project_to_lead(slug, by=actor())
    if request.method != "POST":
        confirm_first()
        return _ask("members/new.html", slug, form={"role": MEMBER})
    fields = {name: request.form.get(name, "") for name in ("email", "role")}
    if name := request.form.get("name", "").strip():
        fields["name"] = name
    try:
        member, sent = members.add(slug, fields, by=actor())
    except (Invalid, Conflict, NotFresh) as error:
        return _ask("members/new.html", slug, error=error, keeps=True)
    person = member.person
    if sent is not None and (sent.url or sent.failure):
        return show_link(person, sent, back=_list(slug), title=f"{person.name} is invited")
    if sent is not None:
        return _done(slug, member, f"{person.email} is invited: the link was mailed to them")
    if person_rows.is_invited(person):
        return _done(slug, member, f"{person.name} is added. They have not joined yet: an owner "
                     "has to give them a link")  # fmt: skip
    return _done(slug, member, f"{person.name} is added")


@blueprint.route("/<person_id>/role", methods=["GET", "POST"])
def change_role(slug: str, person_id: str) -> Answer:
    project = enter(slug)
    member = _member_to_change(slug, person_id)
    mighty = members.keys_into_console(person_id).get(project.id, 0)
    shown: dict[str, Any] = {"member": member, "mighty": mighty}
    if request.method != "POST":
        confirm_first()
        return _ask("members/role.html", slug, form={"role": member.role}, **shown)
    try:
        fields = {"role": request.form.get("role", "")}
        changed = members.change_role(slug, person_id, fields, by=actor())
    except (Invalid, Conflict, NotFresh) as error:
        return _ask("members/role.html", slug, error=error, keeps=True, **shown)
    words = next(words for role, words, _ in ROLES if role == changed.role)
    return _done(slug, changed, f"{changed.person.name} is {_article(words)} {words.lower()} now")


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOU" else "a"


@blueprint.route("/<person_id>/remove", methods=["GET", "POST"])
def remove_member(slug: str, person_id: str) -> Answer:
    """Takes a member's role; what they own is said before and after."""
    enter(slug)
    member = _member_to_change(slug, person_id)
    is_me = person_id == actor().id
    shown: dict[str, Any] = {"member": member, "keys": _keys(slug, member), "is_me": is_me}
    if request.method != "POST":
        confirm_first()
        return _ask("members/remove.html", slug, **shown)
    try:
        removed = members.remove(slug, person_id, by=actor())
    except Conflict as error:
        return _ask("members/remove.html", slug, error=error, **shown)
    notice = f"{member.person.name} is removed from this project"
    if not removed.keys or is_me:
        return _done(slug, removed, notice)
    told = {**shown, "member": removed, "back": _list(slug), "notice": notice}
    return show_after("members/removed.html", removed.person, **told)


@blueprint.route("/<person_id>/invitation", methods=["GET", "POST"])
def invite_member(slug: str, person_id: str) -> Answer:
    """A new link for somebody who has not joined yet."""
    enter(slug)
    member = _member_to_change(slug, person_id)
    if request.method != "POST":
        confirm_first()
        may = invitations.may_invite(member.person, actor())
        return _ask("members/invitation.html", slug, member=member, may_invite=may)
    try:
        sent = members.invite(slug, person_id, by=actor())
    except (Conflict, Forbidden) as error:
        return _ask("members/invitation.html", slug, error=error, member=member, may_invite=True)
    return show_link(member.person, sent, back=_list(slug), title="New invitation")


def _member_to_change(slug: str, person_id: str) -> Member:
    return members.member_to_see(slug, person_id, by=actor())


def _keys(slug: str, member: Member) -> list[Key]:
    return members.keys_of(slug, member.person.id, by=actor(), most=NAMED)


def _ask(
    template: str,
    slug: str,
    *,
    error: Refused | None = None,
    keeps: bool = False,
    **context: Any,
) -> Answer:
    shown = {"roles": ROLES, "back": _list(slug), "form": request.form, **context}
    if error is not None:
        return invalid(template, error, keeps, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _done(slug: str, member: Member, notice: str) -> BaseResponse:
    return done(notice, _list(slug), key_id=member.person.id)


def _list(slug: str) -> str:
    return url_for("members.list_members", slug=slug)
