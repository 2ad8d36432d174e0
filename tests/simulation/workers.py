"""Workers: a parent with its heartbeat, its children, their lanes.

What they decide is decided by taskq's own code. Written here is only what that has threads and processes for: which
call follows which, how long a task runs, who notices a death. The originals are `taskq.worker.parent.supervisor` and
`child`, `main_lane` and `loop_lane` of `taskq.worker.child`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from taskq.broker.commands import awaiting
from taskq.broker.commands.holding import Batch, Lost
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import Now, Protocol, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.config import Settings
from taskq.errors import BrokerError
from taskq.message.outcome import Outcome, Returned
from taskq.runs.delivery import NOWHERE, Delivery, Taken
from taskq.runs.execution import Executor
from taskq.worker.child.main_lane import WAIT
from taskq.worker.child.pace import BATCH, Pace
from taskq.worker.child.session import Session
from taskq.worker.parent.closing import Closer, Closing
from taskq.worker.parent.heartbeat import Heartbeat
from taskq.worker.plan import Plan
from taskq.worker.seats import CAPACITY, Seat, SeatTable
from tests.simulation.actors import LOOP, TASKS
from tests.simulation.world import LEASE, SETTINGS, Die, Idle, Process, Steps, Violation, World

#: After so many seconds of a task, what waits behind it is given back (in a child: by its settler).
_RETURN_AFTER = 0.02
_SLOTS = 3


class Child(Process):
    """A child process: its lanes, and what its parent has told it."""

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(f"{worker.process.name}.{number}", worker.wake)
        self.worker = worker
        self.world = worker.world
        self.number = number
        self.stopping = False
        self.nothing_to_do = False
        self.overdue: set[bytes] = set()
        self.executor = Executor(TASKS, worker.settings, worker.process.name)
        self.seats = worker.seats.of(number)
        for seat in self.seats:
            seat.clear()

    @property
    def gone(self) -> bool:
        """Whether the process has ended, one way or the other."""
        return self.dead or all(actor.ended for actor in self.actors)

    def begin(self) -> None:
        """Start the lanes."""
        if self.number == self.worker.isolation:
            self._thread("solo", self._alone())
            return
        for queues, seat in zip(self.worker.plan.sets, self.seats, strict=False):
            lane = LoopLane(self, queues, seat) if queues is LOOP else MainLane(self, queues, seat)
            self._thread(queues.id, lane.run())

    def _thread(self, name: str, steps: Steps) -> None:
        def until_its_end() -> Steps:
            yield from steps
            self.worker.wake()

        self.world.start(self, name, until_its_end())

    def stop(self) -> None:
        """Tell it to end."""
        self.stopping = True
        for actor in self.actors:
            self.world.interrupt(actor)

    def session(self, queues: QueueSet, seat: Seat, alone: bool = False) -> Session:
        def began(incarnation: str) -> None:
            seat.begin(incarnation, self.world.time + LEASE)

        info, lease = self.name.encode(), int(LEASE * 1000)
        return Session(self.world.keys, queues, info, lease, SETTINGS["result_ttl"], began, alone)

    def deadline(self, delivery: Delivery, seat: Seat, index: int) -> None:
        """Say when a message must have ended that begins now; its parent looks then."""
        if delivery.task.time_limit:
            end = self.world.time + delivery.task.time_limit
            seat.deadline(index, end)
            self.world.at(end + 0.01, self.worker.wake)

    def end(self, delivery: Delivery, how: str) -> Steps:
        """What a task that has run comes to."""
        if how == "die":
            yield Die()
        try:
            value = delivery.task.function(*delivery.args)
        except Exception as error:
            return self.executor.failed(delivery, error)
        return self.executor.succeeded(delivery, value)

    def prepare(self, delivery: Delivery) -> Outcome | None:
        """Read a message that is about to run."""
        self.running.add(delivery.id)
        outcome = self.executor.prepare(delivery)
        if outcome is None:
            self.world.note(self.name, f"runs {delivery.id!r}")
            if delivery.task.at_most_once:
                if delivery.id in self.world.ran_once:
                    raise Violation(f"{delivery.id!r} runs a second time")
                self.world.ran_once.add(delivery.id)
        return outcome

    def _alone(self) -> Steps:
        """The isolated child: one suspect of one set."""
        for queues in self.worker.plan.sets:
            batch, seat = None, self.seats[0]
            session = self.session(queues, seat, alone=True)
            yield from session.open()
            try:
                batch = yield from session.exchange([], want=1)
                self.world.agree(session)
                for delivery in _deliveries(batch):
                    seat.load([delivery.id])
                    seat.memory[seat.index_at] = 0
                    outcome = self.prepare(delivery)
                    if outcome is None:
                        self.deadline(delivery, seat, 0)
                        yield Sleep(delivery.args[-1])
                        outcome = yield from self.end(delivery, delivery.args[-2])
                    seat.deadline(0, 0.0)
                    seat.idle()
                    self.running.clear()
                    yield from session.exchange([outcome])
                    self.world.agree(session)
            except Lost:
                yield from session.open()
            yield from session.close()
            if batch is not None and batch.messages:
                return
        self.nothing_to_do = True


def _deliveries(batch: Batch) -> list[Delivery]:
    taken, words = Taken(batch.now, 0.0, batch.crashes), batch.messages
    return [Delivery(words[i], words[i + 1], taken, i >> 1) for i in range(0, len(words), 2)]


class _Lane:
    """What both kinds of lanes do: exchange outcomes for messages, and begin anew when they were lost."""

    def __init__(self, child: Child, queues: QueueSet, seat: Seat) -> None:
        self.child = child
        self.seat = seat
        self.session = child.session(queues, seat)
        self.outcomes: list[Outcome] = []
        self.caps = ""

    def exchange(self, want: int = 0, wait: float = 0.0) -> Protocol[Batch | None]:
        """Settle and take; answers None if the incarnation was lost."""
        outcomes, self.outcomes = self.outcomes, []
        try:
            batch = yield from self.session.exchange(outcomes, want=want, caps=self.caps, wait=wait)
        except Lost:
            self.outcomes = []
            yield from self.session.open()
            return None
        world = self.child.world
        world.agree(self.session)
        if batch.fenced and self.session.incarnation.encode() not in world.excused:
            raise Violation(f"{self.session.incarnation} spoke of what is not its own")
        return batch

    def ended(self, outcome: Outcome, incarnation: str) -> None:
        """Keep an outcome, unless its message is another's by now."""
        if incarnation == self.session.incarnation:
            self.outcomes.append(outcome)


class MainLane(_Lane):
    """One after the other."""

    last = b""  # the one that ran last, of whose end the server may not know

    def run(self) -> Steps:
        """Take and run messages until told to stop."""
        pace = Pace(task.queue for task in TASKS.values() if task.at_most_once)
        yield from self.session.open()
        wait = 0.0
        while not self.child.stopping:
            self.caps = pace.caps
            if (yield Now()) > self.seat.lease_until:
                yield from self.exchange()
                yield Sleep(0.05)
                continue
            batch = yield from self.exchange(BATCH, wait)
            self._idle()
            wait = WAIT if batch is not None and not batch.messages else 0.0
            if batch is not None and batch.messages:
                yield from self._run_batch(batch, pace)
        yield from self.exchange()
        yield from self.session.close()
        self._idle()

    def _idle(self) -> None:
        """The server knows how the last one ended."""
        self.seat.idle()
        self.child.running -= {self.last}

    def _run_batch(self, batch: Batch, pace: Pace) -> Steps:
        buffer, incarnation = _deliveries(batch), self.session.incarnation
        self.seat.load([delivery.id for delivery in buffer])
        while buffer and not self.child.stopping:
            if (yield Now()) > self.seat.lease_until:
                break
            delivery = buffer.pop(0)
            self.seat.memory[self.seat.index_at] = delivery.index
            self.child.running -= {self.last}
            self.last = delivery.id
            outcome = self.child.prepare(delivery)
            if outcome is None:
                how, seconds = delivery.args[-2:]
                self.child.deadline(delivery, self.seat, delivery.index)
                if seconds > _RETURN_AFTER:
                    yield Sleep(_RETURN_AFTER)
                    self.outcomes += [Returned(left.id) for left in buffer]
                    buffer.clear()
                    yield from self.exchange()
                yield Sleep(seconds)
                outcome = yield from self.child.end(delivery, how)
                self.seat.deadline(delivery.index, 0.0)
                pace.saw(delivery.route.queue, seconds, 1)
            self.ended(outcome, incarnation)
            if delivery.route is not NOWHERE and delivery.task.at_most_once:
                yield from self.exchange()
                self._idle()
        for left in buffer:
            self.ended(Returned(left.id), incarnation)


class LoopLane(_Lane):
    """Several at once."""

    def run(self) -> Steps:
        """Take and run messages until told to stop and nothing runs any more."""
        running: list[tuple[float, int, Delivery, str]] = []
        settled: list[tuple[int, bytes]] = []
        yield from self.session.open()
        while not self.child.stopping or running:
            batch = yield from self.exchange(0 if self.child.stopping else _SLOTS - len(running))
            self._leave(settled)
            for delivery in _deliveries(batch) if batch is not None else ():
                index = self.seat.enter(delivery.id)
                outcome = self.child.prepare(delivery)
                if outcome is not None:
                    settled.append((index, delivery.id))
                    self.outcomes.append(outcome)
                    continue
                self.child.deadline(delivery, self.seat, index)
                running.append(((yield Now()) + delivery.args[-1], index, delivery, self.session.incarnation))
            if running:
                running.sort(key=lambda one: one[:2])
                ends, index, delivery, incarnation = running.pop(0)
                yield Sleep(max(0.0, ends - (yield Now())))
                outcome = yield from self.child.end(delivery, delivery.args[-2])
                self.seat.deadline(index, 0.0)
                settled.append((index, delivery.id))
                self.ended(outcome, incarnation)
            elif batch is not None and not batch.messages and not self.child.stopping:
                yield from self._rest()
        yield from self.exchange()
        self._leave(settled)
        yield from self.session.close()

    def _leave(self, indexes: list[tuple[int, bytes]]) -> None:
        while indexes:
            index, id_ = indexes.pop()
            self.seat.leave(index)
            self.child.running.discard(id_)

    def _rest(self) -> Protocol[None]:
        with suppress(NotSent, Unanswered, Passing):
            yield awaiting.wait_bell(self.session.keys, ["bell:" + self.session.queues.id], WAIT)


class Worker:
    """A parent: its heartbeat, and a thread that starts, watches and buries children."""

    def __init__(self, world: World, name: str, queues: Sequence[QueueSet], children: int) -> None:
        self.world = world
        self.process = Process(name)
        self.isolation = 2 * children
        self.wanted = children
        self.settings = Settings(unknown_after=5.0)
        main, *loop = queues
        none = QueueSet("", ())
        self.plan = Plan("", name, children, _SLOTS, 1.0, False, main, loop[0] if loop else none, none)
        self.seats = SeatTable(self.isolation + 1, [CAPACITY, _SLOTS])
        self.children: dict[int, Child] = {}
        self.stopping = False
        self._suspects = False
        self._closings: list[Closing] = []
        self._closer = Closer(world.keys, "here", Executor(TASKS, self.settings, name))
        seats = [seat for number in range(self.isolation + 1) for seat in self.seats.of(number)]
        for seat in seats:
            seat.clear()
        nowhere = Connection("unix:///nowhere")
        heartbeat = Heartbeat(world.keys, nowhere, self.plan, LEASE, seats, self._on_suspects, lambda _inc, _id: None)
        world.start(self.process, "heartbeat", heartbeat.keep())
        self._tending = world.start(self.process, "", self._tend())

    @property
    def everybody(self) -> list[Process]:
        """The parent and its children, which do not outlive it."""
        return [*self.children.values(), self.process]

    def wake(self) -> None:
        self.world.wake(self._tending)

    def _on_suspects(self) -> None:
        self._suspects = True
        self.wake()

    def stop(self) -> None:
        """Tell it to end."""
        self.stopping = True
        self.wake()

    def _tend(self) -> Steps:
        while True:
            for number, child in list(self.children.items()):
                if child.gone:
                    self._on_exit(number, child)
                elif any(seat.overdue(self.world.time) for seat in child.seats):
                    self._kill_overdue(child)
            yield from self._close_ended()
            if self.stopping:
                for child in self.children.values():
                    if not child.stopping:
                        child.stop()
                if not self.children and not self._closings:
                    break
            else:
                self._start_missing()
            if any(child.gone for child in self.children.values()):
                continue
            yield Sleep(0.2) if self._closings else Idle()
        self.world.kill(self.process)  # and with it the heartbeat

    def _start_missing(self) -> None:
        missing = [number for number in range(self.isolation) if number not in self.children]
        numbers = missing[: self.wanted - sum(number != self.isolation for number in self.children)]
        if self._suspects and self.isolation not in self.children:
            self._suspects = False
            numbers.append(self.isolation)
        for number in numbers:
            self.children[number] = Child(self, number)
            self.children[number].begin()

    def _kill_overdue(self, child: Child) -> None:
        child.overdue.update(late for seat in child.seats for late in seat.overdue(self.world.time))
        self.world.kill(child)

    def _on_exit(self, number: int, child: Child) -> None:
        del self.children[number]
        lanes = [(seat.incarnation, seat.running()) for seat in child.seats if seat.incarnation]
        died = child.dead and not self.stopping and not child.overdue
        child.dead = True
        self._closings.append(Closing(died, lanes, frozenset(child.overdue), "its process was killed"))
        if number == self.isolation:
            self._suspects = self._suspects or not child.nothing_to_do

    def _close_ended(self) -> Steps:
        todo, self._closings = self._closings, []
        for closing in todo:
            try:
                self._suspects = (yield from self._closer.close(closing)) or self._suspects
            except BrokerError:
                self._closings.append(closing)
