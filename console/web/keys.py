"""A key's page, and the dialogs that rotate, revoke, enable and delete."""

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, current_app, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from console import activity, audit, clock, insight, key_owner, keys, usage
from console.errors import Conflict, Forbidden, Invalid, Refused, Unknown
from console.insight import OldSecret, Top, User
from console.models import Key
from console.permissions import KEYS_WRITE
from console.web import actor, confirm_first, done, enter, invalid, is_htmx, words
from console.web.key_secret import show_secret

blueprint = Blueprint("keys", __name__, url_prefix="/projects/<slug>")

Answer = str | tuple[str, int] | BaseResponse
Users = Callable[..., Top[User]]

GRACES = (("", "now"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days"))
EXTENSIONS = (*GRACES[1:], ("30d", "30 days"))
PERIODS = {"24h": "24 hours", "30d": "30 days", "12mo": "12 months"}
ITS_PAGE = "key"  # as a dialog is told that it was opened there
RECENT = 10


@blueprint.get("/keys/<key_id>")
def show_key(slug: str, key_id: str) -> str:
    """One key's page; only the part of it that the page asks for again."""
    key = key_here(slug, key_id)
    period = request.args.get("period") or usage.PERIOD_DEFAULT
    counts = {
        "key": key,
        "buckets": usage.of_key(key_id, period, by=actor()),
        "totals": usage.totals_of(key),
        "period": period,
        "periods": PERIODS,
    }
    part = request.headers.get("HX-Target") if is_htmx() else None
    if part == "usage":
        return render_template("keys/_usage.html", **counts)
    template = "keys/_page.html" if part == "key" else "keys/show.html"
    return render_template(template, **counts, **_story(key))


def _story(key: Key) -> dict[str, Any]:
    """What a key's page tells besides its counts."""
    by, is_used = actor(), key.last_used_at is not None
    return {
        "allowance": usage.allowance_of(key),
        "metadata": json.dumps(key.metadata, indent=2, ensure_ascii=False) if key.metadata else "",
        "old": insight.old_secret(key.id, by=by),
        "refused_old": insight.refused_old(key.id, by=by),
        "insight": insight.of_key(key.id, by=by) if is_used else None,
        "entries": audit.page_of_key(key.id, by=by, filters={}, cursor=None, limit=RECENT).rows,
        "events": activity.page_of_target(key.id, limit=RECENT).rows,
        "base_url": current_app.config["LATCHKEY"].base_url,
        "may_write": by.may(KEYS_WRITE, key.project_id),
    }


@blueprint.route("/keys/<key_id>/rotate", methods=["GET", "POST"])
def rotate_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        confirm_first()
        return _ask("keys/rotate.html", key, insight.recent_users, graces=GRACES, form={})
    try:
        key, secret, ends_at = keys.rotate(
            key_id,
            {"grace_period": request.form.get("grace_period") or None},
            by=actor(),
            confirm=request.form.get("confirm", ""),
            rotated_at=request.form.get("rotated_at", type=int),
        )
    except (Invalid, Conflict, Forbidden) as error:
        again = {"graces": GRACES, "form": request.form}
        return _ask("keys/rotate.html", key, insight.recent_users, error=error, **again)
    return show_secret(key, secret, ends_at)


@blueprint.route("/keys/<key_id>/grace/end", methods=["GET", "POST"])
def end_grace(slug: str, key_id: str) -> Answer:
    """Stops the old secret before its grace period is over."""
    return _set_grace(slug, key_id, "keys/grace_end.html", None)


@blueprint.route("/keys/<key_id>/grace/extend", methods=["GET", "POST"])
def extend_grace(slug: str, key_id: str) -> Answer:
    """Lets the old secret work for longer than was said."""
    period = request.form.get("grace_period", "")
    return _set_grace(slug, key_id, "keys/grace_extend.html", period)


def _set_grace(slug: str, key_id: str, template: str, period: str | None) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return _ask_about_grace(template, key)
    try:
        fields = {"grace_period": period}
        key, ends_at = keys.set_grace(key_id, fields, by=actor(), extends=period is not None)
    except (Invalid, Conflict, Forbidden) as error:
        return _ask_about_grace(template, key, error)
    until = f"works until {words.exact(ends_at)}" if ends_at else "has stopped working"
    return done(f"The old secret of {key.name} {until}", _page_of(slug, key_id), key_id=key_id)


def _ask_about_grace(template: str, key: Key, error: Refused | None = None) -> Answer:
    old = insight.old_secret(key.id, by=actor())
    shown = {"old": old, "periods": _extensions(key, old), "form": request.form}
    return _ask(template, key, insight.recent_users_of_old, error=error, **shown)


def _extensions(key: Key, old: OldSecret | None) -> list[tuple[str, str]]:
    """The periods that would let the old secret work for longer, and until when."""
    if old is None:
        return []
    ends = {value: keys.grace_end(key, value) for value, _ in EXTENSIONS}
    return [
        (value, f"{name} ({words.to_minute(end)})")
        for value, name in EXTENSIONS
        if (end := ends[value]) is not None and end > old.works_until
    ]


@blueprint.route("/keys/<key_id>/revoke", methods=["GET", "POST"])
def revoke_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        return _ask("keys/revoke.html", key, insight.recent_users)
    keys.revoke(key_id, by=actor())
    return _done_with(key, f"{key.name} revoked", undo="keys.restore_key")


@blueprint.route("/keys/<key_id>/restore", methods=["GET", "POST"])
def restore_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    shown: dict[str, Any] = {
        "why_not": key_owner.known_to_leavers(key, clock.now()), "old_until": keys.grace_of(key)
    }  # fmt: skip
    if request.method != "POST":
        return _ask("keys/restore.html", key, insight.recently_revoked, **shown)
    try:
        keys.restore(key_id, by=actor())
    except (Invalid, Conflict, Forbidden) as error:
        return _ask("keys/restore.html", key, insight.recently_revoked, error=error, **shown)
    return _done_with(key, f"{key.name} enabled", undo="keys.revoke_key")


@blueprint.route("/keys/<key_id>/delete", methods=["GET", "POST"])
def delete_key(slug: str, key_id: str) -> Answer:
    key = _key_of_page(slug, key_id)
    if request.method != "POST":
        confirm_first()
        return _ask("keys/delete.html", key, insight.recent_users, form={})
    try:
        keys.delete(key_id, by=actor(), confirm=request.form.get("confirm", ""))
    except (Invalid, Conflict, Forbidden) as error:
        form = request.form
        return _ask("keys/delete.html", key, insight.recent_users, error=error, form=form)
    table = url_for("keys.list_keys", slug=slug)
    return done(f"{key.name} deleted", table, leaves=is_on_its_page())


def _ask(
    template: str, key: Key, users: Users, *, error: Refused | None = None, **context: Any
) -> Answer:
    """A dialog that says who is touched before it asks; again, with what was wrong."""
    shown = {
        "key": key,
        "users": users(key.id, by=actor()),
        "is_on_its_page": is_on_its_page(),
        "back": back_from(key),
        **context,
    }
    if error is not None:
        return invalid(template, error, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _done_with(key: Key, notice: str, *, undo: str) -> BaseResponse:
    back = ITS_PAGE if is_on_its_page() else None
    undo_at = url_for(undo, slug=key.project.slug, key_id=key.id, back=back)
    return done(notice, back_from(key), key_id=key.id, undo=undo_at)


def is_on_its_page() -> bool:
    """Whether the dialog was opened on the key's own page."""
    return request.values.get("back") == ITS_PAGE


def back_from(key: Key) -> str:
    """Where a dialog leads without scripts: to where it was opened."""
    slug = key.project.slug
    return _page_of(slug, key.id) if is_on_its_page() else url_for("keys.list_keys", slug=slug)


def _page_of(slug: str, key_id: str) -> str:
    return url_for("keys.show_key", slug=slug, key_id=key_id)


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
