"""The lanes' own fences: what they run, what they say of that, and for whom."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.commands import Batch, QueueSet
from taskq.broker.connection import Connection
from taskq.broker.outcomes import Returned, id_of
from taskq.broker.protocol import boottime, drive
from taskq.execution import Executor
from taskq.worker.loop_lane import LoopLane
from taskq.worker.main_lane import MainLane
from taskq.worker.quota import Quota
from taskq.worker.session import Session
from taskq.worker.slots import CAPACITY, Slot, region_size


class Lane:
    """A lane whose thread is the test's, with one task ``t``."""

    def __init__(
        self,
        app: TaskQ,
        function: Callable[[int], object],
        kind: type[MainLane] | type[LoopLane],
        at_most_once: bool,
    ) -> None:
        self.task = app.task(name="t", at_most_once=at_most_once)(function)
        self.slot = Slot(mmap.mmap(-1, region_size(CAPACITY)), 0, CAPACITY)
        self.slot.clear()
        self.lease = 15.0
        client = app.client

        def began(incarnation: str) -> None:
            self.slot.begin(incarnation, boottime() + self.lease)

        queues = QueueSet.of(["t"])
        self.session = Session(client.keys, queues, b"", 15_000, 60_000, began)
        executor = Executor(app.tasks, app.settings, "worker")
        self.lane = kind(self.session, executor, self.slot, client.url, Quota(None, lambda: None))
        self.connection = Connection(client.url)

    def run(self, calls: int) -> list[bytes]:
        """Take so many calls as one batch and run them; returns the ids that have an outcome."""
        for n in range(calls):
            self.task.delay(n)
        drive(self.session.open(), self.connection)
        batch = drive(self.session.exchange([], want=calls), self.connection)
        assert len(batch.messages) == 2 * calls
        if isinstance(self.lane, MainLane):
            self.lane._run_batch(batch)
        else:
            asyncio.run(self._run_on_a_loop(self.lane, batch))
        return [id_of(outcome) for outcome in self.lane._outcomes]

    async def _run_on_a_loop(self, lane: LoopLane, batch: Batch) -> None:
        lane._changed = asyncio.Event()
        lane._start(batch)
        await asyncio.gather(*lane._running)


@pytest.fixture
def lane(app: TaskQ) -> Callable[..., Lane]:
    def make(
        does: Callable[[int], Any], kind: type[MainLane] | type[LoopLane] = MainLane, at_most_once: bool = False
    ) -> Lane:
        def t(n: int) -> None:
            does(n)

        async def at(n: int) -> None:
            does(n)

        return Lane(app, t if kind is MainLane else at, kind, at_most_once)

    return make


@pytest.mark.parametrize("kind", [MainLane, LoopLane])
def test_nothing_is_started_after_the_lease_was_not_renewed_in_time(
    kind: type[MainLane] | type[LoopLane], lane: Callable[..., Lane]
) -> None:
    """They may be another's already; the lane's next exchange gives them back, or finds out that it cannot."""
    ran: list[int] = []
    made = lane(ran.append, kind)
    made.lease = -1.0

    made.run(3)

    assert ran == []
    assert [type(outcome) for outcome in made.lane._outcomes] == [Returned] * 3


@pytest.mark.parametrize("kind", [MainLane, LoopLane])
def test_what_ran_for_an_incarnation_that_was_lost_meanwhile_has_no_outcome(
    kind: type[MainLane] | type[LoopLane], lane: Callable[..., Lane]
) -> None:
    """A new incarnation began while the task ran: its message is another's by now, or even this one's again."""

    def does(n: int) -> None:
        if n == 1:
            made.session.incarnation = "f" * 16

    made = lane(does, kind)

    assert len(made.run(3)) == 1


def test_the_slot_names_the_one_that_runs(lane: Callable[..., Lane]) -> None:
    seen: list[frozenset[bytes]] = []
    made = lane(lambda n: seen.append(made.slot.entries()))

    ids = made.run(3)

    assert seen == [frozenset([id_]) for id_ in ids]
    assert made.slot.entries() == frozenset()


def test_what_must_not_run_twice_is_settled_before_the_slot_says_that_it_has_ended(lane: Callable[..., Lane]) -> None:
    """Until the server knows its end, a dead child's message would come back as if it had never been started."""
    left: list[int] = []
    made = lane(lambda n: left.append(len(made.session.held)), at_most_once=True)

    made.run(3)

    assert left == [3, 2, 1]
    assert made.session.held == set()
