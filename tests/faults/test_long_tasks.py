"""Tasks that outlast their lease many times, whatever they do meanwhile: each runs once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fleet import JOBS, Journal, check_idle
from tests.support import SOAK, Start, Write, survey, wait_until

LONG = (
    JOBS
    + """
import ctypes, re

def lasting(i, seconds, step):
    note("start", i)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        step(until - time.monotonic())
    note("end", i)
    return i

def in_c(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # unlike CDLL, it keeps the GIL

def in_a_regex(seconds):
    re.match("(a+)+$", "a" * 22 + "b")  # half a second, GIL kept

@app.task
def sleeps(i, seconds):
    return lasting(i, seconds, time.sleep)

@app.task
def counts(i, seconds):
    return lasting(i, seconds, lambda left: sum(range(1000)))

@app.task
def holds(i, seconds):
    return lasting(i, seconds, in_c)

@app.task
def matches(i, seconds):
    return lasting(i, seconds, in_a_regex)

@app.task(pool="thread")
def holds_in_a_thread(i, seconds):
    return lasting(i, seconds, in_c)

@app.task
async def holds_the_loop(i, seconds):
    return lasting(i, seconds, in_c)
"""
)


@pytest.mark.timeout(120)
def test_a_task_of_many_leases_runs_once(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    leases = 20 if SOAK else 4
    module = jobs(LONG, settings="lease=1")
    # A task that holds the GIL holds up the other lanes of its child, so each has a child of its own.
    names = ["sleeps", "counts", "holds", "matches", "holds_in_a_thread", "holds_the_loop"]
    workers = [start_worker("-c", "1", "-Q", f"jobs.{name}") for name in names]
    handles = [getattr(module, name).delay(name, leases * 1.0) for name in names]
    journal = Journal(tmp_path)
    journal.wait_for(len(names))
    beside = start_worker("-c", "1")  # who would reap, and run again

    wait_until(lambda: all(handle.state == "SUCCESS" for handle in handles), "all have ended", leases + 30)

    assert {name: len(pids) for name, pids in journal.read().starts.items()} == dict.fromkeys(names, 1)
    assert not any("the lease of" in worker.log for worker in [*workers, beside]), [w.log for w in workers]
    check_idle(module)
    assert not any(queue.counters.get("recovered") for queue in survey(module.app).values())
