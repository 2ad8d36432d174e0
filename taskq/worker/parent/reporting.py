"""What a worker's parent says every few seconds, for ``taskq workers``: its state, its children, their memory."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskq.broker.call import Command
from taskq.broker.commands import fleet
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.views.workers import Report
from taskq.worker.parent.watch import resident_bytes
from taskq.worker.plan import Plan

if TYPE_CHECKING:
    from taskq.worker.parent.children import Running

#: Seconds between two reports; for how many one holds.
REPORT_EVERY, _HOLDS = 10.0, 35.0


class Reporting:
    """The reports of one worker.

    Attributes:
        state: ``quiet`` or ``stopping`` where it takes no more; empty as long as it does.
    """

    def __init__(self, keys: Keys, plan: Plan, children: Mapping[int, Running]) -> None:
        """Prepare reports on ``children``, by their numbers."""
        self.state = ""
        self._keys = keys
        self._plan = plan
        self._children = children
        self._host = socket.gethostname()
        self._began = time.monotonic()

    def tell(self) -> Protocol[None]:
        """Say how the worker is; from the heartbeat's thread."""
        now, children = time.monotonic(), list(self._children.items())
        busy = any(child.busy for _, child in children)
        report = Report(
            name=self._plan.name,
            host=self._host,
            pid=os.getpid(),
            version=self._plan.version,
            state=self.state or ("busy" if busy else "idle"),
            up=int(now - self._began),
            memory=resident_bytes(os.getpid()),
            children=[
                [number, pid, resident_bytes(pid), int(now - child.started)]
                for number, child in children
                if (pid := child.process.pid)
            ],
        )
        yield fleet.report(self._keys, self._plan.id, _HOLDS, report.stored())

    def leave(self) -> Command[int]:
        """Return what says that the worker goes."""
        return fleet.report(self._keys, self._plan.id, _HOLDS, b"")
