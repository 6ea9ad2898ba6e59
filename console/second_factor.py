"""The second factor: codes of an authenticator app (TOTP, RFC 6238), and the recovery codes that
stand in for it.

The app's seed is stored sealed; of a recovery code there is only a digest. No code opens twice.
"""

import base64
import hmac
import json
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any

import pyotp

from console import clock, db, sessions
from console.actor import Actor
from console.clock import MINUTE, SECOND
from console.errors import Conflict, Invalid, Unauthenticated
from console.models import Passkey, Person, RecoveryCode
from console.person_rows import find_person, person_to_change, record, refuse_but_owners
from console.seal import Broken, Seal, derive
from console.secret import digest

SEAL_PURPOSE = "latchkey second factors"
ISSUER = "Latchkey"
STEP = 30 * SECOND
DRIFT = 1  # steps that the app's clock may be off, either way
DIGITS = 6
ENROLMENT_LENGTH = 15 * MINUTE
RECOVERY_CODES = 10
# 120 bits, so that a plain digest is enough (OWASP ASVS 5.0, 6.5.2); in base32 24 letters.
RECOVERY_BYTES = 15
RECOVERY_GROUP = 4
CODE_MAX_LENGTH = 100  # as it is typed
# Base32 has no such figures: whoever reads one has read a letter.
MISREAD = str.maketrans("018", "olb")
ADDED, REMOVED = ("off", "on"), ("on", "off")  # as events tell it

_seal: Seal


def use_secret_key(secret_key: str) -> None:
    """Sets the installation's secret key, under which the seeds are stored."""
    global _seal
    _seal = Seal(derive(secret_key, SEAL_PURPOSE)[0])


# --- as it stands ---------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Whether the person has a second factor, whether its codes can be checked, and how many
    recovery codes are left."""

    is_on: bool
    is_readable: bool
    recovery_codes_left: int


def state_of(person_id: str) -> State:
    """As it stands for this person. Raises Unknown."""
    person = find_person(person_id)
    left = RecoveryCode.select().where(RecoveryCode.person == person).count()
    return State(is_on(person), is_on(person) and _seed_of(person) is not None, left)


def is_on(person: Person) -> bool:
    """Whether this person signs in with a code besides the password."""
    return person.totp_secret is not None


def _seed_of(person: Person) -> str | None:
    """None where it was sealed under another secret key than the installation's present one."""
    try:
        return _seal.open(person.totp_secret or b"", f"totp {person.id}").decode()
    except Broken:
        return None


# --- set up and take away ---------------------------------------------------------------------


@dataclass(frozen=True)
class Enrolment:
    """A seed that waits for its first code. `sealed` is all there is of it: it goes into the form
    and comes back with the code, within ENROLMENT_LENGTH and from the same person."""

    seed: str  # base32, as apps take it
    uri: str  # otpauth://…, as their cameras do
    sealed: str


def begin_enrolment(*, by: Actor) -> Enrolment:
    """A new seed. Raises NotFresh; Conflict where there is a second factor already."""
    person = _who(by)
    _refuse_second(person)
    seed = pyotp.random_base32()
    content = json.dumps([seed, clock.now()]).encode()
    sealed = base64.urlsafe_b64encode(_seal.close(content, _waiting(person))).decode()
    return _enrolment(person, seed, sealed)


def continue_enrolment(sealed: str, *, by: Actor) -> Enrolment:
    """The enrolment under way, to show it again. Raises NotFresh, Conflict."""
    person = _who(by)
    return _enrolment(person, _opened(sealed, person), sealed)


def enrol(sealed: str, code: str, *, token: str, by: Actor) -> list[str]:
    """Turns the second factor on, and gives ten recovery codes, this once. All sessions of the
    person end but the one of `token`.

    Raises NotFresh; Invalid (code); Conflict where the enrolment was left open for too long, or
    there is a second factor already.
    """
    seed = _opened(sealed, _who(by))
    step = _step_of(seed, _plain(code), after=None)
    if step is None:
        raise Invalid({
            "code": "is not the one that the app shows now. The clocks of this server and of your "
            "phone must agree to half a minute"
        })  # fmt: skip
    with db.write():
        person = person_to_change(by.person_id or "", by=by)
        _refuse_second(person)
        person.totp_secret = _seal.close(seed.encode(), f"totp {person.id}")
        person.totp_step = step
        person.save(only=[Person.totp_secret, Person.totp_step])
        codes = _make_codes(person)
        sessions.end_all_but(token, person)
        record("person.second_factor_added", person, by, {"second_factor": ADDED})
    return codes


def remove(*, token: str, by: Actor) -> None:
    """Turns one's own second factor off; all sessions end but the one of `token`. Raises NotFresh;
    Conflict where there is none."""
    _who(by)
    with db.write():
        person = person_to_change(by.person_id or "", by=by)
        _refuse_none(person)
        _forget(person)
        sessions.end_all_but(token, person)
        record("person.second_factor_removed", person, by, {"second_factor": REMOVED})


def remove_all(person_id: str, *, by: Actor) -> None:
    """Takes from a person the app, the recovery codes and the passkeys, and ends their sessions:
    for whoever has lost them. Raises NotFresh, Forbidden but for owners, Unknown; Conflict where
    there is nothing to take."""
    by.require_fresh()
    refuse_but_owners(by)
    with db.write():
        person = person_to_change(person_id, by=by)
        told = forget(person)
        if not told:
            raise Conflict(f"{person.email} has no second factor.")
        sessions.end_all(person)
        record("person.second_factor_removed", person, by, told)


def make_recovery_codes(*, by: Actor) -> list[str]:
    """Ten new recovery codes, given this once; those before open nothing any more. Raises NotFresh;
    Conflict without a second factor."""
    _who(by)
    with db.write():
        person = person_to_change(by.person_id or "", by=by)
        _refuse_none(person)
        before = RecoveryCode.select().where(RecoveryCode.person == person).count()
        codes = _make_codes(person)
        record("person.recovery_codes_made", person, by, {"recovery_codes": (before, len(codes))})
    return codes


def _who(by: Actor) -> Person:
    by.require_fresh()
    return find_person(by.person_id or "")


def _enrolment(person: Person, seed: str, sealed: str) -> Enrolment:
    uri = pyotp.TOTP(seed).provisioning_uri(name=person.email, issuer_name=ISSUER)
    return Enrolment(seed, uri, sealed)


def _waiting(person: Person) -> str:
    return f"totp to be, of {person.id}"


def _opened(sealed: str, person: Person) -> str:
    """The seed that waits. Raises Conflict."""
    try:
        content = _seal.open(base64.urlsafe_b64decode(sealed.encode()), _waiting(person))
        seed, began_at = json.loads(content)
    except (Broken, ValueError):
        seed, began_at = "", 0
    if clock.now() - began_at >= ENROLMENT_LENGTH:
        raise Conflict(
            "This code was shown more than 15 minutes ago. Begin again, and remove the entry from "
            "your app if it is there already."
        )
    return str(seed)


def _refuse_second(person: Person) -> None:
    if is_on(person):
        raise Conflict("You have a second factor already. Remove it first to use another app.")


def _refuse_none(person: Person) -> None:
    if not is_on(person):
        raise Conflict("You have no second factor.")


def forget(person: Person) -> dict[str, tuple[Any, Any]]:
    """Takes the app, the recovery codes and the passkeys, in the caller's transaction, which holds
    the person; what that was, as events tell it."""
    told: dict[str, tuple[Any, Any]] = {"second_factor": REMOVED} if is_on(person) else {}
    _forget(person)
    passkeys = Passkey.delete().where(Passkey.person == person).execute()
    return {**told, **({"passkeys": (passkeys, 0)} if passkeys else {})}


def _forget(person: Person) -> None:
    RecoveryCode.delete().where(RecoveryCode.person == person).execute()
    person.totp_secret = person.totp_step = None
    person.save(only=[Person.totp_secret, Person.totp_step])


def _make_codes(person: Person) -> list[str]:
    RecoveryCode.delete().where(RecoveryCode.person == person).execute()
    codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
    for code in codes:
        RecoveryCode.create(digest=digest(_plain(code)), person=person, created_at=clock.now())
    return codes


def _recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    starts = range(0, len(text), RECOVERY_GROUP)
    return "-".join(text[start : start + RECOVERY_GROUP] for start in starts)


# --- signing in -------------------------------------------------------------------------------


def accept(person: Person, code: str, *, by: Actor) -> None:
    """Takes the app's code or a recovery code, which then open nothing again; in the caller's
    transaction, which holds the person as they are now. Raises Unauthenticated."""
    plain = _plain(code)
    if len(plain) != DIGITS:
        _use_recovery_code(person, plain, by)
        return
    seed = _seed_of(person)
    if seed is None:
        raise _wrong(
            "The codes of your app cannot be checked: this installation's secret key is another "
            "one than when you set the app up. Use a recovery code, or have an owner remove your "
            "second factor. The operator can let you in with the command login-link."
        )
    step = _step_of(seed, plain, after=person.totp_step)
    if step is None:
        raise _wrong("This code does not hold. Wait until the app shows the next one.")
    Person.update(totp_step=step).where(Person.id == person.id).execute()
    person.totp_step = step


def _use_recovery_code(person: Person, plain: str, by: Actor) -> None:
    of_person = RecoveryCode.person == person
    this_one = RecoveryCode.delete().where(of_person, RecoveryCode.digest == digest(plain))
    if not this_one.execute():
        raise _wrong(
            "This code does not hold, or was used before: the app's have 6 digits, recovery codes "
            "24 letters and digits."
        )
    left = RecoveryCode.select().where(of_person).count()
    record("person.recovery_code_used", person, by, {"recovery_codes": (left + 1, left)})


def _wrong(words: str) -> Unauthenticated:
    return Unauthenticated(words, code="OTP_INVALID")


def _step_of(seed: str, plain: str, *, after: int | None) -> int | None:
    """The step of 30 seconds whose code this is, near enough to now and later than `after`."""
    totp, now = pyotp.TOTP(seed), clock.now() // STEP
    near = range(now - DRIFT, now + DRIFT + 1)
    fitting = [step for step in near if _is_same(totp.generate_otp(step), plain)]
    return next((step for step in fitting if after is None or step > after), None)


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _plain(code: str) -> str:
    """The code without what people and apps put between its figures, in ASCII where it can be."""
    text = unicodedata.normalize("NFKC", code[:CODE_MAX_LENGTH]).casefold()
    kept = "".join(one for one in text if one.isalnum())
    if kept.isdecimal():
        return "".join(str(unicodedata.decimal(one)) for one in kept)
    return kept.translate(MISREAD)
