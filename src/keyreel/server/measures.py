"""What this process counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("keyreel_http_requests", "Calls answered.", ["method", "code"])
DEPTH = Gauge("keyreel_queue_requests", "Requests that wait or run.", ["pool", "state"])
OLDEST = Gauge("keyreel_queue_oldest_seconds", "Age of the oldest request that waits or runs.", ["pool", "state"])
DELIVERIES = Gauge("keyreel_webhooks_pending", "Webhook calls still to be made.")
WORKERS = Gauge("keyreel_workers", "Workers that are alive.", ["pool", "ready"])
WAIT = Histogram(
    "keyreel_queue_wait_seconds",
    "From submit to the first start. Each gateway sees every request: take one gateway's.",
    ["pool"],
    buckets=(0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
