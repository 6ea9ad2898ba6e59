"""Keys and their audit log in JSON: the same operations as the console's, by the same functions."""

from typing import Any

from flask import Response, request, url_for

from console import audit, clock, keys, paging
from console.api import answer, blueprint, body, caller
from console.errors import Invalid
from console.models import Key
from console.paging import Page

KEY_FILTERS = ("project", "status", "environment", "owner", "q", "sort")
PAGE_FIELDS = ("limit", "cursor")


@blueprint.get("/api-keys")
def list_keys() -> Response:
    given = _query(*KEY_FILTERS, *PAGE_FIELDS)
    cursor, limit = _page_of(given)
    page = keys.page(by=caller().actor, cursor=cursor, limit=limit, **given)
    return answer(_list(page, keys.as_dict))


@blueprint.post("/api-keys")
def create_key() -> Response:
    key, secret = keys.create(_object(), by=caller().actor)
    location = url_for("api.read_key", key_id=key.id)
    return answer({**keys.as_dict(key), "key": secret}, 201, Location=location)


@blueprint.get("/api-keys/<key_id>")
def read_key(key_id: str) -> Response:
    return answer(_with_usage(keys.key_to_read(key_id, by=caller().actor)))


@blueprint.patch("/api-keys/<key_id>")
def edit_key(key_id: str) -> Response:
    return answer(_with_usage(keys.edit(key_id, _object(), by=caller().actor)))


@blueprint.post("/api-keys/<key_id>/rotate")
def rotate_key(key_id: str) -> Response:
    key, secret, ends_at = keys.rotate(key_id, _object(), by=caller().actor)
    return answer(
        {**keys.as_dict(key), "key": secret, "previous_secret_expires_at": clock.iso(ends_at)}
    )


@blueprint.delete("/api-keys/<key_id>")
def delete_key(key_id: str) -> Response:
    keys.delete(key_id, by=caller().actor)
    return answer(None, 204)


@blueprint.get("/api-keys/<key_id>/audit-log")
def read_key_audit_log(key_id: str) -> Response:
    given = _query(*audit.FILTERS, *PAGE_FIELDS)
    cursor, limit = _page_of(given)
    page = audit.page_of_key(key_id, by=caller().actor, filters=given, cursor=cursor, limit=limit)
    return answer(_list(page, audit.as_dict))


def _with_usage(key: Key) -> dict[str, Any]:
    return {**keys.as_dict(key), "usage": audit.usage_of(key)}


def _list(page: Page[Any], as_dict: Any) -> dict[str, Any]:
    return {"data": [as_dict(row) for row in page.rows], "next_cursor": page.next_cursor}


def _object() -> dict[str, Any]:
    """The body, which must be a JSON object."""
    given = body()
    if not isinstance(given, dict):
        raise Invalid({"body": "must be a JSON object"})
    return given


def _query(*allowed: str) -> dict[str, str]:
    """The query's fields that carry something; one that is not known is refused by name."""
    for name in request.args:
        if name not in allowed:
            raise Invalid({name: f"is not a field here; the fields are {', '.join(allowed)}"})
    return {name: value for name, value in request.args.items() if value}


def _page_of(given: dict[str, str]) -> tuple[str | None, int]:
    """Takes `cursor` and `limit` out of the query. Raises Invalid."""
    limit = given.pop("limit", str(paging.LIMIT_DEFAULT))
    if not limit.isascii() or not limit.isdigit() or len(limit) > 4:
        raise Invalid({"limit": f"must be a whole number from 1 to {paging.LIMIT_MAX}"})
    return given.pop("cursor", None), int(limit)
