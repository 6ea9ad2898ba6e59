"""The audit log: of one key, as a dialog and a page, and of a project; its requests; as files."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, Response, render_template, request

from console import advice, audit, country, key_list, keys, projects
from console.errors import Invalid, Refused, Unknown
from console.models import Entry, Key, Project
from console.paging import FORWARD, Page, cursor_of
from console.permissions import KEYS_WRITE
from console.web import actor, enter, in_dialog, is_htmx, logs
from console.web.keys import key_here
from console.web.logs import Asked, Place

blueprint = Blueprint("audit", __name__, url_prefix="/projects/<slug>")

ROWS = 25
NAMES_OFFERED = 100
NEWEST_HEADER = "Latchkey-Newest"  # the id beyond which the page asks next
COLUMNS = tuple(audit.EntryObject.__annotations__)
OF_KEY = tuple(audit.EntryFilters.model_fields)
OF_PROJECT = tuple(audit.ProjectEntryFilters.model_fields)


@dataclass(frozen=True)
class Log:
    """The log of a key or of a project: where it is shown, and how it is read."""

    place: Place
    names: tuple[str, ...]  # of its filters
    page: Callable[..., Page[Entry]]
    newer: Callable[..., tuple[list[Entry], int]]
    everything: Callable[..., Iterator[Entry]]
    key: Key | None = None

    def answer(self, whole: str, **context: Any) -> Response:
        after = request.args.get("after", type=int)
        if is_htmx() and after is not None:
            return _newer(self, after)
        return _show(self, whole, **context)


def _of_key(slug: str, key_id: str) -> Log:
    key = key_here(slug, key_id)
    return Log(
        Place("audit.show_key_log", {"slug": slug, "key_id": key_id}),
        OF_KEY,
        partial(audit.page_of_key, key_id),
        partial(audit.newer_of_key, key_id),
        partial(audit.all_of_key, key_id),
        key,
    )


def _of_project(project: Project) -> Log:
    return Log(
        Place("audit.show_project_log", {"slug": project.slug}),
        OF_PROJECT,
        partial(audit.page_of_project, project.id),
        partial(audit.newer_of_project, project.id),
        partial(audit.all_of_project, project.id),
    )


@blueprint.get("/keys/<key_id>/audit-log")
def show_key_log(slug: str, key_id: str) -> Response:
    return _of_key(slug, key_id).answer("audit/key.html")


@blueprint.get("/audit-log")
def show_project_log(slug: str) -> Response:
    return _of_project(enter(slug)).answer("audit/project.html")


def _show(log: Log, whole: str, **context: Any) -> Response:
    asked = Asked.of(log.names)
    cursor = request.args.get("cursor") or None
    page: Page[Entry] = Page([], None, None)
    refused: Refused | None = None
    try:
        page = log.page(by=actor(), filters=asked.filters, cursor=cursor, limit=ROWS)
    except (Invalid, Unknown) as error:
        refused = logs.refusal(error)
    is_newest = page.previous_cursor is None and "until" not in asked.filters and not refused
    return logs.show(
        whole, "audit/_entries.html", "entries", log.place, asked, refused,
        page=page,
        newest=(page.rows[0].id if page.rows else 0) if is_newest else None,
        codes=audit.CODES_LOGGED,
        key=log.key,
        offered=_offered(log),
        **_of_rows(log, asked, page.rows, cursor),
        **context,
    )  # fmt: skip


def _of_rows(log: Log, asked: Asked, rows: list[Entry], cursor: str | None) -> dict[str, Any]:
    """What a row needs besides itself: names, and the way back from its page to this one."""
    back = {"log": "key" if log.key else "project", **asked.typed}
    back |= {"cursor": cursor} if cursor else {}
    back |= {} if logs.is_own_page() and not in_dialog() else {"in": "dialog"}
    context: dict[str, Any] = {"back": back, "cursor_behind": partial(cursor_of, FORWARD)}
    if log.key is None:
        context["names"] = key_list.names_of({entry.key_id for entry in rows})
    return context


def _offered(log: Log) -> list[str]:
    """The names of the keys that were used last, for whoever begins to type one."""
    if log.key is not None or is_htmx():
        return []
    slug = log.place.args["slug"]
    page = key_list.page(by=actor(), project=slug, sort="-last_used_at", limit=NAMES_OFFERED)
    return list(dict.fromkeys(key.name for key in page.rows))


def _newer(log: Log, after: int) -> Response:
    """Rows that came after that id, or 204; and in either case from which id on to ask next."""
    asked = Asked.of(log.names)
    rows, newest = log.newer(after, by=actor(), filters=asked.filters)
    headers = {NEWEST_HEADER: str(newest)}
    if not rows:
        return Response("", 204, headers)
    page = render_template(
        "audit/_newer.html", entries=rows, key=log.key, **_of_rows(log, asked, rows, None)
    )
    return Response(page, headers=headers)


# --- files ------------------------------------------------------------------------------------


@blueprint.get("/keys/<key_id>/audit-log.<form>")
def export_key_log(slug: str, key_id: str, form: str) -> Response:
    log = _of_key(slug, key_id)
    assert log.key is not None
    name = log.key.name
    plain = projects.slug_from(name) if re.search("[A-Za-z0-9]", name) else key_id
    return _export(log, form, f"audit-log-{plain}")


@blueprint.get("/audit-log.<form>")
def export_project_log(slug: str, form: str) -> Response:
    return _export(_of_project(enter(slug)), form, f"audit-log-{slug}")


def _export(log: Log, form: str, name: str) -> Response:
    filters = Asked.of(log.names).filters
    rows = log.everything(by=actor(), filters=filters, cursor=None, most=None)
    return logs.download(map(audit.as_dict, rows), COLUMNS, form, name)


# --- one request ------------------------------------------------------------------------------


@blueprint.get("/audit-log/<int:entry_id>")
def show_entry(slug: str, entry_id: int) -> str:
    """One request: all that is known of it, why it was answered so, and what to do."""
    project = enter(slug)
    entry = audit.entry_to_read(entry_id, project.id, by=actor())
    key = _key_of(entry)
    found = advice.on(entry, key)
    may_write = key is not None and actor().may(KEYS_WRITE, project.id)
    return render_template(
        "audit/entry.html",
        entry=entry,
        key=key,
        advice=found,
        operation=found.operation if found and may_write else None,
        back=_way_back(slug, entry),
        shows_back=not in_dialog() or request.args.get("in") == "dialog",
    )


def _key_of(entry: Entry) -> Key | None:
    try:
        return keys.key_to_read(entry.key_id, by=actor())
    except Unknown:
        return None


def _way_back(slug: str, entry: Entry) -> str:
    """The log from which one came, as it was."""
    given = {name: request.args[name] for name in ("cursor",) if request.args.get(name)}
    if request.args.get("log") == "key":
        place = Place("audit.show_key_log", {"slug": slug, "key_id": entry.key_id})
        return place.url(Asked.of(OF_KEY).typed, **given)
    return Place("audit.show_project_log", {"slug": slug}).url(Asked.of(OF_PROJECT).typed, **given)


# --- without a known key ----------------------------------------------------------------------


@blueprint.get("/audit-log/without-key")
def show_attempts(slug: str) -> str:
    """Checks that met no known key, for owners: they belong to no project."""
    enter(slug)
    found = audit.attempts(by=actor())
    # Several addresses, or none, lie in no country.
    places = {one.ip for one in found} - {audit.OTHER_ADDRESSES, audit.NO_ADDRESS}
    countries = {ip: country.of(ip) for ip in places}
    return render_template("audit/attempts.html", attempts=found, countries=countries)
