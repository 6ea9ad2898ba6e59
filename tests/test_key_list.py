"""Which keys are shown: every filter, every order, pages of each, and what the filters offer."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from console import check, db, key_list, keys, paging, permissions
from console.actor import Actor
from console.errors import Forbidden, Invalid, Unknown
from console.models import Key, Project
from tests.conftest import Call, Clock, MakeKey, assert_problem, checked
from tests.test_permissions import MET


def ask(secret: str) -> None:
    checked(check.Request(secret=secret, request_id="req_1", ip="192.0.2.1"))


def refused_fields(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(Invalid) as refused:
        call()
    return list(refused.value.fields)


def listed(by: Actor, **options: Any) -> list[str]:
    return [key.name for key in key_list.page(by=by, project="shop", **options).rows]


def test_each_filter_narrows_the_list(
    make_key: MakeKey, operator: Actor, member: Actor, clock: Clock
) -> None:
    make_key(name="live")
    make_key(name="test", environment="test")
    make_key(name="bobs", by=member)
    make_key(name="ended", expires_in="1h")
    revoked, _ = make_key(name="revoked", expires_in="1h")
    keys.revoke(revoked.id, by=operator)
    clock.move("1h")
    assert sorted(listed(operator, status="active")) == ["bobs", "live", "test"]
    assert listed(operator, status="expired") == ["ended"]
    assert listed(operator, status="revoked") == ["revoked"]
    assert listed(operator, environment="test") == ["test"]
    assert listed(operator, owner="Bob@example.com") == ["bobs"]
    assert listed(operator, owner=member.id) == ["bobs"]
    assert listed(operator, owner="nobody@example.com") == []
    assert listed(operator, status="active", environment="live", q="LI") == ["live"]


def test_q_finds_part_of_a_name_or_the_start_of_a_prefix_or_the_id(
    make_key: MakeKey, operator: Actor
) -> None:
    key, secret = make_key(name="Straße 50%_off")
    make_key(name="Other", environment="test")
    for q in ("STRASSE", "ß", "50%_", " off ", secret[:10], secret[:12], secret, key.id):
        assert listed(operator, q=q) == ["Straße 50%_off"], q
    for q in ("5%f", "e_5", key.id[:-1], secret[1:9], "\\", "%", "' or 1=1 --"):
        assert "Other" not in listed(operator, q=q), q
    assert len(listed(operator, q=" ")) == 2


def test_the_owner_me_is_who_asks(
    make_key: MakeKey, operator: Actor, member: Actor, admin: Actor
) -> None:
    make_key(name="bobs", by=member)
    make_key(name="alans", by=admin)
    make_key(name="nobodys")
    assert listed(admin, owner="me") == ["alans"]
    assert listed(member, owner="me") == ["bobs"]
    assert listed(operator, owner="me") == []


def test_the_permission_filter_finds_the_keys_that_a_check_lets_in(
    make_key: MakeKey, project: Project, operator: Actor
) -> None:
    Project.update(key_limit=1_000).execute()
    for held in {held for held, _, _ in MET.values()}:
        make_key(name=held, permissions=["other:thing", held])
    make_key(name="both", permissions=["keys:read", "keys:write"])
    make_key(name="none")
    for required in {required for _, required, _ in MET.values()}:
        found = set(listed(operator, permission=required, limit=200))
        holders = {key.name for key in Key.select() if permissions.met(key.permissions, required)}
        assert found == holders, required


def test_the_expiring_filter_finds_active_keys_that_end_within(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    make_key(name="never")
    make_key(name="in an hour", expires_in="1h")
    make_key(name="exactly then", expires_at="2026-12-20T10:30:00Z")
    make_key(name="a second later", expires_at="2026-12-20T10:30:01Z")
    revoked, _ = make_key(name="revoked", expires_in="2d")
    keys.revoke(revoked.id, by=operator)
    assert sorted(listed(operator, expiring="30d")) == ["exactly then", "in an hour"]
    assert listed(operator, expiring="2h") == ["in an hour"]
    assert listed(operator, expiring="1m") == []
    assert len(listed(operator, expiring="9999y")) == 3
    clock.move("1h")  # and it has ended
    assert sorted(listed(operator, expiring="30d")) == ["a second later", "exactly then"]


def test_the_unused_filter_finds_what_nobody_used_for_so_long(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    _, used = make_key(name="used then")
    make_key(name="never")
    ask(used)
    clock.move("30d")
    make_key(name="young")
    assert listed(operator, unused="30d") == []  # for a moment less than so long
    clock.move_ms(1)
    assert sorted(listed(operator, unused="30d")) == ["never", "used then"]
    assert sorted(listed(operator, unused="always")) == ["never", "young"]
    assert listed(operator, unused="9999y") == []
    ask(used)
    assert listed(operator, unused="30d") == ["never"]


def test_all_filters_must_fit(make_key: MakeKey, operator: Actor, member: Actor) -> None:
    fits: dict[str, Any] = {
        "name": "CI", "by": member, "expires_in": "3d", "permissions": ["tasks:*"],
    }  # fmt: skip
    make_key(**fits)
    make_key(**{**fits, "name": "other name"})
    make_key(**{**fits, "by": operator})
    make_key(**{**fits, "expires_in": None})
    make_key(**{**fits, "permissions": []})
    make_key(**{**fits, "environment": "test"})
    asked = {
        "q": "ci", "owner": "bob@example.com", "expiring": "7d", "permission": "tasks:read",
        "environment": "live", "status": "active", "unused": "always",
    }  # fmt: skip
    assert listed(operator, **asked) == ["CI"]
    assert key_list.count(by=operator, project="shop", **asked) == 1
    for name in asked:
        without = {other: value for other, value in asked.items() if other != name}
        assert len(listed(operator, **without)) == (1 if name in ("status", "unused") else 2), name


MEANINGLESS = {
    "status": ("x", "must be one of active, revoked, expired"),
    "environment": ("x", "must be live or test"),
    "sort": ("x", "must be one of"),
    "permission": ("tasks", "must look like tasks:read"),
    "expiring": ("soon", "must be a length such as 30m"),
    "unused": ("never", "must be always, or a length such as 30m"),
    "q": ("x" * 101, "at most 100 characters"),
}


@pytest.mark.parametrize("field", MEANINGLESS)
def test_a_filter_that_makes_no_sense_is_refused_by_name(
    operator: Actor, project: Project, field: str
) -> None:
    value, words = MEANINGLESS[field]
    with pytest.raises(Invalid) as refused:
        listed(operator, **{field: value})
    assert list(refused.value.fields) == [field]
    assert words in refused.value.fields[field]


def test_a_filter_that_there_is_not_is_refused_by_name(operator: Actor, project: Project) -> None:
    assert refused_fields(lambda: listed(operator, colour="red")) == ["colour"]


def test_the_api_takes_the_same_filters(call: Call, make_key: MakeKey) -> None:
    make_key(name="ends", expires_in="3d", permissions=["tasks:*"])
    query = "?permission=tasks:write&expiring=7d&unused=always"
    answer = call("GET", f"/api-keys{query}")
    assert [key["name"] for key in answer.get_json()["data"]] == ["ends"]
    answer = call("GET", "/api-keys?expiring=soon")
    problem = assert_problem(answer, 400, "INVALID", "errors")
    assert problem["errors"][0]["field"] == "expiring"


@pytest.fixture
def varied(make_key: MakeKey, clock: Clock) -> None:
    """Five keys whose every order differs; `used` and `spent` were used, two never expire."""
    settings: dict[str, dict[str, Any]] = {
        "eve": {"expires_in": "3d"},
        "Anna": {},
        "dora": {"expires_in": "1d"},
        "Çelik": {},
        "bob": {"expires_in": "2d"},
    }
    made = {}
    for name, fields in settings.items():
        made[name] = make_key(name=name, **fields)[1]
        clock.move("1m")
    for name in ("dora", "Anna"):
        ask(made[name])
        clock.move("1m")


ORDERS = {
    "name": ["Anna", "bob", "dora", "eve", "Çelik"],
    "created_at": ["eve", "Anna", "dora", "Çelik", "bob"],
    "expires_at": ["dora", "bob", "eve", {"Anna", "Çelik"}],  # what never expires comes last
    "last_used_at": [{"eve", "Çelik", "bob"}, "dora", "Anna"],  # what was never used comes first
}


def in_order(names: list[str], order: list[Any]) -> bool:
    """Whether the names come in this order; those in a set in any order among themselves."""
    for group in order:
        group = group if isinstance(group, set) else {group}
        first, names = names[: len(group)], names[len(group) :]
        if set(first) != group:
            return False
    return not names


@pytest.mark.parametrize("sort", ORDERS)
def test_the_list_sorts(varied: None, operator: Actor, sort: str) -> None:
    assert in_order(listed(operator, sort=sort), ORDERS[sort])
    assert in_order(listed(operator, sort=f"-{sort}"), ORDERS[sort][::-1])


@pytest.mark.parametrize("sort", [sign + name for name in ORDERS for sign in ("", "-")])
def test_pages_of_each_order_go_forward_and_back_with_keys_added_meanwhile(
    varied: None, make_key: MakeKey, operator: Actor, sort: str
) -> None:
    whole = listed(operator, sort=sort)

    def page(cursor: str | None) -> paging.Page[Key]:
        return key_list.page(by=operator, project="shop", sort=sort, limit=2, cursor=cursor)

    first = page(None)
    make_key(name="AAA newcomer")
    make_key(name="zzz newcomer", expires_in="3d")
    rows, shown = list(first.rows), first
    while shown.next_cursor:
        shown = page(shown.next_cursor)
        rows += shown.rows
    assert [key.name for key in rows if "newcomer" not in key.name] == whole
    back = list(shown.rows)
    while shown.previous_cursor:
        shown = page(shown.previous_cursor)
        back = shown.rows + back
    assert [key.name for key in back] == listed(operator, sort=sort)


@pytest.mark.parametrize("near", [1, 4, 100])
@pytest.mark.parametrize("sort", [sign + name for name in ORDERS for sign in ("", "-")])
def test_however_few_keys_fit_and_wherever_they_lie_the_pages_hold_each_once(
    make_key: MakeKey, operator: Actor, monkeypatch: pytest.MonkeyPatch, sort: str, near: int
) -> None:
    Project.update(key_limit=100).execute()
    for number in range(24):
        fits = number in (3, 4, 5, 13, 21)
        make_key(name=f"{number * 7 % 24:02}", environment="test" if fits else "live")
    whole = [
        key.name
        for key in key_list.page(by=operator, project="shop", sort=sort, limit=200).rows
        if key.environment == "test"
    ]
    monkeypatch.setattr(key_list, "NEAR", near)

    def page(cursor: str | None) -> paging.Page[Key]:
        asked: dict[str, Any] = {"environment": "test", "sort": sort, "limit": 2}
        return key_list.page(by=operator, project="shop", cursor=cursor, **asked)

    shown = page(None)
    found = [key.name for key in shown.rows]
    while shown.next_cursor:
        shown = page(shown.next_cursor)
        found += [key.name for key in shown.rows]
    assert found == whole
    back = [key.name for key in shown.rows]
    while shown.previous_cursor:
        shown = page(shown.previous_cursor)
        back = [key.name for key in shown.rows] + back
    assert back == whole


def test_a_cursor_of_another_kind_of_order_is_refused(varied: None, operator: Actor) -> None:
    cursor = key_list.page(by=operator, project="shop", sort="created_at", limit=2).next_cursor
    assert refused_fields(lambda: listed(operator, sort="name", cursor=cursor)) == ["cursor"]


INDEXES = {
    "name": "key_project_id_name_sort_id",
    "created_at": "key_project_id_created_at_id",
    "expires_at": "key_project_id_expires_order_id",
    "last_used_at": "key_project_id_last_used_order_id",
}
SEEKS = {
    "name": "(name_sort,id)",
    "created_at": "(created_at,id)",
    "expires_at": "(expires_order,id)",
    "last_used_at": "(last_used_order,id)",
}


def plan_of(sql: str, parameters: list[Any]) -> str:
    if db.is_sqlite():
        rows = db.handle.execute_sql(f"explain query plan {sql}", parameters).fetchall()
        return "\n".join(row[3] for row in rows)
    for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
        db.handle.execute_sql(f"set {setting} = off")
    rows = db.handle.execute_sql(f"explain {sql}", parameters).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("sort", [sign + name for name in ORDERS for sign in ("", "-")])
@pytest.mark.parametrize("filters", [{}, {"status": "active", "environment": "live"}])
def test_a_page_of_each_order_starts_inside_its_index(
    varied: None,
    operator: Actor,
    caplog: pytest.LogCaptureFixture,
    sort: str,
    filters: dict[str, str],
) -> None:
    first = key_list.page(by=operator, project="shop", sort=sort, limit=1)
    with caplog.at_level(logging.DEBUG, "peewee"):
        key_list.page(by=operator, project="shop", sort=sort, cursor=first.next_cursor, **filters)
    sql, parameters = next(r.msg for r in caplog.records if "ORDER BY" in r.msg[0])
    plan = plan_of(sql, parameters)
    name = sort.removeprefix("-")
    assert INDEXES[name] in plan
    assert "TEMP B-TREE" not in plan and "Sort" not in plan
    if db.is_sqlite():
        assert f"project_id=? AND {SEEKS[name]}" in plan


@pytest.mark.parametrize("status", ["active", "revoked", "expired"])
@pytest.mark.parametrize("sort", ORDERS)
def test_what_is_near_is_looked_for_in_the_order_of_the_page(
    varied: None,
    operator: Actor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    status: str,
) -> None:
    monkeypatch.setattr(key_list, "NEAR", 1)
    with caplog.at_level(logging.DEBUG, "peewee"):
        key_list.page(by=operator, project="shop", sort=sort, status=status)
    sql, parameters = next(r.msg for r in caplog.records if "NOT ((" in r.msg[0])
    if db.is_sqlite():
        plan = plan_of(sql, parameters)
        assert INDEXES[sort] in plan
        assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("sort", [sign + name for name in ORDERS for sign in ("", "-")])
def test_what_is_not_near_is_looked_for_in_the_order_of_the_file(
    varied: None,
    operator: Actor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
) -> None:
    monkeypatch.setattr(key_list, "NEAR", 1)
    asked = {"environment": "test", "sort": sort}
    with caplog.at_level(logging.DEBUG, "peewee"):
        assert key_list.page(by=operator, project="shop", **asked).rows == []
    sql, parameters = next(r.msg for r in caplog.records if "coalesce" in r.msg[0].lower())
    if db.is_sqlite():
        assert "key_project_id_created_at_id (project_id=? AND created_at>?)" in plan_of(
            sql, parameters
        )


@pytest.mark.parametrize("sort", [sign + name for name in ORDERS for sign in ("", "-")])
def test_a_members_page_reads_no_foreign_project(
    member: Actor, make_key: MakeKey, caplog: pytest.LogCaptureFixture, sort: str
) -> None:
    with caplog.at_level(logging.DEBUG, "peewee"):
        key_list.page(by=member, project="shop", sort=sort)
    sql, parameters = next(r.msg for r in caplog.records if "owner_id" in r.msg[0])
    assert "SCAN" not in plan_of(sql, parameters)


def test_names_of_tells_of_keys_that_still_exist(make_key: MakeKey, operator: Actor) -> None:
    key, _ = make_key(name="here")
    gone, _ = make_key(name="gone")
    keys.delete(gone.id, by=operator)
    assert key_list.names_of({key.id, gone.id}) == {key.id: "here"}
    assert key_list.names_of(set()) == {}


def test_the_grace_of_many_keys_is_that_of_each(
    make_key: MakeKey, operator: Actor, clock: Clock
) -> None:
    made = [make_key(name=name)[0] for name in ("in grace", "at once", "over", "never rotated")]
    for key, grace in zip(made, ("2d", None, "1d", ""), strict=True):
        if grace != "":
            keys.rotate(key.id, {"grace_period": grace}, by=operator)
    clock.move("1d")
    rows = key_list.page(by=operator, project="shop").rows
    assert key_list.graces_of(rows) == {
        key.id: keys.grace_of(key) for key in rows if key.name == "in grace"
    }
    assert key_list.graces_of([]) == {}


# --- all of them ------------------------------------------------------------------------------


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(paging, "LIMIT_MAX", 2)
    yield


def test_every_key_comes_once_newest_first_whatever_is_done_meanwhile(
    make_key: MakeKey, operator: Actor, clock: Clock, short_parts: None
) -> None:
    made = []
    for number in range(7):
        made.append(make_key(name=str(number))[0])
        clock.move("1m")
    rows = key_list.every(by=operator, project="shop")
    found = [next(rows).name]
    make_key(name="newcomer")
    keys.edit(made[2].id, {"name": "zzz"}, by=operator)
    keys.delete(made[1].id, by=operator)
    found += [key.name for key in rows]
    assert found == ["6", "5", "4", "3", "zzz", "0"]


def test_every_key_is_of_those_that_fit_and_that_the_actor_sees(
    make_key: MakeKey, operator: Actor, member: Actor, stranger: Actor, short_parts: None
) -> None:
    make_key(name="own", by=member)
    make_key(name="own, test", by=member, environment="test")
    make_key(name="others")
    names = [key.name for key in key_list.every(by=member, project="shop", environment="live")]
    assert names == ["own"]
    assert key_list.count(by=member, project="shop") == 2
    assert key_list.count(by=operator, project="shop") == 3
    with pytest.raises(Unknown):
        key_list.every(by=stranger, project="shop")
    with pytest.raises(Invalid):
        key_list.every(by=operator, project="shop", status="x")


# --- what the filters offer ---------------------------------------------------------------------


def test_the_owners_offered_are_those_who_may_own_keys_here(
    project: Project, owner: Actor, admin: Actor, member: Actor, viewer: Actor, stranger: Actor
) -> None:
    offered = ["ada@example.com", "alan@example.com", "bob@example.com", "vera@example.com"]
    assert key_list.owners(project, by=admin) == offered
    assert key_list.owners(project, by=viewer) == offered
    assert key_list.owners(project, by=member) == []
    with pytest.raises(Unknown):
        key_list.owners(project, by=stranger)


def test_the_permissions_offered_are_the_catalogues_and_those_in_use(
    make_key: MakeKey, project: Project, operator: Actor, member: Actor, admin: Actor
) -> None:
    make_key(permissions=["b:x", "a:x"])
    make_key(permissions=["a:x"], by=member)
    assert key_list.permissions_in_use(project, by=operator) == ["a:x", "b:x"]
    assert key_list.permissions_in_use(project, by=member) == ["a:x"]
    project.permission_catalogue = [{"name": "c:x", "description": "See"}]
    assert key_list.permissions_in_use(project, by=operator) == ["a:x", "b:x", "c:x"]


def test_whoever_may_not_see_keys_sees_no_list(make_key: MakeKey, project: Project) -> None:
    key, _ = make_key()
    robot = Actor(kind="key", id=key.id, name="CI", project_id=project.id)
    for read in (key_list.page, key_list.count, key_list.every):
        with pytest.raises(Forbidden):
            read(by=robot, project="shop")
