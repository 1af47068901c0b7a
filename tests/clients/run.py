"""Runs a client's program behind `keyreel wrap`, and says what works and where it went."""

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.clients.install import InstallError, command_of
from tests.clients.table import CAPABILITIES, Client
from tests.server.live import LiveServer, live_server
from tests.wrap.programs import TIMEOUT, recorder, run_wrapped

PICTURE = b"a picture"
VIDEO = b"the video"
"""What programs send as a file, and what they get."""
HERE = {"127.0.0.1", "::1", "localhost", "pipe"}


@dataclass(frozen=True, slots=True)
class Cell:
    """Whether a client can do one thing. `works` is None where the client has no such call."""

    works: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client can do, and the other hosts that it connected to. `errors` is what its program wrote to stderr."""

    cells: Mapping[str, Cell]
    left_for: frozenset[str] = frozenset()
    errors: str = ""


def problems(client: Client, outcome: Outcome) -> list[str]:
    """Returns what is not as the table of clients says, and the other hosts that were called."""
    found = [f"{client.name} connected to {host}" for host in sorted(outcome.left_for)]
    for capability, cell in outcome.cells.items():
        if cell.works is False and capability not in client.limits:
            found.append(f"{client.name}, {capability}: {cell.reason}")
        if cell.works and capability in client.limits:
            found.append(f"{client.name}, {capability}: it works, but the table says: {client.limits[capability]}")
    return found


@contextmanager
def _server_with_video(folder: Path) -> Iterator[LiveServer]:
    """Runs a server whose videos can be downloaded from it."""
    with live_server(folder) as server:
        initiate = f"{server.url}/storage/upload/initiate"
        made = httpx.post(initiate, json={"content_type": "video/mp4"}, headers=server.headers).json()
        httpx.put(made["upload_url"], content=VIDEO).raise_for_status()
        server.worker.video = {"url": made["file_url"], "content_type": "video/mp4"}
        yield server


async def outcome_of(client: Client, folder: Path) -> Outcome:
    """Installs a client and runs its program against a server of its own, with files in `folder`."""
    try:
        command = command_of(client)
    except InstallError as error:
        return Outcome(dict.fromkeys(CAPABILITIES, Cell(False, f"it cannot be installed: {error}")))
    with _server_with_video(folder / "server") as server:
        async with recorder(folder) as recorded:
            variables = {**client.environment, **recorded.environment}
            variables["FAL_KEY"] = server.credentials
            status, out, err = await run_wrapped(server.url, *command, **variables)
        server.cancel_all()
        left_for = frozenset({*recorded.proxied, *(recorded.addresses - HERE)})
        return Outcome(_checked(_cells(out, status), server), left_for, err)


def _cells(out: str, status: int) -> dict[str, Cell]:
    ended = f"its program ran for {TIMEOUT:g} s" if status == -SIGKILL else f"its program ended with status {status}"
    cells = dict.fromkeys(CAPABILITIES, Cell(False, ended))
    for line in out.splitlines():
        if line.startswith('{"capability"'):
            said = json.loads(line)
            cells[said["capability"]] = Cell(said["works"], said["reason"])
    return cells


def _checked(cells: dict[str, Cell], server: LiveServer) -> dict[str, Cell]:
    """Only the server knows whether the file that a program sent has arrived."""
    if not cells["file input"].works:
        return cells
    sent = [lease.input for lease in server.worker.leases if lease.input["prompt"] == "a file"]
    arrived = bool(sent) and all(_picture_of(each, server) == PICTURE for each in sent)
    return cells if arrived else cells | {"file input": Cell(False, "the picture did not arrive")}


def _picture_of(given: Mapping[str, Any], server: LiveServer) -> bytes:
    url = given["image_url"] if "image_url" in given else given["images"][0]["image_url"]
    if url.startswith("data:"):
        return b64decode(url.partition(",")[2])
    return httpx.get(server.url + urlsplit(url).path).content
