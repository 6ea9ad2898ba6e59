"""One-time links: invitation, new password, sign-in for who is locked out. Used once, ended in time
and by every change that should end them; mailed, or shown where mail fails."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from console import clock as console_clock
from console import (
    first_owner,
    invitations,
    letters,
    links,
    mail,
    members,
    people,
    sessions,
    signin,
)
from console.actor import Actor, command_line
from console.errors import Conflict, Forbidden, Invalid, Limited, NotFresh, Unauthenticated, Unknown
from console.models import Event, Link, Membership, Person, Project, Session
from tests.conftest import PASSWORD, Clock, add_person, at_once, sign_in, token_of
from tests.mailbox import Mailbox

VISITOR = Actor(kind="person", id=None, name="sign-in page", ip="192.0.2.7", request_id="req_1")
NEW = "another battery staple"
GRACE = "grace@example.com"


def invite(by: Actor, **fields: Any) -> tuple[Person, str]:
    """An invited person, and the token of the link."""
    person, sent = people.create({"email": GRACE, **fields}, by=by)
    assert sent is not None
    return person, token_of(sent)


def reset(person: Actor, by: Actor) -> str:
    return token_of(invitations.reset(person.id or "", by=by))


def login_link(person: Actor) -> str:
    return invitations.login_link(person.name, by=VISITOR).token


def last_event(action: str) -> Event:
    return Event.select().where(Event.action == action).order_by(Event.id.desc()).get()


def refused(*calls: Callable[[], Any], words: str = "does not hold") -> None:
    for call in calls:
        with pytest.raises(Forbidden, match=words):
            call()


@pytest.fixture
def mailbox(app: Flask) -> Iterator[Mailbox]:
    """Mail is set up, and arrives here."""
    with Mailbox() as mailbox:
        mail.use(mailbox.url, "Latchkey <keys@shop.example>")
        yield mailbox
        mail.settle()
    mail.use("", "")


def link_in(mail_text: str) -> str:
    """The token of the one link in a mail."""
    [line] = [line for line in mail_text.splitlines() if "token=" in line]
    return line.partition("?token=")[2]


# --- an invitation ----------------------------------------------------------------------------


def test_an_invited_person_chooses_a_password_and_signs_in(owner: Actor) -> None:
    person, token = invite(owner)
    invitations.join(token, {"name": "Grace Hopper", "password": PASSWORD}, by=VISITOR)
    assert signin.with_password("grace@example.com", PASSWORD, ip=None)[1].name == "Grace Hopper"
    event = last_event("person.joined")
    assert (event.actor_id, event.target_id, event.ip) == (person.id, person.id, VISITOR.ip)
    assert event.changes == {"name": ["grace", "Grace Hopper"], "password": [None, "set"]}


def test_an_invitation_works_once(owner: Actor) -> None:
    _, token = invite(owner)
    invitations.join(token, {"password": PASSWORD}, by=VISITOR)
    with pytest.raises(Forbidden, match="Ask an owner for a new one"):
        invitations.join(token, {"password": "another password"}, by=VISITOR)
    assert not Link.select().exists()
    signin.with_password("grace@example.com", PASSWORD, ip=None)


def test_of_ten_that_accept_an_invitation_at_once_one_joins(app: Flask, operator: Actor) -> None:
    _, token = invite(operator)

    def attempt(number: int) -> str:
        invitations.join(token, {"password": f"{PASSWORD} {number}"}, by=VISITOR)
        return f"{PASSWORD} {number}"

    answers = sorted(getattr(answer, "code", answer) for answer in at_once(10, attempt))
    assert answers[:9] == ["FORBIDDEN"] * 9
    signin.with_password("grace@example.com", str(answers[9]), ip=None)
    assert Event.select().where(Event.action == "person.joined").count() == 1


def test_who_joins_while_their_network_has_to_wait_is_told_that_they_have_joined(
    client: FlaskClient, owner: Actor
) -> None:
    _, token = invite(owner)
    for number in range(40):
        fields = {"email": f"x{number}@example.com", "password": "wrong"}
        client.post("/login", data=fields)
    answer = client.post("/invitation", data={"token": token, "password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert "You have joined. Too many wrong attempts" in client.get("/login").text
    assert not people.as_dict(Person.get(Person.email == "grace@example.com"))["invited"]


def test_an_invitation_ends_after_a_week(owner: Actor, clock: Clock) -> None:
    person, token = invite(owner)
    clock.move("7d")
    clock.move_ms(-1)
    assert invitations.invited(token) == person
    clock.move_ms(1)
    for refused in (
        lambda: invitations.invited(token),
        lambda: invitations.join(token, {"password": PASSWORD}, by=VISITOR),
    ):
        with pytest.raises(Forbidden, match="more than 7 days old"):
            refused()
    invite(replace(owner, fresh_until=None), email="edith@example.com")
    assert Link.select().count() == 1


@pytest.mark.parametrize("token", ["", "x", "\0", "t\u00f6ken", "x" * 100_000])
def test_an_invitation_that_was_not_made_does_not_hold(owner: Actor, token: str) -> None:
    invite(owner)
    with pytest.raises(Forbidden):
        invitations.join(token, {"password": PASSWORD}, by=VISITOR)


def test_the_link_of_the_set_up_is_no_invitation(app: Flask) -> None:
    with pytest.raises(Forbidden):
        invitations.invited(first_owner.issue_setup_link() or "")


def test_a_password_at_fault_leaves_the_invitation_open(owner: Actor) -> None:
    _, token = invite(owner)
    for fields, field in (({"password": "short"}, "password"), ({}, "password"),
                          ({"password": PASSWORD, "owner": True}, "owner")):  # fmt: skip
        with pytest.raises(Invalid) as refusal:
            invitations.join(token, fields, by=VISITOR)
        assert list(refusal.value.fields) == [field]
    invitations.join(token, {"password": PASSWORD}, by=VISITOR)


def test_a_new_invitation_ends_the_one_before(owner: Actor, clock: Clock) -> None:
    person, old = invite(owner)
    sent = invitations.invite(person.id, by=owner)
    new = token_of(sent)
    assert sent.expires_at == clock.now() + 7 * console_clock.DAY
    with pytest.raises(Forbidden):
        invitations.invited(old)
    assert invitations.invited(new) == person
    assert Link.select().count() == 1


def test_who_has_a_password_or_is_disabled_is_not_invited_again(
    owner: Actor, member: Actor
) -> None:
    with pytest.raises(Conflict, match="has a password already"):
        invitations.invite(member.id or "", by=owner)
    person, _ = invite(owner)
    people.edit(person.id, {"disabled": True}, by=owner)
    with pytest.raises(Conflict, match="is disabled; enable them first"):
        invitations.invite(person.id, by=owner)


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"password": PASSWORD}, {"email": "hopper@example.com"}],
    ids=["disabled", "given a password", "of another address"],
)
def test_an_invitation_ends_when_its_person_is(owner: Actor, change: dict[str, Any]) -> None:
    person, token = invite(owner)
    people.edit(person.id, {"name": "Grace", "roles": {}}, by=owner)
    assert invitations.invited(token)
    people.edit(person.id, change, by=owner)
    people.edit(person.id, {"disabled": False}, by=owner)
    with pytest.raises(Forbidden):
        invitations.join(token, {"password": PASSWORD}, by=VISITOR)
    assert not Link.select().exists()


def test_an_invitation_of_who_was_disabled_by_hand_does_not_hold(owner: Actor) -> None:
    _, token = invite(owner)
    Person.update(disabled_at=1).where(Person.email == GRACE).execute()
    with pytest.raises(Forbidden):
        invitations.join(token, {"password": PASSWORD}, by=VISITOR)


def test_an_invitation_is_an_event_without_its_token(owner: Actor, clock: Clock) -> None:
    person, first = invite(owner)
    second = token_of(invitations.invite(person.id, by=owner))
    events = list(Event.select().where(Event.action == "person.invited"))
    until = console_clock.iso(clock.now() + 7 * console_clock.DAY)
    assert [(event.actor_id, event.target_id) for event in events] == [(owner.id, person.id)] * 2
    assert [event.changes for event in events] == [{"expires_at": [None, until]}] * 2
    everything = json.dumps(list(Event.select().dicts()))
    assert first not in everything and second not in everything


def test_who_may_invite_holds_every_right_that_the_person_will_have(
    owner: Actor, admin: Actor, member: Actor, stranger: Actor
) -> None:
    theirs, _ = invite(owner, roles={"shop": "admin"})
    both, _ = invite(owner, email="b@example.com", roles={"shop": "viewer", "other": "viewer"})
    nowhere, _ = invite(owner, email="n@example.com")
    an_owner, _ = invite(owner, email="o@example.com", owner=True, roles={"shop": "viewer"})
    joined, token = invite(owner, email="j@example.com", roles={"shop": "viewer"})
    invitations.join(token, {"password": PASSWORD}, by=VISITOR)
    joined = Person.get_by_id(joined.id)
    everybody = (theirs, both, nowhere, an_owner, joined)
    may = {
        actor.name: [person.email for person in everybody if invitations.may_invite(person, actor)]
        for actor in (admin, member, stranger)
    }
    assert may == {admin.name: [theirs.email], member.name: [], stranger.name: []}
    assert all(invitations.may_invite(person, owner) for person in everybody)
    assert invitations.invited(token_of(invitations.invite_member(theirs.id, by=admin))) == theirs
    for person in everybody[1:]:
        with pytest.raises(Forbidden, match="ask an owner"):
            invitations.invite_member(person.id, by=admin)
    with pytest.raises(Forbidden, match="Only an owner"):
        invitations.invite(theirs.id, by=admin)


def test_a_role_that_is_given_meanwhile_counts(
    owner: Actor, admin: Actor, other_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, token = invite(owner, roles={"shop": "viewer"})
    asked: list[bool] = []
    may_invite = invitations.may_invite

    def at_first(person: Person, by: Actor) -> bool:
        asked.append(may_invite(person, by))
        if len(asked) == 1:
            Membership.create(person=person, project=other_project, role="admin")
        return asked[-1]

    monkeypatch.setattr(invitations, "may_invite", at_first)
    with pytest.raises(Forbidden):
        invitations.invite_member(person.id, by=admin)
    assert asked == [True, False]
    assert invitations.invited(token) == person


# --- who made it ------------------------------------------------------------------------------


ENDS: dict[str, Callable[[Actor, Actor], Any]] = {
    "disabled": lambda maker, by: people.edit(maker.id or "", {"disabled": True}, by=by),
    "no owner": lambda maker, by: people.edit(maker.id or "", {"owner": False}, by=by),
    "deleted": lambda maker, by: people.delete(maker.id or "", by=by),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_what_an_owner_made_ends_with_their_rights(
    owner: Actor, member: Actor, end: Callable[[Actor, Actor], Any]
) -> None:
    """Or else a link to another owner's password, kept, would bring them back."""
    maker = add_person("mallory@example.com", is_owner=True)
    taken_over = reset(owner, maker)
    _, invitation = invite(maker, owner=True)
    kept = reset(member, owner)
    end(maker, owner)
    refused(
        lambda: invitations.reset_password(taken_over, {"password": NEW}, by=VISITOR),
        lambda: invitations.join(invitation, {"password": NEW}, by=VISITOR),
    )
    assert invitations.who_resets(kept).email == member.name
    signin.with_password(owner.name, PASSWORD, ip=None)


ROLE_ENDS: dict[str, Callable[[Actor, Actor], Any]] = {
    **{name: end for name, end in ENDS.items() if name != "no owner"},
    "another role": lambda maker, by: members.change_role(
        "shop", maker.id or "", {"role": "viewer"}, by=by
    ),
    "removed": lambda maker, by: members.remove("shop", maker.id or "", by=by),
    "elsewhere": lambda maker, by: people.edit(
        maker.id or "", {"roles": {"shop": "admin", "other": "viewer"}}, by=by
    ),
}


@pytest.mark.parametrize("end", ROLE_ENDS.values(), ids=ROLE_ENDS.keys())
def test_what_an_admin_made_ends_with_their_role(
    owner: Actor, admin: Actor, other_project: Project, end: Callable[[Actor, Actor], Any]
) -> None:
    _, sent = members.add("shop", {"email": GRACE, "role": "admin"}, by=admin)
    assert sent is not None
    end(admin, owner)
    refused(lambda: invitations.join(token_of(sent), {"password": NEW}, by=VISITOR))


def test_what_somebody_made_outlives_a_change_of_name_and_password(
    owner: Actor, member: Actor
) -> None:
    maker = add_person("mallory@example.com", is_owner=True)
    token = reset(member, maker)
    people.edit(maker.id or "", {"name": "Mal", "password": NEW, "roles": {}}, by=owner)
    assert invitations.who_resets(token).email == member.name


# --- a new password ---------------------------------------------------------------------------


def test_a_reset_link_leads_to_a_new_password(owner: Actor, member: Actor) -> None:
    token = reset(member, owner)
    assert invitations.who_resets(token).email == member.name
    signin.with_password(member.name, PASSWORD, ip=None)  # until then, the old one holds
    invitations.reset_password(token, {"password": NEW}, by=VISITOR)
    signin.with_password(member.name, NEW, ip=None)
    with pytest.raises(Unauthenticated):
        signin.with_password(member.name, PASSWORD, ip=None)
    made, used = last_event("person.reset_link_made"), last_event("person.password_reset")
    assert (made.actor_id, made.target_id) == (owner.id, member.id)
    assert (used.actor_id, used.target_id, used.ip) == (member.id, member.id, VISITOR.ip)
    assert used.changes == {"password": ["set", "changed"]}
    assert token not in json.dumps(list(Event.select().dicts()))


def test_a_new_password_ends_all_sessions_and_keeps_the_second_factor(
    owner: Actor, member: Actor
) -> None:
    Person.update(totp_secret=b"sealed", totp_step=7).where(Person.id == member.id).execute()
    browser, _ = invitations.sign_in(login_link(member), ip=None)
    assert sessions.by_session(browser) is not None
    invitations.reset_password(reset(member, owner), {"password": NEW}, by=VISITOR)
    assert not Session.select().where(Session.person == member.id).exists()
    assert Session.select().where(Session.person == owner.id).exists()
    person = Person.get_by_id(member.id)
    assert (person.totp_secret, person.totp_step) == (b"sealed", 7)


def test_a_reset_link_works_once(owner: Actor, member: Actor) -> None:
    token = reset(member, owner)
    invitations.reset_password(token, {"password": NEW}, by=VISITOR)
    refused(
        lambda: invitations.who_resets(token),
        lambda: invitations.reset_password(token, {"password": PASSWORD}, by=VISITOR),
    )
    signin.with_password(member.name, NEW, ip=None)


def test_of_ten_that_use_a_reset_link_at_once_one_chooses(owner: Actor, member: Actor) -> None:
    token = reset(member, owner)

    def attempt(number: int) -> str:
        invitations.reset_password(token, {"password": f"{NEW} {number}"}, by=VISITOR)
        return f"{NEW} {number}"

    answers = sorted(getattr(answer, "code", answer) for answer in at_once(10, attempt))
    assert answers[:9] == ["FORBIDDEN"] * 9
    signin.with_password(member.name, str(answers[9]), ip=None)


def test_a_password_at_fault_leaves_the_reset_link_open(owner: Actor, member: Actor) -> None:
    token = reset(member, owner)
    for fields, field in (({"password": "short"}, "password"), ({}, "password"),
                          ({"password": NEW, "email": "eve@example.com"}, "email")):  # fmt: skip
        with pytest.raises(Invalid) as refusal:
            invitations.reset_password(token, fields, by=VISITOR)
        assert list(refusal.value.fields) == [field]
    invitations.reset_password(token, {"password": NEW}, by=VISITOR)


def test_a_reset_link_is_for_who_has_a_password_and_is_not_disabled(
    owner: Actor, member: Actor
) -> None:
    person, _ = invite(owner)
    with pytest.raises(Conflict, match="has no password yet"):
        invitations.reset(person.id, by=owner)
    people.edit(member.id or "", {"disabled": True}, by=owner)
    with pytest.raises(Conflict, match="is disabled; enable them first"):
        reset(member, owner)
    with pytest.raises(Unknown):
        invitations.reset("per_missing", by=owner)


def test_only_an_owner_makes_a_reset_link(
    admin: Actor, member: Actor, viewer: Actor, stranger: Actor
) -> None:
    for by in (admin, member, viewer, stranger):
        for person_id in (member.id or "", "per_missing"):
            with pytest.raises(Forbidden, match="Only an owner"):
                invitations.reset(person_id, by=by)
    assert not Link.select().exists()


def test_a_password_that_is_guessed_first_is_refused(owner: Actor, member: Actor) -> None:
    _, invitation = invite(owner, name="Amazing Grace")
    resetting = reset(member, owner)
    for use, token, password in (
        (invitations.join, invitation, "password1"),
        (invitations.join, invitation, "Amazing Grace"),
        (invitations.reset_password, resetting, "password1"),
        (invitations.reset_password, resetting, member.name),
    ):
        with pytest.raises(Invalid) as refusal:
            use(token, {"password": password}, by=VISITOR)
        assert list(refusal.value.fields) == ["password"]


def test_an_owner_makes_links_only_while_fresh(owner: Actor, member: Actor) -> None:
    person, _ = invite(owner)
    stale = replace(owner, fresh_until=console_clock.now())
    for call in (
        lambda: invitations.reset(member.id or "", by=stale),
        lambda: invitations.invite(person.id, by=stale),
        lambda: invitations.invite_member(person.id, by=stale),
    ):
        with pytest.raises(NotFresh):
            call()
    assert Link.select().count() == 1


# --- a sign-in for who is locked out ----------------------------------------------------------


def test_a_login_link_signs_in_without_password_and_code(app: Flask, member: Actor) -> None:
    Person.update(totp_secret=b"sealed").where(Person.id == member.id).execute()
    link = invitations.login_link(member.name.upper(), by=VISITOR)
    assert invitations.who_signs_in(link.token).email == member.name
    begun, person = invitations.sign_in(link.token, ip="192.0.2.9", user_agent="curl")
    actor = sessions.by_session(begun)
    assert actor is not None and actor.id == person.id == member.id
    actor.require_fresh()
    assert Session.get(Session.ip == "192.0.2.9").method == "link"
    assert last_event("person.signed_in").changes["method"] == [None, "link"]
    made = last_event("person.login_link_made")
    assert (made.actor_name, made.target_id) == (VISITOR.name, member.id)
    assert link.token not in json.dumps(list(Event.select().dicts())) + repr(link)


def test_who_has_no_password_yet_signs_in_by_link(owner: Actor) -> None:
    person, _ = invite(owner)
    made = invitations.login_link(GRACE, by=VISITOR)
    assert invitations.sign_in(made.token, ip=None)[1] == person


def test_a_login_link_works_once(member: Actor) -> None:
    token = login_link(member)
    invitations.sign_in(token, ip=None)
    refused(
        lambda: invitations.who_signs_in(token), lambda: invitations.sign_in(token, ip=None),
        words="Whoever runs the server",
    )  # fmt: skip


def test_of_ten_that_use_a_login_link_at_once_one_is_in(member: Actor) -> None:
    token, before = login_link(member), Session.select().count()
    answers = at_once(10, lambda _: invitations.sign_in(token, ip=None)[0])
    assert [getattr(answer, "code", "in") for answer in answers].count("in") == 1
    assert Session.select().count() == before + 1


def test_a_login_link_is_for_a_person_who_is_not_disabled(owner: Actor, member: Actor) -> None:
    for email in ("nobody@example.com", "", "x", "a\0b"):
        with pytest.raises(Invalid, match="there is no person"):
            invitations.login_link(email, by=VISITOR)
    people.edit(member.id or "", {"disabled": True}, by=owner)
    with pytest.raises(Conflict, match="is disabled"):
        login_link(member)


# --- what ends a link -------------------------------------------------------------------------

# Of each kind: how it is made, and who it is for while it holds.
KINDS: dict[str, tuple[Callable[[Actor, Actor], str], Callable[[str], Person]]] = {
    "reset": (reset, invitations.who_resets),
    "login": (lambda person, by: login_link(person), invitations.who_signs_in),
}
LENGTHS = {"reset": "24h", "login": "15m"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_ends_in_time(kind: str, owner: Actor, member: Actor, clock: Clock) -> None:
    make, read = KINDS[kind]
    token = make(member, replace(owner, fresh_until=None))
    clock.move(LENGTHS[kind])
    clock.move_ms(-1)
    assert read(token).id == member.id
    clock.move_ms(1)
    refused(lambda: read(token), words="old")


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_link_ends_the_one_before(kind: str, owner: Actor, member: Actor) -> None:
    make, read = KINDS[kind]
    others = make(owner, owner)
    old, new = make(member, owner), make(member, owner)
    refused(lambda: read(old))
    assert read(new).id == member.id and read(others).id == owner.id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"password": NEW}, {"email": "robert@example.com"}]
)
def test_a_link_ends_when_its_person_is_another(
    kind: str, change: dict[str, Any], owner: Actor, member: Actor
) -> None:
    make, read = KINDS[kind]
    token, others = make(member, owner), make(owner, owner)
    people.edit(member.id or "", {"name": "Bob", "roles": {"shop": "viewer"}}, by=owner)
    assert read(token).id == member.id
    people.edit(member.id or "", change, by=owner)
    people.edit(member.id or "", {"disabled": False}, by=owner)
    refused(lambda: read(token))
    assert read(others).id == owner.id and Link.select().count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_of_who_was_disabled_by_hand_does_not_hold(
    kind: str, owner: Actor, member: Actor
) -> None:
    make, read = KINDS[kind]
    token = make(member, owner)
    Person.update(disabled_at=1).where(Person.id == member.id).execute()
    refused(lambda: read(token))


def test_a_deleted_persons_links_are_gone(owner: Actor, member: Actor) -> None:
    for make, _ in KINDS.values():
        make(member, owner)
    people.delete(member.id or "", by=owner)
    assert not Link.select().exists()


def test_a_link_is_of_one_kind(owner: Actor, member: Actor) -> None:
    person, invitation = invite(owner)
    tokens = [invitation, *(make(member, owner) for make, _ in KINDS.values())]
    readers = [invitations.invited, invitations.who_resets, invitations.who_signs_in]
    for number, token in enumerate(tokens):
        assert readers[number](token)
        others = [reader for reader in readers if reader is not readers[number]]
        refused(*(partial(reader, token) for reader in others))


def test_the_database_holds_a_digest_alone(owner: Actor, member: Actor) -> None:
    tokens = [invite(owner)[1], *(make(member, owner) for make, _ in KINDS.values())]
    rows = list(Link.select().dicts())
    digests = {hashlib.sha256(token.encode()).hexdigest() for token in tokens}
    assert {row["digest"] for row in rows} == digests
    assert not any(token in json.dumps(rows) for token in tokens)


def test_a_link_leads_to_the_public_address(app: Flask) -> None:
    links.use_base_url("https://keys.example.com")
    addresses = [links.address(kind, "t") for kind in links.PATHS]
    assert addresses == [
        f"https://keys.example.com/{path}?token=t"
        for path in ("setup", "invitation", "reset", "login-link")
    ]
    with app.test_request_context():
        paths = {rule.rule for rule in app.url_map.iter_rules()}
    assert paths >= set(links.PATHS.values())


# --- by mail ----------------------------------------------------------------------------------


def test_an_invitation_is_mailed_and_then_not_shown(
    owner: Actor, mailbox: Mailbox, clock: Clock
) -> None:
    links.use_base_url("https://keys.example.com")
    person, sent = people.create({"email": GRACE, "name": "Grace"}, by=owner)
    assert sent is not None
    assert (sent.url, sent.mailed_to, sent.failure) == (None, GRACE, None)
    arrived = mailbox.only()
    assert arrived.to == [GRACE]
    assert arrived.message["Subject"] == "Join Latchkey at keys.example.com"
    assert arrived.text.splitlines()[0] == (
        "ada@example.com has invited you to Latchkey, the console for API keys at "
        "https://keys.example.com"
    )
    assert "The link works once, until 27 November 2026, 10:30 UTC." in arrived.text
    assert invitations.invited(link_in(arrived.text)) == person


def test_a_reset_link_is_mailed_and_then_not_shown(
    owner: Actor, member: Actor, mailbox: Mailbox
) -> None:
    sent = invitations.reset(member.id or "", by=owner)
    assert (sent.url, sent.mailed_to) == (None, member.name)
    assert "ada@example.com has made you a link to a new password" in mailbox.only().text
    assert invitations.who_resets(link_in(mailbox.only().text)).id == member.id


def test_a_mail_that_fails_is_said_and_the_link_is_shown(app: Flask, owner: Actor) -> None:
    with Mailbox(rcpt="550 no such user") as mailbox:
        mail.use(mailbox.url, "keys@shop.example")
        person, sent = people.create({"email": GRACE}, by=owner)
        again = invitations.invite(person.id, by=owner)
    mail.use("", "")
    for made in (sent, again):
        assert made is not None and made.mailed_to is None
        assert (made.failure or "").endswith(
            "takes no mail for grace@example.com: 550 no such user."
        )
    assert invitations.invited(token_of(again)) == person


def test_a_mail_goes_when_its_link_is_stored(
    owner: Actor, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other writer waits for the mail server."""
    under_way: list[bool] = []
    monkeypatch.setattr(
        mail, "send", lambda *_: under_way.append(Person._meta.database.in_transaction())
    )
    person, _ = people.create({"email": GRACE}, by=owner)
    invitations.invite(person.id, by=owner)
    invitations.reset(owner.id or "", by=owner)
    assert under_way == [False] * 3


@pytest.mark.parametrize("name", ["Eve\r\nBcc: all@example.com", "=?utf-8?q?x?=", "<b>Eve</b>"])
def test_nobodys_name_gets_into_the_headers_of_a_mail(
    app: Flask, mailbox: Mailbox, name: str
) -> None:
    inviter = replace(add_person("ada@example.com", is_owner=True), name=name)
    Person.create(id="per_1", email=GRACE, name=name, is_owner=False, created_at=0)
    invitations.invite("per_1", by=inviter)
    arrived = mailbox.only()
    assert (arrived.to, str(arrived.message["To"])) == ([GRACE], GRACE)
    assert arrived.message["Bcc"] is None and name[:3] not in str(arrived.message["Subject"])


def test_a_keys_name_is_not_an_inviters(operator: Actor) -> None:
    for kind in ("key", "command"):
        by = replace(operator, kind=kind, name="CI")
        _, text = letters.letter("invitation", "t", 0, by=by)
        assert text.startswith("You are invited to Latchkey") and "CI" not in text


# --- forgotten --------------------------------------------------------------------------------


def forget(email: str, by: Actor = VISITOR) -> None:
    invitations.forgot(email, by=by)
    mail.settle()


def test_who_forgot_their_password_is_mailed_a_link(member: Actor, mailbox: Mailbox) -> None:
    forget(f" {member.name.upper()}")
    arrived = mailbox.only()
    assert arrived.to == [member.name]
    assert arrived.text.startswith("Somebody, most likely you, asked for a new password")
    assert invitations.who_resets(link_in(arrived.text)).id == member.id
    event = last_event("person.reset_link_made")
    assert (event.actor_id, event.actor_name, event.ip) == (None, "sign-in page", VISITOR.ip)


@pytest.mark.parametrize("email", ["nobody@example.com", "", "x", "a\0b", "@" * 300, GRACE])
def test_whoever_has_no_password_here_is_mailed_nothing(
    owner: Actor, mailbox: Mailbox, email: str
) -> None:
    people.create({"email": GRACE}, by=owner)
    mailbox.mails.clear()
    forget(email)
    assert mailbox.mails == []


def test_a_disabled_person_is_mailed_nothing(owner: Actor, member: Actor, mailbox: Mailbox) -> None:
    people.edit(member.id or "", {"disabled": True}, by=owner)
    forget(member.name)
    assert mailbox.mails == [] and not Link.select().exists()


def test_one_person_is_mailed_three_links_an_hour_and_each_holds(
    member: Actor, mailbox: Mailbox, clock: Clock
) -> None:
    for _ in range(5):
        forget(member.name)
    assert len(mailbox.mails) == 3
    for one in mailbox.mails:
        assert invitations.who_resets(link_in(one.text)).id == member.id
    clock.move("1h")
    forget(member.name)
    assert len(mailbox.mails) == 4
    token = link_in(mailbox.mails[0].text)
    invitations.reset_password(token, {"password": NEW}, by=VISITOR)
    assert not Link.select().exists()


def test_one_network_asks_for_thirty_links_an_hour(member: Actor, mailbox: Mailbox) -> None:
    for number in range(30):
        forget(f"{number}@example.com", replace(VISITOR, ip=f"192.0.2.{number}"))
    with pytest.raises(Limited):
        forget(member.name)
    assert mailbox.mails == []
    forget(member.name, replace(VISITOR, ip="198.51.100.7"))
    assert len(mailbox.mails) == 1


def test_to_ask_is_the_same_work_for_every_address(
    member: Actor, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that depends on the address is done later: the answer does not wait for it."""
    statements: list[list[str]] = []
    database: Any = Person._meta.database
    execute = type(database.obj).execute_sql

    def spy(self: Any, sql: str, params: Any = None, *rest: Any) -> Any:
        statements[-1].append(sql)
        return execute(self, sql, params, *rest)

    put_off: list[Callable[[], None]] = []
    monkeypatch.setattr(mail, "later", put_off.append)
    invitations.forgot("first@example.com", by=VISITOR)
    monkeypatch.setattr(type(database.obj), "execute_sql", spy)
    for email in (member.name, "nobody@example.com", "", "x" * 10_000):
        statements.append([])
        invitations.forgot(email, by=VISITOR)
    assert len(put_off) == 5 and statements[0]
    assert all(one == statements[0] for one in statements)


def test_a_forgotten_password_where_no_mail_is_sent(member: Actor) -> None:
    with pytest.raises(Conflict, match="sends no mail"):
        forget(member.name)


def test_a_mail_server_that_is_down_is_in_the_log_without_the_token(
    member: Actor, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mail.use("smtp://127.0.0.1:1", "keys@shop.example")
    with caplog.at_level(logging.WARNING):
        forget(member.name)
    assert "The mail server 127.0.0.1:1 cannot be reached" in caplog.text
    assert "token" not in caplog.text


# --- the pages --------------------------------------------------------------------------------


def page_of(kind: str) -> str:
    return {"reset": "/reset", "login": "/login-link", "invitation": "/invitation"}[kind]


@pytest.mark.parametrize("kind", ["reset", "login", "invitation"])
def test_to_open_a_link_does_not_use_it_up(
    kind: str, client: FlaskClient, owner: Actor, member: Actor
) -> None:
    token = invite(owner)[1] if kind == "invitation" else KINDS[kind][0](member, owner)
    before = Session.select().count(), Event.select().count(), Link.select().count()
    for method in ("GET", "GET", "HEAD"):
        answer = client.open(f"{page_of(kind)}?token={token}", method=method)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Set-Cookie" not in answer.headers or token not in answer.headers["Set-Cookie"]
    assert before == (Session.select().count(), Event.select().count(), Link.select().count())


@pytest.mark.parametrize("kind", ["reset", "login"])
@pytest.mark.parametrize("token", ["", "guess", "%00", "%ED%A0%80", "x" * 5_000])
def test_a_link_that_does_not_hold_says_what_to_do(
    kind: str, client: FlaskClient, member: Actor, token: str
) -> None:
    answer = client.get(f"{page_of(kind)}?token={token}")
    assert answer.status_code == 403 and "This link does not hold" in answer.text
    assert client.post(page_of(kind), data={"token": token}).status_code == 403


def test_a_new_password_is_chosen_on_its_page(app: Flask, owner: Actor, member: Actor) -> None:
    token, browser = reset(member, owner), sign_in(app, owner)
    page = browser.get(f"/reset?token={token}").text
    assert f'value="{member.name}"' in page and "Choose a new password" in page
    short = browser.post("/reset", data={"token": token, "password": "tiny"})
    assert short.status_code == 422 and "Must have at least 8 characters." in short.text
    assert "tiny" not in short.text
    answer = browser.post("/reset", data={"token": token, "password": NEW})
    assert (answer.status_code, answer.location) == (303, "/login")
    form = browser.get("/login")
    assert "Your password is changed. Sign in with it." in form.text
    signed_in = browser.post("/login", data={"email": member.name, "password": NEW})
    assert signed_in.status_code == 303
    assert browser.post("/reset", data={"token": token, "password": NEW}).status_code == 403


def test_the_login_page_asks_for_one_press(app: Flask, owner: Actor, member: Actor) -> None:
    Person.update(totp_secret=b"sealed").where(Person.id == member.id).execute()
    token, browser = login_link(member), sign_in(app, owner)
    page = browser.get(f"/login-link?token={token}").text
    assert f"Sign in as {member.name}" in page
    answer = browser.post("/login-link", data={"token": token})
    assert (answer.status_code, answer.location) == (303, "/account")
    assert member.name in browser.get("/", follow_redirects=True).text
    assert app.test_client().post("/login-link", data={"token": token}).status_code == 403


@pytest.mark.parametrize("path", ["/reset", "/login-link", "/forgot"])
def test_the_forms_need_their_csrf_token(
    app: Flask, owner: Actor, member: Actor, path: str
) -> None:
    tokens = {"/reset": reset(member, owner), "/login-link": login_link(member)}
    app.config["WTF_CSRF_ENABLED"] = True
    form = {"token": tokens.get(path, ""), "password": NEW, "email": member.name}
    assert app.test_client().post(path, data=form).status_code == 400
    assert Link.select().count() == 2


def test_the_sign_in_page_leads_to_who_forgot(client: FlaskClient, owner: Actor) -> None:
    assert 'href="/forgot"' in client.get("/login").text


def test_the_page_for_who_forgot_mails_and_answers_alike(
    client: FlaskClient, member: Actor, mailbox: Mailbox
) -> None:
    assert "Mail me a link" in client.get("/forgot").text
    answers = [
        client.post("/forgot", data={"email": email})
        for email in (member.name, "nobody@example.com", "not an address", "")
    ]
    mail.settle()
    assert {(one.status_code, one.location, one.text) for one in answers} == {
        (303, "/forgot?sent=1", answers[0].text)
    }
    assert mailbox.only().to == [member.name]
    page = client.get("/forgot?sent=1").text
    assert "Look into your mail" in page and member.name not in page


def test_the_page_for_who_forgot_says_what_to_do_without_mail(
    client: FlaskClient, member: Actor
) -> None:
    for page in (client.get("/forgot"), client.post("/forgot", data={"email": member.name}),
                 client.get("/forgot?sent=1")):  # fmt: skip
        assert page.status_code == 200
        assert "sends no mail" in page.text and "login-link --email" in page.text
        assert "Mail me a link" not in page.text
    assert not Link.select().exists()


def test_a_token_is_in_no_log(
    app: Flask, owner: Actor, member: Actor, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: Any) -> None:
        raise RuntimeError("the inner workings")

    token = reset(member, owner)
    monkeypatch.setattr(invitations, "who_resets", fail)
    with caplog.at_level(logging.DEBUG):
        assert app.test_client().get(f"/reset?token={token}").status_code == 500
    assert "the inner workings" in caplog.text and token not in caplog.text


def test_whoever_has_come_in_leaves_no_invitation_open(owner: Actor, project: Project) -> None:
    person, sent = people.create({"email": "grace@example.com"}, by=owner)
    assert sent is not None
    made = invitations.login_link(person.email, by=command_line())
    invitations.sign_in(made.token, ip=None)
    with pytest.raises(Forbidden, match="This invitation does not hold"):
        invitations.invited(token_of(sent))
