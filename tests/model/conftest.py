"""A server for the model tests alone: an audit reads every key there is on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq.broker.commands import Command
from taskq.broker.connection import Connection
from taskq.broker.protocol import drive, persist
from tests.model.system import System
from tests.support import Server, programs


@pytest.fixture(scope="module")
def model_server(short_folder: Path) -> Iterator[Server]:
    """A Valkey on which nothing else is; a module's own, since a restart reads all that was ever written there."""
    server = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)))
    server.start()
    never_behind(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def unkept_server(short_folder: Path) -> Iterator[Server]:
    """The same, but without a file: all that is written there is to be read again at once."""
    server = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)), "--appendonly", "no")
    server.start()
    yield server
    server.stop()


def never_behind(server: Server) -> None:
    """Let every write reach the file before its answer leaves, so that a kill loses nothing.

    With ``everysec`` a server whose disk is slow may answer first and write within two seconds.
    """
    connection = Connection(server.url)
    words = (b"CONFIG", b"SET", b"appendfsync", b"no")
    drive(persist(Command(None, words, lambda reply: reply), server.url, None), connection)
    connection.close()


@pytest.fixture
def system(model_server: Server) -> Iterator[System]:
    """An app on a server that has nothing else."""
    made = System(model_server.url)
    yield made
    made.clear()
    made.line.close()
