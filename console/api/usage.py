"""How much a key, or a project, is used: counts by hour, day or month."""

from flask import Response

from console import usage
from console.api import answer, blueprint, caller, query

PERIOD_DEFAULT = "24h"


@blueprint.get("/api-keys/<key_id>/usage")
def read_key_usage(key_id: str) -> Response:
    period = query("period").get("period", PERIOD_DEFAULT)
    return answer(usage.as_dict(period, usage.of_key(key_id, period, by=caller().actor)))


@blueprint.get("/usage")
def read_project_usage() -> Response:
    given = query("project", "period")
    period = given.get("period", PERIOD_DEFAULT)
    return answer(
        usage.as_dict(period, usage.of_project(given.get("project"), period, by=caller().actor))
    )
