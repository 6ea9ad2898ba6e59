"""Keys in JSON: the same operations as the console's, by the same functions."""

from typing import Any

from flask import Response, request, url_for

from console import clock, keys, usage
from console.api import (
    PAGE_FIELDS,
    answer,
    blueprint,
    body,
    caller,
    listed,
    nothing,
    page_of,
    query,
)
from console.errors import Invalid
from console.models import Key

KEY_FILTERS = ("project", "status", "environment", "owner", "q", "sort")


@blueprint.get("/api-keys")
def list_keys() -> Response:
    given = query(*KEY_FILTERS, *PAGE_FIELDS)
    cursor, limit = page_of(given)
    page = keys.page(by=caller().actor, cursor=cursor, limit=limit, **given)
    return answer(listed(page, keys.as_dict))


@blueprint.post("/api-keys")
def create_key() -> Response:
    _refuse_idempotency_key()
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
    _refuse_idempotency_key()
    key, secret, ends_at = keys.rotate(key_id, _object(), by=caller().actor)
    return answer(
        {**keys.as_dict(key), "key": secret, "previous_secret_expires_at": clock.iso(ends_at)}
    )


@blueprint.delete("/api-keys/<key_id>")
def delete_key(key_id: str) -> Response:
    keys.delete(key_id, by=caller().actor)
    return nothing()


def _refuse_idempotency_key() -> None:
    """To ignore it would make a second key of a call that is tried again."""
    if "Idempotency-Key" in request.headers:
        raise Invalid({"Idempotency-Key": "cannot be kept by this version yet; leave it out"})


def _with_usage(key: Key) -> dict[str, Any]:
    return {**keys.as_dict(key), "usage": usage.totals_of(key)}


def _object() -> dict[str, Any]:
    """The body, which must be a JSON object."""
    given = body()
    if not isinstance(given, dict):
        raise Invalid({"body": "must be a JSON object"})
    return given
