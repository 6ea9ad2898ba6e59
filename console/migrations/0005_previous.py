"""Requests with an old secret are found among all the others of their key."""


def up(migrator, db):  # type: ignore[no-untyped-def]
    db.execute_sql(
        'CREATE INDEX "entry_previous" ON "entry" ("key_id", "id") WHERE (secret = \'previous\')'
    )
