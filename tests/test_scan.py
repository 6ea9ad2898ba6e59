"""`scan`: this installation's keys are found in files, wherever they stand, and never printed."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import Config
from console import db, keys, projects, scan, secret
from console.actor import Actor
from console.models import Project
from tests.conftest import Clock, MakeKey, need
from tests.server import ROOT
from tests.test_cli import Run
from tests.test_cli import run as run

LOOSE = secret.mint("sk", "live")


def test_a_key_is_found_by_line_and_told_without_its_secret(
    run: Run, make_key: MakeKey, tmp_path: Path
) -> None:
    key, text = make_key(name="Checkout")
    file = tmp_path / "settings.env"
    file.write_text(f"# nothing\n\nAPI_KEY={text}\n")
    ran = run("scan", str(file))
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == f"{file}:3: {key.prefix}…  active      {key.id} in shop  Checkout\n"
    assert text not in ran.out


@pytest.mark.parametrize("around", [
    "{}", '"{}"', "https://x.example/?key={}&more=1", "Bearer {}", "MY_{}", "my_{}", "a{}",
    "{},", "x={}\r", "\x00\xff{}\x00", "{}Zz9", "0123456789abcdef_{}",
])  # fmt: skip
def test_it_is_found_whatever_stands_around_it(
    run: Run, make_key: MakeKey, tmp_path: Path, around: str
) -> None:
    key, text = make_key()
    file = tmp_path / "file"
    file.write_bytes(around.format(text).encode("latin-1"))
    ran = run("scan", str(file))
    assert ran.code == 1 and ran.out.count("\n") == 1 and key.id in ran.out


def test_a_key_of_hex_digits_is_known_by_its_digest_alone(
    run: Run, make_key: MakeKey, operator: Actor, project: Project, tmp_path: Path
) -> None:
    Project.update(key_format=secret.HEX32, shows_environment=False).execute()
    key, text = keys.create({"name": "Hex", "project": "shop"}, by=operator)
    file = tmp_path / "file"
    file.write_text(f"etag_{'0' * 32}\nsk_{'a' * 32}\n{text}\n")
    ran = run("scan", str(file))
    assert ran.code == 1 and ran.out.startswith(f"{file}:3: ") and key.id in ran.out
    assert ran.out.count("\n") == 1


def test_each_is_told_with_what_it_still_opens(
    run: Run, make_key: MakeKey, operator: Actor, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()

    def wrote(name: str, text: str) -> None:
        (tmp_path / "in" / name).write_text(text)

    revoked, text = make_key(name="Revoked")
    wrote("a", text)
    keys.revoke(revoked.id, by=operator)
    rotated, text = make_key(name="Rotated")
    wrote("b", text)
    wrote("c", keys.rotate(rotated.id, {"grace_period": "1h"}, by=operator)[1])
    deleted, text = make_key(name="Deleted")
    wrote("d", text)
    wrote("e", make_key(name="Ending", expires_in="1h")[1])
    keys.delete(deleted.id, by=operator, confirm="Deleted")
    said = [line.split() for line in run("scan", str(tmp_path / "in")).out.splitlines()]
    assert [line[2] for line in said] == ["revoked", "active", "active", "gone", "active"]
    assert "Deleted" not in said[3] and said[3][-1] == "shop"
    clock.move("2h")
    said = [line.split() for line in run("scan", str(tmp_path / "in")).out.splitlines()]
    assert [line[2] for line in said] == ["revoked", "superseded", "active", "gone", "expired"]


def test_what_is_not_ours_is_not_told(run: Run, project: Project, tmp_path: Path) -> None:
    wrong = LOOSE[:-1] + ("0" if LOOSE[-1] != "0" else "1")
    other = secret.mint("elsewhere", "live")
    (tmp_path / "file").write_text(f"{wrong}\n{other}\n_{'a' * 500}\nsk_live_\n{secret.EXAMPLE}")
    assert run("scan", str(tmp_path)).said == "No key of this installation was found.\n"


def test_directories_are_read_whole_and_links_are_not_followed(
    run: Run, make_key: MakeKey, tmp_path: Path
) -> None:
    _, text = make_key()
    outside = tmp_path / "outside"
    outside.write_text(text)
    there = tmp_path / "there"
    (there / "b" / "c").mkdir(parents=True)
    (there / "b" / "c" / "deep").write_text(text)
    (there / "a.txt").write_text(text)
    (there / "link").symlink_to(outside)
    (there / "loose").symlink_to(there / "nowhere")
    (there / "round").symlink_to(there)
    os.mkfifo(there / "pipe")
    ran = run("scan", str(there), str(there / "link"))
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == [
        f"{there}/a.txt:1", f"{there}/b/c/deep:1", f"{there}/link:1"
    ]  # fmt: skip
    assert ran.err == ""


def test_standard_input_is_read_beside_files_and_a_file_of_its_name_is_a_file(
    run: Run, make_key: MakeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key, text = make_key()
    Path("-").write_text(f"\n\n{text}")
    ran = run("scan", ".", "-", "./-", stdin=f"+ one\n+ {text}\n".encode())
    assert ran.code == 1 and ran.err == ""
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == ["./-:3", "-:2", "./-:3"]


def test_what_windows_writes_is_read(run: Run, make_key: MakeKey, tmp_path: Path) -> None:
    key, text = make_key()
    for encoding in ("utf-16", "utf-16-be"):
        (tmp_path / "file").write_text(f"one\r\nKEY={text}\r\n", encoding=encoding)
        ran = run("scan", str(tmp_path))
        assert ran.code == 1 and key.id in ran.out and ran.out.count("\n") == 1
        assert f"{tmp_path}/file:2: " in ran.out


def test_a_name_prints_no_secret_and_moves_no_cursor(
    run: Run, make_key: MakeKey, tmp_path: Path
) -> None:
    _, text = make_key()
    (tmp_path / f"{text}\n\x1b[31m.env").write_text(text)
    ran = run("scan", str(tmp_path))
    assert ran.code == 1 and ran.out.count("\n") == 1
    assert text not in ran.out and "\x1b" not in ran.out and f"/{text[:12]}…" in ran.out


def test_one_that_is_gone_is_of_every_project_with_its_prefix_and_no_other(
    run: Run, operator: Actor, tmp_path: Path
) -> None:
    for slug, prefix in (("a", "lk"), ("b", "lk"), ("c", "lk_pay"), ("d", "pay")):
        projects.create({"slug": slug, "prefix": prefix}, by=operator)
    file = tmp_path / "file"
    for head, told in ((("lk", "live"), "a, b"), (("lk_pay", None), "c"), (("pay", "test"), "d")):
        file.write_text(secret.mint(*head))
        assert run("scan", str(file)).out.rstrip().endswith(f"; prefix of {told}")
    file.write_text(secret.mint("lk_other"))
    assert run("scan", str(file)).code == 0


def test_a_line_without_an_end_is_read_in_pieces(
    run: Run, make_key: MakeKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "READ_BYTES", 100)
    _, text = make_key()
    for before in range(0, 130, 7):
        (tmp_path / "file").write_text("." * before + text + "." * 300 + "\n\n" + text)
        said = run("scan", str(tmp_path / "file")).out.splitlines()
        assert [line.split(": ")[0].rpartition(":")[2] for line in said] == ["1", "3"], before


def test_many_in_one_file_are_all_told(run: Run, make_key: MakeKey, tmp_path: Path) -> None:
    key, text = make_key()
    loose = (secret.mint("sk", "test") for _ in range(1_100))
    (tmp_path / "keys.json").write_text(json.dumps([*loose, text], indent=0))
    said = run("scan", str(tmp_path)).out.splitlines()
    assert len(said) == 1_101 and key.id in said[-1]


def test_where_nothing_can_be_known_it_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text(LOOSE)
    ran = run("scan", str(tmp_path))
    assert ran.code == 2 and "has no project yet" in ran.error
    assert run("scan").code == 2
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", "postgresql://127.0.0.1:1/none?connect_timeout=1")
    ran = run("scan", str(tmp_path))
    assert ran.code == 2 and "PostgreSQL cannot be used" in ran.error


def test_what_cannot_be_read_is_named_and_stops_nothing(
    run: Run, make_key: MakeKey, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing")
    ran = run("scan", missing)
    assert (ran.code, ran.out, ran.err) == (2, "", f"{missing}: No such file or directory\n")
    _, text = make_key()
    (tmp_path / "file").write_text(text)
    ran = run("scan", missing, str(tmp_path / "file"))
    assert ran.code == 1 and ran.out.count("\n") == 1 and ran.err.count("\n") == 1


def test_a_standard_input_that_cannot_be_read_is_named(
    run: Run, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise IsADirectoryError(errno.EISDIR, "Is a directory")

    monkeypatch.setattr(scan, "_candidates", fail)
    ran = run("scan", "-")
    assert (ran.code, ran.out, ran.err) == (2, "", "-: Is a directory\n")


@pytest.mark.parametrize("closed", ["directory", "names alone", "file"])
def test_what_is_closed_is_named(
    closed: str, tmp_path: Path, project: Project, config: Config
) -> None:
    """As somebody who may not read it; root may, and is another for that."""
    there = tmp_path / "there"
    (there / "below").mkdir(parents=True)
    (there / "below" / "file").write_text(LOOSE)
    (there / "last").write_text("")
    shut = there / "below" / ("file" if closed == "file" else "")
    shut.chmod(0o444 if closed == "names alone" else 0)
    db.close()
    environ = {
        **os.environ, "LATCHKEY_DATA_DIR": str(config.data_dir),
        "LATCHKEY_DATABASE_URL": config.database_url, "LATCHKEY_SECRET_KEY": config.secret_key,
    }  # fmt: skip
    as_anybody = [] if os.getuid() else [
        need("setpriv", "apt-get install util-linux"),
        "--bounding-set=-dac_override,-dac_read_search",
    ]  # fmt: skip
    ran = subprocess.run(
        [*as_anybody, sys.executable, "-m", "console", "scan", str(there)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    shut.chmod(0o755)
    named = there / "below" / ("" if closed == "directory" else "file")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"{named}: Permission denied\n"
