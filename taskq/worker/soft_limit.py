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

    def __init__(self, coroutine: Any, seconds: float, cancel: Callable[[], object]) -> None:
        """Wrap ``coroutine``; ``cancel`` cancels the asyncio task that awaits this."""
        self._coroutine = coroutine
        self._seconds = seconds
        self._cancel = cancel
        self._fired = False

    def fire(self) -> None:
        """Interrupt it; called on the loop."""
        self._fired = True
        self._cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Await the coroutine, step by step."""
        import asyncio

        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = step()
            except StopIteration as stop:
                return stop.value
            try:
                yield awaited
                step = lambda: self._coroutine.send(None)  # noqa: E731
            except asyncio.CancelledError as cancelled:
                error: BaseException = cancelled
                if self._fired:
                    self._fired = False
                    task = asyncio.current_task()
                    if task is not None:
                        task.uncancel()
                    error = _error(self._seconds)
                step = lambda error=error: self._coroutine.throw(error)  # type: ignore[misc]  # noqa: E731
