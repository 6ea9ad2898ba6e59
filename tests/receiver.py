"""A receiver of webhooks on loopback: keeps what it was sent, and answers as the test says."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

WAIT_SECONDS = 30

# A status, bytes as they are, or whatever is done with the connection.
Answer = int | bytes | Callable[[socket.socket], None]


@dataclass(frozen=True)
class Message:
    line: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Receiver:
    """Answers as `answers` say, one after the other; the last one holds for all that follow."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers or (200,))
        self.messages: list[Message] = []
        self.connections = 0
        self._tls = tls
        self._arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_for(self, count: int) -> list[Message]:
        """The messages, as soon as there are so many."""
        with self._arrived:
            enough = self._arrived.wait_for(lambda: len(self.messages) >= count, WAIT_SECONDS)
            assert enough, f"{len(self.messages)} of {count} messages came"
            return list(self.messages)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT_SECONDS)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            message = _read(connection)
            with self._arrived:
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                self.messages.append(message)
                self._arrived.notify_all()
            _answer(connection, answer)
        except (OSError, ValueError):
            pass  # the sender has gone, or never meant it
        finally:
            connection.close()


def _read(connection: socket.socket) -> Message:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    while len(body) < int(headers["content-length"]):
        body += _receive(connection)
    return Message(line, headers, body)


def _receive(connection: socket.socket) -> bytes:
    piece = connection.recv(65_536)
    if not piece:
        raise ValueError("it ended too soon")
    return piece


def _answer(connection: socket.socket, answer: Answer) -> None:
    if isinstance(answer, int):
        answer = f"HTTP/1.1 {answer} Told\r\nContent-Length: 0\r\n\r\n".encode()
    if isinstance(answer, bytes):
        connection.sendall(answer)
    else:
        answer(connection)


# --- bad manners --------------------------------------------------------------------------------


def hang(connection: socket.socket) -> None:
    """Answers nothing until the sender goes."""
    connection.recv(1)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(connection: socket.socket) -> None:
    """A header that never ends, a byte at a time."""
    while True:
        connection.sendall(b"H")
        time.sleep(0.02)


def promise(connection: socket.socket) -> None:
    """Interim answers without end."""
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


def redirect_to(url: str) -> bytes:
    return f"HTTP/1.1 307 There\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


def waits_for(event: threading.Event) -> Callable[[socket.socket], None]:
    """Answers 200 once the event is set."""

    def answer(connection: socket.socket) -> None:
        event.wait(WAIT_SECONDS)
        _answer(connection, 200)

    return answer
