"""What operators ask: to pause, limit, revoke, replay, purge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskq.broker.call import Command, as_it_is, readable
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def replay(keys: Keys, queue: str, raw_id: bytes, value: bytes, to: str = "") -> Command[bool | None]:
    """Put a dead letter back into its queue, or into the queue ``to`` of its partition, which ``value`` names.

    Answers None if it is unique work that another message does by now.
    """
    answers = {1: True, 0: False, -1: None}
    return Command(script("replay"), [keys.prefix, queue, raw_id, value, to], answers.__getitem__)


def purge(keys: Keys, queue: str, ids: Sequence[bytes]) -> Command[int]:
    """Delete dead letters."""
    return Command(script("purge"), [keys.prefix, queue, *ids], int)


def clear(keys: Keys, queue: str, line: str, limit: int) -> Command[int]:
    """Delete some of what waits in a queue, or in one of its lines; answers how much it was."""
    return Command(script("clear"), [keys.prefix, queue, line, limit], int, repeatable=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing is taken from a queue: since when and until when (seconds since the epoch; None: until resumed)."""

    since: float
    until: float | None
    author: str
    reason: str


def read_pause(stored: bytes) -> Pause | None:
    """Read what ``pause.lua`` stored; None for nothing. What is not readable is a pause as well, of an unknown time."""
    if not stored:
        return None
    since, _, rest = readable(stored).partition(" ")
    until, _, text = rest.partition(" ")
    if not (since.isdecimal() and until.isdecimal()):
        return Pause(0.0, None, "?", readable(stored))
    author, _, reason = text.partition("\n")
    return Pause(int(since) / 1000, int(until) / 1000 or None, author, reason)


def pause(keys: Keys, name: str, seconds: float, author: str, reason: str) -> Command[bool]:
    """Let nothing more be taken of a queue or task, for ``seconds`` (0: until resumed); answers whether it was not."""
    return Command(script("pause"), [keys.prefix, name, round(seconds * 1000), f"{author}\n{reason}"], bool)


def resume(keys: Keys, name: str) -> Command[bool]:
    """Let messages of a queue or task be taken again; answers whether it was paused."""
    return Command(script("resume"), [keys.prefix, name], bool)


def limit(keys: Keys, task: str, limits: str) -> Command[bool]:
    """Set the limits of a task by hand (``-``: those of its code); answers whether there is such a task."""
    return Command(script("limit"), [keys.prefix, task, limits], bool)


def revoke(keys: Keys, raw_id: bytes, why: str) -> Command[str]:
    """Let a message not run, or run no longer; answers as ``revoke.lua`` says."""
    return Command(script("revoke"), [keys.prefix, raw_id, why], lambda reply: reply.decode())


def mark(keys: Keys, ids: Sequence[bytes], why: str) -> Command[list[bytes]]:
    """Let none of up to 1000 messages be begun, before each is revoked; answers which are alive."""
    return Command(script("mark"), [keys.prefix, why, *ids], as_it_is)
