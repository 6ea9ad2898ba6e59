"""The string that a client presents: made, recognised by its shape and checksum, digested.

`<prefix>_<environment>_<30 random base62><6 base62 of CRC32 over all before it>`, or, in the
format hex32, `<prefix>_<32 lowercase hex>`. No database, no Flask.
"""

import hashlib
import re
import secrets
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BODY_LENGTH = 30
CHECKSUM_LENGTH = 6
HEX_LENGTH = 32
VISIBLE_LENGTH = 12
LENGTH_MAX = 512  # of one that was made elsewhere; ours are far shorter

# All numbers of two digits, in their order: a checksum is three of them.
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]

EXAMPLE = "3Kq0cV8nTz5wYb2LmR7sPd4XeW1aJ6uGhN9f"
EXAMPLE_HEX = "0123456789abcdef" * 2

BASE62 = "base62"
HEX32 = "hex32"
FORMATS = (BASE62, HEX32)

# The longest prefix, an environment and the underscore between: nothing longer is looked at.
HEAD_LENGTH_MAX = 26
HEAD = rf"[a-z][a-z0-9_]{{0,{HEAD_LENGTH_MAX - 1}}}_"
SHAPE = re.compile(
    rf"{HEAD}(?:[0-9A-Za-z]{{{BODY_LENGTH + CHECKSUM_LENGTH}}}|[0-9a-f]{{{HEX_LENGTH}}})"
)


def mint(prefix: str, environment: str | None = None, key_format: str = BASE62) -> str:
    """A new secret; `environment` is None where the project's secrets do not show it."""
    head = f"{prefix}_{environment}_" if environment else f"{prefix}_"
    if key_format == HEX32:
        return f"{prefix}_{secrets.token_hex(HEX_LENGTH // 2)}"
    body = head + "".join(secrets.choice(ALPHABET) for _ in range(BODY_LENGTH))
    return body + checksum(body)


def example(prefix: str, environment: str | None = None, key_format: str = BASE62) -> str:
    """What `mint` makes, but always the same: to be looked at, and nobody's."""
    head = mint(prefix, environment, key_format).rpartition("_")[0]
    return f"{head}_{EXAMPLE_HEX if key_format == HEX32 else EXAMPLE}"


def checksum(text: str) -> str:
    """CRC32 of the text in six base62 digits, most significant first, padded with 0."""
    rest, low = divmod(zlib.crc32(text.encode("ascii")), len(PAIRS))
    high, middle = divmod(rest, len(PAIRS))
    return PAIRS[high] + PAIRS[middle] + PAIRS[low]


def is_well_formed(text: str) -> bool:
    """Whether the text has a secret's shape and its own checksum. Says nothing of who knows it."""
    if not SHAPE.fullmatch(text):
        return False
    if text[-HEX_LENGTH - 1] == "_":
        return True
    return checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:]


def masked(text: str) -> str:
    """The text with every secret in it cut to its visible prefix."""
    if "_" not in text:
        return text
    return SHAPE.sub(
        lambda found: visible_prefix(found[0]) + "…" if is_well_formed(found[0]) else found[0], text
    )


def digest(text: str) -> str:
    """SHA-256 of the whole secret in hex: all that is ever stored of it.

    A plain hash is enough: the secret carries at least 128 random bits (OWASP ASVS 6.5.2).
    """
    return hashlib.sha256(text.encode()).hexdigest()


def visible_prefix(text: str) -> str:
    """The first twelve characters, kept for recognition."""
    return text[:VISIBLE_LENGTH]


def random_id(kind: str) -> str:
    """A random id such as `key_…`: never reused, not guessable."""
    return f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(20))
