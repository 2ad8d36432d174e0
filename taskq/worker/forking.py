"""Forking beside other threads: what they hold would be held for ever in the child.

The interpreter and `logging` make their own locks anew in a fork, but not the lock of a module that another thread is
importing at that moment. Locks of the app's own threads cannot be known; the documentation says so.
"""

from __future__ import annotations

import _imp
import importlib
import os
import time
from typing import Any

#: Seconds for which a fork waits for imports of other threads.
_IMPORT_TAKES = 2.0
_IMPORT_LOOK = 0.001


def fork_between_imports() -> None:
    """Let this process fork only when no other thread imports anything; its forks fork as they like."""
    parent = os.getpid()
    held = False

    def hold() -> None:
        nonlocal held
        if os.getpid() == parent:
            _hold_imports()
            held = True

    def let_go() -> None:
        nonlocal held
        if held:
            held = False
            _imp.release_lock()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=let_go)


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
