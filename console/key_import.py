"""Keys whose secrets are already in their clients' hands: taken over by the SHA-256 of the secret.

All of a call's keys or none; what stands against it is told for each row.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import clock, db, key_rules, keys, known, projects, secret
from console.actor import Actor
from console.errors import Conflict, Invalid
from console.fields import Fields, Name, text_schema
from console.key_fields import KeySettings, ProjectSlug
from console.models import Key, Project, Secret
from console.permissions import KEYS_WRITE

ROWS_MAX = 1_000
DIGEST = re.compile(r"[0-9a-f]{64}")
PREFIX = re.compile(rf"[!-~]{{1,{secret.VISIBLE_LENGTH}}}")
LOOKED_UP_TOGETHER = 500


def _digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise ValueError("must be the SHA-256 of the whole secret, 64 lowercase hex characters")
    return text


def _prefix(text: str) -> str:
    if not PREFIX.fullmatch(text):
        raise ValueError(
            f"must be the secret's first characters, at most {secret.VISIBLE_LENGTH}, visible ASCII"
        )
    return text


class ImportedKey(KeySettings):
    """A key that somebody holds already: its settings, and its secret's digest."""

    name: Name
    sha256: Annotated[
        str,
        AfterValidator(_digest),
        text_schema(
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            pattern=f"^{DIGEST.pattern}$",
        ),
    ] = Field(description="SHA-256 of the whole secret, in lowercase hex")
    prefix: Annotated[
        str, AfterValidator(_prefix), text_schema("sk_live_0Vb5", pattern=f"^{PREFIX.pattern}$")
    ] = Field(description="The secret's first characters, up to 12, for recognition")


def _rows(rows: list[ImportedKey]) -> list[ImportedKey]:
    if not 1 <= len(rows) <= ROWS_MAX:
        raise ValueError(f"must have 1 to {ROWS_MAX} rows, and has {len(rows)}")
    return rows


class Import(Fields):
    """Keys to take over."""

    shown_max: ClassVar[int] = ROWS_MAX

    project: ProjectSlug = None
    keys: Annotated[
        list[ImportedKey],
        AfterValidator(_rows),
        Field(json_schema_extra={"minItems": 1, "maxItems": ROWS_MAX}),
    ]


class ImportedRow(TypedDict):
    """What became of one row of the call, counted from 0."""

    row: int
    id: Annotated[str, text_schema("key_3Kq0cV8nTz5wYb2LmR7s")]
    name: str
    prefix: str


class ImportReport(TypedDict):
    """How many keys were taken over, and each row's key."""

    imported: int
    data: list[ImportedRow]


@db.transaction
def import_keys(fields: Mapping[str, Any], *, by: Actor) -> list[Key]:
    """Takes over the keys of all rows, in their order.

    Raises Invalid or Conflict that name each row at fault (`keys.3.sha256`), Unknown (project),
    Forbidden, NotFresh, Conflict (KEY_LIMIT_REACHED).
    """
    new = Import.read(fields)
    project = projects.to_act_in(new.project, by=by)
    by.require(KEYS_WRITE, project.id)
    keys.refuse_grants(sorted({one for row in new.keys for one in row.permissions}), project.id, by)
    now = clock.now()
    _refuse_repeats(new.keys)
    project = key_rules.held_open(project.id)
    columns = _columns(new.keys, project, now)
    db.hold_table(Secret)
    _refuse_known(new.keys)
    keys.refuse_over_limit(project, now, len(new.keys))
    known.expect_imported()
    return [
        keys.add(
            "key.imported",
            row,
            own,
            project,
            row.sha256,
            prefix=row.prefix,
            now=now,
            by=by,
            imported_at=now,
        )
        for row, own in zip(new.keys, columns, strict=True)
    ]


def _columns(rows: list[ImportedKey], project: Project, now: int) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = []
    faults: dict[str, str] = {}
    for number, row in enumerate(rows):
        try:
            columns.append(key_rules.columns(row, project, now))
        except Invalid as error:
            faults |= {f"keys.{number}.{name}": why for name, why in error.fields.items()}
    if faults:
        raise Invalid(faults)
    return columns


def _refuse_repeats(rows: list[ImportedKey]) -> None:
    first: dict[str, int] = {}
    faults = {}
    for number, row in enumerate(rows):
        if first.setdefault(row.sha256, number) != number:
            faults[f"keys.{number}.sha256"] = f"is that of keys.{first[row.sha256]}, too"
    if faults:
        raise Invalid(faults)


def _refuse_known(rows: list[ImportedKey]) -> None:
    digests = [row.sha256 for row in rows]
    there: set[str] = set()
    for start in range(0, len(digests), LOOKED_UP_TOGETHER):
        some = digests[start : start + LOOKED_UP_TOGETHER]
        there |= {row.digest for row in Secret.select().where(Secret.digest.in_(some))}
    if there:
        faults = {
            f"keys.{number}.sha256": "is a secret that is known here already"
            for number, digest in enumerate(digests)
            if digest in there
        }
        raise Conflict(f"{len(there)} of {len(rows)} are here already.", fields=faults)


def as_dict(imported: list[Key]) -> ImportReport:
    rows: list[ImportedRow] = [
        {"row": number, "id": key.id, "name": key.name, "prefix": key.prefix}
        for number, key in enumerate(imported)
    ]
    return {"imported": len(rows), "data": rows}
