"""What the console is measured against: a bare WSGI callable and bare Flask views, served by the
console's own server. `python -m bench.bare PORT`

Flask is served in the pool, as all of the console's own Flask pages are, and also, for comparison,
in the thread that receives the request, as the checks are.
"""

import sys
from collections.abc import Iterable
from typing import Any

from flask import Flask

from console import server

HOST = "127.0.0.1"
WSGI, FLASK, FLASK_QUICK = "/bare", "/flask", "/flask-quick"
BODY = b"ok"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]

flask = Flask("bare")


@flask.get(FLASK)
@flask.get(FLASK_QUICK)
def answer() -> bytes:
    return BODY


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] != WSGI:
        return flask(environ, start_response)
    start_response("200 OK", HEADERS)
    return [BODY]


def main() -> None:
    server.serve(
        app,
        HOST,
        int(sys.argv[1]),
        is_quick=lambda path: path in (WSGI, FLASK_QUICK),
        on_start=lambda: print("ready", flush=True),
        on_stop=lambda: None,
    )


if __name__ == "__main__":
    main()
