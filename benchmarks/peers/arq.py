"""arq: 100 jobs at once. It is at least once; the idle worker polls every half second."""

from __future__ import annotations

from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers import RESULTS, URL, note_start

REQUIREMENTS = ["arq", "hiredis"]
WORKER = ["-m", "arq", "benchmarks.peers.arq.WorkerSettings"]

_pool: Any = None


async def noop(_: Any) -> None:
    """Do nothing."""


async def started(_: Any, sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


class WorkerSettings:
    """What the worker is told."""

    functions: ClassVar = [noop, started]
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 100
    keep_result = 60 if RESULTS else 0


async def _enqueue(*words: Any) -> Any:
    global _pool
    if _pool is None:
        _pool = await create_pool(WorkerSettings.redis_settings)
    return await _pool.enqueue_job(*words)


async def send() -> Any:
    return await _enqueue("noop")


async def start(sent_ns: int) -> object:
    return await _enqueue("started", sent_ns)


async def ask() -> object:
    return await (await send()).result(timeout=30, poll_delay=0.001)


def remaining(client: Any) -> int:
    return int(client.zcard("arq:queue"))
