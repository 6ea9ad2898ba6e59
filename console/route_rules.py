"""What a request needs by its method and path, where the proxy's address names no permission: the
rules of a project, of which the first that covers the request decides.

A service behind the proxy may read a path in another way than it was sent: `//admin`, `/%61dmin`,
`/ADMIN`, `/admin;x`. Which way is not known here, so a request needs what each reading needs. What
`..` removes differs from reading to reading, so a path with dots is refused: clients resolve them
before they send (RFC 3986, 5.2.4).
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console.fields import Fields, OneOf, UpTo, clean_text, text_schema
from console.key_fields import Permissions

ALLOW, DENY = "allow", "deny"
DEFAULTS = (ALLOW, DENY)
RULES_MAX = 100
PATH_MAX_LENGTH = 200
METHODS_MAX = 20
METHOD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")
READINGS_MAX = 100  # a path with more of them is refused
READ_MAX_LENGTH = 2_000  # a longer path is refused
TRIED_MAX_LENGTH = 2_000
REMEMBERED_LENGTH = 200  # of a path: longer ones are rare, and would fill the memory
# One way to read it: no escapes, no dots alone, no empty segments, none of the characters by which
# services differ.
PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")
DOTS_OR_CONTROL = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|[\x00-\x1f\x7f]")
AUTHORITY = re.compile(r"\A/{2,}[^/]*/?")
# Escapes that mean something, or that nobody writes but to hide: # % . / ; ? \, letters and digits.
TELLING = re.compile(r"%(?=2[35EF]|3[0-9BF]|4[1-9A-F]|5[0-9AC]|6[1-9A-F]|7[0-9A])", re.IGNORECASE)
SLASHES = re.compile(r"%(?=2F|5C)", re.IGNORECASE)

UNCOVERED = "No rule of the project covers this request, and what none covers is refused."
UNREADABLE = (
    "The path can be read as another one, or is too long, so no rule is asked: send at most 2,000 "
    "characters, without . and .. segments, control characters and escapes of escapes."
)

ANY, REST = "*", "**"
NOT_IN_PATH = re.compile(r"[\s?#%;\\{}]")
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
    text = clean_text(text).strip(" ")
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

    methods: Annotated[list[str], Field(description="None: every method. GET covers HEAD, too")]
    path: Annotated[str, text_schema("/tasks/**")]
    permissions: Annotated[list[str], Field(description="None: any key of the project will do")]


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

    `rules` are their places, from 0; several where the path can be read in several ways. `refusal`
    is why no key will do: the path is in one of these ways covered by no rule, and what none covers
    is refused; or it is none that can be judged.
    """

    permissions: tuple[str, ...] = ()
    refusal: str = ""
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
        texts = readings(path)
        if not texts:
            return Need(refusal=UNREADABLE)
        deciding = dict.fromkeys(
            self._first(method, text, folded) for text in texts for folded in (False, True)
        )
        rules = tuple(place for place in deciding if place is not None)
        needed = (name for place in rules for name in self._permissions[place])
        is_uncovered = None in deciding and self._default == DENY
        return Need(tuple(dict.fromkeys(needed)), UNCOVERED if is_uncovered else "", rules)

    def _first(self, method: str, text: str, folded: bool) -> int | None:
        for place, (methods, exact, any_case) in enumerate(self._covers):
            asked = not methods or method in methods or (method == "HEAD" and "GET" in methods)
            if asked and (any_case if folded else exact).fullmatch(text):
                return place
        return None


def ask_anything(rules: Sequence[Any], default: str) -> bool:
    """Whether there is a request of which these rules ask more than a key of the project."""
    return bool(rules) or default != ALLOW


def of(rules: str, default: str) -> Routes | None:
    """The rules of a project, in JSON; None where they ask nothing."""
    return None if rules == "[]" and default == ALLOW else _of(rules, default)


def _tried_path(text: str) -> str:
    path = text.strip().partition("?")[0]
    if not path.startswith("/"):
        raise ValueError("must start with /, such as /tasks/17")
    return path


def unreached(rules: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The rules that never decide, and for each the one before it that covers all of it; by place,
    from 0. As far as methods and paths tell by themselves."""
    found: dict[int, int] = {}
    for place, rule in enumerate(rules):
        for before, earlier in enumerate(rules[:place]):
            if _covers_methods(earlier["methods"], rule["methods"]) and _covers_path(
                _segments(earlier["path"]), _segments(rule["path"])
            ):
                found[place] = before
                break
    return found


def _covers_methods(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    covered = {*wide, "HEAD"} if "GET" in wide else {*wide}
    return not wide or (bool(narrow) and covered.issuperset(narrow))


def _covers_path(wide: list[str], narrow: list[str]) -> bool:
    if wide[-1:] == [REST]:
        head = wide[:-1]
        return len(narrow) >= len(head) and REST not in narrow[: len(head)] and all(
            one in (ANY, other) for one, other in zip(head, narrow, strict=False)
        )  # fmt: skip
    return len(wide) == len(narrow) and REST not in narrow and all(
        one in (ANY, other) for one, other in zip(wide, narrow, strict=True)
    )  # fmt: skip


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


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


@lru_cache(maxsize=1_000)
def _of(rules: str, default: str) -> Routes:
    return Routes(json.loads(rules), default)


@lru_cache(maxsize=10_000)
def _remembered_need(routes: Routes, method: str, path: str) -> Need:
    return routes._need(method, path)


def _patterns(path: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The pattern in this case and in any. No part of it is tried in two ways, so that the time
    that a match takes grows with the path and no faster."""
    segments = _segments(path)
    rest = bool(segments) and segments[-1] == REST
    text = "".join(f"/{_segment(one)}" for one in (segments[:-1] if rest else segments))
    text += "(?:/.*)?" if rest else "/?"
    return re.compile(text, re.DOTALL), re.compile(text, re.DOTALL | re.IGNORECASE)


def _segment(text: str) -> str:
    if text == ANY:
        return "[^/]+"
    return "[^/]*".join(re.escape(part) for part in text.split(ANY))


def readings(path: str) -> list[str]:
    """The ways in which a service may read a raw path; none where one of them has a segment of dots
    or a control character in it, or where they are many."""
    if len(path) > READ_MAX_LENGTH:
        return []
    if PLAIN.fullmatch(path):
        return [path]
    found = {path: None}
    yet = [path]
    while yet:
        text = yet.pop()
        for step in STEPS:
            other = step(text)
            if other not in found:
                found[other] = None
                yet.append(other)
        if len(found) > READINGS_MAX or DOTS_OR_CONTROL.search(text):
            return []
    return list(dict.fromkeys(_but_for(TELLING, text) for text in found))


def _but_for(escapes: re.Pattern[str] | None, path: str) -> str:
    """Decoded once, but for these escapes."""
    return unquote(escapes.sub("%25", path) if escapes else path, errors="surrogateescape")


def _without_last_parameters(path: str) -> str:
    before, _, last = path.rpartition("/")
    return f"{before}/{last.partition(';')[0]}"


# What services do with a path, in whatever order.
STEPS = (
    partial(_but_for, None),
    partial(_but_for, SLASHES),
    partial(re.compile(r"\\").sub, "/"),
    partial(re.compile("/{2,}").sub, "/"),
    partial(AUTHORITY.sub, "/"),
    partial(re.compile(";[^/]*").sub, ""),
    partial(re.compile("[?#].*", re.DOTALL).sub, ""),  # split once more, when it is decoded
    _without_last_parameters,
    partial(unicodedata.normalize, "NFC"),
)
