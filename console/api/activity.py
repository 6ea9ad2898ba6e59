"""The activity log in JSON, and as files: who changed what in a project, or anywhere."""

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
    """What people, keys and commands changed in a project, or for owners anywhere, newest first."""
    asked, by = query(), caller().actor
    if asked.scope == activity.INSTALLATION and asked.project is None:
        project_id, name = None, "activity"
    else:
        project = projects.to_act_in(asked.project, by=by)
        project_id, name = project.id, f"activity-{project.slug}"
    page = partial(activity.page, project_id)
    whole = partial(activity.every, project_id)
    columns = tuple(EventObject.__annotations__)
    return paged_or_whole(page, whole, EventFilters, activity.as_dict, columns, name)
