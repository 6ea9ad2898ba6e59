"""What a project asks of the keys in it: which environments and plans they may have, how long they
may live, and that it is not archived.

Its rules hold for what is set from now on. A key that is there keeps what it has, and what was read
of it may be sent back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from console import clock, db, key_fields, limits, plans
from console.errors import Conflict, Invalid, Unknown
from console.key_fields import Extension, KeySettings, RateLimit
from console.models import LIVE, Key, Project


def held_open(project_id: str) -> Project:
    """The project as it is now, which stays so until the transaction ends.

    Raises Unknown once it is deleted, Conflict while it is archived.
    """
    db.hold(Project, project_id)
    project = Project.get_or_none(Project.id == project_id)
    if project is None:
        raise Unknown("This project has just been deleted.")
    if project.archived_at is not None:
        raise Conflict(
            f"The project {project.slug} is archived: its keys can be revoked, deleted and "
            "handed over, and nothing else, until an owner restores it."
        )
    return project


# --- what a new key is ------------------------------------------------------------------------


def columns(new: KeySettings, project: Project, now: int) -> dict[str, Any]:
    """The columns of a new key that follow from several of its settings, and from the project's.

    Raises Invalid.
    """
    ends_at = _first_end(new, project, now)
    return {
        "environment": _environment(new, project),
        "expires_at": ends_at,
        "ends_set_at": now,
        **renewal_columns(new, ends_at, now),
        **plan_columns(new, project),
    }


def _environment(new: KeySettings, project: Project) -> str:
    allowed = project.environments
    if not new.sent("environment"):
        return environment_default(project)
    if new.environment not in allowed:
        raise Invalid({"environment": f"must be {allowed[0]}: this project makes no other keys"})
    return new.environment


def environment_default(project: Project) -> str:
    """That of a new key which does not say it."""
    return LIVE if LIVE in project.environments else str(project.environments[0])


def _first_end(new: KeySettings, project: Project, now: int) -> int | None:
    if new.expires_in is not None or new.sent("expires_at"):
        return end(new, project, now)
    lengths = [project.default_expiry, project.maximum_lifetime]
    # The shorter: months are not equally long, so which one that is changes.
    return min((later(one, now) for one in lengths if one), default=None)


def expiry_default(project: Project) -> str | None:
    """How long a new key lives that does not say it; None for ever."""
    return project.default_expiry or project.maximum_lifetime


# --- how long it lives --------------------------------------------------------------------------


def end(settings: KeySettings | Extension, project: Project, now: int) -> int | None:
    """When a key so set ends, in whole seconds; None for never. Raises Invalid when that is in the
    past, or later than the project allows."""
    ends_at = key_fields.expiry(settings, now)
    field = "expires_at" if settings.expires_in is None else "expires_in"
    refuse_beyond(ends_at, project, now, field)
    return ends_at


def refuse_beyond(ends_at: int | None, project: Project, now: int, field: str) -> None:
    """Raises Invalid where a key that is so set would live for longer than the project allows."""
    longest = latest_end(project, now)
    if longest is not None and (ends_at is None or ends_at > longest):
        raise Invalid({
            field: f"must come by {clock.iso(longest)}: keys of {project.name} live for "
            f"{project.maximum_lifetime} at most"
        })  # fmt: skip


def renewal_columns(
    settings: KeySettings, ends_at: int | None, now: int, key: Key | None = None
) -> dict[str, Any]:
    """The columns that say whether a key renews itself, and by how much, where it ends then.

    A key that is to have no end any more has nothing to renew. Raises Invalid.
    """
    asked = settings.sent("auto_renew")
    wanted = settings.auto_renew if asked else key is not None and key.auto_renew
    if wanted and asked and not (key and key.auto_renew):
        if ends_at is None:
            raise Invalid({"auto_renew": "needs an end that can be renewed: send expires_in, too"})
        if ends_at <= now:
            raise Invalid({"auto_renew": "the key has expired; send expires_in, too"})
    if not wanted or ends_at is None:
        if settings.renewal_period is not None:
            raise Invalid({"renewal_period": "is for keys with auto_renew alone"})
        return {"auto_renew": False, "renewal_period": None}
    kept = key.renewal_period if key else None
    period = settings.renewal_period or kept or settings.expires_in or _days_until(ends_at, now)
    try:
        key_fields.refuse_period(period)
        clock.after(ends_at, period)
    except ValueError as error:
        raise Invalid({"renewal_period": str(error)}) from None
    return {"auto_renew": True, "renewal_period": period}


def _days_until(ends_at: int, now: int) -> str:
    return f"{min(99_999, max(1, -(-(ends_at - now) // clock.DAY)))}d"


def latest_end(project: Project, now: int) -> int | None:
    """The latest instant at which a key may end that is set now; None: as late as one likes."""
    return later(project.maximum_lifetime, now) if project.maximum_lifetime else None


def lengths(usual: Sequence[str], project: Project, now: int) -> dict[str, int]:
    """How long a key may live that is set now, the shortest first, and when it would end: those of
    the usual lengths that the project allows, and its own."""
    latest = latest_end(project, now)
    found: dict[int, str] = {}
    for length in filter(None, (*usual, project.default_expiry, project.maximum_lifetime)):
        ends_at = later(length, now)
        if latest is None or ends_at <= latest:
            found.setdefault(ends_at, length)
    return {found[ends_at]: ends_at for ends_at in sorted(found)}


def later(length: str, now: int) -> int:
    """When a key ends that is given such a length now."""
    return clock.after(clock.down_to_second(now), length)


# --- its plan -------------------------------------------------------------------------------------


def plan_columns(
    settings: KeySettings, project: Project, key: Key | None = None
) -> Mapping[str, Any]:
    """The columns that `plan` and `rate_limit` set on a new key, or change on this one.

    Own figures belong to the plan enterprise, which they choose by themselves. Raises Invalid.
    """
    if settings.plan is not None:
        plans.refuse_unknown(settings.plan, project)
    figures = settings.rate_limit
    if settings.plan is None:
        if not settings.sent("rate_limit"):
            return {} if key else _columns(limits.UNLIMITED, None)
        # A plan's figures, read and sent back, do not make them the key's own.
        if key and figures and (figures.per_minute, figures.per_hour) == limits.figures(key):
            return {}
    if not settings.sent("rate_limit") and key is not None:
        own = RateLimit(per_minute=key.limit_per_minute, per_hour=key.limit_per_hour)
        figures = key_fields.own_figures(own)
    plan = settings.plan or (limits.ENTERPRISE if figures else limits.UNLIMITED)
    if plan == limits.ENTERPRISE:
        if figures is None:
            raise Invalid({"rate_limit": "the plan enterprise needs per_minute or per_hour"})
        return _columns(plan, figures)
    given = (figures.per_minute, figures.per_hour) if figures else None
    if settings.sent("rate_limit") and given not in (None, plans.offered(project)[plan]):
        raise Invalid(
            {"rate_limit": f"the plan {plan} has its own; for other figures send plan enterprise"}
        )
    return _columns(plan, None)


def _columns(plan: str, figures: RateLimit | None) -> dict[str, Any]:
    return {
        "plan": plan,
        "limit_per_minute": figures.per_minute if figures else None,
        "limit_per_hour": figures.per_hour if figures else None,
    }
