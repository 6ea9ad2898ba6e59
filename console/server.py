"""The production server: granian's WSGI worker as a thread of this one process.

Granian would fork a worker and watch it; then `kill -9` of the process that was started leaves
the other one serving. Its free-threaded server class runs the same worker in a thread, and for
WSGI that works with the interpreter lock too.
"""

import sys
from collections.abc import Callable
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.common import AbstractServer
from granian.server.mt import MTServer

THREADS = 16
# Long Python work in one thread gives way to waiting checks sooner than the default 5 ms.
SWITCH_INTERVAL_SECONDS = 0.0005


class _InProcess(MTServer):
    def _check_gil(self) -> None:
        """One worker thread needs no free-threaded interpreter."""

    def serve(self, *args: Any, **kwargs: Any) -> None:
        AbstractServer.serve(self, *args, **kwargs)


def serve(app: Any, host: str, port: int, on_start: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM, then lets the requests under way finish."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    server = _InProcess(
        "latchkey",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        blocking_threads=THREADS,
        log_enabled=False,
    )
    server.on_startup(on_start)
    server.serve(target_loader=lambda *_: app, wrap_loader=False)
