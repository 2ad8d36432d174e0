"""Hooks for the life of a worker's processes: each is called once, whatever the others do, and none can hold up a stop.

In a child they run in its main thread: one that hangs at the start is killed with the child, which holds nothing yet;
one that hangs at the end as soon as the parent is tired of waiting. The parent itself must never wait: there they run
in a thread, but for ``worker_init``, before which there is nothing to look after.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial

from taskq.tasks.definition import Definition
from taskq.tasks.hooks import Hooks, name_of
from taskq.worker.twin import leave_if_twin

log = logging.getLogger("taskq.worker")


def tell_of_gaps(tasks: Iterable[Definition], hooks: Hooks) -> None:
    """Say for which tasks there is no middleware, since all middleware is for tasks of the other kind."""
    for kind, other, is_async in (("run", "arun", True), ("arun", "run", False)):
        outside = sorted(task.name for task in tasks if task.is_async == is_async)
        if outside and hooks.of(kind) and not hooks.of(other):
            names = ", ".join(map(name_of, hooks.of(kind)))
            log.info(
                "not inside %s, which is around(%r) and not around(%r): %s", names, kind, other, ", ".join(outside)
            )


def call_hooks(hooks: Hooks, event: str) -> None:
    """Call the hooks for a moment; an error is logged. `SystemExit` passes: a process need not go on without them."""
    for function in hooks.of(event):
        try:
            function()
        except Exception:
            log.exception("the hook %s for %s failed", name_of(function), event)
        leave_if_twin(0)


def call_hooks_beside(hooks: Hooks, event: str, seconds: float = 0.0) -> None:
    """Call the hooks for a moment in a thread, and wait for them for at most so long."""
    if hooks.of(event):
        beside(f"hooks for {event}", partial(call_hooks, hooks, event), seconds)


def beside(what: str, work: Callable[[], object], seconds: float) -> None:
    """Do some work in a thread, and wait for at most so long."""
    thread = threading.Thread(target=work, name="taskq-hooks", daemon=True)
    thread.start()
    thread.join(seconds)
    if seconds and thread.is_alive():
        log.warning("the %s have not ended within %g s: the worker stops waiting for them", what, seconds)
