"""Finds this installation's secrets in files: a repository, a log, an unpacked image.

Only the files and the database are asked. A secret is known by its digest, or, where its key is
gone, by a project's prefix and its checksum. One that was made elsewhere and imported has no shape
to look for.
"""

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import IO

from console import check, clock, secret
from console.models import ENVIRONMENTS, Project, Secret

STANDARD_INPUT = "-"
SUPERSEDED, GONE = "superseded", "gone"
READ_BYTES = 1 << 20  # of a line at once
OVERLAP = 2 * (
    secret.HEAD_LENGTH_MAX + 1 + secret.BODY_LENGTH + secret.CHECKSUM_LENGTH
)  # in UTF-16
ASKED_AT_ONCE = 500
_BODY = re.compile(rb"_(?=([0-9A-Za-z]{%d,}))" % secret.HEX_LENGTH)
_HEAD = re.compile(rb"[a-z0-9_]*\Z")

Unread = Callable[[str, OSError], None]


@dataclass(frozen=True)
class Finding:
    """A secret in a file; `prefix` is all that is told of it. `status`: the key's, `superseded`, or
    `gone`: then `key_id` and `key_name` are None, and `project` is all whose prefix it has."""

    line: int
    prefix: str
    project: str
    status: str
    key_id: str | None = None
    key_name: str | None = None


def look(path: str, unread: Unread) -> Iterator[tuple[str, Finding]]:
    """What is in the file, in all files below the directory, or, for `-`, in standard input; each
    with its file. What cannot be read is handed to `unread`. Raises PeeweeException."""
    prefixes = _prefixes()
    for name in [path] if path == STANDARD_INPUT else _files(path, unread):
        try:
            with _opened(name) as file:
                for one in _look(file, prefixes):
                    yield name, one
        except OSError as error:
            unread(name, error)


def _opened(name: str) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if name == STANDARD_INPUT else open(name, "rb")


def _files(path: str, unread: Unread) -> Iterator[str]:
    """In order. What is no plain file is left out, unless it is what was named."""
    if not os.path.isdir(path):
        yield path
        return
    for directory, below, names in os.walk(path, onerror=lambda one: unread(one.filename, one)):
        below.sort()
        for name in sorted(names):
            found = os.path.join(directory, name)
            try:
                is_plain = stat.S_ISREG(os.lstat(found).st_mode)
            except OSError as error:
                unread(found, error)
                continue
            if is_plain:
                yield found


def _prefixes() -> dict[str, str]:
    """Each, and all projects that have it."""
    found: dict[str, list[str]] = {}
    for one in Project.select().order_by(Project.slug):
        found.setdefault(one.prefix, []).append(one.slug)
    return {prefix: ", ".join(slugs) for prefix, slugs in found.items()}


def _look(file: IO[bytes], prefixes: dict[str, str]) -> Iterator[Finding]:
    """By line; reads it once, whatever its size."""
    candidates = _candidates(file)
    while some := dict.fromkeys(islice(candidates, ASKED_AT_ONCE)):
        digests = {text: secret.digest(text) for _, text in some}
        known = {one.digest: one for one in Secret.select().where(
            Secret.digest.in_(list(digests.values()))
        )}  # fmt: skip
        for line, text in some:
            if digests[text] in known:
                yield _of_key(line, known[digests[text]])
            elif project := prefixes.get(_prefix(text)):
                yield Finding(line, secret.visible_prefix(text), project, GONE)


def _of_key(line: int, one: Secret) -> Finding:
    now, key = clock.now(), one.key
    status = SUPERSEDED if check.is_superseded(one, now) else key.status_at(now)
    return Finding(line, one.prefix, key.project.slug, status, key.id, key.name)


def _prefix(text: str) -> str:
    """Of the project that made it, by its looks; empty where nothing proves that it is one."""
    head, _, body = text.rpartition("_")
    if len(body) == secret.HEX_LENGTH or not secret.is_well_formed(text):
        return ""
    before, _, last = head.rpartition("_")
    return before if last in ENVIRONMENTS else head


def _candidates(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """All that could be a secret, and its line."""
    line, before = 1, b""
    while piece := file.readline(READ_BYTES):
        text = before + piece
        for one in _in(text):
            yield line, one
        if b"\0" in text:  # as in UTF-16
            for one in _in(text.replace(b"\0", b"")):
                yield line, one
        is_whole = piece.endswith(b"\n")
        line, before = line + is_whole, b"" if is_whole else text[-OVERLAP:]


def _in(text: bytes) -> Iterator[str]:
    """What precedes one may look like a part of it: each that begins with a letter."""
    for found in _BODY.finditer(text):
        head = _HEAD.search(text[max(0, found.start() - secret.HEAD_LENGTH_MAX) : found.start()])
        assert head is not None  # it may be empty
        for body in _bodies(found[1].decode()):
            for at, byte in enumerate(head[0]):
                if chr(byte).isalpha():
                    yield f"{head[0][at:].decode()}_{body}"


def _bodies(text: str) -> Iterator[str]:
    for length in (secret.HEX_LENGTH, secret.BODY_LENGTH + secret.CHECKSUM_LENGTH):
        if len(text) >= length:
            yield text[:length]
