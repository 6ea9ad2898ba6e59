"""Single sign-on: whose word is believed, who it is then, and which roles that gives."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

import config as settings
from config import Config
from console import (
    account,
    db,
    doctor,
    invitations,
    links,
    members,
    oidc,
    people,
    second_factor,
    sessions,
    signin,
    sso,
)
from console import clock as console_clock
from console.actor import Actor
from console.clock import DAY
from console.errors import (
    Conflict,
    Forbidden,
    Limited,
    NotFresh,
    Refused,
    Unauthenticated,
    Unavailable,
    Unknown,
)
from console.models import (
    Event,
    Identity,
    Link,
    Membership,
    Passkey,
    Person,
    Project,
    RecoveryCode,
    Session,
)
from console.secret import digest
from tests.conftest import (
    PASSWORD,
    Clock,
    add_person,
    add_second_factor,
    at_once,
    sign_in,
    token_of,
)
from tests.issuer import CLIENT_ID, Issuer, running
from tests.server import free_port

ROLES = "platform=owner, payments=shop:admin, support=shop:viewer, support=gone:viewer"
ADDRESS = "ada@example.com"


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048)


@pytest.fixture
def issuer(key: RSAKey) -> Iterator[Issuer]:
    with running(key) as issuer:
        yield issuer


@pytest.fixture
def config(config: Config, issuer: Issuer) -> Config:
    given = {
        "LATCHKEY_OIDC_ISSUER": issuer.url,
        "LATCHKEY_OIDC_CLIENT_ID": CLIENT_ID,
        "LATCHKEY_OIDC_CLIENT_SECRET": "not-for-others",
        "LATCHKEY_OIDC_NAME": "the company",
        "LATCHKEY_OIDC_ROLE_CLAIM": "groups",
        "LATCHKEY_OIDC_ROLES": ROLES,
    }
    read = settings.load(given)
    oidc = {name: value for name, value in vars(read).items() if name.startswith("oidc_")}
    return replace(config, **oidc)


@pytest.fixture
def ada(project: Project, boss: Actor) -> Actor:
    """A member with a password; known to the provider by the same address."""
    return add_person(ADDRESS, shop="member")


@pytest.fixture
def boss(project: Project) -> Actor:
    """An owner who signs in with a password."""
    return add_person("boss@example.com", is_owner=True)


def come_in(issuer: Issuer, **says: Any) -> Person:
    """Signs in by way of the provider, which says this."""
    issuer.says = says
    begun, answer = issuer.visit()
    token, person = sso.sign_in(begun, answer, ip="192.0.2.7", request_id="req_1")
    assert sessions.by_session(token) is not None
    return person


def roles(person: Person) -> dict[str, str]:
    return people.roles_of([person])[person.id]


def events(person_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = Event.select().where(Event.target_id == person_id).order_by(Event.id)
    return [(one.action, one.actor_name, one.changes) for one in found]


# --- whose word is believed -------------------------------------------------------------------


def test_the_way_there_asks_for_a_code_with_proof_of_who_asked(app: Flask, issuer: Issuer) -> None:
    url, begun = sso.begin(ip="203.0.113.9")
    assert url.startswith(f"{issuer.url}/authorize?response_type=code&client_id=latchkey&")
    assert "redirect_uri=http%3A%2F%2F127.0.0.1%3A8000%2Flogin%2Fsso%2Fcallback" in url
    assert "scope=openid+email+profile" in url
    assert "code_challenge_method=S256" in url
    assert f"state={begun.state}" in url and f"nonce={begun.nonce}" in url
    assert begun.verifier not in url and "prompt=" not in url


HOSTILE: dict[str, dict[str, Any]] = {
    "another nonce": {"says": {"nonce": "another"}},
    "no nonce": {"says": {"nonce": None}},
    "for somebody else": {"says": {"aud": "another-client"}},
    "for somebody else, by us": {"says": {"aud": "another-client", "azp": CLIENT_ID}},
    "for us among others, by others": {"says": {"aud": [CLIENT_ID, "b"], "azp": "b"}},
    "for us among others, by nobody": {"says": {"aud": [CLIENT_ID, "b"]}},
    "for nobody": {"says": {"aud": None}},
    "another issuer": {"says": {"iss": "https://login.example.com"}},
    "expired": {"says": {"exp": 1_000_000_000}},
    "of no end": {"says": {"exp": None}},
    "of the future": {"says": {"iat": 4_000_000_000, "exp": 4_000_000_300}},
    "nobody": {"says": {"sub": None}},
    "an empty id": {"says": {"sub": ""}},
    "an id of zeros": {"says": {"sub": "a\0b"}},
    "an unknown key": {"header": {"kid": "second"}},
    "somebody else's key": {"signs_with": RSAKey.generate_key(2048)},
    "no signature": {"header": {"alg": "none"}, "secret": b""},
    "an access token of another sign-in": {"says": {"at_hash": "x" * 22}},
}


def test_a_word_that_does_not_hold(issuer: Issuer, ada: Actor) -> None:
    honest = dict(vars(issuer))
    for case, changes in HOSTILE.items():
        vars(issuer).update({**honest, **changes})
        begun, answer = issuer.visit()
        try:
            sso.sign_in(begun, answer, ip=None)
        except Forbidden as error:
            assert "could not be proven, so nobody was signed in" in error.message, case
        else:
            pytest.fail(f"{case}: believed")
    assert not Identity.select().exists()
    vars(issuer).update(honest)
    assert come_in(issuer).id == ada.id


def test_a_public_key_is_no_secret(issuer: Issuer, key: RSAKey, ada: Actor) -> None:
    """HS256 with the RSA key that everybody can read as its secret (RFC 8725, 2.1)."""
    issuer.secret = key.as_pem(private=False)
    issuer.header = {"alg": "HS256"}
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven") as caught:
        sso.sign_in(begun, answer, ip=None)
    assert "HS256" in repr(caught.value.__cause__)


def test_a_changed_word(issuer: Issuer, ada: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Issuer.id_token

    def changed(self: Issuer) -> str:
        head, _, tail = made(self).split(".")
        self.says = {"sub": "root"}
        return f"{head}.{made(self).split('.')[1]}.{tail}"

    monkeypatch.setattr(Issuer, "id_token", changed)
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven"):
        sso.sign_in(begun, answer, ip=None)


def test_a_word_that_holds_for_a_clock_that_is_a_little_off(issuer: Issuer, ada: Actor) -> None:
    from console import clock

    assert come_in(issuer, exp=clock.now() // 1000 - 30).id == ada.id


def test_another_state_than_this_browsers(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    issuer.asked.clear()
    for state in ("", "another", "é"):
        with pytest.raises(Refused, match="Begin again") as caught:
            sso.sign_in(begun, {**answer, "state": state}, ip=None)
        assert caught.value.status == 400
    with pytest.raises(Refused, match="Begin again"):
        sso.sign_in(None, answer, ip=None)
    assert issuer.asked == []


def test_a_way_back_is_taken_once(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    sso.sign_in(begun, answer, ip=None)
    with pytest.raises(Refused, match="complete already"):
        sso.sign_in(begun, answer, ip=None)


def test_a_way_back_is_taken_once_by_several_at_once(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    outcomes = at_once(4, lambda number: sso.sign_in(begun, answer, ip=None))
    assert sum(isinstance(one, Refused) for one in outcomes) == 3


def test_a_way_back_after_ten_minutes(issuer: Issuer, clock: Clock, ada: Actor) -> None:
    begun, answer = issuer.visit()
    clock.move_ms(10 * 60 * 1000 - 1)
    sso.sign_in(begun, answer, ip=None)
    begun, answer = issuer.visit()
    clock.move("10m")
    with pytest.raises(Refused, match="more than 10 minutes ago"):
        sso.sign_in(begun, answer, ip=None)


def test_a_code_that_another_browser_asked_for(issuer: Issuer, ada: Actor) -> None:
    """The provider compares the verifier (RFC 7636); a stolen code is of no use elsewhere."""
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven"):
        sso.sign_in(replace(begun, verifier="x" * 43), answer, ip=None)


def test_what_the_provider_refuses(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    refused = {**answer, "error": "access_denied", "error_description": "<b>"}
    with pytest.raises(Forbidden, match="The company did not let you in") as caught:
        sso.sign_in(begun, refused, ip=None)
    assert "<b>" not in caught.value.message
    begun, answer = issuer.visit()
    with pytest.raises(Unavailable, match="does not answer as it should"):
        sso.sign_in(begun, {**answer, "error": "temporarily_unavailable"}, ip=None)
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven"):
        sso.sign_in(begun, {"state": answer["state"]}, ip=None)


def test_a_client_secret_that_the_provider_does_not_take(issuer: Issuer, ada: Actor) -> None:
    issuer.refuses = {"error": "invalid_client"}
    begun, answer = issuer.visit()
    with pytest.raises(Unavailable, match="does not know Latchkey under its client id and secret"):
        sso.sign_in(begun, answer, ip=None)


def test_an_answer_of_another_provider(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven"):
        sso.sign_in(begun, {**answer, "iss": "https://evil.example.com"}, ip=None)
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    sso.oidc.forget()
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden, match="could not be proven"):
        sso.sign_in(begun, answer, ip=None)
    begun, answer = issuer.visit()
    sso.sign_in(begun, {**answer, "iss": issuer.url}, ip=None)


def test_a_provider_that_is_not_there(issuer: Issuer, ada: Actor) -> None:
    for wrong in (
        {"issuer": "https://login.example.com"},
        {"authorization_endpoint": "ftp://127.0.0.1/"},
        {"userinfo_endpoint": "javascript:0"},
        {"jwks_uri": None},
        {"token_endpoint": f"http://127.0.0.1:{free_port()}/"},
    ):
        issuer.metadata = wrong
        sso.oidc.forget()
        with pytest.raises(Unavailable, match="The company does not answer as it should") as caught:
            begun, answer = issuer.visit()
            sso.sign_in(begun, answer, ip=None)
        assert caught.value.status == 503


def test_the_doctor_asks_the_provider(
    issuer: Issuer, config: Config, boss: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "sqlite_version", lambda: (3, 53, 0))
    assert doctor.examine(config) == []
    wrong = f"{issuer.url}/"
    assert doctor.examine(replace(config, oidc_issuer=wrong)) == [
        f"LATCHKEY_OIDC_ISSUER={wrong!r} cannot be used: it calls itself {issuer.url!r}, not "
        f"{wrong!r}; it must be reachable from here, and be what the provider calls itself, to the "
        "last slash"
    ]
    gone = doctor.examine(replace(config, oidc_issuer=f"http://127.0.0.1:{free_port()}"))
    assert len(gone) == 1 and "Connection refused" in gone[0]


def test_what_the_provider_says_of_itself_is_asked_for_once(
    issuer: Issuer, clock: Clock, ada: Actor
) -> None:
    come_in(issuer)
    come_in(issuer)
    assert issuer.asked.count("/.well-known/openid-configuration") == 1
    assert issuer.asked.count("/keys") == 2  # a new key holds from its first use


# --- who it is --------------------------------------------------------------------------------


def test_a_known_person_is_found_by_a_verified_address(issuer: Issuer, ada: Actor) -> None:
    person = come_in(issuer, groups=["support"], email="Ada@Example.com")
    assert person.id == ada.id
    assert ("person.sso_linked", "single sign-on") in [one[:2] for one in events(person.id)]
    assert come_in(issuer, email="another@example.com", groups=["support"]).id == ada.id
    session = Session.select().order_by(Session.created_at.desc()).first()
    assert session.method == "single sign-on"


def test_an_address_that_is_not_verified_finds_nobody(issuer: Issuer, ada: Actor) -> None:
    for verified in (None, False, "true", 1, "false"):
        with pytest.raises(Forbidden, match="does not vouch for your e-mail address"):
            come_in(issuer, email_verified=verified)
    for email in (None, "", "ada", "ada@example.com\nbcc: x", 7):
        with pytest.raises(Forbidden, match="does not vouch for your e-mail address"):
            come_in(issuer, email=email)
    assert not Identity.select().exists()


def test_an_operator_may_trust_what_a_provider_does_not_call_verified(
    issuer: Issuer, config: Config, ada: Actor
) -> None:
    sso.use(replace(config, oidc_trust_email=True))
    with pytest.raises(Forbidden, match="does not vouch"):
        come_in(issuer, email_verified=False)
    issuer.user_info = {"sub": "248289761001", "email_verified": False}
    sso.oidc.forget()
    with pytest.raises(Forbidden, match="does not vouch"):
        come_in(issuer, email_verified=None)
    issuer.user_info = {"sub": "248289761001"}
    assert come_in(issuer, email_verified=None).id == ada.id


def test_what_the_token_leaves_out_is_asked_for(issuer: Issuer, ada: Actor) -> None:
    issuer.user_info = {"sub": "248289761001", "email": ADDRESS, "email_verified": True,
                        "groups": ["payments"]}  # fmt: skip
    person = come_in(issuer, email=None, email_verified=None)
    assert (person.id, roles(person)) == (ada.id, {"shop": "admin"})


def test_what_is_said_of_somebody_else_counts_for_nobody(issuer: Issuer, ada: Actor) -> None:
    issuer.user_info = {"sub": "another", "email": ADDRESS, "email_verified": True}
    with pytest.raises(Forbidden, match="could not be proven"):
        come_in(issuer, email=None)


def test_an_id_that_has_the_address_of_somebody_before_is_another_person(
    issuer: Issuer, ada: Actor
) -> None:
    come_in(issuer)
    with pytest.raises(Forbidden, match="is linked with another account of the company"):
        come_in(issuer, sub="248289761002")


def test_an_owner_with_a_lock_of_their_own_is_not_taken_over(
    issuer: Issuer, boss: Actor, project: Project
) -> None:
    with pytest.raises(Forbidden, match="is an owner with a password here"):
        come_in(issuer, email=boss.name, groups=["platform"])
    assert not Identity.select().exists()
    Person.update(password_hash=None).where(Person.id == boss.id).execute()
    add_person("other@example.com", is_owner=True)
    assert come_in(issuer, email=boss.name, groups=["platform"]).id == boss.id


def test_an_owner_links_their_account_by_hand(issuer: Issuer, boss: Actor) -> None:
    issuer.says = {"email": boss.name, "groups": ["platform"]}
    assert sso.linked_since(by=boss) is None
    begun, answer = issuer.visit()
    sso.link(begun, answer, by=boss)
    assert sso.linked_since(by=boss) is not None
    assert come_in(issuer, email=boss.name).is_owner
    # Instead of the one before.
    issuer.says = {"email": boss.name, "sub": "new"}
    begun, answer = issuer.visit()
    sso.link(begun, answer, by=boss)
    assert [one.subject for one in Identity.select()] == ["new"]


def test_nobody_is_linked_with_another(issuer: Issuer, boss: Actor, ada: Actor) -> None:
    begun, answer = issuer.visit()
    with pytest.raises(Conflict, match="knows you as ada@example.com, and Latchkey as boss"):
        sso.link(begun, answer, by=boss)
    come_in(issuer)
    begun, answer = issuer.visit()
    Person.update(email="old@example.com").where(Person.id == ada.id).execute()
    Person.update(email=ADDRESS).where(Person.id == boss.id).execute()
    with pytest.raises(Conflict, match="linked with somebody else's"):
        sso.link(begun, answer, by=boss)
    with pytest.raises(NotFresh):
        sso.link(begun, answer, by=replace(boss, fresh_until=0))


def test_whoever_is_disabled_stays_out(issuer: Issuer, ada: Actor, operator: Actor) -> None:
    come_in(issuer)
    people.edit(ada.id or "", {"disabled": True}, by=operator)
    with pytest.raises(Forbidden, match="is disabled"):
        come_in(issuer, groups=["platform"])
    assert not Person.get_by_id(ada.id).is_owner
    assert not Session.select().where(Session.person == ada.id).exists()


def test_whom_the_mapping_gives_something_becomes_a_person(issuer: Issuer, boss: Actor) -> None:
    person = come_in(issuer, email="New@example.com", name="Núria", groups=["support"])
    assert (person.email, person.name, roles(person)) == (
        "new@example.com", "Núria", {"shop": "viewer"},
    )  # fmt: skip
    assert person.password_hash is None
    assert [one[0] for one in events(person.id)] == [
        "person.created", "person.sso_linked", "member.added", "person.signed_in",
    ]  # fmt: skip
    created = Event.get(Event.action == "person.created")
    assert (created.actor_name, created.ip, created.request_id) == (
        "single sign-on", "192.0.2.7", "req_1",
    )  # fmt: skip


def test_whom_it_gives_nothing_is_told_to_ask(issuer: Issuer, boss: Actor) -> None:
    for groups in (None, [], ["else"], "gone", {"support": 1}, [["support"], 7]):
        with pytest.raises(Forbidden, match="Ask an owner to add you"):
            come_in(issuer, email="new@example.com", groups=groups)
    assert not Person.get_or_none(Person.email == "new@example.com")


def test_nobody_comes_before_the_first_owner(issuer: Issuer, app: Flask) -> None:
    with pytest.raises(Forbidden, match="Nobody has set up Latchkey yet"):
        come_in(issuer, groups=["platform"])
    assert not people.anybody_yet()


def test_an_invitation_ends_once_they_have_come_in(
    issuer: Issuer, boss: Actor, operator: Actor
) -> None:
    person, sent = people.create({"email": ADDRESS}, by=operator)
    assert sent is not None
    come_in(issuer)
    assert links.find(sent.url.partition("token=")[2], links.INVITATION) is None


def test_who_joined_in_anothers_name_is_out_once_the_address_is_proven(
    issuer: Issuer, boss: Actor
) -> None:
    """An admin invites the chief, joins with the link that was shown, and waits for them to come
    with all rights."""
    visitor, admin = replace(boss, id=None), add_person("mallory@example.com", shop="admin")
    _, sent = members.add("shop", {"email": ADDRESS, "role": "viewer"}, by=admin)
    assert sent is not None
    person = invitations.join(token_of(sent), {"password": PASSWORD}, by=visitor)
    add_second_factor(sessions.actor_of(person, replace(visitor, fresh_until=boss.fresh_until)))
    Passkey.create(
        id="theirs", person=person, name="Phone", public_key=b"x", sign_count=0, created_at=1
    )
    reset = token_of(invitations.reset(person.id, by=boss))
    session, _ = invitations.sign_in(invitations.login_link(ADDRESS, by=visitor).token, ip=None)
    assert come_in(issuer, groups=["platform"]).id == person.id
    with pytest.raises(Unauthenticated, match="Email or password is wrong"):
        signin.with_password(ADDRESS, PASSWORD, ip=None)
    with pytest.raises(Forbidden):
        invitations.who_resets(reset)
    assert sessions.by_session(session) is None
    assert not Link.select().where(Link.person_id == person.id).exists()
    assert not Passkey.select().exists() and not RecoveryCode.select().exists()
    person = Person.get_by_id(person.id)
    assert (person.password_hash, person.totp_secret, person.totp_step) == (None, None, None)
    [told] = [one[2] for one in events(person.id) if one[0] == "person.sso_linked"]
    assert told == {
        "issuer": [None, issuer.url],
        "subject": [None, "248289761001"],
        "password": ["set", None],
        "second_factor": ["on", "off"],
        "passkeys": [1, 0],
    }


def test_whom_it_does_not_let_in_loses_nothing(issuer: Issuer, ada: Actor) -> None:
    Person.update(disabled_at=1).where(Person.id == ada.id).execute()
    with pytest.raises(Forbidden, match="is disabled"):
        come_in(issuer)
    assert Person.get_by_id(ada.id).password_hash is not None


def test_who_came_in_this_way_gets_a_password_again(
    issuer: Issuer, ada: Actor, boss: Actor
) -> None:
    begun, answer = issuer.visit()
    token, person = sso.sign_in(begun, answer, ip=None)
    account.change_password(token, {"password": "another battery staple"}, by=ada)
    come_in(issuer)
    signin.with_password(ADDRESS, "another battery staple", ip=None)
    Person.update(password_hash=None).where(Person.id == ada.id).execute()
    invitation = token_of(invitations.invite(person.id, by=boss))
    invitations.join(invitation, {"password": PASSWORD}, by=replace(boss, id=None))
    signin.with_password(ADDRESS, PASSWORD, ip=None)


def test_who_links_the_two_by_hand_keeps_their_password(issuer: Issuer, ada: Actor) -> None:
    begun, answer = issuer.visit()
    sso.link(begun, answer, by=ada)
    come_in(issuer)
    signin.with_password(ADDRESS, PASSWORD, ip=None)


# --- what it gives ----------------------------------------------------------------------------


def test_roles_follow_the_claim_at_every_sign_in(
    issuer: Issuer, ada: Actor, other_project: Project
) -> None:
    Membership.create(person=ada.id, project=other_project, role="member")
    for groups, role in (
        (["support"], "viewer"),
        (["support", "payments"], "admin"),
        ("payments", "admin"),
        ([], None),
        (["support"], "viewer"),
    ):
        person = come_in(issuer, groups=groups)
        # No value names the other project: what was given there by hand stays.
        assert roles(person) == {"other": "member", **({"shop": role} if role else {})}
    told = [one[2]["role"] for one in events(person.id) if one[0].startswith("member.")]
    assert told == [["member", "viewer"], ["viewer", "admin"], ["admin", None], [None, "viewer"]]


def test_a_change_of_roles_ends_the_sessions_before(issuer: Issuer, ada: Actor) -> None:
    come_in(issuer, groups=["support"])
    before = {one.id for one in Session.select().where(Session.person == ada.id)}
    come_in(issuer, groups=["support"])
    after = {one.id for one in Session.select().where(Session.person == ada.id)}
    assert before < after
    come_in(issuer, groups=["payments"])
    now = {one.id for one in Session.select().where(Session.person == ada.id)}
    assert len(now) == 1 and not now & after
    come_in(issuer, groups=["payments", "platform"])
    assert Session.get(Session.person == ada.id).id not in now
    assert Session.select().where(Session.person == ada.id).count() == 1


def test_without_a_mapping_roles_are_ours(issuer: Issuer, config: Config, ada: Actor) -> None:
    sso.use(replace(config, oidc_role_claim="", oidc_roles=()))
    person = come_in(issuer, groups=["platform"])
    assert (person.is_owner, roles(person)) == (False, {"shop": "member"})


def test_an_owner_by_the_claim_is_one_no_longer_without_it(issuer: Issuer, ada: Actor) -> None:
    assert come_in(issuer, groups=["platform"]).is_owner
    assert not come_in(issuer, groups=["support"]).is_owner
    told = [one[2]["owner"] for one in events(ada.id or "") if one[0] == "person.edited"]
    assert told == [[False, True], [True, False]]


def test_links_that_an_owner_by_the_claim_made_end_with_it(
    issuer: Issuer, ada: Actor, boss: Actor
) -> None:
    come_in(issuer, groups=["platform"])
    token = token_of(invitations.reset(boss.id or "", by=replace(ada, is_owner=True)))
    come_in(issuer, groups=["platform"])
    assert invitations.who_resets(token).email == boss.name
    come_in(issuer)
    with pytest.raises(Forbidden):
        invitations.who_resets(token)


def test_an_owner_by_hand_stays_one(issuer: Issuer, boss: Actor) -> None:
    add_person("other@example.com", is_owner=True)
    Person.update(password_hash=None).where(Person.id == boss.id).execute()
    assert come_in(issuer, email=boss.name, groups=["platform"]).is_owner
    assert come_in(issuer, email=boss.name, groups=[]).is_owner


def test_the_last_owner_who_can_sign_in_stays_one(issuer: Issuer, ada: Actor, boss: Actor) -> None:
    come_in(issuer, groups=["platform"])
    Person.update(disabled_at=1).where(Person.id == boss.id).execute()
    assert come_in(issuer, groups=[]).is_owner
    Person.update(disabled_at=None).where(Person.id == boss.id).execute()
    assert not come_in(issuer, groups=[]).is_owner


def test_groups_that_are_kept_elsewhere_take_nothing_away(issuer: Issuer, ada: Actor) -> None:
    """Microsoft names no groups where there are too many (OpenID Connect Core 1.0, 5.6.2)."""
    come_in(issuer, groups=["payments"])
    with pytest.raises(Forbidden, match="too many groups"):
        come_in(issuer, _claim_names={"groups": "src1"})
    assert roles(Person.get_by_id(ada.id)) == {"shop": "admin"}


def test_a_project_that_is_not_there_is_said_in_the_log(
    issuer: Issuer, ada: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    come_in(issuer, groups=["support"])
    assert "names the project gone, and there is none" in caplog.text


# --- how long, and how fresh ------------------------------------------------------------------


def test_a_session_lasts_a_day(issuer: Issuer, clock: Clock, ada: Actor) -> None:
    come_in(issuer)
    session = Session.get(Session.method == "single sign-on")
    assert session.expires_at == clock.now() + DAY


def test_a_sign_in_is_as_fresh_as_the_provider_says(
    issuer: Issuer, clock: Clock, ada: Actor
) -> None:
    for said, at in ((None, 0), (-3600, -3_600_000), (60, 0)):
        Session.delete().execute()
        come_in(issuer, auth_time=None if said is None else clock.now() // 1000 + said)
        assert Session.get().authenticated_at == clock.now() + at


def ask_again(issuer: Issuer, **says: Any) -> tuple[Any, dict[str, str]]:
    issuer.says = says
    return issuer.visit(asks_again=True)


def test_confirming_asks_the_provider_anew(issuer: Issuer, clock: Clock, ada: Actor) -> None:
    begun, answer = issuer.visit()
    token, _ = sso.sign_in(begun, answer, ip=None)
    clock.move("1h")
    url, _ = sso.begin(ip="203.0.113.9", asks_again=True)
    assert "prompt=login" in url and "max_age=60" in url  # and so auth_time (Core 1.0, 3.1.2.1)
    begun, answer = ask_again(issuer, auth_time=clock.now() // 1000)
    new = sso.confirm(begun, answer, token, by=ada)
    assert new != token and sessions.by_session(token) is None
    assert Session.get(Session.id == digest(new)).authenticated_at == clock.now()


def test_a_provider_that_did_not_ask_confirms_nothing(
    issuer: Issuer, clock: Clock, ada: Actor
) -> None:
    begun, answer = issuer.visit()
    token, _ = sso.sign_in(begun, answer, ip=None)
    for said in (None, -3600, -61, "now"):
        at = clock.now() // 1000 + said if isinstance(said, int) else said
        begun, answer = ask_again(issuer, auth_time=at)
        with pytest.raises(Forbidden, match="could not be proven"):
            sso.confirm(begun, answer, token, by=ada)
    assert sessions.by_session(token) is not None


def test_only_the_same_person_confirms(
    issuer: Issuer, clock: Clock, ada: Actor, boss: Actor
) -> None:
    begun, answer = issuer.visit()
    token, _ = sso.sign_in(begun, answer, ip=None)
    fresh = clock.now() // 1000
    begun, answer = ask_again(issuer, auth_time=fresh)
    with pytest.raises(Forbidden, match="vouched for somebody else"):
        sso.confirm(begun, answer, token, by=boss)
    begun, answer = ask_again(issuer, auth_time=fresh, sub="unknown")
    with pytest.raises(Forbidden, match="not linked"):
        sso.confirm(begun, answer, token, by=ada)
    # A sign-in is no answer to the question.
    issuer.says = {"auth_time": fresh}
    begun, answer = issuer.visit()
    with pytest.raises(Forbidden):
        sso.confirm(begun, answer, token, by=ada)
    begun, answer = issuer.visit(asks_again=True)
    sso.confirm(begun, answer, token, by=ada)


# --- in a browser -----------------------------------------------------------------------------


def go_there(browser: FlaskClient, issuer: Issuer, path: str = "/login/sso") -> str:
    """Follows to the provider; the address that it sends back to."""
    answer = browser.get(path)
    assert answer.status_code == 303, answer.text
    query = dict(part.split("=", 1) for part in answer.location.partition("?")[2].split("&"))
    issuer.challenge, issuer.nonce = query["code_challenge"], query["nonce"]
    return f"/login/sso/callback?code=once&state={query['state']}"


def heading(answer: TestResponse) -> str:
    return answer.text.partition("<h1>")[2].partition("</h1>")[0].rpartition(">")[2].strip()


def test_signing_in_goes_on_to_where_they_were(
    client: FlaskClient, issuer: Issuer, ada: Actor
) -> None:
    assert "Sign in with the company" in client.get("/login?next=/account").text
    back = go_there(client, issuer, "/login/sso?next=/account")
    answer = client.get(back)
    assert (answer.status_code, answer.location) == (303, "/account")
    assert "Linked" in client.get("/account").text
    # Back once more, as the browser's history would have it.
    assert client.get(back).location == "/"


def test_a_sign_in_begun_elsewhere_ends_nowhere(
    app: Flask, client: FlaskClient, issuer: Issuer, ada: Actor
) -> None:
    """What somebody else began cannot be ended in this browser, so nobody is signed in as another
    without knowing (RFC 6749, 10.12)."""
    back = go_there(app.test_client(), issuer)
    answer = client.get(back)
    assert answer.status_code == 400
    assert heading(answer) == "You are not signed in"
    assert answer.headers["X-Request-Id"] in answer.text
    client.get(go_there(client, issuer).replace("state=", "state=x"))
    assert client.get("/account").status_code == 303


def test_the_way_back_leads_nowhere_else(client: FlaskClient, issuer: Issuer, ada: Actor) -> None:
    back = go_there(client, issuer, "/login/sso?next=//evil.example.com")
    assert client.get(back).location == "/"


def test_whoever_is_let_in_by_nobody_reads_why(
    client: FlaskClient, issuer: Issuer, boss: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.says = {"email": "new@example.com"}
    answer = client.get(go_there(client, issuer, "/login/sso?next=/account"))
    assert answer.status_code == 403
    assert "Nobody has added new@example.com to Latchkey yet" in answer.text
    assert 'href="/login/sso?next=/account"' in answer.text
    assert 'href="/login?next=/account"' in answer.text
    issuer.says = {"nonce": "another"}
    answer = client.get(go_there(client, issuer))
    assert answer.headers["X-Request-Id"] in answer.text
    assert "InvalidClaimError" in caplog.text and "InvalidClaimError" not in answer.text
    back = go_there(client, issuer)
    issuer.says = {"email": "new@example.com"}
    assert client.get(back).status_code == 403
    # What failed is not tried again with the same way back.
    assert client.get(back).status_code == 400


def test_without_the_provider_a_password_still_opens(
    app: Flask, client: FlaskClient, config: Config, ada: Actor
) -> None:
    sso.use(replace(config, oidc_issuer=f"http://127.0.0.1:{free_port()}"))
    answer = client.get("/login/sso")
    assert answer.status_code == 503
    assert "The company does not answer as it should" in answer.text
    sign_in(app, ada)


def test_without_single_sign_on_there_is_no_trace_of_it(
    app: Flask, client: FlaskClient, config: Config, ada: Actor
) -> None:
    sso.use(replace(config, oidc_issuer=""))
    assert client.get("/login/sso").status_code == 404
    assert client.get("/login/sso/callback?state=x").status_code == 404
    assert "sso" not in client.get("/login").text
    assert "Single sign-on" not in sign_in(app, ada).get("/account").text
    with pytest.raises(Unknown):
        sso.begin(ip="203.0.113.9")


def test_confirming_and_linking_in_a_browser(
    app: Flask, issuer: Issuer, clock: Clock, boss: Actor
) -> None:
    browser = sign_in(app, boss)
    issuer.says = {"email": boss.name}
    assert browser.get("/login/sso").location == "/"
    answer = browser.get(go_there(browser, issuer, "/login/sso?link=1"))
    assert (answer.status_code, answer.location) == (303, "/account")
    clock.move("1h")
    assert "Confirm it is you" in browser.get("/login/sso?link=1").text
    page = browser.get("/account/second-factor").text
    assert "Confirm with the company" in page
    issuer.says = {"email": boss.name, "auth_time": clock.now() // 1000}
    answer = browser.get(go_there(browser, issuer, "/login/sso?confirm=1&next=/account"))
    assert (answer.status_code, answer.location) == (303, "/account")
    assert "Confirm it is you" not in browser.get("/account/second-factor").text


def test_a_second_factor_is_the_providers_then(
    client: FlaskClient, issuer: Issuer, ada: Actor
) -> None:
    come_in(issuer)
    Person.update(totp_secret=b"sealed").where(Person.id == ada.id).execute()
    assert second_factor.is_on(Person.get_by_id(ada.id))
    assert client.get(go_there(client, issuer)).status_code == 303
    assert client.get("/account").status_code == 200


def test_who_is_signed_out_confirms_nothing(client: FlaskClient, issuer: Issuer) -> None:
    for path in ("/login/sso?confirm=1", "/login/sso?link=1"):
        assert client.get(path).location == "/login"


# --- owners ----------------------------------------------------------------------------------


def test_who_is_an_owner_by_the_claim_stays_one_by_it_under_another_id(
    issuer: Issuer, ada: Actor, boss: Actor
) -> None:
    person = come_in(issuer, groups=["platform"])
    issuer.says = {"sub": "another", "groups": ["platform"]}
    begun, answer = issuer.visit()
    sso.link(begun, answer, by=replace(boss, id=person.id, name=person.email))
    assert not come_in(issuer, sub="another", groups=[]).is_owner


def test_there_is_always_an_owner_with_a_password(issuer: Issuer, ada: Actor, boss: Actor) -> None:
    """Whoever else comes by single sign-on: the provider may be gone tomorrow."""
    come_in(issuer, groups=["platform"])
    for change in ({"owner": False}, {"disabled": True}):
        with pytest.raises(Conflict, match="last owner who can sign in with a password"):
            people.edit(boss.id or "", change, by=boss)
    with pytest.raises(Conflict, match="last owner who can sign in with a password"):
        people.delete(boss.id or "", by=replace(ada, is_owner=True))
    people.edit(ada.id or "", {"owner": False}, by=boss)
    assert [one.email for one in Person.select().where(Person.is_owner)] == [boss.name]


# --- a provider that is slow, and who asks too often ------------------------------------------


def test_a_provider_that_failed_is_not_asked_again_at_once(
    issuer: Issuer, clock: Clock, ada: Actor
) -> None:
    issuer.metadata = {"jwks_uri": None}
    for _ in range(3):
        with pytest.raises(Unavailable):
            sso.begin(ip=None)
    assert len(issuer.asked) == 1
    issuer.metadata = {}
    clock.move_ms(5_000)
    sso.begin(ip=None)


def test_one_that_hangs_holds_few(issuer: Issuer, ada: Actor) -> None:
    held = [oidc._places.acquire(blocking=False) for _ in range(6)]
    try:
        assert held == [True] * 6
        with pytest.raises(Unavailable, match="Too many people sign in just now"):
            sso.begin(ip=None)
    finally:
        for _ in held:
            oidc._places.release()
    assert issuer.asked == []


def test_a_network_begins_so_many_and_no_more(
    issuer: Issuer, clock: Clock, client: FlaskClient
) -> None:
    for _ in range(100):
        assert client.get("/login/sso").status_code == 303
        clock.move_ms(1)
    refused = client.get("/login/sso")
    assert refused.status_code == 429 and refused.headers["Retry-After"] == "300"
    assert client.get("/login").status_code == 200


def test_a_way_back_is_redeemed_once_whatever_comes_of_it(issuer: Issuer, ada: Actor) -> None:
    issuer.refuses = {"error": "invalid_grant"}
    begun, answer = issuer.visit()
    for _ in range(5):
        with pytest.raises(Refused):
            sso.sign_in(begun, answer, ip=None)
    assert issuer.asked.count("/token") == 1


@pytest.mark.parametrize("purpose", ["confirm", "link"])
def test_the_other_ways_back_are_taken_once_too(issuer: Issuer, ada: Actor, purpose: str) -> None:
    begun, answer = issuer.visit()
    token, _ = sso.sign_in(begun, answer, ip=None)
    begun, answer = ask_again(issuer, auth_time=console_clock.now() // 1000)
    ways = {"confirm": lambda: sso.confirm(begun, answer, token, by=ada),
            "link": lambda: sso.link(begun, answer, by=ada)}  # fmt: skip
    ways[purpose]()
    with pytest.raises(Refused, match="complete already"):
        ways[purpose]()


def test_a_key_that_cannot_be_read_keeps_nobody_out(issuer: Issuer, ada: Actor) -> None:
    issuer.more_keys = [
        {"kty": "OKP", "crv": "Unknown", "x": "AA"}, {"kty": "RSA", "e": "AQAB"},
        {"kty": "EC", "crv": "BP-256", "x": "AA", "y": "AA"}, {"kty": "oct", "k": "AA"}, "nonsense",
    ]  # fmt: skip
    assert come_in(issuer).email == ada.name


def test_without_a_time_of_proof_who_can_show_it_here_does(
    issuer: Issuer, clock: Clock, ada: Actor
) -> None:
    begun, answer = issuer.visit()
    sso.link(begun, answer, by=ada)  # keeps the password
    Session.delete().execute()
    come_in(issuer, auth_time=None)
    assert Session.get().authenticated_at == clock.now() - sessions.FRESH


def test_strangers_in_the_same_network_keep_nobody_out_of_a_known_browser(
    issuer: Issuer, ada: Actor
) -> None:
    for number in range(40):
        with suppress(Unauthenticated, Limited):
            signin.with_password(f"{number}@example.com", "wrong", ip="192.0.2.7")
    begun, answer = issuer.visit()
    with pytest.raises(Limited):
        sso.sign_in(begun, answer, ip="192.0.2.8")
    begun, answer = issuer.visit()
    known = f"{ada.id}.mark"
    assert sso.sign_in(begun, answer, ip="192.0.2.8", browser=known)[1].email == ada.name
