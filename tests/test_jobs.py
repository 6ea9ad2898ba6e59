"""Jobs: one process at a time, whatever the clock does; and the thread that does them."""

import threading
from collections.abc import Iterator

import pytest
from flask import Flask

from console import audit, db, jobs, retention
from console import clock as time
from console.jobs import Lost, Task, Turn
from console.models import Job
from console.worker import Worker
from tests.conftest import Clock, MakeKey, at_once

done: list[str] = []


def work(turn: Turn) -> Iterator[None]:
    for step in range(3):
        with turn.write():
            done.append(f"{turn.name} {step}")
            turn.add(1)
        yield


def fail(turn: Turn) -> Iterator[None]:
    with turn.write():
        turn.add(1)
    yield
    raise ValueError("the disk is full")


TASK = Task("count", "Counts", time.MINUTE, work)
FAILING = Task("fail", "Fails", time.HOUR, fail)


@pytest.fixture(autouse=True)
def nothing_done(app: Flask, clock: Clock) -> None:
    done.clear()


def row(name: str = TASK.name) -> Job:
    return Job.get_by_id(name)


# --- turns ----------------------------------------------------------------------------------------


def test_a_job_is_done_again_when_its_time_has_come_and_not_before(clock: Clock) -> None:
    def claim() -> bool:
        turn, _ = jobs.claim(TASK)
        if turn:
            jobs.finish(TASK)
        return turn is not None

    assert (claim(), claim()) == (True, False)
    clock.move_ms(TASK.every - 1)
    assert not claim()
    clock.move_ms(1)
    assert (claim(), claim()) == (True, False)


def test_of_several_processes_one_has_the_turn() -> None:
    turns = at_once(8, lambda number: jobs.claim(TASK, holder=f"process {number}")[0])
    assert len([turn for turn in turns if turn is not None]) == 1


def test_a_process_that_died_is_followed_by_another_after_its_lease(clock: Clock) -> None:
    assert jobs.claim(TASK, holder="dead")[0]
    clock.move_ms(jobs.LEASE - 1)
    assert jobs.claim(TASK, holder="other")[0] is None
    clock.move_ms(1)
    assert jobs.claim(TASK, holder="other")[0]


def test_who_was_taken_for_dead_changes_nothing_any_more(clock: Clock) -> None:
    """Also when only its clock, or the other's, was set two days forward."""
    slow, _ = jobs.claim(TASK, holder="slow")
    assert slow
    steps = work(slow)
    next(steps)
    clock.move("2d")
    quick, _ = jobs.claim(TASK, holder="quick")
    assert quick
    with pytest.raises(Lost):
        next(steps)
    jobs.finish(TASK, holder="slow")
    assert row().holder == "quick"
    for _ in work(quick):
        pass
    assert done == ["count 0", "count 0", "count 1", "count 2"]


def test_a_lost_turn_takes_back_what_its_step_did(clock: Clock) -> None:
    slow, _ = jobs.claim(TASK, holder="slow")
    assert slow
    clock.move_ms(jobs.LEASE)
    jobs.claim(TASK, holder="quick")
    with pytest.raises(Lost), db.write():
        Job.insert(name="by the slow one").execute()
        with slow.write():
            pass
    assert Job.get_or_none(Job.name == "by the slow one") is None


@pytest.mark.parametrize("jump", [2 * time.DAY, time.HOUR])
def test_a_clock_that_is_set_back_stops_no_job(clock: Clock, jump: int) -> None:
    clock.move_ms(jump)
    assert jobs.claim(TASK, holder="dead")[0]  # its lease lies in the future from now on
    clock.move_ms(-jump)
    assert jobs.claim(TASK, holder="other")[0]
    jobs.finish(TASK, holder="other")
    clock.move_ms(-jump)
    assert jobs.claim(TASK, holder="other")[0]


def test_each_step_renews_the_lease_and_says_how_much_is_done(clock: Clock) -> None:
    turn, _ = jobs.claim(TASK)
    assert turn
    for number, _ in enumerate(work(turn), start=1):
        clock.move_ms(jobs.LEASE - 1)
        assert jobs.claim(TASK, holder="other")[0] is None
        assert row().done == number
    jobs.finish(TASK)
    assert (row().holder, row().error) == (None, None)


def test_a_run_that_failed_says_why_and_is_tried_again_soon(clock: Clock) -> None:
    with pytest.raises(ValueError, match="disk"):
        jobs.run_now(FAILING)
    assert row("fail").error == "the disk is full"
    assert row("fail").failed_at == clock.instant
    assert jobs.claim(FAILING)[0] is None
    clock.move_ms(jobs.AGAIN_AFTER)
    turn, _ = jobs.claim(FAILING)
    assert turn
    jobs.finish(FAILING)
    assert row("fail").error is None


def test_where_the_next_run_begins_is_remembered(clock: Clock) -> None:
    turn, _ = jobs.claim(TASK)
    assert turn
    assert turn.is_first
    with turn.write():
        turn.advance(17)
    jobs.finish(TASK)
    jobs.run_now(TASK)
    clock.move_ms(TASK.every)
    again, _ = jobs.claim(TASK)
    assert again
    assert (again.position, again.is_first) == (17, False)


# --- the thread -----------------------------------------------------------------------------------


def test_the_worker_does_one_step_at_a_time_and_what_fails_stops_no_other() -> None:
    worker = Worker(tasks=(FAILING, TASK))
    for _ in range(8):
        worker.step()
    assert done == ["count 0", "count 1", "count 2"]
    assert row("fail").error == "the disk is full"
    assert row().error is None
    assert worker.step() is False


def test_jobs_take_turns_so_that_a_long_one_holds_up_no_other() -> None:
    other = Task("other", "", time.MINUTE, work)
    worker = Worker(tasks=(TASK, other))
    for _ in range(4):
        worker.step()
    assert done == ["count 0", "other 0", "count 1", "other 1"]


def test_what_failed_is_asked_for_again_within_a_minute(clock: Clock) -> None:
    worker = Worker(tasks=(FAILING,))
    while worker.step():
        pass
    clock.move_ms(jobs.AGAIN_AFTER - 1)
    assert worker.step() is False
    clock.move_ms(1)
    assert worker.step() is True


def test_the_worker_sees_a_clock_that_was_set_back(clock: Clock) -> None:
    worker = Worker(tasks=(TASK,))
    while worker.step():
        pass
    clock.move("2d")
    worker._mind_the_clock()
    while worker.step():
        pass
    clock.move_ms(-2 * time.DAY)
    worker._mind_the_clock()
    while worker.step():
        pass
    assert len(done) == 9


def test_a_worker_that_stops_leaves_its_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(turn: Turn) -> Iterator[None]:
        while True:
            begun.set()
            yield

    worker = Worker(tasks=(Task("endless", "", time.MINUTE, endless),))
    worker.start()
    assert begun.wait(10)
    worker.stop()
    assert (row("endless").holder, row("endless").finished_at) == (None, None)


# --- retention ------------------------------------------------------------------------------------


def test_retention_deletes_in_small_batches_and_says_how_much(
    make_key: MakeKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(5):
        audit.Entry.insert(
            at=clock.instant + number, project_id="p", key_id="k", secret="current", method="GET",
            endpoint="/", status=200, code="VALID", user_agent="", request_id="r", permissions=[],
        ).execute()  # fmt: skip
    clock.move("91d")
    turn, _ = jobs.claim(retention.TASK)
    assert turn
    assert [count for count in retention.run(turn) if count] == [2, 2, 1]
    assert row("retention").done == 5
    assert audit.Entry.select().count() == 0
