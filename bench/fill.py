"""Fills a directory for the bench: Latchkey's data with keys that can be presented, and entries
that went through the very statements by which the journal stores them. Beside the data lie their
secrets, a line each: what a load presents. `python -m bench.fill DIR KEYS ENTRIES`
"""

import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import to_json

import config as settings
from console import actor, batch, clock, db, people, projects, secret, start
from console.limits import FREE, UNLIMITED
from console.models import LIVE, Project
from console.permissions import KEYS_VERIFY

PROJECT = "bench"
EMAIL, PASSWORD = "bench@example.com", "a password for the bench"
HELD, NOT_HELD = "tasks:read", "notes:read"

HOT_KEYS, COLD_KEYS = 1_000, 200_000  # whose secrets a load presents
REFUSED_KEYS = 100
# So few that after a moment each is over its limit.
LIMITED_KEYS = 10

ENTRIES_OVER = 30 * clock.DAY
BATCH = 10_000
# Filling has the file to itself, and is begun anew when it breaks off.
PRAGMAS = {"journal_mode": "off", "synchronous": "off", "cache_size": -1_000_000}

COLUMNS = (
    "id", "project_id", "name", "name_sort", "description", "environment", "prefix", "permissions",
    "ip_allowlist", "plan", "auto_renew", "metadata", "created_at", "updated_at", "revoked_at",
    "requests_total",
)  # fmt: skip
KEY = f'INSERT INTO "key" ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))})'
SECRET = 'INSERT INTO "secret" (digest, key_id, prefix, created_at) VALUES (?, ?, ?, ?)'

# Not what mints real keys: a million of those take a minute, and these need not be hard to guess.
chance = random.Random(20261120)


class Made(NamedTuple):
    """What the entries, and the loads, know of a key."""

    id: str
    secret: str
    digest: str


def fill(directory: Path, keys: int, entries: int) -> None:
    """Makes `directory/data`, and `hot`, `cold`, `refused`, `limited` and `service` beside it."""
    data_dir = (directory / "data").resolve()
    start(settings.load({"LATCHKEY_DATA_DIR": str(data_dir)}))
    people.create_owner({"email": EMAIL, "password": PASSWORD}, by=actor.command_line())
    project = projects.create({"slug": PROJECT}, by=actor.command_line())
    for name, value in PRAGMAS.items():
        db.handle.execute_sql(f"pragma {name} = {value}")
    made = _make_keys(project, keys, "Key", [HELD])
    _make_entries(project, made, entries)
    for name, number in (("hot", HOT_KEYS), ("cold", COLD_KEYS)):
        _write(directory / name, chance.sample(made, min(len(made), number)))
    lacking = _make_keys(project, REFUSED_KEYS // 2, "Lacks", [NOT_HELD])
    revoked = _make_keys(project, REFUSED_KEYS // 2, "Revoked", [HELD], is_revoked=True)
    _write(directory / "refused", lacking + revoked)
    limited = _make_keys(project, LIMITED_KEYS, "Limited", [HELD], plan=FREE)
    _write(directory / "limited", limited)
    _write(directory / "service", _make_keys(project, 1, "Service", [KEYS_VERIFY]))
    db.close()


def _write(path: Path, keys: list[Made]) -> None:
    path.write_text("".join(f"{key.secret}\n" for key in keys))


def _make_keys(
    project: Project,
    number: int,
    name: str,
    permissions: list[str],
    *,
    plan: str = UNLIMITED,
    is_revoked: bool = False,
) -> list[Made]:
    now = clock.now()
    made = [_mint(project) for _ in range(number)]
    held = to_json(permissions).decode()
    keys, secrets = [], []
    for index, key in enumerate(made):
        called, prefix = f"{name} {index:07}", secret.visible_prefix(key.secret)
        created_at = now - number + index
        revoked_at = now if is_revoked else None
        keys.append((key.id, project.id, called, called.casefold(), "", LIVE, prefix, held, "[]",
                     plan, 0, "{}", created_at, created_at, revoked_at, 0))  # fmt: skip
        secrets.append((key.digest, key.id, prefix, created_at))
    with db.write():
        db.execute_many(KEY, keys)
        db.execute_many(SECRET, secrets)
    return made


def _mint(project: Project) -> Made:
    body = f"{project.prefix}_{LIVE}_{_random(secret.BODY_LENGTH)}"
    text = body + secret.checksum(body)
    return Made(f"key_{_random(20)}", text, secret.digest(text))


def _random(length: int) -> str:
    return "".join(chance.choices(secret.ALPHABET, k=length))


def _make_entries(project: Project, keys: list[Made], number: int) -> None:
    """Spread over a month. Ten thousand in a row come from a few keys, others for each stretch, as
    clients come and go; in the end all keys were used, and the usage counts are those of a month.
    """
    began = clock.now() - ENTRIES_OVER
    at_once = max(1, BATCH * len(keys) // max(1, number))
    for first in range(0, number, BATCH):
        offset = first // BATCH * at_once
        records = [
            _record(project, keys[(offset + index % at_once) % len(keys)],
                    began + (first + index) * ENTRIES_OVER // number)
            for index in range(min(BATCH, number - first))
        ]  # fmt: skip
        with db.write():
            batch.store(to_json(records).decode())


def _record(project: Project, key: Made, at: int) -> list[Any]:
    is_allowed = chance.random() < 0.9
    content = {
        "kind": batch.ENTRY,
        "at": at,
        "project_id": project.id,
        "key_id": key.id,
        "secret": "current",
        "method": "GET",
        "endpoint": "/tasks/1",
        "ip": "203.0.113.7",
        "status": 200 if is_allowed else 403,
        "code": "VALID" if is_allowed else "PERMISSION_DENIED",
        "user_agent": "bench",
        "request_id": f"req_{at:012x}{chance.getrandbits(64):016x}",
        "permissions": [HELD],
        "digest": key.digest,
        "cost": 1,
        "month_at": clock.start_of("month", at),
        "spent": [],
    }
    return [content.get(field) for field in batch.FIELDS]


def main() -> None:
    directory, keys, entries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    began = time.monotonic()
    fill(Path(directory), keys, entries)
    seconds = time.monotonic() - began
    print(f"{keys:,} keys, {entries:,} entries in {directory}: {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
