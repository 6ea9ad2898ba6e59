"""The first schema: a copy frozen in time, apart from the models, which move on."""

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)

INDEXES = (
    'CREATE INDEX "key_project_id_name_sort_id" ON "key" ("project_id", "name_sort", "id")',
    'CREATE INDEX "key_project_id_created_at_id" ON "key" ("project_id", "created_at", "id")',
    'CREATE INDEX "key_project_id_expires_order_id" ON "key" ("project_id", "expires_order", "id")',
    'CREATE INDEX "key_project_id_last_used_order_id" ON "key" ("project_id", "last_used_order", "id")',
    'CREATE UNIQUE INDEX "secret_current" ON "secret" ("key_id") WHERE ("superseded_at" IS NULL)',
    'CREATE INDEX "entry_key_id_id" ON "entry" ("key_id", "id")',
    'CREATE INDEX "entry_project_id_id" ON "entry" ("project_id", "id")',
    'CREATE INDEX "usage_project_id_unit_start_at" ON "usage" ("project_id", "unit", "start_at")',
    'CREATE INDEX "event_project_id_id" ON "event" ("project_id", "id")',
    'CREATE INDEX "event_target_id_id" ON "event" ("target_id", "id")',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Attempt(Model):
        hour_at = BigIntegerField()
        ip = TextField()
        code = TextField()
        count = BigIntegerField()

        class Meta:
            database = db
            table_name = "attempt"
            primary_key = CompositeKey("hour_at", "ip", "code")

    class Entry(Model):
        id = BigAutoField()
        at = BigIntegerField()
        project_id = TextField()
        key_id = TextField()
        secret = TextField()
        method = TextField()
        endpoint = TextField()
        ip = TextField(null=True)
        country = TextField(null=True)
        status = IntegerField()
        code = TextField()
        user_agent = TextField()
        request_id = TextField()
        permissions = JSONField(default=list)

        class Meta:
            database = db
            table_name = "entry"

    class Event(Model):
        at = BigIntegerField()
        project_id = TextField(null=True)
        action = TextField()
        actor_kind = TextField()
        actor_id = TextField(null=True)
        actor_name = TextField()
        target_id = TextField()
        target_name = TextField()
        changes = JSONField(default=dict)
        ip = TextField(null=True)
        request_id = TextField(null=True)

        class Meta:
            database = db
            table_name = "event"

    class Project(Model):
        id = TextField(primary_key=True)
        slug = TextField(unique=True)
        name = TextField()
        prefix = TextField()
        key_format = TextField()
        shows_environment = BooleanField(default=True)
        key_limit = IntegerField(null=True)
        permission_catalogue = JSONField(default=list)
        alert_email = TextField(null=True)
        created_at = BigIntegerField()
        archived_at = BigIntegerField(null=True)

        class Meta:
            database = db
            table_name = "project"

    class Person(Model):
        id = TextField(primary_key=True)
        email = TextField(unique=True)
        name = TextField()
        password_hash = TextField(null=True)
        is_owner = BooleanField(default=False)
        disabled_at = BigIntegerField(null=True)
        created_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "person"

    class Key(Model):
        id = TextField(primary_key=True)
        project = ForeignKeyField(Project, index=False)
        owner = ForeignKeyField(Person, null=True)
        name = TextField()
        name_sort = TextField()
        description = TextField(default="")
        environment = TextField()
        prefix = TextField()
        permissions = JSONField(default=list)
        ip_allowlist = JSONField(default=list)
        plan = TextField()
        limit_per_minute = IntegerField(null=True)
        limit_per_hour = IntegerField(null=True)
        monthly_quota = BigIntegerField(null=True)
        auto_renew = BooleanField(default=False)
        external_id = TextField(null=True)
        metadata = JSONField(default=dict)
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        rotated_at = BigIntegerField(null=True)
        revoked_at = BigIntegerField(null=True)
        expires_at = BigIntegerField(null=True)
        last_used_at = BigIntegerField(null=True)
        last_used_ip = TextField(null=True)
        requests_total = BigIntegerField(default=0)
        expires_order = BigIntegerField(
            constraints=[SQL("generated always as (coalesce(expires_at, 9007199254740992)) stored")]
        )
        last_used_order = BigIntegerField(
            constraints=[SQL("generated always as (coalesce(last_used_at, 0)) stored")]
        )

        class Meta:
            database = db
            table_name = "key"

    class LimitCount(Model):
        key_id = TextField()
        window = TextField()
        start_at = BigIntegerField()
        spent = BigIntegerField()

        class Meta:
            database = db
            table_name = "limit_count"
            primary_key = CompositeKey("key_id", "window")

    class Link(Model):
        digest = TextField(primary_key=True)
        kind = TextField()
        created_at = BigIntegerField()
        expires_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "link"

    class Membership(Model):
        person = ForeignKeyField(Person, on_delete="CASCADE")
        project = ForeignKeyField(Project, on_delete="CASCADE")
        role = TextField()

        class Meta:
            database = db
            table_name = "membership"
            primary_key = CompositeKey("person", "project")

    class Secret(Model):
        digest = TextField(primary_key=True)
        key = ForeignKeyField(Key, on_delete="CASCADE")
        prefix = TextField()
        created_at = BigIntegerField()
        superseded_at = BigIntegerField(null=True)
        works_until = BigIntegerField(null=True)
        last_used_at = BigIntegerField(null=True)

        class Meta:
            database = db
            table_name = "secret"

    class Session(Model):
        id = TextField(primary_key=True)
        person = ForeignKeyField(Person, on_delete="CASCADE")
        kind = TextField()
        created_at = BigIntegerField()
        expires_at = BigIntegerField()
        ip = TextField(null=True)
        user_agent = TextField(default="")

        class Meta:
            database = db
            table_name = "session"

    class Usage(Model):
        key_id = TextField()
        unit = TextField()
        start_at = BigIntegerField()
        project_id = TextField()
        allowed = BigIntegerField(default=0)
        denied = BigIntegerField(default=0)

        class Meta:
            database = db
            table_name = "usage"
            primary_key = CompositeKey("key_id", "unit", "start_at")

    db.create_tables(
        [
            Project,
            Person,
            Membership,
            Session,
            Link,
            Key,
            Secret,
            Entry,
            Usage,
            LimitCount,
            Attempt,
            Event,
        ]
    )
    for statement in INDEXES:
        db.execute_sql(statement)
