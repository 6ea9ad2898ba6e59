"""What a proxy asks about: a client's request, as each kind of proxy puts it (interface §6).

Each route reads its own family of headers and no other, so that no client can say by a header of
another what it asked for. Reads and translates; decides nothing.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from config import Config
from console import addresses, check, wire
from console.errors import Forbidden, Invalid
from console.fields import OneOf
from console.known import Known
from console.models import ENVIRONMENTS
from console.permissions import parse as parse_permissions
from console.route_rules import METHOD
from console.wire import KEY_HEADERS, Environ, Headers

PREFIX = "/forward-auth/"
NGINX, CADDY, TRAEFIK, HAPROXY, ENVOY = "nginx", "caddy", "traefik", "haproxy", "envoy"
ROUTES = (NGINX, CADDY, TRAEFIK, HAPROXY, ENVOY)
ENVOYS = f"{PREFIX}{ENVOY}"

# What nginx's auth_request passes on of refusals; any other status would reach the client as 500.
NGINX_PASSES = (401, 403)

PERMISSION, PROJECT, ENVIRONMENT = "permission", "project", "environment"
PREFLIGHT, HEADER = "preflight", "header"
OPTIONS = (PERMISSION, PROJECT, ENVIRONMENT, PREFLIGHT, HEADER)
PREFLIGHT_ANSWERS = ("allow", "deny")
REQUIRED_PERMISSION = "X-Required-Permission"
ENVOY_OPTIONS = "X-Latchkey-Options"
ENVOY_PATH = "X-Latchkey-Path"
BETWEEN = re.compile(r"[\s,]+")
NOT_IN_HOST = re.compile(r"[?#@\\\s]")
PATH_HELP = "must be the path that the client asked for, with or without its host"
# Of a path that a server has decoded, what needs no escape when it is written again.
PLAIN_IN_PATH = "/!$&'()*+,;=:@~"


class Family(NamedTuple):
    """The two headers in which a kind of proxy says what the client asked for."""

    method: str
    url: str


ORIGINAL = Family("X-Original-Method", "X-Original-URL")
FORWARDED = Family("X-Forwarded-Method", "X-Forwarded-Uri")
# Envoy says it by its own request.
FAMILIES = {NGINX: ORIGINAL, CADDY: FORWARDED, TRAEFIK: FORWARDED, HAPROXY: FORWARDED}
BY_PATH = {f"{PREFIX}{name}": name for name in ROUTES}


class Options(NamedTuple):
    """What the proxy's configuration asks of a request, however it says so."""

    permissions: tuple[str, ...] = ()
    project: str | None = None
    environment: str | None = None
    lets_preflight_in: bool = False
    header: str | None = None  # the only one that may carry the key


@dataclass(slots=True)
class Asked:
    """A question of a proxy, as far as it could be read; for the page that shows the last ones."""

    route: str
    options: Options = Options()
    request: check.Request | None = None
    key: Known | None = None
    is_trusted: bool = False
    is_by_client: bool = False  # the options are of the client's query


def route_of(path: str) -> str | None:
    """The kind of proxy whose route this is."""
    name = BY_PATH.get(path)
    return ENVOY if name is None and path.startswith(f"{ENVOYS}/") else name


def read(asked: Asked, environ: Environ, config: Config, request_id: str) -> check.Request:
    """The client's request, which it leaves in `asked`, too. Raises Invalid; Forbidden for a caller
    that is no trusted proxy: only those may say what a client asked for."""
    peer = environ.get("REMOTE_ADDR", "")
    if not addresses.is_one_of(peer, config.trusted_proxies):
        raise Forbidden(
            f"{peer or 'This caller'} is not one of LATCHKEY_TRUSTED_PROXIES: add the address "
            "of the proxy there."
        )
    asked.is_trusted = True
    asked.options, asked.is_by_client = _options(asked.route, environ)
    method, endpoint = _line(asked.route, environ)
    options = asked.options
    asked.request = check.Request(
        secret=wire.presented(environ, options.header),
        request_id=request_id,
        ip=wire.client_address(environ, config.trusted_proxies),
        method=method,
        endpoint=endpoint,
        user_agent=environ.get("HTTP_USER_AGENT", ""),
        permissions=options.permissions,
        project=options.project,
        environment=options.environment,
        by_rules=asked.is_by_client or not options.permissions,
    )
    return asked.request


def is_free_preflight(asked: Asked, environ: Environ) -> bool:
    """Whether this is a browser's question before the request (Fetch, CORS-preflight), which never
    carries a key, and the proxy's configuration lets those in."""
    request = asked.request
    return (
        asked.options.lets_preflight_in
        and request is not None
        and request.method == "OPTIONS"
        and not request.secret
        and bool(environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD"))
    )


def as_nginx_takes_it(status: int, headers: Headers, body: bytes) -> tuple[int, Headers]:
    """A refusal for nginx, which knows 401 and 403; the rest travels in headers that error_page
    restores."""
    headers = [*headers, ("X-Error-Body", body.decode("ascii")), ("X-Error-Status", str(status))]
    return (status if status in NGINX_PASSES else 403), headers


# --- what is asked of the request -------------------------------------------------------------


def _options(route: str, environ: Environ) -> tuple[Options, bool]:
    """The options of the proxy's own address. That of Envoy has the client's query behind it, so
    its options come in headers; where there are none the query is read, but can only ask for more
    (and whether that is so)."""
    query = environ.get("QUERY_STRING", "")
    if route != ENVOY:
        return parse_options(query), False
    own = header_in(environ, ENVOY_OPTIONS)
    required = header_in(environ, REQUIRED_PERMISSION)
    if not own and not required:
        return _of_clients_query(query), True
    options = parse_options(own, ENVOY_OPTIONS)
    if required:
        try:
            more = parse_permissions(item for item in BETWEEN.split(required) if item)
        except ValueError as error:
            raise Invalid({REQUIRED_PERMISSION: str(error)}) from None
        both = dict.fromkeys((*options.permissions, *more))
        options = options._replace(permissions=tuple(both))
    return options, False


def named_project(route: str, environ: Environ) -> str | None:
    """The project as it stands in the options, though not all of them could be read."""
    own = header_in(environ, ENVOY_OPTIONS) if route == ENVOY else environ.get("QUERY_STRING", "")
    return dict(parse_qsl(str(own))).get(PROJECT)


@lru_cache(maxsize=1_000)
def parse_options(text: str, within: str = "") -> Options:
    """`permission` (repeatable), `project`, `environment`, `preflight` and `header` of a query.

    Raises Invalid.
    """
    required: list[str] = []
    found: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name == PERMISSION:
            required.append(value)
        elif name not in OPTIONS:
            raise Invalid({within or name: f"{name[:60]} is not an option; {OPTIONS_HELP}"})
        elif name in found:
            raise Invalid({within or name: f"{name} occurs twice"})
        else:
            found[name] = value
    if HEADER in found:
        found[HEADER] = found[HEADER].lower()
    for name, kind in CHOICES.items():
        if name in found:
            _refuse_other(kind, found[name], within or name)
    try:
        permissions = tuple(parse_permissions(required))
    except ValueError as error:
        raise Invalid({within or PERMISSION: str(error)}) from None
    return Options(
        permissions,
        found.get(PROJECT),
        found.get(ENVIRONMENT),
        found.get(PREFLIGHT) == "allow",
        found.get(HEADER),
    )


OPTIONS_HELP = f"use {', '.join(OPTIONS[:-1])} or {OPTIONS[-1]}"
CHOICES = {
    ENVIRONMENT: OneOf(*ENVIRONMENTS),
    PREFLIGHT: OneOf(*PREFLIGHT_ANSWERS),
    HEADER: OneOf(*KEY_HEADERS),
}


def _refuse_other(kind: OneOf, value: str, field: str) -> None:
    try:
        kind.check(value)
    except ValueError as error:
        raise Invalid({field: str(error)}) from None


def _of_clients_query(query: str) -> Options:
    """What a client's own query asks for besides; the rest of it is the service's business."""
    required: list[str] = []
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in (PROJECT, ENVIRONMENT):
            found.setdefault(name, value)
        elif name == PERMISSION:
            required.append(value)
    permissions: list[str] = []
    for value in required:
        try:
            permissions += parse_permissions([value])
        except ValueError:
            continue
    return Options(tuple(permissions), found.get(PROJECT), found.get(ENVIRONMENT))


# --- the client's request ---------------------------------------------------------------------


def _line(route: str, environ: Environ) -> tuple[str, str]:
    """Method and raw path of the client's request. Raises Invalid; nothing is assumed."""
    if route == ENVOY:
        return _method(environ["REQUEST_METHOD"], "method"), _envoys_path(environ)
    family, method_variable, url_variable = LINES[route]
    method = _method(environ.get(method_variable, "").strip(), family.method)
    try:
        return method, path_of(environ.get(url_variable, ""))
    except ValueError as error:
        raise Invalid({family.url: str(error)}) from None


def _method(text: str, field: str) -> str:
    if not METHOD.fullmatch(text):
        raise Invalid({field: "must carry the client's method"})
    return text


def header_in(environ: Environ, name: str) -> str:
    """A header of the proxy's call; empty where it did not come."""
    value: str = environ.get(_variable(name), "")
    return value


@cache
def _variable(header: str) -> str:
    return "HTTP_" + header.upper().replace("-", "_")


# Asked for at every check.
LINES = {
    name: (family, _variable(family.method), _variable(family.url))
    for name, family in FAMILIES.items()
}


def path_of(url: str) -> str:
    """The raw path of `http://host/path?query` or `/path?query`; the query is never kept.

    Raises ValueError for anything else, a fragment included: a request has none (RFC 9112, 3.2).
    """
    path = url
    if not url.startswith("/"):
        scheme, found, rest = url.partition("://")
        host, slash, rest = rest.partition("/")
        # Of a host with these the path could be taken for its end.
        if not found or not scheme.isalpha() or NOT_IN_HOST.search(host):
            raise ValueError(PATH_HELP)
        path = slash + rest or "/"
    path = path.partition("?")[0]
    if "#" in path:
        raise ValueError("must have # written as %23")
    return path


def _envoys_path(environ: Environ) -> str:
    """What stands behind the route in Envoy's own request line, as far as the server has kept it:
    WSGI hands it on decoded (PEP 3333). As the client sent it, it comes in a header, which counts
    only where it says the same.
    """
    decoded = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")[len(ENVOYS) :]
    if not decoded:
        raise Invalid({"path": f"must follow {ENVOYS}, as Envoy's path_prefix puts it"})
    for raw in (header_in(environ, ENVOY_PATH), environ.get("RAW_URI", "")):
        path = raw.partition("?")[0].removeprefix(ENVOYS)
        if path and unquote(path) == decoded:
            return path
    return quote(decoded, safe=PLAIN_IN_PATH)
