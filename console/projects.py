"""Projects: what owns keys, how the secrets minted for it look, who sees, changes and archives it.

What its settings ask of its keys is key_rules.py's to say.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Any

import peewee

from console import (
    activity,
    alert_rules,
    catalogue,
    clock,
    db,
    paging,
    plans,
    route_rules,
    secret,
)
from console.actor import KEY, Actor
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.fields import edition as edition_of
from console.models import Key, Membership, Person, Project
from console.paging import Order, Page
from console.permissions import PROJECTS_MANAGE
from console.project_fields import (
    KEY_LIMIT_DEFAULT,
    PREFIX,
    PREFIX_MAX_LENGTH,
    PREFIX_WITH_PARTS,
    RESERVED,
    SLUG,
    SLUG_LENGTH,
    NewProject,
    ProjectChange,
    ProjectFacts,
    ProjectObject,
)

LIFETIME_MAX = "100y"
NEWEST = [
    Order(Project.created_at, int, lambda project: project.created_at),
    Order(Project.id, str, lambda project: project.id),
]

_default_key_limit = KEY_LIMIT_DEFAULT


# --- change ---------------------------------------------------------------------------------


@db.transaction
def create(fields: Mapping[str, Any], *, by: Actor) -> Project:
    """A new project. Raises Invalid; Conflict when the slug is taken; Forbidden but for owners."""
    if not by.is_owner:
        raise Forbidden("Only an owner creates projects.")
    new = NewProject.read(fields)
    shows_environment = _environment_part(new.prefix, new.key_format, new.shows_environment)
    _refuse_lifetimes(new.default_expiry, new.maximum_lifetime)
    db.hold_table(Project)
    if Project.get_or_none(Project.slug == new.slug):
        raise Conflict(f"There is a project {new.slug} already.", fields={"slug": "is taken"})
    project = Project.create(
        id=secret.random_id("prj"),
        slug=new.slug,
        name=new.name or new.slug,
        prefix=new.prefix,
        key_format=new.key_format,
        shows_environment=shows_environment,
        key_limit=new.key_limit,
        permission_catalogue=catalogue.stored(new.permission_catalogue),
        permission_presets=catalogue.stored_presets(new.permission_presets),
        plans=plans.stored(new.plans),
        environments=new.environments,
        default_expiry=new.default_expiry,
        maximum_lifetime=new.maximum_lifetime,
        alert_email=new.alert_email,
        rotation_policy=alert_rules.policy_as_dict(new.rotation_policy),
        alerts=new.alerts.model_dump(exclude_unset=True),
        route_rules=route_rules.stored(new.route_rules),
        route_default=new.route_default,
        created_at=clock.now(),
    )
    _record(
        "project.created", project, by, {name: (None, v) for name, v in _facts(project).items()}
    )
    return project


def _environment_part(prefix: str, key_format: str, wanted: bool | None) -> bool:
    """Whether secrets say `live` or `test`; checks the prefix against it. Raises Invalid."""
    if wanted is None:
        wanted = "_" not in prefix and key_format == secret.BASE62
    if wanted and key_format == secret.HEX32:
        raise Invalid(
            {"shows_environment": "cannot be shown: hex32 secrets carry no environment part"}
        )
    pattern, example = (
        (PREFIX, "letters and digits, such as sk, at most 16 characters; one with parts, such as "
         "vsp_sk, or a longer one only where secrets do not say live or test")
        if wanted
        else (PREFIX_WITH_PARTS, f"such as vsp_sk, at most {PREFIX_MAX_LENGTH} characters")
    )  # fmt: skip
    if not pattern.fullmatch(prefix) or len(prefix) > PREFIX_MAX_LENGTH:
        raise Invalid({"prefix": f"must start with a lowercase letter; {example}"})
    return wanted


def examples(project: Project, fields: Mapping[str, Any]) -> dict[str, str]:
    """What new secrets would look like after such a change, by environment. Raises Invalid."""
    change = ProjectChange.read(fields)
    shape = {"prefix": project.prefix, "key_format": project.key_format,
             "shows_environment": project.shows_environment,
             **change.model_dump(exclude_unset=True)}  # fmt: skip
    says = _environment_part(shape["prefix"], shape["key_format"], shape["shows_environment"])
    return {
        environment: secret.example(
            shape["prefix"], environment if says else None, shape["key_format"]
        )
        for environment in project.environments
    }


def _refuse_lifetimes(default: str | None, longest: str | None) -> None:
    """Raises Invalid for lengths beyond all use, and for a default that is never allowed."""
    now = clock.now()
    ends = {"default_expiry": default, "maximum_lifetime": longest}
    for field, length in ends.items():
        if length and _end(field, length, now) > clock.after(now, LIFETIME_MAX):
            raise Invalid({field: f"must be at most {LIFETIME_MAX}"})
    if default and longest and clock.after(now, default) > clock.after(now, longest):
        raise Invalid({"default_expiry": f"must be at most the maximum lifetime, {longest}"})


def _end(field: str, length: str, now: int) -> int:
    try:
        return clock.after(now, length)
    except ValueError as error:
        raise Invalid({field: str(error)}) from None


class Changed(Conflict):
    """409: what is to be changed has been changed since this edit was begun."""


def edition(project: Project, names: Iterable[str]) -> str:
    """What those settings hold, in 16 hexadecimal digits that are others once one of them is."""
    facts = dict(_facts(project))
    return edition_of({name: facts.get(name) for name in names})


@db.transaction
def edit(slug: str, fields: Mapping[str, Any], *, by: Actor, as_of: str | None = None) -> Project:
    """Changes what is sent, nothing else; keys and secrets that are there already stay as they are.

    `as_of`, where given, is the edition of these fields from which the change was made. Raises
    Invalid, Unknown, Forbidden; Changed where there is another one by now; Conflict for a plan that
    keys are on, and while the project is archived and stays so; NotFresh for who archives or
    restores it.
    """
    project = project_to_manage(slug, by=by)
    change = ProjectChange.read(fields)
    if change.slug not in (None, project.slug):
        raise Invalid({"slug": "cannot change; create another project"})
    was_archived = project.archived_at is not None
    is_archived = change.archived if change.sent("archived") else was_archived
    if is_archived != was_archived:
        _refuse_to_archive(by)
    differences = _differences(project, change)
    if differences and was_archived and is_archived:
        raise Conflict(f"The project {slug} is archived: restore it before you change it.")
    if differences and as_of not in (None, edition(project, fields)):
        raise Changed("Somebody changed this since you opened it. Nothing was saved.")
    if "plans" in differences:
        plans.refuse_removal(*differences["plans"], project)
    for name, (_, value) in differences.items():
        setattr(project, name, value)
    if is_archived != was_archived:
        project.archived_at = clock.now() if is_archived else None
    if project.dirty_fields:
        project.save(only=project.dirty_fields)
    if differences:
        _record("project.edited", project, by, differences)
    if is_archived != was_archived:
        action = "project.archived" if is_archived else "project.restored"
        _record(action, project, by, {"archived": (was_archived, is_archived)})
    return project


def _refuse_to_archive(by: Actor) -> None:
    if not by.is_owner:
        raise Forbidden("Only an owner archives and restores projects.")
    by.require_fresh()


def _differences(project: Project, change: ProjectChange) -> dict[str, tuple[Any, Any]]:
    """What the change would alter: of each field the old value and the new. Raises Invalid."""
    before = _facts(project)
    wanted: dict[str, Any] = {
        **before, **change.model_dump(include=set(before), exclude_unset=True)
    }  # fmt: skip
    if change.sent("permission_catalogue"):
        wanted["permission_catalogue"] = catalogue.stored(change.permission_catalogue)
    if change.sent("permission_presets"):
        wanted["permission_presets"] = catalogue.stored_presets(change.permission_presets)
    if change.sent("plans"):
        wanted["plans"] = plans.stored(change.plans)
    if change.sent("alerts"):
        wanted["alerts"] = alert_rules.changed(project, change.alerts)
    if change.sent("route_rules"):
        wanted["route_rules"] = route_rules.stored(change.route_rules)
    if change.sent("rotation_policy"):
        wanted["rotation_policy"] = alert_rules.policy_as_dict(change.rotation_policy)
    wanted["shows_environment"] = _environment_part(
        wanted["prefix"], wanted["key_format"], wanted["shows_environment"]
    )
    if change.sent("default_expiry") or change.sent("maximum_lifetime"):
        _refuse_lifetimes(wanted["default_expiry"], wanted["maximum_lifetime"])
    return {name: (old, wanted[name]) for name, old in before.items() if wanted[name] != old}


@db.transaction
def archive(slug: str, *, by: Actor, confirm: str | None = None) -> Project:
    """Has all of the project's keys refused from the next check on; `restore` ends that.

    `confirm`, where given, must be the project's name. Raises Invalid, and what `edit` does.
    """
    refuse_other_name(project_to_manage(slug, by=by), confirm)
    return edit(slug, {"archived": True}, by=by)


def restore(slug: str, *, by: Actor) -> Project:
    """Lets the project's keys work again as they did. Raises what `edit` does."""
    return edit(slug, {"archived": False}, by=by)


@db.transaction
def delete(slug: str, *, by: Actor, confirm: str | None = None) -> None:
    """Removes a project that has no keys; its entries stay until retention ends.

    `confirm`, where given, must be the project's name. Raises NotFresh, Unknown; Forbidden but for
    owners; Invalid; Conflict while there are keys.
    """
    by.require_fresh()
    project = to_see(slug, by=by)
    if not by.is_owner:
        raise Forbidden("Only an owner deletes projects.")
    refuse_other_name(project, confirm)
    project = held(project.id)
    keys = keys_in(project)
    if keys:
        raise Conflict(
            f"The project {slug} still has {keys} key{'s' if keys > 1 else ''}: delete every key "
            "first, revoked and expired ones too."
        )
    gone = {name: (value, None) for name, value in _facts(project).items()}
    _record("project.deleted", project, by, {**gone, "members": (_roles_in(project), None)})
    project.delete_instance()


def _roles_in(project: Project) -> dict[str, str]:
    """Who has which role in it, by address."""
    found = Membership.select(Membership, Person).join(Person).where(Membership.project == project)
    return {one.person.email: one.role for one in found.order_by(Person.email)}


def keys_in(project: Project) -> int:
    """How many keys there are, revoked and expired ones included."""
    return int(Key.select().where(Key.project == project).count())


def refuse_other_name(project: Project, confirm: str | None) -> None:
    """Raises Invalid where a name was typed to confirm, and it is another one."""
    if confirm is not None and confirm != project.name:
        raise Invalid({"confirm": f"type the project's name, {project.name}, exactly"})


def project_to_manage(slug: str, *, by: Actor) -> Project:
    """The project, where the actor may change it, held for this transaction."""
    project = to_see(slug, by=by)
    by.require(PROJECTS_MANAGE, project.id)
    return held(project.id)


def held(project_id: str) -> Project:
    """The project as it is now; it stays so until the transaction ends. Raises Unknown once it is
    deleted."""
    db.hold(Project, project_id)
    project = Project.get_or_none(Project.id == project_id)
    if project is None:
        raise Unknown("This project has just been deleted.")
    return project


def _facts(project: Project) -> ProjectFacts:
    return {
        "name": project.name,
        "prefix": project.prefix,
        "key_format": project.key_format,
        "shows_environment": project.shows_environment,
        "key_limit": project.key_limit,
        "permission_catalogue": list(project.permission_catalogue),
        "permission_presets": list(project.permission_presets),
        "plans": list(project.plans),
        "environments": list(project.environments),
        "default_expiry": project.default_expiry,
        "maximum_lifetime": project.maximum_lifetime,
        "alert_email": project.alert_email,
        "rotation_policy": project.rotation_policy,
        "alerts": alert_rules.as_dict(project),
        "route_rules": list(project.route_rules),
        "route_default": project.route_default,
    }


def as_dict(project: Project) -> ProjectObject:
    """The project object of the API."""
    return {
        "id": project.id,
        "slug": project.slug,
        **_facts(project),
        "archived": project.archived_at is not None,
        "created_at": clock.iso(project.created_at),
    }


def _record(action: str, project: Project, by: Actor, changes: activity.Changes) -> None:
    activity.record(
        action,
        by=by,
        target_id=project.id,
        target_name=project.slug,
        project_id=project.id,
        changes=changes,
    )


# --- read -----------------------------------------------------------------------------------


def to_see(slug: str, *, by: Actor) -> Project:
    """The project, where the actor has any business in it. Raises Unknown."""
    project = Project.get_or_none(Project.slug == slug) if SLUG.fullmatch(slug) else None
    if project is None or not by.sees(project.id):
        raise Unknown(f"There is no project {slug}.")
    return project


def to_act_in(slug: str | None, *, by: Actor) -> Project:
    """The named project, or the only one that the actor has. Raises Unknown or Invalid."""
    if slug is not None:
        return to_see(slug, by=by)
    mine = visible(by)
    if len(mine) != 1:
        names = ", ".join(project.slug for project in mine) or "none yet"
        raise Invalid({"project": f"is required; your projects are {names}"})
    return mine[0]


def visible(by: Actor) -> list[Project]:
    """The projects in which the actor has any business, by name; without those archived."""
    return [project for project in seen(by) if project.archived_at is None]


def seen(by: Actor) -> list[Project]:
    """The projects in which the actor has any business, archived or not, by name."""
    return list(_seen(by).order_by(peewee.fn.lower(Project.name), Project.id))


def page(
    *, by: Actor, cursor: str | None = None, limit: int = paging.LIMIT_DEFAULT
) -> Page[Project]:
    """The projects in which the actor has any business, newest first. Raises Invalid."""
    return paging.fetch(_seen(by), NEWEST, descending=True, cursor=cursor, limit=limit)


def _seen(by: Actor) -> Any:
    query = Project.select()
    if by.is_owner:
        return query
    within = [by.project_id or "", *by.roles]
    return query.where(Project.id.in_([one for one in within if by.sees(one)]))


def ids_where(permission: str, *, by: Actor) -> frozenset[str]:
    """The ids of the projects in which the actor holds the permission.

    Raises Forbidden where there is none.
    """
    if by.kind == KEY and by.project_id is not None:
        by.require(permission, by.project_id)
        return frozenset({by.project_id})
    within = frozenset(one.id for one in seen(by) if by.may(permission, one.id))
    if not within:
        raise by.denied(permission)
    return within


def slug_from(name: str) -> str:
    """A slug made from a name; `project` when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].strip("-") or "project"


def free_slug(name: str) -> str:
    """A slug made from a name that no project has yet: shop, shop-2, …"""
    slug = slug_from(name)
    taken = RESERVED | {project.slug for project in Project.select(Project.slug)}
    numbered = (f"{slug[: SLUG_LENGTH - 5].strip('-')}-{number}" for number in count(2))
    return next(one for one in chain([slug], numbered) if one not in taken)


def use_key_limit(limit: int) -> None:
    """Sets how many live keys a project may have that does not say so itself."""
    global _default_key_limit
    _default_key_limit = limit


def default_key_limit() -> int:
    """How many live keys a project may have that does not say so itself."""
    return _default_key_limit


def key_limit(project: Project) -> int:
    """How many live keys the project may have."""
    return project.key_limit or _default_key_limit


def any_yet() -> bool:
    return bool(Project.select().exists())
