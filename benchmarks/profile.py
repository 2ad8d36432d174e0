"""Where a child's time goes while it drains no-ops: what it executes, sampled after every ms of its CPU time.

``python -m benchmarks --profile`` prints it. Unlike cProfile this costs the small functions nothing; time in C code
counts for the Python function that called it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks import lab
from benchmarks.scenarios import Bench, queue

_EVERY = 0.001


def sampled(bench: Bench, n: int) -> str:
    """Drain n no-ops; returns a line a function: its own µs a message, its share, and the lines that cost most."""
    bench.clear()
    bench.role("fill", n, "noop", 0)
    env = {"TASKQ_URL": bench.server.url, "BENCH_LOG": str(bench.log)}
    process = lab.start([sys.executable, "-m", "benchmarks.profile"], pinned=True, env=env)
    if process.wait():
        raise RuntimeError("the worker failed")
    cpu, samples = json.loads(bench.log.read_text())
    total = sum(count for *_, count in samples)
    functions: Counter[tuple[str, str]] = Counter()
    lines: dict[tuple[str, str], Counter[int]] = {}
    for file, function, line, count in samples:
        functions[file, function] += count
        lines.setdefault((file, function), Counter())[line] += count
    out = [f"{cpu / n * 1e6:.2f} µs a message, {total} samples"]
    for (file, function), count in functions.most_common(20):
        worst = ", ".join(f"{line}: {part / total:.0%}" for line, part in lines[file, function].most_common(4))
        out.append(f"{cpu / n * 1e6 * count / total:6.2f} µs {count / total:4.0%}  {file} {function}  ({worst})")
    return "\n".join(out)


def _worker() -> None:
    """Run ``taskq worker --drain`` with a child that samples itself and writes what it saw to ``BENCH_LOG``."""
    from taskq.cli import main
    from taskq.worker.child import surroundings
    from taskq.worker.child.child import Child

    surroundings._TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL)  # no task has left the profiling timer

    real = Child.run
    seen: Counter[tuple[str, str, int]] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        if frame is not None:
            code = frame.f_code
            seen["/".join(Path(code.co_filename).parts[-2:]), code.co_qualname, frame.f_lineno] += 1

    def run(self: Child) -> None:
        signal.signal(signal.SIGPROF, look)
        self.surroundings.note()  # the handler must not be put back either
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)
        began = time.process_time()
        real(self)
        cpu = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples = [[*place, count] for place, count in seen.items()]
        Path(os.environ["BENCH_LOG"]).write_text(json.dumps([cpu, samples]))

    Child.run = run  # type: ignore[method-assign]
    main(["worker", "-A", "benchmarks.tasks", "-c", "1", "-Q", queue("noop"), "--drain"])


if __name__ == "__main__":
    _worker()
