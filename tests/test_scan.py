"""`scan`: this installation's keys are found in files, wherever they stand, and never printed."""

import json
import os
from pathlib import Path

import pytest

from console import keys, scan, secret
from console.actor import Actor
from console.models import Project
from tests.conftest import Clock, MakeKey
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
    keys.delete(deleted.id, by=operator, confirm="Deleted")
    said = [line.split() for line in run("scan", str(tmp_path / "in")).out.splitlines()]
    assert [line[2] for line in said] == ["revoked", "active", "active", "gone"]
    assert "Deleted" not in said[3] and said[3][-1] == "shop"
    clock.move("2h")
    said = [line.split() for line in run("scan", str(tmp_path / "in")).out.splitlines()]
    assert [line[2] for line in said] == ["revoked", "superseded", "active", "gone"]


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
    (there / "round").symlink_to(there)
    os.mkfifo(there / "pipe")
    said = run("scan", str(there)).out.splitlines()
    assert [line.split(": ")[0] for line in said] == [f"{there}/a.txt:1", f"{there}/b/c/deep:1"]


def test_standard_input_is_read(run: Run, make_key: MakeKey) -> None:
    key, text = make_key()
    ran = run("scan", "-", stdin=f"+ one\n+ {text}\n".encode())
    assert ran.code == 1 and ran.out.startswith("-:2: ") and key.id in ran.out


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


def test_where_nothing_can_be_known_it_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(LOOSE)
    ran = run("scan", str(tmp_path))
    assert ran.code == 2 and "there is no project here" in ran.error
    ran = run("scan", str(tmp_path / "missing"))
    assert ran.code == 2 and "does not exist" in ran.error
    assert run("scan").code == 2


def test_a_file_that_cannot_be_read_is_named_and_not_passed_over(
    run: Run, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "files", lambda path: iter([path / "gone"]))
    ran = run("scan", str(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"{tmp_path}/gone: No such file or directory\n"
