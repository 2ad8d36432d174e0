"""What a process makes once for its tasks: at the first use, closed at the end, anew after a fork."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq import ConfigError, TaskQ
from taskq.tasks.hooks import LIFE


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1")


def end(app: TaskQ) -> None:
    """What the end of a child calls."""
    assert "child_shutdown" in LIFE
    for function in app.client.hooks.of("child_shutdown"):
        function()


def test_it_is_made_at_the_first_call_and_once(app: TaskQ) -> None:
    made: list[object] = []

    @app.resource
    def model() -> list[object]:
        """The model."""
        made.append(object())
        return made

    assert not made
    assert model() is model() is made
    assert len(made) == 1
    assert (repr(model), model.__doc__) == (f"<Resource {model.__name__}>", "The model.")


def test_threads_that_come_at_once_share_one(app: TaskQ) -> None:
    began, made = threading.Barrier(8), []

    @app.resource
    def pool() -> object:
        made.append(object())
        return made[0]

    def use() -> None:
        began.wait()
        seen.add(id(pool()))

    seen: set[int] = set()
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(seen) == 1


def test_what_yields_is_closed_at_the_end_the_newest_first_and_made_anew_after(app: TaskQ) -> None:
    told: list[str] = []

    @app.resource
    def settings() -> Iterator[str]:
        told.append("settings made")
        yield "s"
        told.append("settings closed")

    @app.resource
    def client() -> Iterator[str]:
        yield settings() + "c"
        told.append("client closed")

    assert client() == "sc"
    end(app)
    assert told == ["settings made", "client closed", "settings closed"]
    end(app)
    assert client() == "sc"
    assert told.count("settings made") == 2


def test_what_fails_to_close_is_logged_and_the_others_are_closed(app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    @app.resource
    def good() -> Iterator[int]:
        yield 1
        closed.append("good")

    @app.resource
    def bad() -> Iterator[int]:
        yield 2
        raise OSError("gone")

    @app.resource
    def twice() -> Iterator[int]:
        yield 3
        yield 4

    assert (good(), bad(), twice()) == (1, 2, 3)
    with caplog.at_level(logging.ERROR):
        end(app)
    assert closed == ["good"]
    assert "bad failed" in caplog.text
    assert "yielded twice" in caplog.text


def test_what_fails_to_be_made_is_the_errors_of_who_asked_and_is_tried_again(app: TaskQ) -> None:
    tries: list[int] = []

    @app.resource
    def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return 7

    with pytest.raises(OSError, match="not yet"):
        flaky()
    assert flaky() == 7


def test_a_forked_process_makes_its_own_and_closes_only_that(app: TaskQ, tmp_path: Path) -> None:
    closed = tmp_path / "closed"

    @app.resource
    def mine() -> Iterator[int]:
        yield os.getpid()
        with closed.open("a") as file:
            file.write(f"{os.getpid()}\n")

    assert mine() == os.getpid()
    if (pid := os.fork()) == 0:
        try:
            own = mine() == os.getpid()
            end(app)
            os._exit(0 if own else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert closed.read_text() == f"{pid}\n"
    assert mine() == os.getpid()


def test_each_event_loop_makes_its_own_and_closes_it_when_it_ends(app: TaskQ) -> None:
    told: list[str] = []

    @app.resource
    async def plain() -> object:
        await asyncio.sleep(0)
        return object()

    @app.resource
    async def session() -> AsyncIterator[str]:
        told.append("made")
        yield "session"
        told.append("closed")

    async def use() -> set[int]:
        assert await session() == await session() == "session"
        return {id(one) for one in await asyncio.gather(*(plain() for _ in range(5)))}

    first = asyncio.run(use())
    assert len(first) == 1
    assert told == ["made", "closed"]
    asyncio.run(use())
    assert told == ["made", "closed"] * 2


def test_an_async_one_that_fails_is_tried_again(app: TaskQ) -> None:
    tries: list[int] = []

    @app.resource
    async def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return 7

    async def use() -> int:
        with pytest.raises(OSError, match="not yet"):
            await flaky()
        return await flaky()

    assert asyncio.run(use()) == 7


def test_who_gives_up_waiting_does_not_stop_the_making(app: TaskQ) -> None:
    @app.resource
    async def slow() -> int:
        await asyncio.sleep(0.01)
        return 7

    async def use() -> int:
        impatient = asyncio.create_task(slow())
        await asyncio.sleep(0)
        impatient.cancel()
        return await slow()

    assert asyncio.run(use()) == 7


@pytest.mark.parametrize("make", [5, int, lambda x: x])
def test_what_cannot_make_anything_is_refused(app: TaskQ, make: Any) -> None:
    with pytest.raises(ConfigError, match="resource"):
        app.resource(make)


SCRIPT = """
from taskq import TaskQ
app = TaskQ("script", "redis://127.0.0.1:1")

@app.resource
def pool():
    yield "a pool"
    print("closed")

print(pool())
"""


def test_a_process_that_is_no_worker_closes_it_at_its_exit() -> None:
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=50)
    assert shown.stdout.split("\n")[:2] == ["a pool", "closed"], shown.stderr
