"""People: how they come to exist, sign in and out, and who they are in a request."""

import hashlib
import secrets
import threading
from contextlib import suppress
from typing import Annotated, Any

import jwt
from passlib.context import CryptContext
from pydantic import AfterValidator

from console import activity, clock, db, projects
from console.actor import PERSON, Actor
from console.clock import DAY, MINUTE
from console.errors import Conflict, Forbidden, Unauthenticated, Unknown
from console.fields import Email, Fields, Name, clean_email
from console.models import Link, Membership, Person, Project, Session
from console.secret import random_id

PASSWORD_MIN_LENGTH = 8
PASSWORD_MAX_LENGTH = 1_000
BROWSER, TOKEN = "browser", "token"
SESSION_LENGTH = {BROWSER: 14 * DAY, TOKEN: 15 * MINUTE}
SESSION_TOKEN_BYTES = 32
SETUP = "setup"
SETUP_LINK_LENGTH = 7 * DAY
USER_AGENT_MAX_LENGTH = 300
TOKEN_ALGORITHM = "HS256"

# OWASP's floor for argon2id: about 25 ms and 19 MiB a hash, so only a few run at once.
hasher = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19_456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)
_hashing = threading.BoundedSemaphore(4)


def _password(text: str) -> str:
    if len(text) < PASSWORD_MIN_LENGTH:
        raise ValueError(f"must have at least {PASSWORD_MIN_LENGTH} characters")
    if len(text) > PASSWORD_MAX_LENGTH:
        raise ValueError(f"must have at most {PASSWORD_MAX_LENGTH} characters")
    text.encode()  # half of a surrogate pair cannot be hashed: a ValueError too
    return text


class NewPerson(Fields):
    """What a person is made from."""

    email: Email
    name: Name | None = None
    password: Annotated[str, AfterValidator(_password)]


class FirstOwner(NewPerson):
    """The set-up form: the first person and, where there is none yet, the first project."""

    project: Name | None = None


def create_owner(fields: dict[str, Any], *, by: Actor) -> Person:
    """A further owner, or the first. Raises Invalid; Conflict when the address is known."""
    if not by.is_owner:
        raise Forbidden("Only an owner adds owners.")
    new = NewPerson.read(fields)
    password_hash = hash_password(new.password)
    with db.write():
        db.hold_table(Person)
        return _add_owner(new, password_hash, by)


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
        person = _add_owner(new, password_hash, by)
        Link.delete().where(Link.kind == SETUP).execute()
        if not Project.select().exists():
            name = new.project or "Default"
            projects.create(
                {"slug": projects.slug_from(name), "name": name}, by=_actor_of(person, by)
            )
        return person


def _add_owner(new: NewPerson, password_hash: str, by: Actor) -> Person:
    if Person.get_or_none(Person.email == new.email):
        raise Conflict(f"{new.email} is a person already.", fields={"email": "is taken"})
    person = Person.create(
        id=random_id("per"),
        email=new.email,
        name=new.name or new.email.partition("@")[0],
        password_hash=password_hash,
        is_owner=True,
        created_at=clock.now(),
    )
    activity.record(
        "person.created",
        by=by,
        target_id=person.id,
        target_name=person.email,
        changes={"owner": (None, True)},
    )
    return person


def anybody_yet() -> bool:
    return bool(Person.select().exists())


def issue_setup_link() -> str | None:
    """The token of a new set-up link while there is no person yet, else None."""
    token = secrets.token_urlsafe(SESSION_TOKEN_BYTES)
    now = clock.now()
    with db.write():
        if anybody_yet():
            return None
        Link.create(
            digest=_digest(token), kind=SETUP, created_at=now, expires_at=now + SETUP_LINK_LENGTH
        )
    return token


def refuse_setup_unless_open(token: str) -> None:
    """Raises Unknown once there is a person, Forbidden for a link that does not hold."""
    # Read before the question: whoever took the link meanwhile is then seen.
    link = Link.get_or_none(Link.digest == _digest(token), Link.kind == SETUP)
    if anybody_yet():
        raise Unknown("This console has been set up. Sign in instead.")
    if link is None or link.expires_at <= clock.now():
        raise Forbidden(
            "Open the set-up link that the server printed when it started. "
            "It is no longer on screen, or a week old? Restart the server for a new one."
        )


def sign_in(
    email: str, password: str, *, kind: str = BROWSER, ip: str | None, user_agent: str = ""
) -> tuple[str, Person]:
    """A new session's token, and whose it is. Raises Unauthenticated, alike for every reason."""
    person = _by_email(email)
    known = person if person is not None and person.disabled_at is None else None
    if not _password_fits(password, known.password_hash if known else None) or known is None:
        raise Unauthenticated("Email or password is wrong.", code="CREDENTIALS_INVALID")
    token = secrets.token_urlsafe(SESSION_TOKEN_BYTES)
    now = clock.now()
    with db.write():
        Session.delete().where(Session.expires_at <= now).execute()
        Session.create(
            id=_digest(token),
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


def _by_email(text: str) -> Person | None:
    try:
        email = clean_email(text)
    except ValueError:
        return None
    return Person.get_or_none(Person.email == email)


def sign_out(token: str, *, by: Actor) -> None:
    """Ends the session now; what the client still holds opens nothing."""
    with db.write():
        if Session.delete().where(Session.id == _digest(token)).execute():
            activity.record("person.signed_out", by=by, target_id=by.id or "", target_name=by.name)


def by_session(
    token: str, *, kind: str = BROWSER, ip: str | None = None, request_id: str | None = None
) -> Actor | None:
    """Who holds this session's token; None once it has ended or its person is disabled."""
    session = (
        Session.select(Session, Person)
        .join(Person)
        .where(
            Session.id == _digest(token),
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


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
