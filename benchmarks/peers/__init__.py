"""Task queues to compare, one file each. A file runs in an environment of its own, made from its ``REQUIREMENTS``.

A file defines, beside its no-op task:

``REQUIREMENTS``
    What to install, newest versions.
``WORKER``
    How to start one worker process: arguments of the interpreter.
``send()``
    Send one no-op; a function or a coroutine function.
``start(sent_ns)``
    Send a task that calls `note_start` with that time; likewise.
``ask()``
    Send one no-op and wait for its result; likewise. None where there are no results.
``remaining(client)``
    How many no-ops have not been done, asked through a redis-py client.

and takes the server's URL, a TCP one, from `URL`. Where results can only be switched on for all tasks, it does so if
`RESULTS` says so. Configured as each project recommends for production, at-least-once where it can be had.
"""

from __future__ import annotations

import os
import time

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379/0")

#: Whether `ask` is measured, so that results are needed.
RESULTS = bool(os.environ.get("BENCH_RESULTS"))

_log = os.open(os.environ.get("BENCH_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note_start(sent_ns: int) -> None:
    """Note how long it took from the call, at ``time.monotonic_ns()``, to here."""
    os.write(_log, b"%d\n" % (time.monotonic_ns() - sent_ns))
