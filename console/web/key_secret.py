"""The last step of creating and rotating a key: the one answer that carries the secret."""

import json

from flask import current_app, render_template
from werkzeug.wrappers import Response as BaseResponse

from console.models import Key
from console.web import in_dialog

# Stands for the secret where scripts put it in when it is to be seen; console.js knows it too.
DOTS = "•" * 12


def show_secret(key: Key, secret: str, ends_at: int | None = None) -> BaseResponse:
    """The secret, in a dialog hidden until asked for: no redirect, no cache, no session.

    `ends_at` is when the secret before it stops, for a key that was rotated.
    """
    is_hidden = in_dialog()
    page = render_template(
        "keys/secret.html",
        key=key,
        secret=secret,
        shown=DOTS if is_hidden else secret,
        is_hidden=is_hidden,
        ends_at=ends_at,
        base_url=current_app.config["LATCHKEY"].base_url,
    )
    response = current_app.make_response(page)
    response.headers["HX-Trigger"] = json.dumps({"keys-changed": {"id": key.id}})
    return response
