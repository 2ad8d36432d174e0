"""``taskq limit``: show the limits of a task, or set them by hand; needs no app's code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from taskq.cli.common import dry_run_option, name_option, reaching, url_option
from taskq.cli.tables import one_line
from taskq.config import check_name
from taskq.tasks.limits import Published, rate_text

if TYPE_CHECKING:
    from taskq.views.limits import Limits


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--rate", metavar="RATE", help="Starts in a time: 100/m, 5/10s.")
@click.option("--max-concurrency", type=click.IntRange(1), metavar="N", help="Runs at the same time.")
@click.option("--burst", type=click.IntRange(1), metavar="N", help="Starts at once after a pause.")
@click.option("--code", is_flag=True, help="Let those of its code hold again.")
@dry_run_option
@name_option
@url_option
def command(
    task: str,
    rate: str | None,
    max_concurrency: int | None,
    burst: int | None,
    code: bool,
    dry_run: bool,
    app: str | None,
    url: str | None,
) -> None:
    """Show the limits of a task, or set its first one by hand.

    What is set by hand holds at once, for all workers, and instead of what the code says, also after a restart, until
    --code. What is not given stays as it is; so do further limits, and whether each key is counted apart. Exit codes: 0
    done, 2 wrong usage or no server, or a task that no worker has had yet.
    """
    from taskq.steering.limiting import set_limits
    from taskq.views.apps import app_at
    from taskq.views.limits import limits_of

    changes = rate is not None or max_concurrency is not None or burst is not None
    if changes and code:
        raise click.UsageError("give either --code, or what is to hold instead")
    with reaching(url) as broker:
        keys = broker.perform(app_at(broker.where, app))
        limits = broker.perform(limits_of(keys, check_name("task", task)))
        hand = None if code else limits.changed(rate, max_concurrency, burst) if changes else limits.hand
        if not dry_run and (changes or code):
            broker.perform(set_limits(keys, task, hand))
        would = "would be: " if dry_run and (changes or code) else ""
        click.echo(would + _describe(replace(limits, hand=hand)))


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
