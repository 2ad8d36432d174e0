"""Dramatiq: one process of eight threads, its defaults. It acknowledges after the task, so at least once."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import URL, note_start

REQUIREMENTS = ["dramatiq[redis]", "hiredis"]
WORKER = ["-m", "dramatiq", "benchmarks.peers.dramatiq", "-p", "1", "-t", "8"]

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Do nothing."""


@dramatiq.actor
def started(sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


@dramatiq.actor(store_results=True)
def noop_result() -> None:
    """Do nothing; the result is kept."""


send, start = noop.send, started.send


def ask() -> object:
    return noop_result.send().get_result(block=True, timeout=30_000)


def remaining(client: Any) -> int:
    return int(client.hlen("dramatiq:default.msgs"))
