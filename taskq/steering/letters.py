"""Replaying and purging dead letters, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence

from taskq.broker.commands import steering
from taskq.broker.onward import carry, send_on
from taskq.broker.protocol import Protocol
from taskq.message.letters import ACCEPTED, UNSERVED
from taskq.message.stored import with_queue
from taskq.views.letters import DEATHS, DeadLetter

#: Headers that count what happened to a message: a replayed one begins anew.
HISTORY = ("retries", "of", "first", "idle", "slept", "error", "unknown")
#: How many bytes are kept of what a message died of before it was replayed (a worker reads a message that has become
#: larger by 4096), and how many characters of an error.
_DEATHS_MAX, _ERROR_MAX = 2000, 200


def replay(letters: Sequence[DeadLetter], to: str | None = None) -> Protocol[list[bool | None]]:
    """Put dead letters back into their queues, or all into the queue ``to``, as if new; what they died of is kept.

    Answers of each whether it was still there; None if it stays dead: it is unique work that another message is by now,
    or a message or a result of its id is in the other queue's partition.
    """
    answers = []
    for letter in letters:
        answers.append((yield from _replay(letter, to or letter.queue)))
    return answers


def _replay(letter: DeadLetter, to: str) -> Protocol[bool | None]:
    value = _fresh_value(letter)
    if to == letter.queue:
        done: bool | None = yield steering.replay(letter.keys, letter.queue, letter.id, value)
        return done
    if not value:
        return None  # it cannot be read, so nobody can say where it belongs
    value = with_queue(value, to)
    if letter.partitions.of(to) == letter.keys:
        done = yield steering.replay(letter.keys, letter.queue, letter.id, value, to)
        return done
    if not (yield send_on(letter.keys, letter.queue, letter.id, to, value)):
        return False
    answer = yield from carry(letter.partitions, letter.keys, (letter.id, to, value))
    return True if answer in (ACCEPTED, UNSERVED) else None


def purge(letters: Sequence[DeadLetter]) -> Protocol[int]:
    """Delete dead letters, at most a thousand of a queue, for good; answers how many were still there."""
    of_queue: dict[tuple[bytes, str], list[DeadLetter]] = {}
    for letter in letters:
        of_queue.setdefault((letter.keys.prefix, letter.queue), []).append(letter)
    gone = 0
    for (_, queue), some in of_queue.items():
        gone += yield steering.purge(some[0].keys, queue, [letter.id for letter in some])
    return gone


def _fresh_value(letter: DeadLetter) -> bytes:
    """Return the value to replay it with, its history forgotten; empty to leave it as it is."""
    if letter.envelope is None:
        return b""
    headers = {name: value for name, value in letter.envelope.headers.items() if name not in HISTORY}
    error = " ".join("".join(c if c.isprintable() else " " for c in letter.error).split())
    short = error if len(error) <= _ERROR_MAX else error[: _ERROR_MAX - 1] + "…"
    deaths = [*letter.deaths, (int(letter.died * 1000), letter.reason, short)]
    while sum(20 + len(why.encode() + error.encode()) for _, why, error in deaths) > _DEATHS_MAX:
        del deaths[0]
    return letter.envelope.with_headers({**headers, DEATHS: deaths})
