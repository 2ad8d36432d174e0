"""SAQ: its defaults, ten jobs at once; a sweeper finds what a lost worker had."""

from __future__ import annotations

from typing import Any

from saq import Queue

from benchmarks.peers import URL, note_start

REQUIREMENTS = ["saq", "redis", "hiredis", "typing-extensions"]
WORKER = ["-m", "saq", "benchmarks.peers.saq.settings", "--quiet"]

queue = Queue.from_url(URL)


async def noop(_: Any) -> None:
    """Do nothing."""


async def started(_: Any, *, sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


settings = {"queue": queue, "functions": [noop, started], "concurrency": 10}


async def send() -> object:
    return await queue.enqueue("noop", ttl=-1)


async def start(sent_ns: int) -> object:
    return await queue.enqueue("started", ttl=-1, sent_ns=sent_ns)


async def ask() -> object:
    return await queue.apply("noop", poll_interval=0.001)


def remaining(client: Any) -> int:
    return int(client.llen("saq:default:queued") + client.llen("saq:default:active"))
