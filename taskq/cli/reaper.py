"""``taskq reaper``: the upkeep of every app on a server, without any app's code.

Which apps there are and which windows they go by is read from the server, where the workers write it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from taskq.cli.common import USAGE, Stopped, broker_for, server_url, wait_for_server
from taskq.errors import BrokerError, BrokerRefused, ConfigError
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.commands.holding import Move
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.upkeep.housekeeping import Upkeep
    from taskq.upkeep.one_pass import News, Pass, Prospect
    from taskq.upkeep.reaper import Reaper, Report

_LEVELS = ["debug", "info", "warning", "error", "critical"]

#: Seconds after which the apps and their settings are read again; the same while an app has none, or there is no app.
_REREAD, _REREAD_SOON = 5.0, 1.0

_PLACES = {
    "queue": "back to the head of queue {queue}",
    "suspect": "to run alone, from queue {queue}",
    "scheduled": "to the schedule, for queue {queue}",
    "dead": "a dead letter of queue {queue}",
    "revoked": "ended, for it was revoked; of queue {queue}",
    "dangling": "nothing left of it in queue {queue}",
    "held": "held, from queue {queue}",
}


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


class Stopping:
    """SIGTERM and SIGINT: end at once while waiting, else after the step at hand."""

    def __init__(self) -> None:
        self.asked = 0
        self._busy = False

    def listen(self) -> None:
        """Act on signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.asked += 1
        if not self._busy or self.asked > 1:
            self._end()

    def _end(self) -> NoReturn:
        raise Stopped

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let a step come to its end, so that what it did is also told."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            if self.asked:
                self._end()


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


def _named(app: Topology) -> dict[str, Keys]:
    """Return the partitions of an app by their names for people; one that is all there is has the app's."""
    if len(app.all) == 1:
        return {app.app: app.first}
    return {f"{app.app} (partition {keys.partition})": keys for keys in app.all}


def _tell(app: str, incarnation: str, moves: Sequence[Move], verb: str = "recovered") -> None:
    """Print what became of an incarnation's messages."""
    from taskq.message.ids import id_to_text

    click.echo(f"{app}: {verb} {count(len(moves), 'message')} of incarnation {incarnation}, whose lease ended")
    for move in moves:
        place = _PLACES.get(move.place, move.place + " {queue}").format(queue=move.queue)
        click.echo(f"  {id_to_text(move.id)}  {place}")


def _teller(app: str) -> Report:
    """Return a report for `Reaper` that prints."""
    return lambda incarnation, moves: _tell(app, incarnation, moves)


def _look(broker: Broker, given: tuple[str, ...]) -> None:
    """Print what a pass would do now; only reads."""
    from taskq.broker.onward import on_their_way
    from taskq.upkeep.one_pass import prospect

    for app in _apps(broker, given):
        for name, keys in _named(app).items():
            _foretell(name, broker.perform(prospect(keys)))
        if number := broker.perform(on_their_way(app)):
            click.echo(f"{app.app}: would carry {count(number, 'message')} over to another partition")


def _foretell(name: str, there: Prospect) -> None:
    for incarnation, moves in there.moves.items():
        _tell(name, incarnation, moves, "would recover")
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
    passes = [Pass(keys, name, _teller(name), _say) for app in apps for name, keys in _named(app).items()]
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


# -- the daemon ------------------------------------------------------------------------------------------


class Daemon:
    """Looks after every app until it is stopped."""

    def __init__(self, broker: Broker, names: tuple[str, ...], stopping: Stopping) -> None:
        """Prepare to look after ``names``, or every app there is."""
        from taskq.broker.net.connection import Connection

        self.given = names
        self.where = broker.where
        self.stopping = stopping
        self._connection = Connection(broker.url)
        self._name = f"reaper.{socket.gethostname()}.{os.getpid()}"
        self._looked_after: dict[str, tuple[Topology, float]] = {}
        self._upkeeps: dict[str, Upkeep] = {}
        self._reapers: dict[str, Reaper] = {}
        self._again_at: dict[str, float] = {}
        self._reread_at = 0.0
        self._down = False
        self._spoilt: set[str] = set()

    def run(self) -> None:
        """Do the upkeep; ends only by `Stopped`."""
        from taskq.broker.faults import NotSent, Passing, Unanswered, backoff

        click.echo(f"taskq reaper at {self.where}, for {', '.join(self.given) or 'all apps'}", err=True)
        attempt = 0
        while True:
            try:
                self._turn()
                self._wait()
                attempt = 0
            except (NotSent, Unanswered, Passing, BrokerRefused) as error:
                self._say_down(error)
                self._again_at = dict.fromkeys(self._again_at, 0.0)
                time.sleep(backoff(attempt, 1.0))
                attempt += 1

    def _say_down(self, error: Exception) -> None:
        if not self._down:
            click.echo(f"taskq reaper: no answer from {self.where}: {error}; trying again", err=True)
            self._down = True

    def _turn(self) -> None:
        """Do what is due now."""
        from taskq.broker.protocol import drive

        if time.monotonic() >= self._reread_at:
            self._read_apps()
        for name, reaper in self._reapers.items():
            if time.monotonic() >= self._again_at[name]:
                with self.stopping.step():
                    again = drive(reaper.step(), self._connection)
                self._again_at[name] = time.monotonic() + again
        if self._down:
            click.echo(f"taskq reaper: {self.where} answers again", err=True)
            self._down = False

    def _read_apps(self) -> None:
        """Learn of new apps, and of changed leases."""
        from taskq.broker.commands import announcing
        from taskq.broker.net.connection import Connection
        from taskq.broker.protocol import drive
        from taskq.broker.topology import read_topology
        from taskq.spelling import guess
        from taskq.upkeep.housekeeping import Upkeep
        from taskq.upkeep.one_pass import lease_of
        from taskq.upkeep.reaper import Reaper

        complete = True
        there = self._connection.execute(announcing.known_apps())
        names = list(self.given) or there
        for name in names:
            if name not in there and name not in self._looked_after:
                click.echo(f"taskq reaper: no worker of app {name} has been here yet{guess(name, there)}", err=True)
            try:
                app = drive(read_topology(name), self._connection)
                settings = self._connection.execute(announcing.read_settings(app.first))
            except BrokerRefused as error:  # one app that somebody has spoilt is in no other's way
                if name not in self._spoilt:
                    click.echo(f"taskq reaper: cannot look after {name}: {error}", err=True)
                self._spoilt.add(name)
                continue
            self._spoilt.discard(name)
            complete = complete and b"lease" in settings
            lease = lease_of(settings)
            known = self._looked_after.get(name)
            if known == (app, lease):
                continue
            self._looked_after[name] = app, lease
            if known is None or known[0] != app:
                self._end_upkeep(name)
                self._upkeeps[name] = Upkeep(app, Connection(self._connection.url))
                self._upkeeps[name].start()
            for part, keys in _named(app).items():
                self._reapers[part] = Reaper(keys, self._name, lease, _teller(part))
                self._again_at[part] = 0.0
            click.echo(f"taskq reaper: looking after {name}, lease {lease:g} s", err=True)
        self._reread_at = time.monotonic() + (_REREAD if names and complete else _REREAD_SOON)

    def _end_upkeep(self, name: str) -> None:
        """Look no longer after the partitions that an app had: it has others now."""
        if (upkeep := self._upkeeps.pop(name, None)) is not None:
            upkeep.end()
        for part in [part for part, reaper in self._reapers.items() if reaper.keys.app == name]:
            del self._reapers[part], self._again_at[part]

    def _wait(self) -> None:
        """Wait until something is due; an alarm of a single app also ends it."""
        from taskq.broker.protocol import drive
        from taskq.upkeep.reaper import listen

        until = min([self._reread_at, *self._again_at.values()])
        seconds = until - time.monotonic()
        if seconds <= 0:
            return
        if len(self._looked_after) != 1:
            time.sleep(seconds)
            return
        alarms = {reaper.keys["alarm"]: name for name, reaper in self._reapers.items()}
        rang = drive(listen(list(alarms), seconds), self._connection)
        if rang is not None:
            self._again_at[alarms[rang[0]]] = 0.0
