"""The scripts' door: /api/v1, JSON, Bearer only. Never reads the browser's session."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from console import audit, bearer, paging, wire
from console.bearer import Caller
from console.errors import BY_STATUS, Invalid, Refused
from console.journal import JournalFull
from console.paging import Page

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

# Calls that carry their own credential in the body.
OPEN_ENDPOINTS = ("api.create_access_token",)
# Calls that spend nothing of the key's limits.
FREE_ENDPOINTS = ("api.rate_limit", "api.revoke_self")
PAGE_FIELDS = ("limit", "cursor")


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
    if verdict is not None and verdict.is_recorded:
        if response.status_code != verdict.status:
            _record_outcome(verdict.request_id, response.status_code)
        response.headers.extend(wire.rate_headers(verdict.allowance, verdict.at))
    return response


def _record_outcome(request_id: str, status: int) -> None:
    """The entry itself is safe; an answer that may carry a secret is not lost over its status."""
    try:
        audit.record_outcome(request_id, status)
    except (OSError, JournalFull):
        current_app.logger.exception("request %s keeps the status of its check", request_id)


def caller() -> Caller:
    """Who makes this call."""
    known: Caller = g.caller
    return known


def body() -> Any:
    return wire.read_json_body(request.environ)


def query(*allowed: str) -> dict[str, str]:
    """The query's fields that carry something; one that is not known is refused by name."""
    for name, value in request.args.items():
        if name not in allowed:
            raise Invalid({name: f"is not a field here; the fields are {', '.join(allowed)}"})
        if "\0" in value:
            raise Invalid({name: "must not contain U+0000: no database stores it"})
    return {name: value for name, value in request.args.items() if value}


def page_of(given: dict[str, str]) -> tuple[str | None, int]:
    """Takes `cursor` and `limit` out of what `query` gave. Raises Invalid."""
    limit = given.pop("limit", str(paging.LIMIT_DEFAULT))
    if not limit.isascii() or not limit.isdigit() or len(limit) > 4:
        raise Invalid({"limit": f"must be a whole number from 1 to {paging.LIMIT_MAX}"})
    return given.pop("cursor", None), int(limit)


def listed(page: Page[Any], as_dict: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """A page as lists are answered."""
    return {"data": [as_dict(row) for row in page.rows], "next_cursor": page.next_cursor}


def nothing() -> Response:
    """204: done, and nothing to say."""
    response = Response(status=204, headers={"Cache-Control": "no-store"})
    del response.headers["Content-Type"]
    return response


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """JSON that no cache keeps."""
    response = Response(wire.to_json(content), status, content_type="application/json")
    response.headers.update({"Cache-Control": "no-store", "X-Request-Id": g.request_id, **headers})
    return response


def refuse(refused: Refused) -> Response:
    """problem+json for any refusal under /api."""
    status, headers, content = wire.problem(refused, g.request_id)
    return Response(content, status, headers)


def from_http_exception(error: HTTPException) -> Refused:
    """Flask's own refusals (no such address, wrong method) as ours."""
    status = error.code or 500
    words = {404: "There is nothing at this address.", 405: "Allow names what is possible here."}
    refused = BY_STATUS.get(status, Refused)(words.get(status) or error.description or "")
    refused.status = status
    refused.allow = tuple(sorted(getattr(error, "valid_methods", None) or ()))
    return refused


from console.api import access, audit_log, keys, usage  # noqa: E402, F401  (the routes register themselves)
