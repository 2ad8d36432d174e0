"""What a parent sees of its children from outside: their memory, how they ended, how many of them the work needs."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def oom_kills() -> int:
    """Return how many times the kernel has killed in this cgroup for lack of memory; 0 if that is not known."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            words = Path(path).read_text().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError, IndexError):
            continue
    return 0


def describe_exit(code: int | None) -> str:
    """Say in words how a process ended."""
    if code is None:
        return "ended in an unknown way"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@dataclass(slots=True)
class Scaling:
    """How many children there should be: more while all are busy and work waits, fewer when some stay idle.

    Attributes:
        low: The fewest children.
        high: The most children.
        patience: Seconds that work waits before children are added.
        idleness: Seconds without waiting work before one is taken away.
    """

    low: int
    high: int
    patience: float = 0.5
    idleness: float = 10.0
    _quiet_since: float = field(default_factory=time.monotonic)

    def wanted(self, children: int, busy: int, pending: int, oldest: float, now: float) -> int:
        """Return how many children there should be.

        Args:
            children: How many there are.
            busy: How many of them run something.
            pending: Messages waiting in their queues.
            oldest: Age in seconds of the oldest of them.
            now: Monotonic time in seconds.
        """
        if pending or busy >= children:
            self._quiet_since = now
        if pending and busy >= children and oldest > self.patience:
            return min(self.high, max(children + 1, children * 2))
        if now - self._quiet_since > self.idleness and children > self.low:
            self._quiet_since = now
            return children - 1
        return max(self.low, min(self.high, children))
