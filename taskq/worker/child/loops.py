"""The event loop of a child, on which its lanes run that are no main lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from taskq.worker.vital import vital


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's way to make a loop if it is installed, None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_lanes(mains: list[Callable[[], Coroutine[Any, Any, None]]], ended: Callable[[], object]) -> None:
    """Run lanes on a new event loop; blocks its thread. Uses uvloop if it is installed.

    ``ended`` is called when all have ended: what tasks have left on the loop may still keep it for ever.

    A bug in there ends the process before the runner cancels what runs, which would pass for failures.
    """

    async def all_of_them() -> None:
        await asyncio.gather(*(main() for main in mains))
        ended()

    runner = asyncio.Runner(loop_factory=_loop_factory())
    vital("the event loop of this child", lambda: runner.run(all_of_them()))
    runner.close()
