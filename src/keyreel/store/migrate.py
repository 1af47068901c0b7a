"""Migrates a database's tables."""

from functools import cache

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
    revision = MigrationContext.configure(connection).get_current_revision()
    # An unknown revision is of a newer release. Migrations only add, so this release can use its tables.
    if revision is None or revision in _older_revisions():
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "keyreel.store:migrations")
    return config


@cache
def _older_revisions() -> frozenset[str]:
    """Returns the revisions from which there are migrations to run."""
    script = ScriptDirectory.from_config(_config())
    return frozenset(step.revision for step in script.walk_revisions() if not step.is_head)
