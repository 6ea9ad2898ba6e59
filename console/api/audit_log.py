"""The audit log in JSON: one key's, and a project's."""

from flask import Response

from console import audit, projects
from console.api import PAGE_FIELDS, answer, blueprint, caller, listed, page_of, query
from console.errors import Invalid


@blueprint.get("/api-keys/<key_id>/audit-log")
def read_key_audit_log(key_id: str) -> Response:
    given = query("format", *audit.FILTERS, *PAGE_FIELDS)
    _refuse_other_formats(given)
    cursor, limit = page_of(given)
    page = audit.page_of_key(key_id, by=caller().actor, filters=given, cursor=cursor, limit=limit)
    return answer(listed(page, audit.as_dict))


@blueprint.get("/audit-log")
def read_project_audit_log() -> Response:
    given = query("project", "format", *audit.FILTERS, *PAGE_FIELDS)
    _refuse_other_formats(given)
    cursor, limit = page_of(given)
    project = projects.to_act_in(given.pop("project", None), by=caller().actor)
    page = audit.page_of_project(
        project.id, by=caller().actor, filters=given, cursor=cursor, limit=limit
    )
    return answer(listed(page, audit.as_dict))


def _refuse_other_formats(given: dict[str, str]) -> None:
    if given.pop("format", "json") != "json":
        raise Invalid({"format": "must be json: this version has no other yet"})
