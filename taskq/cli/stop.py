"""``taskq stop``: let a worker end; needs no app's code."""

from __future__ import annotations

import click

from taskq.cli.orders import give, of_one_worker


@click.command()
@of_one_worker
def command(name: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Stop a worker, on any host, as a SIGTERM there would.

    It starts nothing more, what runs has its --grace to end, and the rest goes back to the queues. Whatever supervises
    the worker may start it anew. Exit codes: 0 told, 2 wrong usage or no server, or no such worker.
    """
    give(name, "stop", names, url, dry_run)
