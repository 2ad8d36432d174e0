"""Threads that a process must not live without: if one ended alone, the process would live on, its leases renewed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from taskq.worker.twin import leave_if_twin

log = logging.getLogger("taskq.worker")


def vital(what: str, work: Callable[[], object], may_end: Callable[[], object] = lambda: True) -> None:
    """Do the work of a thread that must live: a bug in it ends the whole process, at once.

    What the process held is given back by its parent, or by another worker's reaper when its leases have ended.
    """
    try:
        work()
        if may_end():
            return
        log.critical("%s ended, and this process with it", what)
    except BaseException:
        leave_if_twin(1)
        log.critical("%s broke, and this process ends with it", what, exc_info=True)
    logging.shutdown()
    os._exit(1)
