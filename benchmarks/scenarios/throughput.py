"""CPU a message, of producers, workers and the server, all on one core."""

from __future__ import annotations

import sys

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples, queue


def _drain(bench: Bench, who: str, task: str, fill: str, n: int) -> Samples:
    """Fill a queue, start one worker process on it, watch it."""
    bench.clear()
    bench.role("fill", n, fill, 0)
    total = bench.remaining()
    if who == "hand":
        env = {"TASKQ_URL": bench.server.url}
        command = [sys.executable, "-m", "benchmarks.hand", queue(task)]
        running = lab.running(command, pinned=True, log=bench.folder / "hand.log", env=env)
    else:
        running = bench.worker("-c", "1", "-Q", queue(task), pinned=True)
    with running as worker:
        drained = lab.observe_drain(worker.pid, bench.server, bench.remaining, total)
    name = f"drain.{who}.{fill}"
    yield f"{name}.worker", drained.worker
    yield f"{name}.server", drained.server
    yield f"{name}.rate", drained.rate


def drain(bench: Bench) -> Samples:
    """A queue of no-ops, one child."""
    n = bench.n(100_000, 20_000)
    yield from _drain(bench, "hand", "noop", "noop", n)
    yield from _drain(bench, "taskq", "noop", "noop", n)
    yield from _drain(bench, "taskq", "noop_result", "noop_result", n)


def send(bench: Bench) -> Samples:
    """``delay()`` against the same bytes sent by hand, and in bulk; without an argument, with 100 bytes, with 10 KB."""
    for size in (0, 100, 10_000):
        bench.clear()
        took = bench.role("send", bench.n(10_000, 2_000), size, pinned=True)
        for kind, value in took.items():
            yield f"send.{kind}.{size}", value


def size(bench: Bench) -> Samples:
    """A queue of calls with an argument of 10 KB."""
    n = bench.n(20_000, 2_000)
    yield from _drain(bench, "hand", "take", "take_10k", n)
    yield from _drain(bench, "taskq", "take", "take_10k", n)
