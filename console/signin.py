"""Signing in: what somebody must show to begin a session, and to confirm that they are there.

First whether they may try (throttle.py), then the password, then the code of the second factor
where there is one. What a session is, sessions.py says.
"""

from dataclasses import dataclass

from console import clock, db, passwords, second_factor, sessions, throttle
from console.actor import PERSON, Actor
from console.clock import MINUTE
from console.errors import Unauthenticated
from console.fields import clean_email
from console.models import Person
from console.person_rows import find_person
from console.secret import digest
from console.sessions import BROWSER, TOKEN

PENDING_LENGTH = 5 * MINUTE


@dataclass(frozen=True)
class Pending:
    """A sign-in whose password was right and whose code is missing. Holds for PENDING_LENGTH, and
    not beyond a change of the password."""

    person_id: str
    began_at: int
    fingerprint: str  # of the password's salted hash: tells nothing of either


class CodeRequired(Unauthenticated):
    """401: the password is right; now the code."""

    code = "OTP_REQUIRED"

    def __init__(self, pending: Pending) -> None:
        super().__init__("Send the code of your authenticator app, or a recovery code, as `otp`.")
        self.pending = pending


def with_password(
    email: str,
    password: str,
    *,
    code: str | None = None,
    kind: str = BROWSER,
    ip: str | None,
    user_agent: str = "",
    request_id: str | None = None,
    browser: str | None = None,
) -> tuple[str, Person]:
    """A new session's token, and whose it is. `browser` is what a known browser presented.

    Raises Unauthenticated, alike for every reason (CREDENTIALS_INVALID); with the right password
    CodeRequired, or OTP_INVALID for a wrong code; Limited, Unavailable.
    """
    token = None
    with throttle.attempt(email, ip=ip, browser=browser):
        person = _by_password(email, password)
        if code or not second_factor.is_on(person):
            with db.write():
                _hold_as_compared(person)
                token = _begin(person, code, kind, ip, user_agent, request_id)
    if token is None:  # said here, where it counts as no failure
        raise CodeRequired(Pending(person.id, clock.now(), _fingerprint(person)))
    throttle.forgive(email, browser=browser)
    return token, person


def with_code(
    pending: Pending,
    code: str,
    *,
    ip: str | None,
    user_agent: str = "",
    request_id: str | None = None,
    browser: str | None = None,
) -> tuple[str, Person]:
    """What `with_password` gives, to whom it asked for a code. Raises Unauthenticated (OTP_INVALID
    for the code, CREDENTIALS_INVALID where the sign-in begins anew), Limited."""
    person = person_of(pending)
    with throttle.attempt(person.email, ip=ip, browser=browser), db.write():
        db.hold(Person, person.id)
        person = person_of(pending)
        token = _begin(person, code, BROWSER, ip, user_agent, request_id)
    throttle.forgive(person.email, browser=browser)
    return token, person


def person_of(pending: Pending) -> Person:
    """Who is signing in. Raises Unauthenticated once that has to begin anew."""
    person = Person.get_or_none(Person.id == pending.person_id, Person.disabled_at.is_null())
    is_old = clock.now() >= pending.began_at + PENDING_LENGTH
    if is_old or person is None or _fingerprint(person) != pending.fingerprint:
        raise Unauthenticated("That took too long. Sign in again.", code="CREDENTIALS_INVALID")
    return person


def for_script(
    email: str,
    password: str,
    *,
    code: str | None = None,
    signing_key: str,
    ip: str | None,
    user_agent: str,
    request_id: str | None = None,
) -> tuple[str, int]:
    """A signed access token and its life in seconds. Raises what `with_password` does."""
    token, person = with_password(
        email, password, code=code, kind=TOKEN, ip=ip, user_agent=user_agent, request_id=request_id
    )
    return sessions.access_token(token, person, signing_key=signing_key)


def confirm(
    token: str, password: str, *, by: Actor, code: str = "", browser: str | None = None
) -> str:
    """Whoever is signed in shows with the password, and the code of a second factor where there is
    one, that they are there; the token that takes this one's place. Raises Unauthenticated
    (CREDENTIALS_INVALID, OTP_INVALID), Limited, Unavailable."""
    person = prove(password, by=by, browser=browser)
    if second_factor.is_on(person):
        with throttle.attempt(person.email, ip=by.ip, browser=browser), db.write(by):
            db.hold(Person, person.id)
            second_factor.accept(find_person(person.id), code, by=by)
    return sessions.confirm(token)


def prove(password: str, *, by: Actor, browser: str | None = None) -> Person:
    """Whoever is signed in, once the password has shown it. Raises Unauthenticated
    (CREDENTIALS_INVALID), Limited, Unavailable."""
    try:
        with throttle.attempt(by.name, ip=by.ip, browser=browser):
            return _by_password(by.name, password)
    except Unauthenticated as error:
        raise Unauthenticated("That is not your password.", code=error.code) from None


def _by_password(email: str, password: str) -> Person:
    person = _by_email(email)
    known = person if person is not None and person.disabled_at is None else None
    if not passwords.fits(password, known.password_hash if known else None) or known is None:
        raise _wrong_credentials()
    _renew_hash(known, password)
    return known


def _renew_hash(person: Person, password: str) -> None:
    """Stores a right password as today's policy hashes it, unless it was changed meanwhile. It is
    the same password: no session ends."""
    before = person.password_hash or ""
    renewed = passwords.renewed(password, before)
    if renewed is None:
        return
    with db.write():
        as_compared = (Person.id == person.id) & (Person.password_hash == before)
        if Person.update(password_hash=renewed).where(as_compared).execute():
            person.password_hash = renewed


def _begin(
    person: Person,
    code: str | None,
    kind: str,
    ip: str | None,
    user_agent: str,
    request_id: str | None,
) -> str:
    """The token of a session that begins, in the caller's transaction, which holds the person."""
    method = sessions.PASSWORD
    if second_factor.is_on(person):
        by = Actor(kind=PERSON, id=person.id, name=person.email, ip=ip, request_id=request_id)
        second_factor.accept(person, code or "", by=by)
        method = sessions.PASSWORD_AND_CODE
    return sessions.begin(
        person, kind=kind, method=method, ip=ip, user_agent=user_agent, request_id=request_id
    )


def _hold_as_compared(person: Person) -> None:
    """A change that ends all sessions ends the one that is about to begin, too."""
    db.hold(Person, person.id)
    now = Person.get_or_none(
        Person.id == person.id,
        Person.password_hash == person.password_hash,
        Person.disabled_at.is_null(),
    )
    if now is None:
        raise _wrong_credentials()
    person.totp_secret, person.totp_step = now.totp_secret, now.totp_step


def _fingerprint(person: Person) -> str:
    return digest(f"pending {person.password_hash}")


def _wrong_credentials() -> Unauthenticated:
    return Unauthenticated("Email or password is wrong.", code="CREDENTIALS_INVALID")


def _by_email(text: str) -> Person | None:
    try:
        email = clean_email(text)
    except ValueError:
        return None
    return Person.get_or_none(Person.email == email)
