"""docs/permissions.md, line by line, through both doors: who may do what, with which key, and that
what is not theirs answers as what is not there, after the same work."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from werkzeug.test import TestResponse

from console import (
    calendar_feed,
    clock,
    db,
    journal,
    keys,
    people,
    projects,
    secret,
    signin,
    webhooks,
)
from console.actor import ADMIN_ROLE, MEMBER, VIEWER, Actor, command_line
from console.api.calls import CALLS
from console.models import Delivery, Entry, Key, Membership, Person, Project, Webhook
from console.permissions import CONSOLE
from tests.conftest import (
    PASSWORD,
    V1,
    Clock,
    add_alert,
    add_person,
    bearer,
    config_in,
    installation,
    sign_in,
    statements,
)
from tests.server import ROOT

DOCUMENT = (ROOT / "docs/permissions.md").read_text()
OWNER, NO_ROLE = "owner", "no role"
PEOPLE = (OWNER, ADMIN_ROLE, MEMBER, VIEWER, NO_ROLE)
YES, OWN, NO, REFUSED, NOT_THERE, NO_DOOR = "yes", "own", "no", "403", "404", "–"
ANY, NEVER = "any", "never"
PLACE = re.compile(r"\{(\w+)\}")
# Where nobody has signed in yet, what shows or changes nothing of a project, and what is opened by
# its address alone.
OPEN_PAGES = {
    "GET /setup", "POST /setup", "GET /login", "POST /login", "GET /invitation", "POST /invitation",
    "GET /forgot", "POST /forgot", "GET /reset", "POST /reset", "GET /login-link",
    "POST /login-link", "GET /healthz", "GET /readyz", "GET /metrics", "GET /static/{}",
    "POST /theme", "POST /logout", "GET /calendar/{}.ics",
}  # fmt: skip
OPEN = ("/login/",)
ONES_OWN = ("/account", "/confirm")  # one's account: nobody else's is reached there
OPEN_CALLS = {"POST /auth/token", "GET /openapi.json", "GET /docs"}


@dataclass(frozen=True)
class Operation:
    """One line of the table; a door is (method, path), None where there is none."""

    name: str
    browser: tuple[str, str] | None
    api: tuple[str, str] | None
    people: dict[str, str]
    key: str

    def __str__(self) -> str:
        return self.name


def operations() -> Iterator[Operation]:
    for line in DOCUMENT.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        if len(cells) == 9 and not set(line) <= set("|-") and cells[0]:
            name, browser, api, *words, key = cells
            assert set(words) <= {YES, OWN, NO, REFUSED, NOT_THERE}, line
            people = dict(zip(PEOPLE, words, strict=True))
            yield Operation(name, door(browser), door(api), people, key)


def door(text: str) -> tuple[str, str] | None:
    if text == NO_DOOR:
        return None
    method, _, path = text.partition(" ")
    return method, path


OPERATIONS = list(operations())
OF_KEYS = [one for one in OPERATIONS if one.api and one.key != NO_DOOR]


# --- nothing is left out --------------------------------------------------------------------


def shape(method: str, path: str) -> str:
    """A route or a line's door as one word: parameters have no names, a query does not count."""
    path = re.sub(r"\.(csv|jsonl)$", ".{}", path.partition("?")[0])
    path = path.replace("files/nginx.conf", "files/{}").replace("settings/general", "settings/{}")
    return f"{method} {re.sub(r'<[^>]*>|{[^}]*}', '{}', path)}"


def test_every_page_and_form_is_in_the_table(app: Flask) -> None:
    routes = {
        shape(method, rule.rule)
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith(("/api/", *OPEN, *ONES_OWN))
        for method in (rule.methods or set()) & {"GET", "POST"}
    }
    listed = {shape(*one.browser) for one in OPERATIONS if one.browser}
    # What shows a form needs what the form's own sending needs: it is tried along with it.
    forms = {one.replace("POST", "GET", 1) for one in listed if one.startswith("POST")}
    assert listed - routes == set()
    assert routes - listed - forms - OPEN_PAGES == set()


def test_every_call_is_in_the_table(app: Flask) -> None:
    calls = {shape(one.method, one.path) for one in CALLS.values()} - OPEN_CALLS
    assert {shape(*one.api) for one in OPERATIONS if one.api} == calls


# --- a world for each line ------------------------------------------------------------------

PREVIOUS_GRACE = "24h"


@dataclass
class World:
    """A project, one of each thing in it, and whoever may come to it."""

    app: Flask
    actors: dict[str, Actor] = field(default_factory=dict)
    browsers: dict[str, FlaskClient] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    here: dict[str, str] = field(default_factory=dict)
    there: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        for who in PEOPLE:
            email = f"{who.replace(' ', '')}@example.com"
            self.actors[who] = add_person(email, is_owner=who == OWNER)

    def browser(self, who: str) -> FlaskClient:
        """In which this person is signed in."""
        if who not in self.browsers:
            self.browsers[who] = sign_in(self.app, self.actors[who])
        return self.browsers[who]

    def token(self, who: str) -> str:
        """This person's access token."""
        if who not in self.tokens:
            self.tokens[who], _ = signin.for_script(
                self.actors[who].name, PASSWORD, signing_key="k" * 40, ip=None, user_agent=""
            )
        return self.tokens[who]

    def sign_in(self, who: str) -> None:
        """At both doors, so that what is done next is nothing else."""
        self.browser(who)
        self.token(who)

    def project(self) -> dict[str, str]:
        """A new project with the same people in it, and the ids of what it holds."""
        self.made += 1
        by = command_line()
        slug = f"p{self.made}"
        project = projects.create({"slug": slug, "prefix": "sk", "key_limit": 1_000}, by=by)
        for role in (ADMIN_ROLE, MEMBER, VIEWER):
            Membership.create(person=self.actors[role].id, project=project, role=role)
        own = Actor(kind="command", id=None, name="x", owner_id=self.actors[MEMBER].id,
                    is_owner=True)  # fmt: skip
        person = self.person()
        invited = self.person(password_hash=None)
        for one in (person, invited):
            Membership.create(person=one, project=project, role=VIEWER)
        webhook, _ = webhooks.create(
            {"project": slug, "url": "https://hooks.example.com/x", "events": ["*"]}, by=by
        )
        key, own_key = self.key(slug, by), self.key(slug, own)
        left = self.key(slug, by)
        Key.update(owner=person).where(Key.id == left).execute()
        return {
            "slug": slug,
            "key": key,
            "own_key": own_key,
            "entry": self.entry(key),
            "own_entry": self.entry(own_key),
            "alert": add_alert(Key.get_by_id(key)).id,
            "own_alert": add_alert(Key.get_by_id(own_key)).id,
            "webhook": webhook.id,
            "delivery": self.delivery(webhook),
            "person": person.id,
            "digest": secret.digest(slug),
            "new": f"new-{slug}@example.com",
            "left": left,
            "invited": invited.id,
        }

    def person(self, **columns: Any) -> Person:
        number = secret.random_id("x")
        columns = {"password_hash": "unused", **columns}
        return Person.create(
            id=secret.random_id("per"),
            email=f"{number.lower()}@example.com",
            name="Somebody",
            created_at=clock.now(),
            **columns,
        )

    def key(self, slug: str, by: Actor) -> str:
        """A key whose old secret still works, and that has been used."""
        key, _ = keys.create({"name": "CI", "project": slug}, by=by)
        keys.rotate(key.id, {"grace_period": PREVIOUS_GRACE}, by=by)
        return key.id

    def entry(self, key_id: str) -> str:
        key = Key.get_by_id(key_id)
        row = Entry.create(
            at=clock.now(), project_id=key.project_id, key_id=key.id, secret="current",
            method="GET", endpoint="/", status=200, code="VALID", user_agent="",
            request_id=secret.random_id("req"),
        )  # fmt: skip
        return str(row.id)

    def delivery(self, webhook: Webhook) -> str:
        row = Delivery.create(
            id=secret.random_id("dlv"), webhook=webhook, message_id="msg", event="key.created",
            payload="{}", status="failed", created_at=clock.now(),
        )  # fmt: skip
        return row.id

    def holder(self, slug: str, *permissions: str) -> str:
        """The secret of a key of this project with these permissions."""
        fields = {"name": "Robot", "project": slug, "permissions": list(permissions)}
        return keys.create(fields, by=command_line())[1]

    def send(
        self, operation: Operation, ids: dict[str, str], who: str = "", *, token: str | None = None
    ) -> TestResponse:
        """The operation through the API, as who holds `token`, else as this person."""
        assert operation.api is not None
        method, path = operation.api
        body = BODIES.get(operation.name, NOTHING).json
        headers = bearer(token if token is not None else self.token(who)) if token != "" else {}
        content = filled(body, ids)
        more = {} if content is None else {"json": content}
        return self.app.test_client().open(
            V1 + filled(path, ids), method=method, headers=headers, **more
        )

    def submit(
        self,
        operation: Operation,
        ids: dict[str, str],
        who: str,
        *,
        client: FlaskClient | None = None,
    ) -> TestResponse:
        """The operation through the browser."""
        assert operation.browser is not None
        method, path = operation.browser
        form = BODIES.get(operation.name, NOTHING).form
        more: dict[str, Any] = {"data": filled(form, ids)} if method == "POST" else {}
        headers = BODIES.get(operation.name, NOTHING).headers
        browser = client or self.browser(who)
        return browser.open(filled(path, ids), method=method, headers=headers, **more)


def filled(value: Any, ids: dict[str, str]) -> Any:
    """The value with {names} replaced by ids."""
    if isinstance(value, str):
        return PLACE.sub(lambda found: ids[found[1]], value)
    if isinstance(value, dict):
        return {filled(name, ids): filled(one, ids) for name, one in value.items()}
    return [filled(one, ids) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Bodies:
    form: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)


NOTHING = Bodies()
NEW_MEMBER = {"email": "{new}", "role": VIEWER}
KEY_FORM = {"name": "CI", "description": "", "permissions": "", "ip_allowlist": ""}
BODIES = {
    "Create a key": Bodies({"name": "New"}, {"name": "New", "project": "{slug}"}),
    "Edit a key": Bodies(
        {**KEY_FORM, "description": "x", "expiration": "keep"}, {"description": "x"}
    ),
    "Revoke a key": Bodies({}, {"status": "revoked"}),
    "Enable a key": Bodies({}, {"status": "active"}),
    "Rotate a key": Bodies({"confirm": "CI", "grace_period": ""}, {}),
    "Keep an old secret longer": Bodies({"grace_period": "7d"}, {"grace_period": "7d"}),
    "End an old secret": Bodies({}, {"grace_period": None}),
    "Delete a key": Bodies({"confirm": "CI"}),
    "Import keys": Bodies(
        json={
            "project": "{slug}",
            "keys": [{"name": "Old", "sha256": "{digest}", "prefix": "old_key_1234"}],
        }
    ),
    "Preview a key's form": Bodies(headers={"HX-Target": "ip_allowlist-note"}),
    "Choose what to do with several keys": Bodies({"of": "{key}"}),
    "Revoke several keys": Bodies({"key": "{key}", "confirmed": "1"}),
    "Extend several keys": Bodies({"key": "{key}", "expiration": "1y", "confirmed": "1"}),
    "Export several keys": Bodies({"key": "{key}", "format": "csv"}),
    "Ask about a key": Bodies(json={"key": "sk_live_nobody"}),
    "Test a key": Bodies({"with": "secret", "secret": "sk_live_nobody", "method": "GET"}),
    "Report outcomes": Bodies(json=[]),
    "Create a project": Bodies({"name": "New", "slug": "new-{slug}"}, {"slug": "new-{slug}"}),
    "Change a project's settings": Bodies({"name": "Renamed"}, {"name": "Renamed"}),
    "Archive a project": Bodies({"confirm": "{slug}"}, {"archived": True}),
    "Restore a project": Bodies({}, {"archived": False}),
    "Delete a project": Bodies({"confirm": "{slug}"}),
    "Hand over a key": Bodies(json={"owner": "admin@example.com"}),
    "Add a member": Bodies(NEW_MEMBER, NEW_MEMBER),
    "Change a member's role": Bodies({"role": MEMBER}, {"role": MEMBER}),
    "Add a person": Bodies({"email": "{new}"}, {"email": "{new}"}),
    "Change a person's name or address": Bodies(
        {"name": "New", "email": "{new}"}, {"name": "New", "email": "{new}"}
    ),
    "Change a person's roles": Bodies(
        {"role.{slug}": ADMIN_ROLE}, {"roles": {"{slug}": ADMIN_ROLE}}
    ),
    "Make a person an owner": Bodies({"owner": "yes"}, {"owner": True}),
    "Disable a person": Bodies({}, {"disabled": True}),
    "Enable a person": Bodies({}, {"disabled": False}),
    "Hand over one of a person's keys": Bodies({"owner": "owner@example.com"}),
    "Hand over a person's keys": Bodies({"owner": "owner@example.com"}),
    "Create a webhook": Bodies(
        {"url": "https://hooks.example.com/y", "told": "all"},
        {"project": "{slug}", "url": "https://hooks.example.com/y", "events": ["*"]},
    ),
    "Change a webhook": Bodies({"description": "New"}, {"description": "New"}),
    "Disable a webhook": Bodies({}, {"enabled": False}),
    "Enable a webhook": Bodies({}, {"enabled": True}),
    "Acknowledge, mute or open an alert": Bodies({"state": "muted"}, {"state": "muted"}),
    "Acknowledge several alerts": Bodies({"alert": "{alert}"}),
}
# What has to be so before the operation makes sense.
BEFORE: dict[str, Callable[[dict[str, str]], Any]] = {
    "Enable a key": lambda ids: [
        keys.revoke(one, by=command_line()) for one in (ids["key"], ids["own_key"])
    ],
    "Extend several keys": lambda ids: [
        keys.edit(one, {"expires_in": "1d"}, by=command_line())
        for one in (ids["key"], ids["own_key"])
    ],
    "Remove a calendar link": lambda ids: calendar_feed.make_link(ids["slug"], by=command_line()),
    "Restore a project": lambda ids: projects.edit(
        ids["slug"], {"archived": True}, by=command_line()
    ),
    "Delete a project": lambda ids: [
        keys.delete(ids[one], by=command_line()) for one in ("key", "own_key", "left")
    ],
    "Delete a person": lambda ids: keys.delete(ids["left"], by=command_line()),
    "Enable a person": lambda ids: people.edit(
        ids["person"], {"disabled": True}, by=command_line()
    ),
    "Enable a webhook": lambda ids: webhooks.edit(
        ids["webhook"], {"enabled": False}, by=command_line()
    ),
    "Remove a person's second factor": lambda ids: (
        Person.update(totp_secret=b"sealed").where(Person.id == ids["person"]).execute()
    ),
}


@pytest.fixture(scope="module")
def app(
    tmp_path_factory: pytest.TempPathFactory,
    migrated: Path | None,
    compiled: FileSystemBytecodeCache,
) -> Iterator[Flask]:
    """One for all of this file, whose tests leave nothing behind, and in which no time passes."""
    config = config_in(tmp_path_factory.mktemp("table"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", Clock().now)
        # Of the connection on which all is undone no export may let go.
        patch.setattr(db, "let_go", lambda: None)
        with installation(config, migrated, compiled) as app:
            yield app


@pytest.fixture(scope="module")
def whole(app: Flask) -> World:
    world = World(app)
    for who in PEOPLE:
        world.sign_in(who)
    world.here, world.there = world.project(), world.project()
    return world


@pytest.fixture
def world(whole: World) -> Iterator[World]:
    with undone():
        yield whole
        journal.settle()


@pytest.fixture
def new_world(app: Flask) -> Iterator[World]:
    """For the tests of other files."""
    yield World(app)
    journal.settle()


def prepared(world: World, operation: Operation) -> dict[str, str]:
    return made_ready(operation, world.project())


def made_ready(operation: Operation, ids: dict[str, str]) -> dict[str, str]:
    BEFORE.get(operation.name, lambda ids: None)(ids)
    return ids


@contextmanager
def undone() -> Iterator[None]:
    """What is done within has not been done afterwards: to make all anew takes far longer."""
    with db.handle.atomic() as whole:
        yield
        whole.rollback()


def as_own(ids: dict[str, str]) -> dict[str, str]:
    return {
        **ids, "key": ids["own_key"], "entry": ids["own_entry"], "alert": ids["own_alert"]
    }  # fmt: skip


def word(answer: TestResponse) -> str:
    """What the answer says, in the table's words."""
    if answer.status_code < 400 and not answer.headers.get("Location", "").startswith("/login"):
        return YES
    return str(answer.status_code)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_people_may_do_what_the_table_says(world: World, operation: Operation) -> None:
    doors = [world.submit] * bool(operation.browser) + [world.send] * bool(operation.api)
    ids = world.here

    def tried(send: Callable[..., TestResponse], ids: dict[str, str], who: str) -> str:
        with undone():
            return word(send(operation, made_ready(operation, ids), who))

    for send in doors:
        found = {}
        for who in PEOPLE:
            found[who] = tried(send, ids, who)
            if operation.people[who] in (OWN, NO) and found[who] == NOT_THERE:
                own = tried(send, as_own(ids), who)
                found[who] = {YES: OWN, REFUSED: NO}.get(own, f"of their own: {own}")
        assert found == operation.people, send.__name__


# What is sent from a page that is a line of its own.
WITHOUT_A_FORM = {
    "Preview a key's form", "Choose what to do with several keys", "Revoke several keys",
    "Extend several keys", "See how secrets would look", "Change a project's settings",
    "Test a webhook", "Send a delivery again", "Acknowledge, mute or open an alert",
    "Acknowledge several alerts",
}  # fmt: skip


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.browser and one.browser[0] == "POST"], ids=str
)
def test_a_form_is_shown_to_whoever_may_send_it(
    world: World, app: Flask, operation: Operation
) -> None:
    assert operation.browser is not None
    path = operation.browser[1]
    if shape("GET", path) in {shape(*one.browser) for one in OPERATIONS if one.browser}:
        return  # a line of its own
    shown = Operation(operation.name, ("GET", path), None, {}, "")
    ids = made_ready(operation, world.here)
    for who in PEOPLE:
        answer = world.submit(shown, ids, who)
        if operation.name in WITHOUT_A_FORM:
            assert answer.status_code in (404, 405), who
            continue
        allowed = operation.people[who]
        expected = NOT_THERE if allowed in (OWN, NO) else allowed
        assert word(answer) == expected, who


@pytest.mark.parametrize("operation", OF_KEYS, ids=str)
def test_keys_may_do_what_the_table_says(world: World, operation: Operation) -> None:
    needed = operation.key
    ids = world.here

    def tried(*held: str) -> str:
        holder = world.holder(ids["slug"], *held)
        with undone():
            return word(world.send(operation, made_ready(operation, ids), token=holder))

    if needed == ANY:
        assert tried() == YES
        return
    others = [one for one in CONSOLE if one not in (needed, "keys:manage", "admin:*")]
    assert tried() == tried(*others, "tasks:*") == REFUSED
    expected = REFUSED if needed == NEVER else YES
    assert tried("admin:*") == tried("*") == expected
    if needed != NEVER:
        assert tried(needed) == YES


@pytest.mark.parametrize("operation", OF_KEYS, ids=str)
def test_a_key_is_nobody_in_another_project(world: World, operation: Operation) -> None:
    elsewhere = world.holder(world.there["slug"], "admin:*")
    ids = made_ready(operation, world.here)
    found = word(world.send(operation, ids, token=elsewhere))
    is_about_the_project = operation.people[NO_ROLE] == NOT_THERE
    assert found == NOT_THERE if is_about_the_project else found in (YES, REFUSED)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_without_a_credential_nothing_is_done(
    world: World, client: FlaskClient, operation: Operation
) -> None:
    ids = made_ready(operation, world.here)
    if operation.browser:
        answer = world.submit(operation, ids, "", client=client)
        assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/login")
    if operation.api:
        assert world.send(operation, ids, token="").status_code == 401
        browser = world.browser(OWNER)  # a browser's session is no credential of the API
        method, path = operation.api
        assert browser.open(V1 + filled(path, ids), method=method).status_code == 401


# --- what is not theirs ---------------------------------------------------------------------

IDS = ("key", "entry", "alert", "webhook", "delivery", "person", "invited", "slug", "left")


def ids_of(at: tuple[str, str] | None) -> list[str]:
    return [name for name in PLACE.findall(at[1] if at else "") if name in IDS]


def without_names(text: str, foreign: str) -> str:
    """The text of an answer but for what differs from one asking to the next anyway."""
    text = re.sub(r'(name="csrf_token" value)="[^"]*"', r"\1", text)
    return re.sub(rf"req_\w+|\b{foreign}\b", "…", text)


def without_ids(run: list[str]) -> list[str]:
    """The statements; savepoints are named at random."""
    return [re.sub(r"\bs[0-9a-f]{32}\b", "s", one) for one in run]


FOREIGN = [
    (operation, name)
    for operation in OPERATIONS
    for name in sorted({*ids_of(operation.browser), *ids_of(operation.api)})
]


@pytest.mark.parametrize("operation, name", FOREIGN, ids=lambda one: str(one).replace(" ", "_"))
def test_what_is_not_theirs_is_not_there(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: Operation, name: str
) -> None:
    """The same body and the same statements for a foreign id as for one that does not exist."""
    here, there = made_ready(operation, world.here), made_ready(operation, world.there)
    admin = world.actors[ADMIN_ROLE]
    Membership.delete().where(
        Membership.person == admin.id,
        Membership.project == Project.get(Project.slug == there["slug"]),
    ).execute()
    missing = "999999" if name == "entry" else "not-here" if name == "slug" else f"{name}_missing"
    for send, at in ((world.submit, operation.browser), (world.send, operation.api)):
        if at is None or name not in ids_of(at):
            continue
        told = []
        for foreign in (there[name], missing):
            with statements(monkeypatch) as run:
                answer = send(operation, {**here, name: foreign}, ADMIN_ROLE)
            told.append((answer.status_code, without_names(answer.text, foreign), without_ids(run)))
        assert told[0] == told[1], send.__name__
        is_for_owners = operation.people[ADMIN_ROLE] == REFUSED and name != "slug"
        assert told[0][0] == (403 if is_for_owners else 404)


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.people[MEMBER] == OWN], ids=str
)
def test_what_is_anothers_is_not_there_for_a_member(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: Operation
) -> None:
    """In their own project, too; the ids in bodies included."""
    ids = made_ready(operation, world.here)
    missing = {"key": "key_missing", "entry": "999999", "alert": "alr_missing"}
    for send, at in ((world.submit, operation.browser), (world.send, operation.api)):
        if at is None:
            continue
        told = []
        for foreign in ({}, missing):
            with statements(monkeypatch) as run:
                answer = send(operation, {**ids, **foreign}, MEMBER)
            shown = answer.text
            for one in (*missing.values(), *(ids[name] for name in missing)):
                shown = without_names(shown, one)
            told.append((answer.status_code, shown, without_ids(run)))
        assert told[0] == told[1], send.__name__
        assert told[0][0] == 404


@pytest.mark.parametrize(
    "operation, name",
    [
        (one, name)
        for one in OF_KEYS
        for name in ids_of(one.api)
        if one.key not in (NEVER, ANY) and name != "slug"
    ],
    ids=lambda one: str(one).replace(" ", "_"),
)
def test_what_is_in_another_project_is_not_there_for_a_key(
    world: World, operation: Operation, name: str
) -> None:
    here, there = made_ready(operation, world.here), made_ready(operation, world.there)
    secret = world.holder(here["slug"], operation.key)
    told = []
    for foreign in (there[name], f"{name}_missing"):
        answer = world.send(operation, {**here, name: foreign}, token=secret)
        told.append((answer.status_code, without_names(answer.text, foreign)))
    assert told[0] == told[1] and told[0][0] == 404
