"""The description of the API: nothing is left out of it, and nothing in it is not there."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient

from config import Config
from console import audit, check, gate
from console.api import calls, document
from console.check import Request
from tests.conftest import V1, Call, MakeKey, checked

METHODS = ("get", "post", "patch", "put", "delete")


@pytest.fixture
def described(client: FlaskClient) -> dict[str, Any]:
    return client.get(f"{V1}/openapi.json").get_json()  # type: ignore[no-any-return]


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def template(rule: str) -> str:
    return rule.replace("<id:", "<").replace("<", "{").replace(">", "}")


def test_every_route_is_described_and_every_description_has_its_route(
    app: Flask, described: dict[str, Any]
) -> None:
    routed = {
        (method, template(rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(f"{V1}/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert len(routed) > 15
    assert {(method, path) for method, path, _ in operations(described)} == routed | {
        ("POST", gate.VERIFY)
    }


def test_the_description_is_openapi_3_1_of_this_address(
    client: FlaskClient, described: dict[str, Any], config: Config
) -> None:
    answer = client.get(f"{V1}/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert described["openapi"].startswith("3.1.")
    assert described["servers"] == [{"url": config.base_url}]
    assert {tag["name"] for tag in described["tags"]} <= set(calls.SUBJECTS)


def test_every_operation_has_a_name_a_sentence_and_who_may(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(names) == len(set(names))
    for _, _, operation in operations(described):
        assert operation["summary"].endswith((".", "?")) or "`dry_run`" in operation["description"]
        assert "Needs" in operation["description"]


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    def look(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found: Any = described
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    look(described)


def test_every_parameter_of_a_path_is_described(described: dict[str, Any]) -> None:
    for _, path, operation in operations(described):
        inside = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
        assert "".join(f"{{{name}}}" for name in inside) == "".join(
            f"{{{part}" for part in path.split("{")[1:] for part in [part.partition("}")[0] + "}"]
        )


def test_every_body_has_an_example_that_fits_its_schema(described: dict[str, Any]) -> None:
    bodies = 0
    for _, _, operation in operations(described):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content:
            bodies += 1
            schema = {**content["schema"], "components": described["components"]}
            jsonschema_rs.validate(schema, content["example"])
    assert bodies > 5


@pytest.mark.parametrize("name", ["RateLimit", "NewKey", "KeyChange", "Rotation", "Question"])
def test_a_model_that_reads_refuses_unknown_fields_and_says_so(
    described: dict[str, Any], name: str
) -> None:
    assert described["components"]["schemas"][name]["additionalProperties"] is False


def test_what_is_left_out_of_a_change_has_no_default(described: dict[str, Any]) -> None:
    for _, _, change in (one for one in operations(described) if one[0] == "PATCH"):
        name = change["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields = described["components"]["schemas"][name.rpartition("/")[2]]["properties"]
        assert not [name for name, schema in fields.items() if "default" in schema]
    assert described["components"]["schemas"]["NewKey"]["properties"]["environment"]["default"]


def test_every_code_of_a_verdict_is_described(described: dict[str, Any]) -> None:
    verdict = described["components"]["schemas"]["VerdictObject"]["properties"]
    assert verdict["code"]["enum"] == list(check.CODES)


def undescribed(value: Any, schema: Any, root: dict[str, Any], at: str = "") -> Iterator[str]:
    """The fields of an answer that its schema does not name."""
    if not isinstance(schema, dict):
        return
    while "$ref" in schema:
        schema = root["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        for one in value:
            yield from undescribed(one, schema.get("items"), root, f"{at}[]")
    elif isinstance(value, dict):
        choices = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
        if choices:
            yield from undescribed(value, choices[0], root, at)
        elif "properties" in schema:
            for name, one in value.items():
                if name in schema["properties"]:
                    yield from undescribed(one, schema["properties"][name], root, f"{at}.{name}")
                else:
                    yield f"{at}.{name}"


def test_no_answer_has_a_field_that_is_not_described(
    call: Call, make_key: MakeKey, described: dict[str, Any]
) -> None:
    key, text = make_key(name="used", permissions=["admin:*"], plan="free")
    checked(Request(secret=text, request_id="req_1", ip="192.0.2.1"))
    asked = [
        ("GET", "/api-keys", None), ("GET", f"/api-keys/{key.id}", None), ("GET", "/usage", None),
        ("POST", "/api-keys", {"name": "new", "rate_limit": {"per_minute": 1}}),
        ("GET", f"/api-keys/{key.id}/audit-log", None), ("GET", "/activity", None),
        ("GET", "/whoami", None), ("GET", "/rate-limit", None), ("GET", "/projects", None),
        ("POST", f"/api-keys/{key.id}/rotate", {"grace_period": "1h"}),
        ("POST", "/verify", {"key": text, "dry_run": True}),
        ("POST", "/verify", {"key": text}),
        ("POST", "/audit-log/outcomes", [{"request_id": "x", "status": 200}]),
    ]  # fmt: skip
    by_path = {(method, path): one for method, path, one in operations(described)}
    for method, path, body in asked:
        answer = call(method, path, body, secret=text)
        assert answer.status_code in (200, 201), answer.text
        place = f"{V1}{path.replace(key.id, '{key_id}')}"
        told = by_path[method, place]["responses"][str(answer.status_code)]
        schema = told["content"]["application/json"]["schema"]
        assert list(undescribed(answer.json, schema, described)) == [], path


def test_what_refuses_is_read_from_the_same_model_as_the_description() -> None:
    """A query's model both reads what is sent and is what the document shows."""
    shown = document._parameters(calls.CALLS["read_key_audit_log"], document._Schemas())
    names = {one["name"] for one in shown if one["in"] == "query"}
    assert names == set(audit.EntryQuery.model_fields)
