"""The pages of webhooks, through the browser's door without scripts: who is let in, what a form
does and says, that a secret is shown once, and what is told of deliveries."""

import json
import os
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from werkzeug.test import TestResponse

from console import clock as time
from console import db, outbox, projects, webhooks
from console.actor import Actor
from console.models import Delivery, Event, Membership, Project, Webhook
from tests.conftest import Clock, sign_in

HOOKS = "/projects/shop/webhooks"
URL = "https://hooks.example.com/T0/path-that-is-a-secret"
GONE = "It answered 410: what was there is gone for good."
DIALOG = {"HX-Request": "true", "HX-Target": "dialog"}
SECRET = re.compile(r"whsec_[\w+/]+=*")
# What may be asked for of one webhook, and of one delivery.
FORMS = ("edit", "enable", "disable", "rotate-secret", "delete")
OF_ONE = ["{hook}", *(f"{{hook}}/{one}" for one in FORMS), "{hook}/deliveries/{delivery}"]
SENT = [*(f"{{hook}}/{one}" for one in FORMS), "{hook}/test", "{hook}/deliveries/{delivery}/replay"]

MakeWebhook = Callable[..., Webhook]


def text_of(answer: TestResponse) -> str:
    """What is to be read on the page, without its marks."""
    main = answer.text.partition("<main")[2] or answer.text
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())


def rows_of(answer: TestResponse) -> list[str]:
    """What is to be read in each row of the table."""
    table = answer.text.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [unescape(re.sub(r"<[^>]*>", " ", f"<{row}")) for row in table.split("<tr ")[1:]]
    return [" ".join(row.split()) for row in rows]


def without_token(answer: TestResponse) -> str:
    """The page but for what differs each time, and the address that its theme leads back to."""
    return re.sub(r'(name="(?:csrf_token|next)" value)="[^"]*"', r"\1", answer.text)


def forms_token(answer: TestResponse) -> str:
    found = re.search(r'name="once" value="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


def is_checked(answer: TestResponse, value: str) -> bool:
    found = re.search(
        rf'<input type="\w+" name="\w+" value="{re.escape(value)}"[^>]*>', answer.text
    )
    assert found is not None, value
    return " checked" in found[0]


@pytest.fixture
def make_webhook(project: Project, operator: Actor) -> MakeWebhook:
    def make(url: str = URL, **fields: Any) -> Webhook:
        made, _ = webhooks.create({"url": url, "project": "shop", **fields}, by=operator)
        Delivery.delete().execute()  # of its own creation
        return made

    return make


@pytest.fixture
def hook(make_webhook: MakeWebhook) -> Webhook:
    return make_webhook()


@pytest.fixture
def put(hook: Webhook, clock: Clock) -> Callable[..., Delivery]:
    """A delivery of the webhook that ended so; the next is a second later."""

    def make(status: str = "delivered", **columns: Any) -> Delivery:
        clock.move_ms(1000)
        made = outbox.put(
            hook.id, "key.created", '{"type":"key.created","data":{"a":[1]}}', "msg_1"
        )
        done = {} if status == "pending" else {"next_attempt_at": None}
        Delivery.update(status=status, **done, **columns).where(Delivery.id == made.id).execute()
        return Delivery.get_by_id(made.id)

    return make


@pytest.fixture
def admins(app: Flask, admin: Actor) -> FlaskClient:
    """A browser in which the project's admin is signed in."""
    return sign_in(app, admin)


# --- who is let in --------------------------------------------------------------------------


def test_webhooks_are_the_pages_of_owners_and_admins(
    app: Flask, client: FlaskClient, signed_in: FlaskClient, admins: FlaskClient, member: Actor,
    viewer: Actor, stranger: Actor, hook: Webhook, put: Callable[..., Delivery],
) -> None:  # fmt: skip
    readers, outside = [sign_in(app, one) for one in (member, viewer)], sign_in(app, stranger)
    delivery = put()
    for path in ("", "/new", *(f"/{one}" for one in OF_ONE)):
        path = HOOKS + path.format(hook=hook.id, delivery=delivery.id)
        assert signed_in.get(path).status_code == admins.get(path).status_code == 200, path
        for browser in readers:
            answer = browser.get(path)
            assert answer.status_code == 403, path
            assert "Your role in this project does not allow this." in answer.text
        assert outside.get(path).status_code == 404
        assert client.get(path).location.startswith("/login")


def test_who_may_not_manage_a_project_changes_nothing(
    app: Flask, member: Actor, viewer: Actor, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    delivery, before = put("failed"), Webhook.select().dicts().get()
    for person in (member, viewer):
        browser = sign_in(app, person)
        for path in ("new", *SENT):
            at = f"{HOOKS}/{path.format(hook=hook.id, delivery=delivery.id)}"
            assert browser.post(at, data={"url": URL, "told": "all"}).status_code == 403, path
    assert Webhook.select().dicts().get() == before
    assert Delivery.select().count() == 1


def test_the_way_there_is_shown_to_whoever_may_go(
    app: Flask, signed_in: FlaskClient, admins: FlaskClient, member: Actor
) -> None:
    way = f'<a href="{HOOKS}">Webhooks</a>'
    for browser in (signed_in, admins):
        page = browser.get("/projects/shop/settings").text
        assert page.index(">Integrate<") < page.index(way) < page.index(">People<")
    assert way not in sign_in(app, member).get("/projects/shop/settings").text


def test_a_foreign_webhook_and_one_that_never_was_are_one_page(
    admins: FlaskClient, admin: Actor, operator: Actor, hook: Webhook, other_project: Project,
    put: Callable[..., Delivery],
) -> None:  # fmt: skip
    Membership.create(person=admin.id, project=other_project, role="viewer")  # whom it is shown to
    foreign, _ = webhooks.create({"url": URL, "project": "other"}, by=operator)
    strange = webhooks.test(foreign.id, by=operator).id
    delivery = put("failed").id
    for send, path in [(admins.get, one) for one in OF_ONE] + [(admins.post, one) for one in SENT]:
        kinds = [("whk_missing", delivery), (foreign.id, delivery)]
        if "{delivery}" in path:
            kinds += [(hook.id, "dlv_missing"), (hook.id, strange)]
        answers = [send(f"{HOOKS}/{path.format(hook=one, delivery=two)}") for one, two in kinds]
        assert {answer.status_code for answer in answers} == {404}, path
        bodies = [re.sub(r"req_\w+", "", without_token(answer)) for answer in answers]
        assert bodies[0] == bodies[1] and bodies[2:3] == bodies[3:4], path


def test_a_webhook_of_another_project_is_not_shown_in_this_one(
    signed_in: FlaskClient, operator: Actor, project: Project, other_project: Project
) -> None:
    """Also to whoever manages both: the page would name the wrong project."""
    foreign, _ = webhooks.create({"url": URL, "project": "other"}, by=operator)
    strange = webhooks.test(foreign.id, by=operator).id
    for path in OF_ONE:
        here = path.format(hook=foreign.id, delivery=strange)
        assert signed_in.get(f"{HOOKS}/{here}").status_code == 404, path
        assert signed_in.get(f"/projects/other/webhooks/{here}").status_code == 200, path


def test_a_form_of_another_session_is_refused(
    app: Flask, signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    delivery = put("failed")
    app.config["WTF_CSRF_ENABLED"] = True
    for path in ("new", *SENT):
        at = f"{HOOKS}/{path.format(hook=hook.id, delivery=delivery.id)}"
        assert signed_in.post(at, data={"url": URL, "told": "all"}).status_code == 400, path
    assert Webhook.select().count() == Delivery.select().count() == 1
    assert Webhook.get_by_id(hook.id).enabled


# --- the list -------------------------------------------------------------------------------


def test_an_empty_list_says_what_a_webhook_is_for(signed_in: FlaskClient) -> None:
    page = signed_in.get(HOOKS)
    told = text_of(page)
    assert "No webhooks yet" in told and "signed after the Standard Webhooks" in told
    assert page.text.count(f'href="{HOOKS}/new"') == 1


def test_the_list_says_where_what_and_how_it_went(
    signed_in: FlaskClient, make_webhook: MakeWebhook, put: Callable[..., Delivery]
) -> None:
    events = ["key.*", "project.edited", "key.restored", "member.added", "member.removed"]
    make_webhook("https://b.example.com/", events=events, enabled=False, description="For #ops")
    make_webhook("https://c.example.com/")
    Webhook.update(enabled=False, disabled_reason=GONE).where(
        Webhook.url == "https://c.example.com/"
    ).execute()
    make_webhook("https://d.example.com/")
    for status in ("failed", "pending", "pending"):
        put(status)
    rows = rows_of(signed_in.get(HOOKS))
    told = {re.findall(r"https://(\w+)", row)[0]: row for row in rows}
    assert f"{URL} Every event Enabled Waiting just now 2" in told["hooks"]
    assert (
        "For #ops Everything about keys, project edited, key enabled and 2 more Disabled"
        in (told["b"])
    )
    assert f"Disabled {GONE}" in told["c"]
    assert "Every event Enabled Nothing sent yet 0" in told["d"]


def test_a_full_project_says_so_and_offers_no_more(
    signed_in: FlaskClient, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WEBHOOKS_MAX", 1)
    page = signed_in.get(HOOKS)
    assert "at most 1 webhooks. Delete one to add another." in text_of(page)
    assert f"{HOOKS}/new" not in page.text
    answer = signed_in.post(f"{HOOKS}/new", data={"url": URL, "told": "all"})
    assert answer.status_code == 409
    assert "A project has at most 1 webhooks. Delete one first." in text_of(answer)


# --- add ------------------------------------------------------------------------------------


def test_a_webhook_is_added_and_its_secret_shown_once(
    signed_in: FlaskClient, project: Project, owner: Actor
) -> None:
    form = {"url": f" {URL} ", "told": "all", "description": "For #ops"}
    form["once"] = forms_token(signed_in.get(f"{HOOKS}/new"))
    answer = signed_in.post(f"{HOOKS}/new", data=form)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    made = Webhook.get()
    assert (made.url, made.events, made.description) == (URL, ["*"], "For #ops")
    assert made.enabled
    event = Event.select().where(Event.action == "webhook.created").get()
    assert event.actor_name == owner.name
    secrets = set(SECRET.findall(answer.text))
    assert len(secrets) == 1
    again = signed_in.post(f"{HOOKS}/new", data=form)
    assert again.status_code == 409 and "This form was sent already" in text_of(again)
    assert Webhook.select().count() == 1
    for path in (HOOKS, f"{HOOKS}/{made.id}", f"{HOOKS}/{made.id}/edit"):
        assert secrets.isdisjoint(SECRET.findall(signed_in.get(path).text)), path
    assert SECRET.search(again.text) is None


def test_who_delivers_hears_of_a_new_webhook_once_it_can_be_seen(
    signed_in: FlaskClient, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bool] = []
    monkeypatch.setattr(webhooks.news, "set", lambda: heard.append(db.handle.in_transaction()))
    form = {"url": URL, "told": "all", "once": "x" * 20}
    assert signed_in.post(f"{HOOKS}/new", data=form).status_code == 200
    assert heard and not heard[-1]


def test_the_secret_is_hidden_where_scripts_can_show_it(signed_in: FlaskClient) -> None:
    form = {"url": URL, "told": "all", "once": "x" * 20}
    answer = signed_in.post(f"{HOOKS}/new", data=form, headers=DIALOG)
    assert len(SECRET.findall(answer.text)) == 1
    assert 'id="secret" class="mono" type="password"' in answer.text
    assert json.loads(answer.headers["HX-Trigger"])["keys-changed"] == {"id": Webhook.get().id}


def test_the_python_that_is_offered_verifies_a_message(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = signed_in.post(f"{HOOKS}/new", data={"url": URL, "told": "all"})
    found = re.search(r'<pre id="snippet-python" tabindex="0">(.*?)</pre>', answer.text, re.DOTALL)
    assert found is not None
    code = unescape(found[1])
    secret = SECRET.search(code)
    assert secret is not None
    monkeypatch.setitem(os.environ, "SHOP_WEBHOOK_SECRET", secret[0])
    made: dict[str, Any] = {}
    exec(code, made)
    delivery = Delivery.select(Delivery, Webhook).join(Webhook).get()
    headers = webhooks.headers(delivery)
    assert made["receive"](delivery.payload.encode(), headers)["type"] == "webhook.created"
    with pytest.raises(WebhookVerificationError):
        made["receive"](delivery.payload.encode() + b" ", headers)


def test_every_event_is_the_default_and_the_form_offers_all_there_are(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = signed_in.get(f"{HOOKS}/new")
    assert is_checked(page, "all") and not is_checked(page, "some")
    offered = set(re.findall(r'name="events" value="([^"]+)"', page.text))
    assert offered == set(webhooks.PATTERNS) - {"*"}
    more = (*webhooks.PATTERNS, "thing.*", "thing.went_wrong")
    monkeypatch.setattr(webhooks, "PATTERNS", more)
    told = text_of(signed_in.get(f"{HOOKS}/new"))
    assert "Everything about things thing.* Thing went wrong" in told


def test_events_of_a_kind_that_is_told_whole_are_not_told_one_by_one(
    signed_in: FlaskClient, project: Project
) -> None:
    ticked = ["key.*", "key.created", "member.added"]
    signed_in.post(f"{HOOKS}/new", data={"url": URL, "told": "some", "events": ticked})
    assert Webhook.get().events == ["key.*", "member.added"]
    page = signed_in.get(f"{HOOKS}/{Webhook.get().id}/edit")
    assert is_checked(page, "some") and not is_checked(page, "all")
    assert [one for one in webhooks.PATTERNS[1:] if is_checked(page, one)] == [
        "key.*", "member.added"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "form, field, words",
    [
        ({"url": "ftp://x"}, "url", "Must be an address such as https://hooks.example.com"),
        ({"url": "https://127.0.0.1/"}, "url", "Must lead to a public address"),
        ({"url": ""}, "url", "Must be an address"),
        ({"told": "some"}, "events", "Tick at least one, or choose every event."),
        ({"told": "some", "events": ["key.exploded"]}, "events", "Must be one of"),
        ({"description": "x" * 1001}, "description", "at most 1000 are allowed"),
    ],
    ids=lambda one: str(one)[:40],
)
@pytest.mark.parametrize("place", ["new", "edit"])
def test_what_is_wrong_is_said_beside_its_field_and_the_rest_stays_typed(
    signed_in: FlaskClient, hook: Webhook, place: str, form: Any, field: str, words: str
) -> None:
    given = {"url": f"{URL}/typed", "told": "all", "description": "Typed", "once": "x" * 20, **form}
    at = f"{HOOKS}/new" if place == "new" else f"{HOOKS}/{hook.id}/edit"
    answer = signed_in.post(at, data=given)
    assert answer.status_code == 422
    beside = re.search(rf'<p class="error" id="{field}-error">([^<]+)', answer.text)
    assert beside is not None and words in unescape(beside[1])
    assert answer.text.count('class="error"') == 1
    assert f'value="{given["url"]}"' in answer.text and given["description"] in answer.text
    assert is_checked(answer, given["told"])
    assert place == "edit" or 'name="once" value="xxxx' in answer.text
    assert [one.url for one in Webhook.select()] == [URL]


# --- change ---------------------------------------------------------------------------------


def test_a_webhook_is_edited(admins: FlaskClient, admin: Actor, hook: Webhook) -> None:
    page = admins.get(f"{HOOKS}/{hook.id}/edit")
    assert f'value="{URL}"' in page.text and is_checked(page, "all")
    form = {"url": "https://new.example.com/", "told": "some", "events": "key.*", "description": ""}
    answer = admins.post(f"{HOOKS}/{hook.id}/edit", data=form)
    assert (answer.status_code, answer.location) == (303, f"{HOOKS}/{hook.id}")
    saved = Webhook.get_by_id(hook.id)
    assert (saved.url, saved.events) == ("https://new.example.com/", ["key.*"])
    event = Event.select().where(Event.action == "webhook.edited").get()
    assert event.actor_name == admin.name and "path-that-is-a-secret" not in str(event.changes)
    assert "new.example.com saved" in admins.get(answer.location).text


def test_disabling_says_what_is_given_up_and_enabling_takes_it_back(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    put("pending")
    at = f"{HOOKS}/{hook.id}"
    assert "1 message waits and is given up." in text_of(signed_in.get(f"{at}/disable"))
    assert signed_in.post(f"{at}/disable").location == at
    assert not Webhook.get_by_id(hook.id).enabled
    page = signed_in.get(at)
    assert "Failed" in text_of(page) and "The webhook was disabled." in text_of(page)
    assert "/replay" not in page.text and "/test" not in page.text
    assert "enable the webhook first" in page.text
    assert signed_in.post(f"{at}/enable").location == at
    assert Webhook.get_by_id(hook.id).enabled
    assert "/replay" in signed_in.get(at).text


def test_a_webhook_that_latchkey_disabled_says_why(signed_in: FlaskClient, hook: Webhook) -> None:
    Webhook.update(enabled=False, disabled_reason=GONE).execute()
    at = f"{HOOKS}/{hook.id}"
    assert f"Latchkey disabled it. {GONE}" in text_of(signed_in.get(at))
    assert GONE in text_of(signed_in.get(f"{at}/enable"))


@pytest.mark.parametrize("grace, signs_until", [("", None), ("24h", "21 Nov 2026, 10:30:00 UTC")])
def test_a_secret_is_rotated_once_and_the_old_one_signs_as_long_as_was_said(
    signed_in: FlaskClient, hook: Webhook, operator: Actor, clock: Clock, grace: str,
    signs_until: str | None,
) -> None:  # fmt: skip
    at = f"{HOOKS}/{hook.id}/rotate-secret"
    page = signed_in.get(at)
    assert re.findall(r'<option value="(\w*)"', page.text) == ["", "1h", "24h", "7d"]
    form = {"grace_period": grace, "once": forms_token(page)}
    old = Webhook.get_by_id(hook.id).secret
    answer = signed_in.post(at, data=form)
    assert answer.headers["Cache-Control"] == "no-store"
    shown = set(SECRET.findall(answer.text))
    assert len(shown) == 1
    ends = f"signs, too, until {signs_until}" if signs_until else "has stopped signing"
    assert f"The old secret {ends}." in text_of(answer).replace(" .", ".")
    rotated = Webhook.get_by_id(hook.id)
    assert rotated.secret != old
    assert (rotated.previous_secret == old) == bool(grace)
    delivery = webhooks.test(hook.id, by=operator)
    delivery.webhook = rotated
    assert len(webhooks.headers(delivery)["webhook-signature"].split()) == 1 + bool(grace)
    again = signed_in.post(at, data=form)
    assert again.status_code == 409 and SECRET.search(again.text) is None
    assert Webhook.get_by_id(hook.id).secret == rotated.secret
    assert ("Signs, too, until" in signed_in.get(f"{HOOKS}/{hook.id}").text) == bool(grace)
    assert ("Rotating now ends it." in signed_in.get(at).text) == bool(grace)


def test_the_secret_that_is_shown_signs(
    signed_in: FlaskClient, hook: Webhook, operator: Actor
) -> None:
    answer = signed_in.post(f"{HOOKS}/{hook.id}/rotate-secret", data={"grace_period": ""})
    delivery = webhooks.test(hook.id, by=operator)
    delivery.webhook = Webhook.get_by_id(hook.id)
    secret = SECRET.findall(answer.text)[0]
    assert Verifier(secret).verify(delivery.payload, webhooks.headers(delivery))


def test_a_period_that_is_none_is_said_beside_its_field(
    signed_in: FlaskClient, hook: Webhook
) -> None:
    at = f"{HOOKS}/{hook.id}/rotate-secret"
    answer = signed_in.post(at, data={"grace_period": "31d", "once": "x" * 20})
    assert answer.status_code == 422
    assert 'id="grace_period-error">Must be at most 30d.' in answer.text


def test_deleting_says_what_goes_and_leads_to_the_list(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    put("pending")
    put("pending")
    at = f"{HOOKS}/{hook.id}/delete"
    told = text_of(signed_in.get(at))
    assert URL in told and "2 messages wait and are never sent." in told
    answer = signed_in.post(at)
    assert (answer.status_code, answer.location) == (303, HOOKS)
    assert Webhook.select().count() == Delivery.select().count() == 0
    assert signed_in.get(f"{HOOKS}/{hook.id}").status_code == 404


# --- deliveries -----------------------------------------------------------------------------


def test_a_test_is_sent_and_told_in_the_log(signed_in: FlaskClient, hook: Webhook) -> None:
    at = f"{HOOKS}/{hook.id}"
    assert "Nothing sent yet" in signed_in.get(at).text
    answer = signed_in.post(f"{at}/test")
    assert (answer.status_code, answer.location) == (303, at)
    assert Delivery.get().event == "webhook.test"
    page = signed_in.get(at)
    assert "A test is on its way" in page.text
    assert "webhook.test Waiting" in text_of(page)
    # What is under way is asked for again by itself, and nothing else.
    assert 'hx-trigger="load delay:1s"' in page.text
    Delivery.update(next_attempt_at=time.now() + time.HOUR).execute()
    assert 'hx-trigger="load delay:1s"' not in signed_in.get(at).text


def test_the_log_says_what_came_of_each(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    put("delivered", attempts=1, response_status=204)
    put("failed", attempts=8, response_status=500, error="answered 500")
    waiting = put("pending", attempts=3, error="did not answer within 15 s")
    Delivery.update(next_attempt_at=time.now() + 2 * time.HOUR).where(
        Delivery.id == waiting.id
    ).execute()
    table = (
        signed_in.get(f"{HOOKS}/{hook.id}").text.partition("<tbody>")[2].partition("</tbody>")[0]
    )
    rows = [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in table.split("<tr ")[1:]]
    assert [row.partition("> ")[2] for row in rows] == [
        "20 Nov 10:30:03 msg_1 key.created Waiting 3 – Did not answer within 15 s. in 2 h",
        "20 Nov 10:30:02 msg_1 key.created Failed 8 500 Answered 500. – Send again",
        "20 Nov 10:30:01 msg_1 key.created Delivered 1 204 – – Send again",
    ]


def test_the_log_is_filtered_by_status_and_read_in_pages(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ids = {status: [put(status).id for _ in range(2)] for status in ("failed", "delivered")}

    def found(query: str, **headers: str) -> list[str]:
        answer = signed_in.get(f"{HOOKS}/{hook.id}{query}", headers=headers)
        assert answer.status_code == 200
        return re.findall(r'<tr id="(dlv_\w+)"', answer.text)

    assert found("?status=failed") == ids["failed"][::-1]
    assert found("?status=pending") == []
    assert "Nothing waiting" in signed_in.get(f"{HOOKS}/{hook.id}?status=pending").text
    monkeypatch.setattr("console.web.webhooks.ROWS", 1)
    page = signed_in.get(f"{HOOKS}/{hook.id}?status=failed").text
    assert '<input type="hidden" name="status" value="failed">' in page
    cursor = re.search(r'id="deliveries-next" name="cursor" value="([^"]+)"', page)
    assert cursor is not None
    query = f"?status=failed&cursor={cursor[1]}"
    assert found("?status=failed") + found(query) == ids["failed"][::-1]
    part = signed_in.get(
        f"{HOOKS}/{hook.id}{query}", headers={"HX-Request": "true", "HX-Target": "deliveries"}
    )
    assert part.text.lstrip().startswith("<section") and "<html" not in part.text
    assert part.headers["HX-Push-Url"] == f"{HOOKS}/{hook.id}{query}"
    for wrong in ("?status=lost", "?cursor=x"):
        answer = signed_in.get(f"{HOOKS}/{hook.id}{wrong}")
        assert answer.status_code == 422 and 'class="error" role="alert"' in answer.text


def test_a_delivery_shows_its_message_as_it_was_sent(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    delivery = put("failed", response_status=500, error="answered 500", duration_ms=1234)
    Delivery.update(payload='{"type":"x","data":{"name":"</pre><b>Ä"}}').execute()
    answer = signed_in.get(f"{HOOKS}/{hook.id}/deliveries/{delivery.id}")
    told = unescape(answer.text)
    assert '{\n  "type": "x",\n  "data": {\n    "name": "</pre><b>Ä"\n  }\n}' in told
    assert "</pre><b>" not in answer.text
    assert "Failed Answered 500." in text_of(answer)
    assert "500 after 1,234 ms" in text_of(answer)
    assert f'action="{HOOKS}/{hook.id}/deliveries/{delivery.id}/replay"' in answer.text


@pytest.mark.parametrize("status", ["delivered", "failed"])
def test_a_message_is_sent_again_under_its_own_id(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery], status: str
) -> None:
    old = put(status)
    answer = signed_in.post(f"{HOOKS}/{hook.id}/deliveries/{old.id}/replay")
    assert (answer.status_code, answer.location) == (303, f"{HOOKS}/{hook.id}")
    new = Delivery.select().where(Delivery.id != old.id).get()
    assert (new.status, new.message_id, new.payload) == ("pending", old.message_id, old.payload)
    in_dialog = signed_in.post(f"{HOOKS}/{hook.id}/deliveries/{old.id}/replay", headers=DIALOG)
    assert in_dialog.status_code == 204
    events = json.loads(in_dialog.headers["HX-Trigger"])
    assert events["keys-changed"]["id"].startswith("dlv_") and "close-dialog" in events


def test_nothing_is_sent_to_a_disabled_webhook(
    signed_in: FlaskClient, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    delivery = put("failed")
    Webhook.update(enabled=False).execute()
    for path in ("test", f"deliveries/{delivery.id}/replay"):
        answer = signed_in.post(f"{HOOKS}/{hook.id}/{path}")
        assert answer.status_code == 409
        assert "The webhook is disabled. Enable it first." in answer.text
    assert Delivery.select().count() == 1


# --- an archived project, hostile text --------------------------------------------------------


def test_in_an_archived_project_a_change_is_refused_with_a_sentence(
    signed_in: FlaskClient, operator: Actor, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    delivery = put("failed")
    projects.edit("shop", {"archived": True}, by=operator)
    before = [Webhook.select().dicts().get(), Delivery.select().count()]
    for path in ("new", *(one for one in SENT if not one.endswith("/delete"))):
        at = f"{HOOKS}/{path.format(hook=hook.id, delivery=delivery.id)}"
        answer = signed_in.post(at, data={"url": f"{URL}/new", "told": "all", "once": "x" * 20})
        assert answer.status_code == 409, path
        assert "The project shop is archived:" in text_of(answer)
        assert "until an owner restores it." in text_of(answer)
    assert [Webhook.select().dicts().get(), Delivery.select().count()] == before


def test_an_archived_project_offers_to_delete_its_webhooks_and_no_more(
    signed_in: FlaskClient, operator: Actor, hook: Webhook, put: Callable[..., Delivery]
) -> None:
    put("failed")
    projects.edit("shop", {"archived": True}, by=operator)
    page = signed_in.get(f"{HOOKS}/{hook.id}")
    ways = set(re.findall(rf"{HOOKS}/{hook.id}/([\w-]+)", page.text))
    assert ways == {"delete", "deliveries"} and "/replay" not in page.text
    assert f"{HOOKS}/new" not in signed_in.get(HOOKS).text
    assert signed_in.post(f"{HOOKS}/{hook.id}/delete").status_code == 303
    assert Webhook.select().count() == 0
    assert f"{HOOKS}/new" not in signed_in.get(HOOKS).text


def test_addresses_and_descriptions_are_never_markup(
    signed_in: FlaskClient, make_webhook: MakeWebhook
) -> None:
    made = make_webhook('https://x.example.com/"><img>', description="<img src=x onerror=alert(1)>")
    for path in ("", f"/{made.id}", *(f"/{made.id}/{form}" for form in FORMS)):
        assert "<img" not in signed_in.get(HOOKS + path).text, path
