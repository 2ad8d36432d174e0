"""Carrying out the faults of a plan, and noting down whom each hit and what they held."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from taskq.broker.call import Arg, Command
from taskq.broker.commands import leasing, looking
from taskq.broker.net.embedded import EmbeddedServer
from taskq.broker.pool import Broker
from taskq.errors import BrokerRefused
from taskq.message.ids import id_to_text
from taskq.showcase.evidence import Fault
from taskq.showcase.trouble import Kind, Step
from taskq.showcase.workers import Incarnation, Worker, incarnations, stop_one_that_holds, wait_until_stopped

T = TypeVar("T")

#: Seconds between two rounds of cutting connections.
_CUT_EVERY = 0.03


def choose(candidates: Sequence[T], pick: float) -> list[T]:
    """Return the candidates in turn from the one that ``pick`` (0 up to 1) falls on."""
    first = int(pick * len(candidates))
    return [*candidates[first:], *candidates[:first]]


class Saboteur:
    """Breaks workers, connections and the server, and keeps as many workers going as there were.

    Attributes:
        wanted: How many workers there are to be.
        workers: Those that there are now.
        faults: What was broken so far.
    """

    def __init__(
        self, broker: Broker, client: str, server: EmbeddedServer | None, start: Callable[[], Worker], workers: int
    ) -> None:
        """Prepare.

        Args:
            broker: The way to the server.
            client: The name that the connections to be cut have on the server.
            server: The server, if it may be killed.
            start: Starts another worker.
            workers: How many there are to be.
        """
        self.broker = broker
        self.faults: list[Fault] = []
        self.workers: list[Worker] = []
        self._client = client
        self._server = server
        self._start = start
        self.wanted = workers
        self._killed: set[int] = set()
        self._stopped: set[str] = set()
        #: What earlier faults have still to do, and when (monotonic seconds).
        self._later: list[tuple[float, Callable[[], None]]] = []

    @property
    def kinds(self) -> list[Kind]:
        """What can be broken here."""
        impossible = set() if self._server else {Kind.SERVER}
        if sys.platform != "linux":  # elsewhere children outlive their parent by a moment, in which they work on
            impossible.add(Kind.PARENT)
        return [kind for kind in Kind if kind not in impossible]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is stopped or away any more."""
        return not self._later

    def tend(self) -> None:
        """Replace the workers that were killed, and end the faults whose time is over.

        Raises:
            ShowFailed: A worker ended by itself.
        """
        while len(self.workers) < self.wanted:
            self.workers.append(self._start())
        due = [later for later in self._later if later[0] <= time.monotonic()]
        for later in due:
            self._later.remove(later)
            later[1]()
        for worker in self.workers:
            worker.check()

    def stop(self) -> None:
        """Stop the workers, gently."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.stop()

    def kill(self) -> None:
        """Kill whatever is left of them."""
        for worker in self.workers:
            worker.kill()

    def at_work(self) -> dict[Worker, list[Incarnation]]:
        """Return the workers that can be hit, each with its children: not those that only start, or are stopped."""
        children: dict[str, list[Incarnation]] = {}
        for child in sorted(incarnations(self.broker), key=lambda child: child.pid):
            if child.pid not in self._killed:
                children.setdefault(child.worker, []).append(child)
        going = [worker for worker in self.workers if worker.name not in self._stopped]
        return {worker: children[worker.name] for worker in going if worker.name in children}

    # -- faults ------------------------------------------------------------------------------------------

    def carry_out(self, step: Step) -> Fault | None:
        """Do it, and return what was done; None if it must wait.

        It waits for the server and its connections, for a child that holds a mail, and for a second worker: one has to
        be left to recover what the other held.
        """
        if any(fault.ended == math.inf and fault.kind is not Kind.STOP for fault in self.faults):
            return None
        at_work = self.at_work()
        if len(at_work) < 2:
            return None
        match step.kind:
            case Kind.CHILD:
                fault = self._kill_child([child for children in at_work.values() for child in children], step)
            case Kind.CUT:
                fault = self._cut(at_work, step)
            case Kind.SERVER:
                fault = self._kill_server(at_work, step)
            case _:
                fault = self._hit_worker(choose(list(at_work), step.pick)[0], step)
        if fault is not None:
            self.faults.append(fault)
        return fault

    def _held(self, children: Iterable[Incarnation]) -> frozenset[str]:
        """Return what stopped children hold."""
        self.broker.run(looking.server_time())  # what they had sent before is executed by the time this is answered
        ids = [raw_id for child in children for raw_id in self.broker.run(leasing.held_ids(self.broker.keys, child.id))]
        return frozenset(map(id_to_text, ids))

    def _kill_child(self, children: Sequence[Incarnation], step: Step) -> Fault | None:
        caught = stop_one_that_holds(self.broker, choose(children, step.pick))
        if caught is None:
            return None
        child, held = caught[0], self._held([caught[0]])
        began = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        self._killed.add(child.pid)
        what = f"process {child.pid} of {child.worker}{', which runs a suspect' if child.alone else ''}, {_mails(held)}"
        return Fault(step.kind, what, began, began, frozenset([child.pid]), held)

    def _hit_worker(self, worker: Worker, step: Step) -> Fault:
        began = time.monotonic()
        worker.signal(signal.SIGSTOP)  # so that what it holds now is what it holds when it dies
        children = [child for child in incarnations(self.broker) if child.worker == worker.name]
        pids = frozenset(child.pid for child in children)
        wait_until_stopped([worker.process.pid, *pids])
        held = self._held(children)
        fault = Fault(step.kind, f"{worker.name}, {_mails(held)}", began, began, pids, held)
        if step.kind is Kind.STOP:
            fault.what += f", for {step.seconds:.1f} s"
            self._stop(worker, fault, step.seconds)
            return fault
        self._killed |= pids
        self.workers.remove(worker)
        if step.kind is Kind.PARENT:
            worker.process.kill()
            worker.process.wait()  # by then the kernel has killed its children as well
        worker.kill()
        return fault

    def _stop(self, worker: Worker, fault: Fault, seconds: float) -> None:
        def go_on() -> None:
            fault.ended = time.monotonic()
            worker.signal(signal.SIGCONT)
            self._stopped.remove(worker.name)

        fault.ended = math.inf
        self._stopped.add(worker.name)
        self._later.append((fault.began + seconds, go_on))

    def _cut(self, at_work: dict[Worker, list[Incarnation]], step: Step) -> Fault:
        began = time.monotonic()
        what = f"all {self._cut_all()}, again and again for {step.seconds:.1f} s"
        fault = Fault(step.kind, what, began, math.inf, awaited=_main_children(at_work))

        def cut_again() -> None:
            self._cut_all()
            now = time.monotonic()
            if now < began + step.seconds:
                self._later.append((now + _CUT_EVERY, cut_again))
            else:
                fault.ended = now

        self._later.append((began + _CUT_EVERY, cut_again))
        return fault

    def _cut_all(self) -> int:
        """Cut every connection of this show; returns how many there were."""
        clients: bytes = self.broker.run(Command(None, [b"CLIENT", b"LIST"], lambda reply: reply))
        numbers = re.findall(rb"^id=(\d+) .* name=%s " % self._client.encode(), clients, re.MULTILINE)
        for number in numbers:
            try:
                self.broker.run(Command(None, [b"CLIENT", b"KILL", b"ID", number], lambda reply: reply))
            except BrokerRefused as error:
                if "No such client" not in str(error):  # it has gone by itself
                    raise
        return len(numbers)

    def _kill_server(self, at_work: dict[Worker, list[Incarnation]], step: Step) -> Fault:
        server, began = self._server, time.monotonic()
        assert server is not None, "it is in no plan"
        found = re.search(rb"process_id:(\d+)", self.broker.run(looking.server_info()))
        assert found is not None
        pid = int(found[1])
        what = f"process {pid}, away for {step.seconds:.1f} s"
        fault = Fault(step.kind, what, began, math.inf, awaited=_main_children(at_work))

        def come_back() -> None:
            start_server(server, self.broker)
            fault.ended = time.monotonic()

        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        self._later.append((began + step.seconds, come_back))
        return fault


def start_server(server: EmbeddedServer, broker: Broker) -> None:
    """Start the embedded server, with each write on the disk before it is answered.

    Otherwise a kill can cost what a slow disk made the server put off; that would be a test of the disk.
    """
    server.join()
    words: list[Arg] = [b"CONFIG", b"SET", b"appendfsync", b"always"]
    broker.run(Command(None, words, lambda reply: reply))


def _main_children(at_work: dict[Worker, list[Incarnation]]) -> frozenset[int]:
    return frozenset(child.pid for children in at_work.values() for child in children if not child.alone)


def _mails(held: frozenset[str]) -> str:
    return f"{len(held)} {'mail' if len(held) == 1 else 'mails'} in hand"
