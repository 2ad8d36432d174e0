"""``taskq quiet``: let a worker take no more; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.orders import give, of_one_worker


@click.command()
@of_one_worker
def command(name: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Tell a worker, on any host, to take no more messages.

    What it runs goes on, however long that takes; its children exit when they have nothing left. The worker itself
    stays, without work, until `taskq stop` or a SIGTERM. Exit codes: 0 told, 2 wrong usage or no server, or no such
    worker.
    """
    give(name, "quiet", names, url, dry_run)
