"""Light, dark, or as the reader's system has it: a cookie of this browser."""

from flask import Blueprint, current_app, redirect, request
from werkzeug.wrappers import Response

from console.web.access import local_path

blueprint = Blueprint("theme", __name__)

SYSTEM, LIGHT, DARK = "system", "light", "dark"
THEMES = (SYSTEM, LIGHT, DARK)
COOKIE = "theme"
KEPT_SECONDS = 365 * 24 * 3600


def chosen() -> str:
    """The theme of the browser that asks."""
    theme = request.cookies.get(_name())
    return theme if theme in THEMES else SYSTEM


@blueprint.post("/theme")
def choose_theme() -> Response:
    """Keeps the theme, and goes back to the page from which it was chosen."""
    response = redirect(local_path(request.form.get("next")) or "/", 303)
    theme = request.form.get("theme")
    if theme in THEMES:
        response.set_cookie(
            _name(), theme, max_age=KEPT_SECONDS, httponly=True, samesite="Lax",
            secure=current_app.config["SESSION_COOKIE_SECURE"],
        )  # fmt: skip
    return response


def _name() -> str:
    """On https a name that browsers take from this host alone, as of the session's cookie."""
    return f"__Host-{COOKIE}" if current_app.config["SESSION_COOKIE_SECURE"] else COOKIE
