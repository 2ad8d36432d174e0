"""Gives orders to a worker on any host: its parent listens for them on the server."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.commands import fleet
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import ConfigError
from taskq.views.workers import Worker

#: Words that a worker knows: to take no more, and end when it is told to; to end now, as at a SIGTERM.
WORDS = ("quiet", "stop")


def order(partitions: Topology, workers: Sequence[Worker], word: str) -> Protocol[None]:
    """Leave a word of `WORDS` for these workers; each hears it within milliseconds if it has its connection.

    Raises:
        ConfigError: One of them cannot be told: it is gone, or of a version that does not listen.
    """
    for worker in workers:
        if not worker.id:
            pids = sorted({lane.info.pid for lane in worker.lanes})
            raise ConfigError(
                f"worker {worker.name} is of a version that takes no orders: send its parent on {worker.host} a "
                f"SIGTERM; its children there have the pids {', '.join(map(str, pids))}"
            )
        told: bool = yield fleet.order(partitions.first, worker.id, word)
        if not told:
            raise ConfigError(f"worker {worker.name} on {worker.host} has given no sign of life lately")
