"""Lost workers and dead letters, made without a worker: what one would have told the server."""

from __future__ import annotations

from collections.abc import Iterable

from taskq import TaskQ
from taskq.broker.commands import announcing, holding, leasing
from taskq.broker.commands.outcomes import words
from taskq.broker.queue_set import QueueSet
from taskq.message.details import error_detail
from taskq.message.ids import id_to_text
from taskq.message.outcome import Dead
from taskq.worker.plan import settings_for_scripts


def publish(app: TaskQ) -> None:
    """Tell the server what a worker of the app tells it at its start."""
    keys, run = app.client.keys, app.client.broker.run
    run(announcing.announce_app(keys))
    tasks = [(task.name, task.queue, "") for task in app.tasks.values()]
    run(announcing.publish_tasks(keys, tasks, settings_for_scripts(app.settings, app.tasks)))


def take(app: TaskQ, queue: str, n: int, *, lease_ms: int = 60_000, incarnation: str = "lost") -> list[bytes]:
    """Register an incarnation and take messages in its name; returns their ids."""
    keys, run = app.client.keys, app.client.broker.run
    queues = QueueSet.of([queue])
    run(holding.register(keys, incarnation, lease_ms, b"", queues))
    batch = run(holding.fetch(keys, incarnation, 1, [], want=n, set_id=queues.id, caps=f" {queue}=128 "))
    return batch.messages[::2]


def bury(
    app: TaskQ, queue: str, n: int = 1, reason: str = "failed", error: str = "no", traceback: str = "", number: int = 0
) -> list[str]:
    """Make dead letters of what waits in a queue; returns their ids as users see them."""
    keys, run = app.client.keys, app.client.broker.run
    incarnation = f"undertaker{number}"
    ids = take(app, queue, n, incarnation=incarnation)
    detail = error_detail("ValueError", error, traceback, worker="w", retries=2)
    run(holding.fetch(keys, incarnation, 2, words([Dead(i, reason, detail, b"") for i in ids], 1000)))
    run(leasing.close(keys, incarnation, died=False, alone=False, running=()))
    return texts(ids)


def texts(ids: Iterable[bytes]) -> list[str]:
    return [id_to_text(raw_id) for raw_id in ids]
