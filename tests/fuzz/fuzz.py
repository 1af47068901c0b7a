"""Calls a server with mistakes of all kinds: `make fuzz`, or `python -m tests.fuzz.fuzz`.

No call may be answered with 5xx or leave a traceback in the log, and /health answers quickly meanwhile.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.calls import good_calls
from tests.fuzz.documents import fuzz_documents
from tests.fuzz.grammar import Grammar
from tests.fuzz.wire import Findings, fuzz_wire, send

KEY = "fuzz:a long secret of the fuzzer"
CORPUS = Path(__file__).parent / "corpus"
"""Requests on which a server once failed, with AUTHORIZATION in place of that header."""
SLOWEST = 0.1
"""Seconds that 99 of 100 answers of /health may take."""


@dataclass(frozen=True, slots=True)
class Report:
    findings: Findings
    tracebacks: list[str]
    health: list[float]
    """Seconds of each probe."""

    @property
    def p99(self) -> float:
        return sorted(self.health)[int(0.99 * len(self.health))]

    @property
    def is_clean(self) -> bool:
        return not (self.findings.failed or self.tracebacks)

    def __str__(self) -> str:
        codes = sorted(self.findings.codes.items())
        return (
            f"{self.findings.calls:,} calls: {', '.join(f'{code} {number:,}' for code, number in codes)}\n"
            f"{len(self.findings.failed)} answers of 5xx, {len(self.tracebacks)} tracebacks in the log\n"
            f"/health meanwhile: {len(self.health):,} probes, p99 {1000 * self.p99:.0f} ms"
        )

    def details(self) -> Iterator[str]:
        for request in self.findings.failed[:20]:
            yield f"5xx: {request[:2000]!r}"
        for line in self.tracebacks[:20]:
            yield f"log: {line[:4000]}"


@contextmanager
def server(folder: Path, log: Path) -> Iterator[str]:
    """Runs `keyreel serve` without workers, so that what is submitted waits. Yields its URL."""
    command = [sys.executable, "-m", "keyreel", "serve", "--no-worker", "--port", "0", "--data-dir", str(folder)]
    environment = os.environ | {"KEYREEL_ADMIN_KEY": KEY, "KEYREEL_CACHE_DIR": str(folder / "cache")}
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout
            yield next(line for line in process.stdout if " is at " in line).split(" is at ")[1].strip()
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()


@contextmanager
def probed(url: str, seconds: list[float]) -> Iterator[None]:
    """Probes /health during the block, and adds the seconds of each answer."""
    command = [sys.executable, "-m", "tests.fuzz.probe", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            seconds += json.loads(process.communicate(timeout=120)[0])


def tracebacks(log: Path) -> list[str]:
    """Returns the lines of the log that tell of a fault of the server's own."""
    lines = log.read_text("utf-8", "replace").splitlines()
    return [line for line in lines if "Traceback" in line or '"level": "error"' in line]


async def replay_corpus(url: str, findings: Findings) -> None:
    for path in sorted(CORPUS.iterdir()):
        request = path.read_bytes().replace(b"AUTHORIZATION", f"Authorization: Key {KEY}".encode())
        findings.add(request, await send(url, request))


def fuzz(folder: Path, raw: int, described: int, seed: int, operations: str = "") -> Report:
    """Makes `raw` calls in raw HTTP, and `described` by the OpenAPI documents, of the operations that match."""
    log, health, findings = folder / "server.log", list[float](), Findings()
    with server(folder / "data", log) as url:
        grammar = Grammar(good_calls(url, KEY), random.Random(seed))  # noqa: S311
        with probed(url, health):
            asyncio.run(replay_corpus(url, findings))
            asyncio.run(fuzz_wire(url, grammar, raw, findings))
            fuzz_documents(url, KEY, described, findings, seed, operations)
    return Report(findings, tracebacks(log), health)


def main(raw: int, described: int, seed: int) -> int:
    started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"fuzz with seed {seed} in {folder}", flush=True)
    report = fuzz(folder, raw, described, seed)
    print(f"{report}\nin {time.monotonic() - started:.0f} s", *report.details(), sep="\n")
    return 0 if report.is_clean and report.p99 < SLOWEST else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raw", type=int, default=93_000, help="calls in raw HTTP")
    parser.add_argument("--described", type=int, default=8_000, help="calls by the OpenAPI documents")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    sys.exit(main(**vars(parser.parse_args())))
