"""``taskq revoke``: let messages not run, or run no longer; needs no app's code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import app_at, apps_at, keys_of, raw_id_of, reaching, url_option

if TYPE_CHECKING:
    from taskq.broker.pool import Broker

_ANSWERS = {
    "revoked": "revoked",
    "running": "runs: its worker stops it",
    "dead": "is a dead letter; to delete it: taskq dead purge {id}",
    "unknown": "is not known: it has ended, or never was",
}


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--task", metavar="TASK", help="All of this task.")
@click.option("--queue", metavar="QUEUE", help="All on this queue.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE",
    help="All with this header; may be repeated. The value is JSON where it can be read so, else text.",
)  # fmt: skip
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wait for a result.")
@click.option(
    "--name",
    "app",
    metavar="APP",
    help="Of this app; with --task, --queue or --header needed if the server has several.",
)
@url_option
def command(
    ids: tuple[str, ...],
    task: str | None,
    queue: str | None,
    headers: tuple[str, ...],
    reason: str,
    app: str | None,
    url: str | None,
) -> None:
    """Let messages not run, or run no longer.

    What waits is discarded. In what runs TaskRevoked is raised; its process is killed if it has not ended some seconds
    later. Give ids, or say which by --task, --queue and --header, which must all apply. Exit codes: 0 done, 1 an id
    that was named could not be revoked, 2 wrong usage or no server.
    """
    if bool(ids) == bool(task or queue or headers):
        raise click.UsageError("name the ids to revoke, or say which by --task, --queue or --header")
    with reaching(url) as broker:
        if ids:
            apps = apps_at(broker, [app] if app else [])
            answers = [_revoke(broker, apps, text_id, reason) for text_id in dict.fromkeys(ids)]
            sys.exit(0 if all(answers) else 1)
        from taskq.revoking import Which, revoke_all

        which = Which(task, queue, dict(map(_header, headers)))
        steps = revoke_all(keys_of(app_at(broker, app)), which, reason, broker.where, broker.send_timeout)
        count = broker.drive(steps)
        click.echo(f"revoked {count} message{'' if count == 1 else 's'}")


def _revoke(broker: Broker, apps: list[str], text_id: str, reason: str) -> bool:
    """Revoke one, in whichever app it is; say what came of it, and whether it will not run (on)."""
    from taskq.broker import commands

    raw_id, answer = raw_id_of(text_id), "unknown"
    for app in apps:
        answer = broker.run(commands.revoke(keys_of(app), raw_id, reason))
        if answer != "unknown":
            break
    done = answer in ("revoked", "running")
    click.echo(f"{text_id} {_ANSWERS[answer].format(id=text_id)}", err=not done)
    return done


def _header(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--header {text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
