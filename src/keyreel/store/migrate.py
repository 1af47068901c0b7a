"""Brings a database's tables up to date."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

# Any number does, as long as nobody else locks the same: "keyreel" on a telephone's keys.
_ADVISORY_LOCK = 5397335


def migrate(connection: Connection) -> None:
    """Runs the migrations that are missing, within the connection's transaction."""
    if connection.dialect.name == "postgresql":
        # Gateways and workers start together: the first migrates, the others wait for it.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    config = Config()
    config.set_main_option("script_location", "keyreel.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
