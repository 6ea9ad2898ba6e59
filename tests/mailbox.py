"""A mail server on loopback that keeps what it takes (aiosmtpd)."""

import email
import email.policy
import logging
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.server import free_port

logging.getLogger("mail.log").setLevel(logging.ERROR)  # of aiosmtpd: each connection

USER, MAIL_PASSWORD = "latchkey", "p@ss/w%rd"


@dataclass(frozen=True)
class Mail:
    sender: str
    to: list[str]
    raw: bytes
    message: EmailMessage
    was_encrypted: bool

    @property
    def text(self) -> str:
        return str(self.message.get_content())


class Mailbox:
    """`answer`, where given, is what the server says to each recipient or, for data, `data`."""

    def __init__(
        self, *, rcpt: str = "", data: str = "", is_tls: bool = False, **more: Any
    ) -> None:
        self.mails: list[Mail] = []
        self.passwords: list[bytes] = []  # that somebody signed in with
        self._rcpt, self._data = rcpt, data
        self._is_tls = is_tls
        self.port = free_port()
        context: ssl.SSLContext | None = more.get("tls_context")
        if is_tls:
            more["ssl_context"] = more.pop("tls_context")
        self._server = Controller(
            self,
            "127.0.0.1",
            self.port,
            server_hostname="mail.test",
            auth_require_tls=context is not None and not is_tls,
            authenticator=self._signs_in,
            **more,
        )

    @property
    def url(self) -> str:
        return f"{'smtps' if self._is_tls else 'smtp'}://127.0.0.1:{self.port}"

    @property
    def url_with_password(self) -> str:
        return self.url.replace("://", f"://{USER}:p%40ss%2Fw%25rd@")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()

    def only(self) -> Mail:
        """The one mail that came."""
        [mail] = self.mails
        return mail

    def _signs_in(
        self, server: Any, session: Any, envelope: Any, how: str, given: Any
    ) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.passwords.append(given.password)
        return AuthResult(success=given.password == MAIL_PASSWORD.encode(), handled=False)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if not self._rcpt:
            envelope.rcpt_tos.append(address)
        return self._rcpt or "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self._data:
            return self._data
        raw = envelope.content
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        encrypted = session.ssl is not None or self._is_tls
        self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos, raw, message, encrypted))
        return "250 taken"
