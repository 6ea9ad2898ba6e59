"""Which keys are shown, and in which order: the key table, its search and its export. Changes
nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from peewee import SQL, Select, fn
from pydantic import AfterValidator, Field

from console import clock, db, journal, keys, paging, permissions, projects, secret
from console.actor import Actor
from console.errors import Invalid
from console.fields import NAME_MAX_LENGTH, Fields, OneOf, sort_form, text_schema
from console.key_fields import Environment, Permission
from console.models import NEVER, STATUSES, Key, Membership, Person, Project, Secret
from console.paging import Order, Page, PageQuery, Walk
from console.permissions import KEYS_MANAGE, KEYS_READ

NEWEST_FIRST = "-created_at"
CREATED_AT, EXPIRES_AT = "created_at", "expires_at"
SORTS: Mapping[str, Order] = {
    "name": Order(Key.name_sort, str, lambda key: key.name_sort),
    CREATED_AT: Order(Key.created_at, int, lambda key: key.created_at),
    EXPIRES_AT: Order(Key.expires_order, int, lambda key: key.expires_order),
    "last_used_at": Order(Key.last_used_order, int, lambda key: key.last_used_order),
}
BY_ID = Order(Key.id, str, lambda key: key.id)
SORT_WORDS = [*SORTS, *(f"-{name}" for name in SORTS)]

ME, ALWAYS = "me", "always"
NEAR = 3_000
SUGGESTED_FROM, SUGGESTED_MAX = 300, 50
OWNERS_MAX = 100

LENGTH = clock.DURATION.pattern


def _length(text: str) -> str:
    if not clock.DURATION.fullmatch(text):
        raise ValueError(f"must be {clock.DURATION_HELP}")
    return text


def _unused(text: str) -> str:
    if text != ALWAYS and not clock.DURATION.fullmatch(text):
        raise ValueError(f"must be {ALWAYS}, or {clock.DURATION_HELP}")
    return text


class KeyFilters(Fields):
    """Which keys are asked for; all of what is given must fit."""

    q: Annotated[str, text_schema("CI", maxLength=NAME_MAX_LENGTH)] | None = Field(
        None, description="Part of a name, or the start of a prefix, or an id"
    )
    status: Annotated[str, OneOf(*STATUSES)] | None = None
    environment: Environment | None = None
    owner: str | None = Field(None, description=f"A person's address or id, or `{ME}`")
    permission: Annotated[Permission, AfterValidator(permissions.one)] | None = Field(
        None, description="Keys that pass a check for it: they hold it, or a wildcard that meets it"
    )
    expiring: (
        Annotated[str, AfterValidator(_length), text_schema("30d", pattern=f"^{LENGTH}$")] | None
    ) = Field(None, description="Active keys that expire within so long, such as `30d`")
    unused: (
        Annotated[
            str, AfterValidator(_unused), text_schema("90d", pattern=f"^(?:{ALWAYS}|{LENGTH})$")
        ]
        | None
    ) = Field(
        None,
        description=f"Keys without a request for so long, such as `90d`; `{ALWAYS}`: without any",
    )


class KeyQuery(PageQuery, KeyFilters):
    """Which keys are asked for, and in which order."""

    project: str | None = Field(None, description="The project's slug; left out: all that you see")
    sort: Annotated[str, OneOf(*SORT_WORDS)] = Field(
        NEWEST_FIRST, description="`-` in front: descending"
    )


# --- the table ------------------------------------------------------------------------------


def page(
    *,
    by: Actor,
    project: str | None = None,
    sort: str = NEWEST_FIRST,
    cursor: str | None = None,
    limit: int = paging.LIMIT_DEFAULT,
    **filters: str | None,
) -> Page[Key]:
    """The keys that the actor may see, filtered, in one order. Raises Invalid, Unknown, Forbidden.

    `filters` are those of KeyFilters; `sort` is one of SORTS, `-` before it for descending.
    """
    KeyQuery.read({"sort": sort})
    orders = [SORTS[sort.removeprefix("-")], BY_ID]
    walk = paging.begin(orders, descending=sort.startswith("-"), cursor=cursor, limit=limit)
    seen = _visible(project, by)
    wanted = _wanted(filters, by)
    if not wanted:
        return walk.page(list(walk.over(keys.joined().where(seen))))
    return walk.page(_near(walk, seen, wanted) or _anywhere(walk, seen, wanted))


def count(*, by: Actor, project: str, **filters: str | None) -> int:
    """How many keys these filters find. Raises Invalid, Unknown, Forbidden."""
    return int(_in_file_order(_visible(project, by), _wanted(filters, by)).count())


def every(*, by: Actor, project: str, **filters: str | None) -> Iterator[Key]:
    """All keys that these filters find, newest first, read in parts; the order never changes, so
    that no change meanwhile has one left out or given twice.

    Raises Invalid, Unknown, Forbidden at once.
    """
    return _walk(keys.joined().where(_visible(project, by), *_wanted(filters, by)))


def _walk(query: Any) -> Iterator[Key]:
    orders, cursor = [SORTS[CREATED_AT], BY_ID], None
    while True:
        part = paging.fetch(query, orders, descending=True, cursor=cursor, limit=paging.LIMIT_MAX)
        yield from part.rows
        cursor = part.next_cursor
        if cursor is None:
            return


def _near(walk: Walk, seen: Any, wanted: Sequence[Any]) -> list[Key]:
    """The page's rows, where they are among the next keys in this order; nothing where that is not
    known."""
    found = keys.joined().where(seen, *wanted)
    ahead = Key.select(*(order.column for order in walk.orders)).where(seen)
    last = walk.over(ahead).offset(NEAR).limit(1).first()
    if last is None:  # there are no more than these
        return list(walk.over(found))
    rows = list(walk.over(found.where(walk.up_to(last))))
    return rows if len(rows) > walk.limit else []


def _anywhere(walk: Walk, seen: Any, wanted: Sequence[Any]) -> list[Key]:
    """The page's rows, however far apart they lie in this order.

    Keys lie in the file as they were created: to look through all of them in that order takes a
    quarter of the time of any other.
    """
    loose = [replace(one, column=fn.coalesce(one.column, one.column)) for one in walk.orders]
    ids = replace(walk, orders=loose).over(_in_file_order(seen, wanted))
    return list(walk.over(keys.joined().where(Key.id.in_([key.id for key in ids]))))


def _in_file_order(seen: Any, wanted: Sequence[Any]) -> Any:
    # The condition that always holds has SQLite choose this index.
    return Key.select(Key.id).where(seen, Key.created_at >= 0, *wanted)


def _wanted(filters: Mapping[str, str | None], by: Actor) -> list[Any]:
    """The filters as conditions. Raises Invalid."""
    journal.settle_to_show()
    given = {name: text.strip() for name, text in filters.items() if text and text.strip()}
    for name, text in given.items():
        if "\0" in text:
            raise Invalid({name: "must not contain U+0000: no database stores it"})
    asked = KeyFilters.read(given)
    return [one for name in given for one in WHERE[name](getattr(asked, name), by)]


def _visible(project: str | None, by: Actor) -> Any:
    seen = [projects.to_see(project, by=by)] if project else projects.seen(by)
    for one in seen:
        by.require(KEYS_READ, one.id)
    own = [one.id for one in seen if by.sees_only_own(one.id)]
    whole = [one.id for one in seen if not by.sees_only_own(one.id)]
    # Said plainly where one project is meant, so that its index gives the order.
    if len(whole) == 1 and not own:
        return Key.project == whole[0]
    theirs = Key.alias()
    # By themselves, or SQLite would look for them among all keys in the order that is asked for.
    there = theirs.project.concat("").in_(own)  # found by owner, which are fewer
    mine = theirs.select(theirs.id).where(there, theirs.owner == by.id)
    return Key.id.in_(mine) if not whole else Key.project.in_(whole) | Key.id.in_(mine)


# --- the filters ----------------------------------------------------------------------------


def _matches(q: str, by: Actor) -> tuple[Any, ...]:
    if len(q) > NAME_MAX_LENGTH:
        raise Invalid({"q": f"must have at most {NAME_MAX_LENGTH} characters"})
    return (
        Key.name_sort.contains(sort_form(q)) | Key.prefix.startswith(q[: secret.VISIBLE_LENGTH])
        | (Key.id == q),
    )  # fmt: skip


def _belongs_to(owner: str, by: Actor) -> tuple[Any, ...]:
    if owner == ME:
        return (Key.owner.in_([by.owner_id] if by.owner_id else []),)
    return (Key.owner.in_(
        Person.select(Person.id).where((Person.email == owner.lower()) | (Person.id == owner))
    ),)  # fmt: skip


def _may(permission: str, by: Actor) -> tuple[Any, ...]:
    """What `permissions.met` says of a key, as a condition."""
    condition = _holds_any(permissions.meeting(permission))
    if permission == KEYS_MANAGE:
        both = [_holds_any({one}) for one in permissions.MANAGING]
        condition |= both[0] & both[1]
    return (condition,)


def _holds_any(wanted: Iterable[str]) -> Any:
    wanted = sorted(wanted)
    if not db.is_sqlite():
        return Key.permissions.has_any_keys(wanted)
    held = Select([fn.json_each(Key.permissions)], [SQL("1")])
    return fn.EXISTS(held.where(SQL("value").in_(wanted)))


def _ends_within(length: str, by: Actor) -> tuple[Any, ...]:
    now = clock.now()
    ends_by = min(now + _milliseconds(length, now), NEVER - 1)
    is_within = (Key.expires_order > now) & (Key.expires_order <= ends_by)
    return _unindexed(Key.revoked_at.is_null()), is_within


def _unindexed(condition: Any) -> Any:
    """The same condition, for which no index is ever chosen: so many keys fit it that one by which
    they are counted would only take the place of the order's."""
    return fn.coalesce(condition, False)


def _was_unused(length: str, by: Actor) -> tuple[Any, ...]:
    """A key that is younger than that was not unused for so long."""
    if length == ALWAYS:
        return (Key.last_used_at.is_null(),)
    now = clock.now()
    since = now - _milliseconds(length, now)
    # Not by its index: too many keys fit for it to be of use.
    return fn.coalesce(Key.last_used_at, 0) < since, Key.created_at < since


def _milliseconds(length: str, now: int) -> int:
    try:
        return clock.after(now, length) - now
    except ValueError:  # past the year 9999
        return NEVER


WHERE: Mapping[str, Callable[[Any, Actor], tuple[Any, ...]]] = {
    "q": _matches,
    "status": lambda status, by: (_unindexed(keys.has_status(status, clock.now())),),
    "environment": lambda environment, by: (Key.environment == environment,),
    "owner": _belongs_to,
    "permission": _may,
    "expiring": _ends_within,
    "unused": _was_unused,
}


# --- what the filters offer -----------------------------------------------------------------


def owners(project: Project, *, by: Actor) -> list[str]:
    """The addresses of those who may own keys here, by which the actor may filter: none where
    they see their own keys alone."""
    by.require(KEYS_READ, project.id)
    if by.sees_only_own(project.id):
        return []
    within = Membership.select(Membership.person).where(Membership.project == project)
    people = Person.select(Person.email).where(Person.is_owner | Person.id.in_(within))
    return [person.email for person in people.order_by(Person.email).limit(OWNERS_MAX)]


def permissions_in_use(project: Project, *, by: Actor) -> list[str]:
    """What the project's catalogue and its newest keys speak of, as far as the actor sees them."""
    newest = Key.select(Key.permissions).where(_visible(project.slug, by))
    newest = newest.order_by(Key.created_at.desc(), Key.id.desc()).limit(SUGGESTED_FROM)
    found = {one for key in newest for one in key.permissions}
    found.update(offer["name"] for offer in project.permission_catalogue)
    return sorted(found)[:SUGGESTED_MAX]


def graces_of(rows: Iterable[Key]) -> dict[str, int]:
    """When the old secrets of these keys stop working, of those that have one that still does."""
    rotated = [key.id for key in rows if key.rotated_at is not None]
    if not rotated:
        return {}
    still = (Secret.key.in_(rotated)) & (Secret.works_until > clock.now())
    found: Any = Secret.select(Secret.key, Secret.works_until).where(still).tuples()
    return dict(found)


def names_of(key_ids: set[str]) -> dict[str, str]:
    """The names of those keys that still exist."""
    return {key.id: key.name for key in Key.select(Key.id, Key.name).where(Key.id.in_(key_ids))}
