"""taskq itself."""

from __future__ import annotations

from typing import Any

from benchmarks.tasks import app, noop, noop_result, started

REQUIREMENTS: list[str] = []
QUEUES = ",".join(task.queue for task in (noop, noop_result, started))
WORKER = ["-m", "taskq", "worker", "-A", "benchmarks.tasks", "-c", "1", "-Q", QUEUES]

send, start = noop.delay, started.delay


def ask() -> object:
    return noop_result.delay().get(timeout=30)


def remaining(client: Any) -> int:
    return int(client.hlen(app.client.keys["messages"]))
