"""``taskq purge``: delete what waits in a queue; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.common import agree, dry_run_option, name_option, reaching, url_option, yes_option
from taskq.config import check_name
from taskq.spelling import count


@click.command()
@click.argument("queue", metavar="QUEUE")
@yes_option
@dry_run_option
@name_option
@url_option
def command(queue: str, yes: bool, dry_run: bool, app: str | None, url: str | None) -> None:
    """Delete for good what waits in a queue; it says how many messages there are, and asks.

    That is what waits for its turn or at a limit. What is scheduled, what runs and dead letters stay: for those there
    are `taskq revoke --queue` and `taskq dead purge`. Callers that wait for a result are told; the ledger counts the
    messages as purged. Exit codes: 0 done, 1 the answer was no, 2 wrong usage or no server, or a queue that nobody has
    ever used.
    """
    from taskq.steering.purging import purge_queue
    from taskq.views.apps import app_at
    from taskq.views.names import known_names
    from taskq.views.queues import queues_of

    with reaching(url) as broker:
        partitions = broker.perform(app_at(broker.where, app))
        broker.perform(known_names([partitions])).check(f"app {partitions.app}", queue=check_name("queue", queue))
        there = next((one for one in broker.perform(queues_of(partitions)) if one.name == queue), None)
        waiting = there.waiting if there else 0
        what = f"{count(waiting, 'message')} from queue {queue} of app {partitions.app}"
        if dry_run or not waiting:
            click.echo(f"{'would purge' if dry_run else 'purged'} {what}")
            return
        agree(f"Delete {what} for good?", yes)
        gone = broker.perform(purge_queue(partitions, queue))
    click.echo(f"purged {count(gone, 'message')} from queue {queue} of app {partitions.app}")
