"""Seals what must be stored and read again: AES-256-GCM under a key that is derived (HKDF, RFC
5869) from what the database does not hold. Knows nothing of what is sealed."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES, NONCE_BYTES = 32, 12


class Broken(Exception):
    """What was sealed is another thing, or was sealed by another key."""


def derive(secret: str, purpose: str, *, salt: str = "", keys: int = 1) -> list[bytes]:
    """So many keys of 32 bytes, for this purpose and no other."""
    length = keys * KEY_BYTES
    text = HKDF(SHA256(), length, salt.encode() or None, purpose.encode()).derive(secret.encode())
    return [text[start : start + KEY_BYTES] for start in range(0, length, KEY_BYTES)]


class Seal:
    """One key; `about` says what is sealed, and must be said again to open it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, content: bytes, about: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Raises Broken."""
        sealed = bytes(sealed)
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode())
        except (InvalidTag, ValueError):
            raise Broken(about) from None
