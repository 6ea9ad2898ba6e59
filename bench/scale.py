"""What a check costs in processor time, and who pays it: one process on SQLite, then one, two and
four on PostgreSQL and Redis behind nginx. `python -m bench.scale`; needs wrk, nginx, PostgreSQL.

Where processors are few, more processes are not faster: what carries over is the time that a check
takes of each program, and docs/scale.md reckons with that. Ends with 0 whatever it finds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import load
from bench.fill import fill
from bench.load import Load
from bench.run import CHECK_PATH
from console import in_use
from tests.cluster import Cluster, nginx, postgres, redis_server
from tests.server import RunningServer

TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 16
LINES = {"allowed": "hot", "limited": "limited"}


def processor_seconds(root: int) -> float:
    """What a process and all that it started have used up to now."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        used[pid] = sum(map(int, fields[11:15])) / TICKS  # its own and that of children that ended
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(pid, 0.0) for pid in family)


def measure(work: Path, port: int, roots: dict[str, list[int]], seconds: int) -> dict[str, Any]:
    """A run of each line: checks a second, times, and processor time a check of each program."""
    found = {}
    for name, secrets in LINES.items():
        request = work / "request"
        request.write_text(load.check_request(CHECK_PATH))
        before = {who: sum(map(processor_seconds, pids)) for who, pids in roots.items()}
        run = Load(port, request, work / secrets, connections=CONNECTIONS, seconds=seconds).result()
        time.sleep(2)  # by then their entries are stored
        checks = run.rate * seconds
        found[name] = {
            "rate": round(run.rate), "p50": run.p50, "p99": run.p99, "failed": run.failed,
            "microseconds": {
                who: round((sum(map(processor_seconds, pids)) - before[who]) / checks * 1e6, 1)
                for who, pids in roots.items()
            },
        }  # fmt: skip
    return found


def pid_of(server: RunningServer) -> int:
    assert server.process is not None
    return server.process.pid


@contextmanager
def on_sqlite(work: Path) -> Iterator[tuple[int, dict[str, list[int]]]]:
    with RunningServer(work / "data") as server, nginx([server.port], work) as port:
        yield port, {"Latchkey": [pid_of(server)], "nginx": [pid_on(work)]}


def pid_on(work: Path) -> int:
    time.sleep(0.5)
    return int((work / "pid").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=5)
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="latchkey-scale-") as directory, ExitStack() as stack:
        work = Path(directory)
        fill(work, asked.keys, asked.entries)
        in_use.let_go()
        with on_sqlite(work) as (port, roots):
            results["SQLite, 1 process"] = measure(work, port, roots, asked.seconds)
        database = stack.enter_context(postgres())
        counts = stack.enter_context(redis_server())
        began = time.monotonic()
        moved = RunningServer(work / "data").run("move", "--to", database.url)
        assert moved.returncode == 0, moved.stderr
        results["move, seconds"] = round(time.monotonic() - began, 1)
        postmaster = int((database.data / "postmaster.pid").read_text().split()[0])
        assert counts.process is not None
        for size in (1, 2, 4):
            made = Cluster(work / f"of-{size}", database, counts, size)
            made.start()
            ports = [server.port for server in made.servers]
            for_nginx = work / f"nginx-{size}"
            for_nginx.mkdir()
            with nginx(ports, for_nginx) as port:
                time.sleep(4)  # Redis was new
                roots = {
                    "Latchkey": [pid_of(server) for server in made.servers],
                    "PostgreSQL": [postmaster],
                    "Redis": [counts.process.pid],
                    "nginx": [pid_on(for_nginx)],
                }
                results[f"PostgreSQL, {size} process{'es' if size > 1 else ''}"] = measure(
                    work, port, roots, asked.seconds
                )
            made.stop()
        [(rows, size_of)] = database.ask(
            "select (select count(*) from entry), (select sum(pg_total_relation_size(inhrelid))"
            " from pg_inherits where inhparent = 'entry'::regclass)"
        )
        results["bytes an entry"] = round(int(size_of) / rows)
    json.dump(results, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
