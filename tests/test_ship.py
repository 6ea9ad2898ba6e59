"""What Latchkey is shipped with: the image's files are all it needs, and the settings that compose
and systemd files make are settings."""

import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

import config as settings
from console import server
from console.cli import cli
from tests.conftest import need
from tests.server import ROOT, RunningServer

DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = ROOT / "deploy" / "latchkey.service"
COMPOSED = ["compose.yaml", "compose.postgres.yaml"]
# Of what each stage copies, what is the project's: (where from, where to).
COPIED = [
    (source, words[-1])
    for words in (line.split()[1:] for line in re.findall(r"^COPY (?!--).*", DOCKERFILE, re.M))
    for source in words[:-1]
]
DIGITS = re.compile(r"\d")


def composed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


# --- the image --------------------------------------------------------------------------------


def test_nothing_but_what_the_image_is_made_of_is_sent_to_be_built() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    assert sent == {source for source, _ in COPIED}
    assert all((ROOT / source).exists() for source in sent)


class Contained(RunningServer):
    """Latchkey from the image's files alone, with the image's environment."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "data")
        self.cwd = directory / "app"
        self.cwd.mkdir()
        for source, target in COPIED:
            there = self.cwd / (source if target == "./" else target)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            there.parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / source, there)
        mine = {k: v for k, v in self.environ.items() if k.startswith("LATCHKEY_")}
        self.environ = {**mine, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}

    def files(self) -> dict[Path, float]:
        return {path: path.stat().st_mtime for path in self.cwd.rglob("*")}


@pytest.mark.service
def test_the_images_files_are_enough_and_are_never_written(tmp_path: Path) -> None:
    with Contained(tmp_path) as latchkey:
        before = latchkey.files()
        page = urllib.request.urlopen(f"{latchkey.url}/login", timeout=10).read().decode()
        styles = re.search(r'href="(/static/console\.css[^"]*)"', page)
        assert styles and urllib.request.urlopen(latchkey.url + styles[1], timeout=10).read()
        assert latchkey.run("create-project", "--slug", "shop").returncode == 0
        assert latchkey.files() == before


def test_the_commands_of_the_image_are_commands() -> None:
    commands = re.findall(r'"console", "([a-z-]+)"|^CMD \["([a-z-]+)"\]', DOCKERFILE, re.M)
    assert {one or other for one, other in commands} == {"healthcheck", "serve"}
    assert {one or other for one, other in commands} <= set(cli.commands)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", *COMPOSED, "deploy/latchkey.service"])
def test_every_name_that_is_set_is_a_setting(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    found = set(re.findall(r"LATCHKEY_[A-Z_]+", "\n".join(x for x in lines if x[:1] != "#")))
    known = {settings.PREFIX + one.upper() for one in settings.Config.__annotations__}
    assert found and {one.removesuffix("_FILE") for one in found} <= known


@pytest.mark.parametrize("name", COMPOSED)
def test_what_compose_sets_makes_sense(name: str, tmp_path: Path) -> None:
    """With the files of secrets as its first lines make them."""
    for secret, value in {"secret_key": "k" * 64, "database_url": "postgresql://l:pw@db/l"}.items():
        (tmp_path / secret).write_text(value + "\n")
    ours = [one for one in composed(name)["services"].values() if "build" in one]
    assert ours
    for service in ours:
        environ = {
            key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value).replace("/run/secrets", str(tmp_path))
            for key, value in service["environment"].items()
        }
        assert settings.load(environ).trusted_proxies


# --- compose ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPOSED)
def test_every_container_may_do_little_and_is_of_a_known_version(name: str) -> None:
    for service, one in composed(name)["services"].items():
        assert one["read_only"] and one["cap_drop"] == ["ALL"], service
        assert one["security_opt"] == ["no-new-privileges:true"], service
        assert DIGITS.search(one["image"].partition(":")[2]), service


@pytest.mark.parametrize("name", COMPOSED)
def test_what_compose_refers_to_is_there(name: str) -> None:
    whole = composed(name)
    for service, one in whole["services"].items():
        for volume in one.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).is_file() or source in whole["volumes"], (service, source)
        assert set(one.get("secrets", [])) <= set(whole.get("secrets", {})), service
        assert set(one.get("networks", [])) <= set(whole["networks"]), service
        for needed, how in one.get("depends_on", {}).items():
            is_ours = "build" in whole["services"][needed]  # the image has its own
            assert is_ours or "healthcheck" in whole["services"][needed]
            assert how == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", COMPOSED)
def test_latchkey_has_the_time_to_finish_what_is_under_way(name: str) -> None:
    ours = [one for one in composed(name)["services"].values() if "build" in one]
    assert ours
    assert all(int(one["stop_grace_period"].rstrip("s")) > server.STOP_SECONDS for one in ours)


@pytest.mark.service
def test_caddy_takes_its_file() -> None:
    command = [need("caddy"), "validate", "--adapter", "caddyfile", "--config", "deploy/Caddyfile"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# --- systemd ----------------------------------------------------------------------------------


def test_systemd_takes_the_unit_and_finds_it_safe(tmp_path: Path) -> None:
    program = need("systemd-analyze", "apt-get install systemd")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/latchkey", "/bin/true"))
    said = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    exposed = subprocess.run(
        [program, "security", "--offline=yes", "--threshold=15", "--no-pager", unit],
        capture_output=True,
        text=True,
    )
    assert exposed.returncode == 0, exposed.stdout


def test_the_unit_gives_the_time_to_finish_what_is_under_way() -> None:
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)
    assert int(seconds) > server.STOP_SECONDS
