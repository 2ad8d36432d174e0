"""Whether the cost of a message stays the same as everything around it grows."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples, queue


def _rounds(bench: Bench, name: str, pid: int, fill: Callable[[], object], rounds: int, floor: int = 0) -> Samples:
    """Fill the queue while the worker is stopped, let it run until ``floor`` remain, and so on: CPU µs a message."""
    worker = server = 0.0
    done = 0
    for number in range(rounds + 1):
        os.killpg(pid, signal.SIGSTOP)
        fill()
        pids, before = lab.tree(pid), bench.remaining()
        at = lab.cpu_of(*pids), bench.server.cpu()
        os.killpg(pid, signal.SIGCONT)
        lab.wait_until(lambda: bench.remaining() <= floor, "the worker drains", seconds=300, every=0.005)
        os.killpg(pid, signal.SIGSTOP)
        if number:  # the first one is for it to learn how long the tasks take
            worker += lab.cpu_of(*pids) - at[0]
            server += bench.server.cpu() - at[1]
            done += before - bench.remaining()
        os.killpg(pid, signal.SIGCONT)
    yield f"growth.{name}.worker", worker / done * 1e6
    yield f"growth.{name}.server", server / done * 1e6


def _measure(
    bench: Bench, name: str, n: int, rounds: int, *, what: str = "noop", queues: int = 0, floor: int = 0,
    countdown: float = 0,
) -> Samples:  # fmt: skip
    """One worker process with one child, on one queue or on ``queues``; whatever else there is stays as it is."""
    env = {"BENCH_QUEUES": str(queues)} if queues else {}
    served = ",".join(f"many.{i}" for i in range(queues)) or queue("noop")

    def fill() -> None:
        bench.role("fill", n, what, countdown, env=env)
        time.sleep(countdown)

    before = bench.workers()
    with bench.worker("-c", "1", "-Q", served, pinned=True, env=env) as process:
        lab.wait_until(lambda: bench.workers() > before, "the worker is there")
        try:
            yield from _rounds(bench, name, process.pid, fill, rounds, floor)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)


def waiting(bench: Bench) -> Samples:
    """1,000 or 1,000,000 messages that stay waiting behind those that run; and the server's memory for each."""
    many, n, rounds = bench.n(1_000_000, 50_000), bench.n(20_000, 5000), bench.n(3, 2)
    bench.clear()
    bench.role("fill", 1000, "noop", 0)
    yield from _measure(bench, "waiting.few", n, rounds, floor=1000)
    bench.clear()
    empty = bench.server.memory()
    bench.role("fill", many, "noop", 0)
    one = bench.server.client.hrandfield(bench.key("messages"))
    size = int(bench.server.client.hstrlen(bench.key("messages"), one))  # type: ignore[arg-type]
    yield "growth.waiting.overhead", (bench.server.memory() - empty) / many - size
    yield from _measure(bench, "waiting.many", n, rounds, floor=many)


def queues(bench: Bench) -> Samples:
    """One queue or 500 on one worker; one of them busy, or all."""
    n, rounds, many = bench.n(20_000, 5000), bench.n(3, 2), bench.n(500, 100)
    for name, what, count in (("one", "one", 1), ("one_busy", "one", many), ("all_busy", "many", many)):
        bench.clear()
        yield from _measure(bench, f"queues.{name}", n, rounds, what=what, queues=count)


def scheduled(bench: Bench) -> Samples:
    """10 or 1,000,000 messages scheduled for later, while others come due and run."""
    for name, n in (("few", 10), ("many", bench.n(1_000_000, 20_000))):
        bench.clear()
        bench.role("fill", n, "noop", 86400)
        yield from _measure(bench, f"scheduled.{name}", bench.n(20_000, 2000), bench.n(3, 1), floor=n)
        yield from _measure(bench, f"due.{name}", bench.n(10_000, 2000), bench.n(3, 1), floor=n, countdown=2.0)


def workers(bench: Bench) -> Samples:
    """One worker, or 200 of which all but one are pretended."""
    env = {"TASKQ_URL": bench.server.url}
    for name, n in (("one", 0), ("many", bench.n(199, 49))):
        bench.clear()
        words = [sys.executable, "-m", "benchmarks.roles", "pretend", str(n), queue("noop")]
        with lab.running(words, env=env):
            lab.wait_until(partial(_at_least, n, bench), "they are there")
            yield from _measure(bench, f"workers.{name}", bench.n(20_000, 5000), bench.n(3, 2))


def _at_least(n: int, bench: Bench) -> bool:
    return bench.workers() >= n
