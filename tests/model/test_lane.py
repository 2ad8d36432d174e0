"""The main lane's own fences: what it runs, what it says of that, and for whom."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.commands import QueueSet
from taskq.broker.connection import Connection
from taskq.broker.outcomes import Returned, id_of
from taskq.broker.protocol import boottime, drive
from taskq.execution import Executor
from taskq.worker.main_lane import MainLane
from taskq.worker.quota import Quota
from taskq.worker.session import Session
from taskq.worker.slots import CAPACITY, Slot, region_size


class Lane:
    """A main lane whose thread is the test's, with one task ``t`` that does what the test says."""

    def __init__(self, app: TaskQ, does: Callable[[int], object], at_most_once: bool) -> None:
        self.task = app.task(name="t", at_most_once=at_most_once)(does)
        self.slot = Slot(mmap.mmap(-1, region_size(CAPACITY)), 0, CAPACITY)
        self.slot.clear()
        self.lease = 15.0
        client = app.client

        def began(incarnation: str) -> None:
            self.slot.begin(incarnation, boottime() + self.lease)

        queues = QueueSet.of(["t"])
        self.session = Session(client.keys, queues, b"", 15_000, 60_000, began)
        executor = Executor(app.tasks, app.settings, "worker")
        self.lane = MainLane(self.session, executor, self.slot, client.url, Quota(None, lambda: None))
        self.connection = Connection(client.url)

    def run(self, calls: int) -> list[bytes]:
        """Take so many calls as one batch and run them; returns the ids that have an outcome."""
        for n in range(calls):
            self.task.delay(n)
        drive(self.session.open(), self.connection)
        batch = drive(self.session.exchange([], want=calls), self.connection)
        assert len(batch.messages) == 2 * calls
        self.lane._run_batch(batch)
        return [id_of(outcome) for outcome in self.lane._outcomes]


@pytest.fixture
def lane(app: TaskQ) -> Callable[..., Lane]:
    def make(does: Callable[[int], Any], at_most_once: bool = False) -> Lane:
        def t(n: int) -> None:
            does(n)

        return Lane(app, t, at_most_once)

    return make


def test_nothing_is_started_after_the_lease_was_not_renewed_in_time(lane: Callable[..., Lane]) -> None:
    """They may be another's already; the lane's next exchange gives them back, or finds out that it cannot."""
    ran: list[int] = []
    made = lane(ran.append)
    made.lease = -1.0

    made.run(3)

    assert (ran, list(made.lane._buffer)) == ([], [])
    assert [type(outcome) for outcome in made.lane._outcomes] == [Returned] * 3


def test_what_ran_for_an_incarnation_that_was_lost_meanwhile_has_no_outcome(lane: Callable[..., Lane]) -> None:
    """The settler began a new incarnation while the task ran: its message is another's by now."""

    def does(n: int) -> None:
        if n == 1:
            made.session.incarnation = "f" * 16

    made = lane(does)

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
