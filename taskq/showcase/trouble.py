"""Which fault comes when: the plan that ``taskq chaos`` makes of a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

#: Seconds between two faults, and between the last one and the end.
_GAP, _LAST = (0.5, 1.5), 1.0
#: Seconds that connections are cut again and again; that the server is away; that a worker is stopped beyond a lease.
_CUTTING, _AWAY, _BEYOND = (0.2, 0.8), (0.2, 1.2), (0.5, 1.5)


class Kind(Enum):
    """A kind of fault, by the name it has for people."""

    CHILD = "SIGKILL of a child"
    PARENT = "SIGKILL of a parent"
    WORKER = "SIGKILL of a worker"
    STOP = "SIGSTOP of a worker"
    CUT = "connections cut"
    SERVER = "SIGKILL of a server"

    def promised(self, lease: float) -> float:
        """Return within how many seconds taskq promises to have recovered, with leases of ``lease`` seconds.

        A connection that is cut is no more than a server that was away and is back.
        """
        if self in (Kind.CUT, Kind.SERVER):
            return 5.0
        return 1.0 if self is Kind.CHILD else lease + 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """A fault to come.

    Attributes:
        at: Seconds after the beginning.
        kind: What is done.
        pick: Which of those that it can be done to, from 0 up to 1.
        seconds: How long it lasts; 0 for what is over at once.
    """

    at: float
    kind: Kind
    pick: float
    seconds: float


def make_plan(seed: int, seconds: float, lease: float, kinds: Iterable[Kind]) -> list[Step]:
    """Plan faults for ``seconds`` seconds; the same arguments always give the same plan.

    The kinds come round in turn, each time in another order; children are killed twice as often.
    """
    chance, every = random.Random(seed), list(kinds)
    every += [kind for kind in every if kind is Kind.CHILD]
    steps: list[Step] = []
    deck: list[Kind] = []
    at = chance.uniform(*_GAP)
    while at < seconds - _LAST:
        if not deck:
            deck = chance.sample(every, len(every))
        kind = deck.pop()
        lasts = {
            Kind.STOP: lease + chance.uniform(*_BEYOND),
            Kind.CUT: chance.uniform(*_CUTTING),
            Kind.SERVER: chance.uniform(*_AWAY),
        }
        steps.append(Step(at, kind, chance.random(), lasts.get(kind, 0.0)))
        at += chance.uniform(*_GAP)
    return steps
