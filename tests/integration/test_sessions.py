"""One lane in several partitions: what it settles where, whom it asks next, and what it does when one has lost it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.commands import announcing, holding, leasing, several
from taskq.broker.commands.holding import Batch, Lost, Stale
from taskq.broker.faults import Unanswered
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.broker.queue_set import QueueSet
from taskq.worker.child.session import Session
from taskq.worker.child.sessions import Sessions
from tests.support import Server, new_app, survey, wait_until

#: Of four partitions: a queue in each.
QUEUES = ("q0", "q4", "q1", "q5")
_CAPS = "".join(f" {queue}=64/0.1" for queue in QUEUES) + " "


@pytest.fixture
def app(session_server: Server) -> Iterator[TaskQ]:
    """An app with a task in each partition, which may run once only."""
    made = new_app(session_server.url, partitions=4)
    for queue in QUEUES:
        made.task(name=queue, queue=queue, at_most_once=True)(print)
    for keys in made.client.partitions.all:
        made.client.broker.run(announcing.publish_tasks(keys, [(queue, queue, "") for queue in QUEUES]))
    yield made
    made.close()


class Lane:
    """A lane that is driven by hand."""

    def __init__(self, app: TaskQ) -> None:
        self.connection = Connection(app.client.url)
        self.sent: list[str] = []
        self.sessions = Sessions(app.client.partitions, lambda _incarnation: None, self._new)
        self.run(self.sessions.open())

    def _new(self, keys: Keys) -> Session:
        return Session(keys, QueueSet.of(QUEUES), b"", 60_000, 60_000, lambda _incarnation: None)

    def run(self, steps: object) -> object:
        return drive(steps, self)  # type: ignore[arg-type]

    def execute(self, command: Command[object]) -> object:
        name = command.script.name if command.script else str(command.args[0])
        self.sent.append(("wait+" if command.bells else "") + name)
        return self.connection.execute(command)

    def take(self, *outcomes: tuple[bytes, bytes], wait: float = 0.0, want: int = 64) -> Batch:
        self.sent.clear()
        batch = self.run(self.sessions.exchange(outcomes, want=want, caps=_CAPS, wait=wait))
        assert isinstance(batch, Batch)
        return batch


@pytest.fixture
def lane(app: TaskQ) -> Iterator[Lane]:
    made = Lane(app)
    yield made
    made.connection.close()


def test_what_has_ended_is_settled_where_it_is_held(app: TaskQ, lane: Lane) -> None:
    for queue in QUEUES:
        app.tasks[queue].delay()
    taken = []
    while len(taken) < 4:
        taken += lane.take().messages[::2]

    lane.take(*((raw_id, b"S") for raw_id in taken), want=0)

    assert lane.sent == ["fetch"] * 4
    assert {queue: survey(app)[queue].counters["done"] for queue in QUEUES} == dict.fromkeys(QUEUES, 1)


def test_a_wait_ends_by_any_bell_and_takes_from_there_in_the_same_write(app: TaskQ, lane: Lane) -> None:
    for queue in (*QUEUES, *reversed(QUEUES)):
        app.tasks[queue].delay()

        batch = lane.take(wait=5.0)

        assert len(batch.messages) == 2
        assert lane.sent == ["wait+fetch_any"]
        lane.take((batch.messages[0], b""), want=0)


def alone(app: TaskQ, lane: Lane, queue: str) -> bytes:
    """Take a message that came alone, from a lane that waits."""
    app.tasks[queue].delay()
    return lane.take(wait=5.0).messages[0]


def test_a_message_that_comes_alone_costs_one_write_and_the_next_wait_wherever_it_comes(app: TaskQ, lane: Lane) -> None:
    last = alone(app, lane, "q1")
    for queue in (*QUEUES, *reversed(QUEUES), "q1", "q1"):
        assert not lane.take((last, b""), wait=5.0).messages  # settled; the wait has begun
        assert lane.sent == ["fetch"]
        last = alone(app, lane, queue)
        assert lane.sent == ["wait+fetch_any"]
    lane.take((last, b""), want=0)

    ledger = survey(app)
    assert sum(ledger[queue].counters["done"] for queue in QUEUES) == 11
    assert all(queue.balance == 0 for queue in ledger.values())


def test_a_wait_that_something_else_breaks_off_loses_nothing_that_it_has_taken(app: TaskQ, lane: Lane) -> None:
    lane.take((alone(app, lane, "q1"), b""), wait=5.0)  # the wait has begun
    app.tasks["q5"].delay()
    wait_until(lambda: survey(app)["q5"].processing == 1, "the server has given it to the lane, which does not know")

    batch = lane.take()  # not what it has said that it would ask for

    assert (len(batch.messages), survey(app)["q5"].processing) == (2, 1)
    lane.take((batch.messages[0], b""), want=0)
    assert (survey(app)["q5"].counters["done"], survey(app)["q5"].balance) == (1, 0)


def test_a_wait_whose_answer_is_lost_loses_nothing_that_it_has_taken(app: TaskQ, lane: Lane) -> None:
    lane.take((alone(app, lane, "q1"), b""), wait=5.0)
    app.tasks["q5"].delay()
    wait_until(lambda: survey(app)["q5"].processing == 1, "the server has given it to the lane, which does not know")
    lane.connection.close()

    assert not lane.take(wait=5.0).messages
    batch = lane.take(wait=5.0)

    assert len(batch.messages) == 2
    lane.take((batch.messages[0], b""), want=0)
    assert (survey(app)["q5"].counters["done"], survey(app)["q5"].balance) == (1, 0)


def test_a_wait_takes_nothing_if_what_it_was_sent_with_was_not_executed(app: TaskQ, lane: Lane) -> None:
    app.tasks["q5"].delay()
    partitions, sessions = app.client.partitions, lane.sessions
    command = several.fetch_any(
        [(keys, 9) for keys in partitions.all], sessions.incarnation, want=1, queues=QueueSet.of(QUEUES), caps=_CAPS,
        wait=0.01, bells=sessions.bells, heard=lambda _: None, after=(partitions.all[2], 8),
    )  # fmt: skip

    with pytest.raises(Unanswered, match="broke"):
        lane.connection.execute(command)
    with pytest.raises(Stale):
        lane.connection.execute(replace(command, follows=False))

    assert survey(app)["q5"].pending == 1
    app.client.broker.run(holding.fetch(partitions.all[2], sessions.incarnation, 8, ()))
    which, batch = lane.connection.execute(replace(command, follows=False))
    assert (which, len(batch.messages)) == (3, 2)


def test_after_a_wait_in_vain_one_partition_is_asked_and_after_that_all(app: TaskQ, lane: Lane) -> None:
    assert not lane.take(wait=0.01).messages
    assert lane.sent == ["wait+fetch_any"]

    lane.sessions.rang(None)  # an event loop waits on a connection of its own
    assert not lane.take().messages
    assert lane.sent == ["fetch"]

    lane.take()
    assert len(lane.sent) == 3, "one was asked just now"


def test_one_partition_that_is_never_empty_does_not_keep_the_others_waiting(app: TaskQ, lane: Lane) -> None:
    app.tasks["q0"].delay_many([()] * 500)
    assert lane.take(want=1).messages
    app.tasks["q5"].delay()

    for _ in range(200):
        batch = lane.take(want=1)
        lane.take((batch.messages[0], b""), want=0)
        if survey(app)["q5"].counters.get("done"):
            break

    assert survey(app)["q5"].counters["done"] == 1
    assert survey(app)["q0"].pending


def test_a_lane_that_one_partition_has_lost_settles_in_the_others_and_gives_up_what_it_holds(
    app: TaskQ, lane: Lane
) -> None:
    for queue in QUEUES:
        app.tasks[queue].delay()
    taken: dict[str, bytes] = {}
    while len(taken) < 4:
        raw_id = lane.take().messages[0]
        taken[_queue_of(app, raw_id)] = raw_id
    lost = app.client.partitions.of("q0")
    app.client.broker.run(leasing.close_lost(lost, lane.sessions.incarnation))

    with pytest.raises(Lost):
        lane.take((taken["q0"], b"S"), (taken["q4"], b"S"))
    lane.run(lane.sessions.open())

    ledger = survey(app)
    assert [ledger[queue].counters.get("done", 0) for queue in QUEUES] == [0, 1, 0, 0]
    assert [ledger[queue].dead for queue in QUEUES] == [1, 0, 1, 1], "they run at most once, and may have run"
    assert all(queue.balance == 0 for queue in ledger.values())


def _queue_of(app: TaskQ, raw_id: bytes) -> str:
    return next(queue for queue in QUEUES if app.client.partitions.of(queue) == app.client.partitions.places(raw_id)[0])
