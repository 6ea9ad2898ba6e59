"""Passkeys (WebAuthn Level 3): how one is added, what it proves, how it is renamed and removed.

A passkey is password and second factor in one: its device asks for a finger, a face or a PIN, and
signs for one address alone. The browser's part is in static/console.js.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from console import account, clock, db, links, sessions, throttle
from console.actor import PERSON, Actor
from console.errors import Conflict, Invalid, Unauthenticated, Unknown
from console.fields import Fields, Name
from console.models import Passkey, Person
from console.person_rows import person_to_change, record

# py_webauthn takes 4 MB and 50 ms at each start: it is imported where it is used, so that commands
# and installations without passkeys go without.
if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

T = TypeVar("T")
Options = dict[str, Any]  # as JSON, byte strings in base64url

RP_NAME = "Latchkey"
PASSKEYS_MAX = 20  # of one person
ID_BYTES_MAX = 1023  # of a credential (WebAuthn §5.8.3)


class PasskeyName(Fields):
    """The form that names a passkey."""

    name: Name


# --- where they hold --------------------------------------------------------------------------


def why_not() -> str | None:
    """Why there are no passkeys at this installation's address, and what to set; None where there
    are. Browsers keep them for names alone, over https, or on one's own machine."""
    host = _host()
    is_number = ":" in host or host.rpartition(".")[2].isdigit()
    if host and not is_number and (_is_own_machine(host) or _scheme() == "https"):
        return None
    lacks = "a number, not a name" if is_number else "not https"
    return (
        "Browsers keep passkeys for a name, over https. This installation's address, "
        f"{links.base_url()}, is {lacks}. Whoever operates it can set LATCHKEY_BASE_URL to one "
        "such as https://keys.example.com."
    )


def are_possible() -> bool:
    """Whether there can be passkeys at this installation's address."""
    return why_not() is None


def _host() -> str:
    """The host of the public address, as browsers write it. It is what passkeys are bound to."""
    try:
        return (urlsplit(links.base_url()).hostname or "").encode("idna").decode()
    except UnicodeError:
        return ""  # no name at all


def _scheme() -> str:
    return urlsplit(links.base_url()).scheme


def _is_own_machine(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def origin() -> str:
    """The address at which they hold, as browsers write it: without the scheme's own port."""
    scheme, port = _scheme(), urlsplit(links.base_url()).port
    is_usual = port in (None, {"https": 443, "http": 80}.get(scheme))
    return f"{scheme}://{_host()}{'' if is_usual else f':{port}'}"


def _refuse_where_impossible() -> None:
    reason = why_not()
    if reason:
        raise Conflict(reason)


# --- add --------------------------------------------------------------------------------------


def of_person(*, by: Actor) -> list[Passkey]:
    """The passkeys of whoever asks, the oldest first."""
    mine = Passkey.select().where(Passkey.person == by.person_id)
    return list(mine.order_by(Passkey.created_at, Passkey.id))


def begin_adding(fields: Mapping[str, Any], *, by: Actor) -> Options:
    """What the browser makes a passkey from (PublicKeyCredentialCreationOptionsJSON), which is
    going to have the name in `fields`. The `challenge` in it goes back to `add`, once.

    Raises NotFresh, Invalid; Conflict where there can be none, or 20 are there.
    """
    from webauthn import generate_registration_options
    from webauthn.helpers import base64url_to_bytes, options_to_json_dict, structs

    by.require_fresh()
    PasskeyName.read(fields)
    person = account.of(by)
    _refuse_where_impossible()
    held = of_person(by=by)
    _refuse_more_than(PASSKEYS_MAX - 1, len(held))
    options = generate_registration_options(
        rp_id=_host(),
        rp_name=RP_NAME,
        user_id=_handle(person.id),
        user_name=person.email,
        user_display_name=person.name,
        challenge=base64url_to_bytes(_challenge(person.id)),
        timeout=links.LENGTH[links.PASSKEY],
        authenticator_selection=structs.AuthenticatorSelectionCriteria(
            resident_key=structs.ResidentKeyRequirement.REQUIRED,
            user_verification=structs.UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[_descriptor(one) for one in held],
    )
    return options_to_json_dict(options)


def add(challenge: str, credential: Any, fields: Mapping[str, Any], *, by: Actor) -> Passkey:
    """The passkey that the browser made (RegistrationResponseJSON), from now on one of whoever is
    signed in. Raises NotFresh; Invalid (name, passkey); Conflict for one too many."""
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url

    by.require_fresh()
    link = links.use_up(challenge, links.PASSKEY)
    name = PasskeyName.read(fields).name
    person = account.of(by)
    made = _verified(verify_registration_response, credential, challenge)
    is_asked = link is not None and link.person_id == person.id
    if made is None or not is_asked or len(made.credential_id) > ID_BYTES_MAX:
        raise Invalid({
            "passkey": f"was not taken. It must be made at {origin()}, on a device that asks for a "
            "finger, a face or a PIN, within five minutes. Try again"
        })  # fmt: skip
    with db.write():
        person = person_to_change(person.id, by=by)
        _refuse_more_than(PASSKEYS_MAX - 1, len(of_person(by=by)))
        passkey_id = bytes_to_base64url(made.credential_id)
        if Passkey.get_or_none(Passkey.id == passkey_id):
            raise Invalid({"passkey": "is known here already"})
        passkey = Passkey.create(
            id=passkey_id,
            person=person,
            name=name,
            public_key=made.credential_public_key,
            sign_count=made.sign_count,
            transports=_transports(credential),
            created_at=clock.now(),
        )
        record("person.passkey_added", person, by, {"passkey": (None, name)})
    return passkey


def _refuse_more_than(most: int, held: int) -> None:
    if held > most:
        raise Conflict(f"You have {held} passkeys, the most there can be. Remove one first.")


def _challenge(person_id: str | None = None) -> str:
    """What is to be signed once, within five minutes; of one person, the last one alone."""
    with db.write():
        if person_id is not None:
            links.end(links.PASSKEY, person_id)
        token, _ = links.issue(links.PASSKEY, person_id)
    return token


def _handle(person_id: str) -> bytes:
    """Whose passkey it is, as its device keeps it."""
    return person_id.encode()


def _descriptor(passkey: Passkey) -> "PublicKeyCredentialDescriptor":
    from webauthn.helpers import base64url_to_bytes, structs

    transports = [structs.AuthenticatorTransport(one) for one in passkey.transports]
    return structs.PublicKeyCredentialDescriptor(
        id=base64url_to_bytes(passkey.id), transports=transports
    )


def _transports(credential: Any) -> list[str]:
    """By which ways the device is reached, as far as they are known ones."""
    from webauthn.helpers import parse_registration_credential_json

    known = parse_registration_credential_json(credential).response.transports or []
    return list(dict.fromkeys(one.value for one in known))


def _verified(verify: Callable[..., T], credential: Any, challenge: str, **more: Any) -> T | None:
    """What py_webauthn finds in the browser's answer; None where that is not what was asked for."""
    from webauthn.helpers import base64url_to_bytes, parse_client_data_json

    try:
        client_data = base64url_to_bytes(credential["response"]["clientDataJSON"])
        if parse_client_data_json(client_data).cross_origin:
            return None
        return verify(
            credential=credential,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=_host(),
            expected_origin=origin(),
            require_user_verification=True,
            **more,
        )
    except Exception:
        # Anybody's bytes: of what is wrong with them, each decoder below has its own word.
        return None


# --- prove ------------------------------------------------------------------------------------


def begin_sign_in(*, ip: str | None, browser: str | None = None) -> Options:
    """What the browser proves with any passkey that it has for this address
    (PublicKeyCredentialRequestOptionsJSON). The `challenge` in it goes back to `sign_in`, once.
    `browser` is what a known browser presented.

    Raises Conflict where there can be none; Limited for a network, or a known browser, that begins
    too often.
    """
    _refuse_where_impossible()
    throttle.begin("passkey", ip=ip, browser=browser)
    return _request(_challenge(), [])


def sign_in(
    challenge: str,
    credential: Any,
    *,
    ip: str | None,
    user_agent: str = "",
    request_id: str | None = None,
    browser: str | None = None,
) -> tuple[str, Person]:
    """A new session's token, and whose it is, for what a passkey signed
    (AuthenticationResponseJSON). `browser` is what a known browser presented.

    Raises Unauthenticated, alike for every reason (CREDENTIALS_INVALID); Limited.
    """
    claimed = _find(credential)
    with _attempt(claimed.person.email if claimed else None, ip, browser):
        passkey, count = _proven(challenge, credential, None)
        token = None
        with db.write():
            db.hold(Person, passkey.person_id)
            still = (Person.id == passkey.person_id) & Person.disabled_at.is_null()
            person = Person.get_or_none(still)
            if person is not None and _count_on(
                passkey, count, _as_themselves(person, ip, request_id)
            ):
                token = sessions.begin(
                    person,
                    method=sessions.PASSKEY,
                    ip=ip,
                    user_agent=user_agent,
                    request_id=request_id,
                )
        if token is None or person is None:  # said here, after what was recorded is stored
            raise _wrong()
    throttle.forgive(person.email, browser=browser)
    return token, person


def _as_themselves(person: Person, ip: str | None, request_id: str | None) -> Actor:
    return Actor(kind=PERSON, id=person.id, name=person.email, ip=ip, request_id=request_id)


def begin_confirming(*, by: Actor) -> Options:
    """What the browser proves with one of the passkeys of whoever is signed in. The `challenge`
    in it goes back to `confirm`, once. Raises Conflict where there is none."""
    person = account.of(by)
    _refuse_where_impossible()
    held = of_person(by=by)
    if not held:
        raise Conflict("You have no passkey.")
    return _request(_challenge(person.id), held)


def confirm(
    token: str, challenge: str, credential: Any, *, by: Actor, browser: str | None = None
) -> str:
    """Whoever is signed in shows with a passkey that they are there; the token that takes this
    one's place. Raises Unauthenticated, Limited."""
    person = account.of(by)
    with _attempt(person.email, by.ip, browser):
        passkey, count = _proven(challenge, credential, person.id)
        with db.write():
            is_accepted = _count_on(passkey, count, by)
        if not is_accepted:
            raise _wrong()
    return sessions.confirm(token)


def _attempt(
    email: str | None, ip: str | None, browser: str | None
) -> AbstractContextManager[None]:
    """Within it, a wrong passkey counts for the network, or for a browser in which this person has
    signed in before; never for the account: nobody guesses a passkey, so nobody has to be slowed
    down for its sake, and no guesses at the password keep its person out."""
    is_known = email is not None and throttle.is_known(browser, email)
    return throttle.attempt(email if is_known else None, ip=ip, browser=browser)


def _request(challenge: str, held: list[Passkey]) -> Options:
    from webauthn import generate_authentication_options
    from webauthn.helpers import base64url_to_bytes, options_to_json_dict, structs

    options = generate_authentication_options(
        rp_id=_host(),
        challenge=base64url_to_bytes(challenge),
        timeout=links.LENGTH[links.PASSKEY],
        allow_credentials=[_descriptor(one) for one in held],
        user_verification=structs.UserVerificationRequirement.REQUIRED,
    )
    return options_to_json_dict(options)


def _proven(challenge: str, credential: Any, person_id: str | None) -> tuple[Passkey, int]:
    """The passkey that signed the challenge, and how often its device says it did. It is the
    person's, or, without one, that of whom the device names. The challenge is used up, whatever
    comes of it. Raises Unauthenticated."""
    from webauthn import verify_authentication_response

    link = links.use_up(challenge, links.PASSKEY)
    passkey = _find(credential)
    if link is None or link.person_id != person_id or passkey is None:
        raise _wrong()
    if person_id not in (None, passkey.person_id):
        raise _wrong()
    proof = _verified(
        verify_authentication_response,
        credential,
        challenge,
        credential_public_key=bytes(passkey.public_key),
        # Ours to compare, once it is certain that the device itself said the new one.
        credential_current_sign_count=0,
    )
    if proof is None or _named(credential) not in _may_name(passkey, person_id):
        raise _wrong()
    return passkey, proof.new_sign_count


def _find(credential: Any) -> Passkey | None:
    passkey_id = credential.get("id") if isinstance(credential, dict) else None
    # No id holds what a database could not compare.
    if not isinstance(passkey_id, str) or not passkey_id.isprintable():
        return None
    return Passkey.get_or_none(Passkey.id == passkey_id)


def _named(credential: Any) -> bytes | None:
    """Whom the device names, in an answer that is verified."""
    from webauthn.helpers import parse_authentication_credential_json

    return parse_authentication_credential_json(credential).response.user_handle


def _may_name(passkey: Passkey, person_id: str | None) -> tuple[bytes | None, ...]:
    """Asked for the passkeys of one person, a device need not say whose they are (§7.2, step 6)."""
    handle = _handle(passkey.person_id)
    return (handle,) if person_id is None else (handle, None)


def _count_on(passkey: Passkey, count: int, by: Actor) -> bool:
    """Notes that it was used, in the caller's transaction. False, with an event, where it counted
    back: two devices then use the same passkey, one of them a copy (WebAuthn §6.1.1). Devices that
    do not count say 0 for ever."""
    db.hold(Passkey, passkey.id)
    now = Passkey.get_or_none(Passkey.id == passkey.id)
    if now is None:  # removed, meanwhile
        return False
    if max(count, now.sign_count) > 0 and count <= now.sign_count:
        told = {"passkey": (now.name, now.name), "sign_count": (now.sign_count, count)}
        record("person.passkey_refused", now.person, by, told)
        return False
    used = {Passkey.sign_count: count, Passkey.last_used_at: clock.now()}
    Passkey.update(used).where(Passkey.id == now.id).execute()
    return True


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "This passkey was not accepted. Try again, or use your password.",
        code="CREDENTIALS_INVALID",
    )


# --- rename, remove ---------------------------------------------------------------------------


def find_own(passkey_id: str, *, by: Actor) -> Passkey:
    """One of one's own. Raises Unknown for everybody else's."""
    of_both = (Passkey.id == passkey_id) & (Passkey.person == by.person_id)
    passkey = Passkey.get_or_none(of_both) if passkey_id.isprintable() else None
    if passkey is None:
        raise Unknown("There is no such passkey.")
    return passkey


def rename(passkey_id: str, fields: Mapping[str, Any], *, by: Actor) -> Passkey:
    """Another name for one of one's own. Raises NotFresh, Invalid, Unknown."""
    by.require_fresh()
    name = PasskeyName.read(fields).name
    with db.write():
        passkey = _own_to_change(passkey_id, by)
        if passkey.name != name:
            before, passkey.name = passkey.name, name
            passkey.save(only=[Passkey.name])
            record("person.passkey_renamed", passkey.person, by, {"passkey": (before, name)})
    return passkey


def remove(passkey_id: str, *, token: str, by: Actor) -> Passkey:
    """Takes away one of one's own: it opens nothing any more, and all sessions end but the one of
    `token`. Raises NotFresh, Unknown."""
    by.require_fresh()
    with db.write():
        passkey = _own_to_change(passkey_id, by)
        passkey.delete_instance()
        sessions.end_all_but(token, passkey.person)
        record("person.passkey_removed", passkey.person, by, {"passkey": (passkey.name, None)})
    return passkey


def _own_to_change(passkey_id: str, by: Actor) -> Passkey:
    person_to_change(by.person_id or "", by=by)
    return find_own(passkey_id, by=by)
