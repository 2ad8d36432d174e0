"""What several tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.support import Server


@pytest.fixture
def proxy(session_server: Server) -> Iterator[Proxy]:
    """A network in front of the session's server."""
    made = Proxy(session_server.socket)
    yield made
    made.close()
