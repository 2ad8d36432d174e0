"""What taskq costs when nothing happens: an idle worker, its memory, the start of a process."""

from __future__ import annotations

import os
import sys
import time

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples, queue
from taskq.worker.child.main_lane import WAIT

_CHILDREN = 4


def idle(bench: Bench) -> Samples:
    """A worker with four children and nothing to do: commands, CPU and memory. Also with an event loop in each."""
    for kind, queues in (("sync", queue("noop")), ("both", f"{queue('noop')},{queue('wait_async')}")):
        bench.clear()
        with bench.worker("-c", str(_CHILDREN), "-Q", queues) as worker:
            lab.wait_until(lambda: bench.workers() >= _CHILDREN, "the children are there")
            bench.role("fill", 1000, "noop", 0)
            lab.wait_until(lambda: not bench.remaining(), "all are done")
            time.sleep(2)
            pids, seconds = lab.tree(worker.pid), int(WAIT) * bench.n(3, 1)  # whole waits
            cpu, began = lab.cpu_of(*pids), time.monotonic()
            sent = bench.server.commands_sent(seconds)
            took = time.monotonic() - began
            yield f"idle.{kind}.commands", sent / took
            yield f"idle.{kind}.cpu", (lab.cpu_of(*pids) - cpu) / took * 100
            yield f"idle.{kind}.parent", lab.pss_of(worker.pid)
            yield f"idle.{kind}.child", sum(lab.pss_of(pid) for pid in pids[1:]) / (len(pids) - 1)


def startup(bench: Bench) -> Samples:
    """CPU of ``taskq --help`` and ``import taskq`` against an interpreter that does nothing."""
    command = os.path.join(os.path.dirname(sys.executable), "taskq")
    programs = {
        "bare": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import taskq"],
        "help": [command, "--help"],
    }
    for _ in range(bench.n(5, 2)):
        for name, words in programs.items():
            yield f"startup.{name}", lab.cpu_to_run(words) * 1000


def first(bench: Bench) -> Samples:
    """From the start of a worker's process to the end of its first message, which waits for it; and its memory then.

    What is installed has its bytecode beside it, so the first of these workers only writes that of taskq.
    """
    for turn in range(1 + bench.n(5, 2)):
        bench.clear()
        bench.role("fill", 1, "noop", 0)
        began = time.monotonic()
        with bench.worker("-c", "1", "-Q", queue("noop"), env={"PYTHONDONTWRITEBYTECODE": ""}) as worker:
            lab.wait_until(lambda: not bench.remaining(), "it has ended")
            took = time.monotonic() - began
            time.sleep(1)
            if turn:
                yield "first.seconds", took
                yield "first.pss", sum(lab.pss_of(pid) for pid in lab.tree(worker.pid))
