"""What a submit writes: the first row of a request."""

from typing import Any

from sqlalchemy import ColumnElement

from keyreel.store.records import NewRequest, State
from keyreel.store.turns import turn_of

MAX_FAILURES = 3
"""Failed attempts after which a request is completed with the failure."""


def first_row(new: NewRequest, now: ColumnElement[float]) -> dict[str, Any]:
    """Returns the columns of a request that waits for its first attempt."""
    deadline = None if new.start_timeout is None else now + new.start_timeout
    return {
        "endpoint": new.endpoint,
        "pool": new.pool,
        "key_id": new.key_id,
        "priority": new.priority,
        "turn": turn_of(new),
        "state": State.IN_QUEUE,
        "input": new.input,
        "seed": new.seed,
        "webhook_url": new.webhook_url,
        "idempotency_key": new.idempotency.key if new.idempotency else None,
        "idempotency_digest": new.idempotency.digest if new.idempotency else None,
        "retention": new.retention,
        "output_lifetime": new.output_lifetime,
        "output_acl": new.output_acl,
        "traceparent": new.traceparent,
        "attempt": 0,
        "failures": 0,
        "max_failures": MAX_FAILURES if new.retry else 1,
        "cancel_requested": False,
        "not_before": now,
        "start_deadline": deadline,
        "log_lines": 0,
        "created": now,
    }
