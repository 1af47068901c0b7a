"""A PostgreSQL server, and an empty database on it for each test that asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.postgres import find_programs, new_database, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of the server."""
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with running_server(programs) as url:
        yield url


@pytest.fixture
def database(server: str, tmp_path: Path) -> Iterator[str]:
    with new_database(server, tmp_path) as url:
        yield url
