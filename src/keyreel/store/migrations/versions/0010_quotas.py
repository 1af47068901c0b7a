"""Adds which requests use a file that came as a data URI, and what keys upload in a day.

An older release adds no such rows. The files of its requests are kept for as long as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "request_input",
        sa.Column("request_id", sa.Text, sa.ForeignKey("request.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("file_id", sa.Text, primary_key=True),
    )
    op.create_index("request_input_file", "request_input", ["file_id"])
    op.add_column("api_key", sa.Column("max_upload_bytes", sa.BigInteger))
    op.add_column("usage", sa.Column("uploaded", sa.BigInteger, nullable=False, server_default=sa.text("0")))
