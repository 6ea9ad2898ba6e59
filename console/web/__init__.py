"""The browser's door: pages, dialogs and fragments. Session and CSRF token; forms only POST."""

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import (
    Flask,
    Response,
    current_app,
    flash,
    g,
    get_flashed_messages,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from config import Config
from console import api, projects, sessions, wire
from console.actor import Actor
from console.alerts import open_count as open_alerts
from console.errors import Invalid, NotFresh, Refused
from console.models import Project
from console.permissions import ADMIN, PROJECTS_MANAGE
from console.web import protection, request_log, words

JSON_PATHS = ("/api/", "/forward-auth/")
SIGNED_IN_PAGES = (
    "keys", "alerts", "audit", "activity", "overview", "integrate", "account", "confirm",
    "installation", "offboarding", "passkeys", "people", "members", "projects", "settings",
    "webhooks",
)  # fmt: skip


class _Sessions(SecureCookieSessionInterface):
    """Files are for every cache, and nobody's session is in the answer to one."""

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if request.endpoint != "static":
            super().save_session(app, session, response)


csrf = CSRFProtect()
login = LoginManager()


class SignedIn(UserMixin):  # type: ignore[misc]
    """Flask-Login's user: a session's token, and the person acting in this request."""

    def __init__(self, token: str, actor: Actor) -> None:
        self.token = token
        self.actor = actor

    def get_id(self) -> str:
        return self.token


def register(app: Flask, static_folder: Path) -> None:
    """Hangs the console's pages, sign-in, CSRF and error pages onto the application."""
    from console.web import (
        access,
        account,
        activity,
        alerts,
        audit,
        calendar,
        charts,
        confirm,
        docs,
        health,
        installation,
        integrate,
        key_forms,
        key_table,  # noqa: F401  (its pages, too, hang on the blueprint of keys)
        links,
        members,
        metrics,
        offboarding,
        overview,
        passkeys,
        people,
        project_list,
        settings,
        sso,
        static,
        theme,
        webhooks,
    )

    config: Config = app.config["LATCHKEY"]
    app.config.update(
        SESSION_COOKIE_NAME="__Host-latchkey" if config.is_https else "latchkey",
        SESSION_COOKIE_SECURE=config.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # Only what changes the session says it anew: the answer to a request that was under way
        # must not bring back a session that has ended, or been confirmed, meanwhile.
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(milliseconds=sessions.LENGTH[sessions.BROWSER]),
        WTF_CSRF_TIME_LIMIT=None,
        MAX_CONTENT_LENGTH=wire.BODY_MAX_BYTES,
    )
    app.session_interface = _Sessions()
    request_log.register(app)
    protection.register(app)
    csrf.init_app(app)
    csrf.exempt(api.blueprint)
    # Without its context processor: an error page must not ask the database who is there.
    login.init_app(app, add_context_processor=False)
    # Sessions are rows of ours; Flask-Login's own fingerprint trusts any forwarded address.
    login.session_protection = None
    login.user_loader(_load)
    static.register(app, static_folder)
    charts.register(app)
    for module in (
        access, links, account, alerts, confirm, passkeys, overview, key_forms, audit, activity,
        integrate, docs, health, metrics, theme, installation, offboarding, sso, people, members,
        project_list, settings, calendar, webhooks,
    ):  # fmt: skip
        app.register_blueprint(module.blueprint)
    app.register_error_handler(Exception, _show_error)
    app.before_request(_require_sign_in)
    app.context_processor(_context)
    words.register(app)


def _load(token: str) -> SignedIn | None:
    actor = sessions.by_session(token, ip=client_ip(), request_id=g.request_id)
    return SignedIn(token, actor) if actor else None


def _require_sign_in() -> BaseResponse | None:
    """Every page about a project is for somebody who is signed in."""
    if request.blueprint in SIGNED_IN_PAGES and not current_user.is_authenticated:
        return _ask_to_sign_in()
    return None


def _ask_to_sign_in() -> BaseResponse:
    if is_htmx() and request.method == "POST":
        return _keep_form(
            "You are signed out. Sign in in another tab, then press the button again."
        )
    if is_htmx():
        here = path_of(request.headers.get("HX-Current-URL"))
        return Response("", 401, {"HX-Redirect": url_for("access.log_in", next=here)})
    here = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("access.log_in", next=here), 303)


def _keep_form(words: str, status: int = 401, **more: Any) -> BaseResponse:
    """A refusal that leaves the page as it is, with all that was typed into it."""
    events = {"notice": {"words": words, "seconds": 15}, **more}
    return Response("", status, {"HX-Reswap": "none", "HX-Trigger": json.dumps(events)})


def path_of(address: str | None) -> str | None:
    """The path and query of an address of this installation, for a way back."""
    from console.web.access import local_path

    try:
        parts = urlsplit(address or "")
    except ValueError:  # such as http://[
        return None
    if not parts.path or parts.netloc != request.host:
        return None
    return local_path(f"{parts.path}?{parts.query}" if parts.query else parts.path)


def _context() -> dict[str, Any]:
    """What both shells need; of a page that says that something broke, nothing is looked up."""
    from console.web import theme

    me = None if g.get("is_broken") or not current_user.is_authenticated else actor()
    return {
        "shell": "bare.html" if in_dialog() else "page.html",
        "me": me,
        "open_alerts": open_alerts(by=me) if me and not is_htmx() else 0,
        "project": g.get("project"),
        "places": partial(_places, me) if me else None,
        "my_projects": projects.visible(me) if me and not is_htmx() else [],
        "notices": _notices,
        "theme": theme.chosen(),
    }


def _places(me: Actor, project: Project) -> list[tuple[str, str]]:
    """Where in a project somebody may go, and what that is called."""
    leads, manages = me.may(ADMIN, project.id), me.may(PROJECTS_MANAGE, project.id)
    return [
        ("keys.list_keys", "Keys"),
        ("audit.show_project_log", "Audit log"),
        ("overview.show_overview", "Overview"),
        ("activity.show_activity", "Activity"),
        ("integrate.show_integrate", "Integrate"),
        *([("webhooks.list_webhooks", "Webhooks")] if manages else []),
        *([("members.list_members", "People")] if leads else []),
        ("settings.show_settings", "Settings"),
    ]


def _show_error(error: Exception) -> BaseResponse:
    """One handler: problem+json under /api, a page or dialog elsewhere."""
    from console.web import confirm
    from console.web.access import local_path

    refused = _as_refused(error)
    if request.path.startswith(JSON_PATHS):
        return api.refuse(refused)
    if refused.status == 401 and (not is_htmx() or refused.code == sessions.ENDED):
        return _ask_to_sign_in()
    if isinstance(refused, NotFresh):
        return confirm.ask(refused)
    is_sign_in = isinstance(error, CSRFError) and request.endpoint == "access.log_in"
    if is_sign_in and current_user.is_authenticated:  # in another tab, since this form was opened
        return redirect(local_path(request.args.get("next")) or url_for("access.home"), 303)
    if isinstance(error, CSRFError) and is_htmx() and not current_user.is_authenticated:
        return _ask_to_sign_in()
    if isinstance(error, CSRFError) and is_htmx():
        # The session is another one by now. Whoever can send this header and read this answer could
        # as well read the token on any page.
        return _keep_form(
            "You have signed in anew since this page was opened. Press the button again.",
            refused.status,
            token=generate_csrf(),
        )
    g.is_broken = refused.status >= 500
    page = render_template(
        "errors/error.html",
        refused=refused,
        request_id=g.request_id,
        way_back=path_of(request.referrer) if request.method == "POST" else None,
        shell="bare.html" if is_htmx() else "page.html",
    )
    response = Response(page, refused.status)
    if is_htmx():
        response.headers.update({"HX-Retarget": "#dialog", "HX-Reswap": "innerHTML"})
    if refused.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(refused.retry_after_seconds)
    return response


def _as_refused(error: Exception) -> Refused:
    if isinstance(error, CSRFError):
        return Refused(
            "This page was open for too long, or cookies are off. Go back and try again."
        )
    if isinstance(error, HTTPException):
        return api.from_http_exception(error)
    return wire.as_refused(error, g.request_id)


# --- what the pages share -------------------------------------------------------------------


def actor() -> Actor:
    """The person who is signed in."""
    acting: Actor = current_user.actor
    return acting


def anonymous(name: str = "set-up link") -> Actor:
    """Somebody who is not signed in yet, named after how they came."""
    return Actor(kind="person", id=None, name=name, ip=client_ip(), request_id=g.request_id)


def client_ip() -> str | None:
    return wire.client_address(request.environ, current_app.config["LATCHKEY"].trusted_proxies)


def is_htmx() -> bool:
    return request.headers.get("HX-Request") == "true"


def in_dialog() -> bool:
    """Whether the answer goes into the page's dialog rather than being a page."""
    return is_htmx() and request.headers.get("HX-Target") == "dialog"


def confirm_first() -> None:
    """Before a form is shown that only somebody may send who has just shown that they are there."""
    actor().require_fresh(spare=sessions.SPARE)


def enter(slug: str) -> Project:
    """The project of this page. Raises Unknown."""
    g.project = projects.to_see(slug, by=actor())
    return g.project  # type: ignore[no-any-return]


def done(
    notice: str,
    target: str,
    *,
    key_id: str | None = None,
    undo: str | None = None,
    leaves: bool = False,
) -> BaseResponse:
    """After a change: the dialog closes, the list fetches itself; without scripts, a redirect.

    The row of `key_id` glows once; `undo` is the address to which the notice's Undo posts. A page
    that `leaves`, for what it showed is gone, goes to the target in any case.
    """
    if is_htmx() and not leaves:
        events = {
            "keys-changed": {"id": key_id},
            "close-dialog": None,
            "notice": {"words": notice, "undo": undo},
        }
        return Response("", 204, {"HX-Trigger": json.dumps(events)})
    flash(json.dumps({"words": notice, "undo": undo}))
    return Response("", 204, {"HX-Redirect": target}) if is_htmx() else redirect(target, 303)


def _notices() -> list[dict[str, Any]]:
    """What is to be said once, on the first page after a change."""
    return [json.loads(str(text)) for text in get_flashed_messages()]


def invalid(
    template: str, error: Refused, keeps: bool = False, /, **context: Any
) -> tuple[str, int]:
    """The same form again, with what was typed and what is wrong with it; one that `keeps` what was
    typed also where the person has to confirm first that it is them, in another tab.

    Raises NotFresh from others: it is nothing that could be typed otherwise.
    """
    if isinstance(error, NotFresh):
        if not keeps:
            raise error
        page = render_template(template, errors={}, error=None, must_confirm=True, **context)
        return page, error.status
    status = 422 if isinstance(error, Invalid) else error.status
    return render_template(template, errors=error.fields, error=error, **context), status
