"""``taskq reaper``: the upkeep of every app on a server, without any app's code.

Which apps there are and which windows they go by is read from the server, where the workers write it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
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
    from taskq.upkeep.reaper import Reaper

_LEVELS = ["debug", "info", "warning", "error", "critical"]

#: Seconds after which the apps and their settings are read again; the same while an app has none, or there is no app.
_REREAD, _REREAD_SOON = 5.0, 1.0
#: Seconds of lease of an app whose workers have not said theirs.
_LEASE = 15.0
#: Incarnations looked at and recovered, messages promoted, dead letters of a queue purged: in one call.
_LOOK_LIMIT, _REAP_LIMIT, _PROMOTE_LIMIT, _PURGE_LIMIT = 1000, 10, 500, 500

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

    Every worker does this too; a reaper apart helps where all the workers of an app may be gone at once. Any number
    may run. With --once it may have to wait: where nobody renewed leases lately, each that has ended gets one fresh
    lease first. SIGTERM or Ctrl-C: end after the step at hand. Exit codes: 0 done, 2 wrong usage or no such server.
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


def _names(broker: Broker, given: tuple[str, ...]) -> list[str]:
    """Return the apps to look after once.

    Raises:
        ConfigError: One that is given is not on the server.
    """
    from taskq.broker.commands import announcing
    from taskq.cli.names import unknown

    known = broker.run(announcing.known_apps())
    for name in given:
        if name not in known:
            raise unknown("app", name, broker.where, known)
    if not given and not known:
        click.echo(f"taskq reaper: no app at {broker.where} yet: no worker has ever been here", err=True)
    return list(dict.fromkeys(given)) or known


def _lease_in(settings: dict[bytes, bytes]) -> float:
    """Return the lease that an app's workers published, in seconds."""
    raw = settings.get(b"lease", b"")
    return int(raw) / 1000 if raw.isdigit() else _LEASE


def _tell(app: str, incarnation: str, moves: list[Move], verb: str = "recovered") -> None:
    """Print what became of an incarnation's messages."""
    from taskq.message.envelope import id_to_text

    click.echo(f"{app}: {verb} {count(len(moves), 'message')} of incarnation {incarnation}, whose lease ended")
    for move in moves:
        place = _PLACES.get(move.place, move.place + " {queue}").format(queue=move.queue)
        click.echo(f"  {id_to_text(move.id)}  {place}")


def _look(broker: Broker, given: tuple[str, ...]) -> None:
    """Print what a pass would do now; only reads."""
    from taskq.broker.commands import announcing, keeping, looking
    from taskq.broker.keys import Keys

    for name in _names(broker, given):
        keys = Keys(name)
        lease = _lease_in(broker.run(announcing.read_settings(keys)))
        reaping = broker.run(keeping.reap(keys, _LOOK_LIMIT, dry_run=True))
        now = broker.run(looking.server_time())
        quiet = now - broker.run(looking.last_pulse(keys)) > lease / 2
        for incarnation, moves in reaping.moves.items():
            _tell(name, incarnation, moves, "would recover")
        if reaping.moves and quiet:
            click.echo(f"{name}: nobody renewed leases lately, so each would first get a fresh one of {lease:g} s")
        due = broker.run(looking.count_until(keys, "schedule", now))
        old = sum(
            broker.run(looking.count_until(keys, f"dead:{queue}", now - ttl)) for queue, ttl in _dead_ttls(broker, keys)
        )
        ticks = broker.run(looking.count_until(keys, "ticks", now))
        click.echo(
            f"{name}: would promote {count(due, 'due message')}, purge {count(old, 'old dead letter')}"
            + (f", look at {count(ticks, 'periodic tick')}" if ticks else "")
        )


def _dead_ttls(broker: Broker, keys: Keys) -> list[tuple[str, float]]:
    """Return the queues with dead letters, and how long those are kept, in seconds; none if they are kept for ever."""
    from taskq.broker.commands import announcing, looking

    raw = broker.run(announcing.read_settings(keys)).get(b"dead_ttl", b"")
    if not raw.isdigit():
        return []
    queues = broker.run(looking.survey(keys))
    return [(queue, int(raw) / 1000) for queue, survey in queues.items() if survey.dead]


# -- a single pass ---------------------------------------------------------------------------------------


class Pass:
    """One pass over an app: it ends when no lease that had ended at its start is left."""

    def __init__(self, broker: Broker, name: str) -> None:
        """Note which leases have ended."""
        from taskq.broker.commands import announcing, keeping
        from taskq.broker.keys import Keys

        self.broker = broker
        self.name = name
        self.keys = Keys(name)
        self.lease = _lease_in(broker.run(announcing.read_settings(self.keys)))
        self.again_at = 0.0
        self._ended = set(broker.run(keeping.reap(self.keys, _LOOK_LIMIT, dry_run=True)).moves)
        self._fresh: dict[str, float] = {}
        self._turned_at = 0.0
        self._messages = self._incarnations = 0

    def turn(self) -> bool:
        """Do what can be done now; answers whether the pass has ended, and sets ``again_at`` if not."""
        from taskq.broker.commands import keeping

        last, self._turned_at = self._turned_at, time.monotonic()
        while True:
            reaping = self.broker.run(keeping.reap(self.keys, _REAP_LIMIT))
            for incarnation, moves in reaping.moves.items():
                _tell(self.name, incarnation, moves)
                self._messages += len(moves)
                if incarnation not in reaping.unfinished:
                    self._ended.discard(incarnation)
                    self._incarnations += 1
            for incarnation, why in reaping.failed.items():
                click.echo(f"{self.name}: what {incarnation} held cannot be recovered: {why}", err=True)
                self._ended.discard(incarnation)
            if len(reaping.moves) + len(reaping.failed) < _REAP_LIMIT and not reaping.unfinished:
                break
        self._follow_leases(late=time.monotonic() - last > self.lease / 2)
        if self._ended:
            # Not too late for the pulse: whoever is silent for half a lease makes all leases fresh again.
            next_end = self.lease if reaping.next_end is None else reaping.next_end
            self.again_at = time.monotonic() + min(self.lease / 3, next_end + 0.01)
            return False
        self._finish()
        return True

    def _follow_leases(self, late: bool) -> None:
        """Forget those whose workers live after all, or whom another reaper has recovered.

        If this turn was too ``late`` for the pulse, it has itself made leases fresh again.
        """
        from taskq.broker.commands import looking

        if not self._ended:
            return
        names = sorted(self._ended)
        ends = dict(zip(names, self.broker.run(looking.lease_ends(self.keys, names)), strict=True))
        if not self._fresh:
            self._fresh = {name: end for name, end in ends.items() if end is not None}
            click.echo(
                f"{self.name}: nobody renewed leases lately, so {count(len(self._fresh), 'ended lease')} "
                f"got a fresh one first: waiting up to {self.lease:g} s",
                err=True,
            )
        for name, end in ends.items():
            if end is None:
                click.echo(f"{self.name}: incarnation {name} was recovered by another, or closed", err=True)
                self._ended.discard(name)
            elif late:
                self._fresh[name] = end
            elif end > self._fresh.get(name, end):
                click.echo(f"{self.name}: incarnation {name} lives: its lease was renewed", err=True)
                self._ended.discard(name)

    def _finish(self) -> None:
        """Promote what is due, send ticks, purge old dead letters, and say what was done in all."""
        from taskq.broker.commands import keeping, ticking
        from taskq.periodic.entry import Ticker
        from taskq.upkeep.reaper import TICKS

        ticker = Ticker()
        promoted = purged = sent = skip = 0
        while True:
            # For 0 ms: a pass must not become the keeper of the schedule's time, since it goes away.
            due = self.broker.run(keeping.promote(self.keys, f"once.{os.getpid()}", _PROMOTE_LIMIT, 0, skip))
            promoted += due.moved
            steps = ticker.steps(due.ticks, due.now)
            answers = self.broker.run(ticking.take_ticks(self.keys, steps)) if steps else b""
            sent += answers.count(b"+") + answers.count(b"-")
            if answers.strip(b"x"):
                continue
            if due.moved < _PROMOTE_LIMIT and not due.more:
                break
            skip += TICKS if due.more else 0  # of those nothing can be made here
        queues = [queue for queue, _ in _dead_ttls(self.broker, self.keys)]
        while gone := self.broker.run(keeping.retire(self.keys, _PURGE_LIMIT, queues)):
            purged += gone
        click.echo(
            f"{self.name}: recovered {count(self._messages, 'message')} of {count(self._incarnations, 'incarnation')}"
            f", promoted {count(promoted, 'due message')}, purged {count(purged, 'old dead letter')}"
            + (f", sent {count(sent, 'periodic tick')}" if sent else "")
        )


def _pass(broker: Broker, given: tuple[str, ...], stopping: Stopping) -> None:
    """Make one pass over every app; those that must wait do so at the same time."""
    passes = [Pass(broker, name) for name in _names(broker, given)]
    while passes:
        left = []
        for one in passes:
            if time.monotonic() < one.again_at:
                left.append(one)
                continue
            with stopping.step():
                ended = one.turn()
            if not ended:
                left.append(one)
        passes = left
        if passes:
            time.sleep(max(0.0, min(one.again_at for one in passes) - time.monotonic()))


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
        from taskq.broker.keys import Keys
        from taskq.broker.net.connection import Connection
        from taskq.spelling import guess
        from taskq.upkeep.housekeeping import Upkeep
        from taskq.upkeep.reaper import Reaper

        complete = True
        there = self._connection.execute(announcing.known_apps())
        names = list(self.given) or there
        for name in names:
            if name not in there and name not in self._reapers:
                click.echo(f"taskq reaper: no worker of app {name} has been here yet{guess(name, there)}", err=True)
            keys = Keys(name)
            try:
                settings = self._connection.execute(announcing.read_settings(keys))
            except BrokerRefused as error:  # one app that somebody has spoilt is in no other's way
                if name not in self._spoilt:
                    click.echo(f"taskq reaper: cannot look after {name}: {error}", err=True)
                self._spoilt.add(name)
                continue
            self._spoilt.discard(name)
            complete = complete and b"lease" in settings
            lease = _lease_in(settings)
            known = self._reapers.get(name)
            if known is None:
                Upkeep(keys, Connection(self._connection.url)).start()
            if known is None or known.interval != lease / 3:
                self._reapers[name] = Reaper(keys, self._name, lease, _teller(name))
                self._again_at[name] = 0.0
                click.echo(f"taskq reaper: looking after {name}, lease {lease:g} s", err=True)
        self._reread_at = time.monotonic() + (_REREAD if names and complete else _REREAD_SOON)

    def _wait(self) -> None:
        """Wait until something is due; a single app's alarm also ends it."""
        from taskq.broker.protocol import drive

        until = min([self._reread_at, *self._again_at.values()])
        seconds = until - time.monotonic()
        if seconds <= 0:
            return
        if len(self._reapers) != 1:
            time.sleep(seconds)
            return
        (name, reaper), *_ = self._reapers.items()
        if drive(reaper.wait(["alarm"], seconds), self._connection) is not None:
            self._again_at[name] = 0.0


def _teller(app: str) -> Any:
    """Return a report for `Reaper` that prints."""
    return lambda incarnation, moves: _tell(app, incarnation, moves)
