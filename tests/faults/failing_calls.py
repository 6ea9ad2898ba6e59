"""The n-th call of the database fails, once, as it does when a disk has a fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import peewee
import pytest
from flask import Flask

from console import db
from console.models import Session
from tests.test_events_complete import everything

WORDS = "disk I/O error"
# What no answer may tell of it.
LEAKS = (WORDS, "Traceback", "OperationalError", "peewee", "sqlite3", "psycopg")


def state() -> dict[str, list[Any]]:
    """All that an operation might change; that a session was used is no change."""
    kept = [one for one in Session._meta.sorted_fields if one.name != "last_seen_at"]
    return {**everything(), "Session": sorted(map(repr, Session.select(*kept).tuples()))}


class Calls:
    """Counts what the database is called for within requests; the call with the number `failing`
    raises.

    SQLite ends its transaction by itself with most such errors: `rolls_back`. With `only` the
    request of that number counts alone. `before` is the state ahead of the request that counts,
    or of that in which a call has failed.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, failing: int = 0, rolls_back: bool = False, only: int = 0) -> None:
        """Counts from the beginning."""
        self.failing, self.rolls_back, self.only = failing, rolls_back, only
        self.made = self.requests = 0
        self.counts = False
        self.failed_at = ""
        self.before: dict[str, list[Any]] = {}

    def call(self, what: str) -> None:
        """Another one; raises OperationalError where it is the one to fail."""
        if not self.counts:
            return
        self.made += 1
        if self.made == self.failing:
            self.failed_at = what
            if self.rolls_back and db.is_sqlite():
                with suppress(peewee.sqlite3.OperationalError):  # there is no transaction
                    db.handle.connection().execute("rollback")
            raise peewee.OperationalError(WORDS)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Within it calls are counted."""
        self.requests += 1
        counts = not self.counts and self.only in (0, self.requests)
        if counts and not self.failed_at:
            self.before = state()
        self.counts = self.counts or counts
        try:
            yield
        finally:
            if counts:
                self.counts = False

    def watch(self, app: Flask) -> None:
        inner = app.wsgi_app

        def counted(environ: Any, start_response: Any) -> Any:
            with self.request():
                return inner(environ, start_response)

        app.wsgi_app = counted  # type: ignore[method-assign]


def patched(patch: pytest.MonkeyPatch) -> Calls:
    """The calls of the database that is open now, until the patch is undone."""
    calls, kind = Calls(), type(db.handle.obj)

    def count(owner: Any, name: str, what: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **named: Any) -> Any:
            calls.call(what(*args))
            return original(*args, **named)

        patch.setattr(owner, name, counted)

    count(kind, "execute_sql", lambda self, sql, *_: sql)
    count(kind, "begin", lambda *_: "begin")
    count(kind, "commit", lambda *_: "commit")
    count(db, "execute_many", lambda sql, *_: sql)
    return calls
