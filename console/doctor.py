"""What is misconfigured on this machine, and how to mend it. Reads only, within ten seconds."""

import os
import shutil
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import peewee

from config import Config, ConfigError
from console import (
    SECRET_KEY_FILE,
    backup,
    clock,
    db,
    facts,
    journal,
    limits,
    mail,
    oidc,
    partitions,
    people,
    present_secret_key,
    sso,
    status,
)
from console.models import Key

OPEN_TO_ALL = 0
MAIL_SECONDS = 3.0
POSTGRESQL_SECONDS = 3
READERS, LOCKS_ENOUGH = 40, 256  # who may read the log at once
POSTGRESQL_OLDEST = 14
GB = 1_000_000_000
FREE_MIN_BYTES = GB
FREE_MIN_SHARE, FREE_ALWAYS_ENOUGH = 0.05, 10 * GB
BACKUP_DAYS = 7
IN_MEMORY = ":memory:"
MOUNTS = Path("/proc/mounts")
# On which locks or shared memory do not hold as on a disk of one's own.
NETWORK_SYSTEMS = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "fuse.glusterfs", "afs",
)  # fmt: skip


def examine(config: Config) -> list[str]:
    """One finding a line; none when all is well."""
    return list(dict.fromkeys(" ".join(finding.split()) for finding in _findings(config)))


def _findings(config: Config) -> Iterator[str]:
    for one in (
        _sqlite, _data_dir, _disk, _database, _redis, _network, _mail, _sign_on,
    ):  # fmt: skip
        try:
            yield from one(config)
        except OSError as error:  # what may not even be looked at is a finding as well
            yield (
                f"{error.filename or 'what the settings name'} cannot be examined by user "
                f"{os.getuid()}: {error.strerror or error}; run server and commands as one user"
            )


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
    if not directory.is_dir():
        yield f"LATCHKEY_DATA_DIR={str(directory)!r} is a file: name a directory"
        return
    yield from map(_not_ours, filter(_is_not_ours, _paths(config)))
    yield from _secret_key(config)
    is_open = os.access(directory / journal.DIRECTORY, os.R_OK | os.X_OK)
    if is_open and (left := journal.left_behind(directory)):
        yield (
            f"{directory / journal.DIRECTORY} has {left} file{'s' * (left > 1)} of a process that "
            "is gone, with entries to be stored: start the server; one that runs does so by itself"
        )


def _secret_key(config: Config) -> Iterator[str]:
    path = config.data_dir / SECRET_KEY_FILE
    if not os.path.exists(path):
        return
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield f"{path} can be read by others: chmod 600 it"
    try:
        present_secret_key(config)
    except ConfigError as error:
        yield str(error)


def _paths(config: Config) -> list[Path]:
    """What the server must be able to write, as far as it is there."""
    directory, file = config.data_dir, db.sqlite_file(config.database_url)
    paths = [directory, directory / journal.DIRECTORY]
    if file is not None:
        paths += [file.parent, *(file.with_name(file.name + end) for end in db.FILE_ENDS)]
    # Of what is in a directory that is closed to this user, nothing is known.
    return [path for path in {one.resolve(): one for one in paths}.values() if os.path.exists(path)]


def _is_not_ours(path: Path) -> bool:
    """Root may write everything; what it makes among another user's files, that user may not."""
    is_roots = os.getuid() == 0 and path.stat().st_uid != 0
    return is_roots or not os.access(path, os.W_OK)


def _not_ours(path: Path) -> str:
    owner, me = path.stat().st_uid, os.getuid()
    if owner == me:
        return f"{path} cannot be written by its own user {me}: chmod u+w it"
    return (
        f"{path} belongs to user {owner}, and this is user {me}: run server and commands as one "
        "user, and chown the data directory to it, with all that is in it"
    )


def _disk(config: Config) -> Iterator[str]:
    file = db.sqlite_file(config.database_url)
    places = [config.data_dir, *([file.parent] if file is not None else [])]
    for place in dict.fromkeys(path.resolve() for path in places if path.exists()):
        kind = _file_system(place)
        if kind in NETWORK_SYSTEMS:
            yield (
                f"{place} is on a network file system ({kind}), on which locks and mapped files do "
                "not hold: put it on a local disk"
            )
        disk = shutil.disk_usage(place)
        share = min(FREE_MIN_SHARE * disk.total, FREE_ALWAYS_ENOUGH)
        if disk.free < max(FREE_MIN_BYTES, share):
            yield (
                f"{place} is on a disk of {disk.total / GB:.0f} GB with {disk.free / GB:.1f} GB "
                "left: make room, give it a larger one, or lower LATCHKEY_RETENTION_DAYS"
            )


def _file_system(place: Path) -> str:
    """The kind of file system that a path lies on; '' where the system does not tell."""
    if not MOUNTS.exists():
        return ""
    found, kind = Path(), ""
    for line in MOUNTS.read_text().splitlines():
        _, point, one, *_ = line.split(" ")
        mounted = Path(point.replace("\\040", " "))
        if place.is_relative_to(mounted) and len(mounted.parts) >= len(found.parts):
            found, kind = mounted, one
    return kind


def _database(config: Config) -> Iterator[str]:
    url, file = config.database_url, db.sqlite_file(config.database_url)
    if file is not None and (not os.path.exists(file) or _is_not_ours(file)):
        yield from _no_place(config, file)
        return  # opening it would make it, or what lies beside it, for the wrong user
    if file is None:
        yield from _shared_secret_key(config)
        if "connect_timeout" not in url:
            url += f"{'&' if '?' in url else '?'}connect_timeout={POSTGRESQL_SECONDS}"
    try:
        db.open_database(url)
        yield from _server()
        yield from _content(config)
    except peewee.PeeweeException as error:
        yield f"LATCHKEY_DATABASE_URL names a database that cannot be used: {error}"
    finally:
        db.close()


def _no_place(config: Config, file: Path) -> Iterator[str]:
    """Where no start could make the file; the data directory it makes, and what that lies in."""
    is_made = config.data_dir.resolve().is_relative_to(file.resolve().parent)
    if str(file) == IN_MEMORY:
        yield (
            "LATCHKEY_DATABASE_URL names no file, and what is in memory alone is gone at the end: "
            "name a file, as sqlite:////var/lib/latchkey/latchkey.db"
        )
    elif not is_made and not file.parent.is_dir():
        yield (
            f"LATCHKEY_DATABASE_URL names {file}, and the directory {file.parent} is not there: "
            "make it, or mend the address"
        )


def _shared_secret_key(config: Config) -> Iterator[str]:
    if not config.secret_key:
        made = config.data_dir / SECRET_KEY_FILE
        where = f"what {made} holds" if made.exists() else "32 random characters or more"
        yield (
            "LATCHKEY_SECRET_KEY is not set, and the database is PostgreSQL: each process with a "
            f"data directory of its own makes another key. Set it, to {where}, the same for all"
        )


def _server() -> Iterator[str]:
    if not db.is_sqlite():
        version = db.server_version()
        if int(version.partition(".")[0]) < POSTGRESQL_OLDEST:
            yield (f"PostgreSQL {version} is no longer supported: use {POSTGRESQL_OLDEST} or newer")
        yield from _locks()


def _locks() -> Iterator[str]:
    """Whoever reads the whole log holds some locks of each table of entries."""
    [(each, connections)] = db.handle.execute_sql(
        "select current_setting('max_locks_per_transaction')::int,"
        " current_setting('max_connections')::int"
    ).fetchall()
    tables = len(partitions.all_of_them()) if db.handle.table_exists("fact") else 0
    if tables * partitions.LOCKS_OF_EACH * READERS > each * connections:
        yield (
            f"entries lie in {tables} tables, and with max_locks_per_transaction = {each} few can "
            f"read them at once: set it to {LOCKS_ENOUGH} in postgresql.conf, then restart it"
        )


def _content(config: Config) -> Iterator[str]:
    pending, unknown = db.steps()
    if unknown:
        yield (
            f"the database was written by a newer version (it has {', '.join(unknown)}): install "
            "that version, or restore a backup made by this one"
        )
    elif pending:
        yield (
            f"the database is not at this version yet (it lacks {', '.join(pending)}): back it up, "
            "then start the server, or run migrate"
        )
    else:
        yield from _other_secret_key(config)
        if not people.anybody_yet():
            yield "nobody can sign in yet: run create-admin, or open the link that serve prints"
        yield from _backup()


def _other_secret_key(config: Config) -> Iterator[str]:
    noted = facts.read(facts.SECRET_KEY)
    try:
        present = present_secret_key(config)
    except ConfigError:
        return  # which is a finding already
    if noted not in (None, facts.key_digest(present)):
        here = "another is set here" if present else "there is none here"
        yield (
            f"the database was used with a secret key, and {here}: with another, "
            f"{backup.UNREADABLE}. Set LATCHKEY_SECRET_KEY to that one, or put it back in "
            f"{config.data_dir / SECRET_KEY_FILE}; where it is lost, start the server without it"
        )


def _backup() -> Iterator[str]:
    """Of PostgreSQL others make backups, and do not tell."""
    if not db.is_sqlite() or not Key.select().exists():
        return
    last = status.last_backup()
    if last is None:
        yield "there is no backup yet: run backup FILE, once a day from cron"
    elif clock.now() - last.at > BACKUP_DAYS * clock.DAY:
        days = (clock.now() - last.at) // clock.DAY
        yield f"the last backup is {days} days old: run backup FILE, once a day from cron"


def _redis(config: Config) -> Iterator[str]:
    if not config.redis_url:
        return
    try:
        client, failures = limits.connected(config.redis_url)
    except ValueError as error:
        yield f"LATCHKEY_REDIS_URL names no Redis: {error}"
        return
    try:
        with client:
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
    except failures as error:
        yield (
            f"LATCHKEY_REDIS_URL names a Redis that does not answer: {error}; start it, or mend "
            "the address: until then checks of limited keys are answered 503"
        )
        return
    if policy != "noeviction":
        yield (
            f"Redis has maxmemory-policy {policy} and may forget what limits have counted: set "
            "maxmemory-policy noeviction there"
        )


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
