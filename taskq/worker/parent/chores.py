"""What a parent's heartbeat does beside the leases, each thing every so many seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskq.broker.net.server import LEDGER_EVERY, WATCH_EVERY, Ledger, Watch
from taskq.broker.pool import Broker
from taskq.broker.protocol import Protocol
from taskq.config import Settings
from taskq.worker.parent.announcing import ANNOUNCE_EVERY, Announcement
from taskq.worker.parent.strays import Strays
from taskq.worker.plan import Plan


@dataclass(slots=True)
class Chore:
    """Something else the thread does every so many seconds, and at once when the server is not what it was."""

    what: str
    every: float
    steps: Callable[[], Protocol[object]]
    at: float = 0.0


def chores_of(settings: Settings, plan: Plan, broker: Broker, announcement: Announcement) -> list[Chore]:
    """Return those that every worker has."""
    partitions = broker.partitions
    strays = [Strays(keys, plan.name, settings.unknown_after) for keys in partitions.all]
    watch = Watch(partitions, broker.where, settings.result_memory)
    return [
        Chore("say again what it announced", ANNOUNCE_EVERY, announcement.make),
        Chore("watch the server", WATCH_EVERY, watch.look),
        Chore("look at the ledger", LEDGER_EVERY, Ledger(partitions).look),
        *(Chore("look for messages that nobody takes", 0.0, one.look) for one in strays),  # they know when
    ]
