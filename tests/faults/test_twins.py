"""Tasks that fork: what comes back from the task in the new process must not go on as the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Start, Write, survey

FORKS = """
import multiprocessing

def status_of(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "it hung"

def fork():
    pid = os.fork()
    return ["twin", 0] if pid == 0 else ["task", status_of(pid)]

def fork_by_c_code():
    import ctypes
    pid = ctypes.PyDLL(None).fork()
    return ["twin", 0] if pid == 0 else ["task", status_of(pid)]

def fork_once_killed():
    mark = os.path.join(os.path.dirname(os.path.abspath(__file__)), "killed")
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return fork()

def fork_and_fail():
    pid = os.fork()
    if pid == 0:
        raise ValueError("the twin's own")
    return ["task", status_of(pid)]

def terminate():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(10)
    code = process.exitcode
    process.kill()
    return code

FUNCTIONS = [fork, fork_by_c_code, fork_once_killed, fork_and_fail, terminate]
for f in FUNCTIONS:
    app.task(name=f"main.{f.__name__}")(f)
    app.task(name=f"thread.{f.__name__}", pool="thread")(f)

def coroutine(f):
    async def task():
        return f()
    return task

for f in FUNCTIONS:
    app.task(name=f"loop.{f.__name__}")(coroutine(f))

async def fork_and_await():
    pid = os.fork()
    if pid == 0:
        await asyncio.sleep(0)
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "went-on"), "w"):
            pass
    return ["task", 0 if status_of(pid) in (0, 1) else "it hung"]

app.task(name="loop.fork_and_await")(fork_and_await)

async def fork_beside_what_waits_for_its_turn():
    beside = asyncio.create_task(asyncio.sleep(0))
    pid = os.fork()
    if pid == 0:
        return "the twin's own"
    await beside
    return ["task", status_of(pid)]

app.task(name="loop.fork_beside_what_waits_for_its_turn")(fork_beside_what_waits_for_its_turn)
"""


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_a_twin_leaves_when_it_comes_back_from_the_task(lane: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(FORKS)
    worker = start_worker("-c", "1")

    for _ in range(3):
        assert module.app.tasks[f"{lane}.fork"].delay().get(timeout=30) == ["task", 0]
        assert module.app.tasks[f"{lane}.fork_by_c_code"].delay().get(timeout=30) == ["task", 0]
        assert module.app.tasks[f"{lane}.fork_and_fail"].delay().get(timeout=30) == ["task", 1]

    queues = survey(module.app)
    assert sum(queue.counters["done"] for queue in queues.values()) == 9
    assert all(queue.balance == 0 for queue in queues.values())
    assert "ERROR" not in worker.log
    assert "CRITICAL" not in worker.log


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_a_twin_leaves_a_child_that_runs_a_suspect(lane: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(FORKS)
    start_worker("-c", "1")

    assert module.app.tasks[f"{lane}.fork_once_killed"].delay().get(timeout=30) == ["task", 0]

    assert survey(module.app)[f"{lane}.fork_once_killed"].balance == 0


def test_a_twin_of_a_coroutine_does_not_go_on_with_the_loop(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(FORKS)
    worker = start_worker("-c", "1")

    for _ in range(5):
        assert module.app.tasks["loop.fork_and_await"].delay().get(timeout=30) == ["task", 0]

    assert not (tmp_path / "went-on").exists()
    assert "event loop" not in worker.log
    assert survey(module.app)["loop.fork_and_await"].balance == 0


def test_a_twin_complains_of_nothing_that_stood_on_the_loop(jobs: Write, start_worker: Start) -> None:
    module = jobs(FORKS)
    worker = start_worker("-c", "1")

    result = module.app.tasks["loop.fork_beside_what_waits_for_its_turn"].delay().get(timeout=30)

    assert result == ["task", 0]
    assert "destroyed" not in worker.log


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_a_process_of_a_tasks_own_can_be_terminated(lane: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(FORKS)
    start_worker("-c", "1")

    assert module.app.tasks[f"{lane}.terminate"].delay().get(timeout=30) == -15
