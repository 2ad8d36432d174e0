"""What a worker's parent asks of the server, on a thread of its own.

The main thread forks, kills and heeds signals: whatever the server does, it must not wait for an answer. Like the
heartbeat, this thread holds nothing that a child needs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from taskq.broker.pool import Broker
from taskq.broker.protocol import Protocol
from taskq.errors import BrokerError
from taskq.worker.parent.closing import Closer, Closing
from taskq.worker.vital import vital

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Seconds between two tries to give back what a child held.
_AGAIN = 0.2


class Errands(threading.Thread):
    """Closes what ended children held, and asks questions."""

    def __init__(self, broker: Broker, closer: Closer, closed: Callable[[bool], None]) -> None:
        """Prepare; ``closed`` is called after each closing, with whether suspects are waiting now."""
        super().__init__(name="taskq-errands", daemon=True)
        self._broker = broker
        self._closer = closer
        self._closed = closed
        self._closings: deque[Closing] = deque()
        self._question: tuple[Protocol[Any], Callable[[Any], None]] | None = None
        self._called = threading.Event()
        self._trouble = ""  # told already

    @property
    def closing(self) -> bool:
        """Whether anything is still to be given back."""
        return bool(self._closings)

    def close(self, closing: Closing) -> None:
        """Give back what a child held; tried until the server answers."""
        self._closings.append(closing)
        self._called.set()

    def ask(self, steps: Protocol[T], heard: Callable[[T], None]) -> None:
        """Run a protocol and call ``heard`` with its value, on this thread.

        Nothing is heard if the server does not answer, or if another question is still open.
        """
        if self._question is None:
            self._question = steps, heard
            self._called.set()

    def run(self) -> None:
        """Run errands until the process ends."""
        vital("the errands of this worker", self._run)

    def _run(self) -> None:
        while True:
            self._called.wait()
            self._called.clear()
            while self._closings:
                self._close(self._closings[0])
            if self._question is not None:
                steps, heard = self._question
                with suppress(BrokerError):  # whoever still wants to know asks again
                    heard(self._broker.drive(steps))
                self._question = None

    def _close(self, closing: Closing) -> None:
        try:
            suspects = self._broker.drive(self._closer.close(closing))
        except BrokerError as error:
            if str(error) != self._trouble:
                log.warning("cannot give back what a child held, retrying: %s", error)
            self._trouble = str(error)
            time.sleep(_AGAIN)
            self._closings.rotate(-1)  # one that the server refuses must not hold up the others
            return
        self._trouble = ""
        self._closings.popleft()
        self._closed(suspects)
