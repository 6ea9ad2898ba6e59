"""The life of a key: create, list, edit, revoke, restore, rotate, delete.

Owns every rule about keys; each change and its event are one transaction. What a setting may
hold is said in key_fields.py. Whether a key is good for a request is check.py's to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peewee import JOIN

from console import (
    activity,
    alert_rules,
    alerts,
    clock,
    db,
    journal,
    key_fields,
    key_owner,
    key_rules,
    key_versions,
    limits,
    permissions,
    projects,
    secret,
)
from console.actor import Actor
from console.errors import Conflict, Invalid, Unknown
from console.fields import sort_form
from console.key_fields import (
    GraceChange,
    KeyChange,
    KeyObject,
    KeySettings,
    NewKey,
    Rotation,
)
from console.models import (
    ACTIVE,
    EXPIRED,
    REVOKED,
    Key,
    Person,
    Project,
    Secret,
)
from console.permissions import ANALYTICS_READ, AUDIT_READ, KEYS_READ, KEYS_WRITE

MANY_MAX = 200  # keys that are changed together

# --- create ---------------------------------------------------------------------------------


@db.transaction
def create(fields: Mapping[str, Any], *, by: Actor) -> tuple[Key, str]:
    """A new key and its secret, which is stored nowhere and shown once.

    Raises Invalid, Unknown (project), Forbidden, NotFresh, Conflict (KEY_LIMIT_REACHED).
    """
    new = NewKey.read(fields)
    project = projects.to_act_in(new.project, by=by)
    by.require(KEYS_WRITE, project.id)
    refuse_grants(new.permissions, project.id, by)
    now = clock.now()
    project = key_rules.held_open(project.id)
    columns = key_rules.columns(new, project, now)
    refuse_over_limit(project, now)
    text = _mint(project, columns["environment"])
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

    `columns` are those of `key_rules.columns`.
    """
    key = Key.create(
        id=secret.random_id("key"),
        project=project,
        owner=by.owner_id,
        name=new.name,
        name_sort=sort_form(new.name),
        description=new.description,
        prefix=prefix,
        permissions=new.permissions,
        ip_allowlist=new.ip_allowlist,
        monthly_quota=new.monthly_quota,
        external_id=new.external_id,
        metadata=new.metadata,
        created_at=now,
        updated_at=now,
        created_by=by.owner_id,
        **columns,
    )
    _store_secret(key, digest, now, by, imported_at)
    record(
        action, key, by, {field: (None, value) for field, value in key_fields.facts(key).items()}
    )
    return key


def _mint(project: Project, environment: str) -> str:
    shown = environment if project.shows_environment else None
    return secret.mint(project.prefix, shown, project.key_format)


def _store_secret(
    key: Key, digest: str, now: int, by: Actor, imported_at: int | None = None
) -> None:
    Secret.create(
        digest=digest,
        key=key,
        prefix=key.prefix,
        created_at=now,
        imported_at=imported_at,
        seen_by=by.owner_id if imported_at is None else None,
    )


def refuse_grants(held: list[str], project_id: str, by: Actor) -> None:
    """Nobody hands out, or gets hold of, more of Latchkey's own permissions than they have; or any
    without having just shown that they are there. Raises Forbidden, NotFresh."""
    beyond = by.not_grantable(held, project_id)
    if beyond:
        raise by.denied(*beyond)
    if permissions.console_permissions(held):
        by.require_fresh()


def refuse_over_limit(project: Project, now: int, new: int = 1) -> None:
    """Raises Conflict where so many new live keys would be more than the project may have."""
    limit = projects.key_limit(project)
    live = Key.select().where(Key.project == project, has_status(ACTIVE, now)).count()
    if live + new > limit:
        raise Conflict(
            f"This project has {live} active keys, and {limit} are allowed. "
            "Revoke or delete what is not needed.",
            code="KEY_LIMIT_REACHED",
        )


# --- read -----------------------------------------------------------------------------------


def key_to_read(key_id: str, *, by: Actor) -> Key:
    """The key, where the actor may see it. Raises Unknown, Forbidden."""
    journal.settle_to_show()
    return _allowed(key_id, KEYS_READ, by)


def held(key_id: str) -> Key:
    """The key of whoever presents its secret: theirs to see. Raises Unknown."""
    journal.settle_to_show()
    key = joined().where(Key.id == key_id).first()
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
    """The key, where the actor may change it, held for this transaction with its project."""
    key = _allowed(key_id, KEYS_WRITE, by)
    if db.is_sqlite():  # whose one writer holds all
        return key
    # Only now: nobody is kept waiting for a key by whoever may not even see it.
    hold_in_order([key_id])
    return _allowed(key_id, KEYS_WRITE, by)


def keys_to_read(key_ids: Iterable[str], *, by: Actor) -> list[Key]:
    """The keys by name, where the actor may see every one. Raises Invalid (ids), Unknown,
    Forbidden."""
    journal.settle_to_show()
    return _each_allowed(_chosen(key_ids), KEYS_READ, by)


def keys_to_change(key_ids: Iterable[str], *, by: Actor) -> list[Key]:
    """The keys by name, where the actor may change every one, held for this transaction.

    Raises Invalid (ids), Unknown, Forbidden.
    """
    chosen = _chosen(key_ids)
    keys = _each_allowed(chosen, KEYS_WRITE, by)
    if db.is_sqlite():
        return keys
    hold_in_order(chosen)
    return _each_allowed(chosen, KEYS_WRITE, by)


def hold_in_order(key_ids: Sequence[str]) -> None:
    """Holds the keys for this transaction, and their projects before them, so that nobody waits in
    a circle. The ids are in order."""
    if db.is_sqlite():
        return
    homes = Key.select(Key.project).where(Key.id.in_(list(key_ids)))
    for project_id in sorted({one.project_id for one in homes}):
        db.hold(Project, project_id)
    for key_id in key_ids:
        db.hold(Key, key_id)


def _chosen(key_ids: Iterable[str]) -> list[str]:
    """The ids in one order, so that no two who hold the same keys wait for each other."""
    chosen = sorted(set(key_ids))
    if not 1 <= len(chosen) <= MANY_MAX:
        words = f"Choose 1 to {MANY_MAX} keys."
        raise Invalid({"ids": words}, words)
    # No id holds what a database could not compare.
    return [key_id if key_id.isprintable() else "" for key_id in chosen]


def _each_allowed(chosen: list[str], permission: str, by: Actor) -> list[Key]:
    found = list(joined().where(Key.id.in_(chosen)).order_by(Key.name_sort, Key.id))
    if len(found) < len(chosen) or not all(_sees(key, by) for key in found):
        raise Unknown("One of these keys is not there any more. Choose again.")
    for project_id in {key.project_id for key in found}:
        by.require(permission, project_id)
    return found


def _allowed(key_id: str, permission: str, by: Actor) -> Key:
    key = joined().where(Key.id == key_id).first()
    if key is None or not _sees(key, by):
        raise Unknown("There is no such key.")
    by.require(permission, key.project_id)
    return key  # type: ignore[no-any-return]


def _sees(key: Key, by: Actor) -> bool:
    is_foreign = by.sees_only_own(key.project_id) and key.owner_id != by.id
    return by.sees(key.project_id) and not is_foreign


def joined() -> Any:
    """Keys with their project and owner in one query."""
    query = Key.select(Key, Project, Person).join(Project).switch(Key)
    return query.join(Person, JOIN.LEFT_OUTER)


def has_status(status: str, now: int) -> Any:
    """The condition that says of a key what `Key.status_at` says."""
    ended = Key.expires_at.is_null(False) & (Key.expires_at <= now)
    return {
        REVOKED: Key.revoked_at.is_null(False),
        EXPIRED: Key.revoked_at.is_null() & ended,
        ACTIVE: Key.revoked_at.is_null() & ~ended,
    }[status]


def secret_in_grace(key: Key) -> Secret | None:
    """The old secret that still works; there is at most one."""
    if key.rotated_at is None:
        return None
    found = Secret.select().where(Secret.key == key, Secret.works_until > clock.now()).first()
    return found  # type: ignore[no-any-return]


def grace_of(key: Key) -> int | None:
    """When the old secret stops working, while there is one that still does."""
    previous = secret_in_grace(key)
    return previous.works_until if previous else None


# --- change ---------------------------------------------------------------------------------


@db.transaction
def edit(key_id: str, fields: Mapping[str, Any], *, by: Actor, as_of: int | None = None) -> Key:
    """Changes what is sent, nothing else; what is already so leaves no event.

    `as_of`, where given, is the key's `updated_at` when the edit was begun: what would alter a key
    that was changed since is refused. Raises Invalid, Unknown, Forbidden, NotFresh, Conflict (an
    enabled or extended key counts as live), key_versions.Changed.
    """
    key = key_to_change(key_id, by=by)
    change = KeyChange.read(fields)
    _refuse_fixed(key, change)
    if not _only_revokes(change):
        refuse_grants([*key.permissions, *change.permissions], key.project_id, by)
        # Who leaves hands over the keys of archived projects, too.
        if change.model_fields_set != {"owner"}:
            key = _in_open_project(key, by)
    now = clock.now()
    before: Mapping[str, Any] = key_fields.facts(key)
    status_before = key.status_at(now)
    _apply(key, change, now)
    if change.sent("owner"):
        key_owner.hand_over(key, change.owner, by=by)
    differences = {
        field: (before[field], value) for field, value in key_fields.facts(key).items()
        if before[field] != value
    }  # fmt: skip
    if as_of is not None and (differences or _turns(key, change)):
        _refuse_stale(key, as_of, before)
    if differences:
        key.updated_at = now
        record("key.edited", key, by, differences)
    if change.sent("status"):
        set_status(key, change.status, by, now)
    if status_before != ACTIVE and key.status_at(now) == ACTIVE:
        key_owner.refuse_known_to_leavers(key, now)
        refuse_over_limit(key.project, now)
    if key.dirty_fields:
        key.save(only=key.dirty_fields)
    return key


def _in_open_project(key: Key, by: Actor) -> Key:
    """The key, with its project as it is now and stays. Raises Conflict for an archived one."""
    key_rules.held_open(key.project_id)
    return key if db.is_sqlite() else _allowed(key.id, KEYS_WRITE, by)


def _turns(key: Key, change: KeyChange) -> bool:
    """Whether the key is revoked or enabled by this."""
    return change.sent("status") and (change.status == REVOKED) != (key.revoked_at is not None)


def _refuse_stale(key: Key, as_of: int, facts: Mapping[str, Any]) -> None:
    if key.updated_at != as_of:
        status = REVOKED if key.revoked_at is not None else ACTIVE
        present = {**facts, "status": status}
        raise key_versions.changed(key.id, as_of, key.updated_at, present)


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
    for field in ("description", "permissions", "ip_allowlist", "monthly_quota", "external_id",
                  "metadata"):  # fmt: skip
        if change.sent(field) and getattr(key, field) != getattr(change, field):
            setattr(key, field, getattr(change, field))
    if change.sent("name") and change.name != key.name:
        key.name, key.name_sort = change.name, sort_form(change.name)
    expiry_sent = change.expires_in is not None or change.sent("expires_at")
    if expiry_sent and not _says_same_expiry(key, change):
        key.expires_at, key.ends_set_at = key_rules.end(change, key.project, now), now
    columns = {
        **key_rules.renewal_columns(change, key.expires_at, now, key),
        **key_rules.plan_columns(change, key.project, key),
    }
    for column, value in columns.items():
        if getattr(key, column) != value:
            setattr(key, column, value)


def _says_same_expiry(key: Key, change: KeySettings) -> bool:
    """Whether the expiry sent is the present one: what was read may be sent back as it is."""
    if change.expires_in is not None:
        return False
    if change.expires_at is None or key.expires_at is None:
        return change.expires_at is None and key.expires_at is None
    return clock.up_to_second(clock.parse(change.expires_at)) == key.expires_at


def set_status(key: Key, status: str, by: Actor, now: int) -> None:
    """Revokes or enables the key and records it, in the caller's transaction, which saves it."""
    if status == REVOKED and key.revoked_at is None:
        key.revoked_at = key.updated_at = now
        record("key.revoked", key, by, {"status": (ACTIVE, REVOKED)})
    elif status == ACTIVE and key.revoked_at is not None:
        key.revoked_at, key.updated_at = None, now
        record("key.restored", key, by, {"status": (REVOKED, key.status_at(now))})
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
    set_status(key, REVOKED, by, clock.now())
    if key.dirty_fields:
        key.save(only=key.dirty_fields)


@db.transaction
def rotate(
    key_id: str,
    fields: Mapping[str, Any],
    *,
    by: Actor,
    confirm: str | None = None,
    rotated_at: int | None = None,
) -> tuple[Key, str, int | None]:
    """A new secret for the same key, and when the old one stops (None: at once).

    At most two secrets work: an older one that was still in its grace ends now. Grace never
    outlives the key. `confirm`, where given, must be the key's name; `rotated_at` when it was last
    rotated (0: never), so that what is sent twice, or by two people, does not end the secret that
    somebody has just copied. Raises NotFresh, Invalid, Unknown, Forbidden, Conflict.
    """
    by.require_fresh()
    key = key_to_change(key_id, by=by)
    if rotated_at not in (None, key.rotated_at or 0):
        raise Conflict(
            f"{key.name} was rotated after you opened this. Nothing was done now: to rotate again "
            "would end the secret made then."
        )
    rotation = Rotation.read(fields)
    _refuse_other_name(key, confirm)
    refuse_grants(key.permissions, key.project_id, by)
    key = _in_open_project(key, by)
    now = clock.now()
    grace_end = _grace_end(key, rotation, now)
    Secret.update(works_until=now).where(Secret.key == key, Secret.works_until > now).execute()
    (
        Secret.update(superseded_at=now, works_until=grace_end or now)
        .where(Secret.key == key, Secret.superseded_at.is_null())
        .execute()
    )
    text = _mint(key.project, key.environment)
    old_prefix, key.prefix = key.prefix, secret.visible_prefix(text)
    _store_secret(key, secret.digest(text), now, by)
    key.rotated_at = key.updated_at = now
    key.save(only=[Key.prefix, Key.rotated_at, Key.updated_at])
    record(
        "key.rotated",
        key,
        by,
        {"prefix": (old_prefix, key.prefix),
         "previous_secret_expires_at": (None, clock.iso(grace_end))},
    )  # fmt: skip
    return key, text, grace_end


def _grace_end(key: Key, given: Rotation | GraceChange, now: int) -> int | None:
    """When the old secret stops, never later than the key; None for at once."""
    end = key_fields.grace_end(given, now)
    if end is None or key.expires_at is None or key.auto_renew:
        return end
    return min(end, key.expires_at) if key.expires_at > now else None


def grace_end(key: Key, period: str) -> int | None:
    """When an old secret would stop that were given this period now; None for at once."""
    return _grace_end(key, GraceChange(grace_period=period), clock.now())


@db.transaction
def set_grace(
    key_id: str, fields: Mapping[str, Any], *, by: Actor, extends: bool = False
) -> tuple[Key, int | None]:
    """Says anew, from now on, how long the old secret works; `grace_period: null` ends it.

    `extends`: never for less long than was said before. Returns the key and when the old secret
    stops (None: it has). Raises Invalid, Unknown, Forbidden and NotFresh (to let a secret live on
    takes what to hand it out takes), Conflict where no old one works.
    """
    key = key_to_change(key_id, by=by)
    change = GraceChange.read(fields)
    now = clock.now()
    ends_at = _grace_end(key, change, now)
    if change.grace_period is not None:
        refuse_grants(key.permissions, key.project_id, by)
        key = _in_open_project(key, by)
    previous = secret_in_grace(key)
    if previous is None:
        raise Conflict("No old secret of this key works any more.")
    if change.grace_period is not None and ends_at is None:
        raise Conflict("This key has expired, and its old secret with it. Extend the key first.")
    if extends and (ends_at or now) < (previous.works_until or 0):
        raise Invalid({"grace_period": "would end the old secret sooner than it does now"})
    if ends_at != previous.works_until:
        shown = (clock.iso(previous.works_until), clock.iso(ends_at))
        previous.works_until, key.updated_at = ends_at or now, now
        previous.save(only=[Secret.works_until])
        key.save(only=[Key.updated_at])
        record("key.grace_changed", key, by, {"previous_secret_expires_at": shown})
    return key, ends_at


@db.transaction
def delete(key_id: str, *, by: Actor, confirm: str | None = None) -> None:
    """Removes the key and its secrets for good; its entries stay until retention ends.

    `confirm`, where given, must be the key's name. Raises NotFresh, Invalid, Unknown, Forbidden.
    """
    by.require_fresh()
    key = key_to_change(key_id, by=by)
    _refuse_other_name(key, confirm)
    key.updated_at = clock.now()
    gone = {field: (value, None) for field, value in key_fields.facts(key).items()}
    record("key.deleted", key, by, {**gone, "prefix": (key.prefix, None)})
    limits.forget(key.id)
    key.delete_instance()


def _refuse_other_name(key: Key, confirm: str | None) -> None:
    if confirm is not None and confirm != key.name:
        raise Invalid({"confirm": f"type the key's name, {key.name}, exactly"})


def as_dict(key: Key) -> KeyObject:
    """The key object of the API: every fact, never a secret."""
    return {
        "id": key.id,
        **key_fields.facts(key),
        "project": key.project.slug,
        "prefix": key.prefix,
        "status": key.status_at(clock.now()),
        "created_at": clock.iso(key.created_at),
        "updated_at": clock.iso(key.updated_at),
        "rotated_at": clock.iso(key.rotated_at),
        "rotation_due_at": clock.iso(alert_rules.rotation_due_at(key)),
        "last_used_at": clock.iso(key.last_used_at),
        "last_used_ip": key.last_used_ip,
    }


def record(action: str, key: Key, by: Actor, changes: activity.Changes) -> None:
    """Records what was done to the key, and settles the alerts that are so of the past."""
    alerts.settle(action, key, changes)
    activity.record(
        action,
        by=by,
        target_id=key.id,
        target_name=key.name,
        project_id=key.project_id,
        changes=changes,
        at=key.updated_at,  # the version that it made
    )
