"""`keyreel wrap`: runs a program that calls fal.ai against a Keyreel server."""

import asyncio
import os
from typing import Annotated

import typer

from keyreel.errors import KeyreelError
from keyreel.wrap.calls import Calls
from keyreel.wrap.proxy import parse_server
from keyreel.wrap.run import NOT_FOUND, run_wrapped

REFUSED = 2


def wrap(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    server: Annotated[str, typer.Option(help="URL of the Keyreel server.")] = "http://127.0.0.1:8000",
    check: Annotated[
        bool, typer.Option("--check", help="At the end, list what the program called and where it went.")
    ] = False,
) -> None:
    """Run a program that calls fal.ai against a Keyreel server: keyreel wrap -- python app.py

    Works with Python and Node programs, their child processes, and other programs that honour HTTPS_PROXY. The
    program's own FAL_KEY must be a key of the server. Hosts of fal that the server does not serve are refused.
    Connections to other hosts are not changed.
    """
    try:
        address = parse_server(server)
        calls = Calls(address.geturl().rstrip("/"), _warn)
        status = asyncio.run(run_wrapped(address, command, os.environ, calls))
    except KeyreelError as error:
        typer.echo(f"keyreel: {error}", err=True)
        raise typer.Exit(REFUSED) from None
    if check:
        _list(calls)
    if status == NOT_FOUND:
        typer.echo(f"keyreel: cannot run {command[0]!r}", err=True)
    raise typer.Exit(status if status >= 0 else 128 - status)


def _warn(text: str) -> None:
    typer.echo(f"keyreel: {text}", err=True)


def _list(calls: Calls) -> None:
    lines = list(calls.lines())
    typer.echo("keyreel: the program called" + (":" if lines else " nothing that wrap saw."), err=True)
    for line in lines:
        typer.echo(line, err=True)
