"""The permissions that a project offers: its own catalogue, presets of several, and Latchkey's own,
as far as the actor may hand them out. A key may hold others, too."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from console import permissions
from console.actor import Actor
from console.fields import Fields, Name, clean_text, text_schema
from console.key_fields import Permission, Permissions
from console.models import Key, Project

PERMISSIONS_MAX = 100
PRESETS_MAX = 20
DESCRIPTION_MAX_LENGTH = 200
LOOKED_AT_MAX = 200  # keys, for the words that a project without a catalogue uses
SUBJECTS_MAX = 8
READING = frozenset({"read", "list", "get", "view"})
RISKY = frozenset({"delete", "admin", "*"})

OWN: Mapping[str, str] = {
    permissions.KEYS_VERIFY: "Check keys, as a service does that asks Latchkey",
    permissions.KEYS_READ: "See the keys of this project, without their secrets",
    permissions.KEYS_WRITE: "Create, edit, revoke, rotate and delete keys",
    permissions.KEYS_MANAGE: "The two above: see and change keys",
    permissions.AUDIT_READ: "Read the audit log and the activity",
    permissions.ANALYTICS_READ: "Read how much keys are used",
    permissions.PROJECTS_MANAGE: "Change the project and its webhooks",
    permissions.ADMIN: "Everything, here and in your services",
}


def _description(text: str) -> str:
    text = clean_text(text)
    if len(text) > DESCRIPTION_MAX_LENGTH or "\n" in text:
        raise ValueError(f"must be one line of at most {DESCRIPTION_MAX_LENGTH} characters")
    return text


class NewOffer(Fields):
    """A permission that keys of this project may hold, and what it lets them do."""

    name: Annotated[Permission, AfterValidator(permissions.one)]
    description: Annotated[
        str,
        AfterValidator(_description),
        text_schema("View tasks", format="text", maxLength=DESCRIPTION_MAX_LENGTH),
    ] = ""


class Offer(TypedDict):
    """A permission that keys of this project may hold, and what it lets them do."""

    name: str
    description: str


def _one_at_least(held: list[str]) -> list[str]:
    if not held:
        raise ValueError("must have one at least, such as tasks:read")
    return held


class NewPreset(Fields):
    """Permissions that the forms fill in together, under a name."""

    name: Name
    permissions: Annotated[
        Permissions, AfterValidator(_one_at_least), Field(json_schema_extra={"minItems": 1})
    ]


class Preset(TypedDict):
    """Permissions that the forms fill in together, under a name."""

    name: str
    permissions: list[str]


Named = TypeVar("Named", NewOffer, NewPreset)


def _without_repeats(named: list[Named]) -> list[Named]:
    seen: set[str] = set()
    for one in named:
        if one.name in seen:
            raise ValueError(f"{one.name!r} is there twice")
        seen.add(one.name)
    return named


Catalogue = Annotated[
    list[NewOffer],
    Field(max_length=PERMISSIONS_MAX),
    AfterValidator(_without_repeats),
]
Presets = Annotated[
    list[NewPreset],
    Field(max_length=PRESETS_MAX),
    AfterValidator(_without_repeats),
]


def stored(offers: Iterable[NewOffer]) -> list[Offer]:
    """The catalogue as the project keeps it."""
    return [{"name": offer.name, "description": offer.description} for offer in offers]


def stored_presets(presets: Iterable[NewPreset]) -> list[Preset]:
    """The presets as the project keeps them."""
    return [{"name": preset.name, "permissions": preset.permissions} for preset in presets]


# --- what a form offers -----------------------------------------------------------------------


def presets(project: Project, *, by: Actor) -> list[Preset]:
    """The project's own that this actor may hand out; without any, those by the words of its
    permissions."""
    found: list[Preset] = project.permission_presets or _by_words(project, by)
    return [one for one in found if not by.not_grantable(one["permissions"], project.id)]


def _by_words(project: Project, by: Actor) -> list[Preset]:
    """Read-only, Read and write, Full access.

    Full access is each of the permissions and not `*`, which would open what is added later, and
    Latchkey itself. What opens Latchkey is in none.
    """
    names = [offer["name"] for offer in _words_of(project, by)]
    names = [name for name in names if not permissions.console_permissions([name])]
    wanted = {
        "Read-only": [name for name in names if _last(name) in READING],
        "Read and write": [name for name in names if not RISKY & set(name.split(":"))],
        "Full access": [name for name in names if not _is_covered(name, names)],
    }
    return [Preset(name=name, permissions=found) for name, found in wanted.items() if found]


def _last(name: str) -> str:
    return name.rpartition(":")[2]


def _is_covered(name: str, names: list[str]) -> bool:
    return permissions.met([one for one in names if one != name], name)


def _words_of(project: Project, by: Actor) -> list[Offer]:
    """The catalogue; without one, what some keys hold that the actor sees, and for each
    subject of it, or for the project's own name, `read`, `write` and `*`."""
    if project.permission_catalogue:
        return list(project.permission_catalogue)
    held = _in_use(project, by)
    subjects = sorted({name.rpartition(":")[0] for name in held})[:SUBJECTS_MAX] or [project.slug]
    common = [f"{one}:{last}" for one in subjects for last in ("read", "write", "*")]
    found = [one for one in [*common, *held] if not permissions.console_permissions([one])]
    return [Offer(name=name, description="") for name in dict.fromkeys(found)][:PERMISSIONS_MAX]


def _in_use(project: Project, by: Actor) -> list[str]:
    query = Key.select(Key.project, Key.permissions).limit(LOOKED_AT_MAX)
    if by.sees_only_own(project.id):
        # By owner alone: a walk through the project's keys would be long where few are theirs.
        found = [key for key in query.where(Key.owner == by.id) if key.project_id == project.id]
    else:
        newest = query.where(Key.project == project)
        found = list(newest.order_by(Key.created_at.desc(), Key.id.desc()))
    held = {permission for key in found for permission in key.permissions}
    return sorted(one for one in held if not permissions.console_permissions([one]))


def offered(project: Project, *, by: Actor) -> list[Offer]:
    """The project's permissions that this actor may hand out."""
    return [offer for offer in _words_of(project, by) if _may_hand_out(offer["name"], project, by)]


def own_offered(project: Project, *, by: Actor) -> list[Offer]:
    """Latchkey's own permissions that this actor may hand out."""
    return [
        {"name": name, "description": description}
        for name, description in OWN.items()
        if _may_hand_out(name, project, by)
    ]


def _may_hand_out(name: str, project: Project, by: Actor) -> bool:
    return not by.not_grantable([name], project.id)


# --- what is typed ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """What permissions open beyond the team's own services."""

    everything: list[str]  # those that open everything
    own: dict[str, str]  # Latchkey's own among them, wildcards unfolded, and what each opens
    beyond: tuple[str, ...]  # Latchkey's own that the actor may not hand out


def meaning(held: Iterable[str], project: Project, *, by: Actor) -> Meaning:
    """What these permissions open here. They are as `permissions.parse` returns them."""
    held = list(held)
    everything = [name for name in held if name in permissions.EVERYTHING]
    own: dict[str, str] = {}
    if not everything:
        own = {name: OWN[name] for name in permissions.console_permissions(held)}
    return Meaning(everything, own, by.not_grantable(held, project.id))
