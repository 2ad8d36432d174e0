"""Every state the small system can reach: two ids, two workers, a reaper with a stale read, one who revokes or pauses.

A breadth-first search on a real server: the suite looks at the nearest states, ``TASKQ_SOAK=1`` at all. A state is all
its keys; two states are the same if they differ only in what cannot matter: exact times, call numbers, counters (the
ledger is checked at each step instead), which of two workers is which. From each state every action is tried, and each
step is compared with `tests.model.oracle`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ResponseError

from taskq.broker.call import Command
from taskq.broker.commands import announcing, holding, keeping, leasing, producing, steering
from taskq.broker.commands.outcomes import words
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection, pack, pack_script
from taskq.broker.queue_set import QueueSet
from taskq.broker.scripts import all_scripts
from taskq.message.outcome import Again, Dead, Outcome, Returned
from tests.model.audit import SCRIPT, Snapshot, silent_bells, violations
from tests.model.oracle import Board
from tests.model.system import LEASE, T0, stored
from tests.support import SOAK, Server, stopped, stopped_script, unique_name

A, B = b"message-00000001", b"message-00000002"
QUEUE_OF = {A: "q", B: "q"}
WORKERS = ("w1", "w2")
SET = QueueSet("set", ("q",))
DELAY = 100.0

#: Puts back all keys as they were dumped; the clock stands at T0, somebody renewed a moment ago.
RESTORE = b"""
local P = KEYS[1]
for _, key in ipairs(redis.call('KEYS', (string.gsub(P, '{', '[{]')) .. '*')) do redis.call('DEL', key) end
for i = 1, #ARGV - 1, 2 do redis.call('RESTORE', P .. ARGV[i], 0, ARGV[i + 1]) end
redis.call('SET', P .. 'clock', ARGV[#ARGV])
redis.call('SET', P .. 'pulse', ARGV[#ARGV])
"""

#: What expires in time has expired.
PASSING = ("producer:", "result:", "control:")

Scan = tuple[str, frozenset[bytes]]


@dataclass
class State:
    """What the keys are, and what a reaper has read and not acted upon."""

    snap: Snapshot
    scan: Scan | None
    board: Board
    path: tuple[str, ...]


@dataclass
class Action:
    """One step: its name, its commands, what it makes of the board, and of the stale read.

    Attributes:
        follows: Instead of ``plays``, where the board may come out in several ways: it is given the one after as well.
    """

    name: str
    commands: list[Command[Any]]
    plays: Callable[[Board], object] | None = None
    scan: Scan | None = None
    refused: bool = False
    follows: Callable[[Board, Board], object] | None = None


@dataclass
class Scope:
    """What of the system is searched: what can happen beside workers that begin, take, settle, crash and are lost.

    Attributes:
        max_crashes: The counted death that is the last.
        later: Messages with a delay, and retries with one.
        stale: A reaper that acts on what it read before.
        revokes: Messages are revoked.
        pauses: What is paused and resumed: queue or task.
    """

    max_crashes: int = 2
    later: bool = False
    stale: bool = False
    revokes: bool = False
    pauses: tuple[str, ...] = ()


def plain(*args: bytes | str | int | float) -> Command[Any]:
    """A plain command."""
    return Command(None, [str(a) if type(a) is float else a for a in args], lambda reply: reply)


class Search:
    """The search."""

    def __init__(self, url: str, scope: Scope) -> None:
        self.keys = Keys(unique_name())
        self.scope = scope
        self.sends = 0
        self.steps = 0
        self.connection = Connection(url)
        self.one(plain("FLUSHALL"))
        for script in all_scripts():
            self.one(plain("SCRIPT", "LOAD", stopped_script(script).text))
        self.one(plain("SET", self.keys["clock"], T0))
        settings = {"lease": LEASE, "max_crashes": scope.max_crashes}
        self.one(announcing.publish_tasks(self.keys, [("t", "q", "")], settings))
        if "t" in scope.pauses:  # the queue is marked by that once and for all
            self.one(steering.pause(self.keys, "t", 0, "", ""), steering.resume(self.keys, "t"))

    def one(self, *those: Command[Any]) -> None:
        for command in those:
            self.connection.execute(stopped(command))

    # -- actions ------------------------------------------------------------------------------------------

    def actions(self, state: State) -> Iterator[Action]:
        snap = state.snap
        for id_ in (A, B):
            if id_ not in snap.table("messages"):
                yield self.send(id_, b"c", lambda board, id_=id_: board.offer("q", id_))
                if self.scope.later:
                    yield self.send(id_, b"c d100000", lambda board, id_=id_: board.due.update({id_: T0 + 100_000.0}))
            else:
                yield self.send(id_, b"c", lambda board: None)
        yield from self.upkeep(state)
        yield from self.stopping(state)
        for worker in WORKERS[:1] if self.alike(state) else WORKERS:
            if worker.encode() in snap.table("leases"):
                yield from self.working(state, worker)
            else:
                register = holding.register(self.keys, worker, LEASE, b"", SET)
                yield Action(f"{worker} begins", [register], lambda board: None, state.scan)
                yield Action(
                    f"{worker} is not there", [self.call(snap, worker, [(A, b"")], want=1)], None, state.scan, True
                )

    def send(self, id_: bytes, options: bytes, plays: Callable[[Board], object]) -> Action:
        self.sends += 1
        message = [(id_, stored(id_, "q", "t"), options)]
        return Action(
            f"send {id_[-1:]!r} {options!r}", [producing.enqueue(self.keys, b"p%d" % self.sends, 1, message)], plays
        )

    def call(self, snap: Snapshot, worker: str, outcomes: list[Outcome], want: int = 0, mode: str = "") -> Command[Any]:
        number = int(snap.table("calls").get(worker.encode(), b"0").partition(b".")[0]) + 1
        return holding.fetch(self.keys, worker, number, words(outcomes, 1000), want=want, set_id=SET.id, mode=mode)

    def upkeep(self, state: State) -> Iterator[Action]:
        snap, now = state.snap, float(T0)
        ended = [inc.decode() for inc, end in snap.table("leases").items() if end <= T0]

        def reap(board: Board) -> None:
            for inc in ended:
                self.recover(board, snap, inc, None, died=True, alone=False)

        yield Action("reap", [keeping.reap(self.keys, 10)], reap, state.scan)
        if snap.table("schedule"):
            due = [
                plain("ZADD", self.keys["schedule"], T0 - 1000 + n, id_) for n, id_ in enumerate(snap.table("schedule"))
            ]

            def promote(board: Board) -> None:
                board.due = {id_: now - 1000 + n for n, id_ in enumerate(snap.table("schedule"))}
                board.promote(QUEUE_OF, now)

            yield Action("promote", [*due, keeping.promote(self.keys, "x", 10, 1000)], promote, state.scan)
        for id_ in snap.table("dead:q"):

            def replay(board: Board, id_: bytes = id_) -> None:
                board.dead["q"].discard(id_)
                board.offer("q", id_)

            yield Action(f"replay {id_[-1:]!r}", [steering.replay(self.keys, "q", id_, b"")], replay, state.scan)
            purge = steering.purge(self.keys, "q", [id_])
            yield Action(
                f"purge {id_[-1:]!r}", [purge], lambda board, id_=id_: board.dead["q"].discard(id_), state.scan
            )
        if state.scan is not None:
            worker, running = state.scan
            yield self.close(snap, worker, running, "by a stale read ", None)

    def stopping(self, state: State) -> Iterator[Action]:
        """What somebody does who wants something not to run."""
        for id_ in state.snap.table("messages") if self.scope.revokes else ():
            revoke = steering.revoke(self.keys, id_, "")
            yield Action(f"revoke {id_[-1:]!r}", [revoke], lambda board, id_=id_: board.revoke(id_, b""), state.scan)
        for name in self.scope.pauses:
            field = name if name == "q" else "=" + name
            if field in state.board.paused:
                resume = steering.resume(self.keys, name)
                yield Action(f"resume {name}", [resume], lambda board, f=field: board.paused.pop(f), state.scan)
            else:
                pause = steering.pause(self.keys, name, 0, "", "")
                yield Action(f"pause {name}", [pause], lambda board, f=field: board.paused.update({f: 0}), state.scan)

    def recover(self, board: Board, snap: Snapshot, inc: str, running: Any, *, died: bool, alone: bool) -> None:
        order = snap.in_order(board.held.get(inc, ()))
        board.recover(inc, order, T0, running=running, died=died, alone=alone, max_crashes=self.scope.max_crashes)

    def close(
        self, snap: Snapshot, worker: str, running: frozenset[bytes], why: str, scan: Scan | None, died: bool = True
    ) -> Action:
        alone = len(running) == 1
        close = leasing.close(self.keys, worker, died=died, alone=alone, running=sorted(running))
        return Action(
            f"{worker} is closed {why}with {sorted(running)} running, died {died}",
            [close],
            lambda board: self.recover(board, snap, worker, set(running), died=died, alone=alone),
            scan,
        )

    def working(self, state: State, worker: str) -> Iterator[Action]:
        snap, inc = state.snap, worker.encode()
        held = snap.held(worker)

        def take(board: Board, after: Board, want: int) -> None:
            there = board.takeable("q")
            standing = [id_ for lists in (board.lines, board.queues) for ids in lists.values() for id_ in ids]
            taken = sorted(set(after.held.get(worker, ())) - set(held), key=standing.index)
            stood = board.standing
            board.take(worker, taken, QUEUE_OF)
            board.pass_by(after, stood)
            assert len(taken) <= want
            assert len(taken) + board.passed >= min(want, there), "something was there and was not taken"

        def take_suspect(board: Board, after: Board) -> None:
            there = board.takeable_suspects("q")
            taken = list(after.held.get(worker, ()))
            for id_ in taken:
                board.take_suspect(worker, id_, QUEUE_OF)
            board.pass_by(after)
            assert len(taken) == there, "a suspect was there and was not taken"

        if not any(item.suspect for item in held.values()):
            waiting = sum(map(len, (*snap.under("queue").values(), *snap.under("gated").values())))
            for want in (1, 2)[: max(waiting, 1)]:
                call = self.call(snap, worker, [], want)
                follows = partial(take, want=want)
                yield Action(f"{worker} takes {want}", [call], None, state.scan, follows=follows)
        if not held:
            call = self.call(snap, worker, [], 1, "solo")
            yield Action(f"{worker} takes a suspect", [call], None, state.scan, follows=take_suspect)
        yield from self.settling(state, worker)
        if snap.table("leases")[inc] > T0:
            end = plain("ZADD", self.keys["leases"], "XX", T0 - 1000, worker)
            yield Action(f"the lease of {worker} ends", [end], lambda board: None, state.scan)
        else:
            yield Action(f"{worker} renews", [leasing.renew(self.keys, LEASE, [SET], [worker])], None, state.scan)
        others = state.scan if state.scan and state.scan[0] != worker else None
        runs = {frozenset(), frozenset(held), *(frozenset([id_]) for id_ in held)}
        for running in runs:
            yield self.close(snap, worker, running, "", others)
            if self.scope.stale and state.scan is None and running:
                yield Action(
                    f"it is read that {worker} runs {sorted(running)}", [], lambda board: None, (worker, running)
                )
        yield self.close(snap, worker, frozenset(held), "", others, died=False)
        known = sorted(held)[:1]
        number = int(snap.table("calls")[inc].partition(b".")[0])
        yield Action(
            f"{worker} knows of {known} only",
            [holding.sync(self.keys, worker, number + 1, number, known)],
            lambda board: board.sync(worker, snap.in_order(board.held.get(worker, ())), known),
            state.scan,
        )

    def settling(self, state: State, worker: str) -> Iterator[Action]:
        snap, held = state.snap, state.snap.held(worker)

        def settle(outcome: Outcome) -> Action:
            command = self.call(snap, worker, [outcome])
            name = f"{worker} settles {outcome}"
            return Action(name, [command], lambda board: board.settle(worker, [outcome], QUEUE_OF, T0), state.scan)

        for id_ in (A, B):
            again = stored(id_, "q", "t")[:2] + b"%8d" % 0 + stored(id_, "q", "t")[2:]
            yield settle((id_, b""))
            if id_ in held:
                yield settle(Dead(id_, "failed", b"", b""))
                yield settle(Returned(id_))
                yield settle(Again(id_, again, 0.0, "retried"))
                if self.scope.later:
                    yield settle(Again(id_, again, DELAY, "retried"))
        if len(held) == 2:
            both: list[Outcome] = [Returned(id_) for id_ in snap.in_order(held)]
            command = self.call(snap, worker, both)
            yield Action(
                f"{worker} returns both", [command], lambda board: board.settle(worker, both, QUEUE_OF, T0), state.scan
            )

    # -- the search ---------------------------------------------------------------------------------------

    def run(self, most: int) -> int:
        """Visit everything, the nearest states first, up to so many; returns how many there are."""
        first = self.play(None, [Action("", [])])[0][1]
        start = State(first, None, Board.of(first), ())
        seen = {self.canonical(start)}
        todo = deque([start])
        while todo and len(seen) < most:
            state = todo.popleft()
            tried = list(self.actions(state))
            for action, snap in self.play(state, tried):
                self.steps += 1
                after = State(snap, action.scan, Board.of(snap), (*state.path, action.name))
                self.check(state, action, after)
                key = self.canonical(after)
                if key not in seen:
                    seen.add(key)
                    todo.append(after)
        return len(seen)

    def play(self, state: State | None, actions: list[Action]) -> list[tuple[Action, Snapshot]]:
        """Play each action from the same state, all in one exchange with the server."""
        kept = {} if state is None else {n: d for n, d in state.snap.dump.items() if not n.startswith(PASSING)}
        restored = [word for pair in kept.items() for word in pair]
        now = T0 if state is None else T0 + 2 * len(state.path)  # so that none is accepted at the same time as another
        restore = pack([b"EVAL", RESTORE, 1, self.keys.prefix, *restored, now])
        audit = pack([b"EVAL", SCRIPT, 1, self.keys.prefix, now])
        packed, counts = [], []
        for action in actions:
            if state is not None:
                packed.append(restore)
            for command in map(stopped, action.commands):
                packed.append(pack_script(command.script, command.args) if command.script else pack(command.args))
            packed.append(audit)
            counts.append((state is not None) + len(action.commands))
        raw = self.connection._raw
        raw.send_packed_command([b"".join(packed)], check_health=False)
        found = []
        for action, count in zip(actions, counts, strict=True):
            for _ in range(count):
                try:
                    raw.read_response()
                except ResponseError as error:
                    raise AssertionError(f"{(*state.path, action.name) if state else action.name}: {error}") from error
            found.append((action, Snapshot.read(raw.read_response())))
        return found

    def check(self, before: State, action: Action, after: State) -> None:
        wrong = violations(after.snap, self.scope.max_crashes)
        assert not wrong, (after.path, wrong)
        assert not silent_bells(after.snap), after.path  # nobody here takes a token
        if action.refused:
            kept = {name: dump for name, dump in before.snap.dump.items() if not name.startswith((*PASSING, "pulse"))}
            now = {name: dump for name, dump in after.snap.dump.items() if not name.startswith((*PASSING, "pulse"))}
            assert now == kept, after.path
        if action.plays or action.follows:
            board = Board.of(before.snap)
            board.told.clear()
            try:
                if action.plays:
                    action.plays(board)
                elif action.follows:
                    action.follows(board, after.board)
            except AssertionError as error:
                raise AssertionError(after.path) from error
            assert after.board == board, after.path

    def canonical(self, state: State) -> str:
        """What tells one state from another; the names of workers and messages do not."""
        return min(self._seen_as(state, names) for names in (WORKERS, WORKERS[::-1]))

    def alike(self, state: State) -> bool:
        """Whether what one worker may do the other may do as well, with the same result."""
        return self._seen_as(state, WORKERS) == self._seen_as(state, WORKERS[::-1])

    def _seen_as(self, state: State, names: Sequence[str]) -> str:
        snap, board, name = state.snap, state.board, dict(zip(WORKERS, names, strict=True))
        ids = {id_: n for n, id_ in enumerate(snap.in_order(snap.table("messages")))}
        leases = sorted((name[inc.decode()], end > T0 + 1000) for inc, end in snap.table("leases").items())
        held = sorted((name[inc], sorted((ids[i], h.suspect) for i, h in of.items())) for inc, of in board.held.items())
        # Of what was read, only what is still there matters.
        scan = None if state.scan is None else (name[state.scan[0]], sorted(ids.get(i, 9) for i in state.scan[1]))
        due = [ids[i] for i in sorted(board.due, key=board.due.__getitem__)]
        waiting = [[ids[i] for i in lists.get("q", [])] for lists in (board.queues, board.suspects)]
        dead = sorted(ids[i] for i in board.dead.get("q", ()))
        crashes = sorted((ids[i], n) for i, n in board.crashes.items())
        served = (sorted(snap.table("set-leases")), list(snap.table("ready:set")), sorted(snap.under("solo")))
        stopped = (
            sorted(board.paused),
            sorted(ids[i] for i in board.marked),
            [[ids[i] for i in line] for line in board.lines.values()],
            (sorted(snap.table("lines:q")), snap.table("gates"), snap.table("marks")),
        )
        return repr((leases, held, scan, due, waiting, dead, crashes, served, stopped))


SCOPES = {
    "a stale read": Scope(stale=True),
    "revoking": Scope(revokes=True),
    "a pause of the queue": Scope(pauses=("q",)),
    "a pause of the task": Scope(pauses=("t",)),
}
LONG = {
    "delays": Scope(3, later=True, stale=True),
    "a stale read, and revoking": Scope(stale=True, revokes=True),
    "revoking, and both pauses": Scope(revokes=True, pauses=("q", "t")),
}

#: How many states of each scope the suite looks at; with ``TASKQ_SOAK=1`` it is all.
NEAREST = 520


@pytest.mark.timeout(0 if SOAK else 300)
@pytest.mark.parametrize("scope", SCOPES | LONG if SOAK else SCOPES)
def test_every_reachable_state_of_the_small_system_is_sound(unkept_server: Server, scope: str) -> None:
    search = Search(unkept_server.url, (SCOPES | LONG)[scope])
    states = search.run(1 << 30 if SOAK else NEAREST)
    print(f"{states} states, {search.steps} steps")
    assert states > 500
