"""Waiting for a result that was pushed, and got lost on its way."""

from __future__ import annotations

import asyncio
import logging
import threading

import msgpack
import pytest

from taskq import ResultTimeout, TaskQ, inbox
from taskq.broker.commands import Command, QueueSet
from taskq.broker.connection import Connection
from taskq.broker.keys import Keys
from taskq.broker.protocol import drive
from taskq.codec import pack
from taskq.worker.session import Session
from tests.support import wait_until


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
    info = bytes(msgpack.packb({"queues": ["add"], "tasks": ["add"]}))
    drive(Session(app.client.keys, QueueSet.of(["add"]), info, 15_000, 60_000, lambda _: None).open(), connection)

    for handle in waiting, later:
        with caplog.at_level(logging.WARNING, "taskq"), pytest.raises(ResultTimeout):
            handle.get(timeout=0.3)

    assert caplog.records == []
