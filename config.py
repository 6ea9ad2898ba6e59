"""Every setting, read from the environment once: `LATCHKEY_<NAME>`, or a file's content by
`LATCHKEY_<NAME>_FILE`. A setting that makes no sense stops the start with one line."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
Network = IPv4Network | IPv6Network

PREFIX = "LATCHKEY_"

# Promised, and read by a later version: named here so that a set one is not a silent surprise.
NOT_YET_USED = ("REDIS_URL", "METRICS_TOKEN", "SMTP_URL", "MAIL_FROM")
NEVER_SHOWN = ("SECRET_KEY", "DATABASE_URL")


class ConfigError(Exception):
    """A setting that makes no sense: names it, its value and what is allowed."""


@dataclass(frozen=True)
class Config:
    data_dir: Path  # database, generated secret key, lock file
    database_url: str  # sqlite:///<path> or postgresql://…
    host: str
    port: int
    base_url: str  # public address, used in links and cookies
    secret_key: str  # signs sessions and access tokens; empty: made once in data_dir
    trusted_proxies: tuple[Network, ...]  # whose forwarded headers are believed
    key_limit: int  # live keys per project, unless the project sets its own
    audit_mode: str  # strict | buffered
    synchronous: str  # normal | full (survives power loss)
    retention_days: int  # of entries
    geoip_database: Path | None  # an .mmdb instead of the built-in country data
    not_yet_used: tuple[str, ...] = ()

    @property
    def is_https(self) -> bool:
        return self.base_url.startswith("https://")


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The settings of this environment. Raises ConfigError."""
    source = _Source(os.environ if environ is None else environ)
    data_dir = source.read("DATA_DIR", "./data", _path)
    host = source.read("HOST", "127.0.0.1", str)
    port = source.read("PORT", "8000", _whole_number(1, 65535))
    # An address to open: one that listens everywhere is also this machine's own.
    shown_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        host, f"[{host}]" if ":" in host else host
    )
    config = Config(
        data_dir=data_dir,
        database_url=source.read(
            "DATABASE_URL", f"sqlite:///{data_dir.resolve() / 'latchkey.db'}", _database_url
        ),
        host=host,
        port=port,
        base_url=source.read("BASE_URL", f"http://{shown_host}:{port}", _base_url),
        secret_key=source.read("SECRET_KEY", "", _secret_key),
        trusted_proxies=source.read("TRUSTED_PROXIES", "127.0.0.1/32,::1/128", _networks),
        key_limit=source.read("KEY_LIMIT", "20", _whole_number(1, 10_000_000)),
        audit_mode=source.read("AUDIT_MODE", "strict", _one_of("strict", "buffered")),
        synchronous=source.read("SYNCHRONOUS", "normal", _one_of("normal", "full")),
        retention_days=source.read("RETENTION_DAYS", "90", _whole_number(1, 36_500)),
        geoip_database=source.read("GEOIP_DATABASE", "", _existing_file),
        not_yet_used=tuple(name for name in NOT_YET_USED if source.text(name) is not None),
    )
    source.refuse_unknown()
    return config


class _Source:
    """The environment's LATCHKEY_ settings, and which of them were asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.known: set[str] = set()

    def text(self, name: str) -> str | None:
        self.known.update((PREFIX + name, f"{PREFIX}{name}_FILE"))
        path = self.environ.get(f"{PREFIX}{name}_FILE")
        if path is None:
            return self.environ.get(PREFIX + name)
        if PREFIX + name in self.environ:
            raise ConfigError(f"{PREFIX}{name} and {PREFIX}{name}_FILE are both set: keep one")
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"{PREFIX}{name}_FILE={path!r} cannot be read: {reason}") from None

    def read(self, name: str, default: str, kind: Callable[[str], T]) -> T:
        given = self.text(name)
        value = default if given is None or not given.strip() else given.strip()
        try:
            return kind(value)
        except ValueError as error:
            shown = "(not shown)" if name in NEVER_SHOWN else repr(value)
            raise ConfigError(f"{PREFIX}{name}={shown} makes no sense: {error}") from None

    def refuse_unknown(self) -> None:
        unknown = sorted(n for n in self.environ if n.startswith(PREFIX) and n not in self.known)
        if unknown:
            allowed = ", ".join(sorted(n for n in self.known if not n.endswith("_FILE")))
            raise ConfigError(f"{unknown[0]} is not a setting; the settings are {allowed}")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _existing_file(text: str) -> Path | None:
    if not text:
        return None
    path = _path(text)
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
            raise ValueError(f"a whole number from {least} to {most} is allowed")
        return int(text)

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"{' or '.join(allowed)} is allowed")
        return text.lower()

    return parse


def _networks(text: str) -> tuple[Network, ...]:
    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(item))
        except ValueError as error:
            raise ValueError(
                f"a comma-separated list of networks such as 10.0.0.0/8 is allowed ({error})"
            ) from None
    return tuple(networks)


def _database_url(text: str) -> str:
    parts = urlsplit(text)
    sqlite = parts.scheme == "sqlite" and text.startswith("sqlite:///") and parts.path.strip("/")
    server = parts.scheme in ("postgresql", "postgres") and parts.path.strip("/")
    if not sqlite and not server:
        raise ValueError("sqlite:///<path> or postgresql://<host>/<database> is allowed")
    return text


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError("an address such as https://keys.example.com, without a path, is allowed")
    return f"{parts.scheme}://{parts.netloc}"


def _secret_key(text: str) -> str:
    if text and len(text) < 32:
        raise ValueError("at least 32 characters are allowed; leave it out to have one made")
    return text
