"""``taskq cron``: look at and change periodic entries; but for `sync` it needs no app's code.

What is stored is shown, never trusted: an entry that cannot be read is said to be so and can be removed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from taskq.broker.commands import looking
from taskq.cli.common import USAGE, app_of, dry_run_option, name_option, names_option, reaching, url_option
from taskq.cli.output import Listing, as_json_line, json_option
from taskq.cli.tables import Age, moment, one_line
from taskq.cli.timetable import COLUMNS, document, row
from taskq.config import whoami
from taskq.errors import BrokerError, ConfigError
from taskq.spelling import count, guess
from taskq.steering import scheduling
from taskq.views.apps import app_at, apps_at
from taskq.views.names import known_names
from taskq.views.timetable import Stored, entries_of, find_entry, would_declare

if TYPE_CHECKING:
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.periodic.entry import Entry

# -- options ---------------------------------------------------------------------------------------------


def _of_one_entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names an entry."""
    return click.argument("name", metavar="ENTRY")(names_option(url_option(function)))


def _changes_one_entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names an entry that is to be changed."""
    return _of_one_entry(dry_run_option(function))


@contextmanager
def _entry(url: str | None, names: tuple[str, ...], name: str) -> Iterator[tuple[Broker, Stored]]:
    """Find an entry of a server."""
    with reaching(url) as broker:
        apps = broker.perform(apps_at(broker.where, names))
        yield broker, broker.perform(find_entry(apps, name, broker.where))


# -- commands --------------------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """Look at and change periodic entries.

    Exit codes: 0 done, 2 wrong usage or no server, or an app, entry or task that does not exist.
    """


@command.command("ls")
@names_option
@url_option
@json_option
def ls(names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """List entries: when they tick, how late the last tick and the latest were."""
    with reaching(url) as broker:
        listing, now = Listing(as_json, *COLUMNS), broker.run(looking.server_time())
        for app in broker.perform(apps_at(broker.where, names)):
            for stored in broker.perform(entries_of(app)):
                listing.add(row(stored, now), document(stored))
        listing.end(broker.where, "periodic entry", "periodic entries")


@command.command()
@click.argument("name", metavar="ENTRY")
@click.argument("schedule")
@click.argument("task")
@click.option("--args", "args", default="[]", metavar="JSON", help="Positional arguments, a list.")
@click.option("--kwargs", "kwargs", default="{}", metavar="JSON", help="Keyword arguments, an object.")
@click.option("--tz", metavar="ZONE", help="Time zone of a cron expression; UTC unless given.")
@click.option("--queue", metavar="QUEUE", help="The task's own unless given.")
@click.option("--expires", type=Age(), metavar="AGE", help="A message that has waited for so long does not run.")
@click.option("--catch-up", type=click.Choice(["skip", "last", "all"]), default="last", show_default=True)
@click.option(
    "--window", type=Age(), default="1d", show_default=True, metavar="AGE", help="Older missed ticks are left out."
)
@click.option("--overlap", type=click.Choice(["allow", "skip"]), default="allow", show_default=True)
@click.option("--jitter", type=Age(), default="0", metavar="AGE", help="Put ticks off by up to this.")
@click.option("--replace", is_flag=True, help="Replace an entry of that name.")
@click.option("--new", is_flag=True, help="Allow an app or task that no worker has had yet.")
@click.option("-A", "--app", "path", metavar="MODULE[:ATTR]", help="Check the arguments, and use the task's options.")
@dry_run_option
@name_option
@url_option
def add(
    name: str, schedule: str, task: str, app: str | None, url: str | None, replace: bool, dry_run: bool, **options: Any
) -> None:
    """Add an entry: SCHEDULE is a cron expression, @daily and its like, or "every 30s".

    It lives until it is removed; workers started later leave it alone, unless newer code declares an entry of its name.
    """
    from taskq.broker.commands import announcing

    path, new = options.pop("path"), options.pop("new")
    code = app_of(path) if path else None
    with reaching(url) as broker:
        new = new or not broker.run(announcing.known_apps())
        partitions = code.client.partitions if code else broker.perform(app_at(broker.where, app, new=new))
        try:
            entry = _entry_of(code, name, schedule, task, **options)
        except ConfigError as error:
            raise ConfigError(f"periodic entry {name}: {error}") from None
        if code is None and not new:
            _check_task(broker, partitions, task)
        there = any(stored.name == name for stored in broker.perform(entries_of(partitions)))
        if there and not replace:
            raise click.UsageError(f"there is an entry {name}: say --replace")
        what = "would replace" if there else "would add"
        if not dry_run:
            what = broker.perform(scheduling.define(partitions, entry, replace=replace))
    click.echo(f"{what} {name} of {partitions.app}: {entry.schedule}, {entry.task}")


def _check_task(broker: Broker, partitions: Topology, task: str) -> None:
    """Refuse a task that no worker has had: its ticks would pile up where nobody takes them."""
    known = broker.perform(known_names([partitions]))
    if known.all and task not in known.all:
        raise ConfigError(
            f"no worker of app {partitions.app} has had task {task} yet (--new adds the entry all the same)"
            f"{guess(task, known.tasks or known.queues)}"
        )


@command.command()
@_changes_one_entry
def rm(name: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Remove an entry. One that code declares comes back with the next change of that code; pause it instead."""
    with _entry(url, names, name) as (broker, stored):
        if not dry_run:
            broker.perform(scheduling.remove(stored))
    click.echo(f"{'would remove' if dry_run else 'removed'} {name} of {stored.app}")
    if stored.is_of_code:
        click.echo(
            "it is declared in code: the next change of that code brings it back, unless it is gone there", err=True
        )


@command.command()
@_changes_one_entry
@click.option("--reason", default="", metavar="TEXT", help="Kept, and shown by ls.")
def pause(name: str, names: tuple[str, ...], url: str | None, reason: str, dry_run: bool) -> None:
    """Send no ticks of an entry until it is resumed, whatever code is deployed; they are not sent later."""
    with _entry(url, names, name) as (broker, stored):
        note = f"by {whoami()} at {moment(broker.run(looking.server_time()))}{': ' if reason else ''}{reason}"
        if not dry_run:
            broker.perform(scheduling.pause(stored, note))
    click.echo(f"{'would pause' if dry_run else 'paused'} {name} of {stored.app}")


@command.command()
@_changes_one_entry
def resume(name: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Let a paused entry go on, from its next tick on."""
    with _entry(url, names, name) as (broker, stored):
        was = bool(stored.paused)
        if was and not dry_run:
            was = broker.perform(scheduling.resume(stored))
    what = "would resume" if dry_run else "resumed"
    click.echo(f"{what} {name} of {stored.app}" if was else f"{name} of {stored.app} was not paused")


@command.command("run-now")
@_changes_one_entry
def run_now(name: str, names: tuple[str, ...], url: str | None, dry_run: bool) -> None:
    """Send an entry's task once, now, whatever else it waits for; prints the id of the message."""
    with _entry(url, names, name) as (broker, stored):
        if dry_run and stored.entry is not None:
            click.echo(f"would send {stored.entry.task} to queue {stored.entry.queue}, for {name} of {stored.app}")
            return
        raw_id = broker.perform(scheduling.run_now(stored, broker.run(looking.server_time())))
    click.echo(raw_id.decode())


@command.command("next")
@_of_one_entry
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@json_option
def next_(name: str, names: tuple[str, ...], url: str | None, count: int, as_json: bool) -> None:
    """Show when an entry ticks next, in its zone."""
    from taskq.periodic.schedule import Cron, zone_of

    with _entry(url, names, name) as (broker, stored):
        entry = stored.entry
        if entry is None:
            raise ConfigError(f"the periodic entry {name} cannot be read here")
        zone = zone_of(entry.schedule.zone if isinstance(entry.schedule, Cron) else "UTC")
        tick = entry.schedule.after(broker.run(looking.server_time()) * 1000)
        for _ in range(count):
            if tick is None:
                break
            at = datetime.fromtimestamp(entry.moment(tick) / 1000, zone).isoformat()
            click.echo(as_json_line({"name": name, "app": stored.app, "at": at}) if as_json else at)
            tick = entry.schedule.after(tick)
    if stored.paused:
        click.echo(f"it is paused {one_line(stored.paused)}", err=True)


@command.command()
@click.option("-A", "--app", "path", envvar="TASKQ_APP", required=True, metavar="MODULE[:ATTR]", help="The app.")
@dry_run_option
def sync(path: str, dry_run: bool) -> None:
    """Put the entries that an app's code declares in place, as the newest code.

    Workers do this when they start with code that the server has not seen. It is for going back to older code, which
    the server cannot tell from an old worker that starts again.
    """
    from taskq.periodic.entry import code_revision

    app = app_of(path)
    entries = {name: entry.stored for name, entry in app.entries.items()}
    revision = code_revision(entries, {task.name: task.fingerprint for task in app.tasks.values()})
    try:
        broker = app.client.broker
        there = app.client.partitions
        steps = would_declare(there, path, entries) if dry_run else scheduling.declare(there, path, revision, entries)
        changes = broker.perform(steps)
    except (BrokerError, ConfigError) as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)
    for name, what in changes.items():
        click.echo(f"{f'would be {what}:' if dry_run else what} {name}")
    click.echo(f"{count(len(entries), 'periodic entry', 'periodic entries')} of {app.name}", err=True)


# -- making and showing them -----------------------------------------------------------------------------


def _entry_of(
    code: Any, name: str, schedule: str, task: str, *, args: str, kwargs: str, tz: str | None, queue: str | None,
    expires: float | None, catch_up: Any, window: float, overlap: Any, jitter: float,
) -> Entry:  # fmt: skip
    """Make an entry of what the command line says."""
    from taskq.periodic.entry import Entry
    from taskq.periodic.schedule import read_schedule

    when = read_schedule(schedule, tz)
    positional, named = _json_of("args", args, list), _json_of("kwargs", kwargs, dict)
    message = _message(code, task, positional, named, queue=queue, expires=expires)
    return Entry.of(name, when, message, catch_up=catch_up, window=window, overlap=overlap, jitter=jitter)


def _message(
    code: Any, task: str, args: list[Any], kwargs: dict[str, Any], **options: Any
) -> tuple[bytes, bytes, bytes]:
    """Prepare a call: by its task's own options if there is ``code``, else by its name alone."""
    if code is not None:
        if task not in code.tasks:
            raise ConfigError(f"{code.name} has no task {task!r}{guess(task, code.tasks)}")
        try:
            return code.tasks[task].prepare_call(args, kwargs, **options).message  # type: ignore[no-any-return]
        except TypeError as error:
            raise ConfigError(str(error)) from None
    from taskq.calls.sending import expiry_words
    from taskq.config import check_name
    from taskq.message import codec
    from taskq.message.envelope import encode_envelope
    from taskq.message.head import encode_head
    from taskq.message.ids import new_id

    head = encode_head(check_name("task", task), check_name("queue", options["queue"] or task))
    raw_id = new_id()
    body = codec.pack_call(tuple(args), kwargs)
    return raw_id, head + encode_envelope(raw_id, {}, body), expiry_words(options["expires"])


def _json_of(option: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--{option} {text!r:.80} is not JSON: {error}") from None
    if type(value) is not kind:
        raise ConfigError(f"--{option} {text!r:.80} is not a JSON {'list' if kind is list else 'object'}")
    return value
