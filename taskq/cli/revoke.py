"""``taskq revoke``: let messages not run, or run no longer; needs no app's code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import agree, dry_run_option, raw_id_of, reaching, url_option, yes_option
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.steering.revoking import Which

_ANSWERS = {
    "revoked": "revoked",
    "running": "runs: its worker stops it",
    "dead": "is a dead letter; to delete it: taskq dead purge {id}",
    "unknown": "is not known: it has ended, or never was",
}
_DONE = frozenset({"revoked", "running"})
_WOULD = {**_ANSWERS, "revoked": "would be revoked", "running": "runs: its worker would stop it"}


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
@yes_option
@dry_run_option
@url_option
def command(
    ids: tuple[str, ...],
    task: str | None,
    queue: str | None,
    headers: tuple[str, ...],
    reason: str,
    app: str | None,
    yes: bool,
    dry_run: bool,
    url: str | None,
) -> None:
    """Revoke messages, so that they do not run, or stop running.

    Waiting messages are discarded, and none of them starts meanwhile. In running tasks TaskRevoked is raised; the
    process is killed if the task has not ended some seconds later. Give ids, or say which by --task, --queue and
    --header, which must all apply: then it says how many there are, and asks. Exit codes: 0 done, 1 a given id could
    not be revoked or the answer was no, 2 wrong usage or no server, or an app, task or queue that nobody has ever used.
    """
    if bool(ids) == bool(task or queue or headers):
        raise click.UsageError("name the ids to revoke, or say which by --task, --queue or --header")
    from taskq.steering.revoking import Which
    from taskq.views.apps import app_at, apps_at

    with reaching(url) as broker:
        if ids:
            apps = broker.perform(apps_at(broker.where, [app] if app else []))
            sys.exit(0 if _revoke_these(broker, apps, ids, reason, dry_run) else 1)
        which = Which(task, queue, dict(map(_header, headers)))
        _revoke_all(broker, broker.perform(app_at(broker.where, app)), which, reason, yes, dry_run)


def _revoke_these(broker: Broker, apps: list[Topology], ids: tuple[str, ...], reason: str, dry_run: bool) -> bool:
    """Revoke each, in whichever app it is; say what came of it, and answer whether none of them will run (on)."""
    from taskq.steering.revoking import revoke_these, would_revoke

    raw_ids = {raw_id_of(text_id): text_id for text_id in ids}
    steps = would_revoke(apps, [*raw_ids]) if dry_run else revoke_these(apps, [*raw_ids], reason)
    answers = broker.perform(steps)
    for raw_id, answer in answers.items():
        text = (_WOULD if dry_run else _ANSWERS)[answer].format(id=raw_ids[raw_id])
        click.echo(f"{raw_ids[raw_id]} {text}", err=answer not in _DONE)
    return _DONE.issuperset(answers.values())


def _revoke_all(broker: Broker, partitions: Topology, which: Which, reason: str, yes: bool, dry_run: bool) -> None:
    """Say how many are meant, and revoke them if that is what the user wants."""
    from taskq.steering.revoking import count_running, find_all, revoke_all

    found = broker.perform(find_all(partitions, which))
    if not found:
        _check(broker, partitions, which)
    running = broker.perform(count_running(partitions, found))
    what = (
        f"{count(len(found), 'message')} of app {partitions.app}{f', {running:,} of them running' if running else ''}"
    )
    if dry_run or not found:
        click.echo(f"{'would revoke' if dry_run else 'revoked'} {what}")
        return
    agree(f"Revoke {what}?", yes)
    click.echo(f"revoked {count(broker.perform(revoke_all(partitions, which, reason)), 'message')}")


def _check(broker: Broker, partitions: Topology, which: Which) -> None:
    """Refuse what nothing is of, because nobody has ever used that name; raises `ConfigError`."""
    from taskq.steering.revoking import header_names
    from taskq.views.names import known_names, unknown

    app = f"app {partitions.app}"
    broker.perform(known_names([partitions])).check(app, task=which.task, queue=which.queue)
    names = broker.perform(header_names(partitions)) if which.headers else set()
    for name in which.headers:
        if names and name not in names:
            raise unknown("message with a header", name, app, names)


def _header(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--header {text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
