"""A project's settings: a form for each subject, a mistake in one loses nothing elsewhere."""

import json
import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

from flask import Blueprint, Response, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as BaseResponse

from console import (
    activity,
    alert_rules,
    alert_words,
    catalogue,
    limits,
    mail,
    plans,
    projects,
    route_rules,
)
from console.alert_rules import OF_PROJECT
from console.errors import Conflict, Invalid, Refused, Unknown
from console.models import ENVIRONMENTS, Project
from console.permissions import PROJECTS_MANAGE
from console.web import actor, done, enter, inputs, is_htmx, words
from console.web.project_list import FORMATS

blueprint = Blueprint("settings", __name__, url_prefix="/projects/<slug>/settings")

Answer = str | tuple[str, int] | BaseResponse
Form = MultiDict[str, str]
Rows = list[dict[str, str]]
Places = dict[str, str]  # the name of a row in the API -> in the form, where empty ones count

# The lists that are edited in rows, and what a row has.
COLUMNS = {
    "permission_catalogue": ("name", "description"),
    "permission_presets": ("name", "permissions"),
    "plans": ("name", "per_minute", "per_hour"),
    "route_rules": ("methods", "path", "permissions"),
}
# What each setting is called where the present ones are told.
LABELS = {
    "name": "Name", "prefix": "Prefix", "key_format": "Format", "shows_environment": "Environment",
    "permission_catalogue": "Permissions", "permission_presets": "Presets", "plans": "Plans",
    "key_limit": "Live keys at most", "default_expiry": "New keys live for",
    "maximum_lifetime": "Keys live at most", "environments": "New keys may be",
    "alert_email": "Address of the team", "alerts": "Alerts", "rotation_policy": "Rotation",
    "route_rules": "Rules", "route_default": "What no rule covers",
}  # fmt: skip
EMPTY_ROWS = 2
ROWS_MAX = 200  # more than any list may have, so that one too long is told as such
# What a button asks of the rows: to have more, to move one, to be tried, to be an earlier version.
MORE, TRY, VERSION = "more", "try", "version-"
UP = re.compile(r"up-([0-9]{1,3})")
ENTER = "enter"  # tries the request where there is one, else saves
VERSIONS_MAX = 20
RULE_FIELD = re.compile(r"alerts\.(\w+)")
ROW_FIELD = re.compile(r"((\w+)\.[0-9]+)(?:\.(\w+)(?:\.[0-9]+)?)?")


@blueprint.get("")
def show_settings(slug: str) -> Answer:
    """Every subject; for who may not change them, and while nobody may, what is set."""
    project = enter(slug)
    may_change = actor().may(PROJECTS_MANAGE, project.id)
    if may_change and is_htmx() and request.headers.get("HX-Target") == "calendar":
        return render_template("settings/_calendar.html")
    if not may_change or project.archived_at is not None:
        template = "calendar/archived.html" if may_change else "settings/facts.html"
        return render_template(template, **_told(project))
    return render_template("settings/show.html", **_context(project))


@blueprint.post("/<section>")
def edit_project(slug: str, section: str) -> Answer:
    """Saves one subject. Where scripts run it comes back alone, and what was typed in the others
    stays."""
    project = enter(slug)
    actor().require(PROJECTS_MANAGE, project.id)
    if section not in SECTIONS:
        raise Unknown("There are no such settings.")
    if section == "routes" and _is_trial(request.form):
        return _try_routes(project, request.form)
    if request.form.get("rows", ENTER) != ENTER:
        return _show(_context(project, section, request.form), section)
    places: Places = {}
    try:
        fields = _typed(section, request.form, places)
        edited = projects.edit(slug, fields, by=actor(), as_of=request.form.get("seen"))
    except projects.Changed as error:
        return _show(_context(enter(slug), section, request.form, error), section)
    except (Invalid, Conflict) as error:
        error.fields = _names_of_form(error.fields, places)
        return _show(_context(project, section, request.form, error), section)
    if not is_htmx() or edited.name != project.name:  # the name stands in the rail, too
        anchor = None if is_htmx() else section
        target = url_for("settings.show_settings", slug=slug, _anchor=anchor)
        return done("Saved", target, leaves=True)
    page = render_template(f"settings/_{section}.html", **_context(enter(slug)))
    return Response(page, headers={"HX-Trigger": json.dumps({"notice": {"words": "Saved"}})})


@blueprint.post("/secrets/example")
def preview_secret(slug: str) -> Answer:
    """How a new secret would look, while somebody types."""
    project = enter(slug)
    actor().require(PROJECTS_MANAGE, project.id)
    return render_template(
        "settings/_example.html", **_example(project, _secrets(request.form, {}))
    )


def _is_trial(form: Form) -> bool:
    pressed = form.get("rows")
    return pressed == TRY or (pressed == ENTER and bool(form.get("path", "").strip()))


def _try_routes(project: Project, form: Form) -> Answer:
    """What a request would need by the rules as they are typed; nothing is saved."""
    places: Places = {}
    try:
        fields = _typed("routes", form, places)
        trial = route_rules.tried(fields, form.get("method", ""), form.get("path", ""))
    except Invalid as error:
        error.fields = _names_of_form(error.fields, places)
        context = _context(project, "routes", form, error)
        return _show({**context, "is_trial": True}, "routes")
    return _show({**_context(project, "routes", form), "trial": trial}, "routes")


def _show(context: dict[str, Any], section: str) -> Answer:
    """The subject as it was typed, and what is wrong with it: alone, or among the others."""
    error = context["error"]
    status = 200 if error is None else 422 if isinstance(error, Invalid) else error.status
    template = f"settings/_{section}.html" if is_htmx() else "settings/show.html"
    return render_template(template, **context), status


# --- what is typed ------------------------------------------------------------------------------


def _typed(section: str, form: Form, places: Places) -> dict[str, Any]:
    """What the form says of its subject. Raises Invalid where it has nothing of it and was not
    opened here: it would empty what nobody has looked at."""
    names = SETTINGS[section]
    sent = {name.partition(".")[0] for name in form}
    # Boxes that are not ticked are not sent, and one of them has to be.
    is_there = not sent.isdisjoint(names) or section in form  # a choice that is named after it
    if "seen" not in form and not is_there and section != "environments":
        raise Invalid({names[0]: "was not sent, so it stays as it is"})
    return SECTIONS[section](form, places)


def _general(form: Form, places: Places) -> dict[str, Any]:
    return {"name": form.get("name", "")}


def _secrets(form: Form, places: Places) -> dict[str, Any]:
    return {
        "prefix": form.get("prefix", "").strip(),
        "key_format": form.get("key_format", ""),
        "shows_environment": form.get("shows_environment") == "yes",
    }


def _permissions(form: Form, places: Places) -> dict[str, Any]:
    return {"permission_catalogue": _typed_rows("permission_catalogue", form, places)}


def _presets(form: Form, places: Places) -> dict[str, Any]:
    rows = _typed_rows("permission_presets", form, places)
    return {
        "permission_presets": [
            {"name": row["name"], "permissions": inputs.items(row["permissions"])} for row in rows
        ]
    }


def _plans(form: Form, places: Places) -> dict[str, Any]:
    rows = _typed_rows("plans", form, places)
    figures = ("per_minute", "per_hour")
    return {
        "plans": [
            {"name": row["name"], **{one: inputs.number(row[one]) for one in figures if row[one]}}
            for row in rows
        ]
    }


def _routes(form: Form, places: Places) -> dict[str, Any]:
    fields: dict[str, Any] = {"route_default": form.get("route_default", "")}
    if "seen" in form or any(name.startswith("route_rules.") for name in form):
        fields["route_rules"] = [
            {
                "methods": inputs.items(row["methods"]),
                "path": row["path"],
                "permissions": inputs.items(row["permissions"]),
            }
            for row in _typed_rows("route_rules", form, places)
        ]
    return fields


def _lifetimes(form: Form, places: Places) -> dict[str, Any]:
    typed = {name: form[name].strip() or None for name in SETTINGS["lifetimes"] if name in form}
    limit = typed.get("key_limit")
    return {**typed, "key_limit": inputs.number(limit)} if limit else typed


def _environments(form: Form, places: Places) -> dict[str, Any]:
    return {"environments": form.getlist("environments")}


def _alerts(form: Form, places: Places) -> dict[str, Any]:
    """The address, and the rules; of the kinds those are sent that are raised."""
    fields: dict[str, Any] = {"alert_email": form.get("alert_email", "").strip() or None}
    raised = form.getlist("raised")
    rules: dict[str, Any] = {}
    if raised or "seen" in form:  # boxes that are not ticked are not sent
        rules["off"] = [kind for kind in OF_PROJECT if kind not in raised]
    for name in ("learning_period", "unused_after"):
        if form.get(name, "").strip():
            rules[name] = form[name].strip()
    for name in ("refusals_per_hour", "limit_percent"):
        if form.get(name, "").strip():
            rules[name] = inputs.number(form[name].strip())
    return {**fields, "alerts": rules} if rules else fields


def _rotation(form: Form, places: Places) -> dict[str, Any]:
    if form.get("rotation") != "yes":
        return {"rotation_policy": None}
    lengths = {name: form.get(f"rotation_{name}", "").strip() or None for name in ENVIRONMENTS}
    return {"rotation_policy": lengths}


# The settings of each subject, as the API names them.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "general": ("name",),
    "secrets": ("prefix", "key_format", "shows_environment"),
    "permissions": ("permission_catalogue",),
    "presets": ("permission_presets",),
    "plans": ("plans",),
    "routes": ("route_rules", "route_default"),
    "lifetimes": ("key_limit", "default_expiry", "maximum_lifetime"),
    "environments": ("environments",),
    "alerts": ("alert_email", "alerts"),
    "rotation": ("rotation_policy",),
}
SECTIONS: Mapping[str, Callable[[Form, Places], dict[str, Any]]] = {
    "general": _general,
    "secrets": _secrets,
    "permissions": _permissions,
    "presets": _presets,
    "plans": _plans,
    "routes": _routes,
    "lifetimes": _lifetimes,
    "environments": _environments,
    "alerts": _alerts,
    "rotation": _rotation,
}


def _rows(of: str, form: Form) -> Rows:
    """The rows as they stand in the form, those left empty too; with more of these, one less, or
    one moved up, where a button asks for it."""
    names = COLUMNS[of]
    columns = [form.getlist(f"{of}.{name}")[:ROWS_MAX] for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip_longest(*columns, fillvalue="")]
    wanted = form.get("rows", "")
    if wanted == MORE:
        return rows + _empty(of)
    if (up := UP.fullmatch(wanted)) and 0 < (place := int(up[1])) < len(rows):
        rows.insert(place - 1, rows.pop(place))
    return [row for number, row in enumerate(rows) if str(number) != wanted]


def _empty(of: str) -> Rows:
    return [dict.fromkeys(COLUMNS[of], "") for _ in range(EMPTY_ROWS)]


def _typed_rows(of: str, form: Form, places: Places) -> Rows:
    """The rows in which something is typed."""
    typed: Rows = []
    for number, row in enumerate(_rows(of, form)):
        stripped = {name: text.strip() for name, text in row.items()}
        if any(stripped.values()):
            places[f"{of}.{len(typed)}"] = f"{of}.{number}"
            typed.append(stripped)
    return typed


def _names_of_form(fields: Mapping[str, str], places: Places) -> dict[str, str]:
    """The API's names of fields as the form's."""
    found: dict[str, str] = {}
    for path, why in fields.items():
        name = RULE_FIELD.sub(r"\1", path).replace("rotation_policy.", "rotation_")
        row = ROW_FIELD.fullmatch(name)
        if row and row[1] in places:
            name = f"{places[row[1]]}.{row[3] or COLUMNS[row[2]][0]}"
        found[name] = why
    return found


# --- what is shown --------------------------------------------------------------------------------


def _context(
    project: Project,
    section: str | None = None,
    form: Form | None = None,
    error: Refused | None = None,
) -> dict[str, Any]:
    """All that the forms hold: what is set, and of one subject what somebody typed instead."""
    facts = projects.as_dict(project)
    shown: dict[str, Any] = {
        **facts,
        "shows_environment": "yes" if facts["shows_environment"] else "no",
        **{of: [*_as_typed(of, facts[of]), *_empty(of)] for of in COLUMNS},  # type: ignore[literal-required]
        **_rules_as_typed(project),
        "method": "GET",
        "path": "",
    }
    versions = _route_versions(project) if section in (None, "routes") or not is_htmx() else []
    earlier = None
    if form is not None:
        shown.update({name: text for name, text in form.items() if "." not in name})
        sent = {name.partition(".")[0] for name in form if "." in name}
        shown.update({of: _rows(of, form) for of in COLUMNS if of in sent})
        earlier = _earlier(versions, form.get("rows", ""))
        if section == "environments":
            shown["environments"] = form.getlist("environments")
        if section == "alerts":
            shown["raised"] = form.getlist("raised")
        if section == "rotation":
            shown["rotation"] = form.get("rotation", "no")
    if earlier:
        kept = earlier.settings
        shown["route_rules"] = _as_typed("route_rules", kept["route_rules"]) + _empty("route_rules")
        shown["route_default"] = kept["route_default"]
    seen = {one: projects.edition(project, names) for one, names in SETTINGS.items()}
    is_changed = isinstance(error, projects.Changed)
    if section and form and "seen" in form and not is_changed:
        # What was typed goes on to be a change of what was there when it was begun.
        seen[section] = form["seen"]
    return {
        "seen": seen,
        "present": _present(project, section) if section and is_changed else [],
        "form": shown,
        "errors": error.fields if error else {},
        "error": error,
        "at_fault": section if error else None,
        "pressed": _pressed(section, form, shown) if section and form else None,
        "versions": versions,
        "earlier": earlier,
        **_told(project),
    }


def _route_versions(project: Project) -> list[activity.Version]:
    facts: dict[str, Any] = {**projects.as_dict(project)}
    present = {name: facts[name] for name in SETTINGS["routes"]}
    return activity.versions(project.id, present, by=actor(), limit=VERSIONS_MAX)


def _earlier(versions: list[activity.Version], wanted: str) -> activity.Version | None:
    """The version that a button asks for. Raises Unknown."""
    if not wanted.startswith(VERSION):
        return None
    for version in versions:
        if wanted == f"{VERSION}{version.event.id}":
            return version
    raise Unknown("There is no such version of the rules.")


def _pressed(section: str, form: Form, shown: Mapping[str, Any]) -> str | None:
    """The id of the button that has the focus again: of a row that moved, where it is now."""
    wanted = form.get("rows", "")
    if wanted.startswith(VERSION):
        return f"save-{section}"
    if section == "routes" and _is_trial(form):
        return f"{TRY}-{section}" if wanted == TRY else "path"
    for of in COLUMNS.keys() & set(SETTINGS[section]):
        if up := UP.fullmatch(wanted):
            return f"up-{of}-{max(0, int(up[1]) - 1)}"
        if wanted.isdigit() and inputs.number(wanted) in range(len(shown[of])):
            return f"remove-{of}-{wanted}"
        return f"{MORE}-{of}" if wanted and wanted != ENTER else None
    return None


def _rules_as_typed(project: Project) -> dict[str, Any]:
    """The project's rules of alerts and rotation as their forms have them."""
    rules, policy = alert_rules.as_dict(project), project.rotation_policy
    lengths = policy or alert_rules.policy_as_dict(alert_rules.RotationPolicy.read({})) or {}
    return {
        **rules,
        "raised": [kind for kind in OF_PROJECT if kind not in rules["off"]],
        "rotation": "yes" if policy else "no",
        **{f"rotation_{name}": lengths.get(name) or "" for name in ENVIRONMENTS},
    }


def _present(project: Project, section: str) -> list[tuple[str, str]]:
    """What is there now, in words, for whoever has to save once more."""
    facts: dict[str, Any] = {**projects.as_dict(project)}
    return [(LABELS[name], _in_words(name, facts[name])) for name in SETTINGS[section]]


def _in_words(name: str, value: Any) -> str:
    if name == "permission_catalogue":
        offers = [(one["name"], one["description"]) for one in value]
        return ", ".join(f"{what} ({why})" if why else what for what, why in offers) or "Empty"
    if name == "permission_presets":
        presets = [f"{one['name']}: {', '.join(one['permissions'])}" for one in value]
        return "; ".join(presets) or "Empty"
    if name == "plans":
        figures = [(one["name"], words.rate(one["per_minute"], one["per_hour"])) for one in value]
        return "; ".join(f"{plan}: {rate}" for plan, rate in figures) or "Empty"
    if name == "route_rules":
        return "; ".join(map(words.rule_words, value)) or "Empty"
    if name == "route_default":
        return words.ROUTE_DEFAULTS[value]
    if name == "environments":
        return " and ".join(value)
    if name == "alerts":
        off = ", ".join(alert_words.NAMES[kind] for kind in value["off"])
        return (
            f"learning {value['learning_period']}, {value['refusals_per_hour']} refusals an hour, "
            f"{value['limit_percent']} % of a limit, unused for {value['unused_after']}; "
            f"turned off: {off or 'nothing'}"
        )
    if name == "rotation_policy" and value:
        return ", ".join(f"{one} keys after {value[one]}" for one in ENVIRONMENTS if value[one])
    if name == "shows_environment":
        return "Secrets say live or test" if value else "Left out"
    return "Empty" if value is None else str(value)


def _as_typed(of: str, stored: list[dict[str, Any]]) -> Rows:
    return [{name: _text(row[name]) for name in COLUMNS[of]} for row in stored]


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value or "")


def _told(project: Project) -> dict[str, Any]:
    """What the page says besides what can be changed."""
    return {
        "facts": projects.as_dict(project),
        "formats": FORMATS,
        "environments": ENVIRONMENTS,
        "default_key_limit": projects.default_key_limit(),
        "built_in": [
            (name, words.rate(*figures)) for name, figures in limits.PLANS.items() if any(figures)
        ],
        "own_plans": [
            (plan["name"], words.rate(plan["per_minute"], plan["per_hour"]))
            for plan in project.plans
        ],
        "lifetimes": [
            words.length_words(length) if length else None
            for length in (project.default_expiry, project.maximum_lifetime)
        ],
        "on_plan": plans.users(project),
        "presets": catalogue.presets(project, by=actor()),
        "may_end": actor().is_owner,
        "kinds": [(kind, alert_words.NAMES[kind]) for kind in OF_PROJECT],
        "methods": inputs.METHODS,
        "unreached": route_rules.unreached(project.route_rules),
        "mail_is_on": mail.is_on(),
        **_example(project, {}),
    }


def _example(project: Project, typed: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"examples": projects.examples(project, typed), "no_example": None}
    except Invalid as error:
        return {"examples": {}, "no_example": next(iter(error.fields.values()))}
