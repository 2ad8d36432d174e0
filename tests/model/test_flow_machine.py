"""Limits, priorities and unique work in any order of events: a state machine in which time is moved by rules alone.

Every call is audited by `Fleet` (slots, lines, announcements, locks). Here is what an onlooker may count on: how many
run at once, how many start in a time, in which order, and that all of it drains.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from taskq.broker.commands import keeping, leasing, steering
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, ids_of
from tests.contract.fleet import Fleet, more
from tests.contract.world import LEASE, World, raw_id
from tests.support import PHASES, SOAK, Server

SLOTS, BURST, INTERVAL = 2, 2, 1000.0
LIMITS = {"slots": f"s 0 1 {SLOTS}", "rate": f"s {INTERVAL:.6f} {BURST} 0"}
LOCKS = {"until done": "d0:d|k", "until start": "s0:s|k"}
WORKERS = st.integers(0, 1)
HOW = st.sampled_from(["done", "done", "failed", "dead", "again", "later", "return"])

#: What is left of an app in which all has ended.
REGISTRY = {
    *("leases", "calls", "workers", "sets", "set-leases", "serving", "counters", "tasks", "limits", "marks"),
    *("result", "producer", "keeper", "pulse", "bell", "solo-bell", "alarm", "ready", "solo", "arrivals", "openings"),
    *("terms", "published"),
}


class FlowMachine(RuleBasedStateMachine):
    """The rules."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.server.url)
        self.fleet = Fleet(self.world, "q", "ranked", incarnations=())
        for task in ("slots", "rate", "until done", "until start"):
            self.fleet.publish(task, *([LIMITS[task]] if task in LIMITS else []))
        self.begun = 0
        self.workers = [self._begin(), self._begin()]
        self.task_of: dict[bytes, str] = {}
        self.priority: dict[bytes, int] = {}
        #: Ranked messages that wait, in the order in which they are to be taken.
        self.ranked: list[bytes] = []
        self.starts: list[float] = []
        #: What was taken once, so that its lock until the start has gone; it may have got it back.
        self.taken: set[bytes] = set()

    def _begin(self) -> str:
        self.begun += 1
        self.fleet.begin(f"inc{self.begun}")
        return f"inc{self.begun}"

    # -- looking ------------------------------------------------------------------------------------------

    def held(self, inc: str) -> list[bytes]:
        return sorted(self.fleet.look().held(inc))

    def alive(self, task: str) -> set[bytes]:
        """Messages of a task that have not ended."""
        snap = self.fleet.look()
        return {i for i in snap.table("messages") if snap.task_of(i) == task and i not in snap.table("reasons")}

    # -- producers ----------------------------------------------------------------------------------------

    @rule(task=st.sampled_from(sorted(LIMITS)), n=st.integers(1, 3))
    def send_limited(self, task: str, n: int) -> None:
        assert self.fleet.send(*(self._new(task) for _ in range(n)), head=more(limited=True), task=task) == b"+" * n

    @rule(priorities=st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=3))
    def send_ranked(self, priorities: list[int]) -> None:
        for priority in priorities:
            id_ = self._new("ranked")
            self.priority[id_] = priority
            self.fleet.send(id_, head=more(priority), task="ranked", queue="ranked")
            self._stand(id_, at_head=False)

    @rule(mode=st.sampled_from(sorted(LOCKS)))
    def send_unique(self, mode: str) -> None:
        """The second of a kind is not accepted; the first one is named instead."""
        waiting, id_ = self.alive(mode), self._new(mode)
        if mode == "until start":
            waiting -= self.taken
        answer = self.fleet.send(id_, head=more(lock=LOCKS[mode], limited=True), task=mode)
        if mode == "until done" or waiting:
            assert answer == (b"~%s." % min(waiting).hex().encode() if waiting else b"+")

    def _new(self, task: str) -> bytes:
        id_ = raw_id(len(self.task_of) + 1)
        self.task_of[id_] = task
        return id_

    def _stand(self, id_: bytes, at_head: bool) -> None:
        """A ranked message comes: before its equals, or after them."""
        level = self.priority[id_]
        before = [i for i in self.ranked if self.priority[i] > level or (self.priority[i] == level and not at_head)]
        self.ranked.insert(len(before), id_)

    # -- workers ------------------------------------------------------------------------------------------

    @rule(who=WORKERS, want=st.integers(1, 4))
    def take(self, who: int, want: int) -> None:
        inc = self.workers[who]
        if any(held.suspect for held in self.fleet.look().held(inc).values()):
            return
        self._started(self.fleet.take(want, inc))

    @rule(who=WORKERS)
    def take_a_suspect(self, who: int) -> None:
        if not self.held(self.workers[who]):
            self._started(self.fleet.take(1, self.workers[who], mode="solo"))

    def _started(self, taken: list[bytes]) -> None:
        self.taken.update(taken)
        ranked = [id_ for id_ in taken if id_ in self.ranked]
        assert ranked == self.ranked[: len(ranked)], "not the next ones by priority, and first in first out"
        del self.ranked[: len(ranked)]
        self.starts += [self.world.now for id_ in taken if self.task_of[id_] == "rate"]
        for n, first in enumerate(self.starts):
            most = BURST + (self.world.now - first) / INTERVAL
            assert len(self.starts) - n <= most + 0.001, "more than the rate allows"
        running = [i for inc in self.workers for i in self.held(inc) if self.task_of[i] == "slots"]
        assert len(running) <= SLOTS, "more at once than there are slots"

    @rule(who=WORKERS, how=st.lists(HOW, min_size=1, max_size=4))
    def settle(self, who: int, how: list[str]) -> None:
        inc = self.workers[who]
        held, suspects = self.held(inc), self.fleet.look().held(inc)
        outcomes = [self._outcome(id_, kind) for id_, kind in zip(held, how, strict=False)]
        self.fleet.fetch(*outcomes, inc=inc)
        ranked = [outcome for outcome in outcomes if self.task_of[ids_of([outcome])[0]] == "ranked"]
        for outcome in reversed(ranked):
            if isinstance(outcome, Returned) and not suspects[outcome.id].suspect:
                self._stand(outcome.id, at_head=True)
        for outcome in ranked:
            if isinstance(outcome, Again) and not self._is_suspect(outcome.id):
                self._stand(outcome.id, at_head=False)

    def _is_suspect(self, id_: bytes) -> bool:
        return id_ in self.fleet.look().row("suspects:ranked")

    def _outcome(self, id_: bytes, kind: str) -> Outcome:
        match kind:
            case "done":
                return (id_, b"")
            case "failed":
                return Ended(id_, "failed", b"F")
            case "dead":
                return Dead(id_, "failed", b"", b"F")
            case "again" | "later":
                late = kind == "later" and self.task_of[id_] != "ranked"
                return Again(id_, self.fleet.look()["messages"][id_], 5.0 if late else 0.0, "retried")
            case _:
                return Returned(id_)

    @rule(who=WORKERS, ran=st.booleans(), reaped=st.booleans())
    def lose(self, who: int, ran: bool, reaped: bool) -> None:
        """A worker is killed with all that it runs, or before it began, or is cut off until its lease ends."""
        inc, snap = self.workers[who], self.fleet.look()
        held = snap.held(inc)
        if reaped:
            self.world.run(leasing.renew(self.world.keys, LEASE, [self.fleet.queues], self.workers))
            self.world.raw("ZADD", self.world.keys["leases"], "XX", int(self.world.now) - 1, inc)
            self.world.run(keeping.reap(self.world.keys, 10))
            self.fleet.sound()
        else:
            self.fleet.lose(inc, *(sorted(held) if ran else ()))
            for id_ in reversed(snap.in_order(held)):
                if not ran and not held[id_].suspect and self.task_of[id_] == "ranked":
                    self._stand(id_, at_head=True)
        self.workers[who] = self._begin()

    # -- time ---------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 333, 999, 1000, 2500, 6000]))
    def time_passes(self, ms: int) -> None:
        self.world.at(self.world.now + ms)
        self.fleet.promote()

    @rule()
    @precondition(lambda self: len(self.task_of) > 3)
    def everything_drains(self) -> None:
        """All is run and settled; no slot, lock, line or rank is left."""
        for _ in range(40 + 2 * len(self.task_of)):
            for who in (0, 1):
                self.settle(who, ["done"] * 30)
            self.take(0, 10)
            self.take_a_suspect(1)
            self.time_passes(1000)
            if self.fleet.look().table("messages").keys() <= self.fleet.look().table("reasons").keys():
                break
        snap = self.fleet.look()
        for queue in snap.under("dead"):
            self.world.run(steering.purge(self.world.keys, queue, sorted(snap.table("reasons"))))
        left = {name.partition(":")[0] for name in self.fleet.look().kinds}
        assert left <= REGISTRY, f"what all have left: {left - REGISTRY}"
        assert not self.ranked

    def teardown(self) -> None:
        self.world.raw("FLUSHALL")
        self.world.connection.close()


@pytest.mark.timeout(0 if SOAK else 120)
def test_whatever_happens_limits_order_and_uniqueness_hold(unkept_server: Server) -> None:
    class OnThisServer(FlowMachine):
        server = unkept_server

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=2000 if SOAK else 120,
            stateful_step_count=30,
            deadline=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
