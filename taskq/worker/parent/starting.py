"""How the children of a worker come to be; what differs between the three ways is here.

``fork``
    A copy of the worker, with the app that it has imported. The quickest and the smallest, but threads are not copied.
``spawn``
    A new interpreter, which imports the app itself.
``forkserver``
    A copy of a server that has imported taskq and never the app, which the child imports itself.

`multiprocessing` starts all three. A child of a fork server is no child of its worker: the server waits for it, and
tells the worker by a pipe how it ended. All the same it dies with the worker. The server ends when nobody holds the
write end of a pipe any more, and the worker alone does (see ``begin`` in `taskq.worker.child.child`); and what dies
with its parent, the child, dies with the server.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import Any

from taskq.worker.child.child import HELD
from taskq.worker.parent.watch import resident_bytes

#: What `multiprocessing` takes for the exit code of a child whose fork server has died before it could tell one.
_UNTOLD = 255


class Starter:
    """Starts children in one of the three ways.

    Attributes:
        copies: Whether a child has all that the worker has; else it has what can be pickled.
    """

    def __init__(self, method: str) -> None:
        """Prepare; nothing is started before the first child."""
        self.copies = method == "fork"
        self._serves = method == "forkserver"
        self._context: Any = multiprocessing.get_context(method)
        if self._serves:
            self._context.set_forkserver_preload(["taskq.worker.child.child"])

    def start(self, target: Callable[..., object], args: tuple[Any, ...], name: str) -> BaseProcess:
        """Start a process that calls ``target`` with ``args`` and the pid of its parent.

        Raises:
            OSError: The kernel makes none, or the fork server has just died; the next try starts another.
        """
        with _signals_held():  # none must find it with the worker's handlers, or with no handler: see `begin`
            self._start_helpers()
            parent = _server()._forkserver_pid if self._serves else os.getpid()
            process: BaseProcess = self._context.Process(target=target, args=(*args, parent), name=name)
            with warnings.catch_warnings():
                # Python warns of forking beside a thread; the worker's hold nothing that a child needs.
                warnings.simplefilter("ignore", DeprecationWarning)
                try:
                    process.start()
                except EOFError:
                    raise ConnectionError("the fork server died while it started a child") from None
        return process

    def _start_helpers(self) -> None:
        """Have what `multiprocessing` needs beside the children; both inherit that signals are held, for good.

        So they outlive a Ctrl-C, and a SIGTERM or SIGHUP for the whole group, as children do.
        """
        if not self.copies:
            _tracker().ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, HELD)  # it has let some in
        if self._serves:
            _server().ensure_running()

    @property
    def helpers(self) -> set[int]:
        """Pids of what `_start_helpers` has started: `multiprocessing` waits for them itself."""
        return set() if self.copies else {_tracker()._pid, _server()._forkserver_pid} - {None}

    def is_over(self, process: BaseProcess) -> bool:
        """Whether a process has ended.

        When a fork server is killed, it seems that its children have ended. They are about to.
        """
        if process.exitcode is None:
            return False
        if not self._serves or process.exitcode != _UNTOLD or process.pid is None:
            return True
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        return not resident_bytes(process.pid)

    def tellers(self, processes: Iterable[BaseProcess]) -> list[int]:
        """Return descriptors that can be read when one of the processes has ended, as far as no SIGCHLD says so."""
        return [process.sentinel for process in processes if process.exitcode is None] if self._serves else []


@contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _server() -> Any:
    from multiprocessing import forkserver

    return getattr(forkserver, "_forkserver")  # noqa: B009


def _tracker() -> Any:
    from multiprocessing import resource_tracker

    return getattr(resource_tracker, "_resource_tracker")  # noqa: B009
