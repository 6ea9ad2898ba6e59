"""The description of the API (OpenAPI 3.1): made from what each call declares and from the models
that read what is sent. States nothing of its own but how errors and credentials look."""

import inspect
import re
from functools import lru_cache
from typing import Any

from flask import Response, current_app
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from console import wire
from console.api import answer
from console.api.calls import (
    ANYBODY,
    CALLER,
    CALLS,
    HOLDER,
    LEADER,
    OWNER,
    SUBJECTS,
    Call,
    ListOf,
    call,
)
from console.fields import Fields
from console.idempotency import HEADER, IdempotencyKey

VERSION = "1"
REF = "#/components/schemas/{model}"
JSON, PROBLEM = "application/json", "application/problem+json"
ABOUT = """Issue, restrict, rotate, revoke and audit API keys, and check them.

Send `Authorization: Bearer <key>`, or `X-API-Key: <key>`: a key that holds the permission that the
call needs, or an access token, which acts as its person. Times are RFC 3339 in UTC. Unknown fields
are refused by name. Every answer carries `X-Request-Id`; every refusal is
`application/problem+json` (RFC 9457)."""

# What any call may answer; which of these one really can is said in `_refusals`.
REFUSALS = {
    400: "`INVALID`: a field is wrong; `errors` names it and says what is allowed",
    401: "No key, or one that does not hold: `code` says which (`API_KEY_…`, `TOKEN_INVALID`)",
    403: "`PERMISSION_DENIED`, `FORBIDDEN`, `IP_NOT_ALLOWED`: known, but not allowed to do this",
    404: "`NOT_FOUND`: not there, or not yours",
    409: "`CONFLICT`: right in itself, but not in the present state",
    413: "`TOO_LARGE`: more than 1 MiB",
    415: "`UNSUPPORTED_TYPE`: not JSON in UTF-8",
    422: "`IDEMPOTENCY_MISMATCH`: the same Idempotency-Key came with another request before",
    429: "`RATE_LIMITED`, `QUOTA_EXCEEDED`: `Retry-After` says when",
    500: "`INTERNAL`: a fault of ours; `request_id` finds it in the log",
    503: "`UNAVAILABLE`: the database cannot be used, or the entry not be stored, at the moment",
}
NEEDS = {
    ANYBODY: "Needs no credential.",
    HOLDER: "Needs a key, and no permission.",
    CALLER: "Needs a key, whatever it holds, or an access token.",
    LEADER: "Needs the access token of an owner, or of an admin of the project.",
    OWNER: "Needs the access token of an owner.",
}


@call("GET", "/openapi.json", needs=ANYBODY, gives=dict[str, Any], subject="This description")
def read_description() -> Response:
    """This document."""
    return answer(build(current_app.config["LATCHKEY"].base_url))


@lru_cache(maxsize=1)
def build(base_url: str) -> dict[str, Any]:
    """The document; `base_url` is where this installation is reached."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    ordered = sorted(CALLS.values(), key=lambda one: SUBJECTS.index(one.subject))
    for one in ordered:
        paths.setdefault(one.path_template, {})[one.method.lower()] = _operation(one, schemas)
    problem = {"schema": schemas.of(wire.Problem)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Latchkey", "version": VERSION, "description": ABOUT},
        "servers": [{"url": base_url}],
        "security": [{"bearer": []}, {"header": []}],
        "tags": [{"name": name} for name in dict.fromkeys(one.subject for one in ordered)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "responses": {
                str(status): {"description": words, "content": {PROBLEM: problem}}
                for status, words in REFUSALS.items()
            },
            "schemas": schemas.found,
        },
    }


class _Schemas:
    """The schemas of types, each named once under components."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of(self, kind: Any, *, is_change: bool = False) -> dict[str, Any]:
        """A reference to the type's schema, or the schema itself where it has no name."""
        if isinstance(kind, ListOf):
            return self._page_of(kind.item)
        schema = TypeAdapter(kind).json_schema(ref_template=REF, schema_generator=_Untitled)
        self.found.update(schema.pop("$defs", {}))
        if is_change:  # what is left out of it has no default: it stays
            for field in schema["properties"].values():
                field.pop("default", None)
        name = getattr(kind, "__name__", "dict")
        if name in ("dict", "list"):
            return schema
        self.found[name] = schema
        return {"$ref": REF.format(model=name)}

    def _page_of(self, item: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["data", "next_cursor"],
            "properties": {
                "data": {"type": "array", "items": self.of(item)},
                "next_cursor": {"type": ["string", "null"], "description": "null: this is the end"},
            },
        }


class _Untitled(GenerateJsonSchema):
    """Without titles that only repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _operation(one: Call, schemas: _Schemas) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(one.about).partition("\n\n")
    needs = NEEDS.get(one.needs, f"Needs the permission `{one.needs}`.")
    operation: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.subject],
        "summary": " ".join(summary.split()),
        "description": "\n\n".join(filter(None, [more, needs])),
        "parameters": _parameters(one, schemas),
        "responses": _responses(one, schemas),
    }
    if one.needs == ANYBODY:
        operation["security"] = []
    if one.takes is not None:
        content = {"schema": schemas.of(one.takes, is_change=one.method == "PATCH")}
        if one.example is not None:
            content["example"] = one.example
        operation["requestBody"] = {"required": _is_needed(one), "content": {JSON: content}}
    return operation


def _is_needed(one: Call) -> bool:
    """Whether there is a body at all that may be left out: no field of it is required."""
    if not (isinstance(one.takes, type) and issubclass(one.takes, Fields)):
        return True
    return any(field.is_required() for field in one.takes.model_fields.values())


def _parameters(one: Call, schemas: _Schemas) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in one.parameters
    ]
    if one.query is not None:
        described = TypeAdapter(one.query).json_schema(schema_generator=_Untitled)
        for name, schema in described["properties"].items():
            found.append({**_parameter(name, "query", schema), "allowEmptyValue": True})
    if one.idempotent:
        schema = TypeAdapter(IdempotencyKey).json_schema()
        found.append(_parameter(HEADER, "header", schema))
    return found


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out; null has no place in an address or a header."""
    schema = {key: value for key, value in schema.items() if value is not None}
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema = {**kinds[0], **schema}
    elif kinds:
        schema["anyOf"] = kinds
    about = schema.pop("description", None)
    parameter = {"name": name, "in": place, "required": False, "schema": schema}
    return {**parameter, "description": about} if about else parameter


def _responses(one: Call, schemas: _Schemas) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if one.gives is not None:
        done["content"] = {JSON: {"schema": schemas.of(one.gives)}}
        for kind in one.formats:
            done["content"][kind] = {"schema": {"type": "string"}}
    if one.status == 201 and _links(one):
        done["headers"] = {"Location": {"schema": {"type": "string"}}}
        done["links"] = _links(one)
    found = {str(one.status): done}
    for status in _refusals(one):
        words = one.refuses.get(status)
        found[str(status)] = (
            {"description": words, "content": {PROBLEM: {"schema": schemas.of(wire.Problem)}}}
            if words
            else {"$ref": f"#/components/responses/{status}"}
        )
    return found


def _refusals(one: Call) -> list[int]:
    """The statuses of every refusal that this call may answer."""
    found = {400, 500, 503, *one.refuses}
    if one.needs != ANYBODY:
        found |= {401, 403, 429}
    if one.parameters or "project" in _fields_of(one):
        found.add(404)
    if one.method != "GET" and one.needs != ANYBODY:
        found.add(409)
    if one.takes is not None:
        found |= {413, 415}
    if one.idempotent:
        found.add(422)
    return sorted(found)


def _fields_of(one: Call) -> set[str]:
    kinds: list[Any] = [one.query, one.takes]
    return {name for kind in kinds for name in getattr(kind, "model_fields", ())}


def _links(one: Call) -> dict[str, Any]:
    """What can be done next with what was made: every call below its address."""
    below = re.compile(rf"{re.escape(one.path)}/<(\w+)>")
    links = {}
    for other in CALLS.values():
        found = below.match(other.path)
        if found and len(other.parameters) == 1:
            field = "id" if found[1].endswith("_id") else found[1]
            links[other.name] = {
                "operationId": other.name,
                "parameters": {found[1]: f"$response.body#/{field}"},
            }
    return links
