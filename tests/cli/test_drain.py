"""``taskq worker --drain``: it ends when nothing can run any more, and says what is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from taskq.broker.commands import steering
from tests.support import Write

Run = Callable[..., subprocess.CompletedProcess[str]]

JOBS = """
from taskq.broker.commands import steering
HERE = os.path.dirname(os.path.abspath(__file__))
FORKS = os.open(os.path.join(HERE, "forks"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)
os.register_at_fork(after_in_parent=lambda: os.write(FORKS, b"."))

@app.task
def plain(i=0):
    return i

@app.task(rate="1/h")
def hourly():
    pass

@app.task(rate="20/s")
def quick():
    pass

@app.task(queue="shared")
def fine():
    pass

@app.task(queue="shared", rate="1/h")
def gated():
    pass

@app.task
def crashes_paused():
    app.client.broker.run(steering.pause(app.client.keys, "jobs.crashes_paused", 0, "kim", "it crashes"))
    os._exit(9)

@app.task
async def sends():
    await asyncio.sleep(0.3)
    await plain.adelay(7)
"""


def forks(folder: Path) -> int:
    return len((folder / "forks").read_bytes())


def drain(taskq: Run) -> subprocess.CompletedProcess[str]:
    return taskq("worker", "-A", "jobs", "-c", "1", "--drain", seconds=20)


@pytest.mark.parametrize(("tasks", "queue"), [(["hourly"], "jobs.hourly"), (["gated", "fine"], "shared")])
def test_what_waits_at_a_closed_gate_is_left_and_said(
    tasks: list[str], queue: str, jobs: Write, taskq: Run, tmp_path: Path
) -> None:
    module = jobs(JOBS)
    for _ in range(3):
        for task in tasks:
            getattr(module, task).delay()

    ran = drain(taskq)

    assert ran.returncode == 3
    assert f"taskq: left: 2 waiting in queue {queue}: limits" in ran.stderr
    assert forks(tmp_path) == 1


def test_a_gate_that_opens_soon_is_waited_for(jobs: Write, taskq: Run, tmp_path: Path) -> None:
    module = jobs(JOBS)
    results = module.quick.delay_many([()] * 10)

    ran = drain(taskq)

    assert (ran.returncode, forks(tmp_path)) == (0, 1)
    assert "taskq: left" not in ran.stderr
    assert all(result.ready() for result in results)


def test_a_paused_queue_is_left_and_said(jobs: Write, taskq: Run, tmp_path: Path) -> None:
    module = jobs(JOBS)
    module.app.client.broker.run(steering.pause(module.app.client.keys, "jobs.plain", 0, "kim", "the bank is closed"))
    module.plain.delay()

    ran = drain(taskq)

    assert ran.returncode == 3
    assert (
        "taskq: left: 1 waiting in queue jobs.plain, which was paused by kim until it is resumed: the bank"
        in ran.stderr
    )
    assert forks(tmp_path) == 1


def test_a_suspect_of_a_paused_queue_is_left_and_said(jobs: Write, taskq: Run, tmp_path: Path) -> None:
    module = jobs(JOBS)
    module.crashes_paused.delay()

    ran = drain(taskq)

    assert ran.returncode == 3
    assert "1 waiting to run alone in queue jobs.crashes_paused, which was paused by kim" in ran.stderr
    assert forks(tmp_path) <= 6, "a child, the one that takes its place, a few for the suspect"


def test_what_is_scheduled_for_later_is_said_and_no_failure(jobs: Write, taskq: Run) -> None:
    module = jobs(JOBS)
    module.plain.apply_async((1,), countdown=3600)

    ran = drain(taskq)

    assert ran.returncode == 0
    assert "taskq: left: 1 scheduled for later in queue jobs.plain" in ran.stderr


def test_what_is_sent_by_the_last_that_runs_is_run_as_well(jobs: Write, taskq: Run, tmp_path: Path) -> None:
    module = jobs(JOBS)
    module.sends.delay()

    ran = drain(taskq)

    assert (ran.returncode, ran.stderr.count("left"), forks(tmp_path)) == (0, 0, 1)
