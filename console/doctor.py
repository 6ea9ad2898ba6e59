"""What is misconfigured on this machine, and how to mend it. Reads only."""

import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address

import peewee

from config import Config
from console import SECRET_KEY_FILE, db, mail, oidc, people, sso

OPEN_TO_ALL = 0
MAIL_SECONDS = 3.0


def examine(config: Config) -> list[str]:
    """One finding a line; none when all is well."""
    return [
        *_sqlite(config),
        *_data_dir(config),
        *_database(config),
        *_network(config),
        *_mail(config),
        *_sign_on(config),
    ]


def _sqlite(config: Config) -> Iterator[str]:
    version = db.sqlite_version()
    if config.database_url.startswith("sqlite") and db.has_wal_reset_bug(version):
        yield (
            f"SQLite {'.'.join(map(str, version))} can corrupt a database in WAL mode when two "
            "processes write at once (fixed in 3.51.3): install the package pysqlite3, or a newer "
            "SQLite; until then do not run commands beside the server"
        )


def _data_dir(config: Config) -> Iterator[str]:
    directory = config.data_dir
    if not directory.exists():
        yield f"{directory} is not there yet: start the server once"
        return
    if not os.access(directory, os.W_OK):
        yield f"{directory} cannot be written by user {os.getuid()}: chown it"
    secret_key = directory / SECRET_KEY_FILE
    if secret_key.exists() and stat.S_IMODE(secret_key.stat().st_mode) & 0o077:
        yield f"{secret_key} can be read by others: chmod 600 it"


def _database(config: Config) -> Iterator[str]:
    file = db.sqlite_file(config.database_url)
    if file is not None and not file.exists():
        return  # opening it would make it
    try:
        db.open_database(config.database_url)
        if db.handle.table_exists("person") and not people.anybody_yet():
            yield "nobody can sign in yet: run create-admin, or open the link that serve prints"
    except peewee.PeeweeException as error:
        yield f"LATCHKEY_DATABASE_URL names a database that cannot be used: {error}"
    finally:
        db.close()


def _network(config: Config) -> Iterator[str]:
    for network in config.trusted_proxies:
        if network.prefixlen == OPEN_TO_ALL:
            yield (
                f"LATCHKEY_TRUSTED_PROXIES has {network}: anybody could forge their address; "
                "name the proxies' own addresses"
            )
    try:
        on_loopback = ip_address(config.host).is_loopback
    except ValueError:
        on_loopback = config.host == "localhost"
    if not on_loopback and not config.is_https:
        yield (
            f"LATCHKEY_HOST={config.host!r} listens beyond this machine and LATCHKEY_BASE_URL is "
            "not https: put a proxy with TLS in front and set LATCHKEY_BASE_URL"
        )


def _mail(config: Config) -> Iterator[str]:
    if not config.smtp_url:
        if config.mail_from:
            yield "LATCHKEY_MAIL_FROM is set, but no mail is sent without LATCHKEY_SMTP_URL: set it"
        return
    mail.use(config.smtp_url, config.mail_from)
    try:
        mail.check(timeout_seconds=MAIL_SECONDS)
    except mail.NotSent as error:
        yield f"LATCHKEY_SMTP_URL: {error} Until that is mended, links are shown instead of mailed"
    finally:
        mail.use("", "")


def _sign_on(config: Config) -> Iterator[str]:
    trouble = oidc.examine(sso.client_of(config)) if config.oidc_issuer else None
    if trouble is not None:
        yield (
            f"LATCHKEY_OIDC_ISSUER={config.oidc_issuer!r} cannot be used: {trouble}; it must be "
            "reachable from here, and be what the provider calls itself, to the last slash"
        )
