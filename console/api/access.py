"""Access tokens, and what the holder of a key may ask of it."""

from typing import Any

from flask import Response, current_app, request

from console import clock, keys, limits, people, wire
from console.api import answer, blueprint, body, caller, nothing
from console.errors import Forbidden
from console.fields import Fields
from console.known import Known


class Credentials(Fields):
    """`POST /api/v1/auth/token`."""

    email: str
    password: str
    otp: str | None = None


@blueprint.post("/auth/token")
def create_access_token() -> Response:
    """Email and password for a token of fifteen minutes."""
    given = Credentials.read(body())
    config = current_app.config["LATCHKEY"]
    token, seconds = people.access_token(
        given.email,
        given.password,
        signing_key=config.secret_key,
        ip=wire.client_address(request.environ, config.trusted_proxies),
        user_agent=request.headers.get("User-Agent", ""),
    )
    return answer({"access_token": token, "token_type": "Bearer", "expires_in": seconds})


@blueprint.get("/whoami")
def whoami() -> Response:
    """The key object of the presented key."""
    return answer(keys.as_dict(keys.held(_own_key().id)))


@blueprint.get("/rate-limit")
def rate_limit() -> Response:
    """The presented key's limits as they stand; asking is not counted against them."""
    verdict = caller().verdict
    _own_key()
    assert verdict is not None
    allowance = verdict.allowance
    rates = [window for window in allowance.windows if window.name != limits.MONTH]
    return answer({
        **_window(allowance.shown),
        "reset_at": clock.iso(allowance.shown.reset_at) if allowance.shown else None,
        "windows": [{"name": window.name, **_window(window)} for window in rates],
    })  # fmt: skip


@blueprint.post("/revoke-self")
def revoke_self() -> Response:
    """The holder stops their own key."""
    keys.revoke_self(_own_key().id, by=caller().actor)
    return nothing()


def _window(window: limits.Window | None) -> dict[str, Any]:
    return {
        "limit": window.limit if window else None,
        "remaining": window.remaining if window else None,
        "reset": window.reset_at // 1000 if window else None,
    }


def _own_key() -> Known:
    key = caller().key
    if key is None:
        raise Forbidden("Present a key, not an access token: this call is about the key itself.")
    return key
