"""What a submit writes: the first row of a request."""

from typing import Any

from sqlalchemy import ColumnElement, Double, Insert, bindparam, insert

from keyreel.store.records import NewRequest, State
from keyreel.store.tables import request
from keyreel.store.turns import lane_of, next_turn

MAX_FAILURES = 3
"""Failed attempts after which a request is completed with the failure."""


def insert_request(now: ColumnElement[float]) -> Insert:
    """Returns the statement that queues a request with the parameters of `first_row`.

    It is built once, because building it takes longer than executing it.
    """
    return insert(request).values(
        turn=next_turn,
        state=State.IN_QUEUE,
        attempt=0,
        failures=0,
        cancel_requested=False,
        log_lines=0,
        not_before=now,
        created=now,
        start_deadline=now + bindparam("within", type_=Double),
    )


def first_row(new: NewRequest, request_id: str) -> dict[str, Any]:
    """Returns the parameters of a request that waits for its first attempt."""
    return {
        "id": request_id,
        "endpoint": new.endpoint,
        "pool": new.pool,
        "key_id": new.key_id,
        "priority": new.priority,
        "input": new.input,
        "seed": new.seed,
        "webhook_url": new.webhook_url,
        "idempotency_key": new.idempotency.key if new.idempotency else None,
        "idempotency_digest": new.idempotency.digest if new.idempotency else None,
        "retention": new.retention,
        "output_lifetime": new.output_lifetime,
        "output_acl": new.output_acl,
        "traceparent": new.traceparent,
        "max_failures": MAX_FAILURES if new.retry else 1,
        "within": new.start_timeout,
        **lane_of(new),
    }
