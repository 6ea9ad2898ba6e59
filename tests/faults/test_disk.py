"""The disk is full, or may not be written: nothing is answered that is not stored, what can be read
is, the log and the one line on stderr say why, and all is well once the fault is gone."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from console.db import CHANGES_SUFFIX
from console.server import THREADS
from tests.conftest import cannot_run
from tests.faults.conftest import IS_LONG
from tests.faults.owner import Owner
from tests.server import ROOT, RunningServer
from tests.test_promises import Client

pytestmark = [
    pytest.mark.service,
    pytest.mark.sqlite,
]

# Of what the journal holds when it is full, 16 MB, the database makes more than 20 MB could take.
DISK_BYTES = (96 if IS_LONG else 20) * 1024 * 1024
WAIT_SECONDS = 30
FULL_SECONDS, AGAIN_SECONDS, REFUSED_SECONDS = 1, 5, 5  # held only in the long form


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
        capture_output=True,
    )
    if mounted.returncode:
        cannot_run("only root may mount a disk, and not in every container")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Takes all that is left."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


def soon(holds: Callable[[], bool], limit: float) -> None:
    """Waits until it holds; in the long form no longer than the limit."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WAIT_SECONDS
        time.sleep(0.1)
    if IS_LONG:
        assert time.monotonic() - began <= limit


def reads(owner: Owner) -> None:
    assert owner.page("/projects/shop/keys").status_code == 200
    assert owner.page("/activity").status_code == 200
    assert owner.api("GET", "/api-keys?project=shop").status_code == 200


def refuses_changes(owner: Owner) -> None:
    """Each kind of change is 503, says when to come back, and changes nothing."""
    before = owner.api("GET", "/api-keys?project=shop").json()
    for change in (
        owner.create,
        lambda: owner.api("PATCH", "/projects/shop", {"name": "New"}),
        lambda: owner.post("/projects/shop/settings/general", name="New"),
    ):
        began = time.monotonic()
        answer = change()
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"]
        if IS_LONG:
            assert time.monotonic() - began < FULL_SECONDS
    assert owner.readyz().status_code == 503
    assert owner.api("GET", "/api-keys?project=shop").json() == before


def test_while_the_disk_is_full_nothing_is_lost_and_reads_go_on(disk: Path) -> None:
    server = RunningServer(disk / "data")
    server.log_path = disk.with_name("log")
    with server:
        owner = Owner(server)
        secret = owner.secret
        with Client(server) as client:
            answered = [client.check(secret)[2]]  # the journal has a file, with room in it
            filler = fill(disk)
            soon(lambda: owner.create().status_code == 503, WAIT_SECONDS)
            refuses_changes(owner)
            reads(owner)
            status, _, request_id = client.check(secret)
            assert status == 200
            answered.append(request_id)
            if IS_LONG:
                while True:
                    status, code, request_id = client.check(secret)
                    if status != 200:
                        break
                    answered.append(request_id)
                assert (status, code) == (403, "UNAVAILABLE")  # a 503, as nginx can take it
            filler.unlink()
            soon(owner.can_create, AGAIN_SECONDS)
            soon(lambda: owner.readyz().status_code == 200, AGAIN_SECONDS)
            soon(lambda: client.check(secret)[0] == 200, AGAIN_SECONDS)
        soon(lambda: set(answered) <= entries(owner), AGAIN_SECONDS)
        assert "database or disk is full" in server.log


def entries(owner: Owner) -> set[str]:
    """The requests in the log."""
    file = owner.api("GET", "/audit-log?project=shop&format=jsonl")
    return {line.split('"request_id":"')[1].split('"')[0] for line in file.text.splitlines()}


def test_a_start_on_a_full_disk_is_refused_in_words(disk: Path) -> None:
    """And not by the kernel, which ends a process that uses memory for which no disk has room."""
    data = disk / "data"
    environ = RunningServer(data).environ
    migrated = run(environ, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    (data / f"latchkey.db{CHANGES_SUFFIX}").unlink()
    fill(disk)
    refused = run(environ, "create-project", "--slug", "shop")
    assert refused.returncode in (1, 2)
    assert len(refused.stderr.splitlines()) == 1 and "is full: make room" in refused.stderr


def run(environ: dict[str, str], *arguments: str, by: tuple[str, ...] = ()) -> Any:
    return subprocess.run(
        [*by, sys.executable, "-m", "console", *arguments],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# --- a directory that may not be written ------------------------------------------------------

NOBODY = 65534


def as_nobody() -> tuple[str, ...]:
    """What runs a program as somebody who may read everything, wherever Python is, and write what
    is theirs."""
    if os.getuid() != 0:
        return ()
    reads_all = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    ids = f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"
    command = ("setpriv", *ids, *reads_all)
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        cannot_run("this container lets nobody keep a right")
    return command


def give_to(path: Path, user: int, mode: int) -> None:
    os.chmod(path, mode)
    if os.getuid() == 0:
        os.chown(path, user, user)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of nobody's, with a database in it, that they can reach."""
    ours = [one for one in tmp_path.parents if one.is_relative_to(tempfile.gettempdir())][:-1]
    for parent in (tmp_path, *ours):
        parent.chmod(0o755)
    data = tmp_path / "data"
    data.mkdir()
    give_to(data, NOBODY, 0o700)
    migrated = run(RunningServer(data).environ, "migrate", by=as_nobody())
    assert migrated.returncode == 0, migrated.stderr
    return data


@pytest.mark.parametrize("fault", ["read-only", "somebody else's", "files only"])
def test_a_directory_that_may_not_be_written_stops_the_start_in_one_line(
    data: Path, fault: str
) -> None:
    user = 0 if fault == "somebody else's" else NOBODY
    if user == 0 and os.getuid() != 0:
        cannot_run("only root gives files away")
    for path in data.iterdir():
        give_to(path, user, 0o500 if path.is_dir() else 0o400)
    give_to(data, user, 0o700 if fault == "files only" else 0o555)
    began = time.monotonic()
    refused = run(RunningServer(data).environ, "serve", by=as_nobody())
    took = time.monotonic() - began
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert str(data) in refused.stderr and str(os.getuid() or NOBODY) in refused.stderr
    if IS_LONG:
        assert took < REFUSED_SECONDS


def test_commands_of_another_user_name_the_directory_that_is_closed_to_them(
    tmp_path: Path, data: Path
) -> None:
    """Without the right to read everything, which only spares Python's own files."""
    if os.getuid() != 0:
        cannot_run("only root gives files away")
    give_to(data, 0, 0o700)
    environ = RunningServer(data).environ
    by = tuple(part for part in as_nobody() if "caps" not in part)
    if run(environ, "--help", by=by).returncode:
        cannot_run("Python lies where nobody may read")
    ran = run(environ, "doctor", by=by)
    assert (ran.returncode, ran.stderr) == (1, "")
    [line] = [line for line in ran.stdout.splitlines() if str(data) in line]
    assert line.startswith(f"{data} belongs to user 0, and this is user {NOBODY}: run server")
    ran = run(environ, "backup", str(tmp_path / "saved.db"), by=by)
    [line] = ran.stderr.splitlines()
    assert f"the database {data}/latchkey.db cannot be read: Permission denied" in line
    assert "saved.db" not in line


def in_every_thread(call: Callable[[], requests.Response]) -> list[requests.Response]:
    """So many at once that no thread of the server's is left out."""
    with ThreadPoolExecutor(2 * THREADS) as pool:
        return list(pool.map(lambda _: call(), range(4 * THREADS)))


class NobodysServer(RunningServer):
    def __init__(self, data_dir: Path, **environ: str) -> None:
        super().__init__(data_dir, **environ)
        self.command = (*as_nobody(), *self.command)


def test_a_directory_that_is_taken_away_is_told_and_given_back_is_used(data: Path) -> None:
    """While it may not be written, readiness and changes say so alike, in every thread."""
    with NobodysServer(data, LATCHKEY_KEY_LIMIT="1000") as server:
        owner = Owner(server)
        before = [(path, path.stat().st_mode & 0o777) for path in (data, *data.rglob("*"))]
        for path, mode in before:
            path.chmod(mode & 0o555)
        # A thread that has the files open goes on; those that have to open them cannot.
        answers = in_every_thread(owner.create)
        print(answers, [one.text for one in answers if one.status_code != 201][:1])
        assert {one.status_code for one in answers} == {201, 503}
        assert 503 in {one.status_code for one in in_every_thread(owner.readyz)}
        for path, mode in before:
            path.chmod(mode)
        soon(
            lambda: {one.status_code for one in in_every_thread(owner.create)} == {201},
            AGAIN_SECONDS,
        )
        assert owner.readyz().status_code == 200
