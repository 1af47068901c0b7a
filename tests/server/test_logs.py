"""Logs of a process of their own, because the configuration concerns the whole process."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

from keyreel.files.links import Links
from tests.files.test_links import make_file

CONFIGURE = """
import logging
import structlog
from keyreel.server.logs import configure_logs
configure_logs()
"""
LINES = """
structlog.get_logger("keyreel").info("request_done", seconds=3)
structlog.get_logger("keyreel").debug("detail")
logging.getLogger("library").warning("disk is %s", "full")
logging.getLogger("uvicorn.error").warning("Shutting down")
logging.getLogger("alembic.runtime").info("Running upgrade")
"""
FAILURE = """
try:
    raise OSError("no space")
except OSError:
    structlog.get_logger("keyreel").exception("not_stored")
"""


def printed(program: str) -> list[dict[str, Any]]:
    """Runs the program with its logs in a pipe. Returns their lines."""
    done = subprocess.run([sys.executable, "-c", CONFIGURE + program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def shown(program: str) -> str:
    """Runs the program with its logs on a terminal. Returns what the terminal shows."""
    screen, terminal = pty.openpty()
    text = b""
    with os.fdopen(screen, "rb", buffering=0) as output:
        try:
            subprocess.run([sys.executable, "-c", CONFIGURE + program], stderr=terminal, check=True)
        finally:
            os.close(terminal)
        with suppress(OSError):  # how Linux ends the output of a terminal
            while part := output.read(4096):
                text += part
    return text.decode()


def test_logs_in_a_pipe_are_json_also_those_of_libraries() -> None:
    ours, theirs = printed(LINES)
    assert (ours["event"], ours["level"], ours["seconds"]) == ("request_done", "info", 3)
    assert (theirs["event"], theirs["level"]) == ("disk is full", "warning")
    for line in (ours, theirs):
        assert line["timestamp"].endswith("Z")


def test_an_exception_in_a_pipe_is_part_of_its_line() -> None:
    (line,) = printed(FAILURE)
    assert line["event"] == "not_stored"
    assert line["exception"].endswith("OSError: no space")


def test_logs_on_a_terminal_are_readable() -> None:
    text = shown(LINES)
    assert "request_done" in text
    assert "disk is full" in text
    assert "{" not in text


def test_links_that_open_files_are_not_logged() -> None:
    links, file = Links("http://keyreel.example", b"s" * 32), make_file()
    upload = links.upload_url(file, 60)
    share = f"http://keyreel.example/api/shared/{links.share_token(file.id)}"
    secrets = [links.file_token(file), links.share_token(file.id), upload.rpartition("=")[2]]
    urls = [links.file_url(file), upload, share]
    program = f"""
log = structlog.get_logger("keyreel")
for url in {urls!r}:
    log.info("answered", path=url.removeprefix("http://keyreel.example"))
    logging.getLogger("library").warning("cannot read %s", url)
    try:
        raise OSError(url)
    except OSError:
        log.exception("not_read")
"""
    for text in (json.dumps(printed(program)), shown(program)):
        assert text.count("/files/***/video.mp4") == 3
        assert text.count("/storage/uploads/***?expires=") == 3
        assert text.count("signature=***") == 3
        assert text.count("/api/shared/***") == 3
        assert not [secret for secret in secrets if secret in text]


def test_a_traceback_on_a_terminal_shows_no_values_of_variables() -> None:
    assert "id:secret" not in shown("key = 'id:secret'" + FAILURE)
