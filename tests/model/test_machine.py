"""Everything that can happen, in any order: a state machine on a real server, audited after every step.

Few ids and few workers, so that they meet. What a step must do to the places of messages is worked out by
`tests.model.oracle`; what must hold of every state is in `tests.model.audit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taskq.broker.call import Command
from taskq.broker.commands import awaiting, holding, leasing, producing, steering
from taskq.broker.commands.holding import Lost, Stale
from taskq.broker.commands.outcomes import words
from taskq.broker.patience import persistent
from taskq.errors import BrokerRefused
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, ids_of
from taskq.steering.revoking import Which, revoke_all
from taskq.worker.child.session import Session
from tests.model.audit import Snapshot, silent_bells, unsound, violations
from tests.model.oracle import Board
from tests.model.system import BOTH, DELAY, IDS, LEASE, ONE, QUEUE_OF, STEP, System, stored
from tests.support import PHASES, SOAK, Server

ids = st.sampled_from(IDS)
workers = st.integers(0, 2)
KINDS = ["done", "kept", "failed", "discarded", "dead", "later", "again", "return"]
kinds = st.sampled_from(KINDS)
#: What becomes of a call and of those that repeat it; mostly nothing.
faults = st.one_of(st.just([]), st.lists(st.sampled_from(["away", "before", "late", "after"]), max_size=3))


#: What is left of an app in which all has ended: who works, what was counted and stored for a time, who is to be woken.
REGISTRY = {
    *("leases", "calls", "workers", "sets", "set-leases", "serving", "counters", "settings", "tasks", "marks"),
    *("terms", "published", "guests"),
    *("result", "producer", "inbox", "control", "keeper", "pulse", "bell", "solo-bell", "alarm", "ready", "solo"),
}


def outcome(id_: bytes, kind: str) -> Outcome:
    """One way for a delivery to end."""
    match kind:
        case "done":
            return (id_, b"")
        case "kept":
            return (id_, b"Svalue")
        case "failed" | "discarded":
            return Ended(id_, kind, b"F" if kind == "failed" else b"Xexpired")
        case "dead":
            return Dead(id_, "failed", b"", b"F")
        case "later" | "again":
            return Again(id_, retried(id_), DELAY if kind == "later" else 0.0, "retried")
        case _:
            return Returned(id_)


def revoked(why: bytes) -> bytes:
    """The result of a message that was revoked."""
    return b"Xrevoked" + (b"\n" + why if why else b"")


def retried(id_: bytes) -> bytes:
    """The value of a message after a retry; its time of acceptance is that of a plain head, 0."""
    value = stored(id_)
    return value[:2] + bytes(8) + value[2:]


def paused_as(name: str) -> str:
    """How a pause of a queue, or of a task in a queue that it shares, is noted."""
    return "=" + name if name == "u" else name


class Worker:
    """A place for a lane: its session, whether it woke by the bell, whether it is stopped (paused, or partitioned)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.alone = number == 2
        self.queues = ONE if number == 1 else BOTH
        self.session: Session | None = None
        self.woken = False


class Machine(RuleBasedStateMachine):
    """The rules."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.system = System(self.server.url)
        self.workers = [Worker(n) for n in range(3)]
        #: Calls that may still arrive, and must then change nothing.
        self.ghosts: list[Command[object]] = []
        #: Stale reads: an incarnation, and what a parent or reaper read that it runs.
        self.scans: list[tuple[str, set[bytes]]] = []
        #: Sets whose bell was heard by somebody who died before fetching: the next fetch mends it.
        self.unheard: set[str] = set()
        self.living: set[bytes] = set()
        #: Of these it was said that they will not run, or run no more, and why.
        self.refused: dict[bytes, bytes] = {}
        self.ends = 0
        self.seen = self.system.look()

    @initialize(sent=st.sets(ids), begun=st.sets(workers))
    def some_work_and_some_workers(self, sent: set[bytes], begun: set[int]) -> None:
        for id_ in sorted(sent):
            self.enqueue(id_, b"", [])
            self.seen = self.system.look()
        for number in sorted(begun):
            self.begun(number)

    def teardown(self) -> None:
        self.system.clear()
        self.system.line.close()

    # -- what holds after every step ----------------------------------------------------------------------

    @invariant()
    def the_state_is_sound(self) -> None:
        before, now = self.seen, self.system.look()
        self.seen = now
        assert violations(now) == []
        self._end_the_refused(before, now)
        assert set(now.table("messages")) == self.living
        for worker in self.workers:
            if worker.session and worker.session.incarnation.encode() in now.table("calls"):
                assert worker.session.held == set(now.held(worker.session.incarnation)), "orphaned in processing"
        waking = {worker.queues.id for worker in self.workers if worker.woken and worker.session}
        assert silent_bells(now) <= self.unheard | waking, "something is ready and no bell rings"
        assert unsound(before, now) == []

    def _end_the_refused(self, before: Snapshot, now: Snapshot) -> None:
        """What has gone and was not settled was revoked, or had expired, and its result says so."""
        for id_ in self.living - set(now.table("messages")):
            assert id_ in self.refused or id_ in before.expired(), "lost"
            assert now.result(id_) == (revoked(self.refused[id_]) if id_ in self.refused else b"Xexpired")
            self._end([id_])

    def unchanged(self) -> None:
        """Nothing at all was written since the last step."""
        assert self.system.look().dump == self.seen.dump

    def held_by(self, worker: Worker) -> list[bytes]:
        return sorted(worker.session.held) if worker.session else []

    def lost(self, worker: Worker) -> bool:
        """Whether a worker's incarnation was taken from it without its knowing."""
        return worker.session is not None and worker.session.incarnation.encode() not in self.seen.table("calls")

    def forget(self, worker: Worker) -> None:
        """The process of a worker is gone."""
        if worker.woken:
            self.unheard.add(worker.queues.id)
        worker.session, worker.woken = None, False

    # -- producers ----------------------------------------------------------------------------------------

    @rule(id_=ids, how=st.sampled_from([b"", b" d10000", b" x1", b" d10000 x1", b" w"]), faults=faults)
    def enqueue(self, id_: bytes, how: bytes, faults: list[str]) -> None:
        taken = id_ in self.living or bool(self.seen.result(id_))
        served = QUEUE_OF[id_].encode() in self.seen.table("serving")
        self.system.line.faults.extend(faults)
        answer = self.system.send([id_], how)
        self._collect_ghosts()
        assert answer == (b"=" if taken else b"-" if b"w" in how and not served else b"+")
        if not taken:
            self.living.add(id_)
            self.refused.pop(id_, None)
            board, now = Board.of(self.seen), self.system.now
            if b"d" in how:
                board.due[id_] = now + 10_000
            else:
                board.queues.setdefault(QUEUE_OF[id_], []).append(id_)
            assert Board.of(self.system.look()) == board

    def _sends(self, ids: Sequence[bytes]) -> None:
        """Send those of which nothing is known."""
        for id_ in ids:
            if not self.seen.result(id_) and id_ not in self.living:
                self.system.send([id_])
                self.living.add(id_)
                self.refused.pop(id_, None)

    def _send_the_last_call_again(self, id_: bytes) -> None:
        numbering = self.system.producer
        again = producing.enqueue(self.system.keys, numbering.producer, numbering.number, [(id_, stored(id_), b"")])
        last = self.seen.under("producer").get(numbering.producer.decode(), b"")
        if last.endswith(b" " + id_):
            assert self.system.line.execute(again) in (b"+", b"-", b"=")
        elif numbering.number:
            self._refused(again)
        self.unchanged()

    def _refused(self, command: Command[object]) -> None:
        with pytest.raises(BrokerRefused):
            self.system.line.execute(command)

    # -- workers ------------------------------------------------------------------------------------------

    def begun(self, number: int) -> tuple[Worker, Session]:
        """A worker, begun if it is not; and its session."""
        worker = self.workers[number]
        if worker.session is None:
            worker.session = self.system.session(worker.queues, serve=not worker.alone)
            self.seen = self.system.look()
        return worker, worker.session

    def busy(self, which: int) -> tuple[Worker, Session]:
        """One of the workers that hold something; if none does, one takes what there is."""
        busy = [worker for worker in self.workers if self.held_by(worker)]
        if not busy:
            worker, _ = self.begun(which % 2)
            self._sends(IDS)
            self._resume_all()
            self.seen = self.system.look()
            self._exchange(worker, [], 3, [])
            self.the_state_is_sound()
            busy = [worker]
        worker = busy[which % len(busy)]
        return worker, self.begun(worker.number)[1]

    @rule(number=st.integers(0, 1), want=st.integers(1, 3), faults=faults)
    @precondition(lambda self: self.seen.under("queue") or self.seen.table("schedule"))
    def take(self, number: int, want: int, faults: list[str]) -> None:
        worker, _ = self.begun(number)
        self._exchange(worker, [], want, faults)

    @rule(which=workers, kinds=st.lists(kinds, min_size=1, max_size=3), want=st.integers(0, 2), faults=faults)
    def settle(self, which: int, kinds: list[str], want: int, faults: list[str]) -> None:
        worker, _ = self.busy(which)
        held = self.held_by(worker)
        outcomes = [outcome(id_, kind) for id_, kind in zip(held, kinds, strict=False)]
        if worker.alone:
            want = 0 if len(outcomes) < len(held) else min(want, 1)
        self._exchange(worker, outcomes, want, faults)

    @rule(which=st.integers(0, 1), kinds=st.lists(kinds, min_size=1, max_size=3), want=st.integers(1, 2), faults=faults)
    def settle_and_wait(self, which: int, kinds: list[str], want: int, faults: list[str]) -> None:
        """What ended is settled, and the wait for more goes along with it."""
        worker, _ = self.busy(which)
        if worker.alone:
            return
        held = self.held_by(worker)
        outcomes = [outcome(id_, kind) for id_, kind in zip(held, kinds, strict=False)]
        self._exchange(worker, outcomes, want, faults, wait=0.01)

    @rule(
        faults=faults,
        ends=st.lists(st.sampled_from(["crash", "crash", "stop", "lease", *KINDS]), min_size=1, max_size=4),
    )
    @precondition(lambda self: self.seen.under("suspects"))
    def run_suspects(self, faults: list[str], ends: list[str]) -> None:
        """The isolated child: one suspect after another, each in an incarnation of its own."""
        for end in ends:
            worker, session = self.begun(2)
            if not session.held:
                self._exchange(worker, [], 1, faults)
            if worker.session is session and session.held:
                self.the_state_is_sound()
                self._end_alone(worker, session, end)
            self.the_state_is_sound()
            self.system.pass_time(1, *(w.session.incarnation for w in self.workers if w.session))
            self._promote()
            self.seen = self.system.look()

    def _end_alone(self, worker: Worker, session: Session, end: str) -> None:
        if end in ("crash", "stop"):
            self._crash(worker, session, "all", end == "crash", 0)
        elif end == "lease":
            self._lose(worker, reaped=True)
        else:
            self._exchange(worker, [outcome(id_, end) for id_ in session.held], 0, [])

    @rule(number=workers)
    @precondition(lambda self: any(self.lost(worker) for worker in self.workers))
    def speak_too_late(self, number: int) -> None:
        """A worker that was paused beyond its lease wakes, and settles what was its own."""
        for worker in self.workers:
            if worker.session and self.lost(worker):
                outcomes = [outcome(id_, "kept") for id_ in sorted(worker.session.held)]
                self._exchange(worker, outcomes, 0 if worker.alone else 1, [])

    def _exchange(
        self, worker: Worker, outcomes: list[Outcome], want: int, faults: list[str], wait: float = 0.0
    ) -> None:
        session = worker.session
        assert session is not None
        # A batch is sent in the order in which `words` puts it: successes, then the rest, then what is returned.
        outcomes = sorted(outcomes, key=lambda o: (type(o) is Returned, type(o) is not tuple or len(o[0]) != 16))
        self.system.line.faults.extend(faults)
        before, was_lost = self.seen, self.lost(worker)
        try:
            batch = self.system.exchange(session, outcomes, want, wait=wait)
            if wait and not batch.messages:  # else the first try failed, and the next did not wait
                batch = self.system.exchange(session, [], want, wait=wait)
        except Lost:
            assert was_lost
            self._collect_ghosts()
            if wait:  # the bell may have been heard all the same
                self.unheard.add(worker.queues.id)
            else:
                self.unchanged()
            self.forget(worker)
            return
        self._collect_ghosts()
        assert not was_lost
        worker.woken = False
        if not worker.alone:
            self.unheard.discard(worker.queues.id)
        assert batch.fenced == 0
        self._end(
            ids_of(o for o in outcomes if isinstance(o, tuple) or (isinstance(o, Ended) and o.id not in self.refused))
        )
        taken, after = batch.messages[::2], self.system.look()
        assert not self.refused.keys() & set(taken), "what was revoked is started"
        if not faults:
            self._compare(before, after, worker, session, outcomes, want, taken)

    def _compare(
        self, before: Snapshot, after: Snapshot, worker: Worker, session: Session, outcomes: list[Outcome], want: int,
        taken: list[bytes],
    ) -> None:  # fmt: skip
        """Without faults, all of it is known beforehand: what goes where, and that the next in order are taken."""
        board, now = Board.of(before), self.system.now
        board.over = before.expired() - set(after.table("messages"))
        assert board.settle(session.incarnation, outcomes, QUEUE_OF, now) == []
        board.promote(QUEUE_OF, now)
        stood = board.standing
        if worker.alone:
            there = board.takeable_suspects(worker.queues.queues)
            if worker.queues.id.encode() not in before.table("sets"):
                there = 0  # a worker whose other children are all gone for long
            for id_ in taken:
                board.take_suspect(session.incarnation, id_, QUEUE_OF)
        else:
            there = board.takeable(worker.queues.queues)
            board.take(session.incarnation, taken, QUEUE_OF)
        board.pass_by(Board.of(after), stood)
        assert len(taken) <= want
        assert len(taken) + board.passed >= min(want, there), "something was there and was not taken"
        assert Board.of(after) == board

    @rule(number=workers, id_=ids, kind=kinds)
    @precondition(lambda self: self.living)
    def settle_what_is_anothers(self, number: int, id_: bytes, kind: str) -> None:
        """A living incarnation speaks about a message that is not its own (any more)."""
        worker, session = self.begun(number)
        if id_ in session.held or self.lost(worker):
            return
        board = Board.of(self.seen)
        if board.promote(QUEUE_OF, self.system.now):
            return
        session._number += 1
        groups = words([outcome(id_, kind)], 1000)
        batch = self.system.line.execute(holding.fetch(self.system.keys, session.incarnation, session._number, groups))
        assert batch.fenced == 1
        after = self.system.look()
        changed = {name for name in {*after.dump, *self.seen.dump} if after.dump.get(name) != self.seen.dump.get(name)}
        assert changed == {"calls"}

    @rule(number=st.integers(0, 1))
    @precondition(lambda self: self.seen.under("bell"))
    def hear_the_bell(self, number: int) -> None:
        worker, _ = self.begun(number)
        if self.system.raw("LPOP", self.system.keys["bell:" + worker.queues.id]):
            worker.woken = True

    @rule(number=st.integers(0, 1), queue=st.sampled_from(["p", "q"]), how=st.sampled_from(["name", "token", "spoilt"]))
    @precondition(lambda self: self.seen.under("ready"))
    def lose_a_wake_up(self, number: int, queue: str, how: str) -> None:
        """Word of what waits is lost, on its way or by an operator's hand; the next renewal passes it on again."""
        worker, session = self.begun(number)
        ready, bell = (self.system.keys[f"{family}:{worker.queues.id}"] for family in ("ready", "bell"))
        if how == "name":
            self.system.raw("ZREM", ready, queue)
        else:
            self.system.raw("DEL", bell)
        silent = silent_bells(self.system.look())
        if how == "spoilt":
            self.system.raw("SET", bell, "an operator's hand")
        renewal = self.system.renew(session.incarnation)
        spoilt = f"key bell:{worker.queues.id} (it was a string)"
        assert (spoilt in renewal.healed) == (how == "spoilt")
        assert renewal.unheard == bool(silent) or set(renewal.healed) - {spoilt}
        assert not silent_bells(self.system.look()), "nobody is told"

    @rule(number=workers, faults=faults)
    @precondition(lambda self: any(worker.session for worker in self.workers))
    def end_cleanly(self, number: int, faults: list[str]) -> None:
        worker, session = self.begun(number)
        before, inc = self.seen, session.incarnation
        self.system.line.faults.extend(faults)
        self.system.line.drive(session.close())
        self._collect_ghosts()
        self.forget(worker)
        self._recovered(before, inc, running=set(), died=False, alone=False)

    @rule(
        which=workers,
        how=st.sampled_from(["one", "one", "all", "none"]),
        died=st.sampled_from([True, True, False]),
        company=st.sampled_from([0, 0, 1]),
    )
    def crash(self, which: int, how: str, died: bool, company: int) -> None:
        self._crash(*self.busy(which), how, died, company)

    def _crash(self, worker: Worker, session: Session, how: str, died: bool, company: int) -> None:
        before, inc = self.seen, session.incarnation
        held = before.in_order(before.held(inc))
        running = set({"none": [], "one": held[-1:], "all": held}[how])
        more = self.system.crash(inc, running, died=died, company=company)
        self.forget(worker)
        moves = self._recovered(before, inc, running=running, died=died, alone=len(running) + company == 1)
        assert more == ("suspect" in moves.values())

    def _recovered(
        self, before: Snapshot, inc: str, *, running: set[bytes] | None, died: bool, alone: bool
    ) -> dict[bytes, str]:
        board = Board.of(before)
        order = before.in_order(board.held.get(inc, ()))
        moves = board.recover(inc, order, self.system.now, running=running, died=died, alone=alone)
        after = self.system.look()
        assert Board.of(after) == board
        assert inc.encode() not in after.table("calls")
        return moves

    @rule(which=workers, how=st.sampled_from(["one", "all"]))
    def read_what_it_runs(self, which: int, how: str) -> None:
        """A parent or reaper reads what an incarnation holds, and acts on it at some other time."""
        worker, session = self.busy(which)
        held = self.held_by(worker)
        self.scans.append((session.incarnation, set(held[:1] if how == "one" else held)))

    @rule(twice=st.booleans())
    @precondition(lambda self: self.scans)
    def close_by_a_stale_read(self, twice: bool) -> None:
        inc, running = self.scans.pop(0)
        if twice:
            self.scans.append((inc, running))
        before = self.seen
        registered = inc.encode() in before.table("calls")
        close = leasing.close(self.system.keys, inc, died=True, alone=len(running) == 1, running=sorted(running))
        moves = self.system.line.run(close)
        if not registered:
            assert moves == []
            self.unchanged()
        else:
            self._recovered(before, inc, running=running, died=True, alone=len(running) == 1)

    @rule(which=st.integers(0, 9))
    @precondition(lambda self: self.ghosts)
    def a_lost_call_arrives(self, which: int) -> None:
        """A call whose connection was given up executes after all: it changes nothing."""
        command = self.ghosts[which % len(self.ghosts)]
        try:
            self.system.line.execute(command)
        except (Lost, Stale, BrokerRefused):
            pass
        self.unchanged()

    def _collect_ghosts(self) -> None:
        line = self.system.line
        line.faults.clear()
        self.ghosts = (self.ghosts + line.late)[-4:]
        line.late.clear()

    # -- time, upkeep -------------------------------------------------------------------------------------

    @rule(which=workers, reaped=st.sampled_from([True, True, False]))
    @precondition(lambda self: any(w.session and not self.lost(w) for w in self.workers))
    def a_lease_ends(self, which: int, reaped: bool) -> None:
        """A worker is stopped, or cut off, while the others live on."""
        living = [w for w in self.workers if w.session and not self.lost(w)]
        self._lose(living[which % len(living)], reaped)

    def _lose(self, worker: Worker, reaped: bool) -> None:
        self.system.end_lease(*(w.session.incarnation for w in self.workers if w.session and w is not worker))
        if reaped:
            self.seen = self.system.look()
            self._reap()

    @rule(what=st.sampled_from(["time", "time", "reap", "promote", "renew", "silence"]), steps=st.integers(1, 4))
    def look_after_it(self, what: str, steps: int) -> None:
        if what == "time":
            self.system.pass_time(steps, *(w.session.incarnation for w in self.workers if w.session))
        else:
            {"reap": self._reap, "promote": self._promote, "renew": self._renew, "silence": self._silence}[what]()

    def _reap(self) -> None:
        """What has an ended lease is recovered, nobody else is touched."""
        before, now = self.seen, self.system.now
        ended = [inc.decode() for inc, end in before.table("leases").items() if end <= now]
        pulse = float(before["pulse"]) if "pulse" in before else 0.0
        if now - pulse > LEASE / 2:
            ended = []  # nobody could renew: everybody gets a fresh lease first
        self.system.line.drive(self.system.reaper.reap())
        board = Board.of(before)
        for inc in ended:
            order = before.in_order(board.held.get(inc, ()))
            board.recover(inc, order, now, running=None, died=True, alone=False)
        after = self.system.look()
        assert Board.of(after) == board
        assert set(after.table("leases")) == set(before.table("leases")) - {inc.encode() for inc in ended}

    def _silence(self) -> None:
        """The server was away, or everybody was: no lease ends by that alone."""
        self.system.now = (self.system.now // STEP + 10 * LEASE // STEP) * STEP
        before = self.seen = self.system.look()
        self.system.line.drive(self.system.reaper.reap())
        assert set(self.system.look().table("calls")) == set(before.table("calls"))

    def _renew(self) -> None:
        for worker in self.workers:
            if worker.session:
                renewal, inc = self.system.renew(worker.session.incarnation), worker.session.incarnation
                marked = self.seen.held(inc).keys() & self.seen.table("revoked")
                assert renewal.lost == ({inc} if self.lost(worker) else set())
                assert sorted(renewal.revoked) == sorted((inc, id_) for id_ in marked)

    def _promote(self) -> None:
        board = Board.of(self.system.look())
        board.promote(QUEUE_OF, self.system.now)
        self.system.line.drive(self.system.reaper.promote())
        assert Board.of(self.system.look()) == board

    # -- those who look on --------------------------------------------------------------------------------

    @rule(queue=st.sampled_from(["p", "q"]))
    @precondition(lambda self: self.seen.under("dead"))
    def replay(self, queue: str) -> None:
        dead = sorted(self.seen.table("dead:" + queue))
        for id_ in IDS:
            replayed = self.system.line.execute(steering.replay(self.system.keys, queue, id_, b""))
            assert replayed == (id_ in dead)
        board = Board.of(self.seen)
        board.dead.pop(queue, None)
        for id_ in dead:
            board.queues.setdefault(queue, []).append(id_)
        assert Board.of(self.system.look()) == board

    @rule(queue=st.sampled_from(["p", "q"]))
    @precondition(lambda self: self.seen.under("dead"))
    def purge(self, queue: str) -> None:
        dead = set(self.seen.table("dead:" + queue))
        assert self.system.line.execute(steering.purge(self.system.keys, queue, IDS)) == len(dead)
        self._end(dead)

    @rule(
        name=st.sampled_from(["q", "q", "p", "u", "u"]), seconds=st.sampled_from([0.0, 0.0, 10.0]), over=st.booleans()
    )
    def pause(self, name: str, seconds: float, over: bool) -> None:
        board = Board.of(self.seen)
        field = paused_as(name)
        answer = self.system.line.execute(steering.pause(self.system.keys, name, seconds, "me", "a reason"))
        assert answer == (field not in board.paused)
        board.paused[field] = self.system.now + 1000 * seconds if seconds else 0.0
        assert Board.of(self.system.look()) == board
        if seconds and over:
            self.the_state_is_sound()
            self.system.pass_time(4, *(w.session.incarnation for w in self.workers if w.session))
            self._promote()
            assert field not in Board.of(self.system.look()).paused

    @rule(number=st.integers(0, 1), then=st.sampled_from(["", "resume", "revoke", "both", "hold"]))
    def stand_in_line(self, number: int, then: str) -> None:
        """A message of a paused task comes to its turn, and what is done about that comes soon."""
        line, id_ = "gated:q|u#p", IDS[1]
        self._sends([id_])
        self.system.line.execute(steering.resume(self.system.keys, "q"))
        self.system.line.execute(steering.pause(self.system.keys, "u", 0, "me", "a reason"))
        worker, _ = self.begun(number)
        self.the_state_is_sound()
        if self.lost(worker):
            return
        self._exchange(worker, [], 3, [])
        self.the_state_is_sound()
        if then in ("resume", "both", "hold") and self.seen.row(line):
            self.resume("u")
            self.the_state_is_sound()
        if then in ("revoke", "both") and id_ in self.living:
            self.revoke(id_, b"in line", [])
            self.the_state_is_sound()
        if then == "hold":
            self.pause("q", 0.0, over=False)
            self.the_state_is_sound()
            self._exchange(worker, [], 1, [])

    @rule(name=st.sampled_from(["q", "p", "u"]))
    @precondition(lambda self: self.seen.table("paused"))
    def resume(self, name: str) -> None:
        board = Board.of(self.seen)
        was = board.paused.pop(paused_as(name), None)
        assert self.system.line.execute(steering.resume(self.system.keys, name)) == (was is not None)
        assert Board.of(self.system.look()) == board

    def _resume_all(self) -> None:
        for name in ("q", "p", "u"):
            self.system.line.execute(steering.resume(self.system.keys, name))

    @rule(id_=ids, why=st.sampled_from([b"", b"a mistake"]), faults=st.sampled_from([[], [], ["before"], ["after"]]))
    def revoke(self, id_: bytes, why: bytes, faults: list[str]) -> None:
        board = Board.of(self.seen)
        expected = [board.revoke(id_, why) for _ in range(1 + faults.count("after"))]
        self.system.line.faults.extend(faults)
        answer = self.system.line.run(steering.revoke(self.system.keys, id_, why.decode()))
        assert answer == expected[-1]
        self._refuse(board, {id_: expected[0]}, why)

    @rule(which=st.sampled_from([Which(task="u"), Which(queue="q"), Which(task="p", headers={"short": True})]))
    @precondition(lambda self: self.living)
    def revoke_all(self, which: Which) -> None:
        board = Board.of(self.seen)
        meant = [id_ for id_, value in self.seen.table("messages").items() if which.match(value)]
        answers = {id_: board.revoke(id_, b"all") for id_ in meant if id_ not in board.marked}
        counted = self.system.line.drive(persistent(revoke_all(self.system.keys, which, "all"), "here", 60.0))
        assert counted == sum(answer != "dead" for answer in answers.values())
        self._refuse(board, answers, b"all")

    def _refuse(self, board: Board, answers: dict[bytes, str], why: bytes) -> None:
        """What was answered about these ids is so."""
        after = self.system.look()
        assert Board.of(after) == board
        for id_, answer in answers.items():
            if answer in ("running", "revoked"):
                self.refused[id_] = why
            if answer == "revoked":
                assert after.result(id_) == revoked(why)
            if answer == "running":
                (inc,) = (inc for inc in after.under("processing") if id_ in after.held(inc))
                assert id_ in after.row("control:" + inc), "its parent is not told"
                assert (inc, id_) in self.system.renew(inc).revoked, "nor by a renewal"

    @rule(id_=ids)
    @precondition(lambda self: self.seen.under("queue") or self.seen.under("suspects"))
    def revoke_out_of_reach(self, id_: bytes) -> None:
        """What ``revoke.lua`` does with a message that stands where to search takes long: it ends in its turn."""
        if any(id_ in of for lists in (self.seen.under("queue"), self.seen.under("suspects")) for of in lists.values()):
            self.system.raw("HSET", self.system.keys["revoked"], id_, b"long")
            self.system.raw("SET", self.system.keys["result:" + id_.decode()], revoked(b"long"), "PX", 60_000)
            self.refused[id_] = b"long"

    @rule(asked=st.lists(ids, min_size=1, max_size=3, unique=True), inbox=st.sampled_from(["in1", "in2"]))
    def await_results(self, asked: list[bytes], inbox: str) -> None:
        answers = self.system.line.run(awaiting.await_results(self.system.keys, inbox, asked))
        for id_, answer in zip(asked, answers, strict=True):
            if self.seen.result(id_):
                assert answer == self.seen.result(id_)
            elif id_ in self.seen.table("reasons"):
                assert answer == [self.seen.table("reasons")[id_]]
            else:
                assert answer == (id_ in self.living)
                if answer:
                    assert inbox.encode() in self.system.look().table("waiters")[id_].split()

    @rule(what=st.integers(0, 11))
    def trouble(self, what: int) -> None:
        """Results are forgotten, a producer repeats itself, scripts are flushed; at times the server is killed."""
        match what:
            case 0 | 1 | 2:
                self._send_the_last_call_again(IDS[what])
            case 3:
                self.system.raw("SCRIPT", "FLUSH")
            case 7 if SOAK or self.ends > 1:
                self.server.kill()
                self.server.start()
                self.system.line.close()
                self.unchanged()
            case _:
                for id_ in IDS:
                    self.system.line.run(awaiting.forget(self.system.keys, id_))

    @rule(rest=st.sampled_from(["done", "failed", "revoked"]))
    @precondition(lambda self: self.ends > 3)
    def everything_ends(self, rest: str) -> None:
        """All is resumed, run and settled; then nothing is left but what an app knows of itself."""
        self._resume_all()
        self.system.end_lease()
        if rest == "revoked":
            for id_ in IDS:
                self.the_state_is_sound()
                self.revoke(id_, b"", [])
        for worker in self.workers * 6:
            self.system.line.drive(self.system.reaper.reap())
            self.system.pass_time(1, *(w.session.incarnation for w in self.workers if w.session))
            self.the_state_is_sound()
            _, session = self.begun(worker.number)
            if self.lost(worker):
                self.forget(worker)
            else:
                end = "failed" if rest == "revoked" else rest
                self._exchange(
                    worker, [outcome(id_, end) for id_ in sorted(session.held)], 1 if worker.alone else 3, []
                )
        self.the_state_is_sound()
        assert self.living <= set(self.seen.table("reasons")), "it does not end"
        assert {name.partition(":")[0] for name in self.seen.kinds} <= REGISTRY | {"dead", "reasons"} | (
            {"messages", "waiters"} if self.living else set()
        )

    def _end(self, ids: object) -> None:
        """These messages have reached their end, each for the first time."""
        for id_ in ids:  # type: ignore[attr-defined]
            assert id_ in self.living, "ended twice"
            self.living.discard(id_)
            self.ends += 1


@pytest.mark.timeout(0 if SOAK else 300)
def test_whatever_happens_nothing_is_lost_doubled_or_misplaced(model_server: Server) -> None:
    class OnThisServer(Machine):
        server = model_server

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=5000 if SOAK else 150,
            stateful_step_count=60 if SOAK else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Shrinking on a real server takes its time; who only asks whether there is a failure does without.
            phases=PHASES,
            print_blob=True,
        ),
    )
