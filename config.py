"""Every setting, read from the environment once: `LATCHKEY_<NAME>`, or a file's content by
`LATCHKEY_<NAME>_FILE`. A setting that makes no sense stops the start with one line."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, quote, urlsplit

T = TypeVar("T")
Network = IPv4Network | IPv6Network

PREFIX = "LATCHKEY_"

# What clients are told to set: in the shell of an operator who tries them, they are no mistake.
CLIENTS_OWN = ("URL", "KEY")
HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
SECRET_KEY_MIN_LENGTH = 32
OIDC_NAME_MAX_LENGTH = 50
VISIBLE = re.compile(r"[!-~]*")
SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, 3.3
NEVER_SHOWN = (
    "SECRET_KEY", "DATABASE_URL", "REDIS_URL", "SMTP_URL", "APPRISE_URLS", "METRICS_TOKEN",
    "OIDC_CLIENT_SECRET",
)  # fmt: skip
# What single sign-on needs, and what else can be said about it.
OIDC_NEEDS = ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")
OIDC_MORE = ("OIDC_NAME", "OIDC_SCOPES", "OIDC_TRUST_EMAIL", "OIDC_ROLE_CLAIM", "OIDC_ROLES")


class Networks(tuple[Network, ...]):
    """Networks that a cache finds without reckoning with each of them: checks ask often."""

    __hash__ = object.__hash__


@dataclass(frozen=True)
class MappedRole:
    """What a value of the role claim gives: a role in a project, or all of them (an owner)."""

    value: str
    slug: str | None  # None: an owner
    role: str


class ConfigError(Exception):
    """A setting that makes no sense: names it, its value and what is allowed."""


@dataclass(frozen=True)
class Config:
    data_dir: Path  # database, generated secret key, lock file
    database_url: str  # sqlite:///<path> or postgresql://…
    redis_url: str  # shared counts of limits; empty: each process counts for itself
    host: str
    port: int
    base_url: str  # public address, used in links and cookies
    secret_key: str  # signs sessions and access tokens; empty: made once in data_dir
    trusted_proxies: Networks  # whose forwarded headers are believed
    key_limit: int  # live keys per project, unless the project sets its own
    audit_mode: str  # strict | buffered
    synchronous: str  # normal | full (survives power loss)
    retention_days: int  # of entries
    geoip_database: Path | None  # an .mmdb instead of the built-in country data
    webhook_networks: Networks  # which webhooks may lead to, besides public addresses
    smtp_url: str  # the server that takes our mail; empty: none is sent
    mail_from: str  # whom it is from
    apprise_urls: tuple[str, ...]  # who else is told what people are; see Apprise
    log_format: str  # text | json
    log_level: str  # debug | info | warning | error
    metrics_token: str  # what /metrics asks for; empty: only this machine may read it
    oidc_issuer: str  # the provider of single sign-on; empty: there is none
    oidc_client_id: str  # what it knows us as
    oidc_client_secret: str
    oidc_name: str  # as the sign-in page calls it
    oidc_scopes: str  # what we ask to be told of a person
    oidc_trust_email: bool  # of an address that it does not call verified or unverified
    oidc_role_claim: str  # the claim that says in which groups somebody is
    oidc_roles: tuple[MappedRole, ...]  # and what each group gives here

    @property
    def is_https(self) -> bool:
        return self.base_url.startswith("https://")


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The settings of this environment. Raises ConfigError."""
    source = _Source(os.environ if environ is None else environ)
    data_dir = source.read("DATA_DIR", "./data", _path)
    host = source.read("HOST", "127.0.0.1", _host)
    port = source.read("PORT", "8000", _whole_number(1, 65535))
    # An address to open: one that listens everywhere is also this machine's own.
    shown_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        host, f"[{host}]" if ":" in host else host
    )
    config = Config(
        data_dir=data_dir,
        database_url=source.read(
            "DATABASE_URL", f"sqlite:///{quote(str(data_dir.resolve()))}/latchkey.db", _database_url
        ),
        redis_url=source.read("REDIS_URL", "", _redis_url),
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
        webhook_networks=source.read("WEBHOOK_NETWORKS", "", _networks),
        smtp_url=source.read("SMTP_URL", "", _smtp_url),
        mail_from=source.read("MAIL_FROM", "", _mail_from),
        apprise_urls=source.read("APPRISE_URLS", "", _apprise_urls),
        log_format=source.read("LOG_FORMAT", "text", _one_of("text", "json")),
        log_level=source.read("LOG_LEVEL", "warning", _one_of("debug", "info", "warning", "error")),
        metrics_token=source.read("METRICS_TOKEN", "", _metrics_token),
        oidc_issuer=source.read("OIDC_ISSUER", "", _issuer),
        oidc_client_id=source.text("OIDC_CLIENT_ID"),
        oidc_client_secret=source.text("OIDC_CLIENT_SECRET"),
        oidc_name=source.read("OIDC_NAME", "single sign-on", _short_name),
        oidc_scopes=source.read("OIDC_SCOPES", "openid email profile", _scopes),
        oidc_trust_email=source.read("OIDC_TRUST_EMAIL", "no", _one_of("yes", "no")) == "yes",
        oidc_role_claim=source.text("OIDC_ROLE_CLAIM"),
        oidc_roles=source.read("OIDC_ROLES", "", _mapped_roles),
    )
    source.refuse_unknown()
    if config.smtp_url and not config.mail_from:
        raise ConfigError(
            f"{PREFIX}SMTP_URL needs {PREFIX}MAIL_FROM, the address that mail is from, "
            "such as keys@example.com"
        )
    _refuse_half_a_sign_on(source)
    return config


def _refuse_half_a_sign_on(source: "_Source") -> None:
    """All that single sign-on needs, or nothing of it. Raises ConfigError."""
    given = [name for name in OIDC_NEEDS + OIDC_MORE if source.text(name)]
    missing = [name for name in OIDC_NEEDS if name not in given]
    if given and missing:
        raise ConfigError(
            f"{PREFIX}{given[0]} needs {PREFIX}{missing[0]}: single sign-on takes "
            f"{', '.join(PREFIX + name for name in OIDC_NEEDS)}"
        )
    both = ("OIDC_ROLE_CLAIM", "OIDC_ROLES")
    for name, other in (both, both[::-1]):
        if name in given and other not in given:
            raise ConfigError(
                f"{PREFIX}{name} needs {PREFIX}{other}: the one names the claim, the other says "
                "which of its values gives which role"
            )


class _Source:
    """The environment's LATCHKEY_ settings, and which of them were asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.known: set[str] = set()

    def text(self, name: str) -> str:
        """What is set, without the space around it; `""` where nothing is, or nothing but space."""
        self.known.update((PREFIX + name, f"{PREFIX}{name}_FILE"))
        given = self.environ.get(PREFIX + name, "").strip()
        path = self.environ.get(f"{PREFIX}{name}_FILE", "").strip()
        if not path:
            return given
        if given:
            raise ConfigError(f"{PREFIX}{name} and {PREFIX}{name}_FILE are both set: keep one")
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"{PREFIX}{name}_FILE={path!r} cannot be read: {reason}") from None

    def read(self, name: str, default: str, kind: Callable[[str], T]) -> T:
        value = self.text(name) or default
        try:
            return kind(value)
        except ValueError as error:
            shown = "(not shown)" if name in NEVER_SHOWN else repr(value)
            raise ConfigError(f"{PREFIX}{name}={shown} makes no sense: {error}") from None

    def refuse_unknown(self) -> None:
        known = self.known | {PREFIX + name for name in CLIENTS_OWN}
        unknown = sorted(n for n in self.environ if n.startswith(PREFIX) and n not in known)
        if unknown:
            allowed = ", ".join(sorted(n for n in self.known if not n.endswith("_FILE")))
            raise ConfigError(f"{unknown[0]} is not a setting; the settings are {allowed}")


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("a path is allowed; there is no such home directory") from None


def _existing_file(text: str) -> Path | None:
    if not text:
        return None
    path = _path(text)
    if not os.path.isfile(path):
        raise ValueError("the path of a file is allowed, and there is none that can be seen")
    return path


def _host(text: str) -> str:
    if not HOST_NAME.fullmatch(text):
        try:
            ip_address(text)
        except ValueError:
            raise ValueError(
                "an address or name of this machine, such as 127.0.0.1, :: or localhost, is allowed"
            ) from None
    return text


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        digits = text if text.isascii() and text.isdigit() and len(text) < 10 else "-1"
        if not least <= int(digits) <= most:
            raise ValueError(f"a whole number from {least} to {most} is allowed")
        return int(text)

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"{', '.join(allowed[:-1])} or {allowed[-1]} is allowed")
        return text.lower()

    return parse


def _networks(text: str) -> Networks:
    from console.addresses import parse_network  # the package imports this module

    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(parse_network(item))
        except ValueError as error:
            raise ValueError(
                f"a comma-separated list of networks such as 10.0.0.0/8 is allowed ({error})"
            ) from None
    return Networks(networks)


def _database_url(text: str) -> str:
    parts = _url_parts(text)
    named = parts is not None and bool(parts.path.strip("/")) and not parts.fragment
    sqlite = named and text.startswith("sqlite:///") and "?" not in text
    server = named and text.startswith(("postgresql://", "postgres://"))
    if not sqlite and not server:
        raise ValueError(
            "sqlite:///<path> or postgresql://<host>/<database> is allowed, with %23 for #, "
            "%25 for %, %2F for / and %3F for ? inside a name or password"
        )
    return text


def _redis_url(text: str) -> str:
    parts = _url_parts(text)
    if text and (
        parts is None
        or parts.scheme not in ("redis", "rediss", "unix")
        or not parts.path + parts.netloc
        or (parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path))
    ):
        raise ValueError("redis://<host>:<port>/<number>, rediss://… or unix://<path> is allowed")
    return text


def _smtp_url(text: str) -> str:
    from console import mail  # the package imports this module

    try:
        if text:
            mail.read_url(text)
    except ValueError:
        raise ValueError(
            "smtp://<host>:<port>, with <user>:<password>@ before the host where the server wants "
            "them, or smtps://… is allowed; write %40 for @, %2F for / and %25 for % in a password"
        ) from None
    return text


def _mail_from(text: str) -> str:
    from console import mail  # the package imports this module

    try:
        if text:
            mail.read_sender(text)
    except ValueError:
        raise ValueError(
            "an address such as keys@example.com or Latchkey <keys@example.com> is allowed"
        ) from None
    return text


def _apprise_urls(text: str) -> tuple[str, ...]:
    """Addresses with space between them, or each on its line."""
    from console import letterbox  # the package imports this module

    for number, url in enumerate(text.split(), start=1):
        try:
            letterbox.refuse_apprise(url)
        except ValueError:
            raise ValueError(
                f"number {number} is no address that Apprise knows; addresses such as "
                "slack://… or tgram://…, with space between them, are allowed"
            ) from None
    return tuple(dict.fromkeys(text.split()))


def _metrics_token(text: str) -> str:
    if not VISIBLE.fullmatch(text):
        raise ValueError("letters, digits and signs of ASCII, without space, are allowed")
    return text


def _issuer(text: str) -> str:
    parts = _url_parts(text)
    is_local = parts is not None and parts.hostname in ("127.0.0.1", "::1", "localhost")
    schemes = ("https", "http") if is_local else ("https",)
    if text and (
        parts is None
        or parts.scheme not in schemes
        or not parts.hostname
        or "@" in parts.netloc
        or "?" in text
        or "#" in text
        or any(character.isspace() for character in text)
    ):
        raise ValueError(
            "the provider's issuer, such as https://login.example.com, is allowed; http only on "
            "this machine"
        )
    return text


def _short_name(text: str) -> str:
    if len(text) > OIDC_NAME_MAX_LENGTH or not text.isprintable():
        raise ValueError(f"up to {OIDC_NAME_MAX_LENGTH} characters on one line are allowed")
    return text


def _scopes(text: str) -> str:
    scopes = text.split()
    if "openid" not in scopes or not all(SCOPE.fullmatch(scope) for scope in scopes):
        raise ValueError("names with space between them are allowed, openid among them")
    return " ".join(scopes)


def _mapped_roles(text: str) -> tuple[MappedRole, ...]:
    """`<value>=owner` or `<value>=<slug>:<role>`, with commas between, or each on its line."""
    from console.person_fields import ROLES  # the package imports this module
    from console.project_fields import SLUG

    mapped = []
    for item in filter(None, (part.strip() for part in re.split(r"[,\n]", text))):
        value, _, given = (part.strip() for part in item.partition("="))
        slug, _, role = given.partition(":")
        is_owner = given == "owner"
        if not value or not (is_owner or (SLUG.fullmatch(slug) and role in ROLES)):
            raise ValueError(
                f"of {item!r}: a list such as platform=owner, payments=shop:admin is allowed; "
                f"a role is owner, or a project's slug and {', '.join(ROLES)}"
            )
        mapped.append(MappedRole(value, *((None, given) if is_owner else (slug, role))))
    return tuple(mapped)


def _base_url(text: str) -> str:
    parts = _url_parts(text)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or any(character.isspace() for character in text)
    ):
        raise ValueError("an address such as https://keys.example.com, without a path, is allowed")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _url_parts(text: str) -> SplitResult | None:
    """The parts of a URL; None where its host or port cannot be one."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (reads the number, or raises)
    except ValueError:
        return None
    return parts


def _secret_key(text: str) -> str:
    if text and len(text) < SECRET_KEY_MIN_LENGTH:
        raise ValueError(
            f"at least {SECRET_KEY_MIN_LENGTH} characters are allowed; "
            "leave it out to have one made"
        )
    return text
