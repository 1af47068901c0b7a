"""Migrates a database's tables."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

# Any number that no other program locks: "keyreel" on a telephone's keys.
_ADVISORY_LOCK = 5397335


def migrate(connection: Connection) -> None:
    """Runs the missing migrations within the connection's transaction."""
    if connection.dialect.name == "postgresql":
        # Several servers may start together: the first one migrates while the others wait.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    config = Config()
    config.set_main_option("script_location", "keyreel.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
