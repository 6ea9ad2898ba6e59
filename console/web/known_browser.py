"""The cookie of a browser in which somebody has signed in before: strangers do not hold it up.

It proves nothing about who sits there. What follows from it, throttle.py decides.
"""

import hashlib
import secrets

from flask import Response, current_app, request
from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from werkzeug.wrappers import Response as BaseResponse

from console import clock

NAME = "latchkey-browser"
KEPT_SECONDS = 180 * 24 * 3600
SALT = "latchkey/known-browser"
MARK_BYTES = 16
PEOPLE_MAX = 5  # who share a browser, or one person's accounts


class _Signer(TimestampSigner):
    def get_timestamp(self) -> int:
        return clock.now() // 1000


def presented() -> str | None:
    """What the request's cookie says, or None: `<person's id>.<mark>` of each who signed in."""
    try:
        content = _serializer().loads(request.cookies.get(_name(), ""), max_age=KEPT_SECONDS)
    except BadData:
        return None
    return str(content)


def remember(response: BaseResponse | Response, person_id: str) -> None:
    """Lets the browser be known as this person's, from the answer to a complete sign-in on."""
    others = [
        mark for mark in (presented() or "").split() if not mark.startswith(f"{person_id}.")
    ]  # fmt: skip
    marks = [*others, f"{person_id}.{secrets.token_urlsafe(MARK_BYTES)}"][-PEOPLE_MAX:]
    response.set_cookie(
        _name(), str(_serializer().dumps(" ".join(marks))), max_age=KEPT_SECONDS, httponly=True,
        samesite="Lax", secure=current_app.config["SESSION_COOKIE_SECURE"],
    )  # fmt: skip


def _name() -> str:
    return f"__Host-{NAME}" if current_app.config["SESSION_COOKIE_SECURE"] else NAME


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        str(current_app.config["SECRET_KEY"]),
        salt=SALT,
        signer=_Signer,
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
