"""Coming in and going out: set-up, invitation, sign-in, sign-out, the way to the first page."""

import json
import re
from dataclasses import astuple

import peewee
from flask import (
    Blueprint,
    Response,
    flash,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_login import current_user, login_user, logout_user
from werkzeug.wrappers import Response as BaseResponse

from console import first_owner, invitations, people, projects, sessions, signin, wire
from console.errors import Invalid, Limited, Refused, Unauthenticated, Unavailable
from console.signin import CodeRequired, Pending
from console.web import SignedIn, actor, anonymous, client_ip, invalid, known_browser
from console.web.project_list import list_projects

blueprint = Blueprint("access", __name__)

# A slash first, and never two side by side before the query: what drops the dot of /.//host goes
# to a host. To browsers a backslash is a slash, and they drop white space before they read.
LOCAL_PATH = re.compile(r"(?![^?]*[/\\]{2})/[!-~]*")

Answer = str | tuple[str, int] | BaseResponse


@blueprint.get("/")
def home() -> Answer:
    """The first page that makes sense for whoever comes."""
    if not current_user.is_authenticated:
        if not people.anybody_yet():
            return render_template("access/waiting.html")
        return redirect(url_for("access.log_in"), 303)
    mine = projects.visible(actor())
    if len(mine) == 1:
        return redirect(url_for("keys.list_keys", slug=mine[0].slug), 303)
    return list_projects()


@blueprint.route("/setup", methods=["GET", "POST"])
def set_up() -> Answer:
    """The first person, by the link that the server printed."""
    token = request.values.get("token", "")
    first_owner.refuse_setup_unless_open(token)
    context = {"token": token, "form": request.form, "asks_project": not projects.any_yet()}
    if request.method != "POST":
        return render_template("access/setup.html", errors={}, **context)
    fields = {name: request.form[name] for name in ("email", "password") if name in request.form}
    fields.update(_filled("name", "project"))
    try:
        first_owner.set_up(token, fields, by=anonymous())
    except Invalid as error:
        return invalid("access/setup.html", error, **context)
    return _enter_first(fields["email"], fields["password"], "Latchkey is set up.")


@blueprint.route("/invitation", methods=["GET", "POST"])
def join() -> Answer:
    """Somebody who was invited chooses a password, by the link that an owner gave them."""
    token = request.values.get("token", "")
    person = invitations.invited(token)
    context = {"token": token, "email": person.email}
    if request.method != "POST":
        form = {"name": person.name}
        return render_template("access/invitation.html", errors={}, form=form, **context)
    fields = {"password": request.form.get("password", ""), **_filled("name")}
    try:
        joined = invitations.join(token, fields, by=anonymous())
    except Invalid as error:
        return invalid("access/invitation.html", error, form=request.form, **context)
    return _enter_first(joined.email, fields["password"], "You have joined.")


def _enter_first(email: str, password: str, done: str) -> Answer:
    """Signs in who has just come to be; where they have to wait for it, that is not undone, and
    their link leads nowhere by now."""
    try:
        return _enter(email, password)
    except (Limited, Unavailable, peewee.PeeweeException) as error:
        refused = wire.as_refused(error, g.request_id)
        flash(json.dumps({"words": f"{done} {refused.message}"}))
        return redirect(url_for("access.log_in"), 303)


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> Answer:
    if current_user.is_authenticated:
        return redirect(local_path(request.args.get("next")) or url_for("access.home"), 303)
    if request.method != "POST":
        return render_template("access/login.html", form=request.form)
    try:
        return _enter(request.form.get("email", ""), request.form.get("password", ""))
    except (Unauthenticated, Limited, Unavailable) as error:
        page = render_template("access/login.html", form=request.form, error=error)
        return _refused(page, error)


@blueprint.route("/login/code", methods=["GET", "POST"])
def give_code() -> Answer:
    """The code of the second factor, from somebody whose password was right a moment ago."""
    try:
        pending = Pending(*session["pending"])
        person = signin.person_of(pending)
    except (KeyError, TypeError):
        return redirect(url_for("access.log_in"), 303)
    except Unauthenticated as error:
        del session["pending"]
        flash(json.dumps({"words": error.message}))
        return redirect(url_for("access.log_in", next=session.get("pending_next")), 303)
    context = {"email": person.email, "is_recovery": "recovery" in request.args}
    if request.method != "POST":
        return render_template("access/code.html", **context)
    try:
        token, person = signin.with_code(
            pending, request.form.get("code", ""), ip=client_ip(), request_id=g.request_id,
            browser=known_browser.presented(), user_agent=request.headers.get("User-Agent", ""),
        )  # fmt: skip
        return enter(token, person.id, session.get("pending_next"))
    except (Unauthenticated, Limited) as error:
        return _refused(render_template("access/code.html", error=error, **context), error)


@blueprint.post("/logout")
def log_out() -> Answer:
    if not current_user.is_authenticated:
        return redirect(url_for("access.log_in"), 303)
    sessions.sign_out(current_user.token, by=actor())
    logout_user()
    session.clear()
    response = redirect(url_for("access.log_in"), 303)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def _refused(page: str, error: Refused) -> Answer:
    after = error.retry_after_seconds
    return Response(page, error.status, {} if after is None else {"Retry-After": str(after)})


def _enter(email: str, password: str) -> BaseResponse:
    """Signs in with a password; whoever has a second factor is asked for its code first."""
    wanted = request.args.get("next")
    try:
        token, person = signin.with_password(
            email, password, ip=client_ip(), browser=known_browser.presented(),
            user_agent=request.headers.get("User-Agent", ""), request_id=g.request_id,
        )  # fmt: skip
    except CodeRequired as needed:
        session["pending"] = [*astuple(needed.pending)]
        session["pending_next"] = local_path(wanted)
        return redirect(url_for("access.give_code"), 303)
    return enter(token, person.id, wanted)


def enter(token: str, person_id: str, wanted: str | None = None) -> BaseResponse:
    """Signs this browser in with the token of a session that has just begun, whichever way, and
    goes where the person wanted to. Nothing of what the cookie held before stays in it."""
    if current_user.is_authenticated:  # somebody else, until now
        sessions.sign_out(current_user.token, by=actor())
    session.clear()
    session.permanent = True
    signed_in = sessions.by_session(token)
    if signed_in is None:
        raise Refused("The session could not be opened. Try again.")
    login_user(SignedIn(token, signed_in))
    response = redirect(local_path(wanted) or url_for("access.home"), 303)
    known_browser.remember(response, person_id)
    return response


def local_path(target: str | None) -> str | None:
    """Only a path of this console: never somebody else's address, however it is disguised."""
    return target if target and LOCAL_PATH.fullmatch(target) else None


def _filled(*names: str) -> dict[str, str]:
    return {name: request.form[name] for name in names if request.form.get(name, "").strip()}
