"""The key table: its filters, orders and pages, and what is done to several keys at once."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from flask import Response, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import clock, key_choice, key_list, key_many, key_rules, keys
from console.errors import Conflict, Forbidden, Invalid, NotFresh
from console.key_fields import KeyObject
from console.key_list import ALWAYS, ME, KeyQuery
from console.models import ENVIRONMENTS, STATUSES, Key, Project
from console.paging import LIMIT_DEFAULT, Page
from console.permissions import KEYS_WRITE
from console.web import actor, done, enter, is_htmx
from console.web.keys import Answer, blueprint, key_here
from console.web.logs import download
from console.web.words import length_words

FILTERS = ("q", "status", "environment", "owner", "permission", "expiring", "unused")
FIELDS = (*FILTERS, "sort", "limit", "cursor")
DEFAULTS = {"sort": key_list.NEWEST_FIRST, "limit": str(LIMIT_DEFAULT)}
SIZES = ("25", "50", "100", "200")
ORDERS = (
    (key_list.NEWEST_FIRST, "Newest first"), ("created_at", "Oldest first"), ("name", "By name"),
    ("-name", "By name, backwards"), ("expires_at", "Soonest to expire first"),
    ("-expires_at", "Latest to expire first"), ("-last_used_at", "Last used first"),
    ("last_used_at", "Longest unused first"),
)  # fmt: skip
EXPIRING = ("7d", "30d", "90d")
UNUSED = (ALWAYS, "30d", "90d")
ON_DATE = "date"
EXTENSIONS = ("1w", "1mo", "3mo", "1y")
EXTENSION_DEFAULT = "3mo"
COLUMNS = ("id", *(name for name in KeyObject.__annotations__ if name != "id"))


@blueprint.get("/keys")
def list_keys(slug: str) -> Answer:
    """The key table; only the table itself when the page asks for it again."""
    project = enter(slug)
    given = _given()
    errors: dict[str, str] = {}
    try:
        asked = KeyQuery.read(given).model_dump(exclude_unset=True)
        page = key_list.page(by=actor(), project=slug, **asked)
    except Invalid as error:
        page, errors = Page([], None, None), error.fields
    table = _table(project, page, given, errors)
    status = 422 if errors else 200
    if is_htmx() and request.headers.get("HX-Target") == "keys":
        part = Response(render_template("keys/_table.html", **table), status)
        part.headers.update(_new_address(table))
        return part
    return render_template("keys/list.html", **table, **_choices(project)), status


def _new_address(table: dict[str, Any]) -> dict[str, str]:
    """What the browser shows as the page's address, where the filters or the page are others."""
    if request.headers.get("HX-Trigger") == "filters":  # without what the form leaves empty
        return {"HX-Replace-Url": table["here"]}
    return {"HX-Push-Url": table["here"]} if table["is_turned"] else {}


def _given() -> dict[str, str]:
    """What the query says; what is empty says nothing."""
    given = {name: request.args[name].strip() for name in FIELDS if name in request.args}
    return {name: text for name, text in given.items() if text}


def _table(
    project: Project, page: Page[Key], given: dict[str, str], errors: dict[str, str]
) -> dict[str, Any]:
    filters = {name: given[name] for name in FILTERS if name in given}
    without = [(words, _address(project, _less(given, name))) for name, words in _said(filters)]
    by = actor()
    return {
        "page": page,
        "errors": errors,
        "graces": key_list.graces_of(page.rows),
        "given": given,
        "here": _address(project, given),
        "is_turned": "cursor" in given and request.headers.get("HX-Trigger") != "keys",
        "filters": without,
        "all_keys": _address(project, _less(given, *FILTERS)),
        "sort": given.get("sort", key_list.NEWEST_FIRST),
        "orders": ORDERS,
        "by_order": {sort: _address(project, {**_less(given), "sort": sort}) for sort, _ in ORDERS},
        "size": given.get("limit", DEFAULTS["limit"]),
        "sizes": SIZES,
        "may_write": by.may(KEYS_WRITE, project.id),
        "sees_only_own": by.sees_only_own(project.id),
    }


def _choices(project: Project) -> dict[str, Any]:
    """What the filters offer."""
    return {
        "statuses": STATUSES,
        "environments": ENVIRONMENTS,
        "owners": [(one, one) for one in key_list.owners(project, by=actor())],
        "permissions": key_list.permissions_in_use(project, by=actor()),
        "expiring": [(length, f"Within {length_words(length)}") for length in EXPIRING],
        "unused": [(length, _said_unused(length).capitalize()) for length in UNUSED],
    }


def _less(given: dict[str, str], *names: str) -> dict[str, str]:
    """The rest of the query, from the first page on."""
    return {name: text for name, text in given.items() if name not in (*names, "cursor")}


def _address(project: Project, given: dict[str, str]) -> str:
    """Where the table says this, without what it says anyway."""
    table = url_for("keys.list_keys", slug=project.slug)
    given = {name: text for name, text in given.items() if text != DEFAULTS.get(name)}
    return f"{table}?{urlencode(given)}" if given else table


def _said(filters: dict[str, str]) -> list[tuple[str, str]]:
    """The filters' names and, as one sentence, what they say."""
    said = {
        "q": lambda text: f"“{text}”",
        "owner": lambda text: "mine" if text == ME else f"owned by {text}",
        "permission": lambda text: f"may {text}",
        "expiring": lambda text: f"expiring within {length_words(text)}",
        "unused": _said_unused,
    }
    parts = [(name, said.get(name, str)(text)) for name, text in filters.items()]
    return [(name, words if at else words[:1].upper() + words[1:])
            for at, (name, words) in enumerate(parts)]  # fmt: skip


def _said_unused(length: str) -> str:
    return "never used" if length == ALWAYS else f"not used for {length_words(length)}"


@blueprint.post("/keys/actions")
def show_actions(slug: str) -> Answer:
    """What can be done with the key whose ⋯ was pressed where no script opens its menu."""
    key = key_here(slug, request.form.get("of", ""))
    may_write = actor().may(KEYS_WRITE, key.project_id)
    return render_template("keys/actions.html", key=key, may_write=may_write)


# --- several at once ----------------------------------------------------------------------------


@blueprint.post("/keys/revoke")
def revoke_many(slug: str) -> Answer:
    """What it would do; once that is confirmed, it is done."""
    enter(slug)
    told = key_choice.revocation(_chosen(), slug, by=actor())
    if "confirmed" not in request.form:
        return render_template("keys/revoke_many.html", told=told)
    return _done("revoked", key_many.revoke(_chosen(), by=actor()), slug)


@blueprint.post("/keys/extend")
def extend_many(slug: str) -> Answer:
    """What it would do, told again with each choice; once that is confirmed, it is done."""
    lengths = list(key_rules.lengths(EXTENSIONS, enter(slug), clock.now()))
    preset = EXTENSION_DEFAULT if EXTENSION_DEFAULT in lengths else lengths[-1]
    form = {"expiration": preset, **request.form.to_dict()}
    told = key_choice.prolongation(_chosen(), slug, {}, by=actor())
    errors, status, must_confirm = {}, 200, False
    try:
        fields = _extension(form)
        if "confirmed" in form:
            return _done("extended", key_many.extend(_chosen(), fields, by=actor()), slug)
        told = key_choice.prolongation(_chosen(), slug, fields, by=actor())
    except NotFresh as error:
        told = key_choice.prolongation(_chosen(), slug, fields, by=actor())
        must_confirm, status = True, error.status
    except (Invalid, Conflict, Forbidden) as error:
        field = "expires_on" if form["expiration"] == ON_DATE else "expiration"
        errors = {field: next(iter(error.fields.values()), error.message)}
        status = 422 if isinstance(error, Invalid) else error.status
    part = is_htmx() and request.headers.get("HX-Target") == "told"
    template = "keys/_extension.html" if part else "keys/extend_many.html"
    choices = [(one, length_words(one).title()) for one in lengths] + [(ON_DATE, "On a date")]
    shown = {"form": form, "errors": errors, "must_confirm": must_confirm, "extensions": choices}
    return render_template(template, told=told, **shown), status


def _extension(form: dict[str, str]) -> dict[str, str]:
    """Until when, in the API's terms; nothing while the date is not typed yet."""
    if form["expiration"] != ON_DATE:
        return {"expires_in": form["expiration"]}
    if form.get("expires_on"):
        return {"expires_at": f"{form['expires_on']}T23:59:59Z"}
    if "confirmed" in form:
        raise Invalid({"expires_on": "choose a date"})
    return {}


@blueprint.route("/keys/export", methods=["GET", "POST"])
def export_many(slug: str) -> Answer:
    """What would be in the file; where a format is asked for, the file. Of the keys chosen, or of
    all that the filters find."""
    enter(slug)
    by, wanted = actor(), request.values.get("format")
    if request.method == "POST":
        chosen = key_choice.chosen(_chosen(), slug, by=by)
        if wanted:
            return _file(chosen, wanted, slug)
        return render_template("keys/export_many.html", number=len(chosen), keys=chosen)
    filters = {name: text for name, text in _given().items() if name in FILTERS}
    if wanted:
        return _file(key_list.every(by=by, project=slug, **filters), wanted, slug)
    number = key_list.count(by=by, project=slug, **filters)
    words = [words for _, words in _said(filters)]
    return render_template("keys/export_many.html", number=number, filters=filters, words=words)


def _file(rows: Iterable[Key], wanted: str, slug: str) -> BaseResponse:
    return download(map(keys.as_dict, rows), COLUMNS, wanted, f"keys-{slug}")


def _chosen() -> list[str]:
    return request.form.getlist("key")


def _done(did: str, changed: list[Key], slug: str) -> Answer:
    number = len(changed)
    notice = f"{number} {'key' if number == 1 else 'keys'} {did}" if number else "Nothing to change"
    return done(notice, url_for("keys.list_keys", slug=slug))
