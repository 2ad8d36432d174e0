"""What each option of flow control adds to the CPU of a message: every option alone, against a task without any."""

from __future__ import annotations

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples
from benchmarks.tasks import FLOW


def flow(bench: Bench) -> Samples:
    """Calls one by one, calls in bulk, and a drain by one child."""
    for name in FLOW:
        env = {"BENCH_FLOW": name}
        bench.clear()
        yield f"flow.{name}.delay", bench.role("send_flow", bench.n(4000, 1000), "single", pinned=True, env=env)
        bench.clear()
        n = bench.n(40_000, 5000)
        before = bench.server.cpu()
        yield f"flow.{name}.bulk", bench.role("send_flow", n, "bulk", pinned=True, env=env)
        yield f"flow.{name}.accept", (bench.server.cpu() - before) / n * 1e6
        total = bench.remaining()
        with bench.worker("-c", "1", "-Q", f"flow.{name}", pinned=True, env=env) as worker:
            drained = lab.observe_drain(worker.pid, bench.server, bench.remaining, total)
        yield f"flow.{name}.worker", drained.worker
        yield f"flow.{name}.server", drained.server
