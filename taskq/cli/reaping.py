"""The reaper that goes on until it is stopped, and how it tells what it does."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from taskq.cli.common import Stopped
from taskq.errors import BrokerRefused
from taskq.spelling import count

if TYPE_CHECKING:
    from taskq.broker.commands.leasing import Move
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker
    from taskq.broker.topology import Topology
    from taskq.upkeep.housekeeping import Upkeep
    from taskq.upkeep.reaper import Reaper, Report

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


def named(app: Topology) -> dict[str, Keys]:
    """Return the partitions of an app by their names for people; one that is all there is has the app's."""
    if len(app.all) == 1:
        return {app.app: app.first}
    return {f"{app.app} (partition {keys.partition})": keys for keys in app.all}


def tell(app: str, incarnation: str, moves: Sequence[Move], verb: str = "recovered") -> None:
    """Print what became of an incarnation's messages."""
    from taskq.message.ids import id_to_text

    click.echo(f"{app}: {verb} {count(len(moves), 'message')} of incarnation {incarnation}, whose lease ended")
    for move in moves:
        place = _PLACES.get(move.place, move.place + " {queue}").format(queue=move.queue)
        click.echo(f"  {id_to_text(move.id)}  {place}")


def teller(app: str) -> Report:
    """Return a report for `Reaper` that prints."""
    return lambda incarnation, moves: tell(app, incarnation, moves)


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
            for part, keys in named(app).items():
                self._reapers[part] = Reaper(keys, self._name, lease, teller(part))
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
        from taskq.upkeep.listening import listen

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
