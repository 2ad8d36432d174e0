"""Messages that kill their process among many that do not: the pills end, nobody else pays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from taskq import TaskError
from tests.faults.fleet import JOBS, Fleet, Journal, wait_until_idle
from tests.support import SOAK, Start, Write, survey

PILLS = (
    JOBS
    + """
@app.task(queue="jobs.work")
def pill(how):
    import ctypes, resource, signal
    note("start", how)
    if how == "exit":
        os._exit(9)
    if how == "segv":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    # As code in C dies that does not look at what malloc answers.
    resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.memset(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(1 << 30))), 1, ctypes.c_size_t(1 << 30))
"""
)
KINDS = ["exit", "segv", "abort", "kill", "memory"]


@pytest.mark.timeout(180)
def test_pills_are_dead_letters_and_the_others_do_not_pay(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """Pills and others share a queue, so that a pill is taken with whatever comes before and after it."""
    n, seconds = (1000, 0.02) if SOAK else (200, 0.01)
    module = jobs(PILLS)
    journal, fleet = Journal(tmp_path), Fleet(start_worker, 1, "-c", "2")
    module.work.delay(-1).get(timeout=30)
    began = time.monotonic()
    clean = module.work.delay_many([(i, seconds) for i in range(n - 5)])
    assert [handle.get(timeout=60) for handle in clean] == list(range(n - 5))
    clean_time = time.monotonic() - began

    calls = [module.work.call(i, seconds) for i in range(n, 2 * n - 5)]
    for k, how in enumerate(KINDS):
        calls.insert((k + 1) * n // 6, module.pill.call(how))
    began = time.monotonic()
    handles = module.app.enqueue_many(calls)
    pills = [handles.pop((k + 1) * n // 6) for k in reversed(range(5))]
    assert [handle.get(timeout=60) for handle in handles] == list(range(n, 2 * n - 5)), fleet.logs
    pill_time = time.monotonic() - began

    for pill in pills:
        with pytest.raises(TaskError, match="crashed"):
            pill.get(timeout=30)
    ledger = wait_until_idle(module)["jobs.work"]
    assert ledger.balance == 0
    assert (ledger.dead, ledger.counters["done"]) == (5, 2 * (n - 5) + 1)
    assert ledger.counters["crashes"] == 15, "three counted deaths each, and nobody else's"
    assert {how: len(journal.read().starts[how]) for how in KINDS} == dict.fromkeys(KINDS, 3), fleet.logs
    assert [i for i, pids in journal.starts.items() if len(pids) > 1 and i not in KINDS] == []
    print(f"{n - 5} of {seconds * 1000:.0f} ms: {clean_time:.1f} s without pills, {pill_time:.1f} s among them")
    assert not SOAK or pill_time <= 2 * clean_time


@pytest.mark.timeout(180)
def test_pills_among_coroutines_have_one_uncounted_run_more(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """Of coroutines in one process nobody can say which has killed it: all are suspects, and none is counted."""
    n = 1000 if SOAK else 20
    module = jobs(
        JOBS
        + """
@app.task(queue="jobs.awork")
async def apill(how):
    note("start", how)
    await asyncio.sleep(0.01)
    os._exit(9)
"""
    )
    fleet = Fleet(start_worker, 1, "-c", "1")
    calls = [module.awork.call(i, 0.02) for i in range(n)]
    calls.insert(n // 2, module.apill.call("pill"))
    handles = module.app.enqueue_many(calls)
    pill = handles.pop(n // 2)

    assert [handle.get(timeout=60) for handle in handles] == list(range(n)), fleet.logs
    with pytest.raises(TaskError, match="crashed"):
        pill.get(timeout=30)
    ledger = wait_until_idle(module)["jobs.awork"]
    assert (ledger.balance, ledger.dead, ledger.counters["done"]) == (0, 1, n)
    assert ledger.counters["crashes"] == 3
    assert len(Journal(tmp_path).read().starts["pill"]) == 4
    assert not survey(module.app)["jobs.awork"].suspects


QUIET_PILLS = """
import dataclasses

def note(i):
    with open(os.path.join(os.path.dirname(__file__), "journal"), "a") as file:
        file.write(f"start {i} {os.getpid()}\\n")

@dataclasses.dataclass
class Pill:
    how: str
    def __post_init__(self):
        if self.how != "ok":
            note(self.how)
            os._exit(9)

def leave_soon(how):
    "Return, and take the process along while nobody knows yet: the settler is held up."
    note(how)
    from taskq.worker.child.session import Session
    Session.exchange = lambda *args, **kwargs: os._exit(9)

@app.task
async def aread(pill: Pill): ...

@app.task(pool="thread")
def tread(pill: Pill): ...

@app.task
def read(pill: Pill): ...

@app.task
async def aleave(how):
    leave_soon(how)

@app.task(pool="thread")
def tleave(how):
    leave_soon(how)

@app.task
def leave(how):
    leave_soon(how)
"""


@pytest.mark.timeout(180)
def test_pills_are_contained_from_their_first_byte_until_the_server_knows_their_end(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    """Those that kill while their arguments are made, and those that have returned and kill all the same."""
    module = jobs(QUIET_PILLS)
    pill = module.Pill("ok")
    handles = {}
    for name in ("aread", "tread", "read"):
        pill.how = name
        handles[name] = getattr(module, name).delay(pill)
    for name in ("aleave", "tleave", "leave"):
        handles[name] = getattr(module, name).delay(name)
    fleet = Fleet(start_worker, 1, "-c", "1")

    for name, handle in handles.items():
        with pytest.raises(TaskError, match="crashed"):
            handle.get(timeout=60)
        runs = len(Journal(tmp_path).read().starts[name])
        # One that leaves takes along what another lane has just begun to read: a death may be counted without a note.
        assert runs, f"{name} never ran; {fleet.logs}"
        assert survey(module.app)[f"jobs.{name}"].counters["crashes"] == 3, f"{name}: {runs} runs; {fleet.logs}"
    assert fleet.workers[0].process.poll() is None
