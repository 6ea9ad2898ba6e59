"""The journal: what was appended is stored exactly once, whatever dies in between."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest
from flask import Flask

from console import db, journal
from console.journal import DIRECTORY, END, START, SUFFIX, Journal, JournalFull
from console.models import Drained
from tests.conftest import at_once

MakeJournal = Callable[..., Journal]


class Stored(list[Any]):
    """What was stored, in its order; fails as often as it is told to."""

    failures = 0
    batches = 0

    def __call__(self, records: str) -> None:
        if self.failures:
            self.failures -= 1
            raise peewee.OperationalError("disk full")
        self.batches += 1
        self.extend(json.loads(records))


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def make(app: Flask, tmp_path: Path, stored: Stored) -> Iterator[MakeJournal]:
    made: list[Journal] = []

    def build(**settings: Any) -> Journal:
        made.append(Journal(tmp_path, stored, **{"in_background": False, **settings}))
        return made[-1]

    yield build
    for one in made:
        one._stopped.set()


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / DIRECTORY).glob(f"*{SUFFIX}"))


def kill(one: Journal) -> None:
    """As if its process were killed: the kernel lets go of its files."""
    for file in one._files:
        os.close(file.descriptor)
    one._start_empty()


def test_what_is_appended_is_stored_in_its_order(make: MakeJournal, stored: Stored) -> None:
    one = make()
    for number in range(5):
        one.append(b"[%d]" % number)
    assert stored == []
    one.settle()
    one.settle()
    assert (stored, stored.batches) == ([[0], [1], [2], [3], [4]], 1)


def test_a_killed_process_loses_nothing_and_repeats_nothing(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    one = make()
    one.append(b"[1]")
    one.settle()
    one.append(b"[2]")
    kill(one)
    other = make()
    other.recover()
    other.recover()
    assert stored == [[1], [2]]
    assert files(tmp_path) == [] and Drained.select().count() == 0


def test_a_batch_that_fails_is_stored_later(make: MakeJournal, stored: Stored) -> None:
    one = make()
    one.append(b"[1]")
    stored.failures = 1
    with pytest.raises(peewee.OperationalError):
        one.settle()
    one.append(b"[2]")
    one.settle()
    assert stored == [[1], [2]]


def test_the_position_moves_with_what_is_stored(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the position cannot be written, what was stored is taken back with it."""
    one = make()
    one.append(b"[1]")
    before = Drained.select().count()

    def broken(*args: Any, **fields: Any) -> Any:
        raise peewee.OperationalError("disk full")

    with monkeypatch.context() as context:
        context.setattr(Drained, "insert", broken)
        with pytest.raises(peewee.OperationalError):
            one.settle()
    assert Drained.select().count() == before
    one.settle()
    assert stored == [[1], [1]]  # given twice to a store whose first transaction was undone
    assert Drained.select().count() == before + 1


def test_a_file_that_another_process_writes_is_left_alone(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    one = make()
    one.append(b"[1]")
    make().recover()
    assert stored == [] and len(files(tmp_path)) == 1
    one.settle()
    assert stored == [[1]]


def test_of_several_that_recover_at_once_one_does(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    one = make()
    for number in range(100):
        one.append(b"[%d]" % number)
    kill(one)
    at_once(4, lambda _: make().recover())
    assert sorted(stored) == [[number] for number in range(100)]


@pytest.mark.parametrize("torn", [
    START + b'["half', START + b'["half' + START + b"[8]" + END, b'half"]' + END,
    START + b"\0\0\0" + END, START + END,
])  # fmt: skip
def test_a_torn_record_spoils_no_other(
    make: MakeJournal, stored: Stored, tmp_path: Path, torn: bytes
) -> None:
    one = make()
    one.append(b"[1]")
    one._files[-1].write(torn)
    one.append(b"[9]")
    kill(one)
    make().recover()
    assert [record for record in stored if record != [8]] == [[1], [9]]


@pytest.mark.parametrize("content", [
    b"", b"junk", bytes(3_000_000), START + b'"no array"' + END, START + b"[" + END,
    b"\xff" * 1_000,
])  # fmt: skip
def test_a_damaged_file_stops_no_start_and_hides_no_other(
    make: MakeJournal, stored: Stored, tmp_path: Path, content: bytes
) -> None:
    make()
    (tmp_path / DIRECTORY / f"0{SUFFIX}").write_bytes(content)
    (tmp_path / DIRECTORY / f"1{SUFFIX}").write_bytes(content + START + b"[7]" + END)
    (tmp_path / DIRECTORY / f"directory{SUFFIX}").mkdir()
    make().recover()
    assert [record for record in stored if record] == [[7]]


def test_a_record_that_the_database_refuses_is_left_out_alone(
    make: MakeJournal, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    one = make()
    for number in range(4):
        one.append(b"[%d]" % number)
    kill(one)

    def store(records: str) -> None:
        if "[2]" in records:
            raise peewee.IntegrityError("NOT NULL constraint failed")
        stored(records)

    other = make()
    other._store = store
    other.recover()
    assert stored == [[0], [1], [3]]
    assert "a record was left out: NOT NULL" in caplog.text


def test_what_was_begun_and_never_finished_is_removed(make: MakeJournal, tmp_path: Path) -> None:
    one = make()
    drafts = [tmp_path / DIRECTORY / name for name in ("old", "new")]
    for draft in drafts:
        draft.write_bytes(b"x")
    os.utime(drafts[0], (0, 0))
    one.recover()
    assert [draft.exists() for draft in drafts] == [False, True]


def test_a_directory_that_was_removed_is_made_again(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    one = make()
    (tmp_path / DIRECTORY).rmdir()
    one.append(b"[1]")
    one.settle()
    assert stored == [[1]]


def test_a_full_file_makes_way_for_the_next_and_goes_when_it_is_stored(
    make: MakeJournal, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FILE_BYTES", 64)
    monkeypatch.setattr(journal, "ZEROS", bytes(64))
    one = make()
    for number in range(20):
        one.append(b'["%d some text"]' % number)
    assert len(files(tmp_path)) > 4
    one.settle()
    assert [record[0] for record in stored] == [f"{number} some text" for number in range(20)]
    assert len(files(tmp_path)) == 1
    assert Drained.select().count() == 1


def test_more_than_the_database_takes_for_long_is_refused(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FILE_BYTES", 64)
    monkeypatch.setattr(journal, "ZEROS", bytes(64))
    monkeypatch.setattr(journal, "FILES_MAX", 3)
    one = make()
    taken = 0
    with pytest.raises(JournalFull):
        for _ in range(100):
            one.append(b'["some text"]')
            taken += 1
    one.settle()
    assert len(stored) == taken
    one.append(b"[1]")
    one.settle()
    assert stored[-1] == [1]


def test_a_disk_without_room_is_an_error_before_anything_is_taken(
    make: MakeJournal, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(OSError, match="no room"):
        one.append(b"[1]")
    assert list((tmp_path / DIRECTORY).iterdir()) == []
    monkeypatch.undo()
    one.append(b"[2]")
    one.settle()
    assert stored == [[2]]


def test_nothing_is_stored_inside_a_transaction_that_may_be_undone(
    make: MakeJournal, stored: Stored
) -> None:
    one = make()
    one.append(b"[1]")
    with db.write():
        one.settle()
        assert stored == []
    one.settle()
    assert stored == [[1]]


def test_many_threads_append_without_loss(make: MakeJournal, stored: Stored) -> None:
    one = make()

    def append(thread: int) -> None:
        for number in range(100):
            one.append(b"[%d, %d]" % (thread, number))

    at_once(16, append)
    one.settle()
    assert len(stored) == 1600
    for thread in range(16):
        assert [n for t, n in stored if t == thread] == list(range(100))


def test_sync_waits_until_the_disk_has_what_was_appended(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(synced=True)
    synced_at: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced_at.append(one._appended))
    for _ in range(3):
        one.append(b"[1]")
        assert one.is_behind()
        one.sync()
        one.sync()
        assert not one.is_behind()
    assert synced_at == [1, 2, 3]


def test_a_journal_that_is_not_synced_waits_for_nothing(
    make: MakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fdatasync")
    one = make()
    one.append(b"[1]")
    assert not one.is_behind()
    one.sync()


def test_who_waits_while_another_syncs_is_synced_with_the_next(
    make: MakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(synced=True)
    synced_to: list[int] = []

    def slow(descriptor: int) -> None:
        synced_to.append(one._appended)
        while one._appended < 16 and len(synced_to) == 1:
            pass  # the others arrive meanwhile

    monkeypatch.setattr(os, "fdatasync", slow)
    at_once(16, lambda number: (one.append(b"[%d]" % number), one.sync()))
    assert len(synced_to) <= 2 and synced_to[-1] == 16


def test_the_thread_stores_and_tidies_without_being_asked(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "DRAIN_SECONDS", 0.001)
    monkeypatch.setattr(journal, "TIDY_SECONDS", 0.001)
    tidied: list[int] = []
    one = make(in_background=True, tidy=lambda: tidied.append(len(stored)))
    stored.failures = 2
    one.append(b"[1]")
    for _ in range(2_000):
        if stored and tidied:
            break
        one._stopped.wait(0.005)
    one.close()
    assert stored == [[1]] and tidied


def test_close_stores_everything_and_leaves_no_file(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    one = make()
    one.append(b"[1]")
    one.close()
    assert stored == [[1]]
    assert list((tmp_path / DIRECTORY).iterdir()) == []


def test_a_file_is_locked_before_it_can_be_found(
    make: MakeJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another starter would take an empty file for one that was left behind."""
    seen: list[list[Path]] = []
    flock = fcntl.flock

    def watched(descriptor: int, how: int) -> None:
        seen.append(files(tmp_path))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", watched)
    make().append(b"[1]")
    assert seen == [[]]


def test_a_forked_child_appends_to_a_file_of_its_own(
    make: MakeJournal, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    one.append(b"[1]")
    monkeypatch.setattr(journal, "_journal", one)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            journal.append([2])
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    one.settle()
    assert stored == [[1]]
    make().recover()
    assert stored == [[1], [2]]


def test_who_only_shows_does_without_what_cannot_be_stored(app: Flask, tmp_path: Path) -> None:
    """And tries no more for a while, but as soon as it can be stored again."""
    asked: list[str] = []
    is_full = True

    def store(records: str) -> None:
        asked.append(records)
        if is_full:
            raise peewee.OperationalError("database or disk is full")

    kept = Journal(tmp_path, store, in_background=False)
    kept.append(b"[1]")
    kept.settle_to_show()
    kept.settle_to_show()
    assert len(asked) == 1
    with pytest.raises(peewee.OperationalError):
        kept.settle()
    is_full = False
    kept.settle()
    kept.append(b"[2]")
    kept.settle_to_show()
    assert asked[1:] == ["[[1]]", "[[1]]", "[[2]]"]
    kept.close()


def test_who_fails_to_store_what_was_left_behind_leaves_it_to_the_next(
    make: MakeJournal, stored: Stored, tmp_path: Path
) -> None:
    gone, one = make(), make()
    gone.append(b"[1]")
    kill(gone)
    stored.failures = 1
    with pytest.raises(peewee.OperationalError):
        one.recover()
    make().recover()
    assert stored == [[1]] and files(tmp_path) == []


def test_a_batch_of_which_the_commit_was_not_heard_of_is_not_stored_twice(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ended between the commit and its answer."""
    one, write = make(), db.write
    one.append(b"[1]")

    @contextmanager
    def unheard(**more: Any) -> Iterator[None]:
        with write(**more):
            yield
        raise peewee.OperationalError("the connection is lost")

    with monkeypatch.context() as patch:
        patch.setattr(db, "write", unheard)
        with pytest.raises(peewee.OperationalError):
            one.settle()
    one.append(b"[2]")
    one.settle()
    assert (stored, one.waiting()) == ([[1], [2]], 0)


def test_a_draft_that_gets_its_name_meanwhile_stops_nobody(
    make: MakeJournal, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, one = make(), make()
    gone.append(b"[1]")
    kill(gone)
    listed = [Path(gone._directory / "0"), *gone._directory.iterdir()]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    one.recover()
    assert stored == [[1]]
