"""A command that is sent with the one before it: one write, two answers, and never the answer of another."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.commands import awaiting, holding, leasing
from taskq.broker.commands.holding import Batch, Stale
from taskq.broker.faults import Passing
from taskq.broker.net.connection import Connection
from tests.contract.test_fetch_take import waiting
from tests.contract.world import T0, Scores, Taken, World, messages, raw_id, serving

A, B = raw_id(1), raw_id(2)
HELD = {"messages": messages(A), "processing:inc": {A: Taken(T0, "q")}}


def next_call(world: World, number: int = 2, wait: float = 0.01) -> Command[Batch]:
    return holding.fetch(world.keys, "inc", number, (), want=1, set_id="set", mode="next", wait=wait)


def settle(world: World, ahead: Command[Any] | None, number: int = 1) -> Command[Batch]:
    return holding.fetch(world.keys, "inc", number, ["done", A, 0, 0], ahead=ahead)


@pytest.fixture
def connection(world: World) -> Connection:
    world.seed({"calls": {b"inc": b"0"}})
    world.run(settle(world, None))  # so that the server has the script
    world.clear()
    return Connection(world.connection.url)


def test_the_next_call_is_executed_without_another_word(world: World, connection: Connection) -> None:
    world.seed(serving("inc"), HELD, waiting(B), {"bell:set": [b"1"]})
    ahead = next_call(world)

    assert connection.execute(settle(world, ahead)).messages == []
    batch = connection.execute(ahead)

    assert batch.messages[::2] == [B]
    assert world.state()["processing:inc"].keys() == {B}
    connection.close()


def test_any_other_command_gets_its_own_answer(world: World, connection: Connection) -> None:
    """The connection is dropped, and with it the answer for which nobody asks any more."""
    world.seed(serving("inc"), HELD, waiting(B))
    ahead = next_call(world, wait=5.0)

    connection.execute(settle(world, ahead))

    assert connection.execute(leasing.held_ids(world.keys, "inc")) == []
    assert connection.execute(awaiting.take_bell(world.keys["nothing"])) is None
    connection.close()


@pytest.mark.parametrize("last", [b"0", b"1.5", b"2", b"3"])
def test_it_is_refused_unless_the_call_before_it_was_executed(world: World, last: bytes) -> None:
    """Else a parent could not tell whether that call was: the number would have risen all the same."""
    before = world.seed(serving("inc"), waiting(A), {"bell:set": [b"1"]}, {"calls": {b"inc": last}})

    with pytest.raises(Stale):
        world.run(next_call(world))

    after = world.state()
    assert after == {name: value for name, value in before.items() if name != "bell:set"}


def test_a_server_that_has_lost_its_scripts_executes_neither(world: World, connection: Connection) -> None:
    before = world.seed(serving("inc"), HELD, waiting(B), {"ready:set": Scores({b"q": 1.0})})
    world.raw("SCRIPT", "FLUSH")
    ahead = next_call(world)

    with pytest.raises(Passing):
        connection.execute(settle(world, ahead))

    assert world.state() == before
    assert connection.execute(leasing.held_ids(world.keys, "inc")) == [A]
    connection.close()
