"""The key table, a key's page, and the dialogs that create, edit, rotate, revoke and delete."""

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import activity, audit, keys, usage
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.limits import ENTERPRISE, PLANS
from console.models import ACTIVE, ENVIRONMENTS, REVOKED, STATUSES, Key
from console.permissions import KEYS_WRITE
from console.web import actor, done, enter, invalid, is_htmx

blueprint = Blueprint("keys", __name__, url_prefix="/projects/<slug>")

Answer = str | tuple[str, int] | BaseResponse

NEVER, KEEP, ON_DATE = "never", "keep", "date"
EXPIRATIONS = (
    ("1d", "1 Day"), ("1w", "1 Week"), ("1mo", "1 Month"), ("3mo", "3 Months"), ("1y", "1 Year"),
    (NEVER, "No Expiry"), (ON_DATE, "On a date"),
)  # fmt: skip
GRACES = (("", "now"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days"))
LIST_FIELDS = ("q", "status", "environment", "owner", "sort", "cursor")
RECENT = 10
SEPARATORS = re.compile(r"[\s,;]+")


@blueprint.get("")
def show_project(slug: str) -> BaseResponse:
    return redirect(url_for("keys.list_keys", slug=enter(slug).slug), 303)


@blueprint.get("/keys")
def list_keys(slug: str) -> Answer:
    """The key table; only the table itself when the page asks for it again."""
    project = enter(slug)
    given: dict[str, Any] = {n: request.args[n] for n in LIST_FIELDS if request.args.get(n)}
    page = keys.page(by=actor(), project=slug, **given)
    whole = not is_htmx() or request.headers.get("HX-Target") != "keys"
    return render_template(
        "keys/list.html" if whole else "keys/_table.html",
        page=page,
        filters={"sort": keys.NEWEST_FIRST, **given},
        is_filtered=any(given.get(name) for name in ("q", "status", "environment", "owner")),
        may_write=actor().may(KEYS_WRITE, project.id),
        statuses=STATUSES,
        environments=ENVIRONMENTS,
    )


@blueprint.route("/keys/new", methods=["GET", "POST"])
def create_key(slug: str) -> Answer:
    project = enter(slug)
    actor().require(KEYS_WRITE, project.id)
    form = _form()
    if request.method != "POST":
        return render_template("keys/create.html", form={"expiration": "3mo"}, errors={}, **form)
    try:
        fields = {**_settings(request.form), "project": slug}
        key, secret = keys.create(fields, by=actor())
    except (Invalid, Conflict, Forbidden) as error:
        return invalid("keys/create.html", _for_form(error), form=request.form, **form)
    return _show_secret(key, secret)


@blueprint.get("/keys/<key_id>")
def show_key(slug: str, key_id: str) -> str:
    key = key_here(slug, key_id)
    return render_template(
        "keys/show.html",
        key=key,
        usage=usage.totals_of(key),
        entries=audit.page_of_key(key_id, by=actor(), filters={}, cursor=None, limit=RECENT).rows,
        events=activity.page_of_target(key.id, limit=RECENT).rows,
        may_write=actor().may(KEYS_WRITE, key.project_id),
    )


@blueprint.route("/keys/<key_id>/edit", methods=["GET", "POST"])
def edit_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    form = _form(key)
    if request.method != "POST":
        return render_template("keys/edit.html", key=key, form=_filled_in(key), errors={}, **form)
    try:
        fields = _settings(request.form)
        fields.update(_changed_status(key, request.form.get("status")))
        key = keys.edit(key_id, fields, by=actor())
    except (Invalid, Conflict, Forbidden) as error:
        return invalid("keys/edit.html", _for_form(error), key=key, form=request.form, **form)
    return done(f"{key.name} saved", url_for("keys.list_keys", slug=slug))


@blueprint.route("/keys/<key_id>/rotate", methods=["GET", "POST"])
def rotate_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return render_template("keys/rotate.html", key=key, graces=GRACES, form={}, errors={})
    try:
        key, secret, ends_at = keys.rotate(
            key_id,
            {"grace_period": request.form.get("grace_period") or None},
            by=actor(),
            confirm=request.form.get("confirm", ""),
        )
    except (Invalid, Conflict, Forbidden) as error:
        return invalid("keys/rotate.html", error, key=key, graces=GRACES, form=request.form)
    return _show_secret(key, secret, ends_at)


@blueprint.route("/keys/<key_id>/revoke", methods=["GET", "POST"])
def revoke_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return render_template("keys/revoke.html", key=key)
    keys.revoke(key_id, by=actor())
    return done(f"{key.name} revoked", url_for("keys.list_keys", slug=slug))


@blueprint.route("/keys/<key_id>/restore", methods=["GET", "POST"])
def restore_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return render_template("keys/restore.html", key=key)
    try:
        keys.restore(key_id, by=actor())
    except (Invalid, Conflict) as error:
        return invalid("keys/restore.html", error, key=key)
    return done(f"{key.name} enabled", url_for("keys.list_keys", slug=slug))


@blueprint.route("/keys/<key_id>/delete", methods=["GET", "POST"])
def delete_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return render_template("keys/delete.html", key=key, form={}, errors={})
    try:
        keys.delete(key_id, by=actor(), confirm=request.form.get("confirm", ""))
    except Invalid as error:
        return invalid("keys/delete.html", error, key=key, form=request.form)
    return done(f"{key.name} deleted", url_for("keys.list_keys", slug=slug))


def key_here(slug: str, key_id: str) -> Key:
    """The key of this page, which lies in the project that the address names. Raises Unknown."""
    project = enter(slug)
    key = keys.key_to_read(key_id, by=actor())
    if key.project_id != project.id:
        raise Unknown("There is no such key.")
    return key


def _key_of_page(slug: str, key_id: str) -> Key:
    """The key that a dialog is about, where the person may change it."""
    key = key_here(slug, key_id)
    actor().require(KEYS_WRITE, key.project_id)
    return key


def _show_secret(key: Key, secret: str, ends_at: int | None = None) -> Answer:
    """The one response that carries the secret: no redirect, no cache, no session."""
    page = render_template(
        "keys/secret.html",
        key=key,
        secret=secret,
        ends_at=ends_at,
        base_url=current_app.config["LATCHKEY"].base_url,
    )
    response = current_app.make_response(page)
    response.headers["HX-Trigger"] = "keys-changed"
    return response


# --- forms ----------------------------------------------------------------------------------


def _form(key: Key | None = None) -> dict[str, Any]:
    """What the create and edit forms offer."""
    return {
        "expirations": ((KEEP, "Keep as it is"), *EXPIRATIONS) if key else EXPIRATIONS,
        "plans": PLANS,
    }


def _settings(form: Mapping[str, str]) -> dict[str, Any]:
    """A key's settings as the form says them, in the API's terms. Decides nothing."""
    fields: dict[str, Any] = {
        "name": form.get("name", ""),
        "description": form.get("description", ""),
        "permissions": _items(form.get("permissions", "")),
        "ip_allowlist": _items(form.get("ip_allowlist", "")),
    }
    if form.get("environment"):
        fields["environment"] = form["environment"]
    fields.update(_expiration(form))
    if form.get("plan"):
        fields["plan"] = form["plan"]
    if form.get("plan") == ENTERPRISE:
        fields["rate_limit"] = {
            name: _number(form[name]) for name in ("per_minute", "per_hour") if form.get(name)
        }
    return fields


def _items(text: str) -> list[str]:
    return [item for item in SEPARATORS.split(text) if item]


def _number(text: str) -> Any:
    """The number typed, or the text itself, which the field's own rule then refuses."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text


def _expiration(form: Mapping[str, str]) -> dict[str, Any]:
    choice = form.get("expiration", NEVER)
    if choice == KEEP:
        return {}
    if choice == ON_DATE:
        if not form.get("expires_on"):
            raise Invalid({"expires_on": "choose a date"})
        return {"expires_at": f"{form['expires_on']}T23:59:59Z"}
    return {"expires_at": None} if choice == NEVER else {"expires_in": choice}


def _changed_status(key: Key, wanted: str | None) -> dict[str, str]:
    """The status, when the form's differs from the key's: an expired key is not revoked."""
    shown = REVOKED if key.revoked_at is not None else ACTIVE
    return {"status": wanted} if wanted and wanted != shown else {}


def _filled_in(key: Key) -> dict[str, Any]:
    """The edit form as the key stands."""
    return {
        "name": key.name,
        "description": key.description,
        "permissions": "\n".join(key.permissions),
        "ip_allowlist": "\n".join(key.ip_allowlist),
        "expiration": KEEP,
        "plan": key.plan,
        "per_minute": key.limit_per_minute or "",
        "per_hour": key.limit_per_hour or "",
        "status": REVOKED if key.revoked_at is not None else ACTIVE,
    }


def _for_form(error: Any) -> Any:
    """The API's field names as the form's."""
    names = {
        "expires_at": "expires_on" if request.form.get("expiration") == ON_DATE else "expiration",
        "expires_in": "expiration",
        "rate_limit.per_minute": "per_minute",
        "rate_limit.per_hour": "per_hour",
        "rate_limit": "plan",
    }
    error.fields = {names.get(name, name): why for name, why in error.fields.items()}
    return error
