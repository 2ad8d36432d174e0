"""``taskq ls``: what waits in a queue, page by page; needs no app's code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import name_option, reaching, url_option
from taskq.cli.output import Listing, json_option, seconds
from taskq.cli.tables import Cell, Column, age, moment, one_line
from taskq.config import check_name

if TYPE_CHECKING:
    from taskq.views.waiting import Waits

_COLUMNS = (
    Column("NR", number=True),
    Column("ID", whole=True),
    Column("TASK", spare=True),
    Column("AGE", number=True),
    Column("NOTE"),
)
_NOTES = {"suspects": "runs alone, since a process has died"}


@click.command()
@click.argument("queue", metavar="QUEUE")
@click.option("-n", "--most", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most this many.")
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Skip the first N.")
@name_option
@url_option
@json_option
def command(queue: str, most: int, skip: int, app: str | None, url: str | None, as_json: bool) -> None:
    """List what waits in a queue, in the order in which it would be taken: NR is the place.

    Those that run alone come first; they do so beside the others. What waits for its time or at a limit is counted by
    `taskq queues`, and `taskq why` says what holds it. Exit codes: 0 shown, 2 wrong usage or no server, or a queue that
    nobody has ever used.
    """
    from taskq.broker.commands import looking
    from taskq.views.apps import app_at
    from taskq.views.names import known_names
    from taskq.views.waiting import waiting

    with reaching(url) as broker:
        partitions, now = broker.perform(app_at(broker.where, app)), broker.run(looking.server_time())
        total, found = broker.perform(waiting(partitions, check_name("queue", queue), skip, most))
        if not total:
            broker.perform(known_names([partitions])).check(f"app {partitions.app}", queue=queue)
        listing = Listing(as_json, *_COLUMNS)
        for one in found:
            listing.add(_row(one, now), _document(one, now))
        which = f"of {total:,} that wait in queue {queue} of app {partitions.app}"
        listing.end(broker.where, f"message {which}", f"messages {which}")


def _text_id(one: Waits) -> str:
    from taskq.message.ids import id_to_text

    return id_to_text(one.id)


def _row(one: Waits, now: float) -> tuple[Cell, ...]:
    old = "-" if one.accepted is None else age(now - one.accepted)
    return (one.number, _text_id(one), one_line(one.task) or "(gone)", old, _NOTES.get(one.place, ""))


def _document(one: Waits, now: float) -> dict[str, Any]:
    return {
        "number": one.number,
        "id": _text_id(one),
        "task": one.task or None,
        "place": one.place,
        "accepted": None if one.accepted is None else moment(one.accepted),
        "age": None if one.accepted is None else seconds(now - one.accepted),
    }
