"""A server that cannot keep taskq's promises is named as that: too old, or one that may lose messages."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import BrokerError
from taskq.broker.call import Command
from taskq.errors import ServerUnsuitable
from tests.support import Server, load_jobs, new_app


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


@pytest.mark.parametrize(("check", "code"), [("warn", 0), ("refuse", 2)])
def test_a_worker_warns_of_a_server_that_may_lose_messages_or_refuses_it(
    check: str, code: int, own_server: Server, tmp_path: Path
) -> None:
    module = load_jobs(tmp_path, "@app.task\ndef nothing(): ...", own_server.url, f"server_check={check!r}")
    for words in (["appendonly", "no"], ["maxmemory-policy", "allkeys-lru"], ["maxmemory", "100mb"]):
        module.app.client.broker.run(Command(None, ["CONFIG", "SET", *words], lambda reply: reply))

    done = subprocess.run(
        [sys.executable, "-m", "taskq", "worker", "-A", "jobs", "--drain", "-c", "1"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == code, done.stderr
    assert "Set appendonly yes" in done.stderr
    assert "Set it to noeviction" in done.stderr
    assert ("server_check=refuse forbids" in done.stderr) == (check == "refuse")
