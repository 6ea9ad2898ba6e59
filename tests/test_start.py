"""What a start makes and refuses: the data directory, and the key that signs sessions."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import console
from config import Config, ConfigError
from console import SECRET_KEY_FILE, db, journal, start


@pytest.fixture
def unset(config: Config) -> Config:
    """Settings that name no secret key, on a directory that is not there yet."""
    return replace(config, secret_key="")


def test_the_secret_key_is_made_once_and_kept(unset: Config) -> None:
    first = start(unset).secret_key
    assert len(first) == 64
    assert start(unset).secret_key == first


def test_the_secret_key_is_for_this_user_alone(unset: Config) -> None:
    start(unset)
    path = unset.data_dir / SECRET_KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(unset.data_dir.stat().st_mode) == 0o700
    assert [found.name for found in unset.data_dir.glob(f"{SECRET_KEY_FILE}*")] == [SECRET_KEY_FILE]


def test_all_of_several_starters_have_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: console._secret_key(tmp_path), range(32)))
    assert len(keys) == 1


@pytest.mark.parametrize("content", ["", "\n", "too short"])
def test_half_a_secret_key_stops_the_start(unset: Config, content: str) -> None:
    unset.data_dir.mkdir()
    (unset.data_dir / SECRET_KEY_FILE).write_text(content)
    with pytest.raises(ConfigError, match="remove it to have a new one made"):
        start(unset)


def test_a_secret_key_that_cannot_be_read_is_named(unset: Config) -> None:
    path = unset.data_dir / SECRET_KEY_FILE
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"^{path} cannot be read: Is a directory; user"):
        start(unset)
    path.rmdir()
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigError, match=f"^{path} holds no key of at least 32 characters"):
        start(unset)


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_named(config: Config) -> None:
    config.data_dir.mkdir()
    file = config.data_dir / "latchkey.db"
    file.write_text("Dear reader, " * 1000)
    with pytest.raises(ConfigError, match=f"{file}: file is not a database; .* restore a backup"):
        start(config)


def test_a_directory_that_is_not_there_for_the_database_is_named(
    config: Config, tmp_path: Path
) -> None:
    elsewhere = replace(config, database_url=f"sqlite:///{tmp_path}/no/where.db")
    with pytest.raises(ConfigError, match=f"make the directory {tmp_path}/no first"):
        start(elsewhere)


def test_a_given_secret_key_is_not_stored(config: Config) -> None:
    assert start(config).secret_key == config.secret_key
    assert not (config.data_dir / SECRET_KEY_FILE).exists()


def test_a_data_directory_that_cannot_be_made_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="LATCHKEY_DATA_DIR=.*file/data.* cannot be used"):
        start(replace(config, data_dir=tmp_path / "file" / "data"))


def test_a_journal_that_cannot_be_written_stops_the_start(config: Config) -> None:
    config.data_dir.mkdir()
    (config.data_dir / journal.DIRECTORY).write_text("")
    with pytest.raises(ConfigError, match="journal cannot be used: .*may write to"):
        console.create_app(config, in_background=False)
    db.close()
