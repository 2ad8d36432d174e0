"""The upkeep's thread: in nobody's way, and not ended by what it finds."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import Now, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.upkeep import housekeeping
from taskq.upkeep.housekeeping import Upkeep
from taskq.worker.parent.heartbeat import Heartbeat
from taskq.worker.plan import Plan
from tests.support import wait_until

NONE = QueueSet("", ())


@pytest.fixture
def line(app: TaskQ) -> Iterator[Connection]:
    made = Connection(app.client.url)
    yield made
    made.close()


def raw(line: Connection, *words: bytes | str) -> object:
    return line.execute(Command(None, words, lambda reply: reply))


def test_it_outlives_bad_data_and_says_once_what_is_wrong(
    app: TaskQ, line: Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "_EVERY", 1.02)
    keys = app.client.keys
    raw(line, "SET", keys["counters"], "an operator's hand")
    thread = Upkeep(keys, Connection(app.client.url))
    with caplog.at_level(logging.ERROR, "taskq.upkeep"):
        thread.start()
        wait_until(lambda: len(caplog.records) >= 1, "a line in the log")
    raw(line, "DEL", keys["counters"])
    raw(line, "HSET", keys["messages"], b"\x01" * 16, b"no head")

    wait_until(lambda: raw(line, "ZCARD", keys["dead:unreadable"]) == 1, "the next audit")
    assert len([record for record in caplog.records if record.name == "taskq.upkeep"]) == 1
    thread.end()
    thread.join(5)
    assert not thread.is_alive()


def test_a_heartbeat_asks_for_nothing_that_an_audit_does(app: TaskQ, line: Connection) -> None:
    plan = Plan("jobs", "worker", 1, 1, 1.0, False, QueueSet.of(["t"]), NONE, NONE)
    heartbeat = Heartbeat(app.client.keys, line, plan, 3.0, [], lambda: None, lambda incarnation, id_: None)
    steps = heartbeat.keep()
    asked, step, now = set(), next(steps), 0.0
    while now < 200:  # three minutes
        if isinstance(step, Now):
            step = steps.send(now)
        elif isinstance(step, Sleep):
            now += step.seconds + 0.01
            step = steps.send(None)
        elif step.block:
            now += step.block
            step = steps.send(None)
        else:
            asked.add(step.script.name if step.script else step.args[0])
            step = steps.send(line.execute(step))

    assert "renew" in asked
    assert not asked & {"audit", "tally", "mend", "ledger", "survey", "retire", "scan", "restore", b"HSCAN"}
