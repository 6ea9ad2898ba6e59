"""Filling an installation with the demo: all or nothing, only what is empty, at any time."""

import re
from typing import Any

import pytest
from flask import Flask

from console import check, demo, limits, mail, people, projects
from console import clock as time_of_day
from console.actor import command_line
from console.errors import Conflict, Invalid, Unknown
from console.models import TABLES, Attempt, Change, Entry, Event, Key, Person, Project, Usage
from tests.conftest import PASSWORD, Clock, checked
from tests.mailbox import Mailbox

OF_KEYS = set(check.CODES) - {check.MISSING, check.MALFORMED, check.INVALID, check.UNAVAILABLE}
FEW = 0.005  # of the usual requests


def empty() -> None:
    for table in reversed(TABLES):
        if table is not Change:
            table.delete().execute()


@pytest.mark.parametrize("instant", ["2027-01-01T00:05:00Z", "2028-02-29T23:59:59Z"])
def test_at_any_time_it_holds_together(app: Flask, clock: Clock, instant: str) -> None:
    clock.instant = time_of_day.parse(instant)
    with Mailbox() as mailbox:  # the demo's people are nobody's
        mail.use(mailbox.url, "keys@shop.example")
        demo.fill(share=FEW)
        assert mailbox.mails == []
    assert {row.code for row in Entry.select(Entry.code).distinct()} == OF_KEYS
    assert max(row.at for row in Entry.select(Entry.at)) <= clock.instant
    assert max(row.at for row in Event.select(Event.at)) <= clock.instant


def test_afterwards_the_process_goes_on_as_before(app: Flask, clock: Clock) -> None:
    made = demo.fill(share=0)
    clock.move("1m")
    assert checked(check.Request(made.secret, "req_1", "10.20.4.11")).is_valid
    entry = Entry.select().order_by(Entry.id.desc()).first()
    assert (entry.at, entry.request_id) == (clock.instant, "req_1")
    assert Entry.select().count() == made.entries + 1


def test_the_same_seed_and_time_make_the_same(app: Flask, clock: Clock) -> None:
    def all_there_is() -> list[Any]:
        names = {key.id: key.name for key in Key.select()}
        entries = [
            (one.at, names.get(one.key_id), one.secret, one.method, one.endpoint, one.ip,
             one.country, one.status, one.code, one.user_agent, one.request_id)
            for one in Entry.select().order_by(Entry.id)
        ]  # fmt: skip
        events = [
            (one.at, one.action, one.actor_name, one.target_name)
            for one in Event.select().order_by(Event.id)
        ]
        return [*entries, *events]

    seen = []
    for seed in (1, 1, 2):
        empty()
        limits.use_store(limits.LocalStore())
        demo.fill(seed=seed, share=FEW)
        seen.append(all_there_is())
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("there", ["person", "project"])
def test_what_is_not_empty_is_not_filled(app: Flask, there: str) -> None:
    if there == "person":
        people.create_owner({"email": "ada@example.com", "password": PASSWORD}, by=command_line())
    else:
        projects.create({"slug": "shop"}, by=command_line())
    with pytest.raises(Conflict, match="LATCHKEY_DATA_DIR="):
        demo.fill(share=0)
    assert (Person.select().count(), Project.select().count()) in ((1, 0), (0, 1))


def test_a_demo_that_breaks_off_leaves_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    before = time_of_day.now
    with monkeypatch.context() as patch, pytest.raises(Invalid):
        patch.setattr(demo.story, "WEBHOOK", {"url": "nonsense"})  # made when most is there
        demo.fill(share=0)
    assert time_of_day.now is before
    assert not people.anybody_yet() and not projects.any_yet()
    assert not any(table.select().exists() for table in (Event, Entry, Usage, Attempt))
    demo.fill(share=0)


def test_only_a_demo_is_given_a_new_password(app: Flask) -> None:
    people.create_owner({"email": "ada@example.com", "password": PASSWORD}, by=command_line())
    assert not demo.is_there()
    with pytest.raises(Unknown):
        demo.renew_password()


def test_passwords_are_made_up_anew() -> None:
    made = {demo._new_password() for _ in range(50)}
    assert len(made) == 50 and all(re.fullmatch("[a-z2-9]{16}", one) for one in made)
