"""A server for the model tests alone: an audit reads every key there is on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.system import System
from tests.support import Server, programs


@pytest.fixture(scope="module")
def model_server(short_folder: Path) -> Iterator[Server]:
    """A Valkey on which nothing else is; a module's own, since a restart reads all that was ever written there."""
    server = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def unkept_server(short_folder: Path) -> Iterator[Server]:
    """The same, but without a file: all that is written there is to be read again at once."""
    server = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)), "--appendonly", "no")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def system(model_server: Server) -> Iterator[System]:
    """An app on a server that has nothing else."""
    made = System(model_server.url)
    yield made
    made.clear()
    made.line.close()
