"""Four partitions on one server against one: sixteen queues, four of them in each."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples
from benchmarks.scenarios.latency import noted, unpinned

_QUEUES, _CHILDREN = 16, 4


def partitions(bench: Bench) -> Samples:
    """What several partitions cost: how soon a task starts, CPU to drain, commands of an idle worker."""
    for number in (1, 4):
        bench.partitions = number
        try:
            env = {"TASKQ_PARTITIONS": str(number), "BENCH_QUEUES": str(_QUEUES)}
            yield from ((f"partitions.{number}.{name}", value) for name, value in _figures(bench, env))
        finally:
            bench.partitions = 1


def _figures(bench: Bench, env: dict[str, str]) -> Iterator[tuple[str, float]]:
    queues = ",".join(f"many.{i}" for i in range(_QUEUES))
    bench.clear()
    with unpinned(bench), bench.worker("-c", "1", "-Q", queues, env=env):
        lab.wait_until(bench.workers, "the worker is there")
        n = bench.n(1000, 200)
        bench.role("spread", n, env=env)
        yield from ((name.removeprefix("start."), value) for name, value in noted(bench, "start", n))
    bench.clear()
    bench.role("fill", bench.n(200_000, 60_000), "many", 0, env=env)
    total = bench.remaining()
    for n in range(bench.partitions):  # an audit looks at all messages, whichever partition they are in: leave it out
        bench.server.client.set(bench.key("audited", n), "1", ex=60)
    with bench.worker("-c", "1", "-Q", queues, pinned=True, env=env) as worker:
        drained = lab.observe_drain(worker.pid, bench.server, bench.remaining, total)
    yield "worker", drained.worker
    yield "server", drained.server
    bench.clear()
    with bench.worker("-c", str(_CHILDREN), "-Q", queues, env=env):
        lab.wait_until(lambda: bench.workers() >= _CHILDREN, "the children are there")
        bench.role("fill", 1000, "many", 0, env=env)
        lab.wait_until(lambda: not bench.remaining(), "all are done")
        time.sleep(2)
        seconds = bench.n(20, 5)
        yield "idle", bench.server.commands_sent(seconds) / seconds
