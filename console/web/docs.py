"""The API's description as a page: turns the OpenAPI document into words and curl lines.

Knows no call by name and reads nothing else: what the document does not say is not on the page.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flask import Blueprint, current_app, render_template
from markupsafe import Markup, escape

from console import wire
from console.api import document
from console.errors import Invalid

LINE_LENGTH = 72  # JSON that is longer is written over several lines
DEPTH_MAX = 3  # of objects in objects
PAGE = "A page of a list; `next_cursor` leads to the next one."
NOUNS = {
    "date-time": "time",
    "email": "email address",
    "ip-network": "IP address or network",
    "ipv4": "IP address",
    "ipv6": "IP address",
    "integer": "whole number",
    "boolean": "true or false",
    "array": "list",
}
PLURALS = {"IP address": "IP addresses", "IP address or network": "IP addresses or networks"}
BOUNDS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"))
PARAMETER = re.compile(r"\{(\w+)\}")
CODE = re.compile(r"`([^`]+)`")
Part = Mapping[str, Any]  # of an OpenAPI document

blueprint = Blueprint("docs", __name__)


@blueprint.get("/api/docs")
def show_docs() -> str:
    """Open to anybody: it tells what every installation answers, and no secret."""
    return render_template("docs/show.html", **_page(current_app.config["LATCHKEY"].base_url))


@lru_cache(maxsize=1)
def _page(base_url: str) -> dict[str, Any]:
    return page(document.build(base_url))


def page(described: Part) -> dict[str, Any]:
    """What the template shows of an OpenAPI 3.1 document."""
    reader = Reader(described)
    subjects: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in described["tags"]}
    variables: dict[str, str] = {}
    for path, operations in described["paths"].items():
        variables |= {name.upper(): _path_words(name) for name in PARAMETER.findall(path)}
        for method, operation in operations.items():
            subjects[operation["tags"][0]].append(reader.call(method.upper(), path, operation))
    _, _, refused = wire.problem(Invalid({"name": "is required"}), "req_019a9f5c3e7d4c1f2a3b4c5d")
    return {
        "about": prose(described["info"]["description"]),
        "base_url": shlex.quote(described["servers"][0]["url"]),
        "variables": variables,
        "refusals": reader.answers(described["components"]["responses"]),
        "refused": _json(json.loads(refused)),
        "subjects": subjects,
    }


def curl(method: str, path: str, operation: Part) -> str:
    """The call for sh: parameters of the path are variables, the body is the document's example."""
    verb = "" if method == "GET" else f"-X {method} "
    address = PARAMETER.sub(lambda found: f"${found[1].upper()}", path)
    parts = [f'curl {verb}"$LATCHKEY_URL{address}"']
    if operation.get("security") != []:
        parts.append('-H "Authorization: Bearer $LATCHKEY_KEY"')
    content = operation.get("requestBody", {}).get("content", {}).get(document.JSON, {})
    if "example" in content:
        parts.append('-H "Content-Type: application/json"')
        parts.append(f"-d {shlex.quote(_json(content['example'], indent='  '))}")
    return " \\\n  ".join(parts)


def prose(text: str) -> list[Markup]:
    """The paragraphs of a text, marked up."""
    return [marked(part) for part in text.split("\n\n") if part.strip()]


def marked(text: str) -> Markup:
    """`code` in backticks and a full stop at the end; all else is plain text."""
    if text and text[-1] not in ".:?":
        text += "."
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


@dataclass(frozen=True)
class Field:
    """A field or parameter in words; `fields` are those of an object in it."""

    name: str
    kind: str
    is_required: bool
    place: str  # of a parameter: path, query, header
    about: Markup
    choices: tuple[str, ...]
    default: str
    example: str
    fields: list["Field"]


class Reader:
    """Puts the parts of one document into words; follows its references."""

    def __init__(self, described: Part) -> None:
        self.described = described

    def call(self, method: str, path: str, operation: Part) -> dict[str, Any]:
        sent = operation.get("requestBody", {}).get("content", {}).get(document.JSON)
        responses = operation["responses"]
        status = next(code for code in responses if code < "400")
        content = dict(self.follow(responses[status]).get("content", {}))
        answered = content.pop(document.JSON, None)
        return {
            "id": operation["operationId"],
            "title": operation["operationId"].replace("_", " ").capitalize(),
            "method": method,
            "path": path,
            "summary": marked(operation["summary"]),
            "about": prose(operation.get("description", "")),
            "curl": curl(method, path, operation),
            "parameters": [self.parameter(one) for one in operation.get("parameters", ())],
            # A change has no defaults: what is not sent stays as it is.
            "body": sent and self.body(sent["schema"], has_defaults=method != "PATCH"),
            "done": self.answers({status: responses[status]})[0],
            "formats": list(content),
            "answer": answered and self.body(answered["schema"], has_defaults=False),
            "refusals": self.answers(
                {code: responses[code] for code in responses if code != status}
            ),
        }

    def follow(self, part: Part) -> Part:
        """What a reference means; anything else as it is."""
        while "$ref" in part:
            found: Any = self.described
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = {**found, **{key: value for key, value in part.items() if key != "$ref"}}
        return part

    def answers(self, responses: Part) -> list[tuple[str, Markup]]:
        return [(code, marked(self.follow(one)["description"])) for code, one in responses.items()]

    def parameter(self, one: Part) -> Field:
        about = one.get("description") or (_path_words(one["name"]) if one["in"] == "path" else "")
        schema = {**self.follow(one["schema"]), "description": about}
        return self.field(one["name"], schema, one.get("required", False), place=one["in"])

    def body(self, schema: Part, *, has_defaults: bool) -> dict[str, Any]:
        schema = self.follow(schema)
        about = schema.get("description", "")
        if schema.get("type") == "array":
            about = f"A {self.kind(schema)}."
        elif "next_cursor" in schema.get("properties", {}):
            about = about or PAGE
        either = schema.get("not", {}).get("required", ())
        return {
            "about": marked(about),
            "fields": self.fields(schema, has_defaults=has_defaults),
            "rule": marked(" or ".join(f"`{name}`" for name in either) + ", not both.")
            if either
            else "",
        }

    def fields(self, schema: Part, *, has_defaults: bool = True, depth: int = 1) -> list[Field]:
        """The fields of an object, or of the objects in a list; required ones first."""
        schema = self.plain(schema)
        if "items" in schema:
            return self.fields(schema["items"], has_defaults=has_defaults, depth=depth)
        if depth > DEPTH_MAX:
            return []
        needed = schema.get("required", ())
        found = [
            self.field(name, one, name in needed, has_defaults=has_defaults, depth=depth)
            for name, one in schema.get("properties", {}).items()
        ]
        return sorted(found, key=lambda field: not field.is_required)

    def field(
        self, name: str, schema: Part, is_required: bool, *,
        place: str = "", has_defaults: bool = True, depth: int = 1,
    ) -> Field:  # fmt: skip
        plain = self.plain(schema)
        item = self.plain(plain.get("items", {}))
        choices = plain.get("enum") or item.get("enum") or ()
        examples = plain.get("examples") or item.get("examples")
        default = schema.get("default") if has_defaults else None
        return Field(
            name=name,
            kind=self.kind(schema),
            is_required=is_required,
            place=place,
            about=marked(plain.get("description") or item.get("description", "")),
            choices=tuple(map(str, choices)),
            default="" if default in (None, "", [], {}) else _said(default),
            example=_said(examples[0]) if examples and not choices else "",
            fields=self.fields(plain, has_defaults=has_defaults, depth=depth + 1),
        )

    def plain(self, schema: Part) -> Part:
        """The schema without null, where it is one other thing; what it says of both holds."""
        schema = self.follow(schema)
        kinds = [one for one in _kinds(schema) if one.get("type") != "null"]
        return (
            {**self.plain(kinds[0]), **schema} if kinds != [schema] and len(kinds) == 1 else schema
        )

    def kind(self, schema: Part) -> str:
        """What may stand there: `whole number, 1 to 200, or null`."""
        schema = self.follow(schema)
        kinds = _kinds(schema)
        if kinds != [schema]:
            words = list(dict.fromkeys(self.kind(one) for one in kinds))
            return (", or " if any(", " in word for word in words) else " or ").join(words)
        if "const" in schema:
            return f"always {_json(schema['const'])}"
        kind = schema.get("type", "string" if "enum" in schema else "any value")
        noun = NOUNS.get(schema.get("format", ""), NOUNS.get(kind, kind))
        if "items" in schema:
            item = self.kind(self.plain(schema["items"])).partition(",")[0]
            noun = f"list of {PLURALS.get(item, f'{item}s')}"
        return f"{noun}{_bounds(schema)}"


def _kinds(schema: Part) -> list[Part]:
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": one} for one in schema["type"]]
    found: list[Part] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return found


def _bounds(schema: Part) -> str:
    for least, most, unit in BOUNDS:
        if most in schema:
            low = f"{schema[least]:,} to" if least in schema else "at most"
            return f", {low} {schema[most]:,}{unit}"
    return ""


def _path_words(name: str) -> str:
    noun = name.removesuffix("_id").replace("_", " ")
    return f"The id of a {noun}" if name.endswith("_id") else f"The {noun} of a project"


def _said(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any, indent: str = "") -> str:
    """JSON on one line where it fits, else a line for each thing in it."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= LINE_LENGTH or not isinstance(value, dict | list):
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        parts = [_json(one, deeper) for one in value]
    else:
        parts = [f"{json.dumps(name)}: {_json(one, deeper)}" for name, one in value.items()]
    inside = f",\n{deeper}".join(parts)
    return f"{line[0]}\n{deeper}{inside}\n{indent}{line[-1]}"
