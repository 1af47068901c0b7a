"""The Prometheus metrics of the server and its workers, served at `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter("keyreel_http_requests", "HTTP requests answered.", ["method", "code"])
CONNECTIONS_ENDED = Counter(
    "keyreel_connections_ended",
    "Connections that the server refused, or ended because they kept it waiting or others needed the room.",
    ["reason"],
)
DATABASE_UP = Gauge("keyreel_database_up", "1 if the database answered this call, else 0.")
QUEUE_REQUESTS = Gauge("keyreel_queue_requests", "Requests that are waiting or running.", ["pool", "state"])
QUEUE_OLDEST = Gauge("keyreel_queue_oldest_seconds", "Age of the oldest waiting or running request.", ["pool", "state"])
QUEUE_WAIT = Histogram(
    "keyreel_queue_wait_seconds",
    "Time from submission to first start. Every gateway reports all requests: read one gateway only.",
    ["pool"],
    buckets=(0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
WEBHOOKS_PENDING = Gauge("keyreel_webhooks_pending", "Webhook deliveries that are still pending.")
WORKERS = Gauge("keyreel_workers", "Live workers.", ["pool", "ready"])
DISK_FREE = Gauge("keyreel_disk_free_bytes", "Free bytes on the disk of the data folder, or of the files.")
DISK_FLOOR = Gauge("keyreel_disk_floor_bytes", "Free bytes below which uploads and new requests are refused.")

STAGE_SECONDS = Histogram(
    "keyreel_stage_seconds",
    "Duration of each stage of a request.",
    ["stage"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
STEPS = Counter("keyreel_steps", "Denoising steps of all passes.")
FINISHED = Counter("keyreel_finished", "Attempts that ended with a video.")
FAILURES = Counter("keyreel_failures", "Attempts that ended without a video.", ["type"])
ENGINE_RESTARTS = Counter("keyreel_child_restarts", "Engine processes that were replaced.")
