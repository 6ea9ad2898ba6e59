"""A project's settings in the browser: what each form saves, what it keeps of a mistake, who sees
what, and that the same change through the API leaves the same row and the same event."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import keys, projects
from console.actor import Actor
from console.alert_rules import OF_PROJECT
from console.models import Event, Key, Project, Session
from tests.conftest import PASSWORD, Clock, MakeKey, bearer, sign_in

SETTINGS = "/projects/shop/settings"
ALONE = {"HX-Request": "true"}


def words(answer: TestResponse) -> str:
    """What a person reads in it, on one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def values(answer: TestResponse, name: str) -> list[str]:
    """What the inputs of that name hold."""
    found = re.findall(rf'<input [^>]*name="{re.escape(name)}" value="([^"]*)"', answer.text)
    return [unescape(one) for one in found]


def rows(of: str, *lines: dict[str, str]) -> dict[str, list[str]]:
    names = {name for line in lines for name in line}
    return {f"{of}.{name}": [line.get(name, "") for line in lines] for name in names}


# --- the same through both doors ------------------------------------------------------------------

OFFER = {"name": "tasks:read", "description": "View tasks"}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "general": ({"name": " Store "}, {"name": "Store"}),
    "secrets": (
        {"prefix": "vsp_sk", "key_format": "base62", "shows_environment": "no"},
        {"prefix": "vsp_sk", "shows_environment": False},
    ),
    "permissions": (
        rows("permission_catalogue", {}, OFFER, {"name": "tasks:write"}, {}),
        {"permission_catalogue": [OFFER, {"name": "tasks:write"}]},
    ),
    "presets": (
        rows("permission_presets", {}, {"name": "Read-only", "permissions": "a:read, b:read"}),
        {"permission_presets": [{"name": "Read-only", "permissions": ["a:read", "b:read"]}]},
    ),
    "plans": (
        rows("plans", {"name": "partner", "per_minute": "5"}, {"name": "open", "per_hour": ""}),
        {"plans": [{"name": "partner", "per_minute": 5}, {"name": "open"}]},
    ),
    "routes": (
        {
            **rows(
                "route_rules",
                {},
                {"methods": "get, head", "path": "/tasks/**", "permissions": "tasks:read"},
                {"path": "/"},
            ),
            "route_default": "deny",
        },
        {
            "route_rules": [
                {"methods": ["GET", "HEAD"], "path": "/tasks/**", "permissions": ["tasks:read"]},
                {"path": "/"},
            ],
            "route_default": "deny",
        },
    ),
    "lifetimes": (
        {"key_limit": "7", "default_expiry": "7d", "maximum_lifetime": "1y"},
        {"key_limit": 7, "default_expiry": "7d", "maximum_lifetime": "1y"},
    ),
    "environments": ({"environments": ["test"]}, {"environments": ["test"]}),
    "alerts": (
        {"alert_email": "Team@example.com", "unused_after": "30d", "raised": ["expired"]},
        {
            "alert_email": "Team@example.com",
            "alerts": {
                "unused_after": "30d",
                "off": [one for one in OF_PROJECT if one != "expired"],
            },
        },
    ),
    "rotation": (
        {"rotation": "yes", "rotation_live": "60d", "rotation_test": ""},
        {"rotation_policy": {"live": "60d", "test": None}},
    ),
}
ENDS: dict[str, tuple[dict[str, str], Any]] = {
    "archive": ({"confirm": "Shop"}, ("PATCH", {"archived": True})),
    "restore": ({}, ("PATCH", {"archived": False})),
    "delete": ({"confirm": "Shop"}, ("DELETE", None)),
}


@pytest.fixture
def by_json(app: Flask, owner: Actor, clock: Clock) -> Callable[..., TestResponse]:
    script = app.test_client()
    answer = script.post("/api/v1/auth/token", json={"email": owner.name, "password": PASSWORD})
    headers = bearer(answer.json["access_token"])

    def call(method: str, body: Any, slug: str = "shop") -> TestResponse:
        return script.open(f"/api/v1/projects/{slug}", method=method, json=body, headers=headers)

    return call


def state(slug: str) -> tuple[Any, list[Any]]:
    """The project's row and what was recorded of it, without what differs by nature."""
    project = Project.get_or_none(Project.slug == slug)
    facts = project and {**projects.as_dict(project), "id": None, "slug": None, "created_at": None}
    events = Event.select().where(Event.target_name == slug, Event.action != "project.created")
    return facts, [
        (event.action, event.actor_id, event.project_id is not None, event.changes)
        for event in events.order_by(Event.id)
    ]


@pytest.mark.parametrize("section", CHANGES)
def test_a_form_and_a_call_leave_the_same(
    signed_in: FlaskClient, by_json: Callable[..., TestResponse], operator: Actor, section: str
) -> None:
    projects.create({"slug": "twin", "name": "Shop", "prefix": "sk"}, by=operator)
    form, body = CHANGES[section]
    before = state("shop")
    answer = signed_in.post(f"{SETTINGS}/{section}", data=form)
    assert (answer.status_code, answer.location) == (303, f"{SETTINGS}#{section}")
    assert by_json("PATCH", body, "twin").status_code == 200
    assert state("shop") == state("twin") != before
    assert len(state("shop")[1]) == 1


@pytest.mark.parametrize("name", ENDS)
def test_a_dialog_and_a_call_leave_the_same(
    signed_in: FlaskClient, by_json: Callable[..., TestResponse], operator: Actor, name: str
) -> None:
    projects.create({"slug": "twin", "name": "Shop", "prefix": "sk"}, by=operator)
    if name == "restore":
        for slug in ("shop", "twin"):
            projects.archive(slug, by=operator)
    form, (method, body) = ENDS[name]
    before = state("shop")
    assert signed_in.get(f"/projects/shop/{name}").status_code == 200
    assert state("shop") == before
    assert signed_in.post(f"/projects/shop/{name}", data=form).status_code == 303
    assert by_json(method, body, "twin").status_code in (200, 204)
    assert state("shop") == state("twin") != before


def test_a_new_project_is_the_same_through_both_doors(
    signed_in: FlaskClient, by_json: Callable[..., TestResponse]
) -> None:
    form = {"name": "Möbel & Co", "slug": "", "prefix": "vc", "key_format": "hex32"}
    answer = signed_in.post("/projects/new", data=form)
    assert answer.location == "/projects/mobel-co/settings"
    made = projects.as_dict(Project.get(Project.slug == "mobel-co"))
    assert (made["name"], made["prefix"], made["key_format"]) == ("Möbel & Co", "vc", "hex32")
    again = signed_in.post("/projects/new", data={**form, "slug": "shop"})
    assert again.status_code == 409 and "Is taken." in words(again)
    assert values(again, "prefix") == [] or "Möbel" in unescape(again.text)
    nameless = signed_in.post("/projects/new", data={**form, "name": " "})
    assert nameless.status_code == 422 and Project.select().count() == 2
    bad = signed_in.post("/projects/new", data={**form, "slug": "No Slug", "prefix": "1"})
    assert bad.status_code == 422 and "must be 1–40" in words(bad).replace("Must", "must")


# --- one form at a time ---------------------------------------------------------------------------


def test_every_setting_is_in_its_form(signed_in: FlaskClient, operator: Actor) -> None:
    projects.edit(
        "shop",
        {"permission_catalogue": [OFFER], "plans": [{"name": "partner", "per_hour": 50}],
         "permission_presets": [{"name": "All", "permissions": ["a:b", "c:d"]}],
         "default_expiry": "45d", "maximum_lifetime": "1y", "environments": ["test"],
         "alert_email": "team@example.com", "key_limit": 7},
        by=operator,
    )  # fmt: skip
    page = signed_in.get(SETTINGS)
    assert values(page, "permission_catalogue.name") == ["tasks:read", "", ""]
    assert values(page, "permission_presets.permissions") == ["a:b c:d", "", ""]
    assert values(page, "plans.per_hour") == ["50", "", ""]
    for name, value in (("default_expiry", "45d"), ("maximum_lifetime", "1y"), ("key_limit", "7"),
                        ("alert_email", "team@example.com"), ("prefix", "sk")):  # fmt: skip
        assert re.search(rf'id="{name}"[^>]* value="{value}"', page.text), name
    assert re.findall(r'value="(live|test)"( checked)?', page.text) == [
        ("live", ""), ("test", " checked")]  # fmt: skip
    assert "sk_test_" in words(page) and "sk_live_" not in words(page)
    assert "No key on it" in words(page)


@pytest.mark.parametrize(
    "section, form, told, kept",
    [
        ("general", {"name": " "}, "Must not be empty.", None),
        ("secrets", {"prefix": "No!", "key_format": "base62", "shows_environment": "yes"},
         "Must start with a lowercase letter", 'value="No!"'),
        ("secrets", {"prefix": "vc", "key_format": "hex32", "shows_environment": "yes"},
         "hex32 secrets carry no environment part", 'value="vc"'),
        ("permissions", rows("permission_catalogue", {}, {"name": "tasks", "description": "X"}),
         "Must look like tasks:read", 'id="permission_catalogue.1.name-error"'),
        ("permissions", rows("permission_catalogue", {"name": "", "description": "Nameless"}),
         "Must look like tasks:read", 'value="Nameless"'),
        ("permissions", rows("permission_catalogue", OFFER, OFFER), "is there twice",
         'value="View tasks"'),
        ("presets", rows("permission_presets", {}, {"name": "All", "permissions": "tasks"}),
         "'tasks' must look like tasks:read", 'id="permission_presets.1.permissions-error"'),
        ("presets", rows("permission_presets", {"name": "None", "permissions": ""}),
         "Must have one at least", 'value="None"'),
        ("presets", rows("permission_presets", {"name": "", "permissions": "a:b"}),
         "Must not be empty", 'value="a:b"'),
        ("plans", rows("plans", {}, {"name": "gold", "per_minute": "many"}),
         "Must be a whole number", 'id="plans.1.per_minute-error"'),
        ("plans", rows("plans", {"name": "free"}), "free is built in", 'value="free"'),
        ("lifetimes", {"default_expiry": "soon"}, "Must be a length", 'value="soon"'),
        ("lifetimes", {"key_limit": "0"}, "Must be a whole number from 1", 'value="0"'),
        ("environments", {}, "Must have one at least", None),
        ("alerts", {"alert_email": "team"}, "Must be an e-mail address", 'value="team"'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_beside_its_field_and_nothing_is_saved(
    signed_in: FlaskClient, section: str, form: dict[str, Any], told: str, kept: str | None
) -> None:
    before = state("shop")
    for headers in ({}, ALONE):
        answer = signed_in.post(f"{SETTINGS}/{section}", data=form, headers=headers)
        assert answer.status_code == 422
        assert told in words(answer) and "Nothing was saved: see above" in words(answer)
        assert kept is None or kept in answer.text
        assert answer.text.count("<section") == (1 if headers else 12)
        assert answer.text.count('role="alert"') == 1
    assert state("shop") == before


def test_where_scripts_run_one_part_comes_back_alone(signed_in: FlaskClient) -> None:
    form = {"alert_email": "team@example.com"}
    answer = signed_in.post(f"{SETTINGS}/alerts", data=form, headers=ALONE)
    assert answer.status_code == 200 and answer.text.count("<section") == 1
    assert answer.headers["HX-Trigger"] == '{"notice": {"words": "Saved"}}'
    renamed = signed_in.post(f"{SETTINGS}/general", data={"name": "Store"}, headers=ALONE)
    assert (renamed.status_code, renamed.headers["HX-Redirect"]) == (204, SETTINGS)


def test_rows_are_added_and_removed_without_saving(signed_in: FlaskClient) -> None:
    typed = rows("plans", {"name": "a", "per_minute": "1"}, {"name": "b"})
    more = signed_in.post(f"{SETTINGS}/plans", data={**typed, "rows": "more"})
    assert (more.status_code, values(more, "plans.name")) == (200, ["a", "b", "", ""])
    less = signed_in.post(f"{SETTINGS}/plans", data={**typed, "rows": "0"}, headers=ALONE)
    assert values(less, "plans.name") == ["b"]
    assert Project.get().plans == []


def test_a_plan_that_keys_are_on_is_told_beside_the_plans(
    signed_in: FlaskClient, operator: Actor, make_key: MakeKey
) -> None:
    projects.edit("shop", {"plans": [{"name": "partner"}]}, by=operator)
    make_key(plan="partner")
    assert "1 key on it" in words(signed_in.get(SETTINGS))
    answer = signed_in.post(f"{SETTINGS}/plans", data=rows("plans", {"name": "other"}))
    assert answer.status_code == 409
    assert "1 key is on partner: give them another plan first." in words(answer)


def test_the_look_of_a_secret_follows_what_is_typed(signed_in: FlaskClient) -> None:
    typed = {"prefix": "vsp_sk", "key_format": "base62", "shows_environment": "no"}
    answer = signed_in.post(f"{SETTINGS}/secrets/example", data=typed)
    assert re.search(r"<code>vsp_sk_[0-9A-Za-z]{36}</code>", answer.text)
    assert answer.text.count("<code>") == 1
    assert "_live_" not in answer.text
    wrong = signed_in.post(f"{SETTINGS}/secrets/example", data={**typed, "prefix": "vsp__sk"})
    assert wrong.status_code == 200 and "Must start with a lowercase letter" in words(wrong)
    assert Project.get().prefix == "sk"


# --- two people, one subject ----------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "general": {"name": "Other"},
    "secrets": {"prefix": "ok", "key_format": "base62", "shows_environment": "yes"},
    "permissions": rows("permission_catalogue", {"name": "a:b"}),
    "presets": rows("permission_presets", {"name": "Some", "permissions": "a:b"}),
    "plans": rows("plans", {"name": "other"}),
    "routes": {**rows("route_rules", {"path": "/other"}), "route_default": "allow"},
    "lifetimes": {"key_limit": "", "default_expiry": "", "maximum_lifetime": "2y"},
    "environments": {"environments": ["live"]},
    "alerts": {"alert_email": ""},
    "rotation": {"rotation": "yes", "rotation_live": "90d", "rotation_test": "180d"},
}
SHOWN = {
    "general": "Name: Store", "secrets": "Prefix: vsp_sk Format: base62 Environment: Left out",
    "permissions": "Permissions: tasks:read (View tasks), tasks:write",
    "presets": "Presets: Read-only: a:read, b:read",
    "plans": "Plans: partner: 5 a minute; open: None",
    "routes": "Rules: GET HEAD /tasks/** → tasks:read; Every method / → any key "
    "What no rule covers: Is refused",
    "lifetimes": "Live keys at most: 7 New keys live for: 7d Keys live at most: 1y",
    "environments": "New keys may be: test", "alerts": "Address of the team: team@example.com",
    "rotation": "live keys after 60d",
}  # fmt: skip
SECOND = {"name": "tasks:write", "description": "Change tasks"}


def seen_in(answer: TestResponse, section: str) -> str:
    """From what the form of this subject was made."""
    part = answer.text.partition(f'<section class="setting" id="{section}"')[2]
    return re.findall(r'name="seen" value="([0-9a-f]{16})"', part)[0]


def test_whoever_saves_second_is_told_and_loses_nothing(app: Flask, signed_in: FlaskClient,
                                                        admin: Actor) -> None:  # fmt: skip
    other = sign_in(app, admin)
    opened = [seen_in(browser.get(SETTINGS), "permissions") for browser in (signed_in, other)]
    first = {**rows("permission_catalogue", OFFER), "seen": opened[0]}
    assert signed_in.post(f"{SETTINGS}/permissions", data=first).status_code == 303
    assert signed_in.post(f"{SETTINGS}/permissions", data=first).status_code == 303  # pressed twice
    before = state("shop")
    second = {**rows("permission_catalogue", SECOND), "seen": opened[1]}
    more = other.post(f"{SETTINGS}/permissions", data={**second, "rows": "more"})
    assert seen_in(more, "permissions") == opened[1]
    wrong = {**rows("permission_catalogue", {"name": "tasks"}), "seen": opened[1]}
    mistake = other.post(f"{SETTINGS}/permissions", data=wrong)
    assert (mistake.status_code, seen_in(mistake, "permissions")) == (422, opened[1])
    for headers in ({}, ALONE):
        told = other.post(f"{SETTINGS}/permissions", data=second, headers=headers)
        assert told.status_code == 409 and told.text.count("<section") == (1 if headers else 11)
        assert "Somebody changed this since you opened it. Nothing was saved" in words(told)
        assert "tasks:read (View tasks)" in words(told)
        assert values(told, "permission_catalogue.name") == ["tasks:write"]
    assert state("shop") == before
    again = {**second, "seen": seen_in(told, "permissions")}
    assert other.post(f"{SETTINGS}/permissions", data=again).status_code == 303
    assert Project.get().permission_catalogue == [SECOND]


@pytest.mark.parametrize("section", CHANGES)
def test_each_subject_tells_what_is_there_now(
    signed_in: FlaskClient, operator: Actor, section: str
) -> None:
    page = signed_in.get(SETTINGS)
    form, _ = CHANGES[section]
    stale = {**form, "seen": "0" * 16}
    assert signed_in.post(f"{SETTINGS}/{section}", data=stale).status_code == 409
    opened = {**form, "seen": seen_in(page, section)}
    elsewhere = "alerts" if section != "alerts" else "general"
    projects.edit("shop", CHANGES[elsewhere][1], by=operator)  # another subject hinders nobody
    assert signed_in.post(f"{SETTINGS}/{section}", data=opened).status_code == 303
    assert seen_in(signed_in.get(SETTINGS), section) != opened["seen"]
    told = signed_in.post(f"{SETTINGS}/{section}", data={**OTHERS[section], "seen": "0" * 16})
    assert told.status_code == 409 and SHOWN[section] in words(told)


@pytest.mark.parametrize("section", ["permissions", "plans", "routes", "lifetimes", "alerts"])
def test_a_form_without_its_fields_empties_nothing(
    signed_in: FlaskClient, operator: Actor, section: str
) -> None:
    projects.edit("shop", CHANGES[section][1], by=operator)
    before = state("shop")
    for data in ({}, {"name": "Store", "unknown": "x"}):
        answer = signed_in.post(f"{SETTINGS}/{section}", data=data)
        assert answer.status_code == 422 and "Was not sent, so it stays as it is" in words(answer)
    assert state("shop") == before


def test_lengths_that_are_not_sent_stay(signed_in: FlaskClient, operator: Actor) -> None:
    projects.edit("shop", {"default_expiry": "7d", "maximum_lifetime": "1y"}, by=operator)
    assert signed_in.post(f"{SETTINGS}/lifetimes", data={"key_limit": "7"}).status_code == 303
    project = Project.get()
    assert (project.key_limit, project.default_expiry, project.maximum_lifetime) == (7, "7d", "1y")


def test_a_list_is_emptied_by_who_has_seen_it(signed_in: FlaskClient, operator: Actor) -> None:
    projects.edit("shop", {"permission_catalogue": [OFFER]}, by=operator)
    seen = seen_in(signed_in.get(SETTINGS), "permissions")
    assert signed_in.post(f"{SETTINGS}/permissions", data={"seen": seen}).status_code == 303
    assert Project.get().permission_catalogue == []


# --- who sees what --------------------------------------------------------------------------------

OWNERS = [f"/projects/shop/{name}" for name in ENDS] + ["/projects/new"]


def test_who_may_not_change_settings_reads_them(
    app: Flask, viewer: Actor, member: Actor, admin: Actor, stranger: Actor
) -> None:
    for person, status in ((viewer, 403), (member, 403), (admin, 303), (stranger, 404)):
        browser = sign_in(app, person)
        page = browser.get(SETTINGS)
        assert page.status_code == (404 if status == 404 else 200)
        assert ('name="prefix"' in page.text) == (status == 303)
        assert "Archive project" not in page.text
        saved = browser.post(f"{SETTINGS}/general", data={"name": f"Of {person.name}"})
        assert saved.status_code == status
        for path in OWNERS:
            expected = 404 if status == 404 and "shop" in path else 403
            for answer in (browser.get(path), browser.post(path, data={"confirm": "Shop"})):
                assert answer.status_code == expected, path
    shop = Project.get(Project.slug == "shop")
    assert shop.name == f"Of {admin.name}"
    assert shop.archived_at is None


@pytest.mark.parametrize("path", [*OWNERS, "/projects", SETTINGS, f"{SETTINGS}/general"])
def test_none_of_it_opens_without_signing_in(
    client: FlaskClient, project: Project, path: str
) -> None:
    for answer in (client.get(path), client.post(path)):
        assert answer.status_code == 405 or answer.location.startswith("/login")


def test_what_ends_a_project_asks_first_who_is_there(
    app: Flask, owner: Actor, project: Project
) -> None:
    browser = sign_in(app, owner)
    Session.update(authenticated_at=0).execute()
    for name, (form, _) in ENDS.items():
        for answer in (browser.get(f"/projects/shop/{name}"),
                       browser.post(f"/projects/shop/{name}", data=form)):  # fmt: skip
            assert answer.status_code in (303, 403) and f"{name.title()} Project" not in answer.text
    assert Project.get().archived_at is None
    assert browser.post(f"{SETTINGS}/general", data={"name": "Store"}).status_code == 303


def test_forms_want_their_token(app: Flask, owner: Actor, project: Project) -> None:
    browser = sign_in(app, owner)
    app.config["WTF_CSRF_ENABLED"] = True
    before = state("shop")
    for path in (f"{SETTINGS}/general", f"{SETTINGS}/secrets/example", *OWNERS):
        assert browser.post(path, data={"name": "X", "confirm": "Shop"}).status_code == 400
    assert state("shop") == before
    assert browser.post(f"{SETTINGS}/nothing").status_code == 400


def test_there_are_no_other_settings(signed_in: FlaskClient) -> None:
    assert signed_in.post(f"{SETTINGS}/nothing").status_code == 404


# --- archived, deleted ----------------------------------------------------------------------------


def test_a_wrong_name_ends_nothing(signed_in: FlaskClient) -> None:
    for name in ("archive", "delete"):
        answer = signed_in.post(f"/projects/shop/{name}", data={"confirm": "shop"})
        assert answer.status_code == 422
        assert "Type the project's name, Shop, exactly" in words(answer)
    assert Project.get().archived_at is None


def test_the_dialogs_say_who_loses_what(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor
) -> None:
    asked = words(signed_in.get("/projects/shop/archive"))
    assert "No key of this project works now" in asked
    first, second = make_key()[0], make_key()[0]
    Key.update(last_used_at=first.created_at).where(Key.id == first.id).execute()
    keys.revoke(make_key()[0].id, by=operator)
    asked = words(signed_in.get("/projects/shop/archive"))
    assert "2 active keys are refused from the next request on. 1 of them was used" in asked
    asked = words(signed_in.get("/projects/shop/delete"))
    assert "This project still has 3 keys" in asked and "Type the project" not in asked
    keys.delete(second.id, by=operator)
    refused = signed_in.post("/projects/shop/delete", data={"confirm": "Shop"})
    assert refused.status_code == 409 and "2 keys" in words(refused)


def test_an_archived_project_is_shown_as_such(
    signed_in: FlaskClient, operator: Actor, other_project: Project, make_key: MakeKey
) -> None:
    key, _ = make_key()
    projects.archive("shop", by=operator)
    page = signed_in.get(SETTINGS)
    assert "This project is archived" in words(page) and "Restore project" in words(page)
    assert 'name="prefix"' not in page.text
    table = signed_in.get("/projects/shop/keys")
    assert "This project is archived" in words(table) and "Create API Key" not in words(table)
    saved = signed_in.post(f"{SETTINGS}/general", data={"name": "Store"})
    assert saved.status_code == 409 and "restore it before you change it" in words(saved)
    restored = signed_in.post(f"/projects/shop/keys/{key.id}/edit", data={"name": "New"})
    assert restored.status_code == 409 and "until an owner restores it" in words(restored)


def test_the_list_has_archived_projects_below_and_home_leads_past_them(
    signed_in: FlaskClient, operator: Actor, other_project: Project
) -> None:
    assert words(signed_in.get("/")) == words(signed_in.get("/projects"))
    projects.archive("other", by=operator)
    page = words(signed_in.get("/projects"))
    assert page.index("Shop") < page.index("Archived") < page.index("Other")
    assert signed_in.get("/").location == "/projects/shop/keys"
    projects.archive("shop", by=operator)
    assert "Archived" in words(signed_in.get("/"))
