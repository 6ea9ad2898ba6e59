"""What a person's fields may be, and what the API answers of a person.

Every door reads what it was sent through these models; the descriptions are the API's.
"""

from typing import Annotated, NotRequired

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from console.actor import ADMIN_ROLE, MEMBER, VIEWER
from console.fields import (
    EMAIL_MAX_LENGTH,
    Email,
    Fields,
    Instant,
    Name,
    OneOf,
    UpTo,
    text_schema,
)
from console.paging import PageQuery

PASSWORD_MIN_LENGTH = 8
PASSWORD_MAX_LENGTH = 1_000
ROLES = (ADMIN_ROLE, MEMBER, VIEWER)


def _password(text: str) -> str:
    if len(text) < PASSWORD_MIN_LENGTH:
        raise ValueError(f"must have at least {PASSWORD_MIN_LENGTH} characters")
    if len(text) > PASSWORD_MAX_LENGTH:
        raise ValueError(f"must have at most {PASSWORD_MAX_LENGTH} characters")
    text.encode()  # half of a surrogate pair cannot be hashed: a ValueError too
    return text


Password = Annotated[
    str,
    AfterValidator(_password),
    text_schema(
        "correct horse battery",
        format="password",
        minLength=PASSWORD_MIN_LENGTH,
        maxLength=PASSWORD_MAX_LENGTH,
    ),
]
Role = Annotated[str, OneOf(*ROLES)]
Roles = Annotated[
    dict[str, Role],
    WithJsonSchema({
        "type": "object",
        "additionalProperties": {"type": "string", "enum": list(ROLES)},
        "examples": [{"my-service": MEMBER}],
    }),
]  # fmt: skip

ABOUT_ROLES = (
    "The role in each project, by slug. An owner needs none: theirs count again once they are no "
    "owner"
)
ABOUT_OWNER = "Whether they may do everything, people and installation settings included"


# --- what is sent -----------------------------------------------------------------------------


class NewOwner(Fields):
    """What an owner who can sign in at once is made from."""

    email: Email
    name: Name | None = None
    password: Password


class FirstOwner(NewOwner):
    """The set-up form: the first person and, where there is none yet, the first project."""

    project: Name | None = None


class NewPerson(Fields):
    """What a person is made from."""

    email: Email
    name: Name | None = Field(None, description="Left out: the address up to its @")
    password: Password | None = Field(
        None, description="Left out: the person chooses one, through an invitation link"
    )
    roles: Roles = Field({}, description=ABOUT_ROLES)
    owner: bool = Field(False, description=ABOUT_OWNER)


class PersonChange(Fields):
    """Only what is sent is changed."""

    email: Email = ""
    name: Name = ""
    password: Password = ""
    roles: Roles = Field({}, description=f"{ABOUT_ROLES}. Replaces all that there were")
    owner: bool = Field(False, description=ABOUT_OWNER)
    disabled: bool = Field(
        False, description="A disabled person cannot sign in; their keys go on working"
    )

    def sent(self, field: str) -> bool:
        return field in self.model_fields_set


class PersonQuery(Fields):
    """Which people are asked for."""

    q: Annotated[str, UpTo(EMAIL_MAX_LENGTH, "grace")] | None = Field(
        None, description="What the name or the address contains"
    )


class PeopleQuery(PageQuery, PersonQuery):
    """Which part of which people is asked for."""


class Joining(Fields):
    """The invitation form."""

    name: Name | None = None
    password: Password


class Resetting(Fields):
    """The form for a new password, of whoever has a link to it."""

    password: Password


# --- what is answered -------------------------------------------------------------------------


class PersonObject(TypedDict):
    """A person: who they are and what they may do, never what they sign in with."""

    id: Annotated[str, text_schema("per_3Kq0cV8nTz5wYb2LmR7s")]
    email: str
    name: str
    owner: Annotated[bool, Field(description=ABOUT_OWNER)]
    roles: Annotated[Roles, Field(description=ABOUT_ROLES)]
    disabled: bool
    invited: Annotated[bool, Field(description="Whether they have not joined yet")]
    second_factor: Annotated[
        bool,
        Field(
            description="Whether no password alone lets them in: they have an authenticator app, "
            "or passkeys and no password. A passkey beside a password does not count"
        ),
    ]
    last_signed_in_at: Instant | None
    created_at: Instant


InvitationUrl = Annotated[
    str,
    Field(description="A page on which the person chooses a password; works once, for 7 days"),
    text_schema("https://keys.example.com/invitation?token=…", format="uri"),
]

MailedTo = Annotated[
    str,
    Field(description="Where the link was mailed to; it is then not in the answer"),
    text_schema("grace@example.com", format="email"),
]
NotMailed = Annotated[
    str, Field(description="Why the link could not be mailed, where mail is set up")
]


class NewPersonObject(PersonObject):
    """A new person and, where no password was sent, to whom the link that invites them was mailed;
    or else, this one time, the link."""

    invitation_url: NotRequired[InvitationUrl]
    invitation_mailed_to: NotRequired[MailedTo]
    not_mailed: NotRequired[NotMailed]


class InvitationObject(TypedDict):
    """A link that invites a person: mailed, or else in this one answer only."""

    invitation_url: NotRequired[InvitationUrl]
    invitation_mailed_to: NotRequired[MailedTo]
    not_mailed: NotRequired[NotMailed]
    expires_at: Instant


class ResetObject(TypedDict):
    """A link to a new password: mailed, or else in this one answer only."""

    reset_url: NotRequired[
        Annotated[
            str,
            Field(description="A page for a new password; works once, for 24 hours"),
            text_schema("https://keys.example.com/reset?token=…", format="uri"),
        ]
    ]
    mailed_to: NotRequired[MailedTo]
    not_mailed: NotRequired[NotMailed]
    expires_at: Instant
