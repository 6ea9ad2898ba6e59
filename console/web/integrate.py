"""How services ask Latchkey: what to paste into a proxy or into code, and a tester.

A test is explained by check.py and leaves no trace. A secret that is pasted is read from the body
of one POST and goes nowhere else: into no address, no page, no log.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import (
    Blueprint,
    Response,
    current_app,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as BaseResponse

from console import check, clock, key_list, permissions, proxy_calls, route_rules, wire
from console.check import Step, Verdict
from console.errors import Invalid, Unknown
from console.gate import VERIFY, Question
from console.known import Known
from console.models import ENVIRONMENTS, Key, Project
from console.permissions import AUDIT_READ, KEYS_READ, KEYS_WRITE
from console.web import actor, client_ip, enter, inputs, is_htmx, proxy_advice, proxy_files
from console.web.keys import key_here
from console.web.proxy_files import (
    LATCHKEY,
    PERMISSION,
    PROXIES,
    Filling,
    address,
    read_shipped,
)

Answer = str | BaseResponse

blueprint = Blueprint("integrate", __name__, url_prefix="/projects/<slug>/integrate")

WAYS = {
    **{name: proxy.title for name, proxy in PROXIES.items()},
    "others": "Other proxies", "python": "Python", "node": "Node.js", "curl": "curl",
}  # fmt: skip
EXAMPLE = {"permissions": ["tasks:read"], "method": "GET", "path": "/tasks", "ip": "203.0.113.7"}
OFFERED = 50  # keys in the picker at once
# Stands where a real check has an id of its own: this one is in no log.
REQUEST_ID = "req_…"
KEY, SECRET = "key", "secret"

STEPS = {
    "present": "Key",
    "well_formed": "Shape",
    "known": "Known here",
    "not_superseded": "Secret",
    "not_revoked": "Revocation",
    "not_expired": "Expiry",
    "project": "Project",
    "environment": "Environment",
    "ip_allowlist": "IP allowlist",
    "permissions": "Permissions",
    "rate_limit": "Rate limit",
    "quota": "Monthly quota",
}


# --- what ships with the repository -----------------------------------------------------------

FENCED = r"^## {}\n+(?:(?!```)[^\n]*\n)*?```\w*\n(.*?)^```"
SHIPPED = {
    name: read_shipped("clients", name)
    for name in ("latchkey.py", "latchkey_client.py", "latchkey.mjs")
}
_clients = read_shipped("clients", "README.md")
_others = read_shipped("proxies", "others.md")


def _example(document: str, title: str) -> str:
    """The first block of code under a heading of a document."""
    found = re.search(FENCED.format(re.escape(title)), document, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


EXAMPLES = {
    "python": (
        ("Flask", _example(_clients, "Flask")),
        ("FastAPI", _example(_clients, "FastAPI and Starlette")),
    ),
    "node": (("Express", _example(_clients, "Express")),),
}
OTHERS = {
    "APISIX": _example(_others, "APISIX"),
    "ingress-nginx": _example(_others, "Kubernetes: ingress-nginx"),
}


# --- pages --------------------------------------------------------------------------------------


@blueprint.get("")
def show_integrate(slug: str) -> str:
    """The page; the ways to connect a service alone, when another is chosen there, and what they
    are alone, when something is filled in: who types goes on in the field."""
    project = enter(slug)
    part = PARTS.get(request.headers.get("HX-Target", "")) if is_htmx() else None
    form = {"with": KEY, "key": request.args.get("key", ""), "method": "GET"}
    return render_template(
        part or "integrate/show.html",
        **{
            **_ways(project),
            **({"is_again": part == PARTS["filled"]} if part else _whole(project, form)),
        },
    )


PARTS = {"ways": "integrate/_ways.html", "filled": "integrate/_filled.html"}


def _whole(project: Project, form: dict[str, str]) -> dict[str, Any]:
    return {**_tester(project, form), **_calls(project)}


@blueprint.get("/files/<name>")
def download_file(slug: str, name: str) -> Response:
    """A file, filled in. Raises Unknown; Invalid where a field of the form is at fault."""
    project = enter(slug)
    filling, faults = _filling(project)
    if faults:
        raise Invalid(faults)
    text = _files(project, filling).get(name)
    if not text:
        raise Unknown("There is no such file.")
    saved_as = {proxy.file: proxy.saved_as for proxy in PROXIES.values()}.get(name) or name
    answer = Response(text, mimetype="text/plain")
    answer.headers["Content-Disposition"] = f'attachment; filename="{saved_as}"'
    return answer


@blueprint.get("/calls")
def show_calls(slug: str) -> Answer:
    """The last calls of proxies; nothing, where the page has them already. Without scripts the page
    itself, anew."""
    project = enter(slug)
    if not is_htmx():
        way = request.args.get("way")
        here = url_for("integrate.show_integrate", slug=slug, way=way, _anchor="calls")
        return redirect(here, 303)
    found = _calls(project)
    if request.args.get("seen", "") == found["seen"]:
        return Response(status=204)
    return render_template("integrate/_calls.html", **found)


def _calls(project: Project) -> dict[str, Any]:
    if not actor().may(AUDIT_READ, project.id):
        return {"calls": None, "seen": "", "ways": WAYS, "is_owner": False}
    calls = proxy_calls.latest(project, by=actor())
    trusted = current_app.config["LATCHKEY"].trusted_proxies
    return {
        "calls": [(one, proxy_advice.findings(one, project, trusted)) for one in calls],
        "seen": calls[0].request_id if calls else "none",
        "ways": WAYS,
        "is_owner": actor().is_owner,
    }


@blueprint.get("/keys")
def offer_keys(slug: str) -> str:
    """What the picker offers: as one types, and when a key was changed."""
    project = enter(slug)
    q, picked = request.args.get("q", ""), request.args.get("key", "")
    found, _ = _offered(project, q, picked)
    return render_template("integrate/_options.html", offered=found, picked=picked, q=q)


@blueprint.post("")
def test_key(slug: str) -> tuple[str, int]:
    """What a check would answer; the result alone where scripts run, and the fields at fault."""
    project = enter(slug)
    actor().require(KEYS_READ, project.id)
    errors: dict[str, str] = {}
    result = None
    try:
        result = _result(project)
    except Invalid as error:
        errors = error.fields
    form = {name: request.form.get(name, "") for name in FIELDS}
    fragment = is_htmx() and request.headers.get("HX-Target") == "result"
    page = render_template(
        "integrate/_answer.html" if fragment else "integrate/show.html",
        **{
            **({} if fragment else {**_ways(project), **_calls(project)}),
            **_tester(project, form, result, errors),
        },
    )
    return page, 422 if errors else 200


FIELDS = ("with", "key", "method", "path", "permissions", "ip", "environment")


def _ways(project: Project) -> dict[str, Any]:
    way = request.args.get("way", "nginx")
    way = way if way in WAYS else "nginx"
    filling, faults = _filling(project)
    options = filling.options(project)
    at = address(current_app.config["LATCHKEY"])
    return {
        "way": way,
        "ways": WAYS,
        "proxy": PROXIES.get(way),
        "load": proxy_files.load(way) if way in PROXIES else "",
        "fill_fields": FILLED_IN[:-1] if way in PROXIES else FILLED_IN[1:-1],
        "environments": ENVIRONMENTS,
        "filling": filling,
        "fill": _as_typed(filling),
        "fill_errors": faults,
        "kept": {name: value for name, value in request.args.items() if name in FILLED_IN},
        "files": _files(project, filling),
        "examples": EXAMPLES,
        "others": {
            name: text.replace(LATCHKEY, at).replace(f"permission={PERMISSION}", options)
            for name, text in OTHERS.items()
        },
        "verify_line": verify_line({"project": project.slug, **EXAMPLE}),
        "has_rules": route_rules.ask_anything(project.route_rules, project.route_default),
        **_shared(project),
    }


FILLED_IN = ("service", "permissions", "header", "environment", "preflight")


def _filling(project: Project) -> tuple[Filling, dict[str, str]]:
    """What the page's address says of the configuration; with what is wrong left out."""
    typed = {name: request.args.get(name, "").strip() for name in FILLED_IN}
    fields: dict[str, Any] = {name: text for name, text in typed.items() if text}
    if "permissions" in request.args:
        fields["permissions"] = inputs.items(typed["permissions"])
    elif not project.route_rules:
        fields["permissions"] = [PERMISSION]
    fields["preflight"] = typed["preflight"] == "allow"
    try:
        return Filling.read(fields), {}
    except Invalid as error:
        faults = {name.partition(".")[0]: why for name, why in error.fields.items()}
        good = {name: value for name, value in fields.items() if name not in faults}
        return Filling.read(good), faults


def _as_typed(filling: Filling) -> dict[str, str]:
    """The form's fields: as they were typed, or as the configuration has them."""
    said = {
        "service": filling.service,
        "permissions": " ".join(filling.permissions),
        "header": filling.header or "",
        "environment": filling.environment or "",
        "preflight": "allow" if filling.preflight else "",
    }
    return {name: request.args.get(name, value) for name, value in said.items()}


def _shared(project: Project) -> dict[str, Any]:
    return {
        "may_write": actor().may(KEYS_WRITE, project.id),
        "base_url": current_app.config["LATCHKEY"].base_url,
    }


def _files(project: Project, filling: Filling) -> dict[str, str]:
    return {**SHIPPED, **proxy_files.files(filling, project, current_app.config["LATCHKEY"])}


def _tester(
    project: Project,
    form: dict[str, str],
    result: "Result | None" = None,
    errors: dict[str, str] | None = None,
) -> dict[str, Any]:
    q = request.args.get("q", "")
    found, has_more = _offered(project, q, form["key"])
    return {
        "q": q,
        "form": form,
        "errors": errors or {},
        "result": result,
        "offered": found,
        "has_more": has_more,
        "methods": inputs.METHODS,
        "environments": ENVIRONMENTS,
        "suggested": key_list.permissions_in_use(project, by=actor()),
        "my_ip": client_ip(),
        **_shared(project),
    }


def _offered(project: Project, q: str, picked: str) -> tuple[list[Key], bool]:
    """Keys to pick from by name, the newest where they are many, and that one which is picked
    already; and whether there are more."""
    page = key_list.page(by=actor(), project=project.slug, q=q[:100], limit=OFFERED)
    found = sorted(page.rows, key=lambda key: (key.name_sort, key.id))
    if picked and picked not in {key.id for key in found}:
        found = [key for key in [_key_or_none(project, picked)] if key] + found
    return found, page.next_cursor is not None or bool(q)


def _key_or_none(project: Project, key_id: str) -> Key | None:
    try:
        return key_here(project.slug, key_id)
    except Unknown:
        return None


# --- a test -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One rule: its name, whether it passed (None: it was not reached), why, and what to do."""

    name: str
    passed: bool | None
    why: str = ""
    advice: "Advice | None" = None


@dataclass(frozen=True)
class Advice:
    """What to do about a failed rule, and the page where it is done."""

    words: str
    endpoint: str = ""
    key_id: str = ""


@dataclass(frozen=True)
class Result:
    """A test as the page shows it."""

    verdict: Verdict
    findings: list[Finding]
    status: str  # 403 Forbidden
    headers: list[tuple[str, str]]
    body: str
    call: str  # the same question to the API, for sh


def _result(project: Project) -> Result:
    """Explains what the form asks. Raises Invalid."""
    asked = _asked(project)
    if request.form.get("with") == SECRET:
        verdict, steps = check.explain_to(asked, by=actor())
    else:
        verdict, steps = _explained_by_name(project, asked)
    findings = _findings(asked, verdict, steps)
    return Result(verdict, findings, *_as_answered(verdict), _as_call(asked))


def _asked(project: Project) -> check.Request:
    """The form as a question of POST /verify: its rules are the same. Raises Invalid."""
    form = request.form
    question: dict[str, Any] = {
        "key": form.get("secret", "").strip() if form.get("with") == SECRET else "",
        "project": project.slug,
        "permissions": inputs.items(form.get("permissions", "")),
        "method": form.get("method", ""),
        "path": form.get("path", "").strip(),
    }
    for name in ("environment", "ip"):
        if form.get(name, "").strip():
            question[name] = form[name].strip()
    asked = Question.read(question).request(REQUEST_ID, frozenset({project.id}))
    asked.by_rules = not asked.permissions  # as for a proxy whose address names none
    return asked


def _explained_by_name(project: Project, asked: check.Request) -> tuple[Verdict, list[Step]]:
    key_id = request.form.get("key", "")
    if not key_id:
        raise Invalid({"key": "pick a key, or paste a secret"})
    try:
        key = key_here(project.slug, key_id)
        return check.explain_key(key.id, asked, by=actor())
    except Unknown:
        raise Invalid({"key": "is not here any more; pick another"}) from None


def _findings(asked: check.Request, verdict: Verdict, steps: list[Step]) -> list[Finding]:
    found = {step.check: step for step in steps}
    return [
        Finding(name, None)
        if (step := found.get(check_name)) is None
        else Finding(name, step.code is None, _why(step, verdict), _advice(step, asked, verdict))
        for check_name, name in STEPS.items()
    ]


def _why(step: Step, verdict: Verdict) -> str:
    """The rule's own sentence; of a secret in its grace period what it is, and until when."""
    key = verdict.key
    is_old = step.check == "not_superseded" and step.code is None and key is not None
    if is_old and key is not None and key.works_until is not None:
        return f"The old secret; it works until {_instant(key.works_until)}."
    return step.detail


def _as_answered(verdict: Verdict) -> tuple[str, list[tuple[str, str]], str]:
    """Status line, headers and body as a proxy sees them."""
    if verdict.is_valid:
        headers = wire.identity_headers(verdict) + wire.rate_headers(verdict.allowance, verdict.at)
        body = ""
    else:
        _, headers, content = wire.problem(wire.Denied(verdict), verdict.request_id)
        body = json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    return f"{verdict.status} {HTTPStatus(verdict.status).phrase}", headers, body


def _as_call(asked: check.Request) -> str:
    question = {
        "project": asked.project,
        "environment": asked.environment,
        "permissions": list(asked.permissions),
        "method": asked.method,
        "path": asked.endpoint,
        "ip": asked.ip,
        "dry_run": True,
    }
    return verify_line({name: value for name, value in question.items() if value})


def verify_line(question: Mapping[str, Any]) -> str:
    """The call of POST /verify for sh; what stands for the client's key is to be replaced."""
    body = json.dumps({"key": "the key that the client sent", **question}, indent=2)
    address = current_app.config["LATCHKEY"].base_url + VERIFY
    return " \\\n  ".join((
        f"curl {shlex.quote(address)}",
        '-H "Authorization: Bearer $LATCHKEY_KEY"',
        '-H "Content-Type: application/json"',
        f"-d {shlex.quote(body)}",
    ))  # fmt: skip


# --- what to do ---------------------------------------------------------------------------------


def _advice(step: Step, asked: check.Request, verdict: Verdict) -> Advice | None:
    """What mends a failed rule. Of a key that is not told about there is nothing to be said."""
    if step.code is None:
        return None
    words = OF_A_SECRET.get(step.code)
    if words:
        return Advice(words)
    return _of_a_key(step.code, verdict.key, asked, verdict) if verdict.key else None


OF_A_SECRET = {
    check.MISSING: "Paste a secret, or pick a key.",
    check.MALFORMED: "Copy the whole secret once more. The last characters are a checksum.",
    check.INVALID: "It was deleted, or was never here; or it is not yours to see.",
    check.PROJECT_MISMATCH: "Use a key of this project.",
}


def _of_a_key(code: str, key: Known, asked: check.Request, verdict: Verdict) -> Advice:
    edit = "keys.edit_key"
    if code == check.SUPERSEDED:
        return Advice("Use the newest secret; if nobody has it, rotate the key", "keys.rotate_key",
                      key.id)  # fmt: skip
    if code == check.REVOKED_KEY:
        return Advice("Enable the key", "keys.restore_key", key.id)
    if code == check.EXPIRED_KEY:
        return Advice("Give it a later end", edit, key.id)
    if code == check.ENVIRONMENT_MISMATCH:
        return Advice(f"Use a {asked.environment} key: that of a key is fixed.")
    if code == check.IP_NOT_ALLOWED and asked.ip is None:
        return Advice("Say the client's address: without one, no allowlist lets it in.")
    if code == check.IP_NOT_ALLOWED:
        return Advice(f"Add {asked.ip} to its allowlist", edit, key.id)
    if code == check.PERMISSION_DENIED:
        missing = permissions.missing(key.permissions, asked.permissions)
        return Advice(f"Add {' and '.join(missing)} to the key", edit, key.id)
    window = "rate limit" if code == check.RATE_LIMITED else "monthly quota"
    reset_at = max((one.reset_at for one in verdict.allowance.windows if not one.remaining),
                   default=verdict.at)  # fmt: skip
    return Advice(f"Wait until {_instant(reset_at)}, or raise its {window}", edit, key.id)


def _instant(instant: int) -> str:
    return clock.to_datetime(instant).strftime("%-d %b, %H:%M UTC")
