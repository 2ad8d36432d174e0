"""``taskq ping``: whether the server answers, and whether a worker lives; for probes. Needs no app's code."""

from __future__ import annotations

import sys
import time

import click

from taskq.cli.common import names_option, reaching, url_option
from taskq.cli.output import as_json_line, json_option, seconds
from taskq.cli.tables import age


@click.command()
@click.argument("worker", metavar="[WORKER]", required=False)
@click.option("--timeout", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="Seconds to try.")
@names_option
@url_option
@json_option
def command(worker: str | None, timeout: float, names: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Ask whether the server answers; and whether WORKER lives, that is, keeps its lease.

    Exit codes: 0 yes, 1 the worker does not live, 2 wrong usage, no answer of the server in time, or no such app.
    """
    from taskq.broker.commands import looking
    from taskq.spelling import guess
    from taskq.views.apps import apps_at
    from taskq.views.workers import workers_of

    with reaching(url, timeout) as broker:
        began = time.monotonic()
        now = broker.run(looking.server_time())
        took = time.monotonic() - began
        document = {"server": broker.where, "seconds": seconds(took)}
        text, code = f"{broker.where} answers in {took * 1000:.1f} ms", 0
        if worker is not None:
            apps = broker.perform(apps_at(broker.where, names))
            found = [one for one_app in apps for one in broker.perform(workers_of(one_app, held=False))]
            ends = [(one.lease_ends, one) for one in found if one.name == worker]
            alive = any(end > now if end is not None else one.report is not None for end, one in ends)
            code = 0 if alive else 1
            document |= {"worker": worker, "alive": alive}
            last = max((end for end, _ in ends if end is not None), default=now)
            gone = f"has given no sign of life: its lease ended {age(now - last)} ago" if ends else "is not there"
            near = "" if ends else guess(worker, {one.name for one in found})
            text += f"; worker {worker} {'lives' if alive else gone}{near}"
    click.echo(as_json_line(document) if as_json else text, err=bool(code and not as_json))
    sys.exit(code)
