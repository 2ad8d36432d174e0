"""``taskq why``: one sentence about a message; needs no app's code."""

from __future__ import annotations

import sys

import click

from taskq.cli.common import apps_at, keys_of, names_option, raw_id_of, reaching, url_option


@click.command()
@click.argument("text_id", metavar="ID")
@names_option
@url_option
def command(text_id: str, names: tuple[str, ...], url: str | None) -> None:
    """Say in one sentence why a message does not run.

    Exit codes: 0 said, 1 no message and no result of that id exists, 2 wrong usage or no server.
    """
    from taskq.broker import commands
    from taskq.why import sentence

    raw_id = raw_id_of(text_id)
    with reaching(url) as broker:
        text = f"No app is known at {broker.where}."
        for app in apps_at(broker, names):
            reply = broker.run(commands.why(keys_of(app), raw_id))
            text = sentence(raw_id, reply)
            if {b"value", b"result"} & set(reply[::2]):
                click.echo(text)
                return
    click.echo(text)
    sys.exit(1)
