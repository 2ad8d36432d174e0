"""A message that comes alone, measured in the scripts only: what its life costs the server, however lean the worker.

One process is caller and child in turn, so that neither adds costs of its own. taskq's life has three calls: `delay`,
the fetch that settles the message before, and the one after the bell, as `taskq.worker.child.main_lane` makes them. The
classic life has the three commands of a reliable list, over as many bytes: no fence, no ledger, nothing that repeats
what was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from redis import Redis

from benchmarks import lab
from benchmarks.tasks import app, noop
from taskq.broker.commands.holding import QueueSet
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.message.outcome import Done
from taskq.worker.child.main_lane import WAIT
from taskq.worker.child.pace import BATCH, Pace
from taskq.worker.child.session import Session

_LEASE_MS = 3_600_000
#: Lives before the clock starts: to connect, to load the scripts, for the tables on the server to have their size.
_WARM = 50


def taskq_life(connection: Connection) -> Callable[[], None]:
    """Register an incarnation; returns what one message goes through."""
    session = Session(app.client.keys, QueueSet.of([noop.queue]), b"", _LEASE_MS, _LEASE_MS, began=lambda _: None)
    drive(session.open(), connection)
    pace = Pace()
    pace.saw(noop.queue, 1e-6, 1)

    exchange = partial(session.exchange, want=BATCH, caps=pace.caps, wait=WAIT)
    ended: list[Done] = []

    def life() -> None:
        noop.delay()
        if ended:
            drive(exchange(ended), connection)  # the wait and the fetch after it go along
        raw_id, _ = drive(exchange([]), connection).messages
        ended[:] = [(raw_id, b"")]

    return life


def classic_life(client: Redis, size: int) -> Callable[[], None]:
    """What a message of so many bytes goes through on a list."""
    body = b"x" * size

    def life() -> None:
        client.rpush("lone:from", body)
        taken = client.blmove("lone:from", "lone:to", WAIT, "LEFT", "RIGHT")
        client.lrem("lone:to", 1, taken)

    return life


def server_cpu(server: lab.Server, function: Callable[[], object], n: int, every: float = 0.0) -> float:
    """CPU in µs that the server needs for a call of ``function``: of n in a row, or one ``every`` so many seconds."""
    for _ in range(_WARM):
        function()
    before, began = server.cpu(), time.perf_counter()
    for i in range(n):
        if every:
            time.sleep(max(0.0, began + i * every - time.perf_counter()))
        function()
    return (server.cpu() - before) / n * 1e6


def measure(url: str, n: int) -> dict[str, float]:
    """Everything once, in turn: lives in a row and spread out, and the acceptance of one message alone."""
    server, connection = lab.Server(url), Connection(url)
    stored = b"".join(noop.call().message[:2])
    lives = {"taskq": taskq_life(connection), "classic": classic_life(server.client, len(stored))}
    found = {}
    for name, life in lives.items():
        found[f"{name}.hot"] = server_cpu(server, life, n)
    for name, life in lives.items():
        found[f"{name}.spread"] = server_cpu(server, life, n // 5, lab.TRICKLE)
    found["taskq.accept"] = server_cpu(server, noop.delay, n)
    found["classic.accept"] = server_cpu(server, lambda: server.client.rpush("lone:more", stored), n)
    connection.close()
    return found
