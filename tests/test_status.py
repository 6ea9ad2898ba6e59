"""How the installation does: the page for owners, and the figures for Prometheus, which name
nobody and are for whoever shows the token, or calls from this machine."""

import html
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CONTENT_TYPE_LATEST, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from config import Config
from console import (
    __version__,
    check,
    clock,
    db,
    facts,
    jobs,
    journal,
    limits,
    renewal,
    retention,
    status,
    webhooks,
    worker,
)
from console.actor import Actor, command_line
from console.clock import DAY
from console.errors import Forbidden
from console.letterbox import APPRISE, MAIL
from console.models import (
    ACKNOWLEDGED,
    DELIVERED,
    FAILED,
    OPEN,
    PENDING,
    Alert,
    Delivery,
    Job,
    Letter,
    Project,
    Webhook,
)
from console.status import WEBHOOK, Failure, Messages, Work
from console.web import installation, metrics
from tests.conftest import Clock, MakeKey, at_once, bearer, need_redis, sign_in
from tests.server import ROOT, free_port
from tests.test_limits import REDIS_URL

TOKEN = "a-token-of-its-own.0123456789"
TASK = renewal.TASK
NAMES = [task.name for task in worker.TASKS]
REFUSED = "The mail server refused the sender."


def begin(task: jobs.Task = TASK) -> jobs.Turn:
    turn, _ = jobs.claim(task)
    assert turn is not None
    return turn


def state(task: jobs.Task = TASK) -> Work:
    return next(one for one in status.work() if one.name == task.name)


def add_letter(channel: str = MAIL, **columns: Any) -> Letter:
    """One that waits since now, unless the columns say otherwise."""
    now = clock.now()
    settings = {"status": PENDING, "created_at": now, "next_attempt_at": now, **columns}
    return Letter.create(
        id=secrets.token_hex(8), channel=channel, recipient="bob@example.com", subject="Key",
        text="It ends", **settings,
    )  # fmt: skip


def add_failed(at: int, words: str = REFUSED, **columns: Any) -> Letter:
    """One that was written a day before, and given up then."""
    settings = {"created_at": at - DAY, "last_attempt_at": at, **columns}
    return add_letter(status=FAILED, next_attempt_at=None, error=words, **settings)


def add_delivery(project: Project, **columns: Any) -> Delivery:
    webhook = Webhook.get_or_none()
    if webhook is None:
        fields = {"project": project.slug, "url": "https://hooks.example.com/", "events": ["*"]}
        webhook, _ = webhooks.create(fields, by=command_line())
        Delivery.delete().execute()
    settings = {"status": PENDING, "created_at": clock.now(), **columns}
    return Delivery.create(
        id=secrets.token_hex(8), webhook=webhook, message_id="msg", event="key.created",
        payload="{}", **settings,
    )  # fmt: skip


def add_alert(project: Project, state: str = OPEN) -> Alert:
    return Alert.create(
        id=secrets.token_hex(8), project=project, kind="unused", subject=secrets.token_hex(8),
        cause="", window_at=0, state=state, created_at=0, last_at=0,
    )  # fmt: skip


def messages(channel: str) -> Messages:
    return next(one for one in status.messages() if one.channel == channel)


# --- jobs ---------------------------------------------------------------------------------------


def test_a_job_that_never_ran_is_due(app: Flask, clock: Clock) -> None:
    found = state()
    assert (found.started_at, found.ended_at, found.took, found.next_at) == (None,) * 4
    assert found.is_due and not found.is_running and not found.has_stopped and not found.error
    assert [one.name for one in status.work()] == NAMES


def test_a_running_job_says_how_far_it_is_and_since_when(app: Flask, clock: Clock) -> None:
    turn, began = begin(), clock.now()
    clock.move_ms(12_000)
    with turn.write(done=40):
        pass
    found = state()
    assert found.is_running and not found.has_stopped
    assert (found.started_at, found.done, found.took) == (began, 40, None)


def test_a_run_that_began_in_the_instant_of_an_end_has_taken_no_time_yet(
    app: Flask, clock: Clock
) -> None:
    begin()
    jobs.finish(TASK)
    Job.update(next_at=0).execute()
    begin()
    assert state().is_running and state().took is None


def test_a_job_that_ended_says_when_how_long_and_how_much(app: Flask, clock: Clock) -> None:
    turn = begin()
    with turn.write(done=7):
        pass
    clock.move_ms(1_250)
    jobs.finish(TASK)
    found = state()
    assert (found.ended_at, found.took, found.done) == (clock.now(), 1_250, 7)
    assert found.succeeded_at == clock.now()
    assert found.next_at == clock.now() + TASK.every
    assert not found.is_due and not found.is_running
    clock.move_ms(TASK.every)
    assert state().is_due


def test_a_job_that_failed_says_why_until_a_run_succeeds(app: Flask, clock: Clock) -> None:
    begin()
    jobs.finish(TASK, error="database is locked")
    assert (state().error, state().succeeded_at) == ("database is locked", None)
    clock.move_ms(TASK.every)
    begin()
    assert state().is_running and state().error == "database is locked"
    jobs.finish(TASK)
    assert (state().error, state().succeeded_at) == (None, clock.now())


def test_a_run_whose_process_has_gone_neither_runs_nor_ended(app: Flask, clock: Clock) -> None:
    begin()
    clock.move_ms(jobs.LEASE - 1)
    assert state().is_running
    clock.move_ms(1)
    found = state()
    assert found.has_stopped and not found.is_running and found.is_due
    assert found.took is None


def test_the_time_before_a_clock_was_set_back_holds_nothing_up(app: Flask, clock: Clock) -> None:
    begin()
    jobs.finish(TASK)
    begin(retention.TASK)
    clock.move_ms(-10 * TASK.every)
    assert state().is_due
    assert not state(retention.TASK).is_running


# --- messages -----------------------------------------------------------------------------------


def test_what_waits_is_counted_by_channel_since_the_oldest(project: Project, clock: Clock) -> None:
    oldest = clock.now()
    add_letter(next_attempt_at=oldest + 9_000)
    add_delivery(project, next_attempt_at=oldest)
    clock.move("1h")
    for channel in (MAIL, APPRISE):
        add_letter(channel)
    add_letter(status=DELIVERED, next_attempt_at=None)
    add_delivery(project, status=DELIVERED)
    found = {one.channel: (one.waiting, one.oldest_at) for one in status.messages()}
    assert found == {WEBHOOK: (1, oldest), MAIL: (2, oldest), APPRISE: (1, clock.now())}


def test_what_was_given_up_within_a_day_is_counted(project: Project, clock: Clock) -> None:
    now = clock.now()
    add_failed(now - DAY)
    add_failed(now - DAY - 1)
    add_failed(now, channel=APPRISE, created_at=now - status.LOOKED_BACK)
    add_failed(now, channel=APPRISE, created_at=now - status.LOOKED_BACK - 1)
    add_delivery(project, status=FAILED, last_attempt_at=now, error="it answered 500")
    add_delivery(project, status=PENDING, last_attempt_at=now, error="it answered 500")
    assert {one.channel: one.failed for one in status.messages()} == {
        WEBHOOK: 1, MAIL: 1, APPRISE: 1,
    }  # fmt: skip


def test_the_last_failure_is_also_of_what_is_tried_again(project: Project, clock: Clock) -> None:
    now = clock.now()
    add_failed(now - 9_000)
    add_letter(last_attempt_at=now - 4_000, error="The mail server is silent.")
    add_letter(last_attempt_at=now, status=DELIVERED, next_attempt_at=None)
    add_failed(now - DAY - 1, channel=APPRISE)
    add_delivery(project, status=FAILED, error="the webhook was disabled")  # never tried
    assert status.last_failures() == {MAIL: Failure(now - 4_000, "The mail server is silent.")}


def test_no_more_are_counted_than_so_many(
    project: Project, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        add_letter()
        add_failed(clock.now())
        add_alert(project)
    assert (messages(MAIL).waiting, messages(MAIL).all_waiting) == (4, True)
    assert (messages(MAIL).failed, messages(MAIL).all_failed) == (4, True)
    assert status.open_alerts() == 4
    monkeypatch.setattr(status, "COUNTED_MAX", 3)
    monkeypatch.setattr(status, "LOOKED_AT_MAX", 2)
    assert (messages(MAIL).waiting, messages(MAIL).all_waiting) == (3, False)
    assert (messages(MAIL).failed, messages(MAIL).all_failed) == (2, False)
    assert status.open_alerts() == 3


@pytest.fixture
def asked(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are run, and what with."""
    run: list[tuple[str, Any]] = []
    execute = type(db.handle.obj).execute_sql

    def noted(self: Any, sql: str, params: Any = None, *more: Any, **named: Any) -> Any:
        run.append((sql, params))
        return execute(self, sql, params, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(db.handle.obj), "execute_sql", noted)
        yield run


@pytest.mark.sqlite  # the plan is its own
def test_every_number_is_asked_by_an_index_and_within_bounds(
    config: Config, owner: Actor, asked: list[tuple[str, Any]]
) -> None:
    asked.clear()
    status.look(config.data_dir, by=owner)
    status.open_alerts()
    statements = [one for one in asked if ' FROM "job"' not in one[0]]
    assert len(statements) == 10
    for sql, params in statements:
        assert " LIMIT ?" in sql
        plan = [row[3] for row in db.handle.execute_sql(f"explain query plan {sql}", params)]
        tables = [line for line in plan if re.match(r"(SCAN|SEARCH) t\d", line)]
        assert tables and all(" INDEX " in line for line in tables), (sql, plan)


# --- the page -----------------------------------------------------------------------------------


def page(browser: FlaskClient) -> str:
    answer = browser.get("/status")
    assert answer.status_code == 200
    return html.unescape(answer.text)


def row(text: str, name: str) -> str:
    """The words of a row of one of its tables."""
    found = re.search(rf'<tr id="{name}">(.*?)</tr>', text, re.DOTALL)
    assert found is not None, name
    return " ".join(re.sub(r"<[^>]*>", " ", found[1]).split())


def test_the_page_is_for_owners(
    app: Flask, client: FlaskClient, admin: Actor, config: Config
) -> None:
    assert client.get("/status").location == "/login?next=/status"
    assert sign_in(app, admin).get("/status").status_code == 403
    with pytest.raises(Forbidden):
        status.look(config.data_dir, by=admin)


def test_the_rail_leads_owners_there(app: Flask, signed_in: FlaskClient, admin: Actor) -> None:
    link = 'All events</a></li><li><a href="/status" aria-current="page">Status</a>'
    assert link in page(signed_in)
    assert 'href="/status"' not in sign_in(app, admin).get("/projects/shop/keys").text


def test_the_page_says_what_serves_and_since_when(
    app: Flask, signed_in: FlaskClient, config: Config, clock: Clock
) -> None:
    app.config[installation.SERVES_SINCE] = clock.now()
    text = page(signed_in)
    assert f">{__version__}<" in text
    assert "20 Nov 2026, 10:30 UTC" in text
    assert '<a class="button" href="/status">Refresh</a>' in text
    if db.is_sqlite():
        assert ".".join(map(str, db.sqlite_version())) in text
    else:
        assert "PostgreSQL" in text


def test_each_application_notes_when_it_began(app: Flask) -> None:
    before = clock.now()
    other = Flask("other")
    other.register_blueprint(installation.blueprint)
    assert before <= other.config[installation.SERVES_SINCE] <= clock.now()
    assert app.config[installation.SERVES_SINCE] <= before


def test_the_size_is_of_the_file_and_of_its_wal(signed_in: FlaskClient, config: Config) -> None:
    found = status.database()
    if not db.is_sqlite():
        assert found.size > 1_000_000 and found.wal_size is None
        assert re.fullmatch(r"PostgreSQL \d+\.\d+", found.name)
        assert re.search(r"Its size</dt><dd>[\d.]+ MB</dd>", page(signed_in))
        return
    file = Path(config.data_dir / "latchkey.db")
    assert found.size == file.stat().st_size > 100_000
    assert found.wal_size == Path(f"{file}-wal").stat().st_size > 0
    assert re.search(r"[\d.]+ kB, and [\d.]+ [kM]B of WAL", page(signed_in))


def fact(text: str, title: str) -> str:
    """The words of one of the facts at its head."""
    found = re.search(rf"<dt>{title}</dt><dd>(.*?)</dd>", text, re.DOTALL)
    assert found is not None, title
    return " ".join(re.sub(r"<[^>]*>", " ", found[1]).split())


def test_the_page_says_what_waits_in_the_journal_and_how_much_is_free(
    signed_in: FlaskClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=78_000_000_000))
    assert fact(page(signed_in), "Entries waiting in the journal") == "None"
    assert fact(page(signed_in), "Free on the data's disk") == "78.0 GB"
    _, text = make_key()
    for number in range(3):
        check.check(check.Request(secret=text, request_id=f"req_{number}"))
    assert (journal.waiting(), fact(page(signed_in), "Entries waiting in the journal")) == (3, "3")
    journal.settle()
    assert fact(page(signed_in), "Entries waiting in the journal") == "None"


def test_the_page_says_when_the_last_backup_was(signed_in: FlaskClient, clock: Clock) -> None:
    never = fact(page(signed_in), "Last backup")
    if db.is_sqlite():
        assert never == "Never python -m console backup FILE"
    else:
        assert never == "Not known here PostgreSQL: by pg_dump"
    facts.note(facts.LAST_BACKUP, '{"bytes": 4100000}')
    clock.move("3d")
    assert fact(page(signed_in), "Last backup") == "3 days ago , 4.1 MB"


def test_redis_is_asked_where_there_is_one(
    signed_in: FlaskClient, client: FlaskClient, families: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "<dt>Redis</dt>" not in page(signed_in)
    assert families()["latchkey_redis_up"].samples == []
    gone = limits.RedisStore(f"redis://:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setattr(limits, "_store", gone)
    assert fact(page(signed_in), "Redis") == "Does not answer"
    assert families()["latchkey_redis_up"].samples[0].value == 0
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (
        200, {"status": "degraded", "reason": "Redis does not answer"},
    )  # fmt: skip


def test_redis_that_answers_is_well(
    signed_in: FlaskClient, client: FlaskClient, families: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_redis(REDIS_URL)
    monkeypatch.setattr(limits, "_store", limits.RedisStore(REDIS_URL))
    assert fact(page(signed_in), "Redis") == "Answers"
    assert families()["latchkey_redis_up"].samples[0].value == 1
    assert client.get("/readyz").get_json() == {"status": "ok"}


def test_the_page_says_the_state_of_each_job(signed_in: FlaskClient, clock: Clock) -> None:
    assert [row(page(signed_in), f"job-{name}") for name in NAMES] == [
        f"{task.name} {task.about} Not run yet – Due now – –" for task in worker.TASKS
    ]
    turn = begin()
    with turn.write(done=1_240):
        pass
    clock.move_ms(12_000)
    about = f"{TASK.name} {TASK.about}"
    job = f"job-{TASK.name}"
    assert row(page(signed_in), job) == f"{about} Running 1,240 done in 12 s – – – –"
    jobs.finish(TASK)
    clock.move_ms(5_000)
    expected = f"{about} Waiting just now within a minute 12.0 s 1,240"
    assert row(page(signed_in), job) == expected
    clock.move_ms(TASK.every)
    begin()
    jobs.finish(TASK, error="database is locked")
    clock.move("3m")
    expected = f"{about} Failed database is locked, 3 min ago 3 min ago Due for 2 min 0 ms 0"
    assert row(page(signed_in), job) == expected
    begin()
    jobs.finish(TASK)
    clock.move("2m")
    begin()
    clock.move("4m")
    expected = f"{about} Waiting Stopped half-way began 4 min ago Due for 5 min – –"
    assert row(page(signed_in), job) == expected


def test_the_page_shows_the_words_of_an_error_as_text(signed_in: FlaskClient) -> None:
    begin()
    jobs.finish(TASK, error="<script>alert(1)</script>")
    add_failed(clock.now(), "<script>alert(2)</script>")
    text = signed_in.get("/status").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text and "&lt;script&gt;alert(2)" in text


def test_the_page_says_what_waits_and_what_failed(
    signed_in: FlaskClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert row(page(signed_in), "messages-webhook") == "Webhooks None – 0"
    for _ in range(3):
        add_letter()
    add_failed(clock.now())
    clock.move("2h")
    expected = f"Mail 3, the oldest for 2 h {REFUSED} 2 h ago 1"
    assert row(page(signed_in), "messages-mail") == expected
    assert row(page(signed_in), "messages-apprise") == "Apprise None – 0"
    monkeypatch.setattr(status, "COUNTED_MAX", 3)
    assert "3 or more, the oldest" in row(page(signed_in), "messages-mail")


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_999, "59.9 s"),
        (250_000, "4 min 10 s"),
        (7_500_000, "2 h 5 min"),
    ],
)
def test_how_long_a_run_took_is_said_exactly(milliseconds: int, words: str) -> None:
    assert installation._length(milliseconds) == words


# --- who may read the metrics ---------------------------------------------------------------------


def read(client: FlaskClient, peer: str = "127.0.0.1", **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/metrics", headers=names, environ_base={"REMOTE_ADDR": peer})


@pytest.fixture
def with_token(app: Flask, config: Config) -> None:
    app.config["LATCHKEY"] = replace(config, metrics_token=TOKEN)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1"])
def test_without_a_token_this_machine_reads_the_metrics(client: FlaskClient, peer: str) -> None:
    assert read(client, peer).status_code == 200


@pytest.mark.parametrize("peer", ["10.0.0.5", "203.0.113.7", "2001:db8::1", "", "nonsense"])
def test_without_a_token_nobody_else_does(client: FlaskClient, peer: str) -> None:
    answer = read(client, peer)
    assert answer.status_code == 403
    assert answer.text.count(".") == 1 and "LATCHKEY_METRICS_TOKEN" in answer.text
    assert answer.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize("value", ["127.0.0.1", "203.0.113.7", ""])
@pytest.mark.parametrize("name", metrics.FORWARDED)
def test_without_a_token_no_proxy_reads_them_for_others(
    client: FlaskClient, name: str, value: str
) -> None:
    assert read(client, **{name: value}).status_code == 403


def test_the_forwarding_headers_are_known() -> None:
    assert {"X-Forwarded-For", "Forwarded"} <= set(metrics.FORWARDED)


@pytest.mark.usefixtures("with_token")
@pytest.mark.parametrize("peer", ["127.0.0.1", "203.0.113.7"])
def test_with_a_token_whoever_shows_it_reads_them(client: FlaskClient, peer: str) -> None:
    assert read(client, peer, Authorization=f"Bearer {TOKEN}").status_code == 200
    forwarded = {"X-Forwarded-For": "203.0.113.7", "Authorization": f"bearer {TOKEN}"}
    assert read(client, peer, **forwarded).status_code == 200


@pytest.mark.usefixtures("with_token")
@pytest.mark.parametrize(
    "credential",
    ["", TOKEN, "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}",
     f"Token {TOKEN}", "Bearer ü", f"Bearer {TOKEN}, Bearer {TOKEN}"],
)  # fmt: skip
def test_with_a_token_nothing_else_will_do(client: FlaskClient, credential: str) -> None:
    answer = read(client, Authorization=credential)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="latchkey"')
    assert "LATCHKEY_METRICS_TOKEN" in answer.text and TOKEN not in answer.text
    assert answer.content_type == "text/plain; charset=utf-8"


@pytest.mark.usefixtures("with_token")
def test_a_challenge_names_an_error_only_where_something_was_sent(client: FlaskClient) -> None:
    assert read(client).headers["WWW-Authenticate"] == 'Bearer realm="latchkey"'
    wrong = read(client, Authorization="Bearer wrong").headers["WWW-Authenticate"]
    assert wrong == 'Bearer realm="latchkey", error="invalid_token"'


@pytest.mark.usefixtures("with_token")
def test_no_session_and_no_key_reads_them(signed_in: FlaskClient, make_key: MakeKey) -> None:
    _, text = make_key(name="All", permissions=["*"])
    assert read(signed_in).status_code == 401
    assert read(signed_in, **bearer(text)).status_code == 401
    assert read(signed_in, X_API_Key=TOKEN).status_code == 401


def test_no_session_reads_them_from_elsewhere(signed_in: FlaskClient, make_key: MakeKey) -> None:
    _, text = make_key(name="All", permissions=["*"])
    assert read(signed_in, "203.0.113.7", **bearer(text)).status_code == 403


@pytest.mark.usefixtures("with_token")
def test_the_token_is_compared_in_constant_time(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return True

    monkeypatch.setattr(secrets, "compare_digest", compare)
    assert read(client, Authorization="Bearer other").status_code == 200
    assert compared == [(b"other", TOKEN.encode())]


def test_the_answer_is_not_kept_and_starts_no_session(signed_in: FlaskClient) -> None:
    for answer in (read(signed_in), read(signed_in, "203.0.113.7")):
        assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert "Set-Cookie" not in answer.headers
    assert read(signed_in).content_type == CONTENT_TYPE_LATEST


@pytest.mark.parametrize("refused", [peewee.OperationalError, peewee.InterfaceError])
def test_without_the_database_there_are_no_metrics(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, refused: type[Exception]
) -> None:
    def fails() -> None:
        raise refused("no database")

    monkeypatch.setattr(jobs, "all_rows", fails)
    answer = read(client)
    assert answer.status_code == 503
    assert answer.text == "The database cannot be used at the moment.\n"


# --- what the metrics say -------------------------------------------------------------------------


@pytest.fixture
def families(client: FlaskClient) -> Any:
    def ask() -> dict[str, Metric]:
        answer = read(client)
        assert answer.status_code == 200
        return {family.name: family for family in text_string_to_metric_families(answer.text)}

    return ask


def figures(family: Metric) -> dict[str, float]:
    """By the one label that each has."""
    return {next(iter(one.labels.values())): one.value for one in family.samples}


def test_the_metrics_are_these_and_each_is_explained(families: Any) -> None:
    found = families()
    ours = {name for name in found if name.startswith("latchkey")}
    assert ours == {
        "latchkey_info", "latchkey_job_last_success_timestamp_seconds",
        "latchkey_job_last_duration_seconds", "latchkey_job_running", "latchkey_job_failed",
        "latchkey_job_items", "latchkey_messages_waiting", "latchkey_messages_failed_last_day",
        "latchkey_alerts_open", "latchkey_checks", "latchkey_entries_waiting", "latchkey_redis_up",
        "latchkey_database_bytes", "latchkey_data_free_bytes",
        "latchkey_last_backup_timestamp_seconds",
    }  # fmt: skip
    assert all(found[name].documentation.endswith(".") for name in ours)
    assert "process_resident_memory_bytes" in found
    assert [one.labels for one in found["latchkey_info"].samples] == [{"version": __version__}]


def test_every_metric_is_documented(families: Any) -> None:
    document = (ROOT / "docs/operations.md").read_text()
    for name, family in families().items():
        shown = f"{name}_total" if family.type == "counter" else name
        assert f"`{shown}`" in document or name.startswith("process_"), name


def test_the_metrics_tell_of_each_job(families: Any, clock: Clock) -> None:
    found = families()
    zeros = dict.fromkeys(NAMES, 0.0)
    for name in ("running", "failed", "items"):
        assert figures(found[f"latchkey_job_{name}"]) == zeros
    for name in ("last_success_timestamp_seconds", "last_duration_seconds"):
        assert figures(found[f"latchkey_job_{name}"]) == {}
    with begin().write(done=5):
        pass
    found = families()
    assert figures(found["latchkey_job_running"])[TASK.name] == 1
    assert figures(found["latchkey_job_items"])[TASK.name] == 5
    clock.move_ms(1_500)
    jobs.finish(TASK)
    found = families()
    assert figures(found["latchkey_job_running"]) == zeros
    ended_at = clock.now() / 1_000
    assert figures(found["latchkey_job_last_success_timestamp_seconds"]) == {TASK.name: ended_at}
    assert figures(found["latchkey_job_last_duration_seconds"]) == {TASK.name: 1.5}
    assert figures(found["latchkey_job_items"])[TASK.name] == 5


def test_the_metrics_tell_of_a_job_that_fails(families: Any, clock: Clock) -> None:
    begin()
    jobs.finish(TASK, error="database is locked")
    found = families()
    assert figures(found["latchkey_job_failed"])[TASK.name] == 1
    assert figures(found["latchkey_job_last_success_timestamp_seconds"]) == {}
    clock.move_ms(TASK.every)
    begin()
    assert figures(families()["latchkey_job_failed"])[TASK.name] == 1
    jobs.finish(TASK)
    assert figures(families()["latchkey_job_failed"])[TASK.name] == 0


def test_the_metrics_count_messages_and_alerts(
    families: Any, project: Project, clock: Clock
) -> None:
    add_letter()
    add_letter(APPRISE)
    add_letter(APPRISE)
    add_failed(clock.now())
    add_delivery(project, status=FAILED, last_attempt_at=clock.now(), error="it answered 500")
    found = families()
    assert figures(found["latchkey_messages_waiting"]) == {WEBHOOK: 0, MAIL: 1, APPRISE: 2}
    assert figures(found["latchkey_messages_failed_last_day"]) == {
        WEBHOOK: 1, MAIL: 1, APPRISE: 0,
    }  # fmt: skip
    assert [one.value for one in found["latchkey_alerts_open"].samples] == [0]
    add_alert(project)
    add_alert(project, ACKNOWLEDGED)
    assert [one.value for one in families()["latchkey_alerts_open"].samples] == [1]


def test_the_metrics_count_checks_by_code(
    families: Any, client: FlaskClient, make_key: MakeKey
) -> None:
    def counted() -> dict[str, float]:
        return figures(families()["latchkey_checks"])

    _, text = make_key(permissions=["keys:verify"])
    before = counted()
    assert before.keys() == check.CODES.keys()
    client.post("/api/v1/verify", json={"key": text}, headers=bearer(text))  # two checks
    client.post("/api/v1/verify", json={"key": "?"}, headers=bearer(text))
    client.get("/api/v1/whoami")
    client.post("/api/v1/verify", json={"key": text, "dry_run": True}, headers=bearer(text))
    found = {code: number - before[code] for code, number in counted().items()}
    assert {code: number for code, number in found.items() if number} == {
        "VALID": 4, "API_KEY_MALFORMED": 1, "API_KEY_MISSING": 1,
    }  # fmt: skip


def test_no_check_is_lost_from_the_count_by_others_at_once(app: Flask) -> None:
    before, many = check.counts()["VALID"], 20_000
    verdict, interval = check.Verdict("VALID", "req_1", 0), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        at_once(8, lambda _: [check._counted(verdict) for _ in range(many)])
    finally:
        sys.setswitchinterval(interval)
    assert check.counts()["VALID"] == before + 8 * many


def test_the_metrics_tell_of_storage_and_backup(
    families: Any, make_key: MakeKey, clock: Clock
) -> None:
    def value(name: str) -> float:
        [sample] = families()[f"latchkey_{name}"].samples
        return float(sample.value)

    assert families()["latchkey_last_backup_timestamp_seconds"].samples == []
    facts.note(facts.LAST_BACKUP, "{}")
    assert value("last_backup_timestamp_seconds") == clock.now() / 1_000
    assert value("database_bytes") == status.database().whole_size
    assert value("data_free_bytes") > 0
    _, text = make_key()
    check.check(check.Request(secret=text, request_id="req_1"))
    assert value("entries_waiting") == 1
    journal.settle()
    assert value("entries_waiting") == 0


def test_the_metrics_name_nobody_and_no_key(
    client: FlaskClient, owner: Actor, make_key: MakeKey, project: Project
) -> None:
    key, text = make_key(name="Deploy")
    add_failed(clock.now(), f"bob@example.com was refused for {key.id}")
    add_delivery(project, next_attempt_at=clock.now())
    begin()
    jobs.finish(TASK, error=f"{key.id} in {project.slug}")
    answer = read(client).text
    for secretive in (key.id, key.prefix, text, "Deploy", "example.com", "shop", project.id):
        assert secretive not in answer
    labels = {
        (name, value)
        for family in text_string_to_metric_families(answer)
        if family.name.startswith("latchkey")
        for sample in family.samples
        for name, value in sample.labels.items()
    }
    assert labels == {
        ("version", __version__),
        *(("job", name) for name in NAMES),
        *(("channel", name) for name in (WEBHOOK, MAIL, APPRISE)),
        *(("code", code) for code in check.CODES),
    }


def test_each_application_has_metrics_of_its_own(
    app: Flask, client: FlaskClient, config: Config
) -> None:
    other = Flask("other")
    other.config["LATCHKEY"] = config
    other.register_blueprint(metrics.blueprint)
    ours, theirs = app.extensions[metrics.REGISTRY], other.extensions[metrics.REGISTRY]
    assert ours is not theirs
    for registry in (ours, theirs):
        assert generate_latest(registry).count(b"\nlatchkey_alerts_open 0.0\n") == 1
    assert read(client).status_code == 200
