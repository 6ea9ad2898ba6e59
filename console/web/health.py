"""For whoever watches the process: is it alive, and could it write? No sign-in, no detail."""

import peewee
from flask import Blueprint, Response, current_app, jsonify

from console import db, journal, limits
from console.journal import JournalFull

blueprint = Blueprint("health", __name__)

AGAIN = {"Retry-After": "1"}


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 while the process lives; asks the database nothing."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int, dict[str, str]]:
    """200 when a write to the database and an entry would succeed, else 503 naming why.

    Without Redis only limited keys are refused: 200, for all processes would have to stop at once.
    """
    try:
        db.probe_write()
        journal.probe()
    except peewee.PeeweeException:
        current_app.logger.exception("not ready")
        return jsonify(status="unavailable", reason="the database cannot be written"), 503, AGAIN
    except (OSError, JournalFull):
        current_app.logger.exception("not ready")
        return jsonify(status="unavailable", reason="the journal cannot be written"), 503, AGAIN
    if limits.is_answering() is False:
        return jsonify(status="degraded", reason="Redis does not answer"), 200, {}
    return jsonify(status="ok"), 200, {}
