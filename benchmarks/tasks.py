"""The app that is measured. Each task has a queue of its own, and each scenario serves only the queues it is about."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from taskq import Breaker, Context, TaskQ

app = TaskQ("bench")

#: Where tasks note when they ran: lines written in one piece, in a file that outlives the process.
_log = os.open(os.environ.get("BENCH_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(*words: object) -> None:
    """Write a line to the log."""
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing."""


@app.task
def noop_result() -> None:
    """Do nothing; the result, None, is kept."""


@app.task(ignore_result=True)
def take(data: str) -> None:
    """Take an argument of any size."""


@app.task(ignore_result=True)
def started(sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note(time.monotonic_ns() - sent_ns)


@app.task(ignore_result=True, bind=True)
def timed(self: Context) -> None:
    """Note how long after its time it starts, by this machine's clock."""
    assert self.request.eta is not None
    note(time.time_ns() - round(self.request.eta.timestamp() * 1e9))


@app.task(ignore_result=True)
async def wait_async(seconds: float) -> None:
    """Wait on the event loop."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    note(began, time.monotonic())


@app.task(ignore_result=True)
def wait_sync(seconds: float) -> None:
    """Wait in a thread."""
    began = time.monotonic()
    time.sleep(seconds)
    note(began, time.monotonic())


@app.task(ignore_result=True)
def work(number: int, seconds: float) -> None:
    """Note the start, last, note the end."""
    note("start", number, time.monotonic(), os.getpid())
    if seconds:
        time.sleep(seconds)
    note("end", number, time.monotonic(), os.getpid())


def _nothing(sent_ns: int = 0) -> None:
    """Do nothing, on one of many queues; or note how long it took from the call to here."""
    if sent_ns:
        note(time.monotonic_ns() - sent_ns)


#: As many tasks, each with its queue, as ``BENCH_QUEUES`` says.
many = [app.task(name=f"many.{i}", ignore_result=True)(_nothing) for i in range(int(os.environ.get("BENCH_QUEUES", 0)))]


def _keyed(number: int, key: int) -> None:
    """Do nothing; a hundred keys."""


#: Every option of flow control alone, and none; no limit is so low that it holds anything.
FLOW: dict[str, dict[str, Any]] = {
    "off": {},
    "priority": {"priority": 1},
    "fair": {"fair_by": "key"},
    "rate": {"rate": "1000000/s"},
    "concurrency": {"max_concurrency": 1000},
    "keyed": {"max_concurrency": 1000, "key": "key"},
    "unique": {"unique": "until_done"},
    "length": {"max_length": 1_000_000},
    "breaker": {"breaker": Breaker()},
}
#: The task with the option that ``BENCH_FLOW`` names; the others would leave their limits on the server.
flow = [
    app.task(name=f"flow.{name}", ignore_result=True, **options)(_keyed)
    for name, options in FLOW.items()
    if name == os.environ.get("BENCH_FLOW")
]
