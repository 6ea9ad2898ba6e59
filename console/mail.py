"""Mail: one plain message to one person, through the server of LATCHKEY_SMTP_URL (RFC 5321, 6409).

Passwords go to the server only under TLS, or within this machine. What a message says, and when,
is not known here.
"""

import logging
import queue
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid, parseaddr
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from console import db

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0  # for each answer of the server
PORTS = {"smtp": 587, "smtps": 465}
WAITING_MAX = 100
ANSWER_MAX_LENGTH = 200
# A link stays on one line, and whole; what is not ASCII goes as quoted-printable.
POLICY = SMTP.clone(max_line_length=990, cte_type="7bit")


class NotSent(Exception):
    """The mail was not taken; one sentence says why."""


@dataclass(frozen=True)
class Server:
    """The server that takes our mail."""

    host: str
    port: int
    is_tls: bool  # from the first byte on
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


_server: Server | None = None
_sender = Address()


def use(smtp_url: str, mail_from: str) -> None:
    """Sends from now on through this server, as this sender; through none where the URL is `""`."""
    global _server, _sender
    _server = read_url(smtp_url) if smtp_url else None
    _sender = read_sender(mail_from) if mail_from else Address()


def is_on() -> bool:
    """Whether mail is sent at all."""
    return _server is not None


def read_url(text: str) -> Server:
    """The server that `smtp://user:password@host:587` or `smtps://…` names. Raises ValueError."""
    parts = urlsplit(text)
    if (
        parts.scheme not in PORTS
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or parts.port == 0
        or any(character.isspace() for character in text)
        or bool(parts.username) != bool(parts.password)
    ):
        raise ValueError("is no address of a mail server")
    return Server(
        parts.hostname,
        parts.port or PORTS[parts.scheme],
        parts.scheme == "smtps",
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def read_sender(text: str) -> Address:
    """The sender that `keys@example.com` or `Latchkey <keys@example.com>` names. Raises
    ValueError."""
    name, address = parseaddr(text)
    if not text.isprintable() or not address.isascii() or not is_address(address):
        raise ValueError("is no sender of mail")
    if address != text and not text.endswith(f"<{address}>"):
        raise ValueError("is not one sender")
    return _address(address, name)


def is_address(text: str) -> bool:
    """Whether mail can be sent to this and to nobody else, as far as its form goes."""
    user, at, host = text.rpartition("@")
    is_one = parseaddr(text) == ("", text) and not any(character.isspace() for character in text)
    return bool(user and at and host) and is_one


def _address(text: str, name: str = "") -> Address:
    user, _, host = text.rpartition("@")
    return Address(display_name=name, username=user.strip('"'), domain=host)


# --- send -----------------------------------------------------------------------------------


def send(
    to: str,
    subject: str,
    text: str,
    *,
    name: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Hands the message to the server, which delivers it. What is sent again under the same `name`
    (letters and digits) has the same Message-ID. Raises NotSent."""
    if not is_address(to):
        raise NotSent(f"Mail cannot be addressed to {to}.")
    message = _message(to, subject, text, name)
    with _connected(timeout_seconds) as server:
        server.send_message(message, _sender.addr_spec, [to])


def check(*, timeout_seconds: float) -> None:
    """Asks the server whether it would let us send. Raises NotSent."""
    with _connected(timeout_seconds):
        pass


def _message(to: str, subject: str, text: str, name: str | None) -> EmailMessage:
    message = EmailMessage(POLICY)
    message["From"] = _sender
    message["To"] = _address(to)
    message["Subject"] = subject
    message["Date"] = formatdate(localtime=False)
    unique = f"<{name}@{_sender.domain}>" if name else make_msgid(domain=_sender.domain)
    message["Message-ID"] = unique
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notes, thank you
    message.set_content(text)
    return message


@contextmanager
def _connected(timeout_seconds: float) -> Iterator[smtplib.SMTP]:
    """A connection to the server, signed in where there is a password. Raises NotSent, also for
    what goes wrong in its body."""
    assert _server is not None
    try:
        with _dial(_server, timeout_seconds) as connection:
            _encrypt(connection, _server)
            if _server.user:
                connection.login(_server.user, _server.password)
            yield connection
    except (OSError, ValueError) as error:  # smtplib's own are OSErrors
        raise NotSent(_in_words(error, _server)) from error


def _dial(server: Server, timeout_seconds: float) -> smtplib.SMTP:
    # Without a name of ours, smtplib would ask the resolver for one.
    if server.is_tls:
        return smtplib.SMTP_SSL(
            server.host,
            server.port,
            _sender.domain,
            timeout=timeout_seconds,
            context=ssl.create_default_context(),
        )
    return smtplib.SMTP(server.host, server.port, _sender.domain, timeout=timeout_seconds)


def _encrypt(connection: smtplib.SMTP, server: Server) -> None:
    """TLS where it is offered (RFC 3207); a password is never sent in the clear to another
    machine. Within this one nobody listens in, and certificates are seldom of its name."""
    if server.is_tls or _is_here(connection):
        return
    connection.ehlo_or_helo_if_needed()
    if connection.has_extn("starttls"):
        connection.starttls(context=ssl.create_default_context())
    elif server.user:
        raise NotSent(f"The mail server {server} offers no TLS: the password was not sent to it.")


def _is_here(connection: smtplib.SMTP) -> bool:
    assert connection.sock is not None
    return ip_address(connection.sock.getpeername()[0].partition("%")[0]).is_loopback


def _in_words(error: Exception, server: Server) -> str:
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"The mail server {server} does not take the user and password that are set."
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            [(to, (code, answer))] = refused.items()
            return f"The mail server {server} takes no mail for {to}: {code} {_shown(answer)}"
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=answer):
            return f"The mail server {server} refused the mail: {code} {_shown(answer)}"
        case ssl.SSLCertVerificationError():
            return f"The mail server {server} has no good certificate: {error.verify_message}."
        case TimeoutError() | smtplib.SMTPServerDisconnected(__context__=TimeoutError()):
            return f"The mail server {server} does not answer."
        case smtplib.SMTPServerDisconnected():
            return f"The mail server {server} hung up."
        case smtplib.SMTPException() | ssl.SSLError() | ValueError():
            return f"The mail server {server} cannot be used: {_shown(str(error))}"
    return f"The mail server {server} cannot be reached: {error.strerror or 'no answer'}."  # type: ignore[attr-defined]


def _shown(answer: bytes | str) -> str:
    """What a server said, as one short line."""
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:ANSWER_MAX_LENGTH].rstrip(".") + "."


# --- later ----------------------------------------------------------------------------------

_waiting: queue.Queue[Callable[[], None]] = queue.Queue(WAITING_MAX)
_starting = threading.Lock()
_thread: threading.Thread | None = None


def later(task: Callable[[], None]) -> bool:
    """Does the task behind those that wait, in a thread of mail's own; whether it will be done.

    For who must not learn from the time it takes whether a mail was sent.
    """
    global _thread
    try:
        _waiting.put_nowait(task)
    except queue.Full:
        log.warning("mail: %d wait already; one more was dropped", WAITING_MAX)
        return False
    with _starting:
        if _thread is None:
            _thread = threading.Thread(target=_work, name="mail", daemon=True)
            _thread.start()
    return True


def settle() -> None:
    """Waits until all that was put off is done."""
    _waiting.join()


def _work() -> None:
    while True:
        task = _waiting.get()
        try:
            task()
        except NotSent as error:
            log.warning("mail: %s", error)
        except Exception:
            log.exception("mail: what was put off has failed")
        finally:
            db.close()
            _waiting.task_done()
