"""The server: what it makes of requests on the wire, and who waits for whom."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server import ROOT, free_port, wait_until

pytestmark = pytest.mark.service


APPLICATION = """
import sys, time
from console import logs, server

logs.set_up()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read()
    if path == "/fails":
        raise RuntimeError("as it was told")
    if path == "/slow":
        time.sleep(0.5)
    if path == "/pieces":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d " % number for number in range(1000))
    if path == "/much":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes(1_000_000) for number in range(1_000))
    if path == "/breaks":
        logs.request_id.set("req_breaks")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d" % (1 / (3 - number)) for number in range(9))
    if path == "/memory":
        start_response("200 OK", [])
        return [open("/proc/self/status", "rb").read()]
    names = sorted(name for name in environ if name.startswith(("HTTP_X", "HTTP_I", "CONTENT")))
    seen = " ".join(f"{name}={environ[name]}" for name in names)
    text = f"{environ['REQUEST_METHOD']} {path} {environ['QUERY_STRING']} {len(body)} {seen}"
    start_response("200 OK", [("X-From", environ["REMOTE_ADDR"])])
    return [text.encode("latin-1")]

server.BODY_SECONDS = 1
server.serve(app, "127.0.0.1", int(sys.argv[1]), is_quick=lambda path: path.startswith("/quick"),
             on_start=lambda: print("up", flush=True), on_stop=lambda: None)
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A small application behind the server, on this port."""
    number = free_port()
    log = tmp_path_factory.mktemp("served") / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        yield number
        # A body that never comes to its end holds up the end of the process only so long.
        with socket.create_connection(("127.0.0.1", number)) as unfinished:
            unfinished.sendall(b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            time.sleep(0.1)
            process.terminate()
            assert process.wait(timeout=10) == 0
    for line in log.read_text().splitlines():  # another thread sent it, and this one goes on
        if not line.startswith(" "):
            assert ("[req_breaks]" in line) == ("an answer broke off" in line), line
    failures = log.read_text().split("Traceback (most recent call last):")[1:]
    told = ("RuntimeError: as it was told", "ZeroDivisionError")
    assert all(any(one in failure for one in told) for failure in failures)


def exchange(port: int, request: bytes, *more: bytes, pause: float = 0.05) -> bytes:
    """What is answered to these bytes, sent piece by piece; the answer's end ends it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        for piece in more:
            time.sleep(pause)
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def ask(port: int, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return exchange(port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def text_of(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return body.decode("latin-1")


@pytest.mark.parametrize("path", ["/quick", "/page"])
def test_a_request_arrives_as_it_was_sent(port: int, path: str) -> None:
    said = text_of(ask(port, f"{path}?a=%41&b", "X-One: 1", "X-One: 2", "x-two:  b c "))
    assert said == f"GET {path} a=%41&b 0 HTTP_X_ONE=1,2 HTTP_X_TWO=b c"


@pytest.mark.parametrize("path", ["/quick", "/page"])
@pytest.mark.parametrize("size", [1, 70_000, 1_048_576])
def test_a_body_arrives_whole(port: int, path: str, size: int) -> None:
    said = text_of(ask(port, path, method="POST", body=b"x" * size))
    assert said == f"POST {path}  {size} CONTENT_LENGTH={size}"


def test_a_body_in_chunks_arrives_whole(port: int) -> None:
    head = (
        b"POST /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    said = text_of(exchange(port, head + b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"))
    assert said.split()[:3] == ["POST", "/page", "5"]


def test_of_a_body_that_is_too_long_only_its_beginning_is_handed_on(port: int) -> None:
    """The application sees by it that there is too much; memory is not filled with the rest."""
    said = text_of(ask(port, "/page", method="POST", body=b"x" * 3_000_000))
    assert said.split()[2] == "1048577"


def test_names_with_underscores_are_dropped(port: int) -> None:
    """Nobody could tell them from those with hyphens afterwards."""
    said = text_of(ask(port, "/quick", "X_Forwarded_For: 10.0.0.1", "X-Forwarded-For: 192.0.2.1"))
    assert said.endswith(" 0 HTTP_X_FORWARDED_FOR=192.0.2.1")


def test_a_header_that_cannot_be_read_is_not_taken_for_one_that_is_not_there(port: int) -> None:
    """Else what a proxy appended to it would be missed, and the proxy be taken for the client."""
    said = text_of(ask(port, "/quick", "X-Forwarded-For: \xff, 192.0.2.1"))
    assert said.endswith(" 0 HTTP_X_FORWARDED_FOR=?")


def test_an_idempotency_key_that_cannot_be_read_is_not_taken_for_none(port: int) -> None:
    """To miss it would do the same thing twice."""
    answer = exchange(
        port,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: ü\r\n\r\n".encode(),
    )
    assert b"HTTP_IDEMPOTENCY_KEY=?" in answer


def test_a_path_is_handed_on_as_wsgi_wants_it(port: int) -> None:
    assert (
        text_of(ask(port, "/page/%C3%A9%20a"))
        .encode("latin-1")
        .startswith("GET /page/é a ".encode())
    )


def test_an_answer_in_pieces_arrives_whole(port: int) -> None:
    answer = ask(port, "/pieces")
    assert b"transfer-encoding: chunked" in answer and b"999 " in answer


def test_a_client_that_goes_in_the_middle_of_an_answer_harms_nobody(port: int) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(10)
    assert text_of(ask(port, "/page"))


def memory(port: int) -> int:
    """What the process takes, in KiB."""
    found = re.search(rb"VmRSS:\s+(\d+)", ask(port, "/memory"))
    assert found
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_answer_takes_no_memory_while_its_client_takes_nothing(port: int) -> None:
    before = memory(port)
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(10)
        time.sleep(1)
        assert memory(port) < before + 60_000


def test_clients_that_take_nothing_hold_up_nobody(port: int) -> None:
    """More of them than there are threads for their answers."""
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for one in idle:
        one.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    assert text_of(ask(port, "/quick")) and text_of(ask(port, "/page"))
    for one in idle:
        one.close()
    assert b"999 " in ask(port, "/pieces")


def test_clients_that_go_at_once_are_no_failures(port: int) -> None:
    """The fixture looks through the log in the end."""
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /pieces HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"999 " in ask(port, "/pieces")


def test_of_too_many_long_answers_the_last_is_refused_and_room_comes_back(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(70)]
    for one in idle:
        one.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: ask(port, "/pieces").startswith(b"HTTP/1.1 503 "))
    for one in idle:
        one.close()
    wait_until(lambda: ask(port, "/pieces").startswith(b"HTTP/1.1 200 "))


def test_an_answer_that_breaks_off_ends(port: int) -> None:
    answer = ask(port, "/breaks")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert text_of(ask(port, "/page"))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_whatever_goes_wrong_in_the_application_is_answered(port: int, method: str) -> None:
    answer = ask(port, "/fails", method=method, body=b"x" if method == "POST" else b"")
    assert answer.startswith(b"HTTP/1.1 500 ")


def test_head_has_no_body(port: int) -> None:
    assert ask(port, "/page", method="HEAD").endswith(b"\r\n\r\n")


def test_slow_bodies_hold_up_nobody_and_end(port: int) -> None:
    """More of them than there are threads: the quick and the others are answered at once."""
    slow = b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(exchange, port, slow) for _ in range(40)]
        time.sleep(0.2)
        assert text_of(ask(port, "/quick")) and text_of(ask(port, "/page"))
        assert not any(one.done() for one in waiting)
        answers = {one.result()[:13] for one in waiting}
    assert answers == {b"HTTP/1.1 408 "}


def test_a_client_that_goes_in_the_middle_of_its_body_harms_nobody(port: int) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            time.sleep(0.01)
    assert text_of(ask(port, "/page", method="POST", body=b"abc"))


def test_slow_pages_do_not_hold_up_the_quick(port: int) -> None:
    with ThreadPoolExecutor(32) as pool:
        slow = [pool.submit(ask, port, "/slow") for _ in range(32)]
        time.sleep(0.1)
        assert text_of(ask(port, "/quick"))
        assert not any(one.done() for one in slow)
        assert all(text_of(one.result()) for one in slow)


def test_requests_on_one_connection_are_answered_in_order(port: int) -> None:
    first = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    both = first + b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(port, both)
    assert 0 < answer.index(b"GET /slow") < answer.index(b"GET /quick")


def test_bytes_that_are_no_request_are_refused(port: int, tmp_path: Path) -> None:
    assert exchange(port, b"\x16\x03\x01 hello\r\n\r\n")[:13] in (b"HTTP/1.1 400 ", b"")
    assert text_of(ask(port, "/quick"))


DIES = """
from console import server

def dies(*_):
    raise RuntimeError("as it was told")

server._Requests = dies
server.serve(lambda *_: [], "127.0.0.1", %d, is_quick=lambda _: False,
             on_start=lambda: print("serves"), on_stop=lambda: None)
"""


def test_a_server_that_cannot_start_ends_and_does_not_say_that_it_serves() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DIES % free_port()],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.endswith("what is above says why\n")
