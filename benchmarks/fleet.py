"""Measures a fleet at PostgreSQL: `python -m benchmarks.fleet` prints the figures of docs/performance.md.

Statements are counted by the server, and its processor time is that of its own processes. The devices are fakes whose
steps take a known time. To compare with an older commit, run this file with that commit's `src` on the PYTHONPATH.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.server.live import APP, ENDPOINT
from tests.server.members import FAKE_WORKER, GATEWAY, HEADERS, fleet_settings, members, wait_until_ready
from tests.server.whole import small
from tests.store.postgres import find_programs, restartable_server

from benchmarks.fleet_store import measure_fan_out, measure_rates, measure_statements
from benchmarks.postgres import SETTINGS, Monitor
from benchmarks.tables import print_table

STEP = 0.02
"""Seconds that one step takes on the fake device."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. calls: of each statement. requests: that workers claim and finish."""

    gateways: int = 2
    workers: int = 8
    idle_seconds: float = 20.0
    rounds: int = 40
    rows: Sequence[int] = (1_000, 10_000, 100_000)
    calls: int = 200
    workers_at_once: Sequence[int] = (1, 2, 4, 8)
    requests: int = 1_000
    listeners: int = 100


SMOKE = Effort(1, 1, 0.5, 2, (10, 20), 3, (1, 2), 5, 2)


def spread(seconds: Sequence[float]) -> str:
    return f"median {1000 * statistics.median(seconds):.0f} ms, worst {1000 * max(seconds):.0f} ms"


async def measure_processes(url: str, folder: Path, effort: Effort, monitor: Monitor) -> None:
    """Prints what idle processes ask of the database, and how fast processes hear of each other."""
    with members(folder, fleet_settings(url, folder)) as start:
        gateways = [start(f"gateway-{number}", *GATEWAY) for number in range(effort.gateways)]
        workers = [start(f"worker-{number}", *FAKE_WORKER) for number in range(effort.workers)]
        urls = [gateway.url() for gateway in gateways]
        wait_until_ready(*urls, *(worker.url() for worker in workers))
        await measure_idle(effort, monitor)
        async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
            picked = [await pick_up(http, urls[0], monitor) for _ in range(effort.rounds)]
            cancels = [
                await cancel(http, urls, monitor, number % 10 / 10 * STEP, folder / f"tally-{number}")
                for number in range(effort.rounds)
            ]
    stopped, completed = zip(*cancels, strict=True)
    print(f"\nPick-up, from the submit's commit to the claim's: {spread(picked)}")
    print(f"Cancel at a gateway of a request on a worker's device, whose steps take {1000 * STEP:.0f} ms:")
    print(f"  until the device's last step: {spread(stopped)}")
    print(f"  until the request is completed: {spread(completed)}")


async def measure_idle(effort: Effort, monitor: Monitor) -> None:
    seconds = effort.idle_seconds
    await asyncio.sleep(min(3.0, seconds))  # the last process has just become ready
    usage = await monitor.during(asyncio.sleep(seconds))
    print_table(
        f"{effort.gateways} gateways and {effort.workers} workers, all idle",
        ("1/s", "statement"),
        (f"{usage.statements / seconds:.1f}", "all"),
        *((f"{calls / seconds:.1f}", text[:100]) for text, calls in usage.texts[:8]),
    )
    print(f"  PostgreSQL takes {usage.seconds / seconds:.1%} of a core.")


async def submit(http: httpx.AsyncClient, url: str, **changes: Any) -> str:
    answer = await http.post(f"{url}/queue/{ENDPOINT}", json=small(**changes))
    return str(answer.raise_for_status().json()["request_id"])


async def pick_up(http: httpx.AsyncClient, url: str, monitor: Monitor) -> float:
    """Returns the seconds from a submit to its claim, by the database's clock."""
    request = await submit(http, url)
    await monitor.completed(request)
    return float(await monitor.value("SELECT started - created FROM request WHERE id = $1", request))


async def cancel(
    http: httpx.AsyncClient, urls: Sequence[str], monitor: Monitor, moment: float, tally: Path
) -> tuple[float, float]:
    """Cancels a request at the last gateway, `moment` seconds into a step.

    Returns the seconds from the call to the device's last step, and to the request's completion.
    tally: file to which the fake engine adds a byte after each step.
    """
    request = await submit(http, urls[0], prompt=f"pace={STEP} tally={tally}", number_of_steps=50)
    while not tally.exists():
        await asyncio.sleep(STEP / 10)
    await asyncio.sleep(moment)
    called = time.time()
    (await http.put(f"{urls[-1]}/queue/{APP}/requests/{request}/cancel")).raise_for_status()
    await monitor.completed(request)
    finished = await monitor.value("SELECT finished FROM request WHERE id = $1", request)
    return tally.stat().st_mtime - called, finished - called


async def main(effort: Effort) -> None:
    programs = find_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed.")
    with tempfile.TemporaryDirectory() as name, restartable_server(programs, SETTINGS) as server:
        async with Monitor.open(server.url) as monitor:
            await measure_processes(server.url, Path(name), effort, monitor)
            await measure_statements(server.url, monitor, effort.rows, effort.calls)
            await measure_rates(server.url, monitor, effort.workers_at_once, effort.requests)
            await measure_fan_out(server.url, monitor, effort.listeners, effort.calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="measure almost nothing, to see that it works")
    asyncio.run(main(SMOKE if parser.parse_args().smoke else Effort()))
