"""Projects in JSON: the list of those that you see, and what their owner and admins set."""

from flask import Response, url_for

from console import calendar_feed, projects
from console.api import answer, caller, listed, nothing, object_body, query
from console.api.calls import CALLER, OWNER, ListOf, call
from console.calendar_feed import CalendarLink
from console.fields import Fields
from console.paging import PageQuery
from console.permissions import PROJECTS_MANAGE
from console.project_fields import NewProject, ProjectChange, ProjectObject

SUBJECT = "Projects"
TAKEN = "`CONFLICT`: there is a project of this slug already"
IN_USE = "`CONFLICT`: the project has keys; delete them first"
ARCHIVED = "`CONFLICT`: the project is archived"
NOT_NOW = "`CONFLICT`: keys are on a plan that would go; or the project is archived and stays so"


@call(
    "GET",
    "/projects",
    needs=CALLER,
    query=PageQuery,
    gives=ListOf(ProjectObject),
    subject=SUBJECT,
)
def list_projects() -> Response:
    """The projects that you see, newest first; a key sees its own."""
    page = projects.page(by=caller().actor, **query().model_dump())
    return answer(listed(page, projects.as_dict))


@call(
    "POST",
    "/projects",
    needs=OWNER,
    takes=NewProject,
    gives=ProjectObject,
    status=201,
    refuses={409: TAKEN},
    subject=SUBJECT,
    example={"slug": "my-service", "name": "My service", "prefix": "sk"},
)
def create_project() -> Response:
    """Makes a project."""
    project = projects.create(object_body(), by=caller().actor)
    location = url_for("api.read_project", slug=project.slug)
    return answer(projects.as_dict(project), 201, Location=location)


@call("GET", "/projects/<slug>", needs=CALLER, gives=ProjectObject, subject=SUBJECT)
def read_project(slug: str) -> Response:
    """One project."""
    return answer(projects.as_dict(projects.to_see(slug, by=caller().actor)))


@call(
    "PATCH",
    "/projects/<slug>",
    needs=PROJECTS_MANAGE,
    takes=ProjectChange,
    gives=ProjectObject,
    refuses={409: NOT_NOW},
    subject=SUBJECT,
    example={
        "key_limit": 50,
        "permission_catalogue": [{"name": "tasks:read", "description": "View tasks"}],
        "permission_presets": [{"name": "Read-only", "permissions": ["tasks:read"]}],
        "plans": [{"name": "partner", "per_minute": 50, "per_hour": 2000}],
        "maximum_lifetime": "1y",
        "default_expiry": "90d",
    },
)
def edit_project(slug: str) -> Response:
    """Changes what is sent, nothing else.

    A new prefix or format is for secrets that are yet to come; those in clients' hands stay valid.
    What the settings say of environments and lifetimes is for keys that are yet to be made or set.
    `archived: true`, which only an owner may send, has all keys of the project refused at once.
    """
    return answer(projects.as_dict(projects.edit(slug, object_body(), by=caller().actor)))


@call(
    "DELETE",
    "/projects/<slug>",
    needs=OWNER,
    status=204,
    refuses={409: IN_USE},
    subject=SUBJECT,
)
def delete_project(slug: str) -> Response:
    """Removes a project that has no keys."""
    projects.delete(slug, by=caller().actor)
    return nothing()


@call(
    "POST",
    "/projects/<slug>/calendar",
    needs=PROJECTS_MANAGE,
    gives=CalendarLink,
    status=201,
    refuses={409: ARCHIVED},
    subject=SUBJECT,
)
def make_calendar_link(slug: str) -> Response:
    """Makes a secret link to the project's calendar; the one before ends.

    A calendar program that is given the address follows the coming ends of keys: their names,
    prefixes, owners and last uses, never a secret. It needs no credential.
    """
    Fields.read(object_body())  # it takes none
    return answer(calendar_feed.make_link(slug, by=caller().actor), 201)


@call("DELETE", "/projects/<slug>/calendar", needs=PROJECTS_MANAGE, status=204, subject=SUBJECT)
def remove_calendar_link(slug: str) -> Response:
    """Ends the link to the project's calendar."""
    calendar_feed.remove_link(slug, by=caller().actor)
    return nothing()
