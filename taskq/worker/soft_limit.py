"""Raising `SoftTimeLimitExceeded` inside a running task: in the main thread, in another thread, in a coroutine.

Python code meets it at its next instruction; code in C that does not return to Python does not (the parent's hard
``time_limit`` is for that).
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

from taskq.errors import SoftTimeLimitExceeded


def _error(seconds: float) -> SoftTimeLimitExceeded:
    return SoftTimeLimitExceeded(f"the task has run longer than its soft_time_limit of {seconds:g} s")


class MainThreadLimit:
    """Interrupts the main thread by a signal; another thread watches the clock and calls `fire`."""

    NUMBER = signal.SIGUSR1

    def __init__(self) -> None:
        """Install the signal's handler; only in the main thread."""
        self._main = threading.main_thread().ident
        self._seconds: float | None = None
        signal.signal(self.NUMBER, self._raise)

    def arm(self, seconds: float) -> None:
        """A task begins that may be interrupted."""
        self._seconds = seconds

    def disarm(self) -> None:
        """It has ended."""
        self._seconds = None

    def fire(self) -> None:
        """Interrupt it, if it still runs."""
        if self._seconds is not None and self._main is not None:
            signal.pthread_kill(self._main, self.NUMBER)

    def _raise(self, _number: int, _frame: object) -> None:
        seconds, self._seconds = self._seconds, None
        if seconds is not None:
            raise _error(seconds)


class ThreadLimit:
    """Interrupts a function that runs in a thread.

    Source: ``PyThreadState_SetAsyncExc`` of CPython's C API.
    """

    def __init__(self) -> None:
        """Prepare for one run."""
        self._lock = threading.Lock()
        self._thread: int | None = None

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function in this thread, interruptible until it has returned."""
        self._thread = threading.get_ident()
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                _set_async_error(self._thread, None)  # it may have come too late to be seen
                self._thread = None

    def fire(self) -> None:
        """Interrupt it, if it still runs; called from another thread."""
        with self._lock:
            if self._thread is not None:
                _set_async_error(self._thread, SoftTimeLimitExceeded)


def _set_async_error(thread: int, error: type[BaseException] | None) -> None:
    cause = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), cause)


class CoroutineLimit:
    """Interrupts a coroutine at the point where it waits.

    Its asyncio task is cancelled, and the cancellation is replaced by the error on its way into the coroutine.
    """

    def __init__(self, coroutine: Any, seconds: float) -> None:
        """Wrap ``coroutine``, which has ``seconds`` from the moment it is awaited."""
        self._coroutine = coroutine
        self._seconds = seconds

    def __await__(self) -> Generator[Any, Any, Any]:
        """Await the coroutine, step by step."""
        import asyncio

        task, fired = asyncio.current_task(), False
        assert task is not None

        def fire() -> None:
            nonlocal fired
            fired = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._seconds, fire)
        error: BaseException | None = None
        try:
            while True:
                try:
                    awaited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
                except StopIteration as stop:
                    return stop.value
                try:
                    yield awaited
                    error = None
                except BaseException as thrown:  # what it awaited failed, or it is cancelled
                    error = thrown
                    if fired and isinstance(thrown, asyncio.CancelledError):
                        fired = False
                        task.uncancel()
                        error = _error(self._seconds)
        finally:
            timer.cancel()
