"""The activity log in JSON, and as files: who changed what in a project."""

from functools import partial

from flask import Response

from console import activity, projects
from console.activity import EventFilters, EventObject, EventQuery
from console.api import caller, paged_or_whole, query
from console.api.calls import EXPORTS, ListOf, call
from console.permissions import AUDIT_READ


@call(
    "GET",
    "/activity",
    needs=AUDIT_READ,
    query=EventQuery,
    gives=ListOf(EventObject),
    formats=EXPORTS,
    subject="Audit log",
)
def read_activity() -> Response:
    """What people, keys and commands changed in a project, newest first."""
    project = projects.to_act_in(query().project, by=caller().actor)
    page = partial(activity.page, project.id)
    whole = partial(activity.all_of_project, project.id)
    name, columns = f"activity-{project.slug}", tuple(EventObject.__annotations__)
    return paged_or_whole(page, whole, EventFilters, activity.as_dict, columns, name)
