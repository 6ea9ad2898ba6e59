"""Addresses that try one key after the other that is not there: who they are, and by how much their
answers are held back. A key that is known is never held back, wherever it comes from.
"""

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from peewee import fn

from console import addresses, clock
from console.addresses import Network
from console.alert_rules import GUESSES_PER_HOUR
from console.audit import NO_ADDRESS, OTHER_ADDRESSES
from console.models import Attempt

REFRESH_SECONDS = 2.0
DELAY_MAX_SECONDS = 5.0
COUNTED = ("API_KEY_INVALID", "API_KEY_MALFORMED")

_trusted: tuple[Network, ...] = ()
_slowed: Mapping[str, float] = {}
_refreshed_at = 0.0


def trust(networks: Iterable[Network]) -> None:
    """Sets who is never held back: one's own proxies, behind which there are others."""
    global _trusted
    _trusted = tuple(networks)
    _is_trusted.cache_clear()


@lru_cache(maxsize=1_000)
def _is_trusted(ip: str) -> bool:
    return addresses.is_one_of(ip, _trusted)


def guessers() -> dict[str, int]:
    """Who has tried too many keys within this hour, and how many; one's own proxies, too."""
    hour = clock.start_of("hour", clock.now())
    count = fn.sum(Attempt.count)
    rows = Attempt.select(Attempt.ip, count).where(
        Attempt.hour_at == hour, Attempt.code.in_(COUNTED)
    )
    found: Any = rows.group_by(Attempt.ip).having(count >= GUESSES_PER_HOUR).tuples()
    return {ip: int(number) for ip, number in found if ip not in (NO_ADDRESS, OTHER_ADDRESSES)}


def refresh() -> None:
    """Looks anew, now and then, for who is to be held back. Raises PeeweeException."""
    global _slowed, _refreshed_at
    if time.monotonic() - _refreshed_at < REFRESH_SECONDS:
        return
    _refreshed_at = time.monotonic()
    _slowed = {ip: _delay(number) for ip, number in guessers().items() if not _is_trusted(ip)}


def _delay(attempts: int) -> float:
    """A second from the first that is too many on, more with each hundred, up to five."""
    return min(DELAY_MAX_SECONDS, attempts / GUESSES_PER_HOUR)


def delay_seconds(ip: str | None) -> float:
    """How long the answer to an unknown key from this address is held back."""
    return _slowed.get(addresses.counted_as(ip), 0.0) if _slowed and ip is not None else 0.0
