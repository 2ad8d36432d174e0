"""The audit: finds damage that no script leaves behind, but an edit by hand or a restored snapshot can, and mends it.

By the conservation law there are as many messages as ids in places. Comparing the two numbers is one cheap script; only
when they differ (or when there is little to look through) the ids themselves are walked, in chunks. Such a walk takes
time, and ids move meanwhile. So only what two walks find wrong in the same way is doubtful, and ``mend.lua`` looks at
each such id again, atomically.

Nothing must wait for this: it runs in a thread and on a connection of its own, and between any two calls it leaves the
server alone for several times as long as the call took.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from taskq.broker import call
from taskq.broker.call import Command
from taskq.broker.commands import announcing, auditing, leasing, looking
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol, Sleep
from taskq.message.ids import id_to_text
from taskq.spelling import count

log = logging.getLogger("taskq.audit")

T = TypeVar("T")

#: Ids read in one call; and how many of them again in the next, for what has come to the head of a list meanwhile.
_CHUNK, _AGAIN = 1000, 100
#: Ids mended in one call, each searched for in whole lists; or where there are many, see ``places.lua``.
_MEND, _MEND_MANY = 20, 500
#: Up to so many messages the ids are walked even if the numbers agree: one too many may hide one too few.
_FEW = 1000
#: The server is left alone for so many times as long as a call took.
_REST = 4

_LISTS = ("queue:", "suspects:", "gated:")

#: An id that may be in the wrong place, and the key where it was seen (empty for nowhere).
Doubtful = tuple[bytes, str]


def audit(keys: Keys, queues: list[str]) -> Protocol[Counter[str]]:
    """Look once; answers what was mended, by the words of ``mend.lua``. ``queues`` are all there are."""
    mended: Counter[str] = Counter()
    mended.update((yield from _recover_half_registered(keys)))
    tally = yield from paced(auditing.tally(keys, queues))
    if tally.messages != tally.placed or 0 < tally.messages <= _FEW:
        doubtful = yield from _walk(keys, tally.names)
        if doubtful:
            names = (yield from paced(auditing.tally(keys, queues))).names
            doubtful = yield from _walk(keys, names, doubtful)
        mended.update((yield from _mend(keys, list(doubtful))))
    mended.update((yield from _balance(keys, queues)))
    return mended


def paced(command: Command[T]) -> Protocol[T]:
    """Make a call, and leave the server to others for some times as long as it took."""
    began = yield Now()
    reply: T = yield command
    yield Sleep(_REST * ((yield Now()) - began))
    return reply


def scanned(keys: Keys, name: str) -> Protocol[dict[bytes, bytes]]:
    """A whole hash of any size, in pieces."""
    found: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        cursor, some = yield from paced(auditing.scan_hash(keys, name, cursor, _CHUNK))
        found.update(some)
        if cursor == b"0":
            return found


def queues_of(keys: Keys) -> Protocol[list[str]]:
    """Every queue of which anything is known."""
    counted, served = (yield from scanned(keys, "counters")), (yield from scanned(keys, "serving"))
    tasks, sets = (yield from scanned(keys, "tasks")), (yield from scanned(keys, "sets"))
    names = {field.rpartition(b"|")[0] for field in counted} | served.keys() | {*tasks.values()}
    names.update(name for joined in sets.values() for name in joined.split())
    names.discard(b"?")  # where an earlier version booked losses of nobody knew which queue
    return sorted(call.readable(name) for name in names)


def _recover_half_registered(keys: Keys) -> Protocol[Counter[str]]:
    """Recover incarnations that some keys know and others do not, and that stay so for a lease: nobody heals them."""
    half = yield from _half_registered(keys)
    if not half:
        return Counter()
    settings = yield announcing.read_settings(keys)
    lease = settings.get(b"lease", b"")
    yield Sleep(int(lease) / 1000 if lease.isdigit() else 15.0)
    recovered: Counter[str] = Counter()
    for incarnation in half & (yield from _half_registered(keys)):
        while (yield from paced(leasing.close_lost(keys, incarnation))):
            pass
        log.warning("audit: incarnation %s was half registered: what it held went back", incarnation)
        recovered["incarnations"] += 1
    return recovered


def _half_registered(keys: Keys) -> Protocol[set[str]]:
    leased, called = (yield auditing.incarnations(keys)), (yield from scanned(keys, "calls"))
    return set(leased) ^ {call.readable(name) for name in called}


def _mend(keys: Keys, doubtful: list[Doubtful]) -> Protocol[Counter[str]]:
    mended: Counter[str] = Counter()
    many = len(doubtful) > 10 * _MEND
    size = _MEND_MANY if many else _MEND
    while doubtful:
        verdicts: list[str] = yield from paced(auditing.mend(keys, doubtful[:size], many=many))
        for (raw_id, seen), verdict in zip(doubtful, verdicts, strict=False):
            if verdict != "sound":
                mended[verdict] += 1
                if sum(mended.values()) <= _MEND:
                    log.warning("audit: message %s was in the wrong place (%s): %s", id_to_text(raw_id), seen, verdict)
        doubtful = doubtful[len(verdicts) :]
    if sum(mended.values()) > _MEND:
        log.warning("audit: messages in the wrong place, in all: %s", dict(mended))
    return mended


def _balance(keys: Keys, queues: list[str]) -> Protocol[Counter[str]]:
    """Correct the ledger. What does not balance now will not balance later either, so nothing needs to stand still."""
    wrong: int = yield from paced(auditing.ledger(keys, {}))
    if wrong:
        log.warning("audit: corrected %s of what waits for its time or at gates", count(wrong, "counter"))
    surveys = yield from paced(looking.survey(keys, queues))
    missing = {queue: survey.balance for queue, survey in surveys.items() if survey.balance}
    for queue, n in missing.items():
        log.warning("audit: corrected queue %s: its ledger had %+d messages that are nowhere", queue, n)
    if missing:
        wrong += yield from paced(auditing.ledger(keys, missing))
    return Counter({"recounted": wrong}) if wrong else Counter()


class _Places:
    """Where ids were seen, and which were seen twice."""

    def __init__(self, only: set[bytes] | None) -> None:
        self.only = only
        self.of: dict[bytes, str] = {}
        self.twice: dict[bytes, str] = {}

    def note(self, ids: Iterable[bytes], name: str) -> None:
        for raw_id in ids:
            if self.only is None or raw_id in self.only:
                if raw_id in self.of:
                    self.twice[raw_id] = name
                self.of[raw_id] = name


def _walk(keys: Keys, names: list[str], before: Collection[Doubtful] = ()) -> Protocol[set[Doubtful]]:
    """Read all ids: first where they are, then which there are; answers what is doubtful, and was ``before`` if given.

    ``names`` are the keys of queues to look through.
    """
    places = _Places({raw_id for raw_id, _ in before} or None)
    for incarnation in (yield auditing.incarnations(keys)):
        places.note((yield from paced(leasing.held_ids(keys, incarnation))), "processing:" + incarnation)
    lines = [family + line for line in (yield from _lines(keys)) for family in ("gated:", "ranked:")]
    for name in [*names, *lines, "schedule"]:
        if name.startswith(_LISTS):
            yield from _walk_through(keys, name, auditing.list_length, auditing.ids_in_list, places)
        else:
            yield from _walk_through(keys, name, auditing.set_length, auditing.ids_in_set, places)
    messages: set[bytes] = set()
    cursor = b"0"
    while True:
        cursor, ids = yield from paced(auditing.scan_ids(keys, cursor, _CHUNK))
        messages.update(ids if places.only is None else places.only.intersection(ids))
        if cursor == b"0":
            break
    doubtful = set(places.twice.items())
    doubtful |= {(raw_id, name) for raw_id, name in places.of.items() if raw_id not in messages}
    doubtful |= {(raw_id, "") for raw_id in messages - places.of.keys()}
    return doubtful.intersection(before) if before else doubtful


def _lines(keys: Keys) -> Protocol[list[str]]:
    """The lines of what waits for gates, each ``<queue>|<gates>``."""
    gates = yield from scanned(keys, "gates")
    return [f"{queue}|{line}" for queue, line in auditing.lines_of(gates)]


def _walk_through(
    keys: Keys,
    name: str,
    length: Callable[[Keys, str], Command[int]],
    read: Callable[[Keys, str, int, int], Command[list[bytes]]],
    places: _Places,
) -> Protocol[None]:
    """Read a list or sorted set from its end to its head: so nothing that is taken at the head moves out of sight."""
    at: int = yield length(keys, name)
    lowest: Any = None
    while at > 0:
        first = max(0, at - _CHUNK)
        ids = yield from paced(read(keys, name, first, at + _AGAIN - 1))
        if lowest in ids:  # what it was, and what is behind it, was read before
            ids = ids[: len(ids) - 1 - ids[::-1].index(lowest)]
        places.note(ids, name)
        at, lowest = first, ids[0] if ids else lowest
