"""The tables of errors list exactly what the sources raise."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import keyreel
from keyreel.fal.error_types import MODEL_ERRORS, PLAIN_ERRORS, PLATFORM_ERRORS
from keyreel.server.errors import PlatformError

SOURCE = Path(keyreel.__file__).parent
TYPE_POSITIONS = {"RequestError.at": 2, "Problem": 2, "PlatformError": 1, "Failure": 1}
"""Calls that create an error, and the position of the argument that is its type."""
RESPONSES = {"HTTPException", "Json", "Response"}


def calls() -> Iterator[tuple[str, ast.Call, dict[str, str]]]:
    """Yields every call in the sources: the function's name, the call, and the constants of its module."""
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = dict(constant for node in tree.body for constant in string_constants(node))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node, constants


def string_constants(node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Assign(targets=[ast.Name(name)], value=ast.Constant(str(text))):
            yield name, text


def raised_types(*functions: str) -> set[str]:
    """Returns the error types that the sources pass to these functions as literals or constants."""
    return {
        found
        for name, call, constants in calls()
        if name in functions and (found := error_type_of(name, call, constants)) is not None
    }


def error_type_of(name: str, call: ast.Call, constants: dict[str, str]) -> str | None:
    position = TYPE_POSITIONS[name]
    named = [keyword.value for keyword in call.keywords if keyword.arg in ("type", "error_type")]
    match (call.args[position : position + 1] or named)[:1]:
        case [ast.Constant(str(text))]:
            return text
        case [ast.Name(constant)]:
            return constants.get(constant)
        case [] if name == "PlatformError":
            return str(inspect.signature(PlatformError).parameters["error_type"].default)
    return None


def test_table_of_model_errors_is_complete() -> None:
    listed = {name for name, error in MODEL_ERRORS.items() if error.raised}
    assert raised_types("RequestError.at", "Problem") == listed


@pytest.mark.slow
def test_table_of_platform_errors_is_complete() -> None:
    listed = {name for name, error in PLATFORM_ERRORS.items() if error.raised}
    assert raised_types("PlatformError", "Failure") == listed


def test_table_of_plain_errors_is_complete() -> None:
    statuses = {
        value.value
        for name, call, _ in calls()
        if name in RESPONSES
        for value in (*call.args, *(keyword.value for keyword in call.keywords))
        if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value >= 400
    }
    assert statuses == PLAIN_ERRORS.keys()


def test_cause_and_remedy_of_each_error_are_sentences() -> None:
    for error in (*MODEL_ERRORS.values(), *PLATFORM_ERRORS.values(), *PLAIN_ERRORS.values()):
        assert error.cause.endswith(".")
        assert not error.remedy or error.remedy.endswith(".")
