"""What a worker's parent is told by signals, and what wakes it.

Handlers only set flags: they may run in the middle of anything, such as between the fork of a child and the note that
it exists. A pipe that each signal writes to has the main loop look at once.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any


class Signals:
    """Word left by signals.

    Attributes:
        stops: How many times the worker was told to stop.
        hung_up: Every child is to be replaced, one beside the other: what runs may end, nothing is lost.
        quits: What every child is doing is to be shown.
    """

    def __init__(self) -> None:
        """Begin with none; nothing is heeded before `catch`."""
        self.stops = 0
        self.hung_up = False
        self.quits = False
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)

    def catch(self) -> None:
        """From now on signals are heeded."""
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGQUIT, self._on_quit)
        # A child has ended, or says something in its seat. No pipe says so: tasks may close what they find.
        signal.signal(signal.SIGCHLD, self._on_child)

    def wake(self) -> None:
        """Let the main loop look at once; from any thread."""
        with suppress(BlockingIOError):  # the pipe is full of reasons to wake up
            os.write(self._wake_w, b"s")

    def wait(self, seconds: float, tellers: Sequence[int] = ()) -> None:
        """Wait for a signal, `wake`, or something to read from a descriptor of ``tellers``; at most so long."""
        if self._wake_r in wait([self._wake_r, *tellers], seconds):
            with suppress(BlockingIOError):  # a task may have read from what its process inherited
                os.read(self._wake_r, 4096)

    def _on_stop(self, _number: int, _frame: Any) -> None:
        self.stops += 1

    def _on_hangup(self, _number: int, _frame: Any) -> None:
        self.hung_up = True

    def _on_child(self, _number: int, _frame: Any) -> None:
        pass  # it has woken the main loop

    def _on_quit(self, _number: int, _frame: Any) -> None:
        """Show on standard error what every thread is doing: of this process here and now, then of every child."""
        faulthandler.dump_traceback(file=2, all_threads=True)
        self.quits = True
