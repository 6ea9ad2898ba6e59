"""The scripts' door: /api/v1, JSON, Bearer only. Never reads the browser's session."""

from typing import Any

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from console import audit, bearer, wire
from console.bearer import Caller
from console.errors import BY_STATUS, Refused

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

# Calls that carry their own credential in the body.
OPEN_ENDPOINTS = ("api.create_access_token",)
# Calls that spend nothing of the key's limits.
FREE_ENDPOINTS = ("api.rate_limit",)


@blueprint.before_request
def _authenticate() -> None:
    if request.endpoint not in OPEN_ENDPOINTS:
        cost = 0 if request.endpoint in FREE_ENDPOINTS else 1
        g.caller = bearer.caller(
            request.environ, current_app.config["LATCHKEY"], g.request_id, cost=cost
        )


@blueprint.after_request
def _log_outcome(response: Response) -> Response:
    """The entry of a key's call says what was really answered; limits are told in headers."""
    verdict = caller().verdict if "caller" in g else None
    if verdict is not None and verdict.entry_id is not None:
        if response.status_code != verdict.status:
            audit.record_outcome(verdict.entry_id, response.status_code)
        response.headers.extend(wire.rate_headers(verdict.allowance, verdict.at))
    return response


def caller() -> Caller:
    """Who makes this call."""
    known: Caller = g.caller
    return known


def body() -> Any:
    return wire.read_json_body(request.environ)


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """JSON that no cache keeps; 204 has no body."""
    content = b"" if status == 204 else wire.to_json(content)
    response = Response(content, status, content_type="application/json")
    response.headers.update({"Cache-Control": "no-store", "X-Request-Id": g.request_id, **headers})
    return response


def refuse(refused: Refused) -> Response:
    """problem+json for any refusal under /api."""
    status, headers, content = wire.problem(refused, g.request_id)
    return Response(content, status, headers)


def from_http_exception(error: HTTPException) -> Refused:
    """Flask's own refusals (no such address, wrong method) as ours."""
    status = error.code or 500
    refused = BY_STATUS.get(status, Refused)(error.description or "")
    refused.status = status
    refused.allow = tuple(sorted(getattr(error, "valid_methods", None) or ()))
    return refused


from console.api import access, keys  # noqa: E402, F401  (the routes register themselves)
