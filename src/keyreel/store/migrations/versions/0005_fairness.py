"""Adds the turns of requests, more limits of keys, and what each key has used.

An older release inserts requests without a turn; they go first, in the order of their submits. It claims by the index
`request_queue`, which therefore stays.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("request", sa.Column("turn", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("request", sa.Column("device_since", sa.Double))
    op.add_column("request", sa.Column("device_seconds", sa.Double, nullable=False, server_default=sa.text("0")))
    op.create_index("request_order", "request", ["state", "pool", "priority", "turn", "seq"])
    op.create_index("request_key", "request", ["key_id", "state", "pool", "priority", "turn"])
    attempted = sa.text("attempt > 0")
    columns = ["pool", "priority", "turn"]
    op.create_index("request_turn", "request", columns, postgresql_where=attempted, sqlite_where=attempted)
    op.create_index("file_key", "file", ["key_id", "size"])
    for name in ("max_queued", "max_running", "max_per_minute"):
        op.add_column("api_key", sa.Column(name, sa.Integer))
    op.add_column("api_key", sa.Column("max_bytes", sa.BigInteger))
    op.add_column("api_key", sa.Column("refilled_at", sa.Double))
    op.create_table(
        "usage",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("cancelled", sa.Integer, nullable=False),
        sa.Column("device_seconds", sa.Double, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
