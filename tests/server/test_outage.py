"""A gateway while its database is away: 503 with Retry-After, never 500, and it goes on alone afterwards."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from keyreel.server.routes.metrics import PATIENCE
from tests.server.live import APP, ENDPOINT, INPUT, LiveServer, live_server
from tests.store.postgres import Server, find_programs, restartable_server

pytestmark = pytest.mark.slow


@pytest.fixture
def database() -> Iterator[Server]:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with restartable_server(programs) as server:
        yield server


@pytest.fixture
def gateway(database: Server, tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path, database_url=database.url, secret="s" * 32) as server:
        yield server


def test_a_gateway_outlives_its_database(database: Server, gateway: LiveServer) -> None:
    gateway.worker.paused = True
    with httpx.Client(base_url=gateway.url, headers=gateway.headers, timeout=30, trust_env=False) as http:
        waiting = http.post(f"/queue/{ENDPOINT}", json=INPUT).json()["request_id"]
        gateway.refresh()
        database.stop()
        try:
            # The key and the live requests are known.
            assert http.get(f"/queue/{APP}/requests/{waiting}/status").status_code == 202
            for answer in (
                http.post(f"/queue/{ENDPOINT}", json=INPUT),
                http.get(f"/queue/{APP}/requests/{'0' * 8}-0000-0000-0000-{'0' * 12}"),
                http.get("/api/requests"),
                http.get("/health/ready"),
                http.get("/health", headers={"Authorization": "Key nobody:secret"}),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.headers["Retry-After"]
            metrics = http.get("/metrics").text
            assert "keyreel_database_up 0.0" in metrics
            assert 'keyreel_http_requests_total{code="503"' in metrics, "errors are counted where they matter most"
            assert "keyreel_queue_requests{" not in metrics, "what is not known is absent"
        finally:
            database.start()
        assert http.get(f"/queue/{APP}/requests/{waiting}/status").status_code == 202
        assert http.post(f"/queue/{ENDPOINT}", json=INPUT).status_code == 200
        assert "keyreel_database_up 1.0" in http.get("/metrics").text


def test_a_gateway_outlives_a_stopped_database(
    database: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped PostgreSQL (SIGSTOP) accepts connections and never answers."""
    for timeout in ("CONNECT_TIMEOUT", "COMMAND_TIMEOUT"):
        monkeypatch.setattr(f"keyreel.store.database.{timeout}", 1.0)
    with (
        live_server(tmp_path, database_url=database.url, secret="s" * 32) as gateway,
        httpx.Client(base_url=gateway.url, headers=gateway.headers, timeout=30, trust_env=False) as http,
    ):
        gateway.worker.paused = True
        waiting = http.post(f"/queue/{ENDPOINT}", json=INPUT).json()["request_id"]
        gateway.refresh()
        with database.paused():
            assert http.get(f"/queue/{APP}/requests/{waiting}/status").status_code == 202
            for answer in (
                http.post(f"/queue/{ENDPOINT}", json=INPUT),
                http.get("/api/requests"),
            ):
                assert answer.status_code == 503, answer.text
                assert answer.headers["Retry-After"]
            assert "keyreel_database_up 0.0" in http.get("/metrics", timeout=PATIENCE + 4).text
        assert http.post(f"/queue/{ENDPOINT}", json=INPUT).status_code == 200
        assert len(http.get("/api/requests").json()) == 2  # what was refused was not stored later


def test_known_keys_stay_valid_for_longer_than_they_are_cached(database: Server, gateway: LiveServer) -> None:
    ring, (key_id, secret) = gateway.services.keyring, (gateway.user.key.id, gateway.user.secret)
    assert gateway.call(ring.verify(key_id, secret))
    assert gateway.call(ring.find(key_id))
    for cached in list(ring._cache):
        ring._cache[cached] = type(ring._cache[cached])(ring._cache[cached].key, 0.0)
    database.stop()
    try:
        assert gateway.call(ring.verify(key_id, secret)) == gateway.user.key
        assert gateway.call(ring.find(key_id)) == gateway.user.key
        with pytest.raises(Exception):  # noqa: B017, PT011 (whichever the driver raises)
            gateway.call(ring.verify(key_id, "another secret"))
    finally:
        database.start()
