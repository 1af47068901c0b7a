"""The database's tables. A change here needs a migration."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

metadata = MetaData()

AnyRow = Row[*tuple[Any, ...]]


class CleanText(TypeDecorator[str]):
    """Text that replaces characters which a database refuses: an odd error message must not block a request."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is None:
            return None
        return value.encode("utf-8", "replace").decode().replace("\0", "?")


Serial = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)
Time = Double
"""Seconds since 1970, by the database's clock."""

request = Table(
    "request",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("id", CleanText, nullable=False, unique=True),
    Column("endpoint", CleanText, nullable=False),
    Column("pool", CleanText, nullable=False),
    Column("key_id", CleanText, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False, server_default=text("0")),
    Column("state", CleanText, nullable=False),
    Column("input", Json, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("webhook_url", CleanText),  # encrypted
    Column("idempotency_key", CleanText),
    Column("idempotency_digest", CleanText),
    Column("retention", Double, nullable=False),
    Column("output_lifetime", Double),
    Column("output_acl", Json),
    Column("traceparent", CleanText),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("max_failures", Integer, nullable=False),
    Column("worker", CleanText),
    Column("lease_until", Time),
    Column("cancel_requested", Boolean, nullable=False),
    Column("not_before", Time, nullable=False),
    Column("start_deadline", Time),
    Column("checkpoint", CleanText),
    Column("progress", Json),
    Column("log_lines", Integer, nullable=False),
    Column("result", Json),
    Column("error", CleanText),
    Column("error_type", CleanText),
    Column("error_detail", Json),
    Column("created", Time, nullable=False),
    Column("started", Time),
    Column("device_since", Time),
    Column("device_seconds", Double, nullable=False, server_default=text("0")),
    Column("finished", Time),
    Column("expires_at", Time),
    CheckConstraint("state IN ('IN_QUEUE', 'IN_PROGRESS', 'COMPLETED')", name="request_state"),
    CheckConstraint("(state = 'IN_PROGRESS') = (lease_until IS NOT NULL)", name="request_lease"),
    CheckConstraint("(state = 'COMPLETED') = (finished IS NOT NULL)", name="request_finished"),
    CheckConstraint("(state = 'COMPLETED') = ((result IS NULL) <> (error IS NULL))", name="request_outcome"),
    UniqueConstraint("key_id", "idempotency_key", name="request_idempotency"),
    Index("request_queue", "state", "pool", "priority", "seq"),  # for claims by an older release
    Index("request_order", "state", "pool", "priority", "turn", "seq"),
    Index("request_key", "key_id", "state", "pool", "priority", "turn"),
    Index("request_list", "key_id", "seq"),
    Index(
        "request_turn",
        "pool",
        "priority",
        "turn",
        postgresql_where=text("attempt > 0"),
        sqlite_where=text("attempt > 0"),
    ),
    Index("request_expires_at", "expires_at"),
)

event = Table(
    "event",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("request_id", CleanText, ForeignKey("request.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("time", Time, nullable=False),
    Column("level", CleanText, nullable=False),
    Column("message", CleanText, nullable=False),
    Index("event_request", "request_id", "seq"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("request_id", CleanText, ForeignKey("request.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("state", CleanText, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("due", Time, nullable=False),
    Column("error", CleanText),
    CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name="delivery_state"),
    Index("delivery_due", "state", "due"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", CleanText, primary_key=True),
    Column("name", CleanText, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("created", Time, nullable=False),
    Column("revoked", Time),
    Column("max_requests", Integer),
    Column("max_queued", Integer),
    Column("max_running", Integer),
    Column("max_per_minute", Integer),
    Column("max_bytes", BigInteger),
    Column("max_upload_bytes", BigInteger),
    Column("refilled_at", Time),
    Column("scopes", Json),  # null: those of the role
    Column("expires_at", Time),
)

file = Table(
    "file",
    metadata,
    Column("id", CleanText, primary_key=True),
    Column("key_id", CleanText, nullable=False),
    Column("object", CleanText, nullable=False),
    Column("name", CleanText, nullable=False),
    Column("content_type", CleanText, nullable=False),
    Column("size", BigInteger),
    Column("acl", Json),
    Column("lifetime", Double),
    Column("created", Time, nullable=False),
    Column("expires_at", Time),
    Index("file_expires_at", "expires_at"),
    Index("file_key", "key_id", "size"),
)

request_input = Table(
    "request_input",
    metadata,
    Column("request_id", CleanText, ForeignKey("request.id", ondelete="CASCADE"), primary_key=True),
    Column("file_id", CleanText, primary_key=True),
    Index("request_input_file", "file_id"),
)
"""Which requests use a file that came as a data URI. The file is deleted with the last of them."""

usage = Table(
    "usage",
    metadata,
    Column("key_id", CleanText, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("device_seconds", Double, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("uploaded", BigInteger, nullable=False, server_default=text("0")),
)
"""What a key has used on a day. It stays when the requests expire."""

worker = Table(
    "worker",
    metadata,
    Column("name", CleanText, primary_key=True),
    Column("pool", CleanText, nullable=False),
    Column("device", CleanText, nullable=False),
    Column("model", CleanText, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("seen", Time, nullable=False),
)

ended_session = Table(
    "ended_session",
    metadata,
    Column("id", CleanText, primary_key=True),
    Column("expires_at", Time, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("time", Time, nullable=False),
    Column("key_id", CleanText),
    Column("address", CleanText),
    Column("action", CleanText, nullable=False),
    Column("target", CleanText),
    Column("detail", Json),
    Index("audit_time", "time"),
)
"""Who did what."""

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("fingerprint", CleanText, nullable=False),
)
"""At most one row: which secret the processes of a fleet share."""
