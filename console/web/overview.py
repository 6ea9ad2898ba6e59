"""The overview of a project: how it is used, and which keys want attention."""

from flask import Blueprint, current_app, render_template, request

from console import overview, usage
from console.check import (
    ENVIRONMENT_MISMATCH,
    EXPIRED_KEY,
    IP_NOT_ALLOWED,
    PERMISSION_DENIED,
    PROJECT_MISMATCH,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    REVOKED_KEY,
    SUPERSEDED,
)
from console.overview import Overview
from console.permissions import KEYS_WRITE
from console.web import actor, enter, is_htmx

blueprint = Blueprint("overview", __name__, url_prefix="/projects/<slug>")

# period -> what its tab says, and what the time before it is called
PERIODS = {
    "24h": ("24 hours", "the 24 hours before"),
    "30d": ("30 days", "the 30 days before"),
    "12mo": ("12 months", "the 12 months before"),
}

# Why a known key is refused, in as few words as a row has room for.
REASONS = {
    SUPERSEDED: "Old secret in use",
    REVOKED_KEY: "Revoked, and still in use",
    EXPIRED_KEY: "Expired, and still in use",
    PROJECT_MISMATCH: "Sent to another project",
    ENVIRONMENT_MISMATCH: "Sent to another environment",
    IP_NOT_ALLOWED: "Address not in its allowlist",
    PERMISSION_DENIED: "Lacks a permission",
    RATE_LIMITED: "Rate limit reached",
    QUOTA_EXCEEDED: "Monthly quota used up",
}


@blueprint.get("")
def show_overview(slug: str) -> str:
    """The whole page; its upper part alone when another period is chosen there."""
    project = enter(slug)
    period = request.args.get("period") or usage.PERIOD_DEFAULT
    found = overview.of_project(slug, period, by=actor())
    whole = not is_htmx() or request.headers.get("HX-Target") != "requests"
    return render_template(
        "overview/show.html" if whole else "overview/_requests.html",
        overview=found,
        period=period,
        periods=[(name, words) for name, (words, _) in PERIODS.items()],
        change=change_words(found, period),
        reasons=REASONS,
        may_write=actor().may(KEYS_WRITE, project.id),
        base_url=current_app.config["LATCHKEY"].base_url,
    )


def change_words(found: Overview, period: str) -> str:
    """`12 % more than in the 24 hours before`; empty where there is nothing to compare with."""
    if found.before is None or not found.before.requests:
        return ""
    before, now = found.before.requests, found.totals.requests
    percent = round(100 * abs(now - before) / before)
    if percent == 0:
        return f"As many as in {PERIODS[period][1]}"
    how = "more" if now > before else "fewer"
    return f"{percent:,} % {how} than in {PERIODS[period][1]}"
