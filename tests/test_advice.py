"""What to do about a request in the log: advice for every code, by the key as it stands now."""

from typing import Any

from console import advice, audit, keys, permissions, projects
from console.actor import Actor
from console.models import Entry, Key
from tests.conftest import Clock, MakeKey


def entry(code: str, **more: Any) -> Entry:
    return Entry(**{"code": code, "status": 403, "ip": "203.0.113.7", "permissions": [], **more})


def on(code: str, key: Key, **more: Any) -> advice.Advice:
    found = advice.on(entry(code, **more), Key.get(Key.id == key.id))
    assert found is not None
    return found


def test_there_is_advice_for_every_code_that_is_logged(make_key: MakeKey) -> None:
    assert set(advice.TO_DO) == set(audit.CODES_LOGGED) - {"VALID"}
    key, _ = make_key(name="Checkout")
    for code in advice.TO_DO:
        for holder in (key, None):
            found = advice.on(entry(code), holder)
            assert found is not None and found.why.endswith(".") and found.to_do.endswith(".")


def test_what_went_well_needs_none(make_key: MakeKey) -> None:
    assert advice.on(entry("VALID", status=200), make_key()[0]) is None


def test_a_service_that_refused_itself_is_named_as_such(make_key: MakeKey) -> None:
    found = on("VALID", make_key()[0], status=404)
    assert found.why == "The key was good. The service behind it answered 404."
    assert found.operation is None


def test_of_an_archived_project_no_key_can_be_enabled(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    projects.archive("shop", by=operator)
    found = on("API_KEY_REVOKED", key)
    assert "The project Shop is archived" in found.to_do and found.operation is None


def test_a_deleted_key_is_advised_about_as_such() -> None:
    found = advice.on(entry("API_KEY_REVOKED"), None)
    assert found is not None and "deleted" in found.to_do and found.operation is None


def test_an_address_is_to_be_added_until_it_is(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key(name="Checkout", ip_allowlist=["10.0.0.0/8"])
    found = on("IP_NOT_ALLOWED", key)
    assert found.to_do == "If the client is yours, add 203.0.113.7 to the allowlist of Checkout."
    assert found.operation == advice.EDIT
    assert "pass the client's address on" in on("IP_NOT_ALLOWED", key, ip=None).to_do
    keys.edit(key.id, {"ip_allowlist": ["203.0.113.0/24"]}, by=operator)
    found = on("IP_NOT_ALLOWED", key)
    assert "by now" in found.to_do and found.operation is None


def test_the_permissions_that_are_still_missing_are_named(
    make_key: MakeKey, operator: Actor
) -> None:
    key, _ = make_key(name="CI", permissions=["tasks:read"])
    asked = ["tasks:read", "tasks:write", "notes:read"]
    assert permissions.missing(key.permissions, asked) == ("tasks:write", "notes:read")
    found = on("PERMISSION_DENIED", key, permissions=asked)
    assert found.to_do.startswith("CI lacks tasks:write and notes:read.")
    assert found.operation == advice.EDIT
    keys.edit(key.id, {"permissions": ["tasks:*", "notes:*"]}, by=operator)
    found = on("PERMISSION_DENIED", key, permissions=asked)
    assert "by now" in found.to_do and found.operation is None


def test_what_has_been_mended_since_is_said(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    key, _ = make_key(expires_in="1d")
    clock.move("2d")
    keys.revoke(key.id, by=operator)
    assert on("API_KEY_REVOKED", key).operation == advice.RESTORE
    assert on("API_KEY_EXPIRED", key).operation == advice.EDIT
    keys.edit(key.id, {"expires_at": None, "status": "active"}, by=operator)
    for code in ("API_KEY_REVOKED", "API_KEY_EXPIRED"):
        found = on(code, key)
        assert "since" in found.to_do and found.operation is None


def test_limits_are_told_as_they_are_now(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key(name="CI", plan="free", monthly_quota=5_000)
    assert "CI may make 100 a minute and 1,000 an hour." in on("RATE_LIMITED", key).to_do
    assert "CI may make 5,000 requests in a calendar month" in on("QUOTA_EXCEEDED", key).to_do
    keys.edit(key.id, {"plan": "unlimited", "monthly_quota": None}, by=operator)
    for code in ("RATE_LIMITED", "QUOTA_EXCEEDED"):
        assert "any more" in on(code, key).to_do


def test_a_key_of_the_wrong_environment_is_told_apart(make_key: MakeKey) -> None:
    assert "Give the client a test key" in on("ENVIRONMENT_MISMATCH", make_key()[0]).to_do
    test_key, _ = make_key(environment="test")
    assert "Give the client a live key" in on("ENVIRONMENT_MISMATCH", test_key).to_do
