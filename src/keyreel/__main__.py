"""Runs the command line: `python -m keyreel`."""

from keyreel.cli import app

app(prog_name="keyreel")
