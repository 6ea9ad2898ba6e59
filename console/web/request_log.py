"""A line in the log for each request that Flask answers: pages and API. Checks have their entries.

It carries no query, for links carry their token in it, and tells nothing of the body.
"""

import logging
import time

from flask import Flask, Response, current_app, g, request

from console import audit, logs, wire
from console.actor import Actor
from console.errors import Refused

log = logging.getLogger(__name__)

PATH_MAX_LENGTH = 2_000


def register(app: Flask) -> None:
    """To be called before all else that looks at requests: whatever refuses one names it."""
    app.before_request(_identify)
    app.after_request(_note)


def _identify() -> None:
    g.began = time.perf_counter()
    g.request_id = wire.request_id()
    logs.request_id.set(g.request_id)


def _note(response: Response) -> Response:
    response.headers.setdefault("X-Request-Id", g.request_id)
    response.call_on_close(_forget)
    if log.isEnabledFor(logging.INFO):
        config = current_app.config["LATCHKEY"]
        facts = {
            "method": request.method,
            "path": logs.kept(audit.kept(request.path, PATH_MAX_LENGTH, _presented())),
            "status": response.status_code,
            "milliseconds": round((time.perf_counter() - g.began) * 1_000),
            "ip": wire.client_address(request.environ, config.trusted_proxies) or "-",
            "by": _who() or "-",
        }
        line = "{method} {path} {status} {milliseconds}ms {ip} {by}".format(**facts)
        log.info("%s", line, extra=logs.of(g.request_id, **facts))
    return response


def _forget() -> None:
    """The thread may go on to something else, by another server than ours in the same context."""
    logs.request_id.set("")


def _presented() -> str:
    try:
        return wire.presented(request.environ) or ""
    except Refused:
        return ""


def _who() -> str | None:
    """The person or key that was found to ask, as far as anybody looked."""
    actor: Actor | None = getattr(g.get("caller") or g.get("_login_user"), "actor", None)
    who: str | None = actor.id if actor else g.get("refused_key")
    return who
