"""Outcomes as the words that ``fetch.lua`` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from taskq.message.outcome import Again, Dead, Ended, Outcome, Passed, Returned, SlowDown

if TYPE_CHECKING:
    from taskq.broker.call import Arg


#: How many successes make a group at most: a script unpacks it.
_GROUP = 1000


def words(outcomes: Iterable[Outcome], result_ttl_ms: int) -> list[Arg]:
    """Write outcomes as the arguments ``fetch.lua`` takes; the successes first, in groups."""
    plain: list[bytes] = []
    stored: list[bytes] = []
    results: list[bytes] = []
    rest: list[Arg] = []
    returned: list[Passed | SlowDown | Returned] = []
    for outcome in outcomes:
        if type(outcome) is tuple and len(outcome[0]) == 16:
            if outcome[1]:
                stored.append(outcome[0])
                results.append(outcome[1])
            else:
                plain.append(outcome[0])
        elif isinstance(outcome, (SlowDown, Returned)) or (isinstance(outcome, Passed) and outcome.again):
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
        case Again(raw_id, value, delay, counter, queue):
            ms = max(0, round(delay * 1000))
            return [b"move", raw_id, value, ms, queue] if queue else [b"schedule", raw_id, value, ms, counter]
        case Passed(raw_id, value, delay, again):
            return [b"pass", raw_id, value, max(0, round(delay * 1000)), b"1" if again else b""]
        case SlowDown(raw_id, delay):
            return [b"limit", raw_id, max(0, round(delay * 1000))]
        case _:
            return [b"return", outcome.id]
