"""What a request needs by its method and path: which rule covers it, however its path is written,
and what becomes of it at the proxies' door.
"""

import posixpath
import random
import re
from typing import Any
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient

from console import check, journal, projects, route_rules
from console.actor import Actor
from console.check import PERMISSION_DENIED, VALID, Request
from console.errors import Invalid
from console.models import Entry, Event, Key
from console.route_rules import ALLOW, DENY, NOTHING, UNCOVERED, UNREADABLE, Need, Routes
from tests.conftest import MakeKey, bearer, checked

RULES = [
    {"methods": ["GET"], "path": "/tasks/**", "permissions": ["tasks:read"]},
    {"methods": ["POST", "PUT"], "path": "/tasks/**", "permissions": ["tasks:write"]},
    {"methods": [], "path": "/admin/**", "permissions": ["admin:all"]},
    {"methods": [], "path": "/health", "permissions": []},
    {"methods": [], "path": "/users/*/mail", "permissions": ["mail:read", "users:read"]},
    {"methods": [], "path": "/files/*.json", "permissions": ["files:read"]},
    {"methods": ["GET"], "path": "/tasks/open", "permissions": ["never:reached"]},
    {"methods": [], "path": "/Zürich", "permissions": ["city:read"]},
]
ROUTES = Routes(RULES, ALLOW)
STRICT = Routes(RULES, DENY)

COVERED = [
    # method, path, the places of the rules that decide
    ("GET", "/tasks", (0,)),
    ("GET", "/tasks/", (0,)),
    ("GET", "/tasks/1/comments/2", (0,)),
    ("HEAD", "/tasks/1", (0,)),
    ("get", "/tasks/1", (0,)),
    ("POST", "/tasks", (1,)),
    ("PUT", "/tasks/1", (1,)),
    ("DELETE", "/tasks/1", ()),
    ("GET", "/tasksandmore", ()),
    ("GET", "/task", ()),
    ("GET", "/", ()),
    ("DELETE", "/admin", (2,)),
    ("GET", "/health", (3,)),
    ("GET", "/health/", (3,)),
    ("GET", "/health/x", ()),
    ("GET", "/users/7/mail", (4,)),
    ("GET", "/users//mail", ()),
    ("GET", "/users/7/8/mail", ()),
    ("GET", "/users/7/mail/1", ()),
    ("GET", "/files/a.json", (5,)),
    ("GET", "/files/.json", (5,)),
    ("GET", "/files/a.jsonx", ()),
    ("GET", "/files/a.xjson", ()),
    ("GET", "/files/sub/a.json", ()),
    ("GET", "/tasks/open", (0,)),  # the first that covers it decides
    ("GET", "/Z%C3%BCrich", (7,)),
]


@pytest.mark.parametrize(("method", "path", "rules"), COVERED)
def test_the_first_rule_that_covers_a_request_decides(
    method: str, path: str, rules: tuple[int, ...]
) -> None:
    needed = tuple(name for place in rules for name in RULES[place]["permissions"])
    assert ROUTES.need(method, path) == Need(needed, "", rules)
    assert STRICT.need(method, path) == Need(needed, "" if rules else UNCOVERED, rules)


# However a service may read it, it may be /admin/users.
AS_ADMIN = [
    "//admin/users", "/admin//users", "/%61dmin/users", "/%2561dmin/users", "/admin%2Fusers",
    "/admin%2fusers", "/%2Fadmin/users", "//x/admin/users", "/\\x/admin", "///x/admin",
    "/\\\\x/admin", "/%252561dmin", "/%25252561dmin",
    "/admin;a=b/users", "/;/admin/users", "/admin%3bx/users", "\\admin\\users", "/ADMIN/users",
    "/Admin/x", "/%41DMIN/users", "/admin/", "/admin%5Cx", "/%5cadmin", "/;x/admin",
    "/admin/x;y=1", "/admin;", "/admin%3Fx", "/admin%23x", "/%61dmin%253Fx=/y", "/%2F%2Fx%2Fadmin",
]  # fmt: skip
# What is left of these once the dots are resolved depends on who resolves them.
UNJUDGED = [
    "/./admin/users", "/x/../admin/users", "/tasks/../admin", "/x/%2e%2e/admin", "/x/%2E./admin",
    "/x%2f..%2fadmin", "/x/..;/admin", "/x\\..\\admin", "/x%5c..%5cadmin", "/../admin", "/admin/.",
    "/admin/x/..", "/tasks/%2e%2e/%61DMIN;x//", "/tasks/%252e%252e/admin", "/..", "/.", "/a/..%2Fb",
    "/admin/..;/../secret", "/admin/x%5Cy/../secret", "/admin/%252e%252e/../secret",
    "/admin/a%252fb/../secret", "/admin//../secret", "/tasks/%00", "/tasks/a%00b", "/tasks/%0a",
    "/tasks/%1f", "/tasks/%7F", "/tasks/%" + "25" * 200, "/a/%252e%252e%252fb",
    "/x/.;y/admin", "/x/..%00/admin", "/tasks/" + "%61" * 2_000,
]  # fmt: skip


@pytest.mark.parametrize("path", AS_ADMIN)
@pytest.mark.parametrize("method", ["GET", "POST", "PURGE"])
def test_no_way_of_writing_a_path_escapes_a_rule(method: str, path: str) -> None:
    need = ROUTES.need(method, path)
    assert "admin:all" in need.permissions or need.refusal


@pytest.mark.parametrize("path", UNJUDGED)
def test_a_path_that_nobody_can_judge_is_refused(path: str) -> None:
    for routes in (ROUTES, STRICT):
        assert routes.need("GET", path) == Need(refusal=UNREADABLE)


def as_it_is(path: str) -> str:
    return path


def by_python(path: str) -> str:
    return posixpath.normpath(unquote(path)).replace("//", "/")


def by_nginx(path: str) -> str:
    """Decodes, merges slashes, resolves dots."""
    return by_python(path.replace("//", "/"))


def by_rfc_3986(path: str) -> str:
    """Resolves dots, empty segments being segments, and decodes then."""
    found: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del found[-1:]
        elif segment != ".":
            found.append(segment)
    return unquote("/" + "/".join(found))


def by_servlet(path: str) -> str:
    """Drops parameters, decodes, then resolves."""
    return by_nginx(re.sub(";[^/]*", "", path))


def by_url(path: str) -> str:
    """As browsers read an address beneath another (WHATWG)."""
    path = path.replace("\\", "/")
    if path.startswith("//"):
        path = "/" + path.lstrip("/").partition("/")[2]
    dots = re.sub("%2e", ".", path, flags=re.IGNORECASE)
    return unquote(by_rfc_3986(dots))


def twice(path: str) -> str:
    return by_nginx(unquote(path))


def on_windows(path: str) -> str:
    return by_nginx(unquote(path).replace("\\", "/")).lower()


def after_its_query(path: str) -> str:
    """Decodes it all, and looks for a query then."""
    return by_nginx(re.split("[?#]", unquote(path))[0])


READERS = (
    after_its_query,
    as_it_is,
    by_python,
    by_nginx,
    by_rfc_3986,
    by_servlet,
    by_url,
    twice,
    on_windows,
)
PIECES = (
    "/", "//", "admin", "secret", "tasks", "x", "..", ".", "%2e%2e", "%2F", "%5C", "\\", ";",
    ";x=1", "%61dmin", "%252e", "%25", "%252f", "%3F", "%23", "ADMIN", "..;", "%3B", "s%65cret",
)  # fmt: skip
LAYERED = Routes(
    [
        {"methods": [], "path": "/admin/secret", "permissions": ["one:secret"]},
        {"methods": [], "path": "/admin/*", "permissions": ["all:admin"]},
        {"methods": [], "path": "/admin/**", "permissions": ["deep:admin"]},
        {"methods": [], "path": "/tasks/**", "permissions": ["all:tasks"]},
        {"methods": [], "path": "/*", "permissions": ["top:any"]},
    ],
    ALLOW,
)


def test_whatever_a_service_makes_of_a_path_was_asked_for() -> None:
    """Paths put together at random, and nine services: the rule for what the service serves in the
    end is among those that were asked."""
    chance = random.Random(2026)
    paths = ["/" + "".join(chance.choices(PIECES, k=chance.randint(1, 8))) for _ in range(20_000)]
    judged = 0
    for path in dict.fromkeys(paths):
        need = LAYERED.need("GET", path)
        if need.refusal:
            continue
        judged += 1
        for reader in READERS:
            served = reader(path)
            served = "/" + served.lstrip("/") if not served.startswith("/") else served
            place = LAYERED._first("GET", served, False)
            assert place is None or place in need.rules, (path, reader.__name__, served)
    assert judged > 1_000


def test_what_may_be_read_in_two_ways_needs_what_both_need() -> None:
    routes = Routes([*RULES, {"methods": [], "path": "/a/*", "permissions": ["a:any"]}], ALLOW)
    assert routes.need("GET", "/a/b%2Fc") == Need(("a:any",), "", (8,))
    assert STRICT.need("GET", "/tasks%2Fopen") == Need(("tasks:read",), UNCOVERED, (0,))
    assert ROUTES.need("GET", "//x/tasks").permissions == ("tasks:read",)


def test_an_escape_that_hides_nothing_is_only_another_way_to_write() -> None:
    """Clients may escape what they like; a rule that is plain is met all the same."""
    for path in ("/Z%C3%BCrich", "/Zürich", "/Z%c3%bcrich"):
        assert STRICT.need("GET", path) == Need(("city:read",), "", (7,))
    routes = Routes([{"methods": [], "path": "/v1/x:run", "permissions": ["a:b"]}], DENY)
    for path in ("/v1/x:run", "/v1/x%3Arun"):
        assert routes.need("GET", path) == Need(("a:b",), "", (0,))
    assert STRICT.need("GET", "/tasks/a%20b/c%2540d/%40me").refusal == ""


def test_a_rule_that_asks_for_less_opens_no_other_case_of_a_path() -> None:
    routes = Routes(
        [
            {"methods": [], "path": "/Public", "permissions": []},
            {"methods": [], "path": "/**", "permissions": ["a:b"]},
        ],
        DENY,
    )
    assert routes.need("GET", "/Public") == Need((), "", (0,))
    assert routes.need("GET", "/public").permissions == ("a:b",)


def test_everything_below_the_root_is_everything() -> None:
    routes = Routes([{"methods": [], "path": "/**", "permissions": ["a:b"]}], ALLOW)
    for path in ("/", "/x", "/x/y", "//", "/a%20b", "/%ff", "/;"):
        assert routes.need("GET", path).permissions == ("a:b",), path
    root = Routes([{"methods": [], "path": "/", "permissions": ["a:b"]}], ALLOW)
    assert root.need("GET", "/").permissions == ("a:b",)
    assert root.need("GET", "/x") == NOTHING


def test_without_rules_the_default_stands_alone() -> None:
    assert route_rules.of("[]", ALLOW) is None
    nothing_covered = route_rules.of("[]", DENY)
    assert nothing_covered is not None
    assert nothing_covered.need("GET", "/") == Need((), UNCOVERED, ())


def test_the_same_rules_are_made_ready_once() -> None:
    text = '[{"path": "/a", "methods": [], "permissions": []}]'
    assert route_rules.of(text, DENY) is route_rules.of(text, DENY)
    assert route_rules.of(text, DENY) is not route_rules.of(text, ALLOW)


@pytest.mark.parametrize("piece", ["/a", "/%61", "/x.", "%25", "/*;", "\\", "/%2e%2e", "//"])
def test_a_long_path_is_read_in_one_go(piece: str) -> None:
    """60 kB against a hundred rules: a pattern that tried two ways would not come to an end."""
    rules = [{"methods": [], "path": f"/a/*a{n}/b*/**", "permissions": []} for n in range(100)]
    for length in (2_000, 60_000):
        path = "/x" + piece * (length // len(piece))
        assert Routes(rules, DENY).need("GET", path).refusal


# --- what a rule may be -----------------------------------------------------------------------

BAD_RULES = [
    # the rule, the field at fault
    ({"path": "tasks"}, "path"),
    ({"path": ""}, "path"),
    ({}, "path"),
    ({"path": "/a?b"}, "path"),
    ({"path": "/a#b"}, "path"),
    ({"path": "/a b"}, "path"),
    ({"path": "/a%2Fb"}, "path"),
    ({"path": "/a;b"}, "path"),
    ({"path": "/{id}"}, "path"),
    ({"path": "/a\\b"}, "path"),
    ({"path": "/a//b"}, "path"),
    ({"path": "/a/../b"}, "path"),
    ({"path": "/./b"}, "path"),
    ({"path": "/**/a"}, "path"),
    ({"path": "/a**"}, "path"),
    ({"path": "/a/***"}, "path"),
    ({"path": "/a/*b*"}, "path"),
    ({"path": "/*a*/b"}, "path"),
    ({"path": "/" + "x" * 200}, "path"),
    ({"path": "/a\0"}, "path"),
    ({"path": "/a\u202eb"}, "path"),
    ({"path": "/\ufeffa"}, "path"),
    ({"path": "/a\u00a0b"}, "path"),
    ({"path": "/a\u3000b"}, "path"),
    ({"path": "/a", "methods": ["GET", "G T"]}, "methods.1"),
    ({"path": "/a", "methods": "GET"}, "methods"),
    ({"path": "/a", "permissions": ["tasks"]}, "permissions"),
    ({"path": "/a", "permission": ["a:b"]}, "permission"),
]


@pytest.mark.parametrize(("rule", "field"), BAD_RULES, ids=[str(row[0]) for row in BAD_RULES])
def test_a_rule_that_could_mean_two_things_is_refused(
    rule: dict[str, Any], field: str, operator: Actor, project: Any
) -> None:
    good = {"path": "/b"}
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {"route_rules": [good, rule]}, by=operator)
    [named] = refusal.value.fields
    assert named.startswith(f"route_rules.1.{field}")
    assert projects.to_see("shop", by=operator).route_rules == []


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a/*", "/a/*/b", "/a/**", "/**", "/a/*.js",
                                  "/v1.2/x-y_z~", "/Zürich", "/@me/$x"])  # fmt: skip
def test_a_plain_path_is_a_pattern(path: str, operator: Actor, project: Any) -> None:
    changed = projects.edit("shop", {"route_rules": [{"path": f" {path} "}]}, by=operator)
    assert changed.route_rules == [{"methods": [], "path": path, "permissions": []}]
    example = path.replace("**", "x/y").replace("*", "x")
    assert Routes(changed.route_rules, ALLOW).need("GET", example).rules == (0,)


def test_a_pattern_covers_a_path_however_its_letters_are_composed(
    operator: Actor, project: Any
) -> None:
    changed = projects.edit("shop", {"route_rules": [{"path": "/cafe\u0301"}]}, by=operator)
    assert changed.route_rules[0]["path"] == "/caf\u00e9"
    for path in ("/caf%C3%A9", "/cafe%CC%81"):
        assert Routes(changed.route_rules, ALLOW).need("GET", path).rules == (0,)


def test_rules_have_their_methods_once_and_in_capitals(operator: Actor, project: Any) -> None:
    rule = {"path": "/a", "methods": ["get", "GET", "Post"], "permissions": ["a:b", "a:b"]}
    changed = projects.edit("shop", {"route_rules": [rule]}, by=operator)
    assert changed.route_rules == [
        {"methods": ["GET", "POST"], "path": "/a", "permissions": ["a:b"]}
    ]


def test_there_may_be_a_hundred_rules(operator: Actor, project: Any) -> None:
    rules = [{"path": f"/{number}"} for number in range(101)]
    projects.edit("shop", {"route_rules": rules[:100]}, by=operator)
    with pytest.raises(Invalid) as refusal:
        projects.edit("shop", {"route_rules": rules}, by=operator)
    assert list(refusal.value.fields) == ["route_rules"]


def test_a_change_of_rules_is_an_event_with_both_versions(operator: Actor, project: Any) -> None:
    projects.edit("shop", {"route_rules": RULES[:1]}, by=operator)
    projects.edit("shop", {"route_rules": RULES[:2], "route_default": DENY}, by=operator)
    event = Event.select().order_by(Event.id.desc()).get()
    assert event.action == "project.edited"
    assert event.changes == {
        "route_rules": [RULES[:1], RULES[:2]],
        "route_default": [ALLOW, DENY],
    }
    projects.edit("shop", {"route_rules": RULES[:2]}, by=operator)
    assert Event.select().order_by(Event.id.desc()).get().id == event.id


UNREACHED = [
    # the rules, by method and path; which never decides, and which covers it
    (["* /**", "GET /a"], {1: 0}),
    (["* /a/**", "GET /a", "GET /a/b/c", "* /a/*"], {1: 0, 2: 0, 3: 0}),
    (["GET /a", "* /a", "GET /a/", "HEAD /a"], {2: 0, 3: 0}),
    (["GET /*/x", "GET /a/x", "GET /a/*"], {1: 0}),
    (["* /a/*", "* /a/**"], {}),
    (["GET /a/**", "POST /a/**", "* /a/**"], {}),
    (["* /a*", "* /ab"], {}),  # it does, but that is not looked into
    (["* /", "* /a"], {}),
]


@pytest.mark.parametrize(("written", "found"), UNREACHED)
def test_a_rule_that_never_decides_is_named(written: list[str], found: dict[int, int]) -> None:
    rules = [
        {"methods": [] if method == "*" else [method], "path": path, "permissions": ["a:b"]}
        for method, path in (one.split() for one in written)
    ]
    assert route_rules.unreached(rules) == found
    for place in found:
        path = rules[place]["path"].replace("**", "x").replace("*", "x")
        method = (rules[place]["methods"] or ["PUT"])[0]
        assert place not in Routes(rules, ALLOW).need(method, path).rules


# --- what becomes of a request ----------------------------------------------------------------


@pytest.fixture
def ruled(operator: Actor, project: Any) -> None:
    projects.edit("shop", {"route_rules": RULES, "route_default": DENY}, by=operator)


def asked(secret: str, method: str, path: str, **more: Any) -> Request:
    return Request(secret, "r", method=method, endpoint=path, **{"by_rules": True, **more})


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/tasks/1", VALID),
        ("POST", "/tasks/1", PERMISSION_DENIED),
        ("GET", "/tasks/../admin", PERMISSION_DENIED),
        ("GET", "//admin", PERMISSION_DENIED),
        ("GET", "/health", VALID),
        ("GET", "/elsewhere", PERMISSION_DENIED),
    ],
)
def test_a_check_asks_the_rules_of_the_keys_project(
    ruled: None, make_key: MakeKey, method: str, path: str, code: str
) -> None:
    _, secret = make_key(permissions=["tasks:read"])
    explained = check.explain(asked(secret, method, path))[0]
    verdict = checked(asked(secret, method, path))
    assert (verdict.code, explained.code) == (code, code)
    assert verdict.missing_permissions == explained.missing_permissions
    entry = Entry.select().order_by(Entry.id.desc()).get()
    assert (entry.code, entry.permissions) == (code, list(ROUTES.need(method, path).permissions))


def test_what_no_rule_covers_is_refused_whatever_the_key_holds(
    ruled: None, make_key: MakeKey
) -> None:
    _, secret = make_key(permissions=["admin:*"])
    verdict, steps = check.explain(asked(secret, "GET", "/elsewhere"))
    assert (verdict.code, verdict.missing_permissions) == (PERMISSION_DENIED, ())
    assert verdict.message == UNCOVERED
    [step] = [step for step in steps if step.check == "permissions"]
    assert (step.code, step.detail) == (PERMISSION_DENIED, UNCOVERED)
    assert checked(asked(secret, "GET", "/elsewhere")).message == UNCOVERED
    assert checked(asked(secret, "GET", "/admin")).code == VALID


def test_nobody_else_asks_the_rules(ruled: None, make_key: MakeKey) -> None:
    """A service that verifies a key says itself what is needed."""
    _, secret = make_key()
    assert checked(asked(secret, "GET", "/elsewhere", by_rules=False)).code == VALID


def test_new_rules_hold_for_the_next_check(ruled: None, make_key: MakeKey, operator: Actor) -> None:
    _, secret = make_key(permissions=["tasks:read"])
    assert checked(asked(secret, "GET", "/tasks")).code == VALID
    projects.edit("shop", {"route_rules": RULES[1:]}, by=operator)
    assert checked(asked(secret, "GET", "/tasks")).code == PERMISSION_DENIED
    projects.edit("shop", {"route_default": ALLOW}, by=operator)
    assert checked(asked(secret, "DELETE", "/nowhere")).code == VALID


def test_other_refusals_come_first_and_spend_nothing(
    ruled: None, make_key: MakeKey, operator: Actor
) -> None:
    key, secret = make_key(ip_allowlist=["10.0.0.1"], rate_limit={"per_hour": 1})
    assert checked(asked(secret, "GET", "/elsewhere")).code == "IP_NOT_ALLOWED"
    for _ in range(3):
        verdict = checked(asked(secret, "GET", "/elsewhere", ip="10.0.0.1"))
        assert verdict.code == PERMISSION_DENIED
    assert checked(asked(secret, "GET", "/health", ip="10.0.0.1")).code == VALID


def through(client: FlaskClient, secret: str, query: str, path: str, method: str = "GET") -> Any:
    headers = {"X-Forwarded-Method": method, "X-Forwarded-Uri": path, **bearer(secret)}
    return client.get(f"/forward-auth/caddy{query}", headers=headers)


def test_the_rules_hold_where_the_proxys_address_names_no_permission(
    ruled: None, client: FlaskClient, make_key: MakeKey
) -> None:
    key, secret = make_key(permissions=["tasks:read"])
    assert through(client, secret, "", "/tasks?x=/admin").status_code == 200
    refused = through(client, secret, "?project=shop", "/admin")
    assert (refused.status_code, refused.json["code"]) == (403, PERMISSION_DENIED)
    assert refused.json["missing_permissions"] == ["admin:all"]
    uncovered = through(client, secret, "", "/elsewhere")
    assert (uncovered.status_code, uncovered.json["detail"]) == (403, UNCOVERED)
    assert "missing_permissions" not in uncovered.json
    # A proxy that says what is needed is taken at its word.
    assert through(client, secret, "?permission=tasks:read", "/elsewhere").status_code == 200
    journal.settle()
    found = Entry.select(Entry.permissions).where(Entry.key_id == key.id).order_by(Entry.id)
    assert [entry.permissions for entry in found] == [
        ["tasks:read"], ["admin:all"], [], ["tasks:read"]
    ]  # fmt: skip
    assert Key.get_by_id(key.id).requests_total == 4


def test_each_projects_rules_are_its_own(
    ruled: None, client: FlaskClient, make_key: MakeKey, other_project: Any
) -> None:
    _, secret = make_key(project="other")
    assert through(client, secret, "", "/elsewhere").status_code == 200
