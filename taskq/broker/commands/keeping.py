"""What upkeep asks: to recover what lost incarnations held, to promote what is due, to let old dead letters go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from taskq.broker.call import Command, readable
from taskq.broker.commands.leasing import Move, moves
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.broker.ticks import DueTick


@dataclass(frozen=True, slots=True)
class Stray:
    """A queue that nobody serves.

    Attributes:
        queue: Its name.
        waiting: Messages that go on waiting there.
        task: The task of the first of them.
        handed_on: How many went to workers that know their task under another queue.
        given_up: How many are dead letters now, since no live worker knows their task.
    """

    queue: str
    waiting: int
    task: str
    handed_on: int
    given_up: int


def adopt(keys: Keys, unknown_after_ms: int, detail: bytes, queues: Iterable[str]) -> Command[list[Stray]]:
    """Look at queues that nobody may serve."""

    def parse(reply: Any) -> list[Stray]:
        rows = (reply[i : i + 5] for i in range(0, len(reply), 5))
        return [Stray(row[0].decode(), row[1], row[2].decode(), row[3], row[4]) for row in rows]

    return Command(script("adopt"), [keys.prefix, unknown_after_ms, detail, *queues], parse)


@dataclass(slots=True)
class Reaping:
    """What a reaping did.

    Attributes:
        next_end: Seconds until the caller is to come again; None: there is no lease.
        moves: The moves of its messages, by incarnation.
        unfinished: Incarnations of which there is more, for another call.
        failed: Incarnations that cannot be recovered, and why.
    """

    next_end: float | None
    moves: dict[str, list[Move]]
    unfinished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


def _reaping(reply: Any) -> Reaping:
    next_ms, at = int(reply[0]), 1
    reaping = Reaping(None if next_ms < 0 else next_ms / 1000, {})
    while at < len(reply):
        inc, n = readable(reply[at]), reply[at + 1]
        at += 2
        if isinstance(n, bytes):
            reaping.failed[inc] = readable(n)
            continue
        if n < 0:
            reaping.unfinished.add(inc)
        reaping.moves[inc] = moves(reply[at : at + 3 * abs(n)])
        at += 3 * abs(n)
    return reaping


def reap(keys: Keys, limit: int, *, dry_run: bool = False) -> Command[Reaping]:
    """Recover what incarnations with an ended lease held."""
    return Command(script("reap"), [keys.prefix, limit, int(dry_run)], _reaping)


@dataclass(slots=True)
class Promotion:
    """What a promotion did and found.

    Attributes:
        moved: Messages that went to their queues.
        wait: Seconds until the caller should come again; None: need not.
        now: Server time in ms.
        ticks: Ticks of periodic entries that are due.
        more: Whether more of them may be due.
    """

    moved: int
    wait: float | None
    now: float
    ticks: list[DueTick]
    more: bool = False


def _promotion(reply: Any) -> Promotion:
    moved, wait_ms, now, more, *found = reply
    ticks = [
        DueTick(readable(found[i]), found[i + 1], int(found[i + 2]) if found[i + 2].isdigit() else None, found[i + 3])
        for i in range(0, len(found), 4)
    ]
    return Promotion(moved, None if int(wait_ms) < 0 else int(wait_ms) / 1000, float(now), ticks, bool(more))


def promote(keys: Keys, who: str, limit: int, keep_ms: int, skip: int = 0) -> Command[Promotion]:
    """Move what is due, and name the ticks that are, but for the first ``skip``."""
    return Command(script("promote"), [keys.prefix, who, limit, keep_ms, skip], _promotion)


def retire(keys: Keys, limit: int, queues: Iterable[str]) -> Command[int]:
    """Purge dead letters past their time."""
    return Command(script("retire"), [keys.prefix, limit, *queues], int)


def keep_minute(keys: Keys) -> Command[int]:
    """Keep the ledger as it is now, to tell by it how fast queues go."""
    return Command(script("minute"), [keys.prefix], int)
