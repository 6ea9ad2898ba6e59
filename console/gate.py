"""The services' door: POST /api/v1/verify and /forward-auth/*: check() plus headers.

A plain WSGI callable ahead of Flask, because every request of every protected service waits for
it. Routing and translation only; any other path goes on to Flask.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from config import Config
from console import bearer, check, db, forward_auth, journal, projects, proxy_calls, wire
from console.api.calls import describe
from console.check import UNAVAILABLE
from console.errors import MethodNotAllowed, Refused
from console.fields import Address, Fields, Whole, text_schema
from console.forward_auth import Asked, path_of
from console.key_fields import Environment, Permissions
from console.permissions import KEYS_VERIFY
from console.route_rules import METHOD
from console.wire import Environ, Headers

StartResponse = Callable[[str, Headers], Any]
WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

VERIFY = "/api/v1/verify"
HEALTHZ = "/healthz"
EVERYTHING = "*"  # what OPTIONS asks about, when it is no path (RFC 9110)
COST_MAX = 1_000_000
NO_STORE = ("Cache-Control", "no-store")
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
        if path == HEALTHZ:  # also while every other thread waits for a silent database
            return True
        return self.never_waits and (
            path == VERIFY or forward_auth.route_of(path) is not None
        )  # fmt: skip

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        asked: Asked | None = None
        if path == HEALTHZ:
            environ.pop("HTTP_COOKIE", None)  # who that is would be asked of the database
        if path != VERIFY:
            route = forward_auth.route_of(path)
            if route is None:
                return self.app(environ, start_response)
            asked = Asked(route)
        request_id = wire.request_id()
        refused: Refused | None = None
        try:
            try:
                if asked is None:
                    status, headers, body = self._verify(environ, request_id)
                else:
                    status, headers, body = self._forward_auth(asked, environ, request_id)
            finally:
                _wait_for_disk(environ)  # what is refused has its entry too
        except Exception as error:
            refused = wire.as_refused(error, request_id)
            wire.hold_back(environ, refused)
            status, headers, body = wire.problem(refused, request_id)
        if asked is not None:
            proxy_calls.note(asked, environ, request_id, status, refused)
            if asked.route == forward_auth.NGINX and refused is not None:
                status, headers = forward_auth.as_nginx_takes_it(status, headers, body)
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
            NO_STORE,
            ("X-Request-Id", request_id),
            *wire.expiry_header(verdict),
            *wire.rate_headers(verdict.allowance, verdict.at),
        ]
        return 200, headers, wire.to_json(content)

    # --- /forward-auth/* ----------------------------------------------------------------------

    def _forward_auth(
        self, asked: Asked, environ: Environ, request_id: str
    ) -> tuple[int, Headers, bytes]:
        """A proxy asks about a client's request: 200 with the key's identity, or the refusal."""
        request = forward_auth.read(asked, environ, self.config, request_id)
        if forward_auth.is_free_preflight(asked, environ):
            return 200, [*wire.nobodys_headers(request_id), NO_STORE], b""
        verdict = check.check(request, syncs=False)
        asked.key = verdict.key
        if not verdict.is_valid:
            raise wire.Denied(verdict)
        rate = wire.rate_headers(verdict.allowance, verdict.at)
        return 200, [*wire.identity_headers(verdict), NO_STORE, *rate], b""


def _wait_for_disk(environ: Environ) -> None:
    """Has the disk take the entries before the answer goes out, by the server where it offers to
    wait for several answers at once."""
    if journal.is_behind():
        environ.get(wire.BEFORE_ANSWER, _now)(journal.sync)


def _now(wait: Callable[[], None]) -> None:
    wait()


# --- the body of POST /verify -----------------------------------------------------------------


def _method(text: str) -> str:
    if text and not METHOD.fullmatch(text):
        raise ValueError("must be an HTTP method")
    return text


def _path(text: str) -> str:
    """Of what a service says, what belongs to no path is left out."""
    if text in ("", EVERYTHING):
        return text
    return path_of(text.partition("?")[0].partition("#")[0])


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
            text_schema("/tasks", pattern=r"^($|/|\*$|[A-Za-z]+://[A-Za-z0-9.:-]*(/|$))"),
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
