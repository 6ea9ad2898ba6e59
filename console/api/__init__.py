"""The scripts' door: /api/v1, JSON, Bearer only. Never reads the browser's session."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Response, current_app, g, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException

from console import audit, bearer, exports, idempotency, wire
from console.api import calls
from console.api.calls import Id
from console.api.calls import blueprint as blueprint
from console.bearer import Caller
from console.errors import BY_STATUS, Invalid, Refused
from console.fields import Fields
from console.journal import JournalFull
from console.paging import Page


@blueprint.record
def _register_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["id"] = Id


@blueprint.before_request
def _authenticate() -> None:
    """Who calls, and what the query says, before any of it is looked at."""
    call = calls.present(request.endpoint)
    if call is None:
        return
    if call.needs != calls.ANYBODY:
        config = current_app.config["LATCHKEY"]
        g.caller = bearer.caller(request.environ, config, g.request_id, cost=call.costs)
    if call.query is not None:
        g.query = _read_query(call.query)
    elif call.method != "GET":
        _read_query(Fields)  # what would do something else must not go unheard


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
        current_app.logger.exception("the entry keeps the status of the check")


def _read_query(model: type[Fields]) -> Fields:
    """What the query says; what is empty says nothing. Raises Invalid, naming the field."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise Invalid({name: "occurs twice"})
        if "\0" in values[0]:
            raise Invalid({name: "must not contain U+0000: no database stores it"})
    return model.read({name: value for name, value in request.args.items() if value})


def caller() -> Caller:
    """Who makes this call."""
    known: Caller = g.caller
    return known


def query() -> Any:
    """What the call's query says, by its model."""
    return g.query


def body() -> Any:
    return wire.read_json_body(request.environ)


def object_body() -> dict[str, Any]:
    """The body, which must be a JSON object. Raises Invalid."""
    given = body()
    if not isinstance(given, dict):
        raise Invalid({"body": "must be a JSON object"})
    return given


def once(
    operation: str, given: Any, work: Callable[[], tuple[str, Mapping[str, Any]]]
) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The answer of `work`, or the one before under this Idempotency-Key, and headers that say so.

    Raises Invalid, Mismatch, Forbidden, and what `work` raises.
    """
    content, is_again = idempotency.once(
        request.headers.get(idempotency.HEADER),
        signing_key=current_app.config["LATCHKEY"].secret_key,
        request=[operation, given],
        by=caller().actor,
        work=work,
    )
    return content, {"Idempotent-Replayed": "true"} if is_again else {}


def listed(page: Page[Any], as_dict: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """A page as lists are answered."""
    return {"data": [as_dict(row) for row in page.rows], "next_cursor": page.next_cursor}


def paged_or_whole(
    page: Callable[..., Page[Any]],
    whole: Callable[..., Iterable[Any]],
    filters: type[Fields],
    as_dict: Callable[[Any], Mapping[str, Any]],
    columns: Iterable[str],
    name: str,
) -> Response:
    """A log as the query's `format` wants it: a page in JSON, or all of it as a file."""
    given, by = query(), caller().actor
    asked = {"filters": given.only(filters), "cursor": given.cursor}
    if given.format == exports.JSON:
        return answer(listed(page(by=by, limit=given.limit, **asked), as_dict))
    rows = whole(by=by, most=given.limit if given.sent("limit") else None, **asked)
    pieces, kind = exports.as_file(given.format, map(as_dict, rows), tuple(columns))
    disposition = f'attachment; filename="{name}.{given.format}"'
    headers = {"Cache-Control": "no-store", "Content-Disposition": disposition}
    return Response(pieces, content_type=kind, headers=headers)


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
    wire.hold_back(request.environ, refused)
    if isinstance(refused, wire.Denied) and refused.verdict.key:
        g.refused_key = refused.verdict.key.id
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


from console.api import (  # noqa: E402, F401  (they register their calls)
    access,
    activity,
    alerts,
    audit_log,
    document,
    keys,
    members,
    people,
    projects,
    usage,
    webhooks,
)
