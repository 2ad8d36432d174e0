"""What a task held is freed as soon as it has failed, on every lane."""

from __future__ import annotations

import pytest

from taskq import TaskError
from tests.support import Start, Write

JOBS = """
import gc, taskq, weakref
gc.disable()
HELD = []

class Big:
    pass

def hold():
    big = Big()
    HELD.append(weakref.ref(big))
    return big

POLICY = dict(autoretry_for=(ValueError, taskq.SoftTimeLimitExceeded), max_retries=1, default_retry_delay=0)

def fail(how):
    big = hold()
    if how == "soft":
        while True:
            time.sleep(0.01)
    raise ValueError(how)

main = app.task(name="jobs.main", soft_time_limit=0.2, **POLICY)(fail)
thread = app.task(name="jobs.thread", pool="thread", soft_time_limit=0.2, **POLICY)(fail)

@app.task(soft_time_limit=0.2, **POLICY)
async def loop(how):
    big = hold()
    await asyncio.sleep(60 if how == "soft" else 0.01)
    raise ValueError(how)

@app.task
def held():
    return sum(ref() is not None for ref in HELD), len(HELD)
"""


@pytest.mark.parametrize("lane", ["main", "thread", "loop"])
def test_what_a_failed_task_held_is_freed_at_once(lane: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    for how in ("plain", "soft"):
        with pytest.raises(TaskError):
            getattr(module, lane).delay(how).get(timeout=20)

    alive, runs = module.held.delay().get(timeout=20)
    assert alive == 0
    assert runs >= 3, "one may have met its soft limit before it held anything"
