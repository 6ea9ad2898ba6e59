"""What a project's settings ask of its keys, and what an archived project lets be done."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from console import (
    check,
    clock,
    key_choice,
    key_import,
    key_list,
    key_many,
    keys,
    overview,
    projects,
    secret,
    webhooks,
)
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, NotFresh, Refused
from console.models import Event, Key, Project
from tests.conftest import Clock, MakeKey

DIGEST = secret.digest("old-secret")
LATEST = "2026-12-20T10:30:00Z"  # 30 days after the tests' instant
TOO_LATE = f"must come by {LATEST}: keys of Shop live for 30d at most"


def ask(text: str) -> str:
    return check.check(check.Request(secret=text, request_id="r")).code


def fields_of(refused: Callable[[], Any]) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        refused()
    return refusal.value.fields


def settings(by: Actor, **fields: Any) -> Project:
    return projects.edit("shop", fields, by=by)


def take_over(by: Actor, **fields: Any) -> Key:
    row = {"name": "Old", "sha256": DIGEST, "prefix": "old", **fields}
    return key_import.import_keys({"project": "shop", "keys": [row]}, by=by)[0]


# --- what they may be -----------------------------------------------------------------------------


def test_settings_are_set_read_and_recorded(operator: Actor, project: Project) -> None:
    wanted = {
        "environments": ["test"],
        "default_expiry": "30d",
        "maximum_lifetime": "1y",
        "alert_email": "team@example.com",
    }
    before = projects.as_dict(project)
    assert before["environments"] == ["live", "test"]
    assert not any(before[name] for name in ("default_expiry", "maximum_lifetime", "alert_email"))
    settings(operator, **wanted)
    assert projects.as_dict(Project.get()) == {**before, **wanted}
    assert Event.get(Event.action == "project.edited").changes == {
        "environments": [["live", "test"], ["test"]],
        "default_expiry": [None, "30d"],
        "maximum_lifetime": [None, "1y"],
        "alert_email": [None, "team@example.com"],
    }
    created = projects.create({"slug": "tasks", **wanted}, by=operator)
    assert {name: projects.as_dict(created)[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "given, field",
    [
        ({"environments": []}, "environments"),
        ({"environments": ["prod"]}, "environments.0"),
        ({"environments": None}, "environments"),
        ({"default_expiry": "soon"}, "default_expiry"),
        ({"default_expiry": "101y"}, "default_expiry"),
        ({"maximum_lifetime": "0d"}, "maximum_lifetime"),
        ({"maximum_lifetime": "99999y"}, "maximum_lifetime"),
        ({"maximum_lifetime": "8000y"}, "maximum_lifetime"),
        ({"maximum_lifetime": "7d", "default_expiry": "8d"}, "default_expiry"),
        ({"alert_email": "nobody"}, "alert_email"),
        ({"archived": "yes"}, "archived"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    operator: Actor, project: Project, given: dict[str, Any], field: str
) -> None:
    before = projects.as_dict(project)
    assert list(fields_of(lambda: settings(operator, **given))) == [field]
    assert projects.as_dict(Project.get()) == before


def test_a_default_beyond_the_maximum_is_refused_whichever_is_sent(
    operator: Actor, project: Project
) -> None:
    settings(operator, default_expiry="30d")
    why = "must be at most the maximum lifetime, 7d"
    assert fields_of(lambda: settings(operator, maximum_lifetime="7d")) == {"default_expiry": why}
    settings(operator, maximum_lifetime="7d", default_expiry="7d")


def test_environments_are_kept_once_and_in_one_order(operator: Actor, project: Project) -> None:
    assert settings(operator, environments=["test", "live", "test"]).environments == [
        "live", "test"]  # fmt: skip
    assert not Event.select().where(Event.action == "project.edited").exists()


# --- which environment ----------------------------------------------------------------------------


def test_new_keys_have_an_environment_that_is_allowed(
    operator: Actor, project: Project, make_key: MakeKey
) -> None:
    old, _ = make_key(environment="live")
    settings(operator, environments=["test"])
    key, text = make_key()
    assert (key.environment, text[:8]) == ("test", "sk_test_")
    assert take_over(operator).environment == "test"
    why = "must be test: this project makes no other keys"
    assert fields_of(lambda: make_key(environment="live")) == {"environment": why}
    keys.delete(Key.get(Key.name == "Old").id, by=operator)
    assert fields_of(lambda: take_over(operator, environment="live")) == {"keys.0.environment": why}
    _, rotated, _ = keys.rotate(old.id, {}, by=operator)
    assert rotated.startswith("sk_live_"), "a key that is there stays what it is"


def test_live_is_the_default_where_it_is_allowed(
    operator: Actor, project: Project, make_key: MakeKey
) -> None:
    settings(operator, environments=["live"])
    assert make_key()[0].environment == "live"
    assert list(fields_of(lambda: make_key(environment="test"))) == ["environment"]


# --- how long keys live ---------------------------------------------------------------------------


def ends(key: Key) -> str | None:
    return clock.iso(key.expires_at)


@pytest.mark.parametrize(
    "rules, end",
    [
        ({}, None),
        ({"default_expiry": "7d"}, "2026-11-27T10:30:00Z"),
        ({"maximum_lifetime": "30d"}, LATEST),
        ({"default_expiry": "7d", "maximum_lifetime": "30d"}, "2026-11-27T10:30:00Z"),
    ],
)
def test_a_key_for_which_no_end_is_sent_ends_as_its_project_says(
    clock: Clock, operator: Actor, project: Project, make_key: MakeKey,
    rules: dict[str, str], end: str | None,
) -> None:  # fmt: skip
    settings(operator, **rules)
    clock.move_ms(250)
    assert ends(make_key()[0]) == end
    assert ends(make_key(expires_in=None)[0]) == end
    assert ends(take_over(operator)) == end


def test_what_is_sent_outdoes_the_default(
    clock: Clock, operator: Actor, project: Project, make_key: MakeKey
) -> None:
    settings(operator, default_expiry="7d")
    assert ends(make_key(expires_at=None)[0]) is None
    assert ends(make_key(expires_in="30d")[0]) == LATEST


def test_a_month_that_is_longer_than_the_maximum_ends_with_it(
    clock: Clock, operator: Actor, project: Project, make_key: MakeKey
) -> None:
    """1mo is 30 days from 20 November and 31 from 20 December."""
    settings(operator, default_expiry="1mo", maximum_lifetime="30d")
    clock.move("30d")
    assert ends(make_key()[0]) == "2027-01-19T10:30:00Z"


def test_no_end_may_be_set_beyond_the_maximum(
    clock: Clock, operator: Actor, project: Project, make_key: MakeKey
) -> None:
    settings(operator, maximum_lifetime="30d")
    clock.move_ms(250)
    for sent, field in (
        ({"expires_in": "31d"}, "expires_in"),
        ({"expires_at": "2026-12-20T10:30:01Z"}, "expires_at"),
        ({"expires_at": None}, "expires_at"),
    ):
        key, _ = make_key(expires_in="1d")
        assert fields_of(lambda sent=sent: make_key(**sent)) == {field: TOO_LATE}
        assert fields_of(lambda sent=sent, key=key: keys.edit(key.id, sent, by=operator)) == {
            field: TOO_LATE}  # fmt: skip
        assert fields_of(lambda sent=sent: take_over(operator, **sent)) == {
            f"keys.0.{field}": TOO_LATE}  # fmt: skip
    for extend in (
        lambda: key_choice.prolongation([key.id], "shop", {"expires_in": "31d"}, by=operator),
        lambda: key_many.extend([key.id], {"expires_in": "31d"}, by=operator),
    ):
        assert fields_of(extend) == {"expires_in": TOO_LATE}
    for sent in ({"expires_in": "30d"}, {"expires_at": LATEST}):
        assert ends(make_key(**sent)[0]) == LATEST
        assert ends(keys.edit(key.id, sent, by=operator)) == LATEST


def test_keys_that_are_there_keep_their_end(
    clock: Clock, operator: Actor, project: Project, make_key: MakeKey
) -> None:
    lasting, distant = make_key()[0], make_key(expires_in="1y")[0]
    settings(operator, maximum_lifetime="30d")
    for key in (lasting, distant):
        facts = keys.as_dict(key)
        keys.edit(key.id, {"description": "New", "expires_at": facts["expires_at"]}, by=operator)
        keys.revoke(key.id, by=operator)
        keys.restore(key.id, by=operator)
        keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
        assert ends(keys.held(key.id)) == facts["expires_at"]
    assert list(fields_of(lambda: keys.edit(distant.id, {"expires_at": None}, by=operator))) == [
        "expires_at"]  # fmt: skip


# --- archived -------------------------------------------------------------------------------------


def archive(by: Actor) -> Project:
    return settings(by, archived=True)


def test_an_archived_projects_keys_are_refused_and_work_again_when_it_is_restored(
    owner: Actor, project: Project, make_key: MakeKey
) -> None:
    (_, text), (revoked, revoked_text) = make_key(), make_key()
    keys.revoke(revoked.id, by=owner)
    assert ask(text) == "VALID"
    archive(owner)
    assert projects.as_dict(Project.get())["archived"] is True
    assert [ask(text), ask(revoked_text)] == ["API_KEY_REVOKED"] * 2
    settings(owner, archived=False)
    assert [ask(text), ask(revoked_text)] == ["VALID", "API_KEY_REVOKED"]
    assert [(event.action, event.changes, event.project_id) for event in Event.select().where(
        Event.action.in_(["project.archived", "project.restored", "project.edited"]))] == [
        ("project.archived", {"archived": [False, True]}, project.id),
        ("project.restored", {"archived": [True, False]}, project.id),
    ]  # fmt: skip


def test_what_is_archived_already_leaves_no_event(owner: Actor, project: Project) -> None:
    archive(owner)
    archived_at = archive(owner).archived_at
    assert archived_at == Project.get().archived_at
    assert Event.select().where(Event.action == "project.archived").count() == 1


def test_only_an_owner_who_was_just_there_archives_and_restores(
    owner: Actor, admin: Actor, member: Actor, project: Project
) -> None:
    stale = replace(owner, fresh_until=0)
    for wanted in (True, False):
        for by in (admin, member):
            with pytest.raises(Forbidden):
                settings(by, archived=wanted, name="Shop" if wanted else "Mine")
        with pytest.raises(NotFresh):
            settings(stale, archived=wanted)
        settings(owner, archived=wanted)
    assert settings(admin, archived=False, name="The Shop").name == "The Shop", "it is so already"
    assert settings(stale, name="Shop").name == "Shop"
    with pytest.raises(NotFresh):
        projects.delete("shop", by=stale)


NOT_WHILE_ARCHIVED: dict[str, Callable[[Key, Actor], Any]] = {
    "create": lambda key, by: keys.create({"name": "CI", "project": "shop"}, by=by),
    "import": lambda key, by: take_over(by),
    "edit": lambda key, by: keys.edit(key.id, {"name": "New"}, by=by),
    "enable": lambda key, by: keys.restore(key.id, by=by),
    "extend": lambda key, by: key_many.extend([key.id], {"expires_in": "30d"}, by=by),
    "rotate": lambda key, by: keys.rotate(key.id, {}, by=by),
    "extend the grace": lambda key, by: keys.set_grace(key.id, {"grace_period": "7d"}, by=by),
    "its settings": lambda key, by: settings(by, name="New"),
    "a webhook": lambda key, by: webhooks.create(
        {"project": "shop", "url": "https://hooks.example.com/x"}, by=by
    ),
}


@pytest.mark.parametrize("name", NOT_WHILE_ARCHIVED)
def test_nothing_is_made_or_set_while_archived(
    operator: Actor, project: Project, make_key: MakeKey, name: str
) -> None:
    key, _ = make_key(expires_in="1d")
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    archive(operator)
    before = (keys.as_dict(keys.held(key.id)), Event.select().count(), Key.select().count())
    with pytest.raises(Conflict, match="The project shop is archived"):
        NOT_WHILE_ARCHIVED[name](key, operator)
    assert (keys.as_dict(keys.held(key.id)), Event.select().count(), Key.select().count()) == before
    settings(operator, archived=False)
    NOT_WHILE_ARCHIVED[name](key, operator)


def test_what_stops_a_key_can_be_done_while_archived(
    operator: Actor, project: Project, make_key: MakeKey
) -> None:
    key, other = make_key()[0], make_key()[0]
    keys.rotate(key.id, {"grace_period": "1h"}, by=operator)
    archive(operator)
    keys.set_grace(key.id, {"grace_period": None}, by=operator)
    keys.revoke(key.id, by=operator)
    key_many.revoke([other.id], by=operator)
    for one in (key, other):
        assert keys.held(one.id).revoked_at is not None
        keys.delete(one.id, by=operator)
    projects.delete("shop", by=operator)
    assert not Project.select().exists()


def test_one_change_may_restore_and_set(operator: Actor, project: Project) -> None:
    archive(operator)
    settings(operator, archived=False, name="The Shop")
    settings(operator, archived=True, name="Shop")
    found = Project.get()
    assert (found.name, found.archived_at is not None) == ("Shop", True)
    actions = [event.action for event in Event.select().order_by(Event.id)]
    assert actions[-4:] == ["project.edited", "project.restored", "project.edited",
                            "project.archived"]  # fmt: skip


def test_an_archived_project_leaves_the_switcher_and_stays_in_lists(
    owner: Actor, member: Actor, project: Project, other_project: Project, make_key: MakeKey
) -> None:
    make_key(by=owner)
    archive(owner)
    assert [one.slug for one in projects.visible(owner)] == ["other"]
    assert projects.visible(member) == []
    assert [one.slug for one in projects.seen(owner)] == ["other", "shop"]
    assert {one.slug for one in projects.page(by=owner).rows} == {"other", "shop"}
    assert [row.project.slug for row in overview.of_all(by=owner)] == ["other", "shop"]
    assert projects.to_see("shop", by=member).slug == "shop"
    assert projects.ids_where("keys:verify", by=owner) == {project.id, other_project.id}
    assert [key.project_id for key in key_list.page(by=owner).rows] == [project.id]
    assert projects.to_act_in(None, by=owner).slug == "other", "the only one there is work in"


def test_a_wrong_name_deletes_no_project(owner: Actor, project: Project) -> None:
    for typed in ("", "shop", "Shop "):
        with pytest.raises(Invalid, match="type the project's name, Shop, exactly"):
            projects.delete("shop", by=owner, confirm=typed)
    projects.delete("shop", by=owner, confirm="Shop")


def test_a_rename_leaves_the_slug(owner: Actor, project: Project) -> None:
    assert settings(owner, name="Store").slug == "shop"
    with pytest.raises(Refused):
        settings(owner, slug="store")
