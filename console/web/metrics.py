"""`/metrics`, for Prometheus: how the installation does, in figures that name nobody and no key.

Whoever reads them shows a token of their own, or calls from this very machine. Sessions and keys
count for nothing here.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

import peewee
from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from config import PREFIX, Config
from console import __version__, check, clock, journal, limits, status
from console.status import Messages, Work
from console.wire import REALM

blueprint = Blueprint("metrics", __name__)

REGISTRY = "metrics"
SETTING = f"{PREFIX}METRICS_TOKEN"
TEXT = "text/plain; charset=utf-8"
# A proxy on this machine calls from here, on behalf of anybody.
FORWARDED = (
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP",
)  # fmt: skip
# name, what it says, and where it is known: of each job and of each channel.
JOB_FIGURES: tuple[tuple[str, str, Callable[[Work], float | None]], ...] = (
    (
        "last_success_timestamp_seconds",
        "When a run of the job last ended well, in seconds since 1970; absent until one has.",
        lambda work: _seconds(work.succeeded_at),
    ),
    (
        "last_duration_seconds",
        "How long the job's last run took; absent while it runs.",
        lambda work: _seconds(work.took),
    ),
    ("running", "1 while some process does the job.", lambda work: work.is_running),
    ("failed", "1 if the last run that ended failed, else 0.", lambda work: bool(work.error)),
    ("items", "How much the present run has done, or the last one did.", lambda work: work.done),
)
CHANNEL_FIGURES: tuple[tuple[str, str, Callable[[Messages], float]], ...] = (
    (
        "waiting",
        f"Messages that are still to be sent, counted up to {status.COUNTED_MAX}.",
        lambda messages: messages.waiting,
    ),
    (
        "failed_last_day",
        "Messages that were given up within the last 24 hours.",
        lambda messages: messages.failed,
    ),
)


def _register(state: BlueprintSetupState) -> None:
    """A registry for each application: the library's own is one for the whole process."""
    registry = CollectorRegistry()
    registry.register(_Installation(state.app.config["LATCHKEY"]))
    registry.register(_Process())
    ProcessCollector(registry=registry)
    state.app.extensions[REGISTRY] = registry


blueprint.record(_register)


@blueprint.get("/metrics")
def show_metrics() -> Response:
    refusal = _refusal()
    if refusal is not None:
        return refusal
    try:
        text = generate_latest(current_app.extensions[REGISTRY])
    except peewee.PeeweeException:
        current_app.logger.exception("no metrics")
        refusal = _say(503, "The database cannot be used at the moment.")
        refusal.headers["Retry-After"] = "1"
        return refusal
    return Response(text, content_type=CONTENT_TYPE_LATEST)


# --- who may read them --------------------------------------------------------------------------


def _refusal() -> Response | None:
    """What a caller who may not read the metrics is told; None for the others."""
    config: Config = current_app.config["LATCHKEY"]
    if not config.metrics_token:
        if _is_of_this_machine():
            return None
        return _say(403, f"Without {SETTING}, only this machine itself may read the metrics.")
    given = request.authorization
    token = given.token if given and given.type == "bearer" and given.token else ""
    if secrets.compare_digest(token.encode(), config.metrics_token.encode()):
        return None
    challenge = f'Bearer realm="{REALM}"'
    refusal = _say(401, f"The metrics want the token of {SETTING} as Bearer.")
    refusal.headers["WWW-Authenticate"] = (
        f'{challenge}, error="invalid_token"' if given else challenge
    )
    return refusal


def _is_of_this_machine() -> bool:
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def _say(code: int, sentence: str) -> Response:
    return Response(f"{sentence}\n", code, content_type=TEXT)


# --- what they say ------------------------------------------------------------------------------


class _Installation(Collector):
    """Asks the database at each reading; raises PeeweeException out of it."""

    def __init__(self, config: Config) -> None:
        self.data_dir = config.data_dir

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("latchkey", "This version.", {"version": __version__})
        yield from self._of_storage()
        yield from _of_jobs(status.work())
        yield from _of_channels(status.messages())
        yield GaugeMetricFamily(
            "latchkey_alerts_open",
            f"Alerts that nobody has acknowledged, counted up to {status.COUNTED_MAX}.",
            status.open_alerts(),
        )

    def _of_storage(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "latchkey_database_bytes",
            "The size of the database, SQLite's WAL included.",
            status.database().whole_size,
        )
        yield GaugeMetricFamily(
            "latchkey_data_free_bytes",
            "What is free on the disk with the data directory.",
            status.free_bytes(self.data_dir),
        )
        family = GaugeMetricFamily(
            "latchkey_last_backup_timestamp_seconds",
            "When the last backup was made, in seconds since 1970; absent until one was.",
        )
        backup = status.last_backup()
        if backup is not None:
            family.add_metric([], backup.at / clock.SECOND)
        yield family


class _Process(Collector):
    """What only this process knows: several have figures of their own."""

    def collect(self) -> Iterable[Metric]:
        checks = CounterMetricFamily(
            "latchkey_checks",
            "Checks of keys since this process began, by the code that was answered.",
            labels=["code"],
        )
        for code, number in check.counts().items():
            checks.add_metric([code], number)
        yield checks
        yield GaugeMetricFamily(
            "latchkey_entries_waiting",
            "Entries of answered checks that are not in the database yet.",
            journal.waiting(),
        )
        answers = limits.is_answering()
        redis = GaugeMetricFamily(
            "latchkey_redis_up", "1 while Redis answers, else 0; absent where none is set."
        )
        if answers is not None:
            redis.add_metric([], answers)
        yield redis


def _of_jobs(work: Sequence[Work]) -> Iterator[Metric]:
    for name, words, figure_of in JOB_FIGURES:
        family = GaugeMetricFamily(f"latchkey_job_{name}", words, labels=["job"])
        for one in work:
            figure = figure_of(one)
            if figure is not None:
                family.add_metric([one.name], figure)
        yield family


def _of_channels(messages: Sequence[Messages]) -> Iterator[Metric]:
    for name, words, figure_of in CHANNEL_FIGURES:
        family = GaugeMetricFamily(f"latchkey_messages_{name}", words, labels=["channel"])
        for one in messages:
            family.add_metric([one.channel], figure_of(one))
        yield family


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / clock.SECOND
