"""Every feature beside every other, in any order of events: a state machine of what an onlooker may count on.

Messages of every kind wait in their own queues and in one they were sent to by ``queue=``. Workers with leases of two
lengths take them, die, are cut off, lose replies. Tasks and queues are paused, limited by hand, revoked. The upkeep
goes on between all of it, and the server may be emptied.

`Fleet` audits the state after each call. Here is what must hold of what runs, and that **all of it ends**: when
everybody is well again, whatever can run does, within bounded steps, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from taskq.broker.call import Command
from taskq.broker.commands import announcing, holding, keeping, leasing, producing, steering
from taskq.broker.commands.holding import Batch, Lost, Stale
from taskq.broker.commands.outcomes import words
from taskq.broker.protocol import Now, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown, ids_of
from taskq.upkeep.housekeeping import upkeep
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import MINUTE, World, raw_id
from tests.support import PHASES, SOAK, Server

HOME, URGENT, OWN = "home", "urgent", "own"
RATE, BURST = 500.0, 2
#: Tasks: the queue of each, and its limits as they are published.
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": (HOME, ()),
    "own": (OWN, (f"o {RATE:.6f} {BURST} 0",)),
    "two": (HOME, (f"s {RATE:.6f} {BURST} 0", "k 0 1 1")),
    "fair": (HOME, ("k 0 1 2",)),
    "ranked": (HOME, ()),
    "unique": (HOME, ()),
    "starts": (HOME, ()),
    "late": (HOME, ()),
    "guarded": (HOME, ("b 0.5 2 5000",)),
}
#: How many may run at once of a task with the same key.
SLOTS = {"two": 1, "fair": 2}
BREAK = 5000.0

numbers, keys = st.integers(0, 11), st.sampled_from(["a", "b", "c"])
HOW = st.sampled_from(["done", "done", "failed", "dead", "again", "later", "return", "limit"])
FAULTS = st.sampled_from(["", "", "", "before", "after", "late"])

#: What is left of an app in which all has ended.
REGISTRY = {
    *(
        "leases",
        "calls",
        "workers",
        "sets",
        "set-leases",
        "serving",
        "counters",
        "tasks",
        "limits",
        "marks",
        "settings",
    ),
    *("result", "producer", "keeper", "pulse", "bell", "solo-bell", "alarm", "ready", "solo", "spent", "control"),
    *(
        "arrivals",
        "openings",
        "shut",
        "breakers",
        "audited",
        "audit",
        "minute",
        "terms",
        "published",
        "set-back",
        "guests",
    ),
}


@dataclass
class Sent:
    """A message as its sender knows it."""

    task: str
    queue: str
    key: str
    priority: int
    expires: float = float("inf")
    later: bool = False
    revoked: bool = False
    runs: int = 0

    @property
    def kind(self) -> tuple[str, str, str, int]:
        """Of one kind the first accepted is the first that runs."""
        return self.task, self.queue, self.key, self.priority


@dataclass
class Worker:
    """A worker with one lane."""

    queues: QueueSet
    lease: int
    inc: str = ""
    number: int = 0
    renew_at: float = 0.0
    held: list[bytes] = field(default_factory=list)
    cut_off: bool = False


def message(id_: bytes, about: Sent, options: bytes) -> tuple[bytes, ...]:
    """What is sent."""
    match about.task:
        case "two":
            head = more(about.priority, limited=True, _2=about.key)
        case "fair":
            head = more(about.priority, fair=about.key, limited=True, _1=about.key)
        case "unique":
            head = more(about.priority, lock=f"d0:unique|{about.key}", limited=True)
        case "starts":
            head = more(about.priority, lock=f"s0:starts|{about.key}", limited=True)
        case "late":
            head = more(lock="d0:late|", debounce="3000:9000", limited=True)
        case "own" | "guarded":
            head = more(about.priority, limited=True)
        case _:
            head = more(about.priority)
    return sent(id_, head, about.task, about.queue, options)


class Together(RuleBasedStateMachine):
    """The rules."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.server.url)
        self.fleet = Fleet(self.world, HOME, URGENT, OWN, set_id="all", incarnations=())
        everything, few = QueueSet("all", (HOME, OWN, URGENT), " "), QueueSet("few", (URGENT,))
        self.workers = [Worker(everything, 60_000), Worker(everything, 4_000), Worker(few, 4_000)]
        self.begun = 0
        self.tasks = sorted(TASKS)
        self.sent: dict[bytes, Sent] = {}
        self.order: list[bytes] = []
        self.by_hand: dict[str, int] = {}
        self.uncounted: set[bytes] = set()  # ran when the limits of their task were changed: they have no slot of these
        self.paused: set[str] = set()
        self.shut: dict[tuple[str, str], float] = {}
        self.starts: dict[str, list[float]] = {"own": [], "two": []}
        self.probe: bytes | None = None
        self.auditing: Any = None
        self.answer: Any = None
        for worker in self.workers:
            self._begin(worker)
        self._run(leasing.renew(self.world.keys, 4_000, [], []))  # a pulse: somebody was there before

    @initialize(some=st.lists(st.sampled_from(sorted(TASKS)), min_size=1, max_size=3, unique=True))
    def few_tasks_meet_more_often(self, some: list[str]) -> None:
        """Of few tasks each has something that waits, and something that runs."""
        self.tasks = some
        for which in range(len(some)):
            self.send(which, "a", 3, False, 0, "")
            self.send(which, "b", 3, True, 0, "")
        for who in range(2):
            self.take(who, 3, "")

    def teardown(self) -> None:
        self.world.raw("FLUSHALL")
        self.world.connection.close()

    # -- workers ------------------------------------------------------------------------------------------

    def _run(self, command: Command[Any]) -> Any:
        answer = self.world.run(command)
        self.fleet.sound(below_limits=False)
        return answer

    def _announce(self, worker: Worker) -> None:
        """What a worker says of itself and its code, with its own settings."""
        published = [(task, queue, "\n".join(limits)) for task, (queue, limits) in TASKS.items()]
        self.world.run(announcing.publish_tasks(self.world.keys, published, {"lease": worker.lease, "max_crashes": 3}))

    def _begin(self, worker: Worker) -> None:
        self.begun += 1
        self._announce(worker)
        worker.inc, worker.number, worker.held, worker.cut_off = f"inc{self.begun}", 0, [], False
        worker.renew_at = self.world.now + worker.lease / 3
        self._run(holding.register(self.world.keys, worker.inc, worker.lease, b"", worker.queues))

    def _exchange(
        self, worker: Worker, outcomes: list[Outcome], want: int, mode: str = "", fault: str = ""
    ) -> list[bytes] | None:
        """A call of a worker, of which the answer may be lost; None if the worker was."""
        lost: Batch | None = None
        while True:
            worker.number += 1
            number = worker.number
            caps = " " + "".join(f"{queue}={want or 1}/10 " for queue in worker.queues.queues)
            call = holding.fetch(
                self.world.keys, worker.inc, number, words(outcomes, MINUTE),
                want=want, set_id=worker.queues.id, mode=mode, caps=caps, order=worker.queues.order,
            )  # fmt: skip
            try:
                if not fault:
                    batch = self._run(call)
                    break
                if fault == "after":
                    lost = self._run(call)
                    self._look_at(worker, outcomes, lost)
                worker.number += 1
                known = tuple(worker.held)
                executed, gone = self._run(holding.sync(self.world.keys, worker.inc, worker.number, number, known))
            except Lost:
                return None
            assert bool(executed) == (fault == "after")
            if executed:
                worker.held = [id_ for id_ in worker.held if id_ not in gone]
                outcomes = []
            if fault == "late":
                with suppress(Stale):
                    self._run(call)
                    raise AssertionError("a call that was given up ran")
            fault = ""
        self._look_at(worker, outcomes, batch)
        worker.held = [id_ for id_ in worker.held if id_ not in ids_of(outcomes)] + batch.messages[::2]
        return batch.messages[::2]

    def _look_at(self, worker: Worker, outcomes: list[Outcome], batch: Batch) -> None:
        """Check what was taken, and note what was settled."""
        assert batch.fenced == 0
        for id_ in batch.messages[::2]:
            self._started(id_, worker)

    def _started(self, id_: bytes, worker: Worker) -> None:
        about, now = self.sent[id_], self.world.now
        self.uncounted.discard(id_)
        assert about.task not in self.paused, "a paused task runs"
        assert about.queue not in self.paused, "something of a paused queue runs"
        assert self.shut.get((about.task, about.key if about.task == "fair" else ""), 0.0) <= now, "it was to slow down"
        most = self.by_hand.get(about.task, SLOTS.get(about.task, 0))
        if most:
            keyed = about.task not in self.by_hand
            running = [i for i in self._running() if self.sent[i].task == about.task and i not in self.uncounted]
            running = [i for i in running if not keyed or self.sent[i].key == about.key]
            assert len(running) <= most, f"{len(running)} of {about.task} at once"
        if about.task in self.starts and about.task not in self.by_hand and about.expires > now:
            times = self.starts[about.task] = [*self.starts[about.task], now]
            for n, first in enumerate(times):
                assert len(times) - n <= BURST + (now - first) / RATE + 0.001, "more than the rate allows"
        if about.runs == 0 and not about.later:
            older = self.order[: self.order.index(id_)]
            before = [i for i in older if self.sent[i].kind == about.kind and self._may_begin(i)]
            assert not before, f"{id_!r} begins before {before} of its kind"
        about.runs += 1

    def _running(self) -> list[bytes]:
        snap = self.fleet.look()
        return [id_ for inc in snap.under("processing") for id_ in snap.held(inc)]

    def _may_begin(self, id_: bytes) -> bool:
        about = self.sent[id_]
        waits = not (about.runs or about.later or about.revoked) and about.expires > self.world.now
        return waits and self.world.raw("HEXISTS", self.world.keys["messages"], id_) == 1

    @rule(who=st.integers(0, 2), want=st.integers(1, 5), fault=FAULTS)
    def take(self, who: int, want: int, fault: str) -> None:
        worker = self.workers[who]
        if worker.cut_off or self._is_solo(worker):
            return
        with Probe(self):
            if self._exchange(worker, [], want, fault=fault) is None:
                raise AssertionError("a worker that renews its lease was taken for dead")

    def _is_solo(self, worker: Worker) -> bool:
        return any(held.suspect for held in self.fleet.look().held(worker.inc).values())

    @rule(who=st.integers(0, 2))
    def take_a_suspect(self, who: int) -> None:
        worker = self.workers[who]
        if not worker.held and not worker.cut_off:
            with Probe(self):
                self._exchange(worker, [], 1, mode="solo")

    @rule(who=st.integers(0, 2), how=st.lists(HOW, min_size=1, max_size=4), fault=FAULTS)
    def settle(self, who: int, how: list[str], fault: str) -> None:
        worker = self.workers[who]
        if worker.cut_off:
            return
        outcomes = [self._outcome(id_, kind) for id_, kind in zip(worker.held, how, strict=False)]
        with Probe(self, ids_of(outcomes)):
            if self._exchange(worker, outcomes, 0, fault=fault) is None:
                raise AssertionError("a worker that renews its lease was taken for dead")
        for outcome in outcomes:
            if isinstance(outcome, SlowDown):
                about = self.sent[outcome.id]
                gate = (about.task, about.key if about.task == "fair" and about.task not in self.by_hand else "")
                if about.task not in self.by_hand and not about.revoked:
                    self.shut[gate] = max(self.shut.get(gate, 0.0), self.world.now + 1000 * outcome.delay)

    def _outcome(self, id_: bytes, kind: str) -> Outcome:
        if self.sent[id_].expires <= self.world.now:
            return Ended(id_, "discarded", b"Xexpired")
        match kind:
            case "done":
                return (id_, b"Svalue")
            case "failed":
                return Ended(id_, "failed", b"F")
            case "dead":
                return Dead(id_, "failed", b"", b"F")
            case "again" | "later":
                self.sent[id_].later = True
                value = self.world.raw("HGET", self.world.keys["messages"], id_)
                return Again(id_, value, 4.0 if kind == "later" else 0.0, "retried")
            case "limit":
                return SlowDown(id_, 1.5)
            case _:
                return Returned(id_)

    @rule(who=st.integers(1, 2), ran=st.sampled_from(["none", "one", "all"]), died=st.booleans())
    def lose(self, who: int, ran: str, died: bool) -> None:
        """A child ends, and its parent gives back what it held; another takes its place."""
        worker = self.workers[who]
        running = {"none": [], "one": worker.held[:1], "all": worker.held}[ran]
        close = leasing.close(self.world.keys, worker.inc, died=died, alone=len(running) == 1, running=running)
        with Probe(self, worker.held):
            self._run(close)
        self._begin(worker)

    @rule(who=st.integers(1, 2))
    def cut_off(self, who: int) -> None:
        """A worker is cut off until its lease has ended, with whatever it runs."""
        worker = self.workers[who]
        worker.cut_off = True
        for _ in range(2):
            self.time_passes(6)
        with pytest.raises(Lost):
            self._run(holding.fetch(self.world.keys, worker.inc, worker.number + 1, [], set_id=worker.queues.id))
        self._begin(worker)

    # -- a breaker ----------------------------------------------------------------------------------------

    def breaker(self) -> str:
        return (self.world.raw("HGET", self.world.keys["breakers"], "guarded") or b"c").decode()[0]

    # -- producers ----------------------------------------------------------------------------------------

    @rule(
        which=numbers,
        key=keys,
        n=st.integers(1, 4),
        urgent=st.booleans(),
        level=st.sampled_from([0, 0, 0, 2, -1]),
        what=st.sampled_from(["", "", "", "delay", "expires"]),
    )
    def send(self, which: int, key: str, n: int, urgent: bool, level: int, what: str) -> None:
        task = self.tasks[which % len(self.tasks)]
        queue = URGENT if urgent else TASKS[task][0]
        for _ in range(n):
            about = Sent(task, queue, key, level if task in ("ranked", "fair") else 0)
            options = {"": b"", "delay": b"d2500", "expires": b"x1500"}[what]
            about.later = what == "delay" or task == "late"
            if what == "expires":
                about.expires = self.world.now + 1500
            self._send(about, options)

    def _send(self, about: Sent, options: bytes = b"") -> None:
        id_ = raw_id(len(self.sent) + 1)
        self.sent[id_] = about
        self.fleet.sends += 1
        answer = self._run(producing.enqueue(self.world.keys, b"p", self.fleet.sends, [message(id_, about, options)]))
        if answer != b"+":
            assert answer.startswith(b"~"), answer
            first = bytes.fromhex(answer[1:-1].decode())
            holder = self.sent[first]
            runs = first in self._running()
            assert runs or not holder.revoked, "its place was taken by one that will not run: it was revoked"
            assert holder.expires > self.world.now, "its place was taken by one that will not run: it has expired"
            assert about.task == holder.task
            assert about.task != "late" or not holder.runs, "it was put in the place of one that has begun"
            if about.task == "late":
                self.sent[first] = about  # the id is the first's, all else that of the last
            del self.sent[id_]
        else:
            self.order.append(id_)

    @rule(n=st.integers(8, 20), which=numbers)
    def send_many_that_expire(self, n: int, which: int) -> None:
        task = self.tasks[which % len(self.tasks)]
        for _ in range(n):
            self._send(Sent(task, TASKS[task][0], "a", 0, expires=self.world.now + 10), b"x10")
        self.time_passes(1)

    # -- operators ----------------------------------------------------------------------------------------

    @rule(which=numbers)
    def pause(self, which: int) -> None:
        names = [*self.tasks, *self.tasks, HOME, URGENT]
        name = names[which % len(names)]
        self._run(steering.pause(self.world.keys, name, 0.0, "me", "why"))
        self.paused.add(name)

    @rule(which=numbers)
    @precondition(lambda self: self.paused)
    def resume(self, which: int) -> None:
        self._resume(sorted(self.paused)[which % len(self.paused)])

    def _resume(self, name: str) -> None:
        self._run(steering.resume(self.world.keys, name))
        self.paused.discard(name)

    @rule(which=numbers, most=st.integers(0, 2))
    def limit(self, which: int, most: int) -> None:
        self._limit(self.tasks[which % len(self.tasks)], most)

    def _limit(self, task: str, most: int) -> None:
        """A number that may run at once is set by hand, or (0) the limits of the code hold again."""
        self.uncounted.update(id_ for id_ in self._running() if self.sent[id_].task == task)
        for id_ in self._in_lines_of_keys(task):  # what comes next need not wait behind them
            self.sent[id_].later = True
        self._run(steering.limit(self.world.keys, task, f"s 0 1 {most}" if most else "-"))
        self.starts = {task: [] for task in self.starts}
        if most:
            self.by_hand[task] = most
        else:
            self.by_hand.pop(task, None)
        self.shut.clear()  # which of its limits was shut is another one now

    def _in_lines_of_keys(self, task: str) -> list[bytes]:
        lines = self.fleet.look().lines().items()
        return [id_ for (_, line), ids in lines if line.startswith(f"{task}#") and "=" in line for id_ in ids]

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.order)
    def revoke(self, which: int) -> None:
        alive = [id_ for id_ in self.order if self._is_alive(id_)]
        if alive:
            id_ = alive[which % len(alive)]
            if self._run(steering.revoke(self.world.keys, id_, "why")) in ("revoked", "running"):
                self.sent[id_].revoked = True

    def _is_alive(self, id_: bytes) -> bool:
        there = self.world.raw("HEXISTS", self.world.keys["messages"], id_)
        return bool(there) and not self.world.raw("HEXISTS", self.world.keys["reasons"], id_)

    @rule()
    def replay(self) -> None:
        snap = self.fleet.look()
        for queue, ids in snap.under("dead").items():
            for id_ in ids:
                if self._run(steering.replay(self.world.keys, queue, id_, b"")):
                    self.sent[id_].later = True

    @rule()
    @precondition(lambda self: len(self.sent) > 8)
    def the_server_is_emptied(self) -> None:
        """Whoever lives says again what it is, and all goes on with what is sent from then on."""
        self.world.raw("FLUSHALL")
        self.world.at(self.world.now)
        self.order.clear()
        self.by_hand.clear()
        self.paused.clear()
        self.shut.clear()
        self.starts = {task: [] for task in self.starts}
        self.auditing = None
        for worker in self.workers:
            renew = leasing.renew(self.world.keys, worker.lease, [worker.queues], [worker.inc])
            assert self._run(renew).lost == {worker.inc}
            self._begin(worker)

    # -- time ---------------------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 6), kept=st.booleans())
    def time_passes(self, steps: int, kept: bool = True) -> None:
        """Everybody who is well renews in time; every parent looks after the rest, or nobody gets to what is due."""
        for _ in range(steps):
            self.world.at(self.world.now + 1000)
            for worker in self.workers:
                if not worker.cut_off and self.world.now >= worker.renew_at:
                    renew = leasing.renew(self.world.keys, worker.lease, [worker.queues], [worker.inc])
                    assert not self._run(renew).lost, "a worker that renews its lease was taken for dead"
                    worker.renew_at = self.world.now + worker.lease / 3
            with Probe(self, [id_ for one in self.workers if one.cut_off for id_ in one.held]):
                self._run(keeping.reap(self.world.keys, 10))
            if kept:
                self._run(keeping.promote(self.world.keys, "parent", 100, MINUTE))
        snap = self.fleet.look()
        for worker in self.workers:
            if not worker.cut_off:
                assert worker.queues.id.encode() in snap.table("sets"), "a worker that lives is deaf"

    @rule(who=st.integers(0, 2))
    def announce(self, who: int) -> None:
        """A worker with its own settings begins beside the others."""
        self._announce(self.workers[who])

    @rule(steps=st.integers(1, 12))
    def audit(self, steps: int) -> None:
        """An audit goes on, a few of its calls at a time, while all else moves."""
        for _ in range(steps):
            if self.auditing is None:
                self.world.raw("DEL", self.world.keys["audited"])
                self.auditing, self.answer = upkeep(self.world.keys), None
            try:
                step = self.auditing.send(self.answer)
            except StopIteration as stop:
                self.auditing, mended = None, +stop.value
            else:
                mended = None
                self.answer = self.world.now / 1000 if isinstance(step, Now | Sleep) else self._run(step)
            assert not mended, f"there was nothing to mend: {mended}"

    @rule()
    @precondition(lambda self: len(self.sent) > 5)
    def everybody_is_well_again(self) -> None:
        """Whatever can run does, within bounded steps, and what has ended leaves nothing behind."""
        for name in sorted(self.paused):
            self._resume(name)
        for task in sorted(self.by_hand):
            self._limit(task, 0)
        for _ in range(25 + 2 * sum(map(self._is_alive, self.order))):
            for who, worker in enumerate(self.workers):
                self.settle(who, ["done"] * len(worker.held), "")
                self.take_a_suspect(who)
                self.settle(who, ["done"], "")
                self.take(who, 20, "")
            self.time_passes(1)
            if not any(map(self._is_alive, self.order)):
                break
        left = [(id_, self.sent[id_], self.fleet.look().places()[id_]) for id_ in self.order if self._is_alive(id_)]
        assert not left, f"what could run does not end: {left}"
        for queue, ids in self.fleet.look().under("dead").items():
            self._run(steering.purge(self.world.keys, queue, sorted(ids)))
        families = {name.partition(":")[0] for name in self.fleet.look().kinds}
        assert families <= REGISTRY, f"what all have left: {families - REGISTRY}"


class Probe:
    """Around a call: while a breaker is half open one run alone decides, and no more than one is let through."""

    def __init__(self, machine: Together, ended: Iterable[bytes] = ()) -> None:
        self.machine = machine
        self.ended = set(ended)

    def __enter__(self) -> None:
        self.before, self.ran = self.machine.breaker(), set(self._running())

    def __exit__(self, *failed: object) -> None:
        if failed[0] is not None:
            return
        machine, before, after = self.machine, self.before, self.machine.breaker()
        new = [id_ for id_ in self._running() if id_ not in self.ran]
        if before == "h":
            assert not new, f"{new} pass a breaker that is half open"
            assert after == "h" or machine.probe in self.ended, "a run from before decides what the probe is to"
        elif before == "o":
            assert len(new) <= 1, f"{new} pass a breaker that was open"
        if after == "h" and new:
            machine.probe = new[0]

    def _running(self) -> Iterator[bytes]:
        return (id_ for id_ in self.machine._running() if self.machine.sent[id_].task == "guarded")


@pytest.mark.timeout(0 if SOAK else 300)
def test_whatever_meets_whatever_all_of_it_ends(unkept_server: Server) -> None:
    class OnThisServer(Together):
        server = unkept_server

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=2000 if SOAK else 20,
            stateful_step_count=40 if SOAK else 25,
            deadline=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
