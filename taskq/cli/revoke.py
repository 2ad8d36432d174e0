"""``taskq revoke``: let messages not run, or run no longer; needs no app's code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import (
    agree,
    app_at,
    apps_at,
    dry_run_option,
    keys_of,
    raw_id_of,
    reaching,
    url_option,
    yes_option,
)
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker
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
    """Let messages not run, or run no longer.

    What waits is discarded, and none of it is begun meanwhile. In what runs TaskRevoked is raised; its process is
    killed if it has not ended some seconds later. Give ids, or say which by --task, --queue and --header, which must
    all apply: then it says how many there are, and asks. Exit codes: 0 done, 1 an id that was named could not be
    revoked or the answer was no, 2 wrong usage or no server, or an app, task or queue that nobody has ever used.
    """
    if bool(ids) == bool(task or queue or headers):
        raise click.UsageError("name the ids to revoke, or say which by --task, --queue or --header")
    with reaching(url) as broker:
        if ids:
            apps = apps_at(broker, [app] if app else [])
            sys.exit(0 if _revoke_these(broker, apps, list(dict.fromkeys(ids)), reason, dry_run) else 1)
        from taskq.steering.revoking import Which

        which = Which(task, queue, dict(map(_header, headers)))
        _revoke_all(broker, app_at(broker, app), which, reason, yes, dry_run)


def _revoke_these(broker: Broker, apps: list[str], ids: list[str], reason: str, dry_run: bool) -> bool:
    """Revoke each, in whichever app it is; say what came of it, and answer whether none of them will run (on)."""
    from taskq.broker.commands import steering

    raw_ids, answers = [raw_id_of(text_id) for text_id in ids], dict.fromkeys(ids, "unknown")
    for keys in map(keys_of, apps):
        marked = set[bytes]()
        for at in range(0, 0 if dry_run else len(ids), 1000):  # so that none is begun while the others are revoked
            marked |= set(broker.run(steering.mark(keys, raw_ids[at : at + 1000], reason)))
        for text_id, raw_id in zip(ids, raw_ids, strict=True):
            if answers[text_id] == "unknown":
                answer = _look(broker, keys, raw_id) if dry_run else broker.run(steering.revoke(keys, raw_id, reason))
                answers[text_id] = "revoked" if answer == "unknown" and raw_id in marked else answer
    for text_id, answer in answers.items():
        text = (_WOULD if dry_run else _ANSWERS)[answer].format(id=text_id)
        click.echo(f"{text_id} {text}", err=answer not in _DONE)
    return _DONE.issuperset(answers.values())


def _look(broker: Broker, keys: Keys, raw_id: bytes) -> str:
    """Return what revoking a message would answer now."""
    from taskq.broker import call
    from taskq.broker.commands import looking

    if broker.run(call.hash_values(keys, "reasons", [raw_id]))[0] is not None:
        return "dead"
    place = broker.run(looking.locate(keys, raw_id))[0]
    return {b"processing": "running", b"scheduled": "revoked", b"pending": "revoked"}.get(place, "unknown")


def _revoke_all(broker: Broker, app: str, which: Which, reason: str, yes: bool, dry_run: bool) -> None:
    """Say how many are meant, and revoke them if that is what the user wants."""
    from taskq.broker.commands import auditing, holding
    from taskq.steering.revoking import find_all, revoke_all

    keys = keys_of(app)
    found = set(broker.drive(find_all(keys, which, broker.where, broker.send_timeout)))
    if not found:
        _check(broker, keys, which)
    held = (broker.run(holding.held_ids(keys, name)) for name in broker.run(auditing.incarnations(keys)))
    running = len(found & {raw_id for ids in held for raw_id in ids})
    what = f"{count(len(found), 'message')} of app {app}{f', {running:,} of them running' if running else ''}"
    if dry_run or not found:
        click.echo(f"{'would revoke' if dry_run else 'revoked'} {what}")
        return
    agree(f"Revoke {what}?", yes)
    revoked = broker.drive(revoke_all(keys, which, reason, broker.where, broker.send_timeout))
    click.echo(f"revoked {count(revoked, 'message')}")


def _check(broker: Broker, keys: Keys, which: Which) -> None:
    """Refuse what nothing is of, because nobody has ever used that name; raises `ConfigError`."""
    from taskq.cli.names import Known, unknown
    from taskq.steering.revoking import header_names

    app = f"app {keys.app}"
    Known.at(broker, [keys]).check(app, task=which.task, queue=which.queue)
    names = broker.drive(header_names(keys, broker.where, broker.send_timeout)) if which.headers else set()
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
