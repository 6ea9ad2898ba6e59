"""People: how they come to exist, change and go, sign in and out, and who they are in a request.

What a person's fields may hold is said in person_fields.py. Whoever writes to the table of people
holds it first, and projects before persons: so no two changes wait for each other.
"""

import secrets
import threading
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from typing import Any

import jwt
from passlib.context import CryptContext

from console import activity, clock, db, links, paging, projects
from console.actor import PERSON, Actor
from console.clock import DAY, MINUTE
from console.errors import Conflict, Forbidden, Invalid, Unauthenticated, Unknown
from console.fields import clean_email
from console.links import INVITATION, SETUP
from console.models import Key, Membership, Person, Project, Session
from console.paging import Order, Page
from console.person_fields import (
    FirstOwner,
    Joining,
    NewOwner,
    NewPerson,
    PersonChange,
    PersonFacts,
    PersonObject,
)
from console.secret import digest, random_id

BROWSER, TOKEN = "browser", "token"
SESSION_LENGTH = {BROWSER: 14 * DAY, TOKEN: 15 * MINUTE}
SESSION_TOKEN_BYTES = 32
USER_AGENT_MAX_LENGTH = 300
TOKEN_ALGORITHM = "HS256"
NEWEST = [
    Order(Person.created_at, int, lambda person: person.created_at),
    Order(Person.id, str, lambda person: person.id),
]
# What an event tells of a password.
SET, CHANGED = "set", "changed"
# Which changes end the sessions and the invitations that there are.
ENDS_SESSIONS = frozenset({"password", "roles", "owner"})
ENDS_INVITATIONS = frozenset({"password", "email"})

# OWASP's floor for argon2id: about 25 ms and 19 MiB a hash, so only a few run at once.
hasher = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19_456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
_hashing = threading.BoundedSemaphore(4)


# --- add ------------------------------------------------------------------------------------


def create(fields: Mapping[str, Any], *, by: Actor) -> tuple[Person, str | None]:
    """A new person and, where no password was given, the token of the link that invites them.

    Raises Forbidden but for owners, Invalid; Conflict when the address is known.
    """
    _refuse_but_owners(by)
    new = NewPerson.read(fields)
    password_hash = None if new.password is None else hash_password(new.password)
    with db.write():
        db.hold_table(Person)
        person = _add(
            new.email, new.name, password_hash, is_owner=new.owner, roles=new.roles, by=by
        )
        return person, None if password_hash else links.issue(INVITATION, person.id)[0]


def create_owner(fields: Mapping[str, Any], *, by: Actor) -> Person:
    """An owner who can sign in at once. Raises what `create` does."""
    new = NewOwner.read(fields)
    person, _ = create({**new.model_dump(exclude_unset=True), "owner": True}, by=by)
    return person


def set_up(token: str, fields: dict[str, Any], *, by: Actor) -> Person:
    """The first person, through the printed link; also makes the first project.

    Raises Unknown when there is a person already or the link does not hold, Invalid for the rest.
    """
    refuse_setup_unless_open(token)
    new = FirstOwner.read(fields)
    password_hash = hash_password(new.password)
    with db.write():
        # Asked again where nobody else can be added: of two that come at once, one is first.
        db.hold_table(Person)
        refuse_setup_unless_open(token)
        person = _add(new.email, new.name, password_hash, is_owner=True, roles={}, by=by)
        links.end(SETUP)
        if not Project.select().exists():
            name = new.project or "Default"
            projects.create(
                {"slug": projects.slug_from(name), "name": name}, by=_actor_of(person, by)
            )
        return person


def _add(
    email: str,
    name: str | None,
    password_hash: str | None,
    *,
    is_owner: bool,
    roles: Mapping[str, str],
    by: Actor,
) -> Person:
    """Whoever comes to be a person, by whichever way, comes to be one here."""
    _refuse_taken(email)
    role_in = _projects_held(roles)
    person = Person.create(
        id=random_id("per"),
        email=email,
        name=name or email.partition("@")[0],
        password_hash=password_hash,
        is_owner=is_owner,
        created_at=clock.now(),
    )
    _give_roles(person, role_in)
    facts = {field: (None, value) for field, value in _facts(person, roles).items()}
    _record("person.created", person, by, facts)
    return person


def _refuse_but_owners(by: Actor) -> None:
    if not by.is_owner:
        raise Forbidden("Only an owner sees and changes people.")


def _refuse_taken(email: str) -> None:
    if Person.get_or_none(Person.email == email):
        raise Conflict(f"{email} is a person already.", fields={"email": "is taken"})


def _projects_held(roles: Mapping[str, str]) -> dict[str, str]:
    """The roles by their projects' ids; the projects stay until the transaction ends. Raises
    Invalid."""
    known = {project.slug: project.id for project in Project.select(Project.slug, Project.id)}
    unknown = [slug for slug in roles if slug not in known][: NewPerson.shown_max]
    if unknown:
        raise Invalid({f"roles.{slug}": "there is no such project" for slug in unknown})
    role_in = {known[slug]: role for slug, role in roles.items()}
    for project_id in sorted(role_in):
        projects.held(project_id)
    return role_in


def _give_roles(person: Person, role_in: Mapping[str, str]) -> None:
    """These roles, by project id, and no others."""
    of_person = Membership.person == person
    before = {one.project_id: one.role for one in Membership.select().where(of_person)}
    for project_id in before.keys() - role_in.keys():
        Membership.delete().where(of_person, Membership.project == project_id).execute()
    for project_id, role in role_in.items():
        if project_id not in before:
            Membership.create(person=person, project=project_id, role=role)
        elif before[project_id] != role:
            of_both = of_person & (Membership.project == project_id)
            Membership.update(role=role).where(of_both).execute()


def anybody_yet() -> bool:
    return bool(Person.select().exists())


# --- links ----------------------------------------------------------------------------------


def issue_setup_link() -> str | None:
    """The token of a new set-up link while there is no person yet, else None."""
    with db.write():
        return None if anybody_yet() else links.issue(SETUP)[0]


def refuse_setup_unless_open(token: str) -> None:
    """Raises Unknown once there is a person, Forbidden for a link that does not hold."""
    # Read before the question: whoever took the link meanwhile is then seen.
    link = links.find(token, SETUP)
    if anybody_yet():
        raise Unknown("This console has been set up. Sign in instead.")
    if link is None:
        raise Forbidden(
            "Open the set-up link that the server printed when it started. "
            "It is no longer on screen, or a week old? Restart the server for a new one."
        )


def invite(person_id: str, *, by: Actor) -> tuple[str, int]:
    """The token of a new invitation link and when it ends; an older one ends now.

    Raises Forbidden, Unknown; Conflict for who has a password, or is disabled.
    """
    _refuse_but_owners(by)
    with db.write():
        person = _person_to_change(person_id)
        if person.password_hash is not None:
            raise Conflict(f"{person.email} has a password already and can sign in.")
        if person.disabled_at is not None:
            raise Conflict(f"{person.email} is disabled; enable them first.")
        links.end(INVITATION, person.id)
        return links.issue(INVITATION, person.id)


def invited(token: str) -> Person:
    """Whom the invitation is for. Raises Forbidden, alike for every link that does not hold."""
    link = links.find(token, INVITATION)
    person = Person.get_or_none(Person.id == link.person_id) if link else None
    if person is None or person.password_hash is not None or person.disabled_at is not None:
        raise Forbidden(
            "This invitation does not hold: it was used, a newer one has taken its place, or it is "
            "more than 7 days old. Ask an owner for a new one; or, if you have joined, sign in."
        )
    return person


def join(token: str, fields: Mapping[str, Any], *, by: Actor) -> Person:
    """The invited person chooses a password, once. Raises Forbidden, Invalid."""
    invited(token)
    given = Joining.read(fields)
    password_hash = hash_password(given.password)
    with db.write():
        # Asked again where nobody else changes people: of two that come at once, one is first.
        db.hold_table(Person)
        person = invited(token)
        changes: dict[str, tuple[Any, Any]] = {"password": (None, SET)}
        if given.name is not None and given.name != person.name:
            changes["name"] = (person.name, given.name)
            person.name = given.name
        person.password_hash = password_hash
        person.save(only=person.dirty_fields)
        links.end(INVITATION, person.id)
        _record("person.joined", person, _actor_of(person, by), changes)
        return person


# --- read -----------------------------------------------------------------------------------


def page(
    *, by: Actor, cursor: str | None = None, limit: int = paging.LIMIT_DEFAULT
) -> Page[Person]:
    """Everybody, newest first. Raises Invalid; Forbidden but for owners."""
    _refuse_but_owners(by)
    return paging.fetch(Person.select(), NEWEST, descending=True, cursor=cursor, limit=limit)


def person_to_see(person_id: str, *, by: Actor) -> Person:
    """The person. Raises Forbidden but for owners, Unknown."""
    _refuse_but_owners(by)
    return _person(person_id)


def _person(person_id: str) -> Person:
    # No id holds what a database could not compare.
    person = Person.get_or_none(Person.id == person_id) if person_id.isprintable() else None
    if person is None:
        raise Unknown("There is no such person.")
    return person


def roles_of(people: Iterable[Person]) -> dict[str, dict[str, str]]:
    """The roles of each of them, by the projects' slugs."""
    found: dict[str, dict[str, str]] = {person.id: {} for person in people}
    query: Any = (
        Membership.select(Membership.person, Project.slug, Membership.role)
        .join(Project)
        .where(Membership.person.in_(list(found)))
        .order_by(Project.slug)
    )
    for person_id, slug, role in query.tuples():
        found[person_id][slug] = role
    return found


def as_dict(person: Person, roles: Mapping[str, str] | None = None) -> PersonObject:
    """The person object of the API; `roles`, where they are known, as `roles_of` says them."""
    return {
        "id": person.id,
        **_facts(person, roles_of([person])[person.id] if roles is None else roles),
        "disabled": person.disabled_at is not None,
        "invited": person.password_hash is None,
        "created_at": clock.iso(person.created_at),
    }


def _facts(person: Person, roles: Mapping[str, str]) -> PersonFacts:
    return {
        "email": person.email,
        "name": person.name,
        "owner": person.is_owner,
        "roles": dict(roles),
    }


# --- change ---------------------------------------------------------------------------------


def edit(person_id: str, fields: Mapping[str, Any], *, by: Actor) -> Person:
    """Changes what is sent, nothing else. Another password, other rights, and being disabled end
    all their sessions.

    Raises Forbidden but for owners, Unknown, Invalid; Conflict for a taken address, and where no
    owner would be left who can sign in.
    """
    person_to_see(person_id, by=by)
    change = PersonChange.read(fields)
    password_hash = hash_password(change.password) if change.sent("password") else None
    with db.write():
        db.hold_table(Person)
        role_in = _projects_held(change.roles)
        person = _person_to_change(person_id)
        roles = roles_of([person])[person.id]
        before: Mapping[str, Any] = _facts(person, roles)
        was_disabled = person.disabled_at
        was_owner_at_work = _is_owner_at_work(person)
        _apply(person, change)
        if was_owner_at_work and not _is_owner_at_work(person):
            _refuse_without_another_owner(person)
        after: Mapping[str, Any] = _facts(person, change.roles if change.sent("roles") else roles)
        differences: dict[str, tuple[Any, Any]] = {
            field: (before[field], value)
            for field, value in after.items()
            if before[field] != value
        }
        if password_hash:
            differences["password"] = (SET, CHANGED) if person.password_hash else (None, SET)
            person.password_hash = password_hash
        if "roles" in differences:
            _give_roles(person, role_in)
        if person.dirty_fields:
            person.save(only=person.dirty_fields)
        if differences:
            _record("person.edited", person, by, differences)
        if person.disabled_at != was_disabled:
            _record_disabled(person, by)
        _end_what_is_open(person, differences.keys())
        return person


def _end_what_is_open(person: Person, changed: Set[str]) -> None:
    """The sessions and invitations that were given to somebody who was another until now."""
    if person.disabled_at or changed & ENDS_SESSIONS:
        Session.delete().where(Session.person == person).execute()
    if person.disabled_at or changed & ENDS_INVITATIONS:
        links.end(INVITATION, person.id)


def _apply(person: Person, change: PersonChange) -> None:
    if change.sent("email") and change.email != person.email:
        _refuse_taken(change.email)
        person.email = change.email
    if change.sent("name") and change.name != person.name:
        person.name = change.name
    if change.sent("owner") and change.owner != person.is_owner:
        person.is_owner = change.owner
    if change.sent("disabled") and change.disabled != (person.disabled_at is not None):
        person.disabled_at = clock.now() if change.disabled else None


def _record_disabled(person: Person, by: Actor) -> None:
    disabled = person.disabled_at is not None
    action = "person.disabled" if disabled else "person.enabled"
    _record(action, person, by, {"disabled": (not disabled, disabled)})


def delete(person_id: str, *, by: Actor) -> None:
    """Removes the person, their roles and sessions for good; events keep their address.

    Raises Forbidden but for owners, Unknown; Conflict while they own keys, and for the last owner
    who can sign in.
    """
    _refuse_but_owners(by)
    with db.write():
        person = _person_to_change(person_id)
        keys = Key.select().where(Key.owner == person).count()
        if keys:
            raise Conflict(
                f"{person.email} owns {keys} key{'s' if keys > 1 else ''}: delete every one first, "
                "revoked and expired ones too; or disable the person, and the keys go on working."
            )
        if _is_owner_at_work(person):
            _refuse_without_another_owner(person)
        facts = _facts(person, roles_of([person])[person.id])
        links.end(INVITATION, person.id)
        _record("person.deleted", person, by, {name: (v, None) for name, v in facts.items()})
        person.delete_instance()


def _person_to_change(person_id: str) -> Person:
    """The person as they are now, held for this transaction. Raises Unknown."""
    db.hold_table(Person)
    _person(person_id)
    db.hold(Person, person_id)
    return _person(person_id)


def _is_owner_at_work(person: Person) -> bool:
    """Whether they can sign in as an owner, and so let others in."""
    can_sign_in = person.password_hash is not None and person.disabled_at is None
    return person.is_owner and can_sign_in


def _refuse_without_another_owner(person: Person) -> None:
    others = Person.select().where(
        Person.id != person.id,
        Person.is_owner,
        Person.password_hash.is_null(False),
        Person.disabled_at.is_null(),
    )
    if not others.exists():
        raise Conflict(
            f"{person.email} is the last owner who can sign in: make somebody else an owner first."
        )


def _record(action: str, person: Person, by: Actor, changes: activity.Changes) -> None:
    activity.record(action, by=by, target_id=person.id, target_name=person.email, changes=changes)


# --- signing in -----------------------------------------------------------------------------


def sign_in(
    email: str, password: str, *, kind: str = BROWSER, ip: str | None, user_agent: str = ""
) -> tuple[str, Person]:
    """A new session's token, and whose it is. Raises Unauthenticated, alike for every reason."""
    person = _by_email(email)
    known = person if person is not None and person.disabled_at is None else None
    if not _password_fits(password, known.password_hash if known else None) or known is None:
        raise _wrong_credentials()
    token = secrets.token_urlsafe(SESSION_TOKEN_BYTES)
    now = clock.now()
    with db.write():
        _refuse_unless_as_compared(known)
        Session.delete().where(Session.expires_at <= now).execute()
        Session.create(
            id=digest(token),
            person=known,
            kind=kind,
            created_at=now,
            expires_at=now + SESSION_LENGTH[kind],
            ip=ip,
            user_agent=user_agent[:USER_AGENT_MAX_LENGTH],
        )
        activity.record(
            "person.signed_in",
            by=Actor(kind=PERSON, id=known.id, name=known.email, ip=ip),
            target_id=known.id,
            target_name=known.email,
            changes={"session": (None, kind)},
        )
    return token, known


def _refuse_unless_as_compared(person: Person) -> None:
    """A change that ends all sessions ends the one that is about to begin, too."""
    db.hold(Person, person.id)
    same = Person.select().where(
        Person.id == person.id,
        Person.password_hash == person.password_hash,
        Person.disabled_at.is_null(),
    )
    if not same.exists():
        raise _wrong_credentials()


def _wrong_credentials() -> Unauthenticated:
    return Unauthenticated("Email or password is wrong.", code="CREDENTIALS_INVALID")


def _by_email(text: str) -> Person | None:
    try:
        email = clean_email(text)
    except ValueError:
        return None
    return Person.get_or_none(Person.email == email)


def sign_out(token: str, *, by: Actor) -> None:
    """Ends the session now; what the client still holds opens nothing."""
    with db.write():
        if Session.delete().where(Session.id == digest(token)).execute():
            activity.record("person.signed_out", by=by, target_id=by.id or "", target_name=by.name)


def by_session(
    token: str, *, kind: str = BROWSER, ip: str | None = None, request_id: str | None = None
) -> Actor | None:
    """Who holds this session's token; None once it has ended or its person is disabled."""
    session = (
        Session.select(Session, Person)
        .join(Person)
        .where(
            Session.id == digest(token),
            Session.kind == kind,
            Session.expires_at > clock.now(),
            Person.disabled_at.is_null(),
        )
        .first()
    )
    if session is None:
        return None
    return _actor_of(
        session.person, Actor(kind=PERSON, id=None, name="", ip=ip, request_id=request_id)
    )


def _actor_of(person: Person, request: Actor) -> Actor:
    """The person acting, in the request that `request` came with."""
    roles = {} if person.is_owner else {
        membership.project_id: membership.role
        for membership in Membership.select().where(Membership.person == person)
    }  # fmt: skip
    return Actor(
        kind=PERSON,
        id=person.id,
        name=person.email,
        owner_id=person.id,
        is_owner=person.is_owner,
        roles=roles,
        ip=request.ip,
        request_id=request.request_id,
    )


def access_token(
    email: str, password: str, *, signing_key: str, ip: str | None, user_agent: str
) -> tuple[str, int]:
    """A signed access token (JWT, RFC 7519) and its life in seconds. Raises Unauthenticated.

    It names a session, so that it ends with it; the signature only spares a look-up of forgeries.
    """
    token, person = sign_in(email, password, kind=TOKEN, ip=ip, user_agent=user_agent)
    seconds = SESSION_LENGTH[TOKEN] // 1000
    issued = clock.now() // 1000
    claims = {"sub": person.id, "sid": token, "iat": issued, "exp": issued + seconds}
    return jwt.encode(claims, signing_key, TOKEN_ALGORITHM), seconds


def looks_like_access_token(text: str) -> bool:
    """A JWT has two dots; no secret of a key has one."""
    return text.count(".") == 2


def by_access_token(
    text: str, *, signing_key: str, ip: str | None, request_id: str | None
) -> Actor:
    """The person whom the token stands for. Raises Unauthenticated (TOKEN_INVALID)."""
    try:
        # The session's own end decides, by our clock.
        claims = jwt.decode(
            text, signing_key, [TOKEN_ALGORITHM], options={"verify_exp": False, "verify_iat": False}
        )
        actor = by_session(str(claims["sid"]), kind=TOKEN, ip=ip, request_id=request_id)
    except (jwt.InvalidTokenError, KeyError):
        actor = None
    if actor is None:
        raise Unauthenticated(
            "This access token does not hold or has ended; ask /api/v1/auth/token for a new one.",
            code="TOKEN_INVALID",
        )
    return actor


def hash_password(password: str) -> str:
    """The password's argon2id hash."""
    with _hashing:
        return str(hasher.hash(password))


def _password_fits(password: str, password_hash: str | None) -> bool:
    """Works as long for an unknown person, or a password too long to hash, as for a known one."""
    with _hashing:
        with suppress(ValueError):
            if password_hash is not None:
                return bool(hasher.verify(password, password_hash))
        hasher.dummy_verify()
        return False
