"""Entries come from a journal in batches; usage is counted for keys and projects, months included;
and, on SQLite, the database counts the changes that a remembered key could miss."""

from collections import Counter
from datetime import UTC, datetime

from peewee import BigIntegerField, CompositeKey, IntegerField, Model, SqliteDatabase, TextField

CHANGES = {
    # What a batch of entries writes is no change: it always moves these two columns.
    "key_edited": 'UPDATE ON "key" WHEN old.requests_total IS new.requests_total',
    "key_deleted": 'DELETE ON "key"',
    "secret_edited": 'UPDATE ON "secret" WHEN old.last_used_at IS new.last_used_at',
    "secret_deleted": 'DELETE ON "secret"',
    "project_edited": 'UPDATE ON "project"',
    "person_edited": 'UPDATE ON "person"',
}


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Change(Model):
        id = IntegerField(primary_key=True)
        count = BigIntegerField()

        class Meta:
            database = db
            table_name = "change"

    class Drained(Model):
        journal = TextField(primary_key=True)
        position = BigIntegerField()

        class Meta:
            database = db
            table_name = "drained"

    class Usage(Model):
        subject_id = TextField()
        unit = TextField()
        start_at = BigIntegerField()
        allowed = BigIntegerField(default=0)
        denied = BigIntegerField(default=0)

        class Meta:
            database = db
            table_name = "usage"
            primary_key = CompositeKey("subject_id", "unit", "start_at")

    counts = _counts(db.execute_sql(
        'SELECT "key_id", "project_id", "unit", "start_at", "allowed", "denied" FROM "usage"'
    ).fetchall())  # fmt: skip
    db.execute_sql('DROP TABLE "usage"')
    db.create_tables([Change, Drained, Usage])
    db.execute_sql('CREATE INDEX "entry_request_id" ON "entry" ("request_id")')
    db.execute_sql('CREATE INDEX "usage_unit_start_at" ON "usage" ("unit", "start_at")')
    db.execute_sql('INSERT INTO "change" ("id", "count") VALUES (1, 0)')
    rows = [(*group, *count) for group, count in counts.items()]
    for start in range(0, len(rows), 100):
        Usage.insert_many(rows[start : start + 100]).execute()
    if isinstance(db, SqliteDatabase):
        for name, event in CHANGES.items():
            db.execute_sql(
                f'CREATE TRIGGER "{name}" AFTER {event} '
                'BEGIN UPDATE "change" SET "count" = "count" + 1; END'
            )


def _counts(rows):  # type: ignore[no-untyped-def]
    """The old counts of keys by hour and day, and their sums by project and by month."""
    allowed, denied = Counter(), Counter()
    for key_id, project_id, unit, start_at, let_in, refused in rows:
        moment = datetime.fromtimestamp(start_at / 1000, UTC)
        month = int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp() * 1000)
        periods = [(unit, start_at)] + ([("month", month)] if unit == "day" else [])
        for subject in (key_id, project_id):
            for period in periods:
                allowed[subject, *period] += let_in
                denied[subject, *period] += refused
    return {group: (allowed[group], denied[group]) for group in allowed}
