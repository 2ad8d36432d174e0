"""``taskq queues``: what there is in every queue, and what holds it; needs no app's code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.tables import Cell, Column, Table, age, one_line
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.views.queues import Queue

_COLUMNS = (
    Column("APP", spare=True),
    Column("QUEUE"),
    Column("PENDING", "PEND", number=True),
    Column("SCHEDULED", "SCHED", number=True, spare=True),
    Column("GATED", number=True, spare=True),
    Column("PROCESSING", "PROC", number=True),
    Column("SUSPECTS", "SUSP", number=True, alarm="yellow", spare=True),
    Column("DEAD", number=True, alarm="red"),
    Column("DONE", number=True),
    Column("FAILED", "FAIL", number=True, alarm="red"),
    Column("STATE"),
)


@click.command()
@names_option
@url_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def command(names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Show what there is in every queue: a line each.

    PENDING waits for its turn, SCHEDULED for its time, GATED at a limit; SUSPECTS wait to run alone. DEAD is what lies
    there now. DONE and FAILED count what has ended, FAILED each time that a message failed for good, whatever became of
    it since. STATE says what is paused, by whom and why, which breakers are open, and where messages wait that no live
    worker serves. A line that is too short leaves out columns of which there is nothing to tell. Exit codes: 0 shown,
    2 wrong usage or no server, or no such app.
    """
    from taskq.broker.commands import looking
    from taskq.views.apps import apps_at
    from taskq.views.queues import queues_of

    with reaching(url) as broker:
        table, now, total = Table(*_COLUMNS), broker.run(looking.server_time()), 0
        for keys in broker.perform(apps_at(broker.where, names)):
            rows = [_row(queue, now) for queue in broker.perform(queues_of(keys))]
            total += len(rows)
            if as_json:
                for row in rows:
                    click.echo(json.dumps(_as_json(row), ensure_ascii=False))
            else:
                table.add(rows)
        if not as_json:
            table.flush()
            click.echo(f"{count(total, 'queue') if total else 'no queues'} at {broker.where}", err=True)


def _row(queue: Queue, now: float) -> tuple[Cell, ...]:
    there = queue.survey
    return (
        *(queue.app, one_line(queue.name)),
        *(there.pending, there.scheduled, there.gated, there.processing, there.suspects, there.dead),
        *(there.counters.get("done", 0), queue.failed),
        one_line(_state(queue, now)),
    )


def _as_json(row: tuple[Cell, ...]) -> dict[str, Cell]:
    return {column.title.lower(): cell for column, cell in zip(_COLUMNS, row, strict=True)}


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
