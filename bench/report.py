"""What was found, as a table, as a list of promises and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

AT_LEAST, AT_MOST = "at least", "at most"
LEFT_OUT = "left out"
# A run in which another answer than the expected one comes more often is not what its line says.
STRAY_MAX = 0.01
LIMITED_MIN = 0.5

Found = dict[str, Any]


def promises(found: Found) -> list[dict[str, Any]]:
    """Each promise with its bound, the figure of this run and whether it held; None: left out."""
    lines, busy, pages = found["lines"], found["busy"], found["pages"]
    flask = _rate(lines, "flask")
    few, many, first, deep = (pages[name]["p50"] for name in ("few", "many", "first", "deep"))
    rows = [
        ("allowed check ÷ bare Flask view", AT_LEAST, 2.0, _rate(lines, "allowed") / flask),
        ("  SYNCHRONOUS=full", AT_LEAST, 0.6, _rate(lines, "full") / flask),
        ("  AUDIT_MODE=buffered", AT_LEAST, 2.2, _rate(lines, "buffered") / flask),
        ("POST /verify ÷ bare Flask view", AT_LEAST, 1.2, _rate(lines, "verify") / flask),
        ("cost, large ÷ small (p50, 16 conn.)", AT_MOST, 1.25, _cost(lines, "16")),
        ("cost, large ÷ small (p50, 1 conn.)", AT_MOST, 1.25, _cost(lines, "1")),
        ("p99, 16 conn. (ms)", AT_MOST, 8, lines["allowed"]["connections"]["16"]["p99"]),
        ("p99 while two load pages (ms)", AT_MOST, 25, _p99(busy, "allowed: checks")),
        ("  the same, large (ms)", AT_MOST, 25, _p99(busy, "big allowed: checks")),
        (f"{pages['deep']['label']} ÷ page 1 (p50)", AT_MOST, 1.2, deep / first),
        (f"{pages['many']['label']} ÷ few (p50)", AT_MOST, 1.3, many / few),
        ("memory, large (MB)", AT_MOST, 250, found["memory_mb"].get("big", {}).get("now")),
    ]
    return [
        {"promise": name, "kind": kind, "bound": bound, "measured": value,
         "held": _holds(kind, bound, value)}
        for name, kind, bound, value in rows
    ]  # fmt: skip


def _holds(kind: str, bound: float, value: float | None) -> bool | None:
    if value is None:
        return None
    return value >= bound if kind == AT_LEAST else value <= bound


def _rate(lines: Found, name: str) -> float:
    return float(lines[name]["connections"]["16"]["rate"])


def _cost(lines: Found, connections: str) -> float | None:
    if "big allowed" not in lines:
        return None
    large, small = (
        lines[name]["connections"][connections]["p50"] for name in ("big allowed", "allowed")
    )
    return float(large / small)


def _p99(runs: Found, name: str) -> float | None:
    return runs[name]["p99"] if name in runs else None


def doubts(found: Found) -> list[str]:
    """Why a figure may not be what it says."""
    said = []
    for name, line in found["lines"].items():
        for connections, run in line["connections"].items():
            if run["failed"]:
                said.append(f"{name}, {connections} conn.: {run['failed']} requests failed")
            if not _is_as_expected(name, run["refused"]):
                said.append(f"{name}, {connections} conn.: {run['refused']:.1%} were refused")
    return said + [f"a server said: {text}" for text in found["trouble"]]


def _is_as_expected(name: str, refused: float) -> bool:
    if name.endswith("limited"):
        return refused > LIMITED_MIN
    return refused > 1 - STRAY_MAX if name.endswith("refused") else refused < STRAY_MAX


def write(found: Found, path: Path) -> None:
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


# --- as text --------------------------------------------------------------------------------


def as_text(found: Found) -> str:
    sections = [_head(found), _lines(found), _pages(found), _promises(found)]
    said = doubts(found)
    if said:
        sections.append("\n".join(["To doubt:", *said]))
    return "\n\n".join(sections)


def _head(found: Found) -> str:
    machine = found["machine"]
    form = "quick form" if found["quick"] else "full form"
    return (
        f"{found['date']}, {form}, {found['seconds']} s; {machine['cpus']} processors, "
        f"Python {machine['python']}, SQLite {machine['sqlite']}, granian {machine['granian']}"
    )


def _lines(found: Found) -> str:
    lines = found["lines"]
    flask = _rate(lines, "flask")
    head = (
        "",
        "1 conn. req/s",
        "p50",
        "p99",
        "16 conn. req/s",
        "p50",
        "p99",
        "÷ Flask",
        "stored after s",
    )
    rows = [
        (line["label"], *_figures(line["connections"]["1"]), *_figures(line["connections"]["16"]),
         f"{_rate(lines, name) / flask:.2f}", f"{line['settle_seconds']:.1f}")
        for name, line in lines.items()
    ]  # fmt: skip
    return _table([head, *rows])


def _figures(run: Found) -> tuple[str, str, str]:
    return f"{run['rate']:,.0f}", f"{run['p50']:.2f}", f"{run['p99']:.2f}"


def _pages(found: Found) -> str:
    head = ("", "req/s", "p50", "p99")
    pages = [(run["label"], run) for run in found["pages"].values()]
    busy = [(f"while two load pages, {name}", run) for name, run in found["busy"].items()]
    rows = [(label, *_figures(run)) for label, run in (*pages, *busy)]
    memory = [
        f"memory, {name}: "
        + ", ".join(f"{what} {size:,.0f} MB" for what, size in figures.items() if size)
        for name, figures in found["memory_mb"].items()
    ]
    return "\n".join([_table([head, *rows]), "", *memory])


def _promises(found: Found) -> str:
    rows = [("promise", "", "", "measured", "")]
    for one in found["promises"]:
        held, value = one["held"], one["measured"]
        rows.append((
            one["promise"], one["kind"], f"{one['bound']:g}",
            LEFT_OUT if value is None else f"{value:.2f}",
            "" if held is None else "ok" if held else "NOT",
        ))  # fmt: skip
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first to the left, the figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
