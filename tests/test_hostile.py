"""What somebody sends who means harm, or whose program is broken, to a real server: a clear 4xx
each, and the server goes on."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import RunningServer

pytestmark = pytest.mark.service

CREATE, VERIFY, IMPORT = "/api/v1/api-keys", "/api/v1/verify", "/api/v1/api-keys/import"
OUTCOMES, TOKEN = "/api/v1/audit-log/outcomes", "/api/v1/auth/token"
CALLS = (CREATE, VERIFY, IMPORT, OUTCOMES, TOKEN)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("hostile") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def secret(server: RunningServer) -> str:
    server.run("create-project", "--slug", "shop")
    made = server.run(
        "create-key", "--project", "shop", "--name", "Manager", "--permission", "admin:*"
    )
    return made.stdout.strip()


def send(
    server: RunningServer, secret: str, path: str, body: Any, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Authorization": f"Bearer {secret}", **headers})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def assert_refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    """problem+json with this status and code, and a sentence."""
    got, headers, body = answer
    assert (got, headers.get("content-type")) == (status, "application/problem+json"), body
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"] and problem["request_id"] == headers["x-request-id"]


BODIES = {
    "an integer over 2^63": b'{"monthly_quota": 9223372036854775808}',
    "an integer under -2^63": b'{"monthly_quota": -9223372036854775809}',
    "an integer of 100,000 digits": b'{"cost": ' + b"9" * 100_000 + b"}",
    "a number beyond a double": b'{"cost": 1e999}',
    "NaN": b'{"cost": NaN}',
    "Infinity": b'{"cost": -Infinity}',
    "arrays 10,000 deep": b'{"metadata": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "objects 10,000 deep": b'{"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "arrays 500,000 deep, never closed": b"[" * 500_000,
    "a name twice": b'{"name": "a", "name": "b"}',
    "a name twice, deep inside": b'{"metadata": {"a": {"b": 1, "b": 2}}}',
    "a lone high surrogate": b'{"name": "\\ud800"}',
    "a lone low surrogate": b'{"name": "x\\udfff"}',
    "a lone surrogate as a name": b'{"\\ud800": 1}',
    "NUL": b'{"name": "a\\u0000b"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "bytes that are no UTF-8": b'{"name": "\xff\xfe"}',
    "an overlong encoding": b'{"name": "\xc0\xaf"}',
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "half a text": b'{"name": "x',
    "two texts": b'{"name": "x"}{"name": "y"}',
    "a comment": b'{"name": "x" /* y */}',
    "a single quote": b"{'name': 'x'}",
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_400(server: RunningServer, secret: str, path: str, name: str) -> None:
    assert_refused(send(server, secret, path, BODIES[name], **JSON), 400, "INVALID")


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-16", "application/json; charset=latin-1", "text/plain",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"],
)  # fmt: skip
def test_another_type_or_charset_is_415(
    server: RunningServer, secret: str, path: str, kind: str
) -> None:
    body = b'{"name": "x"}'
    answer = send(server, secret, path, body, **{"Content-Type": kind})
    assert_refused(answer, 415, "UNSUPPORTED_TYPE")


HUNDRED_MEGABYTES = 100 * 1024 * 1024
PIECE = b"x" * 65_536


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "in chunks"])
def test_a_hundred_megabytes_are_413(
    server: RunningServer, secret: str, path: str, is_announced: bool
) -> None:
    """It answers while they still come, and hangs up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", path)
    length = ("Content-Length", str(HUNDRED_MEGABYTES))
    size = length if is_announced else ("Transfer-Encoding", "chunked")
    for name, value in [*JSON.items(), ("Authorization", f"Bearer {secret}"), size]:
        connection.putheader(name, value)
    connection.endheaders()
    piece = PIECE if is_announced else b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
    try:
        for _ in range(HUNDRED_MEGABYTES // len(PIECE)):
            connection.send(piece)
    except OSError:
        pass
    answer = connection.getresponse()
    assert_refused((answer.status, dict(answer.getheaders()), answer.read()), 413, "TOO_LARGE")
    connection.close()


@pytest.mark.parametrize("name", ["X-Filler", "Authorization", "Idempotency-Key", "User-Agent"])
def test_a_header_of_a_megabyte_is_431(server: RunningServer, secret: str, name: str) -> None:
    headers = {**JSON, name: "x" * 1024 * 1024}
    try:
        status, _, _ = send(server, secret, CREATE, b'{"name": "x"}', **headers)
    except (BrokenPipeError, ConnectionResetError):
        pytest.fail("it hung up without an answer")
    assert status == 431


def test_after_all_of_it_the_server_answers_as_before(server: RunningServer, secret: str) -> None:
    status, _, body = send(server, secret, CREATE, b'{"name": "x"}', **JSON)
    assert status == 201, body
    assert "Traceback" not in server.log
