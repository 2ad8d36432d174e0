"""Recomputes what is derived from the truth: messages, deliveries, declarations.

A key that somebody deletes, or restores from an earlier time, may hold no message and still stop some: it may say which
workers to tell, which gates will open, how many slots are in use, which locks are held. The scripts that move messages
ask nothing of that; it is compared here once a minute, in pieces, and a script that looks again corrects each
difference. What follows from nothing else cannot be recomputed: pauses, limits set by hand, rates used up.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from taskq.broker import call
from taskq.broker.commands import auditing, looking, ticking
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.upkeep.audit import paced, scanned

log = logging.getLogger("taskq.audit")

T = TypeVar("T")

#: Queues, gates or entries, and fields looked at in one call.
_SOME, _FIELDS = 100, 500
#: Up to so many messages are looked through for locks that they ought to have.
_LOCKS_OF = 20_000


def restore(keys: Keys, queues: list[str]) -> Protocol[Counter[str]]:
    """Do all of it once; answers what was missing, by words."""
    found: Counter[str] = Counter()
    limits = yield from scanned(keys, "limits")
    found.update((yield from _queues(keys, queues, limits)))
    found.update((yield from _deliveries(keys, limits)))
    found.update((yield from _gates(keys)))
    found.update((yield from _leftovers(keys)))
    found.update((yield from _reasons(keys, queues)))
    found.update((yield from _locks(keys)))
    found.update((yield from _ticks(keys)))
    found = +found
    if found:
        log.warning("audit: recomputed what was missing or left over: %s", dict(found))
    return found


def _queues(keys: Keys, queues: list[str], limits: dict[bytes, bytes]) -> Protocol[Counter[str]]:
    """Marks, the sets that serve a queue, and words of what can be taken."""
    tasks, sets = (yield from scanned(keys, "tasks")), (yield from scanned(keys, "sets"))
    limited = {call.readable(queue) for task, queue in tasks.items() if task in limits or b"!" + task in limits}
    serving: dict[str, list[str]] = {}
    for name, joined in sets.items():
        for queue in call.readable(joined).split():
            serving.setdefault(queue, []).append(call.readable(name))
    paused = {call.readable(name) for name in (yield from scanned(keys, "paused")) if name[:1] != b"="}
    marked = {call.readable(name) for name in (yield from scanned(keys, "marks"))}
    names = sorted({*queues, *serving, *paused, *marked, *limited})
    found: Counter[str] = Counter()
    for some in _pieces(names, _SOME):
        asked = [(queue, queue in limited, " ".join(serving.get(queue, ()))) for queue in some]
        found.update((yield from paced(auditing.restore(keys, asked))))
    return found


def _deliveries(keys: Keys, limits: dict[bytes, bytes]) -> Protocol[Counter[str]]:
    """Slots in use, and breakers. What seems wrong twice is counted again, at one instant."""
    doubtful = yield from _doubtful(keys, limits)
    if doubtful:
        doubtful &= yield from _doubtful(keys, limits)
    wrong = 0
    for some in _pieces(sorted(doubtful), _SOME):
        wrong += yield from paced(auditing.recount(keys, some))
    return Counter(gates=wrong)


def _doubtful(keys: Keys, limits: dict[bytes, bytes]) -> Protocol[set[bytes]]:
    held: Counter[bytes] = Counter()
    for incarnation in (yield auditing.incarnations(keys)):
        for value in (yield from paced(auditing.held_values(keys, incarnation))):
            held.update(name for name in value.split(b"\n")[1:] if name[:1] != b"*")
    slots = {name: int(n) if n.isdigit() else -1 for name, n in (yield from scanned(keys, "slots")).items()}
    counted = {name: n for name, n in held.items() if not name.endswith(b"#b")}
    doubtful = {name for name in slots.keys() | counted.keys() if slots.get(name, 0) != counted.get(name, 0)}
    for task, state in (yield from scanned(keys, "breakers")).items():
        guarded = limits.get(b"!" + task, limits.get(task, b""))
        has_one = any(line[:1] in b"bB" for line in guarded.splitlines() if line)
        if not has_one or (state[:1] == b"h" and not held[task + b"#b"]):
            doubtful.add(task + b"#b")
    return doubtful


def _gates(keys: Keys) -> Protocol[Counter[str]]:
    names = list((yield from scanned(keys, "gates")))
    names += [b"=" + name.removeprefix(b"=") for name in (yield from scanned(keys, "paused"))]
    found: Counter[str] = Counter()
    for some in _pieces(names, _SOME):
        found.update((yield from paced(auditing.reopen(keys, some))))
    return found


def _leftovers(keys: Keys) -> Protocol[Counter[str]]:
    """What is kept of messages that are gone."""
    found: Counter[str] = Counter()
    for name in ("unique", "revoked", "crashes", "waiters", "reasons"):
        for some in _pieces(list((yield from scanned(keys, name))), _FIELDS):
            found[name] += yield from paced(auditing.tidy(keys, name, some))
    return found


def _reasons(keys: Keys, queues: list[str]) -> Protocol[Counter[str]]:
    """Dead letters whose reason is gone, without which they would pass for alive."""
    surveys = yield from paced(looking.survey(keys, queues))
    known: int = yield auditing.hash_length(keys, "reasons")
    dead = {queue: survey.dead for queue, survey in surveys.items() if survey.dead}
    found: Counter[str] = Counter()
    for queue, n in dead.items() if sum(dead.values()) > known else ():
        for at in range(0, n, _FIELDS):
            ids = yield from paced(auditing.ids_in_set(keys, "dead:" + queue, at, at + _FIELDS - 1))
            found["reasons"] += yield from paced(auditing.tidy(keys, "dead", ids))
    return found


def _locks(keys: Keys) -> Protocol[Counter[str]]:
    found: Counter[str] = Counter()
    if (yield auditing.hash_length(keys, "messages")) > _LOCKS_OF:
        return found
    cursor = b"0"
    while True:
        cursor, ids = yield from paced(auditing.scan_ids(keys, cursor, _FIELDS))
        if ids:
            found["locks"] += yield from paced(auditing.relock(keys, ids))
        if cursor == b"0":
            return found


def _ticks(keys: Keys) -> Protocol[Counter[str]]:
    entries = {call.readable(name) for name in (yield from scanned(keys, "periodic"))}
    silent = entries - (yield ticking.ticks_due(keys)).keys() if entries else set()
    roused = 0
    for some in _pieces(sorted(silent), _SOME):
        roused += yield from paced(auditing.rouse(keys, some))
    return Counter(ticks=roused)


def _pieces(items: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
