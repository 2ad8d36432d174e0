"""What a step must make of a state, worked out a second time and without a script: where messages stand, in order.

A `Board` is the part of a state that matters for that: each message in its place. Each method is one move of the
contract; a test plays the move on a board made before the step and compares the board with one made after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from taskq.broker.outcomes import Again, Dead, Ended, Outcome, Returned, id_of
from tests.model.audit import Held, Snapshot

Lists = dict[str, list[bytes]]


@dataclass
class Board:
    """Where messages stand.

    Attributes:
        queues, suspects, dead: By queue, in order.
        due: When a scheduled message is due (ms).
        held: By incarnation.
        crashes: Counted deaths.
    """

    queues: Lists = field(default_factory=dict)
    suspects: Lists = field(default_factory=dict)
    dead: dict[str, set[bytes]] = field(default_factory=dict)
    due: dict[bytes, float] = field(default_factory=dict)
    held: dict[str, dict[bytes, Held]] = field(default_factory=dict)
    crashes: dict[bytes, int] = field(default_factory=dict)

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
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Board) or self.key() != other.key():
            return False
        return all(abs(at - other.due[id_]) < 500 for id_, at in self.due.items())  # the clock runs

    __hash__ = None  # type: ignore[assignment]

    def key(self) -> object:
        """The board without what is empty, and without the times."""

        def some(lists: dict[str, object]) -> dict[str, object]:
            return {name: found for name, found in lists.items() if found}

        return (*map(some, (self.queues, self.suspects, self.dead, self.held)), set(self.due), self.crashes)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Board{self.key()}"

    # -- moves --------------------------------------------------------------------------------------------

    def settle(self, inc: str, outcomes: Iterable[Outcome], queue_of: dict[bytes, str], now: float) -> list[bytes]:
        """Outcomes of an incarnation take effect where it holds the message; returns the ids of the others."""
        held, fenced, returned = self.held.get(inc, {}), [], []
        for outcome in outcomes:
            id_ = id_of(outcome)
            if id_ not in held:
                fenced.append(id_)
            elif isinstance(outcome, Returned):
                returned.append(id_)
            else:
                self._end(held.pop(id_).queue, outcome, now)
        for id_ in reversed(returned):
            item = held.pop(id_)
            (self.suspects if item.suspect else self.queues).setdefault(item.queue, []).insert(0, id_)
        return fenced

    def _end(self, queue: str, outcome: Outcome, now: float) -> None:
        id_ = id_of(outcome)
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
        """What is due goes to its queue, in order of time."""
        ready = sorted((at, id_) for id_, at in self.due.items() if at <= now)
        for _, id_ in ready:
            del self.due[id_]
            self.offer(queue_of[id_], id_)
        return len(ready)

    def take(self, inc: str, ids: Iterable[bytes], queue_of: dict[bytes, str]) -> None:
        """Messages are taken, each from the head of its queue."""
        for id_ in ids:
            queue = queue_of[id_]
            assert self.queues.get(queue, [None])[0] == id_, f"{id_!r} was not the next of {queue}: {self.queues}"
            self.queues[queue].pop(0)
            self.held.setdefault(inc, {})[id_] = Held(queue, suspect=False)

    def take_suspect(self, inc: str, id_: bytes, queue_of: dict[bytes, str]) -> None:
        """One suspect is taken, from the head."""
        queue = queue_of[id_]
        assert self.suspects.get(queue, [None])[0] == id_, f"{id_!r} was not the next of {self.suspects}"
        self.suspects[queue].pop(0)
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
            (self.suspects if suspect else self.queues).setdefault(queue, [])[:0] = ids
        return moves
