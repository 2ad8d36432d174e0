"""``taskq reaper``: the upkeep of every app on a server, without any app's code.

Which apps there are and which windows they go by is read from the server, where the workers write it.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from taskq.cli.common import USAGE, Stopped, broker_for, server_url, wait_for_server
from taskq.cli.reaping import Daemon, Stopping, named, tell, teller
from taskq.errors import BrokerError, ConfigError
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.upkeep.one_pass import News, Pass, Prospect

_LEVELS = ["debug", "info", "warning", "error", "critical"]


@click.command()
@click.option("--url", metavar="URL", help="The server; TASKQ_URL or the project's embedded one unless given.")
@click.option("--name", "names", multiple=True, metavar="APP", help="Look after this app only; may be repeated.")
@click.option("--once", is_flag=True, help="A single pass, then end.")
@click.option("--dry-run", is_flag=True, help="Say what a pass would do now, and change nothing.")
@click.option(
    "-l", "--loglevel", type=click.Choice(_LEVELS, case_sensitive=False), default="warning", show_default=True
)
def command(url: str | None, names: tuple[str, ...], once: bool, dry_run: bool, loglevel: str) -> None:
    """Bring back what lost workers held, and promote what is due.

    Every worker does this too; a separate reaper helps if all workers of an app may be gone at once. Any number may
    run. What was left on its way to another partition is carried over as well. With --once it may have to wait: if
    nobody renewed leases lately, each lease that has ended is renewed once first. SIGTERM or Ctrl-C: end after the step
    at hand. Exit codes: 0 done, 2 wrong usage or no such server.
    """
    from taskq.loading import set_up_logging

    set_up_logging(loglevel)
    stopping = Stopping()
    stopping.listen()
    try:
        broker = broker_for(server_url(url), names[0] if names else "any")
        wait_for_server(broker, once=once or dry_run)
        if dry_run:
            _look(broker, names)
        elif once:
            _pass(broker, names, stopping)
        else:
            Daemon(broker, names, stopping).run()
    except Stopped:
        click.echo("taskq reaper: stopped", err=True)
    except (BrokerError, ConfigError) as error:
        click.echo(f"taskq: {error}", err=True)
        sys.exit(USAGE)


# -- what there is, and what was done --------------------------------------------------------------------


def _apps(broker: Broker, given: tuple[str, ...]) -> list[Topology]:
    """Return the apps to look after once.

    Raises:
        ConfigError: An app that is given is not on the server.
    """
    from taskq.views.apps import apps_at

    apps = broker.perform(apps_at(broker.where, given))
    if not apps:
        click.echo(f"taskq reaper: no app at {broker.where} yet: no worker has ever been here", err=True)
    return apps


def _look(broker: Broker, given: tuple[str, ...]) -> None:
    """Print what a pass would do now; only reads."""
    from taskq.broker.onward import on_their_way
    from taskq.upkeep.one_pass import prospect

    for app in _apps(broker, given):
        for name, keys in named(app).items():
            _foretell(name, broker.perform(prospect(keys)))
        if number := broker.perform(on_their_way(app)):
            click.echo(f"{app.app}: would carry {count(number, 'message')} over to another partition")


def _foretell(name: str, there: Prospect) -> None:
    for incarnation, moves in there.moves.items():
        tell(name, incarnation, moves, "would recover")
    if there.fresh:
        click.echo(f"{name}: nobody renewed leases lately, so each would first get a fresh one of {there.lease:g} s")
    click.echo(
        f"{name}: would promote {count(there.due, 'due message')}, purge {count(there.old, 'old dead letter')}"
        + (f", look at {count(there.ticks, 'periodic tick')}" if there.ticks else "")
    )


def _pass(broker: Broker, given: tuple[str, ...], stopping: Stopping) -> None:
    """Make one pass over every app; those that must wait do so at the same time."""
    from taskq.broker.onward import carry_all
    from taskq.broker.protocol import boottime
    from taskq.upkeep.one_pass import Pass

    apps = _apps(broker, given)
    passes = [Pass(keys, name, teller(name), _say) for app in apps for name, keys in named(app).items()]
    while passes:
        for one in [one for one in passes if boottime() >= one.again_at]:
            with stopping.step():
                if broker.perform(one.turn()):
                    passes.remove(one)
                    _sum_up(one)
        if passes:
            time.sleep(max(0.0, min(one.again_at for one in passes) - boottime()))
    for app in apps:
        with stopping.step():
            if carried := broker.perform(carry_all(app)):
                click.echo(f"{app.app}: carried {count(carried, 'message')} over to another partition")


def _say(one: Pass, what: News, incarnations: list[str]) -> None:
    """Print what else than a recovery has become of incarnations."""
    name, *_ = incarnations
    text = {
        "fresh": f"nobody renewed leases lately, so {count(len(incarnations), 'ended lease')} got a fresh one first: "
        f"waiting up to {one.lease:g} s",
        "gone": f"incarnation {name} was recovered by another, or closed",
        "lives": f"incarnation {name} lives: its lease was renewed",
    }
    click.echo(f"{one.name}: {text[what]}", err=True)


def _sum_up(one: Pass) -> None:
    done, lost = one.done, count(one.done["incarnations"], "incarnation")
    click.echo(
        f"{one.name}: recovered {count(done['messages'], 'message')} of {lost}"
        f", promoted {count(done['promoted'], 'due message')}, purged {count(done['purged'], 'old dead letter')}"
        + (f", sent {count(done['ticks'], 'periodic tick')}" if done["ticks"] else "")
    )
