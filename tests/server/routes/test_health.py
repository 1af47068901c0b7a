"""Health checks."""

from dataclasses import replace

import httpx

from keyreel.store.records import Worker
from tests.server.live import LiveServer


def test_readiness_follows_the_workers(http: httpx.Client, server: LiveServer) -> None:
    workers = server.services.store.workers
    nobody = {"Authorization": ""}
    assert http.get("/health/live", headers=nobody).json() == {"status": "ok"}
    assert http.get("/health/ready", headers=nobody).status_code == 503
    worker = Worker("w", "default", "cpu", "demo", ready=False)
    server.call(workers.report(worker))
    assert http.get("/health/ready").json() == {"status": "loading"}
    server.call(workers.report(replace(worker, ready=True)))
    assert http.get("/health/ready").json() == {"status": "ok"}
    (listed,) = http.get("/health").json()["workers"]
    assert listed == {
        "name": "w",
        "pool": "default",
        "device": "cpu",
        "model": "demo",
        "ready": True,
        "recipes": ["single", "stg", "published"],
        "distilled": False,
        "expands": True,
        "loras": ["keyreel:heart", "keyreel:ink", "keyreel:neon"],
    }
    server.call(workers.remove("w"))
