"""Every setting: its default, its file, and the one line that stops the start over nonsense."""

from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

import config as settings
from config import Config, ConfigError, MappedRole, Networks
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
    "SMTP_URL": ("smtp://latchkey:p%40ss@mail.example.com:587", None),
    "MAIL_FROM": ("Latchkey <keys@example.com>", None),
    "APPRISE_URLS": (
        "json://a.example/ json://b.example/",
        ("json://a.example/", "json://b.example/"),
    ),
    "LOG_FORMAT": ("JSON", "json"),
    "LOG_LEVEL": ("info", None),
    "METRICS_TOKEN": ("s3cret", None),
    "OIDC_ISSUER": ("http://127.0.0.1:9108", None),
    "OIDC_CLIENT_ID": ("keys", None),
    "OIDC_CLIENT_SECRET": (SECRET, None),
    "OIDC_NAME": ("Keycloak", None),
    "OIDC_SCOPES": ("openid  groups", "openid groups"),
    "OIDC_TRUST_EMAIL": ("Yes", True),
    "OIDC_ROLE_CLAIM": ("https://example.com/roles", None),
    "OIDC_ROLES": (
        "platform=owner, /All Ops=shop:admin,\nsupport = shop:viewer",
        (
            MappedRole("platform", None, "owner"),
            MappedRole("/All Ops", "shop", "admin"),
            MappedRole("support", "shop", "viewer"),
        ),
    ),
}
# What makes sense only beside another.
SIGN_ON = {
    "OIDC_ISSUER": "https://login.example.com/realms/shop",
    "OIDC_CLIENT_ID": "latchkey",
    "OIDC_CLIENT_SECRET": "hunter2",
}
MAPPING = {"OIDC_ROLE_CLAIM": "groups", "OIDC_ROLES": "platform=owner"}
NEEDS = {
    "SMTP_URL": {"MAIL_FROM": "keys@example.com"},
    **{
        name: {other: text for other, text in (SIGN_ON | MAPPING).items() if other != name}
        for name in (*settings.OIDC_NEEDS, *settings.OIDC_MORE)
    },
}


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
        smtp_url="",
        mail_from="",
        apprise_urls=(),
        log_format="text",
        log_level="warning",
        metrics_token="",
        oidc_issuer="",
        oidc_client_id="",
        oidc_client_secret="",
        oidc_name="single sign-on",
        oidc_scopes="openid email profile",
        oidc_trust_email=False,
        oidc_role_claim="",
        oidc_roles=(),
    )


def test_every_setting_is_in_this_table() -> None:
    assert {field.name.upper() for field in fields(Config)} == {*SETTINGS}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_the_environment(name: str) -> None:
    text, value = SETTINGS[name]
    given = {**NEEDS.get(name, {}), name: f" {text}\n"}
    assert getattr(load(**given), name.lower()) == (value or text)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "setting"
    file.write_text(f"{SETTINGS[name][0]}\n")
    more = NEEDS.get(name, {})
    by_file = load(**{**more, f"{name}_FILE": str(file)})
    assert by_file == load(**{**more, name: SETTINGS[name][0]})


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_setting_is_no_setting(name: str) -> None:
    assert load(**{name: " ", f"{name}_FILE": ""}) == load()


NONSENSE = {
    "PORT": ["0", "65536", "-1", "80.0", "0x50", "eighty", "tcp://10.0.0.1:80", "\u0668\u0660",
             "9" * 5_000, "0" * 11 + "801234"],
    "HOST": ["http://localhost", "[::1]", "localhost:8000", "a b", "10.0.0.1/8", "-h"],
    "REDIS_URL": ["redis", "http://127.0.0.1", "redis://", "redis://[::1", "redis://127.0.0.1/abc"],
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
    "SMTP_URL": ["mail.example.com", "smtp://", "http://mail.example.com", "smtp://:587",
                 "smtp://mail.example.com:0", "smtp://mail.example.com:99999", "smtp://[::1",
                 "smtp://mail.example.com/inbox", "smtp://mail.example.com?tls=1", "smtp://a b",
                 "smtp://mail.example.com#a", "smtp://user@mail.example.com",
                 "smtp://:hunter2@mail.example.com", "smtp://u:hunter/2@mail.example.com"],
    "MAIL_FROM": ["keys", "@example.com", "keys@", "a@example.com, b@example.com", "Ada",
                  "<keys@example.com", "Latchkey keys@example.com", "k\u00e9ys@example.com",
                  "Latch\nkey <keys@example.com>", "a@b@example.com"],
    "OIDC_ISSUER": ["login.example.com", "http://login.example.com", "https://", "https://a b",
                    "https://u:p@login.example.com", "https://login.example.com?a=b",
                    "https://login.example.com#a", "ftp://127.0.0.1", "https://[::1"],
    "OIDC_NAME": ["x" * 51, "two\nlines"],
    "OIDC_SCOPES": ["email", "openid \"all\""],
    "OIDC_TRUST_EMAIL": ["maybe"],
    "OIDC_ROLES": ["platform", "=owner", "platform=", "platform=admin", "platform=shop",
                   "platform=shop:owner", "platform=Shop:admin", "platform=:admin",
                   "platform=owner payments=shop:admin", "platform=owner; a=shop:admin"],
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
    "SMTP_URL": "smtp://<host>:<port>, with <user>:<password>@ before the host",
    "MAIL_FROM": "an address such as keys@example.com or Latchkey <keys@example.com> is allowed",
    "OIDC_ISSUER": "the provider's issuer, such as https://login.example.com, is allowed",
    "OIDC_NAME": "up to 50 characters on one line are allowed",
    "OIDC_SCOPES": "names with space between them are allowed, openid among them",
    "OIDC_TRUST_EMAIL": "yes or no is allowed",
    "OIDC_ROLES": "a list such as platform=owner, payments=shop:admin is allowed",
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


def test_a_mail_server_needs_a_sender_and_its_password_is_never_shown() -> None:
    with pytest.raises(ConfigError) as refusal:
        load(SMTP_URL="smtp://u:hunter2@mail.example.com")
    assert str(refusal.value).startswith("LATCHKEY_SMTP_URL needs LATCHKEY_MAIL_FROM")
    with pytest.raises(ConfigError, match=r"\(not shown\)") as refusal:
        load(SMTP_URL="smtp://u:hunter2@mail.example.com/x")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("missing", [*SIGN_ON, *MAPPING])
def test_half_of_a_single_sign_on_stops_the_start(missing: str) -> None:
    given = {name: value for name, value in (SIGN_ON | MAPPING).items() if name != missing}
    with pytest.raises(ConfigError, match=rf"LATCHKEY_\w+ needs LATCHKEY_{missing}: ") as refusal:
        load(**given)
    assert "hunter2" not in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_said_about_no_single_sign_on_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="LATCHKEY_OIDC_NAME needs LATCHKEY_OIDC_ISSUER: "):
        load(OIDC_NAME="Keycloak")


@pytest.mark.parametrize("text", ["keys@example.com", "<keys@example.com>", "L <keys@example.com>",
                                  '"Latchkey, Ltd." <keys@example.com>'])  # fmt: skip
def test_a_sender_may_have_a_name(text: str) -> None:
    assert load(MAIL_FROM=text).mail_from == text


def test_an_unknown_setting_stops_the_start_and_its_value_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refusal:
        load(SECRETKEY="hunter2")
    words = str(refusal.value)
    assert words.startswith("LATCHKEY_SECRETKEY is not a setting; the settings are ")
    assert all(f"LATCHKEY_{name}" in words for name in SETTINGS)
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
