"""The command line: `python -m console COMMAND`. Parses and prints; the domain does the work."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import peewee

import config as settings
from config import Config, ConfigError
from console import (
    LOCK_FILE,
    SECRET_KEY_FILE,
    NotNow,
    actor,
    audit,
    backup,
    chain,
    clock,
    create_app,
    db,
    demo,
    doctor,
    first_owner,
    healthcheck,
    in_use,
    invitations,
    journal,
    key_list,
    keys,
    links,
    logs,
    move,
    open_journal,
    people,
    projects,
    retention,
    scan,
    secret,
    server,
    start,
    worker,
)
from console.errors import Refused
from console.models import Key, Project
from console.paging import LIMIT_MAX

FAILED, MISCONFIGURED, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Runs a command; whatever goes wrong is one line on stderr that says what to do."""
    logs.set_up()
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "latchkey"
        _fail(f"{error.format_message()} See {command} --help", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (ConfigError, db.NewerSchema) as error:
        _fail(str(error), MISCONFIGURED)
    except Refused as error:
        _fail(error.message, FAILED)
    except (NotNow, backup.BackupError, move.Differs) as error:
        _fail(str(error), FAILED)
    except peewee.PeeweeException as error:
        _fail(_unusable(error), FAILED)
    except UnicodeError:
        _fail("what was given is not text in UTF-8", FAILED)


def _fail(message: str, code: int) -> NoReturn:
    """One line, whatever was typed: nothing in it may move the cursor or colour the screen."""
    click.echo(f"latchkey: {' '.join(_printable(message).split())}", err=True)
    sys.exit(code)


def _unusable(error: peewee.PeeweeException) -> str:
    return f"the database cannot be used: {db.reason(error)}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Latchkey, a console for API keys. Settings come from the environment, LATCHKEY_…"""


@cli.command()
@click.option("--host", help="address to listen on (LATCHKEY_HOST)")
@click.option("--port", type=click.IntRange(1, 65535), help="port to listen on (LATCHKEY_PORT)")
def serve(host: str | None, port: int | None) -> None:
    """Migrate, then serve."""
    config = _config(HOST=host, PORT=str(port) if port else None)
    app = create_app(config)

    def announce() -> None:
        click.echo(f"Latchkey serves {config.base_url} (data in {config.data_dir})")
        token = first_owner.issue_setup_link()
        if token:
            click.echo(f"Become the owner: {links.address(links.SETUP, token)}")
        sys.stdout.flush()

    def stop() -> None:
        worker.stop()
        audit.store_attempts()
        journal.close()

    server.serve(
        app,
        config.host,
        config.port,
        is_quick=app.extensions["gate"].is_quick,
        on_start=announce,
        on_stop=stop,
    )


@cli.command()
def migrate() -> None:
    """Bring the database to this version; safe when several start at once."""
    start(_config())
    click.echo("The database is at this version.")


@cli.command("create-admin")
@click.option("--email", required=True)
@click.option("--name")
@click.option("--password-stdin", is_flag=True, help="read the password from standard input")
def create_admin(email: str, name: str | None, password_stdin: bool) -> None:
    """Add an owner: the first, or a further one."""
    if not password_stdin and not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to type a password: add --password-stdin.")
    start(_config())
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    fields = _given(email=email, name=name, password=password)
    person = people.create_owner(fields, by=actor.command_line())
    click.echo(f"{person.email} is an owner.")


@cli.command("login-link")
@click.option("--email", required=True)
def login_link(email: str) -> None:
    """Print a link that signs a person in, once: for who is locked out."""
    start(_config())
    link = invitations.login_link(email, by=actor.command_line())
    click.echo(link.url)
    click.echo(f"It signs in as {link.email}, once, within 15 minutes.", err=True)


@cli.command("create-project")
@click.option("--slug", required=True)
@click.option("--name")
@click.option("--prefix", help="what its secrets start with (lk)")
@click.option("--format", "key_format", help="base62 or hex32")
@click.option("--no-environment", is_flag=True, help="leave live/test out of the secret")
def create_project(
    slug: str, name: str | None, prefix: str | None, key_format: str | None, no_environment: bool
) -> None:
    """Add a project."""
    start(_config())
    fields = _given(slug=slug, name=name, prefix=prefix, key_format=key_format)
    if no_environment:
        fields["shows_environment"] = False
    project = projects.create(fields, by=actor.command_line())
    click.echo(f"Project {project.slug} created.")


@cli.command("create-key")
@click.option("--project", required=True, help="the project's slug")
@click.option("--name", required=True)
@click.option("--permission", "permissions", multiple=True, help="repeatable")
@click.option("--environment", help="live or test")
@click.option("--expires-in", help="a length such as 90d; without it the key does not expire")
@click.option("--json", "as_json", is_flag=True, help="print the key object")
def create_key(
    project: str,
    name: str,
    permissions: tuple[str, ...],
    environment: str | None,
    expires_in: str | None,
    as_json: bool,
) -> None:
    """Make a key; prints its secret, which is not shown again."""
    start(_config())
    fields = _given(
        project=project,
        name=name,
        permissions=list(permissions),
        environment=environment,
        expires_in=expires_in,
    )
    key, secret = keys.create(fields, by=actor.command_line())
    _print_secret(key, secret, as_json)


@cli.command("list-keys")
@click.option("--project", required=True)
@click.option("--json", "as_json", is_flag=True)
def list_keys(project: str, as_json: bool) -> None:
    """List a project's keys, newest first."""
    start(_config())
    found = _all_keys(project)
    if as_json:
        click.echo(json.dumps([keys.as_dict(key) for key in found], indent=2))
        return
    for key in found:
        facts = keys.as_dict(key)
        used = facts["last_used_at"] or "never used"
        click.echo(f"{key.id}  {key.prefix:<12}  {facts['status']:<8}  {used:<20}  {key.name}")


def _all_keys(project: str) -> list[Key]:
    found: list[Key] = []
    cursor = None
    while True:
        page = key_list.page(
            by=actor.command_line(), project=project, cursor=cursor, limit=LIMIT_MAX
        )
        found += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return found


@cli.command("revoke-key")
@click.argument("key_id", metavar="ID")
def revoke_key(key_id: str) -> None:
    """Stop a key at once; the console can enable it again."""
    start(_config())
    key = keys.revoke(key_id, by=actor.command_line())
    click.echo(f"{key.name} is revoked.")


@cli.command("rotate-key")
@click.argument("key_id", metavar="ID")
@click.option("--grace", help="how long the old secret still works, such as 24h; else not at all")
@click.option("--json", "as_json", is_flag=True)
def rotate_key(key_id: str, grace: str | None, as_json: bool) -> None:
    """Give a key a new secret; prints it, once."""
    start(_config())
    key, secret, ends_at = keys.rotate(key_id, _given(grace_period=grace), by=actor.command_line())
    _print_secret(key, secret, as_json, previous_secret_expires_at=clock.iso(ends_at))


@cli.command("delete-key")
@click.argument("key_id", metavar="ID")
@click.option("--confirm", required=True, metavar="NAME", help="the key's name")
def delete_key(key_id: str, confirm: str) -> None:
    """Remove a key for good."""
    start(_config())
    keys.delete(key_id, by=actor.command_line(), confirm=confirm)
    click.echo(f"{confirm} is deleted.")


@cli.command("demo")
@click.option("--password-stdin", is_flag=True, help="read the password instead of making one up")
@click.option("--again", is_flag=True, help="give the owner of a demo that is there a new password")
def fill_demo(password_stdin: bool, again: bool) -> None:
    """Fill an empty installation with an example to look at."""
    config = start(_config())
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    if again and demo.is_there():
        password = demo.renew_password(password)
        click.echo(f"The demo is here already (data in {config.data_dir}).\n")
        _print_sign_in(config, password)
        return
    made = demo.fill(password)
    click.echo(
        f"The demo is ready: {made.projects} projects, {made.keys} keys and {made.entries:,} "
        f"requests of {demo.DAYS} days (data in {config.data_dir}).\n"
    )
    _print_sign_in(config, made.password)
    others = ", ".join(f"{email} ({role})" for email, role in demo.OTHERS.items())
    click.echo(f"With the same password: {others}\n")
    bearer = f"Authorization: Bearer {made.secret}"
    click.echo(f'A key to try:\n  curl -H "{bearer}" {config.base_url}/api/v1/whoami\n')
    if not again:
        click.echo("Next: the command serve, with the same settings.")


def _print_sign_in(config: Config, password: str) -> None:
    click.echo(f"Sign in:  {config.base_url}/login")
    click.echo(f"Email:    {demo.OWNER}")
    click.echo(f"Password: {password}\n")


@cli.command()
def prune() -> None:
    """Apply retention now."""
    start(_config())
    gone = retention.prune_all()
    entries, events = gone.pop(retention.ENTRIES), gone.pop(retention.EVENTS)
    click.echo(f"{entries} entries and {events} events were past their time.")


@cli.command("move")
@click.option("--to", "url", required=True, metavar="URL", help="postgresql://…, an empty database")
def move_to(url: str) -> None:
    """Copy this SQLite installation to PostgreSQL; the file stays as it is."""
    config = _config()
    try:
        target = _config(DATABASE_URL=url).database_url
    except ConfigError as error:
        raise click.UsageError(str(error).replace("LATCHKEY_DATABASE_URL=", "--to ")) from None
    source = db.sqlite_file(config.database_url)
    if source is None or db.sqlite_file(target) is not None:
        raise click.UsageError(
            "It goes from sqlite:///… (LATCHKEY_DATABASE_URL) to postgresql://…."
        )
    if not source.exists():
        _fail(f"there is no {source}: nothing to move", FAILED)
    try:
        with in_use.alone(source.resolve()):
            rows = _moved(config, source, target)
    except in_use.Taken as error:
        _fail(f"{error}: stop it, then try again", FAILED)
    click.echo(
        f"{rows:,} rows are copied, and compared with those of {source}, which stays.\n"
        "Next: start every process with LATCHKEY_DATABASE_URL set to that address and one "
        f"LATCHKEY_SECRET_KEY, which is in {config.data_dir / SECRET_KEY_FILE} unless you set it."
    )


A_FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@cli.command("backup")
@A_FILE
def make_backup(file: Path) -> None:
    """Copy the database to a file, also while it is served, and verify the copy."""
    config = _config()
    _print_contents(file, backup.make(config, file))
    key = "LATCHKEY_SECRET_KEY" if config.secret_key else str(config.data_dir / SECRET_KEY_FILE)
    click.echo(
        f"The secret key is not in it: keep {key} elsewhere. Without it second factors and the "
        "secrets of webhooks cannot be read."
    )


@cli.command("verify-backup")
@A_FILE
def verify_backup(file: Path) -> None:
    """Find out whether a backup can be restored."""
    found = backup.verify(file)
    _print_contents(file, found)
    if found.is_older:
        click.echo("An older version made it: once it is restored, the next start migrates it.")


@cli.command("restore")
@A_FILE
@click.option(
    "--with-other-secret-key", is_flag=True, help="although it was made with a key that is lost"
)
def restore_backup(file: Path, with_other_secret_key: bool) -> None:
    """Put a backup in the database's place, while nothing uses it."""
    restored = backup.restore(_config(), file, with_other_secret_key=with_other_secret_key)
    _print_contents(file, restored)
    click.echo(
        f"It is in place; a database that was there is kept, with {backup.BEFORE_RESTORE} at the "
        "end of its name. What was revoked, deleted or disabled since the backup is not any more: "
        "do so again before you start the server."
    )
    if with_other_secret_key:
        click.echo(f"Unless the secret key is the same, {backup.UNREADABLE}.")


def _print_contents(file: Path, found: backup.Contents) -> None:
    rows = found.rows
    click.echo(
        f"{file} is whole. Keys: {rows['key']:,}. Entries: {rows['entry']:,}. "
        f"Events: {rows['event']:,}. Size: {backup.megabytes(found.size)}."
    )


def _moved(config: Config, source: Path, target: str) -> int:
    """How many rows; each table is told."""
    start(config)
    open_journal(config, in_background=False)  # with what a server left behind
    journal.close()
    db.close()
    db.open_database(target)
    move.require_empty()
    db.migrate(config.data_dir / LOCK_FILE)
    rows = 0
    for one in move.move(source):
        click.echo(f"{one.table:<14} {one.rows:>12,}  {one.digest[:16]}")
        rows += one.rows
    return rows


@cli.command("verify-activity")
@click.option("--expect", metavar="ID:HASH", help="what was noted earlier must still be there")
def verify_activity(expect: str | None) -> None:
    """Find out whether the activity log is as it was recorded."""
    noted = _noted(expect) if expect is not None else None
    start(_config())
    found = chain.verify()
    if found.broken:
        one = found.broken
        known = ", ".join(fact for fact in (clock.iso(one.at), one.action) if fact)
        what = f"event {one.id} ({known})" if known else f"event {one.id}"
        _fail(f"{what} is not as it was recorded: {one.why}", FAILED)
    if noted is not None:
        _expect(*noted)
    if found.older:
        click.echo(f"{found.older} older events came before the chain: nothing vouches for them.")
    if found.first_at is None:
        click.echo("There are no events in the chain yet.")
        return
    span = f"from {clock.iso(found.first_at)} to {clock.iso(found.last_at)}"
    click.echo(f"{found.count} events {span} are whole. Newest: {found.end_id}:{found.end_hash}")


def _noted(text: str) -> tuple[int, str]:
    event_id, _, event_hash = text.partition(":")
    if not (event_id.isascii() and event_id.isdigit() and len(event_id) < 19 and event_hash):
        raise click.UsageError("--expect takes what was printed as the newest: ID:HASH")
    return int(event_id), event_hash.lower()


def _expect(event_id: int, event_hash: str) -> None:
    is_there = chain.has(event_id, event_hash)
    if is_there is None:
        _fail(f"event {event_id} is past its time and gone: note a newer one", FAILED)
    if not is_there:
        _fail(
            f"event {event_id} is not the one that was noted: the chain was made anew, or cut off, "
            "since then",
            FAILED,
        )


@cli.command("scan")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def scan_files(paths: tuple[str, ...]) -> None:
    """Find this installation's keys in files and directories; - is standard input. Exit 1 when
    there are any, 2 when not all could be read."""
    found: list[str] = []
    unread: list[str] = []

    def cannot(path: str, error: OSError) -> None:
        unread.append(path)
        click.echo(f"{_path(path)}: {error.strerror}", err=True)

    try:
        start(_config())
        if not Project.select().exists():
            raise ConfigError(
                "this installation has no project yet, and no key to find: "
                "LATCHKEY_DATA_DIR or LATCHKEY_DATABASE_URL names another?"
            )
        for path in paths:
            for file, one in scan.look(path, cannot):
                found.append(file)
                click.echo(f"{_path(file)}:{one.line}: {_found(one)}")
    except peewee.PeeweeException as error:
        _fail(_unusable(error), MISCONFIGURED)
    except NotNow as error:
        _fail(str(error), MISCONFIGURED)
    if not found and not unread:
        click.echo("No key of this installation was found.")
    sys.exit(FAILED if found else MISCONFIGURED if unread else 0)


def _path(path: str) -> str:
    """A file may be called as a secret is."""
    return secret.masked(_printable(click.format_filename(path)))


def _found(one: scan.Finding) -> str:
    which = f"{one.key_id} in {one.project}  {one.key_name}"
    if one.key_id is None:
        which = f"deleted, or another installation's; prefix of {one.project}"
    return f"{one.prefix}…  {one.status:<10}  {which}"


@cli.command("doctor")
def run_doctor() -> None:
    """Print what is misconfigured, and how to mend it."""
    findings = doctor.examine(_config())
    for finding in findings:
        click.echo(finding)
    if not findings:
        click.echo("Nothing to mend.")
    sys.exit(FAILED if findings else 0)


@cli.command("healthcheck")
@click.option(
    "--live", is_flag=True, help="ask whether the process lives, not whether it can write"
)
def run_healthcheck(live: bool) -> None:
    """Ask this machine's server how it does; exit 1 when it is not well."""
    try:
        click.echo(healthcheck.ask(_config(), live=live))
    except (ConfigError, healthcheck.Unwell) as error:
        _fail(str(error), FAILED)


def _given(**fields: Any) -> dict[str, Any]:
    """What was typed, an empty text too: `--expires-in ""` is a mistake, not a key for ever."""
    return {name: value for name, value in fields.items() if value is not None}


def _print_secret(key: Key, secret: str, as_json: bool, **more: Any) -> None:
    facts = {**keys.as_dict(key), "key": secret, **more}
    click.echo(json.dumps(facts, indent=2) if as_json else secret)


def _config(**overrides: str | None) -> Config:
    """The settings, where an option of the command line outdoes the environment's."""
    environ = dict(os.environ)
    for name, value in _given(**overrides).items():
        environ.pop(f"{settings.PREFIX}{name}_FILE", None)
        environ[settings.PREFIX + name] = value
    config = settings.load(environ)
    logs.set_up(config.log_format, config.log_level)
    return config
