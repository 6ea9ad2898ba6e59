"""Turns the credential of an API call into the actor who makes it: a key's holder or a person."""

from dataclasses import dataclass, replace
from functools import partial

from config import Config
from console import check, sessions, wire
from console.actor import KEY, Actor
from console.check import Verdict
from console.known import Known
from console.wire import Environ


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the API; `verdict` and `key` are of a key, and None for an access token."""

    actor: Actor
    verdict: Verdict | None = None

    @property
    def key(self) -> Known | None:
        return self.verdict.key if self.verdict else None


def caller(
    environ: Environ,
    config: Config,
    request_id: str,
    *,
    needs: tuple[str, ...] = (),
    cost: int = 1,
    syncs: bool = True,
) -> Caller:
    """Who sent this request. A key is checked, counted and logged like any other use of it.

    Raises Refused with the code and status of interface §4, or TOKEN_INVALID.
    """
    credential = wire.presented(environ)
    ip = wire.client_address(environ, config.trusted_proxies)
    if credential and sessions.looks_like_access_token(credential):
        return Caller(
            sessions.by_access_token(
                credential, signing_key=config.secret_key, ip=ip, request_id=request_id
            )
        )
    request = check.Request(
        secret=credential,
        request_id=request_id,
        ip=ip,
        method=environ["REQUEST_METHOD"],
        # WSGI hands UTF-8 on as Latin-1 (PEP 3333).
        endpoint=environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace"),
        user_agent=environ.get("HTTP_USER_AGENT", ""),
        permissions=needs,
        cost=cost,
    )
    verdict = check.check(request, syncs=syncs)
    if not verdict.is_valid or verdict.key is None:
        raise wire.Denied(verdict)
    return Caller(_holder(verdict.key, request), verdict)


def _holder(key: Known, request: check.Request) -> Actor:
    return Actor(
        kind=KEY,
        id=key.id,
        name=key.name,
        owner_id=key.owner_id,
        project_id=key.project_id,
        permissions=frozenset(key.permissions),
        refuse_ended=partial(_refuse_ended, request, tuple(key.permissions)),
        ip=request.ip,
        request_id=request.request_id,
    )


def _refuse_ended(request: check.Request, held: tuple[str, ...]) -> None:
    """Raises Denied where the key does not hold by now, or less of it."""
    verdict = check.judge(replace(request, permissions=held))
    if not verdict.is_valid:
        raise wire.Denied(verdict)
