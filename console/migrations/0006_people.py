"""Settings of projects, second factors, single sign-on, sessions that say how they began, brakes on
wrong passwords, who saw which secret, and a chain of events. Everybody signs in again."""

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Model,
    SqliteDatabase,
    TextField,
)

COLUMNS = (
    """ALTER TABLE "project" ADD COLUMN "permission_presets" {json} NOT NULL DEFAULT '[]'""",
    """ALTER TABLE "project" ADD COLUMN "plans" {json} NOT NULL DEFAULT '[]'""",
    """ALTER TABLE "project" ADD COLUMN "environments" {json} NOT NULL DEFAULT '["live","test"]'""",
    'ALTER TABLE "project" ADD COLUMN "default_expiry" TEXT',
    'ALTER TABLE "project" ADD COLUMN "maximum_lifetime" TEXT',
    'ALTER TABLE "person" ADD COLUMN "totp_secret" {blob}',
    'ALTER TABLE "person" ADD COLUMN "totp_step" {bigint}',
    'ALTER TABLE "person" ADD COLUMN "last_signed_in_at" {bigint}',
    'ALTER TABLE "key" ADD COLUMN "created_by" TEXT',
    'ALTER TABLE "secret" ADD COLUMN "seen_by" TEXT',
    'ALTER TABLE "event" ADD COLUMN "hash" TEXT',
    'ALTER TABLE "person" ADD COLUMN "vouched_by" TEXT',
    'ALTER TABLE "link" ADD COLUMN "made_by" TEXT',
    'ALTER TABLE "link" ADD COLUMN "shown_to" TEXT',
)
# What was recorded says who made a key, and to whom its secrets were shown: where a key did it, to
# its owner.
WHO = """CASE e."actor_kind" WHEN 'person' THEN e."actor_id"
         WHEN 'key' THEN (SELECT k."owner_id" FROM "key" k WHERE k."id" = e."actor_id") END"""
KNOWN = (
    f"""UPDATE "key" SET "created_by" = (
         SELECT {WHO} FROM "event" e WHERE e."target_id" = "key"."id"
            AND e."action" = 'key.created' LIMIT 1)""",
    f"""UPDATE "secret" SET "seen_by" = (
         SELECT {WHO} FROM "event" e WHERE e."target_id" = "secret"."key_id"
            AND e."action" IN ('key.created', 'key.rotated')
            AND e."at" BETWEEN "secret"."created_at" AND "secret"."created_at" + 1000
         ORDER BY e."id" LIMIT 1)
       WHERE "imported_at" IS NULL""",
)
INDEXES = (
    'CREATE INDEX "event_actor_id_id" ON "event" ("actor_id", "id")',
    'CREATE INDEX "key_created_by" ON "key" ("created_by")',
    'CREATE INDEX "secret_seen_by" ON "secret" ("seen_by")',
    'CREATE INDEX "link_made_by" ON "link" ("made_by")',
    'CREATE INDEX "throttle_last_at" ON "throttle" ("last_at")',
    'CREATE INDEX "recovery_code_person_id" ON "recovery_code" ("person_id")',
    'CREATE INDEX "passkey_person_id" ON "passkey" ("person_id")',
    'CREATE INDEX "identity_person_id" ON "identity" ("person_id")',
    'CREATE INDEX "session_person_id" ON "session" ("person_id")',
    'CREATE UNIQUE INDEX "session_handle" ON "session" ("handle")',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Person(Model):
        id = TextField(primary_key=True)

        class Meta:
            database = db
            table_name = "person"

    def of_person():  # type: ignore[no-untyped-def]
        return ForeignKeyField(Person, on_delete="CASCADE", index=False)

    class RecoveryCode(Model):
        digest = TextField(primary_key=True)
        person = of_person()
        created_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "recovery_code"

    class Passkey(Model):
        id = TextField(primary_key=True)
        person = of_person()
        name = TextField()
        public_key = BlobField()
        sign_count = BigIntegerField()
        transports = JSONField(default=list)
        created_at = BigIntegerField()
        last_used_at = BigIntegerField(null=True)

        class Meta:
            database = db
            table_name = "passkey"

    class Identity(Model):
        issuer = TextField()
        subject = TextField()
        person = of_person()
        created_at = BigIntegerField()
        made_owner = BooleanField(default=False)

        class Meta:
            database = db
            table_name = "identity"
            primary_key = CompositeKey("issuer", "subject")

    class Session(Model):
        id = TextField(primary_key=True)
        handle = TextField()
        person = of_person()
        kind = TextField()
        method = TextField()
        created_at = BigIntegerField()
        authenticated_at = BigIntegerField()
        last_seen_at = BigIntegerField()
        expires_at = BigIntegerField()
        ip = TextField(null=True)
        user_agent = TextField(default="")

        class Meta:
            database = db
            table_name = "session"

    class Throttle(Model):
        subject = TextField(primary_key=True)
        count = IntegerField()
        last_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "throttle"

    class Chain(Model):
        id = IntegerField(primary_key=True)
        start_id = IntegerField()
        start_hash = TextField()
        end_id = IntegerField()
        end_hash = TextField()

        class Meta:
            database = db
            table_name = "chain"

    is_sqlite = isinstance(db, SqliteDatabase)
    kinds = {
        "json": "TEXT" if is_sqlite else "JSONB",
        "blob": "BLOB" if is_sqlite else "BYTEA",
        "bigint": "INTEGER" if is_sqlite else "BIGINT",
    }
    for statement in COLUMNS:
        db.execute_sql(statement.format(**kinds))
    db.execute_sql('DROP TABLE "session"')
    db.create_tables([RecoveryCode, Passkey, Identity, Session, Throttle, Chain])
    for statement in INDEXES + KNOWN:
        db.execute_sql(statement)
    # The chain begins with the next event: nobody can vouch for those before it.
    last = db.execute_sql('SELECT coalesce(max("id"), 0) FROM "event"').fetchone()[0]
    Chain.create(id=1, start_id=last, start_hash="", end_id=last, end_hash="")
