"""What ``ps`` and ``top`` of the machine call a worker's processes, where the package setproctitle is installed."""

from __future__ import annotations

try:
    from setproctitle import setproctitle as _set
except ImportError:
    _set = None


def set_title(worker: str, what: str) -> None:
    """Call this process ``taskq worker <name>: <what>``."""
    if _set is not None:
        _set(f"taskq worker {worker}: {what}")
