"""Adds an index for the list of a key's requests, newest first."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index("request_list", "request", ["key_id", "seq"])
