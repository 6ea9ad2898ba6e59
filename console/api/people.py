"""People in JSON: an owner adds, changes, disables, invites and removes them."""

from collections.abc import Mapping
from typing import Any

from flask import Response, url_for

from console import clock, invitations, people
from console.api import answer, caller, listed, nothing, object_body, query
from console.api.calls import OWNER, ListOf, call
from console.invitations import Sent
from console.person_fields import (
    InvitationObject,
    NewPerson,
    NewPersonObject,
    PeopleQuery,
    PersonChange,
    PersonObject,
    ResetObject,
)

SUBJECT = "People"
TAKEN = "`CONFLICT`: the address is somebody's already"
NO_OWNER_LEFT = "nobody else is an owner who can sign in"


@call("GET", "/people", needs=OWNER, query=PeopleQuery, gives=ListOf(PersonObject), subject=SUBJECT)
def list_people() -> Response:
    """Everybody, newest first."""
    page = people.page(by=caller().actor, **query().model_dump())
    found = {one["id"]: one for one in people.as_dicts(page.rows)}
    return answer(listed(page, lambda person: found[person.id]))


@call(
    "POST",
    "/people",
    needs=OWNER,
    takes=NewPerson,
    gives=NewPersonObject,
    status=201,
    refuses={409: TAKEN},
    subject=SUBJECT,
    example={"email": "grace@example.com", "name": "Grace Hopper"},
)
def create_person() -> Response:
    """Adds a person, who signs in with the password that you send or chooses one themselves.

    Without a password they are invited: by mail, and the answer has `invitation_mailed_to`; or,
    where that cannot be, the answer has `invitation_url`, once: give it to the person.
    """
    person, invitation = people.create(object_body(), by=caller().actor)
    content: Mapping[str, Any] = people.as_dict(person)
    if invitation is not None:
        content = {**content, **invitation_of(invitation)}
    return answer(content, 201, Location=_address(person.id))


@call("GET", "/people/<person_id>", needs=OWNER, gives=PersonObject, subject=SUBJECT)
def read_person(person_id: str) -> Response:
    """One person."""
    return answer(people.as_dict(people.person_to_see(person_id, by=caller().actor)))


@call(
    "PATCH",
    "/people/<person_id>",
    needs=OWNER,
    takes=PersonChange,
    gives=PersonObject,
    refuses={409: f"{TAKEN}, or {NO_OWNER_LEFT}"},
    subject=SUBJECT,
    example={"name": "Grace Hopper", "disabled": False},
)
def edit_person(person_id: str) -> Response:
    """Changes what is sent, nothing else.

    Another password, other roles, `owner` and `disabled: true` end all sessions and access tokens
    of the person at once. Being disabled, another address, a password, and another role or `owner`
    end an open invitation: whoever has the link may have been meant to get less.
    """
    return answer(people.as_dict(people.edit(person_id, object_body(), by=caller().actor)))


@call(
    "DELETE",
    "/people/<person_id>",
    needs=OWNER,
    status=204,
    refuses={
        409: "`CONFLICT`: the person owns keys, or knows the secret of one that works, or "
        + NO_OWNER_LEFT
    },
    subject=SUBJECT,
)
def delete_person(person_id: str) -> Response:
    """Removes a person who owns no keys, and knows the secret of none that works, for good."""
    people.delete(person_id, by=caller().actor)
    return nothing()


@call(
    "POST",
    "/people/<person_id>/invitation",
    needs=OWNER,
    gives=InvitationObject,
    status=201,
    refuses={409: "`CONFLICT`: the person has a password already, or is disabled"},
    subject=SUBJECT,
)
def invite_person(person_id: str) -> Response:
    """Makes a new invitation link, and mails it where mail is set up; the one before ends."""
    invitation = invitations.invite(person_id, by=caller().actor)
    content = {**invitation_of(invitation), "expires_at": clock.iso(invitation.expires_at)}
    return answer(content, 201, Location=_address(person_id))


@call(
    "POST",
    "/people/<person_id>/password-reset",
    needs=OWNER,
    gives=ResetObject,
    status=201,
    refuses={409: "`CONFLICT`: the person has no password yet, or is disabled"},
    subject=SUBJECT,
)
def reset_password(person_id: str) -> Response:
    """Makes a link to a new password, and mails it where mail is set up; those before end.

    The present password and all sessions hold until the link is used.
    """
    made = invitations.reset(person_id, by=caller().actor)
    content = {**_sent(made, "reset_url", "mailed_to"), "expires_at": clock.iso(made.expires_at)}
    return answer(content, 201, Location=_address(person_id))


def invitation_of(sent: Sent) -> dict[str, str]:
    return _sent(sent, "invitation_url", "invitation_mailed_to")


def _sent(sent: Sent, url: str, mailed_to: str) -> dict[str, str]:
    """What became of a link, under the names that its answer has for it."""
    facts = {url: sent.url, mailed_to: sent.mailed_to, "not_mailed": sent.failure}
    return {name: value for name, value in facts.items() if value is not None}


def _address(person_id: str) -> str:
    return url_for("api.read_person", person_id=person_id)
