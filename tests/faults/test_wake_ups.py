"""Word of what waits is lost: workers are told again by their parents, which renew every second here."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
from redis import Redis

from taskq.broker.commands import producing
from taskq.broker.keys import Keys
from taskq.broker.net.connection import pack
from taskq.calls.result import AsyncResult
from taskq.worker.child.main_lane import WAIT
from tests.faults.fleet import JOBS, check_idle, raw
from tests.support import Server, Start, Write, wait_until

#: Seconds within which what waits must run; no lane wakes by itself so soon.
SOON = 4.0
assert SOON < WAIT / 2


def sets(module: ModuleType) -> list[tuple[Keys, str]]:
    """The sets of queues that lanes serve, of all partitions."""
    partitions = module.app.client.partitions.all
    return [(keys, name.decode()) for keys in partitions for name in raw(module, "HKEYS", keys["sets"])]


def words(module: ModuleType, family: str) -> list[bytes]:
    """Names of keys of which there is one for each set."""
    return [keys[f"{family}:{name}"] for keys, name in sets(module)]


Orders = list[tuple[Any, ...]]
#: What an operator does in the moment in which a message is accepted.
HANDS: dict[str, Callable[[ModuleType], Orders]] = {
    "deletes the bells": lambda m: [("DEL", *words(m, "bell"))],
    "deletes all that says so": lambda m: [("DEL", *words(m, "bell"), *words(m, "ready"))],
    "makes the bells texts": lambda m: [("SET", key, "mine") for key in words(m, "bell")],
    "makes the names texts": lambda m: [("SET", key, "mine") for key in words(m, "ready")],
}


def send(module: ModuleType, url: str, task: Any, meanwhile: Orders) -> AsyncResult[Any]:
    """Send a call and do something else, in one step of the server."""
    call = task.call("lost")
    keys = module.app.client.partitions.of(task.queue)
    command = producing.enqueue(keys, b"somebody", time.monotonic_ns(), [call.message])
    assert command.script is not None
    client = Redis.from_url(url)
    with client.pipeline() as step:
        step.execute_command("EVAL", command.script.text, 1, *command.args)
        for order in meanwhile:
            step.execute_command(*order)
        step.execute()
    client.close()
    handle: AsyncResult[Any] = call.handle()
    return handle


def begin(jobs: Write, start_worker: Start, partitions: int, url: str) -> ModuleType:
    """A worker of one child that has run something on each lane, and waits for more."""
    module = jobs(JOBS, url, settings=f"lease=3.0, partitions={partitions}")
    start_worker("-c", "1", url=url)
    for task in (module.work, module.awork):
        task.delay("first").get(timeout=20)
    return module


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("hand", HANDS)
def test_word_of_a_message_is_lost_and_it_runs_soon(
    hand: str, partitions: int, jobs: Write, start_worker: Start, session_server: Server
) -> None:
    module = begin(jobs, start_worker, partitions, session_server.url)

    for task in (module.work, module.awork):
        send(module, session_server.url, task, HANDS[hand](module)).get(timeout=SOON)

    check_idle(module)


@pytest.mark.parametrize("partitions", [1, 4])
def test_what_is_sent_to_a_server_that_was_emptied_runs_soon(
    partitions: int, jobs: Write, start_worker: Start, session_server: Server
) -> None:
    """The lanes wait on: their connections have not broken."""
    module = begin(jobs, start_worker, partitions, session_server.url)
    for keys in module.app.client.partitions.all:
        raw(module, "DEL", *raw(module, "KEYS", keys["*"]))

    results = [task.delay(i) for i in range(3) for task in (module.work, module.awork)]

    assert sorted(result.get(timeout=SOON) for result in results) == [0, 0, 1, 1, 2, 2]


def waiting(module: ModuleType) -> int:
    """How many of the clients that are gone wait for a bell."""
    return sum(b" name=gone " in line and b" flags=b" in line for line in raw(module, "CLIENT", "LIST").splitlines())


def test_tokens_go_to_clients_that_are_gone_and_the_message_runs_soon(
    jobs: Write, start_worker: Start, session_server: Server
) -> None:
    """A machine lost its power: the server takes its clients for alive, and they are the first in the row."""
    module = begin(jobs, start_worker, 1, session_server.url)
    with ExitStack() as stack:
        for bell in words(module, "bell"):
            for _ in range(4):
                gone = stack.enter_context(socket.socket(socket.AF_UNIX))
                gone.connect(str(session_server.socket))
                gone.sendall(pack([b"CLIENT", b"SETNAME", b"gone"]) + pack([b"BLPOP", bell, b"0"]))
        wait_until(lambda: waiting(module) == 8, "they wait")
        for task in (module.work, module.awork):
            task.delay("second").get(timeout=20)

        for task in (module.work, module.awork):
            task.delay("third").get(timeout=SOON)
        assert waiting(module) == 0, "each has taken a token"
