"""People in JSON: an owner adds, changes, disables, invites and removes them."""

from collections.abc import Mapping
from typing import Any

from flask import Response, current_app, url_for

from config import Config
from console import clock, people
from console.api import answer, caller, listed, nothing, object_body, query
from console.api.calls import OWNER, ListOf, call
from console.paging import PageQuery
from console.person_fields import (
    InvitationObject,
    NewPerson,
    NewPersonObject,
    PersonChange,
    PersonObject,
)

SUBJECT = "People"
TAKEN = "`CONFLICT`: the address is somebody's already"
NO_OWNER_LEFT = "nobody else is an owner who can sign in"


@call("GET", "/people", needs=OWNER, query=PageQuery, gives=ListOf(PersonObject), subject=SUBJECT)
def list_people() -> Response:
    """Everybody, newest first."""
    page = people.page(by=caller().actor, **query().model_dump())
    roles = people.roles_of(page.rows)
    return answer(listed(page, lambda person: people.as_dict(person, roles[person.id])))


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

    Without a password the answer has `invitation_url`, once: give it to the person.
    """
    person, token = people.create(object_body(), by=caller().actor)
    content: Mapping[str, Any] = people.as_dict(person)
    if token is not None:
        content = {**content, "invitation_url": _invitation_url(token)}
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
    of the person at once. Being disabled, another address and a password end an open invitation.
    """
    return answer(people.as_dict(people.edit(person_id, object_body(), by=caller().actor)))


@call(
    "DELETE",
    "/people/<person_id>",
    needs=OWNER,
    status=204,
    refuses={409: f"`CONFLICT`: the person owns keys, or {NO_OWNER_LEFT}"},
    subject=SUBJECT,
)
def delete_person(person_id: str) -> Response:
    """Removes a person who owns no keys, for good."""
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
    """Makes a new invitation link; the one before ends."""
    token, ends_at = people.invite(person_id, by=caller().actor)
    content: InvitationObject = {
        "invitation_url": _invitation_url(token),
        "expires_at": clock.iso(ends_at),
    }
    return answer(content, 201, Location=_address(person_id))


def _address(person_id: str) -> str:
    return url_for("api.read_person", person_id=person_id)


def _invitation_url(token: str) -> str:
    config: Config = current_app.config["LATCHKEY"]
    return config.base_url + url_for("access.join", token=token)
