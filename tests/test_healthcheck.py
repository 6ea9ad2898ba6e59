"""What a container asks of the server in it: one line, 0 or 1, in time, and nothing is opened."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import config as settings
from config import Config
from console import healthcheck
from tests.server import RunningServer, free_port


def at(host: str, port: int) -> Config:
    return settings.load({"LATCHKEY_HOST": host, "LATCHKEY_PORT": str(port)})


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of somebody who answers one request like this, piece by piece, and then keeps
    silent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ended = threading.Event()
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(1_000)
                for piece in pieces:
                    try:
                        peer.sendall(piece)
                    except OSError:
                        return
                    if ended.wait(pause):
                        return
                ended.wait(20)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        ended.set()
        thread.join()


def saying(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (saying("200 OK", '{"status": "ok"}'), "ok"),
        (saying("200 OK", '{"status": "degraded", "reason": "no Redis"}'), "degraded: no Redis"),
    ],
)
def test_who_is_well_says_so(answer: bytes, words: str) -> None:
    with answering(answer) as port:
        assert healthcheck.ask(at("127.0.0.1", port)) == words


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            saying("503 No", '{"status": "unavailable", "reason": "no disk"}'),
            "unavailable: no disk",
        ),
        (saying("404 No", "<html>"), "somebody else answers, with 404"),
        (saying("500 No", "[1]"), "somebody else answers, with 500"),
        (saying("200 OK", "{}"), "somebody else answers, with 200"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer: SSH-2.0-OpenSSH"),
    ],
)
def test_who_is_not_says_why(answer: bytes, words: str) -> None:
    with answering(answer) as port, pytest.raises(healthcheck.Unwell) as error:
        healthcheck.ask(at("127.0.0.1", port))
    assert str(error.value).startswith(f"127.0.0.1:{port}") and words in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "::1"])
def test_who_listens_everywhere_is_asked_on_this_machine(host: str) -> None:
    own = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)
    with answering(saying("200 OK", '{"status": "ok"}'), host=own) as port:
        assert healthcheck.ask(at(host, port)) == "ok"


def test_nobody_there() -> None:
    port = free_port()
    with pytest.raises(healthcheck.Unwell, match=f"127.0.0.1:{port} does not answer: Conn"):
        healthcheck.ask(at("127.0.0.1", port))


@pytest.mark.parametrize(
    ("pieces", "pause"), [((b"",), 0.0), ((b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n",), 0.0),
                          ((b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 40), 0.3)]
)  # fmt: skip
def test_who_is_slow_is_not_waited_for(
    pieces: tuple[bytes, ...], pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healthcheck, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(healthcheck, "WHOLE_SECONDS", 1.0)
    with answering(*pieces, pause=pause) as port:
        began = time.monotonic()
        with pytest.raises(healthcheck.Unwell):
            healthcheck.ask(at("127.0.0.1", port))
        assert time.monotonic() - began < 4


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with answering(saying("200 OK", '{"status": "ok"}')) as port:
        assert healthcheck.ask(at("127.0.0.1", port)) == "ok"


@pytest.mark.service
def test_the_command_asks_the_server_and_makes_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", LATCHKEY_HOST="0.0.0.0") as server:
        for arguments in ((), ("--live",)):
            ran = server.run("healthcheck", *arguments)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", "")
    server.environ["LATCHKEY_DATA_DIR"] = str(tmp_path / "elsewhere")
    ran = server.run("healthcheck")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"latchkey: 127.0.0.1:{server.port} does not answer: ")
    assert not (tmp_path / "elsewhere").exists()
    server.environ["LATCHKEY_PORT"] = "x"
    assert server.run("healthcheck").returncode == 1
