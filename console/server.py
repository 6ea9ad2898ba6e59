"""The production server: granian's WSGI worker as a thread of this one process.

Granian would fork a worker and watch it; then `kill -9` of the process that was started leaves
the other one serving. Its free-threaded server class runs the same worker in a thread, and for
WSGI that works with the interpreter lock too.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from granian.constants import HTTPModes, Interfaces
from granian.server.common import AbstractServer
from granian.server.mt import MTServer

from config import ConfigError

THREADS = 16
# A thread keeps its database connection, and granian ends an idle thread without the interpreter
# lock that closing the connection needs, which aborts the process: so none is ever idle enough.
IDLE_SECONDS = 10**9
# Long Python work in one thread gives way to waiting checks sooner than the default 5 ms.
SWITCH_INTERVAL_SECONDS = 0.0005
LISTENING_POLL_SECONDS = 0.01
# A client that stalls in the middle of its request holds up the end no longer than this.
STOP_SECONDS = 20


class _InProcess(MTServer):
    def __init__(
        self, on_start: Callable[[], None], on_stop: Callable[[], None], **settings: Any
    ) -> None:
        super().__init__("latchkey", **settings)
        self.on_start = on_start
        self.on_stop = on_stop

    def _check_gil(self) -> None:
        """One worker thread needs no free-threaded interpreter."""

    def serve(self, *args: Any, **kwargs: Any) -> None:
        AbstractServer.serve(self, *args, **kwargs)

    def startup(self, *args: Any) -> None:
        """Whoever reads the address that `on_start` prints can call it at once."""
        self.blocking_threads_idle_timeout = IDLE_SECONDS  # granian's own check allows ten minutes
        super().startup(*args)  # type: ignore[no-untyped-call]
        while self.wrks[0].inner.is_alive() and not self._is_listening():
            time.sleep(LISTENING_POLL_SECONDS)
        self.on_start()

    def _is_listening(self) -> bool:
        try:
            socket.create_connection((self.bind_addr, self.bind_port), timeout=1).close()
        except OSError:
            return False
        return True

    def _stop_workers(self) -> None:
        """Takes no more connections and ends once every request under way is answered.

        The worker calls back at exactly that moment. What it does next breaks the interpreter
        lock and crashes the process, so the process ends inside the callback.
        """
        for worker in self.wrks:
            worker._sig.add_cb(self._end)
            worker.terminate()  # type: ignore[no-untyped-call]
            worker.inner.join(STOP_SECONDS)
        self._end()

    def _end(self) -> NoReturn:
        try:
            self.on_stop()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def serve(
    app: Any, host: str, port: int, *, on_start: Callable[[], None], on_stop: Callable[[], None]
) -> None:
    """Serves until SIGINT or SIGTERM, lets the requests under way finish and ends the process.

    Raises ConfigError for an address that cannot be listened on.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    server = _InProcess(
        on_start,
        on_stop,
        address=_free_address(host, port),
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        blocking_threads=THREADS,
        log_enabled=False,
    )
    # Granian would start its worker anew on a hangup; here that means what it always does.
    on_hangup = signal.getsignal(signal.SIGHUP)
    server.on_startup(lambda: signal.signal(signal.SIGHUP, on_hangup))
    server.serve(target_loader=lambda *_: app, wrap_loader=False)


def _free_address(host: str, port: int) -> str:
    """The host's IP address, once nobody else listens there.

    Granian shares its port with whoever asks, so a second server would silently take every
    other request of the first.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host"
        raise ConfigError(
            f"LATCHKEY_HOST={host!r} LATCHKEY_PORT={port} cannot be listened on: {reason}; "
            "stop what listens there, or choose another"
        ) from None
    return str(address[0])
