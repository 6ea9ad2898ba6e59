"""The services' door: POST /api/v1/verify and /forward-auth/*: check() plus headers.

A plain WSGI callable ahead of Flask, because every request of every protected service waits for
it. Routing and translation only; any other path goes on to Flask.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import AfterValidator, Field

from config import Config
from console import addresses, bearer, check, db, journal, projects, wire
from console.api.calls import describe
from console.check import UNAVAILABLE
from console.errors import Forbidden, Invalid, MethodNotAllowed
from console.fields import Address, Fields, OneOf, Whole, text_schema
from console.key_fields import Environment, Permissions
from console.models import ENVIRONMENTS
from console.permissions import KEYS_VERIFY
from console.permissions import parse as parse_permissions
from console.wire import Environ, Headers

StartResponse = Callable[[str, Headers], Any]
WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

VERIFY = "/api/v1/verify"
NGINX = "/forward-auth/nginx"
EVERYTHING = "*"  # what OPTIONS asks about, when it is no path (RFC 9110)
COST_MAX = 1_000_000
METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")

# What nginx's auth_request passes on; any other status would reach the client as 500.
NGINX_PASSES = (200, 401, 403)
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Gate:
    """WSGI middleware: answers the checks itself and hands everything else to `app`."""

    def __init__(self, app: WSGI, config: Config) -> None:
        self.app = app
        self.config = config
        # Every other way asks another process, and lets others run meanwhile.
        self.never_waits = db.is_sqlite() and not config.redis_url

    def is_quick(self, path: str) -> bool:
        """Whether what is asked at this path is answered without waiting; but for the disk, for
        which a server may wait for many answers at once (`wire.BEFORE_ANSWER`)."""
        return self.never_waits and path in (VERIFY, NGINX)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == VERIFY:
            answer, translate = self._verify, _as_it_is
        elif path == NGINX:
            answer, translate = self._forward_auth_nginx, _for_nginx
        else:
            return self.app(environ, start_response)
        request_id = wire.request_id()
        try:
            try:
                status, headers, body = answer(environ, request_id)
            finally:
                _wait_for_disk(environ)  # what is refused has its entry too
        except Exception as error:
            refused = wire.as_refused(error, request_id)
            wire.hold_back(environ, refused)
            status, headers, body = wire.problem(refused, request_id)
        status, headers = translate(status, headers, body)
        if environ.get("REQUEST_METHOD") == "HEAD":
            body = b""
        else:
            headers.append(("Content-Length", str(len(body))))
        start_response(STATUS_LINES[status], headers)
        return [body]

    # --- POST /api/v1/verify ------------------------------------------------------------------

    def _verify(self, environ: Environ, request_id: str) -> tuple[int, Headers, bytes]:
        """A service asks about a key; 200 whatever the verdict, 503 when there can be none."""
        if environ["REQUEST_METHOD"] != "POST":
            raise MethodNotAllowed("Use POST.", allow=("POST",))
        caller = bearer.caller(environ, self.config, request_id, needs=(KEYS_VERIFY,), syncs=False)
        within = projects.ids_where(KEYS_VERIFY, by=caller.actor)
        # The client's request has an id of its own: the service's call is logged under its own.
        request_id = wire.request_id()
        question = Question.read(wire.read_json_body(environ))
        request = question.request(request_id, within)
        steps: list[check.Step] | None = None
        if question.dry_run:
            verdict, steps = check.explain(request)
        else:
            verdict = check.check(request, syncs=False)
        if verdict.code == UNAVAILABLE:
            raise wire.Denied(verdict)
        content = wire.verdict_json(verdict)
        if steps is not None:
            content["checks"] = [
                {"check": step.check, "passed": step.code is None, "detail": step.detail}
                for step in steps
            ]
        headers = [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Request-Id", request_id),
            *wire.expiry_header(verdict),
            *wire.rate_headers(verdict.allowance, verdict.at),
        ]
        return 200, headers, wire.to_json(content)

    # --- /forward-auth/nginx ------------------------------------------------------------------

    def _forward_auth_nginx(self, environ: Environ, request_id: str) -> tuple[int, Headers, bytes]:
        """nginx asks about a client's request: 200 with the key's identity, or the refusal."""
        self._refuse_strangers(environ)
        request = self._nginx_request(environ, request_id)
        verdict = check.check(request, syncs=False)
        if not verdict.is_valid:
            raise wire.Denied(verdict)
        rate = wire.rate_headers(verdict.allowance, verdict.at)
        return 200, [*wire.identity_headers(verdict), ("Cache-Control", "no-store"), *rate], b""

    def _refuse_strangers(self, environ: Environ) -> None:
        """Only trusted proxies may say what a client asked for."""
        peer = environ.get("REMOTE_ADDR", "")
        if not addresses.is_one_of(peer, self.config.trusted_proxies):
            raise Forbidden(f"{peer or 'This caller'} is not one of LATCHKEY_TRUSTED_PROXIES.")

    def _nginx_request(self, environ: Environ, request_id: str) -> check.Request:
        """The client's request by nginx's own headers; no other family is looked at."""
        method = environ.get("HTTP_X_ORIGINAL_METHOD", "").strip()
        if not METHOD.fullmatch(method):
            raise Invalid({"X-Original-Method": "must carry the client's method"})
        try:
            endpoint = _path_of(environ.get("HTTP_X_ORIGINAL_URL", ""))
        except ValueError as error:
            raise Invalid({"X-Original-URL": str(error)}) from None
        query = _query(environ.get("QUERY_STRING", ""))
        return check.Request(
            secret=wire.presented(environ),
            request_id=request_id,
            ip=wire.client_address(environ, self.config.trusted_proxies),
            method=method,
            endpoint=endpoint,
            user_agent=environ.get("HTTP_USER_AGENT", ""),
            **query,
        )


def _wait_for_disk(environ: Environ) -> None:
    """Has the disk take the entries before the answer goes out, by the server where it offers to
    wait for several answers at once."""
    if journal.is_behind():
        environ.get(wire.BEFORE_ANSWER, _now)(journal.sync)


def _now(wait: Callable[[], None]) -> None:
    wait()


@lru_cache(maxsize=1_000)
def _query(text: str) -> dict[str, Any]:
    """`permission` (repeatable), `project` and `environment` of the proxy's own address."""
    required: list[str] = []
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name == "permission":
            required.append(value)
        elif name not in ("project", "environment"):
            raise Invalid({name: "is not an option; use permission, project or environment"})
        elif name in found:
            raise Invalid({name: "occurs twice"})
        else:
            found[name] = value
    if "environment" in found:
        try:
            OneOf(*ENVIRONMENTS).check(found["environment"])
        except ValueError as error:
            raise Invalid({"environment": str(error)}) from None
    try:
        found["permissions"] = tuple(parse_permissions(required))
    except ValueError as error:
        raise Invalid({"permission": str(error)}) from None
    return found


def _path_of(url: str) -> str:
    """The raw path of `http://host/path?query` or `/path?query`; the query is never kept.

    Raises ValueError for anything else.
    """
    path = url.partition("?")[0].partition("#")[0]
    if "://" in path and not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    if not path.startswith("/"):
        raise ValueError("must be the path that the client asked for, with or without its host")
    return path


def _as_it_is(status: int, headers: Headers, body: bytes) -> tuple[int, Headers]:
    return status, headers


def _for_nginx(status: int, headers: Headers, body: bytes) -> tuple[int, Headers]:
    """nginx knows 200, 401 and 403; the rest travels in headers that error_page restores."""
    if status == 200:
        return status, headers
    headers = [*headers, ("X-Error-Body", body.decode("ascii"))]
    if status in NGINX_PASSES:
        return status, [*headers, ("X-Error-Status", str(status))]
    return 403, [*headers, ("X-Error-Status", str(status))]


# --- the body of POST /verify -----------------------------------------------------------------


def _method(text: str) -> str:
    if text and not METHOD.fullmatch(text):
        raise ValueError("must be an HTTP method")
    return text


def _path(text: str) -> str:
    return text if text in ("", EVERYTHING) else _path_of(text)


class Question(Fields):
    """A key, and the request that it came with."""

    key: Annotated[str, text_schema("lk_live_0Vb5…")]
    project: str | None = Field(None, description="The slug of the project it must belong to")
    environment: Environment | None = Field(None, description="The environment it must be of")
    permissions: Permissions = Field([], description="What the request needs: all must be held")
    method: Annotated[
        str, AfterValidator(_method), text_schema("GET", pattern=f"^({METHOD.pattern})?$")
    ] | None = None  # fmt: skip
    path: (
        Annotated[
            str,
            AfterValidator(_path),
            text_schema("/tasks", pattern=r"^($|/|\*$|(?!/)[^?#]*://)"),
        ]
        | None
    ) = None
    ip: Address | None = Field(
        None, description="The client's address; without it a key with an allowlist is refused"
    )
    user_agent: str | None = None
    cost: Annotated[int, Whole(0, COST_MAX)] = Field(
        1, description="What the request takes from the key's limits"
    )
    dry_run: bool = Field(
        False, description="Explain every rule in `checks`; store and spend nothing"
    )

    def request(self, request_id: str, within: frozenset[str]) -> check.Request:
        return check.Request(
            secret=self.key,
            request_id=request_id,
            ip=self.ip,
            method=self.method or "",
            endpoint=self.path or "",
            user_agent=self.user_agent or "",
            permissions=tuple(self.permissions),
            project=self.project,
            environment=self.environment,
            cost=self.cost,
            within=within,
        )


describe(
    "POST",
    VERIFY.removeprefix("/api/v1"),
    name="verify_key",
    about="""Is this key good for this request? 200 whatever the verdict.

    Every check of a known key is recorded before it is answered. `dry_run` explains each rule in
    `checks` instead, and stores and spends nothing.""",
    needs=KEYS_VERIFY,
    takes=Question,
    gives=wire.VerdictObject,
    subject="Services",
    example={
        "key": "lk_live_0123456789",
        "permissions": ["tasks:read"],
        "method": "GET",
        "path": "/tasks",
        "ip": "203.0.113.7",
    },
)
