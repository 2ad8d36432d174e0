"""``taskq pause``: let nothing more be taken from a queue, or of a task; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.common import dry_run_option, name_option, reaching, url_option
from taskq.cli.tables import Age
from taskq.config import check_name
from taskq.errors import ConfigError
from taskq.spelling import count, guess


@click.command()
@click.argument("what", metavar="QUEUE|TASK")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown to anybody who asks.")
@click.option("--seconds", type=Age(), default=0.0, metavar="AGE", help="Resumed by itself after 90 (s), 30m, 2h.")
@click.option("--new", is_flag=True, help="Allow a name that nobody has used yet.")
@dry_run_option
@name_option
@url_option
def command(what: str, reason: str, seconds: float, new: bool, dry_run: bool, app: str | None, url: str | None) -> None:
    """Pause a queue or a task: no worker takes anything more of it.

    What runs goes on, what comes waits. It lasts until `taskq resume`, whatever restarts. Pausing again gives a new
    reason and time. Exit codes: 0 done, 2 wrong usage or no server, or a name that nobody has used yet.
    """
    from taskq.steering.pausing import pause
    from taskq.views.apps import app_at
    from taskq.views.names import known_names
    from taskq.views.queues import queues_of

    with reaching(url) as broker:
        partitions = broker.perform(app_at(broker.where, app, new=new))
        known = broker.perform(known_names([partitions])).all
        if check_name("queue or task", what) not in known and not new:
            raise ConfigError(
                f"app {partitions.app} has no queue or task {what} yet, so nothing was paused "
                f"(--new pauses it all the same){guess(what, known)}"
            )
        if dry_run:
            there = next((queue for queue in broker.perform(queues_of(partitions)) if queue.name == what), None)
            waiting, running = (there.waiting, there.survey.processing) if there else (0, 0)
            click.echo(f"would pause {what}: {count(waiting, 'message')} waiting there, {running:,} running on")
            return
        first = broker.perform(pause(partitions, what, reason, seconds))
        click.echo(f"paused {what}" if first else f"{what} was paused before: the new reason and time hold")
