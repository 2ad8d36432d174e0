"""Setting the limits of a task by hand: they hold at once, for all workers, and instead of what the code says."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.commands import steering
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.tasks.limits import Published

#: What ``limit.lua`` takes for "those of its code".
_CODE = "-"


def set_limits(keys: Keys, task: str, limits: Sequence[Published] | None) -> Protocol[bool]:
    """Set what holds of a task; None: what its code says. Answers whether any worker has had that task."""
    known: bool = yield steering.limit(keys, task, _CODE if limits is None else "\n".join(map(str, limits)))
    return known
