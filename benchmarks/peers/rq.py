"""RQ: SimpleWorker, which runs jobs in the worker's own process; the default worker forks for each job."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq import Queue

from benchmarks.peers import URL, note_start

REQUIREMENTS = ["rq", "hiredis"]
WORKER = ["-m", "rq.cli", "worker", "--worker-class", "rq.SimpleWorker", "--url", URL, "--quiet", "default"]

queue = Queue(connection=Redis.from_url(URL))


def noop() -> None:
    """Do nothing."""


def send() -> object:
    return queue.enqueue(noop, result_ttl=0)


def start(sent_ns: int) -> object:
    return queue.enqueue(note_start, sent_ns, result_ttl=0)


def ask() -> object:
    return queue.enqueue(noop).latest_result(timeout=30)


def remaining(client: Any) -> int:
    return int(client.llen("rq:queue:default") + client.zcard("rq:wip:default"))
