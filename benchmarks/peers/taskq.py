"""taskq itself."""

from __future__ import annotations

from typing import Any

from benchmarks.tasks import app, noop, noop_result

REQUIREMENTS: list[str] = []
WORKER = ["-m", "taskq", "worker", "-A", "benchmarks.tasks", "-c", "1", "-Q", f"{noop.queue},{noop_result.queue}"]

send = noop.delay


def ask() -> object:
    return noop_result.delay().get(timeout=30)


def remaining(client: Any) -> int:
    return int(client.hlen(app.client.keys["messages"]))
