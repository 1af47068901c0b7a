"""Adds the span in which a request was submitted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("request", sa.Column("traceparent", sa.Text))
