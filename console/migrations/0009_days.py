"""Facts about the installation; and on PostgreSQL, entries in partitions by day, so that those of a
day go at once. What was there before is a partition of its own, up to the next day."""

from peewee import BigIntegerField, Model, SqliteDatabase, TextField

DAY = 24 * 60 * 60 * 1000
INDEXES = (
    "entry_pkey",
    "entry_key_id_id",
    "entry_project_id_id",
    "entry_request_id",
    "entry_previous",
)
PARTITIONED = (
    'CREATE TABLE "entry" (LIKE "{before}" INCLUDING DEFAULTS) PARTITION BY RANGE ("at")',
    'ALTER TABLE "entry" ADD CONSTRAINT "entry_pkey" PRIMARY KEY ("id", "at")',
    'CREATE INDEX "entry_key_id_id" ON "entry" ("key_id", "id")',
    'CREATE INDEX "entry_project_id_id" ON "entry" ("project_id", "id")',
    'CREATE INDEX "entry_request_id" ON "entry" ("request_id")',
    """CREATE INDEX "entry_previous" ON "entry" ("key_id", "id") WHERE (secret = 'previous')""",
    'ALTER SEQUENCE "entry_id_seq" OWNED BY "entry"."id"',
    'ALTER TABLE "entry" ATTACH PARTITION "{before}" FOR VALUES FROM (MINVALUE) TO ({end})',
    # Of a clock that is set wrong, too, entries have to go somewhere.
    'CREATE TABLE "entry_other" PARTITION OF "entry" DEFAULT',
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    class Fact(Model):
        name = TextField(primary_key=True)
        value = TextField()
        at = BigIntegerField()

        class Meta:
            database = db
            table_name = "fact"

    db.create_tables([Fact])
    if not isinstance(db, SqliteDatabase):
        _divide(db)


def _divide(db):  # type: ignore[no-untyped-def]
    """The table becomes the first partition of one that has its name."""
    db.execute_sql('LOCK TABLE "entry" IN ACCESS EXCLUSIVE MODE')
    (end, day) = db.execute_sql(
        f"""SELECT day * {DAY}, to_char(to_timestamp(day * {DAY // 1000}) AT TIME ZONE 'UTC', 'YYYYMMDD')
            FROM (SELECT 1 + greatest(extract(epoch FROM now())::bigint * 1000,
                                      (SELECT max("at") FROM "entry")) / {DAY} AS day) AS bound"""
    ).fetchone()
    before = f"entry_before_{day}"
    db.execute_sql(f'ALTER TABLE "entry" RENAME TO "{before}"')
    for index in INDEXES:
        db.execute_sql(f'ALTER INDEX "{index}" RENAME TO "{index.replace("entry", before, 1)}"')
    db.execute_sql(f'ALTER TABLE "{before}" DROP CONSTRAINT "{before}_pkey"')
    db.execute_sql(
        f'ALTER TABLE "{before}" ADD CONSTRAINT "{before}_pkey" PRIMARY KEY ("id", "at")'
    )
    for statement in PARTITIONED:
        db.execute_sql(statement.format(before=before, end=end))
