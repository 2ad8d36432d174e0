"""How an incarnation begins and ends where the server refuses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.commands.holding import Batch
from taskq.broker.faults import NotSent, Passing
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol, Sleep
from taskq.broker.queue_set import QueueSet
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
        if not isinstance(step, Sleep):
            asked, reply = asked + 1, next(left)


def test_a_refused_registration_is_tried_on_until_it_is_mended(caplog: pytest.LogCaptureFixture) -> None:
    """One lane that gave up would leave its child half dead: alive, renewed, and deaf on that lane."""
    assert play(session().open(), [NotSent("no"), REFUSED, REFUSED, Passing("LOADING"), REFUSED, True]) == 6
    assert [record.getMessage() for record in caplog.records] == ["no right to ZADD; retrying"]


def test_an_incarnation_waits_until_what_its_worker_announced_is_in_force(caplog: pytest.LogCaptureFixture) -> None:
    assert play(session().open(), [False, False, NotSent("no"), False, True]) == 5
    assert caplog.text.count("the server has lost what limits the tasks") == 1


def test_a_refused_goodbye_keeps_no_process_alive() -> None:
    made = session()
    play(made.open(), [True])

    assert play(made.close(), [REFUSED] * 100) < 100
    assert made.incarnation == ""


def batch(number: int) -> Batch:
    return Batch(number, 0, 0, [])


def begun() -> Session:
    made = session()
    play(made.open(), [True])
    return made


def calls(steps: Protocol[Any], *replies: Any) -> list[Command[Any]]:
    """Answer commands in turn; returns them."""
    made: list[Command[Any]] = []
    left, reply = iter(replies), None
    while True:
        try:
            step = steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply)
        except StopIteration:
            return made
        reply = None
        if not isinstance(step, Sleep):
            assert isinstance(step, Command)
            made.append(step)
            reply = next(left)


DONE = [(b"0123456789abcdef", b"")]


def test_what_ended_is_settled_and_the_wait_for_more_goes_along() -> None:
    made = begun()

    (settle,) = calls(made.exchange(DONE, want=1, wait=4.0), batch(1))
    (take,) = calls(made.exchange([], want=1, wait=4.0), batch(2))

    assert take is settle.ahead
    assert (settle.bells, settle.args[2]) == (None, 1)
    assert (take.bells, take.args[2]) == ((made.keys["bell:" + made.queues.id],), 2)


def test_a_wait_that_went_along_and_is_not_waited_for_is_made_sure_of() -> None:
    """It may have taken something: whoever says nothing of it would hold that for ever."""
    made = begun()
    calls(made.exchange(DONE, want=1, wait=4.0), batch(1))

    sync, fetch = calls(made.exchange([], want=1), (True, []), batch(3))

    assert sync.script is not None
    assert (sync.script.name, fetch.ahead, fetch.bells) == ("sync", None, None)
    assert not made.doubtful


@pytest.mark.parametrize("trouble", [NotSent("no"), Passing("no script")])
def test_after_a_failed_try_nothing_goes_along(trouble: Exception) -> None:
    made = begun()

    first, *more, last = calls(
        made.exchange(DONE, want=1, wait=4.0), trouble, *([(False, [])] * isinstance(trouble, NotSent)), batch(2)
    )

    assert first.ahead is not None
    assert [call.script.name for call in more if call.script] == ["sync"] * isinstance(trouble, NotSent)
    assert (last.ahead, last.bells, last.args[3]) == (None, None, 1)
    (following,) = calls(made.exchange([], want=1, wait=4.0), batch(3))
    assert following is not first.ahead
