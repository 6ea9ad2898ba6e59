"""Keys that renew themselves, alerts, letters, jobs, and a project's rules for all of these."""

from peewee import (
    BigIntegerField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Model,
    SqliteDatabase,
    TextField,
)

COLUMNS = (
    """ALTER TABLE "project" ADD COLUMN "alerts" {json} NOT NULL DEFAULT '{{}}'""",
    'ALTER TABLE "project" ADD COLUMN "rotation_policy" {json}',
    'ALTER TABLE "project" ADD COLUMN "calendar_digest" TEXT',
    'ALTER TABLE "project" ADD COLUMN "calendar_made_at" {bigint}',
    'ALTER TABLE "key" ADD COLUMN "renewal_period" TEXT',
    'ALTER TABLE "key" ADD COLUMN "ends_set_at" {bigint}',
)
INDEXES = (
    'CREATE INDEX "key_ends" ON "key" ("expires_at") WHERE ("expires_at" IS NOT NULL)',
    'CREATE INDEX "alert_key_id" ON "alert" ("key_id")',
    'CREATE UNIQUE INDEX "alert_subject_kind_cause_window_at" ON "alert" ("subject", "kind", "cause", "window_at")',
    'CREATE INDEX "alert_project_id_state_created_at_id" ON "alert" ("project_id", "state", "created_at", "id")',
    'CREATE INDEX "alert_state_created_at_id" ON "alert" ("state", "created_at", "id")',
    'CREATE INDEX "place_last_at" ON "place" ("last_at")',
    'CREATE INDEX "letter_created_at" ON "letter" ("created_at")',
    'CREATE INDEX "letter_due" ON "letter" ("next_attempt_at") WHERE ("next_attempt_at" IS NOT NULL)',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Project(Model):
        id = TextField(primary_key=True)

        class Meta:
            database = db
            table_name = "project"

    class Key(Model):
        id = TextField(primary_key=True)

        class Meta:
            database = db
            table_name = "key"

    class Alert(Model):
        id = TextField(primary_key=True)
        project = ForeignKeyField(Project, null=True, on_delete="CASCADE", index=False)
        key = ForeignKeyField(Key, null=True, on_delete="CASCADE", index=False)
        kind = TextField()
        subject = TextField()
        cause = TextField()
        window_at = BigIntegerField()
        state = TextField()
        count = BigIntegerField(default=1)
        created_at = BigIntegerField()
        last_at = BigIntegerField()
        facts = JSONField(default=dict)
        decided_at = BigIntegerField(null=True)
        decided_by = TextField(null=True)

        class Meta:
            database = db
            table_name = "alert"

    class Place(Model):
        key = ForeignKeyField(Key, on_delete="CASCADE", index=False)
        kind = TextField()
        value = TextField()
        first_at = BigIntegerField()
        last_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "place"
            primary_key = CompositeKey("key", "kind", "value")

    class Letter(Model):
        id = TextField(primary_key=True)
        channel = TextField()
        recipient = TextField()
        subject = TextField()
        text = TextField()
        status = TextField()
        attempts = IntegerField(default=0)
        created_at = BigIntegerField()
        last_attempt_at = BigIntegerField(null=True)
        next_attempt_at = BigIntegerField(null=True)
        leased_until = BigIntegerField(default=0)
        error = TextField(null=True)

        class Meta:
            database = db
            table_name = "letter"

    class Job(Model):
        name = TextField(primary_key=True)
        holder = TextField(null=True)
        leased_until = BigIntegerField(default=0)
        next_at = BigIntegerField(default=0)
        started_at = BigIntegerField(null=True)
        finished_at = BigIntegerField(null=True)
        done = BigIntegerField(default=0)
        position = BigIntegerField(default=0)
        succeeded_at = BigIntegerField(null=True)
        failed_at = BigIntegerField(null=True)
        error = TextField(null=True)

        class Meta:
            database = db
            table_name = "job"

    is_sqlite = isinstance(db, SqliteDatabase)
    kinds = {
        "json": "TEXT" if is_sqlite else "JSONB",
        "bigint": "INTEGER" if is_sqlite else "BIGINT",
    }
    for statement in COLUMNS:
        db.execute_sql(statement.format(**kinds))
    db.create_tables([Alert, Place, Letter, Job])
    for statement in INDEXES:
        db.execute_sql(statement)
