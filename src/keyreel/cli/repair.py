"""`keyreel repair`: rescues what can be read from a damaged SQLite database."""

import os

import typer

from keyreel.cli.serve import PRIVATE, errors_reported
from keyreel.errors import KeyreelError
from keyreel.settings import Settings
from keyreel.store.repair import repair as repair_file


def repair() -> None:
    """Rescue what can be read from a damaged SQLite database into a new one, and keep the damaged file.

    Stop the server first.
    """
    os.umask(PRIVATE)
    with errors_reported():
        settings = Settings()
        if settings.database_url:
            raise KeyreelError("KEYREEL_DATABASE_URL is set: PostgreSQL is repaired with its own tools, or restored.")
        repaired = repair_file(settings.data_dir / "keyreel.db")
        for table, rows in repaired.rows.items():
            typer.echo(f"{rows:8} {table}")
        typer.echo(f"These rows could be read. The damaged file is {repaired.damaged}.")
