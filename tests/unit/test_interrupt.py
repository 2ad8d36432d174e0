"""Errors raised inside what runs: coroutines and what they wait in."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taskq import SoftTimeLimitExceeded, TaskRevoked
from taskq.runs.context import Revoked
from taskq.worker.child.interrupt import CoroutineInterrupt, Interruption, soft_limit_error

Ends = list[str]


async def child(ends: Ends) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        ends.append("cancelled")
        raise


async def plainly(ends: Ends) -> None:
    await child(ends)


async def in_a_task(ends: Ends) -> None:
    await asyncio.create_task(child(ends))


async def in_gather(ends: Ends) -> None:
    await asyncio.gather(child(ends), child(ends))


async def in_wait_for(ends: Ends) -> None:
    await asyncio.wait_for(child(ends), 60)


async def in_timeout(ends: Ends) -> None:
    async with asyncio.timeout(60):
        await child(ends)


async def at_the_end_of_a_group(ends: Ends) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child(ends))
        group.create_task(child(ends))


async def inside_a_group(ends: Ends) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child(ends))
        await child(ends)


async def inside_groups(ends: Ends) -> None:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(child(ends))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(child(ends))
            await asyncio.wait_for(child(ends), 60)


WAITS: list[Callable[[Ends], Coroutine[Any, Any, None]]] = [
    plainly, in_a_task, in_gather, in_wait_for, in_timeout, at_the_end_of_a_group, inside_a_group, inside_groups,
]  # fmt: skip


async def interrupted(coroutine: Coroutine[Any, Any, Any], error: Interruption) -> Any:
    """Run a coroutine as a lane does, and interrupt it while it waits."""
    awaited = coroutine.send(None)
    running = CoroutineInterrupt(coroutine, awaited)
    asyncio.get_running_loop().call_later(0.01, running.fire, error)
    return await running


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize(
    ("error", "caught", "text"),
    [(soft_limit_error(2), SoftTimeLimitExceeded, "2 s"), (Revoked(), TaskRevoked, "revoked while it ran")],
)
def test_what_an_interrupted_coroutine_waits_in_cancels_its_parts(
    wait: Callable[[Ends], Coroutine[Any, Any, None]], error: Interruption, caught: type[Exception], text: str
) -> None:
    ends: Ends = []
    seen: list[int] = []

    async def main() -> None:
        with pytest.raises(caught, match=text) as raised:
            await interrupted(wait(ends), error)
        assert isinstance(raised.value, type(error))
        assert type(raised.value).__qualname__ == type(error).__qualname__
        seen.append(len(asyncio.all_tasks()))
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    asyncio.run(main())

    expected = {in_gather: 2, at_the_end_of_a_group: 2, inside_a_group: 2, inside_groups: 3}
    assert ends == ["cancelled"] * expected.get(wait, 1)
    assert seen == [1], "and none of them runs on"


def test_a_coroutine_may_catch_its_interruption_and_go_on() -> None:
    async def tidies() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            async with asyncio.timeout(60):
                await asyncio.sleep(0.01)
        return "tidied up"

    assert asyncio.run(interrupted(tidies(), soft_limit_error(1))) == "tidied up"


def test_an_interrupted_coroutine_leaves_nothing_behind() -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    async def holds() -> None:
        big = Big()
        kept.append(weakref.ref(big))
        await asyncio.sleep(60)

    async def main() -> None:
        try:
            await interrupted(holds(), soft_limit_error(1))
        except SoftTimeLimitExceeded:
            pass
        assert kept[0]() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
