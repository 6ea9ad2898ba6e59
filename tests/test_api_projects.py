"""Projects through the API: each call's answer, each refusal, and who may make which call."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import keys
from console.actor import Actor
from console.api import document
from console.models import Event, Project
from tests.conftest import Clock, MakeKey, bearer
from tests.test_api import V1, access_token, assert_problem

PROJECT_FIELDS = {
    "id", "slug", "name", "prefix", "key_format", "shows_environment", "key_limit",
    "permission_catalogue", "permission_presets", "plans", "environments",
    "default_expiry", "maximum_lifetime", "alert_email", "rotation_policy",
    "alerts", "archived", "created_at", "route_rules", "route_default",
}  # fmt: skip
Call = Callable[..., TestResponse]


@pytest.fixture
def call(clock: Clock, client: FlaskClient, owner: Actor) -> Call:
    """`call("POST", "/projects", {…})` as the owner or with another credential; the time stands."""
    owners = access_token(client, owner)

    def make(method: str, path: str, body: Any = None, *, by: str | None = owners) -> TestResponse:
        more = {} if body is None else {"json": body}
        return client.open(V1 + path, method=method, headers=bearer(by) if by else {}, **more)

    return make


def faults(answer: TestResponse) -> dict[str, str]:
    """The fields at fault in a 400, and what is said of them."""
    problem = assert_problem(answer, 400, "INVALID", "errors")
    return {error["field"]: error["message"] for error in problem["errors"]}


# --- create -----------------------------------------------------------------------------------


def test_create_project_answers_the_project_and_where_it_is(call: Call) -> None:
    sent = {"slug": "tasks", "name": "Tasks", "prefix": "vsp_sk", "key_limit": 7}
    answer = call("POST", "/projects", sent)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    created = answer.json
    assert created.keys() == PROJECT_FIELDS and created["id"].startswith("prj_")
    assert {name: created[name] for name in PROJECT_FIELDS - {"id"}} == {
        **sent,
        "key_format": "base62",
        "shows_environment": False,
        "permission_catalogue": [],
        "permission_presets": [],
        "plans": [],
        "environments": ["live", "test"],
        "default_expiry": None,
        "maximum_lifetime": None,
        "alert_email": None,
        "rotation_policy": None,
        "alerts": {
            "off": [],
            "learning_period": "7d",
            "refusals_per_hour": 50,
            "limit_percent": 80,
            "unused_after": "90d",
        },
        "route_rules": [],
        "route_default": "allow",
        "archived": False,
        "created_at": "2026-11-20T10:30:00Z",
    }
    assert answer.headers["Location"] == f"{V1}/projects/tasks"
    assert call("GET", "/projects/tasks").json == created


def test_create_project_needs_no_more_than_a_slug(call: Call) -> None:
    created = call("POST", "/projects", {"slug": "tasks"}).json
    assert (created["name"], created["prefix"], created["key_limit"]) == ("tasks", "lk", None)
    assert created["shows_environment"] is True


def test_create_project_refuses_a_taken_slug(call: Call) -> None:
    answer = call("POST", "/projects", {"slug": "shop"})
    problem = assert_problem(answer, 409, "CONFLICT", "errors")
    assert problem["errors"] == [{"field": "slug", "message": "is taken"}]


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "slug"),
        ({"slug": "My Shop"}, "slug"),
        ({"slug": None}, "slug"),
        ({"slug": "a", "name": ""}, "name"),
        ({"slug": "a", "prefix": "Sk"}, "prefix"),
        ({"slug": "a", "key_format": "uuid"}, "key_format"),
        ({"slug": "a", "shows_environment": "no"}, "shows_environment"),
        ({"slug": "a", "key_limit": 0}, "key_limit"),
        ({"slug": "a", "color": "red"}, "color"),
        ([], "body"),
    ],
)
def test_create_project_names_the_field_at_fault(call: Call, body: Any, field: str) -> None:
    assert list(faults(call("POST", "/projects", body))) == [field]
    assert Project.select().count() == 1


# --- read -------------------------------------------------------------------------------------


def test_list_projects_answers_projects_newest_first_in_pages(call: Call, clock: Clock) -> None:
    for slug in ("second", "third"):
        clock.move("1m")
        call("POST", "/projects", {"slug": slug})
    first = call("GET", "/projects?limit=2").json
    assert first.keys() == {"data", "next_cursor"}
    assert all(project.keys() == PROJECT_FIELDS for project in first["data"])
    rest = call("GET", f"/projects?limit=2&cursor={first['next_cursor']}").json
    slugs = [project["slug"] for page in (first, rest) for project in page["data"]]
    assert slugs == ["third", "second", "shop"] and rest["next_cursor"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=x", "slug=shop"])
def test_list_projects_names_the_part_of_the_query_at_fault(call: Call, query: str) -> None:
    assert list(faults(call("GET", f"/projects?{query}"))) == [query.partition("=")[0]]


# --- edit -------------------------------------------------------------------------------------


def test_edit_project_changes_what_is_sent_alone(call: Call) -> None:
    before = call("GET", "/projects/shop").json
    answer = call("PATCH", "/projects/shop", {"key_limit": 2})
    assert (answer.status_code, answer.json) == (200, {**before, "key_limit": 2})
    assert call("PATCH", "/projects/shop", {"key_limit": None}).json == before
    assert [event.changes for event in Event.select().where(Event.action == "project.edited")] == [
        {"key_limit": [None, 2]}, {"key_limit": [2, None]}]  # fmt: skip


@pytest.mark.parametrize(
    "body, field",
    [
        ({"slug": "store"}, "slug"),
        ({"name": None}, "name"),
        ({"prefix": "vsp_sk"}, "prefix"),
        ({"key_format": "hex32"}, "shows_environment"),
        ({"key_limit": "many"}, "key_limit"),
        ({"plans": [{"name": "free"}]}, "plans.0.name"),
        ({"environments": []}, "environments"),
        ({"maximum_lifetime": "7d", "default_expiry": "1mo"}, "default_expiry"),
        ({"alert_email": "team"}, "alert_email"),
        ({"archived": None}, "archived"),
        ({"id": "prj_1"}, "id"),
        ("shop", "body"),
    ],
)
def test_edit_project_names_the_field_at_fault(call: Call, body: Any, field: str) -> None:
    before = call("GET", "/projects/shop").json
    assert list(faults(call("PATCH", "/projects/shop", body))) == [field]
    assert call("GET", "/projects/shop").json == before


def test_edit_project_archives_and_restores(call: Call) -> None:
    before = call("GET", "/projects/shop").json
    assert call("PATCH", "/projects/shop", {"archived": True}).json == {**before, "archived": True}
    problem = assert_problem(call("POST", "/api-keys", {"name": "CI", "project": "shop"}), 409,
                             "CONFLICT")  # fmt: skip
    assert "archived" in problem["detail"]
    assert call("PATCH", "/projects/shop", {"archived": False}).json == before


def test_edit_project_keeps_a_plan_that_keys_are_on(
    call: Call, make_key: MakeKey, operator: Actor
) -> None:
    call("PATCH", "/projects/shop", {"plans": [{"name": "partner", "per_minute": 5}]})
    make_key(plan="partner")
    problem = assert_problem(
        call("PATCH", "/projects/shop", {"plans": []}), 409, "CONFLICT", "errors"
    )
    assert [error["field"] for error in problem["errors"]] == ["plans"]


# --- delete -----------------------------------------------------------------------------------


def test_delete_project_removes_an_empty_one(call: Call) -> None:
    answer = call("DELETE", "/projects/shop")
    assert (answer.status_code, answer.data) == (204, b"")
    assert_problem(call("GET", "/projects/shop"), 404, "NOT_FOUND")
    assert_problem(call("DELETE", "/projects/shop"), 404, "NOT_FOUND")


def test_delete_project_refuses_while_there_are_keys(
    call: Call, make_key: MakeKey, operator: Actor
) -> None:
    key, _ = make_key()
    problem = assert_problem(call("DELETE", "/projects/shop"), 409, "CONFLICT")
    assert "delete every key first" in problem["detail"]
    keys.delete(key.id, by=operator)
    assert call("DELETE", "/projects/shop").status_code == 204


# --- who may ----------------------------------------------------------------------------------

TABLE = """
           list  read  edit  archive  create  delete
admin      200   200   200   403      403     403
member     200   200   403   403      403     403
viewer     200   200   403   403      403     403
stranger   200   404   404   404      403     404
root       200   200   200   403      403     403
manager    200   200   200   403      403     403
nobody     200   200   403   403      403     403
elsewhere  200   404   404   404      403     404
nothing    401   401   401   401      401     401
owner      200   200   200   200      201     409
"""
CALLS: dict[str, tuple[str, str, Any]] = {
    "list": ("GET", "/projects", None),
    "read": ("GET", "/projects/shop", None),
    "edit": ("PATCH", "/projects/shop", {"name": "Store"}),
    "create": ("POST", "/projects", {"slug": "newest"}),
    "archive": ("PATCH", "/projects/shop", {"archived": True}),
    "delete": ("DELETE", "/projects/shop", None),
}


@pytest.fixture
def credentials(
    client: FlaskClient, make_key: MakeKey, owner: Actor, admin: Actor, member: Actor,
    viewer: Actor, stranger: Actor,
) -> dict[str, str | None]:  # fmt: skip
    return {
        "admin": access_token(client, admin),
        "member": access_token(client, member),
        "viewer": access_token(client, viewer),
        "stranger": access_token(client, stranger),
        "root": make_key(permissions=["admin:*"])[1],
        "manager": make_key(permissions=["projects:manage"])[1],
        "nobody": make_key()[1],
        "elsewhere": make_key(project="other", permissions=["admin:*"])[1],
        "nothing": None,
        "owner": access_token(client, owner),  # last: in a project that is archived no key acts
    }


@pytest.mark.parametrize("column", range(len(CALLS)), ids=[*CALLS])
def test_who_may_call_it(call: Call, credentials: dict[str, str | None], column: int) -> None:
    header, *lines = (line.split() for line in TABLE.strip().splitlines())
    method, path, body = CALLS[header[column]]
    expected = {who: int(words[column]) for who, *words in lines}
    found = {who: call(method, path, body, by=by).status_code for who, by in credentials.items()}
    assert found == expected


def test_the_code_of_a_refusal_says_whether_a_role_or_a_permission_is_lacking(
    call: Call, credentials: dict[str, str | None]
) -> None:
    def edit(who: str) -> TestResponse:
        return call("PATCH", "/projects/shop", {"name": "Store"}, by=credentials[who])

    assert_problem(edit("member"), 403, "FORBIDDEN")
    problem = assert_problem(edit("nobody"), 403, "PERMISSION_DENIED", "missing_permissions")
    assert problem["missing_permissions"] == ["projects:manage"]
    for who in ("admin", "root"):
        answer = call("DELETE", "/projects/shop", by=credentials[who])
        assert_problem(answer, 403, "FORBIDDEN")


def test_everybody_lists_the_projects_that_they_see(
    call: Call, credentials: dict[str, str | None]
) -> None:
    def seen(who: str) -> list[str]:
        listed = call("GET", "/projects", by=credentials[who]).json["data"]
        return sorted(project["slug"] for project in listed)

    assert seen("owner") == ["other", "shop"]
    assert [seen(who) for who in ("admin", "member", "viewer", "root", "nobody")] == [["shop"]] * 5
    assert [seen(who) for who in ("stranger", "elsewhere")] == [["other"]] * 2


@pytest.mark.parametrize("method, body", [("GET", None), ("PATCH", {}), ("DELETE", None)])
def test_foreign_and_missing_projects_are_one_answer(
    call: Call, credentials: dict[str, str | None], method: str, body: Any
) -> None:
    for who in ("stranger", "elsewhere"):
        told = []
        for slug in ("shop", "gone"):
            answer = call(method, f"/projects/{slug}", body, by=credentials[who])
            problem = assert_problem(answer, 404, "NOT_FOUND")
            del problem["request_id"]
            told.append({**problem, "detail": problem["detail"].replace(slug, "…")})
        assert told[0] == told[1]


@pytest.mark.parametrize("slug", ["SHOP", "%00", "..", "%ED%A0%80", "a" * 9_000, "shop%0A"])
def test_a_slug_that_can_be_none_is_unknown(call: Call, slug: str) -> None:
    assert call("GET", f"/projects/{slug}").status_code == 404


def test_the_calls_are_described() -> None:
    paths = document.build("https://keys.example.com")["paths"]
    assert paths[f"{V1}/projects"].keys() == {"get", "post"}
    assert paths[f"{V1}/projects/{{slug}}"].keys() == {"get", "patch", "delete"}
    assert "access token" in paths[f"{V1}/projects"]["get"]["description"]
