"""``taskq pause``: let nothing more be taken from a queue, or of a task; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.common import app_at, is_known, keys_of, name_option, reaching, url_option
from taskq.cli.tables import Age
from taskq.config import check_name, whoami


@click.command()
@click.argument("what", metavar="QUEUE|TASK")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder later.")
@click.option("--seconds", type=Age(), default=0.0, metavar="AGE", help="Resumed by itself after 90 (s), 30m, 2h.")
@name_option
@url_option
def command(what: str, reason: str, seconds: float, app: str | None, url: str | None) -> None:
    """Let nothing more be taken from a queue, or of a task, by any worker.

    What runs goes on, what comes waits. It lasts until `taskq resume`, whatever restarts. Pausing again gives a new
    reason and time. Exit codes: 0 done, 2 wrong usage or no server.
    """
    from taskq.broker import commands

    with reaching(url) as broker:
        keys = keys_of(app_at(broker, app))
        known = is_known(broker, keys, check_name("queue or task", what))
        new = broker.run(commands.pause(keys, what, seconds, whoami(), reason))
        click.echo(f"paused {what}" if new else f"{what} was paused before: the new reason and time hold")
        if not known:
            click.echo(f"taskq: app {keys.app} has no queue or task {what} yet", err=True)
