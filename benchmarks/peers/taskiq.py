"""taskiq: redis-streams broker, acknowledged when saved, its defaults."""

from __future__ import annotations

from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import RESULTS, URL, note_start

REQUIREMENTS = ["taskiq-redis", "hiredis"]
WORKER = ["-m", "taskiq", "worker", "benchmarks.peers.taskiq:broker", "--workers", "1", "--log-level", "WARNING"]

broker: Any = RedisStreamBroker(URL)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL))
_started = False


@broker.task
async def noop() -> None:
    """Do nothing."""


@broker.task
async def started(sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


async def _kick(task: Any, *args: Any) -> Any:
    global _started
    if not _started:
        await broker.startup()
        _started = True
    return await task.kiq(*args)


async def send() -> Any:
    return await _kick(noop)


async def start(sent_ns: int) -> object:
    return await _kick(started, sent_ns)


async def ask() -> object:
    return await (await send()).wait_result(check_interval=0.001, timeout=30)


def remaining(client: Any) -> int:
    group = client.xinfo_groups("taskiq")[0]
    return int(group["lag"] or 0) + int(group["pending"])
