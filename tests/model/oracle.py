"""What a step must make of a state, worked out a second time and without a script: where messages stand, in order.

A `Board` is the part of a state that matters for that: each message in its place. Each method is one move of the
contract; a test plays the move on a board made before the step and compares the board with one made after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, ids_of
from tests.model.audit import Held, Snapshot

Lists = dict[str, list[bytes]]
REVOKED = b"Xrevoked"


def _revocations(snap: Snapshot) -> list[tuple[str, bytes]]:
    return [(name, result) for name, result in snap.under("result").items() if result.startswith(REVOKED)]


@dataclass
class Board:
    """Where messages stand.

    Attributes:
        queues, suspects, dead: By queue, in order.
        due: When a scheduled message is due (ms).
        held: By incarnation.
        lines: What waits at the gate of a paused task, by line (``<queue>|<gate>``).
        crashes: Counted deaths.
        marked: Revoked messages that are still there, and why they are.
        told: The results that say of a message that it was revoked, and why.
        paused: Queues, and ``=<task>``, by when it is over (ms, 0: never).
        tasks: The task of each message.
        passed: How many were met in their turn, and not taken.
    """

    queues: Lists = field(default_factory=dict)
    suspects: Lists = field(default_factory=dict)
    dead: dict[str, set[bytes]] = field(default_factory=dict)
    due: dict[bytes, float] = field(default_factory=dict)
    held: dict[str, dict[bytes, Held]] = field(default_factory=dict)
    crashes: dict[bytes, int] = field(default_factory=dict)
    lines: Lists = field(default_factory=dict)
    marked: dict[bytes, bytes] = field(default_factory=dict)
    told: dict[bytes, bytes] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    tasks: dict[bytes, str] = field(default_factory=dict)
    #: Expired ones that the server ended when it came across them, where it has to look at each anyway.
    over: set[bytes] = field(default_factory=set)
    passed: int = 0

    @classmethod
    def of(cls, snap: Snapshot) -> Board:
        """The board of a state."""
        return cls(
            {queue: list(ids) for queue, ids in snap.under("queue").items()},
            {queue: list(ids) for queue, ids in snap.under("suspects").items()},
            {queue: set(ids) for queue, ids in snap.under("dead").items()},
            dict(snap.table("schedule")),
            {inc: snap.held(inc) for inc in snap.under("processing")},
            {id_: int(count) for id_, count in snap.table("crashes").items()},
            {line: list(ids) for line, ids in snap.under("gated").items()},
            dict(snap.table("revoked")),
            {name.encode(): result[len(REVOKED) :].lstrip(b"\n") for name, result in _revocations(snap)},
            {name.decode(): float(text.split(b" ", 2)[1]) for name, text in snap.table("paused").items()},
            {id_: snap.task_of(id_) for id_ in snap.table("messages")},
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Board) or self.key() != other.key():
            return False
        times = [(at, other.due[id_]) for id_, at in self.due.items()]
        times += [(at, other.paused[name]) for name, at in self.paused.items()]
        return all(abs(at - there) < 200 for at, there in times)  # a step takes some moments

    __hash__ = None  # type: ignore[assignment]

    def key(self) -> object:
        """The board without what is empty, and without the times."""

        def some(lists: dict[str, object]) -> dict[str, object]:
            return {name: found for name, found in lists.items() if found}

        places = map(some, (self.queues, self.suspects, self.dead, self.held, self.lines))  # type: ignore[arg-type]
        return (*places, set(self.due), self.crashes, self.marked, self.told, set(self.paused))

    def __repr__(self) -> str:
        return f"Board{self.key()}"

    # -- moves --------------------------------------------------------------------------------------------

    def settle(self, inc: str, outcomes: Iterable[Outcome], queue_of: dict[bytes, str], now: float) -> list[bytes]:
        """Outcomes of an incarnation take effect where it holds the message; returns the ids of the others."""
        held, fenced, returned = self.held.get(inc, {}), [], []
        for outcome in outcomes:
            id_ = ids_of([outcome])[0]
            if id_ not in held:
                fenced.append(id_)
            elif isinstance(outcome, Returned):
                returned.append(id_)
            else:
                self._end(held.pop(id_).queue, outcome, now)
        for id_ in reversed(returned):
            item = held.pop(id_)
            if not self._ends(id_):
                self.put_back(item.queue, id_, item.suspect)
        return fenced

    def put_back(self, queue: str, id_: bytes, suspect: bool) -> None:
        """What was not started goes to the head of where it came from: a queue, or the line of its task."""
        line = self.line(queue, id_)
        if suspect:
            self.suspects.setdefault(queue, []).insert(0, id_)
        elif self.lines.get(line):
            self.lines[line].insert(0, id_)
        else:
            self.queues.setdefault(queue, []).insert(0, id_)

    def _end(self, queue: str, outcome: Outcome, now: float) -> None:
        id_ = ids_of([outcome])[0]
        if isinstance(outcome, tuple):
            self.marked.pop(id_, None)  # a value counts
        elif self._ends(id_):
            return
        if isinstance(outcome, Again):
            if outcome.delay > 0:
                self.due[id_] = now + 1000 * outcome.delay
            else:
                self.offer(queue, id_)
            return
        self.crashes.pop(id_, None)
        if isinstance(outcome, Dead):
            self.dead.setdefault(queue, set()).add(id_)
        else:
            assert isinstance(outcome, (tuple, Ended))

    def offer(self, queue: str, id_: bytes) -> None:
        """A message comes to the end: among the suspects if a death was counted against it."""
        (self.suspects if id_ in self.crashes else self.queues).setdefault(queue, []).append(id_)

    def promote(self, queue_of: dict[bytes, str], now: float) -> int:
        """What is due goes to its queue, in order of time, and pauses end; returns how many there were."""
        over = [name for name, at in self.paused.items() if 0 < at <= now]
        for name in over:
            del self.paused[name]
        ready = sorted((at, id_) for id_, at in self.due.items() if at <= now)
        for _, id_ in ready:
            del self.due[id_]
            self.offer(queue_of[id_], id_)
        return len(ready) + len(over)

    # -- taking -------------------------------------------------------------------------------------------

    def takeable(self, queues: Iterable[str]) -> int:
        """How many of some queues nothing holds up."""
        found = 0
        for queue in queues:
            if queue not in self.paused:
                ids = [id_ for line, of in self.lines.items() if line.startswith(queue + "|") for id_ in of]
                ids += self.queues.get(queue, [])
                found += sum(id_ not in self.over and id_ not in self.marked and not self.held_up(id_) for id_ in ids)
        return found

    def take(self, inc: str, ids: Iterable[bytes], queue_of: dict[bytes, str]) -> None:
        """Messages are taken, each from the head of its queue or of an open line; what has to wait makes way."""
        for id_ in ids:
            queue = queue_of[id_]
            assert queue not in self.paused, f"{queue} is paused, and {id_!r} was taken"
            assert not self.held_up(id_), f"the task of {id_!r} is paused, and it was taken"
            assert id_ not in self.marked, f"{id_!r} is revoked, and it was taken"
            line = self.line(queue, id_)
            assert id_ in self.lines.get(line, [id_]) or not self.lines[line], (
                f"{id_!r} was taken before {self.lines[line]}"
            )
            standing = self.lines[line] if id_ in self.lines.get(line, ()) else self.queues.get(queue, [])
            while standing and standing[0] != id_ and self._passes(queue, standing):
                pass
            assert standing[:1] == [id_], f"{id_!r} was not the next of {queue}: {self}"
            standing.pop(0)
            self.held.setdefault(inc, {})[id_] = Held(queue, suspect=False)

    @property
    def standing(self) -> set[str]:
        """The lines in which there is something."""
        return {line for line, ids in self.lines.items() if ids}

    def pass_by(self, after: Board, stood: Iterable[str] = ()) -> None:
        """What a fetch came across and did not take: from a head to where it belongs, as a line that stood."""
        for queue, standing in self.queues.items():
            while standing and standing[0] not in after.queues.get(queue, ()) and self._passes(queue, standing, stood):
                pass
        for line, standing in self.lines.items():
            while standing and standing[0] not in after.lines.get(line, ()) and self._ends(standing[0]):
                standing.pop(0)
                self.passed += 1
        for queue, standing in self.suspects.items():
            for id_ in list(standing):
                if id_ not in after.suspects.get(queue, ()) and self._ends(id_):
                    standing.remove(id_)
                elif not self.held_up(id_):
                    break  # nobody looks further

    def _passes(self, queue: str, standing: list[bytes], stood: Iterable[str] = ()) -> bool:
        """The first that stands there makes way if it is revoked, or its task is paused, or some of it wait."""
        id_ = standing[0]
        if not self._ends(id_):
            line = self.line(queue, id_)
            if not (self.held_up(id_) or self.lines.get(line) or line in stood) or queue in self.paused:
                return False
            self.lines.setdefault(line, []).append(id_)
        standing.pop(0)
        self.passed += 1
        return True

    def takeable_suspects(self, queues: Iterable[str]) -> int:
        """How many queues have a suspect that is taken next."""
        found = 0
        for queue in queues:
            standing = [id_ for id_ in self.suspects.get(queue, []) if id_ not in self.marked and id_ not in self.over]
            found += queue not in self.paused and not all(map(self.held_up, standing))
        return found

    def take_suspect(self, inc: str, id_: bytes, queue_of: dict[bytes, str]) -> None:
        """The first suspect that may run is taken; those before it that are revoked end, or wait for their gates."""
        queue = queue_of[id_]
        assert queue not in self.paused and not self.held_up(id_) and id_ not in self.marked
        standing = self.suspects[queue]
        for other in standing[: standing.index(id_)]:
            if self._ends(other):
                standing.remove(other)
            else:
                assert self.held_up(other), f"{id_!r} was not the next of {self.suspects}"
        standing.remove(id_)
        self.held.setdefault(inc, {})[id_] = Held(queue, suspect=True)

    def recover(
        self, inc: str, order: Iterable[bytes], now: float, *, running: set[bytes] | None, died: bool, alone: bool,
        max_crashes: int = 3,
    ) -> dict[bytes, str]:  # fmt: skip
        """An incarnation is gone: what it held goes back; returns where each went.

        Args:
            inc: The incarnation.
            order: What it held, in the order of acceptance.
            now: Server time.
            running: What may have been running, None if all of it may.
            died: Whether its process died under them.
            alone: Whether a single running message had the process for itself.
            max_crashes: The counted death that is the last, 2 or 3.
        """
        held = self.held.pop(inc, {})
        suspected = set(held) if running is None else running & set(held)
        counted = died and len(suspected) == 1 and (alone or len(held) == 1)
        heads: dict[tuple[bool, str], list[bytes]] = {}
        moves = {}
        for id_ in order:
            item = held[id_]
            place = "suspect" if item.suspect else "queue"
            if self._ends(id_):
                moves[id_] = "revoked"
                continue
            if died and id_ in suspected:
                place = "suspect"
                if counted:
                    self.crashes[id_] = self.crashes.get(id_, 0) + 1
                    place = (
                        "dead" if self.crashes[id_] >= max_crashes else ("suspect", "scheduled")[self.crashes[id_] - 1]
                    )
            if place == "scheduled":
                self.due[id_] = now + 1000
            elif place == "dead":
                del self.crashes[id_]
                self.dead.setdefault(item.queue, set()).add(id_)
            else:
                heads.setdefault((place == "suspect", item.queue), []).append(id_)
            moves[id_] = place
        for (suspect, queue), ids in heads.items():
            for id_ in reversed(ids):
                self.put_back(queue, id_, suspect)
        return moves

    def sync(self, inc: str, order: Iterable[bytes], known: Iterable[bytes]) -> None:
        """What an incarnation holds and does not know of was not begun, and goes back."""
        for id_ in reversed([id_ for id_ in order if id_ not in known]):
            item = self.held[inc].pop(id_)
            if not self._ends(id_):
                self.put_back(item.queue, id_, item.suspect)

    # -- pausing and revoking -----------------------------------------------------------------------------

    def held_up(self, id_: bytes) -> bool:
        """Whether the task of a message is paused."""
        return "=" + self.tasks.get(id_, "") in self.paused

    def line(self, queue: str, id_: bytes) -> str:
        """Where a message of a paused task waits."""
        return f"{queue}|{self.tasks.get(id_, '')}#p"

    def revoke(self, id_: bytes, why: bytes) -> str:
        """A message is not to run, or to run no longer; returns what is answered."""
        if any(id_ in held for held in self.held.values()):
            self.marked[id_] = why
            return "running"
        if any(id_ in ids for ids in self.dead.values()):
            return "dead"
        if id_ not in self.tasks:
            return "unknown"
        self.told[id_] = why
        self.due.pop(id_, None)
        for lists in (self.queues, self.suspects, self.lines):
            for ids in lists.values():
                ids[:] = [other for other in ids if other != id_]
        for about in (self.crashes, self.marked, self.tasks):
            about.pop(id_, None)
        return "revoked"

    def _ends(self, id_: bytes) -> bool:
        """A message that is marked, or over, ends; returns whether it was."""
        if id_ in self.marked:
            self.told[id_] = self.marked.pop(id_)
        elif id_ not in self.over:
            return False
        self.crashes.pop(id_, None)
        return True
