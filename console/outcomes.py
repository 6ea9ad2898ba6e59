"""What services answered in the end to the requests that were checked, as they report it."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from console import clock, db, journal, projects
from console.actor import Actor
from console.audit import VALID
from console.fields import Fields, Whole, read_list, text_schema
from console.models import Entry, Key
from console.permissions import KEYS_VERIFY

OUTCOMES_MAX = 1_000


class Outcome(Fields):
    """What a service answered in the end to a request that was checked."""

    request_id: Annotated[str, text_schema("req_019a9f5c3e7d4c1f2a3b4c5d6e7f")] = Field(
        description="That of the verdict"
    )
    status: Annotated[int, Whole(100, 599, 200)]
    latency_ms: Annotated[int, Whole(0, clock.DAY, 12)] | None = Field(
        None, description="How long the service took, in milliseconds"
    )


Outcomes = Annotated[
    list[Outcome], Field(max_length=OUTCOMES_MAX, description=f"At most {OUTCOMES_MAX:,}")
]
_outcomes = TypeAdapter(Outcomes)


class OutcomeReport(TypedDict):
    """How many entries were given their outcome, and which requests are not known."""

    updated: int
    unknown: list[str]


def record_outcomes(given: Any, *, by: Actor) -> OutcomeReport:
    """The statuses that were finally answered take the place of the verdicts'; all or none.

    Raises Invalid, Forbidden. Requests of projects in which the actor may not verify are unknown, a
    member's those of others' keys, and whatever was refused: there no service has answered.
    """
    outcomes = read_list(_outcomes, given)
    theirs = _answered_within(projects.ids_where(KEYS_VERIFY, by=by), by)
    journal.settle()
    unknown = []
    with db.write():
        for one in outcomes:
            change = {"status": one.status, "latency_ms": one.latency_ms}
            if not Entry.update(change).where(Entry.request_id == one.request_id, theirs).execute():
                unknown.append(one.request_id)
    return {"updated": len(outcomes) - len(unknown), "unknown": unknown}


def _answered_within(project_ids: frozenset[str], by: Actor) -> Any:
    partly = {one for one in project_ids if by.sees_only_own(one)}
    own = Key.select(Key.id).where(Key.project.in_(partly), Key.owner == by.id)
    seen = Entry.project_id.in_(project_ids - partly) | Entry.key_id.in_(own)
    return (Entry.code == VALID) & seen
