"""What users may rely on is written down: every setting, command, call, code and event."""

import dataclasses
import re
from pathlib import Path

import pytest
from flask import Flask

from config import Config
from console import activity, alert_rules, check, errors, gate, webhooks
from console.cli import cli
from tests.server import ROOT

API = (ROOT / "docs/api.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize("name", [field.name.upper() for field in dataclasses.fields(Config)])
def test_every_setting_is_documented(name: str) -> None:
    assert f"`LATCHKEY_{name}`" in OPERATIONS


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[ `]", OPERATIONS)


def test_every_call_is_documented(app: Flask) -> None:
    calls = {
        f"{method} {rule.rule.replace('<id:', '<')}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert "PATCH /api/v1/api-keys/<key_id>" in calls
    assert {call for call in calls | {f"POST {gate.VERIFY}"} if f"`{call}`" not in API} == set()


def test_every_documented_call_is_there(app: Flask) -> None:
    adapter = app.url_map.bind("localhost")
    documented = re.findall(r"^\| `(GET|POST|PATCH|DELETE) (/api/\S+?)`", API, re.MULTILINE)
    assert len(documented) > 10
    for method, path in documented:
        assert path == gate.VERIFY or adapter.match(re.sub(r"<\w+>", "x", path), method)


@pytest.mark.parametrize("code", sorted(check.CODES))
def test_every_verdict_is_documented_with_its_status(code: str) -> None:
    assert f"| `{code}` | {check.CODES[code][0]} |" in API


@pytest.mark.parametrize("action", activity.ACTIONS)
def test_every_event_is_documented(action: str) -> None:
    assert f"`{action}`" in API


def test_every_error_code_in_the_source_is_documented() -> None:
    source = "\n".join(path.read_text() for path in Path(ROOT / "console").rglob("*.py"))
    codes = set(re.findall(r'code="([A-Z_]+)"', source))
    codes |= {kind.code for kind in errors.Refused.__subclasses__()} - {"API_KEY_MISSING"}
    assert "KEY_LIMIT_REACHED" in codes
    assert {code for code in codes if f"`{code}`" not in API} == set()


def test_every_recorded_action_is_known() -> None:
    source = "\n".join(path.read_text() for path in Path(ROOT / "console").glob("*.py"))
    kinds = "key|project|person|member|webhook|alert|calendar"
    recorded = set(re.findall(rf'"((?:{kinds})\.[a-z_]+)"', source)) - {webhooks.TEST_EVENT}
    # Those of alerts are made of their kinds.
    assert recorded | {f"alert.{kind}" for kind in alert_rules.KINDS} == set(activity.ACTIONS)


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
