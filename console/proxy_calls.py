"""The last calls of proxies, for whoever sets one up: what came, and what was answered.

They are kept in memory, a few for each project, and are no log: what comes faster than anybody
reads is left out. Those of callers that are no trusted proxies are kept apart, one for each caller,
so that none pushes out a proxy's. Several processes share them by Redis. No secret is kept.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from console import audit, clock, limits
from console.actor import Actor
from console.errors import Refused
from console.forward_auth import (
    ENVOY_OPTIONS,
    ENVOY_PATH,
    FORWARDED,
    ORIGINAL,
    REQUIRED_PERMISSION,
    Asked,
    header_in,
    named_project,
)
from console.models import Project
from console.permissions import AUDIT_READ

log = logging.getLogger(__name__)

KEPT = 20  # of a project, and of strangers
PROJECTS_MAX = 1_000
VALUE_MAX_LENGTH = 300
LET_IN_SECONDS = 0.2  # between two calls of a project that were let in
REFUSED_A_SECOND = 20
REDIS_KEPT_SECONDS = 24 * 3600
OF_NO_PROJECT, OF_STRANGERS = "", "?"  # no project has such a slug

AUTHORIZATION, X_API_KEY = "Authorization", "X-API-Key"
FORWARDED_FOR = "X-Forwarded-For"
# What of a call is shown, where it came.
SHOWN = (
    *ORIGINAL, *FORWARDED, FORWARDED_FOR, REQUIRED_PERMISSION, ENVOY_OPTIONS, ENVOY_PATH,
    AUTHORIZATION, X_API_KEY, "Origin", "Access-Control-Request-Method", "User-Agent",
)  # fmt: skip
SCHEMES = ("bearer", "basic", "digest", "token")
NOT_SHOWN = "(not shown)"
VERSION = 1  # of what Redis holds: one more whenever a field of ProxyCall changes


@dataclass(frozen=True, slots=True)
class ProxyCall:
    """A question of a proxy and its answer. `key_owner_id` and the like are of a known key."""

    at: int
    request_id: str
    route: str
    peer: str
    is_trusted: bool
    status: int
    code: str
    detail: str
    method: str
    endpoint: str
    ip: str | None
    permissions: tuple[str, ...]
    names_project: bool
    names_permission: bool
    key_id: str | None
    key_name: str | None
    key_owner_id: str | None
    headers: dict[str, str]
    faults: dict[str, str]  # what of the proxy's call could not be read, by header or option

    @property
    def was_read(self) -> bool:
        """Whether what the client asked for is known; not, where the call has a fault."""
        return bool(self.method)


class _Ring:
    """The calls of a project, newest first, and how many refusals came in the present second."""

    __slots__ = ("calls", "let_in_at", "refused", "second")

    def __init__(self) -> None:
        self.calls: deque[ProxyCall] = deque(maxlen=KEPT)
        self.let_in_at = 0.0
        self.second = 0
        self.refused = 0

    def takes(self, is_refused: bool) -> bool:
        now = time.monotonic()
        if not is_refused:
            if now - self.let_in_at < LET_IN_SECONDS:
                return False
            self.let_in_at = now
            return True
        if int(now) != self.second:
            self.second, self.refused = int(now), 0
        self.refused += 1
        return self.refused <= REFUSED_A_SECOND


_rings: dict[str, _Ring] = {}
_lock = threading.Lock()


def note(
    asked: Asked,
    environ: Mapping[str, Any],
    request_id: str,
    status: int,
    refused: Refused | None = None,
) -> None:
    """Keeps a call that was just answered; `refused` where it was not let in."""
    slug = _slug(asked, environ)
    ring = _rings.get(slug) or _new_ring(slug)
    if not ring.takes(refused is not None):
        return
    call = _call(asked, environ, request_id, status, refused)
    with _lock:
        if slug == OF_STRANGERS:
            for other in [one for one in ring.calls if one.peer == call.peer]:
                ring.calls.remove(other)
        ring.calls.appendleft(call)
    if _shared is not None:
        _shared.put(slug, call)


def _slug(asked: Asked, environ: Mapping[str, Any]) -> str:
    """Whose call it is, as the proxy's own configuration or a known key says; a client cannot."""
    if not asked.is_trusted:
        return OF_STRANGERS
    if asked.options.project and not asked.is_by_client:
        return asked.options.project
    if asked.key is not None:
        return asked.key.project
    unread = None if asked.is_by_client else named_project(asked.route, environ)
    return unread or OF_NO_PROJECT


def _new_ring(slug: str) -> _Ring:
    with _lock:
        if len(_rings) >= PROJECTS_MAX:
            del _rings[next(iter(_rings))]
        return _rings.setdefault(slug, _Ring())


def _call(
    asked: Asked,
    environ: Mapping[str, Any],
    request_id: str,
    status: int,
    refused: Refused | None,
) -> ProxyCall:
    request, key = asked.request, asked.key
    secrets = [
        text
        for name in (AUTHORIZATION, X_API_KEY)
        if (text := header_in(environ, name).rpartition(" ")[2])
    ]
    return ProxyCall(
        at=clock.now(),
        request_id=request_id,
        route=asked.route,
        peer=str(environ.get("REMOTE_ADDR", ""))[:VALUE_MAX_LENGTH],
        is_trusted=asked.is_trusted,
        status=status,
        code=refused.code if refused else "VALID",
        detail=refused.message if refused else "",
        method=request.method if request else "",
        endpoint=_kept(request.endpoint, secrets) if request else "",
        ip=request.ip if request else None,
        permissions=request.permissions if request else (),
        names_project=asked.options.project is not None and not asked.is_by_client,
        names_permission=bool(asked.options.permissions),
        key_id=key.id if key else None,
        key_name=key.name if key else None,
        key_owner_id=key.owner_id if key else None,
        headers={
            name: _shown(name, value, secrets)
            for name in SHOWN
            if (value := header_in(environ, name))
        },
        faults=dict(refused.fields) if refused else {},
    )


def _shown(name: str, value: str, secrets: Sequence[str]) -> str:
    """A header's value without what is secret in it, and without a query."""
    if name == X_API_KEY:
        return NOT_SHOWN
    if name == AUTHORIZATION:
        scheme, space, _ = value.partition(" ")
        return f"{scheme} {NOT_SHOWN}" if space and scheme.lower() in SCHEMES else NOT_SHOWN
    if name in (ORIGINAL.url, FORWARDED.url, ENVOY_PATH):
        value = value.partition("?")[0]
    return _kept(value, secrets)


def _kept(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = audit.kept(text, len(text), secret)
    return audit.kept(text, VALUE_MAX_LENGTH, "")


# --- shared by several processes --------------------------------------------------------------


class _Shared:
    """What every process noted, in Redis. Where Redis does not answer, each has its own."""

    def __init__(self, url: str) -> None:
        self.redis, self.failures = limits.connected(url)
        self.waiting: deque[tuple[str, ProxyCall]] = deque(maxlen=KEPT)

    def put(self, slug: str, call: ProxyCall) -> None:
        self.waiting.append((slug, call))

    def send(self) -> None:
        if not self.waiting:
            return
        pipeline = self.redis.pipeline(transaction=False)
        for _ in range(len(self.waiting)):
            slug, call = self.waiting.popleft()
            name = self.name(slug)
            pipeline.lpush(name, json.dumps(asdict(call)))
            pipeline.ltrim(name, 0, KEPT - 1)
            pipeline.expire(name, REDIS_KEPT_SECONDS)
        pipeline.execute()

    def calls(self, slug: str) -> list[ProxyCall]:
        self.send()
        found = self.redis.lrange(self.name(slug), 0, KEPT - 1)
        return [_restored(json.loads(text)) for text in found]

    def name(self, slug: str) -> str:
        """Of another version's calls the fields may be others, and so is this."""
        return f"latchkey:calls:{VERSION}:{slug}"


def _restored(facts: dict[str, Any]) -> ProxyCall:
    return ProxyCall(**{**facts, "permissions": tuple(facts["permissions"])})


_shared: _Shared | None = None


def share_by(redis_url: str) -> None:
    """Shares the calls with the other processes from now on; '': there are none."""
    global _shared
    _shared = _Shared(redis_url) if redis_url else None
    _rings.clear()


def share() -> None:
    """Sends what was noted to the other processes; what cannot be sent is lost."""
    if _shared is not None:
        try:
            _shared.send()
        except _shared.failures as error:
            log.warning("the last calls of proxies are not shared: %s", error)


# --- read -------------------------------------------------------------------------------------


def latest(project: Project, *, by: Actor) -> list[ProxyCall]:
    """The last calls about this project that the actor may see, newest first: of keys that are not
    theirs a member sees none. Those that name no project and no known key, and those of strangers,
    are the owners' alone.

    Raises Forbidden.
    """
    by.require(AUDIT_READ, project.id)
    found = _of(project.slug)
    if by.is_owner:
        strangers = {one.peer: one for one in reversed(_of(OF_STRANGERS))}
        found = [*found, *_of(OF_NO_PROJECT), *strangers.values()]
    only_own = by.sees_only_own(project.id)
    seen = [one for one in found if not only_own or one.key_id is None or one.key_owner_id == by.id]
    return sorted(seen, key=lambda one: one.at, reverse=True)[: 2 * KEPT]


def _of(slug: str) -> list[ProxyCall]:
    if _shared is not None:
        try:
            return _shared.calls(slug)
        except _shared.failures as error:
            log.warning("the last calls of proxies cannot be read: %s", error)
    with _lock:
        ring = _rings.get(slug)
        return list(ring.calls) if ring else []
