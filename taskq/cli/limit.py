"""``taskq limit``: show the limits of a task, or set them by hand; needs no app's code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import dry_run_option, name_option, reaching, url_option
from taskq.cli.output import as_json_line, json_option
from taskq.cli.tables import one_line
from taskq.config import check_name
from taskq.message.ids import id_to_text
from taskq.tasks.limits import Published, rate_text

if TYPE_CHECKING:
    from taskq.views.limits import InUse, Limits

#: Messages that are named as holders of slots.
_HOLDERS = 5


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--rate", metavar="RATE", help="How many may start in a time: 100/m, 5/10s.")
@click.option("--max-concurrency", type=click.IntRange(1), metavar="N", help="How many may run at the same time.")
@click.option("--burst", type=click.IntRange(1), metavar="N", help="How many may start at once after an idle time.")
@click.option("--code", is_flag=True, help="Go back to the limits in its code.")
@dry_run_option
@name_option
@url_option
@json_option
def command(
    task: str,
    rate: str | None,
    max_concurrency: int | None,
    burst: int | None,
    code: bool,
    dry_run: bool,
    app: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Show the limits of a task and who holds their slots, or set its first limit by hand.

    What is set by hand holds at once, for all workers, and instead of what the code says, also after a restart, until
    --code. What is not given stays as it is; so do further limits, and whether each key is counted apart. Exit codes: 0
    done, 2 wrong usage or no server, or a task that no worker has had yet.
    """
    from taskq.steering.limiting import set_limits
    from taskq.views.apps import app_at
    from taskq.views.limits import limits_of, slots_in_use

    changes = rate is not None or max_concurrency is not None or burst is not None
    if changes and code:
        raise click.UsageError("give either --code, or what is to hold instead")
    with reaching(url) as broker:
        there = broker.perform(app_at(broker.where, app))
        limits = broker.perform(limits_of(there, check_name("task", task)))
        hand = None if code else limits.changed(rate, max_concurrency, burst) if changes else limits.hand
        if not dry_run and (changes or code):
            broker.perform(set_limits(there, task, hand))
        limits = replace(limits, hand=hand)
        used = broker.perform(slots_in_use(there, limits))
        if as_json:
            click.echo(as_json_line(_document(there.app, limits, used)))
            return
        click.echo(("would be: " if dry_run and (changes or code) else "") + _describe(limits))
        for one in () if changes or code else used:
            click.echo(one_line(_used_in_words(one)))


def _used_in_words(one: InUse) -> str:
    """Write how many slots of a limit are in use, and by which messages."""
    ids = [id_to_text(held.id) for held in one.holders[:_HOLDERS]]
    named = ", ".join([*ids, *(["..."] if one.used > len(ids) else [])])
    key = f", key {one.key}" if one.key else ""
    return f"limit {one.number}{key}: {one.used:,} of {one.slots:,} in use, by {named}"


def _document(app: str, limits: Limits, used: Iterable[InUse]) -> dict[str, Any]:
    return {
        "app": app,
        "task": limits.task,
        "set_by_hand": limits.hand is not None,
        "holds": [_line_document(line) for line in limits.holds],
        "code": [_line_document(line) for line in limits.code],
        "in_use": [
            {
                "limit": one.number,
                "key": one.key or None,
                "used": one.used,
                "slots": one.slots,
                "ids": [id_to_text(held.id) for held in one.holders],
            }
            for one in used
        ],
    }


def _line_document(line: Published) -> dict[str, Any]:
    if line.is_breaker:
        return {"kind": "breaker", "failures": line.interval, "of": line.burst, "pause": line.slots / 1000}
    return {
        "kind": "limit",
        "rate": rate_text(line.interval) if line.interval else None,
        "burst": line.burst if line.interval else None,
        "max_concurrency": line.slots or None,
        "each_key": line.kind == "k",
    }


def _describe(limits: Limits) -> str:
    """Write what holds, and what its code says where that is something else."""
    if limits.hand is None:
        return f"{limits.task}, by its code: {_listed(limits.code)}"
    return f"{limits.task}, set by hand: {_listed(limits.hand)}\nits code says: {_listed(limits.code)}"


def _listed(lines: Iterable[Published]) -> str:
    return one_line("; ".join(map(_in_words, lines))) or "no limits"


def _in_words(line: Published) -> str:
    if line.is_breaker:
        return f"breaker: {line.interval:.0%} of {line.burst} runs failed, pause {line.slots / 1000:g} s"
    words = []
    if line.interval:
        words.append(f"rate {rate_text(line.interval)}, burst {line.burst}")
    if line.slots:
        words.append(f"max_concurrency {line.slots}")
    return ", ".join([*words, *(["each key apart"] if line.kind == "k" else [])])
