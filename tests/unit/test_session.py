"""How an incarnation begins and ends where the server refuses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from taskq.broker.commands.holding import QueueSet
from taskq.broker.faults import NotSent, Passing
from taskq.broker.keys import Keys
from taskq.broker.protocol import Pause, Protocol
from taskq.errors import BrokerRefused
from taskq.worker.child.session import Session

REFUSED = BrokerRefused("no right to ZADD")


def session() -> Session:
    return Session(Keys("app"), QueueSet.of(["q"]), b"", 1000, 1000, lambda _: None, announced=7)


def play(steps: Protocol[Any], replies: Iterable[Any]) -> int:
    """Answer commands in turn; returns how many were asked until the protocol ended."""
    left, asked, reply = iter(replies), 0, None
    while True:
        try:
            step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
        except StopIteration:
            return asked
        reply = None
        if not isinstance(step, Pause):
            asked, reply = asked + 1, next(left)


def test_a_refused_registration_is_tried_on_until_it_is_mended(caplog: pytest.LogCaptureFixture) -> None:
    """One lane that gave up would leave its child half dead: alive, renewed, and deaf on that lane."""
    assert play(session().open(), [NotSent("no"), REFUSED, REFUSED, Passing("LOADING"), REFUSED, True]) == 6
    assert [record.getMessage() for record in caplog.records] == ["no right to ZADD; trying on"]


def test_an_incarnation_waits_until_what_its_worker_announced_is_in_force(caplog: pytest.LogCaptureFixture) -> None:
    assert play(session().open(), [False, False, NotSent("no"), False, True]) == 5
    assert caplog.text.count("the server has lost what limits the tasks") == 1


def test_a_refused_goodbye_keeps_no_process_alive() -> None:
    made = session()
    play(made.open(), [True])

    assert play(made.close(), [REFUSED] * 100) < 100
    assert made.incarnation == ""
