"""Every setting: its default, its file, and the one line that stops the start over nonsense."""

from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

import config as settings
from config import Config, ConfigError, Networks
from console import db

SECRET = "s3cret-" * 8

# What may be set (interface §2), and something else than its default.
SETTINGS = {
    "DATA_DIR": ("/srv/latchkey", Path("/srv/latchkey")),
    "DATABASE_URL": ("postgresql://u:p@db.example.com:5433/keys?sslmode=require", None),
    "HOST": ("0.0.0.0", None),
    "PORT": ("65535", 65535),
    "BASE_URL": ("https://keys.example.com", None),
    "SECRET_KEY": (SECRET, None),
    "TRUSTED_PROXIES": ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
    "KEY_LIMIT": ("1000", 1000),
    "REDIS_URL": ("redis://127.0.0.1:6379/0", None),
    "AUDIT_MODE": ("buffered", None),
    "SYNCHRONOUS": ("full", None),
    "RETENTION_DAYS": ("7", 7),
    "WEBHOOK_NETWORKS": ("10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
    "GEOIP_DATABASE": (__file__, Path(__file__)),
}
LATER = ("METRICS_TOKEN", "SMTP_URL", "MAIL_FROM")


def load(**given: str) -> Config:
    return settings.load({f"LATCHKEY_{name}": value for name, value in given.items()})


def test_without_any_setting_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load() == Config(
        data_dir=Path("./data"),
        database_url=f"sqlite:///{tmp_path.resolve()}/data/latchkey.db",
        redis_url="",
        host="127.0.0.1",
        port=8000,
        base_url="http://127.0.0.1:8000",
        secret_key="",
        trusted_proxies=Networks((ip_network("127.0.0.1/32"), ip_network("::1/128"))),
        key_limit=20,
        audit_mode="strict",
        synchronous="normal",
        retention_days=90,
        geoip_database=None,
        webhook_networks=Networks(()),
        not_yet_used=(),
    )


def test_every_setting_is_in_this_table() -> None:
    assert {field.name.upper() for field in fields(Config)} == {*SETTINGS, "NOT_YET_USED"}
    assert settings.NOT_YET_USED == LATER


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_the_environment(name: str) -> None:
    text, value = SETTINGS[name]
    assert getattr(load(**{name: f" {text}\n"}), name.lower()) == (value or text)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "setting"
    file.write_text(f"{SETTINGS[name][0]}\n")
    assert load(**{f"{name}_FILE": str(file)}) == load(**{name: SETTINGS[name][0]})


@pytest.mark.parametrize("name", [*SETTINGS, *LATER])
def test_an_empty_setting_is_no_setting(name: str) -> None:
    assert load(**{name: " ", f"{name}_FILE": ""}) == load()


@pytest.mark.parametrize("name", LATER)
def test_a_setting_of_a_later_version_is_accepted_and_noted(name: str) -> None:
    assert load(**{name: "x"}).not_yet_used == (name,)


NONSENSE = {
    "PORT": ["0", "65536", "-1", "80.0", "0x50", "eighty", "tcp://10.0.0.1:80", "\u0668\u0660",
             "9" * 5_000, "0" * 11 + "801234"],
    "HOST": ["http://localhost", "[::1]", "localhost:8000", "a b", "10.0.0.1/8", "-h"],
    "REDIS_URL": ["redis", "http://127.0.0.1", "redis://", "redis://[::1"],
    "KEY_LIMIT": ["0", "many", "1e3", "10000001"],
    "RETENTION_DAYS": ["0", "90d", "36501"],
    "AUDIT_MODE": ["lax", "1"],
    "SYNCHRONOUS": ["off", "extra"],
    "TRUSTED_PROXIES": ["10.0.0.5/8", "proxy.example.com", "10.0.0.1 10.0.0.2", "*",
                        "fe80::1%eth0"],
    "BASE_URL": ["keys.example.com", "ftp://keys.example.com", "https://", "https://:443",
                 "https://keys.example.com/latchkey", "https://keys.example.com?a=b",
                 "https://keys.example.com#a", "https://user:pw@keys.example.com",
                 "https://keys.example.com:99999", "https://[::1", "https://a b", "//a",
                 "https://a\nb"],
    "GEOIP_DATABASE": ["/nowhere/country.mmdb", "/", "~nobody-here/country.mmdb", "/" + "x" * 300],
    "DATA_DIR": ["~nobody-here/data"],
}  # fmt: skip
ALLOWED = {
    "PORT": "a whole number from 1 to 65535 is allowed",
    "HOST": "an address or name of this machine, such as 127.0.0.1, :: or localhost, is allowed",
    "REDIS_URL": "redis://<host>:<port>/<number>, rediss://… or unix://<path> is allowed",
    "KEY_LIMIT": "a whole number from 1 to 10000000 is allowed",
    "RETENTION_DAYS": "a whole number from 1 to 36500 is allowed",
    "AUDIT_MODE": "strict or buffered is allowed",
    "SYNCHRONOUS": "normal or full is allowed",
    "TRUSTED_PROXIES": "a comma-separated list of networks such as 10.0.0.0/8 is allowed",
    "BASE_URL": "an address such as https://keys.example.com, without a path, is allowed",
    "GEOIP_DATABASE": "is allowed",
    "DATA_DIR": "a path is allowed",
}


@pytest.mark.parametrize(
    "name, value", [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_nonsense_stops_with_one_line_that_names_setting_value_and_what_is_allowed(
    name: str, value: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(**{name: value})
    words = str(refusal.value)
    shown = "(not shown)" if name in settings.NEVER_SHOWN else repr(value)
    assert words.startswith(f"LATCHKEY_{name}={shown} makes no sense: ")
    assert ALLOWED[name] in words
    assert "\n" not in words


@pytest.mark.parametrize(
    "url",
    ["mysql://u:hunter2@db/keys", "postgresql://u:hunter2@db", "postgresql://u:hunter2@db:x/keys",
     "postgresql://u:hunter2/@db/keys", "postgresql://u:hunter2#@db/keys", "hunter2", "sqlite://",
     "sqlite:///", "sqlite:///keys.db?hunter2", "sqlite:///keys#hunter2", "sqlite://hunter2/keys.db"],
)  # fmt: skip
def test_a_database_address_that_makes_no_sense_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(DATABASE_URL=url)
    words = str(refusal.value)
    assert words.startswith("LATCHKEY_DATABASE_URL=(not shown) makes no sense: sqlite:///<path> or")
    assert "hunter2" not in words


def test_a_short_secret_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2" * 4)
    for given in ({"SECRET_KEY": "hunter2" * 4}, {"SECRET_KEY_FILE": str(file)}):
        with pytest.raises(ConfigError, match="at least 32 characters are allowed") as refusal:
            load(**given)
        assert str(refusal.value).startswith("LATCHKEY_SECRET_KEY=(not shown) makes no sense: ")
        assert "hunter2" not in str(refusal.value)


def test_an_unknown_setting_stops_the_start_and_its_value_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refusal:
        load(SECRETKEY="hunter2")
    words = str(refusal.value)
    assert words.startswith("LATCHKEY_SECRETKEY is not a setting; the settings are ")
    assert all(f"LATCHKEY_{name}" in words for name in (*SETTINGS, *LATER))
    assert "hunter2" not in words


def test_other_programs_settings_are_left_alone() -> None:
    assert settings.load({"PORT": "nonsense", "latchkey_port": "x", "LATCHKEYPORT": "x"}) == load()


def test_a_setting_and_its_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LATCHKEY_PORT and LATCHKEY_PORT_FILE are both set"):
        load(PORT="80", PORT_FILE=str(tmp_path / "port"))


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, reason in (
        (tmp_path / "nowhere", "No such file"), (tmp_path, "Is a directory"), (binary, "not text"),
    ):  # fmt: skip
        with pytest.raises(
            ConfigError, match=f"LATCHKEY_PORT_FILE='{path}' cannot be read: {reason}"
        ):
            load(PORT_FILE=str(path))


BASE_URLS = {
    ("0.0.0.0", "80"): "http://127.0.0.1:80",
    ("::", "8000"): "http://[::1]:8000",
    ("::1", "8000"): "http://[::1]:8000",
    ("localhost", "8000"): "http://localhost:8000",
    ("10.0.0.5", "8000"): "http://10.0.0.5:8000",
}


@pytest.mark.parametrize("listening, url", BASE_URLS.items())
def test_the_public_address_is_derived_from_where_it_listens(
    listening: tuple[str, str], url: str
) -> None:
    host, port = listening
    assert load(HOST=host, PORT=port).base_url == url


@pytest.mark.parametrize(
    "text, url",
    [("https://keys.example.com/", "https://keys.example.com"),
     ("HTTPS://Keys.Example.com:8443", "https://keys.example.com:8443"),
     ("http://[2001:db8::1]:80", "http://[2001:db8::1]:80")],
)  # fmt: skip
def test_the_public_address_has_one_form(text: str, url: str) -> None:
    assert load(BASE_URL=text).base_url == url


def test_https_is_what_the_public_address_says() -> None:
    assert load(BASE_URL="https://keys.example.com").is_https
    assert not load().is_https


def test_a_trusted_network_mapped_into_ipv6_is_unwrapped() -> None:
    trusted = load(TRUSTED_PROXIES="::ffff:10.0.0.0/104").trusted_proxies
    assert trusted == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize("name", ["100% #1?", "my data", "d\u00e4ta", "a%23b", "+", "&=;"])
def test_the_data_directory_may_have_any_name(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    url = load(DATA_DIR=str(directory)).database_url
    assert db.sqlite_file(url) == directory / "latchkey.db"
    load(DATABASE_URL=url)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        load().port = 80  # type: ignore[misc]
    assert replace(load(), port=80).port == 80


def test_what_clients_are_told_to_set_stops_no_start() -> None:
    load(URL="http://127.0.0.1:8000", KEY="lk_live_x")
