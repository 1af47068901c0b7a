"""Adds the scopes and the expiry of keys. An older release knows neither: to it, such a key is a full one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("api_key", sa.Column("scopes", sa.JSON))
    op.add_column("api_key", sa.Column("expires_at", sa.Double))
