"""Whatever the database is called for by an operation, that call fails once, for each call in turn
(SQLite's anomaly tests). Afterwards all of the operation has happened or nothing; nothing leaks;
no check was answered that has no entry; and the same operation, done again, succeeds."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import peewee
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from console import clock, db, jobs, journal, known, links, worker
from console.models import TABLES, Entry, Event, Job, Key
from tests.conftest import bearer
from tests.faults.conftest import IS_LONG
from tests.faults.failing_calls import LEAKS, Calls, patched, state
from tests.test_events_complete import DEEDS, SHOP, Deed, World
from tests.test_passkeys import ORIGIN

# In the short form a fifth of the operations, and so many of their calls are passed over.
STEP = 1 if IS_LONG else 12
TRIED = DEEDS if IS_LONG else DEEDS[::5]
GENERATED = ("expires_order", "last_used_order")  # the database reckons them itself
# A challenge is used up by the first answer to it, whatever becomes of that.
USES_A_CHALLENGE = {"access.sign_in_with_passkey", "passkeys.finish_adding"}
CHALLENGE_GONE = {"Link": (0, 1)}
# Who has joined has, also where they cannot be signed in at once.
ENOUGH = {"access.join": ["person.joined"]}


class Saved:
    """All rows, and the cookies of both browsers, to return to."""

    def __init__(self, world: World) -> None:
        self.browsers: list[Any] = [world.browser, world.visitor]
        self.cookies = [dict(one._cookies) for one in self.browsers]
        journal.settle()
        self.rows = {table: self._rows(table) for table in TABLES}

    @staticmethod
    def _rows(table: Any) -> list[dict[str, Any]]:
        rows = list(table.select().dicts())
        for row in rows:
            for name in GENERATED:
                row.pop(name, None)
        return rows

    def restore(self) -> None:
        journal.settle()
        with db.write():
            for table in reversed(TABLES):
                table.delete().execute()
            for table, rows in self.rows.items():
                if rows:
                    table.insert_many(rows).execute()
        known._state = known._State(known._Memory(None, -1), b"", 0)
        for browser, cookies in zip(self.browsers, self.cookies, strict=True):
            browser._cookies = dict(cookies)


@pytest.fixture
def world(app: Flask) -> Iterator[World]:
    before = links.base_url()
    links.use_base_url(ORIGIN)
    yield World(app)
    links.use_base_url(before)


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = patched(monkeypatch)
    calls.watch(world.app)
    return calls


def events_since(first: int) -> list[str]:
    return sorted(event.action for event in Event.select().where(Event.id > first))


def newest() -> int:
    return int(Event.select(Event.id).order_by(Event.id.desc()).get().id)


def moved(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> dict[str, tuple[int, int]]:
    """How many rows came and went, by table."""
    return {
        name: (len({*after[name]} - {*before[name]}), len({*before[name]} - {*after[name]}))
        for name in before
        if before[name] != after[name]
    }


def what_is_wrong(answer: TestResponse, *, is_undone: bool, is_done: bool) -> str:
    """Empty where the answer to a request that met the fault is one that may be given."""
    if found := [one for one in LEAKS if one in answer.text]:
        return f"leaks {found}"
    if answer.status_code == 503:
        if not answer.headers.get("Retry-After"):
            return "does not say when to try again"
        return "" if is_undone or is_done else "left something half done"
    if answer.status_code < 400:
        return "" if is_done else "says that it was done, and it was not, or in part"
    return f"is {answer.status_code}: {answer.text[:300]}"


class Trial:
    """An operation, and what it comes to where nothing fails."""

    def __init__(self, world: World, calls: Calls, saved: Saved, deed: Deed) -> None:
        self.world, self.calls, self.saved, self.deed = world, calls, saved, deed
        saved.restore()
        self.first = newest()
        calls.begin()
        assert deed.do(world).status_code < 400
        self.last = calls.requests
        saved.restore()
        calls.begin(only=self.last)
        deed.do(world)
        self.count = calls.made
        self.told, self.change = events_since(self.first), moved(calls.before, state())

    def with_failing(self, n: int, *, rolls_back: bool) -> str:
        """What goes wrong where this call fails; mostly nothing."""
        self.saved.restore()
        self.calls.begin(failing=n, rolls_back=rolls_back, only=self.last)
        answer = self.deed.do(self.world)
        change, where = moved(self.calls.before, state()), self.calls.failed_at
        told = events_since(self.first)
        is_undone = not change or (
            self.deed.endpoint in USES_A_CHALLENGE and change == CHALLENGE_GONE
        )
        is_done = (change == self.change and told == self.told) or (
            told == ENOUGH.get(self.deed.endpoint)
        )
        wrong = what_is_wrong(answer, is_undone=is_undone, is_done=is_done)
        if not wrong and answer.status_code == 503:
            wrong = self._again(is_undone=is_undone)
        if wrong:
            how = "and rolls back " if rolls_back else ""
            where = f"call {n} of {self.count} fails {how}({where[:80]})"
            return f"{self.deed}: {where}: {wrong}; {change}"
        return ""

    def _again(self, *, is_undone: bool) -> str:
        """The same operation after a 503; what it did already may be refused, but in order."""
        if self.last > 1:  # what comes before it would be done twice
            self.saved.restore()
            is_undone = True
        self.calls.begin()
        answer = self.deed.do(self.world)
        if is_undone and (answer.status_code >= 400 or events_since(self.first) != self.told):
            return f"cannot be done again: {answer.status_code}, {events_since(self.first)}"
        return "" if answer.status_code < 500 else f"is {answer.status_code} when done again"


def test_an_operation_happens_wholly_or_not_at_all(world: World, calls: Calls) -> None:
    saved, wrong = Saved(world), []
    for number, deed in enumerate(TRIED):
        trial = Trial(world, calls, saved, deed)
        for n in range(1 + number % STEP, trial.count + 1, STEP):
            for rolls_back in (False, True) if IS_LONG else ((n + number) % 2 == 0,):
                wrong += filter(None, [trial.with_failing(n, rolls_back=rolls_back)])
    assert wrong == []


# --- checks -----------------------------------------------------------------------------------


def ask_proxy(world: World) -> TestResponse:
    headers = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/a", "X-Forwarded-For": "1.2.3.4"}
    return world.visitor.get(
        "/forward-auth/traefik", headers={**bearer(world.robot_secret), **headers}
    )


CHECKS: dict[str, Callable[[World], TestResponse]] = {
    "forward-auth": ask_proxy,
    "verify": lambda w: w.api("POST", "/verify", {"key": w.robot_secret}, as_key=True),
    "outcomes": lambda w: w.api("POST", "/audit-log/outcomes", {"outcomes": []}, as_key=True),
    "whoami": lambda w: w.api("GET", "/whoami", as_key=True),
    "rate limit": lambda w: w.api("GET", "/rate-limit", as_key=True),
    "a new key": lambda w: w.api("POST", "/api-keys", {"name": "New"}, as_key=True),
}


def test_no_check_passes_without_its_entry(world: World, calls: Calls) -> None:
    """Nor is one of a good key refused for a fault of ours, whichever call it is that fails."""
    for name in CHECKS:
        try_check(world, calls, name)


def try_check(world: World, calls: Calls, name: str) -> None:
    known._state = known._State(known._Memory(None, -1), b"", 0)
    calls.begin()
    expected = CHECKS[name](world).status_code
    assert expected < 500
    for n in range(1, calls.made + 5):
        known._state = known._State(known._Memory(None, -1), b"", 0)
        journal.settle()
        before = {entry.request_id for entry in Entry.select()}
        calls.begin(failing=n, rolls_back=n % 2 == 0)
        answer = CHECKS[name](world)
        assert answer.status_code in (expected, 503), (n, calls.failed_at, answer.text)
        assert not [one for one in LEAKS if one in answer.text]
        journal.settle()
        entries = {entry.request_id for entry in Entry.select()} - before
        if answer.status_code == 200:
            assert answer.headers["X-Request-Id"] in entries, (n, calls.failed_at)
        assert len(entries) <= (2 if name == "verify" else 1)


def test_entries_that_could_not_be_stored_are_stored_later_and_once(
    world: World, calls: Calls
) -> None:
    """Whichever call it is that fails while the journal is emptied."""
    n = 0
    while True:
        n += 1
        asked = [ask_proxy(world).headers["X-Request-Id"] for _ in range(3)]
        calls.begin(failing=n, rolls_back=n % 2 == 0)
        with calls.request(), suppress(peewee.OperationalError):
            journal.settle()
        failed = calls.failed_at
        journal.settle()
        stored = [entry.request_id for entry in Entry.select()]
        assert set(asked) <= set(stored), (n, failed)
        assert len(stored) == len(set(stored)), (n, failed)
        if not failed:
            break
    assert n > 8
    robot = Key.get_by_id(world.robot.id)
    assert robot.requests_total == Entry.select().where(Entry.key_id == robot.id).count()


# --- what is only read ------------------------------------------------------------------------

PAGES = (
    "/", f"{SHOP}/keys", f"{SHOP}/audit-log", SHOP, f"{SHOP}/activity", "/people",
    f"{SHOP}/webhooks", f"{SHOP}/settings", "/account", "/status", "/alerts", "/metrics",
)  # fmt: skip


def test_a_page_that_cannot_be_read_says_so(world: World, calls: Calls) -> None:
    for number, path in enumerate(PAGES):
        calls.begin()
        assert world.browser.get(path).status_code in (200, 303), path
        count = calls.made
        for n in range(1 + number % STEP, count + 1, 1 if IS_LONG else STEP // 2):
            before = state()
            calls.begin(failing=n)
            answer = world.browser.get(path)
            assert answer.status_code in (200, 303, 503), (path, n, calls.failed_at)
            assert not [one for one in LEAKS if one in answer.text], (path, n)
            assert state() == before
        assert world.browser.get(path).status_code in (200, 303)


# --- what is done in the background ------------------------------------------------------------


def test_a_job_that_failed_anywhere_is_made_up_for_by_its_next_run(
    world: World, calls: Calls
) -> None:
    """What it does it does once, and each step wholly or not at all."""
    ends_at = clock.now() + clock.DAY // 2
    Key.update(expires_at=ends_at).where(Key.id == world.key.id).execute()
    saved = Saved(world)

    def run(task: jobs.Task, failing: int = 0) -> dict[str, tuple[int, int]]:
        saved.restore()
        before = state()
        calls.begin(failing=failing, rolls_back=failing % 2 == 0)
        with calls.request(), suppress(peewee.OperationalError):
            jobs.run_now(task)
        if failing:
            Job.update(holder=None, leased_until=0).execute()  # as time does
            calls.begin()
            jobs.run_now(task)
        change = moved(before, state())
        change.pop("Job", None)
        return change

    for task in worker.TASKS:
        expected = run(task)
        made = calls.made
        for n in range(1, made + 1, 1 if IS_LONG else 5):
            assert run(task, failing=n) == expected, (task.name, n)
