"""Sends raw calls and reads what comes back."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.fuzz.grammar import Grammar

PATIENCE = 0.5
"""Seconds without anything new after which the client leaves."""
ENOUGH = 64 * 1024
UNANSWERED = "none"
"""In place of a code: the connection ended, or nothing came. A head or body that is not complete gets no answer."""
_STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)


@dataclass(slots=True)
class Findings:
    """The calls by code, and those that failed in the server."""

    codes: Counter[str] = field(default_factory=Counter)
    failed: list[bytes] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return self.codes.total()

    def add(self, request: bytes, codes: list[str]) -> None:
        self.codes.update(codes or [UNANSWERED])
        if any(code.startswith("5") for code in codes):
            self.failed.append(request)


async def fuzz_wire(url: str, grammar: Grammar, number: int, findings: Findings, clients: int = 8) -> None:
    """Makes `number` calls, `clients` at a time."""
    left = iter(range(number))

    async def client() -> None:
        for _ in left:
            call = grammar.draw()
            request = call.encoded(grammar.chance)
            findings.add(request, await send(url, request, is_cut=call.is_cut))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())


async def send(url: str, request: bytes, *, is_cut: bool = False) -> list[str]:
    """Sends a request and returns the codes of the answers."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        if is_cut:
            writer.write_eof()
        answer = await _answer(reader)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    return [code.decode() for code in _STATUS.findall(answer)]


async def _answer(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while len(answer) < ENOUGH and b"text/event-stream" not in answer:
        try:
            async with asyncio.timeout(PATIENCE):
                part = await reader.read(ENOUGH)
        except (TimeoutError, ConnectionError):
            break
        if not part:
            break
        answer += part
    return answer
