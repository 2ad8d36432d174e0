"""Forking beside other threads: locks that they hold would stay locked in the child for ever.

The interpreter and `logging` make their own locks anew in a fork. That leaves the lock of a module that another thread
is importing at that moment, and that of the file to which a handler of `logging` is writing: a fork waits for both, in
a worker's parent as in a child, where a task forks beside other lanes. Locks of the app's own threads cannot be known;
the documentation says so.
"""

from __future__ import annotations

import _imp
import importlib
import logging
import os
import threading
import time
from typing import Any

#: Seconds for which a fork waits for other threads; for one lock at a time; between two looks.
_PATIENCE = 2.0
_LOCK_TAKES = 0.01
_LOOK = 0.001


class _Held(threading.local):
    """What the calling thread holds while it forks: others may be forking as well."""

    def __init__(self) -> None:
        self.imports = False
        self.logging: list[Any] = []


def fork_beside_threads() -> None:
    """Let this process fork only when no other thread imports or logs anything; its forks fork as they like."""
    here, held = os.getpid(), _Held()

    def hold() -> None:
        if os.getpid() == here:
            _hold(held)

    def let_go() -> None:
        let_imports_go()
        while held.logging:
            held.logging.pop().release()

    def let_imports_go() -> None:  # in the child that is all: there `logging` has made its locks anew
        if held.imports:
            held.imports = False
            _imp.release_lock()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_imports_go)


def _hold(held: _Held) -> None:
    """Take what imports and logging begin with, at a moment when none is under way.

    Both or none, with a pause in between: a thread that has the one may need the other to come to its end. What is
    under way for longer than the patience, such as a handler whose pipe nobody reads, is not waited for.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        _imp.acquire_lock()
        over = time.monotonic() > until
        if over or _no_imports():
            held.logging, complete = _take_logging()
            if complete or (over and held.logging):
                held.imports = True
                return
        while held.logging:
            held.logging.pop().release()
        _imp.release_lock()
        if over:
            return
        time.sleep(_LOOK)


def _no_imports() -> bool:
    """Whether no module is being imported; those under way come to their end, unless they import in turn."""
    locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})
    for _ in range(10):
        if not any(_is_held(ref()) for ref in list(locks.values())):
            return True
        time.sleep(_LOOK)
    return False


def _take_logging() -> tuple[list[Any], bool]:
    """Take the lock under which `logging` is configured, then those of its handlers; answers which, and if all."""
    taken: list[Any] = []
    lock = getattr(logging, "_lock", None)
    if lock is None or not lock.acquire(timeout=_LOCK_TAKES):
        return taken, lock is None
    taken.append(lock)
    locks = [handler.lock for handler in every_handler() if handler.lock is not None]  # none comes or goes now
    taken += [lock for lock in locks if lock.acquire(timeout=_LOCK_TAKES)]
    return taken, len(taken) == 1 + len(locks)


def every_handler() -> list[logging.Handler]:
    """Return all handlers of `logging`, wherever they are."""
    found = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
    return [handler for handler in found if handler is not None]


def _is_held(lock: Any) -> bool:
    if getattr(lock, "owner", None) is not None:
        return True
    inner: Any = getattr(lock, "lock", None)  # held for a moment while the lock itself changes hands
    return hasattr(inner, "locked") and bool(inner.locked())
