"""Keys that are in their clients' hands already: taken over all or none, good at every check."""

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from config import Config
from console import check, create_app, db, journal, key_import, keys, known
from console.actor import Actor
from console.check import Request
from console.errors import Conflict, Invalid, Refused
from console.models import Entry, Event, Key, Project, Secret
from tests.conftest import Call, Clock, MakeKey, assert_problem, at_once, bearer, checked
from tests.server import RunningServer

FOREIGN = "tok-9f2c_live.legacy/Zm9v+YmFy="


def row(secret: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {"name": "Old", "sha256": digest, "prefix": secret[:12], **more}


def rows(count: int) -> list[dict[str, Any]]:
    return [row(f"legacy-{number}-{'x' * 20}", name=f"Old {number}") for number in range(count)]


def verdict(secret: str, **more: Any) -> str:
    return checked(Request(secret=secret, request_id="req_1", **more)).code


@pytest.fixture
def roomy(project: Project) -> Project:
    Project.update(key_limit=10_000).execute()
    return project


def test_an_imported_key_works_with_the_secret_that_its_client_has(
    call: Call, clock: Clock
) -> None:
    assert verdict(FOREIGN) == "API_KEY_MALFORMED"
    body = {"keys": [row(FOREIGN, permissions=["tasks:read"], external_id="42")]}
    answer = call("POST", "/api-keys/import", body)
    assert answer.status_code == 201
    (one,) = answer.json["data"]
    assert answer.json["imported"] == 1
    assert one == {"row": 0, "id": one["id"], "name": "Old", "prefix": FOREIGN[:12]}
    assert verdict(FOREIGN, permissions=("tasks:read",)) == "VALID"
    assert verdict(FOREIGN, permissions=("tasks:write",)) == "PERMISSION_DENIED"
    read = call("GET", f"/api-keys/{one['id']}").json
    assert (read["prefix"], read["status"], read["external_id"]) == (FOREIGN[:12], "active", "42")
    assert (read["usage"]["requests_total"], read["created_at"]) == (2, "2026-11-20T10:30:00Z")


def test_the_holder_of_an_imported_key_asks_about_it_by_http(call: Call) -> None:
    secret = "legacy-0123456789"
    call("POST", "/api-keys/import", {"keys": [row(secret)]})
    assert call("GET", "/whoami", secret=secret).json["name"] == "Old"


@pytest.mark.parametrize("length", [1, 512])
def test_a_secret_of_any_length_up_to_512_is_good(call: Call, length: int) -> None:
    secret = "x" * length
    assert call("POST", "/api-keys/import", {"keys": [row(secret)]}).status_code == 201
    assert verdict(secret) == "VALID"


def test_while_none_is_imported_no_malformed_text_is_looked_up(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key()
    if db.is_sqlite():
        monkeypatch.setattr(known, "_look_up", lambda digest: pytest.fail("it was looked up"))
    assert verdict(FOREIGN) == "API_KEY_MALFORMED"


def test_a_database_that_comes_alone_still_knows_of_imported_keys(
    call: Call, config: Config
) -> None:
    """Restored from a backup, say: without the small file beside it."""
    call("POST", "/api-keys/import", {"keys": [row(FOREIGN)]})
    journal.close()
    db.close()
    for file in config.data_dir.glob("*-changes"):
        file.unlink()
    create_app(config, in_background=False)
    assert verdict(FOREIGN) == "VALID"


@pytest.mark.service
def test_an_import_holds_in_every_process_at_once(tmp_path: Path) -> None:
    """The command line stands for another process that wrote to the same file."""
    with RunningServer(tmp_path / "data") as server:
        server.run("create-project", "--slug", "shop")
        secret = server.run(
            "create-key", "--project", "shop", "--name", "M", "--permission", "keys:manage"
        ).stdout.strip()
        with RunningServer(tmp_path / "data") as second:
            assert ask(second, FOREIGN) == 401
            body = json.dumps({"keys": [row(FOREIGN)]}).encode()
            headers = {**bearer(secret), "Content-Type": "application/json"}
            address = f"{server.url}/api/v1/api-keys/import"
            with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:
                assert answer.status == 201
            assert ask(second, FOREIGN) == 200


def ask(server: RunningServer, secret: str) -> int:
    request = urllib.request.Request(f"{server.url}/api/v1/whoami", headers=bearer(secret))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_an_imported_secret_in_a_path_or_user_agent_is_not_logged(call: Call) -> None:
    call("POST", "/api-keys/import", {"keys": [row(FOREIGN)]})
    verdict(FOREIGN, endpoint=f"/x{FOREIGN}/y", user_agent=FOREIGN)
    entry = Entry.select().where(Entry.endpoint.startswith("/x")).get()
    assert (entry.endpoint, entry.user_agent) == (f"/x{FOREIGN[:12]}…/y", f"{FOREIGN[:12]}…")


def test_beside_imported_keys_what_is_no_key_is_malformed_still(call: Call) -> None:
    call("POST", "/api-keys/import", {"keys": [row(FOREIGN)]})
    assert verdict(FOREIGN + "x") == "API_KEY_MALFORMED"
    assert verdict("x" * 513) == "API_KEY_MALFORMED"
    assert verdict("sk_live_" + "0" * 36) == "API_KEY_MALFORMED"


def test_every_rule_is_explained_of_an_imported_key(call: Call) -> None:
    call("POST", "/api-keys/import", {"keys": [row(FOREIGN)]})
    found, steps = check.explain(Request(secret=FOREIGN, request_id="r"))
    assert (found.code, [step.code for step in steps if step.code]) == ("VALID", [])


def test_an_imported_key_is_revoked_rotated_and_deleted_like_any_other(
    call: Call, operator: Actor
) -> None:
    key_id = call("POST", "/api-keys/import", {"keys": [row(FOREIGN)]}).json["data"][0]["id"]
    keys.revoke(key_id, by=operator)
    assert verdict(FOREIGN) == "API_KEY_REVOKED"
    keys.restore(key_id, by=operator)
    _, secret, _ = keys.rotate(key_id, {"grace_period": "1h"}, by=operator)
    assert secret.startswith("sk_live_")
    assert (verdict(FOREIGN), verdict(secret)) == ("VALID", "VALID")
    keys.delete(key_id, by=operator)
    assert (verdict(FOREIGN), verdict(secret)) == ("API_KEY_MALFORMED", "API_KEY_INVALID")


def test_each_imported_key_has_an_event_without_its_digest(call: Call) -> None:
    call("POST", "/api-keys/import", {"keys": [row(FOREIGN), row("legacy-2", name="Two")]})
    events = list(Event.select().where(Event.action == "key.imported").order_by(Event.id))
    assert [event.target_name for event in events] == ["Old", "Two"]
    assert all("sha256" not in event.changes for event in events)


def test_a_thousand_are_taken_over_in_their_order(call: Call, roomy: Project) -> None:
    answer = call("POST", "/api-keys/import", {"project": "shop", "keys": rows(1_000)})
    assert answer.status_code == 201
    assert [one["row"] for one in answer.json["data"]] == list(range(1_000))
    assert [one["name"] for one in answer.json["data"]][::999] == ["Old 0", "Old 999"]
    assert Secret.select().where(Secret.imported_at.is_null(False)).count() == 1_000


@pytest.mark.parametrize("count", [0, 1_001])
def test_none_and_more_than_a_thousand_are_refused(call: Call, roomy: Project, count: int) -> None:
    problem = assert_problem(
        call("POST", "/api-keys/import", {"keys": rows(count)}), 400, "INVALID", "errors"
    )
    (error,) = problem["errors"]
    assert error["field"] == "keys" and "1 to 1000 rows" in error["message"]


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "name"),
    "a digest too short": ({"sha256": "ab"}, "sha256"),
    "a digest in capitals": ({"sha256": "A" * 64}, "sha256"),
    "no prefix": ({"prefix": ""}, "prefix"),
    "a prefix too long": ({"prefix": "x" * 13}, "prefix"),
    "a prefix with a space": ({"prefix": "a b"}, "prefix"),
    "an unknown field": ({"key": "x"}, "key"),
    "a project of its own": ({"project": "shop"}, "project"),
    "a permission that is none": ({"permissions": ["x"]}, "permissions"),
    "an expiry in the past": ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    "two expiries": ({"expires_at": "2030-01-01T00:00:00Z", "expires_in": "1d"}, "expires_at"),
    "a plan without figures": ({"plan": "enterprise"}, "rate_limit"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_one_bad_row_is_named_and_nothing_is_imported(call: Call, clock: Clock, name: str) -> None:
    more, field = BAD_ROWS[name]
    before = Key.select().count()
    body = {"keys": [row("legacy-good"), row("legacy-bad", **more)]}
    answer = call("POST", "/api-keys/import", body)
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert [one["field"] for one in problem["errors"]] == [f"keys.1.{field}"]
    assert Key.select().count() == before


def test_every_bad_row_is_named(call: Call, roomy: Project) -> None:
    given = [{**one, "prefix": ""} if number % 2 else one for number, one in enumerate(rows(1_000))]
    problem = call("POST", "/api-keys/import", {"keys": given}).json
    assert [one["field"] for one in problem["errors"]] == [
        f"keys.{number}.prefix" for number in range(1, 1_000, 2)
    ]


def test_a_digest_twice_in_a_call_names_both_rows(call: Call) -> None:
    answer = call("POST", "/api-keys/import", {"keys": [row(FOREIGN), row("b"), row(FOREIGN)]})
    (error,) = assert_problem(answer, 400, "INVALID", "errors")["errors"]
    assert error == {"field": "keys.2.sha256", "message": "is that of keys.0, too"}


def test_a_secret_that_is_known_already_is_a_conflict(call: Call, make_key: MakeKey) -> None:
    _, secret = make_key(name="ours")
    answer = call("POST", "/api-keys/import", {"keys": [row("legacy-1"), row(secret)]})
    problem = assert_problem(answer, 409, "CONFLICT", "errors")
    assert [one["field"] for one in problem["errors"]] == ["keys.1.sha256"]
    assert Key.select().where(Key.name == "Old").count() == 0


def test_more_than_the_project_may_have_are_refused_all(call: Call, project: Project) -> None:
    room = 20 - Key.select().where(Key.project == project).count()
    answer = call("POST", "/api-keys/import", {"keys": rows(room + 1)})
    assert_problem(answer, 409, "KEY_LIMIT_REACHED")
    assert call("POST", "/api-keys/import", {"keys": rows(room)}).status_code == 201


def test_console_permissions_are_handed_out_only_as_held(call: Call) -> None:
    body = {"keys": [row("legacy-1", permissions=["projects:manage"])]}
    answer = call("POST", "/api-keys/import", body)
    problem = assert_problem(answer, 403, "PERMISSION_DENIED", "missing_permissions")
    assert problem["missing_permissions"] == ["projects:manage"]


def test_who_may_not_write_imports_nothing(viewer: Actor, stranger: Actor, call: Call) -> None:
    for by, code in ((viewer, "FORBIDDEN"), (stranger, "NOT_FOUND")):
        with pytest.raises(Refused) as refused:
            key_import.import_keys({"project": "shop", "keys": rows(1)}, by=by)
        assert refused.value.code == code


def test_of_two_imports_of_the_same_secrets_at_once_one_is_carried_out(
    operator: Actor, roomy: Project
) -> None:
    given = {"project": "shop", "keys": rows(20)}
    done = at_once(4, lambda _: key_import.import_keys(given, by=operator))
    assert sum(isinstance(one, list) for one in done) == 1
    assert sum(isinstance(one, Conflict) for one in done) == 3
    assert Key.select().count() == 20


@pytest.mark.parametrize("keys_given", [None, {}, "x", [1], [None], [[]]])
def test_rows_of_another_type_are_refused(call: Call, keys_given: Any) -> None:
    answer = call("POST", "/api-keys/import", {"keys": keys_given})
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert problem["errors"][0]["field"].startswith("keys")


def test_invalid_comes_before_the_limit(call: Call, project: Project) -> None:
    Project.update(key_limit=1).execute()
    with pytest.raises(Invalid):
        key_import.import_keys(
            {"project": "shop", "keys": [row("a", plan="enterprise")]},
            by=Actor(kind="command", id=None, name="", is_owner=True),
        )
