"""What the tasks of a process share and must not leave changed: clean surroundings for each, at no cost for most.

A task runs in a context of its own (`contextvars`, and with it the context of `decimal`), and after it the working
folder, signals, timers and standard streams are as before. Checking costs more than a small task, so each task is
checked after its first runs, and always once it has left something changed; all others are checked after at most two
milliseconds.

What libraries set once per process, in whichever task comes first, is left alone: environment variables, locale, umask,
modules and their globals.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TextIO

from taskq.runs.delivery import NOWHERE, Route, current
from taskq.worker.forking import every_handler

log = logging.getLogger("taskq.worker")

#: Seconds between two looks.
LOOK_EVERY = 0.002
#: Signals that a child or its tasks use.
_SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
    signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGPIPE,
)  # fmt: skip
# Read them through `_signal`: the functions of `signal` turn the values into enums, which is sixty times as slow.
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_FOR_EVER = 1 << 62
#: Standard streams by their descriptors.
_NAMES = {1: "stdout", 2: "stderr"}


class Surroundings:
    """Those of the tasks of one child.

    Attributes:
        main_busy: Whether a task runs in the main thread; kept by its lane.
        loop_busy: How many run on the event loop and in threads; kept on the loop.
    """

    def __init__(self) -> None:
        """Prepare; they are not looked at before `note`."""
        self.main_busy = False
        self.loop_busy = 0
        self._noted = False
        self._decimal: tuple[ContextVar[Any], Any] | None = None

    def note(self) -> None:
        """Note how they are; called in the main thread of a child that is set up."""
        _shield_streams()
        os.register_at_fork(after_in_child=_shield_streams)
        mend_streams()
        self._folder = _folder()
        self._handlers = {int(number): _signal.getsignal(number) for number in _SIGNALS}
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._streams = (sys.stdout, sys.stderr)
        self._look_at_decimal()
        self._noted = True

    def begin(self) -> Context:
        """Return the context of a batch."""
        self._look_at_decimal()
        return copy_context()

    def _look_at_decimal(self) -> None:
        if self._decimal is None and "decimal" in sys.modules:
            # One that is there already is changed in place, by tasks that compute with decimals as by others.
            sys.modules["decimal"].getcontext()
            for variable in copy_context():
                if variable.name == "decimal_context":
                    self._decimal = variable, variable.get().copy()

    def enter(self) -> None:
        """Give the calling context, which is a coroutine's own, its own context of `decimal`."""
        if self._decimal is not None:
            self._decimal[0].set(self._decimal[1].copy())

    def call(self, route: Route, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a task that is watched, in a context of its own."""
        context, before = copy_context(), copy_context()
        try:
            return context.run(self._call, function, args, kwargs)
        finally:
            if _changed(before, context, self._decimal):
                route.watched = _FOR_EVER

    def _call(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        self.enter()
        return function(*args, **kwargs)

    def tidy(self, route: Route, batch: Context) -> int:
        """Put everything back that a task has left changed; answers for how many more runs it is watched."""
        changed = self._noted and self.restore()
        if self._decimal is not None and _settings(self._decimal[0].get()) != _settings(self._decimal[1]):
            self.enter()
            changed = True
        if route is NOWHERE:
            return 1
        if changed or (not route.watched and _changed(batch, copy_context(), self._decimal)):
            route.watched = _FOR_EVER
        elif 0 < route.watched < _FOR_EVER:
            route.watched -= 1
        return route.watched

    def restore(self) -> bool:
        """Put back what belongs to the process; answers whether anything was changed."""
        changed = self.restore_shared()
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
                changed = True
        if _signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            changed = True
        for timer in _TIMERS:
            if signal.getitimer(timer)[0]:
                signal.setitimer(timer, 0)
                changed = True
        return changed

    def restore_if_idle(self) -> None:
        """Put back what coroutines and threads have left, before more of them begin, if nothing else runs."""
        if self._noted and not (self.main_busy or self.loop_busy):
            self.restore_shared()

    def restore_shared(self) -> bool:
        """Put back what may be put back by any thread: the working folder, the standard streams."""
        changed = False
        if self._folder is not None and _folder() != self._folder:
            with contextlib.suppress(OSError):  # it is gone
                os.chdir(self._folder)
            changed = True
        if (sys.stdout, sys.stderr) != self._streams or any(map(_is_closed, self._streams)):
            sys.stdout, sys.stderr = self._streams
            mend_streams()
            self._streams = (sys.stdout, sys.stderr)
            changed = True
        return changed


def _changed(before: Context, after: Context, decimal: tuple[ContextVar[Any], Any] | None) -> bool:
    for variable, value in after.items():
        if decimal is not None and variable is decimal[0]:
            if _settings(value) != _settings(decimal[1]):
                return True
        elif variable is not current and before.get(variable, NOWHERE) is not value:
            return True
    return False


def _settings(context: Any) -> Any:
    """Return what a context of `decimal` says, but for its flags: any computation sets those."""
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, context.traps


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def mend_streams() -> None:
    """Put a stream in the place of a standard one that is closed or missing; each writes line by line."""
    for n, name in _NAMES.items():
        stream: TextIO | None = getattr(sys, name)
        if stream is None or _is_closed(stream):
            _replace(n, stream)
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(line_buffering=True)


def _shield_streams() -> None:
    """Put others in the place of the standard streams, so that a task that closes one does not close what it writes to.

    The old ones are not even flushed: another thread may have been writing to one when this process was forked, and
    then its lock is held for ever. What they hold is written by the process that this was forked from.
    """
    for descriptor, name in _NAMES.items():
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            _replace(descriptor, stream, stream.encoding, stream.errors)


def _replace(descriptor: int, old: TextIO | None, encoding: str | None = None, errors: str | None = None) -> None:
    """Put another in the place of a standard stream, and one of its own, which no task closes, where a handler logs."""
    setattr(sys, _NAMES[descriptor], _open(descriptor, encoding, errors))
    for handler in every_handler():
        if old is not None and isinstance(handler, logging.StreamHandler) and handler.stream is old:
            handler.stream = _open(descriptor, encoding, errors)  # the method for it would flush the old one


def _open(descriptor: int, encoding: str | None, errors: str | None) -> TextIO:
    try:
        os.fstat(descriptor)
        errors = errors or "backslashreplace"
        return open(descriptor, "w", buffering=1, encoding=encoding, errors=errors, closefd=False)
    except OSError:
        return open(os.devnull, "w")


def _is_closed(stream: Any) -> bool:
    return bool(getattr(stream, "closed", False))
