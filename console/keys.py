"""The life of a key: create, list, edit, revoke, restore, rotate, delete.

Owns every rule about keys; each change and its event are one transaction. What a setting may
hold is said in key_fields.py. Whether a key is good for a request is check.py's to say.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from peewee import JOIN
from pydantic import Field

from console import activity, clock, db, journal, key_fields, limits, paging, projects, secret
from console.actor import Actor
from console.errors import Conflict, Invalid, Unknown
from console.fields import NAME_MAX_LENGTH, OneOf, sort_form, text_schema
from console.key_fields import (
    Environment,
    KeyChange,
    KeyFacts,
    KeyObject,
    KeySettings,
    NewKey,
    Rotation,
)
from console.models import (
    ACTIVE,
    EXPIRED,
    REVOKED,
    STATUSES,
    Key,
    Person,
    Project,
    Secret,
)
from console.paging import Order, Page, PageQuery
from console.permissions import ANALYTICS_READ, AUDIT_READ, KEYS_READ, KEYS_WRITE

NEWEST_FIRST = "-created_at"
SORTS: Mapping[str, Order] = {
    "name": Order(Key.name_sort, str, lambda key: key.name_sort),
    "created_at": Order(Key.created_at, int, lambda key: key.created_at),
    "expires_at": Order(Key.expires_order, int, lambda key: key.expires_order),
    "last_used_at": Order(Key.last_used_order, int, lambda key: key.last_used_order),
}
BY_ID = Order(Key.id, str, lambda key: key.id)
SORT_WORDS = [*SORTS, *(f"-{name}" for name in SORTS)]


class KeyQuery(PageQuery):
    """Which keys are asked for, and in which order."""

    project: str | None = Field(None, description="The project's slug; left out: all that you see")
    status: Annotated[str, OneOf(*STATUSES)] | None = None
    environment: Environment | None = None
    owner: str | None = Field(None, description="A person's address or id")
    q: Annotated[str, text_schema("CI", maxLength=NAME_MAX_LENGTH)] | None = Field(
        None, description="Part of a name, or the start of a prefix, or an id"
    )
    sort: Annotated[str, OneOf(*SORT_WORDS)] = Field(
        NEWEST_FIRST, description="`-` in front: descending"
    )


# --- create ---------------------------------------------------------------------------------


@db.transaction
def create(fields: Mapping[str, Any], *, by: Actor) -> tuple[Key, str]:
    """A new key and its secret, which is stored nowhere and shown once.

    Raises Invalid, Unknown (project), Forbidden, Conflict (KEY_LIMIT_REACHED).
    """
    new = NewKey.read(fields)
    project = projects.to_act_in(new.project, by=by)
    by.require(KEYS_WRITE, project.id)
    refuse_grants(new.permissions, project.id, by)
    now = clock.now()
    columns = key_fields.columns(new, now)
    project = projects.held(project.id)
    refuse_over_limit(project, now)
    text = _mint(project, new.environment)
    prefix = secret.visible_prefix(text)
    key = add(
        "key.created", new, columns, project, secret.digest(text), prefix=prefix, now=now, by=by
    )
    return key, text


def add(
    action: str,
    new: KeySettings,
    columns: Mapping[str, Any],
    project: Project,
    digest: str,
    *,
    prefix: str,
    now: int,
    by: Actor,
    imported_at: int | None = None,
) -> Key:
    """Stores a new key, its secret's digest and the event, in the caller's transaction.

    `columns` are those of `key_fields.columns`.
    """
    key = Key.create(
        id=secret.random_id("key"),
        project=project,
        owner=by.owner_id,
        name=new.name,
        name_sort=sort_form(new.name),
        description=new.description,
        environment=new.environment,
        prefix=prefix,
        permissions=new.permissions,
        ip_allowlist=new.ip_allowlist,
        monthly_quota=new.monthly_quota,
        auto_renew=new.auto_renew,
        external_id=new.external_id,
        metadata=new.metadata,
        created_at=now,
        updated_at=now,
        **columns,
    )
    _store_secret(key, digest, now, imported_at)
    _record(action, key, by, {field: (None, value) for field, value in _facts(key).items()})
    return key


def _mint(project: Project, environment: str) -> str:
    shown = environment if project.shows_environment else None
    return secret.mint(project.prefix, shown, project.key_format)


def _store_secret(key: Key, digest: str, now: int, imported_at: int | None = None) -> None:
    Secret.create(
        digest=digest, key=key, prefix=key.prefix, created_at=now, imported_at=imported_at
    )


def refuse_grants(held: list[str], project_id: str, by: Actor) -> None:
    """Nobody hands out, or gets hold of, more of Latchkey's own permissions than they have."""
    beyond = by.not_grantable(held, project_id)
    if beyond:
        raise by.denied(*beyond)


def refuse_over_limit(project: Project, now: int, new: int = 1) -> None:
    """Raises Conflict where so many new live keys would be more than the project may have."""
    limit = projects.key_limit(project)
    live = Key.select().where(Key.project == project, _has_status(ACTIVE, now)).count()
    if live + new > limit:
        raise Conflict(
            f"This project has {live} active keys, and {limit} are allowed. "
            "Revoke or delete what is not needed.",
            code="KEY_LIMIT_REACHED",
        )


# --- read -----------------------------------------------------------------------------------


def key_to_read(key_id: str, *, by: Actor) -> Key:
    """The key, where the actor may see it. Raises Unknown, Forbidden."""
    journal.settle()
    return _allowed(key_id, KEYS_READ, by)


def held(key_id: str) -> Key:
    """The key of whoever presents its secret: theirs to see. Raises Unknown."""
    journal.settle()
    key = _joined().where(Key.id == key_id).first()
    if key is None:
        raise Unknown("There is no such key.")
    return key  # type: ignore[no-any-return]


def key_to_audit(key_id: str, *, by: Actor) -> Key:
    """The key, where the actor may read its log. Raises Unknown, Forbidden."""
    return _allowed(key_id, AUDIT_READ, by)


def key_to_analyse(key_id: str, *, by: Actor) -> Key:
    """The key, where the actor may see how it is used. Raises Unknown, Forbidden."""
    return _allowed(key_id, ANALYTICS_READ, by)


def key_to_change(key_id: str, *, by: Actor) -> Key:
    """The key, where the actor may change it, held for this transaction."""
    db.hold(Key, key_id)
    return _allowed(key_id, KEYS_WRITE, by)


def _allowed(key_id: str, permission: str, by: Actor) -> Key:
    key = _joined().where(Key.id == key_id).first()
    unseen = key is None or not by.sees(key.project_id)
    if unseen or (by.sees_only_own(key.project_id) and key.owner_id != by.id):
        raise Unknown("There is no such key.")
    by.require(permission, key.project_id)
    return key  # type: ignore[no-any-return]


def _joined() -> Any:
    """Keys with their project and owner in one query."""
    query = Key.select(Key, Project, Person).join(Project).switch(Key)
    return query.join(Person, JOIN.LEFT_OUTER)


def page(
    *,
    by: Actor,
    project: str | None = None,
    status: str | None = None,
    environment: str | None = None,
    owner: str | None = None,
    q: str | None = None,
    sort: str = NEWEST_FIRST,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
) -> Page[Key]:
    """The keys that the actor may see, filtered, in one order. Raises Invalid, Unknown, Forbidden.

    `q` finds part of a name or the start of a prefix or id; `sort` is one of SORTS, `-` before it
    for descending.
    """
    journal.settle()
    given = {"status": status, "environment": environment, "sort": sort}
    KeyQuery.read({name: value for name, value in given.items() if value})
    order = SORTS[sort.removeprefix("-")]
    query = _joined().where(_visible(project, by))
    if status:
        query = query.where(_has_status(status, clock.now()))
    if environment:
        query = query.where(Key.environment == environment)
    if owner:
        query = query.where((Person.email == owner.lower()) | (Person.id == owner))
    if q and q.strip():
        query = query.where(_matches(q.strip()))
    descending = sort.startswith("-")
    return paging.fetch(query, [order, BY_ID], descending=descending, cursor=cursor, limit=limit)


def _visible(project: str | None, by: Actor) -> Any:
    seen = [projects.to_see(project, by=by)] if project else projects.visible(by)
    for one in seen:
        by.require(KEYS_READ, one.id)
    own = [one.id for one in seen if by.sees_only_own(one.id)]
    whole = [one.id for one in seen if not by.sees_only_own(one.id)]
    # Said plainly where one project is meant, so that its index gives the order.
    if len(whole) == 1 and not own:
        return Key.project == whole[0]
    if len(own) == 1 and not whole:
        return (Key.project == own[0]) & (Key.owner == by.id)
    return Key.project.in_(whole) | (Key.project.in_(own) & (Key.owner == by.id))


def _has_status(status: str, now: int) -> Any:
    ended = Key.expires_at.is_null(False) & (Key.expires_at <= now)
    return {
        REVOKED: Key.revoked_at.is_null(False),
        EXPIRED: Key.revoked_at.is_null() & ended,
        ACTIVE: Key.revoked_at.is_null() & ~ended,
    }[status]


def _matches(q: str) -> Any:
    if len(q) > NAME_MAX_LENGTH:
        raise Invalid({"q": f"must have at most {NAME_MAX_LENGTH} characters"})
    return (
        Key.name_sort.contains(sort_form(q)) | Key.prefix.startswith(q[: secret.VISIBLE_LENGTH])
        | (Key.id == q)
    )  # fmt: skip


def names_of(key_ids: set[str]) -> dict[str, str]:
    """The names of those keys that still exist."""
    return {key.id: key.name for key in Key.select(Key.id, Key.name).where(Key.id.in_(key_ids))}


def grace_of(key: Key) -> int | None:
    """When the old secret stops working, while there is one that still does."""
    if key.rotated_at is None:
        return None
    now = clock.now()
    previous = (
        Secret.select(Secret.works_until)
        .where(Secret.key == key, Secret.works_until > now)
        .order_by(Secret.works_until.desc())
        .first()
    )
    return previous.works_until if previous else None


# --- change ---------------------------------------------------------------------------------


@db.transaction
def edit(key_id: str, fields: Mapping[str, Any], *, by: Actor) -> Key:
    """Changes what is sent, nothing else; what is already so leaves no event.

    Raises Invalid, Unknown, Forbidden, Conflict (an enabled or extended key counts as live).
    """
    key = key_to_change(key_id, by=by)
    change = KeyChange.read(fields)
    _refuse_fixed(key, change)
    if not _only_revokes(change):
        refuse_grants([*key.permissions, *change.permissions], key.project_id, by)
    now = clock.now()
    before: Mapping[str, Any] = _facts(key)
    status_before = key.status_at(now)
    _apply(key, change, now)
    differences = {
        field: (before[field], value) for field, value in _facts(key).items()
        if before[field] != value
    }  # fmt: skip
    if differences:
        key.updated_at = now
        _record("key.edited", key, by, differences)
    if change.sent("status"):
        _set_status(key, change.status, by, now)
    if status_before != ACTIVE and key.status_at(now) == ACTIVE:
        db.hold(Project, key.project_id)
        refuse_over_limit(key.project, now)
    if key.dirty_fields:
        key.save(only=key.dirty_fields)
    return key


def _refuse_fixed(key: Key, change: KeyChange) -> None:
    """The secret itself says where it belongs: project and environment stay."""
    fixed = {}
    if change.sent("project") and change.project not in (None, key.project.slug):
        fixed["project"] = "cannot change; create a key in the other project"
    if change.sent("environment") and change.environment != key.environment:
        fixed["environment"] = "cannot change; create a key for the other environment"
    if fixed:
        raise Invalid(fixed)


def _only_revokes(change: KeyChange) -> bool:
    """Stopping a key takes nothing that it could be misused for."""
    return change.model_fields_set == {"status"} and change.status == REVOKED


def _apply(key: Key, change: KeyChange, now: int) -> None:
    for field in ("description", "permissions", "ip_allowlist", "monthly_quota", "auto_renew",
                  "external_id", "metadata"):  # fmt: skip
        if change.sent(field) and getattr(key, field) != getattr(change, field):
            setattr(key, field, getattr(change, field))
    if change.sent("name") and change.name != key.name:
        key.name, key.name_sort = change.name, sort_form(change.name)
    expiry_sent = change.expires_in is not None or change.sent("expires_at")
    if expiry_sent and not _says_same_expiry(key, change):
        key.expires_at = key_fields.expiry(change, now)
    for column, value in key_fields.plan_columns(change, key).items():
        if getattr(key, column) != value:
            setattr(key, column, value)


def _says_same_expiry(key: Key, change: KeySettings) -> bool:
    """Whether the expiry sent is the present one: what was read may be sent back as it is."""
    if change.expires_in is not None or change.expires_at is None or key.expires_at is None:
        return False
    return clock.up_to_second(clock.parse(change.expires_at)) == key.expires_at


def _set_status(key: Key, status: str, by: Actor, now: int) -> None:
    if status == REVOKED and key.revoked_at is None:
        key.revoked_at = key.updated_at = now
        _record("key.revoked", key, by, {"status": (ACTIVE, REVOKED)})
    elif status == ACTIVE and key.revoked_at is not None:
        key.revoked_at, key.updated_at = None, now
        _record("key.restored", key, by, {"status": (REVOKED, key.status_at(now))})
    elif status == ACTIVE and key.status_at(now) == EXPIRED:
        raise Invalid({"status": "the key has expired; set expires_at to a later time"})


def revoke(key_id: str, *, by: Actor) -> Key:
    """Stops the key at once; `restore` brings it back. Raises Unknown, Forbidden."""
    return edit(key_id, {"status": REVOKED}, by=by)


def restore(key_id: str, *, by: Actor) -> Key:
    """Lets a revoked key work again. Raises Conflict when the project has its fill of keys."""
    return edit(key_id, {"status": ACTIVE}, by=by)


@db.transaction
def revoke_self(key_id: str, *, by: Actor) -> None:
    """The holder of a secret stops their own key; needs no permission but the secret."""
    db.hold(Key, key_id)
    key = Key.get_or_none(Key.id == key_id)
    if key is None:
        raise Unknown("There is no such key.")
    _set_status(key, REVOKED, by, clock.now())
    if key.dirty_fields:
        key.save(only=key.dirty_fields)


@db.transaction
def rotate(
    key_id: str, fields: Mapping[str, Any], *, by: Actor, confirm: str | None = None
) -> tuple[Key, str, int | None]:
    """A new secret for the same key, and when the old one stops (None: at once).

    At most two secrets work: an older one that was still in its grace ends now. Grace never
    outlives the key. `confirm`, where given, must be the key's name. Raises Invalid, Unknown,
    Forbidden.
    """
    key = key_to_change(key_id, by=by)
    rotation = Rotation.read(fields)
    _refuse_other_name(key, confirm)
    refuse_grants(key.permissions, key.project_id, by)
    now = clock.now()
    grace_end = key_fields.grace_end(rotation, now)
    if grace_end is not None and key.expires_at is not None:
        grace_end = min(grace_end, key.expires_at) if key.expires_at > now else None
    Secret.update(works_until=now).where(Secret.key == key, Secret.works_until > now).execute()
    (
        Secret.update(superseded_at=now, works_until=grace_end or now)
        .where(Secret.key == key, Secret.superseded_at.is_null())
        .execute()
    )
    text = _mint(key.project, key.environment)
    old_prefix, key.prefix = key.prefix, secret.visible_prefix(text)
    _store_secret(key, secret.digest(text), now)
    key.rotated_at = key.updated_at = now
    key.save(only=[Key.prefix, Key.rotated_at, Key.updated_at])
    _record(
        "key.rotated",
        key,
        by,
        {"prefix": (old_prefix, key.prefix),
         "previous_secret_expires_at": (None, clock.iso(grace_end))},
    )  # fmt: skip
    return key, text, grace_end


@db.transaction
def delete(key_id: str, *, by: Actor, confirm: str | None = None) -> None:
    """Removes the key and its secrets for good; its entries stay until retention ends.

    `confirm`, where given, must be the key's name. Raises Invalid, Unknown, Forbidden.
    """
    key = key_to_change(key_id, by=by)
    _refuse_other_name(key, confirm)
    _record("key.deleted", key, by, {"name": (key.name, None), "prefix": (key.prefix, None)})
    limits.forget(key.id)
    key.delete_instance()


def _refuse_other_name(key: Key, confirm: str | None) -> None:
    if confirm is not None and confirm != key.name:
        raise Invalid({"confirm": f"type the key's name, {key.name}, exactly"})


def _facts(key: Key) -> KeyFacts:
    per_minute, per_hour = limits.figures(key)
    return {
        "name": key.name,
        "description": key.description,
        "environment": key.environment,
        "permissions": list(key.permissions),
        "ip_allowlist": list(key.ip_allowlist),
        "expires_at": clock.iso(key.expires_at),
        "plan": key.plan,
        "rate_limit": {"per_minute": per_minute, "per_hour": per_hour}
        if per_minute or per_hour
        else None,
        "monthly_quota": key.monthly_quota,
        "auto_renew": key.auto_renew,
        "external_id": key.external_id,
        "metadata": dict(key.metadata),
    }


def as_dict(key: Key) -> KeyObject:
    """The key object of the API: every fact, never a secret."""
    return {
        "id": key.id,
        **_facts(key),
        "project": key.project.slug,
        "prefix": key.prefix,
        "owner": key.owner.email if key.owner else None,
        "status": key.status_at(clock.now()),
        "created_at": clock.iso(key.created_at),
        "updated_at": clock.iso(key.updated_at),
        "rotated_at": clock.iso(key.rotated_at),
        "last_used_at": clock.iso(key.last_used_at),
        "last_used_ip": key.last_used_ip,
    }


def _record(action: str, key: Key, by: Actor, changes: activity.Changes) -> None:
    activity.record(
        action,
        by=by,
        target_id=key.id,
        target_name=key.name,
        project_id=key.project_id,
        changes=changes,
    )
