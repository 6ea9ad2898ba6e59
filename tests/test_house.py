"""The house keeps its order: what may import what, and nothing left half done."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT

CONSOLE = sorted((ROOT / "console").rglob("*.py"))
MODULES = [*CONSOLE, ROOT / "config.py", ROOT / "wsgi.py"]
DOORS = ("web", "api")
LINES_MAX = 600

TEXT = {".py", ".html", ".js", ".css", ".md", ".toml", ".txt", ".conf", ".yml", ".yaml", ".svg", ""}
NOT_OURS = {".git", ".venv", ".venv-dist", "data", "dist", "node_modules", "__pycache__"}
# In pieces, so that this file is searched like any other.
MARKS = "TO-DO FIX-ME X-XX HA-CK".replace("-", "").split()
UNFINISHED = re.compile(rf"\b({'|'.join(MARKS)})\b")
STUB = "NotImplemented-Error".replace("-", "")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """The full names that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_door(path: Path) -> bool:
    inside = path.relative_to(ROOT / "console").parts
    return inside == ("__init__.py",) or inside[0] in DOORS


@pytest.mark.parametrize("path", [p for p in CONSOLE if not is_door(p)], ids=name)
def test_the_domain_never_imports_flask(path: Path) -> None:
    assert [one for one in imported(path) if one.startswith(("flask", "werkzeug"))] == []


@pytest.mark.parametrize("path", [p for p in CONSOLE if p.parent.name in DOORS], ids=name)
def test_a_door_never_opens_a_transaction(path: Path) -> None:
    asked = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("db", "db.handle")
    }
    assert not asked & {"write", "transaction", "handle", "atomic", "hold", "hold_table"}


def test_the_secret_knows_no_database() -> None:
    ours = [
        one for one in imported(ROOT / "console/secret.py") if one.startswith(("console", "peewee"))
    ]
    assert ours == []


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("test_*.py"))], ids=name)
def test_a_module_opens_with_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_nothing_is_marked_unfinished() -> None:
    found = [
        f"{name(path)}:{number}: {line.strip()[:80]}"
        for path in our_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if UNFINISHED.search(line) or STUB in line
    ]
    assert found == []


def our_files() -> list[Path]:
    """The project's text files, without what is fetched, made or vendored."""
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file() and path.suffix in TEXT
        and not NOT_OURS & set(path.relative_to(ROOT).parts)
        and not path.name.startswith("htmx-")
    ]  # fmt: skip


def test_the_search_sees_the_projects_files() -> None:
    seen = {name(path) for path in our_files()}
    assert {"config.py", "console/check.py", "templates/page.html", "static/console.js",
            "Makefile", "tests/test_house.py"} <= seen  # fmt: skip
    assert UNFINISHED.search(f"# {MARKS[0]}: later")
