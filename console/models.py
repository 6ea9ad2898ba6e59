"""Every table, its indexes, and read-only facts about one row. No writes, no Flask.

Instants are UTC milliseconds. Ids of people and keys are random text: SQLite gives a deleted
row's integer id to the next one.
"""

from typing import Any

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Node,
    TextField,
)

from console.db import Base

ACTIVE, REVOKED, EXPIRED = "active", "revoked", "expired"
STATUSES = (ACTIVE, REVOKED, EXPIRED)
LIVE, TEST = "live", "test"
ENVIRONMENTS = (LIVE, TEST)
CURRENT, PREVIOUS = "current", "previous"
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
OPEN, ACKNOWLEDGED, MUTED = "open", "acknowledged", "muted"

# Sorts after every real instant, so that "never expires" comes last.
NEVER = 2**53


def _order_of(column: str, where_null: int) -> list[Node]:
    """A column by which another sorts that may be null; the database keeps it.

    SQLite seeks to the middle of an index by column, but not by expression.
    """
    return [SQL(f"generated always as (coalesce({column}, {where_null})) stored")]


class Project(Base):
    """Owns keys; its prefix and format shape the secrets minted for them."""

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
    permission_presets = JSONField(default=list, constraints=[SQL("DEFAULT '[]'")])
    plans = JSONField(default=list, constraints=[SQL("DEFAULT '[]'")])  # its own, see plans.py
    environments = JSONField(
        default=lambda: list(ENVIRONMENTS), constraints=[SQL("""DEFAULT '["live","test"]'""")]
    )  # that new keys may have
    default_expiry = TextField(null=True)  # a duration such as 90d
    maximum_lifetime = TextField(null=True)
    alerts = JSONField(default=dict, constraints=[SQL("DEFAULT '{}'")])  # see alert_rules.py
    rotation_policy = JSONField(null=True)  # environment -> a duration such as 90d
    calendar_digest = TextField(null=True)  # of its feed's link; see calendar_feed.py
    calendar_made_at = BigIntegerField(null=True)
    route_rules = JSONField(default=list, constraints=[SQL("DEFAULT '[]'")])  # see route_rules.py
    route_default = TextField(default="allow", constraints=[SQL("DEFAULT 'allow'")])


class Person(Base):
    """Someone who signs in."""

    id = TextField(primary_key=True)
    email = TextField(unique=True)
    name = TextField()
    password_hash = TextField(null=True)
    is_owner = BooleanField(default=False)
    disabled_at = BigIntegerField(null=True)
    created_at = BigIntegerField()
    totp_secret = BlobField(null=True)  # sealed; see second_factor.py
    totp_step = BigIntegerField(null=True)  # the last one whose code was accepted
    last_signed_in_at = BigIntegerField(null=True)
    vouched_by = TextField(null=True)  # who was shown the link by which they joined, if no owner


class RecoveryCode(Base):
    """Stands in for a second factor, once: its row goes with its use."""

    digest = TextField(primary_key=True)
    person = ForeignKeyField(Person, on_delete="CASCADE")
    created_at = BigIntegerField()


class Passkey(Base):
    """A WebAuthn credential of a person."""

    id = TextField(primary_key=True)  # the credential's, base64url
    person = ForeignKeyField(Person, on_delete="CASCADE")
    person_id: str
    name = TextField()
    public_key = BlobField()  # COSE
    sign_count = BigIntegerField()
    transports = JSONField(default=list)
    created_at = BigIntegerField()
    last_used_at = BigIntegerField(null=True)


class Identity(Base):
    """Who a person is at a provider of single sign-on."""

    issuer = TextField()
    subject = TextField()
    person = ForeignKeyField(Person, on_delete="CASCADE")
    person_id: str
    created_at = BigIntegerField()
    made_owner = BooleanField(default=False)  # whether they are an owner because it says so

    class Meta:
        primary_key = CompositeKey("issuer", "subject")


class Membership(Base):
    """A person's role in one project: admin, member or viewer."""

    person = ForeignKeyField(Person, backref="memberships", on_delete="CASCADE")
    project = ForeignKeyField(Project, backref="memberships", on_delete="CASCADE")
    project_id: str
    role = TextField()

    class Meta:
        primary_key = CompositeKey("person", "project")


class Session(Base):
    """One sign-in, of a browser or of an access token. Deleting the row ends it at once."""

    id = TextField(primary_key=True)  # SHA-256 of what the client holds
    handle = TextField(unique=True)  # by which its person names it
    person = ForeignKeyField(Person, backref="sessions", on_delete="CASCADE")
    person_id: str
    kind = TextField()  # browser | token
    method = TextField()  # password, passkey, …: sessions.py has them all
    created_at = BigIntegerField()
    authenticated_at = BigIntegerField()  # when its person last proved to be there
    last_seen_at = BigIntegerField()
    expires_at = BigIntegerField()
    ip = TextField(null=True)
    user_agent = TextField(default="")


class Link(Base):
    """What opens something once: a link, or a passkey's challenge. Only its digest is stored."""

    digest = TextField(primary_key=True)
    kind = TextField()
    created_at = BigIntegerField()
    expires_at = BigIntegerField()
    person_id = TextField(null=True, index=True)  # whom it is for
    made_by = TextField(null=True, index=True)  # the person who made it
    shown_to = TextField(null=True)  # the person who was to pass it on; null where it was mailed


class Throttle(Base):
    """How often signing in has failed of late: for an account, from a network, from a browser."""

    subject = TextField(primary_key=True)  # see throttle.py
    count = IntegerField()
    last_at = BigIntegerField(index=True)


class Key(Base):
    """The lasting record; its secrets come and go with rotation."""

    id = TextField(primary_key=True)
    project = ForeignKeyField(Project, backref="keys", index=False)
    project_id: str
    owner = ForeignKeyField(Person, backref="keys", null=True)
    owner_id: str | None
    name = TextField()
    name_sort = TextField()  # NFKC, case-folded: for search and sorting in any script
    description = TextField(default="")
    environment = TextField()
    prefix = TextField()  # of the current secret
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
    expires_order = BigIntegerField(constraints=_order_of("expires_at", NEVER))
    last_used_order = BigIntegerField(constraints=_order_of("last_used_at", 0))
    created_by = TextField(null=True, index=True)  # who made it, or whose key did; may be gone
    renewal_period = TextField(null=True)  # a duration: how much later it ends once renewed
    ends_set_at = BigIntegerField(null=True)  # when its end was last set; null: when it was made

    @property
    def project_plans(self) -> list[dict[str, Any]]:
        """The plans that its project has of its own; one of them may be this key's."""
        return list(self.project.plans)

    def status_at(self, instant: int) -> str:
        if self.revoked_at is not None:
            return REVOKED
        if self.expires_at is not None and self.expires_at <= instant:
            return EXPIRED
        return ACTIVE


# One index for each order of the table: a page costs the same at any depth.
Key.add_index(Key.project, Key.name_sort, Key.id)
Key.add_index(Key.project, Key.created_at, Key.id)
Key.add_index(Key.project, Key.expires_order, Key.id)
Key.add_index(Key.project, Key.last_used_order, Key.id)
# Which keys end soon, whoever's they are.
Key.add_index(Key.index(Key.expires_at, where=Key.expires_at.is_null(False), name="key_ends"))


class Secret(Base):
    """One string that opens a key. The current one has no `superseded_at`."""

    digest = TextField(primary_key=True)  # SHA-256 of the whole secret, in hex
    key = ForeignKeyField(Key, backref="secrets", on_delete="CASCADE")
    prefix = TextField()
    created_at = BigIntegerField()
    superseded_at = BigIntegerField(null=True)
    works_until = BigIntegerField(null=True)  # of a superseded one: grace's end
    last_used_at = BigIntegerField(null=True)
    imported_at = BigIntegerField(null=True)  # of one made elsewhere, in whatever shape
    seen_by = TextField(null=True, index=True)  # to whom it was shown, or whose key got it


# A key has exactly one current secret, whatever happens at the same time.
Secret.add_index(
    Secret.index(
        Secret.key, unique=True, where=Secret.superseded_at.is_null(), name="secret_current"
    )
)
Secret.add_index(
    Secret.index(
        Secret.imported_at, where=Secret.imported_at.is_null(False), name="secret_imported_at"
    )
)


class Entry(Base):
    """One request made with a known key. Outlives its key, until retention ends."""

    id = BigAutoField()
    at = BigIntegerField()
    project_id = TextField()
    key_id = TextField()
    secret = TextField()  # current | previous
    method = TextField()
    endpoint = TextField()
    ip = TextField(null=True)
    country = TextField(null=True)
    status = IntegerField()
    code = TextField()
    user_agent = TextField()
    request_id = TextField()
    permissions = JSONField(default=list)
    latency_ms = BigIntegerField(null=True)  # as the service reported it


Entry.add_index(Entry.key_id, Entry.id)
Entry.add_index(Entry.project_id, Entry.id)
Entry.add_index(Entry.request_id)
# Who still presents an old secret: found among millions that present the present one. Written out,
# for no database takes a parameter here.
Entry.add_index(
    Entry.index(Entry.key_id, Entry.id, where=SQL("(secret = 'previous')"), name="entry_previous")
)


class Usage(Base):
    """Requests of a key, or of all keys of a project, in one UTC hour, day or month."""

    subject_id = TextField()  # the key's id, or the project's
    unit = TextField()  # hour | day | month
    start_at = BigIntegerField()
    allowed = BigIntegerField(default=0)
    denied = BigIntegerField(default=0)

    class Meta:
        primary_key = CompositeKey("subject_id", "unit", "start_at")


Usage.add_index(Usage.unit, Usage.start_at)  # for retention


class Drained(Base):
    """How far a journal's entries are in the database; moves in the transaction that moves them."""

    journal = TextField(primary_key=True)
    position = BigIntegerField()


class Change(Base):
    """One row that the database itself counts up when anything changes that a check relies on."""

    id = IntegerField(primary_key=True)
    count = BigIntegerField()


class LimitCount(Base):
    """How much of one limit a key has spent in its present window."""

    key_id = TextField()
    window = TextField()  # minute | hour | month
    start_at = BigIntegerField()
    spent = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("key_id", "window")


class Attempt(Base):
    """Checks that met no known key, counted by address, kind and hour."""

    hour_at = BigIntegerField()
    ip = TextField()
    code = TextField()
    count = BigIntegerField()

    class Meta:
        primary_key = CompositeKey("hour_at", "ip", "code")


class KeptAnswer(Base):
    """The answer to a call with an Idempotency-Key, sealed; see idempotency.py."""

    id = TextField(primary_key=True)
    content = BlobField()
    expires_at = BigIntegerField(index=True)


class Event(Base):
    """One thing that somebody did to a project, key, person or setting."""

    id = AutoField()
    at = BigIntegerField()
    project_id = TextField(null=True)
    action = TextField()  # key.created
    actor_kind = TextField()  # person | key | command
    actor_id = TextField(null=True)
    actor_name = TextField()
    target_id = TextField()
    target_name = TextField()
    changes = JSONField(default=dict)  # field -> [old, new]
    ip = TextField(null=True)
    request_id = TextField(null=True)
    hash = TextField(null=True)  # over the row and the hash before it; see chain.py


Event.add_index(Event.project_id, Event.id)
Event.add_index(Event.target_id, Event.id)
Event.add_index(Event.actor_id, Event.id)


class Chain(Base):
    """One row: where the chain of events begins and ends. See chain.py."""

    id = IntegerField(primary_key=True)
    start_id = IntegerField()  # the last event before the chain, pruned ones included
    start_hash = TextField()
    end_id = IntegerField()
    end_hash = TextField()


class Webhook(Base):
    """An address that is told of a project's events."""

    id = TextField(primary_key=True)
    project = ForeignKeyField(Project, backref="webhooks", on_delete="CASCADE", index=False)
    project_id: str
    url = TextField()
    description = TextField(default="")
    events = JSONField(default=list)  # key.created, key.*, *
    enabled = BooleanField(default=True)
    disabled_reason = TextField(null=True)  # where it was not a person who did it
    secret = BlobField()  # sealed; see webhooks.py
    previous_secret = BlobField(null=True)
    previous_works_until = BigIntegerField(null=True)
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    leased_until = BigIntegerField(default=0)  # some process delivers to it, at most that long


Webhook.add_index(Webhook.project, Webhook.created_at, Webhook.id)


class Delivery(Base):
    """One message to one webhook: due, or done."""

    id = TextField(primary_key=True)
    webhook = ForeignKeyField(Webhook, backref="deliveries", on_delete="CASCADE", index=False)
    webhook_id: str
    message_id = TextField()
    event = TextField()
    payload = TextField()
    status = TextField()  # pending | delivered | failed
    attempts = IntegerField(default=0)
    created_at = BigIntegerField()
    last_attempt_at = BigIntegerField(null=True)
    next_attempt_at = BigIntegerField(null=True)  # null: it is done
    response_status = IntegerField(null=True)
    error = TextField(null=True)
    duration_ms = BigIntegerField(null=True)


Delivery.add_index(Delivery.created_at)  # for retention
Delivery.add_index(Delivery.webhook, Delivery.created_at, Delivery.id)
Delivery.add_index(
    Delivery.index(
        Delivery.webhook,
        Delivery.next_attempt_at,
        where=Delivery.next_attempt_at.is_null(False),
        name="delivery_due",
    )
)


class Alert(Base):
    """What a person should know: one row for one cause within one window of time."""

    id = TextField(primary_key=True)
    project = ForeignKeyField(
        Project, backref="alert_rows", null=True, on_delete="CASCADE", index=False
    )
    project_id: str | None  # None: it concerns the installation
    key = ForeignKeyField(Key, backref="alert_rows", null=True, on_delete="CASCADE")
    key_id: str | None
    kind = TextField()  # alert_rules.KINDS
    subject = TextField()  # the key's id, or an address
    cause = TextField()  # which of several of its kind: 30d, hour
    window_at = BigIntegerField()  # when the window began; of what tells of an end: that
    state = TextField()  # open | acknowledged | muted
    count = BigIntegerField(default=1)  # how often it was seen within the window
    created_at = BigIntegerField()
    last_at = BigIntegerField()
    facts = JSONField(default=dict)
    decided_at = BigIntegerField(null=True)
    decided_by = TextField(null=True)  # the name of who set the state; null: it settled itself


Alert.add_index(Alert.subject, Alert.kind, Alert.cause, Alert.window_at, unique=True)
Alert.add_index(Alert.project, Alert.state, Alert.created_at, Alert.id)
Alert.add_index(Alert.state, Alert.created_at, Alert.id)


class Place(Base):
    """A country or network that a key was let in from."""

    key = ForeignKeyField(Key, on_delete="CASCADE", index=False)
    key_id: str
    kind = TextField()  # country | network
    value = TextField()
    first_at = BigIntegerField()
    last_at = BigIntegerField(index=True)  # to the day, for retention

    class Meta:
        primary_key = CompositeKey("key", "kind", "value")


class Letter(Base):
    """One message to one person or service, by mail or Apprise: due, or done."""

    id = TextField(primary_key=True)
    channel = TextField()  # mail | apprise
    recipient = TextField()
    subject = TextField()
    text = TextField()
    status = TextField()  # pending | delivered | failed
    attempts = IntegerField(default=0)
    created_at = BigIntegerField(index=True)  # for retention
    last_attempt_at = BigIntegerField(null=True)
    next_attempt_at = BigIntegerField(null=True)  # null: it is done
    leased_until = BigIntegerField(default=0)
    error = TextField(null=True)


Letter.add_index(
    Letter.index(
        Letter.next_attempt_at, where=Letter.next_attempt_at.is_null(False), name="letter_due"
    )
)


class Job(Base):
    """Something that is done again and again, by one process at a time. See jobs.py."""

    name = TextField(primary_key=True)
    holder = TextField(null=True)  # whoever does it now
    leased_until = BigIntegerField(default=0)
    next_at = BigIntegerField(default=0)
    started_at = BigIntegerField(null=True)
    finished_at = BigIntegerField(null=True)
    done = BigIntegerField(default=0)  # by the present run, or the last one
    position = BigIntegerField(default=0)  # up to where what is read one after the other was read
    succeeded_at = BigIntegerField(null=True)
    failed_at = BigIntegerField(null=True)
    error = TextField(null=True)  # of the last run, where it failed


class Fact(Base):
    """Something that the installation remembers of itself. See facts.py."""

    name = TextField(primary_key=True)
    value = TextField()
    at = BigIntegerField()


TABLES = (
    Project, Person, RecoveryCode, Passkey, Identity, Membership, Session, Link, Throttle, Key,
    Secret, Entry, Usage, LimitCount, Attempt, Event, Chain, KeptAnswer, Drained, Change, Webhook,
    Delivery, Alert, Place, Letter, Job, Fact,
)  # fmt: skip
