"""What a request needs by its method and path, where the proxy's address names no permission: the
rules of a project, of which the first that covers the request decides.

A service behind the proxy may read a path in another way than it was sent: `/a/../admin`,
`//admin`, `/%61dmin`, `/ADMIN`. Which way is not known here, so a request needs what each reading
needs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console.fields import Fields, OneOf, UpTo, text_schema
from console.key_fields import Permissions

ALLOW, DENY = "allow", "deny"
DEFAULTS = (ALLOW, DENY)
RULES_MAX = 100
PATH_MAX_LENGTH = 200
METHODS_MAX = 20
METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")
DECODED_AT_MOST = 5
TRIED_MAX_LENGTH = 2_000
REMEMBERED_LENGTH = 200  # of a path: longer ones are rare, and would fill the memory

ANY, REST = "*", "**"
NOT_IN_PATH = re.compile(r"[\x00-\x20\x7f?#%;\\{}]")
PATH_HELP = "must start with /, such as /tasks/**"
CHARACTERS_HELP = (
    "must be a path as people read it: no query, no %-escapes, no spaces, and none of ; \\ { }. "
    "For any segment write *"
)


def _method(text: str) -> str:
    if not METHOD.fullmatch(text):
        raise ValueError("must be an HTTP method, such as GET")
    return text.upper()


def _methods(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _path(text: str) -> str:
    """A pattern that means one thing. Raises ValueError."""
    text = text.strip()
    if not text.startswith("/") or len(text) > PATH_MAX_LENGTH:
        raise ValueError(
            f"must be at most {PATH_MAX_LENGTH} characters" if text.startswith("/") else PATH_HELP
        )
    if NOT_IN_PATH.search(text):
        raise ValueError(CHARACTERS_HELP)
    segments = text[1:].split("/")
    if any(segment in (".", "..") for segment in segments) or "" in segments[:-1]:
        raise ValueError("must have no empty segment, and none that is . or ..")
    if any(REST in segment for segment in segments[:-1]) or segments[-1].count(ANY) > 1 != (
        segments[-1] == REST
    ):
        raise ValueError("may have ** only as its last segment, for all that is below")
    if any(segment.count(ANY) > 1 for segment in segments[:-1]):
        raise ValueError("may have one * in a segment")
    return text


Method = Annotated[str, AfterValidator(_method), text_schema("GET", pattern=f"^{METHOD.pattern}$")]
PathPattern = Annotated[
    str, AfterValidator(_path), text_schema("/tasks/**", pattern="^/", maxLength=PATH_MAX_LENGTH)
]


class NewRouteRule(Fields):
    """What requests of these methods and paths need."""

    methods: Annotated[
        list[Method], Field(max_length=METHODS_MAX), AfterValidator(_methods)
    ] = Field([], description="None: every method. GET covers HEAD, too")  # fmt: skip
    path: PathPattern = Field(
        description="`*` stands for one segment or a part of one, `**` at the end for all below"
    )
    permissions: Permissions = Field(
        [], description="All must be held; none: any key of the project will do"
    )


class RouteRule(TypedDict):
    """What requests of these methods and paths need."""

    methods: list[str]
    path: str
    permissions: list[str]


RouteRules = Annotated[list[NewRouteRule], Field(max_length=RULES_MAX)]
RouteDefault = Annotated[str, OneOf(*DEFAULTS)]


def stored(rules: Sequence[NewRouteRule]) -> list[RouteRule]:
    """The rules as the project keeps them."""
    return [
        {"methods": rule.methods, "path": rule.path, "permissions": rule.permissions}
        for rule in rules
    ]


class Need(NamedTuple):
    """What a request needs by a project's rules, and which of them say so.

    `rules` are their places, from 0; several where the path can be read in several ways.
    `is_refused`: in one of these ways no rule covers it, and what none covers is refused.
    """

    permissions: tuple[str, ...] = ()
    is_refused: bool = False
    rules: tuple[int, ...] = ()


NOTHING = Need()


class Routes:
    """A project's rules, ready to be asked. Never changed."""

    __slots__ = ("_covers", "_default", "_permissions")

    def __init__(self, rules: Sequence[Mapping[str, Any]], default: str) -> None:
        self._default = default
        self._permissions = [tuple(rule["permissions"]) for rule in rules]
        self._covers = [
            (frozenset(rule["methods"]), *_patterns(rule["path"])) for rule in rules
        ]  # fmt: skip

    def need(self, method: str, path: str) -> Need:
        """What a request with this method and raw path needs; the query is no part of the path."""
        remembers = len(path) <= REMEMBERED_LENGTH
        return _remembered_need(self, method, path) if remembers else self._need(method, path)

    def _need(self, method: str, path: str) -> Need:
        method = method.upper()
        literal, plain = _literal(path), _plain(path)
        deciding = dict.fromkeys(
            self._first(method, text, folded)
            for text in dict.fromkeys((literal, plain))
            for folded in (False, True)
        )
        rules = tuple(place for place in deciding if place is not None)
        needed = (name for place in rules for name in self._permissions[place])
        return Need(tuple(dict.fromkeys(needed)), None in deciding and self._default == DENY, rules)

    def _first(self, method: str, text: str, folded: bool) -> int | None:
        for place, (methods, exact, any_case) in enumerate(self._covers):
            asked = not methods or method in methods or (method == "HEAD" and "GET" in methods)
            if asked and (any_case if folded else exact).fullmatch(text):
                return place
        return None


def of(rules: Any, default: str) -> Routes | None:
    """The rules of a project, as its columns hold them; None where they ask nothing."""
    if not rules or rules == "[]":
        return None if default == ALLOW else _none_at_all()
    return _of(rules if isinstance(rules, str) else json.dumps(rules), default)


def _tried_path(text: str) -> str:
    path = text.strip().partition("?")[0]
    if not path.startswith("/"):
        raise ValueError("must start with /, such as /tasks/17")
    return path


class _Trial(Fields):
    """A request, and the rules to try it on."""

    route_rules: RouteRules
    route_default: RouteDefault
    method: Method
    path: Annotated[str, UpTo(TRIED_MAX_LENGTH), AfterValidator(_tried_path)]


def tried(fields: Mapping[str, Any], method: str, path: str) -> tuple[Need, list[RouteRule]]:
    """What a request would need by rules that nobody has saved, and those of them that decide, in
    the order of `Need.rules`.

    `fields` are `route_rules` and `route_default`. Raises Invalid, which names their fields as an
    edit does, and `method` and `path`.
    """
    trial = _Trial.read({**fields, "method": method.strip(), "path": path})
    rules = stored(trial.route_rules)
    # Past the memory, which is for rules that requests come back to.
    need = Routes(rules, trial.route_default)._need(trial.method, trial.path)
    return need, [rules[place] for place in need.rules]


@lru_cache(maxsize=1)
def _none_at_all() -> Routes:
    return Routes([], DENY)


@lru_cache(maxsize=1_000)
def _of(rules: str, default: str) -> Routes:
    return Routes(json.loads(rules), default)


@lru_cache(maxsize=10_000)
def _remembered_need(routes: Routes, method: str, path: str) -> Need:
    return routes._need(method, path)


def _patterns(path: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern in this case and in any. No part of it is tried in two ways, so that the time
    that a match takes grows with the path and no faster."""
    segments = [segment for segment in path.split("/") if segment]
    rest = bool(segments) and segments[-1] == REST
    text = "".join(f"/{_segment(one)}" for one in (segments[:-1] if rest else segments))
    text += "(?:/.*)?" if rest else "/?"
    return re.compile(text, re.DOTALL), re.compile(text, re.DOTALL | re.IGNORECASE)


def _segment(text: str) -> str:
    if text == ANY:
        return "[^/]+"
    return "[^/]*".join(re.escape(part) for part in text.split(ANY))


def _literal(path: str) -> str:
    """As it was sent: decoded once, but for slashes within a segment, which stay `%2F`."""
    if "%" not in path:
        return path
    return unquote(path.replace("%2f", "%252F").replace("%2F", "%252F"), errors="surrogateescape")


def _plain(path: str) -> str:
    """As the most obliging service reads it: decoded to the end, a backslash for a slash, without
    `;parameters`, empty segments, `.` and `..` (RFC 3986, 5.2.4)."""
    for _ in range(DECODED_AT_MOST):
        decoded = unquote(path, errors="surrogateescape")
        if decoded == path:
            break
        path = decoded
    found: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        name = segment.partition(";")[0]
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            found.append(name)
    return "/" + "/".join(found)
