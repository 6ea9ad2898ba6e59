"""How much a key, or a project, is used: counts by hour, day or month."""

from flask import Response

from console import usage
from console.api import answer, caller, query
from console.api.calls import call
from console.permissions import ANALYTICS_READ
from console.usage import ProjectUsageQuery, UsageObject, UsageQuery


@call(
    "GET",
    "/api-keys/<key_id>/usage",
    needs=ANALYTICS_READ,
    query=UsageQuery,
    gives=UsageObject,
    subject="Usage",
)
def read_key_usage(key_id: str) -> Response:
    """How often the key was let in and refused, by hour, day or month."""
    period = query().period
    return answer(usage.as_dict(period, usage.of_key(key_id, period, by=caller().actor)))


@call(
    "GET",
    "/usage",
    needs=ANALYTICS_READ,
    query=ProjectUsageQuery,
    gives=UsageObject,
    subject="Usage",
)
def read_project_usage() -> Response:
    """The same of a whole project."""
    given = query()
    buckets = usage.of_project(given.project, given.period, by=caller().actor)
    return answer(usage.as_dict(given.period, buckets))
