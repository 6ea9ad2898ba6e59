"""Access tokens, and what the holder of a key may ask of it."""

from typing import Annotated, Any

from flask import Response, current_app, g, request
from pydantic import Field
from typing_extensions import TypedDict

from console import clock, keys, limits, signin, wire
from console.api import answer, body, caller, nothing
from console.api.calls import ANYBODY, HOLDER, call
from console.errors import Forbidden
from console.fields import Fields, Instant, OneOf
from console.key_fields import KeyObject
from console.known import Known


class Credentials(Fields):
    """Who asks for an access token."""

    email: str
    password: str
    otp: str | None = Field(
        None, description="The code of the authenticator app, or a recovery code, where one is set"
    )


class AccessToken(TypedDict):
    """A bearer that acts as its person (RFC 6750)."""

    access_token: str
    token_type: str
    expires_in: Annotated[int, Field(description="Seconds")]


class WindowState(TypedDict):
    """One rate limit as it stands; `reset` is in epoch seconds."""

    name: Annotated[str, OneOf(*limits.WINDOW_SECONDS)]
    limit: int
    remaining: int
    reset: int


class RateLimitState(TypedDict):
    """The limit of the hour, or of the minute where there is none of the hour; null: unlimited."""

    limit: int | None
    remaining: int | None
    reset: Annotated[int | None, Field(description="Epoch seconds")]
    reset_at: Instant | None
    windows: list[WindowState]


@call(
    "POST",
    "/auth/token",
    needs=ANYBODY,
    takes=Credentials,
    gives=AccessToken,
    refuses={
        401: "`CREDENTIALS_INVALID`: email or password is wrong; `OTP_REQUIRED`: both are right, "
        "and the person has a second factor; `OTP_INVALID`: its code does not hold",
        429: "`RATE_LIMITED`: too many wrong attempts; `Retry-After` says when",
    },
    subject="Access",
    example={"email": "ada@example.com", "password": "correct horse battery"},
)
def create_access_token() -> Response:
    """Gives an access token of fifteen minutes for an email address, a password and, where the
    person has a second factor, its code."""
    given = Credentials.read(body())
    config = current_app.config["LATCHKEY"]
    token, seconds = signin.for_script(
        given.email,
        given.password,
        code=given.otp,
        signing_key=config.secret_key,
        ip=wire.client_address(request.environ, config.trusted_proxies),
        user_agent=request.headers.get("User-Agent", ""),
        request_id=g.request_id,
    )
    return answer({"access_token": token, "token_type": "Bearer", "expires_in": seconds})


@call("GET", "/whoami", needs=HOLDER, gives=KeyObject, subject="Your own key")
def whoami() -> Response:
    """The key that you present."""
    return answer(keys.as_dict(keys.held(_own_key().id)))


@call("GET", "/rate-limit", needs=HOLDER, gives=RateLimitState, costs=0, subject="Your own key")
def rate_limit() -> Response:
    """Your key's limits as they stand; asking is not counted against them."""
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


@call("POST", "/revoke-self", needs=HOLDER, status=204, costs=0, subject="Your own key")
def revoke_self() -> Response:
    """Stops the presented key: for its holder, should it have leaked."""
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
