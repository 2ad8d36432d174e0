"""``taskq dead``: look at, replay or purge dead letters; needs no app's code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from taskq.broker.commands import looking
from taskq.broker.pool import Broker
from taskq.cli.common import agree, dry_run_option, names_option, raw_id_of, reaching, url_option, yes_option
from taskq.cli.letters import COLUMNS, describe, document, row, whole
from taskq.cli.output import Listing, as_json_line, json_option
from taskq.cli.tables import Age
from taskq.config import check_name
from taskq.spelling import count
from taskq.steering import letters as steering
from taskq.views.apps import apps_at
from taskq.views.letters import DeadLetter, Filters, Graveyard
from taskq.views.names import known_names

# -- options ---------------------------------------------------------------------------------------------


def _filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which dead letters are meant; the function gets them as ``names`` and ``filters``."""

    @wraps(function)
    def filtered(
        names: tuple[str, ...],
        queue: str | None,
        task: str | None,
        reason: str | None,
        older: float | None,
        **others: Any,
    ) -> Any:
        return function(names=names, filters=Filters(queue, task, reason, older), **others)

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


class _Letters:
    """The dead letters that are meant, of a server."""

    def __init__(self, broker: Broker, names: tuple[str, ...], filters: Filters) -> None:
        self.broker = broker
        apps = broker.perform(apps_at(broker.where, names))
        self.graveyard = Graveyard(apps, filters, broker.run(looking.server_time()))
        self.now = self.graveyard.now
        self._narrowed = filters.any or bool(names)

    def batches(self, ids: tuple[str, ...], missing: list[str]) -> Iterator[list[DeadLetter]]:
        """Go through those with the given ids, noting which are ``missing``; without ids through all."""
        for text_id in dict.fromkeys(ids):
            letter = self.find(text_id)
            if letter is None:
                missing.append(text_id)
            else:
                yield [letter]
        while not ids and (page := self.broker.perform(self.graveyard.next_page())) is not None:
            yield page

    def find(self, text_id: str) -> DeadLetter | None:
        """Find one by its id; None if there is none that the options let through."""
        raw_id_of(text_id)
        return self.broker.perform(self.graveyard.find(text_id))

    def check_queue(self, queue: str) -> None:
        """Refuse a queue that nobody has ever used."""
        self.broker.perform(known_names(self.graveyard.apps)).check(self.broker.where, queue=queue)

    def check_filters(self) -> None:
        """Refuse filters by a name that nobody has ever used."""
        self.broker.perform(self.graveyard.check_filters(self.broker.where))

    def end(self, missing: list[str]) -> None:
        """Leave with exit code 1 if an id that was named is no dead letter."""
        where = self.broker.where + (", that the options let through" if self._narrowed else "")
        for text_id in missing:
            click.echo(f"taskq: {text_id} is not a dead letter at {where}", err=True)
        if missing:
            sys.exit(1)


@contextmanager
def _letters(url: str | None, names: tuple[str, ...], filters: Filters) -> Iterator[_Letters]:
    """Open the dead letters of a server."""
    with reaching(url) as broker:
        yield _Letters(broker, names, filters)


def _require_choice(
    ids: tuple[str, ...], names: tuple[str, ...], filters: Filters, everything: bool, verb: str
) -> None:
    if not (ids or names or filters.any or everything):
        raise click.UsageError(f"name the ids to {verb}, or filter, or say --all")


# -- commands --------------------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """Look at, replay or purge dead letters.

    Exit codes: 0 done, 1 a given id is not a dead letter or the answer was no, 2 wrong usage or no server, or an
    app, task, queue or reason that nobody has ever used.
    """


@command.command("ls")
@_filtered
@json_option
def ls(names: tuple[str, ...], filters: Filters, url: str | None, as_json: bool) -> None:
    """List dead letters, oldest first."""
    with _letters(url, names, filters) as letters:
        listing = Listing(as_json, *COLUMNS)
        for page in letters.batches((), []):
            for letter in page:
                listing.add(row(letter, letters.now), document(letter, letters.now))
        if not listing.total:
            letters.check_filters()
        listing.end(letters.broker.where, "dead letter")


@command.command()
@click.argument("text_id", metavar="ID")
@names_option
@url_option
@json_option
def show(text_id: str, names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Show all that is kept of a dead letter."""
    with _letters(url, names, Filters()) as letters:
        letter = letters.find(text_id)
        if letter is None:
            letters.end([text_id])
        else:
            click.echo(as_json_line(whole(letter, letters.now)) if as_json else describe(letter, letters.now))


def _chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which dead letters an act is about, and how it is agreed to."""
    for option in (
        dry_run_option,
        yes_option,
        click.option("--all", "everything", is_flag=True, help="All dead letters; needed without ids and filters."),
    ):
        function = option(function)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(_filtered(function))


def _look(letters: _Letters, ids: tuple[str, ...], verb: str, past: str, dry_run: bool) -> int:
    """Count those that are meant; ends the command if there are none, or if that was all it was to do."""
    missing: list[str] = []
    found = sum(map(len, letters.batches(ids, missing)))
    if not found:
        letters.check_filters()
    if dry_run or not found:
        click.echo(f"{f'would {verb}' if dry_run else past} {count(found, 'dead letter')}")
        letters.end(missing)
        sys.exit(0)
    return found


@command.command()
@click.option("--to", metavar="QUEUE", help="Into this queue instead of their own, such as one that was renamed.")
@_chosen
def replay(
    ids: tuple[str, ...], names: tuple[str, ...], filters: Filters, url: str | None, everything: bool, yes: bool,
    dry_run: bool, to: str | None,
) -> None:  # fmt: skip
    """Put dead letters back into their queues, as if new; what they died of is kept with them.

    Without ids it says how many there are and asks, if there is a terminal to answer from.
    """
    _require_choice(ids, names, filters, everything, "replay")
    missing: list[str] = []
    replayed = expired = superseded = 0
    with _letters(url, names, filters) as letters:
        if to is not None:
            letters.check_queue(check_name("queue", to))
        found = _look(letters, ids, "replay", "replayed", dry_run)
        agree(f"Replay {count(found, 'dead letter')}?", yes or bool(ids) or not sys.stdin.isatty())
        for batch in letters.batches(ids, missing):
            answers = letters.broker.perform(steering.replay(batch, to))
            done = [letter for letter, answer in zip(batch, answers, strict=True) if answer]
            superseded += answers.count(None)
            letters.graveyard.taken(len(done))
            replayed += len(done)
            expired += sum(letter.has_expired(letters.now) for letter in done)
    click.echo(f"replayed {count(replayed, 'dead letter')}")
    if expired:
        click.echo(f"{expired} of them have expired meanwhile: a worker will discard them, not run them", err=True)
    if superseded:
        why = "are unique work that a newer message is by now" if to is None else f"cannot go to queue {to}"
        click.echo(f"{superseded} more {why}: they stay dead", err=True)
    letters.end(missing)


@command.command()
@_chosen
def purge(
    ids: tuple[str, ...], names: tuple[str, ...], filters: Filters, url: str | None, everything: bool, yes: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Delete dead letters for good; it says how many there are, and asks."""
    _require_choice(ids, names, filters, everything, "purge")
    missing: list[str] = []
    purged = 0
    with _letters(url, names, filters) as letters:
        found = _look(letters, ids, "purge", "purged", dry_run)
        agree(f"Delete {count(found, 'dead letter')} for good?", yes)
        for batch in letters.batches(ids, missing):
            gone = letters.broker.perform(steering.purge(batch))
            letters.graveyard.taken(gone)
            purged += gone
    click.echo(f"purged {count(purged, 'dead letter')}")
    letters.end(missing)
