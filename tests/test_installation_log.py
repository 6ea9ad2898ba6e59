"""The activity log of the whole installation: everything that was ever done, for owners alone."""

import csv
import io
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import activity, keys, people, projects
from console.actor import Actor
from console.errors import Forbidden
from console.models import Event, Project
from tests.conftest import PASSWORD, V1, Call, MakeKey, assert_problem, bearer, sign_in


@pytest.fixture
def token(client: FlaskClient, owner: Actor) -> str:
    answer = client.post(f"{V1}/auth/token", json={"email": owner.name, "password": PASSWORD})
    return str(answer.get_json()["access_token"])


@pytest.fixture
def deeds(make_key: MakeKey, owner: Actor, project: Project, other_project: Project) -> None:
    """Something was done to a key, a person, and a project that is gone."""
    key, _ = make_key(name="CI", by=owner)
    keys.edit(key.id, {"description": "=1+1"}, by=owner)
    made, _ = people.create({"email": "new@example.com"}, by=owner)
    people.edit(made.id, {"name": "Newcomer"}, by=owner)
    projects.delete("other", by=owner)


def seen(answer: Any) -> set[str]:
    return {event["action"] for event in answer.get_json()["data"]}


@pytest.mark.usefixtures("deeds")
def test_owners_see_what_was_done_anywhere(client: FlaskClient, token: str) -> None:
    whole = client.get(f"{V1}/activity?scope=installation&limit=200", headers=bearer(token))
    assert whole.status_code == 200
    assert {
        "key.created", "key.edited", "person.created", "person.edited", "person.signed_in",
        "project.created", "project.deleted",
    } <= seen(whole)  # fmt: skip
    of_shop = client.get(f"{V1}/activity?project=shop&limit=200", headers=bearer(token))
    assert seen(of_shop) == {"project.created", "key.created", "key.edited"}
    assert len(whole.get_json()["data"]) == Event.select().count()


@pytest.mark.usefixtures("deeds")
def test_each_event_says_in_which_project_it_happened(
    client: FlaskClient, token: str, project: Project, other_project: Project
) -> None:
    whole = client.get(f"{V1}/activity?scope=installation&limit=200", headers=bearer(token))
    where = {(one["action"], one["project_id"]) for one in whole.get_json()["data"]}
    assert ("key.created", project.id) in where
    assert ("project.deleted", other_project.id) in where
    assert ("person.created", None) in where


@pytest.mark.usefixtures("deeds")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("action=person.*", {"person.created", "person.edited", "person.signed_in"}),
        ("action=project.deleted", {"project.deleted"}),
        ("target=new@example.com", {"person.created", "person.edited"}),
        ("actor=command%20line", {"project.created"}),
        ("since=2100-01-01T00:00:00Z", set()),
        ("until=2000-01-01T00:00:00Z", set()),
    ],
)
def test_the_filters_are_those_of_a_project(
    client: FlaskClient, token: str, query: str, expected: set[str]
) -> None:
    answer = client.get(f"{V1}/activity?scope=installation&{query}", headers=bearer(token))
    assert seen(answer) - {"person.invited"} == expected


@pytest.mark.usefixtures("deeds")
def test_it_pages_and_exports(client: FlaskClient, token: str) -> None:
    ids: list[int] = []
    cursor = ""
    while cursor is not None:
        path = f"{V1}/activity?scope=installation&limit=3&cursor={cursor}"
        page = client.get(path, headers=bearer(token)).get_json()
        ids += [event["id"] for event in page["data"]]
        cursor = page["next_cursor"]
    assert ids == [event.id for event in Event.select().order_by(Event.id.desc())]
    path = f"{V1}/activity?scope=installation&format="
    lines = client.get(path + "jsonl", headers=bearer(token))
    assert [json.loads(line)["id"] for line in lines.text.splitlines()] == ids
    assert 'filename="activity.jsonl"' in lines.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(client.get(path + "csv", headers=bearer(token)).text)))
    assert [int(row["id"]) for row in rows] == ids
    assert {"project_id", "actor", "target", "changes", "ip", "request_id"} <= rows[0].keys()


def test_nobody_else_sees_it(
    app: Flask, call: Call, admin: Actor, client: FlaskClient, make_key: MakeKey
) -> None:
    _, text = make_key(name="All", permissions=["admin:*"])
    assert_problem(call("GET", "/activity?scope=installation", secret=text), 403, "FORBIDDEN")
    with pytest.raises(Forbidden):
        activity.page(None, by=admin)
    with pytest.raises(Forbidden):
        activity.actors(None, by=admin)
    browser = sign_in(app, admin)
    for path in ("/activity", "/activity.csv", "/activity.jsonl"):
        assert browser.get(path).status_code == 403
        assert client.get(path).status_code == 303


@pytest.mark.usefixtures("deeds")
def test_a_named_project_is_that_project_whatever_the_scope(
    client: FlaskClient, token: str
) -> None:
    asked = client.get(f"{V1}/activity?scope=installation&project=shop", headers=bearer(token))
    assert seen(asked) == {"project.created", "key.created", "key.edited"}


def test_another_scope_is_refused(client: FlaskClient, token: str) -> None:
    asked = client.get(f"{V1}/activity?scope=world", headers=bearer(token))
    assert assert_problem(asked, 400, "INVALID", "errors")["errors"][0]["field"] == "scope"


@pytest.mark.usefixtures("deeds")
def test_the_page_tells_who_what_where_from_and_by_which_request(
    signed_in: FlaskClient, owner: Actor
) -> None:
    page = signed_in.get("/activity")
    assert page.status_code == 200
    for said in ("added the person", "edited the person", "deleted the project", "signed in",
                 "Newcomer"):  # fmt: skip
        assert said in page.text
    event = Event.select().where(Event.action == "person.signed_in").order_by(Event.id.desc()).get()
    assert event.ip == "127.0.0.1" and event.request_id
    assert f"request <code>{event.request_id}</code>" in page.text
    some = signed_in.get("/activity?action=person.*&target=new@example.com").text
    assert "deleted the project" not in some and "edited the person" in some
    wrong = signed_in.get("/activity?action=nonsense")
    assert wrong.status_code == 422 and 'id="log-action-error"' in wrong.text
    part = signed_in.get("/activity", headers={"HX-Request": "true", "HX-Target": "events"}).text
    assert part.lstrip().startswith('<section id="events"')


@pytest.mark.usefixtures("deeds")
def test_the_page_exports_without_formulas(signed_in: FlaskClient) -> None:
    file = signed_in.get("/activity.csv?action=key.edited")
    assert file.headers["Content-Disposition"].startswith('attachment; filename="activity-')
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert len(rows) == 1 and "=1+1" in rows[0]["changes"]
    assert signed_in.get("/activity.exe").status_code == 404


@pytest.mark.usefixtures("deeds")
def test_a_key_of_an_event_is_a_link_while_it_is_there(signed_in: FlaskClient) -> None:
    assert "/projects/shop/keys/key_" in signed_in.get("/activity").text
