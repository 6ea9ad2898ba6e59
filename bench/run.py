"""Measures checks, pages and memory against bare views on the same server, prints a table and
writes the figures as JSON. Never a gate: it ends with 0 whatever it finds. README.md says how to
read it.
"""

import argparse
import http.client
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from bench import bare, load, report
from bench.fill import PROJECT
from bench.load import Browser, Load, Measured
from console import db, paging
from console.models import Entry
from tests.server import ROOT, RunningServer, free_port

RESULTS = Path(__file__).with_name("results.json")
NO_WRK = 2
CONNECTIONS = (1, 16)
CHECK_PATH = "/forward-auth/nginx?permission=tasks:read"
TABLE, AUDIT = f"/projects/{PROJECT}/keys", f"/projects/{PROJECT}/audit-log"
AUDIT_ROWS = 25
DEEP_PAGE = 50_000
BUSY = ("allowed", "big allowed")  # the lines that are measured beside others who load pages
LEAD_SECONDS = 1  # pages are being loaded before, and still after, checks are measured beside them
# What a server says when all is well.
EXPECTED_IN_LOG = ("Latchkey serves ", "Become the owner: ")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seconds: dict[int, int]  # of one run, by its connections
    rounds: int
    page_loads: int
    many_keys: int  # in the key table that is compared with one of FEW_KEYS
    many_entries: int
    big: tuple[int, int] | None  # keys and entries


FEW_KEYS, SMALL_KEYS = 100, 1_000
FULL = Size({1: 5, 16: 5}, 3, 60, 100_000, 0, (1_000_000, 10_000_000))
QUICK = Size({1: 1, 16: 2}, 1, 20, 10_000, 100_000, None)


class House:
    """A filled directory, and Latchkey serving it."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.directory = directory
        self.server = RunningServer((directory / "data").resolve(), **environ)
        self.port = self.server.port

    def __enter__(self) -> Self:
        self.server.start()
        self.browser = Browser(self.port)
        self.memory_at_start = self.memory_mb()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def settle(self) -> float:
        """Waits until all entries are stored, so that one run does not disturb the next; returns
        for how many seconds. A key that asks about itself is shown its latest use, hence waits."""
        began = time.monotonic()
        connection = http.client.HTTPConnection(load.HOST, self.port, timeout=load.TIMEOUT_SECONDS)
        secret = (self.directory / "service").read_text().strip()
        connection.request("GET", "/api/v1/whoami", headers={"Authorization": f"Bearer {secret}"})
        connection.getresponse().read()
        connection.close()
        return time.monotonic() - began

    def memory_mb(self) -> dict[str, float]:
        """What the server occupies now, the most it did, and what of it is its own (Linux)."""
        assert self.server.process is not None
        path = Path(f"/proc/{self.server.process.pid}/status")
        if not path.exists():
            return {}
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
        names = {"now": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon"}
        return {name: round(int(fields[key].split()[0]) / 1024, 1) for name, key in names.items()}

    def trouble(self) -> list[str]:
        return [
            line for line in self.server.log.splitlines() if not line.startswith(EXPECTED_IN_LOG)
        ]


@dataclass
class Line:
    """One row of the table: a request, to whom it goes, and what came of it."""

    name: str
    label: str
    port: int
    request: Path
    secrets: Path | None = None
    house: House | None = None
    runs: dict[int, list[Measured]] = field(default_factory=dict)
    settle_seconds: float = 0

    def measure(self, connections: int, seconds: int) -> None:
        run = Load(
            self.port, self.request, self.secrets, connections=connections, seconds=seconds
        ).result()
        self.runs.setdefault(connections, []).append(run)
        if self.house:
            self.settle_seconds = max(self.settle_seconds, self.house.settle())

    def result(self) -> dict[str, Any]:
        """The medians, and the runs of which they are."""
        return {
            "label": self.label,
            "connections": {str(n): asdict(load.middle(runs)) for n, runs in self.runs.items()},
            "runs": {str(n): [asdict(run) for run in runs] for n, runs in self.runs.items()},
            "settle_seconds": round(self.settle_seconds, 2),
        }


class Bench:
    """The houses, the lines and the pages of one run, in a directory of its own."""

    def __init__(self, work: Path, keep: Path | None, size: Size, stack: ExitStack) -> None:
        self.work, self.keep, self.size, self.stack = work, keep, size, stack
        self.lines: dict[str, Line] = {}
        self.pages: dict[str, dict[str, Any]] = {}
        self.busy: dict[str, list[Measured]] = {}
        self.houses: list[House] = []

    # --- what is served -------------------------------------------------------------------

    def set_up(self) -> None:
        self._bare_lines()
        small = self._filled(SMALL_KEYS, 0)
        copies = [shutil.copytree(small, self.work / name) for name in ("full", "buffered")]
        self.small = self._open(small)
        self._check_lines(self.small, "", f"{SMALL_KEYS:,} keys, no entries")
        full = self._open(copies[0], LATCHKEY_SYNCHRONOUS="full")
        self._line("full", "allowed, SYNCHRONOUS=full", full)
        buffered = self._open(copies[1], LATCHKEY_AUDIT_MODE="buffered")
        self._line("buffered", "allowed, AUDIT_MODE=buffered", buffered)
        self.few = self._open(self._filled(FEW_KEYS, 0))
        self.many = self._open(self._filled(self.size.many_keys, self.size.many_entries))
        self.big: House | None = None
        if self.size.big:
            keys, entries = self.size.big
            self.big = self._open(self._filled(keys, entries, kept=True))
            self._check_lines(self.big, "big ", f"{keys:,} keys, {entries:,} entries")
            self._line("big cold", "  any of 200,000 of these keys", self.big, "cold")

    def _filled(self, keys: int, entries: int, *, kept: bool = False) -> Path:
        """A directory with so many keys and entries; one that is kept need not be filled again."""
        directory = (self.keep if kept and self.keep else self.work) / f"{keys}-{entries}"
        if not directory.exists():
            draft = directory.with_suffix(".part")
            shutil.rmtree(draft, ignore_errors=True)
            command = [sys.executable, "-m", "bench.fill", str(draft), str(keys), str(entries)]
            subprocess.run(command, cwd=ROOT, check=True)
            draft.rename(directory)
            os.sync()  # or the kernel would write it out while something is measured
        return directory

    def _open(self, directory: Path, **environ: str) -> House:
        house = self.stack.enter_context(House(directory, **environ))
        self.houses.append(house)
        return house

    # --- the lines ------------------------------------------------------------------------

    def _bare_lines(self) -> None:
        port = self.stack.enter_context(_bare_server())
        for name, path, label in (
            ("wsgi", bare.WSGI, "bare WSGI callable"),
            ("flask", bare.FLASK, "bare Flask view"),
            ("flask quick", bare.FLASK_QUICK, "  answered on the spot, as checks are"),
        ):
            request = self._request(name, load.check_request(path))
            self.lines[name] = Line(name, label, port, request, self._no_secret())

    def _check_lines(self, house: House, name: str, size: str) -> None:
        self._line(f"{name}allowed", f"allowed ({size})", house)
        self._line(f"{name}refused", "  refused", house, "refused")
        self._line(f"{name}limited", "  limited", house, "limited")
        service = (house.directory / "service").read_text().strip()
        verify = self._request(f"{name}verify", load.verify_request(service))
        self._line(f"{name}verify", "  POST /api/v1/verify", house, request=verify)

    def _line(
        self,
        name: str,
        label: str,
        house: House,
        secrets: str = "hot",
        *,
        request: Path | None = None,
    ) -> None:
        request = request or self._request("check", load.check_request(CHECK_PATH))
        secrets_file = house.directory / secrets
        self.lines[name] = Line(name, label, house.port, request, secrets_file, house)

    def _request(self, name: str, text: str) -> Path:
        path = self.work / f"{name}.http"
        path.write_bytes(text.encode())
        return path

    def _no_secret(self) -> Path:
        """What the bare views are sent in the place of a secret: as long, and as often another."""
        path = self.work / "no-secrets"
        path.write_text("".join(f"lk_live_{number:036}\n" for number in range(SMALL_KEYS)))
        return path

    # --- measuring ------------------------------------------------------------------------

    def measure(self) -> None:
        for number in range(1, self.size.rounds + 1):
            _say(f"round {number} of {self.size.rounds}")
            # The yardstick once more at the end: the machine may have become slower meanwhile.
            for line in (*self.lines.values(), self.lines["wsgi"], self.lines["flask"]):
                for connections in CONNECTIONS:
                    line.measure(connections, self.size.seconds[connections])
            for name in BUSY:
                if name in self.lines:
                    self._measure_busy(self.lines[name])
        houses = {"small": self.small, "big": self.big}
        self.memory = {
            name: {"start": house.memory_at_start.get("now"), **house.memory_mb()}
            for name, house in houses.items()
            if house
        }
        _say("pages")
        self._measure_pages()

    def _measure_busy(self, line: Line) -> None:
        """Checks, while two others keep loading the key table and the audit page."""
        assert line.house
        cookies, seconds = line.house.browser.cookies, self.size.seconds[16]
        loaders = []
        for page, path in (("table", TABLE), ("audit", AUDIT)):
            request = self._request(f"{line.name} {page}", load.page_request(path, cookies))
            lasts = seconds + 2 * LEAD_SECONDS
            loaders.append(Load(line.port, request, None, connections=1, seconds=lasts))
        time.sleep(LEAD_SECONDS)
        checks = Load(line.port, line.request, line.secrets, connections=16, seconds=seconds)
        for what, one in zip(("checks", "table", "audit"), (checks, *loaders), strict=True):
            self.busy.setdefault(f"{line.name}: {what}", []).append(one.result())
        line.house.settle()

    def _measure_pages(self) -> None:
        deep_house = self.big or self.many
        page, cursor = deep_cursor(deep_house.directory)
        pages = {
            "few": (f"key table, {FEW_KEYS:,} keys", self.few, TABLE),
            "many": (f"key table, {self.size.many_keys:,} keys", self.many, TABLE),
            "first": ("audit page 1", deep_house, AUDIT),
            "deep": (f"audit page {page:,}", deep_house, f"{AUDIT}?cursor={cursor}"),
        }
        loads = [(house.browser, path) for _, house, path in pages.values()]
        runs = load.measure_pages(loads, self.size.page_loads)
        for (name, (label, _, _)), run in zip(pages.items(), runs, strict=True):
            self.pages[name] = {"label": label, **asdict(run)}

    def results(self) -> dict[str, Any]:
        """All of it, as it goes into the JSON."""
        return {
            "lines": {name: line.result() for name, line in self.lines.items()},
            "busy": {name: asdict(load.middle(runs)) for name, runs in self.busy.items()},
            "pages": self.pages,
            "memory_mb": self.memory,
            "trouble": [text for house in self.houses for text in house.trouble()],
        }


def deep_cursor(directory: Path) -> tuple[int, str]:
    """The audit log's page DEEP_PAGE, or the last but one where there are fewer: its number, and
    the cursor that whoever had turned all pages before it would have."""
    path = (directory / "data" / "latchkey.db").resolve()
    db.open_database(f"sqlite:///{path}")
    ids = Entry.select(Entry.id).order_by(Entry.id.desc())
    page = min(DEEP_PAGE, ids.count() // AUDIT_ROWS - 1)
    last = ids.offset((page - 1) * AUDIT_ROWS - 1).first()
    newest_first = paging.Order(Entry.id, int, lambda entry: entry.id)
    db.close()
    return page, paging._encode(paging.FORWARD, last, [newest_first])


@contextmanager
def _bare_server() -> Iterator[int]:
    """Its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bare", str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield port
    finally:
        process.terminate()
        process.wait()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": ".".join(map(str, db.sqlite_version())),
        "granian": version("granian"),
    }


def main() -> None:
    arguments = _arguments()
    if shutil.which("wrk") is None:
        print("The bench needs wrk: apt-get install wrk", file=sys.stderr)
        sys.exit(NO_WRK)
    began = time.monotonic()
    # As on ^C: the servers end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-") as work, ExitStack() as stack:
        bench = Bench(Path(work), arguments.keep, QUICK if arguments.quick else FULL, stack)
        bench.set_up()
        bench.measure()
        found = bench.results()
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "seconds": round(time.monotonic() - began),
        "machine": _machine(),
        **found,
    }
    found["promises"] = report.promises(found)
    report.write(found, arguments.output)
    print(report.as_text(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, under a minute")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="fill the large database there, and use it again"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE", help="the JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
