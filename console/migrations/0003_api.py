"""What the API keeps: answers that can be asked for again, secrets that were made elsewhere, the time
that a service took, and whom an invitation is for."""

from peewee import BigIntegerField, BlobField, Model, SqliteDatabase, TextField

STATEMENTS = (
    'CREATE INDEX "kept_answer_expires_at" ON "kept_answer" ("expires_at")',
    'ALTER TABLE "entry" ADD COLUMN "latency_ms" {bigint}',
    'ALTER TABLE "link" ADD COLUMN "person_id" TEXT',
    'ALTER TABLE "secret" ADD COLUMN "imported_at" {bigint}',
    'CREATE INDEX "link_person_id" ON "link" ("person_id")',
    'CREATE INDEX "secret_imported_at" ON "secret" ("imported_at") WHERE ("imported_at" IS NOT NULL)',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class KeptAnswer(Model):
        id = TextField(primary_key=True)
        content = BlobField()
        expires_at = BigIntegerField()

        class Meta:
            database = db
            table_name = "kept_answer"

    db.create_tables([KeptAnswer])
    bigint = "INTEGER" if isinstance(db, SqliteDatabase) else "BIGINT"
    for statement in STATEMENTS:
        db.execute_sql(statement.format(bigint=bigint))
