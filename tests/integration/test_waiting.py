"""Waiting for results: pushes that are lost, readers that end, loops that come and go, and why one did not come."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

import pytest

from taskq import ResultTimeout, TaskQ
from taskq.broker.call import Command
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.broker.queue_set import QueueSet
from taskq.calls import inbox
from taskq.errors import BrokerRefused
from taskq.message.codec import pack
from taskq.views.workers import WorkerInfo
from taskq.worker.child.session import Session
from tests.support import each_kind, wait_until

pytestmark = each_kind


def plain(connection: Connection, *words: bytes) -> object:
    return connection.execute(Command(None, words, lambda reply: reply))


def end(keys: Keys, connection: Connection, value: int) -> None:
    """Take the message that waits, and end it with a value."""
    session = Session(keys, QueueSet.of(["add"]), b"", 15_000, 60_000, lambda _: None)
    drive(session.open(), connection)
    batch = drive(session.exchange([], want=1), connection)
    drive(session.exchange([(batch.messages[0], b"S" + pack(value))]), connection)


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_lost_push_costs_a_moment_and_not_for_ever(
    timeout: float | None, app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for whoever waits without a timeout: a paused process finds its inbox expired."""
    monkeypatch.setattr(inbox, "_REREAD", 0.1)
    handle = app.task(name="add")(lambda a: a).delay(1)
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(handle.get(timeout)), daemon=True)
    waiting.start()
    keys, connection = app.client.keys, Connection(app.client.url)
    wait_until(lambda: plain(connection, b"HLEN", keys["waiters"]), "somebody waits")

    # Between the look and the end it may have left word again: then it is told, and nothing is lost.
    plain(connection, b"DEL", keys["waiters"])
    end(keys, connection, 41)

    wait_until(lambda: got, "the result is found")
    assert got == [41]


async def some_waiting(app: TaskQ, keys: Keys, connection: Connection, tasks: list[asyncio.Task[object]]) -> None:
    """Go on when a coroutine has left word with the server and the inbox is read."""
    while not plain(connection, b"HLEN", keys["waiters"]) or app.client.ainbox._reader is None:
        assert not any(task.done() for task in tasks)
        await asyncio.sleep(0.005)


def test_coroutines_that_wait_go_on_after_the_connections_were_closed(app: TaskQ) -> None:
    handle = app.task(name="add")(lambda a: a).delay(1)
    keys, connection = app.client.keys, Connection(app.client.url)

    async def wait() -> list[object]:
        waiting = [asyncio.create_task(handle.aget(timeout)) for timeout in (None, 20)]
        await some_waiting(app, keys, connection, waiting)
        await app.aclose()
        await asyncio.to_thread(end, keys, connection, 41)
        return await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert asyncio.run(wait()) == [41, 41]


def test_coroutines_that_wait_are_told_what_ended_the_reading(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = app.task(name="add")(lambda a: a).delay(1)
    keys, connection = app.client.keys, Connection(app.client.url)

    async def wait() -> list[object]:
        waiting = [asyncio.create_task(handle.aget()) for _ in range(3)]
        await some_waiting(app, keys, connection, waiting)
        plain(connection, b"SET", keys["inbox:" + app.client.ainbox._waiting.name], b"of the wrong type")
        monkeypatch.setattr(inbox, "_REREAD", 0.05)
        while not app.client.ainbox._connection._raw.is_connected:
            await asyncio.sleep(0.005)
        app.client.ainbox._connection._raw._writer.transport.abort()  # it reads again, now
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)

    told = asyncio.run(wait())
    assert [type(error) for error in told] == [BrokerRefused] * 3
    assert len({id(error) for error in told}) == 3


def test_a_coroutine_that_begins_to_wait_while_the_reader_ends_has_another(
    app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_REREAD", 0.2)
    first, second = app.task(name="add")(lambda a: a).delay_many([1, 2])
    keys, connection = app.client.keys, Connection(app.client.url)

    async def wait() -> object:
        waiting = asyncio.create_task(first.aget())
        await some_waiting(app, keys, connection, [waiting])
        ainbox = app.client.ainbox
        closed = ainbox._connection.close
        late: list[asyncio.Task[object]] = []

        async def close() -> None:
            late.append(asyncio.create_task(second.aget(20)))
            while not ainbox._futures.get(second._raw_id):
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            await closed()

        ainbox._connection.close = close  # type: ignore[method-assign]
        await asyncio.to_thread(end, keys, connection, 1)
        assert await waiting == 1
        while not late:
            await asyncio.sleep(0.005)
        ainbox._connection.close = closed  # type: ignore[method-assign]
        await asyncio.to_thread(end, keys, connection, 2)
        return await asyncio.wait_for(late[0], 10)

    assert asyncio.run(wait()) == 2


def test_threads_that_wait_go_on_after_the_connections_were_closed(app: TaskQ) -> None:
    handle = app.task(name="add")(lambda a: a).delay(1)
    keys, connection = app.client.keys, Connection(app.client.url)
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(handle.get(20)), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: plain(connection, b"HLEN", keys["waiters"]), "they wait")

    app.close()
    end(keys, connection, 41)

    wait_until(lambda: got == [41] * 3, "all are told")


def test_a_result_that_does_not_come_in_time_is_told_with_the_reason(
    app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq.calls.result._TO_SAY_WHY", 20.0)
    handle = app.task(name="add")(lambda a: a).delay(1)
    app.pause("add", "the database is moved")

    for wait in (lambda: handle.get(0.05), lambda: asyncio.run(handle.aget(0.05))):
        with pytest.raises(ResultTimeout, match=r"has not ended within 0\.05 s: .*paused.*the database is moved"):
            wait()


def test_loops_that_come_and_go_leave_no_connection(app: TaskQ) -> None:
    add = app.task(name="add")(lambda a: a)

    async def call() -> None:
        handle = await add.adelay(1)
        with pytest.raises(ResultTimeout):
            await handle.aget(0.01)

    def sockets() -> int:
        return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in descriptors())

    def descriptors() -> list[str]:
        return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]

    asyncio.run(call())
    before = sockets()
    for _ in range(20):
        asyncio.run(call())

    assert sockets() <= before


def test_a_loop_closed_without_a_shutdown_is_forgotten_with_the_next(app: TaskQ) -> None:
    add = app.task(name="add")(lambda a: a)
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(add.adelay(1))
        loop.run_until_complete(app.aclose())
        loop.close()

    assert len(app.client._async) == 1


@pytest.mark.parametrize("how", ["get", "aget"])
def test_whoever_waits_for_what_nobody_serves_is_told_once(
    how: str, app: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "_REREAD", 0.05)
    handle = app.task(name="add")(lambda a: a).delay(1)

    def wait() -> object:
        return handle.get(timeout=0.5) if how == "get" else asyncio.run(handle.aget(timeout=0.5))

    with caplog.at_level(logging.WARNING, "taskq"), pytest.raises(ResultTimeout):
        wait()

    told = f"the result of {handle.id} is waited for in vain so far: No live worker serves queue add; start one: "
    assert [record.getMessage()[: len(told)] for record in caplog.records] == [told]


def test_whoever_waits_for_what_is_served_is_told_nothing(
    app: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "_REREAD", 0.05)
    add = app.task(name="add")(lambda a: a)
    waiting, later = add.delay(1), add.apply_async((1,), countdown=60)
    connection = Connection(app.client.url)
    info = WorkerInfo(queues=["add"], tasks={"add": b""}).stored()
    drive(Session(app.client.keys, QueueSet.of(["add"]), info, 15_000, 60_000, lambda _: None).open(), connection)

    for handle in waiting, later:
        with caplog.at_level(logging.WARNING, "taskq"), pytest.raises(ResultTimeout):
            handle.get(timeout=0.3)

    assert caplog.records == []
