"""A plugin of pytest: any other tests, once more, with a call of the database that fails.

    FAIL_AT=7 .venv/bin/python -m pytest -p tests.faults.everywhere tests/test_keys.py

In each test, of all calls that requests to the application make, the one with that number raises
OperationalError, once. What the test itself expects is then beside the point, and its outcome is
not looked at; instead this is held: the request that met the fault left all as it was, or was
answered as done; it was no 500 and told nothing of the fault; and no check was answered 200 without
its entry.

What a test does without a request (`keys.create(…)`) is not touched: where an operation of several
transactions begins and ends only a door knows.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from console import forward_auth, journal
from console.models import Entry
from tests.faults.failing_calls import LEAKS, Calls, patched, state

FAIL_AT = int(os.environ.get("FAIL_AT", "0"))
WATCHED = pytest.StashKey["Watch"]()


class Watch:
    """The application behind it, and what it does that it may not."""

    def __init__(self, app: Flask, calls: Calls) -> None:
        self.inner, self.calls = app.wsgi_app, calls
        self.wrong: list[str] = []
        app.wsgi_app = self  # type: ignore[method-assign]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        had_failed = bool(self.calls.failed_at)
        started: list[Any] = []

        def start(status: str, headers: Any, *more: Any) -> Any:
            started[:] = [int(status[:3]), dict(headers)]
            return start_response(status, headers, *more)

        with self.calls.request():
            body = self.inner(environ, start)
        if self.calls.failed_at and not had_failed:
            body = [b"".join(body)]
            self._look(environ, *started, body[0].decode(errors="replace"))
        return body

    def _look(self, environ: Any, status: int, headers: dict[str, str], text: str) -> None:
        where = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ({self.calls.failed_at[:80]})"
        if found := [one for one in LEAKS if one in text]:
            self.wrong.append(f"{where}: leaks {found}")
        if status == 500:
            self.wrong.append(f"{where}: is 500")
        if status >= 500 and state() != self.calls.before:
            self.wrong.append(f"{where}: {status}, and something was changed")
        if status == 200 and forward_auth.route_of(environ["PATH_INFO"]):
            journal.settle()
            asked = headers["X-Request-Id"]
            if not Entry.select().where(Entry.request_id == asked).exists():
                self.wrong.append(f"{where}: 200, and no entry")


@pytest.fixture(autouse=True)
def _failing(request: pytest.FixtureRequest) -> Iterator[None]:
    if not FAIL_AT or "app" not in request.fixturenames:
        yield
        return
    app = request.getfixturevalue("app")
    with pytest.MonkeyPatch.context() as patch:
        calls = patched(patch)
        watch = Watch(app, calls)
        request.node.stash[WATCHED] = watch
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What a test needs is there; from now on calls are counted."""
    watch = item.stash.get(WATCHED, None)
    if watch is not None:
        watch.calls.begin(failing=FAIL_AT)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    watch = item.stash.get(WATCHED, None)
    if watch is not None and watch.calls.failed_at and report.when == "call":
        report.outcome = "failed" if watch.wrong else "passed"
        report.longrepr = "\n".join(watch.wrong) if watch.wrong else None
