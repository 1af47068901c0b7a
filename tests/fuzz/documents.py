"""Calls what the OpenAPI documents describe, with what their schemas allow and with what they forbid."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.fuzz.wire import Findings
from tests.server.live import ENDPOINT

DOCUMENTS = ("/openapi.json", f"/api/openapi/queue/openapi.json?endpoint_id={ENDPOINT}")
TIMEOUT = 1.0
"""Seconds. A synchronous run of a valid request would wait for its video."""


def fuzz_documents(url: str, key: str, number: int, findings: Findings, chosen_seed: int, pattern: str = "") -> None:
    """Makes about `number` calls, as many of each operation whose path matches the pattern."""
    operations = [each for path in DOCUMENTS for each in _operations(url, path) if re.search(pattern, each.path)]
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Key {key}"
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                calls = max(1, number // len(operations) // 2)
                # Without parameters and body, nothing can be wrong.
                with suppress(Unsatisfiable):
                    _fuzz(operation.as_strategy(generation_mode=mode), url, session, calls, findings, chosen_seed)


def _operations(url: str, path: str) -> Iterator[Any]:
    document = requests.get(url + path, timeout=60).json()
    # In fal's document, the server is fal's.
    for found in schemathesis.openapi.from_dict(document | {"servers": [{"url": url}]}).get_all_operations():
        operation: Any = found
        yield operation.ok()


def _fuzz(cases: Any, url: str, session: requests.Session, calls: int, findings: Findings, chosen_seed: int) -> None:
    @seed(chosen_seed)
    @settings(
        max_examples=calls,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def call(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url=url)
        findings.add(repr(arguments).encode("utf-8", "replace"), _codes(session, arguments))

    call()


def _codes(session: requests.Session, arguments: dict[str, Any]) -> list[str]:
    try:
        with session.request(**arguments, timeout=TIMEOUT, stream=True) as answer:
            return [str(answer.status_code)]
    except (requests.RequestException, ValueError):
        return []  # the server is still at work, or the client cannot send what was made up
