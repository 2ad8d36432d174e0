"""``taskq demo``: the mail-out of `taskq.showcase.demo`, with what it needs checked first."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

import click

from taskq.cli.common import broker_for, ready_for_shows, server_url, wait_for_server
from taskq.errors import BrokerError


@click.command()
@click.option(
    "--url", metavar="URL", help="The server; TASKQ_URL or the project's embedded one (in .taskq/) unless given."
)
@click.option(
    "--mails", type=click.IntRange(20, 100_000), default=400, show_default=True, help="How many mails to send."
)
def command(url: str | None, mails: int) -> None:
    """A mail-out with a worker killed half-way; nothing to set up.

    Starts a mail server on this machine and a worker with two processes, sends the mails of examples/mailer, kills
    one process with SIGKILL half-way, and shows what became of every mail. Exit codes: 0 none was lost, 1 some were,
    or the demo did not come to its end, 2 wrong usage or something missing.
    """
    ready_for_shows("demo")
    from rich.console import Console

    from taskq.showcase import demo
    from taskq.showcase.example import ShowFailed

    server = server_url(url, new=True)
    wait_for_server(broker_for(server, "any"))
    console = Console()
    try:
        books = demo.MailOut(server, mails, console).run()
    except (ShowFailed, BrokerError) as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(1)
    demo.show(books, console, [*_program(), "dead", "show", *(["--url", shlex.quote(url)] if url else [])])
    if books.lost or books.queue.balance:
        click.echo(f"taskq: mails were lost; the ledger is off by {books.queue.balance}", err=True)
        sys.exit(1)


def _program() -> list[str]:
    """Return how to call taskq from this shell: as it was called, if it is not on the path."""
    if shutil.which("taskq"):
        return ["taskq"]
    called = os.path.relpath(sys.argv[0])
    if os.path.basename(called) == "taskq" and os.access(called, os.X_OK):
        return [shlex.quote(called)]
    return [shlex.quote(sys.executable), "-m", "taskq"]
