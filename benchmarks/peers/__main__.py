"""Measure one peer, from within its environment: ``python -m benchmarks.peers NAME enqueue|drain|ask|trickle N``."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import lab
from benchmarks.peers import URL

#: Calls before the clock starts: to connect, and for a worker to be there.
_WARM = 3


def repeat(function: Callable[[], Any], n: int) -> tuple[float, list[float]]:
    """Call a function or coroutine function ``n`` times, warm; returns CPU seconds, and the seconds of each call."""
    if inspect.iscoroutinefunction(function):
        return asyncio.run(_repeat_on_loop(function, n))
    for _ in range(_WARM):
        function()
    took, began = [], time.process_time()
    for _ in range(n):
        at = time.perf_counter()
        function()
        took.append(time.perf_counter() - at)
    return time.process_time() - began, took


async def _repeat_on_loop(function: Callable[[], Any], n: int) -> tuple[float, list[float]]:
    for _ in range(_WARM):
        await function()
    took, began = [], time.process_time()
    for _ in range(n):
        at = time.perf_counter()
        await function()
        took.append(time.perf_counter() - at)
    return time.process_time() - began, took


def enqueue(peer: Any, n: int) -> dict[str, float]:
    """Producer CPU a message."""
    os.sched_setaffinity(0, {lab.CORE})
    return {"producer": repeat(peer.send, n)[0] / n * 1e6}


def drain(peer: Any, n: int) -> dict[str, float]:
    """Worker and server CPU a message, and messages a second, all on one core."""
    lab.observe_from_elsewhere()
    server = lab.Server(URL)
    repeat(peer.send, n)
    total = peer.remaining(server.client)
    log = Path(os.environ["BENCH_FOLDER"]) / f"{peer.__name__}.log"
    with lab.running([sys.executable, *peer.WORKER], pinned=True, log=log) as worker:
        return vars(lab.observe_drain(worker.pid, server, lambda: peer.remaining(server.client), total))


def ask(peer: Any, n: int) -> dict[str, float]:
    """Milliseconds of a round trip to an idle worker, on any core."""
    log = Path(os.environ["BENCH_FOLDER"]) / f"{peer.__name__}.log"
    with lab.running([sys.executable, *peer.WORKER], log=log):
        took = sorted(repeat(peer.ask, n)[1])
    return {"p50": took[n // 2] * 1000, "p99": took[n * 99 // 100] * 1000}


def trickle(peer: Any, n: int) -> dict[str, float]:
    """A call every 5 ms, all on one core: CPU in µs a message of all three sides, and p50 of a start in ms."""
    os.sched_setaffinity(0, {lab.CORE})
    server, notes = lab.Server(URL), Path(os.environ["BENCH_LOG"])
    log = Path(os.environ["BENCH_FOLDER"]) / f"{peer.__name__}.log"

    def started() -> list[bytes]:
        return notes.read_bytes().splitlines() if notes.exists() else []

    with lab.running([sys.executable, *peer.WORKER], pinned=True, log=log) as worker:
        call = as_function(peer.start)
        for _ in range(_WARM):
            call(time.monotonic_ns())
        lab.wait_until(lambda: len(started()) >= _WARM, "the worker is there")
        pids = lab.tree(worker.pid)
        cpu, server_cpu, producer, began = lab.cpu_of(*pids), server.cpu(), 0.0, time.perf_counter()
        for i in range(n):
            time.sleep(max(0.0, began + i * lab.TRICKLE - time.perf_counter()))
            at = time.process_time()
            call(time.monotonic_ns())
            producer += time.process_time() - at
        lab.wait_until(lambda: len(started()) >= n + _WARM, "all have started", every=0.05)
        cpu, server_cpu = lab.cpu_of(*pids) - cpu, server.cpu() - server_cpu
    took = sorted(map(int, started()[_WARM:]))
    microseconds = {"producer": producer, "worker": cpu, "server": server_cpu}
    return {**{name: spent / n * 1e6 for name, spent in microseconds.items()}, "start": took[n // 2] / 1e6}


def as_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function as one to call: on a loop of its own, which stays."""
    if not inspect.iscoroutinefunction(function):
        return function
    loop = asyncio.new_event_loop()
    return lambda *args: loop.run_until_complete(function(*args))


if __name__ == "__main__":
    name, what, n = sys.argv[1:]
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    print(json.dumps({"enqueue": enqueue, "drain": drain, "ask": ask, "trickle": trickle}[what](peer, int(n))))
