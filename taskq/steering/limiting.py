"""Sets the limits of a task by hand: they hold at once, for all workers, and replace those of the code."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.commands import steering
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.tasks.limits import Published

#: What ``limit.lua`` takes for "those of its code".
_CODE = "-"


def set_limits(partitions: Topology, task: str, limits: Sequence[Published] | None) -> Protocol[bool]:
    """Set what holds of a task; None: what its code says. Answers whether any worker has had that task."""
    text, known = _CODE if limits is None else "\n".join(map(str, limits)), False
    for keys in partitions.all:
        known = (yield steering.limit(keys, task, text)) or known
    return known
