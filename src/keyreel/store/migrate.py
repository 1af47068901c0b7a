"""Migrates a database's tables."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
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
    if _is_known(MigrationContext.configure(connection).get_current_revision(), config):
        command.upgrade(config, "head")


def _is_known(revision: str | None, config: Config) -> bool:
    """Returns False for the revision of a newer release. Migrations only add, so this release can use its tables."""
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return revision is None or revision in known
