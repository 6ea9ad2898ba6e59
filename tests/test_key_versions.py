"""Two people edit one key: who comes second is told what was changed, and nothing is lost."""

from itertools import count
from typing import Any

import pytest

from console import clock, key_versions, keys
from console.actor import Actor
from console.key_versions import Changed
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey, add_person


def refused(key: Key, as_of: int, by: Actor, **fields: Any) -> Changed:
    """An edit that is refused, and leaves the key and its events as they are."""
    before = Key.get_by_id(key.id).__data__, Event.select().count()
    with pytest.raises(Changed) as refusal:
        keys.edit(key.id, fields, by=by, as_of=as_of)
    assert (Key.get_by_id(key.id).__data__, Event.select().count()) == before
    return refusal.value


def test_an_edit_of_the_present_version_is_saved(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    clock.move("1m")
    edited = keys.edit(key.id, {"description": "one"}, by=owner, as_of=key.updated_at)
    assert edited.updated_at == clock.instant
    clock.move("1m")
    keys.edit(key.id, {"description": "two"}, by=owner, as_of=edited.updated_at)
    assert Key.get().description == "two"


def test_an_edit_of_an_older_version_is_told_who_changed_what(
    clock: Clock, make_key: MakeKey, owner: Actor, admin: Actor
) -> None:
    key, _ = make_key(description="first")
    clock.move("1m")
    keys.edit(key.id, {"description": "second", "permissions": ["a:b"]}, by=admin)
    changed = refused(key, key.updated_at, owner, description="mine")
    assert [(one.actor_id, one.action, one.changes) for one in changed.events] == [
        (admin.id, "key.edited", {"description": ["first", "second"], "permissions": [[], ["a:b"]]})
    ]
    assert (changed.base["description"], changed.present["description"]) == ("first", "second")
    assert changed.base["permissions"] == []
    assert changed.version == clock.instant
    keys.edit(key.id, {"description": "mine"}, by=owner, as_of=changed.version)
    assert Key.get().description == "mine"


def test_what_was_there_before_several_changes_is_known(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key(description="first")
    for words in ("second", "third"):
        clock.move("1m")
        keys.edit(key.id, {"description": words}, by=owner)
    changed = refused(key, key.updated_at, owner, name="Other")
    assert [one.changes["description"][1] for one in changed.events] == ["second", "third"]
    assert (changed.base["description"], changed.present["description"]) == ("first", "third")


def test_only_what_came_after_that_version_is_told(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key(description="first")
    clock.move("1m")
    seen = keys.edit(key.id, {"description": "second"}, by=owner).updated_at
    clock.move("1m")
    keys.edit(key.id, {"name": "Other"}, by=owner)
    changed = refused(key, seen, owner, description="mine")
    assert [list(one.changes) for one in changed.events] == [["name"]]
    assert changed.base["description"] == "second"


def test_the_change_that_made_the_version_is_not_told_while_time_runs(
    monkeypatch: pytest.MonkeyPatch, make_key: MakeKey, owner: Actor
) -> None:
    instants = count(clock.parse("2026-11-20T10:30:00Z"))
    monkeypatch.setattr(clock, "now", lambda: next(instants))
    key, _ = make_key()
    seen = keys.edit(key.id, {"description": "seen", "status": "revoked"}, by=owner).updated_at
    keys.rotate(key.id, {}, by=owner)
    changed = refused(key, seen, owner, description="mine")
    assert [one.action for one in changed.events] == ["key.rotated"]


def test_revoking_and_rotating_meanwhile_are_told(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    clock.move("1m")
    keys.revoke(key.id, by=owner)
    clock.move("1m")
    keys.rotate(key.id, {}, by=owner)
    changed = refused(key, key.updated_at, owner, description="mine")
    assert [one.action for one in changed.events] == ["key.revoked", "key.rotated"]
    assert (changed.base["status"], changed.present["status"]) == ("active", "revoked")


def test_an_old_form_does_not_enable_what_was_revoked_meanwhile(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    clock.move("1m")
    keys.revoke(key.id, by=owner)
    refused(key, key.updated_at, owner, status="active")


def test_what_alters_nothing_is_no_conflict(clock: Clock, make_key: MakeKey, owner: Actor) -> None:
    """The same edit, sent twice because the first answer got lost."""
    key, _ = make_key()
    clock.move("1m")
    for _ in range(2):
        keys.edit(
            key.id, {"description": "mine", "status": "revoked"}, by=owner, as_of=key.updated_at
        )
    assert Event.select().where(Event.action == "key.edited").count() == 1


def test_the_use_of_a_key_is_no_change_of_it(make_key: MakeKey, owner: Actor) -> None:
    key, _ = make_key()
    Key.update(last_used_at=key.updated_at + 5, requests_total=3).execute()
    keys.edit(key.id, {"description": "mine"}, by=owner, as_of=key.updated_at)
    assert Key.get().description == "mine"


def test_a_version_whose_events_are_gone_is_still_refused(
    clock: Clock, make_key: MakeKey, owner: Actor
) -> None:
    key, _ = make_key()
    clock.move("1m")
    keys.edit(key.id, {"description": "theirs"}, by=owner)
    Event.delete().where(Event.action == "key.edited").execute()
    assert refused(key, key.updated_at, owner, description="mine").events == []


def test_who_deleted_a_key_is_told_to_whoever_saw_it(
    make_key: MakeKey, owner: Actor, member: Actor, project: Project, other_project: Project
) -> None:
    other = add_person("carl@example.com", shop="member")
    key, _ = make_key(by=member)
    assert key_versions.deletion(key.id, project.id, by=owner) is None
    keys.delete(key.id, by=owner)
    for actor in (owner, member):
        event = key_versions.deletion(key.id, project.id, by=actor)
        assert event is not None and event.actor_id == owner.id
    assert key_versions.deletion(key.id, project.id, by=other) is None
    assert key_versions.deletion(key.id, other_project.id, by=owner) is None
