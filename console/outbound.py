"""One HTTP POST to an address that somebody else chose: to public addresses alone, in bounded time.

The name is resolved once, every address that it has is judged, and the connection goes to one of
these, so a name that answers differently the next time gains nothing (DNS rebinding). Redirects are
not followed and the environment's proxies not asked. Of the answer only its status is of interest.
"""

import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_network
from urllib.parse import SplitResult, urlsplit

from console.addresses import Network, lies_in, parse_address

TIMEOUT_SECONDS = 15.0  # for all of it, from the name to the status
CONNECT_SECONDS = 5.0  # for one of several addresses
PIECE_BYTES, PIECES_MAX = 1024, 64  # of an answer, up to its status
URL_MAX_LENGTH = 2_000
URL_HELP = "must be an address such as https://hooks.example.com/latchkey"
VISIBLE = re.compile(r"[!-~]+")
HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")
STATUS = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})[ \r\n]")
INTERIM = re.compile(rb"\A(?:HTTP/1\.[01] 1[0-9]{2}[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n)+")
PORTS = {"https": 443, "http": 80}

# All that is handed out of IPv6; what lies beyond maps, translates or is of use on the spot.
GLOBAL_UNICAST = IPv6Network("2000::/3")
# Python's is_global says yes to some of these: assignments to protocols (RFC 6890), relays and
# tunnels that lead to an IPv4 address (6to4, Teredo), documentation (RFC 9637).
NOT_PUBLIC = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20"))
)

Resolve = Callable[[str], Iterable[str]]

_allowed: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a message: the status, if one was answered, and in words what went wrong."""

    status: int | None
    error: str | None  # None: a 2xx was answered
    duration_ms: int = 0


def allow(networks: Iterable[Network]) -> None:
    """Sets which networks may be called besides public addresses."""
    global _allowed
    _allowed = tuple(networks)


def may_call(text: str) -> bool:
    """Whether this address may be called; a mapped IPv4 address is judged as what it stands for."""
    try:
        address = parse_address(text)
    except ValueError:
        return False
    if lies_in(address, _allowed):
        return True
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not lies_in(address, NOT_PUBLIC)


def parse_url(url: str) -> SplitResult:
    """The URL's parts. Raises ValueError, also where the host is an address that may not be called;
    what a name leads to is seen when it is called."""
    if len(url) > URL_MAX_LENGTH:
        raise ValueError(f"has {len(url)} characters; at most {URL_MAX_LENGTH} are allowed")
    try:
        parts = urlsplit(url if VISIBLE.fullmatch(url) else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(URL_HELP) from None
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; every message is signed instead")
    if parts.scheme not in PORTS or not HOST.fullmatch(host) or port == 0:
        raise ValueError(URL_HELP)
    with suppress(OSError, UnicodeError):  # a name
        literal = resolve(host, socket.AI_NUMERICHOST)  # in any notation: 127.1, 0x7f000001
        if not all(map(may_call, literal)):
            raise ValueError("must lead to a public address; see LATCHKEY_WEBHOOK_NETWORKS")
    return parts


def resolve(host: str, flags: int = 0) -> list[str]:
    """The addresses of the host, the preferred one first. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    resolve: Resolve = resolve,
) -> Outcome:
    """Sends the body and says what came of it."""
    began = time.monotonic()
    status, error = None, None
    try:
        target, deadline = parse_url(url), began + timeout_seconds
        with closing(_connected(target, deadline, resolve)) as connection:
            _send(connection, _request(target, body, headers), deadline)
            status = _status(connection, deadline)
        if not 200 <= status < 300:
            is_redirect = 300 <= status < 400
            error = f"answered {status}" + ("; redirects are not followed" if is_redirect else "")
    except TimeoutError:
        error = f"did not answer within {timeout_seconds:g} s"
    except OSError as failure:
        error = f"could not be reached: {failure.strerror or type(failure).__name__}"
    except ValueError as failure:
        error = str(failure)
    return Outcome(status, error, round((time.monotonic() - began) * 1000))


def _left(deadline: float) -> float:
    """Seconds. Raises TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(target: SplitResult, deadline: float, resolve: Resolve) -> socket.socket:
    """A connection to an address of the host that may be called: the very one that was judged."""
    host, port = str(target.hostname), target.port or PORTS[target.scheme]
    failure = OSError(0, "its name has no address")
    for address in _addresses(host, deadline, resolve):
        try:
            patience = min(CONNECT_SECONDS, _left(deadline))
            connection = socket.create_connection((address, port), timeout=patience)
        except OSError as error:
            failure = error
            continue
        if target.scheme == "http":
            return connection
        try:
            connection.settimeout(_left(deadline))
            return _tls().wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise
    raise failure


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _addresses(host: str, deadline: float, resolve: Resolve) -> list[str]:
    """All addresses of the host. One that may not be called speaks against the others, too.

    The system's resolver knows no deadline: the thread that waits for it may be left behind.
    """
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(list(resolve(host)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        found = answers.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    if not all(map(may_call, found)):
        raise ValueError("its name leads to an address that is not public, so it was not called")
    return [str(parse_address(address)) for address in found]


def _request(target: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {target.netloc.lower().rstrip(':')}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii") + body


def _send(connection: socket.socket, request: bytes, deadline: float) -> None:
    left = memoryview(request)
    while left:
        connection.settimeout(_left(deadline))
        left = left[connection.send(left) :]


def _status(connection: socket.socket, deadline: float) -> int:
    """The answer's status; nothing after it is asked for. Raises ValueError, OSError."""
    received = b""
    for _ in range(PIECES_MAX):
        connection.settimeout(_left(deadline))
        piece = connection.recv(PIECE_BYTES)
        received = INTERIM.sub(b"", received + piece)
        status = STATUS.match(received)
        if status:
            return int(status[1])
        if not piece:
            break
    raise ValueError("answered what is not HTTP, or nothing")
