"""``taskq dead``: look at, replay or purge dead letters; needs no app's code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from taskq.cli.common import agree, dry_run_option, names_option, reaching, url_option, yes_option
from taskq.cli.letters import COLUMNS, Filters, Graveyard, as_json_line, describe, row
from taskq.cli.tables import Age, Table
from taskq.spelling import count

# -- options ---------------------------------------------------------------------------------------------


def _filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which dead letters are meant; the function gets them as one ``filters``."""

    @wraps(function)
    def filtered(
        names: tuple[str, ...],
        queue: str | None,
        task: str | None,
        reason: str | None,
        older: float | None,
        **others: Any,
    ) -> Any:
        return function(filters=Filters(names, queue, task, reason, older), **others)

    for option in (
        url_option,
        click.option("--older-than", "older", type=Age(), metavar="AGE", help="Dead for longer than 90 (s), 2h, 7d."),
        click.option("--reason", metavar="REASON", help="Of this reason: failed, crashed, undecodable ..."),
        click.option("--task", metavar="TASK", help="Of this task."),
        click.option("--queue", metavar="QUEUE", help="Of this queue."),
        names_option,
    ):
        filtered = option(filtered)
    return filtered


@contextmanager
def _graveyard(url: str | None, filters: Filters) -> Iterator[Graveyard]:
    """Open the dead letters of a server."""
    with reaching(url) as broker:
        yield Graveyard(broker, filters)


def _require_choice(ids: tuple[str, ...], filters: Filters, everything: bool, verb: str) -> None:
    if not (ids or filters.any or everything):
        raise click.UsageError(f"name the ids to {verb}, or filter, or say --all")


def _end(missing: list[str], graveyard: Graveyard) -> None:
    """Leave with exit code 1 if an id that was named is no dead letter."""
    where = graveyard.broker.where + (", that the options let through" if graveyard.filters.any else "")
    for text_id in missing:
        click.echo(f"taskq: {text_id} is not a dead letter at {where}", err=True)
    if missing:
        sys.exit(1)


# -- commands --------------------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """Look at, replay or purge dead letters.

    Exit codes: 0 done, 1 an id that was named is no dead letter or the answer was no, 2 wrong usage or no server, or an
    app, task, queue or reason that nobody has ever used.
    """


@command.command("ls")
@_filtered
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def ls(filters: Filters, url: str | None, as_json: bool) -> None:
    """List dead letters, oldest first."""
    with _graveyard(url, filters) as graveyard:
        table, total = Table(*COLUMNS), 0
        for page, _ in graveyard.pages():
            total += len(page)
            if as_json:
                for letter in page:
                    click.echo(as_json_line(letter, graveyard.now))
            else:
                table.add([row(letter, graveyard.now) for letter in page])
        if not total:
            graveyard.check_filters()
        if not as_json:
            table.flush()
            click.echo(
                f"{count(total, 'dead letter') if total else 'no dead letters'} at {graveyard.broker.where}", err=True
            )


@command.command()
@click.argument("text_id", metavar="ID")
@names_option
@url_option
def show(text_id: str, names: tuple[str, ...], url: str | None) -> None:
    """Show all that is kept of a dead letter."""
    with _graveyard(url, Filters(names)) as graveyard:
        letter = graveyard.find(text_id)
        if letter is None:
            _end([text_id], graveyard)
        else:
            click.echo(describe(letter, graveyard.now))


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which dead letters an act is about, and how it is agreed to."""
    for option in (
        dry_run_option,
        yes_option,
        click.option("--all", "everything", is_flag=True, help="All dead letters; needed without ids and filters."),
    ):
        function = option(function)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(_filtered(function))


def _look(graveyard: Graveyard, ids: tuple[str, ...], verb: str, past: str, dry_run: bool) -> int:
    """Count those that are meant; ends the command if there are none, or if that was all it was to do."""
    missing: list[str] = []
    found = sum(len(letters) for letters, _ in graveyard.batches(ids, missing))
    if not found:
        graveyard.check_filters()
    if dry_run or not found:
        click.echo(f"{f'would {verb}' if dry_run else past} {count(found, 'dead letter')}")
        _end(missing, graveyard)
        sys.exit(0)
    return found


@command.command()
@_chosen
def replay(ids: tuple[str, ...], filters: Filters, url: str | None, everything: bool, yes: bool, dry_run: bool) -> None:
    """Put dead letters back into their queues, as if new; what they died of is kept with them.

    Without ids it says how many there are and asks, if there is a terminal to answer from.
    """
    _require_choice(ids, filters, everything, "replay")
    missing: list[str] = []
    replayed = expired = superseded = 0
    with _graveyard(url, filters) as graveyard:
        found = _look(graveyard, ids, "replay", "replayed", dry_run)
        agree(f"Replay {count(found, 'dead letter')}?", yes or bool(ids) or not sys.stdin.isatty())
        for letters, taken in graveyard.batches(ids, missing):
            answers = [graveyard.replay(letter) for letter in letters]
            done = [letter for letter, answer in zip(letters, answers, strict=True) if answer]
            superseded += answers.count(None)
            taken(len(done))
            replayed += len(done)
            expired += sum(letter.has_expired(graveyard.now) for letter in done)
    click.echo(f"replayed {count(replayed, 'dead letter')}")
    if expired:
        click.echo(f"{expired} of them have expired meanwhile: a worker will discard them, not run them", err=True)
    if superseded:
        click.echo(f"{superseded} more are unique work that a newer message is by now: they stay dead", err=True)
    _end(missing, graveyard)


@command.command()
@_chosen
def purge(ids: tuple[str, ...], filters: Filters, url: str | None, everything: bool, yes: bool, dry_run: bool) -> None:
    """Delete dead letters for good; it says how many there are, and asks."""
    _require_choice(ids, filters, everything, "purge")
    missing: list[str] = []
    purged = 0
    with _graveyard(url, filters) as graveyard:
        found = _look(graveyard, ids, "purge", "purged", dry_run)
        agree(f"Delete {count(found, 'dead letter')} for good?", yes)
        for letters, taken in graveyard.batches(ids, missing):
            gone = graveyard.purge(letters)
            taken(gone)
            purged += gone
    click.echo(f"purged {count(purged, 'dead letter')}")
    _end(missing, graveyard)
