"""No task queue: the loop written by hand (`benchmarks.hand`), over the messages that taskq sends."""

from __future__ import annotations

from benchmarks.peers.taskq import remaining
from benchmarks.tasks import noop

REQUIREMENTS: list[str] = []
WORKER = ["-m", "benchmarks.hand", noop.queue]

send = noop.delay
ask = None

__all__ = ["REQUIREMENTS", "WORKER", "ask", "remaining", "send"]
