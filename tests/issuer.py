"""A provider of single sign-on that says whatever a test has it say, also what no honest one would.

For what Canaille (tests/provider.py) never does; the tokens are made with joserfc.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from console import clock, sso
from console.oidc import Begun

CLIENT_ID = "latchkey"


@dataclass
class Issuer:
    """`says` are its claims, over those of an honest token; None leaves one out."""

    url: str
    key: RSAKey
    says: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    signs_with: RSAKey | None = None  # instead of its own key
    secret: bytes | None = None  # of HS256, instead of a key
    user_info: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    refuses: dict[str, str] | None = None  # the error of the token endpoint
    challenge: str = ""
    nonce: str = ""
    asked: list[str] = field(default_factory=list)
    more_keys: list[Any] = field(default_factory=list)  # published before its own

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
            **({"userinfo_endpoint": f"{self.url}/user"} if self.user_info is not None else {}),
            **self.metadata,
        }

    def id_token(self) -> str:
        now = clock.now() // 1000
        claims = {
            "iss": self.url, "sub": "248289761001", "aud": CLIENT_ID, "iat": now, "exp": now + 300,
            "nonce": self.nonce, "email": "ada@example.com", "email_verified": True, "name": "Ada",
            **self.says,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "RS256", "kid": "first", **self.header}
        if self.secret is None:
            return jwt.encode(header, claims, self.signs_with or self.key)
        # What joserfc, rightly, does not do.
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        is_signed = header["alg"] != "none"
        mark = hmac.digest(self.secret, signed.encode(), "sha256") if is_signed else b""
        return f"{signed}.{_encoded(mark)}"

    def token(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The answer to a code, for whoever shows the verifier (RFC 7636, 4.6)."""
        hashed = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if _encoded(hashed) != self.challenge:
            return 400, {"error": "invalid_grant"}
        if self.refuses:
            return 400, dict(self.refuses)
        return 200, {"access_token": "at", "token_type": "Bearer", "id_token": self.id_token()}

    def visit(self, **how: Any) -> tuple[Begun, dict[str, str]]:
        """What a browser does there: what we keep of its way, and what it comes back with."""
        url, begun = sso.begin(ip="203.0.113.9", **how)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.challenge, self.nonce = asked["code_challenge"], asked["nonce"]
        return begun, {"state": asked["state"], "code": "once"}


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@contextmanager
def running(key: RSAKey) -> Iterator[Issuer]:
    """Answers on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            self._answer(200, {
                "/.well-known/openid-configuration": issuer.document,
                "/keys": lambda: {"keys": [
                    *issuer.more_keys, {**key.as_dict(private=False), "kid": "first"}
                ]},
                "/user": lambda: issuer.user_info,
            }[self.path]())  # fmt: skip

        def do_POST(self) -> None:
            issuer.asked.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(*issuer.token(parse_qs(body)))

        def _answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}", key)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
