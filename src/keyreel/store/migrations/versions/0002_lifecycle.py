"""Adds lifetime and access rules of videos; files without content expire after a day."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("request", sa.Column("output_lifetime", sa.Double))
    op.add_column("request", sa.Column("output_acl", sa.JSON))
    op.add_column("file", sa.Column("lifetime", sa.Double))
    op.execute("UPDATE file SET lifetime = expires_at - created")
    op.execute("UPDATE file SET expires_at = created + 86400 WHERE size IS NULL")
