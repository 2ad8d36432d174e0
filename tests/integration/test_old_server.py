"""A server that is too old to keep taskq's promises is named as that."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import BrokerError
from taskq.errors import ServerUnsuitable
from tests.support import load_jobs, new_app


class OldServer(socketserver.StreamRequestHandler):
    """Answers as Redis 5 does to a command it does not know."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                words = [self.rfile.readline() and self.rfile.readline().strip() for _ in range(int(line[1:]))]
                self.wfile.write(b"-ERR unknown command `%s`, with args beginning with: `3`,\r\n" % words[0])


@pytest.fixture
def old_url() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_producer_says_what_is_wrong(old_url: str) -> None:
    app = new_app(old_url)

    @app.task
    def nothing() -> None: ...

    with pytest.raises(BrokerError, match="older than Redis 6") as caught:
        nothing.delay()
    assert isinstance(caught.value, ServerUnsuitable)
    app.client.broker.close()


def test_a_worker_says_it_and_leaves_with_exit_code_2(old_url: str, tmp_path: Path) -> None:
    load_jobs(tmp_path, "@app.task\ndef nothing(): ...", old_url)

    done = subprocess.run(
        [sys.executable, "-m", "taskq", "worker", "-A", "jobs"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "older than Redis 6" in done.stderr
    assert "Traceback" not in done.stderr
