"""Wall time: how soon a task starts, how soon its result is there, how well waits overlap. On any core."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples, queue


@contextmanager
def unpinned(bench: Bench) -> Iterator[None]:
    """Let the server run on any core for the length of a block."""
    bench.server.pin(False)
    try:
        yield
    finally:
        bench.server.pin(True)


def noted(bench: Bench, name: str, n: int) -> Samples:
    """The latencies that were noted, in ns, but for the first tenth; yields them in ms."""
    lab.wait_until(lambda: len(bench.lines()) >= n, "all have started", every=0.01)
    took = sorted(int(line[0]) / 1e6 for line in bench.lines()[n // 10 :])
    yield f"{name}.p50", statistics.median(took)
    yield f"{name}.p99", took[len(took) * 99 // 100]


def start(bench: Bench) -> Samples:
    """From the call to the start of the task in an idle worker, against a bare hand-over between two processes."""
    n = bench.n(1000, 200)
    with unpinned(bench):
        bench.clear()
        env = {"TASKQ_URL": bench.server.url, "BENCH_LOG": str(bench.log)}
        with lab.running([sys.executable, "-m", "benchmarks.roles", "pass_on", str(n)], env=env):
            bench.role("hand_over", n)
            yield from noted(bench, "handover", n)
        bench.clear()
        with bench.worker("-c", "1", "-Q", queue("started")):
            lab.wait_until(bench.workers, "the worker is there")
            bench.role("start", n)
            yield from noted(bench, "start", n)


def round_trip(bench: Bench) -> Samples:
    """``delay().get()`` with an idle worker."""
    with unpinned(bench):
        bench.clear()
        with bench.worker("-c", "1", "-Q", queue("noop_result")):
            yield "roundtrip.p50", bench.role("round_trip", bench.n(1000, 200))["p50"]


def on_time(bench: Bench) -> Samples:
    """How late an idle worker starts what is due: scheduled messages, and the ticks of a periodic entry."""
    seconds = bench.n(20, 4)
    with unpinned(bench):
        for name, role in (("scheduled", ("schedule", seconds * 10, seconds)), ("tick", ("tick",))):
            bench.clear()
            with bench.worker("-c", "1", "-Q", queue("timed")):
                lab.wait_until(bench.workers, "the worker is there")
                bench.role(*role)
                yield from noted(bench, name, role[1] if name == "scheduled" else seconds)  # type: ignore[arg-type]


def waits(bench: Bench) -> Samples:
    """2,000 waits of 50 ms, 100 at once in one child: coroutines, and threads."""
    ways = [("async", ["--async-slots", "100"])]
    if _has_threads():
        ways.append(("sync", ["--threads", "100"]))
    else:
        bench.remark("waits in threads: not measured, `taskq worker` has no --threads yet")
    n = bench.n(2000, 400)
    with unpinned(bench):
        for way, options in ways:
            bench.clear()
            bench.role("fill", n, f"wait_{way}", 0)
            with bench.worker("-c", "1", "-Q", queue(f"wait_{way}"), *options):
                lab.wait_until(lambda: len(bench.lines()) >= n, "all have waited")
            times = [(float(began), float(ended)) for began, ended in bench.lines()]
            took = max(ended for _, ended in times) - min(began for began, _ in times)
            yield f"waits.{way}", took * 2000 / n


def _has_threads() -> bool:
    import subprocess

    text = subprocess.run([sys.executable, "-m", "taskq", "worker", "--help"], capture_output=True, text=True).stdout
    return "--threads" in text
