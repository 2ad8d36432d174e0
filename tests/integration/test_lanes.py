"""What a task is decides where it runs, whatever queue its calls come by."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import ModuleType

import pytest

from taskq import TaskError
from tests.support import Start, Write, survey, wait_until

JOBS = """
import threading

def here():
    kind = "main" if threading.current_thread() is threading.main_thread() else threading.current_thread().name
    return kind.split("_")[0].split("-")[-1]

@app.task
def plain(x=None):
    return here()

@app.task
async def notify(x=None):
    await asyncio.sleep(0)
    return here()

@app.task(pool="thread")
def patient(x=None):
    return here()

@app.task(queue="mixed")
def mixed_plain():
    return here()

@app.task(queue="mixed")
async def mixed_notify():
    return here()

@app.task(queue="mixed", pool="thread")
def mixed_patient():
    return here()

@app.task(ignore_result=True)
async def quiet(i):
    with open(os.path.join(os.path.dirname(__file__), "ran"), "a") as file:
        file.write(f"{i}\\n")

@app.task(soft_time_limit=0.2)
async def slow():
    await asyncio.sleep(60)

@app.task(time_limit=0.3)
async def stuck():
    time.sleep(60)

@app.task
async def pill():
    os._exit(9)

@app.task
async def again(name):
    path = os.path.join(os.path.dirname(__file__), name)
    if not os.path.exists(path):
        open(path, "w").close()
        await asyncio.sleep(60)
    return name

@app.task
async def waits(name):
    open(os.path.join(os.path.dirname(__file__), name), "w").close()
    await asyncio.sleep(60)
"""

WHERE = {"plain": "main", "notify": "loop", "patient": "task"}


def where(module: ModuleType, **options: str) -> dict[str, str]:
    """Where calls of three kinds ran."""
    handles = {name: getattr(module, name).apply_async(**options) for name in WHERE}
    return {name: handle.get(timeout=30) for name, handle in handles.items()}


def test_a_call_runs_where_its_task_does_whatever_queue_it_came_by(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "-Q", "jobs.plain,jobs.notify,jobs.patient,urgent,mixed")

    for queue in ("urgent", "jobs.plain", "jobs.notify", "jobs.patient"):
        assert where(module, queue=queue) == WHERE, queue
    kinds = [module.mixed_plain, module.mixed_notify, module.mixed_patient]
    assert [task.delay().get(timeout=30) for task in kinds] == list(WHERE.values())


def test_a_worker_of_one_foreign_queue_has_every_lane_that_its_tasks_need(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    for i in range(20):
        module.quiet.apply_async((i,), queue="urgent")
    worker = start_worker("-c", "1", "-Q", "urgent", "--drain")

    assert worker.process.wait(30) == 0, worker.log
    assert sorted(map(int, (tmp_path / "ran").read_text().split())) == list(range(20))


def test_the_limits_of_a_task_hold_on_whatever_queue_it_came_by(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "-Q", "urgent")

    for task, error in ((module.slow, "SoftTimeLimitExceeded"), (module.stuck, "TimeLimitExceeded")):
        with pytest.raises(TaskError, match=error):
            task.apply_async(queue="urgent").get(timeout=30)


def test_poison_that_came_by_another_queue_is_contained(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "-Q", "urgent")

    with pytest.raises(TaskError, match="crashed"):
        module.pill.apply_async(queue="urgent").get(timeout=30)

    assert survey(module.app)["urgent"].counters["crashes"] == 3
    assert where(module, queue="urgent") == WHERE, worker.log


@pytest.mark.parametrize("queue", ["urgent", "jobs.plain", "jobs.patient"])
def test_many_that_must_run_alone_come_to_the_lane_of_their_task(
    jobs: Write, start_worker: Start, tmp_path: Path, queue: str
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "-Q", "urgent,jobs.plain,jobs.patient")
    names = [f"again-{i}" for i in range(5)]
    many = [module.again.apply_async((name,), queue=queue) for name in names]
    wait_until(lambda: len(list(tmp_path.glob("again-*"))) == 5, "they run")

    os.kill(worker.children()[0], signal.SIGKILL)

    assert [handle.get(timeout=30) for handle in many] == names, worker.log


def test_what_came_by_another_queue_is_revoked_and_returned_like_any_other(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1", "-Q", "urgent", "--grace", "1.5")
    running = module.waits.apply_async(("first",), queue="urgent")
    wait_until((tmp_path / "first").exists, "it runs")
    running.revoke()
    with pytest.raises(TaskError, match="revoked"):
        running.get(timeout=30)

    module.waits.apply_async(("second",), queue="urgent")
    wait_until((tmp_path / "second").exists, "it runs")
    assert worker.stop(signal.SIGTERM) == 1
    there = survey(module.app)["urgent"]
    assert there.processing == there.balance == 0
    assert there.pending + there.gated + there.suspects == 1
