"""``taskq queues``: what is in every queue, and what holds it up; needs no app's code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.output import Listing, json_option, seconds
from taskq.cli.tables import Cell, Column, age, one_line

if TYPE_CHECKING:
    from taskq.views.queues import Queue

#: Shown if any of the apps has several partitions.
_PARTITION = Column("PARTITION", "PART")
_COLUMNS = (
    Column("APP", spare=True),
    Column("QUEUE"),
    _PARTITION,
    Column("PENDING", "PEND", number=True),
    Column("SCHEDULED", "SCHED", number=True, spare=True),
    Column("GATED", number=True, spare=True),
    Column("PROCESSING", "PROC", number=True),
    Column("SUSPECTS", "SUSP", number=True, alarm="yellow", spare=True),
    Column("OLDEST", "OLD", number=True, spare=True, extra=True),
    Column("DEAD", number=True, alarm="red"),
    Column("DONE", number=True),
    Column("FAILED", "FAIL", number=True, alarm="red"),
    Column("RATE", number=True, spare=True, extra=True),
    Column("WORKERS", "WORK", number=True, spare=True, extra=True),
    Column("MISSING", "MISS", number=True, alarm="red", spare=True),
    Column("STATE"),
)


@click.command()
@names_option
@url_option
@json_option
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Show what is in every queue, one line each.

    PENDING waits for its turn, SCHEDULED for its time, GATED at a limit; SUSPECTS wait to run alone. OLDEST is how long
    the next message has waited. DEAD counts dead letters. DONE and FAILED count what has ended, FAILED every final
    failure, whatever happened to the message since. RATE is how many ended per second, over the last minute; WORKERS
    how many live workers serve the queue. MISSING counts messages that the ledger knows but no place holds: it is 0,
    unless somebody has changed keys by hand. STATE says what is paused, by whom and why, which breakers are open, and
    where messages wait that no live worker serves. PARTITION is shown if an app has several. If the terminal is too
    narrow, columns with nothing to show are left out first, then WORKERS, RATE and OLDEST. Exit codes: 0 shown, 2 wrong
    usage or no server, or no such app.
    """
    from taskq.broker.commands import looking
    from taskq.views.apps import apps_at
    from taskq.views.queues import queues_of

    with reaching(url) as broker:
        now, apps = broker.run(looking.server_time()), broker.perform(apps_at(broker.where, names))
        several = any(len(app.all) > 1 for app in apps)
        listing = Listing(as_json, *columns(several))
        for app in apps:
            for queue in broker.perform(queues_of(app)):
                listing.add(_row(queue, now, several), _document(queue, now))
        listing.end(broker.where, "queue")


def columns(several: bool) -> tuple[Column, ...]:
    """Return the columns to show; ``several`` says that some app has several partitions."""
    return _COLUMNS if several else tuple(column for column in _COLUMNS if column is not _PARTITION)


def _row(queue: Queue, now: float, several: bool) -> tuple[Cell, ...]:
    there = queue.survey
    return (
        *(queue.app, one_line(queue.name)),
        *([str(queue.partition)] if several else []),
        *(there.pending, there.scheduled, there.gated, there.processing, there.suspects),
        "-" if queue.oldest is None else age(queue.oldest),
        *(there.dead, there.counters.get("done", 0), queue.failed),
        "-" if queue.pace is None else _rate(queue.pace.ended / queue.pace.seconds),
        *(len(queue.workers), there.balance),
        one_line(_state(queue, now)),
    )


def _rate(a_second: float) -> str:
    return "0/s" if not a_second else f"{a_second:,.0f}/s" if a_second >= 10 else f"{a_second:.2g}/s"


def _document(queue: Queue, now: float) -> dict[str, Any]:
    there, pace = queue.survey, queue.pace
    return {
        "app": queue.app,
        "queue": queue.name,
        "partition": queue.partition,
        "pending": there.pending,
        "scheduled": there.scheduled,
        "gated": there.gated,
        "processing": there.processing,
        "suspects": there.suspects,
        "oldest": seconds(queue.oldest),
        "dead": there.dead,
        "accepted": there.counters.get("accepted", 0),
        "done": there.counters.get("done", 0),
        "failed": queue.failed,
        "discarded": there.counters.get("discarded", 0),
        "purged": there.counters.get("purged", 0),
        "rate": None if pace is None else round(pace.ended / pace.seconds, 3),
        "rate_in": None if pace is None else round(pace.accepted / pace.seconds, 3),
        "served": queue.served,
        "workers": list(queue.workers),
        "missing": there.balance,
        "paused": there.paused is not None,
        "state": _state(queue, now),
    }


def _state(queue: Queue, now: float) -> str:
    """Say what holds a queue up: what is paused, which breakers are open, and that nobody serves it."""
    notes = []
    for paused in queue.paused:
        pause = paused.pause
        until = f", for {age(pause.until - now)} more" if pause.until else ""
        reason = f": {pause.reason}" if pause.reason else ""
        of_task = f"task {paused.name} " if paused.is_task else ""
        notes.append(f"{of_task}paused {age(now - pause.since)} ago by {pause.author}{until}{reason}")
    for breaker in queue.broken:
        what = "tries one" if breaker.until is None else f"open for {age(breaker.until - now)} more"
        notes.append(f"breaker of {breaker.task} {what}")
    if not queue.served and queue.survey.pending + queue.survey.suspects:
        notes.append("no live worker serves it")
    return "; ".join(notes)
