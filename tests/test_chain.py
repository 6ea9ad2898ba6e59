"""The chain of events: whole while nobody meddles, and broken at the first row where one did."""

import hashlib
from typing import Any

import pytest
from flask import Flask

from console import activity, chain, db, key_import, key_many, keys, projects, retention
from console import clock as console_clock
from console.actor import COMMAND, Actor
from console.chain import Broken, Found
from console.errors import Refused
from console.models import Chain, Event, Project
from tests.conftest import Clock, MakeKey, at_once
from tests.test_cli import Run
from tests.test_cli import run as run

STRAY = "it stands before the chain's beginning, where it cannot have been"
BY = Actor(kind=COMMAND, id=None, name="command line", is_owner=True, request_id="req_1")


def record(number: int, **more: Any) -> None:
    """One event; the number is its target's name."""
    activity.record("key.edited", by=BY, target_id="key_1", target_name=str(number), **more)


@pytest.fixture
def five(app: Flask) -> list[Event]:
    """Five events, the chain's only ones."""
    for number in range(1, 6):
        record(number, changes={"name": ("Old", "New"), "metadata": ({}, {"a": [1.0, None, "ü"]})})
    return list(Event.select().order_by(Event.id))


def meddle(sql: str) -> None:
    """What somebody does who can write to the database."""
    with db.write():
        db.handle.execute_sql(sql)


def broken() -> Broken:
    found = chain.verify().broken
    assert found is not None
    return found


def test_every_column_is_in_the_hash() -> None:
    assert {*chain.COLUMNS} == {*Event._meta.sorted_fields} - {Event.hash}


def test_the_hash_is_what_the_documentation_says() -> None:
    row = dict.fromkeys(chain.NAMES, None) | {"id": 7, "at": 5, "changes": {"b": [1.5], "a": ["é"]}}
    content = (
        'aa\n{"action":null,"actor_id":null,"actor_kind":null,"actor_name":null,"at":5,'
        '"changes":{"a":["\\u00e9"],"b":[1.5]},"id":7,"ip":null,"project_id":null,'
        '"request_id":null,"target_id":null,"target_name":null}'
    )
    assert chain.link("aa", row) == hashlib.sha256(content.encode()).hexdigest()


def test_what_was_recorded_is_whole(five: list[Event]) -> None:
    found = chain.verify()
    assert found.broken is None
    assert (found.count, found.older) == (5, 0)
    assert (found.first_at, found.last_at) == (five[0].at, five[4].at)
    assert (found.end_id, found.end_hash) == (five[4].id, five[4].hash)
    assert len({event.hash for event in five}) == 5


@pytest.mark.usefixtures("app")
def test_no_events_are_whole() -> None:
    assert chain.verify() == Found(0, None, None, 0, "", 0)


CHANGED = {
    "at": "at + 1",
    "project_id": "'prj_1'",
    "action": "'key.revoked'",
    "actor_kind": "'person'",
    "actor_id": "'per_1'",
    "actor_name": "'mallory'",
    "target_id": "'key_2'",
    "target_name": "'x'",
    "changes": """'{"name": ["Old", "Other"]}'""",
    "ip": "'192.0.2.1'",
    "request_id": "null",
    "hash": "'" + "0" * 64 + "'",
    "id": "id + 100",
}


@pytest.mark.parametrize("column", CHANGED)
def test_a_changed_field_is_found(five: list[Event], column: str) -> None:
    assert {*CHANGED} == {field.column_name for field in Event._meta.sorted_fields}
    meddle(f"update event set {column} = {CHANGED[column]} where id = {five[2].id}")
    found = chain.verify()
    assert found.broken is not None and found.count == 2
    if column == "id":
        assert found.broken.id == five[3].id
    else:
        assert found.broken.id == five[2].id
        assert found.broken.action == (CHANGED["action"].strip("'") if column == "action"
                                       else "key.edited")  # fmt: skip
        assert found.broken.at == five[2].at + (column == "at")


@pytest.mark.parametrize("which", [0, 2])
def test_a_removed_event_is_found(five: list[Event], which: int) -> None:
    meddle(f"delete from event where id = {five[which].id}")
    found = broken()
    assert found.id == five[which + 1].id
    assert f"missing ({five[which].id} to {five[which].id})" in found.why


def test_an_inserted_event_is_found(five: list[Event]) -> None:
    """In the place of one that was removed, the rest as it was."""
    meddle(f"delete from event where id = {five[2].id}")
    meddle(
        "insert into event (id, at, action, actor_kind, actor_name, target_id, target_name,"
        " changes)"
        f" values ({five[2].id}, {five[2].at}, 'key.edited', 'command', 'x', 'y', 'z', '{{}}')"
    )
    found = broken()
    assert (found.id, found.at, found.action) == (five[2].id, five[2].at, "key.edited")
    assert "no hash" in found.why


def test_events_in_another_order_are_found(five: list[Event]) -> None:
    one, other, away = five[1].id, five[2].id, 1_000_000
    for old, new in ((one, away), (other, one), (away, other)):
        meddle(f"update event set id = {new} where id = {old}")
    assert broken().id == one


def test_a_removed_tail_is_found(five: list[Event]) -> None:
    meddle(f"delete from event where id > {five[2].id}")
    found = broken()
    assert (found.id, found.at) == (five[3].id, None)
    assert f"missing, up to {five[4].id}" in found.why


def forge(last: Event) -> str:
    """Another event behind the last, with the hash that belongs there."""
    row = {name: last.__data__[name] for name in chain.NAMES} | {"id": last.id + 1}
    forged = chain.link(last.hash, row)
    Event.insert(**row, hash=forged).execute()
    return forged


def test_an_event_behind_the_end_is_found(five: list[Event]) -> None:
    forge(five[4])
    found = broken()
    assert found.id == five[4].id + 1 and "behind the chain's end" in found.why


def test_a_chain_that_was_made_anew_is_whole_but_not_the_one_that_was_noted(
    five: list[Event],
) -> None:
    """Whoever can write all of it can make it anew; only what was noted elsewhere tells."""
    noted = (five[4].id, five[4].hash)
    assert chain.has(*noted)
    meddle(f"delete from event where id > {five[2].id}")
    meddle(f"update chain set end_id = {five[2].id}, end_hash = '{five[2].hash}'")
    assert chain.verify().broken is None
    assert chain.has(*noted) is False
    assert chain.has(five[2].id, five[2].hash)


@pytest.mark.parametrize(
    "change",
    ["end_id = end_id + 1", "end_id = end_id - 1", "end_hash = 'x'", "start_hash = 'x'",
     "start_id = start_id + 2", "start_id = start_id + 1, start_hash = 'x'"],
)  # fmt: skip
def test_a_changed_row_of_the_chain_itself_is_found(five: list[Event], change: str) -> None:
    meddle(f"update chain set {change}")
    assert chain.verify().broken is not None


def test_a_removed_row_of_the_chain_itself_is_found(five: list[Event]) -> None:
    meddle("delete from chain")
    assert broken().why == "the chain is gone"
    record(6)  # goes on, in a chain that begins here
    assert broken().id == five[0].id


NESTED = "[" * 60_000


@pytest.mark.sqlite  # PostgreSQL stores nothing else than JSON there
@pytest.mark.parametrize("value", ["'not JSON'", "'[1'", "x'00ff'", f"'{NESTED}'"])
def test_what_cannot_be_read_is_found(five: list[Event], value: str) -> None:
    meddle(f"update event set changes = {value} where id = {five[2].id}")
    assert broken().id == five[2].id
    meddle(f"update event set at = 'noon' where id = {five[1].id}")
    assert (broken().id, broken().at) == (five[1].id, None)


UNREAD = {
    "a time after the year 9999": f"at = {2**63 - 1}",
    "a time before the year 1": f"at = {-(2**63)}",
    "no number at all": "at = 9e999",
    "a text that is not UTF-8": "action = cast(x'ff' as text)",
    "bytes": "actor_name = x'ff'",
    "arrays in arrays": f"changes = '{NESTED}'",
    "what is as deep as can be read": f"""changes = '{"[" * 900}{"]" * 900}'""",
    "a number of many digits": f"changes = '{'1' * 5000}'",
    "a hash that is none": "hash = x'ff'",
}


@pytest.mark.sqlite  # PostgreSQL stores nothing else than what a column is for
@pytest.mark.parametrize("change", UNREAD.values(), ids=UNREAD)
def test_whatever_a_row_holds_it_is_named(run: Run, five: list[Event], change: str) -> None:
    meddle(f"update event set {change} where id = {five[2].id}")
    found = broken()
    assert found.id == five[2].id
    assert found.at == (None if change.startswith("at") else five[2].at)
    assert found.action == (None if change.startswith("action") else "key.edited")
    assert run("verify-activity").error.startswith(f"event {five[2].id} (")


def test_a_time_that_cannot_be_shown_is_found_though_its_hash_is_right(five: list[Event]) -> None:
    five[4].__data__["at"] = 2**63 - 1
    forged = forge(five[4])
    meddle(f"update chain set end_id = {five[4].id + 1}, end_hash = '{forged}'")
    assert (broken().id, broken().at) == (five[4].id + 1, None)


@pytest.mark.parametrize(
    "action", ["x\nlatchkey: all is whole", "\x1b[2Jkey.edited", "is whole: 5"]
)
def test_an_action_that_is_none_is_not_shown(run: Run, five: list[Event], action: str) -> None:
    Event.update(action=action).where(Event.id == five[2].id).execute()
    assert broken().action is None
    when = console_clock.iso(five[2].at)
    assert run("verify-activity").error == (
        f"event {five[2].id} ({when}) is not as it was recorded: "
        "it was changed, or put in another's place"
    )


@pytest.mark.sqlite  # PostgreSQL stores nothing else than numbers and texts there
@pytest.mark.parametrize(
    "change",
    ["end_id = 'x'", "start_id = 'x'", "end_id = 9e999", "end_id = 1e300", "start_id = -1",
     "end_id = -1", "start_hash = x'ff'", "end_hash = cast(x'ff' as text)"],
)  # fmt: skip
def test_ends_of_the_chain_that_are_none_are_found(
    run: Run, five: list[Event], change: str
) -> None:
    meddle(f"update chain set {change}")
    assert "begins and ends is not as it was recorded" in broken().why
    assert run("verify-activity").code == 1


@pytest.mark.usefixtures("app")
def test_what_databases_give_back_otherwise_is_whole() -> None:
    numbers = [1e22, -0.0, 1.0, 0.1, 1e-7, 10**23, 10**400, 2**53 + 1, 123456789.125, True]
    texts = ["\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\x7f", "/", "é"]
    record(1, changes={"metadata": ({"a": numbers}, {"b": texts, "": None, "é": [], "e": {}})})
    assert chain.verify().broken is None


@pytest.mark.usefixtures("app")
def test_ids_go_on_where_they_were_and_are_never_given_again(five: list[Event]) -> None:
    audit_everything_away(five)
    record(6)
    assert Event.get().id == five[4].id + 1
    assert chain.verify().broken is None


def audit_everything_away(events: list[Event]) -> None:
    assert chain.prune(events[-1].at + 1, 100) == len(events)


def test_events_from_before_there_was_a_chain_are_told_apart(app: Flask) -> None:
    row = dict.fromkeys(chain.NAMES, "x") | {"at": 1, "changes": {}}
    Event.insert_many([row | {"id": number} for number in (1, 2)]).execute()
    meddle("delete from chain")
    chain.begin()
    record(3)
    found = chain.verify()
    assert (found.broken, found.count, found.older) == (None, 1, 2)


UNREAL = dict.fromkeys(chain.NAMES, "x") | {"at": 1, "changes": {}}


@pytest.mark.parametrize("number", [0, -7])
@pytest.mark.parametrize("start", ["began", "pruned", "upgraded"])
def test_an_event_before_the_beginning_is_found(
    app: Flask, five: list[Event], number: int, start: str
) -> None:
    if start == "pruned":
        assert chain.prune(five[4].at + 1, 2) == 2
    if start == "upgraded":
        meddle("delete from chain")
        meddle("update event set hash = null")
        chain.begin()
    assert chain.verify().broken is None
    Event.insert(**UNREAL | {"id": number}).execute()
    assert (broken().id, broken().why) == (number, STRAY)


def test_an_event_in_the_place_of_one_that_retention_removed_is_found(five: list[Event]) -> None:
    assert chain.prune(five[4].at + 1, 3) == 3
    Event.insert(**UNREAL | {"id": five[1].id}).execute()
    assert (broken().id, broken().why) == (five[1].id, STRAY)


def test_an_event_with_a_hash_is_none_from_before_there_was_a_chain(five: list[Event]) -> None:
    meddle("delete from chain")
    chain.begin()
    assert (broken().id, broken().why) == (five[0].id, STRAY)


# --- retention --------------------------------------------------------------------------------


def test_retention_moves_the_start(app: Flask, clock: Clock) -> None:
    record(1)
    record(2)
    noted = Event.select().order_by(Event.id.desc()).get()
    clock.move("365d")
    record(3)
    clock.move("1d")
    assert retention.prune_all()["events"] == 2
    row = Chain.get()
    assert (row.start_id, row.start_hash) == (noted.id, noted.hash)
    found = chain.verify()
    assert (found.broken, found.count) == (None, 1)
    assert chain.has(noted.id, noted.hash)
    assert chain.has(noted.id - 1, "x") is None


def test_retention_removes_no_event_from_the_middle(app: Flask, clock: Clock) -> None:
    """A clock that went wrong for a while leaves older events behind newer ones."""
    old = clock.now() - 400 * 86_400_000
    record(1, at=old)
    record(2)
    record(3, at=old)
    assert retention.prune_all()["events"] == 1
    assert [event.target_name for event in Event.select().order_by(Event.id)] == ["2", "3"]
    assert chain.verify().broken is None


def test_where_removing_fails_the_start_stays(
    five: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Chain.get().__data__

    def fails() -> None:
        raise OSError

    monkeypatch.setattr(Event, "delete", fails)
    with pytest.raises(OSError):
        chain.prune(five[4].at + 1, 3)
    assert Chain.get().__data__ == before


def test_verifying_goes_on_while_others_record_and_remove(
    five: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two looks of it somebody records, and retention takes what comes next."""
    monkeypatch.setattr(chain, "VERIFIED_TOGETHER", 2)
    looks: list[int] = []
    look = chain._rows_behind

    def with_others(event_id: int) -> Any:
        looks.append(event_id)
        if len(looks) == 2:
            chain.prune(five[4].at + 1, 4)
        if len(looks) < 5:
            record(10 + len(looks))
        return look(event_id)

    monkeypatch.setattr(chain, "_rows_behind", with_others)
    found = chain.verify()
    assert found.broken is None
    assert found.end_id == Event.select().order_by(Event.id.desc()).get().id
    assert len(looks) > 4


# --- one transaction --------------------------------------------------------------------------


def test_an_event_is_stored_with_its_change_or_not_at_all(app: Flask) -> None:
    with pytest.raises(Refused), db.write():
        record(1)
        assert not Event.select().exists()  # at the end
        raise Refused("no")
    assert not Event.select().exists()
    record(2)
    assert [event.target_name for event in Event.select()] == ["2"]


def test_of_a_part_that_was_undone_nothing_is_told(app: Flask) -> None:
    with db.write():
        record(1)
        with pytest.raises(Refused), db.write():
            record(2)
            raise Refused("no")
        record(3)
    assert [event.target_name for event in Event.select().order_by(Event.id)] == ["1", "3"]
    assert chain.verify().broken is None


def test_outside_a_transaction_nothing_comes_last() -> None:
    with pytest.raises(AssertionError):
        db.do_last(lambda things: None, 1)


def test_events_of_several_at_once_are_one_chain(
    app: Flask, make_key: MakeKey, project: Project, operator: Actor
) -> None:
    """Each locks its own rows first and in its own order: nobody waits for ever."""
    key_ids = [make_key(name=str(number))[0].id for number in range(4)]

    def change(number: int) -> None:
        for turn in range(6):
            keys.edit(key_ids[number % 4], {"description": f"{number} {turn}"}, by=operator)
            key_many.revoke(key_ids, by=operator)
            keys.restore(key_ids[turn % 4], by=operator)
            projects.edit(project.slug, {"name": f"{number} {turn}"}, by=operator)

    assert at_once(8, change) == [None] * 8
    found = chain.verify()
    assert found.broken is None and found.count == Event.select().count() > 100


def test_imported_keys_are_events_of_the_chain(
    app: Flask, project: Project, operator: Actor, make_key: MakeKey
) -> None:
    rows = [{"name": f"K{n}", "sha256": f"{n:064x}", "prefix": "sk_live_abcd"} for n in range(700)]
    projects.edit(project.slug, {"key_limit": 1000}, by=operator)
    key_import.import_keys({"keys": rows, "project": project.slug}, by=operator)
    found = chain.verify()
    assert found.broken is None and found.count == 702
    in_order = Event.select().where(Event.action == "key.imported").order_by(Event.id)
    assert [event.target_name for event in in_order] == [f"K{n}" for n in range(700)]


# --- the command line -------------------------------------------------------------------------


def test_the_command_says_what_is_whole(run: Run, five: list[Event]) -> None:
    head = f"{five[4].id}:{five[4].hash}"
    said = run("verify-activity").said
    assert said.startswith("5 events from ") and said.endswith(f"Newest: {head}\n")
    record(6)
    assert run("verify-activity", "--expect", head).said


def test_the_command_names_the_first_broken_event(run: Run, five: list[Event]) -> None:
    meddle(f"update event set actor_name = 'x' where id >= {five[1].id}")
    when = console_clock.iso(five[1].at)
    error = run("verify-activity").error
    assert error.startswith(f"event {five[1].id} ({when}, key.edited) is not as it was recorded: ")


def test_the_command_misses_what_was_noted(run: Run, five: list[Event]) -> None:
    for gone in (f"{five[1].id}:{'0' * 64}", f"999:{five[4].hash}"):
        assert "not the one that was noted" in run("verify-activity", "--expect", gone).error
    for nonsense in ("5", "x:y", ":", "-1:aa", f"{'9' * 30}:aa"):
        assert run("verify-activity", "--expect", nonsense).code == 2
    chain.prune(five[1].at + 1, 2)
    past = f"{five[0].id}:{five[0].hash}"
    assert "past its time" in run("verify-activity", "--expect", past).error


def test_the_command_says_when_there_is_nothing(run: Run) -> None:
    assert run("verify-activity").said == "There are no events in the chain yet.\n"
