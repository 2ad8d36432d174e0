"""A task that forks: the forked copy of the child, its twin, must not go on as if it were the worker.

The twin has the child's memory, and with it the connections, the event loop and the handlers of signals. What the task
does in it is the task's business (``multiprocessing`` relies on that), but a twin that returns from the task exits.
"""

from __future__ import annotations

import os
import signal

#: At these a child drains. A process of the task's own must end, as ``Process.terminate()`` expects of it.
_DRAINS = (signal.SIGTERM, signal.SIGHUP)


class Twin:
    """Whether this process is the twin of a child. One a process, as its fork sets it.

    Attributes:
        child: Pid of the child; 0 in other processes. What C code forks calls no hook, and is known by its pid only.
    """

    here = False
    child = 0


def watch_for_twins() -> None:
    """Know the twins of this process from now on; called once in a child."""
    Twin.child = os.getpid()
    # Python drops what a twin is sent before it has its own handlers, so it is sent nothing until then.
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_in, after_in_child=_became_twin)


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _DRAINS)


def _let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DRAINS)


def _became_twin() -> None:
    Twin.here = True
    for number in _DRAINS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _let_signals_in()


def leave_if_twin(code: int) -> None:
    """End this process with that exit code if it is a twin."""
    if Twin.here or (Twin.child and Twin.child != os.getpid()):
        os._exit(code)
