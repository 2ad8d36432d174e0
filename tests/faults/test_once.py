"""At most once: a message whose task has ended while nobody could tell the server is not run again either."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from taskq import TaskError
from tests.faults.test_kills import runs
from tests.support import Server, Worker, survey, wait_until

JOBS = """
HERE = os.path.dirname(os.path.abspath(__file__))
LOG = os.open(os.path.join(HERE, "runs.log"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def ends(i):
    return os.path.exists(os.path.join(HERE, "go")) and os.write(LOG, f"end {i} {os.getpid()}\\n".encode())

@app.task(at_most_once=True)
def once(i):
    os.write(LOG, f"start {i} {os.getpid()}\\n".encode())
    while not ends(i):
        time.sleep(0.005)

@app.task(at_most_once=True)
async def aonce(i):
    os.write(LOG, f"start {i} {os.getpid()}\\n".encode())
    while not ends(i):
        await asyncio.sleep(0.005)
"""


@pytest.mark.parametrize("name", ["once", "aonce"])
def test_a_child_is_killed_after_its_task_has_ended_and_before_the_server_knows(
    name: str,
    jobs: Callable[..., ModuleType],
    start_worker: Callable[..., Worker],
    own_server: Server,
    tmp_path: Path,
) -> None:
    module = jobs(JOBS, url=own_server.url)
    worker = start_worker("-c", "1", url=own_server.url)
    result = getattr(module, name).delay(1)
    wait_until(lambda: runs(tmp_path)["1"] == 1, "it runs")

    own_server.kill()
    (tmp_path / "go").touch()
    wait_until(lambda: runs(tmp_path, "end")["1"] == 1, "it ends")
    ended = time.monotonic()
    wait_until(lambda: time.monotonic() - ended > 0.1, "its lane tries to settle it")
    os.kill(worker.children()[0], signal.SIGKILL)
    own_server.start()

    with pytest.raises(TaskError, match="abandoned"):
        result.get(timeout=30)
    assert runs(tmp_path)["1"] == 1
    assert survey(module.app)[f"jobs.{name}"].dead == 1
