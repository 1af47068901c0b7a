"""`keyreel wrap`: runs a program that calls fal.ai against a Keyreel server."""

import asyncio
import os
from typing import Annotated

import typer

from keyreel.errors import KeyreelError
from keyreel.wrap.proxy import parse_server
from keyreel.wrap.run import NOT_FOUND, run_wrapped

REFUSED = 2


def wrap(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    server: Annotated[str, typer.Option(help="URL of the Keyreel server.")] = "http://127.0.0.1:8000",
) -> None:
    """Run a program that calls fal.ai against a Keyreel server: keyreel wrap -- python app.py

    Works with Python programs, others that honour HTTPS_PROXY, and Node's fetch. The program's own FAL_KEY must be a
    key of the server. Connections to other hosts are not changed.
    """
    try:
        status = asyncio.run(run_wrapped(parse_server(server), command, os.environ))
    except KeyreelError as error:
        typer.echo(f"keyreel: {error}", err=True)
        raise typer.Exit(REFUSED) from None
    if status == NOT_FOUND:
        typer.echo(f"keyreel: cannot run {command[0]!r}", err=True)
    raise typer.Exit(status if status >= 0 else 128 - status)
