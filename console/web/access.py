"""Coming in and going out: set-up, invitation, sign-in, sign-out, the way to the first page."""

import re

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask_login import current_user, login_user, logout_user
from werkzeug.wrappers import Response as BaseResponse

from console import overview, people, projects
from console.errors import Invalid, Refused, Unauthenticated
from console.web import SignedIn, actor, anonymous, client_ip, invalid

blueprint = Blueprint("access", __name__)

# One slash first, and no white space, which browsers drop before they read an address.
LOCAL_PATH = re.compile(r"/(?![/\\])[!-~]*")

Answer = str | tuple[str, int] | BaseResponse


@blueprint.get("/")
def home() -> Answer:
    """The first page that makes sense for whoever comes."""
    if not current_user.is_authenticated:
        if not people.anybody_yet():
            return render_template("access/waiting.html")
        return redirect(url_for("access.sign_in"), 303)
    mine = projects.visible(actor())
    if len(mine) == 1:
        return redirect(url_for("keys.list_keys", slug=mine[0].slug), 303)
    return render_template("projects/list.html", rows=overview.of_all(by=actor()))


@blueprint.route("/setup", methods=["GET", "POST"])
def set_up() -> Answer:
    """The first person, by the link that the server printed."""
    token = request.values.get("token", "")
    people.refuse_setup_unless_open(token)
    context = {"token": token, "form": request.form, "asks_project": not projects.any_yet()}
    if request.method != "POST":
        return render_template("access/setup.html", errors={}, **context)
    fields = {name: request.form[name] for name in ("email", "password") if name in request.form}
    fields.update(_filled("name", "project"))
    try:
        people.set_up(token, fields, by=anonymous())
        return _enter(fields["email"], fields["password"])
    except Invalid as error:
        return invalid("access/setup.html", error, **context)


@blueprint.route("/invitation", methods=["GET", "POST"])
def join() -> Answer:
    """Somebody who was invited chooses a password, by the link that an owner gave them."""
    token = request.values.get("token", "")
    person = people.invited(token)
    context = {"token": token, "email": person.email}
    if request.method != "POST":
        form = {"name": person.name}
        return render_template("access/invitation.html", errors={}, form=form, **context)
    fields = {"password": request.form.get("password", ""), **_filled("name")}
    try:
        joined = people.join(token, fields, by=anonymous())
        return _enter(joined.email, fields["password"])
    except Invalid as error:
        return invalid("access/invitation.html", error, form=request.form, **context)


@blueprint.route("/login", methods=["GET", "POST"])
def sign_in() -> Answer:
    if current_user.is_authenticated:
        return redirect(url_for("access.home"), 303)
    if request.method != "POST":
        return render_template("access/login.html", form=request.form)
    try:
        return _enter(request.form.get("email", ""), request.form.get("password", ""))
    except Unauthenticated as error:
        return render_template("access/login.html", form=request.form, error=error), 401


@blueprint.post("/logout")
def sign_out() -> Answer:
    if not current_user.is_authenticated:
        return redirect(url_for("access.sign_in"), 303)
    people.sign_out(current_user.token, by=actor())
    logout_user()
    session.clear()
    response = redirect(url_for("access.sign_in"), 303)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _enter(email: str, password: str) -> BaseResponse:
    """Signs in under a fresh session and goes where the person wanted to."""
    token, _ = people.sign_in(
        email, password, ip=client_ip(), user_agent=request.headers.get("User-Agent", "")
    )
    if current_user.is_authenticated:  # somebody else, until now
        people.sign_out(current_user.token, by=actor())
    session.clear()
    session.permanent = True
    signed_in = people.by_session(token)
    if signed_in is None:
        raise Refused("The session could not be opened. Try again.")
    login_user(SignedIn(token, signed_in))
    return redirect(local_path(request.args.get("next")) or url_for("access.home"), 303)


def local_path(target: str | None) -> str | None:
    """Only a path of this console: never somebody else's address, however it is disguised."""
    return target if target and LOCAL_PATH.fullmatch(target) else None


def _filled(*names: str) -> dict[str, str]:
    return {name: request.form[name] for name in names if request.form.get(name, "").strip()}
