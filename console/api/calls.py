"""What each call of the API takes, gives and may refuse: said once, beside its function, and read
by the router, by the reader of the query, and by the description of the API (document.py)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Blueprint
from werkzeug.routing import BaseConverter

from console.fields import Fields

PARAMETER = re.compile(r"<(\w+)>")
View = TypeVar("View", bound=Callable[..., Any])

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

# The headings, in the order in which a newcomer needs them.
SUBJECTS = (
    "Keys", "Services", "Your own key", "Audit log", "Usage", "Alerts", "Projects", "People",
    "Webhooks", "Access", "This description",
)  # fmt: skip
# Besides JSON, what a log can be had as.
EXPORTS = ("text/csv", "application/jsonl")
# Who may call, where it is no permission: anybody, whoever presents a key, or any credential.
ANYBODY, HOLDER, CALLER, LEADER, OWNER = "anybody", "holder", "caller", "leader", "owner"


class Id(BaseConverter):
    """An id in a path; `import` is none, so that /api-keys/import is no key."""

    regex = r"(?!import(?![^/]))[^/]+"


@dataclass(frozen=True)
class ListOf:
    """An answer that is a page of such objects."""

    item: Any


@dataclass(frozen=True)
class Call:
    """One call: `needs` is a permission, or ANYBODY, HOLDER, CALLER, LEADER or OWNER."""

    method: str
    path: str  # below /api/v1, parameters as <name>
    name: str  # of its function: create_key
    about: str  # what it does: the function's docstring
    needs: str
    takes: Any = None  # the type of its body
    query: type[Fields] | None = None
    gives: Any = None  # the type of its answer; None for no body
    status: int = 200
    refuses: Mapping[int, str] = field(default_factory=dict)  # beyond what every call refuses
    formats: tuple[str, ...] = ()  # other media types of the same answer
    idempotent: bool = False  # whether it takes an Idempotency-Key
    costs: int = 1  # what it takes of the key's limits
    subject: str = SUBJECTS[0]  # under which heading it stands
    example: Any = None  # a body that can be sent as it is

    @property
    def path_template(self) -> str:
        """Its whole path, parameters as {name} (RFC 6570)."""
        return PARAMETER.sub(r"{\1}", f"{blueprint.url_prefix}{self.path}")

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in its path."""
        return PARAMETER.findall(self.path)


CALLS: dict[str, Call] = {}


def call(method: str, path: str, **about: Any) -> Callable[[View], View]:
    """Declares a call and routes it to the function, whose docstring says what it does."""

    def register(view: View) -> View:
        describe(method, path, name=view.__name__, about=view.__doc__ or "", **about)
        rule = path.replace("<key_id>", "<id:key_id>")
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
        return view

    return register


def describe(method: str, path: str, *, name: str, **about: Any) -> None:
    """Declares a call that something else answers."""
    assert name not in CALLS and about.get("subject", SUBJECTS[0]) in SUBJECTS, name
    CALLS[name] = Call(method, path, name, **about)


def present(endpoint: str | None) -> Call | None:
    """The call at Flask's endpoint; None where there is nothing."""
    return CALLS.get((endpoint or "").removeprefix(f"{blueprint.name}."))
