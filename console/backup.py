"""Backups of a database of SQLite, made while it is served, verified, and put in its place again.

Whoever dies half-way leaves the old file or the new one, each whole: a draft is written beside it,
verified, synced and then renamed. Every failure is a BackupError, one line that says what to do.
"""

import glob
import json
import logging
import os
import re
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import peewee
from peewee import sqlite3  # type: ignore[attr-defined]

from config import Config
from console import LOCK_FILE, SECRET_KEY_FILE, batch, db, facts, in_use, present_secret_key
from console.journal import DIRECTORY, Journal

log = logging.getLogger(__name__)

MAGIC = b"SQLite format 3\0"
BEFORE_RESTORE = ".before-restore"
WAL, SHM, ROLLBACK = "-wal", "-shm", "-journal"
SIDES = (WAL, SHM, ROLLBACK, db.CHANGES_SUFFIX, in_use.SUFFIX)
DRAFT_SUFFIX = ".partial"
# One that was not written for so long was left by a process that was killed.
DRAFT_SECONDS = 12 * 60 * 60
JOURNAL_SECONDS = 30
OURS = {"project", "key", "secret", "entry", "event"}
FIRST_STEP = "0001_initial"
UNREADABLE = (
    "second factors, the secrets of webhooks and the answers kept for Idempotency-Key cannot be "
    "read any more, and everybody signs in again"
)
PASSWORDS = re.compile(r"(?:^|&)(?:ssl)?password=[^&]*")


class BackupError(Exception):
    """What is in the way, and what to do."""


@dataclass(frozen=True)
class Contents:
    """What a file holds that has been verified."""

    size: int  # bytes
    rows: dict[str, int]  # of each table
    steps: frozenset[str]  # the migrations that it has
    secret_key: str | None  # the digest of the key that it was used with

    @property
    def is_older(self) -> bool:
        return self.steps < _known_steps()


def _known_steps() -> frozenset[str]:
    return frozenset(path.stem for path in db.MIGRATIONS.glob("[0-9]*.py"))


# --- make -------------------------------------------------------------------------------------


def make(config: Config, file: Path) -> Contents:
    """Copies the database as it is in one instant, with all that was answered before the call."""
    command = f"pg_dump --format=custom --file={shlex.quote(str(file))}"
    live = _database_file(config, f"{command} {{url}}")
    if str(file) == "-":
        raise BackupError("a backup is not written to the terminal or a pipe: name a file")
    with _reading(live):
        _require_there(live)
    with _told(f"{file} cannot be written"):
        target = _target(config, file, live)
        try:
            with _reading(live):
                _open_live(config, live)
                _catch_up(config)
            with _draft(target, DRAFT_SECONDS) as draft:
                rows = _copy_snapshot(draft)
                made = verify(draft, name=f"the copy of {live}")
                _require_whole(made, rows, draft)
                _put(draft, target)
            _note(made)
        finally:
            db.close()
    return made


def _database_file(config: Config, command: str) -> Path:
    file = db.sqlite_file(config.database_url)
    if file is None:
        url = shlex.quote(_without_password(config.database_url))
        raise BackupError(
            "the database is PostgreSQL, which has a command of its own for this: "
            f"{command.format(url=url)} (password: PGPASSWORD or ~/.pgpass)"
        )
    return file.resolve()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}{at}{host}"
    query = PASSWORDS.sub("", parts.query).removeprefix("&")
    return urlunsplit(parts._replace(netloc=netloc, query=query))


@contextmanager
def _reading(live: Path) -> Iterator[None]:
    """What is in the way is with the database, not with the backup."""
    with _told(
        f"the database {live} cannot be read",
        right="read and write it, and what is beside it: run this as the user that serves",
        then="if it is damaged, restore a backup; else try again",
    ):
        yield


def _require_there(live: Path) -> None:
    if not live.exists():
        raise BackupError(f"there is no database {live}: is LATCHKEY_DATA_DIR what serve uses?")


def _target(config: Config, file: Path, live: Path) -> Path:
    """Where the backup goes: what a link leads to, and nothing that would be missed."""
    target = file.resolve()
    data_dir = config.data_dir.resolve()
    own = {data_dir / name for name in (DIRECTORY, LOCK_FILE, SECRET_KEY_FILE)}
    if own & {target, *target.parents}:
        raise BackupError(f"{file} is a place of Latchkey's own: name another file")
    if target in _family(live) or _is_same(target, live):
        raise BackupError(f"{file} belongs to the database itself: name another file")
    if not target.parent.is_dir():
        raise BackupError(f"{target.parent} is not there: make this directory first")
    if target.exists() and not (target.is_file() and _is_empty_or_ours(target)):
        raise BackupError(f"{file} is there and is no backup: name another file")
    for side in (_beside(target, suffix) for suffix in (WAL, ROLLBACK, in_use.SUFFIX)):
        if side.exists():
            raise BackupError(
                f"{file} is a database that is or was in use: {side.name} lies beside it; name "
                "another file"
            )
    return target


def _is_empty_or_ours(file: Path) -> bool:
    """Whether nobody misses what is in it but for whom it was a backup."""
    if (head := _head(file)) != MAGIC:
        return not head
    try:
        with closing(_open_still(file)) as database:
            return _has_our_tables(database)
    except sqlite3.DatabaseError:
        return False


def _family(live: Path) -> set[Path]:
    kept = _beside(live, BEFORE_RESTORE)
    return {live, kept, *(_beside(live, side) for side in SIDES)}


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _is_same(file: Path, other: Path) -> bool:
    return file.exists() and other.exists() and file.samefile(other)


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(MAGIC))


def _open_live(config: Config, live: Path) -> None:
    """Opens it as it is: who has installed a newer version wants what was there before it."""
    db.open_database(config.database_url, synchronous=config.synchronous)
    steps = _steps(db.handle.connection(), str(live))
    if steps != _known_steps():
        raise BackupError(
            f"{live} is of an older version: make the backup with that one, before you upgrade, "
            "or bring it to this version with the command migrate"
        )


def _catch_up(config: Config) -> None:
    try:
        _journal(config).catch_up(JOURNAL_SECONDS)
    except TimeoutError as error:
        raise BackupError(f"{error}: the server's log says why; mend that first") from None


def _journal(config: Config) -> Journal:
    return Journal(config.data_dir, batch.store, in_background=False)


@contextmanager
def _draft(target: Path, stale_seconds: float) -> Iterator[Path]:
    """A new file beside it, for this user alone, that is gone afterwards unless it was renamed.
    Older ones go at once: whoever was killed left them."""
    prefix = f".{target.name}."
    for left in target.parent.glob(f"{glob.escape(prefix)}*{DRAFT_SUFFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime >= stale_seconds:
                left.unlink()
    descriptor, name = tempfile.mkstemp(DRAFT_SUFFIX, prefix, target.parent)
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
    finally:
        for suffix in ("", WAL, SHM, ROLLBACK):
            _beside(draft, suffix).unlink(missing_ok=True)


def _copy_snapshot(draft: Path) -> dict[str, int]:
    """Copies the database that is open, and counts its rows in the same read transaction, which
    keeps nobody from writing."""
    source = db.handle.connection()
    source.execute("begin")
    try:
        rows = _count(source)
        _require_room(draft.parent, _size(source))
        with closing(sqlite3.connect(draft)) as copy:
            copy.execute("pragma synchronous = off")  # it is synced once, at the end
            source.backup(copy)
        # Anew, for a connection learns from the file only then that it is in WAL mode.
        with closing(sqlite3.connect(draft)) as copy:
            copy.execute("pragma journal_mode = delete")
    finally:
        source.execute("rollback")
    return rows


def _size(database: Any) -> int:
    [(pages,)], [(page_bytes,)] = (
        database.execute(f"pragma {name}").fetchall() for name in ("page_count", "page_size")
    )
    return int(pages) * int(page_bytes)


def _require_room(directory: Path, needed: int) -> None:
    """Rather than to fill a disk on which a server may have its data."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise BackupError(
            f"{directory} has no room: {megabytes(needed)} are needed and {megabytes(free)} are "
            "free; make room, or name a file on another disk"
        )


def megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"


def _require_whole(made: Contents, rows: dict[str, int], draft: Path) -> None:
    if made.rows != rows or made.steps != _known_steps() or _needs_wal(draft):
        raise BackupError("the copy is not what was copied: try again, and look at the disk")


def _needs_wal(file: Path) -> bool:
    """Whether SQLite would read it with a -wal beside it (file format, offsets 18 and 19)."""
    with file.open("rb") as opened:
        return opened.read(20)[18:] != b"\1\1"


def _put(draft: Path, target: Path) -> None:
    """The file has either content, whatever happens, and a loss of power too."""
    _sync(draft)
    draft.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _note(made: Contents) -> None:
    told = {"bytes": made.size, **{name: made.rows[name] for name in ("key", "entry", "event")}}
    try:
        facts.note(facts.LAST_BACKUP, json.dumps(told))
    except peewee.PeeweeException as error:  # the backup is good all the same
        log.warning("that a backup was made could not be noted: %s", db.reason(error))


@contextmanager
def _told(
    what: str,
    *,
    right: str = "write there, and room",
    then: str = "nothing was changed, try again",
) -> Iterator[None]:
    """What the disk, SQLite or another process refuses, as one line."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise BackupError(
            f"{what}: {error.strerror or error}{where}; user {os.getuid()} needs the right to "
            f"{right}"
        ) from None
    except in_use.Taken as error:
        raise BackupError(str(error)) from None
    except (peewee.PeeweeException, sqlite3.Error) as error:
        raise BackupError(f"{what}: {db.reason(error)}; {then}") from None


# --- verify -----------------------------------------------------------------------------------


def verify(file: Path, *, name: str = "") -> Contents:
    """Reads all of a backup, and changes nothing, not even beside it. `name`: what to call it."""
    name = name or str(file)
    with _told(f"{name} cannot be read"):
        _require_sqlite(file, name)
        try:
            with closing(_open_still(file)) as database:
                return _contents(database, file, name)
        except sqlite3.DatabaseError as error:
            raise BackupError(
                f"{name} is damaged or cut short ({error}): use another backup"
            ) from None


def _require_sqlite(file: Path, name: str) -> None:
    if not file.exists():
        raise BackupError(f"{name} is not there: name a file that the command backup made")
    if not stat.S_ISREG(file.stat().st_mode) or _head(file) != MAGIC:
        raise BackupError(f"{name} is no SQLite database: name a file that the command backup made")
    for side in (_beside(file, WAL), _beside(file, ROLLBACK)):
        if side.exists():
            raise BackupError(
                f"{name} was copied while it was in use: {side.name} lies beside it, and the two "
                "may not belong together; use a file that the command backup made"
            )


def _open_still(file: Path) -> Any:
    """Immutable: SQLite takes no lock and makes no file beside it."""
    url = f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1"
    database = sqlite3.connect(url, uri=True, isolation_level=None)
    database.execute("pragma trusted_schema = 0")
    return database


def _contents(database: Any, file: Path, name: str) -> Contents:
    steps = _steps(database, name)
    _require_sound(database, name)
    return Contents(file.stat().st_size, _count(database), steps, _secret_key_of(database))


def _steps(database: Any, name: str) -> frozenset[str]:
    """The migrations that it has."""
    steps: frozenset[str] = frozenset()
    if _has_our_tables(database):
        steps = frozenset(row[0] for row in database.execute("select name from schema_migration"))
    if FIRST_STEP not in steps:
        raise BackupError(
            f"{name} is a SQLite database, but not Latchkey's: name a file that the command "
            "backup made"
        )
    newer = sorted(steps - _known_steps())
    if newer:
        raise BackupError(
            f"{name} was made by a newer version (it has {', '.join(newer)}): install that one, "
            "then try again"
        )
    return steps


def _has_our_tables(database: Any) -> bool:
    return set(_tables(database)) >= OURS | {"schema_migration"}


def _tables(database: Any) -> list[str]:
    found = database.execute(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' "
        "escape '\\'"
    )
    return [row[0] for row in found]


def _require_sound(database: Any, name: str) -> None:
    [(found,)] = database.execute("pragma integrity_check(1)").fetchall()
    if found != "ok":
        said = " ".join(found.split())
        raise BackupError(f"{name} is damaged or cut short ({said}): use another backup")
    stray = database.execute("pragma foreign_key_check").fetchone()
    if stray is not None:
        raise BackupError(
            f"{name} is not whole: a row of {stray[0]} belongs to one of {stray[2]} that is not "
            "there; use another backup"
        )


def _count(database: Any) -> dict[str, int]:
    rows = {}
    for table in _tables(database):
        quoted = table.replace('"', '""')
        [(rows[table],)] = database.execute(f'select count(*) from "{quoted}"').fetchall()
    return rows


def _secret_key_of(database: Any) -> str | None:
    if "fact" not in _tables(database):
        return None
    query = "select value from fact where name = ?"
    found = database.execute(query, (facts.SECRET_KEY,)).fetchone()
    return found[0] if found else None


# --- restore ----------------------------------------------------------------------------------


def restore(config: Config, file: Path, *, with_other_secret_key: bool = False) -> Contents:
    """Puts a backup in the database's place, which stays beside it as `.before-restore`. Until all
    is verified, nothing of what is there is touched."""
    named = shlex.quote(str(file))
    command = f"pg_restore --no-owner --dbname={{url}} {named}, into a new database"
    live = _database_file(config, command)
    with _told(f"{file} cannot be restored"):
        _require_sqlite(file, str(file))
        if _is_same(file, live):
            raise BackupError(f"{file} is the database itself: name a backup")
        live.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with in_use.alone(live):
                return _restore(config, file, live, with_other_secret_key)
        except in_use.Taken as error:
            raise BackupError(f"{error}: stop it, then restore") from None


def _restore(config: Config, file: Path, live: Path, with_other_secret_key: bool) -> Contents:
    with _draft(live, 0) as draft:  # nobody else restores now
        _require_room(live.parent, file.stat().st_size)
        shutil.copyfile(file, draft)
        restored = verify(draft, name=str(file))
        if not with_other_secret_key:
            _require_key(config, restored, file)
        _give_to_owner(draft)
        _set_aside(config, live)
        _put(draft, live)
    return restored


def _require_key(config: Config, restored: Contents, file: Path) -> None:
    key_file = config.data_dir / SECRET_KEY_FILE
    present = present_secret_key(config)
    if restored.secret_key in (None, facts.key_digest(present)):
        return
    here = "there is none here yet" if not present else "another one is set here"
    raise BackupError(
        f"{file} was made with a secret key, and {here}: set LATCHKEY_SECRET_KEY to that one, or "
        f"copy that installation's file {SECRET_KEY_FILE} to {key_file}. Where it is lost, add "
        f"--with-other-secret-key: then {UNREADABLE}"
    )


def _give_to_owner(draft: Path) -> None:
    """Root's file would be closed to the user as whom the server runs."""
    if os.geteuid() == 0:
        owner = draft.parent.stat()
        os.chown(draft, owner.st_uid, owner.st_gid)


# What is in the journal was answered after the backup or was stored before it, and the table
# `drained` of the restored database says which: its positions are of the same transaction as the
# rows. So the files stay, and the next start stores from there on what they hold, once. What was
# left of them by a server that was killed is stored in the old database, too, for that is where it
# was answered: so that one can go back to it, and miss nothing.


def _set_aside(config: Config, live: Path) -> None:
    """Keeps the database that is there, in a single file: once under both names, until the new one
    takes the first. What lay beside it goes before that: a -wal would be read into the new one."""
    kept = _beside(live, BEFORE_RESTORE)
    if live.exists():
        is_sound = _settle(config, live)
        for side in (WAL, SHM):
            _beside(kept, side).unlink(missing_ok=True)
        _keep(live, kept)
        if not is_sound and _beside(live, WAL).exists():
            _beside(live, WAL).replace(_beside(kept, WAL))
    for side in (WAL, SHM, ROLLBACK, db.CHANGES_SUFFIX):
        _beside(live, side).unlink(missing_ok=True)
    _sync(live.parent)


def _settle(config: Config, live: Path) -> bool:
    """Brings all that belongs to it into the one file; False where it is damaged, and is to be kept
    as it is. Raises OperationalError while any other program has it open."""
    try:
        db.open_database(config.database_url)
        if db.handle.table_exists("schema_migration") and _is_of_this_version():
            _journal(config).recover(remove=False)
        if db.handle.pragma("journal_mode", "delete") != "delete":
            raise peewee.OperationalError("database is locked")
        return True
    except peewee.OperationalError as error:
        if "locked" in str(error):
            raise in_use.Taken(f"another program has {live} open") from None
        raise
    except peewee.DatabaseError:
        return False
    finally:
        db.close()


def _is_of_this_version() -> bool:
    rows = db.handle.execute_sql("select name from schema_migration")
    return {row[0] for row in rows} == _known_steps()


def _keep(live: Path, kept: Path) -> None:
    draft = _beside(kept, DRAFT_SUFFIX)
    draft.unlink(missing_ok=True)
    os.link(live, draft)
    draft.replace(kept)
    draft.unlink(missing_ok=True)  # where both were the same file already, nothing was renamed
