"""What a permission looks like, and which held ones meet a required one."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

PERMISSIONS_MAX = 100
PERMISSION_MAX_LENGTH = 100
PATTERN = re.compile(
    r"\*|\*:\*|[A-Za-z0-9][A-Za-z0-9_./-]*(?::[A-Za-z0-9_./-]+)*:(?:\*|[A-Za-z0-9_./-]+)"
)
HELP = "must look like tasks:read, tasks:* or *"

KEYS_READ = "keys:read"
KEYS_WRITE = "keys:write"
KEYS_MANAGE = "keys:manage"
KEYS_VERIFY = "keys:verify"
AUDIT_READ = "audit:read"
ANALYTICS_READ = "analytics:read"
PROJECTS_MANAGE = "projects:manage"
ADMIN = "admin:*"

# Latchkey's own: they open its API. A team's permissions are free words of its own.
CONSOLE = (
    KEYS_READ, KEYS_WRITE, KEYS_MANAGE, KEYS_VERIFY, AUDIT_READ, ANALYTICS_READ,
    PROJECTS_MANAGE, ADMIN,
)  # fmt: skip
INCLUDED_IN = {KEYS_READ: KEYS_MANAGE, KEYS_WRITE: KEYS_MANAGE}
EVERYTHING = frozenset({"*", "*:*", ADMIN})
MANAGING = frozenset({KEYS_READ, KEYS_WRITE})  # both together are KEYS_MANAGE


def parse(items: Iterable[str]) -> list[str]:
    """The permissions without repeats, in the given order. Raises ValueError naming the bad one."""
    found = list(dict.fromkeys(item.strip() for item in items))
    for item in found:
        if not _is_permission(item):
            raise ValueError(f"{item[:60]!r} {HELP}")
    if len(found) > PERMISSIONS_MAX:
        raise ValueError(f"at most {PERMISSIONS_MAX} are allowed")
    return found


def one(text: str) -> str:
    """The permission, as one that can be held. Raises ValueError."""
    text = text.strip()
    if not _is_permission(text):
        raise ValueError(HELP)
    return text


@lru_cache(maxsize=10_000)
def _is_permission(text: str) -> bool:
    return len(text) <= PERMISSION_MAX_LENGTH and PATTERN.fullmatch(text) is not None


def met(held: Iterable[str], required: str) -> bool:
    """Whether the held permissions meet the required one: by itself, `a:*`, `*` or `admin:*`.

    A longer one, `a:b:c`, is met by `a:b:*` too.
    """
    held = frozenset(held)
    return not held.isdisjoint(meeting(required)) or (required == KEYS_MANAGE and held >= MANAGING)


@lru_cache(maxsize=1_000)
def meeting(required: str) -> frozenset[str]:
    """The permissions of which any one, held, meets the required one by itself."""
    parts = required.split(":")
    families = {":".join(parts[:end]) + ":*" for end in range(1, len(parts))}
    wider = INCLUDED_IN.get(required)
    return EVERYTHING | families | {required} | ({wider} if wider else frozenset())


def missing(held: Iterable[str], required: Sequence[str]) -> tuple[str, ...]:
    """The required permissions that are not met, in the given order."""
    held = frozenset(held)
    return tuple(permission for permission in required if not met(held, permission))


def console_permissions(held: Iterable[str]) -> tuple[str, ...]:
    """Latchkey's own permissions that these give, wildcards unfolded."""
    held = frozenset(held)
    return tuple(permission for permission in CONSOLE if met(held, permission))
