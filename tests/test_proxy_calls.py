"""The last calls of proxies, as Integrate shows them: what came, what is missing, what mends it, to
whom it is shown; and that nothing secret is in them.
"""

import html
import os
import re
from collections.abc import Iterator

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from console import proxy_calls
from console.actor import Actor
from console.models import Project
from console.proxy_calls import ProxyCall
from console.web import proxy_advice
from tests.conftest import MakeKey, bearer, need_redis, sign_in
from tests.test_forward_auth import OWN, ROUTES, asks
from tests.test_integrate import plain

PAGE = "/projects/shop/integrate"
CALLS = f"{PAGE}/calls"
ASKED = {"HX-Request": "true"}
# Not the database of test_limits.py, which may run at the same time.
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15").removesuffix("15") + "14"


@pytest.fixture(autouse=True)
def none_yet(app: Flask) -> Iterator[None]:
    proxy_calls.share_by("")
    yield
    proxy_calls.share_by("")


def latest(project: Project, by: Actor) -> list[ProxyCall]:
    return proxy_calls.latest(project, by=by)


def findings(call: ProxyCall, project: Project) -> dict[str, tuple[str, str]]:
    """State and line of every finding that is not plainly good, by name."""
    found = proxy_advice.findings(call, project, [])
    return {one.name: (one.state, one.line) for one in found if not one.is_good}


@pytest.mark.parametrize("route", ROUTES)
def test_a_call_that_lacks_nothing_has_nothing_to_look_at(
    route: str, client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor
) -> None:
    _, secret = make_key(permissions=["a:b"])
    more = {"X-Latchkey-Path": "/tasks"} if route == "envoy" else {}
    asks(client, route, {**bearer(secret), **more}, "?project=shop&permission=a:b")
    [call] = latest(project, owner)
    assert (call.route, call.status, call.code, call.ip) == (route, 200, "VALID", "192.0.2.7")
    assert (call.method, call.endpoint, call.key_name) == ("GET", "/tasks", "CI")
    assert findings(call, project) == {}


LACKING = [
    # route, headers that do not come, headers besides, what is found: name -> (state, part of line)
    ("nginx", ["X-Original-Method"], {}, {"X-Original-Method": ("missing", "$request_method")}),
    ("nginx", ["X-Original-URL"], {}, {"X-Original-URL": ("missing", "$request_uri")}),
    ("nginx", ["X-Forwarded-For"], {}, {"X-Forwarded-For": ("missing", "$remote_addr")}),
    ("nginx", [], {"X-Original-URL": "tasks"}, {"X-Original-URL": ("wrong", "$request_uri")}),
    ("caddy", ["X-Forwarded-Method"], {}, {"X-Forwarded-Method": ("missing", "{method}")}),
    ("caddy", ["X-Forwarded-Uri"], {}, {"X-Forwarded-Uri": ("missing", "{uri}")}),
    ("traefik", ["X-Forwarded-Uri"], {}, {"X-Forwarded-Uri": ("missing", "")}),
    ("haproxy", ["X-Forwarded-For"], {}, {"X-Forwarded-For": ("missing", "")}),
    ("envoy", ["X-Forwarded-For"], {}, {"X-Forwarded-For": ("missing", "REMOTE_ADDRESS")}),
    ("envoy", ["X-Latchkey-Path"], {}, {"X-Latchkey-Path": ("missing", "%REQ(:PATH)%")}),
    ("caddy", [], {"X-Forwarded-For": "junk"}, {"X-Forwarded-For": ("wrong", "")}),
    ("caddy", [], {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": ("came", "")}),
    ("caddy", [], {"X-Original-URL": "/x"}, {"X-Original-URL": ("ignored", "")}),
    ("nginx", [], {"X-Forwarded-Uri": "/x"}, {"X-Forwarded-Uri": ("ignored", "")}),
    ("nginx", ["Authorization"], {}, {"The key": ("missing", "$http_authorization")}),
    ("traefik", ["Authorization"], {}, {"The key": ("missing", "authRequestHeaders")}),
    ("envoy", ["Authorization"], {}, {"The key": ("missing", "x-api-key")}),
    ("caddy", [], {"X-API-Key": "another"}, {"The key": ("wrong", "")}),
]  # fmt: skip


@pytest.mark.parametrize(("route", "without", "more", "found"), LACKING)
def test_what_a_call_lacks_is_named_with_what_mends_it(
    route: str, without: list[str], more: dict[str, str], found: dict[str, tuple[str, str]],
    client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor, app: Flask,
) -> None:  # fmt: skip
    own = {"X-Latchkey-Options": "project=shop&permission=a:b", "X-Latchkey-Path": "/tasks"}
    sent = {"X-Forwarded-For": "192.0.2.7", **bearer(make_key(permissions=["a:b"])[1]),
            **(own if route == "envoy" else OWN[route]), **more}  # fmt: skip
    for name in without:
        del sent[name]
    query = "" if route == "envoy" else "?project=shop&permission=a:b"
    path = f"/forward-auth/{route}{'/tasks' if route == 'envoy' else ''}{query}"
    client.get(path, headers=sent)
    [call] = latest(project, owner)
    trusted = app.config["LATCHKEY"].trusted_proxies
    seen = {
        one.name: one for one in proxy_advice.findings(call, project, trusted) if not one.is_good
    }
    assert {name: one.state for name, one in seen.items()} == {
        name: state for name, (state, _) in found.items()
    }
    for name, (_, part) in found.items():
        assert part in seen[name].line
        assert seen[name].why
        assert bool(part) is bool(seen[name].line)


def test_a_stranger_is_named_to_owners_with_the_setting_that_admits_it(
    app: Flask, client: FlaskClient, make_key: MakeKey, signed_in: FlaskClient, viewer: Actor
) -> None:
    _, secret = make_key()
    asks(client, "caddy", bearer(secret), "?project=shop", peer="198.51.100.9")
    page = html.unescape(signed_in.get(CALLS, headers=ASKED).text)
    assert "not trusted" in page
    assert "LATCHKEY_TRUSTED_PROXIES=127.0.0.1/32,::1/128,198.51.100.9" in page
    assert secret not in page
    page = sign_in(app, viewer).get(CALLS, headers=ASKED).text
    assert "198.51.100.9" not in page and "127.0.0.1/32" not in page
    assert "an owner sees it here" in page


def test_strangers_push_out_nothing_but_themselves(
    client: FlaskClient, project: Project, owner: Actor
) -> None:
    asks(client, "caddy", None, "?project=shop")
    for number in range(100):
        asks(client, "caddy", None, f"?project=p{number}", peer="198.51.100.9")
    found = latest(project, owner)
    assert sorted(call.peer for call in found) == ["127.0.0.1", "198.51.100.9"]
    assert set(proxy_calls._rings) == {"shop", proxy_calls.OF_STRANGERS}


def test_a_client_names_no_project(client: FlaskClient, project: Project, owner: Actor) -> None:
    """Behind an Envoy that says no options of its own, where the query is the client's."""
    path = "/forward-auth/envoy/tasks?project=shop"
    client.get(path, headers={"X-Forwarded-For": "192.0.2.7"})
    assert set(proxy_calls._rings) == {proxy_calls.OF_NO_PROJECT}
    [call] = latest(project, owner)
    assert not call.names_project


def test_a_flood_of_refusals_is_not_noted_one_by_one(
    client: FlaskClient, project: Project, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, made = [1000.5], []
    monkeypatch.setattr(proxy_calls.time, "monotonic", lambda: now[0])
    made_as_ever = proxy_calls._call
    monkeypatch.setattr(proxy_calls, "_call", lambda *a: made.append(1) or made_as_ever(*a))
    for _ in range(50):
        asks(client, "caddy", None, "?project=shop")
    assert len(made) == proxy_calls.REFUSED_A_SECOND
    now[0] += 1
    asks(client, "caddy", {"X-Forwarded-Uri": "/later"}, "?project=shop")
    assert latest(project, owner)[0].endpoint == "/later"


def test_of_two_keys_neither_is_kept(
    client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor
) -> None:
    one, other = "imported-secret-of-theirs", make_key()[1]
    headers = {**bearer(one), "X-API-Key": other, "User-Agent": f"{one} {other}",
               "X-Forwarded-Uri": f"/x/{one}/{other}"}  # fmt: skip
    asks(client, "caddy", headers, "?project=shop")
    assert one not in repr(latest(project, owner))
    assert other[:20] not in repr(latest(project, owner))


def test_what_the_proxys_address_asks_for_is_looked_at_too(
    client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor
) -> None:
    _, secret = make_key()
    asks(client, "caddy", bearer(secret))
    [call] = latest(project, owner)
    assert findings(call, project) == {
        "project": ("missing", "project=shop"),
        "permission": ("missing", "permission=tasks:read"),
    }
    project.route_default = "deny"
    assert list(findings(call, project)) == ["project"]
    asks(client, "caddy", bearer(secret), "?project=shop&permisson=a:b")
    assert findings(latest(project, owner)[0], project) == {"permisson": ("wrong", "")}


def test_a_preflight_without_a_key_is_told_which_option_there_is(
    client: FlaskClient, project: Project, owner: Actor
) -> None:
    method = {"X-Forwarded-Method": "OPTIONS", "Access-Control-Request-Method": "PUT"}
    asks(client, "caddy", method, "?project=shop&permission=a:b")
    assert findings(latest(project, owner)[0], project) == {
        "The key": ("missing", "preflight=allow")
    }
    asks(client, "caddy", method, "?project=shop&permission=a:b&preflight=allow")
    assert latest(project, owner)[0].status == 200


@pytest.mark.parametrize("route", ROUTES)
def test_no_secret_and_no_query_is_kept(
    route: str, client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor,
    signed_in: FlaskClient,
) -> None:  # fmt: skip
    _, secret = make_key()
    hidden = f"/a/{secret}?token=hunter2"
    family = {
        "X-Original-URL": f"http://h{hidden}", "X-Forwarded-Uri": hidden, "X-Latchkey-Path": hidden,
        "User-Agent": f"curl {secret}", "X-Original-Method": "GET", "X-Forwarded-Method": "GET",
    }  # fmt: skip
    for credential in (
        bearer(secret), {"X-API-Key": secret}, {"Authorization": secret},
        {"Authorization": f"Basic {secret}"}, {"Authorization": f"{secret} x"},
    ):  # fmt: skip
        asks(client, route, {**family, **credential}, "?project=shop", path=hidden)
    asks(client, route, {**family, **bearer(secret)}, "?project=shop", path=hidden, peer="1.2.3.4")
    kept = repr([ring.calls for ring in proxy_calls._rings.values()])
    assert kept.count("ProxyCall(") >= 4
    for text in (kept, html.unescape(signed_in.get(CALLS, headers=ASKED).text)):
        assert secret not in text
        assert secret[:20] not in text
        assert "hunter2" not in text


def test_the_newest_come_first_and_the_oldest_go(
    client: FlaskClient, project: Project, owner: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_calls, "REFUSED_A_SECOND", 1_000)
    for number in range(proxy_calls.KEPT + 5):
        asks(client, "caddy", {"X-Forwarded-Uri": f"/{number}"}, "?project=shop")
    found = [call.endpoint for call in latest(project, owner)]
    assert found == [f"/{number}" for number in range(24, 4, -1)]


def test_a_busy_service_does_not_push_out_what_was_refused(
    client: FlaskClient, make_key: MakeKey, project: Project, owner: Actor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of calls that follow each other at once, only one of those let in is kept."""
    _, secret = make_key()
    now = [1000.0]
    monkeypatch.setattr(proxy_calls.time, "monotonic", lambda: now[0])
    asks(client, "caddy", None, "?project=shop")
    for _ in range(50):
        asks(client, "caddy", bearer(secret), "?project=shop")
    assert [call.status for call in latest(project, owner)] == [200, 401]
    now[0] += proxy_calls.LET_IN_SECONDS
    asks(client, "caddy", bearer(secret), "?project=shop")
    assert [call.status for call in latest(project, owner)] == [200, 200, 401]


def test_projects_that_nobody_has_push_out_the_oldest_alone(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_calls, "PROJECTS_MAX", 3)
    for slug in ("a", "b", "c", "d", "e"):
        asks(client, "caddy", None, f"?project={slug}")
    assert list(proxy_calls._rings) == ["c", "d", "e"]


# --- to whom ----------------------------------------------------------------------------------


def test_each_sees_the_calls_that_are_theirs_to_see(
    client: FlaskClient, make_key: MakeKey, project: Project, other_project: Project,
    owner: Actor, admin: Actor, member: Actor, viewer: Actor,
) -> None:  # fmt: skip
    others, theirs = make_key(name="theirs")[1], make_key(name="own", by=member)[1]
    asks(client, "caddy", {**bearer(others), "X-Forwarded-Uri": "/others"}, "?permission=a:b")
    asks(client, "caddy", {**bearer(theirs), "X-Forwarded-Uri": "/own"}, "?permission=a:b")
    asks(client, "caddy", {"X-Forwarded-Uri": "/nobody"}, "?project=shop")
    asks(client, "caddy", {"X-Forwarded-Uri": "/unnamed"})
    asks(client, "caddy", {"X-Forwarded-Uri": "/elsewhere"}, "?project=other")

    def seen(by: Actor) -> set[str]:
        return {call.endpoint for call in latest(project, by)}

    assert seen(owner) == {"/unnamed", "/nobody", "/own", "/others"}
    assert seen(admin) == seen(viewer) == {"/nobody", "/own", "/others"}
    assert seen(member) == {"/nobody", "/own"}


def test_who_is_elsewhere_or_signed_out_finds_nothing(
    app: Flask, client: FlaskClient, stranger: Actor, project: Project
) -> None:
    assert client.get(CALLS).location.startswith("/login")
    assert sign_in(app, stranger).get(CALLS).status_code == 404


# --- the page ---------------------------------------------------------------------------------


def test_the_page_waits_for_a_call_and_then_shows_it(
    client: FlaskClient, make_key: MakeKey, signed_in: FlaskClient
) -> None:
    page = signed_in.get(PAGE).text
    assert "Waiting for a call…" in page
    [address] = re.findall(rf'hx-get="({CALLS}[^"]*)"', page)
    assert signed_in.get(address, headers=ASKED).status_code == 204
    key, secret = make_key(name='<b>"CI"')
    asks(client, "caddy", {**bearer(secret), "X-Forwarded-Uri": "/<i>"}, "?project=shop")
    found = signed_in.get(address, headers=ASKED)
    assert found.status_code == 200
    assert 'Let in with <b>"CI"' in plain(found.text)
    assert "<b>" not in found.text.replace("<b>X-", "").replace("<b>The", "").replace(
        "<b>p", ""
    )  # fmt: skip
    assert "<i>" not in found.text
    [address] = re.findall(rf'hx-get="({CALLS}[^"]*)"', found.text)
    assert signed_in.get(address, headers=ASKED).status_code == 204
    again = signed_in.get(f"{CALLS}?way=caddy")
    assert (again.status_code, again.location) == (303, f"{PAGE}?way=caddy#calls")
    assert 'Let in with <b>"CI"' in plain(signed_in.get(again.location).text)


# --- several processes ------------------------------------------------------------------------


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A real Redis, a database of it that holds none of our calls before and afterwards."""
    need_redis(REDIS_URL)
    store = redis.Redis.from_url(REDIS_URL)
    store.flushdb()
    yield REDIS_URL
    store.flushdb()
    store.close()


def test_processes_share_their_calls_by_redis(
    client: FlaskClient, project: Project, owner: Actor, redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(proxy_calls, "REFUSED_A_SECOND", 1_000)
    proxy_calls.share_by(redis_url)
    for number in range(30):
        asks(client, "caddy", {"X-Forwarded-Uri": f"/{number}"}, "?project=shop")
        proxy_calls.share()
    proxy_calls.share_by(redis_url)  # as another process, which has noted nothing
    found = latest(project, owner)
    assert [call.endpoint for call in found] == [f"/{number}" for number in range(29, 9, -1)]
    assert found[0].faults == {} and found[0].permissions == ()


def test_without_redis_each_process_shows_its_own(
    client: FlaskClient, project: Project, owner: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    proxy_calls.share_by("redis://127.0.0.1:1")
    asks(client, "caddy", {"X-Forwarded-Uri": "/here"}, "?project=shop")
    proxy_calls.share()
    assert [call.endpoint for call in latest(project, owner)] == ["/here"]
    assert "are not shared" in caplog.text
