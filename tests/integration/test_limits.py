"""Time limits, replacing children, threads, scaling: what a worker in production needs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskq import TaskError
from taskq.worker.parent.scaling import Scaling
from tests.support import Start, Write, survey, wait_until

JOBS = """
import collections, dataclasses, itertools, taskq, threading
HERE = os.path.dirname(os.path.abspath(__file__))

def note(text):
    with open(os.path.join(HERE, "notes.log"), "a") as file:
        file.write(text + "\\n")

@app.task
def pid():
    return os.getpid()

@app.task
def deep_in_c():
    note("deep")
    collections.deque(itertools.repeat(None), maxlen=0)  # holds the GIL, heeds no signal, never ends

@app.task
def nap(seconds, value=None):
    note(f"nap {value}")
    time.sleep(seconds)
    return value

def patient():
    try:
        time.sleep(60)
    except taskq.SoftTimeLimitExceeded as error:
        return f"tidied up: {error}"

soft_main = app.task(name="jobs.soft_main", soft_time_limit=0.3)(patient)
soft_spin = None

@app.task(soft_time_limit=0.3)
def spin():
    while True:
        pass

@app.task(soft_time_limit=0.3, pool="thread")
def soft_thread():
    try:
        while True:
            time.sleep(0.01)
    except taskq.SoftTimeLimitExceeded as error:
        return f"tidied up: {error}"

@app.task(soft_time_limit=0.3)
async def soft_async():
    try:
        await asyncio.sleep(60)
    except taskq.SoftTimeLimitExceeded as error:
        await asyncio.sleep(0.01)
        return f"tidied up: {error}"

@app.task(soft_time_limit=0.3)
async def soft_async_lost():
    await asyncio.sleep(60)

@app.task(time_limit=0.4)
def hard():
    note("hard")
    time.sleep(60)

@app.task(time_limit=0.4, autoretry_for=(taskq.TimeLimitExceeded,), max_retries=1, default_retry_delay=0)
def hard_retried():
    note("hard_retried")
    time.sleep(60)

@dataclasses.dataclass
class Made:
    n: int
    def __post_init__(self):
        note(f"made by {os.getpid()}")

@app.task(time_limit=0.4)
def hard_made(made: Made):
    time.sleep(60)

@app.task(time_limit=0.4)
async def hard_async():
    note("hard_async")
    time.sleep(60)   # blocks the loop, on purpose

@app.task
async def beside(seconds, value):
    note(f"beside {value}")
    await asyncio.sleep(seconds)
    return value

@app.task(pool="thread")
def in_thread(seconds):
    time.sleep(seconds)
    return threading.current_thread().name

@app.task
def grow(mib):
    global kept
    kept = bytearray(mib << 20)
    return os.getpid()

@app.task(at_most_once=True)
def once(i):
    note(f"once {i}")
    time.sleep(60 if i < 0 else 0)

@app.task(bind=True)
def watches(self):
    note("watches")
    while not self.request.shutting_down:
        time.sleep(0.01)
    return "saw it coming"

def killed_once(name):
    if not os.path.exists(os.path.join(HERE, "killed-" + name)):
        open(os.path.join(HERE, "killed-" + name), "w").close()
        os.kill(os.getpid(), 9)

@app.task(soft_time_limit=0.3)
def suspect_soft_main():
    killed_once("main")
    return patient()

@app.task(soft_time_limit=0.3, pool="thread")
def suspect_soft_thread():
    killed_once("thread")
    return soft_thread.function()

@app.task(soft_time_limit=0.3)
async def suspect_soft_async():
    killed_once("async")
    return await soft_async.function()

@app.task(bind=True)
def suspect_watches(self):
    killed_once("watches")
    return watches.function(self)

@app.task
async def suspect_waits():
    killed_once("waits")
    return await waits.function()

async def fails(error):
    await asyncio.sleep(0.01)
    raise error

@app.task(soft_time_limit=60)
async def catches():
    caught = []
    for error in (KeyError("k"), OSError("o")):
        try:
            await asyncio.create_task(fails(error))
        except type(error) as same:
            caught.append(same is error)
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        caught.append(True)
    return caught

@app.task(pool="thread")
def stops(error):
    raise StopIteration if error == "StopIteration" else SystemExit(error)

@app.task
async def waits():
    note("waits")
    try:
        await asyncio.sleep(60)
    finally:
        note("tidied up")

@app.task
async def clings():
    note("clings")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "ended all the same"

@app.task(pool="thread")
def stays():
    note("stays")
    while "tidied up" not in open(os.path.join(HERE, "notes.log")).read():
        time.sleep(0.01)
    return "not cancelled"

@app.task
def passes(seconds):
    note("passes")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        taskq.checkpoint()
    return "to its end"

@app.task
def long_way():
    note("long_way")
    while True:
        time.sleep(0.01)
        try:
            taskq.checkpoint()
        except Exception:
            pass
"""


def notes(folder: Path) -> list[str]:
    path = folder / "notes.log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("name", ["soft_main", "soft_thread", "soft_async"])
def test_a_soft_limit_is_raised_inside_the_task(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    value = getattr(module, name).delay().get(timeout=30)

    assert value.startswith("tidied up: the task has run longer than its soft_time_limit")


@pytest.mark.parametrize("name", ["spin", "soft_async_lost"])
def test_a_task_that_does_not_catch_its_soft_limit_fails(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    wait_until(worker.children, "a child runs")
    children = worker.children()

    with pytest.raises(TaskError, match="SoftTimeLimitExceeded"):
        getattr(module, name).delay().get(timeout=30)

    assert worker.children() == children


@pytest.mark.parametrize("name", ["main", "thread", "async"])
def test_a_suspect_has_its_soft_limit_too(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    value = getattr(module, f"suspect_soft_{name}").delay().get(timeout=30)

    assert value.startswith("tidied up: the task has run longer than its soft_time_limit")


def test_a_coroutine_with_a_soft_limit_meets_the_errors_of_what_it_awaits(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    assert module.catches.delay().get(timeout=30) == [True, True, True]


@pytest.mark.parametrize("name", ["StopIteration", "SystemExit"])
def test_a_thread_may_raise_anything(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    error = module.stops.delay(name).get(timeout=15, propagate=False)

    assert error.type == name


@pytest.mark.parametrize("name", ["hard", "hard_async"])
def test_a_hard_limit_kills_the_child_and_fails_the_task(
    name: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    neighbours = [module.beside.delay(1.0, i) for i in range(3)]
    wait_until(lambda: len(notes(tmp_path)) == 3, "the neighbours run")
    before = worker.children()

    with pytest.raises(TaskError, match=r"TimeLimitExceeded.*0\.4 s"):
        getattr(module, name).delay().get(timeout=30)

    assert [r.get(timeout=30) for r in neighbours] == [0, 1, 2], "they ran again"
    assert worker.children() != before
    assert worker.log.count("is killed: a task is over its time limit") == 1
    assert len(re.findall(rf"task jobs\.{name}\[\S+\] failed in 0\.400 s", worker.log)) == 1
    ledger = survey(module.app)
    assert sum(queue.counters.get("crashes", 0) for queue in ledger.values()) == 0
    assert ledger[f"jobs.{name}"].dead == 1
    assert all(queue.balance == 0 for queue in ledger.values())


def test_a_parent_never_makes_the_objects_of_a_message(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """It decides about what ran too long; an argument that kills whoever makes it would take the worker along."""
    module = jobs(JOBS)
    worker = start_worker("-c", "1")

    with pytest.raises(TaskError, match="TimeLimitExceeded"):
        module.hard_made.delay(module.Made(1)).get(timeout=30)

    makers = {int(line.split()[-1]) for line in notes(tmp_path)}
    assert len(makers) == 2, "this process, and the child that ran it"
    assert worker.process.pid not in makers


def test_a_hard_limit_is_a_failure_that_the_policy_may_retry(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    with pytest.raises(TaskError, match="TimeLimitExceeded"):
        module.hard_retried.delay().get(timeout=30)

    assert notes(tmp_path) == ["hard_retried", "hard_retried"]


def test_children_are_replaced_after_so_many_messages(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "--max-tasks-per-child", "10")

    pids = [result.get(timeout=30) for result in module.pid.delay_many([()] * 50)]

    assert len(set(pids)) == 5
    assert all(pids.count(pid) == 10 for pid in set(pids))


def test_a_child_that_has_grown_is_replaced_before_it_ends(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--max-memory-per-child", "150")
    grown = module.grow.delay(200).get(timeout=30)

    wait_until(lambda: grown not in worker.children() and len(worker.children()) == 1, "it was replaced")

    assert module.pid.delay().get(timeout=30) != grown
    assert "MiB, more than --max-memory-per-child 150: it is replaced" in worker.log


def test_sync_tasks_run_side_by_side_in_threads(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "--threads", "20")

    began = time.monotonic()
    names = [result.get(timeout=30) for result in [module.in_thread.delay(0.5) for _ in range(20)]]

    assert len(set(names)) == 20
    assert time.monotonic() - began < 8, "one after the other they would take 10 s"
    assert module.pid.delay().get(timeout=30)


def test_a_blocked_main_thread_stops_no_coroutine(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    blocking = module.nap.delay(2, "blocked")
    wait_until(lambda: "nap blocked" in notes(tmp_path), "the main thread is busy")

    assert module.beside.delay(0.01, 7).get(timeout=1.5) == 7
    assert module.in_thread.delay(0.01).get(timeout=1.5)
    assert not blocking.ready()


def test_hangup_replaces_every_child_and_loses_nothing(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "2")
    wait_until(lambda: len(worker.children()) == 2, "two children run")
    before = set(worker.children())
    results = module.nap.delay_many([(0.01, i) for i in range(100)])

    worker.process.send_signal(signal.SIGHUP)

    assert [r.get(timeout=30) for r in results] == list(range(100))
    wait_until(lambda: len(worker.children()) == 2 and not before & set(worker.children()), "both were replaced")
    ledger = survey(module.app)["jobs.nap"]
    assert ledger.counters["done"] == 100
    assert ledger.counters.get("crashes", 0) == 0


def test_quit_shows_what_every_child_is_doing(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    module.nap.delay(30, "here")
    wait_until(lambda: "nap here" in notes(tmp_path), "it runs")

    worker.process.send_signal(signal.SIGQUIT)

    wait_until(lambda: "in nap" in worker.log, "its frame is shown")
    assert f"child 0 (pid {worker.children()[0]}):" in worker.log
    assert worker.process.poll() is None


def test_quit_shows_a_child_that_is_deep_in_c(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    module.deep_in_c.delay()
    wait_until(lambda: "deep" in notes(tmp_path), "it runs")

    worker.process.send_signal(signal.SIGQUIT)

    wait_until(lambda: "in deep_in_c" in worker.log, "its frame is shown")


def test_quit_does_a_busy_child_no_harm(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    module.nap.delay(30, "here")
    results = module.beside.delay_many([(0.0, i) for i in range(6000)])
    wait_until(lambda: len(notes(tmp_path)) > 10, "they run")
    (child,) = worker.children()

    while survey(module.app)["jobs.beside"].counters.get("done", 0) < 6000:
        os.kill(child, signal.SIGQUIT)

    assert [r.get(timeout=30) for r in results] == list(range(6000))
    assert worker.children() == [child]


def test_tasks_see_a_stop_coming(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "2")
    sees, interrupted = module.watches.delay(), module.long_way.delay()
    wait_until(lambda: len(notes(tmp_path)) == 2, "both run")

    assert worker.stop(seconds=10) == 0, worker.log

    assert sees.get(timeout=1) == "saw it coming"
    assert interrupted.state == "PENDING"
    ledger = survey(module.app)["jobs.long_way"]
    assert ledger.pending == 1
    assert ledger.counters["returned"] == 1


def test_a_suspect_sees_a_stop_coming(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    result = module.suspect_watches.delay()
    wait_until(lambda: notes(tmp_path) == ["watches"], "it runs alone")

    assert worker.stop(seconds=10) == 0, worker.log

    assert result.get(timeout=1) == "saw it coming"


@pytest.mark.parametrize("name", ["waits", "suspect_waits"])
def test_coroutines_are_cancelled_before_the_grace_is_over(
    name: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--grace", "4")
    result = getattr(module, name).delay()
    others = [module.clings.delay(), module.stays.delay()] if name == "waits" else []
    wait_until(lambda: len(notes(tmp_path)) == 1 + len(others), "all run")

    assert worker.stop(seconds=10) == 1, worker.log

    assert "tidied up" in notes(tmp_path)
    assert result.state == "PENDING"
    assert [other.get(timeout=1) for other in others] == ["ended all the same", "not cancelled"][: len(others)]
    ledger = survey(module.app)
    assert ledger[f"jobs.{name}"].pending + ledger[f"jobs.{name}"].suspects == 1
    assert ledger[f"jobs.{name}"].counters["returned"] == 1


def test_what_runs_in_a_child_that_is_replaced_is_not_interrupted(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--grace", "0.2")
    sync, coroutine = module.passes.delay(1.0), module.beside.delay(1.0, 7)
    wait_until(lambda: len(notes(tmp_path)) == 2, "both run")
    before = worker.children()

    worker.process.send_signal(signal.SIGHUP)

    assert sync.get(timeout=30) == "to its end"
    assert coroutine.get(timeout=30) == 7
    assert sorted(notes(tmp_path)) == ["beside 7", "passes"], "and ran once"
    wait_until(lambda: len(worker.children()) == 1 and worker.children() != before, "the child was replaced")


def test_a_stop_that_comes_when_the_event_loop_has_ended_already_does_the_task_no_harm(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    result = module.watches.delay()
    wait_until(lambda: "watches" in notes(tmp_path), "it runs")
    (child,) = worker.children()
    threads = Path(f"/proc/{child}/task")
    before = len(list(threads.iterdir()))

    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(list(threads.iterdir())) < before, "the thread of its event loop has ended")
    worker.process.send_signal(signal.SIGTERM)

    assert result.get(timeout=30) == "saw it coming"
    assert worker.process.wait(20) == 0


def test_at_most_once_is_never_run_again(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    doomed, fine = module.once.delay(-1), module.once.delay(1)
    wait_until(lambda: "once -1" in notes(tmp_path), "it runs")

    os.kill(worker.children()[0], signal.SIGKILL)

    with pytest.raises(TaskError, match="abandoned"):
        doomed.get(timeout=30)
    assert fine.get(timeout=30) is None
    assert notes(tmp_path).count("once -1") == 1
    assert survey(module.app)["jobs.once"].dead == 1


def test_at_most_once_messages_are_taken_one_at_a_time(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    calls = [module.once.call(i) for i in range(1, 100)]
    module.app.enqueue_many([*calls, module.once.call(-1), *(module.once.call(i) for i in range(100, 110))])
    worker = start_worker("-c", "1")
    wait_until(lambda: "once -1" in notes(tmp_path), "the long one runs")

    worker.kill_group()

    ledger = survey(module.app)["jobs.once"]
    assert ledger.processing == 1
    assert ledger.pending == 10


def test_at_most_once_is_not_returned_by_a_stop_either(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--grace", "0.2")
    result = module.once.delay(-1)
    wait_until(lambda: "once -1" in notes(tmp_path), "it runs")

    assert worker.stop() == 1
    assert "1 running tasks with at_most_once were interrupted: they are dead letters" in worker.log
    assert "returned to their queues" not in worker.log

    with pytest.raises(TaskError, match="abandoned"):
        result.get(timeout=5)
    result.forget()
    assert "stopped before it had ended" in str(module.app.AsyncResult(result.id).get(propagate=False))
    ledger = survey(module.app)["jobs.once"]
    assert ledger.dead == 1
    assert ledger.pending == 0


def test_children_come_and_go_with_the_work(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("--autoscale", "1,4")
    wait_until(lambda: len(worker.children()) == 1, "one child runs")

    results = module.nap.delay_many([(0.5, i) for i in range(16)])

    wait_until(lambda: len(worker.children()) == 4, "there are four")
    assert [r.get(timeout=30) for r in results] == list(range(16))


def test_scaling_takes_children_away_when_nothing_waits() -> None:
    scaling = Scaling(1, 8, idleness=10, _quiet_since=0)

    assert scaling.wanted(2, busy=2, pending=5, oldest=1.0, now=1.0) == 4
    assert scaling.wanted(4, busy=3, pending=5, oldest=9.0, now=2.0) == 4, "an idle child will take them"
    assert scaling.wanted(4, busy=0, pending=0, oldest=0.0, now=11.0) == 4
    assert scaling.wanted(4, busy=0, pending=0, oldest=0.0, now=13.0) == 3
    assert scaling.wanted(3, busy=0, pending=0, oldest=0.0, now=14.0) == 3


def test_a_changed_file_starts_the_worker_anew(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--reload")
    assert module.beside.delay(0, "old").get(timeout=30) == "old"

    path = tmp_path / "jobs.py"
    path.write_text(path.read_text().replace("return value", "return ['new', value]"))

    wait_until(lambda: module.beside.delay(0, 1).get(timeout=30) == ["new", 1], "the new code runs", seconds=30)
    assert worker.stop(signal.SIGINT) == 0


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a process namespace of its own")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_can_be_the_first_process_of_a_container(method: str, jobs: Write, tmp_path: Path) -> None:
    module = jobs(
        """
        import subprocess
        @app.task
        def orphan():
            # A grandchild whose parent ends at once: the first process inherits it.
            subprocess.run(["sh", "-c", "sleep 0.1 &"])
            return os.getppid()
        """
    )
    log = open(tmp_path / "log", "wb")
    container = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
         sys.executable, "-m", "taskq", "worker", "-A", "jobs", "-c", "1", "--start-method", method],
        cwd=tmp_path, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        assert (module.orphan.delay().get(timeout=30) == 1) == (method == "fork")
        wait_until(lambda: _zombies(container.pid) == 0, "orphans are buried")
        inner = _children(container.pid)[0]
        os.kill(inner, signal.SIGTERM)
        assert container.wait(20) == 0
    finally:
        container.kill()
        container.wait()
        log.close()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _zombies(pid: int) -> int:
    found = 0
    for child in _children(pid):
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        found += (state == "Z") + _zombies(child)
    return found
