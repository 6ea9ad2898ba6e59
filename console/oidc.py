"""The protocol of single sign-on: OpenID Connect Core 1.0, the authorization code flow with PKCE.

What the provider says of somebody is proven here, and nothing is decided about them: who that is
in Latchkey, and what they may do, is sso.py's.
"""

import hmac
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from console import clock
from console.clock import MINUTE, SECOND
from console.errors import Forbidden, Refused, Unavailable

# Authlib, requests and joserfc are imported where they are used: they take 16 MB, which an
# installation without single sign-on need not have.

CONFIGURATION = "/.well-known/openid-configuration"
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")  # what it must have
LENGTH = 10 * MINUTE  # from the click to the way back
KNOWN_FOR = 2 * SECOND  # a flood of clicks does not pass on to it, and one that is gone is noticed
SKEW_SECONDS = 60  # between its clock and ours
TIMEOUTS = (3.05, 5)  # seconds to connect, and for each answer to begin
ANSWER_MAX_BYTES = 1_000_000
SUBJECT_MAX_LENGTH = 255
TOKEN_BYTES = 32  # of randomness: 43 characters, as a verifier has at least (RFC 7636, 4.1)
# Made with a key that only the provider has. The provider's own list is not asked: it may name
# `none`, or HS256, whose key would be the public one (RFC 8725, 2.1).
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "Ed25519",
)  # fmt: skip
BEGIN_AGAIN = (
    "This sign-in was begun more than 10 minutes ago, in another browser or tab, or is complete "
    "already. Begin again."
)
KEY_TYPES = ("RSA", "EC", "OKP")
# People who come back at the same moment; a provider that is slow must not take every thread.
AT_ONCE = 4
WAITING_AT_MOST = 2  # who wait for a turn; the rest are sent away, for they hold a thread each
WAIT_SECONDS = 5
FAILED_FOR = 5 * SECOND  # one that hangs is not asked again by everybody who clicks
_turns = threading.BoundedSemaphore(AT_ONCE)
_places = threading.BoundedSemaphore(AT_ONCE + WAITING_AT_MOST)

Claims = dict[str, Any]


@dataclass(frozen=True)
class Client:
    """What we are to the provider."""

    issuer: str
    client_id: str
    client_secret: str
    scopes: str
    redirect_uri: str
    name: str  # the provider's, as people know it


@dataclass(frozen=True)
class Begun:
    """A way to the provider that somebody is on. Stays with their browser until they are back."""

    state: str
    nonce: str
    verifier: str
    began_at: int
    asks_again: bool  # the provider is to ask who is there, even if it knows


_known: tuple[int, str, dict[str, Any]] | None = None  # until when, whose, and what
_failed: tuple[int, str] | None = None  # until when it is not asked, and whose


def begin(client: Client, *, asks_again: bool = False) -> tuple[str, Begun]:
    """The address at the provider, and what to keep until the way back. Raises Unavailable."""
    state, nonce, verifier = (secrets.token_urlsafe(TOKEN_BYTES) for _ in range(3))
    with _talking(client):
        metadata = _metadata(client)
        # `prompt` has them asked, `max_age` has it say when. Not 0: a provider that compares it
        # again once they have answered, as Canaille does, would ask forever.
        more = {"prompt": "login", "max_age": str(SKEW_SECONDS)} if asks_again else {}
        url, _ = _session(client, metadata).create_authorization_url(
            metadata["authorization_endpoint"],
            state=state, nonce=nonce, code_verifier=verifier, **more,
        )  # fmt: skip
    return str(url), Begun(state, nonce, verifier, clock.now(), asks_again)


def refuse_strange(begun: Begun | None, state: str) -> None:
    """Raises Refused unless the way back is the one that this browser set out on, in time."""
    in_time = begun is not None and clock.now() < begun.began_at + LENGTH
    if (
        begun is None
        or not in_time
        or not hmac.compare_digest(begun.state.encode(), state.encode())
    ):
        raise Refused(BEGIN_AGAIN)


def finish(
    client: Client, begun: Begun, answer: Mapping[str, str], *, wanted: tuple[str, ...]
) -> Claims:
    """What the provider says of whoever came back, proven; of the `wanted` claims those that it
    knows. `answer` is the query that came with them, its state already compared.

    Raises Forbidden where the provider refuses or its word does not hold, Unavailable.
    """
    with _talking(client):
        metadata = _metadata(client)
        _refuse_another_provider(client, metadata, answer)
        _refuse_error(client, answer.get("error"))
        if not answer.get("code"):
            raise _does_not_hold(client) from ValueError("no code")
        token = _redeem(client, metadata, begun, answer["code"])
        claims = _proven(client, metadata, begun, token)
        if not all(name in claims for name in wanted):
            claims = {**_user_info(client, metadata, token, claims["sub"]), **claims}
        return claims


def examine(client: Client) -> str | None:
    """What keeps us from the provider's own description of itself; None where it can be read."""
    import requests

    try:
        _discover(client)
    except (requests.RequestException, ValueError) as error:
        return str(error)
    return None


def forget() -> None:
    """Asks the provider anew what it says about itself."""
    global _known, _failed
    _known = _failed = None


# --- what the provider says about itself ------------------------------------------------------


def _metadata(client: Client) -> dict[str, Any]:
    """Its configuration, a moment old at most."""
    global _known, _failed
    if _known is None or _known[1] != client.issuer or clock.now() >= _known[0]:
        if _failed is not None and _failed[1] == client.issuer and clock.now() < _failed[0]:
            raise ValueError("it failed a moment ago, and is not asked again yet")
        try:
            _known = (clock.now() + KNOWN_FOR, client.issuer, _discover(client))
        except Exception:
            _failed = (clock.now() + FAILED_FOR, client.issuer)
            raise
    return _known[2]


def _discover(client: Client) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0, 4. Raises RequestException, ValueError."""
    metadata = _get(client.issuer.rstrip("/") + CONFIGURATION)
    if metadata.get("issuer") != client.issuer:
        raise ValueError(f"it calls itself {metadata.get('issuer')!r}, not {client.issuer!r}")
    scheme = urlsplit(client.issuer).scheme
    for name in (*ENDPOINTS, *({"userinfo_endpoint"} & metadata.keys())):
        if urlsplit(str(metadata.get(name))).scheme not in ("https", scheme):
            raise ValueError(f"its {name} is {metadata.get(name)!r}, no https address")
    return metadata


def _get(url: str, access_token: str | None = None) -> dict[str, Any]:
    """A JSON object. Raises RequestException, ValueError."""
    import requests

    headers = {"Accept": "application/json"}
    if access_token is not None:
        headers["Authorization"] = f"Bearer {access_token}"
    with requests.get(
        url, headers=headers, timeout=TIMEOUTS, allow_redirects=False, stream=True
    ) as answer:
        if answer.status_code != 200:
            raise ValueError(f"{url} answered {answer.status_code}")
        body = answer.raw.read(ANSWER_MAX_BYTES + 1, decode_content=True)
    return _json_object(url, body)


def _json_object(url: str, body: bytes) -> dict[str, Any]:
    found = json.loads(body) if len(body) <= ANSWER_MAX_BYTES else None
    if not isinstance(found, dict):
        raise ValueError(f"{url} answered no JSON object")
    return found


# --- the way back -----------------------------------------------------------------------------


def _refuse_another_provider(
    client: Client, metadata: Mapping[str, Any], answer: Mapping[str, str]
) -> None:
    """RFC 9207: a provider that says who answers says so every time."""
    must_say = metadata.get("authorization_response_iss_parameter_supported") is True
    if answer.get("iss", None if must_say else client.issuer) != client.issuer:
        raise _does_not_hold(client) from ValueError(f"iss is {answer.get('iss')!r}")


def _refuse_error(client: Client, error: str | None) -> None:
    if error in ("temporarily_unavailable", "server_error"):
        raise _unreachable(client) from ValueError(error)
    if error is not None:
        raise Forbidden(
            f"{_named(client)} did not let you in. Begin again, or ask whoever runs it whether you "
            "may use Latchkey."
        ) from ValueError(error)


def _redeem(client: Client, metadata: Mapping[str, Any], begun: Begun, code: str) -> dict[str, Any]:
    """The tokens for the code (RFC 6749, 4.1.3), which holds once."""
    from authlib.integrations.base_client import OAuthError

    try:
        return dict(
            _session(client, metadata).fetch_token(
                metadata["token_endpoint"], grant_type="authorization_code", code=code,
                code_verifier=begun.verifier, timeout=TIMEOUTS, allow_redirects=False,
            )
        )  # fmt: skip
    except OAuthError as error:
        if error.error in ("invalid_client", "unauthorized_client"):
            raise Unavailable(
                f"{_named(client)} does not know Latchkey under its client id and secret. Whoever "
                "runs Latchkey has to set them anew; a password works meanwhile."
            ) from error
        raise _does_not_hold(client) from error


def _proven(
    client: Client, metadata: Mapping[str, Any], begun: Begun, token: Mapping[str, Any]
) -> Claims:
    """The claims of the id_token (OpenID Connect Core 1.0, 3.1.3.7). Raises Forbidden."""
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    published = _get(metadata["jwks_uri"])
    try:
        signed = jwt.decode(
            token["id_token"],
            KeySet(_usable(published["keys"])),
            registry=JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False),
        )
        claims = CodeIDToken(
            signed.claims,
            signed.header,
            {
                "iss": {"essential": True, "value": client.issuer},
                "aud": {"essential": True, "value": client.client_id},
                "sub": {"essential": True},  # and so not empty
            },
            {
                "nonce": begun.nonce,
                "client_id": client.client_id,
                "access_token": token.get("access_token"),
            },
        )
        claims.validate(now=clock.now() // 1000, leeway=SKEW_SECONDS)
        if not claims["sub"].isprintable() or len(claims["sub"]) > SUBJECT_MAX_LENGTH:
            raise ValueError("sub is no id")
        _refuse_stale(claims, begun)
    except (JoseError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _does_not_hold(client) from error
    return dict(claims)


def _usable(published: list[Any]) -> list[Any]:
    """The published keys that can be read: it may have others, for whom we are not."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    usable: list[Any] = []
    for one in published:
        with suppress(JoseError, LookupError, TypeError, ValueError, AttributeError):
            if one.get("kty") in KEY_TYPES:
                usable.append(import_key(one))
    return usable


def _refuse_stale(claims: Mapping[str, Any], begun: Begun) -> None:
    """Where the provider was to ask who is there, it must say that it did, and when."""
    if begun.asks_again:
        began = begun.began_at // 1000
        if not isinstance(claims.get("auth_time"), (int, float)):
            raise ValueError("no auth_time, though max_age was sent")
        if claims["auth_time"] < began - SKEW_SECONDS:
            raise ValueError("auth_time lies before the question")


def _user_info(
    client: Client, metadata: Mapping[str, Any], token: Mapping[str, Any], subject: str
) -> Claims:
    """What the provider keeps out of the id_token (OpenID Connect Core 1.0, 5.3)."""
    if not metadata.get("userinfo_endpoint") or not token.get("access_token"):
        return {}
    found = _get(metadata["userinfo_endpoint"], str(token["access_token"]))
    if found.get("sub") != subject:
        raise _does_not_hold(client) from ValueError("userinfo is about somebody else")
    return found


# --- what all of it shares --------------------------------------------------------------------


def _session(client: Client, metadata: Mapping[str, Any]) -> Any:
    from authlib.integrations.requests_client import OAuth2Session

    methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    basic, post = "client_secret_basic", "client_secret_post"
    return OAuth2Session(
        client.client_id,
        client.client_secret,
        scope=client.scopes,
        redirect_uri=client.redirect_uri,
        code_challenge_method="S256",
        token_endpoint_auth_method=post if post in methods and basic not in methods else basic,
    )


@contextmanager
def _talking(client: Client) -> Iterator[None]:
    """Raises Unavailable where the provider does not answer, or not as the protocol has it."""
    import requests

    with _place(_places, 0), _place(_turns, WAIT_SECONDS):
        try:
            yield
        except (requests.RequestException, ValueError) as error:
            raise _unreachable(client) from error


@contextmanager
def _place(places: threading.BoundedSemaphore, seconds: float) -> Iterator[None]:
    """One of so few, waited for so long. Raises Unavailable."""
    if not places.acquire(timeout=seconds):
        raise Unavailable(
            f"Too many people sign in just now. Try again in {WAIT_SECONDS} seconds.",
            retry_after_seconds=WAIT_SECONDS,
        )
    try:
        yield
    finally:
        places.release()


def _unreachable(client: Client) -> Unavailable:
    return Unavailable(
        f"{_named(client)} does not answer as it should. Try again in a minute, or sign in with "
        "your password if you have one here."
    )


def _does_not_hold(client: Client) -> Forbidden:
    return Forbidden(
        f"What {client.name} said about you could not be proven, so nobody was signed in. Begin "
        "again. If it stays so, give whoever runs Latchkey the id below: the log says why."
    )


def _named(client: Client) -> str:
    return client.name[:1].upper() + client.name[1:]
