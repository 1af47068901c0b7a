"""What a program says of its client: one line of JSON for each capability. Runs in the client's Python."""

import json
import traceback
from collections.abc import Callable
from typing import Any


def check(capability: str, call: Callable[[], Any]) -> None:
    """Makes a call, and says whether it works."""
    try:
        call()
        _say(capability, True)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        _say(capability, False, f"{type(error).__name__}: {error}")


def lacks(*capabilities: str) -> None:
    """Says that the client has no such calls."""
    for capability in capabilities:
        _say(capability, None)


def expect(condition: object, what: object) -> None:
    """Raises ValueError when a condition is not met."""
    if not condition:
        raise ValueError(f"unexpected: {what!r}")


def _say(capability: str, works: bool | None, reason: str = "") -> None:
    print(json.dumps({"capability": capability, "works": works, "reason": reason}), flush=True)
