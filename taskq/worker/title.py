"""What ``ps`` and ``top`` of the machine call a worker's processes, where the package setproctitle is installed."""

from __future__ import annotations

from contextlib import suppress


def set_title(worker: str, what: str) -> None:
    """Call this process ``taskq worker <name>: <what>``."""
    with suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(f"taskq worker {worker}: {what}")
