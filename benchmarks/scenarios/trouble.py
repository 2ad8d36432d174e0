"""When things go wrong: a slow task among fast ones, processes killed with SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from functools import partial
from itertools import pairwise
from uuid import UUID

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples, queue


def slow(bench: Bench) -> Samples:
    """200 tasks of a second spread among 20,000 no-ops, on four children, in one queue."""
    many, few, seconds = bench.n(20_000, 2_000), bench.n(200, 20), bench.n(10, 3) / 10
    bench.clear()
    lasting = {UUID(text).bytes for text in bench.role("mix", many, few, seconds)}
    with bench.worker("-c", "4", "-Q", queue("work")):
        lab.wait_until(lambda: bench.workers() >= 4, "the children are there", every=0.0005)
        held = _longest_held(bench, lasting)
    times = [float(line[2]) for line in bench.lines()]
    yield "slow.total", (max(times) - min(times)) / (few * seconds / 4)
    yield "slow.held", held * 1000


def _longest_held(bench: Bench, lasting: set[bytes]) -> float:
    """Until all have ended, look at what each child holds: the longest that one held a message that does not last."""
    since: dict[tuple[bytes, bytes], float] = {}
    longest, client = 0.0, bench.server.client
    ask = client.pipeline(transaction=False)
    while bench.remaining():
        children: list[bytes] = client.zrange(bench.key("leases"), 0, -1)  # type: ignore[assignment]
        for child in children:
            ask.hkeys(bench.key("processing:") + child)
        asked = time.monotonic()
        held = {(child, raw_id) for child, ids in zip(children, ask.execute(), strict=True) for raw_id in ids}
        answered = time.monotonic()
        since = {pair: since.get(pair, answered) for pair in held if pair[1] not in lasting}
        longest = max([longest, *(asked - first for first in since.values())])
        time.sleep(0.003)
    return longest


def kills(bench: Bench) -> Samples:
    """1,000 tasks of 50 ms on two workers of two children; five children are killed, then a whole worker."""
    n, seconds = bench.n(1000, 300), 0.05
    bench.clear()
    dice = random.Random(20)
    with (
        bench.worker("-c", "2", "-Q", queue("work")) as first,
        bench.worker("-c", "2", "-Q", queue("work")) as second,
    ):
        lab.wait_until(lambda: bench.workers() >= 4, "the children are there")
        bench.role("sleepers", n, seconds)
        killed: dict[int, float] = {}
        for k in range(1, 6):
            lab.wait_until(partial(_noted, bench, k * n // 5), "some have run")
            children = lab.tree(first.pid)[1:] + lab.tree(second.pid)[1:]
            victim = dice.choice([pid for pid in children if pid not in killed])
            killed[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
        lab.wait_until(lambda: len(bench.lines()) >= n * 6 // 5, "more have run")
        with_parent = dict.fromkeys(lab.tree(first.pid), time.monotonic())
        os.killpg(first.pid, signal.SIGKILL)
        lab.wait_until(lambda: not bench.remaining(), "all have ended", every=0.05)
    yield from _account(bench, n, killed, with_parent)


def _noted(bench: Bench, n: int) -> bool:
    return len(bench.lines()) >= n


def _account(bench: Bench, n: int, killed: dict[int, float], with_parent: dict[int, float]) -> Samples:
    """Read from the tasks' notes what was lost, what ran twice and why, and how soon."""
    starts: dict[int, list[tuple[float, int]]] = defaultdict(list)
    ended = set()
    for what, number, at, process in bench.lines():
        if what == "start":
            starts[int(number)].append((float(at), int(process)))
        else:
            ended.add(int(number))
    repeats, unexplained = 0, 0
    took: dict[str, list[float]] = {"child": [0.0], "worker": [0.0]}
    for runs in starts.values():
        runs.sort()
        for (_, pid), (again, _) in pairwise(runs):
            repeats += 1
            if pid in with_parent:
                took["worker"].append(again - with_parent[pid])
            elif pid in killed:
                took["child"].append(again - killed[pid])
            else:
                unexplained += 1
    yield "kills.lost", n - len(ended)
    yield "kills.repeats", repeats
    yield "kills.unexplained", unexplained
    yield "kills.child", max(took["child"])
    yield "kills.worker", max(took["worker"])
