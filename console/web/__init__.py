"""The browser's door: pages, dialogs and fragments. Session and CSRF token; forms only POST."""

import json
from datetime import timedelta
from typing import Any

from flask import (
    Flask,
    Response,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from config import Config
from console import api, people, projects, wire
from console.actor import Actor
from console.errors import Invalid, Refused
from console.models import Project
from console.web import words

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
JSON_PATHS = ("/api/", "/forward-auth/")
SIGNED_IN_PAGES = ("keys", "audit", "activity")

csrf = CSRFProtect()
login = LoginManager()


class SignedIn(UserMixin):  # type: ignore[misc]
    """Flask-Login's user: a session's token, and the person acting in this request."""

    def __init__(self, token: str, actor: Actor) -> None:
        self.token = token
        self.actor = actor

    def get_id(self) -> str:
        return self.token


def register(app: Flask) -> None:
    """Hangs the console's pages, sign-in, CSRF and error pages onto the application."""
    from console.web import access, activity, audit, docs, health, keys

    config: Config = app.config["LATCHKEY"]
    app.config.update(
        SESSION_COOKIE_NAME="__Host-latchkey" if config.is_https else "latchkey",
        SESSION_COOKIE_SECURE=config.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(milliseconds=people.SESSION_LENGTH[people.BROWSER]),
        WTF_CSRF_TIME_LIMIT=None,
        MAX_CONTENT_LENGTH=wire.BODY_MAX_BYTES,
    )
    # Before all else: whatever refuses a request names it.
    app.before_request(_identify)
    csrf.init_app(app)
    csrf.exempt(api.blueprint)
    # Without its context processor: an error page must not ask the database who is there.
    login.init_app(app, add_context_processor=False)
    # Sessions are rows of ours; Flask-Login's own fingerprint trusts any forwarded address.
    login.session_protection = None
    login.user_loader(_load)
    for module in (access, keys, audit, activity, docs, health):
        app.register_blueprint(module.blueprint)
    app.register_error_handler(Exception, _show_error)
    app.before_request(_require_sign_in)
    app.after_request(_protect)
    app.context_processor(_context)
    words.register(app)


def _identify() -> None:
    g.request_id = wire.request_id()


def _load(token: str) -> SignedIn | None:
    actor = people.by_session(token, ip=client_ip(), request_id=g.request_id)
    return SignedIn(token, actor) if actor else None


def _require_sign_in() -> BaseResponse | None:
    """Every page about a project is for somebody who is signed in."""
    if request.blueprint in SIGNED_IN_PAGES and not current_user.is_authenticated:
        return _ask_to_sign_in()
    return None


def _ask_to_sign_in() -> BaseResponse:
    target = url_for("access.sign_in", next=request.path if request.method == "GET" else None)
    if is_htmx():
        return Response("", 401, {"HX-Redirect": url_for("access.sign_in")})
    return redirect(target, 303)


def _protect(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("X-Request-Id", g.request_id)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.add("HX-Request")
    return response


def _context() -> dict[str, Any]:
    """What both shells need; of a page that says that something broke, nothing is looked up."""
    me = None if g.get("is_broken") or not current_user.is_authenticated else actor()
    return {
        "shell": "bare.html" if in_dialog() else "page.html",
        "me": me,
        "project": g.get("project"),
        "my_projects": projects.visible(me) if me and not is_htmx() else [],
    }


def _show_error(error: Exception) -> BaseResponse:
    """One handler: problem+json under /api, a page or dialog elsewhere."""
    refused = _as_refused(error)
    if request.path.startswith(JSON_PATHS):
        return api.refuse(refused)
    if refused.status == 401 and not is_htmx():
        return _ask_to_sign_in()
    g.is_broken = refused.status >= 500
    page = render_template(
        "errors/error.html",
        refused=refused,
        request_id=g.request_id,
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


def anonymous() -> Actor:
    """Somebody who is not signed in yet."""
    return Actor(
        kind="person", id=None, name="set-up link", ip=client_ip(), request_id=g.request_id
    )


def client_ip() -> str | None:
    return wire.client_address(request.environ, current_app.config["LATCHKEY"].trusted_proxies)


def is_htmx() -> bool:
    return request.headers.get("HX-Request") == "true"


def in_dialog() -> bool:
    """Whether the answer goes into the page's dialog rather than being a page."""
    return is_htmx() and request.headers.get("HX-Target") == "dialog"


def enter(slug: str) -> Project:
    """The project of this page. Raises Unknown."""
    g.project = projects.to_see(slug, by=actor())
    return g.project  # type: ignore[no-any-return]


def done(notice: str, target: str) -> BaseResponse:
    """After a change: the dialog closes, the list fetches itself; without scripts, a redirect."""
    if is_htmx():
        events = {"keys-changed": None, "close-dialog": None, "notice": notice}
        return Response("", 204, {"HX-Trigger": json.dumps(events)})
    flash(notice)
    return redirect(target, 303)


def invalid(template: str, error: Refused, **context: Any) -> tuple[str, int]:
    """The same form again, with what was typed and what is wrong with it."""
    status = 422 if isinstance(error, Invalid) else error.status
    return render_template(template, errors=error.fields, error=error, **context), status
