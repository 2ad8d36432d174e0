"""Raising an error inside a running task: in the main thread, in another thread, in a coroutine.

The error is `SoftTimeLimitExceeded` or `TaskRevoked`. Python code meets it at its next instruction; code in C that does
not return to Python does not (for that the parent kills the process: at the hard ``time_limit``, or some seconds after
the revocation).
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from taskq.broker.protocol import boottime
from taskq.errors import SoftTimeLimitExceeded, TaskRevoked
from taskq.runs.context import Revoked
from taskq.runs.delivery import Delivery
from taskq.worker.seats import Seat
from taskq.worker.vital import vital

Interruption = SoftTimeLimitExceeded | TaskRevoked


def soft_limit_error(seconds: float) -> SoftTimeLimitExceeded:
    """Make the error of a task that has a ``soft_time_limit`` of ``seconds``."""
    return SoftTimeLimitExceeded(f"the task has run longer than its soft_time_limit of {seconds:g} s")


class MainThreadInterrupt:
    """Interrupts the main thread by a signal; to be made there.

    Attributes:
        running: What runs in the main thread and may be interrupted; set and reset by whoever runs it.
    """

    NUMBER = signal.SIGUSR1

    def __init__(self, seat: Seat) -> None:
        """Install the signal's handler; ``seat`` says which messages of the lane are revoked."""
        self.running: Delivery | None = None
        self._seat = seat
        self._main = threading.main_thread().ident
        self._due: tuple[Delivery, Interruption] | None = None
        signal.signal(self.NUMBER, self._on_signal)

    def fire(self, delivery: Delivery, error: Interruption) -> None:
        """Interrupt ``delivery``, if it still runs; called from another thread."""
        self._due = delivery, error
        if self._main is not None:
            signal.pthread_kill(self._main, self.NUMBER)

    def revoke(self) -> None:
        """Interrupt what runs if it is revoked; called in the main thread, by the handler of another signal."""
        if self.running is not None and self.running.index in self._seat.revoked():
            self._raise(Revoked())

    def _on_signal(self, _number: int, _frame: object) -> None:
        due, self._due = self._due, None
        try:
            if due is not None and self.running is due[0]:
                self._raise(due[1])
        finally:
            del due  # the error's traceback leads here, and would keep alive what the task holds

    def _raise(self, error: Interruption) -> None:
        self.running = None  # once, so that the task can tidy up
        try:
            raise error
        finally:
            del error


class SoftLimits:
    """Interrupts the main thread at soft limits, by a thread that waits for nothing else (such as a server)."""

    def __init__(self, interrupt: MainThreadInterrupt) -> None:
        """Prepare; the thread is made when the first limit is set."""
        self._interrupt = interrupt
        self._due: tuple[float, Delivery] | None = None
        self._looks_at = float("inf")
        self._called = threading.Event()
        self._thread: threading.Thread | None = None

    def set(self, delivery: Delivery, at: float) -> None:
        """Interrupt ``delivery`` at that moment (by `boottime`), unless `lift` comes before."""
        self._due = at, delivery
        if self._thread is None:
            watch = partial(vital, "the watch over soft limits", self._watch)
            self._thread = threading.Thread(target=watch, name="taskq-soft-limits", daemon=True)
            self._thread.start()
        elif at < self._looks_at:  # the next one is later, mostly, and need not wake the thread
            self._called.set()

    def lift(self) -> None:
        """What ran has ended."""
        self._due = None

    def _watch(self) -> None:
        while True:
            due = self._due
            self._looks_at = float("inf") if due is None else due[0]
            if self._due is not due:
                continue
            if self._called.wait(None if due is None else max(0.0, due[0] - boottime())):
                self._called.clear()
            elif due is not None and self._due is due:
                self._due = None
                self._interrupt.fire(due[1], soft_limit_error(due[1].task.soft_time_limit or 0.0))
            due = None


class ThreadInterrupt:
    """Interrupts a function that runs in a thread.

    Source: ``PyThreadState_SetAsyncExc`` of CPython's C API.
    """

    def __init__(self) -> None:
        """Prepare for one run."""
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._fired = False

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the function in this thread, interruptible until it has returned."""
        self._thread = threading.get_ident()
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                if self._fired:
                    _set_async_error(self._thread, None)  # it may have come too late to be seen
                self._thread = None

    def fire(self, error: Interruption) -> None:
        """Interrupt it, if it still runs; called from another thread. Only the error's class gets there."""
        with self._lock:
            if self._thread is not None:
                self._fired = True
                _set_async_error(self._thread, type(error))


def _set_async_error(thread: int, error: type[BaseException] | None) -> None:
    cause = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), cause)


def _only_one_in(error: BaseException) -> BaseException | None:
    """Return the one error that groups in groups are around, None if there are several."""
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1:
            return None
        error = error.exceptions[0]
    return error


def _as_cancellation(cls: type[Interruption]) -> type[Interruption]:
    """Make a class of the same name that is a cancellation, too."""
    return type(cls.__name__, (cls, asyncio.CancelledError), {"__module__": cls.__module__, "__doc__": cls.__doc__})


_CANCELLATIONS = {cls: _as_cancellation(cls) for cls in (SoftTimeLimitExceeded, TaskRevoked, Revoked)}


class CoroutineInterrupt:
    """Interrupts a coroutine at the point where it waits.

    Its asyncio task is cancelled, and the cancellation is replaced by the error on its way into the coroutine. The
    error is a `CancelledError` as well: what the coroutine waits in, such as ``TaskGroup``, ``wait_for`` or a library's
    own clean-up, then cancels its parts as for any cancellation.
    """

    __slots__ = ("_awaited", "_coroutine", "_error", "_raised", "_task")

    def __init__(self, coroutine: Any, awaited: Any) -> None:
        """Take over a coroutine of the running asyncio task that waits, for the first time, for ``awaited``."""
        self._coroutine = coroutine
        self._awaited = awaited
        self._error: Interruption | None = None
        self._raised: Interruption | None = None
        self._task = asyncio.current_task()

    def fire(self, error: Interruption) -> None:
        """Interrupt it; called on the loop."""
        cls = _CANCELLATIONS[type(error)]
        self._error = cls.__new__(cls, *error.args)
        if self._task is not None:
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Await the coroutine, step by step, to its end."""
        awaited, thrown = self._awaited, None
        try:
            while True:
                try:
                    yield awaited
                except BaseException as error:  # what it waited for has failed, or it is cancelled
                    thrown = self._instead_of(error)
                try:
                    awaited = self._coroutine.send(None) if thrown is None else self._coroutine.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                except BaseExceptionGroup as group:  # a TaskGroup wraps whatever is not a plain cancellation
                    if self._raised is None or _only_one_in(group) is not self._raised:
                        raise
                    raise self._raised from None
                thrown = None
        finally:
            thrown = self._raised = None  # their tracebacks lead here

    def _instead_of(self, error: BaseException) -> BaseException:
        """Return what is raised in the coroutine instead of an error: for a cancellation of ours, why it is made."""
        if self._error is None or self._task is None or not isinstance(error, asyncio.CancelledError):
            return error
        self._raised, self._error = self._error, None
        self._task.uncancel()
        return self._raised
