"""Several keys at once: what a change would do is told before, and then done to all or to none."""

from collections.abc import Callable
from typing import Any

import pytest

from console import check, key_choice, key_many, keys
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey, at_once, checked

Changes = Callable[..., list[Key]]


def stored(key: Key) -> Key:
    return Key.get(Key.id == key.id)


def events(key: Key) -> list[tuple[str, dict[str, Any]]]:
    rows = Event.select().where(Event.target_id == key.id).order_by(Event.id).offset(1)
    return [(event.action, event.changes) for event in rows]


def ask(secret: str, ip: str = "203.0.113.7") -> str:
    return checked(check.Request(secret=secret, request_id="req_1", ip=ip)).code


def revoke(ids: list[str], by: Actor) -> list[Key]:
    return key_many.revoke(ids, by=by)


def extend(ids: list[str], by: Actor) -> list[Key]:
    return key_many.extend(ids, {"expires_in": "1y"}, by=by)


CHANGES = pytest.mark.parametrize("change", [revoke, extend])


# --- the change ---------------------------------------------------------------------------------


def test_all_of_them_stop_at_once_and_each_leaves_an_event(
    make_key: MakeKey, operator: Actor
) -> None:
    made = [make_key(name=name) for name in "abc"]
    revoked, _ = made[1]
    keys.revoke(revoked.id, by=operator)
    changed = key_many.revoke([key.id for key, _ in made], by=operator)
    assert [key.name for key in changed] == ["a", "c"]
    assert [ask(secret) for _, secret in made] == ["API_KEY_REVOKED"] * 3
    for key, _ in made:
        assert events(key) == [("key.revoked", {"status": ["active", "revoked"]})]


def test_to_extend_takes_no_time_from_a_key(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    made = {
        name: make_key(name=name, expires_in=length)[0]
        for name, length in {"ended": "1d", "sooner": "1mo", "later": "2y", "never": None}.items()
    }
    before = {name: stored(key).expires_at for name, key in made.items()}
    clock.move("2d")
    changed = key_many.extend([key.id for key in made.values()], {"expires_in": "1y"}, by=operator)
    assert [key.name for key in changed] == ["ended", "sooner"]
    for name in ("ended", "sooner"):
        key = stored(made[name])
        assert key.status_at(clock.now()) == "active"
        ends = "2027-11-22T10:30:00Z"
        assert keys.as_dict(key)["expires_at"] == ends
        assert events(key) == [("key.edited", {"expires_at": [
            {"ended": "2026-11-21T10:30:00Z", "sooner": "2026-12-20T10:30:00Z"}[name], ends
        ]})]  # fmt: skip
        assert key.updated_at == clock.now()
    for name in ("later", "never"):
        assert stored(made[name]).expires_at == before[name]
        assert events(made[name]) == []


def test_an_extended_key_that_is_revoked_stays_so(make_key: MakeKey, operator: Actor) -> None:
    key, secret = make_key(expires_in="1d")
    keys.revoke(key.id, by=operator)
    key_many.extend([key.id], {"expires_at": "2027-01-01T00:00:00Z"}, by=operator)
    assert keys.as_dict(stored(key))["expires_at"] == "2027-01-01T00:00:00Z"
    assert ask(secret) == "API_KEY_REVOKED"


BAD_ENDS = {
    "nothing": ({}, "expires_in"),
    "never": ({"expires_at": None}, "expires_in"),
    "the past": ({"expires_at": "2026-11-20T10:29:59Z"}, "expires_at"),
    "no length": ({"expires_in": "soon"}, "expires_in"),
    "two": ({"expires_in": "1y", "expires_at": "2027-01-01T00:00:00Z"}, "expires_at"),
    "another field": ({"expires_in": "1y", "name": "x"}, "name"),
}


@pytest.mark.parametrize("fields, field", BAD_ENDS.values(), ids=BAD_ENDS.keys())
def test_an_end_that_makes_no_sense_is_refused_by_name(
    make_key: MakeKey, operator: Actor, clock: Clock, fields: dict[str, Any], field: str
) -> None:
    key, _ = make_key(expires_in="1d")
    with pytest.raises(Invalid) as refused:
        key_many.extend([key.id], fields, by=operator)
    assert list(refused.value.fields) == [field]
    assert events(key) == []


@CHANGES
def test_one_that_is_not_there_or_not_theirs_stops_all(
    make_key: MakeKey, member: Actor, change: Changes
) -> None:
    own, _ = make_key(name="own", by=member, expires_in="1d")
    others, _ = make_key(name="others", expires_in="1d")
    for foreign in (others.id, "key_nothere", "", "key_\0", "\ud800"):
        with pytest.raises(Unknown) as refused:
            change([own.id, foreign], member)
        assert refused.value.message == "One of these keys is not there any more. Choose again."
    assert events(own) == events(others) == []
    assert [key.name for key in change([own.id], member)] == ["own"]


@CHANGES
def test_who_may_only_read_changes_none(make_key: MakeKey, viewer: Actor, change: Changes) -> None:
    key, _ = make_key(expires_in="1d")
    with pytest.raises(Forbidden):
        change([key.id], viewer)
    assert events(key) == []


@CHANGES
@pytest.mark.parametrize("number", [0, 201])
def test_at_least_one_and_at_most_200_are_changed_together(
    operator: Actor, project: Project, change: Changes, number: int
) -> None:
    with pytest.raises(Invalid) as refused:
        change([f"key_{n}" for n in range(number)], operator)
    assert list(refused.value.fields) == ["ids"]


@CHANGES
def test_a_key_that_is_named_twice_changes_once(
    make_key: MakeKey, operator: Actor, change: Changes
) -> None:
    key, _ = make_key(expires_in="1d")
    assert len(change([key.id, key.id], operator)) == 1
    assert len(events(key)) == 1


def test_nobody_extends_a_key_that_holds_more_than_they_may_hand_out(
    make_key: MakeKey, member: Actor
) -> None:
    plain, _ = make_key(name="plain", by=member, expires_in="1d")
    strong, _ = make_key(name="strong", permissions=["keys:manage"], expires_in="1d")
    Key.update(owner=member.id).where(Key.id == strong.id).execute()
    with pytest.raises(Forbidden):
        extend([plain.id, strong.id], member)
    assert events(plain) == events(strong) == []
    assert len(revoke([plain.id, strong.id], member)) == 2  # to stop one takes nothing


def test_extended_keys_that_are_live_again_count_as_such(
    make_key: MakeKey, project: Project, operator: Actor, clock: Clock
) -> None:
    Project.update(key_limit=3).where(Project.id == project.id).execute()
    ended = [make_key(name=f"ended {n}", expires_in="1d")[0] for n in range(3)]
    clock.move("2d")
    make_key(name="live")
    with pytest.raises(Conflict) as refused:
        extend([key.id for key in ended], operator)
    assert refused.value.code == "KEY_LIMIT_REACHED"
    assert all(events(key) == [] for key in ended)
    assert len(extend([key.id for key in ended[:2]], operator)) == 2


def test_without_its_event_none_is_changed(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [make_key(name=name, expires_in="1d")[0] for name in "ab"]
    record = keys.activity.record

    def break_at_the_second(action: str, **about: Any) -> None:
        if about["target_name"] == "b":
            raise OSError("disk full")
        record(action, **about)

    monkeypatch.setattr(keys.activity, "record", break_at_the_second)
    for change in (revoke, extend):
        with pytest.raises(OSError, match="disk full"):
            change([key.id for key in made], operator)
        assert all(events(key) == [] for key in made)
        assert all(stored(key).revoked_at is None for key in made)
        assert stored(made[0]).expires_at == made[0].expires_at


def test_those_who_revoke_the_same_keys_at_once_leave_one_event_each(
    make_key: MakeKey, operator: Actor
) -> None:
    made = [make_key(name=str(n))[0].id for n in range(5)]
    orders = [made, made[::-1]]
    changed = at_once(6, lambda n: key_many.revoke(orders[n % 2], by=operator))
    assert sorted(len(one) for one in changed if isinstance(one, list)) == [0, 0, 0, 0, 0, 5]
    assert Event.select().where(Event.action == "key.revoked").count() == 5


# --- what is told before -------------------------------------------------------------------------


def test_a_revocation_tells_who_was_used_last_and_who_is_revoked(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    made = {name: make_key(name=name) for name in ("old", "first", "last", "never", "revoked")}
    for name in ("old", "first", "last", "revoked"):
        ask(made[name][1], ip={"last": "192.0.2.9"}.get(name, "203.0.113.7"))
        clock.move("1d" if name == "old" else "1m")
    keys.revoke(made["revoked"][0].id, by=operator)
    ids = [key.id for key, _ in made.values()]
    told = key_choice.revocation(ids, "shop", by=operator)
    assert [key.name for key in told.stopping] == ["first", "last", "never", "old"]
    assert [key.name for key in told.recent] == ["last", "first"]
    assert told.recent[0].last_used_ip == "192.0.2.9"
    assert [key.name for key in told.revoked] == ["revoked"]
    assert len(told.keys) == 5
    changed = key_many.revoke(ids, by=operator)
    assert [key.id for key in changed] == [key.id for key in told.stopping]


def test_an_extension_tells_who_works_longer_and_who_stays(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    ends = {"ended": "1d", "sooner": "1mo", "later": "2y", "never": None, "revoked": "1mo"}
    made = {name: make_key(name=name, expires_in=end)[0] for name, end in ends.items()}
    keys.revoke(made["revoked"].id, by=operator)
    clock.move("2d")
    ids = [key.id for key in made.values()]
    told = key_choice.prolongation(ids, "shop", {"expires_in": "1y"}, by=operator)
    assert told.ends_at == clock.now() + 365 * 86_400_000
    shown = {
        "extended": ["ended", "revoked", "sooner"], "again": ["ended"], "revoked": ["revoked"],
        "later": ["later"], "never": ["never"],
    }  # fmt: skip
    for name, names in shown.items():
        assert [key.name for key in getattr(told, name)] == names, name
    changed = key_many.extend(ids, {"expires_in": "1y"}, by=operator)
    assert [key.id for key in changed] == [key.id for key in told.extended]
    undecided = key_choice.prolongation(ids, "shop", {}, by=operator)
    assert undecided.ends_at is None
    assert len(undecided.extended) == 4


def test_what_is_told_changes_nothing(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key(expires_in="1d")
    key_choice.revocation([key.id], "shop", by=operator)
    key_choice.prolongation([key.id], "shop", {"expires_in": "1y"}, by=operator)
    assert events(key) == []
    assert stored(key).expires_at == key.expires_at


def test_only_who_may_change_all_of_them_is_told(
    make_key: MakeKey, member: Actor, viewer: Actor, operator: Actor, other_project: Project
) -> None:
    own, _ = make_key(name="own", by=member)
    others, _ = make_key(name="others")
    elsewhere, _ = make_key(name="elsewhere", project="other")

    def told(by: Actor, *ids: str) -> list[Key]:
        key_choice.prolongation(ids, "shop", {}, by=by)
        return list(key_choice.revocation(ids, "shop", by=by).keys)

    assert len(told(member, own.id)) == 1
    with pytest.raises(Unknown):
        told(member, own.id, others.id)
    with pytest.raises(Forbidden):
        told(viewer, others.id)
    with pytest.raises(Unknown, match="not in this project"):
        told(operator, own.id, elsewhere.id)
    assert len(key_choice.chosen([own.id, others.id], "shop", by=viewer)) == 2
    with pytest.raises(Unknown):
        key_choice.chosen([own.id, others.id], "shop", by=member)
