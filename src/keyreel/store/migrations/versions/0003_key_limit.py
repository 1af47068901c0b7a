"""Adds the limit on a key's waiting and running requests."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("api_key", sa.Column("max_requests", sa.Integer))
