"""The rules of routes in a project's settings: typed in rows, moved, tried before they are saved,
brought back from earlier; and what the activity log says of them."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import activity, projects
from console.actor import Actor
from console.errors import Forbidden, Invalid, Unknown
from console.models import Event, Project
from console.route_rules import RULES_MAX, tried
from tests.conftest import Clock, sign_in
from tests.test_settings_pages import ALONE, SETTINGS, rows, seen_in, values, words

ROUTES = f"{SETTINGS}/routes"
READ = {"methods": "GET", "path": "/tasks/**", "permissions": "tasks:read"}
WRITE = {"methods": "", "path": "/tasks/**", "permissions": "tasks:write"}
OPEN = {"methods": "", "path": "/health", "permissions": ""}
READ_RULE = {"methods": ["GET"], "path": "/tasks/**", "permissions": ["tasks:read"]}
WRITE_RULE = {"methods": [], "path": "/tasks/**", "permissions": ["tasks:write"]}
OPEN_RULE = {"methods": [], "path": "/health", "permissions": []}


def typed(*lines: dict[str, str], default: str = "allow", **more: str) -> dict[str, Any]:
    return {**rows("route_rules", *lines), "route_default": default, **more}


def paths(answer: TestResponse) -> list[str]:
    """Of each row, as the form has it now."""
    return values(answer, "route_rules.path")


def trial(client: FlaskClient, path: str, *lines: dict[str, str], **more: str) -> str:
    """What trying this request says."""
    form = typed(*lines, **{"rows": "try", "method": "GET", "path": path, **more})
    answer = client.post(ROUTES, data=form, headers=ALONE)
    assert answer.status_code == 200
    return words(answer).partition("Nothing is sent anywhere.")[2]


def edited(operator: Actor, *rules: dict[str, Any], default: str = "allow") -> Event:
    projects.edit("shop", {"route_rules": list(rules), "route_default": default}, by=operator)
    return Event.select().order_by(Event.id.desc()).get()


# --- what is typed --------------------------------------------------------------------------------


def test_rules_are_saved_in_their_order_without_the_empty_rows(signed_in: FlaskClient) -> None:
    form = typed({}, READ, {}, WRITE, OPEN, {}, default="deny")
    assert signed_in.post(ROUTES, data=form).status_code == 303
    project = Project.get()
    assert project.route_rules == [READ_RULE, WRITE_RULE, OPEN_RULE]
    assert project.route_default == "deny"
    page = signed_in.get(SETTINGS)
    assert paths(page) == ["/tasks/**", "/tasks/**", "/health", "", ""]
    assert values(page, "route_rules.methods") == ["GET", "", "", "", ""]
    assert '<option value="deny" selected>Is refused</option>' in page.text


@pytest.mark.parametrize(
    "lines, wrong",
    [
        ([{}, {"methods": "GET P!ST", "path": "/a"}], ["1.methods"]),
        ([{}, {"methods": "G! P!", "path": "a", "permissions": "x"}],
         ["1.methods", "1.path", "1.permissions"]),
        ([READ, {}, {"methods": "GET"}, {}, {"path": "/a/**/b"}], ["2.path", "4.path"]),
        ([{"path": "/a", "permissions": "tasks:read x"}], ["0.permissions"]),
        ([{"path": "/a", "methods": " ".join(f"M{one}" for one in range(21))}], ["0.methods"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_beside_their_fields(
    signed_in: FlaskClient, lines: list[dict[str, str]], wrong: list[str]
) -> None:
    for pressed in ({}, {"rows": "try", "method": "GET", "path": "/a"}):
        answer = signed_in.post(ROUTES, data={**typed(*lines), **pressed}, headers=ALONE)
        assert answer.status_code == 422
        assert re.findall(r'id="route_rules\.([\w.]+)-error"', answer.text) == wrong
        assert answer.text.count('aria-invalid="true"') == len(wrong)
        told = "Nothing was tried: mend what is marked first" if pressed else "Nothing was saved"
        assert told in words(answer)
    assert Project.get().route_rules == []


def test_too_many_rules_are_told_once(signed_in: FlaskClient) -> None:
    answer = signed_in.post(ROUTES, data=typed(*[OPEN] * (RULES_MAX + 1)), headers=ALONE)
    assert answer.status_code == 422 and "At most 100 are allowed." in words(answer)
    assert paths(answer) == ["/health"] * (RULES_MAX + 1)


def test_a_default_alone_empties_no_rules(signed_in: FlaskClient, operator: Actor) -> None:
    edited(operator, READ_RULE)
    assert signed_in.post(ROUTES, data={"route_default": "deny"}).status_code == 303
    assert (Project.get().route_rules, Project.get().route_default) == ([READ_RULE], "deny")
    answer = signed_in.post(ROUTES, data={"route_default": "maybe"})
    assert answer.status_code == 422 and "Must be allow or deny." in words(answer)


# --- the rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, ALONE])
def test_a_rule_moves_up_and_nothing_is_saved(
    signed_in: FlaskClient, headers: dict[str, str]
) -> None:
    lines = [{"path": "/a"}, {"path": "/b", "methods": "GET"}, {"path": "/c"}]
    for pressed, order, focus in (
        ("up-1", ["/b", "/a", "/c"], "up-route_rules-0"),
        ("up-2", ["/a", "/c", "/b"], "up-route_rules-1"),
        ("up-0", ["/a", "/b", "/c"], "up-route_rules-0"),
        ("up-3", ["/a", "/b", "/c"], None),
        ("up-x", ["/a", "/b", "/c"], None),
        ("0", ["/b", "/c"], "remove-route_rules-0"),
        ("2", ["/a", "/b"], "more-route_rules"),
        ("more", ["/a", "/b", "/c", "", ""], "more-route_rules"),
    ):
        form = typed(*lines, rows=pressed, default="deny")
        answer = signed_in.post(ROUTES, data=form, headers=headers)
        assert (answer.status_code, paths(answer)) == (200, order), pressed
        assert '<option value="deny" selected>' in answer.text
        focused = re.findall(r'<[^>]* id="([^"]*)"[^>]* autofocus', answer.text)
        assert focus is None or focused == [focus], pressed
    assert Project.get().route_rules == []
    assert 'aria-label="Move GET /b up"' in signed_in.post(
        ROUTES, data=typed(*lines, rows="more")).text  # fmt: skip


# --- the tester -----------------------------------------------------------------------------------


def test_the_tester_says_which_rule_decides_and_what_is_needed(signed_in: FlaskClient) -> None:
    said = trial(signed_in, "/tasks/1?all=1", {}, OPEN, READ)
    assert "Needs tasks:read. One rule decides: Rule 2 GET /tasks/** → tasks:read" in said
    said = trial(signed_in, "/tasks/1", READ, WRITE, method=" delete ")
    assert "Needs tasks:write. One rule decides: Rule 2 Every method /tasks/**" in said
    said = trial(signed_in, " /health?deep=1", OPEN)
    assert "Any key of the project. One rule decides: Rule 1 Every method /health → any key" in said
    assert "No rule covers it: any key of the project." in trial(signed_in, "/", OPEN)
    assert "No rule covers it: refused." in trial(signed_in, "/", OPEN, default="deny")
    assert (Project.get().route_rules, Project.get().route_default) == ([], "allow")
    assert Event.select().where(Event.action == "project.edited").count() == 0


def test_the_tester_says_when_a_path_can_be_read_in_several_ways(signed_in: FlaskClient) -> None:
    said = trial(signed_in, "//health/tasks/1", READ, {**OPEN, "path": "/health/**"})
    assert (
        "Needs tasks:read. The path can be read in several ways, so several rules decide:" in said
    )
    assert "Rule 1 GET /tasks/** → tasks:read" in said and "Rule 2 Every method /health/**" in said
    said = trial(signed_in, "/TASKS/1", READ, default="deny")
    assert "Refused. The path can be read in several ways, and one of them no rule covers." in said
    assert "Of the others: Rule 1 GET /tasks/** → tasks:read" in said


@pytest.mark.parametrize("headers", [{}, ALONE])
def test_enter_tries_while_there_is_a_request_and_saves_else(
    signed_in: FlaskClient, headers: dict[str, str]
) -> None:
    form = typed(READ, rows="enter", method="GET", path="/tasks")
    answer = signed_in.post(ROUTES, data=form, headers=headers)
    assert answer.status_code == 200 and 'id="trial"' in answer.text
    assert Project.get().route_rules == []
    signed_in.post(ROUTES, data={**form, "path": " "}, headers=headers)
    assert Project.get().route_rules == [READ_RULE]


def test_a_request_that_is_none_is_told_beside_its_fields(signed_in: FlaskClient) -> None:
    form = typed(READ, rows="try", method="G T", path="tasks")
    answer = signed_in.post(ROUTES, data=form, headers=ALONE)
    assert answer.status_code == 422
    assert re.findall(r'id="([\w.]+)-error"', answer.text) == ["method", "path"]
    assert values(answer, "route_rules.permissions") == ["tasks:read"]


def test_what_is_tried_may_be_wrong_in_several_places_at_once() -> None:
    fields = {"route_rules": [{"path": "a"}], "route_default": "maybe"}
    with pytest.raises(Invalid) as error:
        tried(fields, "", "x" * 3_000)
    assert set(error.value.fields) == {"route_rules.0.path", "route_default", "method", "path"}


# --- versions -------------------------------------------------------------------------------------


def version_of(event: Event) -> dict[str, str]:
    return {"rows": f"version-{event.id}"}


def test_an_earlier_version_comes_into_the_rows_and_is_saved_as_a_new_one(
    signed_in: FlaskClient, operator: Actor
) -> None:
    first = edited(operator, READ_RULE, default="deny")
    projects.edit("shop", {"name": "Store", "key_limit": 7}, by=operator)
    edited(operator, WRITE_RULE, OPEN_RULE)
    page = signed_in.get(SETTINGS)
    told = words(page).partition("Versions")[2]
    assert told.count("Use these") == 3  # with the one that the project was made with
    assert told.index("Every method /health") < told.index("GET /tasks/**") < told.index("No rules")
    assert "Last changed just now by command line" in words(page)
    assert "/projects/shop/activity?action=project.edited" in page.text

    seen = seen_in(page, "routes")
    form = {**typed({"path": "/typed"}, seen=seen), **version_of(first)}
    for headers in ({}, ALONE):
        answer = signed_in.post(ROUTES, data=form, headers=headers)
        assert (answer.status_code, paths(answer)) == (200, ["/tasks/**", "", ""])
        assert '<option value="deny" selected>' in answer.text
        assert "They hold once they are saved." in words(answer)
    assert seen_in(answer, "routes") == seen
    assert Project.get().route_rules == [WRITE_RULE, OPEN_RULE]

    saved = signed_in.post(ROUTES, data=typed(READ, default="deny", seen=seen))
    assert saved.status_code == 303 and Project.get().route_rules == [READ_RULE]
    assert words(signed_in.get(SETTINGS)).partition("Versions")[2].count("Use these") == 4


def test_there_is_no_other_version(
    signed_in: FlaskClient, operator: Actor, other_project: Project
) -> None:
    projects.edit("other", {"route_rules": [READ_RULE]}, by=operator)
    elsewhere = Event.select().order_by(Event.id.desc()).get()
    for wanted in (str(elsewhere.id), "0", "x"):
        answer = signed_in.post(ROUTES, data={**typed(OPEN), "rows": f"version-{wanted}"})
        assert answer.status_code == 404
    assert "Versions" not in words(signed_in.get(SETTINGS))


def test_versions_go_back_setting_by_setting(
    project: Project, operator: Actor, clock: Clock
) -> None:
    names = ("route_rules", "route_default")
    steps: list[dict[str, Any]] = [
        {"route_rules": [READ_RULE]}, {"route_default": "deny"}, {"name": "route_rules"},
        {"route_rules": [OPEN_RULE]},
    ]  # fmt: skip
    for step in steps:
        clock.move("1h")
        projects.edit("shop", step, by=operator)
    facts: dict[str, Any] = {**projects.as_dict(Project.get())}
    present = {name: facts[name] for name in names}
    found = activity.versions(project.id, present, by=operator, limit=20)
    assert [(one.settings["route_rules"], one.settings["route_default"]) for one in found] == [
        ([OPEN_RULE], "deny"), ([READ_RULE], "deny"), ([READ_RULE], "allow"), ([], "allow"),
    ]  # fmt: skip
    assert activity.versions(project.id, present, by=operator, limit=1) == found[:1]


def test_versions_are_for_whoever_sees_all_that_was_done(
    project: Project, admin: Actor, member: Actor, stranger: Actor
) -> None:
    edited(admin, READ_RULE)
    edited(admin, OPEN_RULE)

    def seen_by(person: Actor) -> int:
        return len(activity.versions(project.id, {"route_rules": []}, by=person, limit=20))

    assert (seen_by(admin), seen_by(member)) == (3, 0)
    with pytest.raises(Unknown):
        seen_by(stranger)
    held = frozenset({"projects:manage"})
    without_log = Actor("key", "key", "Robot", project_id=project.id, permissions=held)
    with pytest.raises(Forbidden):
        seen_by(without_log)


# --- who reads it, and what the log says ----------------------------------------------------------


def test_who_may_not_change_rules_reads_them(app: Flask, operator: Actor, viewer: Actor) -> None:
    browser = sign_in(app, viewer)
    assert "Routes No rules. What no rule covers: any key of the project" in words(
        browser.get(SETTINGS))  # fmt: skip
    edited(operator, READ_RULE, OPEN_RULE, default="deny")
    page = browser.get(SETTINGS)
    assert ("Routes GET /tasks/** → tasks:read Every method /health → any key "
            "What no rule covers: is refused") in words(page)  # fmt: skip
    assert "Use these" not in page.text and "route_rules" not in page.text
    for pressed in ("", "try", "up-1", "enter", "version-1"):
        form = typed(OPEN, rows=pressed, method="GET", path="/")
        assert browser.post(ROUTES, data=form).status_code == 403


def test_the_log_says_rules_as_people_read_them(signed_in: FlaskClient, operator: Actor) -> None:
    def newest() -> str:
        page = words(signed_in.get("/projects/shop/activity?action=project.edited"))
        return page.partition("edited the project")[2].partition("edited the project")[0]

    edited(operator, READ_RULE, WRITE_RULE, default="deny")
    said = newest()
    assert "Rules of routes: added GET /tasks/** → tasks:read, Every method /tasks/**" in said
    assert "What no rule covers: any key of the project → is refused" in said
    assert "Rules of routes none GET /tasks/** → tasks:read Every method /tasks/** →" in said
    edited(operator, WRITE_RULE, READ_RULE, default="deny")
    assert "Rules of routes: another order" in newest()
    edited(operator, default="deny")
    said = newest()
    assert "Rules of routes: removed Every method /tasks/** → tasks:write, GET /tasks/**" in said
    assert "route_rules" not in said and "permissions" not in said and "{" not in said


def test_a_rule_that_never_decides_is_said(signed_in: FlaskClient, operator: Actor) -> None:
    rules = [{"path": "/tasks/**"}, {"path": "/tasks/open", "permissions": ["a:b"]}]
    projects.edit("shop", {"route_rules": rules}, by=operator)
    page = words(signed_in.get("/projects/shop/settings"))
    assert "Rule 2 ( Every method /tasks/open → a:b ) never decides: rule 1 covers all" in page
    projects.edit("shop", {"route_rules": rules[::-1]}, by=operator)
    assert "never decides" not in signed_in.get("/projects/shop/settings").text
