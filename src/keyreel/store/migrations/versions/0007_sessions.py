"""Adds the sessions that ended before their cookies expired."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "ended_session",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
