"""Celery: prefork, ``acks_late`` (without it a task is lost when its worker dies), no gossip."""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks.peers import URL, note_start

REQUIREMENTS = ["celery[redis]", "hiredis"]
WORKER = ["-m", "celery", "-A", "benchmarks.peers.celery", "worker", "-P", "prefork", "-c", "1", "-l", "warning"]
WORKER += ["--without-gossip", "--without-mingle"]

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing."""


@app.task(ignore_result=True)
def started(sent_ns: int) -> None:
    """Note how long it took from the call to here."""
    note_start(sent_ns)


@app.task
def noop_result() -> None:
    """Do nothing; the result is kept."""


send, start = noop.delay, started.delay


def ask() -> object:
    return noop_result.delay().get(timeout=30)


def remaining(client: Any) -> int:
    return int(client.llen("celery") + client.hlen("unacked"))
