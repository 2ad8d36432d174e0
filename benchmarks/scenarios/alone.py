"""Messages that come alone, as on most sites: a call every few milliseconds, and workers that are mostly idle."""

from __future__ import annotations

import sys

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples


def lone(bench: Bench) -> Samples:
    """Server CPU for one message's life, in the scripts alone, against RPUSH, BLMOVE and LREM of as many bytes."""
    bench.clear()
    env = {"TASKQ_URL": bench.server.tcp}
    found = bench.role("lone", bench.n(3000, 500), pinned=True, env=env)
    yield from ((f"lone.{name}", value) for name, value in found.items())


def trickle(bench: Bench) -> Samples:
    """A real worker and 200 calls a second: CPU of all three sides, how soon a task starts, how soon a result is there.

    The classic list and taskq are always measured, and the peers that are asked for, all over TCP.
    """
    others = {name: python for name, python in bench.peers.items() if name != "hand"}
    for name, python in {"classic": sys.executable, "taskq": sys.executable, **others}.items():
        env = {"BENCH_URL": bench.server.tcp, "TASKQ_URL": bench.server.tcp, "BENCH_FOLDER": str(bench.folder)}
        env["BENCH_LOG"] = str(bench.log)
        bench.clear()
        found = lab.role("benchmarks.peers", name, "trickle", bench.n(2000, 400), python=python, env=env)
        yield from ((f"trickle.{name}.{column}", value) for column, value in found.items())
        if name == "classic":
            continue
        bench.clear()
        bench.server.pin(False)
        asked = bench.n(200 if name == "taskq" else 60, 20)
        found = lab.role("benchmarks.peers", name, "ask", asked, python=python, env={**env, "BENCH_RESULTS": "1"})
        bench.server.pin(True)
        yield f"trickle.{name}.ask", found["p50"]
