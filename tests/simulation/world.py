"""A world in one process: actors, a network that fails, and time that passes only when nobody has anything to do.

An actor is a generator of the steps of `taskq.broker.protocol`. Whatever is left to chance (who goes on, how long a
call takes, what becomes of it) is drawn from one random source, so a seed is a history. Each call that is executed is
judged at once: the state it leaves by the audit of the model tests, the step by what had been before.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from taskq.broker.call import Command
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Sleep
from taskq.errors import BrokerRefused
from taskq.worker.child.session import Session
from tests.model.audit import unsound, violations
from tests.simulation.server import Model

#: What the server's clock shows in the beginning (ms); the lease in seconds; the limits that scripts go by.
T0, LEASE = 2_000_000_000_000.0, 4.0
DAY = 86_400_000
SETTINGS = {
    "lease": int(LEASE * 1000), "result_ttl": DAY, "dead_ttl": DAY, "dead_max": 1000, "max_crashes": 3,
    "discard_after:light": 6000,
}  # fmt: skip
#: Seconds within which a client is sure to hear that its call broke.
PATIENCE = 5.0
#: Keys that only say when; most calls of the idle change nothing else.
_TIMES = {"pulse", "keeper", "calls", "leases", "set-leases"}


class Violation(AssertionError):
    """Something that must never be the case."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Go on when somebody wakes this actor."""


@dataclass(frozen=True, slots=True)
class Die:
    """End this actor's process at once."""


Steps = Generator[Any, Any, Any]


@dataclass(eq=False)
class Process:
    """What is killed, stopped or cut off as one; ``mourner`` is told of its death by the kernel."""

    name: str
    mourner: Callable[[], object] = lambda: None
    dead: bool = False
    stopped_until: float = 0.0
    cut_until: float = 0.0
    running: set[bytes] = field(default_factory=set)
    actors: list[Actor] = field(default_factory=list)


@dataclass(eq=False)
class Actor:
    """One thread of a process."""

    name: str
    process: Process
    steps: Steps
    ended: bool = False
    idle: bool = False
    woken: bool = False


@dataclass(eq=False)
class Call:
    """A command on its way.

    Attributes:
        answered: Whether its reply gets through.
        refused: Whether that is a refusal, after the fact: an operator has broken something.
        bells: Lists it waits for; the reply to that is dropped if a script follows.
        sent: When it was.
        done: Whether the actor has heard of it.
    """

    actor: Actor
    command: Command[Any]
    answered: bool
    refused: bool = False
    bells: list[str] = field(default_factory=list)
    sent: float = 0.0
    done: bool = False


class Event(NamedTuple):
    """A line of the trace: what happened, and, if the server did something, what it was asked and answered."""

    time: float
    server_ms: float
    who: str
    what: str
    command: Command[Any] | None = None
    reply: Any = None

    def __str__(self) -> str:
        line = f"{self.time:9.4f} {self.who:14} {self.what}"
        if self.command is not None:
            words = [repr(word)[2:-1] if type(word) is bytes else str(word) for word in self.command.args]
            # What a session holds is a set, and a set has no order.
            words = sorted(words) if self.command.script and self.command.script.name == "sync" else words
            line += f" {' '.join(words)[:400]} -> {self.reply!r:.400}"
        return line


class World:
    """The scheduler, the network, the server.

    Attributes:
        chance: Where all decisions come from.
        time: Seconds since the beginning, the same for every process.
        skew: By how many ms the server's clock is ahead of that.
        rate: How likely a call is to meet a fault.
        away_until: Until when the server does not answer.
        scripts_lost: Whether a first try finds that the server does not have its script.
        clear: Whether nothing ever comes between processes and the server.
        blocked: Calls that wait on the server.
        passing: Keys that have ever been given a time to expire.
        accepted, ended, ran_once: Ids to which that has happened.
        owners: Whose an incarnation is.
        excused: Incarnations whose outcomes may be refused: they were recovered, or a call of theirs was half executed.
    """

    def __init__(self, seed: int, tell: Callable[[Event], object] = lambda _: None) -> None:
        """Begin; ``tell`` is told each line of the trace."""
        self.chance = random.Random(seed)
        self.keys = Keys(f"simulated{seed}")
        self.model = Model(self.keys.prefix)
        self.time = 0.0
        self.skew = T0
        self.rate = 0.0
        self.away_until = 0.0
        self.scripts_lost = False
        self.clear = False
        self.trace: list[Event] = []
        self._tell = tell
        self.accepted: set[bytes] = set()
        self.ended: set[bytes] = set()
        self.ran_once: set[bytes] = set()
        self.passing: dict[str, float] = {}
        self.excused: set[bytes] = set()
        self.owners: dict[str, Process] = {}
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self.blocked: list[Call] = []
        self.seen = self.model.look()
        settings = [word for pair in SETTINGS.items() for word in pair]
        published = Command(None, [b"HSET", self.keys["settings"], *settings], lambda reply: reply)
        self._execute(None, published)

    # -- time and actors ----------------------------------------------------------------------------------

    def at(self, time: float, act: Callable[[], object]) -> None:
        """Do something at that time."""
        heapq.heappush(self._agenda, (time, next(self._order), act))

    def run(self, until: Callable[[], object], seconds: float, what: str) -> None:
        """Let time pass until something is the case, which must be so within some seconds."""
        deadline = self.time + seconds
        while not until():
            time, _, act = heapq.heappop(self._agenda)
            if time > deadline:
                raise Violation(f"not within {seconds:g} s: {what}")
            self.time = time
            act()

    def note(self, who: str, what: str, command: Command[Any] | None = None, reply: Any = None) -> None:
        """Add a line to the trace."""
        event = Event(self.time, self.skew + self.time * 1000, who, what, command, reply)
        self.trace.append(event)
        self._tell(event)

    def start(self, process: Process, name: str, steps: Steps) -> Actor:
        """Begin a thread of a process."""
        actor = Actor(f"{process.name}.{name}" if name else process.name, process, steps)
        process.actors.append(actor)
        self.at(self.time + self._moment(), lambda: self._go_on(actor))
        return actor

    def wake(self, actor: Actor) -> None:
        """Let an idle actor go on; if it is not idle, it will not be when it comes to that."""
        actor.woken = not actor.idle
        if actor.idle:
            actor.idle = False
            self.at(self.time + self._moment(), lambda: self._go_on(actor))

    def kill(self, *processes: Process) -> None:
        """End processes at once. The server notices, and what was sent arrives all the same."""
        for process in processes:
            if not process.dead:
                self.note(process.name, "dies")
                process.dead = True
                self.at(self.time + self._moment(), process.mourner)
                self.blocked = [call for call in self.blocked if call.actor.process is not process]

    def interrupt(self, actor: Actor) -> None:
        """Close the connection on which an actor waits for a bell, if it does."""
        for call in [call for call in self.blocked if call.actor is actor]:
            self.blocked.remove(call)
            self._answer(call, error=Unanswered("closed"))

    def _moment(self) -> float:
        """A short time: mostly well below a millisecond; at times more, and much more where calls meet faults."""
        if self.chance.random() < 0.95:
            return self.chance.expovariate(2000)
        return self.chance.expovariate(10 if self.rate else 100)

    def _go_on(self, actor: Actor, value: Any = None, error: Exception | None = None) -> None:
        process = actor.process
        if process.dead or actor.ended:
            return
        if process.stopped_until > self.time:
            self.at(process.stopped_until + self._moment(), lambda: self._go_on(actor, value, error))
            return
        try:
            step = actor.steps.send(value) if error is None else actor.steps.throw(error)
            while isinstance(step, Now):
                step = actor.steps.send(self.time)
        except StopIteration:
            actor.ended = True
            return
        if isinstance(step, Command):
            self._call(actor, step)
        elif isinstance(step, Sleep):
            self.at(self.time + step.seconds, lambda: self._go_on(actor))
        elif isinstance(step, Die):
            self.kill(process)
        else:
            actor.idle = True
            if actor.woken:
                self.wake(actor)

    # -- the network --------------------------------------------------------------------------------------

    def _fate(self, actor: Actor) -> str:
        if max(self.away_until, actor.process.cut_until) > self.time:
            return self.chance.choice(["away", "away", "before"])
        if self.chance.random() >= self.rate:
            return ""
        return self.chance.choice(["away", "before", "late", "after", "after", "passing", "refused"])

    def _call(self, actor: Actor, command: Command[Any]) -> None:
        fate, there = self._fate(actor), self.time + self._moment()
        if fate == "late" and command.script is None:
            fate = "before"  # nobody numbers a plain command
        if fate == "refused" and not (command.script and command.script.name == "fetch"):
            fate = "passing"
        call = Call(actor, command, answered=fate in ("", "refused"), refused=fate == "refused", sent=self.time)
        if command.bells is not None or command.args[0] == b"BLPOP":  # for no time at all, perhaps
            bells = command.bells if command.bells is not None else command.args[1:-1]
            call.bells = [bell[len(self.keys.prefix) :].decode() for bell in bells]  # type: ignore[index, union-attr]
        if fate in ("away", "passing"):
            error = NotSent(fate) if fate == "away" else Passing(fate)
            self.at(there, lambda: self._answer(call, error=error))
            return
        if fate in ("before", "late"):
            self._break(call, fate)
        if fate == "late":
            late = there + self.chance.expovariate(1 / LEASE)
            self.at(late, lambda: self._finish(call))
        elif fate != "before":
            self.at(there, lambda: self._arrive(call))

    def _break(self, call: Call, why: str) -> None:
        """Let a client hear, soon or late, that its connection broke."""
        self.note(call.actor.name, f"will not hear of its call ({why})")
        soon = self.chance.random() < 0.7
        latest = max(self.time, call.sent + PATIENCE + call.command.block)
        heard = self.time + self._moment() if soon else self.chance.uniform(self.time, latest)
        self.at(heard, lambda: self._answer(call, error=Unanswered(why)))

    def _answer(self, call: Call, reply: Any = None, error: Exception | None = None) -> None:
        if call.done:
            return
        call.done = True
        if error is None:
            try:
                reply = call.command.parse(reply)
            except Exception as said:  # Lost, Stale
                error = said
        self._go_on(call.actor, reply, error)

    def _arrive(self, call: Call) -> None:
        """A call has come to the server: it is executed, or waits first."""
        if not call.bells:
            self._finish(call)
            return
        self.blocked.append(call)
        self.at(self.time + call.command.block, lambda: self._stop_waiting(call, None))
        self._serve()

    def _serve(self) -> None:
        """Who waits for a list that has something gets it, the first first."""
        for call in list(self.blocked):
            for name in call.bells:
                if self.model.lists.get(name):
                    key = self.keys[name]
                    popped = self._execute(call.actor, Command(None, [b"LPOP", key], lambda reply: reply))
                    self._stop_waiting(call, [key, popped])
                    break

    def _stop_waiting(self, call: Call, reply: Any) -> None:
        if call not in self.blocked:
            return
        self.blocked.remove(call)
        if call.command.script is not None:
            self.at(self.time + self._moment() / 10, lambda: self._finish(call))
        else:
            self._reply(call, reply)

    def _finish(self, call: Call) -> None:
        """Execute a call whose waiting, if any, is over."""
        try:
            reply = self._execute(call.actor, call.command)
            if call.refused:
                self.excused.add(str(call.command.args[1]).encode())
                raise BrokerRefused("half-way")
        except BrokerRefused as error:
            self._reply(call, error=error)
        else:
            self._reply(call, reply)
        self._serve()

    def _reply(self, call: Call, reply: Any = None, error: Exception | None = None) -> None:
        if call.answered and call.actor.process.cut_until <= self.time:
            self.at(self.time + self._moment(), lambda: self._answer(call, reply, error))
        elif not call.done:
            self._break(call, "after")

    # -- the server ---------------------------------------------------------------------------------------

    def _execute(self, actor: Actor | None, command: Command[Any]) -> Any:
        """Let the server execute a command, and judge what it did."""
        who = "" if actor is None else actor.name
        self.model.now = self.skew + self.time * 1000
        for name in self.model.expire():
            gone = Command(None, [b"DEL", self.keys[name]], lambda reply: reply)
            self.note("server", "forgets", gone, 1)
            self.seen = self.model.look()
        what = command.script.name if command.script else "does"
        leases = self.model.scores["leases"].copy()
        if actor is not None and what in ("register", "close"):
            self._own(actor.process, what, *map(str, command.args[1:4]))
        try:
            reply = self.model.execute(command)
        except BrokerRefused as error:
            self.note(who, what, command, error)
            raise
        self.note(who, what, command, reply)
        self._judge(what, reply, leases)
        return reply

    def _own(self, process: Process, what: str, inc: str, how: str, alone: str) -> None:
        """An incarnation is closed by its own process, or when that is gone; only one that ran alone is to blame."""
        if what == "register":
            self.owners[inc] = process
        owner = self.owners.get(inc)
        if owner is None:
            return  # it died before the server had heard of it
        if owner is not process and not owner.dead:
            raise Violation(f"{inc} is closed while its process lives")
        if (what, how, alone) == ("close", "died", "1") and len(owner.running) != 1:
            raise Violation(f"one of {owner.running} is blamed")

    def agree(self, session: Session) -> None:
        """A session that has its answer and the server think alike about what it holds, unless it was taken from it."""
        inc = session.incarnation
        if inc.encode() not in self.model.hashes["calls"]:
            return
        held = set(self.model.hashes["processing:" + inc])
        if held != session.held:
            raise Violation(f"{inc} holds {sorted(held)}, its session thinks {sorted(session.held)}")

    def _judge(self, what: str, reply: Any, leases: dict[bytes, float]) -> None:
        self.passing |= self.model.expires
        if not self.model.differs(self.seen, but=_TIMES):
            return
        before, after = self.seen, self.model.look()
        self.seen = after
        wrong = [*violations(after), *unsound(before, after)]
        if reply in ([b"lost"], [b"stale"]):
            wrong.append("refused, and changed something all the same")
        was, is_ = before.table("messages").keys(), after.table("messages").keys()
        wrong += [f"{id_!r} is accepted again" for id_ in (is_ - was) & self.accepted]
        wrong += [f"{id_!r} ends again" for id_ in (was - is_) & self.ended]
        self.accepted |= is_ - was
        self.ended |= was - is_
        gone = leases.keys() - after.table("leases").keys()
        self.excused |= gone
        for inc in gone:
            if what == "reap" and leases[inc] > round(self.model.now):
                wrong.append(f"{inc!r} is reaped {leases[inc] - self.model.now:.0f} ms before its lease ends")
            if what == "reap" and self.clear and not self.owners[inc.decode()].dead:
                wrong.append(f"{inc!r} is reaped, and lives")
        if wrong:
            raise Violation("\n".join(wrong))


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """What the product draws by itself, ids and jitter, follows from the seed as well; and it logs nothing."""
    state = random.getstate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", random.Random(seed).randbytes)
        random.seed(seed)
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            random.setstate(state)
