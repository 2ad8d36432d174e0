"""The lanes' own fences: what they run, what they say of that, and for whom."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.commands.holding import Batch
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import boottime, drive
from taskq.broker.queue_set import QueueSet
from taskq.calls.task import Task
from taskq.message.outcome import Returned, ids_of
from taskq.runs.execution import Executor
from taskq.worker.child.interrupt import soft_limit_error
from taskq.worker.child.lane import Means
from taskq.worker.child.loop_lane import LoopLane
from taskq.worker.child.main_lane import MainLane
from taskq.worker.child.quota import Quota
from taskq.worker.child.session import Session
from taskq.worker.child.surroundings import Surroundings
from taskq.worker.seats import CAPACITY, Seat, region_size


class Lane:
    """A lane whose thread is the test's, with one task ``t``."""

    def __init__(
        self,
        app: TaskQ,
        function: Callable[[int], object],
        kind: type[MainLane] | type[LoopLane],
        at_most_once: bool,
        **options: Any,
    ) -> None:
        self.task = app.task(name="t", at_most_once=at_most_once, **options)(function)
        self.seat = Seat(mmap.mmap(-1, region_size(CAPACITY)), 0, CAPACITY)
        self.seat.clear()
        self.lease = 15.0
        client = app.client

        def began(incarnation: str) -> None:
            self.seat.begin(incarnation, boottime() + self.lease)

        queues = QueueSet.of(["t"])
        self.session = Session(client.keys, queues, b"", 15_000, 60_000, began)
        executor = Executor(app.tasks, app.settings, "worker")
        means = Means(self.session, executor, self.seat, client.url, Quota(None, lambda: None), Surroundings())
        self.lane = kind(means)
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
        self.connection.close()
        if isinstance(self.lane, MainLane):
            self.lane._connection.close()
        return ids_of(self.lane._outcomes)

    def settle(self) -> None:
        """Tell the server how they ended."""
        if isinstance(self.lane, MainLane):
            self.lane._exchange(self.lane._connection)
            self.lane._connection.close()
        else:
            asyncio.run(self._settle_on_a_loop(self.lane))

    async def _settle_on_a_loop(self, lane: LoopLane) -> None:
        lane._connection = AsyncConnection(lane._url)
        await lane._exchange(0)
        await lane._connection.close()

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
    told: list[object] = []
    made.task.client.hooks.on("success", lambda request, value: told.append(request.id))
    made.lane.executor.hooks, made.lane.executor.told = made.task.client.hooks, True

    assert len(made.run(3)) == 1
    assert len(told) == 1, "nor is a hook told of what counts for nothing"


def test_the_settler_is_awake_while_a_hook_lasts_behind_a_single_message_too(lane: Callable[..., Lane]) -> None:
    """Else nobody would settle that message as long as the hook hangs."""
    made = lane(lambda n: None)
    awake: list[bool] = []
    assert isinstance(made.lane, MainLane)
    work = made.lane._hand.work
    made.task.client.hooks.on("success", lambda request, value: awake.append(work.is_set()))
    made.lane.executor.hooks, made.lane.executor.told = made.task.client.hooks, True

    made.run(1)

    assert awake == [True]


def test_the_slot_names_the_one_that_runs(lane: Callable[..., Lane]) -> None:
    seen: list[frozenset[bytes]] = []
    made = lane(lambda n: seen.append(made.seat.running()))

    ids = made.run(3)

    assert seen == [frozenset([id_]) for id_ in ids]


@pytest.mark.parametrize("kind", [MainLane, LoopLane])
def test_the_slot_names_a_message_from_before_it_is_read(
    kind: type[MainLane] | type[LoopLane], app: TaskQ, lane: Callable[..., Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one makes objects of a user's classes, which may kill the process: the parent must know whom to blame."""
    made = lane(lambda n: None, kind)
    seen: list[frozenset[bytes]] = []
    load = Task.load
    monkeypatch.setattr(Task, "load", lambda *args: seen.append(made.seat.running()) or load(*args))  # type: ignore[func-returns-value]

    ids = made.run(2)

    assert [entries - set(ids[:i]) for i, entries in enumerate(seen)] == [{ids[0]}, {ids[1]}]


@pytest.mark.parametrize("kind", [MainLane, LoopLane])
def test_the_slot_names_a_message_until_the_server_knows_how_it_ended(
    kind: type[MainLane] | type[LoopLane], lane: Callable[..., Lane]
) -> None:
    """What a task left in its process may still kill that, and then it must not seem that it had never begun."""
    made = lane(lambda n: None, kind)

    (id_,) = made.run(1)
    assert made.seat.running() == {id_}

    made.settle()
    assert made.session.held == set()
    assert made.seat.running() == frozenset()


def test_a_limit_that_strikes_when_the_task_has_returned_leaves_no_deadline_behind(
    app: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that is killed for it would take what runs by then along."""
    made = Lane(app, lambda n: None, MainLane, at_most_once=False, soft_time_limit=5.0, time_limit=9.0)
    assert isinstance(made.lane, MainLane)
    interrupt, deadlines = made.lane._here, []

    def deadline(index: int, at: float) -> None:
        deadlines.append(at)
        if not at and interrupt.running is not None:  # the last moment at which the signal can still be heeded
            interrupt._raise(soft_limit_error(5.0))

    monkeypatch.setattr(made.seat, "deadline", deadline)

    made.run(1)

    assert deadlines[-1] == 0.0
    assert isinstance(made.lane._outcomes[0], tuple), "the task has returned, and nobody interrupts what has ended"


def test_a_loop_takes_what_must_not_run_twice_one_at_a_time(lane: Callable[..., Lane]) -> None:
    """What was taken and not yet started when its worker is killed would be given up."""
    made = lane(lambda n: None, LoopLane, at_most_once=True)
    assert isinstance(made.lane, LoopLane)
    made.task.delay_many([0, 1, 2])
    drive(made.session.open(), made.connection)

    batch = drive(made.session.exchange([], want=100, caps=made.lane._pace.caps), made.connection)
    made.connection.close()

    assert len(batch.messages) == 2


def test_what_must_not_run_twice_is_settled_before_the_slot_says_that_it_has_ended(lane: Callable[..., Lane]) -> None:
    """Until the server knows its end, a dead child's message would come back as if it had never been started."""
    left: list[int] = []
    made = lane(lambda n: left.append(len(made.session.held)), at_most_once=True)

    made.run(3)

    assert left == [3, 2, 1]
    assert made.session.held == set()
