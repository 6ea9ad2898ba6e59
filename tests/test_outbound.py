"""What is sent to an address that somebody else chose: never to one that is not public, in whatever
form it comes; and however a receiver behaves, a sender is done in its time."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from console import outbound
from console.outbound import Outcome, may_call, parse_url, post
from tests.receiver import (
    WAIT_SECONDS,
    Receiver,
    drip,
    hang,
    promise,
    redirect_to,
    reset,
)

LOOPBACK = ip_network("127.0.0.0/8")

# What a host is written as, in URLs; each leads to something that is not public.
LITERALS = [
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.1",
    "017700000001", "0177.0.0.1", "0", "0.0.0.0", "10.0.0.1", "10.255.255.255", "172.16.0.1",
    "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255", "169.254.169.254",
    "169.254.170.2", "2852039166", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "[::1]", "[::]", "[::127.0.0.1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::10.0.0.1]", "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[3fff::1]", "[100::1]",
    "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[ff0e::1]",
    "[5f00::1]", "[4000::1]",
]  # fmt: skip
ADDRESSES = [host.strip("[]") for host in LITERALS if "." in host or ":" in host]
PUBLIC = ["1.1.1.1", "93.184.216.34", "192.0.1.1", "::ffff:8.8.8.8", "2606:4700:4700::1111"]


@pytest.fixture
def public_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_allowed", ())


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_allowed", (LOOPBACK,))


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """To which addresses a connection was tried; none succeeds."""
    tried: list[Any] = []

    def refuse(address: Any, timeout: float) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    return tried


def leads_to(*addresses: str) -> Any:
    return lambda host: list(addresses)


def send(url: str, **more: Any) -> Outcome:
    return post(url, b"{}", {"webhook-id": "msg_1"}, **{"timeout_seconds": WAIT_SECONDS, **more})


# --- where to ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", LITERALS)
def test_an_address_that_is_not_public_is_refused_and_not_connected_to(
    public_only: None, connected: list[Any], host: str
) -> None:
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}/hook"
        with pytest.raises(ValueError, match=r"public address|such as https"):
            parse_url(url)
        assert send(url).error
    assert connected == []


@pytest.mark.parametrize("address", [*ADDRESSES, "fe80::1%eth0", "127.0.0.1 ", "no address"])
def test_a_name_that_leads_to_such_an_address_is_not_connected_to(
    public_only: None, connected: list[Any], address: str
) -> None:
    for answer in ([address], ["93.184.216.34", address], [address, "93.184.216.34"]):
        outcome = send("https://hooks.example.com/", resolve=leads_to(*answer))
        assert outcome.status is None
        assert outcome.error == (
            "its name leads to an address that is not public, so it was not called"
        )
    assert connected == []


def test_a_canary_on_loopback_hears_nothing(public_only: None) -> None:
    with Receiver() as canary:
        for host in ("127.0.0.1", "127.1", "0x7f000001", "[::ffff:127.0.0.1]", "localhost", "0"):
            assert send(f"http://{host}:{canary.port}/").error
        assert send(f"http://a.test:{canary.port}/", resolve=leads_to("127.0.0.1")).error
    assert canary.connections == 0


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_connected_to_as_it_was_judged(
    public_only: None, connected: list[Any], address: str
) -> None:
    assert may_call(address)
    outcome = send("https://hooks.example.com:8443/", resolve=leads_to(address))
    assert outcome.error == "could not be reached: Connection refused"
    judged = ip_address(address)
    judged = getattr(judged, "ipv4_mapped", None) or judged
    assert connected == [(str(judged), 8443)]


def test_allowed_networks_are_called_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_allowed", (ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
    assert [may_call(one) for one in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1")] == [True] * 3
    assert [may_call(one) for one in ("192.168.0.1", "127.0.0.1", "fc00::1")] == [False] * 3


@pytest.mark.parametrize("url", [
    "", "hooks.example.com", "//hooks.example.com/", "ftp://hooks.example.com/", "file:///etc/passwd",
    "gopher://hooks.example.com/", "http://", "https:///hook", "http://:80/", "http://a b.com/",
    "http://ex\nample.com/", "http://example.com/\r\nX: y", "http://exämple.com/",
    "http://example.com:0/", "http://example.com:65536/", "http://example.com:x/",
    "http://[::1/", "http://[fe80::1%25eth0]/", "http://good.com\\.evil.com/", "http://a%00.com/",
    "javascript:alert(1)", "http://example.com/\ttab",
])  # fmt: skip
def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="such as https://hooks"):
        parse_url(url)


@pytest.mark.parametrize("url", [
    "https://ada:secret@example.com/", "https://ada@example.com/", "http://@example.com/",
    "http://93.184.216.34\\@127.0.0.1/", "http://good.com@127.0.0.1/",
])  # fmt: skip
def test_user_information_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="user or password"):
        parse_url(url)


def test_a_url_has_at_most_2000_characters() -> None:
    base = "https://hooks.example.com/"
    parse_url(base + "a" * (2_000 - len(base)))
    with pytest.raises(ValueError, match="has 2001 characters"):
        parse_url(base + "a" * (2_001 - len(base)))


def test_a_name_is_resolved_once_and_what_was_judged_is_called(loopback: None) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    with Receiver() as receiver:
        url = f"http://rebinding.test:{receiver.port}/"
        assert send(url, resolve=lambda host: next(answers)).status == 200
    assert next(answers) == ["10.0.0.1"]


def test_the_next_address_is_tried_where_one_does_not_listen(loopback: None) -> None:
    with Receiver() as receiver:
        url = f"http://two.test:{receiver.port}/"
        assert send(url, resolve=leads_to("127.0.0.2", "127.0.0.1")).status == 200


def test_a_name_without_an_address_is_said_to_have_none(public_only: None) -> None:
    def unknown(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    found = send("https://hooks.example.com/", resolve=unknown)
    assert found.error == "could not be reached: Name or service not known"
    found = send("https://hooks.example.com/", resolve=leads_to())
    assert found.error == "could not be reached: its name has no address"


def test_a_label_that_no_resolver_takes_is_an_error_in_words(public_only: None) -> None:
    assert send(f"https://{'a' * 64}.com/").error


# --- what is sent -----------------------------------------------------------------------------


def test_a_message_is_one_post_with_the_name_as_host(loopback: None) -> None:
    with Receiver() as receiver:
        url = f"http://Hooks.Test:{receiver.port}/a//b?c=%20&d#e"
        outcome = post(url, b'{"a": 1}', {"X-A": "b"}, resolve=leads_to("127.0.0.1"))
    assert (outcome.status, outcome.error) == (200, None)
    (message,) = receiver.messages
    assert message.line == "POST /a//b?c=%20&d HTTP/1.1"
    assert message.headers == {
        "host": f"hooks.test:{receiver.port}", "connection": "close", "x-a": "b",
        "content-length": "8",
    }  # fmt: skip
    assert message.body == b'{"a": 1}'


def test_a_long_message_is_sent_whole(loopback: None) -> None:
    body = b"x" * 5_000_000
    with Receiver() as receiver:
        assert post(receiver.url, body, {}).status == 200
    assert receiver.messages[0].body == body


def test_no_proxy_of_the_environment_is_asked(
    loopback: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver, Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert send(receiver.url).status == 200
    assert (receiver.connections, proxy.connections) == (1, 0)


# --- what comes back --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(loopback: None, status: int) -> None:
    with Receiver(status) as receiver:
        outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (status, None)


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_another_status_is_an_error(loopback: None, status: int) -> None:
    with Receiver(status) as receiver:
        outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (status, f"answered {status}")


def test_a_redirect_is_not_followed(loopback: None) -> None:
    with Receiver() as canary, Receiver(redirect_to(canary.url)) as receiver:
        outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (
        307, "answered 307; redirects are not followed",
    )  # fmt: skip
    assert canary.connections == 0


def test_interim_answers_are_passed_over(loopback: None) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with Receiver(interim + b"HTTP/1.1 100 Continue\n\nHTTP/1.0 204 Done\r\n\r\n") as receiver:
        assert send(receiver.url).status == 204


@pytest.mark.parametrize("answer", [
    b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"\0" * 100_000,
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 999 X\r\n\r\n",
])  # fmt: skip
def test_what_is_not_http_is_an_error(loopback: None, answer: bytes) -> None:
    with Receiver(answer) as receiver:
        outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (None, "answered what is not HTTP, or nothing")


def test_a_reset_connection_is_an_error(loopback: None) -> None:
    with Receiver(reset) as receiver:
        outcome = send(receiver.url)
    assert (outcome.status, outcome.error) == (
        None, "could not be reached: Connection reset by peer",
    )  # fmt: skip


@pytest.mark.parametrize("manners", [hang, drip])
def test_a_receiver_that_takes_its_time_is_left(loopback: None, manners: Any) -> None:
    with Receiver(manners) as receiver:
        outcome = send(receiver.url, timeout_seconds=0.3)
    assert (outcome.status, outcome.error) == (None, "did not answer within 0.3 s")


def test_a_receiver_that_talks_without_end_is_left(loopback: None) -> None:
    with Receiver(promise) as receiver:
        outcome = send(receiver.url)
    assert outcome.error == "answered what is not HTTP, or nothing"


def test_a_body_without_end_is_not_waited_for(loopback: None) -> None:
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        done.wait(WAIT_SECONDS)

    with Receiver(answer) as receiver:
        assert send(receiver.url).status == 200
        done.set()


def test_a_resolver_that_hangs_is_left(public_only: None) -> None:
    answered = threading.Event()

    def resolve(host: str) -> list[str]:
        answered.wait(WAIT_SECONDS)
        return []

    outcome = send("https://hooks.example.com/", resolve=resolve, timeout_seconds=0.2)
    answered.set()
    assert outcome.error == "did not answer within 0.2 s"


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hooks.test, signed by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    ).add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.test")]), critical=False)
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    )
    return path


@pytest.fixture
def asked_for(certificate: Path, loopback: None) -> Iterator[tuple[Receiver, list[str]]]:
    """A receiver with this certificate, and the names that it was asked for (SNI)."""
    names: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, _: names.append(name)
    with Receiver(tls=context) as receiver:
        yield receiver, names


def test_a_certificate_is_held_against_the_name(
    asked_for: tuple[Receiver, list[str]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, names = asked_for
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(outbound, "_tls", lambda: trusting)
    url = f"https://hooks.test:{receiver.port}/"
    assert send(url, resolve=leads_to("127.0.0.1")).status == 200
    found = send(url.replace("hooks", "other"), resolve=leads_to("127.0.0.1"))
    assert found.error is not None and "Hostname mismatch" in found.error
    assert names == ["hooks.test", "other.test"]
    assert [one.headers["host"] for one in receiver.messages] == [f"hooks.test:{receiver.port}"]


def test_a_certificate_that_nobody_vouches_for_is_refused(
    asked_for: tuple[Receiver, list[str]],
) -> None:
    receiver, _ = asked_for
    found = send(f"https://hooks.test:{receiver.port}/", resolve=leads_to("127.0.0.1"))
    assert found.error is not None and "self-signed certificate" in found.error
    assert receiver.messages == []
