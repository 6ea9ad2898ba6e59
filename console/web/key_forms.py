"""The dialogs that create and edit a key: what they offer, what is said while somebody types, and
what they answer when somebody else was faster."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from flask import current_app, render_template, request

from console import (
    addresses,
    catalogue,
    clock,
    idempotency,
    key_rules,
    key_versions,
    keys,
    limits,
    plans,
    wire,
)
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Refused, Unknown
from console.key_fields import KeyChange
from console.models import ACTIVE, REVOKED, Event, Key, Project
from console.permissions import KEYS_WRITE
from console.web import actor, client_ip, done, enter, inputs, invalid, words
from console.web.key_secret import show_secret
from console.web.keys import Answer, back_from, blueprint, is_on_its_page, key_here

NEVER, KEEP, ON_DATE = "never", "keep", "date"
YES, NO = "yes", "no"
LENGTHS = ("1d", "1w", "1mo", "3mo", "1y")
LENGTH_DEFAULT = "3mo"  # where the project names none
LISTS = ("permissions", "ip_allowlist")
MORE = ("renewal_period", "monthly_quota", "external_id", "metadata")
PREVIEWED = (*LISTS, "expires_on")
FORM_FIELDS = frozenset({
    "name", "description", "environment", "status", "expiration", "auto_renew", "plan",
    "per_minute", "per_hour", *PREVIEWED, *MORE,
})  # fmt: skip
MANY_ADDRESSES = 1_000_000_000
OFFERS_OPEN_MAX = 12


class CreatedAlready(Conflict):
    """409: the same form, sent again. Its secret was in the answer to the first time."""

    def __init__(self, key_id: str) -> None:
        super().__init__("This key was created already.")
        self.key_id = key_id


# --- create -----------------------------------------------------------------------------------


@blueprint.route("/keys/new", methods=["GET", "POST"])
def create_key(slug: str) -> Answer:
    project = enter(slug)
    actor().require(KEYS_WRITE, project.id)
    if request.method != "POST":
        form = {**_defaults(project), "once": secrets.token_urlsafe(24)}
        return render_template("keys/create.html", form=form, errors={}, **_offers(project, form))
    try:
        key, secret = _create_once(project)
    except CreatedAlready as again:
        return _show_created_already(again)
    except (Invalid, Conflict, Forbidden) as error:
        return _refused("keys/create.html", error, request.form, project)
    return show_secret(key, secret)


def _create_once(project: Project) -> tuple[Key, str]:
    """The key and its secret. A form that is sent a second time, by a reload or two clicks, makes
    no second key; and its secret is in no second answer. Raises CreatedAlready."""
    made: list[tuple[Key, str]] = []

    def work() -> tuple[str, dict[str, str]]:
        fields = {**_settings(request.form), "project": project.slug}
        made.append(keys.create(fields, by=actor()))
        return project.id, {"id": made[0][0].id}

    kept, is_again = idempotency.once(
        request.form.get("once") or None,
        signing_key=current_app.config["LATCHKEY"].secret_key,
        request="create_key",
        by=actor(),
        work=work,
    )
    if is_again:
        raise CreatedAlready(kept["id"])
    return made[0]


def _show_created_already(again: CreatedAlready) -> Answer:
    try:
        key = keys.key_to_read(again.key_id, by=actor())
    except Unknown:
        key = None
    return render_template("keys/created_already.html", key=key), again.status


# --- edit -------------------------------------------------------------------------------------


@blueprint.route("/keys/<key_id>/edit", methods=["GET", "POST"])
def edit_key(slug: str, key_id: str) -> Answer:
    try:
        return _edit(slug, key_id)
    except Unknown:
        event = key_versions.deletion(key_id, enter(slug).id, by=actor())
        if event is None:
            raise
        who = _who(event)
        return render_template("keys/deleted.html", event=event, who=who), Unknown.status


def _edit(slug: str, key_id: str) -> Answer:
    key = key_here(slug, key_id)
    actor().require(KEYS_WRITE, key.project_id)
    if request.method != "POST":
        form = {**_filled_in(keys.as_dict(key)), "version": key.updated_at}
        context = {**_offers(key.project, form), **_place(key)}
        return render_template("keys/edit.html", form=form, errors={}, **context)
    try:
        fields = {**_settings(request.form), **_status(key)}
        if fields.get("auto_renew") == key.auto_renew and request.form.get("expiration") == KEEP:
            del fields["auto_renew"]  # of a key that has expired meanwhile, it would be refused
        key = keys.edit(key_id, fields, by=actor(), as_of=_version())
    except key_versions.Changed as changed:
        return _show_changes(key, changed)
    except (Invalid, Conflict, Forbidden) as error:
        return _refused("keys/edit.html", error, request.form, key.project, **_place(key))
    return done(f"{key.name} saved", back_from(key), key_id=key.id)


def _place(key: Key) -> dict[str, Any]:
    """Which key the dialog is about, and where it was opened."""
    return {"key": key, "back": back_from(key), "is_on_its_page": is_on_its_page()}


def _version() -> int | None:
    """Which version of the key the form was filled with; None where it does not say."""
    text = request.form.get("version", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _status(key: Key) -> dict[str, str]:
    """The status that the form wants, of a key that is not so: an expired key is not revoked."""
    wanted = request.form.get("status")
    shown = REVOKED if key.revoked_at is not None else ACTIVE
    return {"status": wanted} if wanted and wanted != shown else {}


def _show_changes(key: Key, changed: key_versions.Changed) -> Answer:
    """The form again. What the person left as it was is now as somebody else made it; beside what
    both changed stands the present value. It has the present version: to save again saves it."""
    base, present = _filled_in(changed.base), _filled_in(changed.present)
    form = request.form.to_dict() | {"version": str(changed.version)}
    others: dict[str, str] = {}
    for name, value in present.items():
        typed = form.get(name, "")
        if _is_same(name, typed, base[name]):
            form[name] = value
        elif value != base[name] and not _is_same(name, typed, value):
            others[name] = _shown(name, value)
    if form["expiration"] != KEEP and changed.base["expires_at"] != changed.present["expires_at"]:
        ends = changed.present["expires_at"]
        others["expiration"] = words.to_minute(clock.parse(ends)) if ends else "never"
    told = [_told(event) for event in changed.events]
    more = {**_place(key), "changes": told, "others": others, "is_stale": True}
    return _refused("keys/edit.html", changed, form, key.project, **more)


def _is_same(name: str, typed: str, value: str) -> bool:
    """Whether a field of the form says the same: browsers send line ends of their own."""
    if name in LISTS:
        return inputs.items(typed) == inputs.items(value)
    return typed.replace("\r\n", "\n").strip() == value.strip()


def _shown(name: str, value: str) -> str:
    """A field's value on one line, beside what somebody typed."""
    if name in LISTS:
        value = ", ".join(inputs.items(value))
    elif name == "status" or value in limits.PLANS:
        value = value.capitalize()
    return value or "empty"


def _told(event: Event) -> dict[str, Any]:
    """What was done meanwhile, in words."""
    what, fields = words.EVENT_WORDS[event.action], words.changes_of(event)
    return {"who": _who(event), "what": what, "at": event.at, "fields": fields}


def _who(event: Event) -> str:
    is_me = event.actor_kind == actor().kind and event.actor_id == actor().id
    return "You" if is_me else event.actor_name


# --- while somebody types -----------------------------------------------------------------------


@blueprint.post("/keys/preview")
def preview_key(slug: str) -> Answer:
    """What the field that the page asks about would mean, or what is wrong with it."""
    project = enter(slug)
    actor().require(KEYS_WRITE, project.id)
    field = request.headers.get("HX-Target", "").removesuffix("-note")
    if field not in PREVIEWED:
        raise Unknown("There is no such field.")
    return render_template("keys/_note.html", field=field, note=_note(field, request.form, project))


def _note(field: str, form: Mapping[str, Any], project: Project) -> dict[str, Any]:
    """What stands below a field: what it means, or what is wrong with it."""
    if not form.get(field):
        return {"is_empty": True}
    try:
        return _meaning(field, form, project)
    except Invalid as error:
        return {"error": next(iter(error.fields.values()))}


def _meaning(field: str, form: Mapping[str, Any], project: Project) -> dict[str, Any]:
    if field == "expires_on":
        settings = KeyChange.read(_expiration({"expiration": ON_DATE, "expires_on": form[field]}))
        return {"ends_at": key_rules.end(settings, project, clock.now())}
    items = inputs.items(form[field])
    settings = KeyChange.read({field: items})
    if field == "permissions":
        return {"meaning": catalogue.meaning(settings.permissions, project, by=actor())}
    mine, count = client_ip(), addresses.count(settings.ip_allowlist)
    return {
        "entries": len(settings.ip_allowlist),
        "addresses": count if count < MANY_ADDRESSES else None,
        "mine": mine,
        "is_covered": addresses.covered(mine, settings.ip_allowlist),
    }


# --- forms --------------------------------------------------------------------------------------


def _offers(project: Project, form: Mapping[str, Any]) -> dict[str, Any]:
    """What the create and edit forms offer, and say about what is in them."""
    offered = catalogue.offered(project, by=actor())
    is_catalogue = bool(project.permission_catalogue)
    return {
        "expirations": _expirations(project),
        "last_day": _last_day(project),
        "environments": project.environments,
        "plans": _plans(project),
        "presets": catalogue.presets(project, by=actor()),
        "offers": (
            ("This project's catalogue" if is_catalogue else "In use here", offered,
             is_catalogue and len(offered) <= OFFERS_OPEN_MAX),
            ("Latchkey's own API", catalogue.own_offered(project, by=actor()), False),
        ),
        "held": inputs.items(str(form.get("permissions", ""))),
        "notes": {field: _note(field, form, project) for field in PREVIEWED},
        "my_address": client_ip(),
        "others": {},
        "more_is_open": any(form.get(name) for name in MORE),
    }  # fmt: skip


def _defaults(project: Project) -> dict[str, str]:
    """What the create form begins with."""
    length, now = key_rules.expiry_default(project) or LENGTH_DEFAULT, clock.now()
    wanted, lengths = key_rules.later(length, now), key_rules.lengths(LENGTHS, project, now)
    # The same end may be offered under another name; and a month may be longer than the maximum.
    nearest = [value for value, ends_at in lengths.items() if ends_at <= wanted][-1]
    environment = key_rules.environment_default(project)
    return {"expiration": nearest, "auto_renew": NO, "environment": environment}


def _expirations(project: Project) -> list[tuple[str, str, str]]:
    """Every choice: its value, its name, and what it means."""
    lengths = [
        (length, words.length_words(length).title(), f"Until {words.to_minute(ends_at)}.")
        for length, ends_at in key_rules.lengths(LENGTHS, project, clock.now()).items()
    ]
    never = (NEVER, "No Expiry", "Works until somebody stops it.")
    on_date = (ON_DATE, "On a date", "Until the end of a day.")
    return [*lengths, *([] if project.maximum_lifetime else [never]), on_date]


def _last_day(project: Project) -> str | None:
    """The last day at whose end a key may end; None for any."""
    latest = key_rules.latest_end(project, clock.now())
    return None if latest is None else clock.iso(latest - clock.DAY + clock.SECOND)[:10]


def _plans(project: Project) -> list[tuple[str, str]]:
    """Every plan that a key may have here, and its figures in words."""
    found = []
    for name, figures in plans.offered(project).items():
        shown = name.capitalize() if name in limits.PLANS else name
        if name == limits.ENTERPRISE:
            shown += " – own figures"
        elif name != limits.UNLIMITED:
            shown += f" – {words.rate(*figures) if any(figures) else 'no limit'}"
        found.append((name, shown))
    return found


def _refused(
    template: str, error: Refused, form: Mapping[str, Any], project: Project, **more: Any
) -> Answer:
    """The form as it was typed, and what is wrong with it; or that first the person confirms, in
    another tab, that it is them."""
    error.fields = _names_of_form(error.fields, form)
    context = {**_offers(project, form), **more}
    if isinstance(error, NotFresh):
        shown = render_template(template, form=form, errors={}, must_confirm=True, **context)
        return shown, error.status
    return invalid(
        template, error, form=form, is_told=bool(FORM_FIELDS & {*error.fields}), **context
    )


def _settings(form: Mapping[str, str]) -> dict[str, Any]:
    """A key's settings as the form says them, in the API's terms. Decides nothing."""
    fields: dict[str, Any] = {
        "name": form.get("name", ""),
        "description": form.get("description", ""),
        "permissions": inputs.items(form.get("permissions", "")),
        "ip_allowlist": inputs.items(form.get("ip_allowlist", "")),
    }
    if form.get("environment"):
        fields["environment"] = form["environment"]
    fields.update(_expiration(form))
    if form.get("auto_renew") and form.get("expiration") != NEVER:
        fields["auto_renew"] = form["auto_renew"] == YES
        if form["auto_renew"] == YES and form.get("renewal_period", "").strip():
            fields["renewal_period"] = form["renewal_period"].strip()
    if form.get("plan"):
        fields["plan"] = form["plan"]
    if form.get("plan") == limits.ENTERPRISE:
        fields["rate_limit"] = {
            name: inputs.number(form[name]) for name in ("per_minute", "per_hour") if form.get(name)
        }
    if "monthly_quota" in form:
        quota = form["monthly_quota"]
        fields["monthly_quota"] = inputs.number(quota) if quota else None
    if "external_id" in form:
        fields["external_id"] = form["external_id"] or None
    if "metadata" in form:
        fields["metadata"] = _object(form["metadata"])
    return fields


def _object(text: str) -> Any:
    """The JSON typed; nothing typed is nothing in it. Raises Invalid."""
    if not text.strip():
        return {}
    try:
        return wire.parse_json(text.encode())
    except Invalid as error:
        raise Invalid({"metadata": error.fields["body"]}) from None


def _expiration(form: Mapping[str, str]) -> dict[str, Any]:
    choice = form.get("expiration", NEVER)
    if choice == KEEP:
        return {}
    if choice == ON_DATE:
        if not form.get("expires_on"):
            raise Invalid({"expires_on": "choose a date"})
        return {"expires_at": f"{form['expires_on']}T23:59:59Z"}
    return {"expires_at": None} if choice == NEVER else {"expires_in": choice}


def _filled_in(facts: Mapping[str, Any]) -> dict[str, str]:
    """The edit form as the key stands: every field as the browser would send it."""
    own = (facts["rate_limit"] or {}) if facts["plan"] == limits.ENTERPRISE else {}
    metadata = facts["metadata"]
    return {
        "name": facts["name"],
        "description": facts["description"],
        "permissions": "\n".join(facts["permissions"]),
        "ip_allowlist": "\n".join(facts["ip_allowlist"]),
        "expiration": KEEP,
        "auto_renew": YES if facts["auto_renew"] else NO,
        "renewal_period": facts["renewal_period"] or "",
        "plan": facts["plan"],
        "per_minute": str(own.get("per_minute") or ""),
        "per_hour": str(own.get("per_hour") or ""),
        "status": REVOKED if facts["status"] == REVOKED else ACTIVE,
        "monthly_quota": str(facts["monthly_quota"] or ""),
        "external_id": facts["external_id"] or "",
        "metadata": json.dumps(metadata, indent=2, ensure_ascii=False) if metadata else "",
    }


def _names_of_form(fields: Mapping[str, str], form: Mapping[str, Any]) -> dict[str, str]:
    """The API's field names as the form's."""
    names = {
        "expires_at": "expires_on" if form.get("expiration") == ON_DATE else "expiration",
        "expires_in": "expiration",
        "rate_limit.per_minute": "per_minute",
        "rate_limit.per_hour": "per_hour",
        "rate_limit": "plan",
    }
    return {names.get(name, name): why for name, why in fields.items()}
