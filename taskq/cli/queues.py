"""``taskq queues``: what there is in every queue, and what holds it; needs no app's code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from taskq.cli.common import apps_at, keys_of, names_option, reaching, url_option
from taskq.cli.tables import Cell, Column, Table, age, one_line
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.commands.looking import QueueSurvey
    from taskq.broker.commands.steering import Pause
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker

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
    with reaching(url) as broker:
        table, now, total = Table(*_COLUMNS), _now(broker), 0
        for app in apps_at(broker, names):
            rows = _rows(broker, keys_of(app), now)
            total += len(rows)
            if as_json:
                for row in rows:
                    click.echo(json.dumps(_as_json(row), ensure_ascii=False))
            else:
                table.add(rows)
        if not as_json:
            table.flush()
            click.echo(f"{count(total, 'queue') if total else 'no queues'} at {broker.where}", err=True)


def _now(broker: Broker) -> float:
    from taskq.broker.commands import looking

    return broker.run(looking.server_time())


def _rows(broker: Broker, keys: Keys, now: float) -> list[tuple[Cell, ...]]:
    from taskq.broker.commands import looking

    states = _States(broker, keys, now)
    surveys = broker.run(looking.survey(keys))
    served = broker.run(looking.served_queues(keys))
    for queue, found in surveys.items():
        if queue not in served and found.pending + found.suspects:
            states.note(queue, "no live worker serves it")
    for queue in states.queues - surveys.keys():  # paused before anything was sent
        surveys[queue] = looking.QueueSurvey({})
    return [_row(keys.app, queue, surveys[queue], states.of(queue)) for queue in sorted(surveys)]


def _row(app: str, queue: str, survey: QueueSurvey, state: str) -> tuple[Cell, ...]:
    counted = survey.counters
    return (
        *(app, one_line(queue)),
        *(survey.pending, survey.scheduled, survey.gated, survey.processing, survey.suspects, survey.dead),
        *(counted.get("done", 0), counted.get("failed", 0) + counted.get("died", 0)),
        state,
    )


def _as_json(row: tuple[Cell, ...]) -> dict[str, Cell]:
    return {column.title.lower(): cell for column, cell in zip(_COLUMNS, row, strict=True)}


class _States:
    """What is paused in an app, and which of its breakers are open."""

    def __init__(self, broker: Broker, keys: Keys, now: float) -> None:
        from taskq.broker import call
        from taskq.broker.commands import steering

        self._now = now
        self._notes: dict[str, list[str]] = {}
        queues = broker.run(call.whole_hash(keys, "tasks"))
        for what, stored in broker.run(call.whole_hash(keys, "paused")).items():
            pause = steering.read_pause(stored)
            if pause is None:
                continue
            task = what.removeprefix(b"=") if what.startswith(b"=") else None
            queue = what if task is None else queues.get(task, task)
            self._note(queue, f"{'' if task is None else f'task {task.decode()} '}{self._paused(pause)}")
        for task, stored in broker.run(call.whole_hash(keys, "breakers")).items():
            mode, until = stored.decode(errors="replace").split(" ")[:2]
            if mode == "o":
                self._note(
                    queues.get(task, task), f"breaker of {task.decode()} open for {age(int(until) / 1000 - now)} more"
                )
            elif mode == "h":
                self._note(queues.get(task, task), f"breaker of {task.decode()} tries one")

    def _note(self, queue: bytes, text: str) -> None:
        self.note(queue.decode(errors="replace"), text)

    def note(self, queue: str, text: str) -> None:
        """Have something to say of a queue."""
        self._notes.setdefault(queue, []).append(one_line(text))

    def _paused(self, pause: Pause) -> str:
        until = f", for {age(pause.until - self._now)} more" if pause.until else ""
        reason = f": {pause.reason}" if pause.reason else ""
        return f"paused {age(self._now - pause.since)} ago by {pause.author}{until}{reason}"

    @property
    def queues(self) -> set[str]:
        """Queues of which there is something to say."""
        return set(self._notes)

    def of(self, queue: str) -> str:
        """Return what is to be said of a queue."""
        return "; ".join(self._notes.get(queue, ()))
