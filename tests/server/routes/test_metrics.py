"""Metrics for Prometheus."""

import httpx

from keyreel.store.records import Worker
from tests.server.live import ENDPOINT, INPUT, LiveServer


def test_metrics_show_queue_workers_and_calls(http: httpx.Client, server: LiveServer) -> None:
    workers = server.services.store.workers
    assert http.get("/health/ready").status_code == 503
    server.call(workers.report(Worker("w", "default", "cpu", "demo", ready=True)))
    server.worker.paused = True
    submitted = http.post(f"/queue/{ENDPOINT}", json=INPUT).json()
    text = http.get("/metrics").text
    assert 'keyreel_queue_requests{pool="default",state="IN_QUEUE"} 1.0' in text
    assert 'keyreel_workers{pool="default",ready="true"} 1.0' in text
    assert "keyreel_queue_oldest_seconds" in text
    assert 'keyreel_http_requests_total{code="503",method="GET"}' in text
    http.put(submitted["cancel_url"])
    server.worker.paused = False
    server.call(workers.remove("w"))
