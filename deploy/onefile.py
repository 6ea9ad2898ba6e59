"""What the one file runs: the command line, in a process that a first one unpacked and waits for.

The two end together, and a directory that was left unpacked goes at the next start.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

UNPACKED = "_MEI*"  # PyInstaller's name for the directory
OURS = "console/migrations"  # not another program's
PR_SET_PDEATHSIG = 1
# By then whoever unpacks has come to lock it.
LEFT_SECONDS = 600


def end_with_the_first() -> None:
    """`kill -9` of the process that was started must not leave this one serving."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def hold(directory: Path) -> bool:
    """Locks the directory for as long as this process lives; False where another one holds it.

    systemd-tmpfiles, too, leaves alone what is locked, however old it is.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def remove_left(beside: Path) -> None:
    """What an end by force, of both processes at once, left there."""
    for directory in beside.parent.glob(UNPACKED):
        with suppress(OSError):  # another user's, or gone meanwhile
            is_old = directory.stat().st_mtime < time.time() - LEFT_SECONDS
            if directory != beside and is_old and (directory / OURS).is_dir() and hold(directory):
                shutil.rmtree(directory)


if __name__ == "__main__":
    end_with_the_first()
    unpacked = Path(sys._MEIPASS)  # type: ignore[attr-defined]
    hold(unpacked)
    remove_left(unpacked)
    from console.cli import main  # which takes a second: what is above must not wait for it

    main()
