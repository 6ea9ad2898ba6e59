"""What the pages of both logs share: filters as an address says them, times, files to download."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from flask import Response, current_app, render_template, request, url_for
from werkzeug.exceptions import NotFound

from console import clock, exports
from console.errors import Invalid, Refused, Unknown
from console.web import is_htmx, words

# What an address says of time: the last so long, or between two instants.
LAST, RANGE = "last", "range"
LASTS = {"1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days"}
TIMES = ("since", "until")
PLAIN = "/:*"  # what an address may say as it is
# As a field of a browser says an instant, and whoever types one: the rest is midnight, in UTC.
TYPED = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.\d+)?)?)?", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """The filters of an address: as they were typed, and as the domain takes them."""

    typed: Mapping[str, str]
    filters: Mapping[str, str]

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Those of this request that are given. `names` are the domain's."""
        typed = {name: _given(name) for name in (*names, LAST) if _given(name)}
        if typed.get(LAST) in LASTS:
            typed = {name: text for name, text in typed.items() if name not in TIMES}
            since = clock.now() - (clock.after(0, typed[LAST]))
            given = {"since": clock.iso(since)}
        else:
            typed.pop(LAST, None)
            given = {name: _instant(typed[name]) for name in TIMES if name in typed}
        plain = {name: text for name, text in typed.items() if name not in (*TIMES, LAST)}
        return cls(typed, {**plain, **given})

    @property
    def is_live(self) -> bool:
        return bool(request.args.get("live")) and not request.args.get("cursor")


@dataclass(frozen=True)
class Place:
    """A page of a log: its endpoint, and what its address needs."""

    endpoint: str
    args: Mapping[str, Any]

    def url(self, typed: Mapping[str, str], **more: Any) -> str:
        """Not by `url_for` alone, to which the filter `endpoint` means something else."""
        query = urlencode({**typed, **more}, safe=PLAIN)
        return url_for(self.endpoint, **self.args) + (f"?{query}" if query else "")

    def file(self, typed: Mapping[str, str], form: str) -> str:
        """The address of the same as a file."""
        path, _, query = self.url(typed).partition("?")
        return f"{path}.{form}" + (f"?{query}" if query else "")

    def chips(self, typed: Mapping[str, str]) -> list[tuple[str, str]]:
        """Each filter in words, and the address without it."""
        return [
            (
                words.filter_words(name, _instant(text) if name in TIMES else text),
                self.url(_without(typed, name)),
            )
            for name, text in typed.items()
        ]


def show(
    whole: str, part: str, target: str, place: Place, asked: Asked, refused: Refused | None,
    **context: Any,
) -> Response:  # fmt: skip
    """The page, or only its list where that is asked for; with its form, too, when a filter is at
    fault. Afterwards the address says what is shown."""
    errors = refused.fields if refused else {}
    wants_part = is_htmx() and request.headers.get("HX-Target") == target
    again = part if wants_part and not errors else f"{whole.partition('/')[0]}/_log.html"
    page = render_template(
        again if wants_part or request.headers.get("HX-Target") == "log" else whole,
        place=place,
        asked=asked,
        typed=asked.typed,
        form=_form(asked.typed),
        errors=errors,
        chips=[] if errors else place.chips(asked.typed),
        lasts=LASTS,
        base_url=current_app.config["LATCHKEY"].base_url,
        **context,
    )
    response = Response(page, 422 if errors else 200)
    if wants_part and errors:
        response.headers.update({"HX-Retarget": "#log", "HX-Reswap": "outerHTML"})
    if is_htmx() and is_own_page():
        kept = {name: request.args[name] for name in ("cursor", "live") if request.args.get(name)}
        how = "HX-Push-Url" if "cursor" in kept else "HX-Replace-Url"
        response.headers[how] = place.url(asked.typed, **kept)
    return response


def refusal(error: Invalid | Unknown) -> Refused:
    """The refusal of a filter, to be told beside its field; raises any other again."""
    if not error.fields:
        raise error
    return error


def is_own_page() -> bool:
    """Whether the log is the page, and not in a dialog over another one."""
    return urlsplit(request.headers.get("HX-Current-URL", request.url)).path == request.path


def download(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], form: str, name: str
) -> Response:
    """The rows as a file, sent as they are read; `form` is csv or jsonl."""
    if form not in (exports.CSV, exports.JSONL):
        raise NotFound
    pieces, kind = exports.as_file(form, rows, columns)
    day = clock.to_datetime(clock.now()).strftime("%Y-%m-%d")
    disposition = f'attachment; filename="{name}-{day}.{form}"'
    return Response(pieces, content_type=kind, headers={"Content-Disposition": disposition})


def _given(name: str) -> str:
    return request.args.get(name, "").strip()


def _without(typed: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: text for other, text in typed.items() if other != name}


def _instant(text: str) -> str:
    """A typed time as the domain takes it; one that is none, as it is."""
    found = TYPED.fullmatch(text)
    return f"{found[1]}T{found[2] or '00:00'}:{found[3] or '00'}Z" if found else text


def _form(typed: Mapping[str, str]) -> dict[str, str]:
    """What the fields hold: times as a browser's field takes them, or as they were typed."""
    form = dict(typed)
    for name in TIMES:
        if name in form:
            form[LAST] = RANGE
            try:
                moment = clock.to_datetime(clock.parse(_instant(form[name])))
                form[name] = moment.strftime("%Y-%m-%dT%H:%M:%S")
            except ValueError:
                continue
    return form
