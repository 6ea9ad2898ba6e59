"""What requests need by their method and path: a project's rules for its proxies."""

from peewee import SqliteDatabase

COLUMNS = (
    """ALTER TABLE "project" ADD COLUMN "route_rules" {json} NOT NULL DEFAULT '[]'""",
    """ALTER TABLE "project" ADD COLUMN "route_default" TEXT NOT NULL DEFAULT 'allow'""",
)


def up(migrator, db):  # type: ignore[no-untyped-def]
    kind = "TEXT" if isinstance(db, SqliteDatabase) else "JSONB"
    for statement in COLUMNS:
        db.execute_sql(statement.format(json=kind))
