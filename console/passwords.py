"""Passwords: which may be chosen, and how they are hashed and compared (argon2id, RFC 9106).

Only a few are hashed at once, and nobody waits long for a turn: a flood of sign-ins takes neither
the memory nor every thread.
"""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import TypeVar

from passlib.context import CryptContext

from console.errors import Invalid, Unavailable

T = TypeVar("T")

# OWASP's floor for argon2id: about 25 ms and 19 MiB a hash, so only a few run at once.
hasher = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19_456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
AT_ONCE = min(4, os.cpu_count() or 1)
WAIT_SECONDS = 5
_turns = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")

OURS = "latchkey"
# What is put around a word to make it look like a password.
AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def chosen(password: str, *, about: Iterable[str | None]) -> str:
    """The hash of a password that somebody chooses; `about` is what others know of them: address,
    name. Raises Invalid for a password that would be guessed, Unavailable."""
    refuse_common(password, about=about)
    return hash_password(password)


def refuse_common(password: str, *, about: Iterable[str | None]) -> None:
    """Raises Invalid for one of the passwords that are tried first: the commonest, our own name,
    and the person's own name, address and either half of it, with figures and signs around them or
    without."""
    plain = password.casefold()
    if plain in _commonest():
        raise Invalid({"password": "is one of the most used; choose a few words of your own"})
    if {plain, AROUND.sub("", plain)} & _obvious(about):
        raise Invalid({
            "password": "is your name, your address or ours; choose a few words of your own"
        })  # fmt: skip


@cache
def _commonest() -> frozenset[str]:
    """The 30,000 that zxcvbn knows from leaks, most used first; 14 MB, so not before the first."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(word.casefold() for word in FREQUENCY_LISTS["passwords"])


def _obvious(about: Iterable[str | None]) -> set[str]:
    words = {OURS}
    for text in about:
        plain = (text or "").casefold()
        halves = plain.partition("@")
        words |= {plain, *(AROUND.sub("", part) for part in (plain, halves[0], halves[2]))}
        words |= {"".join(plain.split())}
    return words - {""}


def hash_password(password: str) -> str:
    """The password's argon2id hash. Raises Unavailable."""
    return str(_in_turn(partial(hasher.hash, password)))


def fits(password: str, password_hash: str | None) -> bool:
    """Works as long for an unknown person, or a password too long to hash, as for a known one.

    Raises Unavailable, whoever it is, where too many are compared at once.
    """
    return _in_turn(partial(_compare, password, password_hash))


def _compare(password: str, password_hash: str | None) -> bool:
    with suppress(ValueError):
        if password_hash is not None:
            return bool(hasher.verify(password, password_hash))
    hasher.dummy_verify()
    return False


def renewed(password: str, password_hash: str) -> str | None:
    """The hash of the same, right password as it is made today; None where this one is made so.

    Raises Unavailable.
    """
    return hash_password(password) if hasher.needs_update(password_hash) else None


def warm_up() -> None:
    """Makes the hash that unknown people are compared with, so that the first of them does not take
    longer than the others."""
    hasher.dummy_verify()


def _in_turn(work: Callable[[], T]) -> T:
    """What `work` gives, done by one of few threads: each thread that hashes keeps its memory."""
    waiting = _turns.submit(work)
    try:
        return waiting.result(WAIT_SECONDS)
    except TimeoutError:
        waiting.cancel()
        raise Unavailable(
            f"Too many people sign in just now. Try again in {WAIT_SECONDS} seconds.",
            retry_after_seconds=WAIT_SECONDS,
        ) from None
