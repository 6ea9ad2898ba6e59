"""The production server: granian in this one process, a thread for the checks and a pool for the
pages. Translates a request into WSGI (PEP 3333) and knows nothing of what is answered.

The thread that receives a request answers it on the spot where the application says that it does
so without waiting: threads that pass the interpreter lock to and fro for work of 40 µs spend half
of their time on it (docs/decisions.md). All the rest goes to the pool, bodies read beforehand.

Granian by itself would fork a worker and watch it; then `kill -9` of the process that was started
leaves the other one serving. Its free-threaded server class runs the same worker in a thread, and
that works with the interpreter lock too.
"""

import asyncio
import ctypes
import errno
import gc
import io
import itertools
import logging
import os
import queue
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, NoReturn, Self

from granian._granian import CallbackScheduler, RSGIProtocolClosed, RSGIProtocolError
from granian.constants import HTTPModes, Interfaces, Loops, TaskImpl
from granian.http import HTTP1Settings
from granian.server import mt
from granian.server.common import AbstractServer

from config import ConfigError
from console.wire import BEFORE_ANSWER, HOLD_BACK

log = logging.getLogger(__name__)

THREADS = 16
# Answers of unknown length under way at once; whoever asks for one more is told to come back.
LONG_ANSWERS = 64
# Answers that are held back at once; one more is sent as it comes.
HELD_BACK = 1_000
# Long Python work in one thread gives way to waiting checks sooner than the default 5 ms.
SWITCH_INTERVAL_SECONDS = 0.0005
LISTENING_POLL_SECONDS = 0.01
# A client that stalls in the middle of its request holds up the end no longer than this.
STOP_SECONDS = 20
BODY_SECONDS = 20
SWEEP_SECONDS = 0.5
# A client that takes nothing of a long answer for as long has given up.
TAKEN_SECONDS = 30
PIPE_SECONDS = 5
PIPE_POLL_SECONDS = 0.002
STOP_BODY_SECONDS = 5
# More is never handed on: by its length the application then sees that it is too much.
BODY_MAX_BYTES = 1024 * 1024 + 1
# Headers that take more are refused. The server reads on a while, or its answer could get lost: a
# connection that is closed over unread bytes is reset.
HEADERS_MAX_BYTES = 64 * 1024
HEADERS_READ_BYTES = 2 * 1024 * 1024
WHOLE_MAX_DIGITS = 6  # an answer's length; longer ones are sent piece by piece
UNREADABLE = "?"
NEVER_MISSED = (
    ("x-forwarded-for", "HTTP_X_FORWARDED_FOR"),
    ("idempotency-key", "HTTP_IDEMPOTENCY_KEY"),
)
HEADERS_BYTES = "latchkey.headers_bytes"

Environ = dict[str, Any]
WSGI = Callable[[Environ, Any], Iterable[bytes]]
Headers = list[tuple[str, str]]
Wait = Callable[[], None]

ENVIRON: Environ = {
    "SCRIPT_NAME": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0),
    "wsgi.input": io.BytesIO(),
    "wsgi.input_terminated": True,  # Werkzeug's: what can be read is the whole body
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class _InProcess(mt.MTServer):
    def __init__(
        self, on_start: Callable[[], None], on_stop: Callable[[], None], **settings: Any
    ) -> None:
        super().__init__("latchkey", **settings)
        self.on_start = on_start
        self.on_stop = on_stop
        self.requests: list[_Requests] = []

    def _check_gil(self) -> None:
        """One worker thread needs no free-threaded interpreter."""

    def serve(self, *args: Any, **kwargs: Any) -> None:
        AbstractServer.serve(self, *args, **kwargs)

    def startup(self, *args: Any) -> None:
        """Whoever reads the address that `on_start` prints can call it at once."""
        super().startup(*args)  # type: ignore[no-untyped-call]
        while not self._is_listening():
            if not self.wrks[0].inner.is_alive():
                log.critical("the server ended before it listened: what is above says why")
                sys.stderr.flush()
                os._exit(1)
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
        for requests in self.requests:
            requests.loop.call_soon_threadsafe(requests.hurry)
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


class _Requests(CallbackScheduler):
    """Takes each request from granian, in granian's own thread, and sees to its answer.

    A request has granian's `scope` and `proto`; `done()` says that the proto has its answer.
    """

    def __new__(cls, loop: asyncio.AbstractEventLoop, *_: Any) -> Self:
        return super().__new__(cls, loop, None, None, None, None)  # type: ignore[call-arg]

    def __init__(
        self, loop: asyncio.AbstractEventLoop, app: WSGI, is_quick: Callable[[str], bool]
    ) -> None:
        self.loop = loop
        self.app = app
        self.is_quick = is_quick
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pages")
        self.long = ThreadPoolExecutor(LONG_ANSWERS, thread_name_prefix="long")
        self.free = threading.BoundedSemaphore(LONG_ANSWERS)
        self.reading: dict[asyncio.Task[None], float] = {}  # until when
        self.loop.call_soon(self._end_slow_bodies)
        self.is_kept = False
        self.held_back = 0
        self.later: queue.SimpleQueue[tuple[Wait, Any, Callable[[], object]]] = queue.SimpleQueue()
        threading.Thread(target=self._answer_later, name="later", daemon=True).start()
        self._schedule_fn = self._take

    def _take(self, request: Any) -> None:
        if not self.is_kept:
            self.is_kept = True
            _keep_this_thread()
        environ = _environ(request.scope)
        if environ.pop(HEADERS_BYTES) > HEADERS_MAX_BYTES:
            _refuse(request, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") != "0":
            self.loop.call_soon_threadsafe(self._read_first, request, environ)
        else:
            self._hand_on(request, environ)

    def _read_first(self, request: Any, environ: Environ) -> None:
        """However slowly a body comes, no thread waits for it."""
        task = self.loop.create_task(self._read_body(request, environ))
        self.reading[task] = time.monotonic() + BODY_SECONDS
        task.add_done_callback(self.reading.pop)

    def hurry(self) -> None:
        """What is not read by then is not waited for: the process is to end."""
        until = time.monotonic() + STOP_BODY_SECONDS
        for task in list(self.reading):
            self.reading[task] = min(self.reading[task], until)

    def _end_slow_bodies(self) -> None:
        now = time.monotonic()
        for task in [task for task, until in self.reading.items() if until < now]:
            task.cancel()
        self.loop.call_later(SWEEP_SECONDS, self._end_slow_bodies)

    async def _read_body(self, request: Any, environ: Environ) -> None:
        try:
            body = await _body(request.proto, environ.get("CONTENT_LENGTH", ""))
        except asyncio.CancelledError:
            _refuse(request, HTTPStatus.REQUEST_TIMEOUT)
            return
        except (RSGIProtocolClosed, RSGIProtocolError):
            request.done()  # the client has gone
            return
        environ["wsgi.input"] = io.BytesIO(body)
        self._hand_on(request, environ)

    def _hand_on(self, request: Any, environ: Environ) -> None:
        if self.is_quick(environ["PATH_INFO"]):
            self._answer(request, environ)
        else:
            # In a context of its own: what is noted of a request is forgotten with it.
            self.pool.submit(copy_context().run, self._answer, request, environ)

    def _answer(self, request: Any, environ: Environ) -> None:
        """Calls the application; whatever goes wrong in it, the client has an answer."""
        started: list[Any] = []
        waits: list[Wait] = []
        delays: list[float] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
            started[:] = int(status[:3]), headers

        environ[BEFORE_ANSWER] = waits.append
        environ[HOLD_BACK] = delays.append
        try:
            result = self.app(environ, start_response)
        except BaseException:
            log.exception("%s failed", environ["PATH_INFO"])
            _refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        answer: Callable[[], object] = partial(self._send, request, started, result)
        if delays and self.held_back < HELD_BACK:
            later = partial(self._hold_back, delays[0], answer)
            answer = partial(self.loop.call_soon_threadsafe, later)
        if waits:
            self.later.put((waits[0], request, answer))
        else:
            answer()

    def _hold_back(self, seconds: float, answer: Callable[[], object]) -> None:
        """Sends the answer so much later; no thread waits for it."""
        self.held_back += 1
        self.loop.call_later(seconds, self._let_go, answer)

    def _let_go(self, answer: Callable[[], object]) -> None:
        self.held_back -= 1
        answer()

    def _answer_later(self) -> None:
        """Waits once for all answers that wait for the same, and sends them."""
        while True:
            batch = [self.later.get()]
            with suppress(queue.Empty):
                while True:
                    batch.append(self.later.get_nowait())
            failed = set()
            for wait in {wait for wait, _, _ in batch}:
                try:
                    wait()
                except Exception:
                    log.exception("answers that waited could not be sent")
                    failed.add(wait)
            for wait, request, answer in batch:
                if wait in failed:
                    _refuse(request, HTTPStatus.SERVICE_UNAVAILABLE)
                else:
                    answer()

    def _send(self, request: Any, started: list[Any], result: Any) -> None:
        """Long answers are sent in threads of their own, for clients may take their time."""
        if isinstance(result, list) or (started and _is_short(started[1])):
            self._finish(request, _send_whole, started, result)
        elif self.free.acquire(blocking=False):
            run = copy_context().run  # its log still names the request
            sent = self.long.submit(run, self._finish, request, _stream, started, result)
            sent.add_done_callback(lambda _: self.free.release())
        else:
            getattr(result, "close", _nothing)()
            _refuse(request, HTTPStatus.SERVICE_UNAVAILABLE)

    def _finish(
        self, request: Any, send: Callable[..., None], started: list[Any], result: Any
    ) -> None:
        try:
            send(request.proto, started, result)
            request.done()
        except RSGIProtocolClosed:
            request.done()  # the client has gone
        except BaseException:
            log.exception("an answer broke off")
            _refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            getattr(result, "close", _nothing)()


def _send_whole(proto: Any, started: list[Any], result: Iterable[bytes]) -> None:
    proto.response_bytes(*started, b"".join(result))


async def _body(proto: Any, announced: str) -> bytes:
    """The body; of one that is too long, or may become it, the first BODY_MAX_BYTES."""
    if announced.isdigit() and int(announced[:9]) <= BODY_MAX_BYTES and len(announced) < 9:
        whole: bytes = await proto()
        return whole
    pieces, size = [], 0
    async for piece in proto:
        pieces.append(piece)
        size += len(piece)
        if size >= BODY_MAX_BYTES:
            break
    return b"".join(pieces)[:BODY_MAX_BYTES]


def _is_short(headers: Headers) -> bool:
    """Whether the answer announces a length that may well lie in memory."""
    for name, value in headers:
        if name.lower() == "content-length":
            return len(value) <= WHOLE_MAX_DIGITS
    return False


def _nothing() -> None:
    """Most answers have nothing to close."""


def _keep_this_thread() -> None:
    """Keeps what Python knows of a thread that granian made: else it is thrown away after each
    request, the thread's database connection with it."""
    ctypes.pythonapi.PyGILState_Ensure()


def _stream(proto: Any, started: list[Any], result: Iterable[bytes]) -> None:
    """Sends each piece when the client has taken those before it.

    Granian's own stream takes on whatever it is given, all of it into memory. A file it reads as
    the client takes it; a pipe is a file that is not there yet. Raises RSGIProtocolClosed for a
    client that is gone, or takes nothing for long.
    """
    pieces = iter(result)
    first = next(pieces, b"")  # by now every application has called start_response
    with tempfile.TemporaryDirectory(prefix="latchkey-") as directory:
        path = os.path.join(directory, "answer")
        os.mkfifo(path, 0o600)
        proto.response_file(*started, path)
        descriptor = _open_pipe(path)
    try:
        for piece in itertools.chain([first], pieces):
            _write(descriptor, memoryview(piece))
    except BrokenPipeError:
        raise RSGIProtocolClosed from None
    finally:
        os.close(descriptor)


def _open_pipe(path: str) -> int:
    """The pipe to write to, once it is read from; for a client that has gone it never is."""
    until = time.monotonic() + PIPE_SECONDS
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > until:
                raise RSGIProtocolClosed from None
        time.sleep(PIPE_POLL_SECONDS)


def _write(descriptor: int, data: memoryview) -> None:
    writable = select.poll()
    writable.register(descriptor, select.POLLOUT)
    while data:
        if not writable.poll(TAKEN_SECONDS * 1000):
            raise BrokenPipeError
        with suppress(BlockingIOError):
            data = data[os.write(descriptor, data) :]


def _refuse(request: Any, status: int) -> None:
    headers = [
        ("Connection", "close"),
        ("Content-Type", "text/plain"),
        ("Cache-Control", "no-store"),
    ]
    request.proto.response_str(status, headers, f"{HTTPStatus(status).phrase}\n")
    request.done()


def _environ(scope: Any) -> Environ:
    """The request as WSGI puts it.

    Names with underscores are dropped, as nginx does: afterwards nobody could tell
    `X_Forwarded_For` from `X-Forwarded-For`. A header in other characters than ASCII's is not
    handed on by granian; that one was there must not be missed where it says whose request it is,
    or that it may have come before.
    """
    environ = ENVIRON | {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.url_scheme": scope.scheme,
    }
    environ["SERVER_NAME"], _, environ["SERVER_PORT"] = scope.server.rpartition(":")
    headers = scope.headers
    size = 0
    for name, value in headers.items():
        size += len(name) + len(value)
        variable = _variable(name)
        if variable:
            known = environ.get(variable)
            environ[variable] = value if known is None else f"{known},{value}"
    for name, variable in NEVER_MISSED:
        if variable not in environ and name in headers:
            environ[variable] = UNREADABLE
    environ[HEADERS_BYTES] = size
    return environ


@lru_cache(maxsize=1_000)
def _variable(name: str) -> str | None:
    """The header's name in WSGI; None for one with an underscore."""
    if "_" in name:
        return None
    variable = name.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


def serve(
    app: WSGI,
    host: str,
    port: int,
    *,
    is_quick: Callable[[str], bool],
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    """Serves until SIGINT or SIGTERM, lets the requests under way finish and ends the process.

    `is_quick` says of a path that it is answered without waiting for anything. Raises ConfigError
    for an address that cannot be listened on.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.freeze()  # what is there now stays: no need to look through it again and again
    server = _InProcess(
        on_start,
        on_stop,
        address=_free_address(host, port),
        port=port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=HEADERS_READ_BYTES),
        websockets=False,
        log_enabled=False,
    )

    def requests(loop: asyncio.AbstractEventLoop, *_: Any, **__: Any) -> _Requests:
        """What granian asks for when its worker starts; else it would call an application."""
        server.requests.append(_Requests(loop, app, is_quick))
        return server.requests[-1]

    mt._new_cbscheduler = requests  # type: ignore[attr-defined]
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
