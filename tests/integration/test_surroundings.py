"""The process a task gets is a plain one, and is so again for the next task."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq import TaskError
from tests.support import Start, Worker, Write, wait_until

JOBS = """
import contextvars, decimal, signal, subprocess, sys, taskq, threading
HERE = os.path.dirname(os.path.abspath(__file__))
OWN = contextvars.ContextVar("own", default="clean")
decimal.getcontext().prec = 40   # the module's own, for all of its tasks

def leave(what):
    if what == "folder":
        os.chdir("/")
    elif what == "handlers":
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    elif what == "mask":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    elif what == "alarm":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(1)
    elif what == "context":
        OWN.set("dirty")
        decimal.getcontext().prec = 3
    elif what == "streams":
        sys.stdout = sys.stderr = None
    elif what == "closed streams":
        sys.stdout.close()
        sys.stderr.close()
    elif what == "pipes":
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                    os.close(fd)
            except OSError:
                pass

def look():
    print("looked at")
    out = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    state = dict(line.split(":\\t") for line in out.splitlines() if ":\\t" in line)
    return {
        "folder": os.getcwd() == HERE,
        "context": OWN.get(),
        "prec": decimal.getcontext().prec,
        "ignored": int(state["SigIgn"], 16) & (1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1),
        "blocked": int(state["SigBlk"], 16),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0],
        "pid": os.getpid(),
    }

leaves = app.task(name="jobs.leaves", queue="jobs")(leave)
looks = app.task(name="jobs.looks", queue="jobs")(look)
leaves_in_thread = app.task(name="jobs.leaves_in_thread", pool="thread")(leave)
looks_in_thread = app.task(name="jobs.looks_in_thread", pool="thread")(look)

@app.task
async def aleaves(what):
    leave(what)

@app.task
async def alooks():
    return look()

@app.task(soft_time_limit=0.2)
def patient():
    try:
        time.sleep(30)
    except taskq.SoftTimeLimitExceeded:
        return "in time"

@app.task
def idles(seconds):
    open(os.path.join(HERE, "idles"), "w").close()
    time.sleep(seconds)
"""
CLEAN = {"folder": True, "context": "clean", "prec": 40, "ignored": 0, "blocked": 0, "timer": 0.0}


def without_pid(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "pid"}


def calls_of(module: ModuleType) -> list[Any]:
    things = ["folder", "handlers", "mask", "alarm", "context", "streams", "closed streams", "pipes"]
    return [call for what in things for call in (module.leaves.call(what), module.looks.call())]


@pytest.mark.parametrize("together", [False, True])
def test_what_a_task_leaves_changed_is_as_before_for_the_next_one(
    together: bool, jobs: Write, start_worker: Start
) -> None:
    module = jobs(JOBS)
    if together:  # often enough for the child to take several at once
        results = [result for _ in range(3) for result in module.app.enqueue_many(calls_of(module))]
    worker = start_worker("-c", "1")
    if not together:
        results = []
        for call in calls_of(module):
            results.append(module.app.enqueue_many([call])[0])
            results[-1].get(timeout=20)

    found = [result.get(timeout=20) for result in results]

    assert [without_pid(look) for look in found[1::2]] == [CLEAN] * (len(found) // 2)
    assert len({look["pid"] for look in found[1::2]}) == 1
    assert worker.log.count("looked at") == len(found) // 2, "what it printed is there, though the child still runs"
    assert module.patient.delay().get(timeout=20) == "in time"
    assert worker.stop(seconds=10) == 0


@pytest.mark.parametrize(("leaves", "looks"), [("aleaves", "alooks"), ("leaves_in_thread", "looks_in_thread")])
def test_coroutines_and_threads_begin_in_the_same_place_too(
    leaves: str, looks: str, jobs: Write, start_worker: Start
) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    for what in ("folder", "context", "streams"):
        getattr(module, leaves).delay(what).get(timeout=20)
        assert without_pid(getattr(module, looks).delay().get(timeout=20)) == CLEAN, what


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_a_parent_stays_idle_whatever_a_task_closes(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    module.leaves.delay("pipes").get(timeout=20)
    idle = module.idles.delay(2)
    wait_until((tmp_path / "idles").exists, "it runs")
    before = cpu_seconds(worker.process.pid)

    idle.get(timeout=20)

    assert cpu_seconds(worker.process.pid) - before < 0.5


@pytest.mark.parametrize("what", ["sys.stderr = sys.stdout = None", "sys.stderr.close()", "sys.stderr = Writer()"])
def test_a_module_may_do_what_it_likes_to_the_standard_streams(what: str, jobs: Write, start_worker: Start) -> None:
    source = f"""
import sys
class Writer:
    def write(self, text): return len(text)
    def flush(self): pass
@app.task
def fine(): print("fine"); return os.getpid()
@app.task
def fails(): raise ValueError
if "worker" in sys.argv: {what}
"""
    module = jobs(source)
    worker = start_worker("-c", "1")

    first = module.fine.delay().get(timeout=20)
    with pytest.raises(TaskError):
        module.fails.delay().get(timeout=20)

    assert module.fine.delay().get(timeout=20) == first
    assert worker.stop(signal.SIGTERM, seconds=10) == 0


def test_what_is_printed_is_seen_at_once(jobs: Write, start_worker: Start) -> None:
    module = jobs("@app.task\ndef says(): print('here I am')\n")
    worker: Worker = start_worker("-c", "1", env={"PYTHONUNBUFFERED": ""})
    module.says.delay().get(timeout=20)

    assert "here I am" in worker.log
