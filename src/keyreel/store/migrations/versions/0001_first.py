"""Creates the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "request",
        sa.Column("seq", SERIAL, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("input", sa.JSON, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("webhook_url", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("idempotency_digest", sa.Text),
        sa.Column("retention", sa.Double, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("max_failures", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("start_deadline", sa.Double),
        sa.Column("checkpoint", sa.Text),
        sa.Column("progress", sa.JSON),
        sa.Column("log_lines", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("error_detail", sa.JSON),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("finished", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.CheckConstraint("state IN ('IN_QUEUE', 'IN_PROGRESS', 'COMPLETED')", name="request_state"),
        sa.CheckConstraint("(state = 'IN_PROGRESS') = (lease_until IS NOT NULL)", name="request_lease"),
        sa.CheckConstraint("(state = 'COMPLETED') = (finished IS NOT NULL)", name="request_finished"),
        sa.CheckConstraint("(state = 'COMPLETED') = ((result IS NULL) <> (error IS NULL))", name="request_outcome"),
        sa.UniqueConstraint("key_id", "idempotency_key", name="request_idempotency"),
    )
    op.create_index("request_queue", "request", ["state", "pool", "priority", "seq"])
    op.create_index("request_expires_at", "request", ["expires_at"])
    op.create_table(
        "event",
        sa.Column("seq", SERIAL, primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("request.id", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("event_request", "event", ["request_id", "seq"])
    op.create_table(
        "delivery",
        sa.Column("id", SERIAL, primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("request.id", ondelete="CASCADE"), nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name="delivery_state"),
    )
    op.create_index("delivery_due", "delivery", ["state", "due"])
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("revoked", sa.Double),
    )
    op.create_table(
        "file",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("acl", sa.JSON),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
    )
    op.create_index("file_expires_at", "file", ["expires_at"])
    op.create_table(
        "worker",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("seen", sa.Double, nullable=False),
    )
