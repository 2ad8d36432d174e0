"""``taskq ps``: what runs, where, and since when; needs no app's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.output import Listing, json_option, seconds
from taskq.cli.tables import Cell, Column, age, moment, one_line

if TYPE_CHECKING:
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.views.running import Running

_COLUMNS = (
    Column("ID", whole=True),
    Column("APP", spare=True),
    Column("TASK"),
    Column("QUEUE", spare=True, like="TASK"),
    Column("WORKER"),
    Column("CHILD", number=True, spare=True),
    Column("FOR", number=True),
    Column("ARGS"),
)


@click.command()
@click.option("--task", metavar="TASK", help="Of this task.")
@click.option("--queue", metavar="QUEUE", help="Taken from this queue.")
@click.option("--worker", metavar="WORKER", help="Held by this worker.")
@names_option
@url_option
@json_option
def command(
    task: str | None,
    queue: str | None,
    worker: str | None,
    names: tuple[str, ...],
    url: str | None,
    as_json: bool,
) -> None:
    """Show what runs: where, and for how long, the longest first.

    It is what workers hold: of tiny tasks also what will run within milliseconds. FOR is counted from when the worker
    took the message. Arguments are shown of tasks that declare it (show_args), else not. Exit codes: 0 shown, 2 wrong
    usage or no server, or an app, task, queue or worker that does not exist.
    """
    from taskq.broker.commands import looking
    from taskq.views.apps import apps_at
    from taskq.views.running import running

    with reaching(url) as broker:
        apps, now = broker.perform(apps_at(broker.where, names)), broker.run(looking.server_time())
        listing = Listing(as_json, *_COLUMNS)
        for one in (one for one_app in apps for one in broker.perform(running(one_app))):
            if task in (None, one.task) and queue in (None, one.held.queue) and worker in (None, one.worker.name):
                listing.add(_row(one, now), _document(one, now))
        if not listing.total:
            _check(broker, apps, task, queue, worker)
        listing.end(broker.where, "running message")


def _check(broker: Broker, apps: Sequence[Topology], task: str | None, queue: str | None, worker: str | None) -> None:
    """Refuse names that nobody has; raises `ConfigError`."""
    from taskq.views.names import known_names
    from taskq.views.workers import named, workers_of

    if task or queue:
        broker.perform(known_names(apps)).check(broker.where, task=task, queue=queue)
    if worker:
        named(
            [one for one_app in apps for one in broker.perform(workers_of(one_app, held=False))], worker, broker.where
        )


def _row(one: Running, now: float) -> tuple[Cell, ...]:
    child = one.lane.info.child
    return (
        *(_text_id(one), one_line(one.worker.app), one_line(one.task) or "(has just ended)", one_line(one.held.queue)),
        *(one_line(one.worker.name), "?" if child < 0 else str(child), age(now - one.held.since), _args(one, now)),
    )


def _text_id(one: Running) -> str:
    from taskq.message.ids import id_to_text

    return id_to_text(one.held.id)


def _args(one: Running, now: float) -> str:
    notes = [", ".join(f"{name}={value}" for name, value in one.args.items())] if one.args else []
    if one.held.alone:
        notes.append("(runs alone, since a process has died)")
    if one.lane.lease_ends <= now:
        notes.append(f"(no sign of life: its lease ended {age(now - one.lane.lease_ends)} ago)")
    return one_line(" ".join(notes))


def _document(one: Running, now: float) -> dict[str, Any]:
    return {
        "id": _text_id(one),
        "app": one.worker.app,
        "task": one.task or None,
        "queue": one.held.queue,
        "worker": one.worker.name,
        "host": one.lane.info.host,
        "pid": one.lane.info.pid,
        "child": one.lane.info.child,
        "lane": one.lane.info.lane,
        "since": moment(one.held.since),
        "seconds": seconds(now - one.held.since),
        "alone": one.held.alone,
        "lease_ends": moment(one.lane.lease_ends),
        "args": dict(one.args),
    }
