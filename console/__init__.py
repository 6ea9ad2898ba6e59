"""Latchkey: a console for API keys. `create_app` wires settings, database, doors and errors."""

import contextlib
import os
import secrets
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import peewee
from flask import Flask

import config as settings
from config import Config, ConfigError
from console import (
    batch,
    country,
    db,
    facts,
    guessing,
    in_use,
    journal,
    known,
    letterbox,
    limits,
    links,
    mail,
    outbound,
    passwords,
    projects,
    proxy_calls,
    retention,
    second_factor,
    sso,
    throttle,
    webhooks,
    worker,
)
from console.journal import Journal

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parent.parent
SECRET_KEY_FILE = "secret_key"
LOCK_FILE = "latchkey.lock"
ROOM_BYTES = 64 * 1024  # less is no room for what SQLite puts beside its file


class NotNow(Exception):
    """What a start needs is not there, and may be in a moment: worth another try."""


def create_app(config: Config | None = None, *, in_background: bool = True) -> Flask:
    """The application: Flask for the console and the API, with the gate ahead of it.

    Raises ConfigError, NotNow, NewerSchema, or OperationalError for a database that cannot be used.
    """
    from console import api, gate, web

    config = start(config or settings.load())
    limits.use(config.redis_url)
    proxy_calls.share_by(config.redis_url)
    open_journal(config, in_background)
    facts.note_secret_key(config.secret_key)  # not by commands, which may be run without it
    passwords.warm_up()
    if in_background:
        worker.start()
    app = Flask("console", template_folder=str(ROOT / "templates"), static_folder=None)
    # A call with an id that got lost on the way is no other call, and no redirect to one.
    app.url_map.merge_slashes = False
    app.config.update(SECRET_KEY=config.secret_key, LATCHKEY=config)
    app.register_blueprint(api.blueprint)
    web.register(app, ROOT / "static")
    app.extensions["gate"] = gate.Gate(app.wsgi_app, config)
    app.wsgi_app = app.extensions["gate"]  # type: ignore[method-assign]
    return app


def open_journal(config: Config, in_background: bool) -> None:
    """Stores what a process before this one left behind, and takes entries from now on."""
    try:
        journal.use(
            Journal(
                config.data_dir,
                batch.store,
                # Buffered, a check waits for no disk: the last second is lost with the power.
                synced=config.synchronous == "full" and config.audit_mode == "strict",
                tidy=limits.forget_idle,  # what is stored already
                in_background=in_background,
            )
        )
    except OSError as error:
        raise ConfigError(
            f"{config.data_dir / journal.DIRECTORY} cannot be used: {error.strerror}; "
            f"it must be a directory that user {os.getuid()} may write to"
        ) from None


def start(config: Config) -> Config:
    """Opens what the settings name and migrates it; returns them with the secret key filled in."""
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = replace(config, secret_key=config.secret_key or _secret_key(config.data_dir))
    except OSError as error:
        raise ConfigError(
            f"LATCHKEY_DATA_DIR={str(config.data_dir)!r} cannot be used: {error.strerror}; "
            f"it must be a directory that user {os.getuid()} may write to"
        ) from None
    try:
        db.open_database(config.database_url, synchronous=config.synchronous)
        db.migrate(config.data_dir / LOCK_FILE)
        retention.use_days(config.retention_days)
        retention.prepare()
        known.look_for_imported()
    except in_use.Taken as error:
        raise NotNow(str(error)) from None
    except (peewee.OperationalError, OSError) as error:
        file = db.sqlite_file(config.database_url)
        if file is None:
            raise NotNow(
                f"PostgreSQL cannot be used: {' '.join(str(error).split())}; see that it runs, and "
                "that LATCHKEY_DATABASE_URL is right"
            ) from None
        raise ConfigError(
            f"the database cannot be opened: {db.reason(error)}; "
            f"{_what_to_do(config.data_dir, file)}"
        ) from None
    except peewee.DatabaseError as error:
        file = db.sqlite_file(config.database_url)
        if file is None or type(error) is not peewee.DatabaseError:
            raise
        raise ConfigError(
            f"the database cannot be used: {file}: {error}; if it is damaged, restore a backup "
            "(the command restore), else mend LATCHKEY_DATABASE_URL"
        ) from None
    projects.use_key_limit(config.key_limit)
    country.use_database(config.geoip_database)
    outbound.allow(config.webhook_networks)
    links.use_base_url(config.base_url)
    mail.use(config.smtp_url, config.mail_from)
    letterbox.use_apprise(config.apprise_urls)
    guessing.trust(config.trusted_proxies)
    webhooks.use_secret_key(config.secret_key)
    throttle.use_secret_key(config.secret_key)
    second_factor.use_secret_key(config.secret_key)
    sso.use(config)
    return config


def _what_to_do(data_dir: Path, file: Path) -> str:
    """SQLite says of a full disk and of one that is no good the same."""
    if not os.path.isdir(file.parent):
        return f"make the directory {file.parent} first, or mend LATCHKEY_DATABASE_URL"
    places = list(dict.fromkeys((data_dir.resolve(), file.parent.resolve())))
    for place in places:
        with contextlib.suppress(OSError):  # it may not even be looked at
            if shutil.disk_usage(place).free < ROOM_BYTES:
                return f"the disk of {place} is full: make room"
    named = " and ".join(map(str, places))
    return f"user {os.getuid()} must be able to write {named} and what is in it"


def _secret_key(data_dir: Path) -> str:
    """The key that signs sessions, made once and readable by this user alone.

    Written whole under another name and then linked, so that nobody reads half of it.
    """
    path = data_dir / SECRET_KEY_FILE
    if not path.exists():
        descriptor, draft = tempfile.mkstemp(dir=data_dir, prefix=SECRET_KEY_FILE)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        with contextlib.suppress(FileExistsError):  # another starter was first; its key holds
            os.link(draft, path)
        os.unlink(draft)
    return _read_secret_key(path)


def present_secret_key(config: Config) -> str:
    """The key that a server would use; '' where it would make one. Raises ConfigError."""
    path = config.data_dir / SECRET_KEY_FILE
    if config.secret_key or not os.path.exists(path):
        return config.secret_key
    return _read_secret_key(path)


def _read_secret_key(path: Path) -> str:
    """The key that was made there. Raises ConfigError where it cannot be used."""
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; user {os.getuid()} must be able to read it: "
            "chown it to the user that serves, and chmod 600 it"
        ) from None
    except UnicodeDecodeError:
        key = ""
    if len(key) < settings.SECRET_KEY_MIN_LENGTH:
        raise ConfigError(
            f"{path} holds no key of at least {settings.SECRET_KEY_MIN_LENGTH} characters: "
            "remove it to have a new one made; everybody then signs in again"
        )
    return key
