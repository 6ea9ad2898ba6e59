"""Integrate: what is to be pasted fits this installation, and a test of a key leaves no trace."""

import html
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from console import audit, check, db, journal, keys, known, limits, secret
from console.actor import Actor
from console.check import (
    EXPIRED_KEY,
    INVALID,
    IP_NOT_ALLOWED,
    MALFORMED,
    MISSING,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    UNAVAILABLE,
    VALID,
    Request,
)
from console.errors import Forbidden, Unknown
from console.gate import Question
from console.models import Attempt, Entry, Event, Key, LimitCount, Project, Secret, Usage
from console.web import integrate, proxy_files
from tests.conftest import Clock, MakeKey, bearer, checked, sign_in

HERE = "192.0.2.1"
PAGE = "/projects/shop/integrate"
IN_RESULT = {"HX-Request": "true", "HX-Target": "result"}
FOREIGN = "AKIA-made-elsewhere"


def asked(text: str | None = None, **more: Any) -> Request:
    return Request(**{"secret": text, "request_id": "r", "ip": HERE, "project": "shop", **more})


def told(explained: tuple[check.Verdict, list[check.Step]]) -> Any:
    """All that is told of a verdict but its time."""
    verdict, steps = explained
    facts = verdict.code, verdict.key, verdict.missing_permissions, verdict.allowance
    return facts, [(step.check, step.code, step.detail) for step in steps]


def traces() -> Any:
    """What a check could leave behind: rows, entries under way, attempts, counts of limits."""
    tables = (Key, Secret, Entry, Usage, LimitCount, Attempt, Event)
    rows = [sorted(map(repr, table.select().tuples())) for table in tables]
    assert journal._journal is not None
    under_way = [file.written for file in journal._journal._files]
    spent = {key: dict(counts) for key, counts in limits._store._counts.items() if counts}
    return rows, under_way, dict(audit._attempts), spent


# --- a key that is picked by its name ---------------------------------------------------------

HAPPENS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[..., Any]]] = {
    VALID: ({"permissions": ["a:*"]}, {"permissions": ("a:b",)}, lambda key, by, clock: None),
    REVOKED_KEY: ({}, {}, lambda key, by, clock: keys.revoke(key.id, by=by)),
    EXPIRED_KEY: ({"expires_in": "1h"}, {}, lambda key, by, clock: clock.move("1h")),
    IP_NOT_ALLOWED: ({"ip_allowlist": ["10.0.0.0/8"]}, {}, lambda key, by, clock: None),
    PERMISSION_DENIED: ({}, {"permissions": ("a:b",)}, lambda key, by, clock: None),
    PROJECT_MISMATCH: ({}, {"project": "other"}, lambda key, by, clock: None),
    RATE_LIMITED: ({"rate_limit": {"per_hour": 1}}, {"cost": 2}, lambda key, by, clock: None),
    QUOTA_EXCEEDED: ({"monthly_quota": 1}, {"cost": 2}, lambda key, by, clock: None),
}


@pytest.mark.parametrize("code", HAPPENS)
def test_a_picked_key_is_judged_as_its_secret_is(
    clock: Clock, make_key: MakeKey, operator: Actor, code: str
) -> None:
    settings, more, happens = HAPPENS[code]
    key, text = make_key(**settings)
    happens(key, operator, clock)
    by_secret = check.explain(asked(text, **more))
    by_name = check.explain_key(key.id, asked(**more), by=operator)
    assert by_name[0].code == code
    assert told(by_name)[0] == told(by_secret)[0]
    assert told(by_name)[1][3:] == told(by_secret)[1][3:]


def test_what_a_secret_must_be_is_taken_as_passed(make_key: MakeKey, operator: Actor) -> None:
    _, steps = check.explain_key(make_key()[0].id, asked(), by=operator)
    assert [(one.check, one.code) for one in steps[:3]] == [
        ("present", None), ("well_formed", None), ("known", None),
    ]  # fmt: skip
    assert {one.detail for one in steps[:3]} == {"Taken as passed: you picked it by name."}
    assert "Taken" not in steps[3].detail


def test_a_picked_key_stands_for_its_present_secret(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    for grace in ("1h", None):
        _, text, _ = keys.rotate(key.id, {"grace_period": grace}, by=operator)
        verdict, _ = check.explain_key(key.id, asked(), by=operator)
        assert verdict.code == VALID
        assert verdict.key == known.find(secret.digest(text))


def test_an_imported_key_can_be_picked(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key()
    Secret.update(digest=secret.digest(FOREIGN), imported_at=1).execute()
    assert check.explain_key(key.id, asked(), by=operator)[0].code == VALID


def test_only_a_key_that_one_may_see_can_be_picked(
    make_key: MakeKey, member: Actor, viewer: Actor, stranger: Actor, operator: Actor,
    project: Project,
) -> None:  # fmt: skip
    key, _ = make_key()
    own, _ = make_key(by=member)
    blind = Actor("key", "key_x", "CI", project_id=project.id, permissions=frozenset({"a:b"}))
    assert check.explain_key(key.id, asked(), by=viewer)[0].code == VALID
    assert check.explain_key(own.id, asked(), by=member)[0].code == VALID
    for by, refusal in ((member, Unknown), (stranger, Unknown), (blind, Forbidden)):
        with pytest.raises(refusal):
            check.explain_key(key.id, asked(), by=by)
    keys.delete(key.id, by=operator)
    with pytest.raises(Unknown):
        check.explain_key(key.id, asked(), by=operator)


# --- a secret that is pasted ------------------------------------------------------------------


@pytest.mark.parametrize("state", ["as it is", "revoked", "expired", "superseded", "limited"])
@pytest.mark.parametrize("who", ["member", "stranger", "blind"])
def test_of_a_key_that_one_may_not_see_nothing_is_told(
    clock: Clock, make_key: MakeKey, operator: Actor, project: Project,
    request: pytest.FixtureRequest, who: str, state: str,
) -> None:  # fmt: skip
    """Not even that there is one: whoever found a secret could try it here and leave no trace."""
    if who == "blind":
        by = Actor("key", "key_x", "CI", project_id=project.id, permissions=frozenset({"a:b"}))
    else:
        by = request.getfixturevalue(who)
    key, text = make_key(expires_in="1d", plan="free", ip_allowlist=["10.0.0.0/8"])
    if state == "revoked":
        keys.revoke(key.id, by=operator)
    elif state == "expired":
        clock.move("2d")
    elif state == "superseded":
        keys.rotate(key.id, {}, by=operator)
    never_made = secret.mint("sk", "live")
    assert check.explain(asked(text))[0].code != INVALID
    for more in ({}, {"project": None}, {"project": "other"}):
        found = told(check.explain_to(asked(text, **more), by=by))
        assert found == told(check.explain_to(asked(never_made, **more), by=by))
        assert found[0] == (INVALID, None, (), limits.NONE)


def test_of_an_imported_key_that_one_may_not_see_nothing_is_told(
    make_key: MakeKey, member: Actor, operator: Actor
) -> None:
    make_key()
    Secret.update(digest=secret.digest(FOREIGN), imported_at=1).execute()
    known.expect_imported()
    assert check.explain_to(asked(FOREIGN), by=operator)[0].code == VALID
    found = check.explain_to(asked(FOREIGN), by=member)
    assert found[0].code == MALFORMED
    assert told(found) == told(check.explain_to(asked(f"{FOREIGN}x"), by=member))


def test_a_pasted_secret_of_a_key_that_one_sees_is_judged_as_it_would_be(
    make_key: MakeKey, member: Actor, viewer: Actor, admin: Actor
) -> None:
    _, own = make_key(by=member)
    for by in (member, viewer, admin):
        assert told(check.explain_to(asked(own), by=by)) == told(check.explain(asked(own)))


def test_a_key_of_another_project_that_one_sees_is_elsewhere(
    make_key: MakeKey, owner: Actor, other_project: Project
) -> None:
    _, text = make_key(project="other")
    verdict, steps = check.explain_to(asked(text), by=owner)
    assert (verdict.code, verdict.key) == (PROJECT_MISMATCH, None)
    assert steps[-1].check == "project"


@pytest.mark.parametrize("text, code", [(None, MISSING), ("", MISSING), ("x", MALFORMED)])
def test_what_is_no_secret_is_named_as_that(member: Actor, text: str | None, code: str) -> None:
    assert check.explain_to(asked(text), by=member)[0].code == code


def test_a_failing_database_is_no_bad_key(
    make_key: MakeKey, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = make_key()

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise peewee.OperationalError("gone")

    monkeypatch.setattr(db.handle.obj, "execute_sql", broken)
    for explained in (
        check.explain_to(asked(text), by=owner), check.explain_key(key.id, asked(), by=owner),
    ):  # fmt: skip
        assert told(explained) == ((UNAVAILABLE, None, (), limits.NONE), [])


# --- a test leaves no trace -------------------------------------------------------------------

PASTED = {
    "a good secret": lambda made: made["good"],
    "a limited key's": lambda made: made["limited"],
    "an unseen key's": lambda made: made["unseen"],
    "a secret of nobody": lambda made: secret.mint("sk", "live"),
    "a cut one": lambda made: made["good"][:-1],
    "nothing": lambda made: "",
    "a wall of text": lambda made: "x" * 5_000,
    "a NUL": lambda made: "sk_live_\0",
    "another script": lambda made: "ключ",
}


@pytest.mark.parametrize("what", PASTED)
def test_whatever_is_pasted_nothing_is_spent_or_recorded(
    clock: Clock, app: Flask, make_key: MakeKey, member: Actor, what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    _, good = make_key(by=member)
    _, limited = make_key(by=member, rate_limit={"per_minute": 1}, monthly_quota=1)
    _, unseen = make_key()
    made = {"good": good, "limited": limited, "unseen": unseen}
    checked(asked(good))
    browser = sign_in(app, member)
    text = PASTED[what](made)
    before = traces()
    for headers in ({}, IN_RESULT):
        for more in ({}, {"ip": "198.51.100.9", "permissions": "a:b", "path": "/x?key=1"}):
            data = {"with": "secret", "secret": text, "method": "GET", **more}
            answer = browser.post(PAGE, data=data, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.headers["Cache-Control"] == "no-store"
            if len(text) > 8:
                assert text not in answer.text
                assert html.escape(text) not in answer.text
                assert text not in str(answer.headers)
    assert traces() == before
    if len(text) > 8:
        assert text not in caplog.text
    assert checked(asked(limited)).code == VALID


def test_a_picked_key_spends_and_records_nothing(
    clock: Clock, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, text = make_key(rate_limit={"per_minute": 1})
    before = traces()
    for _ in range(3):
        assert "200 VALID" in signed_in.post(PAGE, data={"with": "key", "key": key.id}).text
    assert traces() == before
    assert Key.get(Key.id == key.id).last_used_at is None
    assert checked(asked(text)).code == VALID
    assert "429 RATE_LIMITED" in signed_in.post(PAGE, data={"with": "key", "key": key.id}).text


def test_a_test_is_a_post_with_a_token(
    app: Flask, signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, text = make_key()
    app.config["WTF_CSRF_ENABLED"] = True
    refused = signed_in.post(PAGE, data={"with": "secret", "secret": text})
    assert text not in refused.text
    assert refused.status_code == 400
    assert "200 VALID" not in refused.text
    app.config["WTF_CSRF_ENABLED"] = False
    assert "200 VALID" not in signed_in.get(f"{PAGE}?with=key&key={key.id}").text


# --- the tester's page ------------------------------------------------------------------------


def plain(page: str) -> str:
    """The page's words, without its marks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


Test = Callable[..., str]


@pytest.fixture
def run_test(app: Flask, owner: Actor, clock: Clock) -> Test:
    """The result for somebody, in plain words or as it is."""
    browsers: dict[str, FlaskClient] = {}

    def run(key: Key | str | None, *, by: Actor = owner, raw: bool = False, **more: Any) -> str:
        browser = browsers.setdefault(by.name, sign_in(app, by))
        chosen = {"with": "key", "key": key.id} if isinstance(key, Key) else {
            "with": "secret", "secret": key or ""
        }  # fmt: skip
        answer = browser.post(PAGE, data={**chosen, **more}, headers=IN_RESULT)
        assert answer.status_code == 200, answer.text
        return answer.text if raw else plain(answer.text)

    return run


def test_the_page_names_every_rule_in_the_order_of_a_check(
    make_key: MakeKey, run_test: Test
) -> None:
    key, text = make_key()
    steps = check.explain(asked(text))[1]
    assert list(integrate.STEPS) == [step.check for step in steps]
    page = run_test(key, raw=True)
    assert re.findall(r"<li class=\"passed\"><b>([^<]+)</b>", page) == list(
        integrate.STEPS.values()
    )


def test_a_good_key_shows_what_a_proxy_sees(make_key: MakeKey, run_test: Test) -> None:
    key, _ = make_key(name="Käse", permissions=["tasks:*"], plan="free")
    page = run_test(key, permissions="tasks:read, tasks:write", ip=HERE)
    assert "Let in 200 VALID" in page
    for line in (
        "200 OK", f"X-Key-Id: {key.id}", "X-Key-Name: K%C3%A4se", "X-Key-Permissions: tasks:*",
        "X-RateLimit-Remaining: 999", 'RateLimit-Policy: "minute";q=100;w=60',
    ):  # fmt: skip
        assert line in page
    assert "fails" not in page


def test_a_refusal_shows_the_answer_and_every_fault(make_key: MakeKey, run_test: Test) -> None:
    key, _ = make_key(ip_allowlist=["10.0.0.0/8"], permissions=["a:b"])
    page = run_test(key, ip="203.0.113.7", permissions="a:b c:d", raw=True)
    failed = [plain(one) for one in re.findall(r'<li class="failed">.*?</li>', page, re.DOTALL)]
    assert failed == [
        "IP allowlist This address is not in the key's allowlist. "
        "Add 203.0.113.7 to its allowlist fails",
        "Permissions This key lacks a permission that the request needs. "
        "Add c:d to the key fails too",
    ]
    page = plain(page)
    assert "Refused 403 IP_NOT_ALLOWED" in page
    assert "403 Forbidden Content-Type: application/problem+json" in page
    assert '"code": "IP_NOT_ALLOWED"' in page


def link_to(page: str, words: str) -> str:
    found = re.search(rf'<a href="([^"]+)"[^>]*>{re.escape(words)}', page)
    assert found, words
    return found[1]


def test_what_to_do_leads_to_where_it_is_done(
    make_key: MakeKey, run_test: Test, operator: Actor, clock: Clock, signed_in: FlaskClient
) -> None:
    lacking, _ = make_key()
    revoked, old = make_key(expires_in="1h")
    keys.revoke(revoked.id, by=operator)
    keys.rotate(revoked.id, {}, by=operator)
    limited, text = make_key(rate_limit={"per_hour": 1}, monthly_quota=1)
    checked(asked(text))
    clock.move("1h")
    page = run_test(lacking, raw=True, permissions="a:b c:d")
    assert link_to(page, "Add a:b and c:d to the key").endswith(f"/keys/{lacking.id}/edit")
    page = run_test(old, raw=True)
    assert link_to(page, "Use the newest secret").endswith(f"/keys/{revoked.id}/rotate")
    assert link_to(page, "Enable the key").endswith(f"/keys/{revoked.id}/restore")
    assert link_to(page, "Give it a later end").endswith(f"/keys/{revoked.id}/edit")
    page = run_test(limited, raw=True)
    assert link_to(page, "Wait until 1 Dec, 00:00 UTC, or raise its monthly quota")
    checked(asked(text, cost=0))
    keys.edit(limited.id, {"monthly_quota": None}, by=operator)
    checked(asked(text))
    page = run_test(limited, raw=True)
    assert link_to(page, "Wait until 20 Nov, 12:00 UTC, or raise its rate limit")
    for address in set(re.findall(r'<a href="([^"]+)" data-dialog', page)):
        assert signed_in.get(address).status_code == 200


def test_advice_that_leads_nowhere_is_said_in_words(
    make_key: MakeKey, run_test: Test, other_project: Project
) -> None:
    _, elsewhere = make_key(project="other")
    listed, _ = make_key(ip_allowlist=["10.0.0.0/8"])
    assert "Use a key of this project." in run_test(elsewhere)
    assert "Say the client's address" in run_test(listed)
    assert "Use a test key" in run_test(listed, environment="test")
    assert "Copy the whole secret once more." in run_test("sk_live_x")
    assert "is not yours to see" in run_test(secret.mint("sk", "live"))
    assert "Paste a secret" in run_test("")
    assert "Revocation not reached" in run_test("")


def test_a_viewer_is_told_what_to_do_but_not_led_there(
    make_key: MakeKey, run_test: Test, viewer: Actor
) -> None:
    key, _ = make_key()
    page = run_test(key, by=viewer, raw=True, permissions="a:b")
    assert "Add a:b to the key" in page
    assert "data-dialog" not in page


def test_a_secret_in_its_grace_says_so(make_key: MakeKey, run_test: Test, operator: Actor) -> None:
    key, old = make_key()
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    assert "The old secret; it works until 20 Nov, 11:30 UTC." in run_test(old)


def test_a_members_test_ends_at_their_own_keys(
    app: Flask, make_key: MakeKey, run_test: Test, member: Actor
) -> None:
    others, text = make_key(name="Somebody's")
    own, _ = make_key(name="Mine", by=member)
    assert "200 VALID" in run_test(own, by=member)
    assert "401 API_KEY_INVALID" in run_test(text, by=member)
    browser = sign_in(app, member)
    answer = browser.post(PAGE, data={"with": "key", "key": others.id}, headers=IN_RESULT)
    assert answer.status_code == 422
    assert "Is not here any more; pick another." in answer.text
    for path in ("", f"?key={others.id}", "/keys?q=some"):
        page = browser.get(PAGE + path).text
        assert "Somebody" not in page
    assert "Mine" in browser.get(PAGE).text


def test_who_is_signed_out_or_elsewhere_finds_nothing(
    app: Flask, client: FlaskClient, stranger: Actor
) -> None:
    assert client.get(PAGE).location.startswith("/login")
    assert client.post(PAGE, data={"with": "secret"}).location.startswith("/login")
    browser = sign_in(app, stranger)
    for path in ("", "/keys", "/files/nginx.conf"):
        assert browser.get(PAGE + path).status_code == 404
    assert browser.post(PAGE, data={"with": "secret"}).status_code == 404


FAULTS = [
    ({"ip": "zzz"}, "ip", "Must be an IPv4 or IPv6 address."),
    ({"path": "tasks"}, "path", "Must be the path that the client asked for"),
    ({"permissions": "a:b nonsense"}, "permissions", "must look like tasks:read"),
    ({"method": "GET /"}, "method", "Must be an HTTP method."),
    ({"environment": "staging"}, "environment", "Must be live or test."),
    ({"key": ""}, "key", "Pick a key, or paste a secret."),
    ({"key": "key_gone"}, "key", "Is not here any more"),
]


@pytest.mark.parametrize("headers", [{}, IN_RESULT], ids=["page", "fragment"])
@pytest.mark.parametrize("given, field, words", FAULTS, ids=[str(one[0]) for one in FAULTS])
def test_a_field_at_fault_is_named_beside_it_and_keeps_what_was_typed(
    signed_in: FlaskClient, make_key: MakeKey, given: dict[str, str], field: str, words: str,
    headers: dict[str, str],
) -> None:  # fmt: skip
    key, _ = make_key()
    typed = {"with": "key", "key": key.id, "ip": HERE, "path": "/kept", **given}
    answer = signed_in.post(PAGE, data=typed, headers=headers)
    assert answer.status_code == 422
    box = answer.text.partition(f'id="test-field-{field}"')[2].partition('id="test-field-')[0]
    assert words in html.unescape(box)
    assert 'aria-invalid="true"' in box
    assert answer.text.count('aria-invalid="true"') == 1
    for name in ("ip", "path"):
        assert f'value="{typed[name]}"' in answer.text
    assert "200 VALID" not in answer.text
    assert ("<html" in answer.text) == (not headers)


def test_the_whole_page_comes_back_where_there_are_no_scripts(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    key, _ = make_key()
    page = signed_in.post(PAGE, data={"with": "key", "key": key.id, "method": "PUT"}).text
    assert "<html" in page and "200 VALID" in page
    assert f'<option value="{key.id}" selected>' in page
    assert "<option selected>PUT</option>" in page
    page = signed_in.post(f"{PAGE}?way=curl", data={"with": "key", "key": key.id}).text
    assert f'action="{PAGE}?way=curl#test"' in page and "auth_request" not in page
    fragment = signed_in.post(PAGE, data={"with": "key", "key": key.id}, headers=IN_RESULT).text
    assert "<html" not in fragment and "200 VALID" in fragment


def test_a_hostile_name_and_input_are_shown_as_text(
    signed_in: FlaskClient, make_key: MakeKey
) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    key, _ = make_key(name=hostile)
    data = {"with": "key", "key": key.id, "path": f"/{hostile}", "ip": hostile}
    for path in ("integrate", ""):
        assert "<img" not in signed_in.get(f"/projects/shop/{path}".rstrip("/")).text
    for headers in ({}, IN_RESULT):
        assert "<img" not in signed_in.post(PAGE, data=data, headers=headers).text
        data["ip"] = HERE


# --- picking a key ----------------------------------------------------------------------------


def offered(answer: TestResponse) -> list[str]:
    found = re.findall(r'<option value="key_\w+"[^>]*>(.*?)</option>', answer.text)
    return [html.unescape(one) for one in found]


def test_the_picker_offers_names_and_prefixes_and_says_what_is_revoked(
    signed_in: FlaskClient, make_key: MakeKey, operator: Actor, other_project: Project
) -> None:
    second, _ = make_key(name="B")
    first, _ = make_key(name="a")
    make_key(name="elsewhere", project="other")
    keys.revoke(second.id, by=operator)
    assert offered(signed_in.get(PAGE)) == [
        f"a ({first.prefix}…)",
        f"B ({second.prefix}…), revoked",
    ]
    assert offered(signed_in.get(f"{PAGE}/keys?q=b")) == [f"B ({second.prefix}…), revoked"]
    assert offered(signed_in.get(f"{PAGE}/keys?q={first.prefix}")) == [f"a ({first.prefix}…)"]
    assert "No key matches" in signed_in.get(f"{PAGE}/keys?q=zz").text


def test_a_key_of_another_project_cannot_be_picked_here(
    signed_in: FlaskClient, make_key: MakeKey, other_project: Project
) -> None:
    key, _ = make_key(project="other", name="Elsewhere")
    answer = signed_in.post(PAGE, data={"with": "key", "key": key.id})
    assert answer.status_code == 422
    assert "Elsewhere" not in answer.text + signed_in.get(f"{PAGE}?key={key.id}").text


def test_of_many_keys_some_are_offered_and_a_search_finds_the_others(
    signed_in: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrate, "OFFERED", 2)
    made = {name: make_key(name=name)[0] for name in ("a", "b", "c")}
    page = signed_in.get(PAGE)
    assert "Find a key" in page.text
    assert len(offered(page)) == 2
    assert len(offered(signed_in.get(f"{PAGE}?q=c"))) == 1
    chosen = signed_in.get(f"{PAGE}?key={made['c'].id}")
    assert f'value="{made["c"].id}" selected' in chosen.text
    monkeypatch.setattr(integrate, "OFFERED", 3)
    assert "Find a key" not in signed_in.get(PAGE).text


def test_a_search_that_is_too_long_is_cut(signed_in: FlaskClient, make_key: MakeKey) -> None:
    make_key()
    assert signed_in.get(f"{PAGE}/keys?q={'x' * 5000}").status_code == 200


# --- what is to be pasted ---------------------------------------------------------------------


@pytest.fixture
def as_shipped(app: Flask, signed_in: FlaskClient) -> FlaskClient:
    app.config["LATCHKEY"] = replace(app.config["LATCHKEY"], base_url="https://keys.example.com")
    return signed_in


@pytest.mark.parametrize("way, contained", [
    ("nginx", ["auth_request /_latchkey;", "sudo nginx -t", "LATCHKEY_TRUSTED_PROXIES"]),
    ("caddy", ["reverse_proxy 127.0.0.1:9000", "/forward-auth/caddy?project=shop&",
               "caddy validate"]),
    ("traefik", ["forwardAuth:", "/forward-auth/traefik?project=shop&",
                 "started with these flags", "aliasHeadersStrategy=delete"]),
    ("haproxy", ["lua-load-per-thread", "project=shop&permission=", "core.register_action"]),
    ("envoy", ["envoy.filters.http.ext_authz", "project=shop", "envoy --mode validate"]),
    ("others", ["forward-auth:", "/forward-auth/traefik?project=shop&permission=tasks:read",
                "nginx.ingress.kubernetes.io/auth-url", "way=curl"]),
    ("python", ["class LatchkeyWSGI", "class Latchkey:", "LatchkeyWSGI(app.wsgi_app, needs)",
                "app.add_middleware(LatchkeyASGI", "LATCHKEY_URL=https://keys.example.com"]),
    ("node", ["export function latchkey", "app.use(latchkey(",
              "LATCHKEY_URL=https://keys.example.com"]),
    ("curl", ["curl https://keys.example.com/api/v1/verify", '"project": "shop"']),
])  # fmt: skip
def test_each_way_is_ready_to_paste(
    as_shipped: FlaskClient, way: str, contained: list[str]
) -> None:
    whole = as_shipped.get(f"{PAGE}?way={way}")
    headers = {"HX-Request": "true", "HX-Target": "ways"}
    fragment = as_shipped.get(f"{PAGE}?way={way}", headers=headers)
    for words in contained:
        assert words in html.unescape(whole.text)
        assert words in html.unescape(fragment.text)
    assert "<html" in whole.text and 'id="test"' in whole.text
    assert "<html" not in fragment.text and 'id="test"' not in fragment.text


def test_an_unknown_way_is_the_first_one(signed_in: FlaskClient) -> None:
    assert "auth_request" in signed_in.get(f"{PAGE}?way=apache").text


def test_files_are_handed_out_whole_and_no_others(as_shipped: FlaskClient) -> None:
    for name, folder in {"latchkey.py": "clients", "latchkey_client.py": "clients",
                         "latchkey.mjs": "clients", "latchkey.lua": "proxies"}.items():  # fmt: skip
        answer = as_shipped.get(f"{PAGE}/files/{name}")
        assert answer.text == Path(proxy_files.ROOT, "docs", folder, name).read_text()
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.mimetype == "text/plain"
    for name in ("README.md", "..%2fREADME.md", "config.py", "..%2f..%2fconfig.py", "others.md"):
        assert as_shipped.get(f"{PAGE}/files/{name}").status_code == 404


@pytest.mark.parametrize("way", integrate.WAYS)
def test_without_the_documents_the_page_says_where_they_are(
    signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for shipped in (integrate.SHIPPED, proxy_files.SHIPPED, integrate.OTHERS):
        for name in shipped:
            monkeypatch.setitem(shipped, name, "")
    answer = signed_in.get(f"{PAGE}?way={way}")
    assert answer.status_code == 200
    assert ("were not installed with this console" in answer.text) is (way != "curl")
    assert signed_in.get(f"{PAGE}/files/nginx.conf").status_code == 404


def test_a_document_that_is_missing_or_no_text_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "binary").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(proxy_files, "ROOT", tmp_path)
    for name in ("missing", "binary", ""):
        assert proxy_files.read_shipped("", name) == ""


def test_the_curl_line_is_a_question_that_the_api_takes(
    make_key: MakeKey, run_test: Test, client: FlaskClient
) -> None:
    key, text = make_key(permissions=["a:b"])
    _, service = make_key(permissions=["keys:verify"])
    page = html.unescape(
        run_test(key, raw=True, permissions="a:b", ip=HERE, path="/it's", environment="live")
    )
    found = re.search(r'id="test-call"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found
    words = shlex.split(found[1])
    assert words[:2] == ["curl", "http://127.0.0.1:8000/api/v1/verify"]
    question = json.loads(words[words.index("-d") + 1])
    assert Question.read(question).dry_run
    assert question["project"] == "shop"
    answer = client.post("/api/v1/verify", json={**question, "key": text}, headers=bearer(service))
    assert answer.json["valid"] is True


def test_no_page_has_inline_script_or_style(signed_in: FlaskClient, make_key: MakeKey) -> None:
    key, _ = make_key()
    pages = [signed_in.get(f"{PAGE}?way={way}").text for way in integrate.WAYS]
    pages.append(signed_in.post(PAGE, data={"with": "key", "key": key.id}).text)
    for page in pages:
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)
