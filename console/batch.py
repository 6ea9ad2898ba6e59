"""A batch of the journal's records, stored: entries, and what they add up to for each key, secret,
project, period and limit. Says what a record looks like; decides nothing.

The database unpacks the batch once, and each statement that follows is for the whole of it. So the
interpreter is free for checks meanwhile, and a row costs 8 µs instead of hundreds. Inside the
caller's transaction; on SQLite and PostgreSQL alike but for how they read JSON.
"""

from typing import NamedTuple

from console import clock, db

# The fields of a record, in their order. An outcome has only `request_id` and `status`, the others
# are null. `month_at` is the start of the month of `at`; `spent` names the limits of which the
# entry spent its `cost`.
ENTRY, OUTCOME = 0, 1
FIELDS = {
    "kind": "BIGINT", "at": "BIGINT", "project_id": "TEXT", "key_id": "TEXT", "secret": "TEXT",
    "method": "TEXT", "endpoint": "TEXT", "ip": "TEXT", "country": "TEXT", "status": "BIGINT",
    "code": "TEXT", "user_agent": "TEXT", "request_id": "TEXT", "permissions": "TEXT",
    "digest": "TEXT", "cost": "BIGINT", "month_at": "BIGINT", "spent": "TEXT",
}  # fmt: skip

TABLE = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS batch
    (seq BIGINT, {", ".join(f"{name} {kind}" for name, kind in FIELDS.items())})
"""

# Materialized, for SQLite would write a record anew for each of its fields.
UNPACK = """
    INSERT INTO batch WITH records AS MATERIALIZED ({records}) SELECT seq, {fields} FROM records
"""

ENTRIES = f"""
    INSERT INTO entry (at, project_id, key_id, secret, method, endpoint, ip, country, status, code,
                       user_agent, request_id, permissions)
    SELECT at, project_id, key_id, secret, method, endpoint, ip, country, status, code,
           user_agent, request_id, {{permissions}}
    FROM batch WHERE kind = {ENTRY} ORDER BY seq
"""

# Counts verdicts: a call that was let in and then failed is an allowed one.
USAGE = f"""
    INSERT INTO usage AS u (subject_id, unit, start_at, allowed, denied)
    WITH hours AS (
        SELECT key_id, project_id, at / {clock.HOUR} * {clock.HOUR} AS hour_at,
               at / {clock.DAY} * {clock.DAY} AS day_at, month_at,
               sum(CASE WHEN status < 400 THEN 1 ELSE 0 END) AS allowed,
               sum(CASE WHEN status < 400 THEN 0 ELSE 1 END) AS denied
        FROM batch WHERE kind = {ENTRY} GROUP BY 1, 2, 3, 4, 5)
    SELECT subject_id, unit, start_at, sum(allowed), sum(denied) FROM (
        SELECT key_id AS subject_id, 'hour' AS unit, hour_at AS start_at, allowed, denied FROM hours
        UNION ALL SELECT key_id, 'day', day_at, allowed, denied FROM hours
        UNION ALL SELECT key_id, 'month', month_at, allowed, denied FROM hours
        UNION ALL SELECT project_id, 'hour', hour_at, allowed, denied FROM hours
        UNION ALL SELECT project_id, 'day', day_at, allowed, denied FROM hours
        UNION ALL SELECT project_id, 'month', month_at, allowed, denied FROM hours) AS counts
    WHERE true GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (subject_id, unit, start_at) DO UPDATE
    SET allowed = u.allowed + excluded.allowed, denied = u.denied + excluded.denied
"""

LAST_USE_OF_KEYS = f"""
    UPDATE key SET last_used_at = b.at, last_used_ip = b.ip,
                   requests_total = requests_total + n.number
    FROM batch AS b
         JOIN (SELECT max(seq) AS seq, count(*) AS number FROM batch WHERE kind = {ENTRY}
               GROUP BY key_id) AS n ON n.seq = b.seq
    WHERE key.id = b.key_id
"""

LAST_USE_OF_SECRETS = f"""
    UPDATE secret SET last_used_at = b.at
    FROM (SELECT digest, max(at) AS at FROM batch WHERE kind = {ENTRY} GROUP BY digest) AS b
    WHERE secret.digest = b.digest
"""

# A window that has passed makes way for the next, also within a batch; a key that was deleted
# meanwhile has none.
SPENT = f"""
    INSERT INTO limit_count AS c (key_id, "window", start_at, spent)
    SELECT key_id, name, start_at, spent FROM (
        SELECT key_id, name, start_at, sum(cost) AS spent,
               max(start_at) OVER (PARTITION BY key_id, name) AS last_at
        FROM (
            SELECT key_id, cost, name,
                   CASE name WHEN 'minute' THEN at / {clock.MINUTE} * {clock.MINUTE}
                             WHEN 'hour' THEN at / {clock.HOUR} * {clock.HOUR}
                             ELSE month_at END AS start_at
            FROM batch JOIN (SELECT 'minute' AS name UNION ALL SELECT 'hour'
                             UNION ALL SELECT 'month') AS names
                 ON replace(spent, name, '') <> spent
            WHERE kind = {ENTRY} AND spent <> '[]') AS spending
        WHERE key_id IN (SELECT id FROM key) GROUP BY 1, 2, 3) AS sums
    WHERE start_at = last_at ORDER BY 1, 2
    ON CONFLICT (key_id, "window") DO UPDATE
    SET spent = excluded.spent + CASE c.start_at WHEN excluded.start_at THEN c.spent ELSE 0 END,
        start_at = excluded.start_at
    WHERE c.start_at <= excluded.start_at
"""

HAS_OUTCOMES = f"SELECT 1 FROM batch WHERE kind = {OUTCOME} LIMIT 1"
OUTCOMES = f"""
    UPDATE entry SET status = b.status FROM batch AS b
    WHERE b.kind = {OUTCOME} AND entry.request_id = b.request_id
"""


def store(records: str) -> None:
    """Stores a JSON array of records, each an array of FIELDS, in their order."""
    dialect = SQLITE if db.is_sqlite() else POSTGRESQL
    fields = ", ".join(
        f"CAST({dialect.field.format(number)} AS {kind})"
        for number, kind in enumerate(FIELDS.values())
    )
    db.handle.execute_sql(TABLE)
    db.handle.execute_sql("DELETE FROM batch")
    db.handle.execute_sql(UNPACK.format(records=dialect.records, fields=fields), (records,))
    db.handle.execute_sql(ENTRIES.format(permissions=dialect.permissions))
    if dialect.holds_keys:
        db.handle.execute_sql(dialect.holds_keys)
    for statement in (USAGE, LAST_USE_OF_KEYS, LAST_USE_OF_SECRETS, SPENT):
        db.handle.execute_sql(statement)
    if db.handle.execute_sql(HAS_OUTCOMES).fetchone():  # they are sought in every partition
        db.handle.execute_sql(OUTCOMES)


class _Dialect(NamedTuple):
    records: str  # the elements of the array given, as rows of `seq` and `v`
    field: str  # one element of `v`, as text
    permissions: str
    holds_keys: str = (
        ""  # in the order of whoever else holds several, so that nobody waits in a circle
    )


SQLITE = _Dialect(
    records="SELECT key AS seq, value AS v FROM json_each(?)",
    field="json_extract(v, '$[{}]')",
    permissions="permissions",
)
POSTGRESQL = _Dialect(
    records="SELECT seq, v FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS j(v, seq)",
    field="v->>{}",
    permissions="CAST(permissions AS jsonb)",
    holds_keys="""
        SELECT id FROM key WHERE id IN (SELECT key_id FROM batch)
        ORDER BY id COLLATE "C" FOR NO KEY UPDATE
    """,
)
