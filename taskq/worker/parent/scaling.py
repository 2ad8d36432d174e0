"""How many children a worker has, if that follows the work: ``--max-concurrency``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from taskq.broker.commands.looking import Backlog
from taskq.broker.patience import persistent
from taskq.broker.pool import Broker
from taskq.worker.parent.children import Children
from taskq.worker.parent.drained import backlog_of
from taskq.worker.parent.errands import Errands
from taskq.worker.plan import Plan


@dataclass(slots=True)
class Scaling:
    """How many children there should be: more while all are busy and work waits, fewer when some stay idle.

    Attributes:
        low: The fewest children.
        high: The most children.
        patience: Seconds that work waits before children are added.
        idleness: Seconds without waiting work before one is taken away.
    """

    low: int
    high: int
    patience: float = 0.5
    idleness: float = 10.0
    _quiet_since: float = field(default_factory=time.monotonic)

    def wanted(self, children: int, busy: int, pending: int, oldest: float, now: float) -> int:
        """Return how many children there should be.

        Args:
            children: How many there are.
            busy: How many of them run something.
            pending: Messages waiting in their queues.
            oldest: Age in seconds of the oldest of them.
            now: Monotonic time in seconds.
        """
        if pending or busy >= children:
            self._quiet_since = now
        if pending and busy >= children and oldest > self.patience:
            return min(self.high, max(children + 1, children * 2))
        if now - self._quiet_since > self.idleness and children > self.low:
            self._quiet_since = now
            return children - 1
        return max(self.low, min(self.high, children))


class Scaler:
    """Asks how much waits, and has children end that are too many."""

    def __init__(
        self, plan: Plan, children: Children, broker: Broker, errands: Errands, wake: Callable[[], None]
    ) -> None:
        """Prepare; ``wake`` is called, on the thread of ``errands``, when an answer has come."""
        self._scaling = Scaling(plan.concurrency, plan.max_concurrency)
        self._plan = plan
        self._children = children
        self._broker = broker
        self._errands = errands
        self._wake = wake
        self._backlog: Backlog | None = None

    def look(self) -> None:
        """Ask how much waits."""
        question = backlog_of(self._broker.partitions, self._plan.queues)
        self._errands.ask(persistent(question, self._broker.where, 1.0), self._heard)

    def _heard(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._wake()

    def wanted(self) -> int | None:
        """Return how many children there are to be, once an answer has come; None as long as none has."""
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return None
        workforce = self._children.workforce
        busy = sum(child.busy for child in workforce)
        wanted = self._scaling.wanted(len(workforce), busy, backlog.pending, backlog.oldest, time.monotonic())
        for child in workforce[wanted:]:
            self._children.retire(child)
        return wanted
