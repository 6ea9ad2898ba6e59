"""Addresses that are told of a project's events, and what they are told."""

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)

INDEXES = (
    'CREATE INDEX "webhook_project_id_created_at_id" ON "webhook" ("project_id", "created_at", "id")',
    'CREATE INDEX "delivery_created_at" ON "delivery" ("created_at")',
    'CREATE INDEX "delivery_webhook_id_created_at_id" ON "delivery" ("webhook_id", "created_at", "id")',
    'CREATE INDEX "delivery_due" ON "delivery" ("webhook_id", "next_attempt_at") WHERE ("next_attempt_at" IS NOT NULL)',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Project(Model):
        id = TextField(primary_key=True)

        class Meta:
            database = db
            table_name = "project"

    class Webhook(Model):
        id = TextField(primary_key=True)
        project = ForeignKeyField(Project, on_delete="CASCADE", index=False)
        url = TextField()
        description = TextField(default="")
        events = JSONField(default=list)
        enabled = BooleanField(default=True)
        disabled_reason = TextField(null=True)
        secret = BlobField()
        previous_secret = BlobField(null=True)
        previous_works_until = BigIntegerField(null=True)
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        leased_until = BigIntegerField(default=0)

        class Meta:
            database = db
            table_name = "webhook"

    class Delivery(Model):
        id = TextField(primary_key=True)
        webhook = ForeignKeyField(Webhook, on_delete="CASCADE", index=False)
        message_id = TextField()
        event = TextField()
        payload = TextField()
        status = TextField()
        attempts = IntegerField(default=0)
        created_at = BigIntegerField()
        last_attempt_at = BigIntegerField(null=True)
        next_attempt_at = BigIntegerField(null=True)
        response_status = IntegerField(null=True)
        error = TextField(null=True)
        duration_ms = BigIntegerField(null=True)

        class Meta:
            database = db
            table_name = "delivery"

    db.create_tables([Webhook, Delivery])
    for statement in INDEXES:
        db.execute_sql(statement)
