"""Measures /health from a process of its own, until its input ends: `python -m tests.fuzz.probe URL`. Prints JSON."""

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

PERIOD = 0.02
"""Seconds between two probes."""


def probe(url: str, stop: threading.Event) -> list[float]:
    """Returns the seconds of each answer. Raises RuntimeError for one that is not 200."""
    parts, seconds = urlsplit(url), list[float]()
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    while not stop.wait(PERIOD):
        start = time.perf_counter()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"/health answered {answer.status}")
        seconds.append(time.perf_counter() - start)
    return seconds


def _set_at_the_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main(url: str) -> None:
    stop = threading.Event()
    threading.Thread(target=_set_at_the_end, args=(stop,), daemon=True).start()
    json.dump(probe(url, stop), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
