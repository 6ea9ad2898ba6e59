"""The style sheet, the scripts and the mark: read and compressed once, at the start.

Their addresses carry a digest of what is in them, so that browsers keep them for a year and still
never show an old one. Pages themselves are not compressed: they hold a token beside what anybody
may have typed, and the length of such an answer tells about both (BREACH).
"""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Response, abort, request, url_for

KEPT = "public, max-age=31536000, immutable"
ASKED_AGAIN = "no-cache"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent, plain and compressed (RFC 1952); `version` is a digest of it."""

    content: bytes
    compressed: bytes
    version: str
    kind: str


def register(app: Flask, folder: Path) -> None:
    """Serves the folder's files at /static, and gives templates `asset(name)`, their address."""
    assets = {path.name: _read(path) for path in sorted(folder.iterdir()) if path.is_file()}

    def show(filename: str) -> Response:
        if filename not in assets:
            abort(404)
        return _answer(assets[filename])

    def asset(name: str) -> str:
        return url_for("static", filename=name, v=assets[name].version)

    app.add_url_rule("/static/<filename>", "static", show)
    app.jinja_env.globals["asset"] = asset


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    kind = KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    version = hashlib.sha256(content).hexdigest()[:12]
    return Asset(content, gzip.compress(content, mtime=0), version, kind)


def _answer(asset: Asset) -> Response:
    is_compressed = request.accept_encodings.quality("gzip") > 0
    content = asset.compressed if is_compressed else asset.content
    response = Response(content, content_type=f"{asset.kind}; charset=utf-8")
    if is_compressed:
        response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    response.set_etag(f"{asset.version}{'-gzip' if is_compressed else ''}")
    is_this_one = request.args.get("v") == asset.version
    response.headers["Cache-Control"] = KEPT if is_this_one else ASKED_AGAIN
    return response.make_conditional(request)  # type: ignore[return-value]
