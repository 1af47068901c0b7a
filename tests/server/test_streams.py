import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.server.live import ENDPOINT, TIMEOUT, LiveServer, live_server
from tests.server.queue_api import events, hold


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path, max_streams_per_key=2) as server:
        yield server


@pytest.mark.slow
def test_a_key_may_have_so_many_streams_open(server: LiveServer) -> None:
    with (
        httpx.Client(base_url=server.url, headers=server.headers, trust_env=False) as http,
        ExitStack() as open_streams,
    ):
        url = f"{hold(http)['status_url']}/stream"
        streams = [events(open_streams.enter_context(http.stream("GET", url))) for _ in range(2)]
        assert [next(stream)["status"] for stream in streams] == ["IN_PROGRESS"] * 2
        refused = http.get(url)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "5"
        run = http.post(f"/run/{ENDPOINT}/stream", json={"prompt": "a fox"})
        assert run.status_code == 429
        assert not server.call(server.services.store.requests.queue()), "what is refused is not queued"
        assert refused.json()["detail"].startswith("Your key has 2 streams open, as many as it may.")
        with http.stream("GET", url, headers=server.admin_headers) as other:
            assert other.status_code == 200, "each key counts for itself"
        server.release()
        assert [[event["status"] for event in stream][-1] for stream in streams] == ["COMPLETED"] * 2
        deadline = time.monotonic() + TIMEOUT
        # The server counts a stream until it knows that its last event was sent.
        while http.get(url).status_code == 429:
            assert time.monotonic() < deadline, "those that have ended do not count"
