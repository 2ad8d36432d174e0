"""How a delivery can end, and how a worker tells the server (the groups of ``fetch.lua``).

A stored result is one letter and a payload: ``S`` and the value as the codec wrote it, ``F`` and what is known of the
exception (a msgpack map), ``D`` and the reason a script gave a message up, ``X`` and the reason it was discarded (of a
revoked one also, on a line of its own, why it was).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from taskq.errors import DecodeError
from taskq.message import codec

if TYPE_CHECKING:
    from taskq.broker.commands import Arg

SUCCESS, FAILURE, GIVEN_UP, DISCARDED = b"S", b"F", b"D", b"X"
#: How many successes make a group at most: a script unpacks it.
_GROUP = 1000


#: The task returned: the id, and what to store (empty for nothing). A plain pair, for there are many.
Done = tuple[bytes, bytes]


@dataclass(slots=True)
class Ended:
    """Terminal without a dead letter; ``counter`` is ``failed``, ``discarded``, or ``done`` (revoked while it ran)."""

    id: bytes
    counter: str
    result: bytes


@dataclass(slots=True)
class Dead:
    """Given up and kept: ``reason`` is a word of the documented list, ``detail`` says more (see `error_detail`)."""

    id: bytes
    reason: str
    detail: bytes
    result: bytes


@dataclass(slots=True)
class Again:
    """To run again ``delay`` seconds from now, as ``value``; ``counter`` is ``retried`` or ``deferred``."""

    id: bytes
    value: bytes
    delay: float
    counter: str


@dataclass(slots=True)
class Passed:
    """Not run here: to a lane, or a worker, that runs its task; anybody is to look at it again in ``delay`` seconds.

    ``value`` is what to store instead, empty for nothing; ``again`` says that it has been passed on before.
    """

    id: bytes
    value: bytes
    delay: float
    again: bool


@dataclass(slots=True)
class Limited:
    """Told to slow down: its gate is shut for ``delay`` seconds; back to the head of its queue, uncounted."""

    id: bytes
    delay: float


@dataclass(slots=True)
class Returned:
    """Not started, or interrupted: back to the head of its queue, uncounted."""

    id: bytes


Outcome = Done | Ended | Dead | Again | Passed | Limited | Returned


def ids_of(outcomes: Iterable[Outcome]) -> list[bytes]:
    """Return the ids of the messages that ended."""
    return [outcome[0] if isinstance(outcome, tuple) else outcome.id for outcome in outcomes]


def result_of(outcome: Outcome) -> bytes:
    """Return what is stored as the result, empty for nothing."""
    if isinstance(outcome, tuple):
        return outcome[1]
    return outcome.result if isinstance(outcome, (Ended, Dead)) else b""


def error_detail(type_name: str, message: str, traceback: str = "", **more: Any) -> bytes:
    """Write what is known of an error, for a result or a dead letter."""
    return bytes(msgpack.packb({"type": type_name, "message": message, "traceback": traceback, **more}))


def read_error_detail(data: bytes) -> dict[str, Any]:
    """Read what `error_detail` wrote; unreadable bytes give an empty traceback and say so."""
    try:
        detail = codec.read(data) if data else {}
    except DecodeError:
        detail = {"message": "the detail cannot be read"}
    detail = detail if isinstance(detail, dict) else {}
    return {"type": "", "message": "", "traceback": "", **detail}


def words(outcomes: Iterable[Outcome], result_ttl_ms: int) -> list[Arg]:
    """Write outcomes as the arguments ``fetch.lua`` takes; the successes first, in groups."""
    plain: list[bytes] = []
    stored: list[bytes] = []
    results: list[bytes] = []
    rest: list[Arg] = []
    returned: list[Passed | Limited | Returned] = []
    for outcome in outcomes:
        if type(outcome) is tuple and len(outcome[0]) == 16:
            if outcome[1]:
                stored.append(outcome[0])
                results.append(outcome[1])
            else:
                plain.append(outcome[0])
        elif isinstance(outcome, (Limited, Returned)) or (isinstance(outcome, Passed) and outcome.again):
            returned.append(outcome)
        else:
            rest.extend(_group(outcome, result_ttl_ms))
    args: list[Arg] = []
    for at in range(0, len(plain), _GROUP):
        args += [b"done", b"".join(plain[at : at + _GROUP]), 0, 0]
    for at in range(0, len(stored), _GROUP):
        some = results[at : at + _GROUP]
        args += [b"done", b"".join(stored[at : at + _GROUP]), result_ttl_ms, len(some), *some]
    args += rest
    for outcome in reversed(returned):  # each goes to the head, so the last first
        args += _group(outcome, result_ttl_ms)
    return args


def _group(outcome: Outcome, ttl: int) -> list[Arg]:
    match outcome:
        case (raw_id, result):
            return [b"end", raw_id, b"done", result, ttl]
        case Ended(raw_id, counter, result):
            return [b"end", raw_id, counter, result, ttl]
        case Dead(raw_id, reason, detail, result):
            return [b"dead", raw_id, reason, detail, result, ttl]
        case Again(raw_id, value, delay, counter):
            return [b"schedule", raw_id, value, max(0, round(delay * 1000)), counter]
        case Passed(raw_id, value, delay, again):
            return [b"pass", raw_id, value, max(0, round(delay * 1000)), b"1" if again else b""]
        case Limited(raw_id, delay):
            return [b"limit", raw_id, max(0, round(delay * 1000))]
        case _:
            return [b"return", outcome.id]
