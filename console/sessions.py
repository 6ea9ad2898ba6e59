"""Sessions: how long a sign-in lasts, who acts in it, how fresh it is, and how it ends.

Each is a row; its token is with the client alone. How somebody proves who they are is signin.py's.
"""

import secrets
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial

import jwt
import peewee

from console import activity, clock, db, links
from console.actor import PERSON, Actor
from console.clock import DAY, MINUTE
from console.errors import Unauthenticated, Unknown
from console.models import Membership, Person, Session
from console.secret import digest, random_id

BROWSER, TOKEN = "browser", "token"
LENGTH = {BROWSER: 14 * DAY, TOKEN: 15 * MINUTE}
SSO_LENGTH = DAY  # what a provider said of somebody is no older
# How somebody proved who they are.
PASSWORD, PASSWORD_AND_CODE, PASSKEY, SSO, LINK = (
    "password", "password and code", "passkey", "single sign-on", "link",
)  # fmt: skip
FRESH = 30 * MINUTE  # after that, what cannot be undone asks again who is there
SPARE = 5 * MINUTE  # to fill in a form
SEEN_EVERY = 5 * MINUTE  # so seldom is written when a session was last seen
NOTE_AGAIN_SECONDS = 300.0  # after a time that it could not be
TOKEN_BYTES = 32
TOKEN_ALGORITHM = "HS256"
ENDED = "TOKEN_INVALID"  # the code of whatever comes in a session that holds no more
USER_AGENT_MAX_LENGTH = 300
_note_again_at = 0.0


def begin(
    person: Person,
    *,
    kind: str = BROWSER,
    method: str,
    ip: str | None,
    user_agent: str = "",
    request_id: str | None = None,
    authenticated_at: int | None = None,
) -> str:
    """The token of a new session, in the caller's transaction; those that have ended go. The person
    proved just now to be there, or at `authenticated_at`."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    now = clock.now()
    Session.delete().where(Session.expires_at <= now).execute()
    Session.create(
        id=digest(token),
        handle=random_id("ses"),
        person=person,
        kind=kind,
        method=method,
        created_at=now,
        authenticated_at=now if authenticated_at is None else authenticated_at,
        last_seen_at=now,
        expires_at=now + (SSO_LENGTH if method == SSO else LENGTH[kind]),
        ip=ip,
        user_agent=user_agent[:USER_AGENT_MAX_LENGTH],
    )
    Person.update(last_signed_in_at=now).where(Person.id == person.id).execute()
    # They have come in: whoever else was shown their invitation has no use of it any more.
    links.end(links.INVITATION, person.id)
    activity.record(
        "person.signed_in",
        by=Actor(kind=PERSON, id=person.id, name=person.email, ip=ip, request_id=request_id),
        target_id=person.id,
        target_name=person.email,
        changes={"session": (None, kind), "method": (None, method)},
    )
    return token


def end_all(person: Person) -> None:
    """Ends every session of the person, access tokens included, in the caller's transaction."""
    Session.delete().where(Session.person == person).execute()


def end_all_but(token: str | None, person: Person) -> int:
    """Ends every session of the person but this one, in the caller's transaction; how many."""
    others = Session.delete().where(Session.person == person)
    if token is not None:
        others = others.where(Session.id != digest(token))
    return int(others.execute())


def sign_out(token: str, *, by: Actor) -> None:
    """Ends the session now; what the client still holds opens nothing."""
    with db.write():
        if Session.delete().where(Session.id == digest(token)).execute():
            activity.record("person.signed_out", by=by, target_id=by.id or "", target_name=by.name)


# --- one's own ------------------------------------------------------------------------------


def of_person(*, by: Actor) -> list[Session]:
    """The sessions that are open for whoever asks, the one seen last first."""
    mine = Session.select().where(Session.person == by.person_id, Session.expires_at > clock.now())
    return list(mine.order_by(Session.last_seen_at.desc(), Session.id))


def is_of(session: Session, token: str) -> bool:
    """Whether this token is the session's."""
    return session.id == digest(token)


def method_of(token: str) -> str | None:
    """How the person came in whose session this is; None once it has ended."""
    session = Session.get_or_none(Session.id == digest(token))
    return session.method if session else None


def end(handle: str, *, by: Actor) -> Session:
    """Ends one session of one's own, now. Raises NotFresh; Unknown for everybody else's."""
    by.require_fresh()
    with db.write(by):
        of_both = (Session.handle == handle) & (Session.person == by.person_id)
        session = Session.get_or_none(of_both) if handle.isprintable() else None
        # Of two that end it at once, one does.
        if session is None or not Session.delete().where(of_both).execute():
            raise Unknown("This session has ended already.")
        _record_end([session], by)
        return session


def end_others(token: str, *, by: Actor) -> int:
    """Ends all sessions of one's own but the one with this token; how many. Raises NotFresh."""
    by.require_fresh()
    with db.write(by):
        of_others = (Session.person == by.person_id) & (Session.id != digest(token))
        others = list(Session.select().where(of_others))
        if others:
            Session.delete().where(of_others).execute()
            _record_end(others, by)
        return len(others)


def _record_end(ended: Collection[Session], by: Actor) -> None:
    activity.record(
        "person.session_ended",
        by=by,
        target_id=by.id or "",
        target_name=by.name,
        changes={"sessions": ([one.handle for one in ended], None)},
    )


def confirm(token: str) -> str:
    """The token that takes this one's place: its person has shown again, just now, that they are
    there. The old one opens nothing any more. Raises Unauthenticated once it has ended."""
    new = secrets.token_urlsafe(TOKEN_BYTES)
    with db.write():
        this_one = (Session.id == digest(token)) & (Session.expires_at > clock.now())
        changes = {Session.id: digest(new), Session.authenticated_at: clock.now()}
        if not Session.update(changes).where(this_one).execute():
            raise _signed_out()
    return new


# --- who holds a token ----------------------------------------------------------------------


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
    _note_seen(session)
    request = Actor(
        kind=PERSON, id=None, name="", ip=ip, request_id=request_id,
        fresh_until=session.authenticated_at + FRESH,
        refuse_ended=partial(_refuse_ended, session.handle),
    )  # fmt: skip
    return actor_of(session.person, request)


def _refuse_ended(handle: str) -> None:
    """Raises Unauthenticated once a session has ended. Whatever takes rights from somebody ends
    their sessions, so who still has theirs has all that the request began with."""
    still = (Session.handle == handle) & (Session.expires_at > clock.now())
    if not Session.select().where(still).exists():
        raise _signed_out()


def _signed_out() -> Unauthenticated:
    return Unauthenticated("You are signed out. Sign in again.", code=ENDED)


def _note_seen(session: Session) -> None:
    """Says when the session was last used; not worth a request that could be answered."""
    global _note_again_at
    now = clock.now()
    if now - session.last_seen_at < SEEN_EVERY or time.monotonic() < _note_again_at:
        return
    try:
        with db.write(wait_seconds=db.BRIEFLY_SECONDS):
            Session.update(last_seen_at=now).where(Session.id == session.id).execute()
    except peewee.PeeweeException:
        # The next requests do not wait, each as long again, for a database that takes no writes.
        _note_again_at = time.monotonic() + NOTE_AGAIN_SECONDS


def actor_of(person: Person, request: Actor) -> Actor:
    """The person acting, in the request, and the session if any, of `request`."""
    roles = {} if person.is_owner else {
        membership.project_id: membership.role
        for membership in Membership.select().where(Membership.person == person)
    }  # fmt: skip
    return replace(
        request,
        kind=PERSON,
        id=person.id,
        name=person.email,
        owner_id=person.id,
        is_owner=person.is_owner,
        roles=roles,
    )


# --- access tokens --------------------------------------------------------------------------


def access_token(token: str, person: Person, *, signing_key: str) -> tuple[str, int]:
    """A signed access token (JWT, RFC 7519) for a session, and its life in seconds.

    It names the session, so that it ends with it; the signature only spares a look-up of forgeries.
    """
    seconds = LENGTH[TOKEN] // 1000
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
            code=ENDED,
        )
    return actor
