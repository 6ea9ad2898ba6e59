"""A real Latchkey process for the tests that need one, and its command line."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.databases import ask, database_of

ROOT = Path(__file__).parent.parent
START_SECONDS = 60
WAIT_SECONDS = 60


def wait_until(is_so: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
    """For what comes about by itself, soon; that it does not fails the test."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come about in {seconds} s"
        time.sleep(0.01)


def free_port() -> int:
    """On which nothing listens; none of those that the system hands to whoever connects, one of
    whom could take it before it is used."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RunningServer:
    """`python -m console serve` on a data directory, and a database of its own of the kind that the
    tests run on; `url`, `setup_url`, `log` tell of it."""

    command: tuple[str, ...] = (sys.executable, "-m", "console")
    cwd = ROOT
    start_seconds = START_SECONDS

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.data_dir = data_dir
        self.database_url = environ.get("LATCHKEY_DATABASE_URL") or database_of(data_dir)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LATCHKEY_")}
        self.environ = {
            **clean,
            "LATCHKEY_DATA_DIR": str(data_dir),
            "LATCHKEY_DATABASE_URL": self.database_url,
            "LATCHKEY_PORT": str(self.port),
            **environ,
        }
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                [*self.command, "serve"],
                cwd=self.cwd,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """As the kernel would: no chance to say goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def setup_url(self) -> str:
        """The one-time link that the server printed."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.findall(r"http\S+/setup\?token=\S+", self.log)
            if found:
                return str(found[-1])
            time.sleep(0.05)
        raise AssertionError(f"no set-up link was printed:\n{self.log}")

    def query(self, statement: str) -> list[Any]:
        """Asks its database, past Latchkey, or changes it."""
        return ask(self.database_url, statement)

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A command on the same data directory, beside the server."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.cwd,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
