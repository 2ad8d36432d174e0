"""What decorators make of tasks, and arguments of any name, on every lane of a real worker."""

from __future__ import annotations

from typing import Any

import pytest

from taskq import TaskError
from tests.support import Start, Write, wait_until

JOBS = """
import functools

def passing(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

def apassing(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return function(*args, **kwargs)  # not awaited
    return wrapper

def connected(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("connection", *args, **kwargs)
    return wrapper

async def add(a, b=1):
    await asyncio.sleep(0)
    return a + b

async def put(path):
    await asyncio.sleep(0)
    open(path, "w").close()

main = app.task(name="main")(passing(add))
limited = app.task(name="limited", soft_time_limit=30)(passing(add))
thread = app.task(name="thread", pool="thread")(passing(add))
loop = app.task(name="loop")(apassing(add))
partial = app.task(name="partial")(functools.partial(add, b=5))
quiet = app.task(name="quiet", ignore_result=True)(passing(put))

class Adder:
    async def __call__(self, a):
        return await add(a)

object_ = app.task(name="object")(Adder())

@app.task
@connected
def store(connection, item):
    return [connection, item]

def numbers():
    yield 1

lost = app.task(name="lost", ignore_result=True)(passing(numbers))
thread_lost = app.task(name="thread_lost", pool="thread")(passing(numbers))
loop_lost = app.task(name="loop_lost")(apassing(numbers))

def named(**kwargs):
    return kwargs

async def anamed(**kwargs):
    return kwargs

named_main = app.task(name="named_main")(named)
named_thread = app.task(name="named_thread", pool="thread", soft_time_limit=30)(named)
named_loop = app.task(name="named_loop")(anamed)

def function_of(function, args, kwargs):
    return [function, args, kwargs]

taken = app.task(name="taken", pool="thread")(function_of)
"""

MACHINERY = dict.fromkeys(["self", "function", "args", "kwargs", "task_id", "delivery", "value"], 1)


def test_a_coroutine_runs_to_its_end_whatever_it_comes_out_of(jobs: Write, start_worker: Start, tmp_path: Any) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    quiet = module.quiet.delay(str(tmp_path / "done"))
    lanes = [module.main, module.limited, module.thread, module.loop, module.object_]
    assert [task.delay(1).get(timeout=20) for task in lanes] == [2] * len(lanes)
    assert module.partial.delay(1).get(timeout=20) == 6
    assert module.store.delay("socks").get(timeout=20) == ["connection", "socks"]
    lost = module.lost.delay()
    for task in (module.thread_lost, module.loop_lost):
        with pytest.raises(TaskError, match="whose body has not run"):
            task.delay().get(timeout=20)
    wait_until(lambda: lost.status().state == "FAILURE", "a generator with an ignored result is a dead letter")
    assert quiet.status().state == "UNKNOWN"
    assert (tmp_path / "done").exists()
    for task in (module.named_main, module.named_thread, module.named_loop):
        assert task.delay(**MACHINERY).get(timeout=20) == MACHINERY
    assert module.taken.delay(function=1, args=2, kwargs=3).get(timeout=20) == [1, 2, 3]
