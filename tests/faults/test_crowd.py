"""Many reapers and promoters at once, without a leader: what is due moves once, what was lost comes back once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.commands import holding, looking
from taskq.broker.commands.leasing import Move
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.broker.queue_set import QueueSet
from taskq.upkeep.reaper import Reaper
from tests.support import survey

CROWD, N = 20, 10_000
#: What an incarnation can hold.
MOST = 125


def raw(app: TaskQ, *words: Any) -> Any:
    return app.client.broker.run(Command(None, list(words), lambda reply: reply))


def step_at_once(app: TaskQ) -> list[Move]:
    """Let a crowd of reapers reap and promote, from the same moment on; answers the moves they were told of."""
    moves: list[Move] = []
    errors: list[Exception] = []
    begin = threading.Barrier(CROWD)

    def step(name: str) -> None:
        connection = Connection(app.client.url)
        reaper = Reaper(app.client.keys, name, 15.0, lambda _, found: moves.extend(found))
        connection.execute(looking.server_time())
        begin.wait()
        try:
            for _ in range(5):
                drive(reaper.step(), connection)
        except Exception as error:
            errors.append(error)
        connection.close()

    threads = [threading.Thread(target=step, args=(f"reaper-{i}",)) for i in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return moves


def test_ten_thousand_due_and_ten_thousand_lost_messages_move_once_in_a_crowd(app: TaskQ) -> None:
    add, keys, connection = app.task(name="add")(lambda a: a), app.client.keys, Connection(app.client.url)
    add.delay_many(range(N))
    held: list[bytes] = []
    for i in range(N // MOST):  # as much as an incarnation can take, in the name of one that is not heard of again
        inc, most = f"lost-{i}", f" add={MOST} "
        connection.execute(holding.register(keys, inc, 15_000, b"", QueueSet("s", ("add",))))
        held += connection.execute(holding.fetch(keys, inc, 1, [], want=MOST, set_id="s", caps=most)).messages[::2]
    due = [h._raw_id for h in app.enqueue_many(add.prepare_call((i,), countdown=15) for i in range(N))]
    assert len(held) == N
    raw(app, b"SET", keys["clock"], 15_500)
    raw(app, b"SET", keys["pulse"], connection.execute(looking.server_time()) * 1000 + 15_400)  # somebody was there

    moves = step_at_once(app)

    assert Counter(move.id for move in moves) == Counter(held)
    assert {move.place for move in moves} == {"suspect"}, "all of them may have been running"
    assert Counter(raw(app, b"LRANGE", keys["suspects:add"], 0, -1)) == Counter(held)
    assert Counter(raw(app, b"LRANGE", keys["queue:add"], 0, -1)) == Counter(due)
    ledger = survey(app)["add"]
    assert (ledger.suspects, ledger.pending, ledger.processing, ledger.scheduled, ledger.balance) == (N, N, 0, 0, 0)
    assert ledger.counters["recovered"] == N
    connection.close()
