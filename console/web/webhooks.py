"""A project's webhooks: the list, the page of each with what was sent there, and the dialogs that
make, change and end them. The one answer that carries a signing secret is here."""

import json
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Blueprint, current_app, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as BaseResponse

from console import clock, idempotency, outbox, webhooks
from console.errors import Conflict, Forbidden, Invalid, Refused, Unknown
from console.models import DELIVERED, FAILED, PENDING, Delivery, Webhook
from console.paging import Page
from console.permissions import PROJECTS_MANAGE
from console.web import actor, done, enter, in_dialog, invalid, is_htmx, path_of, words
from console.web.key_secret import DOTS
from console.web.keys import GRACES as GRACES_OF_KEYS

blueprint = Blueprint("webhooks", __name__, url_prefix="/projects/<slug>/webhooks")

Answer = str | tuple[str, int] | BaseResponse

ROWS = 25
SOON = 10 * clock.SECOND  # what is sent by then is waited for, and shown when it is there
GRACES = (("", "not at all: it stops now"), *GRACES_OF_KEYS[1:])
STATUSES = ((PENDING, "Waiting"), (DELIVERED, "Delivered"), (FAILED, "Failed"))
ALL, SOME = "all", "some"  # how the form says which events are told
GROUP_SUFFIX = ".*"
FORM_FIELDS = frozenset({"url", "events", "description", "grace_period"})
# Where the pages have another word than the name of the event.
CALLED = {"key.restored": "Key enabled", outbox.EVERY: "Every event"}


class Group(NamedTuple):
    """Events of one kind, as the form offers them: patterns, and what they are called."""

    pattern: str
    called: str
    events: list[tuple[str, str]]


class SentAlready(Conflict):
    """409: the same form, sent again. The secret was in the answer to the first time."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__("This form was sent already.")
        self.webhook_id = webhook_id


# --- what there is ----------------------------------------------------------------------------


@blueprint.get("")
def list_webhooks(slug: str) -> str:
    """The page; only what is in it when the page asks for it again."""
    enter(slug)
    rows = webhooks.page(by=actor(), project=slug).rows
    is_part = is_htmx() and request.headers.get("HX-Target") == "webhooks"
    return render_template(
        "webhooks/_list.html" if is_part else "webhooks/list.html",
        rows=[(one, webhooks.standing(one), _called(one)) for one in rows],
        most=webhooks.WEBHOOKS_MAX,
    )


@blueprint.get("/<webhook_id>")
def show_webhook(slug: str, webhook_id: str) -> Answer:
    """One webhook and its deliveries; only the part of it that the page asks for again."""
    webhook = _webhook_here(slug, webhook_id)
    part = request.headers.get("HX-Target") if is_htmx() else None
    parts = {"webhook": "webhooks/_page.html", "deliveries": "webhooks/_deliveries.html"}
    log = _log(webhook)
    page = render_template(parts.get(part or "", "webhooks/show.html"), **_story(webhook), **log)
    response = current_app.make_response((page, 422 if log["errors"] else 200))
    here = request.full_path.rstrip("?")
    if part == "deliveries" and path_of(request.headers.get("HX-Current-URL")) != here:
        response.headers["HX-Push-Url"] = here
    return response


def _story(webhook: Webhook) -> dict[str, Any]:
    return {
        "webhook": webhook,
        "host": _host(webhook),
        "called": _called(webhook),
        "old_until": _old_until(webhook),
    }


def _old_until(webhook: Webhook) -> int | None:
    """How long the secret before this one signs, too."""
    ends_at = webhook.previous_works_until
    return ends_at if ends_at and ends_at > clock.now() else None


def _log(webhook: Webhook) -> dict[str, Any]:
    """The deliveries that the address asks for, or what is wrong with it."""
    asked = {name: request.args[name] for name in ("status", "cursor") if request.args.get(name)}
    error: Refused | None = None
    page: Page[Delivery] = Page([], None, None)
    try:
        webhooks.DeliveryQuery.read(asked)
        page = webhooks.deliveries(webhook.id, by=actor(), limit=ROWS, **asked)
    except Invalid as refused:
        error = refused
    here, status = _page_of(webhook), asked.get("status")
    ways = [("All", here, not status)]
    ways += [(words, f"{here}?status={one}", status == one) for one, words in STATUSES]
    return {
        "page": page,
        "errors": error.fields if error else {},
        "ways": ways,
        "status_words": dict(STATUSES).get(status or ""),
        "filters": {"status": status} if status else {},
        "is_under_way": any(_is_soon(one) for one in page.rows),
    }


def _is_soon(delivery: Delivery) -> bool:
    due = delivery.next_attempt_at
    return due is not None and due <= clock.now() + SOON


@blueprint.get("/<webhook_id>/deliveries/<delivery_id>")
def show_delivery(slug: str, webhook_id: str, delivery_id: str) -> Answer:
    """One delivery, and the message that it carries."""
    webhook = _webhook_here(slug, webhook_id)
    delivery = webhooks.delivery_to_manage(webhook.id, delivery_id, by=actor())
    payload = json.dumps(json.loads(delivery.payload), indent=2, ensure_ascii=False)
    return _ask("webhooks/delivery.html", webhook, delivery=delivery, payload=payload)


# --- the dialogs ------------------------------------------------------------------------------


@blueprint.route("/new", methods=["GET", "POST"])
def create_webhook(slug: str) -> Answer:
    project = enter(slug)
    actor().require(PROJECTS_MANAGE, project.id)
    shown: dict[str, Any] = {"groups": _groups(), "back": _list(slug)}
    if request.method != "POST":
        form = {"told": ALL, "events": [], "once": _new_token()}
        return render_template("webhooks/create.html", form=form, errors={}, error=None, **shown)
    fields = {**_typed(request.form), "project": slug}
    try:
        made = _once("create_webhook", project.id, lambda: webhooks.create(fields, by=actor()))
    except SentAlready as again:
        return _show_sent_already(slug, again)
    except (Invalid, Conflict) as error:
        return _again("webhooks/create.html", error, **shown)
    # It was told within a transaction that had still to end.
    webhooks.news.set()
    return _show_secret(*made)


@blueprint.route("/<webhook_id>/edit", methods=["GET", "POST"])
def edit_webhook(slug: str, webhook_id: str) -> Answer:
    webhook = _webhook_here(slug, webhook_id)
    if request.method != "POST":
        form = _filled_in(webhook)
        return _ask("webhooks/edit.html", webhook, form=form, groups=_groups())
    try:
        webhook = webhooks.edit(webhook.id, _typed(request.form), by=actor())
    except (Invalid, Conflict) as error:
        return _ask("webhooks/edit.html", webhook, error=error, groups=_groups())
    return _done(webhook, f"{_host(webhook)} saved")


@blueprint.route("/<webhook_id>/enable", methods=["GET", "POST"])
def enable_webhook(slug: str, webhook_id: str) -> Answer:
    return _switch(slug, webhook_id, "webhooks/enable.html", True)


@blueprint.route("/<webhook_id>/disable", methods=["GET", "POST"])
def disable_webhook(slug: str, webhook_id: str) -> Answer:
    """Says how many messages are given up by it."""
    return _switch(slug, webhook_id, "webhooks/disable.html", False)


def _switch(slug: str, webhook_id: str, template: str, enabled: bool) -> Answer:
    webhook = _webhook_here(slug, webhook_id)
    if request.method != "POST":
        return _ask(template, webhook)
    try:
        webhook = webhooks.edit(webhook.id, {"enabled": enabled}, by=actor())
    except Conflict as error:
        return _ask(template, webhook, error=error)
    return _done(webhook, f"{_host(webhook)} {'enabled' if enabled else 'disabled'}")


@blueprint.route("/<webhook_id>/rotate-secret", methods=["GET", "POST"])
def rotate_webhook_secret(slug: str, webhook_id: str) -> Answer:
    webhook = _webhook_here(slug, webhook_id)
    shown: dict[str, Any] = {"graces": GRACES, "old_until": _old_until(webhook)}
    if request.method != "POST":
        return _ask("webhooks/rotate_secret.html", webhook, form={"once": _new_token()}, **shown)
    fields = {"grace_period": request.form.get("grace_period") or None}
    try:
        webhook, secret = _once(
            ["rotate_webhook_secret", webhook.id],
            webhook.project_id,
            lambda: webhooks.rotate_secret(webhook.id, fields, by=actor()),
        )
    except SentAlready as again:
        return _show_sent_already(slug, again)
    except (Invalid, Conflict) as error:
        return _ask("webhooks/rotate_secret.html", webhook, error=error, **shown)
    return _show_secret(webhook, secret, is_rotated=True)


@blueprint.route("/<webhook_id>/delete", methods=["GET", "POST"])
def delete_webhook(slug: str, webhook_id: str) -> Answer:
    webhook = _webhook_here(slug, webhook_id)
    if request.method != "POST":
        return _ask("webhooks/delete.html", webhook)
    webhooks.delete(webhook.id, by=actor())
    return done(f"{_host(webhook)} deleted", _list(slug), leaves=True)


@blueprint.post("/<webhook_id>/test")
def test_webhook(slug: str, webhook_id: str) -> Answer:
    """Sends a message that tells of nothing."""
    webhook = _webhook_here(slug, webhook_id)
    delivery = webhooks.test(webhook.id, by=actor())
    return _done(webhook, "A test is on its way", delivery.id)


@blueprint.post("/<webhook_id>/deliveries/<delivery_id>/replay")
def replay_delivery(slug: str, webhook_id: str, delivery_id: str) -> Answer:
    webhook = _webhook_here(slug, webhook_id)
    delivery = webhooks.replay(webhook.id, delivery_id, by=actor())
    return _done(webhook, "The message is on its way again", delivery.id)


# --- what is typed ----------------------------------------------------------------------------


def _typed(form: MultiDict[str, str]) -> dict[str, Any]:
    """A webhook's settings as the form says them, in the API's terms."""
    names = [name for name in ("url", "description") if name in form]
    fields: dict[str, Any] = {name: form[name].strip() for name in names}
    if form.get("told") == ALL:
        fields["events"] = [outbox.EVERY]
    elif "told" in form:
        fields["events"] = _ticked(form.getlist("events"))
    return fields


def _ticked(patterns: list[str]) -> list[str]:
    """Without those whose whole kind is ticked: the form hides them then."""
    groups = {one for one in patterns if one.endswith(GROUP_SUFFIX)}
    return [one for one in patterns if one in groups or _group_of(one) not in groups]


def _group_of(pattern: str) -> str:
    return pattern.partition(".")[0] + GROUP_SUFFIX


def _form_as_typed() -> dict[str, Any]:
    return {**request.form.to_dict(), "events": request.form.getlist("events")}


def _filled_in(webhook: Webhook) -> dict[str, Any]:
    """The edit form as the webhook stands."""
    return {
        "url": webhook.url,
        "description": webhook.description,
        "told": ALL if outbox.EVERY in webhook.events else SOME,
        "events": webhook.events,
    }


def _in_words_of_the_form(error: Refused) -> None:
    """The form has boxes where the API has a list of patterns."""
    names = {name.partition(".")[0] for name in error.fields}
    if "events" in names and not request.form.getlist("events"):
        error.fields["events"] = "tick at least one, or choose every event"
    for name in [one for one in error.fields if one.startswith("events.")]:
        error.fields["events"] = error.fields.pop(name)


def _groups() -> list[Group]:
    """All that a webhook may be told of, by kind."""
    groups = [one for one in webhooks.PATTERNS if one.endswith(GROUP_SUFFIX)]
    return [
        Group(
            group,
            _words_of(group),
            [
                (one, _words_of(one))
                for one in webhooks.PATTERNS
                if one not in (group, outbox.EVERY) and _group_of(one) == group
            ],
        )
        for group in groups
    ]


def _words_of(pattern: str) -> str:
    """`Key created` for `key.created`, `Everything about keys` for `key.*`."""
    if pattern in CALLED:
        return CALLED[pattern]
    kind, _, what = pattern.partition(".")
    if pattern.endswith(GROUP_SUFFIX):
        return f"Everything about {words.GROUP_WORDS.get(pattern, f'{kind}s').lower()}"
    return f"{kind} {what.replace('_', ' ')}".capitalize()


def _called(webhook: Webhook) -> list[str]:
    """What it is told of, in words."""
    return [_words_of(one) for one in webhook.events]


# --- what is shown ----------------------------------------------------------------------------


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _once(
    what: Any, project_id: str, work: Callable[[], tuple[Webhook, str]]
) -> tuple[Webhook, str]:
    """The webhook and its secret. A form that is sent a second time, by a reload or two clicks,
    does nothing; and the secret is in no second answer. Raises SentAlready."""
    made: list[tuple[Webhook, str]] = []

    def noted() -> tuple[str, dict[str, str]]:
        made.append(work())
        return project_id, {"id": made[0][0].id}

    kept, is_again = idempotency.once(
        request.form.get("once") or None,
        signing_key=current_app.config["LATCHKEY"].secret_key,
        request=what,
        by=actor(),
        work=noted,
    )
    if is_again:
        raise SentAlready(kept["id"])
    return made[0]


def _show_secret(webhook: Webhook, secret: str, is_rotated: bool = False) -> BaseResponse:
    """The signing secret, in a dialog hidden until asked for: no redirect, no cache, no session."""
    is_hidden = in_dialog()
    page = render_template(
        "webhooks/secret.html",
        secret=secret,
        shown=DOTS if is_hidden else secret,
        is_hidden=is_hidden,
        is_rotated=is_rotated,
        back=_page_of(webhook),
        **_story(webhook),
    )
    response = current_app.make_response(page)
    response.headers["HX-Trigger"] = json.dumps({"keys-changed": {"id": webhook.id}})
    return response


def _show_sent_already(slug: str, again: SentAlready) -> Answer:
    """The webhook may have been deleted since."""
    try:
        webhook = _webhook_here(slug, again.webhook_id)
    except Unknown:
        webhook = None
    shown = {"webhook": webhook, "host": _host(webhook) if webhook else ""}
    page = render_template("webhooks/sent_already.html", back=_list(slug), **shown)
    return page, again.status


def _ask(
    template: str, webhook: Webhook, *, error: Refused | None = None, **context: Any
) -> Answer:
    """A dialog about the webhook; again, with what was wrong."""
    shown: dict[str, Any] = {
        "webhook": webhook,
        "host": _host(webhook),
        "back": _page_of(webhook),
        "waiting": webhooks.standing(webhook).waiting,
        **context,
    }
    if error is not None:
        return _again(template, error, **shown)
    return render_template(template, errors={}, error=None, **shown)


def _again(template: str, error: Refused, **shown: Any) -> Answer:
    """The form as it was typed, and what is wrong with it."""
    _in_words_of_the_form(error)
    is_told = not FORM_FIELDS.isdisjoint(error.fields)
    return invalid(template, error, form=_form_as_typed(), is_told=is_told, **shown)


def _done(webhook: Webhook, notice: str, row: str | None = None) -> BaseResponse:
    return done(notice, _page_of(webhook), key_id=row or webhook.id)


def _webhook_here(slug: str, webhook_id: str) -> Webhook:
    """The webhook of this page, which lies in the project that the address names; one of a project
    that somebody only reads is not there, either. Raises Unknown, Forbidden."""
    project = enter(slug)
    actor().require(PROJECTS_MANAGE, project.id)
    try:
        webhook = webhooks.webhook_to_manage(webhook_id, by=actor())
    except Forbidden:
        webhook = None
    if webhook is None or webhook.project_id != project.id:
        raise Unknown("There is no such webhook.")
    return webhook


def _host(webhook: Webhook) -> str:
    return urlsplit(webhook.url).netloc


def _list(slug: str) -> str:
    return url_for("webhooks.list_webhooks", slug=slug)


def _page_of(webhook: Webhook) -> str:
    slug = webhook.project.slug
    return url_for("webhooks.show_webhook", slug=slug, webhook_id=webhook.id)
