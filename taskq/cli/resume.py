"""``taskq resume``: let a paused queue or task go on; needs no app's code."""

from __future__ import annotations

import sys

import click

from taskq.cli.common import app_at, keys_of, name_option, reaching, url_option
from taskq.config import check_name


@click.command()
@click.argument("what", metavar="QUEUE|TASK")
@name_option
@url_option
def command(what: str, app: str | None, url: str | None) -> None:
    """Let messages of a paused queue or task be taken again.

    Exit codes: 0 done, 1 it was not paused, 2 wrong usage or no server.
    """
    from taskq.broker import commands

    with reaching(url) as broker:
        keys = keys_of(app_at(broker, app))
        was = broker.run(commands.resume(keys, check_name("queue or task", what)))
    if not was:
        click.echo(f"taskq: {what} was not paused", err=True)
        sys.exit(1)
    click.echo(f"resumed {what}")
