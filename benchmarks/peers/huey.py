"""huey: one worker thread. It takes a task off the queue before it runs, so a crash loses it."""

from __future__ import annotations

from typing import Any

from huey import RedisHuey

from benchmarks.peers import URL, note_start

REQUIREMENTS = ["huey", "redis", "hiredis"]
WORKER = ["-m", "huey.bin.huey_consumer", "benchmarks.peers.huey.huey", "-w", "1", "-k", "thread", "-q"]

huey = RedisHuey("bench", url=URL)


@huey.task()
def noop() -> None:
    """Do nothing; None is not stored."""


@huey.task()
def started(sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


@huey.task()
def one() -> int:
    """Return something, so that it is stored."""
    return 1


send, start = noop, started


def ask() -> object:
    return one().get(blocking=True, timeout=30)


def remaining(client: Any) -> int:
    return int(client.llen("huey.redis.bench"))
