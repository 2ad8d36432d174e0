"""What is asked of and about the fleet: how each worker is, what its lanes hold, words for its parent."""

from __future__ import annotations

from typing import Any, NamedTuple

from taskq.broker.call import Command, as_dict, readable, scores
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def report(keys: Keys, worker: str, seconds: float, text: bytes) -> Command[int]:
    """Say how a worker (its id) is, for others to read for so long; empty ``text``: it goes."""
    return Command(script("report"), [keys.prefix, worker, int(seconds * 1000), text], int)


def order(keys: Keys, worker: str, word: str) -> Command[bool]:
    """Leave a word for a worker's parent, by the worker's id; answers whether it lives."""
    return Command(script("order"), [keys.prefix, worker, word], bool)


class Held(NamedTuple):
    """A message that an incarnation holds.

    Attributes:
        since: When it was taken, in seconds since the epoch.
        alone: Whether it was taken as a suspect.
        passed: The gates whose slots its end will free.
    """

    id: bytes
    queue: str
    since: float
    alone: bool
    passed: tuple[str, ...]


def held(keys: Keys, incarnation: str) -> Command[list[Held]]:
    """What an incarnation holds."""

    def parse(reply: Any) -> list[Held]:
        return [_held(raw_id, stored) for raw_id, stored in as_dict(reply).items()]

    return Command(None, [b"HGETALL", keys["processing:" + incarnation]], parse)


def _held(raw_id: bytes, stored: bytes) -> Held:
    taken, *passed = readable(stored).split("\n")
    at, _, queue = taken.removeprefix("!").partition(" ")
    since = int(at) / 1000 if at.isdecimal() else 0.0
    return Held(raw_id, queue, since, taken[:1] == "!", tuple(name for name in passed if name[:1] != "*"))


def reports(keys: Keys) -> Command[dict[str, bytes]]:
    """What each worker says of itself now, by its id (opaque)."""
    return Command(
        None, [b"HGETALL", keys["fleet"]], lambda r: {readable(name): text for name, text in as_dict(r).items()}
    )


def report_ends(keys: Keys) -> Command[dict[str, float]]:
    """Until when the word of each worker holds, by its id; seconds since the epoch."""
    return Command(None, [b"ZRANGE", keys["fleet-ends"], 0, -1, b"WITHSCORES"], scores)


def leases(keys: Keys) -> Command[dict[str, float]]:
    """When the lease of each incarnation ends, in seconds since the epoch."""
    return Command(None, [b"ZRANGE", keys["leases"], 0, -1, b"WITHSCORES"], scores)
