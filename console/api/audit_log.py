"""The audit log in JSON, and as files: one key's, a project's, and what services report to it."""

from functools import partial

from flask import Response

from console import audit, outcomes, projects
from console.api import answer, body, caller, paged_or_whole, query
from console.api.calls import EXPORTS, ListOf, call
from console.audit import (
    EntryFilters,
    EntryObject,
    EntryQuery,
    ProjectEntryFilters,
    ProjectEntryQuery,
)
from console.permissions import AUDIT_READ, KEYS_VERIFY

COLUMNS = tuple(EntryObject.__annotations__)


@call(
    "GET",
    "/api-keys/<key_id>/audit-log",
    needs=AUDIT_READ,
    query=EntryQuery,
    gives=ListOf(EntryObject),
    formats=EXPORTS,
    subject="Audit log",
)
def read_key_audit_log(key_id: str) -> Response:
    """The requests made with one key, newest first."""
    page, whole = partial(audit.page_of_key, key_id), partial(audit.all_of_key, key_id)
    name = f"audit-log-{key_id}"
    return paged_or_whole(page, whole, EntryFilters, audit.as_dict, COLUMNS, name)


@call(
    "GET",
    "/audit-log",
    needs=AUDIT_READ,
    query=ProjectEntryQuery,
    gives=ListOf(EntryObject),
    formats=EXPORTS,
    subject="Audit log",
)
def read_project_audit_log() -> Response:
    """The requests made with all keys of a project, newest first."""
    project = projects.to_act_in(query().project, by=caller().actor)
    page = partial(audit.page_of_project, project.id)
    whole = partial(audit.all_of_project, project.id)
    name = f"audit-log-{project.slug}"
    return paged_or_whole(page, whole, ProjectEntryFilters, audit.as_dict, COLUMNS, name)


@call(
    "POST",
    "/audit-log/outcomes",
    needs=KEYS_VERIFY,
    takes=outcomes.Outcomes,
    gives=outcomes.OutcomeReport,
    subject="Services",
    example=[{"request_id": "req_019a9f5c3e7d4c1f2a3b4c5d6e7f", "status": 201, "latency_ms": 12}],
)
def report_outcomes() -> Response:
    """Tells what a service answered in the end: that status takes the place of the verdict's."""
    return answer(outcomes.record_outcomes(body(), by=caller().actor))
