"""Forking beside other threads: what they hold would be held for ever in the child.

The interpreter and `logging` make their own locks anew in a fork. Left are the lock of a module that another thread is
importing at that moment, and that of the file to which a handler of `logging` is writing: a fork waits for both, in a
worker's parent as in a child, where a task forks beside other lanes. Locks of the app's own threads cannot be known;
the documentation says so.
"""

from __future__ import annotations

import _imp
import importlib
import logging
import os
import time
from typing import Any

#: Seconds for which a fork waits for imports of other threads, and for handlers of `logging` in which they are.
_IMPORT_TAKES = 2.0
_IMPORT_LOOK = 0.001
_LOGGING_TAKES = 1.0


def fork_beside_threads() -> None:
    """Let this process fork only when no other thread imports or logs anything; its forks fork as they like."""
    here = os.getpid()
    imports_held = False
    handlers_held: list[Any] = []

    def hold() -> None:
        nonlocal imports_held
        if os.getpid() == here:
            _hold_handlers(handlers_held)
            _hold_imports()
            imports_held = True

    def let_go(in_child: bool) -> None:
        nonlocal imports_held
        if imports_held:
            imports_held = False
            _imp.release_lock()
        while handlers_held:
            lock = handlers_held.pop()
            if not in_child:  # where `logging` has made it anew
                lock.release()

    os.register_at_fork(
        before=hold, after_in_parent=lambda: let_go(in_child=False), after_in_child=lambda: let_go(in_child=True)
    )


def every_handler() -> list[logging.Handler]:
    """Return all handlers of `logging`, wherever they are."""
    found = [reference() for reference in list(getattr(logging, "_handlerList", ()))]
    return [handler for handler in found if handler is not None]


def _hold_handlers(held: list[Any]) -> None:
    """Take the locks of all handlers, so that none is writing; without those that are not free in time."""
    until = time.monotonic() + _LOGGING_TAKES
    for handler in every_handler():
        lock = handler.lock
        if lock is not None and lock.acquire(timeout=max(0.0, until - time.monotonic())):
            held.append(lock)


def _hold_imports() -> None:
    """Take the lock that each import begins with, at a moment when none is under way."""
    locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})
    until = time.monotonic() + _IMPORT_TAKES
    while True:
        _imp.acquire_lock()
        for _ in range(10):  # those under way come to their end, unless they import in turn
            if time.monotonic() > until or not any(_is_held(ref()) for ref in list(locks.values())):
                return
            time.sleep(_IMPORT_LOOK)
        _imp.release_lock()
        time.sleep(_IMPORT_LOOK)


def _is_held(lock: Any) -> bool:
    if getattr(lock, "owner", None) is not None:
        return True
    inner: Any = getattr(lock, "lock", None)  # held for a moment while the lock itself changes hands
    return hasattr(inner, "locked") and bool(inner.locked())
