"""Mail, against a real server: what arrives, what is never sent in the clear or to somebody else,
and what is said when a server cannot be used."""

import datetime
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from console import mail
from tests.mailbox import MAIL_PASSWORD, USER, Mailbox
from tests.server import free_port

SENDER = "Latchkey <keys@shop.example>"
TO, SUBJECT = "ada@example.com", "Join Latchkey"
LINK = f"https://keys.example.com/invitation?token={'x' * 90}"
TEXT = f"Choose your password:\n\n{LINK}\n"


@pytest.fixture(autouse=True)
def _no_mail_afterwards() -> Iterator[None]:
    yield
    mail.use("", "")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        mail.use(mailbox.url, SENDER)
        yield mailbox


def refused(to: str = TO, *, timeout_seconds: float = mail.TIMEOUT_SECONDS) -> str:
    """What is said when a mail is not sent."""
    with pytest.raises(mail.NotSent) as refusal:
        mail.send(to, SUBJECT, TEXT, timeout_seconds=timeout_seconds)
    words = str(refusal.value)
    assert words.isprintable() and words.endswith(".") and MAIL_PASSWORD not in words
    return words


# --- what arrives -----------------------------------------------------------------------------


def test_a_mail_arrives_as_it_was_written(mailbox: Mailbox) -> None:
    mail.send(TO, SUBJECT, TEXT)
    sent = mailbox.only()
    assert (sent.sender, sent.to) == ("keys@shop.example", [TO])
    headers = {name: str(sent.message[name]) for name in ("From", "To", "Subject")}
    assert headers == {"From": SENDER, "To": TO, "Subject": SUBJECT}
    assert sent.message["Date"] and sent.message["Message-ID"].endswith("@shop.example>")
    assert sent.message["Auto-Submitted"] == "auto-generated"
    assert sent.message.get_content_type() == "text/plain"
    assert sent.text.splitlines() == TEXT.splitlines()


def test_a_link_stays_whole_in_the_bytes_of_a_mail(mailbox: Mailbox) -> None:
    mail.send(TO, SUBJECT, TEXT)
    assert f"\r\n{LINK}\r\n".encode() in mailbox.only().raw


def test_words_of_every_language_arrive(mailbox: Mailbox) -> None:
    mail.use(mailbox.url, "J\u00fcrgen <keys@shop.example>")
    mail.send(TO, "\u65e5\u672c", "Gr\u00fc\u00dfe\n")
    sent = mailbox.only()
    assert sent.raw.isascii()
    assert (sent.message["Subject"], sent.text.strip()) == ("\u65e5\u672c", "Gr\u00fc\u00dfe")
    assert "J\u00fcrgen" in sent.message["From"]


def test_an_address_of_every_language_is_written_to() -> None:
    to = "j\u00fcrgen@b\u00fccher.example"
    with Mailbox() as mailbox:
        mail.use(mailbox.url, SENDER)
        mail.send(to, SUBJECT, TEXT)
        assert mailbox.only().to == [to]
    with Mailbox(enable_SMTPUTF8=False) as mailbox:
        mail.use(mailbox.url, SENDER)
        assert "cannot be used" in refused(to) and mailbox.mails == []


@pytest.mark.parametrize(
    "to",
    ["a,b@example.com", "x>@example.com", "<a@example.com", "a;b@example.com", "a(b)@example.com",
     "a@example.com\r\nBcc: eve@example.com", "a@b@example.com", "", "@", "a", '"a@example.com',
     "a@example.com,eve@example.com", "Ada <a@example.com>"],
)  # fmt: skip
def test_nobody_else_is_written_to(mailbox: Mailbox, to: str) -> None:
    with pytest.raises(mail.NotSent, match="cannot be addressed"):
        mail.send(to, SUBJECT, TEXT)
    assert mailbox.mails == []


@pytest.mark.parametrize("subject", ["Join\r\nBcc: eve@example.com", "Join\nX: y", "Jo\rX: y"])
def test_a_header_is_one_line(mailbox: Mailbox, subject: str) -> None:
    with pytest.raises(ValueError):
        mail.send(TO, subject, TEXT)
    assert mailbox.mails == []


def test_a_line_that_looks_like_the_end_is_not(mailbox: Mailbox) -> None:
    text = "one\n.\nRCPT TO:<eve@example.com>\n..\n"
    mail.send(TO, SUBJECT, text)
    assert mailbox.only().text.splitlines() == text.splitlines()
    assert mailbox.only().to == [TO]


# --- what goes wrong --------------------------------------------------------------------------


def test_a_server_that_is_down_is_said() -> None:
    port = free_port()
    mail.use(f"smtp://127.0.0.1:{port}", SENDER)
    words = f"The mail server 127.0.0.1:{port} cannot be reached: Connection refused."
    assert refused() == words
    with pytest.raises(mail.NotSent, match="cannot be reached"):
        mail.check(timeout_seconds=1)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_hangs_is_left(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mail.use(f"{scheme}://127.0.0.1:{port}", SENDER)
        words = f"The mail server 127.0.0.1:{port} does not answer."
        assert refused(timeout_seconds=0.2) == words


def test_a_server_that_hangs_up_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        mail.use(f"smtp://127.0.0.1:{listener.getsockname()[1]}", SENDER)
        assert refused().endswith(" hung up.")


def test_a_name_that_leads_nowhere_is_said() -> None:
    mail.use("smtp://mail.invalid", SENDER)
    assert refused().startswith("The mail server mail.invalid:587 cannot be reached: ")


def test_what_the_server_says_is_passed_on() -> None:
    with Mailbox(rcpt="550 5.1.1 no such user") as mailbox:
        mail.use(mailbox.url, SENDER)
        assert refused().endswith("takes no mail for ada@example.com: 550 5.1.1 no such user.")
    with Mailbox(data="554 \x1b[31mspam") as mailbox:
        mail.use(mailbox.url, SENDER)
        assert refused().endswith("refused the mail: 554 [31mspam.")
    with Mailbox(data=f"554 {'long ' * 90}") as mailbox:
        mail.use(mailbox.url, SENDER)
        assert len(refused()) < 300


def test_without_a_server_mail_is_off(mailbox: Mailbox) -> None:
    assert mail.is_on()
    mail.use("", SENDER)
    assert not mail.is_on()


# --- the password, and TLS --------------------------------------------------------------------


def test_within_the_machine_a_password_needs_no_tls() -> None:
    with Mailbox(auth_required=False) as mailbox:
        mail.use(mailbox.url_with_password, SENDER)
        mail.send(TO, SUBJECT, TEXT)
        assert mailbox.passwords == [MAIL_PASSWORD.encode()]
        assert not mailbox.only().was_encrypted
        mail.use(mailbox.url_with_password.replace("ss", "sz"), SENDER)
        assert refused().endswith("does not take the user and password that are set.")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server counts as being on another machine."""
    monkeypatch.setattr(mail, "_is_here", lambda connection: False)


def test_a_password_is_never_sent_in_the_clear(elsewhere: None) -> None:
    with Mailbox() as mailbox:
        mail.use(mailbox.url_with_password, SENDER)
        assert refused().endswith("offers no TLS: the password was not sent to it.")
        assert mailbox.passwords == mailbox.mails == []
        mail.use(mailbox.url, SENDER)
        mail.send(TO, SUBJECT, TEXT)
        assert not mailbox.only().was_encrypted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    ).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    )
    return path


@pytest.fixture(params=[False, True], ids=["starttls", "smtps"])
def with_tls(
    request: pytest.FixtureRequest, certificate: Path, elsewhere: None
) -> Iterator[Mailbox]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Mailbox(is_tls=request.param, tls_context=context) as mailbox:
        mail.use(mailbox.url_with_password, SENDER)
        yield mailbox


def test_a_password_goes_under_tls(
    with_tls: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mail.send(TO, SUBJECT, TEXT)
    assert with_tls.only().was_encrypted and with_tls.passwords == [MAIL_PASSWORD.encode()]


def test_a_certificate_that_nobody_vouches_for_is_refused(with_tls: Mailbox) -> None:
    assert "has no good certificate: self-signed certificate" in refused()
    assert with_tls.passwords == with_tls.mails == []


def test_a_certificate_of_another_name_is_refused(
    with_tls: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    mail.use(with_tls.url_with_password.replace("127.0.0.1", "localhost"), SENDER)
    assert "has no good certificate: Hostname mismatch" in refused()
    assert with_tls.passwords == with_tls.mails == []


# --- settings ---------------------------------------------------------------------------------


def test_a_servers_address_is_read() -> None:
    assert mail.read_url("smtp://mail.test") == mail.Server("mail.test", 587, False)
    assert mail.read_url("smtps://mail.test/") == mail.Server("mail.test", 465, True)
    found = mail.read_url(f"smtp://{USER}:p%40ss%2Fw%25rd@[::1]:25")
    assert found == mail.Server("::1", 25, False, USER, MAIL_PASSWORD)
    assert MAIL_PASSWORD not in repr(found) and MAIL_PASSWORD not in str(found)


# --- later ------------------------------------------------------------------------------------


def test_what_is_put_off_is_done_in_turn_whatever_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []

    def task(number: int) -> None:
        done.append(number)
        if number == 1:
            raise mail.NotSent("The mail server is on holiday.")
        if number == 2:
            raise RuntimeError("unforeseen")

    with caplog.at_level(logging.WARNING):
        assert all([mail.later(lambda number=number: task(number)) for number in range(5)])
        mail.settle()
    assert done == [0, 1, 2, 3, 4]
    assert "The mail server is on holiday." in caplog.text and "unforeseen" in caplog.text


def test_only_so_much_is_put_off(caplog: pytest.LogCaptureFixture) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        may_go_on.wait(30)

    mail.later(wait)
    assert begun.wait(30)
    taken = [mail.later(lambda: None) for _ in range(mail.WAITING_MAX + 3)]
    may_go_on.set()
    mail.settle()
    assert taken.count(False) == 3 and not any(taken[mail.WAITING_MAX :])
