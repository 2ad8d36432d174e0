"""Waits that are as short as can be: a server must not take them for waits without an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.commands import awaiting, holding
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import Connection
from tests.contract.world import SET, World, serving

SHORT = [0.0, 0.0001, 0.0004, 0.001, 0.0019]


def waits(world: World, seconds: float) -> list[Command[Any]]:
    """Every command that waits, for so many seconds, in vain."""
    keys = world.keys
    return [
        awaiting.wait_bell(keys, ["alarm"], seconds),
        awaiting.take_inbox(keys, "inbox", seconds),
        holding.fetch(keys, "inc", 1, [], want=1, set_id=SET.id, wait=seconds),
    ]


@pytest.mark.parametrize("seconds", SHORT)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_wait_that_is_nearly_over_ends(seconds: float, which: int, world: World) -> None:
    world.seed(serving("inc"))
    connection = Connection(world.connection.url, timeout=1.0)

    connection.execute(waits(world, seconds)[which])

    connection.close()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_wait_on_a_loop_that_is_nearly_over_ends(which: int, world: World) -> None:
    world.seed(serving("inc"))

    async def wait() -> None:
        connection = AsyncConnection(world.connection.url, timeout=1.0)
        await connection.execute(waits(world, 0.001)[which])
        await connection.close()

    asyncio.run(wait())
