"""Offboarding: every key that somebody could still use is listed, with why, until it is settled."""

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import check, key_import, key_many, key_owner, keys, offboarding, people
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Refused, Unknown
from console.models import Event, Key, Person, Project
from console.offboarding import Case, Progress
from tests.conftest import (
    PASSWORD,
    V1,
    Call,
    Clock,
    MakeKey,
    add_person,
    bearer,
    checked,
    sign_in,
)


@pytest.fixture
def leaver(project: Project, other_project: Project) -> Actor:
    """An admin of both projects, who leaves."""
    return add_person("grace@example.com", shop="admin", other="admin")


def listed(leaver: Actor, owner: Actor) -> dict[str, Case]:
    assert leaver.id is not None
    return {case.key.name: case for case in offboarding.page(leaver.id, by=owner).rows}


def why(case: Case) -> set[str]:
    reasons = {
        "owns": case.is_theirs, "made": case.is_made_by_them, "knows": case.is_known_to_them
    }  # fmt: skip
    return {name for name, holds in reasons.items() if holds}


def numbers(leaver: Actor, owner: Actor) -> tuple[int, int, int]:
    assert leaver.id is not None
    found = offboarding.progress(leaver.id, by=owner)
    assert found.unsettled == offboarding.unsettled(leaver.id)
    return found.keys, found.settled, found.theirs


# --- what is listed ---------------------------------------------------------------------------


def test_whoever_makes_a_key_owns_it_made_it_and_knows_it(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    make_key(name="CI", by=leaver)
    make_key(name="Other", by=leaver, project="other")
    make_key(name="Foreign", by=owner)
    found = listed(leaver, owner)
    assert {name: why(case) for name, case in found.items()} == {
        "CI": {"owns", "made", "knows"}, "Other": {"owns", "made", "knows"},
    }  # fmt: skip
    assert numbers(leaver, owner) == (2, 0, 2)


def test_whoever_rotates_a_key_knows_it(make_key: MakeKey, leaver: Actor, owner: Actor) -> None:
    key, _ = make_key(name="CI", by=owner)
    keys.rotate(key.id, {}, by=leaver)
    assert {name: why(case) for name, case in listed(leaver, owner).items()} == {"CI": {"knows"}}
    assert numbers(leaver, owner) == (1, 0, 0)


def test_a_secret_that_was_rotated_away_is_known_until_its_grace_ends(
    make_key: MakeKey, leaver: Actor, owner: Actor, clock: Clock
) -> None:
    key, text = make_key(name="CI", by=leaver)
    keys.edit(key.id, {"owner": owner.name}, by=owner)
    keys.rotate(key.id, {"grace_period": "24h"}, by=owner)
    assert why(listed(leaver, owner)["CI"]) == {"made", "knows"}
    assert checked(check.Request(text, "req_1", "127.0.0.1")).is_valid
    clock.move("23h")
    assert numbers(leaver, owner) == (1, 0, 0)
    clock.move("1h")
    assert not checked(check.Request(text, "req_2", "127.0.0.1")).is_valid
    assert why(listed(leaver, owner)["CI"]) == {"made"}
    assert numbers(leaver, owner) == (1, 1, 0)


def test_an_imported_keys_secret_was_not_seen(
    project: Project, leaver: Actor, owner: Actor
) -> None:
    row = {"name": "Old", "sha256": "a" * 64, "prefix": "sk_live_abcd"}
    key_import.import_keys({"project": project.slug, "keys": [row]}, by=leaver)
    assert why(listed(leaver, owner)["Old"]) == {"owns", "made"}


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_what_does_not_work_is_settled_until_it_works_again(
    make_key: MakeKey, leaver: Actor, owner: Actor, clock: Clock, how: str
) -> None:
    key, _ = make_key(name="CI", by=leaver, expires_in="1d")
    if how == "revoked":
        keys.revoke(key.id, by=owner)
    else:
        clock.move("1d")
    assert numbers(leaver, owner) == (1, 1, 1)
    keys.edit(key.id, {"status": "active"} if how == "revoked" else {"expires_in": "1d"}, by=owner)
    assert numbers(leaver, owner) == (1, 0, 1)


def test_a_key_that_was_handed_over_and_rotated_is_settled(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    key, _ = make_key(name="CI", by=leaver)
    assert leaver.id is not None
    offboarding.hand_over_key(leaver.id, key.id, owner.name, by=owner)
    assert numbers(leaver, owner) == (1, 0, 0)
    keys.rotate(key.id, {}, by=owner)
    case = listed(leaver, owner)["CI"]
    assert (why(case), case.is_settled) == ({"made"}, True)
    assert numbers(leaver, owner) == (1, 1, 0)


def test_what_is_open_comes_first_and_pages_follow(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    assert leaver.id is not None
    for name in ("d", "a", "c", "b"):
        key, _ = make_key(name=name, by=leaver)
        if name in ("a", "b"):
            keys.revoke(key.id, by=owner)
    first = offboarding.page(leaver.id, by=owner, limit=3)
    second = offboarding.page(leaver.id, by=owner, limit=3, cursor=first.next_cursor)
    assert [case.key.name for case in first.rows + second.rows] == ["c", "d", "a", "b"]
    assert second.next_cursor is None
    back = offboarding.page(leaver.id, by=owner, limit=3, cursor=second.previous_cursor)
    assert [case.key.name for case in back.rows] == ["c", "d", "a"]


def test_nobody_with_keys_has_nothing_to_settle(leaver: Actor, owner: Actor) -> None:
    assert leaver.id is not None
    assert offboarding.progress(leaver.id, by=owner) == Progress(0, 0, 0)
    assert offboarding.page(leaver.id, by=owner).rows == []


@pytest.mark.parametrize("person_id", ["per_nobody", "", "\0", "per_\ud800"])
def test_a_person_who_is_not_there_is_unknown(owner: Actor, person_id: str) -> None:
    for ask in (
        lambda: offboarding.page(person_id, by=owner),
        lambda: offboarding.progress(person_id, by=owner),
        lambda: offboarding.hand_over_keys(person_id, owner.name, by=owner),
        lambda: offboarding.revoke_keys(person_id, by=owner),
        lambda: offboarding.to_revoke(person_id, by=owner),
    ):
        with pytest.raises(Unknown):
            ask()


def test_it_is_for_owners(make_key: MakeKey, leaver: Actor, admin: Actor) -> None:
    key, _ = make_key(name="CI", by=leaver)
    assert leaver.id is not None
    who = leaver.id
    for ask in (
        lambda: offboarding.page(who, by=admin),
        lambda: offboarding.progress(who, by=admin),
        lambda: offboarding.case(who, key.id, by=admin),
        lambda: offboarding.hand_over_key(who, key.id, admin.name, by=admin),
        lambda: offboarding.hand_over_keys(who, admin.name, by=admin),
        lambda: offboarding.revoke_keys(who, by=admin),
        lambda: offboarding.to_revoke(who, by=admin),
    ):
        with pytest.raises(Forbidden):
            ask()


# --- handing over -----------------------------------------------------------------------------


def test_a_key_that_is_not_listed_is_not_handed_over_here(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    key, _ = make_key(name="CI", by=owner)
    assert leaver.id is not None
    for key_id in (key.id, "key_none", "\0"):
        with pytest.raises(Unknown):
            offboarding.hand_over_key(leaver.id, key_id, owner.name, by=owner)


@pytest.mark.parametrize(
    "heir", ["nobody@example.com", "", "x", "grace@example.com", "gone@example.com",
             "new@example.com", "eve@example.com", "a\0@example.com"]
)  # fmt: skip
def test_who_cannot_take_a_key_over_is_refused_beside_the_field(
    make_key: MakeKey, leaver: Actor, owner: Actor, heir: str
) -> None:
    key, _ = make_key(name="CI", by=leaver)
    assert leaver.id is not None
    gone = add_person("gone@example.com", shop="admin")
    people.edit(gone.id or "", {"disabled": True}, by=owner)
    people.create({"email": "new@example.com", "roles": {"shop": "admin"}}, by=owner)
    add_person("eve@example.com", other="admin")
    before = Event.select().count()
    for ask in (
        lambda: offboarding.hand_over_key(leaver.id or "", key.id, heir, by=owner),
        lambda: offboarding.hand_over_keys(leaver.id or "", heir, by=owner),
    ):
        with pytest.raises(Invalid) as refused:
            ask()
        assert refused.value.fields.keys() == {"owner"}
    assert Key.get().owner_id == leaver.id
    assert Event.select().count() == before


def test_all_that_is_theirs_goes_to_one_person_where_they_may_own_it(
    make_key: MakeKey, leaver: Actor, owner: Actor, member: Actor
) -> None:
    assert leaver.id is not None
    for name in ("a", "b", "c"):
        make_key(name=name, by=leaver)
    gone, _ = make_key(name="d", by=leaver)
    keys.revoke(gone.id, by=owner)
    make_key(name="e", by=leaver, project="other")
    handed = offboarding.hand_over_keys(leaver.id, member.name, by=owner)
    assert (handed.keys, handed.left, handed.without_role) == (4, 1, ["Other"])
    assert {key.name for key in Key.select().where(Key.owner == member.id)} == {*"abcd"}
    handed = offboarding.hand_over_keys(leaver.id, owner.name, by=owner)
    assert (handed.keys, handed.left, handed.without_role) == (1, 0, [])
    told = Event.select().where(Event.action == "key.edited")
    assert {tuple(event.changes["owner"]) for event in told} == {
        (leaver.name, member.name), (leaver.name, owner.name),
    }  # fmt: skip
    assert {event.actor_name for event in told} == {owner.name}


def test_one_request_hands_over_so_many_and_says_what_is_left(
    make_key: MakeKey, leaver: Actor, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offboarding, "AT_ONCE", 3)
    monkeypatch.setattr(offboarding, "TOGETHER", 2)
    assert leaver.id is not None
    for number in range(5):
        make_key(name=str(number), by=leaver)
    assert offboarding.hand_over_keys(leaver.id, owner.name, by=owner).left == 2
    assert offboarding.revoke_keys(leaver.id, by=owner) == 3
    assert offboarding.revoke_keys(leaver.id, by=owner) == 2
    assert offboarding.hand_over_keys(leaver.id, owner.name, by=owner).left == 0
    assert numbers(leaver, owner) == (5, 5, 0)


def test_a_deleted_person_leaves_no_key_behind(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    make_key(name="CI", by=leaver)
    assert leaver.id is not None
    with pytest.raises(Refused, match="own"):
        people.delete(leaver.id, by=owner)
    offboarding.hand_over_keys(leaver.id, owner.name, by=owner)
    offboarding.revoke_keys(leaver.id, by=owner)
    people.delete(leaver.id, by=owner)
    assert Person.get_or_none(Person.id == leaver.id) is None
    with pytest.raises(Unknown):
        offboarding.page(leaver.id, by=owner)


def test_nobody_is_deleted_who_knows_a_secret_that_works(
    make_key: MakeKey, leaver: Actor, owner: Actor, clock: Clock
) -> None:
    assert leaver.id is not None
    made = [make_key(name=name, by=leaver)[0] for name in ("CI", "Deploy")]
    offboarding.hand_over_keys(leaver.id, owner.name, by=owner)
    with pytest.raises(Conflict) as refused:
        people.delete(leaver.id, by=owner)
    assert refused.value.message == (
        "grace@example.com knows the secret of 2 keys that still work: rotate or revoke them "
        f"first, on /people/{leaver.id}/offboarding."
    )
    keys.rotate(made[0].id, {}, by=owner)
    keys.rotate(made[1].id, {"grace_period": "1h"}, by=owner)
    with pytest.raises(Conflict, match="of 1 key that still works: rotate or revoke it first"):
        people.delete(leaver.id, by=owner)
    clock.move("1h")
    people.delete(leaver.id, by=owner)
    assert Person.get_or_none(Person.id == leaver.id) is None


def test_keys_of_an_archived_project_can_be_handed_over(
    make_key: MakeKey, leaver: Actor, owner: Actor, project: Project
) -> None:
    key, _ = make_key(name="CI", by=leaver)
    Project.update(archived_at=1).where(Project.id == project.id).execute()
    assert leaver.id is not None
    offboarding.hand_over_key(leaver.id, key.id, owner.name, by=owner)
    assert Key.get().owner_id == owner.id


# --- revoking ---------------------------------------------------------------------------------


def test_revoking_all_stops_what_is_open_and_nothing_else(
    make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    assert leaver.id is not None
    for name in ("a", "b"):
        make_key(name=name, by=leaver)
    settled, _ = make_key(name="settled", by=leaver)
    offboarding.hand_over_key(leaver.id, settled.id, owner.name, by=owner)
    keys.rotate(settled.id, {}, by=owner)
    used, text = make_key(name="used", by=leaver)
    checked(check.Request(text, "req_1", "192.0.2.1"))
    number, recent = offboarding.to_revoke(leaver.id, by=owner)
    assert (number, [key.name for key in recent]) == (3, ["used"])
    assert offboarding.revoke_keys(leaver.id, by=owner) == 3
    revoked = Key.select().where(Key.revoked_at.is_null(False))
    assert {key.name for key in revoked} == {"a", "b", "used"}
    assert numbers(leaver, owner) == (4, 4, 3)


def test_it_asks_again_who_is_there(make_key: MakeKey, leaver: Actor, owner: Actor) -> None:
    key, _ = make_key(name="CI", by=leaver)
    stale = replace(owner, fresh_until=0)
    who = leaver.id or ""
    for ask in (
        lambda: offboarding.hand_over_key(who, key.id, owner.name, by=stale),
        lambda: offboarding.hand_over_keys(who, owner.name, by=stale),
        lambda: offboarding.revoke_keys(who, by=stale),
        lambda: keys.edit(key.id, {"owner": owner.name}, by=stale),
    ):
        with pytest.raises(NotFresh):
            ask()
    assert Key.get().owner_id == leaver.id and Key.get().revoked_at is None


# --- the owner of a key, through the API ------------------------------------------------------


def test_an_admin_hands_a_key_over(make_key: MakeKey, admin: Actor, member: Actor) -> None:
    key, _ = make_key(name="CI", by=admin)
    keys.edit(key.id, {"owner": member.name.upper()}, by=admin)
    event = Event.select().where(Event.action == "key.edited").get()
    assert event.changes == {"owner": [admin.name, member.name]}
    assert Key.get().owner_id == member.id
    keys.edit(key.id, {"owner": member.name}, by=admin)  # as it is: no event
    assert Event.select().where(Event.action == "key.edited").count() == 1


def test_a_member_keeps_what_is_theirs(make_key: MakeKey, member: Actor, admin: Actor) -> None:
    key, _ = make_key(name="CI", by=member)
    with pytest.raises(Forbidden):
        keys.edit(key.id, {"owner": admin.name}, by=member)
    keys.edit(key.id, {"owner": member.name, "name": "New"}, by=member)  # what was read, sent back
    assert (Key.get().name, Key.get().owner_id) == ("New", member.id)


def test_a_key_is_never_left_without_an_owner(make_key: MakeKey, admin: Actor) -> None:
    key, _ = make_key(name="CI", by=admin)
    nobodys, _ = make_key(name="Nobody's")
    with pytest.raises(Invalid) as refused:
        keys.edit(key.id, {"owner": None}, by=admin)
    assert "owner" in refused.value.fields
    keys.edit(nobodys.id, {"owner": None, "name": "New"}, by=admin)
    assert Key.get_by_id(nobodys.id).name == "New"


def test_an_admin_does_not_learn_who_has_an_account(
    client: FlaskClient, make_key: MakeKey, owner: Actor, admin: Actor, stranger: Actor
) -> None:
    """Who is elsewhere, has no role, cannot sign in, and who is nobody: one answer."""
    login = {"email": admin.name, "password": PASSWORD}
    token = client.post(f"{V1}/auth/token", json=login).json["access_token"]
    key, _ = make_key(name="CI")
    add_person("none@example.com")
    gone = add_person("gone@example.com", shop="admin")
    people.edit(gone.id or "", {"disabled": True}, by=owner)
    people.create({"email": "new@example.com", "roles": {"shop": "admin"}}, by=owner)
    told = set()
    for name in ("eve", "none", "gone", "new", "nobody"):
        body = {"owner": f"{name}@example.com"}
        answer = client.patch(f"{V1}/api-keys/{key.id}", json=body, headers=bearer(token))
        assert answer.status_code == 400
        told.add(str({**answer.get_json(), "request_id": None, "instance": None}))
    assert len(told) == 1 and "has a role in this project" in told.pop()


@pytest.mark.parametrize("permission", ["admin:*", "keys:manage"])
def test_no_key_hands_keys_over(
    call: Call, make_key: MakeKey, admin: Actor, permission: str
) -> None:
    _, text = make_key(name="Holder", permissions=[permission])
    key, _ = make_key(name="CI")
    answer = call("PATCH", f"/api-keys/{key.id}", {"owner": admin.name}, secret=text)
    assert answer.status_code == 403
    assert Key.get_by_id(key.id).owner_id is None


def test_candidates_can_sign_in_and_have_a_role(
    owner: Actor, admin: Actor, stranger: Actor, project: Project
) -> None:
    gone = add_person("gone@example.com", shop="admin")
    people.edit(gone.id or "", {"disabled": True}, by=owner)
    people.create({"email": "new@example.com", "roles": {"shop": "admin"}}, by=owner)
    add_person("none@example.com")
    assert [one.email for one in key_owner.candidates(project.id)] == [owner.name, admin.name]
    assert [one.email for one in key_owner.candidates()] == [
        owner.name, admin.name, stranger.name
    ]  # fmt: skip


# --- pages ------------------------------------------------------------------------------------


def test_the_page_says_why_each_key_is_there_and_how_far_it_has_come(
    signed_in: FlaskClient, make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    make_key(name="CI", by=leaver)
    done, _ = make_key(name="Done", by=leaver)
    keys.revoke(done.id, by=owner)
    page = signed_in.get(f"/people/{leaver.id}/offboarding").text
    assert (
        "<strong>2 keys</strong> are theirs or known to them; <strong>1</strong> is settled" in page
    )
    assert "Owns it, has seen its secret, made it" in page
    assert f"/people/{leaver.id}/disable" in page
    people.edit(leaver.id or "", {"disabled": True}, by=owner)
    page = signed_in.get(f"/people/{leaver.id}/offboarding").text
    assert f"/people/{leaver.id}/disable" not in page and "Disabled" in page


def test_the_dialogs_do_what_they_say(
    signed_in: FlaskClient, make_key: MakeKey, leaver: Actor, owner: Actor, member: Actor
) -> None:
    here = f"/people/{leaver.id}/offboarding"
    key, _ = make_key(name="CI", by=leaver)
    make_key(name="Second", by=leaver)
    for path in (f"/keys/{key.id}/hand-over", "/hand-over", "/revoke"):
        assert signed_in.get(here + path).status_code == 200
    refused = signed_in.post(f"{here}/keys/{key.id}/hand-over", data={"owner": "x@example.com"})
    assert refused.status_code == 422 and 'id="owner-error"' in refused.text
    refused = signed_in.post(f"{here}/hand-over", data={"owner": ""})
    assert refused.status_code == 422 and 'id="owner-error"' in refused.text
    answer = signed_in.post(f"{here}/keys/{key.id}/hand-over", data={"owner": member.name})
    assert (answer.status_code, answer.location) == (303, here)
    answer = signed_in.post(f"{here}/hand-over", data={"owner": owner.name})
    assert answer.status_code == 303
    owners = {one.name: one.owner_id for one in Key.select()}
    assert owners == {"CI": member.id, "Second": owner.id}
    assert signed_in.post(f"{here}/revoke").status_code == 303
    assert "Nothing that works is theirs" in signed_in.get(here).text


def test_pages_of_nobody_and_for_others(
    app: Flask, signed_in: FlaskClient, client: FlaskClient, leaver: Actor, admin: Actor,
    make_key: MakeKey,
) -> None:  # fmt: skip
    key, _ = make_key(name="CI", by=leaver)
    here = f"/people/{leaver.id}/offboarding"
    paths = ("", f"/keys/{key.id}/hand-over", "/hand-over", "/revoke")
    browser = sign_in(app, admin)
    for path in paths:
        assert browser.get(here + path).status_code == 403
        assert signed_in.get(f"/people/per_none/offboarding{path}").status_code == 404
        assert client.get(here + path).status_code == 303
    assert signed_in.get(f"{here}/keys/key_none/hand-over").status_code == 404


def test_a_service_is_told_the_new_owner_from_the_next_check_on(
    make_key: MakeKey, admin: Actor, member: Actor
) -> None:
    key, text = make_key(name="CI", by=admin)
    before = checked(check.Request(text, "req_1", "127.0.0.1")).key
    keys.edit(key.id, {"owner": member.name}, by=admin)
    after = checked(check.Request(text, "req_2", "127.0.0.1")).key
    assert before is not None and after is not None
    assert (before.owner, after.owner) == (admin.name, member.name)


# --- by way of a key --------------------------------------------------------------------------


def test_what_somebodys_key_makes_and_sees_they_made_and_saw(
    call: Call, make_key: MakeKey, leaver: Actor, owner: Actor
) -> None:
    _, robot = make_key(name="Robot", by=leaver, permissions=["keys:manage"])
    other, _ = make_key(name="Foreign", by=owner)
    made = call("POST", "/api-keys", {"name": "New"}, secret=robot)
    call("POST", f"/api-keys/{other.id}/rotate", {}, secret=robot)
    assert made.status_code == 201
    assert {name: why(case) for name, case in listed(leaver, owner).items()} == {
        "Robot": {"owns", "made", "knows"}, "New": {"owns", "made", "knows"}, "Foreign": {"knows"},
    }  # fmt: skip


# --- a key that comes back --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["disabled", "deleted"])
def test_a_stopped_key_whose_secret_a_leaver_knows_is_rotated_before_it_works_again(
    make_key: MakeKey, leaver: Actor, owner: Actor, end: str
) -> None:
    key, secret = make_key(name="CI", by=leaver)
    late, _ = make_key(name="Late", by=leaver, expires_in="1d")
    keys.revoke(key.id, by=owner)
    offboarding.hand_over_keys(leaver.id or "", owner.name, by=owner)
    Key.update(expires_at=1).where(Key.id == late.id).execute()
    if end == "disabled":
        people.edit(leaver.id or "", {"disabled": True}, by=owner)
    else:
        people.delete(leaver.id or "", by=owner)
    with pytest.raises(Conflict, match="Somebody who has left knows the secret of CI: rotate it"):
        keys.restore(key.id, by=owner)
    with pytest.raises(Conflict, match="Somebody who has left knows the secret of Late"):
        keys.edit(late.id, {"expires_in": "90d"}, by=owner)
    with pytest.raises(Conflict, match="Somebody who has left knows the secret of Late"):
        key_many.extend([late.id], {"expires_in": "90d"}, by=owner)
    _, new, _ = keys.rotate(key.id, {}, by=owner)
    keys.restore(key.id, by=owner)
    codes = [checked(check.Request(text, request_id="r")).code for text in (secret, new)]
    assert codes == ["API_KEY_SUPERSEDED", "VALID"]


def test_a_key_that_somebody_else_was_given_meanwhile_is_left_to_them(
    make_key: MakeKey, leaver: Actor, owner: Actor, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = make_key(name="A", by=leaver)
    second, _ = make_key(name="B", by=leaver)
    hand_over_all = offboarding._hand_over_all

    def delayed(*given: Any, **more: Any) -> int:
        keys.edit(first.id, {"owner": admin.name}, by=owner)
        keys.delete(second.id, by=owner)
        return hand_over_all(*given, **more)

    monkeypatch.setattr(offboarding, "_hand_over_all", delayed)
    assert offboarding.hand_over_keys(leaver.id or "", owner.name, by=owner).keys == 0
    assert Key.get_by_id(first.id).owner_id == admin.id
