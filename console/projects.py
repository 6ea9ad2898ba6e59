"""Projects: what owns keys, and how the secrets minted for it look."""

import re
import unicodedata
from typing import Annotated, Any

import peewee
from pydantic import AfterValidator

from console import activity, clock, db, secret
from console.actor import Actor
from console.errors import Conflict, Forbidden, Invalid, Unknown
from console.fields import Fields, Name
from console.models import Project

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
SLUG_HELP = "must be 1–40 lowercase letters, digits or hyphens, such as my-service"
PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")
PREFIX_WITH_PARTS = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
PREFIX_MAX_LENGTH = 20
DEFAULT_PREFIX = "lk"
KEY_LIMIT_DEFAULT = 20

_default_key_limit = KEY_LIMIT_DEFAULT


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise ValueError(SLUG_HELP)
    return text


def _key_format(text: str) -> str:
    if text not in secret.FORMATS:
        raise ValueError(f"must be {' or '.join(secret.FORMATS)}")
    return text


class NewProject(Fields):
    """What a project is made from."""

    slug: Annotated[str, AfterValidator(_slug)]
    name: Name | None = None
    prefix: str = DEFAULT_PREFIX
    key_format: Annotated[str, AfterValidator(_key_format)] = secret.BASE62
    shows_environment: bool | None = None  # None: where prefix and format allow it


@db.transaction
def create(fields: dict[str, Any], *, by: Actor) -> Project:
    """A new project. Raises Invalid; Conflict when the slug is taken; Forbidden but for owners."""
    if not by.is_owner:
        raise Forbidden("Only an owner creates projects.")
    new = NewProject.read(fields)
    shows_environment = _environment_part(new)
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
        created_at=clock.now(),
    )
    activity.record(
        "project.created",
        by=by,
        target_id=project.id,
        target_name=project.slug,
        project_id=project.id,
        changes={"prefix": (None, new.prefix), "key_format": (None, new.key_format)},
    )
    return project


def _environment_part(new: NewProject) -> bool:
    """Whether secrets say `live` or `test`; checks the prefix against it."""
    wanted = new.shows_environment
    if wanted is None:
        wanted = "_" not in new.prefix and new.key_format == secret.BASE62
    if wanted and new.key_format == secret.HEX32:
        raise Invalid({"shows_environment": "hex32 secrets carry no environment part"})
    pattern, example = (
        (PREFIX, "letters and digits, such as sk, at most 16 characters")
        if wanted
        else (PREFIX_WITH_PARTS, f"such as vsp_sk, at most {PREFIX_MAX_LENGTH} characters")
    )
    if not pattern.fullmatch(new.prefix) or len(new.prefix) > PREFIX_MAX_LENGTH:
        raise Invalid({"prefix": f"must start with a lowercase letter; {example}"})
    return wanted


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
    query = Project.select().order_by(peewee.fn.lower(Project.name), Project.id)
    return [project for project in query if by.sees(project.id)]


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
