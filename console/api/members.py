"""Members in JSON: who administers a project says who belongs to it."""

from collections.abc import Mapping
from typing import Any

from flask import Response

from console import members
from console.api import answer, caller, listed, object_body, query
from console.api.calls import LEADER, ListOf, call
from console.api.people import invitation_of
from console.members import MemberObject, NewMember, NewMemberObject, RoleChange
from console.paging import PageQuery
from console.permissions import ADMIN

SUBJECT = "People"
OWNERS = "the person is an owner of the installation, which is not changed here"


@call(
    "GET",
    "/projects/<slug>/members",
    needs=ADMIN,
    query=PageQuery,
    gives=ListOf(MemberObject),
    subject=SUBJECT,
)
def list_members(slug: str) -> Response:
    """Who may do something in the project, by name. Owners of the installation are among them."""
    page = members.page(slug, by=caller().actor, **query().model_dump())
    return answer(listed(page, members.as_dict))


@call(
    "POST",
    "/projects/<slug>/members",
    needs=LEADER,
    takes=NewMember,
    gives=NewMemberObject,
    status=201,
    refuses={409: "`CONFLICT`: the person has a role here already, or is an owner"},
    subject=SUBJECT,
    example={"email": "grace@example.com", "role": "member"},
)
def add_member(slug: str) -> Response:
    """Gives a role to the person who has this address; somebody new is invited.

    A link is in the answer only where the person may do nothing that you may not; else they are
    invited by mail, where mail is set up, or by an owner. Other roles end all sessions and access
    tokens of the person at once, and an open invitation.
    """
    member, invitation = members.add(slug, object_body(), by=caller().actor)
    content: Mapping[str, Any] = members.as_dict(member)
    if invitation is not None:
        content = {**content, **invitation_of(invitation)}
    return answer(content, 201)


@call(
    "PATCH",
    "/projects/<slug>/members/<person_id>",
    needs=LEADER,
    takes=RoleChange,
    gives=MemberObject,
    refuses={409: f"`CONFLICT`: {OWNERS}"},
    subject=SUBJECT,
    example={"role": "viewer"},
)
def change_member_role(slug: str, person_id: str) -> Response:
    """Gives a member another role. It ends all sessions and access tokens of the person at once."""
    member = members.change_role(slug, person_id, object_body(), by=caller().actor)
    return answer(members.as_dict(member))


@call(
    "DELETE",
    "/projects/<slug>/members/<person_id>",
    needs=LEADER,
    gives=MemberObject,
    refuses={409: f"`CONFLICT`: {OWNERS}"},
    subject=SUBJECT,
)
def remove_member(slug: str, person_id: str) -> Response:
    """Takes a member's role, and ends all of their sessions and access tokens at once.

    The answer is the member as they were: so many `keys` of the project stay theirs and go on
    working, until you hand them over, rotate or revoke them.
    """
    return answer(members.as_dict(members.remove(slug, person_id, by=caller().actor)))
