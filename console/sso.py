"""Single sign-on: who somebody is here that the provider vouches for, and which roles that gives.

A person is known by the provider's own id of them, never again by their address. What the provider
says is proven by oidc.py.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from config import Config, MappedRole
from console import (
    clock,
    db,
    links,
    members,
    oidc,
    people,
    person_rows,
    projects,
    second_factor,
    sessions,
    throttle,
)
from console.actor import PERSON, Actor
from console.errors import Conflict, Forbidden, Refused, Unknown
from console.fields import clean_email, clean_name
from console.links import INVITATION
from console.models import Identity, Link, Membership, Passkey, Person, Project
from console.oidc import Begun, Claims, Client
from console.person_fields import ROLES
from console.secret import digest

log = logging.getLogger(__name__)

CALLBACK = "/login/sso/callback"
ACTOR = "single sign-on"  # as events name who did it
WAY_BACK = "way back"  # of links: one that was taken already
OF_ADDRESS = ("email", "email_verified")


@dataclass(frozen=True)
class _Settings:
    client: Client
    trusts_email: bool
    role_claim: str
    mapped: tuple[MappedRole, ...]


_settings: _Settings | None = None


def use(config: Config) -> None:
    """Sets the provider, or that there is none."""
    global _settings
    oidc.forget()
    if not config.oidc_issuer:
        _settings = None
        return
    _settings = _Settings(
        client_of(config), config.oidc_trust_email, config.oidc_role_claim, config.oidc_roles
    )


def client_of(config: Config) -> Client:
    """What we are to the provider that these settings name."""
    return Client(
        issuer=config.oidc_issuer,
        client_id=config.oidc_client_id,
        client_secret=config.oidc_client_secret,
        scopes=config.oidc_scopes,
        redirect_uri=config.base_url + CALLBACK,
        name=config.oidc_name,
    )


def name() -> str | None:
    """What people call the provider; None without single sign-on."""
    return _settings.client.name if _settings else None


def _of_installation() -> _Settings:
    if _settings is None:
        raise Unknown("This installation has no single sign-on.")
    return _settings


# --- signing in -------------------------------------------------------------------------------


def begin(
    *, asks_again: bool = False, ip: str | None, browser: str | None = None
) -> tuple[str, Begun]:
    """The provider's page to go to, and what the browser keeps until it is back. `browser` is what
    a known browser presented.

    Raises Unknown without single sign-on, Unavailable; Limited for a network, or a known browser,
    that begins too often.
    """
    throttle.begin("sso", ip=ip, browser=browser)
    return oidc.begin(_of_installation().client, asks_again=asks_again)


def sign_in(
    begun: Begun | None,
    answer: Mapping[str, str],
    *,
    ip: str | None,
    user_agent: str = "",
    request_id: str | None = None,
    browser: str | None = None,
) -> tuple[str, Person]:
    """A new session's token, and whose it is. `answer` is the query of the way back, `browser` what
    a known browser presented.

    Who is not known yet is found by a verified address, or becomes a person where the mapping of
    roles gives them something; everybody's roles are set as it says. Raises Refused where the way
    back is not the one begun, Forbidden for whom it does not let in, Unavailable.
    """
    claims = _proven(begun, answer, ip, browser)
    by = Actor(kind=PERSON, id=None, name=ACTOR, ip=ip, request_id=request_id)
    with db.write():
        person_rows.hold_people()
        given = _given(claims)
        for project_id in sorted(given.named):  # before persons, as everywhere
            projects.held(project_id)
        identity = _identity(claims) or _first_time(claims, given, by)
        person = person_rows.person_to_change(identity.person_id, by=by)
        if person.disabled_at is not None:
            raise Forbidden("Your account in Latchkey is disabled. Ask an owner to enable it.")
        _give(person, identity, given, by)
        token = sessions.begin(
            person, method=sessions.SSO, ip=ip, user_agent=user_agent, request_id=request_id,
            authenticated_at=_authenticated_at(claims, person),
        )  # fmt: skip
        return token, person


def confirm(
    begun: Begun | None,
    answer: Mapping[str, str],
    token: str,
    *,
    by: Actor,
    browser: str | None = None,
) -> str:
    """Whoever is signed in has shown the provider again that they are there; the token that takes
    this one's place. Raises what `sign_in` does, and Unauthenticated."""
    claims = _proven(begun, answer, by.ip, browser)
    with db.write(by):
        identity = _identity(claims)
        if begun is None or not begun.asks_again or identity is None:
            raise Forbidden(
                f"Your account here is not linked with {name()}. Confirm with your password, and "
                "link the two on your account page."
            )
        if identity.person_id != by.person_id:
            raise Forbidden(f"{by.name} is signed in here, and {name()} vouched for somebody else.")
        return sessions.confirm(token)


def link(
    begun: Begun | None, answer: Mapping[str, str], *, by: Actor, browser: str | None = None
) -> None:
    """Lets whoever is signed in come in this way, too; instead of who they were at the provider
    before. Their address must be the same in both places: nobody can be made to link another's
    account. Raises what `sign_in` does, NotFresh, Conflict."""
    by.require_fresh()
    claims = _proven(begun, answer, by.ip, browser)
    email = _verified_address(claims)
    with db.write():
        person = person_rows.person_to_change(by.person_id or "", by=by)
        if email != person.email:
            raise Conflict(
                f"{_named()} knows you as {email}, and Latchkey as {person.email}. The two must be "
                "the same; an owner can change the one here."
            )
        identity = _identity(claims)
        if identity is not None and identity.person_id != person.id:
            raise Conflict(f"This account of {name()} is linked with somebody else's here.")
        if identity is None:
            _link(person, claims, by)


def linked_since(*, by: Actor) -> int | None:
    """Since when whoever is signed in can come in this way; None where they cannot."""
    if _settings is None or by.person_id is None:
        return None
    mine = (Identity.person == by.person_id) & (Identity.issuer == _settings.client.issuer)
    identity = Identity.get_or_none(mine)
    return identity.created_at if identity else None


def _proven(
    begun: Begun | None, answer: Mapping[str, str], ip: str | None, browser: str | None
) -> Claims:
    """What the provider says of them; the way back is used up, whatever that is. Raises Refused,
    Forbidden, Limited, Unavailable."""
    settings = _of_installation()
    oidc.refuse_strange(begun, answer.get("state", ""))
    assert begun is not None
    _use_up(begun)
    wanted = (*OF_ADDRESS, settings.role_claim) if settings.role_claim else OF_ADDRESS
    with throttle.attempt(None, ip=ip, browser=browser):
        return oidc.finish(settings.client, begun, answer, wanted=wanted)


@db.transaction
def _use_up(begun: Begun) -> None:
    """A way back is taken once, whatever the browser keeps. Raises Refused."""
    state = digest(begun.state)
    now = clock.now()
    db.hold_name(state)
    Link.delete().where(Link.kind == WAY_BACK, Link.expires_at <= now).execute()
    if Link.get_or_none(Link.digest == state):
        raise Refused(oidc.BEGIN_AGAIN)
    Link.create(digest=state, kind=WAY_BACK, created_at=now, expires_at=now + oidc.LENGTH)


def _authenticated_at(claims: Claims, person: Person) -> int | None:
    """When the person last proved to the provider to be there. Where it does not say, that is too
    long ago for whoever can show it here, by password or passkey; else now."""
    at = claims.get("auth_time")
    if isinstance(at, (int, float)):
        return min(int(at) * 1000, clock.now())
    return clock.now() - sessions.FRESH if _has_own_lock(person) else None


# --- who it is --------------------------------------------------------------------------------


def _identity(claims: Claims) -> Identity | None:
    subject = str(claims["sub"])
    return Identity.get_or_none(Identity.issuer == claims["iss"], Identity.subject == subject)


def _first_time(claims: Claims, given: "_Given", by: Actor) -> Identity:
    """Whoever comes this way for the first time: known by their address, or new. Raises
    Forbidden."""
    if not people.anybody_yet():
        raise Forbidden("Nobody has set up Latchkey yet: open the link that the server printed.")
    email = _verified_address(claims)
    person = Person.get_or_none(Person.email == email)
    if person is not None:
        _refuse_to_take_over(person, claims)
        return _link(person, claims, by, forgotten=_forget_locks(person))
    if given.gives_nothing:
        raise Forbidden(
            f"Nobody has added {email} to Latchkey yet. Ask an owner to add you, and sign in again."
        )
    return _link(person_rows.create(email, _name_in(claims), by=by), claims, by)


def _verified_address(claims: Claims) -> str:
    """Raises Forbidden where the provider does not vouch for it."""
    settings = _of_installation()
    # Exactly true: some providers say "false" in text, which is true as text goes.
    is_verified = claims.get("email_verified") is True
    is_unsaid = "email_verified" not in claims
    if is_verified or (is_unsaid and settings.trusts_email):
        with suppress(ValueError):
            return clean_email(str(claims.get("email", "")))
    raise Forbidden(
        f"{_named()} does not vouch for your e-mail address, so Latchkey cannot tell who you are "
        "here. Whoever runs it can have the address verified."
    )


def _refuse_to_take_over(person: Person, claims: Claims) -> None:
    """An address alone opens no owner's account that has a lock of its own, and none that somebody
    else had at the provider before: addresses are given to others, ids are not."""
    of_provider = (Identity.person == person) & (Identity.issuer == claims["iss"])
    if Identity.get_or_none(of_provider):
        raise Forbidden(
            f"{person.email} is linked with another account of {name()} than yours. If that one "
            "was yours, sign in with your password and link the new one on your account page; "
            "else ask an owner to change the address of whoever had it."
        )
    if person.is_owner and _has_own_lock(person):
        raise Forbidden(
            f"{person.email} is an owner with a password here. Sign in with it once and link the "
            f"account with {name()} on your account page; from then on this way is open, too."
        )


def _has_own_lock(person: Person) -> bool:
    has_passkey = Passkey.select().where(Passkey.person == person).exists()
    return bool(person.password_hash or second_factor.is_on(person) or has_passkey)


def _forget_locks(person: Person) -> dict[str, tuple[Any, Any]]:
    """Takes what was set before anybody had proven the address: whoever got hold of an invitation
    may have set it. What that was, as events tell it; in the caller's transaction."""
    told: dict[str, tuple[Any, Any]] = {}
    if person.password_hash is not None:
        told["password"] = (person_rows.SET, None)
    told.update(second_factor.forget(person))
    person.password_hash = None
    person.save(only=[Person.password_hash])
    sessions.end_all(person)
    links.end_all(person.id)
    return told


def _name_in(claims: Claims) -> str | None:
    try:
        return clean_name(str(claims.get("name", "")))
    except ValueError:
        return None


def _link(
    person: Person,
    claims: Claims,
    by: Actor,
    *,
    forgotten: Mapping[str, tuple[Any, Any]] | None = None,
) -> Identity:
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    before = list(Identity.select().where(Identity.person == person))
    Identity.delete().where(Identity.person == person, Identity.issuer == issuer).execute()
    identity = Identity.create(
        issuer=issuer,
        subject=subject,
        person=person,
        created_at=clock.now(),
        # Whoever is an owner by their groups alone is so by whatever name the provider has.
        made_owner=any(one.made_owner for one in before),
    )
    links.end(INVITATION, person.id)
    person.vouched_by = None  # the provider does
    person.save(only=[Person.vouched_by])
    changes = {"issuer": (None, issuer), "subject": (None, subject)}
    person_rows.record("person.sso_linked", person, by, {**changes, **(forgotten or {})})
    return identity


# --- what it gives ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """What the mapping gives somebody: all rights, or a role in projects, by id. It decides about
    the projects that it names and no others."""

    is_owner: bool
    role_in: Mapping[str, str]
    named: frozenset[str]

    @property
    def gives_nothing(self) -> bool:
        return not (self.is_owner or self.role_in)


def _given(claims: Claims) -> _Given:
    """Of several roles in a project, the strongest. Raises Forbidden where the provider does not
    say all groups."""
    settings = _of_installation()
    groups = _groups(claims, settings.role_claim)
    slugs = {one.slug for one in settings.mapped if one.slug}
    known = {one.slug: one.id for one in Project.select().where(Project.slug.in_(list(slugs)))}
    for slug in sorted(slugs - known.keys()):
        log.warning("LATCHKEY_OIDC_ROLES names the project %s, and there is none", slug)
    role_in: dict[str, str] = {}
    for role in reversed(ROLES):  # the strongest last
        for one in settings.mapped:
            if one.role == role and one.value in groups and one.slug in known:
                role_in[known[one.slug]] = role
    is_owner = any(one.slug is None and one.value in groups for one in settings.mapped)
    return _Given(is_owner, role_in, frozenset(known.values()))


def _groups(claims: Claims, claim: str) -> frozenset[str]:
    """The claim's values: a list, or one. Missing, it is an empty list."""
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and claim in elsewhere:
        # Microsoft's answer for somebody in more than 200 groups (OpenID Connect Core 1.0, 5.6.2).
        raise Forbidden(
            f"{_named()} says that you are in too many groups to name them. Whoever runs it can "
            "have it name only those that matter here."
        )
    found = claims.get(claim) if claim else None
    listed = found if isinstance(found, list) else [found]
    return frozenset(one for one in listed if isinstance(one, str))


def _give(person: Person, identity: Identity, given: _Given, by: Actor) -> None:
    """Sets what the mapping decides about, and leaves the rest as it is. In the caller's
    transaction, which holds the projects and the person."""
    if not _of_installation().mapped:
        return
    own = Membership.select().where(Membership.person == person)
    kept = {one.project_id: one.role for one in own if one.project_id not in given.named}
    members.set_roles(person, {**kept, **given.role_in}, by=by)
    if given.is_owner and not person.is_owner:
        _set_owner(person, identity, True, by)
    elif identity.made_owner and not given.is_owner:
        if not person.is_owner or person_rows.is_another_local_owner(person):
            _set_owner(person, identity, False, by)
        else:
            log.warning("%s stays an owner, as there would be none with a password", person.email)


def _set_owner(person: Person, identity: Identity, is_owner: bool, by: Actor) -> None:
    identity.made_owner = is_owner
    identity.save(only=[Identity.made_owner])
    if person.is_owner != is_owner:
        person.is_owner = is_owner
        person.save(only=[Person.is_owner])
        sessions.end_all(person)
        links.end(INVITATION, person.id)
        links.end_made_by(person.id)
        person_rows.record("person.edited", person, by, {"owner": (not is_owner, is_owner)})


def _named() -> str:
    text = name() or ""
    return text[:1].upper() + text[1:]
