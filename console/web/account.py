"""One's own account: name, password, second factor, and where one is signed in."""

import re

import segno
from flask import Blueprint, current_app, render_template, request, url_for
from flask_login import current_user
from markupsafe import Markup
from werkzeug.wrappers import Response as BaseResponse

from console import account, clock, country, second_factor, sessions
from console.errors import Conflict, Invalid
from console.models import Session
from console.second_factor import Enrolment
from console.web import actor, confirm_first, done, invalid, known_browser

blueprint = Blueprint("account", __name__, url_prefix="/account")

Answer = str | tuple[str, int] | BaseResponse

# What programs call themselves, the most telling first: most claim to be others, too.
PROGRAMS = (
    (r"Edg\w*/", "Edge"), (r"OPR/|Opera", "Opera"), (r"SamsungBrowser/", "Samsung Internet"),
    (r"Firefox/|FxiOS/", "Firefox"), (r"Chrome/|CriOS/|Chromium/", "Chrome"),
    (r"Safari/", "Safari"),
)  # fmt: skip
SYSTEMS = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"),
    ("Mac OS X|Macintosh", "macOS"), ("CrOS", "ChromeOS"), ("Linux|X11", "Linux"),
)  # fmt: skip
PROGRAM = re.compile(r"[A-Za-z][\w .-]{0,39}")


@blueprint.get("")
def show_account() -> Answer:
    return _page({}, {})


def _page(form: dict[str, str], errors: dict[str, str]) -> str:
    by = actor()
    me = account.of(by)
    return render_template(
        "account/show.html",
        person=me,
        form={"name": me.name, **form},
        errors=errors,
        factor=second_factor.state_of(me.id),
        sessions=[_told(one) for one in sessions.of_person(by=by)],
    )


def _told(session: Session) -> dict[str, object]:
    """A session as the table says it."""
    code = country.of(session.ip)
    return {
        "session": session,
        "is_this_one": sessions.is_of(session, current_user.token),
        "is_token": session.kind == sessions.TOKEN,
        "client": client_words(session.user_agent),
        "country": code,
        "is_recent": clock.now() - session.last_seen_at < sessions.SEEN_EVERY,
    }


def client_words(user_agent: str) -> str:
    """`Firefox on Linux`: what somebody recognises of what their browser calls itself."""
    program = next((name for mark, name in PROGRAMS if re.search(mark, user_agent)), None)
    system = next((name for mark, name in SYSTEMS if re.search(mark, user_agent)), None)
    if program is None:
        named = PROGRAM.match(user_agent)
        return named[0] if named else "Unknown program"
    return f"{program} on {system}" if system else program


@blueprint.post("/name")
def rename_account() -> Answer:
    try:
        account.rename({"name": request.form.get("name", "")}, by=actor())
    except Invalid as error:
        return _page(request.form.to_dict(), error.fields), 422
    return _done("Name saved")


@blueprint.route("/password", methods=["GET", "POST"])
def change_password() -> Answer:
    token, by = current_user.token, actor()
    context = {"person": account.of(by), "asks_old": account.needs_old_password(token, by=by)}
    if request.method != "POST":
        confirm_first()
        return render_template("account/password.html", errors={}, **context)
    fields = {name: request.form[name] for name in ("old_password", "password")
              if name in request.form}  # fmt: skip
    try:
        ended = account.change_password(token, fields, by=by, browser=known_browser.presented())
    except Invalid as error:
        return invalid("account/password.html", error, **context)
    return _done(f"Password changed. {_others(ended)}")


def _others(ended: int) -> str:
    if not ended:
        return "You were signed in nowhere else."
    return f"{ended} other session{'s' * (ended != 1)} ended."


# --- the second factor ------------------------------------------------------------------------


@blueprint.route("/second-factor", methods=["GET", "POST"])
def add_second_factor() -> Answer:
    """Step 1: what the app scans, and its first code. Step 2: the recovery codes, this once."""
    by = actor()
    if request.method != "POST":
        confirm_first()
        return _ask_for_code(second_factor.begin_enrolment(by=by))
    sealed = request.form.get("seed", "")
    try:
        codes = second_factor.enrol(
            sealed, request.form.get("code", ""), token=current_user.token, by=by
        )
    except Invalid as error:
        return _ask_for_code(second_factor.continue_enrolment(sealed, by=by), error)
    return _show_codes(codes, is_new=True)


def _ask_for_code(enrolment: Enrolment, error: Invalid | None = None) -> Answer:
    picture = segno.make(enrolment.uri, error="m").svg_inline(
        omitsize=True, border=3, dark="#000", light="#fff", svgclass=None, lineclass=None
    )
    groups = [enrolment.seed[start : start + 4] for start in range(0, len(enrolment.seed), 4)]
    shown = {"enrolment": enrolment, "picture": Markup(picture), "text": " ".join(groups)}  # noqa: S704
    if error is not None:
        return invalid("account/second_factor.html", error, **shown)
    return render_template("account/second_factor.html", errors={}, **shown)


@blueprint.route("/second-factor/remove", methods=["GET", "POST"])
def remove_second_factor() -> Answer:
    if request.method != "POST":
        confirm_first()
        if not second_factor.state_of(account.of(actor()).id).is_on:
            raise Conflict("You have no second factor.")
        return render_template("account/second_factor_remove.html")
    second_factor.remove(token=current_user.token, by=actor())
    return _done("Second factor removed")


@blueprint.route("/recovery-codes", methods=["GET", "POST"])
def make_recovery_codes() -> Answer:
    if request.method != "POST":
        confirm_first()
        state = second_factor.state_of(account.of(actor()).id)
        if not state.is_on:
            raise Conflict("You have no second factor.")
        return render_template("account/recovery_codes_make.html", factor=state)
    return _show_codes(second_factor.make_recovery_codes(by=actor()), is_new=False)


def _show_codes(codes: list[str], *, is_new: bool) -> BaseResponse:
    """The one answer that has them: no redirect, no cache, no session."""
    page = render_template("account/recovery_codes.html", codes=codes, is_new=is_new)
    return current_app.make_response(page)


# --- sessions ---------------------------------------------------------------------------------


@blueprint.post("/sessions/<handle>/end")
def end_session(handle: str) -> Answer:
    sessions.end(handle, by=actor())
    return _done("Session ended")


@blueprint.post("/sessions/end-others")
def end_other_sessions() -> Answer:
    return _done(_others(sessions.end_others(current_user.token, by=actor())))


def _done(notice: str) -> BaseResponse:
    return done(notice, url_for("account.show_account"), leaves=True)
