"""A backup or a restore that is killed at its first line, its second …: a process of its own, for
it forks. `python -m tests.faults.dying backup|restore DIRECTORY every|moves` prints, for each line
at which it died, what was there afterwards.

DIRECTORY holds `template`, a data directory that a killed server left, and `saved.db`.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from peewee import sqlite3

import config as settings
from console import backup, db, in_use

SECRET_KEY = "k" * 40
# What moves files about; the rest reads.
MOVES = {"_restore", "_set_aside", "_settle", "_keep", "_put", "_give_to_owner", "_draft", "_sync"}


def dies_at(number: int, every: bool, work: Callable[[], Any]) -> str | None:
    """Does the work in a child that is killed at the so manieth of its lines; which one that was,
    and None where it was done before."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        sys.settrace(_killer(number, every, writer))
        work()
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as read:
        line = read.read()
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return line if os.WIFSIGNALED(status) else None


def _killer(number: int, every: bool, writer: int) -> Any:
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename != backup.__file__ or not (every or code.co_name in MOVES):
            return None
        place = (code.co_name, frame.f_lineno)
        if event in ("line", "return") and place not in seen:
            seen.add(place)
            if len(seen) > number:
                os.write(writer, f"{code.co_name}:{frame.f_lineno}".encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def projects(file: Path) -> list[str]:
    """What is in a database, as a server that starts next would find it."""
    database = sqlite3.connect(file)
    try:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [slug for (slug,) in database.execute("select slug from project order by slug")]
    finally:
        database.close()


def run(what: str, directory: Path, every: bool) -> None:
    data, saved, target = directory / "data", directory / "saved.db", directory / "new.db"
    config = settings.load({"LATCHKEY_DATA_DIR": str(data), "LATCHKEY_SECRET_KEY": SECRET_KEY})
    work = {
        "backup": lambda: backup.make(config, target),
        "restore": lambda: backup.restore(config, saved),
    }[what]
    number, line = 0, ""
    while line is not None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(directory / "template", data)
        shutil.copy(saved, target)
        line = dies_at(number, every, work)
        found: dict[str, Any] = {"line": line}
        if what == "backup":
            backup.verify(target)
            found["file"] = projects(target)
        else:
            kept = data / "latchkey.db.before-restore"
            found["database"] = projects(data / "latchkey.db")
            found["kept"] = projects(kept) if kept.exists() else None
        work()  # again, with whatever was left
        db.close()
        in_use.let_go()
        found["again"] = projects(target if what == "backup" else data / "latchkey.db")
        left = [*directory.glob(".new.db.*"), *data.glob("*.partial"), *data.glob(".*.partial")]
        found["left"] = len(left)
        for path in left:
            path.unlink()
        print(json.dumps(found), flush=True)
        number += 1


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "every")
