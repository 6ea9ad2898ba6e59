"""What no example thought of: every call of the published description, with data that fits it and
data that does not, alone and one after the other. FUZZ_CASES sets how many of each call (`make
check`: 50), FUZZ_RANDOM=1 has others each time."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    ensure_resource_availability,
    negative_data_rejection,
)

from config import Config
from console import actor, db, journal, keys, members, people, projects, signin, webhooks
from console.actor import Actor
from console.api import calls
from console.models import TABLES, Change, Drained, Key, Webhook
from tests.conftest import PASSWORD, Clock, add_alert, bearer

pytestmark = pytest.mark.long

CASES = int(os.environ.get("FUZZ_CASES", "25"))
IS_RANDOM = bool(os.environ.get("FUZZ_RANDOM"))
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=not IS_RANDOM,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
KEYS_NO_LIMIT = 10_000_000
# What a project that was just created has not.
NOT_THERE_YET = ("remove_calendar_link",)

# Where a description cannot say all that a rule does, data that fits it may be refused with 400.
CANNOT_SAY = {
    "create_key": "that expires_at lies ahead; which plans there are, which figures go with which",
    "edit_key": "the same, and what the key has already",
    "import_keys": "the same, and that no digest comes twice",
    "create_project": "that nothing is in a list twice, no plan built in, no default too long",
    "edit_project": "that the slug stays, which prefix goes with what it has; the same",
    "rotate_key": "that a grace period has at most 30 days",
    "set_grace": "that a grace period has at most 30 days",
    "create_webhook": "which addresses are public",
    "edit_webhook": "the same",
    "rotate_webhook_secret": "that a grace period has at most 30 days",
    "create_person": "that the password is not the person's own name or address, or a common one",
    "edit_person": "the same",
    "read_key_audit_log": "that a time lies in the years 1 to 9999 by UTC, too",
    "read_project_audit_log": "the same",
    "read_activity": "the same",
}

schemathesis.openapi.format(
    "name", st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=100)
)
schemathesis.openapi.format(
    "text", st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=200)
)
schemathesis.openapi.format(
    "ip-network", st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
)


@pytest.fixture
def config(config: Config) -> Config:
    return replace(config, key_limit=KEYS_NO_LIMIT)


def is_meant_to_fit(case: Case) -> bool:
    return bool(case.meta and case.meta.generation.mode.is_positive)


def is_another_format(case: Case) -> bool:
    """Whether a format alone may be what the data breaks: of one of our own nobody can tell."""
    changes = getattr(case.meta.phase.data, "mutations", ()) if case.meta else ()
    return any("format" in change.keywords for change in changes)


class World:
    """An installation to call, with somebody who may do everything and things to do it to."""

    def __init__(self, app: Flask, clock: Clock) -> None:
        self.app = app
        self.clock = clock
        self.began_at = clock.instant
        self.begin()

    def begin(self) -> None:
        """Starts over with nothing else in it."""
        journal.settle()
        self.clock.instant = self.began_at
        with db.write():
            for table in reversed(TABLES):
                if table not in (Change, Drained):
                    table.delete().execute()
        self.by: Actor = actor.command_line()
        self.shop = projects.create({"slug": "shop"}, by=self.by)
        self.added = 0
        people.create_owner({"email": "ada@example.com", "password": PASSWORD}, by=self.by)
        signing_key = self.app.config["LATCHKEY"].secret_key
        self.token, _ = signin.for_script(
            "ada@example.com", PASSWORD, signing_key=signing_key, ip=None, user_agent=""
        )
        self.secret = self.new_key()[1]

    def new_key(self) -> tuple[str, str]:
        key, secret = keys.create(
            {"name": "CI", "project": "shop", "permissions": ["admin:*"]}, by=self.by
        )
        return key.id, secret

    def credential(self, call: calls.Call) -> dict[str, str]:
        if call.needs != calls.HOLDER:
            return bearer(self.token)
        return bearer(self.new_key()[1] if call.name == "revoke_self" else self.secret)

    def place(self, case: Case) -> None:
        """Has data that fits speak of things that are there."""
        found = case.path_parameters or {}
        if is_meant_to_fit(case):
            for name in found:
                if name in self.NEW:
                    found[name] = self.NEW[name](self)
            if found.keys() >= {"slug", "person_id"}:
                found["person_id"] = self.new_member(found["slug"])
            if "delivery_id" in found:
                found["delivery_id"] = webhooks.test(found["webhook_id"], by=self.by).id
        Webhook.delete().where(Webhook.project == self.shop).execute()  # ten are the most
        self.place_values(case)

    def place_values(self, case: Case) -> None:
        if is_meant_to_fit(case):
            for part in (case.query, case.body):
                if isinstance(part, dict):
                    part |= {"project": "shop"} if "project" in part else {}
                    part |= {"roles": {"shop": "viewer"}} if "roles" in part else {}
                    part.pop("cursor", None)

    def new_project(self) -> str:
        self.added += 1
        return projects.create({"slug": f"project-{self.added}"}, by=self.by).slug

    def new_person(self) -> str:
        self.added += 1
        given = {"email": f"person-{self.added}@example.com", "password": PASSWORD}
        return people.create_owner(given, by=self.by).id

    def new_member(self, slug: str) -> str:
        self.added += 1
        given = {"email": f"member-{self.added}@example.com", "role": "viewer"}
        return members.add(slug, given, by=self.by)[0].person.id

    def new_webhook(self) -> str:
        given = {"project": self.new_project(), "url": "https://hooks.example.com/latchkey"}
        return webhooks.create(given, by=self.by)[0].id

    NEW: dict[str, Callable[["World"], str]] = {
        "key_id": lambda world: world.new_key()[0],
        "slug": new_project,
        "person_id": new_person,
        "webhook_id": new_webhook,
        "alert_id": lambda world: add_alert(Key.get_by_id(world.new_key()[0])).id,
    }


@pytest.fixture
def world(app: Flask, clock: Clock) -> World:
    return World(app, clock)


CONFIG = SchemathesisConfig.from_dict({
    # No description says it of every string: the character NUL is refused.
    "generation": {"with-security-parameters": False, "allow-x00": False},
    "checks": {"negative_data_rejection": {"expected-statuses": [
        "400", "401", "403", "404", "405", "409", "413", "415", "422", "429"]}},
    "operations": [
        {"include-operation-id": name, "checks": {"positive_data_acceptance": {
            "expected-statuses": ["2xx", "401", "403", "404", "409", "429",
                                  *["400"] * (name in CANNOT_SAY),
                                  *["422"] * call.idempotent]}}}
        for name, call in calls.CALLS.items()
    ],
})  # fmt: skip


@pytest.fixture
def api(app: Flask) -> Any:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app, config=CONFIG)


@pytest.mark.parametrize("name", sorted(calls.CALLS))
def test_a_call_keeps_to_its_description(name: str, api: Any, world: World) -> None:
    call = calls.CALLS[name]
    operation = api[call.path_template][call.method]

    def check(case: Case) -> None:
        world.place(case)
        excluded = [negative_data_rejection] if is_another_format(case) else []
        case.call_and_validate(headers=world.credential(call), excluded_checks=excluded)

    fits = operation.as_strategy(GenerationMode.POSITIVE)
    if operation.body or operation.query or operation.headers:
        fits = fits | operation.as_strategy(GenerationMode.NEGATIVE)
    FUZZ(given(case=fits)(check))()
    generation = api.config.generation_for(operation=operation)
    for case in api.iter_coverage_cases(
        operation, generation_modes=list(GenerationMode), generation_config=generation
    ):
        check(case)


def test_calls_one_after_the_other_keep_to_their_descriptions(api: Any, world: World) -> None:
    """What one call makes the next ones read, change and delete, by the document's links."""

    class Workflow(api.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            world.begin()

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            name = case.operation.definition.raw["operationId"]
            return {"headers": world.credential(calls.CALLS[name])}

        def before_call(self, case: Case) -> None:
            # Of what is made in one instant no list has a certain order, and what comes next
            # depends on what is first.
            world.clock.move_ms(1_000)
            world.place_values(case)

        def validate_response(self, response: Any, case: Case, **kwargs: Any) -> None:
            excluded = [negative_data_rejection] if is_another_format(case) else []
            if case.operation.definition.raw["operationId"] in NOT_THERE_YET:
                excluded.append(ensure_resource_availability)
            case.validate_response(
                response,
                headers=kwargs["headers"],
                transport_kwargs=kwargs,
                recorder=self.recorder,
                excluded_checks=excluded,
            )

    Workflow.run(settings=settings(FUZZ, max_examples=max(CASES // 2, 5), stateful_step_count=15))


@pytest.mark.parametrize(
    "name",
    [
        name for name, one in calls.CALLS.items()
        if one.method == "DELETE" and len(one.parameters) == 1 and one.path.endswith(">")
    ],
)  # fmt: skip
def test_what_is_deleted_is_there_for_no_call_any_more(
    name: str, client: FlaskClient, world: World
) -> None:
    delete = calls.CALLS[name]
    (parameter,) = delete.parameters
    address = delete.path_template.format(**{parameter: world.NEW[parameter](world)})
    headers = bearer(world.token)
    assert client.delete(address, headers=headers).status_code == 204
    below = [one for one in calls.CALLS.values() if one.path.startswith(delete.path)]
    assert len(below) > 1
    for one in below:
        path = one.path_template.replace(f"{{{parameter}}}", address.rpartition("/")[2])
        answer = client.open(
            path.format(delivery_id="dlv_1", person_id="per_1"),
            method=one.method,
            headers=headers,
            json=one.example,
        )
        assert (answer.status_code, answer.get_json()["code"]) == (404, "NOT_FOUND"), path
