"""What ``taskq quiet`` and ``taskq stop`` share: telling a worker, on whatever host, to take no more or to end."""

from __future__ import annotations

from typing import Any

import click

from taskq.cli.common import dry_run_option, names_option, reaching, url_option
from taskq.spelling import count


def give(name: str, word: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Leave a word for the workers of that name, and say so."""
    from taskq.steering.ordering import order
    from taskq.views.apps import apps_at
    from taskq.views.workers import named, workers_of

    with reaching(url) as broker:
        apps = {one_app.app: one_app for one_app in broker.perform(apps_at(broker.where, names))}
        every = [worker for one_app in apps.values() for worker in broker.perform(workers_of(one_app))]
        for worker in named(every, name, broker.where):
            running = count(sum(len(lane.held) for lane in worker.lanes), "message")
            if not dry_run:
                broker.perform(order(apps[worker.app], [worker], word))
            what = "would tell" if dry_run else "told"
            click.echo(f"{what} worker {name} of {worker.app} on {worker.host} to {_WORDS[word]}; it holds {running}")


_WORDS = {"quiet": "take no more", "stop": "stop"}


def of_one_worker(function: Any) -> Any:
    """Add what names a worker."""
    for option in (url_option, names_option, dry_run_option):
        function = option(function)
    return click.argument("name", metavar="WORKER")(function)
