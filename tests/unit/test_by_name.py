"""Apps, tasks, handles and errors as pickles and copies; arguments whose names taskq uses itself."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskq
from taskq import ConfigError, TaskError, TaskQ
from taskq.errors import task_error
from taskq.runs.context import Revoked
from tests.support import unique_name

app = TaskQ(unique_name(), "redis://:secret@127.0.0.1:1", send_timeout=0.01)


@app.task
def double(x: int) -> int:
    return 2 * x


@app.task
def names(**kwargs: int) -> dict[str, int]:
    return kwargs


@app.task
def taken(function: int, args: int, kwargs: int, task_id: int, delivery: int) -> list[int]:
    return [function, args, kwargs, task_id, delivery]


@app.task
async def anames(**kwargs: int) -> dict[str, int]:
    return kwargs


MACHINERY = dict.fromkeys(["self", "function", "args", "kwargs", "task_id", "call", "client", "item", "value"], 1)


@pytest.mark.parametrize("task", [names, anames])
def test_an_argument_may_have_any_name(task: Any) -> None:
    async def asend() -> None:
        await task.adelay(**MACHINERY)

    sends: list[Callable[[], Any]] = [
        lambda: task.delay(**MACHINERY),
        lambda: asyncio.run(asend()),
        lambda: app.enqueue_many([task.call(**MACHINERY)]),
        lambda: task.delay_many([MACHINERY]),
    ]
    for send in sends:
        with pytest.raises(ConnectionError):  # as far as the server
            send()


def test_so_may_a_parameter() -> None:
    arguments = {"function": 1, "args": 2, "kwargs": 3, "task_id": 4, "delivery": 5}

    assert names(**MACHINERY) == names.apply((), MACHINERY).get() == MACHINERY
    assert taken(**arguments) == taken.apply((), arguments).get() == [1, 2, 3, 4, 5]


def test_apps_tasks_and_clients_are_themselves_in_a_copy_and_a_pickle() -> None:
    for thing in (app, double, app.client):
        for other in (copy.copy(thing), copy.deepcopy([thing])[0], pickle.loads(pickle.dumps(thing))):
            assert other is thing


def test_a_handle_is_equal_in_a_copy_and_a_pickle_and_keeps_what_it_saw() -> None:
    ended, waiting = double.apply((2,)), app.AsyncResult("an-id")

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for again in (copy.copy(ended), copy.deepcopy(ended), pickle.loads(pickle.dumps(ended, protocol))):
            assert (again, again.get()) == (ended, 4)
        assert pickle.loads(pickle.dumps(waiting, protocol)) == waiting


def test_no_password_is_in_a_pickle() -> None:
    assert b"secret" not in pickle.dumps((app, double, app.client, app.AsyncResult("an-id")))


def test_a_failed_handle_can_be_sent_to_another_process() -> None:
    @app.task
    def fail() -> None:
        raise KeyError("gone")

    again = pickle.loads(pickle.dumps(fail.apply()))

    with pytest.raises(KeyError, match="gone") as caught:
        again.get()
    assert caught.value.__notes__


@pytest.mark.parametrize(
    "error",
    [
        taskq.EnqueueUncertain("why", ("a", "b")),
        taskq.DuplicateCall("why", "a"),
        taskq.RateLimited(5),
        taskq.SoftTimeLimitExceeded(),
        taskq.BrokerUnavailable("why"),
        taskq.TaskRevoked("why"),
        taskq.Retry(ValueError("x"), 5.0, 3),
        Revoked(),
        task_error("KeyError", "why", "a traceback"),
        task_error("OSError", "why", ""),
        task_error("shop.Mine", "why", "a traceback"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_from_a_pickle_as_it_was(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert str(vars(again)) == str(vars(error))


def test_a_pool_of_processes_maps_a_task() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]


SCRIPT = """
import multiprocessing
from taskq import TaskQ
app = TaskQ("script", "redis://127.0.0.1:1")

@app.task
def double(x):
    return 2 * x

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [1, 2]), pool.apply(str, [double]))
"""


def test_so_does_one_that_is_spawned_from_a_script(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SCRIPT)

    shown = subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50)

    assert shown.stdout == "[2, 4] <Task shop.double>\n", shown.stderr


def test_a_pickle_of_a_script_is_read_by_a_process_that_has_not_imported_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import pickle\nfrom taskq import TaskQ\n"
        "class Mine(TaskQ):\n"
        "    def __init__(self, *args):\n"
        "        super().__init__(*args)\n"
        "app = Mine('script', 'redis://127.0.0.1:1')\n"
        "@app.task\n"
        "def double(x):\n"
        "    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    pickle.dump((double, double.apply((2,)), app.AsyncResult('an-id')), open('pickle', 'wb'))\n"
    )
    subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, check=True)
    read = "import pickle; task, done, waiting = pickle.load(open('pickle', 'rb')); print(task(3), done.get(), waiting)"

    shown = subprocess.run([sys.executable, "-c", read], cwd=tmp_path, capture_output=True, text=True)

    assert shown.stdout == "6 4 <AsyncResult an-id>\n", shown.stderr


def test_apps_of_one_name_that_differ_cannot_be_told_apart() -> None:
    name = unique_name()
    one = TaskQ(name, "redis://127.0.0.1:1")
    again = TaskQ(name, "redis://127.0.0.1:1")
    assert pickle.loads(pickle.dumps(one)) is again
    other = TaskQ(name, "redis://127.0.0.1:2")

    with pytest.raises(ConfigError, match="several apps are named"):
        pickle.loads(pickle.dumps(other))


def test_what_is_not_in_this_process_is_named() -> None:
    from taskq.calls.by_name import find_app, find_task

    with pytest.raises(ConfigError, match="no app named 'nowhere'"):
        find_app("nowhere", "json")
    with pytest.raises(ConfigError, match=r"has no task 'x\.y' .*importing 'json'"):
        find_task(app.name, __name__, "json", "x.y")


def frames(error: BaseException) -> int:
    tb, n = error.__traceback__, 0
    while tb is not None:
        tb, n = tb.tb_next, n + 1
    return n


def test_a_failed_handle_raises_the_same_for_ever_however_often_it_is_asked() -> None:
    @app.task
    def fail() -> None:
        raise KeyError("gone")

    result, depths, notes = fail.apply(), set(), set()
    for _ in range(50):
        for ask in (result.get, lambda: asyncio.run(result.aget())):
            with pytest.raises(TaskError) as caught:
                ask()
            depths.add(frames(caught.value))
            notes.add(len(caught.value.__notes__))
            caught.value.add_note("mine")

    assert (len(depths), notes) == (2, {1})
