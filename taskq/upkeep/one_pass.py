"""One pass over an app: what a reaper does, once and with an end, told as it goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from taskq.broker.commands import announcing, keeping, looking
from taskq.broker.commands.leasing import Move
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol
from taskq.upkeep.reaper import Reaper, Report

#: Seconds of lease of an app whose workers have not said theirs.
_LEASE = 15.0
#: Incarnations looked at, dead letters of a queue purged: in one call.
_LOOK_LIMIT, _PURGE_LIMIT = 1000, 500

#: What else than a recovery can become of incarnations whose leases had ended: they get fresh ones first, since nobody
#: renewed any lately; another reaper has recovered them, or they were closed; they live, for their leases were renewed.
News = Literal["fresh", "gone", "lives"]


def lease_of(settings: Mapping[bytes, bytes]) -> float:
    """Return the lease that an app's workers have published, in seconds."""
    raw = settings.get(b"lease", b"")
    return int(raw) / 1000 if raw.isdigit() else _LEASE


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a pass would do now.

    Attributes:
        moves: What would become of messages, by the incarnation that holds them.
        fresh: Whether each of these would first get a fresh lease, since nobody renewed any lately.
        lease: That of the app, in seconds.
        due: Messages to be promoted.
        old: Dead letters to be purged.
        ticks: Periodic entries that are due.
    """

    moves: Mapping[str, Sequence[Move]]
    fresh: bool
    lease: float
    due: int
    old: int
    ticks: int


def prospect(keys: Keys) -> Protocol[Prospect]:
    """Look at what a pass would do; only reads."""
    settings: dict[bytes, bytes] = yield announcing.read_settings(keys)
    lease = lease_of(settings)
    reaping: keeping.Reaping = yield keeping.reap(keys, _LOOK_LIMIT, dry_run=True)
    now: float = yield looking.server_time()
    quiet = now - (yield looking.last_pulse(keys)) > lease / 2
    old, ttl = 0, settings.get(b"dead_ttl", b"")
    for queue in (yield from _with_dead_letters(keys)) if ttl.isdigit() else ():
        old += yield looking.count_until(keys, f"dead:{queue}", now - int(ttl) / 1000)
    due: int = yield looking.count_until(keys, "schedule", now)
    ticks: int = yield looking.count_until(keys, "ticks", now)
    return Prospect(reaping.moves, bool(reaping.moves) and quiet, lease, due, old, ticks)


def _with_dead_letters(keys: Keys) -> Protocol[list[str]]:
    surveys = yield looking.survey(keys)
    return [queue for queue, survey in surveys.items() if survey.dead]


class Pass:
    """One pass over a partition of an app: it ends when no lease that had ended at its start is left.

    Attributes:
        keys: Those of the partition.
        name: Its name for people.
        lease: That of the app, in seconds; known after the first turn.
        again_at: When the next turn is due, by `taskq.broker.protocol.boottime`.
        done: What was done so far: messages, incarnations, promoted, purged, ticks.
    """

    def __init__(self, keys: Keys, name: str, report: Report, tell: Callable[[Pass, News, list[str]], None]) -> None:
        """Prepare; ``report`` is told of each recovery, ``tell`` of what else becomes of which incarnations."""
        self.keys = keys
        self.name = name
        self.lease = _LEASE
        self.again_at = 0.0
        self.done: Counter[str] = Counter()
        self._report = report
        self._tell = tell
        self._reaper: Reaper | None = None
        self._ended: set[str] = set()
        self._recovered: set[str] = set()
        self._fresh: dict[str, float] = {}
        self._turned_at = 0.0

    def _begin(self) -> Protocol[Reaper]:
        """Note which leases have ended."""
        self.lease = lease_of((yield announcing.read_settings(self.keys)))
        reaping: keeping.Reaping = yield keeping.reap(self.keys, _LOOK_LIMIT, dry_run=True)
        self._ended = {*reaping.moves}
        # It must not become the keeper of the schedule's time, since it goes away.
        return Reaper(self.keys, f"once.{os.getpid()}", self.lease, self._on_recovered, keeps=False)

    def _on_recovered(self, incarnation: str, moves: list[Move]) -> None:
        self._report(incarnation, moves)
        self._recovered.add(incarnation)
        self.done["messages"] += len(moves)

    def turn(self) -> Protocol[bool]:
        """Do what can be done now; answers whether the pass has ended, and sets ``again_at`` if not."""
        reaper = self._reaper = self._reaper or (yield from self._begin())
        last, self._turned_at = self._turned_at or (yield Now()), (yield Now())
        while not (again := (yield from reaper.reap())):
            pass
        yield from self._follow_leases(reaper, late=(yield Now()) - last > self.lease / 2)
        if self._ended:
            # Not too late for the pulse: whoever is silent for half a lease makes all leases fresh again.
            self.again_at = (yield Now()) + min(self.lease / 3, again)
            return False
        self.done["incarnations"] = len(self._recovered)
        yield from self._finish(reaper)
        return True

    def _follow_leases(self, reaper: Reaper, late: bool) -> Protocol[None]:
        """Forget those whose workers live after all, or whom another reaper has recovered.

        If this turn was too ``late`` for the pulse, it has itself made leases fresh again.
        """
        self._ended -= {*reaper.failed, *self._recovered}
        if not self._ended:
            return
        names = sorted(self._ended)
        ends = dict(zip(names, (yield looking.lease_ends(self.keys, names)), strict=True))
        if not self._fresh:
            self._fresh = {name: end for name, end in ends.items() if end is not None}
            if self._fresh:
                self._tell(self, "fresh", [*self._fresh])
        for name, end in ends.items():
            if end is None:
                self._tell(self, "gone", [name])
                self._ended.discard(name)
            elif late:
                self._fresh[name] = end
            elif end > self._fresh.get(name, end):
                self._tell(self, "lives", [name])
                self._ended.discard(name)

    def _finish(self, reaper: Reaper) -> Protocol[None]:
        """Promote what is due, send ticks, purge old dead letters."""
        done = -1
        while done != (done := reaper.promoted + reaper.ticks.taken.total()) or reaper.behind:
            yield from reaper.promote()
        self.done.update(promoted=reaper.promoted, ticks=reaper.ticks.taken["+"] + reaper.ticks.taken["-"])
        queues = yield from _with_dead_letters(self.keys)
        while gone := (yield keeping.retire(self.keys, _PURGE_LIMIT, queues)):
            self.done["purged"] += gone
