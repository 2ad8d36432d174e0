"""Who takes part beside the workers: tasks to call, clients that call them and wait for results, reapers.

What they decide is decided by taskq's own code. Written here is only what that has threads and processes for: which
call follows which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskq.broker.commands import awaiting, producing
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.patience import persist
from taskq.broker.producer import Message, Numbering
from taskq.broker.protocol import Protocol, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.calls.inbox import Answer, Waiting
from taskq.errors import BrokerRefused, BrokerUnavailable, EnqueueUncertain
from taskq.message import codec
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.tasks.definition import Definition
from taskq.tasks.retry_options import RetryOptions
from taskq.upkeep.reaper import Reaper
from tests.simulation.world import LEASE, Actor, Idle, Process, Steps, Violation, World


def _run(self: Any, how: str, seconds: float) -> str:
    if how == "fail" or (how == "flaky" and self.request.retries < 2):
        raise ValueError(how)
    if how == "ask" and not self.request.retries:
        self.retry(countdown=0)
    return how


def _task(name: str, queue: str, **options: Any) -> Definition:
    if not options.get("at_most_once"):
        options["retry"] = RetryOptions(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=1.0)
    return Definition(_run, name=name, queue=queue, bind=True, **options)


#: Queues for the main lane and for the loop lane; one task that must not run twice, one that keeps no dead letter, one
#: that is killed when it takes too long.
TASKS = {
    task.name: task
    for task in (
        _task("plain", "p"),
        _task("limited", "p", time_limit=1.0),
        _task("once", "o", at_most_once=True),
        _task("light", "q", dead_letter=False),
        _task("crowd", "l", time_limit=1.5),
        _task("single", "l", at_most_once=True),
    )
}
MAIN, FEW, LOOP = QueueSet("main", ("o", "p", "q"), " "), QueueSet("few", ("q",)), QueueSet("loop", ("l",))


def message(id_: bytes, task: str, how: str, seconds: float, options: bytes = b"") -> Message:
    """A call of a task that ends in a certain way after some time; of a task nobody knows, if it is called so."""
    definition = TASKS.get(task, TASKS["plain"])
    body = codec.pack_call((how, seconds), {})
    value = encode_head(task, definition.queue, definition.at_most_once)
    return id_, value + encode_envelope(id_, {"sig": definition.fingerprint}, body), options


class Client:
    """A process that sends calls and waits for what becomes of them."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.process = Process(name)
        self.numbering = Numbering(world.keys, "here", seconds=3.0)
        self.waiting = Waiting(world.keys, self._came)
        self.waiting._told = True  # it would ask, for a warning, what the server in memory cannot answer
        self._reader: Actor | None = None
        self.answers: dict[bytes, Answer] = {}
        #: Ids the server is known to have accepted, is known not to have, and is not known to have.
        self.sent: set[bytes] = set()
        self.unsent: set[bytes] = set()
        self.doubtful: set[bytes] = set()

    def _came(self, pairs: Any) -> None:
        self.waiting.put(pairs)
        for actor in self.process.actors:
            self.world.wake(actor)

    def send(self, calls: Sequence[list[Message]], pause: float) -> Steps:
        """Send calls, a few at a time; what is uncertain is repeated with its id."""
        for messages in calls:
            yield Sleep(self.world.chance.expovariate(1 / pause))
            for _ in range(3):
                if (yield from self._send(messages)):
                    break
            ids = [id_ for id_, _, _ in messages if id_ in self.sent]
            if ids and self.world.chance.random() < 0.3:
                self.world.start(self.process, f"waits{len(self.answers)}", self.wait(self.world.chance.choice(ids)))

    def _send(self, messages: list[Message]) -> Protocol[bool]:
        """Send once, as a `Sender` does it: the first try beside the protocol. Answers whether it is over."""
        ids, numbering = {id_ for id_, _, _ in messages}, self.numbering
        numbering.number += 1
        try:
            try:
                if self.world.scripts_lost:
                    raise Passing("the server does not have the script")
                answer = yield producing.enqueue(self.world.keys, numbering.producer, numbering.number, messages)
            except (NotSent, Unanswered, Passing) as failed:
                answer = yield from numbering.send(messages, failed)
        except EnqueueUncertain:
            self.doubtful |= ids
            return False
        except BrokerUnavailable:
            self.unsent |= ids - self.doubtful
            return True
        if b"=" in answer and not ids <= self.doubtful:
            raise Violation(f"{ids} were refused: {answer!r}")
        self.sent |= ids
        return True

    def wait(self, id_: bytes) -> Steps:
        """Wait for a result for as long as it takes."""
        self.waiting.ids[id_] += 1
        self.answers[id_] = 1
        ask = awaiting.await_results(self.world.keys, self.waiting.name, [id_])
        answer = (yield from persist(ask, "here", None))[0]
        if answer == 1:
            if self._reader is None or self._reader.ended:
                self._reader = self.world.start(self.process, "reads", self.waiting.listen(lambda: self.waiting.ids))
            while id_ not in self.waiting.arrived:
                yield Idle()
            answer = self.waiting.arrived[id_]
        self.answers[id_] = answer
        self.waiting.leave(id_)


def reaper(world: World, name: str) -> Actor:
    """Start a reaper of its own, as ``taskq reaper`` does it."""
    one = Reaper(world.keys, name, LEASE, report=lambda _, __: None)

    def steps() -> Steps:
        attempt = 0
        while True:
            try:
                again = yield from one.step()
                yield awaiting.wait_bell(world.keys, ["alarm"], again)
                attempt = 0
            except (NotSent, Unanswered, Passing, BrokerRefused):
                yield Sleep(backoff(attempt, 1.0))
                attempt += 1

    return world.start(Process(name), "", steps())
