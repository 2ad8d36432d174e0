"""Producers and workers whose wall clocks are a day off, and jump: nothing depends on them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskq.errors import TaskRevoked
from tests.faults.fleet import JOBS, Journal, nap, wait_until_idle
from tests.support import Start, Write, survey

DAY = 86_400

# In each process with a clock of its own, before anything else is imported.
CLOCK = """
import os, time
if clock := os.environ.get("TASKQ_TEST_WALL_CLOCK"):
    def shifted(of, unit):
        def now():
            with open(clock) as file:
                return of() + int(file.read() or 0) * unit
        return now
    time.time, time.time_ns = shifted(time.time, 1), shifted(time.time_ns, 10**9)
"""

WRONG = (
    JOBS
    + """
@app.task(autoretry_for=(KeyError,), default_retry_delay=0.2, max_retries=2, bind=True)
def third_try(self, i):
    if self.request.retries < 2:
        raise KeyError(i)
    note("start", i)
    return time.time()
"""
)

PRODUCER = """
from datetime import datetime, timedelta, timezone
import sys, time
from jobs import *
print(time.time())
for i in range(20):
    print(work.delay(f"plain-{i}", 0.01).id)
print(awork.apply_async(("later", 0), countdown=0.5).id)
print(awork.apply_async(("in-time", 0), expires=60).id)
print(third_try.delay("third").id)
print(work.apply_async(("too-late", 0), countdown=0.4, expires=0.2).id)
"""


class Clock:
    """A wall clock for some processes, off by so many seconds."""

    def __init__(self, folder: Path, name: str, offset: int) -> None:
        (folder / "sitecustomize.py").write_text(CLOCK)
        self._path = folder / f"clock-{name}"
        self.environment = {"TASKQ_TEST_WALL_CLOCK": str(self._path)}
        self.set(offset)

    def set(self, offset: int) -> None:
        """Let it jump."""
        new = self._path.with_suffix(".new")
        new.write_text(str(offset))
        new.rename(self._path)


def test_clients_with_wrong_clocks_work_as_all_others(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(WRONG, settings="lease=1")
    clocks = [Clock(tmp_path, "ahead", DAY), Clock(tmp_path, "behind", -DAY)]
    workers = [start_worker("-c", "1", env=clock.environment) for clock in clocks]
    workers.append(start_worker("-c", "1", "-Q", "jobs.work,jobs.awork"))
    journal = Journal(tmp_path)
    long = [module.work.delay(f"long-{i}", 3.5) for i in range(2)]
    journal.wait_for(2)

    sent = subprocess.run(
        [sys.executable, "-c", PRODUCER], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **Clock(tmp_path, "producer", -DAY).environment},
    )  # fmt: skip
    for days in (-1, 2, 1):
        for clock, offset in zip(clocks, (DAY, -DAY), strict=True):
            clock.set(days * offset)
        nap(0.4)

    clock_of_producer, *ids = sent.stdout.split()
    *handles, late = [module.app.AsyncResult(id_) for id_ in ids]
    *values, clock_of_worker = [handle.get(timeout=30) for handle in handles]
    assert values == [*(f"plain-{i}" for i in range(20)), "later", "in-time"]
    assert all(abs(clock - time.time()) > DAY / 2 for clock in (float(clock_of_producer), clock_of_worker))
    with pytest.raises(TaskRevoked):
        late.get(timeout=30)
    assert [handle.get(timeout=30) for handle in long] == ["long-0", "long-1"]
    wait_until_idle(module)
    assert journal.unexplained(set()) == {}, [worker.log for worker in workers]
    queues = survey(module.app)
    assert sum(queue.balance for queue in queues.values()) == 0
    assert (queues["jobs.work"].counters["discarded"], queues["jobs.third_try"].counters["retried"]) == (1, 2)
    assert not any(queue.counters.get("recovered") for queue in queues.values())
