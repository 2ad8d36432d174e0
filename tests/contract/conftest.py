"""A world of its own for each test, on each kind of server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.world import World
from tests.support import Server


@pytest.fixture
def world(each_server: Server) -> Iterator[World]:
    """An app without any key; fails the test that leaves a key the documentation does not know."""
    made = World(each_server.url)
    yield made
    wrong = made.undocumented()
    made.clear()
    assert not wrong, f"not in the table of taskq/broker/keys.py, or otherwise there: {wrong}"
