"""The second thread of a main lane, which watches over the first.

When a task lasts, it settles what ended before it and returns what was not started, so nothing waits behind a slow
task. (While C code holds the GIL it cannot.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from taskq.broker.protocol import boottime
from taskq.message.outcome import Outcome, Returned
from taskq.runs.delivery import Delivery
from taskq.worker.vital import vital

#: Seconds between two looks of the settler. Each costs the main thread the GIL for a moment.
_LOOK_EVERY = 0.008
#: After this many seconds of one task, outcomes before it are settled by the settler.
_SETTLE_AFTER = 0.005
#: After this many, messages behind it are returned; and after this many of the whole batch.
_RETURN_AFTER, _RETURN_BATCH_AFTER = 0.020, 0.040


class Hand:
    """What a main lane has in hand, for its two threads.

    Attributes:
        buffer: What was taken and has not started; whoever takes an entry out has it for itself.
        outcomes: How deliveries ended that the server does not know of.
        started: When the running task did, 0 for none.
        batch_began: When the batch did.
        waiting: Whether the lane waits for work.
        work: Set when there is something for the settler to watch.
        stopping: Whether nothing more is to be started.
        ended: Whether the lane has.
    """

    __slots__ = ("batch_began", "buffer", "ended", "outcomes", "started", "stopping", "waiting", "work")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.buffer: deque[Delivery] = deque()
        self.outcomes: deque[Outcome] = deque()
        self.started = self.batch_began = 0.0
        self.waiting = self.stopping = self.ended = False
        self.work = threading.Event()

    def take_buffer(self) -> list[Delivery]:
        """Empty the buffer; each entry goes to exactly one of the two threads."""
        taken = []
        try:
            while True:
                taken.append(self.buffer.popleft())
        except IndexError:
            return taken

    def give_back(self) -> None:
        """Return to its queue what has not started."""
        self.outcomes.extend([Returned(delivery.id) for delivery in self.take_buffer()])


def start_settler(hand: Hand, settle: Callable[[], object]) -> None:
    """Start the thread; ``settle`` tells the server what has ended, and takes nothing."""

    def watch() -> None:
        while not hand.ended:
            _wait_for_work(hand)
            look(hand, settle)

    threading.Thread(target=vital, args=("the settler of this child", watch), name="taskq-settler", daemon=True).start()


def look(hand: Hand, settle: Callable[[], object]) -> None:
    """Return and settle what a running task keeps, if it has lasted for long enough."""
    started = hand.started
    if not started:
        return  # the main thread is settling them itself
    lasted = boottime() - started
    late = lasted > _RETURN_AFTER or boottime() - hand.batch_began > _RETURN_BATCH_AFTER
    if (late or hand.stopping) and hand.buffer:
        hand.give_back()
    if lasted > _SETTLE_AFTER and hand.outcomes:
        settle()


def _wait_for_work(hand: Hand) -> None:
    """Wait a moment while there is something to watch; else until a batch begins."""
    exchanging = not hand.started and not hand.waiting  # more is about to come
    if hand.buffer or hand.outcomes or exchanging:
        time.sleep(_LOOK_EVERY)
        return
    hand.work.clear()
    if not (hand.buffer or hand.outcomes):  # no batch came between the look and the clear
        hand.work.wait()
