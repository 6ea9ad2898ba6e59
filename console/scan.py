"""Finds this installation's secrets in files: a repository, a log, an unpacked image.

Only the files and the database are asked. A secret is known by its digest, or, where its key is
gone, by a project's prefix and its checksum. One that was made elsewhere and imported has no shape
to look for.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from console import clock, secret
from console.models import Project, Secret

SUPERSEDED, GONE = "superseded", "gone"
READ_BYTES = 1 << 20  # of a line at once
HEAD_MAX = 26  # bytes before a body's underscore
OVERLAP = HEAD_MAX + 1 + secret.BODY_LENGTH + secret.CHECKSUM_LENGTH
ASKED_AT_ONCE = 500
_BODY = re.compile(rb"_(?=([0-9A-Za-z]{%d,}))" % secret.HEX_LENGTH)
_HEAD = re.compile(rb"[a-z0-9_]*\Z")


@dataclass(frozen=True)
class Finding:
    """A secret in a file; `prefix` is all that is told of it. `status`: the key's, `superseded`, or
    `gone`: then `key_id` and `key_name` are None."""

    line: int
    prefix: str
    project: str
    status: str
    key_id: str | None = None
    key_name: str | None = None


def files(path: Path) -> Iterator[Path]:
    """The file itself, or all within the directory, in order; links lead nowhere."""
    if not path.is_dir():
        yield path
        return
    for directory, below, names in os.walk(path):
        below.sort()
        for name in sorted(names):
            found = Path(directory, name)
            if found.is_file() and not found.is_symlink():
                yield found


def look(file: IO[bytes]) -> Iterator[Finding]:
    """What is in it, by line. Reads it once, whatever its size. Raises OSError."""
    heads = {f"{one.prefix}_": one.slug for one in Project.select().order_by(Project.created_at)}
    candidates = _candidates(file)
    while some := dict.fromkeys(islice(candidates, ASKED_AT_ONCE)):
        digests = {text: secret.digest(text) for _, text in some}
        known = {one.digest: one for one in Secret.select().where(
            Secret.digest.in_(list(digests.values()))
        )}  # fmt: skip
        for line, text in some:
            if digests[text] in known:
                yield _of_key(line, known[digests[text]])
            elif slug := _of_project(text, heads):
                yield Finding(line, secret.visible_prefix(text), slug, GONE)


def _of_key(line: int, one: Secret) -> Finding:
    now, key = clock.now(), one.key
    is_over = one.superseded_at is not None and (one.works_until or 0) <= now
    status = SUPERSEDED if is_over else key.status_at(now)
    return Finding(line, one.prefix, key.project.slug, status, key.id, key.name)


def _of_project(text: str, heads: dict[str, str]) -> str | None:
    """Of which project it is by its looks; a format without a checksum is everybody's."""
    if len(text.rpartition("_")[2]) == secret.HEX_LENGTH or not secret.is_well_formed(text):
        return None
    return next((slug for head, slug in heads.items() if text.startswith(head)), None)


def _candidates(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """All that could be a secret, and its line; what precedes one may look like a part of it."""
    line, before = 1, b""
    while piece := file.readline(READ_BYTES):
        text = before + piece
        for found in _BODY.finditer(text):
            head = _HEAD.search(text[max(0, found.start() - HEAD_MAX) : found.start()])
            assert head is not None  # it may be empty
            for body in _bodies(found[1].decode()):
                for at, byte in enumerate(head[0]):
                    if chr(byte).isalpha():
                        yield line, f"{head[0][at:].decode()}_{body}"
        is_whole = piece.endswith(b"\n")
        line, before = line + is_whole, b"" if is_whole else text[-OVERLAP:]


def _bodies(text: str) -> Iterator[str]:
    for length in (secret.HEX_LENGTH, secret.BODY_LENGTH + secret.CHECKSUM_LENGTH):
        if len(text) >= length:
            yield text[:length]
