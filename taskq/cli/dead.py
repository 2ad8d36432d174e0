"""``taskq dead``: look at, replay or purge dead letters; needs no app's code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.letters import COLUMNS, Filters, Graveyard, as_json_line, describe, row
from taskq.cli.tables import Age, Table

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

    Exit codes: 0 done, 1 an id that was named is no dead letter, 2 wrong usage or no server.
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
        if not as_json:
            table.flush()
            click.echo(f"{_count(total) if total else 'no dead letters'} at {graveyard.broker.where}", err=True)


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


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_filtered
@click.option("--all", "everything", is_flag=True, help="All dead letters; needed without ids and filters.")
def replay(ids: tuple[str, ...], filters: Filters, url: str | None, everything: bool) -> None:
    """Put dead letters back into their queues, as if new."""
    _require_choice(ids, filters, everything, "replay")
    missing: list[str] = []
    replayed = expired = superseded = 0
    with _graveyard(url, filters) as graveyard:
        for letters, taken in graveyard.batches(ids, missing):
            answers = [graveyard.replay(letter) for letter in letters]
            done = [letter for letter, answer in zip(letters, answers, strict=True) if answer]
            superseded += answers.count(None)
            taken(len(done))
            replayed += len(done)
            expired += sum(letter.has_expired(graveyard.now) for letter in done)
    click.echo(f"replayed {_count(replayed)}")
    if expired:
        click.echo(f"{expired} of them have expired meanwhile: a worker will discard them, not run them", err=True)
    if superseded:
        click.echo(f"{superseded} more are unique work that a newer message is by now: they stay dead", err=True)
    _end(missing, graveyard)


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_filtered
@click.option("--all", "everything", is_flag=True, help="All dead letters; needed without ids and filters.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def purge(ids: tuple[str, ...], filters: Filters, url: str | None, everything: bool, yes: bool) -> None:
    """Delete dead letters for good."""
    _require_choice(ids, filters, everything, "purge")
    missing: list[str] = []
    with _graveyard(url, filters) as graveyard:
        if not yes:
            found = sum(len(letters) for letters, _ in graveyard.batches(ids, []))
            if found:
                click.confirm(f"Delete {_count(found)} for good?", abort=True, err=True)
        purged = 0
        for letters, taken in graveyard.batches(ids, missing):
            gone = graveyard.purge(letters)
            taken(gone)
            purged += gone
    click.echo(f"purged {_count(purged)}")
    _end(missing, graveyard)


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"
