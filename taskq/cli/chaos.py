"""``taskq chaos``: the show of `taskq.showcase.chaos`, which breaks only what it may."""

from __future__ import annotations

import secrets
import sys

import click

from taskq.cli.common import USAGE, broker_for, ready_for_shows, wait_for_server
from taskq.config import load_settings
from taskq.errors import BrokerError, ConfigError


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(3, 3600), default=60, show_default=True, help="How long things are broken."
)
@click.option("--seed", type=click.IntRange(0), help="Repeats the plan of faults; one at random unless given.")
@click.option(
    "--workers", type=click.IntRange(2, 32), default=3, show_default=True, help="Workers, of two processes each."
)
@click.option("--url", metavar="URL", help="A server; one of its own, embedded, unless given here or by TASKQ_URL.")
@click.option("--yes-break-it", is_flag=True, help="Cut connections on the server of --url or TASKQ_URL, too.")
def command(seconds: float, seed: int | None, workers: int, url: str | None, yes_break_it: bool) -> None:
    """Break everything for a minute, and prove that nothing is lost.

    Sends the mails of examples/mailer without a pause, to a mail server on this machine that keeps its own books.
    Meanwhile it kills processes, whole workers and the server with SIGKILL, stops workers for longer than their lease
    and cuts connections. When everything has ended it compares the books: every mail is there, and each that was sent
    again was in the hands of a process that was hit.

    The server is an embedded one in a temporary folder. One that is named is used only with --yes-break-it; it is not
    killed, and of its connections only those of this command are cut.

    Exit codes: 0 nothing was lost and everything is explained, 1 something was not, or it did not come to its end, 2
    wrong usage or something missing.
    """
    ready_for_shows("chaos")
    server = _server(url, yes_break_it)
    from rich.console import Console

    from taskq.showcase import report
    from taskq.showcase.chaos import LEASE, Chaos
    from taskq.showcase.example import ShowFailed

    console = Console()
    try:
        chaos = Chaos(server, seconds, secrets.randbelow(10**6) if seed is None else seed, workers, console)
        books = chaos.run()
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)
    except (ShowFailed, BrokerError) as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(1)
    report.show(books, LEASE, console)
    for problem in books.problems:
        click.echo(f"taskq: {problem}", err=True)
    if chaos.kept:
        click.echo(f"taskq: the logs of the workers are in {chaos.kept}, the app was {chaos.app}", err=True)
        sys.exit(1)


def _server(url: str | None, yes_break_it: bool) -> str | None:
    """Return the server that was named, if it may be broken; None if none was named."""
    try:
        named = load_settings({"url": url}).url
    except ConfigError as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)
    if named is None:
        return None
    broker = broker_for(named, "any")
    if not yes_break_it:
        click.echo(
            f"taskq: this would cut connections on {broker.where} (from --url, TASKQ_URL or [tool.taskq]). Say "
            "--yes-break-it if you mean it; without a URL it breaks a server of its own",
            err=True,
        )
        sys.exit(USAGE)
    wait_for_server(broker)
    return named
