"""``taskq resume``: let a paused queue or task go on; needs no app's code."""

from __future__ import annotations

import sys

import click

from taskq.cli.common import dry_run_option, name_option, reaching, url_option
from taskq.config import check_name


@click.command()
@click.argument("what", metavar="QUEUE|TASK")
@dry_run_option
@name_option
@url_option
def command(what: str, dry_run: bool, app: str | None, url: str | None) -> None:
    """Resume a paused queue or task.

    Exit codes: 0 done, 1 it was not paused, 2 wrong usage or no server, or a name that nobody has used yet.
    """
    from taskq.broker.commands import looking
    from taskq.steering.pausing import resume
    from taskq.views.apps import app_at
    from taskq.views.names import known_names, unknown

    with reaching(url) as broker:
        partitions = broker.perform(app_at(broker.where, app))
        paused = {one.name for keys in partitions.all for one in broker.run(looking.pauses(keys))}
        was = check_name("queue or task", what) in paused
        if not was and what not in (known := broker.perform(known_names([partitions])).all):
            raise unknown("queue or task", what, f"app {partitions.app}", paused or known)
        if was and not dry_run:
            was = broker.perform(resume(partitions, what))
    if not was:
        click.echo(f"taskq: {what} was not paused", err=True)
        sys.exit(1)
    click.echo(f"{'would resume' if dry_run else 'resumed'} {what}")
