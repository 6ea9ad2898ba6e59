"""The way to the provider of single sign-on and back: to sign in, confirm, or link an account."""

import logging
from dataclasses import astuple
from typing import Any

from flask import Blueprint, Response, g, redirect, render_template, request, session, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as BaseResponse

from console import sso
from console.errors import Conflict, Forbidden, Limited, NotFresh, Refused, Unavailable
from console.oidc import Begun
from console.web import access, actor, client_ip, confirm, confirm_first, done, known_browser

log = logging.getLogger(__name__)

blueprint = Blueprint("sso", __name__)
blueprint.add_app_template_global(sso.name, "single_sign_on")

SIGN_IN, CONFIRM, LINK = "sign-in", "confirm", "link"
KEPT = "sso"  # in the browser's own session, until it is back


@blueprint.app_template_global("linked_since")
def linked_since() -> int | None:
    return sso.linked_since(by=actor())


@blueprint.get("/login/sso")
def begin_sso() -> BaseResponse:
    """To the provider. Not a form: browsers hold a form's redirects to our own content policy."""
    purpose = next((one for one in (CONFIRM, LINK) if one in request.args), SIGN_IN)
    wanted = request.args.get("next")
    if (purpose == SIGN_IN) == current_user.is_authenticated:
        return redirect(url_for("access.home" if purpose == SIGN_IN else "access.log_in"), 303)
    if purpose == LINK:
        confirm_first()
    try:
        url, begun = sso.begin(
            asks_again=purpose == CONFIRM, ip=client_ip(), browser=known_browser.presented()
        )
    except (Unavailable, Limited) as error:
        return _failed(error, purpose, wanted)
    session[KEPT] = [purpose, wanted, *astuple(begun)]
    return redirect(url, 303)


@blueprint.get(sso.CALLBACK)
def finish_sso() -> BaseResponse:
    """Back from the provider, for what this browser set out for."""
    purpose, wanted, begun = _kept()
    if begun is None and current_user.is_authenticated:  # the same way back, a second time
        return redirect(url_for("access.home"), 303)
    if purpose != SIGN_IN and not current_user.is_authenticated:
        return redirect(url_for("access.log_in", next=wanted), 303)
    try:
        return _arrive(purpose, wanted, begun, request.args.to_dict())
    except NotFresh:
        raise
    except (Unavailable, Forbidden, Conflict, Refused) as error:
        return _failed(error, purpose, wanted)


def _kept() -> tuple[str, str | None, Begun | None]:
    """What this browser set out for; it is kept no longer, for a way back is taken once."""
    try:
        purpose, wanted, *begun = session.pop(KEPT)
        return purpose, wanted, Begun(*begun)
    except (KeyError, TypeError, ValueError):
        return SIGN_IN, None, None


def _arrive(
    purpose: str, wanted: str | None, begun: Begun | None, answer: dict[str, str]
) -> BaseResponse:
    browser = known_browser.presented()
    if purpose == CONFIRM:
        token = sso.confirm(begun, answer, current_user.token, by=actor(), browser=browser)
        return confirm.go_on(token, wanted)
    if purpose == LINK:
        sso.link(begun, answer, by=actor(), browser=browser)
        target = url_for("account.show_account")
        return done(f"You can sign in by {sso.name()} from now on", target, leaves=True)
    token, person = sso.sign_in(
        begun, answer, ip=client_ip(), request_id=g.request_id, browser=browser,
        user_agent=request.headers.get("User-Agent", ""),
    )  # fmt: skip
    return access.enter(token, person.id, wanted)


def _failed(error: Refused, purpose: str, wanted: str | None) -> BaseResponse:
    """What went wrong, in words, and the ways on; the cause is for the log alone."""
    cause = f" ({error.__cause__!r})" if error.__cause__ else ""
    log.warning("%s %s by single sign-on: %s%s", g.request_id, purpose, error.message, cause)
    g.is_broken = error.status >= 500
    more: dict[str, Any] = {} if purpose == SIGN_IN else {purpose: 1}
    page = render_template(
        "access/sso_failed.html",
        error=error,
        purpose=purpose,
        again=url_for("sso.begin_sso", next=wanted, **more),
        elsewhere=wanted,
        request_id=g.request_id,
    )
    after = error.retry_after_seconds
    headers = {} if after is None else {"Retry-After": str(after)}
    return Response(page, error.status, headers)
