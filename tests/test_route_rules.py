"""What a request needs by its method and path: which rule covers it, however its path is written,
and what becomes of it at the proxies' door.
"""

from typing import Any

import pytest
from flask.testing import FlaskClient

from console import check, journal, projects, route_rules
from console.actor import Actor
from console.check import PERMISSION_DENIED, VALID, Request
from console.errors import Invalid
from console.models import Entry, Event, Key
from console.route_rules import ALLOW, DENY, NOTHING, Need, Routes
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
    assert ROUTES.need(method, path) == Need(needed, False, rules)
    assert STRICT.need(method, path) == Need(needed, not rules, rules)


# However a service may read it, it may be /admin/users.
AS_ADMIN = [
    "//admin/users", "/admin//users", "/./admin/users", "/x/../admin/users",
    "/tasks/../admin/users", "/%61dmin/users", "/%2561dmin/users", "/%252561dmin/users",
    "/admin%2Fusers", "/admin%2fusers",
    "/%2Fadmin/users", "/x/%2e%2e/admin/users", "/x/%2E./admin/users", "/x%2f..%2fadmin/users",
    "/x/..;/admin/users", "/admin;a=b/users", "/;/admin/users", "/admin%3bx/users",
    "\\admin\\users", "/x\\..\\admin/users", "/x%5c..%5cadmin/users", "/ADMIN/users", "/Admin/x",
    "/%41DMIN/users", "/../admin/users", "/../../admin", "/admin/", "/admin/.", "/admin/x/..",
    "/admin/%00", "/%u/../admin", "/tasks/%2e%2e/%61DMIN;x//",
]  # fmt: skip


@pytest.mark.parametrize("path", AS_ADMIN)
@pytest.mark.parametrize("method", ["GET", "POST", "PURGE"])
def test_no_way_of_writing_a_path_escapes_a_rule(method: str, path: str) -> None:
    assert "admin:all" in ROUTES.need(method, path).permissions


def test_what_may_be_read_in_two_ways_needs_what_both_need() -> None:
    assert ROUTES.need("GET", "/tasks/../admin") == Need(
        ("tasks:read", "admin:all"), False, (0, 2)
    )  # fmt: skip
    assert ROUTES.need("GET", "/health/../tasks").permissions == ("tasks:read",)
    assert STRICT.need("GET", "/health/../tasks") == Need(("tasks:read",), True, (0,))
    assert STRICT.need("GET", "/tasks/%2e%2e/nothing").is_refused


def test_a_rule_that_asks_for_less_opens_no_other_case_of_a_path() -> None:
    routes = Routes(
        [
            {"methods": [], "path": "/Public", "permissions": []},
            {"methods": [], "path": "/**", "permissions": ["a:b"]},
        ],
        DENY,
    )
    assert routes.need("GET", "/Public") == Need((), False, (0,))
    assert routes.need("GET", "/public").permissions == ("a:b",)


def test_everything_below_the_root_is_everything() -> None:
    routes = Routes([{"methods": [], "path": "/**", "permissions": ["a:b"]}], ALLOW)
    for path in ("/", "/x", "/x/y", "//", "/..", "/a%0Ab", "/%ff"):
        assert routes.need("GET", path).permissions == ("a:b",), path
    root = Routes([{"methods": [], "path": "/", "permissions": ["a:b"]}], ALLOW)
    assert root.need("GET", "/").permissions == ("a:b",)
    assert root.need("GET", "/x") == NOTHING


def test_without_rules_the_default_stands_alone() -> None:
    assert route_rules.of([], ALLOW) is None
    assert route_rules.of("[]", ALLOW) is None
    nothing_covered = route_rules.of([], DENY)
    assert nothing_covered is not None
    assert nothing_covered.need("GET", "/") == Need((), True, ())


def test_the_same_rules_are_made_ready_once() -> None:
    """However the database hands its JSON on."""
    text = '[{"path": "/a", "methods": [], "permissions": []}]'
    assert route_rules.of(text, DENY) is route_rules.of(text, DENY)
    assert route_rules.of(text, DENY) is not route_rules.of(text, ALLOW)
    parsed = [{"path": "/a", "methods": [], "permissions": []}]
    assert route_rules.of(parsed, DENY) is route_rules.of(list(parsed), DENY)


@pytest.mark.parametrize("piece", ["/a", "/%2561", "/..", "%25", "/*;", "\\", "/%2e%2e"])
def test_a_long_path_is_read_in_one_go(piece: str) -> None:
    """60 kB against a hundred rules: a pattern that tried two ways would not come to an end."""
    rules = [{"methods": [], "path": f"/a/*a{n}/b*/**", "permissions": []} for n in range(100)]
    assert Routes(rules, DENY).need("GET", "/x" + piece * (60_000 // len(piece))).is_refused


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
    assert verdict.message == check.UNCOVERED
    [step] = [step for step in steps if step.check == "permissions"]
    assert (step.code, step.detail) == (PERMISSION_DENIED, check.UNCOVERED)
    assert checked(asked(secret, "GET", "/elsewhere")).message == check.UNCOVERED
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
    assert (uncovered.status_code, uncovered.json["detail"]) == (403, check.UNCOVERED)
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
