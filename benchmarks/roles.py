"""Parts that run as processes of their own, so that their CPU time is theirs: ``python -m benchmarks.roles NAME ...``.

Each prints one line of JSON. The server is ``TASKQ_URL``.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from benchmarks import hand, tasks
from benchmarks import lone as alone
from benchmarks.tasks import app
from taskq.broker.commands import holding, ticking
from taskq.broker.commands.holding import QueueSet
from taskq.broker.net.connection import Connection
from taskq.broker.net.url import new_connection
from taskq.periodic.entry import Entry
from taskq.periodic.schedule import every


def _cpu(function: Callable[[], object]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


# -- sending ------------------------------------------------------------------------------------------------


def _recorded(function: Callable[[], object]) -> list[bytes]:
    """What ``function`` would send, without sending it."""
    sent: list[bytes] = []

    def record(self: Connection, packed: bytes, block: float = 0.0) -> bytes:
        sent.append(packed)
        return b"+"

    real = Connection.roundtrip
    Connection.roundtrip = record  # type: ignore[method-assign]
    try:
        function()
    finally:
        Connection.roundtrip = real  # type: ignore[method-assign]
    return sent


def send(n: int, size: int) -> dict[str, float]:
    """Client CPU in µs a message: the raw bytes, ``delay()``, ``delay_many``; of no argument or one of ``size``."""
    task: Any = tasks.take if size else tasks.noop
    args = ("x" * size,) if size else ()
    delay = task.delay

    def one_by_one() -> None:
        for _ in range(n):
            delay(*args)

    delay(*args)  # connects, loads the script
    task.delay_many([args])
    raw = hand.send(_recorded(one_by_one))
    single = _cpu(one_by_one)
    bulk = _cpu(lambda: task.delay_many(args for _ in range(n)))
    return {"raw": raw / n * 1e6, "delay": single / n * 1e6, "bulk": bulk / n * 1e6}


def send_flow(n: int, how: str) -> float:
    """Client CPU in µs a message: n calls of the task in ``tasks.flow``, one by one or in bulk."""
    task: Any = tasks.flow[0]
    task.apply_async((-1, 0))
    began = time.process_time()
    if how == "single":
        for i in range(n):
            task.delay(i, i % 100)
    else:
        for first in range(0, n, 10_000):
            task.delay_many((i, i % 100) for i in range(first, min(n, first + 10_000)))
    return (time.process_time() - began) / n * 1e6


def fill(n: int, what: str, countdown: float) -> None:
    """Send n messages of a task; ``take_10k`` has an argument of 10 KB, ``many`` are on all queues, ``one`` on one."""
    if what == "many":
        calls = (tasks.many[i % len(tasks.many)].prepare_call() for i in range(n))
    elif what == "one":
        calls = (tasks.many[0].prepare_call() for _ in range(n))
    elif what == "take_10k":
        calls = (tasks.take.prepare_call(("x" * 10_000,)) for _ in range(n))
    else:
        task: Any = getattr(tasks, what)
        args = (0.05,) if what.startswith("wait") else ()
        options = {"countdown": countdown} if countdown else {}
        if not options:
            calls = (task.call(*args) for _ in range(n))
        else:
            calls = (task.prepare_call(args, **options) for _ in range(n))
    for _ in range(0, n, 10_000):
        app.enqueue_many(islice(calls, 10_000))


def mix(fast: int, slow: int, seconds: float) -> list[str]:
    """Send slow calls of ``work`` spread evenly among fast ones; returns the ids of the slow."""
    each = (fast + slow) // slow
    calls = [tasks.work.call(i, seconds if i % each == 0 else 0) for i in range(fast + slow)]
    handles = app.enqueue_many(calls)
    return [str(handle.id) for i, handle in enumerate(handles) if i % each == 0]


def sleepers(n: int, seconds: float) -> None:
    """Send n calls of ``work`` that last."""
    app.enqueue_many(tasks.work.call(i, seconds) for i in range(n))


# -- waiting ------------------------------------------------------------------------------------------------


def _now_and_then(n: int, function: Callable[[], object]) -> list[float]:
    """Call a function again and again with idle time between; the ms that each call took."""
    took = []
    for _ in range(n):
        time.sleep(random.uniform(0.002, 0.006))
        began = time.perf_counter()
        function()
        took.append((time.perf_counter() - began) * 1000)
    return took


def hand_over(n: int) -> None:
    """Hand n time stamps to `hand.pass_on`, by redis-py."""
    import redis

    client = redis.Redis.from_url(os.environ["TASKQ_URL"])
    _now_and_then(n, lambda: client.rpush("hand:from", time.monotonic_ns()))


def pass_on(n: int) -> None:
    """Be the other side of that."""
    hand.pass_on(n)


def start(n: int) -> None:
    """Send n time stamps as calls of ``started``."""
    _now_and_then(n, lambda: tasks.started.delay(time.monotonic_ns()))


def spread(n: int) -> None:
    """Send n time stamps as calls of many tasks, whose queues come by in no order."""
    _now_and_then(n, lambda: random.choice(tasks.many).delay(time.monotonic_ns()))


def schedule(n: int, seconds: float) -> None:
    """Send n calls of ``timed`` for times spread over some seconds."""
    now = datetime.now(timezone.utc)
    for _ in range(n):
        tasks.timed.apply_async(eta=now + timedelta(seconds=1 + random.uniform(0, seconds)))


def tick() -> None:
    """Have ``timed`` sent every second from now on."""
    entry = Entry.of("timed", every(1), tasks.timed.prepare_call().message)
    app.client.broker.run(ticking.change_entry(app.client.keys, "define", "timed", entry.stored, 0))


def round_trip(n: int) -> dict[str, float]:
    """Median ms of ``delay().get()``."""
    tasks.noop_result.delay().get(timeout=30)
    return {"p50": statistics.median(_now_and_then(n, lambda: tasks.noop_result.delay().get(timeout=30)))}


def lone(n: int) -> dict[str, float]:
    """Server CPU in µs for what one message needs, by name."""
    return alone.measure(os.environ["TASKQ_URL"], n)


# -- the rest -----------------------------------------------------------------------------------------------


def pretend(n: int, queue: str) -> None:
    """Be n connected workers that serve ``queue`` and are all busy elsewhere, until killed."""
    connections = []
    for i in range(n):
        connection = new_connection(os.environ["TASKQ_URL"], 5.0)
        connection.connect()
        connections.append(connection)
        lease = 3_600_000
        app.client.broker.run(holding.register(app.client.keys, f"pretend{i:09}", lease, b"", QueueSet.of([queue])))
    time.sleep(3600)


if __name__ == "__main__":
    function = globals()[sys.argv[1]]
    print(json.dumps(function(*(json.loads(word) if word[0] in "0123456789" else word for word in sys.argv[2:]))))
