"""Projects: what owns keys, how the secrets minted for it look, who sees and changes it."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

import peewee
from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from console import activity, catalogue, clock, db, paging, secret
from console.actor import KEY, Actor
from console.catalogue import Catalogue, Offer
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.fields import Fields, Instant, Name, OneOf, Whole, text_schema
from console.models import Key, Project
from console.paging import Order, Page
from console.permissions import PROJECTS_MANAGE

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
SLUG_HELP = "must be 1–40 lowercase letters, digits or hyphens, such as my-service"
PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")
PREFIX_WITH_PARTS = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
PREFIX_MAX_LENGTH = 20
DEFAULT_PREFIX = "lk"
KEY_LIMIT_DEFAULT = 20
KEY_LIMIT_MAX = 10_000_000
NEWEST = [
    Order(Project.created_at, int, lambda project: project.created_at),
    Order(Project.id, str, lambda project: project.id),
]

_default_key_limit = KEY_LIMIT_DEFAULT


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise ValueError(SLUG_HELP)
    return text


Slug = Annotated[str, AfterValidator(_slug), text_schema("my-service", pattern=f"^{SLUG.pattern}$")]
# What a prefix may be depends on the other fields: `_environment_part` says it.
Prefix = Annotated[
    str,
    text_schema("sk", pattern=f"^{PREFIX_WITH_PARTS.pattern}$", maxLength=PREFIX_MAX_LENGTH),
]
KeyFormat = Annotated[str, OneOf(*secret.FORMATS)]
KeyLimit = Annotated[int, Whole(1, KEY_LIMIT_MAX, 20)]

ABOUT_PREFIX = "What new secrets start with; at most 16 letters and digits where they say `live`"
ABOUT_ENVIRONMENT = (
    "Whether new secrets say `live` or `test`: only in base62, after a prefix without `_`. "
    "null: where prefix and format allow it"
)
ABOUT_KEY_LIMIT = "How many live keys at most; null: as many as this installation allows"
ABOUT_CATALOGUE = (
    "At most 100 permissions that the console offers for keys; a key may hold others, too"
)
# In which of these what the fields say of the environment does not go together.
NOT_TOGETHER: list[Any] = [
    {
        "required": ["key_format", "shows_environment"],
        "properties": {
            "key_format": {"const": secret.HEX32},
            "shows_environment": {"const": True},
        },
    },
    {
        "required": ["prefix", "shows_environment"],
        "properties": {
            "prefix": {"not": {"pattern": f"^{PREFIX.pattern}$"}},
            "shows_environment": {"const": True},
        },
    },
    {
        "required": ["prefix"],
        "properties": {
            "prefix": {"pattern": "^[a-z0-9]{17,}$"},
            "key_format": {"const": secret.BASE62},
            "shows_environment": {"const": None},
        },
    },
]


class NewProject(Fields):
    """What a project is made from."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": NOT_TOGETHER}})

    slug: Slug = Field(description="Names the project in addresses and settings; fixed")
    name: Name | None = Field(None, description="Left out: the slug")
    prefix: Prefix = Field(DEFAULT_PREFIX, description=ABOUT_PREFIX)
    key_format: KeyFormat = secret.BASE62
    shows_environment: bool | None = Field(None, description=ABOUT_ENVIRONMENT)
    key_limit: KeyLimit | None = Field(None, description=ABOUT_KEY_LIMIT)
    permission_catalogue: Catalogue = Field([], description=ABOUT_CATALOGUE)


class ProjectChange(Fields):
    """Only what is sent is changed; prefix and format are those of secrets that are yet to come."""

    slug: str | None = Field(None, description="Cannot change")
    name: Name = ""
    prefix: Prefix = Field("", description=ABOUT_PREFIX)
    key_format: KeyFormat = ""
    shows_environment: bool | None = Field(None, description=ABOUT_ENVIRONMENT)
    key_limit: KeyLimit | None = Field(None, description=ABOUT_KEY_LIMIT)
    permission_catalogue: Catalogue = Field([], description=ABOUT_CATALOGUE)


class ProjectFacts(TypedDict):
    """What a change may alter, as events and answers name it."""

    name: str
    prefix: Annotated[str, Field(description="What its secrets start with")]
    key_format: KeyFormat
    shows_environment: Annotated[bool, Field(description="Whether secrets say `live` or `test`")]
    key_limit: Annotated[int | None, Field(description=ABOUT_KEY_LIMIT)]
    permission_catalogue: Annotated[list[Offer], Field(description=ABOUT_CATALOGUE)]


class ProjectObject(ProjectFacts):
    """A project and what holds for the keys that are made in it."""

    id: Annotated[str, text_schema("prj_3Kq0cV8nTz5wYb2LmR7s")]
    slug: Annotated[str, text_schema("my-service")]
    created_at: Instant


# --- change ---------------------------------------------------------------------------------


@db.transaction
def create(fields: Mapping[str, Any], *, by: Actor) -> Project:
    """A new project. Raises Invalid; Conflict when the slug is taken; Forbidden but for owners."""
    if not by.is_owner:
        raise Forbidden("Only an owner creates projects.")
    new = NewProject.read(fields)
    shows_environment = _environment_part(new.prefix, new.key_format, new.shows_environment)
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
            {"shows_environment": "must be false: hex32 secrets carry no environment part"}
        )
    pattern, example = (
        (PREFIX, "letters and digits, such as sk, at most 16 characters; one with parts, such as "
         "vsp_sk, or a longer one needs shows_environment false")
        if wanted
        else (PREFIX_WITH_PARTS, f"such as vsp_sk, at most {PREFIX_MAX_LENGTH} characters")
    )  # fmt: skip
    if not pattern.fullmatch(prefix) or len(prefix) > PREFIX_MAX_LENGTH:
        raise Invalid({"prefix": f"must start with a lowercase letter; {example}"})
    return wanted


@db.transaction
def edit(slug: str, fields: Mapping[str, Any], *, by: Actor) -> Project:
    """Changes what is sent, nothing else; secrets that are there already stay as they are.

    Raises Invalid, Unknown, Forbidden.
    """
    project = project_to_manage(slug, by=by)
    change = ProjectChange.read(fields)
    if change.slug not in (None, project.slug):
        raise Invalid({"slug": "cannot change; create another project"})
    before = _facts(project)
    wanted = {**before, **change.model_dump(include=set(before), exclude_unset=True)}
    if change.sent("permission_catalogue"):
        wanted["permission_catalogue"] = catalogue.stored(change.permission_catalogue)
    wanted["shows_environment"] = _environment_part(
        wanted["prefix"], wanted["key_format"], wanted["shows_environment"]
    )
    differences = {name: (old, wanted[name]) for name, old in before.items() if wanted[name] != old}
    if differences:
        for name in differences:
            setattr(project, name, wanted[name])
        project.save(only=project.dirty_fields)
        _record("project.edited", project, by, differences)
    return project


@db.transaction
def delete(slug: str, *, by: Actor) -> None:
    """Removes a project that has no keys; its entries stay until retention ends.

    Raises Unknown; Forbidden but for owners; Conflict while there are keys.
    """
    project = to_see(slug, by=by)
    if not by.is_owner:
        raise Forbidden("Only an owner deletes projects.")
    project = held(project.id)
    keys = Key.select().where(Key.project == project).count()
    if keys:
        raise Conflict(
            f"The project {slug} still has {keys} key{'s' if keys > 1 else ''}: delete every key "
            "first, revoked and expired ones too."
        )
    _record(
        "project.deleted", project, by, {name: (v, None) for name, v in _facts(project).items()}
    )
    project.delete_instance()


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
    }


def as_dict(project: Project) -> ProjectObject:
    """The project object of the API."""
    return {
        "id": project.id,
        "slug": project.slug,
        **_facts(project),
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
    seen = visible(by)
    if len(seen) != 1:
        names = ", ".join(project.slug for project in seen) or "none yet"
        raise Invalid({"project": f"is required; your projects are {names}"})
    return seen[0]


def visible(by: Actor) -> list[Project]:
    """The projects in which the actor has any business, by name."""
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
    within = frozenset(one.id for one in visible(by) if by.may(permission, one.id))
    if not within:
        raise by.denied(permission)
    return within


def slug_from(name: str) -> str:
    """A slug made from a name; `project` when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "project"


def use_key_limit(limit: int) -> None:
    """Sets how many live keys a project may have that does not say so itself."""
    global _default_key_limit
    _default_key_limit = limit


def key_limit(project: Project) -> int:
    """How many live keys the project may have."""
    return project.key_limit or _default_key_limit


def any_yet() -> bool:
    return bool(Project.select().exists())
