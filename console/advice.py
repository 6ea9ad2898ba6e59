"""What to do about a request in the log: why it was answered so, and what would change that now.

One table for every code that an entry can have. Compares the entry with its key as the key stands
today; knows no page, only the operation by which it is done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from console import addresses, clock, limits, permissions
from console.check import (
    CODES,
    ENVIRONMENT_MISMATCH,
    EXPIRED_KEY,
    IP_NOT_ALLOWED,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    SUPERSEDED,
    VALID,
)
from console.models import LIVE, TEST, Entry, Key

EDIT, RESTORE, ROTATE = "edit_key", "restore_key", "rotate_key"
REFUSED_FROM = 400


@dataclass(frozen=True, slots=True)
class Advice:
    """Why, in a sentence; what to do, in another; and the operation that does it, if one does."""

    why: str
    to_do: str
    operation: str | None = None


def on(entry: Entry, key: Key | None) -> Advice | None:
    """Advice on an entry; None where all went well. `key` is None when it was deleted."""
    if entry.code == VALID:
        return _answered_by_service(entry) if entry.status >= REFUSED_FROM else None
    why = CODES[entry.code][1]
    if key is None:
        return Advice(why, "The key has been deleted since. Whoever sends it needs another one.")
    to_do, operation = TO_DO[entry.code](entry, key)
    return Advice(why, to_do, operation)


def _answered_by_service(entry: Entry) -> Advice:
    return Advice(
        f"The key was good. The service behind it answered {entry.status}.",
        "Look for the request id in the service's own log.",
    )


Todo = tuple[str, str | None]


def _superseded(entry: Entry, key: Key) -> Todo:
    words = (
        f"The client still sends an old secret of {key.name}. Give it the present one. If nobody"
        " has that any more, rotate the key again."
    )
    return words, ROTATE


def _revoked(entry: Entry, key: Key) -> Todo:
    if key.project.archived_at is not None:
        words = f"The project {key.project.name} is archived, and so all of its keys are refused."
        return f"{words} An owner can restore it.", None
    if key.revoked_at is None:
        return f"{key.name} has been enabled since; the client may try again.", None
    return f"Enable {key.name} if this client is to be let in, or take the key from it.", RESTORE


def _expired(entry: Entry, key: Key) -> Todo:
    if key.expires_at is None or key.expires_at > clock.now():
        return f"{key.name} has been extended since; the client may try again.", None
    return f"Extend {key.name} if this client is to be let in, or give it another key.", EDIT


def _other_project(entry: Entry, key: Key) -> Todo:
    words = (
        "The service asked for keys of another project. Give the client a key of that one, or"
        " correct the project that the service names."
    )
    return words, None


def _other_environment(entry: Entry, key: Key) -> Todo:
    wanted = TEST if key.environment == LIVE else LIVE
    words = (
        f"{key.name} is a {key.environment} key, and the service takes {wanted} keys alone. Give"
        f" the client a {wanted} key; a key's environment is fixed."
    )
    return words, None


def _address(entry: Entry, key: Key) -> Todo:
    if entry.ip is None:
        words = (
            "No address was known, and then a key with an allowlist is refused. Have the proxy or"
            " the service pass the client's address on."
        )
        return words, None
    if not key.ip_allowlist or addresses.covered(entry.ip, key.ip_allowlist):
        return f"{key.name} takes {entry.ip} by now; the client may try again.", None
    return f"If the client is yours, add {entry.ip} to the allowlist of {key.name}.", EDIT


def _permission(entry: Entry, key: Key) -> Todo:
    lacking = permissions.missing(key.permissions, entry.permissions)
    if not lacking:
        return f"{key.name} holds what was needed by now; the client may try again.", None
    return f"{key.name} lacks {_listed(lacking)}. Add it if the client is to do this.", EDIT


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _rate(entry: Entry, key: Key) -> Todo:
    figures = zip(limits.figures(key), ("a minute", "an hour"), strict=True)
    bounds = " and ".join(f"{figure:,} {unit}" for figure, unit in figures if figure is not None)
    if not bounds:
        return f"{key.name} has no rate limit any more; the client may try again.", None
    words = (
        f"{key.name} may make {bounds}. Raise that, or let the client wait: the answer's"
        " Retry-After says for how long."
    )
    return words, EDIT


def _quota(entry: Entry, key: Key) -> Todo:
    if key.monthly_quota is None:
        return f"{key.name} has no monthly quota any more; the client may try again.", None
    words = f"{key.name} may make {key.monthly_quota:,} requests in a calendar month (UTC). Raise"
    return f"{words} that, or let the client wait for the next month.", EDIT


TO_DO: Mapping[str, Callable[[Entry, Key], Todo]] = {
    SUPERSEDED: _superseded,
    REVOKED_KEY: _revoked,
    EXPIRED_KEY: _expired,
    PROJECT_MISMATCH: _other_project,
    ENVIRONMENT_MISMATCH: _other_environment,
    IP_NOT_ALLOWED: _address,
    PERMISSION_DENIED: _permission,
    RATE_LIMITED: _rate,
    QUOTA_EXCEEDED: _quota,
}
