"""Step-up: asks whoever signed in a while ago to show that they are there, then goes on to where
they were going. By password, passkey or single sign-on, whichever they have."""

from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, session, url_for
from flask_login import current_user, login_user
from werkzeug.wrappers import Response as BaseResponse

from console import account, second_factor, sessions, signin
from console.errors import Limited, NotFresh, Refused, Unauthenticated, Unavailable
from console.web import SignedIn, actor, in_dialog, is_htmx, known_browser, path_of
from console.web.access import local_path

blueprint = Blueprint("confirm", __name__)

DIALOG = "dialog"


def ask(error: NotFresh) -> BaseResponse:
    """Instead of what was asked for; that comes afterwards."""
    wanted, is_dialog = _wanted()
    return _show(wanted, DIALOG if is_dialog else "", error)


def _wanted() -> tuple[str, bool]:
    """The address to go on to, and whether it is for the dialog. What a form was about to do is not
    done behind somebody's back: they get the form again, or the page on which it was."""
    here = request.full_path.rstrip("?")
    methods = request.url_rule.methods if request.url_rule else None
    if "GET" in (methods or ()):
        return here, in_dialog()
    page = request.headers.get("HX-Current-URL") or request.referrer
    return path_of(page) or url_for("access.home"), False


@blueprint.route("/confirm", methods=["GET", "POST"])
def confirm_presence() -> BaseResponse:
    """The password, and the code where there is one; then on to the address in `next`."""
    wanted, place = request.values.get("next", ""), request.values.get("place", "")
    if request.method != "POST":
        return _show(wanted, place)
    try:
        token = signin.confirm(
            current_user.token, request.form.get("password", ""), by=actor(),
            code=request.form.get("code", ""), browser=known_browser.presented(),
        )  # fmt: skip
    except (Unauthenticated, Limited, Unavailable) as error:
        return _show(wanted, place, error)
    return go_on(token, wanted, place)


def go_on(token: str, wanted: str | None, place: str = "") -> BaseResponse:
    """Where the person was going, signed in by the token that `sessions.confirm` gave; `place` says
    whether that is a dialog, as the form of `ask` had it."""
    confirmed = sessions.by_session(token)
    if confirmed is None:
        raise Unauthenticated("You are signed out. Sign in again.")
    login_user(SignedIn(token, confirmed))
    session.permanent = True
    target = local_path(wanted) or url_for("access.home")
    if is_htmx() and place != DIALOG:
        return Response("", 204, {"HX-Redirect": target})
    return redirect(target, 303)


def _show(wanted: str, place: str, error: Refused | None = None) -> BaseResponse:
    me = account.of(actor())
    context: dict[str, Any] = {
        "email": me.email,
        "has_password": me.password_hash is not None,
        "has_code": second_factor.is_on(me),
        "wanted": local_path(wanted) or url_for("access.home"),
        "place": place,
        "error": None if isinstance(error, NotFresh) else error,
        "shell": "bare.html" if is_htmx() else "page.html",
    }
    headers = {}
    if error is not None and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if is_htmx():
        headers |= {"HX-Retarget": "#dialog", "HX-Reswap": "innerHTML"}
    status = 200 if error is None else error.status
    return Response(render_template("account/confirm.html", **context), status, headers)
