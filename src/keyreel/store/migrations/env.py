"""Alembic runs this for every command. The connection comes from `keyreel.store.migrate`."""

from alembic import context

from keyreel.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
