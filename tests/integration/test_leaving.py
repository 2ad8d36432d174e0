"""Children that come to their end: replaced at once, gone soon, whatever tasks have left in them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import Start, Write, wait_until

JOBS = """
import concurrent.futures, multiprocessing.util, threading
HERE = os.path.dirname(os.path.abspath(__file__))
kept = []

def note(text):
    with open(os.path.join(HERE, "notes.log"), "a") as file:
        file.write(text + "\\n")

def leave(what):
    if what == "thread":
        threading.Thread(target=time.sleep, args=(60,)).start()
    elif what == "executor":
        kept.append(concurrent.futures.ThreadPoolExecutor(1))
        kept[0].submit(time.sleep, 60)
    elif what == "process":
        multiprocessing.Process(target=time.sleep, args=(20,)).start()
    elif what == "finalizer":
        multiprocessing.util.Finalize(None, time.sleep, (60,), exitpriority=1)
    elif what == "handler":
        import logging
        handler = logging.Handler()
        handler.flush = lambda: time.sleep(60)
        logging.getLogger().addHandler(handler)
        kept.append(handler)
    return os.getpid()

@app.task
def leaves(what):
    return leave(what)

@app.task(pool="thread")
def leaves_in_thread(what):
    return leave(what)

@app.task
async def leaves_on_loop(what):
    async def clings():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    if what == "coroutine":
        kept.append(asyncio.create_task(clings()))
        await asyncio.sleep(0)
    else:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    return os.getpid()

@app.task
def suspect(i, what):
    path = os.path.join(HERE, f"killed-{i}")
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), 9)
    return leave(what)

@app.task
async def meets(mine, other):
    note(mine)
    while other not in open(os.path.join(HERE, "notes.log")).read().split():
        await asyncio.sleep(0.01)
    return os.getpid()

@app.task
def pid():
    return os.getpid()
"""


def notes(folder: Path) -> list[str]:
    path = folder / "notes.log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("task", "things"),
    [
        ("leaves", ["thread", "executor", "process", "finalizer", "handler"]),
        ("leaves_in_thread", ["thread"]),
        ("leaves_on_loop", ["executor", "coroutine"]),
    ],
)
def test_what_a_task_leaves_in_its_child_keeps_no_place_and_no_stop_waiting(
    task: str, things: list[str], jobs: Write, start_worker: Start
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "--max-tasks-per-child", "1")

    pids = [getattr(module, task).delay(what).get(timeout=20) for what in things]

    assert len({*pids, module.pid.delay().get(timeout=20)}) == len(things) + 1
    wait_until(lambda: not set(pids) & set(worker.children()), "they have left")
    assert worker.stop(seconds=10) == 0


def test_what_a_suspect_leaves_does_not_hold_up_the_next_one(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    pids = [module.suspect.delay(i, what).get(timeout=20) for i, what in enumerate(["thread", "process"])]

    assert len(set(pids)) == 2


def test_coroutines_overlap_whatever_the_messages_a_child_may_run(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "--max-tasks-per-child", "1")
    first, second = module.meets.delay("a", "b"), module.meets.delay("b", "a")

    assert first.get(timeout=20) != second.get(timeout=20)


def test_children_that_still_end_what_they_run_leave_their_worker_its_capacity(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    held = []
    for i in range(11):  # more than there are places
        held.append(module.meets.delay(f"holds{i}", "go"))
        wait_until(lambda name=f"holds{i}": name in notes(tmp_path), "it runs")  # type: ignore[misc]
        worker.process.send_signal(signal.SIGHUP)

    assert module.pid.delay().get(timeout=20)

    with open(tmp_path / "notes.log", "a") as file:
        file.write("go\n")
    assert [bool(result.get(timeout=20)) for result in held] == [True] * len(held)


DEAF = """
from taskq.worker.child.main_lane import MainLane

stop, told = MainLane.stop, []

def deaf_at_first(lane, grace=None):
    told.append(grace)
    if len(told) > 1:
        stop(lane, grace)

MainLane.stop = deaf_at_first

@app.task
def pid():
    return os.getpid()

@app.task
async def apid():
    return os.getpid()
"""


def test_a_wait_that_began_just_after_a_child_was_told_to_end_does_not_last(jobs: Write, start_worker: Start) -> None:
    """No wait notices a signal that came the moment before."""
    module = jobs(DEAF)
    worker = start_worker("-c", "1")
    child = module.pid.delay().get(timeout=20)

    os.kill(worker.process.pid, signal.SIGHUP)

    wait_until(lambda: child not in worker.children(), "it is replaced", 8.0)
    assert module.pid.delay().get(timeout=20) != child
    assert worker.stop(seconds=8) == 0


@pytest.mark.parametrize("task", ["pid", "apid"])
def test_nor_does_one_in_a_child_that_has_run_enough(task: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(DEAF)
    worker = start_worker("-c", "1", "--max-tasks-per-child", "1")

    for _ in range(2):
        child = getattr(module, task).delay().get(timeout=20)
        wait_until(lambda child=child: child not in worker.children(), "it has left", 8.0)  # type: ignore[misc]
